//! A program that spins without a system call gives way to its other threads and its timers.

use crate::batch::batch_of;
use crate::support::{build_c, kvm, limit, machine, natively, patience, spec, status_of};
use dejavm_engine::machine::{BatchOptions, BatchReport, Limit, Machine};
use dejavm_engine::outcome::Outcome;
use std::path::PathBuf;
use std::time::Duration;

/// What `spins.c` can do that comes to an end.
const SPINS: [&str; 5] = ["handing", "sleeper", "asker", "timer", "fatal"];

fn spins() -> PathBuf {
    build_c("spins", &["-pthread"])
}

/// How a run of `input` ends, what it writes, and how often it was interrupted.
fn run(machine: &mut Machine, input: &str) -> (Outcome, String, u64) {
    let report = machine.run(input.as_bytes(), limit()).unwrap();
    let stdout = String::from_utf8(machine.stdout().to_vec()).unwrap();
    machine.rewind().unwrap();
    (report.outcome, stdout, report.preemptions)
}

#[test]
fn a_spinning_program_ends_as_natively() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&spins(), &[]));
    for input in SPINS {
        let native = natively(&spins(), &[], input.as_bytes());
        let (outcome, stdout, preemptions) = run(&mut machine, input);
        assert_eq!((status_of(&outcome), stdout), (native.status, native.stdout), "{input}");
        // One that makes calls gives way at them.
        assert_eq!(preemptions > 0, input != "asker", "{input}: {preemptions}");
    }
    assert_eq!(
        run(&mut machine, "nothing"),
        (Outcome::Exited { status: 0 }, "nothing\n".into(), 0)
    );
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn a_program_that_spins_for_ever_passes_its_limit() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&spins(), &[]));
    let short = patience(Duration::from_millis(200));
    let report = machine.run(b"never", Limit::time(short)).unwrap();
    assert_eq!(report.outcome, Outcome::TimedOut);
    assert!(report.preemptions > 0 && report.duration >= short, "{report:?}");
    machine.rewind().unwrap();
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn a_batch_leaves_a_spinning_program_to_a_run_of_its_own() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&spins(), &[]));
    let batch = batch_of([&b"nothing"[..], b"timer", b"nothing", b"handing", b"nothing"]);
    let short = patience(Duration::from_millis(200));
    let options = BatchOptions { limit: Some(short), ..BatchOptions::default() };
    let mut report = BatchReport::default();
    machine.run_batch(&batch, options, &mut report).unwrap();
    let fine = Some(Outcome::Exited { status: 0 });
    assert_eq!(report.runs, [fine.clone(), None, fine.clone(), None, fine]);
    assert_eq!(run(&mut machine, "timer").1, "beaten\n");
    assert_eq!(machine.verify().unwrap(), []);
}
