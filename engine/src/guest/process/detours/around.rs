//! What is around a program's code in its snapshot: which pages of it are as in its file, and which
//! addresses in it the program has anywhere in memory.
//!
//! Never changes anything.

use super::config::DetourConfig;
use super::error::DetourError;
use crate::address::{Gva, PAGE_SIZE, Pfn};
use crate::coverage::detours::Image;
use crate::linux::abi::registers::Registers;
use crate::memory::{GuestMemory, Page, PageFile, ZERO_PAGE};
use crate::paging::{NO_EXECUTE, PRESENT, Tables, USER, frame_of, may_write};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

const PAGE: u64 = PAGE_SIZE as u64;

/// A page of code.
#[derive(Clone, Copy, Debug)]
pub(super) struct CodePage {
    pub pfn: Pfn,
    /// It holds what the file has there.
    pub is_intact: bool,
}

/// The pages of `image`'s code that are in memory, by address.
///
/// # Errors
/// The program can write one of them.
pub(super) fn code_pages(
    memory: &GuestMemory,
    config: &DetourConfig<'_>,
    image: &Image<'_>,
) -> Result<BTreeMap<u64, CodePage>, DetourError> {
    let mut pages = BTreeMap::new();
    for extent in image.blocks.code.extents() {
        let start = extent.start.wrapping_add(image.base);
        let Some(end) = start.checked_add(extent.end - extent.start) else { continue };
        let mut at = Gva(start).page_floor().0;
        while at < end {
            if let Some(pfn) = code_frame(memory, config.tables, at)? {
                let page = config.pages.page(pfn).unwrap_or(&ZERO_PAGE);
                let is_intact = is_intact(image, page, at, start.max(at)..end.min(at + PAGE));
                pages.insert(at, CodePage { pfn, is_intact });
            }
            at += PAGE;
        }
    }
    Ok(pages)
}

/// The frame of the program's code at `at`, if it is there.
pub(super) fn code_frame(
    memory: &GuestMemory,
    tables: &Tables,
    at: u64,
) -> Result<Option<Pfn>, DetourError> {
    let Some((_, entry)) = tables.leaf(memory, Gva(at)) else { return Ok(None) };
    if entry & PRESENT == 0 || entry & USER == 0 || entry & NO_EXECUTE != 0 {
        return Ok(None);
    }
    if may_write(entry) {
        return Err(DetourError::WritableCode { at });
    }
    Ok(Some(frame_of(entry)))
}

/// Whether `page`, which is at `at`, has at `range` what the image has there.
fn is_intact(image: &Image<'_>, page: &Page, at: u64, range: Range<u64>) -> bool {
    let Image { elf, blocks, base, .. } = image;
    let from_file = blocks.code.bytes_from(elf, range.start.wrapping_sub(*base));
    let here = (range.start - at) as usize..(range.end - at) as usize;
    let length = here.len();
    page.get(here).is_some_and(|bytes| from_file.get(..length) == Some(bytes))
}

/// Every address in `code` that is in the program's memory or in a register of one of its threads.
pub(super) fn pointers(config: &DetourConfig<'_>, code: &[Range<u64>]) -> HashSet<u64> {
    let is_code = |word: &u64| code.iter().any(|range| range.contains(word));
    let waiting = config.process.threads.iter().filter_map(|thread| thread.context.as_ref());
    let threads = waiting.map(|context| context.regs).chain([(*config.regs).into()]);
    words(config.pages).chain(threads.flat_map(in_registers)).filter(is_code).collect()
}

/// What the registers hold that can be an address.
fn in_registers(r: Registers) -> [u64; 17] {
    [
        r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15, r.rip,
    ]
}

/// All words of memory.
fn words(pages: &PageFile) -> impl Iterator<Item = u64> + '_ {
    let bytes = pages.extents().iter().filter_map(|extent| pages.extent_bytes(extent));
    bytes.flat_map(|bytes| {
        let (words, _) = bytes.as_chunks::<8>();
        words.iter().map(|word| u64::from_le_bytes(*word))
    })
}
