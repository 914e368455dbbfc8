//! Whole pages of a guest's RAM: put back, compared, copied, saved. Never decides which.

use super::backing::{PageFile, PageFileBuilder};
use super::error::{MemoryError, OutOfRam};
use super::guest::GuestMemory;
use super::page::{Page, ZERO_PAGE};
use super::pagemap;
use crate::address::{PAGE_SIZE, Pfn};

/// A page of one slot and where its pristine bytes lie in the snapshot's page file.
#[derive(Clone, Copy, Debug)]
pub struct HotPage {
    /// Index of the page in its slot.
    pub index: u32,
    /// Offset of its pristine bytes in the page file's data; `None` is a page of zeros.
    pub source: Option<u64>,
}

impl HotPage {
    /// Whether it lies `n` pages after `first`, in its slot and in the page file.
    fn follows(&self, first: Self, n: u32) -> bool {
        let offset = u64::from(n) * PAGE_SIZE as u64;
        self.index.checked_sub(first.index) == Some(n)
            && self.source == first.source.map(|source| source.saturating_add(offset))
    }
}

/// Neighbouring pages that are restored by one copy: so few that it does not bypass the cache
/// on its way, as a C library's copy of megabytes does.
const RUN_PAGES_MAX: u32 = 128;

impl GuestMemory {
    /// Copies the pristine bytes of `pages` back into `slot`, without marking them.
    ///
    /// # Errors
    /// A page is not in the slot, or its pristine bytes are not in `pristine`.
    pub fn restore_pages(
        &mut self,
        slot: usize,
        pages: &[HotPage],
        pristine: &PageFile,
    ) -> Result<(), MemoryError> {
        let number = slot;
        let slot = &mut self.slots[slot];
        let total = slot.spec.pages();
        let refuse = |page: HotPage, problem| {
            Err(MemoryError::HotPage { slot: number, index: page.index, problem })
        };
        let mut rest = pages;
        while let Some((&first, others)) = rest.split_first() {
            let more =
                others.iter().zip(1..RUN_PAGES_MAX).take_while(|(page, n)| page.follows(first, *n));
            let count = 1 + more.count();
            rest = &rest[count..];
            if first.index as usize + count > total {
                return refuse(first, "it is not in the slot");
            }
            let bytes = count * PAGE_SIZE;
            let source = match first.source.map(|offset| pristine.bytes_at(offset, bytes)) {
                None => None,
                Some(Some(bytes)) => Some(bytes),
                Some(None) => return refuse(first, "its bytes are not in the snapshot"),
            };
            // SAFETY: the range was checked against the slot; source and destination are different
            // mappings, each of `bytes` bytes; the guest does not run.
            unsafe {
                let to = slot.host.add(first.index as usize * PAGE_SIZE);
                match source {
                    Some(from) => std::ptr::copy_nonoverlapping(from.as_ptr(), to, bytes),
                    None => std::ptr::write_bytes(to, 0, bytes),
                }
            }
        }
        Ok(())
    }

    /// Whether page `index` of `slot` has exactly the bytes of `expected`.
    #[must_use]
    pub fn page_equals(&self, slot: usize, index: usize, expected: &Page) -> bool {
        let slot = &self.slots[slot];
        if index >= slot.spec.pages() {
            return false;
        }
        // SAFETY: the index was checked; the guest does not run, so the bytes do not change
        // while the reference, which does not leave this function, lives.
        let page = unsafe { &*slot.host.add(index * PAGE_SIZE).cast::<Page>() };
        page == expected
    }

    /// A copy of page `index` of `slot`.
    ///
    /// # Errors
    /// The slot has no such page.
    pub fn page_copy(&self, slot: usize, index: usize) -> Result<Box<Page>, OutOfRam> {
        let slot = &self.slots[slot];
        let at = slot.spec.start.wrapping_add(index as u64 * PAGE_SIZE as u64);
        if !slot.has(index as u64) {
            return Err(OutOfRam { at, bytes: PAGE_SIZE });
        }
        let mut copy = Box::new(ZERO_PAGE);
        self.read(at, copy.as_mut_slice())?;
        Ok(copy)
    }

    /// Calls `visit` with the index of each page of `slot` that may differ from what the slot was
    /// mapped with, that is, which this process has ever made present.
    pub fn for_each_present(&self, slot: usize, visit: impl FnMut(usize)) {
        let slot = &self.slots[slot];
        pagemap::for_each_present(slot.host as usize, slot.spec.pages(), visit);
    }

    /// Copies every present, non-zero page into a new page file.
    ///
    /// # Errors
    /// The host has no memory or no descriptor for it.
    pub fn save_pages(&self) -> Result<PageFile, std::io::Error> {
        let mut builder = PageFileBuilder::new()?;
        for number in 0..self.slots() {
            let first = self.first_page(number);
            let mut present = Vec::new();
            self.for_each_present(number, |index| present.push(index));
            for index in present {
                if !self.page_equals(number, index, &ZERO_PAGE) {
                    let page = self.page_copy(number, index).map_err(std::io::Error::other)?;
                    builder.push(Pfn(first.0 + index as u64), &page)?;
                }
            }
        }
        builder.finish()
    }
}
