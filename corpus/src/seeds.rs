//! Reads the seeds of a campaign from a folder.
//!
//! A file that cannot be a seed is named together with the reason and skipped; only a folder that
//! cannot be read is an error. Never runs a seed and never changes the folder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder of seeds could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SeedsError {
    /// The folder could not be opened or listed.
    #[error("list the seeds in {path}")]
    List {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a file is not used as a seed.
#[derive(Debug, thiserror::Error)]
pub enum SkipReason {
    /// It could not be read.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is a folder or a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// It is longer than an input may be; all lengths in bytes.
    #[error("it is longer than {max} bytes")]
    TooLong {
        /// Longest input allowed.
        max: usize,
    },
    /// It is empty; there is nothing to mutate.
    #[error("it is empty")]
    Empty,
    /// The queue has the same bytes already.
    #[error("the queue has the same bytes already")]
    Duplicate,
    /// Its run crashed; it is recorded as a crash.
    #[error("it crashes; recorded as a crash")]
    Crashes,
    /// Its run reaches the time limit; it is recorded as a hang.
    #[error("it reaches the time limit; recorded as a hang")]
    Hangs,
    /// Its run reaches the time limit, but not that of a hang.
    #[error("it needs longer than the time limit of {limit:?}")]
    Slow {
        /// The limit.
        limit: Duration,
    },
    /// Its run did something else when it was repeated.
    #[error("it does not do the same twice")]
    Unreproducible,
    /// It needs something that the target does not offer.
    #[error("the target does not support what it does: {0}")]
    Unsupported(String),
}

/// One seed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    pub(crate) path: PathBuf,
    /// File name, for people and for the name in the queue.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// What a folder of seeds holds.
#[derive(Debug, Default)]
pub(crate) struct Seeds {
    /// In the order of their file names, so that a campaign can be repeated.
    pub(crate) usable: Vec<Seed>,
    pub(crate) skipped: Vec<SkippedSeed>,
}

/// A file that is not used as a seed.
#[derive(Debug)]
pub(crate) struct SkippedSeed {
    pub(crate) path: PathBuf,
    pub(crate) reason: SkipReason,
}

/// Reads the seeds in `folder`, at most `max_len` bytes each. Hidden files are passed over, they
/// belong to other tools.
pub(crate) fn read(folder: &Path, max_len: usize) -> Result<Seeds, SeedsError> {
    let fail = |source| SeedsError::List { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        names.push(entry.map_err(fail)?.file_name());
    }
    names.sort();
    let mut seeds = Seeds::default();
    for name in names {
        let path = folder.join(&name);
        let name = name.to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let skipped = match read_input(&path, max_len) {
            Ok(bytes) if !bytes.is_empty() => {
                seeds.usable.push(Seed { path, name, bytes });
                continue;
            }
            // A mutant may be empty, and is an entry like any other; an empty seed is a mistake.
            Ok(_) => SkipReason::Empty,
            Err(reason) => reason,
        };
        seeds.skipped.push(SkippedSeed { path, reason: skipped });
    }
    Ok(seeds)
}

/// Reads one input of at most `max_len` bytes.
pub(crate) fn read_input(path: &Path, max_len: usize) -> Result<Vec<u8>, SkipReason> {
    // Asked before opening: opening a named pipe would wait for a writer.
    if !fs::metadata(path).map_err(SkipReason::Unreadable)?.is_file() {
        return Err(SkipReason::NotAFile);
    }
    let mut bytes = Vec::new();
    let limit = (max_len as u64).saturating_add(1);
    let file = File::open(path).map_err(SkipReason::Unreadable)?;
    file.take(limit).read_to_end(&mut bytes).map_err(SkipReason::Unreadable)?;
    if bytes.len() > max_len { Err(SkipReason::TooLong { max: max_len }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_seeds_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let seeds = read(folder.path(), 10).unwrap();
        let names: Vec<_> = seeds.usable.iter().map(|seed| seed.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn skips_and_names_what_cannot_be_a_seed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("long"), [0; 11]).unwrap();
        fs::write(folder.path().join("empty"), []).unwrap();
        fs::write(folder.path().join("right"), [0; 10]).unwrap();
        fs::create_dir(folder.path().join("folder")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", folder.path().join("dangling")).unwrap();
        let seeds = read(folder.path(), 10).unwrap();
        assert_eq!(seeds.usable.len(), 1);
        let skipped: Vec<_> = seeds
            .skipped
            .iter()
            .map(|seed| format!("{}: {}", seed.path.file_name().unwrap().display(), seed.reason))
            .collect();
        assert!(skipped[0].starts_with("dangling: it cannot be read"));
        assert_eq!(
            skipped[1..],
            [
                "empty: it is empty",
                "folder: it is not a regular file",
                "long: it is longer than 10 bytes"
            ]
        );
    }

    #[test]
    fn names_a_folder_that_cannot_be_listed() {
        let error = read(Path::new("/nonexistent"), 10).unwrap_err();
        assert_eq!(error.to_string(), "list the seeds in /nonexistent");
    }
}
