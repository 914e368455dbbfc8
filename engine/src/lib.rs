//! dejavm's engine: a KVM microVM that can be put back to a snapshot in microseconds.
//!
//! Boot a guest to the point where it is about to parse, keep that moment, and live it again and
//! again, each time with another input:
//!
//! ```
//! use dejavm_engine::{Boot, Limit, Outcome, ProcessPoint, ProcessSpec, Started, System};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let system = match System::open() {
//!     Ok(system) => system,
//!     Err(error) => {
//!         eprintln!("skipped: {error}");
//!         return Ok(());
//!     }
//! };
//! // An ordinary program of this host, with 64 MiB of RAM and no kernel of its own.
//! let spec = ProcessSpec::new("/bin/cat");
//! let limit = Limit::time(Duration::from_secs(10));
//! let boot = Boot::process(&system, &spec, 64 << 20, b"")?;
//! // It runs until the first system call that could see its input: the snapshot is here.
//! let Started::AtSnapshot(mut machine) = boot.start(ProcessPoint::Input, limit)? else {
//!     return Err("it ended before it read its input".into());
//! };
//! for input in [&b"once"[..], b"and once more"] {
//!     let report = machine.run(input, limit)?;
//!     assert_eq!(report.outcome, Outcome::Exited { status: 0 });
//!     assert_eq!(machine.stdout(), input);
//!     machine.rewind()?;
//! }
//! // All memory and all state are as they were.
//! assert!(machine.verify()?.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! What most users need is named here: [`System`] opens `/dev/kvm`; [`ProcessSpec`] or [`BareSpec`]
//! says what to boot; [`Boot`] runs it to its snapshot point; [`Machine`] runs, rewinds and verifies;
//! [`Outcome`] says what a guest did. A [`MachineSnapshot`] is written to a file and read back by
//! [`snapshot::file`]; [`symbols`] names addresses, [`coverage`] finds basic blocks, [`host`] tells what
//! this host can do. `engine/examples` has a first VM, a rewind loop and a program as a guest, each on
//! one page.
//!
//! The engine never knows what a corpus or a campaign is. `docs/ARCHITECTURE.md` has the map of
//! the modules; each uses only what stands above it there.

#![deny(unsafe_code)]
#![warn(unreachable_pub)]

pub mod address;
pub mod arch;
pub mod coverage;
mod device;
pub mod exit;
pub mod guest;
pub mod host;
pub mod kvm;
pub mod linux;
pub mod machine;
pub mod memory;
pub mod outcome;
pub mod paging;
mod rewind;
pub mod snapshot;
pub mod state;
mod stored;
pub mod symbols;
mod text;
pub mod vcpu;
mod xsave;

pub use guest::bare::{BareSpec, Mode};
pub use kvm::System;
pub use linux::{FileMapping, InputChannel, Limits, LoadError, Process, ProcessSpec};
pub use machine::{
    Batch, BatchOptions, BatchReport, Boot, Ended, Limit, Machine, MachineError, MachineSnapshot,
    ProcessPoint, RewindMode, RunReport, Started,
};
pub use outcome::{Fault, Outcome, Signal};
