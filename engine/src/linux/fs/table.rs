//! Descriptors, the open files behind them, and pipes. Never knows what a file contains.

use crate::linux::abi::errno::{EBADF, EMFILE, Errno};
use crate::linux::abi::fd::Fd;
use crate::linux::base::bytes::Bytes;
use crate::linux::base::limits::{Limits, OPEN_FILES_MAX, Refused};
use crate::linux::base::tracked::Rewind;
use crate::linux::fs::tree::NodeId;
use crate::stored::bounded_list;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes that a pipe holds before it is full, as in Linux.
pub(crate) const PIPE_BYTES_MAX: usize = 1 << 16;

/// Writes to a pipe of up to this size are not split (`PIPE_BUF`); a pipe with less room than
/// this is not ready for writing.
pub(crate) const PIPE_ATOMIC_BYTES: usize = 4096;

/// What an open file reads from and writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Target {
    Node(NodeId),
    PipeReader(u32),
    PipeWriter(u32),
    Stdout,
    Stderr,
    /// An `eventfd`.
    Event(u32),
    /// An `epoll` set.
    Watch(u32),
}

/// An open file description: shared by the descriptors that were duplicated from one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    pub(crate) target: Target,
    /// Position in the file, or in the list of a directory's entries.
    pub(crate) offset: u64,
    /// `O_*` flags: access mode and status.
    pub(crate) flags: i32,
    /// Descriptors that share it.
    pub(crate) references: u32,
}

impl Open {
    pub(crate) fn is_path_only(&self) -> bool {
        self.flags & libc::O_PATH != 0
    }

    pub(crate) fn may_read(&self) -> bool {
        matches!(self.flags & libc::O_ACCMODE, libc::O_RDONLY | libc::O_RDWR)
            && !self.is_path_only()
    }

    pub(crate) fn may_write(&self) -> bool {
        matches!(self.flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR)
            && !self.is_path_only()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Descriptor {
    open: u32,
    close_on_exec: bool,
}

/// An in-process pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pipe {
    pub(crate) bytes: Bytes,
    pub(crate) readers: u32,
    pub(crate) writers: u32,
}

/// An `eventfd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) count: u64,
    /// Each read takes one.
    pub(crate) semaphore: bool,
}

/// What an `epoll` set waits for on one descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interest {
    pub(crate) events: u32,
    pub(crate) data: u64,
    /// Whether it is still to be reported.
    pub(crate) armed: bool,
}

/// An `epoll` set: its interests by descriptor.
pub(crate) type Interests = BTreeMap<Fd, Interest>;

/// All descriptors of the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    #[serde(deserialize_with = "bounded_list::<_, _, OPEN_FILES_MAX>")]
    descriptors: Vec<Option<Descriptor>>,
    #[serde(deserialize_with = "bounded_list::<_, _, OPEN_FILES_MAX>")]
    open: Vec<Option<Open>>,
    #[serde(deserialize_with = "bounded_list::<_, _, OPEN_FILES_MAX>")]
    pipes: Vec<Option<Pipe>>,
    events: Vec<Option<Event>>,
    watches: Vec<Option<Interests>>,
    descriptors_max: usize,
    /// The working directory.
    pub(crate) cwd: NodeId,
    /// Permission bits taken from every file created.
    pub(crate) umask: u32,
}

/// Index of the first free slot at or after `from`, made if there is none.
fn free_slot<T>(slots: &mut Vec<Option<T>>, from: usize) -> usize {
    let taken = slots.iter().skip(from).position(Option::is_none);
    let index = taken.map_or(slots.len().max(from), |past| from + past);
    if index >= slots.len() {
        slots.resize_with(index + 1, || None);
    }
    index
}

fn put<T>(slots: &mut [Option<T>], index: usize, value: T) {
    if let Some(slot) = slots.get_mut(index) {
        *slot = Some(value);
    }
}

fn clear<T>(slots: &mut [Option<T>], index: u32) {
    if let Some(slot) = slots.get_mut(index as usize) {
        *slot = None;
    }
}

impl Table {
    pub(crate) fn new(descriptors_max: usize) -> Self {
        Self {
            descriptors: Vec::new(),
            open: Vec::new(),
            pipes: Vec::new(),
            events: Vec::new(),
            watches: Vec::new(),
            descriptors_max,
            cwd: NodeId::ROOT,
            umask: 0o022,
        }
    }

    /// Checks a table that was read from a snapshot.
    pub(crate) fn check_stored(&self, limits: &Limits) -> Result<(), Refused> {
        let most = self.descriptors_max;
        if most > limits.open_files
            || [self.descriptors.len(), self.open.len(), self.pipes.len()].iter().any(|n| *n > most)
        {
            return Err("more open files than a program may have");
        }
        if self.pipes.iter().flatten().any(|pipe| pipe.bytes.0.len() > PIPE_BYTES_MAX) {
            return Err("a pipe with more in it than fits");
        }
        Ok(())
    }

    pub(crate) fn descriptors_max(&self) -> usize {
        self.descriptors_max
    }

    fn descriptor(&self, fd: Fd) -> Result<Descriptor, Errno> {
        self.descriptors.get(fd.index()).copied().flatten().ok_or(EBADF)
    }

    /// The open file behind `fd`.
    pub(crate) fn get(&self, fd: Fd) -> Result<&Open, Errno> {
        let index = self.descriptor(fd)?.open as usize;
        self.open.get(index).and_then(Option::as_ref).ok_or(EBADF)
    }

    /// The open file behind `fd`, for a call that `O_PATH` does not allow.
    pub(crate) fn get_usable(&self, fd: Fd) -> Result<&Open, Errno> {
        self.get(fd).and_then(|open| if open.is_path_only() { Err(EBADF) } else { Ok(open) })
    }

    /// The open file behind `fd`, to change.
    pub(crate) fn get_mut(&mut self, fd: Fd) -> Result<&mut Open, Errno> {
        let index = self.descriptor(fd)?.open as usize;
        self.open.get_mut(index).and_then(Option::as_mut).ok_or(EBADF)
    }

    /// Opens `target` under the lowest free descriptor.
    pub(crate) fn open(&mut self, target: Target, flags: i32) -> Result<Fd, Errno> {
        let fd = self.free_descriptor(0)?;
        let open = free_slot(&mut self.open, 0);
        let status = flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_CLOEXEC);
        put(&mut self.open, open, Open { target, offset: 0, flags: status, references: 1 });
        let close_on_exec = flags & libc::O_CLOEXEC != 0;
        let open = u32::try_from(open).map_err(|_| EMFILE)?;
        put(&mut self.descriptors, fd, Descriptor { open, close_on_exec });
        match target {
            Target::PipeReader(pipe) => {
                self.count_pipe(pipe, |pipe| pipe.readers = pipe.readers.saturating_add(1))
            }
            Target::PipeWriter(pipe) => {
                self.count_pipe(pipe, |pipe| pipe.writers = pipe.writers.saturating_add(1))
            }
            _ => {}
        }
        Fd::from_index(fd).ok_or(EMFILE)
    }

    /// The lowest free descriptor that is at least `from`, as a slot.
    fn free_descriptor(&mut self, from: usize) -> Result<usize, Errno> {
        let taken = self.descriptors.iter().skip(from).position(Option::is_none);
        let fd = taken.map_or(self.descriptors.len().max(from), |past| from + past);
        if fd >= self.descriptors_max {
            return Err(EMFILE);
        }
        Ok(free_slot(&mut self.descriptors, from))
    }

    fn share(&mut self, fd: Fd) -> Result<u32, Errno> {
        let open = self.descriptor(fd)?.open;
        let file = self.get_mut(fd)?;
        file.references = file.references.saturating_add(1);
        Ok(open)
    }

    /// `dup`, `F_DUPFD`: the lowest free descriptor from `from` on.
    pub(crate) fn duplicate(
        &mut self,
        fd: Fd,
        from: usize,
        close_on_exec: bool,
    ) -> Result<Fd, Errno> {
        self.descriptor(fd)?;
        let to = self.free_descriptor(from)?;
        let open = self.share(fd)?;
        put(&mut self.descriptors, to, Descriptor { open, close_on_exec });
        Fd::from_index(to).ok_or(EMFILE)
    }

    /// `dup2` to a descriptor other than `fd`: the target that was closed for it, if its last
    /// descriptor went.
    pub(crate) fn duplicate_to(
        &mut self,
        fd: Fd,
        to: Fd,
        close_on_exec: bool,
    ) -> Result<Option<Target>, Errno> {
        self.descriptor(fd)?;
        let index = to.index();
        if index >= self.descriptors_max {
            return Err(EBADF);
        }
        let closed = self.close(to).unwrap_or(None);
        if index >= self.descriptors.len() {
            self.descriptors.resize(index + 1, None);
        }
        let open = self.share(fd)?;
        put(&mut self.descriptors, index, Descriptor { open, close_on_exec });
        Ok(closed)
    }

    /// Closes a descriptor: its target if that was its last one.
    pub(crate) fn close(&mut self, fd: Fd) -> Result<Option<Target>, Errno> {
        let open = self.descriptor(fd)?.open as usize;
        if let Some(slot) = self.descriptors.get_mut(fd.index()) {
            *slot = None;
        }
        let Some(slot) = self.open.get_mut(open) else { return Ok(None) };
        let Some(file) = slot else { return Ok(None) };
        file.references = file.references.saturating_sub(1);
        if file.references > 0 {
            return Ok(None);
        }
        let target = file.target;
        *slot = None;
        match target {
            Target::Event(index) => clear(&mut self.events, index),
            Target::Watch(index) => clear(&mut self.watches, index),
            Target::PipeReader(pipe) => {
                self.count_pipe(pipe, |pipe| pipe.readers = pipe.readers.saturating_sub(1));
            }
            Target::PipeWriter(pipe) => {
                self.count_pipe(pipe, |pipe| pipe.writers = pipe.writers.saturating_sub(1));
            }
            _ => {}
        }
        Ok(Some(target))
    }

    pub(crate) fn is_close_on_exec(&self, fd: Fd) -> Result<bool, Errno> {
        self.descriptor(fd).map(|descriptor| descriptor.close_on_exec)
    }

    pub(crate) fn set_close_on_exec(&mut self, fd: Fd, on: bool) -> Result<(), Errno> {
        self.descriptor(fd)?;
        if let Some(Some(descriptor)) = self.descriptors.get_mut(fd.index()) {
            descriptor.close_on_exec = on;
        }
        Ok(())
    }

    /// Descriptors in use, ascending.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = Fd> + '_ {
        let used = self.descriptors.iter().enumerate().filter(|(_, d)| d.is_some());
        used.filter_map(|(index, _)| Fd::from_index(index))
    }

    /// Whether any open file leads to `node`.
    pub(crate) fn is_open(&self, node: NodeId) -> bool {
        self.open.iter().flatten().any(|open| open.target == Target::Node(node))
    }

    pub(crate) fn add_pipe(&mut self) -> u32 {
        let index = free_slot(&mut self.pipes, 0);
        put(&mut self.pipes, index, Pipe::default());
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// Opens a new `eventfd`.
    pub(crate) fn open_event(&mut self, event: Event, flags: i32) -> Result<Fd, Errno> {
        let index = free_slot(&mut self.events, 0);
        let target = Target::Event(u32::try_from(index).map_err(|_| EMFILE)?);
        let fd = self.open(target, flags)?;
        put(&mut self.events, index, event);
        Ok(fd)
    }

    pub(crate) fn event(&self, index: u32) -> Option<&Event> {
        self.events.get(index as usize)?.as_ref()
    }

    pub(crate) fn event_mut(&mut self, index: u32) -> Option<&mut Event> {
        self.events.get_mut(index as usize)?.as_mut()
    }

    /// Opens a new, empty `epoll` set.
    pub(crate) fn open_watch(&mut self, flags: i32) -> Result<Fd, Errno> {
        let index = free_slot(&mut self.watches, 0);
        let target = Target::Watch(u32::try_from(index).map_err(|_| EMFILE)?);
        let fd = self.open(target, flags)?;
        put(&mut self.watches, index, Interests::new());
        Ok(fd)
    }

    pub(crate) fn watch(&self, index: u32) -> Option<&Interests> {
        self.watches.get(index as usize)?.as_ref()
    }

    pub(crate) fn watch_mut(&mut self, index: u32) -> Option<&mut Interests> {
        self.watches.get_mut(index as usize)?.as_mut()
    }

    pub(crate) fn pipe(&self, index: u32) -> Option<&Pipe> {
        self.pipes.get(index as usize)?.as_ref()
    }

    pub(crate) fn pipe_mut(&mut self, index: u32) -> Option<&mut Pipe> {
        self.pipes.get_mut(index as usize)?.as_mut()
    }

    /// Changes a pipe's ends and frees it when none is left.
    fn count_pipe(&mut self, index: u32, change: impl FnOnce(&mut Pipe)) {
        let Some(slot) = self.pipes.get_mut(index as usize) else { return };
        if let Some(pipe) = slot {
            change(pipe);
            if pipe.readers == 0 && pipe.writers == 0 {
                *slot = None;
            }
        }
    }

    /// Names what differs from `other`.
    pub(crate) fn differences(&self, other: &Self, into: &mut Vec<String>) {
        let count = self.descriptors.len().max(other.descriptors.len());
        for fd in (0..count).filter_map(Fd::from_index) {
            let of = |table: &Self| (table.is_close_on_exec(fd).ok(), table.get(fd).ok().copied());
            if of(self) != of(other) {
                into.push(format!("descriptor {fd} {:?} was {:?}", of(self), of(other)));
            }
        }
        if self.descriptors != other.descriptors || self.open != other.open {
            into.push("table of open files".to_owned());
        }
        if self.events != other.events || self.watches != other.watches {
            into.push("eventfd or epoll".to_owned());
        }
        if self.pipes != other.pipes {
            into.push("contents of pipes".to_owned());
        }
        if (self.cwd, self.umask) != (other.cwd, other.umask) {
            into.push("working directory or file mode mask".to_owned());
        }
    }
}

impl Rewind for Table {
    fn rewind_to(&mut self, snapshot: &Self, _related: bool) {
        self.descriptors.clone_from(&snapshot.descriptors);
        self.open.clone_from(&snapshot.open);
        self.pipes.clone_from(&snapshot.pipes);
        self.events.clone_from(&snapshot.events);
        self.watches.clone_from(&snapshot.watches);
        self.descriptors_max = snapshot.descriptors_max;
        self.cwd = snapshot.cwd;
        self.umask = snapshot.umask;
    }
}
