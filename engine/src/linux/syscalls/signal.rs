//! The calls on signals: actions, masks, stacks, sending, waiting. What a signal does is in
//! `delivery`.

use crate::address::Gva;
use crate::linux::abi::errno::{EAGAIN, EINVAL, ENOMEM, EPERM, ESRCH};
use crate::linux::abi::ids::PROCESS_ID;
use crate::linux::cpu::Cpu;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;
use crate::linux::sched::wait::{Cause, Wait};
use crate::linux::signal::action::{SIGNAL_MAX, SigAction, UNBLOCKABLE, bit};
use crate::linux::signal::siginfo::{INFO_BYTES, SI_TKILL, SI_USER, SigInfo};
use crate::linux::signal::stack::{AlternateStack, SS_AUTODISARM};

/// Bytes of the kernel's `sigset_t`.
const SET_BYTES: u64 = 8;
const STACK_BYTES_MIN: u64 = 2048;

/// A signal number from a register; `None` if there is no such signal. 0 is one: it is never sent.
fn signal_of(number: u64) -> Option<u8> {
    u8::try_from(number as u32).ok().filter(|signal| u64::from(*signal) <= SIGNAL_MAX)
}

impl Process {
    pub(crate) fn sys_rt_sigaction(
        &mut self,
        signal: u64,
        new: Gva,
        old: Gva,
        set_bytes: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let signal = signal_of(signal).filter(|signal| *signal != 0).ok_or(EINVAL)?;
        if set_bytes != SET_BYTES || !new.is_null() && bit(signal) & UNBLOCKABLE != 0 {
            return Err(EINVAL.into());
        }
        let index = usize::from(signal) - 1;
        let present = self.settings.actions.get(index).copied().unwrap_or_default();
        let mut user = self.user(mem);
        let mut words = [0; 4];
        if !new.is_null() {
            for (i, word) in words.iter_mut().enumerate() {
                *word = user.read_u64(new.wrapping_add(i as u64 * 8))?;
            }
            let [handler, flags, restorer, mask] = words;
            let action = SigAction { handler, flags, restorer, mask: mask & !UNBLOCKABLE };
            if let Some(slot) = self.settings.actions.get_mut(index) {
                *slot = action;
            }
            if self.is_ignored(signal) {
                self.threads.forget_signal(signal);
            }
        }
        if !old.is_null() {
            let words = [present.handler, present.flags, present.restorer, present.mask];
            let mut bytes = [0; 32];
            for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            self.user(mem).write(old, &bytes)?;
        }
        Ok(0)
    }

    /// A signal set of the caller's, without what cannot be blocked.
    pub(crate) fn read_set(
        &mut self,
        at: Gva,
        set_bytes: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if set_bytes != SET_BYTES {
            return Err(EINVAL.into());
        }
        Ok(self.user(mem).read_u64(at)? & !UNBLOCKABLE)
    }

    pub(crate) fn sys_rt_sigprocmask(
        &mut self,
        how: u64,
        new: Gva,
        old: Gva,
        set_bytes: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if set_bytes != SET_BYTES {
            return Err(EINVAL.into());
        }
        let before = self.threads.current().blocked;
        if !new.is_null() {
            let set = self.read_set(new, set_bytes, mem)?;
            let after = match how as i32 {
                libc::SIG_BLOCK => before | set,
                libc::SIG_UNBLOCK => before & !set,
                libc::SIG_SETMASK => set,
                _ => return Err(EINVAL.into()),
            };
            if after != before {
                self.threads.current_mut().blocked = after;
            }
        }
        if !old.is_null() {
            self.user(mem).write(old, &before.to_le_bytes())?;
        }
        Ok(0)
    }

    pub(crate) fn sys_rt_sigpending(
        &mut self,
        at: Gva,
        set_bytes: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if set_bytes > SET_BYTES {
            return Err(EINVAL.into());
        }
        let thread = self.threads.current();
        let all = thread.pending.iter().chain(&self.threads.pending);
        let set = all.fold(0, |set, info| set | bit(info.signal)) & thread.blocked;
        let bytes = set.to_le_bytes();
        let bytes = bytes.get(..set_bytes as usize).unwrap_or_default();
        self.user(mem).write(at, bytes)?;
        Ok(0)
    }

    pub(crate) fn sys_sigaltstack(
        &mut self,
        new: Gva,
        old: Gva,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallResult {
        let present = self.threads.current().alternate_stack;
        let is_on_it = present.holds(cpu.registers().rsp);
        let mut user = self.user(mem);
        let mut wanted = None;
        if !new.is_null() {
            let base = user.read_u64(new)?;
            let flags = u64::from(user.read_u32(new.wrapping_add(8))?);
            let bytes = user.read_u64(new.wrapping_add(16))?;
            let disarms = flags & SS_AUTODISARM != 0;
            wanted = Some(match (flags & !SS_AUTODISARM) as i32 {
                _ if is_on_it => return Err(EPERM.into()),
                libc::SS_DISABLE => AlternateStack { base: 0, bytes: 0, disarms },
                0 | libc::SS_ONSTACK if bytes < STACK_BYTES_MIN => return Err(ENOMEM.into()),
                0 | libc::SS_ONSTACK => AlternateStack { base, bytes, disarms },
                _ => return Err(EINVAL.into()),
            });
        }
        if !old.is_null() {
            let on_it = if is_on_it { libc::SS_ONSTACK as u64 } else { 0 };
            let words = [present.base, present.flags() | on_it, present.bytes];
            let mut bytes = [0; 24];
            for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            user.write(old, &bytes)?;
        }
        if let Some(wanted) = wanted.filter(|wanted| *wanted != present) {
            self.threads.current_mut().alternate_stack = wanted;
        }
        Ok(0)
    }

    pub(crate) fn sys_kill(&mut self, process: u64, signal: u64) -> SyscallResult {
        let signal = signal_of(signal).ok_or(EINVAL)?;
        match process as i32 as i64 {
            // This process, its group, or everyone.
            id if id == PROCESS_ID as i64 || id == 0 || id == -(PROCESS_ID as i64) || id == -1 => {
                self.send_number(signal, SI_USER, None)
            }
            1 => Err(EPERM.into()),
            _ => Err(ESRCH.into()),
        }
    }

    pub(crate) fn sys_tgkill(&mut self, process: u64, thread: u64, signal: u64) -> SyscallResult {
        if process as i32 <= 0 {
            return Err(EINVAL.into());
        }
        if u64::from(process as u32) != PROCESS_ID {
            return Err(ESRCH.into());
        }
        self.sys_tkill(thread, signal)
    }

    /// `tkill`.
    pub(crate) fn sys_tkill(&mut self, thread: u64, signal: u64) -> SyscallResult {
        let id = thread as i32;
        if id <= 0 {
            return Err(EINVAL.into());
        }
        let signal = signal_of(signal).ok_or(EINVAL)?;
        if !self.threads.iter().any(|thread| thread.id == id as u64) {
            return Err(ESRCH.into());
        }
        self.send_number(signal, SI_TKILL, Some(id as u64))
    }

    fn send_number(&mut self, signal: u8, code: i32, thread: Option<u64>) -> SyscallResult {
        if signal != 0 {
            self.send(SigInfo::sent(signal, code, PROCESS_ID), thread)?;
        }
        Ok(0)
    }

    /// SIGPIPE, to the thread that wrote where nobody reads.
    pub(crate) fn send_broken_pipe(&mut self) {
        let (id, signal) = (self.threads.current().id, libc::SIGPIPE as u8);
        // One too many is one that waits already.
        let _ = self.send(SigInfo::sent(signal, SI_USER, PROCESS_ID), Some(id));
    }

    pub(crate) fn sys_rt_sigqueueinfo(
        &mut self,
        process: u64,
        signal: u64,
        info: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.queue_signal(process, None, signal, info, mem)
    }

    pub(crate) fn sys_rt_tgsigqueueinfo(
        &mut self,
        process: u64,
        thread: u64,
        signal: u64,
        info: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.queue_signal(process, Some(thread), signal, info, mem)
    }

    /// `rt_sigqueueinfo`, and with a thread `rt_tgsigqueueinfo`.
    fn queue_signal(
        &mut self,
        process: u64,
        thread: Option<u64>,
        signal: u64,
        info: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let mut bytes = [0; INFO_BYTES];
        self.user(mem).read(info, &mut bytes)?;
        let signal = signal_of(signal).ok_or(EINVAL)?;
        let is_here = |thread: u64| self.threads.iter().any(|t| t.id == thread);
        let thread = thread.map(|thread| u64::from(thread as u32));
        if u64::from(process as u32) != PROCESS_ID || thread.is_some_and(|id| !is_here(id)) {
            return Err(ESRCH.into());
        }
        if signal != 0 {
            self.send(SigInfo::from_bytes(signal, &bytes), thread)?;
        }
        Ok(0)
    }

    /// `rt_sigsuspend`: waits for a signal under another mask.
    pub(crate) fn sys_rt_sigsuspend(
        &mut self,
        set: Gva,
        set_bytes: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let set = self.read_set(set, set_bytes, mem)?;
        self.set_mask_for_call(set);
        Err(Wait::for_time(None).into())
    }

    pub(crate) fn sys_pause(&self) -> SyscallResult {
        Err(Wait::for_time(None).into())
    }

    pub(crate) fn sys_rt_sigreturn(
        &mut self,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallResult {
        Err(self.return_from_handler(mem, cpu))
    }

    /// Blocks `set` until the call ends or a handler starts.
    pub(crate) fn set_mask_for_call(&mut self, set: u64) {
        let thread = self.threads.current_mut();
        thread.blocked_before.get_or_insert(thread.blocked);
        thread.blocked = set;
    }

    /// `rt_sigtimedwait`: takes a signal that is blocked.
    pub(crate) fn sys_rt_sigtimedwait(
        &mut self,
        set: Gva,
        info: Gva,
        timeout: Gva,
        set_bytes: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let set = self.read_set(set, set_bytes, mem)?;
        let timeout_ns = match timeout {
            Gva::NULL => None,
            at => Some(self.read_timespec(at, mem)?),
        };
        if let Some(taken) = self.threads.take_signal(set) {
            if !info.is_null() {
                self.user(mem).write(info, &taken.to_bytes())?;
            }
            return Ok(u64::from(taken.signal));
        }
        let until = timeout_ns.map(|ns| self.scalars.clock_ns.saturating_add(ns));
        let timed_out = EAGAIN.to_return();
        let wait = Wait::for_time(until);
        Err(Wait { cause: Cause::Signals(set), timed_out, ..wait }.into())
    }
}
