//! What a file has besides its name and its bytes: owner, mode, times and extended attributes,
//! checked as a tmpfs of Linux 6.1 does, which keeps no attribute of a user's.

use crate::linux::abi::errno::{EACCES, ENODATA, ENOENT, EOPNOTSUPP, EPERM, Errno};
use crate::linux::abi::ids::USER_ID;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::NodeId;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};

/// What an attribute call is about: what a path leads to, what lies there itself, what is open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    Path(u64),
    Link(u64),
    Descriptor(u64),
}

/// Why a name has no value that could be read.
fn absent(name: &[u8]) -> Errno {
    let kept = [&b"security."[..], b"trusted.", b"system.posix_acl_"];
    if kept.iter().any(|prefix| name.starts_with(prefix)) { ENODATA } else { EOPNOTSUPP }
}

impl Process {
    fn attribute_target(&self, of: Of, mem: &mut dyn UserMemory) -> Result<Target, SyscallStop> {
        match of {
            Of::Path(at) => self.locate(crate::linux::abi::syscall::AT_FDCWD, at, 0, mem),
            Of::Link(at) => self.locate(
                crate::linux::abi::syscall::AT_FDCWD,
                at,
                libc::AT_SYMLINK_NOFOLLOW as u64,
                mem,
            ),
            Of::Descriptor(fd) => Ok(self.files.table.get_usable(fd)?.target),
        }
    }

    /// Why what is there has no attribute of the name at `name`.
    fn absence(&self, of: Of, name: u64, mem: &mut dyn UserMemory) -> Result<Errno, SyscallStop> {
        let name = self.user(mem).read_path(name)?;
        self.attribute_target(of, mem)?;
        Ok(absent(name.as_bytes()))
    }

    pub(crate) fn get_attribute(
        &self,
        of: Of,
        name: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        Err(self.absence(of, name, mem)?.into())
    }

    pub(crate) fn list_attributes(&self, of: Of, mem: &mut dyn UserMemory) -> SyscallResult {
        self.attribute_target(of, mem)?;
        Ok(0)
    }

    /// `setxattr` and `removexattr`.
    pub(crate) fn set_attribute(
        &self,
        of: Of,
        name: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let errno = self.absence(of, name, mem)?;
        Err(if errno == ENODATA { EPERM } else { errno }.into())
    }

    /// `chown` in all its forms: the guest's user may give nothing away.
    pub(crate) fn change_owner(
        &mut self,
        fd: u64,
        path: u64,
        owner: u64,
        group: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let target = self.locate(fd, path, flags, mem)?;
        self.own(target, owner, group)
    }

    pub(crate) fn change_owner_open(&mut self, fd: u64, owner: u64, group: u64) -> SyscallResult {
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

    pub(crate) fn change_mode(
        &mut self,
        fd: u64,
        path: u64,
        mode: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let target = self.locate(fd, path, 0, mem)?;
        self.set_mode(target, mode)
    }

    pub(crate) fn change_mode_open(&mut self, fd: u64, mode: u64) -> SyscallResult {
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
    pub(crate) fn touch(&mut self, fd: u64, path: u64, mem: &mut dyn UserMemory) -> SyscallResult {
        let target = match path {
            0 => self.files.table.get(fd)?.target,
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
