//! What page tables could not do.

use crate::memory::OutOfRam;

/// What page tables could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TablesError {
    /// There is no frame left for a page or for a table.
    #[error("no free frame is left")]
    Full,
    /// A table or a page is outside of RAM. This module builds none there: a snapshot file said so.
    #[error("page tables lead outside of RAM")]
    OutOfRam(#[from] OutOfRam),
    /// Pages were to be opened or closed in tables that have no guard.
    #[error("the page tables do not guard their pages")]
    NotGuarded,
}
