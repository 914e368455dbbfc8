//! Drives a bare guest: the port ABI, the console and the ends.
//!
//! The ABI (docs/guests-bare.md): OUT of a byte to one of the ports below. Never emulates other
//! hardware: an access to any other port reads as all ones and is otherwise ignored, as on a bus
//! with nothing there.

use super::error::MachineError;
use super::flow::{Flow, Stop};
use super::hardware::{Hardware, VmSpec};
use crate::address::Gpa;
use crate::arch::exception;
use crate::device::{Console, ConsoleState};
use crate::exit::Exit;
use crate::guest::bare::BareSpec;
use crate::outcome::{Fault, Outcome, Signal};
use crate::state::Difference;
use kvm_bindings::kvm_regs;
use serde::{Deserialize, Serialize};

/// "Take the snapshot here": RDI is the guest-physical address of the input buffer, RCX its
/// length in bytes. After it, RAX is the length of the input that was put there.
pub const PORT_SNAPSHOT: u16 = 0xd0;
/// "This run is done": AL is the status.
pub const PORT_DONE: u16 = 0xd1;
/// "I crashed": AL is a number of the guest's choice.
pub const PORT_CRASH: u16 = 0xd2;
/// "Print": RDI is a guest-physical address, RCX a length in bytes.
pub const PORT_PRINT: u16 = 0xd3;

/// Bytes of output after which a guest is out of memory.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// What a bare guest keeps on the host's side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BareState {
    /// How it was made.
    pub spec: BareSpec,
    /// The console.
    pub console: ConsoleState,
    /// The input buffer, as the guest named it at its snapshot point.
    pub buffer: Option<Buffer>,
}

/// A guest's input buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// Guest-physical address.
    pub at: Gpa,
    /// Length in bytes.
    pub bytes: u64,
}

/// A bare guest in a machine.
#[derive(Debug)]
pub struct BareDriver {
    pub(super) state: BareState,
    console: Console,
}

impl BareSpec {
    /// Which parts of a VM the guest asks for.
    pub(super) fn vm_parts(&self, vm: &mut VmSpec) {
        // A snapshot's own layout stands in its file, and has been set.
        if vm.layout.is_empty() {
            vm.layout = vec![self.slot()];
        }
        vm.irqchip = self.irqchip;
        vm.pit = self.irqchip;
        vm.tss_address = self.tss_address;
        vm.identity_map_address = self.identity_map_address;
    }
}

impl BareDriver {
    pub(super) fn new(state: BareState) -> Result<Self, MachineError> {
        let console = Console::new(&state.console, OUTPUT_BYTES_MAX)?;
        Ok(Self { state, console })
    }

    /// Loads the image and puts the vCPU at its first instruction.
    pub(super) fn boot(hw: &mut Hardware, spec: &BareSpec) -> Result<Self, MachineError> {
        let entry = spec.load(&mut hw.memory)?;
        let sregs = spec.sregs(hw.vcpu.sregs());
        hw.vcpu.fd().set_sregs(&sregs)?;
        hw.vcpu.fd().set_regs(&spec.regs(entry))?;
        hw.vcpu.reload()?;
        let spec = BareSpec { image: Vec::new(), ..spec.clone() };
        Self::new(BareState { spec, console: ConsoleState::default(), buffer: None })
    }

    /// What the guest has printed since boot.
    pub(super) fn console(&self) -> &[u8] {
        self.console.output()
    }

    /// Runs to the next exit and answers it.
    pub(super) fn step(&mut self, hw: &mut Hardware) -> Result<Flow, MachineError> {
        let exit = match hw.vcpu.run()? {
            Exit::PortOut { port, size, data } => self.port_out(port, size, data)?,
            Exit::PortIn { port, size, data } => {
                self.port_in(port, size, data);
                BareExit::Continue
            }
            // Nothing is there: stores vanish, loads read as all ones.
            Exit::MmioWrite { .. } => BareExit::Continue,
            Exit::MmioRead { data, .. } => {
                data.fill(0xff);
                BareExit::Continue
            }
            // KVM has no local APIC to tell, and there is none.
            Exit::TaskPriority => BareExit::Continue,
            Exit::Halt => BareExit::End(Outcome::Halted),
            Exit::Interrupted => BareExit::Interrupted,
            Exit::Shutdown => BareExit::TripleFault,
            other => BareExit::Unsupported(other.unsupported(0)),
        };
        self.answer(hw, exit)
    }

    fn port_out(&mut self, port: u16, size: u8, data: &[u8]) -> Result<BareExit, MachineError> {
        let Some(&last) = data.last() else {
            return Err(MachineError::Invariant("KVM tells of an OUT without data"));
        };
        Ok(match port {
            PORT_SNAPSHOT => BareExit::Snapshot,
            PORT_DONE => BareExit::End(Outcome::Exited { status: last }),
            PORT_CRASH => BareExit::Crash(last),
            PORT_PRINT => BareExit::Print,
            port if self.console.has(port) => {
                for (port, &byte) in byte_ports(port, size).zip(data) {
                    self.console.write(port, byte);
                }
                BareExit::Continue
            }
            _ => {
                tracing::trace!(port, size, ?data, "a port with nothing behind it");
                BareExit::Continue
            }
        })
    }

    fn port_in(&mut self, port: u16, size: u8, data: &mut [u8]) {
        for (port, byte) in byte_ports(port, size).zip(data) {
            *byte = self.console.read(port);
        }
    }

    fn answer(&mut self, hw: &mut Hardware, exit: BareExit) -> Result<Flow, MachineError> {
        if matches!(exit, BareExit::Crash(_)) {
            // Hosts differ in whether RIP has moved past an OUT when it exits; a crash's name
            // must not.
            hw.vcpu.settle_step()?;
        }
        let regs = *hw.vcpu.regs();
        Ok(match exit {
            BareExit::Continue if self.console.is_full() => Flow::end(Outcome::OutputLimit),
            BareExit::Continue => Flow::Continue,
            BareExit::Interrupted => Flow::Interrupted,
            BareExit::End(outcome) => Flow::end(outcome),
            BareExit::Crash(code) => Flow::end(crash(&regs, Signal::ABRT, Some(code))),
            // The registers may be those of a reset by now (AMD): they are reported as they are.
            // What could not be delivered was a double fault.
            BareExit::TripleFault => {
                Flow::end(crash(&regs, Signal::SEGV, Some(exception::DOUBLE_FAULT)))
            }
            BareExit::Unsupported(what) => {
                let bits = code_bits(hw.vcpu.sregs());
                Flow::end(Outcome::Unsupported(what.at(regs.rip, bits)))
            }
            BareExit::Print => self.print(hw, &regs),
            // Only the first time: in a run from the snapshot it has no meaning any more.
            BareExit::Snapshot if self.state.buffer.is_some() => Flow::Continue,
            BareExit::Snapshot => {
                self.state.buffer = Some(Buffer { at: Gpa(regs.rdi), bytes: regs.rcx });
                self.state.console = self.console.state();
                Flow::Stop(Stop::Snapshot)
            }
        })
    }

    fn print(&mut self, hw: &mut Hardware, regs: &kvm_regs) -> Flow {
        let mut left = regs.rcx;
        let mut at = Gpa(regs.rdi);
        let mut chunk = [0; 4096];
        while left > 0 && !self.console.is_full() {
            let bytes = left.min(chunk.len() as u64);
            let part = &mut chunk[..bytes as usize];
            if hw.memory.read(at, part).is_err() {
                // What the guest named and is not RAM prints nothing.
                break;
            }
            self.console.print(part);
            at = at.wrapping_add(bytes);
            left -= bytes;
        }
        if self.console.is_full() { Flow::end(Outcome::OutputLimit) } else { Flow::Continue }
    }

    /// Puts the input where the guest asked for it, cut to the buffer's length, and its length
    /// into RAX.
    pub(super) fn begin(&mut self, hw: &mut Hardware, input: &[u8]) -> Result<Flow, MachineError> {
        if let Some(buffer) = self.state.buffer {
            let bytes = (input.len() as u64).min(buffer.bytes) as usize;
            if hw.memory.write(buffer.at, &input[..bytes]).is_err() {
                // A buffer that is not RAM is the guest's mistake.
                let regs = *hw.vcpu.regs();
                return Ok(Flow::end(crash(&regs, Signal::BUS, None)));
            }
            hw.vcpu.regs_mut().rax = bytes as u64;
        }
        Ok(Flow::Continue)
    }

    /// Puts the host's side back.
    pub(super) fn rewind_to(&mut self, then: &BareState) -> Result<(), MachineError> {
        Ok(self.console.rewind_to(&then.console)?)
    }

    /// What differs on the host's side from `then`.
    pub(super) fn differences(&self, then: &BareState) -> Option<Difference> {
        let now = self.console.state();
        (now != then.console).then(|| Difference::new("console", &then.console, &now))
    }
}

/// An exit, without its borrow of the vCPU.
enum BareExit {
    Continue,
    Interrupted,
    End(Outcome),
    Crash(u8),
    TripleFault,
    Unsupported(crate::outcome::Unsupported),
    Print,
    Snapshot,
}

/// The ports of the bytes of an access to `port` by elements of `size` bytes: a wider access to
/// byte-wide registers is one to each in turn, and a string's next element starts over.
fn byte_ports(port: u16, size: u8) -> impl Iterator<Item = u16> {
    (0..u16::from(size.max(1))).cycle().map(move |offset| port.wrapping_add(offset))
}

fn crash(regs: &kvm_regs, signal: Signal, code: Option<u8>) -> Outcome {
    Outcome::Crashed(Fault { signal, rip: regs.rip, access: None, vector: code, error_code: None })
}

/// The default operand size of the code segment (Intel SDM vol. 3, 3.4.5, the L and D/B flags).
fn code_bits(sregs: &kvm_bindings::kvm_sregs) -> u8 {
    match (sregs.cs.l, sregs.cs.db) {
        (1, _) => 64,
        (_, 1) => 32,
        _ => 16,
    }
}
