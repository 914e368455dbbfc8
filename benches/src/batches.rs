//! Runs many at a time, between which the guest puts itself back: how long they take.

use dejavm_engine::machine::{Batch, BatchOptions, BatchReport, Machine};
use dejavm_engine::outcome::Outcome;
use std::time::{Duration, Instant};

/// An input, and the exit status that a run of it must have.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedRun<'i> {
    /// The input.
    pub input: &'i [u8],
    /// The status.
    pub status: u8,
}

/// Batches of one size.
pub struct Batches {
    machine: Machine,
    size: usize,
    batch: Batch,
    report: BatchReport,
}

impl Batches {
    /// Batches of `size` runs of `machine`.
    #[must_use]
    pub fn new(machine: Machine, size: usize) -> Self {
        Self { machine, size, batch: Batch::default(), report: BatchReport::default() }
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// What `times` runs take of as many whole batches as they need. `runs` are made in turn.
    ///
    /// # Panics
    /// A run ends otherwise, or there is no batch of this size.
    pub fn time(&mut self, times: u64, runs: &[ExpectedRun<'_>]) -> Duration {
        let batches = times.div_ceil(self.size as u64);
        let start = Instant::now();
        (0..batches).for_each(|_| self.once(runs));
        start.elapsed().mul_f64(times as f64 / (batches * self.size as u64) as f64)
    }

    fn once(&mut self, runs: &[ExpectedRun<'_>]) {
        self.batch.clear();
        for run in runs.iter().cycle().take(self.size) {
            assert!(self.batch.push(run.input), "an input that fits no batch");
        }
        let options = BatchOptions { limit: crate::limit().time, ..BatchOptions::default() };
        self.machine.run_batch(&self.batch, options, &mut self.report).expect("a batch");
        for (ended, run) in self.report.runs.iter().zip(runs.iter().cycle()) {
            assert_eq!(*ended, Some(Outcome::Exited { status: run.status }));
        }
    }
}
