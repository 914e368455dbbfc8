//! The `dejavm` command.
#![forbid(unsafe_code)]
fn main() {}
