// Prints where everything is: code, data, heap, stack, mappings of all kinds, and what
// /proc/self/maps says.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char here, text[1 << 14];
    if (read(0, &here, 1) < 0) return 1;
    printf("main %p\ndata %p\nheap %p\nstack %p\nargv %p\n", main, &stdout, malloc(10), &here, argv);
    printf("break %p\n", sbrk(0));
    printf("small %p\n", mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    printf("huge %p\n", mmap(0, 1L << 44, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    printf("low %p\n", mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
    printf("large %p\n", malloc(1 << 20));
    int fd = open("/proc/self/maps", O_RDONLY);
    long got = read(fd, text, sizeof text);
    fwrite(text, 1, got < 0 ? 0 : got, stdout);
    return 0;
}
