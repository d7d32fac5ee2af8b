"""The same drops with libcap and without: libcap.so.2 is hidden from a process, in a mount namespace of its own."""
import ast
import os
import shutil
import sys

import pytest

from conftest import (
    AS_1111, BIND, CHOWN, HELD, MS_BIND, RAW, SETGID, SETPCAP, SETUID, STARTED, SYS_ADMIN, TESTS, Ended,
    c, capset, container, dropped, ends, hidden_libcap, in_child, launched, need, need_root, no_proc, own_mounts,
    path_of_libcap, prctl, run_command, saved_zero, securebits, systemd, unshare_blocked, without)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

CC = shutil.which('cc')
RIGHTS = 'Uid:', 'Gid:', 'Groups:', 'Cap', 'NoNewPrivs:', 'Seccomp:'
BOUND = STARTED['CapBnd'] if STARTED else 0
AS_STARTED = dict(user='33', group='33', supplemental_groups=['33'])


def nothing():
    pass


def keep(text, **others):
    return dict(dict(AS_1111, capabilities=text), **others)


def ends_as_1111(caps=0, **others):
    return ends(1111, 4321, caps=caps, **others)


# how the process was started, what is asked for, and the status that it ends with
CASES = {
    'a user': (nothing, AS_1111, ends_as_1111()),
    'one capability': (nothing, keep('cap_net_raw+ep'), ends_as_1111(RAW)),
    'two, one by its number': (nothing, keep('cap_net_raw,10+ep'), ends_as_1111(RAW | BIND)),
    'inheritable too': (nothing, keep('cap_net_raw+eip'), ends_as_1111(RAW, CapInh=RAW)),
    'inheritable only': (nothing, keep('cap_net_raw=i'), ends_as_1111(CapInh=RAW, CapBnd=RAW)),
    'not effective': (nothing, keep('cap_net_raw=p'), ends_as_1111(RAW, CapEff=0)),
    'one added, one taken away': (nothing, keep('cap_chown,13+ep cap_chown-ep'), ends_as_1111(RAW)),
    'the right to change user': (nothing, keep('cap_setuid+ep'), ends_as_1111(SETUID)),
    'groups': (nothing, keep('cap_chown+ep', supplemental_groups=['8', '4']), ends_as_1111(CHOWN, Groups='4 8')),
    'chroot': (nothing, keep('cap_net_raw+ep', chroot='/'), ends_as_1111(RAW)),
    'root with one': (nothing, dict(user='0', capabilities='cap_net_raw+ep'), ends(0, 0, caps=RAW)),
    'root with none': (nothing, dict(user='0', capabilities=''), ends(0, 0)),
    'root': (nothing, dict(user='0'), ends(0, 0, caps=HELD, CapBnd=BOUND, NoNewPrivs='0')),
    'root, nothing effective before': (
        lambda: capset(HELD, 0), dict(user='0'), ends(0, 0, caps=HELD, CapEff=0, CapBnd=BOUND, NoNewPrivs='0')),
    'nothing effective before': (lambda: capset(HELD, 0), keep('cap_net_raw+ep'), ends_as_1111(RAW)),
    'inheritable and ambient before': (
        lambda: (capset(HELD, HELD, BIND), prctl(47, 2, 10)), keep('cap_net_raw+ep'), ends_as_1111(RAW)),
    'started by systemd': (systemd, dict(AS_STARTED, capabilities='cap_net_bind_service+ep'),
                           ends(33, 33, '33', BIND, CapBnd=BOUND)),
    'started by systemd, nothing kept': (systemd, AS_STARTED, ends(33, 33, '33', CapBnd=BOUND)),
    'saved id 0': (saved_zero, keep('cap_net_raw+ep'), ends_as_1111(RAW)),
    'without cap_setpcap': (without(SETPCAP), keep('cap_net_raw+ep'), ends_as_1111(RAW, CapBnd=BOUND & ~SETPCAP)),
    'no setuid fixup': (securebits(4), keep('cap_net_raw+ep'), ends_as_1111(RAW)),
    'no /proc': (no_proc, keep('cap_net_raw+ep'), ends_as_1111(RAW)),
    'unshare blocked': (unshare_blocked, keep('cap_net_raw+ep'), ends_as_1111(RAW)),
}
REFUSED = {
    'without cap_setuid': (without(SETUID | SETGID), keep('')),
    'a container that holds nothing': (container, keep('cap_net_raw+ep')),
    'one that is not held': (without(RAW), keep('cap_net_raw+ep')),
    'a name that there is not': (nothing, keep('cap_net_row+ep')),
    'a number that there is not': (nothing, keep('63+ep')),
    'effective only': (nothing, keep('cap_net_raw=e')),
    'an operator that is missing': (nothing, keep('cap_net_raw')),
}


def told():
    """In a process for itself: does it load libcap, and what becomes of all the cases?"""
    answer = {'reads with': capdrop.this_platform().reads_with}
    for name, (prepare, options, _) in CASES.items():
        security = capdrop.Security(**options)
        answer[name, 'drop'] = told_of(dropped, prepare, security)
        answer[name, 'state'] = told_of(in_child, state_after, prepare, options)
        answer[name, 'launch'] = told_of(launched, prepare, security, ['/bin/cat'])
    for name, (prepare, options) in REFUSED.items():
        answer[name, 'refused'] = told_of(in_child, state_after, prepare, options)
    sys.stdout.write(repr(answer))


def state_after(prepare, options):
    prepare()
    return str(capdrop.drop(capdrop.Security(**options)))


def told_of(function, *args):
    """Its result, or what was raised; of what a command printed of its status, the lines that tell of rights."""
    try:
        result = function(*args)
    except (capdrop.Error, Ended) as e:
        return '%s: %s' % (type(e).__name__, e)
    if not isinstance(result, tuple):
        return result
    out, status, errors = result
    return [line for line in out.splitlines() if line.startswith(RIGHTS)], status, errors


def answers(prepare):
    """What is told in a fresh process: in this one libcap may be loaded already."""
    program = 'import sys; sys.path[:] = %r; import test_without_libcap; test_without_libcap.told()' % ([TESTS] + sys.path)
    done = run_command([sys.executable, '-c', program], preexec_fn=prepare)
    assert (done.returncode, done.stderr) == (0, '')
    return ast.literal_eval(done.stdout)


@pytest.fixture(scope='module')
def hide(tmp_path_factory):
    return hidden_libcap(tmp_path_factory.mktemp('without'))


@pytest.fixture(scope='module')
def without_it(hide):
    return answers(hide)


def test_what_is_hidden_is_not_loaded(hide, without_it):
    assert without_it['reads with'] == 'capset(2), without libcap'
    program = "import ctypes; ctypes.CDLL('libcap.so.2')"
    assert 'OSError' in run_command([sys.executable, '-c', program], preexec_fn=hide).stderr


@pytest.mark.parametrize('name', CASES)
def test_without_libcap_a_process_ends_with_exactly_what_was_asked_for(name, without_it):
    assert without_it[name, 'drop'] == CASES[name][2]


def test_every_drop_command_and_refusal_is_as_with_libcap(without_it):
    need(path_of_libcap(), 'needs libcap.so.2')
    with_it = answers(nothing)
    assert with_it.pop('reads with') == 'libcap'
    differ = [name for name in with_it if with_it[name] != without_it[name]]
    assert not differ, [(with_it[name], without_it[name]) for name in differ]
    assert set(without_it) == set(with_it) | {'reads with'}
    assert all(with_it[name, 'refused'].startswith(('RefusedError: ', 'ConfigError: ')) for name in REFUSED)
    assert [name for name in CASES if with_it[name, 'launch'][1:] != (0, '')] == ['not effective']     # for a drop only


# ---------------------------------------------------------------------------- an old libcap

READ = """
import sys
sys.path[:] = %r
import capdrop
platform = capdrop.this_platform()
answer = {'every': int(platform.every), 'reads with': platform.reads_with}
for text in '=ep', 'all=ep', 'all+ep', 'cap_net_raw+ep':
    sets = platform.parse(text)
    answer[text] = int(sets['permitted']), int(sets['effective']), int(sets['inheritable'])
print(answer)
"""


@pytest.mark.parametrize('defined, reads_with', [
    (['-DBITS=64', '-DMOST=63'], 'libcap'),
    (['-DBITS=38', '-DMOST=38'], 'capset(2), without libcap'),         # it is older than the kernel
], ids=['2.27', '2.25'])
def test_with_an_old_libcap_all_is_what_the_kernel_has(defined, reads_with, tmp_path):
    need_root()
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')
    need(CC, 'needs a C compiler')
    path, library = path_of_libcap(), str(tmp_path / 'libcap.so.2')
    need(path, 'needs libcap.so.2')
    need(capdrop.this_platform().every >> 38, 'needs a kernel with more than 38 capabilities')
    done = run_command([CC, '-shared', '-fPIC', '-Wall', '-Werror', '-o', library] + defined + [os.path.join(TESTS, 'old_libcap.c')])
    assert done.returncode == 0, done.stderr

    def prepare():
        own_mounts()
        c('mount', os.fsencode(library), os.fsencode(path), None, MS_BIND, None)
    done = run_command([sys.executable, '-I', '-c', READ % sys.path], preexec_fn=prepare)
    assert (done.returncode, done.stderr) == (0, '')
    answer = ast.literal_eval(done.stdout)
    every, raw = answer.pop('every'), RAW
    assert answer == {'reads with': reads_with, '=ep': (every, every, 0), 'all=ep': (every, every, 0),
                      'all+ep': (every, every, 0), 'cap_net_raw+ep': (raw, raw, 0)}


def test_a_text_that_libcap_reads_in_another_way_is_an_error(monkeypatch):
    platform = capdrop.this_platform()
    need(platform.libcap, 'needs libcap.so.2')
    monkeypatch.setattr(platform.libcap, 'agrees', lambda text, readings: False)
    with pytest.raises(ValueError, match='cap_from_text.3. of this libcap reads it in another way'):
        platform.parse('cap_kill+ep')
