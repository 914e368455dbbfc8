//! Threads, what they wait for (`wait`), and timers.
//!
//! Never serves a system call, and never touches memory.

pub(crate) mod stop;
pub(crate) mod thread;
pub(crate) mod threads;
pub(crate) mod timers;
pub(crate) mod wait;
