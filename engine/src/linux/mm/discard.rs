//! Pages that a process has no further use for, or wants at once: what `madvise` does to them.
//! Never parses a system call's arguments.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::errno::{EFAULT, EINVAL, ENOMEM, Errno};
use crate::linux::fs::files::Files;
use crate::linux::mm::address_space::AddressSpace;
use crate::linux::mm::mapping::{file_part, pages};
use crate::linux::mm::user_memory::{OutOfFrames, Prot, UserMemory};
use crate::linux::mm::vma::{Backing, Vma, VmaFlags};

const PAGE: u64 = PAGE_SIZE as u64;
/// Discarded ranges up to this size are cleared in place: unmapping costs a TLB flush.
const CLEAR_PAGES_MAX: u64 = 64;

/// `MADV_DONTNEED`: the pages of `part` go back to what its backing holds. What other mappings
/// could see stays.
pub(crate) fn discard(part: &Vma, files: &Files, mem: &mut dyn UserMemory) -> Result<(), Errno> {
    if part.is(VmaFlags::SHARED) {
        return Ok(());
    }
    let in_place = part.bytes() / PAGE <= CLEAR_PAGES_MAX && !part.prot.is_empty();
    if !in_place {
        mem.unmap(pages(part.start, part.end));
        return Ok(());
    }
    for at in (part.start..part.end).step_by(PAGE_SIZE) {
        if mem.allows(Gva(at), crate::outcome::Access::Read) {
            let mut page = [0; PAGE_SIZE];
            if let Backing::File { node, offset } = part.backing {
                let from = offset.saturating_add(at - part.start);
                let bytes = file_part(files.content(node), from, PAGE);
                page[..bytes.len()].copy_from_slice(bytes);
            }
            mem.populate(Gva(at), &page).map_err(|_| EFAULT)?;
        }
    }
    Ok(())
}

/// `MADV_REMOVE` on an anonymous shared mapping: its pages are zeros again for everyone.
pub(crate) fn punch(part: &Vma, mem: &mut dyn UserMemory) {
    let mut at = Gva(part.start);
    while let Some(page) = mem.next_mapped(at, Gva(part.end)) {
        // The page has a frame.
        let _ = mem.populate(page, &[0; PAGE_SIZE]);
        at = page.wrapping_add(PAGE);
    }
}

impl AddressSpace {
    /// `MADV_POPULATE_READ`, `MADV_POPULATE_WRITE`: brings in all pages of `part`.
    pub(crate) fn populate(
        &self,
        part: &Vma,
        writes: bool,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<(), Errno> {
        // `check_vma_flags` in mm/gup.c.
        if !part.prot.contains(if writes { Prot::WRITE } else { Prot::READ }) {
            return Err(EINVAL);
        }
        self.fill(part, files, mem).map_err(|OutOfFrames| ENOMEM)?;
        if part.backed_end(files) < part.end { Err(EFAULT) } else { Ok(()) }
    }
}
