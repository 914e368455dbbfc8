//! Copies between the host and the process's memory, as a kernel's `copy_from_user` and
//! `copy_to_user`: a page that is mapped lazily is brought in first. The only way by which a
//! system call touches guest memory; never allocates by a guest's length.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::errno::{EFAULT, ENAMETOOLONG, Errno};
use crate::linux::abi::syscall::FaultAction;
use crate::linux::fs::files::Files;
use crate::linux::mm::address_space::AddressSpace;
use crate::linux::mm::bounds::in_user;
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::mm::vma::Vma;
use crate::outcome::{Access, Signal};
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest path with its terminating NUL (`PATH_MAX`).
pub(crate) const PATH_MAX: usize = 4096;

/// Why a copy to or from the process's memory failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserError {
    /// What the call fails with.
    Errno(Errno),
    /// The machine's memory is used up.
    OutOfMemory,
}

impl From<Errno> for UserError {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

/// A process's memory during one system call.
pub(crate) struct User<'a> {
    pub(crate) space: &'a AddressSpace,
    pub(crate) files: &'a Files,
    pub(crate) mem: &'a mut dyn UserMemory,
    /// How far stacks may grow.
    pub(crate) stack_bytes_max: u64,
    pub(crate) growth: &'a Growth,
}

/// The page by which a system call's accesses made a stack grow, until the end of the call, when
/// the address space learns of it; 0 for none.
#[derive(Debug, Default)]
pub(crate) struct Growth(AtomicU64);

impl Growth {
    /// Notes a growth down to `vma`'s start; false if another stack grew in the same call.
    fn note(&self, vma: &Vma, space: &AddressSpace, stack_bytes_max: u64) -> bool {
        let before = self.0.load(Ordering::Relaxed);
        let is_same = before == 0
            || space.growth(before, stack_bytes_max).is_some_and(|other| other.end == vma.end);
        if is_same && (before == 0 || vma.start < before) {
            self.0.store(vma.start, Ordering::Relaxed);
        }
        is_same
    }

    /// What was noted, if anything.
    pub(crate) fn take(&self) -> Option<u64> {
        let page = self.0.load(Ordering::Relaxed);
        if page != 0 {
            self.0.store(0, Ordering::Relaxed);
        }
        (page != 0).then_some(page)
    }
}

impl Clone for Growth {
    /// Nothing is noted between two calls.
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// A copy of a path given by the process.
pub(crate) struct PathBuffer {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl PathBuffer {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Splits `at..at + len` into parts that lie within one page each.
fn by_page(at: Gva, len: usize) -> impl Iterator<Item = (Gva, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let here = at.wrapping_add(done as u64);
        let part = (PAGE_SIZE - here.page_offset()).min(len - done);
        let range = done..done + part;
        done += part;
        Some((here, range))
    })
}

fn check_range(at: Gva, len: usize) -> Result<(), UserError> {
    let end = at.checked_add(len as u64).ok_or(EFAULT)?;
    if in_user(at.0, end.0) { Ok(()) } else { Err(EFAULT.into()) }
}

impl User<'_> {
    fn fault(&mut self, at: Gva, access: Access) -> FaultAction {
        let (space, max) = (self.space, self.stack_bytes_max);
        if let Some(vma) = space.vma_at(at.0) {
            return space.fault_in(vma, at, access, self.files, self.mem);
        }
        match space.growth(at.page_floor().0, max) {
            Some(grown) if self.growth.note(&grown, space, max) => {
                space.fault_in(&grown, at, access, self.files, self.mem)
            }
            _ => FaultAction::Signal(Signal::SEGV),
        }
    }

    fn bring_in(&mut self, at: Gva, access: Access) -> Result<(), UserError> {
        match self.fault(at, access) {
            FaultAction::Retry => Ok(()),
            FaultAction::Signal(_) => Err(EFAULT.into()),
            FaultAction::OutOfMemory => Err(UserError::OutOfMemory),
        }
    }

    /// Copies guest memory to `out`.
    pub(crate) fn read(&mut self, at: Gva, out: &mut [u8]) -> Result<(), UserError> {
        check_range(at, out.len())?;
        if self.mem.read(at, out).is_ok() {
            return Ok(());
        }
        for (here, range) in by_page(at, out.len()) {
            let part = out.get_mut(range).unwrap_or_default();
            if self.mem.read(here, part).is_err() {
                self.bring_in(here, Access::Read)?;
                self.mem.read(here, part).map_err(|_| EFAULT)?;
            }
        }
        Ok(())
    }

    /// Copies `bytes` to guest memory, all of them or with an error.
    pub(crate) fn write(&mut self, at: Gva, bytes: &[u8]) -> Result<(), UserError> {
        match self.write_some(at, bytes) {
            (_, Some(stop)) => Err(stop),
            (_, None) => Ok(()),
        }
    }

    /// Copies as many of `bytes` as possible to guest memory: how many, and why not all.
    pub(crate) fn write_some(&mut self, at: Gva, bytes: &[u8]) -> (usize, Option<UserError>) {
        let whole = check_range(at, bytes.len());
        if whole.is_ok() && self.mem.write(at, bytes).is_ok() {
            return (bytes.len(), None);
        }
        for (here, range) in by_page(at, bytes.len()) {
            let done = range.start;
            let part = bytes.get(range).unwrap_or_default();
            let copied = check_range(here, part.len()).and_then(|()| {
                if self.mem.write(here, part).is_ok() {
                    return Ok(());
                }
                self.bring_in(here, Access::Write)?;
                self.mem.write(here, part).map_err(|_| EFAULT.into())
            });
            if let Err(stop) = copied {
                return (done, Some(stop));
            }
        }
        (bytes.len(), None)
    }

    pub(crate) fn read_u64(&mut self, at: Gva) -> Result<u64, UserError> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn read_u32(&mut self, at: Gva) -> Result<u32, UserError> {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Copies a NUL-terminated path.
    pub(crate) fn read_path(&mut self, at: Gva) -> Result<PathBuffer, UserError> {
        let mut path = PathBuffer { bytes: [0; PATH_MAX], len: 0 };
        for (here, range) in by_page(at, PATH_MAX) {
            let start = range.start;
            let part = path.bytes.get_mut(range).unwrap_or_default();
            self.read(here, part)?;
            if let Some(nul) = part.iter().position(|byte| *byte == 0) {
                path.len = start + nul;
                return Ok(path);
            }
        }
        Err(ENAMETOOLONG.into())
    }
}
