//! An exception of a program's, off the stack that the CPU pushed it to. Never answers it.

use super::fault::access_of;
use crate::address::PAGE_SIZE;
use crate::guest::process::trap::{self, TrapFrame};
use crate::machine::error::MachineError;
use crate::machine::hardware::Hardware;
use crate::outcome::{Access, Unsupported};
use kvm_bindings::kvm_regs;

/// An exception of the program's.
pub(super) struct Exception {
    pub(super) vector: u8,
    /// What the CPU pushed.
    pub(super) frame: TrapFrame,
    /// The registers to go on with after it.
    pub(super) back: kvm_regs,
}

impl Exception {
    /// What a page fault's access tried to do.
    pub(super) fn access(&self) -> Result<Access, MachineError> {
        let code = self.frame.error_code;
        let missing = MachineError::Invariant("a page fault has an error code");
        code.map(access_of).ok_or(missing)
    }
}

/// What was on the exception stack.
pub(super) enum Taken {
    Exception(Exception),
    /// The stack pointer is not where the CPU would have put it: what the exit was instead.
    Unsupported(Unsupported),
}

/// What the CPU pushed for an exception.
pub(super) fn take_exception(hw: &mut Hardware, vector: u8) -> Result<Taken, MachineError> {
    // The CPU wrote the frame, into a slot without dirty log.
    hw.memory.mark(trap::STACK, PAGE_SIZE)?;
    let regs = *hw.vcpu.regs();
    let Some(frame) = trap::read_frame(&hw.memory, vector, regs.rsp) else {
        let detail = [u64::from(vector), regs.rsp];
        let reason = kvm_bindings::KVM_EXIT_EXCEPTION;
        return Ok(Taken::Unsupported(Unsupported::Exit { reason, detail }));
    };
    let (rip, rsp, rflags) = (frame.rip, frame.rsp, trap::user_flags(frame.rflags));
    let back = kvm_regs { rip, rsp, rflags, ..regs };
    Ok(Taken::Exception(Exception { vector, frame, back }))
}
