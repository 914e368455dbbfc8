//! What becomes of memory that is mapped: `brk`, `munmap`, `mprotect`, `mremap`, `msync`, and
//! `membarrier`. Arguments are checked as Linux does, in its order (mm/mmap.c, mm/mprotect.c,
//! mm/mremap.c of Linux 6.1). Never touches page tables itself.

use crate::address::{PAGE_SIZE, page_ceil};
use crate::linux::abi::errno::{EBUSY, EFAULT, EINVAL, ENOMEM, EPERM};
use crate::linux::mm::bounds::{USER_END, USER_START};
use crate::linux::mm::remap::{Remap, RemapTarget};
use crate::linux::mm::user_memory::{Prot, UserMemory};
use crate::linux::mm::vma::VmaFlags;
use crate::linux::process::Process;
use crate::linux::sched::stop::SyscallResult;

const PAGE: u64 = PAGE_SIZE as u64;
/// `PROT_GROWSDOWN`, `PROT_GROWSUP`: act on the whole stack.
const PROT_GROWS_DOWN: u64 = 0x0100_0000;
const PROT_GROWS_UP: u64 = 0x0200_0000;
/// `PROT_SEM`, which x86 ignores.
const PROT_SEM: u64 = 8;
/// `MREMAP_DONTUNMAP`.
const KEEP_OLD: u64 = 4;
/// The commands of `membarrier` there are, and which of them want a registration.
const BARRIERS: u64 = (1 << 7) - 1;
const BARRIER_PRIVATE: u64 = 1 << 3;
const BARRIER_PRIVATE_REGISTER: u64 = 1 << 4;
const BARRIER_CORE: u64 = 1 << 5;
const BARRIER_CORE_REGISTER: u64 = 1 << 6;

pub(crate) fn flag(flags: u64, bit: i32) -> bool {
    flags & bit as u64 != 0
}

pub(crate) fn prot_from(bits: u64) -> Prot {
    Prot::from_bits_truncate((bits & 7) as u8)
}

impl Process {
    /// `pkey_alloc`: as on a CPU without protection keys.
    pub(crate) fn sys_pkey_alloc(&self) -> SyscallResult {
        Err(EINVAL.into())
    }

    /// `pkey_free`: likewise.
    pub(crate) fn sys_pkey_free(&self) -> SyscallResult {
        Err(EINVAL.into())
    }

    pub(crate) fn sys_brk(&mut self, wanted: u64, mem: &mut dyn UserMemory) -> SyscallResult {
        let rlimits = self.memory_rlimits();
        let Self { space, files, .. } = self;
        Ok(space.set_break(wanted, &rlimits, files, mem))
    }

    pub(crate) fn sys_munmap(
        &mut self,
        start: u64,
        len: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        if !start.is_multiple_of(PAGE) || start > USER_END || len > USER_END - start {
            return Err(EINVAL.into());
        }
        let end = page_ceil(len).filter(|len| *len > 0).map(|len| start + len).ok_or(EINVAL)?;
        if self.space.overlapping(start, end).is_empty() {
            return Ok(0);
        }
        if !self.space.may_remove(start, end) {
            return Err(ENOMEM.into());
        }
        self.space.unmap(start, end, mem);
        self.forget_images(start, end);
        Ok(0)
    }

    pub(crate) fn sys_mprotect(
        &mut self,
        start: u64,
        len: u64,
        bits: u64,
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let grows = bits & (PROT_GROWS_DOWN | PROT_GROWS_UP);
        if grows == PROT_GROWS_DOWN | PROT_GROWS_UP || !start.is_multiple_of(PAGE) {
            return Err(EINVAL.into());
        }
        if len == 0 {
            return Ok(0);
        }
        let len = page_ceil(len).filter(|len| *len > 0).ok_or(ENOMEM)?;
        let end = start.checked_add(len).ok_or(ENOMEM)?;
        if bits & !(7 | PROT_SEM | PROT_GROWS_DOWN | PROT_GROWS_UP) != 0 {
            return Err(EINVAL.into());
        }
        let mut from = start;
        if grows != 0 {
            let first = self.space.overlapping(start, end).first().ok_or(ENOMEM)?;
            if grows == PROT_GROWS_DOWN {
                from = first.start;
            } else if first.start > start {
                return Err(ENOMEM.into());
            }
            if grows == PROT_GROWS_UP || !first.is(VmaFlags::GROWS_DOWN) {
                return Err(EINVAL.into());
            }
        }
        let rlimits = self.memory_rlimits();
        let Self { space, files, .. } = self;
        space.protect(from, end, prot_from(bits), &rlimits, files, mem)?;
        Ok(0)
    }

    /// `pkey_mprotect` on a CPU without protection keys: as `mprotect` with no key.
    pub(crate) fn sys_pkey_mprotect(
        &mut self,
        [start, len, bits, key, ..]: [u64; 6],
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        match key as i32 {
            -1 => self.sys_mprotect(start, len, bits, mem),
            _ => Err(EINVAL.into()),
        }
    }

    pub(crate) fn sys_mremap(
        &mut self,
        [start, old_len, new_len, flags, to, _]: [u64; 6],
        mem: &mut dyn UserMemory,
    ) -> SyscallResult {
        let known = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64 | KEEP_OLD;
        let may_move = flag(flags, libc::MREMAP_MAYMOVE);
        let is_fixed = flag(flags, libc::MREMAP_FIXED);
        let keeps_old = flags & KEEP_OLD != 0;
        if flags & !known != 0
            || (is_fixed || keeps_old) && !may_move
            || keeps_old && old_len != new_len
            || !start.is_multiple_of(PAGE)
        {
            return Err(EINVAL.into());
        }
        let old_bytes = page_ceil(old_len).ok_or(EINVAL)?;
        let new_bytes = page_ceil(new_len).filter(|len| *len > 0).ok_or(EINVAL)?;
        self.space.vma_at(start).ok_or(EFAULT)?;
        let target = match (may_move, is_fixed || keeps_old) {
            (false, _) => RemapTarget::InPlace,
            (true, false) => RemapTarget::Anywhere,
            (true, true) => {
                let old_end = start.checked_add(old_bytes).ok_or(EINVAL)?;
                let in_reach = new_bytes <= USER_END && to <= USER_END - new_bytes;
                let overlaps = old_end > to && to.wrapping_add(new_bytes) > start;
                if !to.is_multiple_of(PAGE) || !in_reach || overlaps {
                    return Err(EINVAL.into());
                }
                match is_fixed {
                    true if to < USER_START => return Err(EPERM.into()),
                    true => RemapTarget::Fixed(to),
                    false => RemapTarget::Wish(to),
                }
            }
        };
        let rlimits = self.memory_rlimits();
        let call = Remap { start, old_bytes, new_bytes, target, keeps_old };
        let Self { space, files, .. } = self;
        Ok(space.remap(call, &rlimits, files, mem)?)
    }

    pub(crate) fn sys_msync(&self, start: u64, len: u64, flags: u64) -> SyscallResult {
        let both = (libc::MS_ASYNC | libc::MS_SYNC) as u64;
        let known = both | libc::MS_INVALIDATE as u64;
        if flags & !known != 0 || !start.is_multiple_of(PAGE) || flags & both == both {
            return Err(EINVAL.into());
        }
        let end = page_ceil(len).and_then(|len| start.checked_add(len)).ok_or(ENOMEM)?;
        if start == end {
            return Ok(0);
        }
        let mut parts = self.space.overlapping(start, end).iter();
        if flag(flags, libc::MS_INVALIDATE) && parts.any(|vma| vma.is(VmaFlags::LOCKED)) {
            return Err(EBUSY.into());
        }
        // Files are written to before any call that could tell (`sharing`).
        if self.space.is_covered(start, end) { Ok(0) } else { Err(ENOMEM.into()) }
    }

    /// `membarrier`: there is one CPU, and every system call is a barrier.
    pub(crate) fn sys_membarrier(&mut self, command: u64, flags: u64) -> SyscallResult {
        let command = u64::from(command as u32);
        if flags as u32 != 0 {
            return Err(EINVAL.into());
        }
        let needs = match command {
            0 => return Ok(BARRIERS),
            BARRIER_PRIVATE => BARRIER_PRIVATE_REGISTER,
            BARRIER_CORE => BARRIER_CORE_REGISTER,
            _ if command & BARRIERS == 0 || !command.is_power_of_two() => return Err(EINVAL.into()),
            _ => 0,
        };
        if needs & !self.space.barriers != 0 {
            return Err(EPERM.into());
        }
        if command & (BARRIER_PRIVATE_REGISTER | BARRIER_CORE_REGISTER) != 0 {
            // Registering for one kind is registering for the plain one too.
            self.space.barriers |= command | BARRIER_PRIVATE_REGISTER;
        }
        Ok(0)
    }
}
