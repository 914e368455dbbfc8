//! The hot path: puts memory back to a snapshot by copying the pages that were written.
//!
//! Guest writes come from KVM's dirty log under manual protection: a bit, once set, stays set and
//! its page stays writable, so that a page that is written run after run costs one fault in all,
//! and one copy per rewind (the *hot* set). Pages that stop changing are found by comparing them
//! from time to time, and protected again. Host writes come from the marks in `memory`.
//!
//! Does not allocate once the hot set has settled, does not lock and does not log. Never restores
//! registers: that is the guest kind's part.

use crate::address::Pfn;
use crate::kvm::KvmError;
use crate::memory::{GuestMemory, HotPage, PageFile, ZERO_PAGE};
use serde::Serialize;
use std::collections::BTreeMap;

/// Every so many rewinds the hot pages are compared before they are copied.
const AUDIT_EVERY: u64 = 128;
/// A page found unchanged in so many audits in a row is no longer hot.
const AUDITS_UNCHANGED: u8 = 4;

/// Bytes that the machine keeps patched on top of its snapshot (breakpoints).
#[derive(Clone, Debug, Default)]
pub struct Patches {
    /// By page: offset in it, and the byte that is there while the patch is.
    pages: BTreeMap<Pfn, Vec<(u16, u8)>>,
    /// Moves on whenever a page is added to `pages` or leaves it.
    changes: u64,
}

impl Patches {
    /// Notes that the byte at `offset` of page `pfn` is now `byte`, instead of the snapshot's.
    pub fn set(&mut self, pfn: Pfn, offset: u16, byte: u8) {
        let changes = &mut self.changes;
        let page = self.pages.entry(pfn).or_insert_with(|| {
            *changes += 1;
            Vec::new()
        });
        match page.iter_mut().find(|(at, _)| *at == offset) {
            Some(patch) => patch.1 = byte,
            None => page.push((offset, byte)),
        }
    }

    /// Notes that the byte is the snapshot's again.
    pub fn clear(&mut self, pfn: Pfn, offset: u16) {
        if let Some(page) = self.pages.get_mut(&pfn) {
            page.retain(|&(at, _)| at != offset);
            if page.is_empty() {
                self.pages.remove(&pfn);
                self.changes += 1;
            }
        }
    }

    /// The patches of page `pfn`.
    #[must_use]
    pub fn of(&self, pfn: Pfn) -> &[(u16, u8)] {
        self.pages.get(&pfn).map_or(&[], Vec::as_slice)
    }

    fn apply(&self, pfn: Pfn, memory: &mut GuestMemory) {
        for &(offset, byte) in self.of(pfn) {
            let at = pfn.gpa().wrapping_add(u64::from(offset));
            // The page was just restored, so it is RAM.
            let _ = memory.write_unmarked(at, &[byte]);
        }
    }
}

/// What one rewind did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rewound {
    /// Pages copied because the guest writes them.
    pub pages_hot: u64,
    /// Pages that became hot with this rewind.
    pub pages_new: u64,
    /// Pages copied because the host wrote them.
    pub pages_host: u64,
}

/// The hot set of one memory slot.
#[derive(Debug)]
struct HotSlot {
    slot: usize,
    first: Pfn,
    /// Dirty bits that are known already.
    known: Vec<u64>,
    pages: Vec<HotPage>,
    /// Audits in a row that found the page unchanged; beside `pages`.
    unchanged: Vec<u8>,
    /// The hot pages that have patches, as of `patched_at`.
    patched: Vec<Pfn>,
    /// `Patches::changes` when `patched` was made; `None` when the hot set has changed since.
    patched_at: Option<u64>,
}

/// Puts a machine's memory back by copying.
#[derive(Debug)]
pub struct HostRewind {
    slots: Vec<HotSlot>,
    /// Pages that the host wrote; kept for its capacity.
    host: Vec<HotPage>,
    rewinds: u64,
}

impl HostRewind {
    /// Starts the dirty log; what memory holds now is what `pages` holds.
    ///
    /// # Errors
    /// KVM refused to log.
    pub fn start(memory: &mut GuestMemory) -> Result<Self, KvmError> {
        memory.start_dirty_log()?;
        memory.clear_touched();
        let logged = memory.layout().enumerate().filter(|(_, spec)| spec.log_dirty);
        let slots = logged
            .map(|(slot, spec)| HotSlot {
                slot,
                first: Pfn::from(spec.start),
                known: vec![0; spec.pages().div_ceil(64)],
                pages: Vec::new(),
                unchanged: Vec::new(),
                patched: Vec::new(),
                patched_at: None,
            })
            .collect();
        Ok(Self { slots, host: Vec::new(), rewinds: 0 })
    }

    /// Puts every page back.
    ///
    /// # Errors
    /// KVM refused the log.
    pub fn rewind(
        &mut self,
        memory: &mut GuestMemory,
        pristine: &PageFile,
        patches: &Patches,
    ) -> Result<Rewound, KvmError> {
        let mut done = Rewound::default();
        self.rewinds += 1;
        let audit = self.rewinds.is_multiple_of(AUDIT_EVERY);
        for hot in &mut self.slots {
            done.pages_new += hot.promote(memory, pristine)?;
            if audit {
                hot.audit(memory, pristine);
            }
            memory.restore_pages(hot.slot, &hot.pages, pristine);
            if audit {
                hot.demote(memory)?;
            }
            done.pages_hot += hot.pages.len() as u64;
            if !patches.pages.is_empty() {
                hot.reapply(patches, memory);
            }
        }
        done.pages_host = self.restore_host_writes(memory, pristine, patches);
        Ok(done)
    }

    /// Puts back the pages that the host wrote, and forgets that it did; their number.
    pub fn restore_host_writes(
        &mut self,
        memory: &mut GuestMemory,
        pristine: &PageFile,
        patches: &Patches,
    ) -> u64 {
        let mut total = 0;
        for slot in 0..memory.slots() {
            let first = memory.first_page(slot);
            self.host.clear();
            self.host.extend(memory.touched(slot).iter().map(|&index| HotPage {
                index,
                source: pristine.offset_of(Pfn(first.0 + u64::from(index))),
            }));
            memory.restore_pages(slot, &self.host, pristine);
            for page in &self.host {
                patches.apply(Pfn(first.0 + u64::from(page.index)), memory);
            }
            total += self.host.len() as u64;
        }
        memory.clear_touched();
        total
    }

    /// Number of pages that every rewind copies back.
    #[must_use]
    pub fn pages_hot(&self) -> usize {
        self.slots.iter().map(|hot| hot.pages.len()).sum()
    }
}

impl HotSlot {
    /// Adds the pages whose dirty bits are new.
    fn promote(&mut self, memory: &mut GuestMemory, pristine: &PageFile) -> Result<u64, KvmError> {
        let log = memory.dirty_log(self.slot)?;
        // Nothing is new once the hot set has settled: one comparison of two blocks of memory,
        // several times as fast as a look at each word.
        if log.words == self.known {
            return Ok(0);
        }
        self.patched_at = None;
        let mut added = 0;
        for (index, (known, &word)) in self.known.iter_mut().zip(&log.words).enumerate() {
            let mut new = word & !*known;
            *known |= word;
            while new != 0 {
                let page = index as u64 * 64 + u64::from(new.trailing_zeros());
                new &= new - 1;
                let source = pristine.offset_of(Pfn(self.first.0 + page));
                self.pages.push(HotPage { index: page as u32, source });
                self.unchanged.push(0);
                added += 1;
            }
        }
        Ok(added)
    }

    /// Counts, page by page, for how long it has not changed.
    fn audit(&mut self, memory: &GuestMemory, pristine: &PageFile) {
        for (page, unchanged) in self.pages.iter().zip(&mut self.unchanged) {
            let expected = page.source.and_then(|at| pristine.page_at(at)).unwrap_or(&ZERO_PAGE);
            let same = memory.page_equals(self.slot, page.index as usize, expected);
            *unchanged = if same { unchanged.saturating_add(1) } else { 0 };
        }
    }

    /// Protects the pages again that have not changed for long. They hold the snapshot's bytes:
    /// this is called after the copy.
    fn demote(&mut self, memory: &mut GuestMemory) -> Result<(), KvmError> {
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
    fn reapply(&mut self, patches: &Patches, memory: &mut GuestMemory) {
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
        for &pfn in &self.patched {
            patches.apply(pfn, memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_tell_when_a_page_comes_or_goes() {
        let mut patches = Patches::default();
        patches.set(Pfn(7), 0, 0xcc);
        let one_page = patches.changes;
        patches.set(Pfn(7), 1, 0xcc);
        patches.clear(Pfn(7), 0);
        patches.clear(Pfn(9), 0);
        assert_eq!(patches.changes, one_page, "the same page is patched");
        patches.clear(Pfn(7), 1);
        let none = patches.changes;
        assert_ne!(none, one_page);
        patches.set(Pfn(7), 1, 0xcc);
        assert!(![one_page, none].contains(&patches.changes), "a state never comes back");
    }
}
