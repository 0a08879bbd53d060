/* Preloaded into a process (LD_PRELOAD) it makes the system fail on purpose. What is done says the environment:

   FAULTS_UNDER    folder: only calls on files below it count: open for creation, write, fsync, rename, unlink, mkdir
   FAULTS_AT       number of the call, from 1, that fails; without it calls are only counted
   FAULTS_HOW      "before": killed (SIGKILL) instead of the call; "after": killed once it is done; "torn": a write ends
                   after half of its bytes, then killed; a number: that errno, from this call on until the process ends
   FAULTS_TOKEN    file that the process which is killed takes away first, so that of a family of processes one dies;
                   beside it TOKEN.call says in which call
   FAULTS_COUNTS   file to which every process appends the number of its calls as it ends
   FAULTS_CLOCK    "jumps": the wall clock leaps to and fro by up to ten days at every look, the monotonic clock runs on
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_long calls;
static atomic_long looks;

static const char *setting(const char *name) { return getenv(name); }

static int is_under(const char *path) {
    const char *under = setting("FAULTS_UNDER");
    return under && path && strncmp(path, under, strlen(under)) == 0;
}

static void append(const char *path, const char *text) {
    int file = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (file >= 0) {
        syscall(SYS_write, file, text, strlen(text));
        syscall(SYS_close, file);
    }
}

static void die(const char *what, const char *path) {
    const char *token = setting("FAULTS_TOKEN");
    if (!token || syscall(SYS_unlinkat, AT_FDCWD, token, 0) != 0) return;
    char note[PATH_MAX], line[PATH_MAX + 64];
    snprintf(note, sizeof note, "%s.call", token);
    snprintf(line, sizeof line, "%s %s\n", what, path);
    append(note, line);
    syscall(SYS_kill, getpid(), SIGKILL);
}

enum { GO_ON, DIE_AFTER, TEAR, FAIL };

/* Counts a call on `path` and says what is to become of it. Sets errno where it is to fail. */
static int judge(const char *what, const char *path) {
    if (!is_under(path)) return GO_ON;
    long number = atomic_fetch_add(&calls, 1) + 1;
    const char *at = setting("FAULTS_AT"), *how = setting("FAULTS_HOW");
    if (!at || !how || number < atol(at)) return GO_ON;
    int number_of_error = atoi(how);
    if (number_of_error) {
        /* Deleting and closing work on a full disk. */
        if (number_of_error == ENOSPC && (strcmp(what, "unlink") == 0 || strcmp(what, "rename") == 0)) return GO_ON;
        errno = number_of_error;
        return FAIL;
    }
    if (number > atol(at)) return GO_ON;
    if (strcmp(how, "torn") == 0 && strcmp(what, "write") == 0) return TEAR;
    if (strcmp(how, "after") == 0) return DIE_AFTER;
    die(what, path);
    return GO_ON;
}

static const char *path_of(int file, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, buffer, PATH_MAX - 1);
    if (length < 0) return NULL;
    buffer[length] = 0;
    return buffer;
}

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

#define JUDGED(what, path, call)                   \
    int fate = judge(what, path);                  \
    if (fate == FAIL) return -1;                   \
    __typeof__(call) result = call;                \
    if (fate == DIE_AFTER) die("after " what, path); \
    return result;

ssize_t write(int file, const void *data, size_t size) {
    char buffer[PATH_MAX];
    const char *path = file > 2 && setting("FAULTS_UNDER") ? path_of(file, buffer) : NULL;
    int fate = judge("write", path);
    if (fate == FAIL) return -1;
    if (fate == TEAR) {
        syscall(SYS_write, file, data, size / 2);
        die("half a write", path);
    }
    ssize_t result = syscall(SYS_write, file, data, size);
    if (fate == DIE_AFTER) die("after write", path);
    return result;
}

int fsync(int file) {
    char buffer[PATH_MAX];
    const char *path = path_of(file, buffer);
    JUDGED("fsync", path, REAL(fsync)(file))
}

int rename(const char *old, const char *new) { JUDGED("rename", new, REAL(rename)(old, new)) }
int unlink(const char *path) { JUDGED("unlink", path, REAL(unlink)(path)) }
int mkdir(const char *path, mode_t mode) { JUDGED("mkdir", path, REAL(mkdir)(path, mode)) }

#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        va_list rest;                                                \
        va_start(rest, flags);                                       \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                \
        if (!(flags & O_CREAT)) return REAL(name)(path, flags, mode); \
        JUDGED("open", path, REAL(name)(path, flags, mode))          \
    }
OPEN(open)
OPEN(open64)

/* The offset of the wall clock in seconds: another one at every look. */
static long jump(void) {
    const char *clock = setting("FAULTS_CLOCK");
    if (!clock) return 0;
    unsigned long look = atomic_fetch_add(&looks, 1);
    return (long)((look * 2654435761UL) % 1728000UL) - 864000;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME && result == 0) now->tv_sec += jump();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    int result = syscall(SYS_gettimeofday, now, zone);
    if (result == 0) now->tv_sec += jump();
    return result;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}

__attribute__((destructor)) void tell_counts(void) {
    const char *counts = setting("FAULTS_COUNTS");
    if (!counts) return;
    char line[32];
    snprintf(line, sizeof line, "%ld\n", atomic_load(&calls));
    append(counts, line);
}
