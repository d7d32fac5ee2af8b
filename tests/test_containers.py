"""A real OCI runtime: the images and manifests of docs/containers.md, run by runc.

Each row of the tables of that page is a container too.  What runs there is Debian's Python,
whichever runs pytest.  No image is pulled: each is made of this machine's files.
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

from conftest import BIND, TOP, need, run_command
from managers import (
    PATH, PYTHON, Machine, answer, block, cells, changed, command_line, copy_capdrop,
    is_as_asked, needed, read_page, sets, soon, spans, status, write_blocks)

PAGE = 'containers.md'
CONF = '/opt/capdrop/web.conf'
# what Docker and containerd give a container
DOCKER = ('CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE '
          'NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP').split()
# what Docker's profile holds back from a container without CAP_SYS_ADMIN
HELD_BACK = ('acct add_key bpf clone3 fanotify_init fsconfig fsmount fsopen fspick '
             'get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup kcmp '
             'kexec_load keyctl mbind mount mount_setattr move_mount open_by_handle_at '
             'open_tree perf_event_open pidfd_getfd pivot_root process_madvise quotactl reboot '
             'request_key set_mempolicy setdomainname sethostname setns settimeofday swapon '
             'syslog umount2 unshare userfaultfd vhangup').split()
ENOSYS, EPERM = 38, 1           # what the profile answers to clone3, and to the others
PORTS = 'net.ipv4.ip_unprivileged_port_start'
NUMBER = itertools.count(1)
STATUS = ['/bin/cat', '/proc/self/status']
AUDIT = [PYTHON, '-I', '/opt/capdrop/capdrop.py', 'audit', CONF]
RUNC = 'runc', '--root', '/run/runc'


@pytest.fixture(scope='module')
def host():
    """A machine in which runc runs containers."""
    needed('runc', 'nginx')
    machine = Machine('/bin/sleep', 'infinity')
    try:
        works(machine.run('runc', 'spec', '--bundle', '/run'))
        machine.images = {}
        copy_capdrop(machine)
        write_blocks(machine, 'launching.md', '/opt/')
        yield machine
    finally:
        machine.end()


def works(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- images

class Image(object):
    """What a Dockerfile of the page makes: a layer, and what a container starts with."""

    def __init__(self, machine, text):
        self.machine = machine
        self.text = text.replace('\\\n', ' ')
        self.place = '/run/image-%d' % len(machine.images)
        self.lower = self.place + ':/run/here'
        self.mounts = []
        self.entry = self.words('ENTRYPOINT')
        self.command = self.words('CMD')
        self.health = self.words('HEALTHCHECK CMD')
        self.directory('', 0o755)
        if 'distroless' in text:
            self.make_distroless()
        else:
            self.make_debian()
        if 'alpine' in text:
            self.make_alpine()
        self.copy_all()
        self.run_all()

    def words(self, instruction):
        found = re.search(r'^%s (\[.*\])$' % instruction, self.text, re.M)
        return json.loads(found.group(1)) if found else []

    def directory(self, path, mode):
        path = self.machine.path(self.place + path)
        os.mkdir(path)
        os.chmod(path, mode)
        return path

    def copy_all(self):
        copies = re.findall(r'^COPY((?: --\S+)*) (.*) (/\S+)$', self.text, re.M)
        for options, files, into in copies:
            for file in files.split():
                self.copy(into + file)
                for name, value in re.findall(r'--(chown|chmod)=(\S+)', options):
                    works(self.machine.run(name, value, self.place + into + file))

    def copy(self, path):
        directory, name = os.path.split(path)
        if name == 'capdrop.py':
            copy_capdrop(self.machine, self.place + directory)
        else:
            page = PAGE if directory == '/opt/web' else 'launching.md'
            self.machine.write(self.place + path, block(page, path))

    def run_all(self):
        """The packages are those of this machine."""
        for line in re.findall(r'^RUN (.*)$', self.text, re.M):
            if 'apt-get' in line or 'apk' in line:
                assert 'cap' not in line
            else:
                self.run(line)

    def run(self, line):
        script = ('mkdir /run/w /run/r; mount -t overlay overlay '
                  '-o lowerdir=/run/here,upperdir=%s,workdir=/run/w /run/r; '
                  'chroot /run/r /bin/sh -ec %s; status=$?; '
                  'umount /run/r; rm -r /run/w /run/r; exit $status')
        works(self.machine.shell(script % (self.place, shlex.quote(line))))

    def make_debian(self):
        """This machine's files, with directories as they are in an image."""
        for path, mode in ('/opt', 0o755), ('/run', 0o755), ('/tmp', 0o1777):
            made = self.directory(path, mode)
            os.setxattr(made, 'trusted.overlay.opaque', b'y')

    def make_alpine(self):
        """No libcap, and the account that the package of nginx makes there."""
        self.run('rm /usr/lib/*/libcap.so*; '
                 'echo nginx:x:100:101::/:/sbin/nologin >> /etc/passwd; '
                 'echo nginx:x:101: >> /etc/group')

    def make_distroless(self):
        """Python and what it is linked with, and two accounts; nothing else."""
        self.lower = self.place
        real = os.path.realpath(PYTHON)
        library = '/usr/lib/' + os.path.basename(real)
        linked = self.machine.shell('ldd %s %s/lib-dynload/*.so' % (real, library)).stdout
        assert 'libcap' not in linked
        for file in {real} | set(re.findall(r'(/\S+) \(0x', linked)):
            works(self.machine.run('install', '-D', file, self.place + file))
        os.symlink(os.path.basename(real), self.machine.path(self.place + PYTHON))
        accounts = 'root:x:0:0::/root:/none\nnonroot:x:65532:65532::/:/none\n'
        self.machine.write(self.place + '/etc/passwd', accounts)
        self.machine.write(self.place + '/etc/group', 'root:x:0:\nnonroot:x:65532:\n')
        os.makedirs(self.machine.path(self.place + library))
        self.mounts.append(bound(library, library, 'ro'))


def image(machine, name='Dockerfile', change=lambda text: text):
    text = change(block(PAGE, name))
    if text not in machine.images:
        machine.images[text] = Image(machine, text)
    return machine.images[text]


def bound(path, source, *options):
    options = ['bind'] + list(options)
    return {'destination': path, 'type': 'none', 'source': source, 'options': options}


# ---------------------------------------------------------------- containers

class Container(object):
    """A container of an image: Docker's defaults, which docker() and kubelet() change."""

    def __init__(self, machine, image, command=None):
        self.machine, self.image = machine, image
        self.name = 'container-%d' % next(NUMBER)
        self.place = '/run/' + self.name
        self.command = image.entry + (command or image.command)
        self.caps, self.held_back = DOCKER, HELD_BACK
        self.uid, self.gid, self.groups = 0, 0, []
        self.no_new_privs = self.read_only = self.user_namespace = False
        self.sysctls, self.mounts = {PORTS: '0'}, []
        self.process = None
        works(machine.shell(
            'mkdir -m 755 {0} {0}/up {0}/work {0}/root && mount -t overlay overlay '
            '-o lowerdir={1},upperdir={0}/up,workdir={0}/work {0}/root'.format(
                self.place, image.lower)))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.runc('delete', '--force', self.name)
        self.machine.run('umount', self.place + '/root')
        if self.process:
            self.process.wait()

    def runc(self, *command):
        return self.machine.run(*(RUNC + command))

    def path(self, path):
        return self.place + '/root' + path

    def write_stanza(self, lines):
        """Change lines of the stanza, whoever owns its file."""
        with open(self.machine.path(self.path(CONF)), 'r+') as file:
            self.stanza = changed(file.read(), lines, r' *(\w+) = ', '}')
            file.seek(0)
            file.write(self.stanza)
            file.truncate()

    def config(self):
        """runtime-spec: config.json"""
        config = json.loads(self.machine.read('/run/config.json'))
        config['process'] = self.process_config()
        config['root'] = {'path': self.path(''), 'readonly': self.read_only}
        unwanted = 'cgroup', 'mqueue', 'sysfs'
        mounts = [one for one in config['mounts'] if one['type'] not in unwanted]
        config['mounts'] = mounts + self.image.mounts + self.mounts
        linux = config['linux']
        del linux['resources']
        linux['sysctl'] = self.sysctls
        if self.user_namespace:
            linux['namespaces'].append({'type': 'user'})
            ids = [{'containerID': 0, 'hostID': 100000, 'size': 65536}]
            linux.update(uidMappings=ids, gidMappings=ids)
        if self.held_back:
            rules = [held_back(name) for name in self.held_back]
            linux['seccomp'] = {'defaultAction': 'SCMP_ACT_ALLOW', 'syscalls': rules}
        return config

    def process_config(self):
        names = ['CAP_' + name for name in self.caps]
        kinds = 'bounding', 'permitted', 'effective'
        user = {'uid': self.uid, 'gid': self.gid, 'additionalGids': self.groups}
        return {'terminal': False, 'args': self.command, 'cwd': '/', 'env': ['PATH=' + PATH],
                'user': user, 'noNewPrivileges': self.no_new_privs,
                'capabilities': {kind: names for kind in kinds}}

    def prepare(self):
        if self.user_namespace:
            self.shift()
        self.machine.write(self.place + '/config.json', json.dumps(self.config()))
        return RUNC + ('run', '--bundle', self.place, self.name)

    def shift(self):
        """The image's files belong to the ids of the user namespace: its runtime sees to it."""
        layer = self.machine.path(self.image.place)
        for directory, _, files in os.walk(layer):
            for name in [''] + files:
                path = directory[len(layer):] + '/' + name
                path = self.machine.path(self.path(path))
                owner = os.lstat(path)
                os.lchown(path, owner.st_uid + 100000, owner.st_gid + 100000)

    def run(self):
        return self.machine.run(*self.prepare())

    def start(self):
        command = self.machine.enter + list(self.prepare())
        with open(self.machine.path(self.place + '/said'), 'w') as said:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        soon(lambda: self.state().get('status') == 'running', self.said)

    def said(self):
        return self.machine.read(self.place + '/said')

    def state(self):
        return json.loads(self.runc('state', self.name).stdout or '{}')

    def pid(self):
        """The process 1, by the number that its host sees."""
        return self.state()['pid']

    def members(self):
        return json.loads(works(self.runc('ps', '--format', 'json', self.name)))

    def inside(self, *command):
        """As docker exec and a probe run it: with the container's user and capabilities."""
        return self.runc('exec', self.name, *command)

    def serves(self):
        enter = self.machine.enter + ['nsenter', '-t', str(self.pid()), '-n']
        soon(lambda: answer(enter, 80) == 'hello\n', self.said)

    def ends(self):
        """By TERM to process 1, as docker stop asks for it."""
        works(self.runc('kill', self.name, 'TERM'))
        assert self.process.wait(20) == 0, self.said()


def held_back(name):
    error = ENOSYS if name == 'clone3' else EPERM
    return {'names': [name], 'action': 'SCMP_ACT_ERRNO', 'errnoRet': error}


def is_quiet(done):
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


# ---------------------------------------------------------------- docker run

def docker(container, options):
    """What the options of docker run change."""
    words = [word for option in options for word in shlex.split(option)]
    while words:
        word = words.pop(0)
        if word in SWITCHES:
            SWITCHES[word](container)
        else:
            WITH_VALUE[word](container, words.pop(0))


def cap_drop(container, name):
    container.caps = [one for one in container.caps if name not in (one, 'ALL')]


def cap_add(container, name):
    container.caps = container.caps + [name]


def user(container, value):
    container.uid, container.gid = map(int, value.split(':'))


def group_add(container, value):
    container.groups.append(int(value))


def security_opt(container, value):
    without = re.match(r'seccomp=without-(\w+)\.json$', value)
    if without:
        container.held_back = HELD_BACK + [without.group(1)]
    elif value == 'seccomp=unconfined':
        container.held_back = []
    else:
        assert value == 'no-new-privileges'
        container.no_new_privs = True


def tmpfs(container, value):
    path, options = value.split(':')
    container.mounts.append({'destination': path, 'type': 'tmpfs', 'source': 'tmpfs',
                             'options': options.split(',')})


def publish(container, value):
    """Nothing to do: the tests connect to it in its own network."""


def read_only(container):
    container.read_only = True


def userns_remap(container):
    container.user_namespace = True


def privileged(container):
    container.held_back = []
    container.caps = everything()


def init(container):
    container.command = ['/bin/sh', '-c', '"$@"; exit', 'init'] + container.command


SWITCHES = {'--read-only': read_only, '--userns-remap': userns_remap,
            '--privileged': privileged, '--init': init}
WITH_VALUE = {'--cap-drop': cap_drop, '--cap-add': cap_add, '--user': user,
              '--group-add': group_add, '--security-opt': security_opt, '--tmpfs': tmpfs,
              '--publish': publish}


def everything():
    """Every capability that can be given here."""
    import capdrop
    return [name[4:].upper() for name in capdrop.state().bounding]


IMAGES = {'Dockerfile': 33, 'Dockerfile.alpine': 100, 'Dockerfile.distroless': 65532}


@pytest.mark.parametrize('name', sorted(IMAGES))
def test_image_serves_port_80_as_an_ordinary_user(host, name):
    with Container(host, image(host, name)) as container:
        container.sysctls = {PORTS: '1024'}
        container.start()
        container.serves()
        assert 'capdrop:' not in container.said()
        for pid in container.members():
            now = host.status(pid)
            assert now['Uid'].split() == [str(IMAGES[name])] * 4
            assert sets(now) == {BIND}
            assert now['NoNewPrivs'] == '1'
            assert now['Groups'] == ''
        container.ends()


@pytest.mark.parametrize('first', ['1024', '0'], ids=['by the capability', 'as docker sets it'])
def test_least_of_docker_is_enough(host, first):
    with Container(host, image(host)) as container:
        words = shlex.split(command_line(PAGE, 'docker run '))
        docker(container, map(shlex.quote, words[2:-1]))
        assert len(container.caps) == 4
        container.sysctls = {PORTS: first}
        container.start()
        container.serves()
        assert container.said() == ''
        is_quiet(container.inside(*container.image.health))
        container.ends()


def test_health_check_tells_a_process_that_is_not_what_the_stanza_says(host):
    with Container(host, image(host), ['/bin/sleep', '100']) as container:
        container.write_stanza([])
        container.start()
        is_quiet(container.inside(*container.image.health))
        container.write_stanza(['user = daemon'])
        done = container.inside(*container.image.health)
        assert done.returncode in (1, 125), done.stdout


def test_audit_in_a_container_says_how_it_can_see(host):
    with Container(host, image(host)) as container:
        container.start()
        container.serves()
        done = container.inside(*(AUDIT + ['1']))
        assert done.returncode == 125
        assert 'capdrop exec -q FILE -- ' in done.stderr
        # and so it does, as audit.md has it
        command = command_line('audit.md', 'capdrop exec -q ').replace('web.conf', CONF)
        command = command.replace('capdrop.py', '/opt/capdrop/capdrop.py').replace('python3', PYTHON)
        command = command.replace('capdrop exec', '%s -I /opt/capdrop/capdrop.py exec' % PYTHON, 1)
        done = container.inside('/bin/sh', '-c', command)
        assert works(done) == '' and 'as a launch leaves it' in done.stderr


def test_container_is_audited_from_its_host(host):
    with Container(host, image(host)) as container:
        container.start()
        container.serves()
        pids = list(map(str, container.members()))
        done = host.run(*(AUDIT + pids))
        assert works(done) == ''
        assert done.stderr.count('as a launch leaves it') == len(pids)


def test_rootless_container_is_audited_from_within_its_namespaces(host):
    with Container(host, image(host)) as container:
        userns_remap(container)
        container.start()
        container.serves()
        pid = container.pid()
        done = host.shell('pid=%d; %s' % (pid, command_line(PAGE, 'nsenter ')))
        assert works(done) == ''
        assert 'as a launch leaves it' in done.stderr
        assert command_line('audit.md', 'nsenter ').split()[:7] == 'nsenter -t PID -U -m -p'.split() + ['python3']
        done = host.run(*(AUDIT + [str(pid)]))
        assert done.returncode == 0 or 'nsenter -t %d' % pid in done.stderr


def test_capabilities_of_the_page_are_those_of_the_runtimes():
    text = ' '.join(read_page(PAGE).split())
    fewer = re.search('Podman gives root 11 capabilities, without (.*?), and CRI-O', text)
    fewer = re.findall('[A-Z_]+', fewer.group(1))
    podman = set(DOCKER) - set(fewer)
    assert len(DOCKER) == 14
    assert len(podman) == 11
    assert len(podman - {'SYS_CHROOT', 'SETFCAP'}) == 9


# ---------------------------------------------------------------- the tables

def row_of_docker(host, settings):
    copy, = [one for one in settings if one.startswith('COPY ')] or ['COPY']
    made = image(host, change=lambda text: text.replace('COPY', copy))
    container = Container(host, made, STATUS)
    container.write_stanza([one for one in settings if one[0].islower()])
    docker(container, [one for one in settings if one.startswith('--')])
    return container


def is_what_it_says(container, then):
    """A container that shows its own status, against a cell of the table and the stanza."""
    done = container.run()
    words = spans(then)
    if then.startswith('works'):
        if 'with a warning' not in then:
            words = []
        now = status(works(done))
        is_as_asked(now, container.stanza, str(container.uid), str(container.gid), words)
        assert bool(words) == bool(done.stderr), done.stderr
    else:
        assert then.startswith('refused')
        assert (done.returncode, done.stdout) == (125, '')
        for line in done.stderr.splitlines():
            assert line.startswith('capdrop: ')
    missing = [word for word in words if word not in done.stderr]
    assert not missing, (missing, done.stderr)


def rows(heading):
    return [pytest.param(row, id=row[0]) for row in cells(PAGE, heading)]


@pytest.mark.parametrize('row', rows('What may be set: docker run'))
def test_option_of_docker_does_what_the_table_says(host, row):
    setting, then, instead = row
    with row_of_docker(host, spans(setting)) as container:
        is_what_it_says(container, then)
    if spans(instead):
        with row_of_docker(host, spans(instead)) as container:
            is_what_it_says(container, 'works')


# ---------------------------------------------------------------- Kubernetes

MANIFESTS = {'web.yaml': 33, 'web-restricted.yaml': 33, 'web-any-user.yaml': 1000680000}
ROWS = rows('What may be set: securityContext')
# what the baseline standard lets a container add
BASELINE = set('AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE '
               'SETFCAP SETGID SETPCAP SETUID SYS_CHROOT'.split())
READ_YAML = ('import json, sys, yaml; texts = json.load(sys.stdin); '
             'print(json.dumps([list(yaml.safe_load_all(text)) for text in texts]))')


@pytest.fixture(scope='module')
def kubernetes():
    """Where the commands are of an environment with kubernetes-validate, and so with yaml."""
    need(sys.version_info >= (3, 9), 'needs Python 3.9 or later, for kubernetes-validate')
    place = os.path.join(TOP, '.venv', 'kubernetes-%d.%d' % sys.version_info[:2])
    if not os.path.exists(place + '/bin/kubernetes-validate'):
        done = run_command([sys.executable, '-m', 'venv', '--clear', place])
        need(done.returncode == 0, 'needs venv of %s (python3-venv)' % sys.executable)
        done = run_command([place + '/bin/pip', 'install', '-q', 'kubernetes-validate'])
        need(done.returncode == 0, 'needs kubernetes-validate of PyPI: ' + done.stderr.strip().rpartition('\n')[2])
    return place + '/bin/'


def validate(kubernetes, path):
    return run_command([kubernetes + 'kubernetes-validate', '--strict', '--quiet', str(path)])


@pytest.fixture(scope='module')
def meaning(kubernetes):
    """What each manifest says, and each span of the table that is YAML: {text: documents}."""
    texts = [block(PAGE, name) for name in MANIFESTS]
    for row in ROWS:
        setting, then, instead = row.values[0]
        texts += spans(setting) + spans(instead)
    done = run_command([kubernetes + 'python', '-c', READ_YAML], json.dumps(texts).encode())
    return dict(zip(texts, json.loads(works(done))))


def pod_of(meaning, name):
    """The pod of a manifest, to be changed."""
    for document in meaning[block(PAGE, name)]:
        if document['kind'] == 'Deployment':
            return copy.deepcopy(document['spec']['template']['spec'])


def config_maps(meaning, name):
    return {one['metadata']['name']: one['data'] for one in meaning[block(PAGE, name)]
            if one['kind'] == 'ConfigMap'}


OF_POD = 'fsGroup', 'supplementalGroups', 'sysctls'


def place_in(pod, key, value):
    """Where the API has this key: the container's securityContext, the pod's, or the pod."""
    place = pod['containers'][0]['securityContext']
    if key == 'hostUsers':
        place = pod
    elif key in OF_POD:
        place = pod.setdefault('securityContext', {})
    place[key] = value


def kubelet(container, pod, maps=()):
    """What kubelet and containerd make of a pod; a key that this does not know is an error."""
    one = pod['containers'][0]
    context = dict(pod.get('securityContext', {}), **one['securityContext'])
    take = context.pop
    container.user_namespace = not pod.get('hostUsers', True)
    container.uid = take('runAsUser', 0)
    container.gid = take('runAsGroup', gid_of(container.uid))
    assert not take('runAsNonRoot', False) or container.uid != 0
    container.groups = take('supplementalGroups', [])
    if 'fsGroup' in context:
        container.groups = container.groups + [take('fsGroup')]
    sysctls = take('sysctls', [])
    container.sysctls = {each['name']: each['value'] for each in sysctls}
    container.no_new_privs = not take('allowPrivilegeEscalation', True)
    container.read_only = take('readOnlyRootFilesystem', False)
    if take('seccompProfile', {}) != {'type': 'RuntimeDefault'}:
        container.held_back = []
    capabilities = take('capabilities', {})
    for name in capabilities.get('drop', []):
        cap_drop(container, name)
    for name in capabilities.get('add', []):
        cap_add(container, name)
    if take('privileged', False):
        privileged(container)
    assert not context, context
    if 'command' in one:
        container.command = one['command'] + one['args']
    mount_volumes(container, pod, maps)


def gid_of(uid):
    """The primary group of the image's account, or 0."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return 0


def mount_volumes(container, pod, maps):
    volumes = {each['name']: each for each in pod['volumes']}
    for mount in pod['containers'][0]['volumeMounts']:
        volume = volumes[mount['name']]
        source = '%s/volume-%s' % (container.place, mount['name'])
        outer = container.machine.path(source)
        os.mkdir(outer)
        os.chmod(outer, 0o777)                  # as the kubelet makes them
        options = []
        if 'configMap' in volume:
            options = ['ro']
            fill(container.machine, source, maps[volume['configMap']['name']])
        if 'subPath' in mount:
            source += '/..1/' + mount['subPath']
            container.machine.write(container.path(mount['mountPath']), '')
        container.mounts.append(bound(mount['mountPath'], source, *options))


def fill(machine, place, data):
    """As the kubelet's atomic writer leaves a ConfigMap."""
    outer = machine.path(place)
    os.symlink('..1', outer + '/..data')
    for name, text in data.items():
        machine.write('%s/..1/%s' % (place, name), text)
        os.symlink('..data/' + name, '%s/%s' % (outer, name))


@pytest.mark.parametrize('name', sorted(MANIFESTS))
def test_manifest_is_valid_and_its_container_serves(host, kubernetes, meaning, tmp_path, name):
    uid = MANIFESTS[name]
    path = tmp_path / name
    path.write_text(block(PAGE, name))
    works(validate(kubernetes, path))
    pod = pod_of(meaning, name)
    if uid > 65535:                             # as OpenShift does
        place_in(pod, 'runAsUser', uid)
        place_in(pod, 'runAsGroup', 0)
    with Container(host, image(host)) as container:
        kubelet(container, pod, config_maps(meaning, name))
        expected = 0
        if name == 'web.yaml':
            expected = BIND
            container.sysctls = {PORTS: '1024'}
        container.start()
        container.serves()
        for pid in container.members():
            now = host.status(pid)
            assert now['Uid'].split() == [str(uid)] * 4
            assert sets(now) == {expected}
            assert now['NoNewPrivs'] == '1'
        probe = pod['containers'][0].get('livenessProbe')
        if probe:
            is_quiet(container.inside(*probe['exec']['command']))
        container.ends()


def test_misspelt_manifest_is_not_valid(kubernetes, tmp_path):
    path = tmp_path / 'web.yaml'
    path.write_text(block(PAGE, 'web.yaml').replace('runAsUser', 'runAsUsr'))
    assert validate(kubernetes, path).returncode == 1


@pytest.mark.parametrize('name', sorted(MANIFESTS))
def test_manifest_keeps_to_a_pod_security_standard(meaning, name):
    pod = pod_of(meaning, name)
    own = pod['containers'][0]['securityContext']
    context = dict(pod.get('securityContext', {}), **own)
    assert 'privileged' not in own
    assert set(own['capabilities'].get('add', [])) <= BASELINE
    assert own['allowPrivilegeEscalation'] is False
    assert context['seccompProfile'] == {'type': 'RuntimeDefault'}
    if name != 'web.yaml':                      # restricted
        assert context['runAsNonRoot'] is True
        assert context.get('runAsUser') != 0
        assert own['capabilities'] == {'drop': ['ALL']}
        assert [one['name'] for one in context['sysctls']] == [PORTS]
        kinds = {kind for volume in pod['volumes'] for kind in volume}
        assert kinds <= {'name', 'emptyDir', 'configMap'}


STANZAS = [('works', {'mountPath': CONF, 'subPath': 'web.conf'}),
           ('refused: `can be rewritten by`', {'mountPath': '/opt/capdrop/map'})]


@pytest.mark.parametrize('then, mount', STANZAS, ids=['subPath', 'the whole ConfigMap'])
def test_stanza_of_a_config_map_is_taken_from_a_sub_path(host, meaning, then, mount):
    pod = pod_of(meaning, 'web.yaml')
    pod['volumes'].append({'name': 'map', 'configMap': {'name': 'stanza'}})
    pod['containers'][0]['volumeMounts'].append(dict(mount, name='map'))
    with Container(host, image(host), STATUS) as container:
        container.write_stanza([])
        kubelet(container, pod, {'stanza': {'web.conf': container.stanza}})
        if 'subPath' not in mount:
            os.mkdir(host.path(container.path(mount['mountPath'])))
            place = container.command.index(CONF)
            container.command[place] = mount['mountPath'] + '/web.conf'
        is_what_it_says(container, then)


def row_of_kubernetes(host, meaning, settings):
    pod = pod_of(meaning, 'web.yaml')
    keys = [one for one in settings if ': ' in one]
    for one in keys:
        for key, value in meaning[one][0].items():
            place_in(pod, key, value)
    container = Container(host, image(host), STATUS)
    container.write_stanza([one for one in settings if one not in keys])
    kubelet(container, pod)
    return container


@pytest.mark.parametrize('row', ROWS)
def test_key_of_kubernetes_does_what_the_table_says(host, meaning, row):
    setting, then, instead = row
    with row_of_kubernetes(host, meaning, spans(setting)) as container:
        is_what_it_says(container, then)
    if spans(instead):
        with row_of_kubernetes(host, meaning, spans(instead)) as container:
            is_what_it_says(container, 'works')
