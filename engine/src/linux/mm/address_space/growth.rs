//! Stacks: VMAs that grow by an access below them. Never brings in a page of what has grown.

use crate::address::{PAGE_SIZE, page_ceil};
use crate::linux::mm::address_space::AddressSpace;
use crate::linux::mm::bounds::{ENGINE_RESERVE, GUARD_GAP, USER_START};
use crate::linux::mm::vma::{Vma, VmaFlags};

/// A stack grows by such steps where it can: a page fault costs an exit.
const GROWTH_STEP: u64 = 16 * PAGE_SIZE as u64;

impl AddressSpace {
    /// The VMA that an access to the unmapped page at `page` makes grow, as it is then
    /// (`expand_downwards` in mm/mmap.c); `None` where it grows none.
    pub(crate) fn growth(&self, page: u64, stack_bytes_max: u64) -> Option<Vma> {
        let index = self.first_after(page);
        let next = self.vmas.get(index).filter(|next| next.is(VmaFlags::GROWS_DOWN))?;
        let before = index.checked_sub(1).and_then(|index| self.vmas.get(index));
        let bottom = before.map_or(USER_START, |before| {
            let needs_gap = !before.is(VmaFlags::GROWS_DOWN) && !before.prot.is_empty();
            before.end.saturating_add(if needs_gap { GUARD_GAP } else { 0 })
        });
        let by_limit = page_ceil(next.end.saturating_sub(stack_bytes_max))?;
        let mut bottom = bottom.max(by_limit).max(USER_START);
        if next.start >= ENGINE_RESERVE.end {
            bottom = bottom.max(ENGINE_RESERVE.end);
        }
        let start = (page & !(GROWTH_STEP - 1)).max(bottom);
        (bottom <= page).then_some(Vma { start, ..*next })
    }

    /// Puts a VMA that [`growth`](Self::growth) gave in its own place.
    pub(crate) fn grow(&mut self, grown: &Vma) {
        let index = self.first_after(grown.start);
        if let Some(vma) = self.vmas.get_mut(index)
            && vma.end == grown.end
        {
            vma.start = vma.start.min(grown.start);
        }
    }
}
