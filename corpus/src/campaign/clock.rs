//! Everything about a campaign that depends on a clock.
//!
//! Reading a clock costs as much as a short run, so it is read only after [`RUNS_UNWATCHED`] runs,
//! or [`TIME_UNWATCHED`] spent in them. Never decides which input runs.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::report::Earlier;

/// Runs after which the clock is read.
const RUNS_UNWATCHED: u32 = 64;

/// Time in runs after which the clock is read.
const TIME_UNWATCHED: Duration = Duration::from_millis(5);

/// Time between updates for people.
const UPDATE_INTERVAL: Duration = Duration::from_millis(250);

/// Time between writing the numbers to the output folder.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);

/// Time over which the recent speed is taken.
const RATE_INTERVAL: Duration = Duration::from_secs(2);

/// The times of a campaign.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    /// Run time before this start.
    earlier: Duration,
    /// Executions before this start.
    execs_earlier: u64,
    /// How long this start may take.
    duration: Option<Duration>,
    runs_unwatched: u32,
    time_unwatched: Duration,
    updated: Instant,
    saved: Instant,
    /// When the recent speed was last taken.
    rated: Instant,
    /// Executions at that time.
    execs_rated: u64,
    rate: Option<f64>,
    /// When the last queue entry was found, in seconds since 1970, or 0 for never.
    pub(super) last_find: u64,
    /// Likewise, of the last crash.
    pub(super) last_crash: u64,
    /// Likewise, of the last hang.
    pub(super) last_hang: u64,
}

/// What is due when the clock is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    /// An update for people.
    pub(super) update: bool,
    /// Writing the numbers to the output folder.
    pub(super) save: bool,
    /// The end of the campaign.
    pub(super) end: bool,
}

/// Executions per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// Since this start.
    pub(super) overall: f64,
    /// Over about the last [`RATE_INTERVAL`].
    pub(super) recent: f64,
}

impl Clock {
    /// Starts the clock of a campaign that runs for `duration` at most, and whose `earlier` starts
    /// count too.
    pub(super) fn new(duration: Option<Duration>, earlier: &Earlier) -> Self {
        let now = Instant::now();
        Self {
            start: now,
            earlier: earlier.run_time,
            execs_earlier: earlier.execs,
            duration,
            runs_unwatched: 0,
            time_unwatched: Duration::ZERO,
            updated: now,
            saved: now,
            rated: now,
            execs_rated: earlier.execs,
            rate: None,
            last_find: earlier.last_find,
            last_crash: earlier.last_crash,
            last_hang: earlier.last_hang,
        }
    }

    /// Time the campaign has run.
    pub(super) fn run_time(&self) -> Duration {
        self.earlier.saturating_add(self.start.elapsed())
    }

    pub(super) fn found(&mut self) {
        self.last_find = unix_now();
    }

    pub(super) fn crashed(&mut self) {
        self.last_crash = unix_now();
    }

    pub(super) fn hung(&mut self) {
        self.last_hang = unix_now();
    }

    /// Counts a run that took `time`; says whether the clock should be read.
    pub(super) fn watch(&mut self, time: Duration) -> bool {
        self.runs_unwatched += 1;
        self.time_unwatched = self.time_unwatched.saturating_add(time);
        self.runs_unwatched >= RUNS_UNWATCHED || self.time_unwatched >= TIME_UNWATCHED
    }

    /// Reads the clock, and takes what is due as done.
    pub(super) fn tick(&mut self) -> Due {
        self.runs_unwatched = 0;
        self.time_unwatched = Duration::ZERO;
        let now = Instant::now();
        let due = Due {
            update: now - self.updated >= UPDATE_INTERVAL,
            save: now - self.saved >= SAVE_INTERVAL,
            end: self.duration.is_some_and(|limit| now - self.start >= limit),
        };
        if due.update {
            self.updated = now;
        }
        if due.save {
            self.saved = now;
        }
        due
    }

    /// The speed of a campaign that has made `execs` executions.
    pub(super) fn rates(&mut self, execs: u64) -> Rates {
        let per_sec = |execs: u64, time: Duration| execs as f64 / time.as_secs_f64().max(1e-6);
        let overall = per_sec(execs - self.execs_earlier, self.start.elapsed());
        let since = self.rated.elapsed();
        if since >= RATE_INTERVAL {
            self.rate = Some(per_sec(execs - self.execs_rated, since));
            (self.rated, self.execs_rated) = (Instant::now(), execs);
        }
        Rates { overall, recent: self.rate.unwrap_or(overall) }
    }
}

/// Seconds since 1970. A clock before that is taken for 1970.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_after_many_runs_or_after_much_time_in_few() {
        let mut clock = Clock::new(None, &Earlier::default());
        let short = Duration::from_micros(1);
        assert!((1..RUNS_UNWATCHED).all(|_| !clock.watch(short)) && clock.watch(short));
        clock.tick();
        assert!(!clock.watch(TIME_UNWATCHED / 2) && clock.watch(TIME_UNWATCHED / 2));
    }

    #[test]
    fn nothing_is_due_at_the_start_but_the_end_of_a_campaign_without_time() {
        let nothing = Due { update: false, save: false, end: false };
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(Clock::new(hour, &Earlier::default()).tick(), nothing);
        let no_time = Some(Duration::ZERO);
        assert_eq!(Clock::new(no_time, &Earlier::default()).tick(), Due { end: true, ..nothing });
    }
}
