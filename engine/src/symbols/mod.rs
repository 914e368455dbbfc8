//! What an address in a guest means: symbols, source lines, unwinding, disassembly.

pub(crate) mod elf;
pub(crate) mod frames;

pub use elf::ElfError;
