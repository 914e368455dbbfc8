//! What the agent compares after each run: maps that the program's marks write.
//!
//! Never reads one.

use super::layout::{FACTS, facts};
use crate::coverage::counts::class_of;
use crate::memory::{GuestMemory, OutOfRam};

/// Maps that are compared at most.
pub(crate) const MAPS_MAX: usize = facts::MAPS_MAX as usize;

/// Half a byte has so many values.
const HALVES: u8 = 16;

/// Tells the agent which maps there are: the address of each, how many bytes are compared, a multiple of
/// 64, and the address where it is said which classes are news. With `are_counts` a class is AFL's of a
/// count, else 1 for any mark.
pub(super) fn write(
    memory: &mut GuestMemory,
    maps: &[[u64; 3]],
    are_counts: bool,
) -> Result<(), OutOfRam> {
    let class = |count: u8| match count {
        0 => 0,
        count if are_counts => 1 << class_of(count),
        _ => 1,
    };
    let low = (0..HALVES).map(class);
    let high = (0..HALVES).map(|half| class(half * HALVES));
    let tables: Vec<u8> = low.chain(high).chain([HALVES - 1; HALVES as usize]).collect();
    memory.write_unmarked(FACTS.gpa(facts::CLASSES), &tables)?;
    let words = maps.iter().take(MAPS_MAX).flatten().chain(&[0; 3]);
    let list: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    memory.write_unmarked(FACTS.gpa(facts::MAPS), &list)
}
