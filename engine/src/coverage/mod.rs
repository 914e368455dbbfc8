//! Which basic blocks a run reached.
//!
//! [`blocks`] finds where blocks start; [`Breakpoints`] patches them into a guest's code and takes
//! them out; [`detours`] rewrites code so that blocks mark themselves, and [`comparisons`] so that what is
//! compared is logged. Never decides what a reached block is worth.

pub mod blocks;
mod breakpoints;
pub mod comparisons;
pub mod counts;
pub mod detours;

pub use breakpoints::{Arm, Breakpoints};
