//! `read`, `write` and their forms with a position: files, devices, the input and the outputs.

use crate::linux::abi::syscall::SyscallAction;
use crate::linux::loader::spec::{InputChannel, ProcessSpec};
use crate::linux::tests::mock::files::CREATE;
use crate::linux::tests::mock::{CLOSED, Guest, NOWHERE, PAGE};

#[test]
fn captures_output_up_to_its_limit() {
    let mut spec = ProcessSpec::new("/bin/true");
    spec.limits.stdout_bytes = 10;
    let mut guest = Guest::load(&spec, b"");
    assert_eq!(guest.write_text(1, "hello"), 5);
    assert_eq!(guest.write_text(2, "error"), 5);
    assert_eq!(guest.process.stdout(), b"hello");
    assert_eq!(guest.process.stderr(), b"error");
    let at = guest.scratch;
    assert_eq!(guest.verdict(libc::SYS_write, [1, at, 6]), SyscallAction::OutputLimit);
}

#[test]
fn reads_the_input_from_standard_input() {
    let mut guest = Guest::simple();
    assert_eq!(guest.read_text(0, 3), "inp");
    assert_eq!(guest.read_text(0, 100), "ut");
    assert_eq!(guest.read_text(0, 100), "");
    assert_eq!(guest.ok(libc::SYS_lseek, [0, 1, libc::SEEK_SET as u64]), 1);
    assert_eq!(guest.read_text(0, 100), "nput");
    let fd = guest.open("/dev/stdin", 0);
    assert_eq!(guest.read_text(fd, 100), "input");
}

#[test]
fn reads_the_input_from_a_file() {
    let mut spec = ProcessSpec::new("/bin/true");
    spec.input = InputChannel::File { guest: "x.bin".into() };
    let mut guest = Guest::load(&spec, b"bytes");
    assert_eq!(guest.read_text(0, 100), "", "standard input is empty");
    let fd = guest.open("x.bin", 0);
    assert_eq!(guest.read_text(fd, 100), "bytes");
    guest.process.set_input(b"others");
    assert_eq!(guest.ok(libc::SYS_lseek, [fd, 0, 2]), 6);
    assert_eq!(guest.on_path(libc::SYS_open, "x.bin", &[2]), -i64::from(libc::EACCES));
}

#[test]
fn writes_files_in_memory_with_a_limit() {
    let mut spec = ProcessSpec::new("/bin/true");
    spec.limits.file_bytes = 100;
    let mut guest = Guest::load(&spec, b"");
    let fd = guest.open("/tmp/f", CREATE);
    assert_eq!(guest.write_text(fd, "0123456789"), 10);
    assert_eq!(guest.ok(libc::SYS_lseek, [fd, 20, 0]), 20);
    assert_eq!(guest.write_text(fd, "x"), 1);
    assert_eq!(guest.ok(libc::SYS_lseek, [fd, 8, 0]), 8);
    assert_eq!(guest.read_text(fd, 100), "89\0\0\0\0\0\0\0\0\0\0x");
    guest.err(libc::SYS_ftruncate, [fd, 101], libc::ENOSPC);
    guest.ok(libc::SYS_lseek, [fd, 1 << 40, 0]);
    assert_eq!(guest.write_text(fd, "x"), -i64::from(libc::ENOSPC));
    guest.ok(libc::SYS_ftruncate, [fd, 5]);
    assert_eq!(guest.on_path(libc::SYS_unlink, "/tmp/f", &[]), 0);
    guest.ok(libc::SYS_lseek, [fd, 0, 0]);
    assert_eq!(guest.read_text(fd, 100), "01234", "open files outlive their names");
    guest.ok(libc::SYS_close, [fd]);
    let fd = guest.open("/tmp/g", CREATE);
    assert_eq!(guest.call(libc::SYS_ftruncate, [fd, 100]), 0, "closing gave the room back");
}

#[test]
fn writes_what_lies_before_a_bad_page() {
    let mut guest = Guest::simple();
    let end = guest.scratch + 16 * PAGE;
    guest.ok(libc::SYS_munmap, [end - PAGE, PAGE]);
    assert_eq!(guest.ok(libc::SYS_write, [1, end - PAGE - 10, 100]), 10);
    assert_eq!(guest.process.stdout(), [0; 10]);
    guest.err(libc::SYS_write, [1, end - PAGE, 100], libc::EFAULT);
    guest.err(libc::SYS_write, [1, u64::MAX, 100], libc::EFAULT);
    guest.err(libc::SYS_write, [1, 0x7f00_0000_0000, 1], libc::EFAULT);
}

#[test]
fn a_transfer_needs_a_descriptor_that_is_open_for_it() {
    let mut guest = Guest::simple();
    let (writer, reader) = (guest.make("/tmp/f", "text"), guest.open("/tmp/f", libc::O_RDONLY));
    let writer_only = guest.open("/tmp/f", libc::O_WRONLY);
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    let at = guest.at(4);
    guest.fails(&[
        (libc::SYS_read, &[CLOSED, at, 1], libc::EBADF),
        (libc::SYS_read, &[u64::MAX, at, 1], libc::EBADF),
        (libc::SYS_write, &[CLOSED, at, 1], libc::EBADF),
        (libc::SYS_read, &[writer_only, at, 1], libc::EBADF),
        (libc::SYS_write, &[reader, at, 1], libc::EBADF),
        (libc::SYS_read, &[path_only, at, 1], libc::EBADF),
        (libc::SYS_write, &[path_only, at, 1], libc::EBADF),
        (libc::SYS_read, &[folder, at, 1], libc::EISDIR),
        (libc::SYS_pread64, &[folder, at, 1, 0], libc::EISDIR),
        (libc::SYS_read, &[1, at, 1], libc::EBADF),
    ]);
    assert_eq!(guest.contents(writer), "text");
}

#[test]
fn a_transfer_with_a_position_leaves_the_offset_alone() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "0123456789");
    guest.seek(fd, 3);
    let (out, text) = (guest.at(4), guest.put(0, b"xy"));
    assert_eq!(guest.ok(libc::SYS_pread64, [fd, out, 4, 8]), 2);
    assert_eq!(guest.get(out, 2), b"89");
    assert_eq!(guest.ok(libc::SYS_pread64, [fd, out, 4, 100]), 0, "beyond the end");
    assert_eq!(guest.ok(libc::SYS_pwrite64, [fd, text, 2, 11]), 2);
    assert_eq!(guest.offset(fd), 3);
    assert_eq!(guest.contents(fd), "0123456789\0xy");
    let [reader, writer] = guest.pipe(0);
    guest.fails(&[
        (libc::SYS_pread64, &[fd, out, 4, u64::MAX], libc::EINVAL),
        (libc::SYS_pread64, &[CLOSED, out, 4, u64::MAX], libc::EINVAL),
        (libc::SYS_pread64, &[CLOSED, out, 4, 0], libc::EBADF),
        (libc::SYS_pwrite64, &[fd, text, 2, 1 << 63], libc::EINVAL),
        (libc::SYS_pread64, &[reader, out, 1, 0], libc::ESPIPE),
        (libc::SYS_pwrite64, &[writer, text, 1, 0], libc::ESPIPE),
    ]);
}

#[test]
fn a_file_that_is_appended_to_takes_no_other_position() {
    let mut guest = Guest::simple();
    guest.make("/tmp/f", "01");
    let fd = guest.open("/tmp/f", libc::O_RDWR | libc::O_APPEND);
    let text = guest.put(0, b"xx");
    assert_eq!(guest.ok(libc::SYS_pwrite64, [fd, text, 2, 0]), 2);
    assert_eq!((guest.contents(fd), guest.offset(fd)), ("01xx".to_owned(), 0));
    assert_eq!(guest.write_text(fd, "end"), 3);
    assert_eq!((guest.contents(fd), guest.offset(fd)), ("01xxend".to_owned(), 7));
}

#[test]
fn devices_give_without_end_or_nothing_and_take_everything_or_nothing() {
    let mut guest = Guest::simple();
    let [null, zero, full, random] = ["null", "zero", "full", "urandom"]
        .map(|name| guest.open(&format!("/dev/{name}"), libc::O_RDWR));
    let out = guest.put(4 * PAGE, &[0xff; 64]);
    assert_eq!(guest.ok(libc::SYS_read, [null, out, 64]), 0);
    assert_eq!(guest.ok(libc::SYS_read, [random, out, 64]), 64);
    assert_ne!(guest.get(out, 64), [0xff; 64]);
    for fd in [zero, full] {
        guest.put(4 * PAGE, &[0xff; 64]);
        assert_eq!(guest.ok(libc::SYS_read, [fd, out, 63]), 63);
        assert_eq!(guest.get(out, 64), [&[0; 63][..], &[0xff]].concat());
    }
    assert_eq!(guest.ok(libc::SYS_write, [null, NOWHERE, 10]), 10, "nobody looks at it");
    assert_eq!(guest.ok(libc::SYS_write, [zero, NOWHERE, 10]), 10);
    guest.err(libc::SYS_write, [full, out, 1], libc::ENOSPC);
    guest.err(libc::SYS_read, [zero, NOWHERE, 1], libc::EFAULT);
}

#[test]
fn a_bad_pointer_moves_nothing_and_the_end_of_memory_cuts_a_read_short() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "0123456789");
    guest.seek(fd, 2);
    guest.fails(&[
        (libc::SYS_read, &[fd, NOWHERE, 4], libc::EFAULT),
        (libc::SYS_read, &[fd, u64::MAX, 4], libc::EFAULT),
        (libc::SYS_read, &[fd, 1 << 63, 4], libc::EFAULT),
        (libc::SYS_pread64, &[fd, NOWHERE, 4, 0], libc::EFAULT),
        (libc::SYS_write, &[fd, NOWHERE, 4], libc::EFAULT),
        (libc::SYS_pwrite64, &[fd, NOWHERE, 4, 0], libc::EFAULT),
    ]);
    assert_eq!(guest.ok(libc::SYS_read, [fd, NOWHERE, 0]), 0);
    assert_eq!(guest.ok(libc::SYS_write, [fd, NOWHERE, 0]), 0);
    assert_eq!((guest.offset(fd), guest.contents(fd)), (2, "0123456789".to_owned()));
    let last = guest.at(15);
    guest.ok(libc::SYS_munmap, [last, PAGE]);
    assert_eq!(guest.ok(libc::SYS_read, [fd, last - 3, 8]), 3);
    assert_eq!((guest.get(last - 3, 3), guest.offset(fd)), (b"234".to_vec(), 5));
}

#[test]
fn a_rewind_takes_back_what_was_written_and_how_far_was_read() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "before");
    guest.undoes("/tmp/f", |guest| {
        guest.seek(fd, 2);
        assert_eq!(guest.write_text(fd, "much longer than before"), 23);
    });
    assert_eq!((guest.contents(fd), guest.offset(fd)), ("before".to_owned(), 6));
    guest.undoes("descriptor 0", |guest| assert_eq!(guest.read_text(0, 2), "in"));
    assert_eq!(guest.read_text(0, 5), "input");
    guest.undoes("standard output", |guest| assert_eq!(guest.write_text(1, "out"), 3));
    assert_eq!(guest.process.stdout(), b"");
    guest.undoes("standard error", |guest| assert_eq!(guest.write_text(2, "err"), 3));
    assert_eq!(guest.process.stderr(), b"");
}
