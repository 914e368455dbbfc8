//! Every mistake and every bad day gets one line that says what was wrong, where, and what to do,
//! and the exit status that `--help` promises.
//!
//! A row is a claim: what is wrong, the command line, and what the message says. One that needs
//! rights or tools which are not there says so and is left out.

mod arguments;
mod disks;
mod output;
mod programs;
mod rights;
mod seeds;
mod snapshots;

use crate::invoke::text;
use crate::support::build_c;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const USAGE: i32 = 2;
const HOST: i32 = 3;
const INPUT: i32 = 4;

/// What is wrong, the command line that is, and what its message has in it.
struct Row<'a> {
    what: &'a str,
    line: &'a str,
    words: &'a [&'a str],
}

/// `what` is wrong where somebody types `dejavm line`.
const fn row<'a>(what: &'a str, line: &'a str) -> Row<'a> {
    Row { what, line, words: &[] }
}

impl<'a> Row<'a> {
    /// The message has all of these.
    const fn says(self, words: &'a [&'a str]) -> Self {
        Self { words, ..self }
    }

    /// One line says it, and it is the last one, or clap's own of a few.
    fn check(&self, done: &Output, status: i32) {
        let (what, told) = (self.what, text(&done.stderr));
        assert_eq!(done.status.code(), Some(status), "{what}: {told}");
        assert!(!told.contains("panicked"), "{what}: {told}");
        let mut lines = told.lines().filter(|line| line.starts_with("dejavm: "));
        let line = match (lines.next(), lines.next()) {
            (Some(line), None) => {
                assert_eq!(told.lines().last(), Some(line), "{what}: nothing follows: {told}");
                line
            }
            (None, None) if status == USAGE => {
                told.lines().find(|line| line.starts_with("error: ")).expect(what)
            }
            _ => panic!("{what}: not one line: {told}"),
        };
        assert!(!self.words.is_empty(), "{what}: a row claims something");
        for word in self.words {
            assert!(line.contains(word), "{what}: {word:?} is not in {line:?}");
        }
    }
}

/// Every row holds, and ends with `status`. `run` runs a row's line; where it cannot here, it says
/// so, and neither can it the other rows'.
fn check_by(status: i32, rows: &[Row<'_>], run: impl Fn(&str) -> Option<Output>) {
    for row in rows {
        let Some(done) = run(row.line) else { return };
        row.check(&done, status);
    }
}

/// A folder with programs and files to make mistakes with.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        let name_of = |how: &str| format!("ends-{how}");
        for how in ["reads", "unread", "early-crash", "early-loop", "crash", "hang"] {
            let flag = format!("-DHOW_{}", how.replace('-', "_"));
            bench.copy(&build_c("ends", &[&flag, "-static"]), &name_of(how));
        }
        bench.write("seeds/a", b"hello");
        bench.write("file", b"x");
        fs::create_dir(bench.path("empty")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn copy(&self, from: &Path, name: &str) {
        fs::copy(from, self.path(name)).unwrap();
    }

    /// `program`, in the folder.
    fn in_folder(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    /// `dejavm line`, in the folder.
    fn command(&self, line: &str) -> Command {
        let mut command = self.in_folder(env!("CARGO_BIN_EXE_dejavm"));
        command.args(line.split_whitespace());
        command
    }

    fn succeed(&self, line: &str) {
        let done = self.command(line).output().unwrap();
        assert!(done.status.success(), "{line}: {}", text(&done.stderr));
    }

    /// Every row holds, and ends with `status`.
    fn check(&self, status: i32, rows: &[Row<'_>]) {
        check_by(status, rows, |line| Some(self.command(line).output().unwrap()));
    }
}
