//! General-protection faults that a host reports as invalid opcodes.
//!
//! kvm_pvm has its emulator look at every #GP of CPL 3, and what the emulator does not know (most
//! of SSE and AVX) it gives back as #UD. No CPU raises #UD for an instruction that it has, so that
//! a valid one whose operand would raise #GP shows that it was that. Never asks what kind of host
//! this is: on others there is nothing of the sort to find. EVEX-encoded instructions are left as
//! they are reported, because not every CPU has them.

use iced_x86::{
    Decoder, DecoderOptions, EncodingKind, Instruction, InstructionInfoFactory, Mnemonic, Register,
};
use kvm_bindings::kvm_regs;

/// XCR0's bit for AVX.
const AVX: u64 = 1 << 2;

/// What of the CPU an address is made of.
pub(super) struct Operands<'a> {
    /// RIP at the instruction.
    pub(super) regs: &'a kvm_regs,
    /// Bases of FS and GS.
    pub(super) bases: [u64; 2],
    /// XCR0.
    pub(super) features: u64,
}

/// Whether the instruction in `code` raises #GP there, and not #UD.
pub(super) fn is_general_protection(code: &[u8], operands: &Operands<'_>) -> bool {
    let instruction = Decoder::with_ip(64, code, operands.regs.rip, DecoderOptions::NONE).decode();
    let has_it = match instruction.encoding() {
        EncodingKind::Legacy => true,
        EncodingKind::VEX => operands.features & AVX != 0,
        _ => false,
    };
    let is_meant = matches!(instruction.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2);
    if instruction.is_invalid() || !has_it || is_meant {
        return false;
    }
    let mut factory = InstructionInfoFactory::new();
    let used = factory.info(&instruction).used_memory();
    used.iter().any(|memory| {
        let address = memory.virtual_address(0, |register, _, _| value(register, operands));
        address
            .is_some_and(|address| !is_canonical(address) || address % alignment(&instruction) != 0)
    })
}

fn is_canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// How an instruction's operand has to lie (Intel SDM vol. 1, 10.4.1.1 and 14.9): packed data of
/// legacy SSE at a multiple of its size, that of AVX only where the mnemonic says so.
fn alignment(instruction: &Instruction) -> u64 {
    let bytes = instruction.memory_size().size() as u64;
    let is_aligned = match instruction.mnemonic() {
        Mnemonic::Movups
        | Mnemonic::Movupd
        | Mnemonic::Movdqu
        | Mnemonic::Lddqu
        | Mnemonic::Pcmpestri
        | Mnemonic::Pcmpestrm
        | Mnemonic::Pcmpistri
        | Mnemonic::Pcmpistrm
        | Mnemonic::Bndmov => false,
        Mnemonic::Vmovaps
        | Mnemonic::Vmovapd
        | Mnemonic::Vmovdqa
        | Mnemonic::Vmovntps
        | Mnemonic::Vmovntpd
        | Mnemonic::Vmovntdq
        | Mnemonic::Vmovntdqa => true,
        _ => bytes == 16 && instruction.encoding() == EncodingKind::Legacy,
    };
    if is_aligned && bytes.is_power_of_two() { bytes } else { 1 }
}

/// A register's value, zero-extended; a segment's base.
pub(super) fn value(register: Register, operands: &Operands<'_>) -> Option<u64> {
    let regs = operands.regs;
    let full = match register.full_register() {
        Register::RAX => regs.rax,
        Register::RBX => regs.rbx,
        Register::RCX => regs.rcx,
        Register::RDX => regs.rdx,
        Register::RSI => regs.rsi,
        Register::RDI => regs.rdi,
        Register::RBP => regs.rbp,
        Register::RSP => regs.rsp,
        Register::R8 => regs.r8,
        Register::R9 => regs.r9,
        Register::R10 => regs.r10,
        Register::R11 => regs.r11,
        Register::R12 => regs.r12,
        Register::R13 => regs.r13,
        Register::R14 => regs.r14,
        Register::R15 => regs.r15,
        _ => {
            return match register {
                Register::FS => Some(operands.bases[0]),
                Register::GS => Some(operands.bases[1]),
                Register::CS | Register::DS | Register::ES | Register::SS => Some(0),
                _ => None,
            };
        }
    };
    Some(match register.size() {
        8 => full,
        4 => full & 0xffff_ffff,
        _ => full & 0xffff,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x40_0000;

    fn judged(code: &[u8], rax: u64) -> bool {
        let regs = kvm_regs { rip: AT, rax, rbx: 0x1000, ..Default::default() };
        is_general_protection(code, &Operands { regs: &regs, bases: [0x5000, 0], features: 7 })
    }

    /// `addps xmm0, [rax]`, `movups xmm0, [rax]`, `vmovups ymm0, [rax]`, `vmovaps ymm0, [rax]`.
    const ADDPS: &[u8] = &[0x0f, 0x58, 0x00];
    const MOVUPS: &[u8] = &[0x0f, 0x10, 0x00];
    const VMOVUPS: &[u8] = &[0xc5, 0xfc, 0x10, 0x00];
    const VMOVAPS: &[u8] = &[0xc5, 0xfc, 0x28, 0x00];

    #[test]
    fn a_valid_instruction_with_a_bad_operand_raised_a_general_protection_fault() {
        assert!(judged(ADDPS, 0x1008) && !judged(ADDPS, 0x1010));
        assert!(!judged(MOVUPS, 0x1001) && judged(MOVUPS, 1 << 63));
        assert!(!judged(VMOVUPS, 0x1001) && judged(VMOVUPS, 1 << 47));
        assert!(judged(VMOVAPS, 0x1010) && !judged(VMOVAPS, 0x1020));
        // popcnt eax, [rax]; fld qword [rax]
        assert!(judged(&[0xf3, 0x0f, 0xb8, 0x00], 1 << 63));
        assert!(judged(&[0xdd, 0x00], 1 << 63) && !judged(&[0xdd, 0x00], 0x1001));
        // addps xmm0, fs:[rbx]: the segment's base counts.
        assert!(!judged(&[0x64, 0x0f, 0x58, 0x03], 0));
    }

    #[test]
    fn what_is_invalid_stays_an_invalid_opcode() {
        assert!(!judged(&[0x0f, 0x0b], 1 << 63), "ud2");
        assert!(!judged(&[0x06], 1 << 63), "push es, which 64-bit code has not");
        assert!(!judged(&[0xf0, 0x0f, 0x58, 0x00], 1 << 63), "lock addps");
        assert!(!judged(&ADDPS[..2], 1 << 63), "half an instruction");
        let regs = kvm_regs { rip: AT, rax: 1 << 63, ..Default::default() };
        let without = Operands { regs: &regs, bases: [0; 2], features: 3 };
        assert!(!is_general_protection(VMOVUPS, &without), "a CPU without AVX");
    }
}
