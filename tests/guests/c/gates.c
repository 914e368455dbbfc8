/* Eight gates that a fuzzer may be stuck before, one to a build: -DGATE=1 to -DGATE=8.
 *
 * Reads the file that it is given, and aborts if the input passes the gate; the last gate overflows
 * the stack that it runs on instead. Status 0 is an input that does not pass. With -DLIBFUZZER it is
 * a fuzz target without a main, the same gate in it.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { INPUT_MAX = 4096 };

#if GATE == 7
static uint32_t big_endian(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

#elif GATE == 1 || GATE == 6
static uint32_t little_endian(const uint8_t *at) {
    return (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
}
#endif

#if GATE == 1 /* four bytes at once */
static int passes(const uint8_t *data, size_t size) {
    return size >= 4 && little_endian(data) == 0xc0dec0a7;
}

#elif GATE == 2 /* eight bytes at once */
static int passes(const uint8_t *data, size_t size) {
    uint64_t word;
    if (size < sizeof word)
        return 0;
    memcpy(&word, data, sizeof word);
    return word == 0x9ae16a3b2f90404full;
}

#elif GATE == 3 /* strcmp with the first line */
static int passes(const uint8_t *data, size_t size) {
    char line[64];
    size_t length = 0;
    while (length < size && length < sizeof line - 1 && data[length] != '\n') {
        line[length] = (char)data[length];
        length++;
    }
    line[length] = 0;
    return strcmp(line, "open sesame, please") == 0;
}

#elif GATE == 4 /* memcmp of sixteen bytes */
static const uint8_t uuid[16] = {0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1,
                                 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};

static int passes(const uint8_t *data, size_t size) {
    return size >= 4 + sizeof uuid && memcmp(data + 4, uuid, sizeof uuid) == 0;
}

#elif GATE == 5 /* three keywords in a row, each of which is one of several that are known */
static const char *const keywords[] = {"begin", "colour", "extent", "insert", "matrix", "rotate"};

/* The number of the word that starts at *at, which is moved past it and one space; or -1. */
static int keyword(const char **at) {
    for (int i = 0; i < 6; i++) {
        size_t length = strlen(keywords[i]);
        if (strncmp(*at, keywords[i], length) == 0 && (*at)[length] == ' ') {
            *at += length + 1;
            return i;
        }
    }
    return -1;
}

static int passes(const uint8_t *data, size_t size) {
    char text[INPUT_MAX + 1];
    if (size > INPUT_MAX)
        return 0;
    memcpy(text, data, size);
    text[size] = 0;
    const char *at = text;
    return keyword(&at) == 4 && keyword(&at) == 2 && keyword(&at) == 5;
}

#elif GATE == 6 /* the CRC32 of the rest */
static int passes(const uint8_t *data, size_t size) {
    if (size < 20)
        return 0;
    uint32_t crc = ~0u;
    for (size_t i = 4; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return little_endian(data) == ~crc;
}

#elif GATE == 7 /* a length and a big-endian sum that must agree with the rest */
static int passes(const uint8_t *data, size_t size) {
    if (size < 24 || (data[0] | (size_t)data[1] << 8) != size - 6)
        return 0;
    uint32_t sum = 0x811c9dc5; /* not 0, so that a run of zeros does not pass */
    for (size_t i = 6; i < size; i++)
        sum = sum * 3 + data[i];
    return big_endian(data + 2) == sum;
}

#elif GATE == 8 /* parentheses, nested some 2,000 deep, on a stack that ends there */
enum { DEPTH = 2000, FRAME = 128, CALL = 64, GUARD = 4096 };

static const uint8_t *at, *end;

/* The depth of what is in parentheses at `at`. */
__attribute__((noinline)) static int nested(void) {
    volatile char frame[FRAME]; /* by an index that no compiler knows, so that it is there */
    size_t own = (size_t)(end - at) % FRAME;
    int deepest = 0;
    frame[own] = 1;
    while (at < end && *at != ')') {
        if (*at++ == '(') {
            int depth = nested();
            deepest = depth > deepest ? depth : deepest;
        }
    }
    if (at < end)
        at++;
    return deepest + frame[own];
}

static ucontext_t outside, inside;

static void enter(void) { nested(); }

static int passes(const uint8_t *data, size_t size) {
    static char *stack;
    size_t bytes = GUARD + DEPTH * (FRAME + CALL);
    if (!stack) {
        stack = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED || mprotect(stack, GUARD, PROT_NONE) != 0)
            exit(2);
    }
    at = data;
    end = data + size;
    getcontext(&inside);
    inside.uc_stack.ss_sp = stack;
    inside.uc_stack.ss_size = bytes;
    inside.uc_link = &outside;
    makecontext(&inside, enter, 0);
    swapcontext(&outside, &inside);
    return 0;
}

#else
#error "compile with -DGATE=1 to -DGATE=8"
#endif

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (passes(data, size))
        abort();
    return 0;
}
#else
int main(int argc, char **argv) {
    static uint8_t input[INPUT_MAX];
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!file) {
        fprintf(stderr, "usage: gates FILE\n");
        return 2;
    }
    size_t size = fread(input, 1, sizeof input, file);
    if (passes(input, size))
        abort();
    return 0;
}
#endif
