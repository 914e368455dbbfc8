// Loops without a system call, out of which only a signal or another thread leads.
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_int turn, beats;

static void *other(void *what) {
    for (int i = 0; i < 3; i++) {
        while (atomic_load(&turn) % 2 == 0) {
        }
        atomic_fetch_add(&turn, 1);
    }
    return what;
}

// Two threads hand a turn to and fro; what each has in its vector registers stays its own.
static int handing(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, other, NULL);
    double sum = 0.5;
    for (int i = 0; i < 3; i++) {
        int mine = atomic_load(&turn);
        atomic_fetch_add(&turn, 1);
        while (atomic_load(&turn) == mine + 1) sum *= 1.0;
    }
    pthread_join(thread, NULL);
    printf("handed %d %g\n", atomic_load(&turn), sum);
    return 0;
}

static void *late(void *what) {
    struct timespec moment = {0, 3000000};
    nanosleep(&moment, NULL);
    atomic_store(&turn, 7);
    return what;
}

// One thread sleeps while the other spins.
static int sleeper(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, late, NULL);
    while (atomic_load(&turn) != 7) {
    }
    pthread_join(thread, NULL);
    puts("woken");
    return 0;
}

static void *asking(void *what) {
    struct timespec now;
    while (atomic_load(&turn) != 7) clock_gettime(CLOCK_MONOTONIC, &now);
    return what;
}

// One thread asks for the time, by a system call, until the other has got on.
static int asker(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, asking, NULL);
    for (int i = 0; i < 3; i++) usleep(1000);
    atomic_store(&turn, 7);
    pthread_join(thread, NULL);
    puts("answered");
    return 0;
}

static void beat(int signal) { atomic_fetch_add(&beats, 1); }

// A timer's signals come in a loop.
static int timer(int times) {
    struct sigaction action = {.sa_handler = beat};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval every = {{0, 2000}, {0, 2000}};
    setitimer(ITIMER_REAL, &every, NULL);
    while (atomic_load(&beats) < times) {
    }
    puts("beaten");
    return 0;
}

// By default an alarm is the end.
static int fatal(void) {
    struct itimerval once = {{0, 0}, {0, 5000}};
    setitimer(ITIMER_VIRTUAL, &once, NULL);
    for (;;) {
    }
}

static int never(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, other, NULL);
    for (;;) {
    }
}

int main(int count, char **words) {
    char what[16] = {0};
    if (count > 1) strncpy(what, words[1], 15);
    else fread(what, 1, 15, stdin);
    if (!strcmp(what, "handing")) return handing();
    if (!strcmp(what, "sleeper")) return sleeper();
    if (!strcmp(what, "asker")) return asker();
    if (!strcmp(what, "timer")) return timer(5);
    if (!strcmp(what, "fatal")) return fatal();
    if (!strcmp(what, "never")) return never();
    puts("nothing");
    return 0;
}
