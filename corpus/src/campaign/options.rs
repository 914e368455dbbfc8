//! What a campaign is asked to do. Only data: nothing in it is checked here.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Longest input, in bytes, unless asked otherwise; AFL's limit.
pub const DEFAULT_MAX_LEN: usize = 1 << 20;

/// What a campaign is asked to do. The letters are AFL's.
#[derive(Debug, Clone)]
pub struct Options {
    /// `-i`: folder of seeds. Needed unless the output folder holds a campaign to go on with.
    pub input: Option<PathBuf>,
    /// `-o`: output folder; created if missing, gone on with if it holds a campaign.
    pub output: PathBuf,
    /// `-x`: dictionaries.
    pub dictionaries: Vec<PathBuf>,
    /// `-t`: time limit of one run. `None` takes five times the slowest seed, in steps of 20 ms,
    /// from 20 ms to 1 s, and doubles that, to at most 1 s, when many inputs finish a little later.
    pub timeout: Option<Duration>,
    /// `-V`: stop after this time, counted from this start.
    pub duration: Option<Duration>,
    /// `-E`: stop after this many executions, counted from the moment the queue is loaded. The
    /// campaign may make a few more to confirm what the last one found.
    pub executions: Option<u64>,
    /// `-s`: seed of the random numbers. `None` takes a random one.
    pub seed: Option<u64>,
    /// Stop at the first new crash.
    pub until_crash: bool,
    /// Longest input, in bytes. Longer seeds are skipped, longer mutants are never made.
    pub max_len: usize,
    /// Whether to ask the target what an entry compares, and to try what would have the comparisons
    /// turn out otherwise.
    pub comparisons: bool,
    /// Whether words that the target compares become tokens.
    pub auto_dictionary: bool,
    /// Stops the campaign once true; set it on Ctrl-C.
    pub stop: Arc<AtomicBool>,
    /// What the target is, for `fuzzer_stats`.
    pub target_mode: String,
    /// Name of the target, for `fuzzer_stats`.
    pub banner: String,
    /// The command, for `fuzzer_stats`.
    pub command_line: String,
}

impl Options {
    /// A campaign from the seeds in `input` to the folder `output`, without end.
    pub fn new(input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            input: Some(input.into()),
            output: output.into(),
            dictionaries: Vec::new(),
            timeout: None,
            duration: None,
            executions: None,
            seed: None,
            until_crash: false,
            max_len: DEFAULT_MAX_LEN,
            comparisons: true,
            auto_dictionary: true,
            stop: Arc::default(),
            target_mode: String::new(),
            banner: String::new(),
            command_line: String::new(),
        }
    }
}
