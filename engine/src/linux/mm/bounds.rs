//! Which addresses a process may have, and where Linux puts what has no wish of its own. Never
//! knows what is mapped.

use crate::address::PAGE_SIZE;
use std::ops::Range;

/// First address beyond user space.
pub(crate) const USER_END: u64 = 0x7fff_ffff_f000;
/// First address that no RIP of a program may be: hardware enters no guest with one that is not
/// canonical.
pub(crate) const USER_RIP_END: u64 = 1 << 47;
/// Mappings without a wish of their own are placed downwards from here, as Linux does without
/// address-space randomisation and with the usual 8 MiB stack limit.
pub(crate) const MMAP_BASE: u64 = 0x7fff_f7ff_f000;
/// Where a search upwards begins when there is no room below [`MMAP_BASE`]
/// (`TASK_UNMAPPED_BASE`).
pub(crate) const UNMAPPED_BASE: u64 = 0x2aaa_aaaa_b000;
/// Lowest address a mapping may have (`vm.mmap_min_addr`).
pub(crate) const USER_START: u64 = 0x1_0000;
/// Addresses that belong to the engine: the process can map nothing there.
pub const ENGINE_RESERVE: Range<u64> = 0x7f00_0000_0000..0x7f80_0000_0000;
/// How far the stack may grow, unless the program sets another limit (`_STK_LIM`).
pub(crate) const STACK_BYTES: u64 = 8 << 20;
/// Bytes that Linux keeps free below a mapping that grows downwards (`stack_guard_gap`).
pub(crate) const GUARD_GAP: u64 = 256 * PAGE_SIZE as u64;

/// Whether the process may own all of `start..end`.
pub(crate) fn in_user(start: u64, end: u64) -> bool {
    start <= end && end <= USER_END && (end <= ENGINE_RESERVE.start || start >= ENGINE_RESERVE.end)
}
