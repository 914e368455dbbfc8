//! Campaigns on a lock whose keys only its comparisons tell.

use super::Bench;
use crate::campaign::{Campaign, Options};
use crate::comparison::{Comparison, ComparisonKind};
use crate::coverage::BlockSet;
use crate::target::{CrashFacts, Execution, ExitKind, Inputs, Target, TargetError, Uninteresting};
use std::fs;
use std::time::Duration;

const NUMBER: [u8; 8] = 0x1122_3344_5566_7788_u64.to_be_bytes();
const WORD: &[u8] = b"keyword";

/// Opens for a number in its first eight bytes, and then for a word behind it.
struct Lock {
    known: BlockSet,
    blocks: Vec<u32>,
    batch_len: usize,
    /// Every input that was run by itself or in a batch, in order.
    log: Vec<Vec<u8>>,
}

impl Lock {
    fn new(batch_len: usize) -> Self {
        Self { known: BlockSet::new(8), blocks: Vec::new(), batch_len, log: Vec::new() }
    }

    fn look(&mut self, input: &[u8]) -> ExitKind {
        self.blocks = vec![0];
        if input.starts_with(&NUMBER) {
            self.blocks.push(1);
            if word(input) == WORD {
                return ExitKind::Crashed(CrashFacts::out_of_memory());
            }
        }
        ExitKind::Finished
    }
}

/// What is behind the number, up to its NUL.
fn word(input: &[u8]) -> &[u8] {
    let rest = input.get(8..).unwrap_or_default();
    rest.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl Target for Lock {
    fn blocks_total(&self) -> usize {
        8
    }

    fn run(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        self.log.push(input.to_vec());
        let exit_kind = self.look(input);
        let known = &mut self.known;
        self.blocks.retain(|&block| known.insert(block as usize));
        Ok(Execution { exit_kind, blocks: &self.blocks, duration: Duration::ZERO })
    }

    fn batch_len(&self) -> usize {
        self.batch_len
    }

    fn run_uninteresting(&mut self, inputs: &Inputs) -> Result<Uninteresting, TargetError> {
        let mut runs = 0;
        for input in inputs.iter() {
            let exit_kind = self.look(input);
            let is_new = self.blocks.iter().any(|&block| !self.known.contains(block as usize));
            if exit_kind != ExitKind::Finished || is_new {
                break;
            }
            self.log.push(input.to_vec());
            runs += 1;
        }
        Ok(Uninteresting { runs, duration: Duration::ZERO })
    }

    fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        let exit_kind = self.look(input);
        Ok(Execution { exit_kind, blocks: &self.blocks, duration: Duration::ZERO })
    }

    fn comparisons(&mut self, input: &[u8]) -> Result<Vec<Comparison>, TargetError> {
        let number = |bytes: &[u8]| bytes.iter().rev().copied().collect::<Vec<u8>>();
        let Some(first) = input.get(..8) else { return Ok(Vec::new()) };
        let kind = ComparisonKind::Integer { is_ordering: false };
        let mut found =
            vec![Comparison { site: 0, kind, left: number(first), right: number(&NUMBER) }];
        if first == NUMBER {
            let (kind, left) = (ComparisonKind::Text, word(input).to_vec());
            found.push(Comparison { site: 1, kind, left, right: WORD.to_vec() });
        }
        Ok(found)
    }

    fn known_blocks(&mut self, blocks: &[u32]) {
        for &block in blocks {
            self.known.insert(block as usize);
        }
    }

    fn set_timeout(&mut self, _: Duration) {}
}

const SEED: &[(&str, &[u8])] = &[("seed", b"01234567word\0..")];

fn crash(bench: &mut Bench, options: Options, lock: &mut Lock) -> bool {
    let summary = Campaign::new(options).unwrap().run(lock, &mut bench.events).unwrap();
    !summary.new_crashes.is_empty()
}

#[test]
fn comparisons_are_passed_one_after_the_other() {
    let mut bench = Bench::new(SEED);
    let options = Options { until_crash: true, executions: Some(3000), ..bench.options() };
    assert!(crash(&mut bench, options, &mut Lock::new(1)));
    let [seed, entry] = &bench.names("queue")[..] else { panic!("{:?}", bench.names("queue")) };
    assert!(seed.contains(",orig:seed"), "{seed}");
    assert!(entry.contains(",src:000000,") && entry.contains(",op:its,+cov"), "{entry}");
    let name = &bench.names("crashes")[0];
    let input = fs::read(bench.path("out/crashes").join(name)).unwrap();
    assert_eq!((&input[..8], word(&input)), (&NUMBER[..], WORD));
}

#[test]
fn without_comparisons_they_are_not() {
    let mut bench = Bench::new(SEED);
    let options = Options {
        until_crash: true,
        executions: Some(20_000),
        comparisons: false,
        ..bench.options()
    };
    assert!(!crash(&mut bench, options, &mut Lock::new(1)));
}

#[test]
fn the_same_inputs_run_however_many_at_once() {
    let ran = |batch_len| {
        let mut bench = Bench::new(SEED);
        let mut lock = Lock::new(batch_len);
        let options = Options { executions: Some(2000), ..bench.options() };
        crash(&mut bench, options, &mut lock);
        lock.log
    };
    let one_by_one = ran(1);
    for batch_len in [2, 16, 300] {
        let batched = ran(batch_len);
        let count = one_by_one.len().min(batched.len());
        assert!(count > 1500 && one_by_one[..count] == batched[..count], "{batch_len}");
    }
}
