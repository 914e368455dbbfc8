//! What a plan is made of: an image, the blocks that mark themselves and why the others do not.
//! Never decides which.

use crate::coverage::blocks::Blocks;
use std::ops::Range;

/// JMP rel32.
pub(super) const JUMP_BYTES: usize = 5;
/// An instruction that marks a place. Two of them count there.
pub(super) const MARK_BYTES: usize = 7;
/// JMP rel8.
pub(super) const HOP_BYTES: usize = 2;

/// An image in an address space.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// The ELF file.
    pub elf: &'a [u8],
    /// Its blocks, from [`find`](crate::coverage::blocks::find).
    pub blocks: &'a Blocks,
    /// What to add to the addresses in it.
    pub base: u64,
    /// The number of its first block; the others follow in order.
    pub first: u32,
}

impl Image<'_> {
    /// The number of the block that starts at `at`.
    pub(super) fn number_at(&self, at: u64) -> Option<u32> {
        let index = self.blocks.starts.binary_search(&at).ok()?;
        Some(self.first.wrapping_add(index as u32))
    }

    /// Where blocks start in `range`.
    pub(super) fn starts_in(&self, range: Range<u64>) -> &[u64] {
        let starts = &self.blocks.starts;
        let before = |at: u64| starts.partition_point(|start| *start < at);
        starts.get(before(range.start)..before(range.end)).unwrap_or_default()
    }

    /// The numbers of the blocks that start in `range`.
    pub(super) fn numbers_in(&self, range: Range<u64>) -> Range<u32> {
        let starts = &self.blocks.starts;
        let before = |at: u64| starts.partition_point(|start| *start < at) as u32;
        self.first.wrapping_add(before(range.start))..self.first.wrapping_add(before(range.end))
    }
}

/// How a block gets to its trampoline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By a jump over the instructions that moved.
    Jump,
    /// By a short jump, to a jump that stands at this link-time address.
    Hop { springboard: u64 },
    /// Its first instruction is a call, and calls the trampoline.
    Call,
}

/// Code that moves: blocks that mark themselves, or what only makes room. Addresses are link-time
/// ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub at: u64,
    /// Bytes of the instructions that move. Every block that starts among them marks itself.
    pub moved: usize,
    /// Bytes that nothing executes any more, from `at`: those and padding.
    pub room: usize,
    pub way: Way,
}

impl Site {
    /// Where the instructions that move are.
    pub(super) fn range(&self) -> Range<u64> {
        self.at..self.at + self.moved as u64
    }

    /// What is free once it has moved.
    pub(super) fn freed(&self) -> Range<u64> {
        let end = self.at + self.room as u64;
        match self.way {
            Way::Jump => self.at + JUMP_BYTES as u64..end,
            Way::Hop { .. } | Way::Call => end..end,
        }
    }
}

/// Why a block does not mark itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// Its bytes in memory are not the file's, or the machine has a breakpoint of its own there.
    Changed,
    /// It is shorter than a jump, and nothing near it has room for one.
    Short,
    /// It is one byte long.
    Byte,
    /// Its function is not understood, and its first instruction is shorter than a jump, with no room
    /// for one near it.
    Open,
    /// It begins with an instruction that has to stay where it is.
    Fixed,
    /// No trampoline can reach what its instructions refer to.
    OutOfReach,
}
