//! Which signal an exception at CPL 3 is, and its facts. Never ends a run.

use crate::arch::exception as vector;
use crate::guest::process::trap::TrapFrame;
use crate::outcome::{Access, Fault, MemoryAccess, Signal};

/// The fault of a program that was to go on at an address that no program can have.
pub(super) fn non_canonical(rip: u64) -> Fault {
    Fault {
        signal: Signal::SEGV,
        rip,
        access: Some(MemoryAccess { address: Some(rip), kind: Access::Execute }),
        vector: None,
        error_code: None,
    }
}

/// The access behind a page fault's error code (Intel SDM vol. 3, figure 4-12).
pub(super) const fn access_of(error_code: u32) -> Access {
    if error_code & vector::PAGE_FAULT_FETCH != 0 {
        Access::Execute
    } else if error_code & vector::PAGE_FAULT_WRITE != 0 {
        Access::Write
    } else {
        Access::Read
    }
}

/// The fault of an access to `address` that ended in a page fault.
pub(super) fn of_page(signal: Signal, address: u64, kind: Access, frame: &TrapFrame) -> Fault {
    Fault {
        signal,
        rip: frame.rip,
        access: Some(MemoryAccess { address: Some(address), kind }),
        vector: Some(vector::PAGE_FAULT),
        error_code: frame.error_code,
    }
}

/// The signal that Linux raises for an exception at CPL 3 (arch/x86/kernel/traps.c).
pub(super) fn fault_of(number: u8, frame: &TrapFrame) -> Fault {
    let signal = match number {
        vector::DIVIDE_ERROR | vector::X87_FLOATING_POINT | vector::SIMD_FLOATING_POINT => {
            Signal::FPE
        }
        vector::DEBUG => Signal::TRAP,
        vector::INVALID_OPCODE => Signal::ILL,
        vector::SEGMENT_NOT_PRESENT | vector::STACK_FAULT | vector::ALIGNMENT_CHECK => Signal::BUS,
        _ => Signal::SEGV,
    };
    let access = (number == vector::GENERAL_PROTECTION)
        .then_some(MemoryAccess { address: None, kind: Access::Read });
    Fault { signal, rip: frame.rip, access, vector: Some(number), error_code: frame.error_code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_become_the_signals_that_linux_raises() {
        let frame = TrapFrame { error_code: None, rip: 1, cs: 0x23, rflags: 2, rsp: 0 };
        let signal = |vector| fault_of(vector, &frame).signal;
        assert_eq!(signal(vector::DIVIDE_ERROR), Signal::FPE);
        assert_eq!(signal(vector::INVALID_OPCODE), Signal::ILL);
        assert_eq!(signal(vector::GENERAL_PROTECTION), Signal::SEGV);
        assert_eq!(signal(vector::ALIGNMENT_CHECK), Signal::BUS);
        assert_eq!(access_of(0x15), Access::Execute);
        assert_eq!(access_of(7), Access::Write);
        assert_eq!(access_of(4), Access::Read);
    }
}
