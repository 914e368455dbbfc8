//! A rewind leaves nothing behind: in registers, in memory, in the process's kernel state; whoever
//! tells which pages were written.

use crate::support::{build_c, installed, kvm, limit, machine, patience, rounds, spec};
use dejavm_engine::coverage::{Arm, blocks};
use dejavm_engine::kvm::System;
use dejavm_engine::linux::ProcessSpec;
use dejavm_engine::machine::hardware::DirtySource;
use dejavm_engine::machine::{Batch, BatchOptions, BatchReport, Limit, Machine, MachineError};
use dejavm_engine::outcome::Outcome;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const REWINDS: u32 = 10_000;

/// Of machines that differ from the first in the source of dirty pages only.
const REWINDS_BY_SOURCE: [u32; 3] = [REWINDS, REWINDS / 10, REWINDS / 10];

/// As few entries as the kernel allows: a run of some hundred pages fills such a ring, on Intel of
/// about 450.
const SMALLEST: DirtySource = DirtySource::Ring { entries: 1 };

/// Machines at the same snapshot, one for each way in which it can be told which pages were
/// written, by name; the first is as it comes from its boot.
fn by_every_source(system: &System, spec: &ProcessSpec) -> Vec<(&'static str, Machine)> {
    let booted = machine(system, spec);
    let load = |dirty| Machine::load_with(system, Arc::clone(booted.snapshot()), dirty).unwrap();
    let mut machines = vec![("dirty log", load(DirtySource::Log))];
    if system.dirty_ring().is_some() {
        machines.push(("smallest ring", load(SMALLEST)));
    }
    machines.insert(0, ("as booted", booted));
    machines
}

/// A machine whose ring is as small as can be; `None` where the host has none.
fn with_smallest_ring(system: &System, spec: &ProcessSpec) -> Option<Machine> {
    let found =
        by_every_source(system, spec).into_iter().find(|(name, _)| *name == "smallest ring");
    if found.is_none() {
        eprintln!("skipped: this host's KVM has no dirty ring");
    }
    found.map(|(_, machine)| machine)
}

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
    let machines = by_every_source(&system, &spec(&leak(), &[]));
    for ((source, mut machine), rewinds) in machines.into_iter().zip(REWINDS_BY_SOURCE) {
        for run in 0..rounds(rewinds) {
            let report = machine.run(b"once", limit()).unwrap();
            assert_eq!(
                report.outcome,
                Outcome::Exited { status: 0 },
                "bits tell what leaked, {source}, run {run}"
            );
            machine.rewind().unwrap();
        }
        assert_eq!(machine.verify().unwrap(), [], "{source}");
    }
}

#[test]
fn ten_thousand_runs_of_a_dynamic_program_verify() {
    let Some(system) = kvm() else { return };
    let inputs: [&[u8]; 3] = [b"one two three", b"", b"b a"];
    let machines = by_every_source(&system, &spec(&build_c("words", &[]), &[]));
    for ((source, mut machine), rewinds) in machines.into_iter().zip(REWINDS_BY_SOURCE) {
        for run in 0..rounds(rewinds) {
            let input = inputs[run as usize % inputs.len()];
            let report = machine.run(input, limit()).unwrap();
            let status = if input.is_empty() { 3 } else { 0 };
            assert_eq!(report.outcome, Outcome::Exited { status }, "{source}, run {run}");
            machine.rewind().unwrap();
        }
        assert_eq!(machine.verify().unwrap(), [], "{source}");
        machine.run(b"b a", limit()).unwrap();
        assert_eq!(machine.stdout(), b"a\nb\n2 words, 2.000000\n");
    }
}

#[test]
fn mappings_that_a_run_makes_and_removes_are_undone() {
    let Some(system) = kvm() else { return };
    for (source, mut machine) in by_every_source(&system, &spec(&build_c("mappings", &[]), &[])) {
        for run in 0..rounds(200) {
            let report = machine.run(&[run as u8], limit()).unwrap();
            assert_eq!(report.outcome, Outcome::Exited { status: 0 }, "{source}, run {run}");
            machine.rewind().unwrap();
            if run % 50 == 0 {
                assert_eq!(machine.verify().unwrap(), [], "{source}, run {run}");
            }
        }
        assert_eq!(machine.verify().unwrap(), [], "{source}");
    }
}

#[test]
fn a_run_stopped_among_its_mappings_leaves_them_as_they_were() {
    let Some(system) = kvm() else { return };
    for (source, mut machine) in by_every_source(&system, &spec(&build_c("mappings", &[]), &[])) {
        for run in 0..rounds(300) {
            // Over from the start: the watchdog stops it wherever it is.
            machine.run(&[run as u8], Limit::time(Duration::ZERO)).unwrap();
            machine.rewind().unwrap();
            if run % 50 == 0 {
                assert_eq!(machine.verify().unwrap(), [], "{source}, run {run}");
            }
            let whole = machine.run(&[run as u8], limit()).unwrap();
            assert_eq!(whole.outcome, Outcome::Exited { status: 0 }, "{source}, run {run}");
            machine.rewind().unwrap();
        }
        assert_eq!(machine.verify().unwrap(), [], "{source}");
    }
}

#[test]
fn a_timed_out_run_rewinds_completely() {
    let Some(system) = kvm() else { return };
    let short = Limit::time(Duration::from_millis(30));
    for (source, mut machine) in by_every_source(&system, &spec(&build_c("faults", &[]), &[])) {
        for _ in 0..5 {
            assert_eq!(machine.run(b"l", short).unwrap().outcome, Outcome::TimedOut);
            machine.rewind().unwrap();
            assert_eq!(machine.verify().unwrap(), [], "{source}");
            let after = machine.run(b"e", limit()).unwrap();
            assert_eq!(after.outcome, Outcome::Exited { status: 42 });
            machine.rewind().unwrap();
        }
    }
}

/// A program that writes to each of so many pages, and to few others: `dirty` in every run, `once`
/// in those with an input.
fn writer(mode: &str, pages: &str) -> ProcessSpec {
    let flags = ["-O2", "-static", "-nostdlib", "-fno-stack-protector"];
    spec(&build_c("loops", &flags), &[mode, pages])
}

#[test]
fn a_programs_writes_come_from_a_ring_where_the_host_has_one() {
    let Some(system) = kvm() else { return };
    let booted = machine(&system, &writer("dirty", "1"));
    let loaded = Machine::load(&system, Arc::clone(booted.snapshot())).unwrap();
    for machine in [booted, loaded] {
        let entries = machine.dirty_ring_entries();
        assert_eq!(entries.is_some(), system.dirty_ring().is_some());
        assert!(entries.is_none_or(|entries| entries >= 65_536), "256 MiB fill no smaller one");
    }
}

#[test]
fn a_run_that_fills_the_ring_goes_on_and_is_put_back() {
    let Some(system) = kvm() else { return };
    let Some(mut machine) = with_smallest_ring(&system, &writer("dirty", "1024")) else { return };
    let entries = machine.dirty_ring_entries().unwrap();
    assert!(entries <= 1024, "{entries} entries are more pages than the program writes");
    for run in 0..rounds(50) {
        let report = machine.run(b"", limit()).unwrap();
        assert_eq!(report.outcome, Outcome::Exited { status: 0 }, "run {run}");
        let rewound = machine.rewind().unwrap();
        assert!(rewound.ring_full > 0, "run {run}: {rewound:?}");
        assert!(rewound.pages_hot >= 1024, "run {run}: {rewound:?}");
        if run % 10 == 0 {
            assert_eq!(machine.verify().unwrap(), [], "run {run}");
        }
    }
    assert_eq!(machine.verify().unwrap(), []);
}

/// Sends the calling thread the signal of kicks, meant for another vCPU, for as long as `work` takes.
fn under_signals(system: &System, work: impl FnOnce()) {
    let vcpu = system.create_vm().unwrap().create_vcpu().unwrap();
    let kicker = vcpu.kicker();
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    let thread = own.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let sender = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            while !is_over.load(Ordering::Relaxed) {
                kicker.kick(thread);
                std::thread::sleep(Duration::from_micros(20));
            }
        }
    });
    work();
    is_over.store(true, Ordering::Relaxed);
    sender.join().unwrap();
}

#[test]
fn a_signal_while_the_ring_is_given_back_loses_no_page() {
    let Some(system) = kvm() else { return };
    let Some(mut machine) = with_smallest_ring(&system, &writer("dirty", "1024")) else { return };
    under_signals(&system, || {
        for run in 0..rounds(100) {
            let report = machine.run(b"", limit()).unwrap();
            assert_eq!(report.outcome, Outcome::Exited { status: 0 }, "run {run}");
            assert!(machine.rewind().unwrap().ring_full > 0, "run {run}");
            assert_eq!(machine.verify().unwrap(), [], "run {run}");
        }
    });
}

#[test]
fn a_batch_that_fills_the_ring_goes_on_and_is_put_back() {
    let Some(system) = kvm() else { return };
    let Some(mut machine) = with_smallest_ring(&system, &writer("dirty", "1024")) else { return };
    let mut batch = Batch::default();
    assert!((0..8).all(|_| batch.push(b"x")));
    let options = BatchOptions { limit: limit().time, ..BatchOptions::default() };
    let mut report = BatchReport::default();
    for round in 0..5 {
        machine.run_batch(&batch, options, &mut report).unwrap();
        assert_eq!(report.runs, vec![Some(Outcome::Exited { status: 0 }); 8], "round {round}");
        if round % 2 == 1 {
            assert_eq!(machine.verify().unwrap(), [], "round {round}");
        }
    }
    // No host rewind has looked at what the batches wrote.
    machine.run_batch(&batch, options, &mut report).unwrap();
    let rewound = machine.rewind().unwrap();
    assert!(rewound.ring_full > 0, "{rewound:?}");
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn a_settled_ring_is_left_alone() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &writer("dirty", "64"));
    let mut last = Vec::new();
    // Past a dozen audits.
    for _ in 0..rounds(2_000) {
        machine.run(b"", limit()).unwrap();
        last.push(machine.rewind().unwrap());
    }
    assert!(last[0].pages_new >= 64, "{:?}", last[0]);
    let later = &last[10..];
    assert!(later.iter().all(|rewound| rewound.pages_new == 0), "a page became hot once more");
    assert!(later.iter().all(|rewound| rewound.pages_hot == later[0].pages_hot));
}

#[test]
fn pages_that_only_one_run_wrote_cool_whoever_told_of_them() {
    let Some(system) = kvm() else { return };
    for (source, mut machine) in by_every_source(&system, &writer("once", "100")) {
        machine.run(b"many", limit()).unwrap();
        let after_big = machine.rewind().unwrap().pages_hot;
        assert!(after_big >= 100, "{source}: {after_big}");
        // Four audits, and some more.
        for _ in 0..800 {
            machine.run(b"", limit()).unwrap();
            machine.rewind().unwrap();
        }
        let cooled = machine.last_rewind().pages_hot;
        assert!(cooled + 100 <= after_big, "{source}: {cooled} of {after_big}");
        machine.run(b"many", limit()).unwrap();
        assert!(machine.rewind().unwrap().pages_new >= 100, "{source}");
        assert_eq!(machine.verify().unwrap(), [], "{source}");
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
