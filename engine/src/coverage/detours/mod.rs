//! Blocks that mark themselves: their first instructions move to a trampoline that writes a byte of
//! a map before them, so that a run tells which blocks it reached without an exit for each.
//!
//! What stands in the map changes nothing that the program computes: the store that marks a block
//! (`mov byte [rip + x], 1`) changes no flag that can be read and no register; moved instructions have the operands
//! that they had where they were; calls stay where they are, so that return addresses are the
//! program's own (a call that begins a block goes to its callee by way of a trampoline). The address
//! of x87 instructions can be read back, so that they stay too.
//!
//! Edges that no block stands for mark themselves likewise: past a branch that has moved, or in a stub
//! by which it goes to its target. Where the arithmetic flags are dead, a mark counts; it comes from 255
//! to 1.
//!
//! Never guesses. More than one instruction moves only in a function of which every arrival is
//! known ([`Code`](super::blocks::Code)); elsewhere what moves is one whole instruction. Nothing
//! moves that an address anywhere points into. What cannot be moved soundly is left, with the
//! reason, and has to be seen otherwise. What moved leaves INT3 behind it, so that an arrival there
//! is noticed.
//!
//! Pure: it never sees a machine and never writes to memory. A program that reads its own code sees
//! the jumps, as it sees breakpoints.

mod edges;
mod emit;
pub(super) mod flags;
mod marks;
mod moves;
mod plan;
mod relocated;
mod site;
mod springboards;

pub use edges::{Edge, Edges};
pub use emit::{Before, Emitted, Marker, Patch, Probe, emit};
pub use marks::{Detail, Marks};
pub use plan::{Plan, Surroundings, plan};
pub use relocated::relocated;
pub use site::{Image, Left};

#[cfg(test)]
mod tests;
