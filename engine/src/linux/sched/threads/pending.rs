//! Signals that wait to be taken: a thread's own, and those for any thread.
//!
//! Never decides whose a signal is, nor what it does: `delivery` does.

use crate::linux::sched::thread::{PENDING_MAX, Thread};
use crate::linux::sched::threads::Threads;
use crate::linux::signal::action::bit;
use crate::linux::signal::siginfo::SigInfo;

/// Signals that a fault raises; they are delivered before others (`SYNCHRONOUS_MASK`).
const SYNCHRONOUS: [i32; 6] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP, libc::SIGFPE, libc::SIGSYS];

impl Threads {
    /// Whether a signal of `set` waits that `thread` can take.
    pub(crate) fn has_pending(&self, thread: &Thread, set: u64) -> bool {
        let mut all = thread.pending.iter().chain(&self.pending);
        all.any(|info| bit(info.signal) & set != 0)
    }

    /// Puts a signal into line, for the thread with this id or for any; false if there are too
    /// many. A standard signal that waits already is not put there twice.
    pub(crate) fn queue(&mut self, info: SigInfo, thread: Option<u64>) -> bool {
        let queue = match thread.and_then(|id| self.list.iter_mut().find(|t| t.id == id)) {
            Some(thread) => &mut thread.pending,
            None => &mut self.pending,
        };
        let is_there = info.signal < 32 && queue.iter().any(|other| other.signal == info.signal);
        if !is_there && queue.len() >= PENDING_MAX {
            return false;
        }
        if !is_there {
            queue.push(info);
        }
        true
    }

    /// Takes the next signal of `set` for the running thread: faults first, then by number; the
    /// thread's own first.
    pub(crate) fn take_signal(&mut self, set: u64) -> Option<SigInfo> {
        let own = next_in(&self.current().pending, set);
        if let Some(index) = own {
            return Some(self.current_mut().pending.remove(index));
        }
        let index = next_in(&self.pending, set)?;
        Some(self.pending.remove(index))
    }

    /// Forgets pending signals with this number: it is ignored from now on.
    pub(crate) fn forget_signal(&mut self, signal: u8) {
        self.pending.retain(|info| info.signal != signal);
        for thread in &mut self.list {
            thread.pending.retain(|info| info.signal != signal);
        }
    }
}

fn next_in(queue: &[SigInfo], set: u64) -> Option<usize> {
    let allowed = queue.iter().enumerate().filter(|(_, info)| bit(info.signal) & set != 0);
    let order = |info: &SigInfo| (!SYNCHRONOUS.contains(&i32::from(info.signal)), info.signal);
    allowed.min_by_key(|(_, info)| order(info)).map(|(index, _)| index)
}
