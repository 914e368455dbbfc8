//! Opens a snapshot file, checks its data, or reports what is in it. Never trusts it.

use super::error::{FileError, Problem, io_error};
use super::header::{self, CPU, GUEST, STATE};
use super::version::VERSION;
use crate::memory::{PageFile, SlotSpec};
use crate::snapshot::moment::Snapshot;
use crate::snapshot::stored::{Stored, Unsound};
use crate::stored;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// What is known of a file without loading it.
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

impl<G: Stored + DeserializeOwned> Snapshot<G> {
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

/// What the header says.
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
