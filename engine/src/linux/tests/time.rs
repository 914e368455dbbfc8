//! Clocks, what the process has used of them, and sleeps.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::threads::HANDLER;
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};

const MONOTONIC: u64 = libc::CLOCK_MONOTONIC as u64;
const ABSOLUTE: u64 = libc::TIMER_ABSTIME as u64;
const SECOND: u64 = 1_000_000_000;
/// The guest's time at boot: the start of 2024, and a system that has been up for a while.
const BOOT: [u64; 2] = [1_704_067_200, 1_000];

impl Guest {
    /// A `timespec` in the scratch memory's second page.
    fn span(&mut self, seconds: u64, ns: u64) -> u64 {
        self.words(PAGE, &[seconds, ns])
    }

    /// What a clock says, in nanoseconds.
    fn clock(&mut self, clock: i32) -> u64 {
        let out = self.at(4);
        self.ok(libc::SYS_clock_gettime, [clock as u64, out]);
        self.word(out) * SECOND + self.word(out + 8)
    }
}

#[test]
fn has_a_clock_of_its_own() {
    let mut guest = Guest::simple();
    let out = guest.scratch;
    guest.ok(libc::SYS_clock_gettime, [1, out]);
    let before = (guest.word(out), guest.word(out + 8));
    guest.put(64, &3600u64.to_le_bytes());
    guest.ok(libc::SYS_nanosleep, [out + 64, 0]);
    guest.ok(libc::SYS_clock_gettime, [1, out]);
    assert_eq!(guest.word(out), before.0 + 3600);
    assert!(guest.word(out + 8) > before.1);
    guest.err(libc::SYS_clock_gettime, [99, out], libc::EINVAL);
}

#[test]
fn time_passes_only_where_no_thread_can_go_on() {
    let mut guest = Guest::simple();
    let hour = guest.put(0, &[3600u64.to_le_bytes(), [0; 8]].concat());
    let second = guest.put(16, &[1u64.to_le_bytes(), [0; 8]].concat());
    guest.spawn(0);
    let before = guest.process.scalars.clock_ns;
    guest.switch(libc::SYS_nanosleep, [hour, 0]);
    assert!(guest.process.scalars.clock_ns - before < 1_000_000_000, "the other one runs");
    guest.ok(libc::SYS_nanosleep, [second, 0]);
    let passed = guest.process.scalars.clock_ns - before;
    assert!((1_000_000_000..2_000_000_000).contains(&passed), "{passed}");
    assert!(guest.process.scalars.busy_ns() < 1_000_000_000, "sleeping costs no CPU time");
    assert_eq!(guest.ok(libc::SYS_gettid, []), 1001);
}

#[test]
fn clocks_start_where_they_always_do_and_move_with_calls() {
    let mut guest = Guest::simple();
    for (clock, start) in [
        (libc::CLOCK_REALTIME, BOOT[0]),
        (libc::CLOCK_REALTIME_COARSE, BOOT[0]),
        (libc::CLOCK_MONOTONIC, BOOT[1]),
        (libc::CLOCK_MONOTONIC_RAW, BOOT[1]),
        (libc::CLOCK_BOOTTIME, BOOT[1]),
        (libc::CLOCK_PROCESS_CPUTIME_ID, 0),
        (libc::CLOCK_THREAD_CPUTIME_ID, 0),
    ] {
        let now = guest.clock(clock);
        assert!((start * SECOND..(start + 1) * SECOND).contains(&now), "{clock}: {now}");
        assert!(guest.clock(clock) > now);
    }
    let out = guest.at(4);
    guest.ok(libc::SYS_clock_getres, [MONOTONIC, out]);
    assert_eq!((guest.word(out), guest.word(out + 8)), (0, 1));
    guest.ok(libc::SYS_clock_getres, [MONOTONIC, 0]);
    guest.fails(&[
        (libc::SYS_clock_gettime, &[12, out], libc::EINVAL),
        (libc::SYS_clock_getres, &[99, 0], libc::EINVAL),
        (libc::SYS_clock_gettime, &[MONOTONIC, NOWHERE], libc::EFAULT),
        (libc::SYS_clock_getres, &[MONOTONIC, NOWHERE], libc::EFAULT),
    ]);
}

#[test]
fn the_old_calls_tell_the_same_time() {
    let mut guest = Guest::simple();
    let out = guest.at(4);
    let now = guest.clock(libc::CLOCK_REALTIME);
    guest.ok(libc::SYS_gettimeofday, [out, 0]);
    assert_eq!(guest.word(out), now / SECOND);
    assert_eq!(guest.word(out + 8), (now % SECOND + 1_000) / 1_000, "in microseconds");
    assert_eq!(guest.ok(libc::SYS_time, [out]), now / SECOND);
    assert_eq!(guest.word(out), now / SECOND);
    assert_eq!(guest.ok(libc::SYS_time, [0]), now / SECOND);
    guest.put(4 * PAGE, &[0xff; 8]);
    guest.ok(libc::SYS_gettimeofday, [0, out]);
    assert_eq!(guest.word(out), 0, "no time zone");
    guest.fails(&[
        (libc::SYS_gettimeofday, &[NOWHERE, 0], libc::EFAULT),
        (libc::SYS_gettimeofday, &[0, NOWHERE], libc::EFAULT),
        (libc::SYS_time, &[NOWHERE], libc::EFAULT),
    ]);
}

#[test]
fn sleeping_takes_time_and_costs_none() {
    let mut guest = Guest::simple();
    let out = guest.at(4);
    let span = guest.span(5, 0);
    let ticks = guest.ok(libc::SYS_times, [out]);
    guest.ok(libc::SYS_nanosleep, [span, NOWHERE]);
    assert_eq!(guest.ok(libc::SYS_times, [out]) - ticks, 500);
    assert_eq!(guest.word(out), 0, "ticks of the CPU");
    assert_eq!(guest.ok(libc::SYS_times, [0]) - ticks, 500);
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN, libc::RUSAGE_THREAD] {
        guest.ok(libc::SYS_getrusage, [who as u64, out]);
        assert_eq!(guest.word(out), 0, "{who}: seconds of the CPU");
    }
    assert!(guest.clock(libc::CLOCK_PROCESS_CPUTIME_ID) < SECOND);
    guest.fails(&[
        (libc::SYS_times, &[NOWHERE], libc::EFAULT),
        (libc::SYS_getrusage, &[2, out], libc::EINVAL),
        (libc::SYS_getrusage, &[-2_i64 as u64, out], libc::EINVAL),
        (libc::SYS_getrusage, &[0, NOWHERE], libc::EFAULT),
    ]);
}

#[test]
fn a_sleep_is_for_a_time_or_until_a_moment_of_a_clock() {
    let mut guest = Guest::simple();
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME] {
        let before = guest.clock(clock);
        let span = guest.span(1, 500);
        guest.ok(libc::SYS_clock_nanosleep, [clock as u64, 0, span, 0]);
        let passed = guest.clock(clock) - before;
        assert!((SECOND + 500..SECOND + 10_000).contains(&passed), "{passed}");

        let moment = before + 3 * SECOND;
        let at = guest.span(moment / SECOND, moment % SECOND);
        guest.ok(libc::SYS_clock_nanosleep, [clock as u64, ABSOLUTE, at, 0]);
        let late = guest.clock(clock) - moment;
        assert!(late < 10_000, "{late}");
        guest.ok(libc::SYS_clock_nanosleep, [clock as u64, ABSOLUTE, at, 0]);
        assert!(guest.clock(clock) - moment < 20_000, "a moment that has passed");
    }
}

#[test]
fn a_time_to_sleep_is_checked() {
    let mut guest = Guest::simple();
    for (seconds, ns) in [(0, SECOND), (0, u64::MAX), (u64::MAX, 0)] {
        let span = guest.span(seconds, ns);
        guest.err(libc::SYS_nanosleep, [span, 0], libc::EINVAL);
        guest.err(libc::SYS_clock_nanosleep, [MONOTONIC, 0, span, 0], libc::EINVAL);
    }
    let span = guest.span(0, 0);
    guest.fails(&[
        (libc::SYS_nanosleep, &[NOWHERE, 0], libc::EFAULT),
        (libc::SYS_clock_nanosleep, &[MONOTONIC, 0, NOWHERE, 0], libc::EFAULT),
        (libc::SYS_clock_nanosleep, &[99, 0, span, 0], libc::EINVAL),
    ]);
    guest.ok(libc::SYS_nanosleep, [span, NOWHERE]);
}

#[test]
fn a_sleep_that_a_signal_ends_tells_what_was_left() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGALRM, HANDLER, libc::SA_RESTART);
    guest.ok(libc::SYS_alarm, [2]);
    let (span, left) = (guest.words(0, &[10, 0]), guest.at(4));
    guest.enters_handler(libc::SYS_nanosleep, [span, left]);
    assert_eq!(guest.return_from_handler(), -i64::from(libc::EINTR));
    assert_eq!(guest.word(left), 8);
    guest.handle(libc::SIGALRM, libc::SIG_DFL as u64, 0);
    guest.ok(libc::SYS_alarm, [2]);
    let killed = guest.verdict(libc::SYS_clock_nanosleep, [MONOTONIC, 0, span, left]);
    assert_eq!(killed, SyscallAction::Signal(crate::outcome::Signal(libc::SIGALRM as u8)));
}

#[test]
fn who_sleeps_less_goes_on_first() {
    let mut guest = Guest::simple();
    let [long, short] = [guest.words(0, &[9, 0]), guest.words(16, &[3, 0])];
    guest.spawn(0);
    guest.switch(libc::SYS_nanosleep, [long, 0]);
    guest.ok(libc::SYS_nanosleep, [short, 0]);
    assert_eq!(guest.thread(), 1001);
    guest.switch(libc::SYS_nanosleep, [long, 0]);
    assert_eq!(guest.thread(), 1000);
}

#[test]
fn a_rewind_puts_the_clock_back() {
    let mut guest = Guest::simple();
    let before = guest.clock(libc::CLOCK_MONOTONIC);
    let span = guest.span(3600, 0);
    guest.undoes("clock", |guest| guest.ok(libc::SYS_nanosleep, [span, 0]));
    assert!(guest.clock(libc::CLOCK_MONOTONIC) - before < SECOND);
}
