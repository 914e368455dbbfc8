//! `mmap` and `munmap`: where a mapping goes, what it shows, and who sees what is written to it.

use crate::address::Gva;
use crate::linux::abi::syscall::FaultAction;
use crate::linux::loader::spec::ProcessSpec;
use crate::linux::mm::bounds::ENGINE_RESERVE;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::tests::mock::memory::{ANONYMOUS, FIXED, READ_WRITE, SHARED};
use crate::linux::tests::mock::{Guest, PAGE};
use crate::outcome::{Access, Signal};

const PRIVATE: u64 = libc::MAP_PRIVATE as u64;
const SHARED_FILE: u64 = libc::MAP_SHARED as u64;

#[test]
fn maps_downwards_from_linuxs_base() {
    let mut guest = Guest::simple();
    let first = guest.map(0, 1, READ_WRITE, ANONYMOUS);
    let second = guest.map(0, 3, READ_WRITE, ANONYMOUS);
    assert_eq!(second + 3 * PAGE, first);
    assert_eq!(guest.word(second), 0);
}

#[test]
fn gives_fresh_zeros_after_unmapping() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 2, READ_WRITE, ANONYMOUS);
    guest.mem.write(Gva(at + PAGE), b"secret").unwrap();
    guest.ok(libc::SYS_munmap, [at, 2 * PAGE]);
    assert_eq!(guest.fault(at, Access::Read), FaultAction::Signal(Signal::SEGV));
    assert_eq!(guest.map(at, 2, READ_WRITE, FIXED), at);
    assert_eq!(guest.word(at + PAGE), 0);
}

#[test]
fn refuses_mappings_in_the_engines_reserve() {
    let mut guest = Guest::simple();
    let at = ENGINE_RESERVE.start;
    guest.err(libc::SYS_mmap, [at, PAGE, 3, FIXED, u64::MAX, 0], libc::ENOMEM);
    guest.err(libc::SYS_mmap, [at - PAGE, 2 * PAGE, 3, FIXED, u64::MAX, 0], libc::ENOMEM);
    let elsewhere = guest.map(at, 1, READ_WRITE, ANONYMOUS);
    assert!(!ENGINE_RESERVE.contains(&elsewhere), "a mere wish is not followed");
    guest.err(libc::SYS_mprotect, [at, PAGE, 3], libc::ENOMEM);
    guest.ok(libc::SYS_munmap, [at, PAGE]);
    let mapped = guest.map(0, 1, READ_WRITE, ANONYMOUS);
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
    guest.err(libc::SYS_mremap, [mapped, PAGE, PAGE, flags, at], libc::ENOMEM);
}

#[test]
fn checks_mmap_arguments_as_linux_does() {
    let mut guest = Guest::simple();
    let mut fails = |at, len, prot, flags, fd, offset, errno| {
        guest.err(libc::SYS_mmap, [at, len, prot, flags, fd, offset], errno);
    };
    fails(0, 0, 3, ANONYMOUS, 0, 0, libc::EINVAL);
    fails(0, u64::MAX, 3, ANONYMOUS, 0, 0, libc::ENOMEM);
    fails(0, 1 << 47, 3, ANONYMOUS, 0, 0, libc::ENOMEM);
    fails(1, PAGE, 3, FIXED, 0, 0, libc::EINVAL);
    fails(0, PAGE, 3, FIXED, 0, 0, libc::EPERM);
    fails(0, PAGE, 3, ANONYMOUS, 0, 1, libc::EINVAL);
    fails(0, PAGE, 3, libc::MAP_ANONYMOUS as u64, 0, 0, libc::EINVAL);
    fails(0, PAGE, 3, libc::MAP_PRIVATE as u64, 77, 0, libc::EBADF);
    fails(0, PAGE, 3, libc::MAP_SHARED as u64, 0, 0, libc::EACCES);
    fails(0, PAGE, 1, libc::MAP_PRIVATE as u64, 1, 0, libc::EACCES);
    let at = guest.map(0, 1, READ_WRITE, ANONYMOUS);
    let no_replace = ANONYMOUS | libc::MAP_FIXED_NOREPLACE as u64;
    guest.err(libc::SYS_mmap, [at, PAGE, 3, no_replace, 0, 0], libc::EEXIST);
}

#[test]
fn limits_the_number_of_mappings() {
    let mut spec = ProcessSpec::new("/bin/true");
    spec.limits.mappings = 40;
    let mut guest = Guest::load(&spec, b"");
    let mut made = 0;
    while guest.call(libc::SYS_mmap, [0, PAGE, 1 + made % 2 * 2, ANONYMOUS, 0, 0]) > 0 {
        made += 1;
        assert!(made < 100);
    }
    assert!(made > 10);
    guest.ok(libc::SYS_munmap, [guest.scratch, 16 * PAGE]);
    guest.map(0, 1, READ_WRITE, ANONYMOUS);
}

#[test]
fn shared_mappings_of_the_same_bytes_show_the_same_frames() {
    let mut guest = Guest::simple();
    let first = guest.map(0, 4, READ_WRITE, SHARED);
    let may_move = libc::MREMAP_MAYMOVE as u64;
    let second = guest.ok(libc::SYS_mremap, [first, 0, 4 * PAGE, may_move]);
    guest.mem.write(Gva(first + PAGE), b"seen").unwrap();
    assert_eq!(guest.get(second + PAGE, 4), b"seen");
    // One goes, wholly or in part: the other keeps what it shows.
    guest.ok(libc::SYS_munmap, [first, 3 * PAGE]);
    assert!(guest.mem.is_sound());
    assert_eq!(guest.get(second + PAGE, 4), b"seen");
    // Both go at once, with a mapping of the same bytes that never had its pages.
    guest.ok(libc::SYS_mprotect, [second, 4 * PAGE, 0]);
    let third = guest.ok(libc::SYS_mremap, [second, 0, 4 * PAGE, may_move]);
    assert_eq!(third + 4 * PAGE, second);
    guest.ok(libc::SYS_munmap, [third, second + 4 * PAGE - third]);
    guest.ok(libc::SYS_munmap, [first, 4 * PAGE]);
    assert!(guest.mem.is_sound());
    guest.err(libc::SYS_mremap, [third, 0, PAGE, may_move], libc::EFAULT);
}

#[test]
fn writes_through_a_shared_mapping_reach_the_file() {
    let mut guest = Guest::simple();
    let fd = guest.open("/tmp/file", libc::O_RDWR | libc::O_CREAT);
    let text = guest.put(0x100, b"0123456789");
    guest.ok(libc::SYS_write, [fd, text, 10]);
    let shared = libc::MAP_SHARED as u64;
    let at = guest.ok(libc::SYS_mmap, [0, 2 * PAGE, READ_WRITE, shared, fd, 0]);
    guest.mem.write(Gva(at + 2), b"ab").unwrap();
    let out = guest.scratch + 0x200;
    guest.ok(libc::SYS_pread64, [fd, out, 10, 0]);
    assert_eq!(guest.get(out, 10), b"01ab456789");
    guest.ok(libc::SYS_pwrite64, [fd, text, 3, 0]);
    assert_eq!(guest.get(at, 5), b"012b4");
    // A call that stores into the mapping has stored into the file.
    guest.ok(libc::SYS_pread64, [fd, at + 5, 3, 0]);
    assert_eq!(guest.get(at, 10), b"012b401289");
    let snapshot = guest.process.clone();
    guest.ok(libc::SYS_ftruncate, [fd, 0]);
    assert_eq!(guest.fault(at, Access::Read), FaultAction::Signal(Signal::BUS));
    guest.ok(libc::SYS_munmap, [at, 2 * PAGE]);
    guest.process.rewind_to(&snapshot);
    assert_eq!(guest.process.same_as(&snapshot), Vec::<String>::new());
    assert!(guest.mem.is_sound());
}

#[test]
fn a_free_address_that_is_wished_for_is_taken_and_another_is_not() {
    let mut guest = Guest::simple();
    let wish = 0x1234_5000;
    assert_eq!(guest.map(wish + 1, 1, READ_WRITE, ANONYMOUS), wish, "rounded down");
    assert_ne!(guest.map(wish, 1, READ_WRITE, ANONYMOUS), wish);
    let low = guest.map(0, 1, READ_WRITE, ANONYMOUS | libc::MAP_32BIT as u64);
    assert!((0x4000_0000..0x8000_0000).contains(&low), "{low:#x}");
}

#[test]
fn a_private_mapping_of_a_file_keeps_what_is_written_to_itself() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "0123456789");
    let at = guest.ok(libc::SYS_mmap, [0, 5, READ_WRITE, PRIVATE, fd, 0]);
    assert_eq!(guest.get(at, 12), b"0123456789\0\0", "whole pages, zeros beyond the end");
    guest.mem.write(Gva(at), b"mine").unwrap();
    assert_eq!(guest.contents(fd), "0123456789");
    guest.ok(libc::SYS_close, [fd]);
    assert_eq!(guest.get(at, 6), b"mine45", "it needs no descriptor");
}

#[test]
fn a_mapping_starts_at_its_offset_in_the_file() {
    let mut guest = Guest::simple();
    let fd = guest.make("/tmp/f", "start");
    let text = guest.put(0, b"second page");
    guest.ok(libc::SYS_pwrite64, [fd, text, 11, PAGE]);
    let at = guest.ok(libc::SYS_mmap, [0, PAGE, 1, PRIVATE, fd, PAGE]);
    assert_eq!(guest.get(at, 11), b"second page");
    guest.fails(&[
        (libc::SYS_mmap, &[0, PAGE, 1, PRIVATE, fd, 1], libc::EINVAL),
        (libc::SYS_mmap, &[0, PAGE, 1, PRIVATE, fd, -(PAGE as i64) as u64], libc::EOVERFLOW),
    ]);
}

#[test]
fn what_is_mapped_must_be_open_for_it() {
    let mut guest = Guest::simple();
    guest.make("/tmp/f", "text");
    let reader = guest.open("/tmp/f", libc::O_RDONLY);
    let writer = guest.open("/tmp/f", libc::O_WRONLY);
    let path_only = guest.open("/tmp/f", libc::O_PATH);
    let folder = guest.open("/tmp", libc::O_DIRECTORY);
    let [pipe, _] = guest.pipe(0);
    let (validated, sync) = (libc::MAP_SHARED_VALIDATE as u64, libc::MAP_SYNC as u64);
    guest.fails(&[
        (libc::SYS_mmap, &[0, PAGE, 1, PRIVATE, writer, 0], libc::EACCES),
        (libc::SYS_mmap, &[0, PAGE, 3, SHARED_FILE, reader, 0], libc::EACCES),
        (libc::SYS_mmap, &[0, PAGE, 1, PRIVATE, path_only, 0], libc::EBADF),
        (libc::SYS_mmap, &[0, PAGE, 1, PRIVATE, folder, 0], libc::ENODEV),
        (libc::SYS_mmap, &[0, PAGE, 1, PRIVATE, pipe, 0], libc::ENODEV),
        (libc::SYS_mmap, &[0, PAGE, 1, 0, reader, 0], libc::EINVAL),
        (libc::SYS_mmap, &[0, PAGE, 1, validated | sync, reader, 0], libc::EOPNOTSUPP),
    ]);
    let private = guest.ok(libc::SYS_mmap, [0, PAGE, READ_WRITE, PRIVATE, reader, 0]);
    guest.mem.write(Gva(private), b"mine").unwrap();
    guest.ok(libc::SYS_mmap, [0, PAGE, 1, validated, reader, 0]);
}

#[test]
fn a_mapping_of_zero_bytes_from_the_device_is_anonymous() {
    let mut guest = Guest::simple();
    let fd = guest.open("/dev/zero", libc::O_RDWR);
    let at = guest.ok(libc::SYS_mmap, [0, PAGE, READ_WRITE, PRIVATE, fd, 0]);
    assert_eq!(guest.word(at), 0);
    guest.mem.write(Gva(at), b"mine").unwrap();
    let other = guest.ok(libc::SYS_mmap, [0, PAGE, READ_WRITE, PRIVATE, fd, 0]);
    assert_eq!(guest.word(other), 0);
}

#[test]
fn unmapping_takes_whole_pages_and_cuts_what_it_meets() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 4, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_munmap, [at + PAGE, 1]);
    assert_eq!(guest.fault(at + PAGE, Access::Read), FaultAction::Signal(Signal::SEGV));
    for kept in [0, 2, 3] {
        assert!(guest.mem.allows(Gva(at + kept * PAGE), Access::Write));
    }
    guest.ok(libc::SYS_munmap, [at, 4 * PAGE]);
    guest.ok(libc::SYS_munmap, [at, 4 * PAGE]);
    guest.fails(&[
        (libc::SYS_munmap, &[at, 0], libc::EINVAL),
        (libc::SYS_munmap, &[at + 1, PAGE], libc::EINVAL),
        (libc::SYS_munmap, &[at, u64::MAX], libc::EINVAL),
        (libc::SYS_munmap, &[-(PAGE as i64) as u64, PAGE], libc::EINVAL),
    ]);
}

#[test]
fn a_length_from_a_broken_header_is_refused_and_a_reservation_is_not() {
    let mut guest = Guest::simple();
    let huge = 17 << 30;
    guest.err(libc::SYS_mmap, [0, huge, READ_WRITE, ANONYMOUS, u64::MAX, 0], libc::ENOMEM);
    let reserve = ANONYMOUS | libc::MAP_NORESERVE as u64;
    guest.ok(libc::SYS_mmap, [0, huge, READ_WRITE, reserve, u64::MAX, 0]);
    guest.ok(libc::SYS_mmap, [0, huge, 0, ANONYMOUS, u64::MAX, 0]);
}

#[test]
fn a_rewind_takes_back_mappings_and_the_images_in_them() {
    let mut guest = Guest::simple();
    let fd = guest.open("/bin/true", libc::O_RDONLY);
    guest.undoes("mapping", |guest| guest.map(0, 1, READ_WRITE, ANONYMOUS));
    guest.undoes("mapping", |guest| guest.ok(libc::SYS_munmap, [guest.scratch, PAGE]));
    guest.undoes("mapping", |guest| {
        guest.map(guest.scratch, 1, READ_WRITE, SHARED | libc::MAP_FIXED as u64)
    });
    let images = guest.process.images().len();
    guest.undoes("mapped images", |guest| {
        guest.ok(libc::SYS_mmap, [0, PAGE, 1, PRIVATE, fd, 0]);
        assert_eq!(guest.process.images().len(), images + 1);
    });
    assert_eq!(guest.process.images().len(), images);
}
