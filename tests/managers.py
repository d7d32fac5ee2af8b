"""Machines for the tests of service managers: systemd as process 1, or a place for runc.

A machine is a set of namespaces.  Its root directory is a copy-on-write view of this machine's
(overlay, the upper layer in memory), with /opt, /run and /tmp empty: what runs in it ends with
it, and what it writes is gone.  Under systemd /proc/sys is read-only, or it would set this
machine's.
"""
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from conftest import SCRIPT, TOP, c, in_child, loopback_up, need, need_root, run_command

PYTHON = '/usr/bin/python3'     # what units and containers run, whichever Python runs pytest
PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
ENVIRONMENT = {'PATH': PATH, 'LC_ALL': 'C.UTF-8', 'HOME': '/root'}
PR_SET_PDEATHSIG = 1            # linux/prctl.h

# In a mount namespace of its own: everything in memory, and a cgroup for all that is to come.
OUTSIDE = r'''
inside=$1 T=$2 name=$3; shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$T"
mkdir "$T/cgroup" "$T/up" "$T/work" "$T/root"
mount -t cgroup2 cgroup2 "$T/cgroup"
ours=$T/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/$name
mkdir "$ours"
echo $$ > "$ours/cgroup.procs"
exec unshare --pid --fork --kill-child --ipc --uts --cgroup --net \
    /bin/sh -ec "$inside" inside "$T" "$@"
'''

# As process 1 of the new namespaces.  /proc is still that of outside, and so is the number.
INSIDE = r'''
T=$1; shift
read pid rest < /proc/self/stat
echo "$pid"
mount -t overlay overlay -o "lowerdir=/,upperdir=$T/up,workdir=$T/work" "$T/root"
cd "$T/root"
for place in proc run tmp sys dev opt; do rm -rf $place 2> /dev/null || :; mkdir -p $place; done
mount -t proc proc proc
case $1 in
*/systemd) mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys;;
esac
for place in run tmp sys dev opt; do mount -t tmpfs -o mode=755 tmpfs $place; done
chmod 1777 tmp
mkdir -p sys/fs/cgroup dev/pts dev/shm dev/mqueue dev/hugepages run/here run/systemd/system
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --bind / run/here
mount -o remount,bind,ro run/here
for node in null zero random urandom full tty; do
    : > dev/$node
    mount --bind /dev/$node dev/$node
done
ln -s /proc/self/fd dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s /proc/self/fd/${n%:*} dev/${n#*:}; done
ln -s /dev/null run/systemd/system/timers.target
echo 0123456789abcdef0123456789abcdef > etc/machine-id
mkdir .old
pivot_root . .old
umount -l /.old
rmdir /.old
echo made
exec > /dev/null
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
'''

CLEAN = r'''
mount -t cgroup2 cgroup2 "$1"
ours=$1$(sed -n 's/^0:://p' /proc/self/cgroup)/$2
[ ! -d "$ours" ] || find "$ours" -depth -type d -exec rmdir {} +
'''


def needed(*programs):
    """Skip, or under CI fail, where a machine cannot be made."""
    need(sys.platform == 'linux', 'needs Linux')
    need_root()
    need(os.access(PYTHON, os.X_OK), 'needs ' + PYTHON)
    for program in ('unshare', 'nsenter') + programs:
        found = shutil.which(program, path=PATH + ':/lib/systemd')
        need(found, 'needs ' + program)


class Machine(object):
    """Process 1 is what `init` says.  run() runs a command in it, path() leads to its files."""

    def __init__(self, *init):
        self.place = tempfile.mkdtemp()
        self.name = 'capdrop-test-%d' % os.getpid()
        self.errors = tempfile.TemporaryFile()
        self.process = self.begin(init)
        with self.process.stdout as pipe:
            number = pipe.readline()
            made = pipe.readline()
        self.pid = int(number or -1)
        self.net = ['nsenter', '-t', str(self.pid), '-n']
        self.enter = self.net + '-m -u -i -p -C env -i'.split()
        self.enter += ['%s=%s' % pair for pair in ENVIRONMENT.items()]
        if not made or not self.is_up():
            self.give_up()
        in_child(raise_loopback, self.pid)

    def begin(self, init):
        command = ['unshare', '--mount', '/bin/sh', '-ec', OUTSIDE, 'outside', INSIDE]
        command += [self.place, self.name]
        command += init
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors,
            preexec_fn=end_with_this, env=ENVIRONMENT)

    def is_up(self):
        return os.path.isdir('/proc/%d' % self.pid) and self.run('true').returncode == 0

    def give_up(self):
        self.errors.seek(0)
        said = self.errors.read().decode().strip()
        self.end()
        need(False, 'needs namespaces, cgroup v2 and overlay: ' + said)

    def end(self):
        """The kernel ends all that ran in it; its mounts are gone with it, its cgroups not."""
        self.process.kill()
        self.process.wait()
        self.errors.close()
        soon(lambda: not os.path.isdir('/proc/%d' % self.pid))
        clean = ['unshare', '--mount', '/bin/sh', '-ec', CLEAN, 'clean', self.place, self.name]
        run_command(clean)
        os.rmdir(self.place)

    def run(self, *command, **options):
        return run_command(self.enter + list(command), **options)

    def shell(self, text):
        return self.run('/bin/sh', '-c', text)

    def path(self, path):
        return '/proc/%d/root%s' % (self.pid, path)

    def write(self, path, text, mode=0o644):
        outer = self.path(path)
        os.makedirs(os.path.dirname(outer), exist_ok=True)
        with open(outer, 'w', encoding='utf-8') as file:
            file.write(text)
        os.chmod(outer, mode)

    def read(self, path):
        with open(self.path(path), encoding='utf-8', errors='replace') as file:
            return file.read()

    def status(self, pid):
        """/proc/PID/status: what the kernel says, whatever capdrop would say."""
        return status(self.run('cat', '/proc/%d/status' % pid).stdout)


def raise_loopback(pid):
    with open('/proc/%d/ns/net' % pid) as namespace:
        c('setns', namespace.fileno(), 0)
    loopback_up()


def end_with_this():
    """Not even a killed test leaves a machine behind."""
    zeros = [ctypes.c_ulong(0)] * 3
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), *zeros)


def soon(condition, told=str):
    """What `condition` returns, once it is true; told() is the reason if it never is."""
    until = time.time() + 20
    while True:
        value = condition()
        if value:
            return value
        assert time.time() < until, told()
        time.sleep(0.02)


def copy_capdrop(machine, directory='/opt/capdrop'):
    """The tree's own; /opt and all in it belong to root."""
    with open(SCRIPT, encoding='utf-8') as file:
        machine.write(directory + '/capdrop.py', file.read())


# ---------------------------------------------------------------- what a process is

CAPABILITIES = 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'


def status(text):
    """The fields of a /proc/PID/status, blanks between the words of each made one."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(':')
        found[name] = ' '.join(rest.split())
    return found


def sets(now):
    """All five capability sets, as numbers, each once."""
    return {int(now[name], 16) for name in CAPABILITIES}


ASK = r'''
import socket, sys
connection = socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)
connection.settimeout(10)
connection.sendall(sys.argv[2].encode())
connection.shutdown(socket.SHUT_WR)
said = b''
try:
    for part in iter(lambda: connection.recv(4096), b''):
        said += part
except ConnectionResetError:                    # it has not read all that was sent
    pass
print(said.decode().split('\r\n\r\n')[-1], end='')
'''
HTTP = 'GET / HTTP/1.0\r\nHost: here\r\n\r\n'


def answer(enter, port, request=HTTP):
    """What a server answers, an HTTP header left out; None while nobody listens.

    enter: a command that runs another where the server is.
    """
    done = run_command(enter + [PYTHON, '-c', ASK, str(port), request])
    return done.stdout if done.returncode == 0 else None


# ---------------------------------------------------------------- the pages

FENCED = re.compile(r'^```\w*\n(.*?)^```$', re.M | re.S)
NAMED = re.compile(r'# (\S*/\S+|Dockerfile\S*|\S+\.yaml)\n')


def read_page(name):
    with open(os.path.join(TOP, 'docs', name), encoding='utf-8') as file:
        return file.read()


def blocks(name):
    """The fenced blocks of a page: (the file that its first line names or None, its text)."""
    for text in FENCED.findall(read_page(name)):
        named = NAMED.match(text)
        yield (named.group(1) if named else None), text


def block(name, file):
    """The block of a page that is this file."""
    found = [text for title, text in blocks(name) if title == file]
    assert len(found) == 1, '%s: %d blocks of %s' % (name, len(found), file)
    return found[0]


def command_line(name, start):
    """The block of a page that is a command and begins so, on one line."""
    text, = [text for title, text in blocks(name) if text.startswith(start)]
    return text.replace('\\\n', ' ')


def write_blocks(machine, name, below):
    """The files of a page that lie below a directory."""
    for title, text in blocks(name):
        if title and title.startswith(below):
            machine.write(title, text)


def cells(name, heading):
    """The rows of the table below a heading, each a list of cells."""
    pattern = r'^#+ %s\n(.*?)(?=^#|\Z)' % re.escape(heading)
    below = re.search(pattern, read_page(name), re.M | re.S).group(1)
    lines = re.findall(r'^\|(.*)\|$', below, re.M)
    return [[cell.strip() for cell in line.split('|')] for line in lines[2:]]


def spans(cell):
    """What a cell has in code."""
    return re.findall('`([^`]+)`', cell)


def changed(text, lines, pattern, before):
    """Lines of a unit or stanza put in the place of those of the same name.

    What has no = in it is a name whose line is left out.  pattern finds the name of a line;
    the new ones go before the mark.
    """
    gone = {re.match(r'\w+', line).group() for line in lines}
    kept = []
    for line in text.splitlines(True):
        named = re.match(pattern, line)
        if not named or named.group(1) not in gone:
            kept.append(line)
    new = ''.join(line + '\n' for line in lines if re.match(pattern, line))
    return ''.join(kept).replace(before, new + before, 1)


NUMBERS = {'root': '0', 'daemon': '1', 'adm': '4', 'www-data': '33'}
BITS = {'': 0, 'cap_net_bind_service+ep': 1 << 10, 'cap_sys_time+ep': 1 << 25}


def named(stanza, option):
    """What a stanza says of an option, as a number where it is a name of this machine's."""
    found = re.search(r'^ *%s = "?([^\s"]*)' % option, stanza, re.M)
    return NUMBERS.get(found.group(1), found.group(1)) if found else None


def is_as_asked(now, stanza, uid, gid, warned=()):
    """Whether a status is what a stanza says, for who started as uid and gid.

    What a warning is about is left out: the bounding set, or groups, that stay.
    """
    for name in CAPABILITIES:
        if name != 'CapBnd' or 'bounding set' not in warned:
            assert int(now[name], 16) == BITS[named(stanza, 'capabilities')], name
    user = named(stanza, 'user')
    uid = user or uid
    gid = named(stanza, 'group') or user or gid
    assert now['Uid'].split() == [uid] * 4
    assert now['Gid'].split() == [gid] * 4
    if 'groups' not in warned:
        asked = named(stanza, 'supplemental_groups')
        assert set(now['Groups'].split()) - {gid} == ({asked} - {None})
    assert now['NoNewPrivs'] == '1'
