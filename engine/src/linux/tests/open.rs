//! `open`, `openat` and `creat`, and the mask of what they make.

use crate::linux::tests::mock::files::CREATE;
use crate::linux::tests::mock::{CLOSED, CWD, Guest, NOWHERE};

const UNNAMED: u64 = (libc::O_TMPFILE | libc::O_RDWR) as u64;

impl Guest {
    fn openat(&mut self, folder: u64, path: &str, flags: i32) -> i64 {
        let path = self.text(path);
        self.call(libc::SYS_openat, [folder, path, flags as u64, 0o600])
    }
}

#[test]
fn answers_path_errors_as_linux_does() {
    let mut guest = Guest::simple();
    let cases = [
        ("", 0, libc::ENOENT),
        ("/nonexistent", 0, libc::ENOENT),
        ("/nonexistent/x", CREATE, libc::ENOENT),
        ("/bin/true/x", 0, libc::ENOTDIR),
        ("/bin/true/", 0, libc::ENOTDIR),
        ("/bin/true", libc::O_DIRECTORY, libc::ENOTDIR),
        ("/bin/true", libc::O_WRONLY, libc::EACCES),
        ("/bin/true", libc::O_CREAT | libc::O_EXCL, libc::EEXIST),
        ("/new", CREATE, libc::EACCES),
        ("/tmp", libc::O_RDWR, libc::EISDIR),
        ("/tmp/new/", CREATE, libc::EISDIR),
        ("/proc/self/exe", libc::O_NOFOLLOW, libc::ELOOP),
        ("/proc/self/fd/77", 0, libc::ENOENT),
    ];
    for (path, flags, errno) in cases {
        let found = guest.on_path(libc::SYS_open, path, &[flags as u64, 0o644]);
        assert_eq!(found, -i64::from(errno), "{path}");
    }
    let long = "x".repeat(300);
    assert_eq!(guest.on_path(libc::SYS_open, &long, &[0]), -i64::from(libc::ENAMETOOLONG));
    let endless = guest.put(0, &[b'/'; 5000]);
    guest.err(libc::SYS_open, [endless, 0], libc::ENAMETOOLONG);
    guest.err(libc::SYS_open, [NOWHERE, 0], libc::EFAULT);
    let path = guest.put(0, b"/tmp/loop\0");
    guest.ok(libc::SYS_symlink, [path, path]);
    guest.err(libc::SYS_open, [path, 0], libc::ELOOP);
}

#[test]
fn a_new_file_has_the_mode_asked_for_less_the_mask() {
    let mut guest = Guest::simple();
    assert_eq!(guest.ok(libc::SYS_umask, [0o027]), 0o022);
    let create = (libc::O_CREAT | libc::O_WRONLY) as u64;
    assert_eq!(guest.on_path(libc::SYS_open, "/tmp/f", &[create, 0o666]), 3);
    assert_eq!(guest.mode_of("/tmp/f"), libc::S_IFREG | 0o640);
    assert_eq!(guest.ok(libc::SYS_umask, [u64::MAX]), 0o027);
    assert_eq!(guest.ok(libc::SYS_umask, [0]), 0o777, "no bit beyond the permissions");
    assert_eq!(guest.on_path(libc::SYS_creat, "/tmp/c", &[0o606]), 4);
    assert_eq!(guest.mode_of("/tmp/c"), libc::S_IFREG | 0o606);
}

#[test]
fn creat_is_for_writing_and_empties_what_is_there() {
    let mut guest = Guest::simple();
    let old = guest.make("/tmp/f", "old");
    let new = guest.on_path(libc::SYS_creat, "/tmp/f", &[0o600]) as u64;
    assert_eq!(guest.contents(old), "");
    assert_eq!(guest.write_text(new, "new"), 3);
    let at = guest.at(4);
    guest.err(libc::SYS_read, [new, at, 1], libc::EBADF);
    assert_eq!(guest.mode_of("/tmp/f"), libc::S_IFREG | 0o644, "the mode stays");
}

#[test]
fn a_path_starts_at_the_folder_that_is_open_or_at_the_root() {
    let mut guest = Guest::simple();
    let file = guest.make("/tmp/f", "text");
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    let fd = guest.openat(folder, "f", 0) as u64;
    assert_eq!(guest.contents(fd), "text");
    assert!(guest.openat(CLOSED, "/tmp/f", 0) >= 0, "an absolute path needs none");
    assert!(guest.openat(CWD, ".", 0) >= 0);
    for (folder, path, errno) in [
        (CLOSED, "f", libc::EBADF),
        (CLOSED, "", libc::ENOENT),
        (file, "f", libc::ENOTDIR),
        (folder, "none", libc::ENOENT),
    ] {
        assert_eq!(guest.openat(folder, path, 0), -i64::from(errno), "{path:?} in {folder}");
    }
    guest.err(libc::SYS_openat, [CWD, NOWHERE, 0, 0], libc::EFAULT);
}

#[test]
fn links_are_followed_unless_that_is_declined() {
    let mut guest = Guest::simple();
    guest.make("/tmp/f", "text");
    assert_eq!(guest.on_paths(libc::SYS_symlink, "f", "/tmp/link"), 0);
    assert_eq!(guest.on_paths(libc::SYS_symlink, "made", "/tmp/dangling"), 0);
    let fd = guest.open("/tmp/link", 0);
    assert_eq!(guest.contents(fd), "text");
    let exclusive = CREATE | libc::O_EXCL;
    guest.fails_on(&[
        (libc::SYS_open, "/tmp/link", &[libc::O_NOFOLLOW as u64], libc::ELOOP),
        (libc::SYS_open, "/tmp/link", &[exclusive as u64, 0o600], libc::EEXIST),
        (libc::SYS_open, "/tmp/dangling", &[0], libc::ENOENT),
        (libc::SYS_open, "/tmp/dangling", &[exclusive as u64, 0o600], libc::EEXIST),
    ]);
    guest.open("/tmp/link", libc::O_NOFOLLOW | libc::O_PATH);
    guest.open("/tmp/dangling", CREATE);
    assert_eq!(guest.mode_of("/tmp/made"), libc::S_IFREG | 0o644, "made where the link leads");
}

#[test]
fn a_file_that_may_not_be_written_is_only_written_by_who_made_it() {
    let mut guest = Guest::simple();
    let make = (libc::O_CREAT | libc::O_RDWR) as u64;
    let fd = guest.on_path(libc::SYS_open, "/tmp/f", &[make, 0o400]) as u64;
    assert_eq!(guest.write_text(fd, "text"), 4);
    guest.fails_on(&[
        (libc::SYS_open, "/tmp/f", &[libc::O_WRONLY as u64], libc::EACCES),
        (libc::SYS_open, "/tmp/f", &[libc::O_TRUNC as u64], libc::EACCES),
        (libc::SYS_open, "/proc/self/maps", &[libc::O_WRONLY as u64], libc::EACCES),
    ]);
    let fd = guest.open("/tmp/f", libc::O_RDONLY);
    assert_eq!(guest.contents(fd), "text");
}

#[test]
fn unknown_access_is_no_access() {
    let mut guest = Guest::simple();
    guest.make("/tmp/f", "text");
    let fd = guest.open("/tmp/f", libc::O_ACCMODE);
    let at = guest.at(4);
    guest.err(libc::SYS_read, [fd, at, 1], libc::EBADF);
    guest.err(libc::SYS_write, [fd, at, 1], libc::EBADF);
}

#[test]
fn an_unnamed_file_lives_as_long_as_it_is_open() {
    let mut guest = Guest::simple();
    let before = guest.process.clone();
    let fd = guest.on_path(libc::SYS_open, "/tmp", &[UNNAMED, 0o600]) as u64;
    assert_eq!(guest.write_text(fd, "text"), 4);
    assert_eq!(guest.contents(fd), "text");
    guest.ok(libc::SYS_close, [fd]);
    let differences = guest.process.same_as(&before).join("; ");
    assert!(!differences.contains("file "), "{differences}");
    let for_reading = libc::O_TMPFILE as u64;
    guest.make("/tmp/f", "");
    guest.fails_on(&[
        (libc::SYS_open, "/tmp", &[for_reading, 0o600], libc::EINVAL),
        (libc::SYS_open, "/tmp/f", &[UNNAMED, 0o600], libc::ENOTDIR),
        (libc::SYS_open, "/tmp/none", &[UNNAMED, 0o600], libc::ENOENT),
        (libc::SYS_open, "/usr", &[UNNAMED, 0o600], libc::EACCES),
    ]);
}

#[test]
fn what_is_open_can_be_opened_again_by_its_number() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "text");
    let again = guest.open(&format!("/proc/self/fd/{fd}"), libc::O_RDONLY);
    assert_eq!((guest.contents(again), guest.offset(again)), ("text".to_owned(), 0));
    guest.fails_on(&[
        (libc::SYS_open, "/dev/fd/777", &[0], libc::ENOENT),
        (libc::SYS_open, "/dev/fd/x", &[0], libc::ENOENT),
        (libc::SYS_open, "/dev/tty", &[libc::O_RDWR as u64], libc::ENXIO),
    ]);
}

#[test]
fn a_file_for_which_no_descriptor_is_free_is_not_made() {
    let mut guest = Guest::simple();
    for _ in 3..1024 {
        guest.ok(libc::SYS_dup, [0]);
    }
    let before = guest.process.clone();
    let create = CREATE as u64;
    guest.fails_on(&[
        (libc::SYS_open, "/tmp/new", &[create, 0o600], libc::EMFILE),
        (libc::SYS_open, "/tmp", &[UNNAMED, 0o600], libc::EMFILE),
        (libc::SYS_access, "/tmp/new", &[0], libc::ENOENT),
    ]);
    let differences = guest.process.same_as(&before).join("; ");
    assert!(!differences.contains("file "), "{differences}");
}

#[test]
fn a_rewind_takes_back_new_files_emptied_ones_and_the_mask() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "before");
    guest.undoes("/tmp/new", |guest| guest.open("/tmp/new", CREATE));
    guest.fails_on(&[(libc::SYS_access, "/tmp/new", &[0], libc::ENOENT)]);
    guest.undoes("/tmp/f", |guest| guest.open("/tmp/f", libc::O_RDWR | libc::O_TRUNC));
    assert_eq!(guest.contents(fd), "before");
    guest.undoes("file mode mask", |guest| guest.ok(libc::SYS_umask, [0]));
}
