//! Which edges between blocks have to mark themselves, because no block stands for them.
//!
//! An edge to a block that is reached in no other way is implied by that block, and one from a block
//! that goes nowhere else by where it comes from. What is left is a conditional branch to, or past
//! which lies, a block where something else arrives too.
//!
//! Never says whether an edge can mark itself, and leaves out the edges of jump tables and of calls.

use crate::coverage::blocks::{Blocks, Code};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};

/// One edge, by link-time addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The branch.
    pub from: u64,
    /// The block that it leads to.
    pub to: u64,
}

/// The edges of an image, in order: the same for each run of the same file.
#[derive(Clone, Debug, Default)]
pub struct Edges {
    sorted: Vec<Edge>,
}

impl Edges {
    /// Finds the edges of `elf`, in which `blocks` were found. Takes time linear in its code.
    #[must_use]
    pub fn find(elf: &[u8], blocks: &Blocks) -> Self {
        let mut sorted = Vec::new();
        for at in blocks.code.instructions() {
            let bytes = blocks.code.bytes_from(elf, at);
            if may_be_branch(bytes) {
                let branch = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode();
                sorted.extend(edges_of(&branch, &blocks.code));
            }
        }
        sorted.sort_unstable();
        sorted.dedup();
        Self { sorted }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// All of them, in order.
    #[must_use]
    pub fn all(&self) -> &[Edge] {
        &self.sorted
    }

    /// Where `edge` stands among them; `None` if it need not mark itself.
    #[must_use]
    pub fn index_of(&self, edge: Edge) -> Option<u32> {
        self.sorted.binary_search(&edge).ok().map(|index| index as u32)
    }

    /// The edges of branches at `from` and before `to`.
    #[must_use]
    pub fn within(&self, from: u64, to: u64) -> &[Edge] {
        let before = |at: u64| self.sorted.partition_point(|edge| edge.from < at);
        self.sorted.get(before(from)..before(to)).unwrap_or_default()
    }
}

/// Whether a conditional branch can begin so: only for speed.
fn may_be_branch(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x70..=0x7f | 0x0f | 0xe0..=0xe3 | 0xf2 | 0x2e | 0x3e | 0x67))
}

fn edges_of(branch: &Instruction, code: &Code) -> impl Iterator<Item = Edge> {
    let is_branch = branch.flow_control() == FlowControl::ConditionalBranch
        && branch.op0_kind() == OpKind::NearBranch64;
    let (from, taken, next) = (branch.ip(), branch.near_branch_target(), branch.next_ip());
    let ways = if is_branch && taken != next { [Some(taken), Some(next)] } else { [None; 2] };
    let joined = ways.map(|to| to.filter(|to| code.is_joined(*to)));
    joined.into_iter().flatten().map(move |to| Edge { from, to })
}
