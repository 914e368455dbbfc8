// Runs its input as code, as noise.c does, and is as small as a program can be: no C library.
// Built with -nostdlib -static.
static long call(long nr, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static unsigned char page[8192] __attribute__((aligned(4096)));

void _start(void) {
    call(10, (long)page, sizeof page, 7); // mprotect
    call(257, -100, (long)"/tmp/kept", 0102); // openat, to have a file of its own
    call(1, 3, (long)"some bytes", 10);
    call(22, (long)page, 0, 0); // pipe
    call(1, 5, (long)"more", 4);
    long bytes = call(0, 0, (long)page, 4096);
    if (bytes > 0) ((void (*)(void *, void *, void *, void *))page)(page, page, page, page);
    call(231, 1, 0, 0);
}
