// Misses a file whose name would command a terminal, and crashes where it is told to.
#include <fcntl.h>
#include <stdio.h>

__attribute__((noinline)) void crash_here_now(volatile char *at) { *at = 1; }

int main(void) {
    open("/work/\033[2Jmissing", O_RDONLY);
    if (getchar() == 'c') crash_here_now(0);
    return 0;
}
