//! The first unsafe fence: safe handles over the KVM API's system, VM and vCPU descriptors.
//!
//! kvm-ioctls makes the calls it has; `raw` adds the few it lacks. `run_page` is the only reader of
//! the exits in the memory that a vCPU shares with the kernel; `kick` has the one field of it that
//! other threads write. This module never decides what a call means for a guest, and it never
//! allocates on the path of [`VcpuFd::run`].
#![allow(unsafe_code)]

mod coalesced;
mod dirty_ring;
mod eventfd;
mod kick;
mod mapping;
mod msr_filter;
mod raw;
mod run_page;
mod selectors;
mod vcpu;
mod vm;

pub use coalesced::{COALESCED_MAX, COALESCED_MIN, CoalescedWrite};
pub use dirty_ring::{DIRTY_RING_ENTRIES_MAX, DIRTY_RING_ENTRIES_MIN, DirtyPage, DirtyRing};
pub use eventfd::{DataMatch, EventFd, IoAddress, event_fd};
pub use kick::{Kicker, install_kick_handler};
pub use msr_filter::{FilteredMsr, MsrAccess};
pub use run_page::{RawExit, RunPage};
pub use selectors::clear_selectors;
pub use vcpu::{Ran, VcpuFd};
pub use vm::{DirtyBitmap, Vm, irqchip_bytes};

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use nix::errno::Errno;
use std::path::{Path, PathBuf};

/// What a KVM call answered when it failed: one variant per kind of object.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The device node could not be opened.
    #[error("open {}: {source}{}", path.display(), hint(*source))]
    Open {
        /// The device node.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The kernel's KVM API is not the stable one.
    #[error("{} speaks KVM API version {found}, this engine speaks {KVM_API_VERSION}", path.display())]
    ApiVersion {
        /// The device node.
        path: PathBuf,
        /// What `KVM_GET_API_VERSION` answered.
        found: i32,
    },
    /// A memory slot was refused.
    #[error("KVM_SET_USER_MEMORY_REGION of slot {slot} at {at:#x}, {bytes} bytes: {source}")]
    MemoryRegion {
        /// Slot number.
        slot: u32,
        /// First guest-physical address.
        at: u64,
        /// Length in bytes.
        bytes: u64,
        /// Why.
        source: Errno,
    },
    /// An MSR was refused.
    #[error("{call} of MSR {index:#x} was refused")]
    Msr {
        /// `KVM_GET_MSRS` or `KVM_SET_MSRS`.
        call: &'static str,
        /// The MSR's number.
        index: u32,
    },
    /// The dirty ring told of a page that is in no memory slot.
    #[error("the dirty ring has page {index} of slot {slot}, which the VM does not have")]
    DirtyPage {
        /// Slot number.
        slot: u32,
        /// Index of the page in the slot.
        index: u64,
    },
    /// Any other ioctl failed.
    #[error("{call}: {source}")]
    Ioctl {
        /// The ioctl's name.
        call: &'static str,
        /// Why.
        source: Errno,
    },
}

/// What a person can do about a device node that does not open.
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT => " (load kvm_intel or kvm_amd; `dejavm doctor` tells more)",
        Errno::EACCES | Errno::EPERM => {
            " (join the group that owns it, often `kvm`; `dejavm doctor` tells more)"
        }
        _ => "",
    }
}

/// The number of an error that came from the kernel; what std refuses by itself, such as a path
/// with a NUL, is an invalid argument.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}

/// An ioctl's failure under its name.
pub(crate) fn failed(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Ioctl { call, source: Errno::from_raw(error.errno()) }
}

/// The system descriptor: `/dev/kvm`.
#[derive(Debug)]
pub struct System {
    fd: kvm_ioctls::Kvm,
}

impl System {
    /// Where KVM's device node is.
    pub const DEFAULT_PATH: &'static str = "/dev/kvm";

    /// Opens `/dev/kvm` and checks that it speaks the stable API (`KVM_GET_API_VERSION`).
    ///
    /// # Errors
    /// The device is missing, may not be opened, or speaks another API version.
    pub fn open() -> Result<Self, KvmError> {
        Self::open_at(Path::new(Self::DEFAULT_PATH))
    }

    /// As [`open`](Self::open), for another device node.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_at(path: &Path) -> Result<Self, KvmError> {
        use std::os::fd::IntoRawFd;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|e| KvmError::Open { path: path.to_owned(), source: errno_of(&e) })?;
        // SAFETY: the descriptor was just opened and is given away here, so `Kvm` is its only
        // owner. On a file that is not KVM's every ioctl fails with ENOTTY.
        let fd = unsafe {
            use std::os::fd::FromRawFd;
            kvm_ioctls::Kvm::from_raw_fd(file.into_raw_fd())
        };
        match fd.get_api_version() {
            found if found == KVM_API_VERSION.cast_signed() => Ok(Self { fd }),
            found => Err(KvmError::ApiVersion { path: path.to_owned(), found }),
        }
    }

    /// `KVM_CHECK_EXTENSION` by number: 0 where the extension is missing, else its value.
    #[must_use]
    pub fn check_extension(&self, capability: u32) -> i32 {
        self.fd.check_extension_raw(u64::from(capability)).max(0)
    }

    /// `KVM_GET_VCPU_MMAP_SIZE`: bytes of the page a vCPU shares with the kernel.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn vcpu_mmap_size(&self) -> Result<usize, KvmError> {
        self.fd.get_vcpu_mmap_size().map_err(failed("KVM_GET_VCPU_MMAP_SIZE"))
    }

    /// `KVM_GET_SUPPORTED_CPUID`, asked for with the most entries the API allows, because fewer
    /// give E2BIG on some hosts.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn supported_cpuid(&self) -> Result<CpuId, KvmError> {
        self.fd
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("KVM_GET_SUPPORTED_CPUID"))
    }

    /// `KVM_GET_MSR_INDEX_LIST`: the MSRs that can be saved and restored.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn msr_index_list(&self) -> Result<Vec<u32>, KvmError> {
        let list = self.fd.get_msr_index_list().map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
        Ok(list.as_slice().to_vec())
    }

    /// `KVM_CREATE_VM`.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn create_vm(&self) -> Result<Vm, KvmError> {
        // KVM_CREATE_VM is interrupted by any signal, the watchdog's among them; that says
        // nothing about the host.
        loop {
            match self.fd.create_vm() {
                Ok(fd) => return Ok(Vm::new(fd)),
                Err(error) if error.errno() == libc::EINTR => {}
                Err(error) => return Err(failed("KVM_CREATE_VM")(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_named_with_what_to_do() {
        let error = System::open_at(Path::new("/nonexistent/kvm")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/kvm") && error.contains("kvm_intel"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_kvm_is_refused() {
        let error = System::open_at(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(error, KvmError::ApiVersion { .. }), "{error}");
    }
}
