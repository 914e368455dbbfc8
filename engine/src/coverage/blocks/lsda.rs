//! Landing pads: where exceptions and panics are caught and cleaned up after. Only the unwinder
//! jumps to them, so control flow does not show them; the tables that it reads
//! (`.gcc_except_table`) do.
//!
//! Never reads types or actions, and never takes a pad outside the function it belongs to.

use crate::symbols::elf::Layout;
use crate::symbols::frames::{CallFrames, FrameRange};
use gimli::{DwEhPe, EndianSlice, LittleEndian, Reader, constants};

type LsdaReader<'a> = EndianSlice<'a, LittleEndian>;

/// The landing pads of an image.
#[derive(Debug, Default)]
pub(super) struct LandingPads {
    /// Where they are.
    pub pads: Vec<u64>,
    /// Starts of functions that have more of them than were read.
    pub unread: Vec<u64>,
}

/// All landing pads of an image.
pub(super) fn landing_pads(layout: &Layout, bytes: &[u8], frames: &CallFrames) -> LandingPads {
    let mut found = LandingPads::default();
    // No call site takes less than four bytes, so a real image stays far below this; tables that
    // claim each other's bytes do not.
    let mut sites_left = bytes.len();
    for frame in frames.ranges() {
        let Some(at) = frame.lsda else { continue };
        let table = EndianSlice::new(layout.bytes_at(bytes, at), LittleEndian);
        // A table that breaks off has told the pads before the break.
        if !matches!(read_pads(table, frame, &mut sites_left, &mut found.pads), Ok(Read::All)) {
            found.unread.push(frame.code.start);
        }
    }
    found
}

/// How much of a table was read.
enum Read {
    All,
    Part,
}

fn read_pads(
    mut table: LsdaReader<'_>,
    frame: &FrameRange,
    sites_left: &mut usize,
    pads: &mut Vec<u64>,
) -> gimli::Result<Read> {
    // Compilers leave the base of the pads out: it is the function's start.
    if DwEhPe(table.read_u8()?) != constants::DW_EH_PE_omit {
        return Ok(Read::Part);
    }
    if DwEhPe(table.read_u8()?) != constants::DW_EH_PE_omit {
        table.read_uleb128()?;
    }
    let encoding = DwEhPe(table.read_u8()?);
    let length = table.read_uleb128()?;
    let mut sites = table.split(usize::try_from(length).unwrap_or(usize::MAX))?;
    let mut read = Read::All;
    while !sites.is_empty() {
        if *sites_left == 0 {
            return Ok(Read::Part);
        }
        *sites_left -= 1;
        read_number(&mut sites, encoding)?;
        read_number(&mut sites, encoding)?;
        let pad = read_number(&mut sites, encoding)?;
        sites.read_uleb128()?;
        let at = frame.code.start.wrapping_add(pad);
        match frame.code.contains(&at) {
            _ if pad == 0 => {}
            true => pads.push(at),
            false => read = Read::Part,
        }
    }
    Ok(read)
}

fn read_number(from: &mut LsdaReader<'_>, encoding: DwEhPe) -> gimli::Result<u64> {
    match encoding {
        constants::DW_EH_PE_uleb128 => from.read_uleb128(),
        constants::DW_EH_PE_udata4 => from.read_u32().map(u64::from),
        other => Err(gimli::Error::UnknownPointerEncoding(other)),
    }
}
