//! Bare guests that do their worst (`hostile.S`), without interrupt controllers and with them: how
//! each ends, and that nothing of it is left to the run after it.

use crate::bare::boot;
use crate::hostile::assert_nothing_is_left;
use crate::support::{build_elf, is_slow_host, kvm, limit};
use dejavm_engine::guest::bare::BareSpec;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{Limit, Machine};
use dejavm_engine::outcome::{Fault, Outcome, Signal};
use std::time::Duration;

/// How a deed may end where the host can execute all of it. One that cannot (kvm_pvm's emulator)
/// says which instruction it was.
#[derive(Clone, Copy, Debug)]
enum End {
    /// A triple fault.
    Shutdown,
    Exit(u8),
    Halted,
    TimedOut,
    /// The output's limit, or the time's, whichever comes first.
    TooMuch,
    Any,
}

impl End {
    fn is(self, outcome: &Outcome) -> bool {
        if matches!(outcome, Outcome::Unsupported(_)) {
            return true;
        }
        match self {
            Self::Shutdown => is_shutdown(outcome),
            Self::Exit(wanted) => *outcome == Outcome::Exited { status: wanted },
            Self::Halted => *outcome == Outcome::Halted,
            Self::TimedOut => *outcome == Outcome::TimedOut,
            Self::TooMuch => matches!(outcome, Outcome::TimedOut | Outcome::OutputLimit),
            Self::Any => true,
        }
    }
}

fn is_shutdown(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Crashed(Fault { signal: Signal::SEGV, vector: Some(8), .. }))
}

/// The deed that sets breakpoints.
const BREAKPOINTS: u8 = b'B';

/// Whether the whole host is emulated by QEMU, which a guest's breakpoints bring down: not the guest,
/// nor KVM, but the emulator ends by SIGSEGV.
fn is_emulated() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").unwrap().contains("QEMU TCG CPU")
}

/// Every deed, and how it ends without interrupt controllers.
const DEEDS: [(u8, End); 44] = [
    (b'w', End::TooMuch),
    (b'W', End::TooMuch),
    (b't', End::Shutdown),
    (b'h', End::Halted),
    (b'H', End::Halted),
    (b'c', End::TimedOut),
    (b'i', End::Exit(1)),
    (b'g', End::Exit(1)),
    (b'P', End::Shutdown),
    (b'Q', End::Shutdown),
    (b'm', End::Any),
    (b'M', End::Any),
    (b'n', End::Any),
    (b'N', End::Any),
    (b'p', End::Any),
    (b'q', End::Any),
    (b'a', End::Shutdown),
    (b'b', End::Shutdown),
    (b'f', End::Shutdown),
    (b'F', End::Any),
    (b'r', End::Exit(1)),
    (b'R', End::Any),
    (b'x', End::Exit(1)),
    (b'X', End::Exit(1)),
    (b'd', End::Exit(1)),
    (b'D', End::Any),
    (BREAKPOINTS, End::Any),
    (b'z', End::Shutdown),
    (b'L', End::Any),
    (b'v', End::Any),
    (b's', End::Any),
    (b'S', End::TimedOut),
    (b'E', End::Any),
    (b'k', End::Any),
    (b'u', End::Any),
    (b'A', End::Any),
    (b'I', End::Exit(1)),
    (b'Z', End::Any),
    (b'T', End::TimedOut),
    (b'y', End::Shutdown),
    (b'Y', End::Any),
    (b'V', End::Any),
    (b'C', End::Any),
    (b'o', End::Any),
];

fn guest(system: &System, irqchip: bool) -> Machine {
    let elf = build_elf("hostile", 0x10_0000);
    boot(system, &BareSpec { irqchip, ..BareSpec::elf(elf, 8 << 20) })
}

/// Does every deed twice, each followed by a good run.
fn do_all(machine: &mut Machine, irqchip: bool) {
    // Whatever a deed has done by then will do: hundreds of thousands of instructions, where each
    // is emulated.
    let short = Limit::time(Duration::from_millis(if is_slow_host() { 200 } else { 50 }));
    for (how, end) in DEEDS.into_iter().chain(DEEDS.into_iter().rev()) {
        if how == BREAKPOINTS && is_emulated() {
            continue;
        }
        let letter = char::from(how);
        let is_sure = !irqchip && matches!(end, End::Shutdown | End::Exit(_) | End::Halted);
        let time = if is_sure { limit() } else { short };
        let outcome = machine.run(&[how], time).unwrap_or_else(|e| panic!("{letter}: {e}")).outcome;
        println!("{letter}: {outcome}");
        // With interrupt controllers interrupts come, or do not, when they like.
        assert!(irqchip || end.is(&outcome), "{letter}: {outcome}, not {end:?}");
        machine.rewind().unwrap_or_else(|e| panic!("after {letter}: {e}"));
        assert_nothing_is_left(machine, true, &letter.to_string());
    }
}

#[test]
fn every_deed_of_a_bare_guest_ends_as_it_must_and_leaves_nothing() {
    let Some(system) = kvm() else { return };
    do_all(&mut guest(&system, false), false);
}

#[test]
fn every_deed_of_a_bare_guest_with_interrupt_controllers_leaves_nothing() {
    let Some(system) = kvm() else { return };
    do_all(&mut guest(&system, true), true);
}
