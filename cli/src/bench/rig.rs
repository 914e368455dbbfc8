//! The floor: a VM with a snapshot's contents whose exits go through the engine's lowest layer
//! (`kvm::Vcpu::run` and the raw exit) or its vCPU, without a driver, without rewinding memory,
//! without a limit on time.
//!
//! Knows just enough to keep this command's own guests going: it answers every system call with
//! 0, steps over a faulting store, and ends a round when the guest says that it is done. A guest
//! has run in a machine, under a limit, before it comes here.

use super::{Layer, code};
use crate::error::CliError;
use dejavm_engine::exit::Exit;
use dejavm_engine::guest::process::trap;
use dejavm_engine::kvm::{Ran, RawExit, System};
use dejavm_engine::machine::bare::PORT_DONE;
use dejavm_engine::machine::hardware::{Hardware, VmSpec};
use dejavm_engine::machine::{GuestState, MachineError, MachineSnapshot};
use dejavm_engine::state::Reach;
use kvm_bindings::{
    KVM_EXIT_HLT, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_regs, kvm_sregs,
};
use std::time::{Duration, Instant};

/// `exit_group`.
const EXIT_GROUP: u64 = 231;
/// #PF.
const PAGE_FAULT: u8 = 14;
/// Bytes of SYSCALL.
const SYSCALL_BYTES: u64 = 2;

/// What an exit asks for.
enum Next {
    GoOn,
    Done,
    Store,
    Trap,
}

/// A VM at a snapshot.
pub struct Rig {
    hw: Hardware,
    start: kvm_regs,
    sregs: kvm_sregs,
}

impl Rig {
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
        Ok(Self { hw, start, sregs: snapshot.state.sregs })
    }

    /// The time from the snapshot's registers to the guest's end, through `layer`.
    pub fn round(&mut self, layer: Layer) -> Result<Duration, CliError> {
        *self.hw.vcpu.regs_mut() = self.start;
        if *self.hw.vcpu.sregs() != self.sregs {
            *self.hw.vcpu.sregs_mut() = self.sregs;
        }
        let start = Instant::now();
        loop {
            let next = match layer {
                Layer::Vcpu => self.parsed_exit()?,
                _ => self.raw_exit()?,
            };
            let go_on = match next {
                Next::GoOn => true,
                Next::Done => false,
                Next::Store => self.serve_store(),
                Next::Trap => self.step_over_fault(),
            };
            if !go_on {
                return Ok(start.elapsed());
            }
        }
    }

    fn raw_exit(&mut self) -> Result<Next, CliError> {
        let fd = self.hw.vcpu.fd();
        if run(fd)? == Ran::Interrupted {
            return Ok(Next::GoOn);
        }
        Ok(match fd.exit() {
            RawExit::Io { port: PORT_DONE, out: true, .. } => Next::Done,
            RawExit::Io { port: trap::PORT_TRAP, out: true, .. } => Next::Trap,
            RawExit::Mmio { write: true, .. } => Next::Store,
            RawExit::Io { out: true, .. } | RawExit::Plain { reason: KVM_EXIT_HLT, .. } => {
                Next::GoOn
            }
            RawExit::Io { data, .. } | RawExit::Mmio { data, .. } => {
                data.fill(0xff);
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
            Exit::PortOut { .. } | Exit::Halt | Exit::Interrupted => Next::GoOn,
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

    /// Goes on after the store that faulted; any other exception is the guest's end.
    fn step_over_fault(&mut self) -> bool {
        let regs = *self.hw.vcpu.regs();
        let frame = match trap::vector_of(regs.rip) {
            Some(PAGE_FAULT) => trap::read_frame(&self.hw.memory, PAGE_FAULT, regs.rsp),
            _ => None,
        };
        let Some(frame) = frame else { return false };
        let rip = frame.rip + code::TOUCH_BYTES;
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
                Layer::Vcpu => {
                    let exit = self.hw.vcpu.run().map_err(|error| failed(error.into()))?;
                    matches!(exit, Exit::Debug { .. })
                }
                _ => {
                    let fd = self.hw.vcpu.fd();
                    run(fd)? == Ran::Exit && matches!(fd.exit(), RawExit::Debug { .. })
                }
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
    pub fn immediate_exits(&mut self, runs: u32) -> Result<Duration, CliError> {
        let fd = self.hw.vcpu.fd();
        let start = Instant::now();
        for _ in 0..runs {
            fd.complete_pending().map_err(|error| failed(error.into()))?;
        }
        Ok(start.elapsed())
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

fn run(fd: &mut dejavm_engine::kvm::Vcpu) -> Result<Ran, CliError> {
    fd.run().map_err(|error| failed(error.into()))
}

fn failed(error: MachineError) -> CliError {
    CliError::machine("measure in a VM")(error)
}
