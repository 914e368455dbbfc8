//! The façade that wires the modules: boot, run until the snapshot point, snapshot, run, rewind,
//! verify.
//!
//! A machine's life is in its types: a [`Boot`] has not reached its snapshot point; a [`Machine`]
//! has a snapshot and can go back to it. This module never interprets an exit (the drivers do)
//! and never knows what an input is for.

pub mod bare;
mod batch;
mod boot;
mod comparisons;
mod coverage;
mod detours;
mod digest;
mod driver;
mod ending;
mod error;
mod exit_counts;
mod flow;
mod guest_state;
pub mod hardware;
mod host_lacks;
mod output;
mod process;
mod readiness;
mod report;
mod run;
mod run_batch;
mod stored;
mod verify;
mod watchdog;

pub use crate::guest::process::detours::{DetourCounts, DetourError};
pub use crate::rewind::Rewound;
pub use crate::state::RewindMode;
pub use batch::{Batch, BatchOptions, BatchPace, BatchReport, BlockHit};
pub use boot::{Boot, Ended, Started};
pub use error::MachineError;
pub use exit_counts::ExitCounts;
pub use guest_state::{GuestState, MachineSnapshot};
pub use host_lacks::host_lacks;
pub use output::{OutputStream, OutputWatch};
pub use process::{ProcessPoint, ProcessState};
pub use report::{Limit, RunReport};
pub use run::Machine;
