//! Transfers in parts: `readv`, `writev` and their relatives.

use crate::linux::tests::mock::{CLOSED, Guest, NOWHERE, PAGE};

/// What `RWF_HIPRI` to `RWF_NOWAIT` are not.
const UNKNOWN_FLAG: u64 = 0x10_0000;

impl Guest {
    /// Parts of a transfer, each an address and a length.
    fn parts(&mut self, parts: &[[u64; 2]]) -> u64 {
        self.words(0, &parts.concat())
    }
}

#[test]
fn transfers_vectors() {
    let mut guest = Guest::simple();
    let (first, second) = (guest.scratch + PAGE, guest.scratch + 2 * PAGE);
    let mut parts = Vec::new();
    for word in [first, 2, second, 100] {
        parts.extend(word.to_le_bytes());
    }
    let vector = guest.put(0, &parts);
    assert_eq!(guest.ok(libc::SYS_readv, [0, vector, 2]), 5);
    assert_eq!((guest.get(first, 2), guest.get(second, 3)), (b"in".to_vec(), b"put".to_vec()));
    assert_eq!(guest.ok(libc::SYS_writev, [1, vector, 1]), 2);
    assert_eq!(guest.process.stdout(), b"in");
    guest.err(libc::SYS_writev, [1, vector, 1025], libc::EINVAL);
    guest.put(8, &u64::MAX.to_le_bytes());
    guest.err(libc::SYS_writev, [1, vector, 1], libc::EINVAL);
    guest.err(libc::SYS_writev, [1, NOWHERE, 1], libc::EFAULT);
}

#[test]
fn parts_are_filled_one_after_the_other_and_written_in_their_order() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "0123456789");
    let (first, second) = (guest.at(4), guest.at(5));
    let parts = guest.parts(&[[first, 2], [NOWHERE, 0], [second, 3]]);
    assert_eq!(guest.ok(libc::SYS_preadv, [fd, parts, 3, 4]), 5);
    assert_eq!((guest.get(first, 2), guest.get(second, 3)), (b"45".to_vec(), b"678".to_vec()));
    assert_eq!(guest.offset(fd), 10);
    assert_eq!(guest.ok(libc::SYS_pwritev, [fd, parts, 3, 0]), 5);
    assert_eq!((guest.contents(fd), guest.offset(fd)), ("4567856789".to_owned(), 10));
    assert_eq!(guest.ok(libc::SYS_preadv, [fd, parts, 3, 8]), 2, "up to the end");
    assert_eq!(guest.ok(libc::SYS_readv, [fd, NOWHERE, 0]), 0, "no parts");
}

#[test]
fn the_second_forms_take_minus_one_for_the_files_own_offset() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "0123456789");
    guest.seek(fd, 1);
    let out = guest.at(4);
    let parts = guest.parts(&[[out, 3]]);
    assert_eq!(guest.ok(libc::SYS_preadv2, [fd, parts, 1, u64::MAX, 0, 0]), 3);
    assert_eq!((guest.get(out, 3), guest.offset(fd)), (b"123".to_vec(), 4));
    assert_eq!(guest.ok(libc::SYS_preadv2, [fd, parts, 1, 7, 0, 0]), 3);
    assert_eq!((guest.get(out, 3), guest.offset(fd)), (b"789".to_vec(), 4));
    let sync = libc::RWF_SYNC as u64;
    assert_eq!(guest.ok(libc::SYS_pwritev2, [fd, parts, 1, u64::MAX, 0, sync]), 3);
    assert_eq!(guest.ok(libc::SYS_pwritev2, [fd, parts, 1, 0, 0, 0]), 3);
    assert_eq!((guest.contents(fd), guest.offset(fd)), ("7893789789".to_owned(), 7));
    guest.fails(&[
        (libc::SYS_preadv2, &[fd, parts, 1, 0, 0, UNKNOWN_FLAG], libc::EOPNOTSUPP),
        (libc::SYS_pwritev2, &[fd, parts, 1, 0, 0, UNKNOWN_FLAG], libc::EOPNOTSUPP),
        (libc::SYS_preadv2, &[fd, parts, 1, u64::MAX - 1, 0, 0], libc::EINVAL),
    ]);
}

#[test]
fn a_part_that_is_nowhere_ends_a_transfer_at_what_came_before() {
    let mut guest = Guest::simple();
    let out = guest.at(4);
    let parts = guest.parts(&[[out, 2], [NOWHERE, 5]]);
    assert_eq!(guest.ok(libc::SYS_readv, [0, parts, 2]), 2);
    assert_eq!(guest.offset(0), 2);
    guest.err(libc::SYS_readv, [0, parts + 16, 1], libc::EFAULT);
    guest.err(libc::SYS_writev, [1, parts + 16, 1], libc::EFAULT);
    assert_eq!(guest.ok(libc::SYS_writev, [1, parts, 2]), 2);
    assert_eq!(guest.process.stdout(), b"in");
}

#[test]
fn a_list_of_parts_is_checked_before_anything_moves() {
    let mut guest = Guest::simple();
    let out = guest.at(4);
    let parts = guest.parts(&[[out, 1], [out, u64::MAX]]);
    let [reader, writer] = guest.pipe(0);
    guest.fails(&[
        (libc::SYS_readv, &[0, parts, 2], libc::EINVAL),
        (libc::SYS_readv, &[0, parts, 1025], libc::EINVAL),
        (libc::SYS_readv, &[0, parts, u64::MAX], libc::EINVAL),
        (libc::SYS_readv, &[0, NOWHERE, 1], libc::EFAULT),
        (libc::SYS_readv, &[CLOSED, NOWHERE, 1], libc::EBADF),
        (libc::SYS_readv, &[1, NOWHERE, 1], libc::EBADF),
        (libc::SYS_writev, &[0, NOWHERE, 1], libc::EBADF),
        (libc::SYS_preadv, &[0, parts, 1, u64::MAX], libc::EINVAL),
        (libc::SYS_preadv, &[reader, parts, 1, 0], libc::ESPIPE),
        (libc::SYS_pwritev, &[writer, parts, 1, 0], libc::ESPIPE),
        (libc::SYS_pwritev, &[0, parts, 1, 0], libc::EBADF),
        (libc::SYS_preadv2, &[reader, parts, 1, 0], libc::ESPIPE),
    ]);
    assert_eq!(guest.offset(0), 0);
}

#[test]
fn a_rewind_takes_back_a_transfer_in_parts() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "before");
    let text = guest.put(PAGE, b"after ");
    let parts = guest.parts(&[[text, 2], [text + 2, 4]]);
    guest.undoes("/tmp/f", |guest| assert_eq!(guest.ok(libc::SYS_pwritev, [fd, parts, 2, 3]), 6));
    assert_eq!(guest.contents(fd), "before");
}
