//! Bare guests: the lecture's VM, the port ABI, and guests that do their worst.

use crate::support::{build_elf, build_flat, kvm, limit, rounds};
use dejavm_engine::address::Gpa;
use dejavm_engine::guest::bare::{BareSpec, ImageError, Mode};
use dejavm_engine::kvm::System;
use dejavm_engine::machine::bare::{BareState, Buffer};
use dejavm_engine::machine::{
    Boot, Ended, GuestState, Limit, Machine, MachineError, MachineSnapshot, ProcessPoint,
    RunReport, Started,
};
use dejavm_engine::outcome::{Fault, Outcome, Signal, Unsupported};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::time::{Duration, Instant};

const RAM: u64 = 8 << 20;
const SHORT: Duration = Duration::from_millis(300);

fn harness(system: &System) -> Machine {
    let spec = BareSpec::elf(build_elf("harness", 0x10_0000), RAM);
    boot(system, &spec)
}

pub fn boot(system: &System, spec: &BareSpec) -> Machine {
    match Boot::bare(system, spec).unwrap().start(ProcessPoint::Input, limit()).unwrap() {
        Started::AtSnapshot(machine) => *machine,
        Started::Ended(ended) => panic!("ended before its snapshot: {ended:?}"),
    }
}

fn run_to_end(system: &System, spec: &BareSpec, limit: Limit) -> Ended {
    match Boot::bare(system, spec).unwrap().start(ProcessPoint::Input, limit).unwrap() {
        Started::Ended(ended) => *ended,
        Started::AtSnapshot(_) => panic!("the guest asked for a snapshot"),
    }
}

/// Runs `input`, rewinds, and proves that nothing of the run is left.
fn run_clean(machine: &mut Machine, input: &[u8]) -> RunReport {
    let report = machine.run(input, Limit::time(SHORT)).unwrap();
    machine.rewind().unwrap();
    assert_eq!(machine.verify().unwrap(), [], "after {:?}", String::from_utf8_lossy(input));
    report
}

fn ran_once() -> Outcome {
    Outcome::Exited { status: 1 }
}

#[test]
fn the_lectures_guest_prints_and_halts() {
    let Some(system) = kvm() else { return };
    let spec = BareSpec::lecture(build_flat("lecture", 0x10_0f00));
    let start = Instant::now();
    let ended = run_to_end(&system, &spec, limit());
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "hello from protected mode\n");
    assert_eq!(ended.report.outcome, Outcome::Halted);
    assert!(start.elapsed() < Duration::from_secs(5), "HLT with interrupts off is seen at once");
}

#[test]
fn the_lectures_guest_runs_in_real_mode_too() {
    let Some(system) = kvm() else { return };
    // 0xffff0 + 0x0f10 is the same 0x100f00.
    let spec = BareSpec {
        mode: Mode::Real,
        real_mode_segment: 0xffff,
        entry: Some(0x0f10),
        ..BareSpec::lecture(build_flat("real", 0x0f10))
    };
    let ended = run_to_end(&system, &spec, limit());
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "hello from real mode\n");
    assert_eq!(ended.report.outcome, Outcome::Halted);
}

#[test]
fn a_guest_gets_its_input_and_every_run_starts_from_the_snapshot() {
    let Some(system) = kvm() else { return };
    let mut machine = harness(&system);
    assert_eq!(machine.stdout(), b"ready\n");
    for input in [&b"d"[..], b"", b"d and more", &[b'd'; 5000]] {
        let expected = u8::from(!input.is_empty());
        assert_eq!(run_clean(&mut machine, input).outcome, Outcome::Exited { status: expected });
    }
    let crash = run_clean(&mut machine, b"c\x07").outcome;
    assert!(
        matches!(crash, Outcome::Crashed(Fault { signal: Signal::ABRT, vector: Some(7), .. })),
        "{crash}"
    );
}

#[test]
fn nothing_is_left_after_ten_thousand_rewinds() {
    let Some(system) = kvm() else { return };
    let mut machine = harness(&system);
    let inputs: [&[u8]; 4] = [b"d", b"s", b"c", b"m"];
    for round in 0..rounds(10_000) as usize {
        let report = machine.run(inputs[round % inputs.len()], limit()).unwrap();
        if round % inputs.len() != 2 {
            assert_eq!(report.outcome, ran_once(), "round {round}");
        }
        machine.rewind().unwrap();
    }
    assert_eq!(machine.verify().unwrap(), []);
    assert_eq!(machine.stdout(), b"ready\n");
}

#[test]
fn everything_that_code_at_cpl_0_changes_is_put_back() {
    let Some(system) = kvm() else { return };
    let mut machine = harness(&system);
    for _ in 0..3 {
        assert_eq!(run_clean(&mut machine, b"s").outcome, ran_once());
        assert_eq!(run_clean(&mut machine, b"d").outcome, ran_once());
    }
}

#[test]
fn a_changed_page_table_is_not_remembered() {
    let Some(system) = kvm() else { return };
    let mut machine = harness(&system);
    for _ in 0..5 {
        assert_eq!(run_clean(&mut machine, b"r").outcome, Outcome::Exited { status: 3 });
    }
    assert!(matches!(run_clean(&mut machine, b"T").outcome, Outcome::Crashed(_)));
    assert_eq!(run_clean(&mut machine, b"d").outcome, ran_once());
}

#[test]
fn every_bad_end_is_an_outcome_and_the_next_run_is_whole() {
    let Some(system) = kvm() else { return };
    let mut machine = harness(&system);
    let triple_fault = |outcome: &Outcome| {
        matches!(outcome, Outcome::Crashed(Fault { signal: Signal::SEGV, vector: Some(8), .. }))
    };
    assert_eq!(run_clean(&mut machine, b"h").outcome, Outcome::Halted);
    assert_eq!(run_clean(&mut machine, b"l").outcome, Outcome::TimedOut);
    assert_eq!(run_clean(&mut machine, b"p").outcome, Outcome::TimedOut);
    assert!(triple_fault(&run_clean(&mut machine, b"t").outcome));
    assert!(triple_fault(&run_clean(&mut machine, b"R").outcome));
    assert_eq!(run_clean(&mut machine, b"P").outcome, Outcome::OutputLimit);
    assert_eq!(run_clean(&mut machine, b"m").outcome, ran_once());
    assert_eq!(run_clean(&mut machine, b"o").outcome, ran_once());
    assert_eq!(run_clean(&mut machine, b"d").outcome, ran_once());
}

#[test]
fn a_triple_fault_that_is_cut_short_does_not_end_the_next_run() {
    /// `KVM_CAP_X86_TRIPLE_FAULT_EVENT`, Linux 6.0.
    const TRIPLE_FAULT_EVENT: u32 = 218;
    let Some(system) = kvm() else { return };
    if system.check_extension(TRIPLE_FAULT_EVENT) == 0 {
        println!("not here: this KVM does not tell of a pending triple fault");
        return;
    }
    let mut machine = harness(&system);
    for round in 0..rounds(20_000) {
        // The watchdog comes at once, wherever the guest is by then.
        machine.run(b"t", Limit::time(Duration::from_micros(u64::from(round % 40)))).unwrap();
        machine.rewind().unwrap();
        assert_eq!(machine.run(b"d", limit()).unwrap().outcome, ran_once(), "round {round}");
        machine.rewind().unwrap();
    }
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn an_instruction_that_the_host_cannot_emulate_is_named() {
    let Some(system) = kvm() else { return };
    let mut machine = harness(&system);
    for (input, first_byte) in [(b"3", 0xcc), (b"x", 0xf3), (b"v", 0x0f)] {
        // Genuine hosts execute them: INT3 without an IDT is a triple fault there.
        match run_clean(&mut machine, input).outcome {
            Outcome::Unsupported(Unsupported::Instruction { bytes, rip, .. }) => {
                assert_eq!(bytes.first(), Some(&first_byte), "{bytes:x?} at {rip:#x}");
                assert_ne!(rip, 0);
            }
            Outcome::Exited { .. } | Outcome::Crashed(_) | Outcome::TimedOut => {}
            other => panic!("{other}"),
        }
        assert_eq!(run_clean(&mut machine, b"d").outcome, ran_once());
    }
}

#[test]
fn survives_guests_that_jump_to_noise() {
    let Some(system) = kvm() else { return };
    let mut machine = harness(&system);
    let mut noise = StdRng::seed_from_u64(1);
    for _ in 0..150 {
        let mut input = vec![b'j'; 193];
        noise.fill(&mut input[1..]);
        machine.run(&input, Limit::time(Duration::from_millis(20))).unwrap();
        machine.rewind().unwrap();
        assert_eq!(machine.verify().unwrap(), [], "after {input:x?}");
    }
    assert_eq!(run_clean(&mut machine, b"d").outcome, ran_once());
}

#[test]
fn an_out_right_after_the_snapshot_is_not_skipped() {
    let Some(system) = kvm() else { return };
    let code = build_flat("snapshot_done", 0x8000);
    let mut machine = boot(&system, &BareSpec::flat(Mode::Long, code, Gpa(0x8000), 1 << 20));
    for length in 0..8_u8 {
        // AL is the input's length after the snapshot.
        let report = run_clean(&mut machine, &vec![0; usize::from(length)]);
        assert_eq!(report.outcome, Outcome::Exited { status: length });
    }
}

#[test]
fn the_interrupt_controllers_are_put_back() {
    let Some(system) = kvm() else { return };
    let elf = build_elf("harness", 0x10_0000);
    let mut machine = boot(&system, &BareSpec { irqchip: true, ..BareSpec::elf(elf, RAM) });
    for _ in 0..20 {
        assert_eq!(run_clean(&mut machine, b"i").outcome, ran_once());
    }
    for input in [b"o", b"s", b"t", b"h", b"d"] {
        run_clean(&mut machine, input);
    }
    assert_eq!(run_clean(&mut machine, b"h").outcome, Outcome::Halted);
}

#[test]
fn a_snapshot_file_brings_the_guest_back() {
    let Some(system) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare.snap");
    harness(&system).snapshot().save(&path).unwrap();
    let snapshot = Arc::new(MachineSnapshot::open(&path).unwrap());
    let mut machine = Machine::load(&system, snapshot).unwrap();
    assert_eq!(machine.verify().unwrap(), []);
    assert_eq!(run_clean(&mut machine, b"d").outcome, ran_once());
    assert_eq!(run_clean(&mut machine, b"s").outcome, ran_once());
    assert_eq!(machine.stdout(), b"ready\n");
}

#[test]
fn a_host_without_one_of_the_msrs_is_refused_by_its_number() {
    let Some(system) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare.snap");
    harness(&system).snapshot().save(&path).unwrap();
    let mut snapshot = MachineSnapshot::open(&path).unwrap();
    // Code at CPL 0 could read it; no KVM has it.
    snapshot.state.msrs.push((0x4000_ffff, 0));
    let error = Machine::load(&system, Arc::new(snapshot)).unwrap_err().to_string();
    assert!(error.contains("0x4000ffff"), "{error}");
}

#[test]
fn a_snapshot_file_that_lies_about_the_guest_ends_in_an_error_or_an_outcome() {
    let Some(system) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare.snap");
    harness(&system).snapshot().save(&path).unwrap();
    let lies: [fn(&mut BareState); 9] = [
        |guest| guest.buffer = Some(Buffer { at: Gpa(u64::MAX), bytes: u64::MAX }),
        |guest| guest.buffer = Some(Buffer { at: Gpa(RAM - 1), bytes: u64::MAX }),
        |guest| guest.buffer = None,
        |guest| guest.spec.irqchip = true,
        |guest| guest.spec.tss_address = Some(u32::MAX),
        |guest| guest.spec.tss_address = Some(0x10_0000),
        |guest| guest.spec.identity_map_address = Some(u64::MAX),
        |guest| guest.spec.ram_bytes = u64::MAX,
        |guest| guest.spec.ram_start = Gpa(u64::MAX),
    ];
    for (number, lie) in lies.iter().enumerate() {
        let mut snapshot = MachineSnapshot::open(&path).unwrap();
        let GuestState::Bare(guest) = &mut snapshot.guest else { panic!("a bare guest") };
        lie(guest);
        match Machine::load(&system, Arc::new(snapshot)) {
            Ok(mut machine) => {
                let outcome = machine.run(b"dd", Limit::time(SHORT)).unwrap().outcome;
                machine.rewind().unwrap();
                println!("lie {number}: {outcome}");
            }
            Err(error) => println!("lie {number}: {error}"),
        }
    }
}

#[test]
fn a_buffer_that_is_no_ram_is_the_guests_mistake() {
    let Some(system) = kvm() else { return };
    // mov edi, 0xf0000000; mov ecx, 16; out 0xd0, al; hlt
    let code = [0xbf, 0, 0, 0, 0xf0, 0xb9, 16, 0, 0, 0, 0xe6, 0xd0, 0xf4];
    let spec = BareSpec::flat(Mode::Protected, code.to_vec(), Gpa(0x1000), 1 << 20);
    let mut machine = boot(&system, &spec);
    let outcome = run_clean(&mut machine, b"x").outcome;
    assert!(matches!(outcome, Outcome::Crashed(Fault { signal: Signal::BUS, .. })), "{outcome}");
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let Some(system) = kvm() else { return };
    let error = |spec: &BareSpec| match Boot::bare(&system, spec) {
        Err(MachineError::BareImage(error)) => error,
        other => panic!("{other:?}"),
    };
    let flat = |mode, bytes: usize, at| BareSpec::flat(mode, vec![0xf4; bytes], Gpa(at), 1 << 20);

    let too_large = flat(Mode::Protected, (1 << 20) + 1, 0);
    assert!(matches!(error(&too_large), ImageError::OutOfRam(_)));
    let outside = flat(Mode::Protected, 1, u64::MAX);
    assert!(matches!(error(&outside), ImageError::OutOfRam(_)));
    let over_tables = flat(Mode::Long, 1, 0x1000);
    assert!(matches!(error(&over_tables), ImageError::NoRoomForTables));
    let no_tables = BareSpec { ram_bytes: 4096, ..flat(Mode::Long, 0, 0) };
    assert!(matches!(error(&no_tables), ImageError::NoRoomForTables));
    for entry in [1 << 20, 1 << 32, u64::MAX] {
        for mode in [Mode::Real, Mode::Protected, Mode::Long] {
            let spec = BareSpec { entry: Some(entry), ..flat(mode, 1, 0x8000) };
            assert!(matches!(error(&spec), ImageError::EntryOutside { .. }), "{mode:?} {entry:#x}");
        }
    }
    let no_elf = BareSpec::elf(b"#!/bin/sh".to_vec(), 1 << 20);
    assert!(matches!(error(&no_elf), ImageError::NotElf(_)));
}

#[test]
fn hostile_elf_files_are_refused_or_run_but_never_more() {
    let Some(system) = kvm() else { return };
    let elf = build_elf("snapshot_done", 0x8000);
    assert_eq!(
        run_clean(&mut boot(&system, &BareSpec::elf(elf.clone(), RAM)), b"abc").outcome,
        Outcome::Exited { status: 3 }
    );
    // Every byte of both headers, replaced by its extremes.
    for at in 4..0x40 + 2 * 0x38 {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = elf.clone();
            bytes[at] = value;
            if let Ok(boot) = Boot::bare(&system, &BareSpec::elf(bytes, RAM)) {
                boot.start(ProcessPoint::Input, Limit::time(Duration::from_millis(20))).unwrap();
            }
        }
    }
}

#[test]
fn the_example_in_the_documentation_runs_as_it_says() {
    let Some(system) = kvm() else { return };
    let document = include_str!("../../docs/guests-bare.md");
    assert!(document.contains(include_str!("../guests/bare/example.S")));
    let mut machine = boot(&system, &BareSpec::elf(build_elf("example", 0x10_0000), RAM));
    assert_eq!(machine.stdout(), b"ready\n");
    let inputs = [&b""[..], b"\x05abc", b"\x03abc", &[200; 201]];
    let outcomes = inputs.map(|input| run_clean(&mut machine, input).outcome.to_string());
    println!("{}", outcomes.join("\n"));
    assert!(document.contains(&outcomes[..3].join("\n")));
    assert!(outcomes[3].starts_with("crashed: SIGSEGV"), "{}", outcomes[3]);
}
