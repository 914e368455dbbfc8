//! Which instructions can stand somewhere else, and what they look like there.
//!
//! Never asks who arrives at one.

use iced_x86::{
    Code, ConstantOffsets, CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, OpKind,
    Register,
};

/// What can become of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Moves, and goes on behind itself.
    Plain,
    /// Moves; goes on behind itself or at its target.
    Branch,
    /// Moves, and never goes on behind itself.
    End,
    /// Stays, and may call a trampoline instead.
    Call,
    /// Stays.
    Fixed,
}

/// An instruction in its image.
pub(super) struct Decoded<'e> {
    pub instruction: Instruction,
    pub bytes: &'e [u8],
    offsets: ConstantOffsets,
}

impl<'e> Decoded<'e> {
    /// The instruction at `at`, with which `bytes` begin.
    pub(super) fn new(bytes: &'e [u8], at: u64) -> Option<Self> {
        let mut decoder = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let offsets = decoder.get_constant_offsets(&instruction);
        let bytes = bytes.get(..instruction.len())?;
        (!instruction.is_invalid()).then_some(Self { instruction, bytes, offsets })
    }

    pub(super) fn kind(&self) -> Kind {
        let instruction = &self.instruction;
        let is_near = instruction.op0_kind() == OpKind::NearBranch64;
        match instruction.flow_control() {
            // Relative to what is left of RIP in 32 bits: nothing makes such code.
            _ if instruction.memory_base() == Register::EIP => Kind::Fixed,
            FlowControl::Next if is_plain(instruction) => Kind::Plain,
            FlowControl::ConditionalBranch if is_near => Kind::Branch,
            FlowControl::UnconditionalBranch if is_near => Kind::End,
            FlowControl::IndirectBranch if instruction.code() == Code::Jmp_rm64 => Kind::End,
            FlowControl::Return
                if matches!(instruction.code(), Code::Retnq | Code::Retnq_imm16) =>
            {
                Kind::End
            }
            FlowControl::Call if self.is_direct_call() => Kind::Call,
            FlowControl::IndirectCall if self.is_call_through_data() => Kind::Call,
            _ => Kind::Fixed,
        }
    }

    fn is_direct_call(&self) -> bool {
        self.instruction.code() == Code::Call_rel32_64 && self.bytes.first() == Some(&0xe8)
    }

    /// `call [rip + x]`, of six bytes.
    fn is_call_through_data(&self) -> bool {
        self.instruction.is_ip_rel_memory_operand() && self.bytes.starts_with(&[0xff, 0x15])
    }

    /// Writes the instruction as it stands at `to`, with what follows it where it does not go on;
    /// `None` where that is out of reach.
    pub(super) fn emit(&self, out: &mut Vec<u8>, to: u64, base: u64) -> Option<()> {
        let target = self.instruction.near_branch_target().wrapping_add(base);
        match self.kind() {
            Kind::Branch => self.emit_branch(out, to, target),
            Kind::End if self.instruction.op0_kind() == OpKind::NearBranch64 => {
                jump(out, to, target)
            }
            Kind::Plain | Kind::End => self.emit_copy(out, to, base),
            Kind::Call | Kind::Fixed => None,
        }
    }

    /// Writes a jump at `to` that goes where the call goes.
    pub(super) fn emit_callee(&self, out: &mut Vec<u8>, to: u64, base: u64) -> Option<()> {
        if self.is_direct_call() {
            return jump(out, to, self.instruction.near_branch_target().wrapping_add(base));
        }
        let place = self.instruction.ip_rel_memory_address().wrapping_add(base);
        // JMP [rip + rel32]
        out.extend([0xff, 0x25]);
        out.extend(distance(to.wrapping_add(6), place)?);
        Some(())
    }

    fn emit_branch(&self, out: &mut Vec<u8>, to: u64, target: u64) -> Option<()> {
        if self.instruction.is_jcc_short_or_near() {
            // The conditions are in the order of their codes (Intel SDM vol. 1, appendix B), after none.
            let condition = (self.instruction.condition_code() as u8).checked_sub(1)?;
            out.extend([0x0f, 0x80 | condition]);
            out.extend(distance(to.wrapping_add(6), target)?);
            return Some(());
        }
        // LOOP and JRCXZ only have short forms: over a short jump, to a near one.
        let (_displacement, rest) = self.bytes.split_last()?;
        out.extend(rest);
        out.extend([2, 0xeb, JUMP_OVER]);
        jump(out, to.wrapping_add(self.bytes.len() as u64 + 2), target)
    }

    fn emit_copy(&self, out: &mut Vec<u8>, to: u64, base: u64) -> Option<()> {
        let start = out.len();
        out.extend(self.bytes);
        if !self.instruction.is_ip_rel_memory_operand() {
            return Some(());
        }
        let place = self.instruction.ip_rel_memory_address().wrapping_add(base);
        let next = to.wrapping_add(self.bytes.len() as u64);
        let at = start + self.offsets.displacement_offset();
        if self.offsets.displacement_size() != 4 {
            return None;
        }
        out.get_mut(at..at + 4)?.copy_from_slice(&distance(next, place)?);
        Some(())
    }
}

/// Bytes of a near jump that a short one skips.
const JUMP_OVER: u8 = 5;

fn is_plain(instruction: &Instruction) -> bool {
    let is_x87 = instruction.cpuid_features().iter().any(|feature| {
        matches!(feature, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387)
    });
    instruction.code() != Code::Hlt && !is_x87
}

/// JMP rel32 at `from`.
pub(super) fn jump(out: &mut Vec<u8>, from: u64, to: u64) -> Option<()> {
    out.push(0xe9);
    out.extend(distance(from.wrapping_add(5), to)?);
    Some(())
}

/// The displacement from the end of an instruction.
pub(super) fn distance(next: u64, to: u64) -> Option<[u8; 4]> {
    let distance = to.wrapping_sub(next).cast_signed();
    i32::try_from(distance).ok().map(i32::to_le_bytes)
}
