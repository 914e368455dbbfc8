// A program that changes and tells one item of its state. Input: the item's number and what to do
// (bit 0: change it, bit 1: tell it, in this order). What it tells goes to standard output, or, if
// bit 2 is set, its hash to the exit status, one byte of it: which one is the input's next byte, and
// a range that means nothing and is not hashed its next two pairs of bytes. Before its first read,
// which is the snapshot point, most items are given values of their own.
//
// No libc, and compiled with -mgeneral-regs-only, so that nothing but the asm here touches a vector
// or x87 register.

#include <stddef.h>
#include <stdint.h>

enum {
    READ = 0, WRITE = 1, OPEN = 2, CLOSE = 3, LSEEK = 8, MMAP = 9, MPROTECT = 10, MUNMAP = 11,
    BRK = 12, RT_SIGACTION = 13, RT_SIGPROCMASK = 14, FTRUNCATE = 77, GETCWD = 79, CHDIR = 80,
    UMASK = 95, SIGALTSTACK = 131, ARCH_PRCTL = 158, EXIT_GROUP = 231
};
enum { SET_GS = 0x1001, SET_FS = 0x1002, GET_FS = 0x1003, GET_GS = 0x1004 };
enum { CHANGE = 1, TELL = 2, HASH = 4 };

static long call(long nr, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long out;
    __asm__ volatile("syscall"
                     : "=a"(out)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return out;
}

// Written by the asm.
unsigned char input[64];
static uint64_t out[512] __attribute__((aligned(64)));
static unsigned char pattern[4096] __attribute__((aligned(64)));
static unsigned char pages[256 * 4096] __attribute__((aligned(4096)));
static char name[] = "/work/probe", other[] = "/work/other";
static long file, mapped, mask, enabled;
uint64_t gprs[18];
static volatile uint64_t sink;

// FNV-1a of what is told.
static uint64_t hash;

static void tell(int words) {
    if (!(input[1] & HASH)) {
        call(WRITE, 1, (long)out, words * 8, 0, 0, 0);
        return;
    }
    int from = *(uint16_t *)(input + 3), to = *(uint16_t *)(input + 5);
    hash = 0xcbf29ce484222325;
    for (int i = 0; i < words * 8; i++) {
        unsigned char byte = i >= from && i < to ? 0 : ((unsigned char *)out)[i];
        hash = (hash ^ byte) * 0x100000001b3;
    }
}

static void done(int status) {
    call(EXIT_GROUP, status, 0, 0, 0, 0, 0);
    __builtin_unreachable();
}

// The XCR0 that the program has, of x87, SSE, AVX and AVX-512.
static long xcr0(void) {
    uint32_t a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a & 0xe7;
}

// An XSAVE area that gives every register of every component `value`.
static void load(unsigned char value) {
    for (int i = 0; i < 4096; i++) pattern[i] = value;
    for (int i = 512; i < 576; i++) pattern[i] = 0;
    *(uint16_t *)(pattern + 0) = value == 0x11 ? 0x027f : 0x0c7f;
    *(uint16_t *)(pattern + 2) = value == 0x11 ? 0 : 0x3800;
    *(uint32_t *)(pattern + 24) = value == 0x11 ? 0x1fc0 : 0x7f80;
    *(uint64_t *)(pattern + 512) = enabled;
    __asm__ volatile("xrstor64 (%0)" ::"r"(pattern), "a"((uint32_t)enabled), "d"(0) : "memory");
}

static void xsave_change(void) { load(0x22); }
static void xsave_tell(void) {
    __asm__ volatile("xsave64 (%0)" ::"r"(out), "a"((uint32_t)enabled), "d"(0) : "memory");
    tell(344);
}

// x87's environment, with the last instruction's and its operand's addresses.
static void x87_change(void) {
    __asm__ volatile("fninit; fldpi; fstp %0; fldcw %1" : "=m"(sink) : "m"(*(uint16_t *)pattern));
}
static void x87_tell(void) {
    __asm__ volatile("fxsave64 (%0)" ::"r"(out) : "memory");
    tell(4);
}

static void pkru_change(void) { __asm__ volatile(".byte 0x0f, 0x01, 0xef" ::"a"(0x55555554), "c"(0), "d"(0)); }
static void pkru_tell(void) {
    uint32_t a, d;
    __asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(a), "=d"(d) : "c"(0));
    out[0] = a;
    tell(1);
}

static void bases_change(void) {
    call(ARCH_PRCTL, SET_FS, (long)out, 0, 0, 0, 0);
    call(ARCH_PRCTL, SET_GS, (long)pages, 0, 0, 0, 0);
}
static void bases_tell(void) {
    long fs = 0, gs = 0;
    call(ARCH_PRCTL, GET_FS, (long)&fs, 0, 0, 0, 0);
    call(ARCH_PRCTL, GET_GS, (long)&gs, 0, 0, 0, 0);
    out[0] = fs;
    out[1] = gs;
    // What the CPU has, not what the engine thinks it has.
    __asm__ volatile("mov %%fs:0, %0; mov %%gs:0, %1" : "=r"(out[2]), "=r"(out[3]));
    tell(4);
}

static void wrfsbase_change(void) { __asm__ volatile("wrfsbase %0; wrgsbase %1" ::"r"(out), "r"(pages)); }

static void segments_change(void) {
    __asm__ volatile("mov %%ss, %%eax; mov %%eax, %%ds; mov %%eax, %%es; mov %%eax, %%fs; mov %%eax, %%gs" ::: "eax");
}
static void segments_tell(void) {
    uint32_t ds, es, fs, gs;
    __asm__ volatile("mov %%ds, %0; mov %%es, %1; mov %%fs, %2; mov %%gs, %3"
                     : "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
    out[0] = (uint64_t)ds << 48 | (uint64_t)es << 32 | fs << 16 | gs;
    tell(1);
}

// The registers as the last system call left them (`_start` has stored them), or all ones.
static void gprs_change(void) {
    if (input[1] & TELL) {
        for (int i = 0; i < 18; i++) gprs[i] = ~gprs[i];
        return;
    }
    __asm__ volatile(
        "mov $0xffffffffffffffff, %rdx; mov %rdx, %rbx; mov %rdx, %rbp; mov %rdx, %r8; mov %rdx, %r9;"
        "mov %rdx, %r10; mov %rdx, %r12; mov %rdx, %r13; mov %rdx, %r14; mov %rdx, %r15;"
        "push $0x40ed7; orl $0x200000, (%rsp); popf; mov $231, %eax; mov $1, %edi; mov %rdx, %rsi; mov %rdx, %rsp; syscall");
}
static void gprs_tell(void) {
    for (int i = 0; i < 18; i++) out[i] = gprs[i];
    tell(18);
}

// One word of each of 256 pages that were never written, and of 16 that were.
static void pages_change(void) {
    for (int i = 0; i < 256; i++) pages[i * 4096 + 8]++;
    for (int i = 0; i < 16; i++) ((volatile char *)mapped)[i * 4096]++;
}
static void pages_tell(void) {
    uint64_t sum = 0;
    for (int i = 0; i < 256; i++) sum = sum * 3 + pages[i * 4096 + 8];
    for (int i = 0; i < 16; i++) sum = sum * 3 + ((volatile char *)mapped)[i * 4096];
    out[0] = sum;
    tell(1);
}

// Whether memory is there: writing from it to nowhere tells.
static long is_there(long at) { return call(WRITE, 1, at, 0, 0, 0, 0) >= 0 && call(OPEN, at, 0, 0, 0, 0, 0) != -14; }

// The pages on both sides of a mapping, and mappings far away, which take page tables of their own.
static const long far_away[4] = {0x123400000000, 0x234500000000, 0x345600000000, 0x456700000000};
static void mmap_change(void) {
    char *beyond = (char *)call(MMAP, mapped + 16 * 4096, 4096, 3, 0x32, -1, 0);
    for (int i = 0; i < 4096; i++) beyond[i] = 'x';
    call(MUNMAP, mapped + 4096, 4096, 0, 0, 0, 0);
    call(MPROTECT, mapped + 8192, 4096, 0, 0, 0, 0);
    for (int i = 0; i < 4; i++) {
        long *at = (long *)call(MMAP, far_away[i], 8192, 3, 0x32, -1, 0);
        at[0] = at[600] = 0x7777;
    }
}
static void mmap_tell(void) {
    for (int i = 0; i < 18; i++) out[i] = is_there(mapped + (i - 1) * 4096);
    for (int i = 0; i < 4; i++) out[18 + i] = is_there(far_away[i]);
    // What is mapped there anew holds nothing.
    char *beyond = (char *)mapped + 16 * 4096;
    if (!out[17]) call(MMAP, (long)beyond, 4096, 3, 0x32, -1, 0);
    out[22] = 0;
    for (int i = 0; i < 4096; i++) out[22] += beyond[i];
    // And where the kernel puts the next one.
    out[23] = call(MMAP, 0, 4096, 3, 0x22, -1, 0);
    tell(24);
}

static void file_change(void) {
    call(WRITE, file, (long)"changed", 7, 0, 0, 0);
    call(FTRUNCATE, file, 9, 0, 0, 0, 0);
    call(LSEEK, file, 5, 0, 0, 0, 0);
    call(OPEN, (long)other, 0102, 0600, 0, 0, 0);
}
static void file_tell(void) {
    out[0] = call(LSEEK, file, 0, 1, 0, 0, 0);
    out[1] = call(LSEEK, file, 0, 2, 0, 0, 0);
    call(LSEEK, file, 0, 0, 0, 0, 0);
    out[2] = out[3] = 0;
    call(READ, file, (long)&out[2], 16, 0, 0, 0);
    out[4] = call(OPEN, (long)other, 0, 0, 0, 0, 0);
    out[5] = call(OPEN, (long)name, 0, 0, 0, 0, 0);
    tell(6);
}

static void brk_change(void) {
    long now = call(BRK, 0, 0, 0, 0, 0, 0);
    call(BRK, now + 8192, 0, 0, 0, 0, 0);
    ((char *)now)[0] = ((char *)now)[5000] = 'x';
}
static void brk_tell(void) {
    long now = call(BRK, 0, 0, 0, 0, 0, 0);
    out[0] = now;
    call(BRK, now + 8192, 0, 0, 0, 0, 0);
    out[1] = ((char *)now)[0] + ((char *)now)[5000];
    tell(2);
}

static void signals_change(void) {
    uint64_t action[4] = {(uint64_t)pages, 0x4000000, (uint64_t)pages, 0x10};
    uint64_t blocked = 0x800, stack[3] = {(uint64_t)pages, 0, 65536};
    call(RT_SIGACTION, 10, (long)action, 0, 8, 0, 0);
    call(RT_SIGPROCMASK, 2, (long)&blocked, 0, 8, 0, 0);
    call(SIGALTSTACK, (long)stack, 0, 0, 0, 0, 0);
    call(UMASK, 077, 0, 0, 0, 0, 0);
    call(CHDIR, (long)"/", 0, 0, 0, 0, 0);
}
static void signals_tell(void) {
    for (int i = 0; i < 12; i++) out[i] = 0;
    call(RT_SIGACTION, 10, 0, (long)out, 8, 0, 0);
    call(RT_SIGPROCMASK, 0, 0, (long)&out[4], 8, 0, 0);
    call(SIGALTSTACK, 0, (long)&out[5], 0, 0, 0, 0);
    out[8] = call(UMASK, 0, 0, 0, 0, 0, 0);
    call(GETCWD, (long)&out[9], 24, 0, 0, 0, 0);
    tell(12);
}

// What CPL 3 can read of what it cannot write.
static void tables_tell(void) {
    for (int i = 0; i < 8; i++) out[i] = 0;
    uint64_t local, task, word;
    __asm__ volatile("sgdt %0; sidt %1" : "=m"(out[0]), "=m"(out[2])::"memory");
    __asm__ volatile("xor %0, %0; sldt %k0; xor %1, %1; str %k1; smsw %2" : "=&r"(local), "=&r"(task), "=&r"(word));
    out[4] = local;
    out[5] = task;
    out[6] = word & 0xffff;
    tell(7);
}
static void nothing(void) {}
static void lgdt_change(void) { __asm__ volatile("lgdt %0" ::"m"(out[0])); }
static void lldt_change(void) { __asm__ volatile("xor %%eax, %%eax; lldt %%ax" ::: "eax"); }
static void wrmsr_change(void) { __asm__ volatile("wrmsr" ::"a"(1), "d"(0), "c"(0xc0000102)); }
static void swapgs_change(void) { __asm__ volatile("swapgs"); }
static void xsetbv_change(void) { __asm__ volatile("xsetbv" ::"a"(3), "d"(0), "c"(0)); }
static void cr0_change(void) { __asm__ volatile("mov %0, %%cr0" ::"r"(1L)); }
static void cr8_change(void) { __asm__ volatile("mov %0, %%cr8" ::"r"(1L)); }
static void dr_change(void) { __asm__ volatile("mov %0, %%dr0" ::"r"(1L)); }
static void out_change(void) { __asm__ volatile("out %%al, $0x80" ::"a"(1)); }
static void cli_change(void) { __asm__ volatile("cli"); }
// A #DB leaves its cause in DR6, which CPL 3 cannot read.
static void step_change(void) { __asm__ volatile("pushf; orl $0x100, (%rsp); popf; nop; nop"); }
static void icebp_change(void) { __asm__ volatile(".byte 0xf1"); }
// An instruction that touches the engine's own pages.
static void engine_change(void) { *(volatile long *)0xffff800000000000 = 1; }

static void (*const items[][2])(void) = {
    {gprs_change, gprs_tell},         // 0
    {xsave_change, xsave_tell},       // 1
    {x87_change, x87_tell},           // 2
    {pkru_change, pkru_tell},         // 3
    {bases_change, bases_tell},       // 4
    {wrfsbase_change, bases_tell},    // 5
    {segments_change, segments_tell}, // 6
    {pages_change, pages_tell},       // 7
    {mmap_change, mmap_tell},         // 8
    {file_change, file_tell},         // 9
    {brk_change, brk_tell},           // 10
    {signals_change, signals_tell},   // 11
    {lgdt_change, tables_tell},       // 12
    {lldt_change, tables_tell},       // 13
    {wrmsr_change, tables_tell},      // 14
    {swapgs_change, bases_tell},      // 15
    {xsetbv_change, tables_tell},     // 16
    {cr0_change, tables_tell},        // 17
    {cr8_change, tables_tell},        // 18
    {dr_change, tables_tell},         // 19
    {out_change, tables_tell},        // 20
    {cli_change, tables_tell},        // 21
    {step_change, tables_tell},       // 22
    {icebp_change, tables_tell},      // 23
    {engine_change, tables_tell},     // 24
};

void probe(void) {
    if (input[0] >= sizeof items / sizeof *items) done(98);
    if (input[1] & CHANGE) items[input[0]][0]();
    if (input[1] & TELL) items[input[0]][1]();
    done(input[1] & HASH ? hash >> input[2] * 8 & 0xff : 0);
}

void prepare(void) {
    enabled = xcr0();
    call(BRK, call(BRK, 0, 0, 0, 0, 0, 0) + 4096, 0, 0, 0, 0, 0);
    // With a page on each side that is not mapped.
    mapped = call(MMAP, 0, 18 * 4096, 3, 0x22, -1, 0) + 4096;
    for (int i = 0; i < 16; i++) ((volatile char *)mapped)[i * 4096] = i;
    call(MUNMAP, mapped - 4096, 4096, 0, 0, 0, 0);
    call(MUNMAP, mapped + 16 * 4096, 4096, 0, 0, 0, 0);
    file = call(OPEN, (long)name, 0102, 0600, 0, 0, 0);
    call(WRITE, file, (long)"before the snapshot", 19, 0, 0, 0);
    call(LSEEK, file, 3, 0, 0, 0, 0);
    call(ARCH_PRCTL, SET_FS, (long)pattern, 0, 0, 0, 0);
    call(ARCH_PRCTL, SET_GS, (long)pattern, 0, 0, 0, 0);
    load(0x11);
}

__asm__(
    ".globl _start\n"
    "_start: and $-64, %rsp; call prepare\n"
    "mov $0x1001, %rbx; mov $0x1002, %rbp; mov $0x1003, %r8; mov $0x1004, %r9; mov $0x1005, %r10\n"
    "mov $0x1006, %r12; mov $0x1007, %r13; mov $0x1008, %r14; mov $0x1009, %r15\n"
    "xor %eax, %eax; xor %edi, %edi; lea input(%rip), %rsi; mov $64, %edx; stc; std; syscall\n"
    "pushf; popq gprs+128(%rip); cld\n"
    "mov %rax, gprs(%rip); mov %rbx, gprs+8(%rip); mov %rcx, gprs+16(%rip); mov %rdx, gprs+24(%rip)\n"
    "mov %rsi, gprs+32(%rip); mov %rdi, gprs+40(%rip); mov %rbp, gprs+48(%rip); mov %rsp, gprs+56(%rip)\n"
    "mov %r8, gprs+64(%rip); mov %r9, gprs+72(%rip); mov %r10, gprs+80(%rip); mov %r11, gprs+88(%rip)\n"
    "mov %r12, gprs+96(%rip); mov %r13, gprs+104(%rip); mov %r14, gprs+112(%rip); mov %r15, gprs+120(%rip)\n"
    "call probe; hlt\n");
