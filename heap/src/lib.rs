//! A shared object that a dynamically linked Linux program on x86-64 can be started with (by
//! `LD_PRELOAD`), so that a byte written or read past the end of a heap block, or in one that was
//! freed, faults there and then.
//!
//! What it does and how is in `guest/lib.rs`, which is compiled by this package's build script. Here
//! is nothing but its bytes.

#![forbid(unsafe_code)]
#![no_std]

/// The shared object, an ELF file.
pub const GUARD: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dejavm-heap-guard.so"));

/// The name of the shared object's file, by which crash stacks know its frames.
pub const GUARD_NAME: &str = "dejavm-heap-guard.so";
