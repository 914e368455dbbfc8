//! Programs that do their worst (`hostile.c`), alone and in batches: how each ends, and that nothing
//! of it is left to the run after it.

use crate::batch::batch_of;
use crate::hostile::{GOOD, assert_nothing_is_left};
use crate::support::{build_c, kvm, limit, rounds, spec};
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{
    BatchOptions, BatchReport, Boot, Limit, Machine, ProcessPoint, Started,
};
use dejavm_engine::outcome::{Outcome, Signal, Unsupported};
use std::time::Duration;

/// How a deed may end. Hosts differ in what they do with an instruction that none of them executes.
#[derive(Clone, Copy, Debug)]
enum End {
    /// One of these signals.
    Signal(&'static [Signal]),
    /// SIGSEGV or SIGILL, or the instruction that the host tried to emulate and could not.
    Refused,
    Exit(u8),
    TimedOut,
    OutOfMemory,
    OutputLimit,
    /// One of these signals, or as if nothing were the matter.
    SignalOrExit(&'static [Signal]),
    /// Whatever it is, the run has ended.
    Any,
}

impl End {
    fn is(self, outcome: &Outcome) -> bool {
        let is_signal = |signals: &[Signal]| matches!(outcome, Outcome::Crashed(fault) if signals.contains(&fault.signal));
        match self {
            Self::Signal(signals) => is_signal(signals),
            Self::Refused => {
                is_signal(&[Signal::SEGV, Signal::ILL])
                    || matches!(outcome, Outcome::Unsupported(Unsupported::Instruction { .. }))
            }
            Self::Exit(wanted) => *outcome == Outcome::Exited { status: wanted },
            Self::TimedOut => *outcome == Outcome::TimedOut,
            Self::OutOfMemory => *outcome == Outcome::OutOfMemory,
            Self::OutputLimit => *outcome == Outcome::OutputLimit,
            Self::SignalOrExit(signals) => {
                is_signal(signals) || matches!(outcome, Outcome::Exited { .. })
            }
            Self::Any => true,
        }
    }
}

const SEGV: End = End::Signal(&[Signal::SEGV]);
const ILL: End = End::Signal(&[Signal::ILL]);
/// What is the kernel's: faults by its privilege, or by not being there at all.
const REFUSED: End = End::Refused;
/// Likewise, or not looked at.
const LAX: End = End::SignalOrExit(&[Signal::SEGV, Signal::ILL]);
/// A stack that is none.
const STACK: End = End::Signal(&[Signal::SEGV, Signal::BUS]);

const ENGINE: u64 = 0x7f00_0000_0000;
/// The engine's page that is no memory.
const GATE: u64 = ENGINE + 0x1000_0000;
/// The agent's pages, which are there once a batch has run.
const AGENT: u64 = ENGINE + 0x4000_0000;
/// Where the code lies that a system call enters.
const SYSCALL_ENTRY: u64 = ENGINE + 0x5000;

/// Every deed with its argument.
fn deeds() -> Vec<(char, u64, End)> {
    let mut deeds = vec![
        ('w', 1, End::OutputLimit),
        ('w', 2, End::OutputLimit),
        ('l', 0, End::TimedOut),
        ('t', 0, End::Signal(&[Signal::TRAP])),
        ('a', 0, End::SignalOrExit(&[Signal::BUS])),
        ('n', 0, SEGV),
        ('o', 0, End::Exit(0)),
        ('S', 0, End::Signal(&[Signal::TRAP])),
        ('s', 0, REFUSED),
        ('m', 0, End::Exit(42)),
        // kvm_pvm emulates what has faulted, and does not know this one; QEMU's TCG looks neither at
        // this nor, below, at LOCK.
        ('c', 0xffff_ffff, LAX),
        ('c', 0x1_0000, LAX),
        ('b', 1 << 63, REFUSED),
        ('b', 1 << 47, REFUSED),
        ('v', 0, End::Any),
        ('v', 1, End::Any),
        ('d', 1 << 50, SEGV),
    ];
    for vector in (0..=255_u64).filter(|n| *n < 32 || *n == 128 || n % every(256) == 0) {
        let end = match vector {
            3 => End::Signal(&[Signal::TRAP]),
            // kvm_pvm answers itself, and lets `int 26` pass.
            26 => End::SignalOrExit(&[Signal::SEGV, Signal::ILL]),
            _ => REFUSED,
        };
        deeds.push(('i', vector, end));
    }
    // Null, the kernel's, the TSS, none; the program's own and those of a host that runs it as its
    // own, where it arrives at UD2.
    for selector in [0, 3, 8, 0xb, 0x10, 0x13, 0x28, 0x2b, 0x30, 0x38, 0x40, 0xfff8, 0xffff] {
        deeds.push(('f', selector, REFUSED));
        deeds.push(('r', selector, REFUSED));
        deeds.push(('R', selector, End::Signal(&[Signal::SEGV, Signal::ILL, Signal::BUS])));
        deeds.push(('e', selector, End::SignalOrExit(&[Signal::SEGV, Signal::BUS])));
    }
    for selector in [0x1b, 0x23, 0x33] {
        deeds.push(('f', selector, REFUSED));
        deeds.push(('r', selector, REFUSED));
    }
    deeds.extend((0..8).map(|which| ('k', which, LAX)));
    deeds.extend((0..38).map(|which| ('y', which, REFUSED)));
    // XSTATE_BV, XCOMP_BV, what is reserved.
    deeds.extend((0..8).map(|word| ('x', word, End::SignalOrExit(&[Signal::SEGV]))));
    deeds.extend((0..16).map(|how| ('V', how, End::Any)));
    // Into the descriptor tables, the stubs, the exception stack, the trampoline's data, the agent.
    for page in [0x1000, 0x2000, 0x3000, 0x3100, 0x4000, 0x6000, 0x7000, 0x8000, 0x1_0000] {
        deeds.push(('j', ENGINE + page, SEGV));
        deeds.push(('g', ENGINE + page, SEGV));
    }
    deeds.push(('g', SYSCALL_ENTRY, SEGV));
    for offset in [1, 3, 8, 9, 0x41, 0x48, 0x60, 0x83, 0x100, 0xfff] {
        deeds.push(('j', SYSCALL_ENTRY + offset, End::Any));
    }
    // At their start: a system call that no SYSCALL made, a run that begins again, a function's end.
    deeds.push(('j', SYSCALL_ENTRY, End::Exit(9)));
    deeds.push(('j', SYSCALL_ENTRY + 0x40, End::Any));
    deeds.push(('j', SYSCALL_ENTRY + 0x80, End::Exit(0)));
    for page in (0..0x20).step_by(3).map(|page| page * 0x1000) {
        for how in ['j', 'g', 'G', 'p', 'P'] {
            deeds.push((how, AGENT + page, End::Any));
        }
    }
    for address in
        [0, 8, 1 << 47, 1 << 63, u64::MAX, u64::MAX << 47, ENGINE + 0x4800, ENGINE + 0x5000, GATE]
    {
        deeds.push(('p', address, ILL));
        // Half of the address space belongs to no program, half of that to nobody.
        let end = if address == GATE { End::Any } else { STACK };
        deeds.push(('P', address, end));
        deeds.push(('C', address, ILL));
    }
    for address in [1 << 47, 1 << 63, u64::MAX, 0xffff_8000_0000_0000, 0xffff_ffff_ff60_0000] {
        deeds.push(('j', address, SEGV));
        deeds.push(('g', address, SEGV));
        deeds.push(('G', address, SEGV));
    }
    // The last: every rewind for some time after them copies all of those pages.
    deeds.push(('d', 20_000, End::Exit(5)));
    deeds.push(('d', 60_000, End::OutOfMemory));
    deeds.push(('d', 1 << 20, End::OutOfMemory));
    deeds
}

/// The distance of those things, of `count`, that a slow host has the time for: 1 on others.
fn every(count: u32) -> u64 {
    u64::from(count / rounds(count))
}

fn input(how: char, argument: u64) -> Vec<u8> {
    [&[how as u8][..], &argument.to_le_bytes()].concat()
}

fn guest(system: &System, ram_bytes: u64) -> Machine {
    let spec = spec(&build_c("hostile", &[]), &[]);
    let boot = Boot::process(system, &spec, ram_bytes, b"").unwrap();
    match boot.start(ProcessPoint::Input, limit()).unwrap() {
        Started::AtSnapshot(machine) => *machine,
        Started::Ended(ended) => panic!("it reads its input: {ended:?}"),
    }
}

/// The time that a deed gets: whatever it has done by then will do, if its end is not another.
fn time_of(end: End) -> Duration {
    match end {
        End::TimedOut | End::Any => Duration::from_millis(250),
        _ => limit().time.unwrap(),
    }
}

#[test]
fn every_deed_of_a_program_ends_as_it_must_and_leaves_nothing() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system, 96 << 20);
    let mut wrong = Vec::new();
    for (number, (how, argument, end)) in (0..).zip(deeds()) {
        let what = format!("{how} {argument:#x}");
        let time = Limit::time(time_of(end));
        let outcome = machine.run(&input(how, argument), time).unwrap().outcome;
        if !end.is(&outcome) {
            wrong.push(format!("{what}: {outcome}, not {end:?}"));
        }
        machine.rewind().unwrap();
        assert_nothing_is_left(&mut machine, number % every(500) == 0, &what);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_deed_of_a_program_in_a_batch_leaves_nothing_to_the_runs_around_it() {
    let Some(system) = kvm() else { return };
    let mut machine = guest(&system, 96 << 20);
    let (mut report, mut wrong) = (BatchReport::default(), Vec::new());
    for (number, (how, argument, end)) in (0..).zip(deeds()) {
        let what = format!("{how} {argument:#x}");
        let deed = input(how, argument);
        let inputs = [b"+", &deed[..], b"+", &deed[..], b"+"];
        let options = BatchOptions { limit: Some(time_of(end)), ..BatchOptions::default() };
        machine.run_batch(&batch_of(inputs), options, &mut report).unwrap();
        for (index, told) in report.runs.iter().enumerate() {
            let Some(told) = told else { continue };
            let is_right = if index % 2 == 0 { *told == GOOD } else { end.is(told) };
            // A run that is kicked late may have had no time.
            let is_late = *told == Outcome::TimedOut;
            if !is_right && !is_late {
                wrong.push(format!("{what}: {:?}, not {end:?}", report.runs));
            }
        }
        assert_nothing_is_left(&mut machine, number % every(500) == 0, &what);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_program_that_fills_the_dirty_ring_goes_on_and_leaves_nothing() {
    let Some(system) = kvm() else { return };
    // More pages than the largest ring has entries.
    let mut machine = guest(&system, 400 << 20);
    for round in 0..2 {
        let full = machine.run(&input('d', 80_000), limit()).unwrap().outcome;
        assert_eq!(full, Outcome::Exited { status: 5 }, "round {round}");
        machine.rewind().unwrap();
        assert_nothing_is_left(&mut machine, true, &format!("round {round}"));
    }
}
