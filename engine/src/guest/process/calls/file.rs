//! Reading and writing through descriptors, whole and in parts.

use super::super::errno::{
    Answer, EAGAIN, EBADF, EFAULT, EINVAL, EISDIR, ENOSPC, EOPNOTSUPP, EPIPE, ESPIPE, Errno, Stop,
};
use super::super::files::{Device, Kind, NodeId, Open, PIPE_ATOMIC_BYTES, PIPE_BYTES_MAX, Target};
use super::super::memory::UserMemory;
use super::super::{Process, SystemCall, Verdict};
use super::{DEVICE_BYTES_MAX, TRANSFER_BYTES_MAX};
use crate::address::{Gva, PAGE_SIZE};

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

/// A transfer that moved some bytes succeeded, unless the run is over.
fn moved(done: u64, stop: Option<Stop>) -> Answer {
    match stop {
        Some(stop @ Stop::End(_)) => Err(stop),
        Some(stop) if done == 0 => Err(stop),
        _ => Ok(done),
    }
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
                let (done, stop) = self.user(mem).write_some(Gva(at), rest);
                return moved(done as u64, stop);
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
            return Err(self.not_yet(open));
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
            Target::Event(_) | Target::Watch(_) => return Err(EINVAL.into()),
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
        let now = self.wall_clock_ns();
        if let Some(node) = self.files.tree.node_mut(node) {
            node.modified_ns = now;
        }
        Ok(data.len() as u64)
    }

    fn check_pipe_room(&mut self, pipe: u32, open: Open, len: u64) -> Result<(), Stop> {
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
        let done = self.copy_within((node, start), (to.target, to.offset), len)?;
        self.advance(out, done)?;
        match offset_at {
            0 => self.advance(input, done)?,
            at => self.user(mem).write(Gva(at), &start.saturating_add(done).to_le_bytes())?,
        }
        Ok(done)
    }
}

impl Process {
    /// Copies up to `len` bytes of a file to something open.
    fn copy_within(&mut self, from: (NodeId, u64), to: (Target, u64), len: u64) -> Answer {
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
    pub(super) fn copy_range(
        &mut self,
        from: (u64, u64),
        to: (u64, u64),
        len: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
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

    /// `preadv2` and `pwritev2`: an offset of -1 is the file's own.
    pub(super) fn transfer_with_flags(
        &mut self,
        call: &SystemCall,
        writes: bool,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let [fd, at, count, offset, _, flags] = call.args;
        // RWF_HIPRI, RWF_DSYNC, RWF_SYNC and RWF_NOWAIT: nothing here ever waits.
        if flags & !0xf != 0 {
            return Err(EOPNOTSUPP.into());
        }
        let position = (offset != u64::MAX).then_some(offset);
        if writes {
            self.write_vector(fd, at, count, position, mem)
        } else {
            self.read_vector(fd, at, count, position, mem)
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
