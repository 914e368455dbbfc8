//! The shim's answers from memory: calls that the host has answered before.
//!
//! Changes nothing of its own before the last access to the program's memory that may fault. What
//! an answer is, and when it is one, is `memo`'s.

use super::super::layout::{FACTS, MEMO, STATE, facts, memo, shim, state};
use super::asm::{Asm, Emit};
use super::exits::Labels;
use crate::guest::process::trap;
use iced_x86::Code;
use iced_x86::code_asm::*;

/// Where a word of the edge in R11 is.
fn of_edge(index: usize) -> AsmMemoryOperand {
    qword_ptr(r11 + (index * 8) as i32)
}

/// Repeats the host's answer if there is one, else goes to the host. RCX, R11 and what is noted in
/// [`STATE`] are free.
pub(super) fn answer(asm: &mut Asm, labels: &mut Labels) -> Emit {
    let (mut next, mut advance) = (asm.code.create_label(), asm.code.create_label());
    asm.code.set_label(&mut labels.forward)?;
    asm.code.cld()?;
    // RAX, RDI and RSI have been noted already, and may be anything here.
    asm.load(rdi, STATE.va(state::RDI))?;
    asm.load(rsi, STATE.va(state::RSI))?;
    for (register, at) in [rdi, rsi, rdx, r10, r8, r9].into_iter().zip((state::ARGS..).step_by(8)) {
        asm.store(STATE.va(at), register)?;
    }
    asm.load(rax, STATE.va(state::SHIM + shim::MEMO))?;
    asm.code.cmp(rax, memo::STATES_MAX as i32)?;
    asm.code.jae(labels.to_host)?;
    asm.address(rcx, MEMO.va(memo::STATES))?;
    asm.code.mov(r11, qword_ptr(rcx + rax * 8))?;
    asm.code.set_label(&mut next)?;
    asm.code.test(r11, r11)?;
    asm.code.je(labels.to_host)?;
    is_same_call(asm, advance)?;
    holds(asm, advance)?;
    for fd in 0..shim::FDS_MAX {
        asm.load(rax, STATE.va(state::SHIM + shim::FDS + fd * 16))?;
        asm.code.cmp(rax, of_edge(memo::KINDS + fd as usize))?;
        asm.code.jne(advance)?;
    }
    for piece in (memo::READS..memo::WRITES).step_by(memo::PIECE_WORDS) {
        load_piece(asm, labels, piece)?;
        // A comparison of nothing leaves the flags as they are.
        asm.code.cmp(eax, eax)?;
        asm.code.repe().cmpsb()?;
        asm.code.jne(advance)?;
    }
    for piece in (memo::WRITES..memo::VALUE).step_by(memo::PIECE_WORDS) {
        load_piece(asm, labels, piece)?;
        asm.code.rep().movsb()?;
    }
    follow(asm)?;
    asm.code.jmp(labels.back)?;
    asm.code.set_label(&mut advance)?;
    asm.code.mov(r11, of_edge(memo::NEXT))?;
    asm.code.jmp(next)
}

/// Goes on at `other` unless the pages are as they were for the edge in R11.
fn holds(asm: &mut Asm, other: CodeLabel) -> Emit {
    let (mut any, mut fresh) = (asm.code.create_label(), asm.code.create_label());
    asm.code.mov(rcx, of_edge(memo::FLAGS))?;
    asm.code.test(ecx, memo::NEVER as i32)?;
    asm.code.jne(other)?;
    asm.load(rax, FACTS.va(facts::MAPPED))?;
    asm.code.test(ecx, memo::IF_UNMAPPED as i32)?;
    asm.code.je(any)?;
    asm.code.test(rax, rax)?;
    asm.code.jne(other)?;
    asm.code.set_label(&mut any)?;
    asm.code.test(ecx, memo::IF_FRESH as i32)?;
    asm.code.je(fresh)?;
    asm.op_r_m(Code::Cmp_r64_rm64, rax.into(), STATE.va(state::SHIM + shim::FRESH))?;
    asm.code.jne(other)?;
    asm.code.set_label(&mut fresh)
}

/// Goes on at `other` unless the program's call is that of the edge in R11.
fn is_same_call(asm: &mut Asm, other: CodeLabel) -> Emit {
    asm.load(rax, STATE.va(state::RAX))?;
    asm.code.cmp(rax, of_edge(memo::NR))?;
    asm.code.jne(other)?;
    asm.code.mov(rcx, of_edge(memo::BY_VALUE))?;
    for index in 0..6 {
        let mut next = asm.code.create_label();
        asm.code.test(ecx, 1 << index)?;
        asm.code.je(next)?;
        asm.load(rax, STATE.va(state::ARGS + index as u64 * 8))?;
        asm.code.cmp(rax, of_edge(memo::ARGS + index))?;
        asm.code.jne(other)?;
        asm.code.set_label(&mut next)?;
    }
    Ok(())
}

/// RDI, RCX and RSI become a piece's address, its length and where its bytes are. To the host if
/// that is one of the engine's addresses, where a system call finds nothing.
fn load_piece(asm: &mut Asm, labels: &Labels, piece: usize) -> Emit {
    let mut loaded = asm.code.create_label();
    asm.code.mov(rcx, of_edge(piece + 2))?;
    asm.code.test(rcx, rcx)?;
    asm.code.je(loaded)?;
    asm.code.mov(rax, of_edge(piece))?;
    asm.code.mov(rdi, qword_ptr(rax))?;
    asm.code.add(rdi, of_edge(piece + 1))?;
    asm.code.mov(rax, rdi)?;
    asm.code.shr(rax, 39)?;
    asm.code.cmp(rax, (trap::ENGINE_BASE >> 39) as i32)?;
    asm.code.je(labels.to_host)?;
    asm.code.mov(rsi, of_edge(piece + 3))?;
    asm.code.set_label(&mut loaded)
}

/// Goes along the edge in R11; RAX becomes what the call returns.
fn follow(asm: &mut Asm) -> Emit {
    let (mut done, mut old) = (asm.code.create_label(), asm.code.create_label());
    asm.code.mov(rcx, of_edge(memo::FLAGS))?;
    asm.code.test(ecx, memo::MAPS as i32)?;
    asm.code.je(old)?;
    asm.load(rcx, FACTS.va(facts::MAPPED))?;
    asm.load(rax, STATE.va(state::SHIM + shim::FRESH))?;
    asm.store(STATE.va(state::SHIM + shim::FRESH), rcx)?;
    asm.code.sub(rcx, rax)?;
    asm.op_m_r(Code::Add_rm64_r64, STATE.va(state::SHIM + shim::SUM), rcx)?;
    asm.code.set_label(&mut old)?;
    asm.code.mov(rax, of_edge(memo::TARGET))?;
    asm.store(STATE.va(state::SHIM + shim::MEMO), rax)?;
    asm.code.mov(rax, of_edge(memo::SUM))?;
    asm.op_m_r(Code::Add_rm64_r64, STATE.va(state::SHIM + shim::SUM), rax)?;
    for index in 0..memo::CHANGED_MAX {
        let slot = memo::CHANGED + index * 2;
        asm.code.mov(rcx, of_edge(slot))?;
        asm.code.test(rcx, rcx)?;
        asm.code.je(done)?;
        asm.code.mov(rax, of_edge(slot + 1))?;
        asm.code.mov(qword_ptr(rcx), rax)?;
    }
    asm.code.set_label(&mut done)?;
    asm.code.mov(rax, of_edge(memo::VALUE))
}
