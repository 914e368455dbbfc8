//! A process's driver as runs with detours see it: under their page tables, and out of them again.
//!
//! Never answers an exit, and never judges what the maps say.

use super::driver::ProcessDriver;
use crate::coverage::detours::Image;
use crate::guest::process::detours::{self, DetourConfig, DetourCounts, Purpose};
use crate::machine::error::MachineError;
use crate::machine::guest_state::MachineSnapshot;
use crate::machine::hardware::Hardware;

impl ProcessDriver {
    /// Puts detours for `images` into a machine at its snapshot, in place of any that are there.
    pub(in crate::machine) fn install_detours(
        &mut self,
        hw: &mut Hardware,
        snapshot: &MachineSnapshot,
        images: &[Image<'_>],
    ) -> Result<DetourCounts, MachineError> {
        self.detours = None;
        let config = DetourConfig {
            tables: &self.state.tables,
            process: &self.state.process,
            pages: &snapshot.pages,
            regs: &snapshot.state.regs,
            crash_points: &self.state.crash_points,
            purpose: Purpose::Marks,
            functions: &[],
        };
        let detours = detours::install(&mut hw.memory, &config, images)?;
        let counts = detours.counts.clone();
        self.detours = Some(Box::new(detours));
        Ok(counts)
    }

    /// The blocks do not have these numbers any more.
    pub(in crate::machine) fn forget_detours(&mut self) {
        self.detours = None;
        self.comparisons = None;
    }

    /// Has the next run go through detours, until it is undone; false where there are none.
    pub(in crate::machine) fn enter_detours(&mut self, hw: &mut Hardware) -> bool {
        let Some(detours) = &mut self.detours else { return false };
        std::mem::swap(&mut self.state.tables, &mut detours.tables);
        self.under_detours = true;
        hw.vcpu.sregs_mut().cr3 = self.state.tables.root().0;
        true
    }

    /// Undoes the page tables' changes of a run through detours, and goes back to the exact tables,
    /// for which the special registers are yet to be put back.
    pub(super) fn leave_detours(&mut self, hw: &mut Hardware) -> Result<(), MachineError> {
        let Some(detours) = self.detours.as_mut().filter(|_| self.under_detours) else {
            return Ok(());
        };
        let is_lost = !detours.hold(&self.state.tables, &self.state.process);
        self.state.tables.rewind_to(&mut hw.memory, &detours.baseline)?;
        // A run that was stopped before its first exit may not have written them.
        self.state.tables.mark_stale(&mut self.stale);
        detours.end_run(&mut hw.memory)?;
        std::mem::swap(&mut self.state.tables, &mut detours.tables);
        self.under_detours = false;
        if is_lost {
            // What the program has put in place of its code may have been put into these pages.
            self.detours = None;
        }
        self.leave_comparisons();
        Ok(())
    }

    /// Whether the program sees what it is to see. With detours it does not any more when it has
    /// mapped something else there.
    pub(super) fn is_shown_right(&mut self) -> bool {
        let detours = self.detours.as_mut().filter(|_| self.under_detours);
        detours.is_none_or(|detours| detours.hold(&self.state.tables, &self.state.process))
    }

    /// Whether `rip` is in a trampoline, which is not where the program would be without.
    pub(super) fn is_off_path(&self, rip: u64) -> bool {
        let detours = self.detours.as_ref().filter(|_| self.under_detours);
        detours.is_some_and(|detours| detours.has_moved(rip))
    }

    /// Adds the blocks that marked themselves to the run's, in the order of their numbers; false if
    /// the program has written to a map by itself.
    pub(in crate::machine) fn read_marks(&mut self, hw: &Hardware) -> Result<bool, MachineError> {
        let Some(detours) = self.detours.as_ref().filter(|_| self.under_detours) else {
            return Ok(false);
        };
        let is_whole = detours.read_marks(&hw.memory, &mut self.hits)?;
        self.hits.sort_unstable();
        Ok(is_whole)
    }
}
