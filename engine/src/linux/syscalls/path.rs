//! Calls that walk and change the tree of files.

use crate::address::Gva;
use crate::linux::abi::errno::{
    EBUSY, EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, EPERM, ERANGE, Errno,
};
use crate::linux::abi::fd::Fd;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::{Found, Kind, Node, NodeId};
use crate::linux::mm::uaccess::PathBuffer;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};
use crate::linux::syscalls::open::base_directory;
use std::collections::BTreeMap;

/// A name in a directory, present or not.
struct DirectorySlot {
    parent: NodeId,
    name: Vec<u8>,
    node: Option<NodeId>,
    slash: bool,
}

/// Whether a path ended in `.`, `..` or the root.
fn has_no_name(stop: &SyscallStop) -> bool {
    matches!(stop, SyscallStop::Errno(EBUSY | EINVAL | ENOTEMPTY))
}

impl Process {
    /// Splits a path at its last name without following a link there. The names that stand for
    /// no entry of their own fail as `rmdir` does; see [`has_no_name`].
    fn slot_of(&self, fd: Fd, path: &PathBuffer) -> Result<DirectorySlot, Errno> {
        let path = path.as_bytes();
        let base = base_directory(&self.files, fd, path)?;
        let slash = path.last() == Some(&b'/');
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let trimmed = path.get(..end).unwrap_or_default();
        let found = self.files.tree.resolve(base, if end == 0 { path } else { trimmed }, false)?;
        let name_at = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let name = trimmed.get(name_at..).unwrap_or_default();
        if let Found::Missing { parent, name, .. } = found {
            return Ok(DirectorySlot { parent, name: name.to_vec(), node: None, slash });
        }
        let Found::Node(node) = found else { return Err(EPERM) };
        match name {
            b"" => return Err(EBUSY),
            b"." => return Err(EINVAL),
            b".." => return Err(ENOTEMPTY),
            _ => {}
        }
        let head = trimmed.get(..name_at).unwrap_or_default();
        let parent = match head {
            b"" => base,
            head => match self.files.tree.resolve(base, head, true)? {
                Found::Node(parent) => parent,
                _ => return Err(ENOENT),
            },
        };
        Ok(DirectorySlot { parent, name: name.to_vec(), node: Some(node), slash })
    }

    fn read_slot(
        &self,
        fd: Fd,
        path: Gva,
        mem: &mut dyn UserMemory,
    ) -> Result<DirectorySlot, SyscallStop> {
        let path = self.user(mem).read_path(path)?;
        Ok(self.slot_of(fd, &path)?)
    }

    pub(crate) fn sys_readlink(
        &mut self,
        path: Gva,
        out: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_readlinkat(Fd::CWD, path, out, len, mem)
    }

    pub(crate) fn sys_mkdir(
        &mut self,
        path: Gva,
        mode: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_mkdirat(Fd::CWD, path, mode, mem)
    }

    pub(crate) fn sys_unlink(&mut self, path: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        self.sys_unlinkat(Fd::CWD, path, 0, mem)
    }

    pub(crate) fn sys_rmdir(&mut self, path: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        self.sys_unlinkat(Fd::CWD, path, libc::AT_REMOVEDIR as u64, mem)
    }

    pub(crate) fn sys_rename(
        &mut self,
        old: Gva,
        new: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_renameat2(Fd::CWD, old, Fd::CWD, new, 0, mem)
    }

    pub(crate) fn sys_renameat(
        &mut self,
        old_fd: Fd,
        old: Gva,
        new_fd: Fd,
        new: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_renameat2(old_fd, old, new_fd, new, 0, mem)
    }

    pub(crate) fn sys_symlink(
        &mut self,
        text: Gva,
        path: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_symlinkat(text, Fd::CWD, path, mem)
    }

    pub(crate) fn sys_link(
        &mut self,
        old: Gva,
        new: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_linkat(Fd::CWD, old, Fd::CWD, new, 0, mem)
    }

    /// Copies `text` out, cut to `len` bytes, without a NUL.
    pub(crate) fn sys_readlinkat(
        &mut self,
        fd: Fd,
        path: Gva,
        out: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let path = self.user(mem).read_path(path)?;
        let path = path.as_bytes();
        if len as i32 <= 0 {
            return Err(EINVAL.into());
        }
        let found = match (path, self.files.table.get(fd)) {
            // A link that was opened itself.
            ([], Ok(open)) if open.is_path_only() => match open.target {
                Target::Node(id) if !self.is_directory(id) => Found::Node(id),
                _ => return Err(ENOENT.into()),
            },
            _ => {
                let base = base_directory(&self.files, fd, path)?;
                self.files.tree.resolve(base, path, false)?
            }
        };
        let generated;
        let text = match found {
            Found::Node(id) => match self.files.tree.node(id).map(|node| &node.kind) {
                Some(Kind::Link(target)) => &target[..],
                _ => return Err(EINVAL.into()),
            },
            Found::Descriptor(number) => {
                generated = match self.files.table.get(number).map_err(|_| ENOENT)?.target {
                    Target::Node(id) => {
                        self.files.tree.path_of(id).unwrap_or_else(|| b"/ (deleted)".to_vec())
                    }
                    Target::Event(_) => b"anon_inode:[eventfd]".to_vec(),
                    Target::Watch(_) => b"anon_inode:[eventpoll]".to_vec(),
                    _ => format!("pipe:[{number}]").into_bytes(),
                };
                &generated[..]
            }
            Found::Missing { .. } => return Err(ENOENT.into()),
        };
        let text = text.get(..text.len().min(len as usize)).unwrap_or_default();
        self.user(mem).write(out, text)?;
        Ok(text.len() as u64)
    }

    pub(crate) fn sys_getcwd(
        &mut self,
        out: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let mut path = self.files.tree.path_of(self.files.table.cwd).ok_or(ENOENT)?;
        path.push(0);
        if (path.len() as u64) > len {
            return Err(ERANGE.into());
        }
        self.user(mem).write(out, &path)?;
        Ok(path.len() as u64)
    }

    pub(crate) fn sys_chdir(&mut self, path: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        let target = self.locate(Fd::CWD, path, 0, mem)?;
        self.enter(target)
    }

    pub(crate) fn sys_fchdir(&mut self, fd: Fd) -> SyscallResult {
        let target = self.files.table.get(fd)?.target;
        self.enter(target)
    }

    fn enter(&mut self, target: Target) -> SyscallResult {
        let Target::Node(id) = target else { return Err(ENOTDIR.into()) };
        match self.files.tree.node(id).map(|node| &node.kind) {
            Some(Kind::Directory { .. }) => {
                self.files.table.cwd = id;
                Ok(0)
            }
            _ => Err(ENOTDIR.into()),
        }
    }

    pub(crate) fn sys_mkdirat(
        &mut self,
        fd: Fd,
        path: Gva,
        mode: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let place = match self.read_slot(fd, path, mem) {
            Err(stop) if has_no_name(&stop) => return Err(EEXIST.into()),
            place => place?,
        };
        if place.node.is_some() {
            return Err(EEXIST.into());
        }
        let mode = mode as u32 & 0o777 & !self.files.table.umask;
        let kind = Kind::Directory { entries: BTreeMap::new(), parent: place.parent };
        self.enter_node(&place, Node::new(kind, mode, true))
    }

    pub(crate) fn sys_symlinkat(
        &mut self,
        text: Gva,
        fd: Fd,
        path: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let text = self.user(mem).read_path(text)?;
        if text.as_bytes().is_empty() {
            return Err(ENOENT.into());
        }
        let place = match self.read_slot(fd, path, mem) {
            Err(stop) if has_no_name(&stop) => return Err(EEXIST.into()),
            place => place?,
        };
        if place.node.is_some() {
            return Err(EEXIST.into());
        }
        if place.slash {
            return Err(ENOENT.into());
        }
        self.enter_node(&place, Node::new(Kind::Link(text.as_bytes().to_vec()), 0o777, true))
    }

    pub(crate) fn sys_linkat(
        &mut self,
        old_fd: Fd,
        old: Gva,
        new_fd: Fd,
        new: Gva,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let (follow, empty) = (libc::AT_SYMLINK_FOLLOW as u64, libc::AT_EMPTY_PATH as u64);
        if flags & !(follow | empty) != 0 {
            return Err(EINVAL.into());
        }
        let no_follow = if flags & follow == 0 { libc::AT_SYMLINK_NOFOLLOW as u64 } else { 0 };
        let target = self.locate(old_fd, old, flags & empty | no_follow, mem)?;
        let place = match self.read_slot(new_fd, new, mem) {
            Err(stop) if has_no_name(&stop) => return Err(EEXIST.into()),
            place => place?,
        };
        if place.node.is_some() {
            return Err(EEXIST.into());
        }
        let Target::Node(id) = target else { return Err(EPERM.into()) };
        if place.slash {
            return Err(ENOENT.into());
        }
        self.check_writable_directory(place.parent)?;
        if self.is_directory(id) || self.check_owned(id).is_err() {
            return Err(EPERM.into());
        }
        self.files.tree.link(place.parent, &place.name, id)?;
        Ok(0)
    }

    /// Adds a new node at a free place.
    fn enter_node(&mut self, place: &DirectorySlot, mut node: Node) -> SyscallResult {
        self.check_writable_directory(place.parent)?;
        node.modified_ns = self.wall_clock_ns();
        let id = self.files.tree.add(node)?;
        if let Err(errno) = self.files.tree.link(place.parent, &place.name, id) {
            self.files.tree.free(id);
            return Err(errno.into());
        }
        Ok(0)
    }

    /// Whether a directory has no entries.
    fn is_empty_directory(&self, id: NodeId) -> bool {
        match self.files.tree.node(id).map(|node| &node.kind) {
            Some(Kind::Directory { entries, .. }) => entries.is_empty(),
            _ => false,
        }
    }

    fn is_directory(&self, id: NodeId) -> bool {
        self.files.tree.node(id).is_some_and(Node::is_directory)
    }

    pub(crate) fn sys_unlinkat(
        &mut self,
        fd: Fd,
        path: Gva,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let wants_directory = flags == libc::AT_REMOVEDIR as u64;
        if flags != 0 && !wants_directory {
            return Err(EINVAL.into());
        }
        let place = match self.read_slot(fd, path, mem) {
            Err(stop) if has_no_name(&stop) && !wants_directory => return Err(EISDIR.into()),
            place => place?,
        };
        let node = place.node.ok_or(ENOENT)?;
        self.check_writable_directory(place.parent)?;
        match (self.is_directory(node), wants_directory) {
            (true, false) => return Err(EISDIR.into()),
            (false, true) => return Err(ENOTDIR.into()),
            (false, false) if place.slash => return Err(ENOTDIR.into()),
            (true, true) if !self.is_empty_directory(node) => return Err(ENOTEMPTY.into()),
            // A directory that a path may still start in; Linux would keep it as a ghost.
            (true, true) if self.files.table.cwd == node => return Err(EBUSY.into()),
            _ => {}
        }
        self.files.tree.unlink(place.parent, &place.name)?;
        self.files.forget(Some(Target::Node(node)));
        Ok(0)
    }

    pub(crate) fn sys_renameat2(
        &mut self,
        old_fd: Fd,
        old: Gva,
        new_fd: Fd,
        new: Gva,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if flags & !u64::from(libc::RENAME_NOREPLACE) != 0 {
            return Err(EINVAL.into());
        }
        let busy = |stop| if has_no_name(&stop) { EBUSY.into() } else { stop };
        let from = self.read_slot(old_fd, old, mem).map_err(busy)?;
        let to = self.read_slot(new_fd, new, mem).map_err(busy)?;
        let node = from.node.ok_or(ENOENT)?;
        self.check_writable_directory(from.parent)?;
        self.check_writable_directory(to.parent)?;
        let is_directory = self.is_directory(node);
        if !is_directory && (from.slash || to.slash) {
            return Err(ENOTDIR.into());
        }
        if is_directory && self.is_within(to.parent, node) {
            return Err(EINVAL.into());
        }
        if let Some(present) = to.node {
            if flags != 0 {
                return Err(EEXIST.into());
            }
            if present == node {
                return Ok(0);
            }
            match (is_directory, self.is_directory(present)) {
                (true, false) => return Err(ENOTDIR.into()),
                (false, true) => return Err(EISDIR.into()),
                (true, true) if !self.is_empty_directory(present) => {
                    return Err(ENOTEMPTY.into());
                }
                _ => {}
            }
            self.files.tree.unlink(to.parent, &to.name)?;
            self.files.forget(Some(Target::Node(present)));
        }
        self.files.tree.unlink(from.parent, &from.name)?;
        self.files.tree.link(to.parent, &to.name, node)?;
        Ok(0)
    }

    /// Whether `inner` is `outer` or lies below it.
    fn is_within(&self, inner: NodeId, outer: NodeId) -> bool {
        let mut here = inner;
        // Stored trees may contain loops: no chain is longer than this.
        for _ in 0..crate::linux::mm::uaccess::PATH_MAX {
            if here == outer {
                return true;
            }
            match self.files.tree.node(here).map(|node| &node.kind) {
                Some(Kind::Directory { parent, .. }) if *parent != here => here = *parent,
                _ => return false,
            }
        }
        true
    }

    pub(crate) fn sys_truncate(
        &mut self,
        path: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if len > i64::MAX as u64 {
            return Err(EINVAL.into());
        }
        let target = self.locate(Fd::CWD, path, 0, mem)?;
        let Target::Node(id) = target else { return Err(EINVAL.into()) };
        self.check_owned(id)?;
        self.files.tree.set_len(id, len)?;
        Ok(0)
    }
}
