//! What a fault tells its handler, and a trace: `siginfo_t` from what the CPU reported
//! (arch/x86/kernel/traps.c, arch/x86/mm/fault.c). Never decides which signal a fault is.

use crate::arch::exception;
use crate::linux::signal::siginfo::SigInfo;
use crate::outcome::{Fault, Signal};
use crate::xsave::{FCW_AT, FSW_AT, MXCSR_AT};

/// Codes of `SIGSEGV`: nothing is mapped there, or it may not be accessed so.
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const ILL_ILLOPN: i32 = 2;
const TRAP_TRACE: i32 = 2;
const FPE_INTDIV: i32 = 1;
const FPE_FLTDIV: i32 = 3;
const FPE_FLTOVF: i32 = 4;
const FPE_FLTUND: i32 = 5;
const FPE_FLTRES: i32 = 6;
const FPE_FLTINV: i32 = 7;

/// Floating-point exceptions, in the x87 status and control words and in MXCSR alike (Intel SDM
/// vol. 1, 8.1.3 and 10.2.3).
const INVALID: u32 = 1;
const DENORMAL: u32 = 1 << 1;
const ZERO_DIVIDE: u32 = 1 << 2;
const OVERFLOW: u32 = 1 << 3;
const UNDERFLOW: u32 = 1 << 4;
const PRECISION: u32 = 1 << 5;
/// Where MXCSR has the masks of its exception flags.
const MXCSR_MASKS_SHIFT: u32 = 7;

impl SigInfo {
    /// `siginfo_t` of a fault, as far as the fault itself tells: which floating-point exception it
    /// was only the CPU does. `is_mapped` says whether there is a mapping at an address.
    pub(crate) fn of_fault(fault: &Fault, is_mapped: impl Fn(u64) -> bool) -> Self {
        let signal = fault.signal.0;
        let at_rip = |code| Self::fault(signal, code, fault.rip);
        let address = fault.access.and_then(|access| access.address);
        match (fault.signal, fault.vector, address) {
            (Signal::FPE, ..) => at_rip(FPE_INTDIV),
            (Signal::ILL, ..) => at_rip(ILL_ILLOPN),
            (Signal::TRAP, Some(exception::DEBUG), _) => at_rip(TRAP_TRACE),
            (Signal::BUS, Some(exception::ALIGNMENT_CHECK), _) => {
                Self::fault(signal, BUS_ADRALN, 0)
            }
            (Signal::BUS, _, Some(address)) => Self::fault(signal, BUS_ADRERR, address),
            (Signal::SEGV, _, Some(address)) => {
                let code = if is_mapped(address) { SEGV_ACCERR } else { SEGV_MAPERR };
                Self::fault(signal, code, address)
            }
            // The kernel itself raised it, and gives no address.
            _ => Self::kernel(signal),
        }
    }
}

/// Which floating-point exception was not masked (`fpu__exception_code`, arch/x86/kernel/fpu).
pub(crate) fn float_code(extended: &[u8], is_x87: bool) -> i32 {
    let half = |at: usize| match extended.get(at..at + 2) {
        Some(bytes) => u32::from(bytes[0]) | u32::from(bytes[1]) << 8,
        None => 0,
    };
    let (control, status, mxcsr) = (half(FCW_AT), half(FSW_AT), half(MXCSR_AT));
    let raised = if is_x87 { status & !control } else { mxcsr & !(mxcsr >> MXCSR_MASKS_SHIFT) };
    match raised {
        raised if raised & INVALID != 0 => FPE_FLTINV,
        raised if raised & ZERO_DIVIDE != 0 => FPE_FLTDIV,
        raised if raised & OVERFLOW != 0 => FPE_FLTOVF,
        raised if raised & (UNDERFLOW | DENORMAL) != 0 => FPE_FLTUND,
        raised if raised & PRECISION != 0 => FPE_FLTRES,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Access, MemoryAccess};

    fn told(signal: Signal, vector: u8, address: Option<u64>) -> (i32, u64) {
        let access = address.map(|at| MemoryAccess { address: Some(at), kind: Access::Read });
        let fault = Fault { signal, rip: 0x40, access, vector: Some(vector), error_code: None };
        let info = SigInfo::of_fault(&fault, |at| at == 0x5000);
        (info.code, info.fields[0])
    }

    #[test]
    fn a_fault_tells_what_linux_tells() {
        assert_eq!(told(Signal::SEGV, 14, Some(8)), (SEGV_MAPERR, 8));
        assert_eq!(told(Signal::SEGV, 14, Some(0x5000)), (SEGV_ACCERR, 0x5000));
        assert_eq!(told(Signal::BUS, 14, Some(0x5000)), (BUS_ADRERR, 0x5000));
        assert_eq!(told(Signal::BUS, 17, None), (BUS_ADRALN, 0));
        assert_eq!(told(Signal::FPE, 0, None), (FPE_INTDIV, 0x40));
        assert_eq!(told(Signal::TRAP, 1, None), (TRAP_TRACE, 0x40));
        assert_eq!(told(Signal::TRAP, 3, None), (0x80, 0), "SI_KERNEL");
        assert_eq!(told(Signal::SEGV, 13, None), (0x80, 0), "SI_KERNEL");
    }
}
