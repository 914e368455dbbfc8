//! Process guests: an ordinary Linux x86-64 program at CPL 3 with no guest kernel.
//!
//! This module is the program's kernel: loader, address space, files and system calls, all over
//! in-memory state. It never makes a host system call on behalf of a guest, and never touches a
//! vCPU.

pub mod memory;
pub mod pages;
pub mod trap;
