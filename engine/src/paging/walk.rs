//! The walk of any guest's tables, as the CPU makes it. Never changes a table, not even an accessed
//! bit.

use super::entry::{
    ADDRESS_BITS, ADDRESS_MASK, INDEX_BITS, LARGE, LEVELS, NO_EXECUTE, PRESENT, USER, WRITABLE,
    entry_of,
};
use crate::address::{Gpa, Gva, PAGE_SHIFT};
use crate::memory::GuestMemory;

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
