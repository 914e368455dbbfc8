//! Signals that wait until an ioctl is over which they would cut short. Never keeps one for longer.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};

/// Calls `work` while every signal of this thread waits that can be made to.
///
/// # Errors
/// The mask of signals cannot be changed; `work` was not called if it could not be set.
pub(super) fn while_blocked<T>(work: impl FnOnce() -> T) -> Result<T, Errno> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let done = work();
    before.thread_set_mask()?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;

    #[test]
    fn signals_wait_for_the_work_and_for_nothing_else() {
        let is_blocked = || SigSet::thread_get_mask().unwrap().contains(Signal::SIGUSR1);
        assert!(!is_blocked());
        assert_eq!(while_blocked(is_blocked), Ok(true));
        assert!(!is_blocked());
    }
}
