//! What the machine itself keeps in the guest's memory on top of the snapshot: breakpoints. Never
//! decides where they are.

use crate::address::Pfn;
use crate::memory::GuestMemory;
use std::collections::BTreeMap;

/// Bytes that the machine keeps patched on top of its snapshot (breakpoints).
#[derive(Clone, Debug, Default)]
pub struct Patches {
    /// By page: offset in it, and the byte that is there while the patch is.
    pub(super) pages: BTreeMap<Pfn, Vec<(u16, u8)>>,
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

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(super) fn apply(&self, pfn: Pfn, memory: &mut GuestMemory) {
        for &(offset, byte) in self.of(pfn) {
            let at = pfn.gpa().wrapping_add(u64::from(offset));
            // The page was just restored, so it is RAM.
            let _ = memory.write_unmarked(at, &[byte]);
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
