//! Which pages are there: `madvise`, `mincore`, `msync` and the locks.

use crate::address::Gva;
use crate::linux::abi::syscall::FaultAction;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::tests::mock::memory::{ANONYMOUS, READ_WRITE, SHARED};
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};
use crate::outcome::Access;

const DONT_NEED: u64 = libc::MADV_DONTNEED as u64;
const FREE: u64 = libc::MADV_FREE as u64;
const REMOVE: u64 = libc::MADV_REMOVE as u64;
const POPULATE_READ: u64 = libc::MADV_POPULATE_READ as u64;
const POPULATE_WRITE: u64 = libc::MADV_POPULATE_WRITE as u64;
const INVALIDATE: u64 = libc::MS_INVALIDATE as u64;
const ON_FAULT: u64 = libc::MLOCK_ONFAULT as u64;
const CURRENT: u64 = libc::MCL_CURRENT as u64;
const FUTURE: u64 = libc::MCL_FUTURE as u64;
/// Pages of a mapping that gets them one by one, when they are touched.
const MANY: u64 = 1024;

impl Guest {
    /// Which of a mapping's first pages are there.
    fn resident<const N: usize>(&mut self, at: u64) -> [bool; N] {
        let out = self.at(4);
        self.ok(libc::SYS_mincore, [at, N as u64 * PAGE, out]);
        let states = self.get(out, N);
        std::array::from_fn(|i| states[i] & 1 == 1)
    }
}

#[test]
fn discards_to_zeros_and_to_file_contents() {
    let mut guest = Guest::simple();
    for pages in [2, 100] {
        let at = guest.map(0, pages, READ_WRITE, ANONYMOUS);
        guest.mem.write(Gva(at + PAGE), b"old").unwrap();
        guest.ok(libc::SYS_madvise, [at, pages * PAGE, libc::MADV_DONTNEED as u64]);
        assert_eq!(guest.fault(at + PAGE, Access::Write), FaultAction::Retry);
        assert_eq!(guest.word(at + PAGE), 0);
    }
    let at = guest.ok(libc::SYS_mmap, [0, PAGE, 3, libc::MAP_PRIVATE as u64, 0, 0]);
    assert_eq!(guest.get(at, 8), b"input\0\0\0");
    guest.mem.write(Gva(at), b"INPUT").unwrap();
    guest.ok(libc::SYS_madvise, [at, PAGE, libc::MADV_DONTNEED as u64]);
    assert_eq!(guest.get(at, 8), b"input\0\0\0");
}

#[test]
fn mincore_tells_the_pages_that_were_touched() {
    let mut guest = Guest::simple();
    let at = guest.map(0, MANY, READ_WRITE, ANONYMOUS);
    assert_eq!(guest.resident(at), [false; 3]);
    guest.fault(at, Access::Write);
    assert!(guest.resident::<1>(at)[0]);
    let last = at + (MANY - 1) * PAGE;
    assert_eq!(guest.resident(last), [false]);
    let fd = guest.make("/tmp/f", "text");
    let shared = libc::MAP_SHARED as u64;
    let file = guest.ok(libc::SYS_mmap, [0, 2 * PAGE, 1, shared, fd, 0]);
    assert_eq!(guest.resident(file), [true, false], "as far as the file goes");
}

#[test]
fn mincore_checks_its_arguments_as_linux_does() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 3, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_munmap, [at + 2 * PAGE, PAGE]);
    let out = guest.at(4);
    guest.fails(&[
        (libc::SYS_mincore, &[at + 1, PAGE, out], libc::EINVAL),
        (libc::SYS_mincore, &[at, PAGE, NOWHERE], libc::EFAULT),
        (libc::SYS_mincore, &[at, 3 * PAGE, out], libc::ENOMEM),
        (libc::SYS_mincore, &[-(PAGE as i64) as u64, 2 * PAGE, out], libc::ENOMEM),
    ]);
    assert_eq!(guest.ok(libc::SYS_mincore, [at, 0, NOWHERE]), 0);
}

#[test]
fn advice_is_checked_as_linux_does() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 3, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_munmap, [at + 2 * PAGE, PAGE]);
    guest.fails(&[
        (libc::SYS_madvise, &[at, PAGE, 1234], libc::EINVAL),
        (libc::SYS_madvise, &[at, 0, 1234], libc::EINVAL),
        (libc::SYS_madvise, &[at + 1, PAGE, DONT_NEED], libc::EINVAL),
        (libc::SYS_madvise, &[at, u64::MAX, DONT_NEED], libc::EINVAL),
        (libc::SYS_madvise, &[at, PAGE, REMOVE], libc::EINVAL),
        (libc::SYS_madvise, &[at, PAGE, libc::MADV_HWPOISON as u64], libc::EPERM),
        (libc::SYS_madvise, &[at, 3 * PAGE, DONT_NEED], libc::ENOMEM),
        (libc::SYS_madvise, &[at, 3 * PAGE, POPULATE_WRITE], libc::ENOMEM),
        (libc::SYS_madvise, &[NOWHERE, PAGE, DONT_NEED], libc::ENOMEM),
    ]);
    guest.ok(libc::SYS_madvise, [at, 0, DONT_NEED]);
    for harmless in [
        libc::MADV_NORMAL,
        libc::MADV_RANDOM,
        libc::MADV_SEQUENTIAL,
        libc::MADV_WILLNEED,
        libc::MADV_HUGEPAGE,
        libc::MADV_DONTDUMP,
        libc::MADV_COLD,
    ] {
        guest.mem.write(Gva(at), b"kept").unwrap();
        guest.ok(libc::SYS_madvise, [at, PAGE, harmless as u64]);
        assert_eq!(guest.get(at, 4), b"kept");
    }
}

#[test]
fn what_is_advised_on_is_advised_on_even_where_a_hole_makes_the_call_fail() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 3, READ_WRITE, ANONYMOUS);
    guest.mem.write(Gva(at + 2 * PAGE), b"old").unwrap();
    guest.ok(libc::SYS_munmap, [at + PAGE, PAGE]);
    guest.err(libc::SYS_madvise, [at, 3 * PAGE, DONT_NEED], libc::ENOMEM);
    assert_eq!(guest.fault(at + 2 * PAGE, Access::Read), FaultAction::Retry);
    assert_eq!(guest.word(at + 2 * PAGE), 0);
}

#[test]
fn pages_are_brought_in_at_once_where_the_mapping_allows_it() {
    let mut guest = Guest::simple();
    let at = guest.map(0, MANY, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_madvise, [at + PAGE, PAGE, POPULATE_WRITE]);
    assert_eq!(guest.resident(at), [false, true, false]);
    guest.ok(libc::SYS_mprotect, [at, PAGE, 1]);
    guest.ok(libc::SYS_madvise, [at, PAGE, POPULATE_READ]);
    guest.err(libc::SYS_madvise, [at, PAGE, POPULATE_WRITE], libc::EINVAL);
    guest.ok(libc::SYS_mprotect, [at, PAGE, 0]);
    guest.err(libc::SYS_madvise, [at, PAGE, POPULATE_READ], libc::EINVAL);
    let past_the_end = guest.ok(libc::SYS_mmap, [0, 2 * PAGE, 1, libc::MAP_SHARED as u64, 0, 0]);
    guest.err(libc::SYS_madvise, [past_the_end, 2 * PAGE, POPULATE_READ], libc::EFAULT);
}

#[test]
fn shared_memory_is_punched_for_everyone_and_forgotten_for_nobody() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 1, READ_WRITE, SHARED);
    let may_move = libc::MREMAP_MAYMOVE as u64;
    let other = guest.ok(libc::SYS_mremap, [at, 0, PAGE, may_move]);
    guest.mem.write(Gva(at), b"shared").unwrap();
    guest.ok(libc::SYS_madvise, [at, PAGE, DONT_NEED]);
    guest.fault(at, Access::Read);
    assert_eq!(guest.get(at, 6), b"shared");
    guest.err(libc::SYS_madvise, [at, PAGE, FREE], libc::EINVAL);
    guest.ok(libc::SYS_madvise, [at, PAGE, REMOVE]);
    assert_eq!(guest.word(other), 0);
}

#[test]
fn a_file_is_synchronised_with_its_mapping_at_any_time() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "text");
    let shared = libc::MAP_SHARED as u64;
    let at = guest.ok(libc::SYS_mmap, [0, PAGE, READ_WRITE, shared, fd, 0]);
    guest.mem.write(Gva(at), b"T").unwrap();
    for flags in [0, libc::MS_ASYNC, libc::MS_SYNC, libc::MS_SYNC | libc::MS_INVALIDATE] {
        guest.ok(libc::SYS_msync, [at, PAGE, flags as u64]);
    }
    assert_eq!(guest.contents(fd), "Text");
    guest.ok(libc::SYS_msync, [NOWHERE, 0, 0]);
    let hole = guest.map(0, 3, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_munmap, [hole + PAGE, PAGE]);
    guest.fails(&[
        (libc::SYS_msync, &[at, PAGE, 5], libc::EINVAL),
        (libc::SYS_msync, &[at, PAGE, 8], libc::EINVAL),
        (libc::SYS_msync, &[at + 1, PAGE, 0], libc::EINVAL),
        (libc::SYS_msync, &[hole, 3 * PAGE, 0], libc::ENOMEM),
        (libc::SYS_msync, &[at, u64::MAX, 0], libc::ENOMEM),
    ]);
}

#[test]
fn locked_pages_are_there_and_stay() {
    let mut guest = Guest::simple();
    let at = guest.map(0, MANY, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_mlock, [at, 2 * PAGE]);
    assert_eq!(guest.resident(at), [true, true, false]);
    guest.ok(libc::SYS_mlock2, [at + 2 * PAGE, PAGE, ON_FAULT]);
    assert_eq!(guest.resident(at), [true, true, false], "locked when it comes");
    guest.fails(&[
        (libc::SYS_madvise, &[at, PAGE, DONT_NEED], libc::EINVAL),
        (libc::SYS_madvise, &[at, PAGE, FREE], libc::EINVAL),
        (libc::SYS_msync, &[at, PAGE, INVALIDATE], libc::EBUSY),
    ]);
    guest.ok(libc::SYS_munlock, [at, 3 * PAGE]);
    guest.ok(libc::SYS_madvise, [at, PAGE, DONT_NEED]);
}

#[test]
fn locks_are_bounded_and_checked_as_linux_does() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 4 * MANY, READ_WRITE, ANONYMOUS);
    let hole = guest.map(0, 3, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_munmap, [hole + PAGE, PAGE]);
    guest.fails(&[
        (libc::SYS_mlock, &[at, (8 << 20) + 1], libc::ENOMEM),
        (libc::SYS_mlock, &[hole, 3 * PAGE], libc::ENOMEM),
        (libc::SYS_mlock2, &[at, PAGE, 2], libc::EINVAL),
        (libc::SYS_munlock, &[hole, 3 * PAGE], libc::ENOMEM),
        (libc::SYS_mlockall, &[0], libc::EINVAL),
        (libc::SYS_mlockall, &[8], libc::EINVAL),
        (libc::SYS_mlockall, &[libc::MCL_ONFAULT as u64], libc::EINVAL),
        (libc::SYS_mlockall, &[CURRENT], libc::ENOMEM),
    ]);
    let none = guest.words(0, &[0, 0]);
    guest.ok(libc::SYS_setrlimit, [libc::RLIMIT_MEMLOCK.into(), none]);
    guest.err(libc::SYS_mlock, [at, PAGE], libc::EPERM);
    guest.err(libc::SYS_mlockall, [FUTURE], libc::EPERM);
}

#[test]
fn what_is_mapped_after_all_is_locked_is_locked_too() {
    let mut guest = Guest::simple();
    guest.ok(libc::SYS_mlockall, [FUTURE]);
    let at = guest.map(0, 2, READ_WRITE, ANONYMOUS);
    assert_eq!(guest.resident(at), [true, true]);
    guest.err(libc::SYS_madvise, [at, PAGE, DONT_NEED], libc::EINVAL);
    let too_much = (8 << 20) + PAGE;
    guest.err(libc::SYS_mmap, [0, too_much, 3, ANONYMOUS, u64::MAX, 0], libc::EAGAIN);
    guest.ok(libc::SYS_munlockall, []);
    guest.ok(libc::SYS_madvise, [at, PAGE, DONT_NEED]);
    let later = guest.map(0, 1, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_madvise, [later, PAGE, DONT_NEED]);
}

#[test]
fn a_rewind_takes_locks_back() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 4, READ_WRITE, ANONYMOUS);
    guest.undoes("mapping", |guest| guest.ok(libc::SYS_mlock, [at, PAGE]));
    guest.undoes("was", |guest| guest.ok(libc::SYS_mlockall, [FUTURE]));
    guest.ok(libc::SYS_madvise, [at, PAGE, DONT_NEED]);
    let later = guest.map(0, 1, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_madvise, [later, PAGE, DONT_NEED]);
}
