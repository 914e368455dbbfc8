//! Answers a program's exits: system calls, faults and breakpoints.
//!
//! Never implements a system call and never decides which address is valid: that is
//! `guest::process`.

use super::cpu::{Done, ProgramCpu};
use super::driver::{ArmedPoint, CallContext, Elsewhere, ProcessDriver};
use super::exception::{Exception, Taken, take_exception};
use super::exits::{ProgramExit, next_exit, poked};
use super::fault::{fault_of, non_canonical, of_page};
use super::gp_as_ud;
use super::registers::{is_user_address, stand_at};
use super::served::{Served, served};
use super::state::{ProcessPoint, ProcessState};
use crate::address::{Gva, PAGE_SIZE};
use crate::arch::{INSTRUCTION_BYTES_MAX, exception as vector};
use crate::guest::process::detours::Trap;
use crate::guest::process::pages::ProcessPages;
use crate::guest::process::trap::{self, SYSCALL_BYTES, TrapFrame};
use crate::linux::abi::syscall::FaultAction;
use crate::linux::abi::syscall::SyscallAction;
use crate::linux::abi::syscall::SystemCall;
use crate::linux::cpu::Cpu as _;
use crate::linux::mm::user_memory::UserMemory;
use crate::machine::error::MachineError;
use crate::machine::flow::{Flow, Stop};
use crate::machine::hardware::Hardware;
use crate::outcome::{Fault, Outcome, Signal};
use crate::rewind::Patches;
use kvm_bindings::kvm_regs;

impl ProcessDriver {
    /// Runs to the next exit and answers it.
    pub(in crate::machine) fn step(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
    ) -> Result<Flow, MachineError> {
        if !self.is_shown_right() {
            return Ok(Flow::Stop(Stop::OffDetours));
        }
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

    pub(super) fn system_call(&mut self, hw: &mut Hardware) -> Result<Flow, MachineError> {
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
        if let Some(ArmedPoint { point, .. }) = self.point {
            let CallContext { process, tables, memory } = self.split(hw);
            if process.observes_input(&call, &ProcessPages { memory, tables }) {
                if point == ProcessPoint::Input {
                    return self.stop_before_call(hw, call, &back);
                }
                self.saw_input = true;
            }
        }
        *hw.vcpu.regs_mut() = back;
        let served = self.serve(hw, &call, None)?;
        if self.wrote_what_is_looked_for() {
            // Where it wrote, even if it is to go on elsewhere.
            *hw.vcpu.regs_mut() = back;
            return Ok(Flow::end(Outcome::OutputMatched));
        }
        match served {
            Served::Value(value) => {
                self.resume(hw, kvm_regs { rax: value, ..back })?;
                Ok(Flow::Continue)
            }
            Served::Elsewhere(done) => self.go_elsewhere(hw, done),
            Served::End(outcome) => Ok(Flow::end(outcome)),
        }
    }

    /// Goes on somewhere else than after the system call or the fault: in a handler, after one,
    /// or in another thread.
    pub(super) fn go_elsewhere(
        &mut self,
        hw: &mut Hardware,
        done: Done,
    ) -> Result<Flow, MachineError> {
        let regs = *hw.vcpu.regs();
        self.elsewhere = Some(Elsewhere { done, rip: regs.rip });
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
        stand_at(hw, before);
        Ok(Flow::Stop(Stop::Snapshot))
    }

    /// Serves a system call; the registers are those after it. `before` is the program's extended
    /// state, if the vCPU does not have it yet.
    pub(super) fn serve(
        &mut self,
        hw: &mut Hardware,
        call: &SystemCall,
        before: Option<&[u8]>,
    ) -> Result<Served, MachineError> {
        let rip = hw.vcpu.regs().rip;
        let ProcessState { process, tables, .. } = &mut self.state;
        let mut pages = ProcessPages { memory: &mut hw.memory, tables };
        let mut cpu = ProgramCpu::new(&mut hw.vcpu, &self.extended, before);
        let verdict = match &mut self.call_log {
            Some(log) => process.syscall(call, &mut log.record(&mut pages), &mut cpu),
            None => process.syscall(call, &mut pages, &mut cpu),
        };
        Ok(served(verdict, cpu.finish()?, rip))
    }

    fn trap(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
        vector: u8,
    ) -> Result<Flow, MachineError> {
        self.traps += 1;
        match take_exception(hw, vector)? {
            Taken::Unsupported(what) => Ok(Flow::end(Outcome::Unsupported(what))),
            Taken::Exception(exception) if exception.vector == vector::PAGE_FAULT => {
                self.page_fault(hw, &exception)
            }
            Taken::Exception(exception) => self.exception(hw, patches, &exception),
        }
    }

    /// Any exception but a page fault.
    pub(super) fn exception(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
        exception: &Exception,
    ) -> Result<Flow, MachineError> {
        let Exception { vector, frame, back } = exception;
        self.debug_exception |= *vector == vector::DEBUG;
        if self.is_off_path(frame.rip) {
            return Ok(Flow::Stop(Stop::OffDetours));
        }
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
    pub(super) fn fault(
        &mut self,
        hw: &mut Hardware,
        back: &kvm_regs,
        fault: Fault,
    ) -> Result<Flow, MachineError> {
        let is_shown_flags = self.are_flags_off() && self.state.process.handles(fault.signal);
        if self.is_off_path(back.rip) || is_shown_flags {
            return Ok(Flow::Stop(Stop::OffDetours));
        }
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
            | SyscallAction::OutputLimit
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
        if let Some(ArmedPoint { point, original }) = self.point
            && matches!(point, ProcessPoint::Address(a) | ProcessPoint::Harness(a) if a == at)
        {
            let Some(place) = self.translate(hw, at) else {
                return Err(MachineError::Invariant("code that was just executed is mapped"));
            };
            hw.memory.write_unmarked(place, &[original])?;
            self.point = None;
            if matches!(point, ProcessPoint::Harness(_)) {
                return self.stop_in_harness(hw, &here);
            }
            stand_at(hw, here);
            return Ok(Flow::Stop(Stop::Snapshot));
        }
        let is_crash_point = self.state.crash_points.contains(&at);
        if !is_crash_point {
            match self.block_at(hw, patches, at)? {
                Trap::Block(number) => {
                    match self.is_logging {
                        true => self.log_comparison(hw, number, &here)?,
                        false => self.hits.push(number),
                    }
                    self.resume(hw, here)?;
                    return Ok(Flow::Continue);
                }
                Trap::Function(hooked) => {
                    self.log_function(hw, &hooked, &here);
                    self.resume(hw, kvm_regs { rip: hooked.to, ..here })?;
                    return Ok(Flow::Continue);
                }
                Trap::Dead => return Ok(Flow::Stop(Stop::OffDetours)),
                Trap::Program => {}
            }
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

    /// What the INT3 at `at` is, which is gone now if it was a breakpoint of a block.
    fn block_at(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
        at: u64,
    ) -> Result<Trap, MachineError> {
        if let Some(trap) = self.detour_trap(hw, at)? {
            return Ok(trap);
        }
        let hit = self.breakpoints.hit(at, &mut hw.memory, patches)?;
        Ok(hit.map_or(Trap::Program, Trap::Block))
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
