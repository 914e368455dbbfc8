//! The host's system files that a program asked for: its data, modules and locales.
//!
//! A guest's system call never reaches the host. What a program looked for and did not find is a list of
//! names ([`MissingPaths`]); between two boots [`HostFiles::take`] reads of those names what `policy`
//! allows, and the next boot starts with it. Never follows a guest while it runs, and never reads
//! what is outside of `policy::PREFIXES` or what another user of the host could not read.

pub(crate) mod policy;
pub(crate) mod take;

use crate::stored::SharedBytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes of all files together.
const BYTES_MAX: u64 = 512 << 20;
/// Files, directories and links together.
const ENTRIES_MAX: usize = 32_768;

/// What `stat` tells of a host file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostStat {
    pub(crate) mode: u32,
    /// Nanoseconds since 1970.
    pub(crate) modified_ns: u64,
    pub(crate) size: u64,
}

/// One path of the host's system.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Directory {
        /// Whether every entry that a guest may see is here.
        complete: bool,
    },
    File(SharedBytes),
    /// A file that was not asked for: only what `stat` tells is known.
    Unread,
    Link(OsString),
}

/// Host files that programs asked for, as they were when they were first asked for.
#[derive(Clone, Debug, Default)]
pub struct HostFiles {
    entries: BTreeMap<PathBuf, (HostStat, Entry)>,
    /// As bytes: a slash at the end makes a difference here, but not between paths.
    tried: BTreeSet<OsString>,
    bytes: u64,
    /// How many times files below a directory were taken.
    times: BTreeMap<PathBuf, u32>,
}

/// What `stat` says of a host file.
pub(crate) fn host_stat(metadata: &Metadata) -> HostStat {
    let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
    let ns = u64::try_from(metadata.mtime_nsec()).unwrap_or(0);
    HostStat {
        mode: metadata.mode() & 0o777,
        modified_ns: seconds.saturating_mul(1_000_000_000).saturating_add(ns),
        size: metadata.len(),
    }
}

impl HostFiles {
    /// The entries, a directory before what it holds.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Path, &HostStat, &Entry)> {
        self.entries.iter().map(|(path, (facts, entry))| (&**path, facts, entry))
    }

    /// Whether nothing was asked for, or nothing of it is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Files whose bytes are here.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let is_file = |entry: &Entry| matches!(entry, Entry::File(_));
        self.entries.iter().filter(move |(_, (_, e))| is_file(e)).map(|(path, _)| &**path)
    }

    /// Bytes of those files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps what is known of a path now, if that is more than before and there is room; whether.
    fn insert(&mut self, path: &Path, facts: HostStat, entry: Entry) -> bool {
        let better = match (self.entries.get(path).map(|(_, present)| present), &entry) {
            (None, _) => self.entries.len() < ENTRIES_MAX,
            (Some(Entry::Unread), Entry::File(_)) => true,
            (Some(Entry::Directory { complete: false }), Entry::Directory { complete }) => {
                *complete
            }
            _ => false,
        };
        if better {
            self.entries.insert(path.to_owned(), (facts, entry));
        }
        better
    }
}
