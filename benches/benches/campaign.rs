//! Executions per second of one parser, by four methods of running it: in a machine, in batches
//! between which the guest puts itself back, by a native fork server, by native fork and exec.
//!
//! First on the same inputs without anything around them, then end to end with the corpus crate's
//! campaign choosing, mutating and judging. Only the machine reports coverage: beside it, a
//! campaign over a native target mutates its seeds for ever. But in batches, every input gets an
//! entry of its own.

#![allow(clippy::expect_used, reason = "a bench has nobody to report an error to")]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Throughput};
use dejavm_benches::batches::{Batches, ExpectedRun};
use dejavm_benches::interleave::{self, Interleaved};
use dejavm_benches::{criterion, guests, limit, system_or_skip};
use dejavm_corpus::{Campaign, CrashFacts, Execution, ExitKind, Options, Target, TargetError};
use dejavm_engine::coverage::{Arm, blocks};
use dejavm_engine::kvm::System;
use dejavm_engine::linux::ProcessSpec;
use dejavm_engine::machine::{Limit, Machine};
use dejavm_engine::outcome::Outcome;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Executions of one campaign.
const CAMPAIGN: u64 = 1_500;
/// The parser's exit status for each seed.
const STATUSES: [u8; SEEDS.len()] = [0, 0, 0, 1];
const SEEDS: [&[u8]; 4] = [
    b"{\"id\": 17, \"tags\": [\"a\", \"b\\n\", \"\\u00e9\"], \"ok\": true, \"next\": null}",
    b"[[1, 2.5, -3e7], [], {}, [[[[\"deep\"]]]], 0.001, false]",
    b"{\"users\": [{\"name\": \"Ada\", \"age\": 36}, {\"name\": \"Alan\", \"age\": 41}], \
       \"total\": 2, \"page\": {\"first\": 1, \"last\": 1, \"size\": 50}, \"comment\": \"\"}",
    b"{\"broken\": [1, 2, }",
];

/// The parser in a machine.
struct InMachine {
    machine: Machine,
    limit: Limit,
    blocks: Vec<u64>,
    has_run: bool,
}

impl InMachine {
    fn new(system: &System, program: &Path) -> Self {
        let machine = guests::process(system, &ProcessSpec::new(program), SEEDS[0]);
        let images = machine.process().expect("a process").images();
        let mut starts = Vec::new();
        for image in images {
            let found = blocks::find(&image.bytes).expect("the parser's blocks");
            starts.extend(found.starts.iter().map(|start| start.wrapping_add(image.base)));
        }
        let mut target = Self { machine, limit: limit(), blocks: starts, has_run: false };
        target.forget();
        target
    }

    /// Knows no block any more: a campaign after it starts from nothing.
    fn forget(&mut self) {
        if std::mem::replace(&mut self.has_run, false) {
            self.machine.rewind().expect("a rewind");
        }
        self.machine.set_blocks(&self.blocks).expect("breakpoints");
        self.machine.arm_blocks(Arm::Unknown);
    }

    /// The rewind waits for the next run, because it forgets the blocks that were reached.
    fn go(&mut self, input: &[u8], arm: Option<Arm>) -> Result<(ExitKind, Duration), TargetError> {
        if std::mem::replace(&mut self.has_run, true) {
            self.machine.rewind().map_err(TargetError::new)?;
        }
        if let Some(which) = arm {
            self.machine.arm_blocks(which);
        }
        let report = self.machine.run(input, self.limit).map_err(TargetError::new)?;
        Ok((exit_kind(&report.outcome), report.duration))
    }
}

fn exit_kind(outcome: &Outcome) -> ExitKind {
    match outcome {
        Outcome::Exited { .. } | Outcome::Halted => ExitKind::Finished,
        Outcome::TimedOut => ExitKind::TimedOut,
        Outcome::OutOfMemory => ExitKind::OutOfMemory,
        Outcome::Crashed(fault) => ExitKind::Crashed(CrashFacts {
            kind: "crash".to_owned(),
            stack: vec![format!("{:#x}", fault.rip)],
            summary: format!("{fault:?}"),
            rule: None,
        }),
        other => ExitKind::Unsupported(format!("{other:?}")),
    }
}

impl Target for InMachine {
    fn blocks_total(&self) -> usize {
        self.blocks.len()
    }

    fn run(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        let (exit_kind, duration) = self.go(input, None)?;
        Ok(Execution { exit_kind, blocks: self.machine.blocks_hit(), duration })
    }

    fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        let (exit_kind, duration) = self.go(input, Some(Arm::All))?;
        self.machine.arm_blocks(Arm::Unknown);
        Ok(Execution { exit_kind, blocks: self.machine.blocks_hit(), duration })
    }

    fn known_blocks(&mut self, blocks: &[u32]) {
        self.machine.know_blocks(blocks);
        self.machine.arm_blocks(Arm::Unknown);
    }

    fn set_timeout(&mut self, limit: Duration) {
        self.limit = Limit::time(limit);
    }
}

/// A native method of running the parser.
trait Native {
    /// Runs one input and returns the wait status.
    fn go(&mut self, input: &[u8]) -> i32;
}

/// The parser's own fork server.
struct ForkServer {
    server: Child,
    to: ChildStdin,
    from: ChildStdout,
    message: Vec<u8>,
}

impl ForkServer {
    fn new(program: &Path) -> Self {
        let mut server = Command::new(program)
            .env("FORKSERVER", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the fork server starts");
        let to = server.stdin.take().expect("a pipe");
        let from = server.stdout.take().expect("a pipe");
        Self { server, to, from, message: Vec::new() }
    }
}

impl Native for ForkServer {
    fn go(&mut self, input: &[u8]) -> i32 {
        self.message.clear();
        self.message.extend((input.len() as u32).to_ne_bytes());
        self.message.extend(input);
        self.to.write_all(&self.message).expect("a write to the fork server");
        let mut status = [0; 4];
        self.from.read_exact(&mut status).expect("an answer of the fork server");
        i32::from_ne_bytes(status)
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A new process for each input.
struct ForkExec {
    program: PathBuf,
    input: File,
}

impl ForkExec {
    fn new(program: &Path) -> Self {
        Self { program: program.to_owned(), input: tempfile::tempfile().expect("a file") }
    }
}

impl Native for ForkExec {
    fn go(&mut self, input: &[u8]) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.input.set_len(0).expect("an empty file");
        self.input.seek(SeekFrom::Start(0)).expect("a seek");
        self.input.write_all(input).expect("a write");
        self.input.seek(SeekFrom::Start(0)).expect("a seek");
        let stdin = self.input.try_clone().expect("a descriptor");
        let status: ExitStatus =
            Command::new(&self.program).stdin(stdin).status().expect("the parser starts");
        status.into_raw()
    }
}

/// A native method of running the parser, as a campaign's target; it sees no coverage.
struct Blind<N>(N);

impl<N: Native> Blind<N> {
    fn go(&mut self, input: &[u8]) -> Execution<'_> {
        use std::os::unix::process::ExitStatusExt;
        let start = Instant::now();
        let status = ExitStatus::from_raw(self.0.go(input));
        assert!(status.code().is_some(), "the parser crashed: {status}");
        Execution { exit_kind: ExitKind::Finished, blocks: &[0], duration: start.elapsed() }
    }
}

impl<N: Native> Target for Blind<N> {
    fn blocks_total(&self) -> usize {
        1
    }

    fn run(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        Ok(self.go(input))
    }

    fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        Ok(self.go(input))
    }

    fn known_blocks(&mut self, _: &[u32]) {}

    fn set_timeout(&mut self, _: Duration) {}
}

/// Inputs in turn, as often as asked.
fn each_seed(times: u64, mut run: impl FnMut(&[u8])) -> Duration {
    let start = Instant::now();
    for seed in SEEDS.iter().cycle().take(times as usize) {
        run(seed);
    }
    start.elapsed()
}

/// Campaigns of [`CAMPAIGN`] executions each, in new folders; their set-up is not counted.
fn campaigns<T: Target>(
    times: u64,
    seeds: &Path,
    target: &mut T,
    forget: impl Fn(&mut T),
) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        forget(target);
        let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let mut options = Options::new(seeds, out.path().join("out"));
        options.executions = Some(CAMPAIGN);
        options.seed = Some(1);
        options.timeout = Some(Duration::from_secs(1));
        options.max_len = 4096;
        let campaign = Campaign::new(options).expect("a campaign");
        let start = Instant::now();
        let summary = campaign.run(target, &mut ()).expect("a campaign's end");
        total += start.elapsed().mul_f64(CAMPAIGN as f64 / summary.stats.execs as f64);
    }
    total
}

/// The same inputs, in batches of several sizes.
fn in_batches(
    system: &System,
    program: &Path,
    in_machine: &mut InMachine,
    fork_server: &mut Blind<ForkServer>,
    group: &mut BenchmarkGroup<'_, WallTime>,
) -> Vec<interleave::Measured> {
    let inputs: [ExpectedRun<'_>; SEEDS.len()] =
        std::array::from_fn(|index| ExpectedRun { input: SEEDS[index], status: STATUSES[index] });
    let [mut of_8, mut of_64, mut of_256, mut of_1024] = [8, 64, 256, 1024].map(|size| {
        let machine = guests::process(system, &ProcessSpec::new(program), SEEDS[0]);
        let mut batches = Batches::new(machine, size);
        batches.time(64 * size as u64, &inputs);
        batches
    });
    Interleaved::new(1024)
        .with("fork server", |times| each_seed(times, |input| drop(fork_server.go(input))))
        .with("machine", |times| {
            each_seed(times, |input| {
                in_machine.go(input, None).expect("a run");
            })
        })
        .with("batches of 8", |times| of_8.time(times, &inputs))
        .with("batches of 64", |times| of_64.time(times, &inputs))
        .with("batches of 256", |times| of_256.time(times, &inputs))
        .with("batches of 1024", |times| of_1024.time(times, &inputs))
        .bench(group, "same inputs in batches")
}

fn main() {
    let Some(system) = system_or_skip("campaign") else { return };
    let program = guests::compile(Path::new(env!("CARGO_TARGET_TMPDIR")), "json", &[]);
    let mut in_machine = InMachine::new(&system, &program);
    let mut fork_server = Blind(ForkServer::new(&program));
    let mut fork_exec = Blind(ForkExec::new(&program));
    let mut criterion = criterion().sample_size(10);

    let mut group = criterion.benchmark_group("campaign");
    group.throughput(Throughput::Elements(1));
    let same = Interleaved::new(16)
        .with("fork server", |times| each_seed(times, |input| drop(fork_server.go(input))))
        .with("fork + exec", |times| each_seed(times, |input| drop(fork_exec.go(input))))
        .with("machine", |times| {
            each_seed(times, |input| {
                in_machine.go(input, None).expect("a run");
            })
        })
        .bench(&mut group, "same inputs");

    let in_batches = in_batches(&system, &program, &mut in_machine, &mut fork_server, &mut group);

    let seeds = tempfile::tempdir().expect("a folder");
    for (number, seed) in SEEDS.iter().enumerate() {
        fs::write(seeds.path().join(format!("seed{number}")), seed).expect("a seed");
    }
    // Every block that a campaign reaches first costs exits, and every entry it keeps is traced:
    // the start of a campaign, and then seldom. Once warm, `in_machine` has nothing to report.
    let mut fresh = InMachine::new(&system, &program);
    campaigns(2, seeds.path(), &mut in_machine, |_| ());
    group.throughput(Throughput::Elements(CAMPAIGN));
    let driven = Interleaved::new(1)
        .with("fork server", |times| campaigns(times, seeds.path(), &mut fork_server, |_| ()))
        .with("machine, nothing new", |times| {
            campaigns(times, seeds.path(), &mut in_machine, |_| ())
        })
        .with("machine, from nothing", |times| {
            campaigns(times, seeds.path(), &mut fresh, InMachine::forget)
        })
        .bench(&mut group, "1500 executions of a campaign");
    group.finish();
    criterion.final_summary();
    say_rates("same inputs", &same, 1.0);
    say_rates("same inputs, in batches", &in_batches, 1.0);
    say_rates("campaign, end to end", &driven, CAMPAIGN as f64);
}

fn say_rates(row: &str, results: &[interleave::Measured], executions: f64) {
    // The command line's filter may have left the row out.
    for result in results.iter().filter(|result| result.median_us.is_finite()) {
        let rate = 1e6 * executions / result.median_us;
        println!(
            "{row}: {} {rate:.0} executions per second (x{:.2} time)",
            result.name, result.ratio
        );
    }
}
