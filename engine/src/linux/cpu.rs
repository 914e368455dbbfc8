//! The boundary between a process and the CPU that runs it: what signals and threads save, change
//! and put back.
//!
//! Never knows a vCPU: what stands behind the trait is the machine's (or, in unit tests, a plain
//! value).

use crate::arch::control::{MXCSR_INITIAL, X87_CONTROL_INITIAL};
use crate::linux::abi::registers::Registers;
use crate::linux::abi::syscall::SYSCALL_BYTES;
use crate::xsave::{FCW_AT, LEGACY_BYTES, MXCSR_AT};
use serde::{Deserialize, Serialize};

/// The CPU's state as the program left it: after its system call, or at the instruction that
/// faulted.
pub trait Cpu {
    /// General registers. RIP is below 2^47.
    fn registers(&self) -> Registers;

    /// Has the program go on with these. RIP is below 2^47.
    fn set_registers(&mut self, regs: &Registers);

    /// Bases of FS and GS.
    fn bases(&self) -> [u64; 2];

    /// Loads the bases of FS and GS: user addresses.
    fn set_bases(&mut self, bases: [u64; 2]);

    /// What the program has of extended state.
    fn extended_layout(&mut self) -> ExtendedLayout;

    /// Extended state, `extended_layout().bytes` of it, in the standard format of XSAVE (Intel SDM
    /// vol. 1, 13.4).
    fn extended(&mut self) -> Vec<u8>;

    /// The registers now stand before a system call that the program has made: its instruction
    /// must be there.
    fn note_again(&mut self) {}

    /// Loads extended state in the standard format. XSTATE_BV has no bit that the layout has not,
    /// the rest of the header is zero, and MXCSR has no bit that [`MXCSR_MASK`](crate::arch::control::MXCSR_MASK) has not.
    fn set_extended(&mut self, area: &[u8]);
}

/// Has the program make its system call again, the number of which is `nr`.
pub(crate) fn make_again(cpu: &mut dyn Cpu, nr: u64) {
    let regs = cpu.registers();
    let rip = regs.rip.wrapping_sub(SYSCALL_BYTES);
    cpu.set_registers(&Registers { rax: nr, rip, ..regs });
    cpu.note_again();
}

/// Which extended state there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendedLayout {
    /// XCR0; 0 on a CPU without XSAVE, which has x87 and SSE alone.
    pub features: u64,
    /// Bytes of the area: 512 without XSAVE, else 576 and more.
    pub bytes: usize,
}

/// A thread's CPU state while another one runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) regs: Registers,
    bases: [u64; 2],
    extended: Vec<u8>,
}

impl Context {
    pub(crate) fn save(cpu: &mut dyn Cpu) -> Self {
        Self { regs: cpu.registers(), bases: cpu.bases(), extended: cpu.extended() }
    }

    pub(crate) fn load(&self, cpu: &mut dyn Cpu) {
        cpu.set_registers(&self.regs);
        cpu.set_bases(self.bases);
        cpu.set_extended(&self.extended);
    }

    /// A new thread's: the same but for what RAX, RSP and the FS base are.
    pub(crate) fn child(cpu: &mut dyn Cpu, stack: u64, fs_base: Option<u64>) -> Self {
        let mut child = Self::save(cpu);
        child.regs.rax = 0;
        if stack != 0 {
            child.regs.rsp = stack;
        }
        if let Some(base) = fs_base {
            child.bases[0] = base;
        }
        child
    }
}

/// Extended state as a program starts with it (Intel SDM vol. 1, 13.6): what a signal handler
/// finds.
pub(crate) fn initial_extended(layout: ExtendedLayout) -> Vec<u8> {
    let mut area = vec![0; layout.bytes.max(LEGACY_BYTES)];
    area[FCW_AT..][..2].copy_from_slice(&X87_CONTROL_INITIAL.to_le_bytes());
    area[MXCSR_AT..][..4].copy_from_slice(&MXCSR_INITIAL.to_le_bytes());
    area
}
