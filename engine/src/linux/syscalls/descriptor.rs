//! Calls on descriptors other than transfers: seeking, duplicating, flags, lengths.

use crate::address::Gva;
use crate::linux::abi::errno::{EBADF, EFBIG, EINVAL, ENODEV, ENOTTY, ENXIO, EOPNOTSUPP, ESPIPE};
use crate::linux::abi::fd::Fd;
use crate::linux::fs::table::{PIPE_BYTES_MAX, Target};
use crate::linux::fs::tree::Kind;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;

/// Calls that change nothing here, and fail only where nothing is open.
macro_rules! checks_only {
    ($($name:ident)*) => {
        impl Process {
            $(pub(crate) fn $name(&self, fd: Fd) -> SyscallResult {
                self.files.table.get_usable(fd)?;
                Ok(0)
            })*
        }
    };
}

checks_only! {
    sys_syncfs sys_sync_file_range sys_readahead sys_fsync sys_fdatasync sys_flock sys_fadvise64
}

/// `O_LARGEFILE` as the kernel reports it; glibc defines it away.
const LARGE_FILE: i32 = 0o100_000;

impl Process {
    pub(crate) fn sys_sync(&self) -> SyscallResult {
        Ok(0)
    }

    pub(crate) fn sys_lseek(&mut self, fd: Fd, offset: u64, whence: u64) -> SyscallResult {
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

    pub(crate) fn sys_close(&mut self, fd: Fd) -> SyscallResult {
        self.files.close(fd)?;
        Ok(0)
    }

    pub(crate) fn sys_close_range(&mut self, first: u64, last: u64, flags: u64) -> SyscallResult {
        let (first, last) = (first as u32 as usize, last as u32 as usize);
        if first > last || flags & !6 != 0 {
            return Err(EINVAL.into());
        }
        let last = last.min(self.files.table.descriptors_max());
        for fd in (first..=last).filter_map(Fd::from_index) {
            if flags & u64::from(libc::CLOSE_RANGE_CLOEXEC) != 0 {
                let _ = self.files.table.set_close_on_exec(fd, true);
            } else {
                // Descriptors in the range that are not open are skipped.
                let _ = self.files.close(fd);
            }
        }
        Ok(0)
    }

    pub(crate) fn sys_dup(&mut self, fd: Fd) -> SyscallResult {
        Ok(self.files.table.duplicate(fd, 0, false)?.into())
    }

    pub(crate) fn sys_dup2(&mut self, fd: Fd, to: Fd) -> SyscallResult {
        self.duplicate_to(fd, to, None)
    }

    pub(crate) fn sys_dup3(&mut self, fd: Fd, to: Fd, flags: u64) -> SyscallResult {
        self.duplicate_to(fd, to, Some(flags))
    }

    /// `dup2` without `flags`, `dup3` with.
    fn duplicate_to(&mut self, fd: Fd, to: Fd, flags: Option<u64>) -> SyscallResult {
        let close_on_exec = match flags {
            None | Some(0) => false,
            Some(flags) if flags == libc::O_CLOEXEC as u64 => true,
            Some(_) => return Err(EINVAL.into()),
        };
        if fd == to {
            self.files.table.get(fd)?;
            return if flags.is_some() { Err(EINVAL.into()) } else { Ok(to.into()) };
        }
        let closed = self.files.table.duplicate_to(fd, to, close_on_exec)?;
        self.files.forget(closed);
        Ok(to.into())
    }

    pub(crate) fn sys_fcntl(
        &mut self,
        fd: Fd,
        command: u64,
        arg: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let table = &mut self.files.table;
        let open = *table.get(fd)?;
        match command as i32 {
            libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
                if arg >= table.descriptors_max() as u64 {
                    return Err(EINVAL.into());
                }
                let close_on_exec = command as i32 == libc::F_DUPFD_CLOEXEC;
                Ok(table.duplicate(fd, arg as usize, close_on_exec)?.into())
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
            libc::F_GETPIPE_SZ if !matches!(open.target, Target::Node(_)) => {
                Ok(PIPE_BYTES_MAX as u64)
            }
            _ => Err(EINVAL.into()),
        }
    }

    pub(crate) fn sys_ioctl(
        &mut self,
        fd: Fd,
        request: u64,
        arg: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
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

    pub(crate) fn sys_ftruncate(&mut self, fd: Fd, len: u64) -> SyscallResult {
        let open = *self.files.table.get_usable(fd)?;
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

    pub(crate) fn sys_fallocate(
        &mut self,
        fd: Fd,
        mode: u64,
        offset: u64,
        len: u64,
    ) -> SyscallResult {
        let open = *self.files.table.get(fd)?;
        if len == 0 || len > i64::MAX as u64 || offset > i64::MAX as u64 {
            return Err(EINVAL.into());
        }
        let end = offset.checked_add(len).filter(|end| *end <= i64::MAX as u64).ok_or(EFBIG)?;
        if !open.may_write() {
            return Err(EBADF.into());
        }
        let Target::Node(node) = open.target else { return Err(ESPIPE.into()) };
        if !matches!(self.files.tree.node(node).map(|node| &node.kind), Some(Kind::File(_))) {
            return Err(ENODEV.into());
        }
        let size = self.files.content(node).len() as u64;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // What a tmpfs does (mm/shmem.c).
        match mode as i32 {
            0 if end > size => self.files.tree.set_len(node, end)?,
            0 | libc::FALLOC_FL_KEEP_SIZE => {}
            PUNCH => self.files.tree.clear(node, offset, end.min(size))?,
            _ => return Err(EOPNOTSUPP.into()),
        }
        Ok(0)
    }
}
