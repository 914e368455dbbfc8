//! The exits of a batch that are left, and what they mean.
//!
//! Never believes the agent's memory, which the program can write to, without its checks.

use super::parts::{self, BatchParts, mark_hot, undo};
use crate::arch::exception as vector;
use crate::guest::process::agent::{Agent, AgentExit, CodeAround, ToHost};
use crate::guest::process::detours::Detours;
use crate::guest::process::pages::ProcessPages;
use crate::linux::abi::syscall::SystemCall;
use crate::machine::batch::{Batch, BatchOptions, BatchReport, BlockHit};
use crate::machine::ending::ending;
use crate::machine::error::MachineError;
use crate::machine::flow::{Flow, Stop};
use crate::machine::process::driver::{CallContext, Elsewhere, ProcessDriver};
use crate::machine::process::exception::{Exception, Taken, take_exception};
use crate::machine::process::exits::{ProgramExit, next_exit, poked};
use crate::machine::process::state::ProcessState;
use crate::machine::watchdog::Exits;
use crate::outcome::{Fault, Outcome};
use crate::state::Ending;
use std::ops::Range;
use std::time::Instant;

/// A run stopped where only a boot does.
pub(super) const NO_POINT: MachineError = MachineError::Invariant("no batch has a snapshot point");

/// Whether a batch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    Over,
}

/// One batch under way.
pub(super) struct BatchRun<'a, 'm> {
    pub(super) driver: &'a mut ProcessDriver,
    pub(super) agent: Box<Agent>,
    pub(super) parts: BatchParts<'m>,
    pub(super) batch: &'a Batch,
    pub(super) options: BatchOptions,
    pub(super) report: &'a mut BatchReport,
    /// The run whose input the process has on the host's side.
    pub(super) input_of: Option<usize>,
    /// The run that the watchdog's limit is for.
    pub(super) timed: usize,
    /// Exits since that limit was set: their time is not the guest's.
    pub(super) exits: Exits,
    /// A kick found the agent's memory in the middle of a change.
    pub(super) in_doubt: bool,
}

impl BatchRun<'_, '_> {
    pub(super) fn run(&mut self) -> Result<(), MachineError> {
        self.driver.prepare_batch(self.parts.hw)?;
        let outputs = self.driver.is_output_watched();
        let memory = &mut self.parts.hw.memory;
        let ProcessDriver { state, breakpoints, detours, .. } = &mut *self.driver;
        let ProcessState { process, tables, crash_points, .. } = state;
        let is_taken = |at| breakpoints.is_at(at) || crash_points.contains(&at);
        let extent_over = |range: Range<u64>| {
            let mut extents = detours.as_deref().into_iter().flat_map(Detours::extents);
            extents.find(|extent| extent.start < range.end && range.start < extent.end)
        };
        let around = CodeAround { process, is_taken: &is_taken, extent_over: &extent_over };
        self.agent.replace_calls(memory, tables, &around)?;
        let to_host = ToHost { exits: self.options.finding_statuses, outputs };
        self.agent.load(memory, self.batch.inputs(), to_host)?;
        self.enter(self.agent.batch_entry())?;
        self.time(0);
        loop {
            self.report.exits.total += 1;
            self.exits.others += 1;
            if self.step()? == Next::Over {
                return Ok(());
            }
        }
    }

    fn enter(&mut self, rip: u64) -> Result<(), MachineError> {
        parts::enter(self.driver, &self.agent, &mut self.parts, rip)
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
            AgentExit::Done | AgentExit::Touched | AgentExit::Segments | AgentExit::News => {
                self.report.exits.ends += 1;
                let Some(index) = self.index() else { return self.lost() };
                // At least one run is over, or the program has jumped here by itself.
                if index == self.report.runs.len() {
                    return self.lost();
                }
                self.fill(index)?;
                if exit == AgentExit::News {
                    self.report.news.push(index.saturating_sub(1) as u32);
                }
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

    /// The run that is under way; those before it are in the report.
    pub(super) fn current(&mut self) -> Result<Option<usize>, MachineError> {
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
        self.exits = Exits::default();
        self.parts.watchdog.arm(Instant::now(), self.options.limit);
    }

    /// Reports the runs before `index`, which ended by themselves.
    fn fill(&mut self, index: usize) -> Result<(), MachineError> {
        for run in self.report.runs.len()..index {
            let status = self.agent.status(&self.parts.hw.memory, run)?;
            self.report.runs.push(Some(Outcome::Exited { status }));
            self.report.by_host.push(false);
        }
        Ok(())
    }

    /// Whether the program would not be at `rip` alone.
    pub(super) fn is_moved_code(&self, rip: u64) -> bool {
        self.agent.is_moved_code(rip) || self.driver.is_off_path(rip)
    }

    /// The present run is over, seen by the host.
    pub(super) fn ended(&mut self, outcome: Outcome) -> Result<Next, MachineError> {
        // Alone the program would have been somewhere else.
        let is_moved = |fault: &Fault| self.is_moved_code(fault.rip);
        match &outcome {
            Outcome::Crashed(fault) if is_moved(fault) => self.over(None),
            Outcome::Crashed(_)
            | Outcome::Exited { .. }
            | Outcome::Halted
            | Outcome::TimedOut
            | Outcome::OutOfMemory
            | Outcome::OutputLimit
            | Outcome::OutputMatched
            | Outcome::Unsupported(_) => self.over(Some(outcome)),
        }
    }

    /// The present run is over, `None` if only a run of its own can tell how.
    pub(super) fn over(&mut self, outcome: Option<Outcome>) -> Result<Next, MachineError> {
        let Some(index) = self.current()? else { return self.lost() };
        let ending = outcome.as_ref().map_or(Ending::Interrupted, ending);
        self.report.runs.push(outcome);
        self.report.by_host.push(true);
        let next = index + 1;
        self.driver.clear_marks(self.parts.hw)?;
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
        let end = self.report.runs.last().and_then(Option::as_ref);
        let is_finding = !self.options.is_plain(end)
            || self.report.hits.last().is_some_and(|hit| hit.run as usize + 1 == next)
            || self.report.news.last().is_some_and(|run| *run as usize + 1 == next);
        if is_last || self.options.stop_at_finding && is_finding {
            return self.finish();
        }
        self.time(next);
        self.enter(entry)?;
        Ok(Next::Go)
    }

    /// Checks that what is reported can be believed.
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
        self.lost()
    }

    /// The program has written to the agent's memory, or jumped into its code: nothing it said is
    /// believed any more. All that the program can write of it is made anew for the next batch.
    pub(super) fn lost(&mut self) -> Result<Next, MachineError> {
        self.report.is_distrusted = true;
        let ended = self.report.runs.iter_mut().zip(&self.report.by_host);
        ended.filter(|(_, by_host)| !**by_host).for_each(|(run, _)| *run = None);
        self.report.runs.resize(self.batch.len(), None);
        self.report.by_host.resize(self.batch.len(), false);
        self.driver.clear_marks(self.parts.hw)?;
        mark_hot(&self.agent, &mut self.parts)?;
        undo(self.driver, &mut self.agent, &mut self.parts, Ending::Interrupted)?;
        Ok(Next::Over)
    }

    fn interrupted(&mut self) -> Result<Next, MachineError> {
        self.parts.hw.vcpu.clear_kick();
        if !self.parts.watchdog.expired(self.exits) {
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
        if index != self.timed {
            self.fill(index)?;
            self.time(index);
            return Ok(Next::Go);
        }
        if index == self.batch.len() {
            // After the last run the agent is long gone: the program has set the index, and spins.
            return self.lost();
        }
        // Alone it has time slices.
        if self.driver.state.process.has_slices() {
            return self.over(None);
        }
        self.ended(Outcome::TimedOut)
    }

    /// Makes the calls that the program made without the host, if the process's state depends on
    /// them; false when the program has written to the agent's memory.
    pub(super) fn catch_up(&mut self) -> Result<bool, MachineError> {
        let memory = &mut self.parts.hw.memory;
        if !self.agent.is_ahead(memory) {
            return Ok(true);
        }
        let process = &mut self.driver.state.process;
        if !self.agent.import(memory, process) {
            return Ok(false);
        }
        self.agent.export_again(memory, process)?;
        Ok(true)
    }

    pub(super) fn system_call(&mut self) -> Result<Next, MachineError> {
        let Some(index) = self.current()? else { return self.lost() };
        let BatchParts { hw, then, .. } = &mut self.parts;
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
        self.report.exits.add_calls(regs.rax, 1);
        let call = SystemCall {
            nr: regs.rax,
            args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        };
        let CallContext { process, tables, memory } = self.driver.split(hw);
        let mut pages = ProcessPages { memory, tables };
        process.settle_pages(&then.process, &call, &mut pages);
        self.driver.call_log = self.agent.begin_call(&call, process, &pages);
        let flow = self.driver.system_call(hw);
        let log = self.driver.call_log.take();
        match flow? {
            Flow::Stop(Stop::Ended(outcome)) => self.ended(outcome),
            Flow::Stop(Stop::OffDetours) => self.over(None),
            Flow::Stop(Stop::Snapshot) => Err(NO_POINT),
            Flow::Continue | Flow::Interrupted => {
                let log = log.filter(|_| self.driver.elsewhere.is_none());
                if !self.goes_on_elsewhere() || !self.driver.are_detours_held() {
                    return self.over(None);
                }
                let ProcessState { process, tables, .. } = &self.driver.state;
                let memory = &mut self.parts.hw.memory;
                if self.agent.collides(regs.rax, memory, tables, process) {
                    return self.over(None);
                }
                let value = self.parts.hw.vcpu.regs().rax;
                let memory = &mut self.parts.hw.memory;
                self.agent.end_call(memory, &self.driver.state.process, log, value)?;
                Ok(Next::Go)
            }
        }
    }

    /// Whether a program that goes on in a handler, after one or in another thread can do so in a
    /// batch; if so it does, in place of code that is replaced.
    pub(super) fn goes_on_elsewhere(&mut self) -> bool {
        let Some(Elsewhere { done, rip: at }) = self.driver.elsewhere.take() else { return true };
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
        let exception = match take_exception(self.parts.hw, vector)? {
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
        if self.is_moved_code(rip) {
            return self.over(None);
        }
        if !self.catch_up()? {
            return self.lost();
        }
        let BatchParts { hw, patches, .. } = &mut self.parts;
        match self.driver.exception(hw, patches, &exception)? {
            Flow::Stop(Stop::Ended(outcome)) => return self.ended(outcome),
            Flow::Stop(Stop::OffDetours) => return self.over(None),
            Flow::Stop(Stop::Snapshot) => return Err(NO_POINT),
            Flow::Continue | Flow::Interrupted => {}
        }
        if self.driver.elsewhere.is_some() {
            self.agent.set_touched(&mut self.parts.hw.memory, true)?;
            if !self.goes_on_elsewhere() {
                return self.over(None);
            }
            self.agent.lose_state(&mut self.parts.hw.memory)?;
        }
        let hits = self.driver.hits.len() as u64;
        self.exits.hits += hits;
        self.report.exits.breakpoints += hits;
        let hits = self.driver.hits.drain(..).map(|block| BlockHit { run: index as u32, block });
        self.report.hits.extend(hits);
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
