//! A wait: what a thread waits for, and what its call returns then. Never ends one.

use crate::address::Gva;
use serde::{Deserialize, Serialize};

/// What a thread waits for, besides a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// To be woken at a futex word, by a waker of one of these kinds.
    Futex {
        /// Address of the word.
        at: Gva,
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
pub(crate) struct Wait {
    pub(crate) cause: Cause,
    /// Until this moment on the guest's clock.
    pub(crate) until: Option<u64>,
    /// What the call returns then; made again where only another thread can end the wait.
    pub(crate) timed_out: u64,
    /// A handler with `SA_RESTART` has the call made again.
    pub(crate) restarts: bool,
}

/// How the thread goes on that is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Its call returns this.
    Return(u64),
    /// Its call is made again.
    Again,
    /// A signal ends its call.
    Interrupted,
    /// It was in no call.
    Preempted,
}

impl Wait {
    /// A wait for what only another thread can do, in a call that is made again then; `calls` is
    /// how many had been made when this one was.
    pub(crate) fn for_others(calls: u64, until: Option<u64>) -> Self {
        Self { cause: Cause::Others { calls }, until, timed_out: 0, restarts: true }
    }

    /// A wait for nothing but a moment, or a signal.
    pub(crate) fn for_time(until: Option<u64>) -> Self {
        Self { cause: Cause::Time, until, timed_out: 0, restarts: false }
    }
}
