//! A batch of runs under the agent: the exits that are left, and what they mean.
//!
//! Never decides how the guest restores itself: that is `guest::process::agent`'s. Never believes
//! the agent's memory, which the program can write to, without its checks.

mod door;
mod faults;
mod parts;
mod run;

pub(in crate::machine) use parts::BatchParts;
