//! residency.

use crate::address::Gva;
use crate::linux::abi::syscall::FaultAction;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::tests::mock::memory::*;
use crate::linux::tests::mock::{Guest, PAGE};
use crate::outcome::Access;

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
