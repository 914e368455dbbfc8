//! The comparisons that a program makes: which instructions and functions compare, and what they
//! compared in a run.
//!
//! A comparison that fails says what it would have been satisfied with, and where that has to stand
//! in an input is often plain to see: the value compared with it is in the input. So the operands of
//! each comparison are logged, by code of the program's own: a detour before the instruction stores
//! them ([`emit`](super::detours::emit)), and makes no exit.
//!
//! An instruction that compares overwrites the arithmetic flags, so that what stands before it may
//! change them. A vector comparison leaves them alone, and is logged only where they are overwritten
//! before they are read. Compilers join parts of a long value by XOR, OR and a branch, so that XOR
//! with a constant or with memory counts as a comparison, too.
//!
//! Functions that compare strings are logged where they are called by name, and by a breakpoint of
//! their own a few times, for calls through pointers.
//!
//! Pure: never sees a machine. What a log says was written by a hostile program.

mod callees;
mod compared;
mod evaluate;
mod find;
mod functions;
mod log;
mod operands;
mod stub;

pub use compared::{Compared, ComparedKind};
pub use evaluate::evaluate;
pub use find::{Comparison, find};
pub use functions::{STRING_BYTES_MAX, StringFunction, functions};
pub use log::{DATA_HEADER_BYTES, Logged, counts_range, data_bytes, parse, records_range};
pub use stub::{Logger, STUB_BYTES_MAX};
