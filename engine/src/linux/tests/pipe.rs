//! `pipe` and `pipe2`, and what reading, writing and closing a pipe's ends does.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::tests::mock::{CLOSED, Guest, NOWHERE};
use crate::outcome::Signal;

/// Bytes that a pipe holds (pipe(7)), in pages of which every write of these tests takes whole ones.
const CAPACITY: u64 = 65_536;

#[test]
fn pipes_bytes_to_itself_and_says_when_it_would_wait_for_ever() {
    let mut guest = Guest::simple();
    let out = guest.scratch;
    guest.ok(libc::SYS_pipe2, [out, 0]);
    assert_eq!(guest.word(out), 3 | 4 << 32);
    assert_eq!(guest.write_text(4, "through"), 7);
    assert_eq!(guest.read_text(3, 100), "through");
    let part = guest.put(64, &[out.to_le_bytes(), 1u64.to_le_bytes()].concat());
    let nowait = libc::RWF_NOWAIT as u64;
    guest.err(libc::SYS_preadv2, [3, part, 1, u64::MAX, 0, nowait], libc::EAGAIN);
    assert_eq!(guest.verdict(libc::SYS_read, [3, out, 1]), SyscallAction::Hang);
    guest.ok(libc::SYS_close, [4]);
    assert_eq!(guest.read_text(3, 100), "");
    guest.ok(libc::SYS_pipe2, [out, libc::O_NONBLOCK as u64]);
    guest.err(libc::SYS_read, [4, out, 1], libc::EAGAIN);
    guest.ok(libc::SYS_close, [4]);
    assert_eq!(guest.verdict(libc::SYS_write, [5, out, 1]), SyscallAction::Signal(Signal(13)));
}

#[test]
fn the_ends_are_the_lowest_free_descriptors_with_the_flags_asked_for() {
    let mut guest = Guest::simple();
    let at = guest.at(4);
    guest.ok(libc::SYS_close, [0]);
    guest.ok(libc::SYS_pipe, [at]);
    assert_eq!((guest.half(at), guest.half(at + 4)), (0, 3));
    let [reader, writer] = guest.pipe(libc::O_CLOEXEC | libc::O_NONBLOCK);
    for (fd, access) in [(reader, libc::O_RDONLY), (writer, libc::O_WRONLY)] {
        let flags = (access | libc::O_NONBLOCK) as u64;
        assert_eq!(guest.ok(libc::SYS_fcntl, [fd, libc::F_GETFL as u64]) & 0o7777, flags);
        assert_eq!(guest.ok(libc::SYS_fcntl, [fd, libc::F_GETFD as u64]), 1);
    }
    guest.fails(&[
        (libc::SYS_read, &[writer, at, 1], libc::EBADF),
        (libc::SYS_write, &[reader, at, 1], libc::EBADF),
        (libc::SYS_lseek, &[reader, 0, 0], libc::ESPIPE),
    ]);
}

#[test]
fn a_pipe_that_cannot_be_told_about_is_not_made() {
    let mut guest = Guest::simple();
    guest.fails(&[
        (libc::SYS_pipe, &[NOWHERE], libc::EFAULT),
        (libc::SYS_pipe2, &[NOWHERE, 0], libc::EFAULT),
        (libc::SYS_pipe2, &[NOWHERE, 1], libc::EINVAL),
    ]);
    assert_eq!(guest.pipe(0), [3, 4]);
}

#[test]
fn a_pipe_with_no_reader_kills_the_writer_unless_it_ignores_that() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(0);
    let at = guest.at(4);
    guest.ok(libc::SYS_close, [reader]);
    let killed = SyscallAction::Signal(Signal(libc::SIGPIPE as u8));
    assert_eq!(guest.clone().verdict(libc::SYS_write, [writer, at, 1]), killed);
    guest.handle(libc::SIGPIPE, libc::SIG_IGN as u64, 0);
    guest.err(libc::SYS_write, [writer, at, 1], libc::EPIPE);
}

#[test]
fn a_pipe_ends_when_the_last_copy_of_its_writer_goes() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(libc::O_NONBLOCK);
    let copy = guest.ok(libc::SYS_dup, [writer]);
    assert_eq!(guest.write_text(copy, "last words"), 10);
    guest.ok(libc::SYS_close, [writer]);
    assert_eq!(guest.read_text(reader, 100), "last words");
    let at = guest.at(4);
    guest.err(libc::SYS_read, [reader, at, 1], libc::EAGAIN);
    guest.ok(libc::SYS_close, [copy]);
    assert_eq!(guest.read_text(reader, 100), "");
}

#[test]
fn a_full_pipe_takes_of_a_long_write_what_fits_and_of_a_short_one_nothing() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(libc::O_NONBLOCK);
    let big = guest.ok(libc::SYS_mmap, [0, 2 * CAPACITY, 3, 0x22, u64::MAX, 0]);
    assert_eq!(guest.ok(libc::SYS_write, [writer, big, CAPACITY + 1]), CAPACITY);
    guest.err(libc::SYS_write, [writer, big, 1], libc::EAGAIN);
    assert_eq!(guest.ok(libc::SYS_read, [reader, big, 4095]), 4095);
    guest.err(libc::SYS_write, [writer, big, 4096], libc::EAGAIN);
    assert_eq!(guest.ok(libc::SYS_read, [reader, big, 4097]), 4097);
    assert_eq!(guest.ok(libc::SYS_write, [writer, big, 3 * 4096]), 2 * 4096);
    assert_eq!(guest.ok(libc::SYS_read, [reader, big, 2 * CAPACITY]), CAPACITY);
}

#[test]
fn a_reader_waits_until_another_thread_writes() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(0);
    let at = guest.at(4);
    guest.spawn(0);
    assert_eq!(guest.switch(libc::SYS_read, [reader, at, 100]), 0, "the new thread begins");
    assert_eq!(guest.write_text(writer, "woken"), 5);
    assert_eq!(guest.let_others_run(), 5);
    assert_eq!((guest.thread(), guest.get(at, 5)), (1000, b"woken".to_vec()));
}

#[test]
fn a_writer_waits_until_another_thread_makes_room() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(0);
    let big = guest.ok(libc::SYS_mmap, [0, CAPACITY, 3, 0x22, u64::MAX, 0]);
    assert_eq!(guest.ok(libc::SYS_write, [writer, big, CAPACITY]), CAPACITY);
    guest.spawn(0);
    assert_eq!(guest.switch(libc::SYS_write, [writer, big, 4096]), 0);
    assert_eq!(guest.ok(libc::SYS_read, [reader, big, CAPACITY]), CAPACITY);
    assert_eq!(guest.let_others_run(), 4096);
    assert_eq!(guest.thread(), 1000);
}

#[test]
fn a_reader_that_waits_is_told_when_the_last_writer_goes() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(0);
    let at = guest.at(4);
    guest.spawn(0);
    guest.switch(libc::SYS_read, [reader, at, 100]);
    guest.ok(libc::SYS_close, [writer]);
    assert_eq!(guest.let_others_run(), 0);
    assert_eq!(guest.thread(), 1000);
}

#[test]
fn bad_pointers_leave_a_pipe_as_it_is() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(0);
    guest.err(libc::SYS_write, [writer, NOWHERE, 5], libc::EFAULT);
    assert_eq!(guest.write_text(writer, "kept"), 4);
    guest.err(libc::SYS_read, [reader, NOWHERE, 5], libc::EFAULT);
    guest.err(libc::SYS_read, [CLOSED, NOWHERE, 5], libc::EBADF);
    assert_eq!(guest.ok(libc::SYS_read, [reader, NOWHERE, 0]), 0);
    assert_eq!(guest.read_text(reader, 100), "kept");
}

#[test]
fn a_rewind_takes_back_a_pipe_and_what_is_in_one() {
    let mut guest = Guest::simple();
    let [reader, writer] = guest.pipe(0);
    assert_eq!(guest.write_text(writer, "before"), 6);
    guest.undoes("contents of pipes", |guest| assert_eq!(guest.read_text(reader, 3), "bef"));
    guest.undoes("contents of pipes", |guest| assert_eq!(guest.write_text(writer, "more"), 4));
    guest.undoes("table of open files", |guest| assert_eq!(guest.pipe(0), [5, 6]));
    guest.undoes("descriptor 4", |guest| guest.ok(libc::SYS_close, [writer]));
    assert_eq!(guest.read_text(reader, 100), "before");
}
