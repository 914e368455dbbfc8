//! Whether this host has the CPU that a snapshot needs. Never loads it.

use super::guest_state::{GuestState, MachineSnapshot};
use crate::host;
use crate::kvm::{KvmError, System};
use crate::state;
use kvm_bindings::kvm_cpuid_entry2;

/// Names what the host lacks of the CPU that `snapshot` was taken with.
///
/// # Errors
/// A KVM call failed.
pub fn host_lacks(system: &System, snapshot: &MachineSnapshot) -> Result<Vec<String>, KvmError> {
    /// What a dynamic linker saves of a function's arguments: SSE, AVX, MPX, AVX-512 (glibc's
    /// STATE_SAVE_MASK).
    const SAVED_BY_LINKER: u64 = 0xee;
    let cpuid = host::guest_cpuid(system)?;
    let GuestState::Process(state) = &snapshot.guest else {
        let mut missing = snapshot.needs.missing_on(&cpuid);
        missing.extend(other_layout(snapshot, &cpuid));
        return Ok(missing);
    };
    let mut missing = snapshot.needs.missing_on(&host::program_cpuid(system)?);
    missing.extend(other_layout(snapshot, &cpuid));
    // Its dynamic linker asked how large the XSAVE area is and keeps that room on the stack. Where
    // more is enabled than then, XSAVE writes past it.
    let is_dynamic = state.process.images().len() > 1;
    if let Some(fixed) = is_dynamic.then(|| host::fixed_xcr0(system)).flatten() {
        let wanted = snapshot.needs.xcr0;
        if fixed & !wanted & SAVED_BY_LINKER != 0 {
            missing.push(format!("an XCR0 of {wanted:#x} (every program here has {fixed:#x})"));
        }
    }
    Ok(missing)
}

/// The snapshot's XSAVE area is laid out as no XRSTOR here would read it: Intel and AMD put
/// AVX-512 in different places.
fn other_layout(snapshot: &MachineSnapshot, cpuid: &[kvm_cpuid_entry2]) -> Option<String> {
    let (there, xcr0) = (&snapshot.state.cpuid, snapshot.needs.xcr0);
    state::lies_elsewhere(cpuid, there, xcr0)
        .then(|| format!("the XSAVE area of its CPU (XCR0 {xcr0:#x})"))
}
