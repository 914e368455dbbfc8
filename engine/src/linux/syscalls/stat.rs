//! What a file is: `stat` in all its forms, `statfs` and `access`.

use crate::address::Gva;
use crate::linux::abi::errno::{EACCES, EINVAL, ENOENT, Errno};
use crate::linux::abi::fd::Fd;
use crate::linux::abi::ids::USER_ID;
use crate::linux::fs::files::Files;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::{BOOT_NS, Device, Kind, NodeId};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::{SyscallResult, SyscallStop};

/// Bytes of `struct stat` of x86-64.
pub(crate) const STAT_BYTES: usize = 144;
/// Bytes of `struct statx`.
const STATX_BYTES: usize = 256;

/// What `stat` and `statx` tell of one file, as they lay it out.
pub(crate) struct StatBytes {
    pub(crate) stat: [u8; STAT_BYTES],
    pub(crate) statx: [u8; STATX_BYTES],
}

/// What `stat` tells.
struct Attributes {
    inode: u64,
    mode: u32,
    links: u64,
    owner: u32,
    size: u64,
    device: (u32, u32),
    modified_ns: u64,
}

/// Flags of the `stat` calls that change nothing here.
const IGNORED: u64 = (libc::AT_NO_AUTOMOUNT | libc::AT_STATX_SYNC_TYPE) as u64;

fn attributes_of(files: &Files, target: Target) -> Result<Attributes, Errno> {
    let pipe = |inode| Attributes {
        inode,
        mode: libc::S_IFIFO | 0o600,
        links: 1,
        owner: USER_ID,
        size: 0,
        device: (0, 0),
        modified_ns: BOOT_NS,
    };
    let id = match target {
        Target::Node(id) => id,
        // Pipes, as when a shell captures the output: stdio then buffers fully.
        Target::Stdout => return Ok(pipe(1 << 32)),
        Target::Stderr => return Ok(pipe((1 << 32) + 1)),
        Target::PipeReader(index) | Target::PipeWriter(index) => {
            return Ok(pipe((2 << 32) + u64::from(index)));
        }
        // No type of file (fs/anon_inodes.c).
        Target::Event(_) | Target::Watch(_) => {
            return Ok(Attributes { mode: 0o600, ..pipe(4 << 32) });
        }
    };
    let node = files.tree.node(id).ok_or(ENOENT)?;
    let (kind, size, device) = match &node.kind {
        Kind::Directory { .. } | Kind::Descriptors => (libc::S_IFDIR, 4096, (0, 0)),
        Kind::Image(_) | Kind::File(_) | Kind::Input => {
            (libc::S_IFREG, files.content(id).len() as u64, (0, 0))
        }
        Kind::Proc(_) => (libc::S_IFREG, 0, (0, 0)),
        Kind::Unread(size) => (libc::S_IFREG, *size, (0, 0)),
        Kind::Link(target) => (libc::S_IFLNK, target.len() as u64, (0, 0)),
        Kind::Device(device) => {
            let number = match device {
                Device::Null => (1, 3),
                Device::Zero => (1, 5),
                Device::Full => (1, 7),
                Device::Random => (1, 9),
                Device::Terminal => (5, 0),
            };
            (libc::S_IFCHR, 0, number)
        }
    };
    // The engine's own hold on the input is no link, but stands for the file's name where it comes
    // by standard input.
    let links = match node.links {
        held @ 2.. if id == NodeId::INPUT => held - 1,
        links => links,
    };
    Ok(Attributes {
        inode: u64::from(id.0) + 1,
        mode: kind | node.mode,
        links: u64::from(links.max(u32::from(node.is_directory()) * 2)),
        owner: if node.owned { USER_ID } else { 0 },
        size,
        device,
        modified_ns: node.modified_ns,
    })
}

impl Attributes {
    fn modified(&self) -> (u64, u64) {
        (self.modified_ns / 1_000_000_000, self.modified_ns % 1_000_000_000)
    }

    /// Whole pages, in blocks of 512 bytes, as a tmpfs counts them, and the agent's shim.
    fn blocks(&self) -> u64 {
        self.size.div_ceil(4096) * 8
    }

    /// `struct stat` of x86-64.
    fn stat(&self) -> [u8; STAT_BYTES] {
        let (seconds, ns) = self.modified();
        let device = u64::from(self.device.0) << 8 | u64::from(self.device.1);
        let words = [
            1,
            self.inode,
            self.links,
            u64::from(self.mode) | u64::from(self.owner) << 32,
            u64::from(self.owner),
            device,
            self.size,
            4096,
            self.blocks(),
            seconds,
            ns,
            seconds,
            ns,
            seconds,
            ns,
        ];
        let mut bytes = [0; STAT_BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `struct statx`.
    fn statx(&self) -> [u8; STATX_BYTES] {
        let (seconds, ns) = self.modified();
        let pair = |low: u64, high: u64| low | high << 32;
        let words = [
            pair(u64::from(libc::STATX_BASIC_STATS), 4096),
            0,
            pair(self.links, u64::from(self.owner)),
            pair(u64::from(self.owner), u64::from(self.mode)),
            self.inode,
            self.size,
            self.blocks(),
            0,
            seconds,
            ns,
            0,
            0,
            seconds,
            ns,
            seconds,
            ns,
            pair(u64::from(self.device.0), u64::from(self.device.1)),
            pair(0, 1),
        ];
        let mut bytes = [0; STATX_BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

impl Process {
    /// The guest's wall clock, in nanoseconds since 1970.
    pub(crate) fn wall_clock_ns(&self) -> u64 {
        BOOT_NS.saturating_add(self.scalars.clock_ns)
    }

    /// `struct stat` and `struct statx` of the input, of standard output and of standard error.
    /// None of them where the input has no node any more.
    pub(crate) fn told_by_the_shim(&self) -> Option<[StatBytes; 3]> {
        let targets = [Target::Node(NodeId::INPUT), Target::Stdout, Target::Stderr];
        let told = targets.map(|target| attributes_of(&self.files, target).ok());
        let [Some(input), Some(stdout), Some(stderr)] = told else { return None };
        let bytes = |attributes: Attributes| StatBytes {
            stat: attributes.stat(),
            statx: attributes.statx(),
        };
        Some([input, stdout, stderr].map(bytes))
    }

    /// What is at a path, for the calls that take a descriptor, a path and flags.
    fn facts_at(
        &mut self,
        fd: Fd,
        path: Gva,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> Result<Attributes, SyscallStop> {
        let known = (libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) as u64 | IGNORED;
        if flags & !known != 0 {
            return Err(EINVAL.into());
        }
        let target = self.locate(fd, path, flags, mem)?;
        Ok(attributes_of(&self.files, target)?)
    }

    pub(crate) fn sys_stat(
        &mut self,
        path: Gva,
        out: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_newfstatat(Fd::CWD, path, out, 0, mem)
    }

    pub(crate) fn sys_lstat(
        &mut self,
        path: Gva,
        out: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_newfstatat(Fd::CWD, path, out, libc::AT_SYMLINK_NOFOLLOW as u64, mem)
    }

    pub(crate) fn sys_newfstatat(
        &mut self,
        fd: Fd,
        path: Gva,
        out: Gva,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let stat = self.facts_at(fd, path, flags, mem)?.stat();
        self.user(mem).write(out, &stat)?;
        Ok(0)
    }

    pub(crate) fn sys_fstat(
        &mut self,
        fd: Fd,
        out: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let target = self.files.table.get(fd)?.target;
        let stat = attributes_of(&self.files, target)?.stat();
        self.user(mem).write(out, &stat)?;
        Ok(0)
    }

    pub(crate) fn sys_statx(
        &mut self,
        fd: Fd,
        path: Gva,
        flags: u64,
        out: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let statx = self.facts_at(fd, path, flags, mem)?.statx();
        self.user(mem).write(out, &statx)?;
        Ok(0)
    }

    pub(crate) fn sys_statfs(
        &mut self,
        path: Gva,
        out: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.locate(Fd::CWD, path, 0, mem)?;
        self.statfs(out, mem)
    }

    pub(crate) fn sys_fstatfs(
        &mut self,
        fd: Fd,
        out: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.files.table.get(fd)?;
        self.statfs(out, mem)
    }

    /// A file system in memory, always with the same room.
    fn statfs(&mut self, out: Gva, mem: &mut dyn UserMemory) -> SyscallResult {
        let tmpfs = 0x0102_1994;
        let words = [tmpfs, 4096, 1 << 16, 1 << 15, 1 << 15, 1 << 16, 1 << 15, 0, 255, 4096];
        let mut bytes = [0; 120];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words.map(u64::to_le_bytes)) {
            to.copy_from_slice(&word);
        }
        self.user(mem).write(out, &bytes)?;
        Ok(0)
    }

    pub(crate) fn sys_access(
        &mut self,
        path: Gva,
        mode: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_faccessat2(Fd::CWD, path, mode, 0, mem)
    }

    pub(crate) fn sys_faccessat(
        &mut self,
        fd: Fd,
        path: Gva,
        mode: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_faccessat2(fd, path, mode, 0, mem)
    }

    pub(crate) fn sys_faccessat2(
        &mut self,
        fd: Fd,
        path: Gva,
        mode: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let known = (libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_EACCESS) as u64;
        if mode & !7 != 0 || flags & !known != 0 {
            return Err(EINVAL.into());
        }
        let Target::Node(id) = self.locate(fd, path, flags, mem)? else { return Ok(0) };
        let node = self.files.tree.node(id).ok_or(ENOENT)?;
        let shift = if node.owned { 6 } else { 0 };
        let granted = u64::from(node.mode >> shift & 7);
        if mode & !granted == 0 { Ok(0) } else { Err(EACCES.into()) }
    }
}
