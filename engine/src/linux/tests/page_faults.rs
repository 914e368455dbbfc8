//! Page faults: what they bring in, what they grow, and what they end in.

use crate::address::Gva;
use crate::linux::abi::syscall::{FaultAction, SyscallAction};
use crate::linux::loader::spec::ProcessSpec;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::tests::mock::memory::{ANONYMOUS, FIXED, READ_WRITE};
use crate::linux::tests::mock::{Guest, PAGE};
use crate::outcome::{Access, Signal};

#[test]
fn reserves_huge_ranges_and_brings_pages_in_on_demand() {
    let mut guest = Guest::simple();
    let before = guest.mem.pages.len();
    let reserve = guest.map(0, 1 << 28, 0, ANONYMOUS | libc::MAP_NORESERVE as u64);
    guest.ok(libc::SYS_mprotect, [reserve, 1 << 30, READ_WRITE]);
    assert_eq!(guest.mem.pages.len(), before);
    let at = reserve + (1 << 29);
    assert_eq!(guest.fault(at, Access::Write), FaultAction::Retry);
    guest.mem.write(Gva(at), b"x").unwrap();
    assert_eq!(guest.fault(at, Access::Execute), FaultAction::Signal(Signal::SEGV));
    assert_eq!(guest.fault(reserve + (1 << 30), Access::Read), FaultAction::Signal(Signal::SEGV));
    assert!(guest.mem.pages.len() - before <= 64);
    // A system call brings pages in as the kernel would.
    let path = guest.text("/dev/zero");
    let fd = guest.ok(libc::SYS_open, [path, 0]);
    assert_eq!(guest.ok(libc::SYS_read, [fd, reserve, 10 * PAGE]), 10 * PAGE);
}

#[test]
fn runs_out_of_memory_without_an_errno() {
    let mut guest = Guest::simple();
    guest.mem.frames_max = guest.mem.pages.len() as u64;
    let at = guest.map(0, 100, READ_WRITE, ANONYMOUS);
    assert_eq!(guest.fault(at, Access::Write), FaultAction::OutOfMemory);
    assert_eq!(guest.verdict(libc::SYS_uname, [at]), SyscallAction::OutOfMemory);
}

#[test]
fn raises_sigbus_beyond_the_end_of_a_file() {
    let mut guest = Guest::simple();
    let at = guest.ok(libc::SYS_mmap, [0, 3 * PAGE, 1, libc::MAP_SHARED as u64, 0, 0]);
    assert_eq!(guest.get(at, 6), b"input\0");
    assert_eq!(guest.fault(at + PAGE, Access::Read), FaultAction::Signal(Signal::BUS));
    guest.err(libc::SYS_mprotect, [at, PAGE, 3], libc::EACCES);
}

#[test]
fn brings_in_a_large_file_around_the_fault() {
    let mut input = vec![0; 20 << 20];
    for (number, page) in input.chunks_mut(PAGE as usize).enumerate() {
        page.fill(number as u8);
    }
    let mut guest = Guest::load(&ProcessSpec::new("/bin/true"), &input);
    let len = input.len() as u64;
    let at = guest.ok(libc::SYS_mmap, [0, len, 3, libc::MAP_PRIVATE as u64, 0, 0]);
    let page = at + 1000 * PAGE;
    assert!(!guest.mem.allows(Gva(page), Access::Read));
    assert_eq!(guest.fault(page + 5, Access::Read), FaultAction::Retry);
    assert_eq!(guest.get(page, 1), [1000u32 as u8]);
    guest.mem.write(Gva(page), b"mine").unwrap();
    assert_eq!(guest.fault(page + 200 * PAGE, Access::Read), FaultAction::Retry);
    assert_eq!(guest.get(page, 4), b"mine", "present pages are left alone");
}

#[test]
fn grows_the_stack_on_demand_down_to_its_limit() {
    let mut guest = Guest::simple();
    let top = 0x7fff_ffff_f000;
    assert_eq!(guest.fault(top - (4 << 20), Access::Write), FaultAction::Retry);
    let below = top - (8 << 20) - 1;
    assert_eq!(guest.fault(below, Access::Write), FaultAction::Signal(Signal::SEGV));
}

#[test]
fn a_system_call_makes_the_stack_grow_as_an_access_does() {
    let mut guest = Guest::simple();
    let top = 0x7fff_ffff_f000;
    let far = top - (4 << 20);
    guest.ok(libc::SYS_uname, [far]);
    assert_eq!(guest.fault(far + PAGE, Access::Write), FaultAction::Retry);
    guest.err(libc::SYS_uname, [top - (8 << 20) - PAGE], libc::EFAULT);
    // Nothing is placed into the gap below, unless it must be.
    let near = (far & !0xffff) - 100 * PAGE;
    assert_ne!(guest.map(near, 1, READ_WRITE, ANONYMOUS), near);
    assert_eq!(guest.map(near, 1, READ_WRITE, FIXED), near);
    assert_eq!(guest.fault(far - (1 << 16), Access::Read), FaultAction::Signal(Signal::SEGV));
}
