//! The system descriptor: what this host's KVM is and can, and new VMs.
//!
//! Never knows a VM after it was made.

use super::error::{KvmError, errno_of, failed};
use super::vm::Vm;
use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use std::path::Path;

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
