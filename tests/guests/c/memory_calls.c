// Memory calls one after the other, each with its result and its errno, and with what the memory
// then gives. Prints no absolute address, so that it prints the same wherever it runs.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096L
#define W ((char *)0x200000000000)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

static int pipes[2];

static void say(const char *what, long result) {
    printf("%s: %ld", what, result);
    if (result == -1) printf(" errno %d", errno);
    putchar('\n');
    errno = 0;
}
#define CALL(...) say(#__VA_ARGS__, (long)(__VA_ARGS__))
// A pointer as whether it failed.
#define MAP(...) say(#__VA_ARGS__, (__VA_ARGS__) == MAP_FAILED ? -1 : 0)
// A pointer as its distance from W.
#define AT(...) do { void *p_ = (__VA_ARGS__); say(#__VA_ARGS__, p_ == MAP_FAILED ? -1 : (char *)p_ - W); } while (0)

// A byte as a system call reads it: -1 where it cannot.
static int peek(const void *at) {
    unsigned char byte;
    if (write(pipes[1], at, 1) != 1) return -1;
    return read(pipes[0], &byte, 1) == 1 ? byte : -2;
}
static int poke(void *at, char byte) {
    char rest;
    write(pipes[1], &byte, 1);
    int done = read(pipes[0], at, 1);
    if (done != 1) read(pipes[0], &rest, 1);
    return done;
}
static void row(const char *name, char *at, int pages) {
    printf("%s:", name);
    for (int i = 0; i < pages; i++) printf(" %d", peek(at + i * PAGE));
    putchar('\n');
    errno = 0;
}
static void *fixed(long first, long pages, int prot) {
    return mmap(W + first * PAGE, pages * PAGE, prot, ANON | MAP_FIXED, -1, 0);
}
static void clear(void) { munmap(W - 4096 * PAGE, 8192 * PAGE); }

static void arguments(void) {
    puts("# arguments");
    MAP(mmap(0, 0, RW, ANON, -1, 0));
    MAP(mmap(0, -1UL, RW, ANON, -1, 0));
    MAP(mmap(0, 1UL << 47, RW, ANON, -1, 0));
    MAP(mmap(0, PAGE, RW, MAP_ANONYMOUS, -1, 0));
    MAP(mmap(0, PAGE, RW, MAP_ANONYMOUS | MAP_SHARED_VALIDATE, -1, 0));
    MAP(mmap(0, PAGE, RW, MAP_PRIVATE, 99, 0));
    MAP(mmap(0, 0, RW, MAP_PRIVATE, 99, 0));
    MAP((void *)syscall(SYS_mmap, 0, PAGE, RW, ANON, -1, 1));
    MAP((void *)syscall(SYS_mmap, 0, PAGE, RW, MAP_PRIVATE, 99, -PAGE));
    MAP((void *)syscall(SYS_mmap, 0, PAGE, RW, ANON, -1, -PAGE));
    MAP(mmap(W + 1, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    MAP(mmap((void *)-PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    MAP(mmap((void *)(-PAGE + 1), PAGE, RW, ANON | MAP_FIXED, -1, 0));
    MAP(mmap((void *)0x7ffffffff000, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    MAP(mmap(0, PAGE, RW, ANON | MAP_FIXED, -1, 0));
    MAP((void *)syscall(SYS_mmap, 0, PAGE, RW, MAP_PRIVATE, pipes[0], -PAGE));
    MAP(mmap(0, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0));
    MAP(mmap(0, PAGE, RW, MAP_PRIVATE, pipes[0], 0));
    CALL(munmap(W + 1, PAGE));
    CALL(munmap(W, 0));
    CALL(munmap(W, -1UL));
    CALL(munmap((void *)0x7ffffffff000, PAGE));
    CALL(munmap(W, 1));
    CALL(mprotect(W + 1, PAGE, RW));
    CALL(mprotect(W, 0, RW));
    CALL(mprotect(W, PAGE, RW));
    CALL(mprotect(W, -PAGE, RW));
    CALL(mprotect(W, -1UL, RW));
    CALL(mprotect(W, PAGE, 0x03000000 | RW));
    CALL(mprotect(W, PAGE, 0x100));
    CALL(mprotect(W, PAGE, 0x01000000));
    CALL(madvise(W + 1, PAGE, MADV_NORMAL));
    CALL(madvise(W, 0, MADV_NORMAL));
    CALL(madvise(W, 0, 77));
    CALL(madvise(W, PAGE, MADV_DONTNEED));
    CALL(madvise(W, -1UL, MADV_DONTNEED));
    CALL(msync(W, PAGE, MS_SYNC));
    CALL(msync(W, 0, MS_SYNC));
    CALL(msync(W + 1, 0, MS_SYNC));
    CALL(msync(W, PAGE, MS_SYNC | MS_ASYNC));
    CALL(msync(W, PAGE, 64));
    unsigned char states[8];
    CALL(mincore(W, PAGE, states));
    CALL(mincore(W + 1, PAGE, states));
    CALL(mincore(W, 0, states));
    CALL(mincore((void *)-PAGE, PAGE, states));
    CALL(mincore(W, PAGE, (void *)-PAGE));
    fixed(0, 2, RW);
    CALL(mincore(W, 2 * PAGE, (void *)PAGE));
    W[0] = 1;
    CALL(mincore(W, PAGE, states));
    CALL(states[0] & 1);
    CALL(mlock(W, 3 * PAGE));
    CALL(mlock(W, -1UL));
    CALL(munlock(W + 5, PAGE));
    CALL(munlock(W + 4 * PAGE, PAGE));
    CALL(mlock2(W, PAGE, 2));
    CALL(mlockall(0));
    CALL(mlockall(8));
    CALL(mlockall(MCL_ONFAULT));
    CALL(munlockall());
    CALL(syscall(SYS_membarrier, 99, 0, 0));
    CALL(syscall(SYS_membarrier, 0, 1, 0));
    CALL(syscall(SYS_membarrier, 1, 0, 0));
    CALL(syscall(SYS_membarrier, 8, 0, 0));
    CALL(syscall(SYS_membarrier, 16, 0, 0));
    CALL(syscall(SYS_membarrier, 8, 0, 0));
    clear();
}

static void placing(void) {
    puts("# placing");
    AT(mmap(W, 2 * PAGE, RW, ANON, -1, 0));
    AT(mmap(W + 0xabc + 4 * PAGE, 2 * PAGE, RW, ANON, -1, 0));
    char *elsewhere = mmap(W + PAGE, 2 * PAGE, RW, ANON, -1, 0);
    CALL(elsewhere > W + 16 * PAGE || elsewhere < W - 16 * PAGE);
    CALL(munmap(elsewhere, 2 * PAGE));
    AT(mmap(W + PAGE, 2 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    AT(mmap(W + 2 * PAGE, 2 * PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0));
    AT(mmap(W + PAGE, 2 * PAGE, RW, ANON | MAP_FIXED, -1, 0));
    char *low = mmap(0, 4 * PAGE, RW, ANON | MAP_32BIT, -1, 0);
    CALL(low >= (char *)0x40000000 && low < (char *)0x80000000);
    char *next = mmap(0, 4 * PAGE, RW, ANON | MAP_32BIT, -1, 0);
    CALL(next != low);
    MAP(mmap(0, 1UL << 31, RW, ANON | MAP_32BIT | MAP_NORESERVE, -1, 0));
    CALL(munmap(low, 4 * PAGE) | munmap(next, 4 * PAGE));
    // Downwards, each just below the last.
    char *first = mmap(0, 100 * PAGE, PROT_NONE, ANON, -1, 0);
    char *second = mmap(0, 100 * PAGE, PROT_NONE, ANON, -1, 0);
    CALL((first - second) / PAGE);
    CALL(munmap(first, 100 * PAGE));
    char *third = mmap(0, 50 * PAGE, PROT_NONE, ANON, -1, 0);
    CALL((first - third) / PAGE);
    CALL(munmap(second, 100 * PAGE) | munmap(third, 50 * PAGE));
    clear();
}

static void splitting(void) {
    puts("# splitting");
    fixed(0, 8, RW);
    for (int i = 0; i < 8; i++) W[i * PAGE] = 10 + i;
    CALL(munmap(W + 2 * PAGE, PAGE));
    CALL(mprotect(W, 8 * PAGE, PROT_READ));
    CALL(poke(W, 1));
    CALL(poke(W + PAGE, 1));
    CALL(poke(W + 3 * PAGE, 1));
    CALL(mprotect(W + 4 * PAGE, 2 * PAGE, PROT_NONE));
    row("holes", W, 8);
    CALL(munmap(W - PAGE, 3 * PAGE));
    CALL(munmap(W, 6 * PAGE));
    CALL(mprotect(W, 8 * PAGE, RW));
    CALL(mprotect(W + 6 * PAGE, 8 * PAGE, RW));
    row("tail", W, 8);
    CALL(poke(W + 7 * PAGE, 99));
    row("written", W, 8);
    // What was there is gone.
    fixed(6, 1, RW);
    row("replaced", W, 8);
    CALL(mprotect(W + 7 * PAGE, PAGE, PROT_WRITE));
    row("write only", W + 7 * PAGE, 1);
    clear();
}

static void moving(void) {
    puts("# mremap");
    fixed(0, 4, RW);
    for (int i = 0; i < 4; i++) W[i * PAGE] = 20 + i;
    AT(mremap(W, 4 * PAGE, 2 * PAGE, 0));
    AT(mremap(W, 2 * PAGE, 6 * PAGE, 0));
    row("regrown", W, 7);
    fixed(7, 1, RW);
    AT(mremap(W, 6 * PAGE, 8 * PAGE, 0));
    char *moved = mremap(W, 6 * PAGE, 12 * PAGE, MREMAP_MAYMOVE);
    CALL(moved != W);
    row("moved", moved, 12);
    row("left", W, 8);
    AT(mremap(moved, 12 * PAGE, 5 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, W + 20 * PAGE));
    row("fixed", W + 20 * PAGE, 6);
    CALL(peek(moved) + peek(moved + 11 * PAGE));
    AT(mremap(W + 20 * PAGE, PAGE, PAGE, MREMAP_FIXED, W));
    AT(mremap(W + 20 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, W + 20 * PAGE));
    AT(mremap(W + 20 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, W + 1));
    AT(mremap(W + 20 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, (char *)-PAGE));
    AT(mremap(W + 20 * PAGE, 9 * PAGE, 12 * PAGE, MREMAP_MAYMOVE));
    AT(mremap(W + 20 * PAGE + 1, PAGE, PAGE, 0));
    AT(mremap(W + 20 * PAGE, PAGE, 0, 0));
    AT(mremap(W + 20 * PAGE, PAGE, PAGE, 16));
    AT(mremap(W + 20 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE | 4));
    AT(mremap(W + 20 * PAGE, PAGE, PAGE, 4));
    AT(mremap(W + 40 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE));
    AT(mremap(W + 20 * PAGE, 0, PAGE, MREMAP_MAYMOVE));
    AT(mremap(W + 20 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | 4, W + 60 * PAGE));
    row("kept mapped", W + 20 * PAGE, 5);
    row("moved away", W + 60 * PAGE, 3);
    clear();
    // Shared memory: the same bytes twice, and an end.
    MAP(mmap(W, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    W[0] = 7;
    AT(mremap(W, 0, 2 * PAGE, 0));
    AT(mremap(W, 0, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, W + 10 * PAGE));
    W[PAGE] = 8;
    W[10 * PAGE] = 9;
    row("one", W, 2);
    row("other", W + 10 * PAGE, 2);
    CALL(munmap(W, PAGE));
    CALL(madvise(W + PAGE, PAGE, MADV_DONTNEED));
    row("one", W, 2);
    row("other", W + 10 * PAGE, 2);
    AT(mremap(W + 10 * PAGE, 2 * PAGE, 4 * PAGE, 0));
    row("beyond its end", W + 10 * PAGE, 4);
    clear();
}

static void advice(void) {
    puts("# madvise");
    int zero = open("/dev/zero", O_RDWR), self = open("/proc/self/exe", O_RDONLY);
    fixed(0, 4, RW);
    memset(W, 5, 4 * PAGE);
    CALL(madvise(W + PAGE, 2 * PAGE, MADV_DONTNEED));
    row("zeros", W, 4);
    CALL(madvise(W + 3 * PAGE, 4 * PAGE, MADV_DONTNEED));
    row("up to a hole", W, 4);
    CALL(madvise(W, PAGE, MADV_REMOVE));
    CALL(madvise(W, PAGE, MADV_WILLNEED) | madvise(W, PAGE, MADV_SEQUENTIAL));
    CALL(madvise(W, PAGE, MADV_DONTFORK) | madvise(W, PAGE, MADV_DOFORK));
    CALL(madvise(W, PAGE, MADV_DONTDUMP) | madvise(W, PAGE, MADV_DODUMP));
    CALL(madvise(W, PAGE, MADV_WIPEONFORK) | madvise(W, PAGE, MADV_KEEPONFORK));
    CALL(madvise(W, 5 * PAGE, MADV_POPULATE_READ));
    CALL(madvise(W, 4 * PAGE, MADV_POPULATE_WRITE));
    CALL(mprotect(W, PAGE, PROT_READ));
    CALL(madvise(W, PAGE, MADV_POPULATE_WRITE));
    CALL(mprotect(W, PAGE, PROT_NONE));
    CALL(madvise(W, PAGE, MADV_POPULATE_READ));
    CALL(mlock(W + PAGE, PAGE));
    CALL(madvise(W + PAGE, PAGE, MADV_DONTNEED));
    CALL(madvise(W + PAGE, PAGE, MADV_FREE));
    CALL(madvise(W + PAGE, PAGE, MADV_COLD));
    CALL(madvise(W + PAGE, PAGE, 24));
    CALL(msync(W + PAGE, PAGE, MS_INVALIDATE));
    CALL(munlock(W + PAGE, PAGE));
    CALL(madvise(W + PAGE, PAGE, MADV_DONTNEED));
    CALL(mlock(W, PAGE));
    MAP(mmap(W + 10 * PAGE, 2 * PAGE, RW, MAP_PRIVATE | MAP_FIXED, self, 0));
    W[10 * PAGE] = 0;
    CALL(madvise(W + 10 * PAGE, 2 * PAGE, MADV_DONTNEED));
    CALL(!memcmp(W + 10 * PAGE, "\177ELF", 4));
    CALL(madvise(W + 10 * PAGE, PAGE, MADV_FREE));
    CALL(madvise(W + 10 * PAGE, PAGE, MADV_WIPEONFORK));
    CALL(madvise(W + 10 * PAGE, PAGE, MADV_REMOVE));
    MAP(mmap(W + 12 * PAGE, PAGE, RW, MAP_SHARED | MAP_FIXED, self, 0));
    MAP(mmap(W + 12 * PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, self, 0));
    CALL(mprotect(W + 12 * PAGE, PAGE, RW));
    MAP(mmap(W + 14 * PAGE, 2 * PAGE, RW, MAP_SHARED | MAP_FIXED, zero, 0));
    memset(W + 14 * PAGE, 3, 2 * PAGE);
    CALL(madvise(W + 14 * PAGE, 2 * PAGE, MADV_DONTNEED));
    row("shared", W + 14 * PAGE, 2);
    CALL(madvise(W + 14 * PAGE, PAGE, MADV_REMOVE));
    row("removed", W + 14 * PAGE, 2);
    MAP(mmap(W + 16 * PAGE, 2 * PAGE, RW, MAP_PRIVATE | MAP_FIXED, zero, 0));
    row("zero", W + 16 * PAGE, 2);
    close(zero), close(self);
    clear();
}

static void files(void) {
    puts("# files");
    int fd = open("/tmp/dejavm-calls", O_RDWR | O_CREAT | O_TRUNC, 0600);
    int readable = open("/tmp/dejavm-calls", O_RDONLY), writable = open("/tmp/dejavm-calls", O_WRONLY);
    unlink("/tmp/dejavm-calls");
    CALL(ftruncate(fd, 2 * PAGE + 10));
    CALL(pwrite(fd, "abc", 3, 2 * PAGE + 5));
    MAP(mmap(W, PAGE, PROT_READ, MAP_PRIVATE, writable, 0));
    MAP(mmap(W, PAGE, PROT_READ, MAP_SHARED, writable, 0));
    MAP(mmap(W, PAGE, PROT_WRITE, MAP_SHARED, readable, 0));
    MAP(mmap(W, PAGE, RW, MAP_SHARED_VALIDATE | 0x40000000, fd, 0));
    MAP(mmap(W, 5 * PAGE, RW, MAP_SHARED | MAP_FIXED, fd, 0));
    MAP(mmap(W + 10 * PAGE, 2 * PAGE, RW, MAP_SHARED | MAP_FIXED, fd, PAGE));
    MAP(mmap(W + 20 * PAGE, 4 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, readable, 0));
    MAP(mmap(W + 30 * PAGE, 4 * PAGE, RW, MAP_PRIVATE | MAP_FIXED, fd, 0));
    row("short", W, 5);
    row("private", W + 30 * PAGE, 4);
    W[30 * PAGE] = 77;
    strcpy(W + PAGE, "through the mapping");
    char text[32] = {0};
    CALL(pread(fd, text, 20, PAGE));
    puts(text);
    CALL(!strcmp(W + 10 * PAGE, text) + !strcmp(W + 21 * PAGE, text));
    CALL(pwrite(fd, "WRITTEN", 7, PAGE));
    puts(W + 10 * PAGE);
    puts(W + 21 * PAGE);
    CALL(msync(W, 3 * PAGE, MS_SYNC));
    W[2 * PAGE + 4] = '<';
    CALL(munmap(W, 5 * PAGE));
    CALL(pread(fd, text, 20, 2 * PAGE));
    CALL(text[4]);
    CALL(peek(W + 30 * PAGE));
    CALL(ftruncate(fd, PAGE));
    row("cut", W + 10 * PAGE, 2);
    row("cut", W + 20 * PAGE, 3);
    CALL(ftruncate(fd, 3 * PAGE));
    row("longer", W + 10 * PAGE, 2);
    close(fd), close(readable), close(writable);
    W[10 * PAGE] = 1;
    row("closed", W + 20 * PAGE, 3);
    clear();
}

static void growing(void) {
    puts("# growing");
    MAP(mmap(W, 2 * PAGE, RW, ANON | MAP_FIXED | MAP_GROWSDOWN, -1, 0));
    W[-1] = 3;
    CALL(peek(W - PAGE));
    CALL(poke(W - 40 * PAGE, 4));
    CALL(peek(W - 40 * PAGE));
    CALL(mprotect(W - 40 * PAGE, 42 * PAGE, PROT_READ));
    CALL(mprotect(W + PAGE, PAGE, RW | PROT_GROWSDOWN));
    CALL(poke(W - 40 * PAGE, 5));
    // A gap stays to what is accessible below, not to what is not.
    mmap(W - 500 * PAGE, PAGE, RW, ANON | MAP_FIXED, -1, 0);
    CALL(poke(W - 240 * PAGE, 6));
    CALL(poke(W - 243 * PAGE, 6));
    CALL(poke(W - 260 * PAGE, 6));
    CALL(mprotect(W - 500 * PAGE, PAGE, PROT_NONE));
    CALL(poke(W - 260 * PAGE, 6));
    CALL(munmap(W - 600 * PAGE, 700 * PAGE));
    // A wish that would come too near is not followed.
    MAP(mmap(W, 2 * PAGE, RW, ANON | MAP_FIXED | MAP_GROWSDOWN, -1, 0));
    AT(mmap(W - 257 * PAGE, PAGE, RW, ANON, -1, 0));
    char *near = mmap(W - 250 * PAGE, PAGE, RW, ANON, -1, 0);
    CALL(near != W - 250 * PAGE);
    munmap(near, PAGE);
    struct rlimit small = {8 * PAGE, 1 << 30};
    clear();
    MAP(mmap(W, 2 * PAGE, RW, ANON | MAP_FIXED | MAP_GROWSDOWN, -1, 0));
    CALL(setrlimit(RLIMIT_STACK, &small));
    CALL(poke(W - 7 * PAGE, 1));
    CALL(poke(W - 6 * PAGE, 1));
    small.rlim_cur = 64 << 20;
    CALL(setrlimit(RLIMIT_STACK, &small));
    CALL(poke(W - 7 * PAGE, 1));
    clear();
}

static long depth(long pages) {
    volatile char frame[PAGE];
    frame[0] = pages;
    return pages ? depth(pages - 1) + frame[0] * 0 + 1 : 0;
}

static void stack(void) {
    puts("# stack");
    char here;
    // Far below the stack pointer, and by a system call.
    CALL(poke(&here - 300 * PAGE, 1));
    CALL(poke(&here - (8L << 20) - 4 * PAGE, 1));
    CALL(depth(1000));
    CALL(mprotect((char *)((uintptr_t)&here & -PAGE), PAGE, RW | PROT_GROWSDOWN));
}

static void heap(void) {
    puts("# brk");
    char *start = sbrk(0), *up = (char *)(((uintptr_t)start + PAGE - 1) & -PAGE);
    CALL(syscall(SYS_brk, 0) == (long)start);
    CALL(brk(up + 10 * PAGE));
    up[9 * PAGE] = 1;
    row("heap", up, 11);
    CALL(brk(up + 5));
    row("heap", up, 11);
    CALL(brk(up + 10 * PAGE));
    row("heap", up, 11);
    // Not into the page before a mapping.
    char *wall = mmap(up + 20 * PAGE, PAGE, RW, ANON | MAP_FIXED_NOREPLACE, -1, 0);
    CALL(wall == up + 20 * PAGE);
    CALL(brk(up + 20 * PAGE));
    CALL(brk(up + 19 * PAGE + 1));
    CALL(brk(up + 19 * PAGE));
    CALL(munmap(wall, PAGE));
    CALL(brk((void *)-PAGE));
    CALL((long)((char *)sbrk(0) - up) / PAGE);
    struct rlimit data = {(up - start) + 64 * PAGE, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    CALL(setrlimit(RLIMIT_DATA, &data));
    CALL(brk(up + (1L << 28)));
    CALL(setrlimit(RLIMIT_DATA, &none));
    CALL(brk(up));
    CALL(brk(start));
}

static void limits(void) {
    puts("# limits");
    struct rlimit locked = {16 * PAGE, 16 * PAGE}, all = {1 << 30, RLIM_INFINITY};
    CALL(setrlimit(RLIMIT_MEMLOCK, &locked));
    fixed(0, 32, RW);
    CALL(mlock(W, 16 * PAGE));
    CALL(mlock(W + PAGE, 15 * PAGE + 1));
    CALL(mlock(W, 17 * PAGE));
    CALL(mlock(W + 16 * PAGE, PAGE));
    MAP(mmap(W + 40 * PAGE, PAGE, RW, ANON | MAP_LOCKED | MAP_FIXED, -1, 0));
    AT(mremap(W, 16 * PAGE, 17 * PAGE, MREMAP_MAYMOVE));
    CALL(mlockall(MCL_CURRENT));
    CALL(munlock(W, 8 * PAGE));
    CALL(mlockall(MCL_FUTURE));
    MAP(mmap(W + 40 * PAGE, 9 * PAGE, RW, ANON | MAP_FIXED, -1, 0));
    MAP(mmap(W + 40 * PAGE, 8 * PAGE, RW, ANON | MAP_FIXED, -1, 0));
    CALL(madvise(W + 40 * PAGE, PAGE, MADV_DONTNEED));
    CALL(munlockall());
    CALL(madvise(W + 40 * PAGE, PAGE, MADV_DONTNEED));
    locked.rlim_cur = 0;
    CALL(setrlimit(RLIMIT_MEMLOCK, &locked));
    CALL(mlock(W, PAGE));
    CALL(munlock(W, PAGE));
    CALL(setrlimit(RLIMIT_AS, &all));
    MAP(mmap(0, 1 << 30, PROT_NONE, ANON, -1, 0));
    MAP(mmap(W, 32 * PAGE, RW, ANON | MAP_FIXED, -1, 0));
    all.rlim_cur = RLIM_INFINITY;
    CALL(setrlimit(RLIMIT_AS, &all));
    clear();
}

static void huge(void) {
    puts("# huge");
    char *wide = mmap(0, 16UL << 40, RW, ANON | MAP_NORESERVE, -1, 0);
    CALL(wide != MAP_FAILED);
    wide[5UL << 40] = 1;
    wide[11UL << 40] = 2;
    CALL(wide[3UL << 40] + wide[5UL << 40] + wide[11UL << 40]);
    CALL(mprotect(wide, 8UL << 40, PROT_READ));
    CALL(madvise(wide, 16UL << 40, MADV_DONTNEED));
    CALL(wide[5UL << 40] + wide[11UL << 40]);
    wide[11UL << 40] = 2;
    char *moved = mremap(wide + (10UL << 40), 4UL << 40, 5UL << 40, MREMAP_MAYMOVE);
    CALL(moved != MAP_FAILED && moved[1UL << 40] == 2);
    CALL(munmap(moved, 5UL << 40));
    CALL(munmap(wide, 16UL << 40));
    CALL(peek(wide));
    MAP(mmap(0, 100UL << 40, PROT_NONE, ANON, -1, 0));
    // More than any machine has, and not reserved.
    MAP(mmap(0, 60UL << 40, RW, ANON, -1, 0));
    CALL(malloc(60UL << 40) != 0);
}

int main(void) {
    if (getuid() == 0) setgid(1000), setuid(1000);
    char input[8];
    if (read(0, input, sizeof input) < 0 || pipe(pipes)) return 1;
    arguments();
    placing();
    splitting();
    moving();
    advice();
    files();
    growing();
    stack();
    heap();
    huge();
    limits();
    return 0;
}
