//! Rewritten code in a guest, and what is known of it.
//!
//! Never decides what is rewritten: `install` does.

use super::hooks::{Hooked, Hooks};
use super::region::Region;
use super::view::BatchView;
use super::watch::Watch;
use crate::address::{Gpa, PAGE_SIZE};
use crate::arch::INT3;
use crate::coverage::comparisons::Logged;
use crate::coverage::counts::PlaceHit;
use crate::coverage::detours::Left;
use crate::linux::process::Process;
use crate::memory::{GuestMemory, OutOfRam, Page};
use crate::paging::Tables;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

/// How the blocks of a machine are seen in a run with detours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetourCounts {
    /// Blocks that mark themselves.
    pub detours: usize,
    /// Blocks that have a breakpoint instead, and why.
    pub left: BTreeMap<Left, usize>,
    /// Edges that mark themselves: those that no block stands for.
    pub edges: usize,
    /// Such edges in all. Those that do not mark themselves are not seen.
    pub edges_total: usize,
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

/// A page of rewritten code.
#[derive(Debug)]
pub(super) struct CodePage {
    /// Its address.
    pub at: u64,
    /// What is in it.
    pub bytes: Box<Page>,
    /// Where it is.
    pub place: Gpa,
    /// Where it is in batches, if there is one for them.
    pub in_batches: Option<Gpa>,
}

/// Rewritten code, and the page tables that show it.
#[derive(Debug)]
pub(crate) struct Detours {
    /// Its page tables, while the machine does not run under them; the exact ones while it does.
    pub tables: Tables,
    /// Its page tables' bookkeeping at the snapshot.
    pub baseline: Tables,
    pub counts: DetourCounts,
    /// Numbers below this one are blocks.
    pub blocks: u32,
    /// Whether marks change flags that are dead.
    pub are_counts: bool,
    /// In the order of their addresses.
    pub(super) pages: Vec<CodePage>,
    pub(super) regions: Vec<Region>,
    /// The trampolines of each region.
    pub(super) code: Vec<Vec<u8>>,
    /// The region of each place that marks itself, and the byte of its map.
    pub(super) marked_at: Vec<Option<(u32, u32)>>,
    pub(super) breakpoints: HashMap<u64, Breakpoint>,
    /// Addresses of breakpoints that are gone in this run.
    pub(super) hit: Vec<u64>,
    /// Where program code was replaced: sorted and disjoint.
    pub(super) dead: Vec<Range<u64>>,
    /// The entries that show rewritten code and trampolines.
    pub(super) watch: Watch,
    pub(super) batches: BatchView,
    pub(super) hooks: Hooks,
    /// What the program has put in place of its code may have been put into these pages.
    pub(super) is_lost: bool,
}

impl Detours {
    /// Whether `rip` is in a trampoline.
    #[must_use]
    pub(crate) fn has_moved(&self, rip: u64) -> bool {
        self.regions.iter().any(|region| region.code.contains(&rip))
    }

    /// The addresses of trampolines and maps.
    pub(crate) fn extents(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.regions.iter().map(|region| region.all.clone())
    }

    /// Whether the program still sees what it is to see, `tables` being in use: it has mapped
    /// nothing in place of rewritten code, nor where trampolines are.
    #[must_use]
    pub(crate) fn hold(&mut self, tables: &Tables, process: &Process) -> bool {
        self.watch.are_same(tables) && self.are_free(process)
    }

    /// Whether the program has mapped nothing where trampolines are.
    pub(super) fn are_free(&self, process: &Process) -> bool {
        self.regions.iter().all(|r| process.space.is_free(r.all.start, r.all.end))
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
        Ok(if self.is_dead(at) { Trap::Dead } else { Trap::Program })
    }

    /// Whether code was moved away from `at`.
    pub(super) fn is_dead(&self, at: u64) -> bool {
        let before = self.dead.partition_point(|range| range.start <= at);
        let range = before.checked_sub(1).and_then(|index| self.dead.get(index));
        range.is_some_and(|range| range.contains(&at))
    }

    /// Adds the places that marked themselves to `marks`; false if the program has written to a
    /// map by itself.
    ///
    /// # Errors
    /// A map is missing.
    pub(crate) fn read_marks(
        &self,
        memory: &GuestMemory,
        marks: &mut Vec<PlaceHit>,
    ) -> Result<bool, OutOfRam> {
        let mut is_whole = true;
        for region in &self.regions {
            is_whole &= region.read_marks(memory, marks)?;
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

    /// Clears all maps, or logs.
    ///
    /// # Errors
    /// They are missing.
    pub(crate) fn clear_marks(&self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        self.regions.iter().try_for_each(|region| region.clear(memory))
    }

    /// Puts data and breakpoints back for the next run, the last one having gone through detours;
    /// `held` says whether all of it was as it has to be.
    ///
    /// # Errors
    /// They are missing.
    pub(crate) fn end_run(&mut self, memory: &mut GuestMemory, held: bool) -> Result<(), OutOfRam> {
        self.watch.end_run();
        self.is_lost |= !held;
        self.clear_marks(memory)?;
        self.hooks.end_run(memory)?;
        for at in self.hit.drain(..) {
            if let Some(breakpoint) = self.breakpoints.get(&at) {
                memory.write_unmarked(breakpoint.place, &[INT3])?;
            }
        }
        Ok(())
    }

    /// Before a run: makes everything anew if the last one may have changed it.
    ///
    /// # Errors
    /// The memory of detours is missing.
    pub(crate) fn mend(&mut self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        if !self.is_lost {
            return Ok(());
        }
        self.write(memory)?;
        self.batches.breakpoints.write_armed(memory)?;
        self.is_lost = false;
        Ok(())
    }

    /// Writes everything, with no breakpoint in what batches see.
    pub(super) fn write(&self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        for page in &self.pages {
            memory.write_unmarked(page.place, &page.bytes[..])?;
            if let Some(place) = page.in_batches {
                memory.write_unmarked(place, &page.bytes[..])?;
            }
        }
        for (at, breakpoint) in &self.breakpoints {
            if let Some(place) = self.place_in_batches(*at) {
                memory.write_unmarked(place, &[breakpoint.original])?;
            }
        }
        for (region, code) in self.regions.iter().zip(&self.code) {
            memory.write_unmarked(region.place(region.code.start), code)?;
            region.write_news(memory)?;
        }
        self.clear_marks(memory)
    }

    /// Where the byte of code at `at` is in batches.
    pub(super) fn place_in_batches(&self, at: u64) -> Option<Gpa> {
        let after = self.pages.partition_point(|page| page.at <= at);
        let page = self.pages.get(after.checked_sub(1)?)?;
        let offset = at.checked_sub(page.at).filter(|offset| *offset < PAGE_SIZE as u64)?;
        Some(page.in_batches?.wrapping_add(offset))
    }
}
