//! A guest of either kind under one name, and the loop that steps it until it stops.
//!
//! Never interprets an exit: the two kinds' own drivers do.

use super::bare::BareDriver;
use super::error::MachineError;
use super::flow::{Flow, Stop};
use super::guest_state::GuestState;
use super::hardware::Hardware;
use super::process::ProcessDriver;
use super::watchdog::{Exits, Watchdog};
use crate::arch::control::RFLAGS_IF;
use crate::linux::process::Process;
use crate::outcome::Outcome;
use crate::rewind::Patches;
use crate::state::Reach;
use std::time::{Duration, Instant};

/// A guest of either kind.
#[derive(Debug)]
pub(super) enum Driver {
    Process(Box<ProcessDriver>),
    Bare(Box<BareDriver>),
}

impl Driver {
    pub(super) fn step(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
    ) -> Result<Flow, MachineError> {
        match self {
            Self::Process(driver) => driver.step(hw, patches),
            Self::Bare(driver) => driver.step(hw),
        }
    }

    pub(super) fn state(&self) -> GuestState {
        match self {
            Self::Process(driver) => GuestState::Process(Box::new(driver.state.clone())),
            Self::Bare(driver) => GuestState::Bare(driver.state.clone()),
        }
    }

    /// A guest that is to go on from `state`.
    pub(super) fn of(state: &GuestState) -> Result<Self, MachineError> {
        Ok(match state {
            GuestState::Process(state) => {
                Self::Process(Box::new(ProcessDriver::new((**state).clone())))
            }
            GuestState::Bare(state) => Self::Bare(Box::new(BareDriver::new(state.clone())?)),
        })
    }

    /// The kernel of a process guest.
    pub(super) fn process(&self) -> Option<&Process> {
        match self {
            Self::Process(driver) => Some(&driver.state.process),
            Self::Bare(_) => None,
        }
    }

    /// Copies a process's memory; false when it is not all readable, and for a bare guest.
    pub(super) fn read_virtual(&mut self, hw: &mut Hardware, at: u64, out: &mut [u8]) -> bool {
        use crate::guest::process::pages::ProcessPages;
        use crate::linux::mm::user_memory::UserMemory;
        let Self::Process(driver) = self else { return false };
        let tables = &mut driver.state.tables;
        let pages = ProcessPages { memory: &mut hw.memory, tables };
        pages.read(crate::address::Gva(at), out).is_ok()
    }

    /// The run's exits so far, `all` together: their time is the engine's and not the guest's.
    fn exits(&self, all: u64) -> Exits {
        let hits = match self {
            Self::Process(driver) => driver.hits.len() as u64,
            Self::Bare(_) => 0,
        };
        Exits { hits, others: all.saturating_sub(hits) }
    }

    /// What the guest can reach of its CPU.
    pub(super) const fn reach(&self) -> Reach {
        match self {
            Self::Process(_) => Reach::Program,
            Self::Bare(_) => Reach::Kernel,
        }
    }

    /// Whether the run took a #DB. Only asked of programs: no rule for others goes by it.
    pub(super) const fn debug_exception(&self) -> bool {
        match self {
            Self::Process(driver) => driver.debug_exception,
            Self::Bare(_) => true,
        }
    }

    /// Starts the time limit, and the time slices of a program.
    pub(super) fn arm(&mut self, watchdog: &Watchdog, now: Instant, limit: Option<Duration>) {
        match self {
            Self::Process(driver) => driver.arm(watchdog, now, limit),
            Self::Bare(_) => watchdog.arm(now, limit),
        }
    }

    /// Times that a program was interrupted to let its other threads or a timer go first.
    pub(super) const fn preemptions(&self) -> u64 {
        match self {
            Self::Process(driver) => driver.slices.preemptions,
            Self::Bare(_) => 0,
        }
    }

    /// Standard output and error so far.
    pub(super) fn output(&self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Process(driver) => {
                let process = &driver.state.process;
                (process.stdout().to_vec(), process.stderr().to_vec())
            }
            Self::Bare(driver) => (driver.console().to_vec(), Vec::new()),
        }
    }

    /// System calls of the run that were served.
    pub(super) const fn system_calls(&self) -> u64 {
        match self {
            Self::Process(driver) => driver.system_calls,
            Self::Bare(_) => 0,
        }
    }

    /// Faults and breakpoints of the run.
    pub(super) const fn traps(&self) -> u64 {
        match self {
            Self::Process(driver) => driver.traps,
            Self::Bare(_) => 0,
        }
    }
}

/// Steps `driver` until it stops or its time is over.
pub(super) fn drive(
    hw: &mut Hardware,
    driver: &mut Driver,
    patches: &mut Patches,
    watchdog: &Watchdog,
    exits: &mut u64,
) -> Result<Stop, MachineError> {
    loop {
        *exits += 1;
        match driver.step(hw, patches)? {
            Flow::Continue => {}
            Flow::Stop(stop) => return Ok(stop),
            Flow::Interrupted => {
                hw.vcpu.clear_kick();
                if halted_for_good(hw)? {
                    return Ok(Stop::Ended(Outcome::Halted));
                }
                if watchdog.expired(driver.exits(*exits)) {
                    return Ok(Stop::Ended(out_of_time(hw)?));
                }
                if watchdog.slice_is_over()
                    && let Driver::Process(driver) = driver
                    && let Flow::Stop(stop) = driver.end_slice(hw, watchdog)?
                {
                    return Ok(stop);
                }
            }
        }
    }
}

/// Whether the guest is in HLT with interrupts off. Only where the local APIC is in the kernel:
/// elsewhere HLT exits by itself.
pub(super) fn halted_for_good(hw: &Hardware) -> Result<bool, MachineError> {
    Ok(hw.parts.irqchip
        && hw.vcpu.regs().rflags & RFLAGS_IF == 0
        && hw.vcpu.fd_ref().mp_state()?.mp_state == kvm_bindings::KVM_MP_STATE_HALTED)
}

/// A guest that waits in HLT for an interrupt that never comes has halted; it is not too slow.
pub(super) fn out_of_time(hw: &mut Hardware) -> Result<Outcome, MachineError> {
    let halted =
        hw.parts.irqchip && hw.vcpu.fd().mp_state()?.mp_state == kvm_bindings::KVM_MP_STATE_HALTED;
    Ok(if halted { Outcome::Halted } else { Outcome::TimedOut })
}

/// The error of a machine whose driver and snapshot are of different kinds of guest.
pub(super) const fn other_kind() -> MachineError {
    MachineError::Invariant("a machine's driver and its snapshot are of one kind of guest")
}
