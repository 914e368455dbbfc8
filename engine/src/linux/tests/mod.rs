//! Tests of the process kernel over a plain map of pages in place of page tables: a file for each
//! family of calls, named as its file of `syscalls`, and what belongs to none.

mod capability;
mod copy;
mod descriptor;
mod event;
mod families;
mod file;
mod futex;
mod getdents;
mod hostile;
mod identity;
mod iovec;
mod loading;
mod memory;
mod mmap;
pub(crate) mod mock;
mod observing;
mod open;
mod page_faults;
mod path;
mod pipe;
mod poll;
mod residency;
mod rewinding;
mod scheduling;
mod signal;
mod socket;
mod stat;
mod thread;
mod time;
mod timer;
mod xattr;
