//! How a run may be limited, and what it did. Never runs anything.

use crate::outcome::Outcome;
use kvm_bindings::kvm_regs;
use std::time::Duration;

/// How a run may be limited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limit {
    /// Wall-clock time; late by at most 2 ms.
    pub time: Option<Duration>,
}

impl Limit {
    /// A limit on time.
    #[must_use]
    pub fn time(limit: Duration) -> Self {
        Self { time: Some(limit) }
    }
}

/// What one run did.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// Why it ended.
    pub outcome: Outcome,
    /// The program's general registers when it ended; at a fault, those of the faulting
    /// instruction.
    pub regs: kvm_regs,
    /// Returns of `KVM_RUN`.
    pub exits: u64,
    /// System calls that were served.
    pub system_calls: u64,
    /// Faults and breakpoints that were taken.
    pub traps: u64,
    /// Times that a program which made no system call for long was interrupted, to let its other
    /// threads or a timer go first. Such a run need not repeat exactly; every other one does.
    pub preemptions: u64,
    /// Wall-clock time of the run.
    pub duration: Duration,
}
