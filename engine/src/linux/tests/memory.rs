//! `brk`, `mprotect`, `mremap`, `membarrier` and protection keys.

use crate::address::Gva;
use crate::linux::abi::syscall::FaultAction;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::tests::mock::memory::{ANONYMOUS, READ_WRITE};
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};
use crate::outcome::{Access, Signal};

const MAY_MOVE: u64 = libc::MREMAP_MAYMOVE as u64;
const DONT_UNMAP: u64 = 4;
const GROWS_DOWN: u64 = 0x0100_0000;
const GROWS_UP: u64 = 0x0200_0000;

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

#[test]
fn the_break_obeys_the_limit_on_data() {
    let mut guest = Guest::simple();
    let start = guest.ok(libc::SYS_brk, [0]);
    let limit = guest.words(0, &[1 << 20, u64::MAX]);
    guest.ok(libc::SYS_setrlimit, [libc::RLIMIT_DATA.into(), limit]);
    assert_eq!(guest.ok(libc::SYS_brk, [start + (2 << 20)]), start, "refused");
    assert!(guest.ok(libc::SYS_brk, [start + PAGE]) > start);
}

#[test]
fn protecting_checks_its_arguments_as_linux_does() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 2, READ_WRITE, ANONYMOUS);
    guest.fails(&[
        (libc::SYS_mprotect, &[at + 1, PAGE, 1], libc::EINVAL),
        (libc::SYS_mprotect, &[at, PAGE, 0x10], libc::EINVAL),
        (libc::SYS_mprotect, &[at, PAGE, 1 | GROWS_DOWN | GROWS_UP], libc::EINVAL),
        (libc::SYS_mprotect, &[at, PAGE, 1 | GROWS_DOWN], libc::EINVAL),
        (libc::SYS_mprotect, &[at, u64::MAX, 1], libc::ENOMEM),
        (libc::SYS_mprotect, &[NOWHERE, PAGE, 1], libc::ENOMEM),
        (libc::SYS_mprotect, &[1 << 63, PAGE, 1], libc::ENOMEM),
    ]);
    assert!(guest.mem.allows(Gva(at), Access::Write), "nothing has changed");
    let sem = 8;
    guest.ok(libc::SYS_mprotect, [at, PAGE, 1 | sem]);
    assert!(!guest.mem.allows(Gva(at), Access::Write));
}

#[test]
fn the_whole_stack_is_protected_by_one_of_its_pages() {
    let mut guest = Guest::simple();
    let page = guest.start.rsp & !(PAGE - 1);
    guest.ok(libc::SYS_mprotect, [page, PAGE, 1 | GROWS_DOWN]);
    assert!(!guest.mem.allows(Gva(page), Access::Write));
    assert_eq!(guest.fault(page - PAGE, Access::Write), FaultAction::Signal(Signal::SEGV));
}

#[test]
fn there_are_no_protection_keys() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 1, READ_WRITE, ANONYMOUS);
    guest.err(libc::SYS_pkey_alloc, [0, 0], libc::EINVAL);
    guest.err(libc::SYS_pkey_free, [0], libc::EINVAL);
    guest.err(libc::SYS_pkey_mprotect, [at, PAGE, 1, 5], libc::EINVAL);
    assert!(guest.mem.allows(Gva(at), Access::Write));
    guest.ok(libc::SYS_pkey_mprotect, [at, PAGE, 1, u64::MAX]);
    assert!(!guest.mem.allows(Gva(at), Access::Write), "no key: as mprotect");
}

#[test]
fn remapping_checks_its_arguments_as_linux_does() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 3, READ_WRITE, ANONYMOUS);
    guest.ok(libc::SYS_munmap, [at + 2 * PAGE, PAGE]);
    let fixed = libc::MREMAP_FIXED as u64;
    guest.fails(&[
        (libc::SYS_mremap, &[at, PAGE, 0, MAY_MOVE], libc::EINVAL),
        (libc::SYS_mremap, &[at + 1, PAGE, PAGE, 0], libc::EINVAL),
        (libc::SYS_mremap, &[at, PAGE, PAGE, 8], libc::EINVAL),
        (libc::SYS_mremap, &[at, PAGE, PAGE, fixed, at], libc::EINVAL),
        (libc::SYS_mremap, &[at, PAGE, PAGE, fixed | MAY_MOVE, at + 1], libc::EINVAL),
        (libc::SYS_mremap, &[at, PAGE, 2 * PAGE, DONT_UNMAP | MAY_MOVE], libc::EINVAL),
        (libc::SYS_mremap, &[NOWHERE, PAGE, 2 * PAGE, MAY_MOVE], libc::EFAULT),
        (libc::SYS_mremap, &[at, 3 * PAGE, 4 * PAGE, MAY_MOVE], libc::EFAULT),
    ]);
    assert_eq!(guest.word(at), 0);
}

#[test]
fn a_mapping_that_is_moved_and_kept_leaves_zeros_behind() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 1, READ_WRITE, ANONYMOUS);
    guest.mem.write(Gva(at), b"moved").unwrap();
    let moved = guest.ok(libc::SYS_mremap, [at, PAGE, PAGE, MAY_MOVE | DONT_UNMAP, 0]);
    assert_eq!(guest.get(moved, 5), b"moved");
    assert_eq!(guest.fault(at, Access::Read), FaultAction::Retry);
    assert_eq!(guest.word(at), 0);
}

#[test]
fn a_barrier_of_its_own_needs_a_registration() {
    let mut guest = Guest::simple();
    let [query, global, private, register] = [0, 1, 8, 16];
    let served = guest.ok(libc::SYS_membarrier, [query]);
    assert_eq!(served & (global | private | register), global | private | register);
    guest.ok(libc::SYS_membarrier, [global]);
    guest.fails(&[
        (libc::SYS_membarrier, &[private], libc::EPERM),
        (libc::SYS_membarrier, &[query, 1], libc::EINVAL),
        (libc::SYS_membarrier, &[3], libc::EINVAL),
        (libc::SYS_membarrier, &[1 << 20], libc::EINVAL),
    ]);
    guest.undoes("was", |guest| {
        guest.ok(libc::SYS_membarrier, [register]);
        guest.ok(libc::SYS_membarrier, [private]);
    });
    guest.err(libc::SYS_membarrier, [private], libc::EPERM);
}

#[test]
fn a_rewind_puts_the_break_permissions_and_places_back() {
    let mut guest = Guest::simple();
    let at = guest.map(0, 2, READ_WRITE, ANONYMOUS);
    let start = guest.ok(libc::SYS_brk, [0]);
    guest.undoes("program break", |guest| guest.ok(libc::SYS_brk, [start + PAGE]));
    guest.undoes("mapping", |guest| guest.ok(libc::SYS_mprotect, [at, PAGE, 1]));
    guest.undoes("mapping", |guest| guest.ok(libc::SYS_mremap, [at, PAGE, 8 * PAGE, MAY_MOVE]));
    assert_eq!(guest.ok(libc::SYS_brk, [0]), start);
    assert!(guest.mem.allows(Gva(at), Access::Write));
}
