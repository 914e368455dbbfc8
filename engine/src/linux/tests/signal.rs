//! Signals: what they do, who gets one, when, and how to wait for one.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::threads::HANDLER;
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};
use crate::outcome::{Fault, MemoryAccess, Signal};

const USR1: u64 = libc::SIGUSR1 as u64;
const USR2: u64 = libc::SIGUSR2 as u64;
/// One of those that queue up.
const REAL_TIME: u64 = 40;
const IGNORE: u64 = libc::SIG_IGN as u64;
const BLOCK: u64 = libc::SIG_BLOCK as u64;
const UNBLOCK: u64 = libc::SIG_UNBLOCK as u64;
const SET_MASK: u64 = libc::SIG_SETMASK as u64;
const SI_QUEUE: i32 = -1;
const SI_TKILL: i32 = -6;
const ON_STACK: u32 = libc::SS_ONSTACK as u32;
const DISABLED: u32 = libc::SS_DISABLE as u32;

/// A set of signals by their numbers.
fn set_of(signals: &[u64]) -> u64 {
    signals.iter().fold(0, |set, signal| set | 1u64 << (signal - 1))
}

impl Guest {
    /// The running thread's mask.
    fn mask(&mut self) -> u64 {
        let out = self.at(4);
        self.ok(libc::SYS_rt_sigprocmask, [0, 0, out, 8]);
        self.word(out)
    }

    fn pending(&mut self) -> u64 {
        let out = self.at(4);
        self.ok(libc::SYS_rt_sigpending, [out, 8]);
        self.word(out)
    }

    /// Takes a signal of `set` that waits already; its number, or what is wrong. What it tells is in
    /// the scratch memory's fifth page.
    fn take_signal(&mut self, set: u64) -> i64 {
        let (set, at_once) = (self.words(64, &[set]), self.words(128, &[0, 0]));
        let info = self.at(5);
        self.call(libc::SYS_rt_sigtimedwait, [set, info, at_once, 8])
    }

    /// A `siginfo_t` with a code and a value.
    fn info(&mut self, code: i32, value: u64) -> u64 {
        self.words(256, &[0, u64::from(code as u32), 0, value])
    }

    /// `sigaltstack` with a stack; what the call returns.
    fn set_stack(&mut self, base: u64, flags: u32, bytes: u64) -> i64 {
        let at = self.words(64, &[base, flags.into(), bytes]);
        self.call(libc::SYS_sigaltstack, [at, 0])
    }

    /// The alternate stack: where, its flags, its bytes.
    fn stack(&mut self) -> (u64, u32, u64) {
        let out = self.at(4);
        self.ok(libc::SYS_sigaltstack, [0, out]);
        (self.word(out), self.half(out + 8), self.word(out + 16))
    }
}

#[test]
fn ends_by_signals_to_itself_unless_ignored_or_blocked() {
    let mut guest = Guest::simple();
    let abort = SyscallAction::Signal(Signal::ABRT);
    assert_eq!(guest.verdict(libc::SYS_tgkill, [1000, 1000, 6]), abort);
    assert_eq!(guest.verdict(libc::SYS_kill, [0, 6]), abort);
    guest.ok(libc::SYS_kill, [1000, 0]);
    guest.ok(libc::SYS_kill, [1000, libc::SIGCHLD as u64]);
    guest.err(libc::SYS_kill, [4242, 6], libc::ESRCH);
    guest.err(libc::SYS_kill, [1000, 65], libc::EINVAL);
    let action = guest.put(0, &1u64.to_le_bytes());
    guest.ok(libc::SYS_rt_sigaction, [6, action, 0, 8]);
    guest.ok(libc::SYS_kill, [1000, 6]);
    guest.err(libc::SYS_rt_sigaction, [9, action, 0, 8], libc::EINVAL);
    let set = guest.put(0, &(1u64 << 14).to_le_bytes());
    guest.ok(libc::SYS_rt_sigprocmask, [libc::SIG_BLOCK as u64, set, 0, 8]);
    guest.ok(libc::SYS_kill, [1000, 15]);
    let unblocked = guest.verdict(libc::SYS_rt_sigprocmask, [libc::SIG_UNBLOCK as u64, set, 0, 8]);
    assert_eq!(unblocked, SyscallAction::Signal(Signal(15)));
}

#[test]
fn a_handler_returns_to_where_it_came_in() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGUSR1, 0x40_0000, 0);
    guest.cpu.extended[200] = 0x77;
    let (regs, extended) = (guest.cpu.regs, guest.cpu.extended.clone());
    assert_eq!(guest.verdict(libc::SYS_kill, [1000, libc::SIGUSR1 as u64]), SyscallAction::Resumed);
    assert_eq!((guest.cpu.regs.rip, guest.cpu.regs.rdi), (0x40_0000, 10));
    assert_ne!(guest.cpu.extended, extended, "a handler starts with a state of its own");
    assert_eq!(guest.word(guest.cpu.regs.rsp), 0x1234, "it returns to the restorer");
    // RET.
    guest.cpu.regs.rsp += 8;
    assert_eq!(guest.verdict(libc::SYS_rt_sigreturn, []), SyscallAction::Resumed);
    assert_eq!((guest.cpu.regs.rip, guest.cpu.regs.rsp), (regs.rip, regs.rsp));
    assert_eq!(guest.cpu.regs.rax, 0, "the call that sent the signal has succeeded");
    assert_eq!(guest.cpu.extended[200], 0x77);
}

#[test]
fn a_frame_that_no_kernel_made_is_a_fault() {
    for rsp in [0, NOWHERE, u64::MAX - 100, 1 << 63] {
        let mut guest = Guest::simple();
        guest.cpu.regs.rsp = rsp;
        let verdict = guest.verdict(libc::SYS_rt_sigreturn, []);
        assert_eq!(verdict, SyscallAction::Signal(Signal::SEGV), "{rsp:#x}");
    }
    let mut guest = Guest::simple();
    guest.cpu.regs.rsp = guest.put(0, &[0xff; 2048]);
    assert_eq!(guest.verdict(libc::SYS_rt_sigreturn, []), SyscallAction::Signal(Signal::SEGV));
}

#[test]
fn a_fault_in_a_handler_without_a_stack_ends_the_process() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGSEGV, 0x40_0000, 0);
    guest.cpu.regs.rsp = NOWHERE;
    let access = Some(MemoryAccess { address: Some(NOWHERE), kind: crate::outcome::Access::Write });
    let fault = Fault {
        signal: Signal::SEGV,
        rip: guest.cpu.regs.rip,
        access,
        vector: Some(14),
        error_code: Some(6),
    };
    let verdict = guest.process.fault(&fault, NOWHERE, &mut guest.mem, &mut guest.cpu);
    assert_eq!(verdict, SyscallAction::Signal(Signal::SEGV));
}

#[test]
fn an_action_is_set_and_told() {
    let mut guest = Guest::simple();
    let (new, out) = (guest.words(0, &[HANDLER, 0x1400_0000, 0x5678, u64::MAX]), guest.at(4));
    guest.ok(libc::SYS_rt_sigaction, [USR1, new, out, 8]);
    assert_eq!(guest.get(out, 32), [0; 32], "the default before");
    guest.ok(libc::SYS_rt_sigaction, [USR1, 0, out, 8]);
    let told = [0, 8, 16, 24].map(|offset| guest.word(out + offset));
    let unblockable = set_of(&[libc::SIGKILL as u64, libc::SIGSTOP as u64]);
    assert_eq!(told, [HANDLER, 0x1400_0000, 0x5678, !unblockable]);
    guest.ok(libc::SYS_rt_sigaction, [libc::SIGKILL as u64, 0, out, 8]);
    guest.fails(&[
        (libc::SYS_rt_sigaction, &[0, 0, 0, 8], libc::EINVAL),
        (libc::SYS_rt_sigaction, &[65, 0, 0, 8], libc::EINVAL),
        (libc::SYS_rt_sigaction, &[USR1, 0, 0, 4], libc::EINVAL),
        (libc::SYS_rt_sigaction, &[libc::SIGKILL as u64, new, 0, 8], libc::EINVAL),
        (libc::SYS_rt_sigaction, &[libc::SIGSTOP as u64, new, 0, 8], libc::EINVAL),
        (libc::SYS_rt_sigaction, &[USR1, NOWHERE, 0, 8], libc::EFAULT),
        (libc::SYS_rt_sigaction, &[USR1, 0, NOWHERE, 8], libc::EFAULT),
    ]);
}

#[test]
fn a_mask_is_joined_cut_or_set_but_for_two_signals() {
    let mut guest = Guest::simple();
    let [first, second, all] = [set_of(&[USR1]), set_of(&[USR2]), u64::MAX];
    for (how, set, mask) in [
        (BLOCK, first, first),
        (BLOCK, second, first | second),
        (UNBLOCK, first, second),
        (SET_MASK, first, first),
        (SET_MASK, all, !set_of(&[libc::SIGKILL as u64, libc::SIGSTOP as u64])),
    ] {
        let at = guest.words(0, &[set]);
        guest.ok(libc::SYS_rt_sigprocmask, [how, at, 0, 8]);
        assert_eq!(guest.mask(), mask);
    }
    let (at, out) = (guest.words(0, &[0]), guest.at(4));
    guest.fails(&[
        (libc::SYS_rt_sigprocmask, &[9, at, 0, 8], libc::EINVAL),
        (libc::SYS_rt_sigprocmask, &[BLOCK, at, 0, 4], libc::EINVAL),
        (libc::SYS_rt_sigprocmask, &[BLOCK, NOWHERE, 0, 8], libc::EFAULT),
        (libc::SYS_rt_sigprocmask, &[BLOCK, 0, NOWHERE, 8], libc::EFAULT),
    ]);
    guest.ok(libc::SYS_rt_sigprocmask, [9, 0, out, 8]);
}

#[test]
fn a_blocked_signal_waits_to_be_taken() {
    let mut guest = Guest::simple();
    guest.block(&[libc::SIGUSR1, libc::SIGUSR2]);
    guest.ok(libc::SYS_kill, [1000, USR2]);
    guest.ok(libc::SYS_tkill, [1000, USR1]);
    assert_eq!(guest.pending(), set_of(&[USR1, USR2]));
    assert_eq!(guest.take_signal(set_of(&[USR1, USR2])), USR1 as i64);
    let info = guest.at(5);
    assert_eq!((guest.half(info), guest.half(info + 8) as i32), (USR1 as u32, SI_TKILL));
    assert_eq!((guest.half(info + 16), guest.half(info + 20)), (1000, 1000), "who sent it");
    assert_eq!(guest.pending(), set_of(&[USR2]));
    let out = guest.put(4 * PAGE, &[0xff; 8]);
    guest.ok(libc::SYS_rt_sigpending, [out, 4]);
    assert_eq!((guest.half(out) as u64, guest.half(out + 4)), (set_of(&[USR2]), u32::MAX));
    guest.err(libc::SYS_rt_sigpending, [out, 9], libc::EINVAL);
    guest.err(libc::SYS_rt_sigpending, [NOWHERE, 8], libc::EFAULT);
}

#[test]
fn a_standard_signal_is_pending_once_and_a_real_time_one_as_often_as_it_was_sent() {
    let mut guest = Guest::simple();
    guest.block(&[libc::SIGUSR1, REAL_TIME as i32]);
    for value in 1..4 {
        let info = guest.info(SI_QUEUE, value);
        guest.ok(libc::SYS_rt_sigqueueinfo, [1000, USR1, info]);
        guest.ok(libc::SYS_rt_sigqueueinfo, [1000, REAL_TIME, info]);
    }
    let set = set_of(&[USR1, REAL_TIME]);
    let taken: Vec<_> = (0..5)
        .map(|_| (guest.take_signal(set), guest.word(guest.at(5) + 24)))
        .take_while(|(signal, _)| *signal > 0)
        .collect();
    let real_time = REAL_TIME as i64;
    assert_eq!(taken, [(10, 1), (real_time, 1), (real_time, 2), (real_time, 3)]);
    assert_eq!(guest.take_signal(set), -i64::from(libc::EAGAIN));
}

#[test]
fn a_threads_own_signals_are_taken_before_those_of_the_process() {
    let mut guest = Guest::simple();
    guest.block(&[libc::SIGUSR1, REAL_TIME as i32]);
    let info = guest.info(SI_QUEUE, 7);
    guest.ok(libc::SYS_rt_sigqueueinfo, [1000, USR1, info]);
    guest.ok(libc::SYS_rt_tgsigqueueinfo, [1000, 1000, REAL_TIME, info]);
    let set = set_of(&[USR1, REAL_TIME]);
    assert_eq!([guest.take_signal(set), guest.take_signal(set)], [REAL_TIME as i64, USR1 as i64]);
}

#[test]
fn who_is_sent_a_signal_must_be_there() {
    let mut guest = Guest::simple();
    let info = guest.info(SI_QUEUE, 0);
    let nobody = 99_999;
    guest.fails(&[
        (libc::SYS_kill, &[1000, u64::MAX], libc::EINVAL),
        (libc::SYS_kill, &[nobody, 0], libc::ESRCH),
        (libc::SYS_kill, &[-99_999_i64 as u64, 0], libc::ESRCH),
        (libc::SYS_kill, &[1, USR1], libc::EPERM),
        (libc::SYS_tkill, &[0, 0], libc::EINVAL),
        (libc::SYS_tkill, &[u64::MAX, 0], libc::EINVAL),
        (libc::SYS_tkill, &[nobody, 0], libc::ESRCH),
        (libc::SYS_tkill, &[1000, 65], libc::EINVAL),
        (libc::SYS_tgkill, &[0, 1000, 0], libc::EINVAL),
        (libc::SYS_tgkill, &[1000, 0, 0], libc::EINVAL),
        (libc::SYS_tgkill, &[nobody, 1000, 0], libc::ESRCH),
        (libc::SYS_tgkill, &[1000, nobody, 0], libc::ESRCH),
        (libc::SYS_tgkill, &[1000, 1000, 65], libc::EINVAL),
        (libc::SYS_rt_sigqueueinfo, &[1000, 65, info], libc::EINVAL),
        (libc::SYS_rt_sigqueueinfo, &[nobody, USR1, info], libc::ESRCH),
        (libc::SYS_rt_sigqueueinfo, &[1000, USR1, NOWHERE], libc::EFAULT),
        (libc::SYS_rt_tgsigqueueinfo, &[1000, nobody, USR1, info], libc::ESRCH),
        (libc::SYS_rt_tgsigqueueinfo, &[1000, 1000, USR1, NOWHERE], libc::EFAULT),
    ]);
    // Signal 0 asks only whether somebody is there.
    guest.ok(libc::SYS_tkill, [1000, 0]);
    guest.ok(libc::SYS_tgkill, [1000, 1000, 0]);
    guest.ok(libc::SYS_rt_sigqueueinfo, [1000, 0, info]);
    guest.ok(libc::SYS_kill, [-1000_i64 as u64, 0]);
}

#[test]
fn a_signal_to_one_thread_is_taken_by_that_one() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGUSR1, HANDLER, 0);
    guest.spawn(0);
    guest.ok(libc::SYS_tgkill, [1000, 1001, USR1]);
    assert_eq!(guest.thread(), 1000, "the sender goes on");
    guest.enters_handler(libc::SYS_sched_yield, []);
    assert_eq!(guest.thread(), 1001);
}

#[test]
fn a_signal_to_the_process_is_taken_by_a_thread_that_does_not_block_it() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGUSR1, HANDLER, 0);
    guest.spawn(0);
    guest.block(&[libc::SIGUSR1]);
    guest.ok(libc::SYS_kill, [1000, USR1]);
    guest.enters_handler(libc::SYS_sched_yield, []);
    assert_eq!(guest.thread(), 1001);
}

#[test]
fn a_handler_runs_under_its_own_mask_and_the_old_one_comes_back() {
    let mut guest = Guest::simple();
    let action = guest.words(0, &[HANDLER, 0x0400_0000, 0x1234, set_of(&[USR2])]);
    guest.ok(libc::SYS_rt_sigaction, [USR1, action, 0, 8]);
    guest.enters_handler(libc::SYS_kill, [1000, USR1]);
    let in_handler = guest.cpu.regs.rsp;
    assert_eq!(guest.mask(), set_of(&[USR1, USR2]));
    guest.cpu.regs.rsp = in_handler;
    assert_eq!(guest.return_from_handler(), 0);
    assert_eq!(guest.mask(), 0);
}

#[test]
fn a_handler_for_once_and_one_that_lets_itself_in() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGUSR1, HANDLER, libc::SA_RESETHAND | libc::SA_NODEFER);
    guest.enters_handler(libc::SYS_kill, [1000, USR1]);
    assert_eq!(guest.mask(), 0, "not deferred");
    let killed = guest.verdict(libc::SYS_kill, [1000, USR1]);
    assert_eq!(killed, SyscallAction::Signal(Signal(USR1 as u8)), "the default again");
}

#[test]
fn a_read_that_a_handler_interrupts_fails_or_is_made_again() {
    for (flags, restarts) in [(0, false), (libc::SA_RESTART, true)] {
        let mut guest = Guest::simple();
        let [reader, _] = guest.pipe(0);
        guest.handle(libc::SIGALRM, HANDLER, flags);
        guest.ok(libc::SYS_alarm, [1]);
        let (at, instruction) = (guest.at(4), guest.cpu.regs.rip - 2);
        guest.enters_handler(libc::SYS_read, [reader, at, 1]);
        let found = guest.return_from_handler();
        match restarts {
            true => {
                assert_eq!((found, guest.cpu.regs.rip), (libc::SYS_read, instruction));
                assert_eq!((guest.cpu.regs.rdi, guest.cpu.regs.rsi), (reader, at));
            }
            false => assert_eq!(found, -i64::from(libc::EINTR)),
        }
    }
}

#[test]
fn a_pause_ends_at_a_signal_with_a_handler_and_not_at_one_that_is_ignored() {
    let mut guest = Guest::simple();
    assert_eq!(guest.clone().verdict(libc::SYS_pause, []), SyscallAction::Hang);
    guest.handle(libc::SIGUSR2, IGNORE, 0);
    guest.handle(libc::SIGUSR1, HANDLER, libc::SA_RESTART);
    guest.spawn(0);
    guest.switch(libc::SYS_pause, []);
    guest.ok(libc::SYS_kill, [1000, USR2]);
    assert_eq!(guest.ok(libc::SYS_sched_yield, []), 0, "it still waits");
    guest.ok(libc::SYS_tkill, [1000, USR1]);
    guest.enters_handler(libc::SYS_sched_yield, []);
    assert_eq!(guest.return_from_handler(), -i64::from(libc::EINTR));
    assert_eq!(guest.thread(), 1000);
}

#[test]
fn who_suspends_itself_waits_under_another_mask() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGUSR1, HANDLER, 0);
    guest.block(&[libc::SIGUSR1]);
    guest.ok(libc::SYS_kill, [1000, USR1]);
    let none = guest.words(64, &[0]);
    guest.enters_handler(libc::SYS_rt_sigsuspend, [none, 8]);
    assert_eq!(guest.return_from_handler(), -i64::from(libc::EINTR));
    assert_eq!(guest.mask(), set_of(&[USR1]));
    guest.err(libc::SYS_rt_sigsuspend, [none, 4], libc::EINVAL);
    guest.err(libc::SYS_rt_sigsuspend, [NOWHERE, 8], libc::EFAULT);
}

#[test]
fn who_waits_for_a_signal_takes_it_or_goes_on_without() {
    let mut guest = Guest::simple();
    guest.block(&[libc::SIGUSR1]);
    let (set, second) = (guest.words(64, &[set_of(&[USR1])]), guest.words(128, &[1, 0]));
    let before = guest.process.scalars.clock_ns;
    guest.err(libc::SYS_rt_sigtimedwait, [set, 0, second, 8], libc::EAGAIN);
    assert!(guest.process.scalars.clock_ns - before >= 1_000_000_000);
    guest.spawn(0);
    guest.switch(libc::SYS_rt_sigtimedwait, [set, 0, 0, 8]);
    guest.ok(libc::SYS_tkill, [1000, USR1]);
    assert_eq!(guest.let_others_run(), USR1 as i64);
    let bad = guest.words(128, &[0, u64::MAX]);
    guest.fails(&[
        (libc::SYS_rt_sigtimedwait, &[set, 0, bad, 8], libc::EINVAL),
        (libc::SYS_rt_sigtimedwait, &[set, 0, 0, 7], libc::EINVAL),
        (libc::SYS_rt_sigtimedwait, &[NOWHERE, 0, 0, 8], libc::EFAULT),
        (libc::SYS_rt_sigtimedwait, &[set, 0, NOWHERE, 8], libc::EFAULT),
    ]);
}

#[test]
fn a_handler_may_have_a_stack_of_its_own() {
    let mut guest = Guest::simple();
    assert_eq!(guest.stack(), (0, DISABLED, 0));
    let base = guest.at(11);
    let bytes = 4 * PAGE;
    assert_eq!(guest.set_stack(base, 0, bytes), 0);
    assert_eq!(guest.stack(), (base, 0, bytes));
    guest.handle(libc::SIGUSR1, HANDLER, libc::SA_ONSTACK);
    guest.enters_handler(libc::SYS_kill, [1000, USR1]);
    let frame = guest.cpu.regs.rsp;
    assert!((base..base + bytes).contains(&frame), "{frame:#x}");
    assert_eq!(guest.stack(), (base, ON_STACK, bytes), "it is in use");
    assert_eq!(guest.set_stack(base, DISABLED, 0), -i64::from(libc::EPERM));
    assert_eq!(guest.return_from_handler(), 0);
    assert_eq!(guest.set_stack(base, DISABLED, 0), 0);
    assert_eq!(guest.stack(), (0, DISABLED, 0));
    guest.enters_handler(libc::SYS_kill, [1000, USR1]);
    let frame = guest.cpu.regs.rsp;
    assert!(!(base..base + bytes).contains(&frame), "{frame:#x}");
}

#[test]
fn an_alternate_stack_is_checked_as_linux_does() {
    let mut guest = Guest::simple();
    let base = guest.at(11);
    assert_eq!(guest.set_stack(base, 0, 2047), -i64::from(libc::ENOMEM));
    assert_eq!(guest.set_stack(base, 99, PAGE), -i64::from(libc::EINVAL));
    guest.err(libc::SYS_sigaltstack, [NOWHERE, 0], libc::EFAULT);
    guest.err(libc::SYS_sigaltstack, [0, NOWHERE], libc::EFAULT);
    assert_eq!(guest.stack(), (0, DISABLED, 0));
    let auto_disarm = 1 << 31;
    assert_eq!(guest.set_stack(base, ON_STACK | auto_disarm, PAGE), 0);
    guest.handle(libc::SIGUSR1, HANDLER, libc::SA_ONSTACK);
    guest.enters_handler(libc::SYS_kill, [1000, USR1]);
    assert_eq!(guest.stack(), (0, DISABLED, 0), "gone while a handler runs");
}

#[test]
fn a_stop_is_not_supported_and_a_kill_cannot_be_ignored() {
    let mut guest = Guest::simple();
    let stopped = guest.clone().verdict(libc::SYS_kill, [1000, libc::SIGTSTP as u64]);
    assert!(matches!(stopped, SyscallAction::Unsupported(what) if what.contains("stops")));
    guest.block(&(1..=31).collect::<Vec<_>>());
    let killed = guest.verdict(libc::SYS_kill, [1000, libc::SIGKILL as u64]);
    assert_eq!(killed, SyscallAction::Signal(Signal(libc::SIGKILL as u8)));
}

#[test]
fn a_signal_that_becomes_ignored_is_forgotten() {
    let mut guest = Guest::simple();
    guest.block(&[libc::SIGUSR1]);
    guest.ok(libc::SYS_kill, [1000, USR1]);
    guest.handle(libc::SIGUSR1, IGNORE, 0);
    assert_eq!(guest.pending(), 0);
    guest.handle(libc::SIGUSR1, libc::SIG_DFL as u64, 0);
    guest.block(&[]);
    assert_eq!(guest.pending(), 0);
}

#[test]
fn a_rewind_takes_actions_masks_stacks_and_pending_signals_back() {
    let mut guest = Guest::simple();
    let base = guest.at(11);
    guest.undoes("signal handlers", |guest| guest.handle(libc::SIGUSR1, HANDLER, 0));
    guest.undoes("threads", |guest| guest.block(&[libc::SIGUSR1]));
    guest.undoes("threads", |guest| guest.set_stack(base, 0, PAGE));
    guest.block(&[libc::SIGUSR1]);
    guest.undoes("threads", |guest| guest.ok(libc::SYS_kill, [1000, USR1]));
    assert_eq!((guest.pending(), guest.stack()), (0, (0, DISABLED, 0)));
}
