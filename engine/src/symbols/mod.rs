//! What an address in a guest means: symbols, source lines, unwinding, disassembly.
//!
//! A [`Symbolizer`] is made from the images that a guest has loaded and answers for runtime
//! addresses. It is lazy: an image's symbols, frame entries and DWARF are parsed when the first
//! question needs them, and kept.
//!
//! Never reads a guest by itself (the caller hands in bytes or a reader) and never fails on what
//! an image or a guest holds: damaged or missing information makes an answer smaller.

mod disassembly;
pub(crate) mod elf;
mod frame;
pub(crate) mod frames;
mod image;
mod key;
mod lines;
mod location;
mod names;
mod symbolizer;
mod unwind;

pub use disassembly::Line;
pub use elf::ElfError;
pub use frame::{FoundBy, Frame, UnwindRegisters};
pub use image::{Image, Images};
pub use key::{caller_frame, crash_frame, crash_key, frame_key, is_crash_machinery};
pub use location::{CodeLocation, InFunction, InImage, SourceFrame};
pub use names::{NameError, demangle};
pub use symbolizer::Symbolizer;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod tools;
