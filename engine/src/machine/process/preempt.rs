//! Time slices: a program that goes on for long without a system call lets its other threads go
//! first, and its timers expire.
//!
//! Where a run is interrupted depends on the host's clock, so that it need not repeat exactly; a run
//! of less than a slice, or of one thread without timers, is never interrupted. Never chooses who
//! goes on: that is `linux`.

use super::cpu::ProgramCpu;
use super::driver::{ProcessDriver, Slices};
use super::served::{Served, served};
use super::state::ProcessState;
use crate::guest::process::pages::ProcessPages;
use crate::guest::process::trap;
use crate::machine::error::MachineError;
use crate::machine::flow::{Flow, Stop};
use crate::machine::hardware::Hardware;
use crate::machine::watchdog::Watchdog;
use std::time::{Duration, Instant};

/// The first slice is this part of the time limit, and at most [`FIRST_MAX`]: what comes to its end
/// by itself should do so undisturbed.
const FIRST_PART: u32 = 8;
const FIRST_MAX: Duration = Duration::from_millis(500);
/// The slices after one that was used up.
const NEXT: Duration = Duration::from_millis(4);

impl ProcessDriver {
    /// Starts the limit of a run, and its first slice.
    pub(in crate::machine) fn arm(
        &mut self,
        watchdog: &Watchdog,
        now: Instant,
        limit: Option<Duration>,
    ) {
        let length = limit.map_or(FIRST_MAX, |limit| FIRST_MAX.min(limit / FIRST_PART));
        self.slices = Slices { length, ..Slices::default() };
        watchdog.arm_with_slices(now, limit, length);
    }

    /// The vCPU was interrupted, and the slice is over: begins the next, in which another thread or
    /// a handler may run.
    pub(in crate::machine) fn end_slice(
        &mut self,
        hw: &mut Hardware,
        watchdog: &Watchdog,
    ) -> Result<Flow, MachineError> {
        let Slices { length, system_calls, .. } = self.slices;
        let is_used_up = system_calls == self.system_calls
            && self.state.process.has_slices()
            && is_in_program(hw)?;
        let flow = if is_used_up { self.preempt(hw, length)? } else { Flow::Continue };
        self.slices.system_calls = self.system_calls;
        watchdog.set_slice(Instant::now(), self.slices.length);
        Ok(flow)
    }

    fn preempt(&mut self, hw: &mut Hardware, length: Duration) -> Result<Flow, MachineError> {
        if self.under_detours {
            // A handler would see where that is.
            return Ok(Flow::Stop(Stop::OffDetours));
        }
        self.slices.preemptions += 1;
        self.slices.length = length.min(NEXT);
        let rip = hw.vcpu.regs().rip;
        let ProcessState { process, tables, .. } = &mut self.state;
        let mut pages = ProcessPages { memory: &mut hw.memory, tables };
        let mut cpu = ProgramCpu::new(&mut hw.vcpu, &self.extended, None);
        let verdict = process.end_slice(length.as_nanos() as u64, &mut pages, &mut cpu);
        let done = cpu.finish()?;
        match served(verdict, done, rip) {
            // The end of a slice is no call: the registers stay as they are.
            Served::Value(_) => Ok(Flow::Continue),
            Served::Elsewhere(done) => self.go_elsewhere(hw, done),
            Served::End(outcome) => Ok(Flow::end(outcome)),
        }
    }
}

/// Whether the vCPU stands in the program's code, and is not just about to take an exception: where
/// its registers are the running thread's and all that there is of it.
fn is_in_program(hw: &Hardware) -> Result<bool, MachineError> {
    let is_engines = (trap::ENGINE_BASE..trap::ENGINE_END).contains(&hw.vcpu.regs().rip);
    if hw.vcpu.sregs().cs.selector != trap::USER_CS || is_engines {
        return Ok(false);
    }
    let events = hw.vcpu.fd_ref().events()?;
    Ok(events.exception.injected == 0 && events.exception.pending == 0 && events.nmi.injected == 0)
}
