/* Looks for the map that its own blocks mark, by reading its code, and writes there: the first byte of
 * the input says what. Where nothing is rewritten it finds nothing, and does nothing. */
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static volatile int sink;

__attribute__((noinline)) int target(int n) {
    sink = n * 3 + 12345;
    return sink + n;
}

static unsigned char *map_of(const unsigned char *code) {
    int32_t distance;
    if (code[0] != 0xe9) return 0;
    memcpy(&distance, code + 1, 4);
    code += 5 + distance;
    if ((code[0] != 0xc6 && code[0] != 0x80) || code[1] != 5) return 0;
    memcpy(&distance, code + 2, 4);
    unsigned char *byte = (unsigned char *)(code + 7 + distance);
    return (unsigned char *)((uintptr_t)byte & ~(uintptr_t)4095);
}

int main(void) {
    char input[64] = {0};
    if (read(0, input, sizeof input - 1) < 1) return 1;
    int (*volatile function)(int) = target;
    int n = function(input[1]);
    unsigned char *map = map_of((const unsigned char *)function);
    if (!map) return n & 1;
    switch (input[0]) {
    case 'a': memset(map, 0xaa, 4096); break;         /* everything was passed often */
    case 'z': memset(map, 0, 4096); break;            /* nothing was */
    case 'e': map[4095] = 1; break;                   /* behind all places */
    case 'r': map[4096] = 0; break;                   /* what is news: read-only */
    case 't': ((unsigned char *)function)[0] = 0; break;
    case 'c': ((void (*)(void))map)(); break;         /* no code */
    case 'w': for (;;) map[sink & 4095]++;            /* for ever */
    default: break;
    }
    return n & 1;
}
