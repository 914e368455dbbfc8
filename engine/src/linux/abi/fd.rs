//! A file descriptor. Never knows what is open under it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A file descriptor: an `int`, so that of a register only the lower half counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Fd(u32);

impl Fd {
    /// `AT_FDCWD`: in the place of a directory's descriptor, the current directory.
    pub(crate) const CWD: Self = Self(libc::AT_FDCWD as u32);

    /// The descriptor that a register holds.
    pub(crate) const fn from_register(value: u64) -> Self {
        Self(value as u32)
    }

    /// The descriptor with this index in the table.
    pub(crate) fn from_index(index: usize) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }

    /// As an index into the table; that of a negative number is past every table's end.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The descriptor after this one.
    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl From<Fd> for u64 {
    /// As a call returns it.
    fn from(fd: Fd) -> Self {
        Self::from(fd.0)
    }
}

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_half_of_a_register_does_not_count() {
        assert_eq!(Fd::from_register(0xffff_ffff_0000_0003), Fd::from_register(3));
        assert_eq!(Fd::from_register(-100_i64 as u64), Fd::CWD);
        assert_eq!(Fd::from_register(0xffff_ff9c), Fd::CWD);
    }
}
