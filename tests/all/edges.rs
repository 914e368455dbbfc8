//! Edges and counts: what marks tell of a program is what it sees of itself, step by step.

use crate::support::{Guest, build_c, kvm, limit, patience, spec};
use dejavm_engine::coverage::blocks::{self, Blocks};
use dejavm_engine::coverage::counts::{PlaceHit, place_of};
use dejavm_engine::coverage::detours::{self, Detail, Edge, Edges};
use dejavm_engine::linux::LoadedImage;
use dejavm_engine::machine::{Batch, BatchOptions, BatchReport, Machine};
use dejavm_engine::outcome::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Ways through branches that join, loops of up to 324 rounds, and a jump table.
const INPUTS: [&[u8]; 6] = [b"abcmnopz", b"0123456789", b"9", b"aAzZ~\x01\x05", b"8zzz77", b""];

/// The program, covered.
struct Stepped {
    machine: Machine,
    image: LoadedImage,
    blocks: Blocks,
    edges: Edges,
    /// Where what is judged lies, by link-time addresses.
    judged: Range<u64>,
}

/// How often each place was passed, in what is judged.
type Counts = BTreeMap<u32, usize>;

impl Stepped {
    fn new(detail: Detail) -> Option<Self> {
        let system = kvm()?;
        let mut spec = spec(&build_c("edges", &["-O2"]), &[]);
        let mut machine = Guest::new(&system, &mut spec).into_machine(b"n").unwrap();
        let image = machine.process().unwrap().images().remove(0);
        let blocks = blocks::find(&image.bytes).unwrap();
        let edges = Edges::find(&image.bytes, &blocks);
        let starts: Vec<u64> = blocks.starts.iter().map(|at| at.wrapping_add(image.base)).collect();
        machine.set_blocks(&starts).unwrap();
        let covered =
            detours::Image { elf: &image.bytes, blocks: &blocks, base: image.base, first: 0 };
        let counts = machine.install_detours(&[covered], detail).unwrap();
        assert_eq!(counts.edges_total, if detail == Detail::Blocks { 0 } else { edges.len() });
        Some(Self { machine, image, blocks, edges, judged: 0..0 })
    }

    /// What the program sees of itself.
    fn judge(&mut self, input: &[u8]) -> Counts {
        let input = [b"s", input].concat();
        self.machine.run(&input, limit()).unwrap();
        let said = String::from_utf8(self.machine.stdout().to_vec()).unwrap();
        self.machine.rewind().unwrap();
        let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
        let (first, steps) = said.split_once('\n').unwrap();
        let mut bounds = first.split(' ').skip(1).map(|word| hex(word) - self.image.base);
        self.judged = bounds.next().unwrap()..bounds.next().unwrap();
        let steps: Vec<u64> = steps.lines().map(|line| self.judged.start + hex(line)).collect();
        let blocks = steps.iter().filter_map(|at| self.blocks.starts.binary_search(at).ok());
        let edges = steps.windows(2).filter_map(|pair| {
            let index = self.edges.index_of(Edge { from: pair[0], to: pair[1] })?;
            Some(self.blocks.starts.len() + index as usize)
        });
        let mut counts = Counts::new();
        for place in blocks.chain(edges) {
            *counts.entry(place as u32).or_default() += 1;
        }
        counts
    }

    /// What the marks tell of what is judged.
    fn trace(&mut self, input: &[u8]) -> BTreeMap<u32, u8> {
        let input = [b"n", input].concat();
        assert!(self.machine.trace(&input, limit()).unwrap().is_some());
        let is_judged = |hit: &&PlaceHit| {
            let index = hit.place as usize;
            let edge = |index: usize| self.edges.all().get(index).map(|edge| edge.from);
            let at = match self.blocks.starts.get(index) {
                Some(start) => *start,
                None => edge(index - self.blocks.starts.len()).unwrap(),
            };
            self.judged.contains(&at)
        };
        let hits = self.machine.places_hit().iter().filter(is_judged);
        let hits = hits.map(|hit| (hit.place, hit.count)).collect();
        self.machine.rewind().unwrap();
        assert_eq!(self.machine.verify().unwrap(), []);
        hits
    }
}

/// A count of `times`, as a byte has it that goes on from 255 with 1.
fn wrapped(times: usize) -> u8 {
    ((times - 1) % 255 + 1) as u8
}

#[test]
fn marks_tell_the_edges_and_counts_that_the_program_sees_step_by_step() {
    let Some(mut stepped) = Stepped::new(Detail::Counts) else { return };
    let first_edge = stepped.blocks.starts.len() as u32;
    let (mut seen, mut missed) = (BTreeSet::new(), BTreeSet::new());
    let (mut counted, mut uncounted) = (0, 0);
    for input in INPUTS {
        let judged = stepped.judge(input);
        let told = stepped.trace(input);
        for (place, count) in &told {
            let times = *judged.get(place).unwrap_or_else(|| panic!("{place} was not passed"));
            assert!([1, wrapped(times)].contains(count), "{place}: {count} of {times}");
            if wrapped(times) > 1 {
                counted += usize::from(*count > 1);
                uncounted += usize::from(*count == 1);
            }
        }
        for place in judged.keys() {
            assert!(told.contains_key(place) || *place >= first_edge, "block {place} is missing");
            if told.contains_key(place) {
                seen.insert(*place)
            } else {
                missed.insert(*place)
            };
        }
    }
    let edges_seen = seen.iter().filter(|place| **place >= first_edge).count();
    eprintln!("{edges_seen} edges, {} not, {counted} counts, {uncounted} not", missed.len());
    assert!(seen.is_disjoint(&missed), "a place that marks itself does so always");
    assert!(edges_seen >= 15 && missed.len() * 5 < edges_seen);
    assert!(counted > 2 * uncounted, "{counted} of {}", counted + uncounted);
}

#[test]
fn without_counts_every_place_is_told_once() {
    for detail in [Detail::Edges, Detail::Blocks] {
        let Some(mut stepped) = Stepped::new(detail) else { return };
        let first_edge = stepped.blocks.starts.len() as u32;
        let judged = stepped.judge(b"9abc");
        let told = stepped.trace(b"9abc");
        assert!(told.values().all(|count| *count == 1));
        let has_edges = told.keys().any(|place| *place >= first_edge);
        assert_eq!(has_edges, detail == Detail::Edges);
        let blocks = |place: &&u32| **place < first_edge;
        assert!(told.keys().filter(blocks).eq(judged.keys().filter(blocks)));
    }
}

/// A place, and the class of a count as a bit.
type Seen = BTreeSet<(u32, u8)>;

/// A program whose batches compare.
struct Compared {
    machine: Machine,
    known: Seen,
    /// Blocks that breakpoints tell of in batches.
    by_breakpoints: BTreeSet<u32>,
}

impl Compared {
    fn new(program: &Path, detail: Detail) -> Option<Self> {
        let system = kvm()?;
        let mut spec = spec(program, &[]);
        let mut machine = Guest::new(&system, &mut spec).into_machine(b"n").unwrap();
        let image = machine.process().unwrap().images().remove(0);
        let blocks = blocks::find(&image.bytes).unwrap();
        let starts: Vec<u64> = blocks.starts.iter().map(|at| at.wrapping_add(image.base)).collect();
        machine.set_blocks(&starts).unwrap();
        let covered =
            detours::Image { elf: &image.bytes, blocks: &blocks, base: image.base, first: 0 };
        machine.install_detours(&[covered], detail).unwrap();
        assert!(machine.compare_in_batches(true).unwrap());
        Some(Self { machine, known: Seen::new(), by_breakpoints: BTreeSet::new() })
    }

    /// What a trace of `input` tells, if there is one.
    fn trace(&mut self, input: &[u8]) -> Option<Seen> {
        self.machine.trace(input, limit()).unwrap()?;
        let seen = self.machine.places_hit().iter().map(|hit| place_of(hit.number())).collect();
        self.machine.rewind().unwrap();
        Some(seen)
    }

    fn know(&mut self, seen: Seen) {
        self.machine.know_places(seen.iter().copied());
        self.known.extend(seen);
    }

    fn run_exactly(&mut self, input: &[u8]) -> Outcome {
        let outcome = self.machine.run(input, limit()).unwrap().outcome;
        self.machine.rewind().unwrap();
        outcome
    }

    fn run_batch(&mut self, inputs: &[&[u8]], limit: Duration) -> BatchReport {
        let mut batch = Batch::default();
        assert!(inputs.iter().all(|input| batch.push(input)));
        let mut report = BatchReport::default();
        let options = BatchOptions { limit: Some(limit), ..BatchOptions::default() };
        self.machine.run_batch(&batch, options, &mut report).unwrap();
        self.by_breakpoints.extend(report.hits.iter().map(|hit| hit.block));
        report
    }

    /// Whether `seen` has what batches compare and nobody knows.
    fn is_news(&self, seen: &Seen) -> bool {
        let mut news = seen.difference(&self.known);
        news.any(|(place, _)| !self.by_breakpoints.contains(place))
    }
}

#[test]
fn batches_find_what_is_new_in_their_runs() {
    let Some(mut compared) = Compared::new(&build_c("edges", &["-O2"]), Detail::Counts) else {
        return;
    };
    let all: Vec<Vec<u8>> = (0..96_u32)
        .map(|n| {
            let bytes =
                (0..n % 11).map(|i| (n.wrapping_mul(2_654_435_761) >> (i * 2)) as u8 & 0x7f);
            b"n".iter().copied().chain(bytes).collect()
        })
        .collect();
    let exact: Vec<Outcome> = all.iter().map(|input| compared.run_exactly(input)).collect();
    // Two rounds of the same: what was new is known in the second.
    for round in 0..2 {
        for (inputs, exact) in all.chunks(16).zip(exact.chunks(16)) {
            let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
            let report = compared.run_batch(&inputs, patience(Duration::from_secs(2)));
            let ends = exact.iter().map(|outcome| Some(outcome.clone()));
            assert!(report.runs.iter().cloned().eq(ends), "{:?}", report.runs);
            let seen: Vec<Seen> = inputs.iter().map(|i| compared.trace(i).unwrap()).collect();
            let expected = (0..).zip(&seen).filter(|(_, seen)| compared.is_news(seen));
            let expected: Vec<u32> = expected.map(|(run, _)| run).collect();
            assert_eq!(report.news, expected, "of {inputs:?}");
            assert!(round == 0 || report.news.is_empty());
            seen.into_iter().for_each(|seen| compared.know(seen));
            assert_eq!(compared.machine.verify().unwrap(), []);
        }
    }
    // And what is forgotten is new again.
    let seen = compared.trace(b"n9").unwrap();
    compared.know(seen.clone());
    assert!(compared.run_batch(&[b"n9"], Duration::from_secs(2)).news.is_empty());
    let others = compared.trace(b"n").unwrap();
    compared.machine.forget_places(seen.difference(&others).copied());
    assert_eq!(compared.run_batch(&[b"n", b"n9"], Duration::from_secs(2)).news, [1]);
}

#[test]
fn a_batch_may_stop_at_news() {
    let Some(mut compared) = Compared::new(&build_c("edges", &["-O2"]), Detail::Edges) else {
        return;
    };
    for _ in 0..2 {
        compared.run_batch(&[b"nabc", b"n5"], Duration::from_secs(2));
    }
    let seen = compared.trace(b"nabc").unwrap();
    compared.know(seen);
    let mut batch = Batch::default();
    assert!([b"nabc", b"nabc", b"n5zz", b"nabc"].iter().all(|input| batch.push(*input)));
    let mut report = BatchReport::default();
    let options = BatchOptions { limit: None, stop_at_finding: true, ..BatchOptions::default() };
    compared.machine.run_batch(&batch, options, &mut report).unwrap();
    assert_eq!((report.news, report.runs.len()), (vec![2], 3));
}

#[test]
fn a_program_that_writes_to_its_map_tells_nothing_of_other_runs() {
    let Some(mut compared) = Compared::new(&build_c("maps", &["-O2"]), Detail::Counts) else {
        return;
    };
    let limit = patience(Duration::from_millis(100));
    for input in [b"n1", b"n2", b"n1"] {
        compared.run_batch(&[input], limit);
        let seen = compared.trace(input).unwrap();
        compared.know(seen);
    }
    for mode in *b"azertcw" {
        let hostile = [mode, b'1'];
        let inputs: [&[u8]; 5] = [b"n1", &hostile, b"n2", &hostile, b"n1"];
        // The way of the mode is new in itself, once.
        compared.run_batch(&inputs, limit);
        let report = compared.run_batch(&inputs, limit);
        for run in [0, 2, 4] {
            let end = report.runs[run].clone();
            assert!(end.is_none_or(|end| matches!(end, Outcome::Exited { .. })), "{mode}");
            assert!(!report.news.contains(&(run as u32)), "{mode}: {:?}", report.news);
        }
        match mode {
            b'a' => assert_eq!(report.news, [1, 3], "which only a trace can judge"),
            b'r' | b't' | b'c' => {
                // Where it stood may be told, or not.
                let end = &report.runs[1];
                assert!(matches!(end, None | Some(Outcome::Crashed(_))), "{:?}", report.runs);
            }
            b'w' => assert_eq!(report.runs[1], Some(Outcome::TimedOut)),
            _ => {}
        }
        assert_eq!(compared.machine.verify().unwrap(), []);
        assert!(matches!(compared.run_exactly(&hostile), Outcome::Exited { .. }));
        // A trace believes no map that has what no mark writes.
        assert!(mode != b'e' || compared.trace(&hostile).is_none());
        assert!(compared.trace(b"n1").is_some());
    }
}

#[test]
fn what_would_show_moved_code_in_a_batch_gets_a_run_of_its_own() {
    let program = build_c("detours", &["-O2"]);
    let Some(mut compared) = Compared::new(&program, Detail::Counts) else { return };
    let modes: [&[u8]; 12] =
        [b"n", b"j", b"t", b"a", b"x", b"f", b"s", b"c", b"p", b"m", b"h", b"n0123456789abcdef"];
    let exact: Vec<Outcome> = modes.iter().map(|mode| compared.run_exactly(mode)).collect();
    for _ in 0..4 {
        let report = compared.run_batch(&modes, patience(Duration::from_secs(2)));
        assert!(!report.is_distrusted);
        for ((mode, end), exact) in modes.iter().zip(&report.runs).zip(&exact) {
            let is_same = match (end, exact) {
                (Some(Outcome::Crashed(end)), Outcome::Crashed(exact)) => end.rip == exact.rip,
                (Some(end), exact) => end == exact,
                (None, _) => *mode != b"n" && !mode.starts_with(b"n0"),
            };
            assert!(is_same, "{}: {end:?} for {exact}", String::from_utf8_lossy(mode));
        }
        assert!(report.runs[5].is_none(), "a handler would see where its fault was");
        assert_eq!(compared.machine.verify().unwrap(), []);
        assert!(compared.trace(b"n").is_some());
    }
}

#[test]
fn batches_do_without_detours_when_asked_and_when_blocks_change() {
    let Some(mut compared) = Compared::new(&build_c("edges", &["-O2"]), Detail::Counts) else {
        return;
    };
    let inputs: [&[u8]; 3] = [b"nab", b"n9", b"n"];
    let exact: Vec<Option<Outcome>> =
        inputs.iter().map(|input| Some(compared.run_exactly(input))).collect();
    let run = |compared: &mut Compared, expects_news: bool| {
        for _ in 0..3 {
            let report = compared.run_batch(&inputs, Duration::from_secs(2));
            assert_eq!(report.runs, exact);
            assert_eq!(!report.news.is_empty(), expects_news);
            assert_eq!(compared.machine.verify().unwrap(), []);
        }
    };
    run(&mut compared, true);
    assert!(!compared.machine.compare_in_batches(false).unwrap());
    run(&mut compared, false);
    assert!(compared.machine.compare_in_batches(true).unwrap());
    run(&mut compared, true);
    compared.machine.set_blocks(&[]).unwrap();
    run(&mut compared, false);
}
