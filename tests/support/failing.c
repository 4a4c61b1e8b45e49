/* For tests of native modules without memory: what they are built with in malloc's and realloc's place. */
#include <stdlib.h>

static long left = -1, failed = 0;

/* Let so many calls succeed, and none after them; negative: all. */
void fail_after(long calls) {
    left = calls;
    if (calls >= 0) failed = 0;
}

/* Calls that failed since it was last told to fail. */
long failures(void) { return failed; }

static int fails(void) {
    if (left < 0) return 0;
    if (left-- > 0) return 0;
    left = 0;
    failed++;
    return 1;
}

void *failing_malloc(size_t size) { return fails() ? NULL : malloc(size); }
void *failing_realloc(void *data, size_t size) { return fails() ? NULL : realloc(data, size); }
