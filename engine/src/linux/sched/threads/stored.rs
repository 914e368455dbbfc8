//! The threads as a snapshot file has them, which nobody vouches for: what they must be like to be
//! taken.
//!
//! Never mends them: threads that no process can have are refused.

use crate::linux::mm::bounds::USER_RIP_END;
use crate::linux::sched::thread::Thread;
use crate::linux::sched::threads::pending::PENDING_MAX;
use crate::linux::sched::threads::{THREADS_MAX, Threads};
use crate::linux::sched::timers::Timers;
use crate::linux::signal::siginfo::SigInfo;
use serde::Deserialize;

/// [`Threads`] before they are checked.
#[derive(Deserialize)]
pub(crate) struct Stored {
    list: Vec<Thread>,
    current: usize,
    next_id: u64,
    calls: u64,
    pending: Vec<SigInfo>,
    timers: Timers,
    status: Option<u8>,
}

impl TryFrom<Stored> for Threads {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let Stored { list, current, next_id, calls, pending, timers, status } = stored;
        let waiting = list.iter().enumerate().all(|(i, t)| t.context.is_none() == (i == current));
        if list.len() > THREADS_MAX || current >= list.len() || !waiting {
            return Err("threads of which not exactly one runs");
        }
        let signals = list.iter().flat_map(|thread| &thread.pending).chain(&pending);
        if signals.into_iter().any(|info| !(1..=64).contains(&info.signal)) {
            return Err("a pending signal that does not exist");
        }
        let lines = list.iter().map(|thread| &thread.pending).chain([&pending]);
        if lines.into_iter().any(|line| line.len() > PENDING_MAX) || timers.are_too_many() {
            return Err("more pending signals or timers than a program may have");
        }
        let rips = list.iter().filter_map(|thread| thread.context.as_ref());
        if rips.into_iter().any(|context| context.regs.rip >= USER_RIP_END) {
            return Err("a thread outside of user space");
        }
        Ok(Self { list, current, next_id, calls, pending, timers, status })
    }
}
