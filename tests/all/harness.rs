//! A run that is one call of a fuzz target, by `--harness`.

use crate::batch::{batch_of, run as run_batch};
use crate::invoke::{dejavm, fuzz, only_file, path, run, seeds, text};
use crate::support::{RAM_BYTES, build_c, kvm, limit, spec};
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{Boot, Machine, ProcessPoint, Started};
use dejavm_engine::outcome::{Outcome, Signal};
use dejavm_engine::symbols::{Image, Symbolizer};
use std::path::Path;
use std::process::Output;

const FINE: Outcome = Outcome::Exited { status: 0 };

fn machine(system: &System) -> Machine {
    let spec = spec(&build_c("one_input", &[]), &[]);
    let boot = Boot::process(system, &spec, RAM_BYTES, b"").unwrap();
    let images = boot.process_images().into_iter().map(|image| Image {
        name: image.path.to_string_lossy().into_owned(),
        bias: image.base,
        bytes: image.bytes,
    });
    let symbolizer = Symbolizer::new(images.collect());
    let at = symbolizer.address_of("LLVMFuzzerTestOneInput").unwrap();
    let Started::AtSnapshot(machine) = boot.start(ProcessPoint::Harness(at), limit()).unwrap()
    else {
        panic!("it calls the function");
    };
    *machine
}

fn run_one(machine: &mut Machine, input: &[u8]) -> (Outcome, Vec<u8>) {
    let outcome = machine.run(input, limit()).unwrap().outcome;
    let out = machine.stdout().to_vec();
    machine.rewind().unwrap();
    assert_eq!(machine.verify().unwrap(), []);
    (outcome, out)
}

#[test]
fn a_run_is_one_call_with_exactly_the_input() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system);
    assert_eq!(run_one(&mut machine, b""), (FINE, Vec::new()));
    // What is there at the snapshot, a byte more, much more, and the longest input there is.
    for size in [1, 4095, 4096, 4097, 64 << 10, (64 << 10) + 1, 1 << 20, 16 << 20] {
        let mut input = vec![b's'; size];
        input[size - 1] = if size == 1 { b's' } else { 0xa5 };
        let said = format!("{size} bytes, ending in {:02x}\n", input[size - 1]);
        assert_eq!(run_one(&mut machine, &input), (FINE, said.into_bytes()));
    }
    let cut = run_one(&mut machine, &vec![b's'; (16 << 20) + 1]);
    assert_eq!(cut.1, b"16777216 bytes, ending in 73\n", "what is longer is cut");
    assert_eq!(run_one(&mut machine, b"e").0, Outcome::Exited { status: 3 });
}

#[test]
fn one_byte_beyond_the_input_is_a_fault() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system);
    for size in [1, 8, 5000] {
        let mut input = vec![0; size];
        input[0] = b'>';
        let (outcome, _) = run_one(&mut machine, &input);
        let Outcome::Crashed(fault) = &outcome else { panic!("{size}: {outcome:?}") };
        assert_eq!(fault.signal, Signal::SEGV);
    }
}

#[test]
fn a_batch_gives_each_call_its_own_input() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system);
    let inputs: [&[u8]; 7] = [b"", b"plain", b"BUG!", b"s", b">", b"e", &[7; 3000]];
    let alone: Vec<_> = inputs.iter().map(|input| Some(run_one(&mut machine, input).0)).collect();
    assert!(matches!(&alone[2], Some(Outcome::Crashed(fault)) if fault.signal == Signal::ABRT));
    let harmless = [inputs[0], inputs[1], inputs[6], b"BUG?"];
    let mut exits = Vec::new();
    for _ in 0..7 {
        assert_eq!(run_batch(&mut machine, &batch_of(inputs)).runs, alone);
        let batch = batch_of(harmless.iter().copied().cycle().take(100));
        let report = run_batch(&mut machine, &batch);
        assert_eq!(report.runs, vec![Some(FINE); 100]);
        exits.push(report.exits.total);
    }
    assert_eq!(exits.iter().min(), Some(&1), "{exits:?}");
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn a_campaign_on_a_harness_finds_what_repro_reproduces() {
    let Some(_) = kvm() else { return };
    let program = build_c("one_input", &[]);
    let folder = tempfile::tempdir().unwrap();
    let (seeds, out) = (seeds(folder.path(), b"BUG?"), folder.path().join("out"));
    let options = "-s 1 -E 200000 --until-crash --harness";
    let done = fuzz(&seeds, &out, options, &[path(&program), "@@"]).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let again = run(&["repro", path(&only_file(&out.join("crashes")))]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert!(text(&again.stdout).contains("LLVMFuzzerTestOneInput"), "{}", text(&again.stdout));
}

fn run_on(program: &Path, options: &[&str], args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    std::fs::write(&input, b"some").unwrap();
    let mut command = dejavm(&["run", "-q", "-i", path(&input)]);
    command.args(options).arg("--").arg(program).args(args).output().unwrap()
}

#[test]
fn run_calls_a_harness_once() {
    let Some(_) = kvm() else { return };
    let done = run_on(&build_c("one_input", &[]), &["--harness"], &["@@"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout), "4 bytes, ending in 65\n", "and never goes back to main");
}

#[test]
fn a_harness_that_cannot_be_run_is_refused_with_what_to_do() {
    let Some(_) = kvm() else { return };
    let program = build_c("one_input", &[]);
    let closed = run_on(&program, &["--harness"], &["close"]);
    assert_eq!(closed.status.code(), Some(2));
    assert!(text(&closed.stderr).contains("closed its standard input"), "{}", text(&closed.stderr));
    // It ends as it does by itself.
    assert_eq!(run_on(&program, &["--harness"], &["never"]).status.code(), Some(5));
    let stripped = build_c("one_input", &["-s"]);
    let missing = run_on(&stripped, &["--harness"], &["@@"]);
    assert_eq!(missing.status.code(), Some(2));
    let said = text(&missing.stderr);
    assert!(said.contains("stripped") && said.contains("--harness=+OFFSET"), "{said}");
}
