//! The host's examination, on the host that runs the tests.

use crate::support::kvm;
use dejavm_engine::host::{self, Answer};
use dejavm_engine::kvm::System;
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn a_host_that_runs_these_tests_is_fit_and_every_probe_has_an_answer() {
    let Some(system) = kvm() else { return };
    host::require(&system).unwrap();
    let start = Instant::now();
    let report = host::doctor(Path::new(System::DEFAULT_PATH));
    assert!(start.elapsed() < Duration::from_secs(20));
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    assert!(report.verdict.process_guests && report.verdict.bare_guests);
    for probe in &report.probes {
        assert!(!matches!(probe.answer, Answer::Unknown(_)), "{probe:?}");
    }
    assert!(report.extensions.iter().all(|extension| extension.present || !extension.needed));
    assert!(report.problems.iter().all(|problem| !problem.blocks));
    assert!(report.exit_cost.out_cpl0_ns.is_some_and(|ns| ns > 100));
}
