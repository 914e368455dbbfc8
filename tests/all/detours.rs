//! Blocks that mark themselves: one run tells what breakpoints tell, and nothing else is different.

use crate::support::{Guest, build_c, build_rust, guests, installed, kvm, limit, spec};
use dejavm_engine::coverage::blocks::{self, Blocks};
use dejavm_engine::coverage::detours::Detail;
use dejavm_engine::coverage::{Arm, detours};
use dejavm_engine::linux::{LoadedImage, ProcessSpec};
use dejavm_engine::machine::{Batch, BatchOptions, BatchReport, DetourCounts, Machine};
use dejavm_engine::outcome::Outcome;
use std::path::Path;

/// A program at its snapshot, all of whose images are covered.
struct Covered {
    machine: Machine,
    images: Vec<(LoadedImage, Blocks)>,
    counts: DetourCounts,
    detail: Detail,
    /// What earlier runs left in the list of system calls.
    strace_bytes: usize,
}

/// All that one run shows.
#[derive(Debug)]
struct Shown {
    outcome: Outcome,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    system_calls: u64,
    strace: String,
    memory: u32,
    blocks: Vec<u32>,
}

impl Covered {
    fn new(machine: Machine) -> Self {
        Self::with(machine, Detail::Blocks)
    }

    fn with(machine: Machine, detail: Detail) -> Self {
        let images = machine.process().unwrap().images().into_iter().map(|image| {
            let blocks = blocks::find(&image.bytes).unwrap();
            (image, blocks)
        });
        let (images, counts) = (images.collect(), DetourCounts::default());
        let mut covered = Self { machine, images, counts, detail, strace_bytes: 0 };
        covered.install();
        covered
    }

    fn install(&mut self) {
        let (mut starts, mut all) = (Vec::new(), Vec::new());
        for (image, blocks) in &self.images {
            let first = starts.len() as u32;
            all.push(detours::Image { elf: &image.bytes, blocks, base: image.base, first });
            starts.extend(blocks.starts.iter().map(|start| start.wrapping_add(image.base)));
        }
        self.machine.set_blocks(&starts).unwrap();
        self.counts = self.machine.install_detours(&all, self.detail).unwrap();
        let seen = self.counts.detours + self.counts.breakpoints();
        assert_eq!(seen + self.machine.blocks_unmapped(), starts.len(), "each block is seen once");
    }

    fn shown(&mut self, outcome: Outcome, system_calls: u64) -> Shown {
        let mut blocks = self.machine.blocks_hit().to_vec();
        blocks.sort_unstable();
        let strace = self.machine.process().unwrap().trace().to_owned();
        let shown = Shown {
            outcome,
            stdout: self.machine.stdout().to_vec(),
            stderr: self.machine.stderr().to_vec(),
            system_calls,
            strace: strace[self.strace_bytes..].to_owned(),
            memory: self.machine.memory_digest().unwrap(),
            blocks,
        };
        self.strace_bytes = strace.len();
        self.machine.rewind().unwrap();
        shown
    }

    fn by_breakpoints(&mut self, input: &[u8]) -> (Shown, u64) {
        self.machine.arm_blocks(Arm::All);
        let report = self.machine.run(input, limit()).unwrap();
        let shown = self.shown(report.outcome, report.system_calls);
        (shown, report.exits)
    }

    fn by_detours(&mut self, input: &[u8]) -> Option<(Shown, u64)> {
        let report = self.machine.trace(input, limit()).unwrap();
        let Some(report) = report else {
            self.strace_bytes = self.machine.process().unwrap().trace().len();
            return None;
        };
        let shown = self.shown(report.outcome, report.system_calls);
        Some((shown, report.exits))
    }

    /// Traces `input` by both ways, twice; exits by breakpoints and by detours.
    fn compare(&mut self, input: &[u8]) -> (u64, u64) {
        let (expected, exits_before) = self.by_breakpoints(input);
        let Some((found, exits)) = self.by_detours(input) else {
            panic!("no trace through detours, which should end in {}", expected.outcome)
        };
        assert_same(&found, &expected);
        let (again, _) = self.by_detours(input).unwrap();
        assert_same(&again, &expected);
        assert_eq!(self.machine.verify().unwrap(), []);
        (exits_before, exits)
    }

    /// Traces `input` by both ways, or has detours give up on it; whether they did not.
    fn compare_or_do_without(&mut self, input: &[u8]) -> bool {
        let (expected, _) = self.by_breakpoints(input);
        let found = self.by_detours(input);
        if let Some((found, _)) = &found {
            assert_same(found, &expected);
        }
        assert_eq!(self.machine.verify().unwrap(), []);
        found.is_some()
    }

    /// Detours have to give up on `input`, and have changed nothing.
    fn must_do_without(&mut self, input: &[u8]) -> Shown {
        let (expected, _) = self.by_breakpoints(input);
        assert!(self.by_detours(input).is_none(), "{}", expected.outcome);
        assert_eq!(self.machine.verify().unwrap(), []);
        let (after, _) = self.by_breakpoints(input);
        assert_same(&after, &expected);
        expected
    }
}

fn assert_same(found: &Shown, expected: &Shown) {
    let missing: Vec<_> =
        expected.blocks.iter().filter(|b| found.blocks.binary_search(b).is_err()).collect();
    let more: Vec<_> =
        found.blocks.iter().filter(|b| expected.blocks.binary_search(b).is_err()).collect();
    assert!(missing.is_empty() && more.is_empty(), "missing {missing:?}, too many {more:?}");
    assert_eq!(found.outcome, expected.outcome);
    assert_eq!(found.strace, expected.strace);
    assert!(found.stdout == expected.stdout && found.stderr == expected.stderr, "the output");
    assert_eq!(found.system_calls, expected.system_calls);
    assert_eq!(found.memory, expected.memory, "the memory at the end");
}

/// At the first look at the input, with the host's system files that the program looks for.
fn boot(spec: &mut ProcessSpec, input: &[u8]) -> Option<Machine> {
    let system = kvm()?;
    let machine = Guest::new(&system, spec).into_machine(input);
    let mut machine = machine.expect("it ended before its snapshot point");
    machine.trace_calls();
    Some(machine)
}

fn agrees(program: &Path, args: &[&str], inputs: &[Vec<u8>]) {
    let mut spec = spec(program, args);
    let Some(machine) = boot(&mut spec, &inputs[0]) else { return };
    let mut covered = Covered::new(machine);
    agrees_in_detail(&mut covered, program, args, inputs);
    covered.detail = Detail::Counts;
    covered.install();
    agrees_in_detail(&mut covered, program, args, inputs);
}

fn agrees_in_detail(covered: &mut Covered, program: &Path, args: &[&str], inputs: &[Vec<u8>]) {
    let counts = covered.counts.clone();
    let (mut before, mut after, mut most) = (0, 0, 0);
    for input in inputs {
        let (by_breakpoints, by_detours) = covered.compare(input);
        (before, after) = (before + by_breakpoints, after + by_detours);
        most = most.max(by_breakpoints);
    }
    eprintln!(
        "{} {args:?}: {} detours, {} breakpoints ({:?}), {} of {} edges, exits {before} -> {after}",
        program.display(),
        counts.detours,
        counts.breakpoints(),
        counts.left,
        counts.edges,
        counts.edges_total,
    );
    assert!(after < before, "{before} -> {after}");
}

fn data(name: &str) -> Vec<u8> {
    std::fs::read(guests().join("data").join(name)).unwrap()
}

fn with_half(input: Vec<u8>) -> Vec<Vec<u8>> {
    let half = input[..input.len() / 2].to_vec();
    vec![input, half, Vec::new()]
}

fn debian(path: &str, package: &str, args: &[&str], inputs: &[Vec<u8>]) {
    if let Some(program) = installed(path, package) {
        agrees(&program, args, inputs);
    }
}

#[test]
fn a_json_parser_reaches_the_same_blocks() {
    let inputs = ["{\"a\": [1, 2.5, {\"b\": null}], \"c\": \"\\u00e4\"}\n", "{\"a\": [1, 2\n", ""];
    let inputs: Vec<Vec<u8>> = inputs.iter().map(|text| text.as_bytes().to_vec()).collect();
    agrees(&build_c("json", &["-lm"]), &["-v"], &inputs);
    debian("/usr/bin/jq", "jq", &["."], &inputs);
}

#[test]
fn xmllint_reaches_the_same_blocks() {
    let inputs =
        ["<?xml version='1.0'?>\n<a x='1'><b>text &amp; more</b><c/></a>\n", "<a><b></a>", ""];
    let inputs: Vec<Vec<u8>> = inputs.iter().map(|text| text.as_bytes().to_vec()).collect();
    debian("/usr/bin/xmllint", "libxml2-utils", &["--format", "@@"], &inputs);
}

#[test]
fn djpeg_reaches_the_same_blocks() {
    debian("/usr/bin/djpeg", "libjpeg-turbo-progs", &["@@"], &with_half(data("photo.jpg")));
}

#[test]
fn readelf_and_objdump_reach_the_same_blocks() {
    let inputs = with_half(data("small.o"));
    debian("/usr/bin/readelf", "binutils", &["-a", "@@"], &inputs);
    debian("/usr/bin/objdump", "binutils", &["-d", "@@"], &inputs);
}

#[test]
fn programs_in_cpp_that_throw_reach_the_same_blocks() {
    debian("/usr/bin/exiv2", "exiv2", &["@@"], &with_half(data("photo.jpg")));
}

#[test]
fn static_programs_reach_the_same_blocks() {
    debian(
        "/bin/busybox",
        "busybox-static",
        &["gzip", "-dc", "@@"],
        &with_half(data("notes.txt.gz")),
    );
}

#[test]
fn interpreters_reach_the_same_blocks() {
    let script = b"x = {} for i = 1, 20 do x[i] = i * i end print(#x, pcall(error, 'e'))".to_vec();
    debian("/usr/bin/lua5.4", "lua5.4", &["-"], &[script, b"error(".to_vec()]);
    let query = b"create table t(a); insert into t values (1), ('b'); select * from t;".to_vec();
    debian("/usr/bin/sqlite3", "sqlite3", &[], &[query, b"select".to_vec()]);
}

#[test]
fn programs_with_threads_and_panics_reach_the_same_blocks_or_are_traced_without() {
    let Some(machine) = boot(&mut spec(&build_rust("threads"), &[]), b"x") else { return };
    let mut covered = Covered::new(machine);
    let traced = ["some words for a worker", "panic"];
    assert!(traced.iter().all(|input| covered.compare_or_do_without(input.as_bytes())));
    for work in ["produce", "pipes", "meetings", "signals", "exit", "first"] {
        let machine = boot(&mut spec(&build_c("threads", &["-pthread"]), &[]), work.as_bytes());
        let done = Covered::new(machine.unwrap()).compare_or_do_without(work.as_bytes());
        assert!(done || work == "signals", "{work}");
    }
    // These overflow a stack and follow a null pointer.
    for input in ["deep", "deep thread", "null"] {
        assert!(!covered.compare_or_do_without(input.as_bytes()), "{input}");
    }
}

fn guest() -> Option<Covered> {
    let machine = boot(&mut spec(&build_c("detours", &["-O2"]), &[]), b"n")?;
    Some(Covered::new(machine))
}

#[test]
fn jumps_tables_and_signals_between_blocks_are_traced() {
    let Some(mut covered) = guest() else { return };
    for mode in ["n", "j", "t", "a", "x", "n0123456789abcdefghijklmnopqrstuvwxyz"] {
        covered.compare(mode.as_bytes());
    }
}

#[test]
fn what_would_show_moved_code_is_traced_without() {
    let Some(mut covered) = guest() else { return };
    let shown = covered.must_do_without(b"f");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("signal 11 at +"));
    covered.must_do_without(b"s");
    let crash = covered.must_do_without(b"c");
    assert!(matches!(crash.outcome, Outcome::Crashed(_)));
    // And the next one is traced again.
    covered.compare(b"n");
}

#[test]
fn a_program_that_puts_something_else_in_place_of_its_code_is_traced_without() {
    for mode in ["p", "m", "h"] {
        let Some(mut covered) = guest() else { return };
        covered.must_do_without(mode.as_bytes());
        // Detours are made anew, and nothing is left of the first ones.
        covered.install();
        covered.compare(b"n");
    }
}

#[test]
fn batches_and_traces_take_turns() {
    let Some(mut covered) = guest() else { return };
    let mut batch = Batch::default();
    let inputs: [&[u8]; 4] = [b"n", b"j", b"n123", b"x"];
    assert!(inputs.iter().all(|input| batch.push(input)));
    let expected: Vec<_> = inputs.iter().map(|input| covered.by_breakpoints(input).0).collect();
    covered.machine.arm_blocks(Arm::None);
    for _ in 0..3 {
        let mut report = BatchReport::default();
        covered.machine.run_batch(&batch, BatchOptions::default(), &mut report).unwrap();
        let ends = expected.iter().map(|shown| Some(shown.outcome.clone()));
        assert!(report.runs.iter().cloned().eq(ends), "{:?}", report.runs);
        covered.strace_bytes = covered.machine.process().unwrap().trace().len();
        for (input, expected) in inputs.iter().zip(&expected) {
            assert_same(&covered.by_detours(input).unwrap().0, expected);
        }
        assert_eq!(covered.machine.verify().unwrap(), []);
    }
}

#[test]
fn without_detours_there_is_no_trace() {
    let Some(mut machine) = boot(&mut spec(&build_c("detours", &["-O2"]), &[]), b"n") else {
        return;
    };
    assert!(machine.trace(b"n", limit()).unwrap().is_none());
    machine.run(b"n", limit()).unwrap();
}
