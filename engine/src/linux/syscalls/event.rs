//! `eventfd`, `epoll` and `memfd`: objects that exist only as descriptors. What is not ready now
//! never will be, as with [`poll`](crate::linux::syscalls::poll); edges are reported like levels.

use crate::address::Gva;
use crate::linux::abi::errno::{EBADF, EEXIST, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, EPERM};
use crate::linux::abi::fd::Fd;
use crate::linux::base::bytes::Bytes;
use crate::linux::fs::table::{Event, Interest, Open, Target};
use crate::linux::fs::tree::{Kind, Node};
use crate::linux::mm::uaccess::UserError;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;

/// The longest name of a memory file (`MFD_NAME_MAX_LEN`).
const MEMFD_NAME_MAX: usize = 249;
/// `MFD_CLOEXEC`, `MFD_ALLOW_SEALING`.
const MEMFD_FLAGS: u64 = 3;
/// Bytes of the packed `struct epoll_event`.
const EVENT_BYTES: u64 = 12;
/// Events that `epoll_ctl` may ask for beside those of `poll`.
const ONE_SHOT: u32 = libc::EPOLLONESHOT as u32;

impl Process {
    pub(crate) fn sys_eventfd(&mut self, count: u64) -> SyscallResult {
        self.sys_eventfd2(count, 0)
    }

    pub(crate) fn sys_eventfd2(&mut self, count: u64, flags: u64) -> SyscallResult {
        let known = libc::EFD_SEMAPHORE | libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
        if flags & !(known as u64) != 0 {
            return Err(EINVAL.into());
        }
        let semaphore = flags & libc::EFD_SEMAPHORE as u64 != 0;
        let event = Event { count: u64::from(count as u32), semaphore };
        let flags = flags as i32 & !libc::EFD_SEMAPHORE | libc::O_RDWR;
        Ok(self.files.table.open_event(event, flags)?.into())
    }

    pub(crate) fn event_read(
        &mut self,
        index: u32,
        open: Open,
        at: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if len < 8 {
            return Err(EINVAL.into());
        }
        let event = self.files.table.event(index).ok_or(EBADF)?;
        if event.count == 0 {
            return Err(self.not_yet(open));
        }
        let taken = if event.semaphore { 1 } else { event.count };
        let left = event.count - taken;
        self.user(mem).write(at, &taken.to_le_bytes())?;
        if let Some(event) = self.files.table.event_mut(index) {
            event.count = left;
        }
        Ok(8)
    }

    pub(crate) fn event_write(
        &mut self,
        index: u32,
        open: Open,
        at: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if len < 8 {
            return Err(EINVAL.into());
        }
        let added = self.user(mem).read_u64(at)?;
        let event = self.files.table.event_mut(index).ok_or(EBADF)?;
        // The highest value is never reached (fs/eventfd.c).
        let sum = event.count.checked_add(added).filter(|sum| *sum < u64::MAX);
        match sum {
            _ if added == u64::MAX => Err(EINVAL.into()),
            Some(sum) => {
                event.count = sum;
                Ok(8)
            }
            None => Err(self.not_yet(open)),
        }
    }

    pub(crate) fn sys_memfd_create(
        &mut self,
        name: Gva,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if flags & !MEMFD_FLAGS != 0 {
            return Err(EINVAL.into());
        }
        let name = match self.user(mem).read_path(name) {
            Err(UserError::Errno(ENAMETOOLONG)) => return Err(EINVAL.into()),
            name => name?,
        };
        if name.as_bytes().len() > MEMFD_NAME_MAX {
            return Err(EINVAL.into());
        }
        let mut node = Node::new(Kind::File(Bytes::default()), 0o777, true);
        node.modified_ns = self.wall_clock_ns();
        let node = self.files.tree.add(node)?;
        let close = if flags & 1 != 0 { libc::O_CLOEXEC } else { 0 };
        let opened = self.files.table.open(Target::Node(node), libc::O_RDWR | close);
        if opened.is_err() {
            self.files.tree.free(node);
        }
        Ok(opened?.into())
    }

    pub(crate) fn sys_epoll_create(&mut self, size: u64) -> SyscallResult {
        if size as i32 <= 0 {
            return Err(EINVAL.into());
        }
        self.sys_epoll_create1(0)
    }

    pub(crate) fn sys_epoll_create1(&mut self, flags: u64) -> SyscallResult {
        if flags & !(libc::EPOLL_CLOEXEC as u64) != 0 {
            return Err(EINVAL.into());
        }
        Ok(self.files.table.open_watch(flags as i32 | libc::O_RDWR)?.into())
    }

    pub(crate) fn sys_epoll_ctl(
        &mut self,
        watch: Fd,
        operation: u64,
        fd: Fd,
        at: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let wanted = match operation as i32 {
            libc::EPOLL_CTL_DEL => None,
            _ => {
                let events = self.user(mem).read_u32(at)?;
                let data = self.user(mem).read_u64(at.wrapping_add(4))?;
                Some(Interest { events, data, armed: true })
            }
        };
        let Target::Watch(index) = self.files.table.get(watch)?.target else {
            self.files.table.get(fd)?;
            return Err(EINVAL.into());
        };
        match self.files.table.get(fd)?.target {
            _ if watch == fd => return Err(EINVAL.into()),
            // Always ready, and so not to be waited for.
            Target::Node(_) => return Err(EPERM.into()),
            // Sets within sets could be circles.
            Target::Watch(_) => return Err(ELOOP.into()),
            _ => {}
        }
        let interests = self.files.table.watch_mut(index).ok_or(EBADF)?;
        match (operation as i32, wanted, interests.contains_key(&fd)) {
            (libc::EPOLL_CTL_ADD, Some(_), true) => return Err(EEXIST.into()),
            (libc::EPOLL_CTL_ADD, Some(wanted), false)
            | (libc::EPOLL_CTL_MOD, Some(wanted), true) => drop(interests.insert(fd, wanted)),
            (libc::EPOLL_CTL_DEL, _, true) => drop(interests.remove(&fd)),
            (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, _, false) => return Err(ENOENT.into()),
            _ => return Err(EINVAL.into()),
        }
        Ok(0)
    }

    /// Also `epoll_pwait` without a signal set.
    pub(crate) fn sys_epoll_wait(
        &mut self,
        watch: Fd,
        at: Gva,
        count_max: u64,
        timeout_ms: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let count_max = u64::try_from(count_max as i32).ok().filter(|n| *n > 0).ok_or(EINVAL)?;
        let Target::Watch(index) = self.files.table.get(watch)?.target else {
            return Err(EINVAL.into());
        };
        let timeout_ns = u64::try_from(timeout_ms as i32).ok().map(|ms| ms * 1_000_000);
        let always = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
        let mut count = 0;
        let mut next = Fd::from_register(0);
        while count < count_max {
            let interests = self.files.table.watch_mut(index).ok_or(EBADF)?;
            let Some((&fd, &interest)) = interests.range(next..).next() else { break };
            next = fd.next();
            let ready = self.ready_to_watch(fd) & (interest.events | always);
            if ready == 0 || !interest.armed {
                continue;
            }
            let mut event = [0; EVENT_BYTES as usize];
            event[..4].copy_from_slice(&ready.to_le_bytes());
            event[4..].copy_from_slice(&interest.data.to_le_bytes());
            self.user(mem).write(at.wrapping_add(count * EVENT_BYTES), &event)?;
            count += 1;
            if interest.events & ONE_SHOT != 0
                && let Some(interests) = self.files.table.watch_mut(index)
                && let Some(interest) = interests.get_mut(&fd)
            {
                interest.armed = false;
            }
        }
        match self.wait_for_ready(timeout_ns) {
            Some(wait) if count == 0 => Err(wait),
            _ => Ok(count),
        }
    }
}
