//! A campaign with a mutator of one's own, for a format whose checksum havoc breaks.
//!
//! `cargo run --release -p dejavm-corpus --example custom_mutator`
//!
//! The target is a function in this file, so that nothing but this crate is needed; the command's
//! targets are machines. It prints what the same number of runs finds with and without the mutator.

use dejavm_corpus::{
    Campaign, Choices, CrashFacts, CustomMutator, Execution, ExitKind, Options, Target, TargetError,
};
use std::error::Error;
use std::time::Duration;

/// A record as the parser below wants it: a length, so many bytes, and their sum.
fn record(payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(255)];
    let sum = payload.iter().fold(0x5a_u8, |sum, byte| sum.rotate_left(3) ^ byte);
    [&[payload.len() as u8][..], payload, &[sum]].concat()
}

/// The payload of a record, if it is one.
fn payload(input: &[u8]) -> Option<&[u8]> {
    let (&length, rest) = input.split_first()?;
    let payload = rest.get(..usize::from(length))?;
    (record(payload) == input).then_some(payload)
}

/// Changes a payload and makes a record of it again.
#[derive(Debug)]
struct Records;

impl CustomMutator for Records {
    fn mutate(
        &self,
        parent: &[u8],
        choices: &mut Choices<'_>,
        max_len: usize,
        mutant: &mut Vec<u8>,
    ) -> bool {
        // An entry that is no record is left to havoc.
        let Some(payload) = payload(parent) else { return false };
        let mut payload = payload.to_vec();
        match choices.below(3) {
            0 => payload.insert(choices.below(payload.len() + 1), choices.any() as u8),
            1 if !payload.is_empty() => drop(payload.remove(choices.below(payload.len()))),
            _ => {
                let at = choices.below(payload.len());
                if let Some(byte) = payload.get_mut(at) {
                    *byte = choices.any() as u8;
                }
            }
        }
        payload.truncate(max_len.saturating_sub(2));
        mutant.extend_from_slice(&record(&payload));
        true
    }
}

/// A parser with a bug behind its checksum, and its coverage.
#[derive(Default)]
struct Parser {
    /// Blocks that need no report any more.
    known: [bool; Self::BLOCKS],
    blocks: Vec<u32>,
}

impl Parser {
    const KEYWORD: &[u8] = b"JUMP";
    /// Entered; a record; each byte of the keyword.
    const BLOCKS: usize = 2 + Self::KEYWORD.len();

    fn parse(&mut self, input: &[u8]) -> ExitKind {
        self.blocks.clear();
        self.blocks.push(0);
        let Some(payload) = payload(input) else { return ExitKind::Finished };
        let right = payload.iter().zip(Self::KEYWORD).take_while(|(a, b)| a == b).count();
        self.blocks.extend(1..=1 + right as u32);
        if right < Self::KEYWORD.len() {
            return ExitKind::Finished;
        }
        ExitKind::Crashed(CrashFacts {
            kind: "SIGSEGV-read".to_owned(),
            stack: vec!["jump".to_owned()],
            summary: "SIGSEGV reading in jump".to_owned(),
            rule: None,
        })
    }

    fn execution(&self, exit_kind: ExitKind) -> Execution<'_> {
        Execution { exit_kind, blocks: &self.blocks, duration: Duration::from_micros(1) }
    }
}

impl Target for Parser {
    fn blocks_total(&self) -> usize {
        Self::BLOCKS
    }

    fn run(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        let exit_kind = self.parse(input);
        let known = &mut self.known;
        self.blocks.retain(|&block| !std::mem::replace(&mut known[block as usize], true));
        Ok(self.execution(exit_kind))
    }

    fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        let exit_kind = self.parse(input);
        Ok(self.execution(exit_kind))
    }

    fn known_blocks(&mut self, blocks: &[u32]) {
        blocks.iter().for_each(|&block| self.known[block as usize] = true);
    }

    fn set_timeout(&mut self, _: Duration) {}
}

/// Crashes that `executions` runs find.
pub fn find(
    mutator: Option<Box<dyn CustomMutator>>,
    executions: u64,
) -> Result<u64, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let seeds = folder.path().join("seeds");
    std::fs::create_dir(&seeds)?;
    std::fs::write(seeds.join("hello"), record(b"hello"))?;
    let mut options = Options::new(seeds, folder.path().join("out"));
    (options.executions, options.seed, options.max_len) = (Some(executions), Some(1), 64);
    let mut campaign = Campaign::new(options)?;
    if let Some(mutator) = mutator {
        campaign.set_mutator(mutator);
    }
    Ok(campaign.run(&mut Parser::default(), &mut ())?.stats.crashes_unique)
}

/// The user's own mutator.
#[must_use]
pub fn records() -> Box<dyn CustomMutator> {
    Box::new(Records)
}

/// Shows both.
pub fn main() -> Result<(), Box<dyn Error>> {
    let executions = 50_000;
    println!("havoc alone: {} crash in {executions} runs", find(None, executions)?);
    println!("with a mutator for records: {} crash", find(Some(records()), executions)?);
    Ok(())
}
