// Breaks, by its input's first byte, a rule that no signal tells of: exit statuses, words in its
// output, output without end, memory without end.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

__attribute__((noinline)) static void one_place(void) {
    exit(3);
}

__attribute__((noinline)) static void another_place(void) {
    exit(3);
    __asm__ volatile("");
}

__attribute__((noinline)) static void complain(int fd, const char *what) {
    write(fd, what, strlen(what));
    __asm__ volatile("");
}

__attribute__((noinline)) static void print_for_ever(int fd) {
    char line[4096];
    memset(line, '.', sizeof line);
    for (;;) write(fd, line, sizeof line);
}

__attribute__((noinline)) static void touch(size_t mib) {
    volatile char *memory = malloc(mib << 20);
    for (size_t at = 0; at < mib << 20; at += 4096) memory[at] = 1;
}

int main(void) {
    char data[16] = {0};
    if (read(0, data, sizeof data) < 1) return 1;
    switch (data[0]) {
    case 'x': one_place(); break;
    case 'y': another_place(); break;
    case 'z': return 4;
    case 'e': complain(2, "warning: bad magic 0x7f\n"); break;
    case 'E': complain(1, "bad ma"); complain(2, "gic"); complain(1, "gic 12\x1b[2J\n"); break;
    case 'n': complain(2, "bad sector\n"); break;
    case 'o': print_for_ever(1); break;
    case 'O': print_for_ever(2); break;
    case 'm': touch(48); break;
    default: puts("fine");
    }
    return 0;
}
