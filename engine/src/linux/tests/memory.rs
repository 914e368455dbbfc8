//! memory.

use crate::address::Gva;
use crate::linux::abi::syscall::FaultAction;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::tests::mock::memory::*;
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};
use crate::outcome::{Access, Signal};

#[test]
fn protects_up_to_a_hole() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 4, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_munmap, [at + 2 * PAGE, PAGE]);
    guest.err(libc::SYS_mprotect, [at, 4 * PAGE, 1], libc::ENOMEM);
    assert!(!guest.mem.allows(Gva(at), Access::Write));
    assert!(guest.mem.allows(Gva(at + 3 * PAGE), Access::Write), "beyond the hole");
    guest.err(libc::SYS_mprotect, [at + 1, PAGE, 1], libc::EINVAL);
    guest.err(libc::SYS_mprotect, [at, PAGE, 0x10], libc::EINVAL);
    guest.ok(libc::SYS_mprotect, [at, 0, 1]);
    assert_eq!(guest.fault(at, Access::Write), FaultAction::Signal(Signal::SEGV));
}

#[test]
fn keeps_contents_through_prot_none() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 1, READ_WRITE, ANONYMOUS);
    guest.mem.write(Gva(at), b"kept").unwrap();
    guest.ok(libc::SYS_mprotect, [at, PAGE, 0]);
    assert_eq!(guest.fault(at, Access::Read), FaultAction::Signal(Signal::SEGV));
    guest.err(libc::SYS_uname, [at], libc::EFAULT);
    guest.ok(libc::SYS_mprotect, [at, PAGE, READ_WRITE]);
    assert_eq!(guest.get(at, 4), b"kept");
}

#[test]
fn grows_moves_and_shrinks_mappings() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 4, READ_WRITE, ANONYMOUS);
    guest.mem.write(Gva(at + 3 * PAGE), b"tail").unwrap();
    guest.err(libc::SYS_mremap, [at, 4 * PAGE, 8 * PAGE, 0], libc::ENOMEM);
    let may_move = libc::MREMAP_MAYMOVE as u64;
    let moved = guest.ok(libc::SYS_mremap, [at, 4 * PAGE, 8 * PAGE, may_move]);
    assert_ne!(moved, at);
    assert_eq!(guest.get(moved + 3 * PAGE, 4), b"tail");
    assert_eq!(guest.word(moved + 7 * PAGE), 0);
    assert_eq!(guest.fault(at, Access::Read), FaultAction::Signal(Signal::SEGV));
    assert_eq!(guest.ok(libc::SYS_mremap, [moved, 8 * PAGE, 2 * PAGE, 0]), moved);
    let gone = moved + 2 * PAGE;
    assert_eq!(guest.fault(gone, Access::Read), FaultAction::Signal(Signal::SEGV));
    assert_eq!(guest.ok(libc::SYS_mremap, [moved, 2 * PAGE, 4 * PAGE, 0]), moved, "in place");
    let to = 0x10_0000;
    let fixed = may_move | libc::MREMAP_FIXED as u64;
    assert_eq!(guest.ok(libc::SYS_mremap, [moved, 4 * PAGE, PAGE, fixed, to]), to);
    guest.err(libc::SYS_mremap, [moved, PAGE, PAGE, may_move], libc::EFAULT);
    guest.err(libc::SYS_mremap, [to, PAGE, PAGE, fixed, to], libc::EINVAL);
}

#[test]
fn moves_the_program_break() {
    let mut guest = Guest::simple();
    let start = guest.ok(libc::SYS_brk, [0]);
    assert_eq!(guest.ok(libc::SYS_brk, [start + 10_000]), start + 10_000);
    guest.mem.write(Gva(start), b"heap").unwrap();
    assert_eq!(guest.ok(libc::SYS_brk, [start]), start);
    assert_eq!(guest.fault(start, Access::Read), FaultAction::Signal(Signal::SEGV));
    guest.ok(libc::SYS_brk, [start + 10_000]);
    assert_eq!(guest.word(start), 0);
    assert_eq!(guest.ok(libc::SYS_brk, [u64::MAX]), start + 10_000, "refused");
    assert_eq!(guest.ok(libc::SYS_brk, [NOWHERE]), start + 10_000, "refused");
}
