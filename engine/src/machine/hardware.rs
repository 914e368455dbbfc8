//! The pieces of one VM, made and dropped in the right order. Never interprets an exit.

use super::error::MachineError;
use crate::host;
use crate::kvm::{DIRTY_RING_ENTRIES_MAX, KvmError, System, Vm};
use crate::memory::{GuestMemory, SlotSpec};
use crate::state::{self, CpuState, Parts};
use crate::vcpu::Vcpu;
use kvm_bindings as k;
use nix::errno::Errno;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A VM with one vCPU and its memory. Fields drop in order: the vCPU before the memory it runs
/// in, the VM last.
#[derive(Debug)]
pub struct Hardware {
    /// The vCPU.
    pub vcpu: Vcpu,
    /// Guest RAM.
    pub memory: GuestMemory,
    /// Which parts of the state exist.
    pub parts: Parts,
    /// The VM.
    pub vm: Arc<Vm>,
}

/// How a VM reports which pages the guest has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirtySource {
    /// KVM's dirty log: a bitmap for each slot, whose copy costs more the larger the slot is.
    #[default]
    Log,
    /// A dirty ring of at least this many entries; the kernel rounds up. Whoever runs the vCPU must
    /// answer [`Exit::DirtyRingFull`](crate::exit::Exit).
    Ring {
        /// Entries.
        entries: u32,
    },
    /// A ring with room for every page, as far as the kernel makes such rings, where the host has
    /// any; else the log.
    RingOrLog,
}

/// Entries that a ring has beyond the pages that all fit in it: what the kernel keeps back for
/// itself, at most 576 (`kvm_dirty_ring_get_rsvd_entries`, virt/kvm/dirty_ring.c), and a few for
/// pages that have more than one.
const SPARE_ENTRIES: u64 = 1024;

impl DirtySource {
    /// Gives `vm` its ring, if it is to have one, and returns how many entries it has.
    fn enable(
        self,
        system: &System,
        vm: &Vm,
        layout: &[SlotSpec],
    ) -> Result<Option<u32>, KvmError> {
        let capability = system.dirty_ring();
        let entries = match self {
            Self::Log => return Ok(None),
            Self::RingOrLog if capability.is_none() => return Ok(None),
            Self::RingOrLog => {
                let logged = layout.iter().filter(|slot| slot.log_dirty);
                let pages: u64 = logged.map(|slot| slot.pages() as u64).sum();
                let wanted = pages.saturating_add(SPARE_ENTRIES);
                u32::try_from(wanted).unwrap_or(u32::MAX).min(DIRTY_RING_ENTRIES_MAX)
            }
            Self::Ring { entries } => entries,
        };
        let missing = || KvmError::Ioctl { call: "KVM_CAP_DIRTY_LOG_RING", source: Errno::ENOTSUP };
        vm.enable_dirty_ring(capability.ok_or_else(missing)?, entries).map(Some)
    }
}

/// How a VM is made.
#[derive(Clone, Debug, Default)]
pub struct VmSpec {
    /// Memory slots.
    pub layout: Vec<SlotSpec>,
    /// Log the guest's writes, in slots that want it, before anything is in them.
    pub log_from_start: bool,
    /// How the guest's writes are reported.
    pub dirty: DirtySource,
    /// `KVM_CREATE_IRQCHIP`.
    pub irqchip: bool,
    /// `KVM_CREATE_PIT2`.
    pub pit: bool,
    /// `KVM_SET_TSS_ADDR`, for guests that use real mode.
    pub tss_address: Option<u32>,
    /// `KVM_SET_IDENTITY_MAP_ADDR`, likewise.
    pub identity_map_address: Option<u64>,
}

/// MSRs that a guest can write and that the kernel's index list leaves out: DEBUGCTL, the
/// variable and fixed MTRRs and their default type, and the machine-check bank, whose address and
/// misc words KVM keeps as the guest writes them (Intel SDM vol. 4, table 2-2; `set_msr_mce`,
/// arch/x86/kvm/x86.c); AMD's VM_CR and DE_CFG (`svm_set_msr`, arch/x86/kvm/svm/svm.c). The tests
/// look for more, in a sweep over all of the usual ranges.
const UNLISTED_MSRS: [RangeInclusive<u32>; 9] = [
    0x1d9..=0x1d9,
    0x200..=0x20f,
    0x250..=0x250,
    0x258..=0x259,
    0x268..=0x26f,
    0x2ff..=0x2ff,
    0x400..=0x403,
    0xc001_0114..=0xc001_0114,
    0xc001_1029..=0xc001_1029,
];

impl Hardware {
    /// Makes a VM that has not run.
    ///
    /// # Errors
    /// The host lacks what the engine needs, or a KVM call failed.
    pub fn new(system: &System, spec: &VmSpec) -> Result<Self, MachineError> {
        host::require(system)?;
        crate::kvm::install_kick_handler()?;
        let vm = Arc::new(system.create_vm()?);
        // Before the first vCPU.
        let ring_entries = spec.dirty.enable(system, &vm, &spec.layout)?;
        if ring_entries.is_none() {
            // Manual protection, without INITIALLY_SET: the log starts with every page protected.
            vm.enable(k::KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 1)?;
        }
        if system.check_extension(k::KVM_CAP_EXIT_ON_EMULATION_FAILURE) > 0 {
            // So that an outcome can name the instruction that KVM cannot emulate.
            vm.enable(k::KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1)?;
        }
        let triple_fault = system.check_extension(k::KVM_CAP_X86_TRIPLE_FAULT_EVENT) > 0;
        if triple_fault {
            // So that one which a stopped run left pending is among the events, and goes.
            vm.enable(k::KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1)?;
        }
        let mut memory = if spec.log_from_start {
            GuestMemory::logged(&vm, &spec.layout)?
        } else {
            GuestMemory::new(&vm, &spec.layout)?
        };
        // Both addresses before the first vCPU; the kernel refuses the second one after it.
        if let Some(at) = spec.tss_address {
            vm.set_tss_address(at)?;
        }
        if let Some(at) = spec.identity_map_address {
            vm.set_identity_map_address(at)?;
        }
        if spec.irqchip {
            vm.create_irqchip()?;
        }
        if spec.pit {
            vm.create_pit()?;
        }
        let mut vcpu = Vcpu::new(vm.create_vcpu()?)?;
        if let Some(entries) = ring_entries {
            memory.use_dirty_ring(vcpu.fd().map_dirty_ring(entries)?);
        }
        let cpuid = host::offered_cpuid(system)?;
        vcpu.fd().set_cpuid(&cpuid)?;
        if system.check_extension(k::KVM_CAP_MCE) > 0 {
            // The fewest that KVM takes, instead of 32. Each has four MSRs that the guest can
            // write, and one KVM_SET_MSRS takes 255 (MAX_IO_MSRS).
            vcpu.fd().set_machine_check_banks(1)?;
        }
        let mut candidates = system.msr_index_list()?;
        candidates.extend(UNLISTED_MSRS.iter().flat_map(Clone::clone));
        let msrs = state::savable_msrs(&mut vcpu, &candidates)?;
        let pkru = state::has_pkru(cpuid.as_slice());
        let parts = Parts { msrs, irqchip: spec.irqchip, pit: spec.pit, pkru, triple_fault };
        Ok(Self { vcpu, memory, parts, vm })
    }

    /// Captures everything but memory.
    ///
    /// # Errors
    /// A KVM call failed.
    pub fn capture(&mut self) -> Result<CpuState, MachineError> {
        Ok(CpuState::capture(&mut self.vcpu, &self.vm, &self.parts)?)
    }
}
