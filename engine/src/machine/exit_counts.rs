//! What the exits of batches were for. Only counts, every one; never judges one.

use crate::linux::abi::syscall::SystemCall;

/// System calls that are counted apart; a program that makes more different ones has the rest
/// counted together.
const CALLS_MAX: usize = 64;

/// What the exits of a batch, or of many, were for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// Runs that made them.
    pub runs: u64,
    /// All of them: returns of `KVM_RUN`.
    pub total: u64,
    /// Hits of coverage's breakpoints, each of which is hit once.
    pub breakpoints: u64,
    /// Page faults: first writes, which stay open, and pages that are mapped lazily.
    pub page_faults: u64,
    /// Ends of runs that the host undoes, and of batches.
    pub ends: u64,
    /// Number and count of system calls, in the order of their first.
    calls: Vec<(u64, u64)>,
    /// System calls beyond [`CALLS_MAX`] different ones.
    calls_beyond: u64,
}

impl ExitCounts {
    /// Exits of a run, on average, without breakpoints of coverage; `None` before the first run.
    #[must_use]
    pub fn per_run(&self) -> Option<f64> {
        self.of_runs(self.total.saturating_sub(self.breakpoints))
    }

    /// How often a run did what was done `count` times; `None` before the first run.
    #[must_use]
    pub fn of_runs(&self, count: u64) -> Option<f64> {
        (self.runs > 0).then(|| count as f64 / self.runs as f64)
    }

    /// The names of the system calls that the host served, with how many there were, most frequent
    /// first. Those of one count are in the order of their names.
    #[must_use]
    pub fn calls(&self) -> Vec<(String, u64)> {
        let name = |nr| SystemCall { nr, args: [0; 6] }.name();
        let mut calls: Vec<_> = self.calls.iter().map(|&(nr, count)| (name(nr), count)).collect();
        if self.calls_beyond > 0 {
            calls.push(("others".to_owned(), self.calls_beyond));
        }
        calls.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        calls
    }

    /// Counts `count` system calls with number `nr`. Allocates when a number is new, at most so
    /// often that [`CALLS_MAX`] are held.
    pub(super) fn add_calls(&mut self, nr: u64, count: u64) {
        if let Some((_, counted)) = self.calls.iter_mut().find(|(other, _)| *other == nr) {
            *counted += count;
        } else if self.calls.len() < CALLS_MAX {
            self.calls.push((nr, count));
        } else {
            self.calls_beyond += count;
        }
    }

    /// Adds those of other runs.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.total += other.total;
        self.breakpoints += other.breakpoints;
        self.page_faults += other.page_faults;
        self.ends += other.ends;
        self.calls_beyond += other.calls_beyond;
        other.calls.iter().for_each(|&(nr, count)| self.add_calls(nr, count));
    }

    pub(super) fn clear(&mut self) {
        let mut calls = std::mem::take(&mut self.calls);
        calls.clear();
        *self = Self { calls, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_call_comes_first_and_breakpoints_are_no_exits_of_a_run() {
        let mut counts = ExitCounts { runs: 4, total: 12, breakpoints: 2, ..Default::default() };
        assert_eq!(ExitCounts::default().per_run(), None);
        assert_eq!(counts.per_run(), Some(2.5));
        for nr in [libc::SYS_mmap, libc::SYS_munmap, libc::SYS_brk, libc::SYS_munmap] {
            counts.add_calls(nr as u64, 1);
        }
        let named = |counts: &ExitCounts| {
            counts.calls().iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>()
        };
        assert_eq!(named(&counts), ["munmap 2", "brk 1", "mmap 1"]);
        let one = counts.clone();
        counts.add(&one);
        assert_eq!((counts.runs, counts.total), (8, 24));
        assert_eq!(named(&counts), ["munmap 4", "brk 2", "mmap 2"]);
    }

    #[test]
    fn a_program_that_tries_every_number_fills_no_memory() {
        let mut counts = ExitCounts::default();
        (0..100_000).for_each(|nr| counts.add_calls(nr, 1));
        assert_eq!(counts.calls.len(), CALLS_MAX);
        let calls = counts.calls();
        assert_eq!(calls.iter().map(|(_, count)| count).sum::<u64>(), 100_000);
        assert_eq!(calls[0], ("others".to_owned(), 100_000 - CALLS_MAX as u64));
        counts.clear();
        assert_eq!(counts, ExitCounts::default());
    }
}
