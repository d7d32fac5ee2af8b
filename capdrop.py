# SPDX-License-Identifier: MIT
# mypy: ignore-errors
"""Give up root for good, keeping only what a Security stanza names.

usage: capdrop check FILE                 parse and resolve: errors and warnings
       capdrop plan FILE [--exec]         the steps as system calls; changes nothing lasting
       capdrop exec FILE -- COMMAND...    drop, verify, run the command
       capdrop status [PID]               what a process holds now
       capdrop audit FILE PID...          do these running processes, every thread of
                                          them, hold what FILE says?  the differences

  --user NAME --group NAME --chroot DIRECTORY --supplemental-groups NAME,NAME...
  --capabilities TEXT --privileges TEXT
                      override the file's; with one of them FILE may be left out
  --init-groups       all groups that the user has by its account
  --allow-new-privs   let setuid and file-capability programs work afterwards
  --cgroup DIRECTORY  audit every process of this control group
  --at-most           for audit: less than FILE says is no difference
  --json              for check, plan, status and audit
  -q                  no warnings, notes and summaries
  -h, --version       this text; the version

FILE - is standard input.  A copy that is not installed: python3 -I capdrop.py check FILE

Exit status: 0 done; 1 check found an error, audit a difference; 2 usage; 125 could not
drop or answer, or usage of exec: the command was not run; 126 the command cannot be
executed; 127 it was not found; 130 interrupted; otherwise the command's own.

In a program:

    import capdrop
    capdrop.drop(capdrop.load('/etc/myd.conf'))    # verified, or it does not return

The file reads in the order of the data: text -> Security -> Target -> goal -> steps ->
State.  Names that are not in __all__ are its own and may change.
"""
# MIT License
#
# Copyright (c) the capdrop authors
#
# Permission is hereby granted, free of charge, to any person obtaining a copy of this
# software and associated documentation files (the "Software"), to deal in the Software
# without restriction, including without limitation the rights to use, copy, modify,
# merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
# permit persons to whom the Software is furnished to do so, subject to the following
# conditions:
#
# The above copyright notice and this permission notice shall be included in all copies
# or substantial portions of the Software.
#
# THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
# INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A
# PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT
# HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
# CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR
# THE USE OR OTHER DEALINGS IN THE SOFTWARE.

# This program believes the kernel, the C library, libcap and Python, and whoever starts it,
# with its arguments, environment and descriptors.  It does not believe the files that a
# Security is read from (see `trust`), what the name service answers (ids are checked), nor a
# call's own word: everything is read back.
#
# A drop gives up ids, groups, capabilities or privileges, the right to gain new ones by
# execve(2), and what lies outside of chroot.
#
# It does not give up open descriptors: whatever they were opened for still works, even with
# /dev/mem.  But it refuses where one would do new things with the old rights: an io_uring, a
# fanotify group, the memory of another process; with chroot also a directory, which leads
# out of it.
#
# Nor does it give up keyrings, the controlling terminal, memory, environment, limits, the
# control group, and children that run already; and it does not forbid the user a new user
# namespace, which has capabilities of its own.  docs/safety.md says more of each.
#
# The chapters, in order, by their headings:
#
#   errors, messages
#   text: Security                          six values, and where each came from
#   files -> Security                       grammar, tokens, includes
#   passing over what is not ours           many lines at a time; changes no result
#   trust                                   who could rewrite what was read
#   State                                   what a process holds
#   capability text -> sets                 the language of cap_from_text(3)
#   the platform                            what one does; libcap
#   Linux: the calls
#   Linux: what /proc says of a process
#   Security -> Target                      the name service
#   (Target, State, rights) -> goal         the State to end in
#   the process                             this one, looked at once
#   what checks and steps look at           a Case, a Step
#   what stands against it                  the checks
#   what is allowed, yet worth a line       the warnings
#   Linux: what follows                     the goal's sets, and the steps around the ids
#   Linux: checks, warnings
#   the order                               rows_of_drop: to be read first
#   plan
#   drop                                    become, drop_in_silence, carry_out
#   launch
#   watching                                status, audit
#   command line

import sys

# A ctypes.py planted beside this file must not be run as root.
if __name__ == '__main__':
    if not (sys.flags.isolated or getattr(sys.flags, 'safe_path', False)):
        del sys.path[0]

import codecs
import errno
import gc
import os
import stat
import time

import _signal as signal        # signal itself imports enum: 4.6 ms

try:
    import posix                # gevent and its like replace functions of os, not of posix
except ImportError:
    posix = os                  # no POSIX system: loads() works, what opens files does not

TYPE_CHECKING = False           # true for a type checker; typing costs more than a drop
if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, Iterator, List, Mapping, NoReturn
    from typing import Optional, Sequence, Tuple, Union
    Place = Tuple[Optional[str], Optional[int], Optional[int]]

__version__ = '1.0'
__all__ = ['Audit', 'ConfigError', 'Difference', 'Error', 'Plan', 'RefusedError',
           'Security', 'State', 'audit', 'drop', 'launch', 'load', 'loads', 'plan',
           'state']


# ------------------------------------------------------------------ errors, messages
#
# Two exceptions, told apart by what the caller has to do.  Both promise that ids, groups,
# rights and root directory are as they were.  What may have changed:
#   - descriptors and current directory that another process shared are this one's own;
#   - signals stay blocked, where the message says so;
#   - launch has reset the handlers of signals, where closing a descriptor is what failed.
#
# A drop that has begun raises neither: it ends as asked, or the process ends.  (What a
# signal handler of the caller raises when all is done passes on.)
#
# No message is looked up: each is put together here, or where it is raised.

class Error(Exception):
    """Nothing has been changed: the base of ConfigError and RefusedError."""


class ConfigError(Error, ValueError):
    """The configuration is wrong: message, and where.

    file (or the option's name), line and column (from 1) are None where there is none;
    excerpt is the line with a caret under the column, or ''.
    """

    def __init__(self, message: str, file: 'Optional[str]' = None,
                 line: 'Optional[int]' = None, column: 'Optional[int]' = None,
                 excerpt: str = '') -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.excerpt = excerpt

    def __str__(self):
        return located((self.file, self.line, self.column), self.message)


class RefusedError(Error, OSError):
    """The system will not allow it, or it would not be safe.

    refusals: all reasons that were found, the first of which is the message.
    """
    refusals: 'Tuple[str, ...]' = ()


def refusal_error(refusals, more=''):
    """The RefusedError of several reasons; `more` ends each."""
    told = tuple(refusal + more for refusal in refusals)
    error = RefusedError(told[0])
    error.refusals = told
    return error


def shown_place(place):
    """FILE:LINE:COLUMN of a place (file, line, column), as far as it is known."""
    file, line, column = place
    if not file:
        return ''
    if line is None:
        return printable(file)
    return '%s:%d:%d' % (printable(file), line, column)


def located(place, text):
    """The text with its place before it."""
    where = shown_place(place)
    if not where:
        return text
    return '%s: %s' % (where, text)


def printable(text):
    """The text with whatever a terminal could act on escaped."""
    if text.isprintable():
        return text
    return ''.join(map(escaped_if_needed, text))


def escaped_if_needed(character):
    if character.isprintable():
        return character
    # str.encode('unicode_escape') would import a module, after the drop perhaps
    escaped, _ = codecs.unicode_escape_encode(character)
    return escaped.decode()


def shown(value):
    """A field of a State in a line of text."""
    if isinstance(value, (set, frozenset)):
        value = tuple(sorted(value))
    if isinstance(value, tuple):
        value = ' '.join(map(str, value)) or 'none'
    return printable(str(value))


def as_the_system_spells(text):
    """A name or path as os takes it: a configuration is UTF-8, the locale may not be."""
    return os.fsdecode(text.encode('utf-8'))


def because(error):
    """What failed and why, from an OSError, as one text."""
    reason = error.strerror or str(error)
    if error.filename is None:
        return reason
    return '%s: %s' % (printable(os.fsdecode(error.filename)), reason)


def or_refuse(call, *args):
    """call(*args), with what the system does not allow as a RefusedError."""
    try:
        return call(*args)
    except RefusedError:
        raise
    except OSError as error:
        raise RefusedError(because(error)) from None


def named(call_name, function, *args):
    """function(*args); its error says which call it was."""
    try:
        return function(*args)
    except OSError as error:
        raise OSError(error.errno, error.strerror, call_name) from None


def untrue(message, call_name=None):
    """The error of a call that returned and yet did not do what it is for."""
    return OSError(errno.EPROTO, message, call_name)


def nearest(word, words, likeness=0.6):
    """The one of `words` that was likely meant, or ''.  likeness: 0 to 1, see difflib."""
    import difflib
    for one in words:
        if one.startswith(word):
            return one
    holding = [one for one in words if word in one]     # 'groups': supplemental_groups
    close = holding or difflib.get_close_matches(word, words, 1, likeness)
    return close[0] if close else ''


# ------------------------------------------------------------------ text: Security
#
# The six values, and where each of them came from.  Made once, never changed.
# This chapter touches nothing: no file, no name service, no process.

BLANKS = ' \t\r\n\v\f'          # of a configuration, and of cap_from_text(3): those of isspace(3)
LONGEST = 4096                  # characters in a value: PATH_MAX; and int() takes 4300 digits


# A place is (file, line, column); (name, None, None) for what an option of the command line
# ("--user") or an argument in Python ("user=") says; three times None where nothing does.

# What can be wrong with a value.  A rule is named after the fault that it looks for.  It takes
# the text and the place where that was written, and returns what is wrong, or ''.

def too_long(text, place):
    if len(text) > LONGEST:
        return 'is longer than %d characters' % LONGEST
    return ''


def empty(text, place):
    return '' if text else 'is empty'


def empty_name(text, place):
    return '' if text else 'has an empty name in it'


def relative(text, place):
    return '' if text.startswith('/') else 'is not an absolute path'


LIST_MARKS_TO_BLANKS = dict.fromkeys(map(ord, ',()[]"\''), ' ')


def several_names(text, place):
    if ' ' not in text and ',' not in text:
        return ''
    names = [printable(name) for name in text.translate(LIST_MARKS_TO_BLANKS).split()]
    return ('has a blank or comma in an element; write the list as %s'
            ' (a group with a blank in its name: by its number)'
            % list_as_written(names, place))


def is_forbidden(character):
    """Is it invisible, or a backslash, which is an escape elsewhere and none here?"""
    return character == '\\' or not character.isprintable()


def bad_character(text, place):
    for character in text:
        if is_forbidden(character):
            return 'holds %s, which is not allowed' % ascii(character)
    return ''


def bad_name(text, place):
    wrong = bad_character(text, place)
    if wrong:
        wrong += ': give the number instead of the name'
    return wrong


def bad_set(text, place):
    """Blanks of any kind separate what is in a set; names of rights are ASCII."""
    for character in text:
        if character in BLANKS:
            continue
        if character > '~' or is_forbidden(character):
            return 'holds %s, which is not allowed' % ascii(character)
    return ''


def list_as_written(names, place):
    """A list of groups in the way of its place: a file, the command line, or Python."""
    file, line, _ = place
    if line is not None:
        return '( %s )' % ' '.join('"%s"' % name for name in names)
    if file.startswith('--'):
        return ','.join(names)
    return ascii(tuple(names))


# option: the rules for it, in the order in which they are asked.  Those of
# supplemental_groups are for each element of the list.  (init_groups is no option of the
# stanza: it comes from the command line or from Python.)
OPTIONS = {
    'user': (too_long, empty, bad_name),
    'group': (too_long, empty, bad_name),
    'supplemental_groups': (too_long, empty_name, several_names, bad_name),
    'capabilities': (too_long, bad_set),
    'privileges': (too_long, bad_set),
    'chroot': (too_long, empty, relative, bad_character),
}


def accepted(option, value, place):
    """A value as a Security holds it.  ConfigError: no system could accept it."""
    if option == 'init_groups':
        return bool(value)
    if option != 'supplemental_groups':
        return accepted_text(option, value, place)
    # bytes would pass for a list of ids
    if isinstance(value, (str, bytes, bytearray, memoryview, int)):
        value = (value,)
    return tuple(accepted_text(option, element, place) for element in value)


def accepted_text(option, value, place):
    may_be_number = option in ('user', 'group', 'supplemental_groups')
    if may_be_number and isinstance(value, int) and not isinstance(value, bool):
        value = str(int(value))                         # of an IntEnum the number
    if not isinstance(value, str):
        raise ConfigError('%s is not text' % option, *place)
    for rule in OPTIONS[option]:
        wrong = rule(value, place)
        if wrong:
            raise ConfigError('%s %s' % (option, wrong), *place)
    return value


class Draft:
    """The values of a Security that is being made; the last one put is in effect."""

    def __init__(self):
        self.values = {}
        self.where = {}                     # option: the places of all that were put

    def put(self, option, value, place):
        self.values[option] = accepted(option, value, place)
        self.where.setdefault(option, []).append(place)


class Origin:
    """What was learnt about the files while they were read.

    ways      {path: its Waypoints, and those of the files that include it}.  A path is that
              of a file that was read, of a directory that was listed, or of a file that
              was looked for and not found.  See `trust`
    private   files whose mode does not let everyone read them: no error quotes them, since
              whoever may run `check` by sudo could read /etc/shadow so.  (A plan shows
              what a valid stanza says.  Directories that are closed do not count.)
    local     the places that named Local_Changes_File, the one in effect last
    """
    __slots__ = ('ways', 'private', 'local')

    def __init__(self, ways=(), private=(), local=()):
        self.ways = dict(ways)
        self.private = frozenset(private)
        self.local = tuple(local)

    def writer_ids(self):
        """(kind, id) of all who could change one of the files, as owner and mode say."""
        ids = set()
        for way in self.ways.values():
            for waypoint in way:
                ids.update(writer.identity for writer in waypoint.writers)
        return ids


class Security:
    """The options of a Security stanza; None is absent.  Made once, never changed.

    user, group, chroot, capabilities, privileges: text (user and group also int);
    supplemental_groups: a sequence of names or ids, or one of them; init_groups: all
    groups that the user has by its account.  ConfigError: no system could accept it.

    where[option]: (file, line, column) of every place that set it, the one in effect
    last.  notes: (place, text) of what the reader warns of.  origin: what it learnt.
    """
    __slots__ = tuple(OPTIONS) + ('init_groups', 'where', 'notes', 'origin')

    if TYPE_CHECKING:
        user: 'Optional[str]'
        group: 'Optional[str]'
        supplemental_groups: 'Optional[Tuple[str, ...]]'
        capabilities: 'Optional[str]'
        privileges: 'Optional[str]'
        chroot: 'Optional[str]'
        init_groups: bool
        where: 'Dict[str, List[Place]]'
        notes: 'Tuple[Tuple[Place, str], ...]'

    def __init__(self, user: 'Union[str, int, None]' = None,
                 group: 'Union[str, int, None]' = None,
                 supplemental_groups: 'Union[Iterable[Union[str, int]], int, None]' = None,
                 capabilities: 'Optional[str]' = None, privileges: 'Optional[str]' = None,
                 chroot: 'Optional[str]' = None, init_groups: bool = False) -> None:
        values = {'user': user, 'group': group, 'supplemental_groups': supplemental_groups,
                  'capabilities': capabilities, 'privileges': privileges, 'chroot': chroot}
        draft = Draft()
        for option, value in values.items():
            if value is not None:
                draft.put(option, value, (option + '=', None, None))
        if init_groups:
            draft.put('init_groups', True, ('init_groups=', None, None))
        self.settle(draft, (), Origin())

    @classmethod
    def of(cls, draft, notes, origin):
        """The Security of a draft."""
        security = cls.__new__(cls)
        security.settle(draft, notes, origin)
        return security

    def settle(self, draft, notes, origin):
        """Set every attribute, for good."""
        values = dict.fromkeys(OPTIONS)
        values.update(init_groups=False, where=draft.where, notes=tuple(notes), origin=origin)
        values.update(draft.values)
        self.set_all(values)
        if self.init_groups and self.supplemental_groups is not None:
            raise self.error('init_groups', 'all groups of the account, and those of '
                             'supplemental_groups besides: name one of the two')

    def set_all(self, values):
        """{attribute: value}; __setattr__ would refuse it."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setstate__(self, state):
        """(None, {attribute: value}), as copy and pickle give it to an object with slots."""
        _, values = state
        self.set_all(values)

    def __setattr__(self, name, value):
        raise AttributeError('a Security is never changed: make another one')

    def overridden(self, options):
        """Another one, with {option: (value, name shown as its place)} over these."""
        draft = Draft()
        for option, places in self.where.items():
            draft.values[option] = getattr(self, option)
            draft.where[option] = list(places)
        for option, (value, name) in options.items():
            draft.put(option, value, (name, None, None))
        return Security.of(draft, self.notes, self.origin)

    def asked(self):
        """All that is asked for, for comparison."""
        return tuple(getattr(self, option) for option in OPTIONS) + (self.init_groups,)

    def place(self, option):
        """(file, line, column) of the value in effect, or three times None."""
        places = self.where.get(option)
        return places[-1] if places else (None, None, None)

    def is_private(self, option):
        """Was the value read from a file whose text is not shown?"""
        file, _, _ = self.place(option)
        return file in self.origin.private

    def error(self, option, message, text=None, offset=0):
        """A ConfigError, `offset` characters into the value of an option.

        `text`, if there is one, stands for %s in the message: it comes from the value.
        """
        file, line, column = self.place(option)
        if text is not None:
            quoted = 'this value' if self.is_private(option) else '"%s"' % printable(text)
            message = message % quoted
        if line is None and file:                       # the name of an option or argument
            return ConfigError(message, file)
        if line is not None and offset:                 # (in a list nothing has an offset)
            line, column = moved(line, column, getattr(self, option)[:offset])
        return ConfigError('%s: %s' % (option, message), file, line, column)


def moved(line, column, text):
    """Line and column at the end of a text that begins there."""
    lines = text.split('\n')
    if len(lines) == 1:
        return line, column + len(text)
    return line + len(lines) - 1, len(lines[-1]) + 1


# ------------------------------------------------------------------ files -> Security
#
# Reads configuration files and all that they include, with EC_CONF_SEARCH_PATH,
# EC_NODE_NAME and the node name; touches nothing else.  The grammar:
#
#   file      = { item }
#   item      = "Security" "{" { option } "}"           read strictly: nothing else is in it
#             | INCLUDE value                           the file is read here, in place
#             | NAME "=" value                          one of them is Local_Changes_File
#             | NAME [ instance ] brackets              somebody else's stanza
#             | brackets | STRING | "=" value           nobody's
#             | WORD                                    left over
#   option    = OPTION "=" ( value | "(" { value [ "," ] } ")" )
#   brackets  = "{" { TOKEN | brackets } "}", likewise "( )" and "[ ]"
#   value     = WORD | STRING
#   instance  = WORD | STRING                           not the word Security: `foo Security {`
#                                                       is an error
#   INCLUDE   = "include" | "readonly_include"          names are in any case
#   WORD      = what holds no blank and none of # " ' = { } [ ] ( )
#             | "/" ... "/", without a blank: a regular expression.  It stands on the
#               line of a word, after a blank, and ends before a blank or {
#   STRING    = '"' ... '"', in which \" is " and \\ is \
#
# Blanks and comments, # to the end of the line and /* to */, separate tokens.  What is not
# ours is passed over, yet strings, comments and brackets have to end everywhere.

BLANK = BLANKS.encode()
CLOSE = {'{': '}', '(': ')', '[': ']'}
INCLUDES = 'include', 'readonly_include'
SETS_AND_GROUPS = 'capabilities', 'privileges', 'supplemental_groups'
VALUE = 'word', 'string'

ALL_BYTES = bytes(range(256))
NOT_BLANK = ALL_BYTES.translate(None, BLANK)
IN_WORD = ALL_BYTES.translate(None, BLANK + b'#"\'={}[]()')
IN_STRING = ALL_BYTES.translate(None, b'"\\')
CONTINUED = ALL_BYTES[0x80:0xc0]        # UTF-8: not the first byte of a character
TYPOGRAPHIC_QUOTES = set('\u201c\u201d\u2018\u2019')
AFTER_STRING = (b' ', b'\t', b'\r', b'\n', b'\v', b'\f', b'}', b')', b'#', b'/*')
SEARCH_PATH = ('/opt/msys/ecelerity/etc:/opt/msys/ecelerity/etc/conf/global:'
               '/opt/msys/ecelerity/etc/conf/NODENAME:/opt/msys/ecelerity/etc/conf/default')


class Token:
    """kind: 'word', 'string', one of = ' { } ( ) [ ], or '' at the end of the file;
    raw: its bytes, of a string those between the quotation marks; at: where it begins."""
    __slots__ = ('kind', 'raw', 'at')

    def __init__(self, kind, raw, at):
        self.kind = kind
        self.raw = raw
        self.at = at

    @property
    def name(self):
        """A word as a name, in small letters: case makes no difference."""
        return self.raw.lower().decode()

    @property
    def value_at(self):
        """Where the text of a value begins."""
        return self.at + len('"') if self.kind == 'string' else self.at

    def path(self):
        """As the operating system takes it; a string's two escapes undone."""
        raw = self.raw
        if self.kind == 'string':               # check_text has let no NUL in
            raw = raw.replace(b'\\\\', b'\0').replace(b'\\"', b'"').replace(b'\0', b'\\')
        return os.fsdecode(raw)


def shown_line(raw):
    return printable(raw.decode('utf-8', 'replace').replace('\t', ' '))


class Source:
    """One file's bytes, and how far they are read.  Its errors know line and column.

    directory: where relative includes are looked for first; '' for loads().
    public: everyone may read the file, so its text may be shown.
    """
    pos = 0
    word_end = -1                       # where the last word ended
    counted = (0, 1, 1)                 # an offset, its line and column: see place

    def __init__(self, name, data, directory='', public=True):
        if data.startswith(codecs.BOM_UTF8):
            data = data[len(codecs.BOM_UTF8):]
        self.name = name
        self.data = data
        self.directory = directory
        self.public = public
        self.skipping = Skipping()          # see skip_lines
        self.check_text()

    def check_text(self):
        if b'\0' in self.data:
            raise self.error(self.data.find(b'\0'), 'a NUL byte: this is not a text file')
        at = 0
        while at < len(self.data):      # in pieces: a str of it all may be four times the size
            piece = self.data[at:at + 65536]
            try:
                _, size = codecs.utf_8_decode(piece, 'strict', at + 65536 >= len(self.data))
            except UnicodeDecodeError as error:
                raise self.error(at + error.start, 'not valid UTF-8') from None
            at += size

    # places and errors

    def place(self, offset):
        """(file, line, column) of an offset.  Counting goes on from the offset asked for
        last: they are asked for in rising order, most often."""
        seen, line, column = self.counted
        if offset < seen:
            seen, line, column = Source.counted     # from the beginning
        begin = self.data.rfind(b'\n', seen, offset) + 1
        if begin:
            line += self.data.count(b'\n', seen, begin)
            seen, column = begin, 1
        for at in range(seen, offset, 65536):       # the line may be most of the file
            piece = self.data[at:min(at + 65536, offset)]
            column += len(piece.translate(None, CONTINUED))
        self.counted = offset, line, column
        return self.name, line, column

    def error(self, offset, message):
        return ConfigError(message, *self.place(offset), self.excerpt(offset))

    def hiding_error(self, offset, message, hidden):
        """Another message for a file that not everyone may read."""
        return self.error(offset, message if self.public else hidden)

    def quoted(self, raw):
        """Text of the file in a message."""
        if not self.public:
            return 'this'
        return '"%s"' % printable(raw.decode()[:60])

    def excerpt(self, offset):
        """The line, or what is near in it, with a caret under the offset."""
        if not self.public:
            return ''
        start = max(self.data.rfind(b'\n', 0, offset) + 1, offset - 60)
        line, _, _ = self.data[start:offset + 60].partition(b'\n')
        before = self.data[start:offset]
        return '%s\n%s^' % (shown_line(line).rstrip(), ' ' * len(shown_line(before)))

    def unclosed(self, bracket, offset):
        return self.error(
            offset, 'missing %s: this %s is never closed' % (CLOSE[bracket], bracket))

    # tokens

    def token(self):
        """The next one."""
        after_word = self.pos == self.word_end
        at = self.after_blanks(self.pos)
        if self.data.startswith(b'"', at):
            return self.string(at)
        end = self.past(IN_WORD, at)
        if end == at:
            mark = self.data[at:at + 1]
            self.pos = at + len(mark)
            return Token(mark.decode(), mark, at)
        if after_word and self.may_be_pattern(at):
            end = self.pattern_end(at, end)
        elif b'/*' in self.data[at:end]:
            raise self.error(at, '/* inside the word %s: put the word in quotation marks'
                             % self.quoted(self.data[at:end]))
        self.pos = self.word_end = end
        return Token('word', self.data[at:end], at)

    def string(self, at):
        end = self.past(IN_STRING, at + 1)
        while self.data.startswith(b'\\', end):
            end = self.past(IN_STRING, end + 2)
        if end >= len(self.data):
            raise self.error(at, 'this string is never closed')
        self.pos = end + 1
        return Token('string', self.data[at + 1:end], at)

    def may_be_pattern(self, at):
        """Can a /regex/ begin here: with a / after a blank, on the line of the word before?"""
        on_this_line = b'\n' not in self.data[self.word_end:at]
        return on_this_line and self.data.startswith((b' /', b'\t/'), at - 1)

    def pattern_end(self, at, word_end):
        """The end of a /regex/: its first / before a blank or {.  Without one it is a word."""
        run = self.data[at:self.past(NOT_BLANK, at)] + b' '
        slash = run.replace(b'{', b' ').find(b'/ ', 1)
        return at + slash + len(b'/') if slash > 0 else word_end

    def after_blanks(self, at):
        """Past blanks and comments."""
        at = self.past(BLANK, at)
        while self.data.startswith((b'#', b'/*'), at):
            end = self.comment_end(at)
            self.check_comment(at, end)
            at = self.past(BLANK, end)
        return at

    def comment_end(self, at):
        if self.data.startswith(b'#', at):
            return self.find_or_end(b'\n', at)
        end = self.data.find(b'*/', at + len(b'/*'))
        if end < 0:
            raise self.error(at, 'this comment is never closed')
        return end + len(b'*/')

    def check_comment(self, at, end):
        """Many an editor shows what follows a CR as the next line, which it is not."""
        at = self.data.find(b'\r', at, end)
        while at >= 0:
            if not self.data.startswith(b'\r\n', at):
                raise self.error(at, 'a carriage return alone ends no line: the comment '
                                 'goes on after it; end lines with a newline')
            at = self.data.find(b'\r', at + 1, end)

    def find_or_end(self, what, start):
        """Where `what` is, or the end of the file."""
        at = self.data.find(what, start)
        return at if at >= 0 else len(self.data)

    def past(self, skipped, at):
        """The first offset from `at` on whose byte is not among `skipped`."""
        while True:
            piece = self.data[at:at + 256]          # all that is left would be quadratic
            rest = piece.lstrip(skipped)
            at += len(piece) - len(rest)
            if rest or not piece:
                return at

    def next_is(self, mark):
        """Is this mark the next token?  The position stays before it."""
        return self.data.startswith(mark, self.after_blanks(self.pos))

    def innermost_open(self, end):
        """The bracket that is open at `end`.  All is read again, once: for an error."""
        self.pos, opened = 0, []
        token = self.token()
        while token.at < end:
            if opened and token.kind == CLOSE[opened[-1].kind]:
                opened.pop()
            elif token.kind in CLOSE:
                opened.append(token)
            token = self.token()
        return opened[-1]

    # tokens in Security { }: what is passed over elsewhere is an error

    def strict(self, listed=False):
        """The next one.  listed: a comma may follow it."""
        token = self.token()
        if token.kind == "'":
            raise self.error(token.at, 'a single quote: use " for strings')
        if token.kind == 'word':
            self.check_word(token, listed)
        if token.kind == 'string':
            self.check_string_end(listed)
        return token

    def check_word(self, token, listed):
        if not TYPOGRAPHIC_QUOTES.isdisjoint(token.raw.decode()):
            raise self.error(token.at, 'a typographic quotation mark: use "')
        if b';' in token.raw:
            raise self.error(token.at + token.raw.index(b';'),
                             'stray ;: nothing but blanks stands between options')
        if token.raw.endswith(b',') and not listed and token.raw != b',':
            raise self.error(token.at, 'stray comma: nothing but blanks stands between options')

    def check_string_end(self, listed):
        after = AFTER_STRING
        if listed:
            after += (b',',)
        if self.pos < len(self.data) and not self.data.startswith(after, self.pos):
            raise self.error(self.pos, 'a blank has to follow a string')

    def expect(self, kinds, message, option, listed=False):
        """The next token if it is of these kinds; `option` is the token before it."""
        token = self.strict(listed)
        if token.kind in kinds:
            return token
        at = token.at if token.kind else option.at      # where the file ends there is no line
        raise self.error(at, message % option.name)

    def listed_groups(self, opening):
        """The elements of a list, up to its )."""
        values, after_comma = [], False
        while True:
            token = self.strict(listed=True)
            if token.kind == ')' and not after_comma:
                return values
            if token.kind in ('', '}'):
                raise self.unclosed(opening.kind, opening.at)
            is_comma = token.raw == b',' and token.kind == 'word'
            if is_comma and values and not after_comma:
                after_comma = True
            elif token.kind == 'string' or token.kind == 'word' and b',' not in token.raw:
                values.append(token.raw.decode())
                after_comma = False
            else:
                raise self.error(
                    token.at, 'expected a group or ), not %s; blanks stand between groups'
                    % self.quoted(token.raw))

    # file names

    def beside(self, name, at):
        """A file name, or what file:// names, as seen from the directory of this file."""
        return os.path.join(self.directory, self.without_scheme(name, at))

    def without_scheme(self, name, at):
        scheme, colon, rest = name.partition('://')
        if colon and scheme.lower() != 'file':
            raise self.error(at, 'only file:// can be included')
        return rest or name

    def candidates(self, name, path, at):
        """Where an included file may be: beside this one, then along the search path.
        Never in the current directory."""
        if os.path.isabs(path):
            yield path
        relative = self.without_scheme(name, at)
        for directory in self.search_path(at).split(':'):
            if os.path.isabs(directory):
                yield os.path.join(directory, relative)

    def search_path(self, at):
        """EC_CONF_SEARCH_PATH, which whoever starts this process decides; else the default."""
        path = os.environ.get('EC_CONF_SEARCH_PATH')
        if path is not None:
            return path
        node = os.environ.get('EC_NODE_NAME') or os.uname()[1].partition('.')[0]
        if '/' in node or '..' in node:
            raise self.error(
                at, 'the node name "%s" cannot be part of a path' % printable(node))
        return SEARCH_PATH.replace('NODENAME', node)


MOST_BYTES = 64 << 20                   # of all files together
LEAST_A_FILE = 4096                     # bytes that a file counts for
COST_OF_NOTE = 64                       # bytes that a place, a warning or a name counts for
MOST_NESTED = 32                        # includes in includes
DEEPEST = 1 << 20                       # brackets in brackets
TOO_LARGE = ('the configuration is larger than 64 MiB (4 KiB a file at least), or grew '
             'while it was read')
LIST_FORM = 'a list of groups is in brackets: ( "mail" "adm" )'

# A message is one line; below it, where there is room, the form itself is shown.
NO_STANZA = 'there is no Security { } stanza: write Security { user = NAME }'
A_STANZA = 'Security { user = NAME\n           capabilities = "cap_net_bind_service+ep" }'


class Unreadable(Exception):
    """Why a file cannot be read; to be told at the place that names it.

    path: of the file, where the reason does not say it.
    """

    def __init__(self, reason, path=None, errno=None):
        super().__init__(located((path, None, None), reason))
        self.reason = reason
        self.path = path
        self.errno = errno


class LocalChanges:
    """Local_Changes_File as it was named: at a place of a source, through these files."""

    def __init__(self, source, at, path, named_by):
        self.source = source
        self.at = at
        self.path = path
        self.named_by = named_by


class Reader:
    """Reads a configuration, includes in place, into one Draft.

    One method for each rule of the grammar; it is called when the first token of the rule has
    been read.  `read_item`, `read_assignment`, `read_value` and `after_value` may have to
    read one token too many: they return it, else None.
    """

    def __init__(self):
        self.draft = Draft()
        self.notes = []                 # warnings: (place, text)
        self.stanzas = 0
        self.budget = MOST_BYTES
        self.local = None               # the LocalChanges named last
        self.reads_local = False
        self.local_places = []
        self.private = set()
        self.identities = {}            # path: (device, inode) of a file, None of what is none
        self.reading = {}               # (device, inode): file, if not yet read to its end
        self.includers = {}             # file: those that include it, and so decide as well
        self.named_by = frozenset()     # those that name Local_Changes_File, while it is read

    # items

    def read_items(self, source):
        """The global level of one file."""
        following = None                # the first token of the next item, once it is read
        while True:
            token = following or self.next_item(source)
            following = None
            if token.kind == '':
                return
            if token.kind == '}':
                raise source.error(token.at, 'stray }: no stanza is open here')
            if token.kind in CLOSE:
                self.pass_over(source, [token.kind])
            elif token.kind == '=':
                following = self.read_value(source)
            elif token.kind == 'word':
                following = self.read_item(source, token)
            elif source.next_is(b'{'):                      # after a string, or a stray mark
                self.warn_of_lookalike(source, token)

    def next_item(self, source):
        """The first token of an item after those that can be passed over unread."""
        nesting = []                                # skip_lines puts in what is left open
        skip_lines(source, nesting)
        while nesting:
            self.pass_over(source, nesting)
            skip_lines(source, nesting)
        return source.token()

    def read_item(self, source, first):
        """Read what a word begins."""
        name = first.name
        if name in INCLUDES:
            self.read_include(source)
            return None
        if name == 'security':
            self.read_stanza(source)
            return None
        token = source.token()
        if token.kind == '=':
            return self.read_assignment(source, first)
        if token.kind == 'string':
            return None                 # an instance
        if token.kind == '{':
            self.warn_of_lookalike(source, first)
        if token.kind != 'word' or not source.next_is(b'{'):
            return token
        if token.name == 'security':
            raise source.error(first.at, 'a word before Security makes the stanza its own: '
                               'remove it, or begin a comment with #')
        return None

    def read_assignment(self, source, first):
        """NAME = value, from the value on."""
        value = source.token()
        name = first.name
        if name == 'local_changes_file' and value.kind in VALUE:
            self.take_local(source, first.at, value)
        if name in OPTIONS:
            self.warn(source, first.at, '%s is not in Security { }: ignored' % name)
        return self.after_value(source, value)

    def read_value(self, source):
        """Read what follows a = that has no name before it."""
        return self.after_value(source, source.token())

    def after_value(self, source, value):
        """A bracket is no value: it is what follows, and is passed over next."""
        if value.kind not in VALUE:
            return value
        if value.kind == 'word' and value.name == 'security':
            self.warn(source, value.at,
                      'a Security after a word of another item is not a stanza: ignored')
        return None

    def warn_of_lookalike(self, source, token):
        """Warn of what looks, before a {, as if it were the stanza, and is not."""
        if token.raw.strip(BESIDE_A_NAME).lower() == b'security':
            self.warn(source, token.at, 'this only looks like the Security stanza: ignored; '
                      'its name has no quotation marks, and nothing else, visible or not, '
                      'beside it')

    # what is not ours

    def pass_over(self, source, nesting):
        """What is not ours, to the end of the outermost bracket.  Strings, comments and
        brackets have to end, and nothing else is asked.

        nesting: the brackets that are open.
        """
        name, follows_equals = None, False
        while nesting:
            if name is None and not follows_equals:
                skip_lines(source, nesting)
                if not nesting:
                    return
            token = source.token()
            self.open_or_close(source, nesting, token)
            if name is not None:
                self.warn_of_foreign_name(source, name, token, len(nesting))
            is_name = token.kind == 'word' and not follows_equals and nesting[-1] == '{'
            name = token if is_name else None
            follows_equals = token.kind == '='

    def open_or_close(self, source, nesting, token):
        if token.kind == CLOSE[nesting[-1]]:
            nesting.pop()
        elif token.kind in ('', '}'):
            raise source.unclosed(nesting[-1], source.innermost_open(token.at).at)
        elif token.kind in CLOSE:
            nesting.append(token.kind)
            if len(nesting) >= DEEPEST:
                raise source.error(token.at, 'brackets are nested more than a million deep')

    def warn_of_foreign_name(self, source, name, token, depth):
        """Warn of a name in braces that is ours, by what follows it."""
        if token.kind == '{' and name.name == 'security':
            self.warn(source, token.at,
                      'a Security inside another stanza is not the global one: ignored')
        elif token.kind == '=' and depth == 1 and name.name in SETS_AND_GROUPS:
            self.warn(source, name.at, '%s is not in Security { }: ignored' % name.name)

    # Security { }

    def read_stanza(self, source):
        """From the { on."""
        opening = source.token()
        if opening.kind != '{':
            raise source.error(opening.at,
                               'the Security stanza has no name and no =: write Security {')
        self.stanzas += 1
        previous = None
        while True:
            token = source.strict()
            if token.kind == '}':
                return
            if token.kind == '':
                raise source.unclosed(opening.kind, opening.at)
            self.check_option(source, token, previous)
            self.read_option(source, token)
            previous = token.name

    def check_option(self, source, token, previous):
        """ConfigError if it is not the name of one.  previous: the option before it."""
        if token.name in INCLUDES:
            raise source.error(token.at, 'include does not work inside Security: '
                               'give the file a Security { } of its own')
        if token.kind == 'word' and token.name in OPTIONS:
            return
        if token.kind == '=' and previous:
            raise source.error(token.at, 'a value with = in it is put in quotation marks')
        hint = ''
        if previous == 'supplemental_groups' and not source.next_is(b'='):
            hint = ' (%s)' % LIST_FORM
        elif token.kind == 'word' and source.public:
            guess = nearest(token.name, OPTIONS)
            hint = ' (did you mean %s?)' % guess if guess else ''
        raise source.error(token.at, 'Security has no option %s%s; it has %s' % (
            source.quoted(token.raw), hint, ', '.join(OPTIONS)))

    def read_option(self, source, name):
        """From the = on."""
        source.expect(('=',), 'expected = after %s', name)
        if name.name == 'supplemental_groups':
            token = source.expect(VALUE + ('(',), '%s takes a list: ( "mail" "adm" )', name,
                                  listed=True)
            value = self.read_groups(source, token)
        else:
            token = source.expect(VALUE, '%s takes one word or string', name)
            value = token.raw.decode()
        self.charge(source, token.at, COST_OF_NOTE)
        try:
            self.draft.put(name.name, value, source.place(token.value_at))
        except ConfigError as error:
            hidden = '%s cannot have this value' % name.name
            raise source.hiding_error(token.value_at, error.message, hidden) from None

    def read_groups(self, source, token):
        """A list, or one bare name."""
        if token.kind == '(':
            return source.listed_groups(token)
        if token.raw.endswith(b',') or source.data.startswith(b',', source.pos):
            raise source.error(token.at, 'stray comma: ' + LIST_FORM)
        return token.raw.decode()

    # other files

    def read_include(self, source):
        """A file, or all files of a directory, in place."""
        token = source.token()
        name = token.raw.decode()
        if token.kind not in VALUE or not name or name[0] in TYPOGRAPHIC_QUOTES:
            raise source.error(token.at, 'include takes the name of one file or directory, '
                               'in "quotation marks"')
        try:
            path = self.included_path(source, token)
            if os.path.isdir(path):
                self.read_directory(source, token, path)
            else:
                self.read_file(path)
        except Unreadable as problem:
            raise source.hiding_error(
                token.at, str(problem), 'this cannot be included') from None
        self.after_value(source, token)

    def included_path(self, source, token):
        """Where an included file, or directory, is."""
        name = token.path()
        path = source.beside(name, token.at)
        if os.path.isabs(path) and (path == name or '://' in name):
            return path                             # it is looked for nowhere else
        for candidate in source.candidates(name, path, token.at):
            if os.path.exists(candidate):
                return candidate
            self.remember(candidate)                # who could put a file there decides, too
        raise source.error(token.at, '%s is neither beside this file nor on the search path'
                           % source.quoted(os.fsencode(name)))

    def read_directory(self, source, token, path):
        """Read all files of a directory in byte order: no hidden ones, and none further down."""
        try:
            names = os.listdir(path)
        except OSError as error:
            raise Unreadable(error.strerror, path) from None
        self.charge(source, token.at, COST_OF_NOTE * (len(names) + 1))
        self.remember(path)
        for name in sorted(names, key=os.fsencode):
            file = os.path.join(path, name)
            if not name.startswith('.') and not os.path.isdir(file):
                self.read_file(file)

    def read_file(self, path, last=False):
        """Read one file (None: standard input) and all that it includes.

        last: it is Local_Changes_File.
        """
        name = '-' if path is None else path
        try:
            data, status = file_contents(path, self.budget)
            directory = '' if path is None else directory_of(path)
        except OSError as error:
            raise Unreadable(error.strerror, name, error.errno) from None
        self.budget -= max(len(data), LEAST_A_FILE)     # many empty files cost something, too
        if self.budget < 0:
            raise Unreadable(TOO_LARGE)
        key = status.st_dev, status.st_ino
        self.check_file(name, key, last)
        self.remember(name, key)
        public = status.st_mode & stat.S_IROTH or not stat.S_ISREG(status.st_mode)
        if not public:
            self.private.add(name)
        self.reading[key] = name
        self.read_items(Source(name, data, directory, public))
        del self.reading[key]

    def check_file(self, name, key, last):
        if last and key in self.identities.values():
            raise Unreadable('Local_Changes_File is one of the files already read')
        if key in self.reading:
            raise Unreadable('%s includes itself' % printable(name))
        if len(self.reading) > MOST_NESTED:
            raise Unreadable('includes are nested more than %d deep' % MOST_NESTED)

    def remember(self, name, key=None):
        """Note a file that was read, a directory, or a place where there is no file (key None).
        Unreadable if it was another one before."""
        known = self.identities.setdefault(name, key)
        if known != key:
            raise Unreadable('%s was replaced while the configuration was read'
                             % printable(name))
        self.includers.setdefault(name, set()).update(self.reading.values(), self.named_by)

    def take_local(self, source, at, value):
        if self.reads_local:
            self.warn(source, at, 'Local_Changes_File in the Local_Changes_File: ignored')
            return
        # loads() has no directory: / stands for it
        path = os.path.join('/', source.beside(value.path(), value.at))
        self.local = LocalChanges(source, value.at, path, frozenset(self.reading.values()))
        self.charge(source, at, COST_OF_NOTE)
        self.local_places.append(source.place(at))

    def read_local(self):
        """Read Local_Changes_File, if it is there: the vendor's console makes it when something
        is changed."""
        local = self.local
        self.reads_local = True
        self.named_by = local.named_by
        try:
            self.read_file_or_remember_it(local.path)
        except Unreadable as problem:
            raise local.source.hiding_error(
                local.at, str(problem), 'Local_Changes_File cannot be read') from None

    def read_file_or_remember_it(self, path):
        try:
            self.read_file(path, last=True)
        except Unreadable as problem:
            if problem.errno != errno.ENOENT:
                raise
            self.remember(path)

    # what is kept

    def charge(self, source, at, size):
        """Count what is kept, or looked at, besides the text."""
        self.budget -= size
        if self.budget < 0:
            raise source.error(at, 'the configuration holds, or includes, too much')

    def warn(self, source, at, text):
        self.charge(source, at, COST_OF_NOTE)
        self.notes.append((source.place(at), text))

    def finish(self, name):
        """The Security, when all but Local_Changes_File is read."""
        if self.local is not None:
            self.read_local()
        if not self.stanzas:
            raise self.no_stanza(name)
        for option, places in self.draft.where.items():
            if len(places) > 1:
                overridden = shown_place(places[-2])
                self.notes.append((places[-1], '%s overrides %s' % (option, overridden)))
        origin = Origin(self.ways(), self.private, self.local_places)
        return Security.of(self.draft, self.notes, origin)

    def no_stanza(self, name):
        """The error of a configuration without a stanza: what was warned of first was most
        likely meant to be it.
        """
        if not self.notes:
            return ConfigError(NO_STANZA, name, excerpt=A_STANZA)
        (file, line, column), text = self.notes[0]
        return ConfigError('%s (%s)' % (NO_STANZA, text), file, line, column, A_STANZA)

    def ways(self):
        """{file: the way to it, and those to the files that include it}."""
        own, all_ways = {}, {}
        for name, key in self.identities.items():
            if name == '-':
                own[name] = ()                      # whoever starts this process chose it
            else:
                own[name] = way_to_file(name, key)
        for name in own:
            files = [name] + sorted(self.includers[name])
            all_ways[name] = tuple(waypoint for file in files for waypoint in own[file])
        return all_ways


def absolute(path):
    """The path from the root on, as it is spelt."""
    if os.path.isabs(path):
        return path
    return os.path.join(posix.getcwd(), path)


def directory_of(path):
    """The directory of a file.  A .. in it stays: behind a link it leads elsewhere than up."""
    path = absolute(path)
    if '..' not in path.split('/'):
        path = os.path.normpath(path)
    return os.path.dirname(path)


def file_contents(path, most):
    """(bytes, stat result) of a regular file, or for None of standard input.

    Nothing else is read: opening a device can act on it, and a pipe can be waited for.
    """
    if path is None:
        return file_contents_of(0, most, is_stdin=True)
    must_be_regular(os.stat(path))                      # before it is opened
    return file_contents_of(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), most)


def file_contents_of(fd, most, is_stdin=False):
    """(bytes, stat result) of a descriptor that is open for reading."""
    with open(fd, 'rb', closefd=not is_stdin) as file:
        status = os.fstat(fd)
        limit = most
        if not is_stdin:
            must_be_regular(status)
        if stat.S_ISREG(status.st_mode):
            limit = min(most, status.st_size)
        elif not os.get_blocking(fd):
            raise OSError(errno.EAGAIN, 'does not block: what has arrived may not be all')
        data = file.read(limit + 1)
    if data is None:                                    # it would block: of tracefs, say
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if len(data) > limit:
        raise Unreadable(TOO_LARGE)
    return data, status


def must_be_regular(status):
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, 'not a regular file')


def load(path: 'Union[str, bytes, os.PathLike[str]]') -> 'Security':
    """Read a configuration file and all that it includes.

    Reads files and their owners, EC_CONF_SEARCH_PATH, EC_NODE_NAME and the node name,
    nothing else.  Raises ConfigError.
    """
    path = os.fsdecode(path)
    if '\0' in path:
        raise ConfigError('the name of the configuration file has a NUL in it')
    if not path:
        raise ConfigError('the name of the configuration file is empty')
    if path == '-':
        path = './-'                                    # - alone is standard input
    return read_configuration(path)


def read_configuration(path):
    """The Security of the file with exactly this path; None is standard input."""
    reader = Reader()
    name = '-' if path is None else path
    try:
        reader.read_file(path)
    except Unreadable as problem:
        raise ConfigError(problem.reason, problem.path or name) from None
    return reader.finish(name)


def loads(text: str, name: str = '<string>') -> 'Security':
    """Read a configuration that is in memory, and all that it includes.

    name stands for a file's in messages and places.  Relative includes are looked for on
    the search path only.  Who could rewrite the text is the caller's to judge.  Raises
    ConfigError.
    """
    reader = Reader()
    reader.read_items(Source(name, text.encode('utf-8', 'surrogatepass')))
    return reader.finish(name)


# ----------------------------------------------------- passing over what is not ours
#
# Many lines at a time.  Most of a configuration is other people's stanzas, and most of their
# lines are alike.
# The *shape* of a line is what is left of it when all is erased but what can open or
# close something, and names of ours:
#
#     Gateway = "[192.0.2.1]"   # the old one (        has the shape   "[]"#(
#
# It changes no result: without it the tokens read everything, and the same comes out.
# tests/test_config.py reads texts both ways; tests/bench.py says what it saves.
#
# What a line does to the nesting depends on its shape and on what is open before it, and
# on nothing else.  A file has a few dozen shapes.  So open_after() works out each of them
# once, mark by mark, and SHAPES remembers it: from then on a line costs one look into a
# dict.
#
# Skipping never guesses.  It stops before a line, and leaves it to the tokens, if
#   - its shape does not tell: a bracket that does not match, an escape outside a string,
#     a / that may begin a /regex/, a carriage return in a comment;
#   - it has a name of ours where that would mean something, or be warned of.
# And it hands over only where an item has ended and the next has not begun, since what a
# word is depends on the token before it: see can_stop_after().  It finds no errors: what is
# wrong is not skipped, and the tokens say what is wrong, and where.

# Signs of two bytes are replaced first, in this order, by marks: bytes that UTF-8 never
# has, and in a shape the characters of that number (latin-1).  No length changes, so offsets
# stay right.  (\xc0 only fills, and ends a word.)
UNCLEAR, SLASH, COMMENT, COMMENT_END = '\xff\xfe\xfd\xfc'
SIGNS = (
    (b'\r\n', b' \n'),                      # any other \r stays: it is a mark itself
    (b'\\\\', b'\xff\xc0'),                 # UNCLEAR: an escape, clear in a string
    (b'\\"', b'\xff\xc0'),
    (b'\t', b' '),
    (b'\n/*', b'\n\xfd\xc0'),               # COMMENT
    (b' /*', b' \xfd\xc0'),
    (b'/*', b'\xff\xc0'),                   # UNCLEAR: after a bracket, or in a word
    (b'*/', b'\xfc\xc0'),                   # COMMENT_END
    (b' /', b' \xfe'),                      # SLASH: a path, most often, or a /regex/
)

# Names of ours become marks as well: of where they mean something, or are warned of.
# They are replaced in this order, since one holds another.
ANYWHERE, AT_TOP = '\xfb\xfa'
NAME_MARKS = {
    b'security': b'\xfb',
    b'capabilities': b'\xfb',
    b'privileges': b'\xfb',
    b'supplemental_groups': b'\xfb',
    b'group': b'\xfa',
    b'user': b'\xfa',
    b'chroot': b'\xfa',
    b'readonly_include': b'\xfa',
    b'include': b'\xfa',
    b'local_changes_file': b'\xfa',
}
OUR_NAMES = frozenset(NAME_MARKS)

# What may stand beside a name of ours without being seen, or being meant: it is to be
# warned of.  (The bytes of a no-break space and a byte order mark are among them.)
BESIDE_A_NAME = BLANK + b':;,\xc2\xa0\xef\xbb\xbf'
ENDS_NAME = BESIDE_A_NAME + b'{}()[]"#\'=\xc0'
NAMES_APART = bytes.maketrans(ENDS_NAME, b' ' * len(ENDS_NAME))

ERASED = ALL_BYTES.translate(None, b'{}()[]"#\r\n\xff\xfe\xfd\xfc\xfb\xfa')
ERASED_IN_WORDS = ERASED.replace(b' ', b'')
PLAIN = IN_WORD.translate(None, b'\xff\xfd\xfc')        # a word may begin with SLASH
BRACKET_OR_QUOTE = b'{', b'}', b'(', b')', b'[', b']', b'"'
NOT_TOKENS = '"', COMMENT                   # what is open here is no place for tokens

WINDOW, SMALL_WINDOW = 16384, 128       # bytes looked at at once, and after a stop
LONGEST_SKIPPED = 65536                 # a line longer than this is left to the tokens
MOST_OPEN = 64                          # with so many brackets open nothing is skipped
SKIPS_LINES = True                      # False: nothing is skipped, and reading takes longer


class Skipping:
    """How far ahead a source is looked at.

    window     how many bytes
    barrier    before this offset nothing is skipped: the tokens read
    """
    window = WINDOW
    barrier = 0


def skip_lines(source, nesting):
    """Pass over lines from here, which is between two items.

    nesting: the brackets that are open, kept up to date.
    """
    if not SKIPS_LINES:
        return
    while (source.skipping.barrier <= source.pos < len(source.data)
           and len(nesting) < MOST_OPEN):
        end = end_of_lines(source)
        if end > source.pos + LONGEST_SKIPPED:
            source.skipping.barrier = end
        else:
            skip_lines_to(end, source, nesting)


def skip_lines_to(end, source, nesting):
    """Pass over as many of the lines up to `end` as can be."""
    start, skipping = source.pos, source.skipping
    text = marked(source.data[start:end])
    lines = text.split(b'\n')
    after_each = opened_after_each(lines, shapes_of(text), ''.join(nesting))
    last = last_end(lines, after_each)
    passed = start + extent(lines[:last + 1])
    source.pos = min(passed, len(source.data))
    nesting[:] = after_each[last]
    if len(after_each) < len(lines):
        skipping.window = SMALL_WINDOW
        skipping.barrier = start + extent(lines[:len(after_each) + 1])
    elif last:
        skipping.window = min(2 * skipping.window, WINDOW)
    else:
        skipping.barrier = end + 1              # no item ends in all these lines


def end_of_lines(source):
    """The end of the last line that ends in the window, or of the first line."""
    start = source.pos
    end = source.data.rfind(b'\n', start, start + source.skipping.window)
    return source.find_or_end(b'\n', start) if end < 0 else end


def marked(text):
    """In small letters, with marks, and an empty line before it: a /* right here begins a
    line.

    (Its newline makes up, in extent(), for the one that ends the last line.)
    """
    text = b'\n' + text.lower()
    for sign, mark in SIGNS:
        text = text.replace(sign, mark)
    return text


def extent(lines):
    """How far these lines of a marked text lead in the source."""
    return len(b'\n'.join(lines))


def shapes_of(text):
    """The shape of each line of a marked text.

    If any name of ours stands alone in the text, all of them are marked, inside longer words,
    too; opened_at_a_closer_look makes up for that.
    """
    if has_name(text):
        for name, mark in NAME_MARKS.items():
            text = text.replace(name, mark)
    return text.translate(None, ERASED).decode('latin-1').split('\n')


def has_name(text):
    """Does a name of ours stand alone in this marked text?"""
    words = text.translate(NAMES_APART).split()
    return not OUR_NAMES.isdisjoint(words)


def without_names(shape):
    return shape.replace(ANYWHERE, '').replace(AT_TOP, '')


def opened_after_each(lines, shapes, opened):
    """What is open after each line, up to the first that is left to the tokens."""
    after_each = []
    for line, shape in zip(lines, shapes):
        before = opened
        opened = SHAPES[before, shape]
        if opened is None:
            opened = opened_at_a_closer_look(before, line, shape)
            if opened is None:
                break
        after_each.append(opened)
    return after_each


def opened_at_a_closer_look(opened, line, shape):
    """What is open after a line whose shape does not tell; None if the whole line does not
    tell either."""
    if SLASH in shape:
        after = opened_after_slashes(opened, line, shape)
        if after is not None:
            return after
    if has_name(line):
        return None
    return SHAPES[opened, without_names(shape)]         # a part of a word: Binding_Group


class Shapes(dict):
    """(what is open, the shape of a line): what is open after it."""

    def __missing__(self, key):
        if len(self) > 4095:
            self.clear()
        opened = open_after(*key)
        if len(key[0]) + len(key[1]) < 2 * MOST_OPEN:
            self[key] = opened
        return opened


SHAPES = Shapes()


def open_after(opened, shape):
    """What is open after a line of this shape; None if that cannot be told."""
    for number, mark in enumerate(shape):
        innermost = opened[-1:]
        if innermost == '"':
            if mark == '"':
                opened = opened[:-1]
            elif mark == ANYWHERE and opened == '"':    # "Security" { is to be warned of
                return None
        elif innermost == COMMENT:
            if mark in (UNCLEAR, COMMENT, '\r'):
                return None
            if mark == COMMENT_END:
                opened = opened[:-1]
        elif mark == '#':
            return None if '\r' in shape[number:] else opened
        elif mark == SLASH:
            run, _, _ = shape[number:].partition(' ')
            if run.strip(SLASH):                # something that a /regex/ could hold
                return None
        elif mark in '{(["' + COMMENT:
            opened += mark
        elif mark == CLOSE.get(innermost):
            opened = opened[:-1]
        elif mark == AT_TOP:
            if not opened:
                return None
        elif mark not in (' ', '\r', COMMENT_END):      # the last is */ in a word
            return None
    return opened


def opened_after_slashes(opened, line, shape):
    """What is open after a line with a / that may begin a /regex/; None if unclear.

    A /regex/ ends at a blank, so what stands behind one is seen in a shape with blanks.
    """
    if ANYWHERE in shape or AT_TOP in shape:
        return None
    after = SHAPES[opened, shape_with_blanks(line)]
    if after is None and opened[-1:] not in NOT_TOKENS:
        after = SHAPES[opened, shape_with_blanks(without_pattern(line))]
    return after


def shape_with_blanks(line):
    return line.translate(None, ERASED_IN_WORDS).decode('latin-1')


def without_pattern(line):
    """The words after the /regex/ of a line NAME /regex/ ..., or else the line itself."""
    words = line.split(None, 2)
    if len(words) > 1 and is_plain(words[0]) and is_pattern(words[1]):
        return b''.join(words[2:])
    return line


def is_plain(word):
    """Is this a word, or as much of one as there is?"""
    return not word.translate(None, PLAIN)


def is_pattern(word):
    return word.startswith(b'\xfe') and word.endswith(b'/') and b'/{' not in word


def last_end(lines, after_each):
    """The number of the last line after which one can stop; 0 if there is none."""
    last = len(after_each) - 1
    while last and not can_stop_after(lines[last], after_each[last - 1], after_each[last]):
        last -= 1
    return last


def can_stop_after(line, before, opened):
    """Can no item be half read after this line?  False where that is not sure.  (Within ( )
    and [ ] there are no items.)"""
    if opened[-1:] in NOT_TOKENS:
        return False
    if opened[-1:] in ('(', '['):
        return True
    if b'#' in line:
        if before[-1:] in NOT_TOKENS:
            return False
        line = before_comment(line)
    line = line.rstrip(BLANK)
    if line.endswith(BRACKET_OR_QUOTE):
        return True
    before_equals, equals, value = line.rpartition(b'=')
    value = value.strip(BLANK)
    if b'\xfe' in before_equals:                    # the = may be in a /regex/
        return False
    return bool(equals and value) and is_plain(value)


def before_comment(line):
    """What stands before the # of a line if a comment surely begins there; else nothing."""
    before, _, _ = line.partition(b'#')
    in_string = before.count(b'"') % 2
    is_clear = before == before.translate(None, b'\xff\xfe\xfd\xfc')
    return before if is_clear and not in_string else b''


# ------------------------------------------------------------------ trust
#
# Who could rewrite the files that were read, or the directory that is to be the root, and
# what such a file may say.
# Owners and modes are believed as the file system tells them, be it one of FUSE or NFS.
# Collected while reading, from owners and modes; judged when it is known who the process
# will be.  Calls lstat and readlink, and asks the platform for access control lists.
#
# A file can be rewritten by whoever may write it, and by whoever may put something else
# in its place: who may write a directory above it, or one that a symbolic link on the way
# to it leads through.  All of them are looked at, from the root on: a directory that only
# root can change cannot be exchanged while the next one is looked at.

EVERYONE = 'everyone'
LISTED = 'an access control list'
UNKNOWN = 'someone unknown (%s)'
NOT_MAPPED = 'an owner whom this user namespace does not map'
MOST_LOOK_UPS = 4096                        # on one way, through links


class Writer:
    """Somebody other than root who could write `path`, or put something in its place.

    kind: 'user' or 'group', with an id; else who it is, in words, and id is None.
    """
    __slots__ = ('path', 'kind', 'id')

    def __init__(self, path, kind, id=None):
        self.path = path
        self.kind = kind
        self.id = id

    @property
    def identity(self):
        return self.kind, self.id

    def is_one_of(self, identities):
        return self.identity in identities

    def __str__(self):
        if self.id is None:
            return self.kind
        return '%s %d' % (self.kind, self.id)


class Waypoint:
    """What is looked up on the way to a file.

    writers: who could write it, by its owner and mode; list_counts: an access control list,
    if it has one, could let somebody else write it.
    """
    __slots__ = ('path', 'writers', 'list_counts')

    def __init__(self, path, writers, list_counts=False):
        self.path = path
        self.writers = tuple(writers)
        self.list_counts = list_counts


def waypoint_of(path, status, is_last):
    """The Waypoint of a path that has this status."""
    writers = []
    if status.st_uid != 0:
        writers.append(Writer(path, 'user', status.st_uid))
    # In a sticky directory only owners can replace what is there, and only its owner can
    # replace a link.  That does not count for the last directory: a new file can be put even
    # into a sticky one.
    only_owners_replace = status.st_mode & stat.S_ISVTX and not is_last
    if only_owners_replace or stat.S_ISLNK(status.st_mode):
        return Waypoint(path, writers)
    if status.st_mode & stat.S_IWOTH:
        writers.append(Writer(path, EVERYONE))
    elif status.st_mode & stat.S_IWGRP:
        writers.append(Writer(path, 'group', status.st_gid))
    return Waypoint(path, writers, list_counts=True)


# Collected while reading.

def way_to_file(name, key):
    """The Waypoints to a name.  key: (device, inode) of the file that was read there; None of a
    directory that was listed, and of a name that was not there (the way then ends in the
    directory where it could be made).

    A read-only mount is no excuse: elsewhere the same may be written.
    """
    try:
        passed = everything_on_the_way(absolute(name))
    except OSError as error:
        return unknown_way(name, error.strerror)
    last, status = passed[-1]
    if key is not None and (status.st_dev, status.st_ino) != key:
        return unknown_way(name, 'it was replaced while it was read')
    if may_have_been_put_there(dict(passed)):
        return unknown_way(name, 'it has other names, and this one is in a sticky directory')
    return tuple(waypoint_of(path, status, path == last) for path, status in passed)


def may_have_been_put_there(passed):
    """Is one of {path: status} a file of several names in a sticky directory?  Whoever could
    not replace it there may have made it there, as a hard link to a file of root's."""
    for path, status in passed.items():
        has_other_names = not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1
        if has_other_names and is_shared(passed[os.path.dirname(path)]):
            return True
    return False


def is_shared(directory):
    """Is that a sticky one in which others than its owner may make files?"""
    may_write = directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return bool(directory.st_mode & stat.S_ISVTX and may_write)


def unknown_way(name, why):
    return (Waypoint(name, [Writer(name, UNKNOWN % why)]),)


def everything_on_the_way(path):
    """[(path, status)] of all that is looked up on the way to an absolute path, from the
    root on: symbolic links, and where they lead.  It ends where nothing has the name that
    comes next.

    Each path once, in the order of the last look at it: so the last one is what the path
    leads to.
    """
    at, names = '/', path.split('/')[::-1]
    found = {at: posix.lstat(at)}
    look_ups = 0
    while names:
        parent, at = at, os.path.normpath(os.path.join(at, names.pop()))
        status = status_or_none(at)
        if status is None:
            # it comes last now: the name that is missing could be put into it
            found[parent] = found.pop(parent)
            break
        found.pop(at, None)
        found[at] = status
        if stat.S_ISLNK(status.st_mode):
            target = posix.readlink(at)
            names += target.split('/')[::-1]
            at = '/' if target.startswith('/') else parent
        look_ups += 1
        if look_ups > MOST_LOOK_UPS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return list(found.items())


def status_or_none(path):
    """lstat(2) of a path; None where nothing has this name."""
    try:
        return posix.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


# Judged for one process.

def writers_of_files(security, platform, unmapped):
    """{file: (Writer, ...)}: of every file that decides, who could rewrite it."""
    ways = security.origin.ways
    lists = access_lists(ways.values(), platform)
    result = {}
    for file, way in ways.items():
        result[file] = tuple(writers_on(way, lists, unmapped))
    return result


def access_lists(ways, platform):
    """{path: who can write it by its access control list}."""
    paths = {waypoint.path for way in ways for waypoint in way if waypoint.list_counts}
    lists = {}
    for path in paths:
        try:
            if platform.has_access_list(path):
                lists[path] = LISTED
        except OSError as error:
            lists[path] = UNKNOWN % error.strerror
    return lists


def writers_on(way, lists, unmapped):
    """The Writers of a way, when lists and unmapped owners are known."""
    for waypoint in way:
        has_list = waypoint.list_counts and waypoint.path in lists
        for writer in waypoint.writers:
            if writer.id in unmapped:
                yield Writer(waypoint.path, UNKNOWN % NOT_MAPPED)
            # with a list, the bits of the group are its mask, and the list is told below
            elif writer.kind != 'group' or not has_list:
                yield writer
        if has_list:
            yield Writer(waypoint.path, lists[waypoint.path])


def writers_of_jail(path, platform, unmapped):
    """Who could write a directory or replace it: a tuple of Writers.

    OSError if its path is not plain: what leads elsewhere may lead elsewhere later.
    """
    if '..' in path.split('/'):
        raise OSError(errno.EINVAL, 'write it without ..', path)
    paths = with_those_above(path)
    way = []
    for each in paths:
        status = posix.lstat(each)
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, 'a symbolic link', each)
        way.append(waypoint_of(each, status, each == paths[-1]))
    if not stat.S_ISDIR(posix.lstat(paths[-1]).st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    lists = access_lists([way], platform)
    return tuple(writers_on(way, lists, unmapped))


def with_those_above(path):
    """An absolute path and the directories above it, from the root on."""
    names = [name for name in path.split('/') if name]
    return ['/' + '/'.join(names[:depth]) for depth in range(len(names) + 1)]


# The policy, one function for each rule:
#   1. Nobody but root and the user that is named may be able to rewrite a file that was read,
#      whatever it says.
#   2. What root says in a file of root's, the user's own file may not override.
#   3. The user's own file may give him no group that his account does not have, and no right
#      that amounts to root.  (Others, such as cap_net_bind_service, it may give.)
#
# Group 0 counts as root, whoever its members are.  Only if the user is one of them, in the
# groups that he is given or in those of his account, it does not.

ROOTS_GROUP = ('group', 0)


def may_rewrite(uid, gids, own_group):
    """The identities that may be able to rewrite a file: the user it names, as himself and
    as the only member of his own group (None if he has none), and root's group."""
    identities = {('user', uid)}
    if own_group is not None and own_group != 0:
        identities.add(('group', own_group))
    if uid == 0 or 0 not in gids:
        identities.add(ROOTS_GROUP)
    return identities


def is_rewritable(writers_by_file, place):
    """Could anybody but root rewrite the file of this place?  (It is the user then: if it
    were somebody else, strangers() has refused.)"""
    file, _, _ = place
    return any(writer.identity != ROOTS_GROUP for writer in writers_by_file.get(file, ()))


def settings(security):
    """(option, the places that set it: files, and options of the command line) of all that a
    file can set."""
    for option in OPTIONS:
        if option in security.where:
            yield option, security.where[option]
    if security.origin.local:
        yield 'Local_Changes_File', security.origin.local


def strangers(writers_by_file, allowed, names, private=()):
    """Rule 1.  names: {(kind, id): name}, as far as they are known; private: files that not
    everyone may read."""
    for file, writers in writers_by_file.items():
        others = [writer for writer in writers if not writer.is_one_of(allowed)]
        if others:
            who = str(others[0])
            if others[0].identity in names:
                who += ' (%s)' % printable(names[others[0].identity])
            mode = 600 if file in private else 644
            yield ('%s can be rewritten by %s, through %s: only root, or the user it names, '
                   'may be able to; copy it to where that is so (install -m %d -o root '
                   'FILE /etc), or give options instead of a file'
                   % (printable(file), who, printable(others[0].path), mode))


def overridden_root(security, writers_by_file):
    """Rule 2."""
    for option, (*earlier, last) in settings(security):
        roots = [place for place in earlier if not is_rewritable(writers_by_file, place)]
        if roots and is_rewritable(writers_by_file, last):
            yield ('%s overrides %s, and can be rewritten by the user it names: what root '
                   'says he may not change' % (located(last, option), shown_place(roots[0])))


def gifts(security, writers_by_file, beyond):
    """Rule 3.  beyond: {option: what it gives beyond that}.

    If the user's own file names the user, what root's file gives counts as his doing, too:
    his file chose who receives it.
    """
    for option, places in settings(security):
        chosen = option if is_rewritable(writers_by_file, places[-1]) else 'user'
        place = security.place(chosen)
        more = beyond.get(option)
        if more and is_rewritable(writers_by_file, place):
            yield ('%s can be rewritten by the user it names, who could thus give himself %s: %s'
                   % (located(place, chosen), option, shown(more)))


def rewritable(security, writers_by_file, allowed):
    """(option, warning) of each file of the user's own, at the first option it decides."""
    told = set()
    for option, places in settings(security):
        file, _, _ = places[-1]
        writers = writers_by_file.get(file, ())
        if file in told or not is_rewritable(writers_by_file, places[-1]):
            continue
        if all(writer.is_one_of(allowed) for writer in writers):
            told.add(file)
            yield option, ('%s can be rewritten by the user it names: it may not grant what '
                           'amounts to root' % printable(file))


# ----------------------------------------------------------------------------- State
#
# What a process holds: one type for what a plan must end in, what was read back, what
# `status` prints and what `audit` compares.  Made once, never changed.

class State:
    """What a process holds; None is what cannot be seen.

    On Linux: uid and gid (real, effective, saved, filesystem), groups, permitted,
    effective, inheritable, ambient and bounding (CapSet), securebits, keepcaps,
    no_new_privs, threads, root (device and inode of the root directory).
    On SunOS: uid and gid (real, effective, saved), groups, permitted, limit, effective and
    inheritable (sets of privileges), the flags aware, aware_reset, xpolicy, pfexec and
    pfexec_auth, zone, root.
    Of another process, as far as this one may see it: not securebits and keepcaps, but
    command, root_path and the namespaces user_ns and mnt_ns (device and inode), whether
    its current directory is outside of its root (cwd_outside), and the descriptors that are
    io_urings or fanotify groups that open files (io_urings, fanotify).
    warnings: those of the drop.
    """

    if TYPE_CHECKING:
        uid: 'Tuple[int, ...]'
        gid: 'Tuple[int, ...]'
        groups: 'Tuple[int, ...]'
        root: 'Tuple[int, int]'
        warnings: 'Tuple[str, ...]'

        # sets and flags: they differ from platform to platform
        def __getattr__(self, name: str) -> 'Any': ...

    def __init__(self, fields: 'Mapping[str, Any]', warnings: 'Iterable[str]' = ()) -> None:
        self.__dict__.update(fields, warnings=tuple(warnings))

    def __setattr__(self, name: str, value: 'Any') -> None:
        raise AttributeError('a State is never changed')

    def fields(self) -> 'Dict[str, Any]':
        """All but the warnings: {name: value}."""
        fields = dict(vars(self))
        del fields['warnings']
        return fields

    def seen(self) -> 'Dict[str, Any]':
        """The fields that are known."""
        return {name: value for name, value in self.fields().items() if value is not None}

    def differences(self, other: 'State') -> 'List[Tuple[str, Any, Any]]':
        """[(field, in this one, in the other)] of what is known of both.

        The primary group in the list of groups makes no difference.
        """
        others = other.seen()
        differences = []
        for name, value in self.seen().items():
            if name not in others:
                continue
            has = others[name]
            if name == 'groups':
                same = self.beside_primary() == other.beside_primary()
            else:
                same = value == has
            if not same:
                differences.append((name, value, has))
        return differences

    def beside_primary(self):
        """The supplementary groups without the primary one."""
        return set(self.groups) - {self.gid[0]}

    def agrees_with(self, other: 'State') -> bool:
        """True if no field that is known of both differs."""
        return not self.differences(other)

    def __eq__(self, other: object) -> bool:
        """As agrees_with: so two that are equal to a third one may differ."""
        return isinstance(other, State) and self.agrees_with(other)

    def __str__(self):
        lines = []
        for name, value in self.seen().items():
            lines.append('%-12s %s%s' % (name, shown(value), names_of_ids(name, value)))
        return '\n'.join(lines)

    def as_dict(self) -> 'Dict[str, Any]':
        """For JSON: sets as lists of names."""
        return plain(self.seen())


def changed(state, **fields):
    """A State like another one but for these fields, and without its warnings."""
    return State(dict(state.fields(), **fields))


def plain(fields):
    """{name: value} with values as JSON has them."""
    return {name: plain_value(value) for name, value in fields.items()}


def plain_value(value):
    if isinstance(value, (str, int)) and not isinstance(value, CapSet):
        return value
    if value is None:
        return value
    return list(value)


def names_of_ids(field, ids):
    """The names of users or groups after their numbers, as far as there are any."""
    if field not in ('uid', 'gid', 'groups'):
        return ''
    import grp
    import pwd
    by_number = pwd.getpwuid if field == 'uid' else grp.getgrgid
    names = []
    for number in sorted(set(ids)):
        entry = found_or_none(by_number, number)
        if entry is not None:
            names.append(entry[0])
    return ' (%s)' % ' '.join(names) if names else ''


MOST_MISSING = 16                       # up to so many, "all but" makes the shorter text


class CapSet(int):
    """A capability set: bit n is capability n (capabilities(7)).

    What & | - give is one as well, where one stands on the left.  Iterates over the names
    and prints as them.
    """

    def __and__(self, other):
        return CapSet(int(self) & other)

    def __or__(self, other):
        return CapSet(int(self) | other)

    def __sub__(self, other):
        return CapSet(int(self) & ~int(other))

    def numbers(self):
        return [number for number in range(self.bit_length()) if self >> number & 1]

    def __iter__(self):
        return map(this_platform().name_of, self.numbers())

    def __str__(self):
        missing = this_platform().every - self
        if len(missing.numbers()) > MOST_MISSING:
            return ' '.join(self) or 'none'
        if missing:
            return 'all but ' + ' '.join(missing)
        return 'all'


def capability(number):
    return CapSet(1 << number)


NO_CAPABILITIES = CapSet()


# ---------------------------------------------------------------- capability text -> sets
#
# The language of cap_from_text(3):
#
#   text   = { clause }                                     with blanks between them
#   clause = names "=" { flag } { change }                  these flags and no others
#          | names change { change }                        these flags too, or no longer
#          | "=" { flag }                                   all of them, as if all were named
#   change = ( "+" | "-" ) flag { flag }
#   names  = name { "," name }                              `all` forgets those before it
#   name   = "all" | NAME | NUMBER                          in capital letters too
#   NUMBER = decimal, octal after 0, hexadecimal after 0x: 0 to 63
#   flag   = "e" effective | "i" inheritable | "p" permitted

CAPABILITY_NAMES = tuple((                      # linux/capability.h, by number
    'cap_chown cap_dac_override cap_dac_read_search cap_fowner cap_fsetid cap_kill cap_setgid '
    'cap_setuid cap_setpcap cap_linux_immutable cap_net_bind_service cap_net_broadcast '
    'cap_net_admin cap_net_raw cap_ipc_lock cap_ipc_owner cap_sys_module cap_sys_rawio '
    'cap_sys_chroot cap_sys_ptrace cap_sys_pacct cap_sys_admin cap_sys_boot cap_sys_nice '
    'cap_sys_resource cap_sys_time cap_sys_tty_config cap_mknod cap_lease cap_audit_write '
    'cap_audit_control cap_setfcap cap_mac_override cap_mac_admin cap_syslog cap_wake_alarm '
    'cap_block_suspend cap_audit_read cap_perfmon cap_bpf cap_checkpoint_restore').split())
NUMBER_OF = dict(zip(CAPABILITY_NAMES, range(len(CAPABILITY_NAMES))))

# Whoever holds one of these can become root by it: write or own root's files, take any id
# or right, trace root's processes, mount, or load code into the kernel.  Others, such as
# net_admin or kill, rule what they name and no more.
ROOT_EQUIVALENT = sum(1 << NUMBER_OF[name] for name in (
    'cap_chown cap_dac_override cap_dac_read_search cap_fowner cap_setgid cap_setuid '
    'cap_setpcap cap_sys_module cap_sys_rawio cap_sys_chroot cap_sys_ptrace cap_sys_admin '
    'cap_sys_boot cap_mknod cap_setfcap cap_mac_override cap_mac_admin cap_perfmon '
    'cap_bpf').split())

OPERATORS = '=+-'
FLAGS = 'eip'
DIGITS = '0123456789abcdef'
IN_NAME = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_'
IN_TEXT = IN_NAME + ',' + OPERATORS + BLANKS
TAKE_AWAY = '~!-'                       # - here; ! and ~ for systemd, setpriv and others
QUOTES = '\'"`'


def read_capabilities(text, every, number_of=NUMBER_OF):
    """(permitted, effective, inheritable), each with bit n for capability n.

    every: the set that `all` stands for.  (libcap up to 2.27 means 64 bits, which no kernel
    takes: see read_text.)  number_of: the names that count, in small letters.
    ValueError(message, offset): the message may hold text of the user's, also a %.
    Whether the kernel has what is named is for the caller to judge.
    """
    reader = CapabilityText(text, every, number_of)
    try:
        reader.read()
    except Fault as fault:
        offset, reason, advice = fault.args
        remedy = proposal(text, number_of) or advice
        raise ValueError('%s: %s' % (reason, remedy), offset) from None
    return reader.sets['p'], reader.sets['e'], reader.sets['i']


class Fault(Exception):
    """(offset, reason, advice): what cannot be, and what to do if no text can be proposed."""


class CapabilityText:
    """A text and how far it is read.  One method for each rule of the grammar."""
    __slots__ = 'text', 'at', 'every', 'number_of', 'sets'

    def __init__(self, text, every, number_of):
        self.text = text + ' '                              # a blank ends every clause
        self.at = 0
        self.every = every
        self.number_of = number_of
        self.sets = dict.fromkeys(FLAGS, 0)                 # flag: the capabilities with it

    def read(self):
        strange = self.text.lstrip(IN_TEXT)
        if strange:
            raise strange_character(len(self.text) - len(strange), strange[0])
        self.take(BLANKS)
        while self.at < len(self.text):
            self.clause()
            self.take(BLANKS)

    def next(self):
        return self.text[self.at]

    def take(self, characters):
        """The run of these characters that stands here; reading goes on behind it."""
        behind = self.text[self.at:].lstrip(characters)
        taken = self.text[self.at:len(self.text) - len(behind)]
        self.at += len(taken)
        return taken

    def clause(self):
        start = self.at
        those = self.every
        if self.next() not in OPERATORS:
            those = self.names()
        names = self.text[start:self.at]
        if self.next() == '=':
            self.change(those)
        elif self.next() in BLANKS:
            raise Fault(start, '"%.60s" has no flags behind it' % names,
                        'write which, such as +ep')
        while self.next() not in BLANKS:
            if not names:
                raise Fault(self.at, '"%s" has no names before it' % self.next(),
                            'write what to keep, such as "cap_net_raw+ep"; '
                            'what is not named is given up')
            if self.next() == '=':
                raise Fault(self.at, '"=" may only stand directly behind the names',
                            'begin another clause, after a blank')
            self.change(those)

    def change(self, those):
        sign = self.next()
        self.at += len(sign)
        flags = self.flags()
        taken = {'=': FLAGS, '+': '', '-': flags}[sign]
        given = {'=': flags, '+': flags, '-': ''}[sign]
        if not taken + given:
            raise Fault(self.at - len(sign), '"%s" has no flags behind it' % sign,
                        'write which of e, i and p')
        for flag in taken:
            self.sets[flag] &= ~those
        for flag in given:
            self.sets[flag] |= those

    def flags(self):
        flags = self.take(FLAGS)
        if self.next() not in OPERATORS + BLANKS:
            at = self.at
            word = self.take(IN_NAME) or self.next()
            raise Fault(at, '"%.60s" is not a flag, and only a blank ends a clause' % word,
                        'flags are e (effective), i (inheritable) and p (permitted)')
        return flags

    def names(self):
        those = self.name(0)
        while self.next() == ',':
            self.at += len(',')
            those = self.name(those)
        return those

    def name(self, before):
        """The capabilities of a list up to this name."""
        at = self.at
        word = self.take(IN_NAME)
        if not word:
            comma = self.text.rindex(',', 0, at + 1)        # the one here, or just before
            raise Fault(comma, '"," may only stand between two names, without blanks',
                        'leave it out')
        if word.lower() == 'all':
            return self.every
        number = self.number_of.get(word.lower())
        if number is None:
            number = number_written(word)
        if number is None:
            raise unknown_name(at, word, self.number_of)
        return before | 1 << number


def number_written(word):
    """0 to 63, as strtoul(3) reads it; else None."""
    digits, base = word.lower(), 10
    if digits.startswith('0x'):
        digits, base = digits[len('0x'):], 16
    elif digits.startswith('0'):
        base = 8
    if not digits or digits.strip(DIGITS[:base]):
        return None
    digits = digits.lstrip('0') or '0'
    number = int(digits[:3], base)                          # three digits are too large
    return number if number < 64 else None


# What is said of other texts.  They are errors already, and from here on it is only words.
# Nothing is guessed for a text that takes something away: whoever followed a wrong guess would
# keep what he meant to give up.

def strange_character(at, mark):
    if mark in TAKE_AWAY:
        return Fault(at, '"%s" means "all but" elsewhere, and nothing here' % mark,
                     'name what to keep; what is not named is given up')
    if mark in QUOTES:
        return Fault(at, 'a quotation mark cannot stand in the text', 'leave it out')
    return Fault(at, '"%s" cannot stand in the text' % ascii(mark)[1:-1],
                 'a clause is written like "cap_net_raw,cap_kill+ep"')


def unknown_name(at, word, number_of):
    if word[0].isdigit():
        return Fault(at, '"%.60s" is not a number from 0 to 63' % word,
                     'octal ones begin with 0, hexadecimal ones with 0x')
    for name in CAPABILITY_NAMES:
        if bare(name) == bare(word) and name not in number_of:
            return Fault(at, 'this libcap does not know %s by name' % name,
                         'write %d' % NUMBER_OF[name])
    return Fault(at, '"%.60s" is not a capability' % word, 'capabilities(7) lists them; '
                 'write a newer one as its number, and "" to keep none')


def proposal(text, number_of):
    """The text that was probably meant, in words; '' where nobody can know."""
    if len(text) > 400:                                     # for a message
        return ''
    if any(mark in text for mark in TAKE_AWAY):
        return ''
    meant = respelt(text, str.__eq__, number_of, number_of)
    if is_proper(meant, number_of):
        return 'write "%s"' % meant
    weak = [name for name in number_of if not ROOT_EQUIVALENT >> number_of[name] & 1]
    meant = respelt(text, nearly, weak, number_of)
    if is_proper(meant, number_of):
        return 'did you mean "%s"?' % meant
    return ''


def is_proper(text, number_of):
    try:
        CapabilityText(text, 0, number_of).read()
    except Fault:
        return False
    return ' =' not in ' ' + text                           # it may have lost its names


def respelt(text, alike, likely, number_of):
    """The text as it would be if commas were blanks, blanks could surround signs, and +ep were
    the default.

    Names without flags are kept as those after them are.  A word that is no name is taken
    for the only one of the `likely` that is alike.
    """
    text = text.lower().strip(QUOTES + BLANKS)
    for mark in ',;|':
        text = text.replace(mark, ' ')
    for sign in '=+':
        text = sign.join(part.strip(BLANKS) for part in text.split(sign))
    for twice in '+=', '++', '==':
        text = text.replace(twice, twice[0])
    clauses = []
    names = []
    for word in text.split():
        flags = word.lstrip(IN_NAME)
        name = word[:len(word) - len(flags)]
        names.append(name if name in number_of else spelt(name, alike, likely))
        if flags:
            clauses.append(','.join(names) + flags)
            names = []
    if names:
        clauses.append(','.join(names) + '+ep')
    return ' '.join(clauses)


def spelt(word, alike, likely):
    """The only name that is alike; else the word as it is."""
    names = [name for name in likely if alike(bare(word), bare(name))]
    if len(names) == 1:
        return names[0]
    return word


def bare(name):
    """A name without cap_ and _: all names begin with cap_, and few people remember each _."""
    letters = name.lower().replace('_', '')
    if letters.startswith('cap'):
        return letters[len('cap'):]
    return letters


def nearly(written, name):
    """Is that the name but for one slip?  Not for names of three letters, where a slip makes
    another name."""
    same = len(os.path.commonprefix([written, name]))
    wrong = written[same:]
    right = name[same:]
    one_is_wrong = wrong[1:] == right[1:]
    one_too_much = wrong[1:] == right
    one_is_missing = wrong == right[1:]
    two_are_swapped = wrong[:2] == right[:2][::-1] and wrong[2:] == right[2:]
    a_slip = one_is_wrong or one_too_much or one_is_missing or two_are_swapped
    return len(name) > 3 and a_slip


# ------------------------------------------------------------------------- the platform
#
# A platform is created once and keeps nothing of one drop.  Linux is below; the other one
# is solaris_priv.py.  They raise ValueError and OSError only.  This is all that the shared
# chapters ask of one (its own checks may ask more):
#
# Constants and words
#   option                 which one it applies: 'capabilities' or 'privileges'
#   largest_id             of users and groups
#   most_groups()          how many supplementary groups the system takes
#   fields                 the names of the fields of a State, in order
#   may_lack               fields that no drop can make larger
#   cleared_by_exec        fields that execve(2) clears
#   reads_with             what reads and applies the option's text
#   waived                 the warning where no_new_privs is not wanted
#   not_there              what is said of a process that cannot be found
#   roots_own              what uid 0 owns without any right
#
# The option's text
#   parse(text)            the sets of a text: {name: set}, which iterate over their names;
#                          ValueError(message, offset)
#   powerful(sets)         the names in them that amount to root
#
# This process
#   wait_for_one_thread()  True if it has one
#   unshare()              is called before the process is looked at
#   unshare_text           what a plan prints for that, or ''
#   open_tasks()           a descriptor that read() needs in a jail without /proc, or None
#   read(tasks)            its fields, {name: value}, by system calls alone
#   may_set_groups(found)  False where something besides rights is in the way
#   rights(state, may_set_groups)   what it may change: a set of the names in ALL_RIGHTS
#   why_not(right, found)  why something cannot be changed: a text
#   unmapped_owners()      the set of ids that owners seem to have whom this system does not
#                          know
#   takes_a_line()         True if descriptor 2 takes a line without blocking
#
# Other processes
#   look(pid)              [(name, fields)] of the threads of a process, the first one first;
#                          a name is 'NUMBER (COMMAND)'
#   around()               {field: value}: root directory and namespaces of this process,
#                          which a process to be audited should share
#   elsewhere(fields, around)  why a process has a root directory of its own, or ''
#   audit_refusal(), hint(audit)   texts where a process cannot be judged from here
#
# Files
#   has_access_list(path)  True if others may write it than the mode says
#
# What to end in
#   goal(sets, with_ids, rights, exec, no_new_privs)   {field: value} to end in; with_ids:
#                          the State of now, but for the ids, which are those to end in
#   goal_of_root(with_ids)     the same for root that keeps everything
#   unlimited(fields)      the fields as if those in may_lack had been full before
#   assumed_root()         the fields of root at its start, for check
#
# Steps and checks
#   set_groups, change_root, set_gid, set_uid      rows for the steps in the middle
#   before, after          generators of rows: the steps around them, of a Case
#   regain                 a generator of rows that must fail afterwards, of a Case
#   checks, warnings       what stands against it, and what is worth a line: functions of
#                          a Case that yield sentences
#   doubts                 those of the checks that need no process
#
# A row is (its text, the function, its arguments...).

# What a process may change, whatever capability or privilege that takes here.
ALL_RIGHTS = frozenset(['user', 'group', 'groups', 'chroot', 'setpcap'])
IDENTITY_RIGHTS = ALL_RIGHTS - {'setpcap'}


def make_solaris():
    """The platform of SunOS, from solaris_priv.py beside this file.  (Whoever could rewrite
    that one could rewrite this one.)"""
    from importlib.util import module_from_spec, spec_from_file_location
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'solaris_priv.py')
    if not os.path.exists(path):
        raise OSError(errno.ENOENT, 'on SunOS solaris_priv.py is needed beside capdrop.py')
    spec = spec_from_file_location('solaris_priv', path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Solaris()


class Library:
    """A shared library, and how its functions are declared."""

    def __init__(self, soname):
        """By soname: find_library runs programs as root.  None is the C library."""
        try:
            import ctypes
        except (ImportError, MemoryError) as error:     # memory protection: 3.6 and 3.7
            raise OSError(errno.ENOSYS, 'this Python cannot call the C library: %s (Debian: '
                          'install libpython3-stdlib)' % error) from None
        self.ctypes = ctypes
        self.library = ctypes.CDLL(soname, use_errno=True)

    def raw(self, name, result, *arguments):
        """A C function whose answer the caller judges."""
        try:
            function = self.library[name]               # a new one each time
        except AttributeError:
            raise OSError(errno.ENOSYS, 'the system has no such function', name) from None
        function.restype = result
        if arguments:
            function.argtypes = arguments
        return function

    def checked(self, name, result, *arguments):
        """One whose answer -1 or NULL raises OSError, with errno and the name."""
        function = self.raw(name, result, *arguments)

        def check(answer, _, __):
            if answer in (None, -1):                    # the answer first: errno may be stale
                raise self.error(name)
            return answer
        function.errcheck = check
        return function

    def error(self, name):
        number = self.ctypes.get_errno()
        return OSError(number, os.strerror(number), name)


class Libcap:
    """libcap.so.2, where it can be loaded and is not older than the kernel: cap_from_text(3),
    cap_set_proc(3)."""

    def __init__(self):
        libcap = Library('libcap.so.2')
        ctypes = libcap.ctypes
        c_int, text, pointer = ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
        self.cap_init = libcap.checked('cap_init', pointer)
        self.cap_free = libcap.checked('cap_free', c_int, pointer)
        self.cap_clear = libcap.checked('cap_clear', c_int, pointer)
        self.cap_set_flag = libcap.checked(
            'cap_set_flag', c_int, pointer, c_int, c_int, pointer, c_int)
        self.cap_get_flag = libcap.checked(
            'cap_get_flag', c_int, pointer, c_int, c_int, pointer)
        self.cap_compare = libcap.checked('cap_compare', c_int, pointer, pointer)
        self.cap_set_proc = libcap.checked('cap_set_proc', c_int, pointer)
        self.raw_from_text = libcap.raw('cap_from_text', pointer, text)
        self.raw_to_name = libcap.raw('cap_to_name', pointer, c_int)
        self.values = c_int * 64                        # cap_value_t
        self.string_at = ctypes.string_at
        self.answer = (c_int * 1)()
        self.filled = self.cap_init()       # filled anew for each use; never freed

    def fill(self, permitted, effective, inheritable):
        """A cap_t with these sets.  libcap allocates nothing: this is done in a drop, too."""
        self.cap_clear(self.filled)
        for flag, capabilities in ((CAP_PERMITTED, permitted), (CAP_EFFECTIVE, effective),
                                   (CAP_INHERITABLE, inheritable)):
            numbers = capabilities.numbers()
            for some in numbers[:32], numbers[32:]:     # it does not take 64 at once
                if some:
                    values = self.values(*some)
                    self.cap_set_flag(self.filled, flag, len(some), values, CAP_SET)
        return self.filled

    def must_take(self, number):
        """OSError if this libcap is older than a capability: it would leave that one out."""
        self.cap_get_flag(self.filled, number, CAP_EFFECTIVE, self.answer)

    def apply(self, permitted, effective, inheritable):
        self.cap_set_proc(self.fill(permitted, effective, inheritable))

    def name_of(self, number):
        pointer = self.raw_to_name(number)
        if pointer is None:
            return str(number)
        name = self.string_at(pointer).decode()
        self.cap_free(pointer)
        return name

    def agrees(self, text, readings):
        """Does cap_from_text(3) read the text as one of these (permitted, effective,
        inheritable)?  They are compared by cap_compare(3)."""
        theirs = self.raw_from_text(text.encode('ascii'))
        if theirs is None:
            return False
        try:
            for sets in readings:
                if self.cap_compare(self.fill(*sets), theirs) == 0:
                    return True
            return False
        finally:
            self.cap_free(theirs)


def libcap_or_none(last):
    """A libcap that takes all capabilities of the kernel, up to the last one."""
    try:
        libcap = Libcap()
        libcap.must_take(last)
    except OSError:
        return None
    return libcap


# -------------------------------------------------------------------- Linux: the calls
#
# capabilities(7), prctl(2), capget(2), cap_from_text(3).  What is asked of the kernel is
# asked here; what follows from the answers is further down.

PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_GET_KEEPCAPS, PR_SET_KEEPCAPS = 3, 4, 7, 8
PR_GET_SECCOMP = 21
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_GET_SECUREBITS, PR_SET_SECUREBITS = 23, 24, 27, 28
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 38, 39, 47  # linux/prctl.h
PR_CAP_AMBIENT_IS_SET, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_LOWER = 1, 2, 3
SECBIT_NOROOT, SECBIT_NOROOT_LOCKED = 1, 2                              # linux/securebits.h
SECBIT_NO_SETUID_FIXUP = 4
SECBIT_KEEP_CAPS, SECBIT_KEEP_CAPS_LOCKED, SECBIT_NO_CAP_AMBIENT_RAISE = 16, 32, 64
CAP_EFFECTIVE, CAP_PERMITTED, CAP_INHERITABLE, CAP_SET = 0, 1, 2, 1     # sys/capability.h
CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SYS_CHROOT = map(capability, (6, 7, 8, 18))
CLONE_VM, CLONE_FS, CLONE_FILES = 0x100, 0x200, 0x400                   # linux/sched.h
CAPABILITY_VERSION_3 = 0x20080522                                       # linux/capability.h
POLLOUT_TWICE = 0x40004         # asm/poll.h: POLLOUT in events and in revents
IO_URING_ENTER, IORING_ENTER_REGISTERED_RING = 426, 16  # asm/unistd.h, linux/io_uring.h
IO_RINGFD_REG_MAX = 16          # rings of a thread: linux/io_uring_types.h
OTHER_CALL_NUMBERS = 'alpha', 'mips'                    # machines where 426 is another call
FAN_REPORT_FID_OR_DIR_FID = 0x600                                       # linux/fanotify.h
IO_URING, FANOTIFY = 'anon_inode:[io_uring]', 'anon_inode:[fanotify]'   # names in /proc
ACTS_ON_OTHERS = {                                                      # likewise
    'anon_inode:[userfaultfd]': 'a userfaultfd, which fills pages of the memory it is for',
    'anon_inode:seccomp notify': 'the listener of a seccomp filter, which answers system calls',
}
# getxattr(2): there is none, or there are none in this file system or kernel
NO_SUCH_ATTRIBUTE = errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS
NOT_AN_ID = 4294967295          # -1: "leave unchanged", or a call that failed
FIRST_ERROR = NOT_AN_ID + 1 - 4095  # on 32 bits glibc's setfsuid answers with -errno
POISON = 0xa5a5a5a5
NO_DESCRIPTOR = 1 << 30         # beyond what any process may open
BEYOND = 64                     # the number of no capability anywhere

CAPABILITY_FOR = {'user': CAP_SETUID, 'group': CAP_SETGID, 'groups': CAP_SETGID,
                  'chroot': CAP_SYS_CHROOT, 'setpcap': CAP_SETPCAP}


class LinuxCalls:
    """What is asked of the kernel and of libcap.  (The verbs are listed above.)"""

    option = 'capabilities'
    largest_id = NOT_AN_ID - 1
    fields = ('uid', 'gid', 'groups', 'permitted', 'effective', 'inheritable', 'ambient',
              'bounding', 'securebits', 'keepcaps', 'no_new_privs', 'threads', 'root')
    unshare_text = 'unshare(CLONE_FS | CLONE_FILES)'
    not_there = ('there is no process %d, or it has ended, or /proc does not show it to this '
                 'user (hidepid) or is not mounted')
    roots_own = '/etc and /proc/sys'
    cleared_by_exec = ()
    may_lack = ('bounding',)
    waived = ('no_new_privs is waived: setuid and file-capability programs can raise '
              'privileges')

    def __init__(self):
        libc = self.libc = Library(None)
        ctypes = libc.ctypes
        c_int, c_uint, c_long = ctypes.c_int, ctypes.c_uint, ctypes.c_long
        c_ulong, size, text = ctypes.c_ulong, ctypes.c_size_t, ctypes.c_char_p
        pointer = ctypes.c_void_p
        self.prctl = libc.checked('prctl', c_int, c_int, c_ulong, c_ulong, c_ulong, c_ulong)
        self.capget = libc.checked('capget', c_int, pointer, pointer)
        self.capset = libc.checked('capset', c_int, pointer, pointer)
        self.setgroups = libc.checked('setgroups', c_int, size, pointer)
        # No argtypes: it is called with c_ulongs made once, which takes half the time.
        self.raw_prctl = libc.raw('prctl', c_int)
        self.raw_setfsuid = libc.raw('setfsuid', c_uint, c_uint)
        self.raw_setfsgid = libc.raw('setfsgid', c_uint, c_uint)
        self.raw_unshare = libc.raw('unshare', c_int, c_int)
        self.raw_poll = libc.raw('poll', c_int, pointer, c_ulong, c_int)
        self.raw_getxattr = libc.raw('getxattr', c_long, text, text, pointer, size)
        self.raw_syscall = libc.raw('syscall', c_long, *[c_long] * 7)
        self.get_errno = ctypes.get_errno
        self.c_uint = c_uint
        self.c_ulongs = tuple(map(c_ulong, range(BEYOND + 1)))
        self.every = self.capabilities_of_kernel()
        self.probed = self.c_ulongs[:self.every.bit_length()] + self.c_ulongs[BEYOND:]
        zero = self.c_ulongs[0]
        is_set = self.c_ulongs[PR_CAP_AMBIENT_IS_SET]
        self.has_ambient = self.raw_prctl(PR_CAP_AMBIENT, is_set, zero, zero, zero) != -1
        if not self.has_ambient and 'CapAmb:' in (contents_or_none('/proc/self/status') or ''):
            raise OSError(errno.EPERM, 'PR_CAP_AMBIENT is blocked: a seccomp filter', 'prctl')
        self.libcap = libcap_or_none(self.every.bit_length() - 1)

    @property
    def reads_with(self):
        return 'capset(2), without libcap' if self.libcap is None else 'libcap'

    # text

    def parse(self, text):
        """{'permitted': CapSet, ...}; raises ValueError(message, offset)."""
        sets = self.read_text(text)
        known = {'permitted': sets[0], 'effective': sets[1], 'inheritable': sets[2]}
        unknown = (sets[0] | sets[1] | sets[2]) - self.every
        if unknown:
            last = self.every.bit_length() - 1
            raise ValueError('this kernel has no capability %s; its last is %d, %s' % (
                ' '.join(unknown), last, self.name_of(last)), 0)
        passive = sets[1] - sets[0]
        if passive:
            raise ValueError('%s cannot be effective without being permitted: add p'
                             % passive, 0)
        return known

    def read_text(self, text):
        """(permitted, effective, inheritable), which libcap has to read alike."""
        if self.libcap is None:
            return self.read_text_ourselves(text, self.every, NUMBER_OF)
        names = NUMBER_OF
        try:
            sets = self.read_text_ourselves(text, self.every, names)
        except ValueError:
            names = self.names_in_libcap()          # it may be newer than our table
            sets = self.read_text_ourselves(text, self.every, names)
        readings = [sets]
        if 'all' in text.lower() or '=' in text:
            every = CapSet(2 ** 64 - 1)             # what `all` means to libcap up to 2.27
            readings.append(self.read_text_ourselves(text, every, names))
        if not self.libcap.agrees(text, readings):
            # raises, naming what this libcap does not know by name
            self.read_text_ourselves(text, self.every, self.names_in_libcap())
            raise ValueError('cap_from_text(3) of this libcap reads it in another way', 0)
        return sets

    @staticmethod
    def read_text_ourselves(text, every, number_of):
        return tuple(map(CapSet, read_capabilities(text, every, number_of)))

    def names_in_libcap(self):
        """{name: number} of those that the libcap of this system knows."""
        numbers = range(self.every.bit_length())
        return {self.libcap.name_of(number): number for number in numbers}

    def name_of(self, number):
        if number < len(CAPABILITY_NAMES):
            return CAPABILITY_NAMES[number]
        if self.libcap is not None:
            return self.libcap.name_of(number)
        return str(number)

    def powerful(self, sets):
        return (sets['permitted'] | sets['inheritable']) & ROOT_EQUIVALENT

    # reading this process

    def read(self, tasks):
        """Its fields, by system calls alone: a jail may have no /proc."""
        permitted, effective, inheritable = self.capability_sets()
        fields = {
            'uid': self.with_filesystem_uid(named('getresuid', posix.getresuid), tasks),
            'gid': self.with_filesystem_gid(named('getresgid', posix.getresgid), tasks),
            'groups': tuple(sorted(set(named('getgroups', posix.getgroups)))),
            'permitted': permitted,
            'effective': effective,
            'inheritable': inheritable,
            'ambient': self.ambient_set() if self.has_ambient else NO_CAPABILITIES,
            'bounding': self.bounding_set(),
            'securebits': self.flag(PR_GET_SECUREBITS),
            'keepcaps': self.flag(PR_GET_KEEPCAPS),
            'no_new_privs': self.flag(PR_GET_NO_NEW_PRIVS),
            'threads': self.threads(tasks),
            'root': device_and_inode('/'),
        }
        for name, value in fields.items():
            if value is None or value == -1:
                message = 'this kernel has no %s, which capdrop needs' % name
                raise OSError(errno.ENOSYS, message)
        return fields

    def words(self, *values):
        return (self.c_uint * len(values))(*values)

    def capability_sets(self):
        """(permitted, effective, inheritable) of this thread.  capget(2)"""
        data = self.words(*[POISON] * 6)            # a call that lies leaves it so
        self.capget(self.words(CAPABILITY_VERSION_3, 0), data)
        effective, permitted, inheritable = (
            CapSet(data[n] | data[n + 3] << 32) for n in range(3))
        if (effective | permitted | inheritable) - self.every:
            raise untrue('did not fill its buffer', 'capget')
        return permitted, effective, inheritable

    def flag(self, option):
        zero = self.c_ulongs[0]
        return self.raw_prctl(option, zero, zero, zero, zero)

    def bounding_set(self):
        count = len(self.probed)
        return self.asked_bit_by_bit([PR_CAPBSET_READ] * count, self.probed)

    def ambient_set(self):
        """The ambient set; None where the kernel has none."""
        count = len(self.probed)
        is_set = [self.c_ulongs[PR_CAP_AMBIENT_IS_SET]] * count
        zeros = [self.c_ulongs[0]] * count
        return self.asked_bit_by_bit([PR_CAP_AMBIENT] * count, is_set, self.probed, zeros, zeros)

    def asked_bit_by_bit(self, *columns):
        """The set that prctl tells, asked bit by bit.  columns: its arguments, one list for
        each position.

        The last question is about no capability: its answer, and so errno when all are
        asked, is EINVAL.  None where every answer is that one: this kernel has no such set.
        """
        *answers, beyond = map(self.raw_prctl, *columns)
        if beyond == -1 and self.get_errno() == errno.EINVAL:
            if set(answers) == {-1}:
                return None
            if set(answers) <= {0, 1}:
                return CapSet(sum(answer << n for n, answer in enumerate(answers)))
        raise self.strange_answer()

    def strange_answer(self):
        return untrue('does not answer as the kernel does (%s)' % os.strerror(
            self.get_errno()), 'prctl')

    def capabilities_of_kernel(self):
        """All capabilities of this kernel: those whose bit in the bounding set can be read."""
        answers = [self.raw_prctl(PR_CAPBSET_READ, number) for number in self.c_ulongs]
        count = len(answers) - answers.count(-1)
        if count == 0 or answers[BEYOND] != -1:
            raise self.strange_answer()
        return CapSet(2 ** count - 1)

    def with_filesystem_uid(self, ids, tasks):
        answer = self.raw_setfsuid(NOT_AN_ID)
        return ids + (self.filesystem_id('setfsuid', answer, ids, '\nUid:', tasks),)

    def with_filesystem_gid(self, ids, tasks):
        answer = self.raw_setfsgid(NOT_AN_ID)
        return ids + (self.filesystem_id('setfsgid', answer, ids, '\nGid:', tasks),)

    @staticmethod
    def filesystem_id(call, answer, ids, line, tasks):
        """The answer to a call for an id that is none: it changes nothing, and answers with
        the present one.  Where a filter blocks it, what /proc says.  setfsuid(2)"""
        if answer in ids or answer < FIRST_ERROR:
            return answer
        text = None
        if tasks is not None:
            text = contents_or_none('%d/status' % posix.getpid(), tasks)
        if text is None:
            raise OSError(errno.EPERM, 'is blocked, and there is no /proc to look into', call)
        _, _, rest = text.partition(line)
        if not rest:
            raise OSError(errno.EPERM, 'is blocked, and /proc does not tell', call)
        real_effective_saved_filesystem = rest.split()[:4]
        return int(real_effective_saved_filesystem[-1])

    def threads(self, tasks):
        """How many tasks share the memory of this process; 2 may stand for more, 0 for
        "cannot be told".

        unshare(CLONE_VM) fails with EINVAL where another task does, thread or not, and does
        nothing where none does.  unshare(2)  Where it is blocked only threads are counted.
        """
        count = 0
        if self.raw_unshare(CLONE_VM) == 0:
            count = 1
        elif self.get_errno() == errno.EINVAL:
            count = 2
        try:
            status = posix.stat('/proc/self/task') if tasks is None else posix.fstat(tasks)
        except OSError:
            return count
        return max(count, status.st_nlink - 2)      # . and .. and a directory for each

    def open_tasks(self):
        try:
            return posix.open('/proc/self/task', os.O_RDONLY | O_DIRECTORY)
        except OSError:
            return None                             # /proc is not mounted

    def wait_for_one_thread(self):
        """Is there one thread, or is there within 0.2 s?  One that was joined lives on for a
        moment in the kernel."""
        count = self.threads(None)
        for _ in range(100):
            if count <= 1:
                break
            self.raw_poll(None, 0, 2)               # ms; time.sleep may be another program's
            count = self.threads(None)
        return count == 1

    def unshare(self):
        """From here on nobody else opens descriptors here, or changes root and current
        directory.  Only with one thread: a second one would lose what they share.

        Where a filter blocks it, as in most containers, a task that was made by clone(2)
        with CLONE_FILES or CLONE_FS goes on sharing them, and is not noticed.
        """
        if self.raw_unshare(CLONE_FS | CLONE_FILES) == 0:
            return
        if self.get_errno() not in (errno.EPERM, errno.ENOSYS):     # blocked, as by Docker
            raise self.libc.error('unshare')

    def may_set_groups(self, found):
        """False where the user namespace is known to deny it.  user_namespaces(7)

        True also where that cannot be told: several_threads or calls_blocked refuses then.
        """
        try:
            return contents('/proc/self/setgroups') != 'deny'
        except OSError:
            pass                                    # no /proc, or no such file
        if found.threads != 1:                      # a trial would reach all of them
            return True
        raised = (found.permitted & CAP_SETGID) - found.effective
        try:
            [(_, error)] = self.tried(found, raised, [self.setgroups_trial()])
        except OSError:                             # capset(2) is blocked
            return True
        if error is None or error.errno == errno.EINVAL:
            return True
        return self.may_be_filtered()               # by a filter, or by the namespace

    def setgroups_trial(self):
        """More groups than there can be: EINVAL, after the right has been asked for."""
        return 'setgroups', (errno.EINVAL,), self.setgroups, self.most_groups() + 1, None

    def may_be_filtered(self):
        """Could a seccomp filter block calls?  seccomp(2)"""
        return self.flag(PR_GET_SECCOMP) != 0

    def tried(self, found, raised, trials):
        """[(trial, its error or None)] of calls that change nothing.

        They are made with the rights that the drop will have: `raised` is effective
        meanwhile.  A trial: (name, errors that do not matter, call, *args).
        """
        if raised:                                  # (OSError if a filter blocks capset)
            self.put_sets(found.permitted, found.effective | raised, found.inheritable)
        try:
            return [(trial, error_of(*trial[2:])) for trial in trials]
        finally:
            if raised:
                self.give_back(found)

    def give_back(self, found):
        """Take back what was made effective for a trial; end the process if that fails."""
        try:
            self.put_sets(found.permitted, found.effective, found.inheritable)
        except OSError as error:
            end_process('capabilities made effective for a moment stay so: ' + because(error))

    def put_sets(self, permitted, effective, inheritable):
        self.capset(*self.capset_data(permitted, effective, inheritable))

    def capset_data(self, permitted, effective, inheritable):
        """The arguments of capset(2)."""
        in_order = effective, permitted, inheritable        # as capset(2) has them
        low = [int(one) & 0xffffffff for one in in_order]
        high = [int(one) >> 32 for one in in_order]
        return self.words(CAPABILITY_VERSION_3, 0), self.words(*low + high)

    def put_groups(self, groups):
        """setgroups(2); that of Python takes 32 on musl."""
        self.setgroups(len(groups), self.words(*groups))

    def takes_a_line(self):
        """Has descriptor 2 room?  POLLOUT says that a pipe takes 4096 bytes.

        A struct pollfd: the descriptor, and events and revents in one word, in either order
        of bytes.  revents must come back as they were set.
        """
        pollfd = self.words(2, POLLOUT_TWICE)
        ready = self.raw_poll(pollfd, 1, 0)
        return ready == 1 and pollfd[1] == POLLOUT_TWICE

    def has_access_list(self, path):
        """A list of POSIX 1003.1e, acl(5): where the group may write, since that is its mask.
        NFSv4 lists are the server's to judge."""
        if not posix.lstat(path).st_mode & stat.S_IWGRP:
            return False
        attribute = b'system.posix_acl_access'
        size = self.raw_getxattr(os.fsencode(path), attribute, None, 0)
        if size >= 0:
            return size > 0
        if self.get_errno() in NO_SUCH_ATTRIBUTE:
            return False
        raise self.libc.error('getxattr')

    def unmapped_owners(self):
        """The ids that owners seem to have whom this user namespace does not map; none where
        it maps every id.  user_namespaces(7)"""
        numbers = set()
        for kind in 'uid', 'gid':
            if not maps_every_id(kind):
                overflow = contents_or_none('/proc/sys/kernel/overflow' + kind)
                numbers.add(int(overflow or 65534))
        return frozenset(numbers)

    # looking at others

    def look(self, pid):
        # the directory stays that of this process if its number goes to another
        tasks = posix.open('/proc/%d/task' % pid, os.O_RDONLY | O_DIRECTORY)
        alive = []
        try:
            for number, fields in every_task(tasks, pid).items():
                if fields:                          # not of a zombie
                    name = '%d (%s)' % (number, printable(fields['command']))
                    alive.append((name, fields))
                    if len(alive) == 1:             # its threads share them, most often
                        fields.update(descriptors_of(tasks, number))
        finally:
            posix.close(tasks)
        if not alive:
            raise ProcessLookupError
        return alive

    def around(self):
        return surroundings_of(None, '/proc/self/')

    def most_groups(self):
        return 65536                                # NGROUPS_MAX of linux/limits.h


def error_of(call, *args):
    try:
        call(*args)
    except OSError as error:
        return error
    return None


def contents(path, directory=None):
    """The text of a small file, without blanks around it."""
    descriptor = posix.open(path, os.O_RDONLY, dir_fd=directory)
    pieces = []
    try:
        piece = posix.read(descriptor, 65536)
        while piece:
            pieces.append(piece)
            piece = posix.read(descriptor, 65536)
    finally:
        posix.close(descriptor)
    return b''.join(pieces).decode('utf-8', 'replace').strip()


def contents_or_none(path, directory=None):
    try:
        return contents(path, directory)
    except OSError:
        return None


def device_and_inode(file, **where):
    status = posix.stat(file, **where)
    return status.st_dev, status.st_ino


def id_map(kind):
    """[(first inside, first outside, count)] of this user namespace; None without /proc."""
    text = contents_or_none('/proc/self/%s_map' % kind)
    if text is None:
        return None
    return [tuple(map(int, line.split())) for line in text.splitlines()]


def maps_every_id(kind):
    """Does this user namespace map every id?  The initial user namespace does."""
    ranges = id_map(kind)
    if ranges is None:
        return is_mapped_by_trial(kind, NOT_AN_ID - 1)
    return sum(count for _, _, count in ranges) >= NOT_AN_ID


# ------------------------------------------------- Linux: what /proc says of a process

STATUS_LINES = {                # of proc(5); older kernels do not tell them all
    'permitted': 'CapPrm', 'effective': 'CapEff', 'inheritable': 'CapInh',
    'ambient': 'CapAmb', 'bounding': 'CapBnd', 'no_new_privs': 'NoNewPrivs',
    'threads': 'Threads'}
# PyPy and SunOS lack some of them.
O_PATH = getattr(os, 'O_PATH', os.O_RDONLY)
O_DIRECTORY = getattr(os, 'O_DIRECTORY', 0)         # lstat(2) has said that it is one
O_NOFOLLOW = getattr(os, 'O_NOFOLLOW', 0)           # and that it is no link


def every_task(tasks, pid):
    """{thread: its fields} of all threads: looked at again until none can have been missed,
    since one could hide among others that start and end fast."""
    known_groups = {}
    for _ in range(200):
        numbers = task_numbers(tasks)
        numbers.sort(key=lambda number: (number != pid, number))
        found = {number: task_fields(tasks, number, known_groups) for number in numbers}
        if is_complete(found, tasks):
            return found
    raise OSError(errno.EAGAIN, 'starts and ends threads too fast to look at them',
                  'process %d' % pid)


def task_numbers(tasks):
    return [int(name) for name in posix.listdir(tasks)]


def is_complete(found, tasks):
    """Has every thread been seen that there is?

    The directory says how many there are.  Those that were seen before that, and are listed
    after it, were alive at that moment: if they are as many, there was no other.  And none
    has gained a right since it was seen, which no thread does by itself.
    """
    if posix.fstat(tasks).st_nlink - 2 != len(found) or None in found.values():
        return False
    return set(found) == set(task_numbers(tasks))       # after fstat(2), not before


def task_fields(tasks, number, known_groups):
    """The fields of one thread: {} if it is a zombie, None if it has ended.  proc(5)"""
    try:
        lines = status_lines(tasks, number)
        if lines['State'][0] in 'ZX':
            return {}
        places = surroundings_of(tasks, '%d/' % number)
    except (FileNotFoundError, ProcessLookupError):
        return None
    groups = tuple(map(int, lines['Groups'].split()))
    fields = {'uid': tuple(map(int, lines['Uid'].split())),
              'gid': tuple(map(int, lines['Gid'].split())),
              'groups': known_groups.setdefault(groups, groups)}    # there may be 65536
    for name, line in STATUS_LINES.items():
        if line.startswith('Cap') and line in lines:
            fields[name] = CapSet(lines[line], 16)
        elif line in lines:
            fields[name] = int(lines[line])
    return dict(fields, command=lines['Name'], **places)


def status_lines(tasks, number):
    """{name: text} of /proc/PID/task/NUMBER/status."""
    lines = {}
    descriptor = posix.open('%d/status' % number, os.O_RDONLY, dir_fd=tasks)
    with open(descriptor, 'rb') as file:
        for line in file:
            name, tab, text = line.decode('utf-8', 'backslashreplace').partition(':\t')
            if tab:
                lines[name] = text.rstrip('\n')
    return lines


def surroundings_of(directory, where):
    """Root directory, current directory and namespaces, as far as they can be seen.

    Seeing them takes the right to trace the process; without that right the result is empty.
    """
    result = {}
    try:
        for name, link in ('user_ns', 'ns/user'), ('mnt_ns', 'ns/mnt'):
            try:
                result[name] = device_and_inode(where + link, dir_fd=directory)
            except FileNotFoundError:
                pass                                # this kernel has no such namespaces
        result['root'] = device_and_inode(where + 'root', dir_fd=directory)
        root = posix.readlink((where + 'root').encode(), dir_fd=directory)
        result['root_path'] = root.decode('utf-8', 'backslashreplace')
        outside = is_outside(root, result['root'], where + 'cwd', directory)
        result['cwd_outside'] = int(outside)
    except PermissionError:
        # A process that has ended gives this error as well; then this raises FileNotFoundError.
        posix.stat(where + 'status', dir_fd=directory)
    return result


def descriptors_of(tasks, number):
    """{'fanotify': those that open files, 'io_urings': ...}, as far as there are any."""
    result = {}
    try:
        directory = posix.open('%d/fd' % number, os.O_RDONLY | O_DIRECTORY, dir_fd=tasks)
    except OSError:
        return result                               # not for this user to see, or it has ended
    try:
        for name in posix.listdir(directory):
            path = link_or_none(name, directory)
            if path == IO_URING:
                result.setdefault('io_urings', []).append(int(name))
            elif path == FANOTIFY and opens_files('%d/fdinfo/%s' % (number, name), tasks):
                result.setdefault('fanotify', []).append(int(name))
    finally:
        posix.close(directory)
    return {kind: tuple(sorted(numbers)) for kind, numbers in result.items()}


def link_or_none(name, directory=None):
    try:
        return posix.readlink(name, dir_fd=directory)
    except OSError:
        return None                                 # gone meanwhile, or no /proc


def opens_files(fdinfo, directory=None):
    """Does a fanotify group open files?  Not if its events name them by handles.

    fanotify_init(2)
    """
    text = contents_or_none(fdinfo, directory)
    if text is None:
        return True
    _, _, flags = text.partition('fanotify flags:')
    words = flags.split()
    return not words or not int(words[0], 16) & FAN_REPORT_FID_OR_DIR_FID


def is_outside(root, identity, cwd, directory):
    """Does this current directory lead out of the root?

    `..` for each name below the root must lead to the root itself, not to something that is
    mounted over it.
    """
    here = posix.open(cwd, O_PATH, dir_fd=directory)        # it may change meanwhile
    try:
        above = root.rstrip(b'/') + b'/'
        path = posix.readlink(b'/proc/self/fd/%d' % here).rstrip(b'/') + b'/'
        if not path.startswith(above):
            return True
        depth = path[len(above):].count(b'/')
        return device_and_inode('./' + '../' * depth, dir_fd=here) != identity
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return True                                         # deeper than can be told
    finally:
        posix.close(here)


# ---------------------------------------------------------------- Security -> Target
#
# The only chapter that asks the name service for a drop.  (`status`, and printing a State,
# ask it for names.)  The name service may hang, and it may leave a thread or a descriptor
# behind: so all of it is asked here, before this process is looked at.

DEFAULT_USER = 'ecuser'                             # the documented default
NO_USER = 'no user is named, and the default, %s, has no account: name one' % DEFAULT_USER


class Account:
    """An entry of passwd(5), and what the name service says beside it.

    groups      all that initgroups(3) would give, the primary one included; empty where
                they are not needed: see Names.account
    own_group   is the primary group the user's alone: of the same name, without other
                members, as far as the name service lists them?  False, without asking,
                where no file can be written by that group
    """
    __slots__ = 'name', 'uid', 'gid', 'home', 'shell', 'groups', 'own_group'

    def __init__(self, entry, groups, own_group):
        self.name = entry.pw_name
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid
        self.home = entry.pw_dir
        self.shell = entry.pw_shell
        self.groups = groups
        self.own_group = own_group


class Target:
    """What a Security asks for, in numbers.

    uid, gid    None where the process decides
    account     of the user that is named, None if it is a number without one
    default     the Account of the documented default, looked up where no user is named;
                None if there is none
    groups      sorted; None: none are named
    sets        {'permitted': set, ...}; None: the option is absent
    writer_names    {(kind, id): name} of those who could rewrite a file, for messages
    """
    __slots__ = ('platform', 'uid', 'gid', 'account', 'default', 'groups', 'sets',
                 'writer_names')

    def __init__(self, platform, uid, gid, account, default, groups, sets, writer_names):
        self.platform = platform
        self.writer_names = writer_names
        self.uid = uid
        self.gid = gid
        self.account = account
        self.default = default
        self.groups = groups
        self.sets = sets

    def account_for(self, rights):
        """Whose account a process with these rights would take, or None."""
        if self.uid is None and 'user' in rights:
            return self.default
        return self.account


def raise_error(error):
    raise error from None


def look_up(security, platform, report=raise_error):
    """The Target of a Security.

    `report` is called with a ConfigError for each value that names nothing.  It may
    collect them: what is wrong is then None in the Target.
    """
    names = Names(security, platform, report)
    uid = account = default = None
    if security.user is not None:
        uid, account = names.user()
    else:
        default = names.default_user()
    gid = names.primary_group(uid, account)
    if security.init_groups:
        groups = names.groups_of(account)
    else:
        groups = names.supplemental_groups()
    sets = parse_option(security, platform, report)
    writers = names.of_writers()
    return Target(platform, uid, gid, account, default, groups, sets, writers)


def parse_option(security, platform, report):
    """The sets of the platform's own option; None where it is absent, or wrong."""
    option = platform.option
    text = getattr(security, option)
    if text is None:
        return None
    try:
        return platform.parse(text)
    except ValueError as error:
        message, offset = error.args
    if security.is_private(option):
        message = 'not a value for it'
    report(security.error(option, message, offset=offset))
    return None


class Names:
    """The name service, asked for one Security: a name first, then a number."""

    def __init__(self, security, platform, report):
        import grp
        import pwd
        self.grp, self.pwd = grp, pwd
        self.security = security
        self.platform = platform
        self.report = report

    def user(self):
        """(uid, his Account), either of them None."""
        text = self.security.user
        entry = found_or_none(self.pwd.getpwnam, as_the_system_spells(text))
        if entry is not None:
            number = entry.pw_uid
        else:
            number = self.number('user', text)
        number = self.in_range('user', text, number)
        if number is not None and entry is None:
            entry = found_or_none(self.pwd.getpwuid, number)
        return number, self.account(entry)

    def default_user(self):
        """The Account of the documented default, or None."""
        entry = found_or_none(self.pwd.getpwnam, DEFAULT_USER)
        if entry is not None:
            self.in_range('user', '%d (the id of %s)' % (entry.pw_uid, DEFAULT_USER),
                          entry.pw_uid)
            self.in_range('user', '%d (the primary group of %s)' % (
                entry.pw_gid, DEFAULT_USER), entry.pw_gid)
        return self.account(entry)

    def primary_group(self, uid, account):
        if self.security.group is not None:
            return self.group('group', self.security.group)
        if account is not None:
            text = '%d (the primary group of %s)' % (account.gid, account.name)
            return self.in_range('user', text, account.gid)
        if uid is not None:
            self.wrong('user', '%s has no account, so no primary group: name a group',
                       self.security.user)
        return None

    def supplemental_groups(self):
        """Sorted, without duplicates; None where the option is absent."""
        if self.security.supplemental_groups is None:
            return None
        names = set(self.security.supplemental_groups)
        most = self.platform.most_groups()
        if len(names) > most:
            self.wrong('supplemental_groups', '%d groups: this system takes %d' % (
                len(names), most))
            return None
        groups = {self.group('supplemental_groups', name) for name in names}
        return tuple(sorted(groups - {None}))

    def groups_of(self, account):
        """All groups of the account of the user that is named.  initgroups(3)"""
        if account is None:
            self.wrong('user', 'init_groups gives all groups of an account: name a user '
                       'that has one')
            return None
        for gid in account.groups:
            self.in_range('user', '%d (a group of %s)' % (gid, account.name), gid)
        return tuple(sorted(account.groups))

    def group(self, option, text):
        entry = found_or_none(self.grp.getgrnam, as_the_system_spells(text))
        if entry is not None:
            number = entry.gr_gid
        else:
            number = self.number(option, text)
        return self.in_range(option, text, number)

    def number(self, option, text):
        """The id that a text without a name in the name service stands for; None if none."""
        if set(text) <= set('0123456789'):
            return int(text)
        hint = ''
        _, colon, group = text.partition(':')
        if colon and option == 'user':
            hint = '; a group is named by itself: group = %s (--group %s)' % (group, group)
            if self.security.is_private(option):
                hint = '; a group is named by itself'
        unknown = 'there is no group %s'
        if option == 'user':
            unknown = 'there is no account %s'
        self.wrong(option, unknown + hint.replace('%', '%%'), text)
        return None

    def in_range(self, option, text, number):
        largest = self.platform.largest_id
        if number is None or 0 <= number <= largest:
            return number
        self.wrong(option, '%%s is not an id from 0 to %d' % largest, text)
        return None

    def of_writers(self):
        """{(kind, id): name} of those who could rewrite a file."""
        names = {}
        for kind, number in self.security.origin.writer_ids():
            if kind == 'user':
                entry = found_or_none(self.pwd.getpwuid, number)
            elif kind == 'group':
                entry = found_or_none(self.grp.getgrgid, number)
            else:
                continue                            # everyone, or someone unknown
            if entry is not None:
                names[kind, number] = entry[0]
        return names

    def wrong(self, option, message, text=None):
        self.report(self.security.error(option, message, text))

    def account(self, entry):
        """The Account of an entry, with what the checks will want to know about it.

        Both questions can walk through a whole directory service: they are asked only
        where the answers can matter.
        """
        if entry is None:
            return None
        security = self.security
        writers = security.origin.writer_ids()
        groups = frozenset()
        has_jail = security.chroot is not None
        if security.supplemental_groups is None or writers or has_jail:
            groups = all_groups_of(entry)
        own_group = False
        if ('group', entry.pw_gid) in writers:
            own_group = self.has_own_group(entry)
        return Account(entry, groups, own_group)

    def has_own_group(self, entry):
        """A directory service that lists no accounts may hide another member."""
        group = found_or_none(self.grp.getgrgid, entry.pw_gid)
        if group is None or group.gr_name != entry.pw_name:
            return False
        if set(group.gr_mem) - {entry.pw_name}:
            return False
        for other in self.pwd.getpwall():
            if other.pw_gid == entry.pw_gid and other.pw_uid != entry.pw_uid:
                return False
        return True


def all_groups_of(entry):
    """The groups that initgroups(3) would give, the primary group included."""
    if hasattr(os, 'getgrouplist'):                 # Solaris 10, for one, has none
        return frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
    from grp import getgrall
    member_of = {group.gr_gid for group in getgrall() if entry.pw_name in group.gr_mem}
    return frozenset(member_of | {entry.pw_gid})


def found_or_none(ask, name_or_number):
    """The entry; None if there is none.  (CPython raises KeyError also where the name service
    fails: that cannot be told from a name that is not there.)

    ValueError: no name in this system's encoding.
    """
    try:
        return ask(name_or_number)
    except (KeyError, ValueError, OverflowError):
        return None


# -------------------------------------------------------- (Target, State, rights) -> goal

def goal_of(target, found, rights, exec, no_new_privs):
    """The State that a process which is as `found` is to end in; None where it has no user.

    Arithmetic only: it refuses nothing and asks nobody.
    """
    asked = fields_asked(target, found, rights, exec, no_new_privs)
    if asked is None:
        return None
    return changed(found, **asked)


def fields_asked(target, found, rights, exec, no_new_privs):
    """{field: value} of what the drop sets: all else stays as in `found`.  None where no user
    is named and the default one has no account.

    exec: a command will be run, so that the set has to survive execve(2).
    rights: those that the process has (plan, drop), or ALL_RIGHTS (audit, check): a
    process that has dropped has lost them, and was asked to use them all the same.
    """
    account = target.account_for(rights)
    if target.uid is not None:
        uid = target.uid
    elif 'user' not in rights:
        uid = found.uid[1]                          # it stays who it is
    elif account is not None:
        uid = account.uid
    else:
        return None

    if target.gid is not None:
        gid = target.gid
    elif account is not None:
        gid = account.gid
    else:
        gid = found.gid[1]

    if target.groups is not None:
        groups = target.groups
    elif 'groups' in rights:
        groups = ()
    else:
        groups = found.groups

    platform = target.platform
    ids = {'uid': (uid,) * len(found.uid), 'gid': (gid,) * len(found.gid), 'groups': groups}
    with_ids = changed(found, **ids)
    if keeps_everything(target, with_ids):
        return dict(ids, **platform.goal_of_root(with_ids))
    return dict(ids, **platform.goal(target.sets, with_ids, rights, exec, no_new_privs))


def keeps_everything(target, goal):
    """Is it root with the option left out?  The vendor documents: that runs with all rights."""
    return goal.uid[0] == 0 and target.sets is None


# --------------------------------------------------------------------- the process
#
# This process, looked at once: in a drop with signals blocked, after all names are known.
# Here and in the steps no system call is made through os: gevent and its like replace its
# functions.

class Process:
    """This process before the drop.  Owns every descriptor that the drop needs, until
    close().

    found           its State
    may_set_groups  False where something besides rights is in the way
    rights          what it may change: a set of the names in ALL_RIGHTS
    tasks           descriptor of /proc/self/task, or None: see open_tasks
    descriptors     (number, type, path) of directories, and of what may be an io_uring, a
                    fanotify group or the memory of another process
    descriptors_error   that with which they could not be listed or told apart, or None
    unmapped_owners ids that owners seem to have whom this system does not know
    jail            descriptor of the directory that is to be the root, or None
    jail_identity   its device and inode
    jail_writers    who besides root could write or replace it
    jail_refusal    why it cannot be opened, or None
    """
    tasks = jail = jail_identity = jail_refusal = descriptors_error = None
    jail_writers = ()

    def __init__(self, platform, chroot):
        self.platform = platform
        try:
            self.tasks = platform.open_tasks()
            self.found = self.read()
            self.may_set_groups = platform.may_set_groups(self.found)
            self.rights = platform.rights(self.found, self.may_set_groups)
            self.unmapped_owners = platform.unmapped_owners()
            self.list_descriptors(jailed=chroot is not None)
            if chroot is not None:
                self.open_jail(as_the_system_spells(chroot))
        except BaseException:
            self.close()
            raise

    def read(self):
        """Its State now, by system calls alone."""
        return State(self.platform.read(self.tasks))

    def list_descriptors(self, jailed):
        numbers = ()
        try:
            numbers = [int(name) for name in posix.listdir('/proc/self/fd')]
        except OSError as error:
            self.descriptors_error = error
            # ENOENT: without /proc nothing tells what a descriptor without a file is.  Only
            # directories can be seen, and they matter where there is to be a jail.
            if jailed or error.errno != errno.ENOENT:
                numbers = possible_descriptors()
        found = []
        for number in numbers:
            kind = type_of_descriptor(number)
            if kind in TYPES_TO_LOOK_AT and number != self.tasks:
                found.append((number, kind, self.path_of_descriptor(number)))
        self.descriptors = tuple(found)

    def path_of_descriptor(self, number):
        try:
            return posix.readlink('/proc/self/fd/%d' % number)
        except OSError as error:
            if self.descriptors_error is None:
                self.descriptors_error = error      # descriptors_unseen warns of it
            return None

    def open_jail(self, path):
        try:
            self.jail_writers = writers_of_jail(path, self.platform, self.unmapped_owners)
            self.jail = posix.open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW)
            self.jail_identity = device_and_inode(self.jail)
        except OSError as error:
            self.jail_refusal = 'chroot: ' + because(error)

    def enter_jail(self):
        posix.fchdir(self.jail)

    def close(self):
        """Let go of all.  One on a directory would lead out of the jail."""
        tasks, self.tasks = self.tasks, None
        jail, self.jail = self.jail, None
        try:
            close_verified(tasks)
        finally:
            close_verified(jail)


LEAST_TRIED, MOST_TRIED = 1 << 16, 1 << 20      # descriptors, where they cannot be listed


def possible_descriptors():
    """As many as this process may open, and at least 65,536: its limit may have been lowered
    since one was opened.  At most a million, as fs.nr_open has it by default, proc(5): to try
    all that it may have been raised to would take minutes."""
    limit = posix.sysconf('SC_OPEN_MAX')
    return range(max(LEAST_TRIED, min(limit, MOST_TRIED)))


# Of directories, and of what has no file (io_uring, fanotify): 0, or on newer kernels that
# of a regular file.
TYPES_TO_LOOK_AT = stat.S_IFDIR, 0, stat.S_IFREG


def type_of_descriptor(number):
    """The type of its file, as in st_mode, inode(7); None if it is not open."""
    try:
        return stat.S_IFMT(posix.fstat(number).st_mode)
    except OSError:
        return None                     # closed meanwhile, as the one that listdir used


def close_verified(number):
    if number is None:
        return
    named('close', posix.close, number)
    try:
        posix.fstat(number)
    except OSError:
        return
    raise untrue('the descriptor is still open', 'close')


# ------------------------------------------------------ what checks and steps look at

class Case:
    """One request against one process: all that checks and steps may look at.

    writers_by_file  {file: (Writer, ...)}, who could rewrite the files that were read
    command     what is to be run (a Command), or None
    """
    __slots__ = ('security', 'target', 'process', 'goal', 'exec', 'no_new_privs', 'command',
                 'writers_by_file')

    def __init__(self, security, target, process, exec, no_new_privs, command=None):
        self.security = security
        self.target = target
        self.process = process
        self.exec = exec
        self.no_new_privs = no_new_privs
        self.command = command
        goal = goal_of(target, process.found, process.rights, exec, no_new_privs)
        if goal is not None and process.jail_identity is not None:
            goal = changed(goal, root=process.jail_identity)
        self.goal = goal
        self.writers_by_file = self.find_writers()

    def find_writers(self):
        """{} for a process that is not root and may change no id: a file can give it nothing
        that it does not hold."""
        matters = 0 in self.found.uid or self.rights & IDENTITY_RIGHTS
        if not matters:
            return {}
        return writers_of_files(self.security, self.platform, self.unmapped_owners)

    @property
    def platform(self):
        return self.target.platform

    @property
    def found(self):
        return self.process.found

    @property
    def rights(self):
        return self.process.rights

    @property
    def unmapped_owners(self):
        return self.process.unmapped_owners

    @property
    def account(self):
        return self.target.account_for(self.rights)

    @property
    def confined(self):
        """Is it left with a limited set?  False only for root that keeps everything: user is
        root, and the option is absent."""
        return not keeps_everything(self.target, self.goal)

    @property
    def jail_path(self):
        """As the operating system takes it; None without chroot."""
        chroot = self.security.chroot
        return None if chroot is None else as_the_system_spells(chroot)

    @property
    def changes_root(self):
        """Is the root directory to be another one?  By its path: a bind mount of / has the
        device and inode of /, and yet is another root."""
        chroot = self.security.chroot
        return chroot is not None and chroot.strip('/') != ''

    @property
    def forbids_dumps(self):
        """Is the process to be made undumpable?  Only uid 0 with a limited set; and not before
        execve(2), which makes it dumpable again."""
        return self.confined and 0 in self.goal.uid and not self.exec

    @property
    def already_held(self):
        if self.forbids_dumps:                      # whether it is dumpable is no field
            return False
        if self.names_an_unclear_id:
            return False
        return self.goal.agrees_with(self.found) and self.security.chroot is None

    @property
    def names_an_unclear_id(self):
        """An id that is named, and seems to be held, may be one that is not mapped: where it may
        be set it has to be.  (Where not, ids_only_look_right asks.)"""
        target = self.target
        named = (('user', {target.uid}), ('group', {target.gid}),
                 ('groups', set(target.groups or ())))
        return any(right in self.rights and self.unmapped_owners & ids for right, ids in named)

    def why_not(self, right):
        """Why something cannot be changed."""
        return self.platform.why_not(right, self.found)

    def allowed_writers(self):
        """The identities (kind, id) that may be able to rewrite a file."""
        own_group = None
        if self.account is not None and self.account.own_group:
            own_group = self.account.gid
        return may_rewrite(self.goal.uid[0], self.groups_of_user(), own_group)

    def groups_of_user(self):
        """The groups that the user will be in, or has by its account, since it may log in
        elsewhere with those."""
        by_account = ()
        if self.account is not None:
            by_account = tuple(self.account.groups)
        return self.goal.gid + self.goal.groups + by_account

    def beyond_account(self):
        """{option: what it grants beyond what the user has by his account}."""
        groups = frozenset()
        if self.account is not None:
            groups = self.account.groups
        return {'group': set(self.goal.gid) - groups,
                'supplemental_groups': set(self.goal.groups) - groups,
                self.platform.option: self.powerful()}

    def powerful(self):
        """What amounts to root among that which is asked for, as names."""
        if self.target.sets is None:
            return ()
        return tuple(self.platform.powerful(self.target.sets))


class Step:
    """One call: str() is what plan prints, run() what drop does."""
    __slots__ = 'text', 'call', 'args'

    def __init__(self, text, call, *args):
        self.text, self.call, self.args = text, call, args

    def __str__(self):
        return self.text

    def run(self):
        self.call(*self.args)


class Attempt(Step):
    """One call that must fail after the drop, with one of these errors."""
    __slots__ = ('errors',)

    def __init__(self, errors, text, call, *args):
        super().__init__(text, call, *args)
        self.errors = errors


# ---------------------------------------------------------------- what stands against it
#
# A check yields a sentence for each reason not to drop.  CHECKS is the list of them.

def staying_root_by_silence(case):
    stays_root = case.target.uid is None and 0 in case.found.uid
    if stays_root and 'user' not in case.rights:
        yield ('no user is named, and this process is root without the right to change '
               'that: ' + case.why_not('user'))


def user_out_of_reach(case):
    uid = case.goal.uid[0]
    real_effective_saved = case.found.uid[:3]
    if uid not in real_effective_saved and 'user' not in case.rights:
        yield 'cannot change user to %d: %s' % (uid, case.why_not('user'))


def group_out_of_reach(case):
    gid = case.goal.gid[0]
    real_effective_saved = case.found.gid[:3]
    if gid not in real_effective_saved and 'group' not in case.rights:
        yield 'cannot change group to %d: %s' % (gid, case.why_not('group'))


def groups_out_of_reach(case):
    """The primary group in the list makes no difference."""
    if 'groups' in case.rights:
        return
    found, goal = case.found.groups, case.goal.groups
    if (set(found) ^ set(goal)) - {case.goal.gid[0]}:
        yield 'cannot change the supplementary groups, %s, to %s: %s' % (
            shown(found), shown(goal), case.why_not('groups'))


def platforms_own(case):
    for check in case.platform.checks:
        yield from check(case)


def descriptor_out_of_the_jail(case):
    if case.security.chroot is None:
        return
    for number, kind, path in case.process.descriptors:
        if kind == stat.S_IFDIR:
            yield ('descriptor %d is a directory, a way out of the chroot: close it '
                   '(%s)' % (number, printable(path or 'unknown')))


def root_directory_out_of_reach(case):
    if case.changes_root and 'chroot' not in case.rights:
        yield 'cannot change the root directory: ' + case.why_not('chroot')


def jail_unsafe(case):
    if case.process.jail_refusal is not None:
        yield case.process.jail_refusal
    user = case.goal.uid[0]
    # Unlike a configuration it may not be the user's own: its writer decides what runs in it.
    allowed = may_rewrite(user, case.groups_of_user(), None) - {('user', user)}
    for writer in case.process.jail_writers:
        if not writer.is_one_of(allowed):
            yield 'chroot: %s: only root may be able to write or replace it, not %s' % (
                printable(writer.path), writer)
            return                                  # one of them is reason enough


def rewritable_by_strangers(case):
    yield from strangers(case.writers_by_file, case.allowed_writers(),
                         case.target.writer_names, case.security.origin.private)


def overrides_root(case):
    yield from overridden_root(case.security, case.writers_by_file)


def gives_himself(case):
    yield from gifts(case.security, case.writers_by_file, case.beyond_account())


CHECKS = (
    staying_root_by_silence,
    user_out_of_reach,
    group_out_of_reach,
    groups_out_of_reach,
    platforms_own,
    descriptor_out_of_the_jail,
    root_directory_out_of_reach,
    jail_unsafe,
    rewritable_by_strangers,
    overrides_root,                     # these two assume that there are no strangers:
    gives_himself,                      # the one before them refuses if there are
)


# ------------------------------------------------------- what is allowed, yet worth a line
#
# A warning yields (the option that it is about, a sentence); one of the platform's own yields
# the sentence alone.

def groups_not_granted(case):
    if case.target.groups is not None or 'groups' not in case.rights:
        return
    if case.account is None:
        return
    others = set(case.account.groups) - {case.goal.gid[0]}
    if others:
        yield 'user', ('without supplemental_groups it will not be in the groups of %s: %s '
                       '(--init-groups gives them all)' % (case.account.name, shown(others)))


def groups_given_up(case):
    """Of groups that this process loses without a word in the stanza: those of a login shell,
    most often."""
    if case.target.groups is not None or 'groups' not in case.rights:
        return
    lost = case.found.beside_primary() - {case.goal.gid[0]}
    if lost:
        yield 'user', ('the supplementary groups that this process has, %s, are given up: '
                       'supplemental_groups names what to keep' % shown(lost))


def groups_stay(case):
    """Of groups that cannot be changed, and that nobody asked to change.  (Where
    supplemental_groups names others, groups_out_of_reach refuses.)"""
    if case.target.groups is None and case.goal.beside_primary():
        yield 'user', 'the supplementary groups stay as they are, %s: %s' % (
            shown(case.goal.groups), case.why_not('groups'))


def platforms_own_warnings(case):
    for warning in case.platform.warnings:
        for text in warning(case):
            yield case.platform.option, text


def new_privileges_waived(case):
    if not case.no_new_privs and case.confined:
        yield case.platform.option, case.platform.waived


def jail_closed_to_the_user(case):
    if case.process.jail is None:
        return
    if not may_enter(case.jail_path, case.goal):
        yield 'chroot', 'user %d cannot enter the directory that is to be its root' % (
            case.goal.uid[0])


def rewritable_by_the_user(case):
    yield from rewritable(case.security, case.writers_by_file, case.allowed_writers())


def root_keeps_everything(case):
    if not case.confined:
        yield 'user', 'user is root and %s is absent: root keeps everything' % (
            case.platform.option)


def root_is_no_confinement(case):
    if case.confined and case.goal.uid[0] == 0:
        yield 'user', 'uid 0 still owns %s: this is not confinement' % (
            case.platform.roots_own)


def in_roots_group(case):
    if case.goal.uid[0] != 0 and 0 in case.goal.gid + case.goal.groups:
        yield 'group', "group 0 is root's own: what it may write stays writable"


def amounts_to_root(case):
    names = case.powerful()
    if names:
        yield case.platform.option, 'amounts to root: ' + ' '.join(names)


def nobody_is_shared(case):
    if case.account is not None and case.account.name == 'nobody':
        yield 'user', ('nobody is shared by many: any of its processes can trace the '
                       'others')


def children_keep_their_rights(case):
    if not has_children():
        return
    names = names_of_children()
    if names:
        yield 'user', ('children already started keep what they have (%s): start them after '
                       'the drop' % names)
    else:                                           # wait(2) counts what is traced, too
        yield 'user', ('children already started, or a process that this one traces, keep '
                       'what they have: start them after the drop')


def modules_out_of_reach(case):
    if case.exec or case.security.chroot is not None:
        return
    closed = closed_directory(os.path.dirname(os.__file__), case.goal)
    if closed is not None:
        yield 'user', ('user %d cannot enter %s: importing modules later will fail' % (
            case.goal.uid[0], printable(closed)))


def closed_directory(path, goal):
    """The first one on the way that cannot be entered, or None."""
    try:
        way = everything_on_the_way(path)
    except OSError as error:                        # not even by this process
        return os.path.dirname(error.filename)
    for directory, status in way:
        if stat.S_ISDIR(status.st_mode) and not may_enter(directory, goal):
            return directory
    return None


WARNINGS = (
    groups_not_granted,
    groups_given_up,
    groups_stay,
    platforms_own_warnings,
    new_privileges_waived,
    jail_closed_to_the_user,
    rewritable_by_the_user,
    root_keeps_everything,
    root_is_no_confinement,
    in_roots_group,
    amounts_to_root,
    nobody_is_shared,
    children_keep_their_rights,
    modules_out_of_reach,
)


def may_enter(path, goal):
    """May a process that holds `goal` enter this directory?  The mode alone is asked."""
    if 0 in goal.uid:
        return True
    try:
        status = posix.stat(path)
    except OSError:
        return False
    if status.st_uid in goal.uid:
        bit = stat.S_IXUSR
    elif status.st_gid in goal.gid + goal.groups:
        bit = stat.S_IXGRP
    else:
        bit = stat.S_IXOTH
    return bool(status.st_mode & bit)


def has_children():
    """Are there children, running or ended?  PyPy has no waitid: there /proc is asked."""
    try:
        posix.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except AttributeError:
        return bool(names_of_children())
    except OSError:
        return False                                # there are none, or a filter hides them
    return True


def names_of_children():
    """'PID NAME, PID NAME', as far as /proc tells.  proc(5)"""
    try:
        numbers = contents('/proc/self/task/%d/children' % posix.getpid()).split()
    except OSError:
        return ''
    names = []
    for number in numbers:
        name = contents_or_none('/proc/%s/comm' % number) or '?'
        names.append('%s %s' % (number, name))
    return printable(', '.join(names))


def refusals_of(case):
    if case.goal is None:
        return (NO_USER,)                           # nothing else can be told
    refusals = []
    for check in CHECKS:
        refusals.extend(check(case))
    return tuple(refusals)


def warnings_of(case):
    """[(place, text)]; those of reading first."""
    warnings = list(case.security.notes)
    if case.goal is None:
        return warnings
    for warning in WARNINGS:
        for option, text in warning(case):
            warnings.append((case.security.place(option), text))
    return warnings


# -------------------------------------------------------------- Linux: what follows
#
# Of the sets that are asked for and those that are held: the goal, and the steps around
# the change of ids.  capabilities(7), credentials(7)

class Linux(LinuxCalls):
    """The platform of Linux; its verbs are listed in the chapter on the platform.  Its
    checks, warnings and doubts are functions, and stand in the next chapter."""

    def rights(self, state, may_set_groups):
        rights = set()
        for right, needed in CAPABILITY_FOR.items():
            if state.permitted & needed:
                rights.add(right)
        if not may_set_groups:
            rights.discard('groups')
        return frozenset(rights)

    def why_not(self, right, found):
        needed = CAPABILITY_FOR[right]
        if found.permitted & needed:                # only may_set_groups takes it away then
            return ('setgroups(2) is denied: /proc/self/setgroups says deny, as in a user '
                    'namespace that an ordinary user made')
        return "%s is not in this process's permitted set; %s" % (
            needed, how_to_get(needed, found))

    def goal(self, sets, with_ids, rights, exec, no_new_privs):
        """The sets, flags and bits to end in, of a State with the ids to end in."""
        sets = sets or {}
        permitted = sets.get('permitted', NO_CAPABILITIES)
        effective = sets.get('effective', NO_CAPABILITIES)
        ambient = permitted if exec else NO_CAPABILITIES
        inheritable = ambient | sets.get('inheritable', NO_CAPABILITIES)
        goal = {'permitted': permitted, 'effective': effective, 'inheritable': inheritable,
                'ambient': ambient}
        if with_ids.securebits is not None:         # from outside they cannot be seen
            goal['securebits'] = self.securebits(with_ids)
            goal['keepcaps'] = int(bool(goal['securebits'] & SECBIT_KEEP_CAPS))
        if no_new_privs:            # else the bounding set stays: setuid programs need it
            goal['no_new_privs'] = 1
            if 'setpcap' in rights:
                goal['bounding'] = with_ids.bounding & (permitted | inheritable)
        return goal

    def securebits(self, with_ids):
        bits = with_ids.securebits
        if not bits & SECBIT_KEEP_CAPS_LOCKED:      # locked: it stays, so the goal has it too
            bits &= ~SECBIT_KEEP_CAPS
        if 0 in with_ids.uid:                       # or exec would give uid 0 everything
            bits |= SECBIT_NOROOT | SECBIT_NOROOT_LOCKED
        return bits

    def goal_of_root(self, with_ids):
        return {}

    def unlimited(self, fields):
        return dict(fields, bounding=self.every)

    def assumed_root(self):
        """The fields of root at its start, for check."""
        full = 'permitted', 'effective', 'bounding'
        fields = dict.fromkeys(self.fields, 0)
        fields.update(dict.fromkeys(full, self.every))
        fields.update(dict.fromkeys(('inheritable', 'ambient'), NO_CAPABILITIES))
        fields.update(uid=(0,) * 4, gid=(0,) * 4, groups=())
        return fields

    def audit_refusal(self):
        """What is said where root directory and namespaces of a process cannot be seen."""
        if posix.geteuid() != 0:
            return ('its root directory and namespaces cannot be seen: run the audit as root')
        return ('its root directory and namespaces cannot be seen, without cap_sys_ptrace: in '
                'a container, become like it first: capdrop exec -q FILE -- python3 -I '
                'capdrop.py audit FILE PID')

    def elsewhere(self, fields, around):
        """Why a process has a root directory of its own, or ''.  mount_namespaces(7)"""
        if fields.get('mnt_ns') != around.get('mnt_ns'):    # a kernel may have none
            return 'in another mount namespace'
        return ''

    def hint(self, audit):
        for difference in audit:
            if difference.field == 'user_ns':
                return ('process %d is in another user namespace, where its ids are others: '
                        'nsenter -t %d -U -m -p, and audit it from there' % (
                            audit.pid, audit.pid))
        return ''

    # The steps.  Each makes up for a difference between `found` and `goal`.  (Root that keeps
    # everything differs in its ids, and perhaps in effective: see sets_capabilities.)
    #
    # What the kernel does when setresuid(2) changes the user, capabilities(7), and what is
    # therefore done around it:
    #
    #   0 among real, effective, saved; then no 0    (ids_clear_capabilities)
    #       It clears permitted, effective and ambient; with keepcaps permitted stays.  So
    #       keepcaps is on if any are to stay, inheritable grows before, the last set makes
    #       effective what is asked for, and ambient is raised anew after it.
    #   the same with SECBIT_NO_SETUID_FIXUP, or no 0 before either
    #       It clears nothing.  The last set takes away what is too much, and with it ambient;
    #       of ambient what stays permitted and inheritable is lowered before.
    #   effective not 0; then 0
    #       It makes effective all that is permitted.  The last set takes that back.
    #
    # Without cap_setpcap inheritable grows within permitted only, the bounding set stays, and
    # securebits cannot be set: these three come before, while it is effective.

    def before(self, case):
        """Rows that need the rights of now."""
        found, goal = case.found, case.goal
        raised = capabilities_to_raise(case)
        effective = found.effective | raised
        if raised:
            yield self.capset_row(found.permitted, effective, found.inheritable)
        early = inheritable_early(case)
        if early:                                   # while cap_setpcap is effective
            yield self.capset_row(found.permitted, effective, found.inheritable | early)
        too_much = ambient_to_lower(case)
        if too_much:
            yield self.each_row('PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER', too_much,
                                PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER)
        if sets_keepcaps(case):
            yield self.prctl_row('PR_SET_KEEPCAPS, 1', PR_SET_KEEPCAPS, 1)
        trimmed = found.bounding - goal.bounding
        if trimmed:                                 # while cap_setpcap is effective
            yield self.each_row('PR_CAPBSET_DROP', trimmed, PR_CAPBSET_DROP)
        # This cannot undo PR_SET_KEEPCAPS: bits are added for a goal of uid 0 only, and
        # keepcaps is switched on for other goals only.
        if goal.securebits & ~found.securebits:
            yield self.prctl_row('PR_SET_SECUREBITS, %#x' % goal.securebits,
                                 PR_SET_SECUREBITS, goal.securebits)

    def after(self, case):
        """Rows that must come last: they take rights away, or would be undone."""
        found, goal = case.found, case.goal
        if clears_keepcaps(case):
            yield self.prctl_row('PR_SET_KEEPCAPS, 0', PR_SET_KEEPCAPS, 0)
        if sets_capabilities(case):
            yield self.last_set_row(goal.permitted, goal.effective, goal.inheritable)
        missing = ambient_to_raise(case)
        if missing:                                 # they have to be permitted, inheritable
            yield self.each_row('PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE', missing,
                                PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE)
        if goal.no_new_privs and not found.no_new_privs:
            yield self.prctl_row('PR_SET_NO_NEW_PRIVS, 1', PR_SET_NO_NEW_PRIVS, 1)
        if case.forbids_dumps:                      # other programs of root's could trace it
            yield 'prctl(PR_SET_DUMPABLE, 0)', self.forbid_dumps

    def regain(self, case):
        held = case.found.permitted
        if held - case.goal.permitted:
            yield self.capset_row(held, held, NO_CAPABILITIES)

    def set_groups(self, groups):
        return 'setgroups(%s)' % list(groups), self.put_groups, groups

    def change_root(self):
        return 'chroot(".")', posix.chroot, '.'

    def set_gid(self, gid):
        return 'setresgid(%d, %d, %d)' % (gid, gid, gid), posix.setresgid, gid, gid, gid

    def set_uid(self, uid):
        return 'setresuid(%d, %d, %d)' % (uid, uid, uid), posix.setresuid, uid, uid, uid

    def last_set_row(self, permitted, effective, inheritable):
        """The set that is asked for: through libcap where there is one."""
        if self.libcap is None:
            return self.capset_row(permitted, effective, inheritable)
        text = sets_text(permitted, effective, inheritable)
        return ('cap_set_proc: ' + text, self.libcap.apply, permitted, effective,
                inheritable)

    def capset_row(self, permitted, effective, inheritable):
        text = sets_text(permitted, effective, inheritable)
        data = self.capset_data(permitted, effective, inheritable)
        return ('capset: ' + text, self.capset) + data

    def prctl_row(self, text, option, value):
        return 'prctl(%s)' % text, self.prctl, option, value, 0, 0, 0

    def each_row(self, text, capabilities, *option):
        text = 'prctl(%s, each of %s)' % (text, capabilities)
        return text, self.prctl_each, capabilities.numbers(), option

    def prctl_each(self, numbers, option):
        option = [self.c_ulongs[number] for number in option]
        zeros = [self.c_ulongs[0]] * (4 - len(option))
        for number in numbers:
            if self.raw_prctl(*option, self.c_ulongs[number], *zeros) == -1:
                raise self.libc.error('prctl')

    def forbid_dumps(self):
        """No field of a State: every change of ids sets it to fs.suid_dumpable, proc(5)."""
        self.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        if self.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0):
            raise untrue('the process is still dumpable', 'prctl')


def sets_text(permitted, effective, inheritable):
    return 'permitted %s; effective %s; inheritable %s' % (permitted, effective, inheritable)


def ids_clear_capabilities(case):
    """Does the kernel take capabilities away when the ids change?  capabilities(7)"""
    if case.found.securebits & SECBIT_NO_SETUID_FIXUP:
        return False
    real_effective_saved = case.found.uid[:3]
    return 0 in real_effective_saved and 0 not in case.goal.uid


def capabilities_to_raise(case):
    """What the drop needs, is permitted, and is not effective."""
    found, goal = case.found, case.goal
    needed = NO_CAPABILITIES
    if is_another(goal.uid[0], found.uid, case):
        needed |= CAP_SETUID
    if is_another(goal.gid[0], found.gid, case) or 'groups' in case.rights:
        needed |= CAP_SETGID
    if case.changes_root:
        needed |= CAP_SYS_CHROOT
    if found.bounding - goal.bounding or goal.securebits & ~found.securebits:
        needed |= CAP_SETPCAP
    if inheritable_early(case):
        needed |= CAP_SETPCAP
    return (needed & found.permitted) - found.effective


def is_another(wanted, has, case):
    """Might this be an id that the process does not have yet?"""
    real_effective_saved = has[:3]
    if wanted not in real_effective_saved:
        return True
    return wanted in case.unmapped_owners           # one that is not mapped shows as this


def sets_capabilities(case):
    """Is a last capset needed?  For root that keeps everything only where something was made
    effective on the way: by this drop, or by the kernel when the effective uid becomes 0.
    """
    if case.confined or capabilities_to_raise(case):
        return True
    becomes_root = case.found.uid[1] != 0
    return becomes_root and case.goal.effective != case.goal.permitted


def sets_keepcaps(case):
    """Must PR_SET_KEEPCAPS be switched on for the change of ids?"""
    kept = bool(case.goal.permitted) and ids_clear_capabilities(case)
    return kept and not case.found.keepcaps


def clears_keepcaps(case):
    return not case.goal.keepcaps and (case.found.keepcaps or sets_keepcaps(case))


def inheritable_early(case):
    """The capabilities that must be made inheritable before the ids change.

    Without cap_setpcap only permitted ones can be added: capset(2).
    """
    grown = case.goal.inheritable - case.found.inheritable
    if ids_clear_capabilities(case) and not case.goal.permitted:
        return grown                                # nothing is permitted any more then
    return grown - case.found.permitted


def ambient_to_lower(case):
    """The ambient capabilities that are not asked for and would stay: neither the change of
    ids nor the last set takes them away."""
    if ids_clear_capabilities(case):
        return NO_CAPABILITIES
    stays = case.goal.permitted & case.goal.inheritable
    return (case.found.ambient - case.goal.ambient) & stays


def ambient_to_raise(case):
    """The change of ids clears the ambient set, keepcaps or not: then all are raised again."""
    if ids_clear_capabilities(case):
        return case.goal.ambient
    return case.goal.ambient - case.found.ambient


def how_to_get(needed, found):
    """What the operator can do where a capability is missing."""
    unbound = needed - found.bounding
    if unbound:
        return ('its bounding set lacks %s: whoever started it took that away (systemd: '
                'CapabilityBoundingSet=; containers: --cap-add)' % unbound)
    if 0 in found.uid and found.securebits & SECBIT_NOROOT:
        return ('SECBIT_NOROOT is set, so uid 0 holds nothing by itself (systemd: '
                'SecureBits=)')
    if 0 in found.uid:
        return 'whoever started it took that away, though it is root'
    return ('start it as root, or with this capability (systemd: AmbientCapabilities=; in '
            'a container only root gets any)')


# ---------------------------------------------------------------- Linux: checks, warnings
#
# Some checks ask by making a call that changes nothing: ids_not_mapped (where there is no
# /proc), ids_only_look_right, io_uring_registered and calls_blocked.  So do, before them,
# Linux.threads and Linux.may_set_groups.

def several_threads(case):
    """Capabilities are per thread: capabilities(7)."""
    count = case.found.threads
    if count == 1:
        return
    if count == 0:
        yield ('cannot tell whether this process has one thread: unshare(2) is blocked and '
               '/proc is not mounted')
        return
    threads = names_of_threads()
    if len(threads) == 1:
        yield ('another process shares the memory of this one (CLONE_VM) and would keep its '
               'rights: end it')
        return
    names = printable(', '.join(threads)) or 'no /proc to list them'
    yield ('more than one thread (%s): capabilities are per thread and the others would keep '
           'theirs; drop before starting threads (some libraries start them when imported, '
           'such as numpy: OPENBLAS_NUM_THREADS=1, and asyncio for a host name)' % names)


def names_of_threads():
    """['TID NAME', ...] of this process."""
    try:
        tasks = sorted(posix.listdir('/proc/self/task'), key=int)
    except OSError:
        return []
    names = []
    for task in tasks:
        name = contents_or_none('/proc/self/task/%s/comm' % task) or '?'
        names.append('%s %s' % (task, name))
    return names


def ids_not_mapped(case):
    """setresuid(2), setresgid(2), setgroups(2): EINVAL.  user_namespaces(7)"""
    if ids_are_clear(case):
        return
    groups = case.goal.groups if 'groups' in case.rights else ()
    yield from missing_ids('user', 'uid', case.goal.uid[:1])
    yield from missing_ids('group', 'gid', case.goal.gid[:1] + groups)


def ids_are_clear(case):
    """Is every id mapped?  Or is there nothing to do, and no id named?  Then those of now need
    not be mapped."""
    if not case.unmapped_owners:
        return True
    target = case.target
    named = [ids for ids in (target.uid, target.gid, target.groups) if ids is not None]
    return case.already_held and not named


def missing_ids(name, kind, ids):
    if maps_every_id(kind):
        return
    ranges = id_map(kind)
    for number in sorted(set(ids)):
        if ranges is None:
            mapped = is_mapped_by_trial(kind, number)
        else:
            mapped = is_mapped(number, ranges)
        if not mapped:
            yield ('%s %d does not exist in this user namespace: /proc/self/%s_map has no '
                   'such id' % (name, number, kind))


def is_mapped(number, ranges):
    for first, _, count in ranges:
        if first <= number < first + count:
            return True
    return False


def is_mapped_by_trial(kind, number):
    """Could a pipe of ours have this owner?  For where there is no /proc.  fchown(2)"""
    owner = (number, -1) if kind == 'uid' else (-1, number)
    try:
        reading, writing = posix.pipe()
    except OSError:
        return True                                 # no descriptor is left: it cannot be told
    try:
        posix.fchown(reading, *owner)
    except OSError as error:
        return error.errno != errno.EINVAL
    finally:
        posix.close(reading)
        posix.close(writing)
    return True


def ids_only_look_right(case):
    """An id that is not mapped shows as 65534, and cannot be told from that one.

    Whoever may not change it can set it to what it is already, and nothing else.
    """
    if case.found.threads != 1 or ids_are_clear(case):
        return
    shown_for_others = case.unmapped_owners
    for right, wanted, has, call in (
            ('user', case.goal.uid[0], case.found.uid, posix.setresuid),
            ('group', case.goal.gid[0], case.found.gid, posix.setresgid)):
        if right not in case.rights and wanted in shown_for_others:
            if not can_stay(wanted, has, call):
                yield ('%s %d may stand for one that this user namespace does not map'
                       % (right, wanted))
    groups = shown_for_others.intersection(case.target.groups or ())
    if groups and 'groups' not in case.rights:
        yield ('the supplementary group %s may stand for one that this user namespace does '
               'not map' % shown(groups))


def can_stay(wanted, has, call):
    """Can the ids that show as `wanted` be set to it?  setresuid(2)"""
    real, effective, saved, filesystem = has
    if effective != filesystem:
        return False                                # the trial would change that
    trial = [wanted if number == wanted else -1 for number in (real, effective, saved)]
    return error_of(call, *trial) is None


def io_uring_registered(case):
    """The kernel answers for each slot; what it answers for an empty one is EBADF."""
    if not case.confined or posix.uname().machine.startswith(OTHER_CALL_NUMBERS):
        return
    platform = case.platform
    for slot in range(IO_RINGFD_REG_MAX):
        answer = platform.raw_syscall(
            IO_URING_ENTER, slot, 0, 0, IORING_ENTER_REGISTERED_RING, 0, 0)
        # errors of a ring: not enabled yet; its polling thread has ended
        if answer == 0 or platform.get_errno() in (errno.EBADFD, errno.EOWNERDEAD):
            yield ('an io_uring is registered without a descriptor: its requests keep the '
                   'rights of now')
            return


def descriptors_that_matter(case):
    """(number, path) of each descriptor; none where the rights of now are kept anyway."""
    if case.confined:
        for number, _, path in case.process.descriptors:
            yield number, path


def descriptor_of_an_io_uring(case):
    for number, path in descriptors_that_matter(case):
        if path == IO_URING:
            yield ('descriptor %d is an io_uring, whose requests keep the rights of now: '
                   'close it (an event loop such as uvloop: make it after the drop, and bind '
                   'before)' % number)


def io_uring_mapped(case):
    if not case.confined or case.exec:              # execve(2) unmaps it
        return
    if any(descriptor_of_an_io_uring(case)):
        return                                      # that explains it
    maps = contents_or_none('/proc/self/maps')
    if maps is not None and IO_URING in maps:       # None is warned of: descriptors_unseen
        yield ('an io_uring is mapped without a descriptor: its requests keep the rights of '
               'now: unmap it')


def descriptor_of_a_fanotify_group(case):
    """Each event opens a file, and nobody asks for the rights of who reads it."""
    for number, path in descriptors_that_matter(case):
        if path == FANOTIFY and opens_files('/proc/self/fdinfo/%d' % number):
            yield ('descriptor %d is a fanotify group, whose events open files with the '
                   'rights of now: close it, or make it with FAN_REPORT_FID' % number)


def descriptor_of_the_memory_of_another(case):
    """It is read and written without being asked for again: proc_pid_mem(5)."""
    for number, path in descriptors_that_matter(case):
        if is_memory_of_another(number, path):
            yield ('descriptor %d is the memory of another process, %s, which can be read and '
                   'written with the rights of now: close it' % (number, printable(path)))


def is_memory_of_another(number, path):
    """Is that PID/mem, or PID/task/TID/mem, of a procfs, wherever that is mounted?"""
    if path is None:
        return False
    directory, _, name = path.rpartition('/')
    _, _, owner = directory.rpartition('/')
    if name != 'mem' or not owner.isdigit():
        return False
    is_own = path.startswith('/proc/%s/' % link_or_none('/proc/self'))
    return not is_own and is_of_no_device(number)


def is_of_no_device(number):
    """A file of procfs is on no device, and has no size."""
    status = posix.fstat(number)
    return os.major(status.st_dev) == 0 and status.st_size == 0


def missing_of(case):
    return case.goal.permitted - case.found.permitted


def capability_not_held(case):
    missing = missing_of(case)
    if missing:
        yield "%s: not in this process's permitted set; %s" % (
            missing, how_to_get(missing, case.found))


def not_inheritable(case):
    """The set can grow up to the bounding set with cap_setpcap, else up to the permitted
    one: capset(2).
    """
    found = case.found
    grown = case.goal.inheritable - missing_of(case) - found.inheritable
    unbound = grown - found.bounding
    if unbound:
        yield '%s: not in the bounding set, so cannot be made inheritable' % unbound
    beyond = grown - unbound - found.permitted
    if beyond and 'setpcap' not in case.rights:
        yield ("%s: not in this process's permitted set, so cannot be made inheritable "
               'without cap_setpcap' % beyond)


def lost_over_exec(case):
    lost = case.goal.ambient - case.goal.effective
    if case.confined and lost:
        yield ('%s: permitted but not effective, which cannot survive exec; write +ep'
               % lost)


def no_ambient_set(case):
    if case.goal.ambient and not case.platform.has_ambient:
        yield ('this kernel has no ambient capabilities: the command could not keep any')


def ambient_barred(case):
    barred = case.found.securebits & SECBIT_NO_CAP_AMBIENT_RAISE
    if barred and ambient_to_raise(case):
        yield 'SECBIT_NO_CAP_AMBIENT_RAISE is set: the command could not keep %s' % (
            case.goal.ambient)


def keepcaps_locked(case):
    """The flag is off and locked.  (Where it is on and locked it stays as it is.)"""
    locked = case.found.securebits & SECBIT_KEEP_CAPS_LOCKED
    if locked and sets_keepcaps(case):
        yield 'SECBIT_KEEP_CAPS is locked, and the plan has to set it'


def root_not_lockable(case):
    if not case.goal.securebits & ~case.found.securebits:
        return
    locked = case.found.securebits & SECBIT_NOROOT_LOCKED
    if locked or 'setpcap' not in case.rights:
        yield ('user is root with exclusive capabilities: that needs SECBIT_NOROOT, locked, '
               'and so cap_setpcap')


def command_sheds_the_set(case):
    """execve(2) clears the ambient set for a file that has rights of its own."""
    if case.command is None or not case.goal.ambient or case.security.chroot is not None:
        return
    yield from rights_of_command(case, '')


def rights_of_command(case, root):
    """Why the kernel would start the command without the set."""
    path = case.command.resolved(root)
    if path is None:
        return                                      # execve(2) will say why
    getxattr = case.platform.raw_getxattr
    if getxattr(os.fsencode(path), b'security.capability', None, 0) > 0:
        yield ('%s has file capabilities, so it would not start with the set that is asked '
               'for: remove them (setcap -r), or run a copy of it' % printable(path))
    if not is_executable(path):
        return                                      # an interpreter that is missing
    # (set-user-ID is what --allow-new-privs is for.)
    set_group_id = posix.stat(path).st_mode & stat.S_ISGID
    if set_group_id and not case.no_new_privs:
        yield ('%s is set-group-ID, so it would not start with the set that is asked for: '
               'run a copy of it, or leave out --allow-new-privs' % printable(path))


def calls_blocked(case):
    """The calls of the drop are made now, in a way that changes nothing: a filter answers
    them as it would later.  Where there is no filter nothing blocks them.
    """
    platform = case.platform
    if case.found.threads != 1:                     # setgroups(3) would reach all of them
        return
    if case.already_held or not platform.may_be_filtered():
        return
    try:
        trials = tuple(calls_without_effect(case))
        results = platform.tried(case.found, capabilities_to_raise(case), trials)
    except OSError as error:                        # of raising what is needed for them
        yield blocked('capset', error)
        return
    for (name, harmless_errors, *_), error in results:
        if error is not None and error.errno not in harmless_errors:
            yield blocked(name, error)


def blocked(name, error):
    return ('%s(2) is blocked (%s): a seccomp filter (systemd: SystemCallFilter=; containers: '
            'their seccomp profile)' % (name, error.strerror))


def calls_without_effect(case):
    """(name, errors that it may end with, the call, its arguments)

    What is already so, or an argument that cannot be.  Whether the right is there has been
    asked before; this asks whether a filter answers in the place of the kernel.
    """
    platform, found, goal = case.platform, case.found, case.goal
    if found.uid[1] == found.uid[3] or keeps_filesystem_ids():
        yield 'setresuid', (), posix.setresuid, -1, -1, -1
    if found.gid[1] == found.gid[3] or keeps_filesystem_ids():
        yield 'setresgid', (), posix.setresgid, -1, -1, -1
    if 'groups' in case.rights:
        yield platform.setgroups_trial()
    if case.changes_root:
        yield 'fchdir', (errno.EBADF,), posix.fchdir, NO_DESCRIPTOR
        yield 'chroot', (errno.ENOENT,), posix.chroot, ''
    if case.security.chroot is not None:
        yield 'chdir', (errno.ENOENT,), posix.chdir, ''
    yield from prctls_without_effect(case, goal, found, platform.prctl)
    if sets_capabilities(case):                     # the last: the others need what is raised
        yield ('capset', (), platform.put_sets, found.permitted, found.effective,
               found.inheritable)


def prctls_without_effect(case, goal, found, prctl):
    """The prctls of the drop: a filter blocks prctl(2) by its first argument, if at all."""
    wrong = (errno.EINVAL,)
    if goal.no_new_privs and not found.no_new_privs:
        yield 'prctl', wrong, prctl, PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0
    if sets_keepcaps(case) or clears_keepcaps(case):
        yield 'prctl', (), prctl, PR_SET_KEEPCAPS, found.keepcaps, 0, 0, 0
    if goal.securebits & ~found.securebits:
        yield 'prctl', (), prctl, PR_SET_SECUREBITS, found.securebits, 0, 0, 0
    if found.bounding - goal.bounding:
        yield 'prctl', wrong, prctl, PR_CAPBSET_DROP, BEYOND, 0, 0, 0
    if ambient_to_lower(case):
        yield 'prctl', wrong, prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, BEYOND, 0, 0
    if ambient_to_raise(case):
        yield 'prctl', wrong, prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, BEYOND, 0, 0
    if case.forbids_dumps:
        yield 'prctl', wrong, prctl, PR_SET_DUMPABLE, 2, 0, 0, 0
        yield 'prctl', (), prctl, PR_GET_DUMPABLE, 0, 0, 0, 0


def keeps_filesystem_ids():
    """Does setresuid(-1, -1, -1) leave the filesystem id alone?  From Linux 6.4 on."""
    major, _, rest = posix.uname().release.partition('.')
    minor = rest[:len(rest) - len(rest.lstrip('0123456789'))]
    return major.isdigit() and (int(major), int(minor or 0)) >= (6, 4)


Linux.checks = (
    several_threads,
    ids_not_mapped,
    ids_only_look_right,
    io_uring_registered,
    descriptor_of_an_io_uring,
    io_uring_mapped,
    descriptor_of_a_fanotify_group,
    descriptor_of_the_memory_of_another,
    capability_not_held,
    not_inheritable,
    lost_over_exec,
    no_ambient_set,
    ambient_barred,
    keepcaps_locked,
    root_not_lockable,
    command_sheds_the_set,
    calls_blocked,
)


def bounding_set_stays(case):
    if not case.no_new_privs or not case.confined:
        return
    if case.goal.bounding - (case.goal.permitted | case.goal.inheritable):
        yield ('the bounding set stays as it is, without cap_setpcap; no_new_privs holds all '
               'the same')


def descriptors_unseen(case):
    """Not refused: a process without /proc has to be able to drop, and few processes hold an
    io_uring or a fanotify group."""
    error = case.process.descriptors_error
    if error is not None:
        yield ('descriptors cannot be looked at, so that none that keeps the rights of now (an '
               'io_uring, say) would be seen: %s' % because(error))


def descriptor_that_acts_on_others(case):
    """Not refused: to act on others may be just what the descriptor is kept for."""
    for number, path in descriptors_that_matter(case):
        if path in ACTS_ON_OTHERS:
            yield 'descriptor %d is %s with the rights of now: close it if it is left over' % (
                number, ACTS_ON_OTHERS[path])


def counts_only_in_a_user_namespace(case):
    if not case.confined or not case.goal.permitted:
        return
    if case.unmapped_owners:
        yield ('in this user namespace capabilities count for what belongs to it only (the '
               'network of the host, say, does not)')


def command_may_shed_the_set(case):
    """In a jail it is only found by its name, and may be another when it is run."""
    if case.command is None or not case.goal.ambient or case.security.chroot is None:
        return
    yield from rights_of_command(case, case.jail_path)


Linux.warnings = (
    bounding_set_stays,
    descriptors_unseen,
    descriptor_that_acts_on_others,
    counts_only_in_a_user_namespace,
    command_may_shed_the_set,
)

Linux.doubts = ids_not_mapped, lost_over_exec

PLATFORMS = {'linux': Linux, 'sunos5': make_solaris}
platforms_in_use = []           # the one of this system, from when it is needed


def this_platform():
    """The platform of this system.  It is made once, when it is needed: it loads libraries."""
    if not platforms_in_use:
        if sys.platform not in PLATFORMS:
            raise RefusedError('capdrop drops on Linux and SunOS, not on ' + sys.platform)
        platforms_in_use.append(or_refuse(PLATFORMS[sys.platform]))
    return platforms_in_use[0]


# ------------------------------------------------------------------------- the order

def rows_of_drop(case):
    """The order.  set_uid takes away the rights to change groups, gid and root directory, so
    it comes after those three.  `before` holds the rows of the platform that need the rights
    of now; `after` those that take rights away, or that set_uid would undo.
    """
    platform, goal = case.platform, case.goal
    yield from platform.before(case)
    # set even where they look right already: an unmapped group shows as 65534
    if 'groups' in case.rights:
        yield platform.set_groups(goal.groups)
    if case.security.chroot is not None:
        if case.changes_root:
            yield 'fchdir(descriptor of the root to be)', case.process.enter_jail
            yield platform.change_root()
        yield 'chdir("/")', posix.chdir, '/'
        yield ('stat("/"), stat("."): device and inode %d %d' % goal.root, must_be_at_root,
               goal.root)
    yield platform.set_gid(goal.gid[0])
    yield platform.set_uid(goal.uid[0])
    yield from platform.after(case)


# The errors that prove that a right is gone.  EINVAL counts for setresuid and setresgid only:
# it is the answer for an id that the user namespace does not map.  From any other call EINVAL
# would mean that the kernel had already found the right and looked at the arguments.
NOT_PERMITTED = (errno.EPERM,)
NOT_OR_NOT_MAPPED = (errno.EPERM, errno.EINVAL)


def rows_to_regain(case):
    """(errors that refuse it, a row that must fail afterwards).

    What a right that is kept allows is not tried, since it would succeed.  Nor is chroot(2):
    if it succeeded, that would move the process.
    """
    platform, found, goal = case.platform, case.found, case.goal
    kept = platform.rights(goal, case.process.may_set_groups)
    if 'user' not in kept and 0 not in goal.uid:    # SunOS may still give uid 0 any user
        for uid in sorted(set(found.uid) - set(goal.uid)):
            yield NOT_OR_NOT_MAPPED, platform.set_uid(uid)
    if 'group' not in kept:
        for gid in sorted(set(found.gid) - set(goal.gid)):
            yield NOT_OR_NOT_MAPPED, platform.set_gid(gid)
    if 'groups' not in kept:
        if (set(found.groups) ^ set(goal.groups)) - set(goal.gid):
            yield NOT_PERMITTED, platform.set_groups(found.groups)
    for row in platform.regain(case):
        yield NOT_PERMITTED, row


def must_be_at_root(identity):
    for path in '/', '.':
        if device_and_inode(path) != identity:
            raise untrue('not the directory that was opened', path)


def steps_and_attempts(case):
    """All steps and attempts, made before the first one is run; none if nothing is to do."""
    if case.goal is None or case.already_held:
        return (), ()
    steps = tuple(Step(*row) for row in rows_of_drop(case))
    attempts = tuple(Attempt(errors, *row) for errors, row in rows_to_regain(case))
    return steps, attempts


# ------------------------------------------------------------------------------ plan

class Plan:
    """What drop would do here, as texts, and the State it must end in.

    It cannot be run: drop looks again, and compares.

    security, exec, no_new_privs   as given
    found, goal        the State now and afterwards (goal None: it cannot be told)
    steps, attempts    what will be called, in order, and what must fail afterwards
    refusals           why it will not be done
    warnings           what is allowed, yet worth a line
    """
    __slots__ = ('security', 'target', 'exec', 'no_new_privs', 'found', 'goal', 'steps',
                 'attempts', 'refusals', 'warnings')

    if TYPE_CHECKING:
        security: 'Security'
        exec: bool
        no_new_privs: bool
        found: 'State'
        goal: 'Optional[State]'
        steps: 'Tuple[str, ...]'
        attempts: 'Tuple[str, ...]'
        refusals: 'Tuple[str, ...]'
        warnings: 'Tuple[str, ...]'

    def __init__(self, case: 'Any') -> None:
        steps, attempts = steps_and_attempts(case)
        self.security = case.security
        self.target = case.target
        self.exec = case.exec
        self.no_new_privs = case.no_new_privs
        self.found = case.found
        self.goal = case.goal
        self.steps = texts_of_steps(steps, case.platform)
        self.attempts = texts_of(attempts)
        self.refusals = refusals_of(case)
        self.warnings = texts_of_warnings(warnings_of(case))

    def __str__(self):
        return '\n'.join(lines_of_plan(self))


def texts_of(steps):
    return tuple(map(str, steps))


def texts_of_steps(steps, platform):
    """The texts of the steps; the call that drop makes before it looks is the first."""
    if steps and platform.unshare_text:
        return (platform.unshare_text,) + texts_of(steps)
    return texts_of(steps)


def texts_of_warnings(warnings):
    return tuple(located(place, text) for place, text in warnings)


def lines_of_plan(plan):
    platform = this_platform()
    for option in OPTIONS:
        yield '%-20s %s' % (option, text_of_option(plan.security, option, platform))
    if plan.goal is None:
        return
    if not plan.steps:
        yield 'steps: none, this is already held'
    else:
        yield 'steps:'
    for number, text in enumerate(plan.steps, 1):
        yield '%4d  %s' % (number, text)
    if plan.attempts:
        yield '      then every field below is read back, and these must fail:'
    elif plan.steps:
        yield '      then every field below is read back'
    for text in plan.attempts:
        yield '      ' + text
    yield 'ends as:'
    yield str(plan.goal)


def text_of_option(security, option, platform):
    value = getattr(security, option)
    if value is None:
        text = 'absent'
        if option == 'supplemental_groups' and security.init_groups:
            text = 'absent: all groups of the account'
    elif isinstance(value, str):
        text = '"%s"' % printable(value)
    else:
        text = '( %s )' % printable(' '.join(value))
    if option == platform.option and value is not None:
        text += ', read and applied by ' + platform.reads_with
    elif option in ('capabilities', 'privileges') and option != platform.option:
        text += ', not applied on this system'
    words = ', from '
    for place in reversed(security.where.get(option, ())):
        text += words + shown_place(place)
        words = ', over '
    return text


def plan(security: 'Security', exec: bool = False, no_new_privs: bool = True) -> Plan:
    """What drop (exec=True: launch) would do with `security` in this process.

    Needs no right, and changes nothing that lasts: where there is a seccomp filter, what the
    drop would make effective is so for a moment, and if that cannot be taken back the
    process ends with 125.  Raises ConfigError for values that nothing can be done with; what
    else stands against it is in refusals.
    """
    must_be(security, Security, 'plan')
    target = or_refuse(look_up, security, this_platform())
    silence = Silence()                             # for the trials: see calls_blocked
    try:
        return or_refuse(plan_for, security, target, bool(exec), bool(no_new_privs))
    finally:
        silence.restore()


def plan_for(security, target, exec, no_new_privs):
    target.platform.wait_for_one_thread()           # joined ones end; several_threads counts
    process = Process(target.platform, security.chroot)
    try:
        return Plan(Case(security, target, process, exec, no_new_privs))
    finally:
        process.close()


def must_be(asked, kinds, verb):
    if not isinstance(asked, kinds):
        raise TypeError('%s takes a Security, not %s: capdrop.load(FILE) makes one' % (
            verb, type(asked).__name__))


# ------------------------------------------------------------------------------ drop
#
#    1  names are looked up, modules and libraries loaded
#    2  signals are blocked, and seen to be; the collector is off
#    3  descriptors and directories are unshared, if there is one thread
#    4  the process is looked at
#    5  what stands against it is refused; warnings are written
#    6  launch: signals are reset to what a command expects
#    7  the steps
#    8  every field is read back
#    9  the attempts to regain what was given up, which must fail
#   10  every field is read back again
#   11  descriptors are closed
#   12  mask and collector are restored
#
# What fails up to 6 has changed nothing but what the chapter on errors lists (descriptors and
# directories no longer shared; of launch the handlers of signals); mask and collector are
# restored.
#
# From 7 on any call that fails ends the process with 125.  Nothing is imported or asked of
# the name service, and nothing of the caller's runs but Python's own tracers and audit hooks.
# Only / and . are looked up (and, where a filter blocks setfsuid(2), this process in the
# /proc that was opened before).

last_drop = []                  # empty, or (Request.key(), the State that it left)

RESTART = '; restart the process to change its Security stanza'


def drop(security: 'Union[Security, Plan]', no_new_privs: 'Optional[bool]' = None) -> State:
    """Become what `security` (a Security or a Plan) names, for good.

    Returns the State that it has ended in, and that was read back.  Raises ConfigError or
    RefusedError with nothing changed.  Whatever goes wrong after the first step writes one
    line to descriptor 2 and ends the process with status 125.  Call it before starting
    threads.

    no_new_privs=False lets setuid and file-capability programs work afterwards; a Plan has
    decided that already.  credentials(7), capabilities(7), privileges(7).
    """
    request = Request('drop', security, exec=False, no_new_privs=no_new_privs)
    return become(request, command=None, quiet=True)


def launch(security: 'Union[Security, Plan]', argv: 'Sequence[Union[str, bytes]]',
           no_new_privs: 'Optional[bool]' = None,
           env: 'Optional[Mapping[str, str]]' = None) -> 'NoReturn':
    """Drop and exec: does not return.

    argv: the command, looked for on PATH (never in the current directory).  env: its
    environment, default os.environ; in either HOME, USER, LOGNAME and SHELL are replaced
    when the user changes.  Raises ConfigError, RefusedError and ValueError with nothing changed;
    afterwards ends with 125, 126 or 127, or as the command.  execve(2)
    """
    request = Request('launch', security, exec=True, no_new_privs=no_new_privs)
    launch_with(request, argv, env, quiet=True)


def launch_with(request, argv, env, quiet):
    command = Command(argv, os.environ if env is None else env)
    dropped = False
    try:
        state = become(request, command, quiet)
        dropped = True
        command.run(state, request.security.chroot)
    finally:
        if dropped:                                 # run() failed to end the process: no memory
            posix._exit(126)


class Request:
    """What drop or launch was called with.

    agreed_plan    the Plan that it was called with, or None: what is done must be that
    """

    def __init__(self, verb, asked, exec, no_new_privs):
        must_be(asked, (Security, Plan), verb)
        self.exec = exec
        self.agreed_plan = None
        self.security = asked
        self.no_new_privs = no_new_privs is None or bool(no_new_privs)
        if isinstance(asked, Plan):
            self.take_plan(verb, asked, no_new_privs)

    def take_plan(self, verb, plan, no_new_privs):
        if plan.exec != self.exec:
            raise ValueError('%s needs a plan(..., exec=%s)' % (verb, self.exec))
        if no_new_privs is not None:
            raise ValueError('no_new_privs has been decided by the plan')
        self.agreed_plan = plan
        self.security = plan.security
        self.no_new_privs = plan.no_new_privs

    def key(self):
        """All that was asked for, for comparison."""
        return self.security.asked(), self.exec, self.no_new_privs

    def find_target(self):
        if self.agreed_plan is not None:
            return self.agreed_plan.target
        try:
            return or_refuse(look_up, self.security, this_platform())
        except ConfigError as error:
            if last_drop:                           # in a jail there may be no accounts
                raise RefusedError(str(error) + RESTART) from None
            raise


def become(request, command, quiet):
    """drop, and the part of launch before execve(2).  Returns the State that it ends in.

    quiet: warnings are only put into the State that is returned, not written.
    """
    if is_what_the_last_drop_left(request):
        return last_drop[1]                         # in a jail no name could be looked up
    target = request.find_target()
    if request.security.chroot is not None and command is None:
        or_refuse(preload)                          # a command brings what it needs
    silence = Silence()
    try:
        return drop_in_silence(silence, request, target, command, quiet)
    finally:
        silence.restore()


def is_what_the_last_drop_left(request):
    """Was the last drop asked for the same, and does this process hold what it left?"""
    if not last_drop or last_drop[0] != request.key():
        return False
    fields = or_refuse(fields_of_this_process, this_platform())
    if fields.get('threads') == 0:                  # a jail without /proc, unshare(2) blocked
        fields['threads'] = None                    # not compared, then
    return last_drop[1].agrees_with(State(fields))


def drop_in_silence(silence, request, target, command, quiet):
    """From the look to the end; the State that it ends in."""
    security = request.security
    process = or_refuse(unshare_and_look, target.platform, security.chroot)
    try:
        case = or_refuse(Case, security, target, process, request.exec,
                         request.no_new_privs, command)
        steps, attempts = or_refuse(steps_and_attempts, case)
        or_refuse(raise_refusals, case, steps, attempts, request)
        warnings = or_refuse(write_warnings, case, quiet)
        state = State(case.goal.fields(), warnings)
        if command is not None:
            command.set_user(case)
            or_refuse(reset_signals)
        record = request.key(), state
        if steps:
            carry_out(case, steps, attempts, record)
            silence.has_dropped = True
        else:
            last_drop[:] = record
    finally:
        if not silence.has_dropped:                 # else carry_out has closed it
            or_refuse(process.close)
    return state


def fields_of_this_process(platform):
    tasks = platform.open_tasks()
    try:
        return platform.read(tasks)
    finally:
        if tasks is not None:
            posix.close(tasks)


def unshare_and_look(platform, chroot):
    """Unshare first, then look: else a process that shares the descriptors could open one
    after the look."""
    has_one_thread = platform.wait_for_one_thread()
    if has_one_thread:
        platform.unshare()
    process = Process(platform, chroot)
    if not has_one_thread and platform.wait_for_one_thread():
        process.close()                             # one that ended too late to unshare
        raise RefusedError('a thread was still running, and has ended only now: try again')
    return process


def raise_refusals(case, steps, attempts, request):
    """RefusedError if anything stands against it."""
    if request.agreed_plan is not None and steps:      # no steps: already held
        compare(request.agreed_plan, case, steps, attempts)
    refusals = refusals_of(case)
    if refusals:
        raise refusal_error(refusals, RESTART if last_drop else '')


def write_warnings(case, quiet):
    """Write the warnings, unless `quiet`; returns their texts."""
    warnings = texts_of_warnings(warnings_of(case))
    if not quiet:
        for text in warnings:
            say('warning: ' + text)
    return warnings


def compare(agreed_plan, case, steps, attempts):
    """Is this process still as the plan found it, and would the same be done?"""
    changes = agreed_plan.found.differences(case.found)
    if changes:
        names = ', '.join(name for name, _, _ in changes)
        raise RefusedError(
            'this process is no longer as the plan found it: %s changed' % names)
    # zip stops at the end of the shorter: what is missing there shows as 'nothing'
    planned = agreed_plan.steps + agreed_plan.attempts + ('nothing',)
    present = texts_of_steps(steps, case.platform) + texts_of(attempts) + ('nothing',)
    for before, now in zip(planned, present):
        if before != now:
            raise RefusedError('not as planned any more: %s, not %s' % (now, before))


def carry_out(case, steps, attempts, record):
    """From here on only system calls, and whatever goes wrong ends the process."""
    doing = None
    finished = False
    try:
        for step in steps:
            doing = step
            step.run()
        doing = 'reading back'
        verify(case)
        for attempt in attempts:
            doing = attempt
            must_fail(attempt)
        doing = 'reading back after the attempts to regain'
        verify(case)
        doing = 'closing'
        case.process.close()
        last_drop[:] = record
        finished = True
    except BaseException as error:
        end_process('half-dropped and so ended: %s: %s' % (
            doing, reason_for_last_line(doing, error)))
    finally:
        if not finished:                            # no memory or stack was left to say why
            posix._exit(125)


def must_fail(attempt):
    try:
        attempt.run()
    except OSError as error:
        if error.errno in attempt.errors:
            return
        raise                                       # something else was in the way: no proof
    raise untrue('succeeded, though it must fail now')


def verify(case):
    read_back = case.process.read()
    if read_back.seen().keys() != case.goal.seen().keys():
        raise untrue('not every field could be read')
    wrong = []
    for name, wanted, has in case.goal.differences(read_back):
        wrong.append('%s is %s, not %s' % (name, shown(has), shown(wanted)))
    if wrong:
        raise untrue(', '.join(wrong))


def reason_for_last_line(doing, error):
    """Why it failed.  The text of a step names its call already."""
    if not isinstance(error, OSError):
        return error
    if isinstance(doing, Step):
        return error.strerror
    return because(error)


def end_process(message, status=125):
    """One line, if descriptor 2 takes it without blocking, and no return."""
    try:
        ignore_broken_pipes()
        say(message)
    finally:
        posix._exit(status)


def ignore_broken_pipes():
    try:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    except ValueError:                              # a subinterpreter may not
        pass


LONGEST_LINE = 2999             # bytes; a pipe that takes any takes PIPE_BUF, 4096: pipe(7)


def say(message):
    """One line on descriptor 2, if that takes it without blocking."""
    line = ('capdrop: %s' % message).encode('utf-8', 'backslashreplace')[:LONGEST_LINE] + b'\n'
    try:
        if takes_a_line():
            posix.write(2, line)
    except OSError:
        pass                                        # nobody is there to read it


def takes_a_line():
    if platforms_in_use:
        return platforms_in_use[0].takes_a_line()
    import select
    return select.select((), (2,), (), 0)[1]


class Silence:
    """Signals blocked, and seen to be, and the collector off, until restore(): nothing of the
    caller's runs meanwhile.

    A handler or finalizer that ran in the midst of a drop would run with rights that are about
    to go.  Handlers of signals that came before run in __init__, while nothing has changed; what
    one of them raises passes on, and the mask is restored.

    has_dropped: set by drop_in_silence after carry_out; if the mask cannot be restored then, the
    process ends, since its caller could no longer be told by RefusedError.
    """
    __slots__ = 'mask', 'collecting', 'has_dropped'

    def __init__(self):
        self.has_dropped = False
        self.mask = present_mask()
        self.collecting = gc.isenabled()
        try:
            why = set_mask(every_signal())
            gc.disable()
            if why is not None or not handlers_are_blocked():
                raise RefusedError('sigprocmask: signals cannot be blocked')
        except BaseException:
            self.restore()
            raise

    def restore(self):
        if self.collecting:
            gc.enable()
        why = set_mask(self.mask)
        if why is None:
            return
        if self.has_dropped:
            try:
                end_process('dropped, and ended since signals stay blocked: ' + why)
            finally:
                posix._exit(125)                    # no memory was left to say why
        raise RefusedError('signals stay blocked: ' + why)


def every_signal():
    valid_signals = getattr(signal, 'valid_signals', None)      # new in Python 3.8
    if valid_signals is None:
        return range(1, signal.NSIG)
    return valid_signals()


def caught_signals():
    """The signals for which Python runs a function."""
    return {number for number in every_signal() if callable(signal.getsignal(number))}


def handlers_are_blocked():
    """Is every signal blocked for which Python runs a function?  (SIGKILL and SIGSTOP cannot
    be blocked, and have none.)"""
    return caught_signals() <= set(present_mask())


def present_mask():
    try:
        return signal.pthread_sigmask(signal.SIG_BLOCK, ())
    except OSError as error:
        raise_if_of_a_handler(error)
        raise RefusedError('sigprocmask: ' + error.strerror) from None


def set_mask(mask):
    """Set the signal mask; why that failed, or None."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    except OSError as error:
        raise_if_of_a_handler(error)
        return error.strerror
    except MemoryError as error:                    # for the set that pthread_sigmask returns
        raise_if_of_a_handler(error)
        return 'out of memory'
    return None


def raise_if_of_a_handler(error):
    """Handlers that are due run in these calls.  What they raise is theirs, and passes.

    The traceback of such an error goes on below the frame that made the call: into the
    handler.  That of the call itself ends there.  (So does that of a handler written in C:
    its OSError is taken for the call's.)
    """
    traceback = error.__traceback__                 # None where there is no memory for one
    if traceback is not None and traceback.tb_next is not None:
        raise error


def reset_signals():
    """Set signals as a command expects them: Python ignores two, and exec would pass that on."""
    ignored = {signal.SIGPIPE, signal.SIGXFSZ}
    try:
        for number in sorted(ignored):
            signal.signal(number, signal.SIG_IGN)   # discards one that is pending
        for number in sorted(ignored | caught_signals()):
            signal.signal(number, signal.SIG_DFL)
    except ValueError as error:                     # of a subinterpreter
        raise RefusedError('launch: %s' % error) from None


# Modules that a daemon may import later: the jail has none, or has its own.
NEEDED_IN_A_JAIL = (
    '_strptime encodings.ascii encodings.idna encodings.latin_1 encodings.punycode '
    'encodings.utf_8 encodings.utf_8_sig encodings.utf_16 encodings.cp437 linecache locale '
    'signal socket stringprep threading tokenize traceback unicodedata warnings').split()
# What these packages import only when a part of them is used.
LOADED_WHEN_USED = {
    'asyncio': ('concurrent.futures.thread',),
    'concurrent.futures': ('concurrent.futures.process', 'concurrent.futures.thread'),
    'email': ('email.generator', 'email.parser', 'email.policy'),
    'multiprocessing': (
        'multiprocessing.connection', 'multiprocessing.managers', 'multiprocessing.pool',
        'multiprocessing.popen_fork', 'multiprocessing.queues', 'multiprocessing.sharedctypes',
        'multiprocessing.synchronize', 'multiprocessing.util'),
}
CODECS_USED = 'ascii', 'latin-1', 'utf-8', 'utf-8-sig', 'utf-16', 'idna', 'punycode', 'cp437'


def preload():
    load_modules(NEEDED_IN_A_JAIL)
    for loaded, parts in LOADED_WHEN_USED.items():
        if loaded in sys.modules:                   # or loaded by a part of one before it
            load_modules(parts)
    for name in CODECS_USED:
        load_codec(name)
    time.tzset()
    os.strerror(errno.EPERM)
    load_libgcc()


def load_modules(names):
    for name in names:
        try:
            __import__(name)
        except ImportError:
            pass                                    # this Python has none of it


def load_codec(name):
    """Importing is not enough: the registry remembers what it found."""
    try:
        codecs.lookup(name)
        '\xfc'.encode(name, 'replace')
    except (LookupError, ValueError):
        pass


def load_libgcc():
    """pthread_exit(3) of glibc loads it, and aborts without it.  musl has it built in."""
    import ctypes
    try:
        ctypes.CDLL('libgcc_s.so.1')
    except OSError:
        pass


# ---------------------------------------------------------------------------- launch

class Command:
    """What is to be run: its words, its environment, and where it may be found.

    Made before the drop.  Afterwards nothing is looked up but by execve(2): os.execvp
    would import a module there.
    """

    def __init__(self, argv, env):
        if isinstance(argv, (str, bytes)):
            raise TypeError('launch takes a list of words, such as %r' % argv.split())
        self.argv = [os.fsencode(word) for word in argv]
        self.env = {}
        for name, value in env.items():
            if name:
                self.env[os.fsencode(name)] = os.fsencode(value)
        if not self.argv:
            raise ValueError('launch needs a command')
        if b'=' in b''.join(self.env):
            raise ValueError('the name of an environment variable has no = in it')
        if b'\0' in b''.join([*self.argv, *self.env, *self.env.values()]):
            raise ValueError('a command and its environment have no NUL in them')
        self.paths = self.possible_paths()

    def possible_paths(self):
        name = self.argv[0]
        if not name:
            return []
        if b'/' in name:
            return [name]
        search = self.env.get(b'PATH', os.fsencode(os.defpath)).split(b':')
        return [directory + b'/' + name for directory in search if directory.startswith(b'/')]

    def resolved(self, root):
        """The program that will be run (of a script: its interpreter), or None; for checks,
        since execve(2) does its own look-up.  root: the path of the jail, or ''."""
        for path in self.paths:
            path = within(root, os.fsdecode(path))
            if is_executable(path):
                interpreter = interpreter_of(path)
                return within(root, interpreter) if interpreter else path
        return None

    def set_user(self, case):
        """HOME and its like, if the user changes."""
        if case.goal.uid[0] == case.found.uid[0]:
            return
        for name in b'LOGNAME', b'SHELL', b'USER':
            self.env.pop(name, None)
        account = case.account
        if account is None:
            self.env[b'HOME'] = b'/'
            return
        name = os.fsencode(account.name)
        shell = account.shell or '/bin/sh'
        self.env.update({b'HOME': os.fsencode(account.home), b'SHELL': os.fsencode(shell),
                         b'USER': name, b'LOGNAME': name})

    def run(self, state, jail):
        """Execute the command, or write one line and end with 126 or 127."""
        try:
            number = self.execute()
        except MemoryError:
            number = errno.ENOMEM
        except BaseException:
            number = errno.EINVAL
        status = 127 if number == errno.ENOENT else 126
        try:
            end_process(self.failure(number, state, jail), status)
        finally:
            posix._exit(status)

    def execute(self):
        """The errno that stands for all failures, as execvp(3) chooses it."""
        number = errno.ENOENT
        for path in self.paths:
            try:
                posix.execve(path, self.argv, self.env)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    continue
                number = error.errno
                if number != errno.EACCES:
                    break
        return number

    def failure(self, number, state, jail):
        text = '%s: %s' % (printable(os.fsdecode(self.argv[0])), os.strerror(number))
        if number == errno.ENOENT and any(map(exists, self.paths)):
            text += ': the file is there; its interpreter or loader is missing'
        if number == errno.EAGAIN:
            text += ': RLIMIT_NPROC: user %d runs as many processes as it may' % state.uid[0]
        if number == errno.EACCES:
            directory = 'its directory' if b'/' in self.argv[0] else 'a directory of PATH'
            text += ': user %d may not execute it, or enter %s' % (state.uid[0], directory)
        if jail is not None:
            text += ' (in the jail %s)' % printable(jail)
        return text


def within(root, path):
    """A path as it will be found when `root`, '' for the present one, is the root."""
    return '%s/%s' % (root, path) if root else path


def exists(path):
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def is_executable(path):
    """A regular file that somebody may execute?"""
    try:
        mode = posix.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def interpreter_of(path):
    """What stands after #! in the first line of a script, or ''."""
    try:
        descriptor = posix.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ''
    try:
        line, _, _ = posix.read(descriptor, 256).partition(b'\n')
    finally:
        posix.close(descriptor)
    words = line[2:].split()
    if not line.startswith(b'#!') or not words:
        return ''
    return os.fsdecode(words[0])


# -------------------------------------------------------------------------- watching
#
# What running processes hold, and how that differs from what was asked, from the same
# State and the same goal_of.  Touches /proc (on SunOS ucred_get(3C)).

def state(pid: 'Optional[int]' = None) -> State:
    """What this process, or process `pid` (its first thread), holds now.

    Raises RefusedError.  proc(5)
    """
    first, _ = look(pid)
    return State(first)


def look(pid):
    """(the fields of a process, [(thread, its fields)] of its other threads)"""
    platform = this_platform()
    if pid is None:
        return or_refuse(fields_of_this_process, platform), []
    try:
        (_, first), *others = look_or_refuse(platform, pid)
    except (LookupError, ValueError):
        raise RefusedError('/proc/%d/status is not as proc(5) describes it' % pid) from None
    unseen = dict.fromkeys(platform.fields)
    return dict(unseen, **first), others


class NoSuchProcess(RefusedError):
    """The process has ended, or cannot be seen."""


def look_or_refuse(platform, pid):
    try:
        return platform.look(pid)
    except (FileNotFoundError, ProcessLookupError):
        raise NoSuchProcess(platform.not_there % pid) from None
    except OSError as error:
        raise RefusedError(because(error)) from None


class Difference:
    """One thing that a process does not hold as asked.

    field, wanted, has   as in a State
    mark                 'more', 'less' or 'more and less' than asked
    thread               which and its name, '' for the whole process
    str() is one line.
    """
    __slots__ = 'thread', 'field', 'wanted', 'has', 'mark'

    if TYPE_CHECKING:
        thread: str
        field: str
        wanted: 'Any'
        has: 'Any'
        mark: str

    def __init__(self, thread: str, field: str, wanted: 'Any', has: 'Any', mark: str) -> None:
        self.thread = thread
        self.field = field
        self.wanted = wanted
        self.has = has
        self.mark = mark

    def __str__(self):
        where = 'thread %s: ' % self.thread if self.thread else ''
        return '%s%s: wanted %s, has %s (%s than asked)' % (
            where, self.field, shown(self.wanted), shown(self.has), self.mark)

    def as_dict(self) -> 'Dict[str, Any]':
        """For JSON."""
        return plain({name: getattr(self, name) for name in self.__slots__})


class Audit(list):
    """The differences (Difference) between what a process holds and what a Security asks.

    pid, command, threads   which process
    like      what it is nearest to: 'drop', 'launch' or 'drop or launch'
    unseen    what cannot be seen from outside
    hint      how to see more, or ''
    """
    if TYPE_CHECKING:
        pid: int
        command: str
        threads: int
        like: str
        unseen: 'List[str]'
        hint: str

        def __iter__(self) -> 'Iterator[Difference]': ...

    def __init__(self, differences: 'Iterable[Difference]', pid: int, command: str,
                 threads: int, like: str, unseen: 'List[str]') -> None:
        super().__init__(differences)
        self.pid = pid
        self.command = command
        self.threads = threads
        self.like = like
        self.unseen = unseen
        self.hint = this_platform().hint(self)

    def more(self) -> 'List[Difference]':
        """The differences by which the process holds more than asked."""
        return those_beyond(self)

    def __str__(self):
        return '\n'.join(map(str, self))

    def as_dict(self) -> 'Dict[str, Any]':
        """For JSON."""
        return {'pid': self.pid,
                'command': self.command,
                'threads': self.threads,
                'like': self.like,
                'unseen': self.unseen,
                'differences': [difference.as_dict() for difference in self]}


def those_beyond(differences):
    """Of these, the ones by which a process holds more than asked."""
    return [difference for difference in differences if 'more' in difference.mark]


def audit(security: 'Security', pid: int, no_new_privs: bool = True) -> Audit:
    """Does process `pid`, every thread of it, hold what drop or launch would have left?

    Raises ConfigError, and RefusedError where that cannot be told.  proc(5),
    capabilities(7), ucred_get(3C).
    """
    must_be(security, Security, 'audit')
    target = or_refuse(look_up, security, this_platform())
    return audit_process(security, target, pid, no_new_privs)


def audit_process(security, target, pid, no_new_privs):
    """The Audit of one process, against what drop and against what launch would have left.
    It tells the differences from the one beyond which the process holds less; of equals,
    from the one from which it differs less."""
    platform = target.platform
    first, others = look(pid)
    threads = [('', first)] + others
    around = or_refuse(platform.around)
    refuse_unseen(pid, threads, around, platform)
    places, unseen_places = places_to_expect(security, platform, first, around)
    candidates = {}
    for kind, exec in ('drop', False), ('launch', True):
        asked = asked_of_another(target, first, exec, no_new_privs)
        if exec and asked.get('permitted') != asked.get('effective'):
            continue                                # no launch can leave that
        wanted = wanted_fields(asked, places, platform, exec, security.chroot is not None)
        comparison = Comparison(wanted, places, threads, platform, security.chroot)
        candidates[kind] = list(comparison.differences())

    distances = {}
    for kind, differences in candidates.items():
        distances[kind] = len(those_beyond(differences)), len(differences)
    nearest_one = min(distances.values())
    like = [kind for kind in candidates if distances[kind] == nearest_one]
    return Audit(candidates[like[0]], pid=pid, command=first.get('command') or '',
                 threads=first.get('threads') or len(threads), like=' or '.join(like),
                 unseen=what_is_unseen(first, platform) + unseen_places)


def refuse_unseen(pid, threads, around, platform):
    """RefusedError where root directory or namespaces of a thread cannot be seen."""
    for _, fields in threads:
        if any(fields.get(name) is None for name in around):
            raise RefusedError('process %d: %s' % (pid, platform.audit_refusal()))


def asked_of_another(target, first, exec, no_new_privs):
    """{field: value} that a drop would have set in a process that is now as `first` says."""
    rights = ALL_RIGHTS
    if target.uid is None and target.default is None:
        if 0 in first['uid']:
            raise RefusedError(NO_USER)
        rights = ALL_RIGHTS - {'user'}              # it was started as who it is
    before = State(target.platform.unlimited(first))
    return fields_asked(target, before, rights, exec, no_new_privs)


def what_is_unseen(first, platform):
    unseen = [name for name in platform.fields if first[name] is None]
    for number in first.get('io_urings', ()):
        unseen.append('whether the io_uring of descriptor %d is from before' % number)
    return unseen


def places_to_expect(security, platform, first, around):
    """({place: identity} that every thread is to have, those that cannot be told)

    A jail has a root directory of its own, and so has who is elsewhere: in another mount
    namespace (a container, from its host), in another zone.
    """
    unseen = []
    places = dict(around)
    elsewhere = platform.elsewhere(first, around)
    if elsewhere or security.chroot is not None:
        for name in around:
            if name != 'user_ns':
                places[name] = first[name]        # which all of its threads share
    if security.chroot is not None:
        try:
            path = as_the_system_spells(security.chroot)
            places['root'] = device_and_inode(path)
        except OSError as error:
            raise RefusedError('chroot: %s' % because(error)) from None
    elif elsewhere:
        unseen.append('root (%s)' % elsewhere)
    return places, unseen


def wanted_fields(asked, places, platform, exec, jailed):
    """What to compare with: what was asked for, and where the process is to be."""
    wanted = dict(asked, fanotify=())               # none that opens files
    wanted.update(places)
    wanted.pop('cwd_outside', None)
    if jailed:
        wanted['cwd_outside'] = 0                   # it leads out of the jail: chroot(2)
    if exec:
        for name in platform.cleared_by_exec:
            wanted.pop(name, None)
    return wanted


class Comparison:
    """What a process should hold, and what its threads do.

    wanted     {field: value}; what is None, or not in it, is not compared
    places     the names of those fields that tell a place: see places_to_expect
    threads    [(name, {field: value})], the first thread's name being ''; None is not seen
    """

    def __init__(self, wanted, places, threads, platform, chroot):
        self.wanted = wanted
        self.places = places
        self.threads = threads
        self.platform = platform
        self.chroot = chroot

    def differences(self):
        """Each Difference; of the other threads only what differs from the first one."""
        _, first = self.threads[0]
        for thread, fields in self.threads:
            for name, has in fields.items():
                if has is None or (thread and has == first.get(name)):
                    continue
                if self.as_wanted(name, fields):
                    continue
                mark = self.mark(name, has)
                if mark:
                    yield self.difference(thread, name, fields, mark)

    def as_wanted(self, name, fields):
        want = self.wanted.get(name)
        if want is None or want == fields[name]:
            return True
        # a wrong root directory is told once, as `root`
        return name == 'root_path' and fields['root'] != self.wanted['root']

    def mark(self, name, has):
        """'more', 'less' or 'more and less' than asked; '' where that makes no difference."""
        want = self.wanted[name]
        # a flag that is not as wanted allows more (a CapSet is an int, too)
        if type(want) is int:
            return 'more'
        if name in self.places:                     # the right one or not: there is no less
            return 'more and less'
        holds, asked = set(has), set(want)          # ids, or the names in a set of rights
        if name == 'groups':
            primary = set(self.wanted['gid'])
            holds, asked = holds - primary, asked - primary
        marks = []
        if holds - asked:
            marks.append('more')
        if asked - holds and name not in self.platform.may_lack:
            marks.append('less')
        return ' and '.join(marks)

    def difference(self, thread, name, fields, mark):
        want, has = self.wanted[name], fields[name]
        if name == 'root' and 'root_path' in fields:
            want = (self.chroot or '/',) + want
            has = (fields['root_path'],) + has
        return Difference(thread, name, want, has, mark)


def unusual(first, threads):
    """Sentences about what is worth a second look in what `look` found."""
    platform = this_platform()
    uid, gid = first['uid'][1], first['gid'][1]
    for what, ids in ('user', first['uid']), ('group', first['gid']):
        others = set(ids) - {ids[1]}
        if others:
            filesystem = ', filesystem' if len(ids) > 3 else ''
            yield '%s ids are real, effective, saved%s: it can go back to %s %s' % (
                what, filesystem, what, shown(others))
    if uid == 0:
        yield 'user id 0 owns ' + platform.roots_own
    else:
        yield from unusual_rights(first, uid, gid, platform)
    if 'user_ns' in first and first['user_ns'] != platform.around().get('user_ns'):
        yield 'in another user namespace: its capabilities count in that only'
    for thread, fields in threads:
        for name, value in fields.items():
            # threads may have started between the looks; and a name is no right
            if name in ('command', 'threads'):
                continue
            if value != first.get(name):
                yield 'thread %s differs: %s %s' % (thread, name, shown(value))


def unusual_rights(first, uid, gid, platform):
    import pwd
    powerful = platform.powerful(first)
    if powerful:
        yield 'amounts to root: %s' % ' '.join(powerful)
    has_by_account = set()
    entry = found_or_none(pwd.getpwuid, uid)
    if entry is not None:
        has_by_account = all_groups_of(entry)
    others = set(first['groups']) - {gid} - has_by_account
    if others:
        yield 'groups that user %d does not have by its account, left over: %s' % (
            uid, shown(others))


# ---------------------------------------------------------------------- command line
#
# Words in, an Answer out; each verb is a function.  The text of this module is the manual.

OVERRIDES = {'--' + option.replace('_', '-'): option for option in OPTIONS}
WITH_VALUE = tuple(OVERRIDES) + ('--cgroup',)
SWITCHES = ('--json', '--exec', '--init-groups', '--allow-new-privs', '--at-most', '-q', '-h',
            '--help', '--version')


class Usage(Exception):
    """The command line is wrong."""


class Answer:
    """What a verb answers with.

    status    the exit status
    data      for --json
    lines     for standard output otherwise: objects whose str() is a line, or several
    messages  for descriptor 2
    """
    __slots__ = 'status', 'data', 'lines', 'messages'

    def __init__(self, status, data, lines, messages=()):
        self.status, self.data, self.lines, self.messages = status, data, lines, messages


class Arguments:
    """A command line, taken apart.

    verb, words    the first word, and the others
    flags          those of SWITCHES that are there
    values         {option of WITH_VALUE: its value}
    command        what stands after --, or None
    """

    def __init__(self, argv):
        self.words = []
        self.flags = set()
        self.values = {}
        self.command = None
        self.verb = ''
        rest = iter(argv)
        for word in rest:
            if word == '--':
                self.command = list(rest)
            else:
                self.take(word, rest)

    def take(self, word, rest):
        name, equals, value = word.partition('=')
        if name in WITH_VALUE:
            if not equals:
                value = next(rest, None)
            if value in (None, '--'):
                raise Usage('%s needs a value' % name)
            self.values[name] = value
        elif word in SWITCHES:
            self.flags.add(word)
        elif word.startswith('-') and word != '-':
            raise Usage('there is no option %s%s' % (printable(word), self.hint(name)))
        elif not self.verb:
            self.verb = word
        else:
            self.words.append(word)

    def hint(self, name):
        """No switch is guessed: --allow-new-privs would allow more than was meant."""
        known = [option.lstrip('-') for option in WITH_VALUE + SWITCHES]
        guess = '--' + nearest(name.lstrip('-'), known, likeness=0.5)
        if name.startswith('--') and guess in WITH_VALUE:
            return ' (did you mean %s?)' % guess
        if self.verb == 'exec':
            return '; what belongs to the command stands after --'
        return ''

    def has(self, flag):
        return flag in self.flags

    @property
    def overrides(self):
        """{option of the stanza: (its value, the option of the command line)}"""
        result = {}
        for name, option in OVERRIDES.items():
            if name not in self.values:
                continue
            value = self.values[name]
            if option == 'supplemental_groups':
                value = split_groups(value)
            result[option] = value, name
        if self.has('--init-groups'):
            result['init_groups'] = True, '--init-groups'
        return result

    @property
    def no_new_privs(self):
        return not self.has('--allow-new-privs')


def split_groups(text):
    """The names of a list with commas; an empty text is an empty list."""
    if not text:
        return ()
    return [word.strip() for word in text.split(',')]


def main(argv: 'Optional[Sequence[str]]' = None) -> int:
    """The command line (the text of this module is its manual); returns the exit status."""
    if argv is None:
        argv = sys.argv[1:]
    try:
        return run(argv)
    except Usage as error:
        say('%s; capdrop -h shows how' % error)
        return 125 if is_exec(argv) else 2
    except RefusedError as error:
        for text in error.refusals or (str(error),):
            say(text)
        return 125
    except (Error, OSError, MemoryError) as error:
        if isinstance(error, OSError):
            say(because(error))
        else:
            say(str(error) or 'out of memory')
        return 125
    except KeyboardInterrupt:
        return 130
    except Exception as error:                      # a mistake of this program
        if not is_exec(argv):
            raise
        say('%s: %s' % (type(error).__name__, error))
        return 125


def is_exec(argv):
    """Is the first word that is no option `exec`?"""
    rest = iter(argv)
    for word in rest:
        if word in WITH_VALUE:
            next(rest, None)
        elif word == '-' or not word.startswith('-'):
            return word == 'exec'
    return False


def run(argv):
    arguments = Arguments(argv)
    if arguments.has('--version'):
        return put(['capdrop %s' % __version__])
    if arguments.has('-h') or arguments.has('--help'):
        return put((__doc__ or '').splitlines())
    verb = arguments.verb
    if not verb:
        raise Usage('a command is needed')
    if verb not in VERBS:
        raise Usage('there is no command "%s"; there are %s' % (
            printable(verb), ', '.join(VERBS)))
    function, allowed = VERBS[verb]
    for flag in sorted(arguments.flags - set(allowed.split())):
        raise Usage('%s is not for %s' % (flag, verb))
    if arguments.command is not None and verb != 'exec':
        raise Usage('-- is for exec')
    if '--cgroup' in arguments.values and verb != 'audit':
        raise Usage('--cgroup is for audit')
    answer = function(arguments)
    lines = answer.lines
    if arguments.has('--json'):
        import json
        lines = [json.dumps(answer.data, indent=1)]
    put(lines)
    for text in answer.messages:
        say(text)
    return answer.status


def put(lines):
    """Write them all to standard output; a reader that has gone has seen enough.  Returns 0,
    the exit status."""
    data = ''.join('%s\n' % line for line in lines).encode('utf-8', 'backslashreplace')
    try:
        while data:
            data = data[os.write(1, data):]
    except BrokenPipeError:
        pass
    return 0


def configured(arguments):
    """The file's Security, overridden by what the command line says."""
    file = file_of(arguments)
    if file is None:
        security = Security()
    elif file == '-':
        security = read_configuration(None)
    else:
        security = load(file)
    overrides = arguments.overrides
    return security.overridden(overrides) if overrides else security


def file_of(arguments):
    """One FILE; with options that stand in for it, none."""
    words = arguments.words
    if len(words) == 1:
        return words[0]
    if not words and arguments.overrides:
        return None
    takes = '%s takes one FILE' % arguments.verb
    if arguments.verb == 'exec':
        takes += ' before --, and the command stands after it'
    raise Usage(takes)


# check

def check_verb(arguments):
    file = file_of(arguments)
    errors, warnings, security = [], [], Security()
    try:
        security = configured(arguments)
        errors, warnings = check(security, arguments.no_new_privs)
    except ConfigError as error:
        errors.append(error)
    except RefusedError as error:
        if sys.platform in PLATFORMS:               # no error of the file
            raise
        warnings = [((None, None, None), str(error))]
    findings = [Finding((error.file or file, error.line, error.column), 'error',
                        error.message, error.excerpt) for error in errors]
    if not arguments.has('-q'):
        for (name, line, column), text in warnings:
            findings.append(Finding((name or file, line, column), 'warning', text, ''))
    data = {'options': provenance(security),
            'findings': [finding.as_dict() for finding in findings]}
    status = 1 if errors else 0
    return Answer(status, data, findings)


def check(security, no_new_privs):
    """([ConfigError], [(place, warning)]): what can be told without a process.

    As for exec, and as if it were started as root.
    """
    platform = this_platform()
    errors = []
    target = or_refuse(look_up, security, platform, errors.append)
    warnings = list(security.notes)
    if errors:
        return errors, warnings
    if target.uid is None and target.default is None:
        return errors, warnings + [((None, None, None), NO_USER)]
    case = Case(security, target, AssumedRoot(platform), True, no_new_privs)
    for doubt in DOUBTS:
        for text in doubt(case):
            warnings.append(((None, None, None), text))
    for warning in WARNINGS_OF_CHECK:
        for option, text in warning(case):
            warnings.append((security.place(option), text))
    return errors, warnings


class AssumedRoot(Process):
    """For check: root at its start, with all rights.  Nothing is opened."""
    rights = ALL_RIGHTS
    may_set_groups = True
    descriptors = ()

    def __init__(self, platform):
        self.platform = platform
        self.found = State(platform.assumed_root())
        self.unmapped_owners = platform.unmapped_owners()


def platforms_doubts(case):
    for doubt in case.platform.doubts:
        yield from doubt(case)


# What would stand against a launch by root, and can be told beforehand.  They are warnings:
# the file may be checked on a machine where it will not be used.
DOUBTS = (
    platforms_doubts,
    rewritable_by_strangers,
    overrides_root,
    gives_himself,
)

WARNINGS_OF_CHECK = (
    rewritable_by_the_user,
    root_keeps_everything,
    root_is_no_confinement,
    in_roots_group,
    amounts_to_root,
    nobody_is_shared,
)


class Finding:
    """A line of check."""
    __slots__ = 'place', 'severity', 'message', 'excerpt'

    def __init__(self, place, severity, message, excerpt):
        self.place = place
        self.severity = severity
        self.message = message
        self.excerpt = excerpt

    def __str__(self):
        line = located(self.place, '%s: %s' % (self.severity, self.message))
        if self.excerpt and os.isatty(1):
            return '%s\n%s' % (line, self.excerpt)
        return line

    def as_dict(self):
        return dict(dict_of_place(self.place), severity=self.severity, message=self.message)


def dict_of_place(place):
    file, line, column = place
    return {'file': file, 'line': line, 'column': column}


def provenance(security):
    """Each option's value and the places that it comes from, for JSON."""
    result = {}
    for option, places in security.where.items():
        *earlier, last = places
        result[option] = {'value': getattr(security, option), 'from': dict_of_place(last),
                          'overrode': [dict_of_place(place) for place in earlier]}
    return result


# plan, exec

def plan_verb(arguments):
    planned = plan(configured(arguments), arguments.has('--exec'), arguments.no_new_privs)
    data = {'options': provenance(planned.security),
            'exec': planned.exec,
            'steps': list(planned.steps),
            'must_fail': list(planned.attempts),
            'ends_as': planned.goal.as_dict() if planned.goal is not None else None,
            'refusals': list(planned.refusals),
            'warnings': list(planned.warnings)}
    messages = []
    if not arguments.has('--json'):
        if not arguments.has('-q'):
            messages += ['warning: ' + text for text in planned.warnings]
        messages += ['refused: ' + text for text in planned.refusals]
    status = 125 if planned.refusals else 0
    return Answer(status, data, [planned], messages)


def exec_verb(arguments):
    """Does not return: the process becomes the command, or ends."""
    if not arguments.command:
        raise Usage('exec needs -- and the command after it')
    request = Request('launch', configured(arguments), True, arguments.no_new_privs)
    launch_with(request, arguments.command, None, arguments.has('-q'))


# status, audit

def status_verb(arguments):
    words = arguments.words
    if len(words) > 1 or arguments.overrides:
        raise Usage('status takes one PID, or nothing')
    first, others = look(pid_of(words[0]) if words else None)
    notes = or_refuse(list, unusual(first, others))     # its system calls are made by list
    held = State(first)
    lines = [held]
    if not arguments.has('-q'):
        lines += ['note: ' + text for text in notes]
    return Answer(0, dict(held.as_dict(), notes=notes), lines)


def pid_of(word):
    """int() would take blanks and underscores; and not thousands of digits."""
    if not word.encode('ascii', 'replace').isdigit() or len(word) > 100:
        raise Usage('%s is not the number of a process' % printable(word))
    return int(word)


def audit_verb(arguments):
    directory = arguments.values.get('--cgroup')
    if directory is None:
        pids = pids_to_audit(arguments)
    else:
        pids = pids_of_cgroup(directory)
    security = configured(arguments)
    target = or_refuse(look_up, security, this_platform())
    audits, ended = [], []
    for pid in pids:
        try:
            audits.append(or_refuse(audit_process, security, target, pid,
                                    arguments.no_new_privs))
        except NoSuchProcess as error:
            if directory is None:
                raise
            ended.append(str(error))                # after it was listed
    if not audits:
        raise RefusedError('no process of the control group could be audited')
    return answer_of_audits(arguments, security, audits, ended)


def answer_of_audits(arguments, security, audits, ended):
    """ended: sentences about the processes that could not be audited any more."""
    allows_less = arguments.has('--at-most')
    counted = [each.more() if allows_less else each for each in audits]
    status = 1 if any(counted) else 0
    several = len(audits) + len(ended) > 1
    lines, messages = [], list(ended)
    for each in audits:
        who = 'process %d: ' % each.pid if several else ''
        lines += [who + str(difference) for difference in each]
    if not arguments.has('-q'):
        messages = ['warning: ' + located(*note) for note in security.notes] + messages
        for each in audits:
            messages += messages_of_audit(each)
    data = [each.as_dict() for each in audits]
    if not several and '--cgroup' not in arguments.values:
        data = data[0]                              # one process was named: no list
    return Answer(status, data, lines, messages)


def pids_to_audit(arguments):
    """The process ids among the words, which keep FILE only."""
    words = arguments.words
    file = words[:1]
    if arguments.overrides and len(words) >= 1 and words[0].isdigit():
        file = []
    numbers = words[len(file):]
    if not numbers:
        raise Usage('audit takes FILE and PID')
    arguments.words = file
    return [pid_of(word) for word in numbers]


MOST_LISTINGS = 200             # of a control group whose processes start others


def pids_of_cgroup(directory):
    """The processes of a control group, and those that are started while they are audited.
    (One that gets the number of one that was audited and has ended is not seen.)"""
    new = pids_in_cgroup(directory)
    if not new:
        raise RefusedError('%s: no process is in this control group, or there is none'
                           % printable(directory))
    listed = set()
    for _ in range(MOST_LISTINGS):
        listed |= new
        yield from sorted(new)
        new = pids_in_cgroup(directory) - listed
        if not new:
            return
    raise RefusedError('%s: starts processes faster than they can be audited'
                       % printable(directory))


def pids_in_cgroup(directory):
    """Those of it, and of the groups below it, now.  cgroups(7)"""
    pids = set()
    for path, _, files in os.walk(directory, onerror=raise_unless_gone):
        if 'cgroup.procs' in files:
            pids.update(pids_listed_in(os.path.join(path, 'cgroup.procs'), path == directory))
    if 0 in pids:
        raise RefusedError('%s: holds processes that this PID namespace does not show: audit '
                           'it from that of the host' % printable(directory))
    return pids


def pids_listed_in(path, is_asked_for):
    """is_asked_for: whether it is of the control group that is audited, or of one below."""
    try:
        return [int(word) for word in contents(path).split()]
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise_unless_gone(error)
        elif is_asked_for:
            raise RefusedError('%s lists no processes: audit the group above it, which this '
                               'one is a part of (threaded)' % printable(path)) from None
        return []                                   # gone, or listed by the group above


def raise_unless_gone(error):
    """A group may go while it is looked at; one that may not be looked into is not clean."""
    if error.errno not in (errno.ENOENT, errno.ENODEV):
        raise error


def messages_of_audit(each):
    who = 'process %d' % each.pid
    if each.command:
        who += ' (%s)' % printable(each.command)
    if each.threads is not None:
        who += ', 1 thread' if each.threads == 1 else ', %d threads' % each.threads
    verdict = 'nearest to what a %s leaves' if each else 'as a %s leaves it'
    yield '%s: %s; cannot be seen from outside: %s' % (
        who, verdict % each.like, ', '.join(each.unseen))
    if each.hint:
        yield each.hint


VERBS = {                       # (function, its flags)
    'check': (check_verb, '--json --init-groups --allow-new-privs -q'),
    'plan': (plan_verb, '--json --exec --init-groups --allow-new-privs -q'),
    'exec': (exec_verb, '--init-groups --allow-new-privs -q'),
    'status': (status_verb, '--json -q'),
    'audit': (audit_verb, '--json --init-groups --allow-new-privs --at-most -q'),
}


if __name__ == '__main__':
    sys.exit(main())
