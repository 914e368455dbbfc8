//! Transfers in parts: `readv`, `writev` and their relatives. Never moves a byte itself.

use crate::address::Gva;
use crate::linux::abi::errno::{EAGAIN, EFAULT, EINVAL, EOPNOTSUPP};
use crate::linux::abi::syscall::{SystemCall, TRANSFER_BYTES_MAX};
use crate::linux::fs::table::Open;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};
use crate::linux::syscalls::file::moved;

/// Parts of one `readv` or `writev` (`UIO_MAXIOV`).
const PARTS_MAX: usize = 1024;

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
        at: u64,
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
            let base = user.read_u64(Gva(here))?;
            let len = user.read_u64(Gva(here.wrapping_add(8)))?;
            if len > i64::MAX as u64 {
                return Err(EINVAL.into());
            }
            *part = (base, len.min(left));
            left -= part.1;
        }
        Ok(parts)
    }

    pub(crate) fn read_vector(
        &mut self,
        fd: u64,
        at: u64,
        count: u64,
        position: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.for_transfer(fd, position, Open::may_read)?;
        let parts = self.read_parts(at, count, mem)?;
        each_part(parts.as_slice(), position, |at, len, position| {
            self.read(fd, at, len, position, mem)
        })
    }

    pub(crate) fn write_vector(
        &mut self,
        fd: u64,
        at: u64,
        count: u64,
        position: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.for_transfer(fd, position, Open::may_write)?;
        let parts = self.read_parts(at, count, mem)?;
        each_part(parts.as_slice(), position, |at, len, position| {
            self.write(fd, at, len, position, mem)
        })
    }

    /// `preadv2` and `pwritev2`: an offset of -1 is the file's own.
    pub(crate) fn transfer_with_flags(
        &mut self,
        call: &SystemCall,
        writes: bool,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let [fd, at, count, offset, _, flags] = call.args;
        let known = libc::RWF_HIPRI | libc::RWF_DSYNC | libc::RWF_SYNC | libc::RWF_NOWAIT;
        if flags & !(known as u64) != 0 {
            return Err(EOPNOTSUPP.into());
        }
        let position = (offset != u64::MAX).then_some(offset);
        let answer = if writes {
            self.write_vector(fd, at, count, position, mem)
        } else {
            self.read_vector(fd, at, count, position, mem)
        };
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
