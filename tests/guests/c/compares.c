/* Comparisons of every kind that a logger has to see, each with a constant of its own. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static volatile int sink;

static __attribute__((noinline)) int spin(int n) {
    int sum = 0;
    for (int i = 0; i < n; i++)
        if (sum != 0x1234567 + i)
            sum += 3;
    return sum;
}

static __attribute__((noinline)) int choose(uint32_t value) {
    switch (value) {
    case 0x11223344:
        return 1;
    case 0x55667788:
        return 2;
    case 0x7badcafe:
        return 3;
    default:
        return 0;
    }
}

int main(void) {
    static unsigned char in[256];
    static char text[65];
    ssize_t length = read(0, in, sizeof in);
    if (length < 64)
        return 1;
    uint64_t eight;
    uint32_t four;
    uint16_t two;
    double real;
    memcpy(&eight, in, 8);
    memcpy(&four, in + 8, 4);
    memcpy(&two, in + 12, 2);
    memcpy(&real, in + 16, 8);
    memcpy(text, in + 24, 16);
    if (eight == 0x1122334455667788)
        sink += 1;
    if (four == 0xdeadbeef)
        sink += 2;
    if (two == 0xbabe)
        sink += 4;
    if (__builtin_bswap32(four) > 0xcafed00d)
        sink += 8;
    if (real == 1234.5)
        sink += 16;
    sink += choose(four);
    if (strcmp(text, "keyword") == 0)
        sink += 32;
    if (memcmp(in + 40, "sixteen bytes!!!", (size_t)length - 48) == 0)
        sink += 64;
    if (strncasecmp(text, "Prefixed", 8) == 0)
        sink += 128;
    if (strstr(text, "needle") != NULL)
        sink += 256;
    sink += spin(in[63]);
    printf("%d\n", sink);
    return 0;
}
