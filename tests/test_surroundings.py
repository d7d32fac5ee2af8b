"""A drop among threads, signals, limits, closed or full descriptors, and on systems that lack something."""
import _ctypes
import ctypes
import errno
import gc
import itertools
import os
import resource
import signal
import sys
import threading
import time

import pytest

from conftest import (
    AS_1111, BIND, Ended, dropped, ends, fields, in_child, launched, need, need_root, no_proc,
    refused, run_command)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
if sys.platform == 'linux':
    import test_faults
    from test_faults import CHANGES, HERE, MEMORY, MODES, RET_ERRNO, install, key_name, mode_name, possible     # noqa: F401
    from test_faults import traced, trial, workers

KEEPS = dict(AS_1111, capabilities='cap_net_bind_service+ep')


# ---------------------------------------------------------------------------- threads

def c_thread(microseconds):
    """A thread that Python does not know of, which sleeps."""
    libc, thread = ctypes.CDLL(None), ctypes.c_ulong()
    create = getattr(libc, 'pthread_create', None) or ctypes.CDLL('libpthread.so.0').pthread_create
    usleep = ctypes.cast(libc.usleep, ctypes.c_void_p)
    assert create(ctypes.byref(thread), None, usleep, ctypes.c_void_p(microseconds)) == 0
    assert threading.active_count() == 1


def test_a_thread_that_python_does_not_know_of_is_refused():
    need_root()
    for verb in 'drop', 'launch':
        message = refused(lambda: c_thread(20000000), capdrop.Security(**AS_1111), verb)
        assert 'more than one thread' in message


@pytest.mark.parametrize('parent', [0, 0x8000], ids=['child', 'sibling'])
def test_a_process_that_shares_the_memory_is_refused(parent):
    """No thread, so it is not in /proc/self/task; and whoever may write this memory is what it is."""
    need_root()

    def child():
        libc = ctypes.CDLL(None)
        stack = ctypes.create_string_buffer(65536)
        libc.clone(ctypes.cast(libc.sleep, ctypes.c_void_p), ctypes.c_void_p(ctypes.addressof(stack) + 65536 - 64),
                   0x100 | parent | signal.SIGCHLD, ctypes.c_void_p(3))      # CLONE_VM
        before = os.getresuid()
        with pytest.raises(capdrop.RefusedError) as e:
            capdrop.drop(capdrop.Security(**KEEPS))
        return str(e.value), before == os.getresuid()
    message, unchanged = in_child(child)
    assert 'shares the memory' in message and unchanged


def test_threads_that_are_about_to_end_are_waited_for():
    need_root()

    def prepare():
        for n in range(3):
            c_thread(20000 * n)
        threading.Thread(target=time.sleep, args=(0.05,)).start()
    assert dropped(prepare, capdrop.Security(**KEEPS)) == ends(1111, 4321, caps=BIND)


def test_threads_started_after_the_drop_hold_what_it_left():
    need_root()

    def child():
        capdrop.drop(capdrop.Security(**KEEPS))
        c_thread(20000000)
        for _ in range(4):
            threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
        return [fields(open('/proc/self/task/%s/status' % task).read()) for task in os.listdir('/proc/self/task')]
    assert in_child(child) == [ends(1111, 4321, caps=BIND)] * 6


def test_a_process_forked_by_a_thread_may_drop_and_its_parent_may_not():
    need_root()

    def child():
        answers = []

        def fork():
            answers.append(dropped(lambda: None, capdrop.Security(**KEEPS)))
            time.sleep(20)
        threading.Thread(target=fork, daemon=True).start()
        while not answers:
            time.sleep(0.001)
        with pytest.raises(capdrop.RefusedError) as e:
            capdrop.drop(capdrop.Security(**KEEPS))
        assert 'more than one thread' in str(e.value)
        return answers[0]
    assert in_child(child) == ends(1111, 4321, caps=BIND)


def test_a_process_forked_by_a_thread_before_the_drop_keeps_its_rights_and_a_warning_says_so():
    need_root()

    def child():
        pids, (end, tell) = [], os.pipe()

        def fork():
            pids.append(os.fork())
            if not pids[0]:
                os.read(end, 1)
                os._exit(0)
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        with open('/proc/%d/status' % pids[0]) as status:
            before = fields(status.read())
            warnings = capdrop.drop(capdrop.Security(**KEEPS)).warnings
            status.seek(0)
            after = fields(status.read())
        os.write(tell, b'end')
        assert after == before
        return [text for text in warnings if 'children already started' in text]
    assert in_child(child)


# ---------------------------------------------------------------------------- signals

@pytest.mark.parametrize('mode', MODES[:4], ids=mode_name)
def test_a_signal_between_any_two_steps_finds_no_handler_half_way(mode, possible, jail):
    """A signal is sent as each call that changes something has been made, and once more as it is read back."""
    def prepare(page):
        status = os.open('/proc/self/status', os.O_RDONLY)
        look = lambda: fields(os.pread(status, 8192, 0).decode())
        before = look()

        def handler(*_):
            page[3] = 1 if look() == before else 2 if look() == after else 3
        after = ends(1111, 4321, '8', BIND)
        signal.signal(signal.SIGUSR1, handler)
    calls = traced(mode, jail)
    counts = {key: calls.count(key) for key in calls if key_name(key) in CHANGES | {'getresuid', 'GET_NO_NEW_PRIVS'}}
    items = [(mode, jail, [key], None, lambda r: os.kill(r.pid, signal.SIGUSR1) is None, time_, prepare)
             for key, count in counts.items() for time_ in range(1, count + 1)]
    assert len(items) > 50
    for item, outcome in zip(items, workers(trial, items)):
        assert outcome.injected == 1
        # it comes when all is done; a handler ends with exec, so that a command dies of it before it starts
        if mode.launch:
            assert outcome.kind in ('signal %d' % signal.SIGUSR1, 'refused'), outcome
        else:
            assert outcome.kind == 'next line' and outcome.noted in (1, 2), outcome


# ---------------------------------------------------------------------------- nothing late

@pytest.mark.parametrize('mode', MODES, ids=mode_name)
def test_nothing_is_opened_from_the_first_change_to_the_last_look(mode, possible, jail):
    calls = [key_name(key) for key in traced(mode, jail)]
    first = min(calls.index(name) for name in CHANGES if name in calls)
    last = len(calls) - calls[::-1].index('GET_NO_NEW_PRIVS')
    kinds = {'stat', 'fstat', 'newfstatat', 'statx', 'rt_sigprocmask', 'unshare'} | CHANGES | MEMORY
    assert {name for name in calls[first:last] if name not in kinds and not name.startswith(
        ('get', 'GET', 'set', 'capget', 'CAPBSET', 'CAP_AMBIENT'))} <= {'getpid'}
    assert not {'openat', 'open', 'read', 'execve', 'getdents64'} & set(calls[first:last])


@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_nothing_is_imported_from_the_first_change_on(verb, jail):
    need_root()

    def child():
        platform, done = capdrop._platform(), []
        real, importing = platform.prctl, __builtins__['__import__']

        def spy(*args):
            if args[0] in (8, 24):
                done.append('PR')
            return real(*args)

        def record(name, *args, **keywords):
            done.append(name)
            return importing(name, *args, **keywords)

        def end(*_):
            late = done[done.index('PR'):]
            os.write(2, b'nothing' if set(late) == {'PR'} else str(late).encode())
            os._exit(42)
        platform.prctl, __builtins__['__import__'], os.execve = spy, record, end
        security = capdrop.Security(chroot=str(jail), **KEEPS)
        if verb == 'launch':
            capdrop.launch(security, ['/bin/cat'])
        capdrop.drop(security)
        end()
    with pytest.raises(Ended) as e:
        in_child(child)
    assert e.value.args == (42, 'nothing')


@pytest.mark.parametrize('name', ['/no\nsuch', '/no\x1b[31msuch', '/no\u202esuch'], ids=ascii)
def test_a_command_whose_name_cannot_be_shown_ends_as_any_other(name, jail):
    need_root()
    done = run_command([sys.executable, '-I', capdrop.__file__, 'exec', '-q', '--user', '1111', '--group', '1', '--chroot',
                        str(jail), '--', name])
    assert (done.returncode, done.stderr.count('\n')) == (127, 1) and 'Traceback' not in done.stderr


# ---------------------------------------------------------------------------- limits

@pytest.mark.parametrize('most', [0, 3, 5])
def test_with_hardly_a_descriptor_left_a_drop_is_as_good(most):
    need_root()
    def limit():
        capdrop.state()         # loads the libraries
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    assert dropped(limit, capdrop.Security(**KEEPS)) == ends(1111, 4321, caps=BIND)

    def child():
        limit()
        before = os.getresuid(), os.getgroups()
        with pytest.raises(capdrop.RefusedError) as e:
            capdrop.drop(capdrop.Security(chroot='/', **KEEPS))
        return str(e.value), before == (os.getresuid(), os.getgroups())
    message, unchanged = in_child(child)
    assert os.strerror(errno.EMFILE) in message and unchanged


def test_a_drop_is_as_good_when_its_user_may_have_no_process():
    need_root()
    limit = lambda: resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    assert dropped(limit, capdrop.Security(**KEEPS)) == ends(1111, 4321, caps=BIND)


@pytest.mark.parametrize('mode', MODES[:4], ids=mode_name)
def test_with_hardly_any_memory_left_a_drop_ends_in_one_of_three_ways(mode, possible, jail):
    def prepare(pages):
        def prepare(_):
            with open('/proc/self/statm') as file:
                size = int(file.read().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, ((size + pages) * resource.getpagesize(),) * 2)
        return prepare
    asked = [key for key in set(traced(mode, jail)) if key_name(key) == 'getresuid']
    items = [(mode, jail, asked, None, lambda registers: True, None, prepare(pages)) for pages in (
        0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)]
    kinds = set()
    for item, outcome in zip(items, workers(trial, items)):
        kinds.add(outcome.kind)
        if outcome.before is None:      # not even what stands before the drop
            continue
        if outcome.kind in ('refused', 'exception'):
            assert outcome.after == outcome.before
        elif outcome.kind not in ('exit 125', 'signal 11'):     # that is a stack that cannot grow: setrlimit(2)
            assert outcome.kind in ('next line', 'command')
            assert outcome.after == test_faults.goal(mode, jail, outcome.before)
    assert kinds & {'next line', 'command'}


# ---------------------------------------------------------------------------- descriptors 0, 1 and 2

def half_dropped(prepare):
    """(exit status, seconds) of a drop in which setresuid lies."""
    def child():
        prepare()
        real, os.setresuid = os.setresuid, lambda *args: None
        capdrop.drop(capdrop.Security(**KEEPS))
        os.setresuid = real
    start = time.monotonic()
    with pytest.raises(Ended) as e:
        in_child(child)
    return e.value.args[0], e.value.args[1], time.monotonic() - start


def test_a_caller_who_wants_an_exception_gets_one_that_except_exception_does_not_catch():
    need_root()

    def child():
        os.setresuid = lambda *args: None
        try:
            capdrop.drop(capdrop.Security(**KEEPS), on_failure='raise')
        except Exception:
            return 'swallowed'
        except BaseException as e:
            return type(e).__name__, str(e)
    name, text = in_child(child)
    assert name == 'HalfDropped' and 'uid' in text


def test_a_launch_without_a_plan_for_it_or_a_command_or_with_a_nul_is_an_error_of_the_caller():
    need_root()
    security = capdrop.Security(**KEEPS)
    for build, argv, env in ((lambda: capdrop.plan(security), ['/bin/true'], {}), (lambda: security, [], {}),
                             (lambda: security, ['/bin/true', 'a\0b'], {}), (lambda: security, ['/bin/true'], {'A': '\0'})):
        def child():
            before = os.getresuid()
            with pytest.raises(ValueError):
                capdrop.launch(build(), argv, env=env)
            return before == os.getresuid()
        assert in_child(child)


def full_pipe():
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b'x' * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    os.dup2(write, 2)


def broken_pipe():
    read, write = os.pipe()
    os.dup2(write, 2)
    os.close(write)
    os.close(read)


def closed():
    os.close(2)


def full_device():
    os.dup2(os.open('/dev/full', os.O_WRONLY), 2)


def directory():
    os.dup2(os.open('/', os.O_RDONLY), 2)


PLACES = [full_pipe, broken_pipe, closed, full_device, directory]


def test_the_last_words_of_a_drop_are_one_line():
    need_root()
    status, text, _ = half_dropped(lambda: None)
    assert status == 125 and text.startswith('capdrop: half-dropped and so ended: ') and text.count('\n') == 1


@pytest.mark.parametrize('place', PLACES)
def test_the_last_words_of_a_drop_never_hold_it_up(place):
    need_root()
    status, text, seconds = half_dropped(place)
    assert (status, text) == (125, '') and seconds < 2


@pytest.mark.parametrize('fds', [fds for n in (1, 2, 3) for fds in itertools.combinations((0, 1, 2), n)], ids=str)
def test_closed_standard_descriptors_do_not_matter_to_a_drop(fds):
    need_root()
    prepare = lambda: [os.close(fd) for fd in fds]
    assert dropped(prepare, capdrop.Security(**KEEPS)) == ends(1111, 4321, caps=BIND)


@pytest.mark.parametrize('place', PLACES[:4])     # Python itself does not start on a directory
def test_a_warning_that_cannot_be_written_does_not_keep_a_command_from_running(place):
    """Group 0 is a warning."""
    need_root()
    script = [sys.executable, '-I', test_faults.capdrop.__file__, 'exec', '--user', '1111', '--group', '0', '--', '/bin/sh', '-c',
              'echo it ran']
    done = run_command(script, preexec_fn=place)
    assert (done.returncode, done.stdout) == (0, 'it ran\n')


@pytest.mark.parametrize('place', PLACES[:4])
def test_the_exit_status_is_right_when_nothing_can_be_said(place):
    need_root()
    done = run_command([sys.executable, '-I', capdrop.__file__, 'exec', '-q', '--user', '1111', '--group', '1', '--', '/no/such'],
                       preexec_fn=place)
    assert done.returncode == 127


# ---------------------------------------------------------------------------- what a system may lack

def lacking(*keys, error=errno.EINVAL):
    """A function after which these calls fail: names, or numbers of prctl and their arguments."""
    def prepare():
        need(HERE, 'the numbers of system calls on %s are not known to these tests' % os.uname()[4])
        install([(HERE.numbers[key],) if isinstance(key, str) else (HERE.numbers['prctl'],) + key for key in keys],
                RET_ERRNO | error)
    return prepare


def without_libcap():
    real = _ctypes.dlopen

    def load(name, *args):
        if name and 'cap' in name:
            raise OSError('%s: cannot open shared object file' % name)
        return real(name, *args)
    _ctypes.dlopen = load
    capdrop._loaded.clear()


LACKING = {
    'libcap': (without_libcap, KEEPS, ['libcap.so.2', 'Debian', 'Fedora', 'Alpine', 'Buildroot']),
    'no_new_privs': (lacking((38,), (39,)), AS_1111, ['no_new_privs']),
    'the bounding set': (lacking((23,), (24,)), AS_1111, []),
    'securebits': (lacking((27,), (28,)), AS_1111, ['securebits']),
    'keepcaps': (lacking((7,), (8,)), AS_1111, ['keepcaps']),
    'capget': (lacking('capget', error=errno.ENOSYS), AS_1111, [os.strerror(errno.ENOSYS)]),
    'prctl, forbidden': (lacking('prctl', error=errno.EPERM), AS_1111, [os.strerror(errno.EPERM)]),
    'getresuid, forbidden': (lacking('getresuid', error=errno.EPERM), AS_1111, [os.strerror(errno.EPERM)]),
    'unshare and /proc': (lambda: (no_proc(), lacking('unshare', error=errno.ENOSYS)()), AS_1111, ['thread', 'unshare', '/proc']),
}


@pytest.mark.parametrize('what', LACKING)
@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_a_system_that_lacks_what_a_drop_needs_is_told_so(what, verb):
    need_root()
    prepare, options, words = LACKING[what]

    def child():
        prepare()
        before = os.getresuid() if what != 'getresuid, forbidden' else None, os.getgroups()
        try:
            if verb == 'drop':
                capdrop.drop(capdrop.Security(**options))
            else:
                capdrop.launch(capdrop.Security(**options), ['/bin/true'])
        except capdrop.Error as e:
            assert before == (os.getresuid() if before[0] else None, os.getgroups())
            return str(e)
    message = in_child(child)
    for word in words:
        assert word in message


def test_without_ambient_capabilities_only_a_command_that_is_to_keep_some_is_refused():
    need_root()
    before_4_3 = lacking((47,))
    assert dropped(before_4_3, capdrop.Security(**KEEPS)) == ends(1111, 4321, caps=BIND)
    assert launched(before_4_3, capdrop.Security(**AS_1111), ['/bin/true'])[1:] == (0, '')
    with pytest.raises(capdrop.RefusedError) as e:
        launched(before_4_3, capdrop.Security(**KEEPS), ['/bin/true'])
    assert 'ambient' in str(e.value)


@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_without_proc_a_drop_and_a_command_end_as_they_should(verb, jail):
    need_root()
    for options in KEEPS, dict(KEEPS, chroot=str(jail)):
        if verb == 'drop':
            assert dropped(no_proc, capdrop.Security(**options)) == ends(1111, 4321, caps=BIND)
        else:
            out, status, errors = launched(no_proc, capdrop.Security(**options), ['/bin/cat'])
            assert (status, errors) == (0, '') and fields(out)['CapPrm'] == BIND


# ---------------------------------------------------------------------------- exceptions while an exception is handled

def never_again(*args):
    raise OSError(errno.EPERM, 'refused')


@pytest.mark.parametrize('depth', range(1, 30))
def test_a_failure_that_there_is_no_stack_to_tell_ends_the_process(depth):
    """What is told of the step needs more of the stack than all that was done before."""
    need_root()

    def child():
        security, system = capdrop.Security(**KEEPS), capdrop._platform()
        capdrop.plan(security)
        before, system.cap_set_proc, limit = system.read(), never_again, sys.getrecursionlimit()
        frame, used = sys._getframe(), 0
        while frame:
            frame, used = frame.f_back, used + 1
        try:
            sys.setrecursionlimit(used + depth)
            capdrop.drop(security)
        except Exception:
            pass
        sys.setrecursionlimit(limit)
        return system.read() == before
    try:
        assert in_child(child)
    except Ended as e:
        assert e.args[0] == 125


def test_after_half_dropped_no_handler_runs_that_could_take_its_place():
    need_root()

    def child():
        def handler(*_):
            raise TimeoutError
        signal.signal(signal.SIGALRM, handler)
        os.setresuid = lambda *args: os.kill(os.getpid(), signal.SIGALRM)
        try:
            capdrop.drop(capdrop.Security(**KEEPS), on_failure='raise')
        except BaseException as e:
            return type(e).__name__
    assert in_child(child) == 'HalfDropped'


def test_an_error_that_comes_of_a_descriptor_leaves_signals_and_collection_as_they_were():
    need_root()

    def child():
        security = capdrop.Security(user='1111', group='1111')
        capdrop.drop(security)
        install([(HERE.numbers['close'],)], RET_ERRNO | errno.EIO)
        with pytest.raises(capdrop.RefusedError):
            capdrop.drop(capdrop.Security(user='1111', group='1111', supplemental_groups=('1111',)))
        return gc.isenabled(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert in_child(child) == (True, set())
