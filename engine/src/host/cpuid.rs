//! CPUID as the host may give it to a guest. Never runs one.

use crate::kvm::{KvmError, System};
use kvm_bindings as k;
use std::sync::OnceLock;

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

/// CPUID as a guest on this host sees it: some hosts (kvm_pvm) show their own feature leaves
/// whatever they are given, so it is read back from a vCPU of a VM that is thrown away. It is asked
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
