//! Threads.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::sched::thread::THREADS_MAX;
use crate::linux::tests::mock::threads::THREAD;
use crate::linux::tests::mock::{Guest, PAGE};
const WAIT: u64 = libc::FUTEX_WAIT as u64;
const WAKE: u64 = libc::FUTEX_WAKE as u64;

#[test]
fn another_thread_goes_on_where_one_waits_and_finds_its_own_registers() {
    let mut guest = Guest::simple();
    let word = guest.put(0, &7u64.to_le_bytes());
    let stack = guest.scratch + 4 * PAGE;
    assert_eq!(guest.spawn(stack), 1001);
    guest.cpu.bases = [0x1000, 0];
    let first = guest.cpu.regs;
    assert_eq!(guest.switch(libc::SYS_futex, [word, WAIT, 7, 0]), 0, "the child's clone");
    assert_eq!((guest.cpu.regs.rsp, guest.cpu.bases), (stack, [0; 2]));
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1001);
    assert_eq!(guest.ok(libc::SYS_getpid, []), 1000);
    assert_eq!(guest.ok(libc::SYS_futex, [word, WAKE, 9]), 1, "one thread waited");
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1001, "a wake-up is no switch");
    assert_eq!(guest.switch(libc::SYS_sched_yield, []), 0);
    assert_eq!((guest.cpu.regs.rsp, guest.cpu.bases), (first.rsp, [0x1000, 0]));
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1000);
}

#[test]
fn the_end_of_a_thread_wakes_who_joins_it() {
    let mut guest = Guest::simple();
    let id_at = guest.put(8 * PAGE, &1001u64.to_le_bytes());
    guest.spawn(0);
    guest.switch(libc::SYS_futex, [id_at, WAIT, 1001, 0]);
    assert_eq!(guest.switch(libc::SYS_exit, [3]), 0, "the join's wait is over");
    assert_eq!(guest.word(id_at), 0);
    assert_eq!(guest.verdict(libc::SYS_exit, [4]), SyscallAction::Exit { status: 4 });
}

#[test]
fn the_process_has_the_status_of_its_first_thread() {
    let mut guest = Guest::simple();
    guest.spawn(0);
    guest.switch(libc::SYS_exit, [3]);
    assert_eq!(guest.verdict(libc::SYS_exit, [4]), SyscallAction::Exit { status: 3 });
}

#[test]
fn threads_and_signals_in_line_are_bounded() {
    let mut guest = Guest::simple();
    for _ in 1..THREADS_MAX {
        guest.spawn(0);
    }
    guest.err(libc::SYS_clone, [THREAD, 0, 0, 0, 0], libc::EAGAIN);
    let set = guest.put(0, &u64::MAX.to_le_bytes());
    guest.ok(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as u64, set, 0, 8]);
    let queued = (0..300).map(|_| guest.call(libc::SYS_tgkill, [1000, 1000, 40]));
    assert_eq!(queued.filter(|sent| *sent == 0).count(), 256);
}
