//! x86-64 page tables: the walk that the host does for any guest, and ([`Tables`]) the tables
//! that the engine builds for a process guest.
//!
//! Never decides which addresses a program may have; that is the process's business.

mod guard;
mod tables;

pub use guard::{GUARDED, frame_of, may_write};
pub(crate) use tables::leaf_entry;
pub use tables::{Frames, Tables, TablesError, entry_in};

use crate::address::{Gpa, Gva, PAGE_SHIFT};
use crate::memory::GuestMemory;

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
const LEVELS: u32 = 4;
/// Bits of an address that choose an entry of one table.
const INDEX_BITS: u32 = 9;
/// Entries of a table, and bytes of each.
const ENTRIES: u64 = 1 << INDEX_BITS;
const ENTRY_BYTES: u64 = 8;
/// Bits of a linear address; those above are copies of the highest of them.
const ADDRESS_BITS: u32 = 48;

/// The address of the entry for `at` in the table of `level` at `table`.
const fn entry_of(table: Gpa, at: Gva, level: u32) -> Gpa {
    let index = at.0 >> (PAGE_SHIFT + INDEX_BITS * level) & (ENTRIES - 1);
    Gpa(table.0.wrapping_add(index * ENTRY_BYTES))
}

/// Where a linear address leads and what the entries on the way allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The guest-physical address.
    pub gpa: Gpa,
    /// Writable in every level.
    pub writable: bool,
    /// Accessible at CPL 3 in every level.
    pub user: bool,
    /// Executable in every level.
    pub executable: bool,
}

/// Walks four-level tables whose root is at `root` (CR3's address bits). `None` where nothing is
/// mapped, the address is not canonical, or a table lies outside of RAM.
#[must_use]
pub fn walk(memory: &GuestMemory, root: Gpa, at: Gva) -> Option<Translation> {
    let sign = at.0.cast_signed() >> (ADDRESS_BITS - 1);
    if sign != 0 && sign != -1 {
        return None;
    }
    let mut table = Gpa(root.0 & ADDRESS_MASK);
    let (mut writable, mut user, mut executable) = (true, true, true);
    for level in (0..LEVELS).rev() {
        let entry = memory.read_u64(entry_of(table, at, level)).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        writable &= entry & WRITABLE != 0;
        user &= entry & USER != 0;
        executable &= entry & NO_EXECUTE == 0;
        let last = level == 0 || (entry & LARGE != 0 && level < 3);
        if last {
            let shift = PAGE_SHIFT + INDEX_BITS * level;
            let offset = at.0 & ((1 << shift) - 1);
            let base = entry & ADDRESS_MASK & !((1 << shift) - 1);
            return Some(Translation { gpa: Gpa(base | offset), writable, user, executable });
        }
        table = Gpa(entry & ADDRESS_MASK);
    }
    None
}
