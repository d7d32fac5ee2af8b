"""What a process opened as root and still holds after the drop: what comes of it, as the table of docs/safety.md says.

Each is tried twice: taken as root and used after the drop, and taken and used by the same user, who must get nothing.
"""
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import re
import resource
import select
import signal
import socket
import stat
import struct
import sys
import termios
import threading
import time

import pytest

from conftest import (
    AS_1111, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER, HELD, SYS_ADMIN, TOP, c, in_child, libc, loopback_up, need,
    need_root, own_mounts, user_namespace)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

NUMBERS = {     # asm/unistd.h; from 424 on they are the same everywhere
    'x86_64': dict(add_key=248, bpf=321, getpid=39, keyctl=250, memfd_create=319, perf_event_open=298, seccomp=317,
                   userfaultfd=323),
    'aarch64': dict(add_key=217, bpf=280, getpid=172, keyctl=219, memfd_create=279, perf_event_open=241, seccomp=277,
                    userfaultfd=282)}
NUMBERS_OF_ALL = dict(
    pidfd_send_signal=424, open_tree=428, move_mount=429, fsopen=430, fsconfig=431, fsmount=432, pidfd_open=434,
    pidfd_getfd=438, landlock_create_ruleset=444, landlock_restrict_self=446)
ABSENT = errno.ENOSYS, errno.ENODEV, errno.ENOENT, errno.ENXIO, errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT
kept = []                   # what the kernel has been told the address of


def syscall(name, *args):
    numbers = dict(NUMBERS.get(os.uname()[4], {}), **NUMBERS_OF_ALL)
    return c('syscall', numbers[name], *args)


def address(data):
    """Of a copy of these bytes."""
    kept.append(ctypes.create_string_buffer(data, len(data)))
    return ctypes.addressof(kept[-1])


def pointer(data):
    return ctypes.c_void_p(address(data))


def outcome(function, *args):
    """What it returns, or the name of its error."""
    try:
        return function(*args)
    except OSError as e:
        return errno.errorcode[e.errno]


def after(take, use):
    """What use(take()) comes to where root takes and drops, and an ordinary user uses."""
    def child():
        thing = take()
        capdrop.drop(capdrop.Security(**AS_1111))
        return outcome(use, thing)
    return in_child(child)


def warnings_with(take):
    """Those of a drop by a process that holds this."""
    def child():
        take()
        return capdrop.drop(capdrop.Security(**AS_1111)).warnings
    return in_child(child)


def without(take, use):
    """The same where the drop comes first."""
    def child():
        capdrop.drop(capdrop.Security(**AS_1111))
        return outcome(lambda: use(take()))
    return in_child(child)


def need_numbers():
    need_root()
    if os.uname()[4] not in NUMBERS or struct.calcsize('P') != 8:
        pytest.skip('the numbers of the system calls are not known here')


def held(take, use):
    """after(take, use), for what the user alone has no right to; skipped where the kernel lacks it, or gives it to anyone."""
    need_numbers()
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin')
    try:
        in_child(lambda: take() and None)
    except OSError as e:
        if e.errno in ABSENT:
            pytest.skip('not in this kernel: %s' % e)
        need(False, 'root cannot make it here: %s' % e)
    alone = without(take, use)
    if alone not in ('EPERM', 'EACCES'):
        pytest.skip('here any user may: %r' % (alone,))
    return after(take, use)


TRIED = {}


def tries(row, word):
    """Of a test: the row of the table, and what it finds."""
    def note(test):
        assert row not in TRIED
        TRIED[row] = word
        return test
    return note


@contextlib.contextmanager
def process_of_root():
    """One that does nothing, and its pid.  What this one has at an address, that one has as well."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(30)
            signal.pause()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


@pytest.fixture
def another():
    need_root()
    with process_of_root() as pid:
        yield pid


@pytest.fixture
def closed(tmp_path):
    """A directory of root's that nobody else can reach, with a file that everyone may write and one that nobody may."""
    need_root()
    above = tmp_path / 'closed'
    inside = above / 'inside'
    inside.mkdir(parents=True)
    for name, mode in ('open', 0o666), ('shut', 0o600):
        (inside / name).write_text('of root')
        (inside / name).chmod(mode)
    inside.chmod(0o755)
    above.chmod(0o700)
    return str(inside)


def content(name, directory=None, flags=os.O_RDONLY):
    fd = os.open(name, flags, dir_fd=directory)
    try:
        return os.read(fd, 99)
    finally:
        os.close(fd)


def again(fd, flags):
    """The file of a descriptor, opened once more."""
    return os.open('/proc/self/fd/%d' % fd, flags)


# ---------------------------------------------------------------------------- memory, and other processes

PAGE = mmap.PAGESIZE


def untouched():
    """A page of memory, and its address."""
    page = mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return page, ctypes.addressof(ctypes.c_char.from_buffer(page))


def userfaultfd():
    fd = syscall('userfaultfd', 0)
    fcntl.ioctl(fd, 0xc018aa3f, struct.pack('=QQQ', 0xaa, 0, 0))                # UFFDIO_API: linux/userfaultfd.h
    return fd


def fills(fd, where):
    source = address(b'of the user'.ljust(2 * PAGE, b'\0'))
    fcntl.ioctl(fd, 0xc020aa00, struct.pack('=QQQQ', where, PAGE, 1, 0))        # UFFDIO_REGISTER
    fcntl.ioctl(fd, 0xc028aa03, struct.pack('=QQQQq', where, source, PAGE, 0, 0))       # UFFDIO_COPY
    return 'filled'


def own_page(fd):
    page, where = untouched()
    fills(fd, where)
    return page[:11]


@tries('a userfaultfd of its own memory', 'works')
def test_a_userfaultfd_opened_as_root_still_fills_the_pages_of_its_process():
    assert held(userfaultfd, own_page) == b'of the user'
    assert any('is a userfaultfd' in text for text in warnings_with(userfaultfd))


@tries('a userfaultfd of the memory of another process', 'works')
def test_a_userfaultfd_of_a_process_of_root_still_fills_its_pages():
    """The descriptor is inherited over fork(2), and stays that of the parent's memory."""
    held(userfaultfd, own_page)

    def parent():
        fd, (page, where) = userfaultfd(), untouched()
        result = in_child(lambda: after(lambda: fd, lambda fd: fills(fd, where)))
        return result, os.getuid(), page[:11]
    assert in_child(parent) == ('filled', 0, b'of the user')


SEEN = ctypes.create_string_buffer(b'before', 16)


def become_1111():
    """What the kernel itself asks, without the refusals of a drop."""
    os.setgroups([])
    os.setresgid(1111, 1111, 1111)
    os.setresuid(1111, 1111, 1111)


@tries('/proc/PID/mem of another process', 'refused')
@pytest.mark.parametrize('path', ['/proc/%d/mem', '/proc/%d/task/%d/mem'])
def test_the_memory_of_a_process_of_root_would_still_be_read_and_written_and_is_refused(path, another):
    need_numbers()
    path = path % ((another,) * path.count('%'))
    where = ctypes.addressof(SEEN)

    def child():
        fd = os.open(path, os.O_RDWR)
        become_1111()
        return os.pread(fd, 6, where), os.pwrite(fd, b'after!', where), os.pread(fd, 6, where)
    assert in_child(child)[::2] == (b'before', b'after!')
    assert SEEN.value == b'before'

    def refused():
        fd = os.open(path, os.O_RDWR)
        try:
            capdrop.drop(capdrop.Security(**AS_1111))
        except capdrop.RefusedError as e:
            return str(e) == 'descriptor %d is the memory of another process, %s, which can be read and written with ' \
                             'the rights of now: close it' % (fd, path), os.getuid()
    assert in_child(refused) == (True, 0)


def test_the_memory_of_another_process_is_known_in_whatever_procfs_it_was_opened(another):
    need_root()

    def child():
        own_mounts()
        c('mount', b'proc', b'/mnt', b'proc', 0, None)
        os.open('/mnt/%d/mem' % another, os.O_RDONLY)
        with pytest.raises(capdrop.RefusedError) as e:
            capdrop.drop(capdrop.Security(**AS_1111))
        return 'is the memory of another process, /mnt/%d/mem' % another in str(e.value)
    assert in_child(child)


def test_the_memory_of_another_process_is_known_when_the_thread_has_ended_that_it_was_opened_by():
    need_root()

    def several():
        end = threading.Event()
        running = threading.Thread(target=end.wait)
        running.start()
        number, = set(os.listdir('/proc/self/task')) - {str(os.getpid())}
        os.write(told[1], number.encode())
        os.read(go[0], 1)
        end.set()
        running.join()
        os.write(told[1], b'x')
        signal.pause()

    def child():
        pid = os.fork()
        if pid == 0:
            try:
                several()
            finally:
                os._exit(0)
        path = '/proc/%d/task/%s/mem' % (pid, os.read(told[0], 20).decode())
        fd = os.open(path, os.O_RDONLY)
        os.write(go[1], b'x')
        os.read(told[0], 1)
        while os.path.exists(path):                 # it is looked up, and gone
            time.sleep(0.01)
        link = os.readlink('/proc/self/fd/%d' % fd)
        try:
            capdrop.drop(capdrop.Security(**AS_1111))
        except capdrop.RefusedError as e:
            return link, str(e)
        finally:
            os.kill(pid, signal.SIGKILL)
    told, go = os.pipe(), os.pipe()
    link, message = in_child(child)
    assert link.endswith('/mem') and 'is the memory of another process, %s,' % link in message


def test_the_memory_of_the_process_itself_and_files_of_that_name_are_not_refused(tmp_path):
    need_root()
    (tmp_path / 'mem').write_text('')
    (tmp_path / '12').mkdir()
    (tmp_path / '12' / 'mem').write_text('not that of a process')

    def child():
        os.open('/proc/self/mem', os.O_RDWR)
        os.open(str(tmp_path / 'mem'), os.O_RDWR)
        os.open(str(tmp_path / '12' / 'mem'), os.O_RDWR)
        os.open('/proc/1/status', os.O_RDONLY)
        return capdrop.drop(capdrop.Security(**AS_1111)).uid[0]
    assert in_child(child) == 1111


@tries('the directory /proc/PID of another process', 'fails')
def test_the_directory_of_a_process_of_root_opened_before_opens_nothing_of_it(another):
    found = held(lambda: os.open('/proc/%d' % another, os.O_RDONLY),
                 lambda fd: os.open('mem', os.O_RDONLY, dir_fd=fd))
    assert found == 'EACCES'


@tries('a process that it traces', 'works')
def test_a_process_of_root_traced_before_is_still_written_to(another):
    def take():
        c('ptrace', 0x4206, another, None, None)        # PTRACE_SEIZE, PTRACE_INTERRUPT: linux/ptrace.h
        c('ptrace', 0x4207, another, None, None)
        os.waitpid(another, 0x40000000)
        return another

    def use(pid):
        c('ptrace', 4, pid, ctypes.c_void_p(ctypes.addressof(SEEN)), ctypes.c_void_p(0x41414141))       # PTRACE_POKETEXT
        return 'written'
    assert held(take, use) == 'written'
    assert any('or a process that this one traces, keep what they have' in text for text in warnings_with(take))


PIDFD = {
    'signal': lambda fd: syscall('pidfd_send_signal', fd, 0, None, 0),
    'descriptor': lambda fd: syscall('pidfd_getfd', fd, 0, 0),
    'its network namespace': lambda fd: c('setns', fd, CLONE_NEWNET),
    'its mount namespace': lambda fd: c('setns', fd, CLONE_NEWNS),
}


@tries('a pidfd', 'fails')
@pytest.mark.parametrize('what', PIDFD)
def test_a_pidfd_of_a_process_of_root_opened_before_gives_nothing_of_it(what, another):
    assert held(lambda: syscall('pidfd_open', another, 0), PIDFD[what]) == 'EPERM'


@tries('a descriptor of a namespace', 'fails')
@pytest.mark.parametrize('name', ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'])
def test_a_namespace_opened_as_root_cannot_be_entered(name, another):
    """Nor by whoever is root of a user namespace of his own."""
    def use(fd):
        found = outcome(c, 'setns', fd, 0)
        with contextlib.suppress(OSError):
            c('unshare', CLONE_NEWUSER)
        return {found, outcome(c, 'setns', fd, 0)}
    found = held(lambda: os.open('/proc/%d/ns/%s' % (another, name), os.O_RDONLY), use)
    assert found <= ({'EPERM'} if name != 'user' else {'EPERM', 'EINVAL'})      # EINVAL: it is in that one


def owned():
    """A socket whose owner is a process of root, and that one."""
    near, far = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(10)
            signal.pause()
        finally:
            os._exit(0)
    fcntl.fcntl(near, fcntl.F_SETOWN, pid)
    return near, far, pid


def signalled(thing):
    near, far, pid = thing
    itself = outcome(os.kill, pid, signal.SIGKILL)
    fcntl.fcntl(near, 10, signal.SIGKILL)               # F_SETSIG: asm-generic/fcntl.h
    fcntl.fcntl(near, fcntl.F_SETFL, fcntl.fcntl(near, fcntl.F_GETFL) | 0o20000)        # O_ASYNC
    far.send(b'x')
    return itself, os.waitpid(pid, 0)[1]


@tries('a descriptor whose owner (F_SETOWN) is another process', 'works')
def test_a_descriptor_that_root_has_given_an_owner_still_kills_it():
    need_root()
    assert after(owned, signalled) == ('EPERM', signal.SIGKILL)


def listener():
    """A process of root that asks what getpid(2) is to answer, and the descriptor by which it is told."""
    near, far = socket.socketpair()
    if os.fork() == 0:
        try:
            signal.alarm(10)
            near.close()
            number = NUMBERS[os.uname()[4]]['getpid']
            rows = (0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x7fc00000), (6, 0, 0, 0x7fff0000)
            code = address(b''.join(struct.pack('=HBBI', *row) for row in rows))
            fd = syscall('seccomp', 1, 8, pointer(struct.pack('@HP', len(rows), code)))         # FILTER_FLAG_NEW_LISTENER
            far.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('=i', fd))])
            os.close(fd)
            far.recv(1)
            far.send(b'%d' % c('syscall', number))
        finally:
            os._exit(0)
    far.close()
    ancillary = near.recvmsg(1, 99)[1]
    if not ancillary:
        raise PermissionError(errno.EPERM, 'it has no listener')
    return struct.unpack('=i', ancillary[0][2])[0], near


def answers(thing):
    fd, near = thing
    near.send(b'x')
    asked = bytearray(80)
    fcntl.ioctl(fd, 0xc0502100, asked)                  # SECCOMP_IOCTL_NOTIF_RECV, _SEND: linux/seccomp.h
    fcntl.ioctl(fd, 0xc0182101, struct.pack('=QqiI', struct.unpack_from('=Q', asked)[0], 4711, 0, 0))
    return near.recv(9)


@tries('the listener of a seccomp filter', 'works')
def test_the_listener_of_a_filter_of_a_process_of_root_still_answers_its_calls():
    need_numbers()
    try:
        in_child(lambda: listener() and None)
    except OSError as e:
        pytest.skip('no listener of a filter, as from Linux 5.0 on: %s' % e)
    assert after(listener, answers) == b'4711'
    assert any('is the listener of a seccomp filter' in text for text in warnings_with(listener))


# ---------------------------------------------------------------------------- perf, bpf, landlock

def perf_event():
    """Context switches of a CPU: linux/perf_event.h."""
    return syscall('perf_event_open', pointer(struct.pack('=IIQQQQQ', 1, 112, 3, 0, 0, 0, 0).ljust(112, b'\0')), -1, 0, -1, 0)


def counts(fd):
    first, end = os.read(fd, 8), time.monotonic() + 10
    while time.monotonic() < end:
        time.sleep(0.01)
        if os.read(fd, 8) != first:
            return 'counted'


@tries('a perf event of a whole CPU', 'works')
def test_a_perf_event_opened_as_root_still_counts_for_every_process():
    assert held(perf_event, counts) == 'counted'


def bpf(command, data):
    return syscall('bpf', command, pointer(data.ljust(144, b'\0')), 144)


def bpf_map():
    return bpf(0, struct.pack('=IIII', 2, 4, 8, 1))     # an array: linux/bpf.h


def writes_map(fd):
    key, value, found = address(bytes(4)), address(b'the user'), address(bytes(8))
    bpf(2, struct.pack('=IIQQQ', fd, 0, key, value, 0))
    bpf(1, struct.pack('=IIQQQ', fd, 0, key, found, 0))
    return ctypes.string_at(found, 8)


def program(kind, attached=0):
    """One that returns 0."""
    code = address(struct.pack('=BBhiBBhi', 0xb7, 0, 0, 0, 0x95, 0, 0, 0))
    return bpf(5, struct.pack('=IIQQIIQII16sII', kind, 2, code, address(b'GPL\0'), 0, 0, 0, 0, 0, b'held', 0, attached))


def traces(fd):
    os.close(bpf(17, struct.pack('=QI', address(b'sched_process_exit\0'), fd)))         # BPF_RAW_TRACEPOINT_OPEN
    return 'attached'


@tries('a BPF map', 'works')
def test_a_bpf_map_made_as_root_is_still_read_and_written():
    assert held(bpf_map, writes_map) == b'the user'


@tries('a BPF program', 'works')
def test_a_bpf_program_loaded_as_root_can_still_be_attached_to_the_kernel():
    assert held(lambda: program(17), traces) == 'attached'


@tries('a BPF map: making another', 'fails')
def test_with_a_bpf_map_made_as_root_no_other_can_be_made():
    assert held(bpf_map, lambda fd: (outcome(bpf_map), outcome(program, 17))) == ('EPERM', 'EPERM')


@contextlib.contextmanager
def cgroup():
    """A group of its own, of version 2, below that which is mounted."""
    with open('/proc/mounts') as file:
        found = [line.split()[1] for line in file if line.split()[2] == 'cgroup2']
    place = found and os.path.join(found[0], 'capdrop-held-%d' % os.getpid())
    try:
        os.mkdir(place or '/sys/fs/cgroup/none/none')
    except OSError as e:
        pytest.skip('no cgroup of version 2 can be made here: %s' % e)
    try:
        yield place
    finally:
        end = time.monotonic() + 10
        while True:
            try:
                os.rmdir(place)
                break
            except OSError as e:
                assert e.errno == errno.EBUSY and time.monotonic() < end    # the process in it has to end first
                time.sleep(0.01)


@tries('a BPF program: attaching it to an open cgroup', 'works')
def test_a_bpf_program_loaded_as_root_can_still_be_attached_to_a_cgroup():
    need_root()

    def use(thing):
        for command in 8, 9:                            # BPF_PROG_ATTACH, BPF_PROG_DETACH
            bpf(command, struct.pack('=IIII', thing[0], thing[1], 10, 0))       # BPF_CGROUP_INET4_CONNECT
        return 'attached'
    with cgroup() as place:
        assert held(lambda: (os.open(place, os.O_RDONLY), program(18, 10)), use) == 'attached'


@tries('a BPF link', 'works')
def test_a_bpf_link_made_as_root_can_still_be_detached():
    need_root()

    def take():
        return bpf(28, struct.pack('=IIII', program(18, 10), os.open(place, os.O_RDONLY), 10, 0))
    with cgroup() as place:
        assert held(take, lambda fd: bpf(34, struct.pack('=I', fd))) == 0       # BPF_LINK_DETACH


@tries('a cgroup.procs or cgroup.kill of a cgroup', 'works')
def test_the_files_of_a_cgroup_opened_as_root_still_move_and_kill_processes_of_root():
    need_root()

    def take(name='cgroup.procs'):
        return os.open(os.path.join(place, name), os.O_WRONLY)

    def member():
        with open(os.path.join(place, 'cgroup.procs')) as file:
            return int(file.read() or 0)
    with cgroup() as place:
        with process_of_root() as pid:
            assert held(take, lambda fd: os.write(fd, b'%d' % pid)) and member() == pid
            if os.path.exists(os.path.join(place, 'cgroup.kill')):              # Linux 5.14
                assert held(lambda: take('cgroup.kill'), lambda fd: os.write(fd, b'1')) == 1
                assert os.waitpid(pid, 0)[1] == signal.SIGKILL


@tries('the directory of a cgroup', 'fails')
def test_the_directory_of_a_cgroup_opened_as_root_moves_nobody():
    need_root()
    with cgroup() as place:
        found = held(lambda: os.open(place, os.O_RDONLY),
                     lambda fd: os.open('cgroup.procs', os.O_WRONLY, dir_fd=fd))
        assert found == 'EACCES'


@tries('a Landlock ruleset', 'works')
def test_a_landlock_ruleset_made_as_root_takes_rights_away_from_its_holder_only():
    need_root()

    def take():
        return syscall('landlock_create_ruleset', pointer(struct.pack('=Q', 4)), 8, 0)  # LANDLOCK_ACCESS_FS_READ_FILE

    def use(fd):
        return syscall('landlock_restrict_self', fd, 0), outcome(os.open, '/etc/passwd', os.O_RDONLY)
    try:
        in_child(take)
    except OSError as e:
        pytest.skip('no Landlock in this kernel: %s' % e)
    assert after(take, use) == without(take, use) == (0, 'EACCES')


# ---------------------------------------------------------------------------- sockets

def own_network():
    """As far as this process may make one."""
    try:
        c('unshare', CLONE_NEWNET)
        loopback_up()
    except OSError as e:
        if os.geteuid() == 0:
            need(False, 'needs a network namespace: %s' % e)


def opened(*kind):
    """A function that opens such a socket in a network of its own."""
    def take():
        own_network()
        made = socket.socket(*kind)
        made.settimeout(10)
        return made
    return take


def need_network():
    need_root()
    try:
        in_child(c, 'unshare', CLONE_NEWNET)
    except OSError as e:
        need(False, 'needs a network namespace: %s' % e)


def asks(netlink, kind, payload, flags=5):
    """The answer to a request: linux/netlink.h."""
    netlink.send(struct.pack('=IHHII', 16 + len(payload), kind, flags, 1, 0) + payload)
    answer = netlink.recv(65536)
    if struct.unpack_from('=H', answer, 4)[0] == 2 and answer[16:20] != bytes(4):       # NLMSG_ERROR
        raise OSError(-struct.unpack_from('=i', answer, 16)[0], 'netlink')
    return 'done'


LOOPBACK = socket.inet_aton('10.9.9.9')
NETLINK = {     # protocol, type, payload, flags
    'an address': (0, 20, struct.pack('=BBBBIHH4sHH4s', 2, 32, 0, 0, 1, 8, 2, LOOPBACK, 8, 1, LOOPBACK), 0x405),
    'a device down': (0, 16, struct.pack('=BBHiII', 0, 0, 0, 1, 0, 1), 5),
    'IPsec policies': (6, 28, bytes(8), 5),
    'the audit system': (9, 1000, b'', 5),
    'nftables': (12, 10 << 8, struct.pack('=BBH', 2, 0, 0), 5),
    'a device event': (15, 16, b'add@/x\0', 5),
}


@tries('a netlink socket', 'fails')
@pytest.mark.parametrize('what', NETLINK)
def test_a_netlink_socket_opened_as_root_changes_nothing(what):
    need_network()
    protocol, kind, payload, flags = NETLINK[what]
    take, use = opened(socket.AF_NETLINK, socket.SOCK_RAW, protocol), lambda made: asks(made, kind, payload, flags)
    try:
        in_child(lambda: take() and None)
    except OSError as e:
        pytest.skip('not in this kernel: %s' % e)
    assert after(take, use) == 'EPERM'
    if what in ('an address', 'a device down'):
        assert in_child(lambda: use(take())) == 'done'


@tries('a packet socket', 'works')
def test_a_packet_socket_opened_as_root_still_sees_what_others_send():
    need_network()

    def use(made):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b'of another', ('127.0.0.1', 9))
        seen = made.recv(999)
        while not seen.endswith(b'of another'):
            seen = made.recv(999)
        return seen[-10:]
    assert held(opened(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)), use) == b'of another'


def datagram(source, target, port):
    """From port 53 of source, with its IP header."""
    udp = struct.pack('!HHHH', 53, port, 14, 0) + b'forged'
    header = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 34, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target))
    total = sum(struct.unpack('!10H', header))
    total = (total & 0xffff) + (total >> 16)
    return header[:10] + struct.pack('!H', ~total & 0xffff) + header[12:] + udp


def received(address, send):
    """(text, sender) of the datagram that send(port) brings to a socket at this address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((address, 0))
        receiver.settimeout(10)
        send(receiver.getsockname()[1])
        return receiver.recvfrom(99)


@tries('a raw socket', 'works')
def test_a_raw_socket_opened_as_root_still_sends_from_any_address():
    need_network()

    def use(made):
        made.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        return received('127.0.0.1', lambda port: made.sendto(datagram('127.6.6.6', '127.0.0.1', port), ('127.0.0.1', 0)))
    assert held(opened(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP), use) == (b'forged', ('127.6.6.6', 53))


OPTIONS = {     # level, option: linux/in.h, linux/tcp.h, asm-generic/socket.h
    'IP_TRANSPARENT': (0, 19, lambda made: made.bind(('192.0.2.7', 8080))),
    'TCP_REPAIR': (6, 19, lambda made: (made.bind(('127.0.0.1', 8080)), made.connect(('127.0.0.1', 1))) and None),
}


@tries('a socket with IP_TRANSPARENT or TCP_REPAIR set', 'works')
@pytest.mark.parametrize('name', OPTIONS)
def test_an_option_that_root_has_set_on_a_socket_still_does_what_it_is_for(name):
    """It is bound to an address of another machine, or connected to one that does not answer."""
    need_network()
    level, option, use = OPTIONS[name]

    def take():
        made = opened()()
        made.setsockopt(level, option, 1)
        return made
    assert held(take, use) is None
    assert after(opened(), use) in ('EADDRNOTAVAIL', 'ECONNREFUSED')


@tries('a socket: setting such an option, or the flags of a device', 'fails')
def test_a_socket_opened_as_root_is_given_no_such_option_afterwards():
    need_network()
    assert after(opened(), lambda made: made.setsockopt(0, 19, 1)) == 'EPERM'
    assert after(opened(), lambda made: made.setsockopt(1, 36, 1)) == 'EPERM'           # SO_MARK
    assert after(opened(), lambda made: fcntl.ioctl(made, 0x8914, struct.pack('16sH22x', b'lo', 0))) == 'EPERM'


def tun_attached():
    own_network()
    fd = os.open('/dev/net/tun', os.O_RDWR)
    attaches(fd)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:      # SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS
        for request, number in (0x8916, '10.9.9.1'), (0x891c, '255.255.255.0'):
            fcntl.ioctl(made, request, struct.pack('16sHH4s16x', b'held0', 2, 0, socket.inet_aton(number)))
        fcntl.ioctl(made, 0x8914, struct.pack('16sH22x', b'held0', 1))
    return fd


def attaches(fd):
    """TUNSETIFF with IFF_TUN and IFF_NO_PI: linux/if_tun.h."""
    fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH22x', b'held0', 0x1001))


@tries('a TUN device', 'works')
def test_a_tun_device_attached_as_root_still_sends_into_its_network():
    need_network()

    def use(fd):
        return received('10.9.9.1', lambda port: os.write(fd, datagram('10.9.9.53', '10.9.9.1', port)))
    assert held(tun_attached, use) == (b'forged', ('10.9.9.53', 53))


@tries('/dev/net/tun without a device', 'fails')
def test_dev_net_tun_opened_as_root_makes_no_device_afterwards():
    need_network()

    def take():
        own_network()
        return os.open('/dev/net/tun', os.O_RDWR)
    assert held(take, attaches) in ('EPERM', 'EACCES')


def credentials(peer):
    """(uid, gid) of the one at the other end: unix(7)."""
    return struct.unpack('=iii', peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1:]


def listening():
    server = socket.socket(socket.AF_UNIX)
    server.bind('\0capdrop-held-%d' % os.getpid())
    server.listen(1)
    return server


def connects(server):
    client = socket.socket(socket.AF_UNIX)
    client.connect(server.getsockname())
    return client


def connected():
    server = listening()
    return connects(server), server.accept()[0]


@tries('a connected unix socket', 'works')
def test_a_unix_socket_connected_as_root_still_shows_root_to_its_peer():
    need_root()
    assert after(connected, lambda thing: credentials(thing[1])) == (0, 0)
    assert without(connected, lambda thing: credentials(thing[1])) == (1111, 4321)


@tries('a listening unix socket', 'works')
def test_a_unix_socket_that_root_listens_on_still_shows_root_to_who_connects():
    """Until it is told to listen once more."""
    need_root()
    assert after(listening, lambda server: credentials(connects(server))) == (0, 0)
    assert after(listening, lambda server: (server.listen(1), credentials(connects(server)))) == (None, (1111, 4321))


@tries('a connected unix socket: sending the credentials of root', 'fails')
def test_over_a_unix_socket_connected_as_root_no_credentials_of_root_are_sent():
    need_root()

    def use(thing):
        near, far = thing
        far.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        near.send(b'x')
        sent = struct.unpack('=iii', far.recvmsg(1, 99)[1][0][2])[1:]
        root = struct.pack('=iii', os.getpid(), 0, 0)
        return sent, outcome(near.sendmsg, [b'x'], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, root)])
    assert after(connected, use) == ((1111, 4321), 'EPERM')


# ---------------------------------------------------------------------------- files, directories and mounts

@tries('a directory', 'works')
def test_a_directory_opened_as_root_still_opens_what_is_below_it(closed):
    need_root()
    assert held(lambda: os.open(closed, os.O_RDONLY), lambda fd: content('open', fd)) == b'of root'
    assert after(lambda: os.open(closed, os.O_RDONLY), lambda fd: content('shut', fd)) == 'EACCES'


@tries('a directory: open_by_handle_at', 'fails')
def test_a_directory_opened_as_root_opens_no_file_handle(closed):
    def use(fd):
        handle = ctypes.create_string_buffer(struct.pack('=I', 128), 136)
        c('name_to_handle_at', fd, b'.', handle, ctypes.byref(ctypes.c_int()), 0)
        found = outcome(c, 'open_by_handle_at', fd, handle, 0)
        with contextlib.suppress(OSError):
            c('unshare', CLONE_NEWUSER | CLONE_NEWNS)
        return {found, outcome(c, 'open_by_handle_at', fd, handle, 0)}
    if not hasattr(libc, 'open_by_handle_at'):
        pytest.skip('needs open_by_handle_at(2)')
    found = after(lambda: os.open(closed, os.O_RDONLY), use)
    if found == 'EOPNOTSUPP':
        pytest.skip('this file system has no handles')
    assert found == {'EPERM'}


@tries('a file, or an O_PATH descriptor of one, that everyone may write', 'works')
def test_a_file_in_a_closed_directory_is_still_opened_by_its_descriptor(closed):
    """Its own mode is asked for, and the way to it is not."""
    need_root()
    for flags in os.O_PATH, os.O_RDONLY:
        assert held(lambda: os.open(closed + '/open', flags), lambda fd: again(fd, os.O_RDWR) > 0) is True


@tries('a file opened for reading: writing it, its mode, another name', 'fails')
def test_a_file_opened_for_reading_as_root_is_not_opened_for_writing_afterwards(closed):
    need_root()

    def use(fd):
        return [os.read(fd, 99), outcome(again, fd, os.O_RDWR), outcome(os.fchmod, fd, 0o666),
                outcome(c, 'linkat', fd, b'', -100, b'/dev/shm/capdrop-held', 0x1000)]
    read, write, mode, name = held(lambda: os.open(closed + '/shut', os.O_RDONLY), use)
    assert (read, write, mode) == (b'of root', 'EACCES', 'EPERM') and name in ('ENOENT', 'EXDEV', 'EPERM')


@tries('a mapping of a file opened for writing', 'works')
def test_a_mapping_of_a_file_of_root_is_still_written_also_if_it_was_mapped_for_reading(closed):
    need_root()
    libc.mmap.restype = ctypes.c_void_p

    def take():
        fd = os.open(closed + '/shut', os.O_RDWR)
        place = libc.mmap(None, ctypes.c_size_t(PAGE), 1, 1, fd, ctypes.c_long(0))      # PROT_READ, MAP_SHARED
        os.close(fd)
        return place

    def use(place):
        c('mprotect', ctypes.c_void_p(place), ctypes.c_size_t(PAGE), 3)
        ctypes.memmove(place, b'by user', 7)
        return 'written'
    assert held(take, use) == 'written' and content(closed + '/shut') == b'by user'


def detached(place):
    """A copy of the mount, that is nowhere: open_tree(2)."""
    own_mounts_if_possible()
    return syscall('open_tree', -100, os.fsencode(place), 1)


def own_mounts_if_possible():
    with contextlib.suppress(OSError):
        own_mounts()


def moves(fd):
    return syscall('move_mount', fd, b'', -100, b'/mnt', 4)


@tries('a detached mount', 'works')
def test_a_detached_mount_still_opens_what_is_below_it(closed):
    assert held(lambda: detached(closed), lambda fd: content('open', fd)) == b'of root'


@tries('a detached mount: attaching it', 'fails')
def test_a_detached_mount_is_attached_nowhere_but_in_a_user_namespace_of_its_holder(closed):
    assert held(lambda: detached(closed), moves) == 'EPERM'

    def use(fd):
        c('unshare', CLONE_NEWUSER | CLONE_NEWNS)
        return moves(fd), content('/mnt/open'), outcome(content, '/mnt/shut')
    found = after(lambda: detached(closed), use)
    assert found == (0, b'of root', 'EACCES') or found in ('EPERM', 'ENOSPC', 'EINVAL')     # where it may make none


@tries('a detached mount or an open directory, with chroot', 'refused')
def test_a_detached_mount_is_refused_with_chroot_as_any_directory(closed, jail):
    held(lambda: detached(closed), moves)

    def child():
        detached(closed)
        try:
            capdrop.drop(capdrop.Security(chroot=str(jail), **AS_1111))
        except capdrop.RefusedError as e:
            return str(e)
    assert 'is a directory' in in_child(child)


def file_system():
    own_mounts_if_possible()
    return syscall('fsopen', b'tmpfs', 0)


def created():
    fd = file_system()
    syscall('fsconfig', fd, 6, None, None, 0)           # FSCONFIG_CMD_CREATE: linux/mount.h
    return fd


@tries('a file system being set up (fsopen)', 'fails')
def test_a_file_system_that_root_has_begun_to_set_up_is_not_mounted_afterwards():
    assert held(file_system, lambda fd: syscall('fsconfig', fd, 6, None, None, 0)) == 'EPERM'
    assert after(created, lambda fd: syscall('fsmount', fd, 0, 0)) == 'EPERM'

    def use(fd):
        c('unshare', CLONE_NEWUSER | CLONE_NEWNS)
        return moves(syscall('fsmount', fd, 0, 0)), outcome(os.chmod, '/mnt', 0o777)
    assert after(created, use) in ((0, 'EPERM'), 'EPERM', 'ENOSPC', 'EINVAL')   # where it may make none


@tries('a writable memfd', 'works')
def test_a_memfd_is_written_also_by_who_was_given_it_for_reading_unless_it_is_sealed():
    """Its mode is 0777: only a seal keeps anyone from opening it again."""
    need_numbers()

    def take(seals=0):
        fd = syscall('memfd_create', b'held', 2)
        os.write(fd, b'of root')
        fcntl.fcntl(fd, 1033, seals)                    # F_ADD_SEALS: linux/fcntl.h
        return again(fd, os.O_RDONLY)

    def use(fd):
        return outcome(lambda: os.write(again(fd, os.O_RDWR), b'by user')), os.pread(fd, 9, 0)
    assert after(take, use) == (7, b'by user')
    assert after(lambda: take(8), use) == ('EPERM', b'of root')                 # F_SEAL_WRITE


PROC_AND_SYS = '/proc/%d/environ', '/proc/%d/maps', '/dev/kmsg'


@tries('another file of /proc, /sys or /dev', 'works')
@pytest.mark.parametrize('name', PROC_AND_SYS)
def test_a_file_of_proc_or_dev_that_was_opened_as_root_is_still_read(name, another):
    name = name % another if '%' in name else name
    found = held(lambda: os.open(name, os.O_RDONLY | os.O_NONBLOCK), lambda fd: os.read(fd, 8192))
    assert isinstance(found, bytes) and found


@tries('a file of /proc/sys', 'fails')
def test_a_file_of_proc_sys_that_was_opened_as_root_is_not_written():
    """The kernel asks again whenever it is written."""
    need_network()

    def take():
        own_network()
        return os.open('/proc/sys/net/ipv4/ip_forward', os.O_WRONLY)
    assert held(take, lambda fd: os.write(fd, b'1')) == 'EPERM'
    assert in_child(lambda: os.write(take(), b'1')) == 1


@tries('the file register of binfmt_misc', 'works')
def test_the_file_register_of_binfmt_misc_opened_as_root_still_registers_interpreters():
    """With the flag C they run with the rights of a program that is setuid root."""
    need_root()

    def take():
        if os.geteuid() == 0:
            user_namespace('0 0 65536', '0 0 65536')()  # so that it is none but its own
        own_mounts()
        c('mount', b'none', b'/mnt', b'binfmt_misc', 0, None)
        return os.open('/mnt/register', os.O_WRONLY)

    def use(fd):
        os.write(fd, b':held:M::HELD::/bin/true:C')
        return os.path.exists('/mnt/held')
    try:
        in_child(take)
    except (AssertionError, OSError) as e:
        pytest.skip('no binfmt_misc in a user namespace, as from Linux 6.7 on: %s' % e)
    assert held(take, use) is True


@tries('an inotify watch', 'works')
def test_an_inotify_watch_of_a_closed_directory_still_tells_names(closed):
    need_root()
    watched = os.path.join(closed, '..')

    def take():
        fd = c('inotify_init')
        c('inotify_add_watch', fd, os.fsencode(watched), 0x100)         # IN_CREATE: linux/inotify.h
        ready, go = os.pipe()
        if os.fork() == 0:
            try:
                os.close(go)
                if os.read(ready, 1):
                    os.close(os.open(watched + '/new-name', os.O_CREAT | os.O_WRONLY))
            finally:
                os._exit(0)
        return fd, go

    def use(thing):
        os.write(thing[1], b'x')
        name = os.read(thing[0], 99)[16:].rstrip(b'\0')
        return name, outcome(c, 'inotify_add_watch', thing[0], os.fsencode(watched), 0x200)
    assert held(take, use) == (b'new-name', 'EACCES')


@tries('an epoll set or a signalfd', 'nothing')
def test_an_epoll_set_or_a_signalfd_made_as_root_tells_no_more_than_that_something_can_be_read():
    need_root()

    def take():
        reading, writing = os.pipe()
        duplicate, epoll = os.dup(reading), select.epoll()
        signals = c('signalfd', -1, ctypes.byref(ctypes.c_uint64(1 << signal.SIGUSR1 - 1)), os.O_NONBLOCK)
        epoll.register(reading, select.EPOLLIN)
        os.close(reading)
        os.write(writing, b'x')
        return epoll, signals, duplicate, reading

    def use(thing):
        epoll, signals, _, number = thing
        return epoll.poll(5) == [(number, select.EPOLLIN)], outcome(os.read, number, 1), outcome(os.read, signals, 128)
    assert after(take, use) == (True, 'EBADF', 'EAGAIN')


# ---------------------------------------------------------------------------- a file system served by its holder

PROGRAM = b'/usr/bin/id'


def serve(fd, program):
    """A FUSE file system with a program that is setuid root: linux/fuse.h."""
    def attributes(node):
        mode, size = (stat.S_IFDIR | 0o755, 0) if node == 1 else (stat.S_IFREG | 0o4755, len(program))
        return struct.pack('=6Q10I', node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
    while True:
        request = os.read(fd, 1 << 18)
        _, operation, unique, node = struct.unpack_from('=IIQQ', request)
        failure, answer = 0, b''
        if operation == 26:                             # INIT
            answer = struct.pack('=IIIIHHI', 7, 12, 0, 0, 0, 0, 4096)
        elif operation == 3:                            # GETATTR
            answer = struct.pack('=QII', 1, 0, 0) + attributes(node)
        elif operation == 1 and request[40:].rstrip(b'\0') == b'id':            # LOOKUP
            answer = struct.pack('=QQQQII', 2, 0, 1, 1, 0, 0) + attributes(2)
        elif operation in (14, 27):                     # OPEN, OPENDIR
            answer = struct.pack('=QII', 1, 0, 0)
        elif operation == 15:                           # READ
            offset, size = struct.unpack_from('=QI', request, 48)
            answer = program[offset:offset + size]
        elif operation == 2:                            # FORGET has no answer
            continue
        elif operation not in (18, 25, 29):             # RELEASE, FLUSH, RELEASEDIR
            failure = -errno.ENOENT if operation == 1 else -errno.ENOSYS
        os.write(fd, struct.pack('=IiQ', 16 + len(answer), failure, unique) + answer)


@tries('/dev/fuse with a file system that is mounted without nosuid', 'works')
def test_who_serves_a_file_system_mounted_as_root_still_makes_programs_of_root():
    """Another process of the same user, without no_new_privs, runs one and is root."""
    need_root()
    if not os.path.exists('/dev/fuse') or not os.path.exists(PROGRAM):
        pytest.skip('needs /dev/fuse and /usr/bin/id')

    def child(flags):
        signal.alarm(30)
        own_mounts()
        with open(PROGRAM, 'rb') as file:
            program = file.read()
        fd = os.open('/dev/fuse', os.O_RDWR)
        options = b'fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other' % fd
        c('mount', b'held', b'/mnt', b'fuse', flags, options)
        (out, into), (ready, go) = os.pipe(), os.pipe()
        runner = os.fork()
        if runner == 0:
            try:
                signal.alarm(30)
                os.close(fd)
                os.dup2(into, 1)
                os.setgroups([])
                os.setresgid(4321, 4321, 4321)
                os.setresuid(1111, 1111, 1111)
                os.read(ready, 1)
                os.execv('/mnt/id', ['id', '-u'])
            finally:
                os._exit(9)
        os.close(into)
        capdrop.drop(capdrop.Security(**AS_1111))
        server = os.fork()
        if server == 0:
            try:
                serve(fd, program)
            finally:
                os._exit(0)
        os.write(go, b'x')
        with os.fdopen(out) as pipe:
            said = pipe.read()
        os.waitpid(runner, 0)
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        return said
    try:
        found = in_child(child, 0)
    except OSError as e:
        if e.errno in ABSENT:
            pytest.skip('no FUSE in this kernel: %s' % e)
        need(False, 'root cannot mount a FUSE file system: %s' % e)
    assert found == '0\n'
    assert in_child(child, 2) == '1111\n'               # MS_NOSUID


# ---------------------------------------------------------------------------- keys, terminals, and what System V and POSIX have

def key(ring):
    """A key of root's in that ring, and the ring in the session: keyctl(2)."""
    syscall('keyctl', 1, None)                          # JOIN_SESSION_KEYRING
    number = syscall('add_key', b'user', b'capdrop-held-%d' % os.getpid(), b'of root', ctypes.c_size_t(7), ring)
    if ring == USER:
        syscall('keyctl', 8, USER, SESSION)             # LINK
    return number


THREAD, PROCESS, SESSION, USER = -1, -2, -3, -4


def reads_and_changes(number):
    text = ctypes.create_string_buffer(9)
    syscall('keyctl', 11, number, text, ctypes.c_size_t(9))             # READ, UPDATE
    syscall('keyctl', 2, number, b'by user', ctypes.c_size_t(7))
    return text.value


@tries('a key in the keyring of the session, process or thread, or linked there', 'works')
@pytest.mark.parametrize('ring', [THREAD, PROCESS, SESSION, USER], ids=['thread', 'process', 'session', 'user, linked'])
def test_a_key_of_root_that_is_in_a_keyring_of_the_process_is_still_read_and_changed(ring):
    need_numbers()

    def take():
        number = key(ring)
        if ring == USER:                                # not to be left behind in that of root
            syscall('keyctl', 15, number, 30)           # SET_TIMEOUT
        return number
    try:
        in_child(take)
    except OSError as e:
        if e.errno in ABSENT:
            pytest.skip('no keyrings in this kernel: %s' % e)
        need(False, 'keyrings are blocked here: %s' % e)
    assert after(take, reads_and_changes) == b'of root'


@tries('a key in the user keyring of root that is linked nowhere else', 'fails')
def test_a_key_of_root_that_is_in_no_keyring_of_the_process_is_neither_read_nor_changed():
    need_numbers()

    def take():
        number = key(USER)
        syscall('keyctl', 15, number, 30)
        syscall('keyctl', 1, None)                      # another session, without the link
        return number
    try:
        in_child(take)
    except OSError as e:
        if e.errno in ABSENT:
            pytest.skip('no keyrings in this kernel: %s' % e)
        need(False, 'keyrings are blocked here: %s' % e)
    assert after(take, reads_and_changes) == 'EACCES'


def terminal(controlling):
    def take():
        master, slave = os.openpty()
        if controlling:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        return master, slave
    return take


def types(thing):
    for letter in b'id\n':
        fcntl.ioctl(thing[1], termios.TIOCSTI, bytes([letter]))
    return os.read(thing[1], 9)


@tries('the master of a terminal', 'works')
def test_the_master_of_a_terminal_still_types_into_it():
    need_root()
    assert after(terminal(False), lambda thing: (os.write(thing[0], b'id\n'), os.read(thing[1], 9))) == (3, b'id\n')


@tries('the controlling terminal: TIOCSTI', 'works')
def test_into_its_controlling_terminal_a_process_still_types_where_the_kernel_allows_it():
    need_root()
    with contextlib.suppress(FileNotFoundError):
        with open('/proc/sys/dev/tty/legacy_tiocsti') as file:
            if file.read() == '0\n':
                assert after(terminal(True), types) == 'EIO'
                return
    assert after(terminal(True), types) == b'id\n'


@tries('another terminal: TIOCSTI', 'fails')
def test_into_another_terminal_a_process_does_not_type():
    need_root()
    assert after(terminal(False), types) in ('EPERM', 'EIO')


@tries('a POSIX message queue', 'works')
def test_a_message_queue_opened_as_root_still_takes_and_gives_messages():
    need_root()
    name = b'/capdrop-held-%d' % os.getpid()
    try:
        queues = libc if hasattr(libc, 'mq_open') else ctypes.CDLL('librt.so.1', use_errno=True)
    except OSError as e:
        pytest.skip('needs mq_open(3): %s' % e)

    def call(function, *args):
        result = getattr(queues, function)(*args)
        if result == -1:
            raise OSError(ctypes.get_errno(), function)
        return result

    def take():
        return call('mq_open', name, os.O_RDWR | os.O_NONBLOCK)

    def use(queue):
        text = ctypes.create_string_buffer(8192)
        call('mq_send', queue, b'by user', ctypes.c_size_t(7), 0)
        call('mq_receive', queue, text, ctypes.c_size_t(8192), None)
        return text.value
    try:
        call('mq_open', name, os.O_RDWR | os.O_CREAT, 0o600, None)
    except OSError as e:
        pytest.skip('no message queues here: %s' % e)
    try:
        assert held(take, use) == b'by user'
    finally:
        call('mq_unlink', name)


@tries('shared memory of System V', 'works')
def test_shared_memory_attached_as_root_is_still_read_and_written_and_cannot_be_removed():
    need_root()
    libc.shmat.restype = ctypes.c_void_p

    def take():
        place = libc.shmat(number, None, 0)
        if place == 2 ** (8 * struct.calcsize('P')) - 1:
            raise OSError(ctypes.get_errno(), 'shmat')
        return place

    def use(place):
        ctypes.memmove(place, b'by user', 7)
        return outcome(c, 'shmctl', number, 0, None)
    number = c('shmget', 0, ctypes.c_size_t(4096), 0o1600)
    try:
        assert held(take, use) == 'EPERM'
        assert in_child(lambda: ctypes.string_at(take(), 7)) == b'by user'
    finally:
        c('shmctl', number, 0, None)


@tries('an alarm timer', 'fails')
def test_an_alarm_timer_made_as_root_is_not_set_afterwards():
    """One that wakes the machine: CLOCK_REALTIME_ALARM of timerfd_create(2)."""
    def use(fd):
        return c('timerfd_settime', fd, 0, pointer(struct.pack('=4q', 0, 0, 1, 0)), None)
    assert held(lambda: c('timerfd_create', 8, 0), use) == 'EPERM'


@tries('priority, scheduling policy and limits', 'works')
def test_a_priority_a_policy_and_a_limit_that_root_has_set_stay_and_once_given_up_do_not_come_back():
    need_root()

    def take():
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    def use(limit):
        nice, policy = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
        stays = resource.getrlimit(resource.RLIMIT_NOFILE) == limit
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, 5)
        return (nice, policy, stays, outcome(os.sched_setscheduler, 0, os.SCHED_RR, os.sched_param(1)),
                outcome(os.setpriority, os.PRIO_PROCESS, 0, -10))
    found = held(take, use)
    assert found[:3] == (-10, os.SCHED_RR, True) and found[3] == 'EPERM' and found[4] in ('EACCES', 'EPERM')


# ---------------------------------------------------------------------------- the table

def table():
    with open(os.path.join(TOP, 'docs', 'safety.md'), encoding='utf-8') as file:
        section = re.search(r'^## What is held\n(.*?)^## ', file.read(), re.M | re.S).group(1)
    block, = re.findall(r'(?:^\|.*\n)+', section, re.M)
    return [[cell.strip() for cell in line.strip('|\n').split('|')] for line in block.splitlines()[2:]]


def test_every_row_of_the_table_is_tried_and_says_what_was_found():
    assert sorted((row[0], row[1]) for row in table()) == sorted(TRIED.items())
