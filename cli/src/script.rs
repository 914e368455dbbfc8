//! Scripts: a file that begins with `#!` is run by the interpreter that it names, as the kernel's
//! `execve` does. Never runs or interprets anything itself.

use crate::error::CliError;
use crate::which::find_program;
use dejavm_engine::linux::{FileMapping, ProcessSpec};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What the kernel reads of a script's first line (`BINPRM_BUF_SIZE`).
const LINE_BYTES_MAX: u64 = 256;
/// Interpreters that are scripts themselves, as in Linux.
const DEPTH_MAX: u32 = 4;

/// How a script is started.
#[derive(Debug, PartialEq, Eq)]
pub struct Script {
    interpreter: PathBuf,
    /// Between the interpreter and the script's own path.
    arguments: Vec<OsString>,
}

/// How `path` is started, if it is a script.
pub fn of(path: &Path) -> Result<Option<Script>, CliError> {
    let Some(mut script) = read(path)? else { return Ok(None) };
    for _ in 0..DEPTH_MAX {
        let Some(outer) = read(&script.interpreter)? else { break };
        let mut arguments = outer.arguments;
        arguments.push(script.interpreter.into());
        arguments.extend(script.arguments);
        script = Script { interpreter: outer.interpreter, arguments };
    }
    Ok(Some(script))
}

fn read(path: &Path) -> Result<Option<Script>, CliError> {
    // What cannot be read is for the loader to name.
    let Ok(file) = fs::File::open(path) else { return Ok(None) };
    if !file.metadata().is_ok_and(|facts| facts.is_file()) {
        return Ok(None);
    }
    let mut start = Vec::new();
    let read = file.take(LINE_BYTES_MAX).read_to_end(&mut start);
    read.map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let Some(line) = start.strip_prefix(b"#!") else { return Ok(None) };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let end = line.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(line.len());
    let (name, argument) = line.split_at(end);
    let (interpreter, argument) = (OsStr::from_bytes(name), argument.trim_ascii());
    if name.is_empty() {
        return Ok(None);
    }
    let arguments = if argument.is_empty() { Vec::new() } else { vec![argument] };
    let is_env = Path::new(interpreter).file_name() == Some(OsStr::new("env"));
    if let (true, Some(name)) = (is_env, arguments.first()) {
        return by_env(name);
    }
    let arguments = arguments.into_iter().map(|text| OsStr::from_bytes(text).into()).collect();
    Ok(Some(Script { interpreter: interpreter.into(), arguments }))
}

/// What `env` would start: it looks the program up in `PATH` and becomes it.
fn by_env(line: &[u8]) -> Result<Option<Script>, CliError> {
    let splits = line.starts_with(b"-S");
    let line = line.strip_prefix(b"-S").unwrap_or(line);
    let mut words: Vec<&[u8]> = vec![line.trim_ascii()];
    if splits {
        words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    }
    let Some((name, arguments)) = words.split_first() else { return Ok(None) };
    let path = std::env::var_os("PATH");
    let interpreter = find_program(OsStr::from_bytes(name), path.as_deref())?;
    let arguments = arguments.iter().map(|word| OsStr::from_bytes(word).into()).collect();
    Ok(Some(Script { interpreter, arguments }))
}

impl Script {
    /// Has `spec`, which names the script as its program, start the interpreter with it.
    pub fn start(self, spec: &mut ProcessSpec) {
        let script = std::mem::replace(&mut spec.program, self.interpreter);
        spec.files.push(FileMapping { host: script.clone(), guest: script.clone() });
        let mut args = self.arguments;
        args.push(script.into());
        args.append(&mut spec.args);
        spec.args = args;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &[u8]) -> Option<Script> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        of(file.path()).unwrap()
    }

    fn starts(interpreter: &str, arguments: &[&str]) -> Option<Script> {
        let arguments = arguments.iter().map(OsString::from).collect();
        Some(Script { interpreter: interpreter.into(), arguments })
    }

    #[test]
    fn takes_the_line_apart_as_the_kernel_does() {
        assert_eq!(script(b"#!/bin/cat\nrest"), starts("/bin/cat", &[]));
        assert_eq!(script(b"#! /bin/cat -u -v \n"), starts("/bin/cat", &["-u -v"]));
        assert_eq!(script(b"\x7fELF"), None);
        assert_eq!(script(b"#!\n"), None);
        assert_eq!(script(b""), None);
    }

    #[test]
    fn looks_up_what_env_would() {
        let found = script(b"#!/usr/bin/env -S cat -u\n").unwrap();
        assert!(found.interpreter.ends_with("cat"), "{found:?}");
        assert_eq!(found.arguments, ["-u"]);
    }
}
