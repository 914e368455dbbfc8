//! Whole campaigns, on a maze: the loop and its findings.

mod compare;
mod kill;
mod start;

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use libafl::corpus::CorpusId;
use libafl::mutators::Tokens;

use super::state::CampaignState;
use super::{Campaign, CampaignError, Options};
use crate::mock::{BLOCKS, MAGIC, Maze};
use crate::out::OutFolder;
use crate::stats::{Event, Progress, Stats, StopReason, Summary};
use crate::target::{Execution, ExitKind, Target, TargetError};

/// The longest input of these campaigns, in bytes.
const MAX_LEN: usize = 64;

/// Folders for one test, removed with it.
struct Bench {
    folder: tempfile::TempDir,
    events: Events,
}

#[derive(Default)]
struct Events(Vec<String>);

impl Progress for Events {
    fn update(&mut self, _: &Stats) {}
    fn event(&mut self, event: &Event<'_>) {
        self.0.push(event.to_string());
    }
}

impl Bench {
    fn new(seeds: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        for (name, bytes) in seeds {
            fs::write(folder.path().join("in").join(name), bytes).unwrap();
        }
        Self { folder, events: Events::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self) -> Options {
        Options {
            seed: Some(1),
            executions: Some(2000),
            timeout: Some(Duration::from_millis(10)),
            max_len: MAX_LEN,
            command_line: "dejavm fuzz".to_owned(),
            ..Options::new(self.path("in"), self.path("out"))
        }
    }

    fn run(&mut self, options: Options, maze: &mut Maze) -> Result<Summary, CampaignError> {
        Campaign::new(options)?.run(maze, &mut self.events)
    }

    /// Options whose mutants crash often: the dictionary knows the way.
    fn crashing(&self) -> Options {
        fs::write(self.path("way"), "\"DEJA\"").unwrap();
        Options { executions: Some(20_000), dictionaries: vec![self.path("way")], ..self.options() }
    }

    /// Runs until a crash is found, at the latest after half a million executions.
    fn crash(&mut self) -> Summary {
        let options = Options { until_crash: true, executions: Some(500_000), ..self.options() };
        self.run(options, &mut Maze::new()).unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        names(&self.path("out").join(folder))
    }

    fn heard(&self, what: &str) -> bool {
        self.events.0.iter().any(|event| event.contains(what))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

const SEED: &[(&str, &[u8])] = &[("seed", b"xxxx")];

#[test]
fn finds_the_crash_at_the_end_of_the_maze() {
    let mut bench = Bench::new(SEED);
    let summary = bench.crash();
    assert_eq!(summary.reason, StopReason::Crash);
    let name = &bench.names("crashes")[0];
    assert!(name.starts_with("id:000000,sig:SIGSEGV-write,src:00000"), "{name}");
    assert!(name.contains(",op:havoc,stack:"), "{name}");
    assert_eq!(summary.new_crashes, [bench.path("out/crashes").join(name)]);
    assert!(fs::read(&summary.new_crashes[0]).unwrap().starts_with(MAGIC));
    let facts = fs::read_to_string(bench.path("out/.dejavm/crashes.json")).unwrap();
    assert!(facts.contains("\"SIGSEGV-write in a\"") && facts.contains(name.as_str()));
    assert!(bench.heard("new crash: SIGSEGV-write in a ("));
    let queue = bench.names("queue");
    assert!(queue[0].starts_with("id:000000,time:") && queue[0].ends_with(",orig:seed"));
    assert!(queue[1].starts_with("id:000001,src:000000,") && queue[1].ends_with(",+cov"));
    assert_eq!(queue.len(), summary.stats.corpus);
}

fn inputs(seed: u64) -> Vec<Vec<u8>> {
    inputs_by_batches(seed, 1)
}

/// The same from a target that takes `batch_len` inputs at once.
fn inputs_by_batches(seed: u64, batch_len: usize) -> Vec<Vec<u8>> {
    let mut bench = Bench::new(&[("a", b"xxxx"), ("b", b"HANGxx"), ("c", b"SLOWxx")]);
    fs::write(bench.path("dict"), "magic=\"DEJA\"\n\"SLOW\"\n\"FLAKY\"").unwrap();
    let options = Options {
        seed: Some(seed),
        executions: Some(20_000),
        // Calibrated, from times that differ from campaign to campaign.
        timeout: None,
        dictionaries: vec![bench.path("dict")],
        ..bench.options()
    };
    let mut maze = Maze::logging();
    maze.batch_len = batch_len;
    bench.run(options, &mut maze).unwrap();
    maze.log.unwrap()
}

#[test]
fn the_same_inputs_run_in_the_same_order_however_many_run_at_once() {
    let one_by_one = inputs(7);
    for batch_len in [2, 7, 300] {
        assert!(inputs_by_batches(7, batch_len) == one_by_one, "{batch_len} at once");
    }
}

#[test]
fn same_seed_same_inputs() {
    let first = inputs(7);
    assert!(first.len() > 15_000);
    assert_eq!(first, inputs(7));
    assert_ne!(first, inputs(8));
}

#[test]
fn never_runs_an_input_longer_than_allowed() {
    assert!(inputs(7).iter().all(|input| input.len() <= 64));
}

#[test]
fn folds_crashes_with_the_same_stack() {
    let mut bench = Bench::new(&[("a", b"DEJ"), ("b", b"DEJAVU"), ("c", b"DEJA")]);
    let stats = bench.run(bench.crashing(), &mut Maze::new()).unwrap().stats;
    assert_eq!((stats.crashes_unique, bench.names("crashes").len()), (1, 1));
    assert!(stats.crashes_total > 10, "{stats:?}");
}

#[test]
fn stops_after_the_executions_asked_for() {
    let mut bench = Bench::new(SEED);
    let mut maze = Maze::logging();
    let summary = bench.run(bench.options(), &mut maze).unwrap();
    assert_eq!(summary.reason, StopReason::Executions);
    // The seed's run and its trace come before counting starts.
    let slack = summary.stats.execs - 2 - 2000;
    assert!(slack <= 3, "{slack}");
}

#[test]
fn stops_after_its_time() {
    let mut bench = Bench::new(SEED);
    let limit = Duration::from_millis(300);
    let options = Options { duration: Some(limit), executions: None, ..bench.options() };
    let start = Instant::now();
    let summary = bench.run(options, &mut Maze::new()).unwrap();
    assert_eq!(summary.reason, StopReason::Duration);
    assert!(start.elapsed() >= limit && start.elapsed() < limit * 10);
    assert!(summary.stats.run_time >= limit && summary.stats.execs_per_sec > 0.0);
}

#[test]
fn stops_when_asked_and_keeps_what_it_has() {
    struct CtrlC(std::sync::Arc<std::sync::atomic::AtomicBool>, u32);
    impl Progress for CtrlC {
        fn update(&mut self, _: &Stats) {
            self.1 += 1;
            self.0.store(true, Ordering::Relaxed);
        }
        fn event(&mut self, _: &Event<'_>) {}
    }
    let bench = Bench::new(SEED);
    let options = Options { executions: None, ..bench.options() };
    let mut progress = CtrlC(options.stop.clone(), 0);
    let campaign = Campaign::new(options).unwrap();
    let summary = campaign.run(&mut Maze::new(), &mut progress).unwrap();
    assert_eq!(summary.reason, StopReason::Requested);
    assert_eq!(progress.1, 2, "one that asks, one at the end");
    let stats = fs::read_to_string(bench.path("out/fuzzer_stats")).unwrap();
    assert!(stats.contains(&format!("execs_done        : {}\n", summary.stats.execs)));
    assert!(stats.contains("command_line      : dejavm fuzz\n"));
    assert!(fs::read_to_string(bench.path("out/plot_data")).unwrap().lines().count() >= 3);
}

#[test]
fn does_not_believe_what_is_seen_once() {
    let mut bench = Bench::new(&[("a", b"FLAKx"), ("b", b"GHOSx")]);
    fs::write(bench.path("dict"), "\"FLAKY\"\n\"GHOST\"").unwrap();
    let dictionaries = vec![bench.path("dict")];
    let options = Options { executions: Some(10_000), dictionaries, ..bench.options() };
    let mut maze = Maze::new();
    let stats = bench.run(options, &mut maze).unwrap().stats;
    assert!(stats.unreproducible > 1, "{stats:?}");
    assert!(bench.heard("seen once, not again: crash, SIGBUS in nowhere"));
    assert!(bench.heard("seen once, not again: new coverage"));
    assert_eq!(stats.crashes_total, 0);
    assert_eq!(bench.names("queue").len(), 2 + stats.corpus_found as usize);
    assert!(maze.forgotten.contains(&12), "the blocks of a crash stay worth finding");
}

#[test]
fn a_failure_of_the_host_ends_the_campaign_and_loses_nothing() {
    let mut bench = Bench::new(SEED);
    let mut maze = Maze::new();
    maze.fail_at = Some(500);
    let error = bench.run(bench.options(), &mut maze).unwrap_err();
    assert!(error.to_string().starts_with("run an input on the target (execution 5"), "{error}");
    assert_eq!(error.source().unwrap().to_string(), "the host is on fire");
    let stats = fs::read_to_string(bench.path("out/fuzzer_stats")).unwrap();
    assert!(stats.contains("execs_done        : 5"));
}

#[test]
fn a_target_without_blocks_can_be_fuzzed() {
    struct Blind;
    impl Target for Blind {
        fn blocks_total(&self) -> usize {
            0
        }
        fn run(&mut self, _: &[u8]) -> Result<Execution<'_>, TargetError> {
            let duration = Duration::from_micros(1);
            Ok(Execution { exit_kind: ExitKind::Finished, blocks: &[], duration })
        }
        fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
            self.run(input)
        }
        fn known_blocks(&mut self, _: &[u32]) {}
        fn set_timeout(&mut self, _: Duration) {}
    }
    let bench = Bench::new(SEED);
    let campaign = Campaign::new(bench.options()).unwrap();
    let summary = campaign.run(&mut Blind, &mut ()).unwrap();
    assert_eq!(summary.reason, StopReason::Executions);
    assert_eq!(summary.stats.corpus, 1);
}

#[test]
fn an_entry_that_has_no_file_is_an_error_that_names_the_invariant() {
    let bench = Bench::new(SEED);
    let options = bench.options();
    let mut out = OutFolder::open(&options.output, "").unwrap();
    let (mut maze, mut progress) = (Maze::new(), ());
    let tokens = Tokens::new();
    let state = CampaignState::new(&options, &mut out, tokens, &mut maze, &mut progress).unwrap();
    let error = state.entry_id(CorpusId(0)).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "invariant of the campaign is broken: each queue entry has a file of its own"
        ),
        "{error}"
    );
}

#[test]
fn refuses_a_block_that_the_target_does_not_have() {
    struct Liar;
    impl Target for Liar {
        fn blocks_total(&self) -> usize {
            BLOCKS
        }
        fn run(&mut self, _: &[u8]) -> Result<Execution<'_>, TargetError> {
            let duration = Duration::from_micros(1);
            Ok(Execution { exit_kind: ExitKind::Finished, blocks: &[64], duration })
        }
        fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
            self.run(input)
        }
        fn known_blocks(&mut self, _: &[u32]) {}
        fn set_timeout(&mut self, _: Duration) {}
    }
    let bench = Bench::new(SEED);
    let campaign = Campaign::new(bench.options()).unwrap();
    let error = campaign.run(&mut Liar, &mut ()).unwrap_err().to_string();
    assert_eq!(error, "the target reported block 64, but has 64 blocks");
}
