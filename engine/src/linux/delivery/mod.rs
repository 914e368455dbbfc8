//! Signals: who gets one, and what it does; which one a fault is (`fault`), and the way into a
//! handler and back (`handler`), by a frame on its stack (`frame`).
//!
//! Faults come here from the machine, everything else from system calls. Never ends a run by
//! itself: it says what the process does next.

mod fault;
mod handler;

use crate::linux::abi::errno::{EAGAIN, Errno};
use crate::linux::abi::registers::Registers;
use crate::linux::abi::syscall::SyscallAction;
use crate::linux::cpu::{Cpu, make_again};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::signal::action::{DefaultAction, SigAction, bit, default_of};
use crate::linux::signal::siginfo::SigInfo;
use crate::outcome::Signal;

/// What the process does with a signal that it takes.
enum Disposition {
    Ignore,
    End(SyscallAction),
    Handle(SigAction),
}

impl Process {
    fn action(&self, signal: u8) -> SigAction {
        let index = usize::from(signal).wrapping_sub(1);
        self.settings.actions.get(index).copied().unwrap_or_default()
    }

    /// Whether a signal with this number comes to nothing.
    pub(crate) fn is_ignored(&self, signal: u8) -> bool {
        matches!(self.disposition(signal), Disposition::Ignore)
    }

    fn disposition(&self, signal: u8) -> Disposition {
        let action = self.action(signal);
        match (action.handler as usize, default_of(signal)) {
            (libc::SIG_IGN, _) | (libc::SIG_DFL, DefaultAction::Ignore) => Disposition::Ignore,
            (libc::SIG_DFL, DefaultAction::Stop) => {
                // Nobody could ever continue it.
                let what = format!("{}: the process stops", Signal(signal).name());
                Disposition::End(SyscallAction::Unsupported(what))
            }
            (libc::SIG_DFL, DefaultAction::Terminate) => {
                Disposition::End(SyscallAction::Signal(Signal(signal)))
            }
            _ => Disposition::Handle(action),
        }
    }

    /// Sends a signal to the thread with this id, or to the process. It is taken when the thread
    /// goes on.
    pub(crate) fn send(&mut self, info: SigInfo, thread: Option<u64>) -> Result<(), Errno> {
        let mask = bit(info.signal);
        let ignored = self.is_ignored(info.signal);
        let is_blocked = |blocked: u64| blocked & mask != 0;
        let is_waited_for = self.threads.iter().any(|t| {
            let wanted = |id| id == t.id;
            thread.is_none_or(wanted) && (is_blocked(t.blocked) || t.waits_for(mask))
        });
        if ignored && !is_waited_for {
            self.trace_ignored(&info, thread);
            return Ok(());
        }
        // A signal to the process is the first thread's, if that one takes it.
        let takes = self.threads.iter().find(|t| !is_blocked(t.blocked) || t.waits_for(mask));
        let thread = thread.or_else(|| takes.map(|taker| taker.id));
        if self.threads.queue(info, thread) { Ok(()) } else { Err(EAGAIN) }
    }

    /// Whether the running thread has a signal to take.
    pub(crate) fn has_signal(&self) -> bool {
        let thread = self.threads.current();
        self.threads.has_pending(thread, !thread.blocked)
    }

    /// Takes the running thread's signals before it goes on as `next` says.
    pub(crate) fn take_signals(
        &mut self,
        mut next: SyscallAction,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallAction {
        while self.has_signal() {
            let blocked = self.threads.current().blocked;
            let Some(info) = self.threads.take_signal(!blocked) else { break };
            self.trace_signal(&info);
            match self.disposition(info.signal) {
                Disposition::Ignore => {}
                Disposition::End(end) => return end,
                Disposition::Handle(action) => {
                    if let SyscallAction::Return(value) = next {
                        cpu.set_registers(&Registers { rax: value, ..cpu.registers() });
                    }
                    next = match self.handle(&info, action, mem, cpu) {
                        SyscallAction::Resumed => SyscallAction::Resumed,
                        end => return end,
                    };
                }
            }
        }
        self.forget_interruption(next, cpu)
    }

    /// After the last signal: a call that one has ended, and for which no handler ran, is made
    /// again; and the mask is the one from before a call that had its own.
    fn forget_interruption(&mut self, next: SyscallAction, cpu: &mut dyn Cpu) -> SyscallAction {
        let thread = self.threads.current();
        if thread.interrupted.is_none() && thread.blocked_before.is_none() {
            return next;
        }
        let thread = self.threads.current_mut();
        if let Some(mask) = thread.blocked_before.take() {
            thread.blocked = mask;
        }
        match thread.interrupted.take() {
            Some(interrupted) => {
                make_again(cpu, interrupted.nr);
                SyscallAction::Resumed
            }
            None => next,
        }
    }

    /// A signal by which the machine ends the process: the line of it in the trace.
    pub fn note_end_by(&mut self, signal: Signal) {
        self.trace_signal(&SigInfo::kernel(signal.0));
    }

    /// The line of a signal that is taken, whatever comes of it. A tracer does not see SIGKILL
    /// (ptrace(2)).
    fn trace_signal(&mut self, info: &SigInfo) {
        if self.trace.is_none() || i32::from(info.signal) == libc::SIGKILL {
            return;
        }
        let thread = self.traced_thread();
        if let Some(trace) = &mut self.trace {
            trace.add_signal(thread, info);
        }
    }

    /// The line of a signal that comes to nothing, and that a tracer sees all the same.
    fn trace_ignored(&mut self, info: &SigInfo, thread: Option<u64>) {
        if self.trace.is_none() {
            return;
        }
        let thread = self.traced_thread().map(|current| thread.unwrap_or(current));
        if let Some(trace) = &mut self.trace {
            trace.add_ignored(thread, info);
        }
    }

    /// Whether a fault with this signal has a handler that runs.
    #[must_use]
    pub fn handles(&self, signal: Signal) -> bool {
        let is_blocked = self.threads.current().blocked & bit(signal.0) != 0;
        !is_blocked && matches!(self.disposition(signal.0), Disposition::Handle(_))
    }

    /// A signal that cannot wait: where it is blocked or ignored, the process ends by it.
    fn force(
        &mut self,
        info: &SigInfo,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallAction {
        self.trace_signal(info);
        let end = SyscallAction::Signal(Signal(info.signal));
        if self.threads.current().blocked & bit(info.signal) != 0 {
            return end;
        }
        match self.disposition(info.signal) {
            Disposition::Handle(action) => self.handle(info, action, mem, cpu),
            Disposition::Ignore | Disposition::End(_) => end,
        }
    }
}
