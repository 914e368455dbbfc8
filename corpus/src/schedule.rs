//! The queue: which entry is mutated next, how often, and how. All of it is LibAFL's.
//!
//! Entries are chosen by LibAFL's weighted scheduler over its minimizer, which prefers for each
//! block the entry with the least length times work; energy is AFL's performance score; mutations
//! are havoc, crossover and dictionary tokens, and a share of them a mutator of the user's own. Some
//! start from an edit that an entry's comparisons suggest, and a few repeat a piece of it. What
//! is added here keeps one seed one campaign:
//!
//! - *Work instead of time.* LibAFL weighs entries by the time they took. Here each entry costs a
//!   fixed price, one unit for each block it reaches and some for each call it makes, which no clock
//!   can change.
//! - *Order.* LibAFL's minimizer walks a hash map with random keys when it chooses favoured
//!   entries, and it never takes the mark away again; [`Queue`] does the same walk in the order of
//!   the blocks.
//!
//! Never runs an input, never touches a file, never looks at a clock.

use std::num::NonZeroUsize;
use std::time::Duration;

use libafl::corpus::{Corpus, CorpusId, InMemoryCorpus, SchedulerTestcaseMetadata, Testcase};
use libafl::feedbacks::MapIndexesMetadata;
use libafl::inputs::{BytesInput, HasMutatorBytes, ResizableMutator};
use libafl::mutators::havoc_mutations::HavocMutationsType;
use libafl::mutators::token_mutations::{TokenInsert, TokenReplace};
use libafl::mutators::{
    HavocScheduledMutator, MutationResult, Mutator, Tokens, havoc_mutations, tokens_mutations,
};
use libafl::observers::map::ExplicitTracking;
use libafl::observers::{CanTrack, StdMapObserver};
use libafl::schedulers::minimizer::{
    DEFAULT_SKIP_NON_FAVORED_PROB, IndexesLenTimeMinimizerScheduler, IsFavoredMetadata,
    MinimizerScheduler, TopRatedsMetadata,
};
use libafl::schedulers::powersched::{PowerSchedule, SchedulerMetadata};
use libafl::schedulers::testcase_score::{
    CorpusPowerTestcaseScore, CorpusWeightTestcaseScore, TestcaseScore,
};
use libafl::schedulers::weighted::WeightedScheduler;
use libafl::schedulers::{HasQueueCycles, RemovableScheduler, Scheduler};
use libafl::state::{HasCorpus, HasMaxSize, HasRand, StdState};
use libafl::{Error, HasMetadata};
use libafl_bolts::rands::{Rand, StdRand};
use libafl_bolts::tuples::{Merge, merge_tuple_list_type, tuple_list_type};

use crate::coverage::BlockSet;
use crate::edit::Edit;
use crate::mutator::{Choices, CustomMutator};
use crate::repeat::repeat;

/// Price of a run that reaches no block, in blocks. A run's fixed cost (rewind, exit) outweighs
/// that of its blocks, so an entry must reach many more blocks to count as slow.
const RUN_WORK: u64 = 1024;

/// Price of a call, in blocks: a quarter of a run's fixed cost. In a batch some system calls are an
/// exit, and dearer; others never leave the guest.
const CALL_WORK: u64 = 256;

/// Calls beyond which an entry is as dear as can be: LibAFL adds the work of all entries up.
const CALLS_MAX: u64 = 1 << 20;

/// Mutations stacked on one another: 2 to 2^4, AFL++'s default. LibAFL's 2^7 costs eight times as
/// much and leaves little of a short input.
const STACK_POWER: usize = 4;

/// Share of the mutants that start from an edit of their entry, where it has some: what a program
/// compares with is more often right than what is there, and much else must be right with it.
const EDITED: f64 = 0.2;

/// Share of the mutants that are an entry with a piece of it many times over.
const REPEATED: f64 = 0.005;

/// Edits that are kept of an entry, of a hundred bytes each.
const EDITS_KEPT: usize = 64;

/// Share of the edited ones that get no other mutation.
const EDITED_ALONE: f64 = 0.1;

type State = StdState<InMemoryCorpus<BytesInput>, BytesInput, StdRand, InMemoryCorpus<BytesInput>>;
type Map = StdMapObserver<'static, u8, false>;
type TrackedMap = ExplicitTracking<Map, true, false>;
type Weighted = WeightedScheduler<TrackedMap, Weight, Map>;
type Minimizer = IndexesLenTimeMinimizerScheduler<Weighted, BytesInput, TrackedMap>;
type Mutations =
    merge_tuple_list_type!(HavocMutationsType, tuple_list_type!(TokenInsert, TokenReplace));

/// LibAFL's weight of an entry, or 1 for all as long as no entry reaches any block: LibAFL's
/// divides by the number of blocks reached and stops the process on the result.
struct Weight;

impl<S> TestcaseScore<BytesInput, S> for Weight
where
    S: HasCorpus<BytesInput> + HasMetadata,
{
    fn compute(state: &S, entry: &mut Testcase<BytesInput>) -> Result<f64, Error> {
        let top = state.metadata_map().get::<TopRatedsMetadata>();
        if top.is_none_or(|top| top.map().is_empty()) {
            return Ok(1.0);
        }
        CorpusWeightTestcaseScore::compute(state, entry)
    }
}

/// A turn of one entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// The entry whose turn it is.
    pub(crate) entry: CorpusId,
    /// How many mutants it is worth.
    pub(crate) energy: usize,
    /// It had no turn before.
    pub(crate) is_first: bool,
}

/// Where the sequence of random numbers stood at some time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RngCheckpoint(StdRand);

/// Numbers about the queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct QueueCounts {
    /// Entries preferred by the minimizer.
    pub(crate) favoured: usize,
    /// Entries that had no turn yet.
    pub(crate) pending: usize,
    /// Favoured entries that had no turn yet.
    pub(crate) pending_favoured: usize,
    /// Longest chain of mutants, 1 for a seed.
    pub(crate) depth: u64,
}

/// The inputs worth mutating.
pub(crate) struct Queue {
    state: State,
    scheduler: Minimizer,
    havoc: HavocScheduledMutator<Mutations>,
    custom: Option<Box<dyn CustomMutator>>,
    /// Edits of entries, by their numbers.
    edits: Vec<Vec<Edit>>,
    /// The entry whose turn it is.
    current: usize,
    counts: QueueCounts,
    blocks_total: usize,
    /// Entries were added since favoured ones were chosen.
    stale: bool,
}

impl Queue {
    /// An empty queue. Everything it will ever choose follows from `rng_seed` and what is added.
    pub(crate) fn new(
        rng_seed: u64,
        max_len: usize,
        tokens: Tokens,
        blocks_total: usize,
    ) -> Result<Self, Error> {
        let rand = StdRand::with_seed(rng_seed);
        let (corpus, solutions) = (InMemoryCorpus::new(), InMemoryCorpus::new());
        let mut state = StdState::new(rand, corpus, solutions, &mut (), &mut ())?;
        state.set_max_size(max_len);
        if !tokens.is_empty() {
            state.add_metadata(tokens);
        }
        // The schedulers ask for an observer to know its type and its name, not to read it.
        let map = StdMapObserver::owned("blocks", vec![0]).track_indices();
        let schedule = Some(PowerSchedule::explore());
        let weighted = WeightedScheduler::with_schedule(&mut state, &map, schedule);
        Ok(Self {
            scheduler: MinimizerScheduler::new(&map, weighted),
            custom: None,
            edits: Vec::new(),
            current: 0,
            havoc: HavocScheduledMutator::with_max_stack_pow(
                havoc_mutations().merge(tokens_mutations()),
                STACK_POWER,
            ),
            state,
            counts: QueueCounts::default(),
            blocks_total,
            stale: false,
        })
    }

    /// Adds an input that reaches exactly `blocks` with so many calls, mutated from `parent`.
    pub(crate) fn add(
        &mut self,
        input: &[u8],
        blocks: &[u32],
        calls: u64,
        parent: Option<CorpusId>,
    ) -> Result<CorpusId, Error> {
        let mut indexes: Vec<usize> = blocks.iter().map(|&block| block as usize).collect();
        indexes.sort_unstable();
        // LibAFL counts how many blocks an entry is best at; a repeated one would be counted twice.
        indexes.dedup();
        let reached = indexes.len().max(1) as u64;
        // One unit of work is a millisecond: LibAFL's minimizer counts in these.
        let work = RUN_WORK + reached + CALL_WORK * calls.min(CALLS_MAX);
        let work = Duration::from_millis(work);
        let mut testcase = Testcase::new(BytesInput::from(input));
        testcase.set_exec_time(work);
        testcase.add_metadata(MapIndexesMetadata::new(indexes));

        let id = self.state.corpus_mut().add(testcase)?;
        // LibAFL takes the parent, and from it the depth, from the entry whose turn it is.
        let turn = std::mem::replace(self.state.corpus_mut().current_mut(), parent);
        let added = self.scheduler.on_add(&mut self.state, id);
        *self.state.corpus_mut().current_mut() = turn;
        added?;
        self.calibrate(id, reached, work)?;
        self.counts.pending += 1;
        self.stale = true;
        Ok(id)
    }

    /// Writes down what LibAFL's calibration stage would have measured.
    fn calibrate(&mut self, id: CorpusId, reached: u64, work: Duration) -> Result<(), Error> {
        let totals = self.state.metadata_mut::<SchedulerMetadata>()?;
        totals.set_exec_time(totals.exec_time() + work);
        totals.set_cycles(totals.cycles() + 1);
        totals.set_bitmap_size(totals.bitmap_size() + reached);
        // Block numbers have 32 bits, so the count is exact as a float.
        totals.set_bitmap_size_log(totals.bitmap_size_log() + (reached as f64).log2());
        totals.set_bitmap_entries(totals.bitmap_entries() + 1);
        let handicap = totals.queue_cycles();
        let mut testcase = self.state.corpus().get(id)?.borrow_mut();
        let entry = testcase.metadata_mut::<SchedulerTestcaseMetadata>()?;
        entry.set_cycle_and_time((work, 1));
        entry.set_bitmap_size(reached);
        entry.set_handicap(handicap);
        self.counts.depth = self.counts.depth.max(entry.depth());
        Ok(())
    }

    /// Chooses the next entry. The queue must not be empty.
    pub(crate) fn next(&mut self) -> Result<Turn, Error> {
        if self.stale {
            self.choose_favoured()?;
            self.stale = false;
        }
        let cycles = self.cycles();
        let mut entry = self.scheduler.base_mut().next(&mut self.state)?;
        while !self.is_favoured(entry)?
            && self.state.rand_mut().coinflip(DEFAULT_SKIP_NON_FAVORED_PROB)
        {
            entry = self.scheduler.base_mut().next(&mut self.state)?;
        }
        let mut testcase = self.state.corpus().get(entry)?.borrow_mut();
        let turns = testcase.scheduled_count();
        if turns == 0 {
            self.counts.pending -= 1;
            self.counts.pending_favoured -=
                usize::from(testcase.has_metadata::<IsFavoredMetadata>());
        }
        testcase.set_scheduled_count(turns + 1);
        self.current = entry.0;
        let score = CorpusPowerTestcaseScore::compute(&self.state, &mut testcase)?;
        drop(testcase);
        if self.cycles() != cycles {
            // Weights change with the turns an entry had. LibAFL computes them again only after an
            // entry was replaced, and does not look at what replaced it.
            let base = self.scheduler.base_mut();
            base.on_replace(&mut self.state, entry, &Testcase::<BytesInput>::default())?;
        }
        Ok(Turn { entry, energy: (score as usize).max(1), is_first: turns == 0 })
    }

    fn is_favoured(&self, id: CorpusId) -> Result<bool, Error> {
        Ok(self.state.corpus().get(id)?.borrow().has_metadata::<IsFavoredMetadata>())
    }

    /// Marks a small set of entries that together reach every block.
    fn choose_favoured(&mut self) -> Result<(), Error> {
        let corpus = self.state.corpus();
        let mut covered = BlockSet::new(self.blocks_total);
        let mut favoured = vec![false; corpus.count()];
        if let Some(top) = self.state.metadata_map().get::<TopRatedsMetadata>() {
            for block in 0..self.blocks_total {
                if covered.contains(block) {
                    continue;
                }
                let Some(&id) = top.map().get(&block) else { continue };
                let mark = favoured.get_mut(id.0);
                *mark.ok_or_else(|| Error::illegal_state("an entry that is not in the queue"))? =
                    true;
                for &index in &corpus.get(id)?.borrow().metadata::<MapIndexesMetadata>()?.list {
                    covered.insert(index);
                }
            }
        }
        self.counts.favoured = 0;
        self.counts.pending_favoured = 0;
        for (id, favoured) in corpus.ids().zip(favoured) {
            let mut testcase = corpus.get(id)?.borrow_mut();
            if favoured {
                testcase.add_metadata(IsFavoredMetadata {});
                self.counts.favoured += 1;
                self.counts.pending_favoured += usize::from(testcase.scheduled_count() == 0);
            } else {
                let _ = testcase.metadata_map_mut().remove::<IsFavoredMetadata>();
            }
        }
        Ok(())
    }

    /// Puts the bytes of `entry` into `bytes`.
    pub(crate) fn load(&self, entry: CorpusId, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let testcase = self.state.corpus().get(entry)?.borrow();
        let input = testcase.input().as_ref();
        let input = input.ok_or_else(|| Error::illegal_state("a queue entry without its input"))?;
        bytes.clear();
        bytes.extend_from_slice(input.mutator_bytes());
        Ok(())
    }

    /// Has a share of the mutants made by `mutator`.
    pub(crate) fn set_mutator(&mut self, mutator: Option<Box<dyn CustomMutator>>) {
        self.custom = mutator;
    }

    /// Makes `mutant` a mutant of `parent`; `false` if it came out unchanged. Reuses the memory of
    /// `mutant`.
    pub(crate) fn mutate(&mut self, parent: &[u8], mutant: &mut BytesInput) -> Result<bool, Error> {
        if let Some(is_changed) = self.mutate_by_custom(parent, mutant) {
            return Ok(is_changed);
        }
        if self.repeat(parent, mutant) {
            return Ok(true);
        }
        let is_edited = self.edit(parent, mutant);
        if is_edited && self.state.rand_mut().coinflip(EDITED_ALONE) {
            return Ok(mutant.mutator_bytes() != parent);
        }
        let is_changed = self.havoc.mutate(&mut self.state, mutant)? == MutationResult::Mutated;
        Ok(is_changed || is_edited)
    }

    /// Now and then puts `parent` into `mutant` with a piece of it many times over.
    fn repeat(&mut self, parent: &[u8], mutant: &mut BytesInput) -> bool {
        if !self.state.rand_mut().coinflip(REPEATED) {
            return false;
        }
        let max_len = self.state.max_size();
        let out = mutant.as_mut();
        out.clear();
        repeat(parent, &mut Choices::new(self.state.rand_mut()), max_len, out)
    }

    /// Puts `parent` into `mutant`, now and then with an edit of its own; whether there is one.
    fn edit(&mut self, parent: &[u8], mutant: &mut BytesInput) -> bool {
        let edits = self.edits.get(self.current).map_or(&[][..], Vec::as_slice);
        if let Some(end) = NonZeroUsize::new(edits.len())
            && self.state.rand_mut().coinflip(EDITED)
        {
            let chosen = self.state.rand_mut().below(end);
            if let Some(edit) = edits.get(chosen) {
                edit.apply(parent, mutant.as_mut());
                return true;
            }
        }
        mutant.resize(parent.len(), 0);
        mutant.mutator_bytes_mut().copy_from_slice(parent);
        false
    }

    /// Has mutants of `entry` start from some of `edits`, now and then.
    pub(crate) fn set_edits(
        &mut self,
        entry: CorpusId,
        edits: impl ExactSizeIterator<Item = Edit>,
    ) {
        let step = edits.len().div_ceil(EDITS_KEPT).max(1);
        self.edits.resize_with(self.edits.len().max(entry.0 + 1), Vec::new);
        if let Some(kept) = self.edits.get_mut(entry.0) {
            *kept = edits.step_by(step).collect();
        }
    }

    /// Adds tokens to the dictionary, at most `most` that it has not; how many.
    pub(crate) fn add_tokens<'t>(
        &mut self,
        tokens: impl Iterator<Item = &'t [u8]>,
        most: usize,
    ) -> usize {
        let dictionary = self.state.metadata_or_insert_with(Tokens::new);
        let is_new = tokens.map(|token| dictionary.add_token(&token.to_vec()));
        is_new.filter(|is_new| *is_new).take(most).count()
    }

    /// As [`mutate`](Self::mutate), by the user's own mutator; `None` if it is not its turn, or if
    /// it has no mutant that may be run.
    fn mutate_by_custom(&mut self, parent: &[u8], mutant: &mut BytesInput) -> Option<bool> {
        let custom = self.custom.as_ref()?;
        let max_len = self.state.max_size();
        let mut choices = Choices::new(self.state.rand_mut());
        if choices.below(100) >= usize::from(custom.percent()) {
            return None;
        }
        let bytes = mutant.as_mut();
        bytes.clear();
        let is_made = custom.mutate(parent, &mut choices, max_len, bytes);
        (is_made && bytes.len() <= max_len).then(|| bytes != parent)
    }

    /// Where the random numbers are, for [`restore`](Self::restore).
    pub(crate) fn rng_checkpoint(&self) -> RngCheckpoint {
        RngCheckpoint(*self.state.rand())
    }

    /// Goes back to a checkpoint, as if nothing had been chosen since: mutants that were made and
    /// not run are made once more.
    pub(crate) fn restore(&mut self, checkpoint: RngCheckpoint) {
        *self.state.rand_mut() = checkpoint.0;
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.state.corpus().count()
    }

    /// Times the scheduler went through the whole queue.
    pub(crate) fn cycles(&self) -> u64 {
        self.scheduler.queue_cycles()
    }

    /// Numbers about the queue.
    pub(crate) fn counts(&self) -> QueueCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(seed: u64) -> Queue {
        Queue::new(seed, 64, Tokens::new(), 100).unwrap()
    }

    fn turns(seed: u64) -> Vec<(usize, usize)> {
        let mut queue = queue(seed);
        for entry in 0..40_u32 {
            let blocks: Vec<u32> = (0..100).filter(|b| (b * 7 + entry) % 5 == 0).collect();
            queue.add(&[b'x'; 9], &blocks, 0, None).unwrap();
        }
        (0..200).map(|_| queue.next().map(|turn| (turn.entry.0, turn.energy)).unwrap()).collect()
    }

    #[test]
    fn same_seed_same_turns() {
        assert_eq!(turns(1), turns(1));
        assert_ne!(turns(1), turns(2));
    }

    #[test]
    fn favours_the_small_entry_and_the_only_one_that_reaches_a_block() {
        let mut queue = queue(1);
        let long = queue.add(&[b'x'; 60], &[1, 2], 0, None).unwrap();
        let short = queue.add(b"x", &[1, 2], 0, None).unwrap();
        let rare = queue.add(&[b'x'; 60], &[9], 0, None).unwrap();
        queue.next().unwrap();
        assert!(!queue.is_favoured(long).unwrap());
        assert!(queue.is_favoured(short).unwrap() && queue.is_favoured(rare).unwrap());
        assert_eq!(queue.counts().favoured, 2);
    }

    #[test]
    fn favours_the_entry_that_makes_fewer_calls_and_gives_it_more_turns() {
        let mut queue = queue(1);
        let dear = queue.add(b"xxxx", &[1, 2], 400, None).unwrap();
        let cheap = queue.add(b"yyyy", &[1, 2], 30, None).unwrap();
        let mut energy = [0, 0];
        for _ in 0..400 {
            let turn = queue.next().unwrap();
            energy[usize::from(turn.entry == cheap)] += turn.energy;
        }
        assert!(!queue.is_favoured(dear).unwrap() && queue.is_favoured(cheap).unwrap());
        assert!(energy[1] > 4 * energy[0], "{energy:?}");
    }

    #[test]
    fn takes_the_mark_from_an_entry_that_a_better_one_replaces() {
        let mut queue = queue(1);
        let long = queue.add(&[b'x'; 60], &[1, 2], 0, None).unwrap();
        queue.next().unwrap();
        assert!(queue.is_favoured(long).unwrap());
        queue.add(b"x", &[1, 2], 0, None).unwrap();
        queue.next().unwrap();
        assert!(!queue.is_favoured(long).unwrap());
    }

    #[test]
    fn schedules_a_queue_that_reaches_no_block() {
        let mut queue = queue(1);
        queue.add(b"a", &[], 0, None).unwrap();
        queue.add(b"b", &[], 0, None).unwrap();
        for _ in 0..50 {
            queue.next().unwrap();
        }
        assert!(queue.cycles() > 0);
    }

    #[test]
    fn survives_a_block_that_is_named_twice() {
        let mut queue = queue(1);
        queue.add(&[b'x'; 9], &[1, 2], 0, None).unwrap();
        queue.add(b"x", &[2, 2, 2], 0, None).unwrap();
        for _ in 0..50 {
            queue.next().unwrap();
        }
        assert_eq!(queue.counts().favoured, 1, "the first reaches both");
    }

    #[test]
    fn never_makes_a_mutant_longer_than_allowed() {
        let mut queue = queue(1);
        let mut tokens = Tokens::new();
        tokens.add_token(&vec![b't'; 40]);
        queue.state.add_metadata(tokens);
        queue.add(&[b'x'; 60], &[1], 0, None).unwrap();
        queue.add(&[b'y'; 60], &[2], 0, None).unwrap();
        let mut mutant = BytesInput::new(Vec::new());
        for _ in 0..10_000 {
            queue.mutate(&[b'x'; 60], &mut mutant).unwrap();
            assert!(mutant.mutator_bytes().len() <= 64);
        }
    }

    /// Appends a random byte, or as many as it is asked for.
    #[derive(Debug)]
    struct Longer(usize);

    impl CustomMutator for Longer {
        fn mutate(
            &self,
            parent: &[u8],
            choices: &mut Choices<'_>,
            _: usize,
            mutant: &mut Vec<u8>,
        ) -> bool {
            mutant.extend_from_slice(parent);
            (0..self.0).for_each(|_| mutant.push(choices.any() as u8));
            self.0 > 0
        }

        fn percent(&self) -> u8 {
            100
        }
    }

    #[test]
    fn a_custom_mutator_makes_its_mutants_again_from_a_checkpoint() {
        let mut queue = queue(1);
        queue.set_mutator(Some(Box::new(Longer(1))));
        let mut mutants = || {
            let checkpoint = queue.rng_checkpoint();
            let mut mutant = BytesInput::new(Vec::new());
            let mut made = Vec::new();
            for _ in 0..20 {
                assert!(queue.mutate(b"abc", &mut mutant).unwrap());
                made.push(mutant.mutator_bytes().to_vec());
            }
            queue.restore(checkpoint);
            made
        };
        let made = mutants();
        assert!(made.iter().all(|mutant| mutant.len() == 4 && mutant.starts_with(b"abc")));
        assert_eq!(made, mutants());
    }

    #[test]
    fn havoc_makes_what_a_custom_mutator_has_not_or_has_too_long() {
        for longer in [0, 1000] {
            let mut queue = queue(1);
            queue.set_mutator(Some(Box::new(Longer(longer))));
            queue.add(&[b'x'; 60], &[1], 0, None).unwrap();
            let mut mutant = BytesInput::new(Vec::new());
            let mutated = (0..50).filter(|_| queue.mutate(&[b'x'; 60], &mut mutant).unwrap());
            assert!(mutated.count() > 40);
            assert!(mutant.mutator_bytes().len() <= 64);
        }
    }

    #[test]
    fn an_entry_without_its_input_is_an_error_and_not_an_empty_input() {
        let mut queue = queue(1);
        let entry = queue.add(b"a", &[1], 0, None).unwrap();
        *queue.state.corpus().get(entry).unwrap().borrow_mut().input_mut() = None;
        let mut bytes = b"old".to_vec();
        queue.load(entry, &mut bytes).unwrap_err();
        assert_eq!(bytes, b"old");
    }

    #[test]
    fn makes_the_same_mutants_again_from_a_checkpoint() {
        let mut queue = queue(1);
        queue.add(&[b'x'; 60], &[1], 0, None).unwrap();
        let checkpoint = queue.rng_checkpoint();
        let mut mutants = || {
            let mut mutant = BytesInput::new(Vec::new());
            let mut made = Vec::new();
            for _ in 0..20 {
                queue.mutate(&[b'x'; 60], &mut mutant).unwrap();
                made.push(mutant.mutator_bytes().to_vec());
            }
            queue.restore(checkpoint);
            made
        };
        assert_eq!(mutants(), mutants());
    }

    #[test]
    fn counts_depth_along_parents() {
        let mut queue = queue(1);
        let seed = queue.add(b"a", &[1], 0, None).unwrap();
        let child = queue.add(b"b", &[2], 0, Some(seed)).unwrap();
        queue.add(b"c", &[3], 0, Some(child)).unwrap();
        assert_eq!(queue.counts().depth, 3);
    }

    #[test]
    fn tokens_are_added_once_and_no_more_than_there_is_room_for() {
        let mut queue = queue(1);
        let words: [&[u8]; 3] = [b"one", b"two", b"three"];
        assert_eq!(queue.add_tokens(words.into_iter(), 2), 2);
        assert_eq!(queue.add_tokens(words.into_iter(), 2), 1);
        assert_eq!(queue.add_tokens(words.into_iter(), 2), 0);
    }

    #[test]
    fn some_mutants_start_from_an_edit_of_the_entry() {
        let mut queue = queue(1);
        queue.add(b"..........", &[1], 0, None).unwrap();
        queue.next().unwrap();
        queue.set_edits(CorpusId(0), vec![Edit::overwrite(2, b"WORD")].into_iter());
        let mut mutant = BytesInput::new(Vec::new());
        let mut edited = 0;
        for _ in 0..1000 {
            queue.mutate(b"..........", &mut mutant).unwrap();
            edited += usize::from(mutant.mutator_bytes().starts_with(b"..WORD"));
        }
        assert!((10..300).contains(&edited), "{edited}");
    }
}
