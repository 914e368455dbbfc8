//! What a process keeps on the host's side, as a snapshot holds it. Never runs it.

use crate::linux::abi::syscall::SystemCall;
use crate::linux::process::Process;
use crate::paging::Tables;
use serde::{Deserialize, Serialize};

/// Where a process's snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessPoint {
    /// The first system call that would see the input's contents or size.
    Input,
    /// The first time that this guest-virtual address is about to be executed.
    Address(u64),
    /// The first call of the function `int f(const uint8_t *data, size_t size)` at this
    /// guest-virtual address: each run is one call of it with the run's input, whose end is the end
    /// of memory, and ends with status 0 where it returns. The program's input channel must be
    /// standard input, which brings the input; at most 16 MiB of it.
    Harness(u64),
}

/// What a process keeps on the host's side, as a snapshot holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessState {
    /// The program's kernel.
    pub process: Process,
    /// Its page tables' bookkeeping.
    pub tables: Tables,
    /// The system call that the program was about to make, when that is the snapshot point.
    pub call: Option<SystemCall>,
    /// Guest-virtual addresses whose execution after the snapshot is a crash, as if `abort` were
    /// called there: where a program reports that it has failed, and would go on.
    pub crash_points: Vec<u64>,
}
