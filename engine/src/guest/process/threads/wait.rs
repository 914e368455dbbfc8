//! Waits: what a thread waits for, what ends it, and which thread goes on next.
//!
//! Never switches to a thread and never lets time pass: `calls::schedule` does.

use super::{Thread, Threads};
use serde::{Deserialize, Serialize};

/// What a thread waits for, besides a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) enum Cause {
    /// To be woken at a futex word, by a waker of one of these kinds.
    Futex {
        /// Address of the word.
        at: u64,
        /// `FUTEX_BITSET_*`.
        bits: u32,
    },
    /// One of these signals, which `rt_sigtimedwait` then takes.
    Signals(u64),
    /// Something that only another thread can do; then the call is made again.
    Others {
        /// Calls that had been made when this one was.
        calls: u64,
    },
    /// Nothing: it lets the others go first.
    Yield,
    /// Nothing but a moment, or a signal.
    Time,
    /// Nothing, and it is in no call: its time slice was over.
    Slice,
}

/// A wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Wait {
    pub(in super::super) cause: Cause,
    /// Until this moment on the guest's clock.
    pub(in super::super) until: Option<u64>,
    /// What the call returns then; made again where only another thread can end the wait.
    pub(in super::super) timed_out: u64,
    /// A handler with `SA_RESTART` has the call made again.
    pub(in super::super) restarts: bool,
}

/// How the thread goes on that is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Ready {
    /// Its call returns this.
    Return(u64),
    /// Its call is made again.
    Again,
    /// A signal ends its call.
    Interrupted,
    /// It was in no call.
    Preempted,
}

impl Thread {
    /// Whether it waits to take a signal of this set.
    pub(in super::super) fn waits_for(&self, set: u64) -> bool {
        matches!(self.wait, Some(Wait { cause: Cause::Signals(wanted), .. }) if wanted & set != 0)
    }

    /// Ends the wait: the call returns `result`.
    fn wake(&mut self, result: u64) {
        self.wait = None;
        self.until = None;
        self.result = result;
    }
}

impl Threads {
    /// Wakes up to `count` threads that wait at a futex word; how many.
    pub(in super::super) fn wake_futex(&mut self, word: u64, bits: u32, count: u64) -> u64 {
        let mut woken = 0;
        let first = self.current + 1;
        let order = (0..self.list.len()).map(|i| (first + i) % self.list.len());
        for index in order.collect::<Vec<_>>() {
            let thread = &mut self.list[index];
            let Some(Wait { cause: Cause::Futex { at, bits: theirs }, .. }) = thread.wait else {
                continue;
            };
            if woken < count && at == word && theirs & bits != 0 {
                thread.wake(0);
                woken += 1;
            }
        }
        woken
    }

    /// Has up to `count` threads that wait at `from` wait at `to` instead; how many.
    pub(in super::super) fn requeue_futex(&mut self, from: u64, to: u64, count: u64) -> u64 {
        let mut moved = 0;
        for thread in &mut self.list {
            if let Some(Wait { cause: Cause::Futex { at, .. }, .. }) = &mut thread.wait
                && *at == from
                && moved < count
            {
                *at = to;
                moved += 1;
            }
        }
        moved
    }

    /// The next thread that can go on, the running one last.
    pub(in super::super) fn next_ready(&self) -> Option<(usize, Ready)> {
        let count = self.list.len();
        let order = (1..=count).map(|i| (self.current + i) % count);
        order.into_iter().find_map(|index| Some((index, self.ready(self.list.get(index)?)?)))
    }

    /// Whether another thread than the running one can go on, now or when its wait is over.
    pub(in super::super) fn others_can_go_on(&self) -> bool {
        self.list.iter().enumerate().any(|(index, thread)| {
            let ends = thread.wait.is_some_and(|wait| wait.until.is_some());
            !self.is_current(index) && (ends || self.ready(thread).is_some())
        })
    }

    fn ready(&self, thread: &Thread) -> Option<Ready> {
        let Some(wait) = thread.wait else { return Some(Ready::Return(thread.result)) };
        match wait.cause {
            Cause::Yield => return Some(Ready::Return(0)),
            Cause::Slice => return Some(Ready::Preempted),
            Cause::Others { calls } if calls != self.calls => {
                return Some(Ready::Again);
            }
            Cause::Signals(set) if self.has_pending(thread, set) => {
                return Some(Ready::Again);
            }
            _ => {}
        }
        self.has_pending(thread, !thread.blocked).then_some(Ready::Interrupted)
    }

    /// When the first wait is over.
    pub(in super::super) fn first_timeout(&self) -> Option<u64> {
        self.list.iter().filter_map(|thread| thread.wait?.until).min()
    }

    /// Ends the waits that are over at `now`.
    pub(in super::super) fn time_out(&mut self, now: u64) {
        for thread in &mut self.list {
            let Some(wait) = thread.wait else { continue };
            if wait.until.is_none_or(|until| until > now) {
                continue;
            }
            match &mut thread.wait {
                Some(Wait { cause: Cause::Others { calls }, .. }) => *calls = u64::MAX,
                _ => thread.wake(wait.timed_out),
            }
        }
    }
}
