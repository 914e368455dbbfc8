// Makes system calls that nobody would make: numbers and arguments at random, but such that they
// fit each other often enough to get somewhere, and scenes of many calls that use something up.
// Input: the seed of its random numbers, eight bytes. Makes calls until something ends it, or until
// it has made CALLS of them; in one run of 40 that of one scene again and again, until it has made
// 20 times as many and reached what there is to reach. Pointers lead to `ARENA`, mostly, so that it does not kill itself; no C
// library stands between it and the calls.
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CALLS = 1000, PAGE = 4096, PAGES = 64 };
#define ARENA ((unsigned char *)0x200000000)
#define LENGTH(array) (sizeof(array) / sizeof *(array))

static uint64_t state, made, calls_max = CALLS;

static uint64_t any(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1d;
}

static uint64_t below(uint64_t end) { return (any() >> 32) % end; }

static long raw(uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
    long out;
    register uint64_t r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(out)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory", "cc");
    return out;
}

static long call(uint64_t nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
    if (made++ >= calls_max) raw(SYS_exit_group, 7, 0, 0, 0, 0, 0);
    return raw(nr, a, b, c, d, e, f);
}
#define CALL(nr, ...) CALL_(SYS_##nr, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL_(nr, a, b, c, d, e, f, ...)                                                         \
    call(nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e), (uint64_t)(f))

static char long_path[5000], long_name[300];
static const char *const paths[] = {
    "/etc/passwd", "../../../../../etc/shadow", "/proc/self/fd/3", "/proc/self/mem", "/proc/self/maps",
    "/proc/self/exe", "/proc/1/root/etc/passwd", "/proc/self/cwd/..", "/dev/kvm", "/dev/mem",
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/full", "/dev/stdin", "/dev/tty", "/sys/kernel",
    "/var/run/docker.sock", "/tmp/x", "", ".", "..", "/", "//", "a", "a/b", "a/b/c", "a/../a", "b", "c",
    "/work/input", "input/", "a/.", "a/..", "/work/../work/./a", "\xff\xfe", long_path, long_name,
};

static const char *path(void) {
    switch (below(12)) {
    case 0: return (char *)ARENA + PAGES * PAGE - 1 - below(8); // no NUL before the end
    case 1: return (char *)any();
    default: return paths[below(LENGTH(paths))];
    }
}

static uint64_t size(void) {
    static const uint64_t sizes[] = {0, 1, 8, 255, 4095, 4096, 65536, 1 << 20, 1 << 30, 0x7ffff000,
        0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 1ull << 47, 1ull << 62, 1ull << 63,
        (1ull << 63) - 1, -1ull, -4096ull, -8ull};
    return below(3) ? below(5000) : sizes[below(LENGTH(sizes))] - below(2);
}

static uint64_t pointer(void) {
    switch (below(16)) {
    case 0: return size();
    case 1: return 0x7f0000000000 + below(64) * PAGE;
    case 2: return 0x7f0010000000;
    case 3: return 0x7f0040000000 + below(64) * PAGE;
    case 4: return (uint64_t)ARENA + PAGES * PAGE - below(64);
    case 5: return any();
    default: return (uint64_t)ARENA + below(PAGES * PAGE);
    }
}

static uint64_t argument(void) {
    switch (below(8)) {
    case 0: case 1: return below(12); // a descriptor, a flag
    case 2: return 1ull << below(32);
    case 3: return (uint64_t)path();
    case 4: return size();
    case 5: return -100; // AT_FDCWD
    default: return pointer();
    }
}

// What ends a run, or waits: once in a while only.
static int ends(uint64_t nr) {
    switch (nr) {
    case SYS_exit: case SYS_exit_group: case SYS_kill: case SYS_tkill: case SYS_tgkill: case SYS_fork:
    case SYS_vfork: case SYS_clone: case SYS_clone3: case SYS_execve: case SYS_execveat: case SYS_pause:
    case SYS_rt_sigreturn: case SYS_rt_sigsuspend: case SYS_rt_sigtimedwait: case SYS_poll: case SYS_ppoll: case SYS_select:
    case SYS_pselect6: case SYS_futex: return below(200) != 0;
    default: return 0;
    }
}

static void random_call(void) {
    uint64_t nr = below(30) ? below(462) : below(2) ? any() : size();
    if (ends(nr)) return;
    // Structures that calls read: times, vectors, poll records, sets.
    uint64_t *words = (uint64_t *)(ARENA + below(PAGES) * PAGE);
    if (below(4) == 0)
        for (int i = 0; i < 16; i++) words[i] = argument();
    uint64_t a[6];
    for (int i = 0; i < 6; i++) a[i] = argument();
    if (below(4) == 0) a[below(3)] = (uint64_t)words;
    // Not the whole of it, not this program: it would be over.
    if (nr == SYS_munmap || nr == SYS_mprotect || nr == SYS_mremap || nr == SYS_madvise || nr == SYS_mmap)
        a[0] = below(50) ? 0x300000000 + below(1 << 16) * PAGE : a[0];
    CALL_(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void random_files(void) {
    static const short calls[] = {SYS_open, SYS_creat, SYS_mkdir, SYS_rmdir, SYS_unlink, SYS_chdir,
        SYS_rename, SYS_link, SYS_symlink, SYS_readlink, SYS_stat, SYS_lstat, SYS_access, SYS_truncate,
        SYS_chmod};
    static const short at_calls[] = {SYS_openat, SYS_newfstatat, SYS_mkdirat, SYS_unlinkat,
        SYS_faccessat, SYS_readlinkat, SYS_statx};
    if (below(2))
        call(calls[below(LENGTH(calls))], (uint64_t)path(), below(2) ? (uint64_t)path() : below(1 << 22),
             below(512), 0, 0, 0);
    else
        call(at_calls[below(LENGTH(at_calls))], below(3) ? -100 : below(12), (uint64_t)path(),
             below(2) ? pointer() : below(1 << 22), below(512), pointer(), 0);
}

// Descriptors, all of them.
static void descriptors(void) {
    int fd = CALL(open, path(), O_RDWR | O_CREAT, 0600);
    for (int i = 0; i < 300; i++) {
        CALL(dup, fd);
        CALL(dup2, fd, size());
        CALL(fcntl, fd, F_DUPFD, size());
    }
}

// Pipes and what is in them.
static void pipes(void) {
    int ends[2];
    while (CALL(pipe2, ends, O_NONBLOCK) == 0 && below(40))
        while (CALL(write, ends[1], ARENA, PAGES * PAGE) > 0 && below(10)) {}
    CALL(read, ends[0], pointer(), size());
}

static void mappings(void) {
    for (int i = 0; i < 300; i++) {
        uint64_t at = CALL(mmap, below(2) ? 0 : 0x300000000 + below(1 << 20) * PAGE, size(), below(8),
                           MAP_PRIVATE | (below(2) ? MAP_ANONYMOUS : 0) | (below(8) ? 0 : MAP_FIXED_NOREPLACE),
                           below(12), size() & -PAGE);
        if (at < -4095ull && below(2)) CALL(mprotect, at + below(4) * PAGE, PAGE, below(8));
        if (at < -4095ull && below(3) == 0) CALL(mremap, at, size(), size(), below(4), pointer());
        if (below(8) == 0) CALL(munmap, at, size());
    }
    for (int i = 0; i < 20; i++) {
        uint64_t end = CALL(brk, 0);
        CALL(brk, end + size());
    }
}

// Touches what it gets, sometimes all there is.
static void memory(void) {
    while (below(8) == 0) {
        uint64_t bytes = below(512) << 20;
        unsigned char *at = (unsigned char *)CALL(mmap, 0, bytes, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if ((uint64_t)at >= -4095ull) return;
        for (uint64_t i = 0; i < bytes; i += PAGE) at[i] = 1;
    }
}

static void deep_folders(void) {
    for (int i = 0; i < 400; i++) {
        CALL(mkdir, "d", 0700);
        CALL(chdir, "d");
    }
    CALL(getcwd, ARENA, size());
    for (int i = 0; i < 100; i++) CALL(chdir, i % 2 ? ".." : "../../..");
    CALL(rmdir, "d");
    CALL(open, "../../../../../../d/d/d/d/d/d/d/d/d/d/d/d/d", O_RDONLY, 0);
}

static void links(void) {
    char from[2] = "A", to[2] = "A";
    for (int i = 0; i < 60; i++) {
        from[0] = 'A' + i;
        to[0] = 'B' + i;
        CALL(symlink, to, from);
    }
    CALL(symlink, from, to); // round
    CALL(open, "A", O_RDWR | O_CREAT, 0600);
    CALL(stat, "A/../A/./A", ARENA);
    CALL(symlink, "/a/../a/../a/../a/../a", "a");
    CALL(rename, "A", "B");
    for (int i = 0; i < 100; i++) CALL(link, "/work/input", path());
}

static void cycles(void) {
    CALL(mkdir, "a", 0700);
    CALL(mkdir, "a/b", 0700);
    CALL(rename, "a", "a/b/c");
    CALL(rename, "a", "a");
    CALL(rename, "a/b", "a");
    CALL(rename, "/", "a/b/r");
    CALL(rename, "..", "a/b/r");
    CALL(renameat2, -100, "a", -100, "a/b", 2);
    CALL(link, "a", "a/b/l");
    CALL(chdir, "a/b");
    CALL(rmdir, "../b");
    CALL(rmdir, "../../a");
    CALL(open, "x", O_CREAT | O_RDWR, 0600);
    CALL(getcwd, ARENA, PAGE);
}

static void huge_files(void) {
    int fd = CALL(open, "h", O_CREAT | O_RDWR, 0600);
    CALL(unlink, "h");
    for (int i = 0; i < 40; i++) {
        CALL(pwrite64, fd, ARENA, PAGES * PAGE, size());
        CALL(write, fd, ARENA, size());
        CALL(ftruncate, fd, size());
        CALL(fallocate, fd, below(4), size(), size());
        CALL(lseek, fd, size(), below(6));
        struct iovec *vector = (struct iovec *)ARENA;
        for (int n = 0; n < 8; n++) vector[n] = (struct iovec){(void *)pointer(), size()};
        CALL(writev, fd, vector, size());
        CALL(preadv, fd, vector, 8, size(), 0);
        CALL(sendfile, fd, fd, 0, size());
        CALL(mmap, 0, size(), 3, MAP_PRIVATE, fd, 0);
    }
}

static void floods(void) {
    int from = CALL(open, below(2) ? "/dev/zero" : "/dev/urandom", O_RDONLY, 0);
    for (int i = 0; i < 4; i++) {
        CALL(read, from, ARENA, size());
        CALL(getrandom, ARENA, size(), 0);
        CALL(sendfile, 1 + below(2), from, 0, size());
    }
    while (below(200)) CALL(write, 1 + below(2), ARENA, PAGES * PAGE);
}

static void many_files(void) {
    char name[8] = "f";
    for (int i = 0; i < 400; i++) {
        for (int n = 1; n < 6; n++) name[n] = 'a' + below(26);
        int fd = CALL(open, name, O_CREAT | O_RDWR, 0600);
        if (below(2)) CALL(close, fd);
        if (below(8) == 0) CALL(write, fd, ARENA, PAGES * PAGE);
    }
    int fd = CALL(open, ".", O_RDONLY | O_DIRECTORY, 0);
    for (int i = 0; i < 50; i++) CALL(getdents64, fd, ARENA, below(2) ? size() : below(100));
}

int main(void) {
    memset(long_path, '/', sizeof long_path - 1);
    memset(long_name, 'n', sizeof long_name - 1);
    mmap(ARENA, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    memset(ARENA, 'x', PAGES * PAGE);
    if (read(0, &state, sizeof state) != sizeof state) return 1;
    state |= 1;
    static void (*const scenes[])(void) = {descriptors, pipes, mappings, memory, deep_folders, links,
        cycles, huge_files, floods, many_files};
    if (below(40) == 0) {
        calls_max = 20 * CALLS;
        for (int scene = below(LENGTH(scenes));;) {
            scenes[scene]();
            random_files();
        }
    }
    for (;;) {
        if (below(300) == 0) scenes[below(LENGTH(scenes))]();
        if (below(4)) random_call();
        else random_files();
    }
}
