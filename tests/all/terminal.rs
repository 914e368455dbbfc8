//! Names that a guest or a file chose are shown, and command no terminal.

use crate::support::{build_c, kvm};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a command told on both streams.
fn told(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dejavm"));
    let out = command.args(args).stdin(Stdio::null()).output().unwrap();
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let commands: Vec<_> = text.lines().filter(|line| line.chars().any(char::is_control)).collect();
    assert!(commands.is_empty(), "{args:?}: {commands:?}");
    text
}

fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A copy of `program` in which one name is another, wherever it stands.
fn renamed(program: &Path, name: &str, hostile: &str, copy: &Path) {
    assert_eq!(name.len(), hostile.len());
    let mut bytes = fs::read(program).unwrap();
    let starts = 0..bytes.len() - name.len();
    let places: Vec<_> = starts.filter(|at| bytes[*at..].starts_with(name.as_bytes())).collect();
    assert!(!places.is_empty(), "{name}");
    places.iter().for_each(|at| bytes[*at..at + name.len()].copy_from_slice(hostile.as_bytes()));
    fs::copy(program, copy).unwrap();
    fs::write(copy, bytes).unwrap();
}

#[test]
fn a_guests_names_are_shown_and_command_no_terminal() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (program, seeds, input, out) = (path("program"), path("seeds"), path("input"), path("out"));
    let built = build_c("terminal", &[]);
    renamed(&built, "crash_here_now", "crash\x1b[31m\nred", &program);
    fs::create_dir(&seeds).unwrap();
    fs::write(seeds.join("seed"), "b").unwrap();
    fs::write(&input, "c").unwrap();

    let crash = told(&["run", "--strace", "-i", str(&input), "--", str(&program)]);
    assert!(crash.contains("crash\\u{1b}[31m\\nred") && crash.contains(r"\33[2J"), "{crash}");
    let fuzz = ["fuzz", "-i", str(&seeds), "-o", str(&out), "-V", "2", "-s", "1"];
    let found = told(&[&fuzz[..], &["--", str(&program)]].concat());
    assert!(found.contains("crash\\u{1b}[31m\\nred"), "{found}");
    let crash = fs::read_dir(out.join("crashes")).unwrap().flatten().map(|entry| entry.path());
    let crash = crash.filter(|path| path.extension().is_none()).max().unwrap();
    let reproduced = told(&["repro", str(&crash)]);
    assert!(reproduced.contains("crash\\u{1b}[31m\\nred"), "{reproduced}");
}

#[test]
fn a_files_names_are_shown_and_command_no_terminal() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let interpreter = "/lib64/ld-linux-x86-64.so.2";
    renamed(&build_c("words", &[]), interpreter, "/lib64/\x1b[2J\nnux-x86-64.so.2", &program);
    let refused = told(&["run", "--", str(&program)]);
    assert!(refused.contains("[2J") && refused.lines().count() == 1, "{refused}");
}
