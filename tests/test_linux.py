"""The drop on Linux: real kernel, real libcap, each drop in a forked child, judged by /proc/self/status."""
import errno
import gc
import os
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
    AS_1111, BIND, CLONE_NEWNET, HELD, MS_BIND, MS_RDONLY, MS_REMOUNT, NET_ADMIN, PASSWD, RAW,
    SCRIPT, SETGID, SETPCAP, SETUID, STARTED, SYS_ADMIN, SYS_CHROOT, SYS_RESOURCE, Ended, c,
    capset, container, dropped, ends, fields, groups_denied, in_child, io_uring, launched,
    need, need_root, no_proc, open_directory, prctl, refused, run_command, saved_zero,
    saved_zero_and_nothing_else, securebits, systemd, two_threads, unshare_blocked, without)
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
        assert plan.steps == [] and plan.refusals == []
        return first == capdrop.drop(security) == capdrop.state()
    assert in_child(child)


@pytest.mark.parametrize('other', [
    dict(user='1112', group='4321'), dict(user='1111', group='4322'), dict(user='0', group='0'),
    dict(user='1111', group='4321', capabilities='cap_chown+ep'),
    dict(user='1111', group='4321', supplemental_groups=('8',)), dict(user='1111', group='4321', chroot='/')],
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
    assert dropped(lambda: capdrop.drop(capdrop.plan(security, exec=True)), security) == ends(1111, 4321, caps=RAW)


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
                lambda: c('mount', b'none', b'/mnt', b'tmpfs', 0, None)]:
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
    'without cap_sys_chroot': (without(SYS_CHROOT), dict(AS_1111, chroot='/'), ['chroot', 'cap_sys_chroot']),
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
    if prepare is groups_denied:
        try:
            in_child(groups_denied)
        except OSError as e:
            need(False, 'needs user namespaces: %s' % e)
    message = refused(prepare, capdrop.Security(**options), verb)
    for word in words:
        assert word in message


def test_more_groups_than_the_system_takes_are_refused():
    need_root()
    most = os.sysconf('SC_NGROUPS_MAX')
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
        capdrop.os.close = lambda fd: None
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


CAPABILITY_ERRORS = {
    'cap_net_bind_servce+ep': ['"cap_net_bind_servce+ep"', '"cap_net_bind_service+ep"'],
    'net_raw+ep': ['"net_raw+ep"', '"cap_net_raw+ep"'],
    'cap_net_raw': ['"cap_net_raw"', 'flags', '"cap_net_raw+ep"'],
    'cap_net_raw+EP': ['"cap_net_raw+EP"', '"cap_net_raw+ep"'],
    'all': ['"all"', '"all+ep"'],
    'cap_chown+ep NET_RAW': ['"NET_RAW"', '"cap_net_raw+ep"'],
    'cap_chown+ep cap_net_raw+ep cap_kil+ep': ['"cap_kil+ep"', '"cap_kill+ep"'],
    'cap_chown,cap_kil=ep': ['"cap_chown,cap_kil=ep"', '"cap_chown,cap_kill=ep"'],
    'none': ['"none"'],
    '+ep': ['"+ep"', 'cap_...+ep'],
    'cap_net_raw+x': ['"cap_net_raw+x"'],
    '64+ep': ['"64+ep"'],
    'cap_net_raw+e': ['cap_net_raw', 'without being permitted'],
    'LAST+ep': ['no capability', 'LAST'],
}


@pytest.mark.parametrize('text', CAPABILITY_ERRORS)
def test_a_capability_text_that_is_wrong_is_explained(text):
    last = str(last_capability() + 1)
    with pytest.raises(capdrop.ConfigError) as e:
        in_child(lambda: capdrop.plan(capdrop.Security(user='1111', group='1', capabilities=text.replace('LAST', last))))
    for words in CAPABILITY_ERRORS[text]:
        assert words.replace('LAST', last) in str(e.value)
    if 'cap_chown+ep' in text:
        assert '"cap_chown+ep"' not in str(e.value)


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
    assert done.returncode == 127 and done.stderr.splitlines()[-1] == 'capdrop: /no/such/command: No such file or directory'
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
            real = getattr(os, name)

            def call(*args):
                calls.append((name, time.monotonic()))
                return real(*args)
            setattr(os, name, call)
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


def configuration(tmp_path, file, directory, text):
    path = tmp_path / 'etc' / 'myd.conf'
    path.parent.mkdir()
    path.write_text(text if 'Security' in text else 'Security {\n%s\n}\n' % text)
    for name, (owner, group, mode) in (path, file), (path.parent, directory):
        os.chown(str(name), owner, group)
        name.chmod(mode)
    return str(path)


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
    lines = in_child(lambda: (accounts(), [str(line) for line in capdrop._check(path, {}, set(), None)[2]])[1])
    assert [line for line in lines if 'can be rewritten by user 1111' in line]


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
    ('group = mail', 'user = ecuser', 'user can be rewritten by the user it names, who could thus give himself 8'),
    ('capabilities = "cap_sys_admin+ep"', 'user = ecuser', 'who could thus give himself cap_sys_admin'),
    ('supplemental_groups = ( mail )', 'user = ecuser', 'who could thus give himself 8'),
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
