//! The ways into a program: at the start of a run, after an exit, and back at the snapshot.
//!
//! Never answers an exit.

use super::driver::{ProcessDriver, RESUME_BYTES, Slices};
use super::registers::stand_at;
use super::served::Served;
use super::state::ProcessState;
use crate::exit::Exit;
use crate::guest::process::rewrite;
use crate::guest::process::trap;
use crate::machine::error::MachineError;
use crate::machine::flow::Flow;
use crate::machine::hardware::Hardware;
use crate::outcome::Outcome;
use crate::state::{CpuState, XSAVE_BYTES, keep_components};
use kvm_bindings::kvm_regs;

/// What is left to rewrite does not become less.
const NO_PROGRESS: MachineError =
    MachineError::Invariant("each call of the rewriting stub takes some of the entries left");

impl ProcessDriver {
    /// Sets the registers so that the next run goes on in the program as `regs` say; through the
    /// rewriting stub when page-table entries lost a permission.
    pub(super) fn resume(&mut self, hw: &mut Hardware, regs: kvm_regs) -> Result<(), MachineError> {
        if !self.state.tables.has_stale() {
            stand_at(hw, regs);
            return Ok(());
        }
        self.state.tables.take_stale(&mut self.stale);
        self.rewrite(hw, regs)
    }

    /// Lets the guest write the entries in `stale`, and go on in the program after the last.
    fn rewrite(&mut self, hw: &mut Hardware, regs: kvm_regs) -> Result<(), MachineError> {
        let mut done = 0;
        loop {
            let left = self.stale.get(done..).ok_or(NO_PROGRESS)?;
            let (stub, taken) = rewrite::prepare(&mut hw.memory, left, &regs)?;
            if taken == 0 {
                return Err(NO_PROGRESS);
            }
            done += taken;
            *hw.vcpu.regs_mut() = stub;
            let sregs = hw.vcpu.sregs_mut();
            sregs.cs = trap::kernel_cs();
            sregs.ss = trap::kernel_ss();
            if done == self.stale.len() {
                return Ok(());
            }
            run_rewrite(hw)?;
        }
    }

    /// Puts the host's side and the page tables back to `then`. The rest of memory is `rewind`'s,
    /// the CPU's state is `state`'s.
    pub(in crate::machine) fn rewind_to(
        &mut self,
        hw: &mut Hardware,
        then: &ProcessState,
    ) -> Result<(), MachineError> {
        // Only the words, not their whole page: every run writes these and no more of it.
        hw.memory.write_unmarked(trap::RESUME, &self.resume)?;
        self.leave_detours(hw)?;
        self.state.process.rewind_to(&then.process);
        self.state.tables.rewind_to(&mut hw.memory, &then.tables)?;
        // A run that was stopped before its first exit may not have written them.
        self.state.tables.mark_stale(&mut self.stale);
        self.hits.clear();
        self.logged.clear();
        self.places.clear();
        (self.system_calls, self.traps) = (0, 0);
        (self.debug_exception, self.elsewhere) = (false, None);
        self.slices = Slices::default();
        self.output_rewound();
        Ok(())
    }

    /// Remembers what a rewind has to put where runs write their entry. Memory is the snapshot's.
    pub(in crate::machine) fn at_snapshot(&mut self, hw: &Hardware) -> Result<(), MachineError> {
        Ok(hw.memory.read(trap::RESUME, &mut self.resume)?)
    }

    /// Starts a run at the snapshot with `input`: makes the system call that the snapshot stands
    /// before, and enters the program through the trampoline, which loads extended state.
    pub(in crate::machine) fn begin(
        &mut self,
        hw: &mut Hardware,
        input: &[u8],
        cpu: &CpuState,
    ) -> Result<Flow, MachineError> {
        self.state.process.set_input(input);
        let mut regs = cpu.regs;
        if let Some(call) = self.state.call {
            self.system_calls += 1;
            let next = regs.rip.wrapping_add(trap::SYSCALL_BYTES);
            regs = kvm_regs { rip: next, rcx: next, r11: regs.rflags, ..regs };
            *hw.vcpu.regs_mut() = regs;
            let served = self.serve(hw, &call, Some(&cpu.xsave))?;
            if self.wrote_what_is_looked_for() {
                *hw.vcpu.regs_mut() = regs;
                return Ok(Flow::end(Outcome::OutputMatched));
            }
            match served {
                Served::Value(value) => regs.rax = value,
                // With its own extended state, or with the snapshot's.
                Served::Elsewhere(done) if done.is_loaded => return self.go_elsewhere(hw, done),
                Served::Elsewhere(_) => regs = *hw.vcpu.regs(),
                Served::End(outcome) => return Ok(Flow::end(outcome)),
            }
        }
        self.enter(hw, &regs, cpu.xcr0())
    }

    /// Enters the program at `regs` through the trampoline.
    pub(in crate::machine) fn enter(
        &mut self,
        hw: &mut Hardware,
        regs: &kvm_regs,
        xcr0: u64,
    ) -> Result<Flow, MachineError> {
        let words = [regs.rax, regs.rdx, regs.rip];
        let mut bytes = [0; RESUME_BYTES];
        for (out, word) in bytes.chunks_exact_mut(8).zip(words) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        // `rewind_to` knows of it.
        hw.memory.write_unmarked(trap::RESUME, &bytes)?;
        let rip = trap::trampoline_entry().0;
        let (rax, rdx) = (xcr0 & 0xffff_ffff, xcr0 >> 32);
        self.resume(hw, kvm_regs { rax, rdx, rip, ..*regs })?;
        Ok(Flow::Continue)
    }
}

/// Writes the XSAVE area that the trampoline loads, masked with XCR0, without which XRSTOR would
/// fault; hosts that show their own XCR0 to the guest would hide that.
pub(in crate::machine) fn install_xsave(
    hw: &mut Hardware,
    cpu: &CpuState,
) -> Result<(), MachineError> {
    let mut area = cpu.xsave.clone();
    area.resize(XSAVE_BYTES, 0);
    keep_components(&mut area, cpu.xcr0());
    hw.memory.write_unmarked(trap::XSAVE_AREA, &area)?;
    Ok(())
}

/// Runs the rewriting stub until it says that its part is done.
///
/// # Errors
/// It does something else, or does not end: in a snapshot file the stub may be anything.
fn run_rewrite(hw: &mut Hardware) -> Result<(), MachineError> {
    /// It takes microseconds, and a watchdog whose limit has passed kicks every 2 ms.
    const KICKS_MAX: u32 = 100;
    for _ in 0..KICKS_MAX {
        match hw.vcpu.run()? {
            Exit::PortOut { port: rewrite::PORT_REWRITTEN, .. } => return Ok(()),
            Exit::Interrupted => hw.vcpu.clear_kick(),
            other => return Err(MachineError::Stub { exit: other.unsupported(0) }),
        }
    }
    Err(MachineError::Stub { exit: Exit::Interrupted.unsupported(0) })
}
