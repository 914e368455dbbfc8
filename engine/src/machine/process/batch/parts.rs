//! A machine's parts under the agent: into it, out of it, and back after a run.
//!
//! Never decides when.

use crate::address::PAGE_SIZE;
use crate::guest::process::agent::{Agent, AgentConfig, AgentExit};
use crate::guest::process::trap;
use crate::kvm::clear_selectors;
use crate::machine::error::MachineError;
use crate::machine::guest_state::MachineSnapshot;
use crate::machine::hardware::Hardware;
use crate::machine::process::driver::ProcessDriver;
use crate::machine::process::exits::{ProgramExit, next_exit};
use crate::machine::process::state::ProcessState;
use crate::machine::watchdog::Watchdog;
use crate::rewind::{HostRewind, Patches};
use crate::state::{Ending, Prepared, RewindMode, RunFacts};
use kvm_bindings::{kvm_regs, kvm_sregs};

/// The parts of a machine that a batch needs.
pub(in crate::machine) struct BatchParts<'m> {
    pub(in crate::machine) hw: &'m mut Hardware,
    pub(in crate::machine) patches: &'m mut Patches,
    pub(in crate::machine) rewind: &'m mut HostRewind,
    pub(in crate::machine) watchdog: &'m Watchdog,
    pub(in crate::machine) snapshot: &'m MachineSnapshot,
    pub(in crate::machine) prepared: &'m Prepared,
    pub(in crate::machine) then: &'m ProcessState,
}

/// Puts the agent into the guest.
pub(super) fn install(
    hw: &mut Hardware,
    snapshot: &MachineSnapshot,
    now: &ProcessState,
) -> Result<Box<Agent>, MachineError> {
    Agent::add_memory(&mut hw.memory)?;
    let cpu = &snapshot.state;
    let user = snapshot.layout.iter().find(|slot| slot.start == trap::USER_BASE);
    let user = user.ok_or(MachineError::Invariant("a program's memory has its slot"))?;
    let moment = AgentConfig {
        regs: &cpu.regs,
        xcr0: cpu.xcr0(),
        bases: [cpu.sregs.fs.base, cpu.sregs.gs.base],
        call: now.call.as_ref(),
        user_pages: user.pages() as u64,
    };
    Ok(Box::new(Agent::install(&mut hw.memory, &now.tables, &now.process, &moment)?))
}

/// Goes on in the agent at `rip`.
pub(super) fn enter(
    driver: &mut ProcessDriver,
    agent: &Agent,
    parts: &mut BatchParts<'_>,
    rip: u64,
) -> Result<(), MachineError> {
    debug_assert!(agent.contains(rip));
    clear_selectors()?;
    let cr3 = driver.state.tables.root().0;
    let wanted = kvm_sregs { cr3, ..parts.snapshot.state.sregs };
    if parts.hw.vcpu.sregs() != &wanted {
        *parts.hw.vcpu.sregs_mut() = wanted;
    }
    let regs = kvm_regs { rip, rflags: trap::user_flags(0), ..kvm_regs::default() };
    driver.resume(parts.hw, regs)
}

/// Whether the agent came to its end.
pub(super) fn run_to_idle(
    hw: &mut Hardware,
    agent: &Agent,
    watchdog: &Watchdog,
) -> Result<bool, MachineError> {
    loop {
        match next_exit(hw)? {
            ProgramExit::Gate(rip) => return Ok(agent.exit_at(rip) == Some(AgentExit::Idle)),
            ProgramExit::Interrupted => {
                hw.vcpu.clear_kick();
                if watchdog.stub_spins().is_some() {
                    return Ok(false);
                }
            }
            ProgramExit::Trap(_) | ProgramExit::Other(_) => return Ok(false),
        }
    }
}

/// Has `undo` put the hot pages back, where the agent cannot.
pub(super) fn mark_hot(agent: &Agent, parts: &mut BatchParts<'_>) -> Result<(), MachineError> {
    for pfn in agent.hot_frames() {
        parts.hw.memory.mark(pfn.gpa(), PAGE_SIZE)?;
    }
    Ok(())
}

/// Undoes what the host has done in a run that came to this end.
pub(super) fn undo(
    driver: &mut ProcessDriver,
    agent: &mut Agent,
    parts: &mut BatchParts<'_>,
    ending: Ending,
) -> Result<(), MachineError> {
    let BatchParts { hw, patches, rewind, snapshot, prepared, then, .. } = parts;
    let debug_exception = std::mem::take(&mut driver.debug_exception);
    let ran = RunFacts { ending, debug_exception };
    prepared.restore(&snapshot.state, &mut hw.vcpu, &hw.vm, ran, RewindMode::Lazy)?;
    let held = driver.are_detours_held();
    driver.state.process.rewind_to(&then.process);
    driver.state.tables.rewind_to(&mut hw.memory, &agent.baseline)?;
    driver.state.tables.mark_stale(&mut driver.stale);
    (driver.system_calls, driver.traps) = (0, 0);
    driver.hits.clear();
    driver.elsewhere = None;
    driver.output_rewound();
    rewind.restore_host_writes(&mut hw.memory, &snapshot.pages, patches)?;
    driver.end_batch_run(hw, held)?;
    Ok(agent.end_run(&mut hw.memory)?)
}
