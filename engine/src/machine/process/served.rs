//! What a system call leads to, for the machine. Never serves one.

use super::cpu::Done;
use crate::linux::abi::syscall::SyscallAction;
use crate::outcome::{Fault, Outcome, Unsupported};

/// A system call's answer.
pub(super) enum Served {
    Value(u64),
    /// The registers say where it goes on.
    Elsewhere(Done),
    End(Outcome),
}

/// What becomes of a program that stood at `rip`.
pub(super) fn served(verdict: SyscallAction, done: Done, rip: u64) -> Served {
    let outcome = match verdict {
        SyscallAction::Return(value) => return Served::Value(value),
        SyscallAction::Resumed => return Served::Elsewhere(done),
        SyscallAction::Exit { status } => Outcome::Exited { status },
        SyscallAction::Signal(signal) => {
            Outcome::Crashed(Fault { signal, rip, access: None, vector: None, error_code: None })
        }
        SyscallAction::OutOfMemory => Outcome::OutOfMemory,
        SyscallAction::OutputLimit => Outcome::OutputLimit,
        SyscallAction::Hang => Outcome::TimedOut,
        SyscallAction::Unsupported(name) => Outcome::Unsupported(Unsupported::SystemCall { name }),
    };
    Served::End(outcome)
}
