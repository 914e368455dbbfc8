//! What a system call leads to, for the machine. Never serves one.

use super::cpu::Done;
use crate::guest::process::Verdict;
use crate::outcome::{Fault, Outcome, Unsupported};

/// A system call's answer.
pub(super) enum Served {
    Value(u64),
    /// The registers say where it goes on.
    Elsewhere(Done),
    End(Outcome),
}

/// What becomes of a program that stood at `rip`.
pub(super) fn served(verdict: Verdict, done: Done, rip: u64) -> Served {
    let outcome = match verdict {
        Verdict::Return(value) => return Served::Value(value),
        Verdict::Resumed => return Served::Elsewhere(done),
        Verdict::Exit { status } => Outcome::Exited { status },
        Verdict::Signal(signal) => {
            Outcome::Crashed(Fault { signal, rip, access: None, vector: None, error_code: None })
        }
        Verdict::OutOfMemory => Outcome::OutOfMemory,
        Verdict::Hang => Outcome::TimedOut,
        Verdict::Unsupported(name) => Outcome::Unsupported(Unsupported::SystemCall { name }),
    };
    Served::End(outcome)
}
