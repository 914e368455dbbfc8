//! Files and devices that somebody may not use.

use super::{Bench, HOST, INPUT, Row, check_by, row};
use crate::invoke::text;
use crate::support::{copy_program, kvm};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

/// Nobody, on every Linux: has no right to anything here.
const NOBODY: u32 = 65534;

/// Whether this process has all rights, so that file modes say nothing to it.
fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The same command as somebody who has no right to anything but what the modes give to all.
fn as_nobody(bench: &Bench, line: &str) -> Option<Output> {
    // The folder and the command themselves must be within reach.
    mode(bench, "", 0o755);
    if !bench.path("dejavm").exists() {
        copy_program(Path::new(env!("CARGO_BIN_EXE_dejavm")), &bench.path("dejavm"));
    }
    let mut command = bench.in_folder(bench.path("dejavm"));
    command.args(line.split_whitespace()).uid(NOBODY).gid(NOBODY);
    or_skipped(command)
}

/// The same command as an owner to whom the modes say what he may do, which is anybody but root, and
/// root without the capabilities to override them: that still has KVM.
fn as_owner(bench: &Bench, line: &str) -> Option<Output> {
    if !is_root() {
        return or_skipped(bench.command(line));
    }
    let setpriv = |program: &str| {
        let mut command = bench.in_folder("setpriv");
        command.args(["--bounding-set", "-dac_override,-dac_read_search", program]);
        command
    };
    // Not every setpriv knows how, nor may every root.
    if !setpriv("true").output().is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: setpriv cannot take capabilities from root here");
        return None;
    }
    let mut command = setpriv(env!("CARGO_BIN_EXE_dejavm"));
    command.args(line.split_whitespace());
    or_skipped(command)
}

fn or_skipped(mut command: Command) -> Option<Output> {
    command.output().inspect_err(|error| eprintln!("skipped: {command:?}: {error}")).ok()
}

fn mode(bench: &Bench, name: &str, mode: u32) {
    fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

/// Modes that a file's owner may not pass, in a folder which he may.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.copy(&bench.path("ends-reads"), "unreadable");
    bench.write("unreadable-seeds/a", b"x");
    bench.write("mixed-seeds/a", b"x");
    bench.write("mixed-seeds/b", b"hello");
    mode(&bench, "unreadable", 0o100);
    mode(&bench, "unreadable-seeds/a", 0);
    mode(&bench, "mixed-seeds/a", 0);
    mode(&bench, "empty", 0o555);
    bench
}

/// Folders that are read-only are told before KVM is needed.
const FOLDERS: [Row<'_>; 2] = [
    row("a read-only folder", "fuzz -i seeds -o empty -E 9 -- ./ends-reads")
        .says(&["empty", "Permission denied"]),
    row("a read-only folder for a new one", "fuzz -i seeds -o empty/new -E 9 -- ./ends-reads")
        .says(&["create folder empty/new", "Permission denied", "-o"]),
];

#[test]
fn files_that_their_owner_may_not_use() {
    let Some(_) = kvm() else { return };
    let bench = bench();
    let files = [
        row("a program", "run -- ./unreadable").says(&["./unreadable", "denied"]),
        row("a seed", "fuzz -i unreadable-seeds -o out -E 9 -- ./ends-reads").says(&[
            "no usable seed in unreadable-seeds",
            "a: it cannot be read: Permission denied",
            "a seed is a file you may read",
        ]),
        row("a file", "snapshot -o empty/s -- ./ends-reads").says(&["empty/s", "denied"]),
    ];
    check_by(INPUT, &FOLDERS, |line| as_owner(&bench, line));
    check_by(INPUT, &files, |line| as_owner(&bench, line));
    let mixed = "fuzz -i mixed-seeds -o mixed -E 50 -- ./ends-reads";
    let Some(done) = as_owner(&bench, mixed) else { return };
    let told = text(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "one that can be read is enough: {told}");
    assert!(told.contains("seed mixed-seeds/a is not in the queue: it cannot be read"), "{told}");
}

#[test]
fn rights_that_somebody_else_has() {
    let Some(_) = kvm() else { return };
    if !is_root() {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    let bench = bench();
    check_by(INPUT, &FOLDERS, |line| as_nobody(&bench, line));
    if fs::metadata("/dev/kvm").unwrap().mode() & 0o006 == 0 {
        let device = row("no right to KVM", "run -- ./ends-reads");
        let device = device.says(&["/dev/kvm", "ermission", "dejavm doctor"]);
        check_by(HOST, &[device], |line| as_nobody(&bench, line));
    }
}
