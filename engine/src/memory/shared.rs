//! Immutable bytes that many may hold: on the heap, or a part of a mapped file.
//!
//! Never knows what the bytes are, and never gives them out for writing.

use memmap2::{Mmap, MmapOptions};
use stable_deref_trait::{CloneStableDeref, StableDeref};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Immutable bytes, cheap to clone.
#[derive(Clone)]
pub struct SharedBytes(Held);

#[derive(Clone)]
enum Held {
    Heap(Arc<[u8]>),
    /// The range was checked to lie in the mapping.
    Mapped(Arc<Mmap>, Range<usize>),
}

/// Maps the byte strings that lie at `ranges`, offsets in bytes in `file`, by one mapping. Nothing
/// is read.
///
/// # Errors
/// A range is not in the file, or the file cannot be mapped.
pub fn map_shared(file: &File, ranges: &[Range<u64>]) -> io::Result<Vec<SharedBytes>> {
    let refuse = || io::Error::new(io::ErrorKind::InvalidData, "a byte string is not in the file");
    let filled = ranges.iter().filter(|range| !range.is_empty());
    let Some(first) = filled.clone().map(|range| range.start).min() else {
        return Ok(vec![SharedBytes::default(); ranges.len()]);
    };
    let end = filled.map(|range| range.end).max().unwrap_or(first);
    if file.metadata()?.len() < end {
        return Err(refuse());
    }
    let length = usize::try_from(end - first).map_err(|_| refuse())?;
    // SAFETY: the mapping is read-only and belongs to the values made here. As for the pages of
    // a snapshot file, its owner can truncate it while it is in use, which ends in SIGBUS and
    // which no check here could prevent.
    let map = Arc::new(unsafe { MmapOptions::new().offset(first).len(length).map(file) }?);
    let part = |range: &Range<u64>| {
        if range.is_empty() {
            return SharedBytes::default();
        }
        // `first` and `end` bound every range that is not empty.
        let range = (range.start - first) as usize..(range.end - first) as usize;
        SharedBytes(Held::Mapped(Arc::clone(&map), range))
    };
    Ok(ranges.iter().map(part).collect())
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Heap(bytes) => bytes,
            Held::Mapped(map, range) => map.get(range.clone()).unwrap_or_default(),
        }
    }
}

// SAFETY: both kinds hold their bytes at an address of their own, which moving the value does not
// change.
unsafe impl StableDeref for SharedBytes {}
// SAFETY: a clone holds the same `Arc`, and gives the same bytes at the same address.
unsafe impl CloneStableDeref for SharedBytes {}

impl Default for SharedBytes {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Held::Heap(bytes.into()))
    }
}

impl PartialEq for SharedBytes {
    /// The same bytes; those that share their memory are not read.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(&raw const **self, &raw const **other) || **self == **other
    }
}

impl Eq for SharedBytes {}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file() -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[vec![1; 4096], vec![2; 5000]].concat()).unwrap();
        file
    }

    #[test]
    fn parts_of_a_file_are_what_the_file_holds() {
        let parts = map_shared(&file(), &[4096..9096, 0..0, 100..103]).unwrap();
        assert_eq!(*parts[0], [2; 5000]);
        assert!(parts[1].is_empty());
        assert_eq!(parts[2], SharedBytes::from(vec![1; 3]));
        assert_ne!(parts[2], parts[0]);
        assert!(map_shared(&file(), &[]).unwrap().is_empty());
    }

    #[test]
    fn refuses_a_part_that_is_not_in_the_file() {
        assert!(map_shared(&file(), std::slice::from_ref(&(0..9097))).is_err());
        assert!(map_shared(&file(), std::slice::from_ref(&(0..u64::MAX))).is_err());
    }
}
