//! The address space as a list of areas (what Linux calls VMAs): who owns which addresses, and
//! where free ones are.
//!
//! Never touches page tables or file contents: `mapping` does, on top of this list.

use super::files::NodeId;
use super::memory::Prot;
use super::spec::Limits;
use super::stored::Refused;
use super::tracked::Rewind;
use crate::address::PAGE_SIZE;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// First address beyond user space.
pub(super) const USER_END: u64 = 0x7fff_ffff_f000;
/// Mappings without a wish of their own are placed downwards from here, as Linux does without
/// address-space randomisation and with the usual 8 MiB stack limit.
pub(super) const MMAP_BASE: u64 = 0x7fff_f7ff_f000;
/// Lowest address a mapping may have (`vm.mmap_min_addr`).
pub(super) const USER_START: u64 = 0x1_0000;
/// Addresses that belong to the engine: the process can map nothing there.
pub const ENGINE_RESERVE: Range<u64> = 0x7f00_0000_0000..0x7f80_0000_0000;

const PAGE: u64 = PAGE_SIZE as u64;

/// What an area's pages hold before the process writes to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Backing {
    /// Zeros.
    Anonymous,
    /// Zeros; grown and shrunk by `brk`.
    Heap,
    /// Zeros; the initial stack.
    Stack,
    /// A file's bytes, from `offset` on at the area's start.
    File {
        /// Which file.
        node: NodeId,
        /// Page-aligned offset of the area's first byte.
        offset: u64,
    },
}

impl Backing {
    /// The same backing, `bytes` further on.
    fn advanced(self, bytes: u64) -> Self {
        match self {
            Self::File { node, offset } => {
                Self::File { node, offset: offset.saturating_add(bytes) }
            }
            other => other,
        }
    }
}

/// A run of pages with one owner and one protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Area {
    /// First address; page-aligned.
    pub(super) start: u64,
    /// First address beyond; page-aligned.
    pub(super) end: u64,
    /// As asked for by the process.
    pub(super) prot: Prot,
    /// What its pages hold.
    pub(super) backing: Backing,
    /// Whether `mprotect` may add write permission: not to a shared mapping of a file that was
    /// opened for reading.
    pub(super) may_write: bool,
}

impl Area {
    /// The part of the area between two addresses inside it.
    pub(super) fn part(&self, start: u64, end: u64) -> Self {
        let start = start.clamp(self.start, self.end);
        let end = end.clamp(start, self.end);
        let backing = self.backing.advanced(start.saturating_sub(self.start));
        Self { start, end, backing, ..*self }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether `next`, which starts where `self` ends, can be one area with it.
    fn continues_into(&self, next: &Self) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && self.may_write == next.may_write
            && self.backing.advanced(self.bytes()) == next.backing
    }
}

/// The areas of a process, sorted and disjoint, and its program break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredSpace")]
pub(super) struct Space {
    areas: Vec<Area>,
    areas_max: usize,
    /// Where the heap starts.
    pub(super) break_start: u64,
    /// The program break.
    pub(super) break_end: u64,
}

/// A [`Space`] as read from a file that nobody vouches for.
#[derive(Deserialize)]
struct StoredSpace {
    areas: Vec<Area>,
    areas_max: usize,
    break_start: u64,
    break_end: u64,
}

/// A stored address space that no process can have.
#[derive(Debug, thiserror::Error)]
#[error("read stored address space: {0}")]
struct StoredSpaceError(&'static str);

impl TryFrom<StoredSpace> for Space {
    type Error = StoredSpaceError;

    fn try_from(stored: StoredSpace) -> Result<Self, StoredSpaceError> {
        let mut last_end = 0;
        for area in &stored.areas {
            let offset = match area.backing {
                Backing::File { offset, .. } => offset,
                _ => 0,
            };
            if !area.start.is_multiple_of(PAGE)
                || !area.end.is_multiple_of(PAGE)
                || !offset.is_multiple_of(PAGE)
            {
                return Err(StoredSpaceError("a mapping is not aligned to pages"));
            }
            if area.start < last_end || area.end <= area.start || !in_user(area.start, area.end) {
                return Err(StoredSpaceError("mappings are out of order or outside of user space"));
            }
            last_end = area.end;
        }
        if stored.break_end < stored.break_start || stored.break_end > USER_END {
            return Err(StoredSpaceError("the program break is outside of user space"));
        }
        let StoredSpace { areas, areas_max, break_start, break_end } = stored;
        Ok(Self { areas, areas_max, break_start, break_end })
    }
}

/// Whether the process may own all of `start..end`.
pub(super) fn in_user(start: u64, end: u64) -> bool {
    start <= end && end <= USER_END && (end <= ENGINE_RESERVE.start || start >= ENGINE_RESERVE.end)
}

impl Space {
    pub(super) fn new(areas_max: usize) -> Self {
        Self { areas: Vec::new(), areas_max, break_start: 0, break_end: 0 }
    }

    /// Checks a list that was read from a snapshot, beyond what decoding it has checked.
    pub(super) fn check_stored(&self, limits: &Limits) -> Result<(), Refused> {
        match self.areas_max <= limits.mappings && self.areas.len() <= self.areas_max {
            true => Ok(()),
            false => Err("more mappings than a program may have"),
        }
    }

    pub(super) fn areas(&self) -> &[Area] {
        &self.areas
    }

    /// Index of the first area that ends beyond `at`.
    fn first_after(&self, at: u64) -> usize {
        self.areas.partition_point(|area| area.end <= at)
    }

    /// The area that owns `at`.
    pub(super) fn area_at(&self, at: u64) -> Option<&Area> {
        self.areas.get(self.first_after(at)).filter(|area| area.start <= at)
    }

    /// The areas that share an address with `start..end`, whole.
    pub(super) fn overlapping(&self, start: u64, end: u64) -> &[Area] {
        self.areas.get(self.overlap(start, end)).unwrap_or_default()
    }

    fn overlap(&self, start: u64, end: u64) -> Range<usize> {
        let first = self.first_after(start);
        let past = self.areas.partition_point(|area| area.start < end);
        first..past.max(first)
    }

    /// Whether nothing is mapped in `start..end` and the process may map it.
    pub(super) fn is_free(&self, start: u64, end: u64) -> bool {
        in_user(start, end) && self.overlap(start, end).is_empty()
    }

    /// Whether every address of `start..end` is mapped.
    pub(super) fn is_covered(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        for area in self.overlapping(start, end) {
            if area.start > at {
                return false;
            }
            at = area.end;
        }
        at >= end
    }

    /// Whether the limit on mappings leaves room for one more, and for the two that cutting a
    /// hole can add.
    pub(super) fn has_room(&self) -> bool {
        self.areas.len().saturating_add(3) <= self.areas_max
    }

    /// Whether unmapping `start..end` stays within the limit on mappings: only cutting a hole
    /// into one area adds another.
    pub(super) fn may_remove(&self, start: u64, end: u64) -> bool {
        match self.overlapping(start, end) {
            [area] if area.start < start && area.end > end => self.areas.len() < self.areas_max,
            _ => true,
        }
    }

    /// The highest free `bytes` (whole pages) within `low..high`.
    pub(super) fn find_gap(&self, bytes: u64, low: u64, high: u64) -> Option<u64> {
        let mut end = high.min(USER_END);
        loop {
            let start = end.checked_sub(bytes).filter(|start| *start >= low)?;
            if start < ENGINE_RESERVE.end && end > ENGINE_RESERVE.start {
                end = ENGINE_RESERVE.start;
                continue;
            }
            match self.overlapping(start, end).last() {
                Some(obstacle) => end = obstacle.start,
                None => return Some(start),
            }
        }
    }

    /// Takes `start..end` out of the list, cutting areas that reach beyond it.
    pub(super) fn remove(&mut self, start: u64, end: u64) {
        let range = self.overlap(start, end);
        let (Some(first), Some(last)) = (
            self.areas.get(range.start).copied(),
            self.areas.get(range.end.wrapping_sub(1)).copied(),
        ) else {
            return;
        };
        if range.is_empty() {
            return;
        }
        let head = (first.start < start).then(|| first.part(first.start, start));
        let tail = (last.end > end).then(|| last.part(end, last.end));
        self.areas.splice(range, head.into_iter().chain(tail));
    }

    /// Adds an area where nothing is mapped, joining it with its neighbours where they match.
    pub(super) fn insert(&mut self, area: Area) {
        if area.end <= area.start {
            return;
        }
        let index = self.first_after(area.start);
        self.areas.insert(index, area);
        self.join(index);
        if let Some(before) = index.checked_sub(1) {
            self.join(before);
        }
    }

    /// Joins the area at `index` with the next one if they match.
    fn join(&mut self, index: usize) {
        let (Some(area), Some(next)) = (self.areas.get(index), self.areas.get(index + 1)) else {
            return;
        };
        if area.continues_into(next) {
            let end = next.end;
            self.areas.remove(index + 1);
            if let Some(area) = self.areas.get_mut(index) {
                area.end = end;
            }
        }
    }

    /// Names what differs from `other`.
    pub(super) fn differences(&self, other: &Self, into: &mut Vec<String>) {
        if self.areas != other.areas {
            let (ours, theirs) = (self.areas.len(), other.areas.len());
            let pair = self.areas.iter().zip(&other.areas).find(|(a, b)| a != b);
            into.push(match pair {
                Some((ours, theirs)) => format!("mapping {ours} was {theirs}"),
                None => format!("{ours} mappings were {theirs}"),
            });
        }
        if (self.break_start, self.break_end) != (other.break_start, other.break_end) {
            into.push(format!("program break {:#x} was {:#x}", self.break_end, other.break_end));
        }
    }
}

impl Rewind for Space {
    fn rewind_to(&mut self, snapshot: &Self, _related: bool) {
        self.areas.clone_from(&snapshot.areas);
        self.areas_max = snapshot.areas_max;
        self.break_start = snapshot.break_start;
        self.break_end = snapshot.break_end;
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |prot, letter| if self.prot.contains(prot) { letter } else { '-' };
        write!(
            f,
            "{:x}-{:x} {}{}{}p",
            self.start,
            self.end,
            flag(Prot::READ, 'r'),
            flag(Prot::WRITE, 'w'),
            flag(Prot::EXEC, 'x')
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(start: u64, end: u64) -> Area {
        Area { start, end, prot: Prot::READ, backing: Backing::Anonymous, may_write: true }
    }

    #[test]
    fn joins_neighbours_and_cuts_holes() {
        let mut space = Space::new(100);
        space.insert(area(0x10000, 0x11000));
        space.insert(area(0x12000, 0x13000));
        space.insert(area(0x11000, 0x12000));
        assert_eq!(space.areas(), [area(0x10000, 0x13000)]);
        space.remove(0x11000, 0x12000);
        assert_eq!(space.areas(), [area(0x10000, 0x11000), area(0x12000, 0x13000)]);
        space.remove(0x0, 0x20000);
        assert!(space.areas().is_empty());
    }

    #[test]
    fn keeps_file_offsets_when_it_cuts() {
        let mut space = Space::new(100);
        let backing = |offset| Backing::File { node: NodeId::ROOT, offset };
        space.insert(Area { backing: backing(0x5000), ..area(0x10000, 0x14000) });
        space.remove(0x11000, 0x12000);
        assert_eq!(space.areas()[1], Area { backing: backing(0x7000), ..area(0x12000, 0x14000) });
        space.insert(Area { backing: backing(0x6000), ..area(0x11000, 0x12000) });
        assert_eq!(space.areas().len(), 1);
    }

    #[test]
    fn finds_gaps_downwards_and_never_in_the_engines_reserve() {
        let mut space = Space::new(100);
        assert_eq!(space.find_gap(0x1000, USER_START, MMAP_BASE), Some(MMAP_BASE - 0x1000));
        space.insert(area(MMAP_BASE - 0x2000, MMAP_BASE - 0x1000));
        assert_eq!(space.find_gap(0x1000, USER_START, MMAP_BASE), Some(MMAP_BASE - 0x1000));
        assert_eq!(space.find_gap(0x2000, USER_START, MMAP_BASE), Some(MMAP_BASE - 0x4000));
        let huge = MMAP_BASE - ENGINE_RESERVE.end;
        let below = space.find_gap(huge, USER_START, MMAP_BASE).unwrap();
        assert_eq!(below + huge, ENGINE_RESERVE.start);
        assert_eq!(space.find_gap(USER_END, USER_START, MMAP_BASE), None);
        assert_eq!(space.find_gap(u64::MAX, USER_START, MMAP_BASE), None);
    }

    #[test]
    fn refuses_stored_spaces_that_no_process_can_have() {
        let stored = |areas| StoredSpace { areas, areas_max: 9, break_start: 0, break_end: 0 };
        assert!(Space::try_from(stored(vec![area(0x10000, 0x12000)])).is_ok());
        for areas in [
            vec![area(0x10001, 0x12000)],
            vec![area(0x12000, 0x10000)],
            vec![area(0x10000, 0x12000), area(0x11000, 0x13000)],
            vec![area(0x10000, u64::MAX - 0xfff)],
            vec![area(ENGINE_RESERVE.start, ENGINE_RESERVE.start + 0x1000)],
        ] {
            assert!(Space::try_from(stored(areas)).is_err());
        }
    }
}
