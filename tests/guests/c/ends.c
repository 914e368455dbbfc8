// Ends in the way that it was built for: -DHOW_reads, _unread, _early_crash, _early_loop, _crash,
// _hang.
#include <unistd.h>

static char input[64];

void never(void) { input[0] = 1; }

int main(int argc, char **argv) {
    if (argc > 100) never();
#if defined HOW_unread
    return 0;
#elif defined HOW_early_crash
    *(volatile int *)16 = 1;
#elif defined HOW_early_loop
    for (;;) __asm__ volatile("");
#endif
    if (read(0, input, sizeof input) < 0) return 1;
#if defined HOW_crash
    *(volatile int *)16 = 1;
#elif defined HOW_hang
    for (;;) __asm__ volatile("");
#endif
    return input[0] == 'x';
}
