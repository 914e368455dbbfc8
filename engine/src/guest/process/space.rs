//! The address space as a list of areas (what Linux calls VMAs): who owns which addresses, and
//! where free ones are.
//!
//! Never touches page tables or file contents: `mapping` does, on top of this list.

use super::files::NodeId;
use super::memory::Prot;
use super::spec::Limits;
use super::stored::Refused;
use super::tracked::Rewind;
use crate::address::{PAGE_SIZE, page_ceil};
use bitflags::bitflags;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// First address beyond user space.
pub(super) const USER_END: u64 = 0x7fff_ffff_f000;
/// Mappings without a wish of their own are placed downwards from here, as Linux does without
/// address-space randomisation and with the usual 8 MiB stack limit.
pub(super) const MMAP_BASE: u64 = 0x7fff_f7ff_f000;
/// Where a search upwards begins when there is no room below [`MMAP_BASE`]
/// (`TASK_UNMAPPED_BASE`).
pub(super) const UNMAPPED_BASE: u64 = 0x2aaa_aaaa_b000;
/// Lowest address a mapping may have (`vm.mmap_min_addr`).
pub(super) const USER_START: u64 = 0x1_0000;
/// Addresses that belong to the engine: the process can map nothing there.
pub const ENGINE_RESERVE: Range<u64> = 0x7f00_0000_0000..0x7f80_0000_0000;

const PAGE: u64 = PAGE_SIZE as u64;
/// Bytes that Linux keeps free below a mapping that grows downwards (`stack_guard_gap`).
const GUARD_GAP: u64 = 256 * PAGE;
/// A stack grows by such steps where it can: a page fault costs an exit.
const GROWTH_STEP: u64 = 16 * PAGE;

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

bitflags! {
    /// What Linux keeps in a VMA's flags beside its protection.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
    pub(super) struct AreaFlags: u8 {
        /// `mprotect` may add write permission: not to a shared mapping of a file that was opened
        /// for reading.
        const MAY_WRITE = 1;
        /// `MAP_SHARED`: what is written is seen by other mappings of the same bytes.
        const SHARED = 1 << 1;
        /// Grows by an access below it.
        const GROWS_DOWN = 1 << 2;
        /// `mlock`: its pages cannot be discarded.
        const LOCKED = 1 << 3;
        /// `MLOCK_ONFAULT`.
        const LOCKED_ON_FAULT = 1 << 4;
        /// `MAP_NORESERVE`: not counted against the commit limit.
        const NO_RESERVE = 1 << 5;
    }
}

/// The memory behind anonymous shared mappings: an unnamed file, in Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) number: u64,
    /// Where in it the area starts.
    pub(super) offset: u64,
    /// Its length: accesses beyond it raise SIGBUS, as beyond a file's end.
    pub(super) bytes: u64,
}

/// Bytes that more than one mapping can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    File(NodeId),
    Object(u64),
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
    pub(super) flags: AreaFlags,
    /// Of an anonymous shared mapping.
    pub(super) object: Option<Object>,
}

impl Area {
    /// The part of the area between two addresses inside it.
    pub(super) fn part(&self, start: u64, end: u64) -> Self {
        let start = start.clamp(self.start, self.end);
        let end = end.clamp(start, self.end);
        let bytes = start.saturating_sub(self.start);
        let backing = self.backing.advanced(bytes);
        let object = self.object.map(|object| object.advanced(bytes));
        Self { start, end, backing, object, ..*self }
    }

    /// A private mapping of zeros.
    pub(super) fn anonymous(start: u64, end: u64, prot: Prot) -> Self {
        let (backing, flags) = (Backing::Anonymous, AreaFlags::MAY_WRITE);
        Self { start, end, prot, backing, flags, object: None }
    }

    pub(super) fn is(&self, flags: AreaFlags) -> bool {
        self.flags.contains(flags)
    }

    /// Its permissions as `/proc/self/maps` shows them: `rw-p`.
    pub(super) fn permissions(&self) -> String {
        let flag = |prot, letter| if self.prot.contains(prot) { letter } else { '-' };
        let shared = if self.is(AreaFlags::SHARED) { 's' } else { 'p' };
        let (read, write) = (flag(Prot::READ, 'r'), flag(Prot::WRITE, 'w'));
        String::from_iter([read, write, flag(Prot::EXEC, 'x'), shared])
    }

    /// Which shared bytes it shows, and from where on.
    pub(super) fn shares(&self) -> Option<(Shared, u64)> {
        match (self.backing, self.object) {
            _ if !self.is(AreaFlags::SHARED) => None,
            (Backing::File { node, offset }, _) => Some((Shared::File(node), offset)),
            (_, Some(object)) => Some((Shared::Object(object.number), object.offset)),
            _ => None,
        }
    }

    /// Whether its bytes count against the commit limit (`accountable_mapping` in mm/mmap.c; a
    /// shared anonymous mapping is charged by its file, mm/shmem.c).
    pub(super) fn is_charged(&self) -> bool {
        !self.is(AreaFlags::NO_RESERVE)
            && if self.is(AreaFlags::SHARED) {
                self.object.is_some()
            } else {
                self.prot.contains(Prot::WRITE)
            }
    }

    /// Where new mappings have to end that lie below it (`vm_start_gap`).
    fn gap_start(&self) -> u64 {
        match self.is(AreaFlags::GROWS_DOWN) {
            true => self.start.saturating_sub(GUARD_GAP),
            false => self.start,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether `next`, which starts where `self` ends, can be one area with it.
    fn continues_into(&self, next: &Self) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && self.flags == next.flags
            && self.backing.advanced(self.bytes()) == next.backing
            && self.object.map(|object| object.advanced(self.bytes())) == next.object
    }
}

impl Object {
    fn advanced(self, bytes: u64) -> Self {
        Self { offset: self.offset.saturating_add(bytes), ..self }
    }
}

/// The areas of a process, sorted and disjoint, and its program break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredSpace")]
pub(super) struct Space {
    areas: Vec<Area>,
    areas_max: usize,
    /// The most that one mapping can take of what is charged, as Linux's heuristic has it
    /// (`OVERCOMMIT_GUESS`, mm/util.c).
    pub(super) commit_bytes_max: u64,
    /// Where the heap starts.
    pub(super) break_start: u64,
    /// The program break.
    pub(super) break_end: u64,
    /// What `mlockall` said of mappings to come.
    pub(super) lock_future: AreaFlags,
    /// What `membarrier` registered.
    pub(super) barriers: u64,
    /// Anonymous shared mappings made.
    objects: u64,
    /// Whether there may be shared mappings of files that the process can change.
    pub(super) shows_files: bool,
}

/// A [`Space`] as read from a file that nobody vouches for.
#[derive(Deserialize)]
struct StoredSpace {
    areas: Vec<Area>,
    areas_max: usize,
    commit_bytes_max: u64,
    break_start: u64,
    break_end: u64,
    lock_future: AreaFlags,
    barriers: u64,
    objects: u64,
    shows_files: bool,
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
            let offset = match (area.backing, area.object) {
                (Backing::File { offset, .. }, _) => offset,
                (_, Some(object)) => object.offset,
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
        Ok(Self {
            areas: stored.areas,
            areas_max: stored.areas_max,
            commit_bytes_max: stored.commit_bytes_max,
            break_start: stored.break_start,
            break_end: stored.break_end,
            lock_future: stored.lock_future,
            barriers: stored.barriers,
            objects: stored.objects,
            shows_files: stored.shows_files,
        })
    }
}

/// Whether the process may own all of `start..end`.
pub(super) fn in_user(start: u64, end: u64) -> bool {
    start <= end && end <= USER_END && (end <= ENGINE_RESERVE.start || start >= ENGINE_RESERVE.end)
}

impl Space {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            areas: Vec::new(),
            areas_max: limits.mappings,
            commit_bytes_max: limits.commit_bytes,
            break_start: 0,
            break_end: 0,
            lock_future: AreaFlags::empty(),
            barriers: 0,
            objects: 0,
            shows_files: false,
        }
    }

    /// The memory for a new anonymous shared mapping.
    pub(super) fn new_object(&mut self, bytes: u64) -> Object {
        self.objects = self.objects.wrapping_add(1);
        Object { number: self.objects, offset: 0, bytes }
    }

    /// Checks a list that was read from a snapshot, beyond what decoding it has checked.
    pub(super) fn check_stored(&self, limits: &Limits) -> Result<(), Refused> {
        match self.areas_max <= limits.mappings
            && self.areas.len() <= self.areas_max
            && self.commit_bytes_max <= limits.commit_bytes
        {
            true => Ok(()),
            false => Err("more mappings, or memory in them, than a program may have"),
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

    /// Whether the limit on mappings (`vm.max_map_count`) leaves room for `count` more.
    pub(super) fn has_room(&self, count: usize) -> bool {
        self.areas.len().saturating_add(count) <= self.areas_max
    }

    /// Whether unmapping `start..end` stays within the limit on mappings: only cutting a hole
    /// into one area adds another.
    pub(super) fn may_remove(&self, start: u64, end: u64) -> bool {
        match self.overlapping(start, end) {
            [area] if area.start < start && area.end > end => self.has_room(1),
            _ => true,
        }
    }

    /// Whether a mapping of `bytes` at `start`, which its process would like there, keeps away
    /// from what is mapped and from the guard gap of the next stack.
    pub(super) fn suits(&self, start: u64, end: u64) -> bool {
        let next = self.areas.get(self.first_after(start));
        self.is_free(start, end) && next.is_none_or(|next| end <= next.gap_start())
    }

    /// The highest free `bytes` (whole pages) within `low..high`.
    pub(super) fn find_gap(&self, bytes: u64, low: u64, high: u64) -> Option<u64> {
        let mut top = high.min(USER_END);
        let below = self.areas.partition_point(|area| area.start < top.saturating_add(GUARD_GAP));
        for area in self.areas.get(..below).unwrap_or_default().iter().rev() {
            if area.gap_start() >= top {
                continue;
            }
            if let Some(found) = highest_in(area.end.max(low), top, bytes) {
                return Some(found);
            }
            top = area.gap_start();
            if top <= low {
                return None;
            }
        }
        highest_in(low, top, bytes)
    }

    /// The lowest free `bytes` (whole pages) within `low..high`.
    pub(super) fn find_gap_upwards(&self, bytes: u64, low: u64, high: u64) -> Option<u64> {
        let mut bottom = low;
        for area in self.areas.get(self.first_after(low)..).unwrap_or_default() {
            let found = lowest_in(bottom, area.gap_start().min(high), bytes);
            if found.is_some() || area.end >= high {
                return found;
            }
            bottom = bottom.max(area.end);
        }
        lowest_in(bottom, high.min(USER_END), bytes)
    }

    /// The area that an access to the unmapped page at `page` makes grow, as it is then
    /// (`expand_downwards` in mm/mmap.c); `None` where it grows none.
    pub(super) fn growth(&self, page: u64, stack_bytes_max: u64) -> Option<Area> {
        let index = self.first_after(page);
        let next = self.areas.get(index).filter(|next| next.is(AreaFlags::GROWS_DOWN))?;
        let before = index.checked_sub(1).and_then(|index| self.areas.get(index));
        let bottom = before.map_or(USER_START, |before| {
            let needs_gap = !before.is(AreaFlags::GROWS_DOWN) && !before.prot.is_empty();
            before.end.saturating_add(if needs_gap { GUARD_GAP } else { 0 })
        });
        let by_limit = page_ceil(next.end.saturating_sub(stack_bytes_max))?;
        let mut bottom = bottom.max(by_limit).max(USER_START);
        if next.start >= ENGINE_RESERVE.end {
            bottom = bottom.max(ENGINE_RESERVE.end);
        }
        let start = (page & !(GROWTH_STEP - 1)).max(bottom);
        (bottom <= page).then_some(Area { start, ..*next })
    }

    /// Puts an area that [`growth`](Self::growth) gave in its own place.
    pub(super) fn grow(&mut self, grown: &Area) {
        let index = self.first_after(grown.start);
        if let Some(area) = self.areas.get_mut(index)
            && area.end == grown.end
        {
            area.start = area.start.min(grown.start);
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
        let settings = |space: &Self| (space.lock_future, space.barriers, space.objects);
        if settings(self) != settings(other) || self.shows_files != other.shows_files {
            into.push(format!("{:?} was {:?}", settings(self), settings(other)));
        }
        if (self.break_start, self.break_end) != (other.break_start, other.break_end) {
            into.push(format!("program break {:#x} was {:#x}", self.break_end, other.break_end));
        }
    }
}

impl Rewind for Space {
    fn rewind_to(&mut self, snapshot: &Self, _related: bool) {
        let mut areas = std::mem::take(&mut self.areas);
        areas.clone_from(&snapshot.areas);
        *self = Self { areas, ..*snapshot };
    }
}

/// The highest `bytes` within `bottom..top` that the process may map, nothing being mapped there.
fn highest_in(bottom: u64, top: u64, bytes: u64) -> Option<u64> {
    let above = (bottom.max(ENGINE_RESERVE.end), top);
    let below = (bottom, top.min(ENGINE_RESERVE.start));
    let fit = |(bottom, top): (u64, u64)| top.checked_sub(bytes).filter(|start| *start >= bottom);
    fit(above).or_else(|| fit(below))
}

/// The lowest, likewise.
fn lowest_in(bottom: u64, top: u64, bytes: u64) -> Option<u64> {
    let below = (bottom, top.min(ENGINE_RESERVE.start));
    let above = (bottom.max(ENGINE_RESERVE.end), top);
    let fits = |(bottom, top): (u64, u64)| bottom.checked_add(bytes).is_some_and(|end| end <= top);
    [below, above].into_iter().find(|range| fits(*range)).map(|(bottom, _)| bottom)
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x} {}", self.start, self.end, self.permissions())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(start: u64, end: u64) -> Area {
        Area::anonymous(start, end, Prot::READ)
    }

    #[test]
    fn joins_neighbours_and_cuts_holes() {
        let mut space = Space::new(&Limits::default());
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
        let mut space = Space::new(&Limits::default());
        let backing = |offset| Backing::File { node: NodeId::ROOT, offset };
        space.insert(Area { backing: backing(0x5000), ..area(0x10000, 0x14000) });
        space.remove(0x11000, 0x12000);
        assert_eq!(space.areas()[1], Area { backing: backing(0x7000), ..area(0x12000, 0x14000) });
        space.insert(Area { backing: backing(0x6000), ..area(0x11000, 0x12000) });
        assert_eq!(space.areas().len(), 1);
    }

    #[test]
    fn finds_gaps_downwards_and_never_in_the_engines_reserve() {
        let mut space = Space::new(&Limits::default());
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
        let stored = |areas| StoredSpace {
            areas,
            areas_max: 9,
            commit_bytes_max: 0,
            break_start: 0,
            break_end: 0,
            lock_future: AreaFlags::empty(),
            barriers: 0,
            objects: 0,
            shows_files: false,
        };
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
