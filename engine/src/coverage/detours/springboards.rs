//! Room for jumps near blocks that are too short for one: bytes that nothing executes any more, and
//! padding.
//!
//! Never says which bytes those are.

use super::site::{HOP_BYTES, JUMP_BYTES};
use std::collections::BTreeMap;
use std::ops::Range;

/// Free room, by its start.
#[derive(Debug, Default)]
pub(super) struct Springboards {
    free: BTreeMap<u64, u64>,
}

impl Springboards {
    /// Adds room that nothing else has.
    pub(super) fn add(&mut self, room: Range<u64>) {
        if room.end.saturating_sub(room.start) >= JUMP_BYTES as u64 {
            self.free.insert(room.start, room.end);
        }
    }

    /// Takes room for a jump that a short jump at `at` reaches.
    pub(super) fn take(&mut self, at: u64) -> Option<u64> {
        let next = at.checked_add(HOP_BYTES as u64)?;
        let (low, high) = (next.saturating_sub(128), next.checked_add(127)?);
        let fits = |(start, end): (&u64, &u64)| {
            let place = (*start).max(low);
            let end_of_jump = place.checked_add(JUMP_BYTES as u64)?;
            (end_of_jump <= *end && place <= high).then_some((*start, *end, place))
        };
        // One that begins before the reach may extend into it.
        let before = self.free.range(..low).next_back().and_then(fits);
        let found = before.or_else(|| self.free.range(low..=high).find_map(fits));
        let (start, end, place) = found?;
        self.free.remove(&start);
        self.add(start..place);
        self.add(place + JUMP_BYTES as u64..end);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_once_and_only_within_reach() {
        let mut rooms = Springboards::default();
        rooms.add(1000..1012);
        rooms.add(2000..2004);
        assert_eq!(rooms.take(2000), None, "four bytes are no jump, and the others are too far");
        assert_eq!(rooms.take(1100), Some(1000));
        assert_eq!(rooms.take(900), Some(1005));
        assert_eq!(rooms.take(1000), None, "two bytes are left");
    }

    #[test]
    fn long_room_is_used_where_it_is_within_reach() {
        let mut rooms = Springboards::default();
        rooms.add(1000..5000);
        let places = [rooms.take(3000), rooms.take(3000), rooms.take(1000), rooms.take(4998)];
        assert_eq!(places, [Some(2874), Some(2879), Some(1000), Some(4872)]);
    }
}
