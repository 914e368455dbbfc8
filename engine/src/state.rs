//! Everything of a VM that is not memory: capture, restore, compare, in one ordered list whose
//! constraints have their reasons beside them.
//!
//! Never decides what a rewind may leave out: each class has its rule beside it in `classes`.

mod classes;
mod compare;
mod rewind;
mod xsave;

pub use classes::{Class, ClassRules, Ending, ORDER, Rule, RunFacts};
pub use compare::Difference;
pub use rewind::{Prepared, RewindMode};
pub(crate) use xsave::{
    LEGACY, LEGACY_BYTES, keep_components, supported_xcr0, xcr0, xsave_bytes, xsave_from,
};
pub use xsave::{XSAVE_BYTES, XSTATE_BV_AT, has_pkru, lies_elsewhere, xsave_layout};

use crate::kvm::{KvmError, VcpuFd, Vm};
use crate::vcpu::Vcpu;
use kvm_bindings as k;
use serde::{Deserialize, Serialize};

/// IA32_TIME_STAMP_COUNTER: runs by itself, so that its value is neither compared nor rewound.
/// That a guest has not moved it shows in IA32_TSC_ADJUST, which moves with it.
const MSR_TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE: needs a configured local APIC, and is 0 once it has fired.
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// IA32_MPERF, IA32_APERF: run by themselves.
const MSR_MPERF: u32 = 0xe7;
const MSR_APERF: u32 = 0xe8;
/// Hyper-V's VP_RUNTIME and TIME_REF_COUNT, which KVM emulates: clocks.
const MSR_HV_CLOCKS: [u32; 2] = [0x4000_0010, 0x4000_0020];

/// How far a guest reaches into the CPU, which decides which of its MSRs a host may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Code at CPL 3, behind the engine's own gate: RDMSR and WRMSR fault.
    Program,
    /// Code at CPL 0, which can read and write any MSR that there is.
    Kernel,
}

impl Reach {
    /// Whether a guest can tell that its CPU lacks the MSR `index`.
    #[must_use]
    pub fn notices(self, index: u32) -> bool {
        self == Self::Kernel || REACH_CPL_3.contains(&index)
    }
}

/// The MSRs that decide what an instruction at CPL 3 does (Intel SDM vol. 4, table 2-2; AMD APM
/// vol. 2, appendix A). FS and GS bases and EFER are special registers.
const REACH_CPL_3: [u32; 9] = [
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0x140,       // MISC_FEATURES_ENABLES: CPUID faults
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // FMASK
    0xc000_0103, // TSC_AUX, which RDTSCP and RDPID read
];

/// MSRs that cannot be compared, each because it changes by itself.
#[must_use]
pub fn runs_by_itself(index: u32) -> bool {
    matches!(index, MSR_TSC | MSR_MPERF | MSR_APERF) || MSR_HV_CLOCKS.contains(&index)
}

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
    /// The XSAVE area in standard format, [`XSAVE_BYTES`] long.
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

impl CpuState {
    /// Captures the state. Finishes a half-done I/O access first, so that what is saved is a
    /// moment between two instructions.
    ///
    /// # Errors
    /// A KVM call failed.
    pub fn capture(vcpu: &mut Vcpu, vm: &Vm, parts: &Parts) -> Result<Self, KvmError> {
        vcpu.settle_fully()?;
        let fd = vcpu.fd();
        // MP_STATE first: reading it makes KVM accept a pending INIT or SIPI, which changes what
        // the reads after it return (Documentation/virt/kvm/api.rst, 4.38).
        let mp_state = if parts.irqchip { fd.mp_state()? } else { k::kvm_mp_state::default() };
        let mut msrs = fd.msrs(&parts.msrs)?;
        // The TSC deadline last, so that a restore in this order finds the TSC already set.
        msrs.sort_by_key(|&(index, _)| index == MSR_TSC_DEADLINE);
        Ok(Self {
            regs: fd.regs()?,
            sregs: fd.sregs()?,
            events: fd.events()?,
            debug_regs: fd.debug_regs()?,
            xcrs: fd.xcrs()?,
            xsave: xsave_bytes(&fd.xsave()?),
            msrs,
            mp_state,
            irqchip: if parts.irqchip {
                Some(IrqchipState::capture(fd, vm, parts.pit)?)
            } else {
                None
            },
            cpuid: fd.cpuid()?,
        })
    }

    /// Loads the state into a vCPU that never ran: everything, CPUID and TSC included. Returns the
    /// MSRs that it loaded, which are all but those that the host lacks and a guest of this `reach`
    /// does not notice: KVM's MSRs differ between Intel, AMD and its own versions.
    ///
    /// # Errors
    /// The host refuses a part; the error names the call or the MSR.
    pub fn load(
        &self,
        vcpu: &mut Vcpu,
        vm: &Vm,
        reach: Reach,
        parts: &Parts,
    ) -> Result<Vec<u32>, KvmError> {
        let cpuid = k::CpuId::from_entries(&self.cpuid).map_err(|_| KvmError::Ioctl {
            call: "KVM_SET_CPUID2",
            source: nix::errno::Errno::E2BIG,
        })?;
        let fd = vcpu.fd();
        fd.set_cpuid(&cpuid)?;
        let mut loaded = Vec::new();
        for class in ORDER.iter().map(|entry| entry.class).filter(|class| class.exists(self)) {
            match class {
                Class::Tlb => {}
                Class::Sregs => fd.set_sregs(&self.sregs)?,
                Class::Xcrs => fd.set_xcrs(&self.xcrs)?,
                Class::Xsave => fd.set_xsave(&self.loadable_xsave(parts.pkru))?,
                Class::Lapic => self.irqchip.iter().try_for_each(|i| fd.set_lapic(&i.lapic))?,
                Class::Msrs => loaded = load_msrs(fd, &self.msrs, reach)?,
                Class::Pit => self.irqchip.iter().try_for_each(|i| i.restore_pit(vm))?,
                Class::Irqchips => self.irqchip.iter().try_for_each(|i| i.restore_chips(vm))?,
                Class::MpState => fd.set_mp_state(self.mp_state)?,
                Class::DebugRegs => fd.set_debug_regs(&self.debug_regs)?,
                Class::Regs => fd.set_regs(&self.regs)?,
                Class::Events => fd.set_events(&self.loadable_events(parts))?,
            }
        }
        vcpu.reload()?;
        Ok(loaded)
    }

    /// The events as KVM takes them in a VM with these parts: a triple fault that is not pending
    /// is said to be none wherever that can be said, and is not mentioned elsewhere.
    fn loadable_events(&self, parts: &Parts) -> k::kvm_vcpu_events {
        let others = self.events.flags & !k::KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
        let said = u32::from(parts.triple_fault) * k::KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
        k::kvm_vcpu_events { flags: others | said, ..self.events }
    }

    /// XCR0 as captured.
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        // Without XSAVE there is x87, which cannot be turned off.
        xcr0(&self.xcrs).unwrap_or(1)
    }
}

/// Sets `msrs` in order, without those that the host refuses and `reach` does not notice; returns
/// the ones that were set.
fn load_msrs(fd: &mut VcpuFd, msrs: &[(u32, u64)], reach: Reach) -> Result<Vec<u32>, KvmError> {
    let mut loaded: Vec<u32> = msrs.iter().map(|&(index, _)| index).collect();
    let mut rest = msrs;
    loop {
        match fd.set_msrs(rest) {
            Ok(()) => return Ok(loaded),
            Err(KvmError::Msr { call, index }) if !reach.notices(index) => {
                let at = rest.iter().position(|&(i, _)| i == index);
                // KVM refuses one of those that it was given.
                let Some((_, after)) = at.and_then(|at| rest.split_at_checked(at + 1)) else {
                    return Err(KvmError::Msr { call, index });
                };
                tracing::debug!("the host lacks MSR {index:#x} of the snapshot: left out");
                loaded.retain(|&i| i != index);
                rest = after;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Which parts of the state a VM has.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// The MSRs to keep: see [`savable_msrs`].
    pub msrs: Vec<u32>,
    /// Whether the interrupt controllers are in the kernel.
    pub irqchip: bool,
    /// Whether the PIT is.
    pub pit: bool,
    /// Whether a vCPU has protection keys: see [`has_pkru`].
    pub pkru: bool,
    /// Whether a pending triple fault is among the events (`KVM_CAP_X86_TRIPLE_FAULT_EVENT`).
    pub triple_fault: bool,
}

/// The MSRs of `candidates` that this vCPU lets be read and written back. Some of the kernel's
/// index list are read-only, or exist only with other hardware.
///
/// # Errors
/// A KVM call failed for another reason than a refused MSR.
pub fn savable_msrs(vcpu: &mut Vcpu, candidates: &[u32]) -> Result<Vec<u32>, KvmError> {
    let mut values = vcpu.fd().msrs(candidates)?;
    loop {
        match vcpu.fd().set_msrs(&values) {
            Ok(()) => return Ok(values.into_iter().map(|(index, _)| index).collect()),
            Err(KvmError::Msr { call, index }) => {
                let before = values.len();
                values.retain(|&(i, _)| i != index);
                // KVM refuses one of those that it was given.
                if values.len() == before {
                    return Err(KvmError::Msr { call, index });
                }
            }
            Err(error) => return Err(error),
        }
    }
}

impl IrqchipState {
    fn capture(fd: &VcpuFd, vm: &Vm, pit: bool) -> Result<Self, KvmError> {
        Ok(Self {
            lapic: fd.lapic()?,
            chips: [vm.irqchip(0)?, vm.irqchip(1)?, vm.irqchip(2)?],
            pit: if pit { Some(vm.pit()?) } else { None },
        })
    }

    fn restore_pit(&self, vm: &Vm) -> Result<(), KvmError> {
        self.pit.iter().try_for_each(|pit| vm.set_pit(pit))
    }

    fn restore_chips(&self, vm: &Vm) -> Result<(), KvmError> {
        self.chips.iter().try_for_each(|chip| vm.set_irqchip(chip))
    }
}

#[cfg(test)]
impl CpuState {
    /// All zeros, without MSRs and irqchip.
    fn empty() -> Self {
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
