//! The code that logs: a stub before each comparison, which stores its operands, and one logger
//! for all stubs.
//!
//! Functions that compare strings are logged where they are called: what their arguments point at.
//!
//! It uses no stack (below RSP is the red zone) and calls nothing; it changes the arithmetic flags,
//! which a comparison overwrites and a call does not keep, and no register. Never decides where it
//! may stand.

use super::log::{
    BACK, CURSOR, HITS_MAX, LEFT, OPERAND_BYTES, RECORD, RECORD_LEFT, RECORD_LEFT_BYTES,
    RECORD_RIGHT, RECORD_RIGHT_BYTES, RECORD_THIRD, RECORDS_MAX, RIGHT, SAVED_RAX, SAVED_RCX,
    SAVED_RDI, SAVED_RSI, SITE, counts_range, records_range,
};
use super::operands::{Class, Operands, operands};
use crate::coverage::detours::{Before, Probe};
use iced_x86::{Code, Encoder, Instruction, MemoryOperand, OpKind, Register};

/// The most bytes that a stub takes.
pub const STUB_BYTES_MAX: u64 = 160;

/// All but the offset in a page, negated: OR with it and NEG give what is left of the page.
const PAGE_MASK: u32 = !0xfff;

/// REP MOVSB; the direction flag is clear at a call (psABI).
const REP_MOVSB: [u8; 2] = [0xf3, 0xa4];

/// The logger of one log, and what its stubs are made with.
#[derive(Clone, Debug)]
pub struct Logger {
    /// Where its data is, in the address space.
    data: u64,
    /// What to add to the link-time addresses in instructions.
    base: u64,
    /// Where its code is, for instructions and for calls.
    at: u64,
    strings_at: u64,
    code: Vec<u8>,
}

impl Logger {
    /// The most bytes that its own code takes.
    pub const CODE_BYTES_MAX: u64 = 640;

    /// A logger whose code is at `at`, for the `sites` comparisons of an image at `base`, and with
    /// its data at `data`; `None` if that is out of reach.
    #[must_use]
    pub fn new(at: u64, data: u64, sites: usize, base: u64) -> Option<Self> {
        let mut code = Vec::new();
        let (counts, records) = (counts_range(sites).start, records_range(sites).start);
        let mut w = Writer { to: at, code: &mut code, data };
        w.log_operands(data + counts, data + records)?;
        let strings_at = w.to;
        w.log_strings(data + counts, data + records)?;
        (code.len() as u64 <= Self::CODE_BYTES_MAX).then_some(())?;
        Some(Self { data, base, at, strings_at, code })
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        &self.code
    }
}

impl Probe for Logger {
    fn emit(&mut self, before: &Before<'_>, code: &mut Vec<u8>) -> Option<()> {
        let start = code.len();
        let mut w = Writer { to: before.to, code, data: self.data };
        w.store(SAVED_RAX, Register::RAX)?;
        let logger = match operands(before.instruction) {
            Some(found) => {
                for (operand, slot) in [(found.left, LEFT), (found.right, RIGHT)] {
                    w.store_operand(before.instruction, &found, operand, slot, self.base)?;
                }
                self.at
            }
            None => self.strings_at,
        };
        let index = u32::try_from(before.index).ok()?;
        w.op(Instruction::with2(Code::Mov_rm32_imm32, w.at(SITE), index))?;
        // To behind the jump, which is five bytes, as the store before it is seven and this one, too.
        let back = w.to + 7 + 7 + 5;
        w.op(Instruction::with2(Code::Lea_r64_m, Register::RAX, absolute(back)))?;
        w.store(BACK, Register::RAX)?;
        w.op(Instruction::with_branch(Code::Jmp_rel32_64, logger))?;
        let length = (w.code.len() - start) as u64;
        (w.to == back && length <= STUB_BYTES_MAX).then_some(())
    }
}

/// Appends instructions that stand at fixed addresses.
struct Writer<'c> {
    /// Where the first byte of what `code` holds beyond what it held comes to stand.
    to: u64,
    code: &'c mut Vec<u8>,
    data: u64,
}

impl Writer<'_> {
    /// The logger of instructions, which finds their operands in the header.
    fn log_operands(&mut self, counts: u64, records: u64) -> Option<()> {
        use Register::{RAX, RCX};
        self.store(SAVED_RCX, RCX)?;
        let out = self.claim(counts, records)?;
        for (from, to) in [
            (LEFT, RECORD_LEFT),
            (LEFT + 8, RECORD_LEFT + 8),
            (RIGHT, RECORD_RIGHT),
            (RIGHT + 8, RECORD_RIGHT + 8),
        ] {
            self.load(RAX, from)?;
            let to = MemoryOperand::with_base_displ(RCX, to.cast_signed());
            self.op(Instruction::with2(Code::Mov_rm64_r64, to, RAX))?;
        }
        out.into_iter().try_for_each(|jump| self.land(jump))?;
        self.leave()
    }

    /// The logger of calls: what RDI and RSI point at, as far as the page goes where that is, which
    /// the function is about to read; nothing where one of them is NULL, as with a length of 0.
    fn log_strings(&mut self, counts: u64, records: u64) -> Option<()> {
        use Register::{ECX, EDX, RAX, RCX, RDI, RSI};
        self.store(SAVED_RCX, RCX)?;
        self.op(Instruction::with2(Code::Test_rm64_r64, RDI, RDI))?;
        let no_left = self.jump_if_far(0x84)?; // JE
        self.op(Instruction::with2(Code::Test_rm64_r64, RSI, RSI))?;
        let no_right = self.jump_if_far(0x84)?;
        let out = self.claim(counts, records)?;
        let third = MemoryOperand::with_base_displ(RCX, RECORD_THIRD.cast_signed());
        self.op(Instruction::with2(Code::Mov_rm32_r32, third, EDX))?;
        self.store(RECORD, RCX)?;
        self.store(SAVED_RSI, RSI)?;
        self.store(SAVED_RDI, RDI)?;
        self.op(Instruction::with2(Code::Mov_r64_rm64, RSI, RDI))?;
        for (to, bytes) in [(RECORD_LEFT, RECORD_LEFT_BYTES), (RECORD_RIGHT, RECORD_RIGHT_BYTES)] {
            if to == RECORD_RIGHT {
                self.load(RSI, SAVED_RSI)?;
            }
            // So many bytes are left of the page, or as many as a record has room for.
            self.op(Instruction::with2(Code::Mov_r32_rm32, ECX, Register::ESI))?;
            self.op(Instruction::with2(Code::Or_rm32_imm32, ECX, PAGE_MASK))?;
            self.op(Instruction::with1(Code::Neg_rm32, ECX))?;
            self.op(Instruction::with2(Code::Cmp_rm32_imm8, ECX, OPERAND_BYTES as u32))?;
            let short = self.jump_if(0x76)?; // JBE
            self.op(Instruction::with2(Code::Mov_r32_imm32, ECX, OPERAND_BYTES as u32))?;
            self.land(short)?;
            self.load(RAX, RECORD)?;
            let at = |offset: u64| MemoryOperand::with_base_displ(RAX, offset.cast_signed());
            self.op(Instruction::with2(Code::Mov_rm32_r32, at(bytes), ECX))?;
            self.op(Instruction::with2(Code::Lea_r64_m, RDI, at(to)))?;
            self.code.extend(REP_MOVSB);
            self.to = self.to.wrapping_add(REP_MOVSB.len() as u64);
        }
        self.load(RSI, SAVED_RSI)?;
        self.load(RDI, SAVED_RDI)?;
        out.into_iter().chain([no_left, no_right]).try_for_each(|jump| self.land(jump))?;
        self.leave()
    }

    /// Has RCX point at a new record of the present comparison; the jumps that are taken where there
    /// is none for it. Uses RAX.
    fn claim(&mut self, counts: u64, records: u64) -> Option<[usize; 2]> {
        use Register::{EAX, ECX, RAX, RCX};
        self.op(Instruction::with2(Code::Mov_r32_rm32, ECX, self.at(SITE)))?;
        self.op(Instruction::with2(Code::Lea_r64_m, RAX, absolute(counts)))?;
        self.op(Instruction::with2(Code::Add_r64_rm64, RAX, RCX))?;
        let count = MemoryOperand::with_base(RAX);
        self.op(Instruction::with2(Code::Cmp_rm8_imm8, count, u32::from(HITS_MAX)))?;
        let often = self.jump_if_far(0x83)?; // JAE
        self.op(Instruction::with1(Code::Inc_rm8, count))?;
        self.op(Instruction::with2(Code::Mov_r32_rm32, ECX, self.at(CURSOR)))?;
        self.op(Instruction::with2(Code::Cmp_rm32_imm32, ECX, RECORDS_MAX))?;
        let full = self.jump_if_far(0x83)?;
        self.op(Instruction::with1(Code::Inc_rm32, self.at(CURSOR)))?;
        // Eighty bytes each.
        let five = MemoryOperand::with_base_index_scale(RCX, RCX, 4);
        self.op(Instruction::with2(Code::Lea_r64_m, RCX, five))?;
        self.op(Instruction::with2(Code::Shl_rm64_imm8, RCX, 4))?;
        self.op(Instruction::with2(Code::Lea_r64_m, RAX, absolute(records)))?;
        self.op(Instruction::with2(Code::Add_r64_rm64, RCX, RAX))?;
        self.op(Instruction::with2(Code::Mov_r32_rm32, EAX, self.at(SITE)))?;
        self.op(Instruction::with2(Code::Mov_rm32_r32, MemoryOperand::with_base(RCX), EAX))?;
        Some([often, full])
    }

    /// Back to the stub.
    fn leave(&mut self) -> Option<()> {
        self.load(Register::RCX, SAVED_RCX)?;
        self.load(Register::RAX, SAVED_RAX)?;
        self.op(Instruction::with1(Code::Jmp_rm64, self.at(BACK)))
    }

    fn at(&self, offset: u64) -> MemoryOperand {
        absolute(self.data.wrapping_add(offset))
    }

    fn op(&mut self, instruction: Result<Instruction, iced_x86::IcedError>) -> Option<()> {
        let mut encoder = Encoder::new(64);
        let length = encoder.encode(&instruction.ok()?, self.to).ok()?;
        self.code.extend(encoder.take_buffer());
        self.to = self.to.wrapping_add(length as u64);
        Some(())
    }

    fn store(&mut self, offset: u64, register: Register) -> Option<()> {
        self.op(Instruction::with2(Code::Mov_rm64_r64, self.at(offset), register))
    }

    fn load(&mut self, register: Register, offset: u64) -> Option<()> {
        self.op(Instruction::with2(Code::Mov_r64_rm64, register, self.at(offset)))
    }

    /// A short jump by this opcode, to where [`land`](Self::land) says.
    fn jump_if(&mut self, opcode: u8) -> Option<usize> {
        self.code.extend([opcode, 0]);
        self.to = self.to.wrapping_add(2);
        Some(self.code.len())
    }

    /// As [`jump_if`](Self::jump_if), with a distance of four bytes.
    fn jump_if_far(&mut self, opcode: u8) -> Option<usize> {
        self.code.extend([0x0f, opcode, 0, 0, 0, 0]);
        self.to = self.to.wrapping_add(6);
        Some(self.code.len())
    }

    /// Has the jump that ends at `from` lead here.
    fn land(&mut self, from: usize) -> Option<()> {
        let distance = self.code.len().checked_sub(from)?;
        let is_far = self.code.get(from.checked_sub(6)?) == Some(&0x0f);
        let bytes = match is_far {
            true => i32::try_from(distance).ok()?.to_le_bytes().to_vec(),
            false => vec![i8::try_from(distance).ok()?.cast_unsigned()],
        };
        self.code.get_mut(from - bytes.len()..from)?.copy_from_slice(&bytes);
        Some(())
    }

    /// Stores an operand; RAX is the program's before and after.
    fn store_operand(
        &mut self,
        instruction: &Instruction,
        found: &Operands,
        operand: u32,
        slot: u64,
        base: u64,
    ) -> Option<()> {
        use Register::RAX;
        let width = found.width;
        let parts = if found.class == Class::Vector { 2 } else { 1 };
        match instruction.op_kind(operand) {
            OpKind::Register if instruction.op_register(operand).is_xmm() => {
                let register = instruction.op_register(operand);
                let slot = self.at(slot);
                self.op(Instruction::with2(Code::Movups_xmmm128_xmm, slot, register))
            }
            OpKind::Register => {
                let (code, to) = load_of(width)?;
                self.op(Instruction::with2(code, to, instruction.op_register(operand)))?;
                self.keep(slot)
            }
            OpKind::Memory => {
                for part in 0..parts {
                    let (code, to) = load_of(width.min(8))?;
                    let from = memory(instruction, base, part * 8);
                    self.op(Instruction::with2(code, to, from))?;
                    self.keep(slot + part * 8)?;
                }
                Some(())
            }
            _ => {
                let value = instruction.immediate(operand);
                self.op(Instruction::with2(Code::Mov_r64_imm64, RAX, value))?;
                self.keep(slot)
            }
        }
    }

    /// Stores RAX, and puts back what the program has in it.
    fn keep(&mut self, slot: u64) -> Option<()> {
        self.store(slot, Register::RAX)?;
        self.load(Register::RAX, SAVED_RAX)
    }
}

/// What loads so many bytes into RAX.
fn load_of(width: usize) -> Option<(Code, Register)> {
    Some(match width {
        1 => (Code::Movzx_r32_rm8, Register::EAX),
        2 => (Code::Movzx_r32_rm16, Register::EAX),
        4 => (Code::Mov_r32_rm32, Register::EAX),
        8 => (Code::Mov_r64_rm64, Register::RAX),
        _ => return None,
    })
}

/// The instruction's operand in memory, `more` bytes further on.
fn memory(instruction: &Instruction, base: u64, more: u64) -> MemoryOperand {
    let at = instruction.memory_displacement64().wrapping_add(more);
    let is_relative = instruction.memory_base() == Register::RIP;
    let at = if is_relative { at.wrapping_add(base) } else { at };
    MemoryOperand::new(
        instruction.memory_base(),
        instruction.memory_index(),
        instruction.memory_index_scale(),
        at.cast_signed(),
        8,
        false,
        instruction.segment_prefix(),
    )
}

fn absolute(address: u64) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RIP, address.cast_signed())
}
