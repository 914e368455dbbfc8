//! The time limit of a run, and its time slices: a thread that reads shared moments and kicks the
//! vCPU's thread.
//!
//! A run costs a few atomic stores; no timer is armed, and the clock is the caller's to read. Never
//! decides that a run timed out: it only makes `KVM_RUN` return, and the machine looks at the clock
//! itself, so that a late kick does no harm.

use crate::kvm::Kicker;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Ample for one exit, also where VMs are nested (30 to 80 us were measured) or the CPU is emulated
/// on a busy host.
const EXIT_ALLOWANCE: Duration = Duration::from_micros(300);
/// How many times its limit a run's exits may take at most: one whose exits never end has to time
/// out too.
const ALLOWED_LIMITS: u64 = 4;

/// The engine's own code in the guest takes microseconds, and never ends where a snapshot file has
/// other page tables or descriptor tables than the engine's.
const STUB_TIME_MAX: Duration = Duration::from_secs(2);

/// How often the thread looks while a run has a deadline; a time-out is late by at most this.
const TICK: Duration = Duration::from_millis(2);
/// How many ticks lie between the kicks of a watchdog that polls.
const POLL_TICKS: u32 = 8;
/// How long it looks on after the last run before it sleeps until woken.
const IDLE_TICKS: u32 = 50;

/// Exits of a run, by how many there can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exits {
    /// Breakpoints that were hit, each of which is hit once.
    pub(super) hits: u64,
    /// All others: a guest can make them without end.
    pub(super) others: u64,
}

impl Exits {
    fn allowance_ns(self, limit_ns: u64) -> u64 {
        let each = ns(EXIT_ALLOWANCE);
        let others = each.saturating_mul(self.others);
        let most = limit_ns.saturating_mul(ALLOWED_LIMITS);
        each.saturating_mul(self.hits).saturating_add(others.min(most))
    }
}

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    /// Nanoseconds after `epoch`; 0 is none.
    deadline_ns: AtomicU64,
    /// The limit that led to the deadline.
    limit_ns: AtomicU64,
    /// When the time slice is over, likewise. It counts only while there is a deadline.
    slice_ns: AtomicU64,
    thread: AtomicI32,
    awake: AtomicBool,
    polls: AtomicBool,
    stop: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
    kicker: Kicker,
}

/// Limits the time of a vCPU's runs.
#[derive(Debug)]
pub(super) struct Watchdog {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread.
    ///
    /// # Errors
    /// The host has no thread to give.
    pub(super) fn new(kicker: Kicker) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            deadline_ns: AtomicU64::new(0),
            limit_ns: AtomicU64::new(0),
            slice_ns: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            // It looks before it ever sleeps. If this began as false, each run of a machine that is
            // never idle would wake a thread that has never slept, by a system call.
            awake: AtomicBool::new(true),
            polls: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            kicker,
        });
        let watcher = Arc::clone(&shared);
        let handle = std::thread::Builder::new()
            .name("dejavm-watchdog".to_owned())
            .spawn(move || watcher.watch())?;
        Ok(Self { shared, handle: Some(handle) })
    }

    /// From now on also kicks every [`POLL_TICKS`] while a run lasts, so that the machine can see
    /// a vCPU that sleeps inside the kernel.
    pub(super) fn poll(&self) {
        self.shared.polls.store(true, Ordering::Relaxed);
    }

    /// Starts a limit for the calling thread's run, which begins `now`. `None` is no limit.
    pub(super) fn arm(&self, now: Instant, limit: Option<Duration>) {
        self.shared.slice_ns.store(0, Ordering::Relaxed);
        self.start(now, limit);
    }

    /// As [`arm`](Self::arm), for a run whose first time slice is this long.
    pub(super) fn arm_with_slices(&self, now: Instant, limit: Option<Duration>, slice: Duration) {
        self.set_slice(now, slice);
        self.start(now, Some(limit.unwrap_or(Duration::MAX)));
    }

    /// Ends the time slice `after` from `now`.
    pub(super) fn set_slice(&self, now: Instant, after: Duration) {
        self.shared.slice_ns.store(self.shared.moment(now, after), Ordering::Relaxed);
    }

    /// Whether there is a time slice, and it is over.
    #[must_use]
    pub(super) fn slice_is_over(&self) -> bool {
        self.shared.is_over(&self.shared.slice_ns, 0)
    }

    /// Calls `work`, which runs the engine's own code in the guest, and gives it a limit:
    /// [`stub_spins`](Self::stub_spins) says whether that has passed.
    pub(super) fn while_stub_runs<T>(&self, work: impl FnOnce() -> T) -> T {
        self.arm(Instant::now(), Some(STUB_TIME_MAX));
        let done = work();
        self.disarm();
        done
    }

    /// Whether the engine's own code takes longer than it ever can; then for how long it ran.
    #[must_use]
    pub(super) fn stub_spins(&self) -> Option<Duration> {
        self.expired(Exits::default()).then_some(STUB_TIME_MAX)
    }

    fn start(&self, now: Instant, limit: Option<Duration>) {
        let shared = &self.shared;
        let limit = match limit {
            Some(limit) => limit,
            None if shared.polls.load(Ordering::Relaxed) => Duration::MAX,
            None => return self.disarm(),
        };
        shared.thread.store(current_thread(), Ordering::Relaxed);
        shared.limit_ns.store(ns(limit), Ordering::Relaxed);
        shared.deadline_ns.store(shared.moment(now, limit), Ordering::SeqCst);
        if !shared.awake.load(Ordering::SeqCst) {
            // The lock makes sure that the thread is not between its last look and its wait.
            drop(shared.sleep.lock());
            shared.wake.notify_one();
        }
    }

    /// Ends the limit.
    pub(super) fn disarm(&self) {
        self.shared.deadline_ns.store(0, Ordering::SeqCst);
    }

    /// Whether the limit has passed, and on top of it what the run's exits may take, which the
    /// engine spends and not the guest.
    #[must_use]
    pub(super) fn expired(&self, exits: Exits) -> bool {
        let limit_ns = self.shared.limit_ns.load(Ordering::Relaxed);
        self.shared.is_over(&self.shared.deadline_ns, exits.allowance_ns(limit_ns))
    }
}

impl Shared {
    fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// `after` from `now`, in nanoseconds after the epoch; never 0.
    fn moment(&self, now: Instant, after: Duration) -> u64 {
        let now_ns = now.saturating_duration_since(self.epoch).as_nanos() as u64;
        now_ns.saturating_add(ns(after)).max(1)
    }

    /// Whether a moment, if it is set, and `allowance_ns` more are over.
    fn is_over(&self, moment: &AtomicU64, allowance_ns: u64) -> bool {
        let moment = moment.load(Ordering::SeqCst);
        moment != 0 && self.now_ns() >= moment.saturating_add(allowance_ns)
    }

    fn watch(&self) {
        let mut idle = 0;
        let mut busy = 0;
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let deadline = self.deadline_ns.load(Ordering::SeqCst);
            if deadline == 0 {
                idle += 1;
            } else {
                idle = 0;
                busy = (busy + 1) % POLL_TICKS;
                let polls = busy == 0 && self.polls.load(Ordering::Relaxed);
                if polls || self.now_ns() >= deadline || self.is_over(&self.slice_ns, 0) {
                    self.kicker.kick(self.thread.load(Ordering::Relaxed));
                }
            }
            if idle < IDLE_TICKS {
                std::thread::sleep(TICK);
            } else {
                self.wait();
                idle = 0;
            }
        }
    }

    /// Sleeps until there is a deadline or an end.
    fn wait(&self) {
        // Nobody panics while holding this lock; a poisoned one would still be usable.
        let mut guard = self.sleep.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.awake.store(false, Ordering::SeqCst);
        while self.deadline_ns.load(Ordering::SeqCst) == 0 && !self.stop.load(Ordering::SeqCst) {
            guard = self.wake.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        self.awake.store(true, Ordering::SeqCst);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.shared.sleep.lock());
        self.shared.wake.notify_one();
        if let Some(handle) = self.handle.take() {
            // The thread does not panic; there is nothing to do about it if it did.
            let _ = handle.join();
        }
    }
}

/// Nanoseconds, capped so that adding them to a moment cannot overflow.
fn ns(time: Duration) -> u64 {
    time.as_nanos().min(u128::from(u64::MAX / 2)) as u64
}

/// The kernel's id of this thread, asked for once per thread.
fn current_thread() -> i32 {
    thread_local! {
        static ID: i32 = nix::unistd::gettid().as_raw();
    }
    ID.with(|id| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_without_end_have_a_limit_and_breakpoints_have_none() {
        let limit_ns = ns(Duration::from_millis(20));
        let allowance =
            |hits, others| Duration::from_nanos(Exits { hits, others }.allowance_ns(limit_ns));
        assert_eq!(allowance(0, 0), Duration::ZERO);
        assert_eq!(allowance(0, 10), Duration::from_millis(3));
        assert_eq!(allowance(0, u64::MAX), Duration::from_millis(80));
        assert_eq!(allowance(1000, 10), Duration::from_millis(303));
        assert_eq!(Exits { hits: 0, others: 7 }.allowance_ns(u64::MAX), 7 * 300_000);
    }
}
