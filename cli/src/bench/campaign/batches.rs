//! The parser in batches, as it is and with more pages to put back.

use super::build::Programs;
use super::method::{INPUTS, Method};
use crate::bench::batches::Batches;
use crate::bench::context::Context;
use crate::bench::guests;
use crate::error::CliError;
use dejavm_engine::guest::process::ProcessSpec;
use std::path::Path;
use std::time::Duration;

/// Pages that the guest puts back after each run of the parser that writes more of them.
pub const PAGES_HOT: usize = 64;
/// Runs by which it is known which pages a parser writes.
const SETTLING_RUNS: u32 = 256;

/// The parser in batches of one size.
pub struct Batched {
    batches: Batches,
    size: u32,
}

/// The parser that writes more pages than it has to.
pub struct WithPages {
    /// The parser.
    pub parser: Batched,
    /// How many more.
    pub pages_more: usize,
}

impl Batched {
    /// The parser as it is.
    pub fn new(context: &Context<'_>, programs: &Programs, size: u32) -> Result<Self, CliError> {
        Self::of(context, &programs.parser, None, size)
    }

    /// The parser that writes as many more pages as make [`PAGES_HOT`] in all.
    pub fn with_pages(
        context: &Context<'_>,
        programs: &Programs,
        size: u32,
    ) -> Result<WithPages, CliError> {
        let guest = |pages_more: usize| {
            let arg = pages_more.to_string();
            Self::of(context, &programs.with_pages, Some(&arg), size)
        };
        let few = guest(0)?.settled()?;
        let pages_more = PAGES_HOT.saturating_sub(few);
        let mut parser = guest(pages_more)?;
        let hot = parser.settled()?;
        if hot != PAGES_HOT {
            let did = format!("has {hot} hot pages, {few} without {pages_more} more");
            return Err(CliError::BenchGuest { did });
        }
        Ok(WithPages { parser, pages_more })
    }

    fn of(
        context: &Context<'_>,
        program: &Path,
        arg: Option<&str>,
        size: u32,
    ) -> Result<Self, CliError> {
        let mut spec = ProcessSpec::new(program);
        spec.args.extend(arg.map(Into::into));
        let machine = guests::load(context.system, &spec, guests::RAM_BYTES)?;
        Ok(Self { batches: Batches::new(machine), size })
    }

    /// Number of pages that the guest puts back after each run.
    fn settled(&mut self) -> Result<usize, CliError> {
        self.execute(SETTLING_RUNS)?;
        Ok(self.batches.machine().agent_pages_hot())
    }

    /// Whether the machine is as its snapshot was.
    pub fn check(&mut self) -> Result<(), CliError> {
        guests::check(self.batches.machine())
    }
}

impl Method for Batched {
    fn execute(&mut self, count: u32) -> Result<Duration, CliError> {
        let mut time = Duration::ZERO;
        for first in (0..count).step_by(self.size as usize) {
            let size = self.size.min(count - first) as usize;
            let runs = INPUTS.iter().cycle().skip(first as usize % INPUTS.len());
            time += self.batches.run(runs.take(size).copied())?;
        }
        Ok(time)
    }
}
