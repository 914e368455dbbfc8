//! From a plan to bytes: the trampolines, and what replaces the program's own code.
//!
//! Never writes them anywhere, and never leaves out a check of reach: a trampoline that cannot
//! refer to what its instructions do is not made.

use super::edges::Edge;
use super::marks::Marks;
use super::moves::{Decoded, Kind, distance, jump};
use super::plan::Plan;
use super::site::{HOP_BYTES, Image, JUMP_BYTES, Left, MARK_BYTES, Site, Way};
use crate::arch::INT3;
use iced_x86::Instruction;
use std::ops::Range;

/// Bytes of the displacement that a branch ends with.
const DISPLACEMENT_BYTES: usize = 4;

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
    /// The number of the place, a block or an edge, at which each probe stands.
    pub numbers: Vec<u32>,
    /// The blocks that do not mark themselves, each with the reason.
    pub left: Vec<(u32, Left)>,
}

/// What stands before an instruction that moves, in its trampoline.
pub trait Probe {
    /// Appends it to `code`; `None` if it cannot reach something, and then the instruction stays.
    fn emit(&mut self, before: &Before<'_>, code: &mut Vec<u8>) -> Option<()>;

    /// The number of an edge that has a probe, too; none by default.
    fn edge(&self, edge: Edge) -> Option<u32> {
        let _ = edge;
        None
    }

    /// As [`emit`](Self::emit), for an edge, behind so many other probes and at the address `to`.
    fn emit_edge(&mut self, edge: Edge, index: usize, to: u64, code: &mut Vec<u8>) -> Option<()> {
        let _ = (edge, index, to, code);
        None
    }
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

/// Probes that mark their places: each has a byte of the map.
#[derive(Clone, Copy, Debug)]
pub struct Marker<'a> {
    /// What marks itself.
    pub marks: &'a Marks,
    /// The plan, which says where a mark counts.
    pub plan: &'a Plan,
    /// The map's address.
    pub map: u64,
}

impl Marker<'_> {
    /// Marks a place before what stands at `at`, a link-time address.
    fn mark(&self, index: usize, to: u64, at: u64, code: &mut Vec<u8>) -> Option<()> {
        let place = self.map.wrapping_add(index as u64);
        let next = to.wrapping_add(MARK_BYTES as u64);
        if self.plan.countable.contains(&at) {
            // ADD byte [rip + rel32], 1; ADC byte [rip + rel32], 0: never back to 0.
            mark_by([0x80, 0x05], 1, distance(next, place)?, code);
            mark_by([0x80, 0x15], 0, distance(next.wrapping_add(MARK_BYTES as u64), place)?, code);
        } else {
            // MOV byte [rip + rel32], 1
            mark_by([0xc6, 0x05], 1, distance(next, place)?, code);
        }
        Some(())
    }
}

/// One instruction that changes a byte of the map.
fn mark_by(opcode: [u8; 2], operand: u8, distance: [u8; 4], code: &mut Vec<u8>) {
    code.extend(opcode);
    code.extend(distance);
    code.push(operand);
}

impl Probe for Marker<'_> {
    fn emit(&mut self, before: &Before<'_>, code: &mut Vec<u8>) -> Option<()> {
        self.mark(before.index, before.to, before.instruction.ip(), code)
    }

    fn edge(&self, edge: Edge) -> Option<u32> {
        self.marks.number_of(edge)
    }

    fn emit_edge(&mut self, edge: Edge, index: usize, to: u64, code: &mut Vec<u8>) -> Option<()> {
        self.mark(index, to, edge.to, code)
    }
}

/// Writes the trampolines of `plan`, a plan for `image`, to stand at `code`, with a probe before each
/// instruction at which a block starts, and on the edges that have one.
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

/// A branch that was written, whose way is to mark itself.
struct Stub {
    /// Where the branch ends in the code.
    branch_end: usize,
    edge: Edge,
    number: u32,
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
        let mut stubs = Vec::new();
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
            if decoded.kind() == Kind::Branch {
                stubs.extend(self.mark_ways(&decoded.instruction, out)?);
            }
        }
        if site.way != Way::Call {
            // Not needed behind what never goes on, where it is never reached.
            let to = self.here(out);
            jump(&mut out.code, to, next.wrapping_add(*base))?;
        }
        stubs.iter().try_for_each(|stub| self.write_stub(stub, out))?;
        out.patches.extend(patches(self.image, site, start)?);
        Some(())
    }

    /// Marks the edge past a branch that was just written; the one by which it is taken is left to a
    /// stub out of line.
    fn mark_ways(&mut self, branch: &Instruction, out: &mut Emitted) -> Option<Option<Stub>> {
        let branch_end = out.code.len();
        let edge = |to| Edge { from: branch.ip(), to };
        let (past, taken) = (edge(branch.next_ip()), edge(branch.near_branch_target()));
        if let Some(number) = self.probe.edge(past) {
            self.mark_edge(past, number, out)?;
        }
        let number = self.probe.edge(taken);
        Some(number.map(|number| Stub { branch_end, edge: taken, number }))
    }

    /// Writes a mark and a jump to where a branch goes, and has the branch go there.
    fn write_stub(&mut self, stub: &Stub, out: &mut Emitted) -> Option<()> {
        let Stub { branch_end, edge, number } = *stub;
        let from = self.code.wrapping_add(branch_end as u64);
        let displacement = distance(from, self.here(out))?;
        let place = branch_end.checked_sub(DISPLACEMENT_BYTES)?..branch_end;
        out.code.get_mut(place)?.copy_from_slice(&displacement);
        self.mark_edge(edge, number, out)?;
        let here = self.here(out);
        jump(&mut out.code, here, edge.to.wrapping_add(self.image.base))
    }

    fn mark_edge(&mut self, edge: Edge, number: u32, out: &mut Emitted) -> Option<()> {
        let (index, to) = (out.numbers.len(), self.here(out));
        self.probe.emit_edge(edge, index, to, &mut out.code)?;
        out.numbers.push(number);
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
