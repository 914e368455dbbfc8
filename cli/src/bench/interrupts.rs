//! Interrupts to a handler at CPL 0: queued by `KVM_INTERRUPT` where the interrupt controllers are
//! this process's, raised on a line or by an eventfd where they are the kernel's.
//!
//! The guest runs in real mode, whose vectors need no tables but 4 bytes each. It counts in CX what
//! it takes, and exits whether or not something came: no interrupt that is lost can hang a
//! measurement.

use super::figures::Layer;
use super::floor_vm::{failed, parsed, raw};
use crate::error::CliError;
use dejavm_engine::address::Gpa;
use dejavm_engine::exit::Exit;
use dejavm_engine::guest::bare::{BareSpec, Mode};
use dejavm_engine::kvm::{EventFd, System, event_fd};
use dejavm_engine::machine::MachineError;
use dejavm_engine::machine::hardware::{Hardware, VmSpec};
use kvm_bindings::{KVM_EXIT_HLT, KVM_EXIT_IO, KVM_EXIT_IRQ_WINDOW_OPEN};
use std::time::{Duration, Instant};

const CODE: Gpa = Gpa(0x8000);
const HANDLER: u16 = 0x8080;
const RAM_BYTES: u64 = 1 << 20;
/// The vector that is queued, and the first of the PIC's.
const VECTOR: u8 = 0x20;
/// The PIC's line, which nothing else is on.
const LINE: u8 = 5;
/// Where the guest says that it waits.
const PORT_WAITING: u8 = 0xf8;
/// Exits after which an interrupt counts as lost.
const WAITS_MAX: u32 = 100_000;

/// `sti; again: hlt; jmp again`.
const HALTING: [u8; 4] = [0xfb, 0xf4, 0xeb, 0xfd];
/// `sti; again: out PORT_WAITING, al; jmp again`.
const WAITING: [u8; 5] = [0xfb, 0xe6, PORT_WAITING, 0xeb, 0xfc];
/// `again: mov ecx, 1 << 16; less: sti; dec ecx; jnz less; out PORT_WAITING, al; jmp again`. A
/// host that emulates this reports no window in a loop without STI.
const SPINNING: [u8; 15] =
    [0x66, 0xb9, 0, 0, 1, 0, 0xfb, 0x66, 0x49, 0x75, 0xfb, 0xe6, PORT_WAITING, 0xeb, 0xf1];
/// `inc cx; iret`.
const COUNT: [u8; 2] = [0x41, 0xcf];
/// As [`COUNT`], after `mov al, PIC_EOI; out PIC_COMMAND, al`.
const END_AND_COUNT: [u8; 6] = [0xb0, PIC_EOI, 0xe6, PIC_COMMAND, 0x41, 0xcf];

/// The first PIC's ports, and the command that ends an interrupt (Intel 8259A).
const PIC_COMMAND: u8 = 0x20;
const PIC_DATA: u8 = 0x21;
const PIC_EOI: u8 = 0x20;
/// ICW1: edge-triggered, cascaded, with an ICW4.
const ICW1: u8 = 0x11;
/// ICW3: the second PIC is on line 2.
const ICW3: u8 = 1 << 2;
/// ICW4: 8086 mode.
const ICW4: u8 = 1;

/// Who raises the interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raise {
    /// Nobody: the guest spins.
    Nothing,
    /// `KVM_INTERRUPT`.
    Queue,
    /// `KVM_IRQ_LINE`, up and down.
    Line,
    /// A write to an eventfd (`KVM_IRQFD`).
    EventFd,
}

/// A VM that takes interrupts.
pub struct InterruptedGuest {
    hw: Hardware,
    raise: Raise,
    event: EventFd,
}

impl InterruptedGuest {
    /// A guest that is ready for its first interrupt.
    pub fn new(system: &System, raise: Raise) -> Result<Self, CliError> {
        let mut made = Self::make(system, raise).map_err(failed)?;
        // The guest says so.
        made.run(Layer::Floor)?;
        Ok(made)
    }

    fn make(system: &System, raise: Raise) -> Result<Self, MachineError> {
        let irqchip = matches!(raise, Raise::Line | Raise::EventFd);
        let code = match raise {
            Raise::Nothing => with_handler(&SPINNING, &COUNT),
            Raise::Queue => with_handler(&HALTING, &COUNT),
            Raise::Line | Raise::EventFd => {
                with_handler(&[&pic_ready()[..], &WAITING].concat(), &END_AND_COUNT)
            }
        };
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
        let start = Instant::now();
        for _ in 0..count {
            let before = self.hw.vcpu.regs().rcx;
            self.raise()?;
            let mut exits = 0;
            // Once, unless it is raised on another thread, which may come later.
            while self.hw.vcpu.regs().rcx == before {
                if exits == WAITS_MAX {
                    return Err(did("took no interrupt".to_owned()));
                }
                self.run(layer)?;
                exits += 1;
            }
        }
        Ok(start.elapsed())
    }

    /// The time of `count` runs that end as soon as the guest can take an interrupt.
    pub fn windows(&mut self, layer: Layer, count: u32) -> Result<Duration, CliError> {
        self.hw.vcpu.fd().request_interrupt_window(true);
        let start = Instant::now();
        let (mut windows, mut waits) = (0, 0);
        while windows < count {
            let open = match layer {
                Layer::Vcpu => parsed(&mut self.hw.vcpu)? == Exit::InterruptWindow,
                _ => raw(&mut self.hw.vcpu)? == KVM_EXIT_IRQ_WINDOW_OPEN,
            };
            windows += u32::from(open);
            // The end of its loop comes once in some thousand windows.
            waits += u32::from(!open);
            if waits > count {
                return Err(did("could take no interrupt".to_owned()));
            }
        }
        let time = start.elapsed();
        self.hw.vcpu.fd().request_interrupt_window(false);
        Ok(time)
    }

    fn raise(&mut self) -> Result<(), CliError> {
        let line = u32::from(LINE);
        let raised = match self.raise {
            Raise::Nothing => Ok(()),
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

    /// Runs to the guest's next HLT or OUT.
    fn run(&mut self, layer: Layer) -> Result<(), CliError> {
        match layer {
            Layer::Vcpu => match parsed(&mut self.hw.vcpu)? {
                Exit::Halt | Exit::PortOut { .. } => Ok(()),
                other => Err(did(format!("ended in {other:x?}"))),
            },
            _ => match raw(&mut self.hw.vcpu)? {
                KVM_EXIT_HLT | KVM_EXIT_IO => Ok(()),
                other => Err(did(format!("ended in exit {other}"))),
            },
        }
    }
}

/// Makes the PIC ready: ICW1 to ICW4, of which ICW2 is its first vector, and all lines masked but
/// one.
fn pic_ready() -> Vec<u8> {
    let mask = !(1 << LINE);
    let words = [
        (PIC_COMMAND, ICW1),
        (PIC_DATA, VECTOR),
        (PIC_DATA, ICW3),
        (PIC_DATA, ICW4),
        (PIC_DATA, mask),
    ];
    // mov al, value; out port, al
    words.into_iter().flat_map(|(port, value)| [0xb0, value, 0xe6, port]).collect()
}

fn with_handler(code: &[u8], handler: &[u8]) -> Vec<u8> {
    let mut all = code.to_vec();
    all.resize(usize::from(HANDLER) - CODE.0 as usize, 0xf4);
    all.extend_from_slice(handler);
    all
}

fn did(did: String) -> CliError {
    CliError::BenchGuest { did }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loops_jump_to_their_starts() {
        let target = |code: &[u8], at: usize| at as i64 + 2 + i64::from(code[at + 1].cast_signed());
        assert_eq!(target(&HALTING, 2), 1);
        assert_eq!(target(&WAITING, 3), 1);
        assert_eq!((target(&SPINNING, 9), target(&SPINNING, 13)), (6, 0));
        let code = with_handler(&WAITING, &COUNT);
        assert_eq!(code[usize::from(HANDLER) - CODE.0 as usize..], COUNT);
    }
}
