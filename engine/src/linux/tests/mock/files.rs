//! Calls on files in a word: paths, texts that are written and read.

use crate::linux::tests::mock::{Guest, PAGE};

/// To make a file that is written and read.
pub(crate) const CREATE: i32 = libc::O_CREAT | libc::O_RDWR;

impl Guest {
    /// A NUL-terminated string at the start of the scratch memory.
    pub(crate) fn text(&mut self, text: &str) -> u64 {
        self.put(0, format!("{text}\0").as_bytes())
    }

    /// A second one, elsewhere.
    pub(crate) fn other_text(&mut self, text: &str) -> u64 {
        self.put(PAGE, format!("{text}\0").as_bytes())
    }

    /// Opens a path with flags.
    pub(crate) fn open(&mut self, path: &str, flags: i32) -> u64 {
        let path = self.text(path);
        self.ok(libc::SYS_open, [path, flags as u64, 0o644])
    }

    /// Makes a file that holds `text`; a descriptor at its end.
    pub(crate) fn make(&mut self, path: &str, text: &str) -> u64 {
        let fd = self.open(path, CREATE | libc::O_TRUNC);
        assert_eq!(self.write_text(fd, text), text.len() as i64);
        fd
    }

    /// What a call with a path as its first argument returns.
    pub(crate) fn on_path(&mut self, nr: i64, path: &str, rest: &[u64]) -> i64 {
        let path = self.text(path);
        self.call(nr, [&[path], rest].concat())
    }

    /// What a call with two paths as its first arguments returns.
    pub(crate) fn on_paths(&mut self, nr: i64, first: &str, second: &str) -> i64 {
        let paths = [self.text(first), self.other_text(second)];
        self.call(nr, paths)
    }

    /// Each of these calls, with a path as its first argument, fails with this error number.
    pub(crate) fn fails_on(&mut self, calls: &[(i64, &str, &[u64], i32)]) {
        for (nr, path, rest, errno) in calls {
            let value = self.on_path(*nr, path, rest);
            assert_eq!(value, -i64::from(*errno), "call {nr} on {path:?} {rest:x?}");
        }
    }

    pub(crate) fn write_text(&mut self, fd: u64, text: &str) -> i64 {
        let at = self.put(8 * PAGE, text.as_bytes());
        self.call(libc::SYS_write, [fd, at, text.len() as u64])
    }

    pub(crate) fn read_text(&mut self, fd: u64, len: u64) -> String {
        let at = self.at(9);
        let done = self.ok(libc::SYS_read, [fd, at, len]);
        String::from_utf8(self.get(at, done as usize)).unwrap()
    }

    /// A file's bytes, from its start, whatever its descriptor's offset is.
    pub(crate) fn contents(&mut self, fd: u64) -> String {
        let at = self.at(9);
        let done = self.ok(libc::SYS_pread64, [fd, at, 4 * PAGE, 0]);
        String::from_utf8(self.get(at, done as usize)).unwrap()
    }

    pub(crate) fn offset(&mut self, fd: u64) -> u64 {
        self.ok(libc::SYS_lseek, [fd, 0, libc::SEEK_CUR as u64])
    }

    pub(crate) fn seek(&mut self, fd: u64, offset: u64) {
        assert_eq!(self.ok(libc::SYS_lseek, [fd, offset, libc::SEEK_SET as u64]), offset);
    }

    /// The type and the permission bits at a path, by `lstat`.
    pub(crate) fn mode_of(&mut self, path: &str) -> u32 {
        let (path, out) = (self.text(path), self.at(4));
        self.ok(libc::SYS_lstat, [path, out]);
        self.half(out + 24)
    }

    /// Both ends of a new pipe, the reader first.
    pub(crate) fn pipe(&mut self, flags: i32) -> [u64; 2] {
        let at = self.at(10);
        self.ok(libc::SYS_pipe2, [at, flags as u64]);
        [self.half(at), self.half(at + 4)].map(u64::from)
    }
}
