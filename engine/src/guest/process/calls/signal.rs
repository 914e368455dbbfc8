//! Signals and futexes. Handlers are recorded but never run: a fault is an outcome, and so is a
//! signal that the process sends itself unless it ignores it.

use super::super::errno::{Answer, EAGAIN, EINVAL, ENOMEM, ENOSYS, EPERM, ESRCH, ETIMEDOUT, Stop};
use super::super::memory::UserMemory;
use super::super::settings::{Action, SIGNAL_MAX};
use super::super::{Process, Verdict};
use super::identity::PROCESS_ID;
use crate::address::Gva;
use crate::outcome::Signal;

/// Bytes of the kernel's `sigset_t`.
const SET_BYTES: u64 = 8;
/// `SIGKILL` and `SIGSTOP`, which can be neither blocked nor handled.
const UNBLOCKABLE: u64 = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
const STACK_BYTES_MIN: u64 = 2048;

fn bit(signal: u64) -> u64 {
    1u64.checked_shl((signal as u32).wrapping_sub(1)).unwrap_or(0)
}

impl Process {
    pub(super) fn set_action(
        &mut self,
        signal: u64,
        new: u64,
        old: u64,
        set_bytes: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let signal = u64::from(signal as u32);
        let valid = (1..=SIGNAL_MAX).contains(&signal);
        if !valid || set_bytes != SET_BYTES || new != 0 && bit(signal) & UNBLOCKABLE != 0 {
            return Err(EINVAL.into());
        }
        let index = (signal - 1) as usize;
        let present = self.settings.actions.get(index).copied().unwrap_or_default();
        let mut user = self.user(mem);
        let mut words = [0; 4];
        if new != 0 {
            for (i, word) in words.iter_mut().enumerate() {
                *word = user.read_u64(Gva(new.wrapping_add(i as u64 * 8)))?;
            }
        }
        if old != 0 {
            let words = [present.handler, present.flags, present.restorer, present.mask];
            let mut bytes = [0; 32];
            for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            user.write(Gva(old), &bytes)?;
        }
        if new != 0 {
            let [handler, flags, restorer, mask] = words;
            if let Some(slot) = self.settings.actions.get_mut(index) {
                *slot = Action { handler, flags, restorer, mask: mask & !UNBLOCKABLE };
            }
        }
        Ok(0)
    }

    pub(super) fn set_mask(
        &mut self,
        how: u64,
        new: u64,
        old: u64,
        set_bytes: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        if set_bytes != SET_BYTES {
            return Err(EINVAL.into());
        }
        let before = self.settings.blocked;
        if new != 0 {
            let set = self.user(mem).read_u64(Gva(new))?;
            let after = match how as i32 {
                libc::SIG_BLOCK => before | set,
                libc::SIG_UNBLOCK => before & !set,
                libc::SIG_SETMASK => set,
                _ => return Err(EINVAL.into()),
            };
            if after & !UNBLOCKABLE != before {
                self.settings.blocked = after & !UNBLOCKABLE;
            }
        }
        if old != 0 {
            self.user(mem).write(Gva(old), &before.to_le_bytes())?;
        }
        let due = self.settings.pending & !self.settings.blocked;
        match due {
            0 => Ok(0),
            due => {
                let signal = u64::from(due.trailing_zeros()) + 1;
                self.settings.pending &= !bit(signal);
                self.send_signal_to_self(signal)
            }
        }
    }

    pub(super) fn pending(&mut self, at: u64, set_bytes: u64, mem: &mut dyn UserMemory) -> Answer {
        if set_bytes > SET_BYTES {
            return Err(EINVAL.into());
        }
        let pending = self.settings.pending.to_le_bytes();
        let bytes = pending.get(..set_bytes as usize).unwrap_or_default();
        self.user(mem).write(Gva(at), bytes)?;
        Ok(0)
    }

    pub(super) fn alternate_stack(
        &mut self,
        new: u64,
        old: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let present = self.settings.alternate_stack;
        let mut user = self.user(mem);
        let mut wanted = None;
        if new != 0 {
            let base = user.read_u64(Gva(new))?;
            let flags = u64::from(user.read_u32(Gva(new.wrapping_add(8)))?);
            let bytes = user.read_u64(Gva(new.wrapping_add(16)))?;
            let mode = flags & !(1 << 31);
            wanted = Some(match mode as i32 {
                libc::SS_DISABLE => (0, mode, 0),
                0 | libc::SS_ONSTACK if bytes < STACK_BYTES_MIN => return Err(ENOMEM.into()),
                0 | libc::SS_ONSTACK => (base, 0, bytes),
                _ => return Err(EINVAL.into()),
            });
        }
        if old != 0 {
            let mut bytes = [0; 24];
            for (to, word) in bytes.chunks_exact_mut(8).zip([present.0, present.1, present.2]) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            user.write(Gva(old), &bytes)?;
        }
        if let Some(wanted) = wanted {
            self.settings.alternate_stack = wanted;
        }
        Ok(0)
    }

    pub(super) fn kill(&mut self, process: u64, signal: u64) -> Answer {
        match process as i32 as i64 {
            // This process, its group, or everyone.
            id if id == PROCESS_ID as i64 || id == 0 || id == -(PROCESS_ID as i64) || id == -1 => {
                self.send_signal_to_self(u64::from(signal as u32))
            }
            1 => Err(EPERM.into()),
            _ => Err(ESRCH.into()),
        }
    }

    pub(super) fn kill_thread(&mut self, process: u64, thread: u64, signal: u64) -> Answer {
        if process as i32 <= 0 {
            return Err(EINVAL.into());
        }
        if u64::from(process as u32) != PROCESS_ID {
            return Err(ESRCH.into());
        }
        self.send_signal(thread, signal)
    }

    pub(super) fn send_signal(&mut self, thread: u64, signal: u64) -> Answer {
        match thread as i32 {
            ..=0 => Err(EINVAL.into()),
            id if id as u64 == PROCESS_ID => self.send_signal_to_self(u64::from(signal as u32)),
            _ => Err(ESRCH.into()),
        }
    }

    /// What a signal to this process does: nothing, wait until it is unblocked, or end the run.
    pub(super) fn send_signal_to_self(&mut self, signal: u64) -> Answer {
        if signal > SIGNAL_MAX {
            return Err(EINVAL.into());
        }
        if signal == 0 {
            return Ok(0);
        }
        let action = self.settings.actions.get((signal - 1) as usize).copied().unwrap_or_default();
        let default_ignores =
            matches!(signal as i32, libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT);
        let handler = action.handler as usize;
        if handler == libc::SIG_IGN || handler == libc::SIG_DFL && default_ignores {
            return Ok(0);
        }
        if self.settings.blocked & bit(signal) != 0 {
            self.settings.pending |= bit(signal);
            return Ok(0);
        }
        Err(Stop::End(Verdict::Signal(Signal(signal as u8))))
    }

    pub(super) fn futex(
        &mut self,
        at: u64,
        operation: u64,
        value: u64,
        timeout_at: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let flags = libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME;
        match operation as i32 & !flags {
            libc::FUTEX_WAKE | libc::FUTEX_WAKE_BITSET | libc::FUTEX_REQUEUE => {
                // No other thread: nobody waits.
                if at.is_multiple_of(4) { Ok(0) } else { Err(EINVAL.into()) }
            }
            command @ (libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET) => {
                if !at.is_multiple_of(4) {
                    return Err(EINVAL.into());
                }
                let timeout_ns = match timeout_at {
                    0 => None,
                    at => Some(self.read_timespec(at, mem)?),
                };
                if self.user(mem).read_u32(Gva(at))? != value as u32 {
                    return Err(EAGAIN.into());
                }
                let Some(timeout_ns) = timeout_ns else {
                    let what = "futex wait with no other thread to end it".to_owned();
                    return Err(Stop::End(Verdict::Unsupported(what)));
                };
                // The bitset form gives a moment, the other a duration.
                if command == libc::FUTEX_WAIT {
                    self.scalars.advance(timeout_ns);
                }
                Err(ETIMEDOUT.into())
            }
            _ => Err(ENOSYS.into()),
        }
    }
}
