//! Runs of a program many at a time: between two of them the guest puts itself back.
//!
//! Never measures more than the time of a batch, and checks how each of its runs ended.

use super::guests;
use crate::error::CliError;
use dejavm_engine::machine::{Batch, BatchOptions, BatchReport, Machine};
use dejavm_engine::outcome::Outcome;
use std::time::{Duration, Instant};

/// An input, and the exit status that a run of it must have.
#[derive(Clone, Copy)]
pub struct ExpectedRun<'i> {
    /// The input.
    pub input: &'i [u8],
    /// The status.
    pub status: u8,
}

/// A machine with the batch that it is given next.
pub struct Batches {
    machine: Machine,
    batch: Batch,
    report: BatchReport,
}

impl Batches {
    /// Batches of `machine`, whose memory for them is kept from one to the next.
    pub fn new(machine: Machine) -> Self {
        Self { machine, batch: Batch::default(), report: BatchReport::default() }
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Makes all of `runs` in one batch. The time has everything in it: the inputs' copies, the
    /// entry, and a look at every status.
    pub fn run<'i>(
        &mut self,
        runs: impl Iterator<Item = ExpectedRun<'i>> + Clone,
    ) -> Result<Duration, CliError> {
        let start = Instant::now();
        self.batch.clear();
        if !runs.clone().all(|run| self.batch.push(run.input)) {
            return Err(CliError::BenchGuest { did: "has inputs that fit no batch".into() });
        }
        let options = BatchOptions { limit: guests::limit().time, ..BatchOptions::default() };
        let ran = self.machine.run_batch(&self.batch, options, &mut self.report);
        ran.map_err(CliError::machine("run a batch"))?;
        let wanted = runs.map(|run| Some(Outcome::Exited { status: run.status }));
        if !wanted.eq(self.report.runs.iter().cloned()) {
            let mut ends = self.report.runs.iter().flatten();
            let other = ends.find(|end| !matches!(end, Outcome::Exited { .. }));
            let did = other.map_or("gave a wrong answer in a batch".into(), Outcome::to_string);
            return Err(CliError::BenchGuest { did });
        }
        Ok(start.elapsed())
    }
}
