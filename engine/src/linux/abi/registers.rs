//! The general registers of a program, and which flags it may set. Never reads them from a CPU.

use crate::arch::control::{RFLAGS_IF, RFLAGS_RESERVED};
use serde::{Deserialize, Serialize};

/// General registers, RIP and RFLAGS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each is the register of its name (Intel SDM vol. 1, 3.4)")]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// The flags that a program may set for itself (what POPF at CPL 3 changes, and ID).
const USER_FLAGS: u64 = 0x0024_4dd5;
/// The flags a program may resume with, from what it has asked for: interrupts are enabled, as a
/// program sees it on Linux.
#[must_use]
pub const fn user_flags(asked: u64) -> u64 {
    asked & USER_FLAGS | RFLAGS_RESERVED | RFLAGS_IF
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_cannot_raise_its_own_privilege_through_flags() {
        const IOPL: u64 = 3 << 12;
        const VM: u64 = 1 << 17;
        assert_eq!(user_flags(u64::MAX) & (IOPL | VM), 0);
        assert_eq!(user_flags(0), RFLAGS_RESERVED | RFLAGS_IF);
    }
}
