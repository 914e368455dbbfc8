//! What a KVM call answered when it failed.
//!
//! Never decides what to do about it.

use kvm_bindings::KVM_API_VERSION;
use nix::errno::Errno;
use std::path::PathBuf;

/// What a KVM call answered when it failed: one variant per kind of object.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The device node could not be opened.
    #[error("open {}{}", path.display(), hint(*source))]
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
    #[error("KVM_SET_USER_MEMORY_REGION of slot {slot} at {at:#x}, {bytes} bytes")]
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
    /// The dirty ring named a page that is in no memory slot.
    #[error("the dirty ring has page {index} of slot {slot}, which the VM does not have")]
    DirtyPage {
        /// Slot number.
        slot: u32,
        /// Index of the page in the slot.
        index: u64,
    },
    /// Any other ioctl failed.
    #[error("{call}")]
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
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}

/// An ioctl's failure under its name.
pub(super) fn failed(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |error| KvmError::Ioctl { call, source: Errno::from_raw(error.errno()) }
}
