//! The hot set of one memory slot: the pages that every rewind copies. Never decides when to look
//! which of them have cooled.

use super::error::RewindError;
use super::patches::Patches;
use crate::address::Pfn;
use crate::kvm::KvmError;
use crate::memory::{GuestMemory, HotPage, OutOfRam, Page, PageFile, SlotSpec, ZERO_PAGE};

/// A page that this many audits in a row found unchanged is no longer hot.
const AUDITS_UNCHANGED: u8 = 4;

/// The hot set of one memory slot.
#[derive(Debug)]
pub(super) struct HotSlot {
    slot: usize,
    first: Pfn,
    /// Dirty bits of the pages in `pages`.
    known: Vec<u64>,
    /// In order.
    pages: Vec<HotPage>,
    /// Audits in a row that found the page unchanged; beside `pages`.
    unchanged: Vec<u8>,
    /// The hot pages that have patches, as of `patched_at`.
    patched: Vec<Pfn>,
    /// `Patches::changes` when `patched` was made; `None` when the hot set has changed since.
    patched_at: Option<u64>,
}

impl HotSlot {
    pub(super) fn new(slot: usize, spec: &SlotSpec) -> Self {
        Self {
            slot,
            first: Pfn::from(spec.start),
            known: vec![0; spec.pages().div_ceil(64)],
            pages: Vec::new(),
            unchanged: Vec::new(),
            patched: Vec::new(),
            patched_at: None,
        }
    }

    /// Number of the memory slot.
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// The pages that every rewind copies.
    pub(super) fn pages(&self) -> &[HotPage] {
        &self.pages
    }

    /// Adds the pages whose dirty bits are new in the log.
    pub(super) fn promote_logged(
        &mut self,
        memory: &mut GuestMemory,
        pristine: &PageFile,
    ) -> Result<u64, KvmError> {
        let log = memory.dirty_log(self.slot)?;
        // Nothing is new once the hot set has settled: one comparison of two blocks of memory,
        // several times as fast as a look at each word.
        if log.words == self.known {
            return Ok(0);
        }
        let mut added = 0;
        for (index, (known, &word)) in self.known.iter_mut().zip(&log.words).enumerate() {
            let mut new = word & !*known;
            *known |= word;
            while new != 0 {
                let page = index as u64 * 64 + u64::from(new.trailing_zeros());
                new &= new - 1;
                let source = pristine.offset_of(Pfn(self.first.0 + page));
                self.pages.push(HotPage { index: page as u32, source });
                added += 1;
            }
        }
        self.settle();
        Ok(added)
    }

    /// Adds the pages that the ring has named since the last call.
    pub(super) fn promote_told(
        &mut self,
        memory: &GuestMemory,
        pristine: &PageFile,
    ) -> Result<u64, RewindError> {
        // Every page that the ring named is hot until all of them are forgotten.
        let told = memory.dirty_pages(self.slot);
        let new = told.get(self.pages.len()..).ok_or(RewindError::HotSet { slot: self.slot })?;
        if new.is_empty() {
            return Ok(0);
        }
        for &index in new {
            self.known[index as usize / 64] |= 1 << (index % 64);
            let source = pristine.offset_of(Pfn(self.first.0 + u64::from(index)));
            self.pages.push(HotPage { index, source });
        }
        let added = new.len() as u64;
        self.settle();
        Ok(added)
    }

    /// Takes in the pages at the end of `pages`: in order, so that neighbours are copied at once.
    fn settle(&mut self) {
        self.patched_at = None;
        self.unchanged.resize(self.pages.len(), 0);
        let mut both: Vec<_> = self.pages.iter().copied().zip(self.unchanged.drain(..)).collect();
        both.sort_unstable_by_key(|(page, _)| page.index);
        self.pages.clear();
        for (page, unchanged) in both {
            self.pages.push(page);
            self.unchanged.push(unchanged);
        }
    }

    /// Counts, page by page, for how long it has not changed.
    pub(super) fn audit(&mut self, memory: &GuestMemory, pristine: &PageFile) {
        for (page, unchanged) in self.pages.iter().zip(&mut self.unchanged) {
            let same = original(page, pristine).is_some_and(|page_then| {
                memory.page_equals(self.slot, page.index as usize, page_then)
            });
            *unchanged = if same { unchanged.saturating_add(1) } else { 0 };
        }
    }

    /// Number of pages that have not changed for long.
    pub(super) fn cold(&self) -> usize {
        self.unchanged.iter().filter(|&&audits| audits >= AUDITS_UNCHANGED).count()
    }

    /// Forgets every page: the ring has too.
    pub(super) fn clear(&mut self) {
        for page in self.pages.drain(..) {
            self.known[page.index as usize / 64] = 0;
        }
        self.unchanged.clear();
        self.patched_at = None;
    }

    /// Protects the pages again, in the log, that have not changed for long. They hold the
    /// snapshot's bytes: this is called after the copy.
    pub(super) fn demote(&mut self, memory: &mut GuestMemory) -> Result<(), KvmError> {
        let mut kept = 0;
        for index in 0..self.pages.len() {
            let page = self.pages[index];
            if self.unchanged[index] < AUDITS_UNCHANGED {
                self.pages[kept] = page;
                self.unchanged[kept] = self.unchanged[index];
                kept += 1;
                continue;
            }
            let (word, bit) = (page.index as usize / 64, 1_u64 << (page.index % 64));
            memory.protect_again(self.slot, word, bit)?;
            self.known[word] &= !bit;
        }
        if kept < self.pages.len() {
            self.patched_at = None;
        }
        self.pages.truncate(kept);
        self.unchanged.truncate(kept);
        Ok(())
    }

    /// Puts breakpoints back into pages that were just restored. Code pages are hot only in
    /// programs that write their own code, whereas hundreds have breakpoints: which are both is
    /// looked up when either has changed, not in every rewind.
    pub(super) fn reapply(
        &mut self,
        patches: &Patches,
        memory: &mut GuestMemory,
    ) -> Result<(), OutOfRam> {
        if self.patched_at != Some(patches.changes) {
            self.patched_at = Some(patches.changes);
            let (first, known) = (self.first, &self.known);
            let is_hot = |pfn: &&Pfn| {
                let index = pfn.0.wrapping_sub(first.0);
                let word = known.get((index / 64) as usize);
                word.is_some_and(|word| word & (1 << (index % 64)) != 0)
            };
            self.patched.clear();
            self.patched.extend(patches.pages.keys().filter(is_hot));
        }
        self.patched.iter().try_for_each(|&pfn| patches.apply(pfn, memory))
    }
}

/// The page's bytes in the snapshot; `None` where the snapshot has none, which
/// [`GuestMemory::restore_pages`] refuses.
fn original<'a>(page: &HotPage, pristine: &'a PageFile) -> Option<&'a Page> {
    match page.source {
        None => Some(&ZERO_PAGE),
        Some(at) => pristine.page_at(at),
    }
}
