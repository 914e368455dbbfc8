// Signals as a program meets them: handlers, masks, stacks, siginfo, ucontext, waiting. Prints what
// it finds and nothing that depends on where things are, so that a guest and a native run agree.
// The first argument says which part runs.
#define _GNU_SOURCE
#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile sig_atomic_t count;
static char *page;
static stack_t other;

static int on_other(void *at) {
    return (char *)at >= (char *)other.ss_sp && (char *)at < (char *)other.ss_sp + other.ss_size;
}

static void install(int signal, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigemptyset(&action.sa_mask);
    if (sigaction(signal, &action, NULL)) perror("sigaction");
}

static void tell(int signal, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    greg_t *regs = uc->uc_mcontext.gregs;
    int here;
    int fault = signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL
                || signal == SIGTRAP;
    printf("signal %d code %d errno %d", signal, info->si_code, info->si_errno);
    if (info->si_code == SI_USER || info->si_code == SI_TKILL || info->si_code == SI_QUEUE)
        printf(" mine %d %d", info->si_pid == getpid(), info->si_uid == getuid());
    if (info->si_code == SI_QUEUE) printf(" value %d", info->si_value.sival_int);
    if (fault && info->si_code > 0 && info->si_code != SI_KERNEL)
        printf(" at page+%ld or rip %d",
               signal == SIGSEGV || signal == SIGBUS ? (long)((char *)info->si_addr - page) : 0L,
               (greg_t)info->si_addr == regs[REG_RIP]);
    if (fault) printf(" trap %lld error %lld", regs[REG_TRAPNO], regs[REG_ERR]);
    printf(" flags %lx cs %llx stack %d link %p\n", uc->uc_flags, regs[REG_CSGSFS] & 0xffff,
           on_other(&here), (void *)uc->uc_link);
    count++;
}

static void tell_and_jump(int signal, siginfo_t *info, void *context) {
    tell(signal, info, context);
    siglongjmp(back, 1);
}

static void tell_and_skip(int signal, siginfo_t *info, void *context) {
    tell(signal, info, context);
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void tell_and_mend(int signal, siginfo_t *info, void *context) {
    tell(signal, info, context);
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

// Touched, so that it is present and a write to it is refused for its permissions.
static char *readable_page(void) {
    volatile char *new = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)*new;
    return (char *)new;
}

// A call's result and, if it failed, why.
static void result(const char *name, long value) {
    int error = errno;
    printf("%s %ld %s\n", name, value, value == -1 ? strerror(error) : "");
}

static void faults(void) {
    install(SIGSEGV, tell_and_jump, 0);
    install(SIGBUS, tell_and_jump, 0);
    install(SIGFPE, tell_and_jump, 0);
    install(SIGILL, tell_and_skip, 0);
    install(SIGTRAP, tell, 0);
    if (!sigsetjmp(back, 1)) *(volatile char *)(page + 5) = 1;
    munmap(page, 4096);
    if (!sigsetjmp(back, 1)) printf("%d\n", *(volatile char *)(page + 7));
    if (!sigsetjmp(back, 1)) ((void (*)(void))(page + 9))();
    // Not canonical: #GP, of which the kernel tells no address.
    if (!sigsetjmp(back, 1)) *(volatile char *)0x8000000000000000 = 1;
    volatile int zero = 0;
    if (!sigsetjmp(back, 1)) printf("%d\n", 77 / zero);
    __asm__ volatile("ud2");
    __asm__ volatile("int3");
    if (!sigsetjmp(back, 1)) {
        feenableexcept(FE_DIVBYZERO);
        volatile double nothing = 0;
        printf("%f\n", 1 / nothing);
    }
    fedisableexcept(FE_ALL_EXCEPT);
    __asm__ volatile("pushf; orq $0x100, (%%rsp); popf; nop; nop; pushf; andq $~0x100, (%%rsp); popf"
                     ::: "memory", "cc");
    page = readable_page();
    install(SIGSEGV, tell_and_mend, 0);
    page[3] = 'm';
    printf("mended %c\n", page[3]);
}

static void stacks(void) {
    other.ss_size = 64 << 10;
    other.ss_sp = malloc(other.ss_size);
    stack_t old;
    printf("%d\n", sigaltstack(&other, &old));
    printf("old %d %zu\n", old.ss_flags, old.ss_size);
    install(SIGUSR1, tell, SA_ONSTACK);
    raise(SIGUSR1);
    install(SIGUSR1, tell, 0);
    raise(SIGUSR1);
    sigaltstack(NULL, &old);
    printf("now %d %d %zu\n", old.ss_flags, old.ss_sp == other.ss_sp, old.ss_size);
    stack_t small = {.ss_sp = other.ss_sp, .ss_size = 100};
    result("small", sigaltstack(&small, NULL));
    stack_t odd = {.ss_sp = other.ss_sp, .ss_size = 1 << 16, .ss_flags = 77};
    result("odd", sigaltstack(&odd, NULL));
}

static int deep(int n) {
    volatile char large[4096];
    large[0] = n;
    return n == 0 ? 0 : deep(n + 1) + large[0];
}

static void overflow(void) {
    other.ss_size = 64 << 10;
    other.ss_sp = malloc(other.ss_size);
    sigaltstack(&other, NULL);
    page = NULL;
    struct sigaction action = {.sa_handler = NULL};
    install(SIGSEGV, tell_and_jump, SA_ONSTACK);
    count = 0;
    // si_addr is on the stack; do not print it.
    if (!sigsetjmp(back, 1)) {
        freopen("/dev/null", "w", stderr);
        close(1);
        deep(1);
    }
    dup2(2, 1);
    (void)action;
    _exit(count == 1 ? 33 : 34);
}

static void note(int signal) {
    count++;
    printf("note %d\n", signal);
}

static void masks(void) {
    sigset_t set, old, pending;
    signal(SIGUSR1, note);
    signal(SIGUSR2, note);
    signal(SIGRTMIN, note);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, &old);
    raise(SIGUSR2);
    raise(SIGUSR1);
    raise(SIGUSR1);
    for (int i = 0; i < 3; i++) sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i});
    sigpending(&pending);
    printf("pending %d %d %d %d\n", sigismember(&pending, SIGUSR1), sigismember(&pending, SIGUSR2),
           sigismember(&pending, SIGRTMIN), sigismember(&pending, SIGALRM));
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("count %d\n", count);

    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR1);
    siginfo_t info;
    printf("wait %d", sigwaitinfo(&set, &info));
    printf(" code %d\n", info.si_code);
    struct timespec soon = {0, 1000000};
    result("timed", sigtimedwait(&set, &info, &soon));
    raise(SIGUSR2);
    sigset_t none;
    sigemptyset(&none);
    result("suspend", sigsuspend(&none));
    sigprocmask(SIG_SETMASK, NULL, &pending);
    printf("still blocked %d\n", sigismember(&pending, SIGUSR2));
    sigprocmask(SIG_SETMASK, &old, NULL);

    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    struct sigaction once = {.sa_handler = note, .sa_flags = SA_RESETHAND | SA_NODEFER};
    sigaction(SIGUSR1, &once, NULL);
    raise(SIGUSR1);
    struct sigaction now;
    sigaction(SIGUSR1, NULL, &now);
    printf("reset %d\n", now.sa_handler == SIG_DFL);
    result("kill", kill(getpid(), 0));
    result("kill", kill(getpid(), 99));
    install(SIGUSR1, tell, 0);
    kill(getpid(), SIGUSR1);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 42});
    raise(SIGCHLD);
    raise(SIGURG);
}

static volatile double kept_double;

static void spoil(int signal) {
    // Everything that a handler may use: x87, SSE, AVX.
    __asm__ volatile("fninit; fldpi; pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm7, %%xmm7;"
                     "pcmpeqd %%xmm15, %%xmm15; cld" ::: "xmm0", "xmm7", "xmm15");
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vinsertf128 $1, %%xmm0, %%ymm7, %%ymm7" ::: "xmm7");
    kept_double = 1.0 / 3;
    count += signal;
}

static void registers(void) {
    signal(SIGUSR1, spoil);
    uint64_t values[4] = {1, 2, 3, 4}, after[4];
    unsigned control = 0x1f80 | 0x6000, control_after;
    unsigned short x87 = 0x0f7f, x87_after;
    long pid = getpid(), sent;
    register long r8 __asm__("r8") = 0x8888, r9 __asm__("r9") = 0x9999, r10 __asm__("r10") = 0xaaaa;
    register long r12 __asm__("r12") = 0xcccc, r15 __asm__("r15") = 0xffff;
    __asm__ volatile("ldmxcsr %[control]; fldcw %[x87]; movdqu (%[values]), %%xmm7;"
                     "std; mov %[nr], %%eax; syscall; cld;"
                     "movdqu %%xmm7, (%[after]); stmxcsr %[control_after]; fnstcw %[x87_after]"
                     : "=&a"(sent), [control_after] "=m"(control_after), [x87_after] "=m"(x87_after),
                       "+r"(r8), "+r"(r9), "+r"(r10), "+r"(r12), "+r"(r15)
                     : [control] "m"(control), [x87] "m"(x87), [values] "r"(values), [after] "r"(after),
                       [nr] "i"(SYS_kill), "D"(pid), "S"((long)SIGUSR1)
                     : "rcx", "r11", "memory", "xmm7");
    printf("sent %ld r %lx %lx %lx %lx %lx\n", sent, r8, r9, r10, r12, r15);
    printf("xmm %lu %lu mxcsr %x x87 %x count %d\n", after[0], after[1], control_after, x87_after, count);
    unsigned plain = 0x1f80;
    __asm__ volatile("ldmxcsr %0; fninit" ::"m"(plain));
}

static int written_to;

static void write_back(int signal) {
    note(signal);
    write(written_to, "y", 1);
}

static void timers(void) {
    signal(SIGALRM, note);
    alarm(2);
    result("pause", pause());
    struct itimerval every = {{0, 100000}, {0, 100000}}, left;
    setitimer(ITIMER_REAL, &every, NULL);
    struct timespec longer = {1, 0}, rest;
    result("nanosleep", nanosleep(&longer, &rest));
    printf("left %d\n", rest.tv_sec == 0 && rest.tv_nsec > 500000000);
    getitimer(ITIMER_REAL, &left);
    printf("interval %ld\n", (long)left.it_interval.tv_usec);
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    result("alarm", alarm(100));
    printf("alarm %d\n", alarm(0) > 95);
    // A pipe that nobody writes to: read is ended by the signal, and with SA_RESTART begins again.
    int ends[2];
    pipe(ends);
    struct sigaction plain = {.sa_handler = note};
    sigaction(SIGALRM, &plain, NULL);
    alarm(1);
    char byte;
    result("read", read(ends[0], &byte, 1));
    struct sigaction again = {.sa_handler = write_back, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &again, NULL);
    written_to = ends[1];
    alarm(1);
    result("read again", read(ends[0], &byte, 1));
    signal(SIGALRM, note);
    timer_t id;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1,
                             .sigev_value.sival_int = 7};
    signal(SIGRTMIN + 1, note);
    result("create", timer_create(CLOCK_MONOTONIC, &event, &id));
    struct itimerspec at = {{0, 0}, {0, 5000000}};
    timer_settime(id, 0, &at, NULL);
    pause();
    result("delete", timer_delete(id));
    printf("count %d\n", count);
}

static void broken_pipe(void) {
    int ends[2];
    pipe(ends);
    close(ends[0]);
    signal(SIGPIPE, note);
    result("write", write(ends[1], "x", 1));
    signal(SIGPIPE, SIG_DFL);
    fflush(stdout);
    write(ends[1], "x", 1);
}

// All of a siginfo, but for where things are and who the process is.
static void tell_all(int signal, siginfo_t *info, void *context) {
    // AC is as it was.
    __asm__ volatile("pushf; andq $~0x40000, (%%rsp); popf" ::: "memory", "cc");
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint64_t words[16], mine = (uint32_t)getpid() | (uint64_t)getuid() << 32;
    memcpy(words, info, sizeof words);
    printf("signal %d: %lx %lx", signal, words[0], words[1]);
    for (int i = 2; i < 16; i++) {
        if (words[i] == mine) printf(" mine");
        else if (words[i] == (uint64_t)regs[REG_RIP]) printf(" rip");
        else if (words[i] - (uint64_t)page < 4096) printf(" page+%lx", words[i] - (uint64_t)page);
        else printf(" %lx", words[i]);
    }
    printf("\n");
    if (info->si_code > 0 && signal != SIGALRM && signal != SIGTRAP) siglongjmp(back, 1);
}

static void infos(void) {
    const int signals[] = {SIGSEGV, SIGBUS,  SIGFPE,  SIGILL,       SIGTRAP,
                                  SIGPIPE, SIGALRM, SIGUSR1, SIGRTMIN + 1, 0};
    for (const int *signal = signals; *signal; signal++) install(*signal, tell_all, 0);
    int ends[2];
    pipe(ends);
    close(ends[0]);
    write(ends[1], "x", 1);
    kill(getpid(), SIGUSR1);
    raise(SIGUSR1);
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_ptr = (void *)0x123456789a});
    // More than a kernel keeps, and an error number.
    uint64_t words[16] = {77, 0, 3, 4, 5, 6};
    int codes[] = {-60, -6, -7, -1, -2, -5, 0, 1};
    for (int i = 0; i < 8; i++) {
        ((int *)words)[1] = 1000 + i;
        ((int *)words)[2] = codes[i];
        if (!sigsetjmp(back, 1)) result("queue", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, words));
    }
    // Where the code has a known layout, what is behind it is not looked at.
    words[15] = 9;
    ((int *)words)[2] = -1;
    result("queue", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, words));
    struct itimerval soon = {{0, 0}, {0, 1000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    pause();
    timer_t id;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1,
                             .sigev_value.sival_ptr = (void *)0x123456789a};
    timer_create(CLOCK_MONOTONIC, &event, &id);
    timer_settime(id, 0, &(struct itimerspec){{0, 0}, {0, 1000000}}, NULL);
    pause();
    if (!sigsetjmp(back, 1)) page[5] = 1;
    if (!sigsetjmp(back, 1)) *(volatile char *)0x8000000000000000 = 1;
    if (!sigsetjmp(back, 1)) *(volatile char *)0x10 = 1;
    if (!sigsetjmp(back, 1)) __asm__ volatile("ud2");
    if (!sigsetjmp(back, 1)) {
        __asm__ volatile("pushf; orq $0x40000, (%%rsp); popf; mov 1(%%rsp), %%eax"
                         ::: "eax", "memory", "cc");
    }
    if (!sigsetjmp(back, 1)) {
        unsigned short unmasked = 0x37f & ~4;
        __asm__ volatile("fldcw %0; fld1; fldz; fdivrp; fwait" ::"m"(unmasked));
    }
    __asm__ volatile("fninit");
    if (!sigsetjmp(back, 1)) {
        feenableexcept(FE_DIVBYZERO);
        volatile double nothing = 0;
        printf("%f\n", 1 / nothing);
    }
    fedisableexcept(FE_ALL_EXCEPT);
    __asm__ volatile("int3");
}

static void nested(int signal) {
    printf("nested %d in\n", signal);
    if (signal == SIGUSR1) raise(SIGUSR2);
    printf("nested %d out\n", signal);
}

static void die(const char *how) {
    fflush(stdout);
    if (!strcmp(how, "abort")) {
        signal(SIGABRT, note);
        abort();
    }
    if (!strcmp(how, "blocked")) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, NULL);
        signal(SIGSEGV, note);
        *(volatile int *)8 = 1;
    }
    if (!strcmp(how, "ignored")) {
        signal(SIGSEGV, SIG_IGN);
        *(volatile int *)8 = 1;
    }
    if (!strcmp(how, "nostack")) {
        signal(SIGUSR1, note);
        __asm__ volatile("mov $16, %%rsp; syscall" ::"a"(SYS_kill), "D"((long)getpid()), "S"(10L));
    }
    if (!strcmp(how, "again")) {
        // The handler gives up: back to the default, and the fault comes again.
        signal(SIGSEGV, SIG_DFL);
        *(volatile int *)8 = 1;
    }
    if (!strcmp(how, "frame")) {
        // There is no frame at the stack pointer.
        __asm__ volatile("xor %%esp, %%esp; syscall" ::"a"(SYS_rt_sigreturn));
    }
    if (!strcmp(how, "term")) kill(getpid(), SIGTERM);
}

int main(int argc, char **argv) {
    char input[16] = {0};
    read(0, input, sizeof input - 1);
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    page = readable_page();
    const char *what = argc > 1 ? argv[1] : input;
    if (!strcmp(what, "faults")) faults();
    else if (!strcmp(what, "stacks")) stacks();
    else if (!strcmp(what, "overflow")) overflow();
    else if (!strcmp(what, "masks")) masks();
    else if (!strcmp(what, "registers")) registers();
    else if (!strcmp(what, "timers")) timers();
    else if (!strcmp(what, "pipe")) broken_pipe();
    else if (!strcmp(what, "infos")) infos();
    else if (!strcmp(what, "nested")) {
        signal(SIGUSR1, nested);
        signal(SIGUSR2, nested);
        raise(SIGUSR1);
    } else die(what);
    return 7;
}
