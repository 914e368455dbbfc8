//! What a machine costs before its first run has ended: from an image, from a snapshot file in a
//! new process, and as one more machine on a snapshot that others use.
//!
//! The program has 48 MiB of memory in use at its snapshot, and its run writes one byte in each of
//! 64 of these pages. Files are in the page cache. A new process is this very command, told by
//! `--first-run` to load a snapshot file, run it once and say so; the clock is that of the process
//! which starts it, from before `exec` to that word. Private memory is `Anonymous` in
//! `/proc/self/smaps_rollup`: pages that are this process's own. What KVM keeps in the kernel for a
//! VM is in no process's figures.

use super::sample::interleave;
use super::{Context, Layer, Row, code, guests};
use crate::boot;
use crate::error::CliError;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::hardware::{Hardware, VmSpec};
use dejavm_engine::machine::{Machine, MachineSnapshot};
use dejavm_engine::memory::SlotSpec;
use dejavm_engine::outcome::Outcome;
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pages that the program has in use at its snapshot: 48 MiB.
const PAGES_IN_USE: u32 = 48 << 8;
/// Pages that a run writes.
const PAGES_WRITTEN: u32 = 64;
/// Memory of the guests: in words, and in bytes.
const RAM: [(&str, u64); 3] = [("64M", 64 << 20), ("1G", 1 << 30), ("4G", 4 << 30)];
/// The name of the row of images.
const FROM_IMAGE: &str = "image_to_snapshot";
/// Where a new process is to load no file.
const NO_FILE: &str = "-";

/// Measures every row.
pub fn measure(context: &mut Context<'_>) -> Result<Vec<Row>, CliError> {
    let folder = tempfile::tempdir().map_err(CliError::Temporary)?;
    let mut rows = Vec::new();
    if context.wants(FROM_IMAGE) {
        context.status.set("measuring an image to its snapshot");
        rows.push(from_image(context)?);
    }
    let mut files = Vec::new();
    for (ram, ram_bytes) in RAM {
        let path = folder.path().join(ram);
        boot_guest(context.system, ram_bytes)?.snapshot().save(&path)?;
        files.push(path);
    }
    // In one go, so that they can be compared.
    if RAM.iter().any(|(ram, _)| context.wants(&file_row(ram))) {
        context.status.set("measuring snapshot files in new processes");
        rows.extend(in_new_processes(context, &files)?);
    }
    for (name, what, others) in
        [("second_machine", "second machine, 1G", 1), ("tenth_machine", "tenth machine, 1G", 9)]
    {
        if !context.wants(name) {
            continue;
        }
        context.status.set(&format!("measuring a {what}"));
        rows.push(one_more(context, &files[1], name, what, others)?);
    }
    Ok(rows)
}

/// What a new process does when it is told so: nothing for [`NO_FILE`], else one run of each of
/// `count` machines on a snapshot file; and says how much memory the last of them took for itself
/// before its run.
pub fn first_run(path: &Path, count: u32) -> Result<(), CliError> {
    let mut private = 0;
    if path != Path::new(NO_FILE) {
        let system = boot::system()?;
        let snapshot = Arc::new(MachineSnapshot::open(path)?);
        let mut machines = Vec::new();
        for number in 1..=count {
            let is_last = number == count && count > 1;
            let before = if is_last { anonymous_bytes() } else { 0 };
            let mut machine = Machine::load(&system, Arc::clone(&snapshot))
                .map_err(CliError::machine("load the snapshot"))?;
            if is_last {
                private = anonymous_bytes().saturating_sub(before);
            }
            run_once(&mut machine)?;
            machines.push(machine);
        }
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{private}").and_then(|()| out.flush()).map_err(CliError::Stdout)
}

fn boot_guest(system: &System, ram_bytes: u64) -> Result<Machine, CliError> {
    let (before, body) = (code::page_writes(PAGES_IN_USE), code::page_writes(PAGES_WRITTEN));
    guests::process(system, &before, &body, ram_bytes)
}

fn run_once(machine: &mut Machine) -> Result<(), CliError> {
    let report = machine.run(b"", guests::limit()).map_err(CliError::machine("run a guest"))?;
    match report.outcome {
        Outcome::Exited { status: 0 } => Ok(()),
        other => Err(CliError::BenchGuest { did: other.to_string() }),
    }
}

/// The floor of what happens in this process: a VM of the same layout that nothing is put into.
fn empty_vm(system: &System, layout: &[SlotSpec]) -> Result<Duration, CliError> {
    let spec = VmSpec { layout: layout.to_vec(), ..VmSpec::default() };
    let start = Instant::now();
    let vm = Hardware::new(system, &spec).map_err(CliError::machine("make an empty VM"))?;
    let time = start.elapsed();
    drop(vm);
    Ok(time)
}

fn from_image(context: &Context<'_>) -> Result<Row, CliError> {
    let (_, ram_bytes) = RAM[0];
    let layout = boot_guest(context.system, ram_bytes)?.snapshot().layout.clone();
    let [floor, boots] = interleave(context.plan, |variant| {
        let time = if variant == 0 {
            empty_vm(context.system, &layout)?
        } else {
            let start = Instant::now();
            let machine = boot_guest(context.system, ram_bytes)?;
            let time = start.elapsed();
            drop(machine);
            time
        };
        Ok(time.as_nanos() as f64)
    })?;
    let sampled = [(Layer::Floor, floor), (Layer::Boot, boots)];
    Ok(context.row(FROM_IMAGE, "image to snapshot, 64M", 1, &sampled))
}

/// The name of the row of files with `ram`.
fn file_row(ram: &str) -> String {
    format!("file_to_first_run_{}", ram.to_lowercase())
}

/// One process for each sample, of every size of memory in turn: what is asked for is that the
/// size makes no difference.
fn in_new_processes(context: &Context<'_>, files: &[PathBuf]) -> Result<Vec<Row>, CliError> {
    let [floor, small, large, largest] = interleave(context.plan, |variant| {
        let file = variant.checked_sub(1).and_then(|index| files.get(index));
        let (time, _) = in_new_process(file.map_or(Path::new(NO_FILE), PathBuf::as_path), 1)?;
        Ok(time.as_nanos() as f64)
    })?;
    let row = |((ram, _), times): (&(&str, u64), Vec<f64>)| {
        let what = format!("file to first run, {ram}");
        let sampled = [(Layer::Floor, floor.clone()), (Layer::FirstRun, times)];
        context.row(&file_row(ram), &what, 1, &sampled)
    };
    Ok(RAM.iter().zip([small, large, largest]).map(row).collect())
}

/// Has a new process load `count` machines: how long it takes, and the last one's own memory.
fn in_new_process(file: &Path, count: u32) -> Result<(Duration, u64), CliError> {
    let program = std::env::current_exe().map_err(CliError::Temporary)?;
    let mut command = Command::new(program);
    command.args(["bench", "boot", "--machines", &count.to_string(), "--first-run"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let failed = || CliError::BenchGuest { did: "did not run in a new process".to_owned() };
    let start = Instant::now();
    let mut child = command.spawn().map_err(CliError::Temporary)?;
    let mut said = String::new();
    let read = child.stdout.take().map(|out| io::BufReader::new(out).read_line(&mut said));
    let time = start.elapsed();
    let status = child.wait().map_err(CliError::Temporary)?;
    let private = said.trim().parse().ok().filter(|_| matches!(read, Some(Ok(_))));
    private.filter(|_| status.success()).map(|bytes| (time, bytes)).ok_or_else(failed)
}

/// One more machine where there are `others` on the same snapshot, each of which has run.
fn one_more(
    context: &Context<'_>,
    file: &Path,
    name: &str,
    what: &str,
    others: u32,
) -> Result<Row, CliError> {
    let load = |snapshot: &Arc<MachineSnapshot>| {
        Machine::load(context.system, Arc::clone(snapshot))
            .map_err(CliError::machine("load the snapshot"))
    };
    let snapshot = Arc::new(MachineSnapshot::open(file)?);
    let mut machines = Vec::new();
    for _ in 0..others {
        let mut machine = load(&snapshot)?;
        run_once(&mut machine)?;
        machine.rewind().map_err(CliError::machine("rewind a guest"))?;
        machines.push(machine);
    }
    let [floor, runs] = interleave(context.plan, |variant| {
        if variant == 0 {
            return Ok(empty_vm(context.system, &snapshot.layout)?.as_nanos() as f64);
        }
        let start = Instant::now();
        let mut machine = load(&snapshot)?;
        run_once(&mut machine)?;
        Ok(start.elapsed().as_nanos() as f64)
    })?;
    let sampled = [(Layer::Floor, floor), (Layer::FirstRun, runs)];
    let mut row = context.row(name, what, 1, &sampled);
    // In a process of its own, because memory that was given back here would not count.
    let (_, private) = in_new_process(file, others + 1)?;
    if let Some(line) = row.lines.last_mut() {
        line.private_bytes = Some(private);
    }
    Ok(row)
}

/// This process's own pages, in bytes; 0 where the kernel does not tell.
fn anonymous_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
