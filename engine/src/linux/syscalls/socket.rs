//! Sockets: there is no network and no other process, so that there is nothing to talk to.

use crate::linux::abi::errno::{EAFNOSUPPORT, ENOTSOCK};
use crate::linux::abi::fd::Fd;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;

/// Calls on a socket: what is open is none.
macro_rules! on_a_socket {
    ($($name:ident)*) => {
        impl Process {
            $(pub(crate) fn $name(&self, fd: Fd) -> SyscallResult {
                self.files.table.get(fd)?;
                Err(ENOTSOCK.into())
            })*
        }
    };
}

on_a_socket! {
    sys_connect sys_bind sys_listen sys_accept sys_accept4 sys_sendto sys_recvfrom sys_sendmsg
    sys_recvmsg sys_shutdown sys_getsockname sys_getpeername sys_setsockopt sys_getsockopt
}

impl Process {
    pub(crate) fn sys_socket(&self) -> SyscallResult {
        Err(EAFNOSUPPORT.into())
    }

    pub(crate) fn sys_socketpair(&self) -> SyscallResult {
        Err(EAFNOSUPPORT.into())
    }
}
