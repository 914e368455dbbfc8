//! What a program and its kernel agree on: numbers and names of calls, errors, registers, who the
//! process is. No state.
//!
//! Never knows what a call does.

pub(crate) mod errno;
pub(crate) mod fd;
pub(crate) mod ids;
pub(crate) mod names;
pub(crate) mod registers;
pub(crate) mod syscall;
