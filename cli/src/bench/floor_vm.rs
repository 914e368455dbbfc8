//! The floor: a VM with a snapshot's contents whose exits are those of a plain `ioctl(KVM_RUN)`
//! (`kvm::Vcpu::run_raw`), or go through the engine's vCPU; without a driver, without rewinding
//! memory, without a limit on time.
//!
//! Knows just enough to keep this command's own guests going: it answers every system call with
//! 0, steps over a faulting store, and ends a round when the guest says that it is done. A guest
//! has run in a machine, under a limit, before it comes here, or cannot loop.

use super::code;
use super::figures::Layer;
use crate::error::CliError;
use dejavm_engine::address::{Gpa, Gva, PAGE_SIZE};
use dejavm_engine::exit::Exit;
use dejavm_engine::guest::process::trap;
use dejavm_engine::kvm::{
    DataMatch, EventFd, FilteredMsr, IoAddress, KvmError, MsrAccess, RawExit, System, event_fd,
};
use dejavm_engine::machine::bare::PORT_DONE;
use dejavm_engine::machine::hardware::{Hardware, VmSpec};
use dejavm_engine::machine::{GuestState, MachineError, MachineSnapshot};
use dejavm_engine::paging;
use dejavm_engine::state::Reach;
use dejavm_engine::vcpu::Vcpu;
use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_HLT, KVM_EXIT_IO, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP,
    kvm_regs, kvm_sregs,
};
use std::time::{Duration, Instant};

const EXIT_GROUP: u64 = libc::SYS_exit_group as u64;
/// #BP, #UD and #PF.
const BREAKPOINT: u8 = 3;
const INVALID_OPCODE: u8 = 6;
const PAGE_FAULT: u8 = 14;
/// An external interrupt here: a vector that has a stub, and no exception of its own.
const INTERRUPT: u8 = 31;
/// Bytes of SYSCALL.
const SYSCALL_BYTES: u64 = 2;
/// Bytes of a coalesced zone.
const ZONE_BYTES: u32 = 8;
/// RFLAGS.IOPL of 3: ports are CPL 3's to use.
const IOPL3: u64 = 3 << 12;

/// What an exit asks for.
enum Next {
    GoOn,
    Done,
    Store,
    Trap,
}

/// A VM at a snapshot.
pub struct FloorVm {
    hw: Hardware,
    start: kvm_regs,
    sregs: kvm_sregs,
    /// Whether the program goes on after a #UD or a #BP.
    steps_over: bool,
    /// Exits of the last round.
    exits: u32,
}

impl FloorVm {
    /// A VM at `snapshot`.
    pub fn new(system: &System, snapshot: &MachineSnapshot) -> Result<Self, CliError> {
        Self::load(system, snapshot).map_err(failed)
    }

    fn load(system: &System, snapshot: &MachineSnapshot) -> Result<Self, MachineError> {
        let mut spec = VmSpec { layout: snapshot.layout.clone(), ..VmSpec::default() };
        let mut start = snapshot.state.regs;
        match &snapshot.guest {
            GuestState::Bare(bare) => {
                spec.tss_address = bare.spec.tss_address;
                spec.identity_map_address = bare.spec.identity_map_address;
                (spec.irqchip, spec.pit) = (bare.spec.irqchip, bare.spec.irqchip);
            }
            // Past the SYSCALL that reads the input, which finds its end.
            GuestState::Process(_) => {
                start.rip += SYSCALL_BYTES;
                start.rax = 0;
            }
        }
        let mut hw = Hardware::new(system, &spec)?;
        hw.memory.map_pages(&snapshot.pages)?;
        // Taken on this host, which therefore lacks none of its MSRs.
        snapshot.state.load(&mut hw.vcpu, &hw.vm, Reach::Kernel, &hw.parts)?;
        Ok(Self { hw, start, sregs: snapshot.state.sregs, steps_over: false, exits: 0 })
    }

    /// The time from the snapshot's registers to the guest's end, through `layer`.
    pub fn round(&mut self, layer: Layer) -> Result<Duration, CliError> {
        // The last round ended at an OUT, which hosts differ in having stepped over: one that is
        // also where this round starts would be skipped (docs/hosts.md).
        self.hw.vcpu.fd().complete_pending().map_err(|error| failed(error.into()))?;
        *self.hw.vcpu.regs_mut() = self.start;
        if *self.hw.vcpu.sregs() != self.sregs {
            *self.hw.vcpu.sregs_mut() = self.sregs;
        }
        self.exits = 0;
        let start = Instant::now();
        loop {
            self.exits += 1;
            let next = match layer {
                Layer::Vcpu => self.parsed_exit()?,
                _ => self.raw_exit()?,
            };
            let go_on = match next {
                Next::GoOn => true,
                Next::Done => false,
                Next::Store => self.serve_store(),
                Next::Trap => self.step_over_trap(),
            };
            if !go_on {
                return Ok(start.elapsed());
            }
        }
    }

    /// As [`round`](Self::round), of a guest that exits `exits` times or, where a signal came in
    /// between, more often.
    pub fn round_of(&mut self, layer: Layer, exits: u32) -> Result<Duration, CliError> {
        let time = self.round(layer)?;
        if self.exits < exits {
            let did = format!("exited {} times instead of {exits}", self.exits);
            return Err(CliError::BenchGuest { did });
        }
        Ok(time)
    }

    fn raw_exit(&mut self) -> Result<Next, CliError> {
        let fd = self.hw.vcpu.fd();
        if let None | Some(KVM_EXIT_HLT) = fd.run_raw().map_err(|error| failed(error.into()))? {
            return Ok(Next::GoOn);
        }
        Ok(match fd.exit() {
            RawExit::Io { port: PORT_DONE, out: true, .. } => Next::Done,
            RawExit::Io { port: trap::PORT_TRAP, out: true, .. } => Next::Trap,
            RawExit::Mmio { write: true, .. } => Next::Store,
            RawExit::Io { out: true, .. } => Next::GoOn,
            RawExit::Io { data, .. } | RawExit::Mmio { data, .. } => {
                data.fill(0xff);
                Next::GoOn
            }
            RawExit::Msr { data, .. } => {
                *data = 0;
                Next::GoOn
            }
            other => return Err(CliError::BenchGuest { did: format!("ended in {other:x?}") }),
        })
    }

    fn parsed_exit(&mut self) -> Result<Next, CliError> {
        let exit = self.hw.vcpu.run().map_err(|error| failed(error.into()))?;
        Ok(match exit {
            Exit::PortOut { port: PORT_DONE, .. } => Next::Done,
            Exit::PortOut { port: trap::PORT_TRAP, .. } => Next::Trap,
            Exit::MmioWrite { .. } => Next::Store,
            Exit::PortOut { .. } | Exit::Halt | Exit::Interrupted | Exit::MsrWrite { .. } => {
                Next::GoOn
            }
            Exit::MsrRead { data, .. } => {
                *data = 0;
                Next::GoOn
            }
            Exit::PortIn { data, .. } | Exit::MmioRead { data, .. } => {
                data.fill(0xff);
                Next::GoOn
            }
            other => return Err(CliError::BenchGuest { did: format!("ended in {other:x?}") }),
        })
    }

    /// A store: a system call when it is the gate's own. False when the program exits.
    fn serve_store(&mut self) -> bool {
        let regs = self.hw.vcpu.regs();
        if !trap::in_syscall_gate(regs.rip) {
            return true;
        }
        if regs.rax == EXIT_GROUP {
            return false;
        }
        self.resume(kvm_regs { rip: regs.rcx, rflags: regs.r11, rax: 0, ..*regs });
        true
    }

    /// Goes on after the store that faulted, and if that is asked for after a UD2 or an INT3; any
    /// other exception is the guest's end.
    fn step_over_trap(&mut self) -> bool {
        let regs = *self.hw.vcpu.regs();
        let (vector, bytes) = match trap::vector_of(regs.rip) {
            Some(PAGE_FAULT) => (PAGE_FAULT, code::TOUCH_BYTES),
            Some(INVALID_OPCODE) if self.steps_over => (INVALID_OPCODE, code::UD2.len() as u64),
            // A trap: RIP is past it.
            Some(BREAKPOINT) if self.steps_over => (BREAKPOINT, 0),
            _ => return false,
        };
        let Some(frame) = trap::read_frame(&self.hw.memory, vector, regs.rsp) else {
            return false;
        };
        let rip = frame.rip + bytes;
        self.resume(kvm_regs { rip, rflags: frame.rflags, rsp: frame.rsp, ..regs });
        true
    }

    /// Goes on at CPL 3 with `regs`.
    fn resume(&mut self, regs: kvm_regs) {
        *self.hw.vcpu.regs_mut() = kvm_regs { rflags: trap::user_flags(regs.rflags), ..regs };
        if self.hw.vcpu.sregs().cs.selector != trap::USER_CS {
            let sregs = self.hw.vcpu.sregs_mut();
            (sregs.cs, sregs.ss) = (trap::user_cs(), trap::user_ss());
        }
    }

    /// The time of `steps` single steps by `KVM_SET_GUEST_DEBUG`, through `layer`.
    pub fn steps(&mut self, layer: Layer, steps: u32) -> Result<Duration, CliError> {
        let fd = self.hw.vcpu.fd();
        // By ioctl, because guest-debug has to be set after RIP.
        fd.set_regs(&self.start).map_err(|error| failed(error.into()))?;
        self.debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP)?;
        let start = Instant::now();
        for _ in 0..steps {
            let stepped = match layer {
                Layer::Vcpu => matches!(parsed(&mut self.hw.vcpu)?, Exit::Debug { .. }),
                _ => raw(&mut self.hw.vcpu)? == KVM_EXIT_DEBUG,
            };
            if !stepped {
                return Err(CliError::BenchGuest { did: "took no single step".to_owned() });
            }
        }
        let time = start.elapsed();
        self.debug(0)?;
        Ok(time)
    }

    fn debug(&mut self, control: u32) -> Result<(), CliError> {
        let set = self.hw.vcpu.fd().set_guest_debug(control, &[0; 8]);
        set.map_err(|error| failed(error.into()))
    }

    /// The time of `runs` runs with `immediate_exit`, which return before the guest is entered.
    pub fn immediate_exits(&mut self, layer: Layer, runs: u32) -> Result<Duration, CliError> {
        self.hw.vcpu.fd().set_kick();
        let start = Instant::now();
        for _ in 0..runs {
            let interrupted = match layer {
                Layer::Vcpu => parsed(&mut self.hw.vcpu)? == Exit::Interrupted,
                _ => matches!(self.hw.vcpu.fd().run_raw(), Ok(None)),
            };
            if !interrupted {
                return Err(CliError::BenchGuest { did: "was entered".to_owned() });
            }
        }
        let time = start.elapsed();
        self.hw.vcpu.clear_kick();
        Ok(time)
    }

    /// The time of `count` external interrupts (`KVM_INTERRUPT`) that find the program at its
    /// snapshot and end in their stub.
    pub fn interrupts(&mut self, layer: Layer, count: u32) -> Result<Duration, CliError> {
        let start = Instant::now();
        for _ in 0..count {
            *self.hw.vcpu.regs_mut() = self.start;
            *self.hw.vcpu.sregs_mut() = self.sregs;
            self.hw.vcpu.fd().interrupt(INTERRUPT).map_err(|error| failed(error.into()))?;
            let exited = match layer {
                Layer::Vcpu => matches!(parsed(&mut self.hw.vcpu)?, Exit::PortOut { .. }),
                _ => raw(&mut self.hw.vcpu)? == KVM_EXIT_IO,
            };
            if !exited || trap::vector_of(self.hw.vcpu.regs().rip) != Some(INTERRUPT) {
                return Err(CliError::BenchGuest { did: "took no interrupt".to_owned() });
            }
        }
        Ok(start.elapsed())
    }

    /// From now on the program goes on after a UD2 and an INT3.
    pub fn step_over_exceptions(mut self) -> Self {
        self.steps_over = true;
        self
    }

    /// From now on ports are the program's to use.
    pub fn with_ports(mut self) -> Self {
        self.start.rflags |= IOPL3;
        self
    }

    /// Has this process answer for an MSR.
    pub fn filter_msr(&self, index: u32) -> Result<(), CliError> {
        let filtered = self.hw.vm.filter_msrs(&[FilteredMsr { index, access: MsrAccess::Both }]);
        filtered.map_err(|error| failed(error.into()))
    }

    /// An eventfd that stores to `at` ring.
    pub fn ring_at(&self, at: IoAddress) -> Result<EventFd, CliError> {
        let ring = || -> Result<EventFd, KvmError> {
            let event = event_fd()?;
            self.hw.vm.add_ioeventfd(&event, at, DataMatch::Any)?;
            Ok(event)
        };
        ring().map_err(|error| failed(error.into()))
    }

    /// Has the kernel keep stores to `at`.
    pub fn coalesce(&self, at: IoAddress) -> Result<(), CliError> {
        self.hw.vm.coalesce(at, ZONE_BYTES).map_err(|error| failed(error.into()))
    }

    /// Empties the ring of kept stores; how many there were.
    pub fn take_coalesced(&mut self) -> Result<u32, CliError> {
        let mut count = 0;
        let fd = self.hw.vcpu.fd();
        while fd.coalesced_write().map_err(|error| failed(error.into()))?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// The guest-physical pages of a program's `count` pages.
    pub fn program_pages(&self, count: u32) -> Vec<Gpa> {
        let root = Gpa(self.sregs.cr3);
        let page = |index: u32| Gva(self.start.r12 + u64::from(index) * PAGE_SIZE as u64);
        (0..count)
            .filter_map(|index| paging::walk(&self.hw.memory, root, page(index)))
            .map(|found| found.gpa)
            .collect()
    }

    /// Takes `pages` from the host: their next touch has to find memory again.
    pub fn forget(&mut self, pages: &[Gpa]) -> Result<(), CliError> {
        for &page in pages {
            let forgotten = self.hw.memory.forget(page, PAGE_SIZE);
            forgotten.map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// Starts to log the guest's writes; every page is write-protected.
    pub fn log_writes(&mut self) -> Result<(), CliError> {
        self.hw.memory.start_dirty_log().map_err(|error| failed(error.into()))
    }

    /// Write-protects every page that the guest has written since it was protected last.
    pub fn protect_written(&mut self) -> Result<(), CliError> {
        self.protect().map_err(failed)
    }

    fn protect(&mut self) -> Result<(), MachineError> {
        let memory = &mut self.hw.memory;
        let layout: Vec<_> = memory.layout().collect();
        for (slot, _) in layout.iter().enumerate().filter(|(_, spec)| spec.log_dirty) {
            let words = memory.dirty_log(slot)?.words.clone();
            for (word, &bits) in words.iter().enumerate().filter(|(_, bits)| **bits != 0) {
                memory.protect_again(slot, word, bits)?;
            }
        }
        Ok(())
    }
}

/// A run without the engine, and the reason why it ended.
pub fn raw(vcpu: &mut Vcpu) -> Result<u32, CliError> {
    loop {
        if let Some(reason) = vcpu.fd().run_raw().map_err(|error| failed(error.into()))? {
            return Ok(reason);
        }
    }
}

/// A run by the engine's vCPU.
pub fn parsed(vcpu: &mut Vcpu) -> Result<Exit<'_>, CliError> {
    vcpu.run().map_err(|error| failed(error.into()))
}

/// What the host failed at.
pub fn failed(error: MachineError) -> CliError {
    CliError::machine("measure in a VM")(error)
}
