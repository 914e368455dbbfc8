//! Runs of a machine whose comparisons are logged. Never judges an input, and never decides what is
//! to become of one.

use super::driver::{Driver, other_kind};
use super::error::MachineError;
use super::report::Limit;
use super::run::Machine;
use crate::coverage::comparisons::Compared;
use crate::coverage::detours::Image;
use crate::guest::process::detours::DetourCounts;

impl Machine {
    /// Has the comparisons in `images`, and functions such as `memcmp` in every image, log what they
    /// compare in [`comparisons`](Self::comparisons). Nothing changes for [`run`](Self::run),
    /// [`trace`](Self::trace) and batches. How many instructions log by themselves, and how many have
    /// a breakpoint, which logs their first operands in a run.
    ///
    /// # Errors
    /// As [`install_detours`](Self::install_detours). The machine is as before, and `comparisons`
    /// gives nothing.
    pub fn install_comparisons(
        &mut self,
        images: &[Image<'_>],
    ) -> Result<DetourCounts, MachineError> {
        let (hw, driver, snapshot) = self.process_at_snapshot("comparisons")?;
        driver.install_comparisons(hw, snapshot, images)
    }

    /// Runs once from the snapshot with `input`, and back; what it compared. How it ended does not
    /// matter, and nothing that it did is to be believed.
    ///
    /// `None` if comparisons are not logged, or this run could not be made so.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn comparisons(
        &mut self,
        input: &[u8],
        limit: Limit,
    ) -> Result<Option<Vec<Compared>>, MachineError> {
        self.leave_agent()?;
        self.readiness.check()?;
        let Driver::Process(driver) = &mut self.driver else { return Ok(None) };
        if !driver.enter_comparisons(&mut self.hw)? {
            return Ok(None);
        }
        self.run_once(input, limit)?;
        let Driver::Process(driver) = &mut self.driver else { return Err(other_kind()) };
        let found = driver.read_comparisons(&self.hw)?;
        self.rewind()?;
        Ok(Some(found))
    }
}
