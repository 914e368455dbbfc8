//! What the machine itself keeps in the guest's memory on top of the snapshot: breakpoints. Never
//! decides where they are.

use crate::address::Pfn;
use crate::memory::{GuestMemory, OutOfRam};
use std::collections::BTreeMap;

/// One byte of a page that is not the snapshot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where in its page.
    pub offset: u16,
    /// What is there while the patch is.
    pub byte: u8,
}

/// Bytes that the machine keeps patched on top of its snapshot (breakpoints).
#[derive(Clone, Debug, Default)]
pub struct Patches {
    pub(super) pages: BTreeMap<Pfn, Vec<Patch>>,
    /// Moves on whenever a page is added to `pages` or leaves it.
    pub(super) changes: u64,
}

impl Patches {
    /// Notes that the byte at `offset` of page `pfn` is now `byte`, instead of the snapshot's.
    pub fn set(&mut self, pfn: Pfn, offset: u16, byte: u8) {
        let changes = &mut self.changes;
        let page = self.pages.entry(pfn).or_insert_with(|| {
            *changes += 1;
            Vec::new()
        });
        match page.iter_mut().find(|patch| patch.offset == offset) {
            Some(patch) => patch.byte = byte,
            None => page.push(Patch { offset, byte }),
        }
    }

    /// Notes that the byte is the snapshot's again.
    pub fn clear(&mut self, pfn: Pfn, offset: u16) {
        if let Some(page) = self.pages.get_mut(&pfn) {
            page.retain(|patch| patch.offset != offset);
            if page.is_empty() {
                self.pages.remove(&pfn);
                self.changes += 1;
            }
        }
    }

    /// The patches of page `pfn`.
    #[must_use]
    pub fn of(&self, pfn: Pfn) -> &[Patch] {
        self.pages.get(&pfn).map_or(&[], Vec::as_slice)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Writes the patches of page `pfn`, which was just restored.
    pub(super) fn apply(&self, pfn: Pfn, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        self.of(pfn).iter().try_for_each(|patch| {
            memory.write_unmarked(pfn.gpa().wrapping_add(patch.offset.into()), &[patch.byte])
        })
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
