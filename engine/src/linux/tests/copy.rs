//! `sendfile` and `copy_file_range`: from a file past the program's memory.

use crate::linux::tests::mock::{CLOSED, Guest, NOWHERE};

impl Guest {
    /// A file of ten digits with its offset at the start, and an empty one.
    fn source_and_target(&mut self) -> [u64; 2] {
        let source = self.make("/tmp/source", "0123456789");
        self.seek(source, 0);
        [source, self.make("/tmp/target", "")]
    }
}

#[test]
fn sendfile_goes_on_from_the_offsets_of_both_files() {
    let mut guest = Guest::simple();
    let [source, target] = guest.source_and_target();
    assert_eq!(guest.ok(libc::SYS_sendfile, [target, source, 0, 4]), 4);
    assert_eq!(guest.ok(libc::SYS_sendfile, [target, source, 0, 100]), 6, "up to the end");
    assert_eq!(guest.ok(libc::SYS_sendfile, [target, source, 0, 100]), 0);
    assert_eq!((guest.offset(source), guest.offset(target)), (10, 10));
    assert_eq!(guest.contents(target), "0123456789");
    assert_eq!(guest.ok(libc::SYS_sendfile, [1, 0, 0, 100]), 5);
    assert_eq!(guest.process.stdout(), b"input");
}

#[test]
fn sendfile_with_an_offset_in_memory_moves_that_one_alone() {
    let mut guest = Guest::simple();
    let [source, target] = guest.source_and_target();
    let offset = guest.words(64, &[7]);
    assert_eq!(guest.ok(libc::SYS_sendfile, [target, source, offset, 2]), 2);
    assert_eq!((guest.word(offset), guest.offset(source)), (9, 0));
    assert_eq!(guest.contents(target), "78");
    guest.words(64, &[1000]);
    assert_eq!(guest.ok(libc::SYS_sendfile, [target, source, offset, 2]), 0);
}

#[test]
fn sendfile_needs_a_file_to_read_and_something_to_write() {
    let mut guest = Guest::simple();
    let [source, target] = guest.source_and_target();
    let writer_only = guest.open("/tmp/source", libc::O_WRONLY);
    let appending = guest.open("/tmp/target", libc::O_WRONLY | libc::O_APPEND);
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    let [reader, _] = guest.pipe(0);
    guest.fails(&[
        (libc::SYS_sendfile, &[CLOSED, source, 0, 4], libc::EBADF),
        (libc::SYS_sendfile, &[target, CLOSED, 0, 4], libc::EBADF),
        (libc::SYS_sendfile, &[0, source, 0, 4], libc::EBADF),
        (libc::SYS_sendfile, &[target, writer_only, 0, 4], libc::EBADF),
        (libc::SYS_sendfile, &[appending, source, 0, 4], libc::EINVAL),
        (libc::SYS_sendfile, &[target, reader, 0, 4], libc::EINVAL),
        (libc::SYS_sendfile, &[target, folder, 0, 4], libc::EINVAL),
        (libc::SYS_sendfile, &[target, source, NOWHERE, 4], libc::EFAULT),
    ]);
    assert_eq!(guest.contents(target), "");
}

#[test]
fn copy_file_range_copies_between_offsets_of_the_files_or_in_memory() {
    let mut guest = Guest::simple();
    let [source, target] = guest.source_and_target();
    assert_eq!(guest.ok(libc::SYS_copy_file_range, [source, 0, target, 0, 3, 0]), 3);
    assert_eq!((guest.offset(source), guest.offset(target)), (3, 3));
    let (from, to) = (guest.words(64, &[8]), guest.words(72, &[5]));
    assert_eq!(guest.ok(libc::SYS_copy_file_range, [source, from, target, to, 100, 0]), 2);
    assert_eq!((guest.word(from), guest.word(to)), (10, 7));
    assert_eq!((guest.offset(source), guest.offset(target)), (3, 3));
    assert_eq!(guest.contents(target), "012\0\089");
    // Within one file, as long as the two parts are apart.
    guest.words(64, &[0, 5]);
    assert_eq!(guest.ok(libc::SYS_copy_file_range, [source, from, source, to, 5, 0]), 5);
    assert_eq!(guest.contents(source), "0123401234");
    guest.words(64, &[0, 4]);
    guest.err(libc::SYS_copy_file_range, [source, from, source, to, 5, 0], libc::EINVAL);
}

#[test]
fn copy_file_range_is_for_regular_files() {
    let mut guest = Guest::simple();
    let [source, target] = guest.source_and_target();
    let appending = guest.open("/tmp/target", libc::O_WRONLY | libc::O_APPEND);
    let writer_only = guest.open("/tmp/source", libc::O_WRONLY);
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    let [_, writer] = guest.pipe(0);
    guest.fails(&[
        (libc::SYS_copy_file_range, &[CLOSED, 0, target, 0, 5, 0], libc::EBADF),
        (libc::SYS_copy_file_range, &[source, 0, CLOSED, 0, 5, 0], libc::EBADF),
        (libc::SYS_copy_file_range, &[source, 0, 0, 0, 5, 0], libc::EBADF),
        (libc::SYS_copy_file_range, &[writer_only, 0, target, 0, 5, 0], libc::EBADF),
        (libc::SYS_copy_file_range, &[source, 0, appending, 0, 5, 0], libc::EBADF),
        (libc::SYS_copy_file_range, &[folder, 0, target, 0, 5, 0], libc::EISDIR),
        (libc::SYS_copy_file_range, &[source, 0, folder, 0, 5, 0], libc::EISDIR),
        (libc::SYS_copy_file_range, &[source, 0, writer, 0, 5, 0], libc::EINVAL),
        (libc::SYS_copy_file_range, &[source, 0, target, 0, 5, 1], libc::EINVAL),
        (libc::SYS_copy_file_range, &[source, NOWHERE, target, 0, 5, 0], libc::EFAULT),
        (libc::SYS_copy_file_range, &[source, 0, target, NOWHERE, 5, 0], libc::EFAULT),
    ]);
    assert_eq!(guest.contents(target), "");
}

#[test]
fn a_rewind_takes_back_what_was_copied() {
    let mut guest = Guest::simple();
    let [source, target] = guest.source_and_target();
    guest.undoes("/tmp/target", |guest| {
        guest.ok(libc::SYS_sendfile, [target, source, 0, 4]);
        guest.ok(libc::SYS_copy_file_range, [source, 0, target, 0, 4, 0]);
        assert_eq!(guest.contents(target), "01234567");
    });
    assert_eq!((guest.contents(target), guest.offset(source)), (String::new(), 0));
}
