// Runs its input as code, in a page that may be written, read and executed. The registers that
// system calls change lead there too, and not into this program's code: what a program reads of
// that differs where the engine has replaced an instruction.
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void) {
    unsigned char *page =
        mmap(0, 65536, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(page, 0xcc, 65536);
    long bytes = read(0, page, 4096);
    if (bytes <= 0) return 1;
    ((void (*)(void *, void *, void *, void *))page)(page, page, page, page);
    return 0;
}
