//! What a signal does: by default, and as `rt_sigaction` set it; and sets of signals. Never knows who
//! gets one.

use serde::{Deserialize, Serialize};

/// Highest signal number.
pub(crate) const SIGNAL_MAX: u64 = 64;
/// What `rt_sigaction` set for one signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SigAction {
    pub(crate) handler: u64,
    pub(crate) flags: u64,
    pub(crate) restorer: u64,
    pub(crate) mask: u64,
}

/// `SIGKILL` and `SIGSTOP`, which can be neither blocked nor handled.
pub(crate) const UNBLOCKABLE: u64 = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);

/// What a signal does by default (signal(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultAction {
    Ignore,
    Stop,
    Terminate,
}

pub(crate) const fn default_of(signal: u8) -> DefaultAction {
    match signal as i32 {
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT => DefaultAction::Ignore,
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => DefaultAction::Stop,
        _ => DefaultAction::Terminate,
    }
}

/// A signal's bit in a set.
pub(crate) fn bit(signal: u8) -> u64 {
    1u64.checked_shl(u32::from(signal).wrapping_sub(1)).unwrap_or(0)
}
