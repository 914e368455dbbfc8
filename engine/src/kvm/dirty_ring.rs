//! The dirty ring (`KVM_CAP_DIRTY_LOG_RING`): the kernel writes each page that becomes dirty into a
//! ring that this process has mapped, so that asking for them takes no ioctl.
//!
//! An entry is taken here once, and keeps its place, its page writable, until all that were taken
//! are given back together: the kernel takes entries back in order only, and protects their pages
//! (`kvm_dirty_ring_reset`, virt/kvm/dirty_ring.c). Never knows which page was seen before.
//!
//! From Linux 6.17 on, that is cut short by a signal, and then the pages of up to 64 entries that
//! the kernel has taken back stay writable: what is written to them later is in no ring. So signals
//! wait meanwhile, and where something else cut it short, the caller is told.

use super::error::KvmError;
use super::mapping::SharedMapping;
use super::raw;
use super::signals;
use super::system::System;
use super::vcpu::VcpuFd;
use super::vm::Vm;
use kvm_bindings as k;
use nix::errno::Errno;
use std::os::fd::AsRawFd;
use std::ptr::{addr_of, addr_of_mut};
use std::sync::atomic::{AtomicU32, Ordering};

/// The most entries of a ring (`KVM_DIRTY_RING_MAX_ENTRIES`, include/linux/kvm_dirty_ring.h).
pub const DIRTY_RING_ENTRIES_MAX: u32 = 65_536;
/// The fewest: a page of them.
pub const DIRTY_RING_ENTRIES_MIN: u32 = (PAGE_BYTES / ENTRY_BYTES) as u32;

const PAGE_BYTES: usize = 4096;
const ENTRY_BYTES: usize = size_of::<k::kvm_dirty_gfn>();
/// `KVM_DIRTY_GFN_F_DIRTY` and `KVM_DIRTY_GFN_F_RESET` (uapi/linux/kvm.h).
const DIRTY: u32 = 1;
const RESET: u32 = 2;
/// Calls in a row that give nothing back, after which the kernel is taken to be at odds with this
/// process. A stop of the process makes one return early, which is over before the next.
const RESETS_IN_VAIN_MAX: u32 = 1_000;

const _: () = assert!(ENTRY_BYTES == 16);

/// A page that the guest has written since it was last protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyPage {
    /// Its memory slot.
    pub slot: u32,
    /// Its index in the slot.
    pub index: u64,
}

/// What became of the pages whose entries were given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum GivenBack {
    /// They are protected.
    Protected,
    /// The kernel was cut short: any of them may still be writable, unseen.
    InDoubt,
}

impl System {
    /// Which capability gives a VM a dirty ring here, if one does. x86 kernels from Linux 5.11 on
    /// have the first, later ones the second too, which differs on other architectures only.
    #[must_use]
    pub fn dirty_ring(&self) -> Option<u32> {
        [k::KVM_CAP_DIRTY_LOG_RING_ACQ_REL, k::KVM_CAP_DIRTY_LOG_RING]
            .into_iter()
            .find(|&capability| self.check_extension(capability) > 0)
    }
}

impl Vm {
    /// Gives the VM's vCPU, which must not exist yet, a dirty ring of at least `entries` entries,
    /// in place of the dirty log; how many it has. `capability` is [`System::dirty_ring`]'s.
    ///
    /// # Errors
    /// The host has no ring, or a vCPU exists.
    pub fn enable_dirty_ring(&self, capability: u32, entries: u32) -> Result<u32, KvmError> {
        let entries = entries.clamp(DIRTY_RING_ENTRIES_MIN, DIRTY_RING_ENTRIES_MAX);
        let mut entries = entries.next_power_of_two();
        loop {
            match self.enable(capability, u64::from(entries) * ENTRY_BYTES as u64) {
                Ok(()) => return Ok(entries),
                // The kernel keeps some back for itself, more where the CPU logs (576 with PML),
                // and refuses a ring that is no larger than that.
                Err(_) if entries < DIRTY_RING_ENTRIES_MAX => entries *= 2,
                Err(error) => return Err(error),
            }
        }
    }
}

impl VcpuFd {
    /// Maps the vCPU's ring of `entries` entries, as [`Vm::enable_dirty_ring`] gave it.
    ///
    /// # Errors
    /// The vCPU has no ring of that size.
    pub fn map_dirty_ring(&self, entries: u32) -> Result<DirtyRing, KvmError> {
        let refused = |source| KvmError::Ioctl { call: "mmap of the dirty ring", source };
        let bytes = entries as usize * ENTRY_BYTES;
        let offset = k::KVM_DIRTY_LOG_PAGE_OFFSET as usize * PAGE_BYTES;
        let ring = SharedMapping::map(self.fd.as_raw_fd(), offset, bytes).map_err(refused)?;
        Ok(DirtyRing { ring, entries, next: 0, held: 0 })
    }
}

/// A vCPU's dirty ring.
#[derive(Debug)]
pub struct DirtyRing {
    ring: SharedMapping<k::kvm_dirty_gfn>,
    /// A power of two.
    entries: u32,
    /// Where the next entry will be, counted without end.
    next: u32,
    /// Entries that were taken and not given back: those before `next`.
    held: u32,
}

// SAFETY: the mapping belongs to `self` and is not tied to a thread.
unsafe impl Send for DirtyRing {}

impl DirtyRing {
    /// How many entries it has.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Takes the next entry, if there is one.
    #[inline]
    pub fn take(&mut self) -> Option<DirtyPage> {
        // All entries are held: the next one is the oldest, once more.
        if self.held >= self.entries {
            return None;
        }
        let entry = self.entry(self.next);
        // Acquire: slot and offset are the ones that were there when the flag was set.
        if self.flags(self.next).load(Ordering::Acquire) & (DIRTY | RESET) != DIRTY {
            return None;
        }
        // SAFETY: inside the mapping; the kernel does not write a dirty entry until it is given
        // back, which takes `&mut self`.
        let (slot, index) =
            unsafe { (addr_of!((*entry).slot).read(), addr_of!((*entry).offset).read()) };
        self.next = self.next.wrapping_add(1);
        self.held += 1;
        // The upper half is the address space: 0 but for SMM, which no guest here has.
        Some(DirtyPage { slot: slot & 0xffff, index })
    }

    /// Gives every entry that was taken back to the kernel, which protects their pages
    /// (`KVM_RESET_DIRTY_RINGS`). `vm` is the VM of the ring's vCPU.
    ///
    /// # Errors
    /// The ioctl failed, or the kernel did not take them all.
    pub fn give_back(&mut self, vm: &Vm) -> Result<GivenBack, KvmError> {
        let refused = |source| KvmError::Ioctl { call: "KVM_RESET_DIRTY_RINGS", source };
        for back in 1..=self.held {
            // Release: what was read of the entry was read before the kernel may write it anew.
            self.flags(self.next.wrapping_sub(back)).store(RESET, Ordering::Release);
        }
        let mut in_vain = 0;
        let mut given = GivenBack::Protected;
        while self.held > 0 {
            // SAFETY: the VM's own descriptor; the call takes no memory of this process.
            let reset = || unsafe { raw::kvm_reset_dirty_rings(vm.fd.as_raw_fd(), 0) };
            let done = match signals::while_blocked(reset).map_err(refused)? {
                Ok(done) => u32::try_from(done).map_err(|_| refused(Errno::EPROTO))?,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(refused(error)),
            };
            if done > self.held {
                return Err(refused(Errno::EPROTO));
            }
            self.held -= done;
            if done > 0 && self.held > 0 {
                given = GivenBack::InDoubt;
            }
            in_vain = if done == 0 { in_vain + 1 } else { 0 };
            if in_vain == RESETS_IN_VAIN_MAX {
                return Err(refused(Errno::EPROTO));
            }
        }
        Ok(given)
    }

    /// The entry with number `number`, counted without end.
    fn entry(&self, number: u32) -> *mut k::kvm_dirty_gfn {
        // SAFETY: the index is less than the number of entries, so inside the mapping.
        unsafe { self.ring.as_ptr().add((number & (self.entries - 1)) as usize) }
    }

    fn flags(&self, number: u32) -> &AtomicU32 {
        // SAFETY: the field lies inside the mapping, aligned, and outlives the reference; both
        // sides access it atomically only.
        unsafe { AtomicU32::from_ptr(addr_of_mut!((*self.entry(number)).flags)) }
    }
}
