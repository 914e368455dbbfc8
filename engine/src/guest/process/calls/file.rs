//! Calls on open descriptors: reading, writing, seeking, duplicating, pipes.

use super::super::errno::{
    Answer, EAGAIN, EBADF, EFAULT, EFBIG, EINVAL, EISDIR, EMFILE, ENOSPC, ENOTTY, ENXIO,
    EOPNOTSUPP, EPIPE, ESPIPE, Errno, Stop,
};
use super::super::files::{Device, Kind, NodeId, Open, PIPE_BYTES_MAX, Target};
use super::super::memory::UserMemory;
use super::super::{Process, Verdict};
use super::TRANSFER_BYTES_MAX;
use crate::address::{Gva, PAGE_SIZE};

/// Parts of one `readv` or `writev` (`UIO_MAXIOV`).
const PARTS_MAX: usize = 1024;
/// `O_LARGEFILE` as the kernel reports it; glibc defines it away.
const LARGE_FILE: i32 = 0o100_000;
/// Writes up to this size to a pipe are not split.
const PIPE_ATOMIC_BYTES: usize = 4096;

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

/// A transfer that moved some bytes succeeded, unless the run is over.
fn moved(done: u64, stop: Option<Stop>) -> Answer {
    match stop {
        Some(stop @ Stop::End(_)) => Err(stop),
        Some(stop) if done == 0 => Err(stop),
        _ => Ok(done),
    }
}

/// The end of a run that would wait for itself for ever.
fn deadlock(what: &str) -> Stop {
    Stop::End(Verdict::Unsupported(format!("{what} (it would wait for ever)")))
}

impl Process {
    pub(super) fn read(
        &mut self,
        fd: u64,
        at: u64,
        len: u64,
        position: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let open = self.for_transfer(fd, position, Open::may_read)?;
        let offset = position.unwrap_or(open.offset);
        let done = self.read_open(open, offset, at, len.min(TRANSFER_BYTES_MAX), mem)?;
        if position.is_none() {
            self.advance(fd, done)?;
        }
        Ok(done)
    }

    /// The open file behind `fd`, checked for what a read or write needs.
    fn for_transfer(
        &self,
        fd: u64,
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

    fn advance(&mut self, fd: u64, bytes: u64) -> Result<(), Errno> {
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
        at: u64,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let node = match open.target {
            Target::Node(node) => node,
            Target::PipeReader(pipe) => return self.read_pipe(pipe, open, at, len, mem),
            _ => return Err(EBADF.into()),
        };
        let device = match self.files.tree.node(node).map(|node| &node.kind) {
            Some(Kind::Directory { .. } | Kind::Descriptors) => return Err(EISDIR.into()),
            Some(Kind::Image(_) | Kind::File(_) | Kind::Input) => {
                let content = self.files.content(node);
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
                let rest = content.get(start..).unwrap_or_default();
                let rest = rest.get(..rest.len().min(len as usize)).unwrap_or_default();
                let (done, stop) = self.user(mem).write_some(Gva(at), rest);
                return moved(done as u64, stop);
            }
            Some(Kind::Device(device)) => *device,
            _ => return Err(EINVAL.into()),
        };
        if device == Device::Null {
            return Ok(0);
        }
        let mut done = 0;
        while done < len {
            let mut chunk = [0; PAGE_SIZE];
            let part = (len - done).min(PAGE_SIZE as u64);
            let chunk = chunk.get_mut(..part as usize).unwrap_or_default();
            if device == Device::Random {
                self.scalars.fill_random(chunk);
            }
            let (copied, stop) = self.user(mem).write_some(Gva(at.wrapping_add(done)), chunk);
            done += copied as u64;
            if stop.is_some() {
                return moved(done, stop);
            }
        }
        Ok(done)
    }

    fn read_pipe(
        &mut self,
        index: u32,
        open: Open,
        at: u64,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let pipe = self.files.table.pipe(index).ok_or(EBADF)?;
        let bytes = &pipe.bytes.0;
        if len == 0 || bytes.is_empty() && pipe.writers == 0 {
            return Ok(0);
        }
        if bytes.is_empty() {
            let waits = open.flags & libc::O_NONBLOCK == 0;
            return Err(if waits { deadlock("read of an empty pipe") } else { EAGAIN.into() });
        }
        let part = bytes.get(..bytes.len().min(len as usize)).unwrap_or_default();
        let (done, stop) = self.user(mem).write_some(Gva(at), part);
        if let Some(pipe) = self.files.table.pipe_mut(index) {
            pipe.bytes.0.drain(..done);
        }
        moved(done as u64, stop)
    }

    pub(super) fn write(
        &mut self,
        fd: u64,
        at: u64,
        len: u64,
        position: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let mut open = self.for_transfer(fd, position, Open::may_write)?;
        if let (Target::Node(node), true) = (open.target, open.flags & libc::O_APPEND != 0) {
            open.offset = self.files.content(node).len() as u64;
            if position.is_none() {
                self.files.table.get_mut(fd)?.offset = open.offset;
            }
        }
        let offset = position.unwrap_or(open.offset);
        let len = len.min(TRANSFER_BYTES_MAX);
        if let Target::Node(node) = open.target
            && let Some(Kind::Device(device)) = self.files.tree.node(node).map(|node| &node.kind)
        {
            // As in Linux, devices that swallow everything do not look at it.
            return if *device == Device::Full { Err(ENOSPC.into()) } else { Ok(len) };
        }
        if let Target::PipeWriter(pipe) = open.target {
            self.check_pipe_room(pipe, open, len)?;
        }
        let mut done = 0;
        while done < len {
            let here = Gva(at.wrapping_add(done));
            let part = ((PAGE_SIZE - here.page_offset()) as u64).min(len - done);
            let mut page = [0; PAGE_SIZE];
            let page = page.get_mut(..part as usize).unwrap_or_default();
            let written = self
                .user(mem)
                .read(here, page)
                .and_then(|()| self.write_target(open.target, offset.saturating_add(done), page));
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

    fn write_target(&mut self, target: Target, offset: u64, data: &[u8]) -> Answer {
        let len = data.len() as u64;
        let kept = match target {
            Target::Stdout => self.files.stdout.append(data),
            Target::Stderr => self.files.stderr.append(data),
            Target::PipeReader(_) => return Err(EBADF.into()),
            Target::PipeWriter(pipe) => {
                let pipe = self.files.table.pipe_mut(pipe).ok_or(EBADF)?;
                let room = PIPE_BYTES_MAX.saturating_sub(pipe.bytes.0.len());
                if room == 0 {
                    return Err(EAGAIN.into());
                }
                let part = data.get(..room.min(data.len())).unwrap_or_default();
                pipe.bytes.0.extend_from_slice(part);
                return Ok(part.len() as u64);
            }
            Target::Node(node) => return self.write_node(node, offset, data),
        };
        if kept { Ok(len) } else { Err(Stop::End(Verdict::OutOfMemory)) }
    }

    fn write_node(&mut self, node: NodeId, offset: u64, data: &[u8]) -> Answer {
        match self.files.tree.node(node).map(|node| &node.kind) {
            Some(Kind::Device(Device::Full)) => return Err(ENOSPC.into()),
            Some(Kind::Device(_)) => return Ok(data.len() as u64),
            _ => {}
        }
        self.files.tree.write_at(node, offset, data)?;
        let now = self.scalars.clock_ns;
        if let Some(node) = self.files.tree.node_mut(node) {
            node.modified_ns = now;
        }
        Ok(data.len() as u64)
    }

    fn check_pipe_room(&mut self, pipe: u32, open: Open, len: u64) -> Result<(), Stop> {
        let pipe = self.files.table.pipe(pipe).ok_or(EBADF)?;
        if pipe.readers == 0 {
            return self.send_signal_to_self(libc::SIGPIPE as u64).and(Err(EPIPE.into()));
        }
        let room = PIPE_BYTES_MAX.saturating_sub(pipe.bytes.0.len());
        let fits = len <= room as u64;
        if open.flags & libc::O_NONBLOCK == 0 {
            return if fits { Ok(()) } else { Err(deadlock("write to a full pipe")) };
        }
        if room == 0 || !fits && len <= PIPE_ATOMIC_BYTES as u64 {
            return Err(EAGAIN.into());
        }
        Ok(())
    }

    fn read_parts(&self, at: u64, count: u64, mem: &mut dyn UserMemory) -> Result<Parts, Stop> {
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

    pub(super) fn read_vector(
        &mut self,
        fd: u64,
        at: u64,
        count: u64,
        position: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        self.for_transfer(fd, position, Open::may_read)?;
        let parts = self.read_parts(at, count, mem)?;
        each_part(parts.as_slice(), position, |at, len, position| {
            self.read(fd, at, len, position, mem)
        })
    }

    pub(super) fn write_vector(
        &mut self,
        fd: u64,
        at: u64,
        count: u64,
        position: Option<u64>,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        self.for_transfer(fd, position, Open::may_write)?;
        let parts = self.read_parts(at, count, mem)?;
        each_part(parts.as_slice(), position, |at, len, position| {
            self.write(fd, at, len, position, mem)
        })
    }

    pub(super) fn send_file(
        &mut self,
        out: u64,
        input: u64,
        offset_at: u64,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
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
        let len = len.min(TRANSFER_BYTES_MAX);
        let mut done = 0;
        while done < len {
            let mut page = [0; PAGE_SIZE];
            let content = self.files.content(node);
            let at = usize::try_from(start.saturating_add(done)).unwrap_or(usize::MAX);
            let rest = content.get(at..).unwrap_or_default();
            let part = rest.len().min(PAGE_SIZE).min((len - done) as usize);
            let (Some(page), Some(rest)) = (page.get_mut(..part), rest.get(..part)) else { break };
            if part == 0 {
                break;
            }
            page.copy_from_slice(rest);
            match self.write_target(to.target, to.offset.saturating_add(done), page) {
                Ok(bytes) => done += bytes,
                Err(stop) => {
                    moved(done, Some(stop))?;
                    break;
                }
            }
        }
        self.advance(out, done)?;
        match offset_at {
            0 => self.advance(input, done)?,
            at => self.user(mem).write(Gva(at), &start.saturating_add(done).to_le_bytes())?,
        }
        Ok(done)
    }

    pub(super) fn seek(&mut self, fd: u64, offset: u64, whence: u64) -> Answer {
        let open = *self.files.table.get(fd)?;
        let Target::Node(node) = open.target else { return Err(ESPIPE.into()) };
        if open.is_path_only() {
            return Err(EBADF.into());
        }
        let size = self.files.content(node).len() as i64;
        let offset = offset as i64;
        let is_device =
            matches!(self.files.tree.node(node).map(|node| &node.kind), Some(Kind::Device(_)));
        let base = match whence as i32 {
            _ if is_device => return Ok(0),
            libc::SEEK_SET => 0,
            libc::SEEK_CUR => open.offset as i64,
            libc::SEEK_END => size,
            // Files have no holes: data up to the end, and a hole at it.
            libc::SEEK_DATA | libc::SEEK_HOLE if offset < 0 || offset >= size => {
                return Err(ENXIO.into());
            }
            libc::SEEK_DATA => 0,
            libc::SEEK_HOLE => size.saturating_sub(offset),
            _ => return Err(EINVAL.into()),
        };
        let to = base.checked_add(offset).filter(|to| *to >= 0).ok_or(EINVAL)?;
        if to as u64 != open.offset {
            self.files.table.get_mut(fd)?.offset = to as u64;
        }
        Ok(to as u64)
    }

    pub(super) fn close(&mut self, fd: u64) -> Answer {
        self.files.close(fd)?;
        Ok(0)
    }

    pub(super) fn close_range(&mut self, first: u64, last: u64, flags: u64) -> Answer {
        let (first, last) = (u64::from(first as u32), u64::from(last as u32));
        if first > last || flags & !6 != 0 {
            return Err(EINVAL.into());
        }
        for fd in first..=last.min(self.files.table.descriptors_max() as u64) {
            if flags & u64::from(libc::CLOSE_RANGE_CLOEXEC) != 0 {
                let _ = self.files.table.set_close_on_exec(fd, true);
            } else {
                // Descriptors in the range that are not open are skipped.
                let _ = self.files.close(fd);
            }
        }
        Ok(0)
    }

    pub(super) fn duplicate(&mut self, fd: u64) -> Answer {
        Ok(self.files.table.duplicate(fd, 0, false)?)
    }

    /// `dup2` without `flags`, `dup3` with.
    pub(super) fn duplicate_to(&mut self, fd: u64, to: u64, flags: Option<u64>) -> Answer {
        let close_on_exec = match flags {
            None | Some(0) => false,
            Some(flags) if flags == libc::O_CLOEXEC as u64 => true,
            Some(_) => return Err(EINVAL.into()),
        };
        if fd as u32 == to as u32 {
            self.files.table.get(fd)?;
            return if flags.is_some() { Err(EINVAL.into()) } else { Ok(u64::from(to as u32)) };
        }
        let closed = self.files.table.duplicate_to(fd, to, close_on_exec)?;
        self.files.forget(closed);
        Ok(u64::from(to as u32))
    }

    pub(super) fn fcntl(
        &mut self,
        fd: u64,
        command: u64,
        arg: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let table = &mut self.files.table;
        let open = *table.get(fd)?;
        match command as i32 {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
                if arg >= table.descriptors_max() as u64 {
                    return Err(EINVAL.into());
                }
                let close_on_exec = command as i32 == libc::F_DUPFD_CLOEXEC;
                Ok(table.duplicate(fd, arg as usize, close_on_exec)?)
            }
            libc::F_GETFD => Ok(u64::from(table.is_close_on_exec(fd)?)),
            libc::F_SETFD => {
                table.set_close_on_exec(fd, arg & libc::FD_CLOEXEC as u64 != 0)?;
                Ok(0)
            }
            libc::F_GETFL => Ok((open.flags | LARGE_FILE) as u64),
            libc::F_SETFL => {
                let settable = libc::O_APPEND | libc::O_NONBLOCK | libc::O_NOATIME;
                let file = table.get_mut(fd)?;
                file.flags = file.flags & !settable | arg as i32 & settable;
                Ok(0)
            }
            // One process: no lock is ever held by another.
            libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => Ok(0),
            libc::F_GETLK | libc::F_OFD_GETLK => {
                self.user(mem).write(Gva(arg), &(libc::F_UNLCK as u16).to_le_bytes())?;
                Ok(0)
            }
            libc::F_GETOWN => Ok(0),
            libc::F_SETOWN => Ok(0),
            1032 if !matches!(open.target, Target::Node(_)) => Ok(PIPE_BYTES_MAX as u64),
            _ => Err(EINVAL.into()),
        }
    }

    pub(super) fn ioctl(
        &mut self,
        fd: u64,
        request: u64,
        arg: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let open = *self.files.table.get(fd)?;
        if open.is_path_only() {
            return Err(EBADF.into());
        }
        match u64::from(request as u32) {
            libc::FIONREAD => {
                let left = match open.target {
                    Target::Node(node) => {
                        (self.files.content(node).len() as u64).saturating_sub(open.offset)
                    }
                    Target::PipeReader(pipe) => {
                        self.files.table.pipe(pipe).map_or(0, |pipe| pipe.bytes.0.len() as u64)
                    }
                    _ => 0,
                };
                self.user(mem).write(Gva(arg), &(left as u32).to_le_bytes())?;
                Ok(0)
            }
            libc::FIONBIO => {
                let on = self.user(mem).read_u32(Gva(arg))? != 0;
                let file = self.files.table.get_mut(fd)?;
                file.flags &= !libc::O_NONBLOCK;
                file.flags |= if on { libc::O_NONBLOCK } else { 0 };
                Ok(0)
            }
            libc::FIOCLEX | libc::FIONCLEX => {
                let on = u64::from(request as u32) == libc::FIOCLEX;
                self.files.table.set_close_on_exec(fd, on)?;
                Ok(0)
            }
            _ => Err(ENOTTY.into()),
        }
    }

    pub(super) fn pipe(&mut self, at: u64, flags: u64, mem: &mut dyn UserMemory) -> Answer {
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
        let pair = (reader & 0xffff_ffff) | writer << 32;
        let copied = self.user(mem).write(Gva(at), &pair.to_le_bytes());
        if copied.is_err() {
            self.files.close(reader)?;
            self.files.close(writer)?;
        }
        copied.map(|()| 0)
    }

    pub(super) fn truncate_open(&mut self, fd: u64, len: u64) -> Answer {
        let open = *self.files.table.get(fd)?;
        if len > i64::MAX as u64 {
            return Err(EINVAL.into());
        }
        match open.target {
            Target::Node(node) if open.may_write() => {
                self.files.tree.set_len(node, len)?;
                Ok(0)
            }
            _ => Err(EINVAL.into()),
        }
    }

    pub(super) fn allocate(&mut self, fd: u64, mode: u64, offset: u64, len: u64) -> Answer {
        let open = *self.files.table.get(fd)?;
        let end = offset.checked_add(len).filter(|end| *end <= i64::MAX as u64).ok_or(EFBIG)?;
        if len == 0 {
            return Err(EINVAL.into());
        }
        if !open.may_write() {
            return Err(EBADF.into());
        }
        let Target::Node(node) = open.target else { return Err(ESPIPE.into()) };
        match mode {
            0 if end > self.files.content(node).len() as u64 => {
                self.files.tree.set_len(node, end)?;
                Ok(0)
            }
            0 => Ok(0),
            _ => Err(EOPNOTSUPP.into()),
        }
    }
}

/// Transfers part after part until one comes up short.
fn each_part(
    parts: &[(u64, u64)],
    position: Option<u64>,
    mut transfer: impl FnMut(u64, u64, Option<u64>) -> Answer,
) -> Answer {
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
