//! x86-64's own numbers, by the names that the manuals have for them. Each is here once.
//!
//! Never knows what the engine does with one.

pub mod control;
pub mod exception;

/// Longest instruction, in bytes (Intel SDM vol. 2, 2.3.11).
pub const INSTRUCTION_BYTES_MAX: usize = 15;

/// INT3, which raises [`exception::BREAKPOINT`] (Intel SDM vol. 2, INT n/INTO/INT3/INT1).
pub const INT3: u8 = 0xcc;
