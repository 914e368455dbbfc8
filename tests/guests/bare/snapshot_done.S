# The two OUTs follow each other: the snapshot's RIP is the second one's own address.
        .globl _start
_start: mov     $0x9000, %edi
        mov     $16, %ecx
        xor     %ebx, %ebx
        jmp     1f
        .balign 16
1:      out     %al, $0xd0
        out     %al, $0xd1
        hlt
