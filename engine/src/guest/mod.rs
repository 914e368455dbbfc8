//! The kinds of guest, each from an image to its first instruction.
//!
//! Never runs a vCPU and never rewinds: a guest kind describes, the machine drives.

pub mod bare;
pub mod process;
