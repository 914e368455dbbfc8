// Dies, or ends, in the way that its input's first letter names.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NOWHERE 0x8000000000001000ULL

static char data[64] __attribute__((aligned(64)));

static int recurse(volatile int depth) {
    volatile char frame[512];
    frame[0] = (char)depth;
    return depth == -1 ? frame[0] : recurse(depth + 1) + frame[0];
}

int main(void) {
    char how = 0;
    if (read(0, &how, 1) != 1) return 1;
    volatile int zero = 0;
    switch (how) {
    case 'r': return *(volatile int *)0x10;
    case 'w': *(volatile int *)0x20 = 1; return 2;
    case 'x': ((void (*)(void))0x30)(); return 2;
    case 'n': return *(volatile int *)0x8000000000000000ULL;
    case 'c': *(volatile char *)(uintptr_t)main = 1; return 2;
    case 'd': {
        int quotient = 1, rest = 0;
        __asm__ volatile("idivl %2" : "+a"(quotient), "+d"(rest) : "r"(zero));
        return quotient;
    }
    case 'u': __asm__ volatile("ud2"); return 2;
    case 'b': __asm__ volatile("int3"); return 2;
    case 'h': __asm__ volatile("hlt"); return 2;
    case 'o': __asm__ volatile("outb %%al, $0x80" ::"a"(0)); return 2;
    case 'a': abort();
    case 's': return recurse(0);
    case 'p': {
        char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        page[4096] = 1;
        mprotect(page + 4096, 4096, PROT_READ);
        page[0] = page[4096];
        page[4096] = 2;
        return 2;
    }
    case 'm': {
        char *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        page[0] = page[4096] = 1;
        munmap(page + 4096, 4096);
        return page[4096];
    }
    case 'f': {
        char *volatile heap = malloc(10);
        free(heap);
        free(heap);
        return 2;
    }
    // General-protection faults of instructions that an emulator may not know.
    case 'A': __asm__ volatile("addps (%0), %%xmm0" ::"r"(data + 1) : "xmm0"); return 2;
    case 'S': __asm__ volatile("movaps %%xmm0, (%0)" ::"r"(data + 8) : "memory"); return 2;
    case 'P': __asm__ volatile("popcnt (%0), %%eax" ::"r"(NOWHERE) : "rax"); return 2;
    case 'D': __asm__ volatile("fldl (%0)" ::"r"(NOWHERE)); return 2;
    case 'V':
        // A CPU without AVX has another instruction to die by.
        if (__builtin_cpu_supports("avx")) __asm__ volatile("vmovups (%0), %%ymm0" ::"r"(NOWHERE));
        return *(volatile int *)NOWHERE;
    case 'e': return 42;
    case 'l': for (;;) __asm__ volatile("");
    default: puts("nothing"); return 0;
    }
}
