//! An immutable moment of a VM: pages and state, shared by every machine that rewinds to it.
//!
//! Never touches a vCPU: capturing is the machine's work, going back is `rewind`'s. [`mod@file`] is
//! the format on disk, and does not know what the state means.

mod cpu;
pub mod file;
mod moment;
mod stored;

pub use crate::stored::{Blob, HasBlobs};
pub use cpu::CpuNeeds;
pub use file::{FileError, Info};
pub use moment::Snapshot;
pub use stored::{Stored, Unsound};
