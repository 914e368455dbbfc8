//! The raw run page as an [`Exit`]: borrowed, without allocation, and with no catch-all that
//! loses data. Never decides what an exit means to a guest.

use crate::address::Gpa;
use crate::kvm::{Ran, RawExit, VcpuFd};
use crate::outcome::Unsupported;
use kvm_bindings as k;

/// Why `KVM_RUN` returned.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit<'a> {
    /// `KVM_EXIT_IO`, out: OUT or OUTS. `data` holds every element of a string operation.
    PortOut {
        /// I/O port.
        port: u16,
        /// Bytes of one element: 1, 2 or 4.
        size: u8,
        /// What the guest wrote.
        data: &'a [u8],
    },
    /// `KVM_EXIT_IO`, in: IN or INS. The answer goes into `data`.
    PortIn {
        /// I/O port.
        port: u16,
        /// Bytes of one element: 1, 2 or 4.
        size: u8,
        /// Where the guest's answer goes.
        data: &'a mut [u8],
    },
    /// `KVM_EXIT_MMIO`, store to an address that no memory slot covers.
    MmioWrite {
        /// Guest-physical address.
        at: Gpa,
        /// What the guest stored, 1 to 8 bytes.
        data: &'a [u8],
    },
    /// `KVM_EXIT_MMIO`, load.
    MmioRead {
        /// Guest-physical address.
        at: Gpa,
        /// Where the guest's answer goes.
        data: &'a mut [u8],
    },
    /// `KVM_EXIT_HLT`: HLT, in a VM whose local APIC is not in the kernel.
    Halt,
    /// `KVM_EXIT_SHUTDOWN`: a triple fault.
    Shutdown,
    /// `KVM_EXIT_DEBUG`: single-step or breakpoint, as `KVM_SET_GUEST_DEBUG` asked.
    Debug {
        /// 1 (#DB) or 3 (#BP).
        vector: u32,
        /// Linear address of the instruction.
        pc: u64,
        /// DR6 as the guest would see it.
        dr6: u64,
    },
    /// `KVM_EXIT_EXCEPTION`: never seen on x86 KVM; kept because the API names it.
    Exception {
        /// Exception vector.
        vector: u32,
        /// Its error code.
        error_code: u32,
    },
    /// `KVM_EXIT_INTERNAL_ERROR`, suberror emulation: an instruction KVM had to emulate and cannot.
    EmulationFailure {
        /// The instruction's bytes; empty when the kernel does not tell them.
        bytes: &'a [u8],
    },
    /// `KVM_EXIT_INTERNAL_ERROR`, any other suberror.
    InternalError {
        /// `KVM_INTERNAL_ERROR_*`.
        suberror: u32,
        /// The words that the kernel gave.
        data: &'a [u64],
    },
    /// `KVM_EXIT_FAIL_ENTRY`: the hardware refused the guest's state.
    FailEntry {
        /// Intel: VM-instruction error; AMD: exit code.
        reason: u64,
        /// Physical CPU.
        cpu: u32,
    },
    /// `KVM_EXIT_X86_RDMSR`: handed to this process ([`Vm::filter_msrs`](crate::kvm::Vm)), the
    /// answer in `data`.
    MsrRead {
        /// MSR number.
        index: u32,
        /// `KVM_MSR_EXIT_REASON_*`: filtered, unknown to KVM, or refused by it.
        reason: u32,
        /// The answer.
        data: &'a mut u64,
        /// 1 makes the instruction raise #GP.
        error: &'a mut u8,
    },
    /// `KVM_EXIT_X86_WRMSR`: likewise.
    MsrWrite {
        /// MSR number.
        index: u32,
        /// `KVM_MSR_EXIT_REASON_*`.
        reason: u32,
        /// The value.
        data: u64,
        /// 1 makes the instruction raise #GP.
        error: &'a mut u8,
    },
    /// `KVM_EXIT_IRQ_WINDOW_OPEN`: the guest can take an interrupt now.
    InterruptWindow,
    /// `KVM_EXIT_SET_TPR`: the guest lowered CR8, in a VM whose local APIC is not in the kernel.
    TaskPriority,
    /// `KVM_EXIT_SYSTEM_EVENT`: the guest asked for reset or power-off.
    SystemEvent {
        /// `KVM_SYSTEM_EVENT_*`.
        kind: u32,
    },
    /// `KVM_EXIT_DIRTY_RING_FULL`: the guest cannot be entered until the dirty ring has room.
    DirtyRingFull,
    /// EINTR: a signal or a kick.
    Interrupted,
    /// Any reason that has no variant here, with the first words of its data.
    Unexpected {
        /// `kvm_run.exit_reason`.
        reason: u32,
        /// First words of the union.
        detail: [u64; 2],
    },
}

impl<'a> Exit<'a> {
    /// Parses what [`VcpuFd::run`] left behind.
    pub fn parse(ran: Ran, vcpu: &'a mut VcpuFd) -> Self {
        if ran == Ran::Interrupted {
            return Self::Interrupted;
        }
        match vcpu.exit() {
            RawExit::Io { port, size, out: true, data } => Self::PortOut { port, size, data },
            RawExit::Io { port, size, out: false, data } => Self::PortIn { port, size, data },
            RawExit::Mmio { at, write: true, data } => Self::MmioWrite { at: Gpa(at), data },
            RawExit::Mmio { at, write: false, data } => Self::MmioRead { at: Gpa(at), data },
            RawExit::InternalError {
                suberror: k::KVM_INTERNAL_ERROR_EMULATION,
                instruction,
                ..
            } => Self::EmulationFailure { bytes: instruction },
            RawExit::InternalError { suberror, data, .. } => Self::InternalError { suberror, data },
            RawExit::FailEntry { reason, cpu } => Self::FailEntry { reason, cpu },
            RawExit::Exception { vector, error_code } => Self::Exception { vector, error_code },
            RawExit::Debug { vector, pc, dr6 } => Self::Debug { vector, pc, dr6 },
            RawExit::Msr { index, write: false, reason, data, error } => {
                Self::MsrRead { index, reason, data, error }
            }
            RawExit::Msr { index, write: true, reason, data, error } => {
                Self::MsrWrite { index, reason, data: *data, error }
            }
            RawExit::SystemEvent { kind } => Self::SystemEvent { kind },
            RawExit::Plain { reason: k::KVM_EXIT_HLT, .. } => Self::Halt,
            RawExit::Plain { reason: k::KVM_EXIT_SHUTDOWN, .. } => Self::Shutdown,
            RawExit::Plain { reason: k::KVM_EXIT_INTR, .. } => Self::Interrupted,
            RawExit::Plain { reason: k::KVM_EXIT_IRQ_WINDOW_OPEN, .. } => Self::InterruptWindow,
            RawExit::Plain { reason: k::KVM_EXIT_SET_TPR, .. } => Self::TaskPriority,
            RawExit::Plain { reason: k::KVM_EXIT_DIRTY_RING_FULL, .. } => Self::DirtyRingFull,
            RawExit::Plain { reason, detail } => Self::Unexpected { reason, detail },
        }
    }

    /// This exit as the reason why a guest cannot go on, `rip` being where it stopped.
    #[must_use]
    pub fn unsupported(&self, rip: u64) -> Unsupported {
        let exit = |reason, a, b| Unsupported::Exit { reason, detail: [a, b] };
        match *self {
            Self::EmulationFailure { bytes } => {
                Unsupported::Instruction { rip, bytes: bytes.to_vec(), bits: 64 }
            }
            Self::InternalError { suberror, data } => exit(
                k::KVM_EXIT_INTERNAL_ERROR,
                u64::from(suberror),
                // Not every suberror comes with data.
                data.first().copied().unwrap_or(0),
            ),
            Self::FailEntry { reason, cpu } => exit(k::KVM_EXIT_FAIL_ENTRY, reason, u64::from(cpu)),
            Self::PortOut { port, .. } => exit(k::KVM_EXIT_IO, u64::from(port), 1),
            Self::PortIn { port, .. } => exit(k::KVM_EXIT_IO, u64::from(port), 0),
            Self::MmioWrite { at, .. } => exit(k::KVM_EXIT_MMIO, at.0, 1),
            Self::MmioRead { at, .. } => exit(k::KVM_EXIT_MMIO, at.0, 0),
            Self::Halt => exit(k::KVM_EXIT_HLT, rip, 0),
            Self::Shutdown => exit(k::KVM_EXIT_SHUTDOWN, rip, 0),
            Self::Debug { vector, pc, .. } => exit(k::KVM_EXIT_DEBUG, u64::from(vector), pc),
            Self::Exception { vector, error_code } => {
                exit(k::KVM_EXIT_EXCEPTION, u64::from(vector), u64::from(error_code))
            }
            Self::MsrRead { index, reason, .. } => {
                exit(k::KVM_EXIT_X86_RDMSR, u64::from(index), u64::from(reason))
            }
            Self::MsrWrite { index, data, .. } => {
                exit(k::KVM_EXIT_X86_WRMSR, u64::from(index), data)
            }
            Self::InterruptWindow => exit(k::KVM_EXIT_IRQ_WINDOW_OPEN, rip, 0),
            Self::TaskPriority => exit(k::KVM_EXIT_SET_TPR, rip, 0),
            Self::SystemEvent { kind } => exit(k::KVM_EXIT_SYSTEM_EVENT, u64::from(kind), 0),
            Self::DirtyRingFull => exit(k::KVM_EXIT_DIRTY_RING_FULL, rip, 0),
            Self::Interrupted => exit(k::KVM_EXIT_INTR, rip, 0),
            Self::Unexpected { reason, detail } => Unsupported::Exit { reason, detail },
        }
    }
}
