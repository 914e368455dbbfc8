//! Where the engine's own pages lie, in guest-physical memory and in the address space, and the
//! selectors of its segments. Never writes one.

use crate::address::{Gpa, Gva};

/// First virtual address of the engine's part of the address space. It has a top-level entry
/// (512 GiB) to itself.
pub const ENGINE_BASE: u64 = 0x7f00_0000_0000;
/// End of the engine's part.
pub const ENGINE_END: u64 = 0x7f80_0000_0000;
/// Length in bytes of the slot that holds the engine's pages and all page tables.
pub const ENGINE_BYTES: u64 = 16 << 20;
/// Where the program's memory starts in guest-physical space: above the 32-bit MMIO hole, and at
/// a multiple of 1 GiB.
pub const USER_BASE: Gpa = Gpa(1 << 32);

pub(super) const GDT: Gpa = Gpa(0x1000);
pub(super) const TSS: Gpa = Gpa(0x1800);
pub(super) const IDT: Gpa = Gpa(0x2000);
pub(super) const STUBS: Gpa = Gpa(0x3000);
/// The exception stack: the CPU pushes its frame at the top.
pub const STACK: Gpa = Gpa(0x4000);
pub(super) const STACK_TOP: Gpa = Gpa(0x5000);
pub(super) const USER_CODE: Gpa = Gpa(0x5000);
/// The XSAVE area that the trampoline loads; read-only to the program.
pub const XSAVE_AREA: Gpa = Gpa(0x6000);
/// What the trampoline loads after it: RAX, RDX and RIP. Written before every run.
pub const RESUME: Gpa = Gpa(0x7000);
/// The records of the entries that the guest rewrites; see `rewrite`.
pub(super) const REWRITES: Gpa = Gpa(0x8000);
pub(super) const REWRITES_BYTES: u64 = 0x8000;
pub(super) const ARENA: Gpa = Gpa(0x1_0000);

/// The guest-physical page that is no memory: a store to it is the cheapest exit from CPL 3 on
/// hosts where a port access faults there.
pub const GATE: Gpa = Gpa(0xf000_0000);
/// Where [`GATE`] is in the address space; a program may store to it, to no effect.
pub const GATE_AT: u64 = ENGINE_BASE + 0x1000_0000;

/// Port that the exception stubs write to.
pub const PORT_TRAP: u16 = 0xe1;
/// Bytes from one exception stub to the next.
pub(super) const STUB_STRIDE: u64 = 16;
pub(super) const VECTORS: u64 = 32;
/// Kernel code segment.
pub const KERNEL_CS: u16 = 0x08;
/// Kernel data segment.
pub const KERNEL_SS: u16 = 0x10;
/// User data segment; the order is that which SYSRET and Linux use.
pub const USER_SS: u16 = 0x1b;
/// User code segment.
pub const USER_CS: u16 = 0x23;
pub(super) const TSS_SELECTOR: u16 = 0x28;

/// The virtual address of one of the engine's pages.
#[must_use]
pub const fn engine_va(at: Gpa) -> Gva {
    Gva(ENGINE_BASE + at.0)
}
