//! Signals: who gets one, what it does, and the way into a handler and back.
//!
//! Faults come here from the machine, everything else from system calls. Never ends a run by
//! itself: it says what the process does next.

mod fault;
mod frame;
mod info;

pub(super) use info::{INFO_BYTES, Info, SI_KERNEL, SI_TIMER, SI_TKILL, SI_USER};

use super::cpu::{Cpu, LEGACY_BYTES, initial_extended, make_again};
use super::errno::{EAGAIN, Errno, Stop};
use super::memory::UserMemory;
use super::settings::Action;
use super::space::USER_RIP_END;
use super::threads::{AlternateStack, SS_AUTODISARM, bit};
use super::trap::user_flags;
use super::{Process, Verdict};
use crate::address::Gva;
use crate::outcome::{Fault, Signal};
use frame::{CONTEXT_BYTES, Parts, Place};
use kvm_bindings::kvm_regs;

/// `SIGKILL` and `SIGSTOP`, which can be neither blocked nor handled.
pub(super) const UNBLOCKABLE: u64 = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
/// DF, TF and RF: clear when a handler starts.
const FLAGS_CLEARED: u64 = 1 << 10 | 1 << 8 | 1 << 16;

/// What a signal does by default (signal(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Default {
    Ignore,
    Stop,
    Terminate,
}

const fn default_of(signal: u8) -> Default {
    match signal as i32 {
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT => Default::Ignore,
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => Default::Stop,
        _ => Default::Terminate,
    }
}

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
    pub(super) fn is_ignored(&self, signal: u8) -> bool {
        matches!(self.disposition(signal), Disposition::Ignore)
    }

    fn disposition(&self, signal: u8) -> Disposition {
        let action = self.action(signal);
        match (action.handler as usize, default_of(signal)) {
            (libc::SIG_IGN, _) | (libc::SIG_DFL, Default::Ignore) => Disposition::Ignore,
            (libc::SIG_DFL, Default::Stop) => {
                // Nobody could ever continue it.
                let what = format!("{}: the process stops", Signal(signal).name());
                Disposition::End(Verdict::Unsupported(what))
            }
            (libc::SIG_DFL, Default::Terminate) => {
                Disposition::End(Verdict::Signal(Signal(signal)))
            }
            _ => Disposition::Handle(action),
        }
    }

    /// Sends a signal to the thread with this id, or to the process. It is taken when the thread
    /// goes on.
    pub(super) fn send(&mut self, info: Info, thread: Option<u64>) -> Result<(), Errno> {
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
    pub(super) fn has_signal(&self) -> bool {
        let thread = self.threads.current();
        self.threads.has_pending(thread, !thread.blocked)
    }

    /// Takes the running thread's signals before it goes on as `verdict` says.
    pub(super) fn take_signals(
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
                        cpu.set_registers(&kvm_regs { rax: value, ..cpu.registers() });
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

    /// A fault of the running thread: the way into its handler, or the end by its signal.
    pub fn fault(
        &mut self,
        fault: &Fault,
        cr2: u64,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> Verdict {
        let info = self.describe(fault, cpu);
        let thread = self.threads.current_mut();
        thread.trap.vector = fault.vector.map_or(0, u64::from);
        thread.trap.error_code = fault.error_code.map_or(0, u64::from);
        if fault.vector == Some(14) {
            thread.trap.address = cr2;
        }
        let verdict = self.force(&info, mem, cpu);
        self.settle_growth();
        verdict
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

    /// Enters a handler.
    fn handle(
        &mut self,
        info: &Info,
        action: Action,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> Verdict {
        let regs = self.interrupted_registers(&action, cpu);
        match self.push_frame(info, &action, &regs, mem, cpu) {
            Ok(()) => {}
            Err(Stop::End(end)) => return end,
            // No stack for the frame: what Linux does is a fault of its own.
            Err(_) if i32::from(info.signal) == libc::SIGSEGV => {
                self.trace_signal(&Info::kernel(info.signal));
                return Verdict::Signal(Signal::SEGV);
            }
            Err(_) => return self.force(&Info::kernel(Signal::SEGV.0), mem, cpu),
        }
        let once = action.flags & libc::SA_RESETHAND as u32 as u64 != 0;
        if once && let Some(slot) = self.settings.actions.get_mut(usize::from(info.signal) - 1) {
            slot.handler = libc::SIG_DFL as u64;
        }
        let thread = self.threads.current_mut();
        let itself = if action.flags & libc::SA_NODEFER as u64 != 0 { 0 } else { bit(info.signal) };
        let blocked = (thread.blocked | action.mask | itself) & !UNBLOCKABLE;
        if blocked != thread.blocked {
            thread.blocked = blocked;
        }
        Verdict::Resumed
    }

    /// The registers that a frame keeps: where the program goes on after the handler.
    fn interrupted_registers(&mut self, action: &Action, cpu: &mut dyn Cpu) -> kvm_regs {
        if self.threads.current().interrupted.is_some()
            && let Some(interrupted) = self.threads.current_mut().interrupted.take()
            && interrupted.restarts
            && action.flags & libc::SA_RESTART as u64 != 0
        {
            make_again(cpu, interrupted.nr);
        }
        cpu.registers()
    }

    /// Writes the frame, and has the program go on in the handler.
    fn push_frame(
        &mut self,
        info: &Info,
        action: &Action,
        regs: &kvm_regs,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> Result<(), Stop> {
        let layout = cpu.extended_layout();
        let thread = self.threads.current();
        let stack = thread.alternate_stack;
        let wants_other = action.flags & libc::SA_ONSTACK as u64 != 0 && stack.bytes > 0;
        let is_there = stack.holds(regs.rsp);
        let place = if wants_other && !is_there {
            Place::below(stack.base.wrapping_add(stack.bytes), false, layout)
        } else {
            Place::below(regs.rsp, true, layout)
        };
        // A frame that began on the alternate stack must not leave it.
        let leaves = (is_there || wants_other) && place.frame <= stack.base;
        // There is no return address that the kernel could give, nor an entry that it could not.
        if leaves || action.flags & SA_RESTORER == 0 || action.handler >= USER_RIP_END {
            return Err(super::errno::EFAULT.into());
        }
        let parts = Parts {
            info,
            regs,
            mask: thread.blocked_before.unwrap_or(thread.blocked),
            stack,
            trap: thread.trap,
            restorer: action.restorer,
            extended: cpu.extended(),
            layout,
        };
        let bytes = frame::encode(&parts, place);
        self.user(mem).write(Gva(place.frame), &bytes)?;
        let has_own_mask = self.threads.current().blocked_before.is_some();
        if has_own_mask {
            self.threads.current_mut().blocked_before = None;
        }
        if stack.disarms {
            self.threads.current_mut().alternate_stack = AlternateStack::default();
        }
        cpu.set_registers(&kvm_regs {
            rip: action.handler,
            rsp: place.frame,
            rdi: u64::from(info.signal),
            rsi: place.info(),
            rdx: place.context(),
            rax: 0,
            rflags: user_flags(regs.rflags & !FLAGS_CLEARED),
            ..*regs
        });
        cpu.set_extended(&initial_extended(layout));
        Ok(())
    }

    /// `rt_sigreturn`: back to where a signal came in.
    pub(super) fn return_from_handler(
        &mut self,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> Stop {
        match self.restore_frame(mem, cpu) {
            Ok(()) => Stop::Resumed,
            Err(Stop::End(end)) => Stop::End(end),
            Err(_) => {
                let lines = self.trace.as_ref().map_or(0, |trace| trace.text().len());
                let verdict = self.force(&Info::kernel(Signal::SEGV.0), mem, cpu);
                if let Some(trace) = &mut self.trace {
                    trace.put_behind(lines);
                }
                match verdict {
                    Verdict::Resumed => Stop::Resumed,
                    end => Stop::End(end),
                }
            }
        }
    }

    fn restore_frame(&mut self, mem: &mut dyn UserMemory, cpu: &mut dyn Cpu) -> Result<(), Stop> {
        let bad = || Stop::from(super::errno::EFAULT);
        // RET has taken the return address.
        let at = cpu.registers().rsp;
        let mut context = [0; CONTEXT_BYTES];
        self.user(mem).read(Gva(at), &mut context)?;
        let saved = frame::decode(&context);
        let layout = cpu.extended_layout();
        let extended = match saved.extended_at {
            0 => initial_extended(layout),
            at => {
                let mut legacy = [0; LEGACY_BYTES];
                self.user(mem).read(Gva(at), &mut legacy)?;
                let mut bytes = vec![0; frame::extended_bytes_saved(&legacy, layout)];
                self.user(mem).read(Gva(at), &mut bytes)?;
                frame::loadable(&bytes, layout).ok_or_else(bad)?
            }
        };
        if saved.regs.rip >= USER_RIP_END {
            return Err(bad());
        }
        let mask = saved.mask & !UNBLOCKABLE;
        let [base, flags, bytes] = saved.stack;
        let thread = self.threads.current();
        let stack = AlternateStack {
            base: if flags as i32 & libc::SS_DISABLE != 0 { 0 } else { base },
            bytes: if flags as i32 & libc::SS_DISABLE != 0 { 0 } else { bytes },
            disarms: flags & SS_AUTODISARM != 0,
        };
        // What a frame says of the stack counts only while the program is not on it.
        let restores =
            stack != thread.alternate_stack && !thread.alternate_stack.holds(saved.regs.rsp);
        if thread.blocked != mask || restores {
            let thread = self.threads.current_mut();
            thread.blocked = mask;
            if restores {
                thread.alternate_stack = stack;
            }
        }
        let rflags = user_flags(saved.regs.rflags);
        cpu.set_registers(&kvm_regs { rflags, ..saved.regs });
        cpu.set_extended(&extended);
        Ok(())
    }
}

/// `SA_RESTORER`: the action says where its handler returns to. x86-64 has no other way.
const SA_RESTORER: u64 = 0x0400_0000;
