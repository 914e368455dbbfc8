//! `mmap` and its relatives, the break, and page faults.

use crate::address::Gva;
use crate::linux::abi::syscall::{FaultAction, SyscallAction};
use crate::linux::loader::spec::ProcessSpec;
use crate::linux::mm::bounds::ENGINE_RESERVE;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::tests::mock::{Guest, NOWHERE, PAGE};
use crate::outcome::{Access, Signal};

const ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
const FIXED: u64 = ANONYMOUS | libc::MAP_FIXED as u64;
const READ_WRITE: u64 = 3;

impl Guest {
    fn map(&mut self, at: u64, pages: u64, prot: u64, flags: u64) -> u64 {
        self.ok(libc::SYS_mmap, [at, pages * PAGE, prot, flags, u64::MAX, 0])
    }

    fn fault(&mut self, at: u64, access: Access) -> FaultAction {
        self.process.page_fault(Gva(at), access, &mut self.mem)
    }
}

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
fn grows_the_stack_on_demand_down_to_its_limit() {
    let mut guest = Guest::simple();
    let top = 0x7fff_ffff_f000;
    assert_eq!(guest.fault(top - (4 << 20), Access::Write), FaultAction::Retry);
    let below = top - (8 << 20) - 1;
    assert_eq!(guest.fault(below, Access::Write), FaultAction::Signal(Signal::SEGV));
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

const SHARED: u64 = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64;

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
