//! One thread: what it has of its own. Never knows the others.

use super::super::cpu::Context;
use super::super::signals::Info;
use super::Wait;
use serde::{Deserialize, Serialize};

/// `sigaltstack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct AlternateStack {
    pub(in super::super) base: u64,
    /// 0: there is none.
    pub(in super::super) bytes: u64,
    /// `SS_AUTODISARM`.
    pub(in super::super) disarms: bool,
}

/// `SS_AUTODISARM`.
pub(in super::super) const SS_AUTODISARM: u64 = 1 << 31;

impl AlternateStack {
    /// Whether a stack pointer is on it.
    pub(in super::super) fn holds(&self, rsp: u64) -> bool {
        !self.disarms && rsp > self.base && rsp - self.base <= self.bytes
    }

    /// `ss_flags` as a frame tells them.
    pub(in super::super) fn flags(&self) -> u64 {
        let mode = if self.bytes == 0 { libc::SS_DISABLE as u64 } else { 0 };
        mode | if self.disarms { SS_AUTODISARM } else { 0 }
    }
}

/// The last fault that became a signal, as a frame tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Trap {
    pub(in super::super) vector: u64,
    pub(in super::super) error_code: u64,
    /// CR2.
    pub(in super::super) address: u64,
}

/// A call that a signal has ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Interrupted {
    /// The call's number.
    pub(in super::super) nr: u64,
    /// A handler with `SA_RESTART` has it made again.
    pub(in super::super) restarts: bool,
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Thread {
    pub(in super::super) id: u64,
    /// Its CPU state; `None` while it runs.
    pub(in super::super) context: Option<Box<Context>>,
    /// The number of its last call, where it waits in one.
    pub(in super::super) call: u64,
    pub(in super::super) wait: Option<Wait>,
    /// RAX when it goes on.
    pub(in super::super) result: u64,
    /// When a wait in a call that is made again is over.
    pub(in super::super) until: Option<u64>,
    pub(in super::super) interrupted: Option<Interrupted>,
    /// Blocked signals, bit `n - 1` for signal `n`.
    pub(in super::super) blocked: u64,
    /// The mask from before a call that has one for its own time.
    pub(in super::super) blocked_before: Option<u64>,
    pub(in super::super) pending: Vec<Info>,
    pub(in super::super) alternate_stack: AlternateStack,
    /// `CLONE_CHILD_CLEARTID` and `set_tid_address`.
    pub(in super::super) clear_id_at: u64,
    /// `set_robust_list`.
    pub(in super::super) robust_list: u64,
    pub(in super::super) trap: Trap,
    pub(in super::super) name: [u8; 16],
}

impl Thread {
    pub(super) fn new(id: u64, name: [u8; 16]) -> Self {
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
            clear_id_at: 0,
            robust_list: 0,
            trap: Trap::default(),
            name,
        }
    }

    /// A thread that this one makes.
    pub(in super::super) fn child(&self, id: u64, context: Context) -> Self {
        let context = Some(Box::new(context));
        Self { blocked: self.blocked, context, ..Self::new(id, self.name) }
    }
}
