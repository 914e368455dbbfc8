//! A batch of runs under the agent: the exits that are left, and what they mean.
//!
//! Never decides how the guest restores itself: that is `guest::process::agent`'s. Never believes
//! the agent's memory, which the program can write to, without its checks.

mod faults;

use super::{Exception, ProcessDriver, ProcessState, ProgramExit, Taken, next_exit, poked};
use crate::arch::exception as vector;
use crate::guest::process::agent::{Agent, AgentConfig, AgentExit};
use crate::guest::process::trap;
use crate::kvm::clear_selectors;
use crate::machine::batch::{Batch, BatchOptions, BatchReport};
use crate::machine::hardware::Hardware;
use crate::machine::watchdog::Watchdog;
use crate::machine::{Flow, HIT_ALLOWANCE, MachineError, MachineSnapshot, Stop, ending};
use crate::outcome::{Fault, Outcome};
use crate::rewind::{HostRewind, Patches};
use crate::state::{Ending, Prepared, RewindMode, RunFacts};
use kvm_bindings::{kvm_regs, kvm_sregs};
use std::time::{Duration, Instant};

/// A run stopped where only a boot does.
const NO_POINT: MachineError = MachineError::Invariant("no run has a snapshot point, only a boot");

/// The agent is gone.
const NO_AGENT: MachineError =
    MachineError::Invariant("a machine that runs batches, or stands under the agent, has one");

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

/// Whether a batch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Go,
    Over,
}

/// One batch under way.
struct BatchRun<'a, 'm> {
    driver: &'a mut ProcessDriver,
    agent: Box<Agent>,
    parts: BatchParts<'m>,
    batch: &'a Batch,
    options: BatchOptions,
    report: &'a mut BatchReport,
    /// The run whose input the process has on the host's side.
    input_of: Option<usize>,
    /// The run that the watchdog's limit is for.
    timed: usize,
    /// Breakpoints and first writes since that limit was set: their time is not the guest's.
    interruptions: u32,
    /// A kick found the agent's memory in the middle of a change.
    in_doubt: bool,
}

impl ProcessDriver {
    /// Number of pages that the agent puts back after each run.
    pub(in crate::machine) fn agent_pages_hot(&self) -> usize {
        self.agent.as_ref().map_or(0, |agent| agent.pages_hot())
    }

    /// The machine's breakpoints have changed: code that the agent has replaced is looked at anew.
    /// Not while the machine is under the agent.
    pub(in crate::machine) fn forget_replaced_calls(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.forget_calls();
        }
    }

    /// Whether the machine stands under the agent's page tables.
    pub(in crate::machine) fn is_under_agent(&self) -> bool {
        self.under_agent
    }

    /// Puts the agent into the guest if it is not there.
    pub(in crate::machine) fn prepare_agent(
        &mut self,
        hw: &mut Hardware,
        snapshot: &MachineSnapshot,
        then: &ProcessState,
    ) -> Result<(), MachineError> {
        if self.agent.is_none() {
            self.agent = Some(install(hw, snapshot, then)?);
        }
        Ok(())
    }

    /// Runs a batch, the agent being prepared; see `Machine::run_batch`.
    pub(in crate::machine) fn run_batch(
        &mut self,
        parts: BatchParts<'_>,
        batch: &Batch,
        options: BatchOptions,
        report: &mut BatchReport,
    ) -> Result<(), MachineError> {
        let mut agent = self.agent.take().ok_or(NO_AGENT)?;
        if !self.under_agent {
            std::mem::swap(&mut self.state.tables, &mut agent.tables);
            self.under_agent = true;
        }
        let (input_of, timed, interruptions, in_doubt) = (None, 0, 0, false);
        let mut run = BatchRun {
            driver: self,
            agent,
            parts,
            batch,
            options,
            report,
            input_of,
            timed,
            interruptions,
            in_doubt,
        };
        let ended = run.run();
        run.parts.watchdog.disarm();
        let BatchRun { driver, agent, .. } = run;
        driver.agent = Some(agent);
        ended
    }

    /// Lets the agent put the last run back, and goes back to the exact page tables.
    pub(in crate::machine) fn leave_agent(
        &mut self,
        mut parts: BatchParts<'_>,
    ) -> Result<(), MachineError> {
        let mut agent = self.agent.take().ok_or(NO_AGENT)?;
        let memory = &mut parts.hw.memory;
        // No further input: the agent puts everything back and says so.
        agent.set_count(memory, 0)?;
        enter(self, &agent, &mut parts, agent.reset_entry())?;
        parts.watchdog.arm(Instant::now(), Some(RESET_TIME_MAX));
        let is_idle = run_to_idle(parts.hw, &agent, parts.watchdog);
        parts.watchdog.disarm();
        if !is_idle? {
            mark_hot(&agent, &mut parts)?;
        }
        self.stale.clear();
        undo(self, &mut agent, &mut parts, Ending::Interrupted)?;
        agent.restore_calls(&mut parts.hw.memory)?;
        std::mem::swap(&mut self.state.tables, &mut agent.tables);
        self.under_agent = false;
        *parts.hw.vcpu.sregs_mut() = parts.snapshot.state.sregs;
        self.agent = Some(agent);
        Ok(())
    }
}

fn install(
    hw: &mut Hardware,
    snapshot: &MachineSnapshot,
    then: &ProcessState,
) -> Result<Box<Agent>, MachineError> {
    Agent::add_memory(&mut hw.memory)?;
    let cpu = &snapshot.state;
    let user = snapshot.layout.iter().find(|slot| slot.start == trap::USER_BASE);
    let user = user.ok_or(MachineError::Invariant("a program's memory has its slot"))?;
    let config = AgentConfig {
        regs: &cpu.regs,
        xcr0: cpu.xcr0(),
        bases: [cpu.sregs.fs.base, cpu.sregs.gs.base],
        call: then.call.as_ref(),
        user_pages: user.pages() as u64,
    };
    Ok(Box::new(Agent::install(&mut hw.memory, &then.tables, &then.process, &config)?))
}

/// Goes on in the agent at `rip`.
fn enter(
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

/// The agent puts a run back in microseconds, and never ends where a snapshot file has other page
/// tables or descriptor tables than the engine's own.
const RESET_TIME_MAX: Duration = Duration::from_secs(2);

/// Whether the agent came to its end.
fn run_to_idle(
    hw: &mut Hardware,
    agent: &Agent,
    watchdog: &Watchdog,
) -> Result<bool, MachineError> {
    loop {
        match next_exit(hw)? {
            ProgramExit::Gate(rip) => return Ok(agent.exit_at(rip) == Some(AgentExit::Idle)),
            ProgramExit::Interrupted => {
                hw.vcpu.clear_kick();
                if watchdog.expired(Duration::ZERO) {
                    return Ok(false);
                }
            }
            ProgramExit::Trap(_) | ProgramExit::Other(_) => return Ok(false),
        }
    }
}

/// Has `undo` put the hot pages back, where the agent cannot.
fn mark_hot(agent: &Agent, parts: &mut BatchParts<'_>) -> Result<(), MachineError> {
    for pfn in agent.hot_frames() {
        parts.hw.memory.mark(pfn.gpa(), crate::address::PAGE_SIZE)?;
    }
    Ok(())
}

/// Undoes what the host has done in a run that came to this end.
fn undo(
    driver: &mut ProcessDriver,
    agent: &mut Agent,
    parts: &mut BatchParts<'_>,
    ending: Ending,
) -> Result<(), MachineError> {
    let BatchParts { hw, patches, rewind, snapshot, prepared, then, .. } = parts;
    let debug_exception = std::mem::take(&mut driver.debug_exception);
    let ran = RunFacts { ending, debug_exception };
    prepared.restore(&snapshot.state, &mut hw.vcpu, &hw.vm, ran, RewindMode::Lazy)?;
    driver.state.process.rewind_to(&then.process);
    driver.state.tables.rewind_to(&mut hw.memory, &agent.baseline)?;
    driver.state.tables.mark_stale(&mut driver.stale);
    (driver.system_calls, driver.traps) = (0, 0);
    driver.hits.clear();
    driver.elsewhere = None;
    rewind.restore_host_writes(&mut hw.memory, &snapshot.pages, patches)?;
    Ok(agent.end_run(&mut hw.memory)?)
}

impl BatchRun<'_, '_> {
    fn run(&mut self) -> Result<(), MachineError> {
        let memory = &mut self.parts.hw.memory;
        let ProcessDriver { state, breakpoints, .. } = &mut *self.driver;
        let ProcessState { process, tables, crash_points, .. } = state;
        let is_taken = |at| breakpoints.is_at(at) || crash_points.contains(&at);
        self.agent.replace_calls(memory, tables, process, &is_taken)?;
        self.agent.load(memory, self.batch.inputs())?;
        self.enter(self.agent.batch_entry())?;
        self.time(0);
        loop {
            self.report.exits += 1;
            if self.step()? == Next::Over {
                return Ok(());
            }
        }
    }

    fn enter(&mut self, rip: u64) -> Result<(), MachineError> {
        enter(self.driver, &self.agent, &mut self.parts, rip)
    }

    fn step(&mut self) -> Result<Next, MachineError> {
        let exit = next_exit(self.parts.hw)?;
        if !matches!(exit, ProgramExit::Interrupted) {
            self.driver.stale.clear();
        }
        match exit {
            ProgramExit::Interrupted => self.interrupted(),
            ProgramExit::Gate(rip) => match self.agent.exit_at(rip) {
                Some(exit) => self.agent_exit(exit),
                None => self.ended(Outcome::Unsupported(poked(rip))),
            },
            ProgramExit::Trap(vector) => self.trap(vector),
            ProgramExit::Other(what) => self.ended(Outcome::Unsupported(what)),
        }
    }

    fn agent_exit(&mut self, exit: AgentExit) -> Result<Next, MachineError> {
        match exit {
            AgentExit::SystemCall => self.system_call(),
            AgentExit::Done | AgentExit::Touched | AgentExit::Segments => {
                let Some(index) = self.index() else { return self.lost() };
                // At least one run is over, or the program has jumped here by itself.
                if index == self.report.runs.len() {
                    return self.lost();
                }
                self.fill(index)?;
                if exit == AgentExit::Done && index < self.batch.len() {
                    return self.lost();
                }
                // Segments are the snapshot's again from here on, and are noted anew.
                let is_new = exit == AgentExit::Segments;
                let entry =
                    if is_new { self.agent.batch_entry() } else { self.agent.reset_entry() };
                self.between(index, entry, Ending::Asked)
            }
            AgentExit::Idle | AgentExit::Scribbled => self.lost(),
        }
    }

    /// The run that is under way or, between two, the next one.
    fn index(&self) -> Option<usize> {
        let possible = self.report.runs.len()..=self.batch.len();
        self.agent.progress(&self.parts.hw.memory).filter(|index| possible.contains(index))
    }

    /// The run that is under way; the ones before it are told.
    fn current(&mut self) -> Result<Option<usize>, MachineError> {
        let Some(index) = self.index().filter(|index| *index < self.batch.len()) else {
            return Ok(None);
        };
        self.fill(index)?;
        if index != self.timed {
            self.time(index);
        }
        Ok(Some(index))
    }

    /// Starts the limit of run `index`.
    fn time(&mut self, index: usize) {
        self.timed = index;
        self.interruptions = 0;
        self.parts.watchdog.arm(Instant::now(), self.options.limit);
    }

    /// Tells the runs before `index`, which ended by themselves.
    fn fill(&mut self, index: usize) -> Result<(), MachineError> {
        for run in self.report.runs.len()..index {
            let status = self.agent.status(&self.parts.hw.memory, run)?;
            self.report.runs.push(Some(Outcome::Exited { status }));
            self.report.by_host.push(false);
        }
        Ok(())
    }

    /// The present run is over, seen by the host.
    fn ended(&mut self, outcome: Outcome) -> Result<Next, MachineError> {
        // Alone the program would have been somewhere else.
        let is_moved = |fault: &Fault| self.agent.is_moved_code(fault.rip);
        match &outcome {
            Outcome::Crashed(fault) if is_moved(fault) => self.over(None),
            _ => self.over(Some(outcome)),
        }
    }

    /// The present run is over, `None` if only a run of its own can tell how.
    fn over(&mut self, outcome: Option<Outcome>) -> Result<Next, MachineError> {
        let Some(index) = self.current()? else { return self.lost() };
        let ending = outcome.as_ref().map_or(Ending::Interrupted, ending);
        self.report.runs.push(outcome);
        self.report.by_host.push(true);
        let next = index + 1;
        self.agent.set_index(&mut self.parts.hw.memory, next)?;
        self.between(next, self.agent.reset_entry(), ending)
    }

    /// Between two runs, `next` being the second: undoes what the host did in the first, and goes
    /// on in the agent at `entry`.
    fn between(&mut self, next: usize, entry: u64, ending: Ending) -> Result<Next, MachineError> {
        let is_last = next >= self.batch.len();
        if is_last {
            self.agent.audit(
                &mut self.parts.hw.memory,
                &mut self.driver.state.tables,
                &self.parts.snapshot.pages,
            )?;
        }
        undo(self.driver, &mut self.agent, &mut self.parts, ending)?;
        self.input_of = None;
        let is_finding = !matches!(self.report.runs.last(), Some(Some(Outcome::Exited { .. })))
            || self.report.hits.last().is_some_and(|(run, _)| *run as usize + 1 == next);
        if is_last || self.options.stop_at_finding && is_finding {
            return self.finish();
        }
        self.time(next);
        self.enter(entry)?;
        Ok(Next::Go)
    }

    /// Checks that what is told can be believed.
    fn finish(&mut self) -> Result<Next, MachineError> {
        let runs = self.report.runs.iter().zip(&self.report.by_host);
        // All of these are exits (`fill`); one that were none would be missing in the agent's hash.
        let statuses = runs.filter(|(_, by_host)| !**by_host).filter_map(|(run, _)| match run {
            Some(Outcome::Exited { status }) => Some(*status),
            Some(_) | None => None,
        });
        if self.agent.is_whole(&self.parts.hw.memory, statuses) {
            return Ok(Next::Over);
        }
        let ended = self.report.runs.iter_mut().zip(&self.report.by_host);
        ended.filter(|(_, by_host)| !**by_host).for_each(|(run, _)| *run = None);
        self.lost()
    }

    /// The program has written to the agent's memory, or jumped into its code: nothing it says is
    /// believed any more. All that the program can write of it is made anew for the next batch.
    fn lost(&mut self) -> Result<Next, MachineError> {
        self.report.is_distrusted = true;
        self.report.runs.resize(self.batch.len(), None);
        self.report.by_host.resize(self.batch.len(), false);
        mark_hot(&self.agent, &mut self.parts)?;
        undo(self.driver, &mut self.agent, &mut self.parts, Ending::Interrupted)?;
        Ok(Next::Over)
    }

    fn interrupted(&mut self) -> Result<Next, MachineError> {
        self.parts.hw.vcpu.clear_kick();
        let allowance = HIT_ALLOWANCE.saturating_mul(self.interruptions);
        if !self.parts.watchdog.expired(allowance) {
            return Ok(Next::Go);
        }
        let Some(index) = self.index() else {
            // The agent may be just changing its memory. It does not take long.
            if std::mem::replace(&mut self.in_doubt, true) {
                return self.lost();
            }
            self.parts.watchdog.arm(Instant::now(), self.options.limit);
            return Ok(Next::Go);
        };
        self.in_doubt = false;
        if index == self.timed && index < self.batch.len() {
            // Alone it has time slices.
            if self.driver.state.process.has_slices() {
                return self.over(None);
            }
            return self.ended(Outcome::TimedOut);
        }
        self.fill(index)?;
        self.time(index);
        Ok(Next::Go)
    }

    fn system_call(&mut self) -> Result<Next, MachineError> {
        let Some(index) = self.current()? else { return self.lost() };
        let BatchParts { hw, .. } = &mut self.parts;
        if !self.agent.import(&hw.memory, &mut self.driver.state.process) {
            return self.lost();
        }
        if self.input_of != Some(index) {
            self.input_of = Some(index);
            self.driver.state.process.set_input(self.batch.input(index));
        }
        self.agent.set_touched(&mut hw.memory, true)?;
        let regs = *hw.vcpu.regs();
        self.agent.note_call(regs.rax, regs.rcx);
        match self.driver.system_call(hw)? {
            Flow::Stop(Stop::Ended(outcome)) => self.ended(outcome),
            Flow::Stop(Stop::Snapshot) => Err(NO_POINT),
            Flow::Continue | Flow::Interrupted => {
                if !self.goes_on_elsewhere() {
                    return self.over(None);
                }
                let ProcessState { process, tables, .. } = &self.driver.state;
                let memory = &mut self.parts.hw.memory;
                if self.agent.collides(regs.rax, memory, tables, process) {
                    return self.over(None);
                }
                self.agent.export(memory, &self.driver.state.process)?;
                Ok(Next::Go)
            }
        }
    }

    /// Whether a program that goes on in a handler, behind one or in another thread can do so in a
    /// batch; if so it does, in place of code that is replaced.
    fn goes_on_elsewhere(&mut self) -> bool {
        let Some((done, at)) = self.driver.elsewhere.take() else { return true };
        // The instruction of a call that is made again may be one that is replaced.
        let rip = self.agent.in_place_of(at).filter(|_| !done.is_again);
        let regs = self.parts.hw.vcpu.regs_mut();
        match rip {
            Some(rip) if rip == at => true,
            // The stub that rewrites page-table entries comes first, and has taken `at` along.
            Some(_) if regs.rip != at => false,
            Some(rip) => {
                regs.rip = rip;
                true
            }
            None => false,
        }
    }

    fn trap(&mut self, vector: u8) -> Result<Next, MachineError> {
        let exception = match ProcessDriver::take_exception(self.parts.hw, vector)? {
            Taken::Exception(exception) => exception,
            Taken::Unsupported(what) => return self.ended(Outcome::Unsupported(what)),
        };
        if vector == vector::PAGE_FAULT {
            return self.page_fault(&exception);
        }
        let rip = exception.frame.rip;
        if self.agent.contains(rip) {
            // The shim runs with the program's rights, and its flags are restored by it.
            return self.agent_trap(&exception);
        }
        let Some(index) = self.current()? else { return self.lost() };
        // A handler would see where that is.
        if self.agent.is_moved_code(rip) {
            return self.over(None);
        }
        let BatchParts { hw, patches, .. } = &mut self.parts;
        match self.driver.exception(hw, patches, &exception)? {
            Flow::Stop(Stop::Ended(outcome)) => return self.ended(outcome),
            Flow::Stop(Stop::Snapshot) => return Err(NO_POINT),
            Flow::Continue | Flow::Interrupted => {}
        }
        if self.driver.elsewhere.is_some() {
            self.agent.set_touched(&mut self.parts.hw.memory, true)?;
            if !self.goes_on_elsewhere() {
                return self.over(None);
            }
        }
        let hits = self.driver.hits.drain(..).map(|block| (index as u32, block));
        self.report.hits.extend(hits);
        self.interruptions += 1;
        if self.options.stop_at_finding {
            self.agent.set_touched(&mut self.parts.hw.memory, true)?;
        }
        Ok(Next::Go)
    }

    /// An exception in the agent's own code that is no page fault.
    fn agent_trap(&mut self, exception: &Exception) -> Result<Next, MachineError> {
        let in_shim = self.agent.in_shim(exception.frame.rip);
        match exception.vector {
            // An address that is not canonical faults so (Intel SDM vol. 1, 3.3.7.1).
            vector::GENERAL_PROTECTION if in_shim => self.take_over(&exception.back),
            // The program steps itself: alone its first step is after the system call.
            vector::DEBUG if in_shim => {
                self.driver.debug_exception = true;
                self.over(None)
            }
            _ => self.lost(),
        }
    }
}
