//! What a file is: the `stat` calls, `statfs` and `access`.

use crate::linux::tests::mock::{CLOSED, CWD, Guest, NOWHERE, PAGE};

const NO_FOLLOW: u64 = libc::AT_SYMLINK_NOFOLLOW as u64;
const EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;
/// `TMPFS_MAGIC`.
const TMPFS: u64 = 0x0102_1994;

/// What the tests look at of `struct stat` and of `struct statx`.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    inode: u64,
    mode: u32,
    links: u64,
    owner: u32,
    size: u64,
    modified: [u64; 2],
}

impl Guest {
    fn facts(&self, stat: u64) -> Facts {
        Facts {
            inode: self.word(stat + 8),
            mode: self.half(stat + 24),
            links: self.word(stat + 16),
            owner: self.half(stat + 28),
            size: self.word(stat + 48),
            modified: [self.word(stat + 88), self.word(stat + 96)],
        }
    }

    fn facts_of_statx(&self, statx: u64) -> Facts {
        Facts {
            inode: self.word(statx + 32),
            mode: self.half(statx + 28) & 0xffff,
            links: self.half(statx + 16).into(),
            owner: self.half(statx + 20),
            size: self.word(statx + 40),
            modified: [self.word(statx + 112), self.half(statx + 120).into()],
        }
    }

    /// By `lstat`.
    fn stat(&mut self, path: &str) -> Facts {
        let out = self.at(4);
        assert_eq!(self.on_path(libc::SYS_lstat, path, &[out]), 0, "{path}");
        self.facts(out)
    }

    /// `/tmp/f`, `/tmp/link` to it and `/tmp/dangling`; a descriptor of the file.
    fn with_links(&mut self) -> u64 {
        let fd = self.make("/tmp/f", "hello");
        assert_eq!(self.on_paths(libc::SYS_symlink, "f", "/tmp/link"), 0);
        assert_eq!(self.on_paths(libc::SYS_symlink, "none", "/tmp/dangling"), 0);
        fd
    }
}

#[test]
fn tells_files_apart_by_stat() {
    let mut guest = Guest::simple();
    let out = guest.scratch + 4 * PAGE;
    let mut mode_and_size = |fd: u64| {
        guest.ok(libc::SYS_fstat, [fd, out]);
        (guest.word(out + 24) as u32 & libc::S_IFMT, guest.word(out + 48))
    };
    assert_eq!(mode_and_size(0), (libc::S_IFREG, 5));
    assert_eq!(mode_and_size(1), (libc::S_IFIFO, 0));
    assert_eq!(mode_and_size(2), (libc::S_IFIFO, 0));
    guest.err(libc::SYS_fstat, [0, NOWHERE], libc::EFAULT);
    guest.err(libc::SYS_fstat, [9, out], libc::EBADF);
    guest.err(libc::SYS_ioctl, [1, libc::TCGETS, out], libc::ENOTTY);
    let empty = guest.text("");
    guest.ok(libc::SYS_statx, [0, empty, libc::AT_EMPTY_PATH as u64, 0xfff, out]);
    assert_eq!(guest.word(out + 40), 5);
}

#[test]
fn all_forms_tell_the_same_of_a_file() {
    let mut guest = Guest::simple();
    let fd = guest.with_links();
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    let wanted = guest.stat("/tmp/f");
    assert_eq!((wanted.mode, wanted.size), (libc::S_IFREG | 0o644, 5));
    assert_eq!((wanted.links, wanted.owner), (1, 1000));
    let (name, link, empty) =
        (guest.text("f"), guest.other_text("/tmp/link"), guest.put(2 * PAGE, b"\0"));
    let out = guest.at(4);
    let calls: [(i64, &[u64]); 7] = [
        (libc::SYS_stat, &[link, out]),
        (libc::SYS_fstat, &[fd, out]),
        (libc::SYS_newfstatat, &[folder, name, out, 0]),
        (libc::SYS_newfstatat, &[CWD, link, out, 0]),
        (libc::SYS_newfstatat, &[fd, empty, out, EMPTY_PATH]),
        (libc::SYS_statx, &[folder, name, 0, 0x7ff, out]),
        (libc::SYS_statx, &[fd, empty, EMPTY_PATH, 0x7ff, out]),
    ];
    for (nr, args) in calls {
        guest.ok(nr, args);
        let found = match nr {
            libc::SYS_statx => guest.facts_of_statx(out),
            _ => guest.facts(out),
        };
        assert_eq!(found, wanted, "call {nr}");
    }
    assert_eq!(guest.half(out) & 0x7ff, 0x7ff, "all that was asked for");
}

#[test]
fn each_kind_of_file_has_its_type() {
    let mut guest = Guest::simple();
    guest.with_links();
    for (path, kind, size) in [
        ("/tmp", libc::S_IFDIR, 4096),
        ("/tmp/dangling", libc::S_IFLNK, 4),
        ("/dev/null", libc::S_IFCHR, 0),
        ("/proc/self/maps", libc::S_IFREG, 0),
        ("/proc/self/fd", libc::S_IFDIR, 4096),
    ] {
        let facts = guest.stat(path);
        assert_eq!((facts.mode & libc::S_IFMT, facts.size), (kind, size), "{path}");
    }
    assert_eq!(guest.stat("/bin/true").owner, 0, "the host's files are root's");
    let [reader, _] = guest.pipe(0);
    let out = guest.at(4);
    guest.ok(libc::SYS_fstat, [reader, out]);
    assert_eq!(guest.facts(out).mode, libc::S_IFIFO | 0o600);
}

#[test]
fn a_write_moves_the_time_of_change_along_the_guests_clock() {
    let mut guest = Guest::simple();
    let fd = guest.with_links();
    let before = guest.stat("/tmp/f").modified;
    let second = guest.words(0, &[1, 0]);
    guest.ok(libc::SYS_nanosleep, [second, 0]);
    assert_eq!(guest.stat("/tmp/f").modified, before, "a look changes nothing");
    guest.write_text(fd, "more");
    let after = guest.stat("/tmp/f");
    assert_eq!((after.modified[0], after.size), (before[0] + 1, 9));
}

#[test]
fn a_link_is_told_of_itself_only_where_that_is_asked_for() {
    let mut guest = Guest::simple();
    guest.with_links();
    let out = guest.at(4);
    let path = guest.text("/tmp/dangling");
    guest.ok(libc::SYS_newfstatat, [CWD, path, out, NO_FOLLOW]);
    assert_eq!(guest.facts(out).mode, libc::S_IFLNK | 0o777);
    guest.ok(libc::SYS_statx, [CWD, path, NO_FOLLOW, 0, out]);
    assert_eq!(guest.facts_of_statx(out).mode, libc::S_IFLNK | 0o777);
    guest.err(libc::SYS_stat, [path, out], libc::ENOENT);
    guest.err(libc::SYS_statx, [CWD, path, 0, 0, out], libc::ENOENT);
}

#[test]
fn stat_calls_check_their_arguments_as_linux_does() {
    let mut guest = Guest::simple();
    let fd = guest.with_links();
    let (path, empty, out) = (guest.text("/tmp/f"), guest.other_text(""), guest.at(4));
    let relative = path + 5;
    guest.fails(&[
        (libc::SYS_stat, &[path, NOWHERE], libc::EFAULT),
        (libc::SYS_stat, &[NOWHERE, out], libc::EFAULT),
        (libc::SYS_stat, &[empty, out], libc::ENOENT),
        (libc::SYS_lstat, &[path, NOWHERE], libc::EFAULT),
        (libc::SYS_newfstatat, &[CLOSED, relative, out, 0], libc::EBADF),
        (libc::SYS_newfstatat, &[fd, relative, out, 0], libc::ENOTDIR),
        (libc::SYS_newfstatat, &[fd, empty, out, 0], libc::ENOENT),
        (libc::SYS_newfstatat, &[CLOSED, empty, out, EMPTY_PATH], libc::EBADF),
        (libc::SYS_newfstatat, &[CWD, path, out, 0x1000_0000], libc::EINVAL),
        (libc::SYS_statx, &[CWD, path, 99, 0, out], libc::EINVAL),
        (libc::SYS_statx, &[CWD, path, 0, 0, NOWHERE], libc::EFAULT),
    ]);
    guest.fails_on(&[
        (libc::SYS_stat, "/tmp/f/", &[out], libc::ENOTDIR),
        (libc::SYS_stat, "/tmp/none", &[out], libc::ENOENT),
    ]);
    guest.ok(libc::SYS_newfstatat, [CWD, empty, out, EMPTY_PATH]);
    assert_eq!(guest.facts(out).mode & libc::S_IFMT, libc::S_IFDIR, "the working directory");
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    guest.ok(libc::SYS_fstat, [path_only, out]);
    assert_eq!(guest.facts(out).size, 5);
}

#[test]
fn everything_is_on_a_file_system_in_memory() {
    let mut guest = Guest::simple();
    let fd = guest.with_links();
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    let (path, out) = (guest.text("/tmp/f"), guest.at(4));
    guest.ok(libc::SYS_statfs, [path, out]);
    assert_eq!((guest.word(out), guest.word(out + 8)), (TMPFS, 4096));
    for fd in [fd, path_only] {
        guest.put(4 * PAGE, &[0; 8]);
        guest.ok(libc::SYS_fstatfs, [fd, out]);
        assert_eq!(guest.word(out), TMPFS);
    }
    guest.fails(&[
        (libc::SYS_statfs, &[path, NOWHERE], libc::EFAULT),
        (libc::SYS_statfs, &[NOWHERE, out], libc::EFAULT),
        (libc::SYS_fstatfs, &[CLOSED, out], libc::EBADF),
        (libc::SYS_fstatfs, &[fd, NOWHERE], libc::EFAULT),
    ]);
    guest.fails_on(&[(libc::SYS_statfs, "/tmp/none", &[out], libc::ENOENT)]);
}

#[test]
fn access_is_what_the_guests_user_may() {
    let mut guest = Guest::simple();
    guest.with_links();
    let [exists, executes, writes, reads] = [0, 1, 2, 4];
    for (path, mode) in [
        ("/tmp/f", reads | writes),
        ("/tmp/link", reads),
        ("/tmp", 7),
        ("/bin/true", reads | executes),
        ("/tmp/f", exists),
    ] {
        assert_eq!(guest.on_path(libc::SYS_access, path, &[mode]), 0, "{path} {mode}");
    }
    guest.fails_on(&[
        (libc::SYS_access, "/tmp/f", &[executes], libc::EACCES),
        (libc::SYS_access, "/bin/true", &[writes], libc::EACCES),
        (libc::SYS_access, "/usr", &[writes], libc::EACCES),
        (libc::SYS_access, "/tmp/f", &[8], libc::EINVAL),
        (libc::SYS_access, "/tmp/none", &[exists], libc::ENOENT),
        (libc::SYS_access, "/tmp/dangling", &[exists], libc::ENOENT),
        (libc::SYS_access, "", &[exists], libc::ENOENT),
    ]);
    guest.err(libc::SYS_access, [NOWHERE, exists], libc::EFAULT);
}

#[test]
fn access_from_a_folder_and_of_a_link_itself() {
    let mut guest = Guest::simple();
    let fd = guest.with_links();
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    let (path, empty) = (guest.text("dangling"), guest.other_text(""));
    guest.ok(libc::SYS_faccessat2, [folder, path, 0, NO_FOLLOW]);
    let effective = libc::AT_EACCESS as u64;
    guest.ok(libc::SYS_faccessat2, [fd, empty, 2, EMPTY_PATH | effective]);
    guest.fails(&[
        (libc::SYS_faccessat, &[folder, path, 0], libc::ENOENT),
        (libc::SYS_faccessat, &[CLOSED, path, 0], libc::EBADF),
        (libc::SYS_faccessat, &[fd, path, 0], libc::ENOTDIR),
        (libc::SYS_faccessat2, &[folder, path, 0, 1], libc::EINVAL),
        (libc::SYS_faccessat2, &[folder, path, 8, 0], libc::EINVAL),
    ]);
    let path = guest.text("f");
    guest.ok(libc::SYS_faccessat, [folder, path, 4]);
}
