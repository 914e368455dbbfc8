//! Copy-on-first-write for a process's tables: a page that the program may write is kept
//! read-only until its first write is seen, so that whoever restores memory knows which pages to
//! restore.
//!
//! Decides only which entries may be writable right now, and which ones the CPU may have kept. Never
//! copies a page.

use super::entry::{ACCESSED, GUARDED, PRESENT, WRITABLE, frame_of};
use crate::address::Pfn;

/// Which frames may be written without being seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    first: u64,
    pages: u64,
    /// One bit for each frame from `first` on.
    open: Vec<u64>,
    /// Frames opened for the present run only.
    taken: Vec<Pfn>,
}

impl Guard {
    /// Guards `pages` frames from `first` on, all closed.
    pub(super) fn new(first: Pfn, pages: u64) -> Self {
        let words = pages.div_ceil(64) as usize;
        Self { first: first.0, pages, open: vec![0; words], taken: Vec::new() }
    }

    fn place(&self, pfn: Pfn) -> Option<(usize, u64)> {
        let index = pfn.0.checked_sub(self.first).filter(|index| *index < self.pages)?;
        Some(((index / 64) as usize, 1 << (index % 64)))
    }

    /// Opens a frame until it is closed; false when it was open.
    pub(super) fn open(&mut self, pfn: Pfn) -> bool {
        match self.place(pfn) {
            Some((word, bit)) if self.open[word] & bit == 0 => {
                self.open[word] |= bit;
                true
            }
            _ => false,
        }
    }

    /// Opens a frame until the run is over.
    pub(super) fn open_for_run(&mut self, pfn: Pfn) {
        if self.open(pfn) {
            self.taken.push(pfn);
        }
    }

    pub(super) fn close(&mut self, pfn: Pfn) {
        if let Some((word, bit)) = self.place(pfn) {
            self.open[word] &= !bit;
        }
    }

    /// Closes what was opened for one run.
    pub(super) fn end_run(&mut self) {
        while let Some(pfn) = self.taken.pop() {
            self.close(pfn);
        }
    }

    /// `entry` as it shall take the place of `before`: not accessed, where no translation by that was
    /// kept, so that it shows whether one is.
    pub(super) fn unseen(entry: u64, before: u64) -> u64 {
        if Self::may_be_kept(before) { entry } else { entry & !ACCESSED }
    }

    /// Whether the CPU, or a host that shadows tables, may have kept a translation by `entry`: only
    /// with its accessed flag set (Intel SDM vol. 3, 4.10.2.3; AMD APM vol. 2, 5.4.2).
    pub(super) const fn may_be_kept(entry: u64) -> bool {
        entry & (PRESENT | ACCESSED) == PRESENT | ACCESSED
    }

    /// `entry` as it may stand in a table now.
    pub(super) fn filter(&self, entry: u64) -> u64 {
        let may_write = entry & (WRITABLE | GUARDED) != 0;
        if entry & PRESENT == 0 || !may_write {
            return entry;
        }
        match self.place(frame_of(entry)) {
            // Not one of the program's pages.
            None => entry,
            Some((word, bit)) if self.open[word] & bit != 0 => entry & !GUARDED | WRITABLE,
            Some(_) => entry & !WRITABLE | GUARDED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paging::entry::may_write;

    const ENTRY: u64 = 0x7000 | PRESENT | WRITABLE;

    #[test]
    fn an_entry_is_writable_only_while_its_frame_is_open() {
        let mut guard = Guard::new(Pfn(4), 100);
        let closed = guard.filter(ENTRY);
        assert_eq!(closed & (WRITABLE | GUARDED), GUARDED);
        assert!(may_write(closed));
        assert!(guard.open(Pfn(7)) && !guard.open(Pfn(7)));
        assert_eq!(guard.filter(closed), ENTRY);
        guard.close(Pfn(7));
        assert_eq!(guard.filter(ENTRY), closed);
    }

    #[test]
    fn a_run_closes_what_it_opened_and_nothing_else() {
        let mut guard = Guard::new(Pfn(0), 100);
        guard.open(Pfn(7));
        guard.open_for_run(Pfn(7));
        guard.open_for_run(Pfn(8));
        guard.end_run();
        assert!(!guard.open(Pfn(7)), "it was open before the run");
        assert!(guard.open(Pfn(8)));
    }

    #[test]
    fn only_an_accessed_entry_leaves_a_translation() {
        let fresh = Guard::unseen(ENTRY | ACCESSED, 0);
        assert_eq!(fresh, ENTRY);
        assert!(!Guard::may_be_kept(fresh) && Guard::may_be_kept(fresh | ACCESSED));
        assert_eq!(Guard::unseen(ENTRY | ACCESSED, fresh), ENTRY, "nobody has seen it yet");
        assert_eq!(Guard::unseen(ENTRY | ACCESSED, fresh | ACCESSED), ENTRY | ACCESSED);
    }

    #[test]
    fn entries_that_are_absent_or_read_only_stay() {
        let guard = Guard::new(Pfn(0), 100);
        for entry in [0, 0x7000, 0x7000 | WRITABLE, 0x7000 | PRESENT] {
            assert_eq!(guard.filter(entry), entry);
        }
        let other = Guard::new(Pfn(0), 1);
        assert_eq!(other.filter(ENTRY), ENTRY, "pages that are not the program's are left alone");
    }
}
