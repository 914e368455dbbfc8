//! Which pages of a mapping this process has made present, from `/proc/self/pagemap`.
//!
//! A page that was never present still has what it was mapped with. Where the kernel does not
//! tell, every page counts as present: slower, never wrong.

use crate::address::{PAGE_SHIFT, PAGE_SIZE};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bit 63: present in RAM; bit 62: in swap (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT_OR_SWAPPED: u64 = 3 << 62;

pub(super) fn for_each_present(host: usize, pages: usize, mut visit: impl FnMut(usize)) {
    let Ok(file) = File::open("/proc/self/pagemap") else {
        (0..pages).for_each(visit);
        return;
    };
    let mut buffer = vec![0_u8; 8 * PAGE_SIZE];
    let mut index = 0;
    while index < pages {
        let batch = (pages - index).min(PAGE_SIZE);
        let bytes = &mut buffer[..batch * 8];
        let offset = ((host >> PAGE_SHIFT) + index) as u64 * 8;
        if file.read_exact_at(bytes, offset).is_err() {
            (index..pages).for_each(visit);
            return;
        }
        for (word, index) in bytes.chunks_exact(8).zip(index..) {
            let entry = word.try_into().map_or(u64::MAX, u64::from_le_bytes);
            if entry & PRESENT_OR_SWAPPED != 0 {
                visit(index);
            }
        }
        index += batch;
    }
}
