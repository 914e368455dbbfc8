//! dejavm's engine: a KVM microVM that can be put back to a snapshot in microseconds.
//!
//! The engine never knows what a corpus or a campaign is. `docs/ARCHITECTURE.md` has the map of
//! the modules; each uses only what stands above it there.

#![deny(unsafe_code)]

pub mod address;
pub mod arch;
pub mod coverage;
pub mod device;
pub mod exit;
pub mod guest;
pub mod host;
pub mod kvm;
pub mod machine;
pub mod memory;
pub mod outcome;
pub mod paging;
pub mod rewind;
pub mod snapshot;
pub mod state;
pub mod symbols;
mod text;
pub mod vcpu;
