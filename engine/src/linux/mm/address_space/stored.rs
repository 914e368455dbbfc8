//! The list as a snapshot file has it, which nobody vouches for: what it must be like to be taken.
//!
//! Never mends a list: one that no process can have is refused.

use crate::address::PAGE_SIZE;
use crate::linux::base::limits::Limits;
use crate::linux::base::limits::Refused;
use crate::linux::mm::address_space::Space;
use crate::linux::mm::bounds::{USER_END, in_user};
use crate::linux::mm::vma::{Area, AreaFlags, Backing};
use serde::Deserialize;

const PAGE: u64 = PAGE_SIZE as u64;

/// A [`Space`] before it is checked.
#[derive(Deserialize)]
pub(crate) struct StoredSpace {
    areas: Vec<Area>,
    areas_max: usize,
    commit_bytes_max: u64,
    break_start: u64,
    break_end: u64,
    lock_future: AreaFlags,
    barriers: u64,
    objects: u64,
    shows_files: bool,
}

/// A stored address space that no process can have.
#[derive(Debug, thiserror::Error)]
#[error("read stored address space: {0}")]
pub(crate) struct StoredSpaceError(&'static str);

impl TryFrom<StoredSpace> for Space {
    type Error = StoredSpaceError;

    fn try_from(stored: StoredSpace) -> Result<Self, StoredSpaceError> {
        let StoredSpace {
            areas,
            areas_max,
            commit_bytes_max,
            break_start,
            break_end,
            lock_future,
            barriers,
            objects,
            shows_files,
        } = stored;
        check_areas(&areas)?;
        if break_end < break_start || break_end > USER_END {
            return Err(StoredSpaceError("the program break is outside of user space"));
        }
        Ok(Self {
            areas,
            areas_max,
            commit_bytes_max,
            break_start,
            break_end,
            lock_future,
            barriers,
            objects,
            shows_files,
        })
    }
}

/// Whether areas are whole pages, sorted, disjoint and the process's to have.
fn check_areas(areas: &[Area]) -> Result<(), StoredSpaceError> {
    let mut last_end = 0;
    for area in areas {
        let offset = match (area.backing, area.object) {
            (Backing::File { offset, .. }, _) => offset,
            (_, Some(object)) => object.offset,
            _ => 0,
        };
        if ![area.start, area.end, offset].into_iter().all(|at| at.is_multiple_of(PAGE)) {
            return Err(StoredSpaceError("a mapping is not aligned to pages"));
        }
        if area.start < last_end || area.end <= area.start || !in_user(area.start, area.end) {
            return Err(StoredSpaceError("mappings are out of order or outside of user space"));
        }
        last_end = area.end;
    }
    Ok(())
}

impl Space {
    /// Checks a list that was read from a snapshot, beyond what decoding it has checked.
    pub(crate) fn check_stored(&self, limits: &Limits) -> Result<(), Refused> {
        match self.areas_max <= limits.mappings
            && self.areas.len() <= self.areas_max
            && self.commit_bytes_max <= limits.commit_bytes
        {
            true => Ok(()),
            false => Err("more mappings, or memory in them, than a program may have"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::mm::address_space::tests::area;
    use crate::linux::mm::bounds::ENGINE_RESERVE;

    #[test]
    fn refuses_stored_spaces_that_no_process_can_have() {
        let stored = |areas| StoredSpace {
            areas,
            areas_max: 9,
            commit_bytes_max: 0,
            break_start: 0,
            break_end: 0,
            lock_future: AreaFlags::empty(),
            barriers: 0,
            objects: 0,
            shows_files: false,
        };
        assert!(Space::try_from(stored(vec![area(0x10000, 0x12000)])).is_ok());
        for areas in [
            vec![area(0x10001, 0x12000)],
            vec![area(0x12000, 0x10000)],
            vec![area(0x10000, 0x12000), area(0x11000, 0x13000)],
            vec![area(0x10000, u64::MAX - 0xfff)],
            vec![area(ENGINE_RESERVE.start, ENGINE_RESERVE.start + 0x1000)],
        ] {
            assert!(Space::try_from(stored(areas)).is_err());
        }
    }
}
