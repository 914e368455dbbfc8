//! Writes files whole or not at all.
//!
//! A temporary file in the same folder, fsync, rename, fsync of the folder: after a kill at any
//! moment a file has its old content, its new content, or does not exist. It never writes in place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Start of a temporary file's name. The dot keeps it out of sight of tools that take every file of
/// a queue as an input.
const TEMPORARY: &str = ".dejavm-unfinished";
/// Names that are tried for one.
const TRIES: u32 = 16;

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The path names no file in a folder.
    #[error("{path} names no file in a folder")]
    NoFileName {
        /// The file asked for.
        path: PathBuf,
    },
    /// No temporary file could be created beside it.
    #[error("create {path}")]
    Create {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content could not be written.
    #[error("write {path}")]
    Write {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The content or the folder could not be flushed to the disk.
    #[error("flush {path} to the disk")]
    Flush {
        /// The file asked for, or its folder.
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
/// file has its old content, its new content, or does not exist. What is there and is no file, a
/// device or a pipe, is written to and stays what it is.
///
/// # Errors
///
/// The folder cannot be written to, or is full; nothing has changed then, and nothing is left.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return write_to(path, bytes);
    }
    let (Some(folder), Some(_)) = (path.parent(), path.file_name()) else {
        return Err(WriteError::NoFileName { path: path.to_owned() });
    };
    // A bare file name has an empty parent, which is no folder that could be opened.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let (temporary, file) =
        create(folder).map_err(|source| WriteError::Create { path: path.to_owned(), source })?;
    let done = fill(file, bytes, path).and_then(|()| {
        fs::rename(&temporary, path).map_err(|source| WriteError::Rename {
            from: temporary.clone(),
            to: path.to_owned(),
            source,
        })
    });
    if done.is_err() {
        // On a full disk it would be in the way of everything else.
        let _ = fs::remove_file(&temporary);
    }
    done?;
    // Without this the rename itself may be lost in a power failure.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| WriteError::Flush { path: folder.to_owned(), source })
}

fn write_to(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let written = File::options().write(true).open(path).and_then(|mut it| it.write_all(bytes));
    written.map_err(|source| WriteError::Write { path: path.to_owned(), source })
}

fn fill(mut file: File, bytes: &[u8], path: &Path) -> Result<(), WriteError> {
    file.write_all(bytes).map_err(|source| WriteError::Write { path: path.to_owned(), source })?;
    file.sync_all().map_err(|source| WriteError::Flush { path: path.to_owned(), source })
}

/// Creates a temporary file under a name that nobody has. Follows no link, and opens nothing that is
/// there already.
fn create(folder: &Path) -> io::Result<(PathBuf, File)> {
    let mut taken = io::Error::from(ErrorKind::AlreadyExists);
    for number in 0..TRIES {
        let path = folder.join(format!("{TEMPORARY}-{}-{number}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => taken = error,
            opened => return opened.map(|file| (path, file)),
        }
    }
    Err(taken)
}

/// Removes what interrupted writes left in `folder`, whose one writer is the caller; says whether
/// there was something.
pub(crate) fn remove_leftovers(folder: &Path) -> io::Result<bool> {
    let mut found = false;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            fs::remove_file(entry.path())?;
            found = true;
        }
    }
    Ok(found)
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
    fn removes_the_leftovers_of_interrupted_writes() {
        let folder = tempfile::tempdir().unwrap();
        for name in [TEMPORARY, ".dejavm-unfinished-7-0", "id:000000", ".other"] {
            fs::write(folder.path().join(name), b"ha").unwrap();
        }
        assert!(remove_leftovers(folder.path()).unwrap());
        assert!(!remove_leftovers(folder.path()).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_device_is_written_to_and_stays_one() {
        write(Path::new("/dev/null"), b"x").unwrap();
        let error = write(Path::new("/dev/full"), b"x").unwrap_err();
        assert_eq!(error.to_string(), "write /dev/full");
        for device in ["/dev/null", "/dev/full"] {
            assert!(!fs::metadata(device).unwrap().is_file(), "{device}");
        }
    }

    #[test]
    fn a_link_in_the_temporary_files_place_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let name = format!("{TEMPORARY}-{}-0", std::process::id());
        std::os::unix::fs::symlink(&victim, folder.path().join(name)).unwrap();
        write(&folder.path().join("f"), b"new").unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn names_the_file_it_could_not_create() {
        let error = write(Path::new("/nonexistent/f"), b"").unwrap_err();
        assert_eq!(error.to_string(), "create /nonexistent/f");
    }
}
