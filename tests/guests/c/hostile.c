// Does its worst in the way that its input's first letter names, with the eight bytes after it as an
// argument. `good` is a run that ends with status 7 where nothing is left of the one before.
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ASM(text, ...) __asm__ volatile(text : : __VA_ARGS__ : "memory", "cc", "rax", "rcx", "rdx")
enum { PAGE = 4096 };
static unsigned char *code; // one page to write and execute, below 4 GiB
static unsigned char area[8192] __attribute__((aligned(64)));
static volatile uint64_t left = 0x1234;

static int run(const void *bytes, size_t length) {
    memcpy(code, bytes, length);
    return ((int (*)(void))code)();
}

// Instructions of the kernel, and others that no program gets anything from.
static const unsigned char privileged[][10] = {
    {3, 0x0f, 0x01, 0x10},       // lgdt [rax]
    {3, 0x0f, 0x01, 0x18},       // lidt [rax]
    {3, 0x0f, 0x00, 0xd0},       // lldt ax
    {3, 0x0f, 0x00, 0xd8},       // ltr ax
    {3, 0x0f, 0x01, 0xf0},       // lmsw ax
    {3, 0x0f, 0x20, 0xc0},       // mov rax, cr0
    {3, 0x0f, 0x22, 0xd8},       // mov cr3, rax
    {3, 0x0f, 0x22, 0xe0},       // mov cr4, rax
    {4, 0x44, 0x0f, 0x22, 0xc0}, // mov cr8, rax
    {3, 0x0f, 0x23, 0xf8},       // mov dr7, rax
    {3, 0x0f, 0x21, 0xf0},       // mov rax, dr6
    {2, 0x0f, 0x30},             // wrmsr
    {2, 0x0f, 0x32},             // rdmsr
    {2, 0x0f, 0x33},             // rdpmc
    {3, 0x0f, 0x01, 0x38},       // invlpg [rax]
    {2, 0x0f, 0x08},             // invd
    {2, 0x0f, 0x09},             // wbinvd
    {2, 0x0f, 0x06},             // clts
    {3, 0x0f, 0x01, 0xd1},       // xsetbv
    {3, 0x0f, 0x01, 0xf8},       // swapgs
    {3, 0x48, 0x0f, 0x07},       // sysretq
    {2, 0x0f, 0x35},             // sysexit
    {3, 0x0f, 0x01, 0xc8},       // monitor
    {3, 0x0f, 0x01, 0xc9},       // mwait
    {3, 0x0f, 0x01, 0xd8},       // vmrun
    {3, 0x0f, 0x01, 0xda},       // vmload
    {3, 0x0f, 0x01, 0xdc},       // stgi
    {2, 0x0f, 0xaa},             // rsm
    {2, 0x0f, 0x37},             // getsec
    {3, 0x0f, 0x01, 0xca},       // clac
    {3, 0x0f, 0xc7, 0x18},       // xrstors-like group 9
    {1, 0xfa},                   // cli
    {1, 0xfb},                   // sti
    {1, 0xf4},                   // hlt
    {2, 0xe4, 0x60},             // in al, 0x60
    {2, 0xe6, 0xe1},             // out 0xe1, al: what the engine's stubs do
    {1, 0x6c},                   // insb
    {1, 0x6e},                   // outsb
};

// LOCK where it must not be.
static const unsigned char locked[][8] = {
    {2, 0xf0, 0x90}, {4, 0xf0, 0x48, 0x89, 0xc0}, {4, 0xf0, 0x48, 0x8d, 0x00}, {3, 0xf0, 0x0f, 0xa2},
    {3, 0xf0, 0x0f, 0x05}, {2, 0xf0, 0xc3}, {3, 0xf0, 0x01, 0xc0}, {3, 0xf0, 0x39, 0x00},
};

static int deed(char how, uint64_t argument) {
    unsigned char bytes[32] = {0};
    switch (how) {
    case 'w': for (;;) syscall(SYS_write, argument, area, sizeof area);
    case 'l': for (;;) __asm__ volatile("");
    case 't': ASM("pushf; orl $0x100, (%%rsp); popf; nop", "r"(0)); return 1;
    case 'a': // AC, then a word that is not where words are
        ASM("pushf; orl $0x40000, (%%rsp); popf; mov 1(%0), %%rax; pushf; andl $~0x40000, (%%rsp); popf",
            "r"(area));
        return 0;
    case 'n': // NT, then what it is for
        ASM("pushf; orl $0x4000, (%%rsp); popf\n"
            "mov %%rsp, %%rax; mov %%ss, %%ecx; push %%rcx; push %%rax; pushf\n"
            "mov %%cs, %%ecx; push %%rcx; lea 1f(%%rip), %%rcx; push %%rcx; iretq\n1:", "r"(0));
        return 1;
    case 'o': { // IOPL
        uint64_t flags;
        __asm__ volatile("pushf; orl $0x3000, (%%rsp); popf; pushf; pop %0" : "=r"(flags) : : "memory", "cc");
        return flags >> 12 & 3;
    }
    case 'i': // int n
        bytes[0] = 0xcd, bytes[1] = argument, bytes[2] = 0xc3;
        return run(bytes, 3), 0;
    case 'f': { // far jump; where it may arrive there is UD2, in any mode
        struct { uint64_t to; uint16_t selector; } __attribute__((packed)) *far = (void *)area;
        memcpy(code, "\x0f\x0b", 2);
        far->to = (uint64_t)code, far->selector = argument;
        ASM("rex.W ljmp *(%0)", "r"(far));
        return 1;
    }
    case 'r': // iretq to a selector, likewise
        memcpy(code, "\x0f\x0b", 2);
        ASM("mov %%rsp, %%rax; mov %%ss, %%ecx; push %%rcx; push %%rax; pushf; push %0; push %1; iretq",
            "r"(argument & 0xffff), "r"((uint64_t)code));
        return 1;
    case 'R': // iretq to a stack segment
        memcpy(code, "\x0f\x0b", 2);
        ASM("mov %%rsp, %%rax; push %0; push %%rax; pushf; mov %%cs, %%ecx; push %%rcx; push %1; iretq",
            "r"(argument & 0xffff), "r"((uint64_t)code));
        return 1;
    case 'e': ASM("mov %0, %%es; mov %0, %%ds", "r"((uint32_t)argument)); return 0;
    case 'S': // a stack segment, and the shadow that its load leaves
        ASM("mov %%ss, %%eax; mov %%eax, %%ss; int3", "r"(0));
        return 1;
    case 's': ASM("sysenter", "r"(0)); return 1;
    case 'k': run(locked[argument] + 1, locked[argument][0]); return 1;
    case 'y': {
        const unsigned char *instruction = privileged[argument];
        memcpy(bytes, instruction + 1, instruction[0]);
        bytes[instruction[0]] = 0xc3;
        memcpy(code, bytes, sizeof bytes);
        ASM("xor %%ecx, %%ecx; mov %0, %%rax; mov $0x60, %%edx; call *%1", "r"(area), "r"(code));
        return 1;
    }
    case 'v': // a hypercall: 0 is VMCALL, 1 is VMMCALL
        ASM("mov $-1, %%rax", "r"(0));
        run(argument ? "\x0f\x01\xd9\xc3" : "\x0f\x01\xc1\xc3", 4);
        return 0;
    case 'm': { // code that changes itself, a hundred times
        int sum = 0;
        for (int i = 0; i < 100; i++) {
            bytes[0] = 0xb8, bytes[1] = i, bytes[5] = 0xc3;
            sum += run(bytes, 6);
        }
        return sum == 4950 ? 42 : 1;
    }
    case 'x': // XRSTOR of what its header must not say
        memset(area, 0, sizeof area);
        ((uint64_t *)area)[64 + argument] = -1;
        ASM("mov $-1, %%eax; mov $-1, %%edx; xrstor64 (%0)", "r"(area));
        return 1;
    case 'c': *(uint32_t *)area = argument; ASM("ldmxcsr (%0)", "r"(area)); return 1;
    case 'b': ASM("mov %0, %%rax; .byte 0xf3, 0x48, 0x0f, 0xae, 0xd0", "r"(argument)); return 1; // wrfsbase rax
    case 'j': ASM("mov $231, %%eax; mov $9, %%edi; lea 1f(%%rip), %%rcx; jmp *%0\n1:", "r"(argument)); return 1;
    case 'p': ASM("mov %0, %%rsp; ud2", "r"(argument)); return 1;
    case 'P': ASM("mov %0, %%rsp; push %%rax; ud2", "r"(argument)); return 1;
    case 'C': ASM("mov %0, %%rsp; mov $110, %%eax; syscall; ud2", "r"(argument)); return 1;
    case 'g': *(volatile unsigned char *)argument = 1; return 1;
    case 'G': return *(volatile unsigned char *)argument, 1;
    case 'V': // wide, crossing, repeated and locked accesses to the engine's page that is no memory
        switch (argument) {
        case 0: ASM("movups %%xmm0, (%0)", "r"(0x7f0010000000)); break;
        case 1: ASM("mov %%rax, (%0)", "r"(0x7f0010000ffc)); break;
        case 2: ASM("mov %%rax, (%0)", "r"(0x7f000ffffffc)); break;
        case 3: ASM("lock xadd %%rax, (%0)", "r"(0x7f0010000000)); break;
        case 4: ASM("mov $64, %%ecx; rep stosb", "D"(0x7f0010000000)); break;
        case 5: ASM("mov $64, %%ecx; rep movsb", "D"(area), "S"(0x7f0010000000)); break;
        case 6: ASM("fxsave (%0)", "r"(0x7f0010000000)); break;
        case 7: ASM("push (%0)", "r"(0x7f0010000000)); break;
        case 8: ASM("jmp *%0", "r"(0x7f0010000000)); break;
        case 9: ASM("lock cmpxchg16b (%0)", "r"(0x7f0010000000)); break;
        case 10: ASM("mov %0, %%rsp; call 1f\n1:", "r"(0x7f0010000800)); break;
        case 12: ASM("mov $-1, %%rcx; rep movsb", "D"(area), "S"(0x7f0010000000)); break;
        case 13: ASM("mov $0x7ff, %%ecx; rep lodsq", "S"(0x7f0010000001)); break;
        case 14: ASM("mov $0x7ff, %%ecx; repe cmpsq", "D"(0x7f0010000003), "S"(0x7f0010000001)); break;
        case 15: ASM("mov $0x7ff, %%ecx; rep movsq", "D"(0x7f0010000003), "S"(0x7f0010000001)); break;
        case 11: ASM("clflush (%0); prefetcht0 (%0)", "r"(0x7f0010000000)); return 0;
        }
        return 1;
    case 'd': { // writes to so many pages
        unsigned char *pages = mmap(0, argument * PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (uint64_t i = 0; i < argument; i++) pages[i * PAGE] = i;
        return 5;
    }
    default: // good
        if (left != 0x1234 || code[0] || area[0]) return 6;
        left = 0;
        memset(area, 1, sizeof area);
        return 7;
    }
}

int main(void) {
    unsigned char input[9] = {0};
    code = mmap((void *)0x10000000, PAGE, 7, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    code[1] = 1;
    if (read(0, input, sizeof input) < 1) return 8;
    uint64_t argument;
    memcpy(&argument, input + 1, 8);
    syscall(SYS_exit_group, deed(input[0], argument));
}
