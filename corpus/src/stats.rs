//! What a campaign reports while it runs: numbers, and events for people.
//!
//! Only data and text; who prints it, and where, is not decided here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::chain::ErrorChain;
use crate::seeds::SkipReason;
use crate::target::CrashFacts;

/// The numbers of a campaign at one moment. Counts of an earlier part of a resumed campaign are in
/// all of them unless it says otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Time the campaign has run.
    pub run_time: Duration,
    /// Runs of the target, repeats for confirmation and for exact coverage included.
    pub execs: u64,
    /// Executions per second since this start.
    pub execs_per_sec: f64,
    /// Executions per second over about the last two seconds.
    pub execs_per_sec_recent: f64,
    /// Entries in the queue.
    pub corpus: usize,
    /// Entries in the queue that are no seeds.
    pub corpus_found: u64,
    /// Entries that the scheduler prefers.
    pub favoured: usize,
    /// Entries that have not been mutated yet, since this start.
    pub pending: usize,
    /// Preferred entries that have not been mutated yet, since this start.
    pub pending_favoured: usize,
    /// Longest chain of mutants, 1 for a seed.
    pub depth: u64,
    /// Number of the queue entry whose turn it is.
    pub current: u64,
    /// Times the scheduler went through the whole queue.
    pub cycles: u64,
    /// Blocks that the queue reaches.
    pub blocks_reached: usize,
    /// Blocks there are.
    pub blocks_total: usize,
    /// Edges that the queue reaches, besides those that a block stands for.
    pub edges_reached: usize,
    /// Edges there are, likewise; 0 where the target does not tell them.
    pub edges_total: usize,
    /// Crashes that differ in kind or in the top of their stack.
    pub crashes_unique: u64,
    /// All runs that crashed, as far as believed.
    pub crashes_total: u64,
    /// Hangs saved.
    pub hangs_unique: u64,
    /// All runs that reached the time limit, the refuted ones included.
    pub timeouts_total: u64,
    /// Findings that a second run did not show.
    pub unreproducible: u64,
    /// Runs that needed something the target does not offer.
    pub unsupported: u64,
    /// Time since the last new queue entry.
    pub last_find: Option<Duration>,
    /// Time since the last new crash.
    pub last_crash: Option<Duration>,
    /// Time since the last new hang.
    pub last_hang: Option<Duration>,
    /// Time limit of one run.
    pub timeout: Duration,
    /// Longest run that finished, since this start.
    pub slowest: Duration,
    /// [`Target::exits_per_run`](crate::Target::exits_per_run), since this start.
    pub exits_per_run: Option<f64>,
}

/// Hears from a campaign.
pub trait Progress {
    /// Called about four times a second, and once at the end.
    fn update(&mut self, stats: &Stats);

    /// Called when something happens that people want to know.
    fn event(&mut self, event: &Event<'_>);
}

/// Hears nothing.
impl Progress for () {
    fn update(&mut self, _: &Stats) {}
    fn event(&mut self, _: &Event<'_>) {}
}

/// Something that happened; its `Display` is one line for people.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The campaign starts with this seed of its random numbers.
    Started {
        /// Pass it as [`Options::seed`](crate::Options::seed) to repeat the campaign.
        seed: u64,
    },
    /// The output folder holds a campaign, which goes on.
    Resumed {
        /// Entries in its queue.
        entries: usize,
        /// Its unique crashes.
        crashes: u64,
        /// Its hangs.
        hangs: u64,
    },
    /// A file does not become a queue entry.
    SeedSkipped {
        /// The file.
        path: &'a Path,
        /// Why.
        reason: &'a SkipReason,
    },
    /// A file in the output folder is ignored.
    Ignored {
        /// The file.
        path: &'a Path,
        /// Why.
        reason: IgnoredReason<'a>,
    },
    /// What an interrupted write left was removed.
    LeftoverRemoved {
        /// The folder it lay in.
        folder: &'a Path,
    },
    /// The time limit of a run was taken from the seeds.
    Calibrated {
        /// The limit.
        timeout: Duration,
        /// Longest run of a seed.
        slowest: Duration,
    },
    /// Many inputs finished a little after the time limit of a run, which is longer now.
    Slowed {
        /// The limit.
        timeout: Duration,
    },
    /// A crash not seen before.
    NewCrash {
        /// Its input, saved.
        path: &'a Path,
        /// What happened.
        facts: &'a CrashFacts,
    },
    /// A hang not seen before.
    NewHang {
        /// Its input, saved.
        path: &'a Path,
    },
    /// A second run did not show a finding again.
    Unreproducible {
        /// The finding.
        finding: Finding<'a>,
    },
    /// A run needed something that the target does not offer; reported once for each reason.
    Unsupported {
        /// The target's words.
        reason: &'a str,
    },
    /// There are too many of these to save more; further ones are only counted.
    Full {
        /// The folder.
        folder: &'a Path,
    },
}

/// Why a file in the output folder is ignored.
#[derive(Debug)]
#[non_exhaustive]
pub enum IgnoredReason<'a> {
    /// Its name is not that of a finding.
    ForeignName,
    /// It cannot be an input.
    Unusable(&'a SkipReason),
    /// Run again, it no longer finishes.
    NoLongerFinishes,
    /// It is damaged; what it held starts anew.
    Damaged,
}

/// Something a run showed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Finding<'a> {
    /// Blocks not reached before.
    Coverage,
    /// A crash.
    Crash(&'a CrashFacts),
    /// Reaching the time limit.
    Timeout,
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { seed } => write!(f, "random seed {seed}"),
            Self::Resumed { entries, crashes, hangs } => {
                write!(f, "resuming: {entries} queue entries, {crashes} crashes, {hangs} hangs")
            }
            Self::SeedSkipped { path, reason } => {
                let reason = ErrorChain(*reason);
                write!(f, "seed {} is not in the queue: {reason}", path.display())
            }
            Self::Ignored { path, reason } => {
                write!(f, "ignoring {}: {reason}", path.display())
            }
            Self::LeftoverRemoved { folder } => {
                write!(f, "removed an unfinished file from {}", folder.display())
            }
            Self::Calibrated { timeout, slowest } => {
                write!(f, "time limit {timeout:?} (slowest seed {slowest:?})")
            }
            Self::Slowed { timeout } => {
                write!(
                    f,
                    "time limit {timeout:?} (many inputs finish a little after the earlier one)"
                )
            }
            Self::NewCrash { path, facts } => {
                write!(f, "new crash: {} ({})", facts.summary, path.display())
            }
            Self::NewHang { path } => write!(f, "new hang: {}", path.display()),
            Self::Unreproducible { finding } => write!(f, "seen once, not again: {finding}"),
            Self::Unsupported { reason } => write!(f, "the target does not support: {reason}"),
            Self::Full { folder } => {
                write!(f, "{} is full; further findings are only counted", folder.display())
            }
        }
    }
}

impl fmt::Display for IgnoredReason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignName => f.write_str("its name is not that of a finding"),
            Self::Unusable(reason) => write!(f, "{}", ErrorChain(*reason)),
            Self::NoLongerFinishes => f.write_str("run again, it no longer finishes"),
            Self::Damaged => f.write_str("it is damaged; what it held starts anew"),
        }
    }
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coverage => f.write_str("new coverage"),
            Self::Crash(facts) => write!(f, "crash, {}", facts.summary),
            Self::Timeout => f.write_str("reaching the time limit"),
        }
    }
}

/// Why a campaign ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The stop flag was set.
    Requested,
    /// Its time was over.
    Duration,
    /// It made the executions it was asked for.
    Executions,
    /// It found a new crash and was asked to stop there.
    Crash,
}

/// How a campaign ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Why.
    pub reason: StopReason,
    /// Seed of its random numbers.
    pub seed: u64,
    /// The numbers at the end.
    pub stats: Stats,
    /// New crashes of this start, in the order found.
    pub new_crashes: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn says_why_a_seed_cannot_be_read() {
        let reason = SkipReason::Unreadable(io::Error::other("it is locked"));
        let path = Path::new("in/a");
        let skipped = Event::SeedSkipped { path, reason: &reason }.to_string();
        let line = "seed in/a is not in the queue: it cannot be read: it is locked";
        assert_eq!(skipped, line);
        let ignored = IgnoredReason::Unusable(&reason).to_string();
        assert_eq!(ignored, "it cannot be read: it is locked");
    }
}
