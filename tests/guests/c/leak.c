// A guest that tells whether anything of an earlier run is left in it.
//
// Before the snapshot point (its first read) it fills registers and memory with known values.
// After it, it checks every one of them, spoils every one of them, and exits with a status that
// has a bit set for each one that was not as it should be. When the input is "twice" it checks
// again after spoiling: then every bit must be set, which proves that the checks can fail.
//
// No libc: a changed FS base would break it.

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

enum { READ = 0, MMAP = 9, BRK = 12, ARCH_PRCTL = 158, EXIT_GROUP = 231 };
enum { SET_FS = 0x1002, GET_FS = 0x1003 };

static long call(long nr, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long out;
    __asm__ volatile("syscall"
                     : "=a"(out)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return out;
}

static char fs_area[2][64];
static char input[64];
static volatile uint64_t global = 1;
static volatile uint64_t *heap, *mapped;
static long brk_start;

struct vectors {
    uint64_t ymm[16][4];
};

// The registers themselves, in one go, so that the compiler keeps nothing in them in between.
static void load_vectors(const struct vectors *v) {
    __asm__ volatile(
        "vmovdqu 0(%0),%%ymm0; vmovdqu 32(%0),%%ymm1; vmovdqu 64(%0),%%ymm2; vmovdqu 96(%0),%%ymm3;"
        "vmovdqu 128(%0),%%ymm4; vmovdqu 160(%0),%%ymm5; vmovdqu 192(%0),%%ymm6; vmovdqu 224(%0),%%ymm7;"
        "vmovdqu 256(%0),%%ymm8; vmovdqu 288(%0),%%ymm9; vmovdqu 320(%0),%%ymm10; vmovdqu 352(%0),%%ymm11;"
        "vmovdqu 384(%0),%%ymm12; vmovdqu 416(%0),%%ymm13; vmovdqu 448(%0),%%ymm14; vmovdqu 480(%0),%%ymm15" ::"r"(v)
        : "memory");
}

static void store_vectors(struct vectors *v) {
    __asm__ volatile(
        "vmovdqu %%ymm0,0(%0); vmovdqu %%ymm1,32(%0); vmovdqu %%ymm2,64(%0); vmovdqu %%ymm3,96(%0);"
        "vmovdqu %%ymm4,128(%0); vmovdqu %%ymm5,160(%0); vmovdqu %%ymm6,192(%0); vmovdqu %%ymm7,224(%0);"
        "vmovdqu %%ymm8,256(%0); vmovdqu %%ymm9,288(%0); vmovdqu %%ymm10,320(%0); vmovdqu %%ymm11,352(%0);"
        "vmovdqu %%ymm12,384(%0); vmovdqu %%ymm13,416(%0); vmovdqu %%ymm14,448(%0); vmovdqu %%ymm15,480(%0)" ::"r"(v)
        : "memory");
}

static void fill(struct vectors *v, uint64_t low, uint64_t high) {
    for (int i = 0; i < 16; i++) {
        v->ymm[i][0] = v->ymm[i][1] = low + i;
        v->ymm[i][2] = v->ymm[i][3] = high + i;
    }
}

static struct vectors clean, now;
static volatile uint32_t mxcsr;
static volatile uint16_t control;

static void set_state(uint32_t csr, uint16_t word, int area) {
    mxcsr = csr;
    control = word;
    __asm__ volatile("ldmxcsr %0; fldcw %1" ::"m"(mxcsr), "m"(control));
    call(ARCH_PRCTL, SET_FS, (long)fs_area[area], 0, 0, 0, 0);
}

static long fs_base(void) {
    long base = 0;
    call(ARCH_PRCTL, GET_FS, (long)&base, 0, 0, 0, 0);
    return base;
}

// The whole life after the snapshot; `stack` is a frame that existed before it.
static int check(volatile uint64_t *stack) {
    int wrong = 0;
    for (int i = 0; i < 16; i++) {
        if (now.ymm[i][0] != clean.ymm[i][0] || now.ymm[i][1] != clean.ymm[i][1]) wrong |= 1;
        if (now.ymm[i][2] != clean.ymm[i][2] || now.ymm[i][3] != clean.ymm[i][3]) wrong |= 2;
    }
    uint32_t csr;
    uint16_t word;
    __asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(csr), "=m"(word));
    if (csr != 0x1fc0) wrong |= 4;
    if (word != 0x27f) wrong |= 8;
    if (fs_base() != (long)fs_area[0]) wrong |= 16;
    if (*heap != 7 || *mapped != 8 || global != 1) wrong |= 32;
    if (*stack != 9) wrong |= 64;
    if (call(BRK, 0, 0, 0, 0, 0, 0) != brk_start + 4096) wrong |= 128;
    return wrong;
}

static void spoil(volatile uint64_t *stack) {
    set_state(0x1f80, 0x37f, 1);
    *heap = *mapped = *stack = global = 0xdead;
    call(BRK, brk_start + 8192, 0, 0, 0, 0, 0);
    ((volatile char *)brk_start)[4096] = 1;
    fill(&now, 0x1111, 0x2222);
    load_vectors(&now);
}

void start(void) {
    volatile uint64_t stack = 9;
    brk_start = call(BRK, 0, 0, 0, 0, 0, 0);
    call(BRK, brk_start + 4096, 0, 0, 0, 0, 0);
    heap = (uint64_t *)brk_start;
    mapped = (uint64_t *)call(MMAP, 0, 4096, 3, 0x22, -1, 0);
    *heap = 7;
    *mapped = 8;
    set_state(0x1fc0, 0x27f, 0);
    fill(&clean, 0xaaaa0000, 0xbbbb0000);
    load_vectors(&clean);
    long bytes;
    // The vectors must not be touched between here and `store_vectors`.
    bytes = call(READ, 0, (long)input, sizeof input, 0, 0, 0);
    store_vectors(&now);
    int wrong = check(&stack);
    spoil(&stack);
    if (bytes >= 5 && input[0] == 't' && input[1] == 'w') {
        store_vectors(&now);
        wrong = check(&stack);
    }
    call(EXIT_GROUP, wrong, 0, 0, 0, 0, 0);
    __builtin_unreachable();
}

__asm__(".globl _start\n_start: and $-32, %rsp; call start; hlt");
