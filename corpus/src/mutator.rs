//! A mutator of the user's own, for inputs that havoc rarely leaves valid: checksums, lengths,
//! grammars.
//!
//! Only the door: what a campaign does with it is in [`schedule`](crate::schedule). Never sees what
//! a run showed.

use libafl_bolts::rands::{Rand, StdRand};
use std::fmt::Debug;
use std::num::NonZeroUsize;

/// Makes mutants of a campaign beside LibAFL's havoc, after [`Campaign::set_mutator`].
///
/// It takes `&self`, and must make the same mutant of the same parent and the same random numbers:
/// a mutant that was made and not run is made once more, and one seed is one campaign.
///
/// [`Campaign::set_mutator`]: crate::Campaign::set_mutator
pub trait CustomMutator: Debug {
    /// Appends a mutant of `parent`, an input of the queue, to `mutant`, which is empty. `false`
    /// says that there is none, and then havoc makes one. So it does where the mutant is longer
    /// than `max_len` bytes.
    fn mutate(
        &self,
        parent: &[u8],
        choices: &mut Choices<'_>,
        max_len: usize,
        mutant: &mut Vec<u8>,
    ) -> bool;

    /// Of a hundred mutants, how many shall be made by this mutator rather than by havoc; more than
    /// 100 are all. LibAFL's mutators remain useful beside any other, so the default is half.
    fn percent(&self) -> u8 {
        50
    }
}

/// The campaign's random numbers, as a mutator may use them.
#[derive(Debug)]
pub struct Choices<'r> {
    rand: &'r mut StdRand,
}

impl<'r> Choices<'r> {
    pub(crate) fn new(rand: &'r mut StdRand) -> Self {
        Self { rand }
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.rand.next()
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        NonZeroUsize::new(end).map_or(0, |end| self.rand.below(end))
    }

    /// One of `items`; `None` of none.
    pub fn one_of<'i, T>(&mut self, items: &'i [T]) -> Option<&'i T> {
        items.get(self.below(items.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_among_nothing_is_none_and_no_panic() {
        let mut rand = StdRand::with_seed(1);
        let mut choices = Choices::new(&mut rand);
        assert_eq!(choices.below(0), 0);
        assert_eq!(choices.one_of::<u8>(&[]), None);
        assert_eq!(choices.one_of(&[7]), Some(&7));
        assert!((0..100).all(|_| choices.below(3) < 3));
    }

    #[test]
    fn one_seed_makes_one_sequence_of_choices() {
        let made = |seed| {
            let mut rand = StdRand::with_seed(seed);
            let mut choices = Choices::new(&mut rand);
            [choices.any(), choices.any(), choices.below(1000) as u64]
        };
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
    }
}
