//! dejavm's engine: a KVM microVM that can be put back to a snapshot in microseconds.
//!
//! The modules form a ladder; each uses only what stands above it here:
//! [`address`], [`outcome`], [`guest`], [`symbols`], [`coverage`].
//!
//! The engine never knows what a corpus or a campaign is.

#![deny(unsafe_code)]

pub mod address;
pub mod coverage;
pub mod guest;
pub mod outcome;
pub mod symbols;
