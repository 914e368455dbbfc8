//! The list as a snapshot file has it, which nobody vouches for: what it must be like to be taken.
//!
//! Never mends a list: one that no process can have is refused.

use crate::address::PAGE_SIZE;
use crate::linux::mm::bounds::{USER_END, in_user};
use crate::linux::mm::vma::{Backing, Vma, VmaFlags};
use serde::Deserialize;

const PAGE: u64 = PAGE_SIZE as u64;

/// An [`AddressSpace`](super::AddressSpace) before it is checked.
#[derive(Deserialize)]
pub(crate) struct StoredAddressSpace {
    pub(super) vmas: Vec<Vma>,
    pub(super) vmas_max: usize,
    pub(super) commit_bytes_max: u64,
    pub(super) break_start: u64,
    pub(super) break_end: u64,
    pub(super) lock_future: VmaFlags,
    pub(super) barriers: u64,
    pub(super) objects: u64,
    pub(super) shows_files: bool,
}

/// A stored address space that no process can have.
#[derive(Debug, thiserror::Error)]
#[error("read stored address space: {0}")]
pub(crate) struct StoredAddressSpaceError(&'static str);

impl StoredAddressSpace {
    /// Checks everything that the address space's methods rely on.
    pub(super) fn check(&self) -> Result<(), StoredAddressSpaceError> {
        check_vmas(&self.vmas)?;
        if self.break_end < self.break_start || self.break_end > USER_END {
            return Err(StoredAddressSpaceError("the program break is outside of user space"));
        }
        Ok(())
    }
}

/// Whether VMAs are whole pages, sorted, disjoint and the process's to have.
fn check_vmas(vmas: &[Vma]) -> Result<(), StoredAddressSpaceError> {
    let mut last_end = 0;
    for vma in vmas {
        let offset = match (vma.backing, vma.object) {
            (Backing::File { offset, .. }, _) => offset,
            (_, Some(object)) => object.offset,
            _ => 0,
        };
        if ![vma.start, vma.end, offset].into_iter().all(|at| at.is_multiple_of(PAGE)) {
            return Err(StoredAddressSpaceError("a mapping is not aligned to pages"));
        }
        if vma.start < last_end || vma.end <= vma.start || !in_user(vma.start, vma.end) {
            return Err(StoredAddressSpaceError(
                "mappings are out of order or outside of user space",
            ));
        }
        last_end = vma.end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::mm::address_space::AddressSpace;
    use crate::linux::mm::address_space::tests::vma;
    use crate::linux::mm::bounds::ENGINE_RESERVE;

    #[test]
    fn refuses_stored_spaces_that_no_process_can_have() {
        let stored = |vmas| StoredAddressSpace {
            vmas,
            vmas_max: 9,
            commit_bytes_max: 0,
            break_start: 0,
            break_end: 0,
            lock_future: VmaFlags::empty(),
            barriers: 0,
            objects: 0,
            shows_files: false,
        };
        assert!(AddressSpace::try_from(stored(vec![vma(0x10000, 0x12000)])).is_ok());
        for vmas in [
            vec![vma(0x10001, 0x12000)],
            vec![vma(0x12000, 0x10000)],
            vec![vma(0x10000, 0x12000), vma(0x11000, 0x13000)],
            vec![vma(0x10000, u64::MAX - 0xfff)],
            vec![vma(ENGINE_RESERVE.start, ENGINE_RESERVE.start + 0x1000)],
        ] {
            assert!(AddressSpace::try_from(stored(vmas)).is_err());
        }
    }
}
