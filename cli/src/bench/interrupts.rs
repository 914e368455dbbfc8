//! Interrupts to a handler at CPL 0: queued by `KVM_INTERRUPT` where the interrupt controllers are
//! this process's, raised on a line or by an eventfd where they are the kernel's.
//!
//! The guest runs in real mode, whose vectors need no tables but 4 bytes each. It counts what it
//! takes, or says that it waits: no interrupt that does not come can hang a measurement.

use super::Layer;
use super::rig::{failed, parsed, raw};
use crate::error::CliError;
use dejavm_engine::address::Gpa;
use dejavm_engine::exit::Exit;
use dejavm_engine::guest::bare::{BareSpec, Mode};
use dejavm_engine::kvm::{EventFd, RawExit, System, event_fd};
use dejavm_engine::machine::MachineError;
use dejavm_engine::machine::hardware::{Hardware, VmSpec};
use kvm_bindings::{KVM_EXIT_HLT, KVM_EXIT_IRQ_WINDOW_OPEN};
use std::time::{Duration, Instant};

const CODE: Gpa = Gpa(0x8000);
const HANDLER: u16 = 0x8080;
const RAM_BYTES: u64 = 1 << 20;
/// The vector that is queued, and the first of the PIC's.
const VECTOR: u8 = 0x20;
/// The PIC's line, which nothing else is on.
const LINE: u8 = 5;
/// The handler has run.
const PORT_HANDLED: u8 = 0xf7;
/// The guest has waited for long.
const PORT_WAITING: u8 = 0xf8;
/// How often the guest may say so, at half a millisecond and more.
const WAITS_MAX: u32 = 2_000;

/// `sti; again: hlt; jmp again`, and at the handler `inc ax; iret`: one exit, the HLT, for each
/// interrupt.
const HALTED: [u8; 4] = [0xfb, 0xf4, 0xeb, 0xfd];
const COUNT: [u8; 2] = [0x40, 0xcf];

/// Who raises the interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raise {
    /// `KVM_INTERRUPT`.
    Queue,
    /// `KVM_IRQ_LINE`, up and down.
    Line,
    /// A write to an eventfd (`KVM_IRQFD`).
    EventFd,
}

/// A VM that takes interrupts.
pub struct Interrupted {
    hw: Hardware,
    raise: Raise,
    event: EventFd,
}

impl Interrupted {
    /// A guest that is ready for its first interrupt.
    pub fn new(system: &System, raise: Raise) -> Result<Self, CliError> {
        let mut made = Self::make(system, raise).map_err(failed)?;
        // The guest says that it is ready.
        match raise {
            Raise::Queue => expect(raw(&mut made.hw.vcpu)?, KVM_EXIT_HLT)?,
            Raise::Line | Raise::EventFd => made.until(Layer::Floor, PORT_WAITING)?,
        }
        Ok(made)
    }

    fn make(system: &System, raise: Raise) -> Result<Self, MachineError> {
        let irqchip = raise != Raise::Queue;
        let code = if irqchip { waiting() } else { with_handler(&HALTED, &COUNT) };
        let bare = BareSpec::flat(Mode::Real, code, CODE, RAM_BYTES);
        let spec = VmSpec {
            layout: vec![bare.slot()],
            irqchip,
            tss_address: bare.tss_address,
            identity_map_address: bare.identity_map_address,
            ..VmSpec::default()
        };
        let mut hw = Hardware::new(system, &spec)?;
        let entry = bare.load(&mut hw.memory)?;
        let vector = if irqchip { VECTOR + LINE } else { VECTOR };
        // Offset and segment.
        let [low, high] = HANDLER.to_le_bytes();
        hw.memory.write(Gpa(u64::from(vector) * 4), &[low, high, 0, 0])?;
        let sregs = bare.sregs(hw.vcpu.sregs());
        *hw.vcpu.sregs_mut() = sregs;
        *hw.vcpu.regs_mut() = bare.regs(entry);
        let event = event_fd()?;
        if raise == Raise::EventFd {
            hw.vm.add_irqfd(&event, LINE.into())?;
        }
        Ok(Self { hw, raise, event })
    }

    /// The time of `count` interrupts, each to the exit after its handler.
    pub fn take(&mut self, layer: Layer, count: u32) -> Result<Duration, CliError> {
        let before = self.hw.vcpu.regs().rax as u16;
        let start = Instant::now();
        for _ in 0..count {
            self.raise()?;
            match self.raise {
                Raise::Queue => self.until_halt(layer)?,
                Raise::Line | Raise::EventFd => self.until(layer, PORT_HANDLED)?,
            }
        }
        let time = start.elapsed();
        let taken = (self.hw.vcpu.regs().rax as u16).wrapping_sub(before);
        if self.raise == Raise::Queue && u32::from(taken) != count {
            return Err(did(format!("took {taken} interrupts of {count}")));
        }
        Ok(time)
    }

    /// The time of `count` runs that end as soon as the guest can take an interrupt.
    pub fn windows(&mut self, layer: Layer, count: u32) -> Result<Duration, CliError> {
        self.hw.vcpu.fd().request_interrupt_window(true);
        let start = Instant::now();
        for _ in 0..count {
            match layer {
                Layer::Vcpu => match parsed(&mut self.hw.vcpu)? {
                    Exit::InterruptWindow => {}
                    other => return Err(did(format!("ended in {other:x?}"))),
                },
                _ => expect(raw(&mut self.hw.vcpu)?, KVM_EXIT_IRQ_WINDOW_OPEN)?,
            }
        }
        let time = start.elapsed();
        self.hw.vcpu.fd().request_interrupt_window(false);
        Ok(time)
    }

    fn raise(&mut self) -> Result<(), CliError> {
        let line = u32::from(LINE);
        let raised = match self.raise {
            Raise::Queue => self.hw.vcpu.fd().interrupt(VECTOR),
            Raise::Line => self
                .hw
                .vm
                .set_irq_line(line, true)
                .and_then(|()| self.hw.vm.set_irq_line(line, false)),
            Raise::EventFd => {
                return self.event.write(1).map_err(|error| did(format!("took no event: {error}")));
            }
        };
        raised.map_err(|error| failed(error.into()))
    }

    fn until_halt(&mut self, layer: Layer) -> Result<(), CliError> {
        match layer {
            Layer::Vcpu => match parsed(&mut self.hw.vcpu)? {
                Exit::Halt => Ok(()),
                other => Err(did(format!("ended in {other:x?}"))),
            },
            _ => expect(raw(&mut self.hw.vcpu)?, KVM_EXIT_HLT),
        }
    }

    /// Runs until the guest writes to `port`.
    fn until(&mut self, layer: Layer, port: u8) -> Result<(), CliError> {
        for _ in 0..WAITS_MAX {
            let wrote = match layer {
                Layer::Vcpu => match parsed(&mut self.hw.vcpu)? {
                    Exit::PortOut { port, .. } => port,
                    Exit::Interrupted => continue,
                    other => return Err(did(format!("ended in {other:x?}"))),
                },
                _ => {
                    raw(&mut self.hw.vcpu)?;
                    match self.hw.vcpu.fd().exit() {
                        RawExit::Io { port, out: true, .. } => port,
                        other => return Err(did(format!("ended in {other:x?}"))),
                    }
                }
            };
            if wrote == u16::from(port) {
                return Ok(());
            }
        }
        Err(did(format!("waited {WAITS_MAX} times for port {port:#x}")))
    }
}

/// Makes the PIC ready (ICW1 to ICW4, and all lines but one masked; Intel 8259A), waits, and
/// says so from time to time. Its handler ends the interrupt in the PIC and exits.
fn waiting() -> Vec<u8> {
    let mut code = Vec::new();
    for (port, value) in [(0x20, 0x11), (0x21, VECTOR), (0x21, 4), (0x21, 1), (0x21, !(1 << LINE))]
    {
        code.extend_from_slice(&[0xb0, value, 0xe6, port]); // mov al, value; out port, al
    }
    // again: mov ecx, 1 << 20; sti; less: dec ecx; jnz less; out PORT_WAITING, al; jmp again
    code.extend_from_slice(&[0x66, 0xb9, 0, 0, 0x10, 0, 0xfb, 0x66, 0x49, 0x75, 0xfc]);
    code.extend_from_slice(&[0xe6, PORT_WAITING, 0xeb, 0xf1]);
    // mov al, 0x20; out 0x20, al; out PORT_HANDLED, al; iret
    with_handler(&code, &[0xb0, 0x20, 0xe6, 0x20, 0xe6, PORT_HANDLED, 0xcf])
}

fn with_handler(code: &[u8], handler: &[u8]) -> Vec<u8> {
    let mut all = code.to_vec();
    all.resize(usize::from(HANDLER) - CODE.0 as usize, 0xf4);
    all.extend_from_slice(handler);
    all
}

fn expect(reason: u32, wanted: u32) -> Result<(), CliError> {
    if reason == wanted {
        return Ok(());
    }
    Err(did(format!("ended in exit {reason} instead of {wanted}")))
}

fn did(did: String) -> CliError {
    CliError::BenchGuest { did }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waiting_loops_jump_to_their_starts() {
        let code = waiting();
        let again = code.windows(2).position(|bytes| bytes == [0x66, 0xb9]).unwrap();
        let less = again + 7;
        let target = |at: usize| at as i64 + 2 + i64::from(code[at + 1].cast_signed());
        assert_eq!(target(less + 2), less as i64);
        assert_eq!(target(less + 6), again as i64);
        assert_eq!(code[usize::from(HANDLER) - CODE.0 as usize], 0xb0);
    }
}
