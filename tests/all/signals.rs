//! Signals, timers and threads inside a program are what they are natively.

use crate::batch::batch_of;
use crate::support::{
    End, Guest, build_c, build_rust, in_guest, kvm, limit, machine, natively, spec,
};
use dejavm_engine::linux::{FileMapping, ProcessSpec};
use dejavm_engine::machine::{BatchOptions, BatchReport, Machine, MachineSnapshot};
use dejavm_engine::outcome::Outcome;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `signals.c` can do.
const PARTS: [&str; 16] = [
    "faults",
    "stacks",
    "overflow",
    "masks",
    "registers",
    "timers",
    "pipe",
    "infos",
    "nested",
    "abort",
    "blocked",
    "ignored",
    "nostack",
    "again",
    "frame",
    "term",
];

/// What `threads.c` can do.
const WORK: [&str; 7] = ["produce", "pipes", "meetings", "signals", "crash", "exit", "first"];

fn signals() -> PathBuf {
    build_c("signals", &["-pthread"])
}

fn threads() -> PathBuf {
    build_c("threads", &["-pthread"])
}

/// With the library that glibc opens when a thread is cancelled.
fn threads_spec(args: &[&str]) -> ProcessSpec {
    let mut spec = spec(&threads(), args);
    let unwinder = ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/libgcc_s.so.1"];
    let host = unwinder.iter().map(Path::new).find(|path| path.exists()).unwrap();
    spec.files.push(FileMapping { host: host.into(), guest: host.into() });
    spec
}

/// Natively a death by signal in a shell's terms, and nothing on standard error.
fn compare(guest: &End, native: &End, what: &str) {
    assert_eq!(guest, native, "{what}");
}

#[test]
fn handlers_masks_stacks_and_timers_are_as_natively() {
    let Some(system) = kvm() else { return };
    let program = signals();
    for part in PARTS {
        let guest = in_guest(&system, &mut spec(&program, &[part]), b"");
        compare(&guest, &natively(&program, &[part], b""), part);
    }
}

#[test]
fn threads_work_wait_and_end_as_natively() {
    let Some(system) = kvm() else { return };
    for how in [&[][..], &["early"]] {
        let mut spec = threads_spec(how);
        let mut guest = Guest::new(&system, &mut spec);
        for work in WORK {
            // Its helper never ends, and so natively neither does the process.
            if (work, how) == ("first", &["early"]) {
                continue;
            }
            compare(&guest.run(work.as_bytes()), &natively(&threads(), how, work.as_bytes()), work);
        }
    }
}

#[test]
fn a_rust_program_with_threads_is_as_natively() {
    let Some(system) = kvm() else { return };
    let program = build_rust("threads");
    let mut spec = spec(&program, &[]);
    let mut guest = Guest::new(&system, &mut spec);
    for input in ["some words for a worker", "deep", "deep thread", "panic", "null"] {
        let guest = guest.run(input.as_bytes());
        let native = natively(&program, &[], input.as_bytes());
        // The thread's number is in messages of newer standard libraries.
        let plain = |end: End| End { stderr: without_numbers(&end.stderr), ..end };
        compare(&plain(guest), &plain(native), input);
    }
}

fn without_numbers(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// How a run of each input ends, and what it writes.
fn ends(machine: &mut Machine, inputs: &[&str]) -> Vec<(Outcome, Vec<u8>)> {
    let run = |input: &&str| {
        let outcome = machine.run(input.as_bytes(), limit()).unwrap().outcome;
        let end = (outcome, machine.stdout().to_vec());
        machine.rewind().unwrap();
        end
    };
    inputs.iter().map(run).collect()
}

#[test]
fn a_rewind_forgets_handlers_threads_and_timers() {
    let Some(system) = kvm() else { return };
    let alone = machine(&system, &spec(&signals(), &[]));
    let waiting = machine(&system, &threads_spec(&["early"]));
    for (mut machine, inputs) in [(alone, &PARTS[..]), (waiting, &WORK[..6])] {
        let first = ends(&mut machine, inputs);
        let reversed: Vec<&str> = inputs.iter().rev().copied().collect();
        for _ in 0..3 {
            let mut again = ends(&mut machine, &reversed);
            again.reverse();
            assert_eq!(again, first);
        }
        assert_eq!(machine.verify().unwrap(), []);
    }
}

#[test]
fn a_batch_says_the_same_of_handlers_and_threads() {
    let Some(system) = kvm() else { return };
    let alone = machine(&system, &spec(&signals(), &[]));
    let waiting = machine(&system, &threads_spec(&["early"]));
    // Unknown are calls that are made again behind a handler, and what is not within the limits.
    for (mut machine, inputs, unknown_max) in [(alone, &PARTS[..], 4), (waiting, &WORK[..6], 0)] {
        let exact = ends(&mut machine, inputs);
        let batch = batch_of(inputs.iter().map(|input| input.as_bytes()));
        let options = BatchOptions { limit: limit().time, ..BatchOptions::default() };
        let mut report = BatchReport::default();
        for round in 0..10 {
            machine.run_batch(&batch, options, &mut report).unwrap();
            assert!(!report.is_distrusted);
            let mut unknown = Vec::new();
            for ((input, said), (expected, _)) in inputs.iter().zip(&report.runs).zip(&exact) {
                match said {
                    Some(said) => assert_eq!(said, expected, "{input} in round {round}"),
                    None => unknown.push(input),
                }
            }
            assert!(unknown.len() <= unknown_max, "{unknown:?} in round {round}");
        }
        assert_eq!(machine.verify().unwrap(), []);
        assert_eq!(ends(&mut machine, inputs), exact);
    }
}

#[test]
fn a_snapshot_file_keeps_threads_that_wait() {
    let Some(system) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("threads.dejavm");
    let mut machine = machine(&system, &threads_spec(&["early"]));
    machine.snapshot().save(&path).unwrap();
    let snapshot = Arc::new(MachineSnapshot::open(&path).unwrap());
    let mut loaded = Machine::load(&system, snapshot).unwrap();
    assert_eq!(ends(&mut loaded, &WORK[..6]), ends(&mut machine, &WORK[..6]));
    assert_eq!(loaded.verify().unwrap(), []);
}

#[test]
fn a_process_whose_threads_all_wait_for_ever_has_timed_out() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &threads_spec(&["early"]));
    let report = machine.run(b"first", limit()).unwrap();
    assert_eq!(report.outcome, Outcome::TimedOut);
    assert!(report.duration < limit().time.unwrap() / 2, "noticed, not waited for");
    machine.rewind().unwrap();
}
