//! Coalesced stores (`KVM_REGISTER_COALESCED_MMIO`): the kernel keeps a guest's stores to a zone in
//! a ring, to be read at the next exit, instead of an exit for each.
//!
//! Never empties the ring by itself. A full ring loses nothing: the store that finds it full exits.

use super::error::{KvmError, failed};
use super::eventfd::IoAddress;
use super::vcpu::VcpuFd;
use super::vm::Vm;

/// The most stores that the ring holds before one exits: a page of entries after two words, less
/// the one that keeps a full ring apart from an empty one (`KVM_COALESCED_MMIO_MAX`,
/// uapi/linux/kvm.h).
pub const COALESCED_MAX: usize = (4096 - 8) / 24 - 1;

/// The number that the ring holds on every kernel. Older ones (seen on Linux 6.1, not on 6.18)
/// compute the room modulo the ring's 170 entries in numbers that wrap at 2^32, which is 86 modulo
/// 170: as long as the entries have not wrapped in the page, the ring is full at 85 of them
/// (`coalesced_mmio_has_room`, virt/kvm/coalesced_mmio.c).
pub const COALESCED_MIN: usize = 85;

const _: () = assert!(size_of::<kvm_bindings::kvm_coalesced_mmio>() == 24);

/// A store that did not exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoalescedWrite {
    /// Where it went.
    pub at: IoAddress,
    bytes: u8,
    data: [u8; 8],
}

impl CoalescedWrite {
    /// What was stored, 1 to 8 bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data[..usize::from(self.bytes)]
    }
}

impl Vm {
    /// `KVM_REGISTER_COALESCED_MMIO`: from now on stores to the `bytes` bytes at `at` are kept in
    /// the ring ([`VcpuFd::coalesced_write`]). Ports need `KVM_CAP_COALESCED_PIO` (Linux 4.20).
    ///
    /// # Errors
    /// The kernel refuses the zone.
    pub fn coalesce(&self, at: IoAddress, bytes: u32) -> Result<(), KvmError> {
        let call = "KVM_REGISTER_COALESCED_MMIO";
        self.fd.register_coalesced_mmio(at.to_kvm(), bytes).map_err(failed(call))
    }

    /// `KVM_UNREGISTER_COALESCED_MMIO`: stores to the zone exit again. What the ring holds stays.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn stop_coalescing(&self, at: IoAddress, bytes: u32) -> Result<(), KvmError> {
        let call = "KVM_UNREGISTER_COALESCED_MMIO";
        self.fd.unregister_coalesced_mmio(at.to_kvm(), bytes).map_err(failed(call))
    }
}

impl VcpuFd {
    /// Takes the oldest store out of the VM's ring; `None` when it is empty. To be called until
    /// then after an exit and before it is answered, because these stores came before it.
    ///
    /// # Errors
    /// The ring could not be mapped: the host lacks `KVM_CAP_COALESCED_MMIO`.
    pub fn coalesced_write(&mut self) -> Result<Option<CoalescedWrite>, KvmError> {
        // Maps it the first time, and does nothing from then on.
        self.fd.map_coalesced_mmio_ring().map_err(failed("mmap of the coalesced ring"))?;
        let entry = self.fd.coalesced_mmio_read().map_err(failed("the coalesced ring"))?;
        Ok(entry.map(|entry| {
            // SAFETY: both members are a plain word, and the kernel zeroes or sets it.
            let is_port = unsafe { entry.__bindgen_anon_1.pio } != 0;
            CoalescedWrite {
                at: if is_port {
                    IoAddress::Port(entry.phys_addr as u16)
                } else {
                    IoAddress::Memory(entry.phys_addr)
                },
                bytes: entry.len.min(8) as u8,
                data: entry.data,
            }
        }))
    }
}
