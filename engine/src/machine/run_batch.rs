//! Batches of a machine: the door into `process::batch`. Never interprets an exit.

use super::batch::{Batch, BatchOptions, BatchReport};
use super::driver::{Driver, other_kind};
use super::error::MachineError;
use super::guest_state::GuestState;
use super::process::BatchParts;
use super::readiness::Readiness;
use super::run::Machine;
use crate::guest::process::agent::AgentError;
use crate::guest::process::trap::CR4_FSGSBASE;
use std::time::Instant;

impl Machine {
    /// Puts the agent into the guest, as the first batch does otherwise.
    ///
    /// # Errors
    /// The guest is no process, the machine was not rewound, or there is no room for the agent;
    /// the machine is as before, and runs one input at a time.
    pub fn prepare_batches(&mut self) -> Result<(), MachineError> {
        self.readiness.check()?;
        let Self { hw, driver, snapshot, .. } = self;
        match (driver, &snapshot.guest) {
            (Driver::Process(driver), GuestState::Process(_)) => driver.prepare_agent(hw, snapshot),
            (Driver::Bare(_), GuestState::Bare(_)) => {
                Err(MachineError::NotAProcess { operation: "a batch" })
            }
            (Driver::Process(_), GuestState::Bare(_))
            | (Driver::Bare(_), GuestState::Process(_)) => Err(other_kind()),
        }
    }

    /// Runs every input of `batch` from the snapshot, and says in `report` what became of it.
    /// The machine is left rewound. The first batch puts the agent into the guest.
    ///
    /// # Errors
    /// The guest is no process, its CPU has no RDFSBASE, or the machine was not rewound. Or there
    /// is no room for the agent, or the host failed; the machine then refuses to run.
    pub fn run_batch(
        &mut self,
        batch: &Batch,
        options: BatchOptions,
        report: &mut BatchReport,
    ) -> Result<(), MachineError> {
        self.prepare_batches()?;
        let start = Instant::now();
        report.clear();
        let Self { hw, driver, patches, rewind, watchdog, snapshot, prepared, readiness, .. } =
            self;
        let (Driver::Process(driver), GuestState::Process(then)) = (driver, &snapshot.guest) else {
            return Err(other_kind());
        };
        if batch.is_empty() {
            return Ok(());
        }
        if snapshot.state.sregs.cr4 & CR4_FSGSBASE == 0 {
            return Err(AgentError::NoFsGsBase.into());
        }
        *readiness = Readiness::Poisoned;
        let parts = BatchParts { hw, patches, rewind, watchdog, snapshot, prepared, then };
        driver.run_batch(parts, batch, options, report)?;
        *readiness = Readiness::Ready;
        report.exits.runs = report.runs.len() as u64;
        report.duration = start.elapsed();
        Ok(())
    }

    /// Number of pages that the guest puts back after each run of a batch; 0 before the first.
    #[must_use]
    pub fn agent_pages_hot(&self) -> usize {
        match &self.driver {
            Driver::Process(driver) => driver.agent_pages_hot(),
            Driver::Bare(_) => 0,
        }
    }

    /// Takes the machine out of the agent's hands, at its snapshot, where a batch left it there.
    pub(super) fn leave_agent(&mut self) -> Result<(), MachineError> {
        let Self { hw, driver, patches, rewind, watchdog, snapshot, prepared, readiness, .. } =
            self;
        let (driver, then) = match (driver, &snapshot.guest) {
            (Driver::Process(driver), GuestState::Process(then)) => (driver, then),
            (Driver::Bare(_), GuestState::Bare(_)) => return Ok(()),
            (Driver::Process(_), GuestState::Bare(_))
            | (Driver::Bare(_), GuestState::Process(_)) => return Err(other_kind()),
        };
        if !driver.is_under_agent() {
            return Ok(());
        }
        *readiness = Readiness::Poisoned;
        let parts = BatchParts { hw, patches, rewind, watchdog, snapshot, prepared, then };
        driver.leave_agent(parts)?;
        *readiness = Readiness::Ready;
        Ok(())
    }
}
