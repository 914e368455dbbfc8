//! A process's driver as runs with detours see it: under their page tables, and out of them again.
//!
//! Never answers an exit, and never judges what the maps say.

use super::driver::ProcessDriver;
use crate::coverage::comparisons::StringFunction;
use crate::coverage::counts::PlaceHit;
use crate::coverage::detours::{Detail, Image};
use crate::guest::process::agent::MAPS_MAX;
use crate::guest::process::detours::{self, DetourConfig, DetourCounts, Detours, Purpose, Trap};
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
        detail: Detail,
    ) -> Result<DetourCounts, MachineError> {
        self.hide_from_batches(hw)?;
        self.detours = None;
        let detours = self.new_detours(hw, snapshot, images, Purpose::Marks(detail), &[])?;
        let counts = detours.counts.clone();
        self.detours = Some(detours);
        Ok(counts)
    }

    /// Detours of a machine at its snapshot, which does not run through them yet.
    pub(super) fn new_detours(
        &self,
        hw: &mut Hardware,
        snapshot: &MachineSnapshot,
        images: &[Image<'_>],
        purpose: Purpose,
        functions: &[(u64, StringFunction)],
    ) -> Result<Box<Detours>, MachineError> {
        let config = DetourConfig {
            tables: &self.state.tables,
            process: &self.state.process,
            pages: &snapshot.pages,
            regs: &snapshot.state.regs,
            crash_points: &self.state.crash_points,
            purpose,
            functions,
        };
        Ok(Box::new(detours::install(&mut hw.memory, &config, images)?))
    }

    /// The blocks do not have these numbers any more.
    pub(in crate::machine) fn forget_detours(
        &mut self,
        hw: &mut Hardware,
    ) -> Result<(), MachineError> {
        self.hide_from_batches(hw)?;
        self.detours = None;
        self.comparisons = None;
        Ok(())
    }

    /// Has batches run through detours from now on, if there are any for them and an agent; whether
    /// they do. Not while the machine is under the agent.
    pub(in crate::machine) fn show_in_batches(
        &mut self,
        hw: &mut Hardware,
    ) -> Result<bool, MachineError> {
        let (Some(detours), Some(agent)) = (&mut self.detours, &mut self.agent) else {
            return Ok(false);
        };
        let maps = detours.batch_maps();
        if detours.batch_leaves().next().is_none() || maps.len() > MAPS_MAX {
            return Ok(false);
        }
        let leaves = detours.batch_leaves();
        let entries = agent.show(&mut hw.memory, leaves, &maps, detours.are_counts)?;
        detours.set_shown(Some(entries));
        Ok(true)
    }

    /// Has batches run the program's own code again.
    pub(in crate::machine) fn hide_from_batches(
        &mut self,
        hw: &mut Hardware,
    ) -> Result<(), MachineError> {
        let (Some(detours), Some(agent)) = (&mut self.detours, &mut self.agent) else {
            return Ok(());
        };
        if !detours.are_in_batches() {
            return Ok(());
        }
        let exact = |(at, _)| {
            let leaf = self.state.tables.leaf(&hw.memory, at);
            (at, leaf.map_or(0, |(_, entry)| entry))
        };
        let leaves: Vec<_> = detours.batch_leaves().map(exact).collect();
        agent.show(&mut hw.memory, leaves.into_iter(), &[], false)?;
        detours.set_shown(None);
        Ok(())
    }

    /// Makes classes of counts at places no news any more in batches, or news again.
    pub(in crate::machine) fn set_news(
        &mut self,
        hw: &mut Hardware,
        (place, classes): (u32, u8),
        are_news: bool,
    ) -> Result<(), MachineError> {
        match &mut self.detours {
            Some(detours) => Ok(detours.set_news(&mut hw.memory, place, classes, are_news)?),
            None => Ok(()),
        }
    }

    /// Before a batch: has the detours, where it runs through them, as they have to be.
    pub(super) fn prepare_batch(&mut self, hw: &mut Hardware) -> Result<(), MachineError> {
        if let Some(detours) = self.detours.as_mut().filter(|detours| detours.are_in_batches()) {
            detours.mend(&mut hw.memory)?;
            detours.arm_batch(&mut hw.memory)?;
        }
        Ok(())
    }

    /// Clears the maps after a run of a batch that the agent does not compare.
    pub(super) fn clear_marks(&mut self, hw: &mut Hardware) -> Result<(), MachineError> {
        match self.detours.as_ref().filter(|detours| detours.are_in_batches()) {
            Some(detours) => Ok(detours.clear_marks(&mut hw.memory)?),
            None => Ok(()),
        }
    }

    /// Whether a program in a batch still sees what it is to see.
    pub(super) fn are_detours_held(&mut self) -> bool {
        let detours = self.detours.as_mut().filter(|detours| detours.are_in_batches());
        detours.is_none_or(|d| d.hold_in_batch(&self.state.tables, &self.state.process))
    }

    /// A run of a batch is undone: see [`are_detours_held`](Self::are_detours_held).
    pub(super) fn end_batch_run(
        &mut self,
        hw: &mut Hardware,
        held: bool,
    ) -> Result<(), MachineError> {
        if let Some(detours) = self.detours.as_mut().filter(|detours| detours.are_in_batches()) {
            detours.end_batch_run(held);
            detours.mend(&mut hw.memory)?;
        }
        Ok(())
    }

    /// The detours that the program sees now.
    fn seen_detours(&self) -> Option<&Detours> {
        let detours = self.detours.as_deref();
        detours.filter(|d| self.under_detours || self.under_agent && d.are_in_batches())
    }

    /// Has the next run go through detours, until it is undone; false where there are none.
    pub(in crate::machine) fn enter_detours(
        &mut self,
        hw: &mut Hardware,
    ) -> Result<bool, MachineError> {
        let Some(detours) = &mut self.detours else { return Ok(false) };
        detours.mend(&mut hw.memory)?;
        if detours.are_in_batches() {
            // A program can have written where the agent does not look.
            detours.clear_marks(&mut hw.memory)?;
        }
        std::mem::swap(&mut self.state.tables, &mut detours.tables);
        self.under_detours = true;
        hw.vcpu.sregs_mut().cr3 = self.state.tables.root().0;
        Ok(true)
    }

    /// Undoes the page tables' changes of a run through detours, and goes back to the exact tables,
    /// for which the special registers are yet to be put back.
    pub(super) fn leave_detours(&mut self, hw: &mut Hardware) -> Result<(), MachineError> {
        let Some(detours) = self.detours.as_mut().filter(|_| self.under_detours) else {
            return Ok(());
        };
        let held = detours.hold(&self.state.tables, &self.state.process);
        self.state.tables.rewind_to(&mut hw.memory, &detours.baseline)?;
        // A run that was stopped before its first exit may not have written them.
        self.state.tables.mark_stale(&mut self.stale);
        detours.end_run(&mut hw.memory, held)?;
        std::mem::swap(&mut self.state.tables, &mut detours.tables);
        self.under_detours = false;
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
        self.seen_detours().is_some_and(|detours| detours.has_moved(rip))
    }

    /// Whether who is told of a fault may see flags that a mark has changed: they are dead there, but
    /// an instruction can fault before it overwrites them.
    pub(super) fn are_flags_off(&self) -> bool {
        self.seen_detours().is_some_and(|detours| detours.are_counts)
    }

    /// What the INT3 at `at` in rewritten code is, if the program sees any.
    pub(super) fn detour_trap(
        &mut self,
        hw: &mut Hardware,
        at: u64,
    ) -> Result<Option<Trap>, MachineError> {
        let Some(detours) = &mut self.detours else { return Ok(None) };
        if self.under_detours {
            return Ok(Some(detours.trap(&mut hw.memory, at)?));
        }
        let is_seen = self.under_agent && detours.are_in_batches();
        Ok(is_seen.then(|| detours.batch_trap(&mut hw.memory, at)).transpose()?)
    }

    /// Adds the places that marked themselves to the run's, and the blocks among them, in the order of
    /// their numbers; false if the program has written to a map by itself.
    pub(in crate::machine) fn read_marks(&mut self, hw: &Hardware) -> Result<bool, MachineError> {
        let Some(detours) = self.detours.as_ref().filter(|_| self.under_detours) else {
            return Ok(false);
        };
        self.places.clear();
        self.places.extend(self.hits.iter().map(|block| PlaceHit { place: *block, count: 1 }));
        let before = self.places.len();
        let is_whole = detours.read_marks(&hw.memory, &mut self.places)?;
        let marked = self.places.iter().skip(before).map(|hit| hit.place);
        self.hits.extend(marked.filter(|place| *place < detours.blocks));
        self.hits.sort_unstable();
        self.places.sort_unstable();
        Ok(is_whole)
    }
}
