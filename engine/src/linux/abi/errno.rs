//! Error numbers. Never formats messages for users.

/// A Linux error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

macro_rules! errnos {
    ($($name:ident)*) => {
        $(pub(crate) const $name: Errno = Errno(libc::$name);)*
    };
}

errnos! {
    EACCES EAGAIN EBADF EBUSY EEXIST EFAULT EFBIG EINTR EINVAL EISDIR ELOOP EMFILE ENAMETOOLONG
    ENODEV ENOENT ENOMEM ENOSPC ENOSYS ENOTDIR ENOTEMPTY ENOTTY ENXIO EPERM EPIPE ERANGE ESPIPE
    ESRCH ETIMEDOUT EOVERFLOW EOPNOTSUPP ENODATA EAFNOSUPPORT ENOTSOCK
}

impl Errno {
    /// What the call returns in RAX.
    pub(crate) const fn to_return(self) -> u64 {
        (-(self.0 as i64)) as u64
    }
}
