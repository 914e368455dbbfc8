//! How a Linux program runs in a VM: at CPL 3, with no guest kernel.
//!
//! `trap` has the engine's own pages: descriptor tables, stubs that exit, the system-call gate, the
//! trampoline; `layout` says where they lie. `rewrite` has the guest write page-table entries that lost
//! a permission. `pages` is the process's memory, [`UserMemory`](crate::linux::UserMemory), over page
//! tables. `agent` lets a program put itself back between two inputs. `detours` has its blocks mark
//! themselves.
//!
//! Never serves a system call, nor decides what a signal or a page fault means: `linux` does. Never runs
//! a vCPU: `machine` does.

pub(crate) mod agent;
pub(crate) mod detours;
mod layout;
pub(crate) mod pages;
mod registers;
pub(crate) mod rewrite;
pub mod trap;
