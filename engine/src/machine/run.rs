//! A machine at its snapshot: run, rewind, and what can be asked of it.
//!
//! Never interprets an exit: the drivers do.

use super::driver::{Driver, drive, other_kind};
use super::ending::ending;
use super::error::MachineError;
use super::flow::{Flow, Stop};
use super::guest_state::{GuestState, MachineSnapshot};
use super::hardware::{DirtySource, Hardware, VmSpec};
use super::host_lacks::host_lacks;
use super::output::OutputWatch;
use super::process::ProcessDriver;
use super::readiness::Readiness;
use super::report::{Limit, RunReport};
use super::watchdog::Watchdog;
use crate::address::PAGE_SIZE;
use crate::guest::process::trap::USER_BASE;
use crate::kvm::{System, clear_selectors};
use crate::linux::process::Process;
use crate::rewind::{HostRewind, Patches, Rewound};
use crate::state::{Ending, Prepared, RewindMode, RunFacts};
use std::sync::Arc;
use std::time::Instant;

/// A machine that has a snapshot, and goes back to it after every run.
#[derive(Debug)]
pub struct Machine {
    pub(super) hw: Hardware,
    pub(super) driver: Driver,
    pub(super) snapshot: Arc<MachineSnapshot>,
    pub(super) rewind: HostRewind,
    pub(super) patches: Patches,
    pub(super) watchdog: Watchdog,
    pub(super) readiness: Readiness,
    /// The snapshot's CPU state, laid out for the rewinds.
    pub(super) prepared: Prepared,
    pub(super) mode: RewindMode,
    pub(super) last: Rewound,
}

impl Machine {
    /// Makes a machine at `snapshot`; its pages are shared copy-on-write.
    ///
    /// # Errors
    /// The host's CPU lacks what the snapshot needs, a KVM call failed, or the snapshot does not
    /// fit its own layout.
    pub fn load(system: &System, snapshot: Arc<MachineSnapshot>) -> Result<Self, MachineError> {
        Self::load_with(system, snapshot, DirtySource::RingOrLog)
    }

    /// As [`load`](Self::load), with a choice of how a program's writes are reported. Those of a
    /// bare guest come from the log: KVM's emulator, which is what runs it on some hosts, takes an
    /// entry in a ring for each of its stores.
    ///
    /// # Errors
    /// As [`load`](Self::load), and the host may have no ring.
    pub fn load_with(
        system: &System,
        snapshot: Arc<MachineSnapshot>,
        dirty: DirtySource,
    ) -> Result<Self, MachineError> {
        let layout = snapshot.layout.clone();
        let mut spec = VmSpec { layout, log_from_start: true, ..VmSpec::default() };
        match &snapshot.guest {
            GuestState::Bare(state) => state.spec.vm_parts(&mut spec),
            GuestState::Process(_) => spec.dirty = dirty,
        }
        let mut hw = Hardware::new(system, &spec)?;
        let missing = host_lacks(system, &snapshot)?;
        if !missing.is_empty() {
            return Err(MachineError::HostLacks { missing: missing.join(", ") });
        }
        hw.memory.map_pages(&snapshot.pages)?;
        let driver = Driver::of(&snapshot.guest)?;
        // The snapshot's MSRs, not this host's list: comparing needs the same ones.
        hw.parts.msrs = snapshot.state.load(&mut hw.vcpu, &hw.vm, driver.reach(), &hw.parts)?;
        let watchdog = Watchdog::new(hw.vcpu.kicker()).map_err(MachineError::Watchdog)?;
        Self::at(hw, driver, snapshot, watchdog)
    }

    /// A machine whose memory and CPU are at `snapshot`.
    pub(super) fn at(
        mut hw: Hardware,
        mut driver: Driver,
        snapshot: Arc<MachineSnapshot>,
        watchdog: Watchdog,
    ) -> Result<Self, MachineError> {
        let rewind = HostRewind::start(&mut hw.memory)?;
        let mut patches = Patches::default();
        if let Driver::Process(driver) = &mut driver {
            driver.at_snapshot(&hw)?;
            driver.install_crash_points(&mut hw, &mut patches)?;
        }
        if hw.parts.irqchip {
            watchdog.poll();
        }
        let prepared = Prepared::new(&snapshot.state, driver.reach(), &hw.parts)?;
        Ok(Self {
            hw,
            driver,
            snapshot,
            rewind,
            patches,
            watchdog,
            readiness: Readiness::Ready,
            prepared,
            mode: RewindMode::default(),
            last: Rewound::default(),
        })
    }

    /// The snapshot that this machine goes back to.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<MachineSnapshot> {
        &self.snapshot
    }

    /// Chooses how much of the CPU's state later rewinds put back; lazily, by default.
    pub fn set_rewind_mode(&mut self, mode: RewindMode) {
        self.mode = mode;
    }

    /// How much of the CPU's state a rewind puts back.
    #[must_use]
    pub fn rewind_mode(&self) -> RewindMode {
        self.mode
    }

    /// Shows what the program writes, from its snapshot on, to `watch`, which may end a run by it.
    ///
    /// # Errors
    /// The guest is no process, or the machine was not rewound.
    pub fn watch_output(&mut self, watch: Box<dyn OutputWatch>) -> Result<(), MachineError> {
        let (_, driver, _) = self.process_at_snapshot("reading its output")?;
        driver.watch_output(watch);
        Ok(())
    }

    /// From now on a run in which the program has written more than `bytes_max` bytes to standard
    /// output or to standard error ends with
    /// [`Outcome::OutputLimit`](crate::outcome::Outcome::OutputLimit). What it had written at its
    /// snapshot counts.
    ///
    /// # Errors
    /// The guest is no process, or the machine was not rewound.
    pub fn limit_output(&mut self, bytes_max: u64) -> Result<(), MachineError> {
        let (_, driver, _) = self.process_at_snapshot("a limit on output")?;
        driver.state.process.limit_output(bytes_max);
        Ok(())
    }

    /// From now on a run in which the program's pages take more than `bytes_max` bytes, rounded up
    /// to whole pages, ends with [`Outcome::OutOfMemory`](crate::outcome::Outcome::OutOfMemory).
    /// Before the first batch and the first trace; the program does not see it.
    ///
    /// # Errors
    /// The guest is no process, the machine was not rewound, or the program has more pages at its
    /// snapshot already.
    pub fn limit_memory(&mut self, bytes_max: u64) -> Result<(), MachineError> {
        let (_, driver, snapshot) = self.process_at_snapshot("a limit on memory")?;
        let slot = snapshot.layout.iter().find(|slot| slot.start == USER_BASE);
        let slot = slot.ok_or(MachineError::Invariant("a program's memory has its slot"))?;
        let pages = slot.pages() as u64;
        let free = driver.state.tables.frames_free();
        let reserved = pages.saturating_sub(bytes_max.div_ceil(PAGE_SIZE as u64));
        if free < reserved {
            let bytes = pages.saturating_sub(free) * PAGE_SIZE as u64;
            return Err(MachineError::MemoryLimit { bytes, bytes_max });
        }
        driver.state.tables.reserve(reserved);
        Ok(())
    }

    /// The parts of a machine that stands at its snapshot, out of the agent, with a process for its
    /// guest, as `operation` needs it.
    pub(super) fn process_at_snapshot(
        &mut self,
        operation: &'static str,
    ) -> Result<(&mut Hardware, &mut ProcessDriver, &MachineSnapshot), MachineError> {
        self.leave_agent()?;
        self.readiness.check()?;
        let Self { hw, driver, snapshot, .. } = self;
        match driver {
            Driver::Process(driver) => Ok((hw, driver, snapshot)),
            Driver::Bare(_) => Err(MachineError::NotAProcess { operation }),
        }
    }

    /// Runs once from the snapshot with `input`.
    ///
    /// # Errors
    /// The machine was not rewound since its last run, or the host failed; the machine is then
    /// poisoned until a rewind succeeds.
    pub fn run(&mut self, input: &[u8], limit: Limit) -> Result<RunReport, MachineError> {
        self.leave_agent()?;
        self.readiness.check()?;
        let report = self.run_once(input, limit)?;
        report.ok_or(MachineError::Invariant("no run has a snapshot point, only a boot"))
    }

    /// Runs from the snapshot; the machine must be ready. `None` if the run was stopped before its
    /// end, for good.
    pub(super) fn run_once(
        &mut self,
        input: &[u8],
        limit: Limit,
    ) -> Result<Option<RunReport>, MachineError> {
        // Assume the worst until the outcome is known.
        self.readiness = Readiness::Ran(Ending::Interrupted);
        let start = Instant::now();
        self.driver.arm(&self.watchdog, start, limit.time);
        let mut exits = 0;
        let stop = self.run_to_stop(input, &mut exits);
        self.watchdog.disarm();
        let outcome = match stop? {
            Stop::Ended(outcome) => outcome,
            Stop::Snapshot | Stop::OffDetours => return Ok(None),
        };
        self.readiness = Readiness::Ran(ending(&outcome));
        Ok(Some(RunReport {
            outcome,
            regs: *self.hw.vcpu.regs(),
            exits,
            system_calls: self.driver.system_calls(),
            traps: self.driver.traps(),
            preemptions: self.driver.preemptions(),
            duration: start.elapsed(),
        }))
    }

    fn run_to_stop(&mut self, input: &[u8], exits: &mut u64) -> Result<Stop, MachineError> {
        let Self { hw, driver, patches, watchdog, snapshot, .. } = self;
        // Whatever guest this thread ran last.
        clear_selectors()?;
        let begun = match driver {
            Driver::Process(driver) => driver.begin(hw, input, &snapshot.state)?,
            Driver::Bare(driver) => driver.begin(hw, input)?,
        };
        match begun {
            Flow::Stop(stop) => Ok(stop),
            Flow::Continue | Flow::Interrupted => drive(hw, driver, patches, watchdog, exits),
        }
    }

    /// Puts everything back to the snapshot.
    ///
    /// # Errors
    /// The host failed; the machine refuses to run from then on.
    pub fn rewind(&mut self) -> Result<Rewound, MachineError> {
        self.leave_agent()?;
        let ending = match self.readiness {
            Readiness::Ready => None,
            Readiness::Ran(ending) => Some(ending),
            Readiness::Poisoned => return Err(MachineError::Poisoned),
            Readiness::Broken(invariant) => return Err(MachineError::Invariant(invariant)),
        };
        // Poisoned first, ready last: whatever fails in between leaves a machine that says so.
        self.readiness = Readiness::Poisoned;
        let Self { hw, driver, snapshot, rewind, patches, prepared, mode, .. } = self;
        hw.vcpu.settle()?;
        let ran = match ending {
            Some(ending) => RunFacts { ending, debug_exception: driver.debug_exception() },
            None => RunFacts::UNKNOWN,
        };
        match (driver, &snapshot.guest) {
            (Driver::Process(driver), GuestState::Process(then)) => driver.rewind_to(hw, then)?,
            (Driver::Bare(driver), GuestState::Bare(then)) => driver.rewind_to(then)?,
            (Driver::Process(_), GuestState::Bare(_))
            | (Driver::Bare(_), GuestState::Process(_)) => return Err(other_kind()),
        }
        prepared.restore(&snapshot.state, &mut hw.vcpu, &hw.vm, ran, *mode)?;
        self.last = rewind.rewind(&mut hw.memory, &snapshot.pages, patches)?;
        self.readiness = Readiness::Ready;
        Ok(self.last)
    }

    /// How many entries the dirty ring has that reports the guest's writes; `None` where KVM's log
    /// does.
    #[must_use]
    pub fn dirty_ring_entries(&self) -> Option<u32> {
        self.hw.memory.dirty_ring_entries()
    }

    /// What the last rewind did.
    #[must_use]
    pub fn last_rewind(&self) -> Rewound {
        self.last
    }

    /// The console's or the program's standard output since boot.
    #[must_use]
    pub fn stdout(&self) -> &[u8] {
        match &self.driver {
            Driver::Process(driver) => driver.state.process.stdout(),
            Driver::Bare(driver) => driver.console(),
        }
    }

    /// The program's standard error since boot; empty for a bare guest.
    #[must_use]
    pub fn stderr(&self) -> &[u8] {
        match &self.driver {
            Driver::Process(driver) => driver.state.process.stderr(),
            Driver::Bare(_) => &[],
        }
    }

    /// The program's kernel, for its images and its report; `None` for a bare guest.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.driver.process()
    }

    /// Keeps a line for every system call that the program makes from now on; nothing for a bare
    /// guest. See [`Process::trace`].
    pub fn trace_calls(&mut self) {
        if let Driver::Process(driver) = &mut self.driver {
            driver.state.process.trace_calls();
        }
    }

    /// Whether the program looked at the input of its boot before the snapshot point, so that
    /// its runs may not depend on theirs. Not known of a machine that was loaded.
    #[must_use]
    pub fn saw_input_while_booting(&self) -> bool {
        match &self.driver {
            Driver::Process(driver) => driver.saw_input,
            Driver::Bare(_) => false,
        }
    }

    /// Copies the program's memory at guest-virtual `at`, without the engine's breakpoints in it;
    /// false when it is not all readable.
    #[must_use]
    pub fn read_virtual(&mut self, at: u64, out: &mut [u8]) -> bool {
        if !self.driver.read_virtual(&mut self.hw, at, out) {
            return false;
        }
        if let Driver::Process(driver) = &self.driver {
            for (address, byte) in (at..).zip(out) {
                *byte = self.unpatched(driver, address).unwrap_or(*byte);
            }
        }
        true
    }

    /// The snapshot's byte at a guest-virtual address where the machine keeps one of its own.
    fn unpatched(&self, driver: &ProcessDriver, address: u64) -> Option<u8> {
        let at = driver.translate(&self.hw, address)?;
        let pfn = at.into();
        let is_patched =
            self.patches.of(pfn).iter().any(|p| usize::from(p.offset) == at.page_offset());
        let page = self.snapshot.pages.page(pfn).filter(|_| is_patched)?;
        page.get(at.page_offset()).copied()
    }
}
