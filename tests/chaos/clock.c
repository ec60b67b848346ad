/* Preloaded: a wall clock that is off by as many seconds as the file $CHAOS_CLOCK says, which may change at any time. CLOCK_MONOTONIC and every
   wait stay as they are (libfaketime's own sleeps fail where only the wall clock is faked). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long off(void) {
    static int file = -1;
    char text[32] = {0};
    const char *path = getenv("CHAOS_CLOCK");
    if (file < 0 && path) file = open(path, O_RDONLY | O_CLOEXEC);
    return file < 0 || pread(file, text, sizeof text - 1, 0) <= 0 ? 0 : atoll(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += off();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    static int (*real)(struct timeval *, void *);
    if (!real) real = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(now, zone);
    if (!result) now->tv_sec += off();
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
