//! An immutable moment of a VM: pages and state, shared by every machine that rewinds to it.
//!
//! Never touches a vCPU: capturing is the machine's work, going back is `rewind`'s. [`mod@file`] is
//! the format on disk, and does not know what the state means.

mod blob;
mod bounded;
mod cpu;
pub mod file;
mod moment;
mod stored;

pub use blob::{Blob, HasBlobs};
#[cfg(test)]
pub(crate) use blob::{fill, number};
pub(crate) use bounded::list as bounded_list;
pub use cpu::CpuNeeds;
pub use file::{FileError, Info};
pub use moment::Snapshot;
pub use stored::{Stored, Unsound};
