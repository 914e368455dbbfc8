//! The parser in a machine, one input at a time, and what its pages are compared with.

use super::build::Programs;
use super::method::{INPUTS, Method};
use crate::bench::batches::ExpectedRun;
use crate::bench::context::Context;
use crate::bench::copies::Copies;
use crate::bench::guests;
use crate::error::CliError;
use dejavm_engine::guest::process::ProcessSpec;
use dejavm_engine::machine::Machine;
use dejavm_engine::outcome::Outcome;
use std::time::{Duration, Instant};

/// The parser in a machine: one input for each entry, and a rewind after it.
pub struct InMachine {
    machine: Machine,
}

impl InMachine {
    /// At its snapshot.
    pub fn new(context: &Context<'_>, programs: &Programs) -> Result<Self, CliError> {
        let spec = ProcessSpec::new(&programs.parser);
        let machine = guests::load(context.system, &spec, guests::RAM_BYTES)?;
        Ok(Self { machine })
    }
}

impl Method for InMachine {
    fn execute(&mut self, count: u32) -> Result<Duration, CliError> {
        let start = Instant::now();
        for ExpectedRun { input, status } in INPUTS.iter().cycle().take(count as usize) {
            let ran = self.machine.run(input, guests::limit());
            let outcome = ran.map_err(CliError::machine("run the parser"))?.outcome;
            if outcome != (Outcome::Exited { status: *status }) {
                return Err(CliError::BenchGuest { did: outcome.to_string() });
            }
            self.machine.rewind().map_err(CliError::machine("rewind the parser"))?;
        }
        Ok(start.elapsed())
    }
}

impl Method for Copies {
    fn execute(&mut self, count: u32) -> Result<Duration, CliError> {
        Ok(self.make(count))
    }
}
