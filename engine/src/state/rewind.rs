//! Puts the state of a guest that runs at CPL 0 back, which can have changed any class of it:
//! without allocation, and with the ioctls that cannot be avoided.
//!
//! Never decides when: that is the machine's. The order is that of [`CpuState::load`], but for
//! the classes that the run page carries (`KVM_CAP_SYNC_REGS`): they are loaded last of all, by
//! the next `KVM_RUN`.

use super::{CpuState, runs_by_itself};
use crate::kvm::{KvmError, Vm};
use crate::vcpu::Vcpu;
use kvm_bindings as k;

/// A snapshot's state in the layouts that the ioctls take.
#[derive(Debug)]
pub struct Prepared {
    msrs: k::Msrs,
    xsave: Box<k::kvm_xsave>,
    /// Special registers that differ from the snapshot's in what makes KVM drop every cached
    /// translation; `None` where the guest starts without paging.
    flush: Option<Box<k::kvm_sregs>>,
}

impl Prepared {
    /// Lays `state` out.
    ///
    /// # Errors
    /// A snapshot file claims more MSRs than the ioctl takes.
    pub fn new(state: &CpuState) -> Result<Self, KvmError> {
        const PG: u64 = 1 << 31;
        const TSD: u64 = 1 << 2;
        let entries: Vec<_> = state
            .msrs
            .iter()
            .filter(|&&(index, _)| !runs_by_itself(index))
            .map(|&(index, data)| k::kvm_msr_entry { index, data, ..Default::default() })
            .collect();
        // KVM resets its MMU, and with it every TLB entry of the guest, when CR4 changes, but not
        // when the same CR3 is loaded once more (`__set_sregs`, arch/x86/kvm/x86.c). A guest that
        // changed its page tables left translations that its restored tables do not have.
        // CR4.TSD is a bit that every CPU has and that decides nothing about translation.
        let flush = (state.sregs.cr0 & PG != 0)
            .then(|| Box::new(k::kvm_sregs { cr4: state.sregs.cr4 ^ TSD, ..state.sregs }));
        let msrs = k::Msrs::from_entries(&entries).map_err(|_| KvmError::Ioctl {
            call: "KVM_SET_MSRS",
            source: nix::errno::Errno::E2BIG,
        })?;
        Ok(Self { msrs, xsave: Box::new(state.loadable_xsave()), flush })
    }

    /// Puts every class of `state`, which this was made from, back.
    ///
    /// # Errors
    /// The host refuses a part; the error names the call or the MSR.
    pub fn restore(&self, state: &CpuState, vcpu: &mut Vcpu, vm: &Vm) -> Result<(), KvmError> {
        if stops_where(state, vcpu) {
            // KVM would take the instruction at the restored RIP for the OUT that it has yet to
            // step over, and the guest would miss it.
            vcpu.settle_step()?;
        } else {
            vcpu.settle()?;
        }
        let fd = vcpu.fd();
        match (&self.flush, &state.irqchip) {
            (Some(other), _) => fd.set_sregs(other)?,
            // The APIC base before the local APIC: it decides the APIC's mode.
            (None, Some(_)) => fd.set_sregs(&state.sregs)?,
            (None, None) => {}
        }
        // XCRS before XSAVE, the local APIC before the MSRs: see `CpuState::load`.
        fd.set_xcrs(&state.xcrs)?;
        fd.set_xsave(&self.xsave)?;
        if let Some(irqchip) = &state.irqchip {
            fd.set_lapic(&irqchip.lapic)?;
        }
        fd.load_msrs(&self.msrs)?;
        if let Some(irqchip) = &state.irqchip {
            irqchip.restore_chips(vm)?;
            fd.set_mp_state(state.mp_state)?;
        }
        fd.set_debug_regs(&state.debug_regs)?;
        // All three whole, whatever they hold now: after a triple fault KVM wants complete
        // registers. KVM_RUN loads general registers first, which drops a pending exception, and
        // events last. By then memory is the snapshot's again, so that in PAE paging the
        // page-directory pointers, which KVM reads when it loads CR3, are the right ones.
        *vcpu.regs_mut() = state.regs;
        *vcpu.sregs_mut() = state.sregs;
        vcpu.set_events(&state.events);
        Ok(())
    }
}

/// Whether the vCPU may stand at the very instruction that `state` stands at. KVM goes by linear
/// addresses (`kvm_is_linear_rip`), to which CS may add its base or not.
fn stops_where(state: &CpuState, vcpu: &Vcpu) -> bool {
    let (regs, sregs) = (vcpu.regs(), vcpu.sregs());
    let there = [regs.rip, sregs.cs.base.wrapping_add(regs.rip)];
    there.contains(&state.regs.rip)
        || there.contains(&state.sregs.cs.base.wrapping_add(state.regs.rip))
}
