//! Drives a process guest: exits become system calls, faults and breakpoints, and the answers
//! become registers.
//!
//! Never implements a system call and never decides which address is valid: that is
//! `guest::process`.

mod answer;
mod batch;
mod comparisons;
mod cpu;
mod detours;
mod driver;
mod entry;
mod exception;
mod exits;
mod fault;
mod gp_as_ud;
mod harness;
mod logging;
mod output;
mod points;
mod preempt;
mod registers;
mod served;
pub(super) mod state;

pub(super) use batch::BatchParts;
pub(super) use driver::ProcessDriver;
pub(super) use entry::install_xsave;
pub use state::{ProcessPoint, ProcessState};
