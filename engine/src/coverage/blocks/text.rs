//! The executable bytes of an image and what is known of each: one mark byte per byte of code.
//!
//! Never decodes; it only remembers.

use super::code::{ARRIVAL, Code, CodePiece, INSTRUCTION, JOINED, REACHED, TARGETED};
use super::error::BlocksError;
use crate::symbols::elf::Layout;
use std::ops::Range;

/// An instruction starts here, reached by valid control flow.
const START: u8 = 1;
/// Inside an instruction that was reached by valid control flow.
const INTERIOR: u8 = 2;
/// A basic block starts here.
const LEADER: u8 = 4;
/// An instruction boundary of a linear sweep over the enclosing function or gap.
const SWEPT: u8 = 8;
/// Between functions, where only swept boundaries are believed.
const GAP: u8 = 16;
/// Something leads here besides the instruction before.
const TARGET: u8 = 32;
/// More than one thing does.
const TARGETS: u8 = 64;
/// The instruction before goes on here.
const FALLEN_INTO: u8 = 128;

/// The executable bytes of one segment.
struct Piece<'a> {
    address: u64,
    bytes: &'a [u8],
    /// Where they are in the file.
    file: usize,
    marks: Vec<u8>,
}

/// All executable bytes of an image.
pub(super) struct Text<'a> {
    pieces: Vec<Piece<'a>>,
}

impl<'a> Text<'a> {
    pub(super) fn new(layout: &Layout, bytes: &'a [u8]) -> Result<Self, BlocksError> {
        let code = || layout.segments.iter().filter(|s| s.executable && !s.file.is_empty());
        // Linkers may let segments share a page of the file, never all of it several times.
        let claimed = code().fold(0usize, |sum, s| sum.saturating_add(s.file.len()));
        if claimed > bytes.len().saturating_mul(2) {
            return Err(BlocksError::Overclaimed { claimed, file: bytes.len() });
        }
        let mut pieces: Vec<Piece<'a>> = Vec::new();
        for segment in code() {
            let data = bytes.get(segment.file.clone()).unwrap_or_default();
            // Segments that overlap in memory have no meaning; the first one counts.
            let free = pieces.last().is_none_or(|last| last.end() <= segment.address);
            if free && segment.address.checked_add(data.len() as u64).is_some() {
                let marks = vec![0; data.len()];
                let (address, file) = (segment.address, segment.file.start);
                pieces.push(Piece { address, bytes: data, file, marks });
            }
        }
        if pieces.is_empty() { Err(BlocksError::NoCode) } else { Ok(Self { pieces }) }
    }

    fn locate(&self, at: u64) -> Option<(usize, usize)> {
        self.pieces.iter().enumerate().find_map(|(index, piece)| {
            let offset = usize::try_from(at.checked_sub(piece.address)?).ok()?;
            (offset < piece.bytes.len()).then_some((index, offset))
        })
    }

    fn marks(&self, at: u64) -> u8 {
        let mark = |(piece, offset): (usize, usize)| {
            self.pieces.get(piece).and_then(|p| p.marks.get(offset)).copied()
        };
        self.locate(at).and_then(mark).unwrap_or(0)
    }

    fn mark(&mut self, at: u64, length: usize, bits: u8) {
        let Some((piece, offset)) = self.locate(at) else { return };
        let marks = self.pieces.get_mut(piece).map(|p| &mut p.marks);
        if let Some(marks) = marks.and_then(|m| m.get_mut(offset..offset.saturating_add(length))) {
            marks.iter_mut().for_each(|mark| *mark |= bits);
        }
    }

    /// The bytes from `at` to the end of its segment; empty outside the code.
    pub(super) fn bytes_from(&self, at: u64) -> &'a [u8] {
        let rest = |(piece, offset): (usize, usize)| self.pieces.get(piece)?.bytes.get(offset..);
        self.locate(at).and_then(rest).unwrap_or_default()
    }

    pub(super) fn has(&self, at: u64) -> bool {
        self.locate(at).is_some()
    }

    pub(super) fn is_decoded(&self, at: u64) -> bool {
        self.marks(at) & START != 0
    }

    pub(super) fn is_interior(&self, at: u64) -> bool {
        self.marks(at) & INTERIOR != 0
    }

    pub(super) fn is_target(&self, at: u64) -> bool {
        self.marks(at) & TARGET != 0
    }

    pub(super) fn is_swept(&self, at: u64) -> bool {
        self.marks(at) & SWEPT != 0
    }

    pub(super) fn mark_instruction(&mut self, at: u64, length: usize) {
        self.mark(at, 1, START);
        self.mark(at.saturating_add(1), length.saturating_sub(1), INTERIOR);
    }

    /// A block starts at `at`, to which something leads.
    pub(super) fn mark_target(&mut self, at: u64) {
        let again = if self.is_target(at) { TARGETS } else { 0 };
        self.mark(at, 1, LEADER | TARGET | again);
    }

    /// The instruction before `at` goes on there.
    pub(super) fn mark_fallen_into(&mut self, at: u64) {
        self.mark(at, 1, FALLEN_INTO);
    }

    /// A block starts at `at`, behind a branch.
    pub(super) fn mark_leader(&mut self, at: u64) {
        self.mark(at, 1, LEADER);
    }

    pub(super) fn mark_swept(&mut self, at: u64) {
        self.mark(at, 1, SWEPT);
    }

    pub(super) fn mark_gap(&mut self, range: &Range<u64>) {
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        self.mark(range.start, length, GAP);
    }

    /// The address ranges that have executable bytes.
    pub(super) fn extents(&self) -> Vec<Range<u64>> {
        self.pieces.iter().map(|piece| piece.address..piece.end()).collect()
    }

    pub(super) fn byte_count(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes.len() as u64).sum()
    }

    pub(super) fn decoded_byte_count(&self) -> u64 {
        let decoded =
            |p: &Piece<'_>| p.marks.iter().filter(|m| *m & (START | INTERIOR) != 0).count();
        self.pieces.iter().map(|piece| decoded(piece) as u64).sum()
    }

    /// What is known of the code, for whoever moves it.
    pub(super) fn to_code(&self) -> Code {
        let mark = |mark: &u8| {
            let is_reached = mark & (START | INTERIOR) != 0;
            let is_certain = mark & (START | INTERIOR) == START && mark & (GAP | SWEPT) != GAP;
            let reached = if is_reached { REACHED } else { 0 };
            let arrival = if mark & (START | LEADER) != 0 { ARRIVAL } else { 0 };
            let targeted = if mark & TARGET != 0 { TARGETED } else { 0 };
            let is_joined =
                mark & TARGETS != 0 || mark & (TARGET | FALLEN_INTO) == TARGET | FALLEN_INTO;
            let joined = if is_joined { JOINED } else { 0 };
            reached | arrival | targeted | joined | if is_certain { INSTRUCTION } else { 0 }
        };
        let piece = |piece: &Piece<'_>| CodePiece {
            address: piece.address,
            file: piece.file..piece.file + piece.bytes.len(),
            marks: piece.marks.iter().map(mark).collect(),
        };
        Code { pieces: self.pieces.iter().map(piece).collect(), ..Code::default() }
    }

    /// Every leader that was decoded, lies inside no other instruction and, in a gap, is swept.
    pub(super) fn block_starts(&self) -> Vec<u64> {
        let wanted = |mark: u8| {
            mark & (START | INTERIOR | LEADER) == START | LEADER && mark & (GAP | SWEPT) != GAP
        };
        let starts = |piece: &Piece<'_>| {
            let (address, marks) = (piece.address, piece.marks.iter().zip(0u64..));
            let found =
                marks.filter(|(mark, _)| wanted(**mark)).map(|(_, offset)| address + offset);
            found.collect::<Vec<_>>()
        };
        self.pieces.iter().flat_map(starts).collect()
    }
}

impl Piece<'_> {
    fn end(&self) -> u64 {
        self.address.saturating_add(self.bytes.len() as u64)
    }
}
