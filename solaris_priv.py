# SPDX-License-Identifier: MIT
"""Solaris 10, 11 and illumos: privileges(5).  capdrop.py loads this file on SunOS, and only there, from beside itself.

The chapter "the platforms" of capdrop.py says what the methods of Solaris are for.  Credentials belong to the process,
not to a thread.  A set is text all the way, in the form that priv_set_to_str(3C) calls portable: "basic,net_privaddr".
"""
import errno
import os
import select

PRIV_ON, PRIV_SET, PRIV_STR_PORT, PRIV_STR_LIT = 0, 2, 0, 1             # sys/priv.h, priv.h
SETS = 'Permitted', 'Limit', 'Effective', 'Inheritable'                 # the documented order
# pfexec and xpolicy can grant what no set holds; aware_reset lets a change of ids rewrite the sets.
FLAGS = {'aware': 0x2, 'aware_reset': 0x40, 'xpolicy': 0x80, 'pfexec': 0x100}
SEPARATORS = b' ,\t\r\n'
KEYWORDS = ['all', 'basic', 'none', 'zone']
# What zonecfg(1M) gives to no zone but the global one, and what only to a zone with its own IP stack.
PROHIBITED = frozenset('dtrace_kernel proc_zone sys_config sys_devices sys_linkdir sys_net_config sys_res_config '
                       'sys_suser_compat virt_manage xvm_control'.split())
EXCLUSIVE_IP = frozenset('sys_ip_config sys_iptun_config sys_ppp_config'.split())
ROOT_EQUIVALENT = frozenset(
    'dtrace_kernel file_chown file_dac_execute file_dac_read file_dac_search file_dac_write file_owner file_setid '
    'proc_chroot proc_owner proc_setid proc_zone sys_admin sys_config sys_devices sys_fs_import sys_linkdir sys_mount '
    'sys_res_config sys_smb sys_suser_compat virt_manage xvm_control'.split())
FAILS = {'file_link_any': 'linking to files of others', 'file_read': 'opening files to read', 'net_access': 'sockets',
         'file_write': 'opening files to write', 'proc_exec': 'exec', 'proc_fork': 'fork',
         'proc_info': 'seeing processes of others', 'proc_session': 'signals to other sessions'}


class Solaris:
    """Privileges: setppriv(2), setpflags(2), priv_str_to_set(3C), ucred_get(3C)."""

    option = 'privileges'
    largest_id = 2147483647             # above it are ephemeral ids: EINVAL
    right = {'user': 'proc_setid', 'group': 'proc_setid', 'groups': 'proc_setid', 'chroot': 'proc_chroot'}
    denied = ''
    waived = 'allowing new privileges has no effect on this system: the limit set is always set'
    tasks = None

    def __init__(self, libc='libc.so.1'):
        self.poll = select.poll()
        self.poll.register(2, select.POLLOUT)
        try:
            import ctypes
            library = ctypes.CDLL(libc, use_errno=True)         # by soname: find_library runs programs as root
        except (ImportError, OSError) as e:
            raise OSError(errno.ENOSYS, 'this Python cannot load libc.so.1: %s' % e) from None

        def declare(name, restype, *argtypes):
            """A C function; -1 (of a uid_t, too) or NULL raises OSError with errno and the name."""
            try:
                function = getattr(library, name)
            except AttributeError:
                raise OSError(errno.ENOSYS, 'this system\'s libc.so.1 has no %s: Solaris 10 or later is needed'
                              % name) from None
            function.restype, function.argtypes = restype, argtypes

            def call(*args):
                ctypes.set_errno(0)
                result = function(*args)
                if result in (None, -1, 0xffffffff):            # the result first: errno may be stale
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code) if code else 'failed and did not say why', name)
                return result
            return function if restype is None else call

        c_int, c_uint, pointer, text = ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_char_p
        out = ctypes.POINTER(pointer)
        self.priv_str_to_set = declare('priv_str_to_set', pointer, pointer, text, out)
        self.priv_set_to_str = declare('priv_set_to_str', pointer, pointer, ctypes.c_char, c_int)
        self.priv_freeset = declare('priv_freeset', None, pointer)      # for sets, and free for text: two heaps
        self.free = declare('free', None, pointer)
        self.getppriv = declare('getppriv', c_int, text, pointer)
        self.setppriv = declare('setppriv', c_int, c_int, text, pointer)
        self.getpflags = declare('getpflags', c_uint, c_uint)
        self.setpflags = declare('setpflags', c_int, c_uint, c_uint)
        self.ucred_get = declare('ucred_get', pointer, c_int)
        self.ucred_free = declare('ucred_free', None, pointer)
        self.ucred_ids = {kind: [declare('ucred_get%s%s' % (which, kind), c_uint, pointer) for which in 'res']
                          for kind in ('uid', 'gid')}
        self.ucred_getgroups = declare('ucred_getgroups', c_int, pointer, out)
        self.ucred_getprivset = declare('ucred_getprivset', pointer, pointer, text)     # borrowed
        self.ucred_getpflags = declare('ucred_getpflags', c_uint, pointer, c_uint)
        self.getzoneid = declare('getzoneid', c_int)
        self.c_setgroups = declare('setgroups', c_int, c_int, pointer)
        self.setregid = declare('setregid', c_int, c_uint, c_uint)
        self.setreuid = declare('setreuid', c_int, c_uint, c_uint)
        self.c_chroot = declare('chroot', c_int, text)
        self.ctypes, self.zone = ctypes, self.getzoneid()
        name = ctypes.create_string_buffer(64)                          # ZONENAME_MAX
        try:
            declare('getzonenamebyid', ctypes.c_ssize_t, c_int, text, ctypes.c_size_t)(self.zone, name, 64)
        except OSError:
            pass                        # the number will do
        self.zone_name = name.value.decode() or 'name unknown'

    # the calls that change the ids; SunOS has no setresuid, but with both ids given the saved one follows

    def setgroups(self, groups):
        self.c_setgroups(len(groups), (self.ctypes.c_uint * len(groups))(*groups))

    def chroot(self, path):
        self.c_chroot(os.fsencode(path))

    def setgid(self, gid):
        return 'setregid({}, {})', self.setregid, gid, gid

    def setuid(self, uid):
        return 'setreuid({}, {})', self.setreuid, uid, uid

    def writable(self):
        return [1 for _, events in self.poll.poll(0) if events & select.POLLOUT]

    # sets

    def with_set(self, text, use):
        """use(a priv_set_t of a text)."""
        priv_set = self.priv_str_to_set(text.encode(), SEPARATORS, None)
        try:
            return use(priv_set)
        finally:
            self.priv_freeset(priv_set)

    def text(self, priv_set, flag=PRIV_STR_PORT):
        string = self.priv_set_to_str(priv_set, b',', flag)
        try:
            return self.ctypes.string_at(string).decode()
        finally:
            self.free(string)

    def portable(self, text, flag=PRIV_STR_PORT):
        """The same set as portable text.  Asked twice: the goal is made of it, so nothing later contradicts it."""
        first, second = [self.with_set(text, lambda priv_set: self.text(priv_set, flag)) for _ in range(2)]
        if first != second:
            raise OSError(errno.EPROTO, 'two answers to one question', 'priv_str_to_set')
        return first

    def names(self, text):
        return frozenset(self.portable(text, PRIV_STR_LIT).split(',')) - {'none'}

    def set_of(self, names):
        return self.portable(','.join(sorted(names)) or 'none')

    def parse(self, text):
        """The set that a text names; ValueError(message, offset)."""
        buffer, end = self.ctypes.create_string_buffer(text.encode()), self.ctypes.c_void_p()
        try:
            known = KEYWORDS + list(self.names('all'))          # they differ from release to release
            self.priv_freeset(self.priv_str_to_set(buffer, SEPARATORS, self.ctypes.byref(end)))
            return {'permitted': self.portable(text)}
        except OSError as e:
            if end.value is None:
                raise ValueError('%s: %s' % (e.filename, e.strerror), 0) from None
        offset = end.value - self.ctypes.addressof(buffer)      # it points into our buffer, at the word
        token = text[offset:].replace(',', ' ').split()[0]
        bare = token.lower().lstrip('!-+')
        bare = bare[5:] if bare.startswith('priv_') else bare
        if bare in KEYWORDS:
            raise ValueError('"%s": %s takes nothing before it; to remove privileges, write ! before each name'
                             % (token, bare), offset)
        import difflib
        near = ''.join(' (did you mean "%s"?)' % name for name in difflib.get_close_matches(bare, known, 1))
        raise ValueError('this system has no privilege "%s"%s' % (token, near), offset)

    def powerful(self, fields):
        return sorted(self.names(fields['permitted']) & ROOT_EQUIVALENT)

    # reading

    def read(self, pid=None):
        """All fields, twice, getppriv(2) into an empty and into a full set: a call that did nothing shows."""
        first, second = self.snapshot(pid, 'none'), self.snapshot(pid, 'all')
        if first != second:
            raise OSError(errno.EPROTO, 'read as %s, then as %s' % (first, second), 'getppriv, getpflags or ucred_get')
        return first

    def look(self, pid):
        return [(pid, self.read(pid))]          # credentials are of the process: credentials(7)

    def around(self):
        root = os.stat('/')
        return {'root': (root.st_dev, root.st_ino)}

    def snapshot(self, pid, filling):
        own, groups = pid is None, self.ctypes.c_void_p()
        ucred = self.ucred_get(os.getpid() if own else min(pid, self.largest_id))       # a c_int would wrap around
        try:
            fields = {kind: tuple(function(ucred) for function in row) for kind, row in self.ucred_ids.items()}
            count = self.ucred_getgroups(ucred, self.ctypes.byref(groups))      # NULL if there are none
            groups = (self.ctypes.c_uint * count).from_address(groups.value) if count else ()
            fields['groups'] = tuple(sorted(set(groups)))
            for name in SETS:
                fields[name.lower()] = (self.with_set(filling, lambda priv_set: self.held(name, priv_set)) if own else
                                        self.text(self.ucred_getprivset(ucred, name.encode())))
            for name, flag in FLAGS.items():
                fields[name] = self.flag(*(self.getpflags, flag) if own else (self.ucred_getpflags, ucred, flag))
        finally:
            self.ucred_free(ucred)
        if own:
            zone = self.getzoneid()
            fields['zone'] = '%d (%s)' % (zone, self.zone_name if zone == self.zone else 'another')
        try:
            root = os.stat('/' if own else '/proc/%d/root' % pid)
            fields['root'] = root.st_dev, root.st_ino
        except OSError:
            if own:
                raise
        return fields

    def held(self, name, priv_set):
        self.getppriv(name.encode(), priv_set)
        return self.text(priv_set)

    @staticmethod
    def flag(ask, *args):
        try:
            return ask(*args)
        except OSError as e:
            if e.errno != errno.EINVAL:
                raise
            return 0                    # a flag that this release does not know is not set

    # the goal, and whether this process can reach it

    def rights(self, fields):
        permitted = self.names(fields.permitted)                # `before` makes effective what is permitted
        return {what for what, name in self.right.items() if name in permitted}

    def goal(self, want, exec, no_new_privs):
        want = self.portable('basic') if want is None else want['permitted']
        goal = dict(permitted=want, limit=want, effective=want, aware=1, aware_reset=0, xpolicy=0, pfexec=0)
        return dict(goal, inheritable=want) if exec else goal   # otherwise what it shares with the set, in fit

    def fit(self, goal, found, want, exec, whole):
        """Settle what depends on the process, in goal; (refusals, warnings)."""
        refusals, warnings, root = [], [], goal.uid[0] == 0
        permitted, limit, effective = (self.names(text) for text in (found.permitted, found.limit, found.effective))
        if root and 0 not in found.uid and self.portable('zone') != (found.effective if whole else found.permitted):
            refusals.append('cannot become uid 0: that takes every privilege of the zone')      # setreuid(2)
        if whole:                       # nothing may be made effective: the sets stay as they are
            asleep = (permitted - effective) & set(self.right.values())
            if asleep:
                refusals.append('%s permitted but not effective: start with effective user id 0' % _are(asleep))
            if not found.aware:         # then uid 0 holds what the limit set does: privileges(5)
                goal.permitted = goal.effective = found.limit
            goal.aware_reset = 0
            return refusals, warnings
        if want is None:
            goal.permitted = goal.limit = goal.effective = self.set_of(self.names('basic') & permitted & limit)
        retained = self.names(goal.permitted)
        goal.inheritable = goal.permitted if exec else self.set_of(self.names(found.inheritable) & retained)
        refusals += self.missing(goal.permitted, found, permitted, limit)
        lost = sorted(self.names('basic') - retained)
        if lost:
            warnings.append('without %s, of the basic set, this will fail: %s' % (
                ' '.join(lost), ', '.join(FAILS[name] for name in lost if name in FAILS) or 'what needs it'))
        if exec and 'proc_exec' not in retained:
            refusals.append('proc_exec is not among the privileges: the command could not be executed')
        return refusals, warnings

    def missing(self, want, found, permitted, limit):
        """Why this process cannot have the set that it wants."""
        zone = 'this zone (%s, zone id %d)' % (self.zone_name, self.zone)
        if want == 'all' and (found.permitted, found.limit) != ('all', 'all'):
            yield ('all is more than %s has: say zone' % zone if self.zone else
                   'all is more than is permitted to this process: name the privileges')
            return
        lacks = self.names(want) - (permitted & limit)
        absent = lacks - self.names('zone')                     # which is everything in the global zone
        if absent:
            reasons = ((absent & PROHIBITED, '%s prohibited in every zone but the global zone'),
                       (absent & EXCLUSIVE_IP, '%s only for a zone with its own IP stack (zonecfg: ip-type=exclusive)'),
                       (absent - PROHIBITED - EXCLUSIVE_IP, '%s optional: zonecfg limitpriv, in the global zone'))
            yield '%s not available in %s: %s' % (_are(absent), zone, '; '.join(
                text % _are(names) for names, text in reasons if names))
        for which, held in (('permitted', permitted), ('limit', limit)):
            if lacks - absent - held:
                yield '%s not permitted to this process: not in its %s set; start it as root, or with it' % (
                    _are(lacks - absent - held), which)

    # steps

    def before(self, found, goal, whole):
        rows = [self.flag_step(name, 0) for name in FLAGS if getattr(found, name) > getattr(goal, name)]
        if whole:
            return rows
        # Aware first: without it the change of uid takes every privilege.  Then effective, for the ids: all there is.
        return rows + [self.flag_step('aware', 1), self.set_step(PRIV_SET, 'Effective', found.permitted)]

    def after(self, found, goal, whole):
        return [self.set_step(PRIV_SET, name, getattr(goal, name.lower())) for name in SETS if not whole]

    def regain(self, found, goal):
        """One privilege that is gone, for each of the sets that can only shrink."""
        gone = [(name, self.names(getattr(found, name.lower())) - self.names(getattr(goal, name.lower())))
                for name in SETS[:2]]
        return [names and self.set_step(PRIV_ON, name, 'proc_setid' if 'proc_setid' in names else min(names))
                for name, names in gone]

    def set_step(self, op, name, text):
        return 'setppriv(%s, {1}, "{2}")' % ('PRIV_SET' if op else 'PRIV_ON'), self.put_set, op, name, text

    def put_set(self, op, name, text):
        self.with_set(text, lambda priv_set: self.setppriv(op, name.encode(), priv_set))

    def flag_step(self, name, value):
        return 'setpflags(PRIV_{}, {})', self.put_flag, name.upper(), value

    def put_flag(self, name, value):
        self.setpflags(FLAGS[name.lower()], value)
        if self.getpflags(FLAGS[name.lower()]) != value:        # the steps that follow rely on it
            raise OSError(errno.EPROTO, 'had no effect', 'setpflags')

    hold = release = lambda self: None          # reading back needs no descriptor


def _are(names):
    return '%s %s' % (' '.join(sorted(names)), 'is' if len(names) == 1 else 'are')
