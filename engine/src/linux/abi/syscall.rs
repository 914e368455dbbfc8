//! A system call as the registers give it, and what the machine does after one, or after a page
//! fault. Never carries one out.

use crate::linux::abi::names::system_call_name;
use crate::outcome::Signal;
use serde::{Deserialize, Serialize};

/// Bytes of SYSCALL (0F 05).
pub const SYSCALL_BYTES: u64 = 2;

/// The most bytes that one call reads or writes (`MAX_RW_COUNT`).
pub(crate) const TRANSFER_BYTES_MAX: u64 = 0x7fff_f000;

/// The most bytes that one read of a device that never ends gives, as Linux's `/dev/urandom`:
/// no call may take seconds.
pub(crate) const DEVICE_BYTES_MAX: u64 = (32 << 20) - 1;

/// A system call as the registers give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemCall {
    /// RAX.
    pub nr: u64,
    /// RDI, RSI, RDX, R10, R8, R9.
    pub args: [u64; 6],
}

impl SystemCall {
    /// The call's name, such as `read`; `syscall_<number>` for one without a name here.
    #[must_use]
    pub fn name(&self) -> String {
        system_call_name(self.nr)
    }
}

/// What the machine does after a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyscallAction {
    /// Resume with this in RAX.
    Return(u64),
    /// Resume with the registers as they are in the CPU now.
    Resumed,
    /// The process ended by itself.
    Exit {
        /// The status a shell would see.
        status: u8,
    },
    /// The process ended by a signal.
    Signal(Signal),
    /// The machine's memory is used up.
    OutOfMemory,
    /// A limit on output was passed.
    OutputLimit,
    /// The process waits for what can never come: it would hang for ever.
    Hang,
    /// The program cannot go on: it needs this, which is not provided.
    Unsupported(String),
}

/// What the machine does after a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAction {
    /// The page is there now: run the instruction again.
    Retry,
    /// The process ends by this signal.
    Signal(Signal),
    /// The machine's memory is used up.
    OutOfMemory,
}
