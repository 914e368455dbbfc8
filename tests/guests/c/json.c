/* A JSON parser that three hosts can drive with the same code:
 *
 *   json < FILE            parses standard input, the way a microVM or fork + exec drives it
 *   FORKSERVER=1 json      serves inputs from standard input: a 32-bit length and the bytes; each
 *                          is parsed by a child of its own, whose wait status goes to standard
 *                          output as 32 bits
 *
 * Exit status 0 is valid JSON, 1 is not. `json -v` prints what it counted. It has no bug on purpose.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INPUT_MAX = 1 << 16, DEPTH_MAX = 64 };

struct parser {
    const unsigned char *at, *end;
    int depth;
    /* What was found. */
    unsigned objects, arrays, strings, numbers, words;
    double sum;
    uint32_t hash;
};

static int value(struct parser *p);

static void skip_space(struct parser *p) {
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r'))
        p->at++;
}

static int take(struct parser *p, char wanted) {
    skip_space(p);
    if (p->at >= p->end || *p->at != wanted)
        return 0;
    p->at++;
    return 1;
}

static int hex4(struct parser *p, uint32_t *out) {
    *out = 0;
    for (int digit = 0; digit < 4; digit++, p->at++) {
        if (p->at >= p->end)
            return 0;
        unsigned char c = *p->at;
        if (c >= '0' && c <= '9')
            *out = *out * 16 + (c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            *out = *out * 16 + ((c | 0x20) - 'a' + 10);
        else
            return 0;
    }
    return 1;
}

static void mix(struct parser *p, uint32_t unit) {
    p->hash = (p->hash ^ unit) * 16777619u;
}

static int escape(struct parser *p) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (p->at >= p->end)
        return 0;
    unsigned char c = *p->at++;
    if (c == 'u') {
        uint32_t high, low;
        if (!hex4(p, &high))
            return 0;
        if (high >= 0xd800 && high < 0xdc00) {
            if (p->end - p->at < 6 || p->at[0] != '\\' || p->at[1] != 'u')
                return 0;
            p->at += 2;
            if (!hex4(p, &low) || low < 0xdc00 || low > 0xdfff)
                return 0;
            high = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        }
        mix(p, high);
        return 1;
    }
    const char *found = memchr(from, c, sizeof from - 1);
    if (!found)
        return 0;
    mix(p, (unsigned char)to[found - from]);
    return 1;
}

static int string(struct parser *p) {
    if (!take(p, '"'))
        return 0;
    p->strings++;
    while (p->at < p->end && *p->at != '"') {
        unsigned char c = *p->at++;
        if (c < 0x20 || (c == '\\' && !escape(p)))
            return 0;
        if (c != '\\')
            mix(p, c);
    }
    return take(p, '"');
}

static int number(struct parser *p) {
    char text[64];
    size_t length = 0;
    while (p->at < p->end && length < sizeof text - 1 && *p->at && strchr("+-.eE0123456789", *p->at))
        text[length++] = (char)*p->at++;
    text[length] = 0;
    char *rest;
    double parsed = strtod(text, &rest);
    if (length == 0 || *rest || !isfinite(parsed))
        return 0;
    p->numbers++;
    p->sum += parsed;
    return 1;
}

static int word(struct parser *p, const char *wanted) {
    size_t length = strlen(wanted);
    if ((size_t)(p->end - p->at) < length || memcmp(p->at, wanted, length) != 0)
        return 0;
    p->at += length;
    p->words++;
    return 1;
}

static int object(struct parser *p) {
    p->objects++;
    if (take(p, '}'))
        return 1;
    do {
        if (!string(p) || !take(p, ':') || !value(p))
            return 0;
    } while (take(p, ','));
    return take(p, '}');
}

static int array(struct parser *p) {
    p->arrays++;
    if (take(p, ']'))
        return 1;
    do {
        if (!value(p))
            return 0;
    } while (take(p, ','));
    return take(p, ']');
}

static int value(struct parser *p) {
    skip_space(p);
    if (p->at >= p->end || ++p->depth > DEPTH_MAX)
        return 0;
    int ok;
    switch (*p->at) {
    case '{': p->at++; ok = object(p); break;
    case '[': p->at++; ok = array(p); break;
    case '"': ok = string(p); break;
    case 't': ok = word(p, "true"); break;
    case 'f': ok = word(p, "false"); break;
    case 'n': ok = word(p, "null"); break;
    default: ok = number(p);
    }
    p->depth--;
    return ok;
}

static int parse(const unsigned char *input, size_t length, int verbose) {
    struct parser p = {.at = input, .end = input + length, .hash = 2166136261u};
    int ok = value(&p);
    skip_space(&p);
    ok = ok && p.at == p.end;
    if (verbose)
        printf("%s: %u objects, %u arrays, %u strings (%08x), %u numbers (sum %g), %u words\n",
               ok ? "valid" : "invalid", p.objects, p.arrays, p.strings, p.hash, p.numbers, p.sum,
               p.words);
    return ok ? 0 : 1;
}

static unsigned char input[INPUT_MAX];

/* Reads until `wanted` bytes are there or the input ends; returns how many there are. */
static size_t fill(unsigned char *to, size_t wanted) {
    size_t have = 0;
    ssize_t got;
    while (have < wanted && (got = read(0, to + have, wanted - have)) > 0)
        have += (size_t)got;
    return have;
}

static int serve(void) {
    uint32_t length;
    while (fill((unsigned char *)&length, sizeof length) == sizeof length) {
        if (length > sizeof input || fill(input, length) != length)
            return 2;
        pid_t child = fork();
        if (child < 0)
            return 2;
        if (child == 0)
            _exit(parse(input, length, 0));
        int status;
        if (waitpid(child, &status, 0) != child || write(1, &status, sizeof status) != sizeof status)
            return 2;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (getenv("FORKSERVER"))
        return serve();
    return parse(input, fill(input, sizeof input), argc > 1 && strcmp(argv[1], "-v") == 0);
}
