//! Static discovery of basic-block starts in an x86-64 ELF executable, for one-shot breakpoints.
//!
//! Recursive descent from everything that is certainly code: the entry point, function symbols,
//! `.eh_frame` entries and their landing pads, initialisers. Direct flow is followed first; jump tables are read when it
//! is exhausted, because by then their surroundings are known.
//!
//! Images built without unwind tables and stripped of symbols do not say where their functions
//! are. If they make up much of the code, what lies between the known functions is swept linearly
//! and pointers to its instructions are followed, but only where the sweep agrees with everything
//! that was found without it.
//!
//! Never guesses. An INT3 written into data or into the middle of an instruction breaks the
//! program, so a block that cannot be proven is left out:
//!
//! - only bytes of executable `PT_LOAD` segments are decoded, each byte at most once as the start
//!   of an instruction;
//! - past a call only while inside the same function, because the callee may not return, or
//!   where a sweep says that an instruction follows;
//! - an entry of a jump table is taken only if it points at an instruction boundary of a known
//!   function, and an unbounded table ends at the first entry that does not;
//! - where two decodings overlap, a start that lies inside an instruction of the other is dropped
//!   (`lock` prefixes that are jumped over are the one case compilers make): the longer
//!   instruction's start is safe for an INT3, the inner one is not.
//!
//! Never loads an image: the starts are link-time addresses, the caller adds its bias.

mod closed;
mod code;
mod error;
mod flow;
mod gaps;
mod lsda;
pub(super) mod padding;
mod ranges;
mod resolve;
mod seeds;
mod tables;
mod text;

use crate::symbols::elf::Layout;
use crate::symbols::frames::CallFrames;
pub use code::{Code, Function};
pub use error::BlocksError;
use flow::Descent;
use ranges::Ranges;
use text::Text;

/// What [`find`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Where blocks start: sorted, distinct link-time virtual addresses.
    pub starts: Vec<u64>,
    /// Functions known from symbols, frame entries and initialisers.
    pub functions: usize,
    /// Of these, functions whose first instruction is a block start.
    pub functions_covered: usize,
    /// Bytes of executable segments.
    pub text_bytes: u64,
    /// Bytes decoded as instructions.
    pub covered_bytes: u64,
    /// Indirect jumps through which a jump table was followed.
    pub tables_followed: usize,
    /// Other indirect jumps: tail calls through pointers, and tables that were not understood.
    pub indirect_jumps_left: usize,
    /// The instructions, for whoever moves them.
    pub code: Code,
}

/// Find the basic-block starts of an x86-64 ELF executable or shared object.
///
/// Takes time and memory linear in the size of the file, whatever it holds.
///
/// # Errors
///
/// When the file is not x86-64 ELF or has no code. Damage elsewhere (sections, symbols, frame
/// entries) only makes the result smaller.
pub fn find(elf: &[u8]) -> Result<Blocks, BlocksError> {
    let layout = Layout::parse(elf)?;
    let frames = CallFrames::parse(&layout, elf);
    let symbols = layout.functions(elf);
    let text = Text::new(&layout, elf)?;
    let ranges = Ranges::new(&frames, &symbols, &text);
    let seeds = seeds::collect(&layout, elf, &frames, &symbols);
    let mut descent = Descent::new(text, &ranges, layout.is_fixed);
    for seed in &seeds {
        descent.add_start(*seed);
    }
    let landing = lsda::landing_pads(&layout, elf, &frames);
    for pad in &landing.pads {
        descent.add_start(*pad);
    }
    descent.run();
    gaps::open(&mut descent, &layout, elf);
    let followed = resolve::follow_tables(&mut descent, &layout, elf);
    let mut code = descent.text.to_code();
    code.taken = taken(&descent, &layout, elf);
    let (complete, unread) = (&followed.complete, &landing.unread.into_iter().collect());
    let known = closed::Known { elf, complete, unread };
    code.functions = closed::functions(&code, ranges.all(), &known);
    Ok(report(&descent, &seeds, followed.count, code))
}

/// The addresses of code that the image has anywhere.
fn taken(descent: &Descent<'_>, layout: &Layout, elf: &[u8]) -> Vec<u64> {
    let relocated = layout.relative_relocations(elf).into_iter().map(|(_, value)| value);
    let mut taken: Vec<u64> = descent.taken.iter().copied().collect();
    taken.extend(relocated.filter(|value| layout.is_code(*value)));
    taken.extend(gaps::pointers_in_data(layout, elf));
    taken.sort_unstable();
    taken.dedup();
    taken
}

fn report(descent: &Descent<'_>, seeds: &[u64], tables_followed: usize, code: Code) -> Blocks {
    let functions: Vec<_> = seeds.iter().filter(|seed| descent.text.has(**seed)).collect();
    let starts = descent.text.block_starts();
    Blocks {
        functions: functions.len(),
        functions_covered: functions.iter().filter(|f| starts.binary_search(f).is_ok()).count(),
        text_bytes: descent.text.byte_count(),
        covered_bytes: descent.text.decoded_byte_count(),
        tables_followed,
        indirect_jumps_left: descent.indirect_jumps.saturating_sub(tables_followed),
        starts,
        code,
    }
}

#[cfg(test)]
mod tests;
