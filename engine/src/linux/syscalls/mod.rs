//! System calls: `dispatch` leads from a number to the function that carries the call out, in the file
//! of its family.
//!
//! The functions check arguments as Linux does, copy them in, and hand them to the process's parts.
//! Never decides what a file or a mapping is.

pub(crate) mod capability;
pub(crate) mod copy;
pub(crate) mod descriptor;
pub(crate) mod dispatch;
pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod futex;
pub(crate) mod getdents;
pub(crate) mod identity;
pub(crate) mod iovec;
pub(crate) mod memory;
pub(crate) mod missing_paths;
pub(crate) mod mmap;
pub(crate) mod observe;
pub(crate) mod open;
pub(crate) mod path;
pub(crate) mod pipe;
pub(crate) mod poll;
pub(crate) mod proc;
pub(crate) mod repeat;
pub(crate) mod residency;
pub(crate) mod scheduling;
pub(crate) mod shared_files;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod stat;
pub(crate) mod thread;
pub(crate) mod time;
pub(crate) mod timer;
pub(crate) mod xattr;
