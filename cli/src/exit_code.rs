//! What the command's exit status means. Never exits.

use dejavm_engine::outcome::Outcome;

/// Every exit status there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// Done, and the answer is yes.
    Success,
    /// Done, and the answer is no: not reproduced, differences, no crash, pages damaged.
    Negative,
    /// The command line makes no sense.
    Usage,
    /// The host or its KVM failed.
    Host,
    /// A file or a program cannot be used.
    Input,
    /// `run`: the time limit was reached, as `timeout` says it.
    TimedOut,
    /// `run`: the guest needs what is not supported.
    Unsupported,
    /// `run`: the memory or output limit was reached.
    OutOfMemory,
    /// `run`: the guest's own status.
    Guest(u8),
    /// `run`: the guest died of a signal, as a shell says it.
    Signal(u8),
}

/// The table for `--help`.
pub const HELP: &str = "\
Exit status:
    0  done; for `repro`: the same fault came at the same place
    1  done, and the answer is no: not reproduced, no crash found by --until-crash,
       differences found by --verify-every, damaged pages found by --check
    2  the command line makes no sense
    3  the host or its KVM failed (`dejavm doctor` tells more)
    4  a file or a program cannot be used
  `dejavm run` ends with the program's own status, and with
  124  when the time limit was reached
  125  when the program needs something that is not supported
  126  when the memory or output limit was reached
  128+n  when it died of signal n";

impl ExitCode {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Negative => 1,
            Self::Usage => 2,
            Self::Host => 3,
            Self::Input => 4,
            Self::TimedOut => 124,
            Self::Unsupported => 125,
            Self::OutOfMemory => 126,
            Self::Guest(status) => status,
            Self::Signal(number) => 128_u8.saturating_add(number),
        }
    }

    /// What `run` says of an outcome.
    pub const fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Exited { status } => Self::Guest(*status),
            Outcome::Crashed(fault) => Self::Signal(fault.signal.0),
            Outcome::Halted => Self::Success,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::OutOfMemory | Outcome::OutputLimit => Self::OutOfMemory,
            // No run of `run` is watched; that of `repro` reports it as a crash.
            Outcome::OutputMatched => Self::Negative,
            Outcome::Unsupported(_) => Self::Unsupported,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dejavm_engine::outcome::{Fault, Signal};

    #[test]
    fn an_outcome_has_the_status_that_a_shell_would_see() {
        let crash = |signal| {
            let fault = Fault { signal, rip: 0, access: None, vector: None, error_code: None };
            ExitCode::of(&Outcome::Crashed(fault)).code()
        };
        assert_eq!(crash(Signal::SEGV), 139);
        assert_eq!(crash(Signal(200)), 255);
        assert_eq!(ExitCode::of(&Outcome::Exited { status: 3 }).code(), 3);
        assert_eq!(ExitCode::of(&Outcome::TimedOut).code(), 124);
        assert_eq!(ExitCode::of(&Outcome::Halted).code(), 0);
    }

    #[test]
    fn every_fixed_number_is_in_the_help() {
        use ExitCode::*;
        for exit in [Success, Negative, Usage, Host, Input, TimedOut, Unsupported, OutOfMemory] {
            let number = format!("\n{:>5}  ", exit.code());
            assert!(HELP.contains(&number), "{exit:?}");
        }
    }
}
