//! Rewritten code as batches see it: pages of their own, whose breakpoints are gone for good once they
//! were hit, and what tells the agent which marks are news.
//!
//! Never runs a batch.

use super::code::{Detours, Trap};
use super::watch::Watch;
use crate::address::{Gpa, Gva};
use crate::coverage::Arm;
use crate::linux::process::Process;
use crate::memory::{GuestMemory, OutOfRam};
use crate::paging::{Tables, leaf_entry};
use std::collections::HashSet;

impl Detours {
    /// Whether the agent's tables show rewritten code.
    #[must_use]
    pub(crate) fn are_in_batches(&self) -> bool {
        self.batches.is_shown
    }

    /// What the agent's tables have to show: addresses of pages, and their entries. Nothing where only
    /// blocks are told.
    pub(crate) fn batch_leaves(&self) -> impl Iterator<Item = (Gva, u64)> + '_ {
        let pages = self
            .pages
            .iter()
            .filter_map(|page| Some((page.at, leaf_entry(page.in_batches?, false, true, true))));
        let regions = self.regions.iter().filter(|region| !region.news.is_empty());
        pages.chain(regions.flat_map(|region| region.leaves())).map(|(at, entry)| (Gva(at), entry))
    }

    /// What the agent has to compare: the address of each map, how many bytes, and where it is said
    /// which are news.
    pub(crate) fn batch_maps(&self) -> Vec<[u64; 3]> {
        self.regions.iter().map(|region| region.compared()).collect()
    }

    /// The agent's tables show all of it by these entries from now on, or none.
    pub(crate) fn set_shown(&mut self, entries: Option<HashSet<Gpa>>) {
        self.batches.is_shown = entries.is_some();
        self.batches.watch = Watch::new(entries.unwrap_or_default());
    }

    /// Before a batch: arms the breakpoints of blocks that are not known.
    ///
    /// # Errors
    /// Rewritten code is missing.
    pub(crate) fn arm_batch(&mut self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        let view = &mut self.batches;
        if !std::mem::take(&mut view.is_stale) {
            return Ok(());
        }
        view.breakpoints.arm(Arm::Unknown, memory, &mut view.armed)
    }

    /// Makes `classes` of counts at `place` no news any more in batches, or news again.
    ///
    /// # Errors
    /// The maps are missing.
    pub(crate) fn set_news(
        &mut self,
        memory: &mut GuestMemory,
        place: u32,
        classes: u8,
        are_news: bool,
    ) -> Result<(), OutOfRam> {
        if let Some(&Some((region, index))) = self.marked_at.get(place as usize) {
            let region = self.regions.get_mut(region as usize);
            return region
                .map_or(Ok(()), |r| r.set_news(memory, index as usize, classes, are_news));
        }
        let view = &mut self.batches;
        if view.breakpoints.is_known(place) != are_news {
            return Ok(());
        }
        match are_news {
            true => view.breakpoints.forget(&[place]),
            false => view.breakpoints.know(&[place]),
        }
        view.is_stale = true;
        Ok(())
    }

    /// Answers an INT3 at `at` in a batch.
    ///
    /// # Errors
    /// The rewritten code is missing.
    pub(crate) fn batch_trap(
        &mut self,
        memory: &mut GuestMemory,
        at: u64,
    ) -> Result<Trap, OutOfRam> {
        let view = &mut self.batches;
        match view.breakpoints.hit(at, memory, &mut view.armed)? {
            Some(block) => Ok(Trap::Block(block)),
            None if self.is_dead(at) => Ok(Trap::Dead),
            None => Ok(Trap::Program),
        }
    }

    /// As [`hold`](Self::hold), in a batch, `tables` being the agent's.
    #[must_use]
    pub(crate) fn hold_in_batch(&mut self, tables: &Tables, process: &Process) -> bool {
        self.batches.watch.are_same(tables) && self.are_free(process)
    }

    /// After a run of a batch that the host has ended or undone; `held` says whether all of it was as
    /// it has to be.
    pub(crate) fn end_batch_run(&mut self, held: bool) {
        self.batches.watch.end_run();
        self.is_lost |= !held;
    }
}
