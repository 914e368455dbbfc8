//! Calls that the agent answers from memory: as the host answers them, and with the process that they
//! leave behind.

use crate::batch::{batch_of, run};
use crate::support::{build_c, kvm, limit, machine, rounds, spec};
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{BatchReport, Machine};
use dejavm_engine::outcome::Outcome;

/// What `repeats.c` knows.
const OPS: &[u8] = b"rcCtoORplxsSagkmMuTbBhHiKnNdDfeEzZwqQvFIyPLWjJAA";

fn guest(system: &System) -> Machine {
    machine(system, &spec(&build_c("repeats", &["-O1"]), &[]))
}

fn alone(machine: &mut Machine, input: &[u8]) -> Option<Outcome> {
    let outcome = machine.run(input, limit()).unwrap().outcome;
    machine.rewind().unwrap();
    Some(outcome)
}

/// Pseudo-random numbers (xorshift), the same in every run of the tests.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    /// Inputs that share beginnings, so that what one has taught is used by others.
    fn inputs(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut inputs: Vec<Vec<u8>> = Vec::new();
        for _ in 0..count {
            let mut input = match inputs.len() {
                0 => Vec::new(),
                len => {
                    let before = &inputs[self.below(len)];
                    before[..self.below(before.len() + 1)].to_vec()
                }
            };
            for _ in 0..1 + self.below(8) {
                input.push(OPS[self.below(OPS.len())]);
            }
            input.truncate(24);
            inputs.push(input);
        }
        inputs
    }
}

/// Exits of batches of `input`, the fewest.
fn fewest_exits(machine: &mut Machine, input: &[u8], expected: &Option<Outcome>) -> BatchReport {
    let batch = batch_of(std::iter::repeat_n(input, 50));
    let reports = (0..8).map(|_| {
        let report = run(machine, &batch);
        let is_so = report.runs.iter().all(|end| end == expected);
        let input = String::from_utf8_lossy(input);
        assert!(is_so, "{input}: {expected:?}, not {:?}", report.runs);
        report
    });
    reports.min_by_key(|report| report.exits.total).unwrap()
}

#[test]
fn any_calls_in_any_order_are_answered_as_in_runs_of_their_own() {
    let Some(system) = kvm() else { return };
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for round in 0..rounds(6) {
        // Each machine learns anew.
        let mut machine = guest(&system);
        let inputs = numbers.inputs(30);
        let expected: Vec<_> = inputs.iter().map(|input| alone(&mut machine, input)).collect();
        for _ in 0..4 {
            let report = run(&mut machine, &batch_of(inputs.iter().map(Vec::as_slice)));
            assert!(!report.is_distrusted);
            for ((input, end), expected) in inputs.iter().zip(&report.runs).zip(&expected) {
                let input = String::from_utf8_lossy(input);
                // One that ends in code that was moved is nothing that a batch can tell.
                let is_left_open = end.is_none() && matches!(expected, Some(Outcome::Crashed(_)));
                assert!(end == expected || is_left_open, "round {round}, {input}: {end:?}");
            }
            assert_eq!(machine.verify().unwrap(), [], "round {round}");
        }
    }
}

#[test]
fn calls_that_were_answered_before_are_no_exits() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    for input in ["rrr", "ccc", "ttt", "oRplx", "OsSagk", "hHiHh", "nN", "DfeEzfw", "qQq", "vFIy"] {
        let expected = alone(&mut machine, input.as_bytes());
        let report = fewest_exits(&mut machine, input.as_bytes(), &expected);
        assert_eq!(report.exits.total, 1, "{input}: {:?}", report.exits);
    }
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn an_answer_does_not_depend_on_where_the_program_keeps_it() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    let (plain, deeper) = (&b".oRpOsSghHnNqfI"[..], &b"AoRpOsSghHnNqfI"[..]);
    let expected = [alone(&mut machine, plain), alone(&mut machine, deeper)];
    assert_eq!(expected[0], expected[1], "no address is among its results");
    fewest_exits(&mut machine, plain, &expected[0]);
    // The first run of a batch may show its calls to the host.
    let batch = batch_of(std::iter::repeat_n(deeper, 50));
    let reports: Vec<_> = (0..3).map(|_| run(&mut machine, &batch)).collect();
    let calls =
        |report: &BatchReport| report.exits.calls().iter().map(|(_, count)| count).sum::<u64>();
    assert!(reports.iter().map(calls).min() < Some(20), "{reports:?}");
    assert!(reports.iter().flat_map(|report| &report.runs).all(|end| *end == expected[1]));
}

#[test]
fn what_makes_a_file_is_the_hosts_each_time_and_every_exit_is_counted() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    let expected = alone(&mut machine, b"J");
    let exits = fewest_exits(&mut machine, b"J", &expected).exits;
    assert_eq!(exits.calls(), [("openat".to_owned(), 50)]);
    assert_eq!((exits.runs, exits.ends, exits.total), (50, 50, 100), "{exits:?}");
    assert_eq!(exits.per_run(), Some(2.0));
}

#[test]
fn the_host_knows_of_what_was_answered_before() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    // Each ends with something that only the host can do, by what the calls before it have left.
    for input in ["oRlP", "hK", "iK", "hnKN", "mmT", "mP", "bbP", "rrPr", "LP", "WP", "LjW", "oZd"]
    {
        let expected = alone(&mut machine, input.as_bytes());
        assert!(matches!(expected, Some(Outcome::Exited { .. })), "{input}: {expected:?}");
        let report = fewest_exits(&mut machine, input.as_bytes(), &expected);
        assert!(!report.is_distrusted, "{input}");
    }
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn no_access_is_hidden_by_a_mapping_that_is_not_there_yet_or_any_more() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system);
    for input in ["!", "m!", "mm!m", "oRxm!m", "mu?", "mTu?", "mTmuu?"] {
        let expected = alone(&mut machine, input.as_bytes());
        assert!(matches!(expected, Some(Outcome::Crashed(_))), "{input}: {expected:?}");
        fewest_exits(&mut machine, input.as_bytes(), &expected);
    }
    assert_eq!(machine.verify().unwrap(), []);
}
