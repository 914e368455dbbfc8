//! What can go wrong while memory is put back.

use crate::kvm::KvmError;
use crate::memory::{MemoryError, OutOfRam};

/// Why a rewind did not finish.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// KVM refused the log, or to take the ring's entries back.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A page is not where it is to be put back.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A breakpoint could not be put back into a page that was just restored.
    #[error("put a breakpoint back into a restored page")]
    Patch(#[source] OutOfRam),
    /// More pages are hot than the dirty ring has named.
    #[error("more pages of memory slot {slot} are hot than the dirty ring named")]
    HotSet {
        /// Slot number.
        slot: usize,
    },
}
