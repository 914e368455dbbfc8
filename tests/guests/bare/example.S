# Reads a record: a length byte, then as many bytes of text. Status 0 is an empty record, 1 a
# record that ends early, 2 a good one. Trusts the length, and has 16 bytes of room.
        .globl  _start
_start: lea     hello(%rip), %rdi
        mov     $6, %ecx
        out     %al, $0xd3              # print 6 bytes at RDI

        lea     input(%rip), %rdi
        mov     $256, %ecx
        out     %al, $0xd0              # the snapshot is here; the input goes to RDI, up to RCX
        mov     %eax, %ebx              # its length

        call    parse
        out     %al, $0xd1              # done, with a status
        hlt

parse:  sub     $16, %rsp
        lea     input(%rip), %rsi
        xor     %eax, %eax
        test    %ebx, %ebx
        jz      1f
        movzbl  (%rsi), %ecx
        inc     %rsi
        mov     $1, %al
        cmp     %ebx, %ecx
        jae     1f
        mov     %rsp, %rdi
        rep     movsb                   # up to 255 bytes into 16
        mov     $2, %al
1:      add     $16, %rsp
        ret

hello:  .ascii  "ready\n"
input:  .fill   256
