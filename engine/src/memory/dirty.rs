//! Which pages the guest wrote: by KVM's dirty log, or by a dirty ring.
//!
//! Of a ring, a page can have more than one entry: KVM adds one whenever it makes a page writable,
//! and it forgets that a page is when the host moves it, or when it is short of page tables. Never
//! decides when pages are protected again.

use super::guest::{GuestMemory, Slot};
use super::ring::RingLog;
use crate::kvm::{DirtyBitmap, DirtyPage, DirtyRing, GivenBack, KvmError, Vm};

/// By the log.
impl GuestMemory {
    /// Starts logging the guest's writes in the slots that asked for it, every page protected.
    /// The VM must have manual protection enabled, or a dirty ring.
    ///
    /// # Errors
    /// KVM refused.
    pub fn start_dirty_log(&mut self) -> Result<(), KvmError> {
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.spec.log_dirty && !slot.logged {
                slot.log_writes(&self.vm, number, true)?;
                slot.logged = true;
            }
        }
        Ok(())
    }

    /// `KVM_GET_DIRTY_LOG` of a slot. Under manual protection a bit stays set, and its page
    /// writable, until [`protect_again`](Self::protect_again).
    ///
    /// # Errors
    /// The slot is not logged, or the VM has a dirty ring instead (ENXIO).
    pub fn dirty_log(&mut self, slot: usize) -> Result<&DirtyBitmap, KvmError> {
        let Slot { spec, log, .. } = &mut self.slots[slot];
        self.vm.get_dirty_log(slot as u32, spec.pages(), log)?;
        Ok(log)
    }

    /// Clears the dirty bits in word `word` of `slot` that are set in `bits` and write-protects
    /// their pages (`KVM_CLEAR_DIRTY_LOG`).
    ///
    /// # Errors
    /// KVM refused.
    pub fn protect_again(&mut self, slot: usize, word: usize, bits: u64) -> Result<(), KvmError> {
        let first = word * 64;
        let pages = self.slots[slot].spec.pages().saturating_sub(first).min(64);
        self.vm.clear_dirty_log(slot as u32, first as u64, pages as u32, &mut [bits])
    }
}

/// By the ring.
impl GuestMemory {
    /// Takes the guest's writes from `ring`, which is the ring of the VM's vCPU, from now on.
    pub fn use_dirty_ring(&mut self, ring: DirtyRing) {
        self.ring = Some(RingLog { ring, full: 0 });
    }

    /// How many entries the dirty ring has, if the guest's writes come from one.
    #[must_use]
    pub fn dirty_ring_entries(&self) -> Option<u32> {
        self.ring.as_ref().map(|log| log.ring.entries())
    }

    /// Takes the new entries out of the dirty ring, where there is one; their pages stay writable.
    ///
    /// # Errors
    /// An entry is of a page that is in no slot.
    #[inline]
    pub fn harvest(&mut self) -> Result<(), KvmError> {
        let Self { slots, ring: Some(RingLog { ring, .. }), .. } = self else { return Ok(()) };
        while let Some(DirtyPage { slot, index }) = ring.take() {
            let (word, bit) = ((index / 64) as usize, 1 << (index % 64));
            let found = slots.get_mut(slot as usize);
            let Some(Slot { log, dirty, .. }) = found.filter(|slot| slot.has(index)) else {
                return Err(KvmError::DirtyPage { slot, index });
            };
            if log.words[word] & bit == 0 {
                log.words[word] |= bit;
                dirty.push(index as u32);
            }
        }
        Ok(())
    }

    /// The pages of slot `slot` that were dirty at a harvest since
    /// [`forget_dirty_pages`](Self::forget_dirty_pages), in the order in which they became so.
    #[must_use]
    #[inline]
    pub fn dirty_pages(&self, slot: usize) -> &[u32] {
        &self.slots[slot].dirty
    }

    /// Makes room in a ring that was full in the middle of a run. The pages stay dirty, and are
    /// protected: the guest's next write to each takes an entry again.
    ///
    /// # Errors
    /// KVM refused to take the entries back, or named a page that is in no slot.
    pub fn drain_dirty_ring(&mut self) -> Result<(), KvmError> {
        self.harvest()?;
        if let Some(log) = &mut self.ring {
            log.full += 1;
        }
        self.give_entries_back()
    }

    /// How often the ring was full since the last call.
    pub fn take_ring_full(&mut self) -> u64 {
        self.ring.as_mut().map_or(0, |log| std::mem::take(&mut log.full))
    }

    /// Protects every page that is dirty, and forgets that it was. For a moment at which all of
    /// them have been put back.
    ///
    /// # Errors
    /// KVM refused to take the entries back.
    pub fn forget_dirty_pages(&mut self) -> Result<(), KvmError> {
        self.give_entries_back()?;
        for slot in &mut self.slots {
            for index in slot.dirty.drain(..) {
                slot.log.words[index as usize / 64] = 0;
            }
        }
        Ok(())
    }

    fn give_entries_back(&mut self) -> Result<(), KvmError> {
        let Some(log) = &mut self.ring else { return Ok(()) };
        match log.ring.give_back(&self.vm)? {
            GivenBack::Protected => Ok(()),
            GivenBack::InDoubt => self.protect_everything(),
        }
    }

    /// Has KVM begin to log anew, which protects every page of the slots that are logged. It takes
    /// milliseconds.
    fn protect_everything(&mut self) -> Result<(), KvmError> {
        for (number, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.logged) {
            slot.log_writes(&self.vm, number, false)?;
            slot.log_writes(&self.vm, number, true)?;
        }
        Ok(())
    }
}

impl Slot {
    /// Has KVM log the guest's writes to this slot of `vm`, its number `number`, or no longer.
    fn log_writes(&self, vm: &Vm, number: usize, is_logged: bool) -> Result<(), KvmError> {
        let (at, bytes) = (self.spec.start.0, self.spec.bytes);
        // SAFETY: the same mapping as in `GuestMemory::new`; only the flags change.
        unsafe { vm.set_memory_region(number as u32, at, self.host, bytes, is_logged) }
    }
}
