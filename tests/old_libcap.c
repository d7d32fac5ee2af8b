/* A stand-in for libcap up to 2.27, in what differs from later ones: cap_flag.c, cap_text.c.
 *
 * BITS  the capabilities that it has; greater numbers are left out in silence
 * MOST  how many cap_set_flag(3) takes at once
 *
 * `all` is 64 bits, whatever the kernel has.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sets {
    uint64_t of[3];             /* CAP_EFFECTIVE, CAP_PERMITTED, CAP_INHERITABLE */
};

static int invalid(void)
{
    errno = EINVAL;
    return -1;
}

struct sets *cap_init(void)
{
    return calloc(1, sizeof(struct sets));
}

int cap_free(void *memory)
{
    free(memory);
    return 0;
}

int cap_clear(struct sets *sets)
{
    memset(sets, 0, sizeof(*sets));
    return 0;
}

int cap_set_flag(struct sets *sets, int flag, int count, const int *values, int set)
{
    int n;

    if (count <= 0 || count > MOST || !set)
        return invalid();
    for (n = 0; n < count; n++)
        if (values[n] < BITS)
            sets->of[flag] |= (uint64_t) 1 << values[n];
    return 0;
}

int cap_get_flag(struct sets *sets, int value, int flag, int *answer)
{
    if (value >= BITS)
        return invalid();
    *answer = sets->of[flag] >> value & 1;
    return 0;
}

int cap_compare(struct sets *one, struct sets *other)
{
    return memcmp(one, other, sizeof(*one)) != 0;
}

int cap_set_proc(struct sets *sets)
{
    return invalid();           /* these tests parse only */
}

struct sets *cap_from_text(const char *text)
{
    struct sets *sets = cap_init();

    if (!strcmp(text, "=ep") || !strcmp(text, "all=ep") || !strcmp(text, "all+ep"))
        sets->of[0] = sets->of[1] = ~(uint64_t) 0;
    else if (!strcmp(text, "cap_net_raw+ep"))
        sets->of[0] = sets->of[1] = (uint64_t) 1 << 13;
    else {
        free(sets);
        errno = EINVAL;
        return NULL;
    }
    return sets;
}

char *cap_to_name(int value)
{
    char *name;

    return asprintf(&name, "%d", value) < 0 ? NULL : name;
}
