// Stores 16 bytes at once to the page where the engine's system-call gate stores, if the input
// says so: an access that exits in two parts.
#include <emmintrin.h>
#include <unistd.h>

int main(void) {
  char byte = 0;
  if (read(0, &byte, 1) == 1 && byte == 'x')
    _mm_storeu_si128((__m128i *)0x7f0010000010, _mm_set1_epi8(1));
  return 0;
}
