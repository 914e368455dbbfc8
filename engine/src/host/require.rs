//! What a host must have before a machine is made on it, and what it may offer a guest.

use super::extensions::EXTENSIONS;
use crate::kvm::{KvmError, System};
use crate::text::with_causes;
use kvm_bindings as k;
use std::sync::OnceLock;

/// Why no machine can run on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// An extension is missing.
    #[error("this host's KVM lacks {name}: {costs}; {mend}")]
    Lacks {
        /// The extension's name in the KVM API.
        name: &'static str,
        /// What the engine cannot do without it.
        costs: &'static str,
        /// Where to get it.
        mend: &'static str,
    },
}

/// Refuses a host without the extensions that the engine cannot do without, the first one missing
/// by name. Costs a system call for each.
///
/// # Errors
/// An extension is missing.
pub fn require(system: &System) -> Result<(), HostError> {
    for extension in EXTENSIONS.iter().filter(|extension| extension.needed) {
        if !extension.is_in(system.check_extension(extension.number)) {
            let super::extensions::Known { name, costs, mend, .. } = *extension;
            return Err(HostError::Lacks { name, costs, mend });
        }
    }
    Ok(())
}

/// CPUID as a guest on this host sees it: some hosts (kvm_pvm) show their own feature leaves
/// whatever they are told, so it is read back from a vCPU of a VM that is thrown away. It is asked
/// once.
///
/// # Errors
/// A KVM call failed.
pub fn guest_cpuid(system: &System) -> Result<Vec<k::kvm_cpuid_entry2>, KvmError> {
    static ASKED: OnceLock<Vec<k::kvm_cpuid_entry2>> = OnceLock::new();
    if let Some(cpuid) = ASKED.get() {
        return Ok(cpuid.clone());
    }
    let mut vcpu = system.create_vm()?.create_vcpu()?;
    vcpu.set_cpuid(&offered_cpuid(system)?)?;
    let cpuid = vcpu.cpuid()?;
    Ok(ASKED.get_or_init(|| cpuid).clone())
}

/// CPUID as a program at CPL 3 sees it: that of [`guest_cpuid`], but the leaves that name
/// instructions as the instruction itself tells them in a VM that is thrown away. Hosts that do
/// not intercept it (kvm_pvm) show a program features that KVM's list leaves out. It is asked once.
///
/// # Errors
/// A KVM call failed.
pub fn program_cpuid(system: &System) -> Result<Vec<k::kvm_cpuid_entry2>, KvmError> {
    static ASKED: OnceLock<Vec<k::kvm_cpuid_entry2>> = OnceLock::new();
    if let Some(cpuid) = ASKED.get() {
        return Ok(cpuid.clone());
    }
    let mut cpuid = guest_cpuid(system)?;
    match super::probes::cpuid_of_program(system, &[1, 7, 0x8000_0001]) {
        Ok(seen) => {
            cpuid.retain(|entry| {
                entry.index != 0 || seen.iter().all(|seen| seen.function != entry.function)
            });
            cpuid.extend(seen);
        }
        Err(error) => {
            let error = with_causes(&error);
            tracing::warn!(error, "what CPUID tells a program could not be asked");
        }
    }
    Ok(ASKED.get_or_init(|| cpuid).clone())
}

/// The XCR0 that every program on this host has, whatever it was given; `None` where a program has
/// the one that it was given. It is asked once.
#[must_use]
pub fn fixed_xcr0(system: &System) -> Option<u64> {
    static ASKED: OnceLock<Option<u64>> = OnceLock::new();
    *ASKED.get_or_init(|| match super::probes::xcr0_of_program(system) {
        Ok(super::probes::X87_SSE) => None,
        Ok(fixed) => Some(fixed),
        Err(error) => {
            let error = with_causes(&error);
            tracing::warn!(error, "what XGETBV tells a program could not be asked");
            None
        }
    })
}

/// What the host can give a guest, without VMX and SVM: a guest's own guests would be state that
/// no snapshot holds (`KVM_GET_NESTED_STATE`). It is asked once, because the kernel takes some
/// 0.3 ms to answer.
///
/// # Errors
/// The ioctl failed.
pub fn offered_cpuid(system: &System) -> Result<k::CpuId, KvmError> {
    const VMX: u32 = 1 << 5;
    const SVM: u32 = 1 << 2;
    static ASKED: OnceLock<k::CpuId> = OnceLock::new();
    if let Some(cpuid) = ASKED.get() {
        return Ok(cpuid.clone());
    }
    let mut cpuid = system.supported_cpuid()?;
    for leaf in cpuid.as_mut_slice() {
        match leaf.function {
            1 => leaf.ecx &= !VMX,
            0x8000_0001 => leaf.ecx &= !SVM,
            _ => {}
        }
    }
    Ok(ASKED.get_or_init(|| cpuid).clone())
}
