//! Source lines and inlined functions of an image, from its DWARF.
//!
//! Never looks for debug information outside the image (debug links, split DWARF) and never
//! decompresses: a compressed section counts as absent.

use super::elf::Layout;
use super::location::SourceFrame;
use crate::memory::SharedBytes;
use crate::text::one_line;
use gimli::{EndianReader, LittleEndian};

type Reader = EndianReader<LittleEndian, SharedBytes>;

/// Inlined frames beyond this are cut.
const INLINED_MAX: usize = 64;

/// The line information of one image, or its absence.
pub(super) struct Lines {
    context: Option<addr2line::Context<Reader>>,
}

impl Lines {
    pub(super) fn new(layout: &Layout, bytes: &SharedBytes) -> Self {
        let whole = EndianReader::new(bytes.clone(), LittleEndian);
        let section = |id: gimli::SectionId| {
            let found = layout.section(id.name()).filter(|section| !section.compressed);
            let file = found.map_or(0..0, |section| section.file.clone());
            Ok::<_, gimli::Error>(whole.range(file))
        };
        let has_lines = layout.section(".debug_info").is_some_and(|section| !section.compressed);
        let dwarf = if has_lines { gimli::Dwarf::load(section).ok() } else { None };
        Self { context: dwarf.and_then(|dwarf| addr2line::Context::from_dwarf(dwarf).ok()) }
    }

    /// The source of a link-time address, the innermost inlined function first.
    pub(super) fn find(&self, at: u64) -> Vec<SourceFrame> {
        let mut source = Vec::new();
        let Some(context) = &self.context else { return source };
        let Ok(mut frames) = context.find_frames(at).skip_all_loads() else { return source };
        while let Ok(Some(frame)) = frames.next() {
            if source.len() == INLINED_MAX {
                break;
            }
            let name = frame.function.as_ref().and_then(|name| name.raw_name().ok());
            let location = frame.location.as_ref();
            source.push(SourceFrame {
                function: name.map(|name| one_line(&super::names::demangle(&name))),
                file: location.and_then(|l| l.file).map(one_line),
                line: location.and_then(|l| l.line),
                column: location.and_then(|l| l.column),
            });
        }
        source
    }
}
