//! Words in guest memory. Never knows what they mean.

use crate::address::Gpa;
use crate::memory::{GuestMemory, OutOfRam};

/// Writes `words` one after another.
///
/// # Errors
/// The memory is missing.
pub(super) fn write_words(
    memory: &mut GuestMemory,
    at: Gpa,
    words: &[u64],
) -> Result<(), OutOfRam> {
    for (index, word) in (0..).zip(words) {
        memory.write_unmarked(at.wrapping_add(index * 8), &word.to_le_bytes())?;
    }
    Ok(())
}
