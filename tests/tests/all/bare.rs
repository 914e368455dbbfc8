//! Bare guests: the lecture's VM.

use dejavm_engine::guest::bare::BareSpec;
use dejavm_engine::machine::{Boot, Limit, ProcessPoint, Started};
use dejavm_engine::outcome::Outcome;
use dejavm_tests::{build_flat, kvm};
use std::time::Duration;

#[test]
fn the_lectures_guest_prints_and_halts() {
    let Some(system) = kvm() else { return };
    let spec = BareSpec::lecture(build_flat("lecture", 0x10_0f00));
    let boot = Boot::bare(&system, &spec).unwrap();
    let Started::Ended(ended) =
        boot.start(ProcessPoint::Input, Limit::time(Duration::from_secs(1))).unwrap()
    else {
        panic!("the guest asked for a snapshot")
    };
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "hello from protected mode\n");
    assert_eq!(ended.report.outcome, Outcome::Halted);
}
