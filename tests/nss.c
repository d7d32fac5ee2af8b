/* A name service for the tests, as nsswitch.conf(5) finds one.  What it does beside answering is
 * told by environment variables: NSS_WHEN names a function ("getpwnam", "initgroups", "getpwent"),
 * NSS_DOES what happens there: "thread", "directory", "hang". */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <nss.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *sleeps(void *unused)
{
    for (;;)
        pause();
    return unused;
}

/* Returns 0 where it was interrupted, as a client that waits for its server is. */
static int beside(const char *here)
{
    const char *when = getenv("NSS_WHEN"), *does = getenv("NSS_DOES");
    pthread_t thread;

    if (!when || !does || strcmp(when, here))
        return 1;
    if (!strcmp(does, "thread"))
        pthread_create(&thread, NULL, sleeps, NULL);
    if (!strcmp(does, "directory"))
        open("/usr", O_RDONLY | O_DIRECTORY);
    if (!strcmp(does, "hang"))
        return poll(NULL, 0, 20000) == 0;
    return 1;
}

static void account(struct passwd *p, const char *name, uid_t uid, gid_t gid)
{
    memset(p, 0, sizeof *p);
    p->pw_name = (char *)name;
    p->pw_passwd = (char *)"x";
    p->pw_uid = uid;
    p->pw_gid = gid;
    p->pw_gecos = (char *)"";
    p->pw_dir = (char *)"/";
    p->pw_shell = (char *)"/bin/sh";
}

static const struct { const char *name; uid_t uid; gid_t gid; } known[] = {
    { "serviced", 4301, 4301 },
    { "nogroup-at-all", 4302, (gid_t)-1 },
    { "noone-at-all", (uid_t)-1, 4303 },
};
#define KNOWN (sizeof known / sizeof *known)

static enum nss_status interrupted(int *errnop)
{
    *errnop = EINTR;
    return NSS_STATUS_UNAVAIL;
}

static enum nss_status answer(struct passwd *p, unsigned i, int *errnop)
{
    if (i >= KNOWN) {
        *errnop = ENOENT;
        return NSS_STATUS_NOTFOUND;
    }
    account(p, known[i].name, known[i].uid, known[i].gid);
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_capdroptest_getpwnam_r(const char *name, struct passwd *p, char *buffer,
                                            size_t size, int *errnop)
{
    unsigned i;

    if (!beside("getpwnam"))
        return interrupted(errnop);
    for (i = 0; i < KNOWN && strcmp(known[i].name, name); i++)
        ;
    return answer(p, i, errnop);
}

enum nss_status _nss_capdroptest_getpwuid_r(uid_t uid, struct passwd *p, char *buffer,
                                            size_t size, int *errnop)
{
    unsigned i;

    for (i = 0; i < KNOWN && known[i].uid != uid; i++)
        ;
    return answer(p, i, errnop);
}

static unsigned next;

enum nss_status _nss_capdroptest_setpwent(int stayopen)
{
    next = 0;
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_capdroptest_endpwent(void)
{
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_capdroptest_getpwent_r(struct passwd *p, char *buffer, size_t size, int *errnop)
{
    if (next == 0 && !beside("getpwent"))
        return interrupted(errnop);
    return answer(p, next++, errnop);
}

static enum nss_status group(struct group *g, int found, int *errnop)
{
    static char *none[] = { NULL };

    if (!found) {
        *errnop = ENOENT;
        return NSS_STATUS_NOTFOUND;
    }
    g->gr_name = (char *)"serviced";
    g->gr_passwd = (char *)"x";
    g->gr_gid = 4301;
    g->gr_mem = none;
    return NSS_STATUS_SUCCESS;
}

enum nss_status _nss_capdroptest_getgrnam_r(const char *name, struct group *g, char *buffer,
                                            size_t size, int *errnop)
{
    if (!beside("getgrnam"))
        return interrupted(errnop);
    return group(g, !strcmp(name, "serviced"), errnop);
}

enum nss_status _nss_capdroptest_getgrgid_r(gid_t gid, struct group *g, char *buffer,
                                            size_t size, int *errnop)
{
    return group(g, gid == 4301, errnop);
}

enum nss_status _nss_capdroptest_initgroups_dyn(const char *user, gid_t group, long *start,
                                                long *size, gid_t **groups, long limit, int *errnop)
{
    if (!beside("initgroups"))
        return interrupted(errnop);
    return NSS_STATUS_NOTFOUND;
}
