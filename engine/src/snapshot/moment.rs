//! A moment of a VM as a value. Never changes.

use super::cpu::CpuNeeds;
use crate::memory::{PageFile, SlotSpec};
use crate::state::CpuState;

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
