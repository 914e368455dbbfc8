//! Code that the image does not describe: built without unwind tables, stripped of symbols.
//!
//! Such code is reached through `main`'s address, through tables of pointers and past calls, none
//! of which is proof that an instruction starts there. The proof comes from a linear sweep over
//! the gap between known functions. A gap is believed only if it decodes without an error and if
//! every instruction that certain control flow has found in it is a boundary of the sweep: a gap
//! with data in it fails that.
//!
//! Never opens gaps in an image that describes most of its code: what is left out there is
//! hand-written assembly, which does keep data between its functions.

use super::flow::{Descent, Unproven};
use crate::symbols::elf::Layout;
use iced_x86::{Decoder, DecoderOptions, Instruction};
use object::elf;
use std::ops::Range;

/// Gaps are opened if they are more than one part in this many of the code.
const SHARE: u64 = 4;

/// Sweep the gaps and follow what points into them, if there is enough of them.
pub(super) fn open(descent: &mut Descent<'_>, layout: &Layout, bytes: &[u8]) {
    let extents = code_extents(descent, layout);
    let gaps: Vec<_> = extents.iter().flat_map(|extent| descent.ranges.gaps(extent)).collect();
    let size = |ranges: &[Range<u64>]| ranges.iter().map(|r| r.end - r.start).sum::<u64>();
    if size(&gaps) <= size(&extents) / SHARE {
        return;
    }
    for gap in &gaps {
        sweep(descent, gap);
    }
    descent.are_gaps_swept = true;
    let relocated = layout.relative_relocations(bytes).into_iter().map(|(_, value)| value);
    let in_place = if layout.is_fixed { pointers_in_data(layout, bytes) } else { Vec::new() };
    for pointer in relocated.chain(in_place) {
        if descent.text.has(pointer) && descent.ranges.containing(pointer).is_none() {
            descent.unproven.push(Unproven::Taken(pointer));
        }
    }
    descent.run();
}

/// The executable sections, or the executable segments of an image without sections.
fn code_extents(descent: &Descent<'_>, layout: &Layout) -> Vec<Range<u64>> {
    let segments = descent.text.extents();
    let is_inside = |section: &Range<u64>| {
        segments.iter().any(|s| s.start <= section.start && section.end <= s.end)
    };
    let mut sections: Vec<_> = layout
        .sections
        .iter()
        .filter(|section| section.kind == elf::SHT_PROGBITS && !section.file.is_empty())
        .map(|section| section.address..section.address.saturating_add(section.file.len() as u64))
        .filter(is_inside)
        .collect();
    sections.sort_by_key(|section| section.start);
    // Sections of a real image are disjoint; anything else must not cost more than one sweep.
    let mut end = 0;
    sections.retain(|section| {
        let is_free = section.start >= end;
        end = end.max(section.end);
        is_free
    });
    if sections.is_empty() { segments } else { sections }
}

/// Mark the boundaries in a gap, if it can be believed.
fn sweep(descent: &mut Descent<'_>, gap: &Range<u64>) {
    let Some(boundaries) = boundaries(descent.text.bytes_from(gap.start), gap) else { return };
    let mut is_known = boundaries.iter().peekable();
    let mut agrees = true;
    for at in gap.clone() {
        let is_boundary = is_known.next_if(|boundary| **boundary == at).is_some();
        agrees &= is_boundary || !descent.text.is_decoded(at);
    }
    if agrees {
        descent.text.mark_gap(gap);
        boundaries.into_iter().for_each(|at| descent.text.mark_swept(at));
    }
}

fn boundaries(bytes: &[u8], gap: &Range<u64>) -> Option<Vec<u64>> {
    let mut decoder = Decoder::with_ip(64, bytes, gap.start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut found = Vec::new();
    while decoder.can_decode() && decoder.ip() < gap.end {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return None;
        }
        found.push(instruction.ip());
    }
    Some(found)
}

/// Aligned words outside the code; whether one is a pointer shows when it meets a boundary.
pub(super) fn pointers_in_data(layout: &Layout, bytes: &[u8]) -> Vec<u64> {
    let data = layout.segments.iter().filter(|segment| !segment.executable);
    let words = data.flat_map(|segment| {
        let data = bytes.get(segment.file.clone()).unwrap_or_default();
        let skip = usize::try_from(segment.address.wrapping_neg() % 8).unwrap_or(0);
        let (words, _) = data.get(skip..).unwrap_or_default().as_chunks::<8>();
        words.iter().map(|word| u64::from_le_bytes(*word))
    });
    words.filter(|word| layout.is_code(*word)).collect()
}
