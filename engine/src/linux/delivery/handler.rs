//! The way into a handler and back: which stack its frame goes on, what the program has in its
//! registers there, and what a return brings back. Never decides which signal is taken.

use crate::address::Gva;
use crate::linux::abi::errno::EFAULT;
use crate::linux::abi::registers::{Registers, user_flags};
use crate::linux::abi::syscall::SyscallAction;
use crate::linux::cpu::{Cpu, initial_extended, make_again};
use crate::linux::mm::bounds::USER_RIP_END;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallStop;
use crate::linux::signal::action::{SigAction, UNBLOCKABLE, bit};
use crate::linux::signal::frame;
use crate::linux::signal::frame::{CONTEXT_BYTES, FramePlace, Parts};
use crate::linux::signal::siginfo::SigInfo;
use crate::linux::signal::stack::{AlternateStack, SS_AUTODISARM};
use crate::outcome::Signal;
use crate::xsave::LEGACY_BYTES;

/// DF, TF and RF: clear when a handler starts.
const FLAGS_CLEARED: u64 = 1 << 10 | 1 << 8 | 1 << 16;
/// `SA_RESTORER`: the action says where its handler returns to. x86-64 has no other way.
const SA_RESTORER: u64 = 0x0400_0000;

impl Process {
    /// Enters a handler.
    pub(crate) fn handle(
        &mut self,
        info: &SigInfo,
        action: SigAction,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallAction {
        let regs = self.interrupted_registers(&action, cpu);
        match self.push_frame(info, &action, &regs, mem, cpu) {
            Ok(()) => {}
            Err(SyscallStop::End(end)) => return end,
            // No stack for the frame: what Linux does is a fault of its own.
            Err(_) if i32::from(info.signal) == libc::SIGSEGV => {
                self.trace_signal(&SigInfo::kernel(info.signal));
                return SyscallAction::Signal(Signal::SEGV);
            }
            Err(_) => return self.force(&SigInfo::kernel(Signal::SEGV.0), mem, cpu),
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
        SyscallAction::Resumed
    }

    /// The registers that a frame keeps: where the program goes on after the handler.
    fn interrupted_registers(&mut self, action: &SigAction, cpu: &mut dyn Cpu) -> Registers {
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
        info: &SigInfo,
        action: &SigAction,
        regs: &Registers,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> Result<(), SyscallStop> {
        let layout = cpu.extended_layout();
        let thread = self.threads.current();
        let stack = thread.alternate_stack;
        let wants_other = action.flags & libc::SA_ONSTACK as u64 != 0 && stack.bytes > 0;
        let is_there = stack.holds(regs.rsp);
        let place = if wants_other && !is_there {
            FramePlace::below(stack.base.wrapping_add(stack.bytes), false, layout)
        } else {
            FramePlace::below(regs.rsp, true, layout)
        };
        // A frame that began on the alternate stack must not leave it.
        let leaves = (is_there || wants_other) && place.frame <= stack.base;
        // There is no return address that the kernel could give, nor an entry that it could not.
        if leaves || action.flags & SA_RESTORER == 0 || action.handler >= USER_RIP_END {
            return Err(EFAULT.into());
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
        cpu.set_registers(&Registers {
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
    pub(crate) fn return_from_handler(
        &mut self,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallStop {
        match self.restore_frame(mem, cpu) {
            Ok(()) => SyscallStop::Resumed,
            Err(SyscallStop::End(end)) => SyscallStop::End(end),
            Err(_) => {
                let lines = self.trace.as_ref().map_or(0, |trace| trace.text().len());
                let action = self.force(&SigInfo::kernel(Signal::SEGV.0), mem, cpu);
                if let Some(trace) = &mut self.trace {
                    trace.defer(lines);
                }
                match action {
                    SyscallAction::Resumed => SyscallStop::Resumed,
                    end => SyscallStop::End(end),
                }
            }
        }
    }

    fn restore_frame(
        &mut self,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> Result<(), SyscallStop> {
        let bad = || SyscallStop::from(EFAULT);
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
        cpu.set_registers(&Registers { rflags, ..saved.regs });
        cpu.set_extended(&extended);
        Ok(())
    }
}
