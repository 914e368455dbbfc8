//! `open` in all its forms, and where relative paths start.

use crate::address::Gva;
use crate::linux::abi::errno::{
    EACCES, EBADF, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO, Errno,
};
use crate::linux::abi::fd::Fd;
use crate::linux::base::bytes::Bytes;
use crate::linux::fs::files::Files;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::{Device, Found, Kind, Node, NodeId};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;

/// The directory in which `path`, given with descriptor `fd`, starts.
pub(crate) fn base_directory(files: &Files, fd: Fd, path: &[u8]) -> Result<NodeId, Errno> {
    if path.is_empty() {
        return Err(ENOENT);
    }
    if path.first() == Some(&b'/') {
        return Ok(NodeId::ROOT);
    }
    if fd == Fd::CWD {
        return Ok(files.table.cwd);
    }
    let Target::Node(node) = files.table.get(fd)?.target else { return Err(ENOTDIR) };
    match files.tree.node(node) {
        Some(found) if found.is_directory() => Ok(node),
        _ => Err(ENOTDIR),
    }
}

impl Process {
    pub(crate) fn sys_open(
        &mut self,
        path: Gva,
        flags: u64,
        mode: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_openat(Fd::CWD, path, flags, mode, mem)
    }

    pub(crate) fn sys_creat(
        &mut self,
        path: Gva,
        mode: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let flags = (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64;
        self.sys_openat(Fd::CWD, path, flags, mode, mem)
    }

    pub(crate) fn sys_umask(&mut self, mask: u64) -> SyscallResult {
        let old = self.files.table.umask;
        self.files.table.umask = (mask & 0o777) as u32;
        Ok(u64::from(old))
    }

    pub(crate) fn sys_openat(
        &mut self,
        fd: Fd,
        path: Gva,
        flags: u64,
        mode: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let path = self.user(mem).read_path(path)?;
        let path = path.as_bytes();
        let flags = flags as i32;
        let creates = flags & libc::O_CREAT != 0;
        let exclusive = creates && flags & libc::O_EXCL != 0;
        if creates && flags & libc::O_DIRECTORY != 0 {
            return Err(EINVAL.into());
        }
        let unnamed = flags & libc::O_TMPFILE == libc::O_TMPFILE;
        if unnamed && flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(EINVAL.into());
        }
        let follow = flags & libc::O_NOFOLLOW == 0 && !exclusive;
        let base = base_directory(&self.files, fd, path)?;
        match self.files.tree.resolve(base, path, follow)? {
            _ if unnamed => {
                let Found::Node(directory) = self.files.tree.resolve(base, path, true)? else {
                    return Err(ENOENT.into());
                };
                self.check_writable_directory(directory)?;
                let node = self.new_file(mode)?;
                self.open_new(node, flags)
            }
            Found::Node(_) | Found::Descriptor(_) if exclusive => Err(EEXIST.into()),
            Found::Node(node) => self.open_node(node, flags),
            Found::Descriptor(number) => {
                match self.files.table.get(number).map_err(|_| ENOENT)?.target {
                    Target::Node(node) => self.open_node(node, flags),
                    target => Ok(self.files.table.open(target, flags)?.into()),
                }
            }
            Found::Missing { .. } if !creates => Err(ENOENT.into()),
            Found::Missing { slash: true, .. } => Err(EISDIR.into()),
            Found::Missing { parent, name, .. } => {
                let name = name.to_vec();
                self.check_writable_directory(parent)?;
                let node = self.new_file(mode)?;
                if let Err(errno) = self.files.tree.link(parent, &name, node) {
                    self.files.tree.free(node);
                    return Err(errno.into());
                }
                let opened = self.open_new(node, flags);
                if opened.is_err() {
                    // No descriptor was free: Linux leaves no file behind either.
                    let _ = self.files.tree.unlink(parent, &name);
                    self.files.tree.free(node);
                }
                opened
            }
        }
    }

    fn new_file(&mut self, mode: u64) -> Result<NodeId, Errno> {
        let mode = mode as u32 & 0o777 & !self.files.table.umask;
        let mut node = Node::new(Kind::File(Bytes::default()), mode, true);
        node.modified_ns = self.wall_clock_ns();
        self.files.tree.add(node)
    }

    /// Opens a file just made, whatever its permission bits say.
    fn open_new(&mut self, node: NodeId, flags: i32) -> SyscallResult {
        let opened = self.files.table.open(Target::Node(node), flags);
        if opened.is_err() {
            self.files.forget(Some(Target::Node(node)));
        }
        Ok(opened?.into())
    }

    pub(crate) fn check_writable_directory(&self, id: NodeId) -> Result<(), Errno> {
        match self.files.tree.node(id) {
            Some(node) if matches!(node.kind, Kind::Directory { .. }) => {
                if node.owned {
                    Ok(())
                } else {
                    Err(EACCES)
                }
            }
            _ => Err(ENOTDIR),
        }
    }

    fn open_node(&mut self, id: NodeId, flags: i32) -> SyscallResult {
        let node = self.files.tree.node(id).ok_or(ENOENT)?;
        let path_only = flags & libc::O_PATH != 0;
        let access = flags & libc::O_ACCMODE;
        let writes = (access != libc::O_RDONLY || flags & libc::O_TRUNC != 0) && !path_only;
        if flags & libc::O_DIRECTORY != 0 && !node.is_directory() {
            return Err(ENOTDIR.into());
        }
        if node.is_directory() && (writes || flags & libc::O_CREAT != 0) && !path_only {
            return Err(EISDIR.into());
        }
        if writes && (!node.owned || node.mode & 0o200 == 0) {
            return Err(EACCES.into());
        }
        match &node.kind {
            _ if path_only => {}
            Kind::Link(_) => return Err(ELOOP.into()),
            Kind::Device(Device::Terminal) => return Err(ENXIO.into()),
            Kind::Proc(what) => {
                let kind = Kind::File(Bytes(self.proc_text(*what)));
                let node = self.files.tree.add(Node::new(kind, 0o444, true))?;
                return self.open_new(node, flags);
            }
            Kind::File(_) if flags & libc::O_TRUNC != 0 => {
                self.files.tree.set_len(id, 0)?;
            }
            Kind::Unread(_) => return Err(ENOENT.into()),
            _ => {}
        }
        Ok(self.files.table.open(Target::Node(id), flags)?.into())
    }

    /// A path argument's node, with `AT_EMPTY_PATH` and `AT_SYMLINK_NOFOLLOW` as in Linux.
    pub(crate) fn locate(
        &self,
        fd: Fd,
        path: Gva,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> Result<Target, crate::linux::sched::stop::SyscallStop> {
        let path = self.user(mem).read_path(path)?;
        Ok(locate(&self.files, fd, path.as_bytes(), flags)?)
    }
}

/// What a path, given with descriptor `fd` and `AT_*` flags, leads to.
pub(crate) fn locate(files: &Files, fd: Fd, path: &[u8], flags: u64) -> Result<Target, Errno> {
    if path.is_empty() && flags & libc::AT_EMPTY_PATH as u64 != 0 {
        return match fd == Fd::CWD {
            true => Ok(Target::Node(files.table.cwd)),
            false => Ok(files.table.get(fd)?.target),
        };
    }
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
    let base = base_directory(files, fd, path)?;
    match files.tree.resolve(base, path, follow)? {
        Found::Node(node) => Ok(Target::Node(node)),
        Found::Descriptor(number) => match files.table.get(number) {
            Ok(open) => Ok(open.target),
            Err(EBADF) => Err(ENOENT),
            Err(errno) => Err(errno),
        },
        Found::Missing { .. } => Err(ENOENT),
    }
}
