//! Captures the state of a vCPU, and loads it into one that never ran.
//!
//! Never puts anything back after a run: that is `rewind`'s.

use super::classes::{Class, ORDER};
use super::cpu::{CpuState, IrqchipState, Parts};
use super::msr;
use super::reach::Reach;
use super::xsave::xsave_bytes;
use crate::kvm::{KvmError, VcpuFd, Vm};
use crate::vcpu::Vcpu;
use kvm_bindings as k;

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
        msrs.sort_by_key(|&(index, _)| index == msr::TSC_DEADLINE);
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
    pub(super) fn loadable_events(&self, parts: &Parts) -> k::kvm_vcpu_events {
        let others = self.events.flags & !k::KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
        let said = u32::from(parts.triple_fault) * k::KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
        k::kvm_vcpu_events { flags: others | said, ..self.events }
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

    pub(super) fn restore_pit(&self, vm: &Vm) -> Result<(), KvmError> {
        self.pit.iter().try_for_each(|pit| vm.set_pit(pit))
    }

    pub(super) fn restore_chips(&self, vm: &Vm) -> Result<(), KvmError> {
        self.chips.iter().try_for_each(|chip| vm.set_irqchip(chip))
    }
}
