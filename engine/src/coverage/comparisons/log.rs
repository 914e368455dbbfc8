//! What a log of comparisons looks like in memory.
//!
//! ```text
//! 0x00  what the logger saves, and the operands of the present comparison
//! 0x80  a byte for each comparison: how often it was logged
//!       records
//! ```
//!
//! Never trusts what it parses: the program can write all of it.

use std::ops::Range;

/// Bytes before the counts.
pub const DATA_HEADER_BYTES: u64 = 0x80;
/// Records that a log holds; what comes later in a run is not logged.
pub(super) const RECORDS_MAX: u32 = 0x4000;
/// How often one comparison is logged in a run: most loops compare the like again and again.
pub(super) const HITS_MAX: u8 = 16;
/// Bytes of a record.
pub(super) const RECORD_BYTES: u64 = 80;
/// Bytes of each operand in it.
pub(super) const OPERAND_BYTES: usize = 32;

/// Offsets in the header.
pub(super) const SAVED_RAX: u64 = 0x00;
pub(super) const SAVED_RCX: u64 = 0x08;
pub(super) const BACK: u64 = 0x10;
pub(super) const SITE: u64 = 0x18;
pub(super) const CURSOR: u64 = 0x20;
pub(super) const LEFT: u64 = 0x30;
pub(super) const RIGHT: u64 = 0x40;
pub(super) const SAVED_RSI: u64 = 0x50;
pub(super) const SAVED_RDI: u64 = 0x58;
pub(super) const RECORD: u64 = 0x60;

/// Offsets in a record; its first four bytes are the comparison's number. What a function is called
/// with as its third argument, and how many bytes there are of its strings, an instruction's has not.
pub(super) const RECORD_THIRD: u64 = 4;
pub(super) const RECORD_LEFT_BYTES: u64 = 8;
pub(super) const RECORD_RIGHT_BYTES: u64 = 12;
pub(super) const RECORD_LEFT: u64 = 16;
pub(super) const RECORD_RIGHT: u64 = 48;

/// Where the counts are, in the data of a log of `sites` comparisons.
#[must_use]
pub fn counts_range(sites: usize) -> Range<u64> {
    DATA_HEADER_BYTES..DATA_HEADER_BYTES + sites as u64
}

/// Where the records are.
#[must_use]
pub fn records_range(sites: usize) -> Range<u64> {
    let start = counts_range(sites).end.next_multiple_of(RECORD_BYTES);
    start..start + u64::from(RECORDS_MAX) * RECORD_BYTES
}

/// Bytes of the data of a log of `sites` comparisons.
#[must_use]
pub fn data_bytes(sites: usize) -> u64 {
    records_range(sites).end
}

/// A record of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The comparison's number in its log.
    pub index: u32,
    /// The lower half of a function's third argument.
    pub third: u32,
    /// Its operands; what is beyond an instruction's width means nothing.
    pub left: [u8; OPERAND_BYTES],
    /// The second one.
    pub right: [u8; OPERAND_BYTES],
    /// Bytes of a function's strings.
    pub bytes: [u32; 2],
}

/// How many bytes of records there are, from the header of a log.
#[must_use]
pub(super) fn filled(header: &[u8]) -> u64 {
    let cursor = header.get(CURSOR as usize..).and_then(|rest| rest.first_chunk());
    let cursor = cursor.map_or(0, |bytes| u32::from_le_bytes(*bytes));
    u64::from(cursor.min(RECORDS_MAX)) * RECORD_BYTES
}

/// The records of a log, which has this header.
#[must_use]
pub fn parse(header: &[u8], mut read: impl FnMut(u64, &mut [u8]) -> bool) -> Vec<Logged> {
    let mut bytes = vec![0; filled(header) as usize];
    if !read(0, &mut bytes) {
        return Vec::new();
    }
    bytes.chunks_exact(RECORD_BYTES as usize).map(record).collect()
}

fn record(bytes: &[u8]) -> Logged {
    let operand = |at: u64| bytes.get(at as usize..).and_then(<[u8]>::first_chunk).copied();
    let number = |at: u64| {
        let found = bytes.get(at as usize..).and_then(<[u8]>::first_chunk);
        found.map_or(0, |number| u32::from_le_bytes(*number))
    };
    Logged {
        index: number(0),
        third: number(RECORD_THIRD),
        left: operand(RECORD_LEFT).unwrap_or_default(),
        right: operand(RECORD_RIGHT).unwrap_or_default(),
        bytes: [number(RECORD_LEFT_BYTES), number(RECORD_RIGHT_BYTES)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cursor: u32) -> Vec<u8> {
        let mut header = vec![0xee; DATA_HEADER_BYTES as usize];
        header[CURSOR as usize..CURSOR as usize + 4].copy_from_slice(&cursor.to_le_bytes());
        header
    }

    #[test]
    fn records_come_back_in_order() {
        let mut bytes = vec![0; 2 * RECORD_BYTES as usize];
        bytes[0] = 7;
        bytes[RECORD_LEFT as usize] = 1;
        bytes[RECORD_BYTES as usize + RECORD_RIGHT as usize + 31] = 2;
        let found = parse(&header(2), |at, out| {
            out.copy_from_slice(&bytes[at as usize..]);
            true
        });
        let indices: Vec<_> = found.iter().map(|record| record.index).collect();
        assert_eq!((indices, found[0].left[0], found[1].right[31]), (vec![7, 0], 1, 2));
    }

    #[test]
    fn a_cursor_that_the_program_has_written_reads_no_more_than_there_can_be() {
        let mut asked = 0;
        let found = parse(&header(u32::MAX), |_, out| {
            asked = out.len() as u64;
            true
        });
        assert_eq!(asked, u64::from(RECORDS_MAX) * RECORD_BYTES);
        assert_eq!(found.len(), RECORDS_MAX as usize);
        assert_eq!(records_range(9).end - records_range(9).start, asked);
    }

    #[test]
    fn records_that_are_not_there_are_none() {
        assert_eq!(parse(&header(3), |_, _| false), []);
        assert_eq!(parse(&[], |_, _| true), []);
    }

    #[test]
    fn counts_and_records_lie_apart_behind_the_header() {
        for sites in [0, 1, 39, 40, 41, 100_000] {
            let (counts, records) = (counts_range(sites), records_range(sites));
            assert!(DATA_HEADER_BYTES <= counts.start && counts.end <= records.start);
            assert_eq!((counts.end - counts.start, data_bytes(sites)), (sites as u64, records.end));
        }
    }
}
