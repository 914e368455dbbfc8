//! Where functions begin and end, as far as the image says it.
//!
//! Never infers a range from code. Frame entries win over symbols: a linker computes the former,
//! the latter are what an author of assembly wrote.

use super::text::Text;
use crate::symbols::elf::FunctionSymbol;
use crate::symbols::frames::CallFrames;
use std::ops::Range;

/// Disjoint function ranges, sorted.
pub(super) struct Ranges {
    ranges: Vec<Range<u64>>,
}

impl Ranges {
    pub(super) fn new(frames: &CallFrames, symbols: &[FunctionSymbol], text: &Text<'_>) -> Self {
        let usable = |range: &Range<u64>| range.start < range.end && text.has(range.start);
        let of_frames = frames.ranges().iter().map(|frame| frame.code.clone()).filter(usable);
        let mut ranges = disjoint(of_frames.collect());
        let of_symbols = symbols
            .iter()
            .map(|s| s.address..s.address.saturating_add(s.size))
            .filter(usable)
            .filter(|range| !overlaps_any(&ranges, range));
        let of_symbols: Vec<_> = of_symbols.collect();
        ranges.extend(disjoint(of_symbols));
        ranges.sort_by_key(|range| range.start);
        Self { ranges }
    }

    pub(super) fn all(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// What lies between the ranges inside `extent`.
    pub(super) fn gaps(&self, extent: &Range<u64>) -> Vec<Range<u64>> {
        let first = self.ranges.partition_point(|range| range.end <= extent.start);
        let inside = self.ranges.iter().skip(first).take_while(|range| range.start < extent.end);
        let mut start = extent.start;
        let mut gaps = Vec::new();
        for range in inside {
            gaps.push(start..range.start);
            start = range.end;
        }
        gaps.push(start..extent.end);
        gaps.retain(|gap| gap.start < gap.end);
        gaps
    }

    pub(super) fn containing(&self, at: u64) -> Option<Range<u64>> {
        let after = self.ranges.partition_point(|range| range.start <= at);
        self.ranges.get(after.checked_sub(1)?).filter(|range| range.contains(&at)).cloned()
    }

    /// The start of the first range beyond `at`.
    pub(super) fn next_start(&self, at: u64) -> Option<u64> {
        let after = self.ranges.partition_point(|range| range.start <= at);
        self.ranges.get(after).map(|range| range.start)
    }
}

/// Keep the longest range of each start; cut what the ranges before already cover.
fn disjoint(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
    let mut end = 0;
    ranges.retain_mut(|range| {
        range.start = range.start.max(end);
        let keep = range.start < range.end;
        end = end.max(range.end);
        keep
    });
    ranges
}

fn overlaps_any(sorted: &[Range<u64>], range: &Range<u64>) -> bool {
    let after = sorted.partition_point(|known| known.end <= range.start);
    sorted.get(after).is_some_and(|known| known.start < range.end)
}
