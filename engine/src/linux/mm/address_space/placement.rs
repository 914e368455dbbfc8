//! Where there is room for a mapping. Never maps anything there, and never decides where to look:
//! `syscalls::memory` does.

use crate::linux::mm::address_space::AddressSpace;
use crate::linux::mm::bounds::{ENGINE_RESERVE, GUARD_GAP, USER_END};
use crate::linux::mm::vma::{Vma, VmaFlags};

impl Vma {
    /// Where new mappings have to end that lie below it (`vm_start_gap`).
    fn gap_start(&self) -> u64 {
        match self.is(VmaFlags::GROWS_DOWN) {
            true => self.start.saturating_sub(GUARD_GAP),
            false => self.start,
        }
    }
}

impl AddressSpace {
    /// Whether a mapping of `start..end`, which its process would like there, keeps away from what
    /// is mapped and from the guard gap of the next stack.
    pub(crate) fn suits(&self, start: u64, end: u64) -> bool {
        let next = self.vmas.get(self.first_after(start));
        self.is_free(start, end) && next.is_none_or(|next| end <= next.gap_start())
    }

    /// The highest free `bytes` (whole pages) within `low..high`.
    pub(crate) fn find_gap(&self, bytes: u64, low: u64, high: u64) -> Option<u64> {
        let mut top = high.min(USER_END);
        let below = self.vmas.partition_point(|vma| vma.start < top.saturating_add(GUARD_GAP));
        for vma in self.vmas.get(..below).unwrap_or_default().iter().rev() {
            if vma.gap_start() >= top {
                continue;
            }
            if let Some(found) = highest_in(vma.end.max(low), top, bytes) {
                return Some(found);
            }
            top = vma.gap_start();
            if top <= low {
                return None;
            }
        }
        highest_in(low, top, bytes)
    }

    /// The lowest free `bytes` (whole pages) within `low..high`.
    pub(crate) fn find_gap_upwards(&self, bytes: u64, low: u64, high: u64) -> Option<u64> {
        let mut bottom = low;
        for vma in self.vmas.get(self.first_after(low)..).unwrap_or_default() {
            let found = lowest_in(bottom, vma.gap_start().min(high), bytes);
            if found.is_some() || vma.end >= high {
                return found;
            }
            bottom = bottom.max(vma.end);
        }
        lowest_in(bottom, high.min(USER_END), bytes)
    }
}

/// The highest `bytes` within `bottom..top` that the process may map, nothing being mapped there.
fn highest_in(bottom: u64, top: u64, bytes: u64) -> Option<u64> {
    let above = (bottom.max(ENGINE_RESERVE.end), top);
    let below = (bottom, top.min(ENGINE_RESERVE.start));
    let fit = |(bottom, top): (u64, u64)| top.checked_sub(bytes).filter(|start| *start >= bottom);
    fit(above).or_else(|| fit(below))
}

/// The lowest, likewise.
fn lowest_in(bottom: u64, top: u64, bytes: u64) -> Option<u64> {
    let below = (bottom, top.min(ENGINE_RESERVE.start));
    let above = (bottom.max(ENGINE_RESERVE.end), top);
    let fits = |(bottom, top): (u64, u64)| bottom.checked_add(bytes).is_some_and(|end| end <= top);
    [below, above].into_iter().find(|range| fits(*range)).map(|(bottom, _)| bottom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::base::limits::Limits;
    use crate::linux::mm::address_space::tests::vma;
    use crate::linux::mm::bounds::{MMAP_BASE, USER_START};

    #[test]
    fn finds_gaps_downwards_and_never_in_the_engines_reserve() {
        let mut space = AddressSpace::new(&Limits::default());
        assert_eq!(space.find_gap(0x1000, USER_START, MMAP_BASE), Some(MMAP_BASE - 0x1000));
        space.insert(vma(MMAP_BASE - 0x2000, MMAP_BASE - 0x1000));
        assert_eq!(space.find_gap(0x1000, USER_START, MMAP_BASE), Some(MMAP_BASE - 0x1000));
        assert_eq!(space.find_gap(0x2000, USER_START, MMAP_BASE), Some(MMAP_BASE - 0x4000));
        let huge = MMAP_BASE - ENGINE_RESERVE.end;
        let below = space.find_gap(huge, USER_START, MMAP_BASE).unwrap();
        assert_eq!(below + huge, ENGINE_RESERVE.start);
        assert_eq!(space.find_gap(USER_END, USER_START, MMAP_BASE), None);
        assert_eq!(space.find_gap(u64::MAX, USER_START, MMAP_BASE), None);
    }
}
