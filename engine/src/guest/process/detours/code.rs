//! Rewritten code in a guest, and what is known of it.
//!
//! Never decides what is rewritten: `install` does.

use super::hooks::{Hooked, Hooks};
use super::region::Region;
use crate::address::Gpa;
use crate::arch::INT3;
use crate::coverage::comparisons::Logged;
use crate::coverage::detours::Left;
use crate::linux::process::Process;
use crate::memory::{GuestMemory, OutOfRam};
use crate::paging::Tables;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

/// How the blocks of a machine are seen in a run with detours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetourCounts {
    /// Blocks that mark themselves.
    pub detours: usize,
    /// Blocks that have a breakpoint instead, and why.
    pub left: BTreeMap<Left, usize>,
}

impl DetourCounts {
    /// Blocks that have a breakpoint.
    #[must_use]
    pub fn breakpoints(&self) -> usize {
        self.left.values().sum()
    }
}

/// A breakpoint at a block that does not mark itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Breakpoint {
    pub number: u32,
    pub place: Gpa,
    pub original: u8,
}

/// What an INT3 in rewritten code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    /// The first arrival at this block. The breakpoint is gone until the run is over.
    Block(u32),
    /// A function that compares strings.
    Function(Hooked),
    /// An arrival in code that has moved: the plan is wrong.
    Dead,
    /// The program's own.
    Program,
}

/// Rewritten code, and the page tables that show it.
#[derive(Debug)]
pub(crate) struct Detours {
    /// Its page tables, while the machine does not run under them; the exact ones while it does.
    pub tables: Tables,
    /// Its page tables' bookkeeping at the snapshot.
    pub baseline: Tables,
    pub counts: DetourCounts,
    pub(super) regions: Vec<Region>,
    pub(super) breakpoints: HashMap<u64, Breakpoint>,
    /// Addresses of breakpoints that are gone in this run.
    pub(super) hit: Vec<u64>,
    /// Where program code was replaced: sorted and disjoint.
    pub(super) dead: Vec<Range<u64>>,
    /// The entries that show rewritten code and trampolines.
    pub(super) entries: HashSet<Gpa>,
    /// Changes of entries that were looked at in this run.
    pub(super) checked: usize,
    pub(super) hooks: Hooks,
}

impl Detours {
    /// Whether `rip` is in a trampoline.
    #[must_use]
    pub(crate) fn has_moved(&self, rip: u64) -> bool {
        self.regions.iter().any(|region| region.code.contains(&rip))
    }

    /// Whether the program still sees what it is to see, `tables` being in use: it has mapped
    /// nothing in place of rewritten code, nor where trampolines are.
    #[must_use]
    pub(crate) fn hold(&mut self, tables: &Tables, process: &Process) -> bool {
        let mut changed = tables.changed();
        let count = changed.len();
        let is_shown =
            changed.by_ref().skip(self.checked).all(|slot| !self.entries.contains(&slot));
        drop(changed);
        self.checked = count;
        is_shown && self.regions.iter().all(|r| process.space.is_free(r.all.start, r.all.end))
    }

    /// Answers an INT3 at `at`.
    ///
    /// # Errors
    /// The rewritten code is missing.
    pub(crate) fn trap(&mut self, memory: &mut GuestMemory, at: u64) -> Result<Trap, OutOfRam> {
        if let Some(breakpoint) = self.breakpoints.get(&at) {
            if self.hit.contains(&at) {
                return Ok(Trap::Program);
            }
            memory.write_unmarked(breakpoint.place, &[breakpoint.original])?;
            self.hit.push(at);
            return Ok(Trap::Block(breakpoint.number));
        }
        if let Some(hooked) = self.hooks.hit(memory, at)? {
            return Ok(Trap::Function(hooked));
        }
        let before = self.dead.partition_point(|range| range.start <= at);
        let range = before.checked_sub(1).and_then(|index| self.dead.get(index));
        Ok(if range.is_some_and(|r| r.contains(&at)) { Trap::Dead } else { Trap::Program })
    }

    /// Adds the blocks that marked themselves to `blocks`; false if the program has written to a
    /// map by itself.
    ///
    /// # Errors
    /// A map is missing.
    pub(crate) fn read_marks(
        &self,
        memory: &GuestMemory,
        blocks: &mut Vec<u32>,
    ) -> Result<bool, OutOfRam> {
        let mut is_whole = true;
        for region in &self.regions {
            is_whole &= region.read_marks(memory, blocks)?;
        }
        Ok(is_whole)
    }

    /// The comparisons that the run logged by itself, by number, and what they compared.
    ///
    /// # Errors
    /// A log is missing.
    pub(crate) fn read_log(&self, memory: &GuestMemory) -> Result<Vec<(u32, Logged)>, OutOfRam> {
        let mut found = Vec::new();
        self.regions.iter().try_for_each(|region| region.read_log(memory, &mut found))?;
        Ok(found)
    }

    /// Puts data and breakpoints back for the next run.
    ///
    /// # Errors
    /// They are missing.
    pub(crate) fn end_run(&mut self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        self.checked = 0;
        for region in &self.regions {
            region.clear(memory)?;
        }
        self.hooks.end_run(memory)?;
        for at in self.hit.drain(..) {
            if let Some(breakpoint) = self.breakpoints.get(&at) {
                memory.write_unmarked(breakpoint.place, &[INT3])?;
            }
        }
        Ok(())
    }
}
