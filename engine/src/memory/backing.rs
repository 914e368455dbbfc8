//! Immutable pages in a file: a memfd for a snapshot just taken, or a snapshot file.
//!
//! Machines map them copy-on-write; the rewind copies from a shared read-only mapping of the
//! same bytes. Never knows what a page means.

use super::page::{Page, ZERO_PAGE};
use crate::address::{PAGE_SIZE, Pfn};
use memmap2::{Mmap, MmapOptions};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

/// Pages that are neighbours both in the guest and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// First page.
    pub first: Pfn,
    /// Number of pages; not 0.
    pub pages: u32,
    /// Offset in bytes of the first page's data, from the start of the page data.
    pub offset: u64,
}

/// An immutable, sparse set of pages. A page that is not in it is all zeros.
#[derive(Debug)]
pub struct PageFile {
    file: File,
    /// Where in `file` the page data starts, in bytes; page-aligned.
    data_at: u64,
    data: Option<Mmap>,
    /// Sorted by `first`, not overlapping.
    extents: Vec<Extent>,
}

impl PageFile {
    /// Takes the page data that starts at `data_at` in `file`.
    ///
    /// # Errors
    /// The extents are not as [`check`](Self::check) wants them; or the file cannot be mapped, or
    /// is shorter than they need.
    pub fn open(file: File, data_at: u64, extents: Vec<Extent>) -> io::Result<Self> {
        let refuse = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let data_bytes = Self::check(&extents)?;
        let Some(file_end) = data_at.checked_add(data_bytes) else {
            return refuse("the page data ends past 2^64");
        };
        if file.metadata()?.len() < file_end {
            return refuse("the file is shorter than its page extents say");
        }
        let data = (data_bytes > 0).then(|| {
            // SAFETY: the mapping is read-only and private to this object. A memfd is sealed; a
            // snapshot file on disk can be truncated by its owner while it is in use, which ends
            // in SIGBUS as for any mapped file, and which no check here could prevent.
            unsafe { MmapOptions::new().offset(data_at).len(data_bytes as usize).map(&file) }
        });
        Ok(Self { data: data.transpose()?, file, data_at, extents })
    }

    /// Checks that the extents are in the guest's order, do not overlap, and that their data lies
    /// without gaps in the same order. Returns its length in bytes.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn check(extents: &[Extent]) -> io::Result<u64> {
        let refuse = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        let (mut next, mut data_bytes) = (0_u64, 0_u64);
        for extent in extents {
            let bytes = u64::from(extent.pages) * PAGE_SIZE as u64;
            let (Some(end), Some(data_end)) = (
                extent.first.0.checked_add(u64::from(extent.pages)),
                data_bytes.checked_add(bytes),
            ) else {
                return refuse("a page extent ends past 2^64");
            };
            if extent.pages == 0 || extent.first.0 < next || extent.offset != data_bytes {
                return refuse(
                    "the page extents are empty, out of order or not one after the other",
                );
            }
            if end > u64::MAX >> crate::address::PAGE_SHIFT {
                return refuse("a page extent lies past the end of physical memory");
            }
            (next, data_bytes) = (end, data_end);
        }
        Ok(data_bytes)
    }

    /// The extents, in the guest's order.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Number of pages that are stored.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.extents.iter().map(|e| u64::from(e.pages)).sum()
    }

    /// Offset of a page's bytes in the page data; `None` for a page of zeros.
    #[must_use]
    pub fn offset_of(&self, pfn: Pfn) -> Option<u64> {
        let after = self.extents.partition_point(|e| e.first <= pfn);
        let extent = self.extents.get(after.checked_sub(1)?)?;
        let index = pfn.0 - extent.first.0;
        (index < u64::from(extent.pages)).then(|| extent.offset + index * PAGE_SIZE as u64)
    }

    /// The page whose bytes start at `offset` in the page data.
    #[must_use]
    pub fn page_at(&self, offset: u64) -> Option<&Page> {
        let from = usize::try_from(offset).ok()?;
        let bytes = self.data.as_ref()?.get(from..from.checked_add(PAGE_SIZE)?)?;
        bytes.try_into().ok()
    }

    /// The `length` bytes from `offset` on in the page data.
    pub(super) fn bytes_at(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset).ok()?;
        self.data.as_ref()?.get(from..from.checked_add(length)?)
    }

    /// The bytes of page `pfn`; `None` for a page of zeros.
    #[must_use]
    pub fn page(&self, pfn: Pfn) -> Option<&Page> {
        self.page_at(self.offset_of(pfn)?)
    }

    /// The bytes of a whole extent.
    #[must_use]
    pub fn extent_bytes(&self, extent: &Extent) -> Option<&[u8]> {
        let from = usize::try_from(extent.offset).ok()?;
        let to = from.checked_add(extent.pages as usize * PAGE_SIZE)?;
        self.data.as_ref()?.get(from..to)
    }

    /// Maps an extent copy-on-write at `to`.
    ///
    /// # Safety
    /// `to` must be the start of a mapping of at least the extent's length which the caller owns
    /// and to which no references exist.
    pub(super) unsafe fn map_over(&self, extent: &Extent, to: *mut u8) -> io::Result<()> {
        let bytes = extent.pages as usize * PAGE_SIZE;
        let offset = i64::try_from(self.data_at + extent.offset)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: the caller owns the target; the file's length was checked in `open`.
        let at = unsafe {
            libc::mmap(
                to.cast(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                self.file.as_raw_fd(),
                offset,
            )
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Extents past this number are merged over the zero pages between them, because each costs the
/// host one mapping per machine (vm.max_map_count is 65,530 by default).
const GAP_PAGES_MERGED: u64 = 8;

/// Collects pages, in ascending order, into a sealed memfd.
#[derive(Debug)]
pub struct PageFileBuilder {
    file: io::BufWriter<File>,
    written: u64,
    extents: Vec<Extent>,
}

impl PageFileBuilder {
    /// An empty memfd.
    ///
    /// # Errors
    /// `memfd_create` failed.
    pub fn new() -> io::Result<Self> {
        let fd =
            memfd_create(c"dejavm-snapshot", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let file = io::BufWriter::with_capacity(1 << 20, File::from(fd));
        Ok(Self { file, written: 0, extents: Vec::new() })
    }

    /// Adds a page; pages must come in ascending order.
    ///
    /// # Errors
    /// The host has no memory for it.
    pub fn push(&mut self, pfn: Pfn, bytes: &Page) -> io::Result<()> {
        if let Some(last) = self.extents.last_mut() {
            let next = last.first.0 + u64::from(last.pages);
            let gap = pfn.0.saturating_sub(next);
            if pfn.0 >= next && gap <= GAP_PAGES_MERGED && last.pages < u32::MAX / 2 {
                for _ in 0..gap {
                    self.file.write_all(&ZERO_PAGE)?;
                }
                self.file.write_all(bytes)?;
                self.written += (gap + 1) * PAGE_SIZE as u64;
                last.pages += gap as u32 + 1;
                return Ok(());
            }
        }
        self.extents.push(Extent { first: pfn, pages: 1, offset: self.written });
        self.file.write_all(bytes)?;
        self.written += PAGE_SIZE as u64;
        Ok(())
    }

    /// Seals the memfd, so that nothing can change or truncate it any more.
    ///
    /// # Errors
    /// The host has no memory for the last pages, or refuses the mapping.
    pub fn finish(self) -> io::Result<PageFile> {
        use nix::fcntl::{FcntlArg, SealFlag, fcntl};
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let seals = SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        PageFile::open(file, 0, self.extents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(fill: u8) -> Page {
        [fill; PAGE_SIZE]
    }

    #[test]
    fn a_page_comes_back_and_an_absent_one_is_zero() {
        let mut builder = PageFileBuilder::new().unwrap();
        for (pfn, fill) in [(1, 1), (2, 2), (5, 5), (1000, 9)] {
            builder.push(Pfn(pfn), &page(fill)).unwrap();
        }
        let file = builder.finish().unwrap();
        assert_eq!(file.page(Pfn(2)), Some(&page(2)));
        assert_eq!(file.page(Pfn(1000)), Some(&page(9)));
        assert_eq!(file.page(Pfn(3)), Some(&page(0)), "a small gap is stored");
        assert_eq!(file.page(Pfn(0)), None);
        assert_eq!(file.page(Pfn(500)), None);
        assert_eq!(file.page(Pfn(1001)), None);
        assert_eq!(file.extents().len(), 2);
    }

    #[test]
    fn refuses_extents_that_lie() {
        let whole = || {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&page(1)).unwrap();
            file
        };
        let extent = |first, pages, offset| Extent { first: Pfn(first), pages, offset };
        for bad in [
            vec![extent(0, 2, 0)],
            vec![extent(0, 0, 0)],
            vec![extent(0, 1, 1)],
            vec![extent(1, 1, 0), extent(0, 1, 0)],
            vec![extent(u64::MAX, 1, 0)],
            vec![extent(0, 1, u64::MAX - 4095)],
        ] {
            assert!(PageFile::open(whole(), 0, bad.clone()).is_err(), "{bad:?}");
        }
        assert!(PageFile::open(whole(), 0, vec![extent(7, 1, 0)]).is_ok());
    }
}
