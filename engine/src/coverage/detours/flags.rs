//! Where the arithmetic flags are dead: what a mark does to them there, nobody can read.
//!
//! Never guesses: every way on is followed until each of the flags was overwritten, and what cannot be
//! followed may read them. An instruction may fault on the way; who is told of that, and where flags
//! show, is for whoever runs the code to notice.

use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register, RflagsBits};

/// The flags that ADD, ADC and comparisons write.
pub(in crate::coverage) const ARITHMETIC: u32 = RflagsBits::CF
    | RflagsBits::PF
    | RflagsBits::AF
    | RflagsBits::ZF
    | RflagsBits::SF
    | RflagsBits::OF;
/// Instructions that are looked at.
const STEPS_MAX: usize = 48;

/// Whether the arithmetic flags are dead at `at`; `decode` gives an instruction of which it is certain
/// that it stands there when the program runs.
pub(in crate::coverage) fn are_dead(
    mut at: u64,
    decode: &dyn Fn(u64) -> Option<Instruction>,
) -> bool {
    let mut left = ARITHMETIC;
    for _ in 0..STEPS_MAX {
        let Some(instruction) = decode(at) else { return false };
        if instruction.rflags_read() & left != 0 {
            return false;
        }
        left &= !overwritten(&instruction);
        let is_near = instruction.op0_kind() == OpKind::NearBranch64;
        at = match instruction.flow_control() {
            FlowControl::Next => instruction.next_ip(),
            FlowControl::UnconditionalBranch if is_near => instruction.near_branch_target(),
            // The callee begins with these flags.
            FlowControl::Call if is_near && instruction.code() == Code::Call_rel32_64 => {
                instruction.near_branch_target()
            }
            _ => return false,
        };
        if left == 0 {
            return true;
        }
    }
    false
}

/// The arithmetic flags that are certainly others after `instruction`, whatever they were.
fn overwritten(instruction: &Instruction) -> u32 {
    let by_cl = (0..instruction.op_count()).any(|n| {
        instruction.op_kind(n) == OpKind::Register && instruction.op_register(n) == Register::CL
    });
    let may_shift_by_zero = by_cl
        && matches!(
            instruction.mnemonic(),
            Mnemonic::Shl
                | Mnemonic::Shr
                | Mnemonic::Sar
                | Mnemonic::Sal
                | Mnemonic::Rol
                | Mnemonic::Ror
                | Mnemonic::Rcl
                | Mnemonic::Rcr
                | Mnemonic::Shld
                | Mnemonic::Shrd
        );
    let may_repeat_never = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    if may_shift_by_zero || may_repeat_never {
        return 0;
    }
    let defined =
        instruction.rflags_written() | instruction.rflags_cleared() | instruction.rflags_set();
    // AF is undefined after these, which every CPU there is clears it by.
    let is_logic = matches!(
        instruction.mnemonic(),
        Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Test
    );
    if is_logic { ARITHMETIC } else { defined & ARITHMETIC }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    /// Whether flags are dead at the start of `code`, which lies at 0x1000.
    fn dead(code: &[u8]) -> bool {
        are_dead(0x1000, &|at| {
            let bytes = code.get(usize::try_from(at.checked_sub(0x1000)?).ok()?..)?;
            let instruction = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode();
            (!instruction.is_invalid()).then_some(instruction)
        })
    }

    #[test]
    fn flags_that_are_overwritten_unread_are_dead() {
        // mov eax, ecx; cmp eax, 1; test eax, eax; jmp +0 and then xor eax, eax
        assert!(dead(&[0x89, 0xc8, 0x83, 0xf8, 1]));
        assert!(dead(&[0x85, 0xc0]));
        assert!(dead(&[0xeb, 0, 0x31, 0xc0]));
        // inc eax leaves CF, which the subtraction overwrites.
        assert!(dead(&[0xff, 0xc0, 0x29, 0xc8]));
        // call +0, to what subtracts from RSP
        assert!(dead(&[0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xec, 8]));
    }

    #[test]
    fn flags_that_somebody_may_read_are_not() {
        let alive: [&[u8]; 14] = [
            &[0x74, 0, 0x31, 0xc0],             // je +0
            &[0x0f, 0x94, 0xc0, 0x31, 0xc0],    // sete al
            &[0x83, 0xd0, 1],                   // adc eax, 1
            &[0x9c, 0x31, 0xc0],                // pushfq
            &[0x9f, 0x31, 0xc0],                // lahf
            &[0xff, 0xc0, 0x72, 0],             // inc eax; jb
            &[0xc3],                            // ret
            &[0x0f, 5, 0x31, 0xc0],             // syscall shows RFLAGS in R11
            &[0xff, 0xd0, 0x31, 0xc0],          // call rax
            &[0xd3, 0xe0, 0x72, 0, 0x31, 0xc0], // shl eax, cl may change none
            &[0xf3, 0xa6, 0x74, 0],             // repe cmpsb may compare nothing
            &[0x0f, 0xaf, 0xc1, 0x74, 0],       // imul leaves ZF undefined
            &[0xe3, 0, 0x31, 0xc0],             // jrcxz has two ways
            &[0x90, 0x90],                      // what follows is not known
        ];
        for code in alive {
            assert!(!dead(code), "{code:x?}");
        }
    }
}
