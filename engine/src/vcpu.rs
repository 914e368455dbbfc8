//! One vCPU as the machine drives it: registers through the run page (`KVM_CAP_SYNC_REGS`), so
//! that neither reading nor writing them costs an ioctl.
//!
//! Never knows why the guest ran or what an exit means. Hosts without the capability are refused
//! by `host` before a vCPU exists.

use crate::address::{Gpa, PAGE_SIZE};
use crate::exit::Exit;
use crate::kvm::{Kicker, KvmError, VcpuFd};
use kvm_bindings::{
    KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, kvm_regs, kvm_sregs,
    kvm_vcpu_events,
};

const REGS: u64 = KVM_SYNC_X86_REGS as u64;
const SREGS: u64 = KVM_SYNC_X86_SREGS as u64;
const EVENTS: u64 = KVM_SYNC_X86_EVENTS as u64;

/// A vCPU whose general and special registers live in the run page.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    /// An exit that `KVM_RUN` has yet to finish. Replacing registers before that would lose an
    /// IN's result or an MMIO load's; see [`Vcpu::settle`].
    pending: bool,
    /// The last exit was a store or an OUT, over which KVM may have yet to step: it skips the
    /// instruction when the next run starts at the same RIP. See [`Vcpu::settle_step`].
    step: bool,
}

impl Vcpu {
    /// Takes the vCPU and loads its registers into the run page.
    ///
    /// # Errors
    /// A KVM call failed.
    pub fn new(mut fd: VcpuFd) -> Result<Self, KvmError> {
        fd.set_valid_regs(REGS | SREGS);
        let mut vcpu = Self { fd, pending: false, step: false };
        vcpu.reload()?;
        Ok(vcpu)
    }

    /// Runs until the next exit.
    ///
    /// # Errors
    /// `KVM_RUN` failed.
    #[inline]
    pub fn run(&mut self) -> Result<Exit<'_>, KvmError> {
        let ran = self.fd.run()?;
        let exit = Exit::parse(ran, &mut self.fd);
        (self.pending, self.step) = match exit {
            // A load's answer is still to be written into a register.
            Exit::PortIn { .. }
            | Exit::MmioRead { .. }
            | Exit::MsrRead { .. }
            | Exit::MsrWrite { .. } => (true, true),
            // A store has changed the guest already when it exits: KVM has nothing to finish but
            // to step over the instruction, which it skips when RIP was replaced.
            Exit::PortOut { size, data, .. } => (data.len() > usize::from(size), true),
            // Unless there is more of it: the next run would begin with the exit of that part.
            Exit::MmioWrite { at, data } => (may_have_more_parts(at, data.len()), true),
            Exit::Halt
            | Exit::Shutdown
            | Exit::Debug { .. }
            | Exit::Exception { .. }
            | Exit::EmulationFailure { .. }
            | Exit::InternalError { .. }
            | Exit::FailEntry { .. }
            | Exit::InterruptWindow
            | Exit::TaskPriority
            | Exit::SystemEvent { .. }
            | Exit::DirtyRingFull
            | Exit::Interrupted
            | Exit::Unexpected { .. } => (false, false),
        };
        Ok(exit)
    }

    /// Finishes an access that the last exit left half done. Called before state is replaced or
    /// captured; costs nothing when there is nothing to finish.
    ///
    /// # Errors
    /// `KVM_RUN` failed.
    pub fn settle(&mut self) -> Result<(), KvmError> {
        if self.pending {
            (self.pending, self.step) = (false, false);
            self.fd.complete_pending()?;
        }
        Ok(())
    }

    /// As [`settle`](Self::settle), and steps over a store or an OUT: before registers are
    /// replaced by ones whose RIP may be that very instruction's, and wherever RIP must mean the
    /// same on every kind of host.
    ///
    /// # Errors
    /// `KVM_RUN` failed.
    pub fn settle_step(&mut self) -> Result<(), KvmError> {
        if self.step {
            (self.pending, self.step) = (false, false);
            self.fd.complete_pending()?;
        }
        Ok(())
    }

    /// As [`settle`](Self::settle), whatever the last exit was: before a capture, where a store's
    /// RIP must have moved on, on every kind of host.
    ///
    /// # Errors
    /// `KVM_RUN` failed.
    pub fn settle_fully(&mut self) -> Result<(), KvmError> {
        (self.pending, self.step) = (false, false);
        self.fd.complete_pending()?;
        self.reload()
    }

    /// Reads the registers by ioctl into the run page, after something replaced them there.
    ///
    /// # Errors
    /// A KVM call failed.
    pub fn reload(&mut self) -> Result<(), KvmError> {
        let (regs, sregs) = (self.fd.regs()?, self.fd.sregs()?);
        let page = self.fd.sync_regs_mut(0);
        page.regs = regs;
        page.sregs = sregs;
        self.set_task_priority(sregs.cr8);
        Ok(())
    }

    /// General registers, RIP and RFLAGS after the last exit, or as written since.
    #[must_use]
    #[inline]
    pub fn regs(&self) -> &kvm_regs {
        &self.fd.sync_regs().regs
    }

    /// Segments, control registers and EFER after the last exit, or as written since.
    #[must_use]
    #[inline]
    pub fn sregs(&self) -> &kvm_sregs {
        &self.fd.sync_regs().sregs
    }

    /// General registers for the next run.
    #[inline]
    pub fn regs_mut(&mut self) -> &mut kvm_regs {
        &mut self.fd.sync_regs_mut(REGS).regs
    }

    /// Special registers for the next run.
    #[inline]
    pub fn sregs_mut(&mut self) -> &mut kvm_sregs {
        &mut self.fd.sync_regs_mut(SREGS).sregs
    }

    /// CR8 for the next run, beside the special registers' own: where the local APIC is not in the
    /// kernel, `KVM_RUN` loads it from a field of its own, after those (`kvm_arch_vcpu_ioctl_run`,
    /// arch/x86/kvm/x86.c).
    pub fn set_task_priority(&mut self, cr8: u64) {
        self.fd.set_task_priority(cr8);
    }

    /// Sets the pending events that the next run starts with.
    pub fn set_events(&mut self, events: &kvm_vcpu_events) {
        self.fd.sync_regs_mut(EVENTS).events = *events;
    }

    /// A handle that makes [`run`](Self::run) return, for another thread.
    #[must_use]
    pub fn kicker(&self) -> Kicker {
        self.fd.kicker()
    }

    /// Forgets a kick.
    pub fn clear_kick(&self) {
        self.fd.clear_kick();
    }

    /// The descriptor, for the state that has no place in the run page.
    pub fn fd(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }

    /// The descriptor, for reading.
    #[must_use]
    pub fn fd_ref(&self) -> &VcpuFd {
        &self.fd
    }
}

/// Whether a store's exit may be one of several: KVM hands out at most 8 bytes at a time, and
/// splits at page ends (`kvm_mmio_fragment`, arch/x86/kvm/x86.c).
fn may_have_more_parts(at: Gpa, bytes: usize) -> bool {
    bytes >= 8 || at.page_offset() + bytes >= PAGE_SIZE
}
