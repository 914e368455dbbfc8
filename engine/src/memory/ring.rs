//! A dirty ring, and what became of it. Never takes an entry out.

use crate::kvm::DirtyRing;

/// A ring, and what became of it.
#[derive(Debug)]
pub(super) struct RingLog {
    pub(super) ring: DirtyRing,
    /// Times that it was full since somebody asked.
    pub(super) full: u64,
}
