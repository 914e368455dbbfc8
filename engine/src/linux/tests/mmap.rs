//! mmap.

use crate::address::Gva;
use crate::linux::abi::syscall::FaultAction;
use crate::linux::loader::spec::ProcessSpec;
use crate::linux::mm::bounds::ENGINE_RESERVE;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::tests::mock::memory::*;
use crate::linux::tests::mock::{Guest, PAGE};
use crate::outcome::{Access, Signal};

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
