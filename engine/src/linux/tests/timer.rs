//! Timers.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::Guest;
const WAIT: u64 = libc::FUTEX_WAIT as u64;

#[test]
fn a_wait_that_nothing_can_end_is_a_hang_and_a_timer_ends_one() {
    let mut guest = Guest::simple();
    guest.spawn(0);
    let word = guest.put(0, &7u64.to_le_bytes());
    let both = guest.clone();
    guest.switch(libc::SYS_pause, []);
    assert_eq!(guest.verdict(libc::SYS_futex, [word, WAIT, 7, 0]), SyscallAction::Hang);

    let mut guest = both;
    guest.handle(libc::SIGALRM, 0x40_0000, 0);
    guest.ok(libc::SYS_alarm, [1]);
    guest.switch(libc::SYS_pause, []);
    assert_eq!(guest.verdict(libc::SYS_futex, [word, WAIT, 7, 0]), SyscallAction::Resumed);
    assert_eq!(guest.cpu.regs.rip, 0x40_0000, "the handler, in the first thread");
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1000);
}

#[test]
fn a_timer_whose_signal_is_ignored_ends_no_wait() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGALRM, libc::SIG_IGN as u64, 0);
    let often = guest.put(0, &[0u64, 1, 0, 1].map(u64::to_le_bytes).concat());
    guest.ok(libc::SYS_setitimer, [0, often, 0]);
    assert_eq!(guest.verdict(libc::SYS_pause, []), SyscallAction::Hang);
}
