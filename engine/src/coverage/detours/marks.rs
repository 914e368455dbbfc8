//! What marks itself, and how its places are numbered.
//!
//! Never finds a block or an edge.

use super::edges::{Edge, Edges};

/// How much a run with detours tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Which blocks it reached.
    #[default]
    Blocks,
    /// Which edges too.
    Edges,
    /// And how often, where counting changes nothing that the program can read.
    Counts,
}

/// The marks of an image besides those of its blocks.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// How much is told.
    pub detail: Detail,
    /// The image's edges; none where only blocks are told.
    pub edges: Edges,
    /// The number of the first edge; the others follow in order.
    pub first_edge: u32,
}

impl Marks {
    /// The number of an edge that marks itself.
    pub(super) fn number_of(&self, edge: Edge) -> Option<u32> {
        Some(self.first_edge.wrapping_add(self.edges.index_of(edge)?))
    }

    pub(super) fn are_counts(&self) -> bool {
        self.detail == Detail::Counts
    }
}
