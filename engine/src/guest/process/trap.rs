//! The engine's own pages in a process guest: descriptor tables, trap stubs, the system-call
//! gate, the trampoline that reloads extended state, and the stub that rewrites page-table
//! entries.
//!
//! This is all the "kernel" there is inside the guest: every stub does nothing but exit to the
//! host, or return from it. It never serves a system call and never decides what a fault means.
//!
//! The pages lie in a memory slot of their own without dirty log, and are mapped in a part of
//! the address space that no program is given.

pub use crate::guest::process::layout::{
    ENGINE_BASE, ENGINE_BYTES, ENGINE_END, GATE, GATE_AT, KERNEL_CS, KERNEL_SS, PORT_TRAP, RESUME,
    STACK, USER_BASE, USER_CS, USER_SS, XSAVE_AREA, engine_va,
};
pub use crate::linux::abi::registers::user_flags;
pub use crate::linux::abi::syscall::SYSCALL_BYTES;

use crate::address::{Gpa, Gva, PAGE_SIZE, Pfn};
use crate::arch::control::{CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_PAE};
use crate::arch::exception;
use crate::guest::process::layout::{
    ARENA, GDT, IDT, STACK_TOP, STUB_STRIDE, STUBS, TSS, TSS_SELECTOR, USER_CODE, VECTORS,
};
use crate::guest::process::rewrite;
use crate::memory::GuestMemory;
use crate::paging::{Frames, Tables, TablesError, leaf_entry};

/// Builds the pages and the tables that map them. `user_pages` frames follow at [`USER_BASE`].
///
/// # Errors
/// The arena is too small, which is a mistake in this module's constants.
pub fn install(memory: &mut GuestMemory, user_pages: u64) -> Result<Tables, TablesError> {
    let arena = Frames::new(Pfn::from(ARENA), Pfn(ENGINE_BYTES / PAGE_SIZE as u64));
    let first = Pfn::from(USER_BASE);
    let mut tables = Tables::new(memory, arena, Frames::new(first, Pfn(first.0 + user_pages)))?;
    memory.write_unmarked(GDT, &gdt())?;
    memory.write_unmarked(TSS, &tss())?;
    memory.write_unmarked(IDT, &idt())?;
    memory.write_unmarked(STUBS, &stubs())?;
    memory.write_unmarked(USER_CODE, &user_code())?;
    for page in 1..ENGINE_BYTES / PAGE_SIZE as u64 {
        let at = Pfn(page).gpa();
        let user = matches!(at, USER_CODE | XSAVE_AREA | RESUME);
        let executable = matches!(at, STUBS | USER_CODE);
        let writable = !user && at != STUBS;
        tables.set_leaf(memory, engine_va(at), leaf_entry(at, writable, executable, user))?;
    }
    tables.set_leaf(memory, Gva(GATE_AT), leaf_entry(GATE, true, false, true))?;
    tables.mark();
    Ok(tables)
}

/// Segment descriptors (Intel SDM vol. 3, 3.4.5), accessed bits set beforehand.
fn gdt() -> Vec<u8> {
    const CODE64: u64 = 0x00af_9b00_0000_ffff;
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    const DPL3: u64 = 3 << 45;
    let base = engine_va(TSS).0;
    let low =
        (TSS_LIMIT as u64) | (base & 0xff_ffff) << 16 | 0x8b << 40 | (base >> 24 & 0xff) << 56;
    [0, CODE64, DATA, DATA | DPL3, CODE64 | DPL3, low, base >> 32]
        .iter()
        .flat_map(|entry: &u64| entry.to_le_bytes())
        .collect()
}

const GDT_LIMIT: u16 = 7 * 8 - 1;
const TSS_LIMIT: u32 = 0x67;
const IDT_LIMIT: u16 = (VECTORS * 16 - 1) as u16;

/// A 64-bit TSS (SDM vol. 3, 8.7): RSP0 is all that is used. The I/O bitmap's offset lies past
/// the limit, so that every port faults at CPL 3.
fn tss() -> Vec<u8> {
    let mut tss = vec![0; TSS_LIMIT as usize + 1];
    tss[4..12].copy_from_slice(&engine_va(STACK_TOP).0.to_le_bytes());
    tss[0x66..0x68].copy_from_slice(&0x68_u16.to_le_bytes());
    tss
}

/// Exceptions that a program may raise by an instruction of their own.
const USER_GATES: [u64; 2] = [exception::BREAKPOINT as u64, exception::OVERFLOW as u64];

/// Interrupt gates. INT3 and INTO are the program's to use, as on Linux; any other `int n` is a
/// general-protection fault.
fn idt() -> Vec<u8> {
    (0..VECTORS)
        .flat_map(|vector| {
            let at = engine_va(STUBS).0 + vector * STUB_STRIDE;
            let dpl: u64 = if USER_GATES.contains(&vector) { 3 } else { 0 };
            let low = (at & 0xffff)
                | u64::from(KERNEL_CS) << 16
                | (0x8e | dpl << 5) << 40
                | (at >> 16 & 0xffff) << 48;
            [low, at >> 32]
        })
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// `out imm8, al; hlt`, once for each vector, then the stubs that rewrite page-table entries.
fn stubs() -> Vec<u8> {
    let mut code = vec![0xf4; PAGE_SIZE];
    for vector in 0..VECTORS {
        let at = (vector * STUB_STRIDE) as usize;
        code[at..at + 3].copy_from_slice(&[0xe6, PORT_TRAP as u8, 0xf4]);
    }
    rewrite::install(&mut code);
    code
}

/// The pages' code that runs at CPL 3: the system-call gate and the trampoline.
fn user_code() -> Vec<u8> {
    let mut code = vec![0xf4; PAGE_SIZE];
    // mov [gate], al; hlt. A store, not an OUT: where SYSCALL stays at CPL 3 (kvm_pvm) an OUT
    // would first fault, and everywhere else a store exits as well.
    code[0] = 0xa2;
    code[1..9].copy_from_slice(&GATE_AT.to_le_bytes());
    let at = TRAMPOLINE as usize;
    code[at..at + 28].copy_from_slice(&trampoline());
    let at = RETURNED as usize;
    code[at..at + 7].copy_from_slice(&RETURNED_CODE);
    code[at + 7..at + 9].copy_from_slice(&[0x0f, 0x05]);
    code
}

const TRAMPOLINE: u64 = 0x40;
/// Where [`returned_entry`] is in its page.
pub(super) const RETURNED: u64 = 0x80;
/// `xor edi, edi; mov eax, exit_group`, and what is behind it.
pub(super) const RETURNED_CODE: [u8; 7] = [0x31, 0xff, 0xb8, libc::SYS_exit_group as u8, 0, 0, 0];

/// Loads extended state, then RAX, RDX and RIP, changing nothing else:
/// `xrstor64 [area]; mov rax, [resume]; mov rdx, [resume+8]; jmp [resume+16]`.
fn trampoline() -> [u8; 28] {
    let mut code = [0; 28];
    let mut at = 0;
    let mut emit = |opcode: &[u8], target: u64| {
        code[at..at + opcode.len()].copy_from_slice(opcode);
        at += opcode.len() + 4;
        // RIP-relative to the end of the instruction.
        let distance = target.wrapping_sub(USER_CODE.0 + TRAMPOLINE + at as u64);
        code[at - 4..at].copy_from_slice(&(distance as u32).to_le_bytes());
    };
    emit(&[0x48, 0x0f, 0xae, 0x2d], XSAVE_AREA.0);
    emit(&[0x48, 0x8b, 0x05], RESUME.0);
    emit(&[0x48, 0x8b, 0x15], RESUME.0 + 8);
    emit(&[0xff, 0x25], RESUME.0 + 16);
    code
}

/// Where LSTAR points: the system-call gate.
#[must_use]
pub const fn syscall_entry() -> Gva {
    engine_va(USER_CODE)
}

/// Where a run starts, extended state first.
#[must_use]
pub const fn trampoline_entry() -> Gva {
    Gva(engine_va(USER_CODE).0 + TRAMPOLINE)
}

/// Where a function returns to at whose end a run ends: the program exits with status 0.
#[must_use]
pub const fn returned_entry() -> Gva {
    Gva(engine_va(USER_CODE).0 + RETURNED)
}

/// Whether `rip` is at, or just past, the gate's store. By range, because hosts differ in whether
/// RIP has moved on when a store exits.
#[must_use]
pub const fn in_syscall_gate(rip: u64) -> bool {
    let entry = syscall_entry().0;
    rip >= entry && rip <= entry + 9
}

/// The exception vector whose stub `rip` is in; by range, as above.
#[must_use]
pub fn vector_of(rip: u64) -> Option<u8> {
    let offset = rip.checked_sub(engine_va(STUBS).0)?;
    (offset < VECTORS * STUB_STRIDE).then_some((offset / STUB_STRIDE) as u8)
}

/// What the CPU pushed when an exception left CPL 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapFrame {
    /// The error code, for vectors that have one.
    pub error_code: Option<u32>,
    /// RIP of the interrupted instruction, or after it for a trap.
    pub rip: u64,
    /// CS.
    pub cs: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RSP.
    pub rsp: u64,
}

/// Reads the frame of an exception with `vector`, the stack pointer being `rsp` now. `None` when
/// the stack pointer is not where the CPU would have put it.
#[must_use]
pub fn read_frame(memory: &GuestMemory, vector: u8, rsp: u64) -> Option<TrapFrame> {
    let words = if exception::has_error_code(vector) { 6 } else { 5 };
    let base = STACK_TOP.0 - words * 8;
    if rsp != engine_va(Gpa(base)).0 {
        return None;
    }
    let word = |index: u64| memory.read_u64(Gpa(base + index * 8)).ok();
    let skip = words - 5;
    Some(TrapFrame {
        error_code: if skip == 1 { Some(word(0)? as u32) } else { None },
        rip: word(skip)?,
        cs: word(skip + 1)?,
        rflags: word(skip + 2)?,
        rsp: word(skip + 3)?,
    })
}

/// CR4.FSGSBASE (Intel SDM vol. 3, 2.5). The agent looks at the bases by itself. Programs are not
/// told of it (AT_HWCAP2), and what one does to them regardless is undone like any other change of a
/// segment.
pub const CR4_FSGSBASE: u64 = 1 << 16;

/// The special registers of a process guest at CPL 3. `template` gives what the engine does not
/// decide (APIC base).
#[must_use]
pub fn special_registers(
    template: &kvm_bindings::kvm_sregs,
    root: Gpa,
    osxsave: bool,
    fsgsbase: bool,
) -> kvm_bindings::kvm_sregs {
    use kvm_bindings::{kvm_dtable, kvm_segment};
    // PE, MP, ET, NE, WP, AM, PG.
    const CR0: u64 = 0x8005_0033;
    // PAE, OSFXSR, OSXMMEXCPT. Neither SMEP nor SMAP: the system-call gate is a user page that
    // runs at CPL 0 where SYSCALL changes the privilege.
    const CR4: u64 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    const CR4_OSXSAVE: u64 = 1 << 18;
    // SCE, LME, LMA, NXE.
    const EFER: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11;
    let null = kvm_segment { unusable: 1, ..Default::default() };
    kvm_bindings::kvm_sregs {
        cs: user_cs(),
        ss: user_ss(),
        ds: null,
        es: null,
        fs: null,
        gs: null,
        tr: kvm_segment {
            base: engine_va(TSS).0,
            limit: TSS_LIMIT,
            selector: TSS_SELECTOR,
            type_: 0xb,
            present: 1,
            ..Default::default()
        },
        ldt: null,
        gdt: kvm_dtable { base: engine_va(GDT).0, limit: GDT_LIMIT, ..Default::default() },
        idt: kvm_dtable { base: engine_va(IDT).0, limit: IDT_LIMIT, ..Default::default() },
        cr0: CR0,
        cr2: 0,
        cr3: root.0,
        cr4: CR4 | if osxsave { CR4_OSXSAVE } else { 0 } | if fsgsbase { CR4_FSGSBASE } else { 0 },
        cr8: 0,
        efer: EFER,
        ..*template
    }
}

/// CS at CPL 3.
#[must_use]
pub fn user_cs() -> kvm_bindings::kvm_segment {
    code(USER_CS, 3)
}

/// SS at CPL 3.
#[must_use]
pub fn user_ss() -> kvm_bindings::kvm_segment {
    data(USER_SS, 3)
}

/// CS at CPL 0.
#[must_use]
pub fn kernel_cs() -> kvm_bindings::kvm_segment {
    code(KERNEL_CS, 0)
}

/// SS at CPL 0.
#[must_use]
pub fn kernel_ss() -> kvm_bindings::kvm_segment {
    data(KERNEL_SS, 0)
}

fn code(selector: u16, dpl: u8) -> kvm_bindings::kvm_segment {
    kvm_bindings::kvm_segment { type_: 0xb, l: 1, db: 0, ..segment(selector, dpl) }
}

fn data(selector: u16, dpl: u8) -> kvm_bindings::kvm_segment {
    kvm_bindings::kvm_segment { type_: 3, l: 0, db: 1, ..segment(selector, dpl) }
}

fn segment(selector: u16, dpl: u8) -> kvm_bindings::kvm_segment {
    kvm_bindings::kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        present: 1,
        dpl,
        s: 1,
        g: 1,
        ..Default::default()
    }
}

/// The MSRs of a process guest: STAR's selectors, the gate, and the flags SYSCALL clears (TF, IF,
/// DF, IOPL, NT, AC: what Linux clears).
#[must_use]
pub fn msrs() -> [(u32, u64); 3] {
    const STAR: u32 = 0xc000_0081;
    const LSTAR: u32 = 0xc000_0082;
    const FMASK: u32 = 0xc000_0084;
    let star = u64::from(KERNEL_CS) << 32 | u64::from(KERNEL_SS | 3) << 48;
    [(STAR, star), (LSTAR, syscall_entry().0), (FMASK, 0x4_7700)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_are_recognised_by_range() {
        let page_fault = engine_va(STUBS).0 + 14 * STUB_STRIDE;
        assert_eq!(vector_of(page_fault), Some(14));
        assert_eq!(vector_of(page_fault + 2), Some(14), "some hosts show the next instruction");
        assert_eq!(vector_of(engine_va(STUBS).0 + 0x400), None);
        assert_eq!(vector_of(0), None);
        assert!(in_syscall_gate(syscall_entry().0 + 9));
        assert!(!in_syscall_gate(trampoline_entry().0));
    }

    #[test]
    fn the_trampoline_reaches_its_data() {
        use iced_x86::{Decoder, DecoderOptions};
        let code = trampoline();
        let at = trampoline_entry().0;
        let targets: Vec<u64> = Decoder::with_ip(64, &code, at, DecoderOptions::NONE)
            .iter()
            .map(|instruction| instruction.memory_displacement64())
            .collect();
        let resume = engine_va(RESUME).0;
        assert_eq!(targets, [engine_va(XSAVE_AREA).0, resume, resume + 8, resume + 16]);
    }
}
