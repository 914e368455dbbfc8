//! The agent's exits to the host, and the labels that its parts jump to. Never assembles a part.

use super::super::layout::CODE;
use super::asm::{Asm, Emit};
use crate::guest::process::trap::{ENGINE_BASE, GATE_AT};
use iced_x86::code_asm::{AsmRegister64, CodeLabel, r11};

/// Why the agent exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentExit {
    /// A system call that the shim does not serve; all registers are the program's, RCX and R11
    /// as SYSCALL leaves them.
    SystemCall,
    /// The last run of the batch is over.
    Done,
    /// A run is over in which the host has changed something.
    Touched,
    /// A segment register is not what it was.
    Segments,
    /// Everything is put back, and there is no next input.
    Idle,
    /// The agent's own memory is not what the agent left there.
    Scribbled,
    /// A run is over whose marks show something new.
    News,
}

pub(super) const EXITS: [AgentExit; 7] = [
    AgentExit::SystemCall,
    AgentExit::Done,
    AgentExit::Touched,
    AgentExit::Segments,
    AgentExit::Idle,
    AgentExit::Scribbled,
    AgentExit::News,
];

/// Bytes from one exit's code to the next.
pub(super) const EXIT_STRIDE: u64 = 16;
/// Where the code behind the exits starts.
pub(super) const BODY: u64 = EXIT_STRIDE * 8;

/// Which exit's code `rip` is in or just behind; by range, because hosts differ in whether RIP
/// has moved on when a store exits.
pub(in super::super) fn exit_at(rip: u64) -> Option<AgentExit> {
    let offset = rip.checked_sub(CODE.va(0))?;
    EXITS.get(usize::try_from(offset / EXIT_STRIDE).ok()?).copied()
}

pub(super) fn exit_address(exit: AgentExit) -> u64 {
    let index = EXITS.iter().position(|other| *other == exit).unwrap_or(EXITS.len());
    CODE.va(index as u64 * EXIT_STRIDE)
}

/// `mov [gate], al; hlt`: the cheapest exit from CPL 3.
pub(super) fn exit_code() -> [u8; 10] {
    let mut code = [0xf4; 10];
    code[0] = 0xa2;
    code[1..9].copy_from_slice(&GATE_AT.to_le_bytes());
    code
}

pub(super) struct Labels {
    pub(super) batch: CodeLabel,
    pub(super) reset: CodeLabel,
    pub(super) shim: CodeLabel,
    /// Back to the program, with RAX.
    pub(super) back: CodeLabel,
    /// To where answers are repeated, with all registers but RCX and R11 as the program had them.
    pub(super) forward: CodeLabel,
    /// To the host, as if the shim had not been there.
    pub(super) to_host: CodeLabel,
    pub(super) run_end: CodeLabel,
}

impl Labels {
    pub(super) fn new(asm: &mut Asm) -> Self {
        let mut label = || asm.code.create_label();
        Self {
            batch: label(),
            reset: label(),
            shim: label(),
            back: label(),
            forward: label(),
            to_host: label(),
            run_end: label(),
        }
    }
}

/// To the host when the address in `register` is one of the engine's, where a system call
/// finds nothing.
pub(super) fn not_the_engines(asm: &mut Asm, labels: &Labels, register: AsmRegister64) -> Emit {
    asm.code.mov(r11, register)?;
    asm.code.shr(r11, 39)?;
    asm.code.cmp(r11, (ENGINE_BASE >> 39) as i32)?;
    asm.code.je(labels.forward)
}
