//! The snapshot file: a checksummed header, then page data that is mapped and never read.
//!
//! The format is described in `docs/snapshot-format.md`. It carries sections of bytes by name and
//! does not know what they mean; long byte strings in them lie beside the pages and are mapped too
//! ([`super::HasBlobs`]). It is the only place that uses bincode, whose releases ended
//! with 2.0.1 (pinned): replacing it would change this file and the format's version, no more.
//!
//! Never trusts a file: lengths are checked before they are believed, and opening costs the
//! header's size, not the memory's.

use super::Snapshot;
use super::blob::{self, HasBlobs};
use crate::address::PAGE_SIZE;
use crate::memory::{Extent, PageFile, SharedBytes, SlotSpec, map_shared};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// First bytes of every snapshot file. The line ending shows a transfer that translated it.
pub const MAGIC: [u8; 8] = *b"DEJAVM\r\n";
/// The format's version; any change of the layout or of a section's contents raises it.
pub const VERSION: u32 = 4;
/// Bytes before the header: magic, version, header length, header checksum, checksum of these.
const PREFIX_BYTES: usize = 24;
/// The longest header that is read, in bytes. It holds the files that a process has written.
const HEADER_BYTES_MAX: usize = 1 << 30;
/// Page data, and each byte string, starts at a multiple of this, so that it can be mapped.
const DATA_ALIGN: u64 = 4096;

/// Why a snapshot file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file or its folder could not be used.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is not a snapshot, or not a whole one.
    #[error("{} is not a usable snapshot: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
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
    #[error("the checksum of its {part} does not match")]
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
    /// The pages do not fit together.
    #[error("{0}")]
    Pages(io::Error),
    /// The byte strings do not, or cannot be mapped.
    #[error("{0}")]
    Blobs(io::Error),
}

#[derive(Serialize, Deserialize)]
struct Header {
    layout: Vec<SlotSpec>,
    extents: Vec<Extent>,
    /// CRC-32 of each extent's data.
    checksums: Vec<u32>,
    data_at: u64,
    /// The byte strings that the sections refer to by number.
    blobs: Vec<StoredBlob>,
    sections: Vec<(String, Vec<u8>)>,
}

/// Where a byte string lies, behind the pages.
#[derive(Serialize, Deserialize)]
struct StoredBlob {
    /// From the start of the page data, in bytes; aligned.
    offset: u64,
    bytes: u64,
    /// CRC-32.
    checksum: u32,
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

const CPU: &str = "cpu";
const STATE: &str = "state";
const GUEST: &str = "guest";

/// Decoding never allocates more than this for one section, in bytes.
const DECODE_BYTES_MAX: usize = HEADER_BYTES_MAX;

fn encode<T: Serialize>(section: &'static str, value: &T) -> Result<Vec<u8>, FileError> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|e| FileError::Encode { section, source: Box::new(e) })
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let config = bincode::config::standard().with_limit::<DECODE_BYTES_MAX>();
    let (value, used) = bincode::serde::decode_from_slice(bytes, config).ok()?;
    (used == bytes.len()).then_some(value)
}

impl<G: Clone + HasBlobs + Serialize + DeserializeOwned> Snapshot<G> {
    /// Writes the snapshot to `path`: to a temporary file beside it first, which is synced and
    /// then renamed, so that `path` is never half written.
    ///
    /// # Errors
    /// The folder cannot be written to, or is full.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        // A clone shares the bytes.
        let mut guest = self.guest.clone();
        let blobs = blob::number(&mut guest);
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
            let bytes = self.pages.extent_bytes(extent).unwrap_or_default();
            header.checksums.push(crc32fast::hash(bytes));
        }
        write_atomically(path, |file| self.write_to(&mut header, &blobs, file))
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
        out.write_all(&prefix(&bytes))?;
        out.write_all(&bytes)?;
        let padding = header.data_at - (PREFIX_BYTES + bytes.len()) as u64;
        out.write_all(&vec![0; padding as usize])?;
        let mut written = 0;
        for extent in &header.extents {
            let bytes = self.pages.extent_bytes(extent).unwrap_or_default();
            out.write_all(bytes)?;
            written += bytes.len() as u64;
        }
        for (bytes, stored) in blobs.iter().zip(&header.blobs) {
            let padding = stored.offset.saturating_sub(written);
            out.write_all(&vec![0; padding as usize])?;
            out.write_all(bytes)?;
            written = stored.offset + stored.bytes;
        }
        out.flush()?;
        Ok(())
    }

    /// Opens a snapshot file. Pages and byte strings are mapped, not read: a change in them is
    /// noticed by [`check_data`], not here. Whether this host has what the snapshot needs is for who loads
    /// it to check.
    ///
    /// # Errors
    /// The file is missing, damaged or of another version.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let (file, header) = read_header(path)?;
        let damaged = |problem| FileError::Damaged { path: path.to_owned(), problem };
        let needs = header.section(CPU).map_err(damaged)?;
        let state = header.section(STATE).map_err(damaged)?;
        let mut guest = header.section(GUEST).map_err(damaged)?;
        let blobs = header.map_blobs(&file).map_err(damaged)?;
        if !blob::fill(&mut guest, &blobs) {
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
    let (file, header) = read_header(path)?;
    let damaged = |problem| FileError::Damaged { path: path.to_owned(), problem };
    let blobs = header.map_blobs(&file).map_err(damaged)?;
    for (number, (bytes, stored)) in blobs.iter().zip(&header.blobs).enumerate() {
        if crc32fast::hash(bytes) != stored.checksum {
            let part = format!("byte string {number}");
            return Err(damaged(Problem::Checksum { part }));
        }
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
    let (file, header) = read_header(path)?;
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

impl Header {
    fn section<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, Problem> {
        self.sections
            .iter()
            .find(|(n, _)| n == name)
            .and_then(|(_, bytes)| decode(bytes))
            .ok_or(Problem::Section { section: name })
    }

    /// Maps the byte strings. `read_header` has checked that the file has them.
    fn map_blobs(&self, file: &File) -> Result<Vec<SharedBytes>, Problem> {
        let range = |blob: &StoredBlob| {
            let start = self.data_at.saturating_add(blob.offset);
            start..start.saturating_add(blob.bytes)
        };
        let ranges: Vec<_> = self.blobs.iter().map(range).collect();
        map_shared(file, &ranges).map_err(Problem::Blobs)
    }

    /// Where the file must reach at least; saturates, for a header that lies.
    fn end(&self) -> u64 {
        let pages = self
            .extents
            .iter()
            .map(|e| e.offset.saturating_add(u64::from(e.pages).saturating_mul(PAGE_SIZE as u64)));
        let blobs = self.blobs.iter().map(|blob| blob.offset.saturating_add(blob.bytes));
        pages.chain(blobs).max().map_or(0, |end| end.saturating_add(self.data_at))
    }

    /// Whether the offsets are aligned, and each byte string begins behind the one before it.
    fn is_in_order(&self) -> bool {
        let mut end = 0;
        self.data_at.is_multiple_of(DATA_ALIGN)
            && self.checksums.len() == self.extents.len()
            && self.blobs.iter().all(|blob| {
                let fits = blob.offset >= end && blob.offset.is_multiple_of(DATA_ALIGN);
                end = blob.offset.saturating_add(blob.bytes);
                fits
            })
    }
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

fn prefix(header: &[u8]) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..8].copy_from_slice(&MAGIC);
    prefix[8..12].copy_from_slice(&VERSION.to_le_bytes());
    prefix[12..16].copy_from_slice(&(header.len() as u32).to_le_bytes());
    prefix[16..20].copy_from_slice(&crc32fast::hash(header).to_le_bytes());
    let own = crc32fast::hash(&prefix[..20]);
    prefix[20..].copy_from_slice(&own.to_le_bytes());
    prefix
}

fn read_header(path: &Path) -> Result<(File, Header), FileError> {
    let damaged = |problem| FileError::Damaged { path: path.to_owned(), problem };
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let have = file.metadata().map_err(io_error("read the length of", path))?.len();
    let mut prefix = [0; PREFIX_BYTES];
    let read = read_up_to(&mut file, &mut prefix).map_err(io_error("read", path))?;
    if read < MAGIC.len() || prefix[..8] != MAGIC {
        return Err(damaged(Problem::Magic));
    }
    let truncated = |need| damaged(Problem::Truncated { have, need });
    if read < PREFIX_BYTES {
        return Err(truncated(PREFIX_BYTES as u64));
    }
    let word = |at: usize| prefix[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
    if word(8) != VERSION {
        return Err(damaged(Problem::Version { found: word(8) }));
    }
    if word(20) != crc32fast::hash(&prefix[..20]) {
        return Err(damaged(Problem::Checksum { part: "first 24 bytes".to_owned() }));
    }
    let length = word(12) as usize;
    let end = (PREFIX_BYTES + length) as u64;
    if length > HEADER_BYTES_MAX || have < end {
        return Err(truncated(end));
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, PREFIX_BYTES as u64).map_err(io_error("read", path))?;
    if crc32fast::hash(&bytes) != word(16) {
        return Err(damaged(Problem::Checksum { part: "header".to_owned() }));
    }
    let header: Header =
        decode(&bytes).ok_or_else(|| damaged(Problem::Section { section: "header" }))?;
    if header.data_at < end || !header.is_in_order() {
        return Err(damaged(Problem::Section { section: "header" }));
    }
    let need = header.end();
    if have < need {
        return Err(truncated(need));
    }
    Ok((file, header))
}

fn read_up_to(file: &mut File, out: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < out.len() {
        match file.read(&mut out[done..])? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io { operation, path: path.to_owned(), source }
}

/// A failure while the temporary file is filled.
enum WriteError {
    Io(io::Error),
    File(FileError),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<FileError> for WriteError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

/// Fills a temporary file beside `path`, syncs it, renames it to `path` and syncs the folder.
fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), WriteError>,
) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp-{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself must survive a crash: that is the folder's to remember.
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(())
    })();
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        match error {
            WriteError::Io(source) => io_error("write", path)(source),
            WriteError::File(error) => error,
        }
    })
}
