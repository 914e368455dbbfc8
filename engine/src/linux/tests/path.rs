//! Calls that walk and change the tree of files.

use crate::linux::tests::mock::files::CREATE;
use crate::linux::tests::mock::{CLOSED, CWD, Guest, NOWHERE, PAGE};

const REMOVE_FOLDER: u64 = libc::AT_REMOVEDIR as u64;
const NO_REPLACE: u64 = libc::RENAME_NOREPLACE as u64;

impl Guest {
    /// Whether there is something at a path, a link's end not looked at.
    fn exists(&mut self, path: &str) -> bool {
        let (path, out) = (self.text(path), self.at(4));
        match self.call(libc::SYS_lstat, [path, out]) {
            0 => true,
            value => {
                assert_eq!(value, -i64::from(libc::ENOENT));
                false
            }
        }
    }

    /// `/tmp/f`, `/tmp/link` to it, `/tmp/dangling`, `/tmp/full` with `/tmp/full/f`, `/tmp/empty`;
    /// the working directory is `/tmp`.
    fn with_tree(&mut self) -> u64 {
        let fd = self.make("/tmp/f", "text");
        assert_eq!(self.on_paths(libc::SYS_symlink, "f", "/tmp/link"), 0);
        assert_eq!(self.on_paths(libc::SYS_symlink, "none", "/tmp/dangling"), 0);
        for folder in ["/tmp/full", "/tmp/empty"] {
            assert_eq!(self.on_path(libc::SYS_mkdir, folder, &[0o755]), 0);
        }
        self.make("/tmp/full/f", "");
        assert_eq!(self.on_path(libc::SYS_chdir, "/tmp", &[]), 0);
        fd
    }

    /// Each pair of paths fails with this error number.
    fn fails_on_pairs(&mut self, nr: i64, pairs: &[(&str, &str, i32)]) {
        for (first, second, errno) in pairs {
            let value = self.on_paths(nr, first, second);
            assert_eq!(value, -i64::from(*errno), "{first:?} {second:?}");
        }
    }

    fn link_text(&mut self, path: &str) -> String {
        let out = self.at(4);
        let len = self.on_path(libc::SYS_readlink, path, &[out, 100]);
        String::from_utf8(self.get(out, len as usize)).unwrap()
    }
}

#[test]
fn keeps_directories() {
    let mut guest = Guest::simple();
    assert_eq!(guest.on_path(libc::SYS_mkdir, "/tmp/d", &[0o755]), 0);
    assert_eq!(guest.on_path(libc::SYS_mkdir, "/tmp/d", &[0o755]), -i64::from(libc::EEXIST));
    assert_eq!(guest.on_path(libc::SYS_chdir, "/tmp/d", &[]), 0);
    let fd = guest.open("inner", CREATE);
    guest.ok(libc::SYS_close, [fd]);
    let out = guest.scratch + 4 * PAGE;
    assert_eq!(guest.ok(libc::SYS_getcwd, [out, 100]), 7);
    assert_eq!(guest.get(out, 7), b"/tmp/d\0");
    guest.err(libc::SYS_getcwd, [out, 6], libc::ERANGE);
    let fd = guest.open(".", libc::O_DIRECTORY);
    let len = guest.ok(libc::SYS_getdents64, [fd, out, 1000]);
    assert_eq!(len, 24 + 24 + 32);
    assert_eq!(guest.get(out + 48 + 19, 6), b"inner\0");
    assert_eq!(guest.ok(libc::SYS_getdents64, [fd, out, 1000]), 0);
    assert_eq!(guest.on_path(libc::SYS_rmdir, "/tmp/d", &[]), -i64::from(libc::ENOTEMPTY));
    let (old, new) = (guest.put(0, b"inner\0"), guest.put(100, b"../moved\0"));
    guest.ok(libc::SYS_rename, [old, new]);
    assert_eq!(guest.on_path(libc::SYS_access, "/tmp/moved", &[0]), 0);
}

#[test]
fn a_link_is_read_as_far_as_there_is_room_and_without_a_nul() {
    let mut guest = Guest::simple();
    let fd = guest.with_tree();
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    let out = guest.put(4 * PAGE, b"........");
    assert_eq!(guest.on_path(libc::SYS_readlink, "dangling", &[out, 2]), 2);
    assert_eq!(guest.get(out, 8), b"no......");
    let (path, empty) = (guest.text("link"), guest.other_text(""));
    assert_eq!(guest.ok(libc::SYS_readlinkat, [folder, path, out, 8]), 1);
    let link = guest.open("/tmp/link", libc::O_PATH | libc::O_NOFOLLOW);
    assert_eq!(guest.ok(libc::SYS_readlinkat, [link, empty, out, 8]), 1, "itself");
    let path = guest.text("link");
    guest.fails(&[
        (libc::SYS_readlink, &[path, out, 0], libc::EINVAL),
        (libc::SYS_readlink, &[path, out, u64::MAX], libc::EINVAL),
        (libc::SYS_readlink, &[path, NOWHERE, 8], libc::EFAULT),
        (libc::SYS_readlink, &[NOWHERE, out, 8], libc::EFAULT),
        (libc::SYS_readlinkat, &[CLOSED, path, out, 8], libc::EBADF),
        (libc::SYS_readlinkat, &[fd, empty, out, 8], libc::ENOENT),
        (libc::SYS_readlinkat, &[CWD, empty, out, 8], libc::ENOENT),
    ]);
    guest.fails_on(&[
        (libc::SYS_readlink, "f", &[out, 8], libc::EINVAL),
        (libc::SYS_readlink, ".", &[out, 8], libc::EINVAL),
        (libc::SYS_readlink, "none", &[out, 8], libc::ENOENT),
        (libc::SYS_readlink, "link/", &[out, 8], libc::ENOTDIR),
    ]);
}

#[test]
fn the_links_of_proc_tell_what_is_open() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "");
    assert_eq!(guest.link_text(&format!("/proc/self/fd/{fd}")), "/tmp/f");
    let event = guest.ok(libc::SYS_eventfd2, [0, 0]);
    assert_eq!(guest.link_text(&format!("/proc/self/fd/{event}")), "anon_inode:[eventfd]");
    assert!(guest.link_text("/proc/self/fd/1").starts_with("pipe:["));
}

#[test]
fn the_working_directory_is_entered_by_path_or_by_descriptor() {
    let mut guest = Guest::simple();
    let fd = guest.with_tree();
    let folder = guest.open("/tmp/full", libc::O_DIRECTORY);
    guest.ok(libc::SYS_fchdir, [folder]);
    let out = guest.at(4);
    assert_eq!(guest.ok(libc::SYS_getcwd, [out, 10]), 10, "the NUL counts");
    assert_eq!(guest.get(out, 10), b"/tmp/full\0");
    guest.fails(&[
        (libc::SYS_getcwd, &[out, 9], libc::ERANGE),
        (libc::SYS_getcwd, &[out, 0], libc::ERANGE),
        (libc::SYS_getcwd, &[NOWHERE, 100], libc::EFAULT),
        (libc::SYS_fchdir, &[CLOSED], libc::EBADF),
        (libc::SYS_fchdir, &[fd], libc::ENOTDIR),
        (libc::SYS_chdir, &[NOWHERE], libc::EFAULT),
    ]);
    guest.fails_on(&[
        (libc::SYS_chdir, "f", &[], libc::ENOTDIR),
        (libc::SYS_chdir, "none", &[], libc::ENOENT),
        (libc::SYS_chdir, "", &[], libc::ENOENT),
    ]);
    assert_eq!(guest.on_path(libc::SYS_chdir, "..", &[]), 0);
    assert_eq!(guest.ok(libc::SYS_getcwd, [out, 100]), 5);
}

#[test]
fn a_folder_is_made_where_nothing_is() {
    let mut guest = Guest::simple();
    let fd = guest.with_tree();
    assert_eq!(guest.on_path(libc::SYS_mkdir, "new/", &[0o777]), 0);
    assert_eq!(guest.mode_of("new"), libc::S_IFDIR | 0o755);
    let folder = guest.open("/tmp/new", libc::O_DIRECTORY);
    let path = guest.text("inner");
    guest.ok(libc::SYS_mkdirat, [folder, path, 0o700]);
    assert_eq!(guest.mode_of("new/inner"), libc::S_IFDIR | 0o700);
    guest.fails_on(&[
        (libc::SYS_mkdir, "f", &[], libc::EEXIST),
        (libc::SYS_mkdir, "full/", &[], libc::EEXIST),
        (libc::SYS_mkdir, "dangling", &[], libc::EEXIST),
        (libc::SYS_mkdir, ".", &[], libc::EEXIST),
        (libc::SYS_mkdir, "..", &[], libc::EEXIST),
        (libc::SYS_mkdir, "/", &[], libc::EEXIST),
        (libc::SYS_mkdir, "", &[], libc::ENOENT),
        (libc::SYS_mkdir, "none/new", &[], libc::ENOENT),
        (libc::SYS_mkdir, "f/new", &[], libc::ENOTDIR),
        (libc::SYS_mkdir, "/usr/new", &[], libc::EACCES),
    ]);
    let path = guest.text("other");
    guest.fails(&[
        (libc::SYS_mkdirat, &[CLOSED, path, 0o700], libc::EBADF),
        (libc::SYS_mkdirat, &[fd, path, 0o700], libc::ENOTDIR),
        (libc::SYS_mkdir, &[NOWHERE, 0o700], libc::EFAULT),
    ]);
}

#[test]
fn only_an_empty_folder_is_removed_and_only_as_one() {
    let mut guest = Guest::simple();
    guest.with_tree();
    guest.fails_on(&[
        (libc::SYS_rmdir, "full", &[], libc::ENOTEMPTY),
        (libc::SYS_rmdir, "f", &[], libc::ENOTDIR),
        (libc::SYS_rmdir, "link", &[], libc::ENOTDIR),
        (libc::SYS_rmdir, "none", &[], libc::ENOENT),
        (libc::SYS_rmdir, "empty/.", &[], libc::EINVAL),
        (libc::SYS_rmdir, "empty/..", &[], libc::ENOTEMPTY),
        (libc::SYS_rmdir, "/", &[], libc::EBUSY),
        (libc::SYS_rmdir, "/usr", &[], libc::EACCES),
        (libc::SYS_unlink, "empty", &[], libc::EISDIR),
        (libc::SYS_unlink, "empty/", &[], libc::EISDIR),
        (libc::SYS_unlink, ".", &[], libc::EISDIR),
        (libc::SYS_unlink, "/", &[], libc::EISDIR),
    ]);
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    let path = guest.text("empty");
    guest.fails(&[
        (libc::SYS_unlinkat, &[folder, path, 0], libc::EISDIR),
        (libc::SYS_unlinkat, &[folder, path, 99], libc::EINVAL),
        (libc::SYS_unlinkat, &[CLOSED, path, REMOVE_FOLDER], libc::EBADF),
    ]);
    guest.ok(libc::SYS_unlinkat, [folder, path, REMOVE_FOLDER]);
    assert!(!guest.exists("empty"));
    assert_eq!(guest.on_path(libc::SYS_unlink, "full/f", &[]), 0);
    assert_eq!(guest.on_path(libc::SYS_rmdir, "full/", &[]), 0);
}

#[test]
fn a_name_is_removed_and_what_a_link_leads_to_stays() {
    let mut guest = Guest::simple();
    guest.with_tree();
    assert_eq!(guest.on_path(libc::SYS_unlink, "link", &[]), 0);
    assert!(guest.exists("f") && !guest.exists("link"));
    guest.fails_on(&[
        (libc::SYS_unlink, "none", &[], libc::ENOENT),
        (libc::SYS_unlink, "none/f", &[], libc::ENOENT),
        (libc::SYS_unlink, "f/", &[], libc::ENOTDIR),
        (libc::SYS_unlink, "", &[], libc::ENOENT),
        (libc::SYS_unlink, "/bin/true", &[], libc::EACCES),
    ]);
    guest.err(libc::SYS_unlink, [NOWHERE], libc::EFAULT);
}

#[test]
fn a_symbolic_link_holds_any_text() {
    let mut guest = Guest::simple();
    guest.with_tree();
    assert_eq!(guest.on_paths(libc::SYS_symlink, "../any thing/", "new"), 0);
    assert_eq!(guest.link_text("new"), "../any thing/");
    assert_eq!(guest.mode_of("new"), libc::S_IFLNK | 0o777);
    let folder = guest.open("/tmp/empty", libc::O_DIRECTORY);
    let (text, path) = (guest.text("x"), guest.other_text("y"));
    guest.ok(libc::SYS_symlinkat, [text, folder, path]);
    assert_eq!(guest.link_text("empty/y"), "x");
    guest.fails_on_pairs(
        libc::SYS_symlink,
        &[
            ("f", "link", libc::EEXIST),
            ("f", ".", libc::EEXIST),
            ("", "other", libc::ENOENT),
            ("f", "", libc::ENOENT),
            ("f", "other/", libc::ENOENT),
            ("f", "none/other", libc::ENOENT),
            ("f", "/usr/other", libc::EACCES),
        ],
    );
    let (text, path) = (guest.text("x"), guest.other_text("other"));
    guest.err(libc::SYS_symlinkat, [text, CLOSED, path], libc::EBADF);
    guest.err(libc::SYS_symlink, [NOWHERE, path], libc::EFAULT);
}

#[test]
fn a_second_name_is_the_same_file() {
    let mut guest = Guest::simple();
    let fd = guest.with_tree();
    assert_eq!(guest.on_paths(libc::SYS_link, "f", "second"), 0);
    let out = guest.at(4);
    guest.ok(libc::SYS_fstat, [fd, out]);
    assert_eq!(guest.word(out + 16), 2, "links");
    assert_eq!(guest.on_path(libc::SYS_unlink, "f", &[]), 0);
    let second = guest.open("/tmp/second", 0);
    assert_eq!(guest.contents(second), "text");
    let (follow, empty) = (libc::AT_SYMLINK_FOLLOW as u64, libc::AT_EMPTY_PATH as u64);
    let (old, new) = (guest.text("dangling"), guest.other_text("third"));
    guest.ok(libc::SYS_linkat, [CWD, old, CWD, new, 0]);
    assert_eq!(guest.mode_of("third"), libc::S_IFLNK | 0o777, "the link itself");
    let (old, new) = (guest.text(""), guest.other_text("fourth"));
    guest.ok(libc::SYS_linkat, [fd, old, CWD, new, empty]);
    assert_eq!(guest.mode_of("fourth"), libc::S_IFREG | 0o644);
    let (old, new) = (guest.text("dangling"), guest.other_text("fifth"));
    guest.fails(&[
        (libc::SYS_linkat, &[CWD, old, CWD, new, follow], libc::ENOENT),
        (libc::SYS_linkat, &[CWD, old, CWD, new, 99], libc::EINVAL),
        (libc::SYS_linkat, &[CLOSED, old, CWD, new, 0], libc::EBADF),
        (libc::SYS_link, &[NOWHERE, new], libc::EFAULT),
    ]);
    guest.fails_on_pairs(
        libc::SYS_link,
        &[
            ("second", "link", libc::EEXIST),
            ("none", "fifth", libc::ENOENT),
            ("second", "fifth/", libc::ENOENT),
            ("second", "none/fifth", libc::ENOENT),
            ("second", "/usr/fifth", libc::EACCES),
            ("empty", "fifth", libc::EPERM),
        ],
    );
}

#[test]
fn a_rename_replaces_only_what_is_alike() {
    let mut guest = Guest::simple();
    guest.with_tree();
    guest.fails_on_pairs(
        libc::SYS_rename,
        &[
            ("none", "new", libc::ENOENT),
            ("f", "empty", libc::EISDIR),
            ("empty", "f", libc::ENOTDIR),
            ("empty", "full", libc::ENOTEMPTY),
            ("full", "full/inner", libc::EINVAL),
            ("full", "none/inner", libc::ENOENT),
            ("f", "new/", libc::ENOTDIR),
            ("f/", "new", libc::ENOTDIR),
            ("empty", ".", libc::EBUSY),
            (".", "new", libc::EBUSY),
            ("..", "new", libc::EBUSY),
            ("", "new", libc::ENOENT),
            ("f", "", libc::ENOENT),
            ("/bin/true", "new", libc::EACCES),
            ("f", "/usr/new", libc::EACCES),
        ],
    );
    let (old, new) = (guest.text("f"), guest.other_text("new"));
    guest.fails(&[
        (libc::SYS_rename, &[NOWHERE, new], libc::EFAULT),
        (libc::SYS_renameat, &[CLOSED, old, CWD, new], libc::EBADF),
        (libc::SYS_renameat2, &[CWD, old, CWD, new, 8], libc::EINVAL),
    ]);
    assert_eq!(guest.on_paths(libc::SYS_rename, "full", "empty"), 0, "onto an empty folder");
    assert!(guest.exists("empty/f") && !guest.exists("full"));
    assert_eq!(guest.on_paths(libc::SYS_rename, "f", "empty/f"), 0, "onto a file");
    assert_eq!(guest.on_paths(libc::SYS_rename, "link", "moved"), 0);
    assert_eq!(guest.link_text("moved"), "f", "a link is moved itself");
}

#[test]
fn a_rename_to_another_name_of_the_same_file_does_nothing() {
    let mut guest = Guest::simple();
    guest.with_tree();
    assert_eq!(guest.on_paths(libc::SYS_link, "f", "second"), 0);
    assert_eq!(guest.on_paths(libc::SYS_rename, "f", "second"), 0);
    assert!(guest.exists("f") && guest.exists("second"));
}

#[test]
fn a_rename_that_may_not_replace_needs_a_free_name() {
    let mut guest = Guest::simple();
    guest.with_tree();
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    let (old, new) = (guest.text("f"), guest.other_text("link"));
    guest.err(libc::SYS_renameat2, [CWD, old, CWD, new, NO_REPLACE], libc::EEXIST);
    let new = guest.other_text("new");
    guest.ok(libc::SYS_renameat2, [CWD, old, folder, new, NO_REPLACE]);
    guest.ok(libc::SYS_renameat, [folder, new, folder, old]);
    assert!(guest.exists("f") && !guest.exists("new"));
}

#[test]
fn a_file_is_cut_or_lengthened_by_its_path() {
    let mut guest = Guest::simple();
    let fd = guest.with_tree();
    assert_eq!(guest.on_path(libc::SYS_truncate, "link", &[6]), 0);
    assert_eq!(guest.contents(fd), "text\0\0");
    guest.fails_on(&[
        (libc::SYS_truncate, "f", &[u64::MAX], libc::EINVAL),
        (libc::SYS_truncate, "none", &[u64::MAX], libc::EINVAL),
        (libc::SYS_truncate, "none", &[0], libc::ENOENT),
        (libc::SYS_truncate, "", &[0], libc::ENOENT),
        (libc::SYS_truncate, "empty", &[0], libc::EISDIR),
        (libc::SYS_truncate, "/dev/null", &[0], libc::EINVAL),
        (libc::SYS_truncate, "/bin/true", &[0], libc::EACCES),
    ]);
    guest.err(libc::SYS_truncate, [NOWHERE, 0], libc::EFAULT);
}

#[test]
fn a_rewind_puts_names_folders_and_the_working_directory_back() {
    let mut guest = Guest::simple();
    guest.with_tree();
    let changes: [(i64, &str, &str); 6] = [
        (libc::SYS_unlink, "f", "/tmp/f"),
        (libc::SYS_mkdir, "new", "/tmp/new"),
        (libc::SYS_rmdir, "empty", "/tmp/empty"),
        (libc::SYS_truncate, "f", "/tmp/f"),
        (libc::SYS_unlink, "link", "/tmp/link"),
        (libc::SYS_chdir, "full", "working directory"),
    ];
    for (nr, path, part) in changes {
        guest.undoes(part, |guest| assert_eq!(guest.on_path(nr, path, &[0]), 0));
    }
    let pairs = [
        (libc::SYS_rename, "full", "new"),
        (libc::SYS_rename, "full", "empty"),
        (libc::SYS_link, "f", "new"),
        (libc::SYS_symlink, "f", "new"),
    ];
    for (nr, old, new) in pairs {
        guest.undoes("/tmp", |guest| assert_eq!(guest.on_paths(nr, old, new), 0));
    }
    let fd = guest.open("/tmp/link", 0);
    assert_eq!(guest.contents(fd), "text");
    assert!(guest.exists("full/f") && guest.exists("empty") && !guest.exists("new"));
}
