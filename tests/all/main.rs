//! The integration tests: real guests in real machines, and the command as a user runs it.
//!
//! One binary. Guests written for the tests are in `tests/guests`. Where `/dev/kvm` is missing,
//! tests that need it say so and pass, unless `DEJAVM_REQUIRE_KVM=1`, where they fail.

#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panic")]

mod bare;
mod batch;
mod batch_hostile;
mod command;
mod command_errors;
mod comparisons;
mod compile;
mod coverage;
mod detours;
mod edges;
mod examples;
mod faults;
mod files;
mod footprint;
mod harness;
mod heap;
mod host;
mod hostile;
mod hostile_bare;
mod hostile_calls;
mod hostile_code;
mod hostile_deeds;
mod hostile_files;
mod invoke;
mod killed;
mod kvm_api;
mod mappings;
mod oracles;
mod probes;
mod programs;
mod repeated_calls;
mod rewind;
mod sandbox;
mod sanitizers;
mod signals;
mod slices;
mod snapshot;
mod soak;
mod strace;
mod support;
mod system_files;
mod terminal;
