# The leak probe in real mode (see probes.S): its one item is that it enters protected mode, with
# other descriptor tables, flat segments and other registers. At 0x7c00.
        .code16
        .globl  _start
_start: lgdt    gdtr
        mov     $0x1002, %ebx
        mov     $0x1003, %edx
        mov     $0x1004, %esi
        mov     $0x1005, %ebp
        mov     $input, %edi
        mov     $16, %ecx
        stc
        out     %al, $0xd0              # the snapshot
        call    save
        testb   $1, input+1
        jz      1f
        call    change
1:      testb   $2, input+1
        jz      done
        mov     $out, %edi
        mov     $64, %ecx
        out     %al, $0xd3
done:   mov     $0, %al
        out     %al, $0xd1
        hlt

save:   mov     %ebx, out
        mov     %edx, out+4
        mov     %esi, out+8
        mov     %ebp, out+12
        mov     %esp, out+16
        pushfl
        popl    out+20
        mov     %cr0, %eax
        mov     %eax, out+24
        mov     %cr3, %eax
        mov     %eax, out+28
        mov     %ds, out+32
        mov     %es, out+34
        mov     %fs, out+36
        mov     %gs, out+38
        sgdtl   out+40
        sidtl   out+48
        ret

change: lgdt    other_gdtr
        lidt    other_idtr
        mov     %cr0, %eax
        or      $0x3, %al               # PE, MP
        mov     %eax, %cr0
        mov     $16, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %fs
        mov     %ax, %gs
        mov     $0x555000, %eax
        mov     %eax, %cr3
        mov     %eax, %ebx
        mov     %eax, %edx
        mov     %eax, %esi
        mov     %eax, %ebp
        testb   $2, input+1
        jnz     save
        std
        out     %al, $0xd1
        hlt

gdtr:   .word   0x17
        .long   0x1230
other_gdtr:
        .word   0x17
        .long   gdt
other_idtr:
        .word   0x7ff
        .long   0x4560
        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff
        .quad   0x00cf93000000ffff
input:  .fill   16
out:    .fill   64
