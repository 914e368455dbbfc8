//! From a plan to bytes: the trampolines, and what replaces the program's own code.
//!
//! Never writes them anywhere, and never leaves out a check of reach: a trampoline that cannot
//! refer to what its instructions do is not made.

use super::moves::{Decoded, distance, jump};
use super::plan::Plan;
use super::site::{HOP_BYTES, Image, JUMP_BYTES, Left, Site, Way};
use crate::arch::INT3;
use iced_x86::Instruction;
use std::ops::Range;

/// Bytes of the instruction that marks a block.
const MARK_BYTES: u64 = 7;

/// What replaces bytes of the program's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where, in the address space.
    pub at: u64,
    /// What comes there.
    pub bytes: Vec<u8>,
}

/// Trampolines, and the ways to them.
#[derive(Clone, Debug, Default)]
pub struct Emitted {
    /// The trampolines' code.
    pub code: Vec<u8>,
    /// What replaces the program's own. They are written in this order: a springboard stands in
    /// what an earlier one has freed.
    pub patches: Vec<Patch>,
    /// The number of the block at which each probe stands.
    pub numbers: Vec<u32>,
    /// The blocks that do not mark themselves, each with the reason.
    pub left: Vec<(u32, Left)>,
}

/// What an instruction that moves has before it in its trampoline.
pub trait Probe {
    /// Appends it to `code`; `None` if it cannot reach something, and then the instruction stays.
    fn emit(&mut self, before: &Before<'_>, code: &mut Vec<u8>) -> Option<()>;
}

/// Where a probe stands.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// How many probes stand before it.
    pub index: usize,
    /// Its address.
    pub to: u64,
    /// The instruction that follows, with its link-time address.
    pub instruction: &'a Instruction,
}

/// Probes that mark their blocks: each in a byte of the map at this address.
#[derive(Clone, Copy, Debug)]
pub struct Marks(
    /// The map's address.
    pub u64,
);

impl Probe for Marks {
    fn emit(&mut self, before: &Before<'_>, code: &mut Vec<u8>) -> Option<()> {
        // MOV byte [rip + rel32], 1
        let place = self.0.wrapping_add(before.index as u64);
        code.extend([0xc6, 0x05]);
        code.extend(distance(before.to.wrapping_add(MARK_BYTES), place)?);
        code.push(1);
        Some(())
    }
}

/// Writes the trampolines of `plan`, a plan for `image`, to stand at `code`, with a probe before each
/// instruction at which a block starts.
#[must_use]
pub fn emit(image: &Image<'_>, plan: &Plan, code: u64, probe: &mut dyn Probe) -> Emitted {
    let mut out = Emitted { left: plan.left.clone(), ..Emitted::default() };
    // What stays where it is has no room for a springboard; those come last.
    let mut kept: Vec<Range<u64>> = Vec::new();
    for site in &plan.sites {
        let before = (out.code.len(), out.numbers.len());
        let has_room = match site.way {
            Way::Hop { springboard } => !kept.iter().any(|room| room.contains(&springboard)),
            Way::Jump | Way::Call => true,
        };
        let mut writer = Writer { image, code, probe };
        if !has_room || writer.write(site, &mut out).is_none() {
            out.code.truncate(before.0);
            out.numbers.truncate(before.1);
            let numbers = image.numbers_in(site.range());
            out.left.extend(numbers.map(|number| (number, Left::OutOfReach)));
            kept.push(site.at..site.at + site.room as u64);
        }
    }
    out
}

struct Writer<'a> {
    image: &'a Image<'a>,
    code: u64,
    probe: &'a mut dyn Probe,
}

impl Writer<'_> {
    /// Where the next byte comes.
    fn here(&self, out: &Emitted) -> u64 {
        self.code.wrapping_add(out.code.len() as u64)
    }

    /// Writes a trampoline, and adds what leads there; `None` where it cannot reach something.
    fn write(&mut self, site: &Site, out: &mut Emitted) -> Option<()> {
        let Image { elf, blocks, base, .. } = self.image;
        let start = self.here(out);
        let mut next = site.at;
        while next < site.range().end {
            let decoded = Decoded::new(blocks.code.bytes_from(elf, next), next)?;
            if let Some(number) = self.image.number_at(next) {
                let (index, to) = (out.numbers.len(), self.here(out));
                let before = Before { index, to, instruction: &decoded.instruction };
                self.probe.emit(&before, &mut out.code)?;
                out.numbers.push(number);
            }
            let to = self.here(out);
            match site.way {
                Way::Call => decoded.emit_callee(&mut out.code, to, *base)?,
                Way::Jump | Way::Hop { .. } => decoded.emit(&mut out.code, to, *base)?,
            }
            next = decoded.instruction.next_ip();
        }
        if site.way != Way::Call {
            // Not needed behind what never goes on, where it is never reached.
            let to = self.here(out);
            jump(&mut out.code, to, next.wrapping_add(*base))?;
        }
        out.patches.extend(patches(self.image, site, start)?);
        Some(())
    }
}

/// What stands at a block, and where it has one at its springboard, once its trampoline is at `to`.
fn patches(image: &Image<'_>, site: &Site, to: u64) -> Option<Vec<Patch>> {
    let at = site.at.wrapping_add(image.base);
    let mut bytes = Vec::with_capacity(site.room);
    let mut patches = Vec::new();
    match site.way {
        Way::Call => {
            // A prefix without effect makes up for the length, so that the address to return to
            // stays the same.
            bytes.resize(site.moved.checked_sub(JUMP_BYTES)?, 0x67);
            bytes.push(0xe8);
            bytes.extend(distance(at.wrapping_add(site.moved as u64), to)?);
        }
        Way::Jump => jump(&mut bytes, at, to)?,
        Way::Hop { springboard } => {
            let from = at.wrapping_add(HOP_BYTES as u64);
            let springboard = springboard.wrapping_add(image.base);
            let distance = springboard.wrapping_sub(from).cast_signed();
            bytes.extend([0xeb, i8::try_from(distance).ok()?.cast_unsigned()]);
            let mut hop = Vec::with_capacity(JUMP_BYTES);
            jump(&mut hop, springboard, to)?;
            patches.push(Patch { at: springboard, bytes: hop });
        }
    }
    bytes.resize(site.room, INT3);
    patches.push(Patch { at, bytes });
    Some(patches)
}
