//! The vCPU descriptor.

use super::error::{KvmError, failed};
use super::kick::{KickPage, Kicker};
use super::raw;
use super::run_page::{RawExit, RunPage};
use kvm_bindings as k;
use nix::errno::Errno;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// How `KVM_RUN` came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// The run page describes an exit.
    Exit,
    /// A signal or `immediate_exit` ended it (EINTR); there is no exit to read.
    Interrupted,
}

/// A vCPU and the page it shares with the kernel.
///
/// The page is mapped twice: for this handle's thread, and for the kick, which any thread may give
/// ([`Kicker`]) and which has only the atomic `immediate_exit`.
#[derive(Debug)]
pub struct VcpuFd {
    page: RunPage,
    kick: Arc<KickPage>,
    pub(super) fd: kvm_ioctls::VcpuFd,
}

impl VcpuFd {
    pub(super) fn new(fd: kvm_ioctls::VcpuFd, run_bytes: usize) -> Result<Self, KvmError> {
        let refused = |source| KvmError::Ioctl { call: "mmap of the vCPU", source };
        let page = RunPage::map(fd.as_raw_fd(), run_bytes).map_err(refused)?;
        let kick = Arc::new(KickPage::map(fd.as_raw_fd(), run_bytes).map_err(refused)?);
        Ok(Self { page, kick, fd })
    }

    /// A handle that makes this vCPU's `KVM_RUN` return.
    #[must_use]
    pub fn kicker(&self) -> Kicker {
        Kicker::new(Arc::clone(&self.kick))
    }

    /// `KVM_RUN`.
    ///
    /// # Errors
    /// Any errno but EINTR and EAGAIN: EFAULT (the guest reached memory that the host cannot
    /// give), ENOEXEC, EIO...
    pub fn run(&mut self) -> Result<Ran, KvmError> {
        match self.page.run(self.fd.as_raw_fd()) {
            Ok(()) => Ok(Ran::Exit),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(Ran::Interrupted),
            Err(source) => Err(KvmError::Ioctl { call: "KVM_RUN", source }),
        }
    }

    /// `ioctl(KVM_RUN)`, and the exit reason out of the run page: nothing of the engine. What a
    /// measurement sets the engine beside; everything else calls [`run`](Self::run). `None` where
    /// it was interrupted.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_raw(&mut self) -> Result<Option<u32>, KvmError> {
        match self.page.run(self.fd.as_raw_fd()) {
            Ok(()) => Ok(Some(self.page.exit_reason())),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(None),
            Err(source) => Err(KvmError::Ioctl { call: "KVM_RUN", source }),
        }
    }

    /// While it is set, every run finishes what is pending and is interrupted before the guest
    /// is entered: a kick by the thread that runs the vCPU. [`clear_kick`](Self::clear_kick)
    /// forgets it.
    pub fn set_kick(&self) {
        self.kick.set(true);
    }

    /// Finishes the I/O that the last exit left pending, without running the guest: `KVM_RUN`
    /// with `immediate_exit` (Documentation/virt/kvm/api.rst, 5. The kvm_run structure).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn complete_pending(&mut self) -> Result<(), KvmError> {
        /// A load that is finished goes on with the next iteration of a REP, until RCX is a
        /// multiple of 1024 (`x86_emulate_insn`, arch/x86/kvm/emulate.c); each may load and store,
        /// over a page's end. Other instructions have fewer parts: 64 bytes over two pages, 8 by 8.
        const PARTS_MAX: usize = 1024 * 4 + 32;
        let before = self.kick.replace(true);
        let mut ran = Ok(Ran::Exit);
        // An access that is wider than 8 bytes or that crosses a page exits once for each part.
        for _ in 0..PARTS_MAX {
            ran = self.run();
            if !matches!(ran, Ok(Ran::Exit)) {
                break;
            }
        }
        if matches!(ran, Ok(Ran::Exit)) {
            // What is left of it would be finished over the registers of another run.
            let call = "KVM_RUN to the end of an access";
            ran = Err(KvmError::Ioctl { call, source: Errno::EBUSY });
        }
        // A kick that arrived meanwhile is kept only if it was there before: the watchdog looks
        // again, whereas a flag left set would stop the next run at once.
        self.kick.set(before);
        ran.map(drop)
    }

    /// Forgets a kick.
    pub fn clear_kick(&self) {
        self.kick.set(false);
    }

    /// The last exit. Only meaningful after [`run`](Self::run) gave [`Ran::Exit`].
    pub fn exit(&mut self) -> RawExit<'_> {
        self.page.raw_exit()
    }

    /// Which register classes (`KVM_SYNC_X86_*`) each exit stores in the run page.
    pub fn set_valid_regs(&mut self, classes: u64) {
        self.page.set_valid_regs(classes);
    }

    /// The register classes as the last exit stored them, or as they were written since.
    #[must_use]
    pub fn sync_regs(&self) -> &k::kvm_sync_regs {
        self.page.sync_regs()
    }

    /// The register classes for writing; `classes` are loaded by the next `KVM_RUN`.
    pub fn sync_regs_mut(&mut self, classes: u64) -> &mut k::kvm_sync_regs {
        self.page.mark_dirty_regs(classes);
        self.page.sync_regs_mut()
    }

    /// `kvm_run.cr8`, which `KVM_RUN` loads in VMs without irqchip.
    pub fn set_task_priority(&mut self, cr8: u64) {
        self.page.set_task_priority(cr8);
    }

    /// Asks for an exit as soon as the guest can take an interrupt (VMs without irqchip).
    pub fn request_interrupt_window(&mut self, wanted: bool) {
        self.page.request_interrupt_window(wanted);
    }

    /// Whether the last exit left the guest able to take an interrupt.
    #[must_use]
    pub fn ready_for_interrupt(&self) -> bool {
        self.page.ready_for_interrupt()
    }

    /// `KVM_INTERRUPT`: queues an external interrupt in a VM without an in-kernel irqchip.
    ///
    /// # Errors
    /// One is queued already (EEXIST), or the irqchip is in the kernel (ENXIO).
    pub fn interrupt(&mut self, vector: u8) -> Result<(), KvmError> {
        let request = k::kvm_interrupt { irq: u32::from(vector) };
        // SAFETY: the vCPU's own descriptor and a complete structure that outlives the call.
        unsafe { raw::kvm_interrupt_vcpu(self.fd.as_raw_fd(), &raw const request) }
            .map(drop)
            .map_err(|source| KvmError::Ioctl { call: "KVM_INTERRUPT", source })
    }

    /// `KVM_GET_REGS`.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn regs(&self) -> Result<k::kvm_regs, KvmError> {
        self.fd.get_regs().map_err(failed("KVM_GET_REGS"))
    }

    /// `KVM_SET_REGS`.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn set_regs(&mut self, regs: &k::kvm_regs) -> Result<(), KvmError> {
        self.fd.set_regs(regs).map_err(failed("KVM_SET_REGS"))
    }

    /// `KVM_GET_SREGS`.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn sregs(&self) -> Result<k::kvm_sregs, KvmError> {
        self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))
    }

    /// `KVM_SET_SREGS`.
    ///
    /// # Errors
    /// The combination of control registers is not one that a CPU allows (EINVAL).
    pub fn set_sregs(&mut self, sregs: &k::kvm_sregs) -> Result<(), KvmError> {
        self.fd.set_sregs(sregs).map_err(failed("KVM_SET_SREGS"))
    }

    /// `KVM_GET_XSAVE`: x87, SSE, AVX, AVX-512 and PKRU. AMX tiles do not fit; the engine never
    /// asks the host for them, so that no guest can have them.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn xsave(&self) -> Result<k::kvm_xsave, KvmError> {
        self.fd.get_xsave().map_err(failed("KVM_GET_XSAVE"))
    }

    /// `KVM_SET_XSAVE`.
    ///
    /// # Errors
    /// XSTATE_BV names components that the host lacks (EINVAL).
    pub fn set_xsave(&mut self, xsave: &k::kvm_xsave) -> Result<(), KvmError> {
        // SAFETY: the kernel reads 4096 bytes, the structure's size, unless the VM was given
        // dynamically enabled features, which this engine never requests.
        unsafe { self.fd.set_xsave(xsave) }.map_err(failed("KVM_SET_XSAVE"))
    }

    /// `KVM_GET_XCRS`.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn xcrs(&self) -> Result<k::kvm_xcrs, KvmError> {
        self.fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))
    }

    /// `KVM_SET_XCRS`.
    ///
    /// # Errors
    /// XCR0 names components that the guest's CPUID lacks (EINVAL).
    pub fn set_xcrs(&mut self, xcrs: &k::kvm_xcrs) -> Result<(), KvmError> {
        self.fd.set_xcrs(xcrs).map_err(failed("KVM_SET_XCRS"))
    }

    /// `KVM_GET_DEBUGREGS`.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn debug_regs(&self) -> Result<k::kvm_debugregs, KvmError> {
        self.fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))
    }

    /// `KVM_SET_DEBUGREGS`.
    ///
    /// # Errors
    /// DR6 or DR7 has bits set that a CPU does not allow (EINVAL).
    pub fn set_debug_regs(&mut self, regs: &k::kvm_debugregs) -> Result<(), KvmError> {
        self.fd.set_debug_regs(regs).map_err(failed("KVM_SET_DEBUGREGS"))
    }

    /// `KVM_GET_VCPU_EVENTS`.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn events(&self) -> Result<k::kvm_vcpu_events, KvmError> {
        self.fd.get_vcpu_events().map_err(failed("KVM_GET_VCPU_EVENTS"))
    }

    /// `KVM_SET_VCPU_EVENTS`.
    ///
    /// # Errors
    /// The combination is not one that a CPU can be in (EINVAL).
    pub fn set_events(&mut self, events: &k::kvm_vcpu_events) -> Result<(), KvmError> {
        self.fd.set_vcpu_events(events).map_err(failed("KVM_SET_VCPU_EVENTS"))
    }

    /// `KVM_GET_MP_STATE`.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn mp_state(&self) -> Result<k::kvm_mp_state, KvmError> {
        self.fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))
    }

    /// `KVM_SET_MP_STATE`.
    ///
    /// # Errors
    /// The state needs an in-kernel local APIC and there is none (EINVAL).
    pub fn set_mp_state(&mut self, state: k::kvm_mp_state) -> Result<(), KvmError> {
        self.fd.set_mp_state(state).map_err(failed("KVM_SET_MP_STATE"))
    }

    /// `KVM_GET_LAPIC`.
    ///
    /// # Errors
    /// There is no in-kernel local APIC.
    pub fn lapic(&self) -> Result<k::kvm_lapic_state, KvmError> {
        self.fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))
    }

    /// `KVM_SET_LAPIC`.
    ///
    /// # Errors
    /// There is no in-kernel local APIC.
    pub fn set_lapic(&mut self, state: &k::kvm_lapic_state) -> Result<(), KvmError> {
        self.fd.set_lapic(state).map_err(failed("KVM_SET_LAPIC"))
    }

    /// `KVM_GET_MSRS` of `indices`. An index that this host cannot read ends the kernel's loop;
    /// it is left out and the rest is read on.
    ///
    /// # Errors
    /// The ioctl itself failed.
    pub fn msrs(&self, indices: &[u32]) -> Result<Vec<(u32, u64)>, KvmError> {
        let mut read = Vec::with_capacity(indices.len());
        let mut rest = indices;
        while !rest.is_empty() {
            let entries: Vec<_> = rest
                .iter()
                .map(|&index| k::kvm_msr_entry { index, ..Default::default() })
                .collect();
            let mut msrs = msr_list(&entries)?;
            let done = self.fd.get_msrs(&mut msrs).map_err(failed("KVM_GET_MSRS"))?;
            read.extend(msrs.as_slice().iter().take(done).map(|m| (m.index, m.data)));
            rest = rest.get(done + 1..).unwrap_or(&[]);
        }
        Ok(read)
    }

    /// `KVM_SET_MSRS`.
    ///
    /// # Errors
    /// The first MSR that was refused, by its index; those before it are set.
    pub fn set_msrs(&mut self, values: &[(u32, u64)]) -> Result<(), KvmError> {
        let entries: Vec<_> = values
            .iter()
            .map(|&(index, data)| k::kvm_msr_entry { index, data, ..Default::default() })
            .collect();
        self.load_msrs(&msr_list(&entries)?)
    }

    /// `KVM_SET_MSRS` of a prepared list: no allocation.
    ///
    /// # Errors
    /// As [`set_msrs`](Self::set_msrs).
    pub fn load_msrs(&mut self, list: &k::Msrs) -> Result<(), KvmError> {
        let done = self.fd.set_msrs(list).map_err(failed("KVM_SET_MSRS"))?;
        match list.as_slice().get(done) {
            None => Ok(()),
            Some(entry) => Err(KvmError::Msr { call: "KVM_SET_MSRS", index: entry.index }),
        }
    }

    /// `KVM_X86_SETUP_MCE`: gives the vCPU `banks` machine-check banks, and no other feature of
    /// the machine-check architecture.
    ///
    /// # Errors
    /// KVM does not emulate that many (EINVAL).
    pub fn set_machine_check_banks(&mut self, banks: u8) -> Result<(), KvmError> {
        let mcg_cap = u64::from(banks);
        // SAFETY: the vCPU's own descriptor and a word that outlives the call.
        unsafe { raw::kvm_x86_setup_mce(self.fd.as_raw_fd(), &raw const mcg_cap) }
            .map(drop)
            .map_err(|source| KvmError::Ioctl { call: "KVM_X86_SETUP_MCE", source })
    }

    /// `KVM_SET_CPUID2`.
    ///
    /// # Errors
    /// The kernel refused the list; some do once the vCPU has run.
    pub fn set_cpuid(&mut self, cpuid: &k::CpuId) -> Result<(), KvmError> {
        self.fd.set_cpuid2(cpuid).map_err(failed("KVM_SET_CPUID2"))
    }

    /// `KVM_GET_CPUID2`: what the guest really sees, after the kernel's own masks.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn cpuid(&self) -> Result<Vec<k::kvm_cpuid_entry2>, KvmError> {
        let list =
            self.fd.get_cpuid2(k::KVM_MAX_CPUID_ENTRIES).map_err(failed("KVM_GET_CPUID2"))?;
        Ok(list.as_slice().to_vec())
    }

    /// `KVM_GET_TSC_KHZ`: how fast the guest's TSC counts. Nothing in the engine depends on it; it
    /// turns measured times into cycles.
    ///
    /// # Errors
    /// The host's own TSC is unstable, so that there is no such number (EIO).
    pub fn tsc_khz(&self) -> Result<u32, KvmError> {
        self.fd.get_tsc_khz().map_err(failed("KVM_GET_TSC_KHZ"))
    }

    /// `KVM_SET_GUEST_DEBUG`. Set it after RIP, never before: the kernel pins single-stepping to
    /// the RIP it finds.
    ///
    /// # Errors
    /// The kernel refused the flags.
    pub fn set_guest_debug(
        &mut self,
        control: u32,
        breakpoints: &[u64; 8],
    ) -> Result<(), KvmError> {
        let mut debug = k::kvm_guest_debug { control, ..Default::default() };
        debug.arch.debugreg = *breakpoints;
        self.fd.set_guest_debug(&debug).map_err(failed("KVM_SET_GUEST_DEBUG"))
    }

    /// `KVM_TRANSLATE`: the kernel's own walk of the guest's page tables. `None` where nothing is
    /// mapped.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn translate(&self, gva: u64) -> Result<Option<u64>, KvmError> {
        let answer = self.fd.translate_gva(gva).map_err(failed("KVM_TRANSLATE"))?;
        Ok((answer.valid != 0).then_some(answer.physical_address))
    }
}

/// A list in the layout that the MSR ioctls take.
fn msr_list(entries: &[k::kvm_msr_entry]) -> Result<k::Msrs, KvmError> {
    k::Msrs::from_entries(entries)
        .map_err(|_| KvmError::Ioctl { call: "KVM_SET_MSRS", source: Errno::E2BIG })
}
