//! Timers on the guest's clock: `alarm`, `setitimer`, `timer_create`. Never sends a signal by
//! itself: it says which ones are due.

use crate::linux::signal::siginfo::SigInfo;
use serde::{Deserialize, Serialize};

/// Timers of `timer_create` that may exist at once.
const TIMERS_MAX: usize = 64;
/// `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF` and the signals that they send.
const INTERVAL_SIGNALS: [i32; 3] = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF];

/// One timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timer {
    /// When it expires next, in nanoseconds of its clock; `None` when it is not armed.
    next: Option<u64>,
    interval: u64,
}

impl Timer {
    pub(crate) fn arm(&mut self, next: Option<u64>, interval: u64) {
        (self.next, self.interval) = (next, interval);
    }

    /// Nanoseconds to go and the interval; zeros when it is not armed.
    pub(crate) fn left(&self, now: u64) -> (u64, u64) {
        match self.next {
            // What is due this very moment is not yet over.
            Some(next) => (next.saturating_sub(now).max(1), self.interval),
            None => (0, 0),
        }
    }

    /// Times that it expired up to `now`, after which it is armed for the next.
    fn expire(&mut self, now: u64) -> u64 {
        let Some(next) = self.next.filter(|next| *next <= now) else { return 0 };
        let missed = (now - next).checked_div(self.interval);
        let times = missed.map_or(1, |missed| missed + 1);
        self.next = missed.map(|_| next.saturating_add(self.interval.saturating_mul(times)));
        times
    }
}

/// A timer of `timer_create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Created {
    pub(crate) id: u32,
    pub(crate) timer: Timer,
    /// 0 for none (`SIGEV_NONE`).
    pub(crate) signal: u8,
    pub(crate) value: u64,
    /// The thread that gets the signal (`SIGEV_THREAD_ID`).
    pub(crate) thread: Option<u64>,
    /// Where its clock stood at boot, in seconds.
    pub(crate) clock_start: u64,
    /// Expirations without a signal of their own since the last one (`timer_getoverrun`).
    pub(crate) overrun: u32,
}

/// All timers of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timers {
    /// By `ITIMER_*`.
    pub(crate) interval: [Timer; 3],
    created: Vec<Created>,
    next_id: u32,
}

impl Timers {
    /// Whether none is armed.
    pub(crate) fn are_idle(&self) -> bool {
        self.interval.iter().all(|timer| timer.next.is_none())
            && self.created.iter().all(|created| created.timer.next.is_none())
    }

    /// When the first one expires that runs while the process waits.
    pub(crate) fn next(&self) -> Option<u64> {
        let created = self.created.iter().filter_map(|created| created.timer.next);
        self.interval[0].next.into_iter().chain(created).min()
    }

    /// The signals of timers that have expired at `clock_ns`, of which the process was busy for
    /// `busy_ns`; and for which thread, if for one.
    pub(crate) fn expire(&mut self, clock_ns: u64, busy_ns: u64) -> Vec<(SigInfo, Option<u64>)> {
        let mut due = Vec::new();
        let clocks = [clock_ns, busy_ns, busy_ns];
        for ((timer, now), signal) in self.interval.iter_mut().zip(clocks).zip(INTERVAL_SIGNALS) {
            if timer.expire(now) > 0 {
                due.push((SigInfo::kernel(signal as u8), None));
            }
        }
        for created in &mut self.created {
            let times = created.timer.expire(clock_ns);
            if times > 0 {
                created.overrun = u32::try_from(times - 1).unwrap_or(i32::MAX as u32);
                if created.signal != 0 {
                    let info =
                        SigInfo::timer(created.signal, created.id, created.overrun, created.value);
                    due.push((info, created.thread));
                }
            }
        }
        due
    }

    /// Adds a timer that is not armed; its id, or `None` if there are too many.
    pub(crate) fn create(&mut self, timer: Created) -> Option<u32> {
        if self.created.len() >= TIMERS_MAX {
            return None;
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.created.push(Created { id, ..timer });
        Some(id)
    }

    /// Whether these are more than a process can have made.
    pub(crate) fn are_too_many(&self) -> bool {
        self.created.len() > TIMERS_MAX || self.created.iter().any(|created| created.signal > 64)
    }

    pub(crate) fn created(&mut self, id: u64) -> Option<&mut Created> {
        self.created.iter_mut().find(|created| u64::from(created.id) == id)
    }

    /// Takes timer `id` away; whether there was one.
    pub(crate) fn delete(&mut self, id: u64) -> bool {
        let before = self.created.len();
        self.created.retain(|created| u64::from(created.id) != id);
        self.created.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_expires_once_or_in_every_interval() {
        let mut once = Timer::default();
        once.arm(Some(100), 0);
        assert_eq!(once.left(40), (60, 0));
        assert_eq!((once.expire(99), once.expire(500), once.expire(900)), (0, 1, 0));
        let mut again = Timer::default();
        again.arm(Some(100), 10);
        assert_eq!((again.expire(100), again.expire(135), again.left(135)), (1, 3, (5, 10)));
    }

    #[test]
    fn only_time_that_the_process_was_busy_counts_for_its_profile() {
        let mut timers = Timers::default();
        timers.interval[0].arm(Some(100), 0);
        timers.interval[2].arm(Some(100), 0);
        let signals: Vec<u8> = timers.expire(200, 50).iter().map(|(info, _)| info.signal).collect();
        assert_eq!(signals, [libc::SIGALRM as u8]);
        assert!(!timers.are_idle());
        assert_eq!(timers.expire(300, 100).len(), 1);
        assert!(timers.are_idle());
    }
}
