//! One system call from beginning to end: made, waited in, made again, and the signals that are due after it;
//! and the end of a time slice, in which there is no call.
//!
//! Never knows what a call does, and never looks at the host's clock.

use crate::linux::abi::errno::{EAGAIN, EINTR, ENOENT};
use crate::linux::abi::registers::Registers;
use crate::linux::abi::syscall::{SyscallAction, SystemCall};
use crate::linux::cpu::{Context, Cpu};
use crate::linux::fs::table::Open;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::process::settings::CALL_NS;
use crate::linux::sched::stop::SyscallStop;
use crate::linux::sched::thread::Interrupted;
use crate::linux::sched::wait::{Cause, Ready, Wait};

/// Timers that may expire during one wait that they do not end: such a process waits for ever.
const EXPIRATIONS_MAX: u32 = 10_000;

/// What happens after a wait.
enum Then {
    /// The thread's call is made again.
    Call(SystemCall),
    /// The thread goes on. It was in this call, if in any.
    GoOn(Option<SystemCall>, SyscallAction),
}

/// What is being made.
struct Made {
    /// `None` where a time slice is over, or a thread goes on whose slice was.
    call: Option<SystemCall>,
    /// Another thread runs now than when it began.
    has_switched: bool,
}

/// The call that the registers of a thread in the middle of call `nr` say.
fn call_of(nr: u64, regs: &Registers) -> SystemCall {
    SystemCall { nr, args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] }
}

impl Process {
    /// Carries out one system call. The CPU's registers are those after the instruction, but for
    /// RAX, which is the call's number or its result.
    pub fn syscall(
        &mut self,
        call: &SystemCall,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallAction {
        self.answer(call, mem, cpu)
    }

    /// Carries out `call`; the registers are those after it.
    fn answer(
        &mut self,
        call: &SystemCall,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallAction {
        self.scalars.advance(CALL_NS);
        self.expire_timers();
        let made = Made { call: None, has_switched: false };
        match self.follow(Ok(Then::Call(*call)), made, mem, cpu) {
            SyscallAction::Return(value) if self.threads.turn_is_over() => {
                cpu.set_registers(&Registers { rax: value, ..cpu.registers() });
                self.end_slice(0, mem, cpu)
            }
            action => action,
        }
    }

    /// Whether there is anything that the end of a time slice could lead to: another thread that can
    /// go on, now or in time, or a timer's signal.
    #[must_use]
    pub fn has_slices(&self) -> bool {
        self.threads.others_can_go_on() || !self.threads.timers.are_idle()
    }

    /// The running thread is in no call, and has had its turn: the `ns` nanoseconds that it executed
    /// without a call pass on the guest's clock too, timers expire, and the others go first.
    pub fn end_slice(
        &mut self,
        ns: u64,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallAction {
        self.scalars.advance(ns);
        self.threads.time_out(self.scalars.clock_ns);
        self.expire_timers();
        let slice = Wait { cause: Cause::Slice, ..Wait::for_time(None) };
        self.threads.current_mut().wait = Some(slice);
        let mut made = Made { call: None, has_switched: false };
        let then = self.go_on(cpu, false, &mut made.has_switched);
        self.follow(then, made, mem, cpu)
    }

    /// From a call, or the end of a wait, to where the program goes on; an error is the process's
    /// end.
    fn follow(
        &mut self,
        then: Result<Then, SyscallAction>,
        mut made: Made,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallAction {
        match then.and_then(|then| self.make(then, &mut made, mem, cpu)) {
            Ok(action) => self.finish(&made, action, mem, cpu),
            Err(end) => end,
        }
    }

    /// Makes a call, as often as it takes, to the end of the wait that it may be; `made` is the
    /// call that is over then, which may be another thread's. An error is the process's end.
    fn make(
        &mut self,
        mut then: Then,
        made: &mut Made,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> Result<SyscallAction, SyscallAction> {
        loop {
            let call = match then {
                Then::Call(call) => call,
                Then::GoOn(done, action) => {
                    made.call = done;
                    return Ok(action);
                }
            };
            made.call = Some(call);
            let answer = self.dispatch_with_shared_files(&call, mem, cpu);
            self.settle_growth();
            let stop = match answer {
                Ok(value) => return Ok(SyscallAction::Return(value)),
                Err(stop) => stop,
            };
            let has_ended = matches!(stop, SyscallStop::Ended);
            match stop {
                SyscallStop::Errno(errno) => {
                    if errno == ENOENT {
                        self.note_missing(&call, mem);
                    }
                    return Ok(SyscallAction::Return(errno.to_return()));
                }
                SyscallStop::Resumed => return Ok(SyscallAction::Resumed),
                SyscallStop::End(end) => {
                    self.trace_call(&call, &end, mem);
                    return Err(end);
                }
                SyscallStop::Wait(wait) => self.begin_wait(call.nr, wait),
                SyscallStop::Ended => {}
            }
            then = self.go_on(cpu, has_ended, &mut made.has_switched)?;
        }
    }

    /// What follows a call that is over: its line in the trace, and the signals that are due.
    fn finish(
        &mut self,
        made: &Made,
        mut action: SyscallAction,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> SyscallAction {
        if let Some(call) = &made.call {
            if self.trace.is_some() {
                let shown = self.shown(&action, cpu);
                self.trace_call(call, &shown, mem);
            }
            if !self.threads.is_single() {
                self.threads.count_call();
            }
        }
        if self.threads.current().until.is_some() {
            self.threads.current_mut().until = None;
        }
        if made.has_switched
            && let SyscallAction::Return(value) = action
        {
            cpu.set_registers(&Registers { rax: value, ..cpu.registers() });
            action = SyscallAction::Resumed;
        }
        let action = self.take_signals(action, mem, cpu);
        // A frame may have made a stack grow.
        self.settle_growth();
        action
    }

    /// What a trace shows as a call's result: after a handler RAX is what it was before.
    fn shown(&self, action: &SyscallAction, cpu: &mut dyn Cpu) -> SyscallAction {
        match action {
            SyscallAction::Resumed => SyscallAction::Return(cpu.registers().rax),
            other => other.clone(),
        }
    }

    fn trace_call(&mut self, call: &SystemCall, action: &SyscallAction, mem: &dyn UserMemory) {
        let thread = self.traced_thread();
        if let Some(trace) = &mut self.trace {
            trace.add(thread, call, action, mem);
        }
    }

    /// The running thread, where there are several.
    pub(crate) fn traced_thread(&self) -> Option<u64> {
        (!self.threads.is_single()).then(|| self.threads.current().id)
    }

    fn begin_wait(&mut self, nr: u64, wait: Wait) {
        let thread = self.threads.current_mut();
        let is_again = matches!(wait.cause, Cause::Others { .. });
        if is_again {
            thread.until = wait.until;
        }
        (thread.call, thread.wait) = (nr, Some(wait));
    }

    /// What a transfer comes to that only another thread can make possible: a wait, or EAGAIN where
    /// the descriptor does not wait.
    pub(crate) fn not_yet(&self, open: Open) -> SyscallStop {
        match open.flags & libc::O_NONBLOCK {
            0 => Wait::for_others(self.threads.calls(), None).into(),
            _ => EAGAIN.into(),
        }
    }

    /// When a wait that was to end at `wanted` ends: a call that is made again does not begin to
    /// wait anew.
    pub(crate) fn until(&self, wanted: Option<u64>) -> Option<u64> {
        self.threads.current().until.or(wanted)
    }

    /// Finds the thread that goes on, and how, letting time pass if none can. The running thread
    /// waits, or `has_ended` and is gone. An error is the process's end.
    fn go_on(
        &mut self,
        cpu: &mut dyn Cpu,
        has_ended: bool,
        has_switched: &mut bool,
    ) -> Result<Then, SyscallAction> {
        for _ in 0..EXPIRATIONS_MAX {
            if let Some((index, ready)) = self.threads.next_ready() {
                let waiter = (!has_ended).then(|| self.threads.current().id);
                if has_ended || !self.threads.is_current(index) {
                    self.switch(index, waiter, cpu);
                    *has_switched = true;
                }
                return Ok(self.end_wait(ready, cpu));
            }
            let moments = [self.threads.first_timeout(), self.threads.timers.next()];
            let Some(moment) = moments.into_iter().flatten().min() else { break };
            self.scalars.wait_until(moment);
            self.threads.time_out(self.scalars.clock_ns);
            self.expire_timers();
        }
        Err(SyscallAction::Hang)
    }

    /// Saves the CPU's state for the thread `waiter`, and loads that of thread `index`.
    fn switch(&mut self, index: usize, waiter: Option<u64>, cpu: &mut dyn Cpu) {
        if let Some(thread) = waiter.and_then(|id| self.threads.find_mut(id)) {
            thread.context = Some(Box::new(Context::save(cpu)));
        }
        if let Some(context) = self.threads.switch_to(index) {
            context.load(cpu);
        }
    }

    /// Ends the wait of the thread that runs now.
    fn end_wait(&mut self, ready: Ready, cpu: &mut dyn Cpu) -> Then {
        let thread = self.threads.current_mut();
        let wait = thread.wait.take();
        let call = call_of(thread.call, &cpu.registers());
        match ready {
            Ready::Return(value) => Then::GoOn(Some(call), SyscallAction::Return(value)),
            Ready::Again => Then::Call(call),
            Ready::Preempted => Then::GoOn(None, SyscallAction::Resumed),
            Ready::Interrupted => {
                let restarts = wait.is_some_and(|wait| wait.restarts);
                thread.interrupted = Some(Interrupted { nr: thread.call, restarts });
                Then::GoOn(Some(call), SyscallAction::Return(EINTR.to_return()))
            }
        }
    }

    /// Sends the signals of timers that have expired.
    fn expire_timers(&mut self) {
        if self.threads.timers.are_idle() {
            return;
        }
        let (clock, busy) = (self.scalars.clock_ns, self.scalars.busy_ns());
        for (info, thread) in self.threads.timers.expire(clock, busy) {
            // One signal too many is one that is lost, as in Linux.
            let _ = self.send(info, thread);
        }
    }
}
