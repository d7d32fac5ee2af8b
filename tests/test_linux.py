"""The drop on Linux: real kernel, real libcap, each drop in a forked child, judged by /proc/self/status."""
import errno
import gc
import os
import posix
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from conftest import (
    AS_1111, BIND, CHOWN, CLONE_NEWNET, HELD, MS_BIND, MS_RDONLY, MS_REMOUNT, NET_ADMIN,
    PASSWD, RAW, SCRIPT, SETGID, SETPCAP, SETUID, STARTED, SYS_ADMIN, SYS_CHROOT,
    SYS_RESOURCE, Ended, c, capset, configuration, container, dropped, ends, everything,
    fields, groups_denied, in_child, io_uring, launched, need, need_root,
    need_user_namespaces, no_proc, open_directory, prctl, refused, run_command, saved_zero,
    saved_zero_and_nothing_else, securebits, set_groups, systemd, two_threads, unshare_blocked,
    user_namespace, watch, without)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

# ---------------------------------------------------------------------------- stanzas and what they end in

CLUSTER = [name for name, bit in (('net_admin', NET_ADMIN), ('net_bind_service', BIND), ('net_raw', RAW),
                                  ('sys_resource', SYS_RESOURCE)) if HELD & bit]
ALL, BOUND = HELD, STARTED['CapBnd'] if STARTED else 0

STANZAS = {
    'the documented one': (
        'user = ecuser group = ecuser # comment\n Capabilities = "cap_net_bind_service+ep"', ends(2525, 2525, caps=BIND)),
    'the cluster one, as far as this root goes': (
        'user = ecuser\n group = ecuser\n capabilities = "%s"' % ' '.join('cap_%s+ep' % name for name in CLUSTER),
        ends(2525, 2525, caps=HELD & (NET_ADMIN | BIND | RAW | SYS_RESOURCE))),
    'the one for two systems': (
        'user = ecuser\n group = ecuser\n capabilities = "cap_net_bind_service+ep"\n privileges = "basic net_privaddr"',
        ends(2525, 2525, caps=BIND)),
    'supplementary groups': ('user = ecuser Supplemental_Groups = ( "mail" "adm" )', ends(2525, 2525, '4 8')),
    'supplementary groups, commas and numbers': (
        'user = ecuser supplemental_groups = ( "8", "4", 8 99 )', ends(2525, 2525, '4 8 99')),
    'one supplementary group': ('user = ecuser supplemental_groups = mail', ends(2525, 2525, '8')),
    'no supplementary group': ('user = ecuser supplemental_groups = ()', ends(2525, 2525)),
    'supplementary groups absent': ('user = ecuser', ends(2525, 2525)),
    'the primary group also supplementary': (
        'user = ecuser supplemental_groups = ( mail ecuser )', ends(2525, 2525, '8 2525')),
    'nothing at all': ('', ends(2525, 2525)),
    'numbers': ('user = 1111 group = 4321 capabilities = "cap_net_raw+ep"', ends(1111, 4321, caps=RAW)),
    'the number of an account': ('user = 2525', ends(2525, 2525)),
    'the largest number': ('user = 4294967294 group = 4294967294', ends(4294967294, 4294967294)),
    'an account whose name is a number': ('user = 1234', ends(4242, 4242)),
    'another group': ('user = ecuser group = mail', ends(2525, 8)),
    'group 0': ('user = ecuser group = root', ends(2525, 0)),
    'no capability': ('user = ecuser capabilities = ""', ends(2525, 2525)),
    'inheritable': ('user = ecuser capabilities = "cap_net_raw+eip"', ends(2525, 2525, caps=RAW, CapInh=RAW)),
    'inheritable only': ('user = ecuser capabilities = "cap_net_raw+i"', ends(2525, 2525, CapInh=RAW, CapBnd=RAW)),
    'one inheritable, one effective': (
        'user = ecuser capabilities = "cap_net_raw+i cap_net_bind_service+ep"',
        ends(2525, 2525, caps=BIND, CapInh=RAW, CapBnd=RAW | BIND)),
    'in upper case': ('USER = ecuser CAPABILITIES = "CAP_NET_RAW+ep"', ends(2525, 2525, caps=RAW)),
    'the right to change user itself': ('user = ecuser capabilities = "cap_setuid+ep"', ends(2525, 2525, caps=SETUID)),
    'root': ('user = root', ends(0, 0, caps=ALL, CapBnd=BOUND, NoNewPrivs='0')),
    'root with groups': (
        'user = root group = mail supplemental_groups = adm', ends(0, 8, '4', ALL, CapBnd=BOUND, NoNewPrivs='0')),
    'root with capabilities': ('user = root capabilities = "cap_net_bind_service+ep"', ends(0, 0, caps=BIND)),
    'root with the empty set': ('user = root capabilities = ""', ends(0, 0)),
    'root by another name': ('user = toor capabilities = "cap_net_bind_service+ep"', ends(0, 0, caps=BIND)),
    'chroot': ('user = ecuser chroot = "%(jail)s" capabilities = "cap_net_raw+ep"', ends(2525, 2525, caps=RAW)),
    'chroot as root': ('user = root chroot = "%(jail)s" capabilities = ""', ends(0, 0)),
}


@pytest.mark.parametrize('stanza', STANZAS)
def test_a_process_that_drops_ends_with_exactly_what_its_stanza_names(stanza, accounts, jail):
    text, expected = STANZAS[stanza]
    assert dropped(accounts, lambda: capdrop.loads('Security { %s }' % text % {'jail': jail})) == expected


@pytest.mark.parametrize('stanza', STANZAS)
def test_a_command_starts_with_exactly_what_the_stanza_names(stanza, accounts, jail):
    text, expected = STANZAS[stanza]
    if expected['NoNewPrivs'] == '1':           # what is permitted has to pass through exec
        expected = dict(expected, CapInh=expected['CapInh'] | expected['CapPrm'], CapAmb=expected['CapPrm'])
    out, status, errors = launched(
        accounts, lambda: capdrop.loads('Security { %s }' % text % {'jail': jail}), ['/bin/cat'])
    assert (status, errors) == (0, '')
    assert fields(out) == expected


def test_permitted_without_effective_is_for_a_drop_only(accounts):
    security = capdrop.Security(user='2525', group='2525', capabilities='cap_net_raw+p')
    assert dropped(accounts, security) == ends(2525, 2525, caps=RAW, CapEff=0)
    assert 'cannot survive exec' in refused(accounts, security, 'launch')


def test_allowing_new_privileges_leaves_the_bounding_set_and_the_switch_alone(accounts):
    security = capdrop.Security(user='2525', group='2525', capabilities='cap_net_raw+ep')
    expected = ends(2525, 2525, caps=RAW, CapBnd=BOUND, NoNewPrivs='0')
    assert dropped(accounts, security, no_new_privs=False) == expected
    out = launched(accounts, security, ['/bin/cat'], no_new_privs=False)[0]
    assert fields(out) == dict(expected, CapInh=RAW, CapAmb=RAW)


def test_there_is_no_default_user_without_its_account(accounts):
    message = refused(lambda: accounts(passwd=PASSWD.replace('ecuser', 'other')), capdrop.Security())
    assert 'ecuser' in message and 'name one' in message


BIND_AS_33 = dict(user='www-data', group='www-data', capabilities='cap_net_bind_service+ep')

STARTS = {
    'systemd': (systemd, BIND_AS_33, ends(33, 33, '33', BIND, CapBnd=BOUND)),
    'systemd, numbers': (systemd, dict(BIND_AS_33, user='33', group='33'), ends(33, 33, '33', BIND, CapBnd=BOUND)),
    'systemd, no user named': (systemd, dict(capabilities='cap_net_bind_service+ep'), ends(33, 33, '33', BIND, CapBnd=BOUND)),
    'systemd, its groups named': (
        systemd, dict(BIND_AS_33, supplemental_groups=['www-data']), ends(33, 33, '33', BIND, CapBnd=BOUND)),
    'systemd, nothing kept': (systemd, dict(user='www-data'), ends(33, 33, '33', 0, CapBnd=BOUND)),
    'saved id 0': (saved_zero, BIND_AS_33, ends(33, 33, '', BIND)),
    'saved id 0 and no capability': (
        saved_zero_and_nothing_else, dict(user='www-data'), ends(33, 33, '', 0, CapBnd=BOUND)),
    'nothing effective': (lambda: capset(HELD, 0), BIND_AS_33, ends(33, 33, '', BIND)),
    'ambient and inheritable left over': (
        lambda: (capset(HELD, HELD, RAW), prctl(47, 2, 13)), BIND_AS_33, ends(33, 33, '', BIND)),
    'keepcaps left on': (lambda: prctl(8, 1), dict(user='www-data'), ends(33, 33)),
    'no_new_privs already on': (lambda: prctl(38, 1), dict(BIND_AS_33, no_new_privs=False), ends(33, 33, '', BIND, CapBnd=BOUND)),
    'supplementary groups left over': (lambda: os.setgroups([0, 4, 8]), dict(user='www-data'), ends(33, 33)),
    'without cap_setpcap': (without(SETPCAP), BIND_AS_33, ends(33, 33, '', BIND, CapBnd=BOUND & ~SETPCAP)),
    'no /proc': (no_proc, BIND_AS_33, ends(33, 33, '', BIND)),
    'unshare blocked': (unshare_blocked, BIND_AS_33, ends(33, 33, '', BIND)),
    'forty groups': (lambda: set_groups(range(100, 140)), BIND_AS_33, ends(33, 33, '', BIND)),
    'ambient capabilities that may not be raised and need not': (
        lambda: systemd(lock=0xc0), BIND_AS_33, ends(33, 33, '33', BIND, CapBnd=BOUND)),
    'no setuid fixup, and keepcaps locked': (securebits(0x2f), BIND_AS_33, ends(33, 33, '', BIND)),
    'keepcaps locked, and nothing but inheritable to keep': (
        securebits(0x20), dict(BIND_AS_33, capabilities='cap_net_bind_service=i'),
        ends(33, 33, '', 0, CapInh=BIND, CapBnd=BIND)),
    'keepcaps locked, and 0 the filesystem id only': (
        lambda: (securebits(0x20)(), systemd(SETUID | SETGID | BIND, keep=False), c('setfsuid', 0)),
        dict(AS_1111, capabilities='cap_net_bind_service+ep'), ends(1111, 4321, '', BIND, CapBnd=BOUND)),
    'cap_setpcap alone, for what is inheritable': (
        lambda: systemd(SETPCAP), dict(capabilities='cap_chown=i'), ends(33, 33, '33', 0, CapInh=CHOWN, CapBnd=CHOWN)),
    'not permitted, for what is inheritable': (
        lambda: capset(HELD & ~CHOWN, HELD & ~CHOWN), dict(BIND_AS_33, capabilities='cap_chown=i'),
        ends(33, 33, '', 0, CapInh=CHOWN, CapBnd=CHOWN)),
}


@pytest.mark.parametrize('start', STARTS)
def test_however_a_process_was_started_it_ends_with_exactly_what_was_asked_for(start, accounts):
    prepare, options, expected = STARTS[start]
    options = dict(options)
    switch = {'no_new_privs': options.pop('no_new_privs', True)}
    prepare_all = lambda: accounts(prepare)
    assert dropped(prepare_all, lambda: capdrop.Security(**options), **switch) == expected
    if expected['CapPrm']:
        expected = dict(expected, CapInh=BIND, CapAmb=BIND)
    out, status, errors = launched(prepare_all, lambda: capdrop.Security(**options), ['/bin/cat'], **switch)
    assert (status, errors) == (0, '')
    assert fields(out) == expected


def test_a_drop_to_what_is_held_already_succeeds_and_does_nothing():
    need_root()
    security = capdrop.Security(user='1111', group='4321', capabilities='cap_net_bind_service+ep')

    def child():
        first = capdrop.drop(security)
        plan = capdrop.plan(security)
        assert (plan.steps, plan.attempts, plan.refusals) == ((), (), ())
        return first == capdrop.drop(security) == capdrop.state()
    assert in_child(child)


@pytest.mark.parametrize('other', [
    dict(user='1112', group='4321'), dict(user='1111', group='4322'), dict(user='0', group='0'),
    dict(user='1111', group='4321', capabilities='cap_chown+ep'),
    dict(user='1111', group='4321', supplemental_groups=('8',)), dict(user='1111', group='4321', chroot='/usr')],
    ids=['user', 'group', 'root', 'capability', 'supplementary group', 'chroot'])
def test_a_second_drop_to_anything_else_is_refused(other):
    need_root()
    first = capdrop.Security(user='1111', group='4321', capabilities='cap_net_bind_service+ep')
    message = refused(lambda: capdrop.drop(first), capdrop.Security(**other))
    assert 'restart the process to change its Security stanza' in message


def test_a_second_drop_to_less_succeeds():
    need_root()
    first = capdrop.Security(user='1111', group='4321', capabilities='cap_net_bind_service+ep')
    assert dropped(lambda: capdrop.drop(first), capdrop.Security(user='1111', group='4321')) == ends(
        1111, 4321, CapBnd=BIND)


def test_a_second_drop_into_the_same_jail_succeeds(jail):
    need_root()
    security = capdrop.Security(chroot=str(jail), **AS_1111)
    assert in_child(lambda: capdrop.drop(security) == capdrop.drop(security))


def test_a_second_drop_that_forbids_new_privileges_forbids_them():
    need_root()
    security = capdrop.Security(**AS_1111)
    assert dropped(lambda: capdrop.drop(security, no_new_privs=False), security) == ends(1111, 4321, CapBnd=BOUND)


def test_a_second_drop_clears_what_was_for_a_command():
    need_root()
    security = capdrop.Security(capabilities='cap_net_raw+ep', **AS_1111)

    def as_a_command_starts():
        capdrop.drop(security)
        capset(RAW, RAW, RAW)
        prctl(47, 2, 13)
    assert dropped(as_a_command_starts, security) == ends(1111, 4321, caps=RAW)


MEANWHILE = {      # what changes between plan and drop; what the refusal says of it
    'groups': (lambda: os.setgroups([8]), 'groups'),
    'user': (lambda: os.setresuid(5, 0, 0), 'uid'),
    'group': (lambda: os.setresgid(0, 0, 5), 'gid'),
    'a capability': (lambda: capset(HELD & ~RAW, HELD & ~RAW), 'permitted'),
    'effective': (lambda: capset(HELD, 0), 'effective'),
    'inheritable': (lambda: capset(HELD, HELD, RAW), 'inheritable'),
    'ambient': (lambda: (capset(HELD, HELD, RAW), prctl(47, 2, 13)), 'ambient'),
    'bounding': (lambda: prctl(24, 13), 'bounding'),
    'securebits': (securebits(0x10), 'securebits'),
    'keepcaps': (lambda: prctl(8, 1), 'keepcaps'),
    'no_new_privs': (lambda: prctl(38, 1), 'no_new_privs'),
    'root': (lambda: (os.chroot('/usr'), os.chdir('/')), 'root'),
    'a thread': (two_threads, 'thread'),
}


@pytest.mark.parametrize('what', MEANWHILE)
@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_a_plan_says_what_has_changed_since(what, verb):
    need_root()
    change, word = MEANWHILE[what]
    plans = []

    def prepare():
        plans.append(capdrop.plan(capdrop.Security(user='1111', group='4321'), exec=verb == 'launch'))
        change()
    assert word in refused(prepare, lambda: plans[0], verb)


def test_a_plan_says_that_the_jail_has_been_replaced(tmp_path):
    need_root()
    (tmp_path / 'jail').mkdir()
    for directory in tmp_path, tmp_path / 'jail':
        directory.chmod(0o755)
    plans = []

    def prepare():
        plans.append(capdrop.plan(capdrop.Security(chroot=str(tmp_path / 'jail'), **AS_1111)))
        (tmp_path / 'jail').rename(tmp_path / 'old')
        (tmp_path / 'jail').mkdir(mode=0o755)
    message = refused(prepare, lambda: plans[0])
    assert 'not as planned' in message and 'device and inode' in message


def test_a_plan_names_are_not_asked_for_again(accounts):
    """What was planned is what is done, or refused; never somebody else."""
    def child():
        accounts()
        plan = capdrop.plan(capdrop.Security(user='ecuser'))
        with open('/etc/passwd', 'w') as file:
            file.write(PASSWD.replace('2525', '2626'))
        return capdrop.drop(plan).uid
    try:
        assert in_child(child) == (2525,) * 4
    except capdrop.RefusedError:
        pass


def test_a_plan_cannot_be_changed_and_holds_nothing_open():
    need_root()

    def child():
        before = os.listdir('/proc/self/fd')
        plan = capdrop.plan(capdrop.Security(chroot='/usr', **AS_1111))
        assert os.listdir('/proc/self/fd') == before
        return [all(isinstance(text, str) for text in texts)
                for texts in (plan.steps, plan.attempts, plan.refusals, plan.warnings)], type(plan.steps)
    assert in_child(child) == ([True] * 4, tuple)


WRONG_USE = {       # what a caller does wrong -> words of the answer
    'a plan for exec, dropped': (lambda s: capdrop.drop(capdrop.plan(s, exec=True)), ['exec']),
    'a plan for drop, launched': (lambda s: capdrop.launch(capdrop.plan(s), ['/bin/true']), ['exec']),
    'a plan, dropped with an argument': (lambda s: capdrop.drop(capdrop.plan(s), no_new_privs=False), ['no_new_privs']),
    'a plan, dropped with the same argument': (lambda s: capdrop.drop(capdrop.plan(s), no_new_privs=True), ['no_new_privs']),
    'a plan, launched with an argument': (
        lambda s: capdrop.launch(capdrop.plan(s, exec=True), ['/bin/true'], no_new_privs=False), ['no_new_privs']),
    'on_failure': (lambda s: capdrop.drop(s, on_failure='raise'), ['on_failure']),
    'a path, dropped': (lambda s: capdrop.drop('/etc/web.conf'), ['load', 'Security']),
    'a path, launched': (lambda s: capdrop.launch('/etc/web.conf', ['/bin/true']), ['load', 'Security']),
    'a path, planned': (lambda s: capdrop.plan('/etc/web.conf'), ['load', 'Security']),
    'a path, audited': (lambda s: capdrop.audit('/etc/web.conf', os.getpid()), ['load', 'Security']),
    'a dictionary, dropped': (lambda s: capdrop.drop({'user': '1111'}), ['Security']),
    'nothing, dropped': (lambda s: capdrop.drop(None), ['Security']),
}


@pytest.mark.parametrize('what', WRONG_USE)
def test_wrong_use_is_said_and_changes_nothing(what):
    need_root()
    use, words = WRONG_USE[what]

    def child():
        status = watch()
        before = everything(status)
        try:
            use(capdrop.Security(**AS_1111))
        except (TypeError, ValueError, capdrop.Error) as e:
            assert everything(status) == before
            return str(e)
        return 'nothing was said'
    message = in_child(child)
    for word in words:
        assert word in message, message


def test_a_plan_is_dropped_only_while_the_process_is_as_it_found_it():
    need_root()

    def child(meanwhile):
        plan = capdrop.plan(capdrop.Security(user='1111', group='4321'))
        meanwhile()
        return capdrop.drop(plan).uid
    assert in_child(child, lambda: None) == (1111,) * 4
    with pytest.raises(capdrop.RefusedError) as e:
        in_child(child, lambda: os.setgroups([8]))
    assert 'groups' in str(e.value)


# ---------------------------------------------------------------------------- after the drop

def test_a_daemon_binds_port_25_again_and_can_do_nothing_else_of_root(accounts):
    need(os.path.exists('/etc/shadow'), 'needs /etc/shadow')

    def child():
        accounts(lambda: c('unshare', CLONE_NEWNET))
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(('', 25))
        listener.listen(1)
        capdrop.drop(capdrop.loads('Security { user = ecuser capabilities = "cap_net_bind_service+ep" }'))
        listener.close()
        again = socket.socket()
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(('', 25))
        again.listen(1)
        for forbidden in [
                lambda: open('/etc/shadow'), lambda: os.setuid(0), lambda: os.setresuid(-1, 0, -1), lambda: os.setgid(0),
                lambda: os.setgroups([]), lambda: os.setresuid(33, 33, 33), lambda: os.chroot('/'), lambda: os.kill(1, 0),
                lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
                lambda: capset(HELD, HELD), lambda: capset(BIND | RAW, BIND), lambda: capset(BIND, BIND, RAW),
                lambda: prctl(47, 2, 10), lambda: prctl(24, 10), lambda: prctl(28, 0x10), lambda: prctl(38, 0),
                lambda: c('mount', b'none', b'/', b'tmpfs', 0, None)]:
            with pytest.raises(OSError) as e:
                forbidden()
            assert e.value.errno in (errno.EPERM, errno.EACCES, errno.EINVAL)
        return fields(subprocess.Popen(['/bin/cat', '/proc/self/status'], stdout=subprocess.PIPE).communicate()[0].decode())
    assert in_child(child) == ends(2525, 2525, CapBnd=BIND)


def test_a_launched_command_binds_port_80_and_has_nothing_else(accounts):
    program = """import socket, os
socket.socket().bind(('', 80))
for forbidden in lambda: os.setuid(0), lambda: open('/etc/shadow'):
    try: forbidden()
    except PermissionError: print('no')"""
    need(os.access('/usr/bin/python3', os.X_OK), 'needs /usr/bin/python3')
    need(os.path.exists('/etc/shadow'), 'needs /etc/shadow')
    out, status, errors = launched(
        lambda: accounts(lambda: c('unshare', CLONE_NEWNET)),
        lambda: capdrop.loads('Security { user = nobody capabilities = "cap_net_bind_service+ep" }'),
        ['/usr/bin/python3', '-I', '-S', '-c', program])
    assert (out, status) == ('no\n' * 2, 0), errors


def test_root_with_capabilities_is_exclusive_also_after_exec(tmp_path):
    need_root()
    secret = tmp_path / 'secret'
    secret.write_text('secret')
    os.chown(str(secret), 1111, 1111)
    secret.chmod(0o600)
    os.chmod(str(tmp_path), 0o755)
    security = capdrop.Security(user='root', capabilities='cap_net_bind_service+ep')
    for switch in True, False:
        out, status, errors = launched(lambda: None, security, [
            '/bin/sh', '-c', 'cat %s; sh -c "sh -c \\"cat /proc/self/status\\""' % secret], no_new_privs=switch)
        found = fields(out)
        assert 'secret' not in out and 'ermission denied' in errors
        assert [found[name] for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')] == [BIND] * 4

    def child():
        capdrop.drop(security)
        with pytest.raises(PermissionError):
            open(str(secret))
        return fields(subprocess.Popen(['/bin/cat', '/proc/self/status'], stdout=subprocess.PIPE).communicate()[0].decode())
    assert in_child(child) == ends(0, 0, CapBnd=BIND)


def test_root_without_capabilities_stays_as_it_is_with_a_warning():
    need_root()
    state = in_child(lambda: capdrop.drop(capdrop.Security(user='root')).warnings)
    assert [text for text in state if 'root keeps everything' in text]
    with_some = in_child(lambda: capdrop.drop(capdrop.Security(user='root', capabilities='')).warnings)
    assert [text for text in with_some if 'not confinement' in text]


# ---------------------------------------------------------------------------- refusals change nothing

REFUSALS = {
    'the cluster stanza without cap_sys_resource': (
        without(SYS_RESOURCE), dict(AS_1111, capabilities='cap_net_admin+ep cap_net_bind_service+ep cap_net_raw+ep '
                                    'cap_sys_resource+ep'),
        ['cap_sys_resource', 'permitted set', 'bounding set lacks']),
    'permitted, but not in the permitted set': (
        lambda: capset(HELD & ~RAW, HELD & ~RAW), dict(AS_1111, capabilities='cap_net_raw+ep'), ['cap_net_raw', 'permitted set']),
    'inheritable, but not in the bounding set': (
        lambda: prctl(24, 13), dict(AS_1111, capabilities='cap_net_raw+i'), ['cap_net_raw', 'bounding set']),
    'uid 0 without cap_setuid, no user': (without(SETUID), dict(capabilities=''), ['no user is named', 'cap_setuid']),
    'a container, no user': (container, {}, ['no user is named', 'cap_setuid']),
    'a container, a user': (container, AS_1111, ['cannot change user', 'cap_setuid']),
    'a container, the empty set': (container, dict(user='root', capabilities=''), ['cap_setpcap']),
    'without cap_setgid': (without(SETGID), AS_1111, ['cannot change group', 'cap_setgid']),
    'without cap_setgid, groups': (
        without(SETGID), dict(user='1111', group='0', supplemental_groups=('8',)), ['supplementary groups', 'cap_setgid']),
    'without cap_sys_chroot': (without(SYS_CHROOT), dict(AS_1111, chroot='/usr'), ['root directory', 'cap_sys_chroot']),
    'systemd, another user': (systemd, AS_1111, ['cannot change user', 'cap_setuid']),
    'systemd, another capability': (systemd, dict(capabilities='cap_net_raw+ep'), ['cap_net_raw', 'permitted set']),
    'systemd, no supplementary group': (
        systemd,
        dict(user='33', group='33', supplemental_groups=('8',)), ['supplementary groups', 'cap_setgid']),
    'saved id 0 without the right to change it, no user': (saved_zero_and_nothing_else, {}, ['no user is named']),
    'keepcaps locked': (
        securebits(0x20), dict(AS_1111, capabilities='cap_net_raw+ep'), ['SECBIT_KEEP_CAPS']),
    'noroot locked off': (securebits(0x02), dict(user='root', capabilities=''), ['SECBIT_NOROOT']),
    'setgroups denied': (groups_denied, dict(user='0', group='0', supplemental_groups=('4',)), ['setgroups', 'deny']),
    'inheritable, neither permitted nor to be added': (
        lambda: capset(SETUID | SETGID, SETUID | SETGID), dict(AS_1111, capabilities='cap_chown=i'),
        ['cap_chown', 'permitted set', '!bounding set']),
    'a user that the namespace does not map': (
        user_namespace(), dict(user='1111', group='5'), ['1111', '/proc/self/uid_map']),
    'a group that the namespace does not map': (
        user_namespace(), dict(user='5', group='4321'), ['4321', '/proc/self/gid_map']),
    'a supplementary group that the namespace does not map': (
        user_namespace(), dict(user='5', group='5', supplemental_groups=('6', '4321')), ['4321', '/proc/self/gid_map']),
    'two threads': (two_threads, AS_1111, ['more than one thread', 'before starting threads']),
    'an io_uring': (io_uring, AS_1111, ['io_uring', 'close it']),
    'a directory descriptor with chroot': (open_directory, dict(AS_1111, chroot='/'), ['/usr', 'close it']),
}


@pytest.mark.parametrize('case', REFUSALS)
@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_a_refusal_names_the_thing_and_changes_nothing(case, verb):
    need_root()
    prepare, options, words = REFUSALS[case]
    if prepare is io_uring:
        try:
            in_child(io_uring)
        except OSError as e:
            need(False, 'needs io_uring: %s' % e)
    if prepare is groups_denied or 'namespace' in case:
        need_user_namespaces(prepare)
    message = refused(prepare, capdrop.Security(**options), verb)
    for word in words:
        assert word in message if word[0] != '!' else word[1:] not in message
    if 'namespace' in case:
        refusals = in_child(lambda: (prepare(), list(capdrop.plan(capdrop.Security(**options), exec=verb == 'launch').refusals))[1])
        assert refusals[0] == message


def test_ids_that_the_namespace_maps_are_as_good_as_any():
    need_user_namespaces(user_namespace())
    assert dropped(user_namespace('0 0 5000', '0 0 5000'), capdrop.Security(**AS_1111)) == ends(1111, 4321)


def test_check_warns_of_ids_that_this_user_namespace_does_not_map(tmp_path):
    prepare = user_namespace('0 0 65536', '0 0 65536')          # also whose clone this may be
    need_user_namespaces(prepare)
    path = tmp_path / 'my.conf'
    path.write_text('Security { user = 71111 group = 74321 }')
    path.chmod(0o644)
    done = in_child(lambda: (prepare(), run_command([sys.executable, '-I', SCRIPT, 'check', str(path)]))[1])
    assert done.returncode == 0 and 'uid_map' in done.stdout and 'gid_map' in done.stdout


@pytest.mark.parametrize('proc', [True, False], ids=['', 'without /proc'])
def test_groups_that_are_right_already_need_no_call_that_is_denied(proc):
    def prepare():
        os.setgroups([])
        groups_denied()
        if not proc:
            no_proc()
    need_user_namespaces(prepare)
    found = dropped(prepare, capdrop.Security(user='0', group='0', capabilities='cap_net_bind_service+ep'))
    assert (found['Groups'], found['CapPrm']) == ('', BIND)


@pytest.mark.parametrize('count', [33, 40, 300])
def test_as_many_groups_as_the_kernel_takes(count):
    need_root()
    wanted = [str(n) for n in range(5000, 5000 + count)]
    found = dropped(lambda: set_groups(range(count)), capdrop.Security(supplemental_groups=wanted, **AS_1111))
    assert found == ends(1111, 4321, ' '.join(wanted))


def test_ambient_capabilities_that_a_change_of_user_clears_and_that_may_not_be_raised_again_are_refused():
    need_root()

    def prepare():
        capset(HELD, HELD, RAW)
        prctl(47, 2, 13)
        prctl(28, 0x40)
    security = capdrop.Security(capabilities='cap_net_raw+ep', **AS_1111)
    assert 'SECBIT_NO_CAP_AMBIENT_RAISE' in refused(prepare, security, 'launch')


def already_there(jail):
    def prepare():
        os.chroot(str(jail))
        os.chdir('/')
        without(SYS_CHROOT)()
    return prepare


@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_a_jail_that_is_the_root_already_needs_no_right(verb, jail):
    need_root()
    security = capdrop.Security(chroot='/', capabilities='cap_net_raw+ep', **AS_1111)
    if verb == 'drop':
        assert dropped(already_there(jail), security) == ends(1111, 4321, caps=RAW)
        assert dropped(without(SYS_CHROOT), security) == ends(1111, 4321, caps=RAW)
    else:
        assert launched(already_there(jail), security, ['/bin/cat'])[1] == 0


def test_a_directory_outside_is_no_root_already(jail):
    """The root is right; where the process is, is not: chdir(2) needs no right."""
    need_root()

    def child():
        os.chdir('/usr')
        os.chroot(str(jail))
        without(SYS_CHROOT)()
        try:
            capdrop.drop(capdrop.Security(chroot='/', **AS_1111))
        except capdrop.RefusedError:
            return True
        here, root = os.stat('.'), os.stat('/')
        return (here.st_dev, here.st_ino) == (root.st_dev, root.st_ino)
    assert in_child(child)


def test_more_groups_than_the_system_takes_are_refused():
    need_root()
    most = 65536                # NGROUPS_MAX of linux/limits.h; sysconf(3) says 32 on musl
    message = refused(lambda: None, capdrop.Security(supplemental_groups=range(most + 1), **AS_1111))
    assert str(most) in message and str(most + 1) in message


def test_ambient_capabilities_that_may_not_be_raised_are_refused_for_a_command_only():
    need_root()
    security = capdrop.Security(capabilities='cap_net_raw+ep', **AS_1111)
    assert 'SECBIT_NO_CAP_AMBIENT_RAISE' in refused(securebits(0x40), security, 'launch')
    assert dropped(securebits(0x40), security) == ends(1111, 4321, caps=RAW)


def test_a_descriptor_that_does_not_close_ends_the_process():
    """One on a directory outside would be a way out of the jail; the call that lies is put in the place of the real one."""
    need_root()

    def child():
        posix.close = lambda fd: None
        capdrop.drop(capdrop.Security(chroot='/', **AS_1111))
    with pytest.raises(Ended) as e:
        in_child(child)
    assert e.value.args[0] == 125 and 'still open' in e.value.args[1]


def test_a_directory_descriptor_does_not_matter_without_chroot():
    need_root()
    assert dropped(open_directory, capdrop.Security(**AS_1111)) == ends(1111, 4321)


BAD_USERS = {'4294967295': 'not an id', '-1': 'no account', '4294967296': 'not an id', '0x0': 'no account',
             '\uff11': 'no account', '1_0': 'no account', '+1': 'no account', ' 1': 'no account',
             'no-such-user-here': 'no account', '': 'empty',
             'ro\0ot': 'x00', 'root\n': '\\n', '987654321': 'no account, so no primary group'}


@pytest.mark.parametrize('user', BAD_USERS, ids=ascii)
def test_a_user_that_does_not_exist_is_an_error_and_nothing_runs(user):
    need_root()
    build = lambda: capdrop.Security(user=user)
    for verb in 'drop', 'launch':
        message = refused(lambda: None, build, verb)
        assert 'user' in message and BAD_USERS[user] in message
    with pytest.raises(capdrop.ConfigError):
        in_child(lambda: capdrop.drop(capdrop.loads('Security { user = "%s" }' % user)))


@pytest.mark.parametrize('group', ['4294967295', '-1', '0x0', '\uff11', 'no-such-group-here', '', 'mail adm'], ids=ascii)
def test_a_group_that_does_not_exist_is_an_error_and_nothing_runs(group):
    need_root()
    for options in dict(group=group), dict(group='0', supplemental_groups=(group,)):
        assert 'group' in refused(lambda: None, lambda: capdrop.Security(user='1111', **options), 'launch')


@pytest.mark.parametrize('options', [
    dict(user=b'mail'), dict(group=b'mail'), dict(supplemental_groups=b'mail'), dict(supplemental_groups=[b'mail'])], ids=str)
def test_bytes_are_no_name_and_no_list_of_ids(options):
    with pytest.raises(capdrop.ConfigError) as e:
        capdrop.Security(**options)
    assert str(e.value) == '{0}=: {0} is not text'.format(*options)


def last_capability():
    with open('/proc/sys/kernel/cap_last_cap') as file:
        return int(file.read())


CAPABILITY_ERRORS = {       # words of the answer, the text that is proposed among them; behind a !, what is not
    'cap_net_bind_servce+ep': ['"cap_net_bind_servce"', '"cap_net_bind_service+ep"'],
    'net_raw+ep': ['"net_raw"', '"cap_net_raw+ep"'],
    'cap_net_raw': ['"cap_net_raw"', 'flags', '"cap_net_raw+ep"'],
    'cap_net_raw+EP': ['"EP"', '"cap_net_raw+ep"'],
    'all': ['"all"', '"all+ep"'],
    'cap_chown+ep NET_RAW': ['"NET_RAW"', '"cap_chown+ep cap_net_raw+ep"'],
    'cap_chown+ep cap_net_raw+ep cap_kil+ep': ['"cap_kil"', '"cap_chown+ep cap_net_raw+ep cap_kill+ep"'],
    'cap_chown,cap_kil=ep': ['"cap_kil"', '"cap_chown,cap_kill=ep"'],
    'none': ['"none"'],
    '+ep': ['"+"', 'no names'],
    'cap_net_raw+x': ['"x"', 'not a flag'],
    '64+ep': ['"64"'],
    'cap_net_raw+e': ['cap_net_raw', 'without being permitted'],
    'LAST+ep': ['no capability', 'LAST'],
    '~CAP_SYS_ADMIN': ['!"cap_sys_admin'],
    'cap_bind+ep': ['"cap_bind"', '!cap_mknod'],
    'cap_root+ep': ['"cap_root"', '!cap_sys_chroot'],
}


@pytest.mark.parametrize('text', CAPABILITY_ERRORS)
def test_a_capability_text_that_is_wrong_is_explained(text):
    last = str(last_capability() + 1)
    with pytest.raises(capdrop.ConfigError) as e:
        in_child(lambda: capdrop.plan(capdrop.Security(user='1111', group='1', capabilities=text.replace('LAST', last))))
    for words in CAPABILITY_ERRORS[text]:
        words = words.replace('LAST', last)
        assert words in str(e.value) if words[0] != '!' else words[1:] not in str(e.value)


def test_the_clause_that_is_wrong_is_the_column_that_is_named():
    text = 'Security {\n  user = 1111 group = 1\n  capabilities = "cap_chown+ep cap_kil+ep"\n}'
    with pytest.raises(capdrop.ConfigError) as e:
        in_child(lambda: capdrop.plan(capdrop.loads(text)))
    assert (e.value.line, e.value.column) == (3, 1 + text.splitlines()[2].index('cap_kil'))


# ---------------------------------------------------------------------------- threads

@pytest.mark.parametrize('proc', [True, False], ids=['', 'without /proc'])
@pytest.mark.parametrize('unshare', [True, False], ids=['', 'unshare blocked'])
def test_two_threads_are_refused_wherever_they_can_be_seen(proc, unshare):
    need_root()
    need(proc or HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')

    def prepare():
        if not proc:
            no_proc()
        if not unshare:
            unshare_blocked()
        two_threads()
    message = refused(prepare, capdrop.Security(**AS_1111))
    assert ('more than one thread' if proc or unshare else 'cannot tell') in message


def test_two_threads_are_refused_also_where_root_stays_root():
    need_root()
    assert 'more than one thread' in refused(two_threads, capdrop.Security(user='0', group='4321'))


def test_root_whose_rights_are_not_effective_raises_them_and_gives_them_back():
    need_root()
    after = dropped(lambda: capset(HELD, 0), capdrop.Security(user='0', group='4321'))
    assert (after['Gid'], after['CapPrm'], after['CapEff']) == ('4321 4321 4321 4321', HELD, 0)


def test_the_threads_are_listed_by_name_and_id():
    need_root()

    def child():
        two_threads()
        with pytest.raises(capdrop.RefusedError) as e:
            capdrop.drop(capdrop.Security(**AS_1111))
        tasks = {task: open('/proc/self/task/%s/comm' % task).read().strip() for task in os.listdir('/proc/self/task')}
        return len(tasks), [name for name in tasks.items() if '%s %s' % name not in str(e.value)]
    assert in_child(child) == (2, [])


def test_one_thread_that_cannot_be_told_from_two_is_refused():
    need_root()
    need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for a mount namespace')
    message = refused(lambda: (no_proc(), unshare_blocked()), capdrop.Security(**AS_1111))
    assert 'cannot tell' in message and 'unshare' in message and '/proc' in message


def test_a_thread_that_has_just_ended_does_not_matter():
    need_root()

    def prepare():
        threads = [threading.Thread(target=int) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for _ in range(20):
        assert dropped(prepare, capdrop.Security(**AS_1111)) == ends(1111, 4321)


# ---------------------------------------------------------------------------- chroot

def test_the_root_and_the_current_directory_are_the_jail(jail):
    need_root()

    def child():
        state = capdrop.drop(capdrop.Security(chroot=str(jail), **AS_1111))
        here, root = os.stat('.'), os.stat('/')
        return os.getcwd(), sorted(os.listdir('/')) == names, {state.root, (here.st_dev, here.st_ino), (root.st_dev, root.st_ino)}
    names, st = sorted(os.listdir(str(jail))), os.stat(str(jail))
    assert in_child(child) == ('/', True, {(st.st_dev, st.st_ino)})


def test_a_jail_that_its_user_cannot_enter_is_a_warning(jail):
    jail.chmod(0o700)
    security = capdrop.Security(chroot=str(jail), **AS_1111)
    warnings = in_child(lambda: capdrop.drop(security).warnings)
    assert [text for text in warnings if 'cannot enter' in text]


ACL = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in (
    (1, 7, 0xffffffff), (2, 7, 1111), (4, 5, 0xffffffff), (16, 7, 0xffffffff), (32, 5, 0xffffffff)))


def with_acl(path):
    try:
        need(hasattr(os, 'setxattr'), 'needs os.setxattr')
        os.setxattr(path, 'system.posix_acl_access', ACL)
    except OSError as e:
        need(False, 'needs access control lists: %s' % e)


JAILS = {       # what is done to a/b/jail, of a/ and a/b/; the jail to name; words of the refusal, or none
    'writable by a group of root': (lambda j: os.chmod(j, 0o775), 'a/b/jail', None),
    'under a sticky directory': (lambda j: os.chmod(os.path.dirname(j), 0o1777), 'a/b/jail', None),
    'with slashes to spare': (lambda j: None, 'a//b/./jail/', None),
    'sticky itself': (lambda j: os.chmod(j, 0o1777), 'a/b/jail', ['a/b/jail', 'everyone']),
    'writable by everyone': (lambda j: os.chmod(j, 0o777), 'a/b/jail', ['a/b/jail', 'everyone']),
    'writable by a group': (lambda j: (os.chown(j, 0, 8), os.chmod(j, 0o775)), 'a/b/jail', ['a/b/jail', 'group 8']),
    'writable through an access control list': (with_acl, 'a/b/jail', ['a/b/jail', 'access control list']),
    'of someone else': (lambda j: os.chown(j, 1111, 0), 'a/b/jail', ['a/b/jail', 'user 1111']),
    'below a directory of someone else': (
        lambda j: os.chown(os.path.dirname(j), 1234, 0), 'a/b/jail', ['a/b', 'user 1234', '!a/b/jail']),
    'below a directory writable by everyone': (
        lambda j: os.chmod(os.path.dirname(j), 0o777), 'a/b/jail', ['a/b', 'everyone', '!a/b/jail']),
    'a symbolic link': (lambda j: os.symlink('jail', os.path.dirname(j) + '/link'), 'a/b/link', ['a/b/link', 'symbolic link']),
    'behind a symbolic link': (lambda j: os.symlink('b', j + '/../../link'), 'a/link/jail', ['a/link', 'symbolic link']),
    'with .. in its path': (lambda j: None, 'a/b/../b/jail', ['..']),
    'missing': (lambda j: None, 'a/b/no', ['a/b/no', 'No such file']),
    'a file': (lambda j: open(j + '/file', 'w').close(), 'a/b/jail/file', ['a/b/jail/file', 'Not a directory']),
}


@pytest.mark.parametrize('case', JAILS)
def test_a_jail_that_anyone_but_root_could_change_is_refused(case, tmp_path):
    need_root()
    change, name, words = JAILS[case]
    path = tmp_path / 'a' / 'b' / 'jail'
    path.mkdir(parents=True)
    for directory in path, path.parent, path.parent.parent:
        directory.chmod(0o755)
    change(str(path))
    security = capdrop.Security(chroot='%s/%s' % (tmp_path, name), **AS_1111)
    if words is None:
        assert dropped(lambda: None, security) == ends(1111, 4321)
        return
    message = refused(lambda: None, security)
    assert 'chroot' in message
    for word in words:
        assert word in message if word[0] != '!' else word[1:] not in message


PLANTED = ('warnings', 'idna', 'encodings', 'encodings/idna', 'linecache', 'traceback', 'socket', 'select', 'signal', 'ctypes',
           'threading', 'random', 'json', 'os', 'errno', '_socket', 'stringprep', 'unicodedata', 'pwd', 'grp', 'difflib')


def plant(directory):
    """Modules in a directory, any of which ends the process with status 77."""
    for name in PLANTED:
        path = '%s/%s.py' % (directory, name)
        if name == 'encodings':
            path = '%s/encodings/__init__.py' % directory
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(path, 'w') as file:
            file.write('import posix; posix.write(2, b"planted %s"); posix._exit(77)\n' % name)


@pytest.fixture
def planted(jail):
    """A jail with modules planted wherever this Python would look for one."""
    for directory in {'/'} | set(path for path in sys.path if path.startswith('/')):
        if not directory.endswith('.zip'):
            plant(str(jail) + directory)
    run_command(['chmod', '-R', 'u=rwX,go=rX', str(jail)])
    return jail


def test_a_daemon_in_a_jail_finds_what_it_needs_and_runs_nothing_of_the_jail(planted):
    def child():
        sys.path.insert(0, '')
        for name in ('encodings.idna', 'idna', 'stringprep', 'linecache', 'traceback', 'warnings'):
            if not name.startswith('encodings'):
                sys.modules.pop(name, None)     # as in a daemon, which is not a test
        capdrop.drop(capdrop.Security(chroot=str(planted), **AS_1111))
        with pytest.raises(OSError):
            socket.create_connection(('localhost', 25), timeout=1)
        assert 'b\xfccher.example'.encode('idna') and b'x'.decode('latin-1') and b'x'.decode('ascii')
        try:
            1 / 0
        except ZeroDivisionError:
            __import__('traceback').format_exc()
        thread = threading.Thread(target=time.localtime)
        thread.start()
        thread.join()
        return 'unharmed'
    assert in_child(child) == 'unharmed'


def test_a_program_that_imports_nothing_but_capdrop_finds_what_it_needs_in_a_jail(planted):
    program = """
import sys
sys.path.insert(0, %r)
import capdrop
capdrop.drop(capdrop.Security(user='1111', group='4321', chroot=%r))
import socket
try: socket.create_connection(('localhost', 25), timeout=1)
except OSError: sys.stdout.write('OSError')
sys.stdout.flush()
import threading
t = threading.Thread(target=str.encode, args=('x', 'idna')); t.start(); t.join()
import traceback; traceback.format_stack()
""" % (os.path.dirname(SCRIPT), str(planted))
    done = run_command([sys.executable, '-I', '-c', program])
    assert (done.returncode, done.stdout, done.stderr) == (0, 'OSError', '')


def test_a_launch_into_a_jail_runs_nothing_of_it_but_the_command(planted):
    done = run_command([sys.executable, '-I', SCRIPT, 'exec', '--user', '1111', '--group', '1', '--chroot', str(planted), '--',
                        '/no/such/command'], cwd=str(planted))
    assert done.returncode == 127 and done.stderr.splitlines()[-1] == (
        'capdrop: /no/such/command: No such file or directory (in the jail %s)' % planted)
    done = run_command([sys.executable, '-I', SCRIPT, 'exec', '-q', '--user', '1111', '--group', '1', '--chroot', str(planted),
                        '--', 'cat'], b'hello', env={'PATH': '/nowhere:/bin'})
    assert (done.returncode, done.stdout, done.stderr) == (0, 'hello', '')


# ---------------------------------------------------------------------------- signals and finalizers

def test_no_handler_and_no_finalizer_ever_runs_half_way():
    """A timer every 100 us and a collection at every allocation, 500 times: each sees all of root or nothing of it."""
    need_root()

    def once():
        seen, calls = [], []
        status = os.open('/proc/self/status', os.O_RDONLY)

        def record(*_):
            seen.append((time.monotonic(), os.pread(status, 8192, 0)))

        class Cycle:
            def __init__(self):
                self.itself = self

            def __del__(self):
                record()
                Cycle()

        def spy(name):
            real = getattr(posix, name)

            def call(*args):
                calls.append((name, time.monotonic()))
                return real(*args)
            setattr(posix, name, call)
        for name in 'setresgid', 'setresuid', 'getresuid':
            spy(name)
        security = capdrop.Security(capabilities='cap_net_bind_service+ep', **AS_1111)
        signal.signal(signal.SIGALRM, record)
        signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
        Cycle()
        gc.set_threshold(1, 1000000, 1000000)
        capdrop.drop(security)
        last = max(when for name, when in calls if name == 'getresuid')
        gc.set_threshold(700, 10, 10)
        time.sleep(0.0002)
        signal.setitimer(signal.ITIMER_REAL, 0)
        first = min(when for name, when in calls if name.startswith('set'))
        before, after = ends(0, 0, STARTED['Groups'], HELD, CapBnd=BOUND, NoNewPrivs='0'), ends(1111, 4321, caps=BIND)
        counts = [0, 0]
        for when, text in seen:
            found = fields(text.decode())
            assert found in (before, after), found
            assert not first < when < last
            counts[found == after] += 1
        return counts

    def child():
        assert fields(open('/proc/self/status').read())['Uid'] == '0 0 0 0'
        if hasattr(gc, 'freeze'):
            gc.freeze()
        read, write = os.pipe()
        for number in range(500):
            if number >= 4:                     # as many at a time
                assert os.wait()[1] == 0, os.read(read, 4096).decode()
            if os.fork() == 0:
                try:
                    os.write(write, b'%d %d\n' % tuple(once()))
                    os._exit(0)
                except BaseException as e:
                    os.write(write, ('%s: %s' % (type(e).__name__, e)).encode())
                finally:
                    os._exit(1)
        for _ in range(4):
            assert os.wait()[1] == 0, os.read(read, 4096).decode()
        counts = os.read(read, 65536).decode().splitlines()
        assert len(counts) == 500
        return [sum(int(line.split()[column]) for line in counts) for column in (0, 1)]
    before, after = in_child(child)
    assert before > 500 and after > 500         # they did run, on both sides


# ---------------------------------------------------------------------------- a configuration that others could write

DOCUMENTED = 'user = ecuser group = ecuser capabilities = "cap_net_bind_service+ep"'
ME, OTHER = 'can be rewritten by the user it names', 'can be rewritten by'

WRITABLE = {    # (owner, group, mode) of the file and of its directory; stanza; word of the refusal, or None; warned?
    'of root': ((0, 0, 0o644), (0, 0, 0o755), DOCUMENTED, None, False),
    'of root and its group': ((0, 0, 0o664), (0, 0, 0o775), DOCUMENTED, None, False),
    'in a sticky directory': ((0, 0, 0o644), (0, 0, 0o1777), DOCUMENTED, None, False),
    'of its user': ((2525, 2525, 0o644), (0, 0, 0o755), DOCUMENTED, None, True),
    "in its user's directory": ((0, 0, 0o644), (2525, 2525, 0o755), DOCUMENTED, None, True),
    "writable by its user's group": ((0, 2525, 0o664), (0, 0, 0o755), DOCUMENTED, None, True),
    'of its user, chosen by number': ((2525, 0, 0o644), (0, 0, 0o755), 'user = 2525', None, True),
    'of its user, for a group that he is in': (
        (2525, 0, 0o644), (0, 0, 0o755), 'user = ecuser group = adm supplemental_groups = ( ecuser adm )', None, True),
    'of its user, for cap_sys_admin': (
        (2525, 0, 0o644), (0, 0, 0o755), 'user = ecuser capabilities = "cap_sys_admin+ep"', 'cap_sys_admin', None),
    'of its user, for an inheritable cap_sys_admin': (
        (2525, 0, 0o644), (0, 0, 0o755), 'user = ecuser capabilities = "cap_sys_admin+i"', 'cap_sys_admin', None),
    'of a user, for root': ((2525, 0, 0o644), (0, 0, 0o755), 'user = root', 'user 2525', None),
    'of a user, for another': ((2525, 0, 0o644), (0, 0, 0o755), 'user = www-data', 'user 2525', None),
    'of its user, for a group that he is not in': (
        (2525, 0, 0o644), (0, 0, 0o755), 'user = ecuser group = mail', 'group', None),
    'of its user, for a supplementary group that he is not in': (
        (2525, 0, 0o644), (0, 0, 0o755), 'user = ecuser supplemental_groups = mail', 'group', None),
    'of its user, for group 0': ((2525, 0, 0o644), (0, 0, 0o755), 'user = ecuser group = 0', 'group', None),
    'of someone else': ((1111, 0, 0o644), (0, 0, 0o755), DOCUMENTED, 'user 1111', None),
    "in someone else's directory": ((0, 0, 0o644), (1111, 0, 0o755), DOCUMENTED, 'user 1111', None),
    'in a directory that everyone can write': ((0, 0, 0o644), (0, 0, 0o777), DOCUMENTED, 'everyone', None),
    'writable by the group of its user and of others': ((0, 8, 0o664), (0, 0, 0o755), 'user = inmail', 'group 8', None),
    'writable by the group named like its user, with a member': (
        (0, 4243, 0o664), (0, 0, 0o755), 'user = shared', 'group 4243', None),
    'writable by the group named like its user, which is the primary one of another': (
        (0, 4244, 0o664), (0, 0, 0o755), 'user = common', 'group 4244', None),
    'writable by everyone': ((0, 0, 0o646), (0, 0, 0o755), DOCUMENTED, 'everyone', None),
    'writable by another group': ((0, 8, 0o664), (0, 0, 0o755), DOCUMENTED, 'group 8', None),
    'writable by the group that it names': ((0, 8, 0o664), (0, 0, 0o755), 'user = ecuser group = mail', 'group 8', None),
}


@pytest.mark.parametrize('case', WRITABLE)
def test_a_configuration_that_others_could_rewrite_is_refused(case, accounts, tmp_path):
    file, directory, text, refusal, warned = WRITABLE[case]
    path = configuration(tmp_path, file, directory, text)
    if refusal:
        message = refused(accounts, lambda: capdrop.load(path))
        assert OTHER in message and refusal in message and path in message
        assert message == refused(accounts, lambda: capdrop.load(path), 'launch')
        return

    def child():
        accounts()
        return capdrop.drop(capdrop.load(path)).warnings
    assert bool([w for w in in_child(child) if ME in w and path in w]) == warned


def in_group_0(accounts):
    """The account is in group 0, which the process to be is not."""
    def prepare():
        accounts()
        os.getgrouplist = lambda name, gid: [gid, 0]
    return prepare


@pytest.mark.parametrize('verb', ['drop', 'launch'])
def test_what_group_0_may_write_is_refused_where_the_account_is_in_it(verb, accounts, tmp_path):
    path = configuration(tmp_path, (0, 0, 0o664), (0, 0, 0o755), 'user = ecuser capabilities = ""')
    assert 'can be rewritten by group 0' in refused(in_group_0(accounts), lambda: capdrop.load(path), verb)
    assert in_child(lambda: accounts() or not capdrop.plan(capdrop.load(path)).refusals)
    jail = tmp_path / 'jail'
    jail.mkdir()
    os.chmod(str(jail), 0o775)

    def security():
        return capdrop.Security(user='ecuser', supplemental_groups=(), chroot=str(jail))
    assert 'only root may be able to write or replace it, not group 0' in refused(in_group_0(accounts), security, verb)
    assert in_child(lambda: accounts() or not capdrop.plan(security()).refusals)


def test_the_real_path_of_a_configuration_is_what_counts(accounts, tmp_path):
    path = configuration(tmp_path, (0, 0, 0o644), (1111, 0, 0o755), DOCUMENTED)
    os.symlink(path, str(tmp_path / 'link'))
    assert 'user 1111' in refused(accounts, lambda: capdrop.load(str(tmp_path / 'link')))


def test_an_included_file_is_judged_by_itself(accounts, tmp_path):
    path = configuration(tmp_path, (1111, 0, 0o644), (0, 0, 0o755), 'Security { capabilities = "" }')
    main = tmp_path / 'main.conf'
    main.write_text('Security { user = ecuser }\ninclude "%s"\n' % path)
    message = refused(accounts, lambda: capdrop.load(str(main)))
    assert 'user 1111' in message and path in message and 'main.conf can' not in message


def test_check_says_who_could_rewrite_a_file_that_names_no_user(accounts, tmp_path):
    path = configuration(tmp_path, (1111, 0, 0o644), (0, 0, 0o755), 'capabilities = "cap_sys_admin+ep"')
    done = in_child(lambda: (accounts(), run_command([sys.executable, '-I', SCRIPT, 'check', path]))[1])
    assert [line for line in done.stdout.splitlines() if 'can be rewritten by user 1111' in line]


def test_an_environment_variable_without_a_name_is_left_out():
    need_root()
    launch = "import capdrop; capdrop.launch(capdrop.Security(user='1111', group='1'), ['/bin/true'], env={'': 'x'})"
    done = run_command([sys.executable, '-c', 'import sys; sys.path.insert(0, %r); %s' % (os.path.dirname(SCRIPT), launch)])
    assert done.returncode == 0, done.stderr


def test_a_read_only_mount_is_no_excuse_because_elsewhere_the_same_can_be_written(accounts, tmp_path):
    path = configuration(tmp_path, (1111, 0, 0o644), (1111, 0, 0o755), DOCUMENTED)

    def prepare():
        accounts()
        directory = os.fsencode(os.path.dirname(path))
        c('mount', directory, directory, None, MS_BIND, None)
        c('mount', b'none', directory, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)
    assert 'user 1111' in refused(prepare, lambda: capdrop.load(path))


@pytest.mark.parametrize('theirs', ['# nothing', 'Security { }', 'Local_Changes_File = "/nonexistent"',
                                    'Security { user = daemon }'])
def test_a_file_of_a_stranger_that_gives_nothing_decides_as_well(theirs, accounts, tmp_path):
    path = configuration(tmp_path, (1111, 0, 0o644), (0, 0, 0o755), theirs + ' # Security')
    main, local = tmp_path / 'main.conf', tmp_path / 'local.conf'
    local.write_text('Security { user = ecuser capabilities = "" }')
    main.write_text('Local_Changes_File = "%s"\nSecurity { user = www-data }\ninclude "%s"\n' % (local, path))
    assert 'user 1111' in refused(accounts, lambda: capdrop.load(str(main)))


@pytest.mark.parametrize('ours, theirs, refusal', [
    ('group = mail', 'user = ecuser', 'user can be rewritten by the user it names, who could thus give himself group: 8'),
    ('capabilities = "cap_sys_admin+ep"', 'user = ecuser', 'who could thus give himself capabilities: cap_sys_admin'),
    ('supplemental_groups = ( mail )', 'user = ecuser', 'who could thus give himself supplemental_groups: 8'),
    ('user = www-data', 'user = ecuser', 'user overrides'),
    ('user = ecuser chroot = "/usr"', 'chroot = "/"', 'chroot overrides'),
    ('user = ecuser capabilities = ""', 'capabilities = "cap_kill+ep"', 'capabilities overrides'),
    ('user = ecuser } Local_Changes_File = "/nonexistent" x {', '} Local_Changes_File = "/none" x {',
     'Local_Changes_File overrides'),
    ('group = ecuser capabilities = "cap_net_bind_service+ep"', 'user = ecuser', None)])
def test_who_could_write_a_file_takes_nothing_by_it_that_root_says(ours, theirs, refusal, accounts, tmp_path):
    path = configuration(tmp_path, (2525, 0, 0o644), (0, 0, 0o755), theirs)
    main = tmp_path / 'main.conf'
    main.write_text('Security { %s }\ninclude "%s"\n' % (ours, path))
    if refusal:
        assert refusal in refused(accounts, lambda: capdrop.load(str(main)))
    else:
        assert dropped(accounts, lambda: capdrop.load(str(main))) == ends(2525, 2525, caps=BIND)
    os.chown(path, 0, 0)
    in_child(lambda: (accounts(), capdrop.drop(capdrop.load(str(main)))))     # root may say so


def test_who_could_rewrite_a_configuration_does_not_matter_to_a_process_without_rights(accounts, tmp_path):
    path = configuration(tmp_path, (1111, 0, 0o644), (1111, 0, 0o755), 'user = www-data capabilities = "cap_net_bind_service+ep"')
    tmp_path.chmod(0o755)
    security = capdrop.load(path)
    assert dropped(lambda: accounts(systemd), security)['CapPrm'] == BIND


def test_who_could_rewrite_a_configuration_matters_to_a_root_without_rights(tmp_path):
    """It still owns what root owns."""
    need_root()
    path = configuration(tmp_path, (1111, 0, 0o644), (0, 0, 0o755), 'user = root group = root')
    message = refused(container, lambda: capdrop.load(path))
    assert OTHER in message and 'user 1111' in message
    with open(path, 'w') as file:
        file.write('Security { user = 33 group = 33 }')
    security = capdrop.load(path)
    assert OTHER in refused(saved_zero_and_nothing_else, security)


def test_an_owner_whom_the_namespace_does_not_map_is_not_nobody(tmp_path):
    """stat(2) says 65534 of any of them."""
    prepare = user_namespace('0 0 65536', '0 0 65536')
    need_user_namespaces(prepare)
    path = configuration(tmp_path, (100000, 0, 0o644), (0, 0, 0o755), 'user = nobody')
    assert OTHER in refused(prepare, lambda: capdrop.load(path))


ROOT_LIKE = ('chown dac_override dac_read_search fowner setgid setuid setpcap sys_module sys_rawio sys_chroot sys_ptrace '
             'sys_admin sys_boot mknod setfcap mac_override mac_admin bpf perfmon').split()


@pytest.mark.parametrize('name', ROOT_LIKE + ['net_raw', 'kill', 'net_bind_service', 'ipc_lock', 'sys_nice'])
@pytest.mark.parametrize('flags', ['ep', 'i'])
def test_a_capability_that_amounts_to_root_is_said_to(name, flags):
    need_root()
    warnings = in_child(lambda: capdrop.plan(capdrop.Security(capabilities='cap_%s=%s' % (name, flags), **AS_1111)).warnings)
    found = [text for text in warnings if 'amounts to root: cap_%s' % name in text]
    assert len(found) == (name in ROOT_LIKE)


# ---------------------------------------------------------------------------- modules planted beside the script

@pytest.mark.parametrize('flags', [[], ['-S'], ['-E'], ['-s']], ids=' '.join)
def test_modules_planted_beside_the_script_never_run(flags, tmp_path):
    plant(str(tmp_path))
    shutil.copy(SCRIPT, str(tmp_path / 'capdrop.py'))
    (tmp_path / 'my.conf').write_text('Security { user = nobody capabilities = "cap_kil+ep" }')
    own = 7 if os.geteuid() == 0 else None
    for words, status in [(['check', 'my.conf'], 1), (['plan', '--user', 'nobody', '--capabilities', '', '--json'], None),
                          (['status'], 0), (['-h'], 0),
                          (['exec', '-q', '--user', 'nobody', '--', '/bin/sh', '-c', 'exit 7'], own)]:
        done = run_command([sys.executable] + flags + ['capdrop.py'] + words, cwd=str(tmp_path))
        assert 'planted' not in done.stderr and done.returncode != 77
        assert status in (None, done.returncode), done.stderr
