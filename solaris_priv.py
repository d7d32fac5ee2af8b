# SPDX-License-Identifier: MIT
"""Solaris 10, 11 and illumos: the process privileges of privileges(5).

capdrop.py loads this file on SunOS, and only there, from beside itself.  Its chapter on
platforms says what the methods of Solaris are for.  Nothing here knows of files, accounts
or options; what fails raises ValueError or OSError.

In the order in which one needs the other:

    PrivSet     a set of privileges: names, and arithmetic without a call
    Library     the C functions, one row each
    acl(2)      who may write a file besides those that its mode names
    Solaris     the platform: text, looking, arithmetic, rows (calls to be made)
    checks      what stands against a drop here, and what is worth a warning

Credentials belong to the process here, not to a thread: credentials(7).  The words are those
of the system: E, I, P and L of ppriv(1) are effective, inheritable, permitted and limit.

Copyright (c) the capdrop authors

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
import errno
import os
import posix                    # the C module's own functions: nobody replaces them
from struct import iter_unpack, pack, unpack


# ------------------------------------------------------------------------------ PrivSet

class Release:
    """The names that this release of the system knows: all of them, and the basic ones."""
    __slots__ = 'every', 'basic'

    def __init__(self, every, basic):
        self.every = frozenset(every)
        self.basic = frozenset(basic)


class PrivSet:
    """A set of privileges, never changed.  Iterates over its names, in order.

    named       the names
    unnamed     does it hold the bits that have no name yet, too?  Only `all` does.

    str() is what priv_set_to_str(3C) calls portable: "basic,net_privaddr,!proc_info".
    """
    __slots__ = 'named', 'unnamed', 'release'

    def __init__(self, named, release, unnamed=False):
        self.named = frozenset(named)
        self.unnamed = unnamed
        self.release = release

    def __and__(self, other):
        unnamed = self.unnamed and other.unnamed
        return PrivSet(self.named & other.named, self.release, unnamed)

    def __or__(self, other):
        unnamed = self.unnamed or other.unnamed
        return PrivSet(self.named | other.named, self.release, unnamed)

    def __sub__(self, other):
        unnamed = self.unnamed and not other.unnamed
        return PrivSet(self.named - other.named, self.release, unnamed)

    def __eq__(self, other):
        if not isinstance(other, PrivSet):
            return NotImplemented
        return self.named == other.named and self.unnamed == other.unnamed

    def __hash__(self):
        return hash(self.named)

    def __bool__(self):
        return self.unnamed or bool(self.named)

    def __contains__(self, name):
        return name in self.named

    def __iter__(self):
        return iter(sorted(self.named))

    def __str__(self):
        if self.unnamed and self.named >= self.release.every:
            return 'all'
        basic = self.release.basic
        words = ['basic']
        for name in sorted(self.named ^ basic):
            if name in basic:
                name = '!' + name
            words.append(name)
        return ','.join(words)

    def __repr__(self):
        return 'PrivSet(%s)' % self


def set_of_text(text, release):
    """The set of a portable text, as priv_set_to_str(3C) writes it."""
    if text == 'all':
        return PrivSet(release.every, release, True)
    named = set()
    for word in text.split(','):
        if word == 'basic':
            named |= release.basic
        elif word.startswith('!'):
            named.discard(word[1:])
        else:
            named.add(word)
    return PrivSet(named, release)


# ---------------------------------------------------------------------- the C functions
#
# Each row: a function of libc.so.1, what it returns, what it takes.  A result of -1 (of a
# user id, too) or NULL raises OSError with errno and the name.

FUNCTIONS = (
    'priv_str_to_set    pointer pointer text pointers',
    'priv_set_to_str    pointer pointer char int',
    'priv_freeset       none    pointer',
    'getppriv           int     text pointer',
    'setppriv           int     int text pointer',
    'getpflags          uint    uint',
    'setpflags          int     uint uint',
    'ucred_get          pointer int',
    'ucred_free         none    pointer',
    'ucred_getruid      uint    pointer',
    'ucred_geteuid      uint    pointer',
    'ucred_getsuid      uint    pointer',
    'ucred_getrgid      uint    pointer',
    'ucred_getegid      uint    pointer',
    'ucred_getsgid      uint    pointer',
    'ucred_getgroups    int     pointer pointers',
    'ucred_getprivset   pointer pointer text',      # borrowed: goes with the ucred
    'ucred_getpflags    uint    pointer uint',
    'getzoneid          int',
    'setgroups          int     int pointer',
    'setregid           int     uint uint',
    'setreuid           int     uint uint',
    'chroot             int     text',
    'poll               int     pointer ulong int',
)
OPTIONAL = (                                        # None where a release has it not
    'getzonenamebyid    ssize   int text size',
    'ucred_getzoneid    int     pointer',
    'acl                int     text int int pointer',
)
# What priv_set_to_str(3C) allocates is of the heap that the whole process uses, which another
# library than libc may provide (LD_PRELOAD=libumem.so.1).
OF_THE_PROCESS = 'free none pointer'

FAILED = None, -1, 0xffffffff


class Library:
    """The C library: every function of the rows above is an attribute."""

    def __init__(self, libc, process):
        try:
            import ctypes
            library = ctypes.CDLL(libc, use_errno=True)     # find_library runs programs
            everything = ctypes.CDLL(process, use_errno=True)
        except (ImportError, OSError, MemoryError) as error:
            message = 'this Python cannot load libc.so.1: %s' % error
            raise OSError(errno.ENOSYS, message) from None
        self.ctypes = ctypes
        self.types = {
            'none': None, 'int': ctypes.c_int, 'uint': ctypes.c_uint,
            'ulong': ctypes.c_ulong, 'size': ctypes.c_size_t, 'ssize': ctypes.c_ssize_t,
            'char': ctypes.c_char, 'text': ctypes.c_char_p, 'pointer': ctypes.c_void_p,
            'pointers': ctypes.POINTER(ctypes.c_void_p)}
        for row in FUNCTIONS:
            if not self.declare(library, row):
                message = "this system's libc.so.1 has no %s: Solaris 10 or later is needed"
                raise OSError(errno.ENOSYS, message % row.split()[0])
        for row in OPTIONAL:
            self.declare(library, row)
        self.declare(everything, OF_THE_PROCESS)

    def declare(self, library, row):
        """Make a function of a row an attribute; False where the library lacks it."""
        name, result, *arguments = row.split()
        function = getattr(library, name, None)
        if function is not None:
            function.restype = self.types[result]
            function.argtypes = [self.types[word] for word in arguments]
            if function.restype is not None:
                function = self.checked(name, function)
        setattr(self, name, function)
        return function is not None

    def checked(self, name, function):
        set_errno, get_errno = self.ctypes.set_errno, self.ctypes.get_errno

        def call(*args):
            set_errno(0)
            result = function(*args)
            if result in FAILED:            # the result first: errno may be stale
                raise failure(get_errno(), name)
            return result

        return call


def failure(number, name):
    if number == 0:
        return OSError(0, 'failed and did not say why', name)
    return OSError(number, os.strerror(number), name)


# --------------------------------------------------------------- access control: acl(2)
#
# Of ZFS and NFSv4: ace_t, entries of people, rights, flags and kind, in the order in which
# the system looks at them.  Of UFS and NFSv3: aclent_t, as the drafts of POSIX have it.

GETACL, GETACLCNT, ACE_GETACL, ACE_GETACLCNT = 1, 3, 4, 6       # sys/acl.h, as what follows
SIZE_OF_ENTRY = 12              # of either
ALLOW, DENY, AUDIT, ALARM = 0, 1, 2, 3
ACE_INHERIT_ONLY_ACE, ACE_IDENTIFIER_GROUP = 0x8, 0x40
ACE_OWNER, ACE_GROUP, ACE_EVERYONE = 0x1000, 0x2000, 0x4000
ACE_WRITE_DATA, ACE_APPEND_DATA, ACE_DELETE_CHILD = 0x2, 0x4, 0x40
ACE_DELETE, ACE_WRITE_ACL, ACE_WRITE_OWNER = 0x10000, 0x40000, 0x80000
WRITING = (ACE_WRITE_DATA | ACE_APPEND_DATA | ACE_DELETE_CHILD | ACE_DELETE
           | ACE_WRITE_ACL | ACE_WRITE_OWNER)
EVERYONE = ACE_EVERYONE, None
USER_OBJ, USER, GROUP_OBJ, GROUP, CLASS_OBJ, OTHER_OBJ = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
ACL_DEFAULT = 0x1000            # what a new file in the directory gets
KINDS = USER_OBJ, USER, GROUP_OBJ, GROUP, CLASS_OBJ, OTHER_OBJ
NOT_OF_THIS_KIND = errno.ENOSYS, errno.EINVAL, errno.ENOTSUP


def ace_lets_write(entries):
    """Does one of these ace_t let somebody write whom the mode of the file does not show?"""
    denied = {EVERYONE: 0}
    for who, rights, flags, kind in iter_unpack('=IIHH', entries):
        person = person_of(who, flags)
        if kind not in (ALLOW, DENY, AUDIT, ALARM):
            return True                     # not understood
        if flags & ACE_INHERIT_ONLY_ACE:
            continue                        # means the files in the directory, not itself
        before = denied.get(person, 0)
        if kind == DENY:
            denied[person] = before | rights
        if kind != ALLOW:
            continue
        allowed = rights & WRITING & ~before & ~denied[EVERYONE]
        if allowed and not is_judged_by_mode(person, allowed):
            return True
    return False


def person_of(who, flags):
    """The one an ace_t is about: (its kind, the id where it is about a certain one)"""
    kind = flags & (ACE_OWNER | ACE_GROUP | ACE_EVERYONE)
    if kind:
        return kind, None
    return flags & ACE_IDENTIFIER_GROUP, who


def is_judged_by_mode(person, allowed):
    """Does the mode show it, or is it root, who may anyway?

    The mode says that the file's group, or everyone, may write where write_data is allowed.
    """
    if person == (0, 0) or person[0] == ACE_OWNER:
        return True
    shown = person[0] in (ACE_GROUP, ACE_EVERYONE)
    return shown and bool(allowed & ACE_WRITE_DATA)


def aclent_lets_write(entries):
    """The same of aclent_t: kind, id, permissions; one of them is the mask of the others."""
    entries = tuple(iter_unpack('=iIHxx', entries))
    mask = 0o7
    for kind, _, permissions in entries:
        if kind == CLASS_OBJ:
            mask = permissions
    for kind, who, permissions in entries:
        if kind & ~ACL_DEFAULT not in KINDS:
            return True                     # not understood
        named = kind == GROUP or kind == USER and who != 0
        if named and permissions & mask & 0o2:
            return True
    return False


# -------------------------------------------------------------------------- the platform

PRIV_ON, PRIV_SET = 0, 2                                        # sys/priv.h
PRIV_STR_PORT, PRIV_STR_LIT = 0, 1                              # priv.h
OPERATIONS = {PRIV_ON: 'PRIV_ON', PRIV_SET: 'PRIV_SET'}
SETS = 'Permitted', 'Limit', 'Effective', 'Inheritable'         # the documented order
# All but aware grant what no set holds, or (aware_reset) let a change of ids rewrite the sets.
FLAGS = {'aware': 0x2, 'aware_reset': 0x40, 'xpolicy': 0x80, 'pfexec': 0x100,
         'pfexec_auth': 0x200}
SEPARATORS = b' ,\t\n\v\f\r'
KEYWORDS = 'all', 'basic', 'none', 'zone'
PRIVILEGE_FOR = {'user': 'proc_setid', 'group': 'proc_setid', 'groups': 'proc_setid',
          'chroot': 'proc_chroot'}
ROOT_EQUIVALENT = frozenset((
    'dtrace_kernel', 'file_chown', 'file_dac_execute', 'file_dac_read', 'file_dac_search',
    'file_dac_write', 'file_owner', 'file_setid', 'proc_chroot', 'proc_owner', 'proc_setid',
    'proc_zone', 'sys_admin', 'sys_config', 'sys_devices', 'sys_fs_import', 'sys_linkdir',
    'sys_mount', 'sys_res_config', 'sys_smb', 'sys_suser_compat', 'virt_manage',
    'xvm_control'))
POLLOUT = 0x4                                                   # sys/poll.h
ZONENAME_MAX = 64                                               # sys/zone.h


class Solaris:
    """Privileges: setppriv(2), setpflags(2), priv_str_to_set(3C), ucred_get(3C)."""

    option = 'privileges'
    largest_id = 2147483647         # above it are ephemeral ids: EINVAL
    waived = ('allowing new privileges has no effect on this system: the limit set is '
              'always set')
    fields = ('uid', 'gid', 'groups', 'permitted', 'limit', 'effective', 'inheritable',
              'aware', 'aware_reset', 'xpolicy', 'pfexec', 'pfexec_auth', 'zone', 'root',
              'threads', 'cwd_outside')     # the last is looked at nowhere here
    reads_with = 'priv_str_to_set(3C) and setppriv(2)'
    unshare_text = ''
    cleared_by_exec = 'aware',
    may_lack = ()
    not_there = 'there is no process %d, or it has ended, or it is in another zone'
    roots_own = '/etc and /devices'

    def __init__(self, libc='libc.so.1', process=None):
        """libc by its soname; process: None is all that this process has loaded."""
        self.c = Library(libc, process)
        self.release = Release((), ())
        self.release = Release(self.literal('all'), self.literal('basic'))
        self.zone = self.c.getzoneid()
        self.zone_name = self.name_of_zone(self.zone)
        self.stderr = self.c.ctypes.create_string_buffer(pack('=ihh', 2, POLLOUT, 0), 8)

    # text

    def with_set(self, text, use):
        """use(a priv_set_t of a text)"""
        priv_set = self.c.priv_str_to_set(text.encode(), SEPARATORS, None)
        try:
            return use(priv_set)
        finally:
            self.c.priv_freeset(priv_set)

    def text_of(self, priv_set, form=PRIV_STR_PORT):
        text = self.c.priv_set_to_str(priv_set, b',', form)
        try:
            return self.c.ctypes.string_at(text).decode()
        finally:
            self.c.free(text)

    def in_form(self, text, form):
        """The same set in another form.  Asked twice: a goal is made of it, so nothing that
        comes later would contradict it."""
        first = self.with_set(text, lambda priv_set: self.text_of(priv_set, form))
        second = self.with_set(text, lambda priv_set: self.text_of(priv_set, form))
        if first != second:
            raise untrue('two answers to one question', 'priv_str_to_set')
        return first

    def literal(self, text):
        return self.in_form(text, PRIV_STR_LIT).split(',')

    def set_of(self, text):
        return set_of_text(self.in_form(text, PRIV_STR_PORT), self.release)

    def parse(self, text):
        """What the option's text sets; ValueError(message, offset)."""
        ctypes = self.c.ctypes
        buffer = ctypes.create_string_buffer(text.encode())
        end = ctypes.c_void_p()
        try:
            found = self.c.priv_str_to_set(buffer, SEPARATORS, ctypes.byref(end))
            self.c.priv_freeset(found)
            return {'permitted': self.set_of(text)}
        except OSError as error:
            if end.value is None:           # it was not the text
                message = '%s: %s' % (error.filename, error.strerror)
                raise ValueError(message, 0) from None
        offset = end.value - ctypes.addressof(buffer)       # it points into our buffer
        word = text[offset:].replace(',', ' ').split()[0]
        raise ValueError(self.not_understood(word), offset)

    def not_understood(self, word):
        name = word.lower().lstrip('!-+')
        if name.startswith('priv_'):
            name = name[5:]
        if name in KEYWORDS:
            return ('"%s": %s takes nothing before it; to remove privileges, write ! before '
                    'each name' % (word, name))
        if name.startswith('cap_'):
            return ('"%s" is a capability of Linux: privileges(5) lists what this system '
                    'has' % word)
        message = 'this system has no privilege "%s"' % word
        near = self.nearest(name)
        if near and word[0] not in '!-':    # less to be taken away would be more
            message += ' (did you mean "%s"?)' % near
        return message

    def nearest(self, name):
        """The one that was likely meant, or ''.  Never one that amounts to root."""
        import difflib
        known = sorted(self.release.every - ROOT_EQUIVALENT)
        found = difflib.get_close_matches(name, known + ['basic', 'none'], 1, 0.8)
        return ''.join(found)

    def powerful(self, sets):
        """The names among the permitted that amount to root."""
        return [name for name in sets['permitted'] if name in ROOT_EQUIVALENT]

    # looking

    def read(self, tasks=None):
        """The fields of this process, twice: getppriv(2) fills an empty and a full set, so
        a call that did nothing shows."""
        return alike(self.own_fields('none'), self.own_fields('all'))

    def look(self, pid):
        """[(pid, the fields of that process)]: threads have no credentials of their own."""
        return [(pid, alike(self.fields_of(pid), self.fields_of(pid)))]

    def own_fields(self, filling):
        ucred = self.c.ucred_get(posix.getpid())
        try:
            fields = self.ids(ucred)
        finally:
            self.c.ucred_free(ucred)
        for name in SETS:
            fields[name.lower()] = self.own_set(name, filling)
        for name, flag in FLAGS.items():
            fields[name] = flag_or_0(self.c.getpflags, flag)
        fields['zone'] = self.shown_zone(self.c.getzoneid())
        fields['root'] = device_and_inode('/')
        return fields

    def own_set(self, name, filling):
        def read_into(priv_set):
            self.c.getppriv(name.encode(), priv_set)
            return self.text_of(priv_set)

        return set_of_text(self.with_set(filling, read_into), self.release)

    def fields_of(self, pid):
        """None is what cannot be seen."""
        ucred = self.ucred_of(min(pid, self.largest_id))        # a c_int would wrap around
        try:
            fields = self.ids(ucred)
            for name in SETS:
                text = self.text_of(self.c.ucred_getprivset(ucred, name.encode()))
                fields[name.lower()] = set_of_text(text, self.release)
            for name, flag in FLAGS.items():
                fields[name] = flag_or_0(self.c.ucred_getpflags, ucred, flag)
            fields['zone'] = self.zone_of(ucred)
        finally:
            self.c.ucred_free(ucred)
        return dict(fields, **seen_in_proc(pid))

    def ucred_of(self, pid):
        try:
            return self.c.ucred_get(pid)
        except PermissionError as error:
            remedy = '%s: be root, in the global zone or its own (proc_owner, proc_zone)'
            remedy %= error.strerror
            raise OSError(error.errno, remedy, 'ucred_get') from None

    def ids(self, ucred):
        c = self.c
        return {
            'uid': (c.ucred_getruid(ucred), c.ucred_geteuid(ucred), c.ucred_getsuid(ucred)),
            'gid': (c.ucred_getrgid(ucred), c.ucred_getegid(ucred), c.ucred_getsgid(ucred)),
            'groups': self.groups(ucred)}

    def groups(self, ucred):
        place = self.c.ctypes.c_void_p()
        count = self.c.ucred_getgroups(ucred, self.c.ctypes.byref(place))
        if count == 0:
            return ()                       # then place is NULL
        ids = (self.c.ctypes.c_uint * count).from_address(place.value)
        return tuple(sorted(set(ids)))

    def zone_of(self, ucred):
        if self.c.ucred_getzoneid is None:
            return None
        return self.shown_zone(self.c.ucred_getzoneid(ucred))

    def shown_zone(self, zone):
        if zone == self.zone:
            return '%d (%s)' % (zone, self.zone_name)
        return '%d (%s)' % (zone, self.name_of_zone(zone))

    def name_of_zone(self, zone):
        """The global zone can name all, another one only itself."""
        if self.c.getzonenamebyid is None:
            return 'name unknown'
        name = self.c.ctypes.create_string_buffer(ZONENAME_MAX)
        try:
            self.c.getzonenamebyid(zone, name, ZONENAME_MAX)
        except OSError:
            return 'name unknown'
        return name.value.decode()

    def around(self):
        """What a process to be audited has in common with this one."""
        places = {'root': device_and_inode('/')}
        if self.c.ucred_getzoneid is not None:
            places['zone'] = self.shown_zone(self.c.getzoneid())
        return places

    def elsewhere(self, fields, around):
        """Why a process has a root directory of its own, or ''.  zones(5)"""
        if fields['zone'] != around.get('zone', fields['zone']):
            return 'in another zone'
        return ''

    def audit_refusal(self):
        return ('its root directory and zone cannot be seen: be root in the global zone, or '
                'in its zone')

    def hint(self, audit):
        return ''

    def assumed_root(self):
        """The fields of root at its start, for check."""
        every = self.set_of('zone')
        fields = dict.fromkeys(self.fields, 0)
        fields.update(dict.fromkeys(('uid', 'gid'), (0, 0, 0)), groups=())
        fields.update(dict.fromkeys(('permitted', 'limit', 'effective'), every))
        fields.update(dict.fromkeys(('zone', 'root', 'threads', 'cwd_outside')))
        fields['inheritable'] = self.basic()
        return fields

    def most_groups(self):
        return posix.sysconf('SC_NGROUPS_MAX')

    def open_tasks(self):
        return None                         # reading back needs no descriptor

    def wait_for_one_thread(self):
        return True                         # all threads change together

    def unshare(self):
        """There is nothing that a process shares with another one: fork(2)."""

    def may_set_groups(self, found):
        return True

    def unmapped_owners(self):
        return frozenset()

    def takes_a_line(self):
        """Does descriptor 2 take a line without blocking?"""
        try:
            self.c.poll(self.stderr, 1, 0)
        except OSError:
            return False
        _, _, events = unpack('=ihh', self.stderr.raw)
        return bool(events & POLLOUT)

    def has_access_list(self, path):
        """Could somebody write it whom its owner and mode do not show?"""
        if self.c.acl is None:
            return False
        entries = self.access_list(path, ACE_GETACLCNT, ACE_GETACL)
        if entries is not None:
            return ace_lets_write(entries)
        entries = self.access_list(path, GETACLCNT, GETACL)
        return entries is not None and aclent_lets_write(entries)

    def access_list(self, path, counting, getting):
        """Its entries, as in memory; None where the file system has none of this kind."""
        name = os.fsencode(path)
        try:
            size = SIZE_OF_ENTRY * self.c.acl(name, counting, 0, None)
            entries = self.c.ctypes.create_string_buffer(b'\xff' * size, size)
            count = self.c.acl(name, getting, size // SIZE_OF_ENTRY, entries)
        except OSError as error:
            if error.errno in NOT_OF_THIS_KIND:
                return None
            raise OSError(error.errno, error.strerror, path) from None
        return entries.raw[:SIZE_OF_ENTRY * count]

    # arithmetic

    def rights(self, state, may_set_groups):
        """What is permitted `before` makes effective."""
        return frozenset(
            right for right, name in PRIVILEGE_FOR.items() if name in state.permitted)

    def why_not(self, right, found):
        """Why something cannot be changed."""
        remedy = 'start it as root'
        if 0 in found.uid:
            remedy = 'add it to the privileges of its method_credential: smf_method(5)'
        return "%s is not in this process's permitted set: %s" % (PRIVILEGE_FOR[right], remedy)

    def goal(self, sets, with_ids, rights, exec, no_new_privs):
        """The fields to end in.  with_ids: the State of now, with the ids to end in."""
        if sets is None:
            wanted = self.basic() & with_ids.permitted & with_ids.limit
        else:
            wanted = sets['permitted']
        inheritable = wanted
        if not exec:
            inheritable = with_ids.inheritable & wanted
        return {'permitted': wanted, 'limit': wanted, 'effective': wanted,
                'inheritable': inheritable, 'aware': 1, 'aware_reset': 0, 'xpolicy': 0,
                'pfexec': 0, 'pfexec_auth': 0}

    def goal_of_root(self, with_ids):
        """Root that keeps everything.  Not aware, uid 0 has what the limit set holds."""
        goal = {'aware_reset': 0}
        if not with_ids.aware:
            goal.update(permitted=with_ids.limit, effective=with_ids.limit)
        return goal

    def unlimited(self, fields):
        """As if it had held the basic set, which is what it is left with by default."""
        return dict(fields, permitted=fields['permitted'] | self.basic(),
                    limit=fields['limit'] | self.basic())

    def basic(self):
        return PrivSet(self.release.basic, self.release)

    # rows: what plan prints, the function, its arguments

    def before(self, case):
        """Aware before the user changes: else that takes every privilege.  And no longer to
        be reset before that: else becoming aware adds the limit set to the others."""
        found, goal = case.found, case.goal
        for name in FLAGS:
            if getattr(found, name) > getattr(goal, name):
                yield self.flag_row(name, 0)
        if case.confined:
            yield self.flag_row('aware', 1)
            yield self.set_row(PRIV_SET, 'Effective', found.permitted)

    def set_groups(self, groups):
        array = (self.c.ctypes.c_uint * len(groups))(*groups)
        text = 'setgroups(%s)' % list(groups)
        return text, self.c.setgroups, len(groups), array

    def change_root(self):
        return 'chroot(".")', self.c.chroot, b'.'

    def set_gid(self, gid):
        """With both ids given the saved one follows: setregid(2).  SunOS has no setresgid."""
        return 'setregid(%d, %d)' % (gid, gid), self.c.setregid, gid, gid

    def set_uid(self, uid):
        return 'setreuid(%d, %d)' % (uid, uid), self.c.setreuid, uid, uid

    def after(self, case):
        if not case.confined:
            return
        for name in SETS:
            yield self.set_row(PRIV_SET, name, getattr(case.goal, name.lower()))

    def regain(self, case):
        """One privilege that is gone, for each of the two sets that can only shrink."""
        for name in 'Permitted', 'Limit':
            field = name.lower()
            gone = getattr(case.found, field) - getattr(case.goal, field)
            if 'proc_setid' in gone:
                yield self.set_row(PRIV_ON, name, 'proc_setid')
            elif gone.named:
                yield self.set_row(PRIV_ON, name, min(gone))

    def set_row(self, operation, name, priv_set):
        text = str(priv_set)
        shown = 'setppriv(%s, %s, "%s")' % (OPERATIONS[operation], name, text)
        return shown, self.put_set, operation, name.encode(), text

    def put_set(self, operation, name, text):
        self.with_set(text, lambda priv_set: self.c.setppriv(operation, name, priv_set))

    def flag_row(self, name, value):
        shown = 'setpflags(PRIV_%s, %d)' % (name.upper(), value)
        return shown, self.put_flag, FLAGS[name], value

    def put_flag(self, flag, value):
        self.c.setpflags(flag, value)
        if self.c.getpflags(flag) != value:         # the rows that follow rely on it
            raise untrue('had no effect', 'setpflags')


def untrue(message, name):
    """The system contradicts itself."""
    return OSError(errno.EPROTO, message, name)


def alike(first, second):
    """Two readings of the same fields."""
    for name, value in first.items():
        if value != second[name]:
            message = 'read as %s, then as %s' % (value, second[name])
            raise untrue(message, name)
    return first


def flag_or_0(ask, *args):
    """A flag of the process; one that this release does not know is not set."""
    try:
        return ask(*args)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return 0


def device_and_inode(path):
    status = posix.stat(path)
    return status.st_dev, status.st_ino


PROC = '/proc'


def seen_in_proc(pid):
    """What proc(5) tells of a process; None where it does not tell."""
    place = '%s/%d/' % (PROC, pid)
    return {'root': answer_or_none(device_and_inode, place + 'root'),
            'command': answer_or_none(posix.readlink, place + 'path/a.out'),
            'threads': answer_or_none(entries_of, place + 'lwp')}


def answer_or_none(ask, path):
    try:
        return ask(path)
    except OSError:
        return None


def entries_of(directory):
    return len(posix.listdir(directory))


# ---------------------------------------------------------------- what stands against it
#
# A check yields a sentence for each reason not to drop.  The first one that it finds is what
# a refusal says.

# What zonecfg(1M) gives to no zone but the global one, and what only to a zone with its own
# IP stack.
PROHIBITED = frozenset((
    'dtrace_kernel', 'proc_zone', 'sys_config', 'sys_devices', 'sys_linkdir',
    'sys_net_config', 'sys_res_config', 'sys_suser_compat', 'virt_manage', 'xvm_control'))
EXCLUSIVE_IP = frozenset(('sys_ip_config', 'sys_iptun_config', 'sys_ppp_config'))


def root_out_of_reach(case):
    """setreuid(2) of 0, where no id is 0 already, takes every privilege of the zone."""
    if case.goal.uid[0] != 0 or 0 in case.found.uid:
        return
    effective = case.found.effective
    if case.confined:
        effective = case.found.permitted            # `before` makes it so
    if case.platform.set_of('zone') - effective:
        yield 'cannot become uid 0: that takes every privilege of the zone'


def rights_asleep(case):
    """Of root that keeps its sets nothing may be made effective."""
    if case.confined:
        return
    passive = case.found.permitted - case.found.effective
    asleep = sorted(passive.named & set(PRIVILEGE_FOR.values()))
    if asleep:
        yield '%s permitted but not effective: start with effective user id 0' % are(asleep)


def more_than_all(case):
    """The bits without a name can be kept only with every other one."""
    missing = missing_of(case)
    if not missing.unnamed:
        return
    platform = case.platform
    if platform.zone == 0:
        yield 'all is more than is permitted to this process: name the privileges'
    else:
        yield 'all is more than %s has: say zone' % this_zone(platform)


def not_in_this_zone(case):
    absent = absent_of(case)
    if not absent or missing_of(case).unnamed:
        return
    reasons = []
    prohibited = sorted(absent.named & PROHIBITED)
    if prohibited:
        reasons.append(
            '%s prohibited in every zone but the global zone' % are(prohibited))
    exclusive = sorted(absent.named & EXCLUSIVE_IP)
    if exclusive:
        reasons.append('%s only for a zone with its own IP stack (zonecfg: '
                       'ip-type=exclusive)' % are(exclusive))
    optional = sorted(absent.named - PROHIBITED - EXCLUSIVE_IP)
    if optional:
        reasons.append(
            '%s optional: zonecfg limitpriv, in the global zone' % are(optional))
    yield '%s not available in %s: %s' % (
        are(absent), this_zone(case.platform), '; '.join(reasons))


def not_permitted(case):
    missing = missing_of(case)
    if missing.unnamed:
        return
    lacking = missing - absent_of(case)
    remedy = 'start it as root, or with it'
    if 0 in case.found.uid:
        remedy = 'its SMF method, or a drop before this one, left it out'
    for name in 'permitted', 'limit':
        beyond = lacking - getattr(case.found, name)
        if beyond:
            yield '%s not permitted to this process: not in its %s set; %s' % (
                are(beyond), name, remedy)


def no_exec(case):
    if case.exec and 'proc_exec' not in case.goal.effective:
        yield 'proc_exec is not among the privileges: the command could not be executed'


def missing_of(case):
    """What is to be kept and is not held.  Root that keeps everything has it already."""
    if not case.confined:
        return case.goal.permitted - case.goal.permitted
    return case.goal.permitted - (case.found.permitted & case.found.limit)


def absent_of(case):
    """What of that no process of this zone can have: none in the global zone."""
    return missing_of(case) - case.platform.set_of('zone')


def this_zone(platform):
    return 'this zone (%s, zone id %d)' % (platform.zone_name, platform.zone)


def are(names):
    """'a is', 'a b are'"""
    names = list(names)
    if len(names) == 1:
        return names[0] + ' is'
    return ' '.join(names) + ' are'


Solaris.checks = (
    root_out_of_reach,
    rights_asleep,
    more_than_all,
    not_in_this_zone,
    not_permitted,
    no_exec,
)
# Those that can be told without a process, of root in this zone.
Solaris.doubts = more_than_all, not_in_this_zone, no_exec


# ---------------------------------------------------------- what is allowed, and worth a line

FAILS = {'file_link_any': 'linking to files of others', 'file_read': 'opening files to read',
         'file_write': 'opening files to write', 'net_access': 'sockets',
         'proc_exec': 'exec', 'proc_fork': 'fork',
         'proc_info': 'seeing processes of others',
         'proc_session': 'signals to other sessions'}


def basic_is_left_out(case):
    """Of the basic set, which everybody is used to have."""
    if not case.confined:
        return
    lost = case.platform.basic() - case.goal.permitted
    if lost:
        fails = [FAILS[name] for name in lost if name in FAILS]
        yield 'without %s, of the basic set, this will fail: %s' % (
            ' '.join(lost), ', '.join(fails) or 'what needs it')


Solaris.warnings = basic_is_left_out,
