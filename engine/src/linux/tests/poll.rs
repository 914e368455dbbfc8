//! `poll`, `ppoll`, `select` and `pselect6`.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::threads::HANDLER;
use crate::linux::tests::mock::{CLOSED, Guest, NOWHERE, PAGE};

const IN: u16 = libc::POLLIN as u16;
const OUT: u16 = libc::POLLOUT as u16;
const ERROR: u16 = libc::POLLERR as u16;
const HANGS_UP: u16 = libc::POLLHUP as u16;
const INVALID: u16 = libc::POLLNVAL as u16;
const FOREVER: u64 = u64::MAX;

impl Guest {
    /// A list of `struct pollfd`.
    fn asked(&mut self, list: &[(u64, u16)]) -> u64 {
        let word = |(fd, events): &(u64, u16)| *fd as u32 as u64 | u64::from(*events) << 32;
        let words: Vec<u64> = list.iter().map(word).collect();
        self.words(0, &words)
    }

    /// What `poll` tells without waiting, for each descriptor.
    fn poll(&mut self, list: &[(u64, u16)]) -> Vec<u16> {
        let at = self.asked(list);
        let count = self.ok(libc::SYS_poll, [at, list.len() as u64, 0]);
        let happened = |i| (self.word(at + i * 8) >> 48) as u16;
        let happened: Vec<u16> = (0..list.len() as u64).map(happened).collect();
        assert_eq!(happened.iter().filter(|events| **events != 0).count() as u64, count);
        happened
    }

    /// Three sets of descriptors below 64; their addresses.
    fn sets(&mut self, sets: [&[u64]; 3]) -> [u64; 3] {
        let words = sets.map(|set| set.iter().fold(0, |word, fd| word | 1u64 << fd));
        let at = self.words(0, &words);
        [at, at + 8, at + 16]
    }

    /// A `timespec` or a `timeval`.
    fn time(&mut self, seconds: u64, fraction: u64) -> u64 {
        self.words(PAGE, &[seconds, fraction])
    }
}

#[test]
fn poll_tells_of_each_descriptor_what_was_asked_and_what_is_wrong() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(0);
    assert_eq!(guest.poll(&[(0, IN | OUT), (1, OUT), (2, IN)]), [IN | OUT, OUT, 0]);
    assert_eq!(guest.poll(&[(reader, IN), (writer, OUT)]), [0, OUT]);
    guest.write_text(writer, "x");
    assert_eq!(guest.poll(&[(reader, IN), (reader, 0)]), [IN, 0]);
    assert_eq!(guest.poll(&[(CLOSED, IN), (u64::MAX, IN)]), [INVALID, 0], "-1 is skipped");
    guest.ok(libc::SYS_close, [writer]);
    assert_eq!(guest.poll(&[(reader, IN), (reader, 0)]), [IN | HANGS_UP, HANGS_UP]);
    let [reader, writer] = guest.pipe(0);
    guest.ok(libc::SYS_close, [reader]);
    assert_eq!(guest.poll(&[(writer, 0), (writer, OUT)]), [ERROR, ERROR | OUT]);
}

#[test]
fn a_pipe_with_less_room_than_one_write_may_need_is_not_ready_for_it() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(0);
    let big = guest.ok(libc::SYS_mmap, [0, 16 * PAGE, 3, 0x22, u64::MAX, 0]);
    guest.ok(libc::SYS_write, [writer, big, 16 * PAGE]);
    assert_eq!(guest.poll(&[(writer, OUT)]), [0]);
    guest.ok(libc::SYS_read, [reader, big, PAGE]);
    assert_eq!(guest.poll(&[(writer, OUT)]), [OUT]);
}

#[test]
fn poll_checks_its_arguments_as_linux_does() {
    let mut guest = Guest::simple();
    let asked = guest.asked(&[(1, OUT)]);
    let too_small = guest.time(0, 1_000_000_000);
    guest.fails(&[
        (libc::SYS_poll, &[NOWHERE, 1, 0], libc::EFAULT),
        (libc::SYS_poll, &[asked, u64::MAX, 0], libc::EINVAL),
        (libc::SYS_poll, &[asked, 100_000_000, 0], libc::EINVAL),
        (libc::SYS_ppoll, &[asked, 1, too_small, 0, 8], libc::EINVAL),
        (libc::SYS_ppoll, &[asked, 1, NOWHERE, 0, 8], libc::EFAULT),
    ]);
    let negative = guest.time(u64::MAX, 0);
    guest.err(libc::SYS_ppoll, [asked, 1, negative, 0, 8], libc::EINVAL);
    let at_once = guest.time(0, 0);
    guest.fails(&[
        (libc::SYS_ppoll, &[asked, 1, at_once, asked, 7], libc::EINVAL),
        (libc::SYS_ppoll, &[asked, 1, at_once, NOWHERE, 8], libc::EFAULT),
    ]);
    assert_eq!(guest.ok(libc::SYS_ppoll, [asked, 1, at_once, 0, 7]), 1, "no set, no size");
    assert_eq!(guest.ok(libc::SYS_poll, [NOWHERE, 0, 0]), 0);
}

#[test]
fn select_keeps_of_each_set_what_is_ready() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(0);
    let at_once = guest.time(0, 0);
    let [read, write, except] = guest.sets([&[0, reader], &[1, writer], &[0, 1]]);
    let answer = guest.ok(libc::SYS_select, [writer + 1, read, write, except, at_once]);
    assert_eq!(answer, 3);
    let kept = [read, write, except].map(|at| guest.word(at));
    assert_eq!(kept, [1, 1 << 1 | 1 << writer, 0]);
    guest.sets([&[0, 63], &[], &[]]);
    assert_eq!(guest.ok(libc::SYS_select, [1, read, 0, 0, at_once]), 1, "63 is beyond the count");
    guest.ok(libc::SYS_close, [writer]);
    guest.sets([&[reader], &[], &[]]);
    assert_eq!(guest.ok(libc::SYS_pselect6, [10, read, 0, 0, at_once, 0]), 1, "its end is seen");
}

#[test]
fn select_checks_its_arguments_as_linux_does() {
    let mut guest = Guest::simple();
    let [read, ..] = guest.sets([&[40], &[], &[]]);
    let at_once = guest.time(0, 0);
    guest.fails(&[
        (libc::SYS_select, &[64, read, 0, 0, at_once], libc::EBADF),
        (libc::SYS_select, &[u64::MAX, read, 0, 0, at_once], libc::EINVAL),
        (libc::SYS_select, &[64, NOWHERE, 0, 0, at_once], libc::EFAULT),
        (libc::SYS_select, &[0, 0, 0, 0, NOWHERE], libc::EFAULT),
        (libc::SYS_pselect6, &[0, 0, 0, 0, at_once, NOWHERE], libc::EFAULT),
    ]);
    let set_and_size = guest.words(64, &[read, 7, NOWHERE, 8, 0, 7]);
    guest.fails(&[
        (libc::SYS_pselect6, &[0, 0, 0, 0, at_once, set_and_size], libc::EINVAL),
        (libc::SYS_pselect6, &[0, 0, 0, 0, at_once, set_and_size + 16], libc::EFAULT),
    ]);
    assert_eq!(guest.ok(libc::SYS_pselect6, [0, 0, 0, 0, at_once, set_and_size + 32]), 0);
    let negative = guest.time(0, u64::MAX);
    guest.err(libc::SYS_select, [0, 0, 0, 0, negative], libc::EINVAL);
    let too_small = guest.time(0, 1_000_000_000);
    guest.err(libc::SYS_pselect6, [0, 0, 0, 0, too_small, 0], libc::EINVAL);
}

#[test]
fn a_wait_ends_at_its_timeout_on_the_guests_clock() {
    let mut guest = Guest::simple();
    let [reader, _] = guest.pipe(0);
    let asked = guest.asked(&[(reader, IN)]);
    let set = guest.words(64, &[1 << reader]);
    let time = guest.time(0, 1_500);
    let calls: [(i64, &[u64], u64); 4] = [
        (libc::SYS_poll, &[asked, 1, 20], 20_000_000),
        (libc::SYS_ppoll, &[asked, 1, time, 0, 8], 1_500),
        (libc::SYS_select, &[8, set, 0, 0, time], 1_500_000),
        (libc::SYS_pselect6, &[8, set, 0, 0, time, 0], 1_500),
    ];
    for (nr, args, ns) in calls {
        guest.words(64, &[1 << reader]);
        let before = guest.process.scalars.clock_ns;
        assert_eq!(guest.ok(nr, args), 0);
        let passed = guest.process.scalars.clock_ns - before;
        assert!((ns..ns + 10_000).contains(&passed), "call {nr}: {passed} ns");
    }
    assert_eq!(guest.word(set), 0, "nothing is ready");
    assert_eq!(guest.verdict(libc::SYS_poll, [asked, 1, FOREVER]), SyscallAction::Hang);
}

#[test]
fn who_waits_goes_on_when_another_thread_makes_it_ready() {
    for waits_by_select in [false, true] {
        let mut guest = Guest::simple();
        let [reader, writer] = guest.pipe(0);
        let (asked, set) = (guest.asked(&[(reader, IN)]), guest.words(64, &[1 << reader]));
        guest.spawn(0);
        match waits_by_select {
            true => guest.switch(libc::SYS_select, [reader + 1, set, 0, 0, 0]),
            false => guest.switch(libc::SYS_poll, [asked, 1, FOREVER]),
        };
        guest.write_text(writer, "x");
        assert_eq!(guest.let_others_run(), 1);
        assert_eq!(guest.thread(), 1000);
    }
}

#[test]
fn a_signal_ends_a_wait_that_its_mask_lets_in_and_never_restarts_it() {
    let mut guest = Guest::simple();
    let [reader, _] = guest.pipe(0);
    guest.handle(libc::SIGUSR1, HANDLER, libc::SA_RESTART);
    guest.block(&[libc::SIGUSR1]);
    guest.ok(libc::SYS_kill, [1000, libc::SIGUSR1 as u64]);
    let asked = guest.asked(&[(reader, IN)]);
    let none = guest.words(64, &[0]);
    guest.enters_handler(libc::SYS_ppoll, [asked, 1, 0, none, 8]);
    assert_eq!(guest.return_from_handler(), -i64::from(libc::EINTR));
    let blocked = guest.at(4);
    guest.ok(libc::SYS_rt_sigprocmask, [0, 0, blocked, 8]);
    assert_eq!(guest.word(blocked), 1 << (libc::SIGUSR1 - 1), "as before the call");
}
