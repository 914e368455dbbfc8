//! Everything a process can open: `tree`, the in-memory file system; `table`, descriptors, open files
//! and pipes; `files`, both, with the input and what the program wrote; `missing_paths`, what it
//! looked for and did not find.
//!
//! Never touches guest memory and never the host's files.

pub(crate) mod files;
pub(crate) mod missing_paths;
pub(crate) mod table;
pub(crate) mod tree;
