//! `futex`: words that threads wait at.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::threads::HANDLER;
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};

const WAIT: u64 = libc::FUTEX_WAIT as u64;
const WAKE: u64 = libc::FUTEX_WAKE as u64;
const REQUEUE: u64 = libc::FUTEX_REQUEUE as u64;
const COMPARE_REQUEUE: u64 = libc::FUTEX_CMP_REQUEUE as u64;
const WAKE_AND_CHANGE: u64 = libc::FUTEX_WAKE_OP as u64;
const WAIT_BITSET: u64 = libc::FUTEX_WAIT_BITSET as u64;
const WAKE_BITSET: u64 = libc::FUTEX_WAKE_BITSET as u64;
const PRIVATE: u64 = libc::FUTEX_PRIVATE_FLAG as u64;
const REAL_TIME: u64 = libc::FUTEX_CLOCK_REALTIME as u64;
const FROM_ALL: u64 = u32::MAX as u64;

impl Guest {
    fn futex(&mut self, at: u64, operation: u64, value: u64) -> u64 {
        self.ok(libc::SYS_futex, [at, operation, value])
    }

    /// Has `count` new threads wait at a word that holds 7; the first thread goes on.
    fn waiters(&mut self, at: u64, count: u64) {
        for _ in 0..count {
            self.spawn(0);
        }
        self.let_others_run();
        for _ in 0..count {
            self.switch(libc::SYS_futex, [at, WAIT | PRIVATE, 7, 0]);
        }
        assert_eq!(self.thread(), 1000);
    }

    /// A clock's seconds and nanoseconds, `ns` from now, as a `timespec`.
    fn moment(&mut self, clock: i32, ns: u64) -> u64 {
        let out = self.at(6);
        self.ok(libc::SYS_clock_gettime, [clock as u64, out]);
        let ns = self.word(out + 8) + ns;
        self.words(6 * PAGE, &[self.word(out) + ns / 1_000_000_000, ns % 1_000_000_000])
    }
}

#[test]
fn hangs_where_only_a_second_thread_could_go_on() {
    let mut guest = Guest::simple();
    let word = guest.put(0, &7u64.to_le_bytes());
    guest.err(libc::SYS_futex, [word, 0, 8, 0], libc::EAGAIN);
    assert_eq!(guest.verdict(libc::SYS_futex, [word, 0, 7, 0]), SyscallAction::Hang);
    let timeout = guest.put(64, &[0; 16]);
    guest.err(libc::SYS_futex, [word, 0, 7, timeout], libc::ETIMEDOUT);
    assert_eq!(guest.ok(libc::SYS_futex, [word, 1, 1, 0]), 0);
    assert_eq!(guest.verdict(libc::SYS_fork, []), SyscallAction::Unsupported("fork".to_owned()));
    assert_eq!(guest.verdict(libc::SYS_exit_group, [259]), SyscallAction::Exit { status: 3 });
}

#[test]
fn as_many_are_woken_as_asked_for_in_the_order_in_which_they_run() {
    let mut guest = Guest::simple();
    let word = guest.words(0, &[7]);
    guest.waiters(word, 3);
    assert_eq!(guest.futex(word, WAKE | PRIVATE, 2), 2);
    assert_eq!(guest.let_others_run(), 0);
    assert_eq!(guest.thread(), 1001);
    assert_eq!(guest.futex(word, WAKE, 9), 1, "the third");
    assert_eq!(guest.futex(word, WAKE, 9), 0);
    assert_eq!(guest.futex(word + 4, WAKE, 9), 0, "another word");
}

#[test]
fn a_word_is_looked_at_before_anyone_waits_at_it() {
    let mut guest = Guest::simple();
    let word = guest.words(0, &[7]);
    let bad_time = guest.words(64, &[0, 1_000_000_000]);
    let negative = guest.words(80, &[u64::MAX, 0]);
    guest.fails(&[
        (libc::SYS_futex, &[word + 1, WAIT, 7, 0], libc::EINVAL),
        (libc::SYS_futex, &[word + 1, WAKE, 1], libc::EINVAL),
        (libc::SYS_futex, &[NOWHERE, WAIT, 7, 0], libc::EFAULT),
        (libc::SYS_futex, &[word, WAIT, 8, 0], libc::EAGAIN),
        (libc::SYS_futex, &[word, WAIT, 8, bad_time], libc::EINVAL),
        (libc::SYS_futex, &[word, WAIT, 7, negative], libc::EINVAL),
        (libc::SYS_futex, &[word, WAIT, 7, NOWHERE], libc::EFAULT),
        (libc::SYS_futex, &[word, WAIT_BITSET, 7, 0, 0, 0], libc::EINVAL),
        (libc::SYS_futex, &[word, WAKE_BITSET, 7, 0, 0, 0], libc::EINVAL),
        (libc::SYS_futex, &[word, 99], libc::ENOSYS),
        (libc::SYS_futex, &[word, libc::FUTEX_FD as u64], libc::ENOSYS),
    ]);
}

#[test]
fn a_wait_ends_at_its_time_which_is_a_duration_or_a_moment() {
    let mut guest = Guest::simple();
    let word = guest.words(0, &[7]);
    let before = guest.process.scalars.clock_ns;
    let duration = guest.words(64, &[2, 500]);
    guest.err(libc::SYS_futex, [word, WAIT, 7, duration], libc::ETIMEDOUT);
    let passed = guest.process.scalars.clock_ns - before;
    assert!((2_000_000_500..2_000_010_000).contains(&passed), "{passed}");
    for (clock, flags) in [(libc::CLOCK_MONOTONIC, 0), (libc::CLOCK_REALTIME, REAL_TIME)] {
        let before = guest.process.scalars.clock_ns;
        let moment = guest.moment(clock, 3_000_000);
        let args = [word, WAIT_BITSET | flags, 7, moment, 0, FROM_ALL];
        guest.err(libc::SYS_futex, args, libc::ETIMEDOUT);
        let passed = guest.process.scalars.clock_ns - before;
        assert!((3_000_000..3_010_000).contains(&passed), "{passed}");
        guest.err(libc::SYS_futex, args, libc::ETIMEDOUT);
    }
}

#[test]
fn a_waker_of_other_bits_does_not_wake() {
    let mut guest = Guest::simple();
    let word = guest.words(0, &[7]);
    guest.spawn(0);
    guest.switch(libc::SYS_futex, [word, WAIT_BITSET, 7, 0, 0, 0b0110]);
    assert_eq!(guest.ok(libc::SYS_futex, [word, WAKE_BITSET, 9, 0, 0, 0b1001]), 0);
    assert_eq!(guest.ok(libc::SYS_futex, [word, WAKE_BITSET, 9, 0, 0, 0b1100]), 1);
}

#[test]
fn waiters_are_moved_to_another_word_if_the_first_is_as_expected() {
    let mut guest = Guest::simple();
    let [word, other] = [guest.words(0, &[7]), guest.words(64, &[0])];
    guest.waiters(word, 4);
    let operation = [word, COMPARE_REQUEUE, 1, 2, other];
    guest.err(libc::SYS_futex, [&operation[..], &[8]].concat(), libc::EAGAIN);
    assert_eq!(guest.ok(libc::SYS_futex, [&operation[..], &[7]].concat()), 3, "woken and moved");
    assert_eq!(guest.futex(other, WAKE, 9), 2);
    assert_eq!(guest.futex(word, WAKE, 9), 1);
    guest.fails(&[
        (libc::SYS_futex, &[word, REQUEUE, u64::MAX, 0, other], libc::EINVAL),
        (libc::SYS_futex, &[word, REQUEUE, 1, u64::MAX, other], libc::EINVAL),
        (libc::SYS_futex, &[word, REQUEUE, 1, 1, other + 1], libc::EINVAL),
        (libc::SYS_futex, &[NOWHERE, COMPARE_REQUEUE, 1, 1, other, 7], libc::EFAULT),
    ]);
}

#[test]
fn a_requeue_that_compares_nothing_moves_all_the_same() {
    let mut guest = Guest::simple();
    let [word, other] = [guest.words(0, &[7]), guest.words(64, &[0])];
    guest.waiters(word, 3);
    guest.ok(libc::SYS_futex, [word, REQUEUE, 1, 9, other]);
    assert_eq!((guest.futex(word, WAKE, 9), guest.futex(other, WAKE, 9)), (0, 2));
}

#[test]
fn a_waker_changes_the_other_word_and_wakes_there_by_its_old_value() {
    let mut guest = Guest::simple();
    let [word, other] = [guest.words(0, &[7]), guest.words(64, &[5])];
    let add_three_if_old_is = |old: u64| 1 << 28 | 3 << 12 | old;
    assert_eq!(guest.ok(libc::SYS_futex, [word, WAKE_AND_CHANGE, 1, 1, other, 1 << 28]), 0);
    guest.words(64, &[7]);
    guest.waiters(other, 2);
    let args = |old| [word, WAKE_AND_CHANGE, 9, 9, other, add_three_if_old_is(old)];
    assert_eq!(guest.ok(libc::SYS_futex, args(6)), 0);
    assert_eq!(guest.half(other), 10);
    assert_eq!(guest.ok(libc::SYS_futex, args(10)), 2);
    assert_eq!(guest.half(other), 13);
    guest.fails(&[
        (libc::SYS_futex, &[word, WAKE_AND_CHANGE, 1, 1, NOWHERE, 0], libc::EFAULT),
        (libc::SYS_futex, &[word, WAKE_AND_CHANGE, 1, 1, other + 1, 0], libc::EINVAL),
        (libc::SYS_futex, &[word, WAKE_AND_CHANGE, 1, 1, other, 5 << 28], libc::ENOSYS),
        (libc::SYS_futex, &[word, WAKE_AND_CHANGE, 1, 1, other, 6 << 24], libc::ENOSYS),
    ]);
}

#[test]
fn a_signal_ends_a_wait_which_is_made_again_only_where_it_has_no_end() {
    let mut guest = Guest::simple();
    let (word, hour) = (guest.words(0, &[7]), guest.words(64, &[3600, 0]));
    guest.handle(libc::SIGALRM, HANDLER, libc::SA_RESTART);
    guest.ok(libc::SYS_alarm, [1]);
    guest.enters_handler(libc::SYS_futex, [word, WAIT, 7, hour]);
    assert_eq!(guest.return_from_handler(), -i64::from(libc::EINTR));
    let behind = guest.cpu.regs.rip;
    guest.ok(libc::SYS_alarm, [1]);
    guest.enters_handler(libc::SYS_futex, [word, WAIT, 7, 0]);
    assert_eq!(guest.return_from_handler(), libc::SYS_futex, "the call's number once more");
    assert_eq!(guest.cpu.regs.rip, behind - 2, "at its instruction");
}

#[test]
fn a_rewind_has_waiters_wait_again() {
    let mut guest = Guest::simple();
    let word = guest.words(0, &[7]);
    guest.waiters(word, 2);
    guest.undoes("threads", |guest| assert_eq!(guest.futex(word, WAKE, 1), 1));
    guest.undoes("threads", |guest| {
        assert_eq!(guest.ok(libc::SYS_futex, [word, COMPARE_REQUEUE, 1, 9, word + 64, 7]), 2);
    });
    assert_eq!(guest.futex(word, WAKE, 9), 2);
    assert_eq!(guest.verdict(libc::SYS_exit_group, [0]), SyscallAction::Exit { status: 0 });
}
