"""audit and status: what a running process holds, against what a stanza asks, seen from outside."""
import contextlib
import ctypes
import errno
import itertools
import json
import os
import posix
import pwd
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from conftest import (
    BIND, CLONE_NEWNS, CLONE_NEWUSER, HELD, MS_BIND, RAW, SCRIPT, SYS_ADMIN, c, capset,
    in_child, need, need_accounts_of_debian, need_root, own_mounts, prctl, run, run_command)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

ASKED = dict(user='33', group='33', capabilities='cap_net_bind_service+ep')
NAME = ctypes.create_string_buffer(b'a\x07\xff')
OPTIONS = ['--user=33', '--group=33', '--capabilities=cap_net_bind_service+ep']


@contextlib.contextmanager
def running(*calls):
    """The pid of a child that has made these calls and waits."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for call in calls:
                call()
            os.write(tell, b'.')
            while True:
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(tell)
    try:
        assert os.read(told, 1) == b'.'
        yield pid
    finally:
        os.close(told)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@contextlib.contextmanager
def command(*words):
    """The pid of a command that became `sleep`."""
    process = subprocess.Popen(list(words) + ['sleep', '60'])
    try:
        until = time.time() + 20
        while capdrop.state(process.pid).command != 'sleep':
            assert time.time() < until and process.poll() is None
            time.sleep(0.01)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def launching(*options):
    return [sys.executable, '-I', SCRIPT, 'exec', '-q'] + list(options) + ['--']


def drop(**values):
    return lambda: capdrop.drop(capdrop.Security(**values), no_new_privs=values.get('user') != '0')


def found(pid, no_new_privs=True, **values):
    """(like, the lines) of an audit, the same by the function and by the command."""
    audit = capdrop.audit(capdrop.Security(**values), pid, no_new_privs)
    options = ['--%s=%s' % (name.replace('_', '-'), ','.join(value) if isinstance(value, tuple) else value)
               for name, value in values.items()] + ['--allow-new-privs'] * (not no_new_privs)
    done = run('audit', str(pid), *options)
    assert done.stdout.splitlines() == [str(one) for one in audit] and done.returncode == (1 if audit else 0), done.stderr
    return audit.like, [str(one) for one in audit]


# ---------------------------------------------------------------------------- as asked

def test_a_process_that_dropped_is_as_a_drop_leaves_it():
    need_root()
    with running(drop(**ASKED)) as pid:
        assert found(pid, **ASKED) == ('drop', [])


def test_a_launched_command_is_as_a_launch_leaves_it():
    need_root()
    with command(*launching(*OPTIONS)) as pid:
        assert found(pid, **ASKED) == ('launch', [])


def test_without_capabilities_a_drop_and_a_launch_leave_the_same():
    need_root()
    for options in OPTIONS[:2], OPTIONS[:2] + ['--supplemental-groups=4,24']:
        with command(*launching(*options)) as pid:
            groups = {'supplemental_groups': ('24', '4')} if len(options) > 2 else {}
            assert found(pid, user='33', group='33', **groups) == ('drop or launch', [])


def test_capabilities_that_are_only_permitted_can_be_those_of_a_drop_only():
    need_root()
    asked = dict(ASKED, capabilities='cap_net_bind_service+p')
    with running(drop(**asked)) as pid:
        assert found(pid, **asked) == ('drop', [])


def test_a_command_that_setpriv_started_is_judged_like_one_of_ours():
    need_root()
    need(run_command(['sh', '-c', 'setpriv --version']).returncode == 0, 'needs setpriv of util-linux')
    words = ['setpriv', '--reuid=33', '--regid=33', '--clear-groups', '--inh-caps=-all,+net_bind_service',
             '--ambient-caps=-all,+net_bind_service', '--no-new-privs']
    with command(*words) as pid:
        like, lines = found(pid, **ASKED)
        assert like == 'launch' and len(lines) == 1 and lines[0].startswith('bounding: wanted cap_net_bind_service, has all')
    with command(*words + ['--bounding-set=-all,+net_bind_service']) as pid:
        assert found(pid, **ASKED) == ('launch', [])


def test_no_new_privs_and_the_bounding_set_do_not_matter_where_they_are_waived():
    need_root()
    with command(*launching('--allow-new-privs', *OPTIONS)) as pid:
        assert [line.split(':')[0] for line in found(pid, **ASKED)[1]] == ['bounding', 'no_new_privs']
        assert found(pid, no_new_privs=False, **ASKED) == ('launch', [])


def test_threads_of_a_daemon_that_hold_the_same_are_no_difference():
    need_root()
    with running(drop(**ASKED), *[lambda: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()] * 3) as pid:
        audit = capdrop.audit(capdrop.Security(**ASKED), pid)
        assert (audit, audit.threads, audit.like, audit.pid) == ([], 4, 'drop', pid)
        assert audit.unseen == ['securebits', 'keepcaps']


def test_a_process_that_runs_as_root_by_its_stanza_is_judged_by_its_ids_only():
    need_root()
    with running(lambda: os.setgroups([]), lambda: os.setresgid(0, 0, 0)) as pid:
        assert found(pid, user='0', group='0') == ('drop or launch', [])
        assert found(pid, user='0', group='8')[1] == ['gid: wanted 8 8 8 8, has 0 0 0 0 (more and less than asked)']


def test_a_chrooted_process_is_in_the_root_it_was_given(jail):
    need_root()
    jail = str(jail)
    with running(drop(chroot=jail, **ASKED)) as pid:
        assert found(pid, chroot=jail, **ASKED) == ('drop', [])


# ---------------------------------------------------------------------------- not as asked

def ids(uid=(33, 33, 33), gid=(33, 33, 33), groups=()):
    def change():
        os.setgroups(groups)
        os.setresgid(*gid)
        os.setresuid(*uid)
    return change


def bounding(kept):
    def trim():
        for n in range(64):
            if not kept >> n & 1 and HELD >> n & 1:
                prctl(24, n)
    return trim


def keeping(caps):
    def keep():
        prctl(8, 1)
        ids()()
        capset(caps, caps)
        prctl(8, 0)
    return keep


def no_new_privs():
    prctl(38, 1)


NONE, ALL = lambda: capset(0, 0), 'all' if HELD == capdrop.this_platform().every else 'all but'


@pytest.mark.parametrize('calls, asked, expected', [
    ([bounding(0), ids(groups=[4]), no_new_privs], {}, ['groups: wanted none, has 4 (more than asked)']),
    ([bounding(0), ids(groups=[33, 24]), no_new_privs], {'supplemental_groups': ('4',)},
     ['groups: wanted 4, has 24 33 (more and less than asked)']),
    ([bounding(0), ids(), no_new_privs], {'supplemental_groups': ('4',)}, ['groups: wanted 4, has none (less than asked)']),
    ([bounding(0), ids()], {}, ['no_new_privs: wanted 1, has 0 (more than asked)']),
    ([bounding(0), ids(uid=(33, 33, 0)), NONE, no_new_privs], {}, ['uid: wanted 33 33 33 33, has 33 33 0 33 (more than asked)']),
    ([bounding(0), ids(gid=(33, 33, 4)), no_new_privs], {}, ['gid: wanted 33 33 33 33, has 33 33 4 33 (more than asked)']),
    ([bounding(0), ids(uid=(34, 34, 34)), no_new_privs], {},
     ['uid: wanted 33 33 33 33, has 34 34 34 34 (more and less than asked)']),
    ([bounding(RAW), keeping(RAW), no_new_privs], {'capabilities': 'cap_net_raw+p'},
     ['effective: wanted none, has cap_net_raw (more than asked)']),
    ([bounding(RAW), ids(), no_new_privs], {'capabilities': 'cap_net_raw+ep'},
     ['permitted: wanted cap_net_raw, has none (less than asked)', 'effective: wanted cap_net_raw, has none (less than asked)']),
    ([bounding(RAW | BIND), keeping(RAW), no_new_privs], {'capabilities': 'cap_net_raw+ep'},
     ['bounding: wanted cap_net_raw, has cap_net_bind_service cap_net_raw (more than asked)']),
    ([bounding(0), keeping(RAW), no_new_privs], {'capabilities': 'cap_net_raw+ep'}, []),    # less there is nothing to regain
    ([bounding(0), ids(), no_new_privs], {'chroot': '/usr'}, None),
], ids=lambda value: None)
def test_what_differs_is_said_with_what_was_asked(calls, asked, expected):
    need_root()
    asked = dict(dict(user='33', group='33'), **asked)
    with running(*calls) as pid:
        if expected is None:
            st, now = os.stat('/usr'), os.stat('/')
            expected = ['root: wanted /usr %d %d, has / %d %d (more%s than asked)' % (
                st.st_dev, st.st_ino, now.st_dev, now.st_ino, ' and less')]
        assert found(pid, **asked)[1] == expected


def test_a_bounding_set_left_full_is_found():
    need_root()
    with running(ids(), no_new_privs) as pid:
        line, = found(pid, user='33', group='33')[1]
        assert line.startswith('bounding: wanted none, has ' + ALL) and line.endswith(' (more than asked)')


def test_a_root_directory_that_nobody_asked_for_is_found(jail):
    need_root()
    jail = str(jail)
    with running(bounding(0), lambda: os.chroot(jail), lambda: os.chdir('/'), ids(), no_new_privs) as pid:
        line, = found(pid, user='33', group='33')[1]
        assert line.startswith('root: wanted / ') and 'has %s ' % os.path.realpath(jail) in line


def test_a_thread_that_kept_a_capability_is_found_and_named():
    need_root()

    def forgotten():
        kept = threading.Event()
        threading.Thread(target=lambda: (capset(RAW, RAW), kept.set(), time.sleep(60)), daemon=True).start()
        kept.wait(20)
        no_new_privs()
        capset(0, 0)
    with running(bounding(0), keeping(RAW), forgotten) as pid:
        lines = found(pid, user='33', group='33')[1]
        thread, = [int(task) for task in os.listdir('/proc/%d/task' % pid) if int(task) != pid]
        start = 'thread %d (%s): ' % (thread, open('/proc/%d/task/%d/comm' % (pid, thread)).read().strip())
        assert lines == [start + 'permitted: wanted none, has cap_net_raw (more than asked)',
                         start + 'effective: wanted none, has cap_net_raw (more than asked)',
                         start + 'no_new_privs: wanted 1, has 0 (more than asked)']
        assert 'note: thread %d (' % thread in run('status', str(pid)).stdout
        difference = capdrop.audit(capdrop.Security(user='33', group='33'), pid)[0]
        assert (difference.field, difference.mark, difference.wanted, difference.has) == ('permitted', 'more', 0, RAW)


def test_a_process_in_another_user_namespace_is_said_to_be():
    need_root()
    try:
        in_child(lambda: (ids()(), c('unshare', CLONE_NEWUSER)))
    except OSError as e:
        need(False, 'needs user namespaces, for every user: %s' % e)
    with running(bounding(0), ids(), no_new_privs, lambda: c('unshare', CLONE_NEWUSER)) as pid:
        lines = found(pid, user='33', group='33')[1]
        assert any(line.startswith('user_ns: ') for line in lines)
        assert 'note: in another user namespace' in run('status', str(pid)).stdout


def test_the_root_of_a_container_is_its_own_and_said_not_to_be_seen(jail):
    need_root()
    jail = str(jail)
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')
    with running(own_mounts, bounding(0), lambda: (os.chroot(jail), os.chdir('/')), ids(), no_new_privs) as pid:
        asked = capdrop.Security(user='33', group='33')
        audit = capdrop.audit(asked, pid)
        assert audit == [] and audit.unseen == ['securebits', 'keepcaps', 'root (in another mount namespace)']
        assert capdrop.audit(capdrop.Security(user='33', group='33', chroot=jail), pid) == []
        assert [one.field for one in capdrop.audit(capdrop.Security(user='33', group='33', chroot='/usr'), pid)] == ['root']


# ---------------------------------------------------------------------------- more than one, and no more than asked

def test_several_processes_are_judged_each_by_itself():
    need_root()
    with running(drop(**ASKED)) as one, running(bounding(0), ids(groups=[4]), no_new_privs) as other:
        done = run('audit', *(OPTIONS + [str(one), str(other)]))
        assert done.returncode == 1
        lines = done.stdout.splitlines()
        assert lines and all(line.startswith('process %d: ' % other) for line in lines)
        assert 'process %d: groups: wanted none, has 4 (more than asked)' % other in lines
        answers = json.loads(run('audit', '--json', '-q', *(OPTIONS + [str(one), str(other)])).stdout)
        assert [answer['pid'] for answer in answers] == [one, other] and answers[0]['differences'] == []
        assert run('audit', *(OPTIONS + [str(one), str(one)])).returncode == 0
        assert no_answer(*(OPTIONS + [str(one), '999999999']))[0] == 125


def test_a_control_group_is_judged_with_those_below_it(tmp_path):
    need_root()
    (tmp_path / 'below').mkdir()
    with running(drop(**ASKED)) as one, running(drop(**ASKED)) as two, running() as root:
        for path, pids in (tmp_path, [one]), (tmp_path / 'below', [two, root]):
            (path / 'cgroup.procs').write_text(''.join('%d\n' % pid for pid in pids))
        done = run('audit', '--cgroup', str(tmp_path), '--json', '-q', *OPTIONS)
        answers = {answer['pid']: answer['differences'] for answer in json.loads(done.stdout)}
        assert done.returncode == 1 and sorted(answers) == sorted([one, two, root])
        assert answers[one] == answers[two] == [] != answers[root]
        (tmp_path / 'below' / 'cgroup.procs').write_text('%d\n' % two)
        assert run('audit', '--cgroup', str(tmp_path), *OPTIONS).returncode == 0
        (tmp_path / 'below' / 'cgroup.procs').unlink()
        single = run('audit', '--cgroup', str(tmp_path), '--json', '-q', *OPTIONS)
        assert [answer['pid'] for answer in json.loads(single.stdout)] == [one]
    (tmp_path / 'cgroup.procs').write_text('')
    for directory in str(tmp_path), str(tmp_path / 'none'):
        status, message = no_answer('--cgroup', directory, *OPTIONS)
        assert status == 125 and directory in message


def test_a_control_group_is_listed_until_nothing_is_new(monkeypatch):
    listings = [{7, 5}, {5, 9}, {9, 5}, {11}]
    monkeypatch.setattr(capdrop, 'pids_in_cgroup', lambda directory: listings.pop(0))
    assert list(capdrop.pids_of_cgroup('web.service')) == [5, 7, 9] and listings == [{11}]
    listings = [{1}, set()]
    assert list(capdrop.pids_of_cgroup('web.service')) == [1]       # they have ended, all of them
    listings = [{number} for number in range(1000)]
    with pytest.raises(capdrop.RefusedError, match='web.service: starts processes faster than they can be audited'):
        list(capdrop.pids_of_cgroup('web.service'))


def test_a_control_group_that_goes_while_it_is_listed_has_no_processes(tmp_path, monkeypatch):
    (tmp_path / 'cgroup.procs').write_text('1\n')
    answers = {'contents': OSError(errno.ENODEV, 'No such device')}

    def contents(path):
        raise answers['contents']
    monkeypatch.setattr(capdrop, 'contents', contents)
    assert capdrop.pids_in_cgroup(str(tmp_path)) == set()
    (tmp_path / 'cgroup.procs').unlink()
    (tmp_path / 'threaded').mkdir()
    (tmp_path / 'threaded' / 'cgroup.procs').write_text('')
    answers['contents'] = OSError(errno.EOPNOTSUPP, 'Operation not supported')
    assert capdrop.pids_in_cgroup(str(tmp_path)) == set()           # the group above lists its processes
    with pytest.raises(capdrop.RefusedError, match='threaded/cgroup.procs lists no processes: audit the group above it'):
        capdrop.pids_in_cgroup(str(tmp_path / 'threaded'))
    answers['contents'] = PermissionError(errno.EACCES, 'Permission denied')
    with pytest.raises(PermissionError):
        capdrop.pids_in_cgroup(str(tmp_path / 'threaded'))


def test_a_control_group_without_a_process_that_can_be_audited_gets_no_answer(tmp_path):
    need_root()
    with running() as ended:
        pass
    for text, words in ('%d\n' % ended, 'no process of the control group could be audited'), (
            '1\n0\n', 'holds processes that this PID namespace does not show'):
        (tmp_path / 'cgroup.procs').write_text(text)
        status, message = no_answer('--cgroup', str(tmp_path), *OPTIONS)
        assert status == 125 and words in message


def test_less_than_asked_is_no_fault_where_that_is_the_question():
    need_root()
    with running(bounding(0), ids(), no_new_privs) as less, running(bounding(0), ids(groups=[4]), no_new_privs) as both:
        for pid, status in (less, 0), (both, 1):
            strict, relaxed = (run('audit', *(OPTIONS + extra + [str(pid)])) for extra in ([], ['--at-most']))
            assert (strict.returncode, relaxed.returncode) == (1, status) and strict.stdout == relaxed.stdout != ''
        audit = capdrop.audit(capdrop.Security(**ASKED), both)
        assert [one.field for one in audit.more()] == ['groups'] and len(audit) > 1


def test_a_fanotify_group_that_opens_files_is_more_than_asked():
    need_root()
    try:
        in_child(lambda: c('fanotify_init', 0, os.O_RDONLY))
    except (AttributeError, OSError) as e:
        need(False, 'needs fanotify: %s' % e)
    for flags, fields in (0, ['fanotify']), (0x200, []):
        with running(lambda: c('fanotify_init', flags, os.O_RDONLY), bounding(0), ids(), no_new_privs) as pid:
            assert [one.field for one in capdrop.audit(capdrop.Security(user='33', group='33'), pid)] == fields
            assert bool([line for line in run('audit', str(pid), '--user=33', '--group=33').stdout.splitlines()
                         if 'fanotify' in line]) == bool(fields)


# ---------------------------------------------------------------------------- no answer

def no_answer(*args):
    done = run('audit', *args)
    assert done.stdout == '' and 'Traceback' not in done.stderr and done.stderr.startswith('capdrop: ')
    return done.returncode, done.stderr


def test_a_process_that_is_not_there_or_has_ended_is_an_error():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    for number in (str(pid), '0', str(1 << 70)):            # a zombie holds nothing
        status, message = no_answer(number, *OPTIONS)
        assert status == 125 and 'there is no process %s, or it has ended' % number in message
    os.waitpid(pid, 0)
    with pytest.raises(capdrop.RefusedError):
        capdrop.audit(capdrop.Security(**ASKED), pid)
    assert no_answer(str(pid), *OPTIONS)[0] == 125 and run('status', str(pid)).returncode == 125


def test_a_process_that_ends_while_it_is_looked_at_is_an_error_and_no_other_is_taken_for_it(monkeypatch):
    pid, listdir, gone = os.fork(), os.listdir, []
    if pid == 0:
        time.sleep(60)
        os._exit(0)

    def ending(where):
        names = listdir(where)
        if not gone:
            os.kill(pid, signal.SIGKILL)
            gone.append(os.waitpid(pid, 0))
        return names
    monkeypatch.setattr(posix, 'listdir', ending)
    with pytest.raises(capdrop.RefusedError) as e:
        capdrop.state(pid)
    assert gone and 'no process %d, or it has ended' % pid in str(e.value)


def test_a_process_that_goes_on_starting_threads_is_an_error_not_half_an_answer(monkeypatch):
    listdir, number = os.listdir, itertools.count(1 << 30)
    with running() as pid:
        monkeypatch.setattr(posix, 'listdir', lambda where: listdir(where) + [str(next(number))])
        with pytest.raises(capdrop.RefusedError) as e:
            capdrop.state(pid)
        assert str(e.value) == 'process %d: starts and ends threads too fast to look at them' % pid


def test_what_else_the_system_says_of_a_process_is_an_error_that_says_so():
    with running() as pid:
        def child():
            capdrop.state()
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
            try:
                return str(capdrop.state(pid))
            except capdrop.RefusedError as e:
                return str(e)
        assert in_child(child) == '/proc/%d/task: %s' % (pid, os.strerror(errno.EMFILE))


def proc_hides_processes():
    """hidepid of proc(5), as this /proc is mounted."""
    with open('/proc/self/mountinfo') as file:
        options = [line for line in file if line.split()[4] == '/proc'][-1]
    return 'hidepid=' in options and 'hidepid=0' not in options


def test_a_process_that_may_not_be_looked_into_is_an_error_that_says_to_be_root():
    need_root()
    with running() as pid:
        def child():
            ids()()
            try:
                return str(capdrop.audit(capdrop.Security(user='33', group='33'), pid)), None
            except capdrop.RefusedError as e:
                return str(e), 'root_path' in vars(capdrop.state(pid))
        if proc_hides_processes():
            with pytest.raises(capdrop.RefusedError) as e:
                in_child(child)
            assert 'there is no process %d' % pid in str(e.value)
            return
        message, seen = in_child(child)
        assert message == 'process %d: its root directory and namespaces cannot be seen: run the audit as root' % pid
        assert not seen


def test_what_is_wrong_with_the_stanza_is_an_error_as_everywhere(tmp_path):
    path = tmp_path / 'my.conf'
    path.write_text('Security {\n user = nobody-of-this-name\n}\n')
    status, message = no_answer(str(path), str(os.getpid()))
    assert status == 125 and message.startswith('capdrop: %s:2:9: user: ' % path)
    assert 'chroot' in no_answer(str(os.getpid()), '--user=33', '--group=33', '--chroot=/there/is/none')[1]


def test_without_a_user_the_documented_one_is_wanted_and_root_never_by_silence():
    need_root()
    with pytest.raises(KeyError):
        pwd.getpwnam('ecuser')
    back = ids(uid=(33, 33, 0))
    with running(ids()) as other, running() as root, running(back) as could_be_root:
        for options in [['--capabilities='], ['--supplemental-groups=4']]:
            for pid in root, could_be_root:
                assert 'no user is named, and the default, ecuser, has no account' in no_answer(str(pid), *options)[1]
        assert 'uid' not in [one.field for one in capdrop.audit(capdrop.Security(capabilities=''), other)]


@pytest.mark.parametrize('words', [[], ['1'], ['x', 'y'], ['a.conf', '-1'], ['a', 'b', '1'], ['a.conf', '1x'], ['--exec', 'a', '1'],
                                   ['--user=33'], ['--user=33', '--', '1']], ids=' '.join)
def test_audit_takes_a_file_or_options_and_a_process(words):
    status, message = no_answer(*words)
    assert status == 2 and 'capdrop -h shows how' in message


# ---------------------------------------------------------------------------- what is printed

def test_the_one_line_of_summary_goes_to_standard_error_and_is_for_people():
    need_root()
    with command(*launching(*OPTIONS)) as pid:
        clean, wrong = run('audit', str(pid), *OPTIONS), run('audit', str(pid), '--user=34', *OPTIONS[1:])
        start = 'capdrop: process %d (sleep), 1 thread: ' % pid
        unseen = '; cannot be seen from outside: securebits, keepcaps\n'
        assert (clean.returncode, clean.stdout, clean.stderr) == (0, '', start + 'as a launch leaves it' + unseen)
        assert (wrong.returncode, wrong.stderr) == (1, start + 'nearest to what a launch leaves' + unseen)
        assert run('audit', '-q', str(pid), *OPTIONS).stderr == ''


def test_the_json_of_audit_holds_all_of_it():
    need_root()
    with command(*launching(*OPTIONS)) as pid:
        done = run('audit', '--json', '-q', str(pid), '--user=33', '--group=33', '--supplemental-groups=4')
        answer = json.loads(done.stdout)
        differences = answer.pop('differences')
        assert done.returncode == 1 and answer == {
            'pid': pid, 'command': 'sleep', 'threads': 1, 'like': 'drop or launch', 'unseen': ['securebits', 'keepcaps']}
        assert differences[0] == {'thread': '', 'field': 'groups', 'wanted': [4], 'has': [], 'mark': 'less'}
        assert {'thread': '', 'field': 'permitted', 'wanted': [], 'has': ['cap_net_bind_service'], 'mark': 'more'} in differences
        assert json.loads(run('audit', '--json', str(pid), *OPTIONS).stdout)['differences'] == []


def notes(pid):
    done = run('status', str(pid))
    lines = [line[6:] for line in done.stdout.splitlines() if line.startswith('note: ')]
    assert json.loads(run('status', '--json', str(pid)).stdout)['notes'] == lines and done.returncode == 0
    return lines


def test_status_points_out_what_is_unusual():
    need_root()
    with running(ids(uid=(33, 33, 0), gid=(33, 33, 4), groups=[24, 33])) as pid:
        first, second, third, *others = notes(pid)
        assert first == 'user ids are real, effective, saved, filesystem: it can go back to user 0'
        assert second == 'group ids are real, effective, saved, filesystem: it can go back to group 4'
        assert third.startswith('amounts to root: cap_chown cap_dac_override ')
        assert others == ['groups that user 33 does not have by its account, left over: 24']
    with running() as pid:
        assert notes(pid) == ['user id 0 owns /etc and /proc/sys']
    with command(*launching(*OPTIONS)) as pid:
        assert notes(pid) == []


def test_a_number_of_threads_that_has_moved_on_is_no_difference():
    first, _ = capdrop.look(os.getpid())
    later = dict(first, threads=first['threads'] + 1, no_new_privs=1 - first['no_new_privs'])
    assert [note for note in capdrop.unusual(first, [('7 (x)', later)]) if 'thread' in note] == [
        'thread 7 (x) differs: no_new_privs %d' % later['no_new_privs']]


def test_status_names_users_groups_and_the_command():
    need_root()
    need_accounts_of_debian()
    with command(*launching(*OPTIONS)) as pid:
        lines = dict(line.split(None, 1) for line in run('status', str(pid)).stdout.splitlines())
        assert lines['uid'] == '33 33 33 33 (www-data)' and lines['gid'] == '33 33 33 33 (www-data)'
        assert lines['groups'] == 'none' and lines['command'] == 'sleep' and lines['root_path'] == '/'


# ---------------------------------------------------------------------------- processes that would look better than they are

def threads(*calls):
    """Each call in a thread of its own, which then lives on."""
    def start():
        for call in calls:
            done = threading.Event()
            threading.Thread(target=lambda: (call(), done.set(), time.sleep(60)), daemon=True).start()
            assert done.wait(20)
    return start


def test_a_thread_in_another_root_or_mount_namespace_is_a_difference(jail):
    need_root()
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')

    def leave():
        c('unshare', CLONE_NEWNS)
        os.chroot(str(jail))
        os.chdir('/')
    for calls in (threads(lambda: None), leave), (threads(leave),):     # the first thread in the jail, then the other one
        with running(bounding(0), no_new_privs, *(calls + (ids(),))) as pid:
            lines = found(pid, user='33', group='33')[1]
            assert {line.split(': ')[1] for line in lines if line.startswith('thread ')} == {'root', 'mnt_ns'}


def test_the_root_directory_is_compared_by_device_and_inode_and_not_as_a_set():
    place = {'root': (81, 82)}
    compared = capdrop.Comparison(place, place, [('', {'root': (82, 81)})], capdrop.this_platform(), None)
    assert [one.field for one in compared.differences()] == ['root']


def test_a_bind_mount_of_the_root_directory_is_another_root_directory(tmp_path):
    need_root()
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')

    def child():
        own_mounts()
        c('mount', b'/', os.fsencode(str(tmp_path)), None, MS_BIND, None)
        with running(bounding(0), lambda: os.chroot(str(tmp_path)), lambda: os.chdir('/'), ids(), no_new_privs) as pid:
            return [str(one) for one in capdrop.audit(capdrop.Security(user='33', group='33'), pid)]
    assert in_child(child) == ['root_path: wanted /, has %s (more and less than asked)' % tmp_path]


def test_names_from_a_process_cannot_act_on_a_terminal_or_forge_a_line(tmp_path):
    need_root()
    place = tmp_path / 'x\x1b[31m\nnote: all is well'
    place.mkdir()
    with running(lambda: os.chroot(str(place)), lambda: prctl(15, ctypes.addressof(NAME)), ids()) as pid:
        for done in run('status', str(pid)), run('audit', str(pid), *OPTIONS):
            text = done.stdout + done.stderr
            assert 'all is well' in done.stdout and not [ch for ch in text if ch < ' ' and ch != '\n']
            assert not [line for line in text.splitlines() if line.startswith('note: all')]
        answer = json.loads(run('status', '--json', str(pid)).stdout)
        assert answer['root_path'] == str(place) and answer['command'] == 'a\x07\\xff'


def test_a_thread_that_takes_the_number_of_the_first_while_it_is_looked_at_is_seen(monkeypatch):
    """execve(2): the new program has the number of the process, and the number of its thread is gone."""
    need_root()
    go, (ready, tell) = os.pipe(), os.pipe()

    def root():
        os.write(tell, b'.')
        os.read(go[0], 1)
        os.execv('/bin/sleep', ['sleep', '60'])

    def start():
        threading.Thread(target=root, daemon=True).start()
        os.read(ready, 1)
        wide = {'x86_64': 117, 'aarch64': 147, 's390x': 208, 'ppc64le': 164}       # the kernel's name, also of 32 bits
        c('syscall', wide.get(os.uname()[4]) if sys.maxsize > 2 ** 32 else 208, 33, 33, 33)     # setresuid(2), of this thread only
    with running(start) as pid:
        read, done = capdrop.task_fields, []

        def task(proc, number, known):
            if number != pid and not done:
                done.append(os.write(go[1], b'.'))
                until = time.time() + 20
                while open('/proc/%d/comm' % pid).read() != 'sleep\n' and time.time() < until:
                    time.sleep(0.01)
            return read(proc, number, known)
        monkeypatch.setattr(capdrop, 'task_fields', task)
        audit = capdrop.audit(capdrop.Security(user='33', group='0'), pid)
        assert done and 'uid' in [one.field for one in audit]


def test_threads_that_come_and_go_are_no_reason_not_to_answer():
    need_root()

    def churn():
        def spawn():
            while True:
                one = threading.Thread(target=time.sleep, args=(0.002,))
                one.start()
                one.join()
        for _ in range(4):
            threading.Thread(target=spawn, daemon=True).start()
    with running(drop(**ASKED), churn) as pid:
        assert [capdrop.audit(capdrop.Security(**ASKED), pid) for _ in range(20)] == [[]] * 20


def test_a_kernel_without_namespaces_is_no_reason_not_to_answer(monkeypatch):
    stat = os.stat

    def without(path, *args, **options):
        if isinstance(path, str) and '/ns/' in path or str(path).startswith('ns/'):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return stat(path, *args, **options)
    monkeypatch.setattr(posix, 'stat', without)
    now = vars(capdrop.state(os.getpid()))
    assert 'user_ns' not in now and now['root_path'] == '/'
    asked = capdrop.Security(user=str(os.getuid()), group=str(os.getgid()))
    assert 'root' not in [one.field for one in capdrop.audit(asked, os.getpid())]


def test_a_number_that_no_process_has_is_wrong_usage():
    number = '9' * 5000
    assert run('status', number).returncode == 2 and no_answer(number, *OPTIONS)[0] == 2


def test_a_thread_that_comes_while_another_one_ends_is_not_missed(tmp_path):
    """Their number is the same: they have to be the same ones."""
    for name in '1', '3':
        (tmp_path / name).mkdir()
    tasks = os.open(str(tmp_path), os.O_RDONLY)
    need(os.fstat(tasks).st_nlink == 4, 'needs a file system that counts directories')
    try:
        assert capdrop.is_complete({1: {'uid': 0}, 3: {'uid': 0}}, tasks)
        assert not capdrop.is_complete({1: {'uid': 0}, 2: {'uid': 0}}, tasks)       # 2 has started 3, and ended
        assert not capdrop.is_complete({1: {'uid': 0}, 3: None}, tasks)
        assert not capdrop.is_complete({1: {'uid': 0}}, tasks)
    finally:
        os.close(tasks)


def test_a_launched_process_that_gave_up_its_set_holds_no_more_than_asked():
    """What stays inheritable is more than a drop leaves, and no more than a launch does."""
    need_root()

    def give_up():
        capset(0, 0, BIND)
    with running(drop(**dict(ASKED, capabilities='cap_net_bind_service+eip')), give_up) as pid:
        audit = capdrop.audit(capdrop.Security(**ASKED), pid)
        assert (audit.like, audit.more()) == ('launch', []) and len(audit) > 0
        assert run('audit', '--at-most', str(pid), *OPTIONS).returncode == 0


def test_what_is_not_as_proc_describes_it_is_an_error(monkeypatch):
    def missing(*args):
        raise KeyError('uid')
    monkeypatch.setattr(capdrop, 'task_fields', missing)
    with pytest.raises(capdrop.RefusedError) as e:
        capdrop.state(os.getpid())
    assert 'is not as proc(5) describes it' in str(e.value)


def test_threads_of_the_auditor_do_not_mix_up_what_they_hold():
    need_root()

    def child():
        wrong, until = [], time.monotonic() + 1

        def look(caps):
            capset(caps, caps)
            while time.monotonic() < until:
                if capdrop.state().permitted != caps:
                    wrong.append(caps)
        capdrop.state()
        both = [threading.Thread(target=look, args=(caps,)) for caps in (0, RAW)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        return wrong
    assert in_child(child) == []


def test_a_current_directory_outside_of_the_jail_is_a_difference(jail):
    """chroot(2) does not change it, and leaves the way out open."""
    need_root()
    with running(bounding(0), lambda: (os.chdir('/'), os.chroot(str(jail))), ids(), no_new_privs) as pid:
        found = capdrop.audit(capdrop.Security(user='33', group='33', chroot=str(jail)), pid)
        assert [one.field for one in found] == ['cwd_outside']


def test_a_first_thread_that_ends_while_it_is_looked_at_hides_no_other(monkeypatch):
    """It starts another thread and ends after the list was made; one that was listed ends after it was read."""
    clean = dict(uid=(1111,) * 4)
    listed, nlink = [[10, 11, 12], [10, 11, 13], [10, 11, 13]], 5
    stat = os.stat_result((0,) * 3 + (nlink,) + (0,) * 6)
    monkeypatch.setattr(posix, 'listdir', lambda fd: [str(n) for n in (listed.pop(0) if len(listed) > 1 else listed[0])])
    monkeypatch.setattr(capdrop, 'descriptors_of', lambda tasks, number: {})
    monkeypatch.setattr(posix, 'fstat', lambda fd: stat)
    platform = capdrop.this_platform()
    task = lambda tasks, number, known: dict(clean if number != 13 else dict(uid=(0,) * 4), command='x') if number != 10 else {}
    monkeypatch.setattr(capdrop, 'task_fields', task)
    assert [fields['uid'][0] for _, fields in platform.look(os.getpid())] == [1111, 0]


def deep():
    for _ in range(30):
        os.mkdir('d' * 200)
        os.chdir('d' * 200)


def mounted_over(jail):
    own_mounts()
    os.chdir(jail)
    c('mount', b't', jail.encode(), b'tmpfs', 0, b'mode=755')
    os.chroot(jail)


def test_a_current_directory_too_deep_to_name_does_not_keep_status_and_audit_from_answering(tmp_path):
    need_root()
    with running(lambda: os.chdir(str(tmp_path)), deep) as pid:
        assert capdrop.state(pid).uid == (0,) * 4 and capdrop.state(pid).cwd_outside == 1
    shutil.rmtree(str(tmp_path / ('d' * 200)))          # which goes by descriptors: no path of that length is valid


def test_a_current_directory_below_what_is_mounted_over_it_is_outside(jail):
    need_root()
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')
    with running(lambda: mounted_over(str(jail))) as pid:
        assert capdrop.state(pid).cwd_outside == 1
    with running(lambda: (os.chroot(str(jail)), os.chdir('/'))) as pid:
        assert capdrop.state(pid).cwd_outside == 0
