# SPDX-License-Identifier: MIT
# mypy: ignore-errors
"""Give up root for good, keeping only what a Security stanza names.

usage: capdrop check FILE                 parse and resolve: errors and warnings
       capdrop plan FILE [--exec]         the steps as system calls; changes nothing
       capdrop exec FILE -- COMMAND...    drop, verify, run the command
       capdrop status [PID]               what a process holds now
       capdrop audit FILE PID             does that running process, every thread of
                                          it, hold what FILE says?  the differences

  --user NAME --group NAME --chroot DIRECTORY --supplemental-groups NAME,NAME...
  --capabilities TEXT --privileges TEXT
                      override the file's; with one of them FILE may be left out
  --allow-new-privs   let setuid and file-capability programs work afterwards
  --json              for check, plan, status and audit
  -q                  no warnings, notes and summaries
  -h, --version       this text; the version

FILE - is standard input.  Exit status: 0 done; 1 check found an error, audit a
difference; 2 usage; 125 could not drop or answer (the command was not run); 126 the
command cannot be executed; 127 it was not found; otherwise the command's own.

In a program:

    import capdrop
    capdrop.drop(capdrop.load('/etc/myd.conf'))    # verified, or it does not return

The file reads in the order of the data: text -> Security -> Plan -> State.
"""
import sys

if __name__ == '__main__' and not (sys.flags.isolated or getattr(sys.flags, 'safe_path', False)):
    del sys.path[0]     # the directory of this file: a ctypes.py planted there would run as root

import errno
import gc
import os
import stat
import time

import _codecs
import _signal          # signal itself imports enum

TYPE_CHECKING = False       # for a checker it is true, and importing typing costs more than a drop
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, Iterator, List, Mapping, NoReturn, Optional, Sequence, Tuple, Union
    Place = Tuple[Optional[str], Optional[int], Optional[int]]

__version__ = '1.0'
__all__ = ['Audit', 'ConfigError', 'Difference', 'Error', 'HalfDropped', 'Plan', 'RefusedError', 'Security', 'State',
           'audit', 'drop', 'launch', 'load', 'loads', 'plan', 'state']

OPTIONS = ('user', 'group', 'supplemental_groups', 'capabilities', 'privileges', 'chroot')
DEFAULT_USER = 'ecuser'                         # the documented default
NO_USER = 'no user is named, and the default, %s, has no account: name one' % DEFAULT_USER


# ---------------------------------------------------------------------------- errors

class Error(Exception):
    """Nothing has been changed: the base of ConfigError and RefusedError."""


class ConfigError(Error, ValueError):
    """The configuration is wrong: message, and where: file (or the option's name), line, column (from 1) or None;
    excerpt is the line with a caret under the column, or ''."""

    def __init__(self, message: str, file: 'Optional[str]' = None, line: 'Optional[int]' = None,
                 column: 'Optional[int]' = None, excerpt: str = '') -> None:
        super().__init__(message)
        self.message, self.file, self.line, self.column, self.excerpt = message, file, line, column, excerpt

    def __str__(self):
        return _at((self.file, self.line, self.column)) + self.message


class RefusedError(Error, OSError):
    """The system will not allow it, or it would not be safe."""


class HalfDropped(BaseException):
    """Only with on_failure='raise': the drop began and did not end as planned.  End the process now."""


def _at(place):
    file, line, column = place
    return '' if not file else _printable(file) + (': ' if line is None else ':%d:%d: ' % (line, column))


def _printable(text):
    """`text` with whatever a terminal could act on escaped."""
    return ''.join(c if c.isprintable() else _codecs.unicode_escape_encode(c)[0].decode()     # encode() imports it
                   for c in text)


def _quietly(call, *args):
    """call(*args), or None where that cannot be had and need not be."""
    try:
        return call(*args)
    except (OSError, LookupError, ValueError, OverflowError, AttributeError, ImportError):
        return None


def _untrue(message, what=None):
    """The error of a call, `what`, that returned and yet did not do what it is for."""
    return OSError(errno.EPROTO, message, what)


def _close(fd):
    """Close a descriptor, if there is one, that must not outlive the drop; one on a directory leads out of a jail."""
    if fd is not None:
        os.close(fd)
        if _quietly(os.fstat, fd) is not None:
            raise _untrue('the descriptor is still open', 'close')


def _nearest(word, words):
    """The one of `words` that was likely meant, or ''."""
    import difflib
    return ([one for one in words if one.startswith(word)] or difflib.get_close_matches(word, words, 1) or [''])[0]


# ---------------------------------------------------------------------------- text -> Security

class Security:
    """The six options of a Security stanza; None is absent.

    user, group, chroot, capabilities, privileges: text (user and group also int); supplemental_groups: a
    sequence of names or ids, or one name.  Raises ConfigError for a value that no system could accept.
    where[option]: (file, line, column) of every place that set it, the one in effect last.
    """
    __slots__ = OPTIONS + ('where', 'notes', 'writers', 'private', 'local')

    if TYPE_CHECKING:
        user: 'Optional[str]'
        group: 'Optional[str]'
        supplemental_groups: 'Optional[Tuple[str, ...]]'
        capabilities: 'Optional[str]'
        privileges: 'Optional[str]'
        chroot: 'Optional[str]'
        where: 'Dict[str, List[Place]]'

    def __init__(self, user: 'Union[str, int, None]' = None, group: 'Union[str, int, None]' = None,
                 supplemental_groups: 'Union[Iterable[Union[str, int]], int, None]' = None,
                 capabilities: 'Optional[str]' = None, privileges: 'Optional[str]' = None,
                 chroot: 'Optional[str]' = None) -> None:
        self.where = {}
        self.notes = []         # warnings: (place, text)
        self.writers = {}       # file that was read -> who besides root could rewrite it or put it there
        self.private = set()    # files whose text is not shown: not everyone may read them
        self.local = []         # where Local_Changes_File was named, as in `where`
        for option, value in zip(OPTIONS, (user, group, supplemental_groups, capabilities, privileges, chroot)):
            setattr(self, option, None)
            if value is not None:
                self.put(option, value, (option + '=', None, None))

    def put(self, option, value, place):
        """Check one value and let it replace an earlier one."""
        listed, sets = option == 'supplemental_groups', option in ('capabilities', 'privileges')
        if not listed or isinstance(value, (str, bytes, int)):      # bytes would be taken for a list of ids
            value = value,
        texts = tuple(str(text) if isinstance(text, int) else text for text in value)
        for text in texts:
            wrong = (
                'is not text' if not isinstance(text, str) else
                'is longer than 4096 characters' if len(text) > 4096 else
                'has an empty name in it' if not text and listed else
                'is empty' if not text and not sets else
                'has a blank or comma in an element; write the list as ( %s )' % ' '.join(
                    '"%s"' % word for word in text.replace(',', ' ').split())
                if listed and set(' ,').intersection(text) else
                'is not an absolute path' if option == 'chroot' and text[0] != '/' else
                next(('holds %s, which is not allowed' % ascii(c) for c in text
                      if not c.isprintable() or c == '\\' or sets and c > '~'), ''))
            if wrong:
                raise ConfigError('%s %s' % (option, wrong), *place)
        setattr(self, option, texts if listed else texts[0])
        self.where.setdefault(option, []).append(place)

    def place(self, option):
        """(file, line, column) of the value in effect, or three times None."""
        return self.where.get(option, [(None, None, None)])[-1]

    def error(self, option, message, text='', offset=0):
        """A ConfigError, `offset` characters into an option's value; `text`, from it, stands for %s in the message."""
        file, line, column = self.place(option)
        shown = 'this value' if file in self.private else '"%s"' % _printable(text)
        named = '' if file and line is None else option + ': '      # by the name of the option of the command line
        return ConfigError(named + message.replace('%s', shown), file, line, column and column + offset)


BLANK = b' \t\r\n\v\f'
CLOSE = {'': '', '{': '}', '(': ')', '[': ']'}  # the end of a file closes its global level
INCLUDES = ('include', 'readonly_include')
SEARCH_PATH = ('/opt/msys/ecelerity/etc:/opt/msys/ecelerity/etc/conf/global:'
               '/opt/msys/ecelerity/etc/conf/NODENAME:/opt/msys/ecelerity/etc/conf/default')
LIMIT = 64 << 20                                # bytes, of all files together
_PATTERN_STOPS = bytes.maketrans(b'\t\r{', b'   ')
_BYTES = bytes(range(256))
_IN_WORD = _BYTES.translate(None, BLANK + b'#"\'={}[]()')
_IN_STRING = _BYTES.translate(None, b'"\\')
_CONTINUED = _BYTES[0x80:0xc0]                  # UTF-8: not the first byte of a character
_CURLY = set('\u201c\u201d\u2018\u2019')
_TAKES = (('=',), 'expected = after %s'), (('word', 'string'), '%s takes one word or string')  # what follows an option
_TAKES_LIST = _TAKES[0], (('word', 'string', '('), '%s takes a list: ( "mail" "adm" )')


class _Source:
    """One file's bytes and a position in them; errors know line and column."""
    pos = barrier = 0
    window = 1024                               # see _leap
    counted = 0, 1, 1                           # an offset, its line and column, so that nothing is counted twice

    def __init__(self, name, data, directory='', public=True):
        if data.startswith(b'\xef\xbb\xbf'):
            data = data[3:]
        self.name, self.data, self.directory, self.public = name, data, directory, public
        if b'\0' in data:
            raise self.error(data.find(b'\0'), 'a NUL byte: this is not a text file')
        at = 0
        while at < len(data):                   # in pieces: a str of it all could be four times the size
            try:
                at += _codecs.utf_8_decode(data[at:at + 65536], 'strict', at + 65536 >= len(data))[1]
            except UnicodeDecodeError as e:
                raise self.error(at + e.start, 'not valid UTF-8') from None

    def place(self, offset):
        """(file, line, column), of an offset that is not before the last one asked for."""
        seen, line, column = self.counted
        begin = self.data.rfind(b'\n', seen, offset) + 1
        if begin:
            line += self.data.count(b'\n', seen, begin)
            seen, column = begin, 1
        for at in range(seen, offset, 65536):   # in pieces: the line may be most of the file
            column += len(self.data[at:min(at + 65536, offset)].translate(None, _CONTINUED))
        self.counted = offset, line, column
        return self.name, line, column

    def error(self, offset, message, text=None):
        """A ConfigError here; `text`, from the file, stands for %s in the message if everyone may read the file."""
        excerpt = ''
        if text is not None:
            message %= '"%s"' % _printable(text.decode()[:60]) if self.public else 'this'
        if self.public:
            start = max(self.data.rfind(b'\n', 0, offset) + 1, offset - 60)
            before, line = (
                _printable(self.data[start:end].partition(b'\n')[0].decode('utf-8', 'replace').replace('\t', ' '))
                for end in (offset, offset + 60))
            excerpt = '%s\n%s^' % (line.rstrip(), ' ' * len(before))
        self.counted = _Source.counted          # an error may be before what was counted
        return ConfigError(message, *self.place(offset), excerpt)

    def unclosed(self, bracket, offset):
        return self.error(offset, 'missing %s: this %s is never closed' % (CLOSE[bracket], bracket))

    def token(self, after_name=False):
        """The next token: (kind, text, offset).  kind is 'word', 'string', one of = ' { } ( ) [ ], or '' at the end."""
        data, pos = self.data, self.past(BLANK, self.pos)
        while data.startswith((b'#', b'/*'), pos):
            end = self.find(b'\n', pos) if data.startswith(b'#', pos) else self.find(b'*/', pos + 2) + 2
            if end > len(data):
                raise self.error(pos, 'this comment is never closed')
            pos = self.past(BLANK, end)
        end = self.past(_IN_WORD, pos)
        kind = 'word' if end > pos else data[pos:pos + 1].decode()
        if kind == '"':
            end = self.past(_IN_STRING, pos + 1)
            while data.startswith(b'\\', end):
                end = self.past(_IN_STRING, end + 2)
            if end >= len(data):
                raise self.error(pos, 'this string is never closed')
            self.pos = end + 1
            return 'string', data[pos + 1:end], pos
        if kind != 'word':
            end += len(kind)
        elif after_name and data.startswith((b' /', b'\t/'), pos - 1):
            end = self.pattern_end(pos, end)
        elif b'/*' in data[pos:end]:
            raise self.error(pos, '/* inside the word %s: put the word in quotation marks', data[pos:end])
        self.pos = end
        return kind, data[pos:end], pos

    def find(self, what, start):
        at = self.data.find(what, start)
        return at if at >= 0 else len(self.data)

    def past(self, those, pos):
        """The first offset from `pos` on whose byte is none of `those`."""
        while True:
            piece = self.data[pos:pos + 256]    # never the whole rest: that would be quadratic
            rest = piece.lstrip(those)
            pos += len(piece) - len(rest)
            if rest or not piece:
                return pos

    def pattern_end(self, start, end):
        """Where /regex/, an instance without quotation marks, ends: at the first / before a blank or { on its line."""
        line = self.data[start:start + 1024].partition(b'\n')[0] + b' '
        rest = line[end - start:]
        if rest[:1] in b' \t' and rest.lstrip(BLANK)[:1] == b'{':
            return end                          # Listen /tmp/2025 {
        length = line.translate(_PATTERN_STOPS).find(b'/ ', 1) + 1
        return start + length if length else end

    def strict(self, listed=False):
        """The next token, in Security: what is passed over elsewhere is an error."""
        kind, raw, at = self.token()
        if kind == "'":
            raise self.error(at, 'a single quote: use " for strings')
        if kind == 'word':
            if _CURLY.intersection(raw.decode()):
                raise self.error(at, 'a typographic quotation mark: use "')
            if b';' in raw:
                raise self.error(at + raw.index(b';'), 'stray ;: nothing but blanks stands between options')
            if raw.endswith(b',') and not listed and raw != b',':
                raise self.error(at, 'stray comma: nothing but blanks stands between options')
        if kind == 'string' and self.data[self.pos:self.pos + 1] not in BLANK + b'})#' + b',' * listed:
            raise self.error(self.pos, 'a blank has to follow a string')
        return kind, raw, at

    def group_list(self, opened):
        values, wanted = [], True               # wanted: after a comma an element has to come
        while True:
            kind, raw, at = self.strict(True)
            if kind == ')' and not (wanted and values):
                return values
            if kind in ('', '}'):
                raise self.unclosed('(', opened)
            if kind == 'string' or kind == 'word' and b',' not in raw:
                values.append(raw.decode())
                wanted = False
            elif raw == b',' and not wanted:
                wanted = True
            else:
                raise self.error(at, 'expected a group or ), not %s; blanks stand between groups', raw)

    def beside(self, name, at):
        """A file name, or what file:// names, as seen from the directory of this file."""
        scheme, colon, rest = name.partition('://')
        if colon and scheme.lower() != 'file':
            raise self.error(at, 'only file:// can be included')
        return os.path.join(self.directory, rest or name)

    def included(self, name, at):
        """The path of an included file: beside this one first, then along the search path."""
        path = self.beside(name, at)
        if os.path.isabs(path) and (os.path.exists(path) or path == name or '://' in name):
            return path
        search = os.environ.get('EC_CONF_SEARCH_PATH')
        if search is None:
            node = os.environ.get('EC_NODE_NAME') or os.uname()[1].partition('.')[0]
            if '/' in node or '..' in node:
                raise self.error(at, 'the node name "%s" cannot be part of a path' % _printable(node))
            search = SEARCH_PATH.replace('NODENAME', node)
        for directory in search.split(':'):
            path = os.path.join(directory, name)
            if directory.startswith('/') and os.path.exists(path):
                return path
        raise self.error(at, '%s is neither beside this file nor on the search path', os.fsencode(name))


def _text(kind, raw):
    """A word, or a string with its two escapes undone, as the operating system takes it."""
    if kind == 'string':
        raw = raw.replace(b'\\\\', b'\0').replace(b'\\"', b'"').replace(b'\0', b'\\')
    return os.fsdecode(raw)


class _Reader:
    """Reads a configuration, includes in place, into one Security."""

    def __init__(self):
        self.security, self.stanzas, self.local, self.budget = Security(), 0, None, LIMIT
        self.opened, self.reading = {}, {}      # file -> (device, inode); those not read to their end the other way
        self.through = {}               # file -> the files that include it: they decide as well what it says
        self.named_in = set()           # while Local_Changes_File is read: the files that name it, likewise

    def file(self, path, fail, last=False):
        """Read one file (path None: standard input) and all that it includes; fail(message) makes the error.

        last: it is Local_Changes_File, which may be absent: it is written when something is changed.
        """
        name = path or '-'
        try:
            if path and not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError(errno.EINVAL, 'not a regular file')       # opening a device can act on it
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) if path else 0
            with open(fd, 'rb', closefd=bool(path)) as file:
                st = os.fstat(fd)
                regular = stat.S_ISREG(st.st_mode)
                if path and not regular:
                    raise OSError(errno.EINVAL, 'not a regular file')
                if not regular and not os.get_blocking(fd):
                    raise OSError(errno.EAGAIN, 'does not block: what has arrived may not be all')
                limit = min(self.budget, st.st_size) if regular else self.budget
                data = file.read(limit + 1)
                if data is None:                # some of /sys/kernel/tracing
                    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError as e:
            if last and e.errno == errno.ENOENT:
                self.known(name)
                return
            raise fail('%s: %s' % (_printable(name), e.strerror)) from None
        self.budget -= max(len(data), 4096)     # empty files cost something too: includes could double 32 times
        if len(data) > limit or self.budget < 0:
            raise fail('the configuration is larger than 64 MiB (4 KiB a file at least), or grew while it was read')
        key = st.st_dev, st.st_ino
        if key in (self.opened.values() if last else self.reading):
            raise fail('Local_Changes_File is one of the files already read' if last else
                       '%s includes itself' % _printable(name))
        if len(self.reading) > 32:
            raise fail('includes are nested more than 32 deep')
        if not self.known(name, key):
            raise fail('%s was replaced while the configuration was read' % _printable(name))
        public = not regular or st.st_mode & 0o004
        if not public:
            self.security.private.add(name)
        self.reading[key] = name
        self.items(_Source(name, data, os.path.dirname(os.path.abspath(path)) if path else '', public))
        del self.reading[key]

    def known(self, name, key=None):
        """A file, or without a key the place where one could be put; False if it was another file before."""
        self.through.setdefault(name, set()).update(self.reading.values(), self.named_in)
        return self.opened.setdefault(name, key) == key

    def include(self, source, kind, raw, at):
        """A file, or all files of a directory, in place."""
        if not raw or kind not in ('word', 'string') or raw.decode()[0] in _CURLY:
            raise source.error(at, 'include takes the name of one file or directory, in "quotation marks"')
        path = source.included(_text(kind, raw), at)
        fail = lambda message: source.error(at, message if source.public else 'this cannot be included')
        if not os.path.isdir(path):
            return self.file(path, fail)
        try:
            names = sorted(os.listdir(path), key=os.fsencode)
        except OSError as e:
            raise fail('%s: %s' % (_printable(path), e.strerror)) from None
        self.charge(source, at, 64 * (len(names) + 1))
        self.known(path)
        for name in [os.path.join(path, name) for name in names if not name.startswith('.')]:
            if not os.path.isdir(name):
                self.file(name, fail)

    def items(self, source):
        """One file: at the global level items, in brackets nothing but strings, comments and brackets."""
        stack = [('', 0)]                       # open brackets and where
        name, before = b'', ''                  # in them: the last token if it is a word and no value; its kind
        while stack:
            bracket, opened = stack[-1]
            if not bracket:
                _leap(source)
            kind, raw, at = source.token(after_name=name and bracket == '{')
            if kind == CLOSE[bracket]:
                stack.pop()
            elif kind in ('', '}'):
                raise source.unclosed(bracket, opened) if bracket else source.error(
                    at, 'stray }: no stanza is open here')
            elif kind in CLOSE:
                stack.append((kind, at))
                if len(stack) > 1 << 20:
                    raise source.error(at, 'brackets are nested more than a million deep')
                if name == b'security' and kind == '{':
                    self.warn(source, at, 'a Security inside another stanza is not the global one: ignored')
            elif kind == 'word' and not bracket:
                self.item(source, raw.lower().decode(), at)
            name = raw.lower() if bracket and kind == 'word' and before != '=' else b''
            before = kind

    def item(self, source, name, at):
        """What a word at the global level begins, up to a bracket that encloses what is passed over."""
        start = source.pos
        kind, raw, here = source.token(after_name=True)
        if name in INCLUDES:
            self.include(source, kind, raw, here)
        elif name == 'security':
            if kind != '{':
                raise source.error(here, 'the Security stanza has no name and no =: write Security {')
            self.stanzas += 1
            self.options(source, here)
        elif kind == '=':
            kind, raw, here = source.token()
            if kind not in ('word', 'string'):
                source.pos = here               # what a bracket encloses is passed over next
            elif name == 'local_changes_file':
                self.local = os.path.join('/', source.beside(_text(kind, raw), here)), lambda message: source.error(
                    here, message if source.public else 'Local_Changes_File cannot be read'), set(self.reading.values())
                self.charge(source, at, 64)
                self.security.local.append(source.place(at))
            if name in OPTIONS:
                self.warn(source, at, '%s is not in Security { }: ignored' % name)
        elif kind == 'word' and source.token()[0] == '{':
            source.pos -= 1                     # the {, likewise
        else:
            source.pos = start                  # a word on its own: what follows it starts the next item
            return
        if kind == 'word' and raw.lower() == b'security':
            self.warn(source, here, 'a Security after a word of another item is not a stanza: ignored')

    def charge(self, source, at, size):
        """What is kept, or looked at, besides the text counts as well."""
        self.budget -= size
        if self.budget < 0:
            raise source.error(at, 'the configuration holds, or includes, too much')

    def warn(self, source, at, text):
        self.charge(source, at, 64)
        self.security.notes.append((source.place(at), text))

    def options(self, source, opened):
        """What is in Security { }, read strictly."""
        while True:
            kind, raw, at = source.strict()
            if kind == '}':
                return
            if not kind:
                raise source.unclosed('{', opened)
            option = raw.lower().decode()
            if option in INCLUDES:
                raise source.error(at, 'include does not work inside Security: give the file a Security { } of its own')
            if kind != 'word' or option not in OPTIONS:
                guess = _nearest(option, OPTIONS) if source.public and kind == 'word' else ''
                raise source.error(at, 'Security has no option %%s%s; it has %s' % (
                    guess and ' (did you mean %s?)' % guess, ', '.join(OPTIONS)), raw)
            for kinds, message in _TAKES_LIST if option == 'supplemental_groups' else _TAKES:
                kind, raw, here = source.strict()
                if kind not in kinds:
                    raise source.error(here if kind else at, message % option)
            self.charge(source, here, 64)
            start = here + (kind == 'string')
            value = source.group_list(here) if kind == '(' else raw.decode()
            try:
                self.security.put(option, value, source.place(start))
            except ConfigError as e:
                raise source.error(start, e.message if source.public else
                                   '%s cannot have this value' % option) from None

    def finish(self, name):
        """Local_Changes_File last; then what was set more than once, and who could rewrite what was read."""
        security = self.security
        if self.local:
            path, fail, self.named_in = self.local
            self.file(path, fail, last=True)
        if not self.stanzas:
            raise ConfigError('there is no Security { } stanza', name)
        for option, places in security.where.items():
            if len(places) > 1:
                security.notes.append((places[-1], '%s overrides %s' % (option, _at(places[-2])[:-2])))
        alone = {name: [] if name == '-' else _file_writers(name, key) for name, key in self.opened.items()}
        for name in alone:
            security.writers[name] = [one for file in [name] + sorted(self.through[name]) for one in alone[file]]
        return security


# Passing over whole foreign stanzas at once.  A stretch that ends with the } of a line's start is whole if, with all
# but brackets, quotes and comments erased, it cancels out; if it does not, or could hold something of ours, it is
# read token by token.
_NOT_OURS = _BYTES.translate(None, b'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_=\n')
_OURS = tuple(option.encode() for option in OPTIONS) + (b'\n',)     # the last: the name may stand before a comment
_PLAIN = _BYTES.translate(None, b'{}()[]"#\n/*\\')


def _leap(source):
    data, start = source.data, source.pos
    while source.barrier <= start:
        end = max(data.rfind(b'\n}', start, start + source.window), source.find(b'\n}', start))
        if end < min(len(data), start + (1 << 20)) and _whole(data[start:end + 2]):
            source.pos = start = end + 2
            source.window = min(4 * source.window, 65536)
        elif source.window > 1:
            source.window = 1                   # once more, to the nearest }
        else:
            source.barrier = end + 1            # up to here token by token, and no second try


def _whole(stretch):
    letters, marks = stretch.translate(None, _NOT_OURS).lower(), stretch.translate(None, _PLAIN)
    if b'security' in letters or b'include' in letters or b'local_changes_file' in letters or [
            1 for name in letters.split(b'=')[:-1] if name.endswith(_OURS)] or b'/*' in marks or b'\\"' in marks:
        return False                            # ours, perhaps, or a comment or string with other rules
    for rest in stretch.replace(b'\t', b' ').split(b' /')[1:]:
        if set(b'{}()[]"#').intersection(rest.partition(b'\n')[0]):
            return False                        # a bracket, quote or # in a /regex/ is none
    first, *comments = marks.replace(b'""', b'').split(b'#')
    parts = [first] + [comment.partition(b'\n')[2] for comment in comments]
    if [part for part in parts if part.count(b'"') % 2]:
        return False                            # a # that may be part of a string
    left = b''.join(b''.join(parts).split(b'"')[::2]).translate(None, b'\n/*\\')    # every other one is in a string
    for _ in range(16):
        left = left.replace(b'{}', b'').replace(b'()', b'').replace(b'[]', b'')
    return not left


def load(path: 'Union[str, bytes, os.PathLike[str]]') -> Security:
    """Read a configuration file and all that it includes.  Reads files and their owners, EC_CONF_SEARCH_PATH,
    EC_NODE_NAME and the node name, nothing else.  Raises ConfigError."""
    path = os.fsdecode(path)
    if '\0' in path:
        raise ConfigError('the name of the configuration file has a NUL in it')
    return _load('./-' if path == '-' else path)        # - alone is standard input


def _load(path):
    reader = _Reader()
    reader.file(path, ConfigError)
    return reader.finish(path or '-')


def loads(text: str, name: str = '<string>') -> Security:
    """The same from text (str); relative includes are looked for on the search path only."""
    reader = _Reader()
    reader.items(_Source(name, text.encode('utf-8', 'surrogatepass')))
    return reader.finish(name)


def _components(path):
    """An absolute path and the directories above it, from the root on."""
    names = [name for name in path.split('/') if name]
    return ['/' + '/'.join(names[:depth]) for depth in range(len(names) + 1)]


def _walk(path):
    """What is looked up on the way to an absolute path, from the root on: symbolic links, and where they lead."""
    at, names = '/', path.split('/')[::-1]
    found = [at]
    while names:
        parent, at = at, os.path.normpath(os.path.join(at, names.pop()))
        found.append(at)
        if os.path.islink(at):
            target = os.readlink(at)
            names += target.split('/')[::-1]
            at = '/' if target.startswith('/') else parent
        if len(found) > 4096:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return list(dict.fromkeys(found[::-1]))[::-1]       # the last is what was meant, though it was passed before


def _writers(components, links=False):
    """Who besides root could replace one of these, each in one before it, or write the last: [(component, kind, id)].

    What root alone can write root alone can swap, so a component is looked at only below ones that stand still.
    """
    for component in components:
        st = os.lstat(component)
        link = stat.S_ISLNK(st.st_mode)
        if link and not links:
            raise OSError(errno.ELOOP, 'a symbolic link', component)
        if st.st_uid:
            yield component, 'user', st.st_uid
        if link or st.st_mode & stat.S_ISVTX and component != components[-1]:
            continue                            # only owners can replace it, or what is in it
        if st.st_mode & 0o002:
            yield component, 'everyone', None
        elif st.st_mode & 0o020:
            if _quietly(lambda: os.getxattr(component, 'system.posix_acl_access')):
                yield component, 'an access control list', None         # the group bits are its mask
            elif st.st_gid:
                yield component, 'group', st.st_gid


def _file_writers(name, opened):
    """The same for a file that was read.  A read-only mount is no excuse: elsewhere the same may be written."""
    try:
        way = _walk(name if os.path.isabs(name) else os.path.join(os.getcwd(), name))
        if opened is None:                      # a directory, or what is not there yet: who could put it there?
            way = [one for one in way if os.path.lexists(one)]
        found = list(_writers(way, links=True))
        return found if opened is None or _identity(way[-1], follow_symlinks=False) == opened else [
            (name, 'whoever replaced it while it was read', None)]
    except OSError as e:
        return [(name, 'someone unknown (%s)' % e.strerror, None)]


def _who(kind, number):
    return kind if number is None else '%s %d' % (kind, number)


# ---------------------------------------------------------------------------- State

class State:
    """What a process holds: one type for what a plan must end in, what was read back and what `status` prints.

    On Linux: uid and gid (real, effective, saved, filesystem), groups, permitted, effective, inheritable, ambient and
    bounding (CapSet), securebits, keepcaps, no_new_privs, threads, root (device and inode of the root directory).
    On SunOS: uid and gid (real, effective, saved), groups, permitted, limit, effective and inheritable (text of
    priv_set_to_str(3C)), the flags aware, aware_reset, xpolicy and pfexec, zone, root.
    Of another process, as far as this one may see it: not securebits, keepcaps and zone, but command, root_path and
    the namespaces user_ns and mnt_ns (device and inode), and whether its current directory is outside of its root.
    warnings: those of the drop.
    """

    if TYPE_CHECKING:
        uid: 'Tuple[int, ...]'
        gid: 'Tuple[int, ...]'
        groups: 'Tuple[int, ...]'
        root: 'Tuple[int, int]'
        warnings: 'Tuple[str, ...]'

        def __getattr__(self, name: str) -> 'Any': ...  # sets and flags: they differ from platform to platform

    def __init__(self, fields: 'Mapping[str, Any]', warnings: 'Iterable[str]' = ()) -> None:
        self.__dict__.update(fields, warnings=tuple(warnings))

    def fields(self) -> 'Dict[str, Any]':
        """All but the warnings: {name: value}."""
        fields = dict(vars(self))
        del fields['warnings']
        return fields

    def differences(self, other: 'State') -> 'List[Tuple[str, Any, Any]]':
        """[(field, in this one, in the other)]; the primary group in the list of groups makes no difference."""
        mine, others = (dict(state.fields(), groups=set(state.groups) - {state.gid[0]}) for state in (self, other))
        return [(name, getattr(self, name), getattr(other, name, None)) for name in mine
                if mine[name] != others.get(name)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and not self.differences(other)

    def __str__(self):
        return '\n'.join('%-12s %s%s' % (name, _show(value), _id_names(name, value))
                         for name, value in self.fields().items())

    def as_dict(self) -> 'Dict[str, Any]':
        """For JSON: sets as lists of names."""
        return _plain(self.fields())


def _plain(fields):
    return {name: list(value) if isinstance(value, (tuple, CapSet)) else value for name, value in fields.items()}


def _show(value):
    if isinstance(value, (set, tuple)):
        value = ' '.join(map(str, sorted(value) if isinstance(value, set) else value)) or 'none'
    return _printable(str(value))


def _id_names(field, ids):
    if field not in ('uid', 'gid', 'groups'):
        return ''
    import grp
    import pwd
    entries = [_quietly(pwd.getpwuid if field == 'uid' else grp.getgrgid, number) for number in sorted(set(ids))]
    names = ' '.join(entry[0] for entry in entries if entry)
    return names and ' (%s)' % names


def state(pid: 'Optional[int]' = None) -> State:
    """What this process, or process `pid` (its first thread), holds now.  Raises RefusedError."""
    return State(_refusing(_look, pid)[0])


def _identity(file, **where):
    """Device and inode."""
    st = os.stat(file, **where)
    return st.st_dev, st.st_ino


def _look(pid):
    """The fields of a process, or of this one, and [(thread, its fields)] of all of its threads but the first."""
    if pid is None:
        return _platform().read(), []
    try:
        (_, first), *others = _platform().look(pid)
        return first, others
    except (FileNotFoundError, ProcessLookupError):
        raise RefusedError('there is no process %s, or it has ended, or /proc is not mounted' % pid) from None
    except (LookupError, ValueError):
        raise RefusedError('/proc/%d/status is not as proc(5) describes it' % pid) from None


def _refusing(call, *args):
    """call(*args), with what the system does not allow as a RefusedError."""
    try:
        return call(*args)
    except RefusedError:
        raise
    except OSError as e:
        raise RefusedError(_because(e)) from None


def _because(e):
    return '%s: %s' % (e.filename, e.strerror) if e.filename is not None else e.strerror or str(e)


# ---------------------------------------------------------------------------- the platforms
#
# What a platform does; it raises ValueError and OSError only, and knows nothing of names, files or options.
#   option, largest_id    the option of the stanza that it applies; the largest user or group id
#   parse(text)           the fields that the option's text sets; ValueError(message, offset)
#   powerful(fields)      the names in them that amount to root
#   read()                the fields of a State
#   look(pid)             [(thread, its fields)] of a process; of a thread but the first its number and name
#   around()              fields of this process that one to be audited must have in common with it
#   names(set)            a set as names
#   rights(state)         {'user', 'group', 'groups', 'chroot'} that this State gives the right to change
#   right, denied         what they need, and what else may stand against changing groups
#   goal(want, exec, no_new_privs)         the fields that a drop must end in, as far as the process does not matter
#   fit(goal, found, want, exec, whole)    settle the rest, in goal, a State; (refusals, warnings), where what is false
#                         does not count; whole: root keeps everything
#   waived                the warning where no_new_privs is not wanted
#   setgroups, chroot, setgid, setuid      the calls that change the ids
#   before, after         the steps around them, for (found, goal, whole)
#   regain(found, goal)   steps that must fail afterwards
#   hold(), release()     around a drop: tasks, a descriptor that reading back needs
#   writable()            does descriptor 2 take a line without blocking?
# A step is (its text, the function, its arguments...); the text shows the arguments: text.format(*arguments).

PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_GET_KEEPCAPS, PR_SET_KEEPCAPS = 3, 4, 7, 8         # linux/prctl.h
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_GET_SECUREBITS, PR_SET_SECUREBITS = 23, 24, 27, 28
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 38, 39, 47
PR_CAP_AMBIENT_IS_SET, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 1, 2, 4
SECBIT_NOROOT, SECBIT_NOROOT_LOCKED, SECBIT_KEEP_CAPS, SECBIT_KEEP_CAPS_LOCKED = 1, 2, 16, 32   # linux/securebits.h
SECBIT_NO_CAP_AMBIENT_RAISE = 64
# chown dac_override dac_read_search fowner setgid setuid setpcap sys_module sys_rawio sys_chroot sys_ptrace sys_admin
# sys_boot mknod setfcap mac_override mac_admin perfmon bpf
ROOT_EQUIVALENT = sum(1 << n for n in (0, 1, 2, 3, 6, 7, 8, 16, 17, 18, 19, 21, 22, 27, 31, 32, 33, 38, 39))
# cap_copy_ext(3): this, a length n, and n bytes of each set, effective, permitted, inheritable in turn, low bits first
CAP_EXT_MAGIC = b'\x90\xc2\x01\x51'                                    # libcap's cap_extint.c
CLONE_VM = 0x100                                                        # linux/sched.h
POLLOUT = 0x40004               # asm/poll.h: events and revents, in either order of bytes
IO_URING_ENTER, IORING_ENTER_REGISTERED_RING = 426, 16                  # asm/unistd.h, linux/io_uring.h
IO_URING = 'anon_inode:[io_uring]'                                      # its name in /proc

# C functions, of libc and libcap: name, what it returns, what it takes: int, unsigned Int, unsigned Long, Pointer.
# -1 or NULL raises OSError with errno and the name; of raw_NAME that is for the caller to judge.  raw_prctl is passed
# numbers made once, and needs half the time.
FUNCTIONS = ('prctl i iLLLL', 'capget i PP', 'setfsuid I I', 'setfsgid I I', 'poll i PLi', 'raw_prctl i',
             'raw_syscall i LLLLLLL', 'raw_unshare i i', 'cap_free i P', 'cap_from_text P P', 'cap_to_name P i',
             'cap_copy_ext i PPL', 'cap_copy_int P P', 'cap_set_proc i P')


class CapSet(int):
    """A capability set: bit n is capability n (capabilities(7)).  Iterates over and prints as the names."""

    def __iter__(self):
        return (_platform().name(n) for n in range(self.bit_length()) if self >> n & 1)

    def __str__(self):
        missing = CapSet(_platform().every & ~self)
        return ' '.join(self) or 'none' if bin(missing).count('1') > 16 else ' but '.join(
            filter(None, ['all', ' '.join(missing)]))


CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SYS_CHROOT = (CapSet(1 << n) for n in (6, 7, 8, 18))      # linux/capability.h


def _contents(path):
    fd = os.open(path, os.O_RDONLY)         # open() costs four times as much
    try:
        return b''.join(iter(lambda: os.read(fd, 65536), b'')).decode('utf-8', 'replace').strip()
    finally:
        os.close(fd)


class Linux:
    """Capabilities: capabilities(7), prctl(2), capget(2), cap_from_text(3), cap_get_proc(3)."""

    option = 'capabilities'
    largest_id = 4294967294             # 4294967295 is -1, "leave unchanged": setresuid(2)
    right = {'user': CAP_SETUID, 'group': CAP_SETGID, 'groups': CAP_SETGID, 'chroot': CAP_SYS_CHROOT}
    denied = ', or /proc/self/setgroups says deny'      # user_namespaces(7)
    waived = 'no_new_privs is waived: setuid and file-capability programs can raise privileges'
    tasks = None

    def __init__(self):
        try:
            # What ctypes is made of: the rest of it takes longer to import than a drop takes.
            from _ctypes import (CFuncPtr, FUNCFLAG_CDECL, FUNCFLAG_PYTHONAPI, FUNCFLAG_USE_ERRNO, _SimpleCData,
                                 dlopen, dlsym, get_errno)
            # By soname: find_library runs programs as root.  What libcap needs, the C library, is searched as well.
            library = dlopen('libcap.so.2', 0)
        except ImportError as e:
            raise OSError(errno.ENOSYS, 'this Python cannot load the C library: %s' % e) from None
        except OSError as e:
            raise OSError(errno.ENOENT, 'libcap.so.2 cannot be loaded: install it (Debian: libcap2, Fedora: libcap, '
                          'Alpine: libcap2 or libcap, Buildroot: BR2_PACKAGE_LIBCAP) (%s)' % e) from None
        kinds = {code: type(code, (_SimpleCData,), {'_type_': code}) for code in 'iILzP'}
        function_type = type('Function', (CFuncPtr,), {         # PYTHONAPI: no other thread runs during a call
            '_flags_': FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO | FUNCFLAG_PYTHONAPI})
        self.errno = get_errno

        def check(result, function, args):
            if result in (None, -1):                            # the result first: errno may be stale
                raise OSError(get_errno(), os.strerror(get_errno()), function.name)
            return result

        for row in FUNCTIONS:
            attribute, result, *args = row.split()
            name = attribute.replace('raw_', '')
            try:
                function = function_type(dlsym(library, name))
            except OSError:
                raise OSError(errno.ENOSYS, 'the C library, or libcap, has no %s' % name) from None
            function.restype, function.name = kinds[result], name
            function.argtypes = [kinds[code] for code in ''.join(args)]
            if name == attribute:
                function.errcheck = check
            setattr(self, attribute, function)
        self.setgroups, self.chroot, self.text, self.words = os.setgroups, os.chroot, kinds['z'], kinds['I'] * 16
        self.numbers = list(map(kinds['L'], range(65)))
        count = 65 - list(map(self.raw_prctl, [PR_CAPBSET_READ] * 65, self.numbers)).count(-1)
        del self.numbers[count:64]
        self.bits([PR_CAPBSET_READ] * 65, self.numbers)
        self.every = CapSet(2 ** count - 1)

    def setgid(self, gid):
        return 'setresgid({}, {}, {})', os.setresgid, gid, gid, gid

    def setuid(self, uid):
        return 'setresuid({}, {}, {})', os.setresuid, uid, uid, uid

    def writable(self):
        pollfd = self.words(2, POLLOUT)
        return self.poll(pollfd, 1, 0) and pollfd[1] == POLLOUT

    # sets: effective, permitted, inheritable

    def name(self, n):
        pointer = self.cap_to_name(n)
        name = self.text(pointer).value.decode()
        self.cap_free(pointer)
        return name

    def set_step(self, *sets):
        """The step that makes these the process's sets; its cap_t is kept for as long as the process lives."""
        rows = zip(*(mask.to_bytes(8, 'little') for mask in sets))
        cap = self.cap_copy_int(CAP_EXT_MAGIC + b'\x08' + b''.join(map(bytes, rows)))
        return ('cap_set_proc: permitted {1}; effective {0}; inheritable {2}', lambda *_: self.cap_set_proc(cap), *sets)

    def parse(self, text):
        cap = _quietly(self.cap_from_text, text.encode('ascii'))
        if cap is None:
            offset = 0
            for clause in text.split():
                offset = text.index(clause, offset)
                if not self.takes(clause):
                    raise ValueError(self.meant(clause), offset)
                offset += len(clause)
            raise ValueError('cap_from_text(3) does not take it', 0)
        buffer = self.words()
        size = self.cap_copy_ext(buffer, cap, 64)
        self.cap_free(cap)
        raw = bytes(buffer)
        if raw[:4] != CAP_EXT_MAGIC or size != 5 + 3 * raw[4]:
            raise _untrue('this libcap writes sets in another form', 'cap_copy_ext')
        effective, permitted, inheritable = (CapSet(int.from_bytes(raw[i::3], 'little')) for i in (5, 6, 7))
        unknown = CapSet((permitted | effective | inheritable) & ~self.every)
        if unknown:
            last = self.every.bit_length() - 1
            raise ValueError('this kernel has no capability %s; its last is %d, %s' % (
                ' '.join(unknown), last, self.name(last)), 0)
        if effective & ~permitted:
            raise ValueError('%s cannot be effective without being permitted: add p' % CapSet(
                effective & ~permitted), 0)
        return {'permitted': permitted, 'effective': effective, 'inheritable': inheritable}

    def takes(self, text):
        cap = _quietly(self.cap_from_text, text.encode('ascii'))
        return cap is not None and self.cap_free(cap) == 0

    def meant(self, clause):
        """What is wrong with a clause that cap_from_text refuses."""
        known = list(self.every)
        head = clause.lower().replace('+', '=').replace('-', '=').partition('=')[0]
        flags = clause[len(head):].lower()
        names = [word if word == 'all' or word.startswith('cap_') else 'cap_' + word
                 for word in head.split(',') if word]
        guess = (','.join(_nearest(word, known) or word for word in names) or 'cap_...') + (flags or '+ep')
        return '"%s" is not a clause of cap_from_text(3)%s%s' % (
            clause, '' if flags else ': it has no flags, such as +ep',
            ' (did you mean "%s"?)' % guess if self.takes(guess) or not names else '')

    def powerful(self, fields):
        return CapSet((fields['permitted'] | fields['inheritable']) & ROOT_EQUIVALENT)

    # reading

    def threads(self):
        """How many threads there are: the largest answer of those that can tell, 0 if none can.  What shares the memory
        counts, be it no thread: unshare(CLONE_VM) fails for both, and otherwise does nothing."""
        told = 1 if self.raw_unshare(CLONE_VM) == 0 else 2 if self.errno() == errno.EINVAL else 0       # unshare(2)
        links = _quietly(os.stat, '/proc/self/task' if self.tasks is None else self.tasks)
        return max(told, links.st_nlink - 2 if links else 0)    # . and .. and one directory a task

    def bits(self, *columns):
        """The set that prctl tells, asked for each bit and last for 64, which is no capability anywhere; columns: its
        arguments.  None where the kernel has no such set."""
        *bits, beyond = map(self.raw_prctl, *columns)
        if beyond == -1 and self.errno() == errno.EINVAL:
            if bits and set(bits) <= {0, 1}:
                return CapSet(sum(map(int.__lshift__, bits, range(64))))
            if set(bits) == {-1}:
                return None
        raise _untrue('does not answer as the kernel does (%s)' % os.strerror(self.errno()), 'prctl')

    def read(self):
        data = self.words(*[0xa5a5a5a5] * 6)    # a call that lies leaves it so; low words of three sets, then high ones
        self.capget(self.words(0x20080522), data)       # _LINUX_CAPABILITY_VERSION_3; 0, this thread
        effective, permitted, inheritable = (CapSet(data[i] | data[i + 3] << 32) for i in range(3))
        if (effective | permitted | inheritable) & ~self.every:
            raise _untrue('did not fill its buffer', 'capget')
        get = lambda option: self.raw_prctl(option, *self.numbers[:1] * 4)
        zeros, is_set = ([self.numbers[n]] * 65 for n in (0, PR_CAP_AMBIENT_IS_SET))
        bounding = self.bits([PR_CAPBSET_READ] * 65, self.numbers)
        ambient = self.bits([PR_CAP_AMBIENT] * 65, is_set, self.numbers, zeros, zeros)
        self.has_ambient = ambient is not None          # Linux 4.3
        state = {
            'uid': os.getresuid() + (self.setfsuid(-1),), 'gid': os.getresgid() + (self.setfsgid(-1),),
            'groups': tuple(sorted(set(os.getgroups()))), 'permitted': permitted, 'effective': effective,
            'inheritable': inheritable, 'ambient': ambient or CapSet(), 'bounding': bounding,
            'securebits': get(PR_GET_SECUREBITS), 'keepcaps': get(PR_GET_KEEPCAPS),
            'no_new_privs': get(PR_GET_NO_NEW_PRIVS), 'threads': self.threads(), 'root': _identity('/')}
        for name, value in state.items():
            if value in (None, -1):
                raise OSError(errno.ENOSYS, 'this kernel has no %s, which capdrop needs' % name)
        return state

    names = set

    def around(self):
        return self.places(None, '/proc/self/')

    def look(self, pid):
        tasks = os.open('/proc/%d/task' % pid, os.O_DIRECTORY)      # also if the number goes to another
        known = {}
        try:
            for _ in range(200):                # until every thread that is listed can be read: one might hide
                found = {number: self.task(tasks, number, known) for number in sorted(
                    map(int, os.listdir(tasks)), key=lambda number: (number != pid, number))}
                if os.fstat(tasks).st_nlink - 2 == len(found) and None not in found.values() and (
                        {} not in found.values() or set(found) == set(map(int, os.listdir(tasks)))):
                    break                       # a zombie may have left its rights to one that was not listed yet
            else:
                raise OSError(errno.EAGAIN, 'starts and ends threads too fast to look at them', 'process %d' % pid)
        finally:
            os.close(tasks)
        alive = [('%d (%s)' % (number, _printable(fields['command'])), fields)
                 for number, fields in found.items() if fields]
        if not alive:
            raise ProcessLookupError
        return alive

    def task(self, tasks, number, known):
        """From proc(5): a thread's fields, none of a zombie, None if it has ended; not securebits and keepcaps."""
        try:
            with open(os.open('%d/status' % number, os.O_RDONLY, dir_fd=tasks), 'rb') as file:
                lines = dict(line.decode('utf-8', 'backslashreplace').rstrip('\n').split(':\t', 1)
                             for line in file if b':\t' in line)
            if lines['State'][0] in 'ZX':
                return {}
            fields = {name: tuple(map(int, lines[name.capitalize()].split())) for name in ('uid', 'gid', 'groups')}
            fields['groups'] = known.setdefault(fields['groups'], fields['groups'])     # there may be 65536 of them
            for name, key in dict(permitted='CapPrm', effective='CapEff', inheritable='CapInh', ambient='CapAmb',
                                  bounding='CapBnd', no_new_privs='NoNewPrivs', threads='Threads').items():
                if key in lines:                # older kernels do not tell them all
                    fields[name] = CapSet(lines[key], 16) if key.startswith('Cap') else int(lines[key])
            return dict(fields, command=lines['Name'], **self.places(tasks, '%d/' % number))
        except (FileNotFoundError, ProcessLookupError):
            return None

    @staticmethod
    def places(directory, where):
        """The root directory and the namespaces, if the kernel has them; they need the right to trace the process."""
        found = {}
        try:
            for name, link in ('user_ns', 'ns/user'), ('mnt_ns', 'ns/mnt'), ('root', 'root'):
                try:
                    found[name] = _identity(where + link, dir_fd=directory)
                except FileNotFoundError:
                    pass                        # no such namespaces; without a root directory the next call fails, too
            root = os.readlink((where + 'root').encode(), dir_fd=directory)
            found['root_path'] = root.decode('utf-8', 'backslashreplace')
            here = os.open(where + 'cwd', os.O_PATH, dir_fd=directory)      # it may change meanwhile
            try:
                above, path = (text.rstrip(b'/') + b'/' for text in (root, os.readlink(b'/proc/self/fd/%d' % here)))
                up = './' + '../' * path[len(above):].count(b'/')   # there the root has to be, nothing mounted over it
                found['cwd_outside'] = int(not (path.startswith(above) and _identity(up, dir_fd=here) == found['root']))
            except OSError as e:
                if e.errno != errno.ENAMETOOLONG:
                    raise
                found['cwd_outside'] = 1        # deeper than can be told
            finally:
                os.close(here)
        except PermissionError:
            os.stat(where + 'status', dir_fd=directory)         # or it has ended: that looks the same
        return found

    # the goal, and whether this process can reach it

    def rights(self, state):
        return {what for what, cap in self.right.items()
                if state.permitted & cap and not (what == 'groups' and self.deny)}

    def goal(self, want, exec, no_new_privs):
        goal = dict(want or dict.fromkeys(('permitted', 'effective', 'inheritable'), CapSet()), keepcaps=0)
        goal['ambient'] = goal['permitted'] if exec else CapSet()
        goal['inheritable'] = CapSet(goal['inheritable'] | goal['ambient'])
        if no_new_privs:
            goal.update(no_new_privs=1, bounding=CapSet(goal['permitted'] | goal['inheritable']))
        return goal

    def fit(self, goal, found, want, exec, whole):
        root = 0 in goal.uid
        setpcap = found.permitted & CAP_SETPCAP
        kept = CapSet(found.bounding & goal.bounding)
        goal.bounding = kept if setpcap else found.bounding
        warnings = [
            goal.bounding != kept and
            'the bounding set stays as it is, without cap_setpcap; no_new_privs holds all the same',
            self.tasks is None and 'io_uring descriptors cannot be looked for: /proc is not mounted',
        ]
        threads = found.threads != 1 and self.several(found.threads)
        if whole:
            return [threads], warnings
        goal.securebits = found.securebits & ~SECBIT_KEEP_CAPS | root * (SECBIT_NOROOT | SECBIT_NOROOT_LOCKED)
        ambient = goal.ambient
        missing = CapSet(goal.permitted & ~found.permitted)
        unbound = CapSet(missing & ~found.bounding)
        beyond = CapSet(goal.inheritable & ~missing & ~found.inheritable & ~(found.bounding & found.permitted))
        passive = CapSet(ambient & ~goal.effective)
        return [
            threads,
            [n for n in range(16)
             if self.raw_syscall(IO_URING_ENTER, n, 0, 0, IORING_ENTER_REGISTERED_RING, 0, 0) == 0 or
             self.errno() == errno.EBADFD] and          # one that is not enabled yet
            'an io_uring is registered without a descriptor: its requests keep the rights of now',
            not exec and IO_URING in (_quietly(_contents, '/proc/self/maps') or '') and       # exec ends it
            'an io_uring is mapped without a descriptor: its requests keep the rights of now: unmap it',
            missing and '%s: not in this process\'s permitted set%s' % (
                missing, '; its bounding set lacks %s: the container or VM was started without it' % unbound
                if unbound else '; start it as root, or with this capability'),
            beyond and '%s: not in the bounding set, so cannot be made inheritable' % beyond,
            passive and '%s: permitted but not effective, which cannot survive exec; write +ep' % passive,
            ambient and not self.has_ambient and
            'this kernel has no ambient capabilities: the command could not keep any',
            ambient & ~found.ambient and found.securebits & SECBIT_NO_CAP_AMBIENT_RAISE and
            'SECBIT_NO_CAP_AMBIENT_RAISE is set: the command could not keep %s' % ambient,
            found.securebits & SECBIT_KEEP_CAPS_LOCKED and (found.keepcaps or self.keep(found, goal)) and
            'SECBIT_KEEP_CAPS is locked, and the plan has to change it',
            root and goal.securebits & ~found.securebits and
            (not setpcap or found.securebits & SECBIT_NOROOT_LOCKED) and
            'user is root with exclusive capabilities: that needs SECBIT_NOROOT, locked, and so cap_setpcap',
        ], warnings

    def several(self, count):
        tasks = sorted(_quietly(os.listdir, '/proc/self/task') or (), key=int)
        if count and len(tasks) == 1:
            return 'another process shares the memory of this one (CLONE_VM) and would keep its rights: end it'
        names = ['%s %s' % (task, _quietly(_contents, '/proc/self/task/%s/comm' % task)) for task in tasks]
        return ('more than one thread (%s): capabilities are per thread and the others would keep theirs; drop before '
                'starting threads' % (_printable(', '.join(names)) or 'no /proc to list them') if count else
                'cannot tell whether this process has one thread: unshare(2) is blocked and /proc is not mounted')

    @staticmethod
    def keep(found, goal):
        """Must capabilities be kept over the change of user?"""
        return (goal.permitted | goal.inheritable) and 0 not in goal.uid and 0 in found.uid

    # steps

    def before(self, found, goal, whole):
        needed = found.permitted & (CAP_SETUID | CAP_SETGID | CAP_SETPCAP | CAP_SYS_CHROOT)
        drops = CapSet(found.bounding & ~goal.bounding)
        raised = needed & ~found.effective and self.set_step(
            CapSet(found.effective | needed), found.permitted, found.inheritable)
        return [raised] if whole else [
            raised,
            self.has_ambient and ('prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)', self.prctl,
                                  PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
            self.keep(found, goal) and ('prctl(PR_SET_KEEPCAPS, {1})', self.prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0),
            drops and ('prctl(PR_CAPBSET_DROP, each of {0})', self.each, drops, PR_CAPBSET_DROP),
            goal.securebits & ~found.securebits and ('prctl(PR_SET_SECUREBITS, {1:#x})', self.prctl,
                                                        PR_SET_SECUREBITS, goal.securebits, 0, 0, 0),
            0 in goal.uid and ('prctl(PR_SET_DUMPABLE, 0)', self.undump),
        ]

    def after(self, found, goal, whole):
        last = self.set_step(goal.effective, goal.permitted, goal.inheritable)
        ambient = goal.ambient
        return [last] if whole else [
            (found.keepcaps or self.keep(found, goal)) and
            ('prctl(PR_SET_KEEPCAPS, {1})', self.prctl, PR_SET_KEEPCAPS, 0, 0, 0, 0),
            last,
            ambient and ('prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, each of {0})', self.each, ambient,
                         PR_CAP_AMBIENT, self.numbers[PR_CAP_AMBIENT_RAISE]),
            goal.no_new_privs and ('prctl(PR_SET_NO_NEW_PRIVS, {1})', self.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        ]

    def each(self, bits, *args):
        zeros = self.numbers[:1] * (4 - len(args))
        for n in self.numbers[:-1]:
            if bits >> n.value & 1 and self.raw_prctl(*args, n, *zeros):
                raise OSError(self.errno(), os.strerror(self.errno()), 'prctl')

    def undump(self):
        self.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        if self.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0):     # not of a State: every change of ids resets it
            raise _untrue('the process is still dumpable', 'prctl')

    def regain(self, found, goal):
        return [found.permitted & ~goal.permitted and self.set_step(found.permitted, found.permitted, CapSet())]

    def hold(self):
        self.deny = _quietly(_contents, '/proc/self/setgroups') == 'deny'       # user_namespaces(7)
        for _ in range(100):                    # a thread that was joined lives on for a moment in the kernel
            if self.threads() <= 1:
                break
            time.sleep(0.002)
        self.tasks = _quietly(os.open, '/proc/self/task', os.O_RDONLY | os.O_DIRECTORY)

    def release(self):
        tasks, self.tasks = self.tasks, None
        _close(tasks)


def _solaris():
    """The platform of SunOS, from the file beside this one, wherever the two were copied to."""
    from importlib.util import module_from_spec, spec_from_file_location
    path = os.path.abspath(os.path.join(__file__, '..', 'solaris_priv.py'))
    if not os.path.exists(path):
        raise OSError(errno.ENOENT, 'on SunOS solaris_priv.py is needed beside capdrop.py')
    spec = spec_from_file_location('solaris_priv', path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Solaris()


PLATFORMS = {'linux': Linux, 'sunos5': _solaris}
_loaded = []


def _platform():
    if not _loaded:
        if sys.platform not in PLATFORMS:
            raise RefusedError('capdrop drops on Linux and SunOS, not on %s' % sys.platform)
        _loaded.append(_refusing(PLATFORMS[sys.platform]))
    return _loaded[0]


# ---------------------------------------------------------------------------- Security -> Plan

class Plan:
    """What `drop` will do, and the State it must end in.  It holds no descriptor.

    security, exec, no_new_privs: as given; found, goal: State now and afterwards (goal None: it cannot be told);
    steps: what will be called, in order; attempts: what must fail afterwards; refusals: why it will not be done.
    """
    found: 'Optional[State]' = None
    goal: 'Optional[State]' = None
    steps: 'List[Tuple[Any, ...]]'
    attempts: 'List[Tuple[Any, ...]]'
    refusals: 'List[str]'
    user = default = uid = gid = groups = want = None     # what the name service says
    powerful, jail, quiet = (), None, True

    def __init__(self, security: Security, exec: bool, no_new_privs: bool) -> None:
        self.security, self.exec, self.no_new_privs = security, bool(exec), bool(no_new_privs)
        self.notes = list(security.notes)

    @property
    def warnings(self) -> 'List[str]':
        return [_at(place) + text for place, text in self.notes]

    def note(self, option, *texts):
        """Warnings, where there is a text."""
        self.notes += [(self.security.place(option), text) for text in texts if text]

    def close(self):
        """Let go of what was opened to look at this process."""
        jail, self.jail = self.jail, None
        _platform().release()
        _close(jail)

    def __str__(self):
        return '\n'.join(_plan_lines(self))


def plan(security: Security, exec: bool = False, no_new_privs: bool = True) -> Plan:
    """What drop (exec=True: launch) would do with `security` in this process.  Changes nothing, needs no rights.

    Raises ConfigError for values that nothing can be done with; what else stands against it is in refusals.
    """
    p = _refusing(_goal, security, exec, no_new_privs)
    try:
        _platform().hold()
        _refusing(_fit, p)
    finally:
        p.close()
    return p


def _raise(error):
    raise error from None


def _goal(security, exec, no_new_privs, refuse=_raise):
    """A Plan with what the stanza and the name service say; looks at no process.  refuse(e) for each ConfigError.

    user is the account (a passwd entry) that is named, default that of who names none, or None; uid, gid and groups are
    None where the account or the process decides.
    """
    from grp import getgrgid, getgrnam
    from pwd import getpwnam, getpwuid
    p = Plan(security, exec, no_new_privs)
    platform = _platform()
    option = platform.option
    text = getattr(security, option)

    def look_up(option, text, by_name=getgrnam, by_number=getgrgid):
        """(the id, its entry or None) of a name or, if there is none of that name, a number."""
        entry = _quietly(by_name, os.fsdecode(text.encode('utf-8')))
        number = entry[2] if entry else int(text) if set(text) <= set('0123456789') else None
        if number is None or not 0 <= number <= platform.largest_id:
            refuse(security.error(option, 'there is no account or group %s' if number is None else
                                  '%%s is not an id from 0 to %d' % platform.largest_id, text))
            return None, None
        return number, entry or _quietly(by_number, number)

    if security.user is not None:
        p.uid, p.user = look_up('user', security.user, getpwnam, getpwuid)
    else:
        p.default = _quietly(getpwnam, DEFAULT_USER)        # it may not be needed
    if security.group is not None:
        p.gid = look_up('group', security.group)[0]
    elif p.uid is not None and p.user is None:
        refuse(security.error('user', '%s has no account, so no primary group: name a group', security.user))
    if security.supplemental_groups is not None:
        names = set(security.supplemental_groups)
        if len(names) > 8:                      # which every system takes; to ask for the limit opens a file
            most = os.sysconf('SC_NGROUPS_MAX')
            if len(names) > most:               # before they are all looked up
                raise RefusedError('%d supplementary groups: this system takes %d' % (len(names), most))
        p.groups = tuple(sorted({look_up('supplemental_groups', name)[0] for name in names} - {None}))
    if text is not None:
        try:
            p.want = platform.parse(text)
            p.powerful = tuple(platform.powerful(p.want))
        except ValueError as e:
            private = security.place(option)[0] in security.private
            message, offset = e.args
            refuse(security.error(option, 'not a value for it' if private else message, offset=offset))
    return p


def _aim(p, held, default):
    """The fields to end in for a process in the State `held`; default: a user that is not named is p.default."""
    p.account = user = p.user or default and p.default
    uid = p.uid if p.uid is not None else user.pw_uid if user else held.uid[1]
    gid = p.gid if p.gid is not None else user.pw_gid if user else held.gid[1]
    p.whole = uid == 0 and p.want is None         # documented: to run as root, leave the option out
    sets = {} if p.whole else _platform().goal(p.want, p.exec, p.no_new_privs)
    return dict(sets, uid=(uid,) * len(held.uid), gid=(gid,) * len(held.gid), groups=p.groups or ())


def _fit(p):
    """Hold the goal against this process: found, goal, steps, attempts, and why not: refusals."""
    platform, security = _platform(), p.security
    p.refusals, p.notes, p.steps, p.attempts = [], list(security.notes), [], []
    refuse = p.refusals.append
    found = p.found = State(platform.read())
    rights = platform.rights(found)
    lacks = lambda what: '%s is not in this process\'s permitted set' % platform.right[what]

    # the ids
    if p.uid is None:
        if 'user' not in rights:
            if 0 in found.uid:
                refuse('no user is named, and this process is root without the right to change that: %s' %
                       lacks('user'))
        elif p.default is None:
            refuse(NO_USER)
            return
    goal = p.goal = State(dict(found.fields(), **_aim(p, found, 'user' in rights)))
    gid = goal.gid[0]
    for what, new, old in (('user', goal.uid[0], found.uid), ('group', gid, found.gid)):
        if new not in old[:2] and what not in rights:
            refuse('cannot change %s to %d: %s' % (what, new, lacks(what)))
    if p.groups is not None:
        if 'groups' not in rights and (set(goal.groups) ^ set(found.groups)) - {gid}:
            refuse('cannot change the supplementary groups, %s, to %s: %s%s' % (
                _show(found.groups), _show(goal.groups), lacks('groups'), platform.denied))
    elif 'groups' in rights:
        others = _groups_of(p.account) - {gid}
        p.note('user', others and 'without supplemental_groups it is not in the groups of %s: %s' % (
            p.account.pw_name, _show(others)))
    else:
        goal.groups = found.groups
        p.note('user', set(goal.groups) - {gid} and 'the supplementary groups stay as they are, %s: %s' % (
            _show(goal.groups), lacks('groups')))

    # the sets, the descriptors, the root directory
    refusals, warnings = platform.fit(goal, found, p.want, p.exec, p.whole)
    p.refusals += filter(None, refusals)
    _descriptors(p, refuse)
    p.note(platform.option, *warnings, not p.no_new_privs and not p.whole and platform.waived)
    if security.chroot is not None:
        if 'chroot' not in rights:
            refuse('cannot change the root directory: %s' % lacks('chroot'))
        try:
            p.jail = _open_jail(os.fsdecode(security.chroot.encode('utf-8')))
            goal.root = _identity(p.jail)
            p.note('chroot', not _may_enter(security.chroot, goal) and
                   'user %d cannot enter the directory that is to be its root' % goal.uid[0])
        except OSError as e:
            refuse('chroot: %s' % _because(e))

    if rights or 0 in found.uid:
        _distrust(p, refuse)
    _warn(p)
    if goal != found or p.jail is not None:     # not already held
        p.steps = _steps(p, 'groups' in rights)
        p.attempts = _attempts(found, goal)


def _steps(p, may_set_groups):
    """The order of the drop, written here and in the platform's before and after, and nowhere else."""
    platform, goal, jail = _platform(), p.goal, p.jail is not None
    return [row for row in platform.before(p.found, goal, p.whole) + [
        may_set_groups and ('setgroups({})', platform.setgroups, list(goal.groups)),
        jail and ('fchdir(descriptor of the root to be)', os.fchdir, p.jail),
        jail and ('chroot("{}")', platform.chroot, '.'),
        jail and ('chdir("{}")', os.chdir, '/'),
        jail and ('stat("/"), stat("."): device and inode {}', _at_root, goal.root),
        platform.setgid(goal.gid[0]),        # before setuid takes the right away
        platform.setuid(goal.uid[0]),
    ] + platform.after(p.found, goal, p.whole) if row]


def _attempts(found, goal):
    """What must fail afterwards; not made where a retained right would allow it, or nothing is to be regained."""
    platform = _platform()
    kept, gids = platform.rights(goal), set(goal.gid)
    rows = [platform.setuid(old) for old in sorted(set(found.uid) - set(goal.uid))
            if 'user' not in kept and 0 not in goal.uid]
    if 'group' not in kept:
        rows += [platform.setgid(old) for old in sorted(set(found.gid) - gids)]
        if (set(found.groups) ^ set(goal.groups)) - gids:
            rows.append(('setgroups({})', platform.setgroups, list(found.groups)))
    return [row for row in rows + platform.regain(found, goal) if row]


def _open_jail(path):
    """A descriptor of a directory that only root can replace or write."""
    if '..' in path.split('/'):
        raise OSError(errno.EINVAL, 'write it without ..', path)
    for component, kind, number in list(_writers(_components(path))):
        raise OSError(errno.EPERM, 'only root may be able to write or replace it, not %s' % _who(kind, number),
                      component)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    return os.open(path, getattr(os, 'O_PATH', os.O_RDONLY) | os.O_NOFOLLOW)


def _at_root(identity):
    for path in '/', '.':
        if _identity(path) != identity:
            raise _untrue('not the directory that was opened', path)


def _descriptors(p, refuse):
    """Refuse open descriptors that stand against the drop: what was opened keeps the rights of its opener."""
    names, tasks = _quietly(os.listdir, '/proc/self/fd'), _platform().tasks
    jailed = p.security.chroot is not None
    for fd in map(int, names) if names is not None else range(min(os.sysconf('SC_OPEN_MAX'), 1 << 20) * jailed):
        st = _quietly(os.fstat, fd) if fd != tasks else None        # or it is the listing's own, closed again
        kind = st and stat.S_IFMT(st.st_mode)
        path = _quietly(os.readlink, '/proc/self/fd/%d' % fd) if kind in (0, stat.S_IFREG, stat.S_IFDIR) else ''
        if path == IO_URING:                    # of no type today
            refuse('descriptor %d is an io_uring, whose requests keep the rights of now: close it' % fd)
        elif kind == stat.S_IFDIR and jailed:
            refuse('descriptor %d is a directory, a way out of the chroot: close it (%s)' % (
                fd, _printable(path or 'unknown')))


def _may_enter(path, goal):
    st = _quietly(os.stat, path)
    return 0 in goal.uid or st and st.st_mode >> (
        6 if st.st_uid in goal.uid else 3 if st.st_gid in goal.gid + goal.groups else 0) & 1


def _groups_of(user):
    return set(os.getgrouplist(user.pw_name, user.pw_gid)) if user else set()


def _has_own_group(user):
    """Is the primary group of an account his alone: of his name, without other members?"""
    import grp
    import pwd
    group = _quietly(grp.getgrgid, user.pw_gid)
    return group and group[0] == user.pw_name and not set(group[3]) - {user.pw_name} and not [
        1 for one in pwd.getpwall() if one.pw_gid == group[2] and one.pw_uid != user.pw_uid]


def _distrust(p, refuse):
    """Refuse a configuration that could be rewritten by someone who must not decide what root does."""
    security, goal, user, told = p.security, p.goal, p.account, set()
    everyone = {one[1:] for writers in security.writers.values() for one in writers}
    if not everyone:
        return
    himself, groups = [('user', goal.uid[0])], _groups_of(user)
    if user and ('group', user.pw_gid) in everyone and _has_own_group(user):
        himself.append(('group', user.pw_gid))
    gives = {'group': set(goal.gid) - groups, 'supplemental_groups': set(goal.groups) - groups,
             _platform().option: p.powerful}
    for file, writers in security.writers.items():      # also one that says nothing, or no longer: that decides as well
        for component, kind, number in [one for one in writers if one[1:] not in himself][:1]:
            told.add(file)
            refuse('%s can be rewritten by %s, through %s: only root, or the user it names, may be able to' % (
                _printable(file), _who(kind, number), _printable(component)))
    his = lambda place: security.writers.get(place[0])
    for option, places in [(option, security.where.get(option)) for option in OPTIONS] + [
            ('Local_Changes_File', security.local)]:
        if not places:
            continue
        *earlier, place = places
        file = place[0]
        if his(place) and file not in told:
            told.add(file)
            p.note(option, '%s can be rewritten by the user it names: it may not grant what amounts to root' %
                   _printable(file))
        for other in [other for other in earlier if his(place) and not his(other)][:1]:
            refuse('%s%s overrides %s, and can be rewritten by the user it names: what root says he may not change' % (
                _at(place), option, _at(other)[:-2]))
        more = gives.get(option)
        chosen = option if his(place) else 'user'       # who can write that gets what was meant for another
        if more and his(security.place(chosen)):
            refuse('%s%s can be rewritten by the user it names, who could thus give himself %s' % (
                _at(security.place(chosen)), chosen, _show(more)))


def _warn(p):
    """What is allowed and yet worth a line."""
    goal, option, user = p.goal, _platform().option, p.account
    uid = goal.uid[0]
    children = _quietly(lambda: [os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)])     # or ECHILD
    library = os.path.realpath(os.__file__) if not p.exec and p.security.chroot is None else ''
    closed = [path for path in _components(library)[1:-1] if not _may_enter(path, goal)]
    p.note('user', p.whole and 'user is root and %s is absent: root keeps everything' % option,
           uid == 0 and not p.whole and 'uid 0 still owns /etc and /proc/sys: this is not confinement')
    p.note('group', uid != 0 and 0 in goal.gid + goal.groups and
           'group 0 is root\'s own: what it may write stays writable')
    p.note(option, p.powerful and 'amounts to root: %s' % ' '.join(p.powerful))
    p.note('user',
           user and user.pw_name == 'nobody' and 'nobody is shared by many: any of its processes can trace the others',
           children and 'children already started keep what they have',
           closed and 'user %d cannot enter %s: importing modules later will fail' % (uid, _printable(closed[0])))


def _plan_lines(p):
    security = p.security
    for option in OPTIONS:
        value = getattr(security, option)
        places = security.where.get(option, ())
        shown = 'absent' if value is None else '"%s"' % value if isinstance(value, str) else '( %s )' % ' '.join(value)
        unused = option in ('capabilities', 'privileges') and option != _platform().option
        yield '%-20s %s%s%s' % (option, shown, ', not applied on this system' * unused, ''.join(
            ', %s %s' % (word, _at(place)[:-2]) for word, place in zip(('from', 'over', 'over'), places[::-1])))
    if p.goal is not None:
        yield 'steps:' if p.steps else 'steps: none, this is already held'
        for number, row in enumerate(p.steps, 1):
            yield '%4d  %s' % (number, _step_text(*row))
        yield '      then every field below is read back%s' % (', and these must fail:' if p.attempts else '')
        for row in p.attempts:
            yield '      %s' % _step_text(*row)
        yield 'ends as:\n' + str(p.goal)


def _step_text(text, call, *args):
    return text.format(*args)


# ---------------------------------------------------------------------------- Plan -> State

_held = []              # what the last drop was asked for, and the State that it left

def drop(security: 'Union[Security, Plan]', no_new_privs: bool = True, on_failure: str = 'exit') -> State:
    """Become what `security` (a Security or a Plan) names, for good, and return the State read back.

    Raises ConfigError or RefusedError with nothing changed.  Once the first step is made, anything that fails or
    reads back wrong writes one line to descriptor 2 and ends the process with status 125 (on_failure='raise':
    raises HalfDropped, a BaseException).  Call it before starting threads.  no_new_privs=False lets setuid and
    file-capability programs work afterwards.  credentials(7), capabilities(7), privileges(7).
    """
    asked = security if isinstance(security, Plan) else Plan(security, False, no_new_privs)
    key = [getattr(asked.security, option) for option in OPTIONS], asked.exec, asked.no_new_privs
    if _held and _held[0] == key and state() == _held[1]:
        return _held[1]                         # in a jail the names could not be looked up again
    p = security if asked is security else _refusing(_goal, security, False, no_new_privs)
    if p.security.chroot is not None:
        _preload()
    result = _drop(p, on_failure, False)
    _held[:] = key, result
    return result


def launch(security: 'Union[Security, Plan]', argv: 'Sequence[Union[str, bytes]]', no_new_privs: bool = True,
           env: 'Optional[Mapping[str, str]]' = None) -> 'NoReturn':
    """Drop and exec: does not return.  argv: the command, looked for on PATH (never in the current directory);
    env: its environment, default os.environ, with HOME, USER, LOGNAME and SHELL set when the user changes.

    Raises ConfigError or RefusedError with nothing changed; afterwards ends with 125, 126 or 127, or as the command.
    """
    p = security if isinstance(security, Plan) else _refusing(_goal, security, True, no_new_privs)
    argv = [os.fsencode(word) for word in argv]
    env = {os.fsencode(k): os.fsencode(v) for k, v in (os.environ if env is None else env).items() if k}
    if not p.exec or not argv or b'\0' in b''.join([*argv, *env, *env.values()]):
        raise ValueError('launch needs a plan(..., exec=True), a command, and no NUL in it or its environment')
    path = env.get(b'PATH', os.fsencode(os.defpath)).split(b':')
    search = [directory + b'/' for directory in path if directory.startswith(b'/')] if argv[0] else []
    _drop(p, 'exit', True)
    _exec(p, [b''] if b'/' in argv[0] else search, argv, env)


def _drop(p, on_failure, launching):
    """Drop with every signal blocked and garbage collection off: a handler or finalizer of the caller's that ran
    half-way would run with rights that are about to go.  Handlers that are due run first, here."""
    signals = getattr(_signal, 'valid_signals', lambda: range(1, _signal.NSIG))()      # new in Python 3.8
    collecting = gc.isenabled()
    mask = _refusing(_signal.pthread_sigmask, _signal.SIG_BLOCK, ())
    begun = half = False        # not p.steps: a Plan made earlier has them before it is sure that they will run
    try:
        state = _refusing(_ready, p, signals, launching)
        begun = bool(p.steps)
        if begun:
            _run_steps(p, on_failure)
        return state
    except HalfDropped:
        half = True             # a handler or finalizer could make an ordinary exception of it
        raise
    finally:
        try:
            (_quietly if begun else _refusing)(p.close)     # after a change nothing may say that nothing has changed
        finally:
            if not half:
                if collecting:
                    gc.enable()
                _unblock(mask, begun)


def _unblock(mask, begun):
    try:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    except OSError as e:
        if e.__traceback__.tb_next is not None or not begun:
            raise                               # not the call's own, but of a handler that was due
        _end('half-dropped and so ended: signals stay blocked: %s' % e.strerror)


def _ready(p, signals, launching):
    """Everything up to the first change; the State that the steps must end in."""
    _signal.pthread_sigmask(_signal.SIG_SETMASK, signals)
    gc.disable()
    caught = {number for number in signals if callable(_signal.getsignal(number))}
    if caught - set(_signal.pthread_sigmask(_signal.SIG_BLOCK, ())):
        raise RefusedError('signals cannot be blocked')
    earlier = p.found
    _platform().hold()
    _fit(p)
    changed = earlier and earlier.differences(p.found)
    if changed and p.steps:
        raise RefusedError('this process is no longer as the plan found it: %s changed' % ', '.join(
            row[0] for row in changed))
    if p.refusals:
        raise RefusedError(p.refusals[0] + '; restart the process to change its Security stanza' * bool(_held))
    for text in () if p.quiet else p.warnings:
        _say('warning: ' + text)
    state = State(p.goal.fields(), p.warnings)
    ignored = {_signal.SIGPIPE, _signal.SIGXFSZ}        # by Python, and exec would pass that on; handlers it ends
    for number in sorted(caught | ignored) if launching else ():
        if number in ignored:
            _signal.signal(number, _signal.SIG_IGN)     # forgets one that is due, from a warning nobody reads
        _signal.signal(number, _signal.SIG_DFL)
    return state


def _run_steps(p, on_failure):
    """The drop itself: from here on only system calls, and whatever goes wrong ends the process."""
    doing, args, over = '', (), False
    try:
        for doing, call, *args in p.steps:
            call(*args)
        doing, args = 'reading back', ()
        _read_back(p)
        for doing, call, *args in p.attempts:
            _must_fail(call, *args)
        doing, args = 'reading back after the attempts to regain', ()
        _read_back(p)
        p.close()
        over = True
    except BaseException as e:
        failure = 'half-dropped and so ended: %s: %s' % (
            doing.format(*args), e if not isinstance(e, OSError) else e.strerror if args else _because(e))
        if on_failure != 'raise':
            _end(failure)
        failure, over = HalfDropped(failure), True
        raise failure from None
    finally:
        if not over:            # no memory or stack is left to say why: that exception could pass for nothing changed
            os._exit(125)


def _must_fail(call, *args):
    try:
        call(*args)
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.EINVAL):     # not refused, but prevented: it proves nothing
            raise
    else:
        raise _untrue('succeeded, though it must fail now')


def _read_back(p):
    wrong = p.goal.differences(State(_platform().read()))
    if wrong:
        raise _untrue(', '.join(
            '%s is %s, not %s' % (name, _show(has), _show(wanted)) for name, wanted, has in wrong))


def _writable():
    import select
    return select.select((), (2,), (), 0)[1]


def _say(message):
    """One line on descriptor 2, if that takes it without blocking: POLLOUT says that a pipe has room for 4096 bytes."""
    if _quietly(_loaded[0].writable if _loaded else _writable):
        _quietly(os.write, 2, ('capdrop: %s' % message).encode('utf-8', 'backslashreplace')[:2999] + b'\n')


def _end(message, status=125):
    try:
        _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
        _say(message)
    finally:
        os._exit(status)


def _exec(p, directories, argv, env):
    """The command, or one line and 126 or 127.  os.execvp would import a module here."""
    why = errno.ENOENT
    try:
        if p.goal.uid[0] != p.found.uid[0]:
            user = p.account
            for name in b'LOGNAME', b'SHELL', b'USER':
                env.pop(name, None)
            env.update(zip((b'HOME', b'SHELL', b'USER', b'LOGNAME'), map(os.fsencode, (
                user.pw_dir, user.pw_shell or '/bin/sh', user.pw_name, user.pw_name) if user else '/')))
        for directory in directories:
            try:
                os.execve(directory + argv[0], argv, env)
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.ENOTDIR):
                    why = e.errno
                    if why != errno.EACCES:
                        break
    except BaseException:
        why = errno.EINVAL
    status = 127 if why == errno.ENOENT else 126
    try:
        _end('%s: %s%s' % (_printable(os.fsdecode(argv[0])), os.strerror(why), why == errno.EAGAIN and
                           ': RLIMIT_NPROC: user %d runs as many processes as it may' % p.goal.uid[0] or ''), status)
    finally:
        os._exit(status)


def _preload():
    """What a daemon needs later and could not load in a jail, or would load from it."""
    for name in ('_strptime encodings.ascii encodings.idna encodings.latin_1 encodings.punycode linecache locale '
                 'signal socket stringprep threading tokenize traceback unicodedata warnings').split():
        _quietly(__import__, name)
    for name in 'concurrent.futures.thread', 'multiprocessing.popen_fork':
        if name.rpartition('.')[0] in sys.modules:          # asyncio's executor, for one
            _quietly(__import__, name)
    _quietly('x'.encode, 'idna')                # importing is not enough: the codec registry remembers what it found
    _quietly('\xfc'.encode, 'punycode')
    time.tzset()
    os.strerror(errno.EPERM)
    if sys.version_info < (3, 9):               # pthread_exit loads it, and aborts without it
        _quietly(__import__('ctypes').CDLL, 'libgcc_s.so.1')    # musl has it built in


# ---------------------------------------------------------------------------- Security against a process

class Difference:
    """One thing that a process does not hold as asked: field, wanted and has, as in a State; mark ('more', 'less' or
    'more and less' than asked); thread: which and its name, '' for the whole process.  str() is one line."""
    thread: str
    field: str
    wanted: 'Any'
    has: 'Any'
    mark: str

    def __init__(self, **values):
        self.__dict__.update(values)

    def __str__(self):
        return '%s%s: wanted %s, has %s (%s than asked)' % (
            self.thread and 'thread %s: ' % self.thread, self.field, _show(self.wanted), _show(self.has), self.mark)


class Audit(list):
    """The differences (Difference) between what a process holds and what a Security asks; empty if there are none.

    pid, command, threads: which process; like: what it is nearest to, 'drop', 'launch' or 'drop or launch';
    unseen: what cannot be seen from outside.
    """
    if TYPE_CHECKING:
        pid: int
        command: str
        threads: int
        like: str
        unseen: 'List[str]'

        def __iter__(self) -> 'Iterator[Difference]': ...

    def __str__(self):
        return '\n'.join(map(str, self))


def audit(security: Security, pid: int, no_new_privs: bool = True) -> Audit:
    """Does process `pid`, every thread of it, hold what drop or launch would have left?  Returns an Audit.

    Raises ConfigError, and RefusedError where that cannot be told.  proc(5), capabilities(7), ucred_get(3C).
    """
    p, (first, others) = _refusing(_goal, security, False, no_new_privs), _refusing(_look, pid)
    tasks, around, audits = [('', first)] + others, _refusing(_platform().around), {}
    if any(set(around) - set(fields) for _, fields in tasks):
        raise RefusedError('process %d: its root directory and namespaces cannot be seen: run the audit as root, with '
                           'cap_sys_ptrace' % pid)
    if p.uid is None and p.default is None and 0 in first['uid']:
        raise RefusedError(NO_USER)
    unseen = [name for name in _refusing(_platform().read) if name not in first]
    elsewhere = first.get('mnt_ns') != around.get('mnt_ns')
    if elsewhere or security.chroot is not None:
        around.update((name, first[name]) for name in around if name != 'user_ns')  # which all of its threads share
    if security.chroot is not None:
        try:
            around['root'] = _identity(os.fsdecode(security.chroot.encode('utf-8')))
        except OSError as e:
            raise RefusedError('chroot: %s' % _because(e)) from None
    elif elsewhere:
        unseen.append('root (in another mount namespace)')
    for kind, p.exec in ('drop', False), ('launch', True):
        wanted = dict(around, **_aim(p, State(first), True))
        wanted['cwd_outside'] = None if security.chroot is None else 0      # chroot(2): it leads out
        if p.exec:
            wanted.pop('aware', None)           # execve(2) clears it on SunOS
            if wanted.get('permitted') != wanted.get('effective'):
                continue                        # no launch can leave that
        audits[kind] = Audit(_compared(p, around, wanted, tasks))
    best = min(audits.values(), key=len)
    vars(best).update(pid=pid, command=first.get('command', ''), threads=len(tasks), like=' or '.join(
        kind for kind in audits if len(audits[kind]) == len(best)), unseen=unseen)
    return best


def _compared(p, around, wanted, tasks):
    """The differences; of another thread those that the first one has not."""
    may_lack = 'bounding' if 'inheritable' in wanted else 'inheritable'     # what was lacking before stays so
    wanted.setdefault('inheritable', wanted.get('permitted'))
    for thread, fields in tasks:
        for name, has in fields.items():
            want = wanted.get(name)
            if (want in (None, has) or thread and has == tasks[0][1].get(name) or
                    name == 'root_path' and fields['root'] != wanted['root']):
                continue
            if type(want) is int:               # a flag; what it allows is asked for by none
                mark = 'more'
            elif name in around:                # it is that one or another
                mark = 'more and less'
            else:
                members = set if isinstance(want, tuple) else _platform().names
                holds, asked = members(has), members(want)
                primary = set(wanted['gid']) if name == 'groups' else set()
                more, less = holds - asked - primary, name != may_lack and asked - holds - primary
                mark = ' and '.join(['more'] * bool(more) + ['less'] * bool(less))
            if name == 'root' and 'root_path' in fields:
                want, has = (p.security.chroot or '/',) + want, (fields['root_path'],) + has
            if mark:
                yield Difference(thread=thread, field=name, wanted=want, has=has, mark=mark)


def _unusual(first, threads):
    """What is worth a second look in what `_look` found."""
    import pwd
    platform, uid, gid = _platform(), first['uid'][1], first['gid'][1]
    for what, ids in ('user', first['uid']), ('group', first['gid']):
        others = set(ids) - {ids[1]}
        if others:
            yield '%s ids are real, effective, saved%s: it can go back to %s %s' % (
                what, ', filesystem' * (len(ids) > 3), what, _show(others))
    if uid == 0:
        yield 'user id 0 owns /etc and /proc/sys'
    else:
        powerful = platform.powerful(first)
        if powerful:
            yield 'amounts to root: %s' % ' '.join(powerful)
        others = set(first['groups']) - {gid} - _groups_of(_quietly(pwd.getpwuid, uid))
        if others:
            yield 'groups that user %d does not have by its account, left over: %s' % (uid, _show(others))
    if 'user_ns' in first and first['user_ns'] != platform.around()['user_ns']:
        yield 'in another user namespace: its capabilities count in that only'
    for thread, fields in threads:
        for name, value in fields.items():
            if name not in ('command', 'threads') and value != first.get(name):     # their number: it is a later one
                yield 'thread %s differs: %s %s' % (thread, name, _show(value))


# ---------------------------------------------------------------------------- command line

class _Usage(Exception):
    """The command line is wrong."""


def main(argv: 'Optional[Sequence[str]]' = None) -> int:
    """The command line (the text of this module is its manual); returns the exit status."""
    if argv is None:
        argv = sys.argv[1:]
    try:
        return _run(argv)
    except _Usage as e:
        _say('%s; capdrop -h shows how' % e)
        return 125 if next((word for word in argv if word in VERBS), '') == 'exec' else 2
    except (Error, OSError, MemoryError) as e:
        _say(_because(e) if isinstance(e, OSError) else str(e) or 'out of memory')
        return 125
    except KeyboardInterrupt:
        return 130


def _run(argv):
    words, flags, overrides, target, rest = [], set(), {}, None, iter(argv)
    for word in rest:
        name, equals, value = word.partition('=')
        if word == '--':
            target = list(rest) or None
        elif name in OVERRIDES:
            overrides[name] = value if equals else next(rest, None)
            if overrides[name] is None:
                raise _Usage('%s needs a value' % name)
        elif word in '--json --exec --allow-new-privs -q -h --help --version'.split():
            flags.add(word)
        elif word.startswith('-') and word != '-':
            raise _Usage('there is no option %s' % _printable(word))
        else:
            words.append(word)
    if flags & {'-h', '--help', '--version'}:
        return _put(['capdrop %s' % __version__] if '--version' in flags else (__doc__ or '').splitlines())
    verb = words.pop(0) if words else ''
    if verb not in VERBS:
        raise _Usage('there is no command "%s"' % _printable(verb) if verb else 'a command is needed')
    function, takes, allowed = VERBS[verb]
    for flag in sorted(flags - set(allowed.split())):
        raise _Usage('%s is not for %s' % (flag, verb))
    if (verb == 'exec') != bool(target):
        raise _Usage('exec needs -- and the command after it' if verb == 'exec' else '-- is for exec')
    if verb == 'audit' or verb == 'status' and words:
        pid = words.pop() if words else ''
        if not pid.encode('ascii', 'replace').isdigit() or len(pid) > 100:     # int() does not take thousands
            raise _Usage(takes)
        target = int(pid)
    if len(words) > 1 or bool(words or overrides) == (verb == 'status'):
        raise _Usage(takes)
    status, answer, lines, messages = function(words[0] if words else None, overrides, flags, target)
    if '--json' in flags:
        import json
        lines = [json.dumps(answer, indent=1)]
    _put(lines)
    for text in messages:
        _say(text)
    return status


def _configured(file, overrides):
    """The file's Security, overridden by what the command line says."""
    security = Security() if file is None else _load(None) if file == '-' else load(file)
    for name, value in overrides.items():
        if name == '--supplemental-groups':
            value = [word.strip() for word in value.split(',')] if value else ()
        security.put(OVERRIDES[name], value, (name, None, None))
    return security


def _check(file, overrides, flags, command):
    security, errors = Security(), []
    try:
        security = _configured(file, overrides)
        p = _refusing(_goal, security, True, '--allow-new-privs' not in flags, errors.append)
        if not errors and (p.uid is not None or p.default):
            p.goal, p.notes = State(_aim(p, State({'uid': (0,), 'gid': (0,)}), True)), security.notes
            _distrust(p, lambda text: p.note(None, text))
            _warn(p)
    except ConfigError as e:
        errors.append(e)
    except RefusedError as e:
        if sys.platform in PLATFORMS:
            errors.append(ConfigError(str(e), file))
        else:
            security.notes.append(((None,) * 3, str(e)))
    found = [(e.file or file, e.line, e.column, 'error', e.message, e.excerpt) for e in errors] + [
        (place[0] or file, *place[1:], 'warning', text, '') for place, text in security.notes if '-q' not in flags]
    return (1 if errors else 0,
            {'options': _provenance(security), 'findings': [_named(*one) for one in found]},
            ['%s%s: %s%s' % (_at(place), kind, message, '\n' + excerpt if excerpt and os.isatty(1) else '')
             for *place, kind, message, excerpt in found],
            ())


def _plan(file, overrides, flags, command):
    p = plan(_configured(file, overrides), '--exec' in flags, '--allow-new-privs' not in flags)
    return (125 if p.refusals else 0,
            {'options': _provenance(p.security), 'exec': p.exec, 'steps': [_step_text(*row) for row in p.steps],
             'must_fail': [_step_text(*row) for row in p.attempts], 'ends_as': p.goal and p.goal.as_dict(),
             'refusals': p.refusals, 'warnings': p.warnings},
            [p],
            () if '--json' in flags else ['warning: ' + text for text in p.warnings if '-q' not in flags] + [
                'refused: ' + text for text in p.refusals])


def _launch(file, overrides, flags, command):
    p = _refusing(_goal, _configured(file, overrides), True, '--allow-new-privs' not in flags)
    p.quiet = '-q' in flags
    launch(p, command)


def _status(file, overrides, flags, pid):
    first, others = _refusing(_look, pid)
    notes = list(_unusual(first, others))
    return (0,
            dict(_plain(first), notes=notes),
            [State(first)] + ['note: ' + text for text in notes if '-q' not in flags],
            ())


def _audit(file, overrides, flags, pid):
    security = _configured(file, overrides)
    found = audit(security, pid, '--allow-new-privs' not in flags)
    return (1 if found else 0,
            dict(vars(found), differences=[_plain(vars(one)) for one in found]),
            found,
            () if '-q' in flags else ['warning: ' + _at(place) + text for place, text in security.notes] + [
                'process %d (%s), %d thread%s: %s; cannot be seen from outside: %s' % (
                    pid, _printable(found.command), found.threads, 's' * (found.threads > 1),
                    ('nearest to what a %s leaves' if found else 'as a %s leaves it') % found.like,
                    ', '.join(found.unseen))])


def _named(*finding):
    """For JSON; an excerpt, the last, is for people only."""
    return dict(zip(('file', 'line', 'column', 'severity', 'message'), finding))


def _provenance(security):
    return {option: {'value': getattr(security, option), 'from': _named(*last),
                     'overrode': [_named(*place) for place in earlier]}
            for option, (*earlier, last) in security.where.items()}


def _put(lines):
    """Write them all to standard output; a reader that has gone has seen enough."""
    data = ''.join('%s\n' % line for line in lines).encode('utf-8', 'backslashreplace')
    try:
        while data:
            data = data[os.write(1, data):]
    except BrokenPipeError:
        pass
    return 0


OVERRIDES = {'--' + option.replace('_', '-'): option for option in OPTIONS}
VERBS = {       # (function, what it takes, its flags); each returns (exit status, for --json, lines, for descriptor 2)
    'check': (_check, 'check takes one FILE', '--json --allow-new-privs -q'),
    'plan': (_plan, 'plan takes one FILE', '--json --exec --allow-new-privs -q'),
    'exec': (_launch, 'exec takes one FILE', '--allow-new-privs -q'),
    'status': (_status, 'status takes one PID, or nothing', '--json -q'),
    'audit': (_audit, 'audit takes FILE and PID', '--json --allow-new-privs -q')}


if __name__ == '__main__':
    sys.exit(main())
