//! One VMA: which pages, who may do what with them, and what they hold at first.
//!
//! Never knows its neighbours, or where there is room for it.

use crate::linux::fs::tree::NodeId;
use crate::linux::mm::user_memory::Prot;
use bitflags::bitflags;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a VMA's pages hold before the process writes to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Backing {
    /// Zeros.
    Anonymous,
    /// Zeros; grown and shrunk by `brk`.
    Heap,
    /// Zeros; the initial stack.
    Stack,
    /// A file's bytes, from `offset` on at the VMA's start.
    File {
        /// Which file.
        node: NodeId,
        /// Page-aligned offset of the VMA's first byte.
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
    pub(crate) struct VmaFlags: u8 {
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
pub(crate) struct Object {
    pub(crate) number: u64,
    /// Where in it the VMA starts.
    pub(crate) offset: u64,
    /// Its length: accesses beyond it raise SIGBUS, as beyond a file's end.
    pub(crate) bytes: u64,
}

/// Bytes that more than one mapping can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    File(NodeId),
    Object(u64),
}

/// A run of pages with one owner and one protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Vma {
    /// First address; page-aligned.
    pub(crate) start: u64,
    /// First address beyond; page-aligned.
    pub(crate) end: u64,
    /// As asked for by the process.
    pub(crate) prot: Prot,
    /// What its pages hold.
    pub(crate) backing: Backing,
    pub(crate) flags: VmaFlags,
    /// Of an anonymous shared mapping.
    pub(crate) object: Option<Object>,
}

impl Vma {
    /// The part of the VMA between two addresses inside it.
    pub(crate) fn part(&self, start: u64, end: u64) -> Self {
        let start = start.clamp(self.start, self.end);
        let end = end.clamp(start, self.end);
        let bytes = start.saturating_sub(self.start);
        let backing = self.backing.advanced(bytes);
        let object = self.object.map(|object| object.advanced(bytes));
        Self { start, end, backing, object, ..*self }
    }

    /// A private mapping of zeros.
    pub(crate) fn anonymous(start: u64, end: u64, prot: Prot) -> Self {
        let (backing, flags) = (Backing::Anonymous, VmaFlags::MAY_WRITE);
        Self { start, end, prot, backing, flags, object: None }
    }

    pub(crate) fn is(&self, flags: VmaFlags) -> bool {
        self.flags.contains(flags)
    }

    /// Its permissions as `/proc/self/maps` shows them: `rw-p`.
    pub(crate) fn permissions(&self) -> String {
        let flag = |prot, letter| if self.prot.contains(prot) { letter } else { '-' };
        let shared = if self.is(VmaFlags::SHARED) { 's' } else { 'p' };
        let (read, write) = (flag(Prot::READ, 'r'), flag(Prot::WRITE, 'w'));
        String::from_iter([read, write, flag(Prot::EXEC, 'x'), shared])
    }

    /// Which shared bytes it shows, and from where on.
    pub(crate) fn shares(&self) -> Option<(Shared, u64)> {
        match (self.backing, self.object) {
            _ if !self.is(VmaFlags::SHARED) => None,
            (Backing::File { node, offset }, _) => Some((Shared::File(node), offset)),
            (_, Some(object)) => Some((Shared::Object(object.number), object.offset)),
            _ => None,
        }
    }

    /// Whether its bytes count against the commit limit (`accountable_mapping` in mm/mmap.c; a
    /// shared anonymous mapping is charged by its file, mm/shmem.c).
    pub(crate) fn is_charged(&self) -> bool {
        !self.is(VmaFlags::NO_RESERVE)
            && if self.is(VmaFlags::SHARED) {
                self.object.is_some()
            } else {
                self.prot.contains(Prot::WRITE)
            }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether `next`, which starts where `self` ends, can be one VMA with it.
    pub(crate) fn continues_into(&self, next: &Self) -> bool {
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

impl fmt::Display for Vma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x} {}", self.start, self.end, self.permissions())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_permissions_as_linux_does() {
        let vma = |prot| Vma::anonymous(0x1000, 0x3000, prot);
        assert_eq!(vma(Prot::empty()).permissions(), "---p");
        assert_eq!(vma(Prot::READ | Prot::WRITE).to_string(), "1000-3000 rw-p");
        let shared = Vma { flags: VmaFlags::SHARED, ..vma(Prot::READ | Prot::EXEC) };
        assert_eq!(shared.permissions(), "r-xs");
    }
}
