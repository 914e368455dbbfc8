//! The devices that the engine emulates: a 16550 console, on vm-superio.
//!
//! Output goes to a bounded buffer; nothing is ever read from the host. Interrupt controllers and
//! the timer are the kernel's; their state is in `state`.

use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial, Trigger};

/// First port of COM1.
pub(crate) const COM1: u16 = 0x3f8;
/// Ports of a 16550.
const PORTS: u16 = 8;

/// An interrupt line that leads nowhere: the console is polled.
#[derive(Debug)]
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A serial console at COM1.
#[derive(Debug)]
pub(crate) struct Console {
    serial: Serial<NoInterrupt, NoEvents, Vec<u8>>,
    bytes_max: usize,
}

/// A console's registers that no 16550 can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a console's receive buffer has more bytes than a 16550's")]
pub struct BadConsole;

/// A console's registers and what it has printed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Divisor latch, low and high; IER, IIR, LCR, LSR, MCR, MSR, SCR. `None` before the first use.
    registers: Option<[u8; 9]>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl ConsoleState {
    /// Checks a state that was read from a file.
    ///
    /// # Errors
    /// No console can have it.
    pub fn check(&self) -> Result<(), BadConsole> {
        serial(self, Vec::new()).map(drop)
    }
}

impl Console {
    /// A console in `state` that keeps `bytes_max` bytes of output.
    ///
    /// # Errors
    /// The state is none that a console can have: a snapshot file said so.
    pub(crate) fn new(state: &ConsoleState, bytes_max: usize) -> Result<Self, BadConsole> {
        Ok(Self { serial: serial(state, state.output.clone())?, bytes_max })
    }

    /// Whether `port` is one of the console's.
    #[must_use]
    pub(crate) fn has(&self, port: u16) -> bool {
        (COM1..COM1 + PORTS).contains(&port)
    }

    /// OUT of a byte; to a port that is not the console's it does nothing.
    pub(crate) fn write(&mut self, port: u16, byte: u8) {
        if self.is_full() || !self.has(port) {
            return;
        }
        // Neither the trigger nor the buffer can fail.
        let _ = self.serial.write((port - COM1) as u8, byte);
    }

    /// IN of a byte; a port that is not the console's reads as all ones.
    pub(crate) fn read(&mut self, port: u16) -> u8 {
        if !self.has(port) {
            return 0xff;
        }
        self.serial.read((port - COM1) as u8)
    }

    /// Adds to the output without the registers.
    pub(crate) fn print(&mut self, bytes: &[u8]) {
        self.serial.writer_mut().extend_from_slice(bytes);
    }

    /// Everything printed.
    #[must_use]
    pub(crate) fn output(&self) -> &[u8] {
        self.serial.writer()
    }

    /// Whether the output has reached its limit.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.output().len() >= self.bytes_max
    }

    /// The state, to be kept in a snapshot.
    #[must_use]
    pub(crate) fn state(&self) -> ConsoleState {
        let s = self.serial.state();
        ConsoleState {
            registers: Some(registers(&s)),
            input: s.in_buffer,
            output: self.output().to_vec(),
        }
    }

    /// Back to `then`, from which this console has only printed on. Allocates only when the
    /// registers changed.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn rewind_to(&mut self, then: &ConsoleState) -> Result<(), BadConsole> {
        self.serial.writer_mut().truncate(then.output.len());
        let now = self.serial.state();
        if then.registers != Some(registers(&now)) || then.input != now.in_buffer {
            let output = std::mem::take(self.serial.writer_mut());
            self.serial = serial(then, output)?;
        }
        Ok(())
    }
}

fn registers(s: &SerialState) -> [u8; 9] {
    [
        s.baud_divisor_low,
        s.baud_divisor_high,
        s.interrupt_enable,
        s.interrupt_identification,
        s.line_control,
        s.line_status,
        s.modem_control,
        s.modem_status,
        s.scratch,
    ]
}

fn serial(
    state: &ConsoleState,
    output: Vec<u8>,
) -> Result<Serial<NoInterrupt, NoEvents, Vec<u8>>, BadConsole> {
    let Some([low, high, ier, iir, lcr, lsr, mcr, msr, scr]) = state.registers else {
        return Ok(Serial::new(NoInterrupt, output));
    };
    let state_of = SerialState {
        baud_divisor_low: low,
        baud_divisor_high: high,
        interrupt_enable: ier,
        interrupt_identification: iir,
        line_control: lcr,
        line_status: lsr,
        modem_control: mcr,
        modem_status: msr,
        scratch: scr,
        in_buffer: state.input.clone(),
    };
    Serial::from_state(&state_of, NoInterrupt, NoEvents, output).map_err(|_| BadConsole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_printed_and_the_registers_come_back() {
        let mut console = Console::new(&ConsoleState::default(), 100).unwrap();
        console.write(COM1, b'a');
        let then = console.state();
        console.write(COM1, b'b');
        console.write(COM1 + 7, 0x55);
        assert_eq!(console.output(), b"ab");
        console.rewind_to(&then).unwrap();
        assert_eq!(console.output(), b"a");
        assert_eq!(console.read(COM1 + 7), 0);
        assert_eq!(console.state(), then);
    }

    #[test]
    fn output_stops_at_its_limit() {
        let mut console = Console::new(&ConsoleState::default(), 3).unwrap();
        (0..10).for_each(|_| console.write(COM1, b'x'));
        assert_eq!(console.output(), b"xxx");
        assert!(console.is_full());
    }

    #[test]
    fn a_receive_buffer_that_no_16550_has_is_refused() {
        let mut state = Console::new(&ConsoleState::default(), 3).unwrap().state();
        state.input = vec![0; 64];
        assert_eq!(state.check(), Ok(()));
        state.input.push(0);
        assert_eq!(state.check(), Err(BadConsole));
        assert!(Console::new(&state, 3).is_err());
    }
}
