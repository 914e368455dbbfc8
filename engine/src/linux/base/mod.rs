//! What a process's state is made of: values that can be put back (`tracked`), byte strings (`bytes`)
//! and limits (`limits`).
//!
//! Never knows what any of them stands for.

pub(crate) mod bytes;
pub(crate) mod limits;
pub(crate) mod tracked;
