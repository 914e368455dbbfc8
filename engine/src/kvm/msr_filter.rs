//! MSRs that this process answers for instead of the kernel (`KVM_X86_SET_MSR_FILTER`).
//!
//! Never answers one: that is whoever gets `Exit::MsrRead` and `Exit::MsrWrite`.

use super::error::{KvmError, failed};
use super::vm::Vm;
use kvm_bindings as k;
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags};

/// Which accesses to an MSR exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrAccess {
    /// RDMSR.
    Read,
    /// WRMSR.
    Write,
    /// Both.
    Both,
}

/// An MSR whose accesses exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilteredMsr {
    /// MSR number.
    pub index: u32,
    /// Which accesses.
    pub access: MsrAccess,
}

impl Vm {
    /// `KVM_CAP_X86_USER_SPACE_MSR` and `KVM_X86_SET_MSR_FILTER` (Linux 5.10): accesses to `msrs`,
    /// at most 16 of them, exit from now on; all others are the kernel's as before. Replaces the
    /// filter that was there; an empty list takes it away. KVM does not filter x2APIC MSRs, and
    /// not what a system call reads or writes.
    ///
    /// # Errors
    /// The kernel lacks the capability, or the list is too long (EINVAL).
    pub fn filter_msrs(&self, msrs: &[FilteredMsr]) -> Result<(), KvmError> {
        self.enable(k::KVM_CAP_X86_USER_SPACE_MSR, k::KVM_MSR_EXIT_REASON_FILTER.into())?;
        // One MSR a range; a clear bit denies the access, which makes it exit.
        const DENIED: [u8; 1] = [0];
        let range = |msr: &FilteredMsr| MsrFilterRange {
            flags: match msr.access {
                MsrAccess::Read => MsrFilterRangeFlags::READ,
                MsrAccess::Write => MsrFilterRangeFlags::WRITE,
                MsrAccess::Both => MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            },
            base: msr.index,
            msr_count: 1,
            bitmap: &DENIED,
        };
        let ranges: Vec<_> = msrs.iter().map(range).collect();
        self.fd
            .set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
            .map_err(failed("KVM_X86_SET_MSR_FILTER"))
    }
}
