//! Many inputs with one entry into the guest: what goes in, and what comes out.
//!
//! Between two runs of a batch the guest puts itself back (`guest::process::agent`). What looks
//! like a finding here is to be believed only after a run of its own, by `Machine::run`. Never
//! interprets an exit.

use crate::guest::process::agent::{BATCH_BYTES_MAX, BATCH_MAX, INPUT_ALIGN};
use crate::machine::exit_counts::ExitCounts;
use crate::outcome::{ExitStatuses, Outcome};
use std::time::Duration;

/// Inputs to run one after another, in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// What the inputs take in the guest.
    room_used: usize,
}

impl Batch {
    /// The most inputs that one batch holds.
    pub const LEN_MAX: usize = BATCH_MAX;

    /// Adds an input; false when it does not fit, because the batch is full or the input too long
    /// for any.
    pub fn push(&mut self, input: &[u8]) -> bool {
        let room = input.len().next_multiple_of(INPUT_ALIGN);
        if self.ends.len() >= BATCH_MAX || room > BATCH_BYTES_MAX - self.room_used {
            return false;
        }
        self.room_used += room;
        self.bytes.extend_from_slice(input);
        self.ends.push(self.bytes.len());
        true
    }

    /// Takes all inputs out.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.room_used = 0;
    }

    /// Number of inputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no input.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The input with number `index`; empty past the last one.
    #[must_use]
    pub fn input(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let end = self.ends.get(index).copied().unwrap_or(0);
        self.bytes.get(start.unwrap_or(0)..end).unwrap_or_default()
    }

    /// All inputs in order.
    pub fn inputs(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.input(index))
    }
}

/// How a batch runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchOptions {
    /// The longest that one run may take. It is noticed between this and twice this.
    pub limit: Option<Duration>,
    /// Whether the batch ends with the first run that did not simply exit, that reached a new block,
    /// or whose marks show something new.
    pub stop_at_finding: bool,
    /// Exit statuses that are findings too: such an exit comes to the host.
    pub finding_statuses: ExitStatuses,
}

impl BatchOptions {
    /// Whether a run that came to this end simply exited.
    #[must_use]
    pub fn is_plain(&self, end: Option<&Outcome>) -> bool {
        let is_finding = |status: &u8| self.finding_statuses.contains(*status);
        matches!(end, Some(Outcome::Exited { status }) if !is_finding(status))
    }
}

/// A block that a run of a batch was the first to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHit {
    /// The run's number in the batch.
    pub run: u32,
    /// The block's number.
    pub block: u32,
}

/// What the runs of a batch did. Made once and used again, so that a batch allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct BatchReport {
    /// Why each run ended, in the order of the inputs; fewer than there are inputs when the batch
    /// stopped at a finding. `None` is not known, because the program wrote to the agent's own
    /// memory, mapped something where the agent has code, or trapped in code of the agent's: such
    /// an input must have a run of its own.
    pub runs: Vec<Option<Outcome>>,
    /// The blocks that were reached first.
    pub hits: Vec<BlockHit>,
    /// Numbers of runs whose marks show something new, in order. A hint: the program could have
    /// written them.
    pub news: Vec<u32>,
    /// What its exits were for.
    pub exits: ExitCounts,
    /// Whether the agent has learned to do something by itself for which this batch had exits: it
    /// says little of what the next one will cost.
    pub has_learned: bool,
    /// Wall-clock time of the batch.
    pub duration: Duration,
    /// Whether the program wrote to the agent's memory, or jumped into its code, so that what the
    /// agent says of the batch is not believed.
    pub is_distrusted: bool,
    /// Which runs the host ended; the agent knows of the others.
    pub(super) by_host: Vec<bool>,
}

impl BatchReport {
    /// The blocks that run `index` reached first.
    pub fn hits_of(&self, index: usize) -> impl Iterator<Item = u32> + '_ {
        self.hits.iter().filter(move |hit| hit.run as usize == index).map(|hit| hit.block)
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.hits.clear();
        self.news.clear();
        self.by_host.clear();
        self.exits.clear();
        (self.duration, self.has_learned, self.is_distrusted) = (Duration::ZERO, false, false);
    }
}

/// How many inputs make a batch of about a millisecond: enough to make the exit cheap, and few
/// enough that a finding does not wait.
///
/// Counts runs and their time only; whether a batch said anything of a run's usual cost is for its
/// user to know.
#[derive(Clone, Copy, Debug)]
pub struct BatchPace {
    len: usize,
    /// Runs by themselves since batches were too slow.
    alone: u32,
}

impl Default for BatchPace {
    fn default() -> Self {
        Self { len: Self::LEN_FIRST, alone: 0 }
    }
}

impl BatchPace {
    const TIME: Duration = Duration::from_millis(1);
    /// A run with many exits has fewer of them in a batch than by itself: so many run together as long
    /// as they take no longer than this.
    const LEN_SLOW: usize = 8;
    const TIME_SLOW: Duration = Duration::from_millis(20);
    const LEN_FIRST: usize = 16;
    /// Runs by themselves after which a batch is tried again: what was slow was perhaps the host,
    /// or the first runs of a program.
    const ALONE: u32 = 256;

    /// The length that the next batch should have; at least 1, which is no batch.
    #[must_use]
    pub const fn batch_len(self) -> usize {
        self.len
    }

    /// Takes into account that `runs` runs of a batch took `time`. The length at most doubles or
    /// halves.
    pub fn ran(&mut self, runs: usize, time: Duration) {
        let each = time.as_nanos() / runs.max(1) as u128;
        let in_time =
            |time: Duration| usize::try_from(time.as_nanos() / each.max(1)).unwrap_or(usize::MAX);
        let fitting = in_time(Self::TIME).max(in_time(Self::TIME_SLOW).min(Self::LEN_SLOW));
        let (low, high) = ((self.len / 2).max(1), (self.len * 2).min(Batch::LEN_MAX));
        self.len = fitting.clamp(low, high);
        self.alone = 0;
    }

    /// Takes a run by itself into account: after some of them a batch is tried again.
    pub fn ran_alone(&mut self) {
        if self.len > 1 {
            return;
        }
        self.alone += 1;
        if self.alone >= Self::ALONE {
            (self.len, self.alone) = (2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_comes_to_take_a_millisecond() {
        let mut pace = BatchPace::default();
        let mut settle = |each: Duration| {
            (0..20).for_each(|_| pace.ran(pace.batch_len(), each * pace.batch_len() as u32));
            pace.batch_len()
        };
        assert_eq!(settle(Duration::from_micros(2)), 500);
        assert_eq!(settle(Duration::from_micros(100)), 10);
        assert_eq!(settle(Duration::from_millis(2)), 8, "each by itself would take longer");
        assert_eq!(settle(Duration::from_millis(5)), 4);
        assert_eq!(settle(Duration::from_secs(1)), 1);
        assert_eq!(settle(Duration::ZERO), Batch::LEN_MAX);
    }

    #[test]
    fn batches_that_were_too_slow_once_are_tried_again() {
        let mut pace = BatchPace::default();
        (0..20).for_each(|_| pace.ran(pace.batch_len(), Duration::from_secs(1)));
        assert_eq!(pace.batch_len(), 1);
        (1..BatchPace::ALONE).for_each(|_| pace.ran_alone());
        assert_eq!(pace.batch_len(), 1);
        pace.ran_alone();
        assert_eq!(pace.batch_len(), 2);
        // Still too slow: as many runs again.
        pace.ran(2, Duration::from_secs(1));
        assert_eq!(pace.batch_len(), 1);
        (0..BatchPace::ALONE).for_each(|_| pace.ran_alone());
        (0..20).for_each(|_| {
            let len = pace.batch_len();
            pace.ran(len, Duration::from_micros(2) * len as u32);
        });
        assert_eq!(pace.batch_len(), 500);
    }

    #[test]
    fn a_run_by_itself_between_batches_is_no_reason_for_shorter_ones() {
        let mut pace = BatchPace::default();
        (0..1000).for_each(|_| pace.ran_alone());
        assert_eq!(pace.batch_len(), BatchPace::LEN_FIRST);
    }

    #[test]
    fn a_batch_gives_its_inputs_back() {
        let mut batch = Batch::default();
        assert!(batch.push(b"one") && batch.push(b"") && batch.push(b"three"));
        let inputs: Vec<&[u8]> = batch.inputs().collect();
        assert_eq!(inputs, [&b"one"[..], b"", b"three"]);
        assert_eq!(batch.input(3), b"");
        batch.clear();
        assert!(batch.is_empty());
    }

    #[test]
    fn a_batch_has_an_end() {
        let mut batch = Batch::default();
        assert!(!batch.push(&vec![0; BATCH_BYTES_MAX + 1]));
        assert!(batch.push(&vec![0; BATCH_BYTES_MAX]));
        assert!(!batch.push(b"x"), "no byte is left");
        let mut batch = Batch::default();
        assert_eq!((0..Batch::LEN_MAX + 9).filter(|_| batch.push(b"")).count(), Batch::LEN_MAX);
    }
}
