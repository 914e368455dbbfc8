//! The façade that wires the modules: boot, run until the snapshot point, snapshot, run, rewind,
//! verify.
//!
//! A machine's life is in its types: a [`Boot`] has not reached its snapshot point; a [`Machine`]
//! has a snapshot and can go back to it. This module never interprets an exit (the drivers do)
//! and never knows what an input is for.

pub mod bare;
mod batch;
mod boot;
mod coverage;
mod digest;
mod driver;
mod error;
pub mod hardware;
mod process;
mod stored;
mod verify;
mod watchdog;

pub use crate::state::RewindMode;
pub use batch::{Batch, BatchOptions, BatchPace, BatchReport};
pub use boot::{Boot, Ended, Started};
pub use error::MachineError;
pub use process::{ProcessPoint, ProcessState};

use crate::host;
use crate::kvm::{KvmError, System, clear_selectors};
use crate::linux::process::Process;
use crate::outcome::Outcome;
use crate::rewind::{HostRewind, Patches, Rewound};
use crate::snapshot::{Blob, HasBlobs, Snapshot};
use crate::state::{self, Ending, Prepared, RunFacts};
use driver::{Driver, Flow, HIT_ALLOWANCE, Stop, drive, ending, other_kind};
use hardware::{DirtySource, Hardware, VmSpec};
use kvm_bindings::{kvm_cpuid_entry2, kvm_regs};
use process::ProcessDriver;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use watchdog::Watchdog;

/// What a guest kind keeps on the host's side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum GuestState {
    /// An ordinary program.
    Process(Box<ProcessState>),
    /// Code at CPL 0.
    Bare(bare::BareState),
}

impl HasBlobs for GuestState {
    fn for_each_blob(&mut self, visit: &mut dyn FnMut(&mut Blob)) {
        if let Self::Process(state) = self {
            state.process.for_each_blob(visit);
        }
    }
}

/// A moment of a machine.
pub type MachineSnapshot = Snapshot<GuestState>;

/// Names what the host lacks of the CPU that `snapshot` was taken with.
///
/// # Errors
/// A KVM call failed.
pub fn host_lacks(system: &System, snapshot: &MachineSnapshot) -> Result<Vec<String>, KvmError> {
    /// What a dynamic linker saves of a function's arguments: SSE, AVX, MPX, AVX-512 (glibc's
    /// STATE_SAVE_MASK).
    const SAVED_BY_LINKER: u64 = 0xee;
    let cpuid = host::guest_cpuid(system)?;
    let GuestState::Process(state) = &snapshot.guest else {
        let mut missing = snapshot.needs.missing_on(&cpuid);
        missing.extend(other_layout(snapshot, &cpuid));
        return Ok(missing);
    };
    let mut missing = snapshot.needs.missing_on(&host::program_cpuid(system)?);
    missing.extend(other_layout(snapshot, &cpuid));
    // Its dynamic linker asked how large the XSAVE area is and keeps that room on the stack. Where
    // more is enabled than then, XSAVE writes past it.
    let is_dynamic = state.process.images().len() > 1;
    if let Some(fixed) = is_dynamic.then(|| host::fixed_xcr0(system)).flatten() {
        let wanted = snapshot.needs.xcr0;
        if fixed & !wanted & SAVED_BY_LINKER != 0 {
            missing.push(format!("an XCR0 of {wanted:#x} (every program here has {fixed:#x})"));
        }
    }
    Ok(missing)
}

/// The snapshot's XSAVE area is laid out as no XRSTOR here would read it: Intel and AMD put
/// AVX-512 in different places.
fn other_layout(snapshot: &MachineSnapshot, cpuid: &[kvm_cpuid_entry2]) -> Option<String> {
    let (there, xcr0) = (&snapshot.state.cpuid, snapshot.needs.xcr0);
    state::lies_elsewhere(cpuid, there, xcr0)
        .then(|| format!("the XSAVE area of its CPU (XCR0 {xcr0:#x})"))
}

/// How a run may be limited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limit {
    /// Wall-clock time; late by at most 2 ms.
    pub time: Option<Duration>,
}

impl Limit {
    /// A limit on time.
    #[must_use]
    pub fn time(limit: Duration) -> Self {
        Self { time: Some(limit) }
    }
}

/// What one run did.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// Why it ended.
    pub outcome: Outcome,
    /// The program's general registers when it ended; at a fault, those of the faulting
    /// instruction.
    pub regs: kvm_regs,
    /// Returns of `KVM_RUN`.
    pub exits: u64,
    /// System calls that were served.
    pub system_calls: u64,
    /// Faults and breakpoints that were taken.
    pub traps: u64,
    /// Times that a program which made no system call for long was interrupted, to let its other
    /// threads or a timer go first. Such a run need not repeat exactly; every other one does.
    pub preemptions: u64,
    /// Wall-clock time of the run.
    pub duration: Duration,
}

/// Whether a machine may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// At its snapshot.
    Ready,
    /// Has run, to such an end.
    Ran(Ending),
    /// A rewind began and did not finish.
    Poisoned,
    /// This invariant does not hold, and nothing mends it.
    Broken(&'static str),
}

impl Readiness {
    /// Whether the machine is at its snapshot.
    fn check(self) -> Result<(), MachineError> {
        match self {
            Self::Ready => Ok(()),
            Self::Ran(_) => Err(MachineError::NotRewound),
            Self::Poisoned => Err(MachineError::Poisoned),
            Self::Broken(invariant) => Err(MachineError::Invariant(invariant)),
        }
    }
}

/// A machine that has a snapshot, and goes back to it after every run.
#[derive(Debug)]
pub struct Machine {
    hw: Hardware,
    driver: Driver,
    snapshot: Arc<MachineSnapshot>,
    rewind: HostRewind,
    patches: Patches,
    watchdog: Watchdog,
    readiness: Readiness,
    /// The snapshot's CPU state, laid out for the rewinds.
    prepared: Prepared,
    mode: RewindMode,
    last: Rewound,
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

    /// As [`load`](Self::load), with a choice of where a program's writes are told. Those of a bare
    /// guest come from the log: KVM's emulator, which is what runs it on some hosts, takes an entry
    /// in a ring for each of its stores.
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

    fn at(
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

    /// Runs once from the snapshot with `input`.
    ///
    /// # Errors
    /// The machine was not rewound since its last run, or the host failed; the machine is then
    /// poisoned until a rewind succeeds.
    pub fn run(&mut self, input: &[u8], limit: Limit) -> Result<RunReport, MachineError> {
        self.leave_agent()?;
        self.readiness.check()?;
        // Assume the worst until the outcome is known.
        self.readiness = Readiness::Ran(Ending::Interrupted);
        let start = Instant::now();
        self.driver.arm(&self.watchdog, start, limit.time);
        let mut exits = 0;
        let stop = self.run_to_stop(input, &mut exits);
        self.watchdog.disarm();
        let outcome = match stop? {
            Stop::Ended(outcome) => outcome,
            Stop::Snapshot => {
                return Err(MachineError::Invariant("no run has a snapshot point, only a boot"));
            }
        };
        self.readiness = Readiness::Ran(ending(&outcome));
        let (system_calls, traps) = self.driver.counts();
        Ok(RunReport {
            outcome,
            regs: *self.hw.vcpu.regs(),
            exits,
            system_calls,
            traps,
            preemptions: self.driver.preemptions(),
            duration: start.elapsed(),
        })
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

    /// How many entries the dirty ring has that tells the guest's writes; `None` where KVM's log
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_why_it_may_not_run() {
        assert!(Readiness::Ready.check().is_ok());
        let ran = Readiness::Ran(Ending::Asked).check();
        assert!(matches!(ran, Err(MachineError::NotRewound)));
        assert!(matches!(Readiness::Poisoned.check(), Err(MachineError::Poisoned)));
        let broken = Readiness::Broken("a page is where it was").check().unwrap_err().to_string();
        assert!(broken.contains("invariant") && broken.ends_with("a page is where it was"));
    }
}
