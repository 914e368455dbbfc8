//! Threads, waits, signals and timers, without a CPU that would run them.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::sched::thread::THREADS_MAX;
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};
use crate::outcome::{Fault, MemoryAccess, Signal};

/// What `pthread_create` asks for, but for the thread's own storage.
const THREAD: u64 = 0x10f00;
const CLEAR_ID: u64 = libc::CLONE_CHILD_CLEARTID as u64;
const WAIT: u64 = libc::FUTEX_WAIT as u64;
const WAKE: u64 = libc::FUTEX_WAKE as u64;

/// Makes a thread with its stack pointer at `stack`; its number.
fn spawn(guest: &mut Guest, stack: u64) -> u64 {
    guest.ok(libc::SYS_clone, [THREAD | CLEAR_ID, stack, 0, guest.scratch + 8 * PAGE, 0])
}

/// Makes a call after which another thread goes on, and tells what that one finds in RAX.
fn switch(guest: &mut Guest, nr: i64, args: impl AsRef<[u64]>) -> i64 {
    assert_eq!(guest.verdict(nr, args), SyscallAction::Resumed);
    guest.cpu.regs.rax as i64
}

fn handler_at(guest: &mut Guest, signal: i32, handler: u64, flags: u64) {
    let action = [handler, flags | 0x0400_0000, 0x1234, 0];
    let bytes: Vec<u8> = action.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    let at = guest.put(PAGE, &bytes);
    guest.ok(libc::SYS_rt_sigaction, [signal as u64, at, 0, 8]);
}

#[test]
fn another_thread_goes_on_where_one_waits_and_finds_its_own_registers() {
    let mut guest = Guest::simple();
    let word = guest.put(0, &7u64.to_le_bytes());
    let stack = guest.scratch + 4 * PAGE;
    assert_eq!(spawn(&mut guest, stack), 1001);
    guest.cpu.bases = [0x1000, 0];
    let first = guest.cpu.regs;
    assert_eq!(switch(&mut guest, libc::SYS_futex, [word, WAIT, 7, 0]), 0, "the child's clone");
    assert_eq!((guest.cpu.regs.rsp, guest.cpu.bases), (stack, [0; 2]));
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1001);
    assert_eq!(guest.ok(libc::SYS_getpid, []), 1000);
    assert_eq!(guest.ok(libc::SYS_futex, [word, WAKE, 9]), 1, "one thread waited");
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1001, "a wake-up is no switch");
    assert_eq!(switch(&mut guest, libc::SYS_sched_yield, []), 0);
    assert_eq!((guest.cpu.regs.rsp, guest.cpu.bases), (first.rsp, [0x1000, 0]));
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1000);
}

#[test]
fn the_end_of_a_thread_wakes_who_joins_it() {
    let mut guest = Guest::simple();
    let id_at = guest.put(8 * PAGE, &1001u64.to_le_bytes());
    spawn(&mut guest, 0);
    switch(&mut guest, libc::SYS_futex, [id_at, WAIT, 1001, 0]);
    assert_eq!(switch(&mut guest, libc::SYS_exit, [3]), 0, "the join's wait is over");
    assert_eq!(guest.word(id_at), 0);
    assert_eq!(guest.verdict(libc::SYS_exit, [4]), SyscallAction::Exit { status: 4 });
}

#[test]
fn the_process_has_the_status_of_its_first_thread() {
    let mut guest = Guest::simple();
    spawn(&mut guest, 0);
    switch(&mut guest, libc::SYS_exit, [3]);
    assert_eq!(guest.verdict(libc::SYS_exit, [4]), SyscallAction::Exit { status: 3 });
}

#[test]
fn time_passes_only_where_no_thread_can_go_on() {
    let mut guest = Guest::simple();
    let hour = guest.put(0, &[3600u64.to_le_bytes(), [0; 8]].concat());
    let second = guest.put(16, &[1u64.to_le_bytes(), [0; 8]].concat());
    spawn(&mut guest, 0);
    let before = guest.process.scalars.clock_ns;
    switch(&mut guest, libc::SYS_nanosleep, [hour, 0]);
    assert!(guest.process.scalars.clock_ns - before < 1_000_000_000, "the other one runs");
    guest.ok(libc::SYS_nanosleep, [second, 0]);
    let passed = guest.process.scalars.clock_ns - before;
    assert!((1_000_000_000..2_000_000_000).contains(&passed), "{passed}");
    assert!(guest.process.scalars.busy_ns() < 1_000_000_000, "sleeping costs no CPU time");
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1001);
}

#[test]
fn a_wait_that_nothing_can_end_is_a_hang_and_a_timer_ends_one() {
    let mut guest = Guest::simple();
    spawn(&mut guest, 0);
    let word = guest.put(0, &7u64.to_le_bytes());
    let both = guest.clone();
    switch(&mut guest, libc::SYS_pause, []);
    assert_eq!(guest.verdict(libc::SYS_futex, [word, WAIT, 7, 0]), SyscallAction::Hang);

    let mut guest = both;
    handler_at(&mut guest, libc::SIGALRM, 0x40_0000, 0);
    guest.ok(libc::SYS_alarm, [1]);
    switch(&mut guest, libc::SYS_pause, []);
    assert_eq!(guest.verdict(libc::SYS_futex, [word, WAIT, 7, 0]), SyscallAction::Resumed);
    assert_eq!(guest.cpu.regs.rip, 0x40_0000, "the handler, in the first thread");
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1000);
}

#[test]
fn a_timer_whose_signal_is_ignored_ends_no_wait() {
    let mut guest = Guest::simple();
    handler_at(&mut guest, libc::SIGALRM, libc::SIG_IGN as u64, 0);
    let often = guest.put(0, &[0u64, 1, 0, 1].map(u64::to_le_bytes).concat());
    guest.ok(libc::SYS_setitimer, [0, often, 0]);
    assert_eq!(guest.verdict(libc::SYS_pause, []), SyscallAction::Hang);
}

#[test]
fn threads_and_signals_in_line_are_bounded() {
    let mut guest = Guest::simple();
    for _ in 1..THREADS_MAX {
        spawn(&mut guest, 0);
    }
    guest.err(libc::SYS_clone, [THREAD, 0, 0, 0, 0], libc::EAGAIN);
    let set = guest.put(0, &u64::MAX.to_le_bytes());
    guest.ok(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, set, 0, 8]);
    let queued = (0..300).map(|_| guest.call(libc::SYS_tgkill, [1000, 1000, 40]));
    assert_eq!(queued.filter(|sent| *sent == 0).count(), 256);
}

#[test]
fn a_handler_returns_to_where_it_came_in() {
    let mut guest = Guest::simple();
    handler_at(&mut guest, libc::SIGUSR1, 0x40_0000, 0);
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
    handler_at(&mut guest, libc::SIGSEGV, 0x40_0000, 0);
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
