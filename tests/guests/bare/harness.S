# A 64-bit guest by the port ABI (docs/guests-bare.md): it names its input buffer, and does what
# the input's first byte asks for. Every run leaves something behind that a rewind must undo.
        .globl _start
        .set    SNAPSHOT, 0xd0
        .set    DONE, 0xd1
        .set    CRASH, 0xd2
        .set    PRINT, 0xd3

_start: lea     hello(%rip), %rdi
        mov     $hello_end - hello, %ecx
        out     %al, $PRINT
        lea     input(%rip), %rdi
        mov     $256, %ecx
        out     %al, $SNAPSHOT
        # RAX is now the input's length.
        test    %rax, %rax
        jz      finish
        incq    runs(%rip)
        movzbl  input(%rip), %ebx
        cmp     $'d', %bl
        je      finish
        cmp     $'c', %bl
        je      crash
        cmp     $'h', %bl
        je      halt
        cmp     $'l', %bl
        je      loop
        cmp     $'p', %bl
        je      print
        cmp     $'P', %bl
        je      print_wide
        cmp     $'t', %bl
        je      triple
        cmp     $'j', %bl
        je      noise
        cmp     $'T', %bl
        je      tables
        cmp     $'r', %bl
        je      remap
        cmp     $'s', %bl
        je      state
        cmp     $'m', %bl
        je      mmio
        cmp     $'3', %bl
        je      int3
        cmp     $'x', %bl
        je      sse
        cmp     $'v', %bl
        je      vmcall
        cmp     $'o', %bl
        je      ports
        cmp     $'R', %bl
        je      real
        mov     $99, %al
        out     %al, $DONE

# The status is the number of runs that memory has seen, then the input's second byte.
finish: mov     runs(%rip), %al
        out     %al, $DONE
        hlt

crash:  mov     input+1(%rip), %al
        out     %al, $CRASH
        hlt

halt:   cli
        hlt
loop:   jmp     loop

# Prints for ever through COM1.
print:  mov     $0x3f8, %dx
        mov     $'x', %al
1:      out     %al, %dx
        jmp     1b

# Asks for 2^64 - 1 bytes of print, again and again.
print_wide:
        mov     $-1, %rcx
        xor     %edi, %edi
        out     %al, $PRINT
        jmp     print_wide

# No IDT: the first exception is the last.
triple: lidt    empty(%rip)
        movabs  %rax, 0x7f0000000000
        hlt

# Executes the rest of the input.
noise:  lea     input+1(%rip), %rax
        jmp     *%rax

# Overwrites its own page tables, all 24 KiB of them.
tables: mov     %cr3, %rdi
        mov     $0x6000 / 8, %ecx
        mov     $-1, %rax
        rep     stosq
        mov     %cr3, %rax
        mov     %rax, %cr3
        jmp     finish

# Virtual 512 MiB leads to page `low` in the snapshot's tables; reads it, leads the address to
# another 2 MiB page, and reads again. The status says what the two reads saw.
remap:  movb    $'A', 0x200000
        movb    $'B', 0x400000
        mov     %cr3, %rdi
        lea     0x2000 + 256 * 8(%rdi), %rdi
        mov     0x20000000, %cl
        movq    $0x4000e3, (%rdi)
        invlpg  0x20000000
        mov     0x20000000, %dl
        # First read: zero, because 512 MiB is no RAM (0xff) or not yet led elsewhere.
        mov     $0, %al
        cmp     $0xff, %cl
        jne     1f
        inc     %al
1:      cmp     $'B', %dl
        jne     2f
        add     $2, %al
2:      out     %al, $DONE

# Changes what it can of the CPU's state.
state:  mov     $0x12345678, %rax
        mov     %rax, %dr0
        mov     %rax, %cr2
        mov     %rax, %r15
        mov     $0xc0000102, %ecx
        xor     %edx, %edx
        wrmsr
        mov     $0xc0000082, %ecx
        wrmsr
        mov     $0x2ff, %ecx
        mov     $6, %eax
        wrmsr
        mov     %cr4, %rax
        or      $4, %rax
        mov     %rax, %cr4
        lgdt    empty(%rip)
        lidt    empty(%rip)
        fninit
        fxsave  area(%rip)
        notq    area+160(%rip)
        fxrstor area(%rip)
        mov     $0x3ff, %dx
        mov     $0x55, %al
        out     %al, %dx
        std
        jmp     finish

# A store that crosses a page where no RAM is exits once for each page.
mmio:   mov     $0xe0000ffc, %edi
        mov     %rax, (%rdi)
        mov     (%rdi), %rax
        inc     %rax
        jnz     crash
        jmp     finish

int3:   int3
        jmp     finish
sse:    popcnt  %rax, %rax
        pxor    %xmm2, %xmm2
        jmp     finish
vmcall: vmcall
        jmp     finish

# Every port and size with nothing behind it, and wide accesses to the console.
ports:  mov     $0x1000, %dx
1:      in      %dx, %eax
        out     %eax, %dx
        in      %dx, %al
        out     %al, %dx
        add     $0x111, %dx
        jnc     1b
        mov     $0x3f8, %dx
        mov     $0x58585858, %eax
        out     %eax, %dx
        in      %dx, %eax
        lea     hello(%rip), %rsi
        mov     $5, %ecx
        rep     outsb
        lea     scratch(%rip), %rdi
        mov     $0x3fd, %dx
        mov     $40, %ecx
        rep     insb
        jmp     finish

# Leaves long mode for good and triple-faults there.
real:   mov     %cr0, %rax
        btr     $31, %rax
        mov     %rax, %cr0
        ud2

        .balign 16
empty:  .word   0
        .quad   0
hello:  .ascii  "ready\n"
hello_end:
        .balign 8
runs:   .quad   0
input:  .fill   256
scratch:
        .fill   64
        .balign 16
area:   .fill   512
