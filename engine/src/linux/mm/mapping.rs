//! What mapping, unmapping, protecting and faulting do to page tables and VMAs alike.
//!
//! Pages come into being in one place, [`bring_in`]: at once for what is small (a page
//! fault costs an exit), around the faulting page for what is large. Never parses a system
//! call's arguments.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::errno::{EACCES, EAGAIN, ENOMEM, Errno};
use crate::linux::abi::syscall::FaultAction;
use crate::linux::fs::files::Files;
use crate::linux::mm::address_space::AddressSpace;
use crate::linux::mm::bounds::{USER_END, in_user};
use crate::linux::mm::user_memory::{OutOfFrames, PageRange, Prot, UserMemory};
use crate::linux::mm::vma::{Backing, Vma, VmaFlags};
use crate::outcome::{Access, Signal};

const PAGE: u64 = PAGE_SIZE as u64;
/// Mappings up to this size get their pages at once.
const EAGER_BYTES_MAX: u64 = 1 << 20;
/// File mappings up to this size are copied at once; larger ones around each faulting page.
const EAGER_FILE_BYTES_MAX: u64 = 8 << 20;
/// Pages mapped around a page that faulted; a power of two.
const AROUND_PAGES: u64 = 64;
/// New mappings that get all of their pages with the first one that is touched: pages of all of them
/// together, and of each that shows no file.
const NEW_PAGES_MAX: u64 = 256;
const NEW_ANONYMOUS_PAGES: u64 = 4;
/// The same for the stack, which grows by small steps.
const AROUND_STACK_PAGES: u64 = 16;

/// The resource limits that are about memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryRlimits {
    /// `RLIMIT_AS`
    pub(crate) space: u64,
    /// `RLIMIT_DATA`
    pub(crate) data: u64,
    /// `RLIMIT_STACK`
    pub(crate) stack: u64,
    /// `RLIMIT_MEMLOCK`
    pub(crate) locked: u64,
}

impl MemoryRlimits {
    /// No limits, for a loader.
    pub(crate) const ENDLESS: Self =
        Self { space: u64::MAX, data: u64::MAX, stack: u64::MAX, locked: u64::MAX };
}

/// Page-table permissions for what the process asked: on x86 whatever may be written or
/// executed may be read.
pub(crate) fn page_prot(prot: Prot) -> Prot {
    if prot.is_empty() { prot } else { prot | Prot::READ }
}

pub(crate) fn pages(start: u64, end: u64) -> PageRange {
    PageRange { start: Gva(start), pages: end.saturating_sub(start) / PAGE }
}

/// The file's bytes from `offset` on, at most `bytes`.
pub(crate) fn file_part(content: &[u8], offset: u64, bytes: u64) -> &[u8] {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let end = start.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
    &content[start..end.min(content.len())]
}

/// Whether Linux counts the VMA as data (`is_data_mapping` in mm/internal.h).
fn is_data(vma: &Vma) -> bool {
    vma.prot.contains(Prot::WRITE) && !vma.flags.intersects(VmaFlags::SHARED | VmaFlags::GROWS_DOWN)
}

impl AddressSpace {
    fn bytes_of(&self, counts: impl Fn(&Vma) -> bool) -> u64 {
        self.vmas().iter().filter(|vma| counts(vma)).map(Vma::bytes).sum()
    }

    /// Whether `added` bytes more of a mapping like `vma` are within the resource limits
    /// (`may_expand_vm`) and the commit limit.
    pub(crate) fn may_expand(
        &self,
        vma: &Vma,
        added: u64,
        rlimits: &MemoryRlimits,
    ) -> Result<(), Errno> {
        let passes = |limit: u64, counts: fn(&Vma) -> bool| {
            limit != u64::MAX && self.bytes_of(counts).saturating_add(added) > limit
        };
        let too_much = passes(rlimits.space, |_| true)
            || is_data(vma) && passes(rlimits.data, is_data)
            || vma.is_charged() && added > self.commit_bytes_max;
        if too_much { Err(ENOMEM) } else { Ok(()) }
    }

    /// Bytes of all mappings.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.bytes_of(|_| true)
    }

    /// Bytes of locked mappings.
    pub(crate) fn locked_bytes(&self) -> u64 {
        self.bytes_of(|vma| vma.is(VmaFlags::LOCKED))
    }

    /// Whether `added` bytes more of a mapping with `flags` may be locked (`mlock_future_check`).
    pub(crate) fn may_lock(
        &self,
        flags: VmaFlags,
        added: u64,
        rlimits: &MemoryRlimits,
    ) -> Result<(), Errno> {
        let passes = flags.contains(VmaFlags::LOCKED)
            && rlimits.locked != u64::MAX
            && self.locked_bytes().saturating_add(added) > rlimits.locked;
        if passes { Err(EAGAIN) } else { Ok(()) }
    }

    /// Maps `vma`, replacing what is there, and brings in its pages when it is small.
    pub(crate) fn map(
        &mut self,
        vma: Vma,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<(), Errno> {
        let Vma { start, end, .. } = vma;
        if !in_user(start, end) || !self.has_room(0) || !self.may_remove(start, end) {
            return Err(ENOMEM);
        }
        self.unmap(start, end, mem);
        self.insert(vma);
        self.fill_if_small(&vma, files, mem);
        Ok(())
    }

    /// Unmaps whatever lies in `start..end`.
    pub(crate) fn unmap(&mut self, start: u64, end: u64, mem: &mut dyn UserMemory) {
        for vma in self.overlapping(start, end) {
            let part = vma.part(start, end);
            // The VMAs after it are still there: the last one of several frees their frames.
            self.leave_to_others(&part, start..part.end, mem);
            mem.unmap(pages(part.start, part.end));
        }
        self.remove(start, end);
    }

    /// `mprotect`: as Linux, changes what comes before a hole and then fails.
    pub(crate) fn protect(
        &mut self,
        start: u64,
        end: u64,
        prot: Prot,
        rlimits: &MemoryRlimits,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let vma = *self.vma_at(at).ok_or(ENOMEM)?;
            let part = vma.part(at, end);
            if prot.contains(Prot::WRITE) && !part.is(VmaFlags::MAY_WRITE) {
                return Err(EACCES);
            }
            if part.prot != prot {
                let changed = Vma { prot, ..part };
                let cuts = usize::from(part.start > vma.start) + usize::from(part.end < vma.end);
                if !self.has_room(cuts) {
                    return Err(ENOMEM);
                }
                if is_data(&changed) && !is_data(&part) {
                    let endless = MemoryRlimits { space: u64::MAX, ..*rlimits };
                    self.may_expand(&changed, part.bytes(), &endless)?;
                }
                self.remove(part.start, part.end);
                self.insert(changed);
                mem.protect(pages(part.start, part.end), page_prot(prot));
                if part.prot.is_empty() {
                    self.fill_if_small(&changed, files, mem);
                }
            }
            at = part.end;
        }
        Ok(())
    }

    /// Sets the program break as near to `wanted` as `brk` allows, and returns it.
    pub(crate) fn set_break(
        &mut self,
        wanted: u64,
        rlimits: &MemoryRlimits,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> u64 {
        let present = self.break_end;
        let passes = wanted.checked_sub(self.break_start).is_none_or(|bytes| bytes > rlimits.data);
        if passes || wanted > USER_END {
            return present;
        }
        let (mapped_end, wanted_end) =
            (present.next_multiple_of(PAGE), wanted.next_multiple_of(PAGE));
        if wanted_end < mapped_end {
            self.unmap(wanted_end, mapped_end, mem);
        } else if wanted_end > mapped_end
            && self.grow_heap(mapped_end, wanted_end, rlimits, files, mem).is_err()
        {
            return present;
        }
        self.break_end = wanted;
        wanted
    }

    fn grow_heap(
        &mut self,
        start: u64,
        end: u64,
        rlimits: &MemoryRlimits,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<(), Errno> {
        let heap = Vma {
            backing: Backing::Heap,
            flags: VmaFlags::MAY_WRITE | self.lock_future,
            ..Vma::anonymous(start, end, Prot::READ | Prot::WRITE)
        };
        // Linux keeps a page free between the heap and the next mapping.
        if !self.suits(start, end.saturating_add(PAGE)) {
            return Err(ENOMEM);
        }
        self.may_lock(heap.flags, heap.bytes(), rlimits)?;
        self.may_expand(&heap, heap.bytes(), rlimits)?;
        self.map(heap, files, mem)?;
        self.populate_if_locked(&heap, files, mem);
        Ok(())
    }

    /// What a fault at `at`, which `vma` has, means: brings in the page if the process may access
    /// it.
    pub(crate) fn fault_in(
        &self,
        vma: &Vma,
        at: Gva,
        access: Access,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> FaultAction {
        let allowed = match access {
            Access::Read => !vma.prot.is_empty(),
            Access::Write => vma.prot.contains(Prot::WRITE),
            Access::Execute => vma.prot.contains(Prot::EXEC),
        };
        if !allowed {
            return FaultAction::Signal(Signal::SEGV);
        }
        let page = at.page_floor().0;
        if mem.allows(at, access) {
            return FaultAction::Retry;
        }
        let around = match vma.backing {
            Backing::Stack => AROUND_STACK_PAGES * PAGE,
            _ => AROUND_PAGES * PAGE,
        };
        if page >= vma.backed_end(files) {
            return FaultAction::Signal(Signal::BUS);
        }
        let window = vma.part(page & !(around - 1), (page & !(around - 1)).saturating_add(around));
        let alone = vma.part(page, page + PAGE);
        match self.fill(&window, files, mem).or_else(|OutOfFrames| self.fill(&alone, files, mem)) {
            Ok(()) => FaultAction::Retry,
            Err(OutOfFrames) => FaultAction::OutOfMemory,
        }
    }

    /// Gives every absent page of `vma` a frame, one that another mapping of the same bytes has
    /// where there is one.
    pub(crate) fn fill(
        &self,
        vma: &Vma,
        files: &Files,
        mem: &mut dyn UserMemory,
    ) -> Result<(), OutOfFrames> {
        self.share_frames(vma, page_prot(vma.prot), mem)?;
        bring_in(vma, files, mem)
    }

    /// Gives small mappings their pages, as far as they are not in `then`: a library that was just
    /// mapped is used as a whole. Failing is no error: the first access tries again.
    pub(crate) fn fill_new(&self, then: &Self, files: &Files, mem: &mut dyn UserMemory) {
        let mut pages_left = NEW_PAGES_MAX;
        for vma in self.vmas() {
            let pages = vma.bytes() / PAGE;
            let pages_max = match vma.backing {
                Backing::File { .. } => AROUND_PAGES,
                Backing::Anonymous | Backing::Heap => NEW_ANONYMOUS_PAGES,
                Backing::Stack => 0,
            };
            let is_there = then.vma_at(vma.start) == Some(vma);
            if is_there || vma.prot.is_empty() || pages > pages_max.min(pages_left) {
                continue;
            }
            pages_left -= pages;
            // Out of frames here only means that the pages come later, if at all.
            let _ = self.fill(vma, files, mem);
        }
    }

    /// Gives each small mapping that is not in `then` its pages now.
    pub(crate) fn fill_small(&self, then: &Self, files: &Files, mem: &mut dyn UserMemory) {
        for vma in self.vmas().iter().filter(|vma| then.vma_at(vma.start) != Some(vma)) {
            self.fill_if_small(vma, files, mem);
        }
    }

    /// Gives `vma` its pages now if it is small and frames are plenty. Failing is no error: the
    /// first access tries again.
    pub(crate) fn fill_if_small(&self, vma: &Vma, files: &Files, mem: &mut dyn UserMemory) {
        let bytes_max = match vma.backing {
            Backing::File { .. } => EAGER_FILE_BYTES_MAX,
            Backing::Stack => 0,
            Backing::Anonymous | Backing::Heap => EAGER_BYTES_MAX,
        };
        let bytes = vma.bytes();
        if !mem.fills_at_once()
            || vma.prot.is_empty()
            || bytes > bytes_max
            || bytes / PAGE > mem.frames_free() / 4
        {
            return;
        }
        // Out of frames here only means that the pages come later, if at all.
        let _ = self.fill(vma, files, mem);
    }

    /// The pages of a mapping that is locked are there from the start, as far as there are frames.
    pub(crate) fn populate_if_locked(&self, vma: &Vma, files: &Files, mem: &mut dyn UserMemory) {
        if vma.is(VmaFlags::LOCKED) && !vma.is(VmaFlags::LOCKED_ON_FAULT) {
            let _ = self.fill(vma, files, mem);
        }
    }
}

impl Vma {
    /// Where its pages end that there is something for: accesses beyond raise SIGBUS.
    pub(crate) fn backed_end(&self, files: &Files) -> u64 {
        let bytes = match (self.backing, self.object) {
            (Backing::File { node, offset }, _) => {
                (files.content(node).len() as u64).saturating_sub(offset)
            }
            (_, Some(object)) => object.bytes.saturating_sub(object.offset),
            _ => return self.end,
        };
        let bytes = bytes.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        self.start.saturating_add(bytes).min(self.end)
    }
}

/// Gives every absent page of `vma` a frame with its backing's contents.
pub(crate) fn bring_in(
    vma: &Vma,
    files: &Files,
    mem: &mut dyn UserMemory,
) -> Result<(), OutOfFrames> {
    let prot = page_prot(vma.prot);
    if prot.is_empty() {
        return Ok(());
    }
    let Backing::File { node, offset } = vma.backing else {
        return mem.map(pages(vma.start, vma.backed_end(files)), prot);
    };
    let content = file_part(files.content(node), offset, vma.bytes());
    let mut absent_from = None;
    let end = vma.start.saturating_add((content.len() as u64).next_multiple_of(PAGE));
    for at in (vma.start..end).step_by(PAGE_SIZE) {
        match (mem.allows(Gva(at), Access::Read), absent_from) {
            (false, None) => absent_from = Some(at),
            (true, Some(from)) => {
                copy_file_pages(vma.start, content, from, at, prot, mem)?;
                absent_from = None;
            }
            _ => {}
        }
    }
    match absent_from {
        Some(from) => copy_file_pages(vma.start, content, from, end, prot, mem),
        None => Ok(()),
    }
}

/// Maps the absent pages `from..to` and fills them from `content`, which starts at `start`.
fn copy_file_pages(
    start: u64,
    content: &[u8],
    from: u64,
    to: u64,
    prot: Prot,
    mem: &mut dyn UserMemory,
) -> Result<(), OutOfFrames> {
    mem.map(pages(from, to), prot)?;
    let bytes = file_part(content, from - start, to - from);
    mem.populate(Gva(from), bytes).map_err(|_| OutOfFrames)
}
