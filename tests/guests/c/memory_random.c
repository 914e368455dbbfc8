// Some hundred random memory calls in a window of addresses, each followed by a look at what every
// page of it allows and holds. The input is the seed. Prints nothing that depends on where the
// rest of the address space is, so that a kernel and its imitation must print the same. The status
// tells as much in six bits.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 48, STEPS = 120, FILE_PAGES = 6, FILE_BYTES = 5 * PAGE, STILL_BYTES = FILE_BYTES + 1234 };
#define WINDOW ((char *)0x100000000000)
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static uint64_t state;
static unsigned pick(unsigned below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33) % below;
}

// Which pages came from the same call and have had the same done to them: those are one mapping
// for every kernel.
static uint64_t origin[PAGES + 1];
static uint64_t calls;
static int opaque[PAGES];  // Contents that a kernel may choose (MADV_FREE).
static void changed(unsigned first, unsigned pages, int fresh) {
    calls++;
    for (unsigned i = first; i < first + pages && i < PAGES; i++) {
        origin[i] = fresh ? calls << 8 : (origin[i] ? origin[i] * 31 + calls : 0);
        if (fresh) opaque[i] = 0;
    }
}
static int one(unsigned first, unsigned pages) {
    for (unsigned i = first; i < first + pages; i++)
        if (!origin[i] || origin[i] != origin[first]) return 0;
    return 1;
}

static int pipes[2], own, read_only, still, all_bytes;

// What each page allows ('.', 'r' or 'w') and holds, found out by system calls: none of them can
// fault. They take many pages at once and stop at the first that they cannot use.
static char seen[PAGES + 1];
static uint64_t sums[PAGES];
static int look(void) {
    static unsigned char bytes[12 * PAGE];
    unsigned readable[PAGES], count = 0;
    for (unsigned i = 0; i < PAGES;) {
        unsigned left = PAGES - i < 12 ? PAGES - i : 12;
        long done = write(pipes[1], WINDOW + i * PAGE, left * PAGE);
        if (done < 0 && errno != EFAULT) return 0;
        if (done > 0 && (done % PAGE || read(pipes[0], bytes, done) != done)) return 0;
        for (long k = 0; k < done / PAGE; k++, i++) {
            readable[count++] = i;
            sums[i] = 0;
            for (int j = 0; j < PAGE; j++) sums[i] = sums[i] * 131 + bytes[k * PAGE + j];
            seen[i] = bytes[k * PAGE];
        }
        if (done < (long)left * PAGE) sums[i] = 0, seen[i++] = '.';
    }
    // The first byte of each is written back, from a file of all bytes.
    for (unsigned i = 0; i < count; i++) {
        long done = pread(all_bytes, WINDOW + readable[i] * PAGE, 1, (unsigned char)seen[readable[i]]);
        seen[readable[i]] = done == 1 ? 'w' : 'r';
    }
    return 1;
}

static uint64_t file_sum(int fd) {
    static unsigned char bytes[FILE_PAGES * PAGE];
    long got = pread(fd, bytes, sizeof bytes, 0);
    uint64_t sum = got;
    for (long i = 0; i < got; i++) sum = sum * 131 + bytes[i];
    return sum;
}

int main(void) {
    char text[32] = {0};
    if (read(0, text, sizeof text - 1) <= 0) return 1;
    for (char *c = text; *c; c++) state = state * 1000003 + (unsigned char)*c;
    if (pipe(pipes)) return 2;
    own = open("/tmp/dejavm-random", O_RDWR | O_CREAT | O_TRUNC, 0600);
    read_only = open("/tmp/dejavm-random", O_RDONLY);
    unlink("/tmp/dejavm-random");
    still = open("/tmp/dejavm-random", O_RDWR | O_CREAT | O_TRUNC, 0600);
    unlink("/tmp/dejavm-random");
    all_bytes = open("/tmp/dejavm-random", O_RDWR | O_CREAT | O_TRUNC, 0600);
    unlink("/tmp/dejavm-random");
    for (int i = 0; i < 256; i++)
        if (pwrite(all_bytes, &(char){i}, 1, i) != 1) return 3;
    static char fill[STILL_BYTES];
    for (int i = 0; i < STILL_BYTES; i++) fill[i] = i * 7 + i / PAGE;
    if (own < 0 || read_only < 0 || write(own, fill, FILE_BYTES) != FILE_BYTES) return 3;
    if (write(still, fill, STILL_BYTES) != STILL_BYTES) return 3;

    uint64_t digest = 0;
    for (int step = 0; step < STEPS; step++) {
        unsigned first = pick(PAGES), pages = 1 + pick(12);
        if (first + pages > PAGES) pages = PAGES - first;
        char *at = WINDOW + first * PAGE;
        size_t len = pages * PAGE - (pick(4) ? 0 : pick(PAGE - 1));
        // Never only PROT_EXEC: with protection keys that is a kind of its own.
        static const int prots[] = {3, 3, 3, 1, 1, 0, 7, 5, 2};
        int prot = prots[pick(9)];
        long result = 0, detail = prot;
        const char *name = "?";
        errno = 0;
        switch (pick(22)) {
        case 0: case 1: case 2: case 3: {
            name = "mmap";
            int kind = pick(6), flags = MAP_FIXED, fd = -1;
            long offset = 0;
            if (kind < 3) flags |= MAP_PRIVATE | MAP_ANONYMOUS;
            else if (kind == 3) flags |= MAP_SHARED | MAP_ANONYMOUS;
            else {
                flags |= kind == 4 ? MAP_PRIVATE : MAP_SHARED;
                // Whether a private mapping shows later writes to its file nobody says.
                fd = kind == 4 ? still : pick(3) ? own : read_only;
                offset = pick(FILE_PAGES + 1) * PAGE;
            }
            if (!pick(8)) flags |= MAP_NORESERVE;
            if (!pick(8)) flags |= MAP_POPULATE;
            if (!pick(10)) flags |= MAP_LOCKED;
            if (!pick(5)) flags = (flags & ~MAP_FIXED) | MAP_FIXED_NOREPLACE;
            if (!pick(30)) offset++;
            detail = flags << 4 | prot;
            void *got = mmap(at, len, prot, flags, fd, offset);
            result = got == MAP_FAILED ? -1 : (char *)got - WINDOW;
            if (result >= 0) changed(first, pages, 1);
            break;
        }
        case 4:
            name = "munmap";
            result = munmap(at, len);
            for (unsigned i = first; i < first + pages; i++) origin[i] = 0;
            break;
        case 5: case 6: case 7: case 8:
            name = "mprotect";
            result = mprotect(at, len, prot | (pick(20) ? 0 : PROT_GROWSDOWN));
            changed(first, pages, 0);
            break;
        case 9: case 10: case 11: {
            static const int advice[] = {MADV_DONTNEED, MADV_DONTNEED, MADV_DONTNEED, MADV_FREE,
                                         MADV_REMOVE, 22, 23, MADV_WILLNEED, MADV_WIPEONFORK,
                                         MADV_KEEPONFORK, MADV_DONTFORK, MADV_DOFORK, 20, 24, 99};
            int which = advice[pick(15)];
            name = "madvise";
            detail = which;
            result = madvise(at, len, which);
            // Of others' pages it changes nothing, and says so at the first.
            if (which == MADV_FREE && !(result < 0 && errno == EINVAL && one(first, pages)))
                for (unsigned i = first; i < first + pages; i++) opaque[i] = 1;
            // It splits mappings, or not, as the kernel's version likes.
            changed(first, pages, 0);
            break;
        }
        case 12: case 13: case 14: {
            name = "mremap";
            unsigned to = pick(PAGES), more = 1 + pick(10);
            if (to + more > PAGES) more = PAGES - to;
            if (!one(first, pages)) continue;
            int flags = pick(5) ? MREMAP_MAYMOVE | MREMAP_FIXED : 0;
            if (flags && !pick(4)) {
                flags |= MREMAP_DONTUNMAP;
                if (to + pages > PAGES) continue;
                more = pages;
            }
            void *got = mremap(at, pages * PAGE, more * PAGE, flags, WINDOW + to * PAGE);
            result = got == MAP_FAILED ? -errno : (char *)got - WINDOW;
            if (flags) {
                if (got == MAP_FAILED) {
                    for (unsigned i = to; i < to + more; i++) if (errno != EINVAL) origin[i] = 0;
                    // A shrinking one has cut the tail off already.
                    if (errno != EINVAL)
                        for (unsigned i = first + more; i < first + pages; i++) origin[i] = 0;
                    break;
                }
                int was[PAGES];
                memcpy(was, opaque, sizeof was);
                changed(first, pages, 0);
                if (!(flags & MREMAP_DONTUNMAP))
                    for (unsigned i = first; i < first + pages; i++) origin[i] = 0;
                changed(to, more, 1);
                for (unsigned i = 0; i < more && i < pages; i++) opaque[to + i] = was[first + i];
            } else if (got != MAP_FAILED) {
                if (more < pages)
                    for (unsigned i = first + more; i < first + pages; i++) origin[i] = 0;
                else
                    for (unsigned i = first + pages; i < first + more && i < PAGES; i++) {
                        origin[i] = origin[first];
                        opaque[i] = 0;
                    }
                if (first + more > PAGES) munmap(WINDOW + PAGES * PAGE, (first + more - PAGES) * PAGE);
            }
            break;
        }
        case 15:
            name = "mlock";
            result = pick(3) ? mlock(at, len) : mlock2(at, len, 1);
            changed(first, pages, 0);
            break;
        case 16:
            name = "munlock";
            result = munlock(at, len);
            changed(first, pages, 0);
            break;
        case 17: {
            static const int flags[] = {MS_SYNC, MS_ASYNC, MS_SYNC | MS_INVALIDATE, MS_SYNC | MS_ASYNC, 8};
            name = "msync";
            result = msync(at, len, flags[pick(5)]);
            break;
        }
        case 18: {
            unsigned char vector[PAGES];
            name = "mincore";
            result = mincore(at, len, vector);
            break;
        }
        case 19: {
            name = "pwrite";
            static char bytes[3 * PAGE];
            for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = step + i;
            result = pwrite(own, bytes, 1 + pick(sizeof bytes - 1), pick(FILE_BYTES - sizeof bytes));
            break;
        }
        default: {
            // Stores by a system call: read() into the page.
            name = "store";
            char bytes[8];
            memset(bytes, 1 + pick(255), sizeof bytes);
            if (write(pipes[1], bytes, 8) != 8) return 4;
            result = read(pipes[0], at + pick(8) * 504, 8);
            if (result != 8) {
                char rest[8];
                int kept = errno;
                read(pipes[0], rest, 8);
                errno = kept;
            }
            // And directly, where that is known to work.
            break;
        }
        }
        int error = errno;
        printf("%d %s %lx %u+%u %ld %d:", step, name, detail, first, pages, result, result == -1 ? error : 0);
        if (!look()) return 5;
        uint64_t all = 0;
        for (unsigned i = 0; i < PAGES; i++)
            all = all * 1000003 + (opaque[i] ? 0 : sums[i]) + seen[i];
        digest = digest * 31 + all;
        printf("%s %016lx %016lx\n", seen, all, file_sum(own));
    }
    return 64 + digest % 64;
}
