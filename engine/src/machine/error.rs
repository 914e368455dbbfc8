//! What the host can fail at while a machine is made or driven. What a guest does is an outcome.

use crate::device::BadConsole;
use crate::kvm::KvmError;
use crate::memory::{MemoryError, OutOfRam};
use crate::outcome::Unsupported;
use crate::paging::TablesError;
use crate::rewind::RewindError;
use std::time::Duration;

/// What the host failed at. What a guest does is an [`Outcome`](crate::outcome::Outcome).
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The host lacks what the engine needs.
    #[error(transparent)]
    Host(#[from] crate::host::HostError),
    /// A KVM call failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Guest memory could not be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// An address that must be RAM is not: the snapshot does not fit its own layout.
    #[error("the machine's own pages are not where they should be")]
    OutOfRam(#[from] OutOfRam),
    /// The page-table arena or the RAM is too small for the guest to begin; or a snapshot file has
    /// page tables that lead elsewhere.
    #[error("build the guest's page tables")]
    Tables(#[from] TablesError),
    /// Memory could not be put back.
    #[error(transparent)]
    Rewind(#[from] RewindError),
    /// A bare guest's console cannot be made.
    #[error("make the guest's console")]
    Console(#[from] BadConsole),
    /// The program could not be loaded.
    #[error(transparent)]
    Load(#[from] crate::linux::loader::spec::LoadError),
    /// The machine has no room for the agent.
    #[error(transparent)]
    Agent(#[from] crate::guest::process::agent::AgentError),
    /// The program's blocks cannot mark themselves.
    #[error(transparent)]
    Detours(#[from] crate::guest::process::detours::DetourError),
    /// A bare guest's image could not be loaded.
    #[error(transparent)]
    BareImage(#[from] crate::guest::bare::ImageError),
    /// The watchdog's thread could not be started.
    #[error("start the watchdog thread")]
    Watchdog(#[source] std::io::Error),
    /// The pages could not be captured.
    #[error("capture the guest's pages")]
    Capture(#[source] std::io::Error),
    /// The snapshot was taken with CPU features that a vCPU does not have here.
    #[error(
        "this host's KVM does not give a guest the CPU features that the snapshot needs: {missing}"
    )]
    HostLacks {
        /// Their names, separated by commas.
        missing: String,
    },
    /// The snapshot point is not an address of the program.
    #[error("{address:#x} is not mapped in the program, so it cannot be stopped there")]
    PointNotMapped {
        /// The address that was asked for.
        address: u64,
    },
    /// The function that is all of a run cannot be given an input.
    #[error("give the harness its input: {why}")]
    Harness {
        /// Why not.
        why: &'static str,
    },
    /// One of the engine's own stubs exited in a way it cannot.
    #[error("a stub inside the guest ended in {exit}")]
    Stub {
        /// How.
        exit: Unsupported,
    },
    /// One of the engine's own stubs did not come to its end, as where a snapshot file has another.
    #[error("a stub inside the guest did not end within {limit:?}")]
    StubSpins {
        /// The time that it was given.
        limit: Duration,
    },
    /// The program has more memory at its snapshot than it is to have.
    #[error("the program has touched {bytes} bytes before its snapshot, more than {bytes_max}")]
    MemoryLimit {
        /// What it has.
        bytes: u64,
        /// What it is to have.
        bytes_max: u64,
    },
    /// The machine was run without being rewound.
    #[error("the machine has run since its last rewind: rewind it first")]
    NotRewound,
    /// An earlier rewind failed half way.
    #[error("an earlier rewind of this machine did not finish, so its state is unknown")]
    Poisoned,
    /// Something that the engine relies on is not so: a mistake of the engine's, and no outcome.
    #[error("an invariant of the engine does not hold: {0}")]
    Invariant(&'static str),
    /// The operation is for another kind of guest.
    #[error("{operation} is for process guests")]
    NotAProcess {
        /// Which operation.
        operation: &'static str,
    },
}
