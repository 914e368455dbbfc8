//! The floor under an exit: a raw `ioctl(KVM_RUN)` loop on a VM that has a snapshot's contents,
//! without the engine.
//!
//! Knows just enough to keep the guests of the benches going: it answers every system call with
//! 0, steps over a faulting instruction, and ends a round when the guest says that it is done.
//! Registers go through the run page here too, because a loop that reads them by ioctl would be
//! no floor. Never rewinds memory.

use dejavm_engine::guest::process::trap;
use dejavm_engine::machine::{GuestState, MachineSnapshot, bare};
use dejavm_engine::memory::SlotSpec;
use kvm_bindings as k;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// `_IO(KVMIO, 0x80)`.
const KVM_RUN: libc::c_ulong = 0xae80;
const EXIT_GROUP: u64 = libc::SYS_exit_group as u64;
/// Bytes of SYSCALL.
const SYSCALL_BYTES: u64 = 2;
/// Where a bare guest's VM keeps what real mode needs on some Intel CPUs: out of its RAM.
const IDENTITY_MAP_AT: u64 = 0xffff_c000;
const TSS_AT: usize = 0xffff_d000;
/// Bytes of `movb $1, (%rdi)`, the store that faults in `loops.c`.
const FAULTING_STORE_BYTES: u64 = 3;

/// One mapped slot.
#[derive(Debug)]
struct Ram {
    spec: SlotSpec,
    host: *mut u8,
}

#[derive(Clone, Copy, Debug)]
struct Segments {
    cs: k::kvm_segment,
    ss: k::kvm_segment,
}

/// A VM made without the engine.
#[derive(Debug)]
pub struct RawVm {
    vcpu: VcpuFd,
    fd: libc::c_int,
    snapshot: Arc<MachineSnapshot>,
    ram: Vec<Ram>,
    _vm: VmFd,
    /// The registers with which a round starts.
    start: k::kvm_regs,
    /// CS and SS of CPL 3.
    user: Segments,
}

impl RawVm {
    /// A VM at `snapshot`.
    ///
    /// # Panics
    /// The host refuses it.
    #[must_use]
    pub fn new(snapshot: &Arc<MachineSnapshot>) -> Self {
        let kvm = Kvm::new().expect("/dev/kvm");
        let vm = kvm.create_vm().expect("KVM_CREATE_VM");
        let bare = matches!(snapshot.guest, GuestState::Bare(_));
        if bare {
            vm.set_identity_map_address(IDENTITY_MAP_AT).expect("KVM_SET_IDENTITY_MAP_ADDR");
            vm.set_tss_address(TSS_AT).expect("KVM_SET_TSS_ADDR");
        }
        let ram: Vec<Ram> = (0..)
            .zip(&snapshot.layout)
            .map(|(number, spec)| map_slot(&vm, number, spec, snapshot))
            .collect();
        let mut vcpu = vm.create_vcpu(0).expect("KVM_CREATE_VCPU");
        load(&mut vcpu, snapshot);
        let mut start = snapshot.state.regs;
        if !bare {
            // Past the SYSCALL that reads the input, which finds its end.
            start.rip += SYSCALL_BYTES;
            start.rax = 0;
        }
        let fd = vcpu.as_raw_fd();
        let user = Segments { cs: trap::user_cs(), ss: trap::user_ss() };
        Self { vcpu, fd, snapshot: Arc::clone(snapshot), ram, _vm: vm, start, user }
    }

    /// One round: the registers of the snapshot, then exit after exit until the guest is done.
    /// Returns the number of exits.
    ///
    /// # Panics
    /// An exit that no guest of the benches makes.
    pub fn round(&mut self) -> u64 {
        let (start, sregs) = (self.start, self.snapshot.state.sregs);
        let run = self.vcpu.get_kvm_run();
        // SAFETY: `regs` is the view of the union that KVM_SYNC_X86_* speaks of.
        let sync = unsafe { &mut run.s.regs };
        sync.regs = start;
        run.kvm_dirty_regs = u64::from(k::KVM_SYNC_X86_REGS);
        if sync.sregs != sregs {
            sync.sregs = sregs;
            run.kvm_dirty_regs |= u64::from(k::KVM_SYNC_X86_SREGS);
        }
        let mut exits = 1;
        while self.step() {
            exits += 1;
        }
        exits
    }

    /// Runs to the next exit; false when the guest is done.
    fn step(&mut self) -> bool {
        // SAFETY: a vCPU's own descriptor; KVM_RUN takes no argument.
        let ran = unsafe { libc::ioctl(self.fd, KVM_RUN, 0) };
        assert_eq!(ran, 0, "KVM_RUN: {}", std::io::Error::last_os_error());
        let run = self.vcpu.get_kvm_run();
        match run.exit_reason {
            k::KVM_EXIT_HLT => true,
            k::KVM_EXIT_IO => {
                // SAFETY: the exit reason says which member the kernel filled.
                let port = unsafe { run.__bindgen_anon_1.io.port };
                if port == trap::PORT_TRAP {
                    return self.step_over_fault();
                }
                port != bare::PORT_DONE
            }
            k::KVM_EXIT_MMIO => self.serve_store(),
            reason => panic!("exit {reason} from the floor's guest"),
        }
    }

    /// A store: a system call when it is the gate's own.
    fn serve_store(&mut self) -> bool {
        let user = self.user;
        let run = self.vcpu.get_kvm_run();
        // SAFETY: as in `round`.
        let sync = unsafe { &mut run.s.regs };
        let regs = &mut sync.regs;
        if !trap::in_syscall_gate(regs.rip) {
            return true;
        }
        if regs.rax == EXIT_GROUP {
            return false;
        }
        regs.rip = regs.rcx;
        regs.rflags = trap::user_flags(regs.r11);
        regs.rax = 0;
        run.kvm_dirty_regs = u64::from(k::KVM_SYNC_X86_REGS);
        if sync.sregs.cs.selector != trap::USER_CS {
            (sync.sregs.cs, sync.sregs.ss) = (user.cs, user.ss);
            run.kvm_dirty_regs |= u64::from(k::KVM_SYNC_X86_SREGS);
        }
        true
    }

    /// Goes on after the instruction that faulted; any other exception is the guest's end.
    fn step_over_fault(&mut self) -> bool {
        const PAGE_FAULT: u8 = 14;
        let user = self.user;
        let k::kvm_regs { rip, rsp, .. } = self.vcpu.sync_regs().regs;
        if trap::vector_of(rip) != Some(PAGE_FAULT) {
            return false;
        }
        // Error code, RIP, CS, RFLAGS, RSP, as the CPU pushed them.
        let [_, fault_rip, _, rflags, fault_rsp] = self.words(rsp - trap::ENGINE_BASE);
        let run = self.vcpu.get_kvm_run();
        // SAFETY: as in `round`.
        let sync = unsafe { &mut run.s.regs };
        sync.regs.rip = fault_rip + FAULTING_STORE_BYTES;
        sync.regs.rflags = trap::user_flags(rflags);
        sync.regs.rsp = fault_rsp;
        (sync.sregs.cs, sync.sregs.ss) = (user.cs, user.ss);
        run.kvm_dirty_regs = u64::from(k::KVM_SYNC_X86_REGS | k::KVM_SYNC_X86_SREGS);
        true
    }

    /// Words at guest-physical `at`, in the first slot.
    fn words<const N: usize>(&self, at: u64) -> [u64; N] {
        let slot = &self.ram[0];
        assert!(at + 8 * N as u64 <= slot.spec.bytes);
        // SAFETY: the range was checked, and the guest does not run.
        unsafe { slot.host.add(at as usize).cast::<[u64; N]>().read_unaligned() }
    }
}

impl Drop for RawVm {
    fn drop(&mut self) {
        for slot in &self.ram {
            // SAFETY: this mapping is ours; the vCPU does not run, and the VM's descriptor is
            // closed right after this.
            unsafe { libc::munmap(slot.host.cast(), slot.spec.bytes as usize) };
        }
    }
}

/// Maps a slot, fills it with the snapshot's pages, and shows it to the VM.
fn map_slot(vm: &VmFd, number: u32, spec: &SlotSpec, snapshot: &MachineSnapshot) -> Ram {
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
    let host = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            spec.bytes as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    assert_ne!(host, libc::MAP_FAILED, "mmap of guest memory");
    let host = host.cast::<u8>();
    for extent in snapshot.pages.extents() {
        let at = extent.first.gpa().0;
        let bytes = snapshot.pages.extent_bytes(extent).expect("an extent of the snapshot");
        if at < spec.start.0 || at + bytes.len() as u64 > spec.start.0 + spec.bytes {
            continue;
        }
        // SAFETY: the range was just checked to lie inside the mapping.
        unsafe {
            let to = host.add((at - spec.start.0) as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }
    let region = k::kvm_userspace_memory_region {
        slot: number,
        flags: 0,
        guest_phys_addr: spec.start.0,
        memory_size: spec.bytes,
        userspace_addr: host as u64,
    };
    // SAFETY: the mapping lives until `RawVm` is dropped, and no reference into it is made.
    unsafe { vm.set_user_memory_region(region) }.expect("KVM_SET_USER_MEMORY_REGION");
    Ram { spec: *spec, host }
}

/// Loads the snapshot's state, and turns the run page's registers on.
fn load(vcpu: &mut VcpuFd, snapshot: &MachineSnapshot) {
    let state = &snapshot.state;
    let cpuid = k::CpuId::from_entries(&state.cpuid).expect("a CPUID list");
    vcpu.set_cpuid2(&cpuid).expect("KVM_SET_CPUID2");
    vcpu.set_sregs(&state.sregs).expect("KVM_SET_SREGS");
    vcpu.set_xcrs(&state.xcrs).expect("KVM_SET_XCRS");
    let msrs: Vec<_> = trap::msrs()
        .iter()
        .map(|&(index, data)| k::kvm_msr_entry { index, data, ..Default::default() })
        .collect();
    let msrs = k::Msrs::from_entries(&msrs).expect("a list of MSRs");
    vcpu.set_msrs(&msrs).expect("KVM_SET_MSRS");
    vcpu.set_regs(&state.regs).expect("KVM_SET_REGS");
    let run = vcpu.get_kvm_run();
    run.kvm_valid_regs = u64::from(k::KVM_SYNC_X86_REGS | k::KVM_SYNC_X86_SREGS);
    run.s.regs.regs = state.regs;
    run.s.regs.sregs = state.sregs;
}
