//! Why a snapshot file could not be written or read, and what is wrong with one.

use super::version::VERSION;
use crate::address::Gpa;
use crate::memory::MemoryError;
use crate::text::OneLine;
use std::io;
use std::path::{Path, PathBuf};

/// Why a snapshot file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file or its folder could not be used.
    #[error("{operation} {}", OneLine(path))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is not a snapshot, or not a whole one.
    #[error("{} is not a usable snapshot", OneLine(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: Problem,
    },
    /// The snapshot's own pages are not where its extents say.
    #[error("the snapshot's pages from {first} on are not in its memory: nothing was written")]
    MissingPages {
        /// Where they start.
        first: Gpa,
    },
    /// The byte strings do not lie where the header says.
    #[error(
        "byte string {number} of the snapshot overlaps what lies before it: nothing was written"
    )]
    Overlap {
        /// Its number.
        number: usize,
    },
    /// A part could not be put into bytes.
    #[error("encode the snapshot's {section}")]
    Encode {
        /// Section.
        section: &'static str,
        /// Why.
        source: Box<bincode::error::EncodeError>,
    },
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Other first bytes.
    #[error("it does not start with dejavm's magic number")]
    Magic,
    /// A version that this program does not read.
    #[error(
        "its format version is {found}, this program reads version {VERSION}: take the snapshot again"
    )]
    Version {
        /// The file's version.
        found: u32,
    },
    /// It ends early.
    #[error("it is truncated: {have} bytes of at least {need}")]
    Truncated {
        /// Its length in bytes.
        have: u64,
        /// What it should have.
        need: u64,
    },
    /// Bytes were changed.
    #[error("the checksum of its {} does not match", OneLine(part.as_ref()))]
    Checksum {
        /// Which part.
        part: String,
    },
    /// A section is missing or does not decode.
    #[error("its section {section} is missing or malformed")]
    Section {
        /// Which.
        section: &'static str,
    },
    /// Bytes that no checksum is over were changed.
    #[error("its {part} is not zeros")]
    NotZero {
        /// Which part.
        part: &'static str,
    },
    /// It is a folder, a device or a pipe.
    #[error("it is no regular file")]
    NotAFile,
    /// It goes on where it should end.
    #[error("it is {have} bytes long and should be {need}: something was added to it")]
    TooLong {
        /// Its length in bytes.
        have: u64,
        /// What it should have.
        need: u64,
    },
    /// No VM can have such memory.
    #[error("its header has memory that no VM can have")]
    Layout(#[source] MemoryError),
    /// It claims no memory, or more than any guest may have.
    #[error("its header says that it has {bytes} bytes of RAM")]
    Ram {
        /// How much.
        bytes: u64,
    },
    /// Pages outside of its own memory.
    #[error("its pages from {first} on are outside of its own RAM")]
    OutsideRam {
        /// Where they start.
        first: Gpa,
    },
    /// A section decodes, and holds what no guest can have.
    #[error("its section guest is unsound: {what}")]
    Unsound {
        /// What is wrong.
        what: &'static str,
    },
    /// The pages do not fit together.
    #[error("its pages cannot be used")]
    Pages(#[source] io::Error),
    /// The byte strings do not, or cannot be mapped.
    #[error("its byte strings cannot be used")]
    Blobs(#[source] io::Error),
}

/// A failure of the file system, as an error of this operation on this file.
pub(super) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { operation, path: path.to_owned(), source }
}
