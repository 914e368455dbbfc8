//! Reading and writing through descriptors: files, devices and the program's outputs here; pipes
//! and events in files of their own.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::errno::{EBADF, EINVAL, EISDIR, ENOSPC, ESPIPE, Errno};
use crate::linux::abi::fd::Fd;
use crate::linux::abi::syscall::{DEVICE_BYTES_MAX, SyscallAction, TRANSFER_BYTES_MAX};
use crate::linux::fs::table::{Open, Target};
use crate::linux::fs::tree::{Device, Kind, NodeId};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};

/// A transfer that moved some bytes succeeded, unless the run is over.
pub(crate) fn moved(done: u64, stop: Option<SyscallStop>) -> SyscallResult {
    match stop {
        Some(stop @ SyscallStop::End(_)) => Err(stop),
        Some(stop) if done == 0 => Err(stop),
        _ => Ok(done),
    }
}

impl Process {
    pub(crate) fn sys_read(
        &mut self,
        fd: Fd,
        at: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.read_at(fd, at, len, None, mem)
    }

    pub(crate) fn sys_pread64(
        &mut self,
        fd: Fd,
        at: Gva,
        len: u64,
        position: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.read_at(fd, at, len, Some(position), mem)
    }

    pub(crate) fn sys_write(
        &mut self,
        fd: Fd,
        at: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.write_at(fd, at, len, None, mem)
    }

    pub(crate) fn sys_pwrite64(
        &mut self,
        fd: Fd,
        at: Gva,
        len: u64,
        position: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.write_at(fd, at, len, Some(position), mem)
    }

    /// `read` without a position, `pread64` with one.
    pub(crate) fn read_at(
        &mut self,
        fd: Fd,
        at: Gva,
        len: u64,
        position: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let open = self.for_transfer(fd, position, Open::may_read)?;
        let offset = position.unwrap_or(open.offset);
        let done = self.read_open(open, offset, at, len.min(TRANSFER_BYTES_MAX), mem)?;
        if position.is_none() {
            self.advance(fd, done)?;
        }
        Ok(done)
    }

    /// The open file behind `fd`, checked for what a read or write needs.
    pub(crate) fn for_transfer(
        &self,
        fd: Fd,
        position: Option<u64>,
        allowed: fn(&Open) -> bool,
    ) -> Result<Open, Errno> {
        if position.is_some_and(|position| position > i64::MAX as u64) {
            return Err(EINVAL);
        }
        let open = *self.files.table.get(fd)?;
        if position.is_some() && !matches!(open.target, Target::Node(_)) {
            return Err(ESPIPE);
        }
        if allowed(&open) { Ok(open) } else { Err(EBADF) }
    }

    pub(crate) fn advance(&mut self, fd: Fd, bytes: u64) -> Result<(), Errno> {
        if bytes > 0 {
            let open = self.files.table.get_mut(fd)?;
            open.offset = open.offset.saturating_add(bytes);
        }
        Ok(())
    }

    fn read_open(
        &mut self,
        open: Open,
        offset: u64,
        at: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let node = match open.target {
            Target::Node(node) => node,
            Target::PipeReader(pipe) => return self.read_pipe(pipe, open, at, len, mem),
            Target::Event(event) => return self.event_read(event, open, at, len, mem),
            Target::Watch(_) => return Err(EINVAL.into()),
            _ => return Err(EBADF.into()),
        };
        let device = match self.files.tree.node(node).map(|node| &node.kind) {
            Some(Kind::Directory { .. } | Kind::Descriptors) => return Err(EISDIR.into()),
            Some(Kind::Image(_) | Kind::File(_) | Kind::Input) => {
                let content = self.files.content(node);
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
                let rest = content.get(start..).unwrap_or_default();
                let rest = rest.get(..rest.len().min(len as usize)).unwrap_or_default();
                let (done, stop) = self.user(mem).write_some(at, rest);
                return moved(done as u64, stop.map(SyscallStop::from));
            }
            Some(Kind::Device(device)) => *device,
            _ => return Err(EINVAL.into()),
        };
        if device == Device::Null {
            return Ok(0);
        }
        let len = len.min(DEVICE_BYTES_MAX);
        let mut done = 0;
        while done < len {
            let mut chunk = [0; PAGE_SIZE];
            let part = (len - done).min(PAGE_SIZE as u64);
            let chunk = chunk.get_mut(..part as usize).unwrap_or_default();
            if device == Device::Random {
                self.scalars.fill_random(chunk);
            }
            let (copied, stop) = self.user(mem).write_some(at.wrapping_add(done), chunk);
            done += copied as u64;
            if stop.is_some() {
                return moved(done, stop.map(SyscallStop::from));
            }
        }
        Ok(done)
    }

    /// `write` without a position, `pwrite64` with one.
    pub(crate) fn write_at(
        &mut self,
        fd: Fd,
        at: Gva,
        len: u64,
        position: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let mut open = self.for_transfer(fd, position, Open::may_write)?;
        let mut append_at = None;
        if let (Target::Node(node), true) = (open.target, open.flags & libc::O_APPEND != 0) {
            let end = self.files.content(node).len() as u64;
            if position.is_none() {
                open.offset = end;
                self.files.table.get_mut(fd)?.offset = end;
            }
            append_at = Some(end);
        }
        // As in Linux, a file that is appended to takes no other position.
        let offset = append_at.or(position).unwrap_or(open.offset);
        let len = len.min(TRANSFER_BYTES_MAX);
        if let Target::Node(node) = open.target
            && let Some(Kind::Device(device)) = self.files.tree.node(node).map(|node| &node.kind)
        {
            // As in Linux, devices that swallow everything do not look at it.
            return if *device == Device::Full { Err(ENOSPC.into()) } else { Ok(len) };
        }
        match open.target {
            Target::Event(event) => return self.event_write(event, open, at, len, mem),
            Target::Watch(_) => return Err(EINVAL.into()),
            _ => {}
        }
        if let Target::PipeWriter(pipe) = open.target {
            self.check_pipe_room(pipe, open, len)?;
        }
        let mut done = 0;
        while done < len {
            let here = at.wrapping_add(done);
            let part = ((PAGE_SIZE - here.page_offset()) as u64).min(len - done);
            let mut page = [0; PAGE_SIZE];
            let page = page.get_mut(..part as usize).unwrap_or_default();
            let written =
                self.user(mem).read(here, page).map_err(SyscallStop::from).and_then(|()| {
                    self.write_target(open.target, offset.saturating_add(done), page)
                });
            match written {
                Ok(bytes) => done += bytes,
                Err(stop) => {
                    let done = moved(done, Some(stop))?;
                    if position.is_none() {
                        self.advance(fd, done)?;
                    }
                    return Ok(done);
                }
            }
        }
        if position.is_none() {
            self.advance(fd, done)?;
        }
        Ok(done)
    }

    pub(crate) fn write_target(
        &mut self,
        target: Target,
        offset: u64,
        data: &[u8],
    ) -> SyscallResult {
        let len = data.len() as u64;
        let kept = match target {
            Target::Stdout => self.files.stdout.append(data),
            Target::Stderr => self.files.stderr.append(data),
            Target::PipeReader(_) => return Err(EBADF.into()),
            Target::Event(_) | Target::Watch(_) => return Err(EINVAL.into()),
            Target::PipeWriter(pipe) => return self.write_pipe(pipe, data),
            Target::Node(node) => return self.write_node(node, offset, data),
        };
        if kept { Ok(len) } else { Err(SyscallStop::End(SyscallAction::OutputLimit)) }
    }

    fn write_node(&mut self, node: NodeId, offset: u64, data: &[u8]) -> SyscallResult {
        match self.files.tree.node(node).map(|node| &node.kind) {
            Some(Kind::Device(Device::Full)) => return Err(ENOSPC.into()),
            Some(Kind::Device(_)) => return Ok(data.len() as u64),
            _ => {}
        }
        self.files.tree.write_at(node, offset, data)?;
        let now = self.wall_clock_ns();
        if let Some(node) = self.files.tree.node_mut(node) {
            node.modified_ns = now;
        }
        Ok(data.len() as u64)
    }
}
