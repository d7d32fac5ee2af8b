"""What the tests share.  No test drops privileges in the test process: in_child forks first."""
import collections
import ctypes
import errno
import fcntl
import gc
import grp        # before a child can no longer read this Python's own files
import os
import pickle
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

import pytest

TESTS = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(TESTS)
SCRIPT = os.path.join(TOP, 'capdrop.py')
CI = os.environ.get('CI')        # some tests go on in an environment of their own
sys.path.insert(0, TOP)
import capdrop      # noqa: E402


def need(condition, reason):
    """Skip where something is missing; under CI nothing that matters may be missing."""
    if not condition:
        (pytest.fail if CI else pytest.skip)(reason)


def need_root():
    need(os.geteuid() == 0, 'needs root')


REAL = ('test_daemons', 'test_recipes', 'test_systemd', 'test_containers')      # daemons, and managers of them


def pytest_collection_modifyitems(items):
    """CI runs these once, under the Python for which it sets CAPDROP_REAL=1."""
    if not CI or os.environ.get('CAPDROP_REAL') == '1':
        return
    for item in items:
        if item.nodeid.split('::')[0].split('/')[-1][:-len('.py')] in REAL:
            item.add_marker(pytest.mark.skip(reason='runs where CAPDROP_REAL is 1'))


def pytest_terminal_summary(terminalreporter):
    """The last lines: what was missing here, and how many tests wanted it."""
    skipped = [report.longrepr for report in terminalreporter.stats.get('skipped', ())]
    reasons = collections.Counter(where[2].partition('Skipped: ')[2] for where in skipped)
    if reasons:
        terminalreporter.section('skipped')
    for reason in sorted(reasons):
        terminalreporter.write_line('%5d %s' % (reasons[reason], reason))


def need_accounts_of_debian():
    """The documents show them, and so do the tests of these."""
    numbers = {'daemon': 1, 'adm': 4, 'mail': 8, 'www-data': 33}
    found = {entry.gr_name: entry.gr_gid for entry in grp.getgrall() if entry.gr_name in numbers}
    users = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall() if entry.pw_name in numbers}
    users.pop('adm', None)              # is a group only
    need(found == numbers == dict(users, adm=4), 'needs users and groups as Debian numbers them')


class Ended(Exception):
    """The child ended without an answer: args are its wait status decoded (exit status, or -signal) and its stderr."""


def in_child(function, *args):
    """function(*args) in a forked child: its result (or exception) comes back; Ended if it ended itself."""
    answer, tell = os.pipe()
    errors, err = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.close(answer)
            os.close(errors)
            os.dup2(err, 2)
            try:
                result = True, function(*args)
            except pytest.skip.Exception as e:          # which cannot be pickled
                result = None, str(e)
            except BaseException as e:
                e.__traceback__ = None if pickle_safe(e) else e.__traceback__
                result = False, e if pickle_safe(e) else RuntimeError(traceback.format_exc())
            with os.fdopen(tell, 'wb') as pipe:
                pickle.dump(result, pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(tell)
    os.close(err)
    with os.fdopen(answer, 'rb') as pipe:
        data = pipe.read()
    with os.fdopen(errors, 'rb') as pipe:
        text = pipe.read().decode()
    status = os.waitpid(pid, 0)[1]
    if not data:
        raise Ended(status >> 8 if not status & 127 else -(status & 127), text)
    good, result = pickle.loads(data)
    if good is None:
        pytest.skip(result)
    if good:
        return result
    raise result


def pickle_safe(e):
    try:
        pickle.loads(pickle.dumps(e))
        return True
    except Exception:
        return False


def pytest_sessionstart(session):
    if sys.platform == 'linux' and os.geteuid() == 0:
        try:
            leave_chroot()
        except OSError:
            pass                        # not ours to do: those tests will say what they need


def leave_chroot():
    """In a plain chroot the root directory is no mount point: no mount namespace can be made
    private there, and no user namespace be made at all.  Make it the root of a namespace."""
    with open('/proc/self/mountinfo') as file:
        if '/' in [line.split()[4] for line in file]:
            return
    here = os.getcwd()
    c('unshare', CLONE_NEWNS)
    root = os.open('/', os.O_RDONLY)
    namespace = os.open('/proc/self/ns/mnt', os.O_RDONLY)
    c('setns', namespace, CLONE_NEWNS)          # sets root and current directory as well
    os.fchdir(root)
    for descriptor in root, namespace:
        os.close(descriptor)
    place = os.fsencode(os.getcwd())
    c('mount', b'none', b'/', None, MS_REC | MS_PRIVATE, None)
    c('mount', place, place, None, MS_REC | MS_BIND, None)
    os.chdir(place)
    c('pivot_root', b'.', b'.')
    c('umount2', b'.', 2)                       # MNT_DETACH
    os.chdir(here)


def loopback_up():
    """In a network namespace of one's own, in which it is down."""
    with socket.socket() as lo:                 # SIOCSIFFLAGS, IFF_UP of linux/sockios.h and linux/if.h
        fcntl.ioctl(lo, 0x8914, struct.pack('16sH22x', b'lo', 1))


def run(*args, **options):
    """`python -I capdrop.py ARGS...`: an object with returncode, stdout and stderr (text)."""
    command = [sys.executable, '-I', SCRIPT] + list(args)
    return run_command(command, **options)


def run_command(command, stdin=b'', **options):
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = process.communicate(stdin)
    return subprocess.CompletedProcess(command, process.returncode, out.decode(), err.decode())


# ---------------------------------------------------------------------------- a process as /proc shows it

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000      # linux/sched.h
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CHOWN, SETGID, SETUID, SETPCAP, BIND, NET_ADMIN, RAW, SYS_CHROOT, SYS_ADMIN, SYS_RESOURCE = (
    1 << n for n in (0, 6, 7, 8, 10, 12, 13, 18, 21, 24))

FIELDS = ('Uid', 'Gid', 'Groups', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs')


def fields(text):
    """What is compared of a /proc/PID/status: ids as text, sets as numbers."""
    lines = dict(line.split(':', 1) for line in text.splitlines())
    return {name: int(lines[name], 16) if name.startswith('Cap') else ' '.join(lines[name].split()) for name in FIELDS}


def watch():
    """A function that tells this process's status, also from a jail."""
    fd = os.open('/proc/self/status', os.O_RDONLY)
    return lambda: fields(os.pread(fd, 8192, 0).decode())


STARTED = watch()() if sys.platform == 'linux' else None
HELD = STARTED['CapEff'] if STARTED else 0


def ends(uid, gid, groups='', caps=0, **others):
    expected = dict(Uid=' '.join([str(uid)] * 4), Gid=' '.join([str(gid)] * 4), Groups=groups, CapInh=0, CapPrm=caps,
                    CapEff=caps, CapBnd=caps, CapAmb=0, NoNewPrivs='1')
    expected.update(others)
    return expected


# ---------------------------------------------------------------------------- what a child does before it drops

libc = ctypes.CDLL(None, use_errno=True)


def c(name, *args):
    result = getattr(libc, name)(*args)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    return result


def prctl(*args):
    return c('prctl', args[0], *[ctypes.c_ulong(n) for n in args[1:] + (0,) * (5 - len(args))])


def capset(permitted, effective, inheritable=0):
    sets = effective, permitted, inheritable
    data = (ctypes.c_uint32 * 6)(*[s & 0xffffffff for s in sets] + [s >> 32 for s in sets])
    c('capset', (ctypes.c_uint32 * 2)(0x20080522, 0), data)


def set_groups(numbers):
    """Also more than 32: that of Python takes no more on musl."""
    numbers = list(numbers)
    c('setgroups', ctypes.c_size_t(len(numbers)), (ctypes.c_uint32 * len(numbers))(*numbers))


def without(lost):
    """A function that gives up these capabilities, out of the bounding set too."""
    def prepare():
        for n in range(64):
            if lost & STARTED['CapBnd'] >> n << n & 1 << n:
                prctl(24, n)
        capset(HELD & ~lost, HELD & ~lost)
    return prepare


def container():
    """uid 0 with every capability dropped."""
    capset(0, 0)


def systemd(ambient=BIND, lock=0, keep=True):
    """As User=www-data AmbientCapabilities=CAP_NET_BIND_SERVICE starts a service; with these securebits in the end."""
    prctl(8, 1) if keep else prctl(28, prctl(27) | 4)           # SECBIT_NO_SETUID_FIXUP does as well
    os.setgroups([33])
    os.setresgid(33, 33, 33)
    os.setresuid(33, 33, 33)
    if keep:
        prctl(8, 0)
    capset(ambient | SETPCAP, ambient | SETPCAP, ambient)
    if not keep:
        prctl(28, prctl(27) & ~4)
    for n in range(64):
        if ambient >> n & 1:
            prctl(47, 2, n)
    if lock:
        prctl(28, lock)
    capset(ambient, ambient, ambient)
    prctl(4, 1)


def saved_zero():
    os.setgroups([])
    os.setresgid(33, 33, 0)
    os.setresuid(33, 33, 0)


def saved_zero_and_nothing_else():
    saved_zero()
    capset(0, 0)


def no_proc():
    own_mounts()
    c('mount', b'none', b'/proc', b'tmpfs', 0, None)


def own_mounts():
    c('unshare', CLONE_NEWNS)
    c('mount', b'none', b'/', None, MS_REC | MS_PRIVATE, None)


def path_of_libcap():
    """The file that the loader takes, or None; seen in a process of its own: in this one it would stay loaded."""
    program = "import ctypes; ctypes.CDLL('libcap.so.2'); print(open('/proc/self/maps').read())"
    paths = [word for word in run_command([sys.executable, '-c', program]).stdout.split() if '/libcap.so' in word]
    return paths[0] if paths else None


def hidden_libcap(tmp_path):
    """A function that hides libcap.so.2 from its process and whatever that starts: an empty file lies over it."""
    need_root()
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')
    path, empty = path_of_libcap(), tmp_path / 'empty'
    empty.write_bytes(b'')

    def hide():
        if path is None:
            return
        own_mounts()
        c('mount', os.fsencode(str(empty)), os.fsencode(path), None, MS_BIND, None)
    return hide


UNSHARE = {'x86_64': (310, 272), 'i686': (310, 310), 'aarch64': (337, 97), 'armv7l': (337, 337), 'riscv64': (97, 97),
           'ppc64le': (282, 282), 'ppc64': (282, 282), 's390x': (303, 303)}


def unshare_blocked():
    """A seccomp filter that answers EPERM to unshare(2), as a container's may."""
    number = UNSHARE[os.uname()[4]][struct.calcsize('P') == 8]
    rows = (0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x50000 | errno.EPERM), (6, 0, 0, 0x7fff0000)
    code = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack('@HP', len(rows), ctypes.addressof(code)))
    prctl(22, 2, ctypes.addressof(program))
    with pytest.raises(OSError):
        c('unshare', 0)


def two_threads():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


def io_uring():
    c('syscall', 425, 4, ctypes.create_string_buffer(120))


def securebits(bits):
    return lambda: prctl(28, bits)


def open_directory():
    os.open('/usr', os.O_RDONLY)


def groups_denied():
    """Root of a user namespace in which setgroups is denied."""
    c('unshare', CLONE_NEWUSER)
    for name, text in ('setgroups', 'deny'), ('uid_map', '0 0 1'), ('gid_map', '0 0 1'):
        with open('/proc/self/' + name, 'w') as file:
            file.write(text)


def user_namespace(uid_map='0 0 1000', gid_map='0 0 1000', deny_groups=False):
    """A function that makes this process root of a user namespace with these maps; user_namespaces(7)."""
    files = [('setgroups', 'deny')] * deny_groups + [('uid_map', uid_map), ('gid_map', gid_map)]
    def prepare():
        ready, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                parent = os.getppid()
                os.close(tell)
                os.read(ready, 1)
                for name, text in files:
                    with open('/proc/%d/%s' % (parent, name), 'w') as file:
                        file.write(text)
                os._exit(0)
            finally:
                os._exit(1)
        try:
            c('unshare', CLONE_NEWUSER)
        finally:
            os.close(tell)
            os.close(ready)
            status = os.waitpid(pid, 0)[1]
        assert status == 0, 'the maps cannot be written'
    return prepare


def need_user_namespaces(prepare):
    need_root()
    try:
        in_child(prepare)
    except (AssertionError, OSError) as e:
        need(False, 'needs user namespaces: %s' % e)


PASSWD = """\
root:x:0:0::/root:/bin/sh
toor:x:0:0::/root:/bin/sh
www-data:x:33:33::/var/www:/bin/sh
ecuser:x:2525:2525::/home/ecuser:/bin/sh
inmail:x:4241:8::/:/bin/sh
shared:x:4243:4243::/:/bin/sh
common:x:4244:4244::/:/bin/sh
alice:x:4245:4244::/:/bin/sh
1234:x:4242:4242::/:/bin/sh
nobody:x:65534:65534::/:/bin/sh
"""
GROUP = """\
root:x:0:
adm:x:4:ecuser
mail:x:8:
www-data:x:33:
ecuser:x:2525:
shared:x:4243:alice
common:x:4244:
four:x:4242:
nogroup:x:65534:
"""


@pytest.fixture
def accounts(tmp_path):
    """A function that gives its process accounts of its own, ecuser among them; anything else it is given it calls."""
    need_root()
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')

    def prepare(*others, passwd=PASSWD):
        own_mounts()
        for name, text in ('passwd', passwd), ('group', GROUP):
            file = tmp_path / name
            file.write_text(text)
            file.chmod(0o644)
            c('mount', os.fsencode(str(file)), b'/etc/' + name.encode(), None, MS_BIND, None)
        for other in others:
            other()
    return prepare


@pytest.fixture
def jail(tmp_path):
    """A directory fit for chroot, with cat in it."""
    need_root()
    need(shutil.which('ldd'), 'needs ldd')
    jail = tmp_path / 'jail'
    cat = os.path.realpath(shutil.which('cat'))
    libraries = [word for word in run_command(['ldd', cat]).stdout.split() if word.startswith('/')]
    for source, target in [(cat, '/bin/cat')] + list(zip(libraries, libraries)):
        target = str(jail) + target
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(source, target)
    run_command(['chmod', '-R', 'u=rwX,go=rX', str(jail)])
    return jail


def configuration(tmp_path, file, directory, text):
    """The path of one: (owner, group, mode) of the file and of its directory."""
    path = tmp_path / 'etc' / 'myd.conf'
    path.parent.mkdir()
    path.write_text(text if 'Security' in text else 'Security {\n%s\n}\n' % text)
    for name, (owner, group, mode) in (path, file), (path.parent, directory):
        os.chown(str(name), owner, group)
        name.chmod(mode)
    return str(path)


# ---------------------------------------------------------------------------- drops, in children

AS_1111 = dict(user='1111', group='4321')       # numbers that no account has


def dropped(prepare, security, **options):
    """The status of a process after drop()."""
    def child():
        status = watch()
        prepare()
        state = capdrop.drop(security() if callable(security) else security, **options)
        assert state == capdrop.state()
        return status()
    return in_child(child)


def launched(prepare, security, argv, stdin='/proc/self/status', **options):
    """(standard output, exit status, standard error) of a command that is launched."""
    out, into = os.pipe()

    def child():
        os.dup2(os.open(stdin, os.O_RDONLY), 0)
        os.dup2(into, 1)
        prepare()
        capdrop.launch(security() if callable(security) else security, argv, **options)
    try:
        in_child(child)
        raise AssertionError('launch returned')
    except Ended as e:
        status, errors = e.args
    finally:
        os.close(into)
        with os.fdopen(out, 'rb') as pipe:
            text = pipe.read().decode()
    return text, status, errors


def everything(status):
    fds = os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd') else ()
    return (status(), [prctl(n) for n in (3, 7, 27)], len(fds), gc.isenabled(), os.getcwd(), os.stat('/').st_ino,
            signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def refused(prepare, security, verb='drop', **options):
    """The message of a drop that is refused, once it is sure that it changed nothing."""
    def child():
        status = watch()
        prepare()
        before = everything(status)
        command = () if verb == 'drop' else (['/bin/echo', 'it ran'],)
        try:
            getattr(capdrop, verb)(security() if callable(security) else security, *command, **options)
        except capdrop.Error as e:
            assert everything(status) == before
            return str(e)
        raise AssertionError('not refused')
    return in_child(child)
