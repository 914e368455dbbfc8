# A 64-bit guest by the port ABI (docs/guests-bare.md) that does its worst in the way that its
# input's first letter names. `+` is a good run, which ends with status 7 where nothing is left of
# the one before it.
        .globl _start
        .set    SNAPSHOT, 0xd0
        .set    DONE, 0xd1
        .set    NOTHING, 0xe0000000     # an address without RAM

_start: lea     input(%rip), %rdi
        mov     $16, %ecx
        out     %al, $SNAPSHOT
        movzbl  input(%rip), %ebx
        lea     deeds(%rip), %rsi
1:      movzbl  (%rsi), %eax
        test    %eax, %eax
        jz      good
        cmp     %eax, %ebx
        je      2f
        add     $16, %rsi
        jmp     1b
2:      jmp     *8(%rsi)

        .balign 8
deeds:
        .macro  deed letter, at
        .quad   \letter, \at
        .endm
        deed    'w', write
        deed    'W', write_many
        deed    't', triple
        deed    'h', halt
        deed    'H', halt_open
        deed    'c', spin
        deed    'i', own_idt
        deed    'g', own_gdt
        deed    'P', no_tables
        deed    'Q', all_tables
        deed    'm', run_nothing
        deed    'M', stack_nowhere
        deed    'n', idt_nowhere
        deed    'N', gdt_nowhere
        deed    'p', tables_nowhere
        deed    'q', tables_beyond
        deed    'a', paging_off
        deed    'b', pae_off
        deed    'f', trap_flag
        deed    'F', flags
        deed    'r', read_msrs
        deed    'R', write_msrs
        deed    'x', ports
        deed    'X', ports_wide
        deed    'd', fill
        deed    'D', detect
        deed    'B', breakpoints
        deed    'z', bad_task
        deed    'L', locked
        deed    'v', wide
        deed    's', strings
        deed    'S', strings_endless
        deed    'E', end_of_ram
        deed    'k', far_call
        deed    'u', to_user
        deed    'A', apic
        deed    'I', io_apic
        deed    'Z', init_self
        deed    'T', timers
        deed    'y', rsm_there
        deed    'Y', hypercall
        deed    'V', vmrun_there
        deed    'C', control_bits
        deed    'o', own_code
        .quad   0, 0

done:   out     %al, $DONE
        hlt

# What a run can have left: memory, flags, control and debug registers, the task register.
good:   mov     $6, %ebx
        cmpq    $0x1234, left(%rip)
        jne     1f
        inc     %ebx
        movq    $0, left(%rip)
        xor     %eax, %eax
        mov     %rax, %dr0
1:      mov     %ebx, %eax
        jmp     done

write:  mov     $0x3f8, %edx
        mov     $'x', %al
1:      out     %al, %dx
        jmp     1b

write_many:
        mov     $0x3f8, %edx
1:      lea     left(%rip), %rsi
        mov     $4096, %ecx
        rep     outsb
        jmp     1b

triple: lidt    empty(%rip)
        ud2

halt:   cli
        hlt
halt_open:
        sti
1:      hlt
        jmp     1b
spin:   cli
1:      jmp     1b

# Its own IDT, and an exception that its handler returns from.
own_idt:
        call    load_idt
        xor     %ecx, %ecx
        mov     $1, %eax
        xor     %edx, %edx
        div     %ecx                    # two bytes, which the handler steps over
        mov     faults(%rip), %al
        jmp     done

own_gdt:
        lgdt    gdt_at(%rip)
        mov     $0x10, %eax
        mov     %eax, %ss
        mov     %eax, %ds
        push    $8
        lea     1f(%rip), %rax
        push    %rax
        lretq
1:      mov     $1, %al
        jmp     done

# Its page tables: gone, and leading everywhere.
no_tables:
        mov     %cr3, %rdi
        mov     $0x6000 / 8, %ecx
        xor     %eax, %eax
        rep     stosq
        mov     %cr3, %rax
        mov     %rax, %cr3
        jmp     done
all_tables:
        mov     %cr3, %rdi
        mov     $0x6000 / 8, %ecx
        mov     $-1, %rax
        rep     stosq
        mov     %cr3, %rax
        mov     %rax, %cr3
        jmp     done

run_nothing:
        mov     $NOTHING, %eax
        jmp     *%rax
stack_nowhere:
        call    load_idt
        mov     $NOTHING + 0x800, %esp
        push    %rax
        call    1f
1:      xor     %ecx, %ecx
        div     %ecx
        jmp     done
idt_nowhere:
        lidt    nowhere(%rip)
        ud2
gdt_nowhere:
        lgdt    nowhere(%rip)
        mov     $0x10, %eax
        mov     %eax, %ss
        push    $8
        lea     done(%rip), %rax
        push    %rax
        lretq
tables_nowhere:
        mov     $NOTHING, %eax
        mov     %rax, %cr3
        jmp     done
tables_beyond:
        mov     $0xffffffffff000, %rax
        mov     %rax, %cr3
        jmp     done
paging_off:
        mov     %cr0, %rax
        btr     $31, %rax
        mov     %rax, %cr0
        ud2
pae_off:
        mov     %cr4, %rax
        btr     $5, %rax
        mov     %rax, %cr4
        ud2

trap_flag:
        pushf
        orq     $0x100, (%rsp)
        popf
        nop
        jmp     done
# NT, IOPL, AC, ID, RF, VIF: and IRET, which looks at the first.
flags:  pushf
        orq     $0x3f7000, (%rsp)
        popf
        mov     %rsp, %rax
        push    $0
        push    %rax
        pushf
        mov     %cs, %ecx
        push    %rcx
        lea     done(%rip), %rcx
        push    %rcx
        iretq

# Every MSR there might be, and a few values for each; what is refused is stepped over.
        .macro  msrs first, count, access
        mov     $\first, %ecx
1:      mov     %ecx, %eax
        imul    $0x9e3779b1, %eax
        xor     %edx, %edx
        \access
        mov     $0x300001, %eax         # a page, for those that lead KVM to one, and turned on
        xor     %edx, %edx
        \access
        inc     %ecx
        cmp     $\first + \count, %ecx
        jne     1b
        .endm
        .macro  all_msrs access
        msrs    0, 0x400, \access
        msrs    0x480, 0x20, \access
        msrs    0x560, 0x20, \access
        msrs    0x6e0, 1, \access
        msrs    0x700, 0x180, \access
        msrs    0xd90, 0x20, \access
        msrs    0x40000000, 0x120, \access
        msrs    0x4b564d00, 16, \access
        msrs    0xc0000080, 8, \access
        msrs    0xc0000100, 8, \access
        msrs    0xc0010000, 0x140, \access
        msrs    0xc0011000, 0x40, \access
        .endm
read_msrs:
        call    load_idt
        all_msrs rdmsr
        mov     $1, %al
        jmp     done
write_msrs:
        call    load_idt
        all_msrs wrmsr
        mov     $1, %al
        jmp     done

# Every port but dejavm's own.
ports:  xor     %edx, %edx
1:      cmp     $0xd0, %edx
        jb      2f
        cmp     $0xd3, %edx
        jbe     3f
2:      in      %dx, %al
        out     %al, %dx
3:      inc     %edx
        cmp     $0x400, %edx
        jne     1b
        mov     $1, %al
        jmp     done
ports_wide:
        mov     $0xd4, %edx
1:      in      %dx, %eax
        out     %eax, %dx
        in      %dx, %ax
        out     %ax, %dx
        add     $37, %edx
        cmp     $0x10000, %edx
        jb      1b
        mov     $0x1000, %edx
        lea     scratch(%rip), %rdi
        mov     $3000, %ecx
        rep     insb
        mov     $0x1000, %edx
        lea     scratch(%rip), %rsi
        mov     $1000, %ecx
        rep     outsl
        mov     $1, %al
        jmp     done

# Every page of RAM behind this program.
fill:   lea     end(%rip), %rdi
1:      movq    $-1, (%rdi)
        add     $4096, %edi
        cmp     $0x7ff000, %edi
        jb      1b
        mov     $1, %al
        jmp     done

# General detect: the next access to a debug register is an exception.
detect: call    load_idt
        mov     $0x2600, %eax
        mov     %rax, %dr7
        mov     %dr6, %rax
        jmp     done
# Breakpoints on code and on data, and general detect.
breakpoints:
        call    load_idt
        lea     1f(%rip), %rax
        mov     %rax, %dr0
        lea     left(%rip), %rax
        mov     %rax, %dr1
        mov     $0xf36ff, %eax
        mov     %rax, %dr7
1:      movq    $0x1234, left(%rip)
        mov     %dr6, %rax
        jmp     done

bad_task:
        mov     $0x18, %eax
        ltr     %ax
        lidt    empty(%rip)
        ud2

locked: mov     $NOTHING, %edi
        lock    incl (%rdi)
        lock    btsl $3, 4(%rdi)
        lock    xaddl %eax, 0xffe(%rdi)
        lock    cmpxchg8b 8(%rdi)
        lock    cmpxchg16b (%rdi)
        jmp     done
wide:   mov     $NOTHING, %edi
        movups  %xmm0, 0xff8(%rdi)
        movups  0xff8(%rdi), %xmm1
        fxsave  (%rdi)
        fxrstor (%rdi)
        jmp     done
strings:
        mov     $NOTHING + 3, %esi
        mov     $NOTHING + 0x2001, %edi
        mov     $0x7ff, %ecx
        rep     movsq
        mov     $NOTHING + 3, %esi
        mov     $NOTHING + 0x2001, %edi
        mov     $0x7ff, %ecx
        repe    cmpsq
        jmp     done
strings_endless:
        mov     $NOTHING, %esi
        lea     scratch(%rip), %rdi
        mov     $-1, %rcx
        rep     lodsb
        jmp     done

# The last two bytes of RAM are half an instruction.
end_of_ram:
        mov     $0x7ffffe, %edi
        movw    $0xb848, (%rdi)
        jmp     *%rdi

far_call:
        call    load_idt
        lcall   *bad_far(%rip)
        jmp     done
to_user:
        push    $0x23
        push    %rsp
        push    $2
        push    $0x1b
        lea     done(%rip), %rax
        push    %rax
        iretq

# Every register of the local APIC, with IPIs to itself; of the IOAPIC; INIT and SIPI; timers.
apic:   mov     $0xfee00000, %edi
        mov     $0x20, %ecx
1:      mov     %ecx, %eax
        imul    $0x9e3779b1, %eax
        mov     (%rdi,%rcx), %ebx
        mov     %eax, (%rdi,%rcx)
        add     $16, %ecx
        cmp     $0x1000, %ecx
        jne     1b
        mov     $1, %al
        jmp     done
io_apic:
        mov     $0xfec00000, %edi
        xor     %ecx, %ecx
1:      mov     %ecx, (%rdi)
        mov     %ecx, %eax
        imul    $0x9e3779b1, %eax
        mov     %eax, 0x10(%rdi)
        inc     %ecx
        cmp     $0x100, %ecx
        jne     1b
        mov     $1, %al
        jmp     done
init_self:
        mov     $0xfee00000, %edi
        movl    $0x1ff, 0xf0(%rdi)
        movl    $0x44400, 0x300(%rdi)   # NMI to itself
        movl    $0x44500, 0x300(%rdi)   # INIT
        movl    $0x44608, 0x300(%rdi)   # SIPI
        movl    $0x44200, 0x300(%rdi)   # SMI
        sti
1:      hlt
        jmp     1b
timers: mov     $0xfee00000, %edi
        movl    $0x1ff, 0xf0(%rdi)
        movl    $0x20020, 0x320(%rdi)
        movl    $0, 0x3e0(%rdi)
        movl    $1, 0x380(%rdi)
        mov     $0x34, %al
        out     %al, $0x43
        xor     %al, %al
        out     %al, $0x40
        out     %al, $0x40
        call    load_idt
        sti
1:      jmp     1b

rsm_there:
        rsm
        jmp     done
hypercall:
        call    load_idt
        xor     %ebx, %ebx
1:      mov     %ebx, %eax
        vmmcall
        inc     %ebx
        cmp     $16, %ebx
        jne     1b
        mov     $1, %al
        jmp     done
vmrun_there:
        call    load_idt
        mov     $0x300000, %eax
        vmrun
        jmp     done
# Each bit of CR4, by itself, on and off.
control_bits:
        call    load_idt
        xor     %ebx, %ebx
1:      mov     %cr4, %rax
        btc     %rbx, %rax
        cmp     $5, %ebx
        je      2f
        mov     %rax, %cr4
        nop
2:      inc     %ebx
        cmp     $32, %ebx
        jne     1b
        mov     $1, %al
        jmp     done
# Code that overwrites itself as it goes.
own_code:
        lea     1f(%rip), %rdi
        mov     $100, %ecx
1:      mov     $0, %eax
        incb    1(%rdi)
        loop    1b
        cmp     $99, %eax
        mov     $1, %al
        je      done
        mov     $2, %al
        jmp     done

# 32 handlers that count, and go on behind the instruction. Each is two bytes long where a fault is
# expected, or three: MOV to a control register.
load_idt:
        lea     idt(%rip), %rdi
        lea     plain(%rip), %rax
        lea     coded(%rip), %rdx
        xor     %ecx, %ecx
1:      mov     %rax, %rsi
        mov     $0x27d00, %ebx          # 8, 10 to 14, 17
        bt      %ecx, %ebx
        cmovc   %rdx, %rsi
        mov     %si, (%rdi)
        mov     %cs, 2(%rdi)
        movw    $0x8e00, 4(%rdi)
        shr     $16, %rsi
        mov     %rsi, 6(%rdi)
        movl    $0, 12(%rdi)
        add     $16, %rdi
        inc     %ecx
        cmp     $32, %ecx
        jne     1b
        lidt    idt_at(%rip)
        ret
coded:  add     $8, %rsp
plain:  incb    faults(%rip)
        jz      1f
        push    %rax
        mov     8(%rsp), %rax
        cmpb    $0x22, 1(%rax)
        jne     2f
        incq    8(%rsp)
2:      addq    $2, 8(%rsp)
        pop     %rax
        iretq
1:      incl    many(%rip)              # the 256th, again
        cmpl    $64, many(%rip)
        ja      done
        incb    faults(%rip)
        jmp     plain

        .balign 16
idt_at: .word   32 * 16 - 1
        .quad   idt
gdt_at: .word   23
        .quad   gdt
empty:  .word   0
        .quad   0
nowhere: .word  0xfff
        .quad   NOTHING
bad_far: .long  0x100000
        .word   0xfff8
        .balign 8
gdt:    .quad   0, 0x00af9b000000ffff, 0x00cf93000000ffff
left:   .quad   0x1234
many:   .long   0
faults: .byte   0
        .balign 16
input:  .fill   16
        .balign 4096
idt:    .fill   512
scratch:
        .fill   8192
end:
