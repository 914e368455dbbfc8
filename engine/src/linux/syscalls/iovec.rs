//! Transfers in parts: `readv`, `writev` and their relatives. Never moves a byte itself.

use crate::address::Gva;
use crate::linux::abi::errno::{EAGAIN, EFAULT, EINVAL, EOPNOTSUPP};
use crate::linux::abi::fd::Fd;
use crate::linux::abi::syscall::TRANSFER_BYTES_MAX;
use crate::linux::fs::table::Open;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};
use crate::linux::syscalls::file::moved;

/// Parts of one `readv` or `writev` (`UIO_MAXIOV`).
const PARTS_MAX: usize = 1024;

/// [`Process::read_iovec`] or [`Process::write_iovec`].
type IovecTransfer =
    fn(&mut Process, Fd, Gva, u64, Option<u64>, &mut dyn UserMemory) -> SyscallResult;

/// The parts of a vectored transfer.
struct Parts {
    parts: [(u64, u64); PARTS_MAX],
    count: usize,
}

impl Parts {
    fn as_slice(&self) -> &[(u64, u64)] {
        self.parts.get(..self.count).unwrap_or_default()
    }
}

impl Process {
    fn read_parts(
        &self,
        at: Gva,
        count: u64,
        mem: &mut dyn UserMemory,
    ) -> Result<Parts, SyscallStop> {
        if count > PARTS_MAX as u64 {
            return Err(EINVAL.into());
        }
        let count = count as usize;
        let mut parts = Parts { parts: [(0, 0); PARTS_MAX], count };
        let mut left = TRANSFER_BYTES_MAX;
        let mut user = self.user(mem);
        for (i, part) in parts.parts.iter_mut().take(count).enumerate() {
            let here = at.wrapping_add(i as u64 * 16);
            let base = user.read_u64(here)?;
            let len = user.read_u64(here.wrapping_add(8))?;
            if len > i64::MAX as u64 {
                return Err(EINVAL.into());
            }
            *part = (base, len.min(left));
            left -= part.1;
        }
        Ok(parts)
    }

    pub(crate) fn sys_readv(
        &mut self,
        fd: Fd,
        at: Gva,
        count: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.read_iovec(fd, at, count, None, mem)
    }

    pub(crate) fn sys_preadv(
        &mut self,
        fd: Fd,
        at: Gva,
        count: u64,
        position: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.read_iovec(fd, at, count, Some(position), mem)
    }

    pub(crate) fn sys_preadv2(
        &mut self,
        fd: Fd,
        at: Gva,
        count: u64,
        position: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.transfer_with_flags(Self::read_iovec, (fd, at, count), position, flags, mem)
    }

    pub(crate) fn sys_writev(
        &mut self,
        fd: Fd,
        at: Gva,
        count: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.write_iovec(fd, at, count, None, mem)
    }

    pub(crate) fn sys_pwritev(
        &mut self,
        fd: Fd,
        at: Gva,
        count: u64,
        position: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.write_iovec(fd, at, count, Some(position), mem)
    }

    pub(crate) fn sys_pwritev2(
        &mut self,
        fd: Fd,
        at: Gva,
        count: u64,
        position: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.transfer_with_flags(Self::write_iovec, (fd, at, count), position, flags, mem)
    }

    fn read_iovec(
        &mut self,
        fd: Fd,
        at: Gva,
        count: u64,
        position: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.for_transfer(fd, position, Open::may_read)?;
        let parts = self.read_parts(at, count, mem)?;
        each_part(parts.as_slice(), position, |at, len, position| {
            self.read_at(fd, Gva(at), len, position, mem)
        })
    }

    fn write_iovec(
        &mut self,
        fd: Fd,
        at: Gva,
        count: u64,
        position: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.for_transfer(fd, position, Open::may_write)?;
        let parts = self.read_parts(at, count, mem)?;
        each_part(parts.as_slice(), position, |at, len, position| {
            self.write_at(fd, Gva(at), len, position, mem)
        })
    }

    /// `preadv2` and `pwritev2`: an offset of -1 is the file's own.
    fn transfer_with_flags(
        &mut self,
        transfer: IovecTransfer,
        (fd, at, count): (Fd, Gva, u64),
        offset: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let known = libc::RWF_HIPRI | libc::RWF_DSYNC | libc::RWF_SYNC | libc::RWF_NOWAIT;
        if flags & !(known as u64) != 0 {
            return Err(EOPNOTSUPP.into());
        }
        let position = (offset != u64::MAX).then_some(offset);
        let answer = transfer(self, fd, at, count, position, mem);
        match answer {
            Err(SyscallStop::Wait(_)) if flags & libc::RWF_NOWAIT as u64 != 0 => Err(EAGAIN.into()),
            answer => answer,
        }
    }
}

/// Transfers part after part until one comes up short.
fn each_part(
    parts: &[(u64, u64)],
    position: Option<u64>,
    mut transfer: impl FnMut(u64, u64, Option<u64>) -> SyscallResult,
) -> SyscallResult {
    let mut done = 0;
    for (at, len) in parts {
        let position = match position {
            Some(position) => Some(position.checked_add(done).ok_or(EFAULT)?),
            None => None,
        };
        match transfer(*at, *len, position) {
            Ok(bytes) => {
                done += bytes;
                if bytes < *len {
                    break;
                }
            }
            Err(stop) => return moved(done, Some(stop)),
        }
    }
    Ok(done)
}
