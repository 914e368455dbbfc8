//! Names that a guest or a file chose are shown, and command no terminal.

use crate::invoke::{dejavm, fuzz, path, seeds};
use crate::support::{build_c, kvm};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What a command told on both streams.
fn told(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
    let commands: Vec<_> = text.lines().filter(|line| line.chars().any(char::is_control)).collect();
    assert!(commands.is_empty(), "{command:?}: {commands:?}");
    text
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
    let (program, out) = (folder.path().join("program"), folder.path().join("out"));
    let name = "crash\x1b[31m\nred";
    renamed(&build_c("terminal", &[]), "crash_here_now", name, &program);
    let name = name.escape_default().to_string();
    let seeds = seeds(folder.path(), b"b");
    let input = seeds.join("c");
    fs::write(&input, "c").unwrap();

    let run = ["run", "--strace", "-i", path(&input), "--", path(&program)];
    let crash = told(&mut dejavm(&run));
    assert!(crash.contains(&name) && crash.contains(r"\33[2J"), "{crash}");
    let found = told(&mut fuzz(&seeds, &out, "-E 50 -s 1", &[path(&program)]));
    assert!(found.contains(&name), "{found}");
    let crashes = fs::read_dir(out.join("crashes")).unwrap().flatten().map(|entry| entry.path());
    let crash = crashes.filter(|path| path.extension().is_none()).max().unwrap();
    let reproduced = told(&mut dejavm(&["repro", path(&crash)]));
    assert!(reproduced.contains(&name), "{reproduced}");
}

#[test]
fn a_files_names_are_shown_and_command_no_terminal() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let interpreter = "/lib64/ld-linux-x86-64.so.2";
    renamed(&build_c("words", &[]), interpreter, "/lib64/\x1b[2J\nnux-x86-64.so.2", &program);
    let refused = told(&mut dejavm(&["run", "--", path(&program)]));
    assert!(refused.contains("[2J") && refused.lines().count() == 1, "{refused}");
}
