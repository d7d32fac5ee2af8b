"""SunOS: capdrop.py and solaris_priv.py, unchanged, on the stand-in for libc.so.1 in solaris_libc.c.  The process that drops
is played there; nothing real changes, except the root directory where a test says so."""
import ctypes
import errno
import faulthandler
import importlib
import json
import os
import pickle
import posix
import shutil
import struct
import sys
import tempfile

import pytest

from conftest import TESTS, TOP, Ended, in_child, need, need_root, run_command

import capdrop
import solaris_priv

SOURCE = os.path.join(TESTS, 'solaris_libc.c')
CC = shutil.which('cc')
FLAGS = ['-std=gnu11', '-O1', '-Wall', '-Wextra', '-Werror', '-fno-builtin', '-fPIC']
LIE, SILENT = -1, 1000                              # sim_inject: success, and nothing done; failure, and errno not set
AWARE, RESET, XPOLICY, PFEXEC, PFEXEC_AUTH = 0x2, 0x40, 0x80, 0x100, 0x200
ZFS, UFS, NO_ACL = 0, 1, 2                           # sim_acl
SETS = 'Permitted', 'Limit', 'Effective', 'Inheritable'
CLUSTER = 'basic net_privaddr net_bindmlp sys_resource sys_net_config net_rawaccess'
CLUSTER_SET = 'basic,net_bindmlp,net_privaddr,net_rawaccess,sys_net_config,sys_resource'
BASIC = ('file_link_any file_read file_write net_access proc_exec proc_fork proc_info '
         'proc_secflags proc_session').split()
METHOD = 'basic,net_privaddr,proc_setid,proc_chroot'    # an SMF method_credential


# ---- the machine

def cc(*args):
    result = run_command([CC] + list(args))
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope='session')
def libc(tmpdir_factory):
    need(CC, 'needs a C compiler')
    path = str(tmpdir_factory.mktemp('sunos').join('libc.so.1'))
    cc('-c', '-o', path + '.o', '-DMODEL_BITS=%d' % (8 * ctypes.sizeof(ctypes.c_void_p)), SOURCE, *FLAGS)
    cc('-shared', '-o', path, path + '.o')
    return path


class Machine:
    """The controls of the stand-in, through the handle that solaris_priv.py will have, too."""

    def __init__(self, path):
        self.path, self.lib, self.notes = path, ctypes.CDLL(path), []
        for name in 'sim_log', 'sim_observed':
            getattr(self.lib, name).restype = ctypes.c_char_p
        self.start()

    def start(self, state='global root', solaris10=False):
        self.lib.sim_reset(int(solaris10))
        self.groups(0, 1, 2)
        STATES[state](self)
        return self

    def ids(self, r, e, s):
        self.lib.sim_ids(r, e, s, r, e, s)

    def groups(self, *groups):
        self.lib.sim_groups(len(groups), (ctypes.c_uint * len(groups))(*groups))

    def sets(self, **texts):
        for name, text in texts.items():
            for which in SETS:
                if which[0] in name:
                    assert self.lib.sim_set(which.encode(), text.encode())

    def zone(self, added='', exclusive=False):
        self.lib.sim_zone(3, b'web', int(exclusive), added.encode())

    def flags(self, flags):
        self.lib.sim_flags(flags)

    def acl(self, path, entries):
        """The access control list of a file; path None: the kind of every other one."""
        if path is None:
            return self.lib.sim_acl(None, entries, 0, None)
        of_ufs = bool(entries) and len(entries[0]) == 3
        form = '=iIHxx' if of_ufs else '=IIHH'
        data = b''.join(struct.pack(form, *entry) for entry in entries)
        self.lib.sim_acl(path.encode(), int(of_ufs), len(entries), data)

    def inject(self, name, call, code):
        self.lib.sim_inject(name.encode(), call, code)

    def log(self):
        """The calls and their arguments; " *" after those that changed something."""
        return self.lib.sim_log().decode().split('\n')[1:]

    def changes(self):
        """The calls of the log that are there to change something."""
        return [line.replace(' *', '') for line in self.log() if line.startswith(('set', 'chroot'))]

    def live(self):
        return [self.lib.sim_live(kind) for kind in range(3)]

    def held(self):
        """Everything about the played process."""
        groups = [self.lib.sim_group(n) for n in range(20)]
        return dict({name: self.lib.sim_observed(name.encode()).decode() for name in SETS},
                    ids=[self.lib.sim_id(n) for n in range(6)], groups=[gid for gid in groups if gid >= 0],
                    flags=self.lib.sim_get_flags())


def user(m):
    m.ids(1000, 1000, 1000)
    m.groups(1000)


def smf_user(m):
    user(m)
    m.sets(PEI=METHOD)


def smf_root(m, limit='all'):
    m.flags(AWARE)
    m.sets(PEI=METHOD, L=limit)


def profile_shell(m):
    """As pfexec leaves a program of uid 0: flags that grant more than the sets, and one that lets ids rewrite them."""
    m.sets(PEI='basic,net_privaddr,proc_setid,sys_time', L='all')
    m.flags(AWARE | RESET | XPOLICY | PFEXEC | PFEXEC_AUTH)


STATES = {
    'global root': lambda m: None,
    'zone root': lambda m: m.zone(),
    'zone root, limitpriv': lambda m: m.zone('net_rawaccess,sys_time'),
    'zone root, exclusive IP': lambda m: m.zone(exclusive=True),
    'user': user,
    'smf user': smf_user,
    'smf root': smf_root,
    'smf root, limited': lambda m: smf_root(m, METHOD),
    'reduced limit': lambda m: m.sets(L='basic,net_privaddr,proc_setid,proc_audit,sys_resource'),
    'setuid root': lambda m: m.ids(1000, 0, 0),
    'set back': lambda m: m.ids(0, 1000, 0),
    'profile shell': profile_shell,
}


def platform_of(m):
    """The platform, on the stand-in; the heap of the process is the stand-in's, too."""
    return solaris_priv.Solaris(m.path, m.path)


class Fields:
    """What State is to the platform."""

    def __init__(self, fields):
        self.__dict__.update(fields)


class Case:
    """What the platform may look at, without the core."""

    def __init__(self, platform, sets, uid=1234, gid=1234, groups=(), exec=False, confined=True):
        self.platform, self.exec, self.confined = platform, exec, confined
        fields = platform.read()
        self.found = Fields(fields)
        self.groups = groups
        held = dict(fields, uid=(uid,) * 3, gid=(gid,) * 3)
        if groups is not None:
            held['groups'] = groups
        self.goal = Fields(dict(held, **platform.goal(sets, Fields(held), None, exec, True)))

    def rows(self):
        yield from self.platform.before(self)
        if self.groups is not None:
            yield self.platform.set_groups(self.groups)
        yield self.platform.set_gid(self.goal.gid[0])
        yield self.platform.set_uid(self.goal.uid[0])
        yield from self.platform.after(self)


def perform(case):
    """The drop, and the read-back, as the core does it."""
    for _, function, *args in tuple(case.rows()):
        function(*args)
    assert case.platform.read() == vars(case.goal)


def never(*args):
    raise AssertionError('not through the C library of the platform')


NOT_ON_SUNOS = 'setresuid', 'setresgid', 'getresuid', 'getresgid', 'O_PATH'
PLAYED = ('setuid', 'seteuid', 'setreuid', 'setgid', 'setegid', 'setregid', 'setgroups',
          'getgroups', 'getuid', 'geteuid', 'getgid', 'getegid', 'initgroups', 'chroot')


def sunos(m):
    """Make this (forked) Python look like one on SunOS."""
    sys.platform = 'sunos5'
    for module in os, posix:
        for name in NOT_ON_SUNOS:
            delattr(module, name)
        for name in PLAYED:
            setattr(module, name, never)
        module.sysconf = sysconf
    play(m)


def play(m):
    """Let capdrop use the stand-in."""
    capdrop.PLATFORMS['sunos5'] = lambda: platform_of(m)
    capdrop.PLATFORMS['linux'] = never
    del capdrop.platforms_in_use[:]


real_sysconf = os.sysconf


def sysconf(name):
    return 16 if name == 'SC_NGROUPS_MAX' else real_sysconf(name)


def on_sunos(libc, work, state='global root', **options):
    """work(machine) in a child that believes to be on SunOS, started as `state`."""
    def child():
        m = Machine(libc).start(state, **options)
        sunos(m)
        return work(m)
    return in_child(child)


def security(privileges=None, user=1234, **options):
    options.setdefault('group', user)
    return capdrop.Security(user=user, privileges=privileges, **options)


class Result:
    """What came of an attempt: 'done', 'ran', 'refused' or 'ended' (then nothing is left to
    look at), why, and what the process then held; of one that ran, what the command held."""
    held = log = changes = live = None
    notes = ()

    def __init__(self, outcome, why):
        self.outcome, self.why = outcome, why

    def of(self, m):
        self.held, self.log, self.changes, self.live = m.held(), m.log(), m.changes(), m.live()
        self.notes = tuple(m.notes)
        return self


def attempt(m, wanted, exec=False):
    """The Result of dropping as `wanted`, or launching, in a child.  execve is played."""
    with tempfile.TemporaryFile() as answer:
        def tell(outcome, why=''):
            pickle.dump(Result(outcome, why).of(m), answer)
            answer.flush()

        def execve(path, argv, env):
            assert m.lib.sim_exec(0, 0) == 0
            tell('ran')
            os._exit(0)

        def work():
            posix.execve = execve
            try:
                if exec:
                    capdrop.launch(wanted, ['/bin/command'])
                tell('done', str(capdrop.drop(wanted)))
            except (capdrop.Error, OSError) as error:
                tell('refused', str(error))

        try:
            in_child(work)
        except Ended as ended:
            status, text = ended.args
            if status == 125:
                return Result('ended', text)
            assert status == 0, text
        answer.seek(0)
        return pickle.load(answer)


def cli(*args):
    """capdrop's main, in a child: (status, what it wrote)."""
    def work():
        with open('output', 'wb+') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            status = capdrop.main(list(args))
            file.seek(0)
            return status, file.read().decode()
    return in_child(work)


def drop_from(libc, state, privileges, exec=False, user=1234, **options):
    """(outcome, why, what is held then, the calls that changed something)."""
    def work(m):
        before = m.held()
        result = attempt(m, security(privileges, user, **options), exec)
        if result.outcome == 'ended':
            return 'ended', result.why, None, None
        assert result.live == [0, 0, 0]             # everything went back to its allocator
        if result.outcome == 'refused':
            assert result.held == before and result.changes == []
        return result.outcome, result.why, result.held, result.changes
    return on_sunos(libc, work, state)


def is_held(held, uid, text, inheritable, flags=AWARE):
    assert held['ids'] == [uid] * 6
    assert [held[name] for name in SETS] == [text, text, text, inheritable]
    assert held['flags'] == flags


# ---- the drop

def test_the_cluster_stanza_in_the_global_zone_keeps_exactly_its_set(libc):
    outcome, why, held, _ = drop_from(libc, 'global root', CLUSTER)
    assert outcome == 'done', why
    is_held(held, 1234, CLUSTER_SET, 'basic')
    assert held['groups'] == []


def test_a_launched_child_holds_exactly_the_set(libc):
    outcome, why, child, _ = drop_from(libc, 'global root', CLUSTER, exec=True)
    assert outcome == 'ran', why
    is_held(child, 1234, CLUSTER_SET, CLUSTER_SET, flags=0)


def test_the_order_is_aware_groups_gid_uid_then_permitted_limit_effective_inheritable(libc):
    changes = drop_from(libc, 'global root', 'basic net_privaddr', supplemental_groups=[7, 8])[3]
    assert changes == [
        'setpflags 2 1', 'setppriv SET Effective all', 'setgroups 2', 'setregid 1234 1234', 'setreuid 1234 1234',
        'setppriv SET Permitted basic,net_privaddr', 'setppriv SET Limit basic,net_privaddr',
        'setppriv SET Effective basic,net_privaddr', 'setppriv SET Inheritable basic',
        # must fail:
        'setreuid 0 0', 'setregid 0 0', 'setgroups 3',
        'setppriv ON Permitted ' + regained('proc_setid'), 'setppriv ON Limit ' + regained('proc_setid')]


def regained(*names):
    """How the stand-in's log shows a set of privileges of which none is basic."""
    words = {name: '!' + name for name in BASIC}
    words.update({name: name for name in names})
    return ','.join(['basic'] + [words[name] for name in sorted(words)])


@pytest.mark.parametrize('state, privileges, kept, inheritable', [
    ('global root', 'all', 'all', 'basic'),
    ('global root', 'all,!sys_time,!net_rawaccess', None, 'basic'),
    ('global root', None, 'basic', 'basic'),
    ('global root', 'PRIV_NET_PRIVADDR basic -Proc_Info', 'basic,net_privaddr,!proc_info',
     'basic,!proc_info'),
    ('zone root', 'basic net_privaddr', 'basic,net_privaddr', 'basic'),
    ('zone root', 'zone', None, 'basic'),
    ('zone root', None, 'basic', 'basic'),
    ('zone root, limitpriv', 'basic net_rawaccess sys_time', 'basic,net_rawaccess,sys_time', 'basic'),
    ('zone root, exclusive IP', 'basic net_rawaccess', 'basic,net_rawaccess', 'basic'),
    ('smf root', 'basic net_privaddr', 'basic,net_privaddr', 'basic,net_privaddr'),
    ('smf root', None, 'basic', 'basic'),
    ('smf root, limited', 'basic net_privaddr proc_setid', 'basic,net_privaddr,proc_setid', None),
    ('smf root, limited', None, 'basic', 'basic'),
    ('smf user', 'basic', 'basic', 'basic'),
    ('reduced limit', 'basic sys_resource', 'basic,sys_resource', 'basic'),
    ('reduced limit', None, 'basic', 'basic'),
    ('setuid root', 'basic sys_time', 'basic,sys_time', 'basic'),
    ('setuid root', None, 'basic', 'basic'),
    ('set back', 'basic sys_time', 'basic,sys_time', 'basic'),
    ('profile shell', 'basic sys_time', 'basic,sys_time', 'basic,sys_time'),
    ('profile shell', None, 'basic', 'basic'),
])
def test_every_start_ends_in_exactly_the_set(libc, state, privileges, kept, inheritable):
    outcome, why, held, _ = drop_from(libc, state, privileges)
    assert outcome == 'done', why
    is_held(held, 1234, kept or held['Permitted'], inheritable or held['Permitted'])
    if privileges == 'zone':
        assert {'sys_mount', 'proc_setid'} <= set(held['Permitted'].split(',')) and 'sys_time' not in held['Permitted']
    outcome, why, child, _ = drop_from(libc, state, privileges, exec=True)
    assert outcome == 'ran', why
    is_held(child, 1234, kept or held['Permitted'], kept or held['Permitted'], flags=0)


def test_a_plain_user_may_give_up_and_stays_who_it_is(libc):
    outcome, why, held, changes = drop_from(libc, 'user', 'basic,!proc_info', user=None)
    assert outcome == 'done', why
    is_held(held, 1000, 'basic,!proc_info', 'basic,!proc_info')
    assert held['groups'] == [1000] and 'setreuid 1000 1000' in changes and 'setgroups 1' not in changes


def test_a_plain_user_may_not_become_another_one(libc):
    outcome, why, _, _ = drop_from(libc, 'user', 'basic')
    assert outcome == 'refused' and 'proc_setid' in why


def test_dropping_again_to_what_is_held_does_nothing_and_to_more_is_refused(libc):
    def work(m):
        capdrop.drop(security('basic'))
        held, calls = m.held(), len(m.changes())
        for forget in False, True:
            if forget:
                del capdrop.last_drop[:]
            capdrop.drop(security('basic'))
            assert m.held() == held and len(m.changes()) == calls
        with pytest.raises(capdrop.RefusedError) as raised:
            capdrop.drop(security('basic net_privaddr'))
        assert m.held() == held and len(m.changes()) == calls
        return str(raised.value)
    assert 'net_privaddr' in on_sunos(libc, work)


def test_root_with_privileges_keeps_just_them_and_a_child_too(libc):
    outcome, why, held, changes = drop_from(libc, 'global root', 'basic net_privaddr', user=0)
    assert outcome == 'done', why
    is_held(held, 0, 'basic,net_privaddr', 'basic')
    assert 'setreuid 0 0' in changes and changes.count('setreuid 0 0') == 1
    is_held(drop_from(libc, 'global root', 'basic net_privaddr', exec=True, user=0)[2], 0, *['basic,net_privaddr'] * 2,
            flags=0)


@pytest.mark.parametrize('state', ['global root', 'zone root', 'smf root', 'setuid root', 'profile shell', 'reduced limit'])
def test_root_without_privileges_keeps_its_sets(libc, state):
    def work(m):
        before = m.held()
        capdrop.drop(security(None, user=0, supplemental_groups=()))
        return before, m.held()
    before, held = on_sunos(libc, work, state)
    assert [held[name] for name in SETS] == [before[name] for name in SETS]
    assert held['ids'] == [0] * 6 and held['flags'] == before['flags'] & ~RESET and held['groups'] == []


def test_root_without_privileges_is_refused_where_its_rights_are_not_effective(libc):
    outcome, why, _, _ = drop_from(libc, 'set back', None, user=0)
    assert outcome == 'refused' and 'proc_setid' in why and 'not effective' in why


def test_root_that_is_not_aware_gets_back_what_its_limit_set_holds(libc):
    def work(m):
        m.ids(0, 1000, 0)
        m.groups()
        m.sets(L='basic,sys_time')
        capdrop.drop(security(None, user=0))
        return m.held()
    held = on_sunos(libc, work)
    is_held(held, 0, 'basic,sys_time', 'basic', flags=0)


def test_root_that_keeps_its_sets_is_asked_for_nothing(libc):
    """Not for what its limit set lacks, nor warned of what the basic set holds."""
    def work(m):
        m.flags(AWARE)
        m.sets(PEI='proc_setid,proc_exec,net_privaddr', L='basic,proc_setid')
        held = [m.held()[name] for name in SETS]
        plan = capdrop.plan(security(None, user=0))
        capdrop.drop(security(None, user=0))
        assert [m.held()[name] for name in SETS] == held
        return plan.refusals, [text for text in plan.warnings if 'basic' in text]
    assert on_sunos(libc, work) == ((), [])


def test_uid_0_from_another_user_takes_every_privilege_of_the_zone(libc):
    outcome, why, _, _ = drop_from(libc, 'smf user', 'basic', user=0)
    assert outcome == 'refused' and 'every privilege of the zone' in why


@pytest.mark.parametrize('effective, privileges, outcome', [
    ('all', 'basic', 'done'), ('all', None, 'done'),
    ('basic,proc_setid', 'basic', 'done'),          # the drop makes effective what is permitted
    ('basic,proc_setid', None, 'refused'),          # root that keeps its sets keeps this, too
])
def test_uid_0_is_in_reach_of_who_holds_every_privilege(libc, effective, privileges, outcome):
    def work(m):
        m.flags(AWARE)
        m.sets(PIL='all', E=effective)
        return attempt(m, security(privileges, user=0))
    result = on_sunos(libc, work, 'user')
    assert result.outcome == outcome, result.why
    if outcome == 'done':
        assert result.held['ids'] == [0] * 6
    else:
        assert 'every privilege of the zone' in result.why


def test_no_attempt_is_made_where_proc_setid_is_retained(libc):
    changes = drop_from(libc, 'global root', 'basic proc_setid')[3]
    assert [line for line in changes if 'uid' in line] == ['setreuid 1234 1234']


def test_where_proc_setid_is_retained_another_privilege_is_asked_for(libc):
    changes = drop_from(libc, 'global root', 'basic proc_setid')[3]
    assert changes[-2:] == ['setppriv ON %s %s' % (name, regained('contract_event'))
                            for name in ('Permitted', 'Limit')]


def test_a_flag_that_was_not_set_is_noticed_at_once(libc):
    def work(m):
        platform = platform_of(m)
        m.inject('setpflags', 1, LIE)
        _, function, *args = platform.flag_row('aware', 1)
        with pytest.raises(OSError) as raised:
            function(*args)
        return raised.value.errno, raised.value.filename
    assert on_sunos(libc, work) == (errno.EPROTO, 'setpflags')


def test_no_memory_is_no_fault_of_the_text(libc):
    def work(m):
        platform = platform_of(m)
        m.inject('priv_str_to_set', 1, errno.ENOMEM)
        with pytest.raises(ValueError) as raised:
            platform.parse('basic')
        return raised.value.args
    assert on_sunos(libc, work) == ('priv_str_to_set: ' + os.strerror(errno.ENOMEM), 0)


def test_profile_flags_are_cleared_first(libc):
    changes = drop_from(libc, 'profile shell', 'basic')[3]
    assert changes[:5] == ['setpflags 64 0', 'setpflags 128 0', 'setpflags 256 0', 'setpflags 512 0',
                           'setpflags 2 1']


@pytest.mark.parametrize('state', ['global root', 'user'])
def test_solaris_10_knows_fewer_privileges_and_flags(libc, state):
    def work(m):
        capdrop.drop(security('basic', user=None if state == 'user' else 1234))
        assert 'file_read' not in platform_of(m).set_of('all')
        return m.held()
    is_held(on_sunos(libc, work, state, solaris10=True), 1000 if state == 'user' else 1234, 'basic', 'basic')


def test_chroot_comes_before_the_uid_and_is_the_directory_that_was_checked(libc, tmpdir):
    need_root()
    real = ctypes.CDLL(None).chroot                 # taken here: in the child it is played
    jail = str(tmpdir.mkdir('jail'))

    def work(m):
        m.lib.sim_chroot(real)
        capdrop.drop(security('basic', chroot=jail))
        assert os.listdir('/') == []
        st = os.stat('/')
        return m.changes(), (st.st_dev, st.st_ino)
    st = os.stat(jail)
    changes, root = on_sunos(libc, work)
    assert root == (st.st_dev, st.st_ino)
    order = [changes.index(line) for line in ('setgroups 0', 'chroot .', 'setreuid 1234 1234')]
    assert order == sorted(order)


def test_a_chroot_that_lies_ends_the_process(libc, tmpdir):
    need_root()
    jail = str(tmpdir.mkdir('jail'))
    outcome, why, _, _ = drop_from(libc, 'global root', 'basic', chroot=jail)   # no real chroot given: it does nothing
    assert outcome == 'ended' and '/' in why


def test_nothing_is_imported_after_the_first_change(libc):
    def work(m):
        class Spy:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if m.changes():
                    m.notes.append(name)

        sys.meta_path.insert(0, Spy)
        done, ran = attempt(m, security('basic')), attempt(m, security('basic'), exec=True)
        assert (done.outcome, ran.outcome) == ('done', 'ran')
        return done.notes + ran.notes
    assert on_sunos(libc, work) == ()


# ---- refusals: nothing has changed (drop_from checks that for every one)

@pytest.mark.parametrize('state, privileges, words', [
    ('zone root', CLUSTER, 'net_rawaccess sys_net_config are not available in this zone (web, zone id 3): '
                           'sys_net_config is prohibited in every zone but the global zone; '
                           'net_rawaccess is optional: zonecfg limitpriv'),
    ('zone root', 'basic sys_ip_config', 'sys_ip_config is only for a zone with its own IP stack'),
    ('zone root', 'all', 'all is more than this zone (web, zone id 3) has: say zone'),
    ('zone root', 'basic sys_time', 'sys_time is optional'),
    ('zone root', 'all !sys_time', 'not available in this zone'),
    ('smf root', 'basic sys_time', 'sys_time is not permitted to this process: not in its permitted set'),
    ('smf root', 'all', 'all is more than is permitted to this process: name the privileges'),
    ('reduced limit', 'basic sys_time net_rawaccess', 'net_rawaccess sys_time are not permitted to this process'),
    ('profile shell', 'basic net_rawaccess', 'net_rawaccess is not permitted to this process'),
    ('smf user', 'basic sys_time', 'sys_time is not permitted'),
])
@pytest.mark.parametrize('exec', [False, True])
def test_what_cannot_be_had_is_refused_before_any_change(libc, state, privileges, words, exec):
    outcome, why, _, changes = drop_from(libc, state, privileges, exec)
    assert outcome == 'refused' and words in why


@pytest.mark.parametrize('state, privileges, sentences', [
    ('zone root', 'basic sys_time', [
        'sys_time is not available in this zone (web, zone id 3): '
        'sys_time is optional: zonecfg limitpriv, in the global zone']),
    ('zone root', 'basic sys_config proc_zone', [
        'proc_zone sys_config are not available in this zone (web, zone id 3): '
        'proc_zone sys_config are prohibited in every zone but the global zone']),
    ('zone root', 'basic sys_ppp_config', [
        'sys_ppp_config is not available in this zone (web, zone id 3): sys_ppp_config is '
        'only for a zone with its own IP stack (zonecfg: ip-type=exclusive)']),
    ('zone root', 'all', ['all is more than this zone (web, zone id 3) has: say zone']),
    ('smf root', 'all', [
        'all is more than is permitted to this process: name the privileges']),
    ('smf root', 'basic sys_time', [
        'sys_time is not permitted to this process: not in its permitted set; its SMF method, '
        'or a drop before this one, left it out']),
    ('smf user', 'basic sys_time', [
        'sys_time is not permitted to this process: not in its permitted set; start it as '
        'root, or with it']),
    ('smf root, limited', 'basic sys_time', [
        'sys_time is not permitted to this process: not in its %s set; its SMF method, or a '
        'drop before this one, left it out' % name for name in ('permitted', 'limit')]),
    ('zone root', 'basic net_privaddr', []), ('global root', 'all', []),
    ('global root', 'zone', []), ('zone root', None, []), ('smf user', None, []),
])
def test_all_reasons_are_given_and_no_other(libc, state, privileges, sentences):
    work = lambda m: capdrop.plan(security(privileges)).refusals
    assert list(on_sunos(libc, work, state)) == sentences


def test_a_limit_set_cut_after_start_is_named(libc):
    def work(m):
        m.flags(AWARE)
        m.sets(PEI='all', L='basic,proc_setid')
        return attempt(m, security('basic sys_time'))
    result = on_sunos(libc, work)
    assert result.outcome == 'refused'
    assert 'sys_time is not permitted to this process: not in its limit set' in result.why


def test_launch_without_proc_exec_is_refused_and_drop_is_not(libc):
    outcome, why, _, _ = drop_from(libc, 'global root', 'basic !proc_exec', exec=True)
    assert outcome == 'refused' and 'proc_exec' in why
    assert drop_from(libc, 'global root', 'basic !proc_exec')[0] == 'done'

    def keeps_its_sets(m):
        m.flags(AWARE)
        m.sets(PEI='proc_setid', L='proc_setid')
        return capdrop.plan(security(None, user=0), exec=True).refusals
    assert 'proc_exec' in on_sunos(libc, keeps_its_sets)[0]


def test_chroot_needs_proc_chroot(libc):
    outcome, why, _, _ = drop_from(libc, 'reduced limit', 'basic', chroot='/etc')
    assert outcome == 'refused' and 'proc_chroot' in why


def test_more_groups_than_the_system_takes_are_refused(libc):
    outcome, why, _, _ = drop_from(libc, 'global root', 'basic', supplemental_groups=range(2000, 2017))
    assert outcome == 'refused' and '17' in why and '16' in why
    assert drop_from(libc, 'global root', 'basic', supplemental_groups=range(2000, 2016))[0] == 'done'


@pytest.mark.parametrize('text, offset, words', [
    ('basic net_privadr', 6, 'no privilege "net_privadr" (did you mean "net_privaddr"?)'),
    ('net_privaddr,  priv_sys_tiem,basic', 15,
     'no privilege "priv_sys_tiem" (did you mean "sys_time"?)'),
    ('net_privaddr,\t !priv_sys_tiem basic', 15, 'no privilege "!priv_sys_tiem"\n'),
    ('basic proc_setidd', 6, 'no privilege "proc_setidd"\n'),       # it amounts to root
    ('al', 0, 'no privilege "al"\n'),
    ('zzzz', 0, 'no privilege "zzzz"\n'),
    ('bassic', 0, '(did you mean "basic"?)'),
    ('net_privaddr !basic', 13, '"!basic": basic takes nothing before it'),
    ('-ALL', 0, '"-ALL": all takes nothing before it'),
    ('basic priv_zone', 6, '"priv_zone": zone takes nothing before it'),
    ('basic !none', 6, '"!none": none takes nothing before it'),
    ('basic cap_net_raw+ep', 6, '"cap_net_raw+ep" is a capability of Linux'),
])
def test_a_word_that_is_not_understood_is_shown_with_its_column(libc, tmpdir, text, offset, words):
    def work(m):
        with open('conf', 'w') as file:
            file.write('Security {\n user = "1234"\n group = "1234"\n privileges = "%s"\n}\n' % text)
        with pytest.raises(ValueError) as raised:
            platform_of(m).parse(text)
        assert m.live() == [0, 0, 0]
        return raised.value.args, cli('check', 'conf')
    with tmpdir.as_cwd():
        (message, at), (status, output) = on_sunos(libc, work)
    assert words in message + '\n' and at == offset
    assert status == 1 and 'conf:4:%d: error: privileges: ' % (16 + offset) in output and words in output


def test_an_id_that_would_be_ephemeral_is_refused(libc):
    for options in {'user': 2147483648, 'group': 1}, {'group': 2147483648}, {'supplemental_groups': [2147483648]}:
        outcome, why, _, _ = drop_from(libc, 'global root', 'basic', **options)
        assert outcome == 'refused' and '2147483647' in why
    assert drop_from(libc, 'global root', 'basic', user=2147483647)[0] == 'done'


def test_the_goal_is_arithmetic(libc):
    def work(m):
        platform = platform_of(m)
        held = Fields(dict(platform.assumed_root(), inheritable=platform.set_of('zone')))
        less = Fields(dict(vars(held), permitted=platform.set_of('basic,!proc_info,sys_time')))
        sets = platform.parse('basic,sys_time')
        before = len(m.log())
        goals = [platform.goal(sets, held, None, True, True),
                 platform.goal(sets, held, None, False, False),
                 platform.goal(None, less, None, True, True),
                 platform.goal_of_root(held),
                 platform.goal_of_root(Fields(dict(vars(held), aware=1)))]
        assert len(m.log()) == before               # no call
        return [{name: str(value) for name, value in goal.items()} for goal in goals]

    flags = dict(aware='1', aware_reset='0', xpolicy='0', pfexec='0', pfexec_auth='0')
    sets = lambda text: dict(permitted=text, limit=text, effective=text, inheritable=text,
                             **flags)
    assert on_sunos(libc, work) == [
        sets('basic,sys_time'), sets('basic,sys_time'), sets('basic,!proc_info'),
        dict(aware_reset='0', permitted='all', effective='all'), dict(aware_reset='0')]


def test_privileges_that_do_not_fit_a_release_are_unknown_there(libc):
    work = lambda m: attempt(m, security('basic file_read'))
    result = on_sunos(libc, work, solaris10=True)
    assert result.outcome == 'refused' and result.why.endswith('no privilege "file_read"')


# ---- warnings

def warnings_of(libc, privileges, state='global root', **options):
    return ' '.join(on_sunos(libc, lambda m: capdrop.plan(security(privileges), **options).warnings, state))


def test_missing_basic_privileges_are_warned_of(libc):
    text = warnings_of(libc, 'net_privaddr')
    assert 'proc_fork' in text and 'opening files to read' in text
    assert 'proc_fork' in warnings_of(libc, '')
    assert 'proc_secflags, of the basic set, this will fail: what needs it' in warnings_of(
        libc, 'basic !proc_secflags')
    assert 'of the basic set' not in warnings_of(libc, 'basic') + warnings_of(libc, None)


def test_the_switch_for_new_privileges_says_that_it_has_no_effect(libc):
    assert 'has no effect' in warnings_of(libc, 'basic', no_new_privs=False)
    assert 'has no effect' not in warnings_of(libc, 'basic')


def test_the_empty_set_is_not_the_absent_option(libc):
    outcome, why, held, _ = drop_from(libc, 'global root', '')
    assert outcome == 'done', why
    assert held['Permitted'] == held['Limit'] == regained()


def test_privileges_that_amount_to_root_are_told_apart(libc):
    text = 'basic,proc_setid,file_dac_write,net_privaddr'
    work = lambda m: platform_of(m).powerful(platform_of(m).parse(text))
    assert on_sunos(libc, work) == ['file_dac_write', 'proc_setid']


# ---- a call that fails, or that lies

def calls(log):
    """(function, which call of it, the whole line) for every call of a log."""
    seen = {}
    for line in log:
        name = line.split(' ')[0]
        seen[name] = seen.get(name, 0) + 1
        yield name, seen[name], line


FREES = 'priv_freeset', 'free', 'ucred_free'
CHANGE = 'setpflags', 'setppriv', 'setgroups', 'setregid', 'setreuid'


def sweep(m, state, privileges, exec, codes, only=None):
    """Every call of a good run fails once, and lies once: what came out wrong, and how many
    were tried."""
    wrong, tried = [], 0
    wanted = security(privileges, supplemental_groups=[7])
    before = m.start(state).held()
    good = attempt(m, wanted, exec)
    assert good.outcome == ('ran' if exec else 'done'), good.why
    lasts = [n for n, line in enumerate(good.log) if line.startswith('setppriv SET')]
    first_attempt = max(lasts) + 1
    for n, (name, call, line) in enumerate(calls(good.log)):
        if only is not None and name not in only:
            continue
        for code in codes:
            m.start(state).inject(name, call, code)
            result = attempt(m, wanted, exec)
            tried += 1
            what = line, call, code
            if result.outcome == good.outcome:
                if not is_harmless(name, line, code, n >= first_attempt):
                    wrong.append(('success', what))
                if result.held != good.held:
                    wrong.append(('success with', result.held, what))
            elif result.outcome == 'refused' and result.held != before:
                wrong.append(('refused after a change', what))
            elif result.outcome not in ('refused', 'ended') or not result.why:
                wrong.append((result.outcome, result.why, what))
            if name not in FREES and result.live not in (None, [0, 0, 0]):
                wrong.append(('leak', result.live, what))
    return wrong, tried


def is_harmless(name, line, code, attempted):
    """May the drop succeed all the same?"""
    if name in ('getzonenamebyid', 'poll'):         # the number is shown then
        return True
    if name == 'getpflags' and code == errno.EINVAL:    # a flag that is not known there
        return True
    if name not in CHANGE:
        return name in FREES or code == LIE or attempted and name == 'priv_str_to_set'
    if code == LIE:
        return not line.endswith(' *')              # it was so already
    return attempted                                # it must fail there


@pytest.mark.parametrize('exec, code', [(True, LIE), (True, errno.EPERM), (False, LIE), (False, errno.EINVAL)])
def test_no_call_that_fails_or_lies_ends_in_success(libc, exec, code):
    wrong, tried = on_sunos(libc, lambda m: sweep(m, 'global root', 'basic net_privaddr', exec, [code]))
    assert wrong == [] and tried > 250


@pytest.mark.parametrize('state', ['zone root', 'smf root', 'smf user', 'reduced limit', 'setuid root', 'set back',
                                   'profile shell'])
def test_no_change_that_fails_or_lies_ends_in_success_from_any_start(libc, state):
    wrong, tried = on_sunos(libc, lambda m: sweep(m, state, 'basic', True, [LIE, errno.EPERM, errno.EINVAL], CHANGE))
    assert wrong == [] and tried > 30


@pytest.mark.parametrize('name', ['getppriv', 'setppriv', 'setpflags', 'setgroups', 'setregid', 'setreuid', 'ucred_get',
                                  'ucred_getruid', 'ucred_getsuid', 'ucred_getegid', 'getpflags', 'ucred_getgroups'])
@pytest.mark.parametrize('code', [LIE, errno.EPERM])
def test_no_call_that_always_fails_or_lies_ends_in_success(libc, name, code):
    def work(m):
        m.inject(name, 0, code)
        return attempt(m, security('basic', supplemental_groups=[7]), exec=True)
    assert on_sunos(libc, work).outcome in ('refused', 'ended')


def test_a_set_that_was_never_read_shows(libc):
    def work(m):
        platform = platform_of(m)
        m.inject('getppriv', 0, LIE)
        with pytest.raises(OSError) as raised:
            platform.read()
        return raised.value.errno
    assert on_sunos(libc, work) == errno.EPROTO


def test_a_failure_says_which_step_and_why(libc):
    def work(m):
        m.inject('setppriv', 2, errno.EPERM)
        return attempt(m, security('basic'))
    result = on_sunos(libc, work)
    assert result.outcome == 'ended' and result.why == (
        'capdrop: half-dropped and so ended: setppriv(PRIV_SET, Permitted, "basic"): %s\n'
        % os.strerror(errno.EPERM))


def test_errno_is_read_only_after_a_failure_and_is_not_an_older_one(libc):
    def work(m):
        ctypes.set_errno(errno.EPERM)
        assert attempt(m, security('basic')).outcome == 'done'
        m.start().inject('getpflags', 1, SILENT)
        ctypes.set_errno(errno.EINVAL)              # which would mean: a flag not known
        return attempt(m, security('basic'))
    result = on_sunos(libc, work)
    assert result.outcome == 'refused'
    assert result.why == 'getpflags: failed and did not say why'


# ---- the command line

def test_exec_runs_the_command_and_after_a_lie_does_not(libc, tmpdir):
    def launch(m, lie):
        if lie:
            m.inject('setreuid', 1, LIE)
        return capdrop.main(['exec', '-q', '--user', '1234', '--group', '1234', '--privileges', 'basic net_privaddr', '--',
                             '/bin/sh', '-c', 'echo $HOME > ran'])
    with tmpdir.as_cwd():
        with pytest.raises(Ended) as ended:
            on_sunos(libc, lambda m: launch(m, True))
        assert ended.value.args[0] == 125 and 'half-dropped' in ended.value.args[1] and not os.path.exists('ran')
        with pytest.raises(Ended) as ended:
            on_sunos(libc, lambda m: launch(m, False))
        assert ended.value.args == (0, '') and tmpdir.join('ran').read() == '/\n'


def test_plan_and_check_speak_solaris_and_leave_capabilities_alone(libc, tmpdir):
    def work(m):
        options = ['--user=1234', '--group=1234', '--capabilities=cap_net_raw+ep', '--privileges=basic net_privaddr']
        return cli('plan', *options), cli('check', *options), cli('plan', '--json', *options), m.changes()
    with tmpdir.as_cwd():
        (status, plan), check, document, changes = on_sunos(libc, work, 'zone root')
    assert status == 0 and changes == [] and check[0] == 0 and 'error' not in check[1] and 'privileges' not in check[1]
    for words in ('setppriv(PRIV_SET, Permitted, "basic,net_privaddr")', 'setreuid(1234, 1234)', 'not applied',
                  'zone         3 (web)', 'limit        basic,net_privaddr\n'):
        assert words in plan
    ends_as = json.loads(document[1])['ends_as']
    assert document[0] == 0 and ends_as['limit'] == sorted(BASIC + ['net_privaddr'])


def test_check_says_what_exec_would_refuse(libc, tmpdir):
    def work(m):
        return [cli('check', '--user=1234', '--group=1234', '--privileges=' + text)
                for text in ('basic sys_time', 'all', 'basic !proc_exec', 'basic')]
    with tmpdir.as_cwd():
        answers = on_sunos(libc, work, 'zone root')
    assert 'sys_time is not available in this zone (web, zone id 3)' in answers[0][1]
    assert 'say zone' in answers[1][1] and 'could not be executed' in answers[2][1]
    assert answers[3] == (0, '')


def test_plan_exits_125_with_the_refusal(libc, tmpdir):
    def work(m):
        return cli('plan', '--user', '1234', '--group', '1234', '--privileges', CLUSTER)
    with tmpdir.as_cwd():
        status, output = on_sunos(libc, work, 'zone root')
    assert status == 125 and 'sys_net_config is prohibited' in output


def test_status_shows_this_process_and_others(libc, tmpdir):
    def work(m):
        m.start('smf user').flags(AWARE | PFEXEC)
        m.lib.sim_other(4242)
        m.start('zone root')
        return [cli('status'), cli('status', '4242'), cli('status', '4243'),
                cli('status', str(4242 + (1 << 32)))]
    with tmpdir.as_cwd():
        (status, own), (_, other), gone, wrapped = on_sunos(libc, work)
    assert status == 0 and 'zone         3 (web)' in own and 'aware        0' in own and 'uid          0 0 0' in own
    for words in ('uid          1000 1000 1000', 'permitted    basic,net_privaddr,proc_chroot,proc_setid',
                  'aware        1', 'pfexec       1', 'xpolicy      0'):
        assert words in other
    assert gone[0] == wrapped[0] == 125 and 'no process 4243' in gone[1]


def test_audit_holds_a_process_against_the_stanza(libc, tmpdir):
    def work(m):
        def differ(asked, wanted, exec=False):
            """How a process that was to become `asked` differs from `wanted`."""
            m.start('global root')
            case = Case(platform_of(m), *asked, exec=exec)
            perform(case)
            if exec:
                assert m.lib.sim_exec(0, 0) == 0
            m.lib.sim_other(os.getppid())           # a pid that is there, for its /proc
            m.start('global root')                  # the auditor
            audit = capdrop.audit(wanted, os.getppid())
            return audit.like, audit.unseen, [str(one) for one in audit]

        asked = platform_of(m).parse('basic net_privaddr'),
        answers = [differ(asked, security('basic net_privaddr'), exec) for exec in (False, True)]
        answers += [differ(asked, wanted) for wanted in (
            security('basic'), security('basic net_privaddr', group=7),
            security('basic net_privaddr', user=0))]
        return answers
    with tmpdir.as_cwd():
        same, launched, more, group, root = on_sunos(libc, work)
    assert same == ('drop', ['threads', 'cwd_outside'], [])     # this /proc has no lwp
    assert launched == ('launch', ['threads', 'cwd_outside'], [])
    assert 'permitted: wanted basic, has basic,net_privaddr (more than asked)' in more[2]
    assert group[2] == ['gid: wanted 7 7 7, has 1234 1234 1234 (more and less than asked)']
    assert 'uid: wanted 0 0 0, has 1234 1234 1234 (more and less than asked)' in root[2]


# ---- the library

POINTER, INT, UINT, TEXT, OUT = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)
PROTOTYPES = {
    'priv_str_to_set': (POINTER, POINTER, TEXT, OUT), 'priv_set_to_str': (POINTER, POINTER, ctypes.c_char, INT),
    'priv_freeset': (None, POINTER), 'free': (None, POINTER), 'getppriv': (INT, TEXT, POINTER),
    'setppriv': (INT, INT, TEXT, POINTER), 'getpflags': (UINT, UINT), 'setpflags': (INT, UINT, UINT),
    'ucred_get': (POINTER, INT), 'ucred_free': (None, POINTER), 'ucred_getgroups': (INT, POINTER, OUT),
    'ucred_getprivset': (POINTER, POINTER, TEXT), 'ucred_getpflags': (UINT, POINTER, UINT),
    'poll': (INT, POINTER, ctypes.c_ulong, INT), 'acl': (INT, TEXT, INT, INT, POINTER),
    'ucred_getzoneid': (INT, POINTER), 'getzoneid': (INT,), 'getzonenamebyid': (ctypes.c_ssize_t, INT, TEXT, ctypes.c_size_t),
    'setgroups': (INT, INT, POINTER), 'setregid': (INT, UINT, UINT), 'setreuid': (INT, UINT, UINT), 'chroot': (INT, TEXT),
}
PROTOTYPES.update({'ucred_get' + which + kind: (UINT, POINTER) for which in 'res' for kind in ('uid', 'gid')})


def test_every_function_is_declared_as_the_manual_says(libc, monkeypatch):
    library = ctypes.CDLL(libc, use_errno=True)
    monkeypatch.setattr(ctypes, 'CDLL', lambda path, use_errno: library)
    solaris_priv.Solaris()
    declared = {name: (function.restype,) + tuple(function.argtypes) for name, function in vars(library).items()
                if not name.startswith('_')}
    assert declared == PROTOTYPES


def test_pointers_of_the_stand_in_do_not_fit_an_int(libc):
    if ctypes.sizeof(ctypes.c_void_p) > 4:
        function = ctypes.CDLL(libc).priv_allocset
        function.restype = ctypes.c_void_p
        assert in_child(function) > 1 << 32


def test_the_32_bit_model_has_the_same_widths():
    need(CC, 'needs a C compiler')
    command = [CC, '-m32', '-ffreestanding', '-fsyntax-only', '-x', 'c']
    need(run_command(command + ['-'], stdin=b'int x;').returncode == 0, 'needs cc -m32')
    result = run_command(command + ['-std=gnu11', '-Wall', '-Wextra', '-Werror', '-DMODEL_BITS=32', SOURCE])
    assert result.returncode == 0, result.stderr


OPTIONAL = 'acl', 'getzonenamebyid', 'ucred_getzoneid'
REAL = 'free', 'poll', 'setgroups', 'setregid', 'setreuid', 'chroot'    # every libc has them: they cannot be missing


def test_a_libc_without_one_of_the_functions_is_refused(libc, tmpdir):
    missing = sorted(set(PROTOTYPES) - set(REAL))
    paths = {name: without(tmpdir, libc, [name]) for name in missing}

    def work(m):
        answers = {}
        for name in missing:
            m.path = paths[name]
            Machine(m.path)
            answers[name] = attempt(m, security('basic'))
        return answers
    answers = on_sunos(libc, work)
    for name in OPTIONAL:
        assert answers.pop(name).outcome == 'done', name
    for name, answer in answers.items():
        assert (answer.outcome, answer.why) == ('refused', "this system's libc.so.1 has no %s: Solaris 10 or later is needed" % name)


def test_a_process_is_seen_with_its_zone_and_another_one_is_another_place(libc):
    def work(m):
        m.start('zone root')
        m.lib.sim_other(4242)
        m.start('global root')
        platform = platform_of(m)
        (pid, fields), = platform.look(4242)
        inside = fields['zone'], platform.around()['zone'], fields['root']
        m.start('zone root')
        platform = platform_of(m)
        assert m.live() == [0, 0, 0]
        return pid, inside, platform.look(4242)[0][1]['zone'], platform.around()['zone']
    assert on_sunos(libc, work) == (4242, ('3 (web)', '0 (global)', None), '3 (web)', '3 (web)')


def test_a_line_is_taken_where_there_is_room_for_it(libc):
    def work(m):
        platform = platform_of(m)
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        answers = [platform.takes_a_line()]
        os.set_blocking(2, False)
        try:
            while True:
                os.write(2, b'x' * 65536)
        except BlockingIOError:
            answers.append(platform.takes_a_line())
        os.close(2)
        return answers + [platform.takes_a_line()]
    assert on_sunos(libc, work) == [True, False, False]


def test_a_zone_without_a_name_is_shown_by_number(libc):
    def work(m):
        m.inject('getzonenamebyid', 1, errno.EINVAL)
        return str(capdrop.plan(security('basic net_rawaccess')).refusals)
    assert 'this zone (name unknown, zone id 3)' in on_sunos(libc, work, 'zone root')


@pytest.mark.parametrize('misuse', [
    lambda lib, a_set, text: lib.free(a_set),
    lambda lib, a_set, text: lib.priv_freeset(text),
    lambda lib, a_set, text: (lib.priv_freeset(a_set), lib.priv_freeset(a_set)),
    lambda lib, a_set, text: (lib.free(text), lib.free(text)),
    lambda lib, a_set, text: (lib.priv_freeset(a_set), lib.getppriv(b'Limit', a_set)),
    lambda lib, a_set, text: lib.free(ctypes.cast(ctypes.create_string_buffer(100), ctypes.c_void_p)),
])
def test_memory_given_to_the_wrong_allocator_is_fatal_in_the_stand_in(libc, misuse):
    def work():
        faulthandler.disable()
        lib = ctypes.CDLL(libc)
        for name, prototype in PROTOTYPES.items():
            getattr(lib, name).restype, getattr(lib, name).argtypes = prototype[0], prototype[1:]
        Machine(libc)
        a_set = lib.priv_str_to_set(b'basic', b',', None)
        misuse(lib, a_set, lib.priv_set_to_str(a_set, b',', 0))
    with pytest.raises(Ended) as ended:
        in_child(work)
    assert ended.value.args[0] == -6                # SIGABRT


def test_the_stand_in_is_as_treacherous_as_the_kernel(libc):
    """What a naive drop would do there: the reason for the order."""
    def work(m):
        lib = m.lib
        answers = [lib.setuid(1234), m.held()['Permitted']]                                     # everything gone
        lib.sim_reset(0)
        answers += [lib.setpflags(AWARE, 1), lib.setuid(1234), m.held()['Permitted'], lib.seteuid(0)]    # everything kept
        m.start()
        m.sets(I='all')
        answers += [lib.setpflags(AWARE, 1), lib.setuid(1234), lib.sim_exec(0, 0), m.held()['Permitted']]
        m.start('user')
        answers += [lib.sim_exec(1, 0), m.held()['Effective']]          # L=all: a setuid program regains everything
        m.start('user').sets(L='basic')
        answers += [lib.sim_exec(1, 0), m.held()['ids'][1]]             # the bit is ignored
        return answers
    assert on_sunos(libc, work) == [0, 'basic', 0, 0, 'all', 0, 0, 0, 0, 'all', 0, 'all', 0, 1000]


def test_becoming_aware_while_a_reset_is_due_adds_the_limit_set(libc):
    def work(m):
        m.start('profile shell')
        assert m.held()['Permitted'] != 'all'
        assert m.lib.setpflags(AWARE, 1) == 0
        return m.held()['Permitted'], m.held()['Effective'], m.lib.sim_get_flags() & RESET
    assert on_sunos(libc, work) == ('all', 'all', 0)


def test_no_row_before_the_ids_adds_anything(libc):
    """So the reset is cleared before awareness is asked for."""
    def work(m):
        platform = platform_of(m)
        m.start('profile shell')
        case = Case(platform, platform.parse('basic'))
        permitted = m.held()['Permitted']
        for _, function, *args in platform.before(case):
            function(*args)
            assert m.held()['Permitted'] == permitted
        assert m.held()['Effective'] == permitted and m.held()['flags'] == AWARE
    on_sunos(libc, work)


def test_root_with_privileges_gets_nothing_back_by_becoming_aware_again(libc):
    """Because its limit set is cut."""
    def regained(m):
        assert m.lib.setpflags(RESET, 1) == m.lib.setpflags(AWARE, 1) == 0
        return m.held()['Permitted']

    def work(m):
        platform = platform_of(m)
        perform(Case(platform, platform.parse('basic net_privaddr'), uid=0))
        answer = regained(m)
        m.sets(L='all')                             # had it not been cut
        return answer, regained(m)
    assert on_sunos(libc, work) == ('basic,net_privaddr', 'all')


def test_exec_sets_the_saved_group_and_ends_a_reset_that_is_due(libc):
    def work(m):
        m.lib.sim_ids(0, 0, 0, 5, 6, 7)
        m.flags(AWARE | RESET)                      # P is not L: it stays aware
        assert m.lib.sim_exec(0, 0) == 0
        return m.held()['ids'][3:], m.held()['flags']
    assert on_sunos(libc, work, 'profile shell') == ([5, 6, 6], AWARE)


def test_the_saved_group_is_a_way_back_and_the_drop_closes_it(libc):
    def start(m):
        m.lib.sim_ids(1000, 1000, 1000, 5, 5, 0)

    def work(m):
        start(m)
        answers = [m.lib.setregid(0, 0), m.held()['ids'][3:]]
        start(m)
        platform = platform_of(m)
        perform(Case(platform, platform.parse('basic'), uid=1000, gid=5, groups=None))
        return answers + [m.held()['ids'][3:], m.lib.setregid(0, 0)]
    assert on_sunos(libc, work, 'user') == [0, [0, 0, 0], [5, 5, 5], -1]


def test_exec_of_a_setuid_file_of_another_than_root_ends_awareness(libc):
    def work(m):
        m.ids(1000, 0, 0)
        m.flags(AWARE)
        m.sets(PEI='basic', L='all')
        assert m.lib.sim_exec(1, 77) == 0
        return m.held()['ids'][:3], m.held()['flags']
    assert on_sunos(libc, work) == ([1000, 77, 77], 0)


def test_a_flag_that_a_release_does_not_know_is_einval_and_so_not_set(libc):
    def work(m):
        ucred = m.lib.ucred_get
        ucred.restype = ctypes.c_void_p
        place = ctypes.c_void_p(ucred(os.getpid()))
        answers = []
        for function in m.lib.ucred_getpflags, lambda _, flag: m.lib.getpflags(flag):
            function.restype = ctypes.c_uint
            for flag in 0x1000, PFEXEC_AUTH:
                answers.append(function(place, flag) & 0xffffffff)
        m.lib.ucred_free(place)
        fields = platform_of(m).read()
        return answers, fields['pfexec_auth'], platform_of(m).look(os.getpid())[0][1]['pfexec']
    assert on_sunos(libc, work, solaris10=True) == ([0xffffffff] * 4, 0, 0)


def test_after_the_drop_no_program_gets_more(libc):
    def work(m):
        capdrop.drop(security('basic net_privaddr sys_resource'))
        assert m.lib.sim_exec(1, 0) == 0            # a setuid-root program
        return m.held()
    held = on_sunos(libc, work)
    assert held['ids'][:3] == [1234] * 3 and held['Limit'] == 'basic,net_privaddr,sys_resource'
    assert held['Permitted'] == 'basic'


# ---- sets

def random_texts(m):
    """Texts of privileges, and what the library calls them."""
    import random
    chance = random.Random(1)
    every = sorted(platform_of(m).release.every)
    for _ in range(300):
        names = chance.sample(every, chance.randrange(len(every)))
        yield ','.join(names) or 'none'
    for text in 'all', 'zone', 'basic', 'none', 'all,!sys_time', 'basic,!proc_info,sys_time':
        yield text


@pytest.mark.parametrize('state', ['global root', 'zone root'])
def test_a_set_prints_as_the_library_prints_it(libc, state):
    def work(m):
        platform = platform_of(m)
        for text in random_texts(m):
            shown = platform.in_form(text, solaris_priv.PRIV_STR_PORT)
            assert str(platform.set_of(text)) == shown
            assert list(platform.set_of(text)) == [
                name for name in platform.literal(text) if name != 'none']
    on_sunos(libc, work, state)


def test_arithmetic_of_sets_is_that_of_their_bits(libc):
    def work(m):
        platform = platform_of(m)
        texts = list(random_texts(m))
        bits = lambda one: one.named | ({'unnamed'} if one.unnamed else set())
        for left, right in zip(texts + ['all'] * 9, texts[1:] + ['all'] * 9 + ['none']):
            a, b = platform.set_of(left), platform.set_of(right)
            assert bits(a & b) == bits(a) & bits(b)
            assert bits(a | b) == bits(a) | bits(b)
            assert bits(a - b) == bits(a) - bits(b)
            assert (a == b) == (bits(a) == bits(b)) and bool(a) == bool(bits(a))
        every = platform.set_of('all')
        assert str(every & every) == 'all' and str(every - platform.set_of('sys_time')) != 'all'
        named = platform.set_of(','.join(every))    # but not the bits without a name
        assert named != every and every - named and not (every - named).named
        assert str(named) != 'all' and str(every - named) == str(platform.set_of('none'))
        assert not every - every and every != 'all' and hash(every) == hash(every | every)
        before = len(m.log())
        assert str(every & platform.basic()) == 'basic' and 'proc_exec' in every
        assert len(m.log()) == before               # no call
    on_sunos(libc, work)


# ---- whose heap a text is on

HEAP = r"""
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <stdlib.h>
static char arena[1 << 29] __attribute__((aligned(64)));
static size_t used;
void *memalign(size_t alignment, size_t size)
{
    if (alignment < 64)
        alignment = 64;
    size_t at = __atomic_fetch_add(&used, (size + alignment + 127) & ~(size_t)63, __ATOMIC_SEQ_CST);
    char *data = arena + ((at + 64 + alignment - 1) & ~(alignment - 1));
    *(size_t *)(data - 64) = size;
    return data;
}
void *malloc(size_t size) { return memalign(64, size); }
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void **p, size_t alignment, size_t size)
{
    *p = memalign(alignment, size);
    return 0;
}
void *calloc(size_t n, size_t size) { return memalign(64, n * size); }     /* never used before */
void free(void *data)
{
    if (data && ((char *)data < arena || (char *)data >= arena + sizeof arena)) {
        (void)!write(2, "not of this heap\n", 17);
        abort();
    }
}
void *realloc(void *old, size_t size)
{
    void *data = malloc(size);
    if (old) {
        size_t had = *(size_t *)((char *)old - 64);
        memcpy(data, old, had < size ? had : size);
    }
    return data;
}
size_t malloc_usable_size(void *data) { return data ? *(size_t *)((char *)data - 64) : 0; }
"""


def test_a_text_goes_back_to_the_heap_of_the_process_not_to_that_of_libc(tmpdir):
    """libumem(3LIB) preloaded, as is usual for daemons there: libc has a free of its own."""
    need(CC, 'needs a C compiler')
    tmpdir.join('heap.c').write(HEAP)
    heap, path = str(tmpdir.join('libumem.so.1')), str(tmpdir.join('libc.so.1'))
    cc('-shared', '-fPIC', '-O1', '-fno-builtin', '-o', heap, str(tmpdir.join('heap.c')))
    cc('-shared', '-o', path, '-DHEAP_OF_THE_PROCESS', SOURCE, *FLAGS)
    program = """if True:
        import ctypes, sys
        sys.path.insert(0, %r)
        import solaris_priv
        ctypes.CDLL(%r).sim_reset(0)
        platform = solaris_priv.Solaris(%r%s)
        print(platform.parse('basic net_privaddr')['permitted'], platform.read()['limit'])
        """
    run = lambda process: run_command(
        [sys.executable, '-I', '-c', program % (TOP, path, path, process)],
        env=dict(os.environ, LD_PRELOAD=heap))
    good, bad = run(''), run(', %r' % path)
    assert (good.returncode, good.stdout) == (0, 'basic,net_privaddr all\n'), good.stderr
    assert bad.returncode == -6                     # the free of libc: this test can fail


# ---- access control lists

READ, WRITE_DATA, APPEND, DELETE_CHILD, WRITE_ATTRIBUTES = 0x1, 0x2, 0x4, 0x40, 0x100
DELETE, WRITE_ACL, WRITE_OWNER = 0x10000, 0x40000, 0x80000
OWNER_AT, GROUP_AT, EVERYONE_AT, OF_A_GROUP, INHERIT_ONLY = 0x1000, 0x2040, 0x4000, 0x40, 0x8
NOBODY = 0xffffffff                                 # who, of owner@, group@ and everyone@
ALLOW, DENY, AUDIT = 0, 1, 2
TRIVIAL = [(NOBODY, 0xe01bf, OWNER_AT, ALLOW), (NOBODY, 0x20089, GROUP_AT, ALLOW),
           (NOBODY, 0x20089, EVERYONE_AT, ALLOW)]
# As ZFS made them on Solaris 10, of mode 0644.
SIX = [(NOBODY, 0x20, OWNER_AT, DENY), (NOBODY, 0xc011f, OWNER_AT, ALLOW),
       (NOBODY, 0x26, GROUP_AT, DENY), (NOBODY, 0x1, GROUP_AT, ALLOW),
       (NOBODY, 0xc0136, EVERYONE_AT, DENY), (NOBODY, 0x120089, EVERYONE_AT, ALLOW)]


@pytest.mark.parametrize('entries, found', [
    (TRIVIAL, False), (SIX, False), ([], False),
    # somebody by name
    ([(1001, WRITE_DATA, 0, ALLOW)] + TRIVIAL, True),
    ([(1001, APPEND, 0, ALLOW)] + TRIVIAL, True),
    ([(1001, DELETE, 0, ALLOW)] + TRIVIAL, True),
    ([(1001, DELETE_CHILD, 0, ALLOW)] + TRIVIAL, True),
    ([(1001, WRITE_ACL, 0, ALLOW)] + TRIVIAL, True),
    ([(1001, WRITE_OWNER, 0, ALLOW)] + TRIVIAL, True),
    ([(1001, READ | WRITE_ATTRIBUTES, 0, ALLOW)] + TRIVIAL, False),
    ([(0, 0xffffffff, 0, ALLOW)] + TRIVIAL, False),             # root
    # a group by number, that of root too: is the process in it?
    ([(1001, WRITE_DATA, OF_A_GROUP, ALLOW)] + TRIVIAL, True),
    ([(0, WRITE_DATA, OF_A_GROUP, ALLOW)] + TRIVIAL, True),
    ([(1001, READ, OF_A_GROUP, ALLOW)] + TRIVIAL, False),
    # everyone@ and group@: write_data shows in the mode, which is judged; the rest does not
    ([(NOBODY, APPEND, EVERYONE_AT, ALLOW)] + TRIVIAL, True),
    ([(NOBODY, WRITE_ACL, EVERYONE_AT, ALLOW)] + TRIVIAL, True),
    ([(NOBODY, DELETE_CHILD, GROUP_AT, ALLOW)] + TRIVIAL, True),
    ([(NOBODY, WRITE_DATA | APPEND | DELETE_CHILD, GROUP_AT, ALLOW)] + TRIVIAL, False),
    ([(NOBODY, WRITE_DATA | APPEND, EVERYONE_AT, ALLOW)] + TRIVIAL, False),
    # only for what will be made in the directory
    ([(1001, WRITE_DATA, 0x3 | INHERIT_ONLY, ALLOW)] + TRIVIAL, False),
    ([(1001, WRITE_DATA, 0x3, ALLOW)] + TRIVIAL, True),
    # the first entry decides
    ([(1001, WRITE_DATA, 0, DENY), (1001, WRITE_DATA, 0, ALLOW)] + TRIVIAL, False),
    ([(1001, WRITE_DATA, 0, ALLOW), (1001, WRITE_DATA, 0, DENY)] + TRIVIAL, True),
    ([(1001, APPEND, 0, DENY), (1001, WRITE_DATA, 0, ALLOW)] + TRIVIAL, True),
    ([(1002, WRITE_DATA, 0, DENY), (1001, WRITE_DATA, 0, ALLOW)] + TRIVIAL, True),
    ([(1001, WRITE_DATA, OF_A_GROUP, DENY), (1001, WRITE_DATA, 0, ALLOW)] + TRIVIAL, True),
    ([(1001, WRITE_DATA, INHERIT_ONLY, DENY), (1001, WRITE_DATA, 0, ALLOW)], True),
    ([(NOBODY, WRITE_DATA, EVERYONE_AT, DENY), (1001, WRITE_DATA, 0, ALLOW)] + TRIVIAL, False),
    ([(NOBODY, WRITE_DATA, EVERYONE_AT, DENY), (NOBODY, 0x6, EVERYONE_AT, ALLOW)], True),
    ([(1001, WRITE_DATA, 0, AUDIT)] + TRIVIAL, False),
    ([(1001, 0, 0, 9)] + TRIVIAL, True),                        # not understood
])
def test_who_an_access_list_of_zfs_lets_write(libc, entries, found):
    def work(m):
        m.acl('/etc/x.conf', entries)
        platform = platform_of(m)
        assert not platform.has_access_list('/etc/other')
        return platform.has_access_list('/etc/x.conf')
    assert on_sunos(libc, work) is found


MINIMAL = [(0x1, 0, 6), (0x4, 0, 4), (0x20, 0, 4)]


@pytest.mark.parametrize('entries, found', [
    (MINIMAL + [(0x10, 0, 4)], False),
    (MINIMAL + [(0x2, 1001, 6), (0x10, 0, 6)], True),
    (MINIMAL + [(0x8, 1001, 2), (0x10, 0, 7)], True),
    (MINIMAL + [(0x2, 1001, 6), (0x10, 0, 4)], False),          # the mask
    (MINIMAL + [(0x10, 0, 5), (0x8, 1001, 7)], False),
    (MINIMAL + [(0x2, 1001, 4), (0x10, 0, 7)], False),
    (MINIMAL + [(0x2, 0, 7), (0x10, 0, 7)], False),             # root
    (MINIMAL + [(0x1002, 1001, 7), (0x1010, 0, 7), (0x10, 0, 7)], False),   # of files to come
    (MINIMAL + [(0x1010, 0, 4), (0x2, 1001, 6), (0x10, 0, 6)], True),
    (MINIMAL + [(0x2, 1001, 6)], True),                         # no mask
    (MINIMAL + [(0x40, 0, 0)], True),                           # not understood
])
def test_who_an_access_list_of_ufs_lets_write(libc, entries, found):
    def work(m):
        m.acl(None, UFS)
        m.acl('/etc/x.conf', entries)
        platform = platform_of(m)
        assert not platform.has_access_list('/etc/other')
        return platform.has_access_list('/etc/x.conf')
    assert on_sunos(libc, work) is found


def test_a_file_system_without_lists_has_none_and_one_that_does_not_answer_is_named(libc):
    def work(m):
        platform = platform_of(m)
        m.acl(None, NO_ACL)
        assert platform.has_access_list('/tmp') is False
        m.acl(None, ZFS)
        for code in errno.ENOSYS, errno.EINVAL, errno.ENOTSUP:
            for call in 0, 1:                       # neither kind, or not this one
                m.inject('acl', call, code)
                assert platform.has_access_list('/tmp') is False
        for call, code in (1, errno.EACCES), (2, errno.ENOSPC), (1, errno.EIO):
            m.inject('acl', call, code)
            with pytest.raises(OSError) as raised:
                platform.has_access_list('/etc/x.conf')
            assert (raised.value.errno, raised.value.filename) == (code, '/etc/x.conf')
        m.inject('acl', 2, LIE)                     # says that it filled the buffer
        assert platform.has_access_list('/etc/x.conf') is True
        m.acl(None, UFS)
        m.inject('acl', 3, LIE)
        assert platform.has_access_list('/etc/x.conf') is True
    on_sunos(libc, work)


LETS_BOB = [(1001, WRITE_DATA, 0, ALLOW)] + TRIVIAL


@pytest.mark.parametrize('path, kind, entries, refused', [
    ('conf', ZFS, TRIVIAL, False),
    ('conf', ZFS, LETS_BOB, True),                                          # a named user
    ('conf', ZFS, [(1001, APPEND, OF_A_GROUP, ALLOW)] + TRIVIAL, True),     # a group
    ('conf', ZFS, [(NOBODY, WRITE_ACL, EVERYONE_AT, ALLOW)] + TRIVIAL, True),
    ('conf', ZFS, [(1001, WRITE_DATA, 0x3 | INHERIT_ONLY, ALLOW)] + TRIVIAL, False),
    ('conf', ZFS, [(1001, WRITE_DATA, 0, DENY)] + LETS_BOB, False),
    ('conf', UFS, MINIMAL + [(0x2, 1001, 7), (0x10, 0, 4)], False),         # the mask
    ('conf', UFS, MINIMAL + [(0x2, 1001, 7), (0x10, 0, 6)], True),
    ('.', ZFS, [(1001, DELETE_CHILD, 0, ALLOW)] + TRIVIAL, True),           # a directory above
    ('jail', ZFS, TRIVIAL, False),
    ('jail', ZFS, LETS_BOB, True),
    ('jail', UFS, MINIMAL + [(0x8, 1001, 7), (0x10, 0, 7)], True),
])
def test_whom_a_list_lets_write_is_not_trusted_with_the_file_or_the_jail(
        libc, tmpdir, path, kind, entries, refused):
    need_root()
    tmpdir.mkdir('jail')
    place = str(tmpdir.join(path)) if path != '.' else str(tmpdir)
    conf = tmpdir.join('conf')
    conf.write('Security { user = "1234" group = "1234" chroot = "%s" }' % tmpdir.join('jail'))

    def work(m):
        m.acl(None, kind)
        m.acl(place, entries)
        plan = capdrop.plan(capdrop.load(str(conf)))
        m.inject('acl', 0, errno.EIO)
        unknown = capdrop.plan(capdrop.load(str(conf)))
        return plan.refusals, unknown.refusals
    refusals, unknown = on_sunos(libc, work)
    assert bool(refusals) == refused
    if refused:
        assert 'an access control list' in refusals[0] and place in refusals[0]
    assert unknown and 'someone unknown (%s)' % os.strerror(errno.EIO) in unknown[0]


# ---- what a release, or a Python, may lack

OPTIONAL_OF_PYTHON = ('getgrouplist', 'getxattr', 'initgroups', 'waitid', 'O_CLOEXEC',
                      'O_DIRECTORY', 'O_NOFOLLOW')


def every_verb(m):
    """What each verb answers: nothing of it may be a traceback."""
    m.lib.sim_other(os.getppid())
    pid = str(os.getppid())
    with open('conf', 'w') as file:
        file.write('Security { user = daemon privileges = "basic net_privaddr" }')
    answers = {name: cli(*words) for name, words in {
        'plan': ['plan', 'conf'], 'plan --exec': ['plan', '--exec', '--json', 'conf'],
        'plan with chroot': ['plan', '--chroot', '/etc', 'conf'], 'check': ['check', 'conf'],
        'status': ['status'], 'status PID': ['status', pid], 'audit': ['audit', 'conf', pid],
    }.items()}
    wanted = capdrop.load('conf')
    dropped, launched = attempt(m, wanted), attempt(m, wanted, exec=True)
    answers['drop'] = dropped.outcome, dropped.why
    answers['exec'] = launched.outcome, launched.why
    return answers


def without(tmpdir, libc, names):
    """The stand-in without some of its functions."""
    path = str(tmpdir.join('libc-' + '-'.join(names)))
    with open(path + '.map', 'w') as file:
        file.write('{ local: %s; };' % '; '.join(names))
    cc('-shared', '-o', path, libc + '.o', '-Wl,--version-script=%s.map' % path)
    return path


@pytest.mark.parametrize('missing', [(), OPTIONAL, OPTIONAL_OF_PYTHON,
                                     OPTIONAL + OPTIONAL_OF_PYTHON]
                         + [(name,) for name in OPTIONAL + OPTIONAL_OF_PYTHON])
def test_no_verb_ends_in_a_traceback_where_something_is_missing(libc, tmpdir, missing):
    need_root()
    path = libc
    of_libc = [name for name in missing if name in OPTIONAL]
    if of_libc:
        path = without(tmpdir, libc, of_libc)

    def work(m):
        for name in set(missing) - set(OPTIONAL):
            for module in os, posix:
                if hasattr(module, name):
                    delattr(module, name)
        importlib.reload(capdrop)                   # it looks for some when it is loaded
        play(m)
        return every_verb(m)
    with tmpdir.as_cwd():
        answers = on_sunos(path, work)
    statuses = {verb: answer[0] for verb, answer in answers.items()}
    assert statuses == {
        'plan': 0, 'plan --exec': 0, 'plan with chroot': 0, 'check': 0, 'status': 0,
        'status PID': 0, 'audit': 1, 'drop': 'done', 'exec': 'ran'}, answers
    for verb, (_, text) in answers.items():
        assert 'Traceback' not in text, verb


def test_audit_of_what_privileges_that_are_absent_leave(libc):
    def work(m):
        def differ(start, wanted, sets=None, exec=False):
            m.start(start)
            if sets is not None:
                perform(Case(platform_of(m), platform_of(m).parse(sets), exec=exec))
            m.lib.sim_other(os.getppid())
            return [str(one) for one in capdrop.audit(wanted, os.getppid())]
        root = security(None, user=0, supplemental_groups=(1, 2))
        play(m.start('zone root'))
        answers = [differ('zone root', root), differ('zone root', security(None), 'basic'),
                   differ('zone root', security(None), 'basic,!proc_info'),
                   differ('zone root', security(None), 'basic,net_privaddr')]
        play(m.start('global root'))
        return answers + [differ('global root', root), differ('smf root', root)]
    keeps, same, less, more, keeps_all, smf = on_sunos(libc, work)
    assert keeps == same == keeps_all == smf == []
    assert 'permitted: wanted basic, has basic,!proc_info (less than asked)' in less
    assert 'limit: wanted basic, has basic,net_privaddr (more than asked)' in more


def test_audit_from_the_global_zone_of_a_process_in_a_zone(libc, tmpdir):
    """Its root directory is the zone's; that it is in another zone is no difference."""
    def work(m):
        m.start('zone root')
        perform(Case(platform_of(m), platform_of(m).parse('basic net_privaddr')))
        m.lib.sim_other(os.getppid())
        m.start('global root')
        solaris_priv.PROC = 'proc'
        place = 'proc/%d' % os.getppid()
        os.makedirs(place + '/lwp/1')
        os.makedirs(place + '/lwp/2')
        os.makedirs(place + '/path')
        os.symlink('/opt/myd/bin/myd', place + '/path/a.out')
        os.symlink('/etc', place + '/root')         # as the zone's would be
        found = capdrop.audit(security('basic net_privaddr'), os.getppid())
        jailed = capdrop.audit(security('basic net_privaddr', chroot='/dev'), os.getppid())
        shown = cli('audit', '--user=1234', '--group=1234', '--privileges=basic net_privaddr',
                    str(os.getppid()))
        os.unlink(place + '/root')
        with pytest.raises(capdrop.RefusedError) as raised:
            capdrop.audit(security('basic'), os.getppid())
        os.symlink('/', place + '/root')
        m.start('zone root')
        play(m)                                     # the same from inside
        inside = capdrop.audit(security('basic net_privaddr'), os.getppid())
        return ([str(one) for one in found], found.unseen, [str(one) for one in jailed], shown,
                str(raised.value), [str(one) for one in inside], inside.unseen)
    with tmpdir.as_cwd():
        found, unseen, jailed, shown, refused, inside, unseen_inside = on_sunos(libc, work)
    assert (found, unseen) == ([], ['cwd_outside', 'root (in another zone)'])
    assert len(jailed) == 1 and jailed[0].startswith('root: wanted')
    assert shown[0] == 0 and 'root (in another zone)' in shown[1]
    assert '(/opt/myd/bin/myd), 2 threads: as a drop leaves it' in shown[1]
    assert 'cannot be seen: be root in the global zone' in refused
    assert (inside, unseen_inside) == ([], ['cwd_outside'])


def test_a_method_with_a_larger_limit_set_starts_aware(libc):
    def work(m):
        m.sets(PEI=METHOD, L='all')
        m.flags(AWARE)
        assert m.lib.sim_exec(0, 0) == 0
        aware = m.held()['flags'] & AWARE
        assert m.lib.setuid(1234) == 0
        return aware, m.held()['Permitted']         # a plain setuid took nothing
    assert on_sunos(libc, work) == (AWARE, 'basic,net_privaddr,proc_chroot,proc_setid')


def test_a_missing_right_is_named_with_what_to_do(libc):
    outcome, why, _, _ = drop_from(libc, 'user', 'basic', supplemental_groups=[7])
    assert outcome == 'refused'
    assert "proc_setid is not in this process's permitted set: start it as root" in why

    def started_without(m):
        m.flags(AWARE)
        m.sets(PEI='basic', L='basic')
        return attempt(m, security('basic'))
    result = on_sunos(libc, started_without)
    assert result.outcome == 'refused'
    assert 'proc_setid' in result.why and 'method_credential' in result.why


def test_a_process_that_may_not_be_looked_at_says_what_it_takes(libc, tmpdir):
    def work(m):
        m.lib.sim_other(4242)
        m.inject('ucred_get', 1, errno.EACCES)
        return cli('status', '4242')
    with tmpdir.as_cwd():
        status, output = on_sunos(libc, work)
    assert status == 125 and 'ucred_get: ' in output and 'proc_owner' in output


# ---- the document

def test_the_manifest_in_the_document_is_well_formed_and_starts_what_the_text_says(libc):
    from xml.etree import ElementTree
    with open(os.path.join(TOP, 'docs', 'solaris.md')) as file:
        manifest = file.read().split('```xml\n')[1].split('```')[0]
    credential = ElementTree.fromstring(manifest.encode()).find('.//method_credential').attrib

    def work(m):
        m.sets(PEI=credential['privileges'], L=credential['limit_privileges'])
        m.flags(AWARE)
        assert m.lib.sim_exec(0, 0) == 0            # the method starts
        assert not m.held()['flags'] & AWARE        # so a plain setuid would take everything
        result = attempt(m, security('basic net_privaddr'), exec=True)
        assert result.outcome == 'ran', result.why
        return result.held
    is_held(on_sunos(libc, work), 1234, 'basic,net_privaddr', 'basic,net_privaddr', flags=0)


# ---- Linux does without

def test_on_linux_this_file_is_not_imported_nor_needed(tmpdir):
    result = run_command([sys.executable, '-I', '-v', os.path.join(TOP, 'capdrop.py'), 'status'])
    assert result.returncode == 0 and 'solaris_priv' not in result.stderr
    shutil.copy(os.path.join(TOP, 'capdrop.py'), str(tmpdir))
    assert run_command([sys.executable, '-I', str(tmpdir.join('capdrop.py')), 'status']).returncode == 0


def test_without_libc_so_1_the_refusal_names_it():
    with pytest.raises(OSError) as raised:
        solaris_priv.Solaris('libc.so.1.absent')
    assert 'libc.so.1' in str(raised.value)


def test_the_file_imports_nothing_from_capdrop():
    with open(solaris_priv.__file__) as file:
        imports = [line.strip() for line in file if line.strip().startswith(('import ', 'from '))]
    names = {line.split()[1] for line in imports}
    assert names == {'ctypes', 'difflib', 'errno', 'os', 'posix', 'struct'}
