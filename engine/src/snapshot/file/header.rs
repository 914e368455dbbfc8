//! What stands before the page data: the fixed prefix, and the header with its checks.
//!
//! Everything about where things lie is checked here, once, before anything is mapped or loaded:
//! a file has one possible form for the same contents, and every other form is refused by what is
//! wrong with it. Never knows what a section means.

use super::error::{FileError, Problem, io_error};
use super::version::{MAGIC, VERSION};
use crate::address::PAGE_SIZE;
use crate::memory::{Extent, PageFile, SharedBytes, SlotSpec, check_layout, map_shared};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes before the header: magic, version, header length, header checksum, checksum of these.
pub(super) const PREFIX_BYTES: usize = 24;
/// The longest header that is read, in bytes. It holds the files that a process has written.
const HEADER_BYTES_MAX: usize = 1 << 30;
/// Page data, and each byte string, starts at a multiple of this, so that it can be mapped.
pub(super) const DATA_ALIGN: u64 = 4096;
/// The most RAM that a snapshot may claim, in bytes: what `--ram` takes.
const RAM_BYTES_MAX: u64 = 1 << 40;

pub(super) const CPU: &str = "cpu";
pub(super) const STATE: &str = "state";
pub(super) const GUEST: &str = "guest";

#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) layout: Vec<SlotSpec>,
    pub(super) extents: Vec<Extent>,
    /// CRC-32 of each extent's data.
    pub(super) checksums: Vec<u32>,
    pub(super) data_at: u64,
    /// The byte strings that the sections refer to by number.
    pub(super) blobs: Vec<StoredBlob>,
    pub(super) sections: Vec<(String, Vec<u8>)>,
}

/// Where a byte string lies, after the pages.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredBlob {
    /// From the start of the page data, in bytes; aligned.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// CRC-32.
    pub(super) checksum: u32,
}

/// Decodes all of `bytes`. A length that they hold is never believed beyond what they could hold:
/// decoding claims at most eight bytes for one of them (an integer that is stored in one byte), so
/// that a limit of a few times their number stops every lie before it is allocated for.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    macro_rules! limited {
        ($($log2:literal),*) => {
            match (bytes.len() * 8).max(1).next_power_of_two().trailing_zeros() {
                $(..=$log2 => {
                    let config = bincode::config::standard().with_limit::<{ 1 << $log2 }>();
                    bincode::serde::decode_from_slice(bytes, config).ok()?
                })*
                _ => return None,
            }
        };
    }
    let (value, used) = limited!(8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 33);
    (used == bytes.len()).then_some(value)
}

impl Header {
    /// A section, decoded.
    pub(super) fn section<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, Problem> {
        self.sections
            .iter()
            .find(|(n, _)| n == name)
            .and_then(|(_, bytes)| decode(bytes))
            .ok_or(Problem::Section { section: name })
    }

    /// Maps the byte strings. [`read`] has checked that the file has them.
    pub(super) fn map_blobs(&self, file: &File) -> Result<Vec<SharedBytes>, Problem> {
        let range = |blob: &StoredBlob| {
            let start = self.data_at.saturating_add(blob.offset);
            start..start.saturating_add(blob.bytes)
        };
        let ranges: Vec<_> = self.blobs.iter().map(range).collect();
        map_shared(file, &ranges).map_err(Problem::Blobs)
    }

    /// Checks all that can be checked without the rest of the file; `end` is where the header ends.
    /// Returns the length that the file must have.
    fn check(&self, end: u64) -> Result<u64, Problem> {
        let malformed = Problem::Section { section: "header" };
        let names = self.sections.iter().map(|(name, _)| name.as_str());
        if !names.eq([CPU, STATE, GUEST]) || self.checksums.len() != self.extents.len() {
            return Err(malformed);
        }
        if self.data_at != end.next_multiple_of(DATA_ALIGN) {
            return Err(malformed);
        }
        check_layout(&self.layout).map_err(Problem::Layout)?;
        let ram = self.layout.iter().fold(0_u64, |sum, slot| sum.saturating_add(slot.bytes));
        if ram == 0 || ram > RAM_BYTES_MAX {
            return Err(Problem::Ram { bytes: ram });
        }
        let pages = PageFile::check(&self.extents).map_err(Problem::Pages)?;
        if let Some(outside) = self.extents.iter().find(|extent| !self.has(extent)) {
            return Err(Problem::OutsideRam { first: outside.first.gpa() });
        }
        let mut at = pages;
        for blob in &self.blobs {
            // Each at the only place where it can be.
            if Some(blob.offset) != at.checked_next_multiple_of(DATA_ALIGN) {
                return Err(malformed);
            }
            at = blob
                .offset
                .checked_add(blob.bytes)
                .ok_or(Problem::Section { section: "header" })?;
        }
        self.data_at.checked_add(at).ok_or(malformed)
    }

    /// Whether all pages of `extent`, whose end was checked, lie in one memory slot.
    fn has(&self, extent: &Extent) -> bool {
        let (start, bytes) = (extent.first.gpa().0, u64::from(extent.pages) * PAGE_SIZE as u64);
        self.layout.iter().any(|slot| {
            let offset = start.checked_sub(slot.start.0);
            offset.is_some_and(|at| at < slot.bytes && bytes <= slot.bytes - at)
        })
    }
}

/// The bytes before an encoded header.
pub(super) fn prefix(header: &[u8]) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..8].copy_from_slice(&MAGIC);
    prefix[8..12].copy_from_slice(&VERSION.to_le_bytes());
    prefix[12..16].copy_from_slice(&(header.len() as u32).to_le_bytes());
    prefix[16..20].copy_from_slice(&crc32fast::hash(header).to_le_bytes());
    let own = crc32fast::hash(&prefix[..20]);
    prefix[20..].copy_from_slice(&own.to_le_bytes());
    prefix
}

/// Opens a file and reads its header, checked.
pub(super) fn read(path: &Path) -> Result<(File, Header), FileError> {
    let damaged = |problem| FileError::Damaged { path: path.to_owned(), problem };
    // Opening a named pipe would wait for a writer.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(io_error("open", path))?;
    let metadata = file.metadata().map_err(io_error("read the length of", path))?;
    if !metadata.is_file() {
        return Err(damaged(Problem::NotAFile));
    }
    let have = metadata.len();
    let mut prefix = [0; PREFIX_BYTES];
    let read = read_up_to(&mut file, &mut prefix).map_err(io_error("read", path))?;
    if read < MAGIC.len() || prefix[..8] != MAGIC {
        return Err(damaged(Problem::Magic));
    }
    let truncated = |need| damaged(Problem::Truncated { have, need });
    if read < PREFIX_BYTES {
        return Err(truncated(PREFIX_BYTES as u64));
    }
    let word = |at: usize| {
        u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
    };
    if word(8) != VERSION {
        return Err(damaged(Problem::Version { found: word(8) }));
    }
    if word(20) != crc32fast::hash(&prefix[..20]) {
        return Err(damaged(Problem::Checksum { part: "first 24 bytes".to_owned() }));
    }
    let length = word(12) as usize;
    let end = (PREFIX_BYTES + length) as u64;
    if have < end {
        return Err(truncated(end));
    }
    if length > HEADER_BYTES_MAX {
        return Err(damaged(Problem::Section { section: "header" }));
    }
    let header = decode_header(&file, path, length, word(16))?;
    let need = header.check(end).map_err(damaged)?;
    let padding = "padding behind its header";
    check_zeros(&file, end..header.data_at.min(have), padding).map_err(|e| e.at(path))?;
    match have {
        _ if have < need => Err(truncated(need)),
        _ if have > need => Err(damaged(Problem::TooLong { have, need })),
        _ => Ok((file, header)),
    }
}

fn decode_header(
    file: &File,
    path: &Path,
    length: usize,
    checksum: u32,
) -> Result<Header, FileError> {
    let damaged = |problem| FileError::Damaged { path: path.to_owned(), problem };
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, PREFIX_BYTES as u64).map_err(io_error("read", path))?;
    if crc32fast::hash(&bytes) != checksum {
        return Err(damaged(Problem::Checksum { part: "header".to_owned() }));
    }
    decode(&bytes).ok_or_else(|| damaged(Problem::Section { section: "header" }))
}

/// What [`check_zeros`] found.
pub(super) enum ZerosError {
    Io(io::Error),
    Problem(Problem),
}

impl ZerosError {
    /// The error for the file `path`.
    pub(super) fn at(self, path: &Path) -> FileError {
        match self {
            Self::Io(error) => io_error("read", path)(error),
            Self::Problem(problem) => FileError::Damaged { path: path.to_owned(), problem },
        }
    }
}

/// Checks that the bytes in `range`, less than a page, are zeros: no checksum is over them.
pub(super) fn check_zeros(
    file: &File,
    range: Range<u64>,
    part: &'static str,
) -> Result<(), ZerosError> {
    let mut bytes = [0; DATA_ALIGN as usize];
    let length = range.end.saturating_sub(range.start) as usize;
    // What is longer is not looked at, and so is no padding.
    let Some(bytes) = bytes.get_mut(..length) else {
        return Err(ZerosError::Problem(Problem::NotZero { part }));
    };
    file.read_exact_at(bytes, range.start).map_err(ZerosError::Io)?;
    match bytes.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(ZerosError::Problem(Problem::NotZero { part })),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_follows_24_bytes_that_say_what_it_is() {
        let prefix = prefix(b"abc");
        assert_eq!(prefix[..8], *b"DEJAVM\r\n");
        assert_eq!(prefix[8..12], VERSION.to_le_bytes());
        assert_eq!(prefix[12..16], [3, 0, 0, 0], "the header's length");
        assert_eq!(prefix[16..20], 0x3524_41c2_u32.to_le_bytes(), "the header's CRC-32");
        assert_eq!(prefix[20..], crc32fast::hash(&prefix[..20]).to_le_bytes());
    }

    #[test]
    fn what_is_too_long_for_padding_is_not_taken_for_zeros() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * DATA_ALIGN).unwrap();
        assert!(check_zeros(&file, 1..DATA_ALIGN, "padding").is_ok());
        assert!(matches!(
            check_zeros(&file, 0..DATA_ALIGN + 1, "padding"),
            Err(ZerosError::Problem(Problem::NotZero { part: "padding" }))
        ));
    }

    #[test]
    fn a_length_that_lies_is_not_allocated_for() {
        // Standard configuration: 253 and eight bytes are a length of 2^40.
        let lie = [&[253][..], &(1_u64 << 40).to_le_bytes()].concat();
        assert_eq!(decode::<String>(&lie), None);
        assert_eq!(decode::<Vec<u64>>(&lie), None);
        assert_eq!(decode::<String>(b"\x02ab"), Some("ab".to_owned()));
        assert_eq!(decode::<Vec<u64>>(&[3, 7, 8, 9]), Some(vec![7, 8, 9]));
        assert_eq!(decode::<Vec<u64>>(&[0, 7]), None, "all of it is used");
        let long = vec![0; 100_000];
        assert_eq!(decode(&[&[251, 0xa0, 0x86][..], &long].concat()), None::<Vec<u64>>);
        let many = [&[252, 0xa0, 0x86, 1, 0][..], &long].concat();
        assert_eq!(decode(&many), Some(vec![0_u64; 100_000]));
    }
}
