//! The numbers by which a campaign knows what a run did: blocks, edges, and classes of counts there.
//!
//! Never runs anything, and never decides what is worth keeping.

use dejavm_corpus::Shape;
use dejavm_engine::coverage::counts::{CLASSES, PlaceHit, place_of};
use dejavm_engine::coverage::detours::Detail;

/// What the numbers of a campaign stand for, and which of them are known.
#[derive(Debug)]
pub struct Numbers {
    detail: Detail,
    shape: Shape,
    known: Vec<bool>,
}

impl Numbers {
    /// None is known, of so many blocks and edges that are told in `detail`.
    pub fn new(detail: Detail, blocks: usize, edges: usize) -> Self {
        let classes = if detail == Detail::Counts { CLASSES as usize } else { 1 };
        let shape = Shape { blocks, edges, classes };
        Self { detail, shape, known: vec![false; shape.places() * classes] }
    }

    pub fn detail(&self) -> Detail {
        self.detail
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.known.len()
    }

    /// That of a block which was reached, nobody knows how often.
    pub fn of_block(&self, block: u32) -> u32 {
        block * self.shape.classes as u32
    }

    /// That of a place which a trace tells.
    pub fn of_place(&self, hit: &PlaceHit) -> u32 {
        match self.detail {
            Detail::Counts => hit.number(),
            Detail::Blocks | Detail::Edges => hit.place,
        }
    }

    /// Places, and the bit of a class at each.
    pub fn places(&self, numbers: &[u32]) -> Vec<(u32, u8)> {
        let place = |number: &u32| match self.detail {
            Detail::Counts => place_of(*number),
            Detail::Blocks | Detail::Edges => (*number, 1),
        };
        numbers.iter().map(place).collect()
    }

    /// The blocks among the places; one may come twice.
    pub fn blocks(&self, numbers: &[u32]) -> Vec<u32> {
        let mut places: Vec<u32> = numbers.iter().map(|n| self.shape.place_of(*n)).collect();
        places.dedup();
        places.retain(|place| (*place as usize) < self.shape.blocks);
        places
    }

    /// Those that are not known.
    pub fn unknown(&self, numbers: &[u32]) -> Vec<u32> {
        let is_unknown = |number: &u32| self.known.get(*number as usize) == Some(&false);
        numbers.iter().copied().filter(is_unknown).collect()
    }

    /// Makes numbers known, or unknown.
    pub fn know(&mut self, numbers: &[u32], are_known: bool) {
        for &number in numbers {
            if let Some(mark) = self.known.get_mut(number as usize) {
                *mark = are_known;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_as_many_numbers_as_are_told_apart() {
        let hit = PlaceHit { place: 2, count: 5 };
        let numbers = |detail| Numbers::new(detail, 2, 3);
        assert_eq!(numbers(Detail::Edges).total(), 5);
        assert_eq!(numbers(Detail::Edges).of_place(&hit), 2);
        let mut counts = numbers(Detail::Counts);
        assert_eq!((counts.total(), counts.of_place(&hit), counts.of_block(1)), (40, 19, 8));
        assert_eq!(counts.places(&[19]), [(2, 8)]);
        assert_eq!(counts.blocks(&[0, 8, 9, 19]), [0, 1]);
        counts.know(&[19, 1000], true);
        assert_eq!(counts.unknown(&[8, 19, 1000]), [8]);
    }
}
