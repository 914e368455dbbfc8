//! Bits and values of control and flag registers (Intel SDM vol. 3, 2.2.1, 2.3 and 2.5; vol. 1,
//! 3.4.3, 8.1.5 and 10.2.3).
//!
//! Never decides which a guest has.

/// CR0: protected mode.
pub const CR0_PE: u64 = 1;
/// CR0: WAIT obeys CR0.TS.
pub const CR0_MP: u64 = 1 << 1;
/// CR0: there is no x87, and so no SSE.
pub const CR0_EM: u64 = 1 << 2;
/// CR0: x87 exceptions are #MF.
pub const CR0_NE: u64 = 1 << 5;
/// CR0: CPL 0 obeys read-only pages too.
pub const CR0_WP: u64 = 1 << 16;
/// CR0: not write-through.
pub const CR0_NW: u64 = 1 << 29;
/// CR0: the caches are off.
pub const CR0_CD: u64 = 1 << 30;
/// CR0: paging.
pub const CR0_PG: u64 = 1 << 31;

/// CR4: RDTSC faults at CPL 3.
pub const CR4_TSD: u64 = 1 << 2;
/// CR4: page-table entries of 64 bits.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4: FXSAVE, and with it SSE.
pub const CR4_OSFXSR: u64 = 1 << 9;
/// CR4: unmasked SIMD floating-point exceptions are #XM.
pub const CR4_OSXMMEXCPT: u64 = 1 << 10;

/// EFER: long mode is enabled.
pub const EFER_LME: u64 = 1 << 8;
/// EFER: long mode is active.
pub const EFER_LMA: u64 = 1 << 10;

/// RFLAGS: the bit that is always 1.
pub const RFLAGS_RESERVED: u64 = 1 << 1;
/// RFLAGS: maskable interrupts are taken.
pub const RFLAGS_IF: u64 = 1 << 9;

/// The x87 control word that FNINIT leaves: every exception masked.
pub const X87_CONTROL_INITIAL: u16 = 0x037f;
/// MXCSR after a reset: every exception masked.
pub const MXCSR_INITIAL: u32 = 0x1f80;
/// The bits that MXCSR may have.
pub const MXCSR_MASK: u32 = 0xffff;
