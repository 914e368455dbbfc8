//! The layering of the whole workspace, read from its own sources: every arrow runs one way.
//!
//! A file uses another where it names something in it: by a `use`, by a path, by a path inside a
//! macro. No files may use each other in a circle, no module may use one that stands below it in
//! its table, and the tables name what is there. Needs no `/dev/kvm` and runs nothing of the
//! workspace. `DEJAVM_LAYERING_ROOT=FOLDER` holds another work tree to the same claims.

#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panic")]

mod attributes;
mod circles;
mod claims;
mod crates;
mod edges;
mod fences;
mod findings;
mod ladder;
mod modules;
mod orphans;
mod paths;
mod resolve;
mod small_trees;
mod sources;
mod wings;
