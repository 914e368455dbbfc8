//! Calls about which pages are there: `madvise`, `mincore`, `mlock` and their relatives, checked
//! as Linux does (mm/madvise.c, mm/mlock.c, mm/mincore.c of Linux 6.1). Never touches page tables
//! itself.

use crate::address::{Gva, PAGE_SIZE, page_ceil};
use crate::linux::abi::errno::{EACCES, EAGAIN, EFAULT, EINVAL, ENOMEM, EPERM, Errno};
use crate::linux::mm::bounds::USER_END;
use crate::linux::mm::discard::{discard, punch};
use crate::linux::mm::user_memory::{OutOfFrames, UserMemory};
use crate::linux::mm::vma::{Backing, Vma, VmaFlags};
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;

const PAGE: u64 = PAGE_SIZE as u64;
const LOCK_FLAGS: VmaFlags = VmaFlags::LOCKED.union(VmaFlags::LOCKED_ON_FAULT);

/// Advice that the `libc` crate does not name (include/uapi/asm-generic/mman-common.h).
const DONTNEED_LOCKED: i32 = 24;
const COLLAPSE: i32 = 25;

impl Process {
    pub(crate) fn sys_madvise(
        &mut self,
        start: u64,
        len: u64,
        advice: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let advice = advice as i32;
        let is_known = matches!(
            advice,
            libc::MADV_NORMAL..=libc::MADV_DONTNEED
                | libc::MADV_FREE..=libc::MADV_DOFORK
                | libc::MADV_MERGEABLE..=COLLAPSE
                | libc::MADV_HWPOISON
                | libc::MADV_SOFT_OFFLINE
        );
        if !is_known || !start.is_multiple_of(PAGE) {
            return Err(EINVAL.into());
        }
        let len = page_ceil(len).ok_or(EINVAL)?;
        let end = start.checked_add(len).ok_or(EINVAL)?;
        if start == end {
            return Ok(0);
        }
        if matches!(advice, libc::MADV_HWPOISON | libc::MADV_SOFT_OFFLINE) {
            return Err(EPERM.into());
        }
        if matches!(advice, libc::MADV_POPULATE_READ | libc::MADV_POPULATE_WRITE) {
            return self.populate(start, end, advice == libc::MADV_POPULATE_WRITE, mem);
        }
        // A system call's own changes to VMAs end with it: no advice moves one.
        let Self { space, files, .. } = self;
        for vma in space.overlapping(start, end) {
            let part = vma.part(start, end);
            check_advice(&part, advice)?;
            match advice {
                libc::MADV_REMOVE => punch(&part, mem),
                // `MADV_FREE` may drop pages at any time; dropping them at once is deterministic.
                libc::MADV_DONTNEED | libc::MADV_FREE | DONTNEED_LOCKED => {
                    discard(&part, files, mem)?;
                }
                _ => {}
            }
        }
        // The range's mapped parts are advised on even when holes make the call fail.
        if space.is_covered(start, end) { Ok(0) } else { Err(ENOMEM.into()) }
    }

    /// Up to the first hole, or the first mapping that does not allow it.
    fn populate(
        &mut self,
        start: u64,
        end: u64,
        writes: bool,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let Self { space, files, .. } = self;
        let mut at = start;
        while at < end {
            let part = space.vma_at(at).map(|vma| vma.part(at, end)).ok_or(ENOMEM)?;
            space.populate(&part, writes, files, mem)?;
            at = part.end;
        }
        Ok(0)
    }

    pub(crate) fn sys_mincore(
        &mut self,
        start: u64,
        len: u64,
        out: Gva,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if !start.is_multiple_of(PAGE) {
            return Err(EINVAL.into());
        }
        let end = start.checked_add(len).filter(|end| *end <= USER_END).ok_or(ENOMEM)?;
        let pages = (end - start).div_ceil(PAGE);
        out.checked_add(pages).filter(|end| end.0 <= USER_END).ok_or(EFAULT)?;
        let (mut at, mut done) = (start, 0);
        while done < pages {
            let mut states = [0; PAGE_SIZE];
            let mut count = 0;
            while count < states.len() && done + (count as u64) < pages {
                let vma = self.space.vma_at(at).ok_or(ENOMEM)?;
                states[count] = u8::from(self.is_resident(vma, at, mem));
                count += 1;
                at += PAGE;
            }
            self.user(mem).write(out.wrapping_add(done), &states[..count])?;
            done += count as u64;
        }
        Ok(0)
    }

    /// Whether a page is in memory: a file's always is.
    fn is_resident(&self, vma: &Vma, at: u64, mem: &dyn UserMemory) -> bool {
        match vma.backing {
            Backing::File { .. } => at < vma.backed_end(&self.files),
            _ => mem.next_mapped(Gva(at), Gva(at.wrapping_add(PAGE))).is_some(),
        }
    }

    /// Whether the process may lock anything at all (`can_do_mlock`).
    pub(crate) fn check_may_lock(&self) -> Result<(), Errno> {
        if self.memory_rlimits().locked == 0 { Err(EPERM) } else { Ok(()) }
    }

    /// `mlock`, `mlock2`.
    pub(crate) fn sys_mlock(
        &mut self,
        start: u64,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        self.sys_mlock2(start, len, 0, mem)
    }

    pub(crate) fn sys_mlock2(
        &mut self,
        start: u64,
        len: u64,
        flags: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let on_fault = u64::from(libc::MLOCK_ONFAULT);
        if flags as u32 as u64 & !on_fault != 0 {
            return Err(EINVAL.into());
        }
        self.check_may_lock()?;
        let (start, end) = lock_range(start, len)?;
        let rlimits = self.memory_rlimits();
        if rlimits.locked != u64::MAX {
            let parts = self.space.overlapping(start, end).iter();
            let locked = parts.filter(|vma| vma.is(VmaFlags::LOCKED));
            let locked: u64 = locked.map(|vma| vma.part(start, end).bytes()).sum();
            let total = self.space.locked_bytes().saturating_add(end - start);
            if total.saturating_sub(locked) > rlimits.locked {
                return Err(ENOMEM.into());
            }
        }
        let mut wanted = VmaFlags::LOCKED;
        wanted.set(VmaFlags::LOCKED_ON_FAULT, flags & on_fault != 0);
        self.set_locks(start, end, wanted)?;
        if wanted.contains(VmaFlags::LOCKED_ON_FAULT) {
            return Ok(0);
        }
        Ok(self.populate_locked(start, end, mem).map(|()| 0)?)
    }

    pub(crate) fn sys_munlock(&mut self, start: u64, len: u64) -> SyscallResult {
        let (start, end) = lock_range(start, len)?;
        self.set_locks(start, end, VmaFlags::empty())?;
        Ok(0)
    }

    /// Brings in what was locked (`__mm_populate`; its errors as POSIX wants them).
    fn populate_locked(
        &mut self,
        start: u64,
        end: u64,
        mem: &mut dyn UserMemory,
    ) -> Result<(), Errno> {
        let Self { space, files, .. } = self;
        for vma in space.overlapping(start, end) {
            let part = vma.part(start, end);
            if part.prot.is_empty() {
                return Err(ENOMEM);
            }
            space.fill(&part, files, mem).map_err(|OutOfFrames| EAGAIN)?;
            if part.backed_end(files) < part.end {
                return Err(ENOMEM);
            }
        }
        Ok(())
    }

    /// Sets the lock flags of all mappings in a range, up to a hole.
    fn set_locks(&mut self, start: u64, end: u64, wanted: VmaFlags) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let vma = *self.space.vma_at(at).ok_or(ENOMEM)?;
            let part = vma.part(at, end);
            let flags = part.flags.difference(LOCK_FLAGS) | wanted;
            if flags != part.flags {
                let cuts = usize::from(part.start > vma.start) + usize::from(part.end < vma.end);
                if !self.space.has_room(cuts) {
                    return Err(ENOMEM);
                }
                self.space.remove(part.start, part.end);
                self.space.insert(Vma { flags, ..part });
            }
            at = part.end;
        }
        Ok(())
    }

    pub(crate) fn sys_mlockall(&mut self, flags: u64, mem: &mut dyn UserMemory) -> SyscallResult {
        let flags = flags as i32;
        let known = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
        if flags & !known != 0 || flags & (libc::MCL_CURRENT | libc::MCL_FUTURE) == 0 {
            return Err(EINVAL.into());
        }
        self.check_may_lock()?;
        let locks_now = flags & libc::MCL_CURRENT != 0;
        let total: u64 = self.space.vmas().iter().map(Vma::bytes).sum();
        if locks_now && total > self.memory_rlimits().locked {
            return Err(ENOMEM.into());
        }
        let mut wanted = VmaFlags::LOCKED;
        wanted.set(VmaFlags::LOCKED_ON_FAULT, flags & libc::MCL_ONFAULT != 0);
        let to_come = flags & libc::MCL_FUTURE != 0;
        self.space.lock_future = if to_come { wanted } else { VmaFlags::empty() };
        if locks_now {
            self.set_all_locks(wanted);
            if !wanted.contains(VmaFlags::LOCKED_ON_FAULT) {
                let Self { space, files, .. } = self;
                for vma in space.vmas() {
                    space.populate_if_locked(vma, files, mem);
                }
            }
        }
        Ok(0)
    }

    pub(crate) fn sys_munlockall(&mut self) -> SyscallResult {
        self.space.lock_future = VmaFlags::empty();
        self.set_all_locks(VmaFlags::empty());
        Ok(0)
    }

    fn set_all_locks(&mut self, wanted: VmaFlags) {
        let vmas: Vec<(u64, u64)> =
            self.space.vmas().iter().map(|vma| (vma.start, vma.end)).collect();
        for (start, end) in vmas {
            // The mapping is there, and whole: no hole, no cut.
            let _ = self.set_locks(start, end, wanted);
        }
    }
}

/// The pages that `mlock` and `munlock` are about. A length that overflows is none, as in Linux.
fn lock_range(start: u64, len: u64) -> Result<(u64, u64), Errno> {
    let first = start & !(PAGE - 1);
    let bytes = len.wrapping_add(start - first).wrapping_add(PAGE - 1) & !(PAGE - 1);
    let end = first.checked_add(bytes).ok_or(EINVAL)?;
    Ok((first, end))
}

/// Whether Linux takes `advice` for the mapping that `part` is of.
fn check_advice(part: &Vma, advice: i32) -> Result<(), Errno> {
    let locked = part.is(VmaFlags::LOCKED);
    let shared = part.is(VmaFlags::SHARED);
    let is_file = matches!(part.backing, Backing::File { .. });
    let refused = match advice {
        libc::MADV_DONTNEED | libc::MADV_COLD | libc::MADV_PAGEOUT => locked,
        libc::MADV_FREE => locked || is_file || shared,
        libc::MADV_REMOVE => locked || !is_file && !shared,
        libc::MADV_WIPEONFORK => is_file || shared,
        COLLAPSE => true,
        _ => false,
    };
    if refused {
        return Err(EINVAL);
    }
    if advice == libc::MADV_REMOVE && !(shared && part.is(VmaFlags::MAY_WRITE)) {
        return Err(EACCES);
    }
    Ok(())
}
