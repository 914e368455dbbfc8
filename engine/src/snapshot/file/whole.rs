//! Writes a file whole or not at all: a temporary file beside it, synced, renamed, and the folder
//! synced. What a kill left of an earlier one is removed. Never replaces what is no file.

use super::error::{FileError, io_error};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Between a file's name and the rest of its temporary file's.
const MARK: &str = ".tmp-";
/// Names that are tried: each that is taken belongs to somebody who is writing, or is in the way.
const TRIES: u32 = 16;

/// A failure while the temporary file is filled.
pub(super) enum WriteError {
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
pub(super) fn write(
    path: &Path,
    fill: impl FnOnce(&mut File) -> Result<(), WriteError>,
) -> Result<(), FileError> {
    let failed = |source| io_error("write", path)(source);
    // A rename would put a file in the place of a device or of a pipe.
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        let problem = "there is something else than a file";
        return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, problem)));
    }
    let (Some(name), Some(folder)) = (path.file_name(), path.parent()) else {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it names no file")));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    remove_leftovers(folder, name);
    let (temporary, mut file) = create(folder, name).map_err(failed)?;
    let written = (|| {
        fill(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself must survive a crash: that is the folder's to remember.
        File::open(folder)?.sync_all()?;
        Ok(())
    })();
    written.map_err(|error| {
        // If that fails too, the next write removes it: the lock goes with this process.
        let _ = fs::remove_file(&temporary);
        match error {
            WriteError::Io(source) => failed(source),
            WriteError::File(error) => error,
        }
    })
}

fn temporary_name(name: &OsStr, number: u32) -> OsString {
    let mut temporary = name.to_owned();
    temporary.push(format!("{MARK}{}-{number}", std::process::id()));
    temporary
}

/// Creates a temporary file and locks it, which shows that somebody is writing it: the lock goes
/// with its process, however that ends. Follows no link, and opens nothing that is there already.
fn create(folder: &Path, name: &OsStr) -> io::Result<(PathBuf, File)> {
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 0..TRIES {
        let path = folder.join(temporary_name(name, number));
        let file = match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                taken = error;
                continue;
            }
            Err(error) => return Err(error),
        };
        // A file system without locks: then nobody removes what a kill leaves.
        let _ = file.try_lock();
        // Between the two somebody may have taken it for a leftover.
        let ours = file.metadata()?;
        if fs::metadata(&path).is_ok_and(|there| is_same(&there, &ours)) {
            return Ok((path, file));
        }
    }
    Err(taken)
}

fn is_same(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Removes temporary files of `name` that nobody is writing: a kill left them. What cannot be
/// listed, opened or removed stays, and is no reason not to write.
fn remove_leftovers(folder: &Path, name: &OsStr) {
    let mut start = name.to_owned();
    start.push(MARK);
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(start.as_encoded_bytes());
        if is_ours && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let path = entry.path();
            if File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::ErrorChain;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_kills_leftover_goes_and_a_file_that_is_being_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.dejavm");
        fs::write(folder.path().join("s.dejavm.tmp-77"), "dead").unwrap();
        fs::write(folder.path().join("s.dejavm.tmp-78-0"), "dead").unwrap();
        fs::write(folder.path().join("t.dejavm.tmp-77"), "another's").unwrap();
        let busy = File::create(folder.path().join("s.dejavm.tmp-79-0")).unwrap();
        busy.lock().unwrap();
        write(&path, |file| Ok(file.write_all(b"new")?)).map_err(|e| e.to_string()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["s.dejavm", "s.dejavm.tmp-79-0", "t.dejavm.tmp-77"]);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        fs::write(&path, "old").unwrap();
        let full = |_: &mut File| Err(io::Error::from(io::ErrorKind::StorageFull).into());
        let error = ErrorChain(&write(&path, full).unwrap_err()).to_string();
        assert!(error.starts_with("write ") && error.contains("no storage space"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["s"]);
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        for path in ["/dev/null", "/", "/tmp"] {
            let error = ErrorChain(&write(Path::new(path), |_| Ok(())).unwrap_err()).to_string();
            assert!(error.contains(path) && error.contains("something else"), "{error}");
        }
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_link_in_a_temporary_files_place_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let link = folder.path().join(temporary_name(OsStr::new("s"), 0));
        std::os::unix::fs::symlink(&victim, link).unwrap();
        let path = folder.path().join("s");
        write(&path, |file| Ok(file.write_all(b"new")?)).map_err(|e| e.to_string()).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
