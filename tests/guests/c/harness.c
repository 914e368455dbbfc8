/* A library's harness: main would go on for long after parse has returned. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char input[4096];

__attribute__((noinline)) int parse(void) {
    ssize_t length = read(0, input, sizeof input);
    if (length > 0 && input[0] == '!')
        abort();
    return length > 0 && input[0] == '{';
}

int main(void) {
    int valid = parse();
    puts("back in main");
    for (int i = 0; i < 100; i++)
        sleep(1);
    return 7 + valid;
}
