//! Snapshot files.

use super::file::Pieces;
use super::tree::Tree;
use super::{folder, for_each_mutant};
use crate::hostile::{noise, random_calls};
use crate::support::{build_c, build_elf, kvm, limit, machine, rounds, spec, with_causes};
use dejavm_engine::guest::bare::BareSpec;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{
    Batch, BatchOptions, BatchReport, Boot, Limit, Machine, MachineSnapshot, ProcessPoint, Started,
};
use dejavm_engine::snapshot::{FileError, file};
use rand::RngExt;
use rand::rngs::StdRng;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of the mutants that can be opened, one in so many is also run.
const RUN_ONE_IN: u64 = 24;
/// Bytes that opening a file may take at most: so many, and so many times the file's length. A
/// list whose length is a lie gets room for up to 1 MiB of elements before they are missed (serde),
/// and lists may be in one another.
const OPEN_BYTES: (u64, u64) = (4 << 20, 8);

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
    for result in [
        opened.as_ref().map(drop).map_err(|e| with_causes(e)),
        file::check_data(path).map_err(|e| with_causes(&e)),
        file::info(path).map(drop).map_err(|e| with_causes(&e)),
    ] {
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
    // Enough to get anywhere; many only spin, and how they end does not matter here.
    let limit = Limit::time(Duration::from_millis(5));
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
    let options = BatchOptions { limit: limit.time, ..BatchOptions::default() };
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

/// The first places, where most of the header is, and one in 61 of the others; fewer on a slow
/// host, and all of them where much was asked for.
fn places(count: usize) -> impl Iterator<Item = usize> {
    let slower = (1000 / rounds(1000)) as usize;
    let is_all = super::asked("DEJAVM_MUTANTS").is_some();
    (0..count).filter(move |at| is_all || at % (61 * slower) == 0 || *at < 4000 && at % slower == 0)
}

#[test]
fn a_changed_byte_is_noticed_wherever_it_is() {
    let Some(system) = kvm() else { return };
    let folder = folder();
    for path in [bare(&system, folder.path()), program(&system, folder.path())] {
        let whole = fs::read(&path).unwrap();
        let header = 24 + u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
        let data = header.next_multiple_of(4096);
        let file = fs::File::options().write(true).open(&path).unwrap();
        for at in places(whole.len()) {
            for value in [whole[at] ^ 1, whole[at] ^ 0x80, !whole[at]] {
                file.write_all_at(&[value], at as u64).unwrap();
                // What opening does not read, the check does.
                let noticed = match at < data {
                    true => MachineSnapshot::open(&path).map(drop),
                    false => file::check_data(&path),
                };
                let error = noticed.expect_err(&format!("byte {at} as {value:#x}")).to_string();
                assert!(error.contains(path.to_str().unwrap()), "{error}");
            }
            file.write_all_at(&whole[at..=at], at as u64).unwrap();
        }
        file::check_data(&path).unwrap();
    }
}

#[test]
fn a_file_of_any_other_length_is_refused() {
    let Some(system) = kvm() else { return };
    let folder = folder();
    for path in [bare(&system, folder.path()), program(&system, folder.path())] {
        let whole = fs::read(&path).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        for more in [1, 4095, 4096, 1 << 30] {
            file.set_len(whole.len() as u64 + more).unwrap();
            let error = with_causes(&MachineSnapshot::open(&path).unwrap_err());
            assert!(error.contains("something was added"), "{error}");
        }
        for length in places(whole.len()).collect::<Vec<_>>().into_iter().rev() {
            file.set_len(length as u64).unwrap();
            let error = MachineSnapshot::open(&path).unwrap_err();
            assert!(matches!(error, FileError::Damaged { .. }), "{length}: {error}");
        }
    }
}

/// Sets the first field of this name in the guest's state; `a.b` is one in the other.
fn with(pieces: &Pieces, field: &str, value: Tree) -> Vec<u8> {
    let mut pieces = pieces.clone();
    let guest = pieces.section("guest");
    let found = field.split('.').try_fold(guest, |part, name| part.field(name));
    *found.unwrap_or_else(|| panic!("{field}")) = value;
    pieces.assemble()
}

#[test]
fn what_bounds_the_hosts_memory_is_not_believed() {
    let Some(system) = kvm() else { return };
    let folder = folder();
    let base = program(&system, folder.path());
    let pieces = Pieces::of(&base);
    let path = folder.path().join("bad");
    let number = |n| Tree::Number(64, n);
    let many = |n, item: Tree| Tree::List(vec![item; n], None);
    let short: &[(&str, Tree, &str)] = &[
        ("descriptors_max", number(1 << 40), "open files"),
        ("nodes_max", number(u64::MAX), "files"),
        ("written_bytes_max", number(u64::MAX), "may write"),
        ("written_bytes", number(0), "may write"),
        ("bytes_max", number(u64::MAX), "output"),
        ("vmas_max", number(u64::MAX), "mappings"),
        ("actions", many(0, Tree::Nothing), "signal actions"),
        ("root", number(1 << 51), "page tables"),
        ("arena.end", number(u64::MAX), "page tables"),
        ("frames.free", many(3, number(7 << 40)), "page tables"),
        // A byte each in the file, and a hundred in memory.
        ("nodes", many(1 << 20, Tree::Nothing), "guest"),
        ("descriptors", many(1 << 20, Tree::Nothing), "guest"),
        ("pipes", many(1 << 20, Tree::Nothing), "guest"),
        ("frames.free", Tree::List(Vec::new(), Some(u64::MAX)), "guest"),
    ];
    for (field, value, wanted) in short {
        fs::write(&path, with(&pieces, field, value.clone())).unwrap();
        let text = with_causes(&open(&path).expect_err(field));
        assert!(text.contains("guest") && text.contains(wanted), "{field}: {text}");
    }
}

#[test]
fn a_console_that_no_bare_guest_can_have_is_refused() {
    let Some(system) = kvm() else { return };
    let folder = folder();
    let pieces = Pieces::of(&bare(&system, folder.path()));
    let path = folder.path().join("bad");
    let input = |bytes| Tree::List(vec![Tree::Number(8, 0); bytes], None);
    fs::write(&path, with(&pieces, "console.input", input(64))).unwrap();
    open(&path).unwrap();
    fs::write(&path, with(&pieces, "console.input", input(65))).unwrap();
    let text = with_causes(&open(&path).unwrap_err());
    assert!(text.contains("guest") && text.contains("16550"), "{text}");
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
