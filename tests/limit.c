/* The job of docs/performance.md in C: the limit.  It makes the calls that capdrop makes to
   look, to change, to look again, to try to regain and to look once more.

   limit exec USER GROUP GROUP GROUP TEXT CONF COMMAND...    do it, and run the command
   limit time|unchecked USER GROUP GROUP GROUP TEXT CONF LIBRARY    print the seconds it took
   limit run COMMAND...    CPU time, peak memory and status: a child's peak begins with that
                           of the process it is forked from, and this one is small */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

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
/* On the way to a file: may others write, or may the user enter, each directory? */
static void way(const char *file, int entering, uid_t u, gid_t g, const gid_t *groups) {
  char path[PATH_MAX], *slash; struct stat st;
  if (!realpath(file, path)) return;
  for (slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    must(!lstat(path, &st), path);
    if (entering) may_enter((stat(path, &st), &st), u, g, groups);
    *slash = '/';
  }
}
/* What capdrop looks at besides, before the first change. */
static void check(uid_t u, gid_t g, const gid_t *groups, struct state *found, const char *conf,
                  const char *library, const char *command) {
  char name[64], path[PATH_MAX]; struct stat st; siginfo_t info; struct dirent *entry; DIR *fds;
  must(!contains("/proc/self/setgroups", "deny"), "setgroups");
  must(contains("/proc/self/uid_map", "4294967295"), "uid_map");
  must(contains("/proc/self/gid_map", "4294967295"), "gid_map");
  for (int n = 0; n < 16; n++)                  /* io_uring_enter(2), IORING_ENTER_REGISTERED_RING */
    must(syscall(426, n, 0, 0, 16, NULL, 0) && errno != EBADFD, "io_uring registered");
  must(!library || !contains("/proc/self/maps", "anon_inode:[io_uring]"), "io_uring mapped");
  must((fds = opendir("/proc/self/fd")) != NULL, "/proc/self/fd");
  while ((entry = readdir(fds)))
    if (entry->d_name[0] != '.' && !fstat(atoi(entry->d_name), &st) &&
        (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || !(st.st_mode & S_IFMT))) {
      sprintf(name, "/proc/self/fd/%s", entry->d_name);
      ssize_t n = readlink(name, path, sizeof path - 1); must(n > 0, name);
      path[n] = 0;
      must(strcmp(path, "anon_inode:[io_uring]") && strcmp(path, "anon_inode:[fanotify]"), path);
    }
  closedir(fds);
  way(conf, 0, u, g, groups);
  if (library) way(library, 1, u, g, groups);
  if (command && !stat(command, &st)) {
    int fd = open(command, O_RDONLY | O_CLOEXEC);
    must(read(fd, path, 256) >= 0 && !close(fd), command);
    must(getxattr(command, "security.capability", NULL, 0) <= 0, command);
  }
  /* the calls of the drop, made in a way that changes nothing */
  must(!setresuid(-1, -1, -1) && !setresgid(-1, -1, -1) && !setgroups(found->count, found->groups), "ids");
  cap_t now = make(found->effective, found->permitted, found->inheritable);
  must(!cap_set_proc(now) && !cap_free(now), "capset");
  must(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) && !prctl(PR_SET_KEEPCAPS, found->keepcaps, 0, 0, 0) &&
       prctl(PR_CAPBSET_DROP, 64, 0, 0, 0), "prctl");
  waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT);
}
/* arg: user group group group text conf, and a library (or, launching, the command) */
static void job(char **arg, int launching, int checking) {
  struct state found, goal, now; unsigned char ext[64]; uint64_t set = 0; sigset_t all, mask; struct stat st;
  struct passwd *user = getpwnam(arg[0]); must(user != NULL, arg[0]);
  uid_t u = user->pw_uid; gid_t g = group(arg[1]), groups[2] = {group(arg[2]), group(arg[3])};
  cap_t cap = cap_from_text(arg[4]); must(cap && cap_copy_ext(ext, cap, sizeof ext) == 29, arg[4]); cap_free(cap);
  for (int i = 0; i < 8; i++) set |= (uint64_t)ext[6 + 3 * i] << 8 * i;
  for (last = 0; prctl(PR_CAPBSET_READ, last + 1, 0, 0, 0) >= 0; last++) ;
  sigfillset(&all); must(!sigprocmask(SIG_SETMASK, &all, &mask), "sigprocmask");
  must(!unshare(CLONE_VM) && !stat("/proc/self/task", &st) && st.st_nlink == 3, "one thread");
  must(!unshare(CLONE_FS | CLONE_FILES), "unshare");
  must((tasks = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0, "/proc/self/task");
  look(&found); must((found.permitted & set) == set && found.threads == 1, "rights");
  if (checking)
    check(u, g, groups, &found, arg[5], launching ? NULL : arg[6], launching ? arg[6] : NULL);
  goal = found; memset(goal.groups, 0, sizeof goal.groups);
  for (int i = 0; i < 4; i++) { goal.uid[i] = u; goal.gid[i] = g; }
  goal.count = 2; goal.groups[0] = groups[0]; goal.groups[1] = groups[1];
  if (groups[0] > groups[1]) { goal.groups[0] = groups[1]; goal.groups[1] = groups[0]; }
  goal.effective = goal.permitted = set; goal.inheritable = goal.ambient = launching ? set : 0;
  goal.bounding &= set; goal.no_new_privs = 1; goal.keepcaps = 0;
  cap_t wanted = make(set, set, goal.inheritable), before = make(found.permitted, found.permitted, 0);
  must(!prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl");
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
    job(argv + 2, 1, 1); execv(argv[8], argv + 8); return 126;
  } else {                                      /* time: with the checks; unchecked: without */
    getpwnam(argv[2]); group(argv[3]); group(argv[4]); group(argv[5]);
    access("/begin-of-drop", F_OK);
    double start = cpu(); job(argv + 2, 0, !strcmp(argv[1], "time")); 
    double end = cpu(); access("/end-of-drop", F_OK);
    printf("%.9f\n", end - start);
  }
  return 0;
}
