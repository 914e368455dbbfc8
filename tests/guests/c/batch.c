/* Does what the input's first byte asks for, and says with its exit status whether everything was
 * as at its start: 0, or the line of the first check that failed, modulo 256. Whatever one run
 * leaves behind, the next one must not see. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHECK(what)                                                                               \
    do {                                                                                          \
        if (!(what))                                                                              \
            _exit(__LINE__ & 0xff ? __LINE__ & 0xff : 1);                                         \
    } while (0)

enum { PAGE = 4096 };

static char input[1 << 16];
static ssize_t length;
static char data[8 * PAGE] __attribute__((aligned(PAGE)));
static const char constant[PAGE] __attribute__((aligned(PAGE))) = "constant";
static char *mapping;
/* Too large to be there before it is touched. */
static char lazy[16 << 20];
static void *heap_end;

static uint64_t number(void) {
    uint64_t value = 0;
    memcpy(&value, input + 1, 8);
    return value;
}

/* What every run starts with. */
static void pristine(void) {
    static int runs;
    CHECK(runs++ == 0);
    for (size_t at = 0; at < sizeof data; at += 8)
        CHECK(*(uint64_t *)(data + at) == 0);
    CHECK(strcmp(constant, "constant") == 0);
    CHECK(strcmp(mapping, "mapped") == 0 && strcmp(mapping + PAGE, "mapped too") == 0);
    CHECK(syscall(SYS_brk, 0) == (long)heap_end);
    CHECK(access("made-in-a-run", F_OK) < 0 && errno == ENOENT);
    for (size_t at = 0; at < sizeof lazy; at += 1 << 20)
        CHECK(lazy[at] == 0 && lazy[at + PAGE] == 0);
    struct sigaction action;
    CHECK(sigaction(SIGUSR1, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
}

/* Reads the input once more, in every way there is. */
static void again(void) {
    char copy[256];
    struct stat facts;
    CHECK(lseek(0, 0, SEEK_CUR) == length);
    CHECK(lseek(0, 0, SEEK_END) == length);
    CHECK(lseek(0, 2, SEEK_SET) == 2 && read(0, copy, 3) == 3 && memcmp(copy, input + 2, 3) == 0);
    CHECK(lseek(0, 0, SEEK_CUR) == 5);
    CHECK(lseek(0, -9, SEEK_SET) < 0 && errno == EINVAL);
    CHECK(pread(0, copy, 4, 1) == 4 && memcmp(copy, input + 1, 4) == 0);
    CHECK(pread(0, copy, 4, length) == 0 && pread(0, copy, 4, length - 1) == 1);
    CHECK(pread(0, copy, 4, -1) < 0 && errno == EINVAL);
    CHECK(lseek(0, 0, SEEK_CUR) == 5);
    CHECK(fstat(0, &facts) == 0 && facts.st_size == length && S_ISREG(facts.st_mode));
    CHECK(facts.st_blocks == (length + 4095) / 4096 * 8);
    CHECK(syscall(SYS_fstat, 0, &facts) == 0 && facts.st_size == length);
    CHECK(fstat(1, &facts) == 0 && S_ISFIFO(facts.st_mode));
    char *mapped = mmap(NULL, length, PROT_READ, MAP_PRIVATE, 0, 0);
    CHECK(mapped != MAP_FAILED && memcmp(mapped, input, length) == 0);
    CHECK(dup(0) == 4 && lseek(0, 1, SEEK_SET) == 1 && lseek(4, 0, SEEK_CUR) == 1);
    CHECK(read(4, copy, 1) == 1 && copy[0] == input[1] && lseek(0, 0, SEEK_CUR) == 2);
    CHECK(close(0) == 0 && read(0, copy, 1) < 0 && errno == EBADF);
    CHECK(close(0) < 0 && errno == EBADF && lseek(0, 0, SEEK_CUR) < 0 && errno == EBADF);
}

/* The input by its path. */
static void by_path(const char *path) {
    struct stat facts;
    struct statx more;
    char copy[16];
    CHECK(stat(path, &facts) == 0 && facts.st_size == length && facts.st_nlink == 1);
    CHECK(statx(AT_FDCWD, path, 0, STATX_BASIC_STATS, &more) == 0 && more.stx_size == length);
    CHECK(more.stx_ino == facts.st_ino && more.stx_blocks == (length + 4095) / 4096 * 8);
    int first = open(path, O_RDONLY), second = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(first == 4 && second == 5);
    CHECK(read(first, copy, 3) == 3 && read(second, copy + 3, 2) == 2);
    CHECK(memcmp(copy, input, 3) == 0 && memcmp(copy + 3, input, 2) == 0);
    CHECK(statx(first, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &more) == 0);
    CHECK(more.stx_size == length && (more.stx_mode & S_IFMT) == S_IFREG);
    CHECK(close(first) == 0 && open(path, O_RDONLY) == 4 && lseek(4, 0, SEEK_CUR) == 0);
    /* What the host is asked next must know all of it. */
    CHECK(fcntl(4, F_GETFD) == 0 && fcntl(5, F_GETFD) == FD_CLOEXEC && fcntl(5, F_GETFL) >= 0);
    CHECK(lseek(5, 0, SEEK_CUR) == 2 && open(path, O_RDONLY) == 6 && close(4) == 0);
    CHECK(dup(5) == 4 && read(4, copy, 1) == 1 && copy[0] == input[2]);
    CHECK(open("input", O_RDONLY) == 7 && open(path, O_RDONLY | O_NONBLOCK) == 8);
    CHECK(open(path, O_RDONLY) == 9 && close(9) == 0);
    CHECK(unlink(path) == 0 && open(path, O_RDONLY) < 0 && errno == ENOENT);
    CHECK(stat(path, &facts) < 0 && errno == ENOENT);
}

/* Addresses that a system call must refuse, or bring in. */
static void addresses(void) {
    CHECK(lseek(0, 0, SEEK_SET) == 0);
    CHECK(read(0, (void *)constant, 4) < 0 && errno == EFAULT);
    CHECK(read(0, NULL, 4) < 0 && errno == EFAULT);
    CHECK(read(0, (void *)-8, 4) < 0 && errno == EFAULT);
    CHECK(read(0, (void *)(1UL << 63), 4) < 0 && errno == EFAULT);
    CHECK(write(1, (void *)(1UL << 47), 4) < 0 && errno == EFAULT);
    CHECK(syscall(SYS_fstat, 0, 1UL << 62) < 0 && errno == EFAULT);
    CHECK(syscall(SYS_newfstatat, 0, 1UL << 61, data, AT_EMPTY_PATH) < 0 && errno == EFAULT);
    CHECK(read(0, (void *)(0x7fULL << 40 | 0x40005000), 4) < 0 && errno == EFAULT);
    CHECK(lseek(0, 0, SEEK_CUR) == 0);
    CHECK(write(1, NULL, 4) < 0 && errno == EFAULT);
    CHECK(write(1, (void *)(0x7fULL << 40 | 0x40005000), 4) < 0 && errno == EFAULT);
    CHECK(fstat(0, NULL) < 0 && errno == EFAULT);
    /* The first half can be written. */
    char *edge = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(munmap(edge + PAGE, PAGE) == 0);
    CHECK(length >= 8 && read(0, edge + PAGE - 4, 8) == 4);
    CHECK(memcmp(edge + PAGE - 4, input, 4) == 0);
    CHECK(lseek(0, 0, SEEK_CUR) == 4);
    /* Lazily mapped. */
    char *large = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(read(0, large + (4 << 20), 4) == 4 && memcmp(large + (4 << 20), input + 4, 4) == 0);
    CHECK(write(1, large + (6 << 20), 2 * PAGE) == 2 * PAGE);
}

static void handler(int signal) { (void)signal; }

/* A deep stack: frames of 8 KiB. */
static int deep(int frames) {
    volatile char frame[2 * PAGE];
    frame[0] = frame[PAGE] = (char)frames;
    return frames > 0 ? deep(frames - 1) + frame[0] : 0;
}

static void spoil(void) {
    for (size_t at = 0; at < sizeof lazy; at += 1 << 20)
        lazy[at] = lazy[at + PAGE] = 1;
    deep(100);
    memset(data, 0x5a, sizeof data);
    strcpy(mapping, "spoilt");
    strcpy(mapping + PAGE, "spoilt");
    CHECK(brk((char *)heap_end + 64 * PAGE) == 0);
    for (int page = 0; page < 64; page++) {
        CHECK(((char *)heap_end)[page * PAGE + 8] == 0);
        ((char *)heap_end)[page * PAGE + 8] = 1;
    }
    int made = open("made-in-a-run", O_CREAT | O_WRONLY, 0600);
    CHECK(made >= 0 && write(made, data, 100) == 100);
    CHECK(signal(SIGUSR1, handler) == SIG_DFL);
    CHECK(write(1, data, 3000) == 3000 && write(2, data, 100) == 100);
    char *fresh = mmap(NULL, 9 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int at = 0; at < 9 * PAGE; at += 64)
        CHECK(fresh[at] == 0);
    memset(fresh, 7, 9 * PAGE);
}

/* Other ways to a page than writing where it is. */
static void remap(void) {
    CHECK(mprotect((void *)constant, PAGE, PROT_READ | PROT_WRITE) == 0);
    strcpy((char *)constant, "changed");
    char *moved = mremap(mapping, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE);
    CHECK(moved != MAP_FAILED && strcmp(moved + PAGE, "mapped too") == 0);
    memset(moved, 3, 4 * PAGE);
    CHECK(munmap(data, 2 * PAGE) == 0);
    char *fixed = mmap(data, 2 * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    CHECK(fixed == data);
    memset(data, 9, sizeof data);
    CHECK(madvise(data + 4 * PAGE, PAGE, MADV_DONTNEED) == 0 && data[4 * PAGE] == 0);
    CHECK(mprotect(data + 5 * PAGE, PAGE, PROT_NONE) == 0);
    CHECK(mprotect(data + 5 * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0 && data[5 * PAGE] == 9);
}

/* As many addresses as a sanitizer takes: the agent's code may be among them. */
static void reserve(void) {
    char *much = mmap(NULL, 16UL << 30, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(much != MAP_FAILED);
}

/* What user code can do to segments and flags. */
static void segments(void) {
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" ::"r"(0x1b));
    __asm__ volatile("std");
    uint64_t flags;
    __asm__ volatile("pushfq; orq $0x200000, (%%rsp); popfq; pushfq; pop %0" : "=r"(flags));
    syscall(SYS_exit_group, 0);
}

/* Tells the host that the batch is over, as only the agent should, and never comes back. */
static void over(void) {
    volatile uint32_t *index = (uint32_t *)number(), *check = index + 1;
    uint32_t cookie = *index ^ *check;
    *index = length - 9;
    *check = *index ^ cookie;
    for (;;)
        __asm__ volatile("");
}

static void do_nothing(int signal) { (void)signal; }

/* A fault whose handler comes back to it. */
static void refault(void) {
    CHECK(signal(SIGSEGV, do_nothing) == SIG_DFL);
    *(volatile char *)8 = 1;
}

/* A page that is new each time. */
static void touch_fresh(void) {
    char *fresh = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fresh[0] = 1;
    munmap(fresh, PAGE);
}

int main(int argc, char **argv) {
    mapping = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(mapping, "mapped");
    strcpy(mapping + PAGE, "mapped too");
    heap_end = sbrk(0);
    if (argc > 1)
        CHECK(open(argv[1], O_RDONLY) == 3 && dup2(3, 0) == 0 && close(3) == 0);
    /* The first that is opened later is 4. */
    CHECK(open("/dev/null", O_RDONLY) == 3);
    length = read(0, input, sizeof input);
    pristine();
    switch (length > 0 ? input[0] : 0) {
    case 'a': abort();
    case 'd': *(volatile char *)8 = 1; break;
    case 'e': addresses(); break;
    case 'g': again(); break;
    case 'h': for (;;) __asm__ volatile("");
    case 'l': for (;;) lseek(0, 0, SEEK_SET);
    case 'm': remap(); break;
    case 'n': segments(); break;
    case 'i': by_path(argv[1]); break;
    case 'o': for (;;) write(1, data, sizeof data);
    case 'r': reserve(); break;
    case 's': spoil(); break;
    case 'b': over(); break;
    case 'f': refault(); break;
    case 'q': for (;;) touch_fresh();
    /* Pokes at any address; the program's own are fine. */
    case 'w': *(volatile uint64_t *)number() = 0x1122334455667788; break;
    case 'x': ((void (*)(void))number())(); break;
    }
    syscall(SYS_exit_group, 0);
}
