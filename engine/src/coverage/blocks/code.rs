//! What discovery knows of an image's code, for whoever moves instructions: where they start, which
//! bytes nothing reaches, and in which functions every arrival is known.
//!
//! Never decodes, and never says that an instruction may move.

use std::fmt;
use std::ops::Range;

/// An instruction starts here, inside no other one.
pub(super) const INSTRUCTION: u8 = 1;
/// Part of an instruction that control flow reaches.
pub(super) const REACHED: u8 = 2;
/// Something arrives here: an instruction starts, perhaps inside another one (`lock` prefixes are
/// jumped over).
pub(super) const ARRIVAL: u8 = 4;

/// Something leads here besides the instruction before.
pub(super) const TARGETED: u8 = 8;
/// More than one way leads here.
pub(super) const JOINED: u8 = 16;

/// The executable bytes of one segment.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct CodePiece {
    /// Link-time address of the first.
    pub address: u64,
    /// Where they are in the file.
    pub file: Range<usize>,
    /// The constants above, one byte for each of them.
    pub marks: Vec<u8>,
}

/// A function, as the image bounds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// Its link-time addresses.
    pub range: Range<u64>,
    /// Whether all of it is understood: every byte is an instruction that was reached or padding,
    /// every jump table and landing pad was read to its end, and so in the parts that compilers
    /// split off of it. A [target](Code::is_target) is then the only place where anything arrives,
    /// but for addresses that are [taken](Code::is_taken).
    pub is_closed: bool,
}

/// What is known of an image's code.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Code {
    pub(super) pieces: Vec<CodePiece>,
    /// Sorted and disjoint.
    pub(super) functions: Vec<Function>,
    /// Sorted.
    pub(super) taken: Vec<u64>,
}

impl Code {
    fn mark(&self, at: u64) -> u8 {
        let mark = |piece: &CodePiece| {
            let offset = usize::try_from(at.checked_sub(piece.address)?).ok()?;
            piece.marks.get(offset).copied()
        };
        self.pieces.iter().find_map(mark).unwrap_or(0)
    }

    /// Whether an instruction starts at `at` for certain, inside no other one.
    #[must_use]
    pub fn is_instruction(&self, at: u64) -> bool {
        self.mark(at) & INSTRUCTION != 0
    }

    /// Where instructions start for certain, in order.
    pub fn instructions(&self) -> impl Iterator<Item = u64> + '_ {
        self.pieces.iter().flat_map(|piece| {
            let marks = (piece.address..).zip(&piece.marks);
            marks.filter(|(_, mark)| *mark & INSTRUCTION != 0).map(|(at, _)| at)
        })
    }

    /// Whether nothing arrives within the `length` bytes of an instruction at `at`, but at its first.
    #[must_use]
    pub fn is_whole(&self, at: u64, length: usize) -> bool {
        (1..length as u64).all(|offset| self.mark(at.wrapping_add(offset)) & ARRIVAL == 0)
    }

    /// Whether something in the image leads to `at` besides the instruction before it.
    #[must_use]
    pub fn is_target(&self, at: u64) -> bool {
        self.mark(at) & TARGETED != 0
    }

    /// Whether more than one way leads to `at`, as far as is known; one may be counted twice.
    #[must_use]
    pub fn is_joined(&self, at: u64) -> bool {
        self.mark(at) & JOINED != 0
    }

    /// Whether `at` is a byte of an instruction that control flow reaches.
    #[must_use]
    pub fn is_reached(&self, at: u64) -> bool {
        self.mark(at) & REACHED != 0
    }

    /// Whether the image has `at` as an address somewhere: in an instruction, a relocation or a
    /// word of its data.
    #[must_use]
    pub fn is_taken(&self, at: u64) -> bool {
        self.taken.binary_search(&at).is_ok()
    }

    /// The function that `at` lies in.
    #[must_use]
    pub fn function_at(&self, at: u64) -> Option<&Function> {
        let after = self.functions.partition_point(|function| function.range.start <= at);
        self.functions.get(after.checked_sub(1)?).filter(|f| f.range.contains(&at))
    }

    /// All functions whose bounds the image tells.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The link-time addresses that have executable bytes.
    pub fn extents(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let end = |piece: &CodePiece| piece.address.saturating_add(piece.marks.len() as u64);
        self.pieces.iter().map(move |piece| piece.address..end(piece))
    }

    /// The bytes of the image `elf`, which this was found in, from `at` to the end of its segment.
    #[must_use]
    pub fn bytes_from<'e>(&self, elf: &'e [u8], at: u64) -> &'e [u8] {
        let rest = |piece: &CodePiece| {
            let offset = usize::try_from(at.checked_sub(piece.address)?).ok()?;
            elf.get(piece.file.clone())?.get(offset..).filter(|rest| !rest.is_empty())
        };
        self.pieces.iter().find_map(rest).unwrap_or_default()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = self.functions.iter().filter(|function| function.is_closed).count();
        write!(f, "Code {{ {closed} of {} functions closed }}", self.functions.len())
    }
}
