"""docs/migrating.md: each pair runs as it is written there and is compared; claims about other tools are tried."""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import pytest

from conftest import SCRIPT, TOP, need, need_accounts_of_debian, need_root, run_command

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

PAGE = os.path.join(TOP, 'docs', 'migrating.md')
PYTHON = '/usr/bin/python3'             # an ordinary user may run it, and Debian's modules are for it
ROOTS_GROUPS = ['24', '46']
BLOCK = re.compile(r'^```(\w+)\n(.*?)^```$|^Differs: (.*?)\.$', re.M | re.S)
KEYS = ('Uid', 'Gid', 'Gro', 'Cap', 'NoN')
SHOW = "print(*[line for line in open('/proc/self/status') if line[:3] in %r], flush=True)" % (KEYS,)
SETS = ['inheritable', 'permitted', 'effective', 'bounding', 'ambient']
FIELDS = ['uid', 'gid', 'groups'] + SETS + ['no_new_privs']


def page():
    with open(PAGE, encoding='utf-8') as file:
        return file.read()


def sections():
    """(heading, text) of each."""
    parts = re.split(r'^## (.*)\n', page(), flags=re.M)
    return list(zip(parts[1::2], parts[2::2]))


def pairs():
    """(language, the other's, capdrop's, what differs) of each."""
    for heading, text in sections():
        blocks = []
        for language, block, differs in BLOCK.findall(text):
            if differs:
                lines = [text for _, text in blocks]
                if blocks[0][0] == 'sh':
                    lines = lines[0].replace('\\\n', '').splitlines()
                other, ours = lines
                yield pytest.param(blocks[0][0], other, ours, differs, id='%s: %s' % (heading, other[:40].strip()))
                blocks = []
            else:
                blocks.append((language, block))
        assert not blocks or blocks[0][0] == 'ini', heading


def mistakes():
    for row in re.findall(r'^\| `(.*?)` \| (.*?) \| `(.*?)` \| (.*?) \|$', page(), re.M):
        yield pytest.param(*row, id=row[0][:60])


@pytest.fixture
def place():
    """A directory that anybody may enter, with capdrop, `capdrop` and a daemon, `myd`, that shows what it holds."""
    need_root()
    need_accounts_of_debian()
    need(os.path.exists(PYTHON), 'needs ' + PYTHON)
    path = tempfile.mkdtemp(prefix='capdrop-migrating-', dir='/tmp')
    os.chmod(path, 0o755)
    shutil.copy(SCRIPT, path)
    os.chmod(path + '/capdrop.py', 0o644)       # it may be of a clone that is private
    for name, arguments in ('myd', '-c "%s"' % SHOW), ('capdrop', '%s/capdrop.py "$@"' % path):
        with open(os.path.join(path, name), 'w') as file:
            file.write('#!/bin/sh\nexec %s -I %s\n' % (PYTHON, arguments))
        os.chmod(os.path.join(path, name), 0o755)
    yield path
    shutil.rmtree(path)


def started(place, language, text, before=()):
    """Run it as root, in root's groups: its CompletedProcess."""
    environment = {'PATH': place + ':/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'PYTHONPATH': place}
    if language == 'sh':
        program = text.split()[0]
        need(shutil.which(program, path=environment['PATH']), 'needs ' + program)
        command = ['sh', '-c', text]
    else:
        for module in set(re.findall(r'\b(prctl|daemon|capng)\.', text)):
            there = subprocess.call([PYTHON, '-I', '-c', 'import ' + module], stderr=subprocess.DEVNULL) == 0
            need(there, 'needs the module %s of %s' % (module, PYTHON))
        command = [PYTHON, '-B', '-c', text]
    return run_command(list(before) + command, cwd=place, env=environment,
                       preexec_fn=lambda: os.setgroups(list(map(int, ROOTS_GROUPS))))


def shown(text):
    """The fields of a /proc/PID/status in the words of the page."""
    status = dict(re.findall(r'(\w+):\t(.*)', text))
    fields = {'no_new_privs': status['NoNewPrivs']}
    for name in 'uid', 'gid':
        ids = status[name.capitalize()].split()
        fields[name] = ids[0] if len(set(ids)) == 1 else ' '.join(ids)
    for name, key in zip(SETS, ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')):
        fields[name] = named(int(status['Cap' + key], 16))
    groups = [number for number in status['Groups'].split() if number != fields['gid']]     # which grants nothing more
    fields['groups'] = 'root\'s' if groups == ROOTS_GROUPS else ' '.join(groups) or 'none'
    assert sorted(fields) == sorted(FIELDS)
    return fields


def named(bits):
    if bits == all_capabilities():
        return 'all'
    names = {5: 'cap_kill', 10: 'cap_net_bind_service'}
    return ' '.join(names.get(n, str(n)) for n in range(64) if bits >> n & 1) or 'none'


def all_capabilities():
    with open('/proc/self/status') as file:
        status = file.read()
    permitted, bounding = (int(re.search(name + r':\t(\w+)', status).group(1), 16) for name in ('CapPrm', 'CapBnd'))
    assert permitted == bounding
    return permitted


def state(place, language, text, before=()):
    done = started(place, language, text if language == 'sh' else text + '\n' + SHOW, before)
    assert done.returncode == 0, done.stderr
    return shown(done.stdout)


@pytest.mark.parametrize('language, other, ours, differs', list(pairs()))
def test_a_pair_differs_as_the_page_says_and_in_nothing_else(place, language, other, ours, differs):
    theirs, held = state(place, language, other), state(place, language, ours)
    assert theirs['uid'] == held['uid'] == '1' and held['gid'] == '1'       # all ran what was meant
    seen = ['%s %s against %s' % (name, theirs[name], held[name]) for name in FIELDS if theirs[name] != held[name]]
    assert ('; '.join(seen) or 'nothing') == differs


def test_every_section_has_a_pair_or_a_test_of_its_own():
    tested = {param.id.split(':')[0] for param in pairs()}
    assert [heading for heading, _ in sections() if heading not in tested] == ['systemd', 'Momentum', 'Where a mistake passes']
    assert len(list(pairs())) == page().count('\nDiffers: ') == 9
    assert len(list(mistakes())) == page().count('\n| `') == 10


@pytest.mark.parametrize('written, runs, ours, becomes', list(mistakes()))
def test_a_mistake_passes_there_and_not_here(place, written, runs, ours, becomes):
    preface = 'import os, sys\n' + 'import daemon\n' * ('daemon.Dae' in written)
    language = 'sh' if re.search('myd\'?$', written) else 'python'
    theirs = state(place, language, written if language == 'sh' else preface + written)
    assert set(runs.split(', ')) <= {'%s %s' % item for item in theirs.items()}
    if becomes not in ('refused', 'fails'):
        held = state(place, language, ours if language == 'sh' else 'import capdrop\n' + ours)
        assert set(becomes.split(', ')) <= {'%s %s' % item for item in held.items()}
    elif language == 'sh':
        done = started(place, language, ours)
        assert (done.returncode, done.stdout) == (125, '')
        assert done.stderr.startswith('capdrop: ')
    else:
        error = {'refused': 'capdrop.Error', 'fails': 'PermissionError'}[becomes]
        text = 'import os, capdrop\ntry:\n    %s\nexcept %s:\n    pass\nelse:\n    1/0' % (ours, error)
        held = state(place, language, text)
        assert held['uid'] == ('0' if becomes == 'refused' else '1')


LYING = [('setpriv --reuid=daemon --regid=daemon --clear-groups myd', 'setresuid'),
         ('capsh --user=daemon -- -c \'exec myd\'', 'setuid'), ('gosu daemon myd', 'setuid'),
         ('import os\nos.setgroups([])\nos.setgid(1)\nos.setuid(1)', 'setuid')]


@pytest.mark.parametrize('text, call', LYING, ids=[text.split()[0] for text, _ in LYING])
def test_a_system_call_that_lies_leaves_the_others_root_and_ends_capdrop(place, text, call):
    need(shutil.which('strace'), 'needs strace')
    assert 'setpriv, capsh, gosu and os.setuid go on as root' in ' '.join(page().split())

    def lie(call):
        return ['strace', '-f', '-qq', '-o', os.devnull, '-e', 'trace=' + call, '-e', 'inject=%s:retval=0' % call]
    language = 'python' if 'import' in text else 'sh'
    theirs = state(place, language, text, lie(call))
    assert (theirs['uid'], theirs['gid'], theirs['permitted']) == ('0', '1', 'all')
    ours = ('capdrop exec --user daemon -- myd' if language == 'sh' else
            'import capdrop\ncapdrop.drop(capdrop.Security(user="daemon"))')
    done = started(place, language, ours, lie('setresuid'))
    assert (done.returncode, done.stdout) == (125, '')
    assert 'uid is 0 0 0 0, not 1 1 1 1' in done.stderr


def test_setpriv_exits_alike_where_it_could_not_drop_and_where_there_is_no_command(place):
    inner = 'setpriv --reuid=daemon --regid=daemon --clear-groups '
    failed = started(place, 'sh', inner + 'setpriv --reuid=0 myd')
    assert failed.returncode == 127 and 'setresuid failed' in failed.stderr
    assert started(place, 'sh', inner + 'no-such-command').returncode == 127
    assert started(place, 'sh', 'capdrop exec --user daemon -- no-such-command').returncode == 127
    assert started(place, 'sh', inner + 'capdrop exec --user 0 -- myd').returncode == 125


def test_gosu_grants_the_groups_of_the_account_and_capdrop_those_that_are_named(place):
    group = os.path.join(place, 'group')
    with open('/etc/group') as source, open(group, 'w') as file:
        file.write(re.sub(r'^adm:.*', 'adm:x:4:daemon', source.read(), flags=re.M))
    need(shutil.which('unshare'), 'needs unshare')
    before = ['unshare', '-m', 'sh', '-c', 'mount --bind %s /etc/group && exec "$@"' % group, 'sh']
    assert state(place, 'sh', 'gosu daemon myd', before)['groups'] == '4'
    done = started(place, 'sh', 'capdrop exec --user daemon -- myd', before)
    assert shown(done.stdout)['groups'] == 'none' and 'will not be in the groups of daemon: 4' in done.stderr
    assert state(place, 'sh', 'setpriv --reuid=daemon --regid=daemon --init-groups myd', before)['groups'] == '4'
    held = state(place, 'sh', 'capdrop exec --user daemon --supplemental-groups adm -- myd', before)
    assert held['groups'] == '4'


def test_entry_point_of_a_container_does_what_the_pair_does(place):
    entry = json.loads(re.search(r'`(\["python3".*?\])`', ' '.join(page().split())).group(1))
    assert entry[2] == '/usr/local/lib/capdrop.py'
    entry[2] = os.path.join(place, 'capdrop.py')
    line = ' '.join(map(shlex.quote, entry))
    assert state(place, 'sh', line) == state(place, 'sh', 'capdrop exec --user daemon -- myd')


def units():
    text, = [text for heading, text in sections() if heading == 'systemd']
    return [block for language, block, _ in BLOCK.findall(text) if language == 'ini']


def verify(place, unit):
    need(shutil.which('systemd-analyze'), 'needs systemd-analyze')
    for name in 'capdrop', 'myd':
        unit = unit.replace('/usr/local/bin/' + name, os.path.join(place, name))
    with open(os.path.join(place, 'myd.service'), 'w') as file:
        file.write(unit)
    return run_command(['systemd-analyze', 'verify', './myd.service'], cwd=place)


def test_what_the_directives_name_is_what_the_command_holds(place):
    directives, ours = units()
    for unit in directives, ours:
        done = verify(place, unit)
        assert (done.returncode, done.stdout + done.stderr) == (0, '')
    named = dict(re.findall(r'^(\w+)=(.*)$', directives, re.M))
    assert named.pop('ExecStart') == '/usr/local/bin/myd' and named.pop('User') == 'daemon'
    command, = re.findall(r'^ExecStart=(.*)$', ours, re.M)
    held = state(place, 'sh', command.replace('/usr/local/bin/', ''))
    assert (held['uid'], held['gid'], held['groups']) == ('1', '1', 'none')
    assert named.pop('NoNewPrivileges') == 'yes' and held['no_new_privs'] == '1'
    assert held['bounding'] == named.pop('CapabilityBoundingSet').lower() == named['AmbientCapabilities'].lower()
    wanted = named.pop('AmbientCapabilities').lower()
    assert {held[name] for name in ('ambient', 'permitted', 'effective', 'inheritable')} == {wanted} and not named


STANZA = 'Security { user = daemon }'


@pytest.mark.parametrize('text, wanted', [
    (STANZA, r'^gid +1 1 1 1'),                                     # not ecuser
    ('Security { user = daemon include "more.conf" }', 'include does not work inside Security'),
    ('include "persist://more.conf" ' + STANZA, 'only file:// can be included'),
    ('include "file://%s/more.conf" ' + STANZA, '^gid +2 2 2 2'),
    ('Local_Changes_File = "more.conf" ' + STANZA, '^gid +2 2 2 2'),
])
def test_momentum_files_are_read_as_the_page_says(place, text, wanted):
    assert '`include` inside `Security { }` is an error' in page() and '`persist://`' in page()
    with open(os.path.join(place, 'myd.conf'), 'w') as file:
        file.write(text.replace('%s', place) + '\n')
    with open(os.path.join(place, 'more.conf'), 'w') as file:
        file.write('Security { group = bin }\n')
    done = started(place, 'sh', 'capdrop plan -q myd.conf')
    assert re.search(wanted, done.stdout + done.stderr, re.M), done.stdout + done.stderr


HOST = os.uname()[1].partition('.')[0]


@pytest.mark.parametrize('node, found', [('one.two', 'one.two'), ('', HOST)])
def test_a_node_name_with_periods_comes_from_the_environment_only(place, node, found):
    need(shutil.which('strace'), 'needs strace')
    assert '`EC_NODE_NAME`' in page()
    with open(os.path.join(place, 'myd.conf'), 'w') as file:
        file.write('include "x.conf" ' + STANZA + '\n')
    done = run_command(['strace', '-f', '-e', 'trace=%file', os.path.join(place, 'capdrop'), 'check', 'myd.conf'],
                       cwd=place, env={'PATH': '/usr/bin:/bin', 'EC_NODE_NAME': node})
    assert '/opt/msys/ecelerity/etc/conf/%s/x.conf' % found in done.stderr


# what systemd does for the directives of the page, done by setpriv
AS_SYSTEMD = ('setpriv --reuid=daemon --regid=daemon --clear-groups --no-new-privs --inh-caps=-all,+net_bind_service '
              '--ambient-caps=-all,+net_bind_service --bounding-set=-all,+net_bind_service ')


def test_behind_the_directives_capdrop_verifies_and_refuses_where_one_is_missing(place):
    ours = re.search(r'ExecStart=/usr/local/bin/(.*)/usr/local/bin/', units()[1]).group(1) + 'myd'
    held = state(place, 'sh', AS_SYSTEMD + ours)
    assert held == state(place, 'sh', ours)
    for left_out in '--ambient-caps=-all,+net_bind_service ', '--reuid=daemon --regid=daemon ':
        assert left_out in AS_SYSTEMD
        done = started(place, 'sh', AS_SYSTEMD.replace(left_out, '') + ours)
        assert (done.returncode, done.stdout) == (125, '') and 'half-dropped' not in done.stderr, left_out


def test_a_misspelt_directive_is_passed_over_and_a_misspelt_option_is_an_error(place):
    assert 'NoNewPriveleges=yes' in page()
    done = verify(place, units()[0].replace('NoNewPrivileges', 'NoNewPriveleges'))
    assert done.returncode == 0 and 'NoNewPriveleges' in done.stderr
    with open(os.path.join(place, 'myd.conf'), 'w') as file:
        file.write('Security { user = daemon capabilites = "" }\n')
    assert started(place, 'sh', 'capdrop check myd.conf').returncode == 1
    assert started(place, 'sh', 'capdrop exec myd.conf -- myd').returncode == 125


def python_prctl():
    other, ours = [param.values[1:3] for param in pairs() if 'prctl' in param.id][0]
    return other, ours


def test_keepcaps_stays_on_after_python_prctl_and_not_after_capdrop(place):
    tell = '\nimport prctl\nprint("keepcaps", prctl.get_keepcaps())'
    answers = [started(place, 'python', text + tell).stdout for text in python_prctl()]
    assert answers == ['keepcaps True\n', 'keepcaps False\n']


OTHER_THREAD = """
import os, threading
wait, go = os.pipe()
thread = threading.Thread(target=os.read, args=(wait, 1))
thread.start()
try:
    exec(%r)
except Exception as e:
    print(type(e).__module__, type(e).__name__, e)
tid, = set(os.listdir('/proc/self/task')) - {str(os.getpid())}
print(open('/proc/self/task/%%s/status' %% tid).read())
os.write(go, b'x')
thread.join()
"""


def test_python_prctl_leaves_another_thread_as_it_was_and_capdrop_refuses(place):
    other, ours = python_prctl()
    answer = started(place, 'python', OTHER_THREAD % other).stdout
    held = shown(answer)
    assert (held['bounding'], held['no_new_privs']) == ('all', '0')
    answer = started(place, 'python', OTHER_THREAD % ours).stdout
    assert answer.startswith('capdrop RefusedError') and 'more than one thread' in answer
    assert shown(answer)['uid'] == '0'


def test_libcap_ng_answers_a_failure_with_a_number(place):
    other, = [param.values[1] for param in pairs() if 'libcap-ng' in param.id]
    *start, change = other.strip().splitlines()
    text = '\n'.join(start + ['import os', 'os.setuid(2)', 'print("answer", %s)' % change])
    done = started(place, 'python', text)
    assert done.returncode == 0 and re.match(r'answer -\d+$', done.stdout.strip()), done.stdout + done.stderr
