//! What can go wrong with a guest's memory on the host's side.

use crate::address::Gpa;
use crate::kvm::KvmError;

/// What can go wrong with guest memory on the host's side.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A layout that no VM can have.
    #[error("memory slot at {start} of {bytes} bytes: {problem}")]
    Layout {
        /// First address.
        start: Gpa,
        /// Length.
        bytes: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The host could not map the memory.
    #[error("map {bytes} bytes of guest memory")]
    Map {
        /// Length.
        bytes: u64,
        /// Why.
        source: std::io::Error,
    },
    /// The memory could not be put together.
    #[error("arrange guest memory")]
    Arrange(#[from] vm_memory::mmap::FromRangesError),
    /// A page is not where the rewind expects it.
    #[error("page {index} of memory slot {slot} cannot be put back: {problem}")]
    HotPage {
        /// Slot number.
        slot: usize,
        /// Index of the page in the slot.
        index: u32,
        /// What is wrong.
        problem: &'static str,
    },
    /// A KVM call failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// An access outside of the guest's RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes at guest-physical {at} are not all RAM")]
pub struct OutOfRam {
    /// First address of the access.
    pub at: Gpa,
    /// Its length.
    pub bytes: usize,
}
