//! In which functions every arrival is known.
//!
//! A function is open if a jump in it may go anywhere, or if a byte of it was not reached and is no
//! padding (who jumps there is unknown). So is one whose other parts are: what a compiler splits off
//! (`f.cold`) has bounds of its own, and tables lead there and back.
//!
//! Never guesses that a jump is a tail call. One to an address that is loaded as it is opens nothing,
//! whatever it is: labels whose address anything holds are known ([`Code::is_taken`]). Any other may be
//! a computed `goto` or a table.

use super::code::{Code, Function};
use super::padding::padding;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

/// What is known of the whole image besides its instructions.
pub(super) struct Known<'a> {
    pub elf: &'a [u8],
    /// Indirect jumps whose targets are all known.
    pub complete: &'a BTreeSet<u64>,
    /// Starts of functions that have landing pads which were not read.
    pub unread: &'a HashSet<u64>,
}

/// A jump out of a function, by the function's number.
struct Exit {
    from: usize,
    to: u64,
}

/// What a look at every instruction tells.
#[derive(Default)]
struct Survey {
    open: Vec<bool>,
    exits: Vec<Exit>,
    called: HashSet<u64>,
}

/// `ranges`, sorted and disjoint, as functions of `code`.
pub(super) fn functions(code: &Code, ranges: &[Range<u64>], known: &Known<'_>) -> Vec<Function> {
    let mut survey = Survey::default();
    for (number, range) in ranges.iter().enumerate() {
        let is_open = survey.look_at(code, number, range, known);
        survey.open.push(is_open || known.unread.contains(&range.start));
    }
    let mut parts = Parts::new(ranges.len());
    for Exit { from, to } in &survey.exits {
        let after = ranges.partition_point(|range| range.start <= *to);
        let Some(index) = after.checked_sub(1).filter(|i| ranges[*i].contains(to)) else {
            continue;
        };
        let is_function =
            *to == ranges[index].start && (survey.called.contains(to) || code.is_taken(*to));
        if !is_function {
            parts.join(*from, index);
        }
    }
    let roots: Vec<usize> = (0..ranges.len()).map(|number| parts.root(number)).collect();
    let open = roots.iter().zip(&survey.open).filter(|(_, is_open)| **is_open);
    let open: HashSet<usize> = open.map(|(root, _)| *root).collect();
    let function = |(range, root): (&Range<u64>, &usize)| Function {
        range: range.clone(),
        is_closed: !open.contains(root),
    };
    ranges.iter().zip(&roots).map(function).collect()
}

impl Survey {
    /// Notes where a function's instructions lead; whether it is open by itself.
    fn look_at(
        &mut self,
        code: &Code,
        number: usize,
        range: &Range<u64>,
        known: &Known<'_>,
    ) -> bool {
        let bytes = code.bytes_from(known.elf, range.start);
        let mut is_open = false;
        let mut at = range.start;
        while at < range.end {
            let rest = usize::try_from(at - range.start).ok().and_then(|done| bytes.get(done..));
            let Some(rest) = rest.filter(|rest| !rest.is_empty()) else { return true };
            if !code.is_instruction(at) {
                let skipped = if code.is_reached(at) { None } else { padding(rest) };
                is_open |= skipped.is_none();
                at += skipped.unwrap_or(1) as u64;
                continue;
            }
            let instruction = Decoder::with_ip(64, rest, at, DecoderOptions::NONE).decode();
            is_open |= instruction.is_invalid() || has_other_way(code, rest, &instruction);
            is_open |= self.follow(number, range, &instruction, known);
            at = instruction.next_ip().max(at + 1);
        }
        // An instruction that runs over the end belongs to two functions.
        is_open || at > range.end
    }

    /// Notes where an instruction leads; whether that is unknown.
    fn follow(
        &mut self,
        from: usize,
        range: &Range<u64>,
        instruction: &Instruction,
        known: &Known<'_>,
    ) -> bool {
        let is_near = instruction.op0_kind() == OpKind::NearBranch64;
        match instruction.flow_control() {
            FlowControl::IndirectBranch => {
                !instruction.is_ip_rel_memory_operand()
                    && !known.complete.contains(&instruction.ip())
            }
            FlowControl::Call if is_near => {
                self.called.insert(instruction.near_branch_target());
                false
            }
            FlowControl::ConditionalBranch
            | FlowControl::UnconditionalBranch
            | FlowControl::XbeginXabortXend => {
                let to = instruction.near_branch_target();
                if is_near && !range.contains(&to) {
                    self.exits.push(Exit { from, to });
                }
                false
            }
            _ => false,
        }
    }
}

/// Whether another instruction starts inside `instruction`, with which `bytes` begin, and is not just
/// that without its prefix (`lock` is jumped over).
fn has_other_way(code: &Code, bytes: &[u8], instruction: &Instruction) -> bool {
    if code.is_whole(instruction.ip(), instruction.len()) {
        return false;
    }
    let is_bare_whole = code.is_whole(instruction.ip() + 1, instruction.len().saturating_sub(1));
    let bare = bytes.get(1..).unwrap_or_default();
    let bare = Decoder::with_ip(64, bare, instruction.ip() + 1, DecoderOptions::NONE).decode();
    let is_same = bare.code() == instruction.code() && bare.next_ip() == instruction.next_ip();
    !is_same || !is_bare_whole || instruction.flow_control() != FlowControl::Next
}

/// Which ranges are parts of one function.
struct Parts {
    above: Vec<usize>,
}

impl Parts {
    fn new(count: usize) -> Self {
        Self { above: (0..count).collect() }
    }

    fn root(&mut self, mut number: usize) -> usize {
        while self.above[number] != number {
            // Halves what the next search walks: an image can chain all of its functions.
            self.above[number] = self.above[self.above[number]];
            number = self.above[number];
        }
        number
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.above[one.max(other)] = one.min(other);
    }
}
