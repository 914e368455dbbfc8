//! The agent's code: what runs inside the guest, at CPL 3, between two runs of the program. The
//! system calls that it serves are in `services`.
//!
//! It is assembled when it is needed. It keeps no secret and has no right that the program lacks:
//! everything it does the host could do, only later.

mod asm;
mod clock;
mod compare;
mod exits;
mod memo;
mod services;

pub(crate) use exits::AgentExit;
pub(super) use exits::exit_at;
pub(super) use services::serves;

use super::layout::{CODE, FACTS, HOT, INPUTS, STATE, facts, shim, state};
use crate::guest::process::trap;
use asm::{Asm, Emit};
use compare::compare;
use exits::{BODY, EXIT_STRIDE, EXITS, Labels, exit_address, exit_code};
use iced_x86::code_asm::*;
use iced_x86::{Code, IcedError};
use services::dispatch;

/// Addresses that the host enters or recognises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entries {
    /// Start of a batch: notes the selectors, and goes on at `reset`.
    pub(super) batch: u64,
    /// Puts everything back and starts the next run.
    pub(super) reset: u64,
    /// First address of the shim.
    pub(super) shim: u64,
    /// First address behind the shim.
    pub(super) shim_end: u64,
}

/// The agent's code, ready to be placed.
#[derive(Debug)]
pub(super) struct Blob {
    /// For the page that the system-call gate is in.
    pub(super) gate: Vec<u8>,
    /// For [`CODE`].
    pub(super) code: Vec<u8>,
    pub(super) entries: Entries,
}

/// Assembles everything. `by_call` tells whether a run starts with the system call that the
/// snapshot stands before.
pub(super) fn assemble(by_call: bool) -> Result<Blob, IcedError> {
    let mut code = vec![0xf4; BODY as usize];
    for (index, _) in EXITS.iter().enumerate() {
        let at = index * EXIT_STRIDE as usize;
        code[at..at + 10].copy_from_slice(&exit_code());
    }
    let mut asm = Asm::new()?;
    let mut labels = Labels::new(&mut asm);
    asm.code.set_label(&mut labels.batch)?;
    note_selectors(&mut asm)?;
    reset(&mut asm, &mut labels)?;
    start(&mut asm, &mut labels, by_call)?;
    asm.code.set_label(&mut labels.shim)?;
    dispatch(&mut asm, &mut labels)?;
    run_end(&mut asm, &mut labels)?;
    let at = CODE.va(BODY);
    let options = iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let body = asm.code.assemble_options(at, options)?;
    let entries = Entries {
        batch: body.label_ip(&labels.batch)?,
        reset: body.label_ip(&labels.reset)?,
        shim: body.label_ip(&labels.shim)?,
        shim_end: body.label_ip(&labels.run_end)?,
    };
    code.extend_from_slice(&body.inner.code_buffer);
    Ok(Blob { gate: gate(entries.shim)?, code, entries })
}

/// Where SYSCALL arrives. It leaves CPL 0 at once where it has come there, so that the rest runs
/// with the program's rights on every host.
fn gate(shim: u64) -> Result<Vec<u8>, IcedError> {
    let mut asm = Asm::new()?;
    let mut at_user = asm.code.create_label();
    asm.store(STATE.va(state::RET), rcx)?;
    asm.store(STATE.va(state::RESUME), rcx)?;
    asm.store(STATE.va(state::FLAGS), r11)?;
    asm.code.mov(r11d, cs)?;
    asm.code.test(r11d, 3)?;
    asm.code.jne(at_user)?;
    asm.address(rcx, shim)?;
    asm.code.mov(r11d, trap::user_flags(0) as u32)?;
    asm.code.sysretq()?;
    asm.code.set_label(&mut at_user)?;
    asm.jump(shim)?;
    let mut page = asm.code.assemble(trap::syscall_entry().0)?;
    // The end of a function at which a run ends needs no SYSCALL here.
    let mut asm = Asm::new()?;
    asm.jump(shim)?;
    let at = trap::RETURNED as usize;
    page.resize(page.len().max(at), 0xf4);
    page.extend_from_slice(&trap::RETURNED_CODE);
    page.extend(asm.code.assemble(trap::returned_entry().0 + trap::RETURNED_CODE.len() as u64)?);
    Ok(page)
}

const SEGMENTS: [AsmRegisterSegment; 4] = [ds, es, fs, gs];

fn note_selectors(asm: &mut Asm) -> Emit {
    for (index, segment) in (0..).zip(SEGMENTS) {
        asm.code.mov(eax, segment)?;
        asm.store32(STATE.va(state::SELECTORS + index * 4), eax)?;
    }
    Ok(())
}

/// Puts memory, segments, the shim and, last of all, extended state back.
fn reset(asm: &mut Asm, labels: &mut Labels) -> Emit {
    let (mut next, mut copied) = (asm.code.create_label(), asm.code.create_label());
    asm.code.set_label(&mut labels.reset)?;
    asm.code.cld()?;
    asm.address(rbx, HOT.va(0))?;
    asm.code.set_label(&mut next)?;
    asm.code.mov(rcx, qword_ptr(rbx + 16))?;
    asm.code.test(rcx, rcx)?;
    asm.code.je(copied)?;
    asm.code.mov(rdi, qword_ptr(rbx))?;
    asm.code.mov(rsi, qword_ptr(rbx + 8))?;
    asm.code.add(rbx, super::layout::HOT_ENTRY as i32)?;
    asm.code.rep().movsb()?;
    asm.code.jmp(next)?;
    asm.code.set_label(&mut copied)?;
    for (index, segment) in (0..).zip(SEGMENTS) {
        asm.code.mov(eax, segment)?;
        asm.compare32(eax, STATE.va(state::SELECTORS + index * 4))?;
        asm.jump_if_not(exit_address(AgentExit::Segments))?;
    }
    // The bases behind the selectors, which the program can write by itself (CR4.FSGSBASE).
    let mut same = asm.code.create_label();
    asm.code.rdfsbase(rax)?;
    asm.load(rcx, FACTS.va(facts::FS))?;
    asm.code.cmp(rax, rcx)?;
    asm.code.je(same)?;
    asm.code.wrfsbase(rcx)?;
    asm.code.set_label(&mut same)?;
    let mut same = asm.code.create_label();
    asm.code.rdgsbase(rax)?;
    asm.load(rcx, FACTS.va(facts::GS))?;
    asm.code.cmp(rax, rcx)?;
    asm.code.je(same)?;
    asm.code.wrgsbase(rcx)?;
    asm.code.set_label(&mut same)?;
    for at in (0..shim::BYTES).step_by(16) {
        asm.load128(FACTS.va(facts::SHIM + at))?;
        asm.store128(STATE.va(state::SHIM + at))?;
    }
    next_input(asm)
}

/// Takes the next input, or exits when there is none.
fn next_input(asm: &mut Asm) -> Emit {
    asm.load32(eax, STATE.va(state::INDEX))?;
    asm.compare32(eax, FACTS.va(facts::COUNT))?;
    asm.jump_if_not_below(exit_address(AgentExit::Idle))?;
    asm.code.shl(rax, 4)?;
    asm.address(rcx, INPUTS.va(0))?;
    asm.code.mov(rdx, qword_ptr(rcx + rax))?;
    asm.store(STATE.va(state::INPUT), rdx)?;
    asm.code.mov(rdx, qword_ptr(rcx + rax + 8))?;
    asm.store(STATE.va(state::INPUT_LEN), rdx)
}

/// Loads the snapshot's registers and goes on in the program.
fn start(asm: &mut Asm, labels: &mut Labels, by_call: bool) -> Emit {
    asm.load32(eax, FACTS.va(facts::XCR0))?;
    asm.load32(edx, FACTS.va(facts::XCR0 + 4))?;
    asm.xrstor(trap::engine_va(trap::XSAVE_AREA).0)?;
    if by_call {
        asm.load(rax, FACTS.va(facts::RIP))?;
        asm.store(STATE.va(state::RET), rax)?;
        asm.load(rax, FACTS.va(facts::RESUME))?;
        asm.store(STATE.va(state::RESUME), rax)?;
        asm.load(rax, FACTS.va(facts::FLAGS))?;
        asm.store(STATE.va(state::FLAGS), rax)?;
    } else {
        asm.address(rsp, FACTS.va(facts::FLAGS))?;
        asm.code.popfq()?;
    }
    let all = [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15];
    for (register, index) in all.into_iter().zip(0..) {
        asm.load(register, FACTS.va(facts::REGS + index * 8))?;
    }
    if by_call { asm.code.jmp(labels.shim) } else { asm.op_m(Code::Jmp_rm64, FACTS.va(facts::RIP)) }
}

/// Checks what the agent keeps where the program can write, and goes on to the next run.
fn run_end(asm: &mut Asm, labels: &mut Labels) -> Emit {
    asm.code.set_label(&mut labels.run_end)?;
    asm.load(rax, FACTS.va(facts::COOKIE))?;
    for at in (0..shim::BYTES).step_by(8).filter(|at| *at != shim::SUM) {
        asm.op_r_m(Code::Add_r64_rm64, rax.into(), STATE.va(state::SHIM + at))?;
    }
    asm.op_r_m(Code::Cmp_r64_rm64, rax.into(), STATE.va(state::SHIM + shim::SUM))?;
    asm.jump_if_not(exit_address(AgentExit::Scribbled))?;
    asm.load32(eax, STATE.va(state::INDEX))?;
    asm.load32(edx, FACTS.va(facts::COOKIE))?;
    asm.code.mov(ecx, eax)?;
    asm.code.xor(ecx, edx)?;
    asm.compare32(ecx, STATE.va(state::CHECK))?;
    asm.jump_if_not(exit_address(AgentExit::Scribbled))?;
    asm.code.inc(eax)?;
    asm.store32(STATE.va(state::INDEX), eax)?;
    asm.code.xor(edx, eax)?;
    asm.store32(STATE.va(state::CHECK), edx)?;
    compare(asm)?;
    asm.jump_if_not(exit_address(AgentExit::News))?;
    asm.load32(eax, STATE.va(state::INDEX))?;
    asm.load32(ecx, FACTS.va(facts::TOUCHED))?;
    asm.code.test(ecx, ecx)?;
    asm.jump_if_not(exit_address(AgentExit::Touched))?;
    asm.compare32(eax, FACTS.va(facts::COUNT))?;
    asm.jump_if_not_below(exit_address(AgentExit::Done))?;
    asm.code.jmp(labels.reset)
}

#[cfg(test)]
mod tests {
    use super::super::layout::{GATE_CODE, MEMO, STATUS};
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

    fn decode(code: &[u8], at: u64) -> Vec<Instruction> {
        Decoder::with_ip(64, code, at, DecoderOptions::NONE).iter().collect()
    }

    #[test]
    fn every_access_at_a_fixed_address_is_to_the_agents_own_data() {
        for by_call in [true, false] {
            let blob = assemble(by_call).unwrap();
            assert!(blob.code.len() <= CODE.bytes as usize, "{} bytes", blob.code.len());
            assert!(blob.gate.len() <= GATE_CODE.bytes as usize);
            let body = decode(&blob.code[BODY as usize..], CODE.va(BODY));
            let gate = decode(&blob.gate, trap::syscall_entry().0);
            for instruction in body.iter().chain(&gate) {
                assert_ne!(instruction.code(), Code::INVALID);
                let has_memory = (0..instruction.op_count())
                    .any(|operand| instruction.op_kind(operand) == OpKind::Memory);
                if !has_memory || instruction.memory_base() != Register::RIP {
                    continue;
                }
                let address = instruction.memory_displacement64();
                let xsave = trap::engine_va(trap::XSAVE_AREA).0;
                let known = [FACTS, STATE, STATUS, HOT, INPUTS, MEMO, CODE];
                assert!(
                    address == xsave || known.iter().any(|part| part.contains(address)),
                    "{instruction} at {:#x}",
                    instruction.ip()
                );
            }
        }
    }

    #[test]
    fn no_branch_leaves_the_agent_but_into_the_program() {
        let blob = assemble(true).unwrap();
        for instruction in decode(&blob.code[BODY as usize..], CODE.va(BODY)) {
            match instruction.flow_control() {
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                    assert!(CODE.contains(instruction.near_branch_target()), "{instruction}");
                }
                FlowControl::IndirectBranch => {
                    let back = STATE.va(state::RESUME);
                    assert_eq!(instruction.memory_displacement64(), back, "to the program");
                }
                FlowControl::Next => {}
                other => panic!("{instruction}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_gate_leaves_cpl_0_before_anything_else() {
        let blob = assemble(true).unwrap();
        assert!(blob.gate[..trap::RETURNED as usize].ends_with(&[0xf4]), "apart from what follows");
        let gate = decode(&blob.gate, trap::syscall_entry().0);
        assert!(gate.iter().any(|instruction| instruction.mnemonic() == Mnemonic::Sysretq));
        assert_eq!(gate.last().unwrap().near_branch_target(), blob.entries.shim);
        let writes =
            |i: &Instruction| i.op0_kind() == OpKind::Memory && i.mnemonic() == Mnemonic::Mov;
        assert_eq!(gate.iter().filter(|i| writes(i)).count(), 3, "RCX and R11 are all it saves");
    }

    #[test]
    fn an_exit_is_known_by_its_range() {
        for exit in EXITS {
            assert_eq!(exit_at(exit_address(exit)), Some(exit));
            assert_eq!(exit_at(exit_address(exit) + 9), Some(exit), "RIP may have moved on");
        }
        assert_eq!(exit_at(CODE.va(BODY)), None);
        assert_eq!(exit_at(0), None);
    }
}
