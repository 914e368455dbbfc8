//! What a CPU and the in-kernel devices hold, as plain values. Never asks a vCPU for any of it.

use kvm_bindings as k;
use serde::{Deserialize, Serialize};

/// The CPU's and the in-kernel devices' state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CpuState {
    /// General registers, RIP, RFLAGS.
    pub regs: k::kvm_regs,
    /// Segments, descriptor tables, control registers, EFER, APIC base.
    pub sregs: k::kvm_sregs,
    /// Pending exceptions, interrupts, NMIs, shadows.
    pub events: k::kvm_vcpu_events,
    /// DR0 to DR7.
    pub debug_regs: k::kvm_debugregs,
    /// XCR0.
    pub xcrs: k::kvm_xcrs,
    /// The XSAVE area in standard format, [`XSAVE_BYTES`](super::XSAVE_BYTES) long.
    pub xsave: Vec<u8>,
    /// The MSRs that this host lets be both read and written, in index-list order.
    pub msrs: Vec<(u32, u64)>,
    /// Running, halted, waiting...
    pub mp_state: k::kvm_mp_state,
    /// What the in-kernel interrupt controllers and timer hold, where the VM has them.
    pub irqchip: Option<IrqchipState>,
    /// CPUID as the guest sees it.
    pub cpuid: Vec<k::kvm_cpuid_entry2>,
}

/// The state behind `KVM_CREATE_IRQCHIP` and `KVM_CREATE_PIT2`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IrqchipState {
    /// The local APIC.
    pub lapic: k::kvm_lapic_state,
    /// Master PIC, slave PIC, IOAPIC.
    pub chips: [k::kvm_irqchip; 3],
    /// The 8254, where the VM has one.
    pub pit: Option<k::kvm_pit_state2>,
}

/// Which parts of the state a VM has.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The MSRs to keep: see [`savable_msrs`](super::savable_msrs).
    pub msrs: Vec<u32>,
    /// Whether the interrupt controllers are in the kernel.
    pub irqchip: bool,
    /// Whether the PIT is.
    pub pit: bool,
    /// Whether a vCPU has protection keys: see [`has_pkru`](super::has_pkru).
    pub pkru: bool,
    /// Whether a pending triple fault is among the events (`KVM_CAP_X86_TRIPLE_FAULT_EVENT`).
    pub triple_fault: bool,
}

#[cfg(test)]
impl CpuState {
    /// All zeros, without MSRs and irqchip.
    pub(super) fn empty() -> Self {
        Self {
            regs: k::kvm_regs::default(),
            sregs: k::kvm_sregs::default(),
            events: k::kvm_vcpu_events::default(),
            debug_regs: k::kvm_debugregs::default(),
            xcrs: k::kvm_xcrs::default(),
            xsave: Vec::new(),
            msrs: Vec::new(),
            mp_state: k::kvm_mp_state::default(),
            irqchip: None,
            cpuid: Vec::new(),
        }
    }
}
