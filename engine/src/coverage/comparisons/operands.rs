//! Which operands of an instruction are compared. Never looks at another instruction.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

/// What an instruction compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operands {
    /// Which of its operands.
    pub left: u32,
    pub right: u32,
    /// Bytes of each.
    pub width: usize,
    pub class: Class,
}

/// How an instruction compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// CMP.
    Compare,
    /// SUB, a comparison if its flags are asked for.
    Subtract,
    /// XOR with a constant or with memory, a part of a comparison.
    Xor,
    /// XOR of registers, perhaps one.
    XorRegisters,
    /// COMISD and its kin.
    Float,
    /// PCMPEQB and its kin, which leave the flags alone.
    Vector,
}

/// What `instruction` compares, if it may be a comparison.
pub(super) fn operands(instruction: &Instruction) -> Option<Operands> {
    let (class, left) = match instruction.mnemonic() {
        Mnemonic::Cmp => (Class::Compare, 0),
        Mnemonic::Sub => (Class::Subtract, 0),
        Mnemonic::Xor if instruction.op_kind(1) == OpKind::Register => (Class::XorRegisters, 0),
        Mnemonic::Xor => (Class::Xor, 0),
        Mnemonic::Comisd
        | Mnemonic::Comiss
        | Mnemonic::Ucomisd
        | Mnemonic::Ucomiss
        | Mnemonic::Vcomisd
        | Mnemonic::Vcomiss
        | Mnemonic::Vucomisd
        | Mnemonic::Vucomiss => (Class::Float, 0),
        Mnemonic::Pcmpeqb | Mnemonic::Pcmpeqw | Mnemonic::Pcmpeqd | Mnemonic::Pcmpeqq => {
            (Class::Vector, 0)
        }
        Mnemonic::Vpcmpeqb | Mnemonic::Vpcmpeqw | Mnemonic::Vpcmpeqd | Mnemonic::Vpcmpeqq => {
            (Class::Vector, 1)
        }
        _ => return None,
    };
    let right = left + 1;
    let width = match class {
        Class::Compare | Class::Subtract | Class::Xor | Class::XorRegisters => {
            integer_width(instruction, left)?
        }
        Class::Float => float_width(instruction.mnemonic()),
        Class::Vector => 16,
    };
    let is_known = [left, right].into_iter().all(|operand| is_known(instruction, operand, class));
    let is_two_things = instruction.op_kind(left) != OpKind::Register
        || instruction.op_kind(right) != OpKind::Register
        || instruction.op_register(left) != instruction.op_register(right);
    let is_wanted = class != Class::Xor || is_part_of_comparison(instruction, width);
    (is_known && is_two_things && is_wanted).then_some(Operands { left, right, width, class })
}

fn integer_width(instruction: &Instruction, operand: u32) -> Option<usize> {
    let width = match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).size(),
        OpKind::Memory => instruction.memory_size().size(),
        _ => return None,
    };
    matches!(width, 1 | 2 | 4 | 8).then_some(width)
}

fn float_width(mnemonic: Mnemonic) -> usize {
    match mnemonic {
        Mnemonic::Comiss | Mnemonic::Ucomiss | Mnemonic::Vcomiss | Mnemonic::Vucomiss => 4,
        _ => 8,
    }
}

/// Whether an operand is of a kind that can be stored.
fn is_known(instruction: &Instruction, operand: u32, class: Class) -> bool {
    let is_vector = matches!(class, Class::Float | Class::Vector);
    match instruction.op_kind(operand) {
        OpKind::Register if is_vector => is_low_xmm(instruction.op_register(operand)),
        OpKind::Register => instruction.op_register(operand).is_gpr(),
        OpKind::Memory => is_ordinary_memory(instruction),
        kind => !is_vector && is_immediate(kind),
    }
}

/// XMM0 to XMM15, which SSE can store.
fn is_low_xmm(register: Register) -> bool {
    register.is_xmm() && register.number() < 16
}

/// Not relative to what is left of RIP or of another register in 32 bits, and no gather.
fn is_ordinary_memory(instruction: &Instruction) -> bool {
    let is_usual = |register: Register| {
        register == Register::None || register.is_gpr64() || register == Register::RIP
    };
    is_usual(instruction.memory_base()) && is_usual(instruction.memory_index())
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

/// XOR joins the parts of a comparison, but a single byte's is more often arithmetic, and one with
/// all ones is a NOT.
fn is_part_of_comparison(instruction: &Instruction, width: usize) -> bool {
    let is_memory = instruction.op_kind(1) == OpKind::Memory;
    let is_constant = is_immediate(instruction.op_kind(1)) && instruction.immediate(1) != u64::MAX;
    let into_register = instruction.op_kind(0) == OpKind::Register;
    width > 1 && into_register && (is_memory || is_constant && !is_all_ones(instruction, width))
}

fn is_all_ones(instruction: &Instruction, width: usize) -> bool {
    let mask = u64::MAX >> (64 - 8 * width.clamp(1, 8));
    instruction.immediate(1) & mask == mask
}
