/* Preloaded: a wall clock that is off by as many seconds as the file $CHAOS_CLOCK says, and a disk whose syncs take as many milliseconds as
   $CHAOS_DISK says, its writes a tenth; both may change at any time. CLOCK_MONOTONIC and every wait stay as they are (libfaketime's own sleeps fail where
   only the wall clock is faked). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long number(const char *name, int *file) {
    char text[32] = {0};
    const char *path = getenv(name);
    if (*file < 0 && path) *file = open(path, O_RDONLY | O_CLOEXEC);
    return *file < 0 || pread(*file, text, sizeof text - 1, 0) <= 0 ? 0 : atoll(text);
}

static long long off(void) {
    static int file = -1;
    return number("CHAOS_CLOCK", &file);
}

static void wait_us(long long us_a_ms) {
    static int file = -1;
    long long ms = number("CHAOS_DISK", &file);
    if (ms > 0) usleep(ms * us_a_ms);
}

int fsync(int file) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    wait_us(1000);
    return real(file);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    wait_us(1000);
    return real(file);
}

ssize_t pwrite64(int file, const void *data, size_t size, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    wait_us(100);
    return real(file, data, size, at);
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
