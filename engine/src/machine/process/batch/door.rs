//! A process's driver as batches see it: with an agent, under it, and out of it again.
//!
//! Never answers an exit.

use super::parts::{self, BatchParts};
use super::run::BatchRun;
use crate::machine::batch::{Batch, BatchOptions, BatchReport};
use crate::machine::error::MachineError;
use crate::machine::guest_state::MachineSnapshot;
use crate::machine::hardware::Hardware;
use crate::machine::process::driver::ProcessDriver;
use crate::machine::watchdog::Exits;
use crate::state::Ending;

/// The agent is gone.
const NO_AGENT: MachineError =
    MachineError::Invariant("a machine that runs batches, or stands under the agent, has one");

impl ProcessDriver {
    /// Number of pages that the agent puts back after each run.
    pub(in crate::machine) fn agent_pages_hot(&self) -> usize {
        self.agent.as_ref().map_or(0, |agent| agent.pages_hot())
    }

    /// The machine's breakpoints have changed: code that the agent has replaced is looked at anew.
    /// Not while the machine is under the agent.
    pub(in crate::machine) fn forget_replaced_calls(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.forget_calls();
        }
    }

    /// Whether the machine stands under the agent's page tables.
    pub(in crate::machine) fn is_under_agent(&self) -> bool {
        self.under_agent
    }

    /// Puts the agent into the guest if it is not there. The machine is at its snapshot, but for
    /// limits that were set since, which hold in batches too.
    pub(in crate::machine) fn prepare_agent(
        &mut self,
        hw: &mut Hardware,
        snapshot: &MachineSnapshot,
    ) -> Result<(), MachineError> {
        if self.agent.is_none() {
            self.agent = Some(parts::install(hw, snapshot, &self.state)?);
        }
        Ok(())
    }

    /// Runs a batch, the agent being prepared; see `Machine::run_batch`.
    pub(in crate::machine) fn run_batch(
        &mut self,
        parts: BatchParts<'_>,
        batch: &Batch,
        options: BatchOptions,
        report: &mut BatchReport,
    ) -> Result<(), MachineError> {
        let mut agent = self.agent.take().ok_or(NO_AGENT)?;
        if !self.under_agent {
            std::mem::swap(&mut self.state.tables, &mut agent.tables);
            self.under_agent = true;
        }
        let (input_of, timed, exits, in_doubt) = (None, 0, Exits::default(), false);
        let mut run = BatchRun {
            driver: self,
            agent,
            parts,
            batch,
            options,
            report,
            input_of,
            timed,
            exits,
            in_doubt,
        };
        let ended = run.run();
        run.parts.watchdog.disarm();
        run.report.has_learned = run.agent.take_has_learned();
        let BatchRun { driver, agent, .. } = run;
        driver.agent = Some(agent);
        ended
    }

    /// Lets the agent put the last run back, and goes back to the exact page tables.
    pub(in crate::machine) fn leave_agent(
        &mut self,
        mut parts: BatchParts<'_>,
    ) -> Result<(), MachineError> {
        let mut agent = self.agent.take().ok_or(NO_AGENT)?;
        let memory = &mut parts.hw.memory;
        // No further input: the agent puts everything back and says so.
        agent.set_count(memory, 0)?;
        parts::enter(self, &agent, &mut parts, agent.reset_entry())?;
        let BatchParts { hw, watchdog, .. } = &mut parts;
        if !watchdog.while_stub_runs(|| parts::run_to_idle(hw, &agent, watchdog))? {
            parts::mark_hot(&agent, &mut parts)?;
        }
        self.stale.clear();
        parts::undo(self, &mut agent, &mut parts, Ending::Interrupted)?;
        agent.restore_calls(&mut parts.hw.memory)?;
        std::mem::swap(&mut self.state.tables, &mut agent.tables);
        self.under_agent = false;
        *parts.hw.vcpu.sregs_mut() = parts.snapshot.state.sregs;
        self.agent = Some(agent);
        Ok(())
    }
}
