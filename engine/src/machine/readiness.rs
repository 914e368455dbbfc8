//! Whether a machine may run, and why not. Never changes it.

use super::error::MachineError;
use crate::state::Ending;

/// Whether a machine may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// At its snapshot.
    Ready,
    /// Has run, to such an end.
    Ran(Ending),
    /// A rewind began and did not finish.
    Poisoned,
    /// This invariant does not hold, and nothing mends it.
    Broken(&'static str),
}

impl Readiness {
    /// Whether the machine is at its snapshot.
    pub(super) fn check(self) -> Result<(), MachineError> {
        match self {
            Self::Ready => Ok(()),
            Self::Ran(_) => Err(MachineError::NotRewound),
            Self::Poisoned => Err(MachineError::Poisoned),
            Self::Broken(invariant) => Err(MachineError::Invariant(invariant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_why_it_may_not_run() {
        assert!(Readiness::Ready.check().is_ok());
        let ran = Readiness::Ran(Ending::Asked).check();
        assert!(matches!(ran, Err(MachineError::NotRewound)));
        assert!(matches!(Readiness::Poisoned.check(), Err(MachineError::Poisoned)));
        let broken = Readiness::Broken("a page is where it was").check().unwrap_err().to_string();
        assert!(broken.contains("invariant") && broken.ends_with("a page is where it was"));
    }
}
