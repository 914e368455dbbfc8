//! What state that a file keeps is made of: long byte strings ([`Blob`]) and lists of bounded length.
//!
//! Never knows a file's format, nor what the state means: `snapshot` has the one, and each guest the
//! other.

mod blob;
mod bounded;

pub(crate) use crate::memory::SharedBytes;
pub use blob::{Blob, HasBlobs};
pub(crate) use blob::{fill, number};
pub(crate) use bounded::list as bounded_list;
