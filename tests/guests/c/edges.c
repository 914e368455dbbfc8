// Branches, joins and loops whose every step the program can tell: with 's' first it steps through them
// by itself (RFLAGS.TF) and prints the address of each instruction; with 'n' it just runs them. Edges
// and counts are judged by that.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

extern char __start_judged[], __stop_judged[];
#define JUDGED __attribute__((noinline, noclone, section("judged")))

enum { STEPS_MAX = 1 << 17 };
static uint32_t steps[STEPS_MAX];
static unsigned step_count;

static void on_step(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    uint64_t rip = (uint64_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    uint64_t at = rip - (uint64_t)__start_judged;
    if (at < (uint64_t)(__stop_judged - __start_judged) && step_count < STEPS_MAX)
        steps[step_count++] = (uint32_t)at;
}

static volatile unsigned sink;

// A block that is skipped or not: both ways join behind it.
JUDGED unsigned joins(unsigned c) {
    unsigned n = c;
    if (c & 1) sink += 3;
    if (c & 2) n = n * 5 + sink;
    if (c > 'm' || c == 'a') n ^= 0x55;
    if (n & 64 && c & 4) sink ^= n;
    return n;
}

JUDGED unsigned loops(unsigned times) {
    unsigned n = 0;
    for (unsigned i = 0; i < times; i++) {
        if (i % 3 == 0) continue;
        if (i % 7 == 6) { sink += i; }
        n += sink & 1 ? i : 2 * i;
        if (n > 1000000) break;
    }
    return n;
}

JUDGED unsigned chooses(unsigned c) {
    switch (c & 7) {
    case 0: return sink + 1;
    case 1: return c * 3;
    case 2: sink += 2; break;
    case 3: return c << 4;
    case 4: sink ^= c; /* fall through */
    case 5: return sink / 3;
    case 6: return c % 11;
    default: break;
    }
    return c;
}

// Carries, which a count must not disturb.
JUDGED unsigned long carries(unsigned long low, unsigned long high) {
    __asm__ volatile(
        "clc\n"
        "mov $3, %%ecx\n"
        "1: jmp 2f\n"
        "2: adc $-1, %0\n"
        "adc $0, %1\n"
        "lea -1(%%rcx), %%rcx\n"
        "jrcxz 3f\n"
        "jmp 1b\n"
        "3: setc %%cl\n"
        "movzx %%cl, %%ecx\n"
        "add %%rcx, %0\n"
        : "+r"(low), "+r"(high) : : "rcx", "cc");
    return low * 31 + high;
}

JUDGED unsigned work(const unsigned char *input, unsigned length) {
    unsigned n = 0;
    for (unsigned i = 0; i < length; i++) {
        unsigned c = input[i];
        if (c >= '0' && c <= '9') n += loops((c - '0') * (c - '0') * 4);
        else if (c < 'A') continue;
        else n += joins(c);
        n ^= chooses(c);
        n += (unsigned)carries(n, c);
        if (!n) break;
    }
    return n;
}

static void step(int on) {
    if (on) __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "cc", "memory");
    else __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "cc", "memory");
}

int main(void) {
    static unsigned char input[256];
    ssize_t length = read(0, input, sizeof input);
    if (length < 1) return 1;
    int is_stepped = input[0] == 's';
    if (is_stepped) {
        struct sigaction action = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };
        sigaction(SIGTRAP, &action, NULL);
        step(1);
    }
    unsigned n = work(input + 1, (unsigned)length - 1);
    if (is_stepped) step(0);
    printf("%u %p %p\n", n, (void *)__start_judged, (void *)__stop_judged);
    for (unsigned i = 0; i < step_count; i++) printf("%x\n", steps[i]);
    return (int)(n & 63);
}
