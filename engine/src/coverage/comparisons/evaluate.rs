//! What an instruction compares, asked of registers and memory: for comparisons that have a
//! breakpoint because they cannot log themselves. Never changes either.

use super::operands::{Class, operands};
use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind, Register};

/// The operands of the comparison with which `bytes` begin, at `at` in the address space; `None` if
/// that is none, or it compares what is not at hand.
///
/// `register` gives a 64-bit general register, or the base of FS or GS; `read` memory, if there is
/// any.
pub fn evaluate(
    bytes: &[u8],
    at: u64,
    register: &dyn Fn(Register) -> u64,
    read: &dyn Fn(u64, &mut [u8]) -> bool,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let instruction = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode();
    let found = operands(&instruction)?;
    if matches!(found.class, Class::Float | Class::Vector) {
        return None;
    }
    let value = |operand| value(&instruction, operand, found.width, register, read);
    Some((value(found.left)?, value(found.right)?))
}

fn value(
    instruction: &Instruction,
    operand: u32,
    width: usize,
    register: &dyn Fn(Register) -> u64,
    read: &dyn Fn(u64, &mut [u8]) -> bool,
) -> Option<Vec<u8>> {
    let number = match instruction.op_kind(operand) {
        OpKind::Register => {
            let part = instruction.op_register(operand);
            let is_high = matches!(part, Register::AH | Register::BH | Register::CH | Register::DH);
            register(part.full_register()) >> if is_high { 8 } else { 0 }
        }
        OpKind::Memory => {
            let at = instruction.virtual_address(operand, 0, |part, _, _| {
                Some(match part {
                    Register::CS | Register::DS | Register::ES | Register::SS => 0,
                    part => register(part.full_register()),
                })
            })?;
            let mut bytes = vec![0; width];
            return read(at, &mut bytes).then_some(bytes);
        }
        _ => instruction.immediate(operand),
    };
    number.to_le_bytes().get(..width).map(<[u8]>::to_vec)
}
