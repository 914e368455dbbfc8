//! The page tables of a process guest.
//!
//! Two things make them more than a tree of entries.
//!
//! *A removed permission must be written by the guest.* A host that shadows page tables
//! (kvm_pvm) sees a host's write to a table only when it next walks it, so a stale translation
//! would stay; hardware keeps one in the TLB. So every entry that was present and changes is
//! noted in [`Tables::take_stale`], and the guest writes it once more, with its present value,
//! before the program goes on (see `guest::process::trap`). An entry that was absent needs
//! nothing: no translation of it exists. Under a guard ([`Tables::guarded_copy`]) the same holds for one
//! that was mapped and never accessed, because those are not marked as accessed beforehand.
//!
//! *A rewind undoes entries, not pages.* Every change is logged with the value before it, and
//! undone in reverse. Tables are therefore written unmarked, and lie in a slot without dirty log.

use super::entry::{
    ACCESSED, ADDRESS_MASK, ENTRIES, ENTRY_BYTES, INDEX_BITS, LEVELS, PRESENT, USER, WRITABLE,
    entry_of, frame_of,
};
use super::error::TablesError;
use super::frames::Frames;
use super::guard::Guard;
use crate::address::{Gpa, Gva, PAGE_SHIFT, PAGE_SIZE, Pfn};
use crate::memory::GuestMemory;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// An entry that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    slot: Gpa,
    /// What it held before.
    before: u64,
}

/// Four-level tables of one address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tables {
    root: Pfn,
    /// Frames for tables; never given back, except by a rewind.
    arena: Frames,
    /// Frames for pages.
    frames: Frames,
    /// Free frames that are not to be taken; no part of what a rewind restores.
    #[serde(skip)]
    reserved: u64,
    /// Entries changed since the last mark, with their values before.
    #[serde(skip)]
    log: Vec<Change>,
    /// Entries that the guest must write once more.
    #[serde(skip)]
    stale: Vec<Gpa>,
    /// Keeps pages read-only until their first write, where somebody asked for it.
    #[serde(skip)]
    guard: Option<Guard>,
}

impl Tables {
    /// Empty tables whose root is the first page of `arena`.
    ///
    /// # Errors
    /// The arena is empty.
    pub fn new(
        memory: &mut GuestMemory,
        mut arena: Frames,
        frames: Frames,
    ) -> Result<Self, TablesError> {
        let root = arena.take(memory)?;
        Ok(Self {
            root,
            arena,
            frames,
            reserved: 0,
            log: Vec::new(),
            stale: Vec::new(),
            guard: None,
        })
    }

    /// Checks tables that were read from a snapshot, whose tables lie in `arena` and whose pages
    /// in `user`, both ranges of page numbers.
    pub(crate) fn check(&self, arena: Range<u64>, user: Range<u64>) -> Result<(), &'static str> {
        match arena.contains(&self.root.0)
            && self.arena.lies_in(&arena)
            && self.frames.lies_in(&user)
        {
            true => Ok(()),
            false => Err("page tables or free pages outside of the memory that is theirs"),
        }
    }

    /// CR3's value.
    #[must_use]
    pub fn root(&self) -> Gpa {
        self.root.gpa()
    }

    /// Free frames for pages.
    #[must_use]
    pub fn frames_free(&self) -> u64 {
        self.frames.available()
    }

    /// Leaves `frames` of the free frames for pages alone from now on, as if they were none.
    pub fn reserve(&mut self, frames: u64) {
        self.reserved = frames;
    }

    /// Takes a zeroed frame for a page.
    ///
    /// # Errors
    /// None is left.
    pub fn take_frame(&mut self, memory: &mut GuestMemory) -> Result<Pfn, TablesError> {
        if self.frames.available() <= self.reserved {
            return Err(TablesError::Full);
        }
        let pfn = self.frames.take(memory)?;
        if let Some(guard) = &mut self.guard {
            // Whatever the run writes there is undone with what the host has touched.
            memory.mark(pfn.gpa(), PAGE_SIZE)?;
            guard.open_for_run(pfn);
        }
        Ok(pfn)
    }

    /// Gives a page's frame back.
    pub fn give_frame_back(&mut self, pfn: Pfn) {
        self.frames.give_back(pfn);
    }

    /// The leaf entry for `at`: where it is and what it holds; `None` where there is no table, or
    /// where a snapshot file has put one outside of RAM.
    #[must_use]
    pub fn leaf(&self, memory: &GuestMemory, at: Gva) -> Option<(Gpa, u64)> {
        let mut table = self.root();
        for level in (1..LEVELS).rev() {
            let entry = memory.read_u64(entry_of(table, at, level)).ok()?;
            if entry & PRESENT == 0 {
                return None;
            }
            table = Gpa(entry & ADDRESS_MASK);
        }
        let slot = entry_of(table, at, 0);
        Some((slot, memory.read_u64(slot).ok()?))
    }

    /// The first leaf entry that is not zero for a page of `at..end`: the page, where the entry is
    /// and what it holds. What has no table is skipped as a whole, so that the cost is that of the
    /// tables that are there, not of the range.
    #[must_use]
    pub fn next_leaf(&self, memory: &GuestMemory, at: Gva, end: Gva) -> Option<(Gva, Gpa, u64)> {
        let mut at = at.page_floor();
        'walk: while at < end {
            let mut table = self.root();
            for level in (1..LEVELS).rev() {
                let entry = memory.read_u64(entry_of(table, at, level)).ok()?;
                if entry & PRESENT == 0 {
                    at = next_of(at, level)?;
                    continue 'walk;
                }
                table = Gpa(entry & ADDRESS_MASK);
            }
            let past = next_of(at, 1).map_or(end, |past| past.min(end));
            while at < past {
                let slot = entry_of(table, at, 0);
                let entry = memory.read_u64(slot).ok()?;
                if entry != 0 {
                    return Some((at, slot, entry));
                }
                at = next_of(at, 0)?;
            }
        }
        None
    }

    /// Sets the leaf entry for `at`, making the tables above it.
    ///
    /// # Errors
    /// No frame is left for a table.
    pub fn set_leaf(
        &mut self,
        memory: &mut GuestMemory,
        at: Gva,
        entry: u64,
    ) -> Result<(), TablesError> {
        let table = self.page_table(memory, at)?;
        self.set(memory, entry_of(table, at, 0), entry)
    }

    /// The page table for the 2 MiB that `at` lies in; it and the tables above it are made where
    /// they are missing. Its entry for `at` is at [`entry_in`](super::entry_in).
    ///
    /// # Errors
    /// No frame is left for a table.
    pub fn page_table(&mut self, memory: &mut GuestMemory, at: Gva) -> Result<Gpa, TablesError> {
        let mut table = self.root();
        for level in (1..LEVELS).rev() {
            let slot = entry_of(table, at, level);
            let above = memory.read_u64(slot)?;
            table = if above & PRESENT == 0 {
                let fresh = self.arena.take(memory)?.gpa();
                // Permissions are the leaf's alone to give.
                self.set(memory, slot, fresh.0 | PRESENT | WRITABLE | USER | ACCESSED)?;
                fresh
            } else {
                Gpa(above & ADDRESS_MASK)
            };
        }
        Ok(table)
    }

    /// Changes an entry that [`leaf`](Self::leaf) found.
    ///
    /// # Errors
    /// The entry does not lie in RAM.
    pub fn set(
        &mut self,
        memory: &mut GuestMemory,
        slot: Gpa,
        entry: u64,
    ) -> Result<(), TablesError> {
        let before = memory.read_u64(slot)?;
        let entry = match &self.guard {
            Some(guard) => Guard::unseen(guard.filter(entry), before),
            None => entry,
        };
        if before == entry {
            return Ok(());
        }
        memory.write_unmarked(slot, &entry.to_le_bytes())?;
        self.log.push(Change { slot, before });
        if self.may_be_kept(before) {
            self.stale.push(slot);
        }
        Ok(())
    }

    /// Clears the pages that were given back, so that every free page holds zeros.
    ///
    /// # Errors
    /// A page does not lie in RAM.
    pub fn clear_free(&self, memory: &mut GuestMemory) -> Result<(), TablesError> {
        let all = self.frames.free.iter();
        Ok(all.map(|pfn| Pfn(*pfn)).try_for_each(|pfn| memory.zero(pfn.gpa(), PAGE_SIZE))?)
    }

    /// Forgets the log: what the tables are now is what a rewind goes back to.
    pub fn mark(&mut self) {
        self.log.clear();
    }

    /// Whether nothing changed since the mark.
    #[must_use]
    pub fn unchanged(&self) -> bool {
        self.log.is_empty()
    }

    /// Undoes every change since the mark, `then` being a copy made at the mark.
    ///
    /// # Errors
    /// An entry does not lie in RAM.
    pub fn rewind_to(&mut self, memory: &mut GuestMemory, then: &Self) -> Result<(), TablesError> {
        if let Some(guard) = &mut self.guard {
            guard.end_run();
        }
        if self.log.is_empty() {
            return Ok(());
        }
        while let Some(Change { slot, before }) = self.log.pop() {
            let now = memory.read_u64(slot)?;
            let before = self.guarded(before);
            memory.write_unmarked(slot, &before.to_le_bytes())?;
            if self.may_be_kept(now) {
                self.stale.push(slot);
            }
        }
        self.arena.rewind_to(&then.arena);
        self.frames.rewind_to(&then.frames);
        Ok(())
    }

    /// Whether the guest must write entries before the program goes on.
    #[must_use]
    pub fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Moves the entries that the guest must write once more into `out`, sorted, each once.
    pub fn take_stale(&mut self, out: &mut Vec<Gpa>) {
        out.clear();
        out.append(&mut self.stale);
        out.sort_unstable();
        out.dedup();
    }

    /// Notes entries once more that [`take_stale`](Self::take_stale) gave and that the guest may
    /// not have written; empties `entries`.
    pub fn mark_stale(&mut self, entries: &mut Vec<Gpa>) {
        self.stale.append(entries);
    }

    /// Whether the host-side bookkeeping equals `then`'s: part of a machine's proof.
    #[must_use]
    pub fn same_bookkeeping(&self, then: &Self) -> bool {
        self.root == then.root && self.arena == then.arena && self.frames == then.frames
    }
}

/// Other tables for the same pages.
impl Tables {
    /// A copy of these tables in frames of `arena`. Free frames are the same in both: only one of
    /// the two is in use at a time.
    ///
    /// # Errors
    /// The arena is too small.
    pub fn copy_in(
        &self,
        memory: &mut GuestMemory,
        mut arena: Frames,
    ) -> Result<Self, TablesError> {
        let root = copy_table(memory, &mut arena, None, self.root(), LEVELS - 1)?;
        let (log, stale) = (Vec::new(), Vec::new());
        Ok(Self {
            root: root.into(),
            arena,
            frames: self.frames.clone(),
            reserved: self.reserved,
            log,
            stale,
            guard: None,
        })
    }

    /// The entries that were changed since the mark, in order, one perhaps more than once.
    pub fn changed(&self) -> impl ExactSizeIterator<Item = Gpa> + '_ {
        self.log.iter().map(|change| change.slot)
    }
}

/// Copy-on-first-write; see `guard`.
impl Tables {
    /// A copy of these tables in frames of `arena`, under which every page of `user` that the
    /// program may write is read-only until [`open`](Self::open) is called for it. Free frames are
    /// the same in both: only one of the two is in use at a time.
    ///
    /// # Errors
    /// The arena is too small.
    pub fn guarded_copy(
        &self,
        memory: &mut GuestMemory,
        mut arena: Frames,
        user: Frames,
    ) -> Result<Self, TablesError> {
        let guard = Guard::new(Pfn(user.next), user.end.saturating_sub(user.next));
        let root = copy_table(memory, &mut arena, Some(&guard), self.root(), LEVELS - 1)?;
        let frames = self.frames.clone();
        let (log, stale) = (Vec::new(), Vec::new());
        let reserved = self.reserved;
        Ok(Self { root: root.into(), arena, frames, reserved, log, stale, guard: Some(guard) })
    }

    /// Whether a translation by `entry` may have been kept. Where the accessed flag is set beforehand
    /// it tells nothing.
    const fn may_be_kept(&self, entry: u64) -> bool {
        match self.guard {
            Some(_) => Guard::may_be_kept(entry),
            None => entry & PRESENT != 0,
        }
    }

    fn guarded(&self, entry: u64) -> u64 {
        self.guard.as_ref().map_or(entry, |guard| guard.filter(entry))
    }

    /// Makes a guarded entry, which [`leaf`](Self::leaf) found, writable: for good, or
    /// `for_this_run`. No translation becomes stale, because a permission is added; and no rewind
    /// undoes it, because it is no part of what the program did.
    ///
    /// # Errors
    /// The tables have no guard, or the entry does not lie in RAM.
    pub fn open(
        &mut self,
        memory: &mut GuestMemory,
        slot: Gpa,
        entry: u64,
        for_this_run: bool,
    ) -> Result<(), TablesError> {
        let guard = self.guard.as_mut().ok_or(TablesError::NotGuarded)?;
        let pfn = frame_of(entry);
        if for_this_run {
            memory.mark(pfn.gpa(), PAGE_SIZE)?;
            guard.open_for_run(pfn);
            return self.set(memory, slot, entry);
        }
        guard.open(pfn);
        memory.write_unmarked(slot, &guard.filter(entry).to_le_bytes())?;
        Ok(())
    }

    /// Whether an entry was changed since the mark.
    #[must_use]
    pub fn is_changed(&self, slot: Gpa) -> bool {
        self.log.iter().any(|change| change.slot == slot)
    }

    /// Whether every frame that was mapped since the mark is as `is_so` says.
    ///
    /// # Errors
    /// An entry does not lie in RAM.
    pub fn all_mapped(
        &self,
        memory: &GuestMemory,
        is_so: impl Fn(Pfn) -> bool,
    ) -> Result<bool, TablesError> {
        for Change { slot, .. } in &self.log {
            let entry = memory.read_u64(*slot)?;
            if entry & PRESENT != 0 && !is_so(frame_of(entry)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the pages that were mapped since the mark, all of them absent before, part of what a
    /// rewind goes back to, and guards them. The guest has not run since.
    ///
    /// # Errors
    /// The tables have no guard, or an entry does not lie in RAM.
    pub fn keep_mapped(&mut self, memory: &mut GuestMemory) -> Result<(), TablesError> {
        let guard = self.guard.as_mut().ok_or(TablesError::NotGuarded)?;
        guard.end_run();
        for Change { slot, .. } in self.log.drain(..) {
            let entry = memory.read_u64(slot)?;
            memory.write_unmarked(slot, &guard.filter(entry).to_le_bytes())?;
        }
        Ok(())
    }

    /// Guards the page behind an entry again, which the guest must write once more (see
    /// [`take_stale`](Self::take_stale)).
    ///
    /// # Errors
    /// The tables have no guard, or the entry does not lie in RAM.
    pub fn close(&mut self, memory: &mut GuestMemory, slot: Gpa) -> Result<(), TablesError> {
        let entry = memory.read_u64(slot)?;
        let guard = self.guard.as_mut().ok_or(TablesError::NotGuarded)?;
        guard.close(frame_of(entry));
        memory.write_unmarked(slot, &guard.filter(entry).to_le_bytes())?;
        self.stale.push(slot);
        Ok(())
    }
}

/// Copies a table of `level` and all tables below it; engine pages, which are not the program's,
/// keep their tables.
fn copy_table(
    memory: &mut GuestMemory,
    arena: &mut Frames,
    guard: Option<&Guard>,
    from: Gpa,
    level: u32,
) -> Result<Gpa, TablesError> {
    let to = arena.take_unmarked(memory)?.gpa();
    for index in 0..ENTRIES {
        let entry = memory.read_u64(from.wrapping_add(index * ENTRY_BYTES))?;
        if entry == 0 {
            continue;
        }
        let copy = if level == 0 {
            guard.map_or(entry, |guard| guard.filter(entry))
        } else {
            let below = copy_table(memory, arena, guard, Gpa(entry & ADDRESS_MASK), level - 1)?;
            entry & !ADDRESS_MASK | below.0
        };
        memory.write_unmarked(to.wrapping_add(index * ENTRY_BYTES), &copy.to_le_bytes())?;
    }
    Ok(to)
}

/// The first address that the entry after that for `at` in a table of `level` is for.
const fn next_of(at: Gva, level: u32) -> Option<Gva> {
    let shift = PAGE_SHIFT + INDEX_BITS * level;
    match ((at.0 >> shift) + 1).checked_shl(shift) {
        Some(next) if next > at.0 => Some(Gva(next)),
        _ => None,
    }
}
