//! The call-frame information of an image: which address ranges `.eh_frame` describes, and the
//! unwind rules at an address.
//!
//! Never reads a guest's memory and never evaluates a rule; `unwind` does. Every address here is
//! a link-time one.

use super::elf::Layout;
use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, EhFrame, EndianSlice, LittleEndian,
    UnwindContext, UnwindSection,
};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

/// The reader of CFI data.
pub(crate) type Reader<'a> = EndianSlice<'a, LittleEndian>;
/// One row of an unwind table.
pub(crate) type Row = gimli::UnwindTableRow<usize>;

/// Distinct CIEs beyond this are ignored. Linkers merge them to a handful; without a limit a
/// hostile section could make every FDE parse a long CIE of its own.
const CIES_MAX: usize = 1024;

/// The range that one frame description entry covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameRange {
    pub code: Range<u64>,
    /// Signal trampolines start one byte before their first instruction, on purpose.
    pub signal_trampoline: bool,
    /// Where its language-specific data (the table of landing pads) is.
    pub lsda: Option<u64>,
    /// Offset of the entry in `.eh_frame`.
    offset: usize,
}

/// All frame description entries of an image, sorted by their first address.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallFrames {
    ranges: Vec<FrameRange>,
    file: Range<usize>,
    bases: BaseAddresses,
}

impl CallFrames {
    pub(crate) fn parse(layout: &Layout, bytes: &[u8]) -> Self {
        let Some((address, file)) = layout.eh_frame(bytes) else {
            return Self::default();
        };
        let mut bases = BaseAddresses::default().set_eh_frame(address);
        if let Some(text) = layout.section(".text") {
            bases = bases.set_text(text.address);
        }
        if let Some(got) = layout.section(".got") {
            bases = bases.set_got(got.address);
        }
        let mut frames = Self { ranges: Vec::new(), file, bases };
        frames.ranges = frames.list(bytes);
        frames.ranges.sort_by_key(|range| range.code.start);
        frames
    }

    pub(crate) fn ranges(&self) -> &[FrameRange] {
        &self.ranges
    }

    /// The entry that covers `address`.
    pub(crate) fn covering(&self, address: u64) -> Option<&FrameRange> {
        let after = self.ranges.partition_point(|range| range.code.start <= address);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        range.code.contains(&address).then_some(range)
    }

    /// The unwind rules at `address` and the section which their expressions point into.
    pub(crate) fn row<'a, 'c>(
        &self,
        bytes: &'a [u8],
        address: u64,
        context: &'c mut UnwindContext<usize>,
    ) -> Option<(&'c Row, EhFrame<Reader<'a>>)> {
        let range = self.covering(address)?;
        let section = self.section(bytes);
        let fde = section
            .fde_from_offset(&self.bases, range.offset.into(), EhFrame::cie_from_offset)
            .ok()?;
        let row = fde.unwind_info_for_address(&section, &self.bases, context, address).ok()?;
        Some((row, section))
    }

    fn section<'a>(&self, bytes: &'a [u8]) -> EhFrame<Reader<'a>> {
        let data = bytes.get(self.file.clone()).unwrap_or_default();
        EhFrame::new(data, LittleEndian)
    }

    fn list(&self, bytes: &[u8]) -> Vec<FrameRange> {
        let section = self.section(bytes);
        let mut cies: HashMap<usize, gimli::Result<CommonInformationEntry<Reader<'_>>>> =
            HashMap::new();
        let mut ranges = Vec::new();
        let mut entries = section.entries(&self.bases);
        // A broken entry ends the list: what follows it cannot be found.
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(partial) = entry else { continue };
            let parsed = partial.parse(|section, bases, offset| {
                let known = cies.len();
                match cies.entry(offset.0) {
                    Entry::Occupied(seen) => seen.get().clone(),
                    Entry::Vacant(_) if known >= CIES_MAX => {
                        Err(gimli::Error::NoUnwindInfoForAddress)
                    }
                    Entry::Vacant(new) => {
                        new.insert(section.cie_from_offset(bases, offset)).clone()
                    }
                }
            });
            if let Ok(fde) = parsed {
                let start = fde.initial_address();
                ranges.push(FrameRange {
                    code: start..start.saturating_add(fde.len()),
                    signal_trampoline: fde.is_signal_trampoline(),
                    lsda: fde.lsda().and_then(|pointer| pointer.direct().ok()),
                    offset: fde.offset(),
                });
            }
        }
        ranges
    }
}
