"""What capdrop costs, beside Python itself, the same job in C, and its peers.  docs/performance.md says how to read it.

Prints Markdown.  Every contender runs once a round, in an order that changes; the first round is not counted; what is
compared are medians.
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

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CAPDROP, INSTALLED = os.path.join(TOP, 'capdrop.py'), os.path.join(TOP, 'docs', 'capdrop')
ENV = dict({name: value for name, value in os.environ.items() if not name.startswith(('PYTHON', 'LC_', 'LANG'))},
           LC_ALL='C.UTF-8')
USER, GROUP, GROUPS, CAPS = 'daemon', 'daemon', ('mail', 'lp'), ('net_bind_service', 'kill')
TEXT = 'cap_%s,cap_%s+ep' % CAPS
CONF = """Security {
  user = %s
  group = %s
  supplemental_groups = ( "%s" "%s" )
  capabilities = "%s"
}
""" % ((USER, GROUP) + GROUPS + (TEXT,))
STANZAS = r"""ESMTP_Listener {
  # listener %d: don't open it to everyone
  Listen "*:%d" {
    Banner = "220 mail ESMTP [ready]"    # {HOSTNAME} is not expanded
    Relay_Hosts = ( 127.0.0.0/8 10.10.10.0/24 )
  }
  #Listen "[::1]:25" {}
}
Binding_Group "group%d" {
  Binding "b%d" {
    EHLO_Hostname = mta.example.com
    Domain "/^(yahoo|ymail)\.com$/" {
      Max_Outbound_Connections = 20
    }
  }
}
Datasource "cache%d" {
  uri = ( "mysql:host=db.example.com;dbname=mail" )
  query = "SELECT id FROM users WHERE name = '{user}' (1)"
}
"""
# The calls that capdrop makes to look, to change, to look again, to try to regain and to look once more.  `run`
# measures a program from this small process: a child's peak memory begins with that of the process it is forked from.
C = '#define _GNU_SOURCE\n' + ''.join('#include <%s.h>\n' % name for name in (
    'dirent errno fcntl grp limits linux/capability pwd sched signal stdint stdio stdlib string sys/fsuid sys/prctl '
    'sys/resource sys/stat sys/syscall sys/wait time unistd').split()) + r'''
typedef void *cap_t;                            /* libcap's header need not be installed */
cap_t cap_from_text(const char *), cap_copy_int(const void *);
ssize_t cap_copy_ext(void *, cap_t, ssize_t);
int cap_set_proc(cap_t), cap_free(void *);
struct state {
  uid_t uid[4]; gid_t gid[4], groups[64]; int count; uint64_t effective, permitted, inheritable, ambient, bounding;
  int securebits, keepcaps, no_new_privs, threads; dev_t device; ino_t inode;
};
static int last, tasks;
static void must(int good, const char *what) { if (!good) { perror(what); _exit(125); } }
static uint64_t bits(int option, int sub) {
  uint64_t set = 0;
  for (int n = 0; n <= last; n++) {
    int bit = sub ? prctl(option, sub, n, 0, 0) : prctl(option, n, 0, 0, 0);
    must(bit >= 0, "prctl"); set |= (uint64_t)bit << n;
  }
  must((sub ? prctl(option, sub, 64, 0, 0) : prctl(option, 64, 0, 0, 0)) == -1, "prctl 64");
  return set;
}
static void look(struct state *s) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct d[2]; struct stat st;
  memset(s, 0, sizeof *s);
  must(!syscall(SYS_capget, &header, d), "capget");
  s->effective = d[0].effective | (uint64_t)d[1].effective << 32;
  s->permitted = d[0].permitted | (uint64_t)d[1].permitted << 32;
  s->inheritable = d[0].inheritable | (uint64_t)d[1].inheritable << 32;
  s->ambient = bits(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET); s->bounding = bits(PR_CAPBSET_READ, 0);
  must(!getresuid(s->uid, s->uid + 1, s->uid + 2) && !getresgid(s->gid, s->gid + 1, s->gid + 2), "getresuid");
  s->uid[3] = setfsuid(-1); s->gid[3] = setfsgid(-1);
  must((s->count = getgroups(64, s->groups)) >= 0, "getgroups");
  s->securebits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0); s->keepcaps = prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0);
  s->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  must(!unshare(CLONE_VM) && !fstat(tasks, &st), "threads"); s->threads = st.st_nlink - 2;
  must(!stat("/", &st), "/"); s->device = st.st_dev; s->inode = st.st_ino;
}
static cap_t make(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
  unsigned char ext[29] = "\x90\xc2\x01\x51\x08";
  for (int i = 0; i < 8; i++) {
    ext[5 + 3 * i] = effective >> 8 * i; ext[6 + 3 * i] = permitted >> 8 * i; ext[7 + 3 * i] = inheritable >> 8 * i;
  }
  cap_t cap = cap_copy_int(ext); must(cap != NULL, "cap_copy_int"); return cap;
}
static gid_t group(const char *name) { struct group *g = getgrnam(name); must(g != NULL, name); return g->gr_gid; }
static int contains(const char *path, const char *what) {       /* the whole of a file of /proc */
  static char text[1 << 20]; size_t size = 0; ssize_t n; int fd = open(path, O_RDONLY | O_CLOEXEC);
  must(fd >= 0, path);
  while ((n = read(fd, text + size, sizeof text - 1 - size)) > 0) size += n;
  must(n == 0 && !close(fd), path); text[size] = 0; return strstr(text, what) != NULL;
}
static int may_enter(const struct stat *st, uid_t u, gid_t g, const gid_t *groups) {
  int other = st->st_gid == g || st->st_gid == groups[0] || st->st_gid == groups[1] ? 3 : 0;
  return st->st_mode >> (st->st_uid == u ? 6 : other) & 1;
}
/* What capdrop looks at besides, before the first change; `library` is a file of Python's, absent for a launch. */
static void check(uid_t u, gid_t g, const gid_t *groups, const char *library) {
  char name[64], path[PATH_MAX], *slash; struct stat st; siginfo_t info; struct dirent *entry; DIR *fds;
  must(!contains("/proc/self/setgroups", "deny"), "setgroups");
  for (int n = 0; n < 16; n++)                  /* io_uring_enter(2), IORING_ENTER_REGISTERED_RING */
    must(syscall(426, n, 0, 0, 16, NULL, 0) && errno != EBADFD, "io_uring registered");
  must(!library || !contains("/proc/self/maps", "anon_inode:[io_uring]"), "io_uring mapped");
  must((fds = opendir("/proc/self/fd")) != NULL, "/proc/self/fd");
  while ((entry = readdir(fds)))
    if (entry->d_name[0] != '.' && !fstat(atoi(entry->d_name), &st) &&
        (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || !(st.st_mode & S_IFMT))) {
      sprintf(name, "/proc/self/fd/%s", entry->d_name);
      ssize_t n = readlink(name, path, sizeof path - 1); must(n > 0, name);
      path[n] = 0; must(strcmp(path, "anon_inode:[io_uring]"), "io_uring");
    }
  closedir(fds);
  waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
  if (library && realpath(library, path))
    for (slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
      *slash = 0; may_enter((stat(path, &st), &st), u, g, groups); *slash = '/';
    }
}
static void job(char **arg, int launching, int checking) {      /* user group group1 group2 text library */
  struct state found, goal, now; unsigned char ext[64]; uint64_t set = 0; sigset_t all, mask; struct stat st;
  struct passwd *user = getpwnam(arg[0]); must(user != NULL, arg[0]);
  uid_t u = user->pw_uid; gid_t g = group(arg[1]), groups[2] = {group(arg[2]), group(arg[3])};
  cap_t cap = cap_from_text(arg[4]); must(cap && cap_copy_ext(ext, cap, sizeof ext) == 29, arg[4]); cap_free(cap);
  for (int i = 0; i < 8; i++) set |= (uint64_t)ext[6 + 3 * i] << 8 * i;
  for (last = 0; prctl(PR_CAPBSET_READ, last + 1, 0, 0, 0) >= 0; last++) ;
  sigfillset(&all); must(!sigprocmask(SIG_SETMASK, &all, &mask), "sigprocmask");
  must((tasks = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0, "/proc/self/task");
  look(&found); must((found.permitted & set) == set && found.threads == 1, "rights");
  if (checking) check(u, g, groups, launching ? NULL : arg[5]);
  goal = found; memset(goal.groups, 0, sizeof goal.groups);
  for (int i = 0; i < 4; i++) { goal.uid[i] = u; goal.gid[i] = g; }
  goal.count = 2; goal.groups[0] = groups[0]; goal.groups[1] = groups[1];
  if (groups[0] > groups[1]) { goal.groups[0] = groups[1]; goal.groups[1] = groups[0]; }
  goal.effective = goal.permitted = set; goal.inheritable = goal.ambient = launching ? set : 0;
  goal.bounding &= set; goal.no_new_privs = 1; goal.keepcaps = 0;
  cap_t wanted = make(set, set, goal.inheritable), before = make(found.permitted, found.permitted, 0);
  must(!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) && !prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl");
  for (int n = 0; n <= last; n++)
    if ((found.bounding & ~goal.bounding) >> n & 1) must(!prctl(PR_CAPBSET_DROP, n, 0, 0, 0), "PR_CAPBSET_DROP");
  must(!setgroups(2, groups) && !setresgid(g, g, g) && !setresuid(u, u, u) && !prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) &&
       !cap_set_proc(wanted), "drop");
  for (int n = 0; n <= last; n++)
    if (goal.ambient >> n & 1) must(!prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, n, 0, 0), "PR_CAP_AMBIENT_RAISE");
  must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
  look(&now); must(!memcmp(&now, &goal, sizeof goal), "reading back");
  must(setresuid(0, 0, 0) && setresgid(0, 0, 0) && setgroups(found.count, found.groups) && cap_set_proc(before),
       "regain");
  look(&now); must(!memcmp(&now, &goal, sizeof goal), "reading back again");
  must(!close(tasks) && fstat(tasks, &st) && !sigprocmask(SIG_SETMASK, &mask, NULL), "end");
}
static double cpu(void) {
  struct timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); return t.tv_sec + t.tv_nsec / 1e9;
}
int main(int argc, char **argv) {
  if (argc < 3) return 2;
  if (!strcmp(argv[1], "run")) {
    struct rusage r; int status; pid_t pid = vfork();
    if (!pid) { execv(argv[2], argv + 2); _exit(127); }
    must(wait4(pid, &status, 0, &r) == pid, "wait4");
    printf("@ %ld %ld %d\n", (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000 + r.ru_utime.tv_usec +
           r.ru_stime.tv_usec, r.ru_maxrss, status);
  } else if (!strcmp(argv[1], "exec")) {
    job(argv + 2, 1, 1); execv(argv[7], argv + 7); return 126;
  } else {                                      /* time: with the checks; unchecked: without */
    getpwnam(argv[2]); group(argv[3]); group(argv[4]); group(argv[5]);
    double start = cpu(); job(argv + 2, 0, !strcmp(argv[1], "time")); printf("%.9f\n", cpu() - start);
  }
  return 0;
}
'''
IDS = """import grp, os, pwd, sys
uid, gid = pwd.getpwnam(%r).pw_uid, grp.getgrnam(%r).gr_gid
groups = [grp.getgrnam(name).gr_gid for name in %r]
def ids():
    os.setgroups(groups), os.setresgid(gid, gid, gid), os.setresuid(uid, uid, uid)
def check():
    assert os.getresuid() == (uid,) * 3 and os.getresgid() == (gid,) * 3 and sorted(os.getgroups()) == sorted(groups)
    assert p.get_no_new_privs()
""" % (USER, GROUP, GROUPS)
PEERS = {                                       # module -> a program that does as much of the job as it can
    'pyprctl': IDS + """import pyprctl as p
keep = {p.Cap.%s, p.Cap.%s}
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
assert now.effective == now.permitted == now.inheritable == p.capbset.probe() == p.cap_ambient.probe() == keep
check()
""" % tuple(name.upper() for name in CAPS),
    'prctl': IDS + """import prctl as p
keep = (p.CAP_%s, p.CAP_%s)
p.set_keepcaps(True)
for cap in p.ALL_CAPS:
    if cap not in keep and p.capbset_read(cap):
        p.capbset_drop(cap)
ids()
p.cap_permitted.limit(*keep)
p.set_caps((keep, (p.CAP_PERMITTED, p.CAP_EFFECTIVE, p.CAP_INHERITABLE), True))
p.set_no_new_privs(1)
assert all(getattr(p.cap_permitted, name) == (name in %r) for name in p.ALL_CAP_NAMES)
check()
""" % (tuple(name.upper() for name in CAPS) + (CAPS,)),
    'daemon': IDS + """import daemon.daemon
daemon.daemon.change_process_owner(uid, gid)
"""}
IN_PROCESS = """import capdrop, grp, pwd, time
security = capdrop.load(%%r)
pwd.getpwnam(%r), [grp.getgrnam(name) for name in %r]
%%s
start = time.process_time()
capdrop.drop(security)
print(time.process_time() - start)""" % (USER, (GROUP,) + GROUPS)
IMPORT = 'import sys, time; start = time.process_time(); import %s; print(time.process_time() - start)'
COMMAND = '<command>'                           # in a launcher's arguments: what it launches
PASS, AGAIN, LIMIT = 'python3 -c pass', 'python3 -c pass, again', 'the same in C'
CACHED, SCRIPT = 'capdrop exec, installed', 'python3 -I capdrop.py exec'
SAME, BARE = 'drop() in C', 'drop() in C, without the checks'
DROP, FIRST, LOAD, WC = 'drop()', 'drop(), loading libcap first', 'capdrop.load() of 10 MB', 'wc of 10 MB'
OURS, THEIRS = 'import capdrop', 'import ctypes, os, pwd, grp'
GOALS = [                                       # what, to what, which figure, at most
    (CACHED, PASS, 'cpu_us', 1.25), (SCRIPT, PASS, 'cpu_us', 2.2), (CACHED, 'pyprctl', 'cpu_us', 0.32),
    (OURS, THEIRS, 'cpu_us', 1.10), (DROP, SAME, 'cpu_us', 2.5), (LOAD, WC, 'cpu_us', 3.0),
    (CACHED, PASS, 'peak_kib', 1.25)]
HEADINGS = ['| what | to what | at most | measured | |',
            '| | CPU us | quartiles | peak MiB | / python3 | / limit | capdrop / it | ends otherwise in |']
FIELDS = 'Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs'.split()     # of /proc/PID/status


class Contender:
    """base: its interpreter doing nothing; own_clock: it prints the seconds that count itself."""

    def __init__(self, name, kind, argv, base=PASS, own_clock=False):
        self.name, self.kind, self.argv, self.base, self.own_clock = name, kind, argv, base, own_clock
        self.samples, self.ends_as = {'cpu_us': [], 'peak_kib': []}, None

    def run(self, runner, command):
        """Once: (standard output, CPU time in microseconds, peak memory in KiB or None)."""
        argv = [word.replace(COMMAND, command[0]) for word in self.argv] + command[1:] * (self.kind == 'launcher')
        argv[0] = shutil.which(argv[0])
        process = subprocess.Popen(runner + argv, env=ENV, stdout=subprocess.PIPE, cwd='/')
        with process.stdout as pipe:
            out = pipe.read().decode()
        process.returncode, usage = os.wait4(process.pid, 0)[1:]
        status, cpu, kib = process.returncode, (usage.ru_utime + usage.ru_stime) * 1e6, None
        if runner:
            out, _, figures = out.rpartition('@')
            cpu, kib, status = map(int, figures.split())
        if status:
            raise subprocess.CalledProcessError(status, argv[0])
        return (out, float(out) * 1e6, None) if self.own_clock else (out, cpu, kib)

    def measure(self, runner, counted):
        if self.kind == 'launcher' and not counted:
            out = self.run(runner, [shutil.which('grep'), '-E', '^(%s):' % '|'.join(FIELDS), '/proc/self/status'])[0]
            self.ends_as = {name: value.strip() for name, value in (line.split(':') for line in out.splitlines())}
        figures = self.run(runner, [shutil.which('true')])[1:]
        for figure, value in zip(('cpu_us', 'peak_kib'), figures if counted else ()):
            self.samples[figure].append(value)

    def quartiles(self, figure='cpu_us'):
        """Lower quartile, median, upper quartile; None where it was not measured."""
        values = self.samples[figure]
        if None in values:
            return None, None, None
        values, ranks = sorted(values), [(len(values) - 1) * part for part in (0.25, 0.5, 0.75)]
        return tuple((values[int(rank)] + values[int(rank + 0.5)]) / 2.0 for rank in ranks)


def write(path, text, mode=0o644):
    with open(path, 'w') as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def venv(directory, python):
    """A clean virtual environment: (its interpreter, its site-packages)."""
    subprocess.check_call([python, '-m', 'venv', '--without-pip', directory], env=ENV)
    return directory + '/bin/python3', glob.glob(directory + '/lib/python3*/site-packages')[0]


def location(python, module, directory):
    """The directory that `python` imports a module from, or None."""
    code = 'import sys; sys.path[:0] = %r; import %s as m; print(m.__file__)' % (directory, module)
    process = subprocess.Popen([python, '-I', '-c', code], env=ENV, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    path = process.communicate()[0].decode().strip().replace('/__init__.py', '')
    return None if process.returncode else os.path.dirname(path)


def python_peers(top, python, homes, directory):
    """Each in a clean environment of an interpreter that can import it, beside that interpreter doing nothing."""
    for module in sorted(PEERS):
        interpreters = [python] + ['/usr/bin/python3'] * os.path.exists('/usr/bin/python3')
        places = [(interpreter, location(interpreter, module, directory)) for interpreter in interpreters]
        for interpreter, place in [pair for pair in places if pair[1]][:1]:
            base = PASS if interpreter == python else interpreter + ' -c pass'
            if interpreter not in homes:
                homes[interpreter] = venv(top + '/other', interpreter)
                yield Contender(base, 'python', [homes[interpreter][0], '-c', 'pass'], base)
            home, site = homes[interpreter]
            for path in glob.glob('%s/%s*' % (place, module)) + glob.glob('%s/_%s*' % (place, module)):
                (shutil.copytree if os.path.isdir(path) else shutil.copy)(path, site + '/' + os.path.basename(path))
            write('%s/bench_%s.py' % (site, module), PEERS[module] + 'os.execv(sys.argv[1], sys.argv[1:])\n')
            yield Contender(module, 'launcher', [home, '-c', 'import bench_' + module, COMMAND], base)


def tools():
    """The peers that are not Python."""
    sets, keep = '-all,+' + ',+'.join(CAPS), ['cap_' + name for name in CAPS]
    yield Contender('setpriv', 'launcher', [
        'setpriv', '--reuid', USER, '--regid', GROUP, '--groups', ','.join(GROUPS), '--inh-caps', sets,
        '--ambient-caps', sets, '--bounding-set', sets, '--no-new-privs', COMMAND])
    yield Contender('gosu', 'launcher', ['gosu', USER + ':' + GROUP, COMMAND])
    if shutil.which('capsh'):
        with open('/proc/self/status') as file:
            mask = [line.split()[1] for line in file if line.startswith('CapBnd')][0]
        held = subprocess.check_output(['capsh', '--decode=' + mask]).decode().strip().partition('=')[2].split(',')
        yield Contender('capsh', 'launcher', [
            'capsh', '--noamb', '--keep=1', '--drop=' + ','.join(name for name in held if name not in keep),
            '--groups=' + ','.join(GROUPS), '--gid=%d' % grp.getgrnam(GROUP)[2], '--uid=%d' % pwd.getpwnam(USER)[2],
            '--keep=0', '--caps=%s+eip' % ','.join(keep), '--addamb=' + ','.join(keep), '--no-new-privs',
            '--shell=' + COMMAND, '--'])


def prepare(top, python, directory):
    """Everything, in the directory `top`: (what runs the contenders, the contenders)."""
    (home, site), limit, conf = venv(top + '/venv', python), top + '/limit', write(top + '/job.conf', CONF)
    shutil.copy(CAPDROP, top)
    shutil.copy(CAPDROP, site)                  # and its cache, after the first round: as installed
    with open(INSTALLED) as file:               # pip puts the interpreter into its first line
        script = '#!%s\n%s' % (home, file.read().partition('\n')[2])
    installed, job = write(top + '/venv/bin/capdrop', script, 0o755), [USER, GROUP] + list(GROUPS) + [TEXT]
    big = write(top + '/big.conf', ''.join(STANZAS % ((n,) * 5) for n in range(10000000 // len(STANZAS))) + CONF)
    compiled = shutil.which('cc') and not subprocess.call(
        ['cc', '-O2', '-o', limit, write(limit + '.c', C), '-l:libcap.so.2'])
    found = [Contender(PASS, 'python', [home, '-c', 'pass']), Contender(AGAIN, 'python', [home, '-c', 'pass']),
             Contender(CACHED, 'launcher', [installed, 'exec', conf, '--', COMMAND]),
             Contender(SCRIPT, 'launcher', [home, '-I', top + '/capdrop.py', 'exec', conf, '--', COMMAND])]
    found += list(tools()) + list(python_peers(top, python, {python: (home, site)}, [directory] if directory else []))
    for name, before in ((DROP, 'capdrop.state()'), (FIRST, '')):
        found.append(Contender(name, 'drop', [home, '-c', IN_PROCESS % (conf, before)], own_clock=True))
    if compiled:
        library = location(home, 'os', []) + '/os.py'
        found += [Contender(name, 'drop', [limit, verb] + job + [library], own_clock=True)
                  for name, verb in ((SAME, 'time'), (BARE, 'unchecked'))]
        found.append(Contender(LIMIT, 'launcher', [limit, 'exec'] + job + [COMMAND]))
    found += [Contender(LOAD, 'load', [home, '-c', 'import capdrop; capdrop.load(%r)' % big]),
              Contender(WC, 'load', ['wc', big])]
    found += [Contender(name, 'import', [home, '-c', IMPORT % name[7:]], own_clock=True) for name in (OURS, THEIRS)]
    return [limit, 'run'] if compiled else [], [one for one in found if shutil.which(one.argv[0])]


def measured(runner, contenders, rounds):
    """Those that ran, by name."""
    for number in range(rounds + 1):
        for one in random.Random(number).sample(contenders, len(contenders)):       # no one always after the same
            try:
                one.measure(runner, number > 0)
            except (subprocess.CalledProcessError, ValueError) as e:
                contenders.remove(one)
                sys.stderr.write('bench.py: left out: %s: %s\n' % (one.name, e))
    return {one.name: one for one in contenders}


def ratio(found, one, other, figure='cpu_us'):
    """one / other, or None; where their interpreters are not the same, each first / its interpreter doing nothing."""
    a, b = found.get(one), found.get(other)
    values = [each.quartiles(figure)[1] for each in (a, b, found[b.base], found[a.base])] if a and b else [None]
    return None if None in values else values[0] / values[1] * values[2] / values[3]


def show(value, form='%.2f'):
    return '-' if value is None else form % value


def report(found, about):
    """Lines of Markdown."""
    low, _, high = found[PASS].quartiles()
    yield '%(date)s, %(python)s, Linux %(kernel)s, %(machine)s; %(rounds)d rounds; `wc` in locale %(locale)s.' % about
    yield 'Noise: `%s` measured twice differs by a factor of %.3f; the middle half of its runs spans %.1f%%.\n' % (
        PASS, ratio(found, AGAIN, PASS), 100 * (high - low) / low)
    yield HEADINGS[0] + '\n|---|---|---:|---:|---|'
    for one, other, figure, most in GOALS:
        value = ratio(found, one, other, figure)
        yield '| %s%s | %s | %.2f | %s | %s |' % (
            one, ', peak memory' * (figure == 'peak_kib'), other, most, show(value, '%.3f'),
            'not measured' if value is None else 'met' if value <= most else 'missed')
    yield '\n%s\n|---|%s---|' % (HEADINGS[1], '---:|' * 6)
    pairs = {'python': (CACHED, LIMIT), 'launcher': (CACHED, LIMIT), 'drop': (DROP, SAME), 'load': (LOAD, WC),
             'import': (OURS, THEIRS)}
    for one in sorted(found.values(), key=lambda one: list(pairs).index(one.kind)):
        (low, median, high), (ours, limit) = one.quartiles(), pairs[one.kind]
        kib, other = one.quartiles('peak_kib')[1], found[CACHED].ends_as if CACHED in found else None
        yield '| %s | %.0f | %.0f to %.0f | %s | %s | %s | %s | %s |' % (
            one.name, median, low, high, show(kib and kib / 1024.0, '%.1f'),
            show(median / found[one.base].quartiles()[1]), show(ratio(found, one.name, limit)),
            show(ratio(found, ours, one.name)),
            ' '.join(name for name in FIELDS if one.ends_as and other and one.ends_as[name] != other[name]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=50, help='how often each contender runs: 50')
    parser.add_argument('--python', default=sys.executable, help='the interpreter to measure on: this one')
    parser.add_argument('--pyprctl', metavar='DIRECTORY', help='from where to import pyprctl and python-daemon')
    parser.add_argument('--only', metavar='NAME', help='only what has NAME in its name, and what it is compared with')
    parser.add_argument('--json', metavar='FILE', help='write every figure there too')
    options = parser.parse_args()
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
        runner, contenders = prepare(top, options.python, options.pyprctl)
        found = measured(runner, [one for one in contenders if options.only is None or options.only in one.name or
                                  one.kind == 'python' or one.name == LIMIT], options.rounds)
    version = 'import platform; print(platform.python_implementation(), platform.python_version())'
    about = {'date': time.strftime('%Y-%m-%d'), 'rounds': options.rounds, 'locale': ENV['LC_ALL'],
             'kernel': platform.release(), 'machine': '%s, %d processors' % (platform.machine(), os.cpu_count()),
             'python': subprocess.check_output([options.python, '-c', version], env=ENV).decode().strip()}
    print('\n'.join(report(found, about)))
    if options.json:
        about['contenders'] = [dict(one.samples, name=one.name, kind=one.kind, base=one.base, ends_as=one.ends_as)
                               for one in found.values()]
        about['goals'] = [{'what': one, 'to': other, 'figure': figure, 'at_most': most,
                           'measured': ratio(found, one, other, figure)} for one, other, figure, most in GOALS]
        about['noise'] = ratio(found, AGAIN, PASS)
        write(options.json, json.dumps(about, indent=1))
    return 0


if __name__ == '__main__':
    sys.exit(main())
