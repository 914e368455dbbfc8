//! A batch of runs gives what as many runs of their own give, and leaves nothing behind.

use crate::support::{RAM_BYTES, build_c, installed, kvm, limit, machine, patience, rounds, spec};
use dejavm_engine::coverage::{Arm, blocks};
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{
    Batch, BatchOptions, BatchReport, Boot, Limit, Machine, ProcessPoint, Started,
};
use dejavm_engine::outcome::{Outcome, Signal};
use dejavm_engine::symbols::{Image, Symbolizer};
use std::time::Duration;

/// How a run ends that does nothing bad.
const FINE: Option<Outcome> = Some(Outcome::Exited { status: 0 });

fn options() -> BatchOptions {
    BatchOptions { limit: limit().time, ..BatchOptions::default() }
}

/// With so many milliseconds for a run.
fn within(limit_ms: u64) -> BatchOptions {
    BatchOptions { limit: Some(patience(Duration::from_millis(limit_ms))), ..options() }
}

pub fn batch_of<'i>(inputs: impl IntoIterator<Item = &'i [u8]>) -> Batch {
    let mut batch = Batch::default();
    assert!(inputs.into_iter().all(|input| batch.push(input)));
    batch
}

/// A batch of all `inputs`, again and again.
fn repeated(inputs: &[&[u8]], times: usize) -> Batch {
    batch_of(std::iter::repeat_n(inputs, times).flatten().copied())
}

/// Each run of such a batch has ended as is expected of its input.
fn assert_repeats(
    report: &BatchReport,
    inputs: &[&[u8]],
    expected: &[Option<Outcome>],
    what: &str,
) {
    for (index, outcome) in report.runs.iter().enumerate() {
        let of = index % inputs.len();
        assert_eq!(*outcome, expected[of], "{what}, input {of}: {:?}", inputs[of]);
    }
}

/// How each input ends in a run of its own.
fn one_by_one<'i>(
    machine: &mut Machine,
    inputs: impl IntoIterator<Item = &'i [u8]>,
) -> Vec<Option<Outcome>> {
    let run = |input: &[u8]| {
        let outcome = machine.run(input, limit()).unwrap().outcome;
        machine.rewind().unwrap();
        Some(outcome)
    };
    inputs.into_iter().map(run).collect()
}

pub fn run(machine: &mut Machine, batch: &Batch) -> BatchReport {
    let mut report = BatchReport::default();
    machine.run_batch(batch, options(), &mut report).unwrap();
    report
}

pub fn guest(system: &System) -> Machine {
    machine(system, &spec(&build_c("batch", &[]), &[]))
}

/// Inputs of `batch.c` that are served in the guest or on the host, crash, or spoil what they can.
pub const DEEDS: [&[u8]; 12] = [
    b"plain",
    b"s spoil",
    b"g again and again",
    b"e addresses",
    b"m",
    b"d",
    b"",
    b"n",
    b"a",
    b"s",
    b"g twelve bytes",
    b"plain",
];

#[test]
fn a_batch_ends_as_runs_of_their_own_do() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    let expected = one_by_one(&mut machine, DEEDS);
    assert_eq!(expected[1], FINE);
    assert_eq!(expected[2], FINE);
    assert!(matches!(&expected[5], Some(Outcome::Crashed(fault)) if fault.signal == Signal::SEGV));
    let batch = repeated(&DEEDS, 20);
    for round in 0..rounds(40) {
        let report = run(&mut machine, &batch);
        assert_repeats(&report, &DEEDS, &expected, &format!("round {round}"));
        assert!(!report.is_distrusted);
        if round % 8 == 0 {
            assert_eq!(machine.verify().unwrap(), [], "round {round}");
        }
    }
    assert_eq!(one_by_one(&mut machine, DEEDS), expected);
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn an_input_is_found_by_its_path_as_in_runs_of_their_own() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("batch", &[]), &["@@"]));
    let deeds: [&[u8]; 5] = [b"plain", b"i by path", b"g again", b"e addresses", b"i once more"];
    let expected = one_by_one(&mut machine, deeds);
    assert!(expected.iter().all(|end| *end == FINE), "{expected:?}");
    let batch = repeated(&deeds, 10);
    for _ in 0..rounds(20) {
        assert_repeats(&run(&mut machine, &batch), &deeds, &expected, "by path");
    }
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn a_run_may_end_where_a_function_returns() {
    let Some(system) = kvm() else { return };
    let spec = spec(&build_c("harness", &[]), &[]);
    let mut boot = Boot::process(&system, &spec, RAM_BYTES, b"").unwrap();
    let images = boot.process_images().into_iter().map(|image| Image {
        name: image.path.to_string_lossy().into_owned(),
        bias: image.base,
        bytes: image.bytes,
    });
    let parse = Symbolizer::new(images.collect()).address_of("parse").unwrap();
    boot.end_at_return();
    let Started::AtSnapshot(mut machine) =
        boot.start(ProcessPoint::Address(parse), limit()).unwrap()
    else {
        panic!("it reads its input");
    };
    let alone = one_by_one(&mut machine, [&b"{"[..], b"!", b""]);
    assert_eq!([&alone[0], &alone[2]], [&FINE, &FINE]);
    assert!(matches!(&alone[1], Some(Outcome::Crashed(fault)) if fault.signal == Signal::ABRT));
    for _ in 0..5 {
        assert_eq!(run(&mut machine, &batch_of([&b"{"[..], b"!", b""])).runs, alone);
    }
    machine.run(b"{", limit()).unwrap();
    assert_eq!(machine.stdout(), b"", "main was never gone back to");
    machine.rewind().unwrap();
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn a_settled_batch_is_one_exit() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("json", &["-O2"]), &[]));
    let json: [&[u8]; 4] = [b"{\"a\": [1, 2.5e3, null]}", b"", b"[\"\\u00e9\"", b" 17 "];
    let expected = one_by_one(&mut machine, json.iter().copied().cycle().take(400));
    let batch = repeated(&json, 100);
    let exits: Vec<u64> = (0..7)
        .map(|_| {
            let report = run(&mut machine, &batch);
            assert_eq!(report.runs, expected);
            report.exits.total
        })
        .collect();
    assert_eq!(exits.iter().min(), Some(&1), "{exits:?}");
    assert!(machine.agent_pages_hot() > 2, "stack, data and input at least");
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn real_programs_end_in_a_batch_as_they_do_alone() {
    let Some(system) = kvm() else { return };
    let photo = include_bytes!("../guests/data/photo.jpg");
    let xml: [&[u8]; 3] = [b"<a><b c=\"d\">e</b></a>", b"<a><b></a>", b""];
    let jpeg: [&[u8]; 3] = [photo, &photo[..photo.len() / 2], b"\xff\xd8\xff"];
    let xmllint = ("/usr/bin/xmllint", "libxml2-utils", &["--noout", "-"][..], xml);
    let djpeg = ("/usr/bin/djpeg", "libjpeg-turbo-progs", &[][..], jpeg);
    for (path, package, args, inputs) in [xmllint, djpeg] {
        let Some(program) = installed(path, package) else { continue };
        let mut machine = machine(&system, &spec(&program, args));
        let expected = one_by_one(&mut machine, inputs);
        let batch = repeated(&inputs, 4);
        for _ in 0..rounds(20) {
            assert_repeats(&run(&mut machine, &batch), &inputs, &expected, path);
        }
        assert_eq!(machine.verify().unwrap(), [], "{path}");
    }
}

#[test]
fn no_run_of_a_batch_sees_what_an_earlier_one_left_in_registers_or_memory() {
    let Some(system) = kvm() else { return };
    let flags = ["-static", "-nostdlib", "-mavx2", "-fno-stack-protector", "-fno-tree-vectorize"];
    let mut machine = machine(&system, &spec(&build_c("leak", &flags), &[]));
    let batch = batch_of((0..200).map(|_| &b"once"[..]));
    for _ in 0..rounds(20) {
        let report = run(&mut machine, &batch);
        assert!(
            report.runs.iter().all(|run| *run == FINE),
            "bits tell what leaked: {:?}",
            report.runs
        );
    }
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn a_run_that_takes_too_long_is_the_one_that_is_told() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    let options = within(300);
    let inputs: [&[u8]; 6] = [b"plain", b"h", b"s", b"l", b"o", b"plain"];
    let mut report = BatchReport::default();
    for _ in 0..rounds(3) {
        machine.run_batch(&batch_of(inputs), options, &mut report).unwrap();
        assert_eq!(report.runs[0], FINE);
        assert_eq!(report.runs[1], Some(Outcome::TimedOut));
        assert_eq!(report.runs[2], FINE);
        assert_eq!(report.runs[3], Some(Outcome::TimedOut), "in system calls all the time");
        assert!(
            matches!(report.runs[4], Some(Outcome::OutputLimit | Outcome::TimedOut)),
            "{:?}",
            report.runs[4]
        );
        assert_eq!(report.runs[5], FINE);
        assert_eq!(machine.verify().unwrap(), []);
    }
}

#[test]
fn a_batch_stops_at_a_finding_and_the_next_one_goes_on() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    let mut report = BatchReport::default();
    let options = BatchOptions { stop_at_finding: true, ..options() };
    let batch = batch_of([&b"plain"[..], b"s", b"d", b"plain"]);
    machine.run_batch(&batch, options, &mut report).unwrap();
    assert_eq!(report.runs.len(), 3);
    assert!(matches!(report.runs[2], Some(Outcome::Crashed(_))));
    machine.run_batch(&batch_of([&b"plain"[..]]), options, &mut report).unwrap();
    assert_eq!(report.runs, [FINE]);
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn blocks_that_a_batch_reaches_are_the_runs_that_reached_them() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("json", &["-O2"]), &[]));
    let image = machine.process().unwrap().images().remove(0);
    let starts = blocks::find(&image.bytes).unwrap().starts;
    let starts: Vec<u64> = starts.iter().map(|start| start.wrapping_add(image.base)).collect();
    let inputs: [&[u8]; 4] = [b"1", b"1", b"[\"a\\u00e9\"]", b"{\"a\": null}"];
    let mut alone = Vec::new();
    machine.set_blocks(&starts).unwrap();
    machine.arm_blocks(Arm::Unknown);
    for input in inputs {
        machine.run(input, limit()).unwrap();
        alone.push(machine.blocks_hit().to_vec());
        machine.rewind().unwrap();
    }
    assert!(!alone[0].is_empty() && alone[1].is_empty() && !alone[2].is_empty());
    let all: Vec<u32> = alone.concat();
    machine.forget_blocks(&all);
    machine.arm_blocks(Arm::Unknown);
    let report = run(&mut machine, &batch_of(inputs));
    for (index, blocks) in alone.iter().enumerate() {
        assert_eq!(report.hits_of(index).collect::<Vec<_>>(), *blocks, "run {index}");
    }
    assert_eq!(machine.verify().unwrap(), []);
}

/// Where the agent's pages are; see `guest::process::agent::layout`.
const AGENT: u64 = 0x7f00_4000_0000;

fn with_address(deed: u8, address: u64) -> Vec<u8> {
    [&[deed][..], &address.to_le_bytes()].concat()
}

#[test]
fn a_program_that_writes_to_the_agents_pages_is_noticed() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    let options = within(50);
    let mut report = BatchReport::default();
    for page in 0..9 {
        for offset in (0..0x1000).step_by(if page == 5 { 8 } else { 1000 }) {
            let poke = with_address(b'w', AGENT + page * 0x1000 + offset);
            let alone = one_by_one(&mut machine, [&poke[..]]).remove(0);
            assert!(matches!(alone, Some(Outcome::Crashed(_))), "{alone:?}");
            let batch = batch_of([&b"plain"[..], &poke, b"s", b"plain"]);
            machine.run_batch(&batch, options, &mut report).unwrap();
            let at = format!("page {page}, offset {offset:#x}: {:?}", report.runs);
            // A page that the program may read is another fault's than one that is not there.
            let is_crash = matches!(report.runs[1], Some(Outcome::Crashed(_)));
            // The agent's scratch words mean nothing from one system call to the next.
            let is_scratch = page == 5 && SCRATCH.contains(&offset) || page == 6;
            assert!(is_crash || report.runs[1].is_none() || is_scratch, "{at}");
            assert!([0, 2, 3].into_iter().all(|index| is_fine(&report.runs[index])), "{at}");
        }
    }
    assert_eq!(machine.verify().unwrap(), []);
}

/// Whether a run that exits with 0 is told as such, or left to a run of its own: a busy host may
/// be too slow for a short limit.
fn is_fine(told: &Option<Outcome>) -> bool {
    matches!(told, None | Some(Outcome::Exited { status: 0 } | Outcome::TimedOut))
}

/// The offset of the index of the present run, and of its check behind it.
const INDEX: u64 = 8;

/// Offsets of words that the agent sets before it uses them.
const SCRATCH: std::ops::Range<u64> = 24..176;

#[test]
fn a_program_whose_exits_never_end_times_out() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    for endless in [&b"f"[..], b"q"] {
        let mut report = BatchReport::default();
        let batch = batch_of([&b"plain"[..], endless, b"plain"]);
        machine.run_batch(&batch, within(20), &mut report).unwrap();
        let what = endless.escape_ascii();
        let is_late = matches!(report.runs[1], None | Some(Outcome::TimedOut));
        assert!(is_late && is_fine(&report.runs[2]), "{what}: {:?}", report.runs);
        let limit = Limit::time(patience(Duration::from_millis(20)));
        assert_eq!(machine.run(endless, limit).unwrap().outcome, Outcome::TimedOut, "{what}");
        machine.rewind().unwrap();
        assert_eq!(machine.verify().unwrap(), [], "{what}");
    }
}

#[test]
fn a_program_that_says_that_the_batch_is_over_does_not_run_for_ever() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    for claimed in 0..=5 {
        // As many more bytes as the index that it shall claim.
        let mut over = with_address(b'b', AGENT + 5 * 0x1000 + INDEX);
        over.resize(9 + claimed, 0);
        let mut report = BatchReport::default();
        let batch = batch_of([&b"plain"[..], &over, b"s", b"plain"]);
        machine.run_batch(&batch, within(50), &mut report).unwrap();
        let is_told = |index: usize| is_fine(&report.runs[index]);
        assert!([0, 2, 3].into_iter().all(is_told), "{claimed}: {:?}", report.runs);
        let is_exit = matches!(report.runs[1], Some(Outcome::Exited { .. }));
        assert!(!is_exit, "{claimed}: {:?}", report.runs);
        assert_eq!(machine.verify().unwrap(), []);
        assert!(run(&mut machine, &batch_of([&b"plain"[..], b"s"])).runs.iter().all(is_fine));
    }
}

#[test]
fn a_program_that_jumps_into_the_agent_harms_only_itself() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    let options = within(50);
    let mut report = BatchReport::default();
    // Every exit, and places all over the code; the system-call gate too.
    let places = (0..0x600).step_by(13).map(|at| AGENT + 0x1000 + at);
    for place in places.chain([0x7f00_0000_5000]) {
        let jump = with_address(b'x', place);
        let batch = batch_of([&b"plain"[..], &jump, b"s", b"plain"]);
        machine.run_batch(&batch, options, &mut report).unwrap();
        for index in [0, 2, 3] {
            assert!(is_fine(&report.runs[index]), "{place:#x}: {:?}", report.runs);
        }
        assert_eq!(machine.verify().unwrap(), [], "{place:#x}");
    }
}

#[test]
fn a_run_that_takes_the_agents_addresses_is_the_only_one_that_is_not_told() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    assert_eq!(one_by_one(&mut machine, [&b"r"[..]])[0], FINE);
    // System calls are replaced by now, so that there is code of the agent's in the way.
    (0..4).for_each(|_| drop(run(&mut machine, &batch_of([&b"plain"[..], b"s"]))));
    for _ in 0..rounds(20) {
        let report = run(&mut machine, &batch_of([&b"plain"[..], b"r", b"s", b"plain"]));
        assert_eq!(report.runs, [FINE, None, FINE, FINE]);
        assert!(!report.is_distrusted);
        assert_eq!(machine.verify().unwrap(), []);
    }
}

#[test]
fn a_page_that_is_no_longer_written_leaves_the_hot_ones() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    run(&mut machine, &batch_of([&b"s"[..], b"plain"]));
    let with_data = machine.agent_pages_hot();
    let plain = batch_of([&b"plain"[..], b"plain"]);
    for _ in 0..100 {
        run(&mut machine, &plain);
    }
    let without = machine.agent_pages_hot();
    assert!(without + 8 <= with_data, "{with_data} to {without}");
    let report = run(&mut machine, &batch_of([&b"s"[..], b"plain"]));
    assert!(report.runs.iter().all(|run| *run == FINE));
    assert_eq!(machine.agent_pages_hot(), with_data);
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn a_run_of_its_own_may_follow_a_batch_at_any_time() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    let batch = batch_of([&b"s"[..], b"plain", b"d"]);
    for round in 0..rounds(100) {
        let report = run(&mut machine, &batch);
        assert_eq!(report.runs[1], FINE, "round {round}");
        let alone = machine.run(b"g once more", Limit::default()).unwrap();
        assert_eq!(alone.outcome, Outcome::Exited { status: 0 }, "round {round}");
        machine.rewind().unwrap();
    }
    assert_eq!(machine.verify().unwrap(), []);
}
