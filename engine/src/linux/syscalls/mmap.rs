//! `mmap`: where a new mapping goes and what it shows, checked as Linux does, in its order
//! (mm/mmap.c of Linux 6.1), and which images are mapped. Never touches page tables itself.

use crate::address::{PAGE_SIZE, page_ceil};
use crate::linux::abi::errno::{
    EACCES, EBADF, EEXIST, EINVAL, ENODEV, ENOMEM, EOPNOTSUPP, EOVERFLOW, EPERM, Errno,
};
use crate::linux::abi::fd::Fd;
use crate::linux::fs::table::Target;
use crate::linux::fs::tree::{Device, Kind, NodeId};
use crate::linux::mm::bounds::{MMAP_BASE, UNMAPPED_BASE, USER_END, USER_START, in_user};
use crate::linux::mm::mapping::MemoryRlimits;
use crate::linux::mm::user_memory::{Prot, UserMemory};
use crate::linux::mm::vma::{Backing, Vma, VmaFlags};
use crate::linux::process::Process;
use crate::linux::process::settings::{IMAGES_MAX, Image};
use crate::linux::sched::stop::SyscallResult;
use crate::linux::syscalls::memory::{flag, prot_from};

const PAGE: u64 = PAGE_SIZE as u64;
/// Where `MAP_32BIT` mappings go.
const LOW_START: u64 = 0x4000_0000;
const LOW_END: u64 = 0x8000_0000;
/// `MAP_TYPE`, the bits that say private or shared.
const MAP_TYPE: u64 = 0xf;
/// What `MAP_SHARED_VALIDATE` accepts (`LEGACY_MAP_MASK` in include/linux/mman.h).
const FLAGS_KNOWN: u64 = (libc::MAP_SHARED
    | libc::MAP_PRIVATE
    | libc::MAP_FIXED
    | libc::MAP_ANONYMOUS
    | libc::MAP_DENYWRITE
    | libc::MAP_EXECUTABLE
    | libc::MAP_GROWSDOWN
    | libc::MAP_LOCKED
    | libc::MAP_NORESERVE
    | libc::MAP_POPULATE
    | libc::MAP_NONBLOCK
    | libc::MAP_STACK
    | libc::MAP_HUGETLB
    | libc::MAP_32BIT) as u64
    // `MAP_HUGE_2MB` and `MAP_HUGE_1GB`.
    | 21 << 26
    | 30 << 26;

impl Process {
    pub(crate) fn sys_mmap(&mut self, args: [u64; 6], mem: &mut dyn UserMemory) -> SyscallResult {
        let [wish, len, prot, flags, fd, offset] = args;
        let fd = Fd::from_register(fd);
        if !offset.is_multiple_of(PAGE) {
            return Err(EINVAL.into());
        }
        let is_anonymous = flag(flags, libc::MAP_ANONYMOUS);
        if !is_anonymous {
            // A file that is not in memory of huge pages cannot be mapped so.
            let open = self.files.table.get(fd).map(|open| open.is_path_only())?;
            if open {
                return Err(EBADF.into());
            }
            if flag(flags, libc::MAP_HUGETLB) {
                return Err(EINVAL.into());
            }
        }
        if len == 0 {
            return Err(EINVAL.into());
        }
        if is_anonymous && flag(flags, libc::MAP_HUGETLB) {
            return Err(ENOMEM.into());
        }
        let len = page_ceil(len).filter(|len| *len > 0).ok_or(ENOMEM)?;
        if !self.space.has_room(0) {
            return Err(ENOMEM.into());
        }
        let start = self.place(wish, len, flags)?;
        let mut vma = Vma::anonymous(start, start + len, prot_from(prot));
        vma.flags |= self.space.lock_future;
        if flag(flags, libc::MAP_LOCKED) {
            self.check_may_lock()?;
            vma.flags |= VmaFlags::LOCKED;
        }
        let rlimits = self.memory_rlimits();
        self.space.may_lock(vma.flags, len, &rlimits)?;
        vma.flags.set(VmaFlags::NO_RESERVE, flag(flags, libc::MAP_NORESERVE));
        vma.flags.set(VmaFlags::GROWS_DOWN, flag(flags, libc::MAP_GROWSDOWN));
        if is_anonymous {
            self.describe_anonymous(&mut vma, flags)?;
        } else {
            self.describe_file(&mut vma, flags, fd, offset)?;
        }
        let replaced: u64 = {
            let parts = self.space.overlapping(start, vma.end).iter();
            parts.map(|part| part.part(start, vma.end).bytes()).sum()
        };
        // Linux counts the limit without what goes, and the commit limit with it.
        self.space.may_expand(&vma, len, &MemoryRlimits::ENDLESS)?;
        if (rlimits.space, rlimits.data) != (u64::MAX, u64::MAX) {
            self.space.may_expand(&vma, len.saturating_sub(replaced), &rlimits)?;
        }
        self.install(vma, flags, mem)
    }

    /// Maps what `mmap` has described.
    fn install(&mut self, vma: Vma, flags: u64, mem: &mut dyn UserMemory) -> SyscallResult {
        if let Backing::File { node, .. } = vma.backing
            && let Some(found) = self.files.tree.node(node)
            && !found.mapped
            && matches!(found.kind, Kind::File(_))
            && let Some(node) = self.files.tree.node_mut(node)
        {
            node.mapped = true;
        }
        let Self { space, files, .. } = self;
        space.map(vma, files, mem)?;
        space.populate_if_locked(&vma, files, mem);
        let populates = flag(flags, libc::MAP_POPULATE) && !flag(flags, libc::MAP_NONBLOCK);
        if populates && !vma.prot.is_empty() {
            // As in Linux, failing is no error.
            let _ = space.fill(&vma, files, mem);
        }
        if vma.is(VmaFlags::SHARED) && matches!(vma.backing, Backing::File { .. }) {
            space.shows_files = true;
        }
        if let Backing::File { node, offset: 0 } = vma.backing {
            self.note_image(node, vma.start);
        }
        Ok(vma.start)
    }

    fn describe_anonymous(&mut self, vma: &mut Vma, flags: u64) -> Result<(), Errno> {
        match (flags & MAP_TYPE) as i32 {
            libc::MAP_PRIVATE => Ok(()),
            libc::MAP_SHARED if !vma.is(VmaFlags::GROWS_DOWN) => {
                vma.flags |= VmaFlags::SHARED;
                vma.object = Some(self.space.new_object(vma.bytes()));
                Ok(())
            }
            _ => Err(EINVAL),
        }
    }

    /// What a mapping of an open file shows, and whether it may ever be written to.
    fn describe_file(
        &mut self,
        vma: &mut Vma,
        flags: u64,
        fd: Fd,
        offset: u64,
    ) -> Result<(), Errno> {
        let open = *self.files.table.get(fd)?;
        // `file_mmap_ok`
        offset.checked_add(vma.bytes()).filter(|end| *end <= i64::MAX as u64).ok_or(EOVERFLOW)?;
        let kind = (flags & MAP_TYPE) as i32;
        let shared = match kind {
            libc::MAP_PRIVATE => false,
            libc::MAP_SHARED | libc::MAP_SHARED_VALIDATE => true,
            _ => return Err(EINVAL),
        };
        if kind == libc::MAP_SHARED_VALIDATE && flags & !(FLAGS_KNOWN | MAP_TYPE) != 0 {
            return Err(EOPNOTSUPP);
        }
        if shared && vma.prot.contains(Prot::WRITE) && !open.may_write() {
            return Err(EACCES);
        }
        if !open.may_read() {
            return Err(EACCES);
        }
        let Target::Node(node) = open.target else { return Err(ENODEV) };
        let is_file = match self.files.tree.node(node).map(|node| &node.kind) {
            Some(Kind::Device(Device::Zero)) => false,
            Some(Kind::Image(_) | Kind::File(_) | Kind::Input) => true,
            _ => return Err(ENODEV),
        };
        if vma.is(VmaFlags::GROWS_DOWN) {
            return Err(EINVAL);
        }
        if is_file {
            vma.backing = Backing::File { node, offset };
        }
        if shared {
            vma.flags |= VmaFlags::SHARED;
            vma.flags.set(VmaFlags::MAY_WRITE, open.may_write());
            if !is_file {
                vma.object = Some(self.space.new_object(vma.bytes()));
            }
        }
        Ok(())
    }

    /// Where a mapping of `len` bytes goes (`arch_get_unmapped_area_topdown`).
    fn place(&self, wish: u64, len: u64, flags: u64) -> Result<u64, Errno> {
        if len > USER_END {
            return Err(ENOMEM);
        }
        let no_replace = flag(flags, libc::MAP_FIXED_NOREPLACE);
        if flag(flags, libc::MAP_FIXED) || no_replace {
            // An address that is an error number passes for one (`IS_ERR_VALUE`).
            if wish > u64::MAX - 4095 {
                return Err(Errno(wish.wrapping_neg() as i32));
            }
            if wish > USER_END - len {
                return Err(ENOMEM);
            }
            if !wish.is_multiple_of(PAGE) {
                return Err(EINVAL);
            }
            if wish < USER_START {
                return Err(EPERM);
            }
            if !in_user(wish, wish + len) {
                return Err(ENOMEM);
            }
            if no_replace && !self.space.is_free(wish, wish + len) {
                return Err(EEXIST);
            }
            return Ok(wish);
        }
        let wish = wish & !(PAGE - 1);
        if wish != 0 {
            let wish = wish.max(USER_START);
            if wish.checked_add(len).is_some_and(|end| self.space.suits(wish, end)) {
                return Ok(wish);
            }
        }
        if flag(flags, libc::MAP_32BIT) {
            return self.space.find_gap_upwards(len, LOW_START, LOW_END).ok_or(ENOMEM);
        }
        let below = self.space.find_gap(len, USER_START, MMAP_BASE);
        let found = below.or_else(|| self.space.find_gap_upwards(len, UNMAPPED_BASE, USER_END));
        found.ok_or(ENOMEM)
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

    /// Forgets the images whose first page went.
    pub(crate) fn forget_images(&mut self, start: u64, end: u64) {
        let gone = |image: &Image| image.base >= start && image.base < end;
        if self.images.0.iter().any(gone) {
            self.images.0.retain(|image| !gone(image));
        }
    }
}
