// Signals that are taken in every way there is. The first argument says which signal, the second
// what becomes of it: "end", "handle", "ignore", or "lost": there is a handler, but no stack for it.
// getpid and getuid come first, so that a trace tells who sends.
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void leave(int signal, siginfo_t *info, void *context) {
    _exit(7);
}

static void go_on(int signal, siginfo_t *info, void *context) {
}

static void install(int signal, void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(signal, &action, NULL);
}

static void queue(int signal, int error, int code, const unsigned long *fields) {
    unsigned long words[16] = {0};
    int *halves = (int *)words;
    halves[1] = error;
    halves[2] = code;
    memcpy(words + 2, fields, 32);
    syscall(SYS_rt_sigqueueinfo, getpid(), signal, words);
}

// Every code with every kind of signal.
static void queue_all(void) {
    static const int signals[] = {SIGILL, SIGFPE,  SIGSEGV, SIGBUS,  SIGTRAP, SIGCHLD, SIGIO,
                                  SIGSYS, SIGPIPE, SIGALRM, SIGTERM, 34,      64,      SIGSTKFLT};
    static const int codes[] = {-60, -61, 0x7f, 0x80, 0x81, 1000, -1000, 0x7fffffff, 0x20002};
    static const unsigned long fields[][4] = {
        {0, 0, 0, 0},
        {0x1234567897, 0xdeadbeef00000005, 0x11, 0x22},
        {0xc000003e1234, 0xc000003e00000005, 0, 0x1234},
        {7, 11, 123, 456},
        {7, 77, 0x123456789, 0},
        {0xffffffffffffffff, 0xffffffff, 0, 0},
        {0, 3ul << 32, 0, 0},
        {5ul << 32, 0, 0, 0},
        {9, 0xc000003e000fffff, 0, 0},
    };
    static const int errors[] = {0, 5, -5, 5000};
    for (int i = 0; i < 14; i++) {
        install(signals[i], go_on);
        for (int j = 0; j < 9; j++) {
            for (int code = -9; code <= 17; code++) queue(signals[i], 0, code, fields[j]);
            for (int k = 0; k < 9; k++) queue(signals[i], 0, codes[k], fields[j]);
        }
        for (int k = 0; k < 4; k++) queue(signals[i], errors[k], 1, fields[3]);
        for (int k = 0; k < 4; k++) queue(signals[i], errors[k], -1, fields[3]);
    }
}

static void timer(void) {
    install(SIGRTMIN + 1, go_on);
    timer_t id;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1,
                             .sigev_value.sival_int = 77};
    timer_create(CLOCK_MONOTONIC, &event, &id);
    struct itimerspec soon = {{0, 0}, {0, 1000000}};
    timer_settime(id, 0, &soon, NULL);
    pause();
}

static void ignored(void) {
    kill(getpid(), SIGWINCH);
    raise(SIGURG);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    kill(getpid(), SIGCHLD);
    signal(SIGUSR1, SIG_IGN);
    kill(getpid(), SIGUSR1);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void fault(const char *what) {
    if (!strcmp(what, "maperr")) __asm__ volatile("movb $1, 0x1234");
    if (!strcmp(what, "accerr")) {
        char *page = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        __asm__ volatile("movb $1, (%0)" ::"r"(page));
    }
    if (!strcmp(what, "exec")) {
        void *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ((void (*)(void))page)();
    }
    if (!strcmp(what, "gp")) *(volatile char *)0x8000000000001234 = 1;
    if (!strcmp(what, "bus")) {
        int file = memfd_create("x", 0);
        ftruncate(file, 100);
        char *pages = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        pages[5000] = 1;
    }
    if (!strcmp(what, "div")) __asm__ volatile("xor %%ecx, %%ecx; mov $1, %%eax; cltd; idiv %%ecx"
                                               ::: "eax", "ecx", "edx");
    if (!strcmp(what, "sse")) {
        unsigned unmasked = 0x1f80 & ~(1u << 9);
        volatile double one = 1, zero = 0;
        __asm__ volatile("ldmxcsr %0" ::"m"(unmasked));
        one = one / zero;
    }
    if (!strcmp(what, "x87")) {
        unsigned short unmasked = 0x37f & ~4;
        __asm__ volatile("fldcw %0; fld1; fldz; fdivrp; fwait" ::"m"(unmasked));
    }
    if (!strcmp(what, "ill")) __asm__ volatile("ud2");
    if (!strcmp(what, "int3")) __asm__ volatile("int3");
    if (!strcmp(what, "step")) __asm__ volatile("pushf; orq $0x100, (%rsp); popf; nop; nop");
    if (!strcmp(what, "ac")) __asm__ volatile("pushf; orq $0x40000, (%%rsp); popf; mov 1(%%rsp), %%eax"
                                              ::: "eax", "memory");
    if (!strcmp(what, "frame")) __asm__ volatile("mov $0x1000, %rsp; mov $15, %eax; syscall");
    if (!strcmp(what, "blocked")) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, 0);
        *(volatile int *)8 = 1;
    }
}

int main(int argc, char **argv) {
    static const int all[] = {SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,  SIGTRAP, SIGALRM,
                              SIGTERM, SIGABRT, SIGPIPE, SIGUSR1, 0};
    const char *what = argv[1], *how = argv[2];
    syscall(SYS_getpid);
    syscall(SYS_getuid);
    for (const int *signo = all; *signo; signo++) {
        if (!strcmp(how, "handle") || !strcmp(how, "lost")) install(*signo, leave);
        if (!strcmp(how, "ignore")) signal(*signo, SIG_IGN);
    }
    if (!strcmp(what, "pipe")) {
        int ends[2];
        pipe(ends);
        close(ends[0]);
        write(ends[1], "x", 1);
    }
    if (!strcmp(what, "kill")) kill(getpid(), SIGTERM);
    if (!strcmp(what, "killed")) kill(getpid(), SIGKILL);
    if (!strcmp(what, "virtual")) kill(getpid(), SIGVTALRM);
    if (!strcmp(what, "realtime")) kill(getpid(), 35);
    if (!strcmp(what, "abort")) abort();
    if (!strcmp(what, "alarm")) {
        struct itimerval soon = {{0, 0}, {0, 1000}};
        setitimer(ITIMER_REAL, &soon, 0);
        if (strcmp(how, "ignore")) pause();
    }
    if (!strcmp(what, "queue")) queue(SIGTERM, 0, -60, (unsigned long[4]){5});
    if (!strcmp(what, "queue-all")) queue_all();
    if (!strcmp(what, "timer")) timer();
    if (!strcmp(what, "ignored")) ignored();
    if (!strcmp(how, "lost")) {
        // Addressed without the stack from here on.
        if (!strcmp(what, "div")) __asm__ volatile("mov $16, %rsp; xor %ecx, %ecx; idiv %ecx");
        if (!strcmp(what, "ill")) __asm__ volatile("mov $16, %rsp; ud2");
        if (!strcmp(what, "maperr")) __asm__ volatile("mov $16, %rsp; movb $1, 0x1234");
    }
    // To where a system call goes in a guest, as if from an address that no program can have.
    if (!strcmp(what, "gate"))
        __asm__ volatile("jmp *%0" ::"r"(strtoul(how, NULL, 0)), "a"(SYS_getpid), "c"(1ul << 63));
    fault(what);
    return 3;
}
