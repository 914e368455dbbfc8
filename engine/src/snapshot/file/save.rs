//! Writes a snapshot file: header, pages, byte strings, each at the one place where it can be.
//!
//! Never reads a file.

use super::error::FileError;
use super::header::{self, CPU, DATA_ALIGN, GUEST, Header, PREFIX_BYTES, STATE, StoredBlob};
use super::whole::{self, WriteError};
use crate::address::PAGE_SIZE;
use crate::memory::{Extent, SharedBytes};
use crate::snapshot::moment::Snapshot;
use crate::snapshot::stored::Stored;
use crate::stored;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

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
}

/// Places byte strings after the pages, in order.
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
