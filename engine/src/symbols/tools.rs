//! The host's compiler and disassembler, for tests. Never fails for want of one: a test that has none
//! says that it is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compile C; `None`, with a note, where that does not work.
pub(crate) fn compile(directory: &Path, source: &str, options: &[&str]) -> Option<PathBuf> {
    let (input, output) = (directory.join("program.c"), directory.join("program"));
    std::fs::write(&input, source).unwrap();
    let done = Command::new("cc").args(options).arg("-o").arg(&output).arg(&input).output();
    if !done.is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: cc {options:?} does not work on this machine");
        return None;
    }
    Some(output)
}

/// objdump's listing of a file's code, a line for each instruction; `None`, with a note, without it.
pub(crate) fn listing(path: &Path) -> Option<String> {
    let output =
        Command::new("objdump").args(["-d", "-w", "--no-show-raw-insn"]).arg(path).output();
    let Ok(output) = output else {
        eprintln!("skipped: objdump is not on this machine");
        return None;
    };
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
