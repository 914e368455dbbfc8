//! How a system call ends when it does not simply return: an error number, a wait, or the end of the
//! run. Never formats messages for users.

use crate::linux::abi::errno::Errno;
use crate::linux::abi::syscall::SyscallAction;
use crate::linux::mm::uaccess::UserError;
use crate::linux::sched::wait::Wait;

/// Why a system call stopped short of its ordinary result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SyscallStop {
    /// The call fails and the program goes on.
    Errno(Errno),
    /// The program does not go on.
    End(SyscallAction),
    /// The registers are as the program goes on with.
    Resumed,
    /// The thread waits, and others may go on meanwhile.
    Wait(Wait),
    /// The thread is gone, and others go on.
    Ended,
}

impl From<Errno> for SyscallStop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// A system call's result.
pub(crate) type SyscallResult = Result<u64, SyscallStop>;

impl From<Wait> for SyscallStop {
    fn from(wait: Wait) -> Self {
        Self::Wait(wait)
    }
}

impl From<UserError> for SyscallStop {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Errno(errno) => Self::Errno(errno),
            UserError::OutOfMemory => Self::End(SyscallAction::OutOfMemory),
        }
    }
}
