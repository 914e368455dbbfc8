//! What a machine costs before its first run has ended: from an image, from a snapshot file in a
//! new process, and as one more machine on a snapshot that others use.
//!
//! The program has 48 MiB of memory in use at its snapshot, and its run writes one byte in each of
//! 64 of these pages. Files are in the page cache. A new process is this very command, which with
//! `--first-run` loads a snapshot file, runs it once and says so; the clock is that of the process
//! which starts it, from before `exec` to that word. Private memory is `Anonymous` in
//! `/proc/self/smaps_rollup`: pages that are this process's own. What KVM keeps in the kernel for a
//! VM is in no process's figures.

use super::context::Context;
use super::figures::{Layer, LayerSamples, Row};
use super::guests::{RAM_SIZES, RamSize};
use super::sample::interleave;
use super::{code, guests};
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
/// The name of the row of images.
const FROM_IMAGE: &str = "image_to_snapshot";
/// Where a new process is to load no file.
const NO_FILE: &str = "-";
/// What a new process says of a memory that it cannot find out.
const UNKNOWN: &str = "unknown";

/// Measures every row.
pub fn measure(context: &mut Context<'_>) -> Result<Vec<Row>, CliError> {
    let folder = tempfile::tempdir().map_err(CliError::Temporary)?;
    let mut rows = Vec::new();
    if context.wants(FROM_IMAGE) {
        context.status.set("measuring an image to its snapshot");
        rows.push(from_image(context)?);
    }
    let mut files = Vec::new();
    for ram in RAM_SIZES {
        let path = folder.path().join(ram.words);
        boot_guest(context.system, ram.bytes)?.snapshot().save(&path)?;
        files.push(path);
    }
    // In one go, so that they can be compared.
    if RAM_SIZES.iter().any(|ram| context.wants(&file_row(*ram))) {
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

/// What a new process does with `--first-run`: nothing for [`NO_FILE`], else one run of each of
/// `count` machines on a snapshot file; and says how much memory the last of them took for itself
/// before its run.
pub fn first_run(path: &Path, count: u32) -> Result<(), CliError> {
    let mut private = Some(0);
    if path != Path::new(NO_FILE) {
        let system = boot::system()?;
        let snapshot = Arc::new(MachineSnapshot::open(path)?);
        let mut machines = Vec::new();
        for number in 1..=count {
            let is_last = number == count && count > 1;
            let before = is_last.then(anonymous_bytes).flatten();
            let mut machine = Machine::load(&system, Arc::clone(&snapshot))
                .map_err(CliError::machine("load the snapshot"))?;
            if is_last {
                private = anonymous_bytes()
                    .zip(before)
                    .map(|(after, before)| after.saturating_sub(before));
            }
            run_once(&mut machine)?;
            machines.push(machine);
        }
    }
    let mut out = io::stdout().lock();
    let private = private.map_or(UNKNOWN.to_owned(), |bytes| bytes.to_string());
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
    let ram_bytes = guests::RAM_BYTES;
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
    let sampled = [LayerSamples::new(Layer::Floor, floor), LayerSamples::new(Layer::Boot, boots)];
    Ok(context.row(FROM_IMAGE, "image to snapshot, 64M", 1, &sampled))
}

/// The name of the row of files with `ram`.
fn file_row(ram: RamSize) -> String {
    format!("file_to_first_run_{}", ram.name())
}

/// One process for each sample, of every size of memory in turn: what is asked for is that the
/// size makes no difference.
fn in_new_processes(context: &Context<'_>, files: &[PathBuf]) -> Result<Vec<Row>, CliError> {
    let [floor, small, large, largest] = interleave(context.plan, |variant| {
        let file = variant.checked_sub(1).and_then(|index| files.get(index));
        let ran = in_new_process(file.map_or(Path::new(NO_FILE), PathBuf::as_path), 1)?;
        Ok(ran.time.as_nanos() as f64)
    })?;
    let row = |(ram, times): (&RamSize, Vec<f64>)| {
        let what = format!("file to first run, {}", ram.words);
        let floor = LayerSamples::new(Layer::Floor, floor.clone());
        let sampled = [floor, LayerSamples::new(Layer::FirstRun, times)];
        context.row(&file_row(*ram), &what, 1, &sampled)
    };
    Ok(RAM_SIZES.iter().zip([small, large, largest]).map(row).collect())
}

/// What a new process did.
struct NewProcess {
    /// From before its start to its word that its run has ended.
    time: Duration,
    /// Memory that its last machine took for itself, where the kernel says so.
    private_bytes: Option<u64>,
}

/// Has a new process load `count` machines, and run them.
fn in_new_process(file: &Path, count: u32) -> Result<NewProcess, CliError> {
    let program = std::env::current_exe().map_err(CliError::process("find this command"))?;
    let mut command = Command::new(program);
    command.args(["bench", "boot", "--machines", &count.to_string(), "--first-run"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let start = Instant::now();
    let mut child = command.spawn().map_err(CliError::process("start a new process"))?;
    let mut said = String::new();
    let read = child.stdout.take().map(|out| io::BufReader::new(out).read_line(&mut said));
    let time = start.elapsed();
    let status = child.wait().map_err(CliError::process("wait for a new process"))?;
    if !status.success() || !matches!(read, Some(Ok(_))) {
        return Err(not_run());
    }
    Ok(NewProcess { time, private_bytes: private_bytes(said.trim())? })
}

/// What a new process said of its last machine's memory.
fn private_bytes(said: &str) -> Result<Option<u64>, CliError> {
    if said == UNKNOWN {
        return Ok(None);
    }
    said.parse().map(Some).map_err(|_| not_run())
}

fn not_run() -> CliError {
    CliError::BenchGuest { did: "did not run in a new process".to_owned() }
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
    let sampled =
        [LayerSamples::new(Layer::Floor, floor), LayerSamples::new(Layer::FirstRun, runs)];
    let mut row = context.row(name, what, 1, &sampled);
    // In a process of its own, because memory that was given back here would not count.
    let ran = in_new_process(file, others + 1)?;
    if let Some(line) = row.lines.last_mut() {
        line.private_bytes = ran.private_bytes;
    }
    Ok(row)
}

/// This process's own pages, in bytes; none where the kernel does not say.
fn anonymous_bytes() -> Option<u64> {
    anonymous_bytes_in(&fs::read_to_string("/proc/self/smaps_rollup").ok()?)
}

fn anonymous_bytes_in(smaps_rollup: &str) -> Option<u64> {
    let line = smaps_rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    let kib = line.split_whitespace().next()?.parse::<u64>().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_kernel_does_not_count_is_not_zero() {
        let counted = "5 ---p [rollup]\nRss:    9 kB\nAnonymous:            132 kB\n";
        assert_eq!(anonymous_bytes_in(counted), Some(132 << 10));
        assert_eq!(anonymous_bytes_in(""), None);
        assert_eq!(private_bytes("4096").unwrap(), Some(4096));
        assert_eq!(private_bytes(UNKNOWN).unwrap(), None);
        assert!(private_bytes("").is_err(), "it said nothing");
    }
}
