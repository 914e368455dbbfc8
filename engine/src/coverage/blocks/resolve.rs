//! From indirect jumps to the targets in their tables.
//!
//! An entry is believed only if it points at an instruction boundary: one that was already
//! reached, or one that a linear sweep of the function it lies in comes past. Compilers put no
//! data between the instructions of a function, so a sweep that starts at its first instruction
//! meets every real boundary; where hand-written code breaks that rule, the entries fail and
//! their blocks are left out.
//!
//! Never takes more entries in total than the image has bytes of code.

use super::flow::{Descent, taken_address};
use super::seeds::pointer;
use super::tables::{self, Base, ENTRIES_MAX, EntryKind, JumpTable, Step};
use crate::arch::INSTRUCTION_BYTES_MAX;
use crate::symbols::elf::Layout;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Register};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// Instructions looked at before an indirect jump.
const PATH_STEPS_MAX: usize = 48;
/// Of these, the ones among which the target is computed.
const GLANCE_STEPS: usize = 12;
/// Entries of a table whose size no comparison tells.
const UNBOUNDED_ENTRIES_MAX: u64 = 1024;
/// Candidates for a table whose address was loaded out of sight.
const CANDIDATES_MAX: usize = 8;

/// A `lea` of a function: where, into which register, which address.
type Taken = (u64, Register, u64);

struct Resolver<'d, 'a> {
    descent: &'d mut Descent<'a>,
    layout: &'d Layout,
    bytes: &'d [u8],
    relocations: Vec<(u64, u64)>,
    /// The addresses taken in each function swept so far, by the function's start.
    swept: HashMap<u64, Vec<Taken>>,
    /// Tables that were read, and whether all their entries are known.
    followed: HashMap<(u64, EntryKind, u64, Option<u64>), bool>,
    entries_left: u64,
}

/// What became of the indirect jumps.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Jumps that had a table.
    pub count: usize,
    /// Jumps that go nowhere but to the targets that were found (a comparison tells how many
    /// entries their table has, each of them was believed, and no other table was possible) or to
    /// an address that somebody else has made: a function, or one that the image shows elsewhere.
    pub complete: BTreeSet<u64>,
}

/// How far the table of one jump was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Nothing,
    Some,
    All,
}

/// Follow every jump table that can be understood, and what is found behind it, until nothing new
/// turns up.
pub(super) fn follow_tables(descent: &mut Descent<'_>, layout: &Layout, bytes: &[u8]) -> Followed {
    let entries_left = descent.text.byte_count();
    let mut resolver = Resolver {
        descent,
        layout,
        bytes,
        relocations: layout.relative_relocations(bytes),
        swept: HashMap::new(),
        followed: HashMap::new(),
        entries_left,
    };
    let mut followed = Followed::default();
    let (mut unsure, mut others) = (Vec::new(), Vec::new());
    // Tables of known size first: an unbounded one needs to know where its neighbours begin.
    loop {
        while let Some(at) = resolver.descent.pending.pop() {
            match resolver.table(at) {
                Some(table) => match resolver.follow_bounded(at, table) {
                    Reading::Nothing => unsure.push((at, table)),
                    reading => followed.note(at, reading),
                },
                None => others.push(at),
            }
            resolver.descent.run();
        }
        let Some((at, table)) = unsure.pop() else { break };
        followed.note(at, resolver.follow(at, JumpTable { count: None, ..table }));
        resolver.descent.run();
    }
    // Every target is known now, so that a way without one is the only way.
    followed.complete.extend(others.into_iter().filter(|at| resolver.is_loaded(*at)));
    followed
}

impl Followed {
    fn note(&mut self, jump: u64, reading: Reading) {
        self.count += usize::from(reading != Reading::Nothing);
        if reading == Reading::All {
            self.complete.insert(jump);
        }
    }
}

impl Resolver<'_, '_> {
    fn table(&mut self, at: u64) -> Option<JumpTable> {
        let jump = decode(self.descent.text.bytes_from(at), at)?;
        // `jmp [rip + x]` is a call through the GOT.
        if jump.is_ip_rel_memory_operand() {
            return None;
        }
        // Most indirect jumps are tail calls, which a glance tells.
        if !tables::is_plausible(&jump, &self.path_to(at, GLANCE_STEPS)) {
            return None;
        }
        tables::recognise(&jump, &self.path_to(at, PATH_STEPS_MAX))
    }

    /// Whether the jump at `at` goes to an address that it loads.
    fn is_loaded(&self, at: u64) -> bool {
        let Some(jump) = decode(self.descent.text.bytes_from(at), at) else { return false };
        let mut path = Vec::new();
        let mut to = at;
        while path.len() < PATH_STEPS_MAX && !self.descent.text.is_target(to) {
            let Some(step) = self.before(to) else { break };
            to = step.instruction.ip();
            path.push(step);
        }
        tables::is_loaded(&jump, &path)
    }

    /// The instructions that lead to `at`, the nearest first.
    fn path_to(&self, mut at: u64, steps_max: usize) -> Vec<Step> {
        let mut path = Vec::new();
        while path.len() < steps_max {
            let Some(step) = self.before(at).or_else(|| self.jump_to(at)) else { break };
            at = step.instruction.ip();
            path.push(step);
        }
        path
    }

    /// The instruction that falls through to `at`.
    fn before(&self, at: u64) -> Option<Step> {
        let text = &self.descent.text;
        let starts = (1..=INSTRUCTION_BYTES_MAX as u64).filter_map(|length| at.checked_sub(length));
        let mut decoded =
            starts.filter(|start| text.is_decoded(*start) && !text.is_interior(*start));
        let start = decoded.next()?;
        let instruction = decode(text.bytes_from(start), start)?;
        let falls_through = !matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Return
                | FlowControl::Exception
        );
        (falls_through && instruction.next_ip() == at).then_some(Step { instruction, taken: false })
    }

    /// A jump whose target is `at`.
    fn jump_to(&self, at: u64) -> Option<Step> {
        let from = *self.descent.jumps_to.get(&at)?;
        let instruction = decode(self.descent.text.bytes_from(from), from)?;
        Some(Step { instruction, taken: true })
    }

    fn follow_bounded(&mut self, jump: u64, table: JumpTable) -> Reading {
        if table.count.is_some() { self.follow(jump, table) } else { Reading::Nothing }
    }

    fn follow(&mut self, jump: u64, table: JumpTable) -> Reading {
        let function = self.descent.ranges.containing(jump);
        let bases = match table.base {
            Base::At(address) => vec![address],
            Base::In(register) => self.candidates(jump, function.as_ref(), register),
        };
        let is_certain = bases.iter().all(|base| Some(base) == bases.first());
        let reading = |is_whole: bool| match is_whole && is_certain {
            true => Reading::All,
            false => Reading::Some,
        };
        for base in bases {
            let key = (base, table.entry, function.as_ref().map_or(0, |f| f.start), table.count);
            if let Some(is_whole) = self.followed.get(&key) {
                return reading(*is_whole);
            }
            let targets = self.targets(base, table, function.as_ref());
            if !targets.is_empty() {
                let is_whole = table.count == Some(targets.len() as u64);
                self.followed.insert(key, is_whole);
                targets.into_iter().for_each(|target| self.descent.add_start(target));
                return reading(is_whole);
            }
        }
        Reading::Nothing
    }

    /// The addresses that the jump's function loads into `register`, the nearest before it first.
    fn candidates(
        &mut self,
        jump: u64,
        function: Option<&Range<u64>>,
        register: Register,
    ) -> Vec<u64> {
        let Some(function) = function else { return Vec::new() };
        self.sweep(function);
        let taken = self.swept.get(&function.start).map(Vec::as_slice).unwrap_or_default();
        let before = taken.partition_point(|(at, _, _)| *at < jump);
        let (before, after) = taken.split_at(before);
        let in_order = before.iter().rev().chain(after).take(16 * CANDIDATES_MAX);
        let of_register = in_order.filter(|(_, into, _)| *into == register);
        of_register.map(|(_, _, address)| *address).take(CANDIDATES_MAX).collect()
    }

    fn targets(&mut self, base: u64, table: JumpTable, function: Option<&Range<u64>>) -> Vec<u64> {
        let (count, end) = match table.count {
            Some(count) => (count, u64::MAX),
            None => (UNBOUNDED_ENTRIES_MAX, self.next_reference(base)),
        };
        let count = count.min(ENTRIES_MAX).min(self.entries_left);
        let mut targets = Vec::new();
        for index in 0..count {
            self.entries_left -= 1;
            let Some(target) = self.target(base, table.entry, index, end) else { break };
            // A table of known size may send a case to the function's cold part, which has a
            // range of its own.
            let at_home = function.is_some_and(|function| function.contains(&target));
            if !(at_home || table.count.is_some()) || !self.is_boundary(target) {
                break;
            }
            targets.push(target);
        }
        targets
    }

    fn target(&self, base: u64, entry: EntryKind, index: u64, end: u64) -> Option<u64> {
        let place = base.checked_add(index * entry.bytes()).filter(|place| *place < end)?;
        match entry {
            EntryKind::Relative => {
                let distance = self.layout.read_i32(self.bytes, place)?;
                Some(base.wrapping_add_signed(i64::from(distance)))
            }
            EntryKind::Absolute => pointer(self.layout, self.bytes, &self.relocations, place),
        }
    }

    /// Where the next thing that code takes the address of begins.
    fn next_reference(&self, base: u64) -> u64 {
        let next = self.descent.references.range(base.saturating_add(1)..).next();
        next.copied().unwrap_or(u64::MAX)
    }

    fn is_boundary(&mut self, at: u64) -> bool {
        if self.descent.text.is_interior(at) {
            return false;
        }
        if self.descent.text.is_decoded(at) {
            return true;
        }
        if let Some(function) = self.descent.ranges.containing(at) {
            self.sweep(&function);
        }
        self.descent.text.is_swept(at)
    }

    /// Mark the instruction boundaries of a function as a linear disassembler sees them, once.
    fn sweep(&mut self, function: &Range<u64>) {
        if self.swept.contains_key(&function.start) {
            return;
        }
        let bytes = self.descent.text.bytes_from(function.start);
        let mut decoder = Decoder::with_ip(64, bytes, function.start, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let mut taken = Vec::new();
        while decoder.can_decode() && decoder.ip() < function.end {
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                break;
            }
            self.descent.text.mark_swept(instruction.ip());
            if let Some(address) = taken_address(&instruction) {
                taken.push((instruction.ip(), instruction.op0_register().full_register(), address));
                self.descent.references.insert(address);
            }
        }
        self.swept.insert(function.start, taken);
    }
}

impl EntryKind {
    fn bytes(self) -> u64 {
        match self {
            Self::Relative => 4,
            Self::Absolute => 8,
        }
    }
}

fn decode(bytes: &[u8], at: u64) -> Option<Instruction> {
    let instruction = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}
