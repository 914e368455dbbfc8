//! Copies from a file to something open, past the program's memory: `sendfile` and
//! `copy_file_range`.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::errno::{EBADF, EINVAL, EISDIR, Errno};
use crate::linux::abi::fd::Fd;
use crate::linux::abi::syscall::TRANSFER_BYTES_MAX;
use crate::linux::fs::table::{Open, Target};
use crate::linux::fs::tree::{Kind, NodeId};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;
use crate::linux::syscalls::file::moved;

/// One end of a `copy_file_range`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyEnd {
    pub(crate) fd: Fd,
    /// Where its offset is; null for the file's own.
    pub(crate) offset_at: Gva,
}

impl Process {
    pub(crate) fn sys_sendfile(
        &mut self,
        out: Fd,
        input: Fd,
        offset_at: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let from = self.for_transfer(input, None, Open::may_read)?;
        let to = self.for_transfer(out, None, Open::may_write)?;
        let Target::Node(node) = from.target else { return Err(EINVAL.into()) };
        if !matches!(
            self.files.tree.node(node).map(|node| &node.kind),
            Some(Kind::Image(_) | Kind::File(_) | Kind::Input)
        ) || to.flags & libc::O_APPEND != 0
        {
            return Err(EINVAL.into());
        }
        let start = match offset_at {
            Gva::NULL => from.offset,
            at => self.user(mem).read_u64(at)?,
        };
        let done = self.copy_within((node, start), (to.target, to.offset), len)?;
        self.advance(out, done)?;
        match offset_at {
            Gva::NULL => self.advance(input, done)?,
            at => self.user(mem).write(at, &start.saturating_add(done).to_le_bytes())?,
        }
        Ok(done)
    }

    /// Copies up to `len` bytes of a file to something open.
    fn copy_within(&mut self, from: (NodeId, u64), to: (Target, u64), len: u64) -> SyscallResult {
        let len = len.min(TRANSFER_BYTES_MAX);
        let mut done = 0;
        while done < len {
            let mut page = [0; PAGE_SIZE];
            let content = self.files.content(from.0);
            let at = usize::try_from(from.1.saturating_add(done)).unwrap_or(usize::MAX);
            let rest = content.get(at..).unwrap_or_default();
            let part = rest.len().min(PAGE_SIZE).min((len - done) as usize);
            let (Some(page), Some(rest)) = (page.get_mut(..part), rest.get(..part)) else { break };
            if part == 0 {
                break;
            }
            page.copy_from_slice(rest);
            match self.write_target(to.0, to.1.saturating_add(done), page) {
                Ok(bytes) => done += bytes,
                Err(stop) => return moved(done, Some(stop)),
            }
        }
        Ok(done)
    }

    pub(crate) fn sys_copy_file_range(
        &mut self,
        from: CopyEnd,
        to: CopyEnd,
        len: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let input = *self.files.table.get(from.fd)?;
        let output = *self.files.table.get(to.fd)?;
        let mut offset_of = |open: &Open, at: Gva| match at {
            Gva::NULL => Ok(open.offset),
            at => self.user(mem).read_u64(at),
        };
        let (start, end) = (offset_of(&input, from.offset_at)?, offset_of(&output, to.offset_at)?);
        let (source, target) = (self.regular(&input)?, self.regular(&output)?);
        if flags != 0 || start > i64::MAX as u64 || end > i64::MAX as u64 {
            return Err(EINVAL.into());
        }
        if !input.may_read() || !output.may_write() || output.flags & libc::O_APPEND != 0 {
            return Err(EBADF.into());
        }
        let room = (self.files.content(source).len() as u64).saturating_sub(start);
        let len = len.min(room);
        if source == target && start < end.saturating_add(len) && end < start.saturating_add(len) {
            return Err(EINVAL.into());
        }
        let done = self.copy_within((source, start), (Target::Node(target), end), len)?;
        for (CopyEnd { fd, offset_at }, start) in [(from, start), (to, end)] {
            match offset_at {
                Gva::NULL => self.advance(fd, done)?,
                at => self.user(mem).write(at, &start.saturating_add(done).to_le_bytes())?,
            }
        }
        Ok(done)
    }

    /// The regular file that is open.
    fn regular(&self, open: &Open) -> Result<NodeId, Errno> {
        let Target::Node(node) = open.target else { return Err(EINVAL) };
        match self.files.tree.node(node).map(|node| &node.kind) {
            Some(Kind::Image(_) | Kind::File(_) | Kind::Input) => Ok(node),
            Some(Kind::Directory { .. } | Kind::Descriptors) => Err(EISDIR),
            _ => Err(EINVAL),
        }
    }
}
