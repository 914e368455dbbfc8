/* json.c's parser, called over and over in one process, as whoever drives it wants: by AFL++ in
 * persistent mode, by libFuzzer, or by a plain loop that nothing resets.
 */
#define main json_main
#include "json.c"
#undef main

static int run(const unsigned char *data, size_t length) {
    if (length > INPUT_MAX)
        length = INPUT_MAX;
    memcpy(input, data, length);
    return parse(input, length, 0);
}

#if defined LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
    run(data, length);
    return 0;
}

#elif defined AFL_PERSISTENT

__AFL_FUZZ_INIT();

int main(void) {
    __AFL_INIT();
    unsigned char *data = __AFL_FUZZ_TESTCASE_BUF;
    while (__AFL_LOOP(100000))
        run(data, __AFL_FUZZ_TESTCASE_LEN);
    return 0;
}

#else

/* loop FILE: FILE holds inputs, each a 32-bit length and the bytes. For each 64-bit count on
 * standard input, that number of runs of the inputs in turn; answers with the sum of their statuses. */
enum { INPUTS_MAX = 64 };

int main(int argc, char **argv) {
    static unsigned char store[1 << 20];
    const unsigned char *data[INPUTS_MAX];
    uint32_t length[INPUTS_MAX];
    size_t inputs = 0, at = 0;
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!file)
        return 2;
    size_t have = fread(store, 1, sizeof store, file);
    while (inputs < INPUTS_MAX && have - at >= sizeof *length) {
        memcpy(&length[inputs], store + at, sizeof *length);
        at += sizeof *length;
        if (length[inputs] > have - at)
            return 2;
        data[inputs] = store + at;
        at += length[inputs++];
    }
    uint64_t count;
    while (inputs && fill((unsigned char *)&count, sizeof count) == sizeof count) {
        uint64_t sum = 0;
        for (uint64_t n = 0; n < count; n++)
            sum += (uint64_t)run(data[n % inputs], length[n % inputs]);
        if (write(1, &sum, sizeof sum) != sizeof sum)
            return 2;
    }
    return 0;
}

#endif
