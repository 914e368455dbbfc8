//! `getdents` and `getdents64`: what is in a folder.

use crate::linux::tests::mock::{CLOSED, Guest, NOWHERE};

/// An entry: its name, its type, and the offset of the next.
type Entry = (String, u8, u64);

impl Guest {
    /// The entries that one call gives.
    fn entries(&mut self, nr: i64, fd: u64, bytes: u64) -> Vec<Entry> {
        let out = self.at(4);
        let end = out + self.ok(nr, [fd, out, bytes]);
        let mut at = out;
        let mut entries = Vec::new();
        while at < end {
            let len = u64::from(self.half(at + 16) as u16);
            let is_new = nr == libc::SYS_getdents64;
            let (kind_at, name_at) =
                if is_new { (at + 18, at + 19) } else { (at + len - 1, at + 18) };
            let name = self.get(name_at, (at + len - name_at) as usize);
            let name = name.split(|byte| *byte == 0).next().unwrap();
            let kind = self.get(kind_at, 1)[0];
            entries.push((String::from_utf8(name.to_vec()).unwrap(), kind, self.word(at + 8)));
            at += len;
        }
        assert_eq!(at, end);
        entries
    }

    /// `/tmp` with a file, a folder and a link in it.
    fn with_folder(&mut self) -> u64 {
        self.make("/tmp/file", "");
        assert_eq!(self.on_path(libc::SYS_mkdir, "/tmp/folder", &[0o700]), 0);
        assert_eq!(self.on_paths(libc::SYS_symlink, "file", "/tmp/link"), 0);
        self.open("/tmp", libc::O_DIRECTORY)
    }
}

#[test]
fn entries_come_in_order_of_their_names_with_their_types() {
    let mut guest = Guest::simple();
    let fd = guest.with_folder();
    for nr in [libc::SYS_getdents64, libc::SYS_getdents] {
        guest.seek(fd, 0);
        let entries = guest.entries(nr, fd, 1000);
        let found: Vec<_> = entries.iter().map(|(name, kind, _)| (name.as_str(), *kind)).collect();
        let wanted = [
            (".", libc::DT_DIR),
            ("..", libc::DT_DIR),
            ("file", libc::DT_REG),
            ("folder", libc::DT_DIR),
            ("link", libc::DT_LNK),
        ];
        assert_eq!(found, wanted);
        assert_eq!(guest.entries(nr, fd, 1000), [], "that was all");
    }
}

#[test]
fn a_small_buffer_gives_a_few_entries_at_a_time() {
    let mut guest = Guest::simple();
    let fd = guest.with_folder();
    let mut names = Vec::new();
    for _ in 0..5 {
        let [(name, _, _)] = &guest.entries(libc::SYS_getdents64, fd, 32)[..] else { panic!() };
        names.push(name.clone());
    }
    assert_eq!(names, [".", "..", "file", "folder", "link"]);
}

#[test]
fn an_offset_leads_back_to_where_an_entry_was() {
    let mut guest = Guest::simple();
    let fd = guest.with_folder();
    let entries = guest.entries(libc::SYS_getdents64, fd, 1000);
    guest.seek(fd, entries[1].2);
    assert_eq!(guest.entries(libc::SYS_getdents64, fd, 1000), entries[2..]);
}

#[test]
fn a_folder_of_descriptors_lists_those_that_are_open() {
    let mut guest = Guest::simple();
    let fd = guest.open("/proc/self/fd", libc::O_DIRECTORY);
    let names = |guest: &mut Guest| {
        guest.seek(fd, 0);
        let entries = guest.entries(libc::SYS_getdents64, fd, 1000);
        entries.into_iter().skip(2).map(|(name, ..)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut guest), ["0", "1", "2", "3"]);
    guest.ok(libc::SYS_close, [1]);
    assert_eq!(names(&mut guest), ["0", "2", "3"]);
}

#[test]
fn only_an_open_folder_is_listed_into_memory_that_is_there() {
    let mut guest = Guest::simple();
    let fd = guest.with_folder();
    let file = guest.open("/tmp/file", 0);
    let path_only = guest.open("/tmp", libc::O_PATH);
    let out = guest.at(4);
    for nr in [libc::SYS_getdents64, libc::SYS_getdents] {
        guest.fails(&[
            (nr, &[fd, out, 10], libc::EINVAL),
            (nr, &[fd, out, 0], libc::EINVAL),
            (nr, &[fd, NOWHERE, 1000], libc::EFAULT),
            (nr, &[file, out, 1000], libc::ENOTDIR),
            (nr, &[1, out, 1000], libc::ENOTDIR),
            (nr, &[path_only, out, 1000], libc::EBADF),
            (nr, &[CLOSED, out, 1000], libc::EBADF),
        ]);
    }
    assert_eq!(guest.offset(fd), 0);
}

#[test]
fn a_rewind_lists_a_folder_anew() {
    let mut guest = Guest::simple();
    let fd = guest.with_folder();
    guest.undoes("descriptor", |guest| guest.entries(libc::SYS_getdents64, fd, 32));
    guest.undoes("/tmp/new", |guest| guest.make("/tmp/new", ""));
    assert_eq!(guest.entries(libc::SYS_getdents64, fd, 1000).len(), 5);
}
