//! The hot path: puts memory back to a snapshot by copying the pages that were written.
//!
//! Guest writes come from KVM, which protects every page when logging starts. A page that was
//! written is copied by every rewind from then on (it is *hot*) and stays writable, so that a page
//! that is written run after run costs one fault in all, and one copy per rewind. Pages that stop
//! changing are found by comparing them from time to time. The writes come from one of:
//!
//! - KVM's dirty log under manual protection, where a bit, once set, stays set and its page
//!   writable. Pages that cooled are protected again one by one.
//! - A dirty ring, whose entries are taken and kept. They can only be given back all together,
//!   which protects every page: this is done when the pages that cooled have cost more copies than
//!   the others will cost faults.
//!
//! Host writes come from the marks in `memory`.
//!
//! Does not allocate once the hot set has settled, does not lock and does not log. Never restores
//! registers: that is the guest kind's part.

mod error;
mod hot;
mod patches;

pub(crate) use error::RewindError;
pub(crate) use patches::Patches;

use crate::address::Pfn;
use crate::kvm::KvmError;
use crate::memory::{GuestMemory, HotPage, PageFile};
use hot::HotSlot;
use serde::Serialize;

/// The hot pages are compared, before they are copied, once in this many rewinds. As many copies of
/// a page take about as long as one fault on a nested host (docs/hosts.md).
const AUDIT_EVERY: u64 = 128;

/// What one rewind did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rewound {
    /// Pages copied because the guest writes them.
    pub pages_hot: u64,
    /// Pages that became hot with this rewind.
    pub pages_new: u64,
    /// Pages copied because the host wrote them.
    pub pages_host: u64,
    /// Times that the dirty ring was full since the rewind before.
    pub ring_full: u64,
}

/// Where the pages that the guest has written are known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteSource {
    Log,
    Ring {
        /// Pages that audits found cold, counted at each audit since the ring was last empty.
        copied_cold: u64,
    },
}

/// Puts a machine's memory back by copying.
#[derive(Debug)]
pub(crate) struct HostRewind {
    slots: Vec<HotSlot>,
    source: WriteSource,
    /// Pages that the host wrote; kept for its capacity.
    host: Vec<HotPage>,
    rewinds: u64,
}

impl HostRewind {
    /// Starts logging the guest's writes; what memory holds now is what `pages` holds.
    ///
    /// # Errors
    /// KVM refused to log.
    pub(crate) fn start(memory: &mut GuestMemory) -> Result<Self, KvmError> {
        memory.start_dirty_log()?;
        memory.clear_touched();
        let logged = memory.layout().enumerate().filter(|(_, spec)| spec.log_dirty);
        let slots = logged.map(|(slot, spec)| HotSlot::new(slot, &spec)).collect();
        let has_ring = memory.dirty_ring_entries().is_some();
        let source = if has_ring { WriteSource::Ring { copied_cold: 0 } } else { WriteSource::Log };
        Ok(Self { slots, source, host: Vec::new(), rewinds: 0 })
    }

    /// Puts every page back.
    ///
    /// # Errors
    /// KVM refused the log, or to take the ring's entries back; or a page is not where it is to be
    /// put back.
    pub(crate) fn rewind(
        &mut self,
        memory: &mut GuestMemory,
        pristine: &PageFile,
        patches: &Patches,
    ) -> Result<Rewound, RewindError> {
        let mut done = Rewound::default();
        self.rewinds += 1;
        let audit = self.rewinds.is_multiple_of(AUDIT_EVERY);
        memory.harvest()?;
        for hot in &mut self.slots {
            done.pages_new += match self.source {
                WriteSource::Log => hot.promote_logged(memory, pristine)?,
                WriteSource::Ring { .. } => hot.promote_told(memory, pristine)?,
            };
            if audit {
                hot.audit(memory, pristine);
            }
            memory.restore_pages(hot.slot(), hot.pages(), pristine)?;
            if audit && self.source == WriteSource::Log {
                hot.demote(memory)?;
            }
            done.pages_hot += hot.pages().len() as u64;
            if !patches.is_empty() {
                hot.reapply(patches, memory).map_err(RewindError::Patch)?;
            }
        }
        done.ring_full = memory.take_ring_full();
        self.cool_ring(memory, audit, done.ring_full > 0)?;
        done.pages_host = self.restore_host_writes(memory, pristine, patches)?;
        Ok(done)
    }

    /// Starts a new hot set, where a ring names the writes, if that is cheaper. All hot pages
    /// hold the snapshot's bytes: this is called after the copy.
    ///
    /// A page that is cold at an audit was copied for nothing since the one before, which costs
    /// about a fault. So what is wasted on cold pages is at most what the faults of the others cost.
    fn cool_ring(
        &mut self,
        memory: &mut GuestMemory,
        audit: bool,
        was_full: bool,
    ) -> Result<(), KvmError> {
        let WriteSource::Ring { copied_cold } = &mut self.source else { return Ok(()) };
        let mut wasted = false;
        if audit {
            let cold: u64 = self.slots.iter().map(|hot| hot.cold() as u64).sum();
            let hot: u64 = self.slots.iter().map(|hot| hot.pages().len() as u64).sum();
            *copied_cold += cold;
            wasted = cold > 0 && *copied_cold >= hot - cold;
        }
        // After a run that filled the ring most pages are protected anyway.
        if wasted || was_full {
            *copied_cold = 0;
            memory.forget_dirty_pages()?;
            self.slots.iter_mut().for_each(HotSlot::clear);
        }
        Ok(())
    }

    /// Puts back the pages that the host wrote, and forgets that it did; their number.
    ///
    /// # Errors
    /// A page is not where it is to be put back.
    pub(crate) fn restore_host_writes(
        &mut self,
        memory: &mut GuestMemory,
        pristine: &PageFile,
        patches: &Patches,
    ) -> Result<u64, RewindError> {
        let mut total = 0;
        for slot in 0..memory.slots() {
            let first = memory.first_page(slot);
            self.host.clear();
            self.host.extend(memory.touched(slot).iter().map(|&index| HotPage {
                index,
                source: pristine.offset_of(Pfn(first.0 + u64::from(index))),
            }));
            memory.restore_pages(slot, &self.host, pristine)?;
            for page in &self.host {
                let pfn = Pfn(first.0 + u64::from(page.index));
                patches.apply(pfn, memory).map_err(RewindError::Patch)?;
            }
            total += self.host.len() as u64;
        }
        memory.clear_touched();
        Ok(total)
    }
}
