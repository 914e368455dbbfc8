//! How a Linux program runs in a VM: at CPL 3, with no guest kernel.

pub mod agent;
mod layout;
pub mod pages;
mod registers;
pub mod rewrite;
pub mod trap;
