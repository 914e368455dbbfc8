/* What the calls on files give, one line for each: the same natively, on a tmpfs, and in a guest.
   Runs in an empty folder that it may write to, and leaves it empty. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

/* A call and its result, or why it failed. */
#define SHOW(call) (errno = 0, show(#call, (long)(call)))

static long show(const char *call, long result) {
    printf("%s = %ld%s%s\n", call, result, result < 0 ? " " : "", result < 0 ? strerrorname_np(errno) : "");
    return result;
}

static void text(int fd) {
    char bytes[100] = { 0 };
    long length = pread(fd, bytes, sizeof bytes - 1, 0);
    printf("  [%ld]", length);
    for (long i = 0; i < length; i++) printf(bytes[i] < ' ' ? "\\%d" : "%c", bytes[i]);
    printf("\n");
}

static void facts(const char *path) {
    struct stat s;
    if (lstat(path, &s)) { printf("  %s: %s\n", path, strerrorname_np(errno)); return; }
    printf("  %s: %o links %ld size %ld\n", path, s.st_mode, S_ISDIR(s.st_mode) ? 0L : (long)s.st_nlink,
           S_ISDIR(s.st_mode) ? 0L : (long)s.st_size);
}

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static void list(const char *path) {
    struct dirent **names;
    int count = scandir(path, &names, 0, by_name);
    printf("  %s:", path);
    for (int i = 0; i < count; i++) printf(" %s(%d)", names[i]->d_name, names[i]->d_type);
    printf("\n");
}

static void opening(void) {
    SHOW(close(open("a", O_RDONLY)));
    SHOW(open("a", O_RDWR | O_CREAT | O_DIRECTORY, 0644));
    int fd = SHOW(open("a", O_RDWR | O_CREAT | O_EXCL, 0640));
    SHOW(open("a", O_RDWR | O_CREAT | O_EXCL, 0640));
    SHOW(open("a", O_RDONLY | O_DIRECTORY));
    SHOW(open("a/", O_RDONLY));
    SHOW(open("a/b", O_RDONLY));
    SHOW(open("", O_RDONLY));
    SHOW(open("none/b", O_WRONLY | O_CREAT, 0644));
    SHOW(open("new/", O_WRONLY | O_CREAT, 0644));
    SHOW(open(".", O_WRONLY));
    SHOW(open(".", O_RDWR | O_CREAT, 0600));
    SHOW(symlink("a", "link"));
    SHOW(symlink("loop", "loop"));
    SHOW(symlink("nowhere", "broken"));
    SHOW(open("link", O_RDONLY | O_NOFOLLOW));
    SHOW(open("loop", O_RDONLY));
    SHOW(open("broken", O_RDONLY));
    SHOW(open("broken", O_WRONLY | O_CREAT | O_EXCL, 0600));
    SHOW(close(open("broken", O_WRONLY | O_CREAT, 0600)));
    facts("nowhere");
    int path = SHOW(open("link", O_PATH | O_NOFOLLOW));
    char bytes[10];
    SHOW(read(path, bytes, 10));
    SHOW(readlinkat(path, "", bytes, 10));
    SHOW(fcntl(path, F_GETFL) & O_PATH ? 1 : 0);
    SHOW(fchmod(path, 0600));
    SHOW(close(path));
    SHOW(write(fd, "hello", 5));
    SHOW(close(open("a", O_WRONLY | O_TRUNC)));
    facts("a");
    SHOW(chmod("a", 0400));
    SHOW(open("a", O_WRONLY));
    SHOW(access("a", W_OK));
    SHOW(access("a", R_OK));
    SHOW(access("a", 9));
    SHOW(write(fd, "again", 5));
    SHOW(close(fd));
    SHOW(unlink("nowhere"));
    SHOW(unlink("broken"));
    SHOW(unlink("loop"));
}

static void temporary(void) {
    SHOW(open(".", O_TMPFILE | O_RDONLY, 0600));
    SHOW(open("a", O_TMPFILE | O_RDWR, 0600));
    int fd = SHOW(open(".", O_TMPFILE | O_RDWR, 0600));
    SHOW(write(fd, "unnamed", 7));
    char name[64];
    sprintf(name, "/proc/self/fd/%d", fd);
    SHOW(linkat(AT_FDCWD, name, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    facts("named");
    SHOW(close(fd));
    SHOW(unlink("named"));
}

static void reading(void) {
    int fd = open("data", O_RDWR | O_CREAT | O_TRUNC, 0600);
    char one[4], two[8];
    struct iovec parts[2] = { { one, 4 }, { two, 8 } };
    SHOW(write(fd, "0123456789", 10));
    SHOW(lseek(fd, -3, SEEK_END));
    SHOW(read(fd, two, 8));
    SHOW(read(fd, two, 8));
    SHOW(lseek(fd, -11, SEEK_END));
    SHOW(lseek(fd, 5, 99));
    SHOW(lseek(fd, 5, SEEK_DATA));
    SHOW(lseek(fd, 5, SEEK_HOLE));
    SHOW(lseek(fd, 10, SEEK_DATA));
    SHOW(lseek(fd, 1000, SEEK_SET));
    SHOW(read(fd, two, 8));
    SHOW(preadv(fd, parts, 2, 2));
    SHOW(preadv2(fd, parts, 2, -1, 0));
    SHOW(preadv2(fd, parts, 2, 0, 0x1000));
    SHOW(readv(fd, parts, -1));
    SHOW(pread(fd, two, 8, -1));
    SHOW(pwrite(fd, "X", 1, 12));
    text(fd);
    SHOW(ftruncate(fd, 4));
    SHOW(ftruncate(fd, -1));
    text(fd);
    SHOW(fallocate(fd, 0, 2, 6));
    SHOW(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 100));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1, 2));
    SHOW(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 1, 2));
    SHOW(fallocate(fd, FALLOC_FL_ZERO_RANGE, 1, 2));
    SHOW(fallocate(fd, 0, 0, 0));
    text(fd);
    int append = SHOW(open("data", O_WRONLY | O_APPEND));
    SHOW(pwrite(append, "end", 3, 0));
    SHOW(ftruncate(append, 12));
    SHOW(read(append, two, 8));
    text(fd);
    int copy = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0600);
    off_t from = 1, to = 3;
    SHOW(copy_file_range(fd, &from, copy, &to, 5, 0));
    SHOW(from * 100 + to);
    text(copy);
    SHOW(copy_file_range(fd, 0, append, 0, 5, 0));
    SHOW(copy_file_range(fd, 0, copy, 0, 5, 1));
    from = 0, to = 2;
    SHOW(copy_file_range(fd, &from, fd, &to, 5, 0));
    SHOW(lseek(fd, 0, SEEK_SET));
    SHOW(syscall(SYS_sendfile, copy, fd, 0, 6));
    text(copy);
    int folder = open(".", O_RDONLY);
    SHOW(read(folder, two, 8));
    SHOW(write(folder, two, 8));
    SHOW(ftruncate(folder, 0));
    close(folder);
    close(fd);
    close(copy);
    close(append);
    SHOW(unlink("data"));
    SHOW(unlink("copy"));
}

static void naming(void) {
    SHOW(mkdir("d", 0755));
    SHOW(mkdir("d", 0755));
    SHOW(mkdir("d/e/", 0700));
    SHOW(mkdir(".", 0700));
    SHOW(rmdir("d"));
    SHOW(rmdir("d/."));
    SHOW(rmdir("a"));
    SHOW(unlink("d"));
    SHOW(link("a", "d/hard"));
    SHOW(link("d", "hard"));
    SHOW(link("none", "hard"));
    facts("a");
    SHOW(rename("d/hard", "a"));
    SHOW(rename("d/hard", "d/moved"));
    SHOW(rename("d", "d/e/f"));
    SHOW(rename("a", "d"));
    SHOW(rename("d/e", "a"));
    SHOW(renameat2(AT_FDCWD, "a", AT_FDCWD, "d/moved", RENAME_NOREPLACE));
    SHOW(rename("d/moved", "d/e/last"));
    SHOW(unlinkat(AT_FDCWD, "d/e", AT_REMOVEDIR));
    list(".");
    list("d");
    list("d/e");
    char path[200];
    SHOW(readlink("link", path, 200));
    SHOW(readlink("a", path, 200));
    SHOW(readlink("link", path, 0));
    SHOW(faccessat(AT_FDCWD, "link", F_OK, AT_SYMLINK_NOFOLLOW));
    int folder = SHOW(open("d", O_RDONLY | O_DIRECTORY));
    SHOW(openat(folder, "none", O_RDONLY));
    SHOW(close(openat(folder, "e/last", O_RDONLY)));
    SHOW(fstatat(folder, "", &(struct stat){ 0 }, 0));
    SHOW(fstatat(folder, "", &(struct stat){ 0 }, AT_EMPTY_PATH));
    SHOW(fchdir(folder));
    SHOW(unlink("e/last"));
    SHOW(rmdir("e"));
    SHOW(chdir(".."));
    SHOW(rmdir("d"));
    SHOW(close(folder));
    SHOW(chown("a", getuid(), -1));
    SHOW(chown("a", 0, 0));
    SHOW(getxattr("a", "nonsense.x", path, 9));
    SHOW(getxattr("none", "user.x", path, 9));
    SHOW(listxattr("a", path, 9));
    SHOW(unlink("link"));
    SHOW(unlink("a"));
}

static void descriptors(void) {
    int fd = open("/dev/null", O_RDONLY);
    SHOW(dup(99));
    int other = SHOW(dup(fd));
    SHOW(dup2(fd, fd));
    SHOW(dup3(fd, fd, 0));
    SHOW(dup3(fd, 20, O_CLOEXEC));
    SHOW(fcntl(20, F_GETFD));
    SHOW(fcntl(fd, F_DUPFD, 15));
    SHOW(fcntl(fd, F_DUPFD, 1 << 30));
    SHOW(fcntl(fd, 99));
    SHOW(fcntl(fd, F_SETFL, O_NONBLOCK));
    SHOW(fcntl(other, F_GETFL) & O_NONBLOCK ? 1 : 0);
    SHOW(syscall(SYS_close_range, 15, 30, 0));
    SHOW(close(20));
    SHOW(close(other));
    SHOW(close(fd));
    SHOW(isatty(0));
    SHOW(socket(99, SOCK_STREAM, 0));
    SHOW(listen(0, 1));
}

static void pipes(void) {
    int ends[2];
    char bytes[16];
    SHOW(pipe2(ends, O_NONBLOCK));
    SHOW(read(ends[0], bytes, 16));
    SHOW(write(ends[0], "x", 1));
    SHOW(write(ends[1], "abc", 3));
    struct pollfd polled = { ends[0], POLLIN };
    SHOW(poll(&polled, 1, 0) * 100 + polled.revents);
    SHOW(lseek(ends[0], 0, SEEK_SET));
    SHOW(pread(ends[0], bytes, 1, 0));
    SHOW(fcntl(ends[0], F_GETPIPE_SZ));
    SHOW(close(ends[1]));
    SHOW(read(ends[0], bytes, 16));
    SHOW(read(ends[0], bytes, 16));
    SHOW(poll(&polled, 1, 0) * 100 + polled.revents);
    SHOW(close(ends[0]));
}

static void objects(void) {
    unsigned long value = 0;
    int event = SHOW(eventfd(2, EFD_NONBLOCK | EFD_SEMAPHORE));
    SHOW(read(event, &value, 4));
    SHOW(read(event, &value, 8) * 100 + value);
    value = 5;
    SHOW(write(event, &value, 8));
    value = ~0UL;
    SHOW(write(event, &value, 8));
    int set = SHOW(epoll_create1(EPOLL_CLOEXEC));
    SHOW(epoll_create1(1));
    struct epoll_event wanted = { EPOLLIN | EPOLLONESHOT, { .u64 = 42 } }, got = { 0 };
    SHOW(epoll_ctl(set, EPOLL_CTL_MOD, event, &wanted));
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, event, &wanted));
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, event, &wanted));
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, set, &wanted));
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, 99, &wanted));
    int file = open("file", O_RDWR | O_CREAT, 0600);
    SHOW(epoll_ctl(set, EPOLL_CTL_ADD, file, &wanted));
    SHOW(epoll_ctl(file, EPOLL_CTL_ADD, event, &wanted));
    struct pollfd polled = { set, POLLIN };
    SHOW(poll(&polled, 1, 0) * 100 + polled.revents);
    SHOW(epoll_wait(set, &got, 0, 0));
    SHOW(epoll_wait(set, &got, 1, 0) * 100 + got.events);
    SHOW(got.data.u64);
    SHOW(epoll_wait(set, &got, 1, 0));
    wanted.events = EPOLLIN | EPOLLOUT;
    SHOW(epoll_ctl(set, EPOLL_CTL_MOD, event, &wanted));
    SHOW(epoll_wait(set, &got, 1, 0) * 100 + got.events);
    SHOW(close(event));
    SHOW(epoll_wait(set, &got, 1, 0));
    SHOW(close(set));
    SHOW(close(file));
    SHOW(unlink("file"));
    int memory = SHOW(memfd_create("name", MFD_CLOEXEC));
    SHOW(memfd_create("name", 0x8000));
    SHOW(write(memory, "in memory", 9));
    SHOW(ftruncate(memory, 5));
    text(memory);
    char *mapped = mmap(0, 4096, PROT_READ, MAP_PRIVATE, memory, 0);
    printf("  %s\n", mapped);
    SHOW(close(memory));
}

static void devices(void) {
    char bytes[8] = { 1 };
    int fd = open("/dev/zero", O_RDWR);
    SHOW(read(fd, bytes, 8) * 10 + bytes[0]);
    SHOW(write(fd, bytes, 8));
    SHOW(lseek(fd, 5, SEEK_SET));
    close(fd);
    fd = open("/dev/full", O_RDWR);
    SHOW(write(fd, bytes, 8));
    close(fd);
    fd = open("/dev/null", O_RDWR);
    SHOW(read(fd, bytes, 8));
    SHOW(ftruncate(fd, 0));
    close(fd);
    facts("/dev/null");
    facts("/dev/urandom");
    fd = open("/proc/self/comm", O_RDONLY);
    text(fd);
    close(fd);
    SHOW(close(open("/proc/self/fd", O_RDONLY | O_DIRECTORY)));
    SHOW(close(open("/proc/self/fd/..", O_RDONLY | O_DIRECTORY)));
    char path[64];
    SHOW(readlink("/proc/self/fd/99", path, 64));
    SHOW(open("/proc/self/none", O_RDONLY));
    SHOW(access("/proc/self/status", R_OK));
    SHOW(access("/proc/meminfo", W_OK));
}

int main(void) {
    umask(022);
    opening();
    temporary();
    reading();
    naming();
    descriptors();
    pipes();
    objects();
    devices();
}
