//! A process's virtual memory on the machine's RAM and page tables: what stands behind
//! [`UserMemory`] in a VM.
//!
//! Never knows which mappings a program asked for, only which pages are present.

use crate::address::{Gpa, Gva, PAGE_SIZE};
use crate::guest::process::trap::{ENGINE_BASE, ENGINE_END};
use crate::linux::mm::user_memory::{Inaccessible, OutOfFrames, PageRange, Prot, UserMemory};
use crate::memory::GuestMemory;
use crate::outcome::Access;
use crate::paging::{
    ADDRESS_MASK, NO_EXECUTE, PRESENT, Tables, USER, entry_in, leaf_entry, may_write,
};

/// Bytes that one page table maps.
const TABLE_BYTES: u64 = 512 * PAGE_SIZE as u64;

/// End of the addresses that a program can have: the first page of the non-canonical hole is
/// never mapped, as on Linux.
const USER_END: u64 = 0x7fff_ffff_f000;

/// A view of one machine's memory through one process's page tables, for one call.
#[derive(Debug)]
pub(crate) struct ProcessPages<'a> {
    /// The RAM.
    pub memory: &'a mut GuestMemory,
    /// The tables.
    pub tables: &'a mut Tables,
}

/// Whether a program may have a mapping at `at`.
fn for_programs(at: Gva) -> bool {
    at.0 < USER_END && !(ENGINE_BASE..ENGINE_END).contains(&at.0)
}

/// The page of `range` with number `index`, or `None` past the program's part.
fn page_of(range: PageRange, index: u64) -> Option<Gva> {
    let at = range.start.checked_add(index.checked_mul(PAGE_SIZE as u64)?)?;
    for_programs(at).then_some(at)
}

impl ProcessPages<'_> {
    /// The entry that maps `at` for the program, present or inaccessible but with a frame.
    fn entry(&self, at: Gva) -> Option<(Gpa, u64)> {
        if !for_programs(at) {
            return None;
        }
        let (slot, entry) = self.tables.leaf(self.memory, at)?;
        (entry & ADDRESS_MASK != 0).then_some((slot, entry))
    }

    fn frame_for(&self, at: Gva, kind: Access) -> Option<Gpa> {
        let (_, entry) = self.entry(at)?;
        let allowed = entry & PRESENT != 0
            && entry & USER != 0
            && match kind {
                Access::Read => true,
                Access::Write => may_write(entry),
                Access::Execute => entry & NO_EXECUTE == 0,
            };
        allowed.then_some(Gpa(entry & ADDRESS_MASK))
    }

    /// Calls `copy` for each piece of `bytes` bytes at `at` that lies in one page, with its
    /// physical address and its place among the bytes.
    fn pieces(
        at: Gva,
        bytes: usize,
        mut copy: impl FnMut(Gva, std::ops::Range<usize>) -> Option<()>,
    ) -> Result<(), Gva> {
        let mut done = 0;
        while done < bytes {
            let here = at.wrapping_add(done as u64);
            let length = (PAGE_SIZE - here.page_offset()).min(bytes - done);
            copy(here, done..done + length).ok_or(here)?;
            done += length;
        }
        Ok(())
    }

    fn store(&mut self, at: Gva, bytes: &[u8], obey: bool) -> Result<(), Inaccessible> {
        Self::pieces(at, bytes.len(), |here, range| {
            let frame = if obey {
                self.frame_for(here, Access::Write)?
            } else {
                Gpa(self.entry(here)?.1 & ADDRESS_MASK)
            };
            self.memory.write(frame.wrapping_add(here.page_offset() as u64), &bytes[range]).ok()
        })
        .map_err(|at| Inaccessible { at, kind: Access::Write })
    }
}

/// The entry for `frame` with `prot`. Without any permission the entry keeps its frame but is
/// not present, so that every access faults.
fn entry_for(frame: Gpa, prot: Prot) -> u64 {
    if prot.is_empty() {
        return frame.0;
    }
    leaf_entry(frame, prot.contains(Prot::WRITE), prot.contains(Prot::EXEC), true)
}

impl UserMemory for ProcessPages<'_> {
    fn read(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        Self::pieces(at, out.len(), |here, range| {
            let frame = self.frame_for(here, Access::Read)?;
            let from = frame.wrapping_add(here.page_offset() as u64);
            self.memory.read(from, &mut out[range]).ok()
        })
        .map_err(|at| Inaccessible { at, kind: Access::Read })
    }

    fn write(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.store(at, bytes, true)
    }

    fn populate(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.store(at, bytes, false)
    }

    fn map(&mut self, range: PageRange, prot: Prot) -> Result<(), OutOfFrames> {
        // The page table that the last page was in, found once for its 512 pages.
        let mut last = None;
        for index in 0..range.pages {
            let at = page_of(range, index).ok_or(OutOfFrames)?;
            let region = at.0 / TABLE_BYTES;
            let table = match last {
                Some((same, table)) if same == region => table,
                _ => self.tables.page_table(self.memory, at).map_err(|_| OutOfFrames)?,
            };
            last = Some((region, table));
            let slot = entry_in(table, at);
            let entry = self.memory.read_u64(slot).map_err(|_| OutOfFrames)?;
            if entry & ADDRESS_MASK != 0 {
                continue;
            }
            let frame = self.tables.take_frame(self.memory).map_err(|_| OutOfFrames)?;
            let entry = entry_for(frame.gpa(), prot);
            self.tables.set(self.memory, slot, entry).map_err(|_| OutOfFrames)?;
        }
        Ok(())
    }

    fn unmap(&mut self, range: PageRange) {
        self.for_each_mapped(range, |tables, memory, slot, entry| {
            if tables.set(memory, slot, 0).is_ok() {
                tables.give_frame_back(Gpa(entry & ADDRESS_MASK).into());
            }
        });
    }

    fn protect(&mut self, range: PageRange, prot: Prot) {
        self.for_each_mapped(range, |tables, memory, slot, entry| {
            // The slot was just read, so it lies in RAM and the write cannot fail.
            let _ = tables.set(memory, slot, entry_for(Gpa(entry & ADDRESS_MASK), prot));
        });
    }

    fn relocate(&mut self, range: PageRange, to: Gva) -> Result<(), OutOfFrames> {
        let (start, mut at) = (range.start, range.start);
        while let Some(from) = self.next_mapped(at, end_of(range)) {
            let target = to.wrapping_add(from.0 - start.0);
            let Some((slot, entry)) = self.entry(from).filter(|_| for_programs(target)) else {
                return Err(OutOfFrames);
            };
            self.tables.set_leaf(self.memory, target, entry).map_err(|_| OutOfFrames)?;
            self.tables.set(self.memory, slot, 0).map_err(|_| OutOfFrames)?;
            at = from.wrapping_add(PAGE_SIZE as u64);
        }
        Ok(())
    }

    fn next_mapped(&self, at: Gva, end: Gva) -> Option<Gva> {
        let (mut at, end) = (at, end.min(Gva(USER_END)));
        while at < end {
            if !for_programs(at) {
                at = Gva(ENGINE_END);
                continue;
            }
            // The engine's entries, if any lie before `end`, are none of the program's.
            let (page, _, entry) = self.tables.next_leaf(self.memory, at, end)?;
            if for_programs(page) && entry & ADDRESS_MASK != 0 {
                return Some(page);
            }
            at = page.checked_add(PAGE_SIZE as u64)?;
        }
        None
    }

    fn alias(&mut self, from: Gva, to: Gva, prot: Prot) -> Result<(), OutOfFrames> {
        let Some((_, entry)) = self.entry(from).filter(|_| for_programs(to)) else {
            return Err(OutOfFrames);
        };
        let entry = entry_for(Gpa(entry & ADDRESS_MASK), prot);
        self.tables.set_leaf(self.memory, to, entry).map_err(|_| OutOfFrames)
    }

    fn forget(&mut self, at: Gva) {
        if let Some((slot, _)) = self.entry(at) {
            // The slot was just read, so it lies in RAM and the write cannot fail.
            let _ = self.tables.set(self.memory, slot, 0);
        }
    }

    fn peek(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        Self::pieces(at, out.len(), |here, range| {
            let frame = Gpa(self.entry(here)?.1 & ADDRESS_MASK);
            self.memory.read(frame.wrapping_add(here.page_offset() as u64), &mut out[range]).ok()
        })
        .map_err(|at| Inaccessible { at, kind: Access::Read })
    }

    fn allows(&self, at: Gva, kind: Access) -> bool {
        self.frame_for(at, kind).is_some()
    }

    fn frames_free(&self) -> u64 {
        self.tables.frames_free()
    }
}

impl ProcessPages<'_> {
    /// Calls `change` for each page of `range` that has a frame.
    fn for_each_mapped(
        &mut self,
        range: PageRange,
        mut change: impl FnMut(&mut Tables, &mut GuestMemory, Gpa, u64),
    ) {
        let mut at = range.start;
        while let Some(page) = self.next_mapped(at, end_of(range)) {
            if let Some((slot, entry)) = self.entry(page) {
                change(self.tables, self.memory, slot, entry);
            }
            at = page.wrapping_add(PAGE_SIZE as u64);
        }
    }
}

/// First address past `range`; no program's memory lies beyond the last one.
fn end_of(range: PageRange) -> Gva {
    let bytes = range.pages.checked_mul(PAGE_SIZE as u64);
    bytes.and_then(|bytes| range.start.checked_add(bytes)).unwrap_or(Gva(u64::MAX))
}
