/* What could show that code was moved, or notice it: the first byte of the input chooses.
 *
 * Prints what it found; exit status 0, whatever happens. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int seen;
static jmp_buf back;

/* A function of many blocks, through a jump table. */
__attribute__((noinline)) static unsigned classify(const unsigned char *p, int n) {
    unsigned sum = 0;
    for (int i = 0; i < n; i++)
        switch (p[i] & 15) {
        case 0: sum += 3; break;
        case 1: sum ^= 0x55; break;
        case 2: sum *= 7; break;
        case 3: sum -= p[i]; break;
        case 4: sum = sum << 3 | sum >> 29; break;
        case 5: sum += sum >> 2; break;
        case 6: sum ^= (unsigned)i; /* falls through */
        case 7: sum += 11; break;
        case 8: if (sum & 1) sum = ~sum; break;
        case 9: sum *= 5; /* falls through */
        default: sum++;
        }
    return sum;
}

/* A computed goto. */
__attribute__((noinline)) static unsigned interpret(const unsigned char *p, int n) {
    static const void *const ops[] = {&&add, &&shift, &&mix, &&skip};
    unsigned x = 1;
    int i = 0;
#define NEXT do { if (i >= n) return x; goto *ops[p[i++] & 3]; } while (0)
    NEXT;
add: x += 7; NEXT;
shift: x = x << 5 | x >> 27; NEXT;
mix: x ^= x >> 3; NEXT;
skip: i++; NEXT;
}

/* Faults in the middle of a block, at an address that the handler prints. */
__attribute__((noinline)) static int touch(volatile int *p) {
    int a = seen + 1;
    a += *p;
    return a ^ 5;
}

static void handler(int signal, siginfo_t *info, void *context) {
    (void)info;
    uintptr_t rip = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    printf("signal %d at %+ld\n", signal, (long)(rip - (uintptr_t)touch));
    fflush(stdout);
    longjmp(back, 1);
}

static void on_alarm(int signal) {
    (void)signal;
    seen++;
}

__attribute__((noinline)) static int deep(int n) { return n ? deep(n - 1) + 1 : (longjmp(back, 2), 0); }

int main(void) {
    static unsigned char input[4096];
    int n = (int)read(0, input, sizeof input);
    if (n < 1)
        return 0;
    printf("%u %u\n", classify(input, n), interpret(input, n));
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    uintptr_t page = (uintptr_t)classify & -4096UL;
    static unsigned char code[8192];
    switch (input[0]) {
    case 'f': /* a fault with a handler */
        sigaction(SIGSEGV, &action, 0);
        if (!setjmp(back))
            printf("%d\n", touch((int *)8));
        break;
    case 'c': /* a fault without one */
        printf("%d\n", touch((int *)8));
        break;
    case 't': /* a trap of its own */
        sigaction(SIGTRAP, &action, 0);
        if (!setjmp(back))
            __asm__ volatile("int3");
        break;
    case 'j': /* a long jump */
        if (!setjmp(back))
            deep(9);
        break;
    case 'p': /* its own code becomes writable */
        printf("%d\n", mprotect((void *)page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC));
        printf("%u\n", classify(input, n));
        break;
    case 'm': /* the same code is mapped anew in its place */
        memcpy(code, (void *)page, sizeof code);
        printf("%p\n", mmap((void *)page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (void *)page ? "" : 0);
        break;
    case 'h': { /* wherever there is room near the program, something is mapped */
        for (uintptr_t at = page - 0x7fff0000UL; at < page - 0x10000000UL; at += 0x100000)
            mmap((void *)at, 0x100000, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        printf("%u\n", classify(input, n));
        break;
    }
    case 's': /* it steps itself */
        signal(SIGTRAP, on_alarm);
        __asm__ volatile("pushf; orl $0x100, (%rsp); popf");
        seen += (int)classify(input, n);
        __asm__ volatile("pushf; andl $~0x100, (%rsp); popf");
        printf("stepped %d\n", seen);
        break;
    case 'a': /* a handler of a signal that it sends */
        signal(SIGUSR1, on_alarm);
        raise(SIGUSR1);
        printf("seen %d\n", seen);
        break;
    case 'x':
        exit(7);
    }
    printf("%u\n", classify(input, n));
    return 0;
}
