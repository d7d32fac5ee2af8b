"""systemd as process 1: the units of docs/systemd.md start, serve, reload, restart and stop; each row of its tables.

What runs there is Debian's Python, whichever runs pytest.
"""
import itertools
import os
import re
import signal

import pytest

from managers import Machine, answer, block, cells, changed, copy_capdrop, needed, page, soon, spans, state_of, write_blocks
from conftest import need

BIND = '%016x' % (1 << 10)
NUMBER = itertools.count(1)
PAGE = 'systemd.md'
AS_ROOT, AS_USER = '/etc/systemd/system/web.service', '/etc/systemd/system/web-user.service'


@pytest.fixture(scope='module')
def systemd():
    needed('systemd', 'systemctl', 'journalctl', 'nginx')
    machine = Machine('/lib/systemd/systemd', '--system', '--unit=basic.target', '--show-status=0')
    try:
        soon(lambda: machine.run('systemctl', 'is-system-running').stdout in ('running\n', 'degraded\n'))
        copy_capdrop(machine)
        write_blocks(machine, 'launching.md', '/opt/')
        write_blocks(machine, PAGE, '/opt/')
        yield machine
    finally:
        machine.end()


def show(machine, unit, name):
    return machine.run('systemctl', 'show', '--value', '-p', name, unit).stdout.strip()


def journal(machine, unit):
    return machine.run('journalctl', '--quiet', '--no-pager', '-o', 'cat', '-u', unit).stdout


def members(machine, unit):
    """The processes of a unit's cgroup, by their numbers in the machine."""
    found = machine.run('cat', '/sys/fs/cgroup/system.slice/%s/cgroup.procs' % unit).stdout.split()
    return [int(pid) for pid in found]


class Service(object):
    """A unit of the page in a machine, and other files; gone afterwards."""

    def __init__(self, machine, path, change=lambda text: text, **others):
        self.machine, self.unit = machine, os.path.basename(path)
        self.files = dict(others, **{path: change(block(PAGE, path))})

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

    def systemctl(self, verb, *more):
        done = self.machine.run('systemctl', verb, *more)
        assert done.returncode == 0, (done.stderr, [journal(self.machine, unit) for unit in more])

    def start(self):
        self.systemctl('start', self.unit)
        return self

    def show(self, name):
        return show(self.machine, self.unit, name)

    def serves(self, port, text='hello\n'):
        soon(lambda: answer(self.machine, port) == text, lambda: journal(self.machine, self.unit))
        return True


def audit(service, conf='/opt/capdrop/web.conf', kind='a launch'):
    """Audit the whole cgroup with the command of the page: no difference, and every process is told."""
    command = [one for one in page(PAGE) if ' audit --cgroup ' in one.text][0].text
    command = command.replace('web.service', service.unit).replace('/opt/capdrop/web.conf', conf)
    pids = members(service.machine, service.unit)
    done = service.machine.shell(command)
    assert (done.returncode, done.stdout) == (0, ''), (done.stdout, done.stderr)
    told = re.findall(r'^capdrop: process (\d+) .*: as %s leaves it' % kind, done.stderr, re.M)
    assert sorted(map(int, told)) == sorted(pids), done.stderr
    return pids


# ---------------------------------------------------------------------------- the units

@pytest.mark.parametrize('path', [AS_ROOT, AS_USER])
def test_service_starts_serves_reloads_and_stops(systemd, path):
    conf = block('launching.md', '/opt/capdrop/nginx.conf')
    with Service(systemd, path, **{'/opt/capdrop/nginx.conf': conf}) as service:
        service.start()
        assert service.serves(80)
        soon(lambda: len(members(systemd, service.unit)) == 3)
        before = audit(service)
        for pid in before:
            now = state_of(systemd, pid)
            assert now['Uid'] == now['Gid'] == '33 33 33 33' and now['Groups'] in ('', '33')
            assert {now['Cap' + name] for name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')} == {BIND}
            assert now['NoNewPrivs'] == '1'
        assert os.stat(systemd.path('/run/web')).st_uid == 33
        systemd.write('/opt/capdrop/nginx.conf', conf.replace('listen 80;', 'listen 80; listen 81;'))
        service.systemctl('reload', service.unit)
        assert service.serves(81) and service.serves(80)
        soon(lambda: len(members(systemd, service.unit)) == 3 and set(members(systemd, service.unit)) & set(before) ==
             {int(service.show('MainPID'))})
        audit(service)
        service.systemctl('stop', service.unit)
        assert members(systemd, service.unit) == [] and service.show('Result') == 'success'
        assert 'warning' not in journal(systemd, service.unit)


@pytest.mark.parametrize('path', [AS_ROOT, AS_USER])
def test_service_is_started_again_after_a_crash(systemd, path):
    with Service(systemd, path) as service:
        service.start()
        assert service.serves(80)
        first = service.show('MainPID')
        service.systemctl('kill', '--kill-whom=main', '--signal=SEGV', service.unit)
        soon(lambda: service.show('MainPID') not in (first, '0') and service.show('NRestarts') == '1')
        assert service.serves(80)
        soon(lambda: len(members(systemd, service.unit)) == 3)
        audit(service)


@pytest.mark.parametrize('path', [AS_ROOT, AS_USER])
def test_refusal_fails_the_start_and_is_not_tried_again(systemd, path):
    with Service(systemd, path, lambda text: text.replace('web.conf', 'refused.conf')) as service:
        systemd.write('/opt/capdrop/refused.conf', 'Security { user = no-such-user }\n')
        done = systemd.run('systemctl', 'start', service.unit)
        assert done.returncode == 1 and 'Job for %s failed' % service.unit in done.stderr
        assert journal(systemd, service.unit).count('there is no account or group "no-such-user"') == 1
        assert (service.show('ActiveState'), service.show('NRestarts')) == ('failed', '0')


def test_without_the_check_before_the_start_succeeds_and_the_service_fails(systemd):
    with Service(systemd, AS_ROOT, lambda text: re.sub('ExecStartPre=.*\n', '', text).replace(
            'web.conf', 'refused.conf')) as service:
        systemd.write('/opt/capdrop/refused.conf', 'Security { user = no-such-user }\n')
        service.start()
        soon(lambda: service.show('ActiveState') == 'failed')
        assert (service.show('ExecMainStatus'), service.show('NRestarts')) == ('125', '0')


def test_restart_on_failure_tries_a_refused_check_again(systemd):
    """Why the page says to leave one of the two out: RestartPreventExitStatus= does not heed ExecStartPre."""
    with Service(systemd, AS_ROOT, lambda text: text.replace('web.conf', 'refused.conf').replace(
            'Restart=on-abnormal', 'Restart=on-failure\nRestartPreventExitStatus=125')) as service:
        systemd.write('/opt/capdrop/refused.conf', 'Security { user = no-such-user }\n')
        assert systemd.run('systemctl', 'start', service.unit).returncode == 1
        soon(lambda: int(service.show('NRestarts')) > 0)


@pytest.mark.parametrize('path', [AS_ROOT, AS_USER])
def test_hardened_service_is_as_good(systemd, path):
    hardening = '/etc/systemd/system/web.service.d/hardening.conf'
    where = hardening.replace('web.service', os.path.basename(path))
    with Service(systemd, path, **{where: block(PAGE, hardening)}) as service:
        service.start()
        assert service.serves(80)
        soon(lambda: len(members(systemd, service.unit)) == 3)
        audit(service)
        assert 'warning' not in journal(systemd, service.unit)
        service.systemctl('reload', service.unit)
        assert service.serves(80)


def test_service_that_notifies(systemd):
    need(os.path.exists('/usr/bin/gunicorn'), 'needs gunicorn')
    with Service(systemd, '/etc/systemd/system/wsgi.service') as service:
        service.start()                         # which returns when gunicorn has said READY=1
        assert answer(systemd, 80) == 'hello\n'
        soon(lambda: len(members(systemd, service.unit)) == 3)
        audit(service)
        assert 'gunicorn' in state_of(systemd, int(service.show('MainPID')))['Name']


def test_service_that_would_notify_and_is_refused_fails_its_start(systemd):
    need(os.path.exists('/usr/bin/gunicorn'), 'needs gunicorn')
    with Service(systemd, '/etc/systemd/system/wsgi.service', lambda text: text.replace(
            'web.conf', 'refused.conf')) as service:
        systemd.write('/opt/capdrop/refused.conf', 'Security { user = no-such-user }\n')
        assert systemd.run('systemctl', 'start', service.unit).returncode == 1
        assert (service.show('ExecMainStatus'), service.show('NRestarts')) == ('125', '0')


def test_socket_activation_serves_a_low_port_without_a_capability(systemd):
    write_blocks(systemd, 'embedding.md', '/opt/myd/')
    copy_capdrop(systemd, '/opt/myd')
    path = '/etc/systemd/system/hello.socket'
    with Service(systemd, path, **{path[:-6] + 'service': block(PAGE, path[:-6] + 'service')}) as service:
        service.start()
        assert answer(systemd, 79) == 'hello\n'
        service.unit = 'hello.service'
        now = state_of(systemd, int(service.show('MainPID')))
        assert now['Uid'] == '33 33 33 33' and now['NoNewPrivs'] == '1'
        assert {now['Cap' + name] for name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')} == {'0' * 16}
        audit(service, '/opt/myd/myd.conf', 'a drop or launch')
        service.systemctl('stop', 'hello.socket')


@pytest.mark.parametrize('change, peer', [
    (('user = www-data', 'user = www-data'), 'ping'), (('user = www-data', 'user = no-such-user'), '')])
def test_refusal_is_not_told_to_the_peer(systemd, change, peer):
    path = '/etc/systemd/system/echo.socket'
    files = {'/etc/systemd/system/echo@.service': block(PAGE, '/etc/systemd/system/echo@.service'),
             '/opt/capdrop/echo.conf': block(PAGE, '/opt/capdrop/echo.conf').replace(*change)}
    with Service(systemd, path, **files) as service:
        service.start()
        assert answer(systemd, 7, 'ping') == peer
        if not peer:
            soon(lambda: 'there is no account or group "no-such-user"' in journal(systemd, 'echo@*'))


def test_refusal_would_be_told_to_the_peer_without_standard_error(systemd):
    path = '/etc/systemd/system/echo.socket'
    files = {'/etc/systemd/system/echo@.service': block(PAGE, '/etc/systemd/system/echo@.service').replace(
                 'StandardError=journal\n', ''),
             '/opt/capdrop/echo.conf': 'Security { user = no-such-user }\n'}
    with Service(systemd, path, **files) as service:
        service.start()
        assert 'no-such-user' in answer(systemd, 7, 'ping')


# ---------------------------------------------------------------------------- the tables

HEADINGS = {'What a unit may say: started as root': AS_ROOT, 'What a unit may say: started as the user': AS_USER}
ROWS = [pytest.param(path, row, id='%s: %s' % (path.split('/')[-1], row[0]))
        for heading, path in HEADINGS.items() for row in cells(PAGE, heading)]


class Row(object):
    """One unit made of a row: its command shows its own /proc/self/status."""

    def __init__(self, machine, path, settings, check=True):
        self.machine, self.name = machine, 'row-%d' % next(NUMBER)
        self.output = '/run/rows/%s/' % self.name
        os.makedirs(machine.path(self.output))
        conf = '/opt/capdrop/%s.conf' % self.name
        stanza = [one for one in settings if one[0].islower()]
        self.stanza = changed(block('launching.md', '/opt/capdrop/web.conf'), stanza, r' *(\w+) = ', '}')
        machine.write(conf, self.stanza)
        text = block(PAGE, path).replace('\\\n', '').replace('/opt/capdrop/web.conf', conf).replace('Type=exec', 'Type=oneshot')
        text = re.sub(' -- .*', ' -- /bin/cat /proc/self/status', text)
        lines = [one for one in settings if one[0].isupper()] + ([] if check else ['ExecStartPre'])
        lines += ['RuntimeDirectory=' + self.name, 'Restart=no', 'StandardOutput=truncate:%sout' % self.output,
                  'StandardError=append:%serr' % self.output]
        text = changed(text, lines, r'(\w+)=', '[Install]')
        machine.write('/etc/systemd/system/%s.service' % self.name, text)
        self.done = machine.run('systemctl', 'start', self.name)

    def said(self):
        return self.machine.read(self.output + 'err')

    def status(self):
        """The exit status of what failed, or 'SYS' where a filter has killed it."""
        text = journal(self.machine, self.name)
        return (re.findall(r'status=(\d+/SYS|\d+)', text) or [''])[-1]

    def is_as_asked(self, less=()):
        assert self.done.returncode == 0, (self.done.stderr, self.said(), journal(self.machine, self.name))
        now = dict(line.split(':', 1) for line in self.machine.read(self.output + 'out').splitlines())
        asked = '' if 'capabilities = ""' in self.stanza else BIND
        for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb', 'CapBnd'):
            if name not in less:
                assert now[name].strip() == (asked or '0' * 16), name
        uid, gid = [number_of(kind, self.stanza) for kind in ('user', 'group')]
        assert uid is None or now['Uid'].split() == [uid] * 4
        assert uid is None or now['Gid'].split() == [gid or uid] * 4
        if 'Groups' not in less:
            named = number_of('supplemental_groups', self.stanza)
            assert set(now['Groups'].split()) - set(now['Gid'].split()) == ({named} if named else set())
        assert now['NoNewPrivs'].strip() == '1' and '0' not in now['Uid'].split()


NUMBERS = {'www-data': '33', 'daemon': '1', 'adm': '4'}


def number_of(option, stanza):
    found = re.search(r'^ *%s = (\S+)' % option, stanza, re.M)
    return NUMBERS[found.group(1)] if found else None


@pytest.fixture(scope='module')
def jail(systemd):
    """A root directory with a static cat, and /proc to look at."""
    need(os.path.exists('/bin/busybox'), 'needs busybox-static')
    done = systemd.shell('install -d /opt/jail/bin /opt/jail/proc && install /bin/busybox /opt/jail/bin/cat && '
                         'mount --bind /proc /opt/jail/proc')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('path, row', ROWS)
def test_setting_does_what_the_table_says(systemd, jail, path, row):
    settings, then, instead = row
    is_what_it_says(systemd, path, spans(settings), then)
    if spans(instead):
        is_what_it_says(systemd, path, spans(instead), 'works')


def is_what_it_says(systemd, path, settings, then):
    row = Row(systemd, path, settings)
    if then.startswith('works'):
        warned = spans(then) if 'with a warning' in then else []
        row.is_as_asked([{'bounding set': 'CapBnd', 'groups': 'Groups'}.get(word) for word in warned])
        assert bool(warned) == bool(row.said()), row.said()
        assert all(word in row.said() for word in warned), row.said()
    elif then == 'killed':
        assert row.done.returncode == 1 and row.status() == '31/SYS'
    else:
        assert then.startswith('refused')
        for one in row, Row(systemd, path, settings, check=False):      # refused by plan, and by exec
            assert one.done.returncode == 1 and one.status() == '125', (one.status(), one.said())
            missing = [word for word in spans(then) if word not in one.said()]
            assert not missing, (missing, one.said())
            assert all(line.startswith('capdrop: ') for line in one.said().splitlines())


def test_tables_are_long_enough():
    assert len(ROWS) >= 40
