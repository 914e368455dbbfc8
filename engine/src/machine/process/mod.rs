//! Drives a process guest: exits become system calls, faults and breakpoints, and the answers
//! become registers.
//!
//! Never implements a system call and never decides which address is valid: that is
//! `linux`.

mod batch;
mod cpu;
mod entry;
mod fault;
mod gp_as_ud;
mod preempt;

pub(super) use batch::BatchParts;
pub(super) use entry::install_xsave;

use super::hardware::Hardware;
use super::{Flow, MachineError, Stop};
use crate::address::{Gpa, Gva, PAGE_SIZE};
use crate::arch::{INSTRUCTION_BYTES_MAX, INT3, exception as vector};
use crate::coverage::Breakpoints;
use crate::exit::Exit;
use crate::guest::process::agent::Agent;
use crate::guest::process::pages::ProcessPages;
use crate::guest::process::trap::{self, TrapFrame};
use crate::linux::abi::syscall::{FaultAction, SYSCALL_BYTES, SyscallAction, SystemCall};
use crate::linux::cpu::{Cpu as _, ExtendedLayout};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::outcome::{Access, Fault, Outcome, Signal, Unsupported};
use crate::paging::{ADDRESS_MASK, PRESENT, Tables};
use crate::rewind::Patches;
use cpu::{Done, ProgramCpu};
use fault::{access_of, fault_of, non_canonical, of_page};
use kvm_bindings::kvm_regs;
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;

/// Where a process's snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessPoint {
    /// The first system call that would see the input's contents or size.
    Input,
    /// The first time that this guest-virtual address is about to be executed.
    Address(u64),
}

/// What a process keeps on the host's side, as a snapshot holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessState {
    /// The program's kernel.
    pub process: Process,
    /// Its page tables' bookkeeping.
    pub tables: Tables,
    /// The system call that the program was about to make, when that is the snapshot point.
    pub call: Option<SystemCall>,
    /// Guest-virtual addresses whose execution after the snapshot is a crash, as if `abort` were
    /// called there: where a program reports that it has failed, and would go on.
    pub crash_points: Vec<u64>,
}

/// A process guest in a machine.
#[derive(Debug)]
pub struct ProcessDriver {
    pub(super) state: ProcessState,
    /// Where to stop, until it has been reached.
    point: Option<(ProcessPoint, u8)>,
    /// The program looked at its input before its snapshot point.
    pub(super) saw_input: bool,
    /// Coverage.
    pub(super) breakpoints: Breakpoints,
    /// Blocks that this run reached for the first time.
    pub(super) hits: Vec<u32>,
    /// System calls of this run.
    pub(super) system_calls: u64,
    /// Faults and breakpoints of this run.
    pub(super) traps: u64,
    /// Whether this run took a #DB, which leaves its cause in DR6.
    pub(super) debug_exception: bool,
    /// What the last system call or fault did, and where the program goes on, if that is in a
    /// handler, behind one, or in another thread.
    elsewhere: Option<(Done, u64)>,
    /// Page-table entries that the guest was told to write, until an exit shows that it has.
    stale: Vec<Gpa>,
    /// What runs batches, once there was one.
    agent: Option<Box<Agent>>,
    /// The machine stands under the agent's page tables.
    under_agent: bool,
    /// The snapshot's bytes where each run's entry is written.
    resume: [u8; entry::RESUME_BYTES],
    /// What the program has of extended state, once that was asked for.
    extended: OnceCell<ExtendedLayout>,
    /// The run's time slices.
    pub(super) slices: preempt::Slices,
}

/// An exit, without its borrow of the vCPU.
enum ProgramExit {
    /// A store to the gate's page, from here.
    Gate(u64),
    Trap(u8),
    Interrupted,
    Other(Unsupported),
}

impl ProcessDriver {
    pub(super) fn new(state: ProcessState) -> Self {
        Self {
            state,
            point: None,
            saw_input: false,
            breakpoints: Breakpoints::default(),
            hits: Vec::new(),
            system_calls: 0,
            traps: 0,
            debug_exception: false,
            elsewhere: None,
            stale: Vec::new(),
            agent: None,
            under_agent: false,
            resume: [0; entry::RESUME_BYTES],
            extended: OnceCell::new(),
            slices: preempt::Slices::default(),
        }
    }

    /// Where `at` lies in guest-physical memory.
    pub(super) fn translate(&self, hw: &Hardware, at: u64) -> Option<Gpa> {
        let (_, entry) = self.state.tables.leaf(&hw.memory, Gva(at))?;
        (entry & PRESENT != 0)
            .then(|| Gpa(entry & ADDRESS_MASK).wrapping_add(Gva(at).page_offset() as u64))
    }

    /// Stops the guest at `point`.
    pub(super) fn stop_at(
        &mut self,
        hw: &mut Hardware,
        point: ProcessPoint,
    ) -> Result<(), MachineError> {
        let mut original = [0];
        if let ProcessPoint::Address(address) = point {
            let not_mapped = MachineError::PointNotMapped { address };
            let Some(at) = self.translate(hw, address) else { return Err(not_mapped) };
            hw.memory.read(at, &mut original).map_err(|_| not_mapped)?;
            hw.memory.write_unmarked(at, &[INT3])?;
        }
        self.point = Some((point, original[0]));
        Ok(())
    }

    /// Patches the crash points into the code, from now on.
    pub(super) fn install_crash_points(
        &self,
        hw: &mut Hardware,
        patches: &mut Patches,
    ) -> Result<(), MachineError> {
        for &address in &self.state.crash_points {
            let not_mapped = MachineError::PointNotMapped { address };
            let Some(at) = self.translate(hw, address) else { return Err(not_mapped) };
            hw.memory.write_unmarked(at, &[INT3]).map_err(|_| not_mapped)?;
            patches.set(at.into(), at.page_offset() as u16, INT3);
        }
        Ok(())
    }

    /// Where the block that starts at `address` can have a breakpoint of its own: not where the
    /// program crashes by being there.
    pub(super) fn block_site(&self, hw: &Hardware, address: u64) -> Option<Gpa> {
        let is_free = !self.state.crash_points.contains(&address);
        is_free.then(|| self.translate(hw, address)).flatten()
    }

    /// Runs to the next exit and answers it.
    pub(super) fn step(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
    ) -> Result<Flow, MachineError> {
        let exit = next_exit(hw)?;
        if !matches!(exit, ProgramExit::Interrupted) {
            // The program, or its fault, comes after the stub.
            self.stale.clear();
        }
        match exit {
            ProgramExit::Gate(rip) if trap::in_syscall_gate(rip) => self.system_call(hw),
            // From anywhere else it is a program poking at the engine.
            ProgramExit::Gate(rip) => Ok(Flow::end(Outcome::Unsupported(poked(rip)))),
            ProgramExit::Trap(vector) => self.trap(hw, patches, vector),
            ProgramExit::Interrupted => Ok(Flow::Interrupted),
            ProgramExit::Other(what) => Ok(Flow::end(Outcome::Unsupported(what))),
        }
    }

    fn system_call(&mut self, hw: &mut Hardware) -> Result<Flow, MachineError> {
        self.system_calls += 1;
        let regs = *hw.vcpu.regs();
        // SYSCALL left RIP in RCX and RFLAGS in R11 (Intel SDM vol. 2). A program that jumps to
        // the gate by itself may have anything there.
        let back = kvm_regs { rip: regs.rcx, rflags: trap::user_flags(regs.r11), ..regs };
        if !is_user_address(back.rip) {
            let fault = non_canonical(regs.rcx);
            self.state.process.note_end_by(fault.signal);
            return Ok(Flow::end(Outcome::Crashed(fault)));
        }
        let call = SystemCall {
            nr: regs.rax,
            args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        };
        if let Some((point, _)) = self.point {
            let CallContext { process, tables, memory } = self.split(hw);
            if process.observes_input(&call, &ProcessPages { memory, tables }) {
                if point == ProcessPoint::Input {
                    return self.stop_before_call(hw, call, &back);
                }
                self.saw_input = true;
            }
        }
        *hw.vcpu.regs_mut() = back;
        match self.serve(hw, &call, None)? {
            Served::Value(value) => {
                self.resume(hw, kvm_regs { rax: value, ..back })?;
                Ok(Flow::Continue)
            }
            Served::Elsewhere(done) => self.go_elsewhere(hw, done),
            Served::End(outcome) => Ok(Flow::end(outcome)),
        }
    }

    /// Goes on in another place than behind the system call, or the fault: in a handler, behind
    /// one, or in another thread.
    fn go_elsewhere(&mut self, hw: &mut Hardware, done: Done) -> Result<Flow, MachineError> {
        let regs = *hw.vcpu.regs();
        self.elsewhere = Some((done, regs.rip));
        self.resume(hw, regs)?;
        Ok(Flow::Continue)
    }

    /// Leaves the guest just before the SYSCALL instruction.
    fn stop_before_call(
        &mut self,
        hw: &mut Hardware,
        call: SystemCall,
        back: &kvm_regs,
    ) -> Result<Flow, MachineError> {
        self.point = None;
        self.state.call = Some(call);
        let before = kvm_regs { rip: back.rip.wrapping_sub(SYSCALL_BYTES), ..*back };
        entry::stand_at(hw, before);
        Ok(Flow::Stop(Stop::Snapshot))
    }

    /// Serves a system call; the registers are those behind it. `before` is the program's extended
    /// state, if the vCPU does not have it yet.
    fn serve(
        &mut self,
        hw: &mut Hardware,
        call: &SystemCall,
        before: Option<&[u8]>,
    ) -> Result<Served, MachineError> {
        let rip = hw.vcpu.regs().rip;
        let ProcessState { process, tables, .. } = &mut self.state;
        let mut pages = ProcessPages { memory: &mut hw.memory, tables };
        let mut cpu = ProgramCpu::new(&mut hw.vcpu, &self.extended, before);
        let verdict = process.syscall(call, &mut pages, &mut cpu);
        Ok(served(verdict, cpu.finish()?, rip))
    }

    fn split<'a>(&'a mut self, hw: &'a mut Hardware) -> CallContext<'a> {
        CallContext {
            process: &mut self.state.process,
            tables: &mut self.state.tables,
            memory: &mut hw.memory,
        }
    }

    /// What the CPU pushed for an exception.
    fn take_exception(hw: &mut Hardware, vector: u8) -> Result<Taken, MachineError> {
        // The CPU wrote the frame, into a slot without dirty log.
        hw.memory.mark(trap::STACK, crate::address::PAGE_SIZE)?;
        let regs = *hw.vcpu.regs();
        let Some(frame) = trap::read_frame(&hw.memory, vector, regs.rsp) else {
            let detail = [u64::from(vector), regs.rsp];
            let reason = kvm_bindings::KVM_EXIT_EXCEPTION;
            return Ok(Taken::Unsupported(Unsupported::Exit { reason, detail }));
        };
        let (rip, rsp, rflags) = (frame.rip, frame.rsp, trap::user_flags(frame.rflags));
        let back = kvm_regs { rip, rsp, rflags, ..regs };
        Ok(Taken::Exception(Exception { vector, frame, back }))
    }

    fn trap(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
        vector: u8,
    ) -> Result<Flow, MachineError> {
        self.traps += 1;
        match Self::take_exception(hw, vector)? {
            Taken::Unsupported(what) => Ok(Flow::end(Outcome::Unsupported(what))),
            Taken::Exception(exception) if exception.vector == vector::PAGE_FAULT => {
                self.page_fault(hw, &exception)
            }
            Taken::Exception(exception) => self.exception(hw, patches, &exception),
        }
    }

    /// Any exception but a page fault.
    fn exception(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
        exception: &Exception,
    ) -> Result<Flow, MachineError> {
        let Exception { vector, frame, back } = exception;
        self.debug_exception |= *vector == vector::DEBUG;
        match *vector {
            vector::BREAKPOINT => self.breakpoint(hw, patches, back),
            vector::INVALID_OPCODE if self.is_general_protection(hw, back)? => {
                let frame = TrapFrame { error_code: Some(0), ..*frame };
                self.fault(hw, back, fault_of(vector::GENERAL_PROTECTION, &frame))
            }
            other => self.fault(hw, back, fault_of(other, frame)),
        }
    }

    /// Whether an invalid opcode at `back` was a general-protection fault.
    fn is_general_protection(
        &mut self,
        hw: &mut Hardware,
        back: &kvm_regs,
    ) -> Result<bool, MachineError> {
        let mut code = [0; INSTRUCTION_BYTES_MAX];
        let CallContext { tables, memory, .. } = self.split(hw);
        let pages = ProcessPages { memory, tables };
        // The next page may be none.
        let here = (PAGE_SIZE - Gva(back.rip).page_offset()).min(code.len());
        let is_there = |len: &usize| pages.read(Gva(back.rip), &mut code[..*len]).is_ok();
        let Some(len) = [INSTRUCTION_BYTES_MAX, here].into_iter().find(is_there) else {
            return Ok(false);
        };
        let mut cpu = ProgramCpu::new(&mut hw.vcpu, &self.extended, None);
        let (bases, features) = (cpu.bases(), cpu.extended_layout().features);
        cpu.finish()?;
        let operands = gp_as_ud::Operands { regs: back, bases, features };
        Ok(gp_as_ud::is_general_protection(&code[..len], &operands))
    }

    /// A fault of the program's own: its handler runs, or the run ends.
    fn fault(
        &mut self,
        hw: &mut Hardware,
        back: &kvm_regs,
        fault: Fault,
    ) -> Result<Flow, MachineError> {
        let cr2 = hw.vcpu.sregs().cr2;
        *hw.vcpu.regs_mut() = *back;
        let ProcessState { process, tables, .. } = &mut self.state;
        let mut pages = ProcessPages { memory: &mut hw.memory, tables };
        let mut cpu = ProgramCpu::new(&mut hw.vcpu, &self.extended, None);
        let verdict = process.fault(&fault, cr2, &mut pages, &mut cpu);
        let done = cpu.finish()?;
        match verdict {
            SyscallAction::Resumed => self.go_elsewhere(hw, done),
            SyscallAction::OutOfMemory => Ok(Flow::end(Outcome::OutOfMemory)),
            SyscallAction::Signal(signal) => {
                Ok(Flow::end(Outcome::Crashed(Fault { signal, ..fault })))
            }
            SyscallAction::Return(_)
            | SyscallAction::Exit { .. }
            | SyscallAction::Hang
            | SyscallAction::Unsupported(_) => {
                Err(MachineError::Invariant("a fault is handled, ends by a signal or needs memory"))
            }
        }
    }

    /// Leaves the program's registers in the vCPU for the report, and ends the run.
    fn crash(&mut self, hw: &mut Hardware, back: &kvm_regs, fault: Fault) -> Flow {
        *hw.vcpu.regs_mut() = *back;
        self.state.process.note_end_by(fault.signal);
        Flow::end(Outcome::Crashed(fault))
    }

    fn breakpoint(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
        back: &kvm_regs,
    ) -> Result<Flow, MachineError> {
        // INT3 is a trap: RIP is past it.
        let at = back.rip.wrapping_sub(1);
        let here = kvm_regs { rip: at, ..*back };
        if let Some((ProcessPoint::Address(wanted), original)) = self.point
            && wanted == at
        {
            let Some(place) = self.translate(hw, at) else {
                return Err(MachineError::Invariant("code that was just executed is mapped"));
            };
            hw.memory.write_unmarked(place, &[original])?;
            self.point = None;
            entry::stand_at(hw, here);
            return Ok(Flow::Stop(Stop::Snapshot));
        }
        let is_crash_point = self.state.crash_points.contains(&at);
        if !is_crash_point && let Some(block) = self.breakpoints.hit(at, &mut hw.memory, patches)? {
            self.hits.push(block);
            self.resume(hw, here)?;
            return Ok(Flow::Continue);
        }
        let signal = if is_crash_point { Signal::ABRT } else { Signal::TRAP };
        let fault = Fault {
            signal,
            rip: at,
            access: None,
            vector: Some(vector::BREAKPOINT),
            error_code: None,
        };
        if is_crash_point { Ok(self.crash(hw, &here, fault)) } else { self.fault(hw, back, fault) }
    }

    fn page_fault(
        &mut self,
        hw: &mut Hardware,
        exception: &Exception,
    ) -> Result<Flow, MachineError> {
        let (frame, back) = (&exception.frame, &exception.back);
        let at = hw.vcpu.sregs().cr2;
        let kind = exception.access()?;
        let CallContext { process, tables, memory } = self.split(hw);
        let mut pages = ProcessPages { memory, tables };
        // Allowed already: a translation from before the entry changed. Go on and walk again.
        if pages.allows(Gva(at), kind) {
            self.resume(hw, *back)?;
            return Ok(Flow::Continue);
        }
        match process.page_fault(Gva(at), kind, &mut pages) {
            FaultAction::Retry => {
                self.resume(hw, *back)?;
                Ok(Flow::Continue)
            }
            FaultAction::OutOfMemory => Ok(Flow::end(Outcome::OutOfMemory)),
            FaultAction::Signal(signal) => self.fault(hw, back, of_page(signal, at, kind, frame)),
        }
    }
}

/// An exception of the program's.
struct Exception {
    vector: u8,
    /// What the CPU pushed.
    frame: TrapFrame,
    /// The registers to go on with after it.
    back: kvm_regs,
}

impl Exception {
    /// What a page fault's access tried to do.
    fn access(&self) -> Result<Access, MachineError> {
        let code = self.frame.error_code;
        let missing = MachineError::Invariant("a page fault has an error code");
        code.map(access_of).ok_or(missing)
    }
}

/// What was on the exception stack.
enum Taken {
    Exception(Exception),
    /// The stack pointer is not where the CPU would have put it: what the exit was instead.
    Unsupported(Unsupported),
}

/// Borrows of what a system call needs.
struct CallContext<'a> {
    process: &'a mut Process,
    tables: &'a mut Tables,
    memory: &'a mut crate::memory::GuestMemory,
}

/// A system call's answer.
enum Served {
    Value(u64),
    /// The registers say where it goes on.
    Elsewhere(Done),
    End(Outcome),
}

/// What becomes of a program that stood at `rip`.
fn served(verdict: SyscallAction, done: Done, rip: u64) -> Served {
    let outcome = match verdict {
        SyscallAction::Return(value) => return Served::Value(value),
        SyscallAction::Resumed => return Served::Elsewhere(done),
        SyscallAction::Exit { status } => Outcome::Exited { status },
        SyscallAction::Signal(signal) => {
            Outcome::Crashed(Fault { signal, rip, access: None, vector: None, error_code: None })
        }
        SyscallAction::OutOfMemory => Outcome::OutOfMemory,
        SyscallAction::Hang => Outcome::TimedOut,
        SyscallAction::Unsupported(name) => Outcome::Unsupported(Unsupported::SystemCall { name }),
    };
    Served::End(outcome)
}

fn next_exit(hw: &mut Hardware) -> Result<ProgramExit, MachineError> {
    let exit = loop {
        if let Some(exit) = run_once(hw)? {
            break exit;
        }
        // Neither the program's doing nor its end: nothing has happened to its registers.
        hw.memory.drain_dirty_ring()?;
    };
    let rip = hw.vcpu.regs().rip;
    Ok(match exit {
        ProgramExit::Gate(_) => ProgramExit::Gate(rip),
        ProgramExit::Trap(_) => match trap::vector_of(rip) {
            Some(vector) => ProgramExit::Trap(vector),
            None => ProgramExit::Other(Unsupported::Exit {
                reason: kvm_bindings::KVM_EXIT_IO,
                detail: [u64::from(trap::PORT_TRAP), rip],
            }),
        },
        ProgramExit::Other(what) => ProgramExit::Other(what.at(rip, 64)),
        ProgramExit::Interrupted => ProgramExit::Interrupted,
    })
}

/// Runs to the next exit, of which the place is still to be told; `None` is a full dirty ring.
fn run_once(hw: &mut Hardware) -> Result<Option<ProgramExit>, MachineError> {
    Ok(Some(match hw.vcpu.run()? {
        Exit::MmioWrite { at, .. } if at.page_floor() == trap::GATE => ProgramExit::Gate(0),
        Exit::PortOut { port: trap::PORT_TRAP, .. } => ProgramExit::Trap(0),
        Exit::Interrupted => ProgramExit::Interrupted,
        Exit::DirtyRingFull => return Ok(None),
        other => ProgramExit::Other(other.unsupported(0)),
    }))
}

/// A store to the gate's page that is not the gate's.
const fn poked(rip: u64) -> Unsupported {
    let reason = kvm_bindings::KVM_EXIT_MMIO;
    Unsupported::Exit { reason, detail: [trap::GATE.0, rip] }
}

/// Whether RIP may be loaded with `at`: hardware refuses to enter a guest otherwise.
const fn is_user_address(at: u64) -> bool {
    at < 1 << 47
}
