"""Real daemons: the programs, configurations, commands of docs/launching.md and docs/embedding.md as they stand there.

Each test has a machine of its own as far as its programs can see: network, processes, mounts, /opt and /run.
"""
import functools
import glob
import os
import pwd
import re
import resource
import select
import shutil
import signal
import smtplib
import socket
import struct
import subprocess
import sys
import time
import traceback
import types

import pytest
try:
    import ssl
except ImportError:         # a Python that was built without OpenSSL
    ssl = None

from conftest import (
    BIND, CLONE_NEWNET, CLONE_NEWNS, HELD, MS_BIND, MS_PRIVATE, MS_REC, SCRIPT, SYS_ADMIN,
    TOP, c, in_child, loopback_up, need, need_accounts_of_debian, need_root, run_command)
import capdrop

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='needs Linux')

CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x4000000, 0x8000000, 0x20000000         # linux/sched.h
PYTHON = '/usr/bin/python3'         # others may live where an ordinary user cannot go
PATH = '/usr/sbin:/usr/bin:/sbin:/bin'
HELLO = 'hello\n'
OURS = 'capdrop', 'myd', 'web', 'jail', 'tmp', 'dev', 'said'        # of /opt
RUNNING = []


# ---------------------------------------------------------------------------- a machine for a test

def machine(*programs):
    """A test with ports, processes, mounts, /opt and /run of its own, where these programs are installed (a name with a
    dot before it is a module of the system's Python, one with a slash a directory).  What it starts ends with it, what it
    writes there is gone."""
    def decorate(test):
        @functools.wraps(test)
        def outside(*args, **kwargs):
            need_root()
            need(HELD & SYS_ADMIN, 'needs cap_sys_admin, for namespaces')
            need(os.access(PYTHON, os.X_OK), 'needs ' + PYTHON)
            need_accounts_of_debian()
            for program in programs:
                need(run_command([PYTHON, '-c', 'import ' + program[1:]]).returncode == 0 if program[0] == '.' else
                     os.path.isdir(program) if program[0] == '/' else shutil.which(program, path=PATH), 'needs ' + program)
            in_child(surround, functools.partial(test, *args, **kwargs))
        return outside
    return decorate


def surround(test):
    c('unshare', CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)
    in_child(inside, test)


def inside(test):
    """As process 1: when this ends the kernel ends all that it started."""
    signal.signal(signal.SIGALRM, late)
    signal.alarm(90)
    try:
        settle()
        test()
    except pytest.skip.Exception:
        raise
    except BaseException:
        told = '\n'.join(map(said, RUNNING))
        raise AssertionError('%s\nIts programs said:\n%s' % (traceback.format_exc(), told)) from None


def settle():
    c('mount', b'none', b'/', None, MS_REC | MS_PRIVATE, None)
    opt = os.open('/opt', os.O_RDONLY)
    for kind, where in (b'proc', b'/proc'), (b'tmpfs', b'/opt'), (b'tmpfs', b'/run'), (b'tmpfs', b'/dev/shm'):
        if os.path.isdir(where):
            c('mount', kind, where, kind, 0, None)
        if kind == b'tmpfs' and os.path.isdir(where):
            os.chmod(where, 0o1777 if where == b'/dev/shm' else 0o755)
    for directory in OURS:
        os.mkdir('/opt/' + directory)
    for name in set(os.listdir(opt)) - set(OURS):       # this Python, or this file, may live there
        path = '/proc/self/fd/%d/%s' % (opt, name)
        if os.path.isdir(path):
            os.mkdir('/opt/' + name)
            c('mount', os.fsencode(path), os.fsencode('/opt/' + name), None, MS_BIND | MS_REC, None)
    os.close(opt)
    loopback_up()
    with open('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'w') as file:
        file.write('1024')                  # or any user could bind any port, and nothing here would prove anything
    os.environ.clear()
    os.environ.update(PATH=PATH, HOME='/root', TMPDIR='/opt/tmp',
                      GUNICORN_CMD_ARGS='--graceful-timeout=5')     # its workers do not hear SIGTERM while they start
    os.chdir('/')
    os.umask(0o022)
    os.chmod('/opt/tmp', 0o1777)
    for directory in 'capdrop', 'myd':
        shutil.copy(SCRIPT, '/opt/' + directory)
        os.chmod('/opt/%s/capdrop.py' % directory, 0o644)


def late(number, frame):
    raise AssertionError('the test takes too long')


def soon(condition, process=None):
    """What `condition` returns, once it is true."""
    until = time.time() + 30
    while True:
        value = condition()
        if value:
            return value
        assert process is None or process.poll() is None, 'ended with %s' % process.returncode
        assert time.time() < until, condition
        time.sleep(0.02)


# ---------------------------------------------------------------------------- the documents

def open_page(page):
    with open(os.path.join(TOP, 'docs', page), encoding='utf-8') as file:
        return file.read()


def section(page, heading):
    """The blocks of a page of docs/ that stand below this heading."""
    found, below, block = [], False, None
    for line in open_page(page).splitlines(True):
        if line.startswith('```'):
            if block is not None and below:
                found.append(''.join(block))
            block = [] if block is None else None
        elif block is not None:
            block.append(line)
        elif line.startswith('#'):
            below = line.strip('# \n') == heading
    assert found, 'nothing below %s' % heading
    return found


def write(page, heading, change=lambda text: text):
    """The files that a section shows, each where its first line says; their paths."""
    paths = []
    for block in section(page, heading):
        named = re.match(r'# (/(?:opt|run)/\S+)\n', block)
        if named:
            paths.append(named.group(1))
            with open(paths[-1], 'w', encoding='utf-8') as file:
                file.write(change(block))
    return paths


def commands(page, heading):
    """The command lines of a section's two blocks of them: to start something, and while it runs."""
    first, second = [block for block in section(page, heading) if not block.startswith('# ')]
    return [re.sub(r'\\\n\s*', '', block).splitlines() for block in (first, second)]


def start(line, **options):
    """The process that a command line becomes.  What it says is read with said()."""
    if isinstance(line, str):
        line = ['/bin/sh', '-c', re.sub(r'^(cd \S+ && )?', r'\1exec ', line)]
    with open('/opt/said/%d' % len(RUNNING), 'wb') as output:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
    process.output = output.name
    RUNNING.append(process)
    return process


def said(process):
    with open(process.output, encoding='utf-8', errors='replace') as file:
        return file.read()


def launch(heading):
    """Write the files of a section of launching.md and run its commands; the process of the last."""
    write('launching.md', 'As a launcher')
    write('launching.md', heading)
    first = commands('launching.md', heading)[0]
    for line in first[:-1]:
        done = run_command(['/bin/sh', '-ec', line])
        assert done.returncode == 0 and not done.stderr, (line, done.stderr)
    return start(first[-1])


def need_localhost(program):
    """If it asks for that."""
    try:
        socket.getaddrinfo('localhost' if 'localhost' in program else None, 80)
    except OSError as e:
        need(False, 'needs a name for 127.0.0.1, localhost in /etc/hosts: %s' % e)


def shell(line):
    need('install ' not in line or shutil.which('install', path=PATH), 'needs install')
    done = run_command(['/bin/sh', '-c', line])
    return done.returncode, done.stdout, done.stderr


def program(heading, name=None, change=lambda text: text):
    """A program of embedding.md, the first below a heading or that of this name, started as its page says."""
    write('embedding.md', 'In a program')
    paths = [path for path in write('embedding.md', heading, change) if path.endswith(name or '.py')]
    return start([PYTHON, '-Es', paths[0]])


def connect(port, process):
    """A connection to a server, once it listens."""
    def attempt():
        try:
            return socket.create_connection(('127.0.0.1', port), 10)
        except ConnectionRefusedError:
            return None
    return soon(attempt, process)


def answer(port, process):
    """The body of an HTTP response."""
    with connect(port, process) as connection:
        connection.sendall(b'GET / HTTP/1.0\r\nHost: mail.example\r\n\r\n')
        return b''.join(iter(lambda: connection.recv(4096), b'')).decode().split('\r\n\r\n')[-1]


def greeting(port, process, tls=None):
    """The first line that a server says."""
    connection = connect(port, process)
    if tls:
        connection = tls.wrap_socket(connection, server_hostname='mail.example')
    with connection, connection.makefile('rb') as file:
        return file.readline().decode('cp1252')


def running():
    """Every process that has not ended: its parent."""
    found = {}
    for path in glob.glob('/proc/[0-9]*/stat'):
        try:
            with open(path) as file:
                state, parent = file.read().rsplit(')', 1)[1].split()[:2]
        except OSError:
            continue
        if state not in 'ZX':
            found[int(path.split('/')[2])] = int(parent)
    return found


def family(process):
    """A process and all below it."""
    parents, found = running(), [process.pid]
    for pid in found:
        found += sorted(child for child in parents if parents[child] == pid)
    return found


def is_user(name, no_new_privs=1):
    """A function that tells whether a process is that user, and no longer dropping: no_new_privs is the last step."""
    uid = pwd.getpwnam(name).pw_uid
    return lambda pid: capdrop.state(pid).uid == (uid,) * 4 and capdrop.state(pid).no_new_privs == no_new_privs


def audited(line, clean, kind='a launch'):
    """Run an audit as the page shows it: nothing on stdout, and one line on stderr for each of these processes."""
    status, out, err = shell(line)
    assert (status, out) == (0, ''), (out, err)
    told = re.findall(r'^capdrop: process (\d+) .*: as %s leaves it' % kind, err, re.M)
    assert sorted(map(int, told)) == sorted(clean), err


def stop(process, number=signal.SIGTERM, status=0):
    pids = family(process)
    process.send_signal(number)
    assert process.wait(30) == status, said(process)
    soon(lambda: not set(pids) & set(running()))


def certificate(directory):
    """A key that only root may read, and a certificate signed with it; a context that trusts nothing else."""
    need(ssl, 'needs the module ssl of ' + sys.executable)
    key, cert = directory + '/key.pem', directory + '/cert.pem'
    done = run_command(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', cert,
                        '-days', '2', '-subj', '/CN=mail.example', '-addext', 'subjectAltName=DNS:mail.example'])
    assert done.returncode == 0, done.stderr
    os.chmod(key, 0o600)
    return ssl.create_default_context(cafile=cert)


# ---------------------------------------------------------------------------- launched

WEB = {'nginx': (3, signal.SIGQUIT), 'gunicorn': (3, signal.SIGTERM), 'uvicorn': (4, signal.SIGTERM)}


@pytest.mark.parametrize('name, needs', [('nginx', ['nginx']), ('gunicorn', ['gunicorn']), ('uvicorn', ['.uvicorn'])])
def test_web_server_on_port_80_is_an_ordinary_user_from_master_to_worker(name, needs):
    machine('pgrep', *needs)(serves_and_stops)(name)


def serves_and_stops(name):
    size, ending = WEB[name]
    process = launch(name)
    assert answer(80, process) == HELLO
    soon(lambda: len(family(process)) == size, process)
    line = commands('launching.md', name)[1][0]
    audited(line, family(process))
    for pid in family(process):
        now = capdrop.state(pid)
        assert set(now.uid + now.gid) == {33} and not now.groups and now.no_new_privs
        assert now.permitted == now.effective == now.ambient == now.bounding == BIND
    stop(process, ending)


@machine('nginx', 'pgrep')
def test_nginx_reloads_and_opens_another_low_port_as_an_ordinary_user():
    process = launch('nginx')
    assert answer(80, process) == HELLO
    before = family(process)
    with open('/opt/capdrop/nginx.conf') as file:
        text = file.read()
    with open('/opt/capdrop/nginx.conf', 'w') as file:
        file.write(text.replace('listen 80;', 'listen 80; listen 81;'))
    status, out, err = shell(commands('launching.md', 'nginx')[1][1])
    assert (status, out, err) == (0, '', '')
    assert answer(81, process) == answer(80, process) == HELLO
    soon(lambda: len(family(process)) == 3 and not set(before[1:]) & set(family(process)), process)
    audited(commands('launching.md', 'nginx')[1][0], family(process))
    stop(process, signal.SIGQUIT)


@machine('nginx')
def test_nginx_that_is_told_to_change_user_merely_warns():
    write('launching.md', 'As a launcher')
    write('launching.md', 'nginx', lambda text: text.replace('daemon off;', 'daemon off; user www-data;'))
    first = commands('launching.md', 'nginx')[0]
    assert shell(first[0])[0] == 0
    process = start(first[1])
    assert answer(80, process) == HELLO
    assert 'the "user" directive makes sense only if' in said(process)
    stop(process, signal.SIGQUIT)


@machine('nginx')
def test_nginx_cannot_make_its_default_temporary_directories():
    c('mount', b'tmpfs', b'/var/lib/nginx', b'tmpfs', 0, None)      # as the package leaves it
    os.chmod('/var/lib/nginx', 0o755)
    write('launching.md', 'As a launcher')
    write('launching.md', 'nginx', lambda text: re.sub(r'.*_temp_path.*\n', '', text))
    first = commands('launching.md', 'nginx')[0]
    assert shell(first[0])[0] == 0
    process = start(first[1])
    assert process.wait(30) == 1 and 'mkdir() "/var/lib/nginx/body" failed (13' in said(process)


@machine('gunicorn', 'pgrep')
def test_gunicorn_reloads_and_tells_the_service_manager_under_its_own_process_id():
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    manager.bind('/run/notify')
    os.chmod('/run/notify', 0o666)
    manager.settimeout(30)
    os.environ['NOTIFY_SOCKET'] = '/run/notify'
    process = launch('gunicorn')
    data, (credentials,) = manager.recvmsg(1024, 1024)[:2]
    assert data.startswith(b'READY=1') and struct.unpack('3i', credentials[2]) == (process.pid, 33, 33)
    assert answer(80, process) == HELLO
    soon(lambda: len(family(process)) == 3, process)
    before = family(process)[1:]
    process.send_signal(signal.SIGHUP)
    soon(lambda: len(family(process)) == 3 and not set(before) & set(family(process)), process)
    assert answer(80, process) == HELLO
    audited(commands('launching.md', 'gunicorn')[1][0], family(process))
    stop(process)


@machine('gunicorn')
@pytest.mark.parametrize('options, works', [
    ('--user www-data --group www-data', True), ('--group mail', False), ('--user www-data --initgroups', False)])
def test_gunicorn_that_is_told_to_change_user_or_groups(options, works):
    write('launching.md', 'As a launcher')
    write('launching.md', 'gunicorn')
    line = commands('launching.md', 'gunicorn')[0][0]
    process = start(line.replace('gunicorn', 'gunicorn ' + options))
    if works:
        assert answer(80, process) == HELLO
        stop(process)
    else:
        assert process.wait(30) not in (0, 125) and 'Operation not permitted' in said(process)


@machine('nginx')
def test_nginx_without_the_capability_cannot_bind_port_80():
    write('launching.md', 'As a launcher', lambda text: text.replace('cap_net_bind_service+ep', ''))
    write('launching.md', 'nginx')
    first = commands('launching.md', 'nginx')[0]
    assert shell(first[0])[0] == 0
    process = start(first[1])
    assert process.wait(30) == 1 and 'bind() to 0.0.0.0:80 failed (13: Permission denied)' in said(process)


@machine()
def test_stderr_that_is_a_pipe_or_a_file_of_root_can_be_written_but_not_opened_anew():
    write('launching.md', 'As a launcher')
    command = [PYTHON, '-I', '/opt/capdrop/capdrop.py', 'exec', '/opt/capdrop/web.conf', '--', '/bin/sh', '-c']
    assert run_command(command + ['echo one >&2']).stderr == 'one\n'
    done = run_command(command + ['echo one > /dev/stderr'])
    assert done.returncode != 0 and 'Permission denied' in done.stderr
    process = start(command + ['echo one >&2; echo two > /dev/stderr'])
    assert process.wait(30) != 0 and said(process).startswith('one\n') and 'Permission denied' in said(process)


@machine('busybox', 'pgrep')
def test_busybox_in_a_jail_sees_only_the_jail():
    write('launching.md', 'As a launcher')
    write('launching.md', 'A jail')
    *first, last = commands('launching.md', 'A jail')[0]
    done = [shell(line) for line in first]
    assert done == [(0, '', '')] * (len(first) - 1) + [(0, 'bin\nwww\n', '')]
    process = start(last)
    assert answer(80, process) == HELLO
    audited(commands('launching.md', 'A jail')[1][0], [process.pid])
    now, jail = capdrop.state(process.pid), os.stat('/opt/jail')
    assert now.root == (jail.st_dev, jail.st_ino) and now.permitted == BIND and set(now.uid) == {33}
    assert os.readlink('/proc/%d/cwd' % process.pid).startswith('/opt/jail')
    for path in '/etc/passwd', '/proc', '/../opt', '/opt/jail':
        status, out, err = shell(' '.join(first[-1].split()[:-1] + [path]))
        assert status == 1 and out == '' and 'No such file' in err
    status, out, err = shell(first[-1] + '..')
    assert (status, out) == (0, 'bin\nwww\n')


@machine('busybox')
def test_jail_below_a_directory_that_others_may_write_is_refused_and_below_a_sticky_one_it_is_not():
    write('launching.md', 'As a launcher')
    write('launching.md', 'A jail')
    lines = commands('launching.md', 'A jail')[0][:-1]
    os.chmod('/opt', 0o777)
    for line in lines[:-1]:
        assert shell(line)[0] == 0
    status, out, err = shell(lines[-1])
    assert status == 125 and out == '' and '/opt' in err and 'only root' in err
    os.chmod('/opt', 0o1777)
    assert shell(lines[-1]) == (0, 'bin\nwww\n', '')
    os.chmod('/opt/jail', 0o1777)
    status, out, err = shell(lines[-1])
    assert (status, out) == (125, '') and '/opt/jail' in err and 'only root' in err


@machine('nginx', 'pgrep')
def test_audit_tells_the_same_nginx_started_as_root():
    write('launching.md', 'As a launcher')
    write('launching.md', 'nginx', lambda text: text.replace('daemon off;', 'daemon off; user www-data;'))
    first = commands('launching.md', 'nginx')[0]
    assert shell(first[0])[0] == 0
    process = start(first[1].partition(' -- ')[2])
    assert answer(80, process) == HELLO
    soon(lambda: len(family(process)) == 3 and all(map(is_user('www-data', 0), family(process)[1:])))
    line = commands('launching.md', 'nginx')[1][0]
    status, out, err = shell(line)
    assert 'uid: wanted' in out and 'permitted: wanted cap_net_bind_service, has' in out, (out, err)
    worker = capdrop.audit(capdrop.load('/opt/capdrop/web.conf'), family(process)[1])
    assert {'bounding', 'no_new_privs'} <= {one.field for one in worker}
    stop(process, signal.SIGQUIT)


# ---------------------------------------------------------------------------- in a program

def is_clean(conf, pid):
    return capdrop.audit(capdrop.load(conf), pid) == []


@machine('pgrep')
def test_sample_runs_under_its_command_and_is_as_asked():
    write('embedding.md', 'In a program')
    first, then = commands('embedding.md', 'In a program')
    process = start(first[0])
    assert greeting(80, process) == HELLO
    soon(lambda: is_user('www-data')(process.pid), process)
    audited(then[0], [process.pid], 'a drop or launch')
    assert said(process) == ''


@machine()
def test_sample_prints_the_warnings_of_its_drop():
    path = write('embedding.md', 'In a program', lambda text: text.replace(
        'user = www-data', 'user = www-data\n  capabilities = "cap_chown+ep"'))[-1]
    process = start([PYTHON, '-Es', path])
    assert greeting(80, process) == HELLO
    assert re.search(r'^warning: .*amounts to root: cap_chown$', said(process), re.M)


@machine()
def test_what_stays_after_a_drop_and_what_a_launch_sets():
    write('embedding.md', 'In a program')
    with open('/opt/myd/stays.py', 'w') as file:
        file.write(STAYS)
    os.mkdir('/opt/root', 0o700)
    options = {'cwd': '/opt/root', 'preexec_fn': lambda: os.umask(0o027)}
    command = [PYTHON, '-Es', '/opt/myd/stays.py']
    process = start(command + ['drop'], **options)
    assert (process.wait(30), said(process)) == (0, '/root 0o27 /opt/root wrote\n')
    process = start([PYTHON, '-I', '/opt/myd/capdrop.py', 'exec', '/opt/myd/myd.conf', '--'] + command, **options)
    assert (process.wait(30), said(process)) == (0, '/var/www 0o27 /opt/root\n')


STAYS = """
import os, sys
import capdrop
if sys.argv[1:]:
    kept = os.open('/opt/root/file', os.O_WRONLY | os.O_CREAT, 0o600)
    capdrop.drop(capdrop.load('/opt/myd/myd.conf'))
print(os.environ['HOME'], oct(os.umask(0)), os.getcwd(), *['wrote' for n in sys.argv[1:] if os.write(kept, b'1')])
"""


@machine()
def test_asyncio_listens_before_the_drop_and_serves_after_it():
    process = program('asyncio')
    assert greeting(80, process) == HELLO
    soon(lambda: is_user('www-data')(process.pid), process)
    assert greeting(80, process) == HELLO and is_clean('/opt/myd/myd.conf', process.pid)


@machine()
@pytest.mark.parametrize('old, new', [
    ("'0.0.0.0'", "''"), ("'0.0.0.0'", 'None'), ("'0.0.0.0'", "'localhost'"),
    ('capdrop.drop(', 'loop.run_until_complete(loop.run_in_executor(None, print))\ncapdrop.drop(')
], ids=['empty', 'None', 'a name', 'an executor'])
def test_asyncio_that_has_started_a_thread_is_refused_the_drop(old, new):
    need_localhost(new)
    process = program('asyncio', change=lambda text: text.replace(old, new))
    assert process.wait(30) == 1 and 'RefusedError' in said(process) and 'more than one thread' in said(process)


def syslogd(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.exists(path):
        os.unlink(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(path)
    os.chmod(path, 0o666)
    server.settimeout(10)
    return server


@machine()
def test_syslog_handler_made_before_the_drop_works_in_the_jail_until_syslogd_is_restarted_without_a_socket_there():
    for name in 'null', 'zero', 'random', 'urandom':    # the machine's own /dev must not get a /dev/log
        open('/opt/dev/' + name, 'w').close()
        c('mount', b'/dev/' + name.encode(), b'/opt/dev/' + name.encode(), None, MS_BIND, None)
    c('mount', b'/opt/dev', b'/dev', None, MS_BIND | MS_REC, None)
    log = syslogd('/dev/log')
    process = program('Logging to syslog')
    assert b'from the jail' in log.recv(1024)
    soon(lambda: is_user('www-data')(process.pid), process)
    assert is_clean('/opt/myd/jail.conf', process.pid)
    while select.select([log], [], [], 0)[0]:
        log.recv(1024)
    assert b'from the jail' in log.recv(1024)
    assert said(process) == ''
    log.close()
    log = syslogd('/dev/log')
    soon(lambda: 'FileNotFoundError' in said(process), process)
    assert not select.select([log], [], [], 0.5)[0]
    jailed = syslogd('/opt/jail/dev/log')
    assert b'from the jail' in jailed.recv(1024)
    assert process.poll() is None


LOGS = 'embedding.md', 'Log files and rotation'


def log_directory(owner):
    c('mount', b'tmpfs', b'/var/log', b'tmpfs', 0, None)
    assert shell(section(*LOGS)[0]) == (0, '', '')
    shutil.chown('/var/log/myd', owner)
    os.chmod('/var/log/myd', 0o755)


@machine('/var/log')
def test_log_in_a_directory_of_the_user_is_rotated_by_the_user():
    log_directory('www-data')
    process = program(LOGS[1])
    soon(lambda: os.path.exists('/var/log/myd/myd.log.2'), process)
    assert {os.stat('/var/log/myd/' + name).st_uid for name in os.listdir('/var/log/myd')} == {33}
    assert said(process) == '' and is_clean('/opt/myd/myd.conf', process.pid)


def log_before_the_drop(text):
    drop = re.search('capdrop.drop.*\n', text).group()
    return text.replace(drop, '').replace('while True', drop + 'while True')


@machine('/var/log')
def test_log_that_is_opened_before_the_drop_cannot_be_rotated():
    log_directory('root')
    process = program(LOGS[1], change=log_before_the_drop)
    soon(lambda: said(process).count('PermissionError: [Errno 13]') > 1, process)
    assert os.listdir('/var/log/myd') == ['myd.log']
    assert 0 < os.stat('/var/log/myd/myd.log').st_size <= 1000


def log_by(handler):
    def change(text):
        text = text.replace('logging.handlers.RotatingFileHandler', handler)
        return text.replace(', maxBytes=1000, backupCount=2', '')
    return change


@machine('/var/log')
def test_log_that_is_copied_and_truncated_goes_on_even_if_it_was_opened_before_the_drop():
    log_directory('root')
    by_one = log_by('logging.FileHandler')
    process = program(LOGS[1], change=lambda text: log_before_the_drop(by_one(text)))
    soon(lambda: is_user('www-data')(process.pid), process)
    soon(lambda: os.stat('/var/log/myd/myd.log').st_size > 1000, process)
    os.truncate('/var/log/myd/myd.log', 0)
    soon(lambda: os.stat('/var/log/myd/myd.log').st_size > 100, process)
    with open('/var/log/myd/myd.log') as file:
        assert file.readline() == 'still here\n' and said(process) == ''


@machine('/var/log')
def test_watched_log_in_a_directory_of_root_ends_the_program_while_there_is_none():
    log_directory('root')
    new = ['install', '-m', '640', '-o', 'www-data', '/dev/null', '/var/log/myd/myd.log']
    assert run_command(new).returncode == 0
    process = program(LOGS[1], change=log_by('logging.handlers.WatchedFileHandler'))
    soon(lambda: os.stat('/var/log/myd/myd.log').st_size, process)
    os.rename('/var/log/myd/myd.log', '/var/log/myd/myd.log.1')
    assert process.wait(30) == 1 and 'PermissionError: [Errno 13]' in said(process)


@machine()
def test_program_in_a_jail_has_what_it_used_before_and_nothing_that_it_did_not():
    write('embedding.md', 'Logging to syslog')
    process = program('In a jail')
    assert greeting(8080, process) == '2026 \u20ac\n'
    assert is_clean('/opt/myd/jail.conf', process.pid) and said(process) == ''
    process = program('In a jail', change=lambda text: text.replace('8080', '8081').replace('codecs.lookup', 'str'))
    connect(8081, process).close()
    soon(lambda: 'LookupError: unknown encoding: cp1252' in said(process), process)


@machine()
def test_empty_jail_lacks_what_the_page_says():
    write('embedding.md', 'Logging to syslog')
    tries = """import locale, os, socket, subprocess, tempfile, time
import capdrop
os.environ['TZ'] = 'Asia/Tokyo'
capdrop.drop(capdrop.load('/opt/myd/jail.conf'))
for name, call in dict(
        null=lambda: open('/dev/null'), devnull=lambda: subprocess.Popen(['/x'], stdin=subprocess.DEVNULL),
        tmp=tempfile.gettempdir, name=lambda: socket.gethostbyname('localhost'),
        service=lambda: socket.getservbyname('smtp'),
        locale=lambda: locale.setlocale(locale.LC_ALL, 'en_US.UTF-8')).items():
    try:
        print(name, call())
    except (OSError, locale.Error):
        pass
os.environ['TZ'] = 'America/New_York'
time.tzset()
print(time.strftime('%z'))
"""
    with open('/opt/myd/tries.py', 'w') as file:
        file.write(tries)
    process = start([PYTHON, '-Es', '/opt/myd/tries.py'])
    assert process.wait(30) == 0 and said(process) == '+0000\n'


@machine('openssl')
def test_tls_key_read_before_the_drop_serves_and_cannot_be_read_after_it():
    trust = certificate('/opt/myd')
    process = program('TLS keys')
    assert greeting(443, process, trust) == HELLO
    soon(lambda: is_user('www-data')(process.pid), process)
    assert greeting(443, process, trust) == HELLO and is_clean('/opt/myd/myd.conf', process.pid)
    again = program('TLS keys', change=lambda text: text.replace('443', '444').replace(
        'server.serve_forever()', re.search(r'^tls.load.*', text, re.M).group()))
    assert again.wait(30) == 1 and 'PermissionError: [Errno 13]' in said(again)


@machine()
@pytest.mark.parametrize('name, parent', [('fork_after', 33), ('fork_before', 0)])
def test_workers_are_ordinary_users_and_their_parent_is_one_if_it_dropped_first(name, parent):
    process = program('Workers by fork', name + '.py')
    assert greeting(80, process) == HELLO
    soon(lambda: len(family(process)) == 3 and all(map(is_user('www-data'), family(process)[1:])), process)
    assert capdrop.state(process.pid).uid == (parent,) * 4
    for pid in family(process)[not parent and 1 or 0:]:
        assert is_clean('/opt/myd/myd.conf', pid)
        assert greeting(80, process) == HELLO
    assert said(process) == ''


@machine()
def test_worker_whose_drop_is_refused_ends_and_runs_nothing_of_its_parents():
    write('embedding.md', 'In a program')
    write('embedding.md', 'Workers by fork', lambda text: text.replace('os.wait()', 'print("parent", os.getpid())'))
    os.chown('/opt/myd/myd.conf', 1, 1)         # of a user who must not decide
    process = start([PYTHON, '-Es', '/opt/myd/fork_before.py'])
    assert process.wait(30) == 0
    soon(lambda: said(process).count('worker:') == 2)           # its parent may have been faster
    assert said(process).count('can be rewritten by') == 2
    assert re.findall(r'parent (\d+)', said(process)) == [str(process.pid)]


@machine('/dev/shm')
def test_pool_that_is_started_after_the_drop_is_the_user():
    process = program('Other processes')
    assert (process.wait(30), said(process)) == (0, '{33}\n')


@machine('/dev/shm')
@pytest.mark.parametrize('method, held', [('fork', '0400'), ('forkserver', '0000'), ('spawn', '0000')])
def test_process_that_is_forked_holds_what_the_program_holds_and_one_that_is_executed_no_capability(method, held):
    write('embedding.md', 'In a program', lambda text: text.replace(
        'user = www-data', 'user = www-data\n  capabilities = "cap_net_bind_service+ep"'))
    path, = write('embedding.md', 'Other processes', lambda text: text.replace(
        'multiprocessing.Pool', 'multiprocessing.get_context("%s").Pool' % method).replace(
        'os.getuid()', '[line[-5:-1] for line in open("/proc/self/status") if "CapPrm" in line][0]'))
    process = start([PYTHON, '-Es', path])
    assert (process.wait(30), said(process)) == (0, "{'%s'}\n" % held)


@machine()
def test_process_that_was_started_before_the_drop_stays_root_and_cannot_be_ended():
    write('embedding.md', 'In a program')
    with open('/opt/myd/before.py', 'w') as file:
        file.write(BEFORE)
    process = start([PYTHON, '-Es', '/opt/myd/before.py'])
    soon(lambda: said(process).endswith('done\n'), process)
    child = family(process)[1]
    assert re.search(r'^warning: .*children already started.*\(%d python3\)' % child, said(process), re.M)
    assert 'PermissionError' in said(process) and set(capdrop.state(child).uid) == {0}
    assert is_clean('/opt/myd/myd.conf', process.pid)


BEFORE = """
import multiprocessing, time
import capdrop
child = multiprocessing.Process(target=time.sleep, args=(60,))
child.start()
state = capdrop.drop(capdrop.load('/opt/myd/myd.conf'))
print('warning:', *state.warnings)
try:
    child.terminate()
except PermissionError as e:
    print(repr(e))
print('done', flush=True)
"""


@machine('pkill')
def test_launched_program_that_executes_itself_again_opens_its_low_port_again():
    conf = write('embedding.md', 'Restarting itself')[0]
    first, then = commands('embedding.md', 'Restarting itself')
    process = start(first[0])
    assert greeting(80, process) == HELLO
    before = listening(80)
    assert shell(then[0]) == (0, '', '')
    soon(lambda: listening(80) and not listening(80) & before, process)
    assert greeting(80, process) == HELLO and is_clean(conf, process.pid)


@machine()
@pytest.mark.parametrize('order, message', [
    ('{serve}\n{drop}\nserver.serve_forever()', 'PermissionError: [Errno 13]'),
    ('{drop}\n{serve}\nserver.serve_forever()', 'RefusedError: cap_net_bind_service: not in this process'),
], ids=['bind first', 'drop first'])
def test_program_that_has_dropped_by_itself_and_executes_itself_again_has_lost_the_capability(order, message):
    program = order.format(serve="server = socketserver.TCPServer(('', 80), Hello)",
                           drop="import capdrop; capdrop.drop(capdrop.load('/opt/myd/again.conf'))")
    path = write('embedding.md', 'Restarting itself', lambda text: re.sub(
        r'^.*\.serve_forever\(\)', lambda match: program, text, flags=re.M))[1]
    process = start([PYTHON, '-Es', path])
    assert greeting(80, process) == HELLO
    soon(lambda: is_user('www-data')(process.pid), process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 1 and message in said(process)


@machine()
def test_process_dumps_core_once_it_is_dumpable_again():
    with open('/proc/sys/kernel/core_pattern') as file:
        pattern = file.read()
    need(pattern[0] not in '|/', 'needs core dumps in the current directory: kernel.core_pattern')
    os.mkdir('/run/core')
    shutil.chown('/run/core', 'www-data')
    without = program('Core dumps and debuggers', change=lambda text: re.sub('.*prctl.*\n', '', text))
    assert without.wait(30) == -signal.SIGABRT and os.listdir('/run/core') == []
    process = program('Core dumps and debuggers')
    assert process.wait(30) == -signal.SIGABRT and len(os.listdir('/run/core')) == 1


@machine()
@pytest.mark.parametrize('change, readable', [(lambda text: text, True), (lambda text: re.sub('.*prctl.*', '', text), False)])
def test_process_can_look_into_itself_once_it_is_dumpable_again(change, readable):
    os.mkdir('/run/core')
    process = program('Core dumps and debuggers', change=lambda text: change(text).replace(
        'os.abort()', "open('/proc/self/environ').read()\nopen('/proc/self/mem').close()"))
    assert process.wait(30) == (0 if readable else 1) and readable == ('PermissionError' not in said(process))


@machine('systemd-socket-activate', 'setpriv')
@pytest.mark.parametrize('through', [[], [PYTHON, '-I', '/opt/myd/capdrop.py', 'exec', '/opt/myd/myd.conf', '--']],
                         ids=['', 'through exec'])
@pytest.mark.parametrize('user', [[], ['setpriv', '--reuid', '33', '--regid', '33', '--clear-groups', '--']],
                         ids=['root', 'User='])
def test_socket_that_systemd_passes_is_served_without_a_capability(through, user):
    write('embedding.md', 'In a program')
    path, = write('embedding.md', 'Socket activation')
    process = start(['systemd-socket-activate', '-l', '127.0.0.1:80'] + user + through + [PYTHON, '-Es', path])
    assert greeting(80, process) == HELLO         # it becomes the program when somebody connects
    assert is_user('www-data')(process.pid) and not capdrop.state(process.pid).permitted
    assert capdrop.state(process.pid).no_new_privs
    assert user or is_clean('/opt/myd/myd.conf', process.pid)       # without root the bounding set stays


PURE = 'fspath strerror device_encoding get_terminal_size major minor makedev urandom cpu_count'.split()


def lies(told):
    """Put in the place of every function of os, and of those that wait or mask signals, one that does nothing, notes in
    `told` that it was called, and says that all is well; a function that puts them back."""
    before = [(os, name) for name, value in vars(os).items() if isinstance(value, types.BuiltinFunctionType) and
              name not in PURE and not name.startswith('W')]
    before += [(time, 'sleep'), (select, 'select'), (select, 'poll'), (signal, 'pthread_sigmask'), (signal, 'signal')]
    real = [(module, name, getattr(module, name)) for module, name in before]

    def lie(name):
        return lambda *args, **options: told.append(name)
    for module, name in before:
        setattr(module, name, lie(name))
    return lambda: [setattr(*one) for one in real]


@pytest.mark.parametrize('options', [
    {'user': 'www-data', 'capabilities': 'cap_net_bind_service+ep'}, {'user': 'www-data', 'chroot': '/usr'},
    {'user': 'root', 'capabilities': 'cap_chown+ep'}, {'user': 'root'}])
def test_what_a_program_has_put_in_the_place_of_the_functions_of_os_does_not_run_in_a_drop(options):
    need_root()
    need_accounts_of_debian()
    told, now = in_child(dropped_among_lies, options)
    assert told == []
    wanted = capdrop.Security(**options)
    assert set(now.uid) == {pwd.getpwnam(wanted.user).pw_uid}
    assert options == {'user': 'root'} or now.no_new_privs
    assert 'capabilities' not in options or str(now.permitted) == str(now.bounding) == options['capabilities'][:-3]


def dropped_among_lies(options):
    plan, told = capdrop.plan(capdrop.Security(**options)), []
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))       # a lie may well keep it in a loop, with signals blocked
    tell_the_truth = lies(told)
    try:
        capdrop.drop(plan)
    finally:
        tell_the_truth()
    return told, capdrop.state()


# ---------------------------------------------------------------------------- aiosmtpd

def send(sender, kind=smtplib.SMTP, port=25, process=None, **options):
    def connect():
        try:
            return kind('127.0.0.1', port, local_hostname='test.example', timeout=10, **options)
        except ConnectionRefusedError:
            return None
    with soon(connect, process) as client:
        client.sendmail(sender, ['b@mail.example'], 'Subject: test\r\n\r\nhello\r\n')


@machine('.aiosmtpd', 'openssl', 'pgrep')
def test_mail_server_opens_25_again_and_465_as_an_ordinary_user():
    trust = certificate('/opt/myd')
    trust.check_hostname = False                # smtplib checks the address it connects to
    write('embedding.md', 'A mail server')
    first, then = commands('embedding.md', 'A mail server')
    process = start(first[0])
    send('one@test.example', process=process)
    soon(lambda: is_user('mail')(process.pid), process)
    audited(then[1], [process.pid], 'a drop')
    send('two@test.example', smtplib.SMTP_SSL, 465, process, context=trust)
    before = listening(25, 465)
    assert len(before) == 2 and shell(then[0])[0] == 0
    soon(lambda: len(listening(25, 465) - before) == 2, process)
    send('three@test.example', process=process)
    send('four@test.example', smtplib.SMTP_SSL, 465, process, context=trust)
    assert re.findall(r'mail from (\w+)@test.example for b@', said(process)) == ['one', 'two', 'three', 'four']
    audited(then[1], [process.pid], 'a drop')
    now = capdrop.state(process.pid)
    assert set(now.uid) == {pwd.getpwnam('mail').pw_uid} and not now.groups and not now.ambient
    assert now.permitted == now.effective == now.bounding == BIND


def listening(*ports):
    """The sockets that listen on these ports: (inode, owner)."""
    with open('/proc/net/tcp') as file:
        rows = [line.split() for line in file][1:]
    return {(row[9], row[7]) for row in rows if row[3] == '0A' and int(row[1].split(':')[1], 16) in ports}


@machine('.aiosmtpd', 'openssl')
def test_mail_server_without_the_capability_cannot_open_its_port_again():
    certificate('/opt/myd')
    write('embedding.md', 'A mail server', lambda text: text.replace('cap_net_bind_service+ep', ''))
    process = start(commands('embedding.md', 'A mail server')[0][0])
    send('one@test.example', process=process)
    soon(lambda: is_user('mail')(process.pid), process)
    with open('/proc/sys/net/ipv4/ip_unprivileged_port_start') as file:
        assert int(file.read()) > 465           # or anybody could, and this test would be void
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 1 and 'PermissionError: [Errno 13]' in said(process)


@machine('.aiosmtpd')
def test_controller_started_after_the_drop_takes_mail_in_a_thread_that_holds_the_same():
    write('embedding.md', 'A mail server')
    process = start([PYTHON, '-Es', '/opt/myd/controller.py'])
    send('one@test.example', process=process)
    assert capdrop.state(process.pid).threads > 1 and is_clean('/opt/myd/mail.conf', process.pid)
    assert {owner for inode, owner in listening(25)} == {str(pwd.getpwnam('mail').pw_uid)}
    soon(lambda: 'Subject: test' in said(process), process)
    stop(process)


@machine('.aiosmtpd')
def test_controller_started_before_the_drop_is_refused_and_nothing_has_changed():
    write('embedding.md', 'A mail server', lambda text: text.replace(
        'capdrop.drop(', 'controller.start()\nbefore = capdrop.state()\ntry:\n    capdrop.drop(').replace(
        'controller.start()                              # as', """\
except capdrop.RefusedError as e:
    assert capdrop.state() == before and before.uid == (0,) * 4
    print('refused:', e, flush=True)
# as"""))
    process = start([PYTHON, '-Es', '/opt/myd/controller.py'])
    soon(lambda: 'refused:' in said(process), process)
    assert 'more than one thread' in said(process) and 'drop before starting threads' in said(process)
    send('one@test.example', process=process)   # it goes on, as root
    assert set(capdrop.state(process.pid).uid) == {0}
    stop(process)
