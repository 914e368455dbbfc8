//! Guest addresses and page numbers as types, so that a physical address is never taken for a
//! virtual one. Never knows what lies at an address.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Size of a base page in bytes.
pub const PAGE_SIZE: usize = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Address 0.
            pub const NULL: Self = Self(0);

            /// Whether this is address 0, by which a pointer says that there is nothing.
            #[must_use]
            pub const fn is_null(self) -> bool {
                self.0 == 0
            }

            /// The address `bytes` further on; wraps at 2^64, as the CPU's own arithmetic does.
            #[must_use]
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// The address `bytes` further on, or `None` past 2^64.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The first address of the page this address lies in.
            #[must_use]
            pub const fn page_floor(self) -> Self {
                Self(self.0 & !(PAGE_SIZE as u64 - 1))
            }

            /// Bytes from the start of the page to this address.
            #[must_use]
            pub const fn page_offset(self) -> usize {
                (self.0 & (PAGE_SIZE as u64 - 1)) as usize
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A guest-physical address in bytes.
    Gpa
}
address! {
    /// A guest-virtual (linear) address in bytes.
    Gva
}

/// A guest-physical page number: a [`Gpa`] divided by [`PAGE_SIZE`].
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Pfn(pub u64);

impl Pfn {
    /// The first address of the page.
    #[must_use]
    pub const fn gpa(self) -> Gpa {
        Gpa(self.0 << PAGE_SHIFT)
    }
}

impl From<Gpa> for Pfn {
    fn from(at: Gpa) -> Self {
        Self(at.0 >> PAGE_SHIFT)
    }
}

/// `bytes` rounded up to whole pages, in bytes; `None` past 2^64.
#[must_use]
pub const fn page_ceil(bytes: u64) -> Option<u64> {
    match bytes.checked_add(PAGE_SIZE as u64 - 1) {
        Some(sum) => Some(sum & !(PAGE_SIZE as u64 - 1)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_arithmetic_holds_at_the_edges() {
        assert_eq!(Gpa(0x1fff).page_floor(), Gpa(0x1000));
        assert_eq!(Gva(0x1fff).page_offset(), 0xfff);
        assert_eq!(Pfn::from(Gpa(0x2000)).gpa(), Gpa(0x2000));
        assert_eq!(page_ceil(1), Some(4096));
        assert_eq!(page_ceil(0), Some(0));
        assert_eq!(page_ceil(u64::MAX), None);
        assert_eq!(Gva(u64::MAX).checked_add(1), None);
    }
}
