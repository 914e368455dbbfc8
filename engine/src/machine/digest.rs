//! One number for what a guest's memory holds, to compare runs on different machines or hosts.
//!
//! Never compares page by page; that is `verify`'s.

use super::error::MachineError;
use super::run::Machine;
use crate::address::Pfn;
use crate::memory::{Page, ZERO_PAGE};
use std::collections::BTreeMap;

impl Machine {
    /// CRC-32 of the guest's memory as it is now: of the number and the bytes of every page of
    /// the logged slots that is not all zeros, in order. The engine's own pages and its
    /// breakpoints are no part of it, so that the same run gives the same number on every host.
    ///
    /// # Errors
    /// A page is not in its slot: an invariant of the engine does not hold.
    pub fn memory_digest(&self) -> Result<u32, MachineError> {
        let mut digest = crc32fast::Hasher::new();
        for (slot, spec) in self.hw.memory.layout().enumerate().filter(|(_, s)| s.log_dirty) {
            let first = Pfn::from(spec.start);
            // By page, and whether it is present: one that neither is nor was stored is zeros.
            let mut pages: BTreeMap<usize, bool> = self.stored(first, spec.pages()).collect();
            self.hw.memory.for_each_present(slot, |index| {
                pages.insert(index, true);
            });
            for (index, is_present) in pages {
                let pfn = Pfn(first.0 + index as u64);
                let page = self.page_now(slot, index, pfn, is_present)?;
                if page != ZERO_PAGE {
                    digest.update(&pfn.0.to_le_bytes());
                    digest.update(&page);
                }
            }
        }
        Ok(digest.finalize())
    }

    /// The pages of the slot of `pages` pages from `first` on that the snapshot stores, by index.
    fn stored(&self, first: Pfn, pages: usize) -> impl Iterator<Item = (usize, bool)> + '_ {
        let stored = self.snapshot.pages.extents().iter();
        let numbers = stored.flat_map(|e| (e.first.0..).take(e.pages as usize));
        let indices = numbers.filter_map(move |pfn| pfn.checked_sub(first.0));
        indices.map(|index| (index as usize, false)).filter(move |&(index, _)| index < pages)
    }

    /// A page without breakpoints. One that this process never made present is the snapshot's.
    fn page_now(
        &self,
        slot: usize,
        index: usize,
        pfn: Pfn,
        is_present: bool,
    ) -> Result<Page, MachineError> {
        let pristine = self.snapshot.pages.page(pfn).unwrap_or(&ZERO_PAGE);
        if !is_present {
            return Ok(*pristine);
        }
        let mut page = *self.hw.memory.page_copy(slot, index)?;
        for patch in self.patches.of(pfn) {
            let at = usize::from(patch.offset);
            if let (Some(byte), Some(original)) = (page.get_mut(at), pristine.get(at)) {
                *byte = *original;
            }
        }
        Ok(page)
    }
}
