//! The parser in batches, as it is and with more pages to put back.

use super::build::Programs;
use super::{INPUTS, Way};
use crate::bench::batches::Batches;
use crate::bench::{Context, guests};
use crate::error::CliError;
use dejavm_engine::linux::ProcessSpec;
use std::path::Path;
use std::time::Duration;

/// Pages that the guest puts back after each run of the parser that writes more of them.
pub const PAGES_HOT: usize = 64;
/// Runs by which it is known which pages a parser writes.
const SETTLING_RUNS: u32 = 256;

/// The parser in batches of so many.
pub struct Batched {
    batches: Batches,
    size: u32,
}

impl Batched {
    /// The parser as it is.
    pub fn new(context: &Context<'_>, programs: &Programs, size: u32) -> Result<Self, CliError> {
        Self::of(context, &programs.parser, None, size)
    }

    /// The parser that writes as many pages more as make [`PAGES_HOT`] in all, and how many more
    /// that are than it has without them.
    pub fn with_pages(
        context: &Context<'_>,
        programs: &Programs,
        size: u32,
    ) -> Result<(Self, usize), CliError> {
        let guest = |more: usize| {
            let arg = more.to_string();
            let mut guest = Self::of(context, &programs.with_pages, Some(&arg), size)?;
            let hot = guest.settled()?;
            Ok::<_, CliError>((guest, hot))
        };
        let (_, few) = guest(0)?;
        let more = PAGES_HOT.saturating_sub(few);
        let (guest, hot) = guest(more)?;
        if hot != PAGES_HOT {
            let did = format!("has {hot} hot pages, {few} without {more} more");
            return Err(CliError::BenchGuest { did });
        }
        Ok((guest, more))
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

impl Way for Batched {
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
