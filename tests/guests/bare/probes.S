# A 64-bit guest by the port ABI (docs/guests-bare.md) that changes and tells one item of the
# CPU's, a device's or memory's state. Input: the item's number, what to do (bit 0: change it, bit
# 1: tell it, in this order), and for MSRs whether to flip bits (1) or to set all (0), a byte of
# nothing, the number (4 bytes) and the value (8 bytes). What an item tells goes to the console by PRINT. Before the snapshot most items are
# given values that are not those after reset. Vector 2 has a handler; every other vector ends the
# run as a crash.
        .globl  _start
        .set    SNAPSHOT, 0xd0
        .set    DONE, 0xd1
        .set    CRASH, 0xd2
        .set    PRINT, 0xd3
        .set    LAPIC, 0xfee00000
        .set    IOAPIC, 0xfec00000
        .set    CODE, 0x08
        .set    LDT, 0x18
        .set    TSS, 0x28
        .set    DATA, 0x10
        .set    OTHER_DATA, 0x38
        .set    OSXSAVE, 1 << 18
        .set    PKE, 1 << 22

# `words` words of `out` are told.
        .macro  TELL words
        mov     $\words * 8, %ecx
        jmp     tell
        .endm

_start: lea     gdt(%rip), %rax
        mov     %rax, gdtr+2(%rip)
        lgdt    gdtr(%rip)
        call    descriptors
        call    interrupts
        lidt    idtr(%rip)
        fxrstor clean(%rip)
        mov     $0x1111000, %rax
        mov     %rax, %dr0
        mov     %rax, %dr1
        mov     %rax, %cr2
        mov     $0xc0000082, %ecx
        mov     $0x1234, %eax
        xor     %edx, %edx
        wrmsr
        # Memory and registers as a run shall find them.
        movb    $0x5a, 0x300000
        mov     $0x1002, %rbx
        mov     $0x1003, %rdx
        mov     $0x1004, %rsi
        mov     $0x1005, %rbp
        mov     $0x1006, %r8
        mov     $0x1007, %r9
        mov     $0x1008, %r10
        mov     $0x1009, %r11
        mov     $0x100a, %r12
        mov     $0x100b, %r13
        mov     $0x100c, %r14
        mov     $0x100d, %r15
        lea     input(%rip), %rdi
        mov     $64, %ecx
        stc
        out     %al, $SNAPSHOT
        call    save
        cld
        movzbl  input(%rip), %ebx
        lea     items(%rip), %rax
        shl     $4, %rbx
        add     %rax, %rbx
        testb   $1, input+1(%rip)
        jz      1f
        call    *(%rbx)
1:      testb   $2, input+1(%rip)
        jz      done
        jmp     *8(%rbx)
done:   mov     $0, %al
        out     %al, $DONE
        hlt

tell:   lea     out(%rip), %rdi
        out     %al, $PRINT
        jmp     done

        .balign 8
items:  .quad   gprs_change, gprs_tell          # 0
        .quad   fx_change, fx_tell              # 1
        .quad   xsave_change, xsave_tell        # 2
        .quad   pkru_change, pkru_tell          # 3
        .quad   xcr0_change, xcr0_tell          # 4
        .quad   msr_change, msr_tell            # 5
        .quad   dr_change, dr_tell              # 6
        .quad   cr_change, cr_tell              # 7
        .quad   tables_change, tables_tell      # 8
        .quad   selectors_change, selectors_tell # 9
        .quad   shadow_change, shadow_tell      # 10
        .quad   lapic_change, lapic_tell        # 11
        .quad   ioapic_change, ioapic_tell      # 12
        .quad   pic_change, pic_tell            # 13
        .quad   pit_change, pit_tell            # 14
        .quad   serial_change, serial_tell      # 15
        .quad   pages_change, pages_tell        # 16
        .quad   paging_change, paging_tell      # 17
        .quad   nmi_change, nmi_tell            # 18
        .quad   pending_change, pending_tell    # 19
        .quad   clock_change, clock_tell        # 20
        .quad   cr8_change, cr8_tell            # 21
        .quad   timer_change, timer_tell        # 22
        .quad   sweep_change, sweep_tell        # 23

# All general registers and the flags, as the caller has them.
save:   mov     %rax, out(%rip)
        mov     %rbx, out+8(%rip)
        mov     %rcx, out+16(%rip)
        mov     %rdx, out+24(%rip)
        mov     %rsi, out+32(%rip)
        mov     %rdi, out+40(%rip)
        mov     %rbp, out+48(%rip)
        mov     %rsp, out+56(%rip)
        mov     %r8, out+64(%rip)
        mov     %r9, out+72(%rip)
        mov     %r10, out+80(%rip)
        mov     %r11, out+88(%rip)
        mov     %r12, out+96(%rip)
        mov     %r13, out+104(%rip)
        mov     %r14, out+112(%rip)
        mov     %r15, out+120(%rip)
        pushf
        pop     %rax
        mov     %rax, out+128(%rip)
        mov     out(%rip), %rax
        ret

# Ends the run with every register changed, or tells what it changed.
gprs_change:
        mov     $0x244ed7, %eax         # CF PF AF ZF SF DF OF, AC, ID
        push    %rax
        testb   $2, input+1(%rip)
        mov     $-1, %rax
        mov     %rax, %rcx
        mov     %rax, %rdx
        mov     %rax, %rsi
        mov     %rax, %rdi
        mov     %rax, %rbp
        mov     %rax, %r8
        mov     %rax, %r9
        mov     %rax, %r10
        mov     %rax, %r11
        mov     %rax, %r12
        mov     %rax, %r13
        mov     %rax, %r14
        mov     %rax, %r15
        jnz     1f
        mov     %rax, %rbx
        popf
        mov     $0x7000, %rsp
        out     %al, $DONE
1:      popf
        call    save
        cld
        ret
gprs_tell:
        TELL    17

fx_change:
        fxrstor spoiled(%rip)
        ret
fx_tell:
        fxsave  out(%rip)
        TELL    52                      # up to XMM15

# RAX: what XCR0 may enable here, of x87, SSE, AVX and AVX-512.
xcr0_possible:
        mov     %cr4, %rax
        or      $OSXSAVE, %rax
        mov     %rax, %cr4
        push    %rbx
        mov     $0xd, %eax
        xor     %ecx, %ecx
        cpuid
        pop     %rbx
        and     $0xe7, %eax
        xor     %edx, %edx
        xor     %ecx, %ecx
        ret

xsave_change:
        call    xcr0_possible
        xsetbv
        lea     area(%rip), %rdi
        mov     %eax, 512(%rdi)
        xrstor  (%rdi)
        ret
xsave_tell:
        call    xcr0_possible
        xsetbv
        lea     out(%rip), %rdi
        xsave   (%rdi)
        TELL    344

pkru_change:
        mov     %cr4, %rax
        or      $PKE, %rax
        mov     %rax, %cr4
        xor     %ecx, %ecx
        xor     %edx, %edx
        mov     $0x55555554, %eax
        .byte   0x0f, 0x01, 0xef        # wrpkru
        ret
pkru_tell:
        mov     %cr4, %rax
        or      $PKE, %rax
        mov     %rax, %cr4
        xor     %ecx, %ecx
        .byte   0x0f, 0x01, 0xee        # rdpkru
        mov     %rax, out(%rip)
        TELL    1

xcr0_change:
        call    xcr0_possible
        mov     $3, %eax
        xsetbv
        ret
xcr0_tell:
        mov     %cr4, %rax
        or      $OSXSAVE, %rax
        mov     %rax, %cr4
        xor     %ecx, %ecx
        xgetbv
        mov     %rax, out(%rip)
        TELL    1

msr_change:
        mov     input+4(%rip), %ecx
        mov     input+8(%rip), %eax
        mov     input+12(%rip), %edx
        testb   $1, input+2(%rip)
        jz      1f
        rdmsr
        xor     input+8(%rip), %eax
        xor     input+12(%rip), %edx
1:      wrmsr
        ret
msr_tell:
        mov     input+4(%rip), %ecx
        rdmsr
        mov     %eax, out(%rip)
        mov     %edx, out+4(%rip)
        TELL    1

# Every MSR from one (4 bytes of the input at 4) on, as many as the 4 bytes at 8 say: flips each
# bit of those that can be read, if it can be written. Not of KVM's old clock MSRs, which would
# write somewhere into memory, nor of EFER, some of whose bits QEMU's VMRUN refuses. Told is each
# one's value, or zero, at SWEEP.
        .set    SWEEP, 0x600000
sweep_change:
        call    skip_faults
        mov     input+4(%rip), %ecx
        mov     input+8(%rip), %r8d
1:      cmp     $0x11, %ecx
        je      4f
        cmp     $0x12, %ecx
        je      4f
        cmp     $0xc0000080, %ecx
        je      4f
        xor     %r9d, %r9d              # set by the handler
        rdmsr
        test    %r9d, %r9d
        jnz     4f
        mov     $1, %r10
2:      rdmsr
        shl     $32, %rdx
        or      %rdx, %rax
        xor     %r10, %rax
        mov     %rax, %rdx
        shr     $32, %rdx
        wrmsr
        shl     $1, %r10
        jnz     2b
4:      inc     %ecx
        dec     %r8d
        jnz     1b
        ret
sweep_tell:
        call    skip_faults
        mov     input+4(%rip), %ecx
        mov     input+8(%rip), %r8d
        mov     $SWEEP, %edi
1:      xor     %r9d, %r9d
        rdmsr
        test    %r9d, %r9d
        jz      2f
        xor     %eax, %eax
        xor     %edx, %edx
2:      mov     %eax, (%rdi)
        mov     %edx, 4(%rdi)
        add     $8, %rdi
        inc     %ecx
        dec     %r8d
        jnz     1b
        mov     input+8(%rip), %ecx
        shl     $3, %ecx
        mov     $SWEEP, %edi
        out     %al, $PRINT
        jmp     done

# Lets #GP skip an instruction of two bytes, and set R9.
skip_faults:
        lea     idt + 13 * 16(%rip), %rdi
        lea     1f(%rip), %rax
        mov     %ax, (%rdi)
        shr     $16, %rax
        mov     %ax, 6(%rdi)
        ret
1:      add     $8, %rsp
        addq    $2, (%rsp)
        mov     $1, %r9d
        iretq

dr_change:
        mov     $0x222000, %rax
        mov     %rax, %dr0
        inc     %rax
        mov     %rax, %dr1
        inc     %rax
        mov     %rax, %dr2
        inc     %rax
        mov     %rax, %dr3
        mov     $0xffff400f, %rax       # B0 to B3, BS
        mov     %rax, %dr6
        mov     $0x701, %rax            # LE, GE, L0, for an address that is not executed
        mov     %rax, %dr7
        ret
dr_tell:
        mov     %dr0, %rax
        mov     %rax, out(%rip)
        mov     %dr1, %rax
        mov     %rax, out+8(%rip)
        mov     %dr2, %rax
        mov     %rax, out+16(%rip)
        mov     %dr3, %rax
        mov     %rax, out+24(%rip)
        mov     %dr6, %rax
        mov     %rax, out+32(%rip)
        mov     %dr7, %rax
        mov     %rax, out+40(%rip)
        TELL    6

cr_change:
        mov     %cr0, %rax
        xor     $0x5000a, %rax          # AM, WP, TS, MP
        mov     %rax, %cr0
        mov     $0x333000, %rax
        mov     %rax, %cr2
        mov     %cr3, %rax
        xor     $0x18, %rax             # PCD, PWT
        mov     %rax, %cr3
        mov     %cr4, %rax
        xor     $0x8c, %rax             # PGE, DE, TSD
        mov     %rax, %cr4
        ret
cr_tell:
        mov     %cr0, %rax
        mov     %rax, out(%rip)
        mov     %cr2, %rax
        mov     %rax, out+8(%rip)
        mov     %cr3, %rax
        mov     %rax, out+16(%rip)
        mov     %cr4, %rax
        mov     %rax, out+24(%rip)
        TELL    4

cr8_change:
        mov     $9, %eax
        mov     %rax, %cr8
        mov     $5, %eax                # lowering it exits where the APIC is not in the kernel
        mov     %rax, %cr8
        ret
cr8_tell:
        mov     %cr8, %rax
        mov     %rax, out(%rip)
        TELL    1

tables_change:
        lgdt    other_gdtr(%rip)
        lidt    other_idtr(%rip)
        ret
tables_tell:
        sgdt    out(%rip)
        sidt    out+16(%rip)
        TELL    4

selectors_change:
        mov     $LDT, %eax
        lldt    %ax
        mov     $TSS, %eax
        ltr     %ax
        mov     $OTHER_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %fs
        mov     %eax, %gs
        mov     %eax, %ss
        ret
selectors_tell:
        xor     %eax, %eax
        sldt    %eax
        mov     %rax, out(%rip)
        xor     %eax, %eax
        str     %eax
        mov     %rax, out+8(%rip)
        mov     %ds, %eax
        mov     %rax, out+16(%rip)
        mov     %es, %eax
        mov     %rax, out+24(%rip)
        mov     %fs, %eax
        mov     %rax, out+32(%rip)
        mov     %gs, %eax
        mov     %rax, out+40(%rip)
        mov     %ss, %eax
        mov     %rax, out+48(%rip)
        mov     gdt+TSS(%rip), %rax     # its busy bit
        mov     %rax, out+56(%rip)
        TELL    8

# Ends the run in the shadow of an STI, with interrupts on; no instruction can read a shadow.
shadow_change:
        testb   $2, input+1(%rip)
        jnz     1f
        mov     $0, %al
        sti
        out     %al, $DONE
1:      sti
        ret
shadow_tell:
        pushf
        pop     %rax
        and     $0x200, %eax
        mov     %rax, out(%rip)
        TELL    1

lapic_change:
        mov     $LAPIC, %edi
        movl    $0x1ff, 0xf0(%rdi)      # on, spurious vector 0xff
        movl    $0x20, 0x80(%rdi)
        movl    $0x0f000000, 0xd0(%rdi)
        movl    $0x1fffffff, 0xe0(%rdi)
        movl    $0x20040, 0x320(%rdi)   # timer: periodic, vector 0x40
        movl    $0x10041, 0x350(%rdi)
        movl    $0x10042, 0x360(%rdi)
        movl    $0x10043, 0x370(%rdi)
        movl    $0xb, 0x3e0(%rdi)
        movl    $0x7fffffff, 0x380(%rdi)
        movl    $0x12000000, 0x310(%rdi)
        movl    $0x40044, 0x300(%rdi)   # an interrupt to itself, pending in IRR
        ret
# Every register but the current count, at 0x390; what is none reads as anything.
lapic_tell:
        mov     $LAPIC, %esi
        lea     out(%rip), %rdi
        mov     $0x41ff01ffffffe70c, %r8
        xor     %ecx, %ecx
1:      xor     %eax, %eax
        shr     $1, %r8
        jnc     2f
        mov     (%rsi, %rcx), %eax
2:      mov     %eax, (%rdi)
        add     $4, %rdi
        add     $16, %ecx
        cmp     $0x400, %ecx
        jb      1b
        TELL    32

timer_change:
        mov     $LAPIC, %edi
        movl    $0x1ff, 0xf0(%rdi)
        movl    $0xb, 0x3e0(%rdi)
        movl    $0x10040, 0x320(%rdi)   # one-shot and masked: it only counts
        movl    $0x7fffffff, 0x380(%rdi)
        ret
# Whether it counts.
timer_tell:
        mov     $LAPIC, %edi
        mov     0x390(%rdi), %eax
        test    %eax, %eax
        setnz   %al
        movzbl  %al, %eax
        mov     %rax, out(%rip)
        TELL    1

ioapic_change:
        mov     $IOAPIC, %edi
        mov     $0x10, %ecx
1:      mov     %ecx, (%rdi)
        mov     %ecx, %eax
        or      $0x10000, %eax          # masked
        mov     %eax, 0x10(%rdi)
        inc     %ecx
        cmp     $0x40, %ecx
        jb      1b
        ret
ioapic_tell:
        mov     $IOAPIC, %edi
        lea     out+4(%rip), %rsi
        mov     (%rdi), %eax            # which register was selected
        mov     %eax, out(%rip)
        xor     %ecx, %ecx
1:      mov     %ecx, (%rdi)
        mov     0x10(%rdi), %eax
        mov     %eax, (%rsi)
        add     $4, %rsi
        inc     %ecx
        cmp     $0x40, %ecx
        jb      1b
        TELL    33

pic_change:
        mov     $0x11, %al
        out     %al, $0x20
        out     %al, $0xa0
        mov     $0x20, %al
        out     %al, $0x21
        mov     $0x28, %al
        out     %al, $0xa1
        mov     $4, %al
        out     %al, $0x21
        mov     $2, %al
        out     %al, $0xa1
        mov     $3, %al                 # automatic EOI
        out     %al, $0x21
        out     %al, $0xa1
        mov     $0x5a, %al
        out     %al, $0x21
        out     %al, $0xa1
        mov     $0x4d0, %dx
        mov     $0x20, %al
        out     %al, %dx
        ret
pic_tell:
        xor     %eax, %eax
        mov     %rax, out(%rip)
        in      $0x21, %al
        mov     %al, out(%rip)
        in      $0xa1, %al
        mov     %al, out+1(%rip)
        mov     $0x4d0, %dx
        in      %dx, %al
        mov     %al, out+2(%rip)
        inc     %edx
        in      %dx, %al
        mov     %al, out+3(%rip)
        mov     $0xb, %al               # ISR next
        out     %al, $0x20
        in      $0x20, %al
        mov     %al, out+4(%rip)
        TELL    1

pit_change:
        mov     $0x34, %al              # channel 0: rate generator, both bytes
        out     %al, $0x43
        mov     $0, %al
        out     %al, $0x40
        mov     $0xff, %al
        out     %al, $0x40
        mov     $0x96, %al              # channel 2: square wave, low byte only
        out     %al, $0x43
        mov     $0x99, %al
        out     %al, $0x42
        mov     $0xb0, %al              # channel 2 once more: and half of its count
        out     %al, $0x43
        mov     $0x77, %al
        out     %al, $0x42
        mov     $3, %al                 # gate and speaker
        out     %al, $0x61
        ret
# The status of each channel without OUT and null count, which run; gate and speaker.
pit_tell:
        xor     %eax, %eax
        mov     %rax, out(%rip)
        mov     $0xee, %al              # read back: status of all channels
        out     %al, $0x43
        in      $0x40, %al
        and     $0x3f, %al
        mov     %al, out(%rip)
        in      $0x41, %al
        and     $0x3f, %al
        mov     %al, out+1(%rip)
        in      $0x42, %al
        and     $0x3f, %al
        mov     %al, out+2(%rip)
        in      $0x61, %al
        and     $3, %al
        mov     %al, out+3(%rip)
        TELL    1

serial_change:
        mov     $0x3f9, %dx
        mov     $0xf, %al
        out     %al, %dx
        mov     $0x3fb, %dx
        mov     $0x83, %al
        out     %al, %dx
        mov     $0x3f8, %dx
        mov     $0x77, %al              # the divisor
        out     %al, %dx
        mov     $0x3fc, %dx
        mov     $0x1b, %al
        out     %al, %dx
        mov     $0x3ff, %dx
        mov     $0x66, %al
        out     %al, %dx
        mov     $0x3fb, %dx
        mov     $0x1b, %al
        out     %al, %dx
        ret
serial_tell:
        lea     out(%rip), %rdi
        mov     $0x3f9, %dx
1:      in      %dx, %al
        stosb
        inc     %edx
        cmp     $0x400, %edx
        jb      1b
        mov     $0x3fb, %dx
        mov     $0x80, %al
        out     %al, %dx
        mov     $0x3f8, %dx
        in      %dx, %al
        stosb
        TELL    1

# One byte of every page from 2 to 8 MiB. Told is the sum of their first words.
pages_change:
        mov     $0x200000, %edi
1:      incb    (%rdi)
        add     $0x1000, %edi
        cmp     $0x800000, %edi
        jb      1b
        ret
pages_tell:
        mov     $0x200000, %edi
        xor     %eax, %eax
1:      add     (%rdi), %rax
        rol     $1, %rax
        add     $0x1000, %edi
        cmp     $0x800000, %edi
        jb      1b
        mov     %rax, out(%rip)
        TELL    1

# An entry of a page directory that the snapshot has, and one of a page that was no table: virtual
# 1 GiB + 2 MiB leads through a new table to the page at 0x300000. Told is what is read there, and
# all ones is no RAM.
paging_change:
        mov     %cr3, %rdi
        movq    $0x300063, 0x700000     # a page table, its first entry
        movq    $0x700063, 0x3000 + 8(%rdi)
        invlpg  0x40200000
        ret
paging_tell:
        mov     %cr3, %rdi
        mov     0x3000 + 8(%rdi), %rax
        mov     %rax, out(%rip)
        movzbl  0x40200000, %eax
        mov     %rax, out+8(%rip)
        mov     0x700000, %rax
        mov     %rax, out+16(%rip)
        mov     0x3000 + 8(%rdi), %rax  # its accessed bits
        mov     %rax, out+24(%rip)
        TELL    4

# Ends the run inside the handler of an NMI, where another is held back.
nmi_change:
        mov     $LAPIC, %edi
        movl    $0x1ff, 0xf0(%rdi)
        mov     %rsp, %r12
        lea     1f(%rip), %rax
        mov     %rax, nmi_goes_to(%rip)
        movl    $0x40400, 0x300(%rdi)   # an NMI to itself
        mov     $40000, %ecx         # ten milliseconds where CPL 0 is emulated
        loop    .
        ret                             # it did not come
1:      testb   $2, input+1(%rip)
        jnz     2f
        mov     $0, %al
        out     %al, $DONE
2:      mov     %r12, %rsp              # as if it had not come, but masked
        ret
# Whether an NMI comes.
nmi_tell:
        mov     $LAPIC, %edi
        movl    $0x1ff, 0xf0(%rdi)
        lea     1f(%rip), %rax
        mov     %rax, nmi_goes_to(%rip)
        movl    $0x40400, 0x300(%rdi)
        mov     $40000, %ecx         # ten milliseconds where CPL 0 is emulated
        loop    .
        movq    $0, out(%rip)
        TELL    1
1:      movq    $1, out(%rip)
        TELL    1

# An interrupt that is pending, with interrupts off. Told is whether one comes when they are on.
pending_change:
        mov     $LAPIC, %edi
        movl    $0x1ff, 0xf0(%rdi)
        movl    $0x40041, 0x300(%rdi)
        ret
pending_tell:
        lea     1f(%rip), %rax
        mov     %rax, interrupt_goes_to(%rip)
        sti
        mov     $40000, %ecx
        loop    .
        cli
        movq    $0, out(%rip)
        TELL    1
1:      movq    $1, out(%rip)
        TELL    1

# The TSC, moved by 2^60. Told is whether it is beyond half of that, by RDTSC and by RDMSR.
clock_change:
        mov     $0x10, %ecx
        rdmsr
        or      $0x10000000, %edx
        wrmsr
        ret
clock_tell:
        rdtsc
        shr     $27, %edx
        mov     %rdx, out(%rip)
        mov     $0x10, %ecx
        rdmsr
        shr     $27, %edx
        mov     %rdx, out+8(%rip)
        TELL    2

nmi:    jmp     *nmi_goes_to(%rip)
interrupt:
        jmp     *interrupt_goes_to(%rip)
trap:   mov     $0xee, %al
        out     %al, $CRASH
        hlt

# The LDT's and the TSS's bases.
descriptors:
        lea     gdt + LDT(%rip), %rdi
        lea     ldt(%rip), %rax
        mov     $0x8200, %edx           # present, LDT
        call    1f
        lea     gdt + TSS(%rip), %rdi
        lea     tss(%rip), %rax
        mov     $0x8900, %edx           # present, available TSS
1:      movw    $0x67, (%rdi)
        mov     %ax, 2(%rdi)
        shr     $16, %rax
        mov     %al, 4(%rdi)
        mov     %dh, 5(%rdi)
        movb    $0, 6(%rdi)
        mov     %ah, 7(%rdi)
        movq    $0, 8(%rdi)
        ret

# Every vector leads to `trap`, but for NMI and 0x41.
interrupts:
        lea     idt(%rip), %rdi
        mov     %rdi, idtr+2(%rip)
        xor     %ecx, %ecx
1:      lea     trap(%rip), %rax
        cmp     $2, %ecx
        jne     2f
        lea     nmi(%rip), %rax
2:      cmp     $0x41, %ecx
        jne     3f
        lea     interrupt(%rip), %rax
3:      mov     %ax, (%rdi)
        movw    $CODE, 2(%rdi)
        movw    $0x8e00, 4(%rdi)
        shr     $16, %rax
        mov     %ax, 6(%rdi)
        movq    $0, 8(%rdi)
        add     $16, %rdi
        inc     %ecx
        cmp     $256, %ecx
        jb      1b
        ret

        .balign 16
gdt:    .quad   0
        .quad   0x00af9b000000ffff
        .quad   0x00cf93000000ffff
        .quad   0, 0                    # LDT
        .quad   0, 0                    # TSS
        .quad   0x00cf93000000ffff
gdt_end:
ldt:    .fill   104
tss:    .fill   104
gdtr:   .word   gdt_end - gdt - 1
        .quad   0
other_gdtr:
        .word   0x1fff
        .quad   0x123000
idtr:   .word   256 * 16 - 1
        .quad   0
other_idtr:
        .word   0x7ff
        .quad   0x456000
        .balign 8
nmi_goes_to:
        .quad   trap
interrupt_goes_to:
        .quad   trap
input:  .fill   64
        .balign 16
# FXSAVE areas: control word, status, tags, ..., MXCSR, its mask, ST0 to ST7, XMM0 to XMM15.
clean:  .word   0x027f, 0, 0, 0
        .quad   0, 0
        .long   0x1fc0, 0xffff
        .fill   128
        .fill   256, 1, 0x11
        .fill   96
spoiled:
        .word   0x0c7f, 0x3800, 0xff, 0
        .quad   0, 0
        .long   0x1f80, 0xffff
        .rept   8
        .quad   0x8123456789abcdef, 0x4000
        .endr
        .fill   256, 1, 0x22
        .fill   96
        .balign 64
# An XSAVE area in the standard format; XSTATE_BV is written when it is known.
area:   .word   0x0c7f, 0, 0, 0
        .quad   0, 0
        .long   0x1f80, 0xffff
        .rept   8
        .quad   0x8123456789abcdef, 0x4000
        .endr
        .fill   256, 1, 0x33
        .fill   96
        .quad   0, 0, 0, 0, 0, 0, 0, 0
        .fill   2176, 1, 0x44
        .balign 64
out:    .fill   4096
        .balign 16
idt:    .fill   4096
