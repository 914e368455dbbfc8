//! `alarm`, interval timers and the timers of `timer_create`.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::threads::HANDLER;
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};
use crate::outcome::Signal;

const WAIT: u64 = libc::FUTEX_WAIT as u64;
const REAL: u64 = libc::ITIMER_REAL as u64;
const MONOTONIC: u64 = libc::CLOCK_MONOTONIC as u64;
const ABSOLUTE: u64 = libc::TIMER_ABSTIME as u64;
const SIGNAL: u64 = libc::SIGEV_SIGNAL as u64;
const NONE: u64 = libc::SIGEV_NONE as u64;
const THREAD_ID: u64 = libc::SIGEV_THREAD_ID as u64;
const SI_TIMER: i32 = -2;

impl Guest {
    /// An `itimerval` or an `itimerspec`: interval and value, each in seconds and a fraction.
    fn setting(&mut self, setting: [u64; 4]) -> u64 {
        self.words(0, &setting)
    }

    /// The same, as a call tells it.
    fn told(&self, at: u64) -> [u64; 4] {
        [0, 8, 16, 24].map(|offset| self.word(at + offset))
    }

    /// `timer_create` with a `struct sigevent`; the timer's number, or what is wrong.
    fn new_timer(&mut self, signal: u64, notify: u64, thread: u64, value: u64) -> i64 {
        let event = self.words(64, &[value, signal | notify << 32, thread]);
        let out = self.at(4);
        match self.call(libc::SYS_timer_create, [MONOTONIC, event, out]) {
            0 => self.half(out).into(),
            error => error,
        }
    }

    fn sleep(&mut self, seconds: u64) -> SyscallAction {
        let span = self.words(PAGE, &[seconds, 0]);
        self.verdict(libc::SYS_nanosleep, [span, 0])
    }

    /// Takes the pending signal: its number, code, value and overruns.
    fn pending_timer(&mut self, signal: i32) -> (i32, u64, u32) {
        let (set, out, now) = (self.signal_set(&[signal]), self.at(5), self.words(128, &[0, 0]));
        let taken = self.ok(libc::SYS_rt_sigtimedwait, [set, out, now, 8]);
        assert_eq!(taken, signal as u64);
        (self.half(out + 8) as i32, self.word(out + 24), self.half(out + 20))
    }
}

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

#[test]
fn a_new_alarm_replaces_the_old_one_and_tells_its_rest() {
    let mut guest = Guest::simple();
    assert_eq!(guest.ok(libc::SYS_alarm, [0]), 0);
    assert_eq!(guest.ok(libc::SYS_alarm, [10]), 0);
    guest.sleep(4);
    assert_eq!(guest.ok(libc::SYS_alarm, [u32::MAX.into()]), 6);
    assert_eq!(guest.ok(libc::SYS_alarm, [0]), u64::from(u32::MAX));
    assert_eq!(guest.sleep(100), SyscallAction::Return(0), "none is left");
    guest.ok(libc::SYS_alarm, [1]);
    assert_eq!(guest.sleep(100), SyscallAction::Signal(Signal(libc::SIGALRM as u8)));
}

#[test]
fn an_interval_timer_expires_again_and_again() {
    let mut guest = Guest::simple();
    guest.handle(libc::SIGALRM, HANDLER, 0);
    let setting = guest.setting([2, 0, 5, 0]);
    guest.ok(libc::SYS_setitimer, [REAL, setting, 0]);
    let start = guest.process.scalars.clock_ns / 1_000_000;
    for expected in [5_000, 7_000, 9_000] {
        guest.enters_handler(libc::SYS_pause, []);
        assert_eq!(guest.process.scalars.clock_ns / 1_000_000 - start, expected);
        assert_eq!(guest.return_from_handler(), -i64::from(libc::EINTR));
    }
    let out = guest.at(4);
    guest.ok(libc::SYS_getitimer, [REAL, out]);
    let [interval, _, left, _] = guest.told(out);
    assert_eq!((interval, left), (2, 1));
    let off = guest.setting([0; 4]);
    guest.ok(libc::SYS_setitimer, [REAL, off, out]);
    assert_eq!(guest.told(out)[0], 2, "what it was");
    guest.ok(libc::SYS_getitimer, [REAL, out]);
    assert_eq!(guest.told(out), [0; 4]);
}

#[test]
fn a_timer_of_the_cpus_time_does_not_run_while_the_process_sleeps() {
    let mut guest = Guest::simple();
    for (which, signal) in
        [(libc::ITIMER_VIRTUAL, libc::SIGVTALRM), (libc::ITIMER_PROF, libc::SIGPROF)]
    {
        let mut guest = guest.clone();
        let setting = guest.setting([0, 0, 0, 100]);
        guest.ok(libc::SYS_setitimer, [which as u64, setting, 0]);
        assert_eq!(guest.sleep(5), SyscallAction::Return(0));
        let killed = SyscallAction::Signal(Signal(signal as u8));
        let calls = (0..200).map(|_| guest.verdict(libc::SYS_getpid, []));
        assert!(calls.into_iter().any(|action| action == killed), "calls take the CPU's time");
    }
    assert_eq!(guest.sleep(5), SyscallAction::Return(0));
}

#[test]
fn interval_timers_check_their_arguments_as_linux_does() {
    let mut guest = Guest::simple();
    let (setting, out) = (guest.setting([0, 0, 5, 0]), guest.at(4));
    guest.fails(&[
        (libc::SYS_setitimer, &[3, setting, 0], libc::EINVAL),
        (libc::SYS_getitimer, &[3, out], libc::EINVAL),
        (libc::SYS_getitimer, &[u64::MAX, out], libc::EINVAL),
        (libc::SYS_getitimer, &[REAL, NOWHERE], libc::EFAULT),
        (libc::SYS_setitimer, &[REAL, NOWHERE, 0], libc::EFAULT),
        (libc::SYS_setitimer, &[REAL, setting, NOWHERE], libc::EFAULT),
    ]);
    for bad in [[0, 0, 5, 1_000_000], [0, 0, 5, u64::MAX], [0, 1_000_000, 5, 0]] {
        let bad = guest.setting(bad);
        guest.err(libc::SYS_setitimer, [REAL, bad, 0], libc::EINVAL);
    }
    guest.ok(libc::SYS_setitimer, [REAL, 0, out]);
}

#[test]
fn a_created_timer_tells_its_signal_value_and_overruns() {
    let mut guest = Guest::simple();
    guest.block(&[libc::SIGUSR1]);
    let timer = guest.new_timer(libc::SIGUSR1 as u64, SIGNAL, 0, 0xfeed) as u64;
    let every_second = guest.setting([1, 0, 1, 0]);
    guest.ok(libc::SYS_timer_settime, [timer, 0, every_second, 0]);
    guest.sleep(1);
    assert_eq!(guest.pending_timer(libc::SIGUSR1), (SI_TIMER, 0xfeed, 0));
    let out = guest.at(4);
    guest.ok(libc::SYS_timer_gettime, [timer, out]);
    assert_eq!(guest.told(out)[..3], [1, 0, 0]);
    let off = guest.setting([0; 4]);
    guest.ok(libc::SYS_timer_settime, [timer, 0, off, out]);
    assert_eq!(guest.told(out)[0], 1, "what it was");
    assert_eq!(guest.ok(libc::SYS_timer_getoverrun, [timer]), 0);
    assert_eq!(guest.sleep(100), SyscallAction::Return(0));
}

#[test]
fn a_timer_without_an_event_sends_sigalrm_with_its_number() {
    let mut guest = Guest::simple();
    guest.block(&[libc::SIGALRM]);
    let out = guest.at(4);
    for number in 0..2 {
        guest.ok(libc::SYS_timer_create, [MONOTONIC, 0, out]);
        assert_eq!(guest.half(out), number);
    }
    let once = guest.setting([0, 0, 1, 0]);
    guest.ok(libc::SYS_timer_settime, [1, 0, once, 0]);
    guest.sleep(2);
    assert_eq!(guest.pending_timer(libc::SIGALRM), (SI_TIMER, 1, 0));
    guest.ok(libc::SYS_timer_gettime, [1, out]);
    assert_eq!(guest.told(out), [0; 4], "it was for once");
}

#[test]
fn a_timer_may_tell_one_thread_or_nobody() {
    let mut guest = Guest::simple();
    guest.spawn(0);
    let told = guest.new_timer(libc::SIGUSR1 as u64, THREAD_ID, 1001, 0) as u64;
    let silent = guest.new_timer(99, NONE, 0, 0) as u64;
    guest.block(&[libc::SIGUSR1]);
    let once = guest.setting([0, 0, 1, 0]);
    for timer in [told, silent] {
        guest.ok(libc::SYS_timer_settime, [timer, 0, once, 0]);
    }
    let span = guest.words(PAGE, &[2, 0]);
    guest.switch(libc::SYS_nanosleep, [span, 0]);
    let killed = guest.verdict(libc::SYS_pause, []);
    assert_eq!(killed, SyscallAction::Signal(Signal(libc::SIGUSR1 as u8)));
}

#[test]
fn a_timer_is_set_for_a_time_or_for_a_moment() {
    let mut guest = Guest::simple();
    let timer = guest.new_timer(0, NONE, 0, 0) as u64;
    let out = guest.at(4);
    guest.ok(libc::SYS_clock_gettime, [MONOTONIC, out]);
    let moment = guest.setting([0, 0, guest.word(out) + 20, 0]);
    guest.ok(libc::SYS_timer_settime, [timer, ABSOLUTE, moment, 0]);
    guest.ok(libc::SYS_timer_gettime, [timer, out]);
    assert_eq!(guest.told(out)[2], 19, "and a fraction of a second");
    let span = guest.setting([0, 0, 30, 0]);
    guest.ok(libc::SYS_timer_settime, [timer, 0, span, 0]);
    guest.ok(libc::SYS_timer_gettime, [timer, out]);
    assert_eq!(guest.told(out)[2], 29);
}

#[test]
fn created_timers_check_their_arguments_as_linux_does() {
    let mut guest = Guest::simple();
    for (signal, notify, thread) in
        [(10, 99, 0), (65, SIGNAL, 0), (0, SIGNAL, 0), (10, THREAD_ID, 99_999)]
    {
        let answer = guest.new_timer(signal, notify, thread, 0);
        assert_eq!(answer, -i64::from(libc::EINVAL), "{signal} {notify} {thread}");
    }
    let timer = guest.new_timer(0, NONE, 0, 0) as u64;
    let (setting, out) = (guest.setting([0, 0, 5, 0]), guest.at(4));
    guest.fails(&[
        (libc::SYS_timer_create, &[99, 0, out], libc::EINVAL),
        (libc::SYS_timer_create, &[MONOTONIC, NOWHERE, out], libc::EFAULT),
        (libc::SYS_timer_create, &[MONOTONIC, 0, NOWHERE], libc::EFAULT),
        (libc::SYS_timer_settime, &[99, 0, setting, 0], libc::EINVAL),
        (libc::SYS_timer_settime, &[timer, 0, NOWHERE, 0], libc::EFAULT),
        (libc::SYS_timer_gettime, &[99, out], libc::EINVAL),
        (libc::SYS_timer_gettime, &[timer, NOWHERE], libc::EFAULT),
        (libc::SYS_timer_getoverrun, &[99], libc::EINVAL),
        (libc::SYS_timer_delete, &[99], libc::EINVAL),
    ]);
    let bad = guest.setting([0, 0, 5, 1_000_000_000]);
    guest.err(libc::SYS_timer_settime, [timer, 0, bad, 0], libc::EINVAL);
    guest.ok(libc::SYS_timer_delete, [timer]);
    guest.err(libc::SYS_timer_delete, [timer], libc::EINVAL);
}

#[test]
fn timers_are_bounded_and_one_that_cannot_be_told_about_is_not_made() {
    let mut guest = Guest::simple();
    for _ in 0..3 {
        guest.err(libc::SYS_timer_create, [MONOTONIC, 0, NOWHERE], libc::EFAULT);
    }
    let made = (0..1000).take_while(|_| guest.new_timer(0, NONE, 0, 0) >= 0).count();
    assert_eq!(made, 64);
    assert_eq!(guest.new_timer(0, NONE, 0, 0), -i64::from(libc::EAGAIN));
}

#[test]
fn a_rewind_takes_timers_back() {
    let mut guest = Guest::simple();
    guest.undoes("timers", |guest| guest.ok(libc::SYS_alarm, [5]));
    assert_eq!(guest.ok(libc::SYS_alarm, [0]), 0);
    guest.undoes("timers", |guest| guest.new_timer(0, NONE, 0, 0));
    guest.ok(libc::SYS_alarm, [5]);
    guest.undoes("timers", |guest| guest.ok(libc::SYS_alarm, [0]));
    assert_eq!(guest.ok(libc::SYS_alarm, [0]), 5);
}
