//! One entry of a page table: its bits, and where it is (Intel SDM vol. 3, 4.5).
//!
//! Never reads or writes a table.

use crate::address::{Gpa, Gva, PAGE_SHIFT, Pfn};

/// The entry maps something (Intel SDM vol. 3, 4.5, table 4-20).
pub const PRESENT: u64 = 1;
/// Writable.
pub const WRITABLE: u64 = 1 << 1;
/// Accessible at CPL 3.
pub const USER: u64 = 1 << 2;
/// Accessed; the engine sets it beforehand, so that no hardware walk dirties a table.
pub const ACCESSED: u64 = 1 << 5;
/// Dirty; set beforehand for the same reason.
pub const DIRTY: u64 = 1 << 6;
/// A large page, in a page-directory or page-directory-pointer entry.
pub const LARGE: u64 = 1 << 7;
/// Not executable.
pub const NO_EXECUTE: u64 = 1 << 63;
/// The physical address in an entry.
pub const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// Levels of tables; the page table is level 0 (Intel SDM vol. 3, 4.5).
pub(super) const LEVELS: u32 = 4;
/// Bits of an address that choose an entry of one table.
pub(super) const INDEX_BITS: u32 = 9;
/// Entries of a table, and bytes of each.
pub(super) const ENTRIES: u64 = 1 << INDEX_BITS;
pub(super) const ENTRY_BYTES: u64 = 8;
/// Bits of a linear address; those above are copies of the highest of them.
pub(super) const ADDRESS_BITS: u32 = 48;

/// The address of the entry for `at` in the table of `level` at `table`.
pub(super) const fn entry_of(table: Gpa, at: Gva, level: u32) -> Gpa {
    let index = at.0 >> (PAGE_SHIFT + INDEX_BITS * level) & (ENTRIES - 1);
    Gpa(table.0.wrapping_add(index * ENTRY_BYTES))
}

/// A software bit (Intel SDM vol. 3, 4.5: bits 9 to 11 are ignored by the CPU): the program may
/// write the page, and the guard has not seen it do so.
pub const GUARDED: u64 = 1 << 9;

/// Whether the program may write through `entry`, seen or not.
#[must_use]
pub const fn may_write(entry: u64) -> bool {
    entry & (WRITABLE | GUARDED) != 0
}

/// The frame that `entry` leads to.
#[must_use]
pub fn frame_of(entry: u64) -> Pfn {
    Pfn::from(Gpa(entry & ADDRESS_MASK))
}

/// The address of the entry for `at` in the page table at `table`.
#[must_use]
pub const fn entry_in(table: Gpa, at: Gva) -> Gpa {
    entry_of(table, at, 0)
}

/// A leaf entry for `frame` with accessed and dirty set beforehand.
#[must_use]
pub(crate) fn leaf_entry(frame: Gpa, writable: bool, executable: bool, user: bool) -> u64 {
    let mut entry = frame.0 | PRESENT | ACCESSED | DIRTY;
    if writable {
        entry |= WRITABLE;
    }
    if user {
        entry |= USER;
    }
    if !executable {
        entry |= NO_EXECUTE;
    }
    entry
}
