//! Threads and signals in a word: who runs next, and handlers.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::{Guest, PAGE};

/// What `pthread_create` asks for, but for the thread's own storage.
pub(crate) const THREAD: u64 = 0x10f00;

/// Where the handlers of these tests are.
pub(crate) const HANDLER: u64 = 0x40_0000;

const SA_RESTORER: u64 = 0x0400_0000;
/// Where a handler returns to.
pub(crate) const RESTORER: u64 = 0x1234;

impl Guest {
    /// Makes a thread with its stack pointer at `stack`, or at the caller's; its number. Its end
    /// clears a word of the scratch memory's eighth page.
    pub(crate) fn spawn(&mut self, stack: u64) -> u64 {
        let flags = THREAD | libc::CLONE_CHILD_CLEARTID as u64;
        let clear_at = self.at(8);
        self.ok(libc::SYS_clone, [flags, stack, 0, clear_at, 0])
    }

    /// Makes a call after which another thread goes on, and tells what that one finds in RAX.
    pub(crate) fn switch(&mut self, nr: i64, args: impl AsRef<[u64]>) -> i64 {
        assert_eq!(self.verdict(nr, args), SyscallAction::Resumed);
        self.cpu.regs.rax as i64
    }

    /// Lets the other threads go first, and tells what the one that goes on finds in RAX.
    pub(crate) fn let_others_run(&mut self) -> i64 {
        self.switch(libc::SYS_sched_yield, [])
    }

    /// The number of the thread that runs.
    pub(crate) fn thread(&mut self) -> u64 {
        self.ok(libc::SYS_gettid, [])
    }

    /// Sets what a signal does: `SIG_DFL`, `SIG_IGN`, or a handler's address.
    pub(crate) fn handle(&mut self, signal: i32, handler: u64, flags: i32) {
        let flags = flags as u32 as u64 | SA_RESTORER;
        let at = self.words(PAGE, &[handler, flags, RESTORER, 0]);
        self.ok(libc::SYS_rt_sigaction, [signal as u64, at, 0, 8]);
    }

    /// Makes a call after which a handler runs.
    pub(crate) fn enters_handler(&mut self, nr: i64, args: impl AsRef<[u64]>) {
        assert_eq!(self.verdict(nr, args), SyscallAction::Resumed);
        assert_eq!(self.cpu.regs.rip, HANDLER);
    }

    /// Has a handler return, and tells what the program finds in RAX.
    pub(crate) fn return_from_handler(&mut self) -> i64 {
        // RET takes the restorer's address, and what is there makes the call.
        assert_eq!(self.word(self.cpu.regs.rsp), RESTORER);
        self.cpu.regs.rsp += 8;
        self.switch(libc::SYS_rt_sigreturn, [])
    }

    /// Blocks these signals and no others.
    pub(crate) fn block(&mut self, signals: &[i32]) {
        let set = self.signal_set(signals);
        self.ok(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, set, 0, 8]);
    }

    /// The address of a set of signals.
    pub(crate) fn signal_set(&mut self, signals: &[i32]) -> u64 {
        let set = signals.iter().fold(0, |set, signal| set | 1u64 << (signal - 1));
        self.words(PAGE, &[set])
    }
}
