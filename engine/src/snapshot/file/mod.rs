//! The snapshot file: a checksummed header, then page data that is mapped and never read.
//!
//! The format is described in `docs/snapshot-format.md`. It carries sections of bytes by name and
//! does not know what they mean; long byte strings in them lie beside the pages and are mapped too
//! ([`super::HasBlobs`]). It is the only place that uses bincode, whose releases ended
//! with 2.0.1 (pinned): replacing it would change this file and the format's version, no more.
//!
//! Never trusts a file: lengths are checked before they are believed, and opening costs the
//! header's size, not the memory's.

mod error;
mod header;
mod open;
mod save;
#[cfg(test)]
pub(crate) mod shape;
mod version;
mod whole;

pub use error::{FileError, Problem};
pub use open::{Info, check_data, info};
pub use version::{MAGIC, VERSION};
