// Counts the words of its standard input, sorted: stdio, malloc, qsort and floating point.
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(void) {
    char **words = NULL;
    size_t count = 0, room = 0;
    char word[64];
    while (scanf("%63s", word) == 1) {
        if (count == room) {
            room = room ? room * 2 : 1;
            words = realloc(words, room * sizeof *words);
        }
        words[count++] = strdup(word);
    }
    if (count == 0) {
        fprintf(stderr, "no words\n");
        return 3;
    }
    qsort(words, count, sizeof *words, by_text);
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += sqrt(strlen(words[i]));
        printf("%s\n", words[i]);
    }
    printf("%zu words, %.6f\n", count, sum);
    return 0;
}
