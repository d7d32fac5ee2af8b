"""What would keep something of root's within reach: what is shared, what is open, what others put in the place of functions."""
import ctypes
import errno
import mmap
import os
import resource
import signal
import stat
import sys
import threading
import time

import pytest

from conftest import (
    AS_1111, BIND, HELD, SYS_ADMIN, Ended, c, configuration, dropped, ends, fields, in_child,
    io_uring, launched, libc, need, need_root, no_proc, refused, run_command, unshare_blocked,
    watch)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

KEEPS = dict(AS_1111, capabilities='cap_net_bind_service+ep')
CLONE_FS, CLONE_FILES = 0x200, 0x400            # linux/sched.h


# ---------------------------------------------------------------------------- processes that share the table or the directories

def until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, 'it took too long'
        time.sleep(0.001)


class Sharer:
    """A process that shares descriptors or directories with this one, and not the memory.

    It says page[1] = 1 when it has begun, and does act(page) once this one says page[0] = 1.
    """
    def __init__(self, flags, act, at_once=False):
        self.page = page = mmap.mmap(-1, 4096)
        parent = os.getpid()

        def child(_):
            try:
                signal.alarm(20)
                page[1] = 1
                if not at_once:
                    until(lambda: page[0] or os.getppid() != parent)
                act(page)
                page[2] = 1
                until(lambda: page[0] == 2 or os.getppid() != parent)
            finally:
                os._exit(0)
        self.stack = ctypes.create_string_buffer(1 << 20)
        self.function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(child)
        top = ctypes.c_void_p(ctypes.addressof(self.stack) + (1 << 20) - 64)
        self.pid = c('clone', self.function, top, flags | signal.SIGCHLD, None)
        until(lambda: page[1])

    def acts(self):
        self.page[0] = 1
        until(lambda: self.page[2])

    def ends(self):
        self.page[0] = 2
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def open_here(test):
    """The descriptors of this process of which that is true."""
    found = []
    for number in range(256):
        try:
            if test(os.fstat(number)):
                found.append(number)
        except OSError:
            pass
    return found


def need_shadow():
    need(SHADOW, 'needs /etc/shadow')


def is_directory(status):
    return stat.S_ISDIR(status.st_mode)


def is_shadow(status):
    return (status.st_dev, status.st_ino) == SHADOW


SHADOW = os.stat('/etc/shadow')[2:0:-1] if os.path.exists('/etc/shadow') else None


def test_the_sharers_of_these_tests_share():
    need_root()
    need_shadow()

    def child():
        files = Sharer(CLONE_FILES, lambda page: os.open('/etc/shadow', os.O_RDONLY))
        files.acts()
        directories = Sharer(CLONE_FS, lambda page: os.chdir('/usr'))
        directories.acts()
        seen = len(open_here(is_shadow)), os.getcwd()
        files.ends(), directories.ends()
        return seen
    assert in_child(child) == (1, '/usr')


@pytest.mark.parametrize('inside', [False, True], ids=['', 'chroot'])
def test_what_a_sharer_of_descriptors_opens_after_the_drop_is_not_open_here(inside, jail):
    need_root()
    need_shadow()

    def child():
        sharer = Sharer(CLONE_FILES, lambda page: os.open('/etc/shadow', os.O_RDONLY))
        capdrop.drop(capdrop.Security(chroot=str(jail) if inside else None, **KEEPS))
        sharer.acts()
        found = open_here(is_shadow)
        sharer.page[0] = 2
        return found
    assert in_child(child) == []


def test_a_sharer_of_directories_does_not_lead_out_of_the_jail(jail):
    need_root()

    outside = []

    def prepare():
        outside.append(os.open('/usr', os.O_RDONLY))
        sharer = Sharer(CLONE_FS, lambda page: os.fchdir(outside[0]))
        os.close(outside[0])            # here; the sharer has its own
        return sharer

    def dropping():
        sharer = prepare()
        capdrop.drop(capdrop.Security(chroot=str(jail), **KEEPS))
        sharer.acts()
        here, root = os.stat('.'), os.stat('/')
        sharer.page[0] = 2
        return (here.st_dev, here.st_ino) == (root.st_dev, root.st_ino)
    assert in_child(dropping)


def test_a_sharer_of_directories_does_not_lead_a_command_out_of_the_jail(jail, tmp_path):
    """Not even execve(2) ends the sharing of the current directory."""
    need_root()
    (tmp_path / 'secret').write_text('secret')
    fifo = str(jail / 'wait')
    os.mkfifo(fifo)
    os.chmod(fifo, 0o644)

    def prepare():
        outside = os.open(str(tmp_path), os.O_RDONLY)
        inside = os.open(str(jail), os.O_RDONLY)
        opened = []

        def the_command_reads():
            try:
                opened.append(os.open('wait', os.O_WRONLY | os.O_NONBLOCK, dir_fd=inside))
            except OSError as e:
                assert e.errno == errno.ENXIO       # not yet
            return opened

        def act(page):
            until(the_command_reads)
            os.fchdir(outside)
            os.write(opened[0], b'go ')
            os.close(opened[0])
        sharer = Sharer(CLONE_FS, act, at_once=True)
        os.close(outside)
        os.close(inside)
        prepare.kept = sharer
    out, status, errors = launched(prepare, lambda: capdrop.Security(chroot=str(jail), **KEEPS),
                                   ['/bin/cat', '/wait', './secret'])
    assert out == 'go ' and 'No such file' in errors


def test_a_sharer_that_opens_directories_all_the_time_gets_none_into_the_jail(jail):
    """Refused, for one that was open just then; or dropped, and none is."""
    need_root()
    ends_seen = set()

    def child():
        def act(page):
            while page[0] != 2:
                fd = os.open('/usr', os.O_RDONLY)
                os.close(fd)
        sharer = Sharer(CLONE_FILES, act, at_once=True)
        try:
            capdrop.drop(capdrop.Security(chroot=str(jail), **AS_1111))
        except capdrop.RefusedError as e:
            assert 'is a directory' in str(e)
            return 'refused'
        finally:
            sharer.page[0] = 2
        return 'dropped' if open_here(is_directory) == [] else 'dropped, with a directory'
    for _ in range(100):
        ends_seen.add(in_child(child))
    assert ends_seen <= {'refused', 'dropped'}


def test_a_fanotify_group_of_which_nothing_is_told_may_open_files():
    assert capdrop.opens_files('/dev/null') and capdrop.opens_files('/no/such/file')


@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_a_thread_that_ends_between_the_wait_and_the_look_is_no_way_past_unshare(verb):
    def prepare():
        platform = capdrop.this_platform()
        genuine = platform.wait_for_one_thread
        answers = iter([False])                     # there was another one; it has ended since
        platform.wait_for_one_thread = lambda: next(answers, genuine())
    assert refused(prepare, lambda: capdrop.Security(**AS_1111), verb) == (
        'a thread was still running, and has ended only now: try again')


def test_threads_of_a_process_that_is_refused_go_on_sharing():
    need_root()

    def child():
        go, opened = threading.Event(), []

        def later():
            go.wait()
            opened.append(os.open('/usr', os.O_RDONLY))
            os.chdir('/usr')
        thread = threading.Thread(target=later)
        thread.start()
        with pytest.raises(capdrop.RefusedError):
            capdrop.drop(capdrop.Security(**AS_1111))
        go.set()
        thread.join()
        return os.path.samestat(os.fstat(opened[0]), os.stat('/usr')), os.getcwd()
    assert in_child(child) == (True, '/usr')


def test_unshare_is_what_a_plan_prints_first_and_only_where_there_is_something_to_do():
    need_root()

    def child():
        security = capdrop.Security(**AS_1111)
        first = str(capdrop.plan(security).steps[0])
        capdrop.drop(security)
        return first, list(capdrop.plan(security).steps)
    first, then = in_child(child)
    assert first.startswith('unshare(') and 'CLONE_FILES' in first and 'CLONE_FS' in first and then == []


@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_where_unshare_is_blocked_a_drop_is_as_good_as_it_can_be(verb):
    need_root()
    if verb == 'drop':
        assert dropped(unshare_blocked, capdrop.Security(**KEEPS)) == ends(1111, 4321, caps=BIND)
    else:
        out, status, errors = launched(unshare_blocked, capdrop.Security(**KEEPS), ['/bin/cat'])
        assert status == 0 and fields(out)['CapPrm'] == BIND


# ---------------------------------------------------------------------------- descriptors that are more than a file

FAN_REPORT_FID, FAN_REPORT_DIR_FID = 0x200, 0x400       # linux/fanotify.h


def fanotify(flags=0):
    return c('fanotify_init', flags, os.O_RDONLY)


def need_fanotify(flags=0):
    need_root()
    need(hasattr(libc, 'fanotify_init') and HELD & SYS_ADMIN, 'needs fanotify_init(2) and cap_sys_admin')
    try:
        in_child(fanotify, flags)
    except OSError as e:
        need(False, 'needs fanotify: %s' % e)


@pytest.mark.parametrize('verb', ['drop', 'launch'])
@pytest.mark.parametrize('inside', [False, True], ids=['', 'chroot'])
def test_a_fanotify_group_is_refused(inside, verb, jail):
    """Each event opens a file for whoever reads it, with no right asked for."""
    need_fanotify()
    numbers = []

    def prepare():
        numbers.append(fanotify())
    message = refused(prepare, capdrop.Security(chroot=str(jail) if inside else None, **AS_1111), verb)
    assert 'fanotify' in message and 'close it' in message


@pytest.mark.parametrize('flags', [FAN_REPORT_FID, FAN_REPORT_DIR_FID], ids=hex)
def test_a_fanotify_group_that_opens_nothing_is_none_of_our_business(flags):
    need_fanotify(flags)
    assert dropped(lambda: fanotify(flags), capdrop.Security(**KEEPS)) == ends(1111, 4321, caps=BIND)


def fill_the_table(open_first=lambda: None):
    """No descriptor is left."""
    def prepare():
        capdrop.state()                 # loads the libraries
        import grp, pwd                 # noqa: F401, E401
        open_first()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with pytest.raises(OSError):
            while True:
                os.open('/dev/null', os.O_RDONLY)
    return prepare


@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_an_io_uring_is_seen_where_no_descriptor_is_left(verb):
    need_root()
    try:
        in_child(io_uring)
    except OSError as e:
        need(False, 'needs io_uring: %s' % e)

    def child():
        status = watch()
        fill_the_table(io_uring)()
        before = status()
        try:
            if verb == 'drop':
                capdrop.drop(capdrop.Security(**AS_1111))
            else:
                capdrop.launch(capdrop.Security(**AS_1111), ['/bin/echo', 'it ran'])
        except capdrop.RefusedError as e:
            assert status() == before
            return str(e)
    assert 'io_uring' in in_child(child)


def test_a_fanotify_group_is_seen_where_no_descriptor_is_left():
    """What it reports cannot be read there: that is reason enough."""
    need_fanotify()

    def child():
        status = watch()
        fill_the_table(fanotify)()
        before = status()
        try:
            capdrop.drop(capdrop.Security(**AS_1111))
        except capdrop.RefusedError as e:
            assert status() == before
            return str(e)
    assert 'fanotify' in in_child(child)


def test_a_full_table_without_anything_in_it_is_no_reason_to_refuse():
    need_root()
    state = []

    def child():
        status = watch()
        fill_the_table()()
        state.append(capdrop.drop(capdrop.Security(**KEEPS)))
        return status(), [text for text in state[0].warnings if 'not mounted' in text]
    assert in_child(child) == (ends(1111, 4321, caps=BIND), [])


@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_without_proc_a_directory_is_found_by_its_number(verb, jail):
    need_root()
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')

    def child():
        no_proc()
        number = os.open('/usr', os.O_RDONLY)
        high = os.dup2(number, 200)
        os.close(number)
        before = os.getresuid(), os.getcwd()
        try:
            if verb == 'drop':
                capdrop.drop(capdrop.Security(chroot=str(jail), **AS_1111))
            else:
                capdrop.launch(capdrop.Security(chroot=str(jail), **AS_1111), ['/bin/cat'])
        except capdrop.RefusedError as e:
            assert (os.getresuid(), os.getcwd()) == before
            return str(e), high
    assert 'descriptor 200 is a directory' in in_child(child)[0]


# ---------------------------------------------------------------------------- group 0

CONVENTION = {      # (owner, group, mode) of the file, of its directory; stanza; refused?
    'file, group root': ((0, 0, 0o664), (0, 0, 0o755), 'user = 1001 group = root', True),
    'file, root among the groups': (
        (0, 0, 0o664), (0, 0, 0o755), 'user = 1001 group = 1001 supplemental_groups = ( root )', True),
    'directory, group root': ((0, 0, 0o644), (0, 0, 0o775), 'user = 1001 group = root', True),
    'sticky directory, group root': ((0, 0, 0o644), (0, 0, 0o1775), 'user = 1001 group = root', False),
    'file, another group': ((0, 0, 0o664), (0, 0, 0o775), 'user = 1001 group = 1001', False),
    'nobody but root writes': ((0, 0, 0o644), (0, 0, 0o755), 'user = 1001 group = root', False),
    'root itself': ((0, 0, 0o664), (0, 0, 0o775), 'user = root group = root', False),
}


@pytest.mark.parametrize('case', CONVENTION)
@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_group_0_is_roots_own_only_where_the_process_will_not_be_in_it(case, verb, tmp_path):
    need_root()
    file, directory, text, refuse = CONVENTION[case]
    path = configuration(tmp_path, file, directory, 'Security { %s }' % text)
    if refuse:
        message = refused(lambda: None, lambda: capdrop.load(path), verb)
        assert 'can be rewritten by' in message and 'group 0' in message and 'etc' in message
    elif verb == 'drop':
        dropped(lambda: None, lambda: capdrop.load(path))
    else:
        assert launched(lambda: None, lambda: capdrop.load(path), ['/bin/true'])[1] == 0


@pytest.mark.parametrize('where', ['jail', 'above'])
def test_a_jail_that_group_0_may_write_is_refused_to_who_is_in_it(where, tmp_path):
    need_root()
    jail = tmp_path / 'a' / 'jail'
    jail.mkdir(parents=True)
    for directory in tmp_path, jail.parent, jail:
        directory.chmod(0o755)
    (jail if where == 'jail' else jail.parent).chmod(0o775)
    for options in dict(user='1001', group='0'), dict(user='1001', group='1001', supplemental_groups=('0',)):
        message = refused(lambda: None, capdrop.Security(chroot=str(jail), **options))
        assert 'chroot' in message and 'group 0' in message
    dropped(lambda: None, capdrop.Security(chroot=str(jail), user='1001', group='1001'))


# ---------------------------------------------------------------------------- what a program has put in the place of functions

def put_in_place():
    """All that os holds of the C module, but what it takes to read and to write text: as gevent
    and its like do it, and worse.  Outside of a drop the real one is called."""
    seen = []
    resource.setrlimit(resource.RLIMIT_CPU, (5, 5))       # should even os._exit be missed

    def liar(name, real):
        def lie(*args, **options):
            if signal.pthread_sigmask(signal.SIG_BLOCK, ()):
                seen.append(name)
                return None
            return real(*args, **options)
        return lie
    import posix
    for name in dir(posix):
        real = getattr(posix, name)
        if name not in ('fspath', 'strerror') and type(real) is type(posix.stat) and getattr(os, name, None) is real:
            setattr(os, name, liar('os.' + name, real))
    time.sleep = liar('time.sleep', time.sleep)
    import select
    for name in 'select', 'poll':
        setattr(select, name, liar('select.' + name, getattr(select, name)))
    for name in 'pthread_sigmask', 'signal', 'getsignal', 'sigtimedwait', 'valid_signals':
        if hasattr(signal, name) and name != 'pthread_sigmask':
            setattr(signal, name, liar('signal.' + name, getattr(signal, name)))
    return seen


@pytest.mark.parametrize('inside', [False, True], ids=['', 'chroot'])
@pytest.mark.parametrize('how', ['drop', 'plan and drop'])
def test_no_function_that_the_program_has_replaced_runs_half_way(how, inside, jail):
    need_root()

    def child():
        status = watch()
        seen = put_in_place()
        security = capdrop.Security(chroot=str(jail) if inside else None, **KEEPS)
        capdrop.drop(capdrop.plan(security) if how != 'drop' else security)
        return status(), seen
    assert in_child(child) == (ends(1111, 4321, caps=BIND), [])


def test_no_function_that_the_program_has_replaced_runs_before_exec():
    need_root()

    def child():
        seen = put_in_place()
        real = __import__('posix').execve

        def tell(*args):
            __import__('posix').write(2, ' '.join(seen).encode())
            return real(*args)
        os.execve = tell
        capdrop.launch(capdrop.Security(**KEEPS), ['/bin/cat', '/proc/self/status'])
    read, write = os.pipe()

    def to_pipe():
        os.dup2(write, 1)
        child()
    with pytest.raises(Ended) as e:
        in_child(to_pipe)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert fields(pipe.read())['CapPrm'] == BIND
    assert e.value.args == (0, '')


@pytest.mark.parametrize('name', ['close', 'read', 'fstat', 'stat', 'listdir', 'readlink'])
def test_a_plan_is_right_whatever_the_program_has_put_in_the_place_of_a_function(name):
    """gevent's close leaves the descriptor open for a while."""
    need_root()

    def child():
        security = capdrop.Security(**KEEPS)
        first = capdrop.plan(security)

        def lie(*args, **options):
            raise RuntimeError('a call of the program ran')
        if name == 'close':
            lie = lambda fd: None
        real = getattr(os, name)
        setattr(os, name, lie)
        try:
            second = capdrop.plan(security)
        finally:
            setattr(os, name, real)
        return list(map(str, first.steps)) == list(map(str, second.steps)) and list(second.refusals) == []
    assert in_child(child)


def test_with_gevent_in_the_place_of_os_a_drop_ends_as_any_other():
    need_root()
    program = '''
import sys
sys.path.insert(0, %r)
import gevent.monkey
gevent.monkey.patch_all()
import gevent
gevent.sleep(0)
import capdrop
assert capdrop.plan(capdrop.Security(user="1111", group="4321")).refusals in ([], ())
state = capdrop.drop(capdrop.Security(user="1111", group="4321"))
gevent.sleep(0)
print(state.uid[0], capdrop.state() == state)
''' % os.path.dirname(capdrop.__file__)
    pythons = [python for python in (sys.executable, '/usr/bin/python3')
               if os.path.exists(python) and run_command([python, '-c', 'import gevent']).returncode == 0]
    need(pythons, 'needs gevent')
    done = run_command([pythons[0], '-c', program])
    assert (done.returncode, done.stdout) == (0, '1111 True\n'), done.stderr


def test_a_launch_from_where_no_handler_can_be_set_is_refused_with_nothing_changed():
    """A subinterpreter may not set one."""
    need_root()

    def child():
        def not_here(*_):
            raise ValueError('signal only works in main thread of the main interpreter')
        capdrop.signal.signal = not_here
        before = watch()()
        try:
            capdrop.launch(capdrop.Security(**AS_1111), ['/bin/true'])
        except capdrop.RefusedError as e:
            return str(e), watch()() == before
    assert in_child(child) == ('launch: signal only works in main thread of the main interpreter', True)
