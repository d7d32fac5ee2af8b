/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for libc.so.1 of Solaris and illumos: the calls that solaris_priv.py makes, on a process that exists only in
 * here.  It follows the manual pages and the published rules of the kernel; sim_... at the end are the controls of the tests.
 * Memory is checked: what comes from one allocator must go back to it, once, or the process aborts.
 * No system header, so that cc -m32 -ffreestanding -fsyntax-only can check the widths without a 32-bit C library.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint32_t uid_t, gid_t, uint_t;
typedef int zoneid_t, pid_t, priv_op_t, boolean_t;
typedef const char *priv_ptype_t;
typedef struct { uint32_t word[4]; } priv_set_t;

_Static_assert(sizeof(uid_t) == 4 && sizeof(gid_t) == 4, "ids are 32 bits, in both models");
_Static_assert(sizeof(priv_op_t) == 4 && sizeof(boolean_t) == 4, "an enum is an int");
_Static_assert(sizeof(void *) == sizeof(size_t), "a pointer is a c_void_p");
#ifdef MODEL_BITS
_Static_assert(sizeof(void *) * 8 == MODEL_BITS, "the model asked for");
#endif

extern int *__errno_location(void);
extern void abort(void);
extern void *malloc(size_t);
extern int memcmp(const void *, const void *, size_t);
extern pid_t getpid(void);
#define errno (*__errno_location())
enum { EPERM = 1, ENOENT = 2, ESRCH = 3, ENOMEM = 12, EFAULT = 14, EINVAL = 22, ENOSPC = 28,
#ifdef __linux__
    ENOSYS = 38, ENOTSUP = 95 };    /* as the Python that runs the tests has them */
#else
    ENOSYS = 89, ENOTSUP = 48 };
#endif


static void *copy(void *to, const void *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}

static void fill(void *to, int c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile unsigned char *)to)[i] = (unsigned char)c;
}

static size_t length(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

static int lower(int c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }

/* Are the first n characters of s the word, in any case? */
static int same(const char *s, size_t n, const char *word)
{
    size_t i = 0;
    while (i < n && word[i] && lower(s[i]) == lower(word[i]))
        i++;
    return i == n && !word[i];
}

/* ---- names: B basic, Z in a default zone, X in one with its own IP stack, N not in Solaris 10 */

enum { B = 1, Z = 2, X = 4, N = 8 };
static const struct { const char *name; int kind; } table[] = {
    {"contract_event", Z}, {"contract_identity", Z|N}, {"contract_observer", Z}, {"cpc_cpu", 0}, {"dtrace_kernel", 0},
    {"dtrace_proc", 0}, {"dtrace_user", 0}, {"file_chown", Z}, {"file_chown_self", Z}, {"file_dac_execute", Z},
    {"file_dac_read", Z}, {"file_dac_search", Z}, {"file_dac_write", Z}, {"file_downgrade_sl", 0}, {"file_flag_set", N},
    {"file_link_any", B}, {"file_owner", Z}, {"file_read", B|N}, {"file_setid", Z}, {"file_upgrade_sl", 0},
    {"file_write", B|N}, {"graphics_access", 0}, {"graphics_map", 0}, {"hyprlofs_control", N}, {"ipc_dac_read", Z},
    {"ipc_dac_write", Z}, {"ipc_owner", Z}, {"net_access", B|N}, {"net_bindmlp", Z}, {"net_icmpaccess", Z},
    {"net_mac_aware", Z}, {"net_mac_implicit", N}, {"net_observability", Z|N}, {"net_privaddr", Z}, {"net_rawaccess", X},
    {"proc_audit", Z}, {"proc_chroot", Z}, {"proc_clock_highres", 0}, {"proc_exec", B}, {"proc_fork", B}, {"proc_info", B},
    {"proc_lock_memory", Z}, {"proc_meminfo", N}, {"proc_owner", Z}, {"proc_prioup", N}, {"proc_priocntl", 0},
    {"proc_secflags", B|N}, {"proc_session", B}, {"proc_setid", Z}, {"proc_taskid", Z}, {"proc_zone", 0}, {"sys_acct", Z},
    {"sys_admin", Z}, {"sys_audit", Z}, {"sys_config", 0}, {"sys_devices", 0}, {"sys_fs_import", N}, {"sys_ipc_config", 0},
    {"sys_linkdir", 0}, {"sys_mount", Z}, {"sys_iptun_config", X|N}, {"sys_dl_config", N}, {"sys_ip_config", X|N},
    {"sys_net_config", 0}, {"sys_nfs", Z}, {"sys_ppp_config", X|N}, {"sys_res_bind", N}, {"sys_res_config", 0},
    {"sys_resource", Z}, {"sys_smb", Z|N}, {"sys_suser_compat", 0}, {"sys_time", 0}, {"sys_trans_label", 0},
    {"virt_manage", N}, {"win_colormap", 0}, {"win_config", 0}, {"win_dac_read", 0}, {"win_dac_write", 0},
    {"win_devices", 0}, {"win_dga", 0}, {"win_downgrade_sl", 0}, {"win_fontpath", 0}, {"win_mac_read", 0},
    {"win_mac_write", 0}, {"win_selection", 0}, {"win_upgrade_sl", 0}, {"xvm_control", N},
};
enum { TABLE = sizeof table / sizeof table[0] };

static const char *names[TABLE];    /* by number, of the release that is played */
static int kinds[TABLE], order[TABLE], count;

static int number_of(const char *s, size_t n)
{
    if (n > 5 && same(s, 5, "priv_"))
        s += 5, n -= 5;
    for (int i = 0; i < count; i++)
        if (same(s, n, names[i]))
            return i;
    return -1;
}

/* ---- sets */

static const priv_set_t FULL = {{~0u, ~0u, ~0u, ~0u}}, NONE;    /* all 128 bits, named or not */
#define EACH for (int i = 0; i < 4; i++)
static priv_set_t both(priv_set_t a, priv_set_t b) { EACH a.word[i] &= b.word[i]; return a; }
static priv_set_t either(priv_set_t a, priv_set_t b) { EACH a.word[i] |= b.word[i]; return a; }
static priv_set_t without(priv_set_t a, priv_set_t b) { EACH a.word[i] &= ~b.word[i]; return a; }
static int equal(priv_set_t a, priv_set_t b) { EACH if (a.word[i] != b.word[i]) return 0; return 1; }
static int subset(priv_set_t a, priv_set_t b) { return equal(without(a, b), NONE); }
static int has(priv_set_t s, int n) { return s.word[n / 32] >> n % 32 & 1; }
static priv_set_t single(int n) { priv_set_t s = NONE; s.word[n / 32] = 1u << n % 32; return s; }

static priv_set_t of_kind(int kind)
{
    priv_set_t s = NONE;
    for (int i = 0; i < count; i++)
        if (kinds[i] & kind)
            s = either(s, single(i));
    return s;
}

/* ---- the process */

enum { E, I, P, L };
enum { AWARE = 0x2, PROTECT = 0x8, MAC = 0x10, MAC_INHERIT = 0x20, RESET = 0x40, XPOLICY = 0x80, PFEXEC = 0x100,
       PFEXEC_AUTH = 0x200 };

static struct process {
    uid_t u[3];                     /* real, effective, saved */
    gid_t g[3];
    gid_t groups[32];
    int ngroups;
    priv_set_t set[4];              /* as stored; see observed */
    uint_t flags;
    int nocore, setugid;
    zoneid_t zone_id;
} self, seen, stale, other;         /* seen by the last call; stale: as it began; other: process other_pid */

static struct { int ngroups_max, solaris10; } sys;
static char zone_names[8][64] = {"global"};     /* by their ids */
static pid_t other_pid;
static priv_set_t zone;
static int (*real_chroot)(const char *);

static int any_zero(const struct process *p) { return !p->u[0] || !p->u[1] || !p->u[2]; }

static priv_set_t observed(const struct process *p, int which)
{
    if (!(p->flags & AWARE) && ((which == E && !p->u[1]) || (which == P && any_zero(p))))
        return p->set[L];
    return p->set[which];
}

static int priv(const char *name) { return has(observed(&self, E), number_of(name, length(name))); }

static void become_aware(void)
{
    if ((self.flags & (AWARE | RESET)) == AWARE)
        return;
    self.flags = (self.flags | AWARE) & ~(uint_t)RESET;
    if (!self.u[1])
        self.set[E] = either(self.set[E], self.set[L]);
    if (any_zero(&self))
        self.set[P] = either(self.set[P], self.set[L]);
}

static int can_clear(void)
{
    return !any_zero(&self) || (equal(self.set[P], self.set[L]) && (self.u[1] || equal(self.set[E], self.set[L])));
}

static void clear_aware(void)
{
    if (any_zero(&self)) {
        if (!self.u[1])
            self.set[E] = both(self.set[E], self.set[I]);
        self.set[P] = both(self.set[P], self.set[I]);
    }
    self.flags &= ~(uint_t)(AWARE | RESET);
}

/* As exec does, before and after the ids change */
static void adjust_aware(void)
{
    if (self.flags & AWARE && can_clear())
        clear_aware();
    else
        self.flags &= ~(uint_t)RESET;
}

static void reset_aware(int final)
{
    priv_set_t inherited = both(self.set[I], self.set[L]);
    if ((self.flags & (AWARE | RESET)) != (AWARE | RESET)) {
        self.flags &= ~(uint_t)RESET;
    } else if (self.u[0] == self.u[1] && self.u[1] == self.u[2]) {
        if (final || self.u[1]) {
            self.set[E] = self.set[P] = inherited;
            self.flags &= ~(uint_t)(AWARE | RESET);
        } else
            self.set[E] = self.set[P];
    } else if (self.u[1] && (!self.u[0] || !self.u[2]))
        self.set[E] = inherited;
}

/* ---- the log, and injection: a call can fail with an errno, or lie: say that it did, and do nothing */

static char log_text[1 << 20], inject_name[64];
static size_t log_end;
static int inject_call, inject_errno, calls_of_it;
enum { LIE = -1, SILENT = 1000 };   /* SILENT: it fails and leaves errno as it was */

static void put(const char *s)
{
    for (; *s && log_end < sizeof log_text - 1; s++)
        log_text[log_end++] = *s;
    log_text[log_end] = 0;
}

static void put_number(long n)
{
    char digits[24], *p = digits + sizeof digits - 1;
    int negative = n < 0;
    for (*p = 0, n = negative ? -n : n; p == digits + sizeof digits - 1 || n; n /= 10)
        *--p = (char)('0' + n % 10);
    if (negative)
        *--p = '-';
    put(p);
}

static int enter(const char *name)
{
    if (memcmp(&self, &seen, sizeof self)) {
        if (log_end)
            put(" *");              /* the call before this one changed something */
        seen = self;
    }
    put("\n");
    put(name);
    if (!same(name, length(name), inject_name) || (++calls_of_it != inject_call && inject_call))
        return 0;
    if (inject_errno > 0 && inject_errno != SILENT)
        errno = inject_errno;
    return inject_errno;
}
#define ENTER(name, failed, lied) \
    do { int how_ = enter(name); if (how_ > 0) return failed; if (how_ == LIE) return lied; } while (0)
#define ENTER_VOID(name) do { if (enter(name)) return; } while (0)
static int error(int code) { errno = code; return -1; }
static void *nothing(int code) { errno = code; return NULL; }

/* ---- memory: three kinds, each with its own way back */

enum { SET = 0x5e7, STRING = 0x571, UCRED = 0xc7ed, GONE = 0xdead };
struct block { uint32_t magic, kind; size_t size; char data[] __attribute__((aligned(16))); };
static char arena[8 << 20] __attribute__((aligned(16)));
static size_t used;
static int live[3];
static int slot(uint32_t kind) { return kind == SET ? 0 : kind == STRING ? 1 : 2; }

static void *allocate(uint32_t kind, size_t size)
{
    struct block *b = (struct block *)(arena + used);
    used += (sizeof *b + size + 31) & ~(size_t)15;
    if (used > sizeof arena)
        abort();
    b->magic = 0x50726976;
    b->kind = kind;
    b->size = size;
    fill(b->data, 0xa5, size);
    live[slot(kind)]++;
    return b->data;
}

static struct block *check(const void *data, uint32_t kind)
{
    struct block *b = (struct block *)((char *)data - offsetof(struct block, data));
    if ((char *)b < arena || (char *)b >= arena + used || b->magic != 0x50726976 || b->kind != kind)
        abort();                    /* foreign memory, the wrong allocator, or given back before */
    return b;
}

static void give_back(void *data, uint32_t kind)
{
    if (!data)
        return;
    struct block *b = check(data, kind);
    b->kind = GONE;
    fill(b->data, 0xa5, b->size);
    live[slot(kind)]--;
}

void free(void *data)
{
#ifdef HEAP_OF_THE_PROCESS          /* libc's own heap, where another library's took its place */
    (void)data;
    abort();
#endif
    ENTER_VOID("free");
    give_back(data, STRING);
}

priv_set_t *priv_allocset(void)
{
    ENTER("priv_allocset", NULL, allocate(SET, sizeof(priv_set_t)));
    return allocate(SET, sizeof(priv_set_t));
}

void priv_freeset(priv_set_t *s)
{
    ENTER_VOID("priv_freeset");
    give_back(s, SET);
}

/* A set that a caller passed: one that was allocated, or one inside a ucred. */
static priv_set_t given(const priv_set_t *s)
{
    priv_set_t value;
    char *end = arena + used;
    if ((const char *)s < arena || (const char *)s + sizeof *s > end)
        abort();
    struct block *b = (struct block *)((char *)s - offsetof(struct block, data));
    if (b->magic == 0x50726976 && b->kind != SET)
        abort();
    copy(&value, s, sizeof value);
    return value;
}

/* ---- text */

/* 0, or where the word that is not understood begins */
static const char *scan(const char *text, const char *separators, priv_set_t *s)
{
    *s = NONE;
    for (const char *at = text; *at;) {
        const char *c = separators, *word = at;
        for (size_t n = 0;; n++) {
            for (c = separators; *c && *c != word[n]; c++)
                ;
            if (*c || !word[n]) {
                at = word + n + (word[n] != 0);
                if (!n)
                    break;
                if (same(word, n, "basic"))
                    *s = either(*s, of_kind(B));
                else if (same(word, n, "none"))
                    *s = NONE;
                else if (same(word, n, "all"))
                    *s = FULL;
                else if (same(word, n, "zone"))
                    *s = either(*s, zone);
                else {
                    int sign = *word == '-' || *word == '!' || *word == '+';
                    int number = number_of(word + sign, n - (size_t)sign);
                    if (number < 0)
                        return word;
                    *s = sign && *word != '+' ? without(*s, single(number)) : either(*s, single(number));
                }
                break;
            }
        }
    }
    return NULL;
}

priv_set_t *priv_str_to_set(const char *text, const char *separators, const char **end)
{
    priv_set_t *s, value;
    const char *bad;
    if (end)
        *end = NULL;                /* a resource error leaves it so */
    ENTER("priv_str_to_set", NULL, allocate(SET, sizeof *s));
    put(" ");
    put(text);
    bad = scan(text, separators, &value);
    if (bad) {
        if (end)
            *end = bad;
        return nothing(EINVAL);
    }
    s = allocate(SET, sizeof *s);
    return copy(s, &value, sizeof value);
}

static size_t append(char *to, size_t at, char separator, int minus, const char *word)
{
    if (at)
        to[at++] = separator;
    if (minus)
        to[at++] = separator == '!' ? '-' : '!';
    copy(to + at, word, length(word) + 1);
    return at + length(word);
}

static char *to_text(priv_set_t s, char separator, int flag)
{
    static char text[8192];
    priv_set_t basic = of_kind(B);
    size_t at = 0;
    text[0] = 0;
    if (flag == 0 && equal(s, FULL))
        return append(text, 0, separator, 0, "all"), text;
    if (flag == 0)
        at = append(text, at, separator, 0, "basic");
    for (int i = 0; i < count; i++)         /* in one order, with and without ! */
        if (has(s, order[i]) != (flag == 0 && has(basic, order[i])))
            at = append(text, at, separator, !has(s, order[i]), names[order[i]]);
    return at ? text : (append(text, 0, separator, 0, "none"), text);
}

static char *allocated(const char *text)
{
#ifdef HEAP_OF_THE_PROCESS
    return copy(malloc(length(text) + 1), text, length(text) + 1);
#endif
    return copy(allocate(STRING, length(text) + 1), text, length(text) + 1);
}

char *priv_set_to_str(const priv_set_t *s, char separator, int flag)
{
    ENTER("priv_set_to_str", NULL, allocated("none"));
    if (flag != 0 && flag != 1)     /* PRIV_STR_PORT, PRIV_STR_LIT; the short form is not played */
        return nothing(EINVAL);
    return allocated(to_text(given(s), separator, flag));
}

const char *priv_getbynum(int number)
{
    ENTER("priv_getbynum", NULL, NULL);
    return number >= 0 && number < count ? names[number] : nothing(EINVAL);
}

/* ---- sets and flags of the process */

static int which_set(const char *name)
{
    static const char *const sets[] = {"Effective", "Inheritable", "Permitted", "Limit"};
    size_t n = length(name);
    if (n > 5 && same(name, 5, "priv_"))
        name += 5, n -= 5;
    for (int i = 0; i < 4; i++)
        if (same(name, n, sets[i]))
            return i;
    return -1;
}

int setppriv(priv_op_t op, priv_ptype_t name, const priv_set_t *set)
{
    static const char *const ops[] = {" ON ", " OFF ", " SET "};
    int which = which_set(name);
    priv_set_t s, permitted = observed(&self, P), effective = observed(&self, E), *target;
    ENTER("setppriv", -1, 0);
    if (which < 0 || op < 0 || op > 2)
        return error(EINVAL);
    if (!set)
        return error(EFAULT);
    s = given(set);
    put(ops[op]);
    put(name);
    put(" ");
    put(to_text(s, ',', 0));
    if (op != 1) {
        if (which == L && !subset(s, self.set[L]))
            return error(EPERM);
        if (!subset(s, permitted) && !subset(s, observed(&self, which)) &&
            (which != I || sys.solaris10 || !subset(s, self.set[L]) || !subset(without(s, permitted), effective)))
            return error(EPERM);
    }
    if (which != I)
        become_aware();
    target = &self.set[which];
    *target = op == 0 ? either(*target, s) : op == 1 ? without(*target, s) : s;
    if (which == P && op != 0)
        self.set[E] = both(self.set[E], self.set[P]);
    if (which == P && !any_zero(&self) && !subset(without(permitted, observed(&self, P)), self.set[I]))
        self.nocore = 1;
    return 0;
}

int getppriv(priv_ptype_t name, priv_set_t *s)
{
    int which = which_set(name);
    priv_set_t value;
    ENTER("getppriv", -1, 0);
    if (which < 0)
        return error(EINVAL);
    check(s, SET);
    value = observed(&self, which);
    copy(s, &value, sizeof value);
    return 0;
}

static int known_flag(uint_t flag)
{
    uint_t known = sys.solaris10 ? 0x1 | AWARE | PROTECT | MAC | MAC_INHERIT
                                 : 0x1 | AWARE | PROTECT | MAC | MAC_INHERIT | RESET | XPOLICY | PFEXEC |
                                   PFEXEC_AUTH;
    return flag && !(flag & (flag - 1)) && (flag & known);
}

int setpflags(uint_t flag, uint_t value)
{
    ENTER("setpflags", -1, 0);
    put(" ");
    put_number(flag);
    put(" ");
    put_number(value);
    if (value > 1 || !known_flag(flag))
        return error(EINVAL);
    if (flag == PROTECT)
        self.nocore = (int)value;
    else if (!(self.flags & flag) == !value && !(flag == AWARE && self.flags & RESET))
        return 0;
    else if ((flag & (MAC | MAC_INHERIT)) && value && !priv("net_mac_aware"))
        return error(EPERM);
    else if (flag == AWARE && value)
        become_aware();
    else if (flag == AWARE && !can_clear())
        return error(EPERM);
    else if (flag == AWARE)
        clear_aware();
    else
        self.flags = value ? self.flags | flag : self.flags & ~flag;
    return 0;
}

uint_t getpflags(uint_t flag)
{
    ENTER("getpflags", (uint_t)-1, 0);
    put(" ");
    put_number(flag);
    return !known_flag(flag) || flag == PROTECT ? (uint_t)error(EINVAL) : (self.flags & flag) != 0;
}

/* ---- ids */

static int may_be(uid_t u)
{
    return priv("proc_setid") && (u || any_zero(&self) || subset(zone, observed(&self, E)));
}

static int too_large(uint32_t id) { return id > 2147483647u && id != (uint32_t)-1; }

static void changed(const uid_t *old, int final)
{
    if (self.u[0] != old[0])
        self.flags &= ~(uint_t)PFEXEC;
    if (memcmp(self.u, old, sizeof self.u))
        self.nocore = 1;
    reset_aware(final);
}

int setuid(uid_t u)
{
    struct process old = self;
    ENTER("setuid", -1, 0);
    if (u > 2147483647u)
        return error(EINVAL);
    if (may_be(u)) {
        self.u[0] = self.u[1] = self.u[2] = u;
        changed(old.u, 1);
        return 0;
    }
    if (u != self.u[0] && u != self.u[2])
        return error(EPERM);
    self.u[1] = u;
    return 0;
}

int seteuid(uid_t u)
{
    ENTER("seteuid", -1, 0);
    if (u > 2147483647u)
        return error(EINVAL);
    if (u != self.u[0] && u != self.u[1] && u != self.u[2] && !may_be(u))
        return error(EPERM);
    self.u[1] = u;
    reset_aware(0);
    return 0;
}

int setreuid(uid_t r, uid_t e)
{
    const uid_t keep = (uid_t)-1;
    struct process old = self;
    ENTER("setreuid", -1, 0);
    put(" ");
    put_number((int)r);
    put(" ");
    put_number((int)e);
    if (too_large(r) || too_large(e))
        return error(EINVAL);
    if ((r != keep && r != self.u[0] && r != self.u[1] && !may_be(r)) ||
        (e != keep && e != self.u[0] && e != self.u[1] && e != self.u[2] && !may_be(e)))
        return error(EPERM);
    if (e != keep)
        self.u[1] = e;
    if (r != keep)
        self.u[0] = r;
    if (r != keep || (e != keep && self.u[1] != self.u[0]))
        self.u[2] = self.u[1];
    changed(old.u, r != keep && r == e);
    return 0;
}

int setregid(gid_t r, gid_t e)
{
    const gid_t keep = (gid_t)-1;
    ENTER("setregid", -1, 0);
    put(" ");
    put_number((int)r);
    put(" ");
    put_number((int)e);
    if (too_large(r) || too_large(e))
        return error(EINVAL);
    if (!priv("proc_setid") &&
        ((r != keep && r != self.g[0] && r != self.g[1] && r != self.g[2]) ||
         (e != keep && e != self.g[0] && e != self.g[1] && e != self.g[2])))
        return error(EPERM);
    if (e != keep)
        self.g[1] = e;
    if (r != keep)
        self.g[0] = r;
    if (r != keep || (e != keep && self.g[1] != self.g[0]))
        self.g[2] = self.g[1];
    return 0;
}

int setgroups(int n, const gid_t *list)
{
    ENTER("setgroups", -1, 0);
    put(" ");
    put_number(n);
    if (n < 0 || n > sys.ngroups_max)
        return error(EINVAL);
    if (!priv("proc_setid"))
        return error(EPERM);
    for (int i = 0; i < n; i++)
        if (list[i] > 2147483647u)
            return error(EINVAL);
    copy(self.groups, list, (size_t)n * sizeof *list);
    self.ngroups = n;
    return 0;
}

int chroot(const char *path)
{
    ENTER("chroot", -1, 0);
    put(" ");
    put(path);
    if (!priv("proc_chroot") && !same(path, length(path), "/"))
        return error(EPERM);
    return real_chroot ? real_chroot(path) : 0;
}

/* ---- reading */

struct ucred { struct process process; };

struct ucred *ucred_get(pid_t pid)
{
    const struct process *p = pid == -1 || pid == getpid() ? &self : pid == other_pid ? &other : NULL;
    int how = enter("ucred_get");
    if (how > 0)
        return NULL;
    if (!p)
        return nothing(ESRCH);
    return copy(allocate(UCRED, sizeof(struct ucred)), how ? &stale : p, sizeof(struct ucred));
}

void ucred_free(struct ucred *c)
{
    ENTER_VOID("ucred_free");
    give_back(c, UCRED);
}

static const struct process *of(const void *c)
{
    return &((const struct ucred *)check(c, UCRED)->data)->process;
}

#define ID(name, field) \
    uint32_t name(const struct ucred *c) { ENTER(#name, (uint32_t)-1, 0); return of(c)->field; }
ID(ucred_getruid, u[0])
ID(ucred_geteuid, u[1])
ID(ucred_getsuid, u[2])
ID(ucred_getrgid, g[0])
ID(ucred_getegid, g[1])
ID(ucred_getsgid, g[2])

int ucred_getgroups(const struct ucred *c, const gid_t **list)
{
    ENTER("ucred_getgroups", -1, 0);
    *list = of(c)->ngroups ? of(c)->groups : NULL;
    return of(c)->ngroups;
}

const priv_set_t *ucred_getprivset(const struct ucred *c, priv_ptype_t name)
{
    int which = which_set(name);
    ENTER("ucred_getprivset", NULL, &of(c)->set[I]);
    if (which < 0)
        return nothing(EINVAL);
    ((struct ucred *)c)->process.set[which] = observed(of(c), which);
    return &of(c)->set[which];
}

uint_t ucred_getpflags(const struct ucred *c, uint_t flag)
{
    ENTER("ucred_getpflags", (uint_t)-1, 0);
    return !known_flag(flag) || flag == PROTECT ? (uint_t)error(EINVAL) : (of(c)->flags & flag) != 0;
}

zoneid_t getzoneid(void)
{
    ENTER("getzoneid", -1, 0);
    return self.zone_id;
}

zoneid_t ucred_getzoneid(const struct ucred *c)
{
    ENTER("ucred_getzoneid", -1, 0);
    return of(c)->zone_id;
}

ptrdiff_t getzonenamebyid(zoneid_t id, char *name, size_t size)
{
    ENTER("getzonenamebyid", -1, 1);
    if (id < 0 || id > 7 || (self.zone_id && self.zone_id != id) || !zone_names[id][0])
        return error(EINVAL);       /* another one than the global zone can name itself only */
    if (size < length(zone_names[id]) + 1)
        return error(EINVAL);
    copy(name, zone_names[id], length(zone_names[id]) + 1);
    return (ptrdiff_t)length(zone_names[id]) + 1;
}

/* ---- access control lists: of ZFS (ace_t), of UFS (aclent_t), or a file system that has none */

enum { ZFS, UFS, NO_ACL };
enum { GETACL = 1, GETACLCNT = 3, ACE_GETACL = 4, ACE_GETACLCNT = 6 };
typedef struct { uid_t who; uint32_t mask; uint16_t flags, type; } ace_t;
typedef struct { int type; uid_t id; uint16_t perm; } aclent_t;
_Static_assert(sizeof(ace_t) == 12 && sizeof(aclent_t) == 12, "as sys/acl.h has them");

static struct { char path[256]; int kind, n; char entries[12 * 64]; } lists[16];
static int nlists, usual_kind;
/* of mode 0644 */
static const ace_t trivial[] = {
    {~0u, 0xe01bf, 0x1000, 0}, {~0u, 0x20089, 0x2040, 0}, {~0u, 0x20089, 0x4000, 0}};
static const aclent_t minimal[] = {{1, 0, 6}, {4, 0, 4}, {0x10, 0, 4}, {0x20, 0, 4}};

int acl(const char *path, int command, int n, void *buffer)
{
    const void *entries = NULL;
    int kind = usual_kind, count = 0, wants_aces = command == ACE_GETACL || command == ACE_GETACLCNT;
    ENTER("acl", -1, n);
    put(" ");
    put(path);
    for (int i = 0; i < nlists; i++)
        if (same(path, length(path), lists[i].path)) {
            kind = lists[i].kind;
            entries = lists[i].entries;
            count = lists[i].n;
        }
    if (kind == NO_ACL || (kind == UFS && wants_aces))
        return error(ENOSYS);
    if (kind == ZFS && !wants_aces && entries)
        return error(ENOTSUP);              /* what no aclent_t can say */
    if (!entries) {
        entries = wants_aces ? (const void *)trivial : minimal;
        count = wants_aces ? 3 : 4;
    }
    if (command == ACE_GETACLCNT || command == GETACLCNT)
        return count;
    if (command != ACE_GETACL && command != GETACL)
        return error(EINVAL);
    if (n < count)
        return error(ENOSPC);
    copy(buffer, entries, 12 * (size_t)count);
    return count;
}

/* ---- controls of the tests */

/* The list of a file; path NULL: of what kind all others are. */
void sim_acl(const char *path, int kind, int n, const void *entries)
{
    if (!path) {
        usual_kind = kind;
        nlists = 0;
        return;
    }
    copy(lists[nlists].path, path, length(path) + 1);
    lists[nlists].kind = kind;
    lists[nlists].n = n;
    copy(lists[nlists++].entries, entries, 12 * (size_t)n);
}

/* A process of uid 0 in the global zone, as it logged in. */
void sim_reset(int solaris10)
{
    fill(&self, 0, sizeof self);
    fill(&sys, 0, sizeof sys);
    fill(live, 0, sizeof live);
    count = 0;
    for (int i = 0; i < TABLE; i++)
        if (!solaris10 || !(table[i].kind & N)) {
            names[count] = table[i].name;
            kinds[count] = table[i].kind;
            order[count] = count;
            for (int j = count++; j > 0; j--) {
                const char *a = names[order[j - 1]], *b = names[order[j]];
                while (*a && *a == *b)
                    a++, b++;
                if (*a <= *b)
                    break;
                int swap = order[j];
                order[j] = order[j - 1];
                order[j - 1] = swap;
            }
        }
    sys.solaris10 = solaris10;
    sys.ngroups_max = 16;
    zone = self.set[L] = FULL;
    self.set[E] = self.set[I] = self.set[P] = of_kind(B);
    used = log_end = 0;
    log_text[0] = inject_name[0] = 0;
    inject_call = inject_errno = calls_of_it = 0;
    real_chroot = NULL;
    stale = self;
}

/* Another zone: every set is cut to it.  exclusive: it has its own IP stack; added: what limitpriv adds. */
void sim_zone(int id, const char *name, int exclusive, const char *added)
{
    priv_set_t more;
    scan(added, ",", &more);
    self.zone_id = id;
    copy(zone_names[id], name, length(name) + 1);
    zone = either(of_kind(exclusive ? B | Z | X : B | Z), more);
    for (int i = 0; i < 4; i++)
        self.set[i] = both(self.set[i], zone);
    stale = self;
}

void sim_ids(uid_t r, uid_t e, uid_t s, gid_t rg, gid_t eg, gid_t sg)
{
    uid_t u[] = {r, e, s};
    gid_t g[] = {rg, eg, sg};
    copy(self.u, u, sizeof u);
    copy(self.g, g, sizeof g);
    stale = self;
}

void sim_groups(int n, const gid_t *list)
{
    copy(self.groups, list, (size_t)n * sizeof *list);
    self.ngroups = n;
    stale = self;
}

/* A set as it is stored; 0 if the text is not understood */
int sim_set(const char *name, const char *text)
{
    int good = !scan(text, " ,", &self.set[which_set(name)]);
    stale = self;
    return good;
}

void sim_flags(uint_t flags) { self.flags = flags; stale = self; }
void sim_chroot(int (*function)(const char *)) { real_chroot = function; }
void sim_other(pid_t pid) { other = self; other_pid = pid; }    /* as this one is now */

/* The call-th call of name (0: every one) fails with code, or lies (LIE). */
void sim_inject(const char *name, int call, int code)
{
    copy(inject_name, name, length(name) + 1);
    inject_call = call;
    inject_errno = code;
    calls_of_it = 0;
}

const char *sim_log(void) { return log_text; }
int sim_live(int kind) { return live[kind]; }
const char *sim_observed(const char *name) { return to_text(observed(&self, which_set(name)), ',', 0); }
uint_t sim_id(int n) { return n < 3 ? self.u[n] : self.g[n - 3]; }
int sim_group(int n) { return n < self.ngroups ? (int)self.groups[n] : -1; }
uint_t sim_get_flags(void) { return self.flags; }
int sim_nocore(void) { return self.nocore; }
int sim_setugid(void) { return self.setugid; }

/* exec(2) of a file: 1 setuid, its owner.  0, or -1 and errno. */
int sim_exec(int setuid_bit, uid_t owner)
{
    static const char *const needed[] = {"proc_setid", "proc_audit", "sys_resource"};
    struct process *p = &self;
    uid_t effective = p->u[1];
    int honoured = setuid_bit;
    if (!priv("proc_exec"))
        return error(EPERM);
    p->nocore = 0;
    for (int i = 0; i < 3; i++)
        if (setuid_bit && !owner && !has(p->set[L], number_of(needed[i], length(needed[i]))))
            honoured = 0;
    if (honoured)
        effective = owner;
    p->setugid = honoured || !subset(p->set[I], observed(p, P));
    if ((p->flags & AWARE) || !equal(p->set[E], p->set[I]) || !equal(p->set[P], p->set[I]) || !subset(p->set[I], p->set[L])) {
        adjust_aware();
        p->u[1] = p->u[2] = effective;
        p->set[I] = both(p->set[I], p->set[L]);
        p->set[E] = p->set[P] = p->set[I];
        adjust_aware();
    }
    p->u[1] = p->u[2] = effective;
    p->g[2] = p->g[1];
    return 0;
}
