//! From an image to a machine at its snapshot. Never runs past the snapshot point.

use super::bare::BareDriver;
use super::driver::{Driver, drive};
use super::error::MachineError;
use super::flow::Stop;
use super::hardware::{DirtySource, Hardware, VmSpec};
use super::process::{self, ProcessDriver, ProcessPoint, ProcessState};
use super::report::{Limit, RunReport};
use super::run::Machine;
use super::watchdog::Watchdog;
use crate::address::{Gpa, Gva, PAGE_SIZE};
use crate::arch::control::{MXCSR_INITIAL, MXCSR_MASK, X87_CONTROL_INITIAL};
use crate::guest::bare::BareSpec;
use crate::guest::process::pages::ProcessPages;
use crate::guest::process::trap;
use crate::host;
use crate::kvm::System;
use crate::linux::loader::spec::{CpuFacts, ProcessSpec, Start};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::memory::SlotSpec;
use crate::rewind::Patches;
use crate::snapshot::{CpuNeeds, Snapshot};
use crate::state::{LEGACY, XSTATE_BV_AT, supported_xcr0};
use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_xcr, kvm_xcrs};
use std::sync::Arc;
use std::time::Instant;

/// The XCR0 components that `KVM_GET_XSAVE`'s 4096 bytes hold and that need no CR4 bit of their
/// own: x87, SSE, AVX, and AVX-512's three (Intel SDM vol. 1, 13.1).
const XCR0_MASK: u64 = 0xe7;
/// Where MXCSR, and after it its mask, are in an XSAVE area (Intel SDM vol. 1, 10.5.1, table 10-2).
const MXCSR_AT: usize = 24;
/// CPUID leaves: features, extended features, XSAVE (Intel SDM vol. 2, CPUID).
const LEAF_FEATURES: u32 = 1;
const LEAF_EXTENDED_FEATURES: u32 = 7;
const LEAF_XSAVE: u32 = 0xd;
/// CPUID leaf 7, EBX: RDFSBASE and its like.
const FSGSBASE: u32 = 1;

/// Bytes of a signal frame besides the XSAVE area.
const SIGNAL_FRAME_BYTES: u64 = 1_392;

/// A guest between its first instruction and its snapshot point.
#[derive(Debug)]
pub struct Boot {
    hw: Hardware,
    driver: Driver,
    /// CPUID as the guest sees it.
    cpuid: Vec<kvm_cpuid_entry2>,
    watchdog: Watchdog,
    /// A run ends when the function that the snapshot point is the start of returns.
    ends_at_return: bool,
}

/// Where a boot came to.
#[derive(Debug)]
pub enum Started {
    /// At the snapshot point; the snapshot is taken.
    AtSnapshot(Box<Machine>),
    /// The guest ended before it reached the snapshot point.
    Ended(Box<Ended>),
}

/// A guest that ended before its snapshot point.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub report: RunReport,
    /// Standard output, or the console.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    hw: Hardware,
    driver: Driver,
}

impl Ended {
    /// The program's kernel, for its images and its report; `None` for a bare guest.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.driver.process()
    }

    /// Copies the program's memory at guest-virtual `at`, as the end left it; false when it is
    /// not all readable.
    #[must_use]
    pub fn read_virtual(&mut self, at: u64, out: &mut [u8]) -> bool {
        self.driver.read_virtual(&mut self.hw, at, out)
    }
}

impl Boot {
    /// Loads an ordinary program, `ram_bytes` of memory for it, and `input` as its first input.
    ///
    /// # Errors
    /// The program cannot be loaded, the RAM is too small for it, or a KVM call failed.
    pub fn process(
        system: &System,
        spec: &ProcessSpec,
        ram_bytes: u64,
        input: &[u8],
    ) -> Result<Self, MachineError> {
        let pages = ram_bytes.div_ceil(PAGE_SIZE as u64);
        let engine = SlotSpec { start: Gpa(0), bytes: trap::ENGINE_BYTES, log_dirty: false };
        let user =
            SlotSpec { start: trap::USER_BASE, bytes: pages * PAGE_SIZE as u64, log_dirty: true };
        let dirty = DirtySource::RingOrLog;
        let spec_vm = VmSpec { layout: vec![engine, user], dirty, ..VmSpec::default() };
        let mut hw = Hardware::new(system, &spec_vm)?;
        let cpuid = host::program_cpuid(system)?;
        let spec = ProcessSpec { cpu: cpu_facts(&hw.vcpu.fd().cpuid()?), ..spec.clone() };
        let mut tables = trap::install(&mut hw.memory, pages)?;
        let mut view = ProcessPages { memory: &mut hw.memory, tables: &mut tables };
        let (process, start) = Process::load(&spec, input, &mut view)?;
        set_up_cpu(&mut hw, tables.root(), start)?;
        let state = ProcessState { process, tables, call: None, crash_points: Vec::new() };
        Self::with(hw, Driver::Process(Box::new(ProcessDriver::new(state))), cpuid)
    }

    /// Loads a bare guest.
    ///
    /// # Errors
    /// The image cannot be loaded, or a KVM call failed.
    pub fn bare(system: &System, spec: &BareSpec) -> Result<Self, MachineError> {
        let mut parts = VmSpec::default();
        spec.vm_parts(&mut parts);
        let mut hw = Hardware::new(system, &parts)?;
        let driver = BareDriver::boot(&mut hw, spec)?;
        let cpuid = hw.vcpu.fd().cpuid()?;
        Self::with(hw, Driver::Bare(Box::new(driver)), cpuid)
    }

    fn with(
        hw: Hardware,
        driver: Driver,
        cpuid: Vec<kvm_cpuid_entry2>,
    ) -> Result<Self, MachineError> {
        let watchdog = Watchdog::new(hw.vcpu.kicker()).map_err(MachineError::Watchdog)?;
        if hw.parts.irqchip {
            watchdog.poll();
        }
        Ok(Self { hw, driver, cpuid, watchdog, ends_at_return: false })
    }

    /// Where the program's images are, for resolving a symbol to a snapshot point.
    #[must_use]
    pub fn process_images(&self) -> Vec<crate::linux::loader::images::LoadedImage> {
        match &self.driver {
            Driver::Process(driver) => driver.state.process.images(),
            Driver::Bare(_) => Vec::new(),
        }
    }

    /// Makes it a crash, as if `abort` were called there, to execute the guest-virtual `address`
    /// after the snapshot. Nothing changes before the snapshot. Ignored for a bare guest.
    pub fn crash_at(&mut self, address: u64) {
        if let Driver::Process(driver) = &mut self.driver
            && !driver.state.crash_points.contains(&address)
        {
            driver.state.crash_points.push(address);
        }
    }

    /// Ends every run, with status 0, when the function returns whose first instruction the
    /// snapshot point is. Ignored for a bare guest.
    pub fn end_at_return(&mut self) {
        self.ends_at_return = true;
    }

    /// Runs to the snapshot point and takes the snapshot. `point` is for process guests; a bare
    /// guest says by itself where its snapshot is.
    ///
    /// # Errors
    /// The point is not an address of the program, or the host failed.
    pub fn start(mut self, point: ProcessPoint, limit: Limit) -> Result<Started, MachineError> {
        if let Driver::Process(driver) = &mut self.driver {
            driver.stop_at(&mut self.hw, point)?;
            self.ends_at_return |= matches!(point, ProcessPoint::Harness(_));
        }
        let started = Instant::now();
        self.driver.arm(&self.watchdog, started, limit.time);
        let mut exits = 0;
        let mut patches = Patches::default();
        let stop = drive(&mut self.hw, &mut self.driver, &mut patches, &self.watchdog, &mut exits);
        self.watchdog.disarm();
        match stop? {
            Stop::OffDetours => Err(MachineError::Invariant("no boot has detours")),
            Stop::Snapshot => Ok(Started::AtSnapshot(Box::new(self.take_snapshot()?))),
            Stop::Ended(outcome) => {
                let (stdout, stderr) = self.driver.output();
                let report = RunReport {
                    outcome,
                    regs: *self.hw.vcpu.regs(),
                    exits,
                    system_calls: self.driver.system_calls(),
                    traps: self.driver.traps(),
                    preemptions: self.driver.preemptions(),
                    duration: started.elapsed(),
                };
                let Self { hw, driver, .. } = self;
                Ok(Started::Ended(Box::new(Ended { report, stdout, stderr, hw, driver })))
            }
        }
    }

    fn take_snapshot(mut self) -> Result<Machine, MachineError> {
        let state = self.hw.capture()?;
        if let (Driver::Process(driver), true) = (&mut self.driver, self.ends_at_return) {
            // Where CALL has left the address to return to.
            let address = state.regs.rsp;
            let tables = &mut driver.state.tables;
            let mut pages = ProcessPages { memory: &mut self.hw.memory, tables };
            pages
                .write(Gva(address), &trap::returned_entry().0.to_le_bytes())
                .map_err(|_| MachineError::PointNotMapped { address })?;
        }
        if let Driver::Process(driver) = &mut self.driver {
            process::install_xsave(&mut self.hw, &state)?;
            driver.state.tables.clear_free(&mut self.hw.memory)?;
            driver.state.tables.mark();
            // The boot's calls and faults are no run's.
            (driver.system_calls, driver.traps) = (0, 0);
        }
        let snapshot = Snapshot {
            layout: self.hw.memory.layout().collect(),
            needs: CpuNeeds::of(&self.cpuid, state.xcr0(), state.sregs.cr4),
            state,
            guest: self.driver.state(),
            pages: self.hw.memory.save_pages().map_err(MachineError::Capture)?,
        };
        Machine::at(self.hw, self.driver, Arc::new(snapshot), self.watchdog)
    }
}

/// Puts the vCPU at the program's first instruction, as a kernel's `execve` leaves it: registers
/// clear, x87 and SSE in their initial state.
fn set_up_cpu(hw: &mut Hardware, root: Gpa, start: Start) -> Result<(), MachineError> {
    let cpuid = hw.vcpu.fd().cpuid()?;
    let xcr0 = supported_xcr0(&cpuid) & XCR0_MASK;
    let extended = cpuid.iter().find(|e| e.function == LEAF_EXTENDED_FEATURES && e.index == 0);
    let has_bases = extended.is_some_and(|e| e.ebx & FSGSBASE != 0);
    let sregs = trap::special_registers(hw.vcpu.sregs(), root, xcr0 != 0, has_bases);
    let fd = hw.vcpu.fd();
    fd.set_sregs(&sregs)?;
    if xcr0 != 0 {
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        xcrs.xcrs[0] = kvm_xcr { xcr: 0, value: xcr0, ..Default::default() };
        fd.set_xcrs(&xcrs)?;
    }
    let mut xsave = fd.xsave()?;
    // x87 and SSE explicitly, every other component in its initial state. The words of the area are
    // of 32 bits.
    xsave.region.fill(0);
    xsave.region[0] = u32::from(X87_CONTROL_INITIAL);
    xsave.region[MXCSR_AT / 4] = MXCSR_INITIAL;
    xsave.region[MXCSR_AT / 4 + 1] = MXCSR_MASK;
    xsave.region[XSTATE_BV_AT / 4] = LEGACY as u32;
    fd.set_xsave(&xsave)?;
    fd.set_msrs(&trap::msrs())?;
    let regs = kvm_regs {
        rip: start.rip,
        rsp: start.rsp,
        rflags: trap::user_flags(0),
        ..kvm_regs::default()
    };
    fd.set_regs(&regs)?;
    hw.vcpu.reload()?;
    Ok(())
}

/// What the auxiliary vector says to a program about this vCPU.
fn cpu_facts(cpuid: &[kvm_bindings::kvm_cpuid_entry2]) -> CpuFacts {
    // A leaf that a CPU has not reads as zeros: no XSAVE, and the features that every x86-64 has.
    let leaf = |function, index| cpuid.iter().find(|e| e.function == function && e.index == index);
    let default = CpuFacts::default();
    // CPUID.0DH.0:EBX is the XSAVE area for what XCR0 enables. A signal frame has room for it,
    // its magic number and the fixed part (arch/x86/kernel/fpu/signal.c).
    let xsave = leaf(LEAF_XSAVE, 0).map_or(0, |e| u64::from(e.ebx));
    CpuFacts {
        hwcap: leaf(LEAF_FEATURES, 0).map_or(default.hwcap, |e| e.edx),
        signal_stack_bytes_min: default.signal_stack_bytes_min.max(xsave + SIGNAL_FRAME_BYTES),
    }
}
