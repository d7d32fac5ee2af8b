"""What is allowed, yet worth a line: each warning where it belongs, and not where nothing calls for it."""
import os
import subprocess
import sys

import pytest

import capdrop
from conftest import (
    AS_1111, BIND, HELD, SETGID, SETPCAP, c, capset, in_child, need, need_root, no_proc, own_mounts,
    set_groups, user_namespace, without)

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')


def plan_of(prepare, options, **how):
    """The warnings of a plan, in a child that this has prepared."""
    def child():
        prepare()
        return capdrop.plan(capdrop.Security(**options), **how).warnings
    return in_child(child)


def nothing():
    set_groups([])


def groups_by_account(name, gid):
    return [gid, 4, 24]


def in_groups_by_account():
    os.getgrouplist = groups_by_account
    nothing()


def in_groups():
    set_groups([24, 27])


def in_groups_for_good():
    set_groups([24, 27])
    without(SETGID)()


def child_started():
    nothing()
    subprocess.Popen(['sleep', '10'], stderr=subprocess.DEVNULL)        # or the answer would wait for it


def closed_directory():
    """/mnt/closed, which only root can enter, in mounts of this process alone."""
    nothing()
    own_mounts()
    c('mount', b'none', b'/mnt', b'tmpfs', 0, b'mode=755')
    os.mkdir('/mnt/closed', 0o700)


def modules_closed():
    """The standard library seems to be where only root can go."""
    closed_directory()
    os.mkdir('/mnt/closed/lib')
    os.__file__ = '/mnt/closed/lib/os.py'


KEEP = dict(AS_1111, capabilities='cap_net_bind_service+ep')
NEEDED = SETGID | SETPCAP | BIND | 1 << 7 | 1 << 18

# prepared by, options, arguments of plan; the warning
WARNED = [
    (in_groups_by_account, dict(user='daemon'), {}, 'user=: without supplemental_groups it will not be in the groups of daemon: 4 24 '
     '(--init-groups gives them all)'),
    (in_groups, AS_1111, {}, 'user=: the supplementary groups that this process has, 24 27, are given up: supplemental_groups names '
     'what to keep'),
    (in_groups_for_good, dict(user='1111', group='0'), {}, "user=: the supplementary groups stay as they are, 24 27: cap_setgid is "
     "not in this process's permitted set; its bounding set lacks cap_setgid: whoever started it took that away"),
    (nothing, AS_1111, dict(no_new_privs=False), 'no_new_privs is waived: setuid and file-capability programs can raise privileges'),
    (nothing, dict(user='root'), {}, 'user=: user is root and capabilities is absent: root keeps everything'),
    (nothing, dict(user='root', capabilities=''), {}, 'user=: uid 0 still owns /etc and /proc/sys: this is not confinement'),
    (nothing, dict(user='1111', group='0'), {}, "group=: group 0 is root's own: what it may write stays writable"),
    (nothing, dict(user='1111', group='8', supplemental_groups='0'), {}, "group 0 is root's own: what it may write stays writable"),
    (nothing, dict(AS_1111, capabilities='cap_setuid,cap_kill+ep'), {}, 'capabilities=: amounts to root: cap_setuid'),
    (nothing, dict(AS_1111, capabilities='cap_setuid+i'), {}, 'capabilities=: amounts to root: cap_setuid'),
    (nothing, dict(user='nobody'), {}, 'user=: nobody is shared by many: any of its processes can trace the others'),
    (child_started, AS_1111, {}, 'user=: children already started keep what they have ('),
    (modules_closed, AS_1111, {}, 'user=: user 1111 cannot enter /mnt/closed: importing modules later will fail'),
    (closed_directory, dict(AS_1111, chroot='/mnt/closed'), {}, 'chroot=: user 1111 cannot enter the directory that is to be its root'),
    (without(SETPCAP), KEEP, {}, 'capabilities=: the bounding set stays as it is, without cap_setpcap; no_new_privs holds '
     'all the same'),
    (no_proc, AS_1111, {}, 'descriptors cannot be looked at, so that none that keeps the rights of now (an io_uring, say) would be seen: '
     '/proc/self/fd: No such file or directory'),
    (user_namespace(), dict(KEEP, user='11', group='8'), {}, 'in this user namespace capabilities count for what belongs to it only'),
]


@pytest.mark.parametrize('prepare, options, how, text', WARNED, ids=[row[3][:60] for row in WARNED])
def test_it_is_warned_of(prepare, options, how, text):
    need_root()
    need(HELD & NEEDED == NEEDED, 'needs the capabilities of root')
    if options.get('user') == 'daemon':
        need(os.path.exists('/etc/passwd'), 'needs accounts')
    found = plan_of(prepare, options, **how)
    assert [one for one in found if text in one], found


def test_nothing_is_warned_of_where_nothing_calls_for_it():
    """By the program's own modules only: where they are is this machine's affair."""
    need_root()
    found = plan_of(nothing, KEEP)
    assert [one for one in found if 'importing modules later' not in one] == []
    assert plan_of(nothing, KEEP, exec=True) == ()


def in_groups_by_account_for_good():
    in_groups_by_account()
    without(SETGID)()


NAMED = dict(user='daemon', supplemental_groups='24', chroot='/')      # with a jail, groups by account matter anyway
# prepared by, options, arguments of plan; words of a warning that does not belong there
NOT_WARNED = [
    (in_groups_by_account, NAMED, {}, 'it will not be in the groups of'),
    (in_groups_by_account_for_good, dict(user='daemon'), {}, 'it will not be in the groups of'),
    (in_groups, dict(AS_1111, supplemental_groups='24'), {}, 'are given up'),
    (in_groups_for_good, AS_1111, {}, 'are given up'),
    (in_groups_for_good, dict(AS_1111, supplemental_groups='24'), {}, 'stay as they are'),
    (in_groups, AS_1111, {}, 'stay as they are'),
    (nothing, dict(user='root'), dict(no_new_privs=False), 'no_new_privs is waived'),
    (nothing, dict(user='root'), {}, 'this is not confinement'),
    (nothing, dict(user='root', capabilities=''), {}, 'root keeps everything'),
    (nothing, dict(user='root', group='0', capabilities=''), {}, "group 0 is root's own"),
    (child_started, dict(user='1111', group='8'), {}, 'amounts to root'),
    (modules_closed, AS_1111, dict(exec=True), 'importing modules later will fail'),
    (user_namespace(), dict(user='11', group='8', capabilities=''), {}, 'in this user namespace capabilities count'),
    (user_namespace(), dict(user='0', group='0'), {}, 'in this user namespace capabilities count'),
    (without(SETPCAP), KEEP, dict(no_new_privs=False), 'the bounding set stays as it is'),
    (lambda: capset(HELD & ~SETPCAP, HELD & ~SETPCAP), dict(user='0', group='0'), {}, 'the bounding set stays as it is'),
]


@pytest.mark.parametrize('prepare, options, how, text', NOT_WARNED, ids=['%s %d' % (row[3], n) for n, row in enumerate(NOT_WARNED)])
def test_it_is_not_warned_of_where_it_is_not_so(prepare, options, how, text):
    need_root()
    need(HELD & NEEDED == NEEDED, 'needs the capabilities of root')
    assert not [one for one in plan_of(prepare, options, **how) if text in one]


@pytest.mark.parametrize('text, words', [
    ('user = root', 'root keeps everything'),
    ('user = root capabilities = ""', 'this is not confinement'),
    ('user = 1111 group = 0', "group 0 is root's own"),
    ('user = nobody', 'nobody is shared by many'),
    ('user = 1111 group = 4321 capabilities = "cap_setuid+ep"', 'amounts to root: cap_setuid'),
    ('user = 1111 group = 4321 capabilities = "cap_kill+p"', 'permitted but not effective'),
])
def test_check_warns_of_what_can_be_told_without_a_process(text, words):
    warnings = capdrop.check(capdrop.loads('Security { %s }' % text), True)[1]
    assert len([one for _, one in warnings if words in one]) == 1
    good = capdrop.loads('Security { user = 1111 group = 4321 capabilities = "cap_kill+ep" }')
    assert capdrop.check(good, True) == ([], [])


def test_check_warns_of_what_the_users_own_file_does():
    """Where only root and the user can change something on the way."""
    need_root()

    def child():
        own_mounts()
        c('mount', b'none', b'/mnt', b'tmpfs', 0, b'mode=755')
        found = {}
        for name, roots, own in (
                ('its own', '', 'user = 1111 group = 4321 capabilities = "cap_kill+ep" chroot = "/mnt"'),
                ('overrides', 'user = 1111 group = 4321 chroot = "/mnt"', 'chroot = "/"'),
                ('gives', 'user = 1111 group = 4321', 'capabilities = "cap_setuid+ep"')):
            with open('/mnt/own', 'w') as file:
                file.write('Security { %s }' % own)
            os.chown('/mnt/own', 1111, 0)
            with open('/mnt/main', 'w') as file:
                file.write('Security { %s } include "own"' % roots)
            security = capdrop.load('/mnt/main' if roots else '/mnt/own')
            found[name] = [one for _, one in capdrop.check(security, True)[1]]
        return found
    found = in_child(child)
    own = [one for one in found['its own'] if 'can be rewritten by the user it names: it may not grant' in one]
    assert len(own) == 1                                # once for the file, not for each option
    assert [one for one in found['overrides'] if 'what root says he may not change' in one]
    assert [one for one in found['gives'] if 'who could thus give himself capabilities: cap_setuid' in one]
