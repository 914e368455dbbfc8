//! How a system call ends when it does not simply return: an error number, or the end of the run.
//! Never formats messages for users.

use super::Verdict;
use super::threads::Wait;

/// A Linux error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        $(pub(super) const $name: Errno = Errno(libc::$name);)*
    };
}

errnos! {
    EACCES EAGAIN EBADF EBUSY EEXIST EFAULT EFBIG EINTR EINVAL EISDIR ELOOP EMFILE ENAMETOOLONG
    ENODEV ENOENT ENOMEM ENOSPC ENOSYS ENOTDIR ENOTEMPTY ENOTTY ENXIO EPERM EPIPE ERANGE ESPIPE
    ESRCH ETIMEDOUT EOVERFLOW EOPNOTSUPP ENODATA EAFNOSUPPORT ENOTSOCK
}

impl Errno {
    /// What the call returns in RAX.
    pub(super) const fn to_return(self) -> u64 {
        (-(self.0 as i64)) as u64
    }
}

/// Why a system call stopped short of its ordinary result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The call fails and the program goes on.
    Errno(Errno),
    /// The program does not go on.
    End(Verdict),
    /// The registers are as the program goes on with.
    Resumed,
    /// The thread waits, and others may go on meanwhile.
    Wait(Wait),
    /// The thread is gone, and others go on.
    Ended,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// A system call's result.
pub(super) type Answer = Result<u64, Stop>;
