//! Which pages of a mapping this process has made present: from the kernel's list of them
//! (`PAGEMAP_SCAN`, Linux 6.7), which skips what is not there, else from `/proc/self/pagemap`,
//! which has an entry for every page.
//!
//! A page that was never present still has what it was mapped with. Where the kernel does not
//! tell, every page counts as present: slower, never wrong.

use crate::address::{PAGE_SHIFT, PAGE_SIZE};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Bit 63: present in RAM; bit 62: in swap (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT_OR_SWAPPED: u64 = 3 << 62;
/// `PAGE_IS_PRESENT` and `PAGE_IS_SWAPPED` of `PAGEMAP_SCAN` (include/uapi/linux/fs.h).
const SCAN_PRESENT_OR_SWAPPED: u64 = 1 << 3 | 1 << 4;
/// Runs of pages that one call may tell.
const RUNS: usize = 512;

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

nix::ioctl_readwrite!(pagemap_scan, b'f', 16, Scan);

/// The page map of this process, opened once: later it may have given up the right to open it. A
/// process made by fork would see its parent's; there is none that has a guest.
pub(super) fn page_map() -> Option<&'static File> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    FILE.get_or_init(|| File::open("/proc/self/pagemap").ok()).as_ref()
}

/// Calls `visit` with the index of each page that is present, of the `pages` from `host` on, in
/// ascending order.
pub(super) fn for_each_present(host: usize, pages: usize, mut visit: impl FnMut(usize)) {
    let Some(file) = page_map() else {
        (0..pages).for_each(visit);
        return;
    };
    let done = scan(file, host, pages, &mut visit);
    read(file, host, done, pages, &mut visit);
}

/// Visits pages by `PAGEMAP_SCAN`. Returns the page up to which it came: 0 where the kernel has no
/// such call.
fn scan(file: &File, host: usize, pages: usize, visit: &mut impl FnMut(usize)) -> usize {
    let mut runs = [Region::default(); RUNS];
    let end = host + pages * PAGE_SIZE;
    let mut at = host;
    while at < end {
        let mut request = Scan {
            size: size_of::<Scan>() as u64,
            start: at as u64,
            end: end as u64,
            vec: runs.as_mut_ptr() as u64,
            vec_len: RUNS as u64,
            category_anyof_mask: SCAN_PRESENT_OR_SWAPPED,
            return_mask: SCAN_PRESENT_OR_SWAPPED,
            ..Scan::default()
        };
        // SAFETY: the kernel writes `walk_end` and at most `vec_len` regions, and `runs` has room
        // for as many; both outlive the call. It changes no page: no flag asks for that.
        let Ok(count) = (unsafe { pagemap_scan(file.as_raw_fd(), &raw mut request) }) else {
            break;
        };
        let next = request.walk_end as usize;
        if next <= at || next > end {
            break;
        }
        for run in runs.iter().take(count.unsigned_abs() as usize) {
            let index = |address: u64| (address as usize).clamp(at, next) - host;
            (index(run.start) / PAGE_SIZE..index(run.end) / PAGE_SIZE).for_each(&mut *visit);
        }
        at = next;
    }
    (at - host) / PAGE_SIZE
}

/// Visits pages from `index` on by reading an entry for each.
fn read(file: &File, host: usize, mut index: usize, pages: usize, visit: &mut impl FnMut(usize)) {
    let mut buffer = vec![0_u8; 8 * PAGE_SIZE];
    while index < pages {
        let batch = (pages - index).min(PAGE_SIZE);
        let bytes = &mut buffer[..batch * 8];
        let offset = ((host >> PAGE_SHIFT) + index) as u64 * 8;
        if let Err(error) = file.read_exact_at(bytes, offset) {
            tracing::debug!(%error, "the page map cannot be read: every page counts as present");
            (index..pages).for_each(visit);
            return;
        }
        for (word, index) in bytes.as_chunks::<8>().0.iter().zip(index..) {
            if u64::from_le_bytes(*word) & PRESENT_OR_SWAPPED != 0 {
                visit(index);
            }
        }
        index += batch;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_find_the_pages_that_were_touched() {
        const PAGES: usize = 5000;
        let mut map = memmap2::MmapMut::map_anon(PAGES * PAGE_SIZE).unwrap();
        // Single pages, more than one call can return, and a run at the end.
        let touched: Vec<usize> = (0..1200).map(|n| n * 4).chain(4990..PAGES).collect();
        for &index in &touched {
            map[index * PAGE_SIZE] = 1;
        }
        let host = map.as_ptr() as usize;
        let file = File::open("/proc/self/pagemap").unwrap();
        let mut found = Vec::new();
        let done = scan(&file, host, PAGES, &mut |index| found.push(index));
        assert!(done == PAGES || (done == 0 && found.is_empty()), "{done}");
        if done == PAGES {
            assert_eq!(found, touched, "by the kernel's list");
        }
        found.clear();
        read(&file, host, 0, PAGES, &mut |index| found.push(index));
        assert_eq!(found, touched, "entry by entry");
        found.clear();
        for_each_present(host, PAGES, |index| found.push(index));
        assert_eq!(found, touched);
    }
}
