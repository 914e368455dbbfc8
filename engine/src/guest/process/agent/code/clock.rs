//! The shim's clock: what the process's clock says at this call, by the number of calls so far.
//!
//! Never advances it: that is what returning from a call does.

use super::super::layout::{STATE, shim, state};
use super::asm::{Asm, Emit};
use super::exits::{Labels, not_the_engines};
use crate::linux::process::settings::CALL_NS;
use crate::linux::syscalls::time::{EPOCH_SECONDS, NS_PER_SECOND, UPTIME_SECONDS};
use iced_x86::Code;
use iced_x86::code_asm::*;

/// Clocks by their number, as bits.
const CPU_CLOCKS: u32 = 1 << libc::CLOCK_PROCESS_CPUTIME_ID | 1 << libc::CLOCK_THREAD_CPUTIME_ID;
const WALL_CLOCKS: u32 = 1 << libc::CLOCK_REALTIME | 1 << libc::CLOCK_REALTIME_COARSE;

/// RAX becomes the process's clock during this call, in nanoseconds; RCX is lost. To the host where
/// it stands still, at its end.
fn now(asm: &mut Asm, labels: &Labels) -> Emit {
    asm.load(rcx, STATE.va(state::SHIM + shim::CALLS))?;
    asm.code.inc(rcx)?;
    asm.code.imul_3(rcx, rcx, CALL_NS as i32)?;
    asm.load(rax, STATE.va(state::SHIM + shim::CLOCK))?;
    asm.code.add(rax, rcx)?;
    asm.code.jc(labels.to_host)
}

/// RAX becomes RAX / `by`, RCX the rest; RDX is the program's, and RDI is lost.
fn divide(asm: &mut Asm, by: u64) -> Emit {
    asm.code.mov(rdi, rdx)?;
    asm.code.xor(edx, edx)?;
    asm.code.mov(ecx, by as u32)?;
    asm.code.div(rcx)?;
    asm.code.mov(rcx, rdx)?;
    asm.code.mov(rdx, rdi)
}

pub(super) fn clock_gettime(asm: &mut Asm, labels: &Labels) -> Emit {
    let (mut cpu, mut wall, mut go) =
        (asm.code.create_label(), asm.code.create_label(), asm.code.create_label());
    asm.code.cmp(edi, libc::CLOCK_BOOTTIME)?;
    asm.code.ja(labels.forward)?;
    not_the_engines(asm, labels, rsi)?;
    now(asm, labels)?;
    asm.code.mov(ecx, edi)?;
    asm.code.mov(r11d, 1)?;
    asm.code.shl(r11d, cl)?;
    asm.code.test(r11d, CPU_CLOCKS)?;
    asm.code.jne(cpu)?;
    asm.code.test(r11d, WALL_CLOCKS)?;
    asm.code.jne(wall)?;
    asm.code.mov(r11d, UPTIME_SECONDS as u32)?;
    asm.code.jmp(go)?;
    asm.code.set_label(&mut cpu)?;
    asm.op_r_m(Code::Sub_r64_rm64, rax.into(), STATE.va(state::SHIM + shim::IDLE))?;
    asm.code.xor(r11d, r11d)?;
    asm.code.jmp(go)?;
    asm.code.set_label(&mut wall)?;
    asm.code.mov(r11d, EPOCH_SECONDS as u32)?;
    asm.code.set_label(&mut go)?;
    divide(asm, NS_PER_SECOND)?;
    asm.code.add(rax, r11)?;
    asm.code.mov(qword_ptr(rsi), rax)?;
    asm.code.mov(qword_ptr(rsi + 8), rcx)?;
    asm.code.xor(eax, eax)?;
    asm.code.jmp(labels.back)
}

pub(super) fn gettimeofday(asm: &mut Asm, labels: &Labels) -> Emit {
    const NS_PER_US: u64 = 1000;
    asm.code.test(rsi, rsi)?;
    asm.code.jne(labels.forward)?;
    asm.code.test(rdi, rdi)?;
    asm.code.je(labels.forward)?;
    not_the_engines(asm, labels, rdi)?;
    now(asm, labels)?;
    asm.code.mov(rsi, rdi)?;
    divide(asm, NS_PER_SECOND)?;
    asm.code.lea(r11, qword_ptr(rax + EPOCH_SECONDS as i32))?;
    asm.code.mov(rax, rcx)?;
    divide(asm, NS_PER_US)?;
    asm.code.mov(qword_ptr(rsi), r11)?;
    asm.code.mov(qword_ptr(rsi + 8), rax)?;
    asm.code.xor(eax, eax)?;
    asm.code.jmp(labels.back)
}

/// `time` without an address, as everybody asks it.
pub(super) fn time(asm: &mut Asm, labels: &Labels) -> Emit {
    asm.code.test(rdi, rdi)?;
    asm.code.jne(labels.forward)?;
    now(asm, labels)?;
    divide(asm, NS_PER_SECOND)?;
    asm.code.add(rax, EPOCH_SECONDS as i32)?;
    asm.code.jmp(labels.back)
}
