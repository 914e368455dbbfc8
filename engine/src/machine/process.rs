//! Drives a process guest: exits become system calls, faults and breakpoints, and the answers
//! become registers.
//!
//! Never implements a system call and never decides which address is valid: that is
//! `guest::process`.

use super::hardware::Hardware;
use super::{Flow, MachineError, Stop};
use crate::address::{Gpa, Gva};
use crate::coverage::Breakpoints;
use crate::exit::Exit;
use crate::guest::process::memory::UserMemory;
use crate::guest::process::pages::ProcessPages;
use crate::guest::process::trap::{self, TrapFrame};
use crate::guest::process::{FaultVerdict, Process, SystemCall, Verdict};
use crate::outcome::{Access, Fault, MemoryAccess, Outcome, Signal, Unsupported};
use crate::paging::{ADDRESS_MASK, PRESENT, Tables};
use crate::rewind::Patches;
use crate::state::{CpuState, XSAVE_BYTES, XSTATE_BV_AT};
use kvm_bindings::{kvm_regs, kvm_sregs};
use serde::{Deserialize, Serialize};

/// Bytes of SYSCALL (0F 05).
const SYSCALL_BYTES: u64 = 2;

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
    debug_trap: bool,
    stale: Vec<Gpa>,
}

/// An exit, without its borrow of the vCPU.
enum Event {
    SystemCall,
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
            debug_trap: false,
            stale: Vec::new(),
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
            self.poke(hw, address, crate::coverage::INT3);
        }
        self.point = Some((point, original[0]));
        Ok(())
    }

    fn poke(&self, hw: &mut Hardware, address: u64, byte: u8) {
        if let Some(at) = self.translate(hw, address) {
            // It was translated just now, so it is RAM.
            let _ = hw.memory.write_unmarked(at, &[byte]);
        }
    }

    /// Runs to the next exit and answers it.
    pub(super) fn step(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
    ) -> Result<Flow, MachineError> {
        match next_event(hw)? {
            Event::SystemCall => self.system_call(hw),
            Event::Trap(vector) => self.trap(hw, patches, vector),
            Event::Interrupted => Ok(Flow::Interrupted),
            Event::Other(what) => Ok(Flow::end(Outcome::Unsupported(what))),
        }
    }

    fn system_call(&mut self, hw: &mut Hardware) -> Result<Flow, MachineError> {
        self.system_calls += 1;
        let regs = *hw.vcpu.regs();
        // SYSCALL left RIP in RCX and RFLAGS in R11 (Intel SDM vol. 2). A program that jumps to
        // the gate by itself may have anything there.
        let back = kvm_regs { rip: regs.rcx, rflags: trap::user_flags(regs.r11), ..regs };
        if !is_user_address(back.rip) {
            return Ok(Flow::end(Outcome::Crashed(non_canonical(regs.rcx))));
        }
        let call = SystemCall {
            nr: regs.rax,
            args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        };
        if let Some((point, _)) = self.point {
            let State { process, tables, memory } = self.split(hw);
            if process.observes_input(&call, &ProcessPages { memory, tables }) {
                if point == ProcessPoint::Input {
                    return self.stop_before_call(hw, call, &back);
                }
                self.saw_input = true;
            }
        }
        match self.serve(hw, &call)? {
            Served::Value(value) => {
                self.resume(hw, kvm_regs { rax: value, ..back })?;
                Ok(Flow::Continue)
            }
            Served::End(outcome) => {
                *hw.vcpu.regs_mut() = back;
                Ok(Flow::end(outcome))
            }
        }
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
        self.resume(hw, before)?;
        Ok(Flow::Stop(Stop::Snapshot))
    }

    fn serve(&mut self, hw: &mut Hardware, call: &SystemCall) -> Result<Served, MachineError> {
        let State { process, tables, memory } = self.split(hw);
        let verdict = process.syscall(call, &mut ProcessPages { memory, tables });
        Ok(match verdict {
            Verdict::Return(value) => Served::Value(value),
            Verdict::SetFsBase { base } => {
                set_base(&mut hw.vcpu.sregs_mut().fs, base);
                Served::Value(0)
            }
            Verdict::SetGsBase { base } => {
                set_base(&mut hw.vcpu.sregs_mut().gs, base);
                Served::Value(0)
            }
            Verdict::Exit { status } => Served::End(Outcome::Exited { status }),
            Verdict::Signal(signal) => {
                let rip = hw.vcpu.regs().rcx;
                Served::End(Outcome::Crashed(Fault {
                    signal,
                    rip,
                    access: None,
                    vector: None,
                    error_code: None,
                }))
            }
            Verdict::OutOfMemory => Served::End(Outcome::OutOfMemory),
            Verdict::Unsupported(name) => {
                Served::End(Outcome::Unsupported(Unsupported::SystemCall { name }))
            }
        })
    }

    fn split<'a>(&'a mut self, hw: &'a mut Hardware) -> State<'a> {
        State {
            process: &mut self.state.process,
            tables: &mut self.state.tables,
            memory: &mut hw.memory,
        }
    }

    fn trap(
        &mut self,
        hw: &mut Hardware,
        patches: &mut Patches,
        vector: u8,
    ) -> Result<Flow, MachineError> {
        self.traps += 1;
        // The CPU wrote the frame, into a slot without dirty log.
        hw.memory.mark(trap::STACK, crate::address::PAGE_SIZE)?;
        let regs = *hw.vcpu.regs();
        let Some(frame) = trap::read_frame(&hw.memory, vector, regs.rsp) else {
            let detail = [u64::from(vector), regs.rsp];
            let reason = kvm_bindings::KVM_EXIT_EXCEPTION;
            return Ok(Flow::end(Outcome::Unsupported(Unsupported::Exit { reason, detail })));
        };
        let back = kvm_regs {
            rip: frame.rip,
            rsp: frame.rsp,
            rflags: trap::user_flags(frame.rflags),
            ..regs
        };
        self.debug_trap |= vector == 1;
        match vector {
            3 => self.breakpoint(hw, patches, &back),
            14 => self.page_fault(hw, &frame, &back),
            _ => Ok(self.crash(hw, &back, fault_of(vector, &frame))),
        }
    }

    /// Leaves the program's registers in the vCPU for the report, and ends the run.
    fn crash(&mut self, hw: &mut Hardware, back: &kvm_regs, fault: Fault) -> Flow {
        *hw.vcpu.regs_mut() = *back;
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
            self.poke(hw, at, original);
            self.point = None;
            self.resume(hw, here)?;
            return Ok(Flow::Stop(Stop::Snapshot));
        }
        if let Some(block) = self.breakpoints.hit(at, &mut hw.memory, patches) {
            self.hits.push(block);
            self.resume(hw, here)?;
            return Ok(Flow::Continue);
        }
        let fault = Fault {
            signal: Signal::TRAP,
            rip: at,
            access: None,
            vector: Some(3),
            error_code: None,
        };
        Ok(self.crash(hw, back, fault))
    }

    fn page_fault(
        &mut self,
        hw: &mut Hardware,
        frame: &TrapFrame,
        back: &kvm_regs,
    ) -> Result<Flow, MachineError> {
        let at = hw.vcpu.sregs().cr2;
        let code = frame.error_code.unwrap_or(0);
        let kind = access_of(code);
        let State { process, tables, memory } = self.split(hw);
        let mut pages = ProcessPages { memory, tables };
        // Allowed already: a translation from before the entry changed. Go on and walk again.
        if pages.allows(Gva(at), kind) {
            self.resume(hw, *back)?;
            return Ok(Flow::Continue);
        }
        match process.page_fault(Gva(at), kind, &mut pages) {
            FaultVerdict::Retry => {
                self.resume(hw, *back)?;
                Ok(Flow::Continue)
            }
            FaultVerdict::OutOfMemory => Ok(Flow::end(Outcome::OutOfMemory)),
            FaultVerdict::Signal(signal) => {
                let fault = Fault {
                    signal,
                    rip: frame.rip,
                    access: Some(MemoryAccess { address: Some(at), kind }),
                    vector: Some(14),
                    error_code: frame.error_code,
                };
                Ok(self.crash(hw, back, fault))
            }
        }
    }

    /// Sets the registers so that the next run goes on in the program as `regs` say; through the
    /// rewriting stub when page-table entries lost a permission.
    fn resume(&mut self, hw: &mut Hardware, regs: kvm_regs) -> Result<(), MachineError> {
        if !self.state.tables.has_stale() {
            *hw.vcpu.regs_mut() = regs;
            enter_user(hw);
            return Ok(());
        }
        self.state.tables.take_stale(&mut self.stale);
        self.rewrite(hw, regs)
    }

    /// Lets the guest write the entries in `stale`, and go on in the program after the last.
    fn rewrite(&mut self, hw: &mut Hardware, regs: kvm_regs) -> Result<(), MachineError> {
        loop {
            let (stub, taken) = trap::prepare_rewrite(&mut hw.memory, &self.stale, &regs)?;
            self.stale.drain(..taken);
            *hw.vcpu.regs_mut() = stub;
            let sregs = hw.vcpu.sregs_mut();
            sregs.cs = trap::kernel_cs();
            sregs.ss = trap::kernel_ss();
            if self.stale.is_empty() {
                return Ok(());
            }
            run_rewrite(hw)?;
        }
    }

    /// Puts the host's side back to `then` and prepares the next run with `input`. Memory, apart
    /// from page tables, is `rewind`'s.
    pub(super) fn rewind_to(
        &mut self,
        hw: &mut Hardware,
        then: &ProcessState,
        cpu: &CpuState,
    ) -> Result<(), MachineError> {
        self.state.process.rewind_to(&then.process);
        self.state.tables.rewind_to(&mut hw.memory, &then.tables)?;
        self.hits.clear();
        (self.system_calls, self.traps) = (0, 0);
        // At CPL 3 nothing else reaches a debug register.
        if std::mem::take(&mut self.debug_trap) {
            hw.vcpu.fd().set_debug_regs(&cpu.debug_regs)?;
        }
        if hw.vcpu.sregs() != &cpu.sregs {
            *hw.vcpu.sregs_mut() = cpu.sregs;
        }
        *hw.vcpu.regs_mut() = cpu.regs;
        Ok(())
    }

    /// Starts a run at the snapshot with `input`: makes the system call that the snapshot stands
    /// before, and enters the program through the trampoline, which loads extended state.
    pub(super) fn begin(
        &mut self,
        hw: &mut Hardware,
        input: &[u8],
        cpu: &CpuState,
    ) -> Result<Flow, MachineError> {
        self.state.process.set_input(input);
        let mut regs = cpu.regs;
        if let Some(call) = self.state.call {
            self.system_calls += 1;
            let next = regs.rip.wrapping_add(SYSCALL_BYTES);
            regs = kvm_regs { rip: next, rcx: next, r11: regs.rflags, ..regs };
            match self.serve(hw, &call)? {
                Served::Value(value) => regs.rax = value,
                Served::End(outcome) => return Ok(Flow::end(outcome)),
            }
        }
        self.enter(hw, &regs, cpu.xcr0())
    }

    /// Enters the program at `regs` through the trampoline.
    pub(super) fn enter(
        &mut self,
        hw: &mut Hardware,
        regs: &kvm_regs,
        xcr0: u64,
    ) -> Result<Flow, MachineError> {
        let words = [regs.rax, regs.rdx, regs.rip];
        let mut bytes = [0; 24];
        for (out, word) in bytes.chunks_exact_mut(8).zip(words) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        hw.memory.write(trap::RESUME, &bytes)?;
        let rip = trap::trampoline_entry().0;
        let (rax, rdx) = (xcr0 & 0xffff_ffff, xcr0 >> 32);
        self.resume(hw, kvm_regs { rax, rdx, rip, ..*regs })?;
        Ok(Flow::Continue)
    }
}

/// Writes the XSAVE area that the trampoline loads. XSTATE_BV is masked with XCR0, because
/// XRSTOR faults on a component that the guest may not have; hosts that show their own XCR0 to
/// the guest would hide that.
pub(super) fn install_xsave(hw: &mut Hardware, cpu: &CpuState) -> Result<(), MachineError> {
    let mut area = cpu.xsave.clone();
    area.resize(XSAVE_BYTES, 0);
    if let Some(header) = area.get_mut(XSTATE_BV_AT..XSTATE_BV_AT + 64) {
        let mut word = [0; 8];
        word.copy_from_slice(&header[..8]);
        let allowed = u64::from_le_bytes(word) & cpu.xcr0();
        // The rest of the header must be zero in the standard format.
        header.fill(0);
        header[..8].copy_from_slice(&allowed.to_le_bytes());
    }
    hw.memory.write_unmarked(trap::XSAVE_AREA, &area)?;
    Ok(())
}

/// Borrows of what a system call needs.
struct State<'a> {
    process: &'a mut Process,
    tables: &'a mut Tables,
    memory: &'a mut crate::memory::GuestMemory,
}

/// A system call's answer.
enum Served {
    Value(u64),
    End(Outcome),
}

fn next_event(hw: &mut Hardware) -> Result<Event, MachineError> {
    let exit = hw.vcpu.run()?;
    let event = match exit {
        Exit::MmioWrite { at, .. } if at.page_floor() == trap::GATE => Event::SystemCall,
        Exit::PortOut { port: trap::PORT_TRAP, .. } => Event::Trap(0),
        Exit::Interrupted => return Ok(Event::Interrupted),
        other => Event::Other(other.unsupported(0)),
    };
    let rip = hw.vcpu.regs().rip;
    Ok(match event {
        Event::SystemCall if trap::in_syscall_gate(rip) => Event::SystemCall,
        // A store to the gate's page from anywhere else is a program poking at the engine.
        Event::SystemCall => Event::Other(Unsupported::Exit {
            reason: kvm_bindings::KVM_EXIT_MMIO,
            detail: [trap::GATE.0, rip],
        }),
        Event::Trap(_) => match trap::vector_of(rip) {
            Some(vector) => Event::Trap(vector),
            None => Event::Other(Unsupported::Exit {
                reason: kvm_bindings::KVM_EXIT_IO,
                detail: [u64::from(trap::PORT_TRAP), rip],
            }),
        },
        Event::Other(Unsupported::Instruction { bytes, .. }) => {
            Event::Other(Unsupported::Instruction { rip, bytes })
        }
        other => other,
    })
}

/// Runs the rewriting stub until it says that its part is done.
fn run_rewrite(hw: &mut Hardware) -> Result<(), MachineError> {
    loop {
        match hw.vcpu.run()? {
            Exit::PortOut { port: trap::PORT_REWRITTEN, .. } => return Ok(()),
            Exit::Interrupted => hw.vcpu.clear_kick(),
            other => return Err(MachineError::Stub { exit: other.unsupported(0) }),
        }
    }
}

/// Makes CS and SS the program's, where an exit left the stub's.
fn enter_user(hw: &mut Hardware) {
    if hw.vcpu.sregs().cs.selector != trap::USER_CS || hw.vcpu.sregs().ss.selector != trap::USER_SS
    {
        let sregs: &mut kvm_sregs = hw.vcpu.sregs_mut();
        sregs.cs = trap::user_cs();
        sregs.ss = trap::user_ss();
    }
}

fn set_base(segment: &mut kvm_bindings::kvm_segment, base: u64) {
    segment.base = base;
}

/// Whether RIP may be loaded with `at`: hardware refuses to enter a guest otherwise.
const fn is_user_address(at: u64) -> bool {
    at < 1 << 47
}

fn non_canonical(rip: u64) -> Fault {
    Fault {
        signal: Signal::SEGV,
        rip,
        access: Some(MemoryAccess { address: Some(rip), kind: Access::Execute }),
        vector: None,
        error_code: None,
    }
}

/// The access behind a page fault's error code (Intel SDM vol. 3, figure 4-12).
const fn access_of(error_code: u32) -> Access {
    if error_code & 1 << 4 != 0 {
        Access::Execute
    } else if error_code & 1 << 1 != 0 {
        Access::Write
    } else {
        Access::Read
    }
}

/// The signal that Linux raises for an exception at CPL 3 (arch/x86/kernel/traps.c).
fn fault_of(vector: u8, frame: &TrapFrame) -> Fault {
    let signal = match vector {
        0 | 16 | 19 => Signal::FPE,
        1 => Signal::TRAP,
        6 => Signal::ILL,
        11 | 12 | 17 => Signal::BUS,
        _ => Signal::SEGV,
    };
    let access = (vector == 13).then_some(MemoryAccess { address: None, kind: Access::Read });
    Fault { signal, rip: frame.rip, access, vector: Some(vector), error_code: frame.error_code }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_become_the_signals_that_linux_raises() {
        let frame = TrapFrame { error_code: None, rip: 1, cs: 0x23, rflags: 2, rsp: 0 };
        let signal = |vector| fault_of(vector, &frame).signal;
        assert_eq!(signal(0), Signal::FPE);
        assert_eq!(signal(6), Signal::ILL);
        assert_eq!(signal(13), Signal::SEGV);
        assert_eq!(signal(17), Signal::BUS);
        assert_eq!(access_of(0x15), Access::Execute);
        assert_eq!(access_of(7), Access::Write);
        assert_eq!(access_of(4), Access::Read);
    }
}
