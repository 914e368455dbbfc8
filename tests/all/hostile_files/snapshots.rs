//! Snapshot files.

use super::file::Pieces;
use super::for_each_mutant;
use crate::hostile::{noise, random_calls};
use crate::support::{build_c, build_elf, kvm, limit, machine, rounds, spec};
use dejavm_engine::guest::bare::BareSpec;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{
    Batch, BatchOptions, BatchReport, Boot, Limit, Machine, MachineSnapshot, ProcessPoint, Started,
};
use dejavm_engine::snapshot::{FileError, file};
use rand::RngExt;
use rand::rngs::StdRng;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of the mutants that can be opened, one in so many is also run.
const RUN_ONE_IN: u64 = 24;
/// Bytes that opening a file may allocate at most, all in all: a few KiB and so many times the
/// file's length.
const OPEN_BYTES: (u64, u64) = (64 << 10, 8);

/// A folder in memory, because a mutant is written for each look at it.
fn folder() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    match tempfile::tempdir_in(shared) {
        Ok(folder) => folder,
        Err(_) => tempfile::tempdir().unwrap(),
    }
}

/// The snapshot of a program without a C library, which has files and a pipe.
fn program(system: &System, folder: &Path) -> PathBuf {
    let program = build_c("tiny", &["-nostdlib", "-static", "-Wl,--build-id=none"]);
    let path = folder.join("tiny.dejavm");
    machine(system, &spec(&program, &[])).snapshot().save(&path).unwrap();
    path
}

/// The snapshot of a bare guest.
fn bare(system: &System, folder: &Path) -> PathBuf {
    let path = folder.join("bare.dejavm");
    let spec = BareSpec::elf(build_elf("harness", 0x10_0000), 2 << 20);
    match Boot::bare(system, &spec).unwrap().start(ProcessPoint::Input, limit()).unwrap() {
        Started::AtSnapshot(machine) => machine.snapshot().save(&path).unwrap(),
        Started::Ended(ended) => panic!("{ended:?}"),
    }
    path
}

/// Looks at the file in every way there is short of running it. A refusal names the file.
fn open(path: &Path) -> Result<MachineSnapshot, FileError> {
    let bytes = fs::metadata(path).unwrap().len();
    let mut opened = None;
    let used = allocation_counter::measure(|| opened = Some(MachineSnapshot::open(path)));
    let most = OPEN_BYTES.0 + OPEN_BYTES.1 * bytes;
    assert!(used.bytes_max <= most, "{} bytes for a file of {bytes}", used.bytes_max);
    let opened = opened.unwrap();
    for result in [opened.as_ref().map(drop).map_err(ToString::to_string), file::check_data(path).map_err(|e| e.to_string()), file::info(path).map(drop).map_err(|e| e.to_string())] {
        if let Err(text) = result {
            assert!(text.contains(path.to_str().unwrap()) && text.len() > 50, "{text}");
        }
    }
    opened
}

/// Makes a machine of it and runs that; a machine that the host refuses says why.
fn live(system: &System, snapshot: MachineSnapshot, noise: &mut StdRng) {
    let mut machine = match Machine::load(system, Arc::new(snapshot)) {
        Ok(machine) => machine,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let limit = Limit::time(Duration::from_millis(20));
    let start = Instant::now();
    for round in 0..3 {
        let input: Vec<u8> = match round {
            0 => random_calls(crate::hostile::noise(noise.random())),
            1 => noise.random::<[u8; 64]>().into(),
            _ => b"j\x0f\x05".into(),
        };
        // An error is the machine's own to tell; it may not run again until it is rewound.
        let _ = machine.run(&input, limit);
        if machine.rewind().is_err() {
            break;
        }
        let _ = machine.verify();
    }
    let mut batch = Batch::default();
    batch.push(&random_calls(crate::hostile::noise(noise.random())));
    batch.push(b"");
    let options = BatchOptions { limit: limit.time, stop_at_finding: false };
    let mut report = BatchReport::default();
    let _ = machine.run_batch(&batch, options, &mut report);
    let _ = machine.rewind();
    assert!(start.elapsed() < Duration::from_secs(20), "it took {:?}", start.elapsed());
}

fn mutants(base: &Path, system: &System, count: u64) {
    let pieces = Pieces::of(base);
    let path = base.with_extension("mutant");
    let (mut opened, mut refused, mut ran) = (0_u64, 0_u64, 0_u64);
    for_each_mutant(count, |seed| {
        let mut noise = noise(seed);
        fs::write(&path, pieces.mutant(&mut noise)).unwrap();
        match open(&path) {
            Err(_) => refused += 1,
            Ok(snapshot) => {
                opened += 1;
                if opened % RUN_ONE_IN == 1 {
                    ran += 1;
                    live(system, snapshot, &mut noise);
                }
            }
        }
    });
    eprintln!("{}: {refused} refused, {opened} opened, {ran} of them run", base.display());
}

#[test]
fn a_mutated_snapshot_of_a_program_is_refused_or_harmless() {
    let Some(system) = kvm() else { return };
    let folder = folder();
    mutants(&program(&system, folder.path()), &system, rounds(15_000).into());
}

#[test]
fn a_mutated_snapshot_of_a_bare_guest_is_refused_or_harmless() {
    let Some(system) = kvm() else { return };
    let folder = folder();
    mutants(&bare(&system, folder.path()), &system, rounds(5_000).into());
}
