//! What this host is, and what it can do: found by asking and trying, never guessed from a name.
//!
//! Never changes anything on the host, and never runs a machine: what it tries runs in VMs of a
//! few pages that are thrown away.

mod extensions;
mod require;

pub use extensions::Extension;
pub use require::{HostError, guest_cpuid, offered_cpuid, require};
