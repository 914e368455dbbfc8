//! How a run ended, as far as it matters to the rewind. Never asks a vCPU.

use crate::arch::exception;
use crate::outcome::Outcome;
use crate::state::Ending;

/// What a run's outcome says about where its vCPU stopped. A crash is reported by a stub's OUT or
/// by the guest's own; everything else, a triple fault among it, can stop it anywhere.
pub(super) fn ending(outcome: &Outcome) -> Ending {
    match outcome {
        Outcome::Exited { .. } => Ending::Asked,
        Outcome::Crashed(fault) if fault.vector != Some(exception::DOUBLE_FAULT) => {
            Ending::Reported
        }
        Outcome::Crashed(_)
        | Outcome::Halted
        | Outcome::TimedOut
        | Outcome::OutOfMemory
        | Outcome::OutputLimit
        | Outcome::OutputMatched
        | Outcome::Unsupported(_) => Ending::Interrupted,
    }
}
