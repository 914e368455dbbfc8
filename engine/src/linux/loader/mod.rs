//! From a program on the host to a process at its first instruction: `spec` says what to boot, `load`
//! does it, with the ELF file (`elf`), its libraries, host files (`import`, `host_files`), the rest
//! of the file system (`rootfs`) and its stack.
//!
//! Host files are read here and nowhere else. Never runs a program.

pub(crate) mod elf;
pub(crate) mod host_files;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod libraries;
pub(crate) mod load;
pub(crate) mod rootfs;
pub(crate) mod spec;
pub(crate) mod stack;
