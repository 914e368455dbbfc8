// A parser with a planted bug: a record of a kind that no seed has writes through a pointer that
// was never set. Reads a file, as most parsers do.
#include <stdio.h>
#include <string.h>

struct record {
    char kind;
    unsigned char length;
    char *out;
};

static char text[256];

static int parse(const unsigned char *data, size_t bytes) {
    int records = 0;
    for (size_t at = 0; at + 2 <= bytes;) {
        struct record record = {(char)data[at], data[at + 1], 0};
        at += 2;
        if (record.length > bytes - at) return -1;
        switch (record.kind) {
        case 't': record.out = text; break;
        case 'n': record.out = text + 128; break;
        case 'c': // the planted bug: `out` stays unset
            if (record.length > 2) break;
            record.out = text;
            break;
        default: return -2;
        }
        if (record.length > 100) return -3;
        memcpy(record.out, data + at, record.length);
        at += record.length;
        records++;
    }
    return records;
}

int main(int argc, char **argv) {
    unsigned char data[1024];
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : stdin;
    if (!file) return 2;
    size_t bytes = fread(data, 1, sizeof data, file);
    int records = parse(data, bytes);
    printf("%d records\n", records);
    return records < 0;
}
