//! A set of coverage blocks.
//!
//! LibAFL's map feedbacks compare a whole map after each run. Here a target reports the few blocks
//! that are new, usually none, so a set that is asked about those few costs nothing on the runs
//! that find nothing. It never learns how a block was reached, or how often.

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

#[cfg(test)]
mod tests {
    use super::*;

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
