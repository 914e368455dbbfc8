//! The VM descriptor.

use super::error::{KvmError, failed};
use super::raw;
use super::vcpu::VcpuFd;
use kvm_bindings as k;
use kvm_ioctls::VmFd;
use nix::errno::Errno;
use std::os::fd::AsRawFd;

/// A VM: its memory slots, its interrupt controllers, its vCPUs.
#[derive(Debug)]
pub struct Vm {
    pub(super) fd: VmFd,
}

/// One slot's dirty bits, as `KVM_GET_DIRTY_LOG` writes them: bit n of word n/64 is page n.
#[derive(Clone, Debug, Default)]
pub struct DirtyBitmap {
    /// The words; as long as the slot's pages need.
    pub words: Vec<u64>,
}

impl DirtyBitmap {
    /// A clear bitmap for `pages` pages.
    #[must_use]
    pub fn for_pages(pages: usize) -> Self {
        Self { words: vec![0; pages.div_ceil(64)] }
    }
}

impl Vm {
    pub(super) fn new(fd: VmFd) -> Self {
        Self { fd }
    }

    /// `KVM_CREATE_VCPU` number 0, with its run page mapped.
    ///
    /// # Errors
    /// The ioctl or the mapping failed.
    pub fn create_vcpu(&self) -> Result<VcpuFd, KvmError> {
        let fd = self.fd.create_vcpu(0).map_err(failed("KVM_CREATE_VCPU"))?;
        VcpuFd::new(fd, self.fd.run_size())
    }

    /// `KVM_SET_USER_MEMORY_REGION`: shows `bytes` bytes of this process at `host` to the guest
    /// at `at`; `bytes` = 0 deletes the slot.
    ///
    /// # Errors
    /// The kernel refused the slot.
    ///
    /// # Safety
    /// `host..host + bytes` must be mapped memory that Rust holds no references into, and must
    /// stay mapped until the slot is deleted or the VM is closed.
    pub unsafe fn set_memory_region(
        &self,
        slot: u32,
        at: u64,
        host: *mut u8,
        bytes: u64,
        log_dirty: bool,
    ) -> Result<(), KvmError> {
        let region = k::kvm_userspace_memory_region {
            slot,
            flags: if log_dirty { k::KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
            guest_phys_addr: at,
            memory_size: bytes,
            userspace_addr: host as u64,
        };
        // SAFETY: the caller's promise is exactly what the call needs.
        unsafe { self.fd.set_user_memory_region(region) }.map_err(|error| KvmError::MemoryRegion {
            slot,
            at,
            bytes,
            source: Errno::from_raw(error.errno()),
        })
    }

    /// `KVM_GET_DIRTY_LOG` of one slot into `bitmap`, which must be as long as the slot.
    ///
    /// # Errors
    /// The slot is not logged, or the bitmap is shorter than the slot (EINVAL).
    pub fn get_dirty_log(
        &self,
        slot: u32,
        pages: usize,
        bitmap: &mut DirtyBitmap,
    ) -> Result<(), KvmError> {
        let refused = |source| KvmError::Ioctl { call: "KVM_GET_DIRTY_LOG", source };
        if bitmap.words.len() < pages.div_ceil(64) {
            return Err(refused(Errno::EINVAL));
        }
        let request = k::kvm_dirty_log {
            slot,
            padding1: 0,
            __bindgen_anon_1: k::kvm_dirty_log__bindgen_ty_1 {
                dirty_bitmap: bitmap.words.as_mut_ptr().cast(),
            },
        };
        // SAFETY: the kernel writes one bit per page of the slot, rounded up to 64 bits, and the
        // caller's `pages` is the slot's own size: `memory` is the only caller and made the slot.
        unsafe { raw::kvm_get_dirty_log(self.fd.as_raw_fd(), &raw const request) }
            .map(drop)
            .map_err(refused)
    }

    /// `KVM_CLEAR_DIRTY_LOG`: clears the bits that are set in `words` and write-protects their
    /// pages again. `first_page` must be a multiple of 64; so must `pages`, unless it reaches the
    /// end of the slot.
    ///
    /// # Errors
    /// The range is not in the slot, or manual protection is off.
    pub fn clear_dirty_log(
        &self,
        slot: u32,
        first_page: u64,
        pages: u32,
        words: &mut [u64],
    ) -> Result<(), KvmError> {
        let refused = |source| KvmError::Ioctl { call: "KVM_CLEAR_DIRTY_LOG", source };
        if words.len() < (pages as usize).div_ceil(64) {
            return Err(refused(Errno::EINVAL));
        }
        let mut request = k::kvm_clear_dirty_log {
            slot,
            num_pages: pages,
            first_page,
            __bindgen_anon_1: k::kvm_clear_dirty_log__bindgen_ty_1 {
                dirty_bitmap: words.as_mut_ptr().cast(),
            },
        };
        // SAFETY: the kernel reads one bit per page, and the slice was checked to hold them.
        unsafe { raw::kvm_clear_dirty_log_range(self.fd.as_raw_fd(), &raw mut request) }
            .map(drop)
            .map_err(refused)
    }

    /// `KVM_ENABLE_CAP` on the VM.
    ///
    /// # Errors
    /// The kernel refused the capability or its arguments.
    pub fn enable(&self, capability: u32, argument: u64) -> Result<(), KvmError> {
        let mut request = k::kvm_enable_cap { cap: capability, ..Default::default() };
        request.args[0] = argument;
        self.fd.enable_cap(&request).map_err(failed("KVM_ENABLE_CAP"))
    }

    /// `KVM_SET_TSS_ADDR`: three pages below 4 GiB that Intel hosts without unrestricted guest
    /// mode need for real mode.
    ///
    /// # Errors
    /// The kernel refused the address.
    pub fn set_tss_address(&self, at: u32) -> Result<(), KvmError> {
        self.fd.set_tss_address(at as usize).map_err(failed("KVM_SET_TSS_ADDR"))
    }

    /// `KVM_SET_IDENTITY_MAP_ADDR`: one page, for the same hosts; before any vCPU exists.
    ///
    /// # Errors
    /// The kernel refused the address, or a vCPU exists.
    pub fn set_identity_map_address(&self, at: u64) -> Result<(), KvmError> {
        self.fd.set_identity_map_address(at).map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))
    }

    /// `KVM_CREATE_IRQCHIP`: PICs, IOAPIC and a local APIC in the kernel; before any vCPU exists.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn create_irqchip(&self) -> Result<(), KvmError> {
        self.fd.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP"))
    }

    /// `KVM_CREATE_PIT2`: the 8254 timer in the kernel; needs the irqchip.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn create_pit(&self) -> Result<(), KvmError> {
        let config = k::kvm_pit_config { flags: k::KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        self.fd.create_pit2(config).map_err(failed("KVM_CREATE_PIT2"))
    }

    /// `KVM_IRQ_LINE`.
    ///
    /// # Errors
    /// There is no irqchip, or no such line.
    pub fn set_irq_line(&self, line: u32, active: bool) -> Result<(), KvmError> {
        self.fd.set_irq_line(line, active).map_err(failed("KVM_IRQ_LINE"))
    }

    /// `KVM_GET_IRQCHIP` of chip 0 (master PIC), 1 (slave PIC) or 2 (IOAPIC).
    ///
    /// # Errors
    /// There is no irqchip.
    pub fn irqchip(&self, chip: u32) -> Result<k::kvm_irqchip, KvmError> {
        let mut state = k::kvm_irqchip { chip_id: chip, ..Default::default() };
        self.fd.get_irqchip(&mut state).map_err(failed("KVM_GET_IRQCHIP"))?;
        Ok(state)
    }

    /// `KVM_SET_IRQCHIP`.
    ///
    /// # Errors
    /// There is no irqchip.
    pub fn set_irqchip(&self, state: &k::kvm_irqchip) -> Result<(), KvmError> {
        self.fd.set_irqchip(state).map_err(failed("KVM_SET_IRQCHIP"))
    }

    /// `KVM_GET_PIT2`.
    ///
    /// # Errors
    /// There is no PIT.
    pub fn pit(&self) -> Result<k::kvm_pit_state2, KvmError> {
        self.fd.get_pit2().map_err(failed("KVM_GET_PIT2"))
    }

    /// `KVM_SET_PIT2`.
    ///
    /// # Errors
    /// There is no PIT.
    pub fn set_pit(&self, state: &k::kvm_pit_state2) -> Result<(), KvmError> {
        self.fd.set_pit2(state).map_err(failed("KVM_SET_PIT2"))
    }

    /// `KVM_GET_CLOCK`: kvmclock, in nanoseconds.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn clock(&self) -> Result<k::kvm_clock_data, KvmError> {
        self.fd.get_clock().map_err(failed("KVM_GET_CLOCK"))
    }

    /// `KVM_SET_CLOCK`.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn set_clock(&self, clock: &k::kvm_clock_data) -> Result<(), KvmError> {
        self.fd.set_clock(clock).map_err(failed("KVM_SET_CLOCK"))
    }
}

/// A chip's state as bytes, whichever of the three it is: the binding is a union, which cannot be
/// compared.
#[must_use]
pub fn irqchip_bytes(chip: &k::kvm_irqchip) -> [u8; 512] {
    // SAFETY: `dummy` spans the whole union, is plain bytes, and every chip is read from the
    // kernel or decoded into a zeroed union, so that no byte of it is uninitialised.
    unsafe { chip.chip.dummy }.map(i8::cast_unsigned)
}
