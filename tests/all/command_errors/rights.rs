//! Files and devices that somebody may not use.

use super::{Bench, HOST, INPUT, check_by, row};
use crate::support::kvm;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Output;

/// Nobody, on every Linux: has no right to anything here.
const NOBODY: u32 = 65534;

/// Whether this process has all rights, so that file modes say nothing to it.
fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The same command as somebody who may not read or write what the modes deny.
fn humbly(bench: &Bench, line: &str) -> Option<Output> {
    let mut command = bench.command(line);
    if is_root() {
        // The folder and the command themselves must be within reach.
        mode(bench, "", 0o755);
        if !bench.path("dejavm").exists() {
            bench.copy(Path::new(env!("CARGO_BIN_EXE_dejavm")), "dejavm");
        }
        command = bench.in_folder(bench.path("dejavm"));
        command.args(line.split_whitespace()).uid(NOBODY).gid(NOBODY);
    }
    match command.output() {
        Ok(done) => Some(done),
        Err(error) => {
            eprintln!("skipped: cannot be somebody else: {error}");
            None
        }
    }
}

fn mode(bench: &Bench, name: &str, mode: u32) {
    fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn rights_that_are_missing() {
    let Some(_) = kvm() else { return };
    let bench = Bench::new();
    bench.copy(&bench.path("ends-reads"), "unreadable");
    bench.write("unreadable-seeds/a", b"x");
    fs::create_dir(bench.path("out")).unwrap();
    mode(&bench, "unreadable", 0o100);
    mode(&bench, "unreadable-seeds/a", 0);
    mode(&bench, "empty", 0o555);
    mode(&bench, "out", 0o777);
    let humbly = |line: &str| humbly(&bench, line);
    let folders = [
        row("a read-only folder", "fuzz -i seeds -o empty -- ./ends-reads")
            .says(&["empty", "Permission denied"]),
        row("a read-only folder for a new one", "fuzz -i seeds -o empty/new -- ./ends-reads")
            .says(&["create folder empty/new", "Permission denied", "-o"]),
    ];
    check_by(INPUT, &folders, humbly);
    if is_root() && fs::metadata("/dev/kvm").unwrap().mode() & 0o006 == 0 {
        let device = row("no right to KVM", "run -- ./ends-reads");
        check_by(HOST, &[device.says(&["/dev/kvm", "ermission", "dejavm doctor"])], humbly);
    } else if !is_root() {
        let files = [
            row("a program", "run -- ./unreadable").says(&["./unreadable", "denied"]),
            row("a seed", "fuzz -i unreadable-seeds -o out -- ./ends-reads")
                .says(&["no usable seed", "a: it cannot be read"]),
            row("a file", "snapshot -o empty/s -- ./ends-reads").says(&["empty/s", "denied"]),
        ];
        check_by(INPUT, &files, humbly);
    }
}
