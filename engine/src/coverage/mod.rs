//! Which basic blocks a run reached.
//!
//! [`blocks`] finds where blocks start; [`Breakpoints`] patches them into a guest's code and takes
//! them out. Never decides what a reached block is worth.

pub mod blocks;
mod breakpoints;

pub use breakpoints::{Arm, Breakpoints};
