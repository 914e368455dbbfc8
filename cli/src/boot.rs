//! From arguments to a machine: booted, or loaded from a snapshot file. Never runs an input.

use crate::error::CliError;
use crate::guest::Resolved;
use crate::values::Point;
use dejavm_engine::kvm::System;
use dejavm_engine::linux::{LoadedImage, MissingPaths, Process};
use dejavm_engine::machine::{Boot, Limit, Machine, MachineSnapshot, ProcessPoint, Started};
use dejavm_engine::outcome::Outcome;
use dejavm_engine::snapshot::file;
use dejavm_engine::symbols::{Image, Symbolizer};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a program may go on looking for system files, over all of its boots.
const DISCOVERY_TIME_MAX: Duration = Duration::from_secs(30);
/// Time limit of a run that is only made for what the program looks for.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(1);
/// After this time no more such run begins.
const SAMPLES_TIME_MAX: Duration = Duration::from_secs(2);

/// Opens KVM.
pub fn system() -> Result<System, CliError> {
    System::open().map_err(CliError::Kvm)
}

/// A limit on time, where zero is none.
pub fn limit(time: Duration) -> Limit {
    Limit { time: Some(time).filter(|time| !time.is_zero()) }
}

/// Boots `guest` to its snapshot point, or to its end.
pub fn start(
    system: &System,
    guest: &Resolved,
    input: &[u8],
    limit: Limit,
) -> Result<Started, CliError> {
    let (boot, point) = match guest {
        Resolved::Process(program) => {
            let mut boot = Boot::process(system, &program.spec, program.ram_bytes, input)
                .map_err(CliError::machine("boot the program"))?;
            let images = boot.process_images();
            let point = match (&program.harness, &program.at) {
                (Some(at), _) => ProcessPoint::Harness(harness(at, &images)?),
                (None, Some(at)) => ProcessPoint::Address(resolve(at, &images)?),
                (None, None) => ProcessPoint::Input,
            };
            if program.until_return {
                boot.end_at_return();
            }
            for at in &program.crash_at {
                boot.crash_at(resolve(at, &images)?);
            }
            (boot, point)
        }
        Resolved::Bare(spec) => {
            let boot =
                Boot::bare(system, spec).map_err(CliError::machine("boot the bare guest"))?;
            (boot, ProcessPoint::Input)
        }
    };
    boot.start(point, limit).map_err(CliError::machine("run to the snapshot point"))
}

/// Boots `guest` to its snapshot point, which it must reach. `samples` are inputs to try, for the
/// system files that a run looks for.
pub fn to_snapshot(
    system: &System,
    guest: &mut Resolved,
    input: &[u8],
    samples: &[Vec<u8>],
    limit: Limit,
) -> Result<Machine, CliError> {
    let attempt = |guest: &Resolved| {
        let mut started = start(system, guest, input, limit)?;
        if let (Started::AtSnapshot(machine), true) = (&mut started, guest.takes_system_files()) {
            try_samples(machine, samples)?;
        }
        let process = match &started {
            Started::AtSnapshot(machine) => machine.process(),
            Started::Ended(ended) => ended.process(),
        };
        let wanted = wanted(process);
        Ok((started, wanted))
    };
    let ended = match with_system_files(guest, attempt)? {
        Started::AtSnapshot(machine) => return Ok(*machine),
        Started::Ended(ended) => ended,
    };
    let (before, todo) = match guest {
        Resolved::Process(program) if program.harness.is_some() => {
            ("before it called the function of --harness", "try it with `dejavm run`")
        }
        Resolved::Process(program) if program.at.is_some() => {
            ("before it reached the point of --at", "try it with `dejavm run`")
        }
        Resolved::Process(_) => (
            "before it looked at its input",
            "check its arguments with `dejavm run`, and whether it wants `@@`",
        ),
        Resolved::Bare(_) => (
            "before it asked for a snapshot",
            "a bare guest asks with OUT to port 0xd0, see docs/guests-bare.md",
        ),
    };
    let todo = match &ended.report.outcome {
        Outcome::TimedOut => {
            "it may wait for something that never comes: try it with `dejavm run`; `dejavm snapshot` \
             takes a longer --timeout"
        }
        _ => todo,
    };
    Err(CliError::EndedEarly { outcome: ended.report.outcome, before, todo })
}

/// Runs each of `samples`, for what the program looks for meanwhile.
fn try_samples(machine: &mut Machine, samples: &[Vec<u8>]) -> Result<(), CliError> {
    let start = Instant::now();
    for sample in samples.iter().take_while(|_| start.elapsed() < SAMPLES_TIME_MAX) {
        machine
            .run(sample, Limit::time(SAMPLE_TIMEOUT))
            .map_err(CliError::machine("try a seed"))?;
        machine.rewind().map_err(CliError::machine("rewind the guest"))?;
    }
    Ok(())
}

/// What the program looked for and did not find so far; nothing, for a bare guest.
pub fn wanted(process: Option<&Process>) -> MissingPaths {
    process.map(|process| process.wanted().clone()).unwrap_or_default()
}

/// Makes `attempt`s, each with the files of the host's system that the ones before looked for and
/// did not find, until one looks for none that are there: that one's result.
///
/// A program often finds out what it needs next only in what it has just found, so that this takes
/// several boots. It ends, because a file comes in only once, and within `DISCOVERY_TIME_MAX`.
pub fn with_system_files<T>(
    guest: &mut Resolved,
    mut attempt: impl FnMut(&Resolved) -> Result<(T, MissingPaths), CliError>,
) -> Result<T, CliError> {
    let start = Instant::now();
    loop {
        let (made, wanted) = attempt(guest)?;
        let Resolved::Process(program) = &mut *guest else { return Ok(made) };
        if !program.system_files || !program.spec.system.take(&wanted) {
            return Ok(made);
        }
        let files = &program.spec.system;
        let (count, bytes) = (files.files().count(), files.bytes());
        tracing::info!("booting anew with {count} system files, {bytes} bytes");
        if start.elapsed() > DISCOVERY_TIME_MAX {
            tracing::warn!("the program went on looking for system files; it may lack some");
            return Ok(made);
        }
    }
}

/// Loads the snapshot file `path` into a machine; its pages are checked first if `check`.
pub fn load(system: &System, path: &Path, check: bool) -> Result<Machine, CliError> {
    if check {
        file::check_data(path)?;
    }
    let snapshot = MachineSnapshot::open(path)?;
    Machine::load(system, Arc::new(snapshot)).map_err(CliError::machine("load the snapshot"))
}

/// A point's address in the loaded program.
fn resolve(point: &Point, images: &[LoadedImage]) -> Result<u64, CliError> {
    Ok(match point {
        Point::Address(address) => *address,
        Point::Offset(offset) => {
            let program = images.first();
            let program = program.ok_or(CliError::Invariant("a program is among its images"))?;
            program.base.wrapping_add(*offset)
        }
        Point::Symbol(name) => symbolizer_of(images).address_of(name).map_err(CliError::Point)?,
    })
}

/// The address of the function that is all of a run.
fn harness(point: &Point, images: &[LoadedImage]) -> Result<u64, CliError> {
    resolve(point, images).map_err(|error| match error {
        CliError::Point(source) => CliError::NoHarness(source),
        other => other,
    })
}

/// Answers what addresses mean in `process`; nothing, for a bare guest.
pub fn symbolizer(process: Option<&Process>) -> Symbolizer {
    symbolizer_of(&process.map(Process::images).unwrap_or_default())
}

fn symbolizer_of(images: &[LoadedImage]) -> Symbolizer {
    let images = images.iter().map(|image| Image {
        name: image.path.to_string_lossy().into_owned(),
        bias: image.base,
        bytes: image.bytes.clone(),
    });
    Symbolizer::new(images.collect())
}

/// The input in `file`; without one, standard input unless it is a terminal.
pub fn input(file: Option<&Path>) -> Result<Vec<u8>, CliError> {
    if let Some(path) = file {
        let bytes = File::open(path).and_then(read_all);
        return bytes.map_err(|source| CliError::Read { path: path.to_owned(), source });
    }
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return Ok(Vec::new());
    }
    read_all(stdin).map_err(CliError::Stdin)
}

/// The longest input that is read, in bytes: what is longer is a device without an end, more likely
/// than an input.
const INPUT_BYTES_MAX: u64 = 256 << 20;

fn read_all(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        let mib = INPUT_BYTES_MAX >> 20;
        return Err(io::Error::other(format!("it is longer than {mib} MiB")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_into_no_program_is_an_error_and_not_an_address() {
        let error = resolve(&Point::Offset(0x10), &[]).unwrap_err();
        assert!(matches!(error, CliError::Invariant(_)), "{error}");
        assert_eq!(resolve(&Point::Address(0x10), &[]).unwrap(), 0x10);
    }
}
