//! The exits of a program, without their borrow of the vCPU. Never answers one.

use crate::exit::Exit;
use crate::guest::process::trap;
use crate::machine::error::MachineError;
use crate::machine::hardware::Hardware;
use crate::outcome::Unsupported;

/// An exit, without its borrow of the vCPU.
pub(super) enum ProgramExit {
    /// A store to the gate's page, from here.
    Gate(u64),
    Trap(u8),
    Interrupted,
    Other(Unsupported),
}

/// Runs to the next exit that means something, and says where it was.
pub(super) fn next_exit(hw: &mut Hardware) -> Result<ProgramExit, MachineError> {
    let exit = loop {
        if let Some(exit) = run_once(hw)? {
            break exit;
        }
        // Neither the program's doing nor its end: nothing has happened to its registers.
        hw.memory.drain_dirty_ring()?;
    };
    let rip = hw.vcpu.regs().rip;
    Ok(match exit {
        ProgramExit::Gate(_) => ProgramExit::Gate(rip),
        ProgramExit::Trap(_) => match trap::vector_of(rip) {
            Some(vector) => ProgramExit::Trap(vector),
            None => ProgramExit::Other(Unsupported::Exit {
                reason: kvm_bindings::KVM_EXIT_IO,
                detail: [u64::from(trap::PORT_TRAP), rip],
            }),
        },
        ProgramExit::Other(what) => ProgramExit::Other(what.at(rip, 64)),
        ProgramExit::Interrupted => ProgramExit::Interrupted,
    })
}

/// Runs to the next exit, whose place is not filled in yet; `None` is a full dirty ring.
fn run_once(hw: &mut Hardware) -> Result<Option<ProgramExit>, MachineError> {
    Ok(Some(match hw.vcpu.run()? {
        Exit::MmioWrite { at, .. } if at.page_floor() == trap::GATE => ProgramExit::Gate(0),
        Exit::PortOut { port: trap::PORT_TRAP, .. } => ProgramExit::Trap(0),
        Exit::Interrupted => ProgramExit::Interrupted,
        Exit::DirtyRingFull => return Ok(None),
        other => ProgramExit::Other(other.unsupported(0)),
    }))
}

/// A store to the gate's page that is not the gate's.
pub(super) const fn poked(rip: u64) -> Unsupported {
    let reason = kvm_bindings::KVM_EXIT_MMIO;
    Unsupported::Exit { reason, detail: [trap::GATE.0, rip] }
}
