//! What programs looked for and did not find: a list of names. Never tells whether the host has them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Names that are remembered of what a program looked for, and their bytes together.
const WANTED_MAX: usize = 8192;
const WANTED_BYTES_MAX: usize = 1 << 20;

/// Absolute paths that a program looked for and did not find, each once; of a directory that was
/// listed without being complete the path ends with a slash.
///
/// No part of the process's state: a rewind keeps it.
#[derive(Clone, Debug, Default)]
pub struct MissingPaths {
    names: BTreeSet<Box<[u8]>>,
    bytes: usize,
}

impl MissingPaths {
    pub(crate) fn remember(&mut self, path: &[u8]) {
        let bytes = self.bytes.saturating_add(path.len());
        if self.names.len() < WANTED_MAX && bytes <= WANTED_BYTES_MAX && !self.names.contains(path)
        {
            self.names.insert(path.into());
            self.bytes = bytes;
        }
    }

    /// The paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.names.iter().map(|name| Path::new(OsStr::from_bytes(name)))
    }

    /// Adds what another run looked for.
    pub fn add(&mut self, other: &Self) {
        for name in &other.names {
            self.remember(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_a_bounded_number_of_names() {
        let mut wanted = MissingPaths::default();
        for i in 0..2 * WANTED_MAX {
            wanted.remember(format!("/usr/{i}").as_bytes());
        }
        assert_eq!(wanted.paths().count(), WANTED_MAX);
    }
}
