//! Long byte strings in a guest kind's state, which a snapshot file keeps beside the encoded state
//! and maps: a program's libraries are tens of megabytes.
//!
//! Never knows what the bytes are. A blob is encoded as a number, that of its bytes in the file.

use crate::memory::SharedBytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::HashMap;
use std::ops::Deref;

/// Immutable bytes, cheap to clone, that a snapshot file stores outside of the encoded state.
#[derive(Clone, Debug)]
pub struct Blob {
    bytes: SharedBytes,
    /// Its place in the file's list, while the state around it is encoded or was just decoded.
    number: u32,
}

/// State that may hold blobs.
pub trait HasBlobs {
    /// Visits every blob, in the same order for the same state.
    fn for_each_blob(&mut self, visit: &mut dyn FnMut(&mut Blob));
}

/// State without any.
impl HasBlobs for () {
    fn for_each_blob(&mut self, _visit: &mut dyn FnMut(&mut Blob)) {}
}

impl Blob {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }
}

impl From<SharedBytes> for Blob {
    fn from(bytes: SharedBytes) -> Self {
        Self { bytes, number: 0 }
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Blob {}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.number.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        Ok(Self { bytes: SharedBytes::default(), number })
    }
}

/// Numbers the blobs of `state` and gives their bytes by number, equal ones once.
pub(crate) fn number<G: HasBlobs>(state: &mut G) -> Vec<SharedBytes> {
    let mut list: Vec<SharedBytes> = Vec::new();
    // By checksum and length first; equal ones are then compared.
    let mut known: HashMap<(u32, usize), Vec<u32>> = HashMap::new();
    state.for_each_blob(&mut |blob| {
        let like = known.entry((crc32fast::hash(blob), blob.len())).or_default();
        let same = like.iter().find(|&&at| list.get(at as usize) == Some(&blob.bytes));
        blob.number = match same {
            Some(&at) => at,
            None => {
                // More than 2^32 of them do not fit into memory, nor into a header.
                let at = list.len() as u32;
                list.push(blob.bytes.clone());
                like.push(at);
                at
            }
        };
    });
    list
}

/// Gives the blobs of `state` their bytes, by number; false when one has a number that is not
/// there.
pub(crate) fn fill<G: HasBlobs>(state: &mut G, list: &[SharedBytes]) -> bool {
    let mut all = true;
    state.for_each_blob(&mut |blob| match list.get(blob.number as usize) {
        Some(bytes) => blob.bytes = bytes.clone(),
        None => all = false,
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    struct State(Vec<Blob>);

    impl HasBlobs for State {
        fn for_each_blob(&mut self, visit: &mut dyn FnMut(&mut Blob)) {
            self.0.iter_mut().for_each(visit);
        }
    }

    fn blob(bytes: &[u8]) -> Blob {
        SharedBytes::from(bytes.to_vec()).into()
    }

    #[test]
    fn equal_bytes_are_listed_once() {
        let mut state = State(vec![blob(b"a"), blob(b"bc"), blob(b"a"), blob(b"")]);
        let list = number(&mut state);
        assert_eq!(list.len(), 3);
        let numbers: Vec<u32> = state.0.iter().map(|blob| blob.number).collect();
        assert_eq!(numbers, [0, 1, 0, 2]);
        state.0.iter_mut().for_each(|blob| blob.bytes = SharedBytes::default());
        assert!(fill(&mut state, &list));
        assert_eq!(state.0, [blob(b"a"), blob(b"bc"), blob(b"a"), blob(b"")]);
    }

    #[test]
    fn a_number_that_is_not_there_is_noticed() {
        let mut state = State(vec![blob(b"a"), blob(b"b")]);
        let list = number(&mut state);
        assert!(!fill(&mut state, &list[..1]));
    }
}
