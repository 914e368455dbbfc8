//! Which basic blocks a run reached.

pub mod blocks;
