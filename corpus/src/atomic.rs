//! Writes files whole or not at all.
//!
//! A temporary file in the same folder, fsync, rename, fsync of the folder: after a kill at any
//! moment a file has its old content, its new content, or does not exist. It never writes in place.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Name of the temporary file, one for each folder: a folder has one writer, its campaign. The dot
/// keeps it out of sight of tools that take every file of a queue as an input.
const TEMPORARY: &str = ".dejavm-unfinished";

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The path names no file in a folder.
    #[error("{path} names no file in a folder")]
    NoFileName {
        /// The file asked for.
        path: PathBuf,
    },
    /// The temporary file could not be created.
    #[error("create {path}")]
    Create {
        /// The temporary file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content could not be written.
    #[error("write {path}")]
    Write {
        /// The temporary file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content or the folder could not be flushed to the disk.
    #[error("flush {path} to the disk")]
    Flush {
        /// The temporary file or its folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The temporary file could not take its final name.
    #[error("rename {from} to {to}")]
    Rename {
        /// The temporary file.
        from: PathBuf,
        /// The file asked for.
        to: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes `bytes` to `path`, replacing the file if there is one: after a kill at any moment the
/// file has its old content, its new content, or does not exist. One writer for each folder.
///
/// # Errors
///
/// The folder cannot be written to, or is full.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let (Some(folder), Some(_)) = (path.parent(), path.file_name()) else {
        return Err(WriteError::NoFileName { path: path.to_owned() });
    };
    // A bare file name has an empty parent, which is no folder that could be opened.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let temporary = folder.join(TEMPORARY);
    let mut file = File::create(&temporary)
        .map_err(|source| WriteError::Create { path: temporary.clone(), source })?;
    file.write_all(bytes)
        .map_err(|source| WriteError::Write { path: temporary.clone(), source })?;
    file.sync_all().map_err(|source| WriteError::Flush { path: temporary.clone(), source })?;
    fs::rename(&temporary, path).map_err(|source| WriteError::Rename {
        from: temporary,
        to: path.to_owned(),
        source,
    })?;
    // Without this the rename itself may be lost in a power failure.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| WriteError::Flush { path: folder.to_owned(), source })
}

/// Removes what an interrupted [`write()`] left in `folder`; says whether there was something.
pub(crate) fn remove_leftover(folder: &Path) -> io::Result<bool> {
    match fs::remove_file(folder.join(TEMPORARY)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_a_file_whole_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        write(&path, b"old, and longer").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_bare_file_name_is_in_the_current_folder() {
        let name = format!("dejavm-atomic-test-{}", std::process::id());
        let path = Path::new(&name);
        write(path, b"x").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"x");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn removes_the_leftover_of_an_interrupted_write() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(TEMPORARY), b"ha").unwrap();
        assert!(remove_leftover(folder.path()).unwrap());
        assert!(!remove_leftover(folder.path()).unwrap());
    }

    #[test]
    fn names_the_file_it_could_not_create() {
        let error = write(Path::new("/nonexistent/f"), b"").unwrap_err();
        assert_eq!(error.to_string(), format!("create /nonexistent/{TEMPORARY}"));
    }
}
