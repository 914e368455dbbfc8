//! What the benches share: the guests they run, the floors they stand on, and a way to measure
//! variants side by side on a noisy machine.
//!
//! Never part of the product: nothing here is reachable from `dejavm`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench has nobody to report an error to"
)]

pub mod batches;
pub mod floor;
pub mod guests;
pub mod interleave;

use criterion::Criterion;
use dejavm_corpus::ErrorChain;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::Limit;
use std::time::Duration;

/// `/dev/kvm`, or `None` after a line that says why the bench is skipped.
#[must_use]
pub fn system_or_skip(bench: &str) -> Option<System> {
    match System::open() {
        Ok(system) => Some(system),
        Err(error) => {
            eprintln!("{bench}: skipped: {}", ErrorChain(&error));
            None
        }
    }
}

/// Criterion as every bench here uses it: short, because variants are measured in pairs, and the
/// command line's to change.
#[must_use]
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(700))
        .sample_size(20)
        .nresamples(2_000)
        .configure_from_args()
}

/// No guest here runs longer than this.
#[must_use]
pub fn limit() -> Limit {
    Limit::time(Duration::from_secs(10))
}
