//! Recognition of the jump-table idioms of gcc, clang and rustc.
//!
//! Works on the few instructions that lead to an indirect jump, by walking backwards from
//! register to definition. Never reads the table itself and never looks beyond the steps it is
//! given; what it cannot prove stays unknown.

use iced_x86::{
    Code, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

/// Copies of a register that are followed before a definition counts as unknown.
const COPIES_MAX: usize = 4;
/// Tables beyond this many entries are not believed.
pub(super) const ENTRIES_MAX: u64 = 8192;

/// One instruction on the way to an indirect jump.
pub(super) struct Step {
    pub instruction: Instruction,
    /// It is a conditional jump and control came through its target.
    pub taken: bool,
}

/// Where a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    At(u64),
    /// In this register, which was loaded out of sight (hoisted out of a loop).
    In(Register),
}

/// How an entry becomes a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum EntryKind {
    /// A signed 32-bit distance from the table.
    Relative,
    /// A 64-bit address.
    Absolute,
}

/// A jump table as its jump uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JumpTable {
    pub base: Base,
    pub entry: EntryKind,
    /// How many entries there are, when a comparison says it.
    pub count: Option<u64>,
}

/// Whether `jump` may go through a table at all: its target is computed, not merely loaded.
pub(super) fn is_plausible(jump: &Instruction, path: &[Step]) -> bool {
    let mut slice = Slice { path, info: InstructionInfoFactory::new() };
    if jump.op0_kind() == OpKind::Memory {
        return jump.memory_index_scale() == 8 && jump.memory_index() != Register::None;
    }
    let target = register(jump, 0).and_then(|target| slice.definition(target, 0));
    target.is_some_and(|(_, target)| match target.mnemonic() {
        Mnemonic::Add | Mnemonic::Lea => true,
        Mnemonic::Mov => target.memory_index_scale() == 8,
        _ => false,
    })
}

/// Whether `jump` goes to an address that is loaded as it is, and not from the stack: somebody has
/// made that address before, and not by adding to a table's entry. `path` is the only way to it.
pub(super) fn is_loaded(jump: &Instruction, path: &[Step]) -> bool {
    if jump.op0_kind() == OpKind::Memory {
        return is_plain_load(jump);
    }
    let mut slice = Slice { path, info: InstructionInfoFactory::new() };
    let target = register(jump, 0).and_then(|target| slice.definition(target, 0));
    target.is_some_and(|(_, load)| {
        load.code() == Code::Mov_r64_rm64
            && load.op1_kind() == OpKind::Memory
            && is_plain_load(&load)
    })
}

/// Whether the memory operand is no local variable, and nothing chooses among several.
fn is_plain_load(load: &Instruction) -> bool {
    let is_local = match load.memory_base() {
        Register::RSP => true,
        Register::RBP => displacement(load).cast_signed() < 0,
        _ => false,
    };
    !is_local && load.memory_index() == Register::None && !has_segment(load)
}

/// The table that `jump` goes through; `path[0]` is the instruction before it.
pub(super) fn recognise(jump: &Instruction, path: &[Step]) -> Option<JumpTable> {
    let mut slice = Slice { path, info: InstructionInfoFactory::new() };
    if jump.op0_kind() == OpKind::Memory {
        return slice.absolute(jump, 0);
    }
    let (at, target) = slice.definition(register(jump, 0)?, 0)?;
    match target.mnemonic() {
        Mnemonic::Add => slice.relative(register(&target, 0)?, register(&target, 1)?, at + 1),
        Mnemonic::Lea if target.memory_index_scale() == 1 && displacement(&target) == 0 => {
            slice.relative(target.memory_base(), target.memory_index(), at + 1)
        }
        Mnemonic::Mov if target.op1_kind() == OpKind::Memory => slice.absolute(&target, at + 1),
        _ => None,
    }
}

/// The path to an indirect jump, walked backwards.
struct Slice<'a> {
    path: &'a [Step],
    info: InstructionInfoFactory,
}

impl Slice<'_> {
    /// `jmp [table + index*8]`, or the load that stands for it.
    fn absolute(&mut self, load: &Instruction, from: usize) -> Option<JumpTable> {
        let is_indexed = load.memory_index() != Register::None && load.memory_index_scale() == 8;
        if !is_indexed || has_segment(load) {
            return None;
        }
        let base = match load.memory_base() {
            Register::None => Base::At(displacement(load)),
            base => match self.constant(base, from) {
                Some(address) => Base::At(address.wrapping_add(displacement(load))),
                None if displacement(load) == 0 => Base::In(base.full_register()),
                None => return None,
            },
        };
        let count = self.bound(load.memory_index(), from);
        Some(JumpTable { base, entry: EntryKind::Absolute, count })
    }

    /// `add a, b; jmp a`, where one is the table and the other an entry loaded from it.
    fn relative(&mut self, a: Register, b: Register, from: usize) -> Option<JumpTable> {
        self.relative_from(a, b, from).or_else(|| self.relative_from(b, a, from))
    }

    fn relative_from(
        &mut self,
        entry: Register,
        table: Register,
        from: usize,
    ) -> Option<JumpTable> {
        let (at, load) = self.sign_extended_load(entry, from)?;
        if has_segment(&load) {
            return None;
        }
        let known = self.constant(table, from);
        let (base, index, from) = self.address_parts(&load, at + 1)?;
        let base = match (base, known) {
            (Base::At(address), Some(known)) if address == known => Base::At(address),
            (Base::In(register), None) if register == table.full_register() => base,
            _ => return None,
        };
        let count = self.bound(index, from);
        Some(JumpTable { base, entry: EntryKind::Relative, count })
    }

    /// `movsxd r, [memory]`, or `mov eax, [memory]; cdqe`.
    fn sign_extended_load(&mut self, entry: Register, from: usize) -> Option<(usize, Instruction)> {
        let (at, definition) = self.definition(entry, from)?;
        match definition.code() {
            Code::Movsxd_r64_rm32 if definition.op1_kind() == OpKind::Memory => {
                Some((at, definition))
            }
            Code::Movsxd_r64_rm32 => self.plain_load(register(&definition, 1)?, at + 1),
            Code::Cdqe => self.plain_load(Register::RAX, at + 1),
            _ => None,
        }
    }

    fn plain_load(&mut self, register: Register, from: usize) -> Option<(usize, Instruction)> {
        let (at, load) = self.definition(register, from)?;
        (load.code() == Code::Mov_r32_rm32 && load.op1_kind() == OpKind::Memory)
            .then_some((at, load))
    }

    /// Split the address of a load of 4-byte entries into table and index, with the step from which
    /// on the index is seen in its register.
    fn address_parts(
        &mut self,
        load: &Instruction,
        from: usize,
    ) -> Option<(Base, Register, usize)> {
        let (base, index) = (load.memory_base(), load.memory_index());
        match (base, load.memory_index_scale()) {
            (_, _) if index == Register::None => None,
            (Register::None, 4) => Some((Base::At(displacement(load)), index, from)),
            (base, 4) if displacement(load) == 0 => Some((self.base_of(base, from), index, from)),
            // Unoptimised gcc scales the index beforehand.
            (base, 1) if displacement(load) == 0 => {
                let (base, scaled) = match self.constant(base, from) {
                    Some(address) => (address, index),
                    None => (self.constant(index, from)?, base),
                };
                let (at, scaling) = self.definition(scaled, from)?;
                let is_scaling = scaling.mnemonic() == Mnemonic::Lea
                    && scaling.memory_index_scale() == 4
                    && scaling.memory_base() == Register::None;
                is_scaling.then(|| (Base::At(base), scaling.memory_index(), at + 1))
            }
            _ => None,
        }
    }

    fn base_of(&mut self, register: Register, from: usize) -> Base {
        self.constant(register, from).map_or(Base::In(register.full_register()), Base::At)
    }

    /// The address that `register` holds, if an instruction in sight puts it there.
    fn constant(&mut self, mut of: Register, mut from: usize) -> Option<u64> {
        for _ in 0..COPIES_MAX {
            let (at, definition) = self.definition(of, from)?;
            if let Some(address) = super::flow::taken_address(&definition) {
                return Some(address);
            }
            match (definition.mnemonic(), definition.op1_kind()) {
                (Mnemonic::Mov, OpKind::Register) => {
                    (of, from) = (definition.op1_register(), at + 1);
                }
                (Mnemonic::Mov, _) => return definition.try_immediate(1).ok(),
                _ => return None,
            }
        }
        None
    }

    /// The last instruction that wrote `of`, seen from step `from`.
    fn definition(&mut self, of: Register, from: usize) -> Option<(usize, Instruction)> {
        let path = self.path;
        for (at, step) in path.iter().enumerate().skip(from) {
            if is_clobbered_by_call(&step.instruction, of) {
                return None;
            }
            if self.writes(&step.instruction, of) {
                return Some((at, step.instruction));
            }
        }
        None
    }

    fn writes(&mut self, instruction: &Instruction, register: Register) -> bool {
        let used = self.info.info(instruction).used_registers().iter();
        let mut written = used.filter(|used| {
            use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
            matches!(used.access(), Write | CondWrite | ReadWrite | ReadCondWrite)
        });
        written.any(|u| u.register().full_register() == register.full_register())
    }

    /// How many values `index` can have, from the comparison or mask that guards the jump.
    fn bound(&mut self, index: Register, from: usize) -> Option<u64> {
        let mut index = Index::Register(index.full_register());
        // Values that pass the conditional jump seen last: below the compared number, plus this.
        let mut guard: Option<u64> = None;
        let path = self.path;
        for step in path.iter().skip(from) {
            let instruction = &step.instruction;
            if let Some(extra) = guard_of(instruction, step.taken) {
                guard = Some(extra);
                continue;
            }
            if instruction.rflags_modified() != 0
                && let Some(extra) = guard.take()
                && instruction.mnemonic() == Mnemonic::Cmp
                && index.is_operand_0_of(instruction)
            {
                let count = instruction.try_immediate(1).ok()?.checked_add(extra)?;
                return (1..=ENTRIES_MAX).contains(&count).then_some(count);
            }
            index = match index {
                Index::Register(register) if is_clobbered_by_call(instruction, register) => {
                    return None;
                }
                Index::Register(register) if self.writes(instruction, register) => {
                    if let Some(count) = mask(instruction) {
                        return Some(count);
                    }
                    copied_from(instruction)?
                }
                kept => kept,
            };
        }
        None
    }
}

/// What holds the index of a table.
enum Index {
    Register(Register),
    /// The memory operand of this instruction.
    Memory(Instruction),
}

impl Index {
    fn is_operand_0_of(&self, compare: &Instruction) -> bool {
        match self {
            Self::Register(register) => {
                compare.op0_kind() == OpKind::Register
                    && compare.op0_register().full_register() == *register
            }
            Self::Memory(load) => {
                compare.op0_kind() == OpKind::Memory
                    && compare.memory_base() == load.memory_base()
                    && compare.memory_index() == load.memory_index()
                    && compare.memory_index_scale() == load.memory_index_scale()
                    && displacement(compare) == displacement(load)
            }
        }
    }
}

/// For an unsigned conditional jump that lets small values through: 1 if the compared number
/// itself passes as well.
fn guard_of(instruction: &Instruction, taken: bool) -> Option<u64> {
    match (instruction.mnemonic(), taken) {
        (Mnemonic::Ja, false) | (Mnemonic::Jbe, true) => Some(1),
        (Mnemonic::Jae, false) | (Mnemonic::Jb, true) => Some(0),
        _ => None,
    }
}

/// The number of values that `and register, immediate` leaves.
fn mask(instruction: &Instruction) -> Option<u64> {
    if instruction.mnemonic() != Mnemonic::And {
        return None;
    }
    let count = instruction.try_immediate(1).ok()?.checked_add(1)?;
    (1..=ENTRIES_MAX).contains(&count).then_some(count)
}

/// Where a move took the index from.
fn copied_from(instruction: &Instruction) -> Option<Index> {
    let is_move =
        matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsxd);
    match instruction.op1_kind() {
        OpKind::Register if is_move => {
            Some(Index::Register(instruction.op1_register().full_register()))
        }
        OpKind::Memory if is_move => Some(Index::Memory(*instruction)),
        _ => None,
    }
}

/// Registers that the System V calling convention lets a callee change.
fn is_clobbered_by_call(instruction: &Instruction, register: Register) -> bool {
    let kept = [
        Register::RBX,
        Register::RBP,
        Register::RSP,
        Register::R12,
        Register::R13,
        Register::R14,
        Register::R15,
    ];
    matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
        && !kept.contains(&register.full_register())
}

fn register(instruction: &Instruction, operand: u32) -> Option<Register> {
    let is_register = instruction.try_op_kind(operand).ok()? == OpKind::Register;
    is_register.then(|| instruction.try_op_register(operand).unwrap_or_default())
}

fn displacement(instruction: &Instruction) -> u64 {
    instruction.memory_displacement64()
}

fn has_segment(instruction: &Instruction) -> bool {
    instruction.segment_prefix() != Register::None
}
