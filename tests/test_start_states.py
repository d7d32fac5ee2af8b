"""Random start states: whatever a process is when it drops, it ends as asked, or unchanged.

Each case is a child that is put into a random state and given a random stanza.  Its parent
judges by /proc/PID/status.  What is right is worked out here from capabilities(7),
credentials(7) and user_namespaces(7), without the plan of capdrop: after a refusal the child
itself tries to get to what was asked for, by plain calls.  If it gets there, the refusal was
wrong.  After a success it tries to get back.

    CAPDROP_START_STATES=20000 CAPDROP_SEED=1 python3 tests/test_start_states.py

A case depends on its seed alone: with CAPDROP_SEED=N CAPDROP_START_STATES=1 it is repeated.
CAPDROP_DETAILS=1 shows why what was refused could not be reached.
"""
import ctypes
import errno
import gc
import marshal
import os
import random
import select
import signal
import socket
import stat
import struct
import sys
import time

CASES = int(os.environ.get('CAPDROP_START_STATES', 500))
FIRST = int(os.environ.get('CAPDROP_SEED', 1))
DETAILS = bool(os.environ.get('CAPDROP_DETAILS'))

CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP = (
    1 << n for n in range(9))
BIND, NET_ADMIN, NET_RAW, SYS_CHROOT, SYS_PTRACE, SYS_ADMIN, SYS_NICE, MKNOD, SETFCAP = (
    1 << n for n in (10, 12, 13, 18, 19, 21, 23, 27, 31))
NAMES = (
    'chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap '
    'linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner '
    'sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice '
    'sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap '
    'mac_override mac_admin syslog wake_alarm block_suspend audit_read').split()
CONTAINER = sum(1 << n for n in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))

# linux/securebits.h
NOROOT, NOROOT_LOCKED, NO_FIXUP, KEEP, KEEP_LOCKED, NO_RAISE = 1, 2, 4, 16, 32, 64

# linux/prctl.h
GET_DUMPABLE, SET_DUMPABLE, GET_KEEPCAPS, SET_KEEPCAPS, SET_SECCOMP = 3, 4, 7, 8, 22
CAPBSET_READ, CAPBSET_DROP, GET_SECUREBITS, SET_SECUREBITS = 23, 24, 27, 28
SET_NO_NEW_PRIVS, GET_NO_NEW_PRIVS, CAP_AMBIENT = 38, 39, 47
AMBIENT_IS_SET, AMBIENT_RAISE, AMBIENT_LOWER, AMBIENT_CLEAR = 1, 2, 3, 4

# linux/sched.h, sys/mount.h
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18

OVERFLOW = 65534
EVERYONE = (1 << 32) - 1

ACCOUNTS = {'root': (0, 0), 'www-data': (33, 33), 'ecuser': (2525, 2525), 'inmail': (4241, 8),
            'alice': (1000, 1000), 'bob': (1001, 100), '1234': (4242, 4242),
            'nobody': (65534, 65534)}
GROUPS = {'root': (0, ()), 'adm': (4, ('ecuser', 'alice')), 'mail': (8, ('alice',)),
          'www-data': (33, ()), 'users': (100, ('www-data',)), 'ecuser': (2525, ()),
          'alice': (1000, ()), 'four': (4242, ()), 'nogroup': (65534, ())}

libc = ctypes.CDLL(None, use_errno=True)


# -------------------------------------------------------------------- chance

class Dice:
    """Only random(), whose sequence is the same in every Python."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def chance(self, probability):
        return self.random() < probability

    def pick(self, *choices):
        return choices[int(self.random() * len(choices))]

    def some(self, choices, most):
        """Up to `most` of the choices, in any order, without repetition."""
        choices = list(choices)
        wanted = int(self.random() * (most + 1))
        found = []
        while choices and len(found) < wanted:
            found.append(choices.pop(int(self.random() * len(choices))))
        return found

    def bits(self, probability):
        return sum(1 << n for n in range(41) if self.chance(probability))


# -------------------------------------------------------------------- a start state

MAPS = {                                        # (inside, outside, count), ...
    'root alone': [(0, 0, 1)],
    'rootless': [(0, 100000, 65536)],
    'part': [(0, 100000, 1001)],
    'a few': [(0, 0, 1), (33, 33, 1), (1000, 100000, 1)],
    'no root': [(1000, 0, 1), (33, 100000, 1)],
    'all': [(0, 0, EVERYONE)],
    'none': [],
}

BLOCKED = {                                     # name of the call, first and second argument
    'unshare': ('unshare',), 'setgroups': ('setgroups',), 'setresuid': ('setresuid',),
    'setresgid': ('setresgid',), 'capset': ('capset',), 'setfsuid': ('setfsuid',),
    'setfsgid': ('setfsgid',), 'chroot': ('chroot',), 'keepcaps': ('prctl', SET_KEEPCAPS),
    'bounding': ('prctl', CAPBSET_DROP), 'securebits': ('prctl', SET_SECUREBITS),
    'no_new_privs': ('prctl', SET_NO_NEW_PRIVS), 'raise': ('prctl', CAP_AMBIENT, AMBIENT_RAISE),
    'clear': ('prctl', CAP_AMBIENT, AMBIENT_CLEAR),
    'lower': ('prctl', CAP_AMBIENT, AMBIENT_LOWER),
}

CALLS = {                                       # asm/unistd.h
    'x86_64': dict(unshare=272, setgroups=116, setresuid=117, setresgid=119, capset=126,
                   setfsuid=122, setfsgid=123, chroot=161, prctl=157),
    'aarch64': dict(unshare=97, setgroups=159, setresuid=147, setresgid=149, capset=91,
                    setfsuid=151, setfsgid=152, chroot=51, prctl=167),
}


def call_numbers():
    if struct.calcsize('P') == 8 and sys.byteorder == 'little':
        return CALLS.get(os.uname()[4])
    return None


class Start:
    """What a child is put into."""

    def __init__(self, dice, held):
        self.map = self.gid_map = None
        if dice.chance(0.2):
            self.map = dice.pick(*sorted(MAPS))
            self.gid_map = self.map if dice.chance(0.8) else dice.pick(*sorted(MAPS))
        self.deny = bool(self.map) and dice.chance(0.5)
        self.no_proc = dice.chance(0.08)
        self.hidepid = not self.no_proc and dice.chance(0.08)
        self.no_default = dice.chance(0.05)
        self.chroot = dice.pick('jail', 'bare', 'jail') if dice.chance(0.12) else None
        self.cwd = dice.pick('/', '/', '/usr', 'outside')
        self.calls(dice)
        self.identity(dice)
        self.sets(dice, held)
        self.bits(dice)
        self.no_new_privs = dice.chance(0.15)
        self.dumpable = dice.chance(0.7)

    def calls(self, dice):
        """Those that a filter blocks, and what it answers."""
        self.blocked, self.error = [], dice.pick(errno.EPERM, errno.EPERM, errno.ENOSYS)
        if dice.chance(0.15):
            some = dice.some(sorted(BLOCKED), 1) + [dice.pick(*sorted(BLOCKED))]
            self.blocked = sorted(set(some))

    def identity(self, dice):
        uids = 0, 0, 33, 1000, 1001, 2525, 65534, 7777
        gids = 0, 0, 33, 1000, 8, 100, 2525, 65534, 7777
        groups = 0, 4, 8, 33, 100, 1000, 2525, 7777, 65534
        self.uids = self.ids(dice, uids, MAPS.get(self.map))
        self.gids = self.ids(dice, gids, MAPS.get(self.gid_map))
        self.groups = dice.some(groups, dice.pick(0, 0, 3, 5))

    @staticmethod
    def ids(dice, pool, extents):
        """Real, effective, saved and filesystem id; None to leave what there is."""
        if extents is not None:
            pool = [n for n in pool if translated(n, extents) is not None]
            if not pool or dice.chance(0.15):
                return None
        one, other = dice.pick(*pool), dice.pick(*pool)
        shapes = [(one,) * 4] * 6 + [
            (one, one, other, one), (one, other, one, other), (one, one, one, other),
            (one, other, other, other), (other, one, one, one), (one, one, other, other)]
        return dice.pick(*shapes)

    def sets(self, dice, held):
        usual = SETUID | SETGID | SETPCAP | BIND
        everything = dice.pick(EVERYONE << 32 | EVERYONE, held)
        kept = dice.pick(
            everything, everything, everything, everything, everything, usual,
            usual | SYS_CHROOT, CONTAINER, CONTAINER, dice.bits(0.9) | SETUID | SETGID,
            SETGID | SETUID, 0, BIND, SETPCAP, SETUID, BIND | SETPCAP, dice.bits(0.5),
            everything & ~dice.pick(SETUID, SETGID, SETPCAP, SYS_CHROOT, BIND, NET_RAW))
        self.permitted = kept
        self.bounding = dice.pick(
            everything, everything, everything, kept, kept, kept | dice.bits(0.2),
            dice.bits(0.7), 0)
        self.effective = kept & dice.pick(everything, everything, everything, 0, dice.bits(0.7))
        self.inheritable = dice.pick(
            0, 0, 0, kept, kept & dice.bits(0.3), dice.bits(0.2), BIND)
        ambient = dice.pick(0, everything, everything, dice.bits(0.5))
        self.ambient = kept & self.inheritable & ambient

    def bits(self, dice):
        self.securebits = 0
        if dice.chance(0.35):
            self.securebits = dice.pick(
                NO_FIXUP, KEEP, KEEP_LOCKED, KEEP | KEEP_LOCKED, NO_RAISE, NO_RAISE | 128,
                NOROOT, NOROOT_LOCKED, 0x2f, 0xef,
                int(dice.random() * 256), int(dice.random() * 256))

    def __str__(self):
        words = []
        for name, value in sorted(vars(self).items()):
            if name in SETS or name == 'securebits':
                value = value and hex(value)
            if value not in (None, 0, []):
                words.append('%s=%s' % (name, value))
        return ' '.join(words)


SETS = 'inheritable', 'permitted', 'effective', 'bounding', 'ambient'


def translated(number, extents):
    """An id inside a user namespace as its parent sees it; None where it is not mapped."""
    for inside, outside, count in extents:
        if inside <= number < inside + count:
            return outside + number - inside
    return None


def back(number, extents):
    """The other way."""
    return translated(number, [(outside, inside, count) for inside, outside, count in extents])


# -------------------------------------------------------------------- a stanza

class Stanza:
    """What is asked for, and what the three sets of its capabilities are."""

    def __init__(self, dice, start, init_groups):
        self.options = options = {}
        self.launch = dice.chance(0.4)
        self.waived = dice.chance(0.15)
        self.permitted = self.effective = self.inheritable = None
        self.again = dice.chance(0.3)
        self.plan = dice.chance(0.3)
        self.user(dice, start, options)
        self.group(dice, start, options)
        if dice.chance(0.35):
            pool = 'adm', 'mail', 'users', '8', 100, 'www-data', '7777', 'nogroup'
            named = dice.some(pool, 3)
            if start.groups and dice.chance(0.4 if start.permitted & SETGID else 0.8):
                named = sorted(start.groups)
            options['supplemental_groups'] = named
        elif init_groups and dice.chance(0.2):
            options['init_groups'] = True
        if dice.chance(0.65):
            self.capabilities(dice, start)
        if dice.chance(0.5 if start.chroot else 0.25):
            places = ('/', '/', 'again', '/inner') if start.chroot else (
                '/', 'jail', 'bare', 'inner')
            options['chroot'] = dice.pick(*places)

    @staticmethod
    def user(dice, start, options):
        shape = dice.random()
        if not start.permitted & SETUID and start.uids and dice.chance(0.7):
            if shape < 0.7:
                options['user'] = str(dice.pick(*start.uids))
            return
        if shape < 0.15:
            return
        if shape < 0.4 and start.uids:
            options['user'] = str(dice.pick(*start.uids))
        elif shape < 0.7:
            options['user'] = dice.pick(*sorted(ACCOUNTS))
        elif shape < 0.75:
            options['user'] = 'root'
        else:
            options['user'] = dice.pick(
                '33', 1000, '1001', '7777', '4294967294', '0', 65534, '2525')

    @staticmethod
    def group(dice, start, options):
        shape = dice.random()
        if not start.permitted & SETGID and start.gids and dice.chance(0.7):
            options['group'] = str(dice.pick(*start.gids))
            return
        if shape < 0.35 and options.get('user') not in ('7777', '4294967294') or shape < 0.03:
            return
        if shape < 0.65 and start.gids:
            options['group'] = str(dice.pick(*start.gids))
        else:
            options['group'] = dice.pick(
                'mail', 'users', '33', 1000, '0', '7777', 'nogroup', 2525)

    def capabilities(self, dice, start):
        shape = dice.random()
        have = [n for n in range(len(NAMES)) if start.permitted >> n & 1]
        pool = have if dice.chance(0.9) else range(len(NAMES))
        p = sum(1 << n for n in dice.some(pool, 3))
        e, i = p, 0
        if shape < 0.08:
            p = e = 0
        elif shape < 0.16:
            i = p
        elif shape < 0.24:
            e = dice.pick(0, p & dice.bits(0.5))
        elif shape < 0.36:
            bounding = start.bounding & (1 << len(NAMES)) - 1
            i = sum(1 << n for n in dice.some(members(bounding), 2))
            if dice.chance(0.5):
                p = e = 0
        elif shape < 0.50 and start.permitted & BIND:
            p = e = start.ambient & (1 << len(NAMES)) - 1 or BIND
        elif shape < 0.53:
            p = e = start.permitted & (1 << len(NAMES)) - 1
        elif shape < 0.55:
            e = p | CHOWN
        self.permitted, self.effective, self.inheritable = p, e, i
        self.options['capabilities'] = capability_text(dice, e, p, i)

    def __str__(self):
        verb = 'launch' if self.launch else 'drop'
        return '%s%s %s' % (verb, ' no_new_privs=False' * self.waived, self.options)


def capability_text(dice, e, p, i):
    clauses = {}
    for n, name in enumerate(NAMES):
        flags = ''.join(flag for flag, held in zip('eip', (e, i, p)) if held >> n & 1)
        if flags:
            shape = dice.pick('cap_' + name, 'CAP_' + name.upper(), str(n))
            clauses.setdefault(flags, []).append(shape)
    sign = dice.pick('+', '=')
    return ' '.join(','.join(names) + sign + flags for flags, names in sorted(clauses.items()))


# -------------------------------------------------------------------- calls

PASSWORD = 0x6361706f       # the sixth argument of a call that passes the filter


def c(name, *args):
    """A call of the C library; raises OSError."""
    result = getattr(libc, name)(*args)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    return result


def syscall(number, *args):
    return c('syscall', ctypes.c_long(number), *[
        ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args])


def past_filter(name, *args):
    numbers = call_numbers()
    if numbers is None:
        return c(name, *[ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args])
    return syscall(numbers[name], *(args + (0,) * (5 - len(args)) + (PASSWORD,)))


def prctl(*args):
    return c('prctl', *[ctypes.c_ulong(arg) for arg in args + (0,) * (5 - len(args))])


def array(numbers):
    return (ctypes.c_uint32 * max(1, len(numbers)))(*numbers)


def capset_arguments(permitted, effective, inheritable):
    sets = effective, permitted, inheritable
    words = [s & 0xffffffff for s in sets] + [s >> 32 for s in sets]
    return (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*words)


def capget():
    """Permitted, effective, inheritable."""
    data = (ctypes.c_uint32 * 6)()
    c('capget', (ctypes.c_uint32 * 2)(0x20080522, 0), data)
    effective, permitted, inheritable = (data[n] | data[n + 3] << 32 for n in range(3))
    return permitted, effective, inheritable


def members(mask):
    return [n for n in range(64) if mask >> n & 1]


def mount(source, target, kind=None, flags=0, data=None):
    c('mount', *[arg and os.fsencode(arg) for arg in (source, target, kind)] + [
        ctypes.c_ulong(flags), data and os.fsencode(data)])


# -------------------------------------------------------------------- being put into a state

def seccomp_program(blocked, error):
    """The calls that are blocked, unless the password is their sixth argument."""
    def test(offset, value, otherwise):
        return [(0x20, 0, 0, offset), (0x15, 0, otherwise, value & 0xffffffff)]
    rows = []
    for name in blocked:
        call, *arguments = BLOCKED[name]
        values = [(0, call_numbers()[call])] + [
            (16 + 8 * n, value) for n, value in enumerate(arguments)]
        length = 2 * len(values) + 4
        block = []
        for offset, value in values:
            block += test(offset, value, length - len(block) - 2)
        allow, refuse = (6, 0, 0, 0x7fff0000), (6, 0, 0, 0x50000 | error)
        rows += block + test(16 + 8 * 5, PASSWORD, 1) + [allow, refuse]
    return rows + [(6, 0, 0, 0x7fff0000)]


def filter_calls(blocked, error):
    rows = seccomp_program(blocked, error)
    code = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack('@HP', len(rows), ctypes.addressof(code)))
    prctl(SET_SECCOMP, 2, ctypes.addressof(program))


def enter(start, work, channel):
    """Become what `start` says; what the kernel does not allow stays as it is."""
    if start.no_proc or start.hidepid or start.no_default:
        past_filter('unshare', CLONE_NEWNS)
        mount('none', '/', None, MS_REC | MS_PRIVATE)
    if start.no_default:
        mount(work + '/passwd.other', '/etc/passwd', None, MS_BIND)
    if start.hidepid:
        mount('proc', '/proc', 'proc', 0, 'hidepid=2')
    if start.no_proc:
        mount('none', '/proc', 'tmpfs')
    if start.blocked:
        filter_calls(start.blocked, start.error)
    if start.groups:
        past_filter('setgroups', len(start.groups), array(start.groups))
    if start.map:
        past_filter('unshare', CLONE_NEWUSER)
        channel.send(('map',))
        channel.receive()
    enter_root(start, work)
    past_filter('prctl', SET_SECUREBITS, NO_FIXUP)
    change_ids(start)
    change_sets(start)
    past_filter('prctl', SET_DUMPABLE, int(start.dumpable))


def enter_root(start, work):
    if start.cwd == 'outside':
        os.chdir('/usr')
    if start.chroot:
        past_filter('chroot', os.fsencode(os.path.join(work, start.chroot)))
    if start.cwd != 'outside':
        os.chdir(start.cwd)


def change_ids(start):
    if start.map and not start.deny:
        try:
            past_filter('setgroups', len(start.groups), array(start.groups))
        except OSError:                         # an id that is not mapped
            pass
    if start.gids:
        past_filter('setresgid', *start.gids[:3])
        past_filter('setfsgid', start.gids[3])
    if start.uids:
        past_filter('setresuid', *start.uids[:3])
        past_filter('setfsuid', start.uids[3])


def change_sets(start):
    permitted = capget()[0]
    inheritable = start.inheritable & (permitted | bounding_set())
    past_filter('capset', *capset_arguments(permitted, permitted, inheritable))
    for n in members(bounding_set() & ~start.bounding):
        past_filter('prctl', CAPBSET_DROP, n)
    for n in members(start.ambient & permitted & inheritable):
        past_filter('prctl', CAP_AMBIENT, AMBIENT_RAISE, n)
    past_filter('prctl', SET_SECUREBITS, start.securebits)
    left = start.permitted & permitted
    past_filter('capset', *capset_arguments(left, start.effective & left, inheritable))
    if start.no_new_privs:
        past_filter('prctl', SET_NO_NEW_PRIVS, 1)


def bounding_set():
    found = 0
    for n in range(64):
        if libc.prctl(CAPBSET_READ, n, 0, 0, 0) == 1:
            found |= 1 << n
    return found


# -------------------------------------------------------------------- what a process is

class Channel:
    """Messages between parent and child, over exec too."""

    def __init__(self, fd):
        self.fd = fd

    def send(self, message):
        os.write(self.fd, marshal.dumps(message))

    def receive(self):
        data = os.read(self.fd, 1 << 17)
        return marshal.loads(data) if data else None


def own():
    """What cannot be seen from outside."""
    return dict(securebits=prctl(GET_SECUREBITS), keepcaps=prctl(GET_KEEPCAPS),
                dumpable=prctl(GET_DUMPABLE), collecting=gc.isenabled())


IN_STATUS = {'inheritable': 'CapInh', 'permitted': 'CapPrm', 'effective': 'CapEff',
             'bounding': 'CapBnd', 'ambient': 'CapAmb'}


def look(pid):
    """What process `pid` is, from outside and in outside ids."""
    with open('/proc/%d/status' % pid) as file:
        lines = dict(line.rstrip('\n').split(':', 1) for line in file)
    found = {name: int(lines[line], 16) for name, line in IN_STATUS.items()}
    for name, line in ('uid', 'Uid'), ('gid', 'Gid'):
        found[name] = tuple(int(number) for number in lines[line].split())
    found['groups'] = tuple(sorted({int(number) for number in lines['Groups'].split()}))
    found['no_new_privs'] = int(lines['NoNewPrivs'])
    found['others'] = [lines[name] for name in ('Seccomp', 'SigBlk', 'SigIgn', 'Threads')]
    for name in 'root', 'cwd':
        status = os.stat('/proc/%d/%s' % (pid, name))
        found[name] = status.st_dev, status.st_ino
    found['descriptors'] = sorted(os.listdir('/proc/%d/fd' % pid), key=int)
    return found


# -------------------------------------------------------------------- what is right

class Refuse(Exception):
    """It has to be refused: args are the reason."""


PLACES = {                                      # by where it starts: names and jails
    None: {'/': '', 'jail': 'jail', 'bare': 'bare', 'inner': 'jail/inner'},
    'jail': {'/': 'jail', '/inner': 'jail/inner'},
    'bare': {'/': 'bare'},
}


class Goal:
    """What a process has to end as.  Ids are as seen from outside, in `ids` as from inside.

    may: {words of a refusal: the reason for which it is right although plain calls get there}.
    """

    def __init__(self, start, stanza, found, own, jails):
        self.start, self.stanza, self.jails = start, stanza, jails
        self.found, self.own = found, own
        self.may = {}
        self.accounts = dict(ACCOUNTS)
        if start.no_default and not start.chroot:
            self.accounts['nouser'] = self.accounts.pop('ecuser')
        self.uid_map = MAPS[start.map] if start.map else MAPS['all']
        self.gid_map = MAPS[start.gid_map] if start.map else MAPS['all']
        self.known()
        self.root()
        self.users()
        self.groups()
        self.sets()

    def holds(self, capability):
        return bool(self.found['permitted'] & capability)

    def proc(self, chroot=None):
        """Is there a /proc, in this jail?  Those but the bare one have one of their own."""
        chroot = chroot or self.start.chroot
        return chroot != 'bare' if chroot else not self.start.no_proc

    def known(self):
        """What has to be known, and cannot be."""
        p, e = self.stanza.permitted or 0, self.stanza.effective or 0
        if self.stanza.launch and p & ~e:
            raise Refuse('what is permitted and not effective does not survive exec')
        if e & ~p:
            raise Refuse('effective, and not permitted')
        if not self.proc() and 'unshare' in self.start.blocked:
            raise Refuse('one thread cannot be told from two')
        if not self.proc() and {'setfsuid', 'setfsgid'} & set(self.start.blocked):
            self.may['no /proc to look into'] = 'the filesystem id cannot be read'

    def readable(self):
        """Can the process still see what it is?"""
        named = self.stanza.options.get('chroot')
        if self.proc(None if named == '/' else named):
            return True
        return not {'setfsuid', 'setfsgid'} & set(self.start.blocked)

    def root(self):
        self.jail = None
        named = self.stanza.options.get('chroot')
        if named is None:
            return
        place = PLACES[self.start.chroot].get(named)
        if place is None:
            raise Refuse('there is no such directory')
        self.jail = self.jails[place]
        if self.jail != self.found['root'] and translated(0, self.uid_map) != 0:
            raise Refuse('the owner of the jail is not mapped')
        if translated(0, self.uid_map) != 0:
            self.may['only root may be able'] = 'the owner of the jail is not mapped'

    # -- ids

    def account(self, value):
        """(uid, gid or None) of a user who is named."""
        if value in self.accounts:
            return self.accounts[value]
        number = int(value)
        for uid, gid in self.accounts.values():
            if uid == number:
                return uid, gid
        return number, None

    def users(self):
        user, group = (self.stanza.options.get(name) for name in ('user', 'group'))
        inside = [back(n, self.uid_map) for n in self.found['uid']]
        gids = [back(n, self.gid_map) for n in self.found['gid']]
        stays = user is None and not self.holds(SETUID)
        if stays and 0 in inside:
            raise Refuse('nobody is named, and it would stay root')
        if stays:
            uid, primary, user = inside[1], gids[1], None
            if None in inside:
                self.may['user namespace'] = 'ids that are not mapped look alike'
        else:
            user = 'ecuser' if user is None else user
            if user == 'ecuser' and user not in self.accounts:
                raise Refuse('there is no account')
            uid, primary = self.account(user)
        self.user = user
        gid = primary if group is None else group_number(group)
        if gid is None and not stays:
            raise Refuse('a number without an account needs a group')
        if stays and group is None and None in gids:
            self.may['user namespace'] = 'ids that are not mapped look alike'
        self.ids = uid, gid
        self.uid = self.outside(uid, self.uid_map, stays, 'uid')
        self.gid = self.outside(gid, self.gid_map, stays and group is None, 'gid')
        self.keeps_all = uid == 0 and self.stanza.permitted is None
        ids = ('uid', self.uid, SETUID, 'user'), ('gid', self.gid, SETGID, 'group')
        for field, number, right, word in ids:
            if number != self.found[field][1] and not self.holds(right):
                self.may['cannot change %s ' % word] = (
                    'to another of the ids that it has, without the right')
            self.always_called('setres' + field)
        if self.keeps_all and self.found['effective'] != self.found['permitted'] and inside[1] != 0:
            self.always_called('capset')                # the kernel makes all effective: that is taken back
        for number, field, right in (uid, 'uid', SETUID), (gid, 'gid', SETGID):
            effective, filesystem = self.found[field][1], self.found[field][3]
            if number == 65534 and self.start.map and not self.holds(right) and effective != filesystem:
                self.may['may stand for'] = 'to try whether it is 65534 would change the filesystem id'

    def always_called(self, call):
        if call in self.start.blocked:
            self.may[call + '(2) is blocked'] = call + ' is blocked, and always called'

    def outside(self, number, extents, stays, field):
        if number is None and stays:
            return self.found[field][1]
        number = translated(number, extents)
        if number is None:
            raise Refuse('an id that is not mapped')
        return number

    def groups(self):
        options = self.stanza.options
        named = options.get('supplemental_groups')
        right = self.holds(SETGID) and not self.start.deny and (
            not self.start.map or bool(self.gid_map))
        if options.get('init_groups'):
            if 'user' not in options:
                self.may['init_groups'] = 'nobody is named whose groups could be meant'
            named = () if self.user is None else self.account_groups()
        elif named is None and right:
            named = ()
        if self.holds(SETGID) and self.start.deny and not self.proc() and self.start.blocked:
            self.may['setgroups(2) is blocked'] = (
                'denied by the user namespace, which without /proc looks like a filter')
        self.wanted_groups = self.list = None
        if named is None:
            return
        self.list = sorted({group_number(name) for name in named})
        outside = [translated(n, self.gid_map) for n in self.list]
        if None in outside:
            raise Refuse('an id that is not mapped')
        if 65534 in self.list and self.start.map and not right:
            self.may['may stand for'] = 'a supplementary group 65534 cannot be told from one that is not mapped'
        self.wanted_groups = set(outside) - {self.gid}
        if right:
            self.always_called('setgroups')
            if not self.found['effective'] & SETGID:    # it is made effective for that
                self.always_called('capset')

    def account_groups(self):
        names = [name for name, ids in self.accounts.items()
                 if name == self.user or str(ids[0]) == str(self.user)]
        if not names:
            raise Refuse('init_groups of a number without an account')
        member = [gid for gid, users in GROUPS.values() if names[0] in users]
        return [self.accounts[names[0]][1]] + member

    # -- capabilities

    def sets(self):
        stanza, found = self.stanza, self.found
        self.securebits = self.own['securebits']
        self.bounding, self.no_new_privs = found['bounding'], found['no_new_privs']
        if self.keeps_all:
            return
        self.permitted, self.effective, self.inheritable = (
            stanza.permitted or 0, stanza.effective or 0, stanza.inheritable or 0)
        self.ambient = 0
        self.always_called('capset')
        if not self.securebits & KEEP_LOCKED:
            self.securebits &= ~KEEP
        elif self.securebits & KEEP:
            self.may['SECBIT_KEEP_CAPS is locked'] = 'keepcaps is locked'
        if self.ids[0] == 0:
            self.securebits |= NOROOT | NOROOT_LOCKED
        if not stanza.waived:
            self.no_new_privs = 1
            if self.holds(SETPCAP):
                self.bounding &= self.permitted | self.inheritable
        if stanza.launch:
            self.inheritable |= self.permitted
            self.ambient = self.permitted

    def unlike(self, found, own, executed):
        """How a process differs from what it has to be, sentence by sentence."""
        differences = []

        def differs(name, is_, should):
            if is_ != should:
                differences.append('%s is %s, not %s' % (name, shown(is_), shown(should)))
        for name in 'uid', 'gid':
            if getattr(self, name) is not None:
                differs(name, found[name], (getattr(self, name),) * 4)
        if self.wanted_groups is None:
            differs('groups', found['groups'], self.found['groups'])
        else:
            differs('groups', set(found['groups']) - {self.gid}, self.wanted_groups)
        if self.jail:
            differs('root', found['root'], self.jail)
            differs('cwd', found['cwd'], self.jail)
        else:
            differs('root', found['root'], self.found['root'])
            differs('cwd', found['cwd'], self.found['cwd'])
        differs('bounding', found['bounding'], self.bounding)
        differs('no_new_privs', found['no_new_privs'], self.no_new_privs)
        securebits = self.securebits & ~KEEP if executed else self.securebits
        differs('securebits', own['securebits'], securebits)
        if self.keeps_all:
            self.root_that_keeps_everything(found, executed, differs)
            return differences
        for name in 'permitted', 'inheritable', 'ambient':
            differs(name, found[name], getattr(self, name))
        differs('effective', found['effective'], self.ambient if executed else self.effective)
        return differences

    def root_that_keeps_everything(self, found, executed, differs):
        before = self.found
        differs('inheritable', found['inheritable'], before['inheritable'])
        if executed:                            # execve(2) gives root what these hold
            most = before['permitted'] | before['inheritable'] | before['bounding']
            differs('permitted beyond what exec gives', found['permitted'] & ~most, 0)
            return
        differs('permitted', found['permitted'], before['permitted'])
        differs('ambient', found['ambient'], before['ambient'])
        if found['effective'] != before['permitted']:   # which becoming uid 0 makes effective
            differs('effective', found['effective'], before['effective'])

    def orders(self):
        """What reach() has to know."""
        names = ('bounding', 'no_new_privs', 'securebits', 'keeps_all', 'list', 'ids')
        orders = {name: getattr(self, name) for name in names}
        orders.update(
            groups_differ=self.wanted_groups is not None
            and self.wanted_groups != set(self.found['groups']) - {self.gid},
            uid_differs=self.found['uid'] != (self.uid,) * 4,
            gid_differs=self.found['gid'] != (self.gid,) * 4,
            uids=tuple(back(n, self.uid_map) for n in self.found['uid']),
            chroot=self.stanza.options.get('chroot') if self.jail else None,
            already=self.jail == self.found['root'])
        if not self.keeps_all:
            for name in 'permitted', 'effective', 'inheritable', 'ambient':
                orders[name] = getattr(self, name)
        return orders


def group_number(name):
    return GROUPS[name][0] if name in GROUPS else int(name)


def shown(value):
    if isinstance(value, int):
        return hex(value)
    return ' '.join(map(str, sorted(value) if isinstance(value, set) else value)) or 'none'


# ----------------------------------------------------------------- getting there by plain calls

def reach(orders):
    """Try to become what was asked for; what fails fails, and is judged from outside."""
    notes = []

    def attempt(name, *args):
        try:
            c(name, *args)
        except OSError as e:
            notes.append('%s: %s' % (name, e.strerror))

    def set_prctl(*args):
        attempt('prctl', *[ctypes.c_ulong(arg) for arg in args + (0,) * (5 - len(args))])
    permitted, effective, inheritable = capget()
    if permitted != effective:
        attempt('capset', *capset_arguments(permitted, permitted, inheritable))
    grown = inheritable | orders.get('inheritable', 0)
    if grown & ~(inheritable | orders.get('permitted', 0)):
        attempt('capset', *capset_arguments(permitted, permitted, grown))
    reach_identity(orders, attempt, set_prctl)
    if orders['keeps_all']:
        if effective not in (capget()[1], permitted):
            attempt('capset', *capset_arguments(permitted, effective, inheritable))
        return notes
    wanted = [orders[name] for name in ('permitted', 'effective', 'inheritable')]
    if list(capget()) != wanted:
        attempt('capset', *capset_arguments(*wanted))
    reach_ambient(orders['ambient'], set_prctl)
    if orders['no_new_privs'] and not prctl(GET_NO_NEW_PRIVS):
        set_prctl(SET_NO_NEW_PRIVS, 1)
    return notes


def reach_identity(orders, attempt, set_prctl):
    if orders['groups_differ']:
        attempt('setgroups', len(orders['list']), array(orders['list']))
    if orders['chroot']:
        if not orders['already']:
            attempt('chroot', os.fsencode(orders['chroot']))
        attempt('chdir', b'/')
    for n in members(bounding_set() & ~orders['bounding']):
        set_prctl(CAPBSET_DROP, n)
    now = prctl(GET_SECUREBITS)
    if now != orders['securebits'] and orders['securebits'] & NOROOT:
        set_prctl(SET_SECUREBITS, now | NOROOT | NOROOT_LOCKED)
    reach_ids(orders, attempt, set_prctl)


def reach_ids(orders, attempt, set_prctl):
    uid, gid = orders['ids']
    if orders['gid_differs']:
        attempt('setresgid', gid, gid, gid)
    now = prctl(GET_SECUREBITS)
    loses = 0 in orders['uids'][:3] and uid != 0 and not now & (KEEP | NO_FIXUP)
    if loses and orders['permitted']:
        set_prctl(SET_KEEPCAPS, 1)
    if orders['uid_differs']:
        attempt('setresuid', uid, uid, uid)
    if not orders['keeps_all'] and prctl(GET_KEEPCAPS):
        set_prctl(SET_KEEPCAPS, 0)


def reach_ambient(wanted, set_prctl):
    for n in range(64):
        held = libc.prctl(CAP_AMBIENT, AMBIENT_IS_SET, n, 0, 0) == 1
        if held and not wanted >> n & 1:
            set_prctl(CAP_AMBIENT, AMBIENT_LOWER, n)
        elif wanted >> n & 1 and not held:
            set_prctl(CAP_AMBIENT, AMBIENT_RAISE, n)


# -------------------------------------------------------------------- getting back

def attempts(facts):
    """(name, capabilities that allow it, a call that raises OSError or returns its gain)."""
    yield from attempts_at_users(facts)
    yield from attempts_at_groups(facts)
    yield from attempts_at_sets(facts)
    yield from attempts_at_the_root(facts)
    yield from attempts_at_files(facts)
    yield from attempts_at_programs(facts)
    yield from attempts_at_the_rest(facts)


def gains(name, *args):
    return lambda: [c(name, *args)]


def filesystem_id(name, number):
    """setfsuid(2) answers with the one before, whether it changes it or not."""
    def call():
        getattr(libc, name)(number)
        return getattr(libc, name)(ctypes.c_uint32(-1)) == number
    return call


def attempts_at_users(facts):
    if not facts['uid_is_0']:
        for args in (0, 0, 0), (-1, 0, -1), (0, -1, -1), (-1, -1, 0):
            yield 'setresuid%s' % (args,), SETUID, gains('setresuid', *args)
        for args in (0, -1), (-1, 0):
            yield 'setreuid%s' % (args,), SETUID, gains('setreuid', *args)
        for name in 'setuid', 'seteuid':
            yield name + '(0)', SETUID, gains(name, 0)
        yield 'setfsuid(0)', SETUID, filesystem_id('setfsuid', 0)
    for number in facts['old_uids'] + [12345]:
        yield 'setresuid(%d)' % number, SETUID, gains('setresuid', number, number, number)
        yield 'seteuid(%d)' % number, SETUID, gains('seteuid', number)
        yield 'setfsuid(%d)' % number, SETUID, filesystem_id('setfsuid', number)


def attempts_at_groups(facts):
    for number in facts['old_gids'] + [12345]:
        yield 'setresgid(%d)' % number, SETGID, gains('setresgid', number, number, number)
        yield 'setregid(%d)' % number, SETGID, gains('setregid', number, -1)
        for name in 'setegid', 'setgid':
            yield '%s(%d)' % (name, number), SETGID, gains(name, number)
        yield 'setfsgid(%d)' % number, SETGID, filesystem_id('setfsgid', number)
    for groups in facts['old_groups'], [0], [], [12345]:
        call = gains('setgroups', len(groups), array(groups))
        yield 'setgroups(%s)' % groups, SETGID, call
    yield 'initgroups', SETGID, gains('initgroups', b'root', 0)


def attempts_at_sets(facts):
    permitted, effective, inheritable = capget()
    for n in range(41):
        more = 1 << n
        if not permitted & more:
            sets = capset_arguments(permitted | more, effective, inheritable)
            yield 'capset, permitted %d' % n, 0, gains('capset', *sets)
            yield 'ambient %d' % n, 0, gains('prctl', CAP_AMBIENT, AMBIENT_RAISE, n, 0, 0)
        if not (permitted | inheritable) & more:
            sets = capset_arguments(permitted, effective, inheritable | more)
            yield 'capset, inheritable %d' % n, SETPCAP, gains('capset', *sets)
    yield 'bounding set', SETPCAP, gains('prctl', CAPBSET_DROP, 10, 0, 0, 0)
    bits = NO_FIXUP | KEEP
    yield 'securebits', SETPCAP, gains('prctl', SET_SECUREBITS, bits, 0, 0, 0)
    if facts['uid_is_0']:
        yield 'securebits, noroot', 0, gains('prctl', SET_SECUREBITS, 0, 0, 0, 0)
    if not facts['waived']:
        yield 'no_new_privs off', 0, gains('prctl', SET_NO_NEW_PRIVS, 0, 0, 0, 0)


def attempts_at_the_root(facts):
    yield 'chroot', SYS_CHROOT, gains('chroot', os.fsencode(facts['work']))
    if facts['jailed']:
        yield 'up and out', SYS_CHROOT, up_and_out
        yield 'out through a descriptor', SYS_CHROOT, out_through_a_descriptor
        place = '/proc/%d/root' % facts['victim']
        yield 'out through a process', SYS_PTRACE, lambda: [os.chdir(place)]


def attempts_at_files(facts):
    work = facts['work']
    for name in 'root', 'group', 'other':
        if not facts['owns'][name]:
            yield from attempts_at_file(name, os.path.join(work, 'secret', name))
    if facts['handle'] and not facts['owns']['other']:
        handle = facts['handle']
        yield 'open by handle', DAC_READ_SEARCH, lambda: open_by_handle(work, handle)
    device = stat.S_IFCHR | 0o666
    yield 'give a file away', CHOWN, lambda: give_away(work)
    yield 'file capabilities', SETFCAP, lambda: file_capability(work)
    yield 'device', MKNOD, lambda: [os.mknod(own_name(work), device, os.makedev(1, 1))]


def attempts_at_file(name, path):
    yield 'open ' + name, DAC_OVERRIDE | DAC_READ_SEARCH, lambda: [os.open(path, os.O_RDONLY)]
    yield 'write ' + name, DAC_OVERRIDE, lambda: [os.open(path, os.O_WRONLY)]
    yield 'chmod ' + name, FOWNER, lambda: [os.chmod(path, 0o666)]
    yield 'chown ' + name, CHOWN, lambda: [os.chown(path, 12345, 12345)]


def attempts_at_programs(facts):
    """Where new privileges are not allowed, a program's own rights give nothing."""
    work = facts['work']
    for program, name in ('suid', 'root'), ('sgid', 'group'), ('fcap', 'other'):
        if not facts['waived'] and not facts['owns'][name]:
            command = [work + '/%s/cat' % program, work + '/secret/' + name]
            reads = DAC_OVERRIDE | DAC_READ_SEARCH
            yield program, reads, lambda command=command: read_by(command)
    passed_on = facts['passed_on']
    yield 'a program that is run', 0, lambda: program_holds(work) & ~passed_on


def attempts_at_the_rest(facts):
    victim = facts['victim']
    place = facts['work'] + '/open'
    yield 'mount', SYS_ADMIN, lambda: [mount('none', place, 'tmpfs')]
    yield 'mount namespace', SYS_ADMIN, gains('unshare', CLONE_NEWNS)
    yield 'host name', SYS_ADMIN, host_name
    yield 'raw socket', NET_RAW, lambda: [socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)]
    if facts['low_port']:
        address = '127.0.0.1', facts['low_port']
        yield 'low port', BIND, lambda: [socket.socket().bind(address)]
    yield 'priority', SYS_NICE, lambda: [os.setpriority(os.PRIO_PROCESS, 0, -20)]
    yield 'trace', SYS_PTRACE, lambda: trace(victim)
    yield 'a descriptor of another', SYS_PTRACE, lambda: other_descriptor(victim)
    if not facts['kuid_is_0']:
        yield 'signal', KILL, lambda: [os.kill(victim, 0)]


def up_and_out():
    root = os.stat('/')
    for _ in range(60):
        os.chdir('..')
    now = os.stat('.')
    return (now.st_dev, now.st_ino) != (root.st_dev, root.st_ino)


def out_through_a_descriptor():
    for fd in range(256):
        try:
            os.fchdir(fd)
        except OSError:
            continue
        return True
    return False


def own_name(work):
    return '%s/open/%d' % (work, os.getpid())


def give_away(work):
    name = own_name(work)
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600))
    try:
        os.chown(name, -1, 12345)
        return True
    finally:
        os.unlink(name)


# vfs_cap_data of linux/capability.h: version 2, effective; permitted, inheritable
FILE_CAPABILITIES = struct.pack('<5I', 0x02000001, DAC_OVERRIDE | DAC_READ_SEARCH, 0, 0, 0)


def set_capabilities(path):
    """Not by os.setxattr, which a Python on musl may lack."""
    c('setxattr', os.fsencode(path), b'security.capability', FILE_CAPABILITIES, ctypes.c_size_t(len(FILE_CAPABILITIES)), 0)


def file_capability(work):
    name = own_name(work)
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o700))
    try:
        set_capabilities(name)
        return True
    finally:
        os.unlink(name)


def host_name():
    name = socket.gethostname().encode()
    return [c('sethostname', name, len(name))]


def read_by(command):
    """What a program of another's rights reads for us."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(into, 1)
            os.close(2)
            os.execve(command[0], command, {})
        finally:
            os._exit(99)
    os.close(into)
    with os.fdopen(out, 'rb') as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


def program_holds(work):
    """The capabilities of a program that is run; 0 where /proc does not show them."""
    text = read_by([work + '/plain/cat', '/proc/self/status'])
    for line in text.splitlines():
        if line.startswith(b'CapPrm'):          # the effective set is never more
            return int(line.split()[1], 16)
    return 0


def trace(victim):
    c('ptrace', 0x4206, victim, None, None)     # PTRACE_SEIZE
    return True


def other_descriptor(victim):
    fd = syscall(434, victim, 0)                # pidfd_open(2)
    try:
        return [syscall(438, fd, 0, 0)]         # pidfd_getfd(2)
    finally:
        os.close(fd)


def open_by_handle(work, handle):
    directory = os.open(work, os.O_RDONLY)
    try:
        handle = ctypes.create_string_buffer(handle)
        return [c('open_by_handle_at', directory, handle, os.O_RDONLY)]
    finally:
        os.close(directory)


def try_to_regain(facts):
    """(how many there are, what those gained that are not granted)"""
    made, gained = 0, []
    kept = facts['permitted']
    for name, allowed_by, call in attempts(facts):
        made += 1
        if kept & allowed_by:                   # the stanza grants it
            continue
        try:
            if call():
                gained.append(name)
        except (OSError, AttributeError):       # a call that this C library does not have
            pass
    return made, gained


# -------------------------------------------------------------------- the child

def child(start, stanza, work, channel):
    import capdrop
    enter(start, work, channel)
    channel.send(('ready', own()))
    channel.receive()
    options = dict(stanza.options)
    if 'chroot' in options:
        options['chroot'] = jail_of(options['chroot'], start, work)
    switch = dict(no_new_privs=not stanza.waived)
    planned = None
    try:
        security = capdrop.Security(**options)
        if stanza.plan:
            planned = bool(capdrop.plan(security, exec=stanza.launch, **switch).refusals)
        if stanza.launch:
            os.set_inheritable(channel.fd, True)
            program = 'import sys; sys.path.insert(0, %r); import start_states; ' \
                'start_states.launched(%d, %r)' % (work + '/probe', channel.fd, planned)
            capdrop.launch(security, [sys.executable, '-I', '-S', '-c', program], **switch)
        capdrop.drop(security, **switch)
    except capdrop.Error as e:
        os.set_inheritable(channel.fd, False)
        channel.send(('refused', '%s: %s' % (type(e).__name__, e), own(), planned))
        orders = channel.receive()
        if orders:
            orders['chroot'] = orders['chroot'] and options['chroot']
            channel.send(('tried', reach(orders), own()))
            channel.receive()
        return
    channel.send(('done', own(), planned))
    channel.receive()
    if stanza.again:
        text = ''
        try:
            capdrop.drop(security, **switch)
        except capdrop.Error as e:
            text = str(e)
        channel.send(('again', text, own()))
        channel.receive()
    regain(channel)


def jail_of(name, start, work):
    names = {'jail': '/jail', 'bare': '/bare', 'inner': '/jail/inner',
             'again': '/%s' % start.chroot}
    return work + names[name] if name in names else name


def launched(fd, planned):
    channel = Channel(fd)
    channel.send(('done', own(), planned))
    channel.receive()
    regain(channel)


def regain(channel):
    channel.send(('facts',))
    facts = channel.receive()
    if facts:
        channel.send(('regained', try_to_regain(facts), own()))
        channel.receive()


# -------------------------------------------------------------------- the parent

class Wrong(Exception):
    """args: what kind of wrong it is, and the details."""


class Ended(Exception):
    """The child ended before it answered."""


class Talk(Channel):
    """The parent's end."""

    def __init__(self, fd, pid):
        Channel.__init__(self, fd)
        self.pid = pid

    def receive(self):
        if not select.select([self.fd], [], [], 30)[0]:
            os.kill(self.pid, signal.SIGKILL)
            raise Wrong('hangs')
        message = Channel.receive(self)
        if message is None:
            raise Ended()
        return message


class Place:
    """What all cases share: the jails, the secrets, a process of root's as a victim."""

    def __init__(self, work, top):
        self.work = work
        self.jails = {}
        self.init_groups = False
        os.chmod(work, 0o755)
        self.own_mounts(top)
        self.secrets()
        self.programs()
        for name in 'jail', 'bare', 'jail/inner':
            self.jail(name)
        status = os.stat('/')
        self.jails[''] = status.st_dev, status.st_ino
        self.victim = os.fork()
        if self.victim == 0:
            signal.pause()
        self.warm_up()
        self.held = look(os.getpid())['permitted']
        self.able = {'map': in_fork(new_user_namespace), 'hidepid': in_fork(hidden_processes),
                     'blocked': bool(call_numbers()) and in_fork(a_filter)}

    def own_mounts(self, top):
        c('unshare', CLONE_NEWNS)
        mount('none', '/', None, MS_REC | MS_PRIVATE)
        # a file of Python's or of this repository may lie where only root looks in
        self.trees = sorted({sys.base_prefix, sys.prefix, top})
        for path in self.trees:
            open_up(path)
        mount('none', self.work, 'tmpfs', 0, 'mode=755')
        passwd = ''.join('%s:x:%d:%d::/:/bin/sh\n' % (name, uid, gid)
                         for name, (uid, gid) in ACCOUNTS.items())
        group = ''.join('%s:x:%d:%s\n' % (name, gid, ','.join(users))
                        for name, (gid, users) in GROUPS.items())
        loader = {name: read('/etc/' + name) for name in os.listdir('/etc')
                  if name.startswith('ld') and os.path.isfile('/etc/' + name)}
        # not bound over the files one by one: who replaces /etc/passwd meanwhile would end that
        mount('none', '/etc', 'tmpfs', 0, 'mode=755')
        for name, text in loader.items():
            write('/etc/' + name, text)
        write('/etc/passwd', passwd)
        write('/etc/group', group)
        write('/etc/nsswitch.conf', 'passwd: files\ngroup: files\n')
        write(self.work + '/passwd.other', passwd.replace('ecuser:', 'nouser:'))

    def secrets(self):
        for name in 'secret', 'probe', 'plain', 'suid', 'sgid', 'fcap', 'open':
            os.mkdir(os.path.join(self.work, name))
        os.chmod(self.work + '/open', 0o1777)
        self.owners = {'root': (0, 0), 'other': (3999999, 3999999), 'group': (3999999, 0)}
        for name in self.owners:
            write(self.work + '/secret/' + name, 'secret')
        self.protect()
        self.handle = None
        handle = ctypes.create_string_buffer(struct.pack('=Ii', 128, 0), 136)
        number, path = ctypes.c_int(), os.fsencode(self.work + '/secret/other')
        try:
            c('name_to_handle_at', -100, path, handle, ctypes.byref(number), 0)
            self.handle = handle.raw
        except (OSError, AttributeError):
            pass

    def protect(self):
        for name, owner in self.owners.items():
            path = self.work + '/secret/' + name
            os.chown(path, *owner)
            os.chmod(path, 0o060 if name == 'group' else 0o600)

    def programs(self):
        import py_compile
        import shutil
        self.cat = shutil.which('cat')
        for name, mode in ('plain', 0o755), ('suid', 0o4755), ('sgid', 0o2755), ('fcap', 0o755):
            path = os.path.join(self.work, name, 'cat')
            shutil.copy(os.path.realpath(self.cat), path)
            os.chmod(path, mode)
        try:
            set_capabilities(path)
        except OSError:                         # a file system without them
            pass
        probe = os.path.join(self.work, 'probe', 'start_states.py')
        shutil.copy(os.path.realpath(__file__), probe)
        os.chmod(probe, 0o644)
        py_compile.compile(probe, doraise=True)

    def jail(self, name):
        path = os.path.join(self.work, name)
        os.mkdir(path)
        mount('none', path, 'tmpfs', 0, 'mode=755')
        for entry in 'bin', 'sbin', 'lib', 'lib32', 'lib64', 'usr', 'etc':
            source, target = '/' + entry, os.path.join(path, entry)
            if os.path.islink(source):
                os.symlink(os.readlink(source), target)
            elif os.path.isdir(source):
                os.mkdir(target)
                mount(source, target, None, MS_BIND | MS_REC)
        for tree in self.trees + [os.path.join(self.work, name) for name in (
                'secret', 'probe', 'plain', 'suid', 'sgid', 'fcap', 'open')]:
            os.makedirs(path + tree, exist_ok=True)
            mount(tree, path + tree, None, MS_BIND | MS_REC)
        if name != 'bare':
            os.mkdir(path + '/proc')
            mount('/proc', path + '/proc', None, MS_BIND)
        status = os.stat(path)
        self.jails[name] = status.st_dev, status.st_ino

    def warm_up(self):
        """Load what a child could no longer load."""
        import capdrop
        self.init_groups = True
        try:
            capdrop.Security(user='root', init_groups=True)
        except TypeError:
            self.init_groups = False
        good = dict(user='7777', group='1', chroot='/')
        misspelt = dict(capabilities='cap_chwn+ep')
        for exec_ in False, True:
            for options in good, misspelt:
                try:
                    capdrop.plan(capdrop.Security(**options), exec=exec_)
                except capdrop.Error:
                    pass
        import concurrent.futures.thread, difflib, grp, pwd, traceback       # noqa: E401, F401
        'x'.encode('idna')

    # -- are the attempts any good?

    def useless(self):
        """The attempts that gain nothing even for who still may."""
        facts = dict(
            work=self.work, victim=self.victim, handle=self.handle, low_port=1, permitted=0,
            passed_on=0, old_uids=[33], old_gids=[0, 33], old_groups=[4, 8],
            owns=dict(root=False, other=False, group=False), uid_is_0=False, kuid_is_0=False,
            waived=False, jailed=True)
        without = 'capset', 'ambient', 'no_new_privs'
        cat = os.path.realpath(self.cat)
        if os.path.basename(cat).startswith('busybox'):     # gives such rights up by itself
            without += 'suid', 'sgid'
        if prctl(GET_NO_NEW_PRIVS):
            without += 'suid', 'sgid', 'fcap'
        found = []
        for name, needed, call in attempts(facts):
            def as_root():
                if name == 'out through a descriptor':
                    os.open('/', os.O_RDONLY)
                if name in ('suid', 'sgid', 'fcap'):
                    os.setgroups([])
                    os.setresgid(1000, 1000, 1000)
                    os.setresuid(1000, 1000, 1000)
                if name == 'up and out':
                    os.chdir('/usr')
                    os.chroot(self.work + '/bare')
                try:
                    return bool(call())
                except (OSError, AttributeError):
                    return False
            self.protect()
            held = not needed or needed & self.held
            if held and not name.startswith(without) and not in_fork(as_root):
                found.append(name)
        return found

    # -- one case

    def run(self, seed):
        """What a case ended as: 'done', 'refused', 'refused: why'.  Raises Wrong."""
        dice = Dice(seed)
        start = Start(dice, self.held)
        self.only_what_is_possible(start)
        stanza = Stanza(dice, start, self.init_groups)
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors, err = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.be_child(start, stanza, ours, its, errors, err)
        its.close()
        os.close(err)
        talk = Talk(ours.fileno(), pid)
        status = None
        try:
            return self.judge(start, stanza, talk)
        except Ended:
            status = os.waitpid(pid, 0)[1]
            with os.fdopen(os.dup(errors)) as pipe:
                text = pipe.read().strip()
            kind = 'half-dropped' if status == 125 << 8 else 'ended with %s' % (
                status >> 8 if status >> 8 else 'signal %d' % (status & 127))
            raise Wrong(kind, text, start, stanza)
        except Wrong as e:
            raise Wrong(*(e.args + (start, stanza)))
        finally:
            ours.close()
            os.close(errors)
            if status is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def only_what_is_possible(self, start):
        for name, possible in self.able.items():
            if not possible and getattr(start, name):
                setattr(start, name, None if name == 'map' else [])
                start.deny = start.deny and bool(start.map)

    def be_child(self, start, stanza, ours, its, errors, err):
        status = 97
        try:
            ours.close()
            os.close(errors)
            os.dup2(err, 2)
            os.close(err)
            child(start, stanza, self.work, Channel(its.fileno()))
            status = 0
        except BaseException:
            import traceback
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)

    def write_maps(self, start, pid):
        if start.deny:
            write('/proc/%d/setgroups' % pid, 'deny')
        for name, extents in ('uid_map', MAPS[start.map]), ('gid_map', MAPS[start.gid_map]):
            if extents:
                rows = ''.join('%d %d %d\n' % row for row in extents)
                write('/proc/%d/%s' % (pid, name), rows)

    def judge(self, start, stanza, talk):
        message = talk.receive()
        if message[0] == 'map':
            self.write_maps(start, talk.pid)
            talk.send(('mapped',))
            message = talk.receive()
        before, inside = look(talk.pid), message[1]
        goal, must = None, ''
        try:
            goal = Goal(start, stanza, before, inside, self.jails)
        except Refuse as e:
            must = str(e)
        talk.send(('go',))
        message = talk.receive()
        if message[0] == 'refused':
            return self.judge_refusal(goal, must, before, inside, message[1:], talk)
        if must:
            raise Wrong('not refused', must)
        after, inside, planned = look(talk.pid), message[1], message[2]
        differences = goal.unlike(after, inside, stanza.launch)
        if differences:
            raise Wrong('not what was asked for', '; '.join(differences))
        if planned:
            raise Wrong('plan refused what was done')
        talk.send(('good',))
        message = talk.receive()
        if message[0] == 'again':
            again = look(talk.pid)
            if again != after or message[2] != inside:
                raise Wrong('a second drop changed something', changed(after, again))
            if message[1] and goal.readable():
                raise Wrong('a second drop was refused', message[1])
            talk.send(('good',))
            message = talk.receive()
        return self.judge_attempts(goal, before, after, talk)

    def judge_refusal(self, goal, must, before, inside, message, talk):
        text, own_after, planned = message
        after = look(talk.pid)
        if after != before or own_after != inside:
            raise Wrong('refused, and changed', '%s: %s' % (text, changed(
                dict(before, own=inside), dict(after, own=own_after))))
        if planned is False:
            raise Wrong('plan did not refuse', text)
        if must:
            return 'refused, as it must: ' + must
        talk.send(goal.orders())
        _, notes, own_after = talk.receive()
        differences = goal.unlike(look(talk.pid), own_after, False)
        if differences:
            if DETAILS:
                rows = text, '; '.join(differences), notes
                print('not reached: %s | %s | %s' % rows, flush=True)
            return 'refused, and not to be reached'
        for words, reason in sorted(goal.may.items()):
            if words in text:
                return 'refused, as it may: ' + reason
        raise Wrong('refused, and plain calls get there', text)

    def judge_attempts(self, goal, before, after, talk):
        if goal.keeps_all:
            talk.send(None)
            return 'done, root that keeps everything'
        talk.send(self.facts(goal, before, after))
        _, (made, gained), _ = talk.receive()
        if gained:
            raise Wrong('regained', ', '.join(gained))
        last = look(talk.pid)
        for name in 'cwd', 'descriptors':
            last[name] = after[name]
        if last != after:
            raise Wrong('regained', changed(after, last))
        if made < 20:
            raise Wrong('there are only %d attempts' % made)
        return 'done'

    def facts(self, goal, before, after):
        """What the attempts have to know."""
        kuid, kgids = after['uid'][0], set(after['groups']) | set(after['gid'])
        owns = {name: kuid == uid for name, (uid, _) in self.owners.items()}
        owns['group'] = owns['group'] or self.owners['group'][1] in kgids

        def inside(numbers, extents):
            numbers = [back(n, extents) for n in numbers]
            return [n for n in numbers if n is not None]
        old_gids = inside(set(before['gid']) - set(after['gid']), goal.gid_map)
        port = read_number('/proc/sys/net/ipv4/ip_unprivileged_port_start')
        return dict(
            work=self.work, victim=self.victim, handle=self.handle, owns=owns,
            permitted=after['permitted'], passed_on=after['ambient'],
            old_uids=inside(set(before['uid']) - {kuid}, goal.uid_map),
            old_gids=old_gids + [0] * (goal.ids[1] != 0),
            old_groups=inside(before['groups'], goal.gid_map),
            uid_is_0=goal.ids[0] == 0, kuid_is_0=kuid == 0, waived=not after['no_new_privs'],
            jailed=goal.jail is not None, low_port=port - 1 if port and port > 1 else None)


def open_up(path):
    """Let everyone come to `path`; the rest of a private directory above it is hidden."""
    parts = path.strip('/').split('/')
    for n in range(1, len(parts) + 1):
        above = '/' + '/'.join(parts[:n])
        if not os.stat(above).st_mode & 0o001:
            break
    else:
        return
    fd = os.open(path, os.O_PATH)
    mount('none', above, 'tmpfs', 0, 'mode=755')
    os.makedirs(path, exist_ok=True)
    source = '/proc/self/fd/%d' % fd
    if os.fstat(fd).st_mode & 0o001:
        mount(source, path, None, MS_BIND | MS_REC)
    else:                                       # what is in it, which may be another tree
        for name in os.listdir(source):
            inner, target = os.path.join(source, name), os.path.join(path, name)
            if os.path.isdir(inner):
                os.mkdir(target)
            else:
                write(target, '')
            mount(inner, target, None, MS_BIND | MS_REC)
    os.close(fd)


def in_fork(function):
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if function() else 1)
        except OSError:
            os._exit(1)
        finally:
            os._exit(99)
    return os.waitpid(pid, 0)[1] == 0


def new_user_namespace():
    c('unshare', CLONE_NEWUSER)
    return True


def hidden_processes():
    """Before Linux 5.8 the option would hold for every /proc of this pid namespace."""
    if tuple(int(word) for word in os.uname()[2].split('-')[0].split('.')[:2]) < (5, 8):
        return False
    c('unshare', CLONE_NEWNS)
    mount('none', '/', None, MS_REC | MS_PRIVATE)
    mount('proc', '/proc', 'proc', 0, 'hidepid=2')
    return True


def a_filter():
    filter_calls(['unshare'], errno.EPERM)
    return True


def read_number(path):
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def read(path):
    with open(path, 'rb') as file:
        return file.read()


def write(path, text):
    with open(path, 'wb') as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def changed(one, other):
    return ', '.join('%s %s became %s' % (name, one[name], other[name])
                     for name in sorted(one) if one[name] != other[name])


def in_place(function, top):
    """function(place), with a place made for it."""
    import tempfile
    sys.path.insert(0, top)
    work = tempfile.mkdtemp()
    place = Place(work, top)
    try:
        return function(place)
    finally:
        os.kill(place.victim, signal.SIGKILL)
        os.waitpid(place.victim, 0)
        c('umount2', os.fsencode(work), 2)      # MNT_DETACH
        os.rmdir(work)


def run_cases(place, first, count, show=None):
    """({outcome: how many}, [(seed, kind, details ...)]) of the seeds from `first` on."""
    outcomes, wrong = {}, []
    for seed in range(first, first + count):
        try:
            outcome = place.run(seed)
        except Wrong as e:
            outcome = 'WRONG: ' + e.args[0]
            wrong.append((seed,) + tuple(map(str, e.args)))
            if show:
                show(wrong[-1])
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes, wrong


def described(row):
    return 'seed %s: %s' % (row[0], '\n  '.join(row[1:]))


TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def in_child_that_may(function):
    """function(place) in a child; skipped where what all cases need is not allowed."""
    from conftest import in_child, need, need_root
    need(sys.platform == 'linux', 'needs Linux')
    need_root()
    needed = CHOWN | DAC_OVERRIDE | SETGID | SETUID | SETPCAP | SYS_CHROOT | SYS_ADMIN
    need(not needed & ~capget()[1], 'needs a root that may mount, chroot and change ids')
    every_id = read('/proc/self/uid_map').split() == [b'0', b'0', b'4294967295']
    need(every_id, 'needs all ids: this user namespace maps some')
    return in_child(in_place, function, TOP)


def test_from_any_start_state_it_ends_as_asked_or_refused_and_unchanged():
    outcomes, wrong = in_child_that_may(lambda place: run_cases(place, FIRST, CASES))
    assert not wrong, '\n\n'.join(map(described, wrong[:20]))
    done = sum(count for outcome, count in outcomes.items() if outcome.startswith('done'))
    assert CASES < 100 or done > CASES // 5, outcomes


def test_each_attempt_to_regain_gains_something_for_who_still_may():
    assert in_child_that_may(Place.useless) == []


def main():
    def show(row):
        print(described(row), flush=True)
    began = time.time()
    outcomes, wrong = in_place(lambda place: run_cases(place, FIRST, CASES, show), TOP)
    for outcome in sorted(outcomes):
        print('%7d  %s' % (outcomes[outcome], outcome))
    print('%d cases from seed %d, %.0f s' % (CASES, FIRST, time.time() - began))
    return bool(wrong)


if __name__ == '__main__':
    sys.exit(main())
