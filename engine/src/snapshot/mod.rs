//! An immutable moment of a VM: pages and state, shared by every machine that rewinds to it.
//!
//! Never touches a vCPU: capturing is the machine's work, going back is `rewind`'s. [`mod@file`] is
//! the format on disk, and does not know what the state means.

mod cpu;
pub mod file;

pub use crate::stored::{Blob, HasBlobs};
pub use cpu::CpuNeeds;
pub use file::{FileError, Info};

use crate::memory::{PageFile, SlotSpec};
use crate::state::CpuState;

/// What is wrong with state that was read from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsound(pub &'static str);

/// A guest kind's state, as a file holds it that nobody vouches for.
pub trait Stored: HasBlobs {
    /// Checks everything that later code relies on and that decoding cannot see: what is used as
    /// a bound, as an index or as an address, in a machine whose memory is `layout`.
    ///
    /// # Errors
    /// Says what no guest can have.
    fn check(&self, layout: &[SlotSpec]) -> Result<(), Unsound>;
}

/// State without anything to check.
impl Stored for () {
    fn check(&self, _layout: &[SlotSpec]) -> Result<(), Unsound> {
        Ok(())
    }
}

/// A moment. `G` is what the guest kind keeps on the host's side.
#[derive(Debug)]
pub struct Snapshot<G> {
    /// The memory slots.
    pub layout: Vec<SlotSpec>,
    /// What it needs of a host's CPU.
    pub needs: CpuNeeds,
    /// Everything that is neither memory nor the guest kind's own.
    pub state: CpuState,
    /// The guest kind's own.
    pub guest: G,
    /// The contents of memory.
    pub pages: PageFile,
}

impl<G> Snapshot<G> {
    /// RAM in bytes, as the guest sees it.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        self.layout.iter().map(|slot| slot.bytes).sum()
    }
}
