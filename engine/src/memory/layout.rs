//! Memory slots: where the guest sees them, and which a VM can have. Never maps one.

use super::error::MemoryError;
use crate::address::{Gpa, PAGE_SIZE};
use serde::{Deserialize, Serialize};

/// The most RAM that one slot may have, in bytes: 1 TiB.
pub const SLOT_BYTES_MAX: u64 = 1 << 40;

/// One memory slot: where the guest sees it and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSpec {
    /// First guest-physical address; page-aligned.
    pub start: Gpa,
    /// Length in bytes; whole pages.
    pub bytes: u64,
    /// Whether the guest's writes are logged once a snapshot exists. A slot without a log must
    /// only be written by the host, or be restored by whoever owns it.
    pub log_dirty: bool,
}

impl SlotSpec {
    /// Length in pages.
    #[must_use]
    pub fn pages(&self) -> usize {
        (self.bytes as usize) / PAGE_SIZE
    }
}

/// Whether a VM can have such memory.
pub(crate) fn check_layout(layout: &[SlotSpec]) -> Result<(), MemoryError> {
    let page = PAGE_SIZE as u64;
    let mut end_before = 0;
    for spec in layout {
        let refuse =
            |problem| Err(MemoryError::Layout { start: spec.start, bytes: spec.bytes, problem });
        if spec.bytes == 0 || spec.bytes % page != 0 || spec.start.0 % page != 0 {
            return refuse("not whole pages");
        }
        if spec.bytes > SLOT_BYTES_MAX {
            return refuse("more than 1 TiB");
        }
        if spec.start.0 < end_before {
            return refuse("overlaps the slot before it, or is out of order");
        }
        let Some(end) = spec.start.checked_add(spec.bytes) else {
            return refuse("ends past 2^64");
        };
        end_before = end.0;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(start: u64, bytes: u64) -> SlotSpec {
        SlotSpec { start: Gpa(start), bytes, log_dirty: false }
    }

    #[test]
    fn refuses_layouts_that_no_vm_can_have() {
        for bad in [
            vec![slot(0, 0)],
            vec![slot(1, 4096)],
            vec![slot(0, 4097)],
            vec![slot(0, 8192), slot(4096, 4096)],
            vec![slot(u64::MAX - 4095, 8192)],
            vec![slot(0, SLOT_BYTES_MAX + 4096)],
        ] {
            assert!(check_layout(&bad).is_err(), "{bad:?}");
        }
        assert!(check_layout(&[slot(0, 4096), slot(4096, 4096)]).is_ok());
    }
}
