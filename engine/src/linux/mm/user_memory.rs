//! The boundary between a process's system calls and the page tables that hold its memory.
//!
//! Never knows what a VMA or a file is: those live in the process; what stands behind this trait
//! is frames and page tables (or, in unit tests, a plain map).

use crate::address::Gva;
use crate::outcome::Access;
use bitflags::bitflags;
use serde::{Deserialize, Serialize};

bitflags! {
    /// Page permissions, with Linux's `PROT_*` values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub struct Prot: u8 {
        /// `PROT_READ`
        const READ = 1;
        /// `PROT_WRITE`; x86 pages that can be written can be read.
        const WRITE = 2;
        /// `PROT_EXEC`
        const EXEC = 4;
    }
}

/// A run of whole pages in virtual memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRange {
    /// First address; page-aligned.
    pub start: Gva,
    /// Number of pages.
    pub pages: u64,
}

/// An access that the page tables refuse: what a system call answers with `EFAULT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("guest {kind} at {at} is not allowed by its page tables")]
pub struct Inaccessible {
    /// The first address that could not be accessed.
    pub at: Gva,
    /// What was tried.
    pub kind: Access,
}

/// The machine's RAM, or the arena of page tables, is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest's memory is used up")]
pub struct OutOfFrames;

/// A process's virtual memory, as its loader and its system calls see it.
///
/// Only *present* pages exist here: a lazily mapped page is absent until the process maps it on
/// its first fault, and a `PROT_NONE` page is never present.
pub trait UserMemory {
    /// Copies guest memory at `at` to `out`. On failure the contents of `out` are unspecified.
    fn read(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible>;

    /// Copies `bytes` to guest memory at `at`, obeying write permission as the kernel's
    /// `copy_to_user` does. On failure a prefix (whole pages) may have been written; the error's
    /// address tells how far it got.
    fn write(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible>;

    /// As [`write`](Self::write), without regard to write permission: for loaders.
    fn populate(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible>;

    /// Gives every page of `range` that is absent a zeroed frame with permissions `prot`
    /// (which must not be empty). Pages already present keep their frame and permissions.
    fn map(&mut self, range: PageRange, prot: Prot) -> Result<(), OutOfFrames>;

    /// Makes the pages of `range` absent and frees their frames. Absent pages are skipped.
    fn unmap(&mut self, range: PageRange);

    /// Changes the permissions of those pages of `range` that are present. Empty permissions
    /// keep the frames but make every access fault.
    fn protect(&mut self, range: PageRange, prot: Prot);

    /// Moves the present pages of `range`, frames and all, to the same number of pages at `to`,
    /// which must be absent: `mremap`.
    fn relocate(&mut self, range: PageRange, to: Gva) -> Result<(), OutOfFrames>;

    /// The first page of `at..end` that has a frame, accessible or not. Costs what is mapped, not
    /// what the range spans.
    fn next_mapped(&self, at: Gva, end: Gva) -> Option<Gva>;

    /// Has the page at `to`, which is absent, show the frame of the page at `from`, with
    /// permissions of its own.
    fn alias(&mut self, from: Gva, to: Gva, prot: Prot) -> Result<(), OutOfFrames>;

    /// Makes the page at `at` absent and keeps its frame, which another page shows.
    fn forget(&mut self, at: Gva);

    /// As [`read`](Self::read), without regard to permissions.
    fn peek(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible>;

    /// Whether the page at `at` is present and allows `kind` at user privilege.
    fn allows(&self, at: Gva, kind: Access) -> bool;

    /// Whether small mappings get their pages at once. Else they come with the first access.
    fn fills_at_once(&self) -> bool {
        true
    }

    /// Frames that are still free, in pages.
    fn frames_free(&self) -> u64;
}
