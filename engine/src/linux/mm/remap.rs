//! `mremap`: mappings that grow, shrink and move, as mm/mremap.c has it. Never parses a system
//! call's arguments.

use crate::address::Gva;
use crate::linux::abi::errno::{EAGAIN, EFAULT, EINVAL, ENOMEM, Errno};
use crate::linux::fs::files::Files;
use crate::linux::mm::address_space::AddressSpace;
use crate::linux::mm::bounds::{MMAP_BASE, UNMAPPED_BASE, USER_END, USER_START, in_user};
use crate::linux::mm::mapping::{MemoryRlimits, pages};
use crate::linux::mm::user_memory::{OutOfFrames, UserMemory};
use crate::linux::mm::vma::{Backing, Vma, VmaFlags};

/// Where `mremap` may put a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemapTarget {
    /// Only where it is.
    InPlace,
    /// Where it is, or anywhere.
    Anywhere,
    /// There, replacing what is there.
    Fixed(u64),
    /// There if that is free, else anywhere.
    Wish(u64),
}

/// A call of `mremap`, its arguments checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remap {
    pub(crate) start: u64,
    pub(crate) old_bytes: u64,
    pub(crate) new_bytes: u64,
    pub(crate) target: RemapTarget,
    /// `MREMAP_DONTUNMAP`: the pages move, and what was there stays mapped, without them.
    pub(crate) keeps_old: bool,
}

impl AddressSpace {
    /// Moves and resizes a mapping; the result is its new address.
    pub(crate) fn remap(
        &mut self,
        call: Remap,
        rlimits: &MemoryRlimits,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<u64, Errno> {
        let Remap { start, mut old_bytes, new_bytes, target, .. } = call;
        self.vma_at(start).ok_or(EFAULT)?;
        let old_end = start.checked_add(old_bytes).ok_or(EINVAL)?;
        let moves = matches!(target, RemapTarget::Fixed(_) | RemapTarget::Wish(_));
        if !moves && new_bytes <= old_bytes {
            self.cut(start + new_bytes, old_end, mem)?;
            return Ok(start);
        }
        if let RemapTarget::Fixed(to) = target {
            self.make_room(to, new_bytes, mem)?;
        }
        if moves && new_bytes < old_bytes {
            self.cut(start + new_bytes, old_end, mem)?;
            old_bytes = new_bytes;
        }
        let old = self.resizable(start, old_bytes, new_bytes, rlimits)?;
        let is_tail = old_bytes > 0 && old_end == old.end;
        if !moves && is_tail && self.expand(&old, new_bytes - old_bytes, files, mem) {
            return Ok(start);
        }
        let to = match target {
            RemapTarget::InPlace => return Err(ENOMEM),
            RemapTarget::Fixed(to) => to,
            RemapTarget::Wish(to)
                if to >= USER_START && self.suits(to, to.saturating_add(new_bytes)) =>
            {
                to
            }
            RemapTarget::Wish(_) | RemapTarget::Anywhere => {
                let below = self.find_gap(new_bytes, USER_START, MMAP_BASE);
                let above = || self.find_gap_upwards(new_bytes, UNMAPPED_BASE, USER_END);
                below.or_else(above).ok_or(ENOMEM)?
            }
        };
        let kept = old.part(start, start + old_bytes);
        self.move_area(&kept, to, &Remap { old_bytes, ..call }, files, mem)?;
        if call.keeps_old && old.is(VmaFlags::LOCKED) {
            // Linux unlocks all of the mapping, not only the part that was moved.
            self.remove(old.start, old.end);
            let flags = old.flags.difference(VmaFlags::LOCKED | VmaFlags::LOCKED_ON_FAULT);
            self.insert(Vma { flags, ..old });
        }
        Ok(to)
    }

    fn cut(&mut self, start: u64, end: u64, mem: &mut dyn UserMemory) -> Result<(), Errno> {
        if start < end {
            if !in_user(start, end) {
                return Err(EINVAL);
            }
            if !self.may_remove(start, end) {
                return Err(ENOMEM);
            }
            self.unmap(start, end, mem);
        }
        Ok(())
    }

    fn make_room(&mut self, to: u64, bytes: u64, mem: &mut dyn UserMemory) -> Result<(), Errno> {
        let end = to.checked_add(bytes).ok_or(EINVAL)?;
        // `mremap_to` wants more room than it needs.
        if !self.has_room(5) || !in_user(to, end) || !self.may_remove(to, end) {
            return Err(ENOMEM);
        }
        self.unmap(to, end, mem);
        Ok(())
    }

    /// The mapping that has all of the old range, if it may have the new size (`vma_to_resize`).
    fn resizable(
        &self,
        start: u64,
        old_bytes: u64,
        new_bytes: u64,
        rlimits: &MemoryRlimits,
    ) -> Result<Vma, Errno> {
        let vma = *self.vma_at(start).ok_or(EFAULT)?;
        if old_bytes == 0 && !vma.is(VmaFlags::SHARED) {
            return Err(EINVAL);
        }
        if old_bytes > vma.end - start {
            return Err(EFAULT);
        }
        let added = new_bytes.saturating_sub(old_bytes);
        if added > 0 {
            self.may_lock(vma.flags, added, rlimits).map_err(|_| EAGAIN)?;
            self.may_expand(&vma, added, rlimits)?;
        }
        Ok(vma)
    }

    /// Grows a mapping where it is; whether it could.
    fn expand(&mut self, vma: &Vma, added: u64, files: &Files, mem: &mut dyn UserMemory) -> bool {
        let Some(end) = vma.end.checked_add(added) else { return false };
        if !self.is_free(vma.end, end) {
            return false;
        }
        let grown = Vma { end, ..*vma }.part(vma.end, end);
        self.insert(grown);
        self.fill_if_small(&grown, files, mem);
        self.populate_if_locked(&grown, files, mem);
        true
    }

    fn move_area(
        &mut self,
        kept: &Vma,
        to: u64,
        call: &Remap,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<(), Errno> {
        let to_end = to.checked_add(call.new_bytes).ok_or(EINVAL)?;
        if !self.has_room(3) || !in_user(to, to_end) {
            return Err(ENOMEM);
        }
        let backing = match kept.backing {
            Backing::Heap | Backing::Stack => Backing::Anonymous,
            other => other,
        };
        let moved = Vma { start: to, end: to_end, backing, ..*kept };
        if call.old_bytes > 0 {
            let (from, there) = (pages(kept.start, kept.end), pages(to, to + kept.bytes()));
            if let Err(OutOfFrames) = mem.relocate(from, Gva(to)) {
                // Where the pages came from there are page tables already.
                let _ = mem.relocate(there, from.start);
                return Err(ENOMEM);
            }
            self.remove(kept.start, kept.end);
        }
        self.insert(moved);
        if call.keeps_old {
            self.insert(*kept);
        }
        let new = moved.part(to + kept.bytes(), to_end);
        self.fill_if_small(&new, files, mem);
        self.populate_if_locked(&moved, files, mem);
        Ok(())
    }
}
