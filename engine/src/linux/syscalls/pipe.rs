//! Pipes: made, read, written, and who waits for bytes or for room.

use crate::address::Gva;
use crate::linux::abi::errno::{EAGAIN, EBADF, EINVAL, EMFILE, EPIPE};
use crate::linux::fs::table::{Open, PIPE_ATOMIC_BYTES, PIPE_BYTES_MAX, Target};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};
use crate::linux::syscalls::file::moved;

impl Process {
    pub(crate) fn sys_pipe(&mut self, at: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        self.sys_pipe2(at, 0, mem)
    }

    pub(crate) fn sys_pipe2(
        &mut self,
        at: Gva,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let known = libc::O_CLOEXEC | libc::O_NONBLOCK;
        if flags & !(known as u64) != 0 {
            return Err(EINVAL.into());
        }
        if self.files.table.numbers().count() + 2 > self.files.table.descriptors_max() {
            return Err(EMFILE.into());
        }
        let flags = flags as i32;
        let pipe = self.files.table.add_pipe();
        let reader = self.files.table.open(Target::PipeReader(pipe), flags | libc::O_RDONLY)?;
        let writer = self.files.table.open(Target::PipeWriter(pipe), flags | libc::O_WRONLY)?;
        let pair = u64::from(reader) | u64::from(writer) << 32;
        let copied = self.user(mem).write(at, &pair.to_le_bytes());
        if copied.is_err() {
            self.files.close(reader)?;
            self.files.close(writer)?;
        }
        Ok(copied.map(|()| 0)?)
    }

    pub(crate) fn read_pipe(
        &mut self,
        index: u32,
        open: Open,
        at: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let pipe = self.files.table.pipe(index).ok_or(EBADF)?;
        let bytes = &pipe.bytes.0;
        if len == 0 || bytes.is_empty() && pipe.writers == 0 {
            return Ok(0);
        }
        if bytes.is_empty() {
            return Err(self.not_yet(open));
        }
        let part = bytes.get(..bytes.len().min(len as usize)).unwrap_or_default();
        let (done, stop) = self.user(mem).write_some(at, part);
        if let Some(pipe) = self.files.table.pipe_mut(index) {
            pipe.bytes.0.drain(..done);
        }
        moved(done as u64, stop.map(SyscallStop::from))
    }

    /// Whether a write of `len` bytes may begin.
    pub(crate) fn check_pipe_room(
        &mut self,
        pipe: u32,
        open: Open,
        len: u64,
    ) -> Result<(), SyscallStop> {
        let pipe = self.files.table.pipe(pipe).ok_or(EBADF)?;
        if pipe.readers == 0 {
            self.send_broken_pipe();
            return Err(EPIPE.into());
        }
        let room = PIPE_BYTES_MAX.saturating_sub(pipe.bytes.0.len());
        // One that can never fit as a whole is written as far as an empty pipe goes.
        let fits = len <= room as u64 || room == PIPE_BYTES_MAX;
        let may_write = match open.flags & libc::O_NONBLOCK {
            0 => fits,
            _ => room > 0 && (fits || len > PIPE_ATOMIC_BYTES as u64),
        };
        if may_write { Ok(()) } else { Err(self.not_yet(open)) }
    }

    /// Writes as much of `data` as there is room for.
    pub(crate) fn write_pipe(&mut self, index: u32, data: &[u8]) -> SyscallResult {
        let pipe = self.files.table.pipe_mut(index).ok_or(EBADF)?;
        let room = PIPE_BYTES_MAX.saturating_sub(pipe.bytes.0.len());
        if room == 0 {
            return Err(EAGAIN.into());
        }
        let part = data.get(..room.min(data.len())).unwrap_or_default();
        pipe.bytes.0.extend_from_slice(part);
        Ok(part.len() as u64)
    }
}
