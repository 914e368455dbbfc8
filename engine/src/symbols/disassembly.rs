//! The faulting instruction and its neighbours, as text.
//!
//! Never reads a guest: it shows the bytes it is given. Where breakpoints are written into the
//! guest's code, the caller must hand in the original bytes.

use super::symbolizer::Symbolizer;
use crate::arch::INSTRUCTION_BYTES_MAX;
use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, OpKind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A function longer than this is not decoded from its start.
const SYNC_BYTES_MAX: u64 = 1 << 20;

/// More neighbours than this on one side are not shown.
const AROUND_MAX: usize = 64;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Where it is.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Intel syntax; `(bad)` for what is no instruction.
    pub text: String,
    /// What its branch target or its `rip`-relative operand means, if anything.
    pub refers_to: Option<String>,
    /// It is the instruction asked for.
    pub is_current: bool,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_current { "=>" } else { "  " };
        write!(f, "{mark} {:#x}: {}", self.address, self.text)?;
        self.refers_to.as_ref().map_or(Ok(()), |what| write!(f, "  ; {what}"))
    }
}

impl Symbolizer {
    /// The instruction at `rip` with up to `around` (at most 64) instructions before and after it,
    /// from `code`, the guest's bytes at `at`. Empty when `rip` is not inside them.
    ///
    /// x86 cannot be decoded backwards, so what stands before `rip` is found by decoding the
    /// image from the start of the function, or else by the start that leads to `rip` through the
    /// most valid instructions.
    #[must_use]
    pub fn disassemble(&self, code: &[u8], at: u64, rip: u64, around: usize) -> Vec<Line> {
        let around = around.min(AROUND_MAX);
        let inside = rip.checked_sub(at).and_then(|offset| usize::try_from(offset).ok());
        let Some(offset) = inside.filter(|offset| *offset < code.len()) else {
            return Vec::new();
        };
        let before = code.get(..offset).unwrap_or_default();
        let boundaries = self
            .known_boundaries(at, rip)
            .unwrap_or_else(|| guessed_boundaries(before, at, around));
        let first = boundaries.get(boundaries.len().saturating_sub(around)).copied().unwrap_or(rip);
        let skip = usize::try_from(first.saturating_sub(at)).unwrap_or(offset).min(offset);
        let mut lines: Vec<Line> = Vec::new();
        for instruction in decode(code.get(skip..).unwrap_or_default(), first) {
            let shown_after = lines.iter().rposition(|line| line.is_current);
            match shown_after.map(|current| lines.len() - 1 - current) {
                Some(after) if after == around => break,
                // The guest's bytes may differ from the image's; never step over `rip`.
                None if instruction.ip() > rip => {
                    return self.disassemble(
                        code.get(offset..).unwrap_or_default(),
                        rip,
                        rip,
                        around,
                    );
                }
                _ => lines.push(self.line(&instruction, code, at, rip)),
            }
        }
        lines
    }

    fn line(&self, instruction: &Instruction, code: &[u8], at: u64, rip: u64) -> Line {
        let start = usize::try_from(instruction.ip().wrapping_sub(at)).unwrap_or(usize::MAX);
        let bytes = code.get(start..start.saturating_add(instruction.len())).unwrap_or_default();
        let mut text = String::new();
        let mut formatter = IntelFormatter::new();
        let options = formatter.options_mut();
        options.set_space_after_operand_separator(true);
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        formatter.format(instruction, &mut text);
        Line {
            address: instruction.ip(),
            bytes: bytes.to_vec(),
            text,
            refers_to: self.referred(instruction),
            is_current: instruction.ip() == rip,
        }
    }

    fn referred(&self, instruction: &Instruction) -> Option<String> {
        let is_branch = instruction.op_kinds().any(|kind| {
            matches!(kind, OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
        });
        let to = match is_branch {
            true => instruction.near_branch_target(),
            false if instruction.is_ip_rel_memory_operand() => instruction.ip_rel_memory_address(),
            false => return None,
        };
        let function = self.image_at(to)?.function(to)?;
        Some(match function.offset {
            0 => function.name,
            offset => format!("{}+{offset:#x}", function.name),
        })
    }

    /// Instruction boundaries in `at..rip`, decoded from the start of the function in the image.
    fn known_boundaries(&self, at: u64, rip: u64) -> Option<Vec<u64>> {
        let image = self.image_at(rip)?;
        let start = image.function_start(rip)?;
        if rip.checked_sub(start)? > SYNC_BYTES_MAX {
            return None;
        }
        let length = usize::try_from(rip - start).ok()?;
        boundaries_to(image.bytes_at(start).get(..length)?, start)
            .map(|found| found.into_iter().filter(|boundary| *boundary >= at).collect())
    }
}

/// The boundaries before the end of `code` by the likeliest start near it.
fn guessed_boundaries(code: &[u8], at: u64, around: usize) -> Vec<u64> {
    let reach = around.saturating_mul(INSTRUCTION_BYTES_MAX).min(code.len()) as u64;
    let end = at.saturating_add(code.len() as u64);
    let from = |back: u64| {
        let skip = code.len().checked_sub(usize::try_from(back).ok()?)?;
        boundaries_to(code.get(skip..)?, end - back)
    };
    // The longest run that ends at the end: wrong starts fall into step after a few instructions.
    (1..=reach).rev().find_map(from).unwrap_or_default()
}

/// Where instructions start, if they are all valid and end exactly with `code`.
fn boundaries_to(code: &[u8], at: u64) -> Option<Vec<u64>> {
    let mut boundaries = Vec::new();
    for instruction in decode(code, at) {
        if instruction.is_invalid() {
            return None;
        }
        boundaries.push(instruction.ip());
    }
    Some(boundaries)
}

fn decode(code: &[u8], at: u64) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, code, at, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
}
