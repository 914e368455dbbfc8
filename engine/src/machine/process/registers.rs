//! The registers with which a program goes on. Never chooses them.

use crate::guest::process::trap;
use crate::machine::hardware::Hardware;
use kvm_bindings::{kvm_regs, kvm_sregs};

/// Puts the vCPU at `regs` in the program; CS and SS too, where an exit left the stub's.
pub(super) fn stand_at(hw: &mut Hardware, regs: kvm_regs) {
    *hw.vcpu.regs_mut() = regs;
    if hw.vcpu.sregs().cs.selector != trap::USER_CS || hw.vcpu.sregs().ss.selector != trap::USER_SS
    {
        let sregs: &mut kvm_sregs = hw.vcpu.sregs_mut();
        sregs.cs = trap::user_cs();
        sregs.ss = trap::user_ss();
    }
}

/// Whether RIP may be loaded with `at`: hardware refuses to enter a guest otherwise.
pub(super) const fn is_user_address(at: u64) -> bool {
    at < 1 << USER_ADDRESS_BITS
}

/// The lower half of the canonical addresses (Intel SDM vol. 1, 3.3.7.1).
const USER_ADDRESS_BITS: u32 = 47;
