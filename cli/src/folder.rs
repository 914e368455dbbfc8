//! What the command keeps in a campaign's output folder beside the campaign's own: the snapshot
//! that its findings belong to, and what that is a snapshot of.
//!
//! Called only while the campaign holds the folder's lock, or to read.

use crate::args::GuestArgs;
use crate::error::CliError;
use dejavm_corpus::write_atomically;
use dejavm_engine::linux::Process;
use dejavm_engine::machine::{GuestState, MachineSnapshot};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const SNAPSHOT: &str = "snapshot.dejavm";
const SOURCE: &str = "snapshot.json";
/// Longer than what arguments and the paths of files can be.
const SOURCE_BYTES_MAX: u64 = 64 << 20;

/// The arguments that decide what a snapshot holds. Paths and arguments need not be text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSource {
    /// Where the program is on the host.
    #[serde(default)]
    program: Option<PathBuf>,
    arguments: Vec<String>,
}

impl SnapshotSource {
    /// What `guest`'s snapshot depends on, apart from the contents of images
    /// ([`changed_image`]).
    pub fn of(guest: &GuestArgs) -> Self {
        let mut arguments = vec![
            format!("from {:?}", std::env::current_dir().ok()),
            format!("ram {:?}", guest.ram),
            format!("at {:?} {}", guest.at, guest.until_return),
            format!("harness {:?}", guest.harness),
            format!("heap {:?}", guest.heap),
            format!("crash at {:?}", guest.crash_at),
            format!("input {:?}", guest.input_path),
            format!("bare {:?} {:?} {:?}", guest.bare, guest.load_at, guest.entry),
        ];
        arguments.push(format!("system files {}", !guest.no_host_files));
        arguments.extend(guest.file.iter().chain(&guest.dir).map(|file| {
            let host = fs::metadata(&file.host).ok();
            let version = host.map(|host| (host.len(), host.modified().ok()));
            format!("file {file:?} {version:?}")
        }));
        let escape = |text: &std::ffi::OsString| text.as_bytes().escape_ascii().to_string();
        arguments.extend(guest.env.iter().map(|text| format!("env {}", escape(text))));
        arguments.extend(guest.program.iter().map(escape));
        let program = guest.program.first().and_then(|name| fs::canonicalize(name).ok());
        Self { program, arguments }
    }
}

/// A campaign's snapshot, in its output folder.
#[derive(Debug, PartialEq, Eq)]
pub enum KeptSnapshot {
    /// There is none.
    None,
    /// It is one of the same guest.
    OfSame,
    /// It is one of the same program, with other arguments.
    OfOtherCommand,
    /// This file, which should say what it is one of, does not.
    OfUnknown(PathBuf),
}

fn is_there(path: &Path) -> bool {
    !fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// What the file `path` says that a snapshot is one of; none if it cannot be read, or is damaged.
fn read_source(path: &Path) -> Option<SnapshotSource> {
    let is_sensible = |file: &fs::Metadata| file.is_file() && file.len() < SOURCE_BYTES_MAX;
    fs::metadata(path).ok().filter(is_sensible)?;
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The private part of a campaign's output folder.
#[derive(Debug)]
pub struct Folder {
    out: PathBuf,
    private: PathBuf,
}

impl Folder {
    /// That of the output folder `out`.
    pub fn of(out: &Path) -> Self {
        Self { out: out.to_owned(), private: out.join(".dejavm") }
    }

    /// Where the snapshot is.
    pub fn snapshot(&self) -> PathBuf {
        self.private.join(SNAPSHOT)
    }

    /// What the folder's snapshot is to a guest of `source`.
    ///
    /// # Errors
    /// It is one of another program: what was found there would belong to no snapshot any more.
    pub fn kept(&self, source: &SnapshotSource) -> Result<KeptSnapshot, CliError> {
        let path = self.private.join(SOURCE);
        if !self.snapshot().is_file() || !is_there(&path) {
            return Ok(KeptSnapshot::None);
        }
        let Some(kept) = read_source(&path) else { return Ok(KeptSnapshot::OfUnknown(path)) };
        match (&kept.program, &source.program) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(CliError::OtherProgram {
                out: self.out.clone(),
                theirs: theirs.clone(),
                ours: ours.clone(),
            }),
            _ if kept == *source => Ok(KeptSnapshot::OfSame),
            _ => Ok(KeptSnapshot::OfOtherCommand),
        }
    }

    /// Saves `snapshot` as that of `source`.
    pub fn save(
        &self,
        snapshot: &MachineSnapshot,
        source: &SnapshotSource,
    ) -> Result<(), CliError> {
        let path = self.private.join(SOURCE);
        // Without its source a snapshot is not used: a kill from here on leaves none at all.
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(CliError::Remove { path, source });
            }
            _ => {}
        }
        snapshot.save(&self.snapshot())?;
        let json = serde_json::to_vec_pretty(source).map_err(CliError::Json)?;
        Ok(write_atomically(&path, &json)?)
    }
}

/// The first image of `snapshot` whose file on the host is no longer what was loaded.
pub fn changed_image(snapshot: &MachineSnapshot) -> Option<PathBuf> {
    let GuestState::Process(state) = &snapshot.guest else { return None };
    let images = Process::images(&state.process);
    let changed = images.into_iter().find(|image| {
        // An image that is not on the host was mapped there under another path. The path is what
        // the snapshot says, and may be that of something that is no file and has no end.
        fs::metadata(&image.path).is_ok_and(|there| {
            let is_as_long = there.is_file() && there.len() == image.bytes.len() as u64;
            !is_as_long || fs::read(&image.path).is_ok_and(|bytes| bytes != *image.bytes)
        })
    });
    changed.map(|image| image.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, Typed};
    use clap::Parser as _;

    fn source(line: &str) -> SnapshotSource {
        let typed = Typed::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Fuzz(fuzz) = typed.command else { panic!("{line}") };
        SnapshotSource::of(&fuzz.guest)
    }

    #[test]
    fn a_snapshot_of_nobody_knows_what_is_not_taken_for_none() {
        let out = tempfile::tempdir().unwrap();
        let folder = Folder::of(out.path());
        let ours = source("dejavm fuzz -o b -- ./p");
        fs::create_dir(&folder.private).unwrap();
        assert_eq!(folder.kept(&ours).unwrap(), KeptSnapshot::None);
        fs::write(folder.snapshot(), "").unwrap();
        let path = folder.private.join(SOURCE);
        assert_eq!(folder.kept(&ours).unwrap(), KeptSnapshot::None, "a kill left no source");
        fs::write(&path, "{").unwrap();
        assert_eq!(folder.kept(&ours).unwrap(), KeptSnapshot::OfUnknown(path.clone()));
        fs::write(&path, serde_json::to_vec(&ours).unwrap()).unwrap();
        assert_eq!(folder.kept(&ours).unwrap(), KeptSnapshot::OfSame);
        let other = source("dejavm fuzz -o b -- ./p -q");
        assert_eq!(folder.kept(&other).unwrap(), KeptSnapshot::OfOtherCommand);
    }

    #[test]
    fn only_what_the_snapshot_depends_on_makes_another_one() {
        let base = source("dejavm fuzz -i a -o b -- ./p @@");
        assert_eq!(base, source("dejavm fuzz -o b -V 10 -s 3 -x d --cover all ./p @@"));
        for line in [
            "dejavm fuzz -o b -- ./p -q @@",
            "dejavm fuzz -o b -- ./q @@",
            "dejavm fuzz -o b --ram 1M -- ./p @@",
            "dejavm fuzz -o b --env A=b -- ./p @@",
            "dejavm fuzz -o b --file x -- ./p @@",
            "dejavm fuzz -o b --at main -- ./p @@",
            "dejavm fuzz -o b --heap guard -- ./p @@",
        ] {
            assert_ne!(base, source(line), "{line}");
        }
    }
}
