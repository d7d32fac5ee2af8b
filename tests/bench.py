"""What capdrop costs, beside Python itself, the same job in C, and its peers.
docs/performance.md says how to read it.  Prints Markdown.

Every contender runs once a round, in an order that changes; the first round is not counted.
A ratio is the median of the ratios within one round, with an interval in which the true
median is in 95 of 100 cases.
"""
import argparse
import glob
import grp
import json
import locale
import os
import platform
import pwd
import random
import shutil
import subprocess
import sys
import tempfile
import time

TESTS = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(TESTS)
CAPDROP, INSTALLED = os.path.join(TOP, 'capdrop.py'), os.path.join(TOP, 'docs', 'capdrop')
ENV = {name: value for name, value in os.environ.items()
       if not name.startswith(('PYTHON', 'LC_', 'LANG'))}
ENV['LC_ALL'] = 'C.UTF-8'
SYSTEM_PYTHON = '/usr/bin/python3'

USER, GROUP, GROUPS, CAPS = 'daemon', 'daemon', ('mail', 'lp'), ('net_bind_service', 'kill')
TEXT = 'cap_%s,cap_%s+ep' % CAPS
CONF = """Security {
  user = %s
  group = %s
  supplemental_groups = ( "%s" "%s" )
  capabilities = "%s"
}
""" % ((USER, GROUP) + GROUPS + (TEXT,))

# ------------------------------------------------------------------ what is read
#
# Shapes of configurations, each as a piece with %d in it that is repeated up to 10 MB.

VENDOR = r"""ESMTP_Listener {
  # listener %d: don't open it to everyone
  Listen "*:25" {
    Banner = "220 mail ESMTP [ready]"    # {HOSTNAME} is not expanded
    Relay_Hosts = ( 127.0.0.0/8 10.10.10.0/24 )
  }
  #Listen "[::1]:25" {}
}
Binding_Group "group1" {
  Binding "b1" {
    EHLO_Hostname = mta.example.com
    Domain "/^(yahoo|ymail)\.com$/" {
      Max_Outbound_Connections = 20
    }
  }
}
Datasource "cache1" {
  uri = ( "mysql:host=db.example.com;dbname=mail" )
  query = "SELECT id FROM users WHERE name = '{user}' (1)"
}
"""
SHAPES = {
    "the vendor's style": VENDOR,
    'one stanza a line': 'Domain "d%d.example.com" { Max_Outbound_Connections = 20 }\n',
    'nested user =': 'Datasource "ds%d" {\n  user = "mail"\n  group = "mail"\n}\n',
    'comments with our names': '# user, group and security of %d, see include "x"\nA = b\n',
    '/* */ comments': '/* listener %d {\n   is off */\nListener "l" {\n  Port = 25 /* ssl */\n}\n',
    'escaped quotes': 'Listener "l%d" {\n  Banner = "220 \\"mail\\" \\\\ {"\n}\n',
    'indented }': '  Listener "l%d" {\n    Port = 25\n    }\n',
    'bare /regex/': 'Binding "g%d" {\n  Domain /^(a|b)\\.com$/ {\n    Limit = 2\n  }\n}\n',
    'quoted /regex/': 'Binding "g%d" {\n  Domain "/^[ab]{2}\\.com$/" {\n    Limit = 2\n  }\n}\n',
    'names that hold ours': 'Binding_Group "g%d" {\n  Superuser = "user"\n}\n',
    'global assignments': 'Name_%d = "value of it"\nOther = 25\n',
    'CRLF': 'Listener "l%d" {\r\n  Port = 25\r\n  # "off\r\n}\r\n',
    'UTF-8': 'Listener "l%d" {\n  Banner = "Grüße – добрый день"  # größer\n}\n',
    'paths': 'Log "l%d" {\n  path = /var/log/mail/main.log\n  Old /var/log/mail {\n  }\n}\n',
}
WHOLE = {                                       # (before, the piece, after)
    'one outer stanza': ('Everything {\n', '  Listener "l%d" {\n    Port = 25\n  }\n', '}\n'),
    'a long list': ('Relay {\n  Hosts = (\n', '    10.1.%d.0/24\n', '  )\n}\n'),
}
WORST = 'bare /regex/'          # of all shapes that were tried: twice as much may be taken
INSTALLATION = 100000           # bytes: the configuration of a real installation


def configuration(size, piece, before='', after=''):
    """A text of about this size with the stanza last."""
    count = size // len(piece.encode())
    return before + ''.join(piece % number for number in range(count)) + after + CONF


# ---------------------------------------------------------- programs that are measured

IDS = """import grp, os, pwd, sys
uid, gid = pwd.getpwnam(%r).pw_uid, grp.getgrnam(%r).gr_gid
groups = [grp.getgrnam(name).gr_gid for name in %r]
caps = %r
def ids():
    os.setgroups(groups), os.setresgid(gid, gid, gid), os.setresuid(uid, uid, uid)
def check():
    assert os.getresuid() == (uid,) * 3 and os.getresgid() == (gid,) * 3
    assert sorted(os.getgroups()) == sorted(groups)
""" % (USER, GROUP, GROUPS, CAPS)
PEERS = {                       # module: a program that does as much of the job as it can
    'pyprctl': IDS + """import pyprctl as p
keep = {getattr(p.Cap, name.upper()) for name in caps}
p.cap_ambient_clear_all()
p.set_keepcaps(True)
for cap in p.capbset.probe() - keep:
    p.capbset_drop(cap)
ids()
p.set_keepcaps(False)
p.CapState(effective=keep, permitted=keep, inheritable=keep).set_current()
for cap in keep:
    p.cap_ambient_raise(cap)
p.set_no_new_privs()
now = p.CapState.get_current()
assert now.effective == now.permitted == now.inheritable == keep
assert p.capbset.probe() == p.cap_ambient.probe() == keep and p.get_no_new_privs()
check()
""",
    'prctl': IDS + """import prctl as p
keep = [getattr(p, 'CAP_' + name.upper()) for name in caps]
p.set_keepcaps(True)
for cap in p.ALL_CAPS:
    if cap not in keep and p.capbset_read(cap):
        p.capbset_drop(cap)
ids()
p.cap_permitted.limit(*keep)
p.set_caps((keep, (p.CAP_PERMITTED, p.CAP_EFFECTIVE, p.CAP_INHERITABLE), True))
p.set_no_new_privs(1)
assert all(getattr(p.cap_permitted, name) == (name in caps) for name in p.ALL_CAP_NAMES)
assert p.get_no_new_privs()
check()
""",
    'capng': IDS + """import capng as c
os.setgroups(groups)
c.capng_clear(c.CAPNG_SELECT_ALL)
sets = c.CAPNG_EFFECTIVE | c.CAPNG_PERMITTED | c.CAPNG_INHERITABLE
for name in caps:
    cap = c.capng_name_to_capability(name)
    c.capng_update(c.CAPNG_ADD, sets | c.CAPNG_BOUNDING_SET | c.CAPNG_AMBIENT, cap)
assert c.capng_apply(c.CAPNG_SELECT_BOUNDS) == 0
assert c.capng_change_id(uid, gid, c.CAPNG_NO_FLAG) == 0
assert c.capng_apply(c.CAPNG_SELECT_CAPS | c.CAPNG_SELECT_AMBIENT) == 0
c.capng_get_caps_process()
assert all(c.capng_have_capability(c.CAPNG_EFFECTIVE, c.capng_name_to_capability(name))
           for name in caps)
check()
""",
    'daemon': IDS + """import daemon.daemon
daemon.daemon.change_process_owner(uid, gid)
"""}
SHOWN = {'capng': "libcap-ng's Python binding", 'prctl': 'python-prctl',
         'daemon': 'python-daemon', 'pyprctl': 'pyprctl'}

WRAPPER = """#!%s -IS
import gc
import sys

gc.disable()
sys.path.insert(0, %r)

import capdrop

sys.exit(capdrop.main())
"""
MARKED = """import capdrop, grp, os, pwd, time
security = capdrop.load(%r)
pwd.getpwnam(%r), [grp.getgrnam(name) for name in %r]
%s
os.path.exists('/begin-of-drop')
start = time.process_time()
capdrop.drop(security)
end = time.process_time()
os.path.exists('/end-of-drop')
print(end - start)
"""
IMPORT = """import sys, time
start = time.process_time()
import %s
print(time.process_time() - start)
"""
TIMED = """import capdrop, os, sys, time
%s
start = time.process_time()
%s
print(time.process_time() - start, flush=True)
os._exit(0)                                     # also with threads
"""
GROWTH = {                      # what: (how many at first, what prepares N, what is measured)
    'numeric groups': (
        500, 'groups = range(9000, 9000 + N)\n'
        'asked = capdrop.Security(user=1, group=1, supplemental_groups=groups)',
        'capdrop.plan(asked)'),
    'includes': (500, '', 'capdrop.load("includes%d.conf" % N)'),
    'descriptors': (
        4000, 'import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))\n'
        'kept = [open(capdrop.__file__) for _ in range(N)]\n'
        'asked = capdrop.Security(user=1, group=1)', 'capdrop.plan(asked)'),
    'threads audited': (
        50, 'import threading\nlock = threading.Lock()\nlock.acquire()\n'
        'threads = [threading.Thread(target=lock.acquire, daemon=True) for _ in range(N)]\n'
        '[thread.start() for thread in threads]\n'
        'asked = capdrop.Security(user=1, group=1)', 'capdrop.audit(asked, os.getpid())'),
}

COMMAND = '<command>'           # in a launcher's arguments: what it launches
PASS, AGAIN, LIMIT = 'python3 -c pass', 'python3 -c pass, again', 'the same in C'
CACHED, WRAPPED = 'capdrop exec, installed', 'the documented wrapper'
SCRIPT, MODULE, ZIPPED = 'python3 -I capdrop.py exec', 'python3 -m capdrop exec', 'a zipapp'
SAME, BARE = 'drop() in C', 'drop() in C, without the checks'
DROP, FIRST = 'drop()', 'drop(), loading libraries first'
WC, NOTHING, FULL = 'wc of %s', 'wc of nothing', 'installed, 100 KB of configuration'
OURS, THEIRS = 'import capdrop', 'import ctypes, os, pwd, grp'
TWICE = 'twice as many '

# What, against what, which figure, at most.  `less` both sides are without what they cost
# with nothing to do.
GOALS = [
    (CACHED, PASS, 'cpu_us', 1.52),
    (WRAPPED, PASS, 'cpu_us', 1.45),
    (CACHED, 'pyprctl', 'cpu_us', 0.38),
    (DROP, SAME, 'cpu_us', 4.0),
    (DROP, None, 'system_calls', 460),
] + [(shape, WC % shape, 'cpu_us', 20 if shape == WORST else 10) for shape in list(SHAPES) + list(WHOLE)] + [
    (FULL, CACHED, 'more_cpu', 0.25),
    (OURS, THEIRS, 'cpu_us', 1.0),
    (CACHED, PASS, 'peak_kib', 1.30),
] + [(TWICE + what, what, 'cpu_us', 2.1) for what in GROWTH]
FIGURES = {'cpu_us': '', 'system_calls': ', system calls', 'more_cpu': ', what it adds',
           'peak_kib': ', peak memory'}
HEADINGS = ['| what | against | at most | measured | interval | |',
            '| | CPU us | peak MiB | system calls | / python3 | / limit | ends otherwise in |']
FIELDS = 'Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs'.split()


# ------------------------------------------------------------------------ contenders

class Contender:
    """A command that is measured.

    base        the contender that is its interpreter doing nothing
    own_clock   it prints the seconds that count itself
    less        the contender whose cost in the same round is taken off
    every       it runs in each round, or in each third one
    samples     {figure: {round: value}}
    ends_as     what it launched was like, from /proc/PID/status
    """
    system_calls = ends_as = None

    def __init__(self, name, kind, argv, base=PASS, own_clock=False, less=None, every=1):
        self.name = name
        self.kind = kind
        self.argv = argv
        self.base = base
        self.own_clock = own_clock
        self.less = less
        self.every = every
        self.samples = {'cpu_us': {}, 'peak_kib': {}}

    def command(self, launched):
        argv = [word.replace(COMMAND, launched[0]) for word in self.argv]
        if self.kind in ('launcher', 'start'):
            argv += launched[1:]
        argv[0] = shutil.which(argv[0])
        return argv

    def run(self, runner, launched):
        """Once: (standard output, CPU time in microseconds, peak memory in KiB or None)."""
        argv = runner + self.command(launched)
        process = subprocess.Popen(argv, env=ENV, stdout=subprocess.PIPE, cwd='/')
        with process.stdout as pipe:
            out = pipe.read().decode()
        process.returncode, usage = os.wait4(process.pid, 0)[1:]
        status, cpu, kib = process.returncode, (usage.ru_utime + usage.ru_stime) * 1e6, None
        if runner:
            out, _, figures = out.rpartition('@')
            cpu, kib, status = map(int, figures.split())
        if status:
            raise subprocess.CalledProcessError(status, argv[0])
        if self.own_clock:
            return out, float(out) * 1e6, None
        return out, cpu, kib

    def measure(self, runner, number):
        """In round `number`; 0 is not counted."""
        if number == 0 and self.kind in ('launcher', 'start'):
            self.ends_as = self.how_it_ends(runner)
        _, cpu, kib = self.run(runner, [shutil.which('true')])
        if number:
            self.samples['cpu_us'][number] = cpu
            self.samples['peak_kib'][number] = kib

    def how_it_ends(self, runner):
        pattern = '^(%s):' % '|'.join(FIELDS)
        out = self.run(runner, [shutil.which('grep'), '-E', pattern, '/proc/self/status'])[0]
        lines = (line.split(':') for line in out.splitlines())
        return {name: value.strip() for name, value in lines}

    def count_system_calls(self, top):
        """Between its marks, which are files that do not exist.  strace(1)"""
        trace = top + '/trace'
        argv = ['strace', '-qq', '-o', trace] + self.command([shutil.which('true')])
        subprocess.call(argv, env=ENV, stdout=subprocess.DEVNULL, cwd='/')
        with open(trace) as file:
            lines = file.readlines()
        marks = [number for number, line in enumerate(lines)
                 if '"/begin-of-drop"' in line or '"/end-of-drop"' in line]
        if len(marks) == 2:
            self.system_calls = marks[1] - marks[0] - 1

    def middle(self, figure='cpu_us'):
        """The median, or None where it was not measured."""
        values = self.samples[figure].values()
        return None if not values or None in values else median(values)


def median(values):
    values = sorted(values)
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2.0


def interval(values):
    """(low, high): the median of what they are a sample of, in 95 of 100 cases."""
    values = sorted(values)
    reach = 0.98 * len(values) ** 0.5
    low = int(len(values) / 2.0 - reach) - 1
    high = int(len(values) / 2.0 + reach + 1)
    return values[max(low, 0)], values[min(high, len(values) - 1)]


# ------------------------------------------------------------------ what is prepared

def write(path, text, mode=0o644):
    with open(path, 'w', encoding='utf-8', newline='') as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def venv(directory, python):
    """A clean virtual environment: (its interpreter, its site-packages)."""
    subprocess.check_call([python, '-m', 'venv', '--without-pip', directory], env=ENV)
    return directory + '/bin/python3', glob.glob(directory + '/lib/python3*/site-packages')[0]


def location(python, module, directory):
    """The directory that `python` imports a module from, or None."""
    code = 'import sys; sys.path[:0] = %r; import %s as m; print(m.__file__)'
    process = subprocess.Popen([python, '-I', '-c', code % (directory, module)], env=ENV,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    path = process.communicate()[0].decode().strip().replace('/__init__.py', '')
    return None if process.returncode else os.path.dirname(path)


def python_peers(top, python, homes, directory):
    """Each in a clean environment of an interpreter that can import it, beside that
    interpreter doing nothing."""
    interpreters = [python]
    if os.path.exists(SYSTEM_PYTHON):
        interpreters.append(SYSTEM_PYTHON)
    for module in sorted(PEERS):
        for interpreter in interpreters:
            place = location(interpreter, module, directory)
            if place:
                break
        else:
            continue
        base = PASS if interpreter == python else interpreter + ' -c pass'
        if interpreter not in homes:
            homes[interpreter] = venv(top + '/other', interpreter)
            yield Contender(base, 'python', [homes[interpreter][0], '-c', 'pass'], base)
        home, site = homes[interpreter]
        copy_module(place, module, site)
        program = PEERS[module] + 'os.execv(sys.argv[1], sys.argv[1:])\n'
        write('%s/bench_%s.py' % (site, module), program)
        yield Contender(SHOWN[module], 'launcher',
                        [home, '-c', 'import bench_' + module, COMMAND], base)


def copy_module(place, module, site):
    for pattern in '%s/%s*', '%s/_%s*':
        for path in glob.glob(pattern % (place, module)):
            copy = shutil.copytree if os.path.isdir(path) else shutil.copy
            copy(path, site + '/' + os.path.basename(path))


def tools():
    """The peers that are not Python."""
    sets = '-all,+' + ',+'.join(CAPS)
    yield Contender('setpriv', 'launcher', [
        'setpriv', '--reuid', USER, '--regid', GROUP, '--groups', ','.join(GROUPS),
        '--inh-caps', sets, '--ambient-caps', sets, '--bounding-set', sets,
        '--no-new-privs', COMMAND])
    yield Contender('gosu', 'launcher', ['gosu', USER + ':' + GROUP, COMMAND])
    if shutil.which('capsh'):
        yield capsh()


def capsh():
    keep = ['cap_' + name for name in CAPS]
    with open('/proc/self/status') as file:
        mask = [line.split()[1] for line in file if line.startswith('CapBnd')][0]
    decoded = subprocess.check_output(['capsh', '--decode=' + mask]).decode()
    held = decoded.strip().partition('=')[2].split(',')
    return Contender('capsh', 'launcher', [
        'capsh', '--noamb', '--keep=1',
        '--drop=' + ','.join(name for name in held if name not in keep),
        '--groups=' + ','.join(GROUPS), '--gid=%d' % grp.getgrnam(GROUP)[2],
        '--uid=%d' % pwd.getpwnam(USER)[2], '--keep=0', '--caps=%s+eip' % ','.join(keep),
        '--addamb=' + ','.join(keep), '--no-new-privs', '--shell=' + COMMAND, '--'])


def ways_to_start(top, python, home, conf):
    """(installed, wrapper, script, -m, zipapp)"""
    words = ['exec', conf, '--', COMMAND]
    with open(INSTALLED) as file:               # pip puts the interpreter into its first line
        script = '#!%s\n%s' % (home, file.read().partition('\n')[2])
    installed = write(top + '/venv/bin/capdrop', script, 0o755)
    yield Contender(CACHED, 'launcher', [installed] + words)
    appliance = top + '/appliance'
    os.mkdir(appliance)
    shutil.copy(CAPDROP, appliance)
    subprocess.check_call([python, '-m', 'compileall', '-q', appliance], env=ENV)
    wrapper = write(appliance + '/myd', WRAPPER % (os.path.realpath(python), appliance), 0o755)
    yield Contender(WRAPPED, 'start', [wrapper] + words)
    shutil.copy(CAPDROP, top)
    yield Contender(SCRIPT, 'start', [home, '-I', top + '/capdrop.py'] + words)
    yield Contender(MODULE, 'start', [home, '-m', 'capdrop'] + words)
    yield Contender(ZIPPED, 'start', [home, zipped(top, python)] + words)


def zipped(top, python):
    """With the module's bytecode: without it the zip would be compiled at every start."""
    directory = top + '/zip'
    os.mkdir(directory)
    source = shutil.copy(CAPDROP, directory)
    code = 'import py_compile, sys; py_compile.compile(sys.argv[1], cfile=sys.argv[1] + "c")'
    subprocess.check_call([python, '-c', code, source], env=ENV)
    write(directory + '/__main__.py', 'import sys, capdrop\nsys.exit(capdrop.main())\n')
    target = top + '/capdrop.pyz'
    subprocess.check_call([python, '-m', 'zipapp', directory, '-o', target], env=ENV)
    return target


def drops(home, conf, limit):
    for name, before in (DROP, 'capdrop.state()'), (FIRST, ''):
        code = MARKED % (conf, USER, (GROUP,) + GROUPS, before)
        yield Contender(name, 'drop', [home, '-c', code], own_clock=True)
    if limit:
        job = [USER, GROUP] + list(GROUPS) + [TEXT, conf]
        library = location(home, 'os', []) + '/os.py'
        for name, verb in (SAME, 'time'), (BARE, 'unchecked'):
            yield Contender(name, 'drop', [limit, verb] + job + [library], own_clock=True)
        yield Contender(LIMIT, 'launcher', [limit, 'exec'] + job + [COMMAND])


def readings(top, home, installed, size):
    """Each shape and wc(1) on the same file, both without what they need to start."""
    yield Contender(NOTHING, 'wc', ['wc', os.devnull], every=3)
    texts = {name: configuration(size, piece) for name, piece in SHAPES.items()}
    for name, (before, piece, after) in WHOLE.items():
        texts[name] = configuration(size, piece, before, after)
    for number, (name, text) in enumerate(texts.items()):
        path = write('%s/shape%d.conf' % (top, number), text)
        code = TIMED % ('', 'capdrop.load(%r)' % path)
        yield Contender(name, 'load', [home, '-c', code], own_clock=True, every=3)
        yield Contender(WC % name, 'wc', ['wc', path], less=NOTHING, every=3)
    path = write(top + '/installation.conf', configuration(INSTALLATION, VENDOR))
    yield Contender(FULL, 'launcher', [installed, 'exec', path, '--', COMMAND])


def growths(top, home):
    for number in range(1000):
        write('%s/include%d.conf' % (top, number), 'Name = value\n')
    for what, (count, prepare, measured) in GROWTH.items():
        for name, times in (what, 1), (TWICE + what, 2):
            lines = ''.join('include "include%d.conf"\n' % n for n in range(count * times))
            if what == 'includes':
                write('%s/includes%d.conf' % (top, count * times), lines + CONF)
            before = 'os.chdir(%r)\nN = %d\n%s' % (top, count * times, prepare)
            code = TIMED % (before, measured)
            yield Contender(name, 'growth', [home, '-c', code], own_clock=True, every=3)


def prepare(top, python, directory, size):
    """Everything, in the directory `top`: (what runs the contenders, the contenders)."""
    home, site = venv(top + '/venv', python)
    shutil.copy(CAPDROP, site)                  # and its cache, after the first round
    conf = write(top + '/job.conf', CONF)
    limit = compiled(top)
    found = [Contender(PASS, 'python', [home, '-c', 'pass']),
             Contender(AGAIN, 'python', [home, '-c', 'pass'])]
    found += ways_to_start(top, python, home, conf)
    found += tools()
    found += python_peers(top, python, {python: (home, site)}, [directory] if directory else [])
    found += drops(home, conf, limit)
    found += readings(top, home, top + '/venv/bin/capdrop', size)
    for name in OURS, THEIRS:
        code = IMPORT % name[len('import '):]
        found.append(Contender(name, 'import', [home, '-c', code], own_clock=True))
    found += growths(top, home)
    runner = [limit, 'run'] if limit else []
    return runner, [one for one in found if shutil.which(one.argv[0])]


def compiled(top):
    """The program of limit.c, or None."""
    limit = top + '/limit'
    source = os.path.join(TESTS, 'limit.c')
    if not shutil.which('cc'):
        return None
    failed = subprocess.call(['cc', '-O2', '-w', '-o', limit, source, '-l:libcap.so.2'])
    return None if failed else limit


# ------------------------------------------------------------- measured and compared

def measured(runner, contenders, rounds):
    """Those that ran, by name."""
    for number in range(rounds + 1):
        present = [one for one in contenders if number % one.every == 0 or number == 1]
        for one in random.Random(number).sample(present, len(present)):
            try:
                one.measure(runner, number)
            except (subprocess.CalledProcessError, ValueError) as error:
                contenders.remove(one)
                sys.stderr.write('bench.py: left out: %s: %s\n' % (one.name, error))
    return {one.name: one for one in contenders}


def cost(found, one, figure, number):
    """Of one contender in one round, without what is taken off; or None."""
    value = one.samples[figure].get(number)
    if value is None or one.less is None:
        return value
    off = found[one.less].samples[figure].get(number)
    return None if off is None or off >= value else value - off


def ratios(found, one, other, figure):
    """One / other within each round.  Where their interpreters are not the same, each is
    first divided by its interpreter doing nothing."""
    if one not in found or other not in found:
        return []
    a, b = found[one], found[other]
    kind = 'cpu_us' if figure == 'more_cpu' else figure
    result = []
    for number in a.samples[kind]:
        each = [cost(found, who, kind, number) for who in (a, b)]
        if a.base != b.base:
            each += [cost(found, found[who.base], kind, number) for who in (b, a)]
        else:
            each += [1, 1]
        if None not in each:
            result.append(each[0] / each[1] * each[2] / each[3] - (figure == 'more_cpu'))
    return result


def compared(found, goal):
    """(what was measured, low, high), each None where it was not."""
    one, other, figure, _ = goal
    if figure == 'system_calls':
        count = found[one].system_calls if one in found else None
        return count, count, count
    values = ratios(found, one, other, figure)
    if not values:
        return None, None, None
    return (median(values),) + interval(values)


def show(value, form='%.2f'):
    return '-' if value is None else form % value


def verdict(value, most):
    if value is None:
        return 'not measured'
    return 'met' if value <= most else 'missed'


def report(found, about):
    """Lines of Markdown."""
    yield ('%(date)s, %(python)s, Linux %(kernel)s, %(machine)s; %(rounds)d rounds; `wc` in '
           'locale %(locale)s.' % about)
    noise, low, high = compared(found, (AGAIN, PASS, 'cpu_us', 1))
    yield 'Noise: `%s` against itself is %.3f (%.3f to %.3f).\n' % (PASS, noise, low, high)
    yield HEADINGS[0] + '\n|---|---|---:|---:|---|---|'
    for goal in GOALS:
        one, other, figure, most = goal
        value, low, high = compared(found, goal)
        form = '%d' if figure == 'system_calls' else '%.2f'
        between = '' if low == high else '%s to %s' % (show(low), show(high))
        yield '| %s%s | %s | %s | %s | %s | %s |' % (
            one, FIGURES[figure], other or '', form % most, show(value, form), between,
            verdict(value, most))
    yield '\n%s\n|---|%s---|' % (HEADINGS[1], '---:|' * 5)
    for one in found.values():
        if one.kind not in ('load', 'wc', 'growth'):
            yield row(found, one)


def row(found, one):
    limit = SAME if one.kind == 'drop' else LIMIT
    kib = one.middle('peak_kib')
    values = [ratios(found, one.name, other, 'cpu_us') for other in (one.base, limit)]
    otherwise = ''
    if one.ends_as and CACHED in found:
        ours = found[CACHED].ends_as
        otherwise = ' '.join(name for name in FIELDS if one.ends_as[name] != ours[name])
    by_python, by_limit = (median(each) if each else None for each in values)
    return '| %s | %.0f | %s | %s | %s | %s | %s |' % (
        one.name, one.middle(), show(kib and kib / 1024.0, '%.1f'),
        show(one.system_calls, '%d'), show(by_python), show(by_limit), otherwise)


def as_json(found, about):
    about['contenders'] = [
        {'name': one.name, 'kind': one.kind, 'base': one.base, 'ends_as': one.ends_as,
         'system_calls': one.system_calls, 'cpu_us': one.samples['cpu_us'],
         'peak_kib': one.samples['peak_kib']} for one in found.values()]
    about['goals'] = []
    for goal in GOALS:
        value, low, high = compared(found, goal)
        about['goals'].append({'what': goal[0], 'against': goal[1], 'figure': goal[2],
                               'at_most': goal[3], 'measured': value, 'interval': [low, high]})
    return json.dumps(about, indent=1)


def about_this(options):
    version = ('import platform; '
               'print(platform.python_implementation(), platform.python_version())')
    python = subprocess.check_output([options.python, '-c', version], env=ENV)
    return {'date': time.strftime('%Y-%m-%d'), 'rounds': options.rounds,
            'locale': ENV['LC_ALL'], 'kernel': platform.release(),
            'machine': '%s, %d processors' % (platform.machine(), os.cpu_count()),
            'python': python.decode().strip()}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=50,
                        help='how often each contender runs: 50 (what is read, and growth, a '
                        'third of that)')
    parser.add_argument('--python', default=sys.executable,
                        help='the interpreter to measure on: this one')
    parser.add_argument('--size', type=int, default=10000000,
                        help='bytes of each configuration: 10000000')
    parser.add_argument('--peers', metavar='DIRECTORY',
                        help='from where to import pyprctl and python-daemon')
    parser.add_argument('--only', metavar='NAME', help='only what has NAME in its name, and '
                        'what everything is compared with')
    parser.add_argument('--json', metavar='FILE', help='write every figure there too')
    return parser.parse_args()


def chosen(contenders, only):
    if only is None:
        return contenders
    return [one for one in contenders
            if only in one.name or one.kind == 'python' or one.name in (LIMIT, SAME, NOTHING)]


def main():
    options = arguments()
    if os.geteuid() != 0:
        sys.stderr.write('bench.py: run it as root: nobody else has anything to drop\n')
        return 2
    try:
        locale.setlocale(locale.LC_ALL, ENV['LC_ALL'])
    except locale.Error:
        ENV['LC_ALL'] = 'C'
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix='capdrop-bench-') as top:
        os.chmod(top, 0o755)
        runner, contenders = prepare(top, options.python, options.peers, options.size)
        found = measured(runner, chosen(contenders, options.only), options.rounds)
        if shutil.which('strace'):
            for one in found.values():
                if one.kind == 'drop':
                    one.count_system_calls(top)
    about = about_this(options)
    print('\n'.join(report(found, about)))
    if options.json:
        write(options.json, as_json(found, about))
    return 0


if __name__ == '__main__':
    sys.exit(main())
