/* Makes the system calls that the input's bytes ask for, one each, and ends with a status that
 * follows from every answer and every byte that they gave: whoever answers a call otherwise than
 * the one before, or leaves another process behind, changes it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, MAPPINGS = 16, RESERVED = 80 };

static char input[1 << 12];
static uint64_t hash = 14695981039346656037u;
static char *mappings[MAPPINGS];
static int mapped;
static volatile int signals;
/* How far down the stack calls are made. */
static int depth;
/* Too large to be there before it is touched. */
static char lazy[8 << 20];

static void mix(const void *bytes, size_t length) {
    for (size_t at = 0; at < length; at++)
        hash = (hash ^ ((const unsigned char *)bytes)[at]) * 1099511628211u;
}

static long note(long value) {
    long told[2] = {value, value < 0 ? errno : 0};
    mix(told, sizeof told);
    return value;
}

static void count(int signal) { signals += signal; }

static char *map(size_t pages) {
    char *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    note((long)at);
    if (at != MAP_FAILED && mapped < MAPPINGS)
        mappings[mapped++] = at;
    return at;
}

static void maps(void) {
    char text[4096];
    int file = open("/proc/self/maps", O_RDONLY);
    for (ssize_t got; (got = read(file, text, sizeof text)) > 0;)
        mix(text, got);
    close(file);
}

/* A library's way into memory: reserved, then shown piece by piece. */
static void library(int touches) {
    char head[64];
    int file = note(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    note(read(file, head, sizeof head));
    mix(head, sizeof head);
    char *at = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE, file, 0);
    if (touches)
        mix(at + PAGE, 16);
    note((long)mmap(at + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0));
    mix(at + PAGE, 16);
    note(close(file));
    note(mprotect(at, PAGE, PROT_READ | PROT_WRITE));
    at[1] = 'x';
    mix(at, 16);
}

static void one(unsigned char what) {
    static int file = -1;
    char text[256] = {0};
    struct timespec clock;
    struct timeval day;
    struct stat facts;
    struct utsname names;
    struct rlimit limit;
    struct sigaction action;
    struct winsize size;
    sigset_t set, old;
    switch (what) {
    case 'r': note(syscall(SYS_getrandom, text, 20, 0)); break;
    case 'c':
        for (int id = 0; id < 8; id++) {
            note(clock_gettime(id, &clock));
            mix(&clock, sizeof clock);
        }
        break;
    case 'C':
        note(syscall(SYS_clock_gettime, CLOCK_REALTIME, NULL));
        note(syscall(SYS_gettimeofday, (void *)8, NULL));
        note(clock_gettime(99, &clock));
        break;
    case 't':
        note(syscall(SYS_gettimeofday, &day, NULL));
        mix(&day, sizeof day);
        note(syscall(SYS_time, NULL));
        break;
    case 'o': file = note(open("/proc/self/exe", O_RDONLY)); break;
    case 'O': file = note(open("not-there", O_RDONLY)); break;
    case 'R': note(read(file, text, 33)); break;
    case 'p': note(pread(file, text, 33, 5)); break;
    case 'l': note(lseek(file, 7, SEEK_CUR)); break;
    case 'x': note(close(file)); break;
    case 's': note(stat("not-there-either", &facts)); break;
    case 'S': note(stat("/", &facts)); break;
    case 'a': note(access("nor-this", F_OK)); break;
    case 'g': note((long)getcwd(text, sizeof text) != 0); break;
    case 'k': note(readlink("/proc/self/exe", text, 8)); break;
    case 'm': map(RESERVED); break;
    case 'M': map(2)[PAGE] = 7; break;
    case 'u':
        if (mapped > 0)
            note(munmap(mappings[--mapped], PAGE));
        break;
    case 'T':
        for (int at = 0; at < mapped; at++) {
            unsigned char there = 0;
            note(mincore(mappings[at] + PAGE, PAGE, &there));
            mix(&there, 1);
            mix(mappings[at] + PAGE, 8);
            mappings[at][PAGE]++;
        }
        break;
    case 'b': note(syscall(SYS_brk, syscall(SYS_brk, 0) + PAGE)); break;
    case 'B': note(syscall(SYS_brk, syscall(SYS_brk, 0) - PAGE)); break;
    case 'h':
        action = (struct sigaction){.sa_handler = count};
        note(sigaction(SIGUSR1, &action, NULL));
        break;
    case 'H':
        note(sigaction(SIGUSR1, NULL, &action));
        note(action.sa_handler == count);
        break;
    case 'i':
        action = (struct sigaction){.sa_handler = SIG_IGN};
        note(sigaction(SIGUSR1, &action, NULL));
        break;
    case 'K': note(syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1)); break;
    case 'n':
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        note(sigprocmask(SIG_BLOCK, &set, NULL));
        break;
    case 'N':
        sigemptyset(&set);
        note(sigprocmask(SIG_SETMASK, &set, &old));
        mix(&old, 8);
        break;
    case 'd': note(dup(0)); break;
    case 'D': note(fcntl(0, F_SETFD, FD_CLOEXEC)); break;
    case 'f':
        note(fcntl(0, F_GETFD));
        note(fcntl(0, F_GETFL));
        note(fcntl(1, F_GETFL));
        break;
    case 'e': note(lseek(0, 0, SEEK_CUR)); break;
    case 'E': note(read(0, text, 4)); break;
    case 'z': note(lseek(0, 1, SEEK_SET)); break;
    case 'Z': note(close(0)); break;
    case 'w': note(write(1, "some", 4)); break;
    case 'q':
        note(getrlimit(RLIMIT_STACK, &limit));
        mix(&limit, sizeof limit);
        break;
    case 'Q':
        limit = (struct rlimit){1 << 20, RLIM_INFINITY};
        note(setrlimit(RLIMIT_STACK, &limit));
        break;
    case 'v': note(umask(027)); break;
    case 'F': note(syscall(SYS_futex, input, FUTEX_WAKE_PRIVATE, 1)); break;
    case 'I': note(ioctl(1, TIOCGWINSZ, &size)); break;
    case 'y':
        note(uname(&names));
        note(getpid() + getuid());
        break;
    case 'P': maps(); break;
    case 'L': library(0); break;
    case 'W': library(1); break;
    case 'A': depth = (depth + 1) % 4; break;
    case 'j': note(lazy[6 << 20]++); break;
    case 'J': note(open("made", O_RDWR | O_CREAT, 0600)); break;
    /* Where the next mapping will be, or the last one was. */
    case '!': *(volatile char *)(mapped > 0 ? mappings[mapped - 1] - RESERVED * PAGE : (char *)8) = 1; break;
    case '?': *(volatile char *)mappings[mapped] = 1; break;
    default: break;
    }
    mix(text, sizeof text);
}

static __attribute__((noinline)) void deeper(int levels, unsigned char what) {
    volatile char room[80] = {what};
    if (levels == 0)
        one(what);
    else
        deeper(levels - 1, room[0]);
    room[1] = 0;
}

int main(void) {
    ssize_t length = read(0, input, sizeof input);
    for (ssize_t at = 0; at < length; at++)
        deeper(depth, input[at]);
    note(signals);
    _exit(hash >> 32 & 0xff);
}
