// Maps, writes, protects and unmaps memory after its input is read; every page must start as zero
// and every removed page must be gone.
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 600, PAGE = 4096 };

static char *map(size_t bytes) {
    return mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int main(void) {
    char *before = map(16 * PAGE);
    memset(before, 5, 16 * PAGE);
    unsigned char seed = 0;
    if (read(0, &seed, 1) != 1) return 1;
    for (int i = 0; i < 16; i++)
        if (before[i * PAGE] != 5) return 2;
    munmap(before + 4 * PAGE, 4 * PAGE);
    // Gone: a system call on it must say EFAULT.
    if (write(1, before + 5 * PAGE, 1) != -1) return 3;
    char *again = mmap(before + 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (int i = 0; i < 4 * PAGE; i++)
        if (again[i]) return 4;
    mprotect(before, PAGE, PROT_READ);
    if (read(0, before, 1) > 0) return 5;
    for (int round = 0; round < 3; round++) {
        char *many = map(PAGES * PAGE);
        for (int i = 0; i < PAGES; i++) {
            if (many[i * PAGE + seed]) return 6;
            many[i * PAGE + seed] = 1 + round;
        }
        munmap(many, PAGES * PAGE);
    }
    char *moved = map(8 * PAGE);
    moved[7 * PAGE] = 3;
    moved = mremap(moved, 8 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
    if (moved[7 * PAGE] != 3 || moved[63 * PAGE]) return 7;
    char *huge = mmap(0, 1UL << 36, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (huge == MAP_FAILED) return 8;
    huge[1UL << 35] = 1;
    if (huge[(1UL << 35) + 1]) return 9;
    madvise(huge + (1UL << 35), PAGE, MADV_DONTNEED);
    if (huge[1UL << 35]) return 10;
    return 0;
}
