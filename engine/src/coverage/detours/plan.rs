//! Which blocks can mark themselves, and how each gets to its trampoline.
//!
//! Never writes code: `emit` does.

use super::flags::are_dead;
use super::marks::Marks;
use super::moves::{Decoded, Kind};
use super::site::{HOP_BYTES, Image, JUMP_BYTES, Left, MARK_BYTES, Site, Way};
use super::springboards::Springboards;
use crate::coverage::blocks::padding::padding;
use iced_x86::{Code, Instruction};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

/// The most bytes that are freed for one block: those that move, and padding behind them.
const ROOM_MAX: usize = 64;
/// The least bytes that move to make room: for their own jump, and a springboard.
const SPARE_BYTES: usize = 2 * JUMP_BYTES;

/// What is around an image, by the addresses that it has in memory.
pub struct Surroundings<'a> {
    /// Whether the bytes there are the file's, and may be replaced.
    pub is_free: &'a dyn Fn(Range<u64>) -> bool,
    /// Whether something that is no code of the image points there.
    pub is_pointed_at: &'a dyn Fn(u64) -> bool,
}

/// Which blocks and edges of an image mark themselves.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub(super) sites: Vec<Site>,
    /// Where a mark may change the arithmetic flags: blocks, and edges by where they lead.
    pub(super) countable: HashSet<u64>,
    /// How many blocks do.
    pub blocks: usize,
    /// How many edges do.
    pub edges: usize,
    /// The others, by number, each with the reason.
    pub left: Vec<(u32, Left)>,
}

impl Plan {
    /// The most bytes that the trampolines take.
    #[must_use]
    pub fn code_bytes_max(&self) -> u64 {
        // A branch of two bytes grows to nine.
        const GROWTH: usize = 5;
        let moved = |site: &Site| site.moved * GROWTH + JUMP_BYTES;
        let mark = 2 * MARK_BYTES;
        let marks = self.blocks * mark + self.edges * (mark + JUMP_BYTES);
        (self.sites.iter().map(moved).sum::<usize>() + marks) as u64
    }
}

/// Plans the detours of `image`, with `marks`. Takes time linear in its code.
#[must_use]
pub fn plan(image: &Image<'_>, marks: &Marks, around: &Surroundings<'_>) -> Plan {
    let planner = Planner { image, marks, around };
    let mut plan = Plan::default();
    let mut springboards = Springboards::default();
    let mut spare = BTreeMap::new();
    let (mut short, mut short_edges) = (Vec::new(), Vec::new());
    // Where the instructions end that move already.
    let mut moved = 0;
    let ends = image.blocks.starts.iter().skip(1).copied().chain([u64::MAX]);
    for ((number, &at), end) in (image.first..).zip(&image.blocks.starts).zip(ends) {
        if at >= moved {
            match planner.site(at) {
                Ok(site) => {
                    moved = site.range().end;
                    if site.way == Way::Jump && site.room < JUMP_BYTES {
                        short.push(site);
                    } else {
                        springboards.add(site.freed());
                        plan.sites.push(site);
                    }
                }
                Err(reason) => plan.left.push((number, reason)),
            }
        }
        for site in planner.rest(at, at.max(moved), end) {
            let is_edge = !marks.edges.within(site.at, site.range().end).is_empty();
            match site.room {
                JUMP_BYTES.. if is_edge => {
                    springboards.add(site.freed());
                    plan.sites.push(site);
                }
                HOP_BYTES.. if is_edge => short_edges.push(site),
                SPARE_BYTES.. => {
                    spare.insert(site.at, site);
                }
                _ => {}
            }
        }
    }
    for site in short.into_iter().chain(short_edges) {
        let springboard = springboards.take(site.at).or_else(|| {
            let room = take_spare(&mut spare, site.at)?;
            springboards.add(room.freed());
            plan.sites.push(room);
            springboards.take(site.at)
        });
        match springboard {
            Some(springboard) => plan.sites.push(Site { way: Way::Hop { springboard }, ..site }),
            None => {
                let numbers = image.numbers_in(site.range());
                let reason = if planner.is_closed(site.at) { Left::Short } else { Left::Open };
                plan.left.extend(numbers.map(|number| (number, reason)));
            }
        }
    }
    plan.blocks = image.blocks.starts.len() - plan.left.len();
    let moved = |site: &Site| marks.edges.within(site.at, site.range().end);
    plan.edges = plan.sites.iter().map(|site| moved(site).len()).sum();
    if marks.are_counts() {
        let led_to = plan.sites.iter().flat_map(moved).map(|edge| edge.to);
        let starts = plan.sites.iter().flat_map(|site| image.starts_in(site.range()));
        let all: HashSet<u64> = starts.copied().chain(led_to).collect();
        let instruction = |at| planner.unchanged(at);
        plan.countable = all.into_iter().filter(|at| are_dead(*at, &instruction)).collect();
    }
    plan
}

/// Takes code that can move to make room for a springboard within reach of `at`.
fn take_spare(spare: &mut BTreeMap<u64, Site>, at: u64) -> Option<Site> {
    let near = at.saturating_sub(ROOM_MAX as u64)..at.saturating_add(ROOM_MAX as u64);
    let start = *spare.range(near).next()?.0;
    spare.remove(&start)
}

struct Planner<'p> {
    image: &'p Image<'p>,
    marks: &'p Marks,
    around: &'p Surroundings<'p>,
}

impl Planner<'_> {
    /// How the block at `at` can mark itself. One that is too short for its jump has less room.
    fn site(&self, at: u64) -> Result<Site, Left> {
        let first = self.decode(at).ok_or(Left::Fixed)?;
        if !self.is_free(at, first.bytes.len()) {
            return Err(Left::Changed);
        }
        let is_closed = self.is_closed(at);
        let site = |moved, room, way| Site { at, moved, room, way };
        let length = first.bytes.len();
        let (moved, room) = match first.kind() {
            Kind::Call => return Ok(site(length, length, Way::Call)),
            Kind::Fixed => return Err(Left::Fixed),
            _ if is_closed => self.run(at, u64::MAX),
            _ => (length, length),
        };
        match room {
            HOP_BYTES.. => Ok(site(moved, room, Way::Jump)),
            _ if is_closed => Err(Left::Byte),
            _ => Err(Left::Open),
        }
    }

    /// What can move of the block at `start` besides its beginning, from `at` to `end`: to make room
    /// for a springboard, or because an edge of its branch marks itself.
    fn rest(&self, start: u64, mut at: u64, end: u64) -> Vec<Site> {
        let mut rest = Vec::new();
        let is_closed = self.is_closed(at);
        if !is_closed && self.marks.edges.is_empty() {
            return rest;
        }
        // Bytes that a jump in place of a SYSCALL would take.
        let mut kept: usize = 0;
        while at < end {
            let Some(next) = self.decode(at) else { return rest };
            let length = next.bytes.len();
            // Where a call returns to, an address may lead.
            let stays = matches!(next.kind(), Kind::Call | Kind::Fixed) || at == start || kept > 0;
            let (moved, room) = match stays {
                true => (0, 0),
                false if is_closed => self.run(at, end),
                false => (length, if self.is_free(at, length) { length } else { 0 }),
            };
            if room >= HOP_BYTES {
                rest.push(Site { at, moved, room, way: Way::Jump });
            }
            if next.kind() == Kind::End {
                return rest;
            }
            kept = match next.instruction.code() {
                Code::Syscall => JUMP_BYTES - length,
                _ => kept.saturating_sub(length),
            };
            at += moved.max(length) as u64;
        }
        rest
    }

    /// How many bytes from `start` on, and before `end`, move, and how many are then free, in a closed
    /// function. What is only reached by falling into it moves along.
    fn run(&self, start: u64, end: u64) -> (usize, usize) {
        let mut moved = 0;
        loop {
            let at = start + moved as u64;
            let is_inside = moved == 0 || at < end && self.is_inner(at);
            let Some(next) = self.decode(at).filter(|_| is_inside) else { return (moved, moved) };
            let (kind, length) = (next.kind(), next.bytes.len());
            let is_over = matches!(kind, Kind::Call | Kind::Fixed);
            if is_over || moved + length > ROOM_MAX || !self.is_free(at, length) {
                return (moved, moved);
            }
            moved += length;
            if kind == Kind::End {
                return (moved, moved + self.padding(start + moved as u64, moved));
            }
        }
    }

    /// Length of the padding at `start`, behind `before` bytes, that nothing reaches.
    fn padding(&self, start: u64, before: usize) -> usize {
        let image = self.image;
        let bytes = image.blocks.code.bytes_from(image.elf, start);
        let mut length = 0;
        loop {
            let at = start + length as u64;
            let Some(more) = bytes.get(length..).and_then(padding) else { return length };
            let mut inside = at..at + more as u64;
            let is_usable = before + length + more <= ROOM_MAX
                && self.is_free(at, more)
                && inside.all(|at| self.is_inner(at) && !image.blocks.code.is_reached(at));
            if !is_usable {
                return length;
            }
            length += more;
        }
    }

    /// The instruction at `at`, if one starts there for certain and nothing arrives inside it.
    fn decode(&self, at: u64) -> Option<Decoded<'_>> {
        let Image { elf, blocks, .. } = self.image;
        let code = &blocks.code;
        let decoded = Decoded::new(code.bytes_from(elf, at), at)?;
        let is_certain = code.is_instruction(at) && code.is_whole(at, decoded.bytes.len());
        is_certain.then_some(decoded)
    }

    /// The instruction at `at`, if it is certain to be the one that the program runs there.
    fn unchanged(&self, at: u64) -> Option<Instruction> {
        let decoded = self.decode(at)?;
        self.is_free(at, decoded.bytes.len()).then_some(decoded.instruction)
    }

    fn is_closed(&self, at: u64) -> bool {
        self.image.blocks.code.function_at(at).is_some_and(|function| function.is_closed)
    }

    /// Whether nothing arrives at `at` but what comes from before it, in a closed function.
    fn is_inner(&self, at: u64) -> bool {
        let Image { blocks, base, .. } = self.image;
        !blocks.code.is_target(at)
            && !blocks.code.is_taken(at)
            && !(self.around.is_pointed_at)(at.wrapping_add(*base))
    }

    fn is_free(&self, at: u64, length: usize) -> bool {
        let at = at.wrapping_add(self.image.base);
        (self.around.is_free)(at..at.saturating_add(length as u64))
    }
}
