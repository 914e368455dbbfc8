//! Which instructions of an image compare. Never writes code.

use super::callees::Callees;
use super::compared::ComparedKind;
use super::functions::StringFunction;
use super::log::Logged;
use super::operands::{Class, Operands, operands};
use crate::coverage::blocks::Code;
use crate::coverage::detours::flags::{self, ARITHMETIC};
use iced_x86::{ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};

/// Instructions that are looked at behind one, for what becomes of the flags.
const AHEAD: usize = 8;

/// An instruction that compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Its link-time address.
    pub at: u64,
    /// What it compares.
    pub kind: ComparedKind,
    /// Bytes of each operand: 1, 2, 4, 8 or 16; a function's strings have 0.
    pub width: usize,
    /// The function that it calls, if it does not compare by itself.
    pub function: Option<StringFunction>,
}

impl Comparison {
    /// What a record of it says that was compared.
    #[must_use]
    pub fn operands(&self, logged: &Logged) -> Option<(Vec<u8>, Vec<u8>)> {
        let part = |bytes: &[u8], length: usize| bytes.get(..length).map(<[u8]>::to_vec);
        let Some(function) = self.function else {
            return Some((part(&logged.left, self.width)?, part(&logged.right, self.width)?));
        };
        // The two strings, by what stands for their addresses here.
        let read = |at: u64, length: usize| {
            let (bytes, count) = if at == 0 {
                (&logged.left, logged.bytes[0])
            } else {
                (&logged.right, logged.bytes[1])
            };
            let length = length.min(count as usize).min(bytes.len());
            part(bytes, length).unwrap_or_default()
        };
        Some(function.compared([0, 1, u64::from(logged.third), 0], &read))
    }
}

/// Every instruction of the image `elf`, whose code is `code`, that compares and can be logged, in
/// the order of their addresses; a call of a function that compares strings is one. Takes time linear
/// in its code.
#[must_use]
pub fn find(elf: &[u8], code: &Code) -> Vec<Comparison> {
    let callees = Callees::find(elf, code);
    let decode = |at| decode(code.bytes_from(elf, at), at).filter(|_| code.is_instruction(at));
    let found =
        |at| comparison(at, &decode).or_else(|| call(code.bytes_from(elf, at), at, &callees));
    code.instructions().filter_map(found).collect()
}

fn decode(bytes: &[u8], at: u64) -> Option<Instruction> {
    let instruction = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// The call at `at`, with which `bytes` begin, if it is of a function that compares strings.
fn call(bytes: &[u8], at: u64, callees: &Callees) -> Option<Comparison> {
    let function = callees.called_by(bytes, at)?;
    // What it looks for in what takes four arguments.
    let is_logged = function != StringFunction::MemorySearch;
    let kind = function.kind();
    is_logged.then_some(Comparison { at, kind, width: 0, function: Some(function) })
}

/// The comparison at `at`; `decode` gives an instruction of which it is certain that it stands there.
fn comparison(at: u64, decode: &dyn Fn(u64) -> Option<Instruction>) -> Option<Comparison> {
    let instruction = decode(at)?;
    let found = operands(&instruction)?;
    let next = decode(instruction.next_ip());
    let after = std::iter::successors(next, |instruction| decode(instruction.next_ip()));
    let after: Vec<Instruction> = after.take(AHEAD).collect();
    let are_dead = || flags::are_dead(instruction.next_ip(), decode);
    let kind = kind(&found, &after, &are_dead)?;
    Some(Comparison { at, kind, width: found.width, function: None })
}

/// `are_dead` tells whether the flags are dead behind it.
fn kind(
    found: &Operands,
    after: &[Instruction],
    are_dead: &dyn Fn() -> bool,
) -> Option<ComparedKind> {
    match found.class {
        Class::Compare => {
            Some(ComparedKind::Integer { is_ordering: !asks_for_equality(after).unwrap_or(true) })
        }
        // Without a question about its flags it is arithmetic.
        Class::Subtract => asks_for_equality(after)
            .map(|is_equality| ComparedKind::Integer { is_ordering: !is_equality }),
        Class::Xor => Some(ComparedKind::Integer { is_ordering: false }),
        Class::XorRegisters => {
            joins_for_equality(after).then_some(ComparedKind::Integer { is_ordering: false })
        }
        Class::Float => Some(ComparedKind::Float),
        Class::Vector => are_dead().then_some(ComparedKind::Bytes),
    }
}

/// What the next question about the flags is, if there is one before they are overwritten: whether
/// for equality alone.
fn asks_for_equality(after: &[Instruction]) -> Option<bool> {
    for instruction in after {
        if instruction.rflags_read() & ARITHMETIC != 0 {
            let condition = instruction.condition_code();
            return Some(matches!(condition, ConditionCode::e | ConditionCode::ne));
        }
        let goes_on = instruction.flow_control() == FlowControl::Next;
        if !goes_on || instruction.rflags_modified() & ARITHMETIC != 0 {
            return None;
        }
    }
    None
}

/// Whether what follows joins by OR, and asks whether the result is zero.
fn joins_for_equality(after: &[Instruction]) -> bool {
    let join = after.iter().position(|instruction| instruction.mnemonic() == Mnemonic::Or);
    let rest = join.and_then(|join| after.get(join + 1..)).unwrap_or_default();
    join.is_some() && asks_for_equality(rest) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(bytes: &[u8]) -> Option<(ComparedKind, usize)> {
        let rest = |at: u64| bytes.get(at.checked_sub(0x1000)? as usize..);
        comparison(0x1000, &|at| decode(rest(at)?, at)).map(|found| (found.kind, found.width))
    }

    const EQUALITY: ComparedKind = ComparedKind::Integer { is_ordering: false };
    const ORDERING: ComparedKind = ComparedKind::Integer { is_ordering: true };

    #[test]
    fn what_is_asked_of_the_flags_tells_what_is_compared() {
        // cmp eax, ecx; je / jb
        assert_eq!(kind_of(&[0x39, 0xc8, 0x74, 0x00]), Some((EQUALITY, 4)));
        assert_eq!(kind_of(&[0x39, 0xc8, 0x72, 0x00]), Some((ORDERING, 4)));
        // cmp al, 5; mov ecx, edx; setne dl
        assert_eq!(kind_of(&[0x3c, 5, 0x89, 0xd1, 0x0f, 0x95, 0xc2]), Some((EQUALITY, 1)));
        // cmp rax, [rsp]; ret: asked elsewhere, if at all
        assert_eq!(kind_of(&[0x48, 0x3b, 0x04, 0x24, 0xc3]), Some((EQUALITY, 8)));
    }

    #[test]
    fn arithmetic_is_a_comparison_only_if_its_flags_are_asked_for() {
        // sub eax, 7; je / add eax, ecx
        assert_eq!(kind_of(&[0x83, 0xe8, 7, 0x74, 0x00]), Some((EQUALITY, 4)));
        assert_eq!(kind_of(&[0x83, 0xe8, 7, 0x01, 0xc8]), None);
        // xor eax, ecx; or eax, edx; je / xor eax, ecx; je
        assert_eq!(kind_of(&[0x31, 0xc8, 0x09, 0xd0, 0x74, 0x00]), Some((EQUALITY, 4)));
        assert_eq!(kind_of(&[0x31, 0xc8, 0x74, 0x00]), None);
        // xor eax, eax; xor eax, -1; xor al, 3; xor eax, 0x12345678
        assert_eq!(kind_of(&[0x31, 0xc0]), None);
        assert_eq!(kind_of(&[0x83, 0xf0, 0xff]), None);
        assert_eq!(kind_of(&[0x34, 0x03]), None);
        assert_eq!(kind_of(&[0x35, 0x78, 0x56, 0x34, 0x12]), Some((EQUALITY, 4)));
    }

    #[test]
    fn a_vector_comparison_is_one_where_the_flags_are_dead() {
        let pcmpeqb = [0x66, 0x0f, 0x74, 0xc1];
        let pmovmskb = [0x66, 0x0f, 0xd7, 0xc0];
        // cmp eax, 0xffff / jb
        let dead = [&pcmpeqb[..], &pmovmskb, &[0x3d, 0xff, 0xff, 0, 0]].concat();
        let live = [&pcmpeqb[..], &pmovmskb, &[0x72, 0x00]].concat();
        assert_eq!(kind_of(&dead), Some((ComparedKind::Bytes, 16)));
        assert_eq!(kind_of(&live), None);
        assert_eq!(kind_of(&pcmpeqb), None, "nobody knows");
    }

    #[test]
    fn what_cannot_be_stored_is_none() {
        // cmp eax, [ecx]; cmp eax, [eip + 1]; test eax, eax; nop; nothing
        assert_eq!(kind_of(&[0x67, 0x3b, 0x01]), None);
        assert_eq!(kind_of(&[0x67, 0x3b, 0x05, 1, 0, 0, 0]), None);
        assert_eq!(kind_of(&[0x85, 0xc0]), None);
        assert_eq!(kind_of(&[0x90]), None);
        assert_eq!(kind_of(&[]), None);
        // vpcmpeqb ymm0, ymm1, ymm2
        assert_eq!(kind_of(&[0xc5, 0xf5, 0x74, 0xc2, 0x3d, 0, 0, 0, 0]), None);
    }
}
