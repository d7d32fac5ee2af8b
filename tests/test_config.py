"""The configuration: text -> Security.  The files of data/ say themselves, in their first lines, what is expected of them."""
import errno
import json
import os
import pty
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import pytest

import capdrop
from capdrop import ConfigError, load, loads
from conftest import TESTS, SCRIPT, in_child, need, need_root, run

DATA = os.path.join(TESTS, 'data')
STANZA = 'Security { user = ecuser }\n'


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Nothing of this machine's own configuration is found."""
    monkeypatch.setenv('EC_CONF_SEARCH_PATH', '')
    monkeypatch.delenv('EC_NODE_NAME', raising=False)


@pytest.fixture
def public():
    """A directory that only root can write and everyone can read, by its real path."""
    path = os.path.realpath(tempfile.mkdtemp(prefix='capdrop-', dir='/tmp'))
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


def write(*path, **mode):
    """write(directories..., text): the path of the file written."""
    path, text = os.path.join(*map(str, path[:-1])), path[-1]
    if not os.path.isdir(os.path.dirname(path)):
        os.makedirs(os.path.dirname(path))
    with open(path, 'wb') as f:
        f.write(text if isinstance(text, bytes) else text.encode())
    os.chmod(path, mode.get('mode', 0o644))
    return path


def options(security):
    """What is set in it."""
    return {option: getattr(security, option) for option in capdrop.OPTIONS if getattr(security, option) is not None}


def notes(security):
    return [text for _, text in security.notes]


def error(function, *args):
    """The ConfigError that it raises."""
    with pytest.raises(ConfigError) as caught:
        function(*args)
    return caught.value


def at(e):
    return e.line, e.column


# ---------------------------------------------------------------------------- the files of data/

def cases(kind):
    return sorted(name[:-5] for name in os.listdir(os.path.join(DATA, kind)) if name.endswith('.conf'))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A copy of data/ that everyone may read, whatever the umask of the checkout."""
    top = os.path.realpath(str(tmp_path_factory.mktemp('corpus')))
    for directory, _, names in os.walk(DATA):
        for name in names:
            with open(os.path.join(directory, name), 'rb') as f:
                write(top, os.path.relpath(directory, DATA), name, f.read())
    return top


def header(path):
    """The lines that say what is expected: [(keyword, rest)]."""
    with open(path, encoding='utf-8', newline='\n') as f:
        for line in f:
            if not line.startswith('# '):
                return
            keyword, colon, rest = line[2:].rstrip('\n').partition(': ')
            if keyword in ('expect', 'warning', 'error'):
                yield keyword, rest


def shown(place, main):
    """(file, line, column) as the files of data/ write it."""
    file, line, column = place
    file = '' if file in (main, None) else os.path.relpath(os.path.normpath(file), os.path.dirname(main)) + ':'
    return file + ('-' if line is None else '%d:%d' % (line, column))


@pytest.mark.parametrize('name', cases('valid'))
def test_valid_file_means_what_its_first_lines_say(data, name):
    main = os.path.join(data, 'valid', name + '.conf')
    security = load(main)
    found = ['%s = %s at %s' % (option, '( %s)' % ''.join('"%s" ' % v for v in value) if isinstance(value, tuple)
                                else '"%s"' % value, shown(security.where[option][-1], main))
             for option, value in options(security).items()]
    assert sorted(found) == sorted(rest for keyword, rest in header(main) if keyword == 'expect')
    expected = [rest for keyword, rest in header(main) if keyword == 'warning']
    told = ['%s: %s' % (shown(place, main), text) for place, text in security.notes]
    assert len(told) == len(expected)
    for text in expected:
        assert [one for one in told if one.startswith(text)], (text, told)


@pytest.mark.parametrize('name', cases('invalid'))
def test_invalid_file_gives_the_error_that_its_first_lines_say(data, name):
    main = os.path.join(data, 'invalid', name + '.conf')
    (_, expected), = header(main)
    place, _, message = expected.partition(': ')
    e = error(load, main)
    assert shown((e.file, e.line, e.column), main) == place
    assert message in e.message


@pytest.mark.parametrize('rule', range(1, 25))
def test_every_rule_has_a_file(rule):
    assert [name for kind in ('valid', 'invalid') for name in cases(kind) if name.startswith('D%02d_' % rule)]


@pytest.mark.parametrize('name', cases('valid'))
def test_valid_file_means_the_same_with_other_line_ends_and_a_byte_order_mark(data, name):
    main = os.path.join(data, 'valid', name + '.conf')
    with open(main, 'rb') as f:
        text = f.read()
    expected = load(main)
    try:
        write(main, b'\xef\xbb\xbf' + text.replace(b'\n', b'\r\n'))
        security = load(main)
    finally:
        write(main, text)
    assert options(security) == options(expected)
    assert security.where == expected.where and security.notes == expected.notes


# ---------------------------------------------------------------------------- bytes

def test_a_byte_order_mark_is_no_column(tmp_path):
    assert load(write(tmp_path, 'f', b'\xef\xbb\xbf' + STANZA.encode())).where['user'][-1][1:] == (1, 19)
    assert at(error(load, write(tmp_path, 'f', b'\xef\xbb\xbf} '))) == (1, 1)


def test_a_byte_order_mark_elsewhere_is_a_character():
    assert at(error(loads, 'a {\n\ufeffb } }')) == (2, 6)


def test_a_second_byte_order_mark_is_a_word(tmp_path):
    assert 'no Security' in error(load, write(tmp_path, 'f', b'\xef\xbb\xbf' * 2 + STANZA.encode())).message


@pytest.mark.parametrize('before', ['', 'a { }\n', 'ä\n', 'é' * 40000 + '\n', STANZA, '# '])
def test_nul_and_invalid_utf8_are_errors_at_their_place(tmp_path, before):
    where = before.count('\n') + 1, len(before) - before.rfind('\n')
    for byte, message in ((b'\0', 'NUL'), (b'\xff', 'UTF-8'), (b'\xc3', 'UTF-8'), (b'\xed\xa0\x80', 'UTF-8'), (b'\xc0\x80', 'UTF-8')):
        for after in (b'', b'\n' + STANZA.encode()):
            e = error(load, write(tmp_path, 'f', before.encode() + byte + after))
            assert message in e.message and at(e) == where


def test_a_character_may_lie_across_any_boundary(tmp_path):
    for shift in range(8):
        text = '#' * shift + '𝄞' * 70000 + '\n' + STANZA
        assert load(write(tmp_path, 'f', text if shift else '#' + text)).user == 'ecuser'


@pytest.mark.parametrize('text, place', [
    ('# comment\rSecurity { user = root }\n' + STANZA, (1, 10)), ('x { }\n# a\r', (2, 4)), ('/* a\r*/' + STANZA, (1, 5)),
    ('# a\r\n# b\r\r\n' + STANZA, (2, 4)), ('Security {\n user = daemon # a\r user = root\n}\n', (2, 19)), ('x { # a\rb\n}\n', (1, 8))])
def test_a_carriage_return_alone_in_a_comment_is_an_error(text, place):
    """Editors show what follows it on the next line, where it is no comment."""
    e = error(loads, text)
    assert e.message.startswith('a carriage return alone ends no line') and at(e) == place


def test_elsewhere_a_carriage_return_is_a_blank():
    assert loads('Security\r{\ruser\r=\rdaemon\r}\r# end\r\n').user == 'daemon'
    assert loads('x "a\rb" {\n}\n' + STANZA).user == 'ecuser'


@pytest.mark.parametrize('text', ['\ud800', 'a = "\udfff"', '\udc80', STANZA + '# \udcff', '\x00', '\U0010ffff'])
def test_text_that_no_file_could_hold_is_a_config_error(text):
    error(loads, text)


def test_text_is_read_as_a_file_is():
    security = loads(STANZA)
    assert security.user == 'ecuser' and security.where == {'user': [('<string>', 1, 19)]}
    assert security.origin.ways == {}
    assert error(loads, 'a {', 'name').file == 'name'


@pytest.mark.parametrize('length, good', [(4096, True), (4097, False)])
def test_a_value_has_at_most_4096_characters(length, good):
    for option in capdrop.OPTIONS:
        value = '/' + 'x' * (length - 1)
        if good:
            loads('Security { %s = "%s" }' % (option, value))
        else:
            assert 'longer than 4096' in error(loads, 'Security { %s = "%s" }' % (option, value)).message


def test_no_value_holds_a_control_character():
    for option in capdrop.OPTIONS:
        for c in [chr(c) for c in range(1, 32)] + ['\x7f', '\x85', '\u2028', '\u202e', '\ufeff', '\ue000']:
            text = 'Security { %s = "/a%sb" }' % (option, c)
            if c in '\t\r\n\v\f' and option in ('capabilities', 'privileges'):
                assert getattr(loads(text), option) == '/a%sb' % c
            else:
                assert 'holds %s, which' % ascii(c) in error(loads, text).message


def test_blanks_of_all_kinds_separate_the_clauses_of_a_set():
    text = ' \tcap_chown+ep\r\n\v cap_kill+ep\f'
    assert loads('Security { capabilities = "%s" privileges = "%s" }' % (text, text)).capabilities == text
    assert "holds '\\xa0'" in error(loads, 'Security { capabilities = "a\xa0b" }').message
    security = loads('Security { capabilities = "cap_chown+ep\n\tcap_kil+ep" }')
    e = security.error('capabilities', 'no %s', 'cap_kil', len('cap_chown+ep\n\t'))
    assert (e.line, e.column, e.message) == (2, 2, 'capabilities: no "cap_kil"')
    security = loads('Security { supplemental_groups = ( a b ) }')
    assert str(security.error('supplemental_groups', 'no %s', 'b')) == '<string>:1:34: supplemental_groups: no "b"'


# ---------------------------------------------------------------------------- errors

def test_an_error_shows_the_line_with_a_caret_under_the_column():
    assert error(loads, 'a { }\nSecurity { usr = x } # y\n').excerpt == ('Security { usr = x } # y\n'
                                                                       '           ^')
    assert error(loads, 'Security {\tü\tusr = x }\n').excerpt.splitlines()[0] == 'Security { ü usr = x }'
    assert error(loads, '\t} \x1b[2J').excerpt == ' } \\x1b[2J\n ^'
    assert error(loads, '\x1b }').excerpt == '\\x1b }\n     ^'


def test_every_error_with_a_line_shows_it():
    for text in ('Security { user = "" }', 'Security { user = "a\\b" }', 'Security { supplemental_groups = ( a "b c" ) }',
                 'Security { chroot = x }', 'a = "', '/*', 'a {', 'Security {', 'include x', 'a/*', 'Security { user = x; }'):
        assert '^' in error(loads, text).excerpt, text


def test_the_excerpt_of_a_long_line_is_short_and_has_its_caret_in_the_right_place():
    text, caret = error(loads, 'x ' * 5000 + '}' + ' y' * 5000).excerpt.split('\n')
    assert len(text) < 200 and text[caret.index('^')] == '}'
    text, caret = error(loads, 'ä€𝄞 ' * 5000 + '}' + ' ä€𝄞' * 5000).excerpt.split('\n')
    assert len(text) < 200 and text[caret.index('^')] == '}'


def test_an_error_as_text_has_the_place_first():
    assert str(error(loads, 'a { }\n }')) == '<string>:2:2: stray }: no stanza is open here'


def test_the_name_of_a_missing_file_is_said_once(tmp_path):
    path = str(tmp_path / 'absent.conf')
    assert str(error(load, path)).count(path) == 1


def test_text_of_the_file_is_no_format_string():
    for text in ('Security { %s%d = x }', 'Security { "%s" }', '}%s', 'include "%s%n"', 'Security { supplemental_groups = ( "%s %d" ) }',
                 'a%s/*', 'Security %s {'):
        e = error(loads, text)
        assert ('%s' in e.message) == (text not in ('}%s', 'Security %s {'))
    security = loads('Security { user = "%s" capabilities = "cap_%s+ep" }')
    assert security.error('user', 'there is no account %s', '%s').message == 'user: there is no account "%s"'
    assert security.error('capabilities', 'write "cap_%s+ep"').message == 'capabilities: write "cap_%s+ep"'


def test_without_a_stanza_two_lines_of_one_are_shown():
    for text in ('', '[Security]\nuser = daemon\n', '{ "Security": { "user": "daemon" } }', 'x { }'):
        e = error(loads, text)
        assert e.message.startswith('there is no Security { } stanza: write Security { user = NAME }')
        assert len(e.excerpt.split('\n')) == 2 and loads(e.excerpt).user == 'NAME'


@pytest.mark.parametrize('text, place', [
    ('mumble\nSecurity { user = nobody }', (1, 1)), ('x { } mumble\n# Security\nSecurity\n# {\n{ user = nobody }', (1, 7)),
    ('a b Security {}', (1, 3)), ('user security {}', (1, 1)), ('x { } \ufeff Security {}', (1, 7))])
def test_a_word_left_over_before_the_stanza_is_an_error(text, place):
    for before in ('', 'Security { user = root }\n'):
        e = error(loads, before + text)
        assert 'a word before Security' in e.message and at(e) == (place[0] + bool(before), place[1])


@pytest.mark.parametrize('text', ['mumble\n' + STANZA.replace('Security', '"x" Security'), 'a b c\n' + 'x { }' + STANZA, 'a /b/ {\n}' + STANZA, '= ' + STANZA,
                                  'x "Security" { }' + STANZA, 'x { y security = z }' + STANZA, '"a" = b\n' + STANZA])
def test_other_words_left_over_are_not(text):
    if text.startswith('= '):
        assert error(loads, text)                   # what follows = is a value
    else:
        assert loads(text).user == 'ecuser'


@pytest.mark.parametrize('text', ['\ufeffSecurity {', '\xa0Security {', 'Security\xa0{', '"Security" {', '"security"\n# x\n{', 'Security: {', 'Security; {', '" Security" {'])
def test_what_only_looks_like_the_stanza_is_warned_of_beside_another_one(text):
    security = loads(STANZA + 'x { }\n' * 3 + text + ' user = root }\n')
    assert security.user == 'ecuser'
    assert [(place[1], text[:20]) for place, text in security.notes] == [(5, 'this only looks like')]


@pytest.mark.parametrize('option', ['capabilities', 'privileges', 'supplemental_groups'])
def test_a_foreign_stanza_that_holds_what_is_ours_is_warned_of(option):
    for text, told in (('Securty { %s = "x" }', 1), ('x "y" {\n a = b\n %s = ( x )\n}', 1), ('x { y { %s = z } }', 0), ('x { a = %s }', 0), ('x { %s }', 0),
                       ('x { %s { } }', 0), ('x = ( %s = )', 0), ('x { # %s = y\n}', 0), ('x { "%s" = y }', 0)):
        security = loads(STANZA + text % option)
        assert notes(security) == ['%s is not in Security { }: ignored' % option] * told, text


@pytest.mark.parametrize('text, count', [('user = a\n', 80000), ('a {\n Security { }\n}\n', 20000), ('a { privileges = b }\n', 20000), ('user = a ', 20000)])
def test_eighty_thousand_warnings_take_under_a_second(text, count):
    for _ in range(5):                          # noise adds, so the least is the truest
        started = time.process_time()
        security = loads(text * count + STANZA)
        spent = time.process_time() - started
        assert len(security.notes) == count
        if spent < 1:
            break
    assert spent < 2.5                          # half a second where nothing else runs; counting from the start takes minutes


def test_names_are_escaped_in_messages(tmp_path):
    path = write(tmp_path, 'a\x1bb\n.conf', 'include "c\x1b\u202e"')
    text = str(error(load, path))
    assert '\\x1b' in text and '\\u202e' in text and text.isprintable()
    text = str(error(load, os.fsencode(str(tmp_path)) + b'/\xff\x1b'))
    assert text.isprintable()
    write(tmp_path, 'd.d', '\x1b\n', '}')
    assert str(error(load, write(tmp_path, 'main', 'include "d.d"'))).isprintable()


def test_on_a_terminal_check_shows_the_line():
    directory = tempfile.mkdtemp()
    path = write(directory, 'f.conf', 'Security { usr = x }\n')
    try:
        pid, terminal = pty.fork()
    except OSError as e:
        need(False, 'needs pseudo-terminals, /dev/pts: %s' % e)
    if pid == 0:
        os.execv(capdrop.sys.executable, [capdrop.sys.executable, '-I', SCRIPT, 'check', path])
    shown = b''
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            piece = b''
        if not piece:
            break
        shown += piece
    os.close(terminal)
    status = os.waitpid(pid, 0)[1]
    shutil.rmtree(directory)
    assert status == 1 << 8
    lines = shown.decode().split('\r\n')
    assert lines[0].startswith(path + ':1:12: error: Security has no option "usr"')
    assert lines[1:3] == ['Security { usr = x }', '           ^']


# ---------------------------------------------------------------------------- text of private files

SECRET = 'hunter2'
TELLTALES = ['Security { %s = x }', 'Security { user %s }', 'Security { user = x %s', 'Security { "%s" }', 'a = b/*%s',
             'Security { supplemental_groups = ( a,%s ) }', 'Security { supplemental_groups = ( "a %s" ) }',
             'Security { chroot = "%s" }', 'Security { chroot = "/%s\\" }', 'Security { usr%s = x }', 'Security %s {', '%s }',
             'include "%s"', 'include "/no/%s"', 'include "file:///no/%s"', 'include "%s:///x"', 'include ( %s',
             'Local_Changes_File = "%s" a {', '"%s', '/* %s',
             'Security { user = x } Local_Changes_File = "/dev/null/%s"', 'Security { capabilities = "%s\\x" }']


@pytest.mark.parametrize('text', TELLTALES)
def test_text_of_a_file_that_not_everyone_may_read_is_not_quoted(tmp_path, text):
    main = write(tmp_path, 'main', 'include "inner"')
    for path in (write(tmp_path, 'inner', text % SECRET + '\n', mode=0o640), main):
        try:
            e = load(path)
        except ConfigError as problem:
            e = problem
            assert SECRET not in str(e) + e.message + e.excerpt
        else:
            assert SECRET not in repr(e.notes)


def test_the_same_from_standard_input(tmp_path):
    for mode, told in ((0o600, False), (0o644, True)):
        with open(write(tmp_path, 'f', 'Security { %s = x }' % SECRET, mode=mode)) as f:
            result = run_with_stdin(f)
        assert result.returncode == 1 and (SECRET in result.stdout) is told


def run_with_stdin(f, *args):
    import subprocess
    process = subprocess.Popen([capdrop.sys.executable, '-I', SCRIPT, 'check', '-'] + list(args), stdin=f,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out.decode(), err.decode())


def test_text_of_a_file_that_everyone_may_read_is_quoted(tmp_path):
    e = error(load, write(tmp_path, 'f', 'Security { %s = x }' % SECRET))
    assert SECRET in e.message and SECRET in e.excerpt


# ---------------------------------------------------------------------------- what is read

def quickly(function, *args):
    """In a child that is killed if it hangs."""
    def timed():
        signal.alarm(20)
        return function(*args)
    return in_child(timed)


def load_options(path):
    return options(load(path))


@pytest.mark.parametrize('kind', ['a FIFO', 'a device', 'a directory', 'a socket', 'a link to a device', 'a loop of links'])
def test_only_a_regular_file_is_read(tmp_path, kind):
    path = str(tmp_path / 'x')
    server = socket.socket(socket.AF_UNIX)
    if kind == 'a FIFO':
        os.mkfifo(path)
    elif kind == 'a device':
        path = '/dev/zero'
    elif kind == 'a directory':
        os.mkdir(path)
    elif kind == 'a socket':
        server.bind(path)
    else:
        os.symlink('/dev/tty' if kind == 'a link to a device' else 'x', path)
    reason = os.strerror(errno.ELOOP) if kind == 'a loop of links' else 'not a regular file'
    main = write(tmp_path, 'main', 'include "%s"' % path)
    local = write(tmp_path, 'local', STANZA + 'Local_Changes_File = "%s"' % path)
    for file in (path, main, local):
        if kind == 'a directory' and file == main:
            continue
        e = error(quickly, load_options, file)
        assert reason in e.message or file == main and 'neither beside' in e.message
    server.close()


def test_a_file_in_an_included_directory_must_be_a_regular_one(tmp_path):
    main = write(tmp_path, 'main', STANZA + 'include "d"')
    os.mkdir(str(tmp_path / 'd'))
    os.mkfifo(str(tmp_path / 'd' / 'fifo'))
    assert 'not a regular file' in error(quickly, load_options, main).message


def test_a_file_that_is_swapped_for_a_fifo_before_it_is_opened_does_not_hang(tmp_path):
    path = write(tmp_path, 'x', STANZA)

    def swapped():
        genuine = os.stat

        def stat(name, *args, **options):
            result = genuine(name, *args, **options)
            if name == path and not os.path.exists(path + '.done'):
                os.rename(path, path + '.done')
                os.mkfifo(path)
            return result
        os.stat = stat
        return options(load(path))
    error(quickly, swapped)


def test_a_file_that_vanishes_is_an_error(tmp_path, monkeypatch):
    path = write(tmp_path, 'x', STANZA)
    genuine = os.open

    def vanish(name, *args, **options):
        os.unlink(path)
        return genuine(name, *args, **options)
    monkeypatch.setattr(os, 'open', vanish)
    assert os.strerror(errno.ENOENT) in error(load, path).message


def test_reading_takes_no_terminal_and_leaves_no_descriptor(tmp_path):
    before = os.listdir('/proc/self/fd')
    main = write(tmp_path, 'main', 'include "b" include "b" include "absent"')
    write(tmp_path, 'b', '')
    error(load, main)
    error(load, str(tmp_path))
    assert os.listdir('/proc/self/fd') == before


def as_nobody(function, *args):
    def become():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        return function(*args)
    return in_child(become)


@pytest.mark.parametrize('name', ['main', 'included', 'directory', 'local', 'search'])
def test_what_cannot_be_read_is_an_error(public, name):
    need_root()
    hidden = write(public, 'hidden', STANZA, mode=0o600)
    os.mkdir(public + '/closed', 0o700)
    write(public, 'closed', 'x', STANZA)
    file = {'main': hidden, 'included': write(public, 'a', 'include "hidden" ' + STANZA),
            'directory': write(public, 'b', 'include "closed" ' + STANZA),
            'local': write(public, 'c', 'Local_Changes_File = "hidden" ' + STANZA),
            'search': write(public, 'd', 'include "closed/x" ' + STANZA)}[name]
    e = error(as_nobody, load_options, file)
    assert os.strerror(errno.EACCES) in e.message or name == 'search' and 'neither beside' in e.message
    assert load(file).user == 'ecuser'


def test_a_local_changes_file_that_cannot_be_looked_for_is_not_absent(public):
    need_root()
    os.mkdir(public + '/closed', 0o700)
    main = write(public, 'main', STANZA + 'Local_Changes_File = "closed/x"')
    assert os.strerror(errno.EACCES) in error(as_nobody, load_options, main).message


def sparse(path, size, text=STANZA):
    with open(path, 'wb') as f:
        f.write(text.encode())
        f.truncate(size)
    return path


def test_more_than_64_mebibytes_are_not_read(tmp_path):
    big = sparse(str(tmp_path / 'big'), (64 << 20) + 1)
    assert '64 MiB' in error(load, big).message
    assert 'NUL' in error(load, sparse(big, 64 << 20)).message
    assert '64 MiB' in error(load, sparse(big, 1 << 40)).message
    main = write(tmp_path, 'main', 'include "big"')
    assert '64 MiB' in error(load, main).message


def test_the_limit_is_for_all_files_together(tmp_path, monkeypatch):
    monkeypatch.setattr(capdrop, 'MOST_BYTES', 100000)
    write(tmp_path, 'part', '#' * 33000)
    assert load(write(tmp_path, 'main', 'include part ' * 2 + STANZA)).user == 'ecuser'
    assert 'MiB' in error(load, write(tmp_path, 'main', 'include part ' * 4 + STANZA)).message


@pytest.mark.parametrize('shape', ['doubling', 'directory'])
def test_empty_files_are_not_free(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(capdrop, 'MOST_BYTES', 200000)
    if shape == 'doubling':                     # 2 ** 16 files from 300 bytes
        for depth in range(16):
            write(tmp_path, 'f%d' % depth, 'include f%d ' % (depth + 1) * 2)
        main = write(tmp_path, 'f16', '') and str(tmp_path / 'f0')
    else:                                       # 50,000 from 6,000
        for number in range(100):
            write(tmp_path, 'd', 'x%d' % number, '')
        main = write(tmp_path, 'main', 'include d ' * 500)
    opened, genuine = [], os.open
    monkeypatch.setattr(os, 'open', lambda name, *rest, **more: opened.append(name) or genuine(name, *rest, **more))
    error(load, main)
    assert len(opened) < 20000


def test_standard_input_is_read(tmp_path):
    main = write(tmp_path, 'main', 'Security { user = daemon }\n')
    with open(main) as f:
        assert run_with_stdin(f).returncode == 0
    write(tmp_path, 'part', '')
    with open(write(tmp_path, 'main', 'include "part" Security { user = daemon }\n')) as f:
        result = run_with_stdin(f)
    assert result.returncode == 1 and result.stdout.startswith('-:1:9: error: ') and 'neither beside' in result.stdout
    assert run('check', '-', stdin=b'Security { user = daemon }\n').returncode == 0


# ---------------------------------------------------------------------------- includes

def test_an_included_file_is_looked_for_beside_the_including_one_and_then_along_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv('EC_CONF_SEARCH_PATH', '%s:%s/two' % (tmp_path / 'one', tmp_path))
    main = write(tmp_path, 'etc', 'main', 'include "part"')
    write(tmp_path, 'two', 'part', 'Security { user = two }')
    assert load(main).user == 'two'
    write(tmp_path, 'one', 'part', 'Security { user = one }')
    assert load(main).user == 'one'
    assert loads('include "part"').user == 'one'
    write(tmp_path, 'etc', 'part', 'Security { user = beside }')
    assert load(main).user == 'beside'


def test_the_current_directory_and_relative_elements_of_the_path_are_never_searched(tmp_path, monkeypatch):
    main = write(tmp_path, 'etc', 'main', 'include "part"')
    write(tmp_path, 'cwd', 'part', STANZA)
    write(tmp_path, 'cwd', 'rel', 'part', STANZA)
    monkeypatch.chdir(tmp_path / 'cwd')
    for path in ('', ':', '.', '.:rel', 'rel:', './rel:../cwd', ' ', '~'):
        monkeypatch.setenv('EC_CONF_SEARCH_PATH', path)
        assert 'neither beside' in error(load, main).message
        assert 'neither beside' in error(loads, 'include "part"').message


def test_a_relative_main_file_includes_from_its_own_directory(tmp_path, monkeypatch):
    write(tmp_path, 'etc', 'main', 'include "part"')
    write(tmp_path, 'etc', 'part', STANZA)
    monkeypatch.chdir(tmp_path)
    assert load('etc/main').user == load(b'etc/main').user == 'ecuser'
    monkeypatch.chdir(tmp_path / 'etc')
    assert load('main').user == 'ecuser'


def asked(monkeypatch, function, *args):
    """Where below /opt/msys it looks for files."""
    seen, genuine = [], os.path.exists
    monkeypatch.setattr(os.path, 'exists', lambda path: genuine(path) if not path.startswith('/opt/msys') else seen.append(path))
    e = error(function, *args)
    monkeypatch.setattr(os.path, 'exists', genuine)
    assert 'neither beside' in e.message
    return seen


def test_the_default_list_has_the_node_name_in_it(tmp_path, monkeypatch):
    monkeypatch.delenv('EC_CONF_SEARCH_PATH')
    main = write(tmp_path, 'main', 'include "part"')
    top = '/opt/msys/ecelerity/etc'
    for host, name, node in (('mta1.example.com', '', 'mta1'), ('mta1', 'mta2.example.com', 'mta2.example.com')):
        monkeypatch.setattr(os, 'uname', lambda: ('Linux', host, '', '', ''))
        monkeypatch.setenv('EC_NODE_NAME', name)
        assert asked(monkeypatch, load, main) == [top + '/part', top + '/conf/global/part', top + '/conf/%s/part' % node,
                                                  top + '/conf/default/part']
    monkeypatch.setenv('EC_CONF_SEARCH_PATH', '')
    assert asked(monkeypatch, load, main) == []


@pytest.mark.parametrize('node', ['../default', '..', 'a/b', '/', '/etc', 'a..b'])
def test_a_node_name_that_would_lead_elsewhere_is_an_error(tmp_path, monkeypatch, node):
    main = write(tmp_path, 'main', 'include "part"\n' + STANZA)
    monkeypatch.delenv('EC_CONF_SEARCH_PATH')
    monkeypatch.setenv('EC_NODE_NAME', node)
    e = error(load, main)
    assert 'node name "%s"' % node in e.message and at(e) == (1, 9)
    monkeypatch.setenv('EC_CONF_SEARCH_PATH', str(tmp_path))
    assert 'neither beside' in error(load, main).message


def test_file_is_the_only_scheme(tmp_path):
    part = write(tmp_path, 'part', STANZA)
    for scheme in ('file', 'FILE'):
        assert load(write(tmp_path, 'main', 'include "%s://%s"' % (scheme, part))).user == 'ecuser'
    for scheme in ('persist', 'http', 'https', 'x', ''):
        e = error(load, write(tmp_path, 'main', 'include "%s://%s"' % (scheme, part)))
        assert 'only file://' in e.message and at(e) == (1, 9)


def test_what_the_system_does_not_allow_is_a_refusal_that_names_the_call():
    with pytest.raises(capdrop.RefusedError) as e:
        capdrop.or_refuse(os.stat, '/no/such')
    assert str(e.value) == '/no/such: No such file or directory'
    with pytest.raises(OSError) as e:
        capdrop.named('stat', os.stat, '/no/such')
    assert (e.value.errno, e.value.filename) == (errno.ENOENT, 'stat')
    assert capdrop.or_refuse(capdrop.named, 'stat', os.stat, '/') == os.stat('/')


def test_a_file_that_is_longer_than_its_size_grew_while_it_was_read():
    need(os.path.exists('/proc/version') and os.stat('/proc/version').st_size == 0, 'needs /proc')
    assert 'grew while it was read' in error(load, '/proc/version').message


@pytest.mark.parametrize('path', ['/etc/a\0b', '\0'])
def test_a_name_with_a_nul_is_no_name(path):
    assert error(load, path).message == 'the name of the configuration file has a NUL in it'


def test_a_relative_file_uri_is_a_relative_path(tmp_path, monkeypatch):
    write(tmp_path, 'part', STANZA)
    assert load(write(tmp_path, 'main', 'include "file://part"')).user == 'ecuser'
    monkeypatch.setenv('EC_CONF_SEARCH_PATH', str(tmp_path))
    assert loads('include "file://part"').user == 'ecuser'


def test_a_relative_include_is_beside_the_file_that_was_opened_whatever_links_lead_there(tmp_path):
    (tmp_path / 'real' / 'deep').mkdir(parents=True)
    os.symlink(str(tmp_path / 'real' / 'deep'), str(tmp_path / 'link'))
    write(tmp_path, 'part', 'Security { user = decoy }')
    write(tmp_path / 'real', 'part', 'Security { user = meant }')
    write(tmp_path / 'real', 'main', 'include "part"')
    assert load(str(tmp_path / 'link' / '..' / 'main')).user == 'meant'
    assert load(str(tmp_path / '.' / 'real' / '.' / 'main')).where['user'][-1][0] == str(tmp_path / 'real' / 'part')


def test_names_of_files_are_bytes(tmp_path):
    write(tmp_path, 'd', 'ä', 'Security { user = a }')
    with open(os.fsencode(str(tmp_path)) + b'/d/\xff', 'w') as f:
        f.write('Security { user = b }')
    with open(os.fsencode(str(tmp_path)) + b'/d/z', 'w') as f:
        f.write('Security { user = z }')
    assert load(write(tmp_path, 'main', 'include "d"')).user == 'b'
    assert load(write(tmp_path, 'main', 'include "d/ä"')).user == 'a'
    code = 'import sys; sys.path.insert(0, sys.argv[1]); import capdrop; print(capdrop.load(sys.argv[2]).user)'
    for file in ('d', 'd/ä'):
        main = write(tmp_path, 'main', 'include "%s"' % file)
        result = __import__('conftest').run_command([capdrop.sys.executable, '-c', code, os.path.dirname(SCRIPT), main],
                                                    env={'LC_ALL': 'C', 'EC_CONF_SEARCH_PATH': ''})
        assert (result.stdout, result.stderr) == ('b\n' if file == 'd' else 'a\n', '')


def test_an_empty_directory_is_fine(tmp_path):
    os.mkdir(str(tmp_path / 'd'))
    assert load(write(tmp_path, 'main', STANZA + 'include "d" include "d/"')).user == 'ecuser'


def test_links_in_a_directory_are_followed_but_not_to_directories(tmp_path):
    target = write(tmp_path, 'elsewhere', 'x', STANZA)
    os.mkdir(str(tmp_path / 'd'))
    os.symlink(target, str(tmp_path / 'd' / 'a'))
    os.symlink(os.path.dirname(target), str(tmp_path / 'd' / 'b'))
    main = write(tmp_path, 'main', 'include "d"')
    assert options(load(main)) == {'user': 'ecuser'}
    os.symlink('nowhere', str(tmp_path / 'd' / 'c'))
    assert os.strerror(errno.ENOENT) in error(load, main).message


@pytest.mark.parametrize('depth, good', [(32, True), (33, False)])
def test_includes_are_nested_32_deep_at_most(tmp_path, depth, good):
    for number in range(depth):
        write(tmp_path, 'f%d' % number, 'include "f%d"' % (number + 1))
    write(tmp_path, 'f%d' % depth, STANZA)
    if good:
        assert load(str(tmp_path / 'f0')).user == 'ecuser'
    else:
        e = error(load, str(tmp_path / 'f0'))
        assert 'nested more than 32 deep' in e.message and e.file == str(tmp_path / 'f32') and at(e) == (1, 9)


def test_a_cycle_is_found_through_links_and_directories(tmp_path):
    main = write(tmp_path, 'd', 'main', STANZA + 'include "link"')
    os.symlink('main', str(tmp_path / 'd' / 'link'))
    assert 'includes itself' in error(load, main).message
    write(tmp_path, 'd', 'main', STANZA + 'include "../d"')
    assert 'includes itself' in error(load, main).message
    os.unlink(str(tmp_path / 'd' / 'link'))
    os.link(main, str(tmp_path / 'd' / 'link'))
    write(tmp_path, 'd', 'main', STANZA + 'include "link"')
    assert 'includes itself' in error(load, main).message


def test_the_local_changes_file_may_include(tmp_path):
    main = write(tmp_path, 'main', 'Local_Changes_File = "sub/local" Security { user = a group = a }')
    write(tmp_path, 'sub', 'local', 'include "part"')
    write(tmp_path, 'sub', 'part', 'Security { user = b }')
    assert options(load(main)) == {'user': 'b', 'group': 'a'}


@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc')
def test_a_file_that_is_longer_than_it_says_is_not_read_in_part():
    """Those of /proc say that they are empty."""
    assert 'or grew while it was read' in error(load, '/proc/self/status').message


def test_a_name_with_a_nul_is_no_file():
    assert error(load, 'a\0b').message == 'the name of the configuration file has a NUL in it'


def test_a_local_changes_file_names_no_other(tmp_path):
    main = write(tmp_path, 'main', 'Local_Changes_File = local Security { user = a }')
    local = write(tmp_path, 'local', 'Security { group = b }\nLocal_Changes_File = other\n')
    write(tmp_path, 'other', 'Security { user = c }')
    security = load(main)
    assert options(security) == {'user': 'a', 'group': 'b'}
    assert security.notes == (((local, 2, 1), 'Local_Changes_File in the Local_Changes_File: ignored'),)
    assert [file for file, _, _ in security.origin.local] == [main]


def test_a_local_changes_file_named_in_an_included_file_is_beside_that_one(tmp_path):
    main = write(tmp_path, 'main', 'include "sub/part" Security { user = a }')
    write(tmp_path, 'sub', 'part', 'Local_Changes_File = local')
    write(tmp_path, 'sub', 'local', 'Security { user = b }')
    assert load(main).user == 'b'


# ---------------------------------------------------------------------------- where the values come from

def three_files(top, order):
    """An installation: the main file, a directory of fragments with the cluster's stanza, local changes."""
    includes = {'cluster': 'readonly_include "ecelerity.d/"\n',
                'node': 'Security {\n  user = ecuser\n  chroot = "/jail"\n'
                        '  capabilities = "cap_net_bind_service+ep"\n}\n'}
    write(top, 'ecelerity.d', '10-listen', 'ESMTP_Listener {\n  Listen ":25" { }\n}\n')
    write(top, 'ecelerity.d', '20-cluster', 'Security {\n  User = "cluster"\n  Supplemental_Groups = ( "mail" )\n'
          '  Capabilities = "cap_net_admin+ep"\n}\n')
    write(top, 'ecelerity.d', '30-log', 'Logfile = /var/log/x\n')
    write(top, 'local.conf', 'Security {\n  chroot = "/local"\n}\n')
    return write(top, 'ecelerity.conf', 'Local_Changes_File = "local.conf"\n' + ''.join(includes[name] for name in order))


@pytest.mark.parametrize('order', ['node cluster', 'cluster node'])
def test_the_last_of_several_stanzas_wins_and_every_value_knows_where_it_came_from(tmp_path, order):
    main = three_files(tmp_path, order.split())
    cluster, local = str(tmp_path / 'ecelerity.d/20-cluster'), str(tmp_path / 'local.conf')
    security = load(main)
    first = 2 if order == 'node cluster' else 3         # line of the node's stanza
    node = {'user': (main, first + 1, 10), 'chroot': (main, first + 2, 13), 'capabilities': (main, first + 3, 19)}
    other = {'user': (cluster, 2, 11), 'capabilities': (cluster, 4, 19)}
    winner, loser = (other, node) if order == 'node cluster' else (node, other)
    assert options(security) == {
        'user': 'cluster' if winner is other else 'ecuser', 'supplemental_groups': ('mail',), 'chroot': '/local',
        'capabilities': 'cap_net_admin+ep' if winner is other else 'cap_net_bind_service+ep'}
    assert security.where == {
        'user': [loser['user'], winner['user']], 'capabilities': [loser['capabilities'], winner['capabilities']],
        'supplemental_groups': [(cluster, 3, 25)], 'chroot': [node['chroot'], (local, 2, 13)]}
    expected = {(winner[option], '%s overrides %s:%d:%d' % ((option,) + loser[option])) for option in ('user', 'capabilities')}
    expected.add(((local, 2, 13), 'chroot overrides %s:%d:%d' % node['chroot']))
    assert set(security.notes) == expected and len(security.notes) == 3


def test_check_and_plan_show_where_each_value_came_from(tmp_path):
    main = three_files(tmp_path, ['node', 'cluster'])
    cluster = str(tmp_path / 'ecelerity.d/20-cluster')
    over = ['--user', 'daemon', '--supplemental-groups', '']
    for verb in ('check', 'plan'):
        shown = json.loads(run(verb, main, '--json', '--user', 'daemon').stdout)['options']
        assert shown['capabilities']['value'] == 'cap_net_admin+ep'
        told = json.dumps(shown)
        assert json.dumps(cluster) in told and json.dumps(main) in told and len(shown['user']['overrode']) == 2
        text = run(verb, main, *over).stdout
        assert '%s:4:19' % cluster in text and '%s:5:19' % main in text


def test_check_warns_of_what_was_overridden(tmp_path):
    main = write(tmp_path, 'main', 'Security {\n user = root\n user = daemon\n}\n')
    result = run('check', main)
    assert result.returncode == 0
    assert '%s:3:9: warning: user overrides %s:2:9\n' % (main, main) in result.stdout
    assert 'overrides' not in run('check', '-q', main).stdout


def test_an_option_overridden_many_times_is_warned_of_once(tmp_path):
    for text in ('Security { %s }' % ('user = a ' * 1000), 'Security { user = a }\n' * 1000):
        security = load(write(tmp_path, 'f', text))
        assert len(security.where['user']) == 1000
        assert list(security.notes) == [(security.where['user'][-1], 'user overrides %s:%d:%d' % security.where['user'][-2])]


@pytest.mark.parametrize('before', ['x { }; ', 'word ', 'word =\n', 'include_ '])
def test_a_stanza_that_a_word_before_it_swallows_is_not_ignored_in_silence(before):
    try:
        security = loads(STANZA + before + 'Security { user = cluster }')
    except ConfigError:
        return
    assert security.user == 'cluster' or security.notes


# ---------------------------------------------------------------------------- generated files

class Generator:
    """Random configurations: every item is well-formed, and none is a global Security or include."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.pick = self.random.choice

    def blank(self, needed=False):
        """Nothing, blanks or comments."""
        pieces = [self.pick(['', '', ' ', ' ', '\n', '\t', '\r\n', '  \n ', '/**/', ' /* } " { Security { user = x } */', '# { ( " \' \\\n',
                             '#\n', ' # Security { user = "\n', '/* " */', '/***/\n']) for _ in range(self.pick([1, 1, 1, 2, 3]))]
        text = ''.join(pieces)
        if text.startswith('/') or needed and not text:
            text = ' ' + text                   # in a word, /* would be an error
        return text

    def case(self, word):
        return ''.join(self.pick([c.lower(), c.upper()]) for c in word) if self.pick([0, 1]) else word

    def word(self):
        return self.pick(['a', 'Listen', 'x.y', '-1', '0640', '*:25', '/var/log', 'http://x/', 'ü', 'hook:x', 'user', 'Security2', '%{x}',
                          'b\\', '*/', ';', 'xinclude', 'enabled', '€', '\\', 'MySecurity', '!'])

    def string(self):
        return '"%s"' % ''.join(self.pick(['a', ' ', '}', '{', '\n', '#', '/*', '*/', '\\"', '\\\\', '\\d', '(', ']', "'", '=', 'Security { user = x }',
                                           '\n}', 'ü', 'include ']) for _ in range(self.pick([0, 1, 1, 2, 5])))

    def value(self, depth):
        kind = self.random.random()
        if kind < 0.4:
            return self.word()
        if kind < 0.8 or depth > 3:
            return self.string()
        inner = ''.join(self.blank(True) + self.pick([self.word, self.string])() for _ in range(self.pick([0, 1, 3])))
        if kind < 0.9:
            return '(' + inner + self.blank(True) + ')'
        return '[' + ''.join(self.blank(True) + 'k' + self.blank() + '=' + self.blank() + self.value(4)
                             for _ in range(self.pick([0, 1, 3]))) + self.blank(True) + ']'

    def name(self):
        return self.pick(['a', 'Listen', 'x.y', 'Esmtp_Listener', 'm-n', 'Security2', 'ü', 'hook:x', 'MySecurity'])

    def item(self, depth=0):
        if self.random.random() < 0.4 or depth > 5:
            return self.name() + self.blank() + '=' + self.blank() + self.value(depth)
        instance = self.pick(['', '', self.blank(True) + self.string(), self.blank(True) + self.pick(['b', 'c:d', '"Security"']),
                              ' ' + self.pick(['/a\\.(b|c)$/ ', '/x{2}/ ', '/["#\']/ ', '/tmp/2025 '])])
        return self.name() + instance + self.pick([self.blank(), ' ']) + '{' + self.items(depth + 1) + self.pick(['}', '\n}'])

    def items(self, depth=0):
        return self.blank() + ''.join(self.item(depth) + self.blank(True) for _ in range(self.pick([0, 1, 2, 3])))

    def security(self, values):
        """The same stanza in other clothes: its text, and for each option where its value begins in it."""
        text, places = self.case('Security') + self.blank() + '{', {}
        order = list(values)
        self.random.shuffle(order)
        for option in order:
            text += self.blank(True) + self.case(option) + self.blank() + '=' + self.blank()
            value = values[option]
            if isinstance(value, tuple):
                places[option] = len(text)
                comma = self.pick(['', '', ' ,'])
                text += '(' + (self.blank(True) + comma).join(self.blank(True) + self.quoted(one) for one in value) + self.blank(True) + ')'
            else:
                value = self.quoted(value)
                places[option] = len(text) + value.startswith('"')
                text += value
        return text + self.blank(True) + '}', places

    def quoted(self, value):
        bare = value and not set(value) & set(' \t#"\'={}[](),') and '/*' not in value
        return value if bare and self.pick([0, 1]) else '"%s"' % value


VALUES = [{'user': 'ecuser'}, {},
          {'user': 'ecuser', 'group': 'ecgroup', 'capabilities': 'cap_net_admin+ep cap_net_bind_service+ep', 'chroot': '/chroot/dir'},
          {'user': '0', 'supplemental_groups': ('mail', 'adm', '12'), 'privileges': 'basic net_privaddr', 'capabilities': ''},
          {'supplemental_groups': (), 'group': 'it\'s {} = # a "group"'.replace('"', ''), 'user': 'söme'}]


def test_nesting_comments_strings_and_case_around_a_stanza_leave_its_meaning_unchanged():
    for seed in range(600):
        make = Generator(seed)
        values = make.pick(VALUES)
        before = make.items()
        stanza, places = make.security(values)
        text = before + stanza + make.items()
        try:
            security = loads(text)
            assert options(security) == values and not security.notes
            for option, offset in places.items():
                offset += len(before)
                line = text.count('\n', 0, offset) + 1, offset - text.rfind('\n', 0, offset)
                assert security.where[option] == [('<string>',) + line]
        except (AssertionError, ConfigError):
            print('seed %d:\n%s' % (seed, text))
            raise


def test_a_stanza_cut_short_anywhere_is_never_a_shorter_stanza():
    for seed in range(40):
        make = Generator(seed)
        stanza, _ = make.security(make.pick(VALUES[2:]))
        for end in range(len(stanza)):
            error(loads, stanza[:end])


# ---------------------------------------------------------------------------- any input

PIECES = (['{', '}', '(', ')', '[', ']', '=', '"', '\'', '#', '\n', '\n', ' ', ' ', '\n}\n', '\n}', '{\n', ' {\n', 'a', 'b {\n c = d\n}\n', '\\', '\\"', '""',
           '"x"', '/*', '*/', '/', ' /', '/ ', '/ {', ' /x{/ {', '//', ',', ';', '\t', '\r\n', '\v', '\f', '\0', '“', '”', '‘', 'ü', '€', '𝄞', '\ufeff', '\x85', '\xa0']
          + ['a { b = "c" }\n', 'a "b" {\n}\n', 'Listen /tmp/x {}\n', 'Domain /a\\.(b|c)$/ {\n}\n', 'x = /y/\n', '# it\'s "\n', '/* { */', 'a = ( b c )\n', 'a [ b = c ]\n']
          + ['Security', 'security {', 'Security {\n user = a\n}\n', 'SECURITY { group = "g" }\n', 'Security "x" {', 'include ', 'include "x"', 'readonly_include',
             'Local_Changes_File = x\n', 'user = b\n', 'user', 'group =', 'capabilities = "x"\n', 'chroot=/', 'supplemental_groups = ( a "b" )\n', 'privileges # x\n = y\n'])


def mutated(make):
    """A configuration with some damage done to it; sometimes nothing but damage."""
    kind = make.random.random()
    if kind < 0.3:
        return ''.join(make.pick(PIECES) for _ in range(make.random.randrange(40)))
    text = make.items() + make.pick(['', '', make.security(make.pick(VALUES))[0] + '\n']) + make.items()
    for _ in range(make.pick([0, 1, 1, 2, 4])):
        a, b = sorted(make.random.randrange(len(text) + 1) for _ in range(2))
        b = min(b, a + make.pick([1, 5, 50]))
        text = make.pick([text[:a] + text[b:], text[:a] + make.pick(PIECES) + text[a:], text[:a] + text[a:b] * 2 + text[b:],
                          text[:a] + make.pick(PIECES) + text[b:], text[:a] + text[b:] + text[a:b], text[:b]])
    return text


def outcome(text):
    """All that can be seen of what it gives."""
    try:
        security = loads(text)
    except ConfigError as e:
        return e.message, e.file, e.line, e.column, e.excerpt
    return options(security), security.where, security.notes


def without_skipping(call, *args):
    """The same when every token is read."""
    assert capdrop.SKIPS_LINES
    capdrop.SKIPS_LINES = False
    try:
        return call(*args)
    finally:
        capdrop.SKIPS_LINES = True


@pytest.fixture(params=[1, 40, 16384])
def window(request, monkeypatch):
    """How many bytes are looked at at once: small ones end everywhere."""
    monkeypatch.setattr(capdrop.Skipping, 'window', request.param)
    monkeypatch.setattr(capdrop, 'SMALL_WINDOW', min(request.param, capdrop.SMALL_WINDOW))


def test_skipping_lines_never_changes_the_result(window):
    for seed in range(1500):
        text = mutated(Generator(seed))
        fast, slow = outcome(text), without_skipping(outcome, text)
        assert fast == slow, 'seed %d: %r' % (seed, text)


@pytest.mark.parametrize('text', [
    'user # comment\n= x\na {\n}\n', 'x = "\\"{\\""\n}\n', 'a { b /#/ {\n}\n', 'a /x y{ z/ {\n}\n}\n', 'a /x{2 b c/ {\n}\n', 'a = "\\\\" {\n}\n', 'a = "\n}\n', '"" # "\n{ " }\n}\n', 'a { # }\n}\n',
    'a ( { ) }\n}\n', 'a\tb /#/ {\n}\n', '} {\n}\n', 'a = {\n}\n}\n', 'x "{\n}\n" y {\n}\n', 'a { b "#" c "}" }\n}\n', '/*\n{\n}\n*/ }\n}\n', 'a {\n /x*/\n}\n', 'a {\n b/*\n}\n',
    'a {\n security\n{\n}\n}\n', 'us\\\ner = x {\n}\n', 'u\nser = x\na {\n}\n', 'a /"/ {\n} b /"/ {\n}\n', 'a /"{"/ {\n}\n', '\'"\' {\n}\n', '# "\n{ # "\n}\n', '\r# {\r\n}\n',
    'a {\n}include "x"\n', 'a {\n} Security { user = b }\n', 'a {\n}user = x\n', 'x /a=b/\nSecurity { user = b }\n', 'x = /a=b/\n', 'x = a /b{2}/ {\n}\n', '"x" = b\nSecurity {\n}\n',
    'a = "\nSecurity" {\n}\n', '"\nSecurity\n" {\n}\n', 'a "security" {\n}\n', 'a {\n b = "security"\n security {\n}\n}\n', 'a {\n capabilities\n= x\n}\n', 'a { b {\n capabilities = x\n} }\n',
    '\xa0Security {\n}\n', 'Security\xa0{\n}\n', '\ufeffSecurity {\n}\n', 'Security: {\n}\n', 'a /b "{" c\n', 'a /{ b/ {\n}\n', 'a /b#c/ {\n}\n', 'a /b #c/ {\n', 'a {\n /* \r */\n}\n', 'a # \r {\n', 'a\r{\n}\n',
    'a "\r" {\n}\n', 'a {\n/* b */c {\n}\n}\n', 'a {/* } */\n}\n', 'a ( user\n= )\n', 'x = readonly_include\n"y"\n', 'TLS_Security security\n{\n}\n'])
def test_neither_do_the_known_traps(text, window):
    for end in ('', STANZA, '}', '\n}'):
        assert outcome(text + end) == without_skipping(outcome, text + end)


@pytest.mark.parametrize('stanza', [
    'ESMTP_Listener "x" {\n  Listen ":25" { Enable = true } # comment\n}\n',
    'Datasource {\n  user = "a"\n  group = b\n}\n',
    'a {\n  b = c /* the user } */\n  d = "say \\"{\\""\n}\n',
    'Domain /a{2}$/ {\n  x = ( /var/log /tmp )\n}\n',
    'a {\r\n  TLS = "security"\r\n  }\r\n',
    'a {\n  TLS_Security = yes\n  xuser = b\n}\n',
    'x = "user"   # of the group\n'])
def test_whole_stanzas_are_skipped(stanza, monkeypatch):
    tokens, genuine = [], capdrop.Source.token
    monkeypatch.setattr(capdrop.Source, 'token', lambda source: tokens.append(0) or genuine(source))
    loads(stanza * 1000 + STANZA)
    assert len(tokens) < 100


def test_no_input_gives_anything_but_a_security_or_a_config_error(tmp_path):
    path = str(tmp_path / 'f')
    for seed in range(1000):
        make = Generator(seed)
        data = bytearray(mutated(make).encode())
        for _ in range(make.pick([0, 1, 3])):
            if data:
                data[make.random.randrange(len(data))] = make.random.randrange(256)
        if make.pick([0] * 9 + [1]):
            data = bytes(make.random.randrange(256) for _ in range(200))
        try:
            assert isinstance(load(write(path, bytes(data))), capdrop.Security)
        except ConfigError as e:
            assert e.file == path or e.file is None
            assert e.message.isprintable() and str(e).isprintable() and e.excerpt.replace('\n', '').isprintable()
            assert (e.line is None) == (e.column is None) and (e.line is None or e.line > 0 and e.column > 0)


# ---------------------------------------------------------------------------- size

def long(n):
    """Name -> text of about the same cost for each `n`."""
    a_file = 'ESMTP_Listener "x%d" {\n  Listen "10.0.0.1:25" {\n    Enable = true # here\n  }\n}\n'
    return {
        'one option again and again': 'Security {\n' + 'user = a\n' * n + '}\n',
        'one option again and again in one line': 'Security { ' + 'user = a ' * n + '}',
        'one option again and again in one line with ä': 'Security { ' + 'user = ä ' * n + '}',
        'global options in one line': 'user = a ' * n + STANZA,
        'stanzas again and again': 'Security { user = a }\n' * n,
        'nested stanzas called Security in one line': 'a { Security { } } ' * n + STANZA,
        'deep nesting': 'a {\n' * n + '}\n' * n + STANZA,
        'deep nesting in one line': 'a { ' * n + '} ' * n + STANZA,
        'deep nesting never closed': 'a {\n' * n,
        'brackets without end': '{' * n,
        'closing brackets in lines': 'a (\n}' * n,
        'a long string': 'a = "%s"\n' % ('x' * (50 * n)) + STANZA,
        'a long value': 'Security { user = "%s" }' % ('x' * (50 * n)),
        'a long word': 'x' * (50 * n) + ' ' + STANZA,
        'a long unknown option': 'Security { %s = x }' % ('user' * (5 * n)),
        'a long comment': '# %s\n' % ('x' * (50 * n)) + STANZA,
        'many blanks': ' ' * (50 * n) + STANZA,
        'many lines': '\n' * (50 * n) + STANZA,
        'empty stanzas': 'a { }\n' * n + STANZA,
        'empty stanzas in one line': 'a{}' * n + STANZA,
        'comment never closed': 'a { }\n' * n + '/*' + ' x\n' * n,
        'comment marks never closed': '# /*\n' * n + '/*',
        'comments': '/**/' * n + STANZA,
        'quotes': '"' * (2 * n) + STANZA,
        'an odd number of quotes': '"' * (2 * n + 1) + STANZA,
        'backslashes': 'a = "%s"' % ('\\' * (20 * n)) + STANZA,
        'backslashes and quotes': 'a = "%s"' % ('\\"' * (5 * n)) + STANZA,
        'backslashes outside strings': '\\' * (20 * n) + '"' + '"' * n + STANZA,
        'words': 'word ' * n + STANZA,
        'words that begin with a slash': 'a /b ' * n + STANZA,
        'words that begin with a slash in lines': 'a /b\n' * n + STANZA,
        'nested words that begin with a slash': 'x { ' + 'a /b ' * n + '}' + STANZA,
        'patterns': 'a /b{2}/ {\n}\n' * n + STANZA,
        'no line begins with }': 'a { b = "c" }\n' * n + STANZA,
        'only the last line begins with }': 'a {\n' + ' b = "c" ( d )\n' * n + '}\n' + STANZA,
        'only the last line begins with } and nothing is whole': 'a { } (\n' * n + ')' * n + '\n}\n',
        'user in every stanza': 'a {\n user = b\n}\n' * n + STANZA,
        'a comment in every stanza': 'a {\n /* b */\n}\n' * n + STANZA,
        'an escape in every stanza': 'a {\n b = "\\""\n}\n' * n + STANZA,
        'one } in a string, then whole stanzas': 'a = "\n}" b {\n' + 'c {\n}\n' * n + '}' + STANZA,
        'whole stanzas that are never closed': 'a {\n' + 'c {\n}\n' * n + STANZA,
        'a long list of groups': 'Security { supplemental_groups = ( %s) }' % ('"g", ' * n + '"h"'),
        'a realistic file': ''.join(a_file % number for number in range(n)) + STANZA,
        'a realistic file with ä': 'ä ' + ''.join(a_file % number for number in range(n)) + STANZA,
        'a realistic file in one line': ''.join(a_file % number for number in range(n)).replace('\n', ' ').replace('# here', '') + STANZA,
    }


def cpu(text):
    """CPU seconds that it takes, whatever it gives."""
    started = time.process_time()
    try:
        loads(text)
    except ConfigError:
        pass
    return time.process_time() - started


# A stanza over 1 MB is read token by token, a smaller one at once: that is another factor, not another power.
@pytest.mark.parametrize('shape', sorted(set(long(1)) - {'only the last line begins with }'}))
def test_sixteen_times_the_input_takes_less_than_64_times_as_long(shape):      # what is quadratic takes 256 times
    n = 800 if 'in one line' in shape else 50    # what is quadratic there is quick at first
    n = 6400 if 'nothing is whole' in shape else n      # below that it is passed over in one piece
    while cpu(long(n)[shape]) < 0.0015 and n < 4000:
        n *= 2
    one, many = long(n)[shape], long(16 * n)[shape]
    for attempt in range(4):                    # noise adds, so the least is the truest
        first, second = min(cpu(one) for _ in range(3)), cpu(many)
        if second < 64 * first or second < 0.01:
            break
    assert second < 64 * first or second < 0.01, '%.4f s for %d, %.4f s for 16 times as many' % (first, n, second)


def test_including_one_file_often_takes_time_in_proportion(tmp_path):
    write(tmp_path, 'part', STANZA)
    times = []
    for n in (1000, 2000):
        main = write(tmp_path, 'main', 'include "part"\n' * n)
        best = []
        for _ in range(3):
            started = time.process_time()
            security = load(main)
            best.append(time.process_time() - started)
        times.append(min(best))
        assert len(security.where['user']) == n
    assert times[1] < 3 * times[0]


def test_depth_is_no_recursion():
    for brackets in ('{}', '()', '[]'):
        assert loads('a ' + brackets[0] * 20000 + brackets[1] * 20000 + STANZA).user == 'ecuser'
        assert loads('a ' + (brackets[0] + '\n') * 20000 + ('\n' + brackets[1]) * 20000 + STANZA).user == 'ecuser'


@pytest.mark.parametrize('letter, shape', [('', 'a realistic file'), ('ä ', 'a realistic file'), ('', 'a realistic file in one line'),
                                           ('', 'only the last line begins with }'), ('# ä\n', 'a long comment')])
def test_reading_needs_little_more_memory_than_the_file(tmp_path, letter, shape):
    text = letter + long(int(4e6) // len(long(1000)[shape]) * 1000)[shape]
    path = write(tmp_path, 'f', text)
    size = os.path.getsize(path)
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import capdrop; peak = lambda: int([line for line in open('/proc/self/status') "
            "if line.startswith('VmHWM')][0].split()[1]); before = peak(); capdrop.load(sys.argv[2]); print((peak() - before) * 1024)")
    result = __import__('conftest').run_command([capdrop.sys.executable, '-I', '-c', code, os.path.dirname(SCRIPT), path])
    assert int(result.stdout) < 1.5 * size + (2 << 20), '%.1f times the file' % (int(result.stdout) / size)


# ---------------------------------------------------------------------------- who could rewrite it

class Platform:
    """What trust asks of a platform."""
    lists = ()
    unmapped = frozenset()

    def has_access_list(self, path):
        return path in self.lists

    def unmapped_owners(self):
        return self.unmapped


def writers_of_files(security, platform):
    return capdrop.writers_of_files(security, platform, platform.unmapped_owners())


def all_writers(security, platform=Platform()):
    """{file: [(path, kind, id), ...]}, without the group of root."""
    return {file: [(one.path, one.kind, one.id) for one in found if one.identity != ('group', 0)]
            for file, found in writers_of_files(security, platform).items()}


def writers(path):
    return [one[1:] for one in all_writers(load(path))[path]]


def test_what_only_root_can_write_nobody_could_rewrite(public):
    need_root()
    for mode in (0o644, 0o600, 0o755, 0o444):
        assert writers(write(public, 'f', STANZA, mode=mode)) == []


@pytest.mark.parametrize('owner, group, mode, expected', [
    (0, 0, 0o664, []), (0, 12, 0o644, []), (0, 12, 0o664, [('group', 12)]), (0, 12, 0o624, [('group', 12)]),
    (0, 0, 0o646, [('everyone', None)]), (0, 0, 0o642, [('everyone', None)]), (12, 0, 0o644, [('user', 12)]), (12, 0, 0o444, [('user', 12)]),
    (65534, 12, 0o666, [('user', 65534), ('everyone', None)]), (0, 0, 0o1646, [('everyone', None)]), (0, 12, 0o1664, [('group', 12)])])
def test_the_owner_and_the_mode_of_the_file_say_who_could_rewrite_it(public, owner, group, mode, expected):
    need_root()
    path = write(public, 'f', STANZA)
    os.chown(path, owner, group)
    os.chmod(path, mode)
    assert writers(path) == expected


@pytest.mark.parametrize('owner, group, mode, expected', [
    (0, 0, 0o755, []), (0, 12, 0o755, []), (0, 0, 0o775, []), (0, 12, 0o775, [('group', 12)]), (0, 0, 0o757, [('everyone', None)]),
    (12, 0, 0o755, [('user', 12)]), (12, 0, 0o1755, [('user', 12)]), (12, 0, 0o1777, [('user', 12)]),
    (0, 0, 0o1777, []), (0, 12, 0o1775, []), (0, 12, 0o3775, [])])
def test_so_do_the_directories_above_it(public, owner, group, mode, expected):
    need_root()
    for above in ('d', 'd/e/g'):
        path = write(public, above, 'f', STANZA)
        os.chown(public + '/d', owner, group)
        os.chmod(public + '/d', mode)
        security = load(path)
        assert [one for one in all_writers(security)[path]] == [(public + '/d',) + who for who in expected]


def test_a_link_is_followed_to_the_real_path(public):
    need_root()
    os.mkdir(public + '/theirs')
    real = write(public, 'theirs', 'f', STANZA)
    os.chown(public + '/theirs', 12, 12)
    os.symlink(real, public + '/link')
    assert all_writers(load(public + '/link'))[public + '/link'] == [(public + '/theirs', 'user', 12)]
    os.symlink(public + '/theirs', public + '/dir')
    assert all_writers(load(public + '/dir/f'))[public + '/dir/f'] == [(public + '/theirs', 'user', 12)]


def test_a_relative_name_is_judged_by_its_whole_path(public, monkeypatch):
    need_root()
    os.mkdir(public + '/theirs')
    write(public, 'theirs', 'sub', 'f', STANZA)
    os.chown(public + '/theirs', 12, 12)
    monkeypatch.chdir(public + '/theirs/sub')
    assert all_writers(load('f')) == {'f': [(public + '/theirs', 'user', 12)]}


def test_a_file_named_like_standard_input_is_judged_all_the_same(public, monkeypatch):
    need_root()
    os.chown(write(public, '-', STANZA), 12, 12)
    monkeypatch.chdir(public)
    assert all_writers(load('-')) == {'./-': [(public + '/-', 'user', 12)]}


def test_every_file_that_was_read_is_judged(public):
    need_root()
    main = write(public, 'main', 'include "a" include "b" include "c" include "nothing" Local_Changes_File = "d"')
    parts = [write(public, name, 'Security { %s }' % text) for name, text in (
        ('a', 'user = a'), ('b', 'user = b'), ('c', 'group = c chroot = /c'), ('d', 'chroot = /d'))]
    parts.append(write(public, 'nothing', '# nothing'))
    for path in parts:
        os.chown(path, 12, 12)
    assert all_writers(load(main)) == dict({path: [(path, 'user', 12)] for path in parts}, **{main: []})


def test_who_can_write_the_file_that_names_the_local_changes_decides_what_they_are(public):
    need_root()
    main = write(public, 'main', 'include "part"')
    part = write(public, 'part', 'Local_Changes_File = "local"')
    local, inner = write(public, 'local', STANZA + 'include "inner"'), write(public, 'inner', 'Security { group = x }')
    for path in (main, part):
        os.chown(path, 12, 12)
        found = all_writers(load(main))
        assert found[local] == found[inner] == found[part] == [(path, 'user', 12)]
        assert found[main] == [(path, 'user', 12)] * (path == main)
        os.chown(path, 0, 0)
    assert all_writers(load(main)) == {main: [], part: [], local: [], inner: []}


def test_who_could_put_local_changes_where_there_are_none_decides_too(public):
    need_root()
    for name in 'theirs', 'ours', 'sticky':
        os.mkdir(public + '/' + name)
    os.chown(public + '/theirs', 12, 12)
    os.chmod(public + '/sticky', 0o1777)        # a file of root's can be moved there by others
    os.symlink(public + '/theirs/none', public + '/ours/link')
    for local, who in (('theirs/local', ('theirs', 'user', 12)), ('theirs/none/local', ('theirs', 'user', 12)),
                       ('ours/link', ('theirs', 'user', 12)), ('ours/link/local', ('theirs', 'user', 12)),
                       ('sticky/local', ('sticky', 'everyone', None)), ('local', None), ('ours/../local', None)):
        main = write(public, 'main', 'Local_Changes_File = "%s" %s' % (local, STANZA))
        expected = [(public + '/' + who[0],) + who[1:]] if who else []
        assert all_writers(load(main)) == {main: [], public + '/' + local: expected}, local


@pytest.mark.parametrize('passed', ['theirs', 'theirs/none', 'beside', 'link'])
def test_who_could_put_a_file_where_a_search_passed_over_decides_too(public, monkeypatch, passed):
    need_root()
    for name in 'etc', 'theirs', 'ours':
        os.mkdir(public + '/' + name)
    os.chown(public + '/theirs', 12, 12)
    monkeypatch.setenv('EC_CONF_SEARCH_PATH', '%s/%s:%s/ours' % (public, passed if 'theirs' in passed else 'nowhere', public))
    main = write(public, 'etc', 'main', 'include "part"')
    found = write(public, 'ours', 'part', STANZA)
    if passed == 'beside':
        os.chmod(public + '/etc', 0o1777)
    if passed == 'link':
        os.symlink(public + '/theirs/part', public + '/etc/part')
    who = {'beside': ('/etc', 'everyone', None)}.get(passed, ('/theirs', 'user', 12))
    writers = all_writers(load(main))
    assert writers[found] == []
    place = public + ('/etc/part' if passed in ('beside', 'link') else '/%s/part' % passed)
    assert writers[place] == [(public + who[0],) + who[1:]]


def test_a_file_that_appears_where_a_search_passed_over_is_an_error(public, monkeypatch):
    monkeypatch.setenv('EC_CONF_SEARCH_PATH', public + '/d')
    write(public, 'd', 'part', STANZA)
    main = write(public, 'main', 'include "part" include "part"')
    genuine = capdrop.Reader.read_items

    def items(reader, source):
        genuine(reader, source)
        if source.name == public + '/d/part':
            write(public, 'part', '# nothing')
    monkeypatch.setattr(capdrop.Reader, 'read_items', items)
    assert 'replaced' in error(load, main).message


def test_links_that_lead_nowhere_for_ever_are_known_to_nobody(tmp_path):
    os.symlink('loop', str(tmp_path / 'loop'))

    def child():
        signal.alarm(20)
        waypoint, = capdrop.way_to_file(str(tmp_path / 'loop' / 'file'), None)
        return [str(writer) for writer in waypoint.writers]
    assert in_child(child) == ['someone unknown (%s)' % os.strerror(errno.ELOOP)]


def test_a_way_ends_at_the_first_name_that_is_missing(tmp_path):
    """Whoever makes that one decides what stands behind it, `..` too."""
    (tmp_path / 'file').write_text('')
    for rest, last in ('none', tmp_path), ('none/../file', tmp_path), ('file', tmp_path / 'file'):
        path, _ = capdrop.everything_on_the_way('%s/%s' % (tmp_path, rest))[-1]
        assert path == str(last), rest


def test_a_file_with_other_names_in_a_sticky_directory_may_have_been_put_there(public):
    """fs.protected_hardlinks would not allow it; it need not be set."""
    need_root()
    shared = public + '/shared'
    os.mkdir(shared)
    os.chmod(shared, 0o1777)
    path = write(shared, 'f', STANZA)
    assert group_zero(load(path), 1001, {1001}) == []
    os.link(path, public + '/other')
    text, = group_zero(load(path), 1001, {1001})
    assert 'someone unknown (it has other names, and this one is in a sticky directory)' in text
    assert group_zero(load(public + '/other'), 1001, {1001}) == []      # where nobody else may make one
    os.symlink(public + '/other', public + '/link')
    os.link(public + '/link', shared + '/link', follow_symlinks=False)
    text, = group_zero(load(shared + '/link'), 1001, {1001})
    assert 'someone unknown' in text


@pytest.mark.parametrize('mode, shared', [(0o1777, True), (0o1775, True), (0o1755, False), (0o777, False)])
def test_a_shared_directory_is_a_sticky_one_that_others_may_write(tmp_path, mode, shared):
    os.chmod(str(tmp_path), mode)
    assert capdrop.is_shared(os.stat(str(tmp_path))) is shared


def test_a_private_file_is_not_to_be_copied_for_everyone_to_read(public):
    need_root()
    path = write(public, 'f', STANZA)
    os.chown(path, 1000, 0)
    os.chmod(path, 0o640)
    security = load(path)
    text, = capdrop.strangers(writers_of_files(security, Platform()), capdrop.may_rewrite(12, {12}, None), {}, security.origin.private)
    assert 'install -m 600 -o root FILE /etc' in text


def test_an_access_list_counts_where_something_could_be_put_and_not_in_a_sticky_directory_above():
    last, above = capdrop.Waypoint('/tmp', (), True), capdrop.Waypoint('/tmp', ())
    lists = {'/tmp': capdrop.LISTED}
    assert [writer.kind for writer in capdrop.writers_on([last], lists, ())] == [capdrop.LISTED]
    assert list(capdrop.writers_on([above], lists, ())) == []


def test_a_file_of_the_users_own_is_warned_of_once(public):
    need_root()
    path = write(public, 'f', 'Security { user = a group = b capabilities = "" }')
    os.chown(path, 1000, 0)
    security = load(path)
    found = list(capdrop.rewritable(security, writers_of_files(security, Platform()), capdrop.may_rewrite(1000, {12}, None)))
    assert [option for option, _ in found] == ['user'] and path in found[0][1]


def group_zero(security, uid, gids, own_group=None):
    """Who is refused, where the process will be in these groups."""
    judged = writers_of_files(security, Platform())
    return list(capdrop.strangers(judged, capdrop.may_rewrite(uid, gids, own_group), {}))


def test_group_0_is_roots_own_only_where_the_process_will_not_be_in_it(public):
    need_root()
    os.mkdir(public + '/d')
    path = write(public, 'd', 'f', STANZA)
    for target in path, public + '/d':
        mode = os.stat(target).st_mode & 0o777
        os.chmod(target, mode | 0o20)
        security = load(path)
        assert ('group', 0) in security.origin.writer_ids()
        assert group_zero(security, 1001, {1001}) == []
        assert group_zero(security, 0, {0}) == []
        assert list(capdrop.rewritable(security, writers_of_files(security, Platform()), capdrop.may_rewrite(1001, {1001}, None))) == []
        for own_group in None, 0:
            text, = group_zero(security, 1001, {1001, 0}, own_group)
            assert text.startswith('%s can be rewritten by group 0, through %s: only root' % (path, target))
        os.chmod(target, mode)
    assert group_zero(load(path), 1001, {0}) == []


def test_a_refusal_names_who_it_is_and_says_what_to_do(public):
    need_root()
    path = write(public, 'f', STANZA)
    os.chown(path, 1000, 0)
    judged = writers_of_files(load(path), Platform())
    text, = capdrop.strangers(judged, capdrop.may_rewrite(12, {12}, None), {('user', 1000): 'me'})
    assert '%s can be rewritten by user 1000 (me), through %s: ' % (path, path) in text
    assert 'install -m 644 -o root' in text and 'options instead of a file' in text
    assert list(capdrop.strangers(judged, capdrop.may_rewrite(1000, {12}, None), {})) == []


def test_an_owner_whom_the_namespace_does_not_map_is_someone_unknown(public):
    need_root()
    path = write(public, 'f', STANZA)
    os.chown(path, 65534, 65534)
    os.chmod(path, 0o664)
    security, platform = load(path), Platform()
    assert all_writers(security)[path] == [(path, 'user', 65534), (path, 'group', 65534)]
    platform.unmapped = frozenset({65534})
    assert [one[1][:17] for one in all_writers(security, platform)[path]] == ['someone unknown ('] * 2
    allowed = capdrop.may_rewrite(65534, {65534}, 65534)
    assert list(capdrop.strangers(writers_of_files(security, Platform()), allowed, {})) == []
    assert len(list(capdrop.strangers(writers_of_files(security, platform), allowed, {}))) == 1


def test_access_control_lists_are_asked_for_everywhere_on_the_way_when_it_is_judged(public):
    need_root()
    path = write(public, 'd', 'f', STANZA)
    os.mkdir(public + '/sticky')
    os.chmod(public + '/sticky', 0o1777)
    os.symlink(path, public + '/sticky/link')
    security, platform, asked = load(public + '/sticky/link'), Platform(), []
    platform.has_access_list = lambda path: asked.append(path) or path == public + '/d'
    assert all_writers(security, platform) == {public + '/sticky/link': [(public + '/d', 'an access control list', None)]}
    assert set(asked) == {'/', public, public + '/d', path}           # /tmp and /sticky: only owners replace what is in them

    def broken(path):
        raise OSError(errno.EIO, 'broken', path)
    platform.has_access_list = broken
    assert (path, 'someone unknown (broken)', None) in all_writers(security, platform)[public + '/sticky/link']


def test_who_could_write_or_replace_a_jail(public):
    need_root()
    jail = public + '/a/jail'
    os.makedirs(jail)
    platform = Platform()

    def found(path=jail):
        return [(one.path, one.kind, one.id) for one in capdrop.writers_of_jail(path, platform, platform.unmapped_owners())]
    assert found() == found(jail + '/') == []
    os.chmod(jail, 0o1777)
    assert found() == [(jail, 'everyone', None)]
    os.chmod(jail, 0o775)
    os.chown(public + '/a', 12, 0)
    assert found() == [(public + '/a', 'user', 12), (jail, 'group', 0)]
    platform.lists = (public + '/a', jail)
    assert found()[1:] == [(public + '/a', 'an access control list', None), (jail, 'an access control list', None)]
    os.symlink('a', public + '/link')
    os.close(os.open(public + '/file', os.O_CREAT | os.O_WRONLY, 0o644))
    for path, number, named in ((public + '/link/jail', errno.ELOOP, public + '/link'), (public + '/a/../a', errno.EINVAL, None),
                                (public + '/file', errno.ENOTDIR, None), (public + '/none', errno.ENOENT, None)):
        with pytest.raises(OSError) as caught:
            found(path)
        assert caught.value.errno == number and caught.value.filename == (named or path)


# ---------------------------------------------------------------------------- the type

def test_a_security_is_never_changed():
    import copy
    import pickle
    security = loads('Security { user = a supplemental_groups = ( b c ) }')
    for name in ('user', 'where', 'anything'):
        with pytest.raises(AttributeError):
            setattr(security, name, None)
    for other in (copy.copy(security), copy.deepcopy(security), pickle.loads(pickle.dumps(security))):
        assert other.asked() == security.asked() and other.where == security.where and other.user == 'a'


def test_a_security_overridden_is_another_one():
    security = loads('Security { user = a chroot = /b }')
    other = security.overridden({'user': ('c', '--user'), 'supplemental_groups': (['d'], '--supplemental-groups')})
    assert (security.user, other.user, other.chroot, other.supplemental_groups) == ('a', 'c', '/b', ('d',))
    assert other.where['user'] == [('<string>', 1, 19), ('--user', None, None)] and security.where['user'] == [('<string>', 1, 19)]
    assert str(other.error('user', 'no %s', 'c')) == '--user: no "c"'
    assert security.overridden({}).asked() == security.asked()
    e = error(security.overridden, {'supplemental_groups': (['mail adm'], '--supplemental-groups')})
    assert e.file == '--supplemental-groups' and 'write the list as mail,adm ' in e.message


def test_several_groups_in_one_name_are_shown_as_a_list_in_the_way_of_the_place():
    assert "write the list as ('mail', 'adm') (" in error(lambda: capdrop.Security(supplemental_groups='mail adm')).message
    assert 'write the list as ( "mail" "adm" ) (' in error(loads, 'Security { supplemental_groups = "mail,adm" }').message
    for text in ('user = "EXAMPLE\\svc"', 'group = "EXAMPLE\\svc"', 'supplemental_groups = ( "EXAMPLE\\svc" )'):
        assert 'give the number instead of the name' in error(loads, 'Security { %s }' % text).message
    assert 'by its number' in error(loads, 'Security { supplemental_groups = ( "domain users" ) }').message


def test_init_groups_and_supplemental_groups_exclude_each_other():
    assert capdrop.Security(user='a', init_groups=True).init_groups is True
    assert capdrop.Security(user='a').init_groups is False
    e = error(lambda: capdrop.Security(supplemental_groups=(), init_groups=True))
    assert e.file == 'init_groups=' and 'supplemental_groups' in e.message
    security = loads('Security { supplemental_groups = ( ) }')
    assert error(security.overridden, {'init_groups': (True, '--init-groups')}).file == '--init-groups'
    assert loads(STANZA).overridden({'init_groups': (True, '--init-groups')}).init_groups is True
    assert 'no option "init_groups"' in error(loads, 'Security { init_groups = true }').message


def test_who_could_put_a_file_into_an_included_directory_decides_too(public):
    need_root()
    main = write(public, 'main', STANZA + 'include "d"')
    os.mkdir(public + '/d')
    for owner, mode, who in (0, 0o755, []), (12, 0o755, [('user', 12)]), (0, 0o1777, [('everyone', None)]):
        os.chown(public + '/d', owner, 0)
        os.chmod(public + '/d', mode)
        assert all_writers(load(main)) == {main: [], public + '/d': [(public + '/d',) + one for one in who]}


def test_in_a_current_directory_that_is_gone_an_absolute_name_is_judged(public):
    need_root()
    path = write(public, 'f', STANZA)

    def child():
        os.mkdir(public + '/gone')
        os.chdir(public + '/gone')
        os.rmdir(public + '/gone')
        return all_writers(load(path))
    assert in_child(child) == {path: []}


@pytest.mark.parametrize('target', ['absent', 'SELF/absent', 'SELF/../sticky/absent'])
def test_a_link_to_nothing_in_a_sticky_directory_lets_everyone_put_a_file_there(target, public):
    need_root()
    os.mkdir(public + '/sticky')
    os.chmod(public + '/sticky', 0o1777)
    link = public + '/sticky/link'
    os.symlink(target.replace('SELF', public + '/sticky'), link)
    main = write(public, 'main', 'Local_Changes_File = "%s" %s' % (link, STANZA))
    assert all_writers(load(main))[link] == [(public + '/sticky', 'everyone', None)]


def test_a_list_counts_for_a_sticky_directory_only_where_it_is_the_last(public):
    """It is included, and so the last; on the way to the file in it only owners can replace that."""
    need_root()
    os.mkdir(public + '/sticky')
    os.chmod(public + '/sticky', 0o1755)
    write(public + '/sticky', 'part', STANZA)
    platform = Platform()
    platform.lists = {public + '/sticky'}
    security = load(write(public, 'main', 'include "sticky"'))
    found = all_writers(security, platform)
    assert found[public + '/sticky'] == [(public + '/sticky', 'an access control list', None)]
    assert found[public + '/sticky/part'] == found[public + '/main'] == []


def test_a_way_through_a_loop_of_links_ends(tmp_path):
    os.symlink('b', str(tmp_path / 'a'))
    os.symlink('a', str(tmp_path / 'b'))
    with pytest.raises(OSError) as caught:
        capdrop.everything_on_the_way(str(tmp_path / 'a'))
    assert caught.value.errno == errno.ELOOP


def test_a_sticky_bit_on_a_file_excuses_nothing(public):
    need_root()
    path = write(public, 'f', STANZA)
    os.chmod(path, 0o1666)
    assert all_writers(load(path)) == {path: [(path, 'everyone', None)]}


def links_are_protected():
    """fs.protected_symlinks of proc(5): one in a sticky directory leads its owner only."""
    try:
        with open('/proc/sys/fs/protected_symlinks') as file:
            return file.read().strip() == '1'
    except OSError:
        return False


def test_who_can_turn_a_link_decides_what_is_read(public):
    need_root()
    real = write(public, 'real', 'f', STANZA)
    for name in 'theirs', 'sticky', 'sticky/d':
        os.mkdir(public + '/' + name)
    for directory in 'theirs', 'sticky':
        os.symlink(real, public + '/%s/file' % directory)
        os.symlink('../real', public + '/%s/directory' % directory)
        os.lchown(public + '/%s/file' % directory, 12, 12)
    os.lchown(public + '/theirs/file', 0, 0)
    os.chown(public + '/theirs', 12, 12)
    os.chmod(public + '/sticky', 0o1777)
    os.symlink('theirs/file', public + '/twice')
    os.symlink('file', public + '/sticky/again')
    for name, who in (('theirs/file', 'theirs'), ('theirs/directory/f', 'theirs'), ('twice', 'theirs'),
                      ('theirs/../real/f', 'theirs'), ('sticky/file', 'sticky/file'), ('sticky/directory/f', None),
                      ('sticky/again', 'sticky/file'), ('sticky/d/../file', 'sticky/file'), ('real/f', None)):
        path = public + '/' + name
        if who == 'sticky/file' and links_are_protected():
            assert 'Permission denied' in error(load, path).message
            continue
        assert all_writers(load(path))[path] == ([(public + '/' + who, 'user', 12)] if who else []), name


def test_a_file_replaced_between_two_includes_is_an_error(public, monkeypatch):
    part = write(public, 'part', STANZA)
    main = write(public, 'main', 'include "part" include "part"')
    genuine = capdrop.Reader.read_items

    def items(reader, source):
        genuine(reader, source)
        if source.name == part:
            os.rename(part, part + '.old')
            write(part, '# nothing')
    monkeypatch.setattr(capdrop.Reader, 'read_items', items)
    assert 'replaced' in error(load, main).message


@pytest.mark.parametrize('blocks', [True, False])
def test_input_that_does_not_block_is_refused_because_more_may_come(blocks):
    reading, tell = os.pipe()
    os.set_blocking(reading, blocks)
    os.write(tell, b'Security { user = daemon }')
    os.close(tell)
    with open(reading) as file:
        done = subprocess.run([sys.executable, '-I', SCRIPT, 'check', '-'], stdin=file, stdout=subprocess.PIPE)
    assert done.returncode == (0 if blocks else 1) and (b'does not block' in done.stdout) == (not blocks)


@pytest.mark.parametrize('text', ['user=a\n', 'Security { user=a }\n', 'a{Security{}}\n', 'a = Security\n',
                                  'Local_Changes_File=/a\n', 'include "d" '])
def test_what_is_kept_or_looked_at_besides_the_text_counts_as_well(text, tmp_path, monkeypatch):
    monkeypatch.setattr(capdrop, 'MOST_BYTES', 1 << 20)
    for name in range(100):
        os.makedirs(str(tmp_path / 'd' / str(name)))
    assert load(write(tmp_path, 'few', STANZA + text * 100)).user is not None
    assert error(load, write(tmp_path, 'many', STANZA + text * 17000)).message == 'the configuration holds, or includes, too much'


def test_brackets_more_than_a_million_deep_are_an_error():
    assert 'million' in error(loads, 'a ' + '{' * (1 << 20)).message


def acl(*entries):
    """The value of a posix_acl_access attribute: acl(5); linux/posix_acl_xattr.h: version 2, then tag, permissions, id."""
    tags = {'user::': 1, 'user': 2, 'group::': 4, 'group': 8, 'mask': 16, 'other': 32}
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', tags[tag], bits, number) for tag, bits, number in entries)


NOBODY_IN_PARTICULAR = 0xffffffff


@pytest.mark.parametrize('where', ['file', 'directory'])
def test_an_access_control_list_that_lets_others_write_is_seen(public, where):
    need_root()
    path = write(public, 'd', 'f', STANZA)
    target = path if where == 'file' else public + '/d'
    for mask, expected in ((6, [(target, 'an access control list', None)]), (4, [])):
        need(hasattr(os, 'setxattr'), 'needs os.setxattr')
        os.setxattr(target, 'system.posix_acl_access', acl(
            ('user::', 7, NOBODY_IN_PARTICULAR), ('user', 6, 1234), ('group::', 4, NOBODY_IN_PARTICULAR),
            ('mask', mask, NOBODY_IN_PARTICULAR), ('other', 4, NOBODY_IN_PARTICULAR)))
        assert all_writers(load(path), capdrop.this_platform())[path] == expected


def test_a_file_replaced_while_it_was_read_is_not_trusted(public, monkeypatch):
    need_root()
    path = write(public, 'f', STANZA)
    genuine = os.open

    def replace(*args, **options):
        fd = genuine(*args, **options)
        os.rename(path, path + '.old')
        monkeypatch.setattr(os, 'open', genuine)
        write(path, STANZA)
        return fd
    monkeypatch.setattr(os, 'open', replace)
    assert all_writers(load(path))[path] != []


def test_standard_input_and_text_have_no_writers(public):
    assert all_writers(loads(STANZA)) == {}


def test_a_file_of_a_stranger_is_refused_and_one_of_the_target_user_is_not(public):
    need_root()
    path = write(public, 'f', 'Security { user = daemon }\n')
    daemon = __import__('pwd').getpwnam('daemon')
    for owner, status in ((0, 0), (daemon.pw_uid, 0), (65534, 125)):
        os.chown(path, owner, -1)
        result = run('exec', path, '--', 'true')
        assert result.returncode == status, result.stderr
        assert ('can be rewritten by' in result.stderr) is (owner != 0)
