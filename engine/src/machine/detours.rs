//! Runs of a machine whose blocks mark themselves: which blocks an input reaches, by one run
//! instead of an exit for each. Never judges an input.

use super::driver::{Driver, other_kind};
use super::error::MachineError;
use super::report::{Limit, RunReport};
use super::run::Machine;
use crate::coverage::detours::Image;
use crate::guest::process::detours::DetourCounts;
use crate::outcome::Outcome;

impl Machine {
    /// Has the blocks of `images` mark themselves, as far as they can, in [`trace`](Self::trace):
    /// all of those that [`set_blocks`](Self::set_blocks) was given, by the same numbers. The others
    /// have breakpoints there. Nothing changes for [`run`](Self::run) and batches.
    ///
    /// # Errors
    /// The guest is no process, the machine was not rewound, the program can write its own code, or
    /// there is no room. The machine is as before, and `trace` gives nothing.
    pub fn install_detours(&mut self, images: &[Image<'_>]) -> Result<DetourCounts, MachineError> {
        self.leave_agent()?;
        self.readiness.check()?;
        let Self { hw, driver, snapshot, .. } = self;
        let Driver::Process(driver) = driver else {
            return Err(MachineError::NotAProcess { operation: "coverage" });
        };
        driver.install_detours(hw, snapshot, images)
    }

    /// Runs once from the snapshot with `input`, through detours: all blocks that the run reached are
    /// then in [`blocks_hit`](Self::blocks_hit), in the order of their numbers, whatever earlier runs
    /// reached.
    ///
    /// `None`, with the machine rewound, if there are no detours or this run must do without:
    /// because it did not simply exit, or did something that could show them (a signal in the middle
    /// of moved code, other code mapped in its place, a time slice). What is to be believed of such
    /// an input only [`run`](Self::run) can tell.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn trace(&mut self, input: &[u8], limit: Limit) -> Result<Option<RunReport>, MachineError> {
        self.leave_agent()?;
        self.readiness.check()?;
        let Driver::Process(driver) = &mut self.driver else { return Ok(None) };
        if !driver.enter_detours(&mut self.hw) {
            return Ok(None);
        }
        let ran = self.run_once(input, limit)?;
        let Driver::Process(driver) = &mut self.driver else { return Err(other_kind()) };
        match ran {
            Some(report)
                if matches!(report.outcome, Outcome::Exited { .. })
                    && driver.read_marks(&self.hw)? =>
            {
                Ok(Some(report))
            }
            Some(_) | None => {
                self.rewind()?;
                Ok(None)
            }
        }
    }
}
