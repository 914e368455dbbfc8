/* json.c's parser, which also writes a byte to each of N pages: `pages N`. */
#define main json_main
#include "json.c"
#undef main

enum { PAGE = 4096, PAGES_MAX = 256 };

static volatile unsigned char pages[PAGES_MAX][PAGE] __attribute__((aligned(PAGE)));

static void write_to(int count) {
    for (int page = 0; page < count; page++)
        pages[page][0]++;
}

int main(int argc, char **argv) {
    int count = argc > 1 ? atoi(argv[1]) : 0;
    if (count < 0 || count > PAGES_MAX)
        return 2;
    /* So that all of these are there before the input is read, which is where the snapshot is: a
     * page that is not costs an exit in every run. */
    write_to(count);
    *(volatile unsigned char *)input = 0;
    size_t length = fill(input, sizeof input);
    write_to(count);
    return parse(input, length, 0);
}
