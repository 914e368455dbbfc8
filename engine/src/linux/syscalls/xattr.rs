//! What a file has besides its name and its bytes: owner, mode, times and extended attributes,
//! checked as a tmpfs of Linux 6.1 does, which keeps no attribute of a user's.

use crate::address::Gva;
use crate::linux::abi::errno::{EACCES, ENODATA, ENOENT, EOPNOTSUPP, EPERM, Errno};
use crate::linux::abi::fd::Fd;
use crate::linux::abi::ids::USER_ID;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::NodeId;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};

/// What an attribute call is about: what a path leads to, what lies there itself, what is open.
#[derive(Clone, Copy, Debug)]
enum Of {
    Path(Gva),
    Link(Gva),
    Descriptor(Fd),
}

/// Why a name has no value that could be read.
fn absent(name: &[u8]) -> Errno {
    let kept = [&b"security."[..], b"trusted.", b"system.posix_acl_"];
    if kept.iter().any(|prefix| name.starts_with(prefix)) { ENODATA } else { EOPNOTSUPP }
}

impl Process {
    fn attribute_target(&self, of: Of, mem: &mut dyn UserMemory) -> Result<Target, SyscallStop> {
        match of {
            Of::Path(at) => self.locate(Fd::CWD, at, 0, mem),
            Of::Link(at) => self.locate(Fd::CWD, at, libc::AT_SYMLINK_NOFOLLOW as u64, mem),
            Of::Descriptor(fd) => Ok(self.files.table.get_usable(fd)?.target),
        }
    }

    /// Why what is there has no attribute of the name at `name`.
    fn absence(&self, of: Of, name: Gva, mem: &mut dyn UserMemory) -> Result<Errno, SyscallStop> {
        let name = self.user(mem).read_path(name)?;
        self.attribute_target(of, mem)?;
        Ok(absent(name.as_bytes()))
    }

    fn get_attribute(&self, of: Of, name: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        Err(self.absence(of, name, mem)?.into())
    }

    fn list_attributes(&self, of: Of, mem: &mut dyn UserMemory) -> SyscallResult {
        self.attribute_target(of, mem)?;
        Ok(0)
    }

    /// `setxattr` and `removexattr`.
    fn set_attribute(&self, of: Of, name: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        let errno = self.absence(of, name, mem)?;
        Err(if errno == ENODATA { EPERM } else { errno }.into())
    }

    pub(crate) fn sys_getxattr(
        &mut self,
        path: Gva,
        name: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.get_attribute(Of::Path(path), name, mem)
    }

    pub(crate) fn sys_lgetxattr(
        &mut self,
        path: Gva,
        name: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.get_attribute(Of::Link(path), name, mem)
    }

    pub(crate) fn sys_fgetxattr(
        &mut self,
        fd: Fd,
        name: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.get_attribute(Of::Descriptor(fd), name, mem)
    }

    pub(crate) fn sys_listxattr(&mut self, path: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        self.list_attributes(Of::Path(path), mem)
    }

    pub(crate) fn sys_llistxattr(&mut self, path: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        self.list_attributes(Of::Link(path), mem)
    }

    pub(crate) fn sys_flistxattr(&mut self, fd: Fd, mem: &mut dyn UserMemory) -> SyscallResult {
        self.list_attributes(Of::Descriptor(fd), mem)
    }

    pub(crate) fn sys_setxattr(
        &mut self,
        path: Gva,
        name: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.set_attribute(Of::Path(path), name, mem)
    }

    pub(crate) fn sys_lsetxattr(
        &mut self,
        path: Gva,
        name: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.set_attribute(Of::Link(path), name, mem)
    }

    pub(crate) fn sys_fsetxattr(
        &mut self,
        fd: Fd,
        name: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.set_attribute(Of::Descriptor(fd), name, mem)
    }

    pub(crate) fn sys_removexattr(
        &mut self,
        path: Gva,
        name: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.set_attribute(Of::Path(path), name, mem)
    }

    pub(crate) fn sys_lremovexattr(
        &mut self,
        path: Gva,
        name: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.set_attribute(Of::Link(path), name, mem)
    }

    pub(crate) fn sys_fremovexattr(
        &mut self,
        fd: Fd,
        name: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.set_attribute(Of::Descriptor(fd), name, mem)
    }

    pub(crate) fn sys_chown(
        &mut self,
        path: Gva,
        owner: u64,
        group: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_fchownat(Fd::CWD, path, owner, group, 0, mem)
    }

    pub(crate) fn sys_lchown(
        &mut self,
        path: Gva,
        owner: u64,
        group: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let flags = libc::AT_SYMLINK_NOFOLLOW as u64;
        self.sys_fchownat(Fd::CWD, path, owner, group, flags, mem)
    }

    pub(crate) fn sys_chmod(
        &mut self,
        path: Gva,
        mode: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_fchmodat(Fd::CWD, path, mode, mem)
    }

    /// `chown` in all its forms: the guest's user may give nothing away.
    pub(crate) fn sys_fchownat(
        &mut self,
        fd: Fd,
        path: Gva,
        owner: u64,
        group: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let target = self.locate(fd, path, flags, mem)?;
        self.own(target, owner, group)
    }

    pub(crate) fn sys_fchown(&mut self, fd: Fd, owner: u64, group: u64) -> SyscallResult {
        let target = self.files.table.get_usable(fd)?.target;
        self.own(target, owner, group)
    }

    fn own(&self, target: Target, owner: u64, group: u64) -> SyscallResult {
        let keeps = |id: u64| matches!(id as u32, USER_ID | u32::MAX);
        let owned = match target {
            Target::Node(id) => self.files.tree.node(id).ok_or(ENOENT)?.owned,
            _ => true,
        };
        let changes_nothing = owner as u32 == u32::MAX && group as u32 == u32::MAX;
        if keeps(owner) && keeps(group) && (owned || changes_nothing) {
            Ok(0)
        } else {
            Err(EPERM.into())
        }
    }

    pub(crate) fn sys_fchmodat(
        &mut self,
        fd: Fd,
        path: Gva,
        mode: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let target = self.locate(fd, path, 0, mem)?;
        self.set_mode(target, mode)
    }

    pub(crate) fn sys_fchmod(&mut self, fd: Fd, mode: u64) -> SyscallResult {
        let target = self.files.table.get_usable(fd)?.target;
        self.set_mode(target, mode)
    }

    fn set_mode(&mut self, target: Target, mode: u64) -> SyscallResult {
        let Target::Node(id) = target else { return Ok(0) };
        self.check_owned(id).map_err(|_| EPERM)?;
        if let Some(node) = self.files.tree.node_mut(id) {
            node.mode = mode as u32 & 0o7777;
        }
        Ok(0)
    }

    /// `utimensat`: whatever time is asked for, the guest's clock decides.
    pub(crate) fn sys_utimensat(
        &mut self,
        fd: Fd,
        path: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let target = match path {
            Gva::NULL => self.files.table.get(fd)?.target,
            path => self.locate(fd, path, 0, mem)?,
        };
        let Target::Node(id) = target else { return Ok(0) };
        self.check_owned(id)?;
        let now = self.wall_clock_ns();
        if let Some(node) = self.files.tree.node_mut(id) {
            node.modified_ns = now;
        }
        Ok(0)
    }

    /// Whether the guest's user owns a node.
    pub(crate) fn check_owned(&self, id: NodeId) -> Result<(), Errno> {
        if self.files.tree.node(id).is_some_and(|node| node.owned) { Ok(()) } else { Err(EACCES) }
    }
}
