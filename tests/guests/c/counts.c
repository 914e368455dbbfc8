/* Crashes at four bytes that are looked at one by one, in a loop: only how often it is passed tells how
 * many of them are right. */
#include <stdlib.h>
#include <unistd.h>

static const volatile unsigned char secret[4] = {0x91, 0x3e, 0xd7, 0x5a};

int main(void) {
    unsigned char input[8] = {0};
    if (read(0, input, sizeof input) < 4) return 1;
    int n = 0;
    while (n < 4 && input[n] == secret[n]) n++;
    if (n == 4) abort();
    return 0;
}
