"""Machines for the tests of service managers: a real systemd as process 1, and a place where runc runs containers.

A machine is a set of namespaces.  Its root directory is a copy-on-write view of this machine's (overlay, the upper layer
in memory), with /opt, /run and /tmp empty: what runs in it ends with it, and what it writes is gone.  Under systemd
/proc/sys is read-only, or it would set this machine's.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from conftest import SCRIPT, TOP, need, need_root, run_command

PYTHON = '/usr/bin/python3'         # what units and containers run, whichever Python runs pytest
ENVIRONMENT = {'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL': 'C.UTF-8', 'HOME': '/root'}

# in a mount namespace of its own: everything in memory, and a cgroup whose members are this machine's processes
OUTSIDE = r'''
inside=$1 T=$2 name=$3; shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$T"
mkdir "$T/cgroup" "$T/up" "$T/work" "$T/root"
mount -t cgroup2 cgroup2 "$T/cgroup"
ours=$T/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/$name
mkdir "$ours"
echo $$ > "$ours/cgroup.procs"
exec unshare --pid --fork --kill-child --ipc --uts --cgroup --net /bin/sh -ec "$inside" inside "$T" "$@"
'''

# as process 1 of the new namespaces; /proc is still that of outside, so that the number is one for outside
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
for node in null zero random urandom full tty; do : > dev/$node; mount --bind /dev/$node dev/$node; done
ln -s /proc/self/fd dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s /proc/self/fd/${n%:*} dev/${n#*:}; done
ip link set lo up
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
    for program in ('unshare', 'nsenter', 'ip') + programs:
        need(shutil.which(program, path=ENVIRONMENT['PATH'] + ':/lib/systemd'), 'needs ' + program)


class Machine(object):
    """What `init` is process 1 of.  run() runs a command in it, path() is how one of its files is reached from outside."""

    def __init__(self, *init):
        self.place = tempfile.mkdtemp()
        self.name = 'capdrop-test-%d' % os.getpid()
        self.errors = tempfile.TemporaryFile()
        command = ['unshare', '--mount', '/bin/sh', '-ec', OUTSIDE, 'outside', INSIDE, self.place, self.name]
        self.process = subprocess.Popen(command + list(init), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.errors, preexec_fn=end_with_this, env=ENVIRONMENT)
        with self.process.stdout as pipe:
            number, made = pipe.readline(), pipe.readline()
        self.pid = int(number or -1)
        self.enter = 'nsenter -t %d -m -u -i -n -p -C' % self.pid
        self.net = ['nsenter', '-t', str(self.pid), '-n']
        if not made or not self.is_up():
            self.errors.seek(0)
            said = self.errors.read().decode()
            self.end()
            need(False, 'needs namespaces, cgroup v2 and overlay: ' + said.strip())

    def is_up(self):
        return os.path.isdir('/proc/%d' % self.pid) and self.run('true').returncode == 0

    def end(self):
        self.process.kill()
        self.process.wait()
        self.errors.close()
        soon(lambda: not os.path.isdir('/proc/%d' % self.pid))
        run_command(['unshare', '--mount', '/bin/sh', '-ec', CLEAN, 'clean', self.place, self.name])
        os.rmdir(self.place)

    def run(self, *command, **options):
        return run_command(self.command(*command), **options)

    def command(self, *command):
        return self.enter.split() + ['env', '-i'] + ['%s=%s' % pair for pair in ENVIRONMENT.items()] + list(command)

    def shell(self, text):
        return self.run('/bin/sh', '-c', text)

    def path(self, path):
        return '/proc/%d/root%s' % (self.pid, path)

    def write(self, path, text, mode=0o644):
        os.makedirs(os.path.dirname(self.path(path)), exist_ok=True)
        with open(self.path(path), 'w', encoding='utf-8') as file:
            file.write(text)
        os.chmod(self.path(path), mode)

    def read(self, path):
        with open(self.path(path), encoding='utf-8', errors='replace') as file:
            return file.read()


def soon(condition, told=str):
    """What `condition` returns, once it is true; told() is the reason if it never is."""
    until = time.time() + 20
    while True:
        value = condition()
        if value:
            return value
        assert time.time() < until, told()
        time.sleep(0.02)


def end_with_this():
    import ctypes
    ctypes.CDLL(None).prctl(1, ctypes.c_ulong(signal.SIGKILL), *[ctypes.c_ulong(0)] * 3)      # PR_SET_PDEATHSIG


def copy_capdrop(machine, directory='/opt/capdrop'):
    """The tree's own; /opt and all in it belong to root."""
    with open(SCRIPT, encoding='utf-8') as file:
        machine.write(directory + '/capdrop.py', file.read())


def state_of(machine, pid):
    """/proc/PID/status in a machine: what the kernel says, whatever capdrop would say."""
    lines = machine.read('/proc/%d/status' % pid).splitlines()
    return {name: ' '.join(rest.split()) for name, rest in (line.split(':', 1) for line in lines)}


ASK = '''
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
print(said.decode().split('\\r\\n\\r\\n')[-1], end='')
'''


def answer(machine, port, request='GET / HTTP/1.0\r\nHost: here\r\n\r\n', enter=None):
    """What a server in a machine answers, an HTTP header left out; None while nobody listens."""
    done = run_command((enter or machine.net) + [PYTHON, '-c', ASK, str(port), request])
    return None if done.returncode else done.stdout


# ---------------------------------------------------------------------------- the pages

def read_page(name):
    with open(os.path.join(TOP, 'docs', name), encoding='utf-8') as file:
        return file.read()


class Block(object):
    """A fenced block of a page: its text, and the file that its first line names."""

    def __init__(self, text):
        named = re.match(r'# (\S*/\S+|Dockerfile\S*|\S+\.yaml)\n', text)
        self.text, self.file = text, named and named.group(1)


def page(name):
    return [Block(text) for text in re.findall(r'^```\w*\n(.*?)^```$', read_page(name), re.M | re.S)]


def block(name, file):
    """The block of a page that is this file."""
    found = [one.text for one in page(name) if one.file == file]
    assert len(found) == 1, '%s: %d blocks of %s' % (name, len(found), file)
    return found[0]


def write_blocks(machine, name, below):
    """The files of a page that lie below a directory."""
    for one in page(name):
        if one.file and one.file.startswith(below):
            machine.write(one.file, one.text)


def cells(name, heading):
    """The rows of the table below a heading: a tuple of cells each."""
    text = re.search(r'^#+ %s\n(.*?)(?=^#|\Z)' % re.escape(heading), read_page(name), re.M | re.S).group(1)
    rows = [tuple(cell.strip() for cell in line.strip().strip('|').split('|')) for line in re.findall(r'^\|.*\|$', text, re.M)]
    return rows[2:]


def spans(cell):
    """What a cell has in code."""
    return re.findall('`([^`]+)`', cell)


def changed(text, lines, pattern, before):
    """Lines of a unit or stanza put in the place of those of the same name, or added before the mark, or left out."""
    gone = {re.match(r'\w+', line).group() for line in lines}
    text = ''.join(line for line in text.splitlines(True) if (re.match(pattern, line) or [0, 0])[1] not in gone)
    kept = [line for line in lines if re.match(pattern, line)]
    return text.replace(before, '\n'.join(kept) + '\n' + before, 1)
