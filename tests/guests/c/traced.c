/* Makes one call of each kind that a trace shows in a way of its own; leaves nothing behind. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static void handler(int signal) {}

int main(void) {
    char buffer[64];
    struct stat facts;
    open("/nonexistent", O_RDONLY | O_CLOEXEC);
    access("/nonexistent", F_OK);
    close(99);
    mkdir("/tmp/dejavm-traced", 0755);
    int fd = open("/tmp/dejavm-traced/file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    write(fd, "line one\nline \"two\"\n\001\0022 and a longer one here", 44);
    struct iovec parts[2] = { { "abc", 3 }, { "\xff\xfe", 2 } };
    writev(fd, parts, 2);
    lseek(fd, 2, SEEK_SET);
    pread(fd, buffer, 50, 4);
    fstat(fd, &facts);
    ftruncate(fd, 10);
    fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_GETFD);
    dup2(fd, 9);
    void *pages = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages, 4096, PROT_NONE);
    madvise(pages, 8192, MADV_DONTNEED);
    munmap(pages, 8192);
    mmap(0, 4096, PROT_READ, MAP_PRIVATE, 77, 0);
    unlink("/tmp/dejavm-traced/file");
    rmdir("/tmp/dejavm-traced");
    umask(022);
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };
    sigaddset(&action.sa_mask, SIGINT);
    sigaction(SIGUSR1, &action, 0);
    signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, 0);
    struct rlimit limit = { 0, 0 };
    setrlimit(RLIMIT_CORE, &limit);
    getrlimit(RLIMIT_CORE, &limit);
    struct timespec pause = { 0, 1000 };
    nanosleep(&pause, 0);
    int ends[2];
    pipe(ends);
    write(ends[1], "x", 1);
    struct pollfd polled = { ends[0], POLLIN };
    poll(&polled, 1, 1000);
    read(ends[0], buffer, 10);
    chdir("/tmp");
    getcwd(buffer, sizeof buffer);
    *(volatile char *)0 = 0;
}
