"""The name service, which may hang, and leave a thread or a descriptor behind: one of the tests' own, in C."""
import gc
import os
import pwd
import shutil
import signal
import sys
import time

import pytest

from conftest import (
    HELD, MS_BIND, SYS_ADMIN, TESTS, c, ends, everything, in_child, need,
    need_accounts_of_debian, need_root, own_mounts, prctl, run, run_command, watch)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
NAME = 'libnss_capdroptest.so.2'


@pytest.fixture(scope='module')
def library(tmp_path_factory):
    """The service, compiled.  glibc looks for it by its name, and finds what is loaded already."""
    compiler = shutil.which('cc') or shutil.which('gcc')
    need(compiler, 'needs a C compiler')
    path = str(tmp_path_factory.mktemp('nss') / NAME)
    done = run_command([compiler, '-shared', '-fPIC', '-w', '-Wl,-soname,' + NAME, '-o', path,
                        os.path.join(TESTS, 'nss.c'), '-lpthread'])
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def service(library, tmp_path):
    """A function after which names are asked of that service, which then does what is said."""
    need_root()
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')
    need(os.path.exists('/etc/nsswitch.conf'), 'needs a C library with nsswitch.conf')
    switch = tmp_path / 'nsswitch.conf'
    switch.write_text('passwd: files capdroptest\ngroup: files capdroptest\ninitgroups: files capdroptest\n')
    switch.chmod(0o644)

    def prepare(when='', does=''):
        own_mounts()
        c('mount', os.fsencode(str(switch)), b'/etc/nsswitch.conf', None, MS_BIND, None)
        __import__('ctypes').CDLL(library)
        import pwd
        try:
            assert pwd.getpwnam('serviced').pw_uid == 4301
        except KeyError:
            return False
        # what the C library has not loaded yet is no business of the drop
        pwd.getpwall(), os.getgrouplist('serviced', 4301)
        for name, value in ('NSS_WHEN', when), ('NSS_DOES', does):
            c('setenv', name.encode(), value.encode(), 1)
        return True

    need(in_child(prepare), 'needs a C library that asks the service')
    return prepare


def refusal(service, when, does, security, verb='drop'):
    """The message of a refusal, once it is sure that nothing but the service changed anything."""
    def child():
        status = watch()
        assert service(when, does)
        before = status(), [prctl(n) for n in (3, 7, 27)]
        command = () if verb == 'drop' else (['/bin/echo', 'it ran'],)
        try:
            getattr(capdrop, verb)(security() if callable(security) else security, *command)
        except capdrop.Error as e:
            assert (status(), [prctl(n) for n in (3, 7, 27)]) == before
            assert gc.isenabled() and not signal.pthread_sigmask(signal.SIG_BLOCK, ())
            return str(e)
        raise AssertionError('not refused')
    return in_child(child)


def test_an_account_of_the_service_is_as_good_as_any(service):
    def child():
        assert service()
        status = watch()
        capdrop.drop(capdrop.Security(user='serviced'))
        return status()
    assert in_child(child) == ends(4301, 4301)


@pytest.fixture
def written_by_its_group(tmp_path):
    """A configuration for which all accounts have to be gone through: has the user a group of his own?"""
    path = tmp_path / 'its.conf'
    path.write_text('Security { user = serviced }')
    os.chown(str(path), 0, 4301)
    path.chmod(0o664)
    tmp_path.chmod(0o755)
    return str(path)


ASKED = ['getpwnam', 'initgroups', 'getpwent']


@pytest.mark.parametrize('when', ASKED)
@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_a_thread_that_a_name_service_leaves_is_refused(when, verb, service, written_by_its_group):
    message = refusal(service, when, 'thread', lambda: capdrop.load(written_by_its_group), verb)
    assert 'more than one thread' in message


@pytest.mark.parametrize('when', ASKED)
@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_a_directory_that_a_name_service_leaves_open_is_no_way_out_of_the_jail(when, verb, service, written_by_its_group, jail):
    security = lambda: capdrop.load(written_by_its_group)

    def with_jail():
        with open(written_by_its_group, 'w') as file:
            file.write('Security { user = serviced chroot = "%s" }' % jail)
        return security()
    message = refusal(service, when, 'directory', with_jail, verb)
    assert 'directory' in message and '/usr' in message and 'close it' in message


@pytest.mark.parametrize('when', ASKED)
@pytest.mark.parametrize('how', ['SIGINT', 'SIGALRM'])
def test_a_name_service_that_hangs_can_be_interrupted(when, how, service, written_by_its_group):
    """Signals are not blocked yet, and what the handler raises comes through."""
    class Enough(Exception):
        pass

    def enough(*_):
        raise Enough

    def child():
        status = watch()
        assert service(when, 'hang')
        before = everything(status)
        if how == 'SIGALRM':
            signal.signal(signal.SIGALRM, enough)
            signal.setitimer(signal.ITIMER_REAL, 0.3)
        else:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            parent = os.getpid()
            if os.fork() == 0:
                time.sleep(0.3)
                os.kill(parent, signal.SIGINT)
                os._exit(0)
        start = time.monotonic()
        try:
            capdrop.drop(capdrop.load(written_by_its_group))
        except (Enough, KeyboardInterrupt) as e:
            assert everything(status) == before
            return type(e).__name__, time.monotonic() - start < 10
        except capdrop.ConfigError:
            # what a handler raises is lost in the repr() of a name that pwd did not find
            assert sys.version_info < (3, 11) and everything(status) == before
            return wanted, time.monotonic() - start < 10
        return 'it was not interrupted', time.monotonic() - start
    wanted = 'Enough' if how == 'SIGALRM' else 'KeyboardInterrupt'
    assert in_child(child) == (wanted, True)


def test_ctrl_c_ends_a_launch_whose_name_service_hangs(service, library):
    def child():
        assert service()
        os.environ.update(NSS_WHEN='getpwnam', NSS_DOES='hang', LD_LIBRARY_PATH=os.path.dirname(library))
        start = time.monotonic()
        done = run_command(['timeout', '-s', 'INT', '1', sys.executable, '-I', capdrop.__file__, 'exec', '-q', '--user',
                            'serviced', '--', '/bin/echo', 'it ran'])
        return done.stdout, 'Traceback' in done.stderr, 0.9 < time.monotonic() - start < 10
    assert in_child(child) == ('', False, True)


@pytest.mark.parametrize('user', ['nogroup-at-all', 'noone-at-all'])
def test_an_id_that_means_none_is_an_error_also_where_the_name_service_says_it(user, service):
    """-1 is "leave it as it is" to setresuid(2)."""
    for verb in 'drop', 'launch':
        message = refusal(service, '', '', capdrop.Security(user=user), verb)
        assert 'not an id' in message


# ---------------------------------------------------------------------------- asked once, and before all else

def test_a_second_drop_in_a_jail_without_accounts_needs_none(jail):
    """It is what was dropped to, however its names were written."""
    need_root()
    need_accounts_of_debian()

    def child():
        security = capdrop.Security(user='www-data', group='www-data', supplemental_groups=('mail',), chroot=str(jail),
                                    capabilities='cap_net_bind_service+ep')
        first = capdrop.drop(security)
        assert not os.path.exists('/etc/passwd')
        assert capdrop.drop(security) == first
        again = capdrop.Security(user='www-data', group='www-data', supplemental_groups=('mail',), chroot=str(jail),
                                 capabilities='cap_net_bind_service+ep')
        return capdrop.drop(again) == first == capdrop.state()
    assert in_child(child)


def test_another_drop_in_a_jail_without_accounts_says_to_restart(jail):
    need_root()
    need_accounts_of_debian()

    def child():
        capdrop.drop(capdrop.Security(user='www-data', group='www-data', chroot=str(jail)))
        try:
            capdrop.drop(capdrop.Security(user='daemon', group='daemon', chroot=str(jail)))
        except capdrop.Error as e:
            return str(e)
    assert 'restart the process' in in_child(child)


def test_no_name_is_looked_up_once_the_process_is_looked_at():
    need_root()
    need_accounts_of_debian()

    def child():
        import grp
        import pwd
        asked = []

        def spy(module, name):
            real = getattr(module, name)

            def ask(*args):
                asked.append((name, bool(signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
                return real(*args)
            setattr(module, name, ask)
        for name in 'getpwnam', 'getpwuid', 'getpwall':
            spy(pwd, name)
        for name in 'getgrnam', 'getgrgid', 'getgrall':
            spy(grp, name)
        spy(os, 'getgrouplist')
        capdrop.drop(capdrop.Security(user='www-data', supplemental_groups=('mail', '4')))
        return asked
    asked = in_child(child)
    assert asked and [one for one in asked if one[1]] == []


def test_check_tells_all_wrong_values_at_once(tmp_path):
    path = tmp_path / 'my.conf'
    path.write_text('Security {\n user = no-such-user\n group = no-such-group\n supplemental_groups = (\n  nor-this\n  nor-that )\n'
                    ' capabilities = "cap_no_such+ep"\n}\n')
    done = run('check', str(path))
    assert done.returncode == 1 and done.stderr == ''
    for line, words in (('2', 'no-such-user'), ('3', 'no-such-group'), ('', 'nor-this'), ('', 'nor-that'), ('7', 'cap_no_such')):
        found = [text for text in done.stdout.splitlines() if text.startswith('%s:%s' % (path, line)) and words in text]
        assert len(found) == 1, (words, done.stdout)


def test_without_getgrouplist_the_groups_of_an_account_are_found_as_well():
    """An older libc of Solaris has none, and no Python built there."""
    need_accounts_of_debian()
    program = ('import os, sys; del os.getgrouplist; import posix; del posix.getgrouplist; sys.path.insert(0, %r); import capdrop; '
               'print(capdrop.plan(capdrop.Security(user="www-data")).warnings)' % os.path.dirname(capdrop.__file__))
    done = run_command([sys.executable, '-I', '-c', program])
    assert (done.returncode, done.stderr) == (0, '')


def test_a_primary_group_without_an_entry_is_nobodys_own():
    names = capdrop.Names(capdrop.Security(), capdrop.this_platform(), capdrop.raise_error)
    entry = pwd.struct_passwd(('someone', 'x', 4200000001, 4200000001, '', '/', '/bin/sh'))
    assert names.has_own_group(entry) is False
