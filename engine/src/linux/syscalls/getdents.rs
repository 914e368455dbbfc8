//! `getdents` in both its forms. Never changes a directory.

use crate::address::Gva;
use crate::linux::abi::errno::{EINVAL, ENOTDIR, Errno};
use crate::linux::abi::fd::Fd;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::{Kind, NodeId};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;
use std::borrow::Cow;

/// A directory's entries: name, and node if there is one.
type Entries<'a> = Box<dyn Iterator<Item = (Cow<'a, [u8]>, Option<NodeId>)> + 'a>;

/// How an entry is laid out (`struct linux_dirent64`, `struct linux_dirent`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Inode, offset, length, type, name.
    New,
    /// Inode, offset, length, name, and the type in the last byte.
    Old,
}

/// The longest entry: its fixed part, a name, its NUL, and padding.
const ENTRY_BYTES_MAX: usize = 19 + 255 + 1 + 8;

/// One directory entry.
struct Entry<'a> {
    name: &'a [u8],
    inode: u64,
    kind: u8,
    /// Where the next one is.
    next: u64,
}

impl Entry<'_> {
    /// The entry as bytes, and how many.
    fn lay_out(&self, layout: Layout) -> Option<([u8; ENTRY_BYTES_MAX], usize)> {
        let name_at = if layout == Layout::New { 19 } else { 18 };
        let end = name_at + self.name.len();
        let len = (end + if layout == Layout::New { 1 } else { 2 }).next_multiple_of(8);
        let mut bytes = [0; ENTRY_BYTES_MAX];
        bytes[..8].copy_from_slice(&self.inode.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.next.to_le_bytes());
        bytes[16..18].copy_from_slice(&u16::try_from(len).ok()?.to_le_bytes());
        // Stored trees may hold longer names than the guest could ever have made.
        bytes.get_mut(name_at..end)?.copy_from_slice(self.name);
        let kind_at = if layout == Layout::New { 18 } else { len - 1 };
        *bytes.get_mut(kind_at)? = self.kind;
        (len <= ENTRY_BYTES_MAX).then_some((bytes, len))
    }
}

impl Process {
    pub(crate) fn sys_getdents64(
        &mut self,
        fd: Fd,
        out: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.read_directory(fd, out, len, Layout::New, mem)
    }

    pub(crate) fn sys_getdents(
        &mut self,
        fd: Fd,
        out: Gva,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.read_directory(fd, out, len, Layout::Old, mem)
    }

    fn read_directory(
        &mut self,
        fd: Fd,
        out: Gva,
        len: u64,
        layout: Layout,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let open = *self.files.table.get_usable(fd)?;
        let Target::Node(id) = open.target else { return Err(ENOTDIR.into()) };
        if self.files.tree.node(id).is_some_and(|node| node.partial) {
            self.note_listing(id);
        }
        let skip = usize::try_from(open.offset).unwrap_or(usize::MAX);
        let mut position = open.offset;
        let mut done: u64 = 0;
        for (name, child) in self.entries(id)?.skip(skip) {
            let kind = self.entry_kind(child);
            let entry = Entry { name: &name, inode: inode(child), kind, next: position + 1 };
            let Some((bytes, bytes_len)) = entry.lay_out(layout) else {
                return Err(EINVAL.into());
            };
            if done + bytes_len as u64 > u64::from(len as u32) {
                if done == 0 {
                    return Err(EINVAL.into());
                }
                break;
            }
            let bytes = bytes.get(..bytes_len).unwrap_or_default();
            self.user(mem).write(out.wrapping_add(done), bytes)?;
            done += bytes_len as u64;
            position += 1;
        }
        if done > 0 {
            self.files.table.get_mut(fd)?.offset = position;
        }
        Ok(done)
    }

    /// A directory's entries by name; an open descriptor's has no node.
    fn entries(&self, id: NodeId) -> Result<Entries<'_>, Errno> {
        let dots = |parent| {
            let dots = [(&b"."[..], id), (&b".."[..], parent)];
            dots.into_iter().map(|(name, id)| (Cow::Borrowed(name), Some(id)))
        };
        match &self.files.tree.node(id).ok_or(ENOTDIR)?.kind {
            Kind::Directory { entries, parent } => {
                let named =
                    entries.iter().map(|(name, child)| (Cow::Borrowed(&name[..]), Some(*child)));
                Ok(Box::new(dots(*parent).chain(named)))
            }
            Kind::Descriptors => {
                let numbers = self.files.table.numbers();
                let named =
                    numbers.map(|number| (Cow::Owned(number.to_string().into_bytes()), None));
                Ok(Box::new(dots(id).chain(named)))
            }
            _ => Err(ENOTDIR),
        }
    }

    fn entry_kind(&self, child: Option<NodeId>) -> u8 {
        let Some(child) = child else { return libc::DT_LNK };
        match self.files.tree.node(child).map(|node| &node.kind) {
            Some(Kind::Directory { .. } | Kind::Descriptors) => libc::DT_DIR,
            Some(Kind::Link(_)) => libc::DT_LNK,
            Some(Kind::Device(_)) => libc::DT_CHR,
            _ => libc::DT_REG,
        }
    }
}

fn inode(child: Option<NodeId>) -> u64 {
    child.map_or(3 << 32, |child| u64::from(child.0) + 1)
}
