# The guest of the KVM lecture: 32-bit code at 0x00100f00 that prints through COM1 and halts.
        .code32
        .globl _start
_start: mov     $message, %esi
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
        .asciz  "hello from protected mode\n"
