//! Reading along what a program writes, and ending its run there. Never looks at a program.

use std::fmt;

/// Where a program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Somebody who reads along what a program writes in its runs.
pub trait OutputWatch: fmt::Debug + Send {
    /// A system call has added `text` to `stream`. Whether the run ends there, as
    /// [`Outcome::OutputMatched`](crate::outcome::Outcome::OutputMatched).
    fn wrote(&mut self, stream: OutputStream, text: &[u8]) -> bool;

    /// What was written since the snapshot is gone: another run begins.
    fn rewound(&mut self);
}
