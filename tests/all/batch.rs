//! A batch of runs gives what as many runs of their own give, and leaves nothing behind.

use crate::support::{build_c, kvm, limit, machine, spec};
use dejavm_engine::machine::{Batch, BatchOptions, BatchReport, Machine};
use dejavm_engine::outcome::Outcome;

fn options() -> BatchOptions {
    BatchOptions { limit: limit().time, stop_at_finding: false }
}

fn batch_of(inputs: &[&[u8]]) -> Batch {
    let mut batch = Batch::default();
    assert!(inputs.iter().all(|input| batch.push(input)));
    batch
}

/// The outcome of each input in a run of its own.
fn one_by_one(machine: &mut Machine, inputs: &[&[u8]]) -> Vec<Option<Outcome>> {
    let run = |input: &&[u8]| {
        let outcome = machine.run(input, limit()).unwrap().outcome;
        machine.rewind().unwrap();
        Some(outcome)
    };
    inputs.iter().map(run).collect()
}

const JSON: [&[u8]; 6] =
    [b"{\"a\": [1, 2.5e3, null]}", b"", b"[", b"[[[\"\\u00e9\"]], true]", b"x", b" 17 "];

#[test]
fn a_batch_ends_as_runs_of_their_own_do() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("json", &["-O2"]), &[]));
    let inputs: Vec<&[u8]> = JSON.iter().copied().cycle().take(600).collect();
    let expected = one_by_one(&mut machine, &inputs);
    let mut report = BatchReport::default();
    let batch = batch_of(&inputs);
    for _ in 0..50 {
        machine.run_batch(&batch, options(), &mut report).unwrap();
        assert!(report.runs == expected, "{:?} rebuilt {}", &report.runs[..5], report.rebuilt);
    }
    assert_eq!(machine.verify().unwrap(), []);
}
