// Does what an address or undefined-behaviour sanitizer reports, by the input's first byte.
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((noinline)) static int fill(int count) {
    volatile char bytes[16];
    for (int i = 0; i < count; i++) bytes[i] = i;
    return bytes[3];
}

int main(void) {
    char input[2] = {0};
    if (read(0, input, 1) != 1) return 3;
    volatile char *block = malloc(10);
    memset((char *)block, 1, 10);
    switch (input[0]) {
    case 'h': block[10] = 1; break;
    case 'u': free((char *)block); return block[2];
    case 's': return fill(17);
    case 'd': free((char *)block); break;
    case 'o': return (INT_MAX - 'o' + 1 + input[0]) >> 30 & 5;
    }
    free((char *)block);
    puts("done");
    return 0;
}
