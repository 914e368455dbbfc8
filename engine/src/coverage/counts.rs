//! How often a run was at a place, in AFL's classes.
//!
//! A place is a block or an edge. A class at a place has a number of its own, so that a set of numbers
//! says which classes were seen anywhere. Never counts.

/// Classes of counts at one place: 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, 128 and more.
pub const CLASSES: u32 = 8;

/// A place that a run reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlaceHit {
    /// Its number: blocks come first, by theirs, and then edges.
    pub place: u32,
    /// How often, at least: 255 is followed by 1, and where counting could be read it is 1.
    pub count: u8,
}

impl PlaceHit {
    /// The number of the count's class at the place.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.place.wrapping_mul(CLASSES).wrapping_add(class_of(self.count))
    }
}

/// The class of a count that is not 0.
#[must_use]
pub const fn class_of(count: u8) -> u32 {
    match count {
        0..=1 => 0,
        2 => 1,
        3 => 2,
        4..=7 => 3,
        8..=15 => 4,
        16..=31 => 5,
        32..=127 => 6,
        128..=255 => 7,
    }
}

/// The place that a number is for, and the class as one bit.
#[must_use]
pub const fn place_of(number: u32) -> (u32, u8) {
    (number / CLASSES, 1 << (number % CLASSES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_place_and_class() {
        let hit = |place, count| PlaceHit { place, count }.number();
        assert_eq!([hit(0, 1), hit(0, 255), hit(1, 1), hit(7, 4)], [0, 7, 8, 59]);
        assert_eq!(place_of(59), (7, 8));
        let classes: Vec<u32> = (1..=255).map(class_of).collect();
        assert!(
            classes.is_sorted() && classes.ends_with(&[7]) && classes.starts_with(&[0, 1, 2, 3])
        );
    }
}
