# The lecture's guest in real mode: 16-bit code, RAM at 0x100000 seen through segment 0xffff.
        .code16
        .globl _start
_start: mov     $message - _start + 0x0f10, %si
        mov     $0x3f8, %dx
next:   lodsb
        test    %al, %al
        jz      end
        out     %al, %dx
        jmp     next
end:    cli
        hlt
        jmp     end
message:
        .asciz  "hello from real mode\n"
