//! Memory calls in a guest are those of the kernel that runs the tests: the same results, errors
//! and contents.

use crate::batch::batch_of;
use crate::support::{Guest, build_c, in_guest, kvm, limit, machine, natively, spec, times};
use dejavm_engine::machine::{BatchOptions, BatchReport};
use dejavm_engine::outcome::Outcome;

/// Programs that take the same path whatever is faster: static ones have fewer mappings.
const STATIC: &[&str] = &["-static"];

/// Whether this host's own files can be compared with: the emulated host has a RAM disk alone, on
/// which the programs here fail natively.
fn has_files_to_map() -> bool {
    let is_small = times(0, 1) == 1;
    if is_small {
        eprintln!("left out on a slow host: a comparison with its own memory calls");
    }
    !is_small
}

#[test]
fn every_memory_call_answers_as_the_kernel_does() {
    let Some(system) = kvm() else { return };
    if !has_files_to_map() {
        return;
    }
    for flags in [STATIC, &[]] {
        let program = build_c("memory_calls", flags);
        let native = natively(&program, &[], b"");
        let guest = in_guest(&system, &mut spec(&program, &[]), b"");
        for (guest, native) in guest.stdout.lines().zip(native.stdout.lines()) {
            assert_eq!(guest, native);
        }
        assert_eq!(guest, native);
        assert_eq!(native.status, 0);
        assert!(native.stdout.lines().count() > 200, "it did not do what it is for");
    }
}

#[test]
fn random_memory_calls_leave_what_they_leave_natively() {
    let Some(system) = kvm() else { return };
    if !has_files_to_map() {
        return;
    }
    let program = build_c("memory_random", STATIC);
    let mut spec = spec(&program, &[]);
    let mut guest = Guest::new(&system, &mut spec);
    for seed in 0..times(12, 3) {
        let seed = format!("seed {seed}");
        let native = natively(&program, &[], seed.as_bytes());
        let guest = guest.run(seed.as_bytes());
        let pairs = guest.stdout.lines().zip(native.stdout.lines());
        for (guest, native) in pairs {
            assert_eq!(guest, native, "{seed}");
        }
        assert_eq!(guest, native, "{seed}");
        assert!(native.status >= 64, "{seed}");
    }
}

/// The same calls again and again from one snapshot, alone and in batches: each run finds memory
/// and page tables as the first one did.
#[test]
fn a_rewind_undoes_every_kind_of_mapping() {
    let Some(system) = kvm() else { return };
    for (name, inputs) in [("memory_calls", [""; 3]), ("memory_random", ["3", "14", "3"])] {
        let program = build_c(name, STATIC);
        let mut machine = machine(&system, &spec(&program, &[]));
        let mut run = |input: &str| {
            let outcome = machine.run(input.as_bytes(), limit()).unwrap().outcome;
            let end = (outcome, machine.stdout().to_vec());
            machine.rewind().unwrap();
            assert_eq!(machine.verify().unwrap(), []);
            end
        };
        let first = inputs.map(&mut run);
        assert!(matches!(first[0].0, Outcome::Exited { .. }), "{name}: {}", first[0].0);
        assert!(inputs.map(run) == first, "{name}");
        let batch = batch_of(inputs.iter().map(|input| input.as_bytes()));
        let mut report = BatchReport::default();
        for _ in 0..times(2, 1) {
            let options = BatchOptions { limit: limit().time, ..BatchOptions::default() };
            machine.run_batch(&batch, options, &mut report).unwrap();
            let expected = first.each_ref().map(|(outcome, _)| Some(outcome.clone()));
            assert_eq!(report.runs, expected, "{name}");
            assert_eq!(machine.verify().unwrap(), []);
        }
    }
}

/// What a program says of its own addresses is the same in every boot.
#[test]
fn addresses_are_the_same_in_every_boot() {
    let Some(system) = kvm() else { return };
    for flags in [&["-fPIE", "-pie"][..], STATIC] {
        let program = build_c("addresses", flags);
        let [first, second] = [0; 2].map(|_| in_guest(&system, &mut spec(&program, &[]), b""));
        assert_eq!(first.status, 0);
        assert!(first.stdout.lines().count() > 8, "{}", first.stdout);
        assert_eq!(first, second);
    }
}
