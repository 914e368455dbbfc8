//! A set of coverage blocks, and what a queue has reached.
//!
//! LibAFL's map feedbacks compare a whole map after each run. Here a target reports the few blocks
//! that are new, usually none, so a set that is asked about those few costs nothing on the runs
//! that find nothing. It never learns how a block was reached, or how often, unless the target has
//! numbers for that.

use crate::target::Shape;

/// A fixed-size set of block numbers, one bit each.
#[derive(Debug, Clone)]
pub(crate) struct BlockSet {
    words: Vec<u64>,
    total: usize,
    len: usize,
}

impl BlockSet {
    /// An empty set of blocks below `total`.
    pub(crate) fn new(total: usize) -> Self {
        Self { words: vec![0; total.div_ceil(64)], total, len: 0 }
    }

    /// Number of blocks that can be in the set.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Number of blocks in the set.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds `block`; says whether it was new. A block outside the set is never new.
    pub(crate) fn insert(&mut self, block: usize) -> bool {
        let Some(word) = self.words.get_mut(block / 64).filter(|_| block < self.total) else {
            return false;
        };
        let bit = 1 << (block % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.len += usize::from(new);
        new
    }

    /// Whether `block` is in the set.
    pub(crate) fn contains(&self, block: usize) -> bool {
        self.words.get(block / 64).is_some_and(|word| word & (1 << (block % 64)) != 0)
    }

    /// The blocks in the set, in order.
    pub(crate) fn to_vec(&self) -> Vec<usize> {
        (0..self.total).filter(|&block| self.contains(block)).collect()
    }

    /// The first of `blocks` that cannot be in this set.
    pub(crate) fn foreign(&self, blocks: &[u32]) -> Option<u32> {
        blocks.iter().copied().find(|&block| block as usize >= self.total)
    }
}

/// The numbers that a queue has reached, and how many places those are.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    shape: Shape,
    numbers: BlockSet,
    places: BlockSet,
    blocks: usize,
}

impl Reached {
    /// Nothing, of `total` numbers.
    pub(crate) fn new(total: usize, shape: Shape) -> Self {
        let (numbers, places) = (BlockSet::new(total), BlockSet::new(shape.places()));
        Self { shape, numbers, places, blocks: 0 }
    }

    /// Adds a number.
    pub(crate) fn insert(&mut self, number: u32) {
        if !self.numbers.insert(number as usize) {
            return;
        }
        let place = self.shape.place_of(number) as usize;
        if self.places.insert(place) {
            self.blocks += usize::from(place < self.shape.blocks);
        }
    }

    /// The numbers.
    pub(crate) fn numbers(&self) -> &BlockSet {
        &self.numbers
    }

    /// What the numbers stand for.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Blocks among the places.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Edges among the places.
    pub(crate) fn edges(&self) -> usize {
        self.places.len() - self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_reached_once_whatever_its_number() {
        let mut reached = Reached::new(40, Shape { blocks: 2, edges: 3, classes: 8 });
        for number in [0, 7, 8, 16, 23, 39, 40, 1000] {
            reached.insert(number);
        }
        assert_eq!((reached.blocks(), reached.edges()), (2, 2));
        assert_eq!(reached.numbers().len(), 6);
    }

    #[test]
    fn counts_each_block_once() {
        let mut set = BlockSet::new(65);
        assert!(set.insert(64));
        assert!(!set.insert(64));
        assert!(set.contains(64) && !set.contains(0));
        assert_eq!((set.len(), set.to_vec()), (1, vec![64]));
    }

    #[test]
    fn never_holds_a_block_past_its_end() {
        let mut set = BlockSet::new(65);
        assert!(!set.insert(65) && !set.insert(1 << 20));
        assert!(!set.contains(65));
        assert_eq!(set.foreign(&[3, 65]), Some(65));
        assert_eq!((set.len(), set.total()), (0, 65));
    }
}
