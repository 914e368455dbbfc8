//! A machine's blocks: which have breakpoints, and which a run has hit. Never decides what a block
//! is worth.

use super::driver::Driver;
use super::error::MachineError;
use super::readiness::Readiness;
use super::run::Machine;
use crate::coverage::{Arm, Breakpoints};

impl Machine {
    /// Sets breakpoints at the block starts `blocks`, guest-virtual addresses. A block's number
    /// in all later calls is its index here. None is armed yet.
    ///
    /// # Errors
    /// The guest is no process, or the machine was not rewound.
    pub fn set_blocks(&mut self, blocks: &[u64]) -> Result<(), MachineError> {
        self.leave_agent()?;
        let Self { hw, driver, patches, .. } = self;
        let Driver::Process(driver) = driver else {
            return Err(MachineError::NotAProcess { operation: "coverage" });
        };
        self.readiness.check()?;
        driver.breakpoints.arm(Arm::None, &mut hw.memory, patches)?;
        driver.breakpoints = Breakpoints::new(blocks, &hw.memory, |at| driver.block_site(hw, at));
        driver.forget_replaced_calls();
        driver.forget_detours(hw)?;
        Ok(())
    }

    /// Number of blocks that are in pages which the program had not touched at the snapshot:
    /// these never fire.
    #[must_use]
    pub fn blocks_unmapped(&self) -> usize {
        match &self.driver {
            Driver::Process(driver) => driver.breakpoints.unmapped(),
            Driver::Bare(_) => 0,
        }
    }

    /// Marks blocks as reached by earlier runs.
    pub fn know_blocks(&mut self, blocks: &[u32]) {
        if let Driver::Process(driver) = &mut self.driver {
            driver.breakpoints.know(blocks);
        }
    }

    /// Takes the mark of earlier runs from blocks: their next hit is reported again. Takes effect
    /// with the next [`arm_blocks`](Self::arm_blocks).
    pub fn forget_blocks(&mut self, blocks: &[u32]) {
        if let Driver::Process(driver) = &mut self.driver {
            driver.breakpoints.forget(blocks);
        }
    }

    /// Chooses which breakpoints fire in the next runs.
    pub fn arm_blocks(&mut self, which: Arm) {
        if let Driver::Process(driver) = &mut self.driver
            && driver.breakpoints.arm(which, &mut self.hw.memory, &mut self.patches).is_err()
        {
            // The next run says so.
            self.readiness = Readiness::Broken("a breakpoint is in RAM");
        }
    }

    /// The blocks whose breakpoints the last run hit, in the order it hit them. Empty after a
    /// rewind.
    #[must_use]
    pub fn blocks_hit(&self) -> &[u32] {
        match &self.driver {
            Driver::Process(driver) => &driver.hits,
            Driver::Bare(_) => &[],
        }
    }
}
