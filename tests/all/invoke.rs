//! The command as the tests run it: how it is called, and what it has written.

use crate::support::build_c;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// `dejavm ARGS`, with nothing to read.
pub fn dejavm(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dejavm"));
    command.args(args).stdin(Stdio::null());
    command
}

/// What comes of `dejavm ARGS`.
pub fn run(args: &[&str]) -> Output {
    dejavm(args).output().unwrap()
}

/// `dejavm fuzz -i SEEDS -o OUT OPTIONS -- PROGRAM`; the options as typed.
pub fn fuzz(seeds: &Path, out: &Path, options: &str, program: &[&str]) -> Command {
    let mut command = dejavm(&["fuzz", "-i", path(seeds), "-o", path(out)]);
    command.args(options.split_whitespace()).arg("--").args(program);
    command
}

/// [`fuzz`] on the guest with the planted bug, from one seed that its parser likes, which is put
/// into `folder`.
pub fn fuzz_planted(folder: &Path, out: &Path, options: &str) -> Command {
    let seeds = seeds(folder, b"t\x05hellon\x0212t\x03abc");
    fuzz(&seeds, out, options, &[path(&build_c("planted", &[])), "@@"])
}

/// A folder of one seed in `folder`.
pub fn seeds(folder: &Path, seed: &[u8]) -> PathBuf {
    let seeds = folder.join("seeds");
    std::fs::create_dir_all(&seeds).unwrap();
    std::fs::write(seeds.join("a"), seed).unwrap();
    seeds
}

pub fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
