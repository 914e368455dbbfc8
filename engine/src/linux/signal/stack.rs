//! What a thread has for its handlers: the stack they run on, and the last fault as a frame tells
//! it. Never writes to a stack.

use serde::{Deserialize, Serialize};

/// `sigaltstack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AlternateStack {
    pub(crate) base: u64,
    /// 0: there is none.
    pub(crate) bytes: u64,
    /// `SS_AUTODISARM`.
    pub(crate) disarms: bool,
}

/// `SS_AUTODISARM`.
pub(crate) const SS_AUTODISARM: u64 = 1 << 31;

impl AlternateStack {
    /// Whether a stack pointer is on it.
    pub(crate) fn holds(&self, rsp: u64) -> bool {
        !self.disarms && rsp > self.base && rsp - self.base <= self.bytes
    }

    /// `ss_flags` as a frame tells them.
    pub(crate) fn flags(&self) -> u64 {
        let mode = if self.bytes == 0 { libc::SS_DISABLE as u64 } else { 0 };
        mode | if self.disarms { SS_AUTODISARM } else { 0 }
    }
}

/// The last fault that became a signal, as a frame tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trap {
    pub(crate) vector: u64,
    pub(crate) error_code: u64,
    /// CR2.
    pub(crate) address: u64,
}
