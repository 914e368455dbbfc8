//! After a run: whether the maps that the program's marks have written show anything new, and zeros in
//! their place.
//!
//! Which classes of counts are news at a place is said where the program cannot write. Never says which
//! place it was: the host asks the input itself.

use super::super::layout::{FACTS, facts};
use super::asm::{Asm, Emit};
use iced_x86::code_asm::*;

/// Bytes that are looked at together; most of them are zeros.
const CHUNK: i32 = 64;
/// Bytes of a register.
const VECTOR: i32 = 16;

/// Compares and clears all maps; the flags say "not equal" if there is anything new. Changes RAX, RBX,
/// RCX, RSI, RDI and XMM0 to XMM7.
pub(super) fn compare(asm: &mut Asm) -> Emit {
    let (mut map, mut chunk, mut next) =
        (asm.code.create_label(), asm.code.create_label(), asm.code.create_label());
    let (mut some, mut done) = (asm.code.create_label(), asm.code.create_label());
    // XMM7 collects what is new.
    asm.code.pxor(xmm7, xmm7)?;
    asm.code.pxor(xmm6, xmm6)?;
    asm.address(rbx, FACTS.va(facts::CLASSES))?;
    asm.code.movdqa(xmm3, xmmword_ptr(rbx))?;
    asm.code.movdqa(xmm4, xmmword_ptr(rbx + VECTOR))?;
    asm.code.movdqa(xmm5, xmmword_ptr(rbx + 2 * VECTOR))?;
    asm.address(rbx, FACTS.va(facts::MAPS))?;
    asm.code.set_label(&mut map)?;
    asm.code.mov(rcx, qword_ptr(rbx + 8))?;
    asm.code.test(rcx, rcx)?;
    asm.code.je(done)?;
    asm.code.mov(rdi, qword_ptr(rbx))?;
    asm.code.mov(rsi, qword_ptr(rbx + 16))?;
    asm.code.add(rbx, facts::MAP_ENTRY as i32)?;
    asm.code.sub(rsi, rdi)?;
    asm.code.add(rcx, rdi)?;
    asm.code.set_label(&mut chunk)?;
    asm.code.movdqa(xmm0, xmmword_ptr(rdi))?;
    for at in (VECTOR..CHUNK).step_by(VECTOR as usize) {
        asm.code.por(xmm0, xmmword_ptr(rdi + at))?;
    }
    asm.code.pcmpeqb(xmm0, xmm6)?;
    asm.code.pmovmskb(eax, xmm0)?;
    asm.code.cmp(eax, 0xffff)?;
    asm.code.jne(some)?;
    asm.code.set_label(&mut next)?;
    asm.code.add(rdi, CHUNK)?;
    asm.code.cmp(rdi, rcx)?;
    asm.code.jb(chunk)?;
    asm.code.jmp(map)?;
    asm.code.set_label(&mut some)?;
    for at in (0..CHUNK).step_by(VECTOR as usize) {
        compare_vector(asm, at)?;
    }
    asm.code.jmp(next)?;
    asm.code.set_label(&mut done)?;
    asm.code.pcmpeqb(xmm7, xmm6)?;
    asm.code.pmovmskb(eax, xmm7)?;
    asm.code.cmp(eax, 0xffff)
}

/// Compares and clears the bytes at RDI + `at`, by the tables for low counts in XMM3, for high ones in
/// XMM4 and the mask for half a byte in XMM5. What is news is at a distance of RSI.
fn compare_vector(asm: &mut Asm, at: i32) -> Emit {
    asm.code.movdqa(xmm0, xmmword_ptr(rdi + at))?;
    asm.code.movdqa(xmmword_ptr(rdi + at), xmm6)?;
    asm.code.movdqa(xmm1, xmm0)?;
    asm.code.psrlw(xmm1, 4)?;
    asm.code.pand(xmm1, xmm5)?;
    asm.code.pand(xmm0, xmm5)?;
    asm.code.movdqa(xmm2, xmm3)?;
    asm.code.pshufb(xmm2, xmm0)?;
    asm.code.movdqa(xmm0, xmm4)?;
    asm.code.pshufb(xmm0, xmm1)?;
    // The low half decides where the high one is 0.
    asm.code.pcmpeqb(xmm1, xmm6)?;
    asm.code.pand(xmm2, xmm1)?;
    asm.code.por(xmm2, xmm0)?;
    asm.code.pand(xmm2, xmmword_ptr(rdi + rsi + at))?;
    asm.code.por(xmm7, xmm2)
}
