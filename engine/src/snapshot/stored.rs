//! What a guest kind's state must be able to do to be kept in a file.

use crate::memory::SlotSpec;
use crate::stored::HasBlobs;

/// What is wrong with state that was read from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsound(pub &'static str);

/// A guest kind's state, as a file holds it that nobody vouches for.
pub trait Stored: HasBlobs {
    /// Checks everything that later code relies on and that decoding cannot see: what is used as
    /// a bound, as an index or as an address, in a machine whose memory is `layout`.
    ///
    /// # Errors
    /// Says what no guest can have.
    fn check(&self, layout: &[SlotSpec]) -> Result<(), Unsound>;
}

/// State without anything to check.
impl Stored for () {
    fn check(&self, _layout: &[SlotSpec]) -> Result<(), Unsound> {
        Ok(())
    }
}
