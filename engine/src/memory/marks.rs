//! Which pages the host wrote. Never knows of the guest's own writes.

use super::error::OutOfRam;
use super::guest::GuestMemory;
use crate::address::{Gpa, PAGE_SIZE};

impl GuestMemory {
    /// Marks the pages of a range that something else than [`write`](Self::write) has written: the
    /// CPU, in a slot without dirty log.
    ///
    /// # Errors
    /// The range is not all RAM of one slot.
    pub fn mark(&mut self, at: Gpa, bytes: usize) -> Result<(), OutOfRam> {
        self.touch(at, bytes)
    }

    pub(super) fn touch(&mut self, at: Gpa, bytes: usize) -> Result<(), OutOfRam> {
        let (slot, offset) = self.locate(at, bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        let slot = &mut self.slots[slot];
        for index in offset / PAGE_SIZE..=(offset + bytes - 1) / PAGE_SIZE {
            let (word, bit) = (index / 64, 1 << (index % 64));
            if slot.touched[word] & bit == 0 {
                slot.touched[word] |= bit;
                slot.touched_list.push(index as u32);
            }
        }
        Ok(())
    }

    /// The pages of slot `slot` that the host wrote since the marks were cleared.
    #[must_use]
    pub fn touched(&self, slot: usize) -> &[u32] {
        &self.slots[slot].touched_list
    }

    /// Forgets which pages the host wrote.
    pub fn clear_touched(&mut self) {
        for slot in &mut self.slots {
            for index in slot.touched_list.drain(..) {
                slot.touched[index as usize / 64] = 0;
            }
        }
    }
}
