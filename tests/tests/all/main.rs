//! The integration tests, one binary: a module for each part of the engine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::tests_outside_test_module,
    reason = "this binary is nothing but tests"
)]

mod bare;
mod examples;
mod host;
