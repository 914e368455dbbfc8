//! Copies from a file to something open, past the program's memory: `sendfile` and
//! `copy_file_range`.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::errno::{EBADF, EINVAL, EISDIR, Errno};
use crate::linux::abi::syscall::TRANSFER_BYTES_MAX;
use crate::linux::fs::table::{Open, Target};
use crate::linux::fs::tree::{Kind, NodeId};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;
use crate::linux::syscalls::file::moved;

impl Process {
    pub(crate) fn send_file(
        &mut self,
        out: u64,
        input: u64,
        offset_at: u64,
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
            0 => from.offset,
            at => self.user(mem).read_u64(Gva(at))?,
        };
        let done = self.copy_within((node, start), (to.target, to.offset), len)?;
        self.advance(out, done)?;
        match offset_at {
            0 => self.advance(input, done)?,
            at => self.user(mem).write(Gva(at), &start.saturating_add(done).to_le_bytes())?,
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

    /// `copy_file_range`; `from` and `to` are a descriptor and where its offset is, if not its own.
    pub(crate) fn copy_range(
        &mut self,
        from: (u64, u64),
        to: (u64, u64),
        len: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let (input, output) = (*self.files.table.get(from.0)?, *self.files.table.get(to.0)?);
        let mut offset_of = |open: &Open, at: u64| match at {
            0 => Ok(open.offset),
            at => self.user(mem).read_u64(Gva(at)),
        };
        let (start, end) = (offset_of(&input, from.1)?, offset_of(&output, to.1)?);
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
        for ((fd, at), start) in [(from, start), (to, end)] {
            match at {
                0 => self.advance(fd, done)?,
                at => self.user(mem).write(Gva(at), &start.saturating_add(done).to_le_bytes())?,
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
