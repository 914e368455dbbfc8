//! Rewritten code before it is in the guest: what becomes of each page, where trampolines are to be,
//! and what is in them.
//!
//! Never writes into the guest.

use super::around;
use super::code::{Breakpoint, CodePage, DetourCounts};
use super::config::DetourConfig;
use super::error::DetourError;
use super::region::{Region, bytes_before_code};
use crate::address::{Gpa, Gva, PAGE_SIZE, Pfn};
use crate::arch::INT3;
use crate::coverage::detours::{Detail, Edges, Image, Left, Marks, Patch, Surroundings, plan};
use crate::linux::mm::bounds::USER_START;
use crate::linux::process::Process;
use crate::memory::{GuestMemory, ZERO_PAGE};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

pub(super) const PAGE: u64 = PAGE_SIZE as u64;
/// How far from an image its trampolines may be: a jump reaches 2 GiB, and what the program maps
/// next is nearer.
const NEAR: Range<u64> = 0x2000_0000..0x7000_0000;

/// Rewritten code before it is in the guest.
#[derive(Default)]
pub(super) struct Draft {
    /// Code pages by address.
    pub(super) pages: BTreeMap<u64, CodePage>,
    pub(super) regions: Vec<Region>,
    /// What is in each region.
    pub(super) code: Vec<Vec<u8>>,
    pub(super) breakpoints: HashMap<u64, Breakpoint>,
    pub(super) dead: Vec<Range<u64>>,
    pub(super) counts: DetourCounts,
    /// The number of the first edge.
    pub(super) blocks: u32,
}

/// Rewrites every image; `next` is the first free byte of the slot.
pub(super) fn draft(
    memory: &GuestMemory,
    config: &DetourConfig<'_>,
    images: &[Image<'_>],
    next: &mut Gpa,
) -> Result<Draft, DetourError> {
    let code: Vec<_> = images.iter().flat_map(extents).collect();
    let pointers = around::pointers(config, &code);
    let end = |image: &Image<'_>| image.first.saturating_add(image.blocks.starts.len() as u32);
    let purpose = config.purpose;
    let mut draft = Draft { blocks: images.iter().map(end).max().unwrap_or(0), ..Draft::default() };
    for image in images {
        let marks = draft.marks(image, purpose.detail());
        let pages = around::code_pages(memory, config, image)?;
        let (Some(first), Some(last)) = (pages.keys().next(), pages.keys().next_back()) else {
            continue;
        };
        let span = *first..*last + PAGE;
        let is_free = |range: Range<u64>| {
            let mut all = (Gva(range.start).page_floor().0..range.end).step_by(PAGE_SIZE);
            all.all(|at| pages.get(&at).is_some_and(|page| page.is_intact))
                && !config.crash_points.iter().any(|point| range.contains(point))
        };
        let is_pointed_at = |at| pointers.contains(&at);
        let around = Surroundings { is_free: &is_free, is_pointed_at: &is_pointed_at };
        let plan = plan(image, &marks, &around);
        let has_news = purpose.detail() != Detail::Blocks;
        let (map_bytes, before) = bytes_before_code(purpose.data_bytes(image, &plan), has_news);
        let code_bytes = purpose.code_bytes_max(image, &plan);
        let bytes = before + code_bytes.next_multiple_of(PAGE).max(PAGE);
        let at = room(config.process, &span, bytes, &draft.regions)?;
        let emitted = purpose.emit(image, &marks, &plan, at + before, at);
        for (at, page) in &pages {
            draft.copy_page(config, *at, page.pfn, next);
        }
        let code = at + before..at + bytes;
        let map = take(next, bytes);
        let (all, numbers) = (at..at + bytes, emitted.numbers);
        let edges = numbers.iter().filter(|number| **number >= draft.blocks).count();
        draft.counts.edges += edges;
        draft.counts.detours += numbers.len() - edges;
        let total = image.blocks.starts.len();
        let news = if has_news { vec![u8::MAX; numbers.len()] } else { Vec::new() };
        draft.regions.push(Region { all, code, map, map_bytes, numbers, news, purpose, total });
        draft.code.push(emitted.code);
        draft.rewrite(&emitted.patches);
        draft.add_breakpoints(image, &emitted.left, config.crash_points);
    }
    for &point in config.crash_points {
        draft.write(point, INT3);
    }
    draft.dead = merged(std::mem::take(&mut draft.dead));
    Ok(draft)
}

pub(super) fn take(next: &mut Gpa, bytes: u64) -> Gpa {
    let at = *next;
    *next = next.wrapping_add(bytes);
    at
}

/// Where an image has code in the address space.
fn extents(image: &Image<'_>) -> Vec<Range<u64>> {
    let moved = |at: u64| at.wrapping_add(image.base);
    image.blocks.code.extents().map(|range| moved(range.start)..moved(range.end)).collect()
}

impl Draft {
    /// Replaces one byte of a code page that is in memory; what it was.
    pub(super) fn write(&mut self, at: u64, byte: u8) -> Option<(Gpa, u8)> {
        let page = self.pages.get_mut(&Gva(at).page_floor().0)?;
        let offset = Gva(at).page_offset();
        let place = page.place.wrapping_add(offset as u64);
        Some((place, std::mem::replace(page.bytes.get_mut(offset)?, byte)))
    }

    /// Whether something else than the program's own stands at `at`.
    pub(super) fn is_rewritten(&self, at: u64) -> bool {
        self.dead.iter().any(|range| range.contains(&at)) || self.breakpoints.contains_key(&at)
    }

    /// Makes a copy of the code page at `at`, which is this frame's, unless there is one.
    pub(super) fn copy_page(
        &mut self,
        config: &DetourConfig<'_>,
        at: u64,
        pfn: Pfn,
        next: &mut Gpa,
    ) {
        let at = Gva(at).page_floor().0;
        self.pages.entry(at).or_insert_with(|| {
            let bytes = Box::new(*config.pages.page(pfn).unwrap_or(&ZERO_PAGE));
            let has_batches = config.purpose.detail() != Detail::Blocks;
            let place = take(next, PAGE);
            let in_batches = has_batches.then(|| take(next, PAGE));
            CodePage { at, bytes, place, in_batches }
        });
    }

    /// What marks itself in the next image besides blocks.
    fn marks(&mut self, image: &Image<'_>, detail: Detail) -> Marks {
        let edges = match detail {
            Detail::Blocks => Edges::default(),
            Detail::Edges | Detail::Counts => Edges::find(image.elf, image.blocks),
        };
        let first_edge = self.blocks.saturating_add(self.counts.edges_total as u32);
        self.counts.edges_total += edges.len();
        Marks { detail, edges, first_edge }
    }

    fn rewrite(&mut self, patches: &[Patch]) {
        for patch in patches {
            for (at, byte) in (patch.at..).zip(&patch.bytes) {
                self.write(at, *byte);
            }
            self.dead.push(patch.at..patch.at + patch.bytes.len() as u64);
        }
    }

    /// Puts a breakpoint at each block of `left` that is in memory.
    fn add_breakpoints(&mut self, image: &Image<'_>, left: &[(u32, Left)], crash_points: &[u64]) {
        for &(number, reason) in left {
            let index = number.wrapping_sub(image.first) as usize;
            let Some(start) = image.blocks.starts.get(index) else { continue };
            let at = start.wrapping_add(image.base);
            // The program crashes by being there.
            if crash_points.contains(&at) {
                continue;
            }
            if let Some((place, original)) = self.write(at, INT3) {
                self.breakpoints.insert(at, Breakpoint { number, place, original });
                *self.counts.left.entry(reason).or_default() += 1;
            }
        }
    }
}

/// Sorted, with those that touch made one.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Where `bytes` bytes are near the image at `span`, and in nobody's way.
pub(super) fn room(
    process: &Process,
    span: &Range<u64>,
    bytes: u64,
    others: &[Region],
) -> Result<u64, DetourError> {
    let gap = |low: u64, high: u64| {
        let low = low.max(USER_START);
        // Below those of other images, which were looked for in the same place.
        let others = others.iter().filter(|other| other.all.start < high && low < other.all.end);
        let high = others.map(|other| other.all.start).min().unwrap_or(high);
        process.space.find_gap(bytes, low, high)
    };
    let below = span.end.saturating_sub(NEAR.end)..span.start.saturating_sub(NEAR.start);
    let above = span.end.saturating_add(NEAR.start)..span.start.saturating_add(NEAR.end);
    let found = gap(below.start, below.end).or_else(|| gap(above.start, above.end));
    found.ok_or(DetourError::NoRoom { at: span.start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(merged(vec![9..12, 0..4, 1..2, 4..6]), [0..6, 9..12]);
        assert_eq!(merged(Vec::new()), []);
    }
}
