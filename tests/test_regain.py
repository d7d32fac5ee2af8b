"""After a drop: whatever a compromised daemon would try comes out as the tables of docs/safety.md say."""
import ctypes
import errno
import inspect
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

import pytest

from conftest import HELD, TOP, Ended, c, in_child, need, need_root, prctl, watch
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

RAW_XATTR = struct.pack('<IIIII', 0x02000001, 1 << 13, 0, 0, 0)     # cap_net_raw=ep: linux/capability.h


# ---------------------------------------------------------------------------- attempts: each works, has no effect, or raises
#
# Sent as text to the Python that is launched, so they use nothing but what is imported for them there.

def sets(permitted=0, inheritable=0):
    """capset with these added."""
    data = (ctypes.c_uint32 * 6)()
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    c('capget', header, data)
    data[1] |= permitted
    data[2] |= inheritable
    c('capset', header, data)
    return True


def sees(program):
    """/proc/self/status as this copy of cat sees it."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(write, 1)
            os.execv(program, [program, '/proc/self/status'])
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    if os.waitpid(pid, 0)[1]:
        raise OSError(1, 'exec')
    return dict(line.split(':\t', 1) for line in text.splitlines())


def ring():
    """Open a file of root's through an io_uring and a personality registered after the drop."""
    parameters = bytearray(120)
    memory = (ctypes.c_char * 120).from_buffer(parameters)
    fd = c('syscall', 425, 4, memory)
    personality = c('syscall', 427, fd, 9, None, 0)
    at = lambda offset: struct.unpack_from('=I', parameters, offset)[0]
    queue = mmap.mmap(fd, 4096, offset=0)
    entries = mmap.mmap(fd, 4096, offset=0x10000000)
    answers = mmap.mmap(fd, 4096, offset=0x8000000)
    path = ctypes.create_string_buffer(b'/etc/shadow')
    struct.pack_into('=BBHiQQIIQHH', entries, 0, 18, 0, 0, -100, 0, ctypes.addressof(path), 0, 0, 7, 0, personality)
    struct.pack_into('=I', queue, at(64), 0)            # sq_off.array
    struct.pack_into('=I', queue, at(44), 1)            # sq_off.tail
    c('syscall', 426, fd, 1, 1, 1, None, 0)
    user, result = struct.unpack_from('=Qi', answers, at(100))      # cq_off.cqes
    if user != 7 or result < 0:
        raise OSError(-result, 'io_uring')
    return True


def traced(pid):
    c('ptrace', 16, pid, None, None)
    os.waitpid(pid, 0x40000000)
    c('ptrace', 17, pid, None, None)
    return True


def again(*steps):
    """Works if any of them does; the last error otherwise."""
    for step in steps:
        try:
            step()
            return True
        except OSError as e:
            last = e
    raise last


def descriptors():
    for fd in range(3, 1024):
        try:
            os.fchdir(fd)
            return True
        except OSError:
            pass
    raise OSError(9, 'none')


def climb():
    os.chdir('../../../..')
    return not os.path.samestat(os.stat('.'), os.stat('/')) or os.path.exists('/etc/passwd')


def namespace(then):
    c('unshare', 0x10000000)
    return then()


def attempts(known):
    """tried -> what is called.  `known`: paths and processes to try it on."""
    shadow = lambda: os.open('/etc/shadow', os.O_RDONLY) >= 0
    return {
        'setuid(0)': lambda: os.setuid(0) is None,
        'setreuid(0, 0)': lambda: os.setreuid(0, 0) is None,
        'the effective or the saved user id back to 0': lambda: again(
            lambda: os.seteuid(0), lambda: os.setresuid(-1, 0, -1), lambda: os.setresuid(-1, -1, 0)),
        'the filesystem user id back to 0': lambda: c('setfsuid', 0) < 0 or c('setfsuid', 0) == 0,
        'setgid(0)': lambda: os.setgid(0) is None,
        'setregid(0, 0)': lambda: os.setregid(0, 0) is None,
        'the effective or the saved group id back to 0': lambda: again(
            lambda: os.setegid(0), lambda: os.setresgid(-1, 0, -1), lambda: os.setresgid(-1, -1, 0)),
        'the filesystem group id back to 0': lambda: c('setfsgid', 0) < 0 or c('setfsgid', 0) == 0,
        'setgroups': lambda: again(lambda: os.setgroups([0]), lambda: os.setgroups([4, 27]), lambda: os.setgroups([])),
        'setuid of another user': lambda: os.setresuid(33, 33, 33) is None,
        'a capability given up: permitted': lambda: again(lambda: sets(1 << 13), lambda: sets(1 << 21), lambda: sets(0xffffffff)),
        'a capability given up: inheritable': lambda: again(lambda: sets(0, 1 << 13), lambda: sets(0, 0xffffffff)),
        'a capability given up: ambient': lambda: again(
            lambda: prctl(47, 2, 13), lambda: (sets(0, 1 << 13), prctl(47, 2, 13))),
        'keepcaps on, a change of user, then capset': lambda: (
            prctl(8, 1), os.setresuid(-1, os.getuid(), -1), sets(1 << 13))[2],
        'securebits': lambda: again(lambda: prctl(28, 1 << 4), lambda: prctl(28, 4), lambda: prctl(28, 1)),
        'no_new_privs off': lambda: prctl(38, 0) == 0,
        'a program of root with the setuid bit': lambda: sees(known['setuid'])['Uid'].split()[1] == '0',
        'a program of group 0 with the setgid bit': lambda: sees(known['setgid'])['Gid'].split()[1] == '0',
        'a program with a file capability': lambda: int(sees(known['capable'])['CapEff'], 16) >> 13 & 1 == 1,
        "root's files in a new user namespace": lambda: namespace(shadow),
        "root's files through the personality of an io_uring": ring,
        "root's files through /proc/PID/root": lambda: again(
            lambda: os.listdir('/proc/%d/root' % known['root']), lambda: os.listdir('/proc/%d/fd' % known['root'])),
        'tracing a process of root': lambda: traced(known['root']),
        'a signal to a process of root': lambda: os.kill(known['root'], 0) is None,
        'chroot': lambda: os.chroot('/') is None,
        'mount': lambda: c('mount', b'none', b'/mnt', b'tmpfs', 0, None) == 0,
        # in a jail
        'chroot in the jail': lambda: os.chroot('/bin') is None,
        'a descriptor of a directory': descriptors,
        '../.. from its root': climb,
        '/proc/self/root and /proc/self/fd': lambda: again(
            lambda: os.chdir('/proc/self/root'), lambda: os.chdir('/proc/self/fd'), lambda: os.chdir('/proc/1/root')),
        'a new user namespace, and chroot there': lambda: namespace(lambda: os.chroot('/bin') is None),
        'tracing a process of root outside': lambda: traced(known['root']),
        'tracing a process of the same user outside': lambda: traced(known['same']),
    }


def tried(known, names):
    """{tried: 'works', 'no effect', 'fails' or the exception}, each in a process of its own."""
    answers, functions = {}, attempts(known)
    for name in names:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read)
                answer = ['no effect', 'works'][functions[name]()]
            except OSError as e:
                answer = 'fails' if e.errno in (1, 13, 22, 2, 9, 3, 38) else repr(e)
            except BaseException as e:
                answer = repr(e)
            os.write(write, answer.encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            answers[name] = pipe.read()
        os.waitpid(pid, 0)
    return answers


# ---------------------------------------------------------------------------- the tables, and the processes to try it on

def tables():
    """The rows of the tables in that section, one list a table."""
    with open(os.path.join(TOP, 'docs', 'safety.md'), encoding='utf-8') as file:
        section = re.search(r'^## After the drop\n(.*?)^## ', file.read(), re.M | re.S).group(1)
    found = [[tuple(cell.strip() for cell in line.strip('|').split('|')) for line in block.splitlines()[2:]]
             for block in re.findall(r'(?:^\|.*\n)+', section, re.M)]
    assert len(found) == 3
    return found


OPEN, JAILED, RETAINED = tables()


def test_every_row_of_the_tables_is_tried_and_every_attempt_has_its_row():
    rows = [row[0] for row in OPEN + JAILED]
    assert sorted(rows) == sorted(attempts({})) and set(row[0] for row in RETAINED) <= set(rows)
    assert {word for row in OPEN + JAILED for word in row[1:]} == {'fails', 'no effect', 'works'}


@pytest.fixture(scope='module')
def known():
    """Programs to gain by, and processes to trace."""
    need_root()
    directory = tempfile.mkdtemp(dir='/var/tmp')
    need(not os.statvfs(directory).f_flag & os.ST_NOSUID, 'needs a file system that is not mounted nosuid')
    os.chmod(directory, 0o755)
    found = {}
    for name, mode in ('setuid', 0o4755), ('setgid', 0o2755), ('capable', 0o755):
        found[name] = '%s/%s' % (directory, name)
        shutil.copy('/bin/cat', found[name])
        os.chown(found[name], 0, 0)
        os.chmod(found[name], mode)
    try:
        need(hasattr(os, 'setxattr'), 'needs os.setxattr')
        os.setxattr(found['capable'], 'security.capability', RAW_XATTR)
    except OSError as e:
        need(False, 'needs file capabilities: %s' % e)
    sleep = lambda become: subprocess.Popen(['/bin/sleep', '60'], preexec_fn=become)
    processes = sleep(None), sleep(lambda: (os.setgroups([]), os.setresgid(4321, 4321, 4321), os.setresuid(1111, 1111, 1111)))
    found['root'], found['same'] = [process.pid for process in processes]
    yield found
    shutil.rmtree(directory)
    for process in processes:
        process.kill()
        process.wait()


def after(security, known, names, **options):
    """What came of each attempt, after a drop of a process with groups to lose."""
    def child():
        os.setgroups([4, 27])
        capdrop.drop(security, **options)
        return tried(known, names)
    return in_child(child)


def after_launch(security, known, names, **options):
    """The same in a launched Python."""
    functions = (c, prctl, sets, sees, ring, traced, again, descriptors, climb, namespace, attempts, tried)
    program = 'import ctypes, mmap, os, struct, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n' + '\n'.join(map(inspect.getsource, functions)) + (
        'for pair in tried(%r, %r).items():\n    print("%%s\\t%%s" %% pair)\n' % (known, names))
    out, into = os.pipe()

    def child():
        os.dup2(into, 1)
        os.setgroups([4, 27])
        capdrop.launch(security, ['/usr/bin/python3', '-I', '-S', '-c', program], **options)
    try:
        in_child(child)
        raise AssertionError('launch returned')
    except Ended as e:
        assert e.args[0] == 0, e.args[1]
    finally:
        os.close(into)
    with os.fdopen(out) as pipe:
        return dict(line.rstrip('\n').split('\t') for line in pipe)


def security_of(**options):
    return capdrop.Security(**dict(dict(user='1111', group='4321', capabilities='cap_net_bind_service+ep'), **options))


@pytest.mark.parametrize('allow', [False, True], ids=['by default', 'with new privileges allowed'])
@pytest.mark.parametrize('how', [after, after_launch], ids=['daemon', 'command'])
def test_what_a_compromised_daemon_tries_comes_out_as_the_table_says(how, allow, known):
    need(how is after or os.access('/usr/bin/python3', os.X_OK), 'needs /usr/bin/python3')
    names = [row[0] for row in OPEN]
    if allow:       # by default the bounding set makes exec fail; without no_new_privs it is untouched
        need(HELD & 1 << 13, 'needs cap_net_raw')
    answers = how(security_of(), known, names, no_new_privs=not allow)
    assert [(name, answers[name]) for name in names] == [(row[0], row[1 + allow]) for row in OPEN]


@pytest.mark.parametrize('allow', [False, True], ids=['by default', 'with new privileges allowed'])
def test_what_a_compromised_daemon_tries_in_a_jail_comes_out_as_the_table_says(allow, known, jail):
    rows = JAILED
    if os.path.exists('/proc/sys/kernel/yama/ptrace_scope') and open('/proc/sys/kernel/yama/ptrace_scope').read() != '0\n':
        rows = [row for row in rows if 'same user' not in row[0]]
    names = [row[0] for row in rows]
    answers = after(security_of(chroot=str(jail)), known, names, no_new_privs=not allow)
    assert [(name, answers[name]) for name in names] == [(row[0], row[1 + allow]) for row in rows]


@pytest.mark.parametrize('row', RETAINED, ids=' '.join)
@pytest.mark.parametrize('how', [after, after_launch], ids=['daemon', 'command'])
def test_a_retained_capability_does_what_it_is_for_and_no_more(how, row, known):
    need(how is after or os.access('/usr/bin/python3', os.X_OK), 'needs /usr/bin/python3')
    name, capability, expected = row
    assert how(security_of(capabilities=capability + '+ep'), known, [name]) == {name: expected}


ALSO = ['', 'cap_setuid', 'cap_setgid', 'cap_setuid,cap_setgid', 'cap_setpcap', 'cap_setuid,cap_setgid,cap_setpcap']


@pytest.mark.parametrize('capabilities', ALSO)
def test_no_attempt_is_made_that_a_retained_capability_would_let_succeed(capabilities):
    """Whatever changes and whatever does not: the drop is a success and nothing of it is undone."""
    need_root()

    def child(user, group, groups, before):
        status = watch()
        os.setgroups(before)
        plan = capdrop.plan(capdrop.Security(user=user, group=group, supplemental_groups=groups,
                                             capabilities=capabilities and capabilities + '+ep'))
        capdrop.drop(plan)
        return fields_of(status()), plan.attempts
    for user in '0', '1111':
        for group in '0', '4321':
            for groups in (), ('8',):
                for before in [], [4, 27], [8]:
                    (uid, gid, others), attempts_ = in_child(child, user, group, groups, before)
                    assert (uid, gid, others) == (' '.join([user] * 4), ' '.join([group] * 4), ' '.join(groups))
                    expected = []
                    if user != '0' and 'setuid' not in capabilities:
                        expected.append('setresuid(0, 0, 0)')
                    if group != '0' and 'setgid' not in capabilities:
                        expected.append('setresgid(0, 0, 0)')
                    if set(map(str, before)) - {group} != set(groups) - {group} and 'setgid' not in capabilities:
                        expected.append('setgroups(%s)' % before)
                    assert [text for text in attempts_ if text.startswith('set')] == expected
                    assert len([text for text in attempts_ if text.startswith('capset: ')]) == 1


@pytest.mark.parametrize('uid', [(0, 0, 5), (5, 0, 0), (0, 5, 5), (5, 5, 0), (5, 6, 0), (0, 5, 6)], ids=str)
@pytest.mark.parametrize('which', ['user', 'group'])
def test_each_id_that_the_process_had_is_tried(which, uid):
    """Real, effective and saved: with any of them it could come back."""
    need_root()

    def child():
        prctl(28, 4)            # SECBIT_NO_SETUID_FIXUP: rights stay, whatever the ids
        if which == 'user':
            os.setresuid(*uid)
        else:
            os.setresgid(*uid)
        plan = capdrop.plan(capdrop.Security(user='1111', group='4321'))
        capdrop.drop(plan)
        return plan.attempts
    name = 'setresuid' if which == 'user' else 'setresgid'
    tried_ = [text for text in in_child(child) if text.startswith(name)]
    assert tried_ == ['%s(%d, %d, %d)' % (name, one, one, one) for one in sorted(set(uid))]


def fields_of(found):
    return found['Uid'], found['Gid'], found['Groups']


DISABLED = 64       # IORING_SETUP_R_DISABLED of linux/io_uring.h


def hidden_ring(how, setup=0, place=0xffffffff):
    """Is there now an io_uring that no descriptor shows: registered, or mapped?"""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    ring_ = libc.syscall(425, 4, ctypes.create_string_buffer(struct.pack('=III108x', 0, 0, setup), 120))
    update = ctypes.create_string_buffer(struct.pack('=IIQ', place, 0, max(ring_, 0)))
    if ring_ < 0 or how == 'registered' and libc.syscall(427, ring_, 20, update, 1) != 1:
        return False
    if how == 'mapped' and libc.mmap(None, 4096, 3, 1, ring_, 0) == ctypes.c_void_p(-1).value:      # MAP_SHARED
        return False
    os.close(ring_)
    index = struct.unpack('=I', update.raw[:4])[0]
    if how == 'registered':                                 # it is there
        assert libc.syscall(426, index, 0, 0, 1 << 4, None, 0) == 0 or ctypes.get_errno() == errno.EBADFD
    return True


@pytest.mark.parametrize('how, setup, place', [
    ('registered', 0, 0xffffffff), ('registered', DISABLED, 0xffffffff), ('registered', 0, 0), ('registered', 0, 7),
    ('registered', DISABLED, 15), ('registered', 0, 15), ('mapped', 0, 0xffffffff)],
    ids=['registered', 'registered, not enabled yet', 'first place', 'eighth place', 'last place, not enabled yet',
         'last place', 'mapped'])
def test_a_ring_that_no_descriptor_shows_is_refused(how, setup, place):
    """io_uring_enter takes the index of a descriptor that is registered; a mapping keeps a ring and its requests."""
    need_root()

    def child():
        if not hidden_ring(how, setup, place):
            return None
        try:
            capdrop.drop(security_of())
        except capdrop.RefusedError as e:
            return str(e)
        return 'dropped with an io_uring of root'
    answer = in_child(child)
    need(answer is not None, 'needs io_uring, with registered descriptors')
    assert 'io_uring' in answer and how in answer


@pytest.mark.parametrize('how, others, exec, words', [
    ('registered', {}, True, 'registered'), ('mapped', {}, True, None),         # execve(2) unmaps it
    ('registered', dict(user='0', group='0', capabilities=None), False, None),
    ('mapped', dict(user='0', group='0', capabilities=None), False, None)],
    ids=['registered, then a command', 'mapped, then a command', 'registered, root keeps everything', 'mapped, root keeps everything'])
def test_a_ring_that_no_descriptor_shows_is_refused_only_where_it_would_keep_rights(how, others, exec, words):
    need_root()

    def child():
        if hidden_ring(how):
            return capdrop.plan(security_of(**others), exec=exec).refusals
    refusals = in_child(child)
    need(refusals is not None, 'needs io_uring, with registered descriptors')
    assert [words in text for text in refusals] == [True] if words else refusals == ()


def test_root_itself_succeeds_with_what_is_tried(known):
    """The attempts are real: without a drop they work."""
    answers = in_child(tried, known, [row[0] for row in OPEN])
    failing = {name for name in answers if answers[name] != 'works'}
    # where these tests run in a chroot themselves, nobody can make a user namespace
    assert failing - {"root's files in a new user namespace"} == {'no_new_privs off'}


def test_root_with_capabilities_cannot_be_traced_by_its_like():
    """Another uid 0 without capabilities could otherwise take over what this one retains."""
    need_root()

    def child():
        capdrop.drop(security_of(user='0', group='0'))
        return prctl(3)        # PR_GET_DUMPABLE
    assert in_child(child) == 0
