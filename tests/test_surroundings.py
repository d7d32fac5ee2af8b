"""A drop among threads, signals, limits, closed or full descriptors, and on systems that lack something."""
import collections
import ctypes
import errno
import gc
import itertools
import mmap
import os
import posix
import resource
import signal
import sys
import threading
import time

import pytest

from conftest import (
    AS_1111, BIND, Ended, dropped, ends, everything, fields, in_child, launched, need,
    need_accounts_of_debian, need_root, no_proc, refused, run_command, watch)
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

ASKED_BEFOREHAND = {'setresuid', 'setresgid', 'setgroups', 'capset', 'chroot', 'SET_KEEPCAPS', 'CAPBSET_DROP',
                    'SET_NO_NEW_PRIVS', 'CAP_AMBIENT RAISE', 'CAP_AMBIENT LOWER', 'SET_SECUREBITS',
                    'fchdir', 'chdir', 'SET_DUMPABLE'}


@pytest.mark.parametrize('mode', MODES, ids=mode_name)
def test_nothing_is_opened_from_the_first_change_to_the_last_look(mode, possible, jail):
    calls = [key_name(key) for key in traced(mode, jail)]
    last = len(calls) - calls[::-1].index('GET_NO_NEW_PRIVS')
    opening = {'openat', 'open', 'read', 'execve', 'getdents64', 'getdents', 'readlink', 'readlinkat', 'socket',
               'waitid'}                    # the last look at what surrounds this process: children
    start = max(n for n in range(last) if calls[n] in opening)
    # of what changes something, only a call that asks whether it is allowed, and changes nothing, comes before that
    before = collections.Counter(name for name in calls[:start] if name in CHANGES)
    # capset: what is needed for that is made effective, and no longer is
    capset = before.pop('capset', 0)
    assert set(before) <= ASKED_BEFOREHAND and set(before.values()) <= {1} and capset in (0, 1, 3)
    before['capset'] = capset
    steps = [n for name in CHANGES for n in [n for n in range(last) if calls[n] == name][before[name]:]]
    first = min(steps)
    assert first > start and len(set(calls[n] for n in steps)) >= 6
    kinds = {'stat', 'fstat', 'newfstatat', 'statx', 'rt_sigprocmask', 'unshare'} | CHANGES | MEMORY
    assert {name for name in calls[first:last] if name not in kinds and not name.startswith(
        ('get', 'GET', 'set', 'capget', 'CAPBSET', 'CAP_AMBIENT'))} <= {'getpid'}


@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_nothing_is_imported_from_the_first_change_on(verb, jail):
    need_root()

    def child():
        platform, done = capdrop.this_platform(), []
        real, importing = platform.prctl, __builtins__['__import__']

        def spy(*args):
            if args[:2] == (8, 1):              # PR_SET_KEEPCAPS, the first step
                done.append('PR')
            return real(*args)

        def record(name, *args, **keywords):
            done.append(name)
            return importing(name, *args, **keywords)

        def end(*_):
            late = done[done.index('PR'):]
            os.write(2, b'nothing' if set(late) == {'PR'} else str(late).encode())
            os._exit(42)
        platform.prctl, __builtins__['__import__'], posix.execve = spy, record, end
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
        posix.setresuid = lambda *args: None
        capdrop.drop(capdrop.Security(**KEEPS))
    start = time.monotonic()
    with pytest.raises(Ended) as e:
        in_child(child)
    return e.value.args[0], e.value.args[1], time.monotonic() - start


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


LACKING = {
    'no_new_privs': (lacking((38,), (39,)), AS_1111, ['no_new_privs']),
    'the bounding set': (lacking((23,), (24,)), AS_1111, []),
    'securebits': (lacking((27,), (28,)), AS_1111, ['securebits']),
    'keepcaps': (lacking((7,), (8,)), AS_1111, ['keepcaps']),
    'capget': (lacking('capget', error=errno.ENOSYS), AS_1111, [os.strerror(errno.ENOSYS)]),
    'prctl, forbidden': (lacking('prctl', error=errno.EPERM), AS_1111, [os.strerror(errno.EPERM)]),
    'getresuid, forbidden': (lacking('getresuid', error=errno.EPERM), AS_1111, [os.strerror(errno.EPERM)]),
    'setfsuid and /proc': (lambda: (no_proc(), lacking('setfsuid', error=errno.ENOSYS)()), AS_1111, ['setfsuid']),
    'setfsgid, forbidden, and /proc': (lambda: (no_proc(), lacking('setfsgid', error=errno.EPERM)()), AS_1111, ['setfsgid']),
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


def without_libcap():
    import ctypes
    real = ctypes.CDLL

    def load(name, *args, **options):
        if name and 'cap' in name:
            raise OSError('%s: cannot open shared object file' % name)
        return real(name, *args, **options)
    ctypes.CDLL = load
    capdrop.platforms_in_use.clear()


def test_without_libcap_a_drop_and_a_command_end_as_they_should():
    need_root()
    assert dropped(without_libcap, capdrop.Security(**KEEPS)) == ends(1111, 4321, caps=BIND)
    out, status, errors = launched(without_libcap, capdrop.Security(**KEEPS), ['/bin/cat'])
    assert (status, errors) == (0, '') and fields(out) == ends(1111, 4321, caps=BIND, CapInh=BIND, CapAmb=BIND)


@pytest.mark.parametrize('kind', ['setfsuid', 'setfsgid'])
@pytest.mark.parametrize('error', [errno.EPERM, errno.ENOSYS], ids=os.strerror)
def test_an_id_of_the_filesystem_that_cannot_be_asked_for_stands_in_proc(kind, error):
    """-1 is what a filter answers, and no id."""
    need_root()
    assert dropped(lacking(kind, error=error), capdrop.Security(**KEEPS)) == ends(1111, 4321, caps=BIND)


# what some Python or other lacks: os of PyPy, of macOS and Solaris, of an old C library
MISSING = ('O_PATH waitid getgrouplist getxattr O_NOFOLLOW O_DIRECTORY O_CLOEXEC WNOWAIT P_ALL pread sched_yield '
           'posix_spawn memfd_create').split()


@pytest.mark.parametrize('name', MISSING)
def test_what_another_python_lacks_is_not_needed(name):
    need_root()
    need_accounts_of_debian()
    program = '''
import os, posix, sys
for module in os, posix:
    if hasattr(module, {0!r}):
        delattr(module, {0!r})
sys.path.insert(0, {1!r})
import capdrop
security = capdrop.Security(user='www-data', group='4321', chroot='/', capabilities='cap_net_bind_service+ep')
plan = capdrop.plan(security)
capdrop.drop(plan)
sys.stdout.write(open('/proc/self/status').read())
'''.format(name, os.path.dirname(capdrop.__file__))
    done = run_command([sys.executable, '-I', '-c', program])
    assert (done.returncode, done.stderr) == (0, '')
    assert fields(done.stdout) == ends(33, 4321, caps=BIND)


def test_a_launch_from_a_subinterpreter_is_one_line_or_a_command():
    """Signals belong to the main interpreter."""
    need_root()
    testcapi = pytest.importorskip('_testcapi')
    code = '''
import os, sys
sys.path.insert(0, %r)
try:
    import capdrop
    capdrop.launch(capdrop.Security(user='1111', group='4321'), ['/bin/echo', 'it ran'])
except BaseException as e:
    os.write(1, ('%%s: %%s' %% (type(e).__name__, e)).encode())
''' % os.path.dirname(capdrop.__file__)
    read, write = os.pipe()

    def child():
        os.dup2(write, 1)
        testcapi.run_in_subinterp(code)
        os._exit(0)
    with pytest.raises(Ended):
        in_child(child)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    assert text == 'it ran\n' or text.startswith(('RefusedError: ', 'ImportError: ')), text


def test_without_ambient_capabilities_only_a_command_that_is_to_keep_some_is_refused():
    need_root()

    def lacks_ambient():
        capdrop.platforms_in_use.clear()       # what an earlier test in this process found
        lacking((47,))()

    def before_4_3():
        no_proc()                       # where status has no CapAmb either
        lacks_ambient()
    assert 'ambient' in refused(lacks_ambient, capdrop.Security(**KEEPS)).lower()     # a filter, then
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


@pytest.mark.parametrize('depth', range(1, 45, 2))
def test_a_failure_that_there_is_no_stack_to_tell_ends_the_process(depth):
    """What is told of the step needs more of the stack than all that was done before."""
    need_root()

    def child():
        security, system = capdrop.Security(**KEEPS), capdrop.this_platform()
        capdrop.plan(security)
        before, limit = system.read(None), sys.getrecursionlimit()
        if system.libcap is None:
            system.capset = never_again
        else:
            system.libcap.apply = never_again
        frame, used = sys._getframe(), 0
        while frame:
            frame, used = frame.f_back, used + 1
        try:
            sys.setrecursionlimit(used + depth)
            capdrop.drop(security)
        except Exception:
            pass
        sys.setrecursionlimit(limit)
        return system.read(None) == before
    try:
        assert in_child(child)
    except Ended as e:
        assert e.args[0] == 125


def test_after_half_dropped_no_handler_runs_that_could_take_its_place():
    need_root()

    def child():
        def handler(*_):
            os.write(2, b'the handler ran')
            raise TimeoutError
        signal.signal(signal.SIGALRM, handler)
        posix.setresuid = lambda *args: os.kill(os.getpid(), signal.SIGALRM)
        try:
            capdrop.drop(capdrop.Security(**KEEPS))
        except BaseException as e:
            return type(e).__name__
    with pytest.raises(Ended) as e:
        in_child(child)
    assert e.value.args[0] == 125 and 'the handler ran' not in e.value.args[1]


class Due(Exception):
    pass


class DueError(OSError):
    pass


@pytest.mark.parametrize('error', [Due, DueError, KeyboardInterrupt])
@pytest.mark.parametrize('time_', [1, 2, 3])
@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_a_handler_that_is_due_and_raises_leaves_all_as_it_was(verb, time_, error):
    """It runs in the call that blocks signals, or that asks which are: signal(3P) by way of pthread_sigmask."""
    need_root()

    def child():
        status = watch()
        security = capdrop.Security(**KEEPS)
        before = everything(status)
        module, calls = capdrop.signal, []
        real = module.pthread_sigmask

        def due(how, mask):
            result = real(how, mask)
            calls.append(mask)
            if len(calls) == time_:
                raise error('of the handler')
            return result
        module.pthread_sigmask = due
        try:
            if verb == 'drop':
                capdrop.drop(security)
            else:
                capdrop.launch(security, ['/bin/echo', 'it ran'])
        except BaseException as e:
            module.pthread_sigmask = real
            assert everything(status) == before
            return type(e).__name__
    assert in_child(child) == error.__name__


def test_a_handler_that_is_due_after_the_drop_raises_with_the_drop_done():
    need_root()

    def child():
        status = watch()
        security = capdrop.Security(**KEEPS)

        def handler(*_):
            raise Due
        signal.signal(signal.SIGALRM, handler)
        real = posix.setresuid
        posix.setresuid = lambda *args: (real(*args), os.kill(os.getpid(), signal.SIGALRM))
        try:
            capdrop.drop(security)
            return 'nothing was raised'
        except Due:
            pass
        posix.setresuid = real
        assert gc.isenabled() and not signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert capdrop.drop(security) == capdrop.state()        # it is remembered
        return status()
    assert in_child(child) == ends(1111, 4321, caps=BIND)


# ---------------------------------------------------------------------------- no memory, from any allocation on

def allocations(verb, security, testcapi):
    """How many there are, about, of a drop that goes well: found by letting them fail ever later."""
    low, high = 1, 200000
    while high - low > 50:
        middle = (low + high) // 2
        if without_memory(verb, security, testcapi, middle, 0)[0] == 'done':
            high = middle
        else:
            low = middle
    return high


def without_memory(verb, security, testcapi, start, stop):
    """(how a child ended, what was seen of it before and then)."""
    page = mmap.mmap(-1, 4096)
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(1, 2)
            capdrop.plan(security)              # libraries are loaded, names were asked for
            kill, argv, me, stop_signal = os.kill, ['/bin/sleep', '60'], os.getpid(), signal.SIGSTOP
            kill(me, stop_signal)
            testcapi.set_nomemory(start, stop)
            try:
                if verb == 'drop':
                    capdrop.drop(security)
                else:
                    capdrop.launch(security, argv)
                page[0] = 1
            except MemoryError:
                page[0] = 2
            except capdrop.Error:
                page[0] = 3
            except BaseException:
                page[0] = 4
            testcapi.remove_mem_hooks()
            kill(me, stop_signal)
        finally:
            os._exit(99)
    try:
        os.close(tell)
        os.waitpid(pid, os.WUNTRACED)
        before = status_of(pid)
        os.kill(pid, signal.SIGCONT)
        end = time.monotonic() + 20
        while True:
            number, status = os.waitpid(pid, os.WUNTRACED | os.WNOHANG)
            if number and os.WIFSTOPPED(status):
                kind = {1: 'done', 2: 'no memory', 3: 'refused', 4: 'another exception'}.get(page[0], 'stopped')
                return kind, before, status_of(pid)
            if number:
                pid = None
                return (status >> 8 if os.WIFEXITED(status) else -(status & 127)), before, None
            if verb == 'launch' and program_of(pid).endswith('sleep'):
                return 'done', before, status_of(pid)
            if time.monotonic() > end or seconds_of(pid) > 0.5:
                return 'hung', before, status_of(pid)
            time.sleep(0.001)
    finally:
        os.close(told)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def program_of(pid):
    try:
        return os.readlink('/proc/%d/exe' % pid)
    except OSError:
        return ''                       # it has just ended


def seconds_of(pid):
    """What it has used of a processor."""
    with open('/proc/%d/stat' % pid) as file:
        user, system = file.read().rpartition(') ')[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def status_of(pid):
    with open('/proc/%d/status' % pid) as file:
        return fields(file.read())


@pytest.mark.parametrize('verb', ['drop', 'launch'])
@pytest.mark.parametrize('count', [0, 1], ids=['from there on', 'once'])
def test_without_memory_for_any_one_thing_a_drop_ends_in_one_of_three_ways(verb, count):
    need_root()
    testcapi = pytest.importorskip('_testcapi')
    need(hasattr(testcapi, 'set_nomemory'), 'needs a Python whose memory can be made to fail')
    security = capdrop.Security(supplemental_groups=('8',), **KEEPS)
    ambient = BIND if verb == 'launch' else 0
    wanted = ends(1111, 4321, '8', BIND, CapInh=ambient, CapAmb=ambient)
    total = allocations(verb, security, testcapi)
    numbers = range(1, total + 50, max(1, total // (150 if count else 50)))
    kinds = collections.Counter()
    results = test_faults.workers(lambda n: without_memory(verb, security, testcapi, n, n + 1 if count else 0), [(n,) for n in numbers])
    for number, (kind, before, after) in zip(numbers, results):
        kinds[kind] += 1
        if kind == 'done':
            assert after == wanted, (number, after)
        elif kind == 'hung':
            # Python 3.11 and later does, where it has no memory for the place that an exception comes from
            assert not count and after in (before, wanted), (number, after)
        elif kind in ('no memory', 'refused', 'another exception'):
            # an older Python has no memory then to call _exit
            assert after == before or (after == wanted and sys.version_info < (3, 11)), (number, kind, after)
        else:
            # 126: the command cannot be executed; and the interpreter itself may give up
            assert kind in (125, -6, -11) + (126,) * (verb == 'launch'), (number, kind)
    print(verb, count, total, dict(kinds))
    assert kinds['no memory'] + kinds['refused'] and kinds[125] + kinds[-6]


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
