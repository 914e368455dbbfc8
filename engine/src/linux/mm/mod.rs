//! Memory: which addresses a process has (`address_space`, of `vma`s), what mapping does to page
//! tables (`mapping`, `remap`, `discard`, `sharing`), and copies to and from it (`uaccess`).
//!
//! Page tables are behind a trait, [`user_memory::UserMemory`]. Never parses a system call's
//! arguments.

pub(crate) mod address_space;
pub(crate) mod bounds;
pub(crate) mod discard;
pub(crate) mod mapping;
pub(crate) mod remap;
pub(crate) mod sharing;
pub(crate) mod uaccess;
pub(crate) mod user_memory;
pub(crate) mod vma;
