"""Which steps a drop takes from which start, and what it refuses: no more than it needs, and no less."""
import errno
import functools
import os
import pwd
import sys

import pytest

from conftest import (
    AS_1111, CHOWN, CLONE_NEWUSER, HELD, RAW, SETGID, SETPCAP, SETUID, SCRIPT, SYS_CHROOT, Ended, c, capset, configuration, in_child, libc,
    need, need_root, need_user_namespaces, no_proc, prctl, run_command, set_groups, two_threads, unshare_blocked, user_namespace)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
if sys.platform == 'linux':
    from test_faults import HERE, RET_ERRNO, install

KILL = 1 << 5


def plan_of(prepare, options, **how):
    """(steps, refusals) of a plan made in a child."""
    need_root()

    def child():
        prepare()
        found = capdrop.plan(capdrop.Security(**options), **how)
        return list(found.steps), list(found.refusals)
    return in_child(child)


def with_words(words, texts):
    return [text for text in texts if words in text]


def another_user():
    """With all capabilities of root, and in no groups."""
    prctl(8, 1)
    set_groups([])
    os.setresgid(33, 33, 33)
    os.setresuid(33, 33, 33)
    prctl(8, 0)
    capset(HELD, HELD, HELD & KILL)


# ---------------------------------------------------------------------------- keepcaps, sets

def test_keepcaps_that_is_on_is_not_switched_on_again():
    steps, refusals = plan_of(lambda: prctl(8, 1), dict(AS_1111, capabilities='cap_kill+ep'))
    assert refusals == [] and with_words('PR_SET_KEEPCAPS', steps) == ['prctl(PR_SET_KEEPCAPS, 0)']
    steps, _ = plan_of(lambda: None, dict(AS_1111, capabilities='cap_kill+ep'))
    assert with_words('PR_SET_KEEPCAPS', steps) == ['prctl(PR_SET_KEEPCAPS, 1)', 'prctl(PR_SET_KEEPCAPS, 0)']


ROOT = dict(user='0', group='0')
OF_IDS = ['setgroups([])', 'setresgid(0, 0, 0)', 'setresuid(0, 0, 0)']


def root_in_a_group():
    """And less is effective than permitted."""
    set_groups([4])
    capset(HELD, HELD & ~RAW)


@pytest.mark.parametrize('prepare', [root_in_a_group, another_user], ids=['stays root', 'becomes root'])
def test_root_that_keeps_everything_is_given_no_set_where_nothing_changes_it(prepare):
    steps, refusals = plan_of(prepare, ROOT)
    assert refusals == [] and steps[1:] == OF_IDS


def test_root_that_keeps_everything_is_given_its_set_where_the_kernel_makes_all_effective():
    def prepare():
        another_user()
        capset(HELD, HELD & ~RAW)
    steps, refusals = plan_of(prepare, ROOT)
    assert refusals == [] and steps[1:-1] == OF_IDS and 'effective' in steps[-1]


@pytest.mark.parametrize('prepare, text', [(another_user, 'cap_chown+i'), (lambda: None, 'cap_chown+pi')],
                         ids=['nothing is lost', 'it stays permitted'])
def test_inheritable_grows_with_the_last_set_where_it_can(prepare, text):
    need(HELD & 1, 'needs cap_chown')
    steps, refusals = plan_of(prepare, dict(AS_1111, capabilities=text))
    assert refusals == [] and len(with_words('inheritable cap_chown', steps)) == 1


def test_inheritable_grows_before_the_ids_change_where_nothing_stays_permitted():
    need(HELD & 1, 'needs cap_chown')
    steps, refusals = plan_of(lambda: None, dict(AS_1111, capabilities='cap_chown+i'))
    assert refusals == []
    early, last = with_words('inheritable cap_chown', steps)
    assert steps.index(early) < steps.index('setresuid(1111, 1111, 1111)') < steps.index(last)


def raise_kill():
    capset(HELD, HELD, KILL)
    prctl(47, 2, 5)


def test_ambient_is_lowered_only_where_nothing_else_takes_it_away():
    need(HELD & KILL, 'needs cap_kill')
    options = dict(AS_1111, capabilities='cap_kill+eip')

    def prepare():
        another_user()
        prctl(47, 2, 5)
    steps, refusals = plan_of(prepare, options)
    assert refusals == [] and len(with_words('PR_CAP_AMBIENT_LOWER', steps)) == 1
    steps, refusals = plan_of(raise_kill, options)
    assert refusals == [] and with_words('PR_CAP_AMBIENT_LOWER', steps) == []


def test_root_that_keeps_everything_may_have_in_ambient_what_is_not_effective():
    need(HELD & KILL, 'needs cap_kill')

    def prepare():
        raise_kill()
        capset(HELD, HELD & ~KILL, KILL)
    assert plan_of(prepare, ROOT, exec=True)[1] == []


def test_without_ambient_capabilities_only_a_command_that_needs_them_is_refused():
    def prepare():
        capdrop.this_platform().has_ambient = False
    options = dict(AS_1111, capabilities='cap_kill+ep')
    assert plan_of(prepare, options)[1] == []
    assert plan_of(prepare, AS_1111, exec=True)[1] == []
    assert plan_of(prepare, options, exec=True)[1] == [
        'this kernel has no ambient capabilities: the command could not keep any']


def test_a_plan_for_a_command_in_a_jail_needs_no_command(jail):
    need(HELD & KILL, 'needs cap_kill')
    assert plan_of(lambda: None, dict(AS_1111, capabilities='cap_kill+ep', chroot=str(jail)), exec=True)[1] == []


def test_threads_that_cannot_be_listed_are_told_without_their_names():
    def prepare():
        no_proc()
        two_threads()
    refusal, = with_words('more than one thread', plan_of(prepare, AS_1111)[1])
    assert refusal.startswith('more than one thread (no /proc to list them): ')


def lacking(*capabilities):
    """Root, in a group, with these permitted and not effective."""
    def prepare():
        set_groups([4])
        capset(HELD, HELD & ~sum(capabilities))
    return prepare


def another_user_lacking(permitted, effective):
    """Of the capabilities that root has it is to lack some altogether."""
    def prepare():
        another_user()
        capset(HELD & ~permitted, HELD & ~permitted & ~effective)
    return prepare


def groups_denied_and(missing):
    """Root of a user namespace with two groups, in which setgroups is denied."""
    def prepare():
        set_groups([])
        user_namespace(deny_groups=True)()
        every = (1 << capdrop.this_platform().every.bit_length()) - 1
        capset(every, every & ~missing)
    return prepare


RAISED = [
    (lacking(SETUID), AS_1111, {}, True),
    (lacking(SETGID), AS_1111, {}, True),
    (lacking(SETPCAP), AS_1111, {}, True),
    (lacking(SETPCAP), AS_1111, dict(no_new_privs=False), False),
    (lacking(SETPCAP), dict(ROOT, capabilities=''), dict(no_new_privs=False), True),       # for the securebits
    (lacking(SYS_CHROOT), dict(AS_1111, chroot='JAIL'), {}, True),
    (lacking(SYS_CHROOT), AS_1111, {}, False),
    (lacking(SYS_CHROOT), dict(AS_1111, chroot='/'), {}, False),
    (lacking(KILL), AS_1111, {}, False),
    # a set that grows beyond what is permitted
    (another_user_lacking(CHOWN, SETPCAP), dict(AS_1111, capabilities='cap_chown+i'), dict(no_new_privs=False), True),
    (another_user_lacking(0, SETPCAP), dict(AS_1111, capabilities='cap_chown+i'), dict(no_new_privs=False), False),
    (groups_denied_and(SETGID), dict(user='0', group='5'), {}, True),
    (groups_denied_and(SETGID), dict(user='5', group='0'), {}, False),
]


@pytest.mark.parametrize('prepare, options, how, raised', RAISED, ids=map(str, range(len(RAISED))))
def test_what_is_permitted_is_made_effective_where_a_step_needs_it_and_nowhere_else(prepare, options, how, raised, jail):
    need(HELD & SETUID and HELD & SETGID and HELD & SETPCAP and HELD & SYS_CHROOT and HELD & CHOWN, 'needs the capabilities of root')
    need_user_namespaces(prepare)
    if options.get('chroot') == 'JAIL':
        options = dict(options, chroot=str(jail))
    steps, refusals = plan_of(prepare, options, **how)
    assert refusals == [] and steps[0].startswith('unshare')
    assert steps[1].startswith('capset: ') is raised, steps


def test_root_with_a_limited_set_needs_no_keepcaps():
    steps, refusals = plan_of(lambda: None, dict(ROOT, capabilities='cap_kill+ep'))
    assert refusals == [] and with_words('PR_SET_KEEPCAPS', steps) == []


# ---------------------------------------------------------------------------- ids that a user namespace does not map

def in_a_bare_namespace(groups=()):
    """Without maps, without rights, and with all that a drop would set."""
    set_groups(groups)
    c('unshare', CLONE_NEWUSER)
    capset(0, 0)
    prctl(38, 1)


USER_MISSING = 'user 65534 does not exist in this user namespace: /proc/self/uid_map has no such id'
GROUP_MISSING = 'group 65534 does not exist in this user namespace: /proc/self/gid_map has no such id'


@pytest.mark.parametrize('options, missing', [
    ({}, []),
    (dict(user='65534', group='65534'), [USER_MISSING, GROUP_MISSING]),
    (dict(group='65534'), [USER_MISSING, GROUP_MISSING]),
    (dict(user='nobody'), [USER_MISSING, GROUP_MISSING]),
], ids=['none is named', 'both', 'group', 'user'])
def test_who_stays_as_he_is_need_not_be_mapped_unless_he_is_named(options, missing):
    need_user_namespaces(in_a_bare_namespace)
    if options.get('user') == 'nobody':
        need([tuple(one[2:4]) for one in pwd.getpwall() if one.pw_name == 'nobody'] == [(65534, 65534)],
             'needs nobody with the ids 65534')
    steps, refusals = plan_of(in_a_bare_namespace, options)
    assert steps == [] and with_words('does not exist', refusals) == missing
    assert bool(refusals) is bool(missing)


def test_a_group_that_is_named_has_to_be_mapped_even_if_it_seems_to_be_there():
    prepare = functools.partial(in_a_bare_namespace, [5000])
    need_user_namespaces(prepare)
    assert plan_of(prepare, {}) == ([], [])
    refusals = plan_of(prepare, dict(supplemental_groups='65534'))[1]
    assert 'the supplementary group 65534' in may_stand_for(refusals)


@pytest.mark.parametrize('uid_map, gid_map, missing', [
    ('0 0 1000', '0 0 2000', 'user 1500'), ('0 0 2000', '0 0 1000', 'group 1500')], ids=['user', 'group'])
def test_without_proc_a_trial_tells_which_id_is_not_mapped(uid_map, gid_map, missing):
    def prepare():
        set_groups([])
        user_namespace(uid_map, gid_map)()
        no_proc()
    need_user_namespaces(prepare)
    refusals = with_words('does not exist in this user namespace', plan_of(prepare, dict(user='1500', group='1500'))[1])
    assert [refusal.partition(' does')[0] for refusal in refusals] == [missing]


def test_who_has_something_to_give_up_is_refused_where_his_ids_are_not_mapped():
    """They would be set, to what they are."""
    def prepare():
        set_groups([])
        c('unshare', CLONE_NEWUSER)
        capset(0, 0)
    need_user_namespaces(prepare)
    assert USER_MISSING in plan_of(prepare, {})[1]


def shown_as_65534(number, groups=(), keep=False):
    """In a user namespace whose 65534 is 70000 outside; this process is `number`, which shows as 65534 as well."""
    def prepare():
        prctl(8, 1)
        set_groups(groups)
        os.setresgid(number, number, number)
        os.setresuid(number, number, number)
        capset(HELD, HELD)
        user_namespace('0 0 1000\n65534 70000 1', '0 0 1000\n65534 70000 1')()
        if not keep:
            capset(0, 0)
            prctl(38, 1)
    return prepare


AS_65534 = dict(user='65534', group='65534')


def may_stand_for(texts):
    return [text.partition(' may stand')[0] for text in with_words('may stand for', texts)]


@pytest.mark.parametrize('prepare, options, unclear', [
    (shown_as_65534(5000), AS_65534, ['user 65534', 'group 65534']),
    (shown_as_65534(70000), AS_65534, []),
    (shown_as_65534(5000, keep=True), AS_65534, []),
    (shown_as_65534(70000, [5000]), dict(AS_65534, supplemental_groups='65534'), ['the supplementary group 65534']),
    (shown_as_65534(70000, [5000], keep=True), dict(AS_65534, supplemental_groups='65534'), []),
], ids=['another one', 'itself', 'with the right', 'a group', 'a group, with the right'])
def test_an_id_that_only_looks_right_is_refused_to_who_cannot_set_it(prepare, options, unclear):
    need_user_namespaces(prepare)
    assert may_stand_for(plan_of(prepare, options)[1]) == unclear


def test_an_id_that_only_looks_right_is_set_where_it_may_be():
    """All else is as it is asked for; and yet it is not held already."""
    def prepare():
        shown_as_65534(5000, keep=True)()
        every = int(capdrop.this_platform().every)
        capset(every, every)
        prctl(38, 1)
    need_user_namespaces(prepare)
    steps, refusals = plan_of(prepare, dict(AS_65534, capabilities='=ep'))
    assert refusals == [] and 'setresuid(65534, 65534, 65534)' in steps
    assert plan_of(shown_as_65534(70000), AS_65534) == ([], [])             # it may not, and has it
    assert plan_of(lambda: set_groups([]), ROOT) == ([], [])                # it may, and all ids are mapped


def test_a_group_that_only_looks_right_is_set_where_it_may_be():
    def prepare():
        shown_as_65534(70000, [5000], keep=True)()
        every = int(capdrop.this_platform().every) & ~SETUID
        prctl(24, 7)                                # PR_CAPBSET_DROP, cap_setuid
        capset(every, every)
        prctl(38, 1)
    need_user_namespaces(prepare)
    steps, refusals = plan_of(prepare, dict(supplemental_groups='65534', capabilities='=ep cap_setuid-ep'))
    assert refusals == [] and 'setgroups([65534])' in steps


def test_with_threads_no_id_is_tried_since_that_would_reach_them_all():
    def prepare():
        shown_as_65534(5000)()
        two_threads()
    need_user_namespaces(shown_as_65534(5000))
    refusals = plan_of(prepare, AS_65534)[1]
    assert with_words('more than one thread', refusals) and may_stand_for(refusals) == []


def id_outside():
    """A function that tells the user id of this process as its user namespace of now sees it."""
    asked, ask = os.pipe()
    answer, tell = os.pipe()
    if os.fork() == 0:
        parent = os.getppid()
        os.close(ask)
        while os.read(asked, 1):
            with open('/proc/%d/status' % parent) as file:
                uid, = [line.split()[1] for line in file if line.startswith('Uid:')]
            os.write(tell, uid.encode())
        os._exit(0)

    def tell_it():
        os.write(ask, b'?')
        return int(os.read(answer, 20))
    return tell_it


def test_a_plan_leaves_ids_that_are_not_mapped_as_they_are():
    """With the right a trial would change them."""
    prepare = shown_as_65534(5000, keep=True)
    need_user_namespaces(prepare)

    def child():
        outside = id_outside()
        prepare()
        capdrop.plan(capdrop.Security(**AS_65534))
        return outside()
    assert in_child(child) == 5000


# ---------------------------------------------------------------------------- calls that a filter blocks

def block(*names):
    """Let these calls fail with EPERM."""
    install([(HERE.numbers[name],) for name in names], RET_ERRNO | errno.EPERM)


def blocked(*names):
    """A function that does so, in a group."""
    def prepare():
        set_groups([4])
        block(*names)
    return prepare


def needs_filters():
    need_root()
    need(HERE, 'where registers are on %s is not known to these tests' % os.uname()[4])


def is_blocked(name):
    return ('%s(2) is blocked (%s): a seccomp filter (systemd: SystemCallFilter=; containers: their seccomp profile)'
            % (name, os.strerror(errno.EPERM)))


@pytest.mark.parametrize('options, names', [(AS_1111, ['capset']), (ROOT, [])], ids=['needed', 'not needed'])
def test_a_blocked_capset_is_known_where_nothing_has_to_be_raised_before(options, names):
    needs_filters()
    assert plan_of(blocked('capset'), options)[1] == [is_blocked(name) for name in names]


def test_what_is_blocked_does_not_matter_where_nothing_is_to_be_done():
    needs_filters()

    def prepare():
        capdrop.drop(capdrop.Security(**AS_1111))
        block('setresuid', 'capset')
    assert plan_of(prepare, AS_1111) == ([], [])


@pytest.mark.parametrize('keeps, other', [(False, False), (True, True)], ids=['before 6.4', 'from 6.4 on'])
@pytest.mark.parametrize('kind', ['uid', 'gid'])
def test_a_blocked_change_of_ids_is_known_where_trying_it_changes_nothing(kind, keeps, other):
    needs_filters()
    need(not other or capdrop.keeps_filesystem_ids(), 'needs Linux 6.4 or later')

    def prepare():
        capdrop.keeps_filesystem_ids = lambda: keeps
        if other:
            getattr(libc, 'setfs' + kind)(33)
        blocked('setres' + kind)()
    assert plan_of(prepare, AS_1111)[1] == [is_blocked('setres' + kind)]


def test_a_second_drop_in_a_jail_without_proc_is_the_first_one_also_where_unshare_is_blocked(jail):
    need_root()
    security = capdrop.Security(chroot=str(jail), **AS_1111)

    def child():
        unshare_blocked()
        return capdrop.drop(security) == capdrop.drop(security)
    assert in_child(child)


def test_no_new_privs_that_is_on_is_not_set_again():
    assert with_words('PR_SET_NO_NEW_PRIVS', plan_of(lambda: None, AS_1111)[0])
    assert with_words('PR_SET_NO_NEW_PRIVS', plan_of(lambda: prctl(38, 1), AS_1111)[0]) == []


def test_what_was_permitted_is_tried_again_and_must_fail():
    need_root()
    attempts = in_child(lambda: capdrop.plan(capdrop.Security(**AS_1111)).attempts)
    assert attempts[-1].startswith('capset: permitted ') and 'setresuid(0, 0, 0)' in attempts


# ---------------------------------------------------------------------------- what is read back

def test_a_field_that_cannot_be_read_back_ends_the_process():
    need_root()

    def child():
        genuine, readings = capdrop.Process.read, []

        def read(process):
            readings.append(genuine(process))
            return readings[0] if len(readings) == 1 else capdrop.changed(readings[-1], keepcaps=None)
        capdrop.Process.read = read
        capdrop.drop(capdrop.Security(**AS_1111))
    with pytest.raises(Ended) as e:
        in_child(child)
    assert e.value.args[0] == 125 and 'reading back: not every field could be read' in e.value.args[1]


# ---------------------------------------------------------------------------- calls that lie or are missing

def refusal_of(prepare, **options):
    """What plan raises in a child."""
    def child():
        prepare(capdrop.this_platform())
        try:
            return capdrop.plan(capdrop.Security(**dict(AS_1111, **options))).refusals
        except capdrop.RefusedError as e:
            return str(e)
    return in_child(child)


def answers(name, answer):
    """A function that puts this in the place of a method of the platform."""
    return lambda platform: setattr(platform, name, lambda *_: answer)


@pytest.mark.parametrize('prepare, message', [
    (answers('capget', 0), 'capget: did not fill its buffer'),
    (answers('bounding_set', None), 'this kernel has no bounding, which capdrop needs'),
    (answers('flag', -1), 'this kernel has no securebits, which capdrop needs'),
    (answers('raw_prctl', 0), 'prctl: does not answer as the kernel does (%s)'),
    (answers('raw_prctl', 7), 'prctl: does not answer as the kernel does (%s)'),
    (answers('get_errno', errno.EPERM), 'prctl: does not answer as the kernel does (%s)' % os.strerror(errno.EPERM)),
], ids=['capget', 'bounding set', 'securebits', 'all is there', 'neither yes nor no', 'another errno'])
def test_a_process_that_cannot_be_looked_at_is_refused_by_the_call(prepare, message):
    found = refusal_of(prepare)
    assert found == message if '%s' not in message else found.startswith(message.partition('%s')[0])


def test_a_mask_that_cannot_be_read_is_refused():
    needs_filters()

    def child():
        blocked('rt_sigprocmask')()
        try:                                        # a name service may end the process for that
            capdrop.present_mask()
        except capdrop.RefusedError as e:
            return str(e)
    assert in_child(child) == 'sigprocmask: ' + os.strerror(errno.EPERM)


def test_a_function_that_the_system_lacks_is_named():
    with pytest.raises(OSError) as e:
        capdrop.Library(None).raw('capdrop_has_no_such_function', None)
    assert (e.value.errno, e.value.filename) == (errno.ENOSYS, 'capdrop_has_no_such_function')


def test_a_python_without_ctypes_is_told_what_it_lacks():
    program = ('import sys; sys.modules["ctypes"] = None; sys.path.insert(0, %r); import capdrop; '
               'sys.exit(capdrop.main(["plan", "--user", "1111", "--group", "4321"]))' % os.path.dirname(SCRIPT))
    done = run_command([sys.executable, '-I', '-c', program])
    assert done.returncode == 125 and done.stderr.startswith('capdrop: this Python cannot call the C library: ')
    assert 'install libpython3-stdlib' in done.stderr


def test_a_state_is_never_changed():
    state = capdrop.state()
    with pytest.raises(AttributeError, match='a State is never changed'):
        state.uid = (0,)


def test_an_id_among_the_last_ones_is_no_error_of_a_call():
    """On 32 bits setfsuid(2) of glibc answers with -errno."""
    filesystem_id = capdrop.this_platform().filesystem_id
    assert filesystem_id('setfsuid', 4294967290, (0, 4294967290, 0), '\nUid:', None) == 4294967290
    with pytest.raises(OSError, match='is blocked'):
        filesystem_id('setfsuid', 4294967290, (0, 0, 0), '\nUid:', None)


def test_a_status_without_the_line_that_is_asked_for_is_an_error(monkeypatch):
    monkeypatch.setattr(capdrop, 'contents_or_none', lambda *_: 'Name:\tx')
    with pytest.raises(OSError, match='/proc does not tell'):
        capdrop.this_platform().filesystem_id('setfsuid', 4294967290, (0, 0, 0), '\nUid:', 7)


def test_an_unshare_that_fails_for_another_reason_than_a_filter_is_an_error(monkeypatch):
    platform = capdrop.this_platform()
    monkeypatch.setattr(platform, 'raw_unshare', lambda flags: -1)
    for number in errno.EPERM, errno.ENOSYS:
        monkeypatch.setattr(platform, 'get_errno', lambda: number)
        platform.unshare()
    monkeypatch.setattr(platform, 'get_errno', lambda: errno.ENOMEM)
    with pytest.raises(OSError) as e:
        platform.unshare()
    assert e.value.filename == 'unshare'


@pytest.mark.parametrize('error, filtered, may', [(None, False, True), (errno.EINVAL, False, True), (errno.EPERM, False, False),
                                                 (errno.EPERM, True, True)])
def test_without_proc_a_trial_tells_whether_setgroups_is_denied(error, filtered, may, monkeypatch):
    def contents(path):
        raise OSError(errno.ENOENT, 'No such file or directory', path)
    platform = capdrop.this_platform()
    result = error and OSError(error, os.strerror(error))
    monkeypatch.setattr(capdrop, 'contents', contents)
    monkeypatch.setattr(platform, 'tried', lambda *_: [(None, result)])
    monkeypatch.setattr(platform, 'may_be_filtered', lambda: filtered)
    assert platform.may_set_groups(capdrop.changed(capdrop.state(), threads=1)) is may


def test_an_access_list_that_cannot_be_read_is_an_error(monkeypatch, tmp_path):
    platform = capdrop.this_platform()
    (tmp_path / 'file').write_text('')
    (tmp_path / 'file').chmod(0o664)
    monkeypatch.setattr(platform, 'raw_getxattr', lambda *_: -1)
    monkeypatch.setattr(platform, 'get_errno', lambda: errno.ENODATA)
    assert platform.has_access_list(str(tmp_path / 'file')) is False
    monkeypatch.setattr(platform, 'get_errno', lambda: errno.EIO)
    with pytest.raises(OSError) as e:
        platform.has_access_list(str(tmp_path / 'file'))
    assert e.value.filename == 'getxattr'


def test_a_descriptor_whose_path_cannot_be_read_is_warned_of():
    need_root()

    def child():
        os.open(__file__, os.O_RDONLY)

        def readlink(*_, **__):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), '/proc/self/fd/3')
        capdrop.posix.readlink = readlink
        return capdrop.plan(capdrop.Security(**AS_1111)).warnings
    assert [text for text in in_child(child) if 'descriptors cannot be looked at' in text and '/proc/self/fd/3: Permission' in text]


# ---------------------------------------------------------------------------- what is judged, and when

def test_a_file_of_strangers_is_refused_to_whoever_may_change_ids_and_to_nobody_else(tmp_path):
    need_root()
    path = configuration(tmp_path, (1000, 0, 0o644), (0, 0, 0o755), 'user = 33 group = 33')

    def nobody_special():
        another_user()
        capset(0, 0)

    def child(prepare):
        security = capdrop.load(path)
        prepare()
        return with_words('can be rewritten by user 1000', capdrop.plan(security).refusals)
    assert len(in_child(child, another_user)) == 1
    assert in_child(child, nobody_special) == []


def test_a_command_of_root_is_not_made_undumpable_since_exec_would_undo_it():
    options = dict(ROOT, capabilities='cap_kill+ep')
    assert len(with_words('PR_SET_DUMPABLE', plan_of(lambda: None, options)[0])) == 1
    assert with_words('PR_SET_DUMPABLE', plan_of(lambda: None, options, exec=True)[0]) == []


def test_a_root_directory_that_is_asked_for_is_never_already_held():
    """What has its identity may be another mount of it."""
    def prepare():
        capdrop.drop(capdrop.Security(**AS_1111))
    assert plan_of(prepare, AS_1111)[0] == []
    assert with_words('chdir("/")', plan_of(prepare, dict(AS_1111, chroot='/'))[0])


# ---------------------------------------------------------------------------- steps and frames that fail

def test_one_failing_prctl_of_many_is_an_error(monkeypatch):
    platform = capdrop.this_platform()
    asked = []
    monkeypatch.setattr(platform, 'raw_prctl', lambda *args: asked.append(args[1].value) or -(args[1].value == 2))
    with pytest.raises(OSError) as e:
        platform.prctl_each((1, 2, 3), (24,))
    assert (e.value.filename, asked) == ('prctl', [1, 2])


def test_a_process_that_stays_dumpable_is_an_error(monkeypatch):
    platform = capdrop.this_platform()
    monkeypatch.setattr(platform, 'prctl', lambda *_: 1)
    with pytest.raises(OSError, match='the process is still dumpable'):
        platform.forbid_dumps()


def test_an_account_that_is_gone_after_a_drop_is_a_refusal_that_says_to_restart():
    need_root()

    def child():
        capdrop.drop(capdrop.Security(**AS_1111))
        with pytest.raises(capdrop.RefusedError, match='restart the process to change its Security stanza'):
            capdrop.drop(capdrop.Security(user='no-such-account'))
        return True
    assert in_child(child)


def test_signals_that_cannot_be_blocked_or_unblocked_are_refusals():
    def child():
        before, genuine = capdrop.present_mask(), capdrop.handlers_are_blocked
        capdrop.handlers_are_blocked = lambda: False
        with pytest.raises(capdrop.RefusedError, match='signals cannot be blocked'):
            capdrop.Silence()
        assert capdrop.present_mask() == before
        capdrop.handlers_are_blocked = genuine
        silence = capdrop.Silence()
        capdrop.set_mask = lambda mask: 'not now'
        with pytest.raises(capdrop.RefusedError, match='signals stay blocked: not now'):
            silence.restore()
        return True
    assert in_child(child)


def test_what_no_command_can_be_given_is_an_error_of_the_caller():
    for argv, env, words in ([], {}, 'needs a command'), (['a'], {'A=B': ''}, 'has no = in it'), (['a\0'], {}, 'have no NUL'):
        with pytest.raises(ValueError, match=words):
            capdrop.Command(argv, env)
    with pytest.raises(TypeError, match='takes a list of words'):
        capdrop.Command('/bin/true -x', {})
