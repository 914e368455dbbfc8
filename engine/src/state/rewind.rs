//! Puts a guest's state back after a run: without allocation, and with the ioctls that cannot be
//! avoided.
//!
//! Never decides by itself what can have changed: that is `classes`' rule, and which of the two
//! modes is in force is the machine's. The classes that the run page carries
//! (`KVM_CAP_SYNC_REGS`) are loaded last of all, by the next `KVM_RUN`.

use super::classes::{Class, ORDER, Rule, RunFacts};
use super::cpu::{CpuState, Parts};
use super::msr::{self, runs_by_itself};
use super::reach::Reach;
use crate::arch::control::{CR0_PG, CR4_TSD};
use crate::kvm::{KvmError, Vm};
use crate::vcpu::Vcpu;
use kvm_bindings as k;

/// How much of the CPU's state a rewind puts back. What it does not put back is proven by
/// `verify`, which compares everything in either mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RewindMode {
    /// The classes that the run can have changed, by the rules of [`super::ORDER`].
    #[default]
    Lazy,
    /// Every class, whatever the guest.
    Full,
}

/// A snapshot's state in the layouts that the ioctls take.
#[derive(Debug)]
pub struct Prepared {
    reach: Reach,
    msrs: k::Msrs,
    xsave: Box<k::kvm_xsave>,
    events: k::kvm_vcpu_events,
    /// Special registers that differ from the snapshot's in what makes KVM drop every cached
    /// translation; `None` where the guest starts without paging.
    flush: Option<Box<k::kvm_sregs>>,
}

impl Prepared {
    /// Lays `state` out for a guest of this reach, in a VM that has these parts.
    ///
    /// # Errors
    /// A snapshot file claims more MSRs than the ioctl takes.
    pub fn new(state: &CpuState, reach: Reach, parts: &Parts) -> Result<Self, KvmError> {
        // KVM resets its MMU, and with it every TLB entry of the guest, when CR4 changes, but not
        // when the same CR3 is loaded once more (`__set_sregs`, arch/x86/kvm/x86.c). A guest that
        // changed its page tables left translations that its restored tables do not have.
        // CR4.TSD is a bit that every CPU has and that decides nothing about translation.
        let flush = (state.sregs.cr0 & CR0_PG != 0)
            .then(|| Box::new(k::kvm_sregs { cr4: state.sregs.cr4 ^ CR4_TSD, ..state.sregs }));
        let msrs = k::Msrs::from_entries(&msr_entries(state, parts)).map_err(|_| {
            KvmError::Ioctl { call: "KVM_SET_MSRS", source: nix::errno::Errno::E2BIG }
        })?;
        let events = state.loadable_events(parts);
        Ok(Self { reach, msrs, xsave: Box::new(state.loadable_xsave(parts.pkru)), events, flush })
    }

    /// Puts `state`, which this was made from, back after a run.
    ///
    /// # Errors
    /// The host refuses a part; the error names the call or the MSR.
    pub fn restore(
        &self,
        state: &CpuState,
        vcpu: &mut Vcpu,
        vm: &Vm,
        ran: RunFacts,
        mode: RewindMode,
    ) -> Result<(), KvmError> {
        if stops_where(state, vcpu) {
            // KVM would take the instruction at the restored RIP for the OUT that it has yet to
            // step over, and the guest would miss it.
            vcpu.settle_step()?;
        } else {
            vcpu.settle()?;
        }
        for entry in &ORDER {
            if self.must_restore(entry.class, entry.rule(self.reach), state, vcpu, ran, mode) {
                self.put_back(entry.class, state, vcpu, vm)?;
            }
        }
        Ok(())
    }

    fn must_restore(
        &self,
        class: Class,
        rule: Rule,
        state: &CpuState,
        vcpu: &Vcpu,
        ran: RunFacts,
        mode: RewindMode,
    ) -> bool {
        if !class.exists(state) {
            return false;
        }
        // Special registers are the one class with such a rule.
        let shown = rule == Rule::WhenShown && vcpu.sregs() != &state.sregs;
        mode == RewindMode::Full || rule.asks_for_it(ran, shown)
    }

    fn put_back(
        &self,
        class: Class,
        state: &CpuState,
        vcpu: &mut Vcpu,
        vm: &Vm,
    ) -> Result<(), KvmError> {
        let irqchip = state.irqchip.as_ref();
        match class {
            Class::Tlb => {
                self.flush.iter().try_for_each(|sregs| vcpu.fd().set_sregs(sregs))?;
            }
            Class::Sregs => {
                // The APIC base before the local APIC: it decides the APIC's mode. The flush has
                // loaded it already.
                if irqchip.is_some() && self.flush.is_none() {
                    vcpu.fd().set_sregs(&state.sregs)?;
                }
                // Whole, whatever they hold now: after a triple fault KVM wants complete
                // registers. KVM_RUN loads them after memory has been put back, so that in PAE
                // paging the page-directory pointers, which KVM reads when it loads CR3, are the
                // right ones.
                *vcpu.sregs_mut() = state.sregs;
                vcpu.set_task_priority(state.sregs.cr8);
            }
            Class::Xcrs => vcpu.fd().set_xcrs(&state.xcrs)?,
            Class::Xsave => vcpu.fd().set_xsave(&self.xsave)?,
            Class::Lapic => irqchip.iter().try_for_each(|i| vcpu.fd().set_lapic(&i.lapic))?,
            Class::Msrs => vcpu.fd().load_msrs(&self.msrs)?,
            Class::Pit => irqchip.iter().try_for_each(|i| i.restore_pit(vm))?,
            Class::Irqchips => irqchip.iter().try_for_each(|i| i.restore_chips(vm))?,
            Class::MpState => vcpu.fd().set_mp_state(state.mp_state)?,
            Class::DebugRegs => vcpu.fd().set_debug_regs(&state.debug_regs)?,
            Class::Regs => *vcpu.regs_mut() = state.regs,
            Class::Events => vcpu.set_events(&self.events),
        }
        Ok(())
    }
}

/// The MSRs of a rewind: those that do not run by themselves, and before them the TSC.
///
/// A guest at CPL 0 can move its TSC, by WRMSR of it or of TSC_ADJUST; the clock must go on, but
/// not from where a run put it. A host's write of zero puts a vCPU back on the VM's own timeline
/// (`kvm_synchronize_tsc`, arch/x86/kvm/x86.c: "force synchronization"), which a guest's write
/// leaves alone, and moves nothing when the guest did not.
fn msr_entries(state: &CpuState, parts: &Parts) -> Vec<k::kvm_msr_entry> {
    // A host that lacks some of a program's has loaded the rest.
    let has = |index| parts.msrs.contains(&index);
    let timeline = has(msr::TSC).then_some((msr::TSC, 0));
    let rest =
        state.msrs.iter().filter(|&&(index, _)| has(index) && !runs_by_itself(index)).copied();
    let entry = |(index, data)| k::kvm_msr_entry { index, data, ..Default::default() };
    timeline.into_iter().chain(rest).map(entry).collect()
}

/// Whether the vCPU may stand at the very instruction that `state` stands at. KVM goes by linear
/// addresses (`kvm_is_linear_rip`), to which CS may add its base or not.
fn stops_where(state: &CpuState, vcpu: &Vcpu) -> bool {
    let (regs, sregs) = (vcpu.regs(), vcpu.sregs());
    let there = [regs.rip, sregs.cs.base.wrapping_add(regs.rip)];
    there.contains(&state.regs.rip)
        || there.contains(&state.sregs.cs.base.wrapping_add(state.regs.rip))
}
