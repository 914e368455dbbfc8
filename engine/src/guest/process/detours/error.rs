//! Why a machine has no detours.

use crate::memory::{MemoryError, OutOfRam};
use crate::paging::TablesError;

/// Why a machine has no detours.
#[derive(Debug, thiserror::Error)]
pub enum DetourError {
    /// Their memory could not be added.
    #[error("add memory for detours")]
    Memory(#[from] MemoryError),
    /// The page tables do not fit.
    #[error("build the page tables of detours")]
    Tables(#[from] TablesError),
    /// A page that must be RAM is not.
    #[error("the pages of detours are not where they should be")]
    OutOfRam(#[from] OutOfRam),
    /// The program can write its own code.
    #[error("the program can write the code at {at:#x}")]
    WritableCode {
        /// A page of it.
        at: u64,
    },
    /// The program's address space has no room for trampolines.
    #[error("no room for trampolines near {at:#x}")]
    NoRoom {
        /// The image.
        at: u64,
    },
}
