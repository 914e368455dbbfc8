// Misuses the heap in the way that its input's first letter names; "nice" uses it well, in every way
// there is, which takes long.
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FUNCTION __attribute__((noinline)) static void

static volatile char sink;
// So that the compiler does not know what a pointer points to.
static void *volatile hidden;

static char *of(size_t bytes) {
    hidden = malloc(bytes);
    return hidden;
}

static char *freed(size_t bytes) {
    char *block = of(bytes);
    memset(block, 1, bytes);
    hidden = block;
    free(hidden);
    return block;
}

FUNCTION overflow_by_one(size_t bytes) { of(bytes)[bytes] = 1; }
FUNCTION read_beyond(size_t bytes) { sink = of(bytes)[bytes]; }
FUNCTION overflow_slack(void) { char *block = of(13); block[13] = 1; hidden = block; free(hidden); sink = 1; }
FUNCTION overflow_slack_and_exit(void) { of(13)[13] = 1; }
FUNCTION underflow(void) { char *block = of(40); block[-1] = 1; hidden = block; free(hidden); sink = 1; }
FUNCTION use_after_free(size_t bytes) { sink = freed(bytes)[0]; }
FUNCTION write_after_free(size_t bytes) { freed(bytes)[bytes - 1] = 1; }
FUNCTION free_twice(void) { hidden = freed(24); free(hidden); sink = 1; }
FUNCTION free_inside(void) { hidden = of(64) + 16; free(hidden); sink = 1; }
FUNCTION free_nothing(void) { hidden = (void *)&sink; free(hidden); sink = 1; }
FUNCTION use_after_realloc(void) {
    char *block = of(20);
    char *other = realloc(hidden, 2000);
    other[0] = 1;
    sink = *(char *)(block + sink);
}

static void must(int holds, int line) {
    if (!holds) {
        fprintf(stderr, "line %d\n", line);
        _exit(9);
    }
}
#define MUST(holds) must(holds, __LINE__)

static int is_all(const char *block, size_t bytes, char value) {
    while (bytes--)
        if (*block++ != value) return 0;
    return 1;
}

static void use_well(void) {
    static char *blocks[1500];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 1500; i++) {
            size_t bytes = (size_t)i * 7 % 600;
            blocks[i] = i % 3 ? malloc(bytes) : calloc(bytes, 1);
            MUST(blocks[i] && (uintptr_t)blocks[i] % 16 == 0 && malloc_usable_size(blocks[i]) >= bytes);
            MUST(i % 3 || is_all(blocks[i], bytes, 0));
            memset(blocks[i], i, bytes);
        }
        for (int i = 0; i < 1500; i++) {
            size_t bytes = (size_t)i * 7 % 600, more = (size_t)i * 11 % 700 + 1;
            blocks[i] = realloc(blocks[i], more);
            MUST(is_all(blocks[i], bytes < more ? bytes : more, (char)i));
        }
        for (int i = 0; i < 1500; i++) free(blocks[(i * 7) % 1500]);
    }
    for (size_t align = 16; align <= 1 << 21; align *= 2) {
        void *block;
        MUST(!posix_memalign(&block, align, 100) && (uintptr_t)block % align == 0);
        memset(block, 1, 100);
        void *other = aligned_alloc(align, align * 3);
        MUST(other && (uintptr_t)other % align == 0);
        memset(other, 2, align * 3);
        free(other);
        block = realloc(block, 5000);
        MUST(is_all(block, 100, 1));
        free(block);
    }
    void *block;
    MUST(posix_memalign(&block, 3, 1) == EINVAL);
    MUST((uintptr_t)valloc(1) % 4096 == 0 && (uintptr_t)pvalloc(5000) % 4096 == 0);
    MUST((uintptr_t)memalign(64, 1) % 64 == 0);
    errno = 0;
    MUST(!malloc(SIZE_MAX / 2) && errno == ENOMEM);
    MUST(!calloc(SIZE_MAX / 2, 4) && !reallocarray(0, SIZE_MAX / 2, 4));
    MUST(malloc(0) != malloc(0));
    free(0);
    block = malloc(300 << 10);
    memset(block, 3, 300 << 10);
    block = realloc(block, 5 << 20);
    MUST(is_all(block, 300 << 10, 3));
    MUST(!realloc(block, 0));
    puts("used well");
}

int main(void) {
    char how[4] = {0};
    if (read(0, how, sizeof how) < 1) return 1;
    switch (how[0]) {
    case 'o': overflow_by_one(32); break;
    case 'O': overflow_by_one(16 << 10); break;
    case 'r': read_beyond(4096); break;
    case 's': overflow_slack(); break;
    case 'e': overflow_slack_and_exit(); break;
    case 'b': underflow(); break;
    case 'u': use_after_free(10); break;
    case 'U': use_after_free(100000); break;
    case 'w': write_after_free(3000); break;
    case 'd': free_twice(); break;
    case 'i': free_inside(); break;
    case 'f': free_nothing(); break;
    case 'a': use_after_realloc(); break;
    case 'n': if (!memcmp(how, "nice", 4)) use_well(); break;
    default: free(of(100));
    }
    return 0;
}
