//! The hot pages: those that the program has written, with the list by which the agent copies
//! them back.
//!
//! Never decides when a page becomes hot or stops being so.

use super::layout::{HOT, HOT_ENTRY, HOT_MAX, SOURCE};
use crate::address::{Gpa, Gva, PAGE_SIZE, Pfn};
use crate::memory::{GuestMemory, OutOfRam, PageFile, ZERO_PAGE};

const PAGE: u64 = PAGE_SIZE as u64;

/// A page that is copied back after every run.
#[derive(Clone, Copy, Debug)]
pub(super) struct HotPage {
    /// Where the program sees it.
    pub(super) va: Gva,
    /// Its frame.
    pub(super) pfn: Pfn,
    /// Its page-table entry.
    pub(super) entry: Gpa,
    /// Audits in a row that found it unchanged.
    pub(super) unchanged: u8,
}

/// The pages and what the guest sees of them.
#[derive(Debug, Default)]
pub(super) struct HotPages {
    pages: Vec<HotPage>,
    /// Entries of the list in the guest, each a run of neighbours.
    runs: Vec<Run>,
    /// Pages were added since the list was sorted.
    unsorted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    to: u64,
    from: u64,
    bytes: u64,
}

impl HotPages {
    pub(super) fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether there is no room for another page.
    pub(super) fn is_full(&self) -> bool {
        self.pages.len() >= HOT_MAX
    }

    /// Adds a page; its pristine bytes are those in `pristine`.
    pub(super) fn add(
        &mut self,
        memory: &mut GuestMemory,
        page: HotPage,
        pristine: &PageFile,
    ) -> Result<(), OutOfRam> {
        self.unsorted |= self.pages.last().is_some_and(|last| last.va > page.va);
        self.pages.push(page);
        self.show(memory, self.pages.len() - 1, pristine)
    }

    /// Writes the page at `index`, the last one so far, into the guest's copy.
    fn show(
        &mut self,
        memory: &mut GuestMemory,
        index: usize,
        pristine: &PageFile,
    ) -> Result<(), OutOfRam> {
        let page = self.pages[index];
        let offset = index as u64 * PAGE;
        let bytes = pristine.page(page.pfn).unwrap_or(&ZERO_PAGE);
        memory.write_unmarked(SOURCE.gpa(offset), bytes)?;
        match self.runs.last_mut() {
            Some(last) if last.to + last.bytes == page.va.0 => last.bytes += PAGE,
            _ => self.runs.push(Run { to: page.va.0, from: SOURCE.va(offset), bytes: PAGE }),
        }
        let (at, last) = (self.runs.len() as u64 - 1, self.runs[self.runs.len() - 1]);
        // The end first, so that the list has one at any time.
        write_run(memory, at + 1, Run { to: 0, from: 0, bytes: 0 })?;
        write_run(memory, at, last)
    }

    /// Compares every page with its pristine bytes and counts for how long it has not changed.
    pub(super) fn audit(&mut self, memory: &GuestMemory, slot: usize, pristine: &PageFile) {
        let first = memory.first_page(slot);
        for page in &mut self.pages {
            let expected = pristine.page(page.pfn).unwrap_or(&ZERO_PAGE);
            let same = memory.page_equals(slot, (page.pfn.0 - first.0) as usize, expected);
            page.unchanged = if same { page.unchanged.saturating_add(1) } else { 0 };
        }
    }

    /// Takes the pages out that `audits` audits in a row found unchanged, and tells their entries.
    pub(super) fn take_cold(&mut self, audits: u8, out: &mut Vec<Gpa>) {
        out.extend(self.pages.iter().filter(|page| page.unchanged >= audits).map(|p| p.entry));
        self.pages.retain(|page| page.unchanged < audits);
        // Their places in the guest's copy are wrong now.
        self.unsorted |= !out.is_empty();
    }

    /// Sorts the list by address, so that neighbours are copied in one go.
    pub(super) fn tidy(
        &mut self,
        memory: &mut GuestMemory,
        pristine: &PageFile,
    ) -> Result<(), OutOfRam> {
        if !std::mem::take(&mut self.unsorted) {
            return Ok(());
        }
        self.pages.sort_unstable_by_key(|page| page.va);
        self.runs.clear();
        write_run(memory, 0, Run { to: 0, from: 0, bytes: 0 })?;
        (0..self.pages.len()).try_for_each(|index| self.show(memory, index, pristine))
    }

    /// The frames of all pages.
    pub(super) fn frames(&self) -> impl Iterator<Item = Pfn> + '_ {
        self.pages.iter().map(|page| page.pfn)
    }
}

fn write_run(memory: &mut GuestMemory, index: u64, run: Run) -> Result<(), OutOfRam> {
    let mut bytes = [0; HOT_ENTRY as usize];
    for (out, word) in bytes.chunks_exact_mut(8).zip([run.to, run.from, run.bytes]) {
        out.copy_from_slice(&word.to_le_bytes());
    }
    memory.write_unmarked(HOT.gpa(index * HOT_ENTRY), &bytes)
}
