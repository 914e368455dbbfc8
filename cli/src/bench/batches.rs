//! Runs of a program many at a time: between two of them the guest puts itself back.
//!
//! Never measures more than the time of a batch, and checks how each of its runs ended.

use super::guests;
use crate::error::CliError;
use dejavm_engine::machine::{Batch, BatchOptions, BatchReport, Machine};
use dejavm_engine::outcome::Outcome;
use std::time::{Duration, Instant};

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

    /// Runs all of `runs`, an input and the exit status that it must have, in one batch. The time
    /// has everything in it: the inputs' copies, the entry, and a look at every status.
    pub fn run<'i>(
        &mut self,
        runs: impl Iterator<Item = (&'i [u8], u8)> + Clone,
    ) -> Result<Duration, CliError> {
        let start = Instant::now();
        self.batch.clear();
        if !runs.clone().all(|(input, _)| self.batch.push(input)) {
            return Err(CliError::BenchGuest { did: "has inputs that fit no batch".into() });
        }
        let options = BatchOptions { limit: guests::limit().time, stop_at_finding: false };
        let ran = self.machine.run_batch(&self.batch, options, &mut self.report);
        ran.map_err(CliError::machine("run a batch"))?;
        let wanted = runs.map(|(_, status)| Some(Outcome::Exited { status }));
        if !wanted.eq(self.report.runs.iter().cloned()) {
            let mut ends = self.report.runs.iter().flatten();
            let other = ends.find(|end| !matches!(end, Outcome::Exited { .. }));
            let did = other.map_or("gave a wrong answer in a batch".into(), Outcome::to_string);
            return Err(CliError::BenchGuest { did });
        }
        Ok(start.elapsed())
    }
}
