//! Why one run of a guest ended, and the facts of a fault.
//!
//! An outcome says what the *guest* did; it is never an error of the host. Never decides what an
//! outcome is worth to a campaign.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The guest ended by itself: a process's exit status (0 to 255), or a bare guest's code.
    Exited {
        /// The status a shell would see.
        status: u8,
    },
    /// The guest faulted in a way that kills a process, or reported a crash itself.
    Crashed(Fault),
    /// A bare guest stopped at HLT with nothing left to wake it.
    Halted,
    /// The run passed its time limit, or waits for what can never come.
    TimedOut,
    /// The guest asked for more memory or mappings than its limits allow.
    OutOfMemory,
    /// The guest wrote more than its limit on output allows.
    OutputLimit,
    /// Whoever reads along what the program writes has seen what it looked for.
    OutputMatched,
    /// The guest needs something that this engine or this host does not provide.
    Unsupported(Unsupported),
}

/// A set of exit statuses. Bit `status % 8` of byte `status / 8` stands for `status`, which is how
/// the CPU's BT counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitStatuses(pub(crate) [u8; 32]);

impl ExitStatuses {
    /// The empty set.
    pub const NONE: Self = Self([0; 32]);

    /// Whether `status` is one of them.
    #[must_use]
    pub fn contains(&self, status: u8) -> bool {
        self.0.get(usize::from(status / 8)).is_some_and(|byte| byte & (1 << (status % 8)) != 0)
    }

    /// All of them, the lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|status| self.contains(*status))
    }
}

impl FromIterator<u8> for ExitStatuses {
    fn from_iter<I: IntoIterator<Item = u8>>(statuses: I) -> Self {
        let mut set = Self::NONE;
        for status in statuses {
            if let Some(byte) = set.0.get_mut(usize::from(status / 8)) {
                *byte |= 1 << (status % 8);
            }
        }
        set
    }
}

/// The facts of a fault, as a kernel would tell them to a debugger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The signal a Linux kernel would have killed the process with.
    pub signal: Signal,
    /// Where the faulting instruction is (guest-virtual).
    pub rip: u64,
    /// The address it touched and how, for a memory fault.
    pub access: Option<MemoryAccess>,
    /// The CPU's exception vector (Intel SDM vol. 3, 6.15), when an exception was the cause.
    pub vector: Option<u8>,
    /// The exception's error code, when it has one.
    pub error_code: Option<u32>,
}

/// One access to memory that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryAccess {
    /// The guest-virtual address; `None` when the CPU does not tell it (a general-protection
    /// fault on a non-canonical address).
    pub address: Option<u64>,
    /// What was tried.
    pub kind: Access,
}

/// What an access to memory tried to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// The signals that end a process, by their Linux x86-64 numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signal(pub u8);

impl Signal {
    /// Illegal instruction.
    pub const ILL: Self = Self(4);
    /// Trace or breakpoint trap.
    pub const TRAP: Self = Self(5);
    /// `abort()`.
    pub const ABRT: Self = Self(6);
    /// Access to a mapping beyond the end of its object, or misalignment.
    pub const BUS: Self = Self(7);
    /// Integer divide error or unmasked floating-point exception.
    pub const FPE: Self = Self(8);
    /// Invalid memory reference.
    pub const SEGV: Self = Self(11);

    /// The conventional name, such as `SIGSEGV`; `SIG<number>` for those without one here.
    #[must_use]
    pub fn name(self) -> String {
        let name = match self.0 {
            1 => "SIGHUP",
            2 => "SIGINT",
            3 => "SIGQUIT",
            4 => "SIGILL",
            5 => "SIGTRAP",
            6 => "SIGABRT",
            7 => "SIGBUS",
            8 => "SIGFPE",
            9 => "SIGKILL",
            10 => "SIGUSR1",
            11 => "SIGSEGV",
            12 => "SIGUSR2",
            13 => "SIGPIPE",
            14 => "SIGALRM",
            15 => "SIGTERM",
            31 => "SIGSYS",
            n => return format!("SIG{n}"),
        };
        name.to_owned()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// What the guest needed and could not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unsupported {
    /// A system call the program cannot go on without.
    SystemCall {
        /// Its name, or `syscall_<number>`.
        name: String,
    },
    /// An instruction that this host's KVM cannot emulate.
    Instruction {
        /// Where it is.
        rip: u64,
        /// Its first bytes, as many as KVM reported.
        bytes: Vec<u8>,
        /// The code segment's default operand size: 16, 32 or 64.
        bits: u8,
    },
    /// A VM exit that the engine has no meaning for.
    Exit {
        /// `kvm_run.exit_reason`.
        reason: u32,
        /// The first words of the exit's own data.
        detail: [u64; 2],
    },
}

impl Unsupported {
    /// The same, with the address of the instruction and its code segment's size, which an exit
    /// does not tell itself.
    #[must_use]
    pub fn at(self, rip: u64, bits: u8) -> Self {
        match self {
            Self::Instruction { bytes, .. } => Self::Instruction { rip, bytes, bits },
            other @ (Self::SystemCall { .. } | Self::Exit { .. }) => other,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { status } => write!(f, "exited with status {status}"),
            Self::Crashed(fault) => write!(f, "crashed: {fault}"),
            Self::Halted => f.write_str("halted"),
            Self::TimedOut => f.write_str("passed its time limit"),
            Self::OutOfMemory => f.write_str("passed its memory limit"),
            Self::OutputLimit => f.write_str("passed its output limit"),
            Self::OutputMatched => f.write_str("wrote what was looked for"),
            Self::Unsupported(what) => write!(f, "needs what is not supported: {what}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:#x}", self.signal, self.rip)?;
        match self.access {
            Some(MemoryAccess { address: Some(at), kind }) => write!(f, " ({kind} of {at:#x})"),
            Some(MemoryAccess { address: None, kind: _ }) => {
                f.write_str(" (non-canonical address or privileged instruction)")
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "execution",
        })
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SystemCall { name } => write!(f, "system call {name}"),
            Self::Instruction { rip, bytes, bits } => {
                write!(f, "an instruction at {rip:#x} that this host's KVM cannot emulate")?;
                let (text, length) = disassemble(bytes, *rip, *bits)
                    .unwrap_or_else(|| ("unknown".to_owned(), bytes.len()));
                let bytes: Vec<_> = bytes.iter().take(length).map(|b| format!("{b:02x}")).collect();
                if bytes.is_empty() {
                    return Ok(());
                }
                write!(f, ": {text} ({})", bytes.join(" "))
            }
            Self::Exit { reason, detail } => {
                write!(f, "VM exit {reason} ({:#x}, {:#x})", detail[0], detail[1])
            }
        }
    }
}

/// The instruction that starts `bytes`, as an assembler writes it, and its length in bytes; `None`
/// when it is none.
fn disassemble(bytes: &[u8], rip: u64, bits: u8) -> Option<(String, usize)> {
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
    let bits = if matches!(bits, 16 | 32) { u32::from(bits) } else { 64 };
    let mut decoder = Decoder::with_ip(bits, bytes, rip, DecoderOptions::NONE);
    let instruction = decoder.can_decode().then(|| decoder.decode())?;
    let mut text = String::new();
    IntelFormatter::new().format(&instruction, &mut text);
    (!instruction.is_invalid()).then_some((text, instruction.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_statuses_holds_what_was_put_in_and_nothing_else() {
        let statuses: ExitStatuses = [255, 3, 0, 3].into_iter().collect();
        assert_eq!(statuses.iter().collect::<Vec<_>>(), [0, 3, 255]);
        assert_eq!((statuses.0[0], statuses.0[31]), (0b1001, 0x80), "as BT counts");
        assert!(!ExitStatuses::NONE.contains(0));
    }

    #[test]
    fn an_instruction_that_cannot_run_is_named() {
        let unsupported = Unsupported::Exit { reason: 1, detail: [0; 2] };
        assert_eq!(unsupported.clone().at(1, 64), unsupported);
        let bytes = vec![0x0f, 0x28, 0xc1, 0x90];
        let movaps = Unsupported::Instruction { rip: 0, bytes, bits: 0 }.at(0x8000, 64);
        let text = movaps.to_string();
        assert!(text.contains("movaps xmm0,xmm1 (0f 28 c1)"), "{text}");
        let nothing = Unsupported::Instruction { rip: 0, bytes: Vec::new(), bits: 16 };
        assert!(nothing.to_string().ends_with("emulate"), "{nothing}");
    }
}
