//! The registers of one frame while it is unwound, and memory to unwind it from.
//!
//! Never knows a rule.

use crate::symbols::stack::UnwindRegisters;
use gimli::{Register, X86_64};

/// Reads guest memory at a virtual address; false where there is none.
pub(super) type Read<'r> = dyn FnMut(u64, &mut [u8]) -> bool + 'r;

/// DWARF numbers 16 registers and the return address.
const REGISTERS: usize = 17;

/// Register values by DWARF number; `None` where a value is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Values([Option<u64>; REGISTERS]);

impl Values {
    pub(super) fn new(from: &UnwindRegisters) -> Self {
        let mut values = Self([None; REGISTERS]);
        for (register, value) in [
            (X86_64::RA, from.rip),
            (X86_64::RSP, from.rsp),
            (X86_64::RBP, from.rbp),
            (X86_64::RBX, from.rbx),
            (X86_64::R12, from.r12),
            (X86_64::R13, from.r13),
            (X86_64::R14, from.r14),
            (X86_64::R15, from.r15),
        ] {
            values.set(register, Some(value));
        }
        values
    }

    pub(super) fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied().flatten()
    }

    pub(super) fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(slot) = self.0.get_mut(usize::from(register.0)) {
            *slot = value;
        }
    }
}

/// The word at `at`.
pub(super) fn read_u64(read: &mut Read<'_>, at: u64) -> Option<u64> {
    let mut word = [0; 8];
    (at.checked_add(8).is_some() && read(at, &mut word)).then(|| u64::from_le_bytes(word))
}
