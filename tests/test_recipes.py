"""The recipes of docs/recipes.md, taken out of the page: daemons of Debian, servers of PyPI.

Each runs on a machine of its own (test_daemons.py), where a daemon can write nothing but what
the page gives to its user.
"""
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import tempfile

import pytest

from conftest import (
    MS_BIND, MS_RDONLY, MS_REMOUNT, TOP, c, in_child, io_uring, need, need_root, run_command)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')
if sys.platform == 'linux':
    from test_daemons import (
        PYTHON, RUNNING, commands, connect, family, machine, need_localhost, open_page, running, said, shell,
        soon, start, write)

PAGE = 'recipes.md'
CAPDROP = ['/usr/bin/python3', '-I', '/opt/capdrop/capdrop.py']


# ---------------------------------------------------------------------------- the page

def cells(row):
    return [cell.strip() for cell in row.strip('|').split('|')]


def table(heading):
    """The rows of the table below a heading: {name of the column: cell}."""
    prose = re.sub('^```.*?^```', '', open_page(PAGE), flags=re.M | re.S)
    below = re.search(r'^#+ %s\n(.*?)(^#|\Z)' % re.escape(heading), prose, re.M | re.S).group(1)
    names, line, *rows = map(cells, re.findall(r'^\|.*\|$', below, re.M))
    assert set(line) == {'---'}
    for row in rows:
        assert len(row) == len(names), row
    return [dict(zip(names, row)) for row in rows]


def by_name(heading):
    """Those rows by what stands in the first column."""
    return {next(iter(row.values())): row for row in table(heading)}


def codes(cell):
    return re.findall('`([^`]+)`', cell)


FIRST_BOUND, FIRST_DROPPED = 'Bind, then drop', 'Drop first, and keep the capability'
DAEMONS = by_name('Daemons')
BOUND = by_name(FIRST_BOUND)
KEPT = by_name(FIRST_DROPPED)
LATER = by_name('Start after the drop')


def test_every_file_on_the_page_belongs_to_a_row_or_is_a_program_that_runs():
    inside, heading, headings = False, '', set()
    for line in open_page(PAGE).splitlines():
        if line.startswith('```'):
            inside = not inside
            headings.add(heading)
        elif line.startswith('#') and not inside:
            heading = line.strip('# ')
    assert headings <= set(DAEMONS) | {'Daemons', FIRST_BOUND, FIRST_DROPPED}
    assert len(DAEMONS) >= 15 and len(BOUND) + len(KEPT) >= 10


# ---------------------------------------------------------------------------- questions

def ask(port, process, question):
    """Whatever a server says to this, until it closes the connection."""
    with connect(port, process) as connection:
        connection.sendall(question)
        return b''.join(iter(lambda: connection.recv(4096), b''))


def http(port, process):
    response = ask(port, process, b'GET / HTTP/1.0\r\nHost: mail.example\r\n\r\n')
    return response.startswith(b'HTTP/1.')


def smtp(port, process):
    responses = ask(port, process, b'EHLO test.example\r\nQUIT\r\n')
    return re.match(br'220 .*\n250 .*\n221 ', responses, re.S)


def imap(port, process):
    responses = ask(port, process, b'a LOGIN me secret\r\nb CREATE one\r\nc LOGOUT\r\n')
    return all(b'\n%b OK ' % tag in responses for tag in (b'a', b'b', b'c'))


def redis(port, process):
    return ask(port, process, b'PING\r\nQUIT\r\n').startswith(b'+PONG\r\n')


def mqtt(port, process):
    hello = b'\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a'
    goodbye = b'\xe0\x00'
    return ask(port, process, hello + goodbye) == b'\x20\x02\x00\x00'


def http2(port, process):
    settings = b'\0\0\0\4\0\0\0\0\0'
    with connect(port, process) as connection:
        connection.sendall(b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + settings)
        return connection.recv(9)[3:5] == settings[3:5]


def connects(port, process):
    connect(port, process).close()
    return True


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


DNS = b'\x12\x34\x01\x00\x00\x01' + bytes(6) + b'%b\x00\x00\x01\x00\x01'
ADDRESS = b'\xc0\x0c\x00\x01\x00\x01'
HOSTS = b'\x04mail\x07example', b'\x09localhost'


def dns(port, process):
    """It knows the address of one of these hosts, once it has read its zones."""
    def known():
        return any(ADDRESS in datagram(port, process, DNS % host) for host in HOSTS)
    return soon(known, process)


def ntp(port, process):
    answer = datagram(port, process, b'\x23' + bytes(47))
    return len(answer) == 48 and answer[0] & 7 == 4


QUESTIONS = {
    'http': http, 'smtp': smtp, 'imap': imap, 'redis': redis, 'mqtt': mqtt, 'dns': dns,
    'ntp': ntp}
QUESTIONS_IN_PYTHON = {'grpcio': http2, 'asyncio': connects}         # the others speak HTTP


# ---------------------------------------------------------------------------- daemons

PROGRAMS = {'redis': 'redis-server', 'aiosmtpd': '.aiosmtpd', 'http.server': '.http.server'}


@pytest.mark.parametrize('name', DAEMONS)
def test_daemon_of_the_page_serves_as_an_ordinary_user(name):
    need_files_of_packages(DAEMONS[name]['command'])
    machine(PROGRAMS.get(name, name))(serves)(DAEMONS[name])


def test_example_of_the_page_serves_as_it_stands_there():
    need_files_of_packages(DAEMONS['named']['command'])
    machine('named', 'pgrep')(example_serves)()


def example_serves():
    conf, = write(PAGE, 'Daemons')
    (prepares, line), (audit,) = commands(PAGE, 'Daemons')
    row = DAEMONS['named']
    assert prepares.split()[-2:] == codes(row["the user's"])
    assert line.endswith(' -- ' + codes(row['command'])[0])
    c('mount', b'tmpfs', b'/var/cache/bind', b'tmpfs', 0, None)
    assert shell(prepares) == (0, '', '')
    process = start(line)
    assert dns(53, process)
    status, out, err = shell(audit)
    assert (status, out) == (0, ''), (out, err)
    assert capdrop.load(conf).user == 'bind'
    assert_stops(process)


@pytest.mark.parametrize('name, column, left_out', [
    ('haproxy', 'stanza', 'cap_net_bind_service+ep'),
    ('unbound', 'stanza', 'cap_net_bind_service+ep'),
    ('redis', "the user's", '/var/log/redis'), ('chronyd', "the user's", '/run/chrony')])
def test_daemon_ends_without_what_the_page_gives_it(name, column, left_out):
    need_files_of_packages(DAEMONS[name]['command'])
    row = dict(DAEMONS[name])
    row[column] = row[column].replace(left_out, '').replace('``', '')
    machine(PROGRAMS.get(name, name))(ends)(row)


def ends(row):
    process = start_row(prepare(row), row)
    assert process.wait(30) not in (0, 125)
    assert re.search('denied|Read-only', said(process))


def need_files_of_packages(command):
    """What it reads below /etc is there, and as a package of Debian has installed it."""
    for path in re.findall(r'/etc/[\w./-]+', command):
        need(shutil.which('dpkg') and os.path.exists(path), 'needs the %s of Debian' % path)
        owner = run_command(['dpkg', '-S', path]).stdout.partition(':')[0]
        changed = run_command(['dpkg', '--verify', owner]).stdout.split()
        need(owner and path not in changed, 'needs %s as its package installs it' % path)


def serves(row):
    conf = prepare(row)
    process = start_row(conf, row)
    question, port = row['serves'].split()
    assert QUESTIONS[question](int(port), process)
    assert_clean(conf, process)
    assert_stops(process)


def start_row(conf, row):
    nothing_else_can_be_written()
    command = shlex.split(codes(row['command'])[0])
    return start(CAPDROP + ['exec', conf, '--'] + command)


def prepare(row):
    """Make the stanza, the files and the directories of a row; the path of the stanza."""
    name = row['daemon']
    path = '/opt/capdrop/%s.stanza' % name
    with open(path, 'w') as file:
        file.write('Security {\n  %s\n}\n' % '\n  '.join(codes(row['stanza'])))
    if re.search('^#+ %s$' % name, open_page(PAGE), re.M):
        write(PAGE, name)
    for directory in codes(row["the user's"]):
        give(directory, capdrop.load(path).user)
    return path


def give(directory, user):
    if os.path.isdir(directory):                # the machine's own: leave it as it is
        c('mount', b'tmpfs', directory.encode(), b'tmpfs', 0, None)
    options = '-m 750 -o %s -g "$(id -gn %s)"' % (user, user)
    assert shell('install -d %s %s' % (options, directory)) == (0, '', '')


def nothing_else_can_be_written():
    c('mount', b'/', b'/', None, MS_BIND, None)
    os.chdir('/')
    c('mount', b'none', b'/', None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)


def assert_clean(conf, process):
    """An audit finds nothing in any process that there is: all are below the first."""
    pids = family(process)
    assert set(running()) - {1} <= set(pids), 'some are no longer below the first'
    for pid in pids:
        status, out, err = shell(' '.join(CAPDROP + ['audit', conf, str(pid)]))
        assert (status, out) == (0, '') or pid not in running(), (status, out, err)


def assert_stops(process):
    process.terminate()
    assert process.wait(30) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    soon(lambda: set(running()) == {1})


# ---------------------------------------------------------------------------- servers in Python

PACKAGES = (
    'aiohttp apscheduler gevent grpcio hypercorn numpy prometheus-client tornado twisted '
    'uvicorn uvloop waitress watchdog').split()


@pytest.fixture(scope='module')
def venv():
    """A virtual environment with PACKAGES, made once: it stays in .venv of the tree."""
    need_root()
    need(os.access(PYTHON, os.X_OK), 'needs ' + PYTHON)
    venvs = os.path.join(TOP, '.venv')
    version = run_command([PYTHON, '-V']).stdout.split()[1]
    ready = os.path.join(venvs, 'recipes-' + version)
    if not is_complete(ready):
        shutil.rmtree(ready, ignore_errors=True)
        os.makedirs(venvs, exist_ok=True)
        unfinished = tempfile.mkdtemp(dir=venvs)
        try:
            install(unfinished)
            os.rename(unfinished, ready)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return ready


def is_complete(directory):
    try:
        with open(directory + '/packages') as file:
            return file.read().split() == PACKAGES
    except OSError:
        return False


def install(directory):
    os.chmod(directory, 0o755)
    done = run_command([PYTHON, '-m', 'venv', directory])
    need(done.returncode == 0, 'needs venv of %s (python3-venv)' % PYTHON)
    pip = [directory + '/bin/python', '-m', 'pip', 'install', '-q', '--no-compile']
    done = run_command(pip + ['--only-binary', ':all:'] + PACKAGES)
    need(done.returncode == 0, 'needs PyPI: ' + done.stderr.strip().rpartition('\n')[2])
    with open(directory + '/packages', 'w') as file:
        file.write('\n'.join(PACKAGES))


def python_of(venv):
    """Its interpreter on this machine, where the user may go, wherever the tree is."""
    os.mkdir('/opt/venv')
    c('mount', os.fsencode(venv), b'/opt/venv', None, MS_BIND, None)
    return '/opt/venv/bin/python'


def compose(heading, lines):
    """The program below a heading, imports of these lines at its top, the others at its end."""
    write('embedding.md', 'In a program')
    path = write(PAGE, heading)[-1]
    imports = [line for line in lines if re.match('import |from ', line)]
    others = [line for line in lines if line not in imports]
    with open(path) as file:
        text = file.read()
    with open(path, 'w') as file:
        file.write('\n'.join(imports + [text] + others) + '\n')
    return path


@pytest.mark.parametrize('name', BOUND)
def test_server_that_is_given_a_bound_socket_needs_no_capability(name, venv):
    machine()(serves_in_python)(venv, FIRST_BOUND, BOUND[name], '/opt/myd/myd.conf')


@pytest.mark.parametrize('name', KEPT)
def test_server_that_opens_its_port_itself_keeps_the_capability(name, venv):
    machine()(serves_in_python)(venv, FIRST_DROPPED, KEPT[name], '/opt/myd/kept.conf')


def serves_in_python(venv, heading, row, conf):
    need_localhost(row['lines after the drop'])
    path = compose(heading, codes(row['lines after the drop']))
    process = start([python_of(venv), '-Es', path])
    question = QUESTIONS_IN_PYTHON.get(row['server'], http)
    assert question(80, process)
    assert 'warning' not in said(process)
    assert_clean(conf, process)
    assert_stops(process)


@pytest.mark.parametrize('name', LATER)
def test_library_is_started_after_the_drop(name, venv):
    need(os.cpu_count() > 1 or name != 'numpy', 'needs two processors')
    machine(*['/dev/shm'] * (name in ('multiprocessing.Pool', 'shared_memory')))(starts_after_the_drop)(venv, LATER[name])


MAIN = """\
if __name__ == '__main__':
    %s
    print('done')
"""


def starts_after_the_drop(venv, row):
    python, path = python_of(venv), compose(FIRST_DROPPED, [])
    with open(path) as file:
        text = file.read()
    lines = '\n'.join(codes(row['line'])) + '\n'
    for program in text + lines, text.replace('state = ', lines + 'state = '):
        with open(path, 'w') as file:
            file.write(MAIN % program.replace('\n', '\n    '))
        process = start([python, '-Es', path])
        soon(lambda: process.poll() is not None or 'done\n' in said(process))
    after, before = RUNNING
    assert after.wait(30) == 0 and 'done\n' in said(after) and 'warning:' not in said(after)
    if row['before the drop'] == 'refused':
        assert before.wait(30) == 1
        assert 'RefusedError' in said(before) and 'more than one thread' in said(before)
    else:                                       # it may wait for ever for what it cannot end
        assert row['before the drop'] == 'warned'
        assert 'done\n' in said(before) and re.search('warning: .*children', said(before))


# ---------------------------------------------------------------------- numpy, uvloop, gevent

def test_numpy_with_one_thread_may_be_imported_before_the_drop(venv):
    machine()(sums_up)(venv)


def sums_up(venv):
    write('embedding.md', 'In a program')
    path, = write('embedding.md', 'Threads')
    process = start([python_of(venv), '-Es', path])
    assert (process.wait(30), said(process)) == (0, '27000000.0\n')


UVLOOP = """
import asyncio, socket, uvloop
import capdrop
socket = socket.create_server(('0.0.0.0', 8080))
loop = uvloop.new_event_loop()
loop.run_until_complete(loop.create_server(asyncio.Protocol, %s))
capdrop.drop(capdrop.load('/opt/myd/myd.conf'))
"""


@pytest.mark.parametrize('listener, message', [
    ("'0.0.0.0', 80", 'more than one thread'), ('sock=socket', 'is an io_uring')])
def test_loop_of_uvloop_that_is_made_before_the_drop_is_refused(listener, message, venv):
    try:
        in_child(io_uring)
    except OSError as e:
        need(False, 'needs io_uring: %s' % e)
    machine()(refused_with_message)(venv, UVLOOP % listener, message)


def refused_with_message(venv, text, message):
    process = run_text(venv, text)
    assert process.wait(30) == 1
    assert 'RefusedError' in said(process) and message in said(process)


def run_text(venv, text):
    write('embedding.md', 'In a program')
    with open('/opt/myd/text.py', 'w') as file:
        file.write(text)
    return start([python_of(venv), '-Es', '/opt/myd/text.py'])


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
begin = monkey.get_original('_thread', 'start_new_thread')
begin(monkey.get_original('time', 'sleep'), (0.1,))     # the drop waits until it has ended
dropping = True
state = capdrop.drop(security)
dropping = False
gevent.sleep(0.01)
print(len(seen) > 1, any(seen), state.uid, flush=True)
"""


def test_greenlets_wait_until_the_drop_is_over(venv):
    machine()(drops_among_greenlets)(venv)


def drops_among_greenlets(venv):
    process = run_text(venv, GREENLETS)
    assert (process.wait(30), said(process)) == (0, 'True False (33, 33, 33, 33)\n')


REFUSED_AMONG_GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent
import capdrop
gevent.sleep(0.01)
begin = monkey.get_original('_thread', 'start_new_thread')
begin(monkey.get_original('time', 'sleep'), (60,))
print(*capdrop.plan(capdrop.load('/opt/myd/myd.conf')).refusals)
capdrop.drop(capdrop.load('/opt/myd/myd.conf'))
"""


def test_refusal_among_greenlets_says_why(venv):
    machine()(refused_with_message)(venv, REFUSED_AMONG_GREENLETS, 'more than one thread')
