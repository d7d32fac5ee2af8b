"""The recipes of docs/recipes.md, taken out of the page, with the daemons of Debian and the servers of PyPI.

Each runs on a machine of its own (test_daemons.py), where nobody can write what the page does not give to the user.
"""
import collections
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import pytest

from conftest import TOP, need, need_root, run_command
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
if sys.platform == 'linux':
    from test_daemons import (PATH, PYTHON, RUNNING, connect, family, machine, open_page, running, said, section,
                              shell, soon, start, stop, write)
    from test_linux import MS_BIND, MS_RDONLY, MS_REMOUNT, c

PAGE = 'recipes.md'
CAPDROP = [PYTHON, '-I', '/opt/capdrop/capdrop.py'] if sys.platform == 'linux' else []


# ---------------------------------------------------------------------------- the page

def table(heading):
    """The rows of the table below a heading: each a dictionary of its cells by the names in the first row."""
    prose = re.sub('^```.*?^```', '', open_page(PAGE), flags=re.M | re.S)
    text = re.search(r'^#+ %s\n(.*?)(^#|\Z)' % re.escape(heading), prose, re.M | re.S).group(1)
    rows = [[cell.strip() for cell in row.strip('|').split('|')] for row in re.findall(r'^\|.*\|$', text, re.M)]
    names, line, *rows = rows
    assert set(line) == {'---'}
    for row in rows:
        assert len(row) == len(names), row
    return [dict(zip(names, row)) for row in rows]


def codes(cell):
    return re.findall('`([^`]+)`', cell)


DAEMONS = {row['daemon']: row for row in table('Daemons')}
BOUND = {row['server']: row for row in table('Bind, then drop')}
KEPT = {row['server']: row for row in table('Drop first, and keep the capability')}
LATER = {row['library']: row for row in table('Start after the drop')}


# ---------------------------------------------------------------------------- questions

def http(port, process):
    return ask(port, process, b'GET / HTTP/1.0\r\nHost: mail.example\r\n\r\n').startswith(b'HTTP/1.')


def smtp(port, process):
    said = ask(port, process, b'EHLO test.example\r\nQUIT\r\n')
    return said.startswith(b'220 ') and b'\n250 ' in said and b'\n221 ' in said


def imap(port, process):
    said = ask(port, process, b'a LOGIN me secret\r\nb CREATE one\r\nc LOGOUT\r\n')
    return all(b'\n%s OK ' % tag in said for tag in (b'a', b'b', b'c'))


def redis(port, process):
    return ask(port, process, b'PING\r\nQUIT\r\n').startswith(b'+PONG\r\n')


def mqtt(port, process):
    return ask(port, process, b'\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a\xe0\x00') == b'\x20\x02\x00\x00'


def ask(port, process, question):
    """Whatever a server says to this, until it closes the connection."""
    with connect(port, process) as connection:
        connection.sendall(question)
        return b''.join(iter(lambda: connection.recv(4096), b''))


def dns(port, process):
    """Whether it knows the address of localhost, or of the name that the page gives."""
    return any(b'\xc0\x0c\x00\x01\x00\x01' in datagram(port, process, b'\x12\x34\x01\x00\x00\x01' + bytes(6) + name +
                                                       b'\x00\x00\x01\x00\x01')
               for name in (b'\x04mail\x07example', b'\x09localhost'))


def ntp(port, process):
    said = datagram(port, process, b'\x23' + bytes(47))
    return len(said) == 48 and said[0] & 7 == 4


def datagram(port, process, question):
    """What a server answers, once it is there."""
    def attempt():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(0.2)
            asker.connect(('127.0.0.1', port))
            try:
                asker.send(question)
                return asker.recv(4096)
            except (ConnectionRefusedError, socket.timeout):
                return None
    return soon(attempt, process)


QUESTIONS = dict(http=http, smtp=smtp, imap=imap, redis=redis, mqtt=mqtt, dns=dns, ntp=ntp)


# ---------------------------------------------------------------------------- daemons

def prepare(row):
    """The stanza, the files and the directories of a row; the path of the stanza."""
    name = row['daemon']
    path = '/opt/capdrop/%s.stanza' % name
    with open(path, 'w') as file:
        file.write('Security {\n  %s\n}\n' % '\n  '.join(codes(row['stanza'])))
    if re.search('^#+ %s$' % name, open_page(PAGE), re.M):
        write(PAGE, name)
    user = capdrop.load(path).user
    for directory in codes(row["the user's"]):
        if os.path.isdir(directory):
            c('mount', b'tmpfs', directory.encode(), b'tmpfs', 0, None)
        status, out, err = shell('install -d -m 750 -o %s -g "$(id -gn %s)" %s' % (user, user, directory))
        assert status == 0, err
    return path


def nothing_else_can_be_written():
    c('mount', b'/', b'/', None, MS_BIND, None)
    os.chdir('/')
    c('mount', b'none', b'/', None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)


def of_the_package(command):
    """Its files below /etc are there, and as the package has installed them."""
    for path in re.findall(r'/etc/[\w./-]+', command):
        need(os.path.exists(path), 'needs ' + path)
        owner = run_command(['dpkg', '-S', path]) if shutil.which('dpkg') else None
        need(owner and owner.returncode == 0, 'needs the %s of a Debian package' % path)
        changed = run_command(['dpkg', '--verify', owner.stdout.partition(':')[0]]).stdout
        need(path not in changed.split(), 'needs %s as its package installs it' % path)


PROGRAMS = {'redis': 'redis-server', 'aiosmtpd': '.aiosmtpd', 'http.server': '.http.server'}


@pytest.mark.parametrize('name', DAEMONS)
def test_daemon_of_the_page_serves_as_an_ordinary_user(name):
    of_the_package(DAEMONS[name]['command'])
    machine(PROGRAMS.get(name, name))(serves)(DAEMONS[name])


def serves(row):
    conf, command = prepare(row), shlex.split(codes(row['command'])[0])
    nothing_else_can_be_written()
    process = start(CAPDROP + ['exec', conf, '--'] + command)
    kind, port = row['serves'].split()
    assert QUESTIONS[kind](int(port), process)
    assert_clean(conf, process)
    stopped(process)


def assert_clean(conf, process):
    """An audit of each of its processes, and of all that they have started, finds nothing."""
    pids = family(process)
    assert sorted(pids) == sorted(set(running()) - {1}), 'some are no longer below the first'
    for pid in pids:
        status, out, err = shell(' '.join(CAPDROP + ['audit', conf, str(pid)]))
        assert (status, out) == (0, '') or pid not in running(), (status, out, err)


def stopped(process):
    process.terminate()
    assert process.wait(30) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    soon(lambda: set(running()) == {1})


# ---------------------------------------------------------------------------- servers in Python

PACKAGES = 'aiohttp apscheduler gevent grpcio hypercorn numpy prometheus-client tornado twisted uvicorn uvloop waitress watchdog'


@pytest.fixture(scope='module')
def python():
    """The Python of a virtual environment with PACKAGES in it; their wheels stay in .venv of the tree for next time."""
    need_root()
    need(os.access(PYTHON, os.X_OK), 'needs ' + PYTHON)
    directory = tempfile.mkdtemp(prefix='capdrop-recipes-')
    try:
        os.chmod(directory, 0o755)
        need(run_command([PYTHON, '-m', 'venv', directory]).returncode == 0, 'needs venv of %s (python3-venv)' % PYTHON)
        pip = [directory + '/bin/python', '-m', 'pip', '-q', '--disable-pip-version-check']
        wheels = os.path.join(TOP, '.venv', 'wheels', run_command([PYTHON, '-V']).stdout.split()[1])
        done = None
        if not os.path.exists(wheels + '/complete'):
            done = run_command(pip + ['download', '--only-binary', ':all:', '-d', wheels] + PACKAGES.split())
            need(done.returncode == 0, 'needs PyPI: ' + done.stderr.strip().rpartition('\n')[2])
            with open(wheels + '/complete', 'w') as file:
                file.write(PACKAGES)
        done = run_command(pip + ['install', '--no-compile', '--no-index', '--find-links', wheels] + PACKAGES.split())
        assert done.returncode == 0, done.stderr
        yield directory + '/bin/python'
    finally:
        shutil.rmtree(directory)


def compose(heading, lines):
    """The program below a heading of the page with these lines at its end, their imports at its beginning; its path."""
    write('embedding.md', 'In a program')
    path = write(PAGE, heading)[-1]
    with open(path) as file:
        text = file.read()
    top = [line for line in lines if re.match('import |from ', line)]
    rest = [line for line in lines if line not in top]
    with open(path, 'w') as file:
        file.write('\n'.join(top + [text] + rest) + '\n')
    return path


@pytest.mark.parametrize('name', BOUND)
def test_server_that_is_given_a_bound_socket_needs_no_capability(name, python):
    machine()(serves_in_python)(python, 'Bind, then drop', BOUND[name], '/opt/myd/myd.conf')


def test_greenlets_wait_until_the_drop_is_over(python):
    machine()(drops_among_greenlets)(python)


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent
import capdrop

def look():
    while True:
        seen.append(dropping)
        gevent.sleep(0)

seen, dropping = [], False
gevent.spawn(look)
gevent.sleep(0.01)                              # the hub is in use
security = capdrop.load('/opt/myd/myd.conf')
begin, sleep = monkey.get_original('_thread', 'start_new_thread'), monkey.get_original('time', 'sleep')
begin(sleep, (0.1,))                            # the drop waits for its end
dropping = True
state = capdrop.drop(security)
dropping = False
gevent.sleep(0.01)
print(len(seen) > 1, any(seen), state.uid, flush=True)
"""


def drops_among_greenlets(python):
    write('embedding.md', 'In a program')
    with open('/opt/myd/greenlets.py', 'w') as file:
        file.write(GREENLETS)
    process = start([python, '-Es', '/opt/myd/greenlets.py'])
    assert (process.wait(30), said(process)) == (0, 'True False (33, 33, 33, 33)\n')


@pytest.mark.parametrize('name', KEPT)
def test_server_that_opens_its_port_itself_keeps_the_capability(name, python):
    machine()(serves_in_python)(python, 'Drop first, and keep the capability', KEPT[name], '/opt/myd/kept.conf')


def serves_in_python(python, heading, row, conf):
    process = start([python, '-Es', compose(heading, codes(row['lines after the drop']))])
    print(process.args)
    if row['server'] == 'asyncio':
        connect(80, process).close()
    elif row['server'] == 'grpcio':
        settings = b'\0\0\0\4\0\0\0\0\0'
        with connect(80, process) as connection:
            connection.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + settings)
            assert connection.recv(9)[3:5] == settings[3:5]
    else:
        assert http(80, process)
    assert 'warning' not in said(process)
    assert_clean(conf, process)
    stopped(process)


@pytest.mark.parametrize('name', LATER)
def test_library_that_is_started_after_the_drop(name, python):
    need(os.cpu_count() > 1 or name != 'numpy', 'needs two processors')
    machine()(starts_after_the_drop)(python, LATER[name])


def starts_after_the_drop(python, row):
    path = compose('Drop first, and keep the capability', [])
    with open(path) as file:
        text = file.read()
    lines = '\n'.join(codes(row['line'])) + '\n'
    for program in text + lines, text.replace('state = ', lines + 'state = '):
        with open(path, 'w') as file:
            file.write("if __name__ == '__main__':\n    " + program.replace('\n', '\n    ') + "\n    print('done')")
        process = start([python, '-Es', path])
        soon(lambda: process.poll() is not None or 'done\n' in said(process))
    after, before = RUNNING
    assert after.wait(30) == 0 and 'done\n' in said(after) and 'warning:' not in said(after)
    if row['before the drop'] == 'refused':
        assert before.wait(30) == 1 and 'RefusedError' in said(before) and 'more than one thread' in said(before)
    else:                                       # it cannot end what it started, so may wait for ever
        assert 'done\n' in said(before) and re.search('warning: .*children', said(before))
