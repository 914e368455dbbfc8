//! Free physical pages, for tables and for what they map.
//!
//! Never knows what a page that was taken is for.

use super::error::TablesError;
use crate::address::{PAGE_SIZE, Pfn};
use crate::memory::{GuestMemory, ZERO_PAGE};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Free physical pages: those never used yet, which are zero, and those given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    pub(super) next: u64,
    pub(super) end: u64,
    pub(super) free: Vec<u64>,
}

impl Frames {
    /// The pages `first..end`, all zero.
    #[must_use]
    pub fn new(first: Pfn, end: Pfn) -> Self {
        Self { next: first.0, end: end.0.max(first.0), free: Vec::new() }
    }

    /// Number of free pages.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.end.saturating_sub(self.next) + self.free.len() as u64
    }

    /// Whether every free page is one of `pages`, and there are no more than those.
    pub(super) fn lies_in(&self, pages: &Range<u64>) -> bool {
        let free = self.end.saturating_sub(self.next).saturating_add(self.free.len() as u64);
        (self.next >= self.end || pages.start <= self.next && self.end <= pages.end)
            && free <= pages.end.saturating_sub(pages.start)
            && self.free.iter().all(|pfn| pages.contains(pfn))
    }

    /// Takes a zeroed page.
    pub(super) fn take(&mut self, memory: &mut GuestMemory) -> Result<Pfn, TablesError> {
        if let Some(used) = self.free.pop() {
            memory.zero(Pfn(used).gpa(), PAGE_SIZE)?;
            return Ok(Pfn(used));
        }
        if self.next >= self.end {
            return Err(TablesError::Full);
        }
        self.next += 1;
        Ok(Pfn(self.next - 1))
    }

    /// A page never used yet, which is zero, without a mark.
    pub(super) fn take_unmarked(&mut self, memory: &mut GuestMemory) -> Result<Pfn, TablesError> {
        if self.next >= self.end {
            return Err(TablesError::Full);
        }
        self.next += 1;
        let pfn = Pfn(self.next - 1);
        memory.write_unmarked(pfn.gpa(), &ZERO_PAGE)?;
        Ok(pfn)
    }

    pub(super) fn give_back(&mut self, pfn: Pfn) {
        self.free.push(pfn.0);
    }

    pub(super) fn rewind_to(&mut self, then: &Self) {
        self.next = then.next;
        self.end = then.end;
        self.free.clone_from(&then.free);
    }
}
