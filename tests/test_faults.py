"""Every system call of a drop fails, lies or reads back wrong, one at a time, and nothing but the promise comes of it.

The calls are those that a real drop makes: a filter (seccomp) stops the child at each of them, and this process, which
traces it (ptrace), notes it.  Then the same drop is made once for each call and each fault, with a filter for that call
alone.  Here the call is taken away from the child, which is the proof that the fault was injected, and here the outcome
is judged, from /proc/PID: the state asked for; or RefusedError and nothing changed; or status 125 and neither the command
nor the caller's next line has run.  There is no hand-written list: a step added later is covered by itself.
"""
import collections
import ctypes
import errno
import grp        # noqa: F401  everything a child imports is imported here, once
import mmap
import os
import pickle
import pwd        # noqa: F401
import select     # noqa: F401
import signal
import struct
import sys
import tempfile

import pytest

from conftest import BIND, CLONE_NEWUSER, RAW, SETPCAP, c, capset, ends, fields, need, prctl
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

FAULTS = 'EPERM', 'EINVAL', 'EAGAIN', 'ENOMEM', 'ENOSYS', 'lie'
SINGLE = 'EPERM', 'EINVAL', 'lie'
READINGS = 3        # of everything: before the steps, after them, and after the attempts to regain
CHANGES = {'setresuid', 'setresgid', 'setgroups', 'capset', 'chroot', 'fchdir', 'chdir', 'SET_KEEPCAPS', 'SET_DUMPABLE',
           'CAPBSET_DROP', 'SET_SECUREBITS', 'SET_NO_NEW_PRIVS', 'CAP_AMBIENT LOWER', 'CAP_AMBIENT RAISE'}
UNSEEN = {'chdir', 'CAP_AMBIENT LOWER', 'SET_DUMPABLE'}        # what these do is so anyway, by chroot, capset and setresgid(2)

# What the tests know of a machine: seccomp's name for it; where registers are (the number of the call, what it returns,
# its arguments); and the numbers of the few calls that are told apart by arguments, forged, or the interpreter's own.
ABI = collections.namedtuple('ABI', 'audit nr result args numbers')
X86_64 = dict(prctl=157, getresuid=118, getresgid=120, getgroups=115, capget=125, setfsuid=122, setfsgid=123, unshare=272,
              setresuid=117, setresgid=119, setgroups=116, capset=126, chroot=161, fchdir=81, chdir=80, execve=59,
              rt_sigprocmask=14, rt_sigaction=13, close=3, openat=257, read=0, newfstatat=262, stat=4, fstat=5, lstat=6, lseek=8,
              getdents64=217, fcntl=72, ioctl=16, readlink=89, poll=7, waitid=247, socket=41, connect=42, getdents=78, open=2,
              getcwd=79, statfs=137, write=1, prlimit64=302, getrlimit=97, readlinkat=267, getxattr=191, access=21,
              clock_nanosleep=230, select=23, uname=63, getpid=39, mmap=9, mprotect=10, munmap=11, brk=12, mremap=25,
              madvise=28, futex=202, exit_group=231, getrandom=318, sysinfo=99, sched_getaffinity=204, rt_sigpending=127, statx=332)
I386 = dict(prctl=172, getresuid=209, getresgid=211, getgroups=205, capget=184, setfsuid=215, setfsgid=216, unshare=310,
            setresuid=208, setresgid=210, setgroups=206, capset=185, chroot=61, fchdir=133, chdir=12, execve=11,
            rt_sigprocmask=175, close=6, openat=295, read=3, mmap=192, mprotect=125, munmap=91, brk=45, mremap=163, madvise=219,
            futex=422, exit_group=252, statx=383)
ARM = dict(I386, unshare=337, openat=322, futex=240, madvise=220, exit_group=248, statx=397)
AARCH64 = dict(prctl=167, getresuid=148, getresgid=150, getgroups=158, capget=90, setfsuid=151, setfsgid=152, unshare=97,
               setresuid=147, setresgid=149, setgroups=159, capset=91, chroot=51, fchdir=50, chdir=49, execve=221,
               rt_sigprocmask=135, close=57, openat=56, read=63, mmap=222, mprotect=226, munmap=215, brk=214, mremap=216,
               madvise=233, futex=98, exit_group=94, statx=291)
MACHINES = {
    'x86_64': ABI(0xc000003e, 15, 10, (14, 13, 12, 7), X86_64),
    'i386': ABI(0x40000003, 11, 6, (0, 1, 2, 3), I386),
    'arm': ABI(0x40000028, 7, 0, (17, 1, 2, 3), ARM),
    'aarch64': ABI(0xc00000b7, 8, 0, (0, 1, 2, 3), AARCH64),
}
WORD = struct.calcsize('P')
MACHINE = os.uname()[4]
if WORD == 4:       # a 32-bit program on a 64-bit kernel
    MACHINE = 'arm' if MACHINE.startswith(('arm', 'aarch')) else 'i386' if MACHINE.endswith('86') or MACHINE == 'x86_64' else ''
HERE = MACHINES.get(MACHINE)
NAMES = {number: name for name, number in HERE.numbers.items()} if HERE else {}
NAMES[426] = 'io_uring_enter'        # everywhere
MEMORY = {'mmap', 'mprotect', 'munmap', 'brk', 'mremap', 'madvise', 'futex', 'exit_group'}     # the interpreter's own
PR = {7: 'GET_KEEPCAPS', 8: 'SET_KEEPCAPS', 4: 'SET_DUMPABLE', 3: 'GET_DUMPABLE', 23: 'CAPBSET_READ', 24: 'CAPBSET_DROP',
      27: 'GET_SECUREBITS', 28: 'SET_SECUREBITS', 38: 'SET_NO_NEW_PRIVS', 39: 'GET_NO_NEW_PRIVS', 47: 'CAP_AMBIENT'}
AMBIENT = {1: 'IS_SET', 2: 'RAISE', 3: 'LOWER', 4: 'CLEAR_ALL'}

TRACEME, CONT, SYSCALL, SETOPTIONS, GETREGSET, SETREGSET = 0, 7, 24, 0x4200, 0x4204, 0x4205       # linux/ptrace.h
SYSGOOD, TRACEEXEC, TRACESECCOMP, EXITKILL = 1, 1 << 4, 1 << 7, 1 << 20
EVENT_EXEC, EVENT_SECCOMP, WALL = 4, 7, 0x40000000
RET_ALLOW, RET_TRACE, RET_ERRNO = 0x7fff0000, 0x7ff00000, 0x50000      # linux/seccomp.h


def key_name(key):
    name = NAMES.get(key[0], 'call %d' % key[0])
    if name == 'prctl':
        name = PR.get(key[1], 'prctl %d' % key[1]) + ''.join(' ' + AMBIENT.get(n, str(n)) for n in key[2:])
    return name


# ---------------------------------------------------------------------------- in the child

Mode = collections.namedtuple('Mode', 'launch chroot namespace root whole')     # whole: faults in the planning, too
MODES = [Mode(launch, chroot, namespace, False, False) for namespace in (False, True) for launch in (False, True)
         for chroot in (False, True)] + [Mode(launch, False, False, True, False) for launch in (False, True)] + [
         Mode(False, True, False, False, True), Mode(True, False, False, False, True)]


def mode_name(mode):
    return ' '.join([('drop', 'launch')[mode.launch]] + ['chroot'] * mode.chroot + ['namespace'] * mode.namespace +
                    ['uid 0'] * mode.root + ['and plan'] * mode.whole)


def security_of(mode, jail):
    return capdrop.Security(user='0' if mode.root else '1111', group='4321', supplemental_groups=('8',),
                            capabilities='cap_net_bind_service+ep', chroot=str(jail) if mode.chroot else None)


def install(keys, answer=RET_TRACE):
    """A filter that stops at calls that begin with one of these (number, arguments...); () is every call."""
    low = 0 if sys.byteorder == 'little' else 4
    rows = [(0x20, 0, 0, 4), (0x15, 1, 0, HERE.audit), (6, 0, 0, RET_ALLOW)]
    for key in keys:
        for depth, value in enumerate(key):
            rows += [(0x20, 0, 0, 0 if not depth else 16 + 8 * (depth - 1) + low),
                     (0x15, 0, 2 * (len(key) - depth) - 1, value & 0xffffffff)]
        rows.append((6, 0, 0, answer))
    rows.append((6, 0, 0, RET_ALLOW))
    code = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack('@HP', len(rows), ctypes.addressof(code)))
    prctl(22, 2, ctypes.addressof(program))


def child(mode, jail, keys, page, errors, prepare):
    def stop(phase):
        page[0] = phase
        os.kill(os.getpid(), signal.SIGSTOP)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in 0, 1:
        os.dup2(null, fd)
    os.dup2(errors, 2)
    os.closerange(3, 64)
    c('ptrace', TRACEME, 0, None, None)
    stop(1)
    if mode.namespace:
        c('unshare', CLONE_NEWUSER)
        stop(2)
    security = security_of(mode, jail)
    # what a drop has to take away, so that a step that was not made shows
    os.setgroups([4, 27])
    held = fields(open('/proc/self/status').read())['CapPrm']
    capset(held, held & ~SETPCAP, RAW)
    prctl(47, 2, 13)
    if prepare:
        prepare(page)
    if not mode.whole:
        security = capdrop.plan(security, exec=mode.launch)
    install(keys)
    stop(3)
    try:
        if mode.launch:
            capdrop.launch(security, ['/bin/cat'])
        else:
            capdrop.drop(security)
        page[1] = ord('n')      # the caller's next line
    except capdrop.Error as e:
        page[1], text = ord('r'), str(e).encode()[:4000]
        page[8:8 + len(text)] = text
    except BaseException as e:
        page[1], text = ord('x'), ('%r %s' % (e, type(e).__mro__)).encode()[:4000]
        page[8:8 + len(text)] = text
    stop(4)


# ---------------------------------------------------------------------------- the tracer

def ptrace(request, pid, address=0, data=0):
    return c('ptrace', request, pid, ctypes.c_void_p(address), ctypes.c_void_p(data))


class Registers:
    def __init__(self, pid):
        self.pid, self.buffer = pid, ctypes.create_string_buffer(512)
        self.vector = (ctypes.c_size_t * 2)(ctypes.addressof(self.buffer), 512)
        ptrace(GETREGSET, pid, 1, ctypes.addressof(self.vector))
        self.words = ctypes.cast(self.buffer, ctypes.POINTER(ctypes.c_size_t))
        self.nr, self.args = self.words[HERE.nr], [self.words[n] for n in HERE.args]

    @property
    def result(self):
        return ctypes.c_ssize_t(self.words[HERE.result]).value

    def store(self, result):
        self.words[HERE.result] = result % (1 << 8 * WORD)
        ptrace(SETREGSET, self.pid, 1, ctypes.addressof(self.vector))

    def skip(self, result):
        """Let the call not be made, and return this."""
        if MACHINE == 'aarch64':
            number = ctypes.c_int(-1)
            vector = (ctypes.c_size_t * 2)(ctypes.addressof(number), 4)
            ptrace(SETREGSET, self.pid, 0x404, ctypes.addressof(vector))
        elif MACHINE == 'arm':
            ptrace(23, self.pid, 0, 2 ** 32 - 1)
        else:
            self.words[HERE.nr] = 2 ** (8 * WORD) - 1
        self.store(result)

    def poke(self, address, change):
        """Replace a 32-bit word of the process by change(it)."""
        with open('/proc/%d/mem' % self.pid, 'r+b', buffering=0) as memory:
            memory.seek(address)
            old, = struct.unpack('=I', memory.read(4))
            memory.seek(address)
            memory.write(struct.pack('=I', change(old) & 0xffffffff))

    def string(self, address):
        with open('/proc/%d/mem' % self.pid, 'rb', buffering=0) as memory:
            memory.seek(address)
            return memory.read(256).split(b'\0')[0]


Outcome = collections.namedtuple('Outcome', 'kind before after injected calls message noted')
# kind: 'next line', 'command', 'refused', 'exit 125'...; calls: keys, when all are stopped at;
# noted: what the child wrote to page[3]


def trial(mode, jail, keys=(), result=None, forge=None, time_=None, prepare=None):
    """One drop.  Of the calls stopped at, the `time_`th (from 1; None: each) returns `result`, or runs and is forged."""
    page = mmap.mmap(-1, 4096)
    with tempfile.TemporaryFile() as errors:
        pid = os.fork()
        if pid == 0:
            try:
                child(mode, jail, keys or [()], page, errors.fileno(), prepare)
            except BaseException as e:
                os.write(2, repr(e).encode())
            finally:
                os._exit(99)

        def give_up(*_):
            page[2] = ord('t')
            os.kill(pid, signal.SIGKILL)
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(20)
        before = after = None
        injected, stops, calls, go, kind = 0, 0, [], CONT, 'hung'
        try:
            while True:
                status = os.waitpid(pid, WALL)[1]
                if not os.WIFSTOPPED(status):
                    if not page[2]:
                        kind = 'exit %d' % (status >> 8) if os.WIFEXITED(status) else 'signal %d' % (status & 127)
                    break
                event, number, signal_ = status >> 16, os.WSTOPSIG(status), 0
                if event == EVENT_EXEC:
                    kind, after = 'command', seen(pid)
                    break
                elif event == EVENT_SECCOMP:
                    if before is not None:
                        registers = Registers(pid)
                        stops += page[0] == 3
                        if page[0] != 3:
                            pass                # the child's own last words
                        elif not keys:
                            calls.append(key_of(registers))
                        elif time_ in (None, stops):
                            if forge:
                                go = SYSCALL
                            else:
                                registers.skip(result)
                                injected += 1
                elif number == signal.SIGTRAP | 0x80:
                    registers, go = Registers(pid), CONT
                    injected += bool(forge(registers))
                elif number == signal.SIGSTOP and page[0] == 1:
                    ptrace(SETOPTIONS, pid, 0, SYSGOOD | TRACEEXEC | TRACESECCOMP | EXITKILL)
                elif number == signal.SIGSTOP and page[0] == 2:
                    write_maps(pid)
                elif number == signal.SIGSTOP and page[0] == 3:
                    before = seen(pid)
                elif number == signal.SIGSTOP:
                    kind, after = {'n': 'next line', 'r': 'refused'}.get(chr(page[1]), 'exception'), seen(pid)
                    break
                else:
                    signal_ = number
                ptrace(go, pid, 0, signal_)
        finally:
            signal.alarm(0)
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, WALL)
            except OSError:
                pass
        errors.seek(0)
        message, noted = page[8:].split(b'\0')[0] or errors.read(), page[3]
    page.close()
    return Outcome(kind, before, after, injected, calls, message.decode('utf-8', 'replace').strip(), noted)


def key_of(registers):
    prctl_ = HERE.numbers['prctl']
    if registers.nr != prctl_:
        return (registers.nr,)
    return (prctl_,) + tuple(registers.args[:2 if registers.args[0] == 47 else 1])


def seen(pid):
    """What can be seen of a process from outside."""
    with open('/proc/%d/status' % pid) as file:
        found = fields(file.read())
    root, here = os.stat('/proc/%d/root' % pid), os.stat('/proc/%d/cwd' % pid)
    return dict(found, root=(root.st_dev, root.st_ino), here=(here.st_dev, here.st_ino))


def write_maps(pid):
    for kind in 'uid', 'gid':
        with open('/proc/%d/%s_map' % (pid, kind), 'w') as file:
            file.write('0 0 65536')


def goal(mode, jail, before):
    """What a drop of this mode must end in, as it is seen from outside."""
    ambient = BIND if mode.launch else 0
    uid = 0 if mode.root else 1111
    expected = ends(uid, 4321, '8', BIND, CapInh=ambient, CapAmb=ambient)
    identity = os.stat(str(jail)).st_dev, os.stat(str(jail)).st_ino
    return dict(expected, root=identity if mode.chroot else before['root'], here=identity if mode.chroot else before['here'])


# ---------------------------------------------------------------------------- the cells

def workers(function, items):
    """[function(item) for item in items], in as many processes as there are processors, sharing by turns."""
    count, pipes = max(2, os.cpu_count() or 1), []
    for number in range(count):
        answer, tell = os.pipe()
        if os.fork() == 0:
            status = 1
            try:
                # in a child of its own it would ask for random numbers, for ever where a call gives none
                capdrop.preload()
                # where descriptors cannot be listed: a million traced calls would take minutes
                capdrop.LEAST_TRIED = capdrop.MOST_TRIED = 1 << 12
                with os.fdopen(tell, 'wb') as pipe:
                    pickle.dump([function(*item) for item in items[number::count]], pipe)
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        os.close(tell)
        pipes.append(answer)
    results = [None] * len(items)
    for number, answer in enumerate(pipes):
        with os.fdopen(answer, 'rb') as pipe:
            results[number::count] = pickle.loads(pipe.read())
        assert os.wait()[1] == 0
    return results


def verdict(mode, jail, key, outcome):
    """(letter, what is wrong or '')."""
    kind, call = outcome.kind, NAMES.get(key[0])
    if not outcome.injected:
        return '?', 'the fault was not injected'
    if kind in ('next line', 'command'):
        wanted = goal(mode, jail, outcome.before)
        wrong = {name: outcome.after[name] for name in wanted if outcome.after[name] != wanted[name]}
        return '!' if wrong else 's', wrong and '%s with %s' % (kind, wrong)
    if kind == 'refused' or kind == 'exception' and (mode.whole or 'OSError' not in outcome.message):
        # what is not the module's own exception is of the interpreter, when it reads a module or runs out of memory
        wrong = {name: outcome.after[name] for name in outcome.before if outcome.after[name] != outcome.before[name]}
        return '!' if wrong else 'r', wrong and 'refused, but changed %s' % wrong
    if kind == 'exit 125' or kind == 'signal 6' and mode.whole or kind == 'exit 126' and call == 'execve':
        return 'e', ''
    return '!', kind


MADE = {}       # mode -> its calls
TABLE = collections.OrderedDict()       # (call, mode) -> letters


@pytest.fixture(scope='module')
def possible():
    need(os.geteuid() == 0, 'needs root: faults are injected by a filter that root may install without no_new_privs')
    need(HERE, 'where registers are on %s is not known to these tests' % os.uname()[4])


def traced(mode, jail):
    need(not mode.chroot or os.stat('/').st_uid == 0, 'needs a root directory that belongs to root')
    if mode not in MADE:
        outcome, = workers(trial, [(mode, jail)])
        if mode.namespace and outcome.kind == 'exit 99':
            need(False, 'needs user namespaces: %s' % outcome.message)
        assert outcome.kind == ('command' if mode.launch else 'next line'), outcome
        MADE[mode] = outcome.calls
    return MADE[mode]


def cells_of(calls):
    """(key, result, time): every fault each time, and the three that differ at single times."""
    counts = collections.Counter(key for key in calls if NAMES.get(key[0]) not in MEMORY)
    for key, count in counts.items():
        single = [] if count == 1 else range(1, count + 1) if count < 5 or key_name(key) == 'capset' else [1, count - 1, count]
        for time_ in [None] + list(single):
            for fault in FAULTS if time_ is None else SINGLE:
                yield key, 0 if fault == 'lie' else -getattr(errno, fault), time_


@pytest.mark.parametrize('mode', MODES, ids=mode_name)
def test_whatever_call_fails_or_lies_a_drop_ends_in_one_of_three_ways(mode, possible, jail):
    cells = list(cells_of(traced(mode, jail)))
    outcomes = workers(trial, [(mode, jail, [key], result, None, time_) for key, result, time_ in cells])
    wrong = []
    for (key, result, time_), outcome in zip(cells, outcomes):
        letter, text = verdict(mode, jail, key, outcome)
        TABLE[mode, key] = TABLE.get((mode, key), '') + letter
        if text:
            wrong.append('%s, %s, %s: %s (%s)' % (key_name(key), errno.errorcode.get(-result, 'lie'), (
                'each time' if time_ is None else 'time %d' % time_), text, outcome.message))
    assert not wrong, '\n'.join(wrong)


def test_a_lie_about_what_changes_the_process_never_runs_the_command(possible, jail):
    """What a drop changes, found in its trace: the calls whose names say so."""
    for mode in MODES:
        changing = {key for key in traced(mode, jail) if key_name(key) in CHANGES}
        assert {'capset', 'CAPBSET_DROP', 'setgroups', 'setresgid', 'SET_NO_NEW_PRIVS'} <= set(
            map(key_name, changing))
        items = [(mode, jail, [key], 0) for key in changing]
        for item, outcome in zip(items, workers(trial, items)):
            assert outcome.injected
            name = key_name(item[2][0])
            if name not in UNSEEN and (name != 'setresuid' or not mode.root):
                # a capset that lies is found out before the first step, where rights are raised to ask for others
                found_out = name == 'capset' and outcome.kind == 'refused' and outcome.after == outcome.before
                assert found_out or outcome.kind == 'exit 125', (mode_name(mode), name, outcome)


@pytest.mark.parametrize('mode', MODES, ids=mode_name)
def test_a_call_that_is_blocked_for_good_is_known_before_the_first_step(mode, possible, jail):
    """What a seccomp filter answers in the kernel's place is the same to a call that changes nothing."""
    items = [(mode, jail, [key], -error) for key in set(traced(mode, jail)) if key_name(key) in CHANGES
             for error in (errno.EPERM, errno.ENOSYS)]
    assert {'setresuid', 'setresgid', 'setgroups', 'capset'} <= {key_name(item[2][0]) for item in items}
    for item, outcome in zip(items, workers(trial, items)):
        name = key_name(item[2][0])
        call = name if name.islower() else 'prctl'
        assert outcome.injected and outcome.kind == 'refused', (name, outcome)
        assert '%s(2) is blocked (%s)' % (call, os.strerror(-item[3])) in outcome.message, (name, outcome.message)
        assert outcome.after == outcome.before


def test_an_attempt_to_regain_that_seems_to_succeed_ends_the_process(possible, jail):
    """The last of these calls is the attempt; nothing but what it returns is wrong then."""
    for mode in MODES[:4]:
        calls = traced(mode, jail)
        items = [(mode, jail, [key], 0, None, calls.count(key)) for key in set(calls)
                 if key_name(key) in ('setresuid', 'setresgid', 'setgroups', 'capset')]
        assert len(items) == 4
        for item, outcome in zip(items, workers(trial, items)):
            assert outcome.injected == 1 and outcome.kind == 'exit 125', (item, outcome)


@pytest.mark.parametrize('mode', MODES[:4], ids=mode_name)
def test_an_attempt_to_regain_that_is_prevented_proves_nothing(mode, possible, jail):
    """EPERM is how the kernel refuses, and EINVAL of an id that is not mapped; of setgroups and capset that would
    say that the right is there.  Anything else is no answer to the question."""
    calls = traced(mode, jail)
    items = [(mode, jail, [key], -error, None, calls.count(key)) for key in set(calls)
             if key_name(key) in ('setresuid', 'setresgid', 'setgroups', 'capset')
             for error in (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EBADF, errno.EAGAIN, errno.ENOMEM, errno.EACCES)]
    assert len(items) == 28
    for item, outcome in zip(items, workers(trial, items)):
        of_ids = key_name(item[2][0]) in ('setresuid', 'setresgid')
        refused = -item[3] == errno.EPERM or (-item[3] == errno.EINVAL and of_ids)
        assert outcome.injected == 1
        assert outcome.kind == (('next line', 'command')[mode.launch] if refused else 'exit 125'), (item, outcome)


@pytest.mark.parametrize('mode', MODES[:4], ids=mode_name)
def test_a_descriptor_whose_close_fails_after_the_last_check_ends_the_process(mode, possible, jail):
    """It is still open, on /proc or on a directory outside of the jail."""
    calls = traced(mode, jail)
    key, = {key for key in calls if key_name(key) == 'close'}
    names = [key_name(one) for one in calls]
    last_look = len(names) - 1 - names[::-1].index('getresuid')
    after = names[last_look:].count('close')
    assert after == 1 + mode.chroot
    items = [(mode, jail, [key], result, None, calls.count(key) - back) for back in range(after)
             for result in (-errno.EIO, -errno.EBADF, -errno.EINTR, 0)]
    for item, outcome in zip(items, workers(trial, items)):
        assert outcome.injected == 1
        assert outcome.kind == 'exit 125', (item, outcome)


def test_after_the_last_call_that_could_change_anything_everything_is_read_again(possible, jail):
    for mode in MODES[:8]:
        calls = [key_name(key) for key in traced(mode, jail)]
        last = len(calls) - 1 - min(calls[::-1].index(name) for name in CHANGES if name in calls)
        later = set(calls[last:])
        assert {'getresuid', 'getresgid', 'setfsuid', 'setfsgid', 'getgroups', 'capget', 'unshare', 'CAPBSET_READ',
                'CAP_AMBIENT IS_SET', 'GET_SECUREBITS', 'GET_KEEPCAPS', 'GET_NO_NEW_PRIVS'} <= later


# ---------------------------------------------------------------------------- read-backs that are forged, field by field

def out(index, flip, word=0, where=lambda r: True):
    """Change a 32-bit word of what the call wrote to where its argument points."""
    def forge(registers):
        if where(registers):
            registers.poke(registers.args[index] + 4 * word, lambda old: old ^ flip)
            return True
    return forge


def returned(value):
    def forge(registers):
        registers.store(value(registers.result))
        return True
    return forge


def forgeries():
    """(field, key of the call, what is done to its answer)."""
    key, flip = HERE.numbers, 1 << 20
    for name, kind in ('uid', 'getresuid'), ('gid', 'getresgid'):
        for n, which in enumerate(('real', 'effective', 'saved')):
            yield '%s, %s' % (name, which), (key[kind],), out(n, flip)
        yield '%s, filesystem' % name, (key['setfs' + name],), returned(lambda old: 0)
    yield 'groups, another one', (key['getgroups'],), out(1, flip, 0, lambda r: r.args[0] and r.args[1])
    for word, name in enumerate(('effective', 'permitted', 'inheritable') * 2):
        yield '%s, %s' % (name, ('low', 'high')[word > 2]), (key['capget'],), out(
            1, 1 << 12 if word < 3 else 1 << 6, word, lambda r: r.args[1])
    for n in range(capdrop.this_platform().every.bit_length()):
        yield 'bounding, %d' % n, (key['prctl'], 23, n), returned(lambda old: 1 - old)
        yield 'ambient, %d' % n, (key['prctl'], 47, 1, n), returned(lambda old: 1 - old)
    yield 'bounding, no limit', (key['prctl'], 23, 64), returned(lambda old: 0)
    yield 'ambient, no limit', (key['prctl'], 47, 1, 64), returned(lambda old: 0)
    yield 'securebits', (key['prctl'], 27), returned(lambda old: old ^ 4)
    yield 'keepcaps', (key['prctl'], 7), returned(lambda old: 1)
    yield 'no_new_privs', (key['prctl'], 39), returned(lambda old: 0)
    yield 'threads', (key['unshare'],), returned(lambda old: -errno.EINVAL)


@pytest.mark.parametrize('mode', MODES[:8], ids=mode_name)
def test_a_read_back_that_differs_in_one_field_ends_the_process(mode, possible, jail):
    """The field alone is wrong, in the first of the two readings after the steps, and in the second."""
    calls, items = collections.Counter(traced(mode, jail)), []
    for field, key, forge in forgeries():
        full = calls[key] or READINGS           # of a bit there is one call a reading
        # Python asks getgroups twice a reading, for the number and for the list, or once
        for back in range(2 * (full // READINGS if key == (HERE.numbers['getgroups'],) else 1)):
            items.append((field, (mode, jail, [key], None, forge, full - back)))
    outcomes = workers(trial, [item for _, item in items])
    for (field, item), outcome in zip(items, outcomes):
        if field.startswith('groups') and not outcome.injected:
            continue                            # the number
        assert outcome.injected == 1, (field, outcome)
        assert outcome.kind == 'exit 125', (field, outcome)
        assert field.split(',')[0] in outcome.message or 'does not answer as the kernel does' in outcome.message
    TABLE[mode, 'forged'] = len(items)


@pytest.mark.parametrize('mode', MODES[:4], ids=mode_name)
@pytest.mark.parametrize('path', [b'/', b'.'], ids=['root', 'current'])
def test_a_directory_that_reads_back_as_another_one_ends_the_drop(path, mode, possible, jail):
    """Its inode is forged the first time it is asked for, the second time, and so on."""
    need(WORD == 8, 'struct stat is known to these tests on 64-bit machines only')
    key, = {key for key in traced(mode, jail) if NAMES.get(key[0]) in ('newfstatat', 'stat')}
    at = key_name(key) == 'newfstatat'
    kinds = []
    for time_ in range(1, 40):
        asked = []

        def forge(registers):
            if (not at or registers.args[3] == 0) and registers.string(registers.args[at]) == path:
                asked.append(1)
                return len(asked) == time_ and (registers.poke(registers.args[1 + at] + 8, lambda old: old ^ 1) or True)
        outcome = trial(mode, jail, [key], None, forge)
        if not outcome.injected:
            break
        kinds.append(outcome.kind)
        if outcome.kind in ('next line', 'command'):
            assert not {name for name, value in goal(mode, jail, outcome.before).items() if outcome.after[name] != value}
    # twice it is read back, and once as it has become the root; what is looked at before is compared or does not matter
    last = (2 if path == b'/' else 0) + mode.chroot
    assert kinds[len(kinds) - last:] == ['exit 125'] * last
    assert set(kinds[:len(kinds) - last]) <= {'refused', 'next line', 'command'}
    assert 'refused' in kinds or path == b'.'


def test_the_table():
    """Shown with -s: how many of each call's faults ended with the state asked for (s), refused and unchanged (r), ended
    with nothing run (e), or wrong (! and ?)."""
    need(TABLE, 'needs the tests above, which have not run')
    modes = [mode for mode in MODES if [1 for seen_, key in TABLE if seen_ == mode]]
    keys = sorted({key for _, key in TABLE if key != 'forged'}, key=key_name)
    for number, mode in enumerate(modes):
        print('%c = %s' % (65 + number, mode_name(mode)))
    print('%-22s' % 'call' + ''.join('%-10c' % (65 + number) for number in range(len(modes))))
    for key in keys:
        counts = [collections.Counter(TABLE.get((mode, key), '')) for mode in modes]
        print('%-22s' % key_name(key) + ''.join(
            '%-10s' % ' '.join('%s%d' % (letter, count[letter]) for letter in 'sre!?' if count[letter]) for count in counts))
    cells = ''.join(letters for letters in TABLE.values() if isinstance(letters, str))
    print('%d faults: %s; %d forged fields' % (len(cells), ', '.join('%s %d' % one for one in sorted(
        collections.Counter(cells).items())), sum(n for n in TABLE.values() if isinstance(n, int))))
    assert '?' not in cells
