//! The snapshot file: a checksummed header, then page data that is mapped and never read.
//!
//! The format is described in `docs/snapshot-format.md`. It carries sections of bytes by name and
//! does not know what they mean; long byte strings in them lie beside the pages and are mapped too
//! ([`super::HasBlobs`]). It is the only place that uses bincode, whose releases ended
//! with 2.0.1 (pinned): replacing it would change this file and the format's version, no more.
//!
//! Never trusts a file: lengths are checked before they are believed, and opening costs the
//! header's size, not the memory's.

mod header;
#[cfg(test)]
pub(crate) mod shape;
mod whole;

pub use header::{MAGIC, VERSION};

use super::{Snapshot, Stored, Unsound};
use crate::address::{Gpa, PAGE_SIZE};
use crate::memory::{Extent, MemoryError, PageFile, SharedBytes, SlotSpec};
use crate::stored;
use crate::text::OneLine;
use header::{CPU, DATA_ALIGN, GUEST, Header, PREFIX_BYTES, STATE, StoredBlob};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use whole::WriteError;

/// Why a snapshot file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file or its folder could not be used.
    #[error("{operation} {}: {source}", OneLine(path))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is not a snapshot, or not a whole one.
    #[error("{} is not a usable snapshot: {problem}", OneLine(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
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
    #[error("encode the snapshot's {section}: {source}")]
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
    #[error("its header says that it has {0}")]
    Layout(MemoryError),
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
    #[error("{0}")]
    Pages(io::Error),
    /// The byte strings do not, or cannot be mapped.
    #[error("{0}")]
    Blobs(io::Error),
}

/// What can be told of a file without loading it.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// Format version.
    pub version: u32,
    /// The memory slots.
    pub layout: Vec<SlotSpec>,
    /// Pages that are stored.
    pub pages_stored: u64,
    /// Bytes of the byte strings beside the pages: the files that a process can read.
    pub blob_bytes: u64,
    /// The file's length in bytes.
    pub file_bytes: u64,
    /// Names and lengths in bytes of the sections.
    pub sections: Vec<(String, u64)>,
}

fn encode<T: Serialize>(section: &'static str, value: &T) -> Result<Vec<u8>, FileError> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|e| FileError::Encode { section, source: Box::new(e) })
}

impl<G: Clone + Stored + Serialize + DeserializeOwned> Snapshot<G> {
    /// Writes the snapshot to `path`: to a temporary file beside it first, which is synced and
    /// then renamed, so that `path` is never half written.
    ///
    /// # Errors
    /// The folder cannot be written to, or is full.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        // A clone shares the bytes.
        let mut guest = self.guest.clone();
        let blobs = stored::number(&mut guest);
        let mut header = Header {
            layout: self.layout.clone(),
            extents: self.pages.extents().to_vec(),
            checksums: Vec::new(),
            data_at: 0,
            blobs: place(&blobs, self.pages.extents()),
            sections: vec![
                (CPU.to_owned(), encode(CPU, &self.needs)?),
                (STATE.to_owned(), encode(STATE, &self.state)?),
                (GUEST.to_owned(), encode(GUEST, &guest)?),
            ],
        };
        for extent in &header.extents {
            header.checksums.push(crc32fast::hash(self.extent_bytes(extent)?));
        }
        whole::write(path, |file| self.write_to(&mut header, &blobs, file))
    }

    fn write_to(
        &self,
        header: &mut Header,
        blobs: &[SharedBytes],
        file: &mut File,
    ) -> Result<(), WriteError> {
        // The header's length depends on the offset it holds; one more round settles it, because
        // the offset is rounded up to whole pages.
        let mut bytes = encode("header", header)?;
        for _ in 0..2 {
            let end = (PREFIX_BYTES + bytes.len()) as u64;
            header.data_at = end.next_multiple_of(DATA_ALIGN);
            bytes = encode("header", header)?;
        }
        let mut out = io::BufWriter::with_capacity(1 << 20, file);
        out.write_all(&header::prefix(&bytes))?;
        out.write_all(&bytes)?;
        let padding = header.data_at - (PREFIX_BYTES + bytes.len()) as u64;
        out.write_all(&vec![0; padding as usize])?;
        let mut written = 0;
        for extent in &header.extents {
            let bytes = self.extent_bytes(extent)?;
            out.write_all(bytes)?;
            written += bytes.len() as u64;
        }
        for (number, (bytes, stored)) in blobs.iter().zip(&header.blobs).enumerate() {
            let padding =
                stored.offset.checked_sub(written).ok_or(FileError::Overlap { number })?;
            out.write_all(&vec![0; padding as usize])?;
            out.write_all(bytes)?;
            written = stored.offset + stored.bytes;
        }
        out.flush()?;
        Ok(())
    }

    fn extent_bytes(&self, extent: &Extent) -> Result<&[u8], FileError> {
        let missing = FileError::MissingPages { first: extent.first.gpa() };
        self.pages.extent_bytes(extent).ok_or(missing)
    }

    /// Opens a snapshot file. Pages and byte strings are mapped, not read: a change in them is
    /// noticed by [`check_data`], not here. Whether this host has what the snapshot needs is for who loads
    /// it to check.
    ///
    /// # Errors
    /// The file is missing, damaged or of another version.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let (file, header) = header::read(path)?;
        let damaged = |problem| FileError::Damaged { path: path.to_owned(), problem };
        let needs = header.section(CPU).map_err(damaged)?;
        let state = header.section(STATE).map_err(damaged)?;
        let mut guest: G = header.section(GUEST).map_err(damaged)?;
        guest.check(&header.layout).map_err(|Unsound(what)| damaged(Problem::Unsound { what }))?;
        let blobs = header.map_blobs(&file).map_err(damaged)?;
        if !stored::fill(&mut guest, &blobs) {
            return Err(damaged(Problem::Section { section: GUEST }));
        }
        let pages = PageFile::open(file, header.data_at, header.extents)
            .map_err(|e| damaged(Problem::Pages(e)))?;
        Ok(Self { layout: header.layout, needs, state, guest, pages })
    }
}

/// Reads all pages and byte strings and compares them with the header's checksums.
///
/// # Errors
/// As [`Snapshot::open`], and when a byte was changed.
pub fn check_data(path: &Path) -> Result<(), FileError> {
    let (file, header) = header::read(path)?;
    let damaged = |problem| FileError::Damaged { path: path.to_owned(), problem };
    let blobs = header.map_blobs(&file).map_err(damaged)?;
    for (number, (bytes, stored)) in blobs.iter().zip(&header.blobs).enumerate() {
        if crc32fast::hash(bytes) != stored.checksum {
            let part = format!("byte string {number}");
            return Err(damaged(Problem::Checksum { part }));
        }
        // Where the next one starts.
        let end = header.data_at + stored.offset + stored.bytes;
        let next = header.blobs.get(number + 1).map_or(end, |next| header.data_at + next.offset);
        let part = "padding between its byte strings";
        header::check_zeros(&file, end..next, part).map_err(|error| error.at(path))?;
    }
    let pages = PageFile::open(file, header.data_at, header.extents)
        .map_err(|e| damaged(Problem::Pages(e)))?;
    for (extent, expected) in pages.extents().iter().zip(&header.checksums) {
        let sum = pages.extent_bytes(extent).map(crc32fast::hash);
        if sum != Some(*expected) {
            let part = format!("pages from {:#x}", extent.first.gpa());
            return Err(damaged(Problem::Checksum { part }));
        }
    }
    Ok(())
}

/// What the header tells.
///
/// # Errors
/// The file is missing, damaged or of another version.
pub fn info(path: &Path) -> Result<Info, FileError> {
    let (file, header) = header::read(path)?;
    let length = file.metadata().map_err(io_error("read the length of", path))?.len();
    Ok(Info {
        version: VERSION,
        layout: header.layout,
        pages_stored: header.extents.iter().map(|e| u64::from(e.pages)).sum(),
        blob_bytes: header.blobs.iter().map(|blob| blob.bytes).sum(),
        file_bytes: length,
        sections: header.sections.into_iter().map(|(n, b)| (n, b.len() as u64)).collect(),
    })
}

/// Places byte strings behind the pages, in order.
fn place(blobs: &[SharedBytes], extents: &[Extent]) -> Vec<StoredBlob> {
    let mut end = extents.iter().map(|e| u64::from(e.pages) * PAGE_SIZE as u64).sum::<u64>();
    let mut stored = Vec::with_capacity(blobs.len());
    for bytes in blobs {
        let offset = end.next_multiple_of(DATA_ALIGN);
        let length = bytes.len() as u64;
        stored.push(StoredBlob { offset, bytes: length, checksum: crc32fast::hash(bytes) });
        end = offset + length;
    }
    stored
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shapes say what is encoded in which order; this says how.
    #[test]
    fn values_are_encoded_as_they_are_in_files_of_this_version() {
        let numbers = (250_u8, 250_u32, 251_u16, 0x1_0000_u32, u64::MAX, -2_i32);
        let encoded = [
            &[250, 250][..],
            &[251, 251, 0],
            &[252, 0, 0, 1, 0],
            &[253, 255, 255, 255, 255, 255, 255, 255, 255],
            &[3],
        ];
        assert_eq!(encode("numbers", &numbers).unwrap(), encoded.concat());
        let others = (Some("ab"), None::<u8>, [7_u8; 2], vec![true, false]);
        let encoded = [1, 2, b'a', b'b', 0, 7, 7, 2, 1, 0];
        assert_eq!(encode("others", &others).unwrap(), encoded);
        assert_eq!(
            encode("regs", &kvm_bindings::kvm_mp_state { mp_state: 9 }).unwrap(),
            [4, 9, 0, 0, 0]
        );
    }
}
