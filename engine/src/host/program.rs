//! What a program at CPL 3 sees of the CPU, whatever it was given: tried in a VM that is thrown
//! away. A host on which that fails gets the answer of one that does not differ, and a warning in
//! the log.

use super::cpuid::guest_cpuid;
use super::probes;
use crate::kvm::{KvmError, System};
use crate::text::ErrorChain;
use kvm_bindings as k;
use std::sync::OnceLock;

/// The leaves of CPUID that name instructions.
const FEATURE_LEAVES: [u32; 3] = [1, 7, 0x8000_0001];

/// CPUID as a program at CPL 3 sees it: that of [`guest_cpuid`], but the leaves that name
/// instructions as the instruction itself returns them in a VM that is thrown away. Hosts that do
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
    match probes::cpuid_of_program(system, &FEATURE_LEAVES) {
        Ok(seen) => {
            cpuid.retain(|entry| {
                entry.index != 0 || seen.iter().all(|seen| seen.function != entry.function)
            });
            cpuid.extend(seen);
        }
        Err(error) => {
            let error = ErrorChain(&error);
            tracing::warn!(%error, "what CPUID returns to a program could not be asked");
        }
    }
    Ok(ASKED.get_or_init(|| cpuid).clone())
}

/// The XCR0 that every program on this host has, whatever it was given; `None` where a program has
/// the one that it was given. It is asked once.
#[must_use]
pub fn fixed_xcr0(system: &System) -> Option<u64> {
    static ASKED: OnceLock<Option<u64>> = OnceLock::new();
    *ASKED.get_or_init(|| match probes::xcr0_of_program(system) {
        Ok(probes::X87_SSE) => None,
        Ok(fixed) => Some(fixed),
        Err(error) => {
            let error = ErrorChain(&error);
            tracing::warn!(%error, "what XGETBV returns to a program could not be asked");
            None
        }
    })
}
