//! What a host must have before a machine is made on it. Never tries anything.

use super::extensions::{EXTENSIONS, Known};
use crate::kvm::System;

/// Why no machine can run on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// An extension is missing.
    #[error("this host's KVM lacks {name}: {costs}; {remedy}")]
    Lacks {
        /// The extension's name in the KVM API.
        name: &'static str,
        /// What the engine cannot do without it.
        costs: &'static str,
        /// Where to get it.
        remedy: &'static str,
    },
}

/// Refuses a host without the extensions that the engine cannot do without, the first one missing
/// by name. Costs a system call for each.
///
/// # Errors
/// An extension is missing.
pub fn require(system: &System) -> Result<(), HostError> {
    for extension in EXTENSIONS.iter().filter(|extension| extension.needed) {
        if !extension.is_in(system.check_extension(extension.number)) {
            let Known { name, costs, remedy, .. } = *extension;
            return Err(HostError::Lacks { name, costs, remedy });
        }
    }
    Ok(())
}
