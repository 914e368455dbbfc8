//! What a machine costs before its first run: from an image to a snapshot, from a snapshot to its
//! file, and from a snapshot, on disk or shared in memory, to the end of a first run.
//!
//! The floors: the same program run natively by fork and exec, the same bytes written and synced
//! without a format, and an empty VM.

#![allow(clippy::expect_used, reason = "a bench has nobody to report an error to")]

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;
use dejavm_benches::guests::{self, RAM_BYTES};
use dejavm_benches::interleave::Interleaved;
use dejavm_benches::{criterion, limit, system_or_skip};
use dejavm_engine::kvm::System;
use dejavm_engine::linux::ProcessSpec;
use dejavm_engine::machine::hardware::{Hardware, VmSpec};
use dejavm_engine::machine::{Machine, MachineSnapshot};
use dejavm_engine::outcome::Outcome;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const XMLLINT: &str = "/usr/bin/xmllint";
const XML: &[u8] = b"<?xml version=\"1.0\"?><a><b c=\"d\">e</b></a>\n";
const JSON: &[u8] = b"{\"name\": [1, 2.5, true, null, \"\\u00e9\"]}\n";

/// The time of `times` calls, what they return included in none of it.
fn time<T>(times: u64, mut call: impl FnMut() -> T) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        let start = Instant::now();
        let made = call();
        total += start.elapsed();
        drop(made);
    }
    total
}

/// Runs the program natively on `input`.
fn fork_exec(spec: &ProcessSpec, input: &File) {
    let mut input = input.try_clone().expect("a descriptor");
    input.seek(SeekFrom::Start(0)).expect("a seek");
    let status = Command::new(&spec.program)
        .args(&spec.args)
        .stdin(input)
        .stdout(Stdio::null())
        .status()
        .expect("the program starts");
    assert!(status.success(), "{status}");
}

fn run_once(machine: &mut Machine, input: &[u8]) {
    let report = machine.run(input, limit()).expect("a run");
    assert_eq!(report.outcome, Outcome::Exited { status: 0 });
}

fn bench_image(
    group: &mut BenchmarkGroup<'_, WallTime>,
    system: &System,
    row: &str,
    spec: &ProcessSpec,
    input: &[u8],
) {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(input).expect("a write");
    Interleaved::new(2)
        .with("fork + exec", |times| time(times, || fork_exec(spec, &file)))
        .with("boot", |times| time(times, || guests::process(system, spec, input)))
        .bench(group, row);
}

/// Writes what a snapshot holds, with the calls that make it last, and no format.
fn write_plainly(snapshot: &MachineSnapshot, folder: &Path) {
    let (temporary, path) = (folder.join("plain.tmp"), folder.join("plain"));
    let mut file = File::create(&temporary).expect("a file");
    for extent in snapshot.pages.extents() {
        file.write_all(snapshot.pages.extent_bytes(extent).expect("an extent")).expect("a write");
    }
    file.sync_all().expect("a sync");
    fs::rename(&temporary, &path).expect("a rename");
}

fn bench_snapshot(
    group: &mut BenchmarkGroup<'_, WallTime>,
    system: &System,
    snapshot: &Arc<MachineSnapshot>,
) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
    let path = folder.path().join("snapshot");
    Interleaved::new(2)
        .with("plain write", |times| time(times, || write_plainly(snapshot, folder.path())))
        .with("save", |times| time(times, || snapshot.save(&path).expect("a save")))
        .bench(group, "snapshot to file");

    let empty = VmSpec { layout: snapshot.layout.clone(), ..VmSpec::default() };
    let load = |snapshot| {
        let mut machine = Machine::load(system, snapshot).expect("a machine");
        run_once(&mut machine, JSON);
        machine
    };
    Interleaved::new(2)
        .with("empty VM", |times| time(times, || Hardware::new(system, &empty).expect("a VM")))
        .with("open", |times| time(times, || MachineSnapshot::open(&path).expect("a snapshot")))
        .with("open + load + run", |times| {
            time(times, || {
                let opened = MachineSnapshot::open(&path).expect("a snapshot");
                load(Arc::new(opened))
            })
        })
        .with("load + run, shared", |times| time(times, || load(Arc::clone(snapshot))))
        .bench(group, "snapshot to first run");
}

fn main() {
    let Some(system) = system_or_skip("boot") else { return };
    let program: PathBuf = guests::compile(Path::new(env!("CARGO_TARGET_TMPDIR")), "json", &[]);
    let spec = ProcessSpec::new(program);
    let mut criterion = criterion().sample_size(10).measurement_time(Duration::from_secs(1));
    let mut group = criterion.benchmark_group("boot");
    bench_image(&mut group, &system, "static C program", &spec, JSON);
    if Path::new(XMLLINT).exists() {
        let mut spec = ProcessSpec::new(XMLLINT);
        spec.args = vec!["--noout".into(), "-".into()];
        bench_image(&mut group, &system, "dynamic xmllint", &spec, XML);
    } else {
        println!("dynamic xmllint: skipped: there is no {XMLLINT}");
    }
    let machine = guests::process(&system, &spec, JSON);
    let pages = machine.snapshot().pages.pages();
    println!("the static program's snapshot: {pages} pages of {} MiB", RAM_BYTES >> 20);
    bench_snapshot(&mut group, &system, machine.snapshot());
    group.finish();
    criterion.final_summary();
}
