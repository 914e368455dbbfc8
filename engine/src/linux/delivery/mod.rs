//! Signals: who gets one, and what it does; which one a fault is (`fault`), and the way into a
//! handler and back (`handler`), by a frame on its stack (`frame`).
//!
//! Faults come here from the machine, everything else from system calls. Never ends a run by
//! itself: it says what the process does next.

mod fault;
mod handler;

use crate::linux::abi::errno::{EAGAIN, Errno};
use crate::linux::abi::registers::Registers;
use crate::linux::abi::syscall::Verdict;
use crate::linux::cpu::{Cpu, make_again};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::signal::action::Action;
use crate::linux::signal::action::DefaultAction;
use crate::linux::signal::action::bit;
use crate::linux::signal::action::default_of;
use crate::linux::signal::siginfo::Info;
use crate::outcome::Signal;

/// What the process does with a signal that it takes.
enum Disposition {
    Ignore,
    End(Verdict),
    Handle(Action),
}

impl Process {
    fn action(&self, signal: u8) -> Action {
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
                Disposition::End(Verdict::Unsupported(what))
            }
            (libc::SIG_DFL, DefaultAction::Terminate) => {
                Disposition::End(Verdict::Signal(Signal(signal)))
            }
            _ => Disposition::Handle(action),
        }
    }

    /// Sends a signal to the thread with this id, or to the process. It is taken when the thread
    /// goes on.
    pub(crate) fn send(&mut self, info: Info, thread: Option<u64>) -> Result<(), Errno> {
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

    /// Takes the running thread's signals before it goes on as `verdict` says.
    pub(crate) fn take_signals(
        &mut self,
        mut verdict: Verdict,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> Verdict {
        while self.has_signal() {
            let blocked = self.threads.current().blocked;
            let Some(info) = self.threads.take_signal(!blocked) else { break };
            self.trace_signal(&info);
            match self.disposition(info.signal) {
                Disposition::Ignore => {}
                Disposition::End(end) => return end,
                Disposition::Handle(action) => {
                    if let Verdict::Return(value) = verdict {
                        cpu.set_registers(&Registers { rax: value, ..cpu.registers() });
                    }
                    verdict = match self.handle(&info, action, mem, cpu) {
                        Verdict::Resumed => Verdict::Resumed,
                        end => return end,
                    };
                }
            }
        }
        self.forget_interruption(verdict, cpu)
    }

    /// After the last signal: a call that one has ended, and for which no handler ran, is made
    /// again; and the mask is the one from before a call that had its own.
    fn forget_interruption(&mut self, verdict: Verdict, cpu: &mut dyn Cpu) -> Verdict {
        let thread = self.threads.current();
        if thread.interrupted.is_none() && thread.blocked_before.is_none() {
            return verdict;
        }
        let thread = self.threads.current_mut();
        if let Some(mask) = thread.blocked_before.take() {
            thread.blocked = mask;
        }
        match thread.interrupted.take() {
            Some(interrupted) => {
                make_again(cpu, interrupted.nr);
                Verdict::Resumed
            }
            None => verdict,
        }
    }

    /// A signal by which the machine ends the process: the line of it in the trace.
    pub fn note_end_by(&mut self, signal: Signal) {
        self.trace_signal(&Info::kernel(signal.0));
    }

    /// The line of a signal that is taken, whatever comes of it. Nobody is told of SIGKILL
    /// (ptrace(2)).
    fn trace_signal(&mut self, info: &Info) {
        if self.trace.is_none() || i32::from(info.signal) == libc::SIGKILL {
            return;
        }
        let thread = self.traced_thread();
        if let Some(trace) = &mut self.trace {
            trace.add_signal(thread, info);
        }
    }

    /// The line of a signal that comes to nothing, and of which a tracer is told nevertheless.
    fn trace_ignored(&mut self, info: &Info, thread: Option<u64>) {
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
    fn force(&mut self, info: &Info, mem: &mut dyn UserMemory, cpu: &mut dyn Cpu) -> Verdict {
        self.trace_signal(info);
        let end = Verdict::Signal(Signal(info.signal));
        if self.threads.current().blocked & bit(info.signal) != 0 {
            return end;
        }
        match self.disposition(info.signal) {
            Disposition::Handle(action) => self.handle(info, action, mem, cpu),
            Disposition::Ignore | Disposition::End(_) => end,
        }
    }
}
