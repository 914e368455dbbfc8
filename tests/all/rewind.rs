//! A rewind leaves nothing behind: in registers, in memory, in the process's kernel state.

use crate::support::{build_c, installed, kvm, limit, machine, patience, rounds, spec};
use dejavm_engine::coverage::{Arm, blocks};
use dejavm_engine::machine::{Limit, MachineError};
use dejavm_engine::outcome::Outcome;
use std::time::Duration;

const REWINDS: u32 = 10_000;

fn leak() -> std::path::PathBuf {
    let flags = ["-static", "-nostdlib", "-mavx2", "-fno-stack-protector", "-fno-tree-vectorize"];
    build_c("leak", &flags)
}

#[test]
fn the_leak_guest_can_fail() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&leak(), &[]));
    let report = machine.run(b"twice", limit()).unwrap();
    assert_eq!(
        report.outcome,
        Outcome::Exited { status: 255 },
        "every check must see the spoiling"
    );
}

#[test]
fn no_run_sees_what_an_earlier_one_left_in_registers_or_memory() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&leak(), &[]));
    for run in 0..rounds(REWINDS) {
        let report = machine.run(b"once", limit()).unwrap();
        assert_eq!(
            report.outcome,
            Outcome::Exited { status: 0 },
            "bits tell what leaked, run {run}"
        );
        machine.rewind().unwrap();
    }
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn ten_thousand_runs_of_a_dynamic_program_verify() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("words", &[]), &[]));
    let inputs: [&[u8]; 3] = [b"one two three", b"", b"b a"];
    for run in 0..rounds(REWINDS) {
        let input = inputs[run as usize % inputs.len()];
        let report = machine.run(input, limit()).unwrap();
        let status = if input.is_empty() { 3 } else { 0 };
        assert_eq!(report.outcome, Outcome::Exited { status });
        machine.rewind().unwrap();
    }
    assert_eq!(machine.verify().unwrap(), []);
    machine.run(b"b a", limit()).unwrap();
    assert_eq!(machine.stdout(), b"a\nb\n2 words, 2.000000\n");
}

#[test]
fn mappings_that_a_run_makes_and_removes_are_undone() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("mappings", &[]), &[]));
    for run in 0..rounds(200) {
        let report = machine.run(&[run as u8], limit()).unwrap();
        assert_eq!(report.outcome, Outcome::Exited { status: 0 }, "run {run}");
        machine.rewind().unwrap();
        if run % 50 == 0 {
            assert_eq!(machine.verify().unwrap(), [], "run {run}");
        }
    }
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn a_run_stopped_among_its_mappings_leaves_them_as_they_were() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("mappings", &[]), &[]));
    for run in 0..rounds(300) {
        // Over from the start: the watchdog stops it wherever it is.
        machine.run(&[run as u8], Limit::time(Duration::ZERO)).unwrap();
        machine.rewind().unwrap();
        if run % 50 == 0 {
            assert_eq!(machine.verify().unwrap(), [], "run {run}");
        }
        let whole = machine.run(&[run as u8], limit()).unwrap();
        assert_eq!(whole.outcome, Outcome::Exited { status: 0 }, "run {run}");
        machine.rewind().unwrap();
    }
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn a_timed_out_run_rewinds_completely() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("faults", &[]), &[]));
    let short = Limit::time(Duration::from_millis(30));
    for _ in 0..5 {
        assert_eq!(machine.run(b"l", short).unwrap().outcome, Outcome::TimedOut);
        machine.rewind().unwrap();
        assert_eq!(machine.verify().unwrap(), []);
        let after = machine.run(b"e", limit()).unwrap();
        assert_eq!(after.outcome, Outcome::Exited { status: 42 });
        machine.rewind().unwrap();
    }
}

#[test]
fn a_machine_that_ran_refuses_to_run_again_before_its_rewind() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("faults", &[]), &[]));
    machine.run(b"e", limit()).unwrap();
    assert!(matches!(machine.run(b"e", limit()), Err(MachineError::NotRewound)));
    assert!(matches!(machine.verify(), Err(MachineError::NotRewound)));
    machine.rewind().unwrap();
    machine.run(b"e", limit()).unwrap();
}

#[test]
fn breakpoints_are_hit_once_and_their_time_is_not_the_programs() {
    let Some(system) = kvm() else { return };
    let Some(xmllint) = installed("/usr/bin/xmllint", "libxml2-utils") else { return };
    let mut machine = machine(&system, &spec(&xmllint, &["--noout", "@@"]));
    let images = machine.process().unwrap().images();
    let library = images.iter().find(|i| i.path.to_string_lossy().contains("libxml2")).unwrap();
    let starts = blocks::find(&library.bytes).unwrap().starts;
    let starts: Vec<u64> = starts.iter().map(|start| start + library.base).collect();
    machine.set_blocks(&starts).unwrap();
    machine.arm_blocks(Arm::All);
    let xml = b"<?xml version='1.0'?><a x='1'><b>text &amp; more</b><!-- c --></a>";
    // More than a thousand hits at 30 us or more take longer than this limit.
    let short = Limit::time(patience(Duration::from_millis(20)));
    let first = machine.run(xml, short).unwrap();
    assert_eq!(first.outcome, Outcome::Exited { status: 0 });
    let hits = machine.blocks_hit().to_vec();
    assert!(hits.len() > 1_000, "{} blocks", hits.len());
    machine.rewind().unwrap();
    assert_eq!(machine.verify().unwrap(), [], "the breakpoints that are left are no difference");
    let second = machine.run(xml, short).unwrap();
    assert_eq!(second.outcome, first.outcome);
    assert!(machine.blocks_hit().is_empty());
    machine.rewind().unwrap();
    machine.arm_blocks(Arm::All);
    machine.run(xml, short).unwrap();
    assert_eq!(machine.blocks_hit(), hits, "the same input reaches the same blocks");
}
