//! The output folder of a campaign, in AFL's layout.
//!
//! `queue/`, `crashes/`, `hangs/`, `fuzzer_stats` and `plot_data` are AFL's. `.dejavm/` is ours: a
//! file that says so, the lock, and the facts of crashes. Never deletes or replaces a finding, and
//! touches nothing in a folder that is not a campaign's.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::atomic::{self, WriteError};
use crate::names::{self, Parsed};

/// The longest file of numbers or facts that is read, in bytes: 10,000 crashes with stacks are a
/// tenth of it.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// The longest line of `plot_data`, in bytes; a line has a dozen numbers.
const LINE_BYTES_MAX: u64 = 1 << 16;

/// Content of `.dejavm/format`.
const FORMAT: &str = "dejavm campaign 1\n";
/// What is shown of another content.
const FORMAT_CHARS_SHOWN: usize = 64;

/// More than a process number has.
const PID_BYTES_MAX: u64 = 32;

/// The output folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum OutError {
    /// The folder holds something that no campaign wrote.
    #[error("{path} is no output folder of dejavm and is not empty: it holds {entry}")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Something in it.
        entry: PathBuf,
    },
    /// The folder was written by another version.
    #[error("{path} is in a format that this version does not know: {found}")]
    Format {
        /// The file that names the format.
        path: PathBuf,
        /// The format it names.
        found: String,
    },
    /// Another campaign is running there.
    #[error("{path} is in use by another campaign, process {pid}")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Its process, as it says itself.
        pid: String,
    },
    /// A folder could not be created.
    #[error("create folder {path}")]
    CreateFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder could not be listed.
    #[error("list folder {path}")]
    List {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The lock could not be taken.
    #[error("lock {path}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line could not be added to a file.
    #[error("add a line to {path}")]
    Append {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An interrupted write's leftover could not be removed.
    #[error("remove an unfinished file from {path}")]
    Clean {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What is known about findings could not be turned into JSON.
    #[error("encode the content of {path}")]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        source: serde_json::Error,
    },
}

/// A file of a folder, with what its name says.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) parsed: Parsed,
}

/// What a folder of findings holds.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Findings in the order of their numbers.
    pub(crate) stored: Vec<Stored>,
    /// Files with other names.
    pub(crate) foreign: Vec<PathBuf>,
}

/// An output folder, locked for this process.
#[derive(Debug)]
pub(crate) struct OutFolder {
    root: PathBuf,
    plot: File,
    /// Dropping it, or the death of the process, unlocks.
    _lock: File,
    /// Folders from which an unfinished file was removed.
    pub(crate) cleaned: Vec<PathBuf>,
}

impl OutFolder {
    /// Opens the folder of a campaign, or starts one in a new or empty folder.
    pub(crate) fn open(root: &Path, plot_header: &str) -> Result<Self, OutError> {
        create_folder(root)?;
        let private = root.join(".dejavm");
        let format = private.join("format");
        let known = read_if_exists(&format)?;
        if known.is_none() {
            refuse_foreign(root, &private)?;
        }
        create_folder(&private)?;
        let lock = lock(root, &private.join("lock"))?;
        match known {
            None => atomic::write(&format, FORMAT.as_bytes())?,
            Some(found) if found == FORMAT.as_bytes() => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found);
                let found = found.escape_debug().take(FORMAT_CHARS_SHOWN).collect();
                return Err(OutError::Format { path: format, found });
            }
        }
        let mut cleaned = Vec::new();
        for folder in [root, &private] {
            clean(folder, &mut cleaned)?;
        }
        for name in ["queue", "crashes", "hangs"] {
            let folder = root.join(name);
            create_folder(&folder)?;
            clean(&folder, &mut cleaned)?;
        }
        let plot = open_plot(&root.join("plot_data"), plot_header)?;
        Ok(Self { root: root.to_owned(), plot, _lock: lock, cleaned })
    }

    /// Folder of the inputs worth mutating.
    pub(crate) fn queue(&self) -> PathBuf {
        self.root.join("queue")
    }

    /// Folder of the inputs that crash.
    pub(crate) fn crashes(&self) -> PathBuf {
        self.root.join("crashes")
    }

    /// Folder of the inputs that reach the time limit.
    pub(crate) fn hangs(&self) -> PathBuf {
        self.root.join("hangs")
    }

    /// The file of numbers.
    pub(crate) fn fuzzer_stats(&self) -> PathBuf {
        self.root.join("fuzzer_stats")
    }

    /// The file of the facts of crashes.
    pub(crate) fn crash_facts(&self) -> PathBuf {
        crash_facts(&self.root)
    }

    /// The file of the blocks that saved hangs reach.
    pub(crate) fn hang_blocks(&self) -> PathBuf {
        self.root.join(".dejavm").join("hangs.json")
    }

    /// Adds a line to `plot_data`, with one system call.
    pub(crate) fn plot(&mut self, line: &str) -> Result<(), OutError> {
        self.plot
            .write_all(line.as_bytes())
            .map_err(|source| OutError::Append { path: self.root.join("plot_data"), source })
    }
}

/// The file of the facts of crashes in the output folder `root`.
pub(crate) fn crash_facts(root: &Path) -> PathBuf {
    root.join(".dejavm").join("crashes.json")
}

/// Lists a folder of findings. Hidden files are passed over, they belong to other tools.
pub(crate) fn list(folder: &Path) -> Result<Listing, OutError> {
    let fail = |source| OutError::List { path: folder.to_owned(), source };
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        match names::parse(&name) {
            _ if name.starts_with('.') => {}
            Some(parsed) => listing.stored.push(Stored { path, name, parsed }),
            None => listing.foreign.push(path),
        }
    }
    listing.stored.sort_by(|a, b| (a.parsed.id, &a.name).cmp(&(b.parsed.id, &b.name)));
    listing.foreign.sort();
    Ok(listing)
}

/// Reads a file that need not exist.
pub(crate) fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, OutError> {
    match read_file(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OutError::Read { path: path.to_owned(), source }),
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // A named pipe would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let there = file.metadata()?;
    if !there.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if there.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens one of the files that are changed in place. A folder may come from anywhere, and a link in
/// it may lead anywhere: to no file that is not in the folder is anything done.
fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::other("it is a symbolic link"),
        _ => error,
    })?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

fn create_folder(path: &Path) -> Result<(), OutError> {
    fs::create_dir_all(path)
        .map_err(|source| OutError::CreateFolder { path: path.to_owned(), source })
}

fn clean(folder: &Path, cleaned: &mut Vec<PathBuf>) -> Result<(), OutError> {
    let removed = atomic::remove_leftovers(folder)
        .map_err(|source| OutError::Clean { path: folder.to_owned(), source })?;
    if removed {
        cleaned.push(folder.to_owned());
    }
    Ok(())
}

/// Refuses a folder with content. Our own sub-folder alone is what a kill during the very first
/// start leaves.
fn refuse_foreign(root: &Path, private: &Path) -> Result<(), OutError> {
    let fail = |source| OutError::List { path: root.to_owned(), source };
    for entry in fs::read_dir(root).map_err(fail)? {
        let entry = entry.map_err(fail)?.path();
        if entry != private {
            return Err(OutError::Foreign { path: root.to_owned(), entry });
        }
    }
    Ok(())
}

/// Takes the lock. The system gives it back when a process ends, however it ends, so a lock file
/// that a dead process left is simply taken over.
fn lock(root: &Path, path: &Path) -> Result<File, OutError> {
    let fail = |source| OutError::Lock { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = open_own(&mut options, path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only a hint for people, so whatever can be read will do.
            let _ = (&mut file).take(PID_BYTES_MAX).read_to_string(&mut pid);
            let pid = pid.trim().to_owned();
            return Err(OutError::InUse { path: root.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(fail(source)),
    }
    file.set_len(0).map_err(fail)?;
    writeln!(file, "{}", std::process::id()).map_err(fail)?;
    Ok(file)
}

/// Opens `plot_data` for adding lines. A line that a kill cut off is removed; the ones before it
/// stay as they are, so this file alone need not be written anew each time.
fn open_plot(path: &Path, header: &str) -> Result<File, OutError> {
    let fail = |source| OutError::Append { path: path.to_owned(), source };
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        atomic::write(path, header.as_bytes())?;
    }
    let mut file = open_own(OpenOptions::new().read(true).write(true), path).map_err(fail)?;
    let whole = whole_lines(&mut file).map_err(fail)?;
    file.set_len(whole).map_err(fail)?;
    file.seek(SeekFrom::End(0)).map_err(fail)?;
    Ok(file)
}

/// Where the last whole line ends. A file whose end is not even a part of a line is left as it is.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(LINE_BYTES_MAX).read_to_end(&mut end)?;
    match end.iter().rposition(|&byte| byte == b'\n') {
        Some(last) => Ok(start + last as u64 + 1),
        None if start == 0 => Ok(0),
        None => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(root: &Path) -> Result<OutFolder, OutError> {
        OutFolder::open(root, "# header\n")
    }

    #[test]
    fn starts_in_a_new_or_an_empty_folder_and_opens_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        drop(open(&deep).unwrap());
        open(&deep).unwrap();
        assert!(deep.join("queue").is_dir() && deep.join("plot_data").is_file());
    }

    #[test]
    fn refuses_a_foreign_out_folder_and_leaves_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("is not empty") && error.contains("thesis.tex"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn refuses_a_file_and_an_unknown_format() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(open(&file).unwrap_err().to_string().starts_with("create folder"));
        let out = folder.path().join("out");
        drop(open(&out).unwrap());
        fs::write(out.join(".dejavm/format"), "dejavm campaign 99\n").unwrap();
        let error = open(&out).unwrap_err().to_string();
        assert!(error.contains("dejavm campaign 99"), "{error}");
    }

    #[test]
    fn lets_one_campaign_in_and_takes_over_the_lock_of_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(error.ends_with(&format!("in use by another campaign, process {pid}")), "{error}");
        drop(first);
        fs::write(folder.path().join(".dejavm/lock"), "999999\n").unwrap();
        open(folder.path()).unwrap();
    }

    #[test]
    fn survives_a_kill_at_any_moment_of_the_first_start() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".dejavm")).unwrap();
        fs::write(folder.path().join(".dejavm/.dejavm-unfinished"), "deja").unwrap();
        let out = open(folder.path()).unwrap();
        assert_eq!(out.cleaned, [folder.path().join(".dejavm")]);
    }

    #[test]
    fn removes_unfinished_files_and_the_cut_off_line() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        fs::write(folder.path().join("queue/.dejavm-unfinished-7-0"), "ha").unwrap();
        fs::write(folder.path().join("plot_data"), "# header\n1, 2\n3,").unwrap();
        let mut out = open(folder.path()).unwrap();
        assert_eq!(out.cleaned, [folder.path().join("queue")]);
        out.plot("5, 6\n").unwrap();
        let plot = fs::read_to_string(folder.path().join("plot_data")).unwrap();
        assert_eq!(plot, "# header\n1, 2\n5, 6\n");
    }

    #[test]
    fn nothing_is_done_to_what_a_link_in_the_folder_leads_to() {
        for name in [".dejavm/lock", "plot_data"] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out");
            drop(open(&out).unwrap());
            let victim = folder.path().join("victim");
            fs::write(&victim, "precious\nunfinished").unwrap();
            fs::remove_file(out.join(name)).unwrap();
            std::os::unix::fs::symlink(&victim, out.join(name)).unwrap();
            let error = open(&out).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(source, "it is a symbolic link", "{name}");
            assert_eq!(fs::read(&victim).unwrap(), b"precious\nunfinished");
        }
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        for name in [".dejavm/format", ".dejavm/lock", "plot_data"] {
            let folder = tempfile::tempdir().unwrap();
            drop(open(folder.path()).unwrap());
            let path = folder.path().join(name);
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            assert!(open(folder.path()).is_err(), "{name}");
        }
    }

    #[test]
    fn lists_findings_by_number_and_names_foreign_files() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["id:000010,orig:b", "id:000002,orig:a", "README.txt", ".state"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let listing = list(folder.path()).unwrap();
        let ids: Vec<_> = listing.stored.iter().map(|stored| stored.parsed.id).collect();
        assert_eq!(ids, [2, 10]);
        assert_eq!(listing.foreign, [folder.path().join("README.txt")]);
    }
}
