//! A target for tests: a maze of magic bytes with a crash at its end. Never looks at a clock.

use std::time::Duration;

use crate::coverage::BlockSet;
use crate::target::{CrashFacts, Execution, ExitKind, Inputs, Target, TargetError, Uninteresting};

/// Each byte of it that an input starts with is one more block; all of it is a crash.
pub(crate) const MAGIC: &[u8] = b"DEJA";

/// Blocks of the maze.
pub(crate) const BLOCKS: usize = 64;

/// Runs inputs by looking at their first bytes.
pub(crate) struct Maze {
    known: BlockSet,
    blocks: Vec<u32>,
    /// Time limit of a run.
    pub(crate) limit: Duration,
    /// Every input of the fast path, in order, if asked for.
    pub(crate) log: Option<Vec<Vec<u8>>>,
    /// Every block ever named to `forget_blocks`.
    pub(crate) forgotten: Vec<u32>,
    runs: u64,
    /// Fails the host at this run.
    pub(crate) fail_at: Option<u64>,
    /// Inputs that it asks for at once.
    pub(crate) batch_len: usize,
}

impl Maze {
    pub(crate) fn new() -> Self {
        Self {
            known: BlockSet::new(BLOCKS),
            blocks: Vec::new(),
            limit: Duration::MAX,
            log: None,
            forgotten: Vec::new(),
            runs: 0,
            fail_at: None,
            batch_len: 1,
        }
    }

    /// A maze that keeps every input it ran.
    pub(crate) fn logging() -> Self {
        Self { log: Some(Vec::new()), ..Self::new() }
    }

    /// What `input` does, and the blocks it reaches into `self.blocks`.
    fn walk(&mut self, input: &[u8], exact: bool) -> (ExitKind, Duration) {
        let steps = input.iter().zip(MAGIC).take_while(|(a, b)| a == b).count();
        self.blocks.clear();
        self.blocks.extend(0..=steps as u32);
        let mut time = Duration::from_micros(10);
        let mut special = |block: u32| self.blocks.push(block);
        let exit_kind = match input {
            [b'S', b'L', b'O', b'W', ..] => {
                special(10);
                time = Duration::from_millis(15);
                ExitKind::Finished
            }
            [b'C', b'R', b'A', b'W', b'L', ..] => {
                special(14);
                time = Duration::from_millis(30);
                ExitKind::Finished
            }
            [b'H', b'A', b'N', b'G', rest @ ..] => {
                special(11);
                // Two different ways to hang.
                special(20 + u32::from(rest.first().is_some_and(|&byte| byte > 127)));
                time = Duration::MAX;
                ExitKind::Finished
            }
            [b'F', b'L', b'A', b'K', b'Y', ..] if !exact => {
                special(12);
                ExitKind::Crashed(crash("SIGBUS", &["nowhere"]))
            }
            [b'M', b'E', b'M', b'O', b'R', b'Y', ..] => ExitKind::OutOfMemory,
            [b'F', b'O', b'R', b'K', ..] => ExitKind::Unsupported("fork".to_owned()),
            [b'G', b'H', b'O', b'S', b'T', ..] if !exact => {
                special(13);
                ExitKind::Finished
            }
            _ if steps == MAGIC.len() => {
                // The frames below the fifth differ with the input; the crash is one.
                let way = format!("way{}", input.len());
                ExitKind::Crashed(crash("SIGSEGV-write", &["a", "b", "c", "d", "e", &way]))
            }
            _ => ExitKind::Finished,
        };
        if time > self.limit { (ExitKind::TimedOut, self.limit) } else { (exit_kind, time) }
    }
}

fn crash(kind: &str, stack: &[&str]) -> CrashFacts {
    CrashFacts {
        kind: kind.to_owned(),
        stack: stack.iter().map(|&frame| frame.to_owned()).collect(),
        summary: format!("{kind} in {}", stack[0]),
        rule: None,
    }
}

impl Target for Maze {
    fn blocks_total(&self) -> usize {
        BLOCKS
    }

    fn run(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        self.runs += 1;
        if self.fail_at == Some(self.runs) {
            return Err(TargetError::new("the host is on fire"));
        }
        if let Some(log) = &mut self.log {
            log.push(input.to_vec());
        }
        let (exit_kind, duration) = self.walk(input, false);
        let known = &mut self.known;
        self.blocks.retain(|&block| known.insert(block as usize));
        Ok(Execution { exit_kind, blocks: &self.blocks, duration })
    }

    fn batch_len(&self) -> usize {
        self.batch_len
    }

    fn run_uninteresting(&mut self, inputs: &Inputs) -> Result<Uninteresting, TargetError> {
        let mut ran = Uninteresting::default();
        for input in inputs.iter() {
            let (exit_kind, duration) = self.walk(input, false);
            let is_new = self.blocks.iter().any(|&block| !self.known.contains(block as usize));
            if exit_kind != ExitKind::Finished || is_new {
                break;
            }
            self.runs += 1;
            if let Some(log) = &mut self.log {
                log.push(input.to_vec());
            }
            ran.runs += 1;
            ran.duration += duration;
        }
        Ok(ran)
    }

    fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        let (exit_kind, duration) = self.walk(input, true);
        Ok(Execution { exit_kind, blocks: &self.blocks, duration })
    }

    fn known_blocks(&mut self, blocks: &[u32]) {
        for &block in blocks {
            self.known.insert(block as usize);
        }
    }

    fn forget_blocks(&mut self, blocks: &[u32]) {
        self.forgotten.extend_from_slice(blocks);
        let mut known = BlockSet::new(BLOCKS);
        for block in 0..BLOCKS {
            if self.known.contains(block) && !blocks.contains(&(block as u32)) {
                known.insert(block);
            }
        }
        self.known = known;
    }

    fn set_timeout(&mut self, limit: Duration) {
        self.limit = limit;
    }
}
