//! An assembler for code whose data is at fixed addresses. Knows nothing of what is assembled.

use iced_x86::code_asm::*;
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

pub(super) type Emit = Result<(), IcedError>;

/// An assembler with operands at fixed addresses, which it encodes relative to RIP.
pub(super) struct Asm {
    pub(super) code: CodeAssembler,
}

fn at(address: u64) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RIP, address.cast_signed())
}

impl Asm {
    pub(super) fn new() -> Result<Self, IcedError> {
        Ok(Self { code: CodeAssembler::new(64)? })
    }

    pub(super) fn op_m(&mut self, code: Code, address: u64) -> Emit {
        self.code.add_instruction(Instruction::with1(code, at(address))?)
    }

    pub(super) fn op_r_m(&mut self, code: Code, register: Register, address: u64) -> Emit {
        self.code.add_instruction(Instruction::with2(code, register, at(address))?)
    }

    pub(super) fn op_m_r(&mut self, code: Code, address: u64, register: AsmRegister64) -> Emit {
        self.code.add_instruction(Instruction::with2(code, at(address), Register::from(register))?)
    }

    pub(super) fn load(&mut self, register: AsmRegister64, address: u64) -> Emit {
        self.op_r_m(Code::Mov_r64_rm64, register.into(), address)
    }

    pub(super) fn store(&mut self, address: u64, register: AsmRegister64) -> Emit {
        self.op_m_r(Code::Mov_rm64_r64, address, register)
    }

    pub(super) fn load32(&mut self, register: AsmRegister32, address: u64) -> Emit {
        self.op_r_m(Code::Mov_r32_rm32, register.into(), address)
    }

    pub(super) fn store32(&mut self, address: u64, register: AsmRegister32) -> Emit {
        let register = Register::from(register);
        self.code.add_instruction(Instruction::with2(Code::Mov_rm32_r32, at(address), register)?)
    }

    pub(super) fn compare32(&mut self, register: AsmRegister32, address: u64) -> Emit {
        self.op_r_m(Code::Cmp_r32_rm32, register.into(), address)
    }

    /// Through XMM0.
    pub(super) fn load128(&mut self, address: u64) -> Emit {
        self.op_r_m(Code::Movups_xmm_xmmm128, Register::XMM0, address)
    }

    pub(super) fn store128(&mut self, address: u64) -> Emit {
        let store = Instruction::with2(Code::Movups_xmmm128_xmm, at(address), Register::XMM0)?;
        self.code.add_instruction(store)
    }

    pub(super) fn address(&mut self, register: AsmRegister64, address: u64) -> Emit {
        self.op_r_m(Code::Lea_r64_m, register.into(), address)
    }

    pub(super) fn xrstor(&mut self, address: u64) -> Emit {
        self.op_m(Code::Xrstor64_mem, address)
    }

    pub(super) fn jump(&mut self, address: u64) -> Emit {
        self.code.add_instruction(Instruction::with_branch(Code::Jmp_rel32_64, address)?)
    }

    /// When the last comparison found a difference.
    pub(super) fn jump_if_not(&mut self, address: u64) -> Emit {
        self.code.add_instruction(Instruction::with_branch(Code::Jne_rel32_64, address)?)
    }

    pub(super) fn jump_if_not_below(&mut self, address: u64) -> Emit {
        self.code.add_instruction(Instruction::with_branch(Code::Jae_rel32_64, address)?)
    }
}
