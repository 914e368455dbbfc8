//! A part of a vCPU's descriptor, mapped and shared with the kernel.
//!
//! Never reads or writes what is mapped: that is for the owner of each mapping, who knows which
//! side may touch it when.

use nix::errno::Errno;
use std::os::fd::RawFd;
use std::ptr::NonNull;

/// A shared mapping that begins with a `T`. Neither Send nor Sync by itself: whether another thread
/// may touch it depends on what the kernel does there.
#[derive(Debug)]
pub(super) struct SharedMapping<T> {
    at: NonNull<T>,
    bytes: usize,
}

impl<T> SharedMapping<T> {
    /// Maps `bytes` bytes of the vCPU behind `fd`, from `offset` bytes on.
    pub(super) fn map(fd: RawFd, offset: usize, bytes: usize) -> Result<Self, Errno> {
        if bytes < size_of::<T>() {
            return Err(Errno::EOVERFLOW);
        }
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice; the result is checked.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, writable, libc::MAP_SHARED, fd, offset)
        };
        match NonNull::new(at.cast::<T>()) {
            Some(start) if at != libc::MAP_FAILED => Ok(Self { at: start, bytes }),
            _ => Err(Errno::last()),
        }
    }

    /// The first byte, valid for [`bytes`](Self::bytes) bytes as long as `self` lives.
    pub(super) fn as_ptr(&self) -> *mut T {
        self.at.as_ptr()
    }

    /// Length in bytes; at least that of a `T`.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<T> Drop for SharedMapping<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, is owned by `self`, and nothing borrows it.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.bytes) };
    }
}
