//! Faults: from what the CPU reported to what a signal tells its handler, and a trace
//! (arch/x86/kernel/traps.c, arch/x86/mm/fault.c). Never decides which signal a fault is, nor
//! whether a handler runs.

use crate::arch::exception;
use crate::linux::abi::syscall::SyscallAction;
use crate::linux::cpu::Cpu;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::signal::fault::float_code;
use crate::linux::signal::siginfo::SigInfo;
use crate::outcome::Fault;

impl Process {
    /// A fault of the running thread: the way into its handler, or the end by its signal.
    pub fn fault(
        &mut self,
        fault: &Fault,
        cr2: u64,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallAction {
        let info = self.describe(fault, cpu);
        let thread = self.threads.current_mut();
        thread.trap.vector = fault.vector.map_or(0, u64::from);
        thread.trap.error_code = fault.error_code.map_or(0, u64::from);
        if fault.vector == Some(exception::PAGE_FAULT) {
            thread.trap.address = cr2;
        }
        let action = self.force(&info, mem, cpu);
        self.settle_growth();
        action
    }

    /// `siginfo_t` of a fault of the running thread.
    fn describe(&self, fault: &Fault, cpu: &mut dyn Cpu) -> SigInfo {
        match fault.vector {
            Some(vector @ (exception::X87_FLOATING_POINT | exception::SIMD_FLOATING_POINT)) => {
                let is_x87 = vector == exception::X87_FLOATING_POINT;
                let code = float_code(&cpu.extended(), is_x87);
                SigInfo::fault(fault.signal.0, code, fault.rip)
            }
            _ => SigInfo::of_fault(fault, |at| self.space.vma_at(at).is_some()),
        }
    }
}
