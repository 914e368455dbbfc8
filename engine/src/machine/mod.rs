//! The façade that wires the rooms: boot, run until the snapshot point, snapshot, run, rewind,
//! verify.
//!
//! A machine's life is in its types: a [`Boot`] has not reached its snapshot point; a [`Machine`]
//! has a snapshot and can go back to it. This module never interprets an exit (the drivers do)
//! and never knows what an input is for.

pub mod bare;
mod batch;
mod boot;
mod digest;
pub mod hardware;
mod process;
mod verify;
mod watchdog;

pub use crate::state::RewindMode;
pub use batch::{Batch, BatchOptions, BatchPace, BatchReport};
pub use boot::{Boot, Ended, Started};
pub use process::{ProcessPoint, ProcessState};

use crate::coverage::{Arm, Breakpoints};
use crate::guest::process::Process;
use crate::host;
use crate::kvm::{KvmError, System, clear_selectors};
use crate::memory::{MemoryError, OutOfRam};
use crate::outcome::{Outcome, Unsupported};
use crate::paging::TablesFull;
use crate::rewind::{HostRewind, Patches, Rewound};
use crate::snapshot::{Blob, HasBlobs, Snapshot};
use crate::state::{self, Ending, Prepared, Ran, Reach};
use hardware::{DirtySource, Hardware, VmSpec};
use kvm_bindings::{kvm_cpuid_entry2, kvm_regs};
use process::ProcessDriver;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use watchdog::Watchdog;

/// What the host failed at. What a guest does is an [`Outcome`].
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The host lacks what the engine needs.
    #[error(transparent)]
    Host(#[from] crate::host::HostError),
    /// A KVM call failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Guest memory could not be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// An address that must be RAM is not: the snapshot does not fit its own layout.
    #[error("the machine's own pages are not where they should be: {0}")]
    OutOfRam(#[from] OutOfRam),
    /// The page-table arena or the RAM is too small for the guest to begin.
    #[error("the guest's RAM is too small to build its page tables")]
    TablesFull(#[from] TablesFull),
    /// The program could not be loaded.
    #[error(transparent)]
    Load(#[from] crate::guest::process::LoadError),
    /// The machine has no room for the agent.
    #[error(transparent)]
    Agent(#[from] crate::guest::process::agent::AgentError),
    /// A bare guest's image could not be loaded.
    #[error(transparent)]
    BareImage(#[from] crate::guest::bare::ImageError),
    /// The watchdog's thread could not be started.
    #[error("start the watchdog thread: {0}")]
    Watchdog(std::io::Error),
    /// The pages could not be captured.
    #[error("capture the guest's pages: {0}")]
    Capture(std::io::Error),
    /// The snapshot was taken with CPU features that a vCPU does not have here.
    #[error(
        "this host's KVM does not give a guest the CPU features that the snapshot needs: {missing}"
    )]
    HostLacks {
        /// Their names, separated by commas.
        missing: String,
    },
    /// The snapshot point is not an address of the program.
    #[error("{address:#x} is not mapped in the program, so it cannot be stopped there")]
    PointNotMapped {
        /// The address that was asked for.
        address: u64,
    },
    /// One of the engine's own stubs exited in a way it cannot.
    #[error("a stub inside the guest ended in {exit}")]
    Stub {
        /// How.
        exit: Unsupported,
    },
    /// The machine was run without being rewound.
    #[error("the machine has run since its last rewind: rewind it first")]
    NotRewound,
    /// An earlier rewind failed half way.
    #[error("an earlier rewind of this machine did not finish, so its state is unknown")]
    Poisoned,
    /// The operation is for another kind of guest.
    #[error("{operation} is for process guests")]
    NotAProcess {
        /// Which operation.
        operation: &'static str,
    },
}

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
    /// Wall-clock time of the run.
    pub duration: Duration,
}

/// What a step of a guest leads to.
enum Flow {
    Continue,
    Interrupted,
    Stop(Stop),
}

impl Flow {
    const fn end(outcome: Outcome) -> Self {
        Self::Stop(Stop::Ended(outcome))
    }
}

/// Why a guest stopped.
enum Stop {
    Ended(Outcome),
    Snapshot,
}

/// A guest of either kind.
#[derive(Debug)]
enum Driver {
    Process(Box<ProcessDriver>),
    Bare(Box<bare::BareDriver>),
}

impl Driver {
    fn step(&mut self, hw: &mut Hardware, patches: &mut Patches) -> Result<Flow, MachineError> {
        match self {
            Self::Process(driver) => driver.step(hw, patches),
            Self::Bare(driver) => driver.step(hw),
        }
    }

    fn state(&self) -> GuestState {
        match self {
            Self::Process(driver) => GuestState::Process(Box::new(driver.state.clone())),
            Self::Bare(driver) => GuestState::Bare(driver.state.clone()),
        }
    }

    fn of(state: &GuestState) -> Self {
        match state {
            GuestState::Process(state) => {
                Self::Process(Box::new(ProcessDriver::new((**state).clone())))
            }
            GuestState::Bare(state) => Self::Bare(Box::new(bare::BareDriver::new(state.clone()))),
        }
    }

    /// The kernel of a process guest.
    fn process(&self) -> Option<&Process> {
        match self {
            Self::Process(driver) => Some(&driver.state.process),
            Self::Bare(_) => None,
        }
    }

    /// Copies a process's memory; false when it is not all readable.
    fn read_virtual(&mut self, hw: &mut Hardware, at: u64, out: &mut [u8]) -> bool {
        use crate::guest::process::memory::UserMemory;
        use crate::guest::process::pages::ProcessPages;
        let Self::Process(driver) = self else { return false };
        let tables = &mut driver.state.tables;
        let pages = ProcessPages { memory: &mut hw.memory, tables };
        pages.read(crate::address::Gva(at), out).is_ok()
    }

    /// Time that the run may take on top of its limit, because the engine and not the guest spent
    /// it: breakpoints that were hit for the first time.
    fn allowance(&self) -> Duration {
        match self {
            Self::Process(driver) => HIT_ALLOWANCE.saturating_mul(driver.hits.len() as u32),
            Self::Bare(_) => Duration::ZERO,
        }
    }

    /// What the guest can reach of its CPU.
    const fn reach(&self) -> Reach {
        match self {
            Self::Process(_) => Reach::Program,
            Self::Bare(_) => Reach::Kernel,
        }
    }

    /// Whether the run took a #DB. Only asked of programs: no rule for others goes by it.
    const fn debug_exception(&self) -> bool {
        match self {
            Self::Process(driver) => driver.debug_exception,
            Self::Bare(_) => true,
        }
    }

    /// System calls and traps of the run.
    fn counts(&self) -> (u64, u64) {
        match self {
            Self::Process(driver) => (driver.system_calls, driver.traps),
            Self::Bare(_) => (0, 0),
        }
    }
}

/// Ample for one breakpoint's exit, also where VMs are nested (30 to 80 us were measured) or the CPU
/// is emulated on a busy host.
const HIT_ALLOWANCE: Duration = Duration::from_micros(300);

/// Steps `driver` until it stops or its time is over.
fn drive(
    hw: &mut Hardware,
    driver: &mut Driver,
    patches: &mut Patches,
    watchdog: &Watchdog,
    exits: &mut u64,
) -> Result<Stop, MachineError> {
    loop {
        *exits += 1;
        match driver.step(hw, patches)? {
            Flow::Continue => {}
            Flow::Stop(stop) => return Ok(stop),
            Flow::Interrupted => {
                hw.vcpu.clear_kick();
                if halted_for_good(hw)? {
                    return Ok(Stop::Ended(Outcome::Halted));
                }
                if watchdog.expired(driver.allowance()) {
                    return Ok(Stop::Ended(out_of_time(hw)?));
                }
            }
        }
    }
}

/// Whether the guest is in HLT with interrupts off. Only where the local APIC is in the kernel:
/// elsewhere HLT exits by itself.
fn halted_for_good(hw: &Hardware) -> Result<bool, MachineError> {
    const IF: u64 = 1 << 9;
    Ok(hw.parts.irqchip
        && hw.vcpu.regs().rflags & IF == 0
        && hw.vcpu.fd_ref().mp_state()?.mp_state == kvm_bindings::KVM_MP_STATE_HALTED)
}

/// A guest that waits in HLT for an interrupt that never comes has halted; it is not too slow.
fn out_of_time(hw: &mut Hardware) -> Result<Outcome, MachineError> {
    let halted =
        hw.parts.irqchip && hw.vcpu.fd().mp_state()?.mp_state == kvm_bindings::KVM_MP_STATE_HALTED;
    Ok(if halted { Outcome::Halted } else { Outcome::TimedOut })
}

/// What a run's outcome tells of where its vCPU stopped. A crash is reported by a stub's OUT or
/// by the guest's own; everything else, a triple fault among it, can stop it anywhere.
fn ending(outcome: &Outcome) -> Ending {
    match outcome {
        Outcome::Exited { .. } => Ending::Asked,
        Outcome::Crashed(fault) if fault.vector != Some(8) => Ending::Reported,
        _ => Ending::Cut,
    }
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
        let driver = Driver::of(&snapshot.guest);
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
        match self.readiness {
            // Until it is known how it ended, it may have been anyhow.
            Readiness::Ready => self.readiness = Readiness::Ran(Ending::Cut),
            Readiness::Poisoned => return Err(MachineError::Poisoned),
            Readiness::Ran(_) => return Err(MachineError::NotRewound),
        }
        let start = Instant::now();
        self.watchdog.arm(start, limit.time);
        let mut exits = 0;
        let stop = self.run_to_stop(input, &mut exits);
        self.watchdog.disarm();
        let outcome = match stop? {
            Stop::Ended(outcome) => outcome,
            // No point is set once the snapshot exists.
            Stop::Snapshot => Outcome::Exited { status: 0 },
        };
        self.readiness = Readiness::Ran(ending(&outcome));
        let (system_calls, traps) = self.driver.counts();
        let regs = *self.hw.vcpu.regs();
        Ok(RunReport { outcome, regs, exits, system_calls, traps, duration: start.elapsed() })
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
        let before = self.readiness;
        if before == Readiness::Poisoned {
            return Err(MachineError::Poisoned);
        }
        // Poisoned first, ready last: whatever fails in between leaves a machine that says so.
        self.readiness = Readiness::Poisoned;
        let Self { hw, driver, snapshot, rewind, patches, prepared, mode, .. } = self;
        hw.vcpu.settle()?;
        let ran = match before {
            Readiness::Ran(ending) => Ran { ending, debug_exception: driver.debug_exception() },
            _ => Ran::UNKNOWN,
        };
        match (driver, &snapshot.guest) {
            (Driver::Process(driver), GuestState::Process(then)) => driver.rewind_to(hw, then)?,
            (Driver::Bare(driver), GuestState::Bare(then)) => driver.rewind_to(then),
            _ => return Err(MachineError::Poisoned),
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
            self.patches.of(pfn).iter().any(|&(offset, _)| usize::from(offset) == at.page_offset());
        let page = self.snapshot.pages.page(pfn).filter(|_| is_patched)?;
        page.get(at.page_offset()).copied()
    }

    /// Sets breakpoints at the block starts `blocks`, guest-virtual addresses. A block's number
    /// in all later calls is its index here. None is armed yet.
    ///
    /// # Errors
    /// The guest is no process, or the machine was not rewound.
    pub fn set_blocks(&mut self, blocks: &[u64]) -> Result<(), MachineError> {
        self.leave_agent()?;
        let Self { hw, driver, patches, .. } = self;
        let Driver::Process(driver) = driver else {
            return Err(MachineError::NotAProcess { operation: "coverage" });
        };
        if self.readiness != Readiness::Ready {
            return Err(MachineError::NotRewound);
        }
        driver.breakpoints.arm(Arm::None, &mut hw.memory, patches);
        driver.breakpoints = Breakpoints::new(blocks, &hw.memory, |at| driver.block_site(hw, at));
        driver.forget_replaced_calls();
        Ok(())
    }

    /// Number of blocks that are in pages which the program had not touched at the snapshot:
    /// these never fire.
    #[must_use]
    pub fn blocks_unmapped(&self) -> usize {
        match &self.driver {
            Driver::Process(driver) => driver.breakpoints.unmapped(),
            Driver::Bare(_) => 0,
        }
    }

    /// Marks blocks as reached by earlier runs.
    pub fn know_blocks(&mut self, blocks: &[u32]) {
        if let Driver::Process(driver) = &mut self.driver {
            driver.breakpoints.know(blocks);
        }
    }

    /// Takes the mark of earlier runs from blocks: their next hit is reported again. Takes effect
    /// with the next [`arm_blocks`](Self::arm_blocks).
    pub fn forget_blocks(&mut self, blocks: &[u32]) {
        if let Driver::Process(driver) = &mut self.driver {
            driver.breakpoints.forget(blocks);
        }
    }

    /// Chooses which breakpoints shall fire in the next runs.
    pub fn arm_blocks(&mut self, which: Arm) {
        if let Driver::Process(driver) = &mut self.driver {
            driver.breakpoints.arm(which, &mut self.hw.memory, &mut self.patches);
        }
    }

    /// The blocks whose breakpoints the last run hit, in the order it hit them. Empty after a
    /// rewind.
    #[must_use]
    pub fn blocks_hit(&self) -> &[u32] {
        match &self.driver {
            Driver::Process(driver) => &driver.hits,
            Driver::Bare(_) => &[],
        }
    }
}
