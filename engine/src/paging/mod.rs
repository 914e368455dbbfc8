//! x86-64 page tables: the walk that the host does for any guest, and ([`Tables`]) the tables
//! that the engine builds for a process guest.
//!
//! Never decides which addresses a program may have; that is the process's business.

mod entry;
mod error;
mod frames;
mod guard;
mod tables;
mod walk;

pub(crate) use entry::leaf_entry;
pub use entry::{
    ACCESSED, ADDRESS_MASK, DIRTY, GUARDED, LARGE, NO_EXECUTE, PRESENT, USER, WRITABLE, entry_in,
    frame_of, may_write,
};
pub use error::TablesError;
pub use frames::Frames;
pub use tables::Tables;
pub use walk::{Translation, walk};
