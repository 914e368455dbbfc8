/* A program for measuring exits and rewinds: no C library, so that every exit is one it asks for.
 *
 *   loops MODE COUNT
 *
 * It prepares what MODE needs, reads standard input once (which is where its snapshot is taken),
 * does the mode's one thing COUNT times, and exits. Modes:
 *
 *   mmio     stores to the engine's gate, which is no memory
 *   syscall  getppid
 *   fault    first touches of fresh pages, so far apart that each one faults; the store is
 *            `movb $1, (%rdi)`, 3 bytes
 *   trap     UD2, once
 *   dirty    writes one byte to each of COUNT pages that had contents at the snapshot
 *   once     the same, if there is any input
 *
 * Build: cc -O2 -static -nostdlib -fno-stack-protector
 */
enum { PAGE = 4096, DIRTY_MAX = 1024, FAULTS_MAX = 64, FAULT_STRIDE = 64 * PAGE };

static char pages[DIRTY_MAX * PAGE] __attribute__((aligned(4096)));

static long call(long nr, long a, long b, long c, long d, long e, long f) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

enum { READ = 0, MMAP = 9, GETPPID = 110, EXIT_GROUP = 231 };

static _Noreturn void finish(int status) {
    for (;;)
        call(EXIT_GROUP, status, 0, 0, 0, 0, 0);
}

static long number(const char *text) {
    long value = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (*text - '0');
    return value;
}

static long wait_for_input(void) {
    static char input[64];
    return call(READ, 0, (long)input, sizeof input, 0, 0, 0);
}

static void mmio(long count) {
    /* The gate: guest::process::trap, ENGINE_BASE + 0x10000000. */
    while (count-- > 0)
        __asm__ volatile("movabs %%al, 0x7f0010000000" : : "a"(0) : "memory");
}

static void syscalls(long count) {
    while (count-- > 0)
        call(GETPPID, 0, 0, 0, 0, 0, 0);
}

static void fault(char *at, long count) {
    for (; count > 0; count--, at += FAULT_STRIDE)
        __asm__ volatile("movb $1, (%0)" : : "D"(at) : "memory");
}

static void dirty(long count) {
    for (long page = 0; page < count; page++)
        ((volatile char *)pages)[page * PAGE] = 'x';
}

__attribute__((used)) static void start(long *stack) {
    if (stack[0] != 3)
        finish(2);
    const char *mode = (const char *)stack[2];
    long count = number((const char *)stack[3]);
    if (count > (mode[0] == 'f' ? FAULTS_MAX : DIRTY_MAX))
        finish(2);
    for (long page = 0; (mode[0] == 'd' || mode[0] == 'o') && page < count; page++)
        pages[page * PAGE] = 'a';
    /* PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE. */
    char *fresh = (char *)call(MMAP, 0, FAULTS_MAX * FAULT_STRIDE, 3, 0x4022, -1, 0);
    long input = wait_for_input();
    switch (mode[0]) {
    case 'm': mmio(count); break;
    case 's': syscalls(count); break;
    case 'f': fault(fresh, count); break;
    case 'd': dirty(count); break;
    case 'o': dirty(input > 0 ? count : 0); break;
    case 't': __asm__ volatile("ud2");
    default: finish(2);
    }
    finish(0);
}

__asm__(".globl _start\n_start:\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call start\n");
