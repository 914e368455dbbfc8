//! `mmap` and its relatives: arguments checked as Linux does. Never touches page tables itself.

use super::super::Process;
use super::super::errno::{
    Answer, EACCES, EBADF, EEXIST, EINVAL, ENODEV, ENOMEM, EOVERFLOW, EPERM, Errno,
};
use super::super::files::{Device, Kind, NodeId, Target};
use super::super::mapping::RemapTarget;
use super::super::memory::{Prot, UserMemory};
use super::super::settings::Image;
use super::super::space::{Area, Backing, MMAP_BASE, USER_END, USER_START, in_user};
use crate::address::{PAGE_SIZE, page_ceil};

const PAGE: u64 = PAGE_SIZE as u64;
/// `PROT_GROWSDOWN`, `PROT_GROWSUP`: act on the whole stack.
const PROT_GROWS_DOWN: u64 = 0x0100_0000;
const PROT_GROWS_UP: u64 = 0x0200_0000;
/// `PROT_SEM`, which x86 ignores.
const PROT_SEM: u64 = 8;
/// Where `MAP_32BIT` mappings go.
const LOW_START: u64 = 0x4000_0000;
const LOW_END: u64 = 0x8000_0000;
/// Images remembered for symbolisation.
pub(in super::super) const IMAGES_MAX: usize = 256;

fn flag(flags: u64, bit: i32) -> bool {
    flags & bit as u64 != 0
}

fn prot_from(bits: u64) -> Prot {
    Prot::from_bits_truncate((bits & 7) as u8)
}

impl Process {
    pub(super) fn mmap(&mut self, args: [u64; 6], mem: &mut dyn UserMemory) -> Answer {
        let [wish, len, prot, flags, fd, offset] = args;
        if len == 0 || !offset.is_multiple_of(PAGE) {
            return Err(EINVAL.into());
        }
        let len = page_ceil(len).filter(|len| *len <= USER_END).ok_or(ENOMEM)?;
        offset.checked_add(len).ok_or(EOVERFLOW)?;
        let kind = flags & 0xf;
        if kind == 0 || kind > 3 {
            return Err(EINVAL.into());
        }
        let shared = kind != libc::MAP_PRIVATE as u64;
        if flag(flags, libc::MAP_HUGETLB) {
            return Err(ENOMEM.into());
        }
        let prot = prot_from(prot);
        let (backing, may_write) = if flag(flags, libc::MAP_ANONYMOUS) {
            (Backing::Anonymous, true)
        } else {
            self.file_backing(fd, offset, prot, shared)?
        };
        let start = self.place(wish, len, flags)?;
        if let Backing::File { node, .. } = backing
            && let Some(node) = self.files.tree.node(node)
            && !node.mapped
            && matches!(node.kind, Kind::File(_))
            && let Backing::File { node, .. } = backing
            && let Some(node) = self.files.tree.node_mut(node)
        {
            node.mapped = true;
        }
        let area = Area { start, end: start + len, prot, backing, may_write };
        let Self { space, files, .. } = self;
        space.map(area, files, mem)?;
        if let Backing::File { node, offset: 0 } = backing {
            self.note_image(node, start);
        }
        Ok(start)
    }

    /// What a mapping of an open file shows, and whether it may ever be written to.
    fn file_backing(
        &self,
        fd: u64,
        offset: u64,
        prot: Prot,
        shared: bool,
    ) -> Result<(Backing, bool), Errno> {
        let open = self.files.table.get(fd)?;
        if open.is_path_only() {
            return Err(EBADF);
        }
        if !open.may_read() {
            return Err(EACCES);
        }
        let writable = prot.contains(Prot::WRITE);
        if shared && writable && !open.may_write() {
            return Err(EACCES);
        }
        let Target::Node(node) = open.target else { return Err(ENODEV) };
        match self.files.tree.node(node).map(|node| &node.kind) {
            Some(Kind::Device(Device::Zero)) => Ok((Backing::Anonymous, true)),
            // Writes through a shared mapping would not reach the file: say so at once.
            Some(Kind::File(_)) if shared && writable => Err(ENODEV),
            Some(Kind::Image(_) | Kind::File(_) | Kind::Input) => {
                Ok((Backing::File { node, offset }, !shared))
            }
            _ => Err(ENODEV),
        }
    }

    /// Where a mapping of `len` bytes goes.
    fn place(&self, wish: u64, len: u64, flags: u64) -> Result<u64, Errno> {
        let no_replace = flag(flags, libc::MAP_FIXED_NOREPLACE);
        if flag(flags, libc::MAP_FIXED) || no_replace {
            if !wish.is_multiple_of(PAGE) {
                return Err(EINVAL);
            }
            let end = wish.checked_add(len).ok_or(ENOMEM)?;
            if !in_user(wish, end) {
                return Err(ENOMEM);
            }
            if wish < USER_START {
                return Err(EPERM);
            }
            if no_replace && !self.space.is_free(wish, end) {
                return Err(EEXIST);
            }
            return Ok(wish);
        }
        if flag(flags, libc::MAP_32BIT) {
            return self.space.find_gap(len, LOW_START, LOW_END).ok_or(ENOMEM);
        }
        if wish != 0 {
            let wish = page_ceil(wish).unwrap_or(0).max(USER_START);
            if wish.checked_add(len).is_some_and(|end| self.space.is_free(wish, end)) {
                return Ok(wish);
            }
        }
        let below = self.space.find_gap(len, USER_START, MMAP_BASE);
        below.or_else(|| self.space.find_gap(len, USER_START, USER_END)).ok_or(ENOMEM)
    }

    /// Remembers an ELF file mapped from its start: a dynamic loader does so with each library.
    fn note_image(&mut self, node: NodeId, start: u64) {
        let known = self.images.0.iter().any(|image| image.node == node && image.base == start);
        let is_image = self.files.image(node).is_some_and(|bytes| bytes.starts_with(b"\x7fELF"));
        if known || !is_image || self.images.0.len() >= IMAGES_MAX {
            return;
        }
        let path = self.files.tree.path_of(node).unwrap_or_default();
        let path = String::from_utf8_lossy(&path).into_owned();
        // Libraries are linked at address 0, so that where they start is their bias.
        self.images.0.push(Image { node, base: start, path });
    }

    pub(super) fn munmap(&mut self, start: u64, len: u64, mem: &mut dyn UserMemory) -> Answer {
        let len = page_ceil(len).filter(|len| *len > 0).ok_or(EINVAL)?;
        let end = start.checked_add(len).filter(|end| *end <= USER_END).ok_or(EINVAL)?;
        if !start.is_multiple_of(PAGE) {
            return Err(EINVAL.into());
        }
        if self.space.overlapping(start, end).is_empty() {
            return Ok(0);
        }
        if !self.space.may_remove(start, end) {
            return Err(ENOMEM.into());
        }
        self.space.unmap(start, end, mem);
        let gone = |image: &Image| image.base >= start && image.base < end;
        if self.images.0.iter().any(gone) {
            self.images.0.retain(|image| !gone(image));
        }
        Ok(0)
    }

    pub(super) fn mprotect(
        &mut self,
        start: u64,
        len: u64,
        bits: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let grows_down = bits & PROT_GROWS_DOWN != 0;
        if !start.is_multiple_of(PAGE) || grows_down && bits & PROT_GROWS_UP != 0 {
            return Err(EINVAL.into());
        }
        if len == 0 {
            return Ok(0);
        }
        let end = page_ceil(len).and_then(|len| start.checked_add(len)).ok_or(ENOMEM)?;
        if bits & !(7 | PROT_SEM | PROT_GROWS_DOWN | PROT_GROWS_UP) != 0 {
            return Err(EINVAL.into());
        }
        let mut from = start;
        if grows_down {
            let stack = self.space.area_at(start).ok_or(ENOMEM)?;
            if stack.backing != Backing::Stack {
                return Err(EINVAL.into());
            }
            from = stack.start;
        }
        let Self { space, files, .. } = self;
        space.protect(from, end, prot_from(bits), files, mem)?;
        Ok(0)
    }

    pub(super) fn mremap(
        &mut self,
        start: u64,
        old_len: u64,
        new_len: u64,
        flags: u64,
        to: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        let known = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
        let old_len = page_ceil(old_len).filter(|len| *len > 0).ok_or(EINVAL)?;
        let new_len = page_ceil(new_len).filter(|len| *len > 0).ok_or(EINVAL)?;
        if flags & !known != 0 || !start.is_multiple_of(PAGE) {
            return Err(EINVAL.into());
        }
        let may_move = flag(flags, libc::MREMAP_MAYMOVE);
        let target = match (may_move, flag(flags, libc::MREMAP_FIXED)) {
            (false, true) => return Err(EINVAL.into()),
            (true, true) => {
                let to_end = to.checked_add(new_len).ok_or(EINVAL)?;
                let old_end = start.checked_add(old_len).ok_or(EINVAL)?;
                let overlaps = to < old_end && start < to_end;
                if !to.is_multiple_of(PAGE) || to_end > USER_END || overlaps {
                    return Err(EINVAL.into());
                }
                if to < USER_START {
                    return Err(EPERM.into());
                }
                RemapTarget::Fixed(to)
            }
            (true, false) => RemapTarget::Anywhere,
            (false, false) => RemapTarget::InPlace,
        };
        let Self { space, files, .. } = self;
        Ok(space.remap(start, old_len, new_len, target, files, mem)?)
    }

    pub(super) fn madvise(
        &mut self,
        start: u64,
        len: u64,
        advice: u64,
        mem: &mut dyn UserMemory,
    ) -> Answer {
        if !start.is_multiple_of(PAGE) {
            return Err(EINVAL.into());
        }
        let len = page_ceil(len).ok_or(EINVAL)?;
        let end = start.checked_add(len).ok_or(EINVAL)?;
        match advice as i32 {
            // MADV_FREE may drop pages at any time; dropping them at once is deterministic.
            libc::MADV_DONTNEED | libc::MADV_FREE => {
                self.space.discard(start, end, &self.files, mem)?;
                Ok(0)
            }
            libc::MADV_NORMAL..=libc::MADV_WILLNEED
            | libc::MADV_DONTFORK..=libc::MADV_WIPEONFORK
            | libc::MADV_KEEPONFORK
            | libc::MADV_COLD
            | libc::MADV_PAGEOUT => {
                if self.space.is_covered(start, end) {
                    Ok(0)
                } else {
                    Err(ENOMEM.into())
                }
            }
            _ => Err(EINVAL.into()),
        }
    }

    pub(super) fn msync(&self, start: u64, len: u64, _flags: u64) -> Answer {
        if !start.is_multiple_of(PAGE) {
            return Err(EINVAL.into());
        }
        let end = page_ceil(len).and_then(|len| start.checked_add(len)).ok_or(ENOMEM)?;
        if self.space.is_covered(start, end) { Ok(0) } else { Err(ENOMEM.into()) }
    }
}
