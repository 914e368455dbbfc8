//! Modes, owners, times and extended attributes.

use crate::linux::tests::mock::{CLOSED, CWD, Guest, NOWHERE};

/// To leave an owner or a group as it is.
const KEEP: u64 = u32::MAX as u64;
const GUEST: u64 = 1000;

impl Guest {
    /// `/tmp/f` and `/tmp/dangling`, a link that leads nowhere; a descriptor of the file.
    fn with_file_and_link(&mut self) -> u64 {
        assert_eq!(self.on_paths(libc::SYS_symlink, "none", "/tmp/dangling"), 0);
        self.make("/tmp/f", "text")
    }

    /// Seconds of the last change.
    fn modified(&mut self, path: &str) -> u64 {
        let out = self.at(4);
        assert_eq!(self.on_path(libc::SYS_stat, path, &[out]), 0);
        self.word(out + 88)
    }
}

#[test]
fn a_mode_is_set_by_path_descriptor_or_folder() {
    let mut guest = Guest::simple();
    let fd = guest.with_file_and_link();
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    assert_eq!(guest.on_path(libc::SYS_chmod, "/tmp/f", &[0o600]), 0);
    assert_eq!(guest.mode_of("/tmp/f"), libc::S_IFREG | 0o600);
    guest.ok(libc::SYS_fchmod, [fd, 0o107_777]);
    assert_eq!(guest.mode_of("/tmp/f"), libc::S_IFREG | 0o7777, "no bit of a type");
    let path = guest.text("f");
    guest.ok(libc::SYS_fchmodat, [folder, path, 0o644]);
    assert_eq!(guest.mode_of("/tmp/f"), libc::S_IFREG | 0o644);
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    let path = guest.text("f");
    guest.fails(&[
        (libc::SYS_chmod, &[NOWHERE, 0], libc::EFAULT),
        (libc::SYS_fchmod, &[CLOSED, 0], libc::EBADF),
        (libc::SYS_fchmod, &[path_only, 0], libc::EBADF),
        (libc::SYS_fchmodat, &[CLOSED, path, 0], libc::EBADF),
        (libc::SYS_fchmodat, &[fd, path, 0], libc::ENOTDIR),
    ]);
    guest.fails_on(&[
        (libc::SYS_chmod, "/tmp/none", &[0o600], libc::ENOENT),
        (libc::SYS_chmod, "/tmp/dangling", &[0o600], libc::ENOENT),
        (libc::SYS_chmod, "/bin/true", &[0o600], libc::EPERM),
    ]);
}

#[test]
fn a_user_gives_nothing_away() {
    let mut guest = Guest::simple();
    let fd = guest.with_file_and_link();
    for ids in [[KEEP, KEEP], [GUEST, GUEST], [GUEST, KEEP]] {
        assert_eq!(guest.on_path(libc::SYS_chown, "/tmp/f", &ids), 0);
        guest.ok(libc::SYS_fchown, [fd, ids[0], ids[1]]);
    }
    assert_eq!(guest.on_path(libc::SYS_chown, "/bin/true", &[KEEP, KEEP]), 0);
    assert_eq!(guest.on_path(libc::SYS_lchown, "/tmp/dangling", &[KEEP, KEEP]), 0);
    guest.fails_on(&[
        (libc::SYS_chown, "/tmp/f", &[0, 0], libc::EPERM),
        (libc::SYS_chown, "/tmp/f", &[KEEP, 0], libc::EPERM),
        (libc::SYS_chown, "/bin/true", &[GUEST, KEEP], libc::EPERM),
        (libc::SYS_chown, "/tmp/none", &[KEEP, KEEP], libc::ENOENT),
        (libc::SYS_chown, "/tmp/dangling", &[KEEP, KEEP], libc::ENOENT),
        (libc::SYS_lchown, "/tmp/none", &[KEEP, KEEP], libc::ENOENT),
    ]);
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    let empty = guest.text("");
    guest.ok(libc::SYS_fchownat, [fd, empty, KEEP, GUEST, libc::AT_EMPTY_PATH as u64]);
    guest.fails(&[
        (libc::SYS_fchown, &[fd, 0, KEEP], libc::EPERM),
        (libc::SYS_fchown, &[CLOSED, KEEP, KEEP], libc::EBADF),
        (libc::SYS_fchown, &[path_only, KEEP, KEEP], libc::EBADF),
        (libc::SYS_fchownat, &[CWD, NOWHERE, KEEP, KEEP, 0], libc::EFAULT),
    ]);
}

#[test]
fn a_file_is_touched_at_the_guests_time() {
    let mut guest = Guest::simple();
    let fd = guest.with_file_and_link();
    let before = guest.modified("/tmp/f");
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    for wanted in 1..3 {
        let second = guest.words(0, &[1, 0]);
        guest.ok(libc::SYS_nanosleep, [second, 0]);
        let path = guest.text("f");
        match wanted {
            1 => guest.ok(libc::SYS_utimensat, [folder, path, 0, 0]),
            _ => guest.ok(libc::SYS_utimensat, [fd, 0, 0, 0]),
        };
        assert_eq!(guest.modified("/tmp/f"), before + wanted);
    }
    guest.err(libc::SYS_utimensat, [CLOSED, 0, 0, 0], libc::EBADF);
    guest.err(libc::SYS_utimensat, [CWD, NOWHERE, 0, 0], libc::EFAULT);
    let paths =
        [("/tmp/none", libc::ENOENT), ("/tmp/dangling", libc::ENOENT), ("/bin/true", libc::EACCES)];
    for (path, errno) in paths {
        let path = guest.text(path);
        guest.err(libc::SYS_utimensat, [CWD, path, 0, 0], errno);
    }
}

#[test]
fn no_file_has_an_attribute() {
    let mut guest = Guest::simple();
    let fd = guest.with_file_and_link();
    for (name, errno) in [
        ("security.capability", libc::ENODATA),
        ("trusted.overlay", libc::ENODATA),
        ("system.posix_acl_access", libc::ENODATA),
        ("nonsense", libc::EOPNOTSUPP),
        // A tmpfs of Linux 6.1 keeps none of a user's.
        ("user.comment", libc::EOPNOTSUPP),
    ] {
        let (path, name) = (guest.text("/tmp/f"), guest.other_text(name));
        guest.fails(&[
            (libc::SYS_getxattr, &[path, name, 0, 0], errno),
            (libc::SYS_lgetxattr, &[path, name, 0, 0], errno),
            (libc::SYS_fgetxattr, &[fd, name, 0, 0], errno),
        ]);
    }
    let path = guest.text("/tmp/dangling");
    let out = guest.at(4);
    assert_eq!(guest.ok(libc::SYS_llistxattr, [path, out, 100]), 0);
    guest.err(libc::SYS_listxattr, [path, out, 100], libc::ENOENT);
    let path = guest.text("/tmp/f");
    assert_eq!(guest.ok(libc::SYS_listxattr, [path, out, 100]), 0);
    assert_eq!(guest.ok(libc::SYS_flistxattr, [fd, out, 100]), 0);
}

#[test]
fn no_attribute_is_set_or_removed() {
    let mut guest = Guest::simple();
    let fd = guest.with_file_and_link();
    for (name, errno) in [
        ("security.capability", libc::EPERM),
        ("trusted.overlay", libc::EPERM),
        ("nonsense", libc::EOPNOTSUPP),
    ] {
        let (path, name) = (guest.text("/tmp/f"), guest.other_text(name));
        guest.fails(&[
            (libc::SYS_setxattr, &[path, name, path, 1, 0], errno),
            (libc::SYS_lsetxattr, &[path, name, path, 1, 0], errno),
            (libc::SYS_fsetxattr, &[fd, name, path, 1, 0], errno),
            (libc::SYS_removexattr, &[path, name], errno),
            (libc::SYS_lremovexattr, &[path, name], errno),
            (libc::SYS_fremovexattr, &[fd, name], errno),
        ]);
    }
}

#[test]
fn attribute_calls_look_for_the_file_and_the_name() {
    let mut guest = Guest::simple();
    let fd = guest.with_file_and_link();
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    let (none, name) = (guest.text("/tmp/none"), guest.other_text("trusted.overlay"));
    for nr in [
        libc::SYS_getxattr,
        libc::SYS_lgetxattr,
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_removexattr,
        libc::SYS_lremovexattr,
    ] {
        guest.err(nr, [none, name], libc::ENOENT);
        guest.err(nr, [none, NOWHERE], libc::EFAULT);
        guest.err(nr, [NOWHERE, name], libc::EFAULT);
    }
    for nr in [libc::SYS_fgetxattr, libc::SYS_fsetxattr, libc::SYS_fremovexattr] {
        guest.err(nr, [CLOSED, name], libc::EBADF);
        guest.err(nr, [path_only, name], libc::EBADF);
        guest.err(nr, [fd, NOWHERE], libc::EFAULT);
    }
    guest.fails(&[
        (libc::SYS_listxattr, &[none, 0, 0], libc::ENOENT),
        (libc::SYS_llistxattr, &[none, 0, 0], libc::ENOENT),
        (libc::SYS_flistxattr, &[CLOSED, 0, 0], libc::EBADF),
        (libc::SYS_listxattr, &[NOWHERE, 0, 0], libc::EFAULT),
    ]);
}

#[test]
fn a_rewind_puts_modes_and_times_back() {
    let mut guest = Guest::simple();
    let fd = guest.with_file_and_link();
    guest.undoes("/tmp/f", |guest| guest.ok(libc::SYS_fchmod, [fd, 0]));
    guest.undoes("/tmp/f", |guest| guest.ok(libc::SYS_utimensat, [fd, 0, 0, 0]));
    assert_eq!(guest.mode_of("/tmp/f"), libc::S_IFREG | 0o644);
}
