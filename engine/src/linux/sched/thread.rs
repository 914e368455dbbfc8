//! One thread: what it has of its own. Never knows the others.

use crate::address::Gva;
use crate::linux::cpu::Context;
use crate::linux::sched::wait::{Cause, Wait};
use crate::linux::signal::siginfo::SigInfo;
use crate::linux::signal::stack::{AlternateStack, Trap};
use serde::{Deserialize, Serialize};

/// Threads that may exist at once.
pub(crate) const THREADS_MAX: usize = 256;
/// Signals that may wait for one thread, or for any (`RLIMIT_SIGPENDING`).
pub(crate) const PENDING_MAX: usize = 256;

/// A call that a signal has ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interrupted {
    /// The call's number.
    pub(crate) nr: u64,
    /// A handler with `SA_RESTART` has it made again.
    pub(crate) restarts: bool,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Thread {
    pub(crate) id: u64,
    /// Its CPU state; `None` while it runs.
    pub(crate) context: Option<Box<Context>>,
    /// The number of its last call, where it waits in one.
    pub(crate) call: u64,
    pub(crate) wait: Option<Wait>,
    /// RAX when it goes on.
    pub(crate) result: u64,
    /// When a wait in a call that is made again is over.
    pub(crate) until: Option<u64>,
    pub(crate) interrupted: Option<Interrupted>,
    /// Blocked signals, bit `n - 1` for signal `n`.
    pub(crate) blocked: u64,
    /// The mask from before a call that has one for its own time.
    pub(crate) blocked_before: Option<u64>,
    pub(crate) pending: Vec<SigInfo>,
    pub(crate) alternate_stack: AlternateStack,
    /// `CLONE_CHILD_CLEARTID` and `set_tid_address`.
    pub(crate) clear_id_at: Gva,
    /// `set_robust_list`.
    pub(crate) robust_list: Gva,
    pub(crate) trap: Trap,
    pub(crate) name: [u8; 16],
}

impl Thread {
    pub(crate) fn new(id: u64, name: [u8; 16]) -> Self {
        Self {
            id,
            context: None,
            call: 0,
            wait: None,
            result: 0,
            until: None,
            interrupted: None,
            blocked: 0,
            blocked_before: None,
            pending: Vec::new(),
            alternate_stack: AlternateStack::default(),
            clear_id_at: Gva::NULL,
            robust_list: Gva::NULL,
            trap: Trap::default(),
            name,
        }
    }

    /// A thread that this one makes.
    pub(crate) fn child(&self, id: u64, context: Context) -> Self {
        let context = Some(Box::new(context));
        Self { blocked: self.blocked, context, ..Self::new(id, self.name) }
    }
}

impl Thread {
    /// Whether it waits to take a signal of this set.
    pub(crate) fn waits_for(&self, set: u64) -> bool {
        matches!(self.wait, Some(Wait { cause: Cause::Signals(wanted), .. }) if wanted & set != 0)
    }

    /// Ends the wait: the call returns `result`.
    pub(crate) fn wake(&mut self, result: u64) {
        self.wait = None;
        self.until = None;
        self.result = result;
    }
}
