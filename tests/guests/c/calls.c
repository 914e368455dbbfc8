// Makes the system calls that its input lists, and says with its exit status what they gave: a hash
// of all results and of the memory that they may have written. Input: records of eight 64-bit
// numbers, the call's and its six arguments'; bit 0 of the last says by which instruction, and the
// rest which flags are set when it is made (TF, DF, NT, AC, ID). Arguments
// that are addresses are the caller's to know: `arena` is mapped at a fixed place, with nothing
// before and behind it, a page that is only readable and one never touched at its end.
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 8 };
#define ARENA ((unsigned char *)0x200000000)

struct record {
    uint64_t nr, args[6], how;
};

static uint64_t input[512], hash = 0xcbf29ce484222325;

static void add(uint64_t value) { hash = (hash ^ value) * 0x100000001b3; }

// Two instructions, because one that few bytes follow cannot be replaced by a jump.
#define CALL(behind)                                                                             \
    __asm__ volatile("pushf; or %1, (%%rsp); popf\n"                                             \
                     "syscall\n" behind "\n"                                                     \
                     "pushf; andl $~0x244500, (%%rsp); popf"                                     \
                     : "+a"(out)                                                                 \
                     : "b"(r->how & 0x244500), "D"(r->args[0]), "S"(r->args[1]),                 \
                       "d"(r->args[2]), "r"(r10), "r"(r8), "r"(r9)                               \
                     : "rcx", "r11", "memory", "cc")

static long call(const struct record *r) {
    register uint64_t r10 __asm__("r10") = r->args[3], r8 __asm__("r8") = r->args[4],
                      r9 __asm__("r9") = r->args[5];
    long out = r->nr;
    if (r->how & 1)
        CALL("cmp $-4095, %%rax\nlea 0(%%rax), %%rax");
    else
        CALL("jmp 1f\n1:");
    return out;
}

int main(void) {
    mmap(ARENA, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (int i = 0; i < (PAGES - 1) * PAGE; i++)
        ARENA[i] = i % 251;
    // Names for calls that take some.
    strcpy((char *)ARENA, "/work/file");
    strcpy((char *)ARENA + 64, "");
    mprotect(ARENA + (PAGES - 2) * PAGE, PAGE, PROT_READ);
    long length = read(0, input, sizeof input);
    for (long i = 0; i < length / (long)sizeof(struct record); i++)
        add(call((struct record *)input + i));
    // What the calls left, as far as it can still be read.
    for (int page = 0; page < PAGES; page++) {
        if (access((char *)ARENA + page * PAGE, F_OK) < 0 && errno == EFAULT) continue;
        for (int i = 0; i < PAGE; i += 8) add(*(uint64_t *)(ARENA + page * PAGE + i));
    }
    syscall(SYS_exit_group, hash >> 32 & 0xff);
}
