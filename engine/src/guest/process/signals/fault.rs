//! Faults: from what the CPU reported to the signal that a handler is told of. Never decides
//! whether one runs.

use super::super::cpu::Cpu;
use super::super::memory::UserMemory;
use super::super::{Process, Verdict};
use super::info::Info;
use crate::outcome::{Fault, Signal};

/// Codes of `SIGSEGV`: nothing is mapped there, or it may not be accessed so.
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRALN: i32 = 1;
const BUS_ADRERR: i32 = 2;
const ILL_ILLOPN: i32 = 2;
const TRAP_TRACE: i32 = 2;
const FPE_INTDIV: i32 = 1;

impl Process {
    /// A fault of the running thread: the way into its handler, or the end by its signal.
    pub fn fault(
        &mut self,
        fault: &Fault,
        cr2: u64,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> Verdict {
        let info = self.describe(fault, cpu);
        let thread = self.threads.current_mut();
        thread.trap.vector = fault.vector.map_or(0, u64::from);
        thread.trap.error_code = fault.error_code.map_or(0, u64::from);
        if fault.vector == Some(14) {
            thread.trap.address = cr2;
        }
        let verdict = self.force(&info, mem, cpu);
        self.settle_growth();
        verdict
    }

    /// `siginfo_t` of a fault (arch/x86/kernel/traps.c, arch/x86/mm/fault.c).
    fn describe(&self, fault: &Fault, cpu: &mut dyn Cpu) -> Info {
        let signal = fault.signal.0;
        let at_rip = |code| Info::fault(signal, code, fault.rip);
        let address = fault.access.and_then(|access| access.address);
        match (fault.vector, address) {
            (Some(0), _) => at_rip(FPE_INTDIV),
            (Some(1), _) => at_rip(TRAP_TRACE),
            (Some(6), _) => at_rip(ILL_ILLOPN),
            (Some(16 | 19), _) => at_rip(float_code(&cpu.extended(), fault.vector == Some(16))),
            (Some(17), _) => Info::fault(signal, BUS_ADRALN, 0),
            (_, Some(address)) if fault.signal == Signal::BUS => {
                Info::fault(signal, BUS_ADRERR, address)
            }
            (_, Some(address)) => {
                let is_mapped = self.space.area_at(address).is_some();
                Info::fault(signal, if is_mapped { SEGV_ACCERR } else { SEGV_MAPERR }, address)
            }
            _ => Info::kernel(signal),
        }
    }
}

/// Which floating-point exception was not masked (`fpu__exception_code`, arch/x86/kernel/fpu).
fn float_code(extended: &[u8], is_x87: bool) -> i32 {
    let half = |at: usize| match extended.get(at..at + 2) {
        Some(bytes) => u32::from(bytes[0]) | u32::from(bytes[1]) << 8,
        None => 0,
    };
    let raised = if is_x87 { half(2) & !half(0) } else { half(24) & !(half(24) >> 7) };
    match raised {
        raised if raised & 1 != 0 => 7,
        raised if raised & 4 != 0 => 3,
        raised if raised & 8 != 0 => 4,
        raised if raised & 0x12 != 0 => 5,
        raised if raised & 0x20 != 0 => 6,
        _ => 0,
    }
}
