//! What mapping, unmapping, protecting and faulting do to page tables and areas alike.
//!
//! Pages come into being in one place, [`bring_in`]: at once for what is small (a page
//! fault costs an exit), around the faulting page for what is large. Never parses a system
//! call's arguments.

use super::FaultVerdict;
use super::errno::{EACCES, EFAULT, EINVAL, ENOMEM, Errno};
use super::files::Files;
use super::memory::{OutOfFrames, PageRange, Prot, UserMemory};
use super::space::{Area, Backing, MMAP_BASE, Space, USER_START, in_user};
use crate::address::{Gva, PAGE_SIZE};
use crate::outcome::{Access, Signal};

const PAGE: u64 = PAGE_SIZE as u64;
/// Mappings up to this size get their pages at once.
const EAGER_BYTES_MAX: u64 = 1 << 20;
/// File mappings up to this size are copied at once; larger ones around each faulting page.
const EAGER_FILE_BYTES_MAX: u64 = 8 << 20;
/// Pages mapped around a page that faulted; a power of two.
const AROUND_PAGES: u64 = 64;
/// The same for the stack, which grows by small steps.
const AROUND_STACK_PAGES: u64 = 16;
/// Discarded ranges up to this size are cleared in place: unmapping costs a TLB flush.
const CLEAR_PAGES_MAX: u64 = 64;

/// Page-table permissions for what the process asked: on x86 whatever may be written or
/// executed may be read.
fn page_prot(prot: Prot) -> Prot {
    if prot.is_empty() { prot } else { prot | Prot::READ }
}

fn pages(start: u64, end: u64) -> PageRange {
    PageRange { start: Gva(start), pages: end.saturating_sub(start) / PAGE }
}

/// The file's bytes from `offset` on, at most `bytes`.
fn file_part(content: &[u8], offset: u64, bytes: u64) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let end = start.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
    &content[start..end.min(content.len())]
}

impl Space {
    /// Maps `area`, replacing what is there, and brings in its pages when it is small.
    pub(super) fn map(
        &mut self,
        area: Area,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<(), Errno> {
        if !self.has_room() || !in_user(area.start, area.end) {
            return Err(ENOMEM);
        }
        self.unmap(area.start, area.end, mem);
        self.insert(area);
        bring_in_if_small(&area, files, mem);
        Ok(())
    }

    /// Unmaps whatever lies in `start..end`.
    pub(super) fn unmap(&mut self, start: u64, end: u64, mem: &mut dyn UserMemory) {
        for area in self.overlapping(start, end) {
            let part = area.part(start, end);
            mem.unmap(pages(part.start, part.end));
        }
        self.remove(start, end);
    }

    /// `mprotect`: as Linux, changes what comes before a hole and then fails.
    pub(super) fn protect(
        &mut self,
        start: u64,
        end: u64,
        prot: Prot,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let Some(area) = self.area_at(at).copied() else { return Err(ENOMEM) };
            let part = area.part(at, end);
            if prot.contains(Prot::WRITE) && !part.may_write {
                return Err(EACCES);
            }
            if part.prot != prot {
                if !self.has_room() {
                    return Err(ENOMEM);
                }
                let changed = Area { prot, ..part };
                self.remove(part.start, part.end);
                self.insert(changed);
                mem.protect(pages(part.start, part.end), page_prot(prot));
                if part.prot.is_empty() {
                    bring_in_if_small(&changed, files, mem);
                }
            }
            at = part.end;
        }
        Ok(())
    }

    /// `MADV_DONTNEED`: pages go back to what their backing holds.
    pub(super) fn discard(
        &self,
        start: u64,
        end: u64,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<(), Errno> {
        for area in self.overlapping(start, end) {
            let part = area.part(start, end);
            let in_place = part.bytes() / PAGE <= CLEAR_PAGES_MAX && !part.prot.is_empty();
            if !in_place {
                mem.unmap(pages(part.start, part.end));
                continue;
            }
            for at in (part.start..part.end).step_by(PAGE_SIZE) {
                if mem.allows(Gva(at), Access::Read) {
                    let mut page = [0; PAGE_SIZE];
                    if let Backing::File { node, offset } = part.backing {
                        let from = offset.saturating_add(at - part.start);
                        let bytes = file_part(files.content(node), from, PAGE);
                        page[..bytes.len()].copy_from_slice(bytes);
                    }
                    mem.populate(Gva(at), &page).map_err(|_| EFAULT)?;
                }
            }
        }
        // The range's mapped parts are discarded even when holes make the call fail, as in Linux.
        if self.is_covered(start, end) { Ok(()) } else { Err(ENOMEM) }
    }

    /// Moves and resizes the mapping `start..start + old_bytes`; the result is its new address.
    pub(super) fn remap(
        &mut self,
        start: u64,
        old_bytes: u64,
        new_bytes: u64,
        target: RemapTarget,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<u64, Errno> {
        let old_end = start.checked_add(old_bytes).ok_or(EINVAL)?;
        let area = *self.area_at(start).filter(|area| old_end <= area.end).ok_or(EFAULT)?;
        if new_bytes < old_bytes {
            self.unmap(start + new_bytes, old_end, mem);
        }
        let kept = area.part(start, start + old_bytes.min(new_bytes));
        if let RemapTarget::Fixed(to) = target {
            return self.move_area(kept, to, new_bytes, files, mem);
        }
        if new_bytes <= old_bytes {
            return Ok(start);
        }
        let new_end = start.checked_add(new_bytes).ok_or(EINVAL)?;
        if old_end == area.end && self.is_free(old_end, new_end) {
            if !self.has_room() {
                return Err(ENOMEM);
            }
            let grown = Area { end: new_end, ..area }.part(old_end, new_end);
            self.insert(grown);
            bring_in_if_small(&grown, files, mem);
            return Ok(start);
        }
        if target == RemapTarget::InPlace {
            return Err(ENOMEM);
        }
        let to = self.find_gap(new_bytes, USER_START, MMAP_BASE).ok_or(ENOMEM)?;
        self.move_area(kept, to, new_bytes, files, mem)
    }

    fn move_area(
        &mut self,
        kept: Area,
        to: u64,
        new_bytes: u64,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<u64, Errno> {
        let to_end = to.checked_add(new_bytes).ok_or(EINVAL)?;
        if !self.has_room() || !in_user(to, to_end) {
            return Err(ENOMEM);
        }
        self.unmap(to, to_end, mem);
        mem.relocate(pages(kept.start, kept.end), Gva(to)).map_err(|OutOfFrames| ENOMEM)?;
        self.remove(kept.start, kept.end);
        let moved = Area { start: to, end: to_end, ..kept };
        self.insert(moved);
        bring_in_if_small(&moved.part(to + kept.bytes(), to_end), files, mem);
        Ok(to)
    }

    /// Sets the program break as near to `wanted` as `brk` allows, and returns it.
    pub(super) fn set_break(
        &mut self,
        wanted: u64,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> u64 {
        let mapped_end = self.break_end.next_multiple_of(PAGE);
        if wanted < self.break_start || wanted > super::space::USER_END {
            return self.break_end;
        }
        let wanted_end = wanted.next_multiple_of(PAGE);
        if wanted_end < mapped_end {
            self.unmap(wanted_end, mapped_end, mem);
        } else if wanted_end > mapped_end {
            let heap = Area {
                start: mapped_end,
                end: wanted_end,
                prot: Prot::READ | Prot::WRITE,
                backing: Backing::Heap,
                may_write: true,
            };
            if !self.is_free(mapped_end, wanted_end) || self.map(heap, files, mem).is_err() {
                return self.break_end;
            }
        }
        self.break_end = wanted;
        wanted
    }

    /// What a fault at `at` means: brings in the page if the process may access it.
    pub(super) fn fault(
        &self,
        at: Gva,
        access: Access,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> FaultVerdict {
        let Some(area) = self.area_at(at.0) else { return FaultVerdict::Signal(Signal::SEGV) };
        let allowed = match access {
            Access::Read => !area.prot.is_empty(),
            Access::Write => area.prot.contains(Prot::WRITE),
            Access::Execute => area.prot.contains(Prot::EXEC),
        };
        if !allowed {
            return FaultVerdict::Signal(Signal::SEGV);
        }
        let page = at.page_floor().0;
        if mem.allows(at, access) {
            return FaultVerdict::Retry;
        }
        let around = match area.backing {
            Backing::Stack => AROUND_STACK_PAGES * PAGE,
            _ => AROUND_PAGES * PAGE,
        };
        let window = area.part(page & !(around - 1), (page & !(around - 1)).saturating_add(around));
        if let Backing::File { node, offset } = window.backing {
            let into = offset.saturating_add(page - window.start);
            if into >= files.content(node).len() as u64 {
                return FaultVerdict::Signal(Signal::BUS);
            }
        }
        let alone = area.part(page, page + PAGE);
        match bring_in(&window, files, mem).or_else(|OutOfFrames| bring_in(&alone, files, mem)) {
            Ok(()) => FaultVerdict::Retry,
            Err(OutOfFrames) => FaultVerdict::OutOfMemory,
        }
    }
}

/// Where `mremap` may put a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemapTarget {
    /// Only where it is.
    InPlace,
    /// Where it is, or anywhere.
    Anywhere,
    /// There, replacing what is there.
    Fixed(u64),
}

/// Gives `area` its pages now if it is small and frames are plenty. Failing is no error: the
/// first access tries again.
fn bring_in_if_small(area: &Area, files: &Files, mem: &mut dyn UserMemory) {
    let bytes_max = match area.backing {
        Backing::File { .. } => EAGER_FILE_BYTES_MAX,
        Backing::Stack => 0,
        Backing::Anonymous | Backing::Heap => EAGER_BYTES_MAX,
    };
    let bytes = area.bytes();
    if area.prot.is_empty() || bytes > bytes_max || bytes / PAGE > mem.frames_free() / 4 {
        return;
    }
    // Out of frames here only means that the pages come later, if at all.
    let _ = bring_in(area, files, mem);
}

/// Gives every absent page of `area` a frame with its backing's contents.
pub(super) fn bring_in(
    area: &Area,
    files: &Files,
    mem: &mut dyn UserMemory,
) -> Result<(), OutOfFrames> {
    let prot = page_prot(area.prot);
    if prot.is_empty() {
        return Ok(());
    }
    let Backing::File { node, offset } = area.backing else {
        return mem.map(pages(area.start, area.end), prot);
    };
    let content = file_part(files.content(node), offset, area.bytes());
    let mut absent_from = None;
    let end = area.start.saturating_add((content.len() as u64).next_multiple_of(PAGE));
    for at in (area.start..end).step_by(PAGE_SIZE) {
        match (mem.allows(Gva(at), Access::Read), absent_from) {
            (false, None) => absent_from = Some(at),
            (true, Some(from)) => {
                copy_file_pages(area.start, content, from, at, prot, mem)?;
                absent_from = None;
            }
            _ => {}
        }
    }
    match absent_from {
        Some(from) => copy_file_pages(area.start, content, from, end, prot, mem),
        None => Ok(()),
    }
}

/// Maps the absent pages `from..to` and fills them from `content`, which starts at `start`.
fn copy_file_pages(
    start: u64,
    content: &[u8],
    from: u64,
    to: u64,
    prot: Prot,
    mem: &mut dyn UserMemory,
) -> Result<(), OutOfFrames> {
    mem.map(pages(from, to), prot)?;
    let bytes = file_part(content, from - start, to - from);
    mem.populate(Gva(from), bytes).map_err(|_| OutOfFrames)
}
