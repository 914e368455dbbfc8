// Threads that work, wait for each other, and end: what a program with helper threads does. Prints
// nothing that depends on who runs first.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <poll.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER, emptied = PTHREAD_COND_INITIALIZER;
static int queue[4], length, taken[3];
static __thread int mine = 5;
static char input[64];

static void *consume(void *arg) {
    long sum = 0;
    mine += (long)arg;
    for (;;) {
        pthread_mutex_lock(&mutex);
        while (!length) pthread_cond_wait(&filled, &mutex);
        int value = queue[--length];
        pthread_cond_signal(&emptied);
        pthread_mutex_unlock(&mutex);
        if (value < 0) return (void *)(sum * 100 + mine);
        sum += value;
        // Floating point of its own, across switches.
        double own = value / 3.0;
        sched_yield();
        if (own != value / 3.0) abort();
    }
}

static void produce(void) {
    pthread_t threads[3];
    for (long i = 0; i < 3; i++) pthread_create(&threads[i], NULL, consume, (void *)i);
    for (int i = 0; i < 103; i++) {
        pthread_mutex_lock(&mutex);
        while (length == 4) pthread_cond_wait(&emptied, &mutex);
        queue[length++] = i < 100 ? i : -1;
        // Poison pills go to the bottom, so that work comes first.
        if (i >= 100) {
            memmove(queue + 1, queue, (length - 1) * sizeof *queue);
            queue[0] = -1;
        }
        pthread_cond_signal(&filled);
        pthread_mutex_unlock(&mutex);
    }
    long sum = 0, own = 0;
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        sum += (long)result / 100;
        own += (long)result % 100;
    }
    printf("sum %ld own %ld mine %d\n", sum, own, mine);
}

static int ends[2];

static void *write_later(void *arg) {
    struct timespec soon = {0, 2000000};
    nanosleep(&soon, NULL);
    write(ends[1], "through", 7);
    return NULL;
}

static void *fill(void *arg) {
    char block[1000] = {0};
    for (int i = 0; i < 200; i++)
        if (write(ends[1], block, sizeof block) != sizeof block) abort();
    close(ends[1]);
    return NULL;
}

static void pipes(void) {
    pthread_t thread;
    char bytes[16] = {0};
    pipe(ends);
    pthread_create(&thread, NULL, write_later, NULL);
    struct pollfd wait = {ends[0], POLLIN};
    int ready = poll(&wait, 1, 1000);
    printf("ready %d %d\n", ready, wait.revents);
    ssize_t got = read(ends[0], bytes, sizeof bytes);
    printf("got %zd %s\n", got, bytes);
    pthread_join(thread, NULL);
    ready = poll(&wait, 1, 5);
    printf("ready %d\n", ready);
    pthread_create(&thread, NULL, fill, NULL);
    long all = 0;
    char part[777];
    while ((got = read(ends[0], part, sizeof part)) > 0) all += got;
    printf("all %ld\n", all);
    pthread_join(thread, NULL);
}

static sem_t semaphore;
static pthread_barrier_t barrier;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int times;

static void only_once(void) {
    times++;
}

static void *meet(void *arg) {
    pthread_once(&once, only_once);
    int last = pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD;
    sem_post(&semaphore);
    return (void *)(long)last;
}

static void meetings(void) {
    pthread_t threads[8];
    sem_init(&semaphore, 0, 0);
    pthread_barrier_init(&barrier, NULL, 8);
    long last = 0;
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, meet, NULL);
    for (int i = 0; i < 8; i++) sem_wait(&semaphore);
    for (int i = 0; i < 8; i++) {
        void *result;
        pthread_join(threads[i], &result);
        last += (long)result;
    }
    printf("last %ld times %d\n", last, times);
    struct timespec soon;
    clock_gettime(CLOCK_REALTIME, &soon);
    soon.tv_nsec += 1000000;
    if (soon.tv_nsec >= 1000000000) soon.tv_sec++, soon.tv_nsec -= 1000000000;
    int result = sem_timedwait(&semaphore, &soon);
    printf("timed %d %s\n", result, strerror(errno));
}

static void on_signal(int signal) {
    taken[0] = syscall(SYS_gettid) != getpid();
}

static void *wait_for_signal(void *arg) {
    sem_post(&semaphore);
    pause();
    return (void *)(long)errno;
}

static void *wait_for_ever(void *arg) {
    for (;;) pause();
}

static void *cancelled(void *arg) {
    sem_post(&semaphore);
    for (;;) sleep(1);
}

static void signals(void) {
    pthread_t thread;
    void *result;
    signal(SIGUSR1, on_signal);
    sem_init(&semaphore, 0, 0);
    pthread_create(&thread, NULL, wait_for_signal, NULL);
    sem_wait(&semaphore);
    // The thread may be between its post and its pause natively: give it time.
    usleep(20000);
    pthread_kill(thread, SIGUSR1);
    pthread_join(thread, &result);
    printf("elsewhere %d %s\n", taken[0], strerror((long)result));
    pthread_create(&thread, NULL, cancelled, NULL);
    sem_wait(&semaphore);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    printf("cancelled %d\n", result == PTHREAD_CANCELED);
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&mutex, &attr);
}

static void *hold(void *arg) {
    pthread_mutex_lock(&mutex);
    return NULL;
}

static void robust(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, hold, NULL);
    pthread_join(thread, NULL);
    printf("robust %s\n", strerror(pthread_mutex_lock(&mutex)));
}

static void *crash(void *arg) {
    if (strstr(input, "crash")) *(volatile int *)16 = 1;
    if (strstr(input, "exit")) exit(9);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t early;
    if (argc > 1 && !strcmp(argv[1], "early")) {
        // A helper that lives on at the snapshot.
        pthread_create(&early, NULL, wait_for_ever, NULL);
        sched_yield();
    }
    if (read(0, input, sizeof input - 1) < 0) return 1;
    if (strstr(input, "produce")) produce();
    if (strstr(input, "pipes")) pipes();
    if (strstr(input, "meetings")) meetings();
    if (strstr(input, "signals")) signals(), robust();
    fflush(stdout);
    pthread_t thread;
    pthread_create(&thread, NULL, crash, NULL);
    pthread_join(thread, NULL);
    if (strstr(input, "first")) pthread_exit(NULL);
    return 3;
}
