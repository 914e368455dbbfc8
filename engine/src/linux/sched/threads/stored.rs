//! The threads as a snapshot file has them, which nobody vouches for: what they must be like to be
//! taken.
//!
//! Never mends them: threads that no process can have are refused.

use crate::linux::base::limits::Refused;
use crate::linux::mm::bounds::USER_RIP_END;
use crate::linux::sched::thread::{PENDING_MAX, THREADS_MAX, Thread};
use crate::linux::sched::timers::Timers;
use crate::linux::signal::siginfo::SigInfo;
use serde::Deserialize;

/// [`Threads`](super::Threads) before they are checked.
#[derive(Deserialize)]
pub(super) struct StoredThreads {
    pub(super) list: Vec<Thread>,
    pub(super) current: usize,
    pub(super) next_id: u64,
    pub(super) calls: u64,
    pub(super) pending: Vec<SigInfo>,
    pub(super) timers: Timers,
    pub(super) status: Option<u8>,
}

impl StoredThreads {
    /// Checks everything that the threads' methods rely on.
    pub(super) fn check(&self) -> Result<(), Refused> {
        let Self { list, current, pending, timers, .. } = self;
        let waiting = list.iter().enumerate().all(|(i, t)| t.context.is_none() == (i == *current));
        if list.len() > THREADS_MAX || *current >= list.len() || !waiting {
            return Err("threads of which not exactly one runs");
        }
        let signals = list.iter().flat_map(|thread| &thread.pending).chain(pending);
        if signals.into_iter().any(|info| !(1..=64).contains(&info.signal)) {
            return Err("a pending signal that does not exist");
        }
        let lines = list.iter().map(|thread| &thread.pending).chain([pending]);
        if lines.into_iter().any(|line| line.len() > PENDING_MAX) || timers.are_too_many() {
            return Err("more pending signals or timers than a program may have");
        }
        let rips = list.iter().filter_map(|thread| thread.context.as_ref());
        if rips.into_iter().any(|context| context.regs.rip >= USER_RIP_END) {
            return Err("a thread outside of user space");
        }
        Ok(())
    }
}
