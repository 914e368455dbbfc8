//! Calls on files give what they give on Linux: a program makes them all, natively on a tmpfs and
//! in a guest, and prints what came of each.

use crate::support::{build_c, copy_program, in_guest, kvm, spec};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The guest's user, who is not root: root may do what others may not.
const USER: u32 = 1000;

/// What the program prints natively in an empty folder of a tmpfs.
fn natively(program: &Path) -> String {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut command = Command::new(program);
    command.current_dir(folder.path()).stdin(Stdio::null());
    if std::os::unix::fs::chown(folder.path(), Some(USER), Some(USER)).is_ok() {
        // A copy that this user can reach.
        let reachable = tempfile::tempdir().unwrap();
        std::fs::set_permissions(reachable.path(), Permissions::from_mode(0o755)).unwrap();
        let copy = reachable.path().join(program.file_name().unwrap());
        copy_program(program, &copy);
        let mut command = Command::new(&copy);
        command.current_dir(folder.path()).stdin(Stdio::null()).uid(USER).gid(USER);
        return text(&command.output().unwrap().stdout);
    }
    text(&command.output().unwrap().stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn calls_on_files_give_what_they_give_natively() {
    let program = build_c("files", &[]);
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
