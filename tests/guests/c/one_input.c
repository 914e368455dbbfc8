/* A fuzz target with a driver of its own, which goes on for long after the one call. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_ready;
static volatile uint8_t sink;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    is_ready = *argc > 0 && *argv != NULL;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!is_ready)
        abort();
    if (size == 0)
        return 0;
    if (data[0] == '>')
        sink = data[size]; /* one byte beyond the end */
    if (data[0] == 's')
        printf("%zu bytes, ending in %02x\n", size, data[size - 1]), fflush(stdout);
    if (size >= 4 && data[0] == 'B' && data[1] == 'U' && data[2] == 'G' && data[3] == '!')
        abort();
    if (data[0] == 'e')
        exit(3);
    return 0;
}

int main(int argc, char **argv) {
    static uint8_t data[64];
    size_t size = 0;
    if (argc > 1 && strcmp(argv[1], "never") == 0)
        return 5;
    if (argc > 1 && strcmp(argv[1], "close") == 0)
        close(0);
    LLVMFuzzerInitialize(&argc, &argv);
    if (argc > 1) {
        FILE *file = fopen(argv[1], "rb");
        size = file == NULL ? 0 : fread(data, 1, sizeof data, file);
    }
    LLVMFuzzerTestOneInput(data, size);
    puts("back in main");
    for (int i = 0; i < 100; i++)
        sleep(1);
    return 7;
}
