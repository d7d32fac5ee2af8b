"""systemd as process 1: the units of docs/systemd.md start, serve, reload, restart and stop.

Each row of the tables of that page is a unit too.  What runs there is Debian's Python,
whichever runs pytest.
"""
import itertools
import os
import re

import pytest

from conftest import BIND, need
from managers import (
    NUMBERS, Machine, answer, block, cells, changed, command_line, copy_capdrop, is_as_asked,
    named, needed, sets, soon, spans, status, write_blocks)

PAGE = 'systemd.md'
UNITS = '/etc/systemd/system/'
AS_ROOT, AS_USER = UNITS + 'web.service', UNITS + 'web-user.service'
BOTH = pytest.mark.parametrize('path', [AS_ROOT, AS_USER])
CONF, NGINX = '/opt/capdrop/web.conf', '/opt/capdrop/nginx.conf'
NUMBER = itertools.count(1)
NOBODY = 'Security { user = no-such-user }\n'
REFUSAL = 'there is no account "no-such-user"'


@pytest.fixture(scope='module')
def systemd():
    needed('systemd', 'systemctl', 'journalctl', 'nginx')
    init = '/lib/systemd/systemd', '--system', '--unit=basic.target', '--show-status=0'
    machine = Machine(*init)
    try:
        soon(lambda: has_started(machine))
        copy_capdrop(machine)
        write_blocks(machine, 'launching.md', '/opt/')
        machine.write('/opt/capdrop/refused.conf', NOBODY)
        yield machine
    finally:
        machine.end()


def has_started(machine):
    said = machine.run('systemctl', 'is-system-running').stdout.strip()
    return said in ('running', 'degraded')


def journal(machine, unit):
    command = 'journalctl', '--quiet', '--no-pager', '-o', 'cat', '-u', unit
    return machine.run(*command).stdout


class Service(object):
    """A unit of the page in a machine, and other files {path: text}; gone afterwards."""

    def __init__(self, machine, path, change=lambda text: text, **files):
        self.machine = machine
        self.unit = os.path.basename(path)
        self.files = dict(files)
        self.files[path] = change(block(PAGE, path))

    def __enter__(self):
        for path, text in self.files.items():
            self.machine.write(path, text)
        self.systemctl('daemon-reload')
        return self

    def __exit__(self, *error):
        self.machine.run('systemctl', 'stop', self.unit)
        self.machine.run('systemctl', 'reset-failed', self.unit)
        for path in self.files:
            os.unlink(self.machine.path(path))
        write_blocks(self.machine, 'launching.md', '/opt/')

    def try_to_start(self):
        return self.machine.run('systemctl', 'start', self.unit)

    def systemctl(self, verb, *more):
        done = self.machine.run('systemctl', verb, *more)
        assert done.returncode == 0, done.stderr + self.said()

    def start(self):
        self.systemctl('start', self.unit)

    def said(self):
        return journal(self.machine, self.unit)

    def show(self, name):
        command = 'systemctl', 'show', '--value', '-p', name, self.unit
        return self.machine.run(*command).stdout.strip()

    def members(self):
        """The processes of its cgroup, by their numbers in the machine."""
        path = '/sys/fs/cgroup/system.slice/%s/cgroup.procs' % self.unit
        return [int(pid) for pid in self.machine.run('cat', path).stdout.split()]

    def serves(self, *ports):
        """Wait until it does, and has its two workers."""
        for port in ports:
            soon(lambda: answer(self.machine.net, port) == 'hello\n', self.said)
        soon(lambda: len(self.members()) == 3, self.said)

    def audit(self, conf=CONF, kind='a launch'):
        """Audit the cgroup as the page does: no difference, and each process is told."""
        command = command_line(PAGE, 'python3 -I /opt/capdrop/capdrop.py audit --cgroup ')
        command = command.replace('web.service', self.unit).replace(CONF, conf)
        pids = self.members()
        done = self.machine.shell(command)
        assert (done.returncode, done.stdout) == (0, ''), done
        told = re.findall(r'^capdrop: process (\d+) .*: as %s leaves' % kind, done.stderr, re.M)
        assert sorted(map(int, told)) == sorted(pids), done.stderr
        return pids


def refused(text):
    """A unit with a stanza that names nobody."""
    return text.replace('web.conf', 'refused.conf')


# ---------------------------------------------------------------- the units

@BOTH
def test_service_starts_serves_reloads_and_stops(systemd, path):
    conf = block('launching.md', NGINX)
    with Service(systemd, path, **{NGINX: conf}) as service:
        service.start()
        service.serves(80)
        before = service.audit()
        for pid in before:
            is_www_data_with_one_capability(systemd.status(pid))
        assert os.stat(systemd.path('/run/web')).st_uid == 33
        systemd.write(NGINX, conf.replace('listen 80;', 'listen 80; listen 81;'))
        service.systemctl('reload', service.unit)
        master = {int(service.show('MainPID'))}
        soon(lambda: set(service.members()) & set(before) == master, service.said)
        service.serves(80, 81)
        service.audit()
        service.systemctl('stop', service.unit)
        assert service.members() == []
        assert service.show('Result') == 'success'
        assert 'warning' not in service.said()


def is_www_data_with_one_capability(now):
    assert now['Uid'] == now['Gid'] == '33 33 33 33'
    assert now['Groups'] in ('', '33')
    assert sets(now) == {BIND}
    assert now['NoNewPrivs'] == '1'


@BOTH
def test_service_is_started_again_after_a_crash(systemd, path):
    with Service(systemd, path) as service:
        service.start()
        service.serves(80)
        first = service.show('MainPID')
        service.systemctl('kill', '--kill-whom=main', '--signal=SEGV', service.unit)
        soon(lambda: service.show('MainPID') not in (first, '0'), service.said)
        assert service.show('NRestarts') == '1'
        service.serves(80)
        service.audit()


@BOTH
def test_refusal_fails_the_start_and_is_not_tried_again(systemd, path):
    with Service(systemd, path, refused) as service:
        before = service.said().count(REFUSAL)
        done = service.try_to_start()
        assert done.returncode == 1
        assert 'Job for %s failed' % service.unit in done.stderr
        assert service.said().count(REFUSAL) == before + 1
        assert service.show('ActiveState') == 'failed'
        assert service.show('NRestarts') == '0'


def test_without_the_check_the_start_succeeds_and_the_service_fails(systemd):
    def change(text):
        return re.sub('ExecStartPre=.*\n', '', refused(text))
    with Service(systemd, AS_ROOT, change) as service:
        service.start()
        soon(lambda: service.show('ActiveState') == 'failed')
        assert service.show('ExecMainStatus') == '125'
        assert service.show('NRestarts') == '0'


def test_restart_on_failure_tries_a_refused_check_again(systemd):
    """Why the page says to leave one of the two out."""
    def change(text):
        new = 'Restart=on-failure\nRestartPreventExitStatus=125'
        return refused(text).replace('Restart=on-abnormal', new)
    with Service(systemd, AS_ROOT, change) as service:
        assert service.try_to_start().returncode == 1
        soon(lambda: int(service.show('NRestarts')) > 0)


def test_without_user_the_directory_and_the_reload_are_those_of_root(systemd):
    """What `User=` is there for, beside the exclamation mark."""
    def change(text):
        text = re.sub(' -- .*\n.*', ' -- /bin/sleep 100', text)
        return text.replace('User=www-data\n', '')
    with Service(systemd, AS_ROOT, change) as service:
        service.start()
        pid = int(service.show('MainPID'))
        soon(lambda: systemd.status(pid)['Uid'] == '33 33 33 33')
        assert os.stat(systemd.path('/run/web')).st_uid == 0
        assert systemd.run('systemctl', 'reload', service.unit).returncode == 1
        assert 'Operation not permitted' in service.said()


@BOTH
def test_hardened_service_is_as_good(systemd, path):
    text = block(PAGE, UNITS + 'web.service.d/hardening.conf')
    with Service(systemd, path, **{path + '.d/hardening.conf': text}) as service:
        service.start()
        service.serves(80)
        service.audit()
        assert service.show('ProtectSystem') == 'strict'
        service.systemctl('reload', service.unit)
        service.serves(80)
        assert 'warning' not in service.said()


def need_gunicorn():
    need(os.path.exists('/usr/bin/gunicorn'), 'needs gunicorn')


def test_service_that_notifies(systemd):
    need_gunicorn()
    with Service(systemd, UNITS + 'wsgi.service') as service:
        service.start()                         # returns when gunicorn has said READY=1
        assert answer(systemd.net, 80) == 'hello\n'
        service.serves(80)
        service.audit()
        main = systemd.status(int(service.show('MainPID')))
        assert main['Name'] == 'gunicorn'


def test_service_that_would_notify_and_is_refused_fails_its_start(systemd):
    need_gunicorn()
    with Service(systemd, UNITS + 'wsgi.service', refused) as service:
        assert service.try_to_start().returncode == 1
        assert service.show('ExecMainStatus') == '125'
        assert service.show('NRestarts') == '0'


# ---------------------------------------------------------------- sockets

def with_socket(systemd, name, change=lambda text: text, **files):
    """A socket unit of the page, and the service that it starts."""
    files[UNITS + name] = change(block(PAGE, UNITS + name))
    socket = re.sub('@?.service', '.socket', name)
    return Service(systemd, UNITS + socket, **files)


def test_socket_activation_serves_a_low_port_without_a_capability(systemd):
    write_blocks(systemd, 'embedding.md', '/opt/myd/')
    copy_capdrop(systemd, '/opt/myd')
    with with_socket(systemd, 'hello.service') as socket:
        socket.start()
        assert answer(systemd.net, 79) == 'hello\n'
        service = Service(systemd, UNITS + 'hello.service')
        pid, = service.audit('/opt/myd/myd.conf', 'a drop or launch')
        assert pid == int(service.show('MainPID'))
        now = systemd.status(pid)
        assert now['Uid'] == '33 33 33 33'
        assert sets(now) == {0}
        systemd.run('systemctl', 'stop', 'hello.socket', 'hello.service')


@pytest.mark.parametrize('stanza, peer', [(None, 'ping'), (NOBODY, '')])
def test_refusal_is_not_told_to_the_peer(systemd, stanza, peer):
    conf = stanza or block(PAGE, '/opt/capdrop/echo.conf')
    files = {'/opt/capdrop/echo.conf': conf}
    with with_socket(systemd, 'echo@.service', **files) as socket:
        socket.start()
        assert answer(systemd.net, 7, 'ping') == peer
        if stanza:
            soon(lambda: REFUSAL in journal(systemd, 'echo@*'))


def test_refusal_would_be_told_to_the_peer_without_standard_error(systemd):
    def change(text):
        return text.replace('StandardError=journal\n', '')
    files = {'/opt/capdrop/echo.conf': NOBODY}
    with with_socket(systemd, 'echo@.service', change, **files) as socket:
        socket.start()
        assert REFUSAL in answer(systemd.net, 7, 'ping')


# ---------------------------------------------------------------- the tables

HEADINGS = {AS_ROOT: 'What a unit may say: started as root',
            AS_USER: 'What a unit may say: started as the user'}


def rows():
    for path, heading in HEADINGS.items():
        for row in cells(PAGE, heading):
            title = '%s: %s' % (os.path.basename(path), row[0])
            yield pytest.param(path, row, id=title)


ROWS = list(rows())


class Row(object):
    """A unit of the page with some settings; its command shows its own /proc/self/status."""

    def __init__(self, machine, path, settings, check=True):
        self.machine = machine
        self.name = 'row-%d' % next(NUMBER)
        self.output = '/run/rows/%s/' % self.name
        os.makedirs(machine.path(self.output))
        self.started_as = '0'
        if path == AS_USER:
            self.started_as = '33'
        self.write_stanza([one for one in settings if one[0].islower()])
        lines = [one for one in settings if one[0].isupper()]
        if not check:
            lines.append('ExecStartPre')
        self.write_unit(block(PAGE, path), lines)
        self.done = machine.run('systemctl', 'start', self.name)

    def write_stanza(self, lines):
        stanza = block('launching.md', CONF)
        self.stanza = changed(stanza, lines, r' *(\w+) = ', '}')
        self.conf = '/opt/capdrop/%s.conf' % self.name
        self.machine.write(self.conf, self.stanza)

    def write_unit(self, text, lines):
        text = text.replace('\\\n', '').replace(CONF, self.conf)
        text = re.sub(' -- .*', ' -- /bin/cat /proc/self/status', text)
        lines = lines + ['Type=oneshot', 'Restart=no', 'RuntimeDirectory=' + self.name]
        lines.append('StandardOutput=truncate:%sout' % self.output)
        lines.append('StandardError=append:%serr' % self.output)
        unit = changed(text, lines, r'(\w+)=', '[Install]')
        self.machine.write(UNITS + self.name + '.service', unit)

    def said(self):
        return self.machine.read(self.output + 'err')

    def status(self):
        """The exit status of what failed, or that of a filter that has killed it."""
        text = journal(self.machine, self.name)
        return re.findall(r'status=(\d+/SYS|\d+)', text)[-1:]

    def works(self, warned=()):
        assert self.done.returncode == 0, self.said() + journal(self.machine, self.name)
        now = status(self.machine.read(self.output + 'out'))
        started_as = self.started_as
        if not named(self.stanza, 'user'):      # DynamicUser=
            started_as = now['Uid'].split()[0]
            assert started_as not in NUMBERS.values()
        is_as_asked(now, self.stanza, started_as, started_as, warned)
        assert bool(warned) == bool(self.said()), self.said()
        self.has_said(warned)

    def is_refused(self, words):
        assert self.done.returncode == 1
        assert self.status() == ['125'], self.said()
        for line in self.said().splitlines():
            assert line.startswith('capdrop: ')
        self.has_said(words)

    def has_said(self, words):
        missing = [word for word in words if word not in self.said()]
        assert not missing, (missing, self.said())


@pytest.fixture(scope='module')
def jail(systemd):
    """A root directory with a static cat, and /proc to look at."""
    need(os.path.exists('/bin/busybox'), 'needs busybox-static')
    done = systemd.shell('install -d /opt/jail/bin /opt/jail/proc && '
                         'install /bin/busybox /opt/jail/bin/cat && '
                         'mount --bind /proc /opt/jail/proc')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('path, row', ROWS)
def test_setting_does_what_the_table_says(systemd, jail, path, row):
    setting, then, instead = row
    settings, words = spans(setting), spans(then)
    first = Row(systemd, path, settings)
    if then.startswith('works, with a warning'):
        first.works(words)
    elif then.startswith('works'):
        first.works()
    elif then == 'killed':
        assert first.status() == ['31/SYS']
    else:
        assert then.startswith('refused')
        first.is_refused(words)                 # by plan, and by exec
        Row(systemd, path, settings, check=False).is_refused(words)
    if spans(instead):
        Row(systemd, path, spans(instead)).works()


def test_tables_are_long_enough():
    assert len(ROWS) >= 40
