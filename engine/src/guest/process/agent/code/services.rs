//! The shim: the system calls that a parser makes in every run, served in the guest.
//!
//! The shim changes nothing of its own before the last access to the program's memory that may
//! fault, so that the host can take a call over as if the shim had never seen it.

use super::super::layout::{BATCH_MAX, FACTS, HASH_FACTOR, STATE, STATUS, facts, shim, state};
use super::super::shim::{
    FLAGS, FLAGS_SHIFT, FREE, INPUT, OUTPUT_MAX, STAT, STATX, STDERR, STDOUT, Told,
};
use super::asm::{Asm, Emit};
use super::clock::{clock_gettime, gettimeofday, time};
use super::exits::{AgentExit, Labels, exit_address, not_the_engines};
use super::memo::answer;
use crate::linux::abi::syscall::TRANSFER_BYTES_MAX;
use iced_x86::Code;
use iced_x86::code_asm::*;

/// A system call's number and what emits its code.
type Service = (i64, fn(&mut Asm, &Labels) -> Emit);

/// What the shim serves, the most frequent first.
const SERVICES: [Service; 14] = [
    (libc::SYS_read, read),
    (libc::SYS_exit_group, exit),
    (libc::SYS_write, write),
    (libc::SYS_lseek, seek),
    (libc::SYS_fstat, fstat),
    (libc::SYS_newfstatat, fstat_by_path),
    (libc::SYS_openat, open),
    (libc::SYS_statx, statx),
    (libc::SYS_pread64, read_at),
    (libc::SYS_close, close),
    (libc::SYS_ioctl, ioctl),
    (libc::SYS_clock_gettime, clock_gettime),
    (libc::SYS_gettimeofday, gettimeofday),
    (libc::SYS_time, time),
];

/// Whether the shim serves calls with this number, if it can.
pub(in super::super) fn serves(number: u64) -> bool {
    SERVICES.iter().any(|(served, _)| *served as u64 == number)
}

/// The shim's entry: RAX is the call's number, RCX and R11 are free.
pub(super) fn dispatch(asm: &mut Asm, labels: &mut Labels) -> Emit {
    asm.store(STATE.va(state::RAX), rax)?;
    asm.store(STATE.va(state::RDI), rdi)?;
    asm.store(STATE.va(state::RSI), rsi)?;
    let mut places = Vec::new();
    for (number, _) in SERVICES {
        let place = asm.code.create_label();
        asm.code.cmp(rax, number as i32)?;
        asm.code.je(place)?;
        places.push(place);
    }
    answer(asm, labels)?;
    asm.code.set_label(&mut labels.to_host)?;
    asm.load(rax, STATE.va(state::RAX))?;
    asm.load(rdi, STATE.va(state::RDI))?;
    asm.load(rsi, STATE.va(state::RSI))?;
    // Where SYSCALL would leave it, but for moved code, to which the host has to return.
    asm.load(rcx, STATE.va(state::RESUME))?;
    asm.load(r11, STATE.va(state::FLAGS))?;
    asm.jump(exit_address(AgentExit::SystemCall))?;
    asm.code.set_label(&mut labels.back)?;
    back(asm)?;
    for (mut place, (_, emit)) in places.into_iter().zip(SERVICES) {
        asm.code.set_label(&mut place)?;
        emit(asm, labels)?;
    }
    Ok(())
}

/// Counts the call and returns to the program as SYSRET would, with RAX as it is.
fn back(asm: &mut Asm) -> Emit {
    asm.op_m(Code::Inc_rm64, STATE.va(state::SHIM + shim::CALLS))?;
    asm.op_m(Code::Inc_rm64, STATE.va(state::SHIM + shim::SUM))?;
    asm.load(rdi, STATE.va(state::RDI))?;
    asm.load(rsi, STATE.va(state::RSI))?;
    asm.load(r11, STATE.va(state::FLAGS))?;
    asm.load(rcx, STATE.va(state::RET))?;
    // Not on the program's stack, whose red zone is the program's.
    asm.store(STATE.va(state::RSP), rsp)?;
    asm.address(rsp, STATE.va(state::FLAGS))?;
    asm.code.popfq()?;
    asm.load(rsp, STATE.va(state::RSP))?;
    asm.op_m(Code::Jmp_rm64, STATE.va(state::RESUME))
}

/// RCX becomes the address of the shim's descriptor EDI; to the host for one it does not know.
fn descriptor(asm: &mut Asm, labels: &Labels) -> Emit {
    asm.code.mov(r11d, edi)?;
    asm.code.cmp(r11d, shim::FDS_MAX as i32)?;
    asm.code.jae(labels.forward)?;
    asm.code.shl(r11d, 4)?;
    asm.address(rcx, STATE.va(state::SHIM + shim::FDS))?;
    asm.code.add(rcx, r11)
}

fn input_only(asm: &mut Asm, labels: &Labels) -> Emit {
    descriptor(asm, labels)?;
    asm.code.cmp(dword_ptr(rcx), INPUT as i32)?;
    asm.code.jne(labels.forward)
}

/// R11 becomes the kind of descriptor EDI, one of input, standard output and standard error.
fn known_only(asm: &mut Asm, labels: &Labels) -> Emit {
    descriptor(asm, labels)?;
    asm.code.mov(r11d, dword_ptr(rcx))?;
    asm.code.dec(r11d)?;
    asm.code.cmp(r11d, STDERR as i32)?;
    asm.code.jae(labels.forward)?;
    asm.code.inc(r11d)
}

fn read(asm: &mut Asm, labels: &Labels) -> Emit {
    transfer(asm, labels, false)
}

fn read_at(asm: &mut Asm, labels: &Labels) -> Emit {
    asm.code.test(r10, r10)?;
    asm.code.js(labels.forward)?;
    transfer(asm, labels, true)
}

/// Copies input to RSI, at most RDX bytes, from the descriptor's position or from R10.
fn transfer(asm: &mut Asm, labels: &Labels, positioned: bool) -> Emit {
    let mut copy = asm.code.create_label();
    not_the_engines(asm, labels, rsi)?;
    input_only(asm, labels)?;
    asm.code.cmp(rdx, TRANSFER_BYTES_MAX as i32)?;
    asm.code.ja(labels.forward)?;
    if positioned {
        asm.code.mov(r11, r10)?;
    } else {
        asm.code.mov(r11, qword_ptr(rcx + 8))?;
    }
    asm.code.mov(rdi, rcx)?;
    asm.load(rcx, STATE.va(state::INPUT_LEN))?;
    asm.code.sub(rcx, r11)?;
    asm.code.jae(copy)?;
    asm.code.xor(ecx, ecx)?;
    asm.code.set_label(&mut copy)?;
    asm.code.cmp(rcx, rdx)?;
    asm.code.cmova(rcx, rdx)?;
    asm.code.mov(rax, rcx)?;
    if !positioned {
        // Where the position is, for after the copy.
        asm.store(STATE.va(DESCRIPTOR), rdi)?;
    }
    asm.code.mov(rdi, rsi)?;
    asm.load(rsi, STATE.va(state::INPUT))?;
    asm.code.add(rsi, r11)?;
    asm.code.rep().movsb()?;
    if !positioned {
        asm.load(rcx, STATE.va(DESCRIPTOR))?;
        asm.code.add(qword_ptr(rcx + 8), rax)?;
        asm.op_m_r(Code::Add_rm64_r64, STATE.va(state::SHIM + shim::SUM), rax)?;
    }
    asm.code.jmp(labels.back)
}

/// In [`STATE`]: the descriptor of a read under way.
const DESCRIPTOR: u64 = state::RSI + 8;

fn seek(asm: &mut Asm, labels: &Labels) -> Emit {
    let (mut current, mut end, mut go) =
        (asm.code.create_label(), asm.code.create_label(), asm.code.create_label());
    input_only(asm, labels)?;
    asm.code.xor(r11d, r11d)?;
    asm.code.test(edx, edx)?;
    asm.code.je(go)?;
    asm.code.cmp(edx, libc::SEEK_CUR)?;
    asm.code.je(current)?;
    asm.code.cmp(edx, libc::SEEK_END)?;
    asm.code.je(end)?;
    asm.code.jmp(labels.forward)?;
    asm.code.set_label(&mut current)?;
    asm.code.mov(r11, qword_ptr(rcx + 8))?;
    asm.code.jmp(go)?;
    asm.code.set_label(&mut end)?;
    asm.load(r11, STATE.va(state::INPUT_LEN))?;
    asm.code.set_label(&mut go)?;
    asm.code.add(r11, rsi)?;
    asm.code.jo(labels.forward)?;
    asm.code.js(labels.forward)?;
    asm.code.mov(rax, r11)?;
    asm.code.sub(rax, qword_ptr(rcx + 8))?;
    asm.op_m_r(Code::Add_rm64_r64, STATE.va(state::SHIM + shim::SUM), rax)?;
    asm.code.mov(qword_ptr(rcx + 8), r11)?;
    asm.code.mov(rax, r11)?;
    asm.code.jmp(labels.back)
}

/// Reads a byte of each page of the buffer, as the kernel would read it all, and counts; unless
/// somebody reads along on the host.
fn write(asm: &mut Asm, labels: &Labels) -> Emit {
    let (mut page, mut count) = (asm.code.create_label(), asm.code.create_label());
    asm.load32(ecx, FACTS.va(facts::OUTPUTS))?;
    asm.code.test(ecx, ecx)?;
    asm.code.jne(labels.forward)?;
    not_the_engines(asm, labels, rsi)?;
    known_only(asm, labels)?;
    asm.code.sub(r11, STDOUT as i32)?;
    asm.code.jb(labels.forward)?;
    asm.code.cmp(rdx, OUTPUT_MAX as i32)?;
    asm.code.ja(labels.forward)?;
    // RDI becomes the counter's address.
    asm.address(rdi, STATE.va(state::SHIM + shim::OUTPUT))?;
    asm.code.lea(rdi, qword_ptr(rdi + r11 * 8))?;
    asm.code.mov(rcx, qword_ptr(rdi))?;
    asm.code.add(rcx, rdx)?;
    asm.code.cmp(rcx, OUTPUT_MAX as i32)?;
    let mut fits = asm.code.create_label();
    asm.code.jbe(fits)?;
    asm.load(rdi, STATE.va(state::RDI))?;
    asm.code.jmp(labels.forward)?;
    asm.code.set_label(&mut fits)?;
    asm.code.mov(r11, rsi)?;
    asm.code.lea(rsi, qword_ptr(rsi + rdx))?;
    asm.code.set_label(&mut page)?;
    asm.code.cmp(r11, rsi)?;
    asm.code.jae(count)?;
    asm.code.mov(cl, byte_ptr(r11))?;
    asm.code.or(r11, 0xfff)?;
    asm.code.inc(r11)?;
    asm.code.jmp(page)?;
    asm.code.set_label(&mut count)?;
    asm.code.add(qword_ptr(rdi), rdx)?;
    asm.op_m_r(Code::Add_rm64_r64, STATE.va(state::SHIM + shim::SUM), rdx)?;
    asm.code.mov(rax, rdx)?;
    asm.code.jmp(labels.back)
}

fn close(asm: &mut Asm, labels: &Labels) -> Emit {
    known_only(asm, labels)?;
    asm.code.mov(r11d, FREE as u32)?;
    asm.code.sub(r11, qword_ptr(rcx))?;
    asm.code.sub(r11, qword_ptr(rcx + 8))?;
    asm.op_m_r(Code::Add_rm64_r64, STATE.va(state::SHIM + shim::SUM), r11)?;
    asm.code.mov(qword_ptr(rcx), FREE as i32)?;
    asm.code.mov(qword_ptr(rcx + 8), 0)?;
    asm.code.xor(eax, eax)?;
    asm.code.jmp(labels.back)
}

/// To the host unless RSI is the input's path. RDI and RSI are the program's again afterwards.
fn input_path_only(asm: &mut Asm, labels: &Labels) -> Emit {
    let mut same = asm.code.create_label();
    not_the_engines(asm, labels, rsi)?;
    asm.load(rcx, STATE.va(state::SHIM + shim::PATH))?;
    asm.code.test(rcx, rcx)?;
    asm.code.je(labels.forward)?;
    asm.address(rdi, FACTS.va(facts::PATH))?;
    asm.code.repe().cmpsb()?;
    asm.code.je(same)?;
    asm.load(rdi, STATE.va(state::RDI))?;
    asm.load(rsi, STATE.va(state::RSI))?;
    asm.code.jmp(labels.forward)?;
    asm.code.set_label(&mut same)?;
    asm.load(rdi, STATE.va(state::RDI))?;
    asm.load(rsi, STATE.va(state::RSI))
}

/// Opens the input for reading.
fn open(asm: &mut Asm, labels: &Labels) -> Emit {
    let (mut next, mut found) = (asm.code.create_label(), asm.code.create_label());
    asm.code.cmp(edi, libc::AT_FDCWD)?;
    asm.code.jne(labels.forward)?;
    asm.code.test(edx, !FLAGS as u32)?;
    asm.code.jne(labels.forward)?;
    input_path_only(asm, labels)?;
    // The lowest descriptor that is free.
    asm.address(rcx, STATE.va(state::SHIM + shim::FDS))?;
    asm.code.xor(r11d, r11d)?;
    asm.code.set_label(&mut next)?;
    asm.code.cmp(dword_ptr(rcx), FREE as i32)?;
    asm.code.je(found)?;
    asm.code.add(rcx, 16)?;
    asm.code.inc(r11d)?;
    asm.code.cmp(r11d, shim::FDS_MAX as i32)?;
    asm.code.jb(next)?;
    asm.code.jmp(labels.forward)?;
    asm.code.set_label(&mut found)?;
    asm.code.mov(eax, r11d)?;
    asm.code.mov(r11d, edx)?;
    asm.code.shl(r11, FLAGS_SHIFT)?;
    asm.code.or(r11, INPUT as i32)?;
    asm.code.mov(qword_ptr(rcx), r11)?;
    asm.code.sub(r11, FREE as i32)?;
    asm.op_m_r(Code::Add_rm64_r64, STATE.va(state::SHIM + shim::SUM), r11)?;
    asm.code.jmp(labels.back)
}

/// `isatty`: none of them is a terminal.
fn ioctl(asm: &mut Asm, labels: &Labels) -> Emit {
    asm.code.cmp(esi, libc::TCGETS as i32)?;
    asm.code.jne(labels.forward)?;
    known_only(asm, labels)?;
    asm.code.mov(rax, -i64::from(libc::ENOTTY))?;
    asm.code.jmp(labels.back)
}

fn fstat(asm: &mut Asm, labels: &Labels) -> Emit {
    not_the_engines(asm, labels, rsi)?;
    known_only(asm, labels)?;
    asm.code.mov(rdi, rsi)?;
    tell(asm, labels, facts::STAT, STAT)
}

/// `fstatat`, by which glibc makes its `fstat`.
fn fstat_by_path(asm: &mut Asm, labels: &Labels) -> Emit {
    tell_of_path(asm, labels, r10, rdx)?;
    tell(asm, labels, facts::STAT, STAT)
}

/// The same as `statx`, whatever is asked for: all of it is given.
fn statx(asm: &mut Asm, labels: &Labels) -> Emit {
    tell_of_path(asm, labels, rdx, r8)?;
    tell(asm, labels, facts::STATX, STATX)
}

/// R11 becomes the kind of what a call with `flags` asks about, by the input's path or by a
/// descriptor, and RDI becomes `to`, where the answer goes.
fn tell_of_path(asm: &mut Asm, labels: &Labels, flags: AsmRegister64, to: AsmRegister64) -> Emit {
    let (mut by_descriptor, mut known) = (asm.code.create_label(), asm.code.create_label());
    not_the_engines(asm, labels, to)?;
    asm.code.cmp(flags, libc::AT_EMPTY_PATH)?;
    asm.code.je(by_descriptor)?;
    asm.code.test(flags, flags)?;
    asm.code.jne(labels.forward)?;
    by_path(asm, labels)?;
    asm.code.jmp(known)?;
    asm.code.set_label(&mut by_descriptor)?;
    by_empty_path(asm, labels)?;
    asm.code.set_label(&mut known)?;
    asm.code.mov(rdi, to)
}

/// R11 becomes the input's kind if RSI is its path.
fn by_path(asm: &mut Asm, labels: &Labels) -> Emit {
    asm.code.cmp(edi, libc::AT_FDCWD)?;
    asm.code.jne(labels.forward)?;
    input_path_only(asm, labels)?;
    asm.code.mov(r11d, INPUT as u32)
}

/// R11 becomes the kind of descriptor EDI, if RSI is an empty path.
fn by_empty_path(asm: &mut Asm, labels: &Labels) -> Emit {
    not_the_engines(asm, labels, rsi)?;
    asm.code.cmp(byte_ptr(rsi), 0)?;
    asm.code.jne(labels.forward)?;
    known_only(asm, labels)
}

/// Copies what there is to tell of kind R11 from the table at `table` to RDI, with the input's
/// size.
fn tell(asm: &mut Asm, labels: &Labels, table: u64, told: Told) -> Emit {
    let mut done = asm.code.create_label();
    let behind = |at: u64| (at as i64 - told.bytes as i64) as i32;
    asm.code.imul_3(rcx, r11, told.bytes as i32)?;
    asm.address(rsi, FACTS.va(table) - INPUT * told.bytes)?;
    asm.code.add(rsi, rcx)?;
    asm.code.mov(ecx, told.bytes as i32)?;
    asm.code.rep().movsb()?;
    asm.code.cmp(r11, INPUT as i32)?;
    asm.code.jne(done)?;
    asm.load(rcx, STATE.va(state::INPUT_LEN))?;
    asm.code.mov(qword_ptr(rdi + behind(told.size_at)), rcx)?;
    // Whole pages, in blocks of 512 bytes.
    asm.code.add(rcx, 4095)?;
    asm.code.shr(rcx, 12)?;
    asm.code.shl(rcx, 3)?;
    asm.code.mov(qword_ptr(rdi + behind(told.blocks_at)), rcx)?;
    asm.code.set_label(&mut done)?;
    asm.code.xor(eax, eax)?;
    asm.code.jmp(labels.back)
}

/// Notes the exit status in DIL, unless the host is to see such an exit itself.
fn exit(asm: &mut Asm, labels: &Labels) -> Emit {
    asm.code.movzx(r11d, dil)?;
    asm.address(rcx, FACTS.va(facts::EXITS))?;
    asm.code.bt(dword_ptr(rcx), r11d)?;
    asm.code.jb(labels.forward)?;
    asm.load32(ecx, STATE.va(state::INDEX))?;
    asm.code.and(ecx, BATCH_MAX as i32 - 1)?;
    asm.address(r11, STATUS.va(0))?;
    asm.code.mov(byte_ptr(r11 + rcx), dil)?;
    asm.load(rax, STATE.va(state::HASH))?;
    asm.code.imul_3(rax, rax, HASH_FACTOR as i32)?;
    asm.code.movzx(edi, dil)?;
    asm.code.lea(rax, qword_ptr(rax + rdi + 1))?;
    asm.store(STATE.va(state::HASH), rax)?;
    asm.code.jmp(labels.run_end)
}
