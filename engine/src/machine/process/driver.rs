//! A process guest in a machine: what its driver knows, and where its memory is.
//!
//! Never answers an exit: `answer` does.

use super::cpu::Done;
use super::logging::LoggedComparisons;
use super::output::WatchedOutput;
use super::state::{ProcessPoint, ProcessState};
use crate::address::{Gpa, Gva};
use crate::coverage::Breakpoints;
use crate::coverage::comparisons::Compared;
use crate::coverage::counts::PlaceHit;
use crate::guest::process::agent::{Agent, CallLog};
use crate::guest::process::detours::Detours;
use crate::linux::cpu::ExtendedLayout;
use crate::linux::process::Process;
use crate::machine::hardware::Hardware;
use crate::machine::output::OutputWatch;
use crate::memory::GuestMemory;
use crate::paging::{ADDRESS_MASK, PRESENT, Tables};
use std::cell::OnceCell;
use std::time::Duration;

/// RAX, RDX and RIP, as the trampoline loads them.
pub(super) const RESUME_BYTES: usize = 24;

/// The snapshot point, while it is to be reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArmedPoint {
    pub(super) point: ProcessPoint,
    /// What stands in memory where an address has its breakpoint.
    pub(super) original: u8,
}

/// Where a program goes on that does not go on after its system call or its fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elsewhere {
    pub(super) done: Done,
    pub(super) rip: u64,
}

/// A process guest in a machine.
#[derive(Debug)]
pub(crate) struct ProcessDriver {
    pub(in crate::machine) state: ProcessState,
    /// Where to stop, until it has been reached.
    pub(super) point: Option<ArmedPoint>,
    /// The program looked at its input before its snapshot point.
    pub(in crate::machine) saw_input: bool,
    /// Coverage.
    pub(in crate::machine) breakpoints: Breakpoints,
    /// Blocks that this run reached for the first time.
    pub(in crate::machine) hits: Vec<u32>,
    /// Places that this run was at, if it went through detours to its end.
    pub(in crate::machine) places: Vec<PlaceHit>,
    /// System calls of this run.
    pub(in crate::machine) system_calls: u64,
    /// Faults and breakpoints of this run.
    pub(in crate::machine) traps: u64,
    /// Whether this run took a #DB, which leaves its cause in DR6.
    pub(in crate::machine) debug_exception: bool,
    /// What the last system call or fault did, and where the program goes on, if that is in a
    /// handler, after one, or in another thread.
    pub(super) elsewhere: Option<Elsewhere>,
    /// Page-table entries that the guest was told to write, until an exit shows that it has.
    pub(super) stale: Vec<Gpa>,
    /// Where the next system call's use of memory is written down.
    pub(super) call_log: Option<CallLog>,
    /// What runs batches, once there was one.
    pub(super) agent: Option<Box<Agent>>,
    /// The machine stands under the agent's page tables.
    pub(super) under_agent: bool,
    /// Blocks that mark themselves, where there are any.
    pub(super) detours: Option<Box<Detours>>,
    /// The machine stands under the detours' page tables.
    pub(super) under_detours: bool,
    /// Comparisons that log themselves, where there are any.
    pub(super) comparisons: Option<Box<LoggedComparisons>>,
    /// `detours` are those of comparisons, for this run.
    pub(super) is_logging: bool,
    /// What breakpoints have logged in this run.
    pub(super) logged: Vec<Compared>,
    /// The snapshot's bytes where each run's entry is written.
    pub(super) resume: [u8; RESUME_BYTES],
    /// What the program has of extended state, once that was asked for.
    pub(super) extended: OnceCell<ExtendedLayout>,
    /// The run's time slices.
    pub(in crate::machine) slices: Slices,
    /// Who reads along what the program writes.
    pub(super) watched: Option<WatchedOutput>,
}

/// The slices of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::machine) struct Slices {
    /// The present one.
    pub(super) length: Duration,
    /// System calls that had been made when it began.
    pub(super) system_calls: u64,
    /// Those that were used up.
    pub(in crate::machine) preemptions: u64,
}

/// Borrows of what a system call needs.
pub(super) struct CallContext<'a> {
    pub(super) process: &'a mut Process,
    pub(super) tables: &'a mut Tables,
    pub(super) memory: &'a mut GuestMemory,
}

impl ProcessDriver {
    pub(in crate::machine) fn new(state: ProcessState) -> Self {
        Self {
            state,
            point: None,
            saw_input: false,
            breakpoints: Breakpoints::default(),
            hits: Vec::new(),
            places: Vec::new(),
            system_calls: 0,
            traps: 0,
            debug_exception: false,
            elsewhere: None,
            stale: Vec::new(),
            call_log: None,
            agent: None,
            under_agent: false,
            detours: None,
            under_detours: false,
            comparisons: None,
            is_logging: false,
            logged: Vec::new(),
            resume: [0; RESUME_BYTES],
            extended: OnceCell::new(),
            slices: Slices::default(),
            watched: None,
        }
    }

    /// From now on shows to `watch` what the program writes; it stands at its snapshot.
    pub(in crate::machine) fn watch_output(&mut self, watch: Box<dyn OutputWatch>) {
        self.watched = Some(WatchedOutput::new(watch, &self.state.process));
    }

    /// Whether somebody reads along what the program writes.
    pub(super) fn is_output_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// Shows what the last system call wrote; whether that is what is looked for.
    pub(super) fn wrote_what_is_looked_for(&mut self) -> bool {
        self.watched.as_mut().is_some_and(|watched| watched.show(&self.state.process))
    }

    /// Nothing was written since the snapshot any more.
    pub(super) fn output_rewound(&mut self) {
        if let Some(watched) = &mut self.watched {
            watched.rewound();
        }
    }

    /// Where `at` lies in guest-physical memory.
    pub(in crate::machine) fn translate(&self, hw: &Hardware, at: u64) -> Option<Gpa> {
        let (_, entry) = self.state.tables.leaf(&hw.memory, Gva(at))?;
        (entry & PRESENT != 0)
            .then(|| Gpa(entry & ADDRESS_MASK).wrapping_add(Gva(at).page_offset() as u64))
    }

    /// What a call needs, borrowed apart.
    pub(super) fn split<'a>(&'a mut self, hw: &'a mut Hardware) -> CallContext<'a> {
        CallContext {
            process: &mut self.state.process,
            tables: &mut self.state.tables,
            memory: &mut hw.memory,
        }
    }
}
