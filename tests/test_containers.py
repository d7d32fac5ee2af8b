"""A real OCI runtime: the images and manifests of docs/containers.md, and each row of its tables, run by runc.

What runs there is Debian's Python, whichever runs pytest.  No image is pulled: each is made of this machine's files.
"""
import copy
import itertools
import json
import os
import pwd
import re
import shlex
import subprocess
import sys

import pytest

from conftest import TOP, need, run_command
from managers import (PYTHON, SCRIPT, Machine, answer, block, cells, changed, copy_capdrop, needed, page, read_page, soon,
                      spans, write_blocks)

PAGE = 'containers.md'
DOCKER = ('CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD '
          'AUDIT_WRITE SETFCAP').split()            # what Docker and containerd give a container by default
# what Docker's profile holds back from a container without CAP_SYS_ADMIN, of all that this kernel's calls do
HELD_BACK = ('acct add_key bpf clone3 fanotify_init fsconfig fsmount fsopen fspick get_mempolicy init_module '
             'io_uring_enter io_uring_register io_uring_setup kcmp kexec_load keyctl mbind mount mount_setattr move_mount '
             'open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise quotactl reboot '
             'request_key set_mempolicy setdomainname sethostname setns settimeofday swapon syslog umount2 unshare '
             'userfaultfd vhangup').split()
BIND = '%016x' % (1 << 10)
NUMBER = itertools.count(1)
PORT_80_IS_PRIVILEGED = {'net.ipv4.ip_unprivileged_port_start': '1024'}
STATUS = ['/bin/cat', '/proc/self/status']


@pytest.fixture(scope='module')
def host():
    """A machine in which runc runs containers."""
    needed('runc', 'nginx')
    machine = Machine('/bin/sleep', 'infinity')
    try:
        done = machine.run('runc', 'spec', '--bundle', '/run')
        assert done.returncode == 0, done.stderr
        machine.images = {}
        copy_capdrop(machine)
        write_blocks(machine, 'launching.md', '/opt/')
        yield machine
    finally:
        machine.end()


# ---------------------------------------------------------------------------- images

class Image(object):
    """What a Dockerfile of the page makes: directories to lay over each other, and what a container starts with."""

    def __init__(self, machine, name, change):
        text = change(block(PAGE, name)).replace('\\\n', ' ')
        self.place = '/run/image-%d' % len(machine.images)
        self.entry, self.command, self.health = [
            [word for line in re.findall(r'^%s (\[.*\])$' % kind, text, re.M) for word in json.loads(line)]
            for kind in ('ENTRYPOINT', 'CMD', 'HEALTHCHECK CMD')]
        os.mkdir(machine.path(self.place))
        os.chmod(machine.path(self.place), 0o755)
        self.mounts, self.lower = [], self.place + ':/run/here'
        if 'distroless' in text:
            self.make_distroless(machine)
        else:
            for directory, mode in ('opt', 0o755), ('run', 0o755), ('tmp', 0o1777):     # as they are in an image
                path = machine.path('%s/%s' % (self.place, directory))
                os.mkdir(path)
                os.chmod(path, mode)
                os.setxattr(path, 'trusted.overlay.opaque', b'y')
        if 'alpine' in text:
            self.make_alpine(machine)
        for options, names, into in re.findall(r'^COPY((?: --\S+)*) (.*) (/\S+)$', text, re.M):
            for file in names.split():
                self.copy(machine, into + file, options)
        for line in re.findall(r'^RUN (.*)$', text, re.M):
            if 'apt-get' in line or 'apk' in line:      # the packages are those of this machine
                assert not re.search('cap', line), line
            else:
                self.run(machine, line)

    def copy(self, machine, path, options):
        if path.endswith('/capdrop.py'):
            with open(SCRIPT, encoding='utf-8') as file:
                text = file.read()
        else:
            text = block(PAGE if path.startswith('/opt/web/') else 'launching.md', path)
        machine.write(self.place + path, text)
        for name, value in re.findall(r'--(chown|chmod)=(\S+)', options):
            done = machine.run(name, value, self.place + path)
            assert done.returncode == 0, done.stderr

    def run(self, machine, line):
        script = 'mkdir /run/w /run/r; mount -t overlay overlay -o lowerdir=/run/here,upperdir=%s,workdir=/run/w /run/r && chroot ' \
            '/run/r /bin/sh -ec %s; status=$?; umount /run/r; rm -r /run/w /run/r; exit $status'
        done = machine.shell(script % (self.place, shlex.quote(line)))
        assert done.returncode == 0, (line, done.stderr)

    def make_alpine(self, machine):
        """No libcap, and the account that the package of nginx makes there."""
        self.run(machine, 'rm /usr/lib/*/libcap.so*; echo nginx:x:100:101::/:/sbin/nologin >> /etc/passwd; '
                          'echo nginx:x:101: >> /etc/group')

    def make_distroless(self, machine):
        """Python and what it is linked with, and three accounts; nothing else."""
        self.lower = self.place
        real = os.path.realpath(PYTHON)
        library = '/usr/lib/' + os.path.basename(real)
        listed = machine.shell('ldd %s %s/lib-dynload/*.so' % (real, library)).stdout
        for file in sorted(set(re.findall(r'(/\S+) \(0x', listed))) + [real]:
            os.makedirs(os.path.dirname(machine.path(self.place + file)), exist_ok=True)
            machine.run('cp', '-L', file, self.place + file)
        os.symlink(os.path.basename(real), machine.path(self.place + PYTHON))
        machine.write(self.place + '/etc/passwd', 'root:x:0:0::/root:/none\nnonroot:x:65532:65532::/:/none\n')
        machine.write(self.place + '/etc/group', 'root:x:0:\nnonroot:x:65532:\n')
        os.makedirs(machine.path(self.place + library))
        self.mounts.append({'destination': library, 'type': 'none', 'source': library, 'options': ['rbind', 'ro']})
        assert 'libcap' not in listed


def image(machine, name='Dockerfile', change=lambda text: text):
    key = name, change(block(PAGE, name))
    if key not in machine.images:
        machine.images[key] = Image(machine, name, change)
    return machine.images[key]


# ---------------------------------------------------------------------------- containers

class Container(object):
    """A container of an image: docker's defaults, changed by what is given."""

    def __init__(self, machine, image, command=None, entry=None):
        self.machine, self.image, self.name = machine, image, 'container-%d' % next(NUMBER)
        self.place = '/run/' + self.name
        self.caps, self.uid, self.gid, self.groups = list(DOCKER), 0, 0, []
        self.no_new_privs, self.read_only, self.user_namespace = False, False, False
        self.held_back, self.sysctls, self.mounts = list(HELD_BACK), {'net.ipv4.ip_unprivileged_port_start': '0'}, []
        self.command = (image.entry if entry is None else entry) + (image.command if command is None else command)
        self.process = None
        done = machine.shell('cd /run && mkdir -p -m 755 %s && cd %s && mkdir up work root && chmod 755 up && mount -t overlay '
                             'overlay -o lowerdir=%s,upperdir=up,workdir=work root' % (self.place, self.place, image.lower))
        assert done.returncode == 0, done.stderr

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.machine.shell('runc --root /run/runc delete --force %s; umount %s/root' % (self.name, self.place))
        if self.process:
            self.process.wait()

    def path(self, path):
        return self.place + '/root' + path

    def stanza(self, lines, path='/opt/capdrop/web.conf'):
        """Change lines of the stanza, whoever owns its file."""
        with open(self.machine.path(self.path(path)), 'r+') as file:
            self.text = changed(file.read(), lines, r' *(\w+) = ', '}')
            file.seek(0)
            file.write(self.text)
            file.truncate()

    def config(self):
        config = json.loads(self.machine.read('/run/config.json'))
        names = ['CAP_' + name for name in self.caps]
        config['process'] = {
            'terminal': False, 'args': self.command, 'cwd': '/', 'noNewPrivileges': self.no_new_privs,
            'user': {'uid': self.uid, 'gid': self.gid, 'additionalGids': self.groups},
            'env': ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
            'capabilities': {kind: names for kind in ('bounding', 'permitted', 'effective')}}
        config['root'] = {'path': self.path(''), 'readonly': self.read_only}
        linux = config['linux']
        linux.pop('resources', None)
        linux['sysctl'] = self.sysctls
        if self.user_namespace:
            linux['namespaces'].append({'type': 'user'})
            linux['uidMappings'] = linux['gidMappings'] = [{'containerID': 0, 'hostID': 100000, 'size': 65536}]
        if self.held_back:
            linux['seccomp'] = {'defaultAction': 'SCMP_ACT_ALLOW', 'syscalls': [
                {'names': [name], 'action': 'SCMP_ACT_ERRNO', 'errnoRet': 38 if name == 'clone3' else 1}
                for name in self.held_back]}
        config['mounts'] = [one for one in config['mounts'] if one['type'] not in ('cgroup', 'mqueue', 'sysfs')]
        config['mounts'] += self.image.mounts + self.mounts
        return config

    def prepare(self):
        if self.user_namespace:
            self.shift()
        self.machine.write(self.place + '/config.json', json.dumps(self.config()))
        return ['runc', '--root', '/run/runc', 'run', '--bundle', self.place, self.name]

    def shift(self):
        """The image's files belong to the ids of the user namespace, as its runtime sees to."""
        layer = self.machine.path(self.image.place)
        for directory, _, files in os.walk(layer):
            for name in [''] + files:
                path = self.machine.path(self.path(directory[len(layer):] + '/' + name))
                owner = os.lstat(path)
                os.lchown(path, owner.st_uid + 100000, owner.st_gid + 100000)

    def run(self):
        return self.machine.run(*self.prepare())

    def start(self):
        with open(self.machine.path(self.place + '/said'), 'w') as said:
            self.process = subprocess.Popen(self.machine.command(*self.prepare()), stdin=subprocess.DEVNULL, stdout=said,
                                            stderr=said)
        soon(lambda: self.state().get('status') == 'running', self.said)
        return self

    def said(self):
        return self.machine.read(self.place + '/said')

    def inside(self, *command):
        """As docker exec and a probe run it: with the container's own user and capabilities."""
        return self.machine.run('runc', '--root', '/run/runc', 'exec', self.name, *command)

    def state(self):
        done = self.machine.run('runc', '--root', '/run/runc', 'state', self.name)
        return json.loads(done.stdout or '{}')

    def members(self):
        """The processes of the container, by the numbers that its host sees."""
        done = self.machine.run('runc', '--root', '/run/runc', 'ps', '--format', 'json', self.name)
        return json.loads(done.stdout or '[]') or []

    def serves(self, port):
        enter = ['nsenter', '-t', str(self.state()['pid']), '-n']
        soon(lambda: answer(self.machine, port, enter=self.machine.command(*enter)) == 'hello\n', self.said)

    def ends(self):
        """With TERM to process 1, at once, as docker stop asks for it."""
        done = self.machine.run('runc', '--root', '/run/runc', 'kill', self.name, 'TERM')
        assert done.returncode == 0, done.stderr
        assert self.process.wait(20) == 0, self.said()

    def status(self, pid):
        lines = self.machine.run('cat', '/proc/%d/status' % pid).stdout.splitlines()
        return {name: ' '.join(rest.split()) for name, rest in (line.split(':', 1) for line in lines)}


def docker(container, options):
    """`docker run OPTIONS`"""
    words = [word for option in options for word in shlex.split(option)]
    lost, added = [], []
    while words:
        word = words.pop(0)
        if word == '--cap-drop':
            lost.append(words.pop(0))
        elif word == '--cap-add':
            added.append(words.pop(0))
        elif word == '--user':
            container.uid, container.gid = map(int, words.pop(0).split(':'))
        elif word == '--group-add':
            container.groups.append(int(words.pop(0)))
        elif word == '--sysctl':
            container.sysctls.update([words.pop(0).split('=')])
        elif word == '--security-opt':
            security(container, words.pop(0))
        elif word == '--read-only':
            container.read_only = True
        elif word == '--userns-remap':
            container.user_namespace = True
        elif word == '--privileged':
            container.held_back, lost, added = [], ['ALL'], everything()
        elif word == '--init':
            container.command = ['/bin/sh', '-c', '"$@"; exit', 'init'] + container.command
        elif word == '--tmpfs':
            place, options = words.pop(0).split(':')
            container.mounts.append({'destination': place, 'type': 'tmpfs', 'source': 'tmpfs', 'options': options.split(',')})
        else:
            assert word == '--publish' and words.pop(0), word
    container.caps = [name for name in container.caps if name not in lost and 'ALL' not in lost] + added


def security(container, option):
    if option == 'no-new-privileges':
        container.no_new_privs = True
    elif option == 'seccomp=unconfined':
        container.held_back = []
    else:
        container.held_back = HELD_BACK + [re.match(r'seccomp=without-(\w+)\.json$', option).group(1)]


def everything():
    """Every capability that can be given here."""
    with open('/proc/self/status') as file:
        bound = int(re.search(r'^CapBnd:\s*(\w+)', file.read(), re.M).group(1), 16)
    import capdrop
    return [str(capdrop.CapSet(1 << n))[4:].upper() for n in range(64) if bound >> n & 1]


# ---------------------------------------------------------------------------- docker

@pytest.mark.parametrize('name', ['Dockerfile', 'Dockerfile.alpine', 'Dockerfile.distroless'])
def test_image_serves_port_80_as_an_ordinary_user(host, name):
    with Container(host, image(host, name)) as container:
        container.sysctls = PORT_80_IS_PRIVILEGED
        container.start()
        container.serves(80)
        assert 'capdrop:' not in container.said()
        for pid in container.members():
            now = container.status(pid)
            assert now['Uid'] == {'Dockerfile': '33 33 33 33', 'Dockerfile.alpine': '100 100 100 100'}.get(
                name, '65532 65532 65532 65532')
            assert {now['Cap' + kind] for kind in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')} == {BIND}
            assert now['NoNewPrivs'] == '1' and now['Groups'] == ''
        container.ends()


def options_of_the_page():
    text = [one.text for one in page(PAGE) if one.text.startswith('docker run ')][0]
    return shlex.split(text.replace('\\\n', ''))[2:-1]


@pytest.mark.parametrize('sysctls', [PORT_80_IS_PRIVILEGED, {}], ids=['by the capability', 'as docker sets it'])
def test_least_of_docker_is_enough(host, sysctls):
    with Container(host, image(host)) as container:
        docker(container, [' '.join(map(shlex.quote, options_of_the_page()))])
        assert len(container.caps) == 4 and container.read_only and container.no_new_privs
        container.sysctls.update(sysctls)
        container.start()
        container.serves(80)
        assert container.said() == ''
        done = container.inside(*container.image.health)
        assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
        container.ends()


def test_health_check_finds_a_process_that_is_not_what_the_stanza_says(host):
    with Container(host, image(host), entry=[]) as container:
        container.command = ['/bin/sleep', '100']
        container.start()
        soon(lambda: container.members())
        done = container.inside(*container.image.health)
        assert done.returncode in (1, 125), done.stderr         # a process of root cannot even be looked into


def test_audit_in_a_container_says_how_it_can_see(host):
    with Container(host, image(host)) as container:
        container.start()
        container.serves(80)
        done = container.inside(PYTHON, '-I', '/opt/capdrop/capdrop.py', 'audit', '/opt/capdrop/web.conf', '1')
        assert done.returncode == 125 and 'capdrop exec -q FILE -- ' in done.stderr, done.stderr


def test_container_is_audited_from_its_host(host):
    with Container(host, image(host)) as container:
        container.start()
        container.serves(80)
        pids = [str(pid) for pid in container.members()]
        done = host.run(PYTHON, '-I', '/opt/capdrop/capdrop.py', 'audit', '/opt/capdrop/web.conf', *pids)
        assert (done.returncode, done.stdout) == (0, ''), done.stderr
        assert done.stderr.count('as a launch leaves it') == len(pids) >= 3


def test_rootless_container_is_audited_from_within_its_namespaces(host):
    with Container(host, image(host)) as container:
        container.user_namespace = True
        container.start()
        container.serves(80)
        line = [one.text for one in page(PAGE) if one.text.startswith('nsenter ')][0]
        done = host.shell('pid=%d; %s' % (container.state()['pid'], line))
        assert (done.returncode, done.stdout) == (0, ''), done.stderr
        assert 'as a launch leaves it' in done.stderr
        done = host.run(PYTHON, '-I', '/opt/capdrop/capdrop.py', 'audit', '/opt/capdrop/web.conf', str(container.state()['pid']))
        assert done.returncode == 0 or 'nsenter -t %d' % container.state()['pid'] in done.stderr


def test_capabilities_of_the_page_are_those_of_the_runtimes():
    text = ' '.join(read_page(PAGE).split())
    assert len(DOCKER) == 14
    podman = set(DOCKER) - set(re.search('11 capabilities, without (.*?), and CRI-O', text).group(1).replace(' and', ',').split(', '))
    assert len(podman) == 11 and len(podman - {'SYS_CHROOT', 'SETFCAP'}) == 9


# ---------------------------------------------------------------------------- the tables

def is_what_it_says(container, then):
    """Run what shows its own status, and compare with the cell of the table and with the stanza."""
    done = container.run()
    words = spans(then)
    if then.startswith('refused'):
        assert (done.returncode, done.stdout) == (125, ''), done.stderr
        assert all(line.startswith('capdrop: ') for line in done.stderr.splitlines()), done.stderr
    else:
        assert then.startswith('works') and done.returncode == 0, done.stderr
        words = words if 'with a warning' in then else []
        assert bool(done.stderr) == bool(words), done.stderr
        less = [{'bounding set': 'CapBnd', 'groups': 'Groups'}.get(word) for word in words]
        is_as_asked(container, dict(line.split(':', 1) for line in done.stdout.splitlines()), less)
    missing = [word for word in words if word not in done.stderr]
    assert not missing, (missing, done.stderr)


NUMBERS = {'www-data': '33', 'daemon': '1', 'root': '0', 'adm': '4'}


def is_as_asked(container, now, less):
    def named(option):
        found = re.search(r'^ *%s = "?([^\s"]*)' % option, container.text, re.M)
        return NUMBERS.get(found.group(1), found.group(1)) if found else None
    bits = {'': 0, None: 0, 'cap_net_bind_service+ep': 1 << 10, 'cap_sys_time+ep': 1 << 25}[named('capabilities')]
    for name in 'CapInh', 'CapPrm', 'CapEff', 'CapAmb', 'CapBnd':
        assert name in less or int(now[name], 16) == bits, name
    uid = named('user') or str(container.uid)
    gid = named('group') or (uid if named('user') else str(container.gid))
    assert now['Uid'].split() == [uid] * 4 and now['Gid'].split() == [gid] * 4
    groups = named('supplemental_groups')
    assert 'Groups' in less or set(now['Groups'].split()) - {gid} == ({groups} if groups else set())
    assert now['NoNewPrivs'].strip() == '1'


def docker_row(host, settings):
    copied = [one[5:] for one in settings if one.startswith('COPY ')]
    made = image(host, change=lambda text: text.replace('COPY ', 'COPY %s ' % copied[0]) if copied else text)
    container = Container(host, made, STATUS)
    container.stanza([one for one in settings if one[0].islower()])
    docker(container, [one for one in settings if one.startswith('--')])
    return container


DOCKER_ROWS = [pytest.param(row, id=row[0]) for row in cells(PAGE, 'What may be set: docker run')]


@pytest.mark.parametrize('row', DOCKER_ROWS)
def test_option_of_docker_does_what_the_table_says(host, row):
    setting, then, instead = row
    with docker_row(host, spans(setting)) as container:
        is_what_it_says(container, then)
    if spans(instead):
        with docker_row(host, spans(instead)) as container:
            is_what_it_says(container, 'works')


# ---------------------------------------------------------------------------- Kubernetes

MANIFESTS = 'web.yaml', 'web-restricted.yaml', 'web-any-user.yaml'
KUBE_ROWS = [pytest.param(row, id=row[0]) for row in cells(PAGE, 'What may be set: securityContext')]
BASELINE = set('AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID '
               'SYS_CHROOT'.split())         # what the baseline standard lets a container add


@pytest.fixture(scope='module')
def kubernetes():
    """The directory of commands of a virtual environment that has kubernetes-validate, and with it a reader of YAML."""
    need(sys.version_info >= (3, 9), 'needs Python 3.9 or later, for kubernetes-validate')
    place = os.path.join(TOP, '.venv', 'kubernetes-%d.%d' % sys.version_info[:2])
    if not os.path.exists(place + '/bin/kubernetes-validate'):
        made = run_command([sys.executable, '-m', 'venv', '--clear', place])
        made = run_command([place + '/bin/pip', 'install', '-q', 'kubernetes-validate']) if made.returncode == 0 else made
        need(made.returncode == 0, 'needs kubernetes-validate of PyPI: ' + made.stderr)
    return place + '/bin/'


def from_yaml(kubernetes, texts):
    """What documents of YAML say, a list for each text."""
    program = 'import json, sys, yaml; print(json.dumps([list(yaml.safe_load_all(t)) for t in json.load(sys.stdin)]))'
    done = run_command([kubernetes + 'python', '-c', program], json.dumps(texts).encode())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope='module')
def meaning(kubernetes):
    """Of each manifest, and each span of the table that is YAML: what it says."""
    texts = [block(PAGE, name) for name in MANIFESTS]
    texts += [one for row in KUBE_ROWS for cell in (row.values[0][0], row.values[0][2]) for one in spans(cell) if ': ' in one]
    return dict(zip(texts, from_yaml(kubernetes, texts)))


def pod_of(documents):
    return [one for one in documents if one['kind'] == 'Deployment'][0]['spec']['template']['spec']


def place_in(pod, settings):
    """Set keys where the API has them: of the container's securityContext, of the pod's, or of the pod."""
    for key, value in settings.items():
        if key in ('fsGroup', 'supplementalGroups', 'sysctls'):
            pod.setdefault('securityContext', {})[key] = value
        elif key == 'hostUsers':
            pod[key] = value
        else:
            pod['containers'][0]['securityContext'][key] = value


def kubelet(container, pod, config_maps=()):
    """What kubelet and containerd make of a pod; a key that this does not know is an error here."""
    one, context = pod['containers'][0], dict(pod.get('securityContext', {}))
    of_pod = {key: context.pop(key) for key in ('fsGroup', 'supplementalGroups', 'sysctls') if key in context}
    context.update(one['securityContext'])
    container.user_namespace = not pod.get('hostUsers', True)
    container.uid = context.pop('runAsUser', 0)
    container.gid = context.pop('runAsGroup', gid_of(container.uid))
    assert not (context.pop('runAsNonRoot', False) and container.uid == 0)
    container.groups = of_pod.get('supplementalGroups', []) + [of_pod[key] for key in ('fsGroup',) if key in of_pod]
    container.sysctls = {each['name']: each['value'] for each in of_pod.get('sysctls', [])}
    container.no_new_privs = not context.pop('allowPrivilegeEscalation', True)
    container.read_only = context.pop('readOnlyRootFilesystem', False)
    container.held_back = HELD_BACK if context.pop('seccompProfile', {}).get('type') == 'RuntimeDefault' else []
    capabilities = context.pop('capabilities', {})
    kept = [] if 'ALL' in capabilities.get('drop', []) else DOCKER
    container.caps = [name for name in kept if name not in capabilities.get('drop', [])] + capabilities.get('add', [])
    if context.pop('privileged', False):
        container.held_back, container.caps = [], everything()
    assert not context, context
    if 'command' in one:
        container.command = one['command'] + one['args']
    volumes = {each['name']: each for each in pod.get('volumes', [])}
    for mount in one['volumeMounts']:
        container.mounts.append(volume(container, mount, volumes[mount['name']], config_maps))
    return one


def gid_of(uid):
    """The primary group of the image's account, or 0."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return 0


def volume(container, mount, source, config_maps):
    if 'emptyDir' in source:
        path = '%s/empty-%s' % (container.place, mount['name'])
        os.mkdir(container.machine.path(path))
        os.chmod(container.machine.path(path), 0o777)
        return {'destination': mount['mountPath'], 'type': 'none', 'source': path, 'options': ['bind']}
    for name, text in config_maps[source['configMap']['name']].items():      # as kubelet's atomic writer leaves it
        container.machine.write('%s/map/..1/%s' % (container.place, name), text)
        os.symlink('..data/' + name, container.machine.path('%s/map/%s' % (container.place, name)))
    os.symlink('..1', container.machine.path(container.place + '/map/..data'))
    os.chmod(container.machine.path(container.place + '/map'), 0o777)
    path = container.place + '/map'
    if 'subPath' in mount:
        path = '%s/..1/%s' % (path, mount['subPath'])
        container.machine.write(container.path(mount['mountPath']), '')     # the mount point, which runc makes
    return {'destination': mount['mountPath'], 'type': 'none', 'source': path, 'options': ['bind', 'ro']}


def maps_of(documents):
    return {one['metadata']['name']: one['data'] for one in documents if one['kind'] == 'ConfigMap'}


@pytest.mark.parametrize('name, uid', list(zip(MANIFESTS, (33, 33, 1000680000))))
def test_manifest_is_valid_and_its_container_serves(host, kubernetes, meaning, tmp_path, name, uid):
    path = str(tmp_path / name)
    with open(path, 'w') as file:
        file.write(block(PAGE, name))
    done = run_command([kubernetes + 'kubernetes-validate', '--strict', '--quiet', path])
    assert done.returncode == 0, done.stdout + done.stderr
    documents = copy.deepcopy(meaning[block(PAGE, name)])
    pod = pod_of(documents)
    if uid > 65535:
        place_in(pod, {'runAsUser': uid, 'runAsGroup': 0})      # as OpenShift does
    with Container(host, image(host)) as container:
        one = kubelet(container, pod, maps_of(documents))
        if name == 'web.yaml':
            container.sysctls = PORT_80_IS_PRIVILEGED
        container.start()
        container.serves(80)
        assert 'refused' not in container.said()
        for pid in container.members():
            now = container.status(pid)
            assert now['Uid'] == ' '.join([str(uid)] * 4) and now['NoNewPrivs'] == '1'
            expected = BIND if name == 'web.yaml' else '0' * 16
            assert {now['Cap' + kind] for kind in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb')} == {expected}
        if 'livenessProbe' in one:
            done = container.inside(*one['livenessProbe']['exec']['command'])
            assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
        container.ends()


def test_misspelt_manifest_is_not_valid(kubernetes, tmp_path):
    path = str(tmp_path / 'web.yaml')
    with open(path, 'w') as file:
        file.write(block(PAGE, 'web.yaml').replace('runAsUser', 'runAsUsr'))
    assert run_command([kubernetes + 'kubernetes-validate', '--strict', path]).returncode == 1


def test_manifests_keep_to_the_pod_security_standards(meaning):
    for name in MANIFESTS:
        pod = pod_of(meaning[block(PAGE, name)])
        own = pod['containers'][0]['securityContext']
        both = dict(pod.get('securityContext', {}), **own)
        assert not both.get('privileged') and not pod.get('hostNetwork') and set(own['capabilities'].get('add', [])) <= BASELINE
        if name != 'web.yaml':                  # restricted
            assert both['runAsNonRoot'] and both.get('runAsUser') != 0 and own['allowPrivilegeEscalation'] is False
            assert own['capabilities'] == {'drop': ['ALL']} and both['seccompProfile'] == {'type': 'RuntimeDefault'}
            assert [one['name'] for one in both['sysctls']] == ['net.ipv4.ip_unprivileged_port_start']
            assert all(set(one) - {'name'} <= {'emptyDir', 'configMap'} for one in pod['volumes'])


@pytest.mark.parametrize('whole', [False, True], ids=['subPath', 'the whole ConfigMap'])
def test_stanza_of_a_config_map_is_taken_from_a_sub_path(host, meaning, whole):
    pod = copy.deepcopy(pod_of(meaning[block(PAGE, 'web.yaml')]))
    mount = {'name': 'stanza', 'mountPath': '/opt/capdrop/web.conf', 'subPath': 'web.conf'}
    if whole:
        mount = {'name': 'stanza', 'mountPath': '/opt/capdrop/conf'}
    pod['containers'][0]['volumeMounts'].append(mount)
    pod['volumes'].append({'name': 'stanza', 'configMap': {'name': 'stanza'}})
    with Container(host, image(host), STATUS) as container:
        container.stanza([])
        kubelet(container, pod, {'stanza': {'web.conf': container.text}})
        if whole:
            container.command = [word.replace('/capdrop/web.conf', '/capdrop/conf/web.conf') for word in container.command]
            os.mkdir(host.path(container.path('/opt/capdrop/conf')))
        is_what_it_says(container, 'refused: `can be rewritten by`' if whole else 'works')


def kube_row(host, meaning, settings):
    pod = copy.deepcopy(pod_of(meaning[block(PAGE, 'web.yaml')]))
    for one in settings:
        if ': ' in one:
            place_in(pod, meaning[one][0])
    container = Container(host, image(host), STATUS)
    container.stanza([one for one in settings if ': ' not in one])
    kubelet(container, pod)
    return container


@pytest.mark.parametrize('row', KUBE_ROWS)
def test_key_of_kubernetes_does_what_the_table_says(host, meaning, row):
    setting, then, instead = row
    with kube_row(host, meaning, spans(setting)) as container:
        is_what_it_says(container, then)
    if spans(instead):
        with kube_row(host, meaning, spans(instead)) as container:
            is_what_it_says(container, 'works')
