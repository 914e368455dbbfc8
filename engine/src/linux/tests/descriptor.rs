//! Calls on descriptors other than transfers: seeking, duplicating, flags, lengths.

use crate::linux::tests::mock::files::CREATE;
use crate::linux::tests::mock::{CLOSED, Guest, NOWHERE};

const NEGATIVE: u64 = u64::MAX;
/// `O_LARGEFILE`, which every file is opened with.
const LARGE_FILE: u64 = 0o100_000;

impl Guest {
    fn fcntl(&mut self, fd: u64, command: i32, arg: u64) -> i64 {
        self.call(libc::SYS_fcntl, [fd, command as u64, arg])
    }

    /// What `lseek` returns.
    fn seek_by(&mut self, fd: u64, offset: i64, whence: i32) -> i64 {
        self.call(libc::SYS_lseek, [fd, offset as u64, whence as u64])
    }
}

#[test]
fn shares_offsets_between_duplicates() {
    let mut guest = Guest::simple();
    assert_eq!(guest.ok(libc::SYS_dup, [0]), 3);
    assert_eq!(guest.ok(libc::SYS_dup2, [0, 9]), 9);
    assert_eq!(guest.read_text(3, 2), "in");
    assert_eq!(guest.read_text(9, 2), "pu");
    guest.err(libc::SYS_dup2, [0, 5000], libc::EBADF);
    guest.err(libc::SYS_dup3, [0, 0, 0], libc::EINVAL);
    assert_eq!(guest.ok(libc::SYS_fcntl, [0, libc::F_DUPFD_CLOEXEC as u64, 5]), 5);
    assert_eq!(guest.ok(libc::SYS_fcntl, [5, libc::F_GETFD as u64]), 1);
    guest.ok(libc::SYS_close, [0]);
    guest.err(libc::SYS_close, [0], libc::EBADF);
    assert_eq!(guest.read_text(5, 2), "t");
}

#[test]
fn limits_open_files() {
    let mut guest = Guest::simple();
    for fd in 3..1024 {
        assert_eq!(guest.ok(libc::SYS_dup, [0]), fd);
    }
    guest.err(libc::SYS_dup, [0], libc::EMFILE);
    let out = guest.scratch;
    guest.err(libc::SYS_pipe, [out], libc::EMFILE);
}

#[test]
fn seeking_counts_from_the_start_from_here_and_from_the_end() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "0123456789");
    assert_eq!(guest.seek_by(fd, 4, libc::SEEK_SET), 4);
    assert_eq!(guest.seek_by(fd, -1, libc::SEEK_CUR), 3);
    assert_eq!(guest.seek_by(fd, 3, libc::SEEK_END), 13, "beyond the end");
    assert_eq!(guest.read_text(fd, 10), "");
    assert_eq!(guest.seek_by(fd, i64::MAX, libc::SEEK_SET), i64::MAX);
    assert_eq!(guest.seek_by(fd, 5, libc::SEEK_DATA), 5);
    assert_eq!(guest.seek_by(fd, 5, libc::SEEK_HOLE), 10, "one hole, at the end");
    assert_eq!(guest.offset(fd), 10);
    let null = guest.open("/dev/null", libc::O_RDONLY);
    assert_eq!(guest.seek_by(null, 5, libc::SEEK_END), 0);
}

#[test]
fn seeking_is_for_files_and_never_before_their_start() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "0123456789");
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    let end = libc::SEEK_END as u64;
    guest.fails(&[
        (libc::SYS_lseek, &[fd, -1_i64 as u64, 0], libc::EINVAL),
        (libc::SYS_lseek, &[fd, -11_i64 as u64, end], libc::EINVAL),
        (libc::SYS_lseek, &[fd, i64::MAX as u64, end], libc::EINVAL),
        (libc::SYS_lseek, &[fd, 0, 9], libc::EINVAL),
        (libc::SYS_lseek, &[fd, 10, libc::SEEK_DATA as u64], libc::ENXIO),
        (libc::SYS_lseek, &[fd, -1_i64 as u64, libc::SEEK_HOLE as u64], libc::ENXIO),
        (libc::SYS_lseek, &[CLOSED, 0, 9], libc::EBADF),
        (libc::SYS_lseek, &[path_only, 0, 0], libc::EBADF),
        (libc::SYS_lseek, &[1, 0, 0], libc::ESPIPE),
    ]);
    assert_eq!(guest.offset(fd), 10);
}

#[test]
fn a_range_of_descriptors_is_closed_or_marked_at_once() {
    let mut guest = Guest::simple();
    for fd in 3..9 {
        assert_eq!(guest.ok(libc::SYS_dup, [0]), fd);
    }
    guest.ok(libc::SYS_close_range, [5, 6, 0]);
    let open = (0..9).filter(|fd| guest.fcntl(*fd, libc::F_GETFD, 0) == 0);
    assert_eq!(open.collect::<Vec<_>>(), [0, 1, 2, 3, 4, 7, 8]);
    let mark = u64::from(libc::CLOSE_RANGE_CLOEXEC);
    guest.ok(libc::SYS_close_range, [7, u64::from(u32::MAX), mark]);
    assert_eq!(guest.fcntl(8, libc::F_GETFD, 0), 1);
    guest.ok(libc::SYS_close_range, [4, u64::from(u32::MAX), 0]);
    assert_eq!(guest.ok(libc::SYS_dup, [0]), 4);
    guest.err(libc::SYS_close_range, [5, 4, 0], libc::EINVAL);
    guest.err(libc::SYS_close_range, [500, 600, 1], libc::EINVAL);
}

#[test]
fn a_copy_replaces_what_was_open_and_must_be_below_the_limit() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "text");
    let [reader, writer] = guest.pipe(0);
    assert_eq!(guest.ok(libc::SYS_dup2, [fd, writer]), writer);
    assert_eq!(guest.read_text(reader, 9), "", "the pipe's writer is gone");
    assert_eq!(guest.contents(writer), "text");
    let on_exec = libc::O_CLOEXEC as u64;
    assert_eq!(guest.ok(libc::SYS_dup3, [fd, 100, on_exec]), 100);
    assert_eq!(guest.fcntl(100, libc::F_GETFD, 0), 1);
    assert_eq!(guest.ok(libc::SYS_dup2, [fd, fd]), fd);
    guest.fails(&[
        (libc::SYS_dup, &[CLOSED], libc::EBADF),
        (libc::SYS_dup2, &[CLOSED, 3], libc::EBADF),
        (libc::SYS_dup2, &[CLOSED, CLOSED], libc::EBADF),
        (libc::SYS_dup2, &[fd, 1024], libc::EBADF),
        (libc::SYS_dup2, &[fd, NEGATIVE], libc::EBADF),
        (libc::SYS_dup3, &[fd, 1024, 0], libc::EBADF),
        (libc::SYS_dup3, &[fd, 100, 1], libc::EINVAL),
        (libc::SYS_close, &[NEGATIVE], libc::EBADF),
    ]);
}

#[test]
fn fcntl_tells_and_sets_flags_of_descriptors_and_of_what_is_open() {
    let mut guest = Guest::simple();
    let fd = guest.open("/tmp/f", CREATE | libc::O_TRUNC | libc::O_EXCL);
    let read_write = libc::O_RDWR as u64 | LARGE_FILE;
    assert_eq!(guest.fcntl(fd, libc::F_GETFL, 0) as u64, read_write, "no flag of the opening");
    assert_eq!(guest.fcntl(fd, libc::F_SETFL, (libc::O_APPEND | libc::O_WRONLY) as u64), 0);
    let copy = guest.fcntl(fd, libc::F_DUPFD, 200);
    assert_eq!(copy, 200);
    let flags = guest.fcntl(copy as u64, libc::F_GETFL, 0);
    assert_eq!(flags as u64, read_write | libc::O_APPEND as u64, "shared, but for the access");
    assert_eq!(guest.fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC as u64), 0);
    assert_eq!(guest.fcntl(fd, libc::F_GETFD, 0), 1);
    assert_eq!(guest.fcntl(copy as u64, libc::F_GETFD, 0), 0, "each descriptor's own");
    let [reader, _] = guest.pipe(0);
    assert_eq!(guest.fcntl(reader, libc::F_GETPIPE_SZ, 0), 65_536);
    let limit = 1024;
    for (fd, command, arg, errno) in [
        (CLOSED, libc::F_GETFD, 0, libc::EBADF),
        (fd, libc::F_DUPFD, NEGATIVE, libc::EINVAL),
        (fd, libc::F_DUPFD, limit, libc::EINVAL),
        (fd, 99, 0, libc::EINVAL),
        (fd, libc::F_GETLK, NOWHERE, libc::EFAULT),
    ] {
        assert_eq!(guest.fcntl(fd, command, arg), -i64::from(errno), "{command}");
    }
}

#[test]
fn no_lock_is_ever_held_by_another_process() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "text");
    let whole_for_writing = (libc::F_WRLCK as u64, 0);
    let lock = guest.words(0, &[whole_for_writing.0, whole_for_writing.1, 0, 0]);
    assert_eq!(guest.fcntl(fd, libc::F_SETLK, lock), 0);
    assert_eq!(guest.fcntl(fd, libc::F_SETLKW, lock), 0);
    assert_eq!(guest.fcntl(fd, libc::F_GETLK, lock), 0);
    assert_eq!(guest.half(lock) as u16, libc::F_UNLCK as u16);
    guest.ok(libc::SYS_flock, [fd, libc::LOCK_EX as u64]);
    guest.err(libc::SYS_flock, [CLOSED, libc::LOCK_EX as u64], libc::EBADF);
}

#[test]
fn ioctl_tells_what_is_left_to_read_and_sets_flags() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "0123456789");
    guest.seek(fd, 4);
    let out = guest.at(4);
    guest.ok(libc::SYS_ioctl, [fd, libc::FIONREAD, out]);
    assert_eq!(guest.half(out), 6);
    let [reader, writer] = guest.pipe(0);
    guest.write_text(writer, "abc");
    guest.ok(libc::SYS_ioctl, [reader, libc::FIONREAD, out]);
    assert_eq!(guest.half(out), 3);
    let on = guest.words(0, &[1]);
    guest.ok(libc::SYS_ioctl, [reader, libc::FIONBIO, on]);
    assert_eq!(guest.read_text(reader, 3), "abc");
    guest.err(libc::SYS_read, [reader, out, 1], libc::EAGAIN);
    guest.ok(libc::SYS_ioctl, [fd, libc::FIOCLEX]);
    assert_eq!(guest.fcntl(fd, libc::F_GETFD, 0), 1);
    guest.ok(libc::SYS_ioctl, [fd, libc::FIONCLEX]);
    assert_eq!(guest.fcntl(fd, libc::F_GETFD, 0), 0);
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    guest.fails(&[
        (libc::SYS_ioctl, &[CLOSED, libc::FIONREAD, out], libc::EBADF),
        (libc::SYS_ioctl, &[path_only, libc::FIONREAD, out], libc::EBADF),
        (libc::SYS_ioctl, &[fd, libc::FIONREAD, NOWHERE], libc::EFAULT),
        (libc::SYS_ioctl, &[reader, libc::FIONBIO, NOWHERE], libc::EFAULT),
        (libc::SYS_ioctl, &[fd, libc::TCGETS, out], libc::ENOTTY),
        (libc::SYS_ioctl, &[fd, 0x12345, out], libc::ENOTTY),
    ]);
}

#[test]
fn a_length_is_set_on_files_that_are_open_for_writing() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "0123456789");
    let reader = guest.open("/tmp/f", libc::O_RDONLY);
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    guest.ok(libc::SYS_ftruncate, [fd, 3]);
    guest.ok(libc::SYS_ftruncate, [fd, 5]);
    assert_eq!((guest.contents(fd), guest.offset(fd)), ("012\0\0".to_owned(), 10));
    guest.fails(&[
        (libc::SYS_ftruncate, &[fd, NEGATIVE], libc::EINVAL),
        (libc::SYS_ftruncate, &[reader, 5], libc::EINVAL),
        (libc::SYS_ftruncate, &[folder, 5], libc::EINVAL),
        (libc::SYS_ftruncate, &[1, 5], libc::EINVAL),
        (libc::SYS_ftruncate, &[path_only, 5], libc::EBADF),
        (libc::SYS_ftruncate, &[CLOSED, 5], libc::EBADF),
    ]);
}

#[test]
fn fallocate_makes_room_and_punches_holes_as_a_tmpfs_does() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "0123456789");
    let keep_size = libc::FALLOC_FL_KEEP_SIZE as u64;
    let punch = libc::FALLOC_FL_PUNCH_HOLE as u64;
    guest.ok(libc::SYS_fallocate, [fd, 0, 8, 4]);
    guest.ok(libc::SYS_fallocate, [fd, keep_size, 0, 1000]);
    guest.ok(libc::SYS_fallocate, [fd, punch | keep_size, 2, 3]);
    assert_eq!(guest.contents(fd), "01\0\0\x0056789\0\0");
    let reader = guest.open("/tmp/f", libc::O_RDONLY);
    let null = guest.open("/dev/null", libc::O_RDWR);
    let [_, writer] = guest.pipe(0);
    let most = i64::MAX as u64;
    guest.fails(&[
        (libc::SYS_fallocate, &[CLOSED, 0, 0, 1], libc::EBADF),
        (libc::SYS_fallocate, &[reader, 0, 0, 1], libc::EBADF),
        (libc::SYS_fallocate, &[writer, 0, 0, 1], libc::ESPIPE),
        (libc::SYS_fallocate, &[null, 0, 0, 1], libc::ENODEV),
        (libc::SYS_fallocate, &[fd, 0, 0, 0], libc::EINVAL),
        (libc::SYS_fallocate, &[fd, 0, NEGATIVE, 1], libc::EINVAL),
        (libc::SYS_fallocate, &[fd, 0, most, 1], libc::EFBIG),
        (libc::SYS_fallocate, &[fd, punch, 0, 1], libc::EOPNOTSUPP),
        (libc::SYS_fallocate, &[fd, 0x1000, 0, 1], libc::EOPNOTSUPP),
    ]);
}

#[test]
fn files_are_in_memory_so_that_there_is_nothing_to_synchronise() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "text");
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    guest.ok(libc::SYS_sync, []);
    for nr in [
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_syncfs,
        libc::SYS_sync_file_range,
        libc::SYS_readahead,
        libc::SYS_fadvise64,
    ] {
        assert_eq!(guest.ok(nr, [fd]), 0, "call {nr}");
        guest.err(nr, [CLOSED], libc::EBADF);
        guest.err(nr, [path_only], libc::EBADF);
    }
}

#[test]
fn a_rewind_takes_back_descriptors_their_flags_and_lengths_of_files() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "before");
    guest.undoes("descriptor 0", |guest| guest.ok(libc::SYS_close, [0]));
    guest.undoes("descriptor 4", |guest| assert_eq!(guest.ok(libc::SYS_dup, [fd]), 4));
    guest.undoes("descriptor 3", |guest| guest.ok(libc::SYS_dup2, [0, fd]));
    guest.undoes("descriptor 3", |guest| guest.fcntl(fd, libc::F_SETFD, 1));
    guest.undoes("descriptor 3", |guest| guest.seek(fd, 1));
    guest.undoes("/tmp/f", |guest| guest.ok(libc::SYS_ftruncate, [fd, 1]));
    guest.undoes("/tmp/f", |guest| guest.ok(libc::SYS_fallocate, [fd, 0, 0, 1000]));
    assert_eq!((guest.contents(fd), guest.offset(fd)), ("before".to_owned(), 6));
}
