//! Calls on files give what they give on Linux: a program makes them all, natively on a tmpfs and
//! in a guest, and prints what came of each.

use crate::support::{build_c, copy_program, in_guest, kvm, spec};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The guest's user, who is not root: root may do what others may not.
const USER: u32 = 1000;

/// What the program prints natively in an empty folder of a tmpfs.
fn natively(program: &Path) -> String {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut command = Command::new(program);
    command.current_dir(folder.path()).stdin(Stdio::null());
    if std::os::unix::fs::chown(folder.path(), Some(USER), Some(USER)).is_ok() {
        command.uid(USER).gid(USER);
    }
    text(&command.output().unwrap().stdout)
}

/// A copy of the program where every user can reach it, and no folder on the way is the guest's
/// working directory, which must be empty at first.
fn reachable(program: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = folder.path().join(program.file_name().unwrap());
    copy_program(program, &copy);
    (folder, copy)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn calls_on_files_give_what_they_give_natively() {
    let (_folder, program) = reachable(&build_c("files", &[]));
    let native = natively(&program);
    assert!(native.lines().count() > 200, "it ended early: {native}");
    let Some(system) = kvm() else { return };
    let guest = in_guest(&system, &mut spec(&program, &[]), b"");
    assert_eq!(guest.stderr, "");
    let lines = native.lines().zip(guest.stdout.lines());
    let different: Vec<_> = lines.filter(|(native, guest)| native != guest).collect();
    assert!(different.is_empty(), "natively, in the guest: {different:#?}");
    assert_eq!(native.lines().count(), guest.stdout.lines().count());
}
