//! The agent's code: what runs inside the guest, at CPL 3, between two runs of the program, and
//! the shim that serves the system calls which a parser makes in every run.
//!
//! It is assembled when it is needed. It keeps no secret and has no right that the program lacks:
//! everything it does the host could do, only later.
//!
//! The shim changes nothing of its own before the last access to the program's memory that may
//! fault, so that the host can take a call over as if the shim had never seen it.

use super::super::trap::{self, GATE_AT};
use super::layout::{CODE, FACTS, HOT, INPUTS, STATE, STATUS, facts, shim, state};
use super::shim::{CLOSE_ON_EXEC, FREE, INPUT, OUTPUT_MAX, STAT, STATX, STDERR, STDOUT, Told};
use iced_x86::code_asm::*;
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

type Emit = Result<(), IcedError>;
/// A system call's number and what emits its code.
type Service = (i64, fn(&mut Asm, &Labels) -> Emit);

/// Why the agent exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentExit {
    /// A system call that the shim does not serve; all registers are the program's, RCX and R11
    /// as SYSCALL leaves them.
    SystemCall,
    /// The last run of the batch is over.
    Done,
    /// A run is over in which the host has changed something.
    Touched,
    /// A segment register is not what it was.
    Segments,
    /// Everything is put back, and there is no next input.
    Idle,
    /// The agent's own memory is not what the agent left there.
    Scribbled,
}

const EXITS: [AgentExit; 6] = [
    AgentExit::SystemCall,
    AgentExit::Done,
    AgentExit::Touched,
    AgentExit::Segments,
    AgentExit::Idle,
    AgentExit::Scribbled,
];

/// Bytes from one exit's code to the next.
const EXIT_STRIDE: u64 = 16;
/// Where the code behind the exits starts.
const BODY: u64 = EXIT_STRIDE * 8;

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

/// Which exit's code `rip` is in or just behind; by range, because hosts differ in whether RIP
/// has moved on when a store exits.
pub(super) fn exit_at(rip: u64) -> Option<AgentExit> {
    let offset = rip.checked_sub(CODE.va(0))?;
    EXITS.get(usize::try_from(offset / EXIT_STRIDE).ok()?).copied()
}

fn exit_address(exit: AgentExit) -> u64 {
    let index = EXITS.iter().position(|other| *other == exit).unwrap_or(EXITS.len());
    CODE.va(index as u64 * EXIT_STRIDE)
}

/// `mov [gate], al; hlt`: the cheapest exit from CPL 3.
fn exit_code() -> [u8; 10] {
    let mut code = [0xf4; 10];
    code[0] = 0xa2;
    code[1..9].copy_from_slice(&GATE_AT.to_le_bytes());
    code
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

struct Labels {
    batch: CodeLabel,
    reset: CodeLabel,
    shim: CodeLabel,
    /// Back to the program, with RAX.
    back: CodeLabel,
    /// To the host, as if the shim had not been there.
    forward: CodeLabel,
    run_end: CodeLabel,
}

impl Labels {
    fn new(asm: &mut Asm) -> Self {
        let mut label = || asm.code.create_label();
        Self {
            batch: label(),
            reset: label(),
            shim: label(),
            back: label(),
            forward: label(),
            run_end: label(),
        }
    }
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
    asm.xrstor(super::super::trap::engine_va(trap::XSAVE_AREA).0)?;
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

/// What the shim serves, the most frequent first.
const SERVICES: [Service; 12] = [
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
    (libc::SYS_exit, exit),
];

/// Whether the shim serves calls with this number, if it can.
pub(super) fn serves(number: u64) -> bool {
    SERVICES.iter().any(|(served, _)| *served as u64 == number)
}

/// The shim's entry: RAX is the call's number, RCX and R11 are free.
fn dispatch(asm: &mut Asm, labels: &mut Labels) -> Emit {
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
    asm.code.set_label(&mut labels.forward)?;
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

/// To the host when the address in `register` is one of the engine's, where a system call
/// finds nothing.
fn not_the_engines(asm: &mut Asm, labels: &Labels, register: AsmRegister64) -> Emit {
    asm.code.mov(r11, register)?;
    asm.code.shr(r11, 39)?;
    asm.code.cmp(r11, (trap::ENGINE_BASE >> 39) as i32)?;
    asm.code.je(labels.forward)
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
    asm.code.cmp(rdx, super::super::calls::TRANSFER_BYTES_MAX as i32)?;
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

/// Reads a byte of each page of the buffer, as the kernel would read it all, and counts.
fn write(asm: &mut Asm, labels: &Labels) -> Emit {
    let (mut page, mut count) = (asm.code.create_label(), asm.code.create_label());
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
    asm.code.test(edx, !libc::O_CLOEXEC as u32)?;
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
    // O_CLOEXEC becomes CLOSE_ON_EXEC.
    asm.code.mov(r11d, edx)?;
    asm.code.shl(r11, CLOSE_ON_EXEC.trailing_zeros() - libc::O_CLOEXEC.trailing_zeros())?;
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

/// `fstatat` of the input's path, or of a descriptor, by which glibc makes its `fstat`.
fn fstat_by_path(asm: &mut Asm, labels: &Labels) -> Emit {
    let (mut by_descriptor, mut known) = (asm.code.create_label(), asm.code.create_label());
    not_the_engines(asm, labels, rdx)?;
    asm.code.cmp(r10, libc::AT_EMPTY_PATH)?;
    asm.code.je(by_descriptor)?;
    asm.code.test(r10, r10)?;
    asm.code.jne(labels.forward)?;
    by_path(asm, labels)?;
    asm.code.jmp(known)?;
    asm.code.set_label(&mut by_descriptor)?;
    by_empty_path(asm, labels)?;
    asm.code.set_label(&mut known)?;
    asm.code.mov(rdi, rdx)?;
    tell(asm, labels, facts::STAT, STAT)
}

/// The same as `statx`, whatever is asked for: all is told.
fn statx(asm: &mut Asm, labels: &Labels) -> Emit {
    let (mut by_descriptor, mut known) = (asm.code.create_label(), asm.code.create_label());
    not_the_engines(asm, labels, r8)?;
    asm.code.cmp(rdx, libc::AT_EMPTY_PATH)?;
    asm.code.je(by_descriptor)?;
    asm.code.test(rdx, rdx)?;
    asm.code.jne(labels.forward)?;
    by_path(asm, labels)?;
    asm.code.jmp(known)?;
    asm.code.set_label(&mut by_descriptor)?;
    by_empty_path(asm, labels)?;
    asm.code.set_label(&mut known)?;
    asm.code.mov(rdi, r8)?;
    tell(asm, labels, facts::STATX, STATX)
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
    asm.code.add(rcx, 511)?;
    asm.code.shr(rcx, 9)?;
    asm.code.mov(qword_ptr(rdi + behind(told.blocks_at)), rcx)?;
    asm.code.set_label(&mut done)?;
    asm.code.xor(eax, eax)?;
    asm.code.jmp(labels.back)
}

/// Notes the exit status in DIL.
fn exit(asm: &mut Asm, labels: &Labels) -> Emit {
    asm.load32(ecx, STATE.va(state::INDEX))?;
    asm.code.and(ecx, super::layout::BATCH_MAX as i32 - 1)?;
    asm.address(r11, STATUS.va(0))?;
    asm.code.mov(byte_ptr(r11 + rcx), dil)?;
    asm.load(rax, STATE.va(state::HASH))?;
    asm.code.imul_3(rax, rax, super::HASH_FACTOR as i32)?;
    asm.code.movzx(edi, dil)?;
    asm.code.lea(rax, qword_ptr(rax + rdi + 1))?;
    asm.store(STATE.va(state::HASH), rax)?;
    asm.code.jmp(labels.run_end)
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
    asm.load32(ecx, FACTS.va(facts::TOUCHED))?;
    asm.code.test(ecx, ecx)?;
    asm.jump_if_not(exit_address(AgentExit::Touched))?;
    asm.compare32(eax, FACTS.va(facts::COUNT))?;
    asm.jump_if_not_below(exit_address(AgentExit::Done))?;
    asm.code.jmp(labels.reset)
}

/// An assembler with operands at fixed addresses, which it encodes relative to RIP.
struct Asm {
    code: CodeAssembler,
}

fn at(address: u64) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RIP, address.cast_signed())
}

impl Asm {
    fn new() -> Result<Self, IcedError> {
        Ok(Self { code: CodeAssembler::new(64)? })
    }

    fn op_m(&mut self, code: Code, address: u64) -> Emit {
        self.code.add_instruction(Instruction::with1(code, at(address))?)
    }

    fn op_r_m(&mut self, code: Code, register: Register, address: u64) -> Emit {
        self.code.add_instruction(Instruction::with2(code, register, at(address))?)
    }

    fn op_m_r(&mut self, code: Code, address: u64, register: AsmRegister64) -> Emit {
        self.code.add_instruction(Instruction::with2(code, at(address), Register::from(register))?)
    }

    fn load(&mut self, register: AsmRegister64, address: u64) -> Emit {
        self.op_r_m(Code::Mov_r64_rm64, register.into(), address)
    }

    fn store(&mut self, address: u64, register: AsmRegister64) -> Emit {
        self.op_m_r(Code::Mov_rm64_r64, address, register)
    }

    fn load32(&mut self, register: AsmRegister32, address: u64) -> Emit {
        self.op_r_m(Code::Mov_r32_rm32, register.into(), address)
    }

    fn store32(&mut self, address: u64, register: AsmRegister32) -> Emit {
        let register = Register::from(register);
        self.code.add_instruction(Instruction::with2(Code::Mov_rm32_r32, at(address), register)?)
    }

    fn compare32(&mut self, register: AsmRegister32, address: u64) -> Emit {
        self.op_r_m(Code::Cmp_r32_rm32, register.into(), address)
    }

    /// Through XMM0.
    fn load128(&mut self, address: u64) -> Emit {
        self.op_r_m(Code::Movups_xmm_xmmm128, Register::XMM0, address)
    }

    fn store128(&mut self, address: u64) -> Emit {
        let store = Instruction::with2(Code::Movups_xmmm128_xmm, at(address), Register::XMM0)?;
        self.code.add_instruction(store)
    }

    fn address(&mut self, register: AsmRegister64, address: u64) -> Emit {
        self.op_r_m(Code::Lea_r64_m, register.into(), address)
    }

    fn xrstor(&mut self, address: u64) -> Emit {
        self.op_m(Code::Xrstor64_mem, address)
    }

    fn jump(&mut self, address: u64) -> Emit {
        self.code.add_instruction(Instruction::with_branch(Code::Jmp_rel32_64, address)?)
    }

    /// When the last comparison found a difference.
    fn jump_if_not(&mut self, address: u64) -> Emit {
        self.code.add_instruction(Instruction::with_branch(Code::Jne_rel32_64, address)?)
    }

    fn jump_if_not_below(&mut self, address: u64) -> Emit {
        self.code.add_instruction(Instruction::with_branch(Code::Jae_rel32_64, address)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::GATE_CODE;
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind};

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
                let known = [FACTS, STATE, STATUS, HOT, INPUTS, CODE];
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
