//! The address space as a list of VMAs (what Linux calls VMAs): who owns which addresses.
//!
//! Around the list, `placement` says where free addresses are, `growth` what becomes of stacks, and
//! `stored` what a list from a file must be like. Never touches page tables or file contents:
//! `mapping` does, on top of this list.

mod growth;
mod placement;
mod stored;

use crate::linux::base::limits::{Limits, Refused};
use crate::linux::base::tracked::Rewind;
use crate::linux::mm::bounds::in_user;
use crate::linux::mm::vma::{Object, Vma, VmaFlags};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use stored::{StoredAddressSpace, StoredAddressSpaceError};

/// The VMAs of a process, sorted and disjoint, and its program break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredAddressSpace")]
pub(crate) struct AddressSpace {
    vmas: Vec<Vma>,
    vmas_max: usize,
    /// The most that one mapping can take of what is charged, as Linux's heuristic has it
    /// (`OVERCOMMIT_GUESS`, mm/util.c).
    pub(crate) commit_bytes_max: u64,
    /// Where the heap starts.
    pub(crate) break_start: u64,
    /// The program break.
    pub(crate) break_end: u64,
    /// What `mlockall` said of mappings to come.
    pub(crate) lock_future: VmaFlags,
    /// What `membarrier` registered.
    pub(crate) barriers: u64,
    /// Anonymous shared mappings made.
    objects: u64,
    /// Whether there may be shared mappings of files that the process can change.
    pub(crate) shows_files: bool,
}

impl TryFrom<StoredAddressSpace> for AddressSpace {
    type Error = StoredAddressSpaceError;

    fn try_from(stored: StoredAddressSpace) -> Result<Self, StoredAddressSpaceError> {
        stored.check()?;
        let StoredAddressSpace {
            vmas,
            vmas_max,
            commit_bytes_max,
            break_start,
            break_end,
            lock_future,
            barriers,
            objects,
            shows_files,
        } = stored;
        Ok(Self {
            vmas,
            vmas_max,
            commit_bytes_max,
            break_start,
            break_end,
            lock_future,
            barriers,
            objects,
            shows_files,
        })
    }
}

impl AddressSpace {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            vmas: Vec::new(),
            vmas_max: limits.mappings,
            commit_bytes_max: limits.commit_bytes,
            break_start: 0,
            break_end: 0,
            lock_future: VmaFlags::empty(),
            barriers: 0,
            objects: 0,
            shows_files: false,
        }
    }

    /// The memory for a new anonymous shared mapping.
    pub(crate) fn new_object(&mut self, bytes: u64) -> Object {
        self.objects = self.objects.wrapping_add(1);
        Object { number: self.objects, offset: 0, bytes }
    }

    pub(crate) fn vmas(&self) -> &[Vma] {
        &self.vmas
    }

    /// Index of the first VMA that ends beyond `at`.
    fn first_after(&self, at: u64) -> usize {
        self.vmas.partition_point(|vma| vma.end <= at)
    }

    /// The VMA that owns `at`.
    pub(crate) fn vma_at(&self, at: u64) -> Option<&Vma> {
        self.vmas.get(self.first_after(at)).filter(|vma| vma.start <= at)
    }

    /// The VMAs that share an address with `start..end`, whole.
    pub(crate) fn overlapping(&self, start: u64, end: u64) -> &[Vma] {
        self.vmas.get(self.overlap(start, end)).unwrap_or_default()
    }

    fn overlap(&self, start: u64, end: u64) -> Range<usize> {
        let first = self.first_after(start);
        let past = self.vmas.partition_point(|vma| vma.start < end);
        first..past.max(first)
    }

    /// Whether nothing is mapped in `start..end` and the process may map it.
    pub(crate) fn is_free(&self, start: u64, end: u64) -> bool {
        in_user(start, end) && self.overlap(start, end).is_empty()
    }

    /// Whether every address of `start..end` is mapped.
    pub(crate) fn is_covered(&self, start: u64, end: u64) -> bool {
        let mut at = start;
        for vma in self.overlapping(start, end) {
            if vma.start > at {
                return false;
            }
            at = vma.end;
        }
        at >= end
    }

    /// Whether the limit on mappings (`vm.max_map_count`) leaves room for `count` more.
    pub(crate) fn has_room(&self, count: usize) -> bool {
        self.vmas.len().saturating_add(count) <= self.vmas_max
    }

    /// Whether unmapping `start..end` stays within the limit on mappings: only cutting a hole
    /// into one VMA adds another.
    pub(crate) fn may_remove(&self, start: u64, end: u64) -> bool {
        match self.overlapping(start, end) {
            [vma] if vma.start < start && vma.end > end => self.has_room(1),
            _ => true,
        }
    }

    /// Takes `start..end` out of the list, cutting VMAs that reach beyond it.
    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        let range = self.overlap(start, end);
        let (Some(first), Some(last)) = (
            self.vmas.get(range.start).copied(),
            self.vmas.get(range.end.wrapping_sub(1)).copied(),
        ) else {
            return;
        };
        if range.is_empty() {
            return;
        }
        let head = (first.start < start).then(|| first.part(first.start, start));
        let tail = (last.end > end).then(|| last.part(end, last.end));
        self.vmas.splice(range, head.into_iter().chain(tail));
    }

    /// Adds a VMA where nothing is mapped, joining it with its neighbours where they match.
    pub(crate) fn insert(&mut self, vma: Vma) {
        if vma.end <= vma.start {
            return;
        }
        let index = self.first_after(vma.start);
        self.vmas.insert(index, vma);
        self.join(index);
        if let Some(before) = index.checked_sub(1) {
            self.join(before);
        }
    }

    /// Joins the VMA at `index` with the next one if they match.
    fn join(&mut self, index: usize) {
        let (Some(vma), Some(next)) = (self.vmas.get(index), self.vmas.get(index + 1)) else {
            return;
        };
        if vma.continues_into(next) {
            let end = next.end;
            self.vmas.remove(index + 1);
            if let Some(vma) = self.vmas.get_mut(index) {
                vma.end = end;
            }
        }
    }

    /// Checks a list that was read from a snapshot, beyond what decoding it has checked.
    pub(crate) fn check_stored(&self, limits: &Limits) -> Result<(), Refused> {
        match self.vmas_max <= limits.mappings
            && self.vmas.len() <= self.vmas_max
            && self.commit_bytes_max <= limits.commit_bytes
        {
            true => Ok(()),
            false => Err("more mappings, or memory in them, than a program may have"),
        }
    }

    /// Names what differs from `other`.
    pub(crate) fn differences(&self, other: &Self, into: &mut Vec<String>) {
        if self.vmas != other.vmas {
            let (ours, theirs) = (self.vmas.len(), other.vmas.len());
            let pair = self.vmas.iter().zip(&other.vmas).find(|(a, b)| a != b);
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

impl Rewind for AddressSpace {
    fn rewind_to(&mut self, snapshot: &Self, _related: bool) {
        let mut vmas = std::mem::take(&mut self.vmas);
        vmas.clone_from(&snapshot.vmas);
        *self = Self { vmas, ..*snapshot };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::fs::tree::NodeId;
    use crate::linux::mm::user_memory::Prot;
    use crate::linux::mm::vma::Backing;

    pub(crate) fn vma(start: u64, end: u64) -> Vma {
        Vma::anonymous(start, end, Prot::READ)
    }

    #[test]
    fn joins_neighbours_and_cuts_holes() {
        let mut space = AddressSpace::new(&Limits::default());
        space.insert(vma(0x10000, 0x11000));
        space.insert(vma(0x12000, 0x13000));
        space.insert(vma(0x11000, 0x12000));
        assert_eq!(space.vmas(), [vma(0x10000, 0x13000)]);
        space.remove(0x11000, 0x12000);
        assert_eq!(space.vmas(), [vma(0x10000, 0x11000), vma(0x12000, 0x13000)]);
        space.remove(0x0, 0x20000);
        assert!(space.vmas().is_empty());
    }

    #[test]
    fn keeps_file_offsets_when_it_cuts() {
        let mut space = AddressSpace::new(&Limits::default());
        let backing = |offset| Backing::File { node: NodeId::ROOT, offset };
        space.insert(Vma { backing: backing(0x5000), ..vma(0x10000, 0x14000) });
        space.remove(0x11000, 0x12000);
        assert_eq!(space.vmas()[1], Vma { backing: backing(0x7000), ..vma(0x12000, 0x14000) });
        space.insert(Vma { backing: backing(0x6000), ..vma(0x11000, 0x12000) });
        assert_eq!(space.vmas().len(), 1);
    }
}
