//! `dejavm run`: one run, its output, its exit status and a report of it.

use crate::args::RunArgs;
use crate::blocks::Blocks;
use crate::boot;
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::guest::Resolved;
use crate::point;
use crate::report::{self, BlocksReached, Report};
use crate::sanitizers::Aim;
use crate::terminal::{self, Status};
use dejavm_engine::coverage::Arm;
use dejavm_engine::linux::{MissingPaths, Process, WORKING_DIRECTORY};
use dejavm_engine::machine::{Ended, Limit, Machine, RunReport, Started};
use dejavm_engine::outcome::Outcome;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a breakpoint costs at most: how much more time tracing gets for each block.
const BREAKPOINT_COST_MAX: Duration = Duration::from_micros(200);

/// Runs once.
pub fn run(args: &RunArgs) -> Result<ExitCode, CliError> {
    if args.snapshot.is_none() && args.guest.program.is_empty() {
        return Err(CliError::Usage(
            "name a program, such as `dejavm run -- ./program @@`, or a snapshot with --snapshot",
        ));
    }
    let input = boot::input(args.input.as_deref())?;
    let system = boot::system()?;
    let limit = boot::limit(args.timeout);
    let mut status = Status::new(args.quiet || args.json);
    let mut files = Vec::new();
    let done = match &args.snapshot {
        Some(path) => {
            let mut machine = boot::load(&system, path, false)?;
            if args.strace.is_some() {
                machine.trace_calls();
            }
            let started = Started::AtSnapshot(Box::new(machine));
            status.during("running", || to_end(started, &input, limit))?
        }
        None => {
            let mut guest = args.guest.resolve(Aim::Run)?;
            if let Resolved::Process(program) = &mut guest {
                program.spec.trace = args.strace.is_some();
            }
            let text = format!("running {}", guest.name());
            let attempt = |guest: &Resolved| {
                let done = to_end(boot::start(&system, guest, &input, limit)?, &input, limit)?;
                let wanted = boot::wanted(done.process());
                Ok((done, wanted))
            };
            let done = status.during(&text, || boot::with_system_files(&mut guest, attempt))?;
            files = guest.system_files();
            done
        }
    };
    // Not among the guest's own output.
    status.clear();
    if let Some(file) = &args.strace {
        show_trace(file, &done)?;
    }
    let missing = files_missing(&args.guest.program, &boot::wanted(done.process()));
    let mut report = match done {
        Done::Early(ended) => of_ended(*ended)?,
        Done::Ran { mut machine, run } => of_run(args, &mut machine, &run, &input, limit)?,
    };
    report.host_files = files;
    report.files_missing = missing;
    finish(args, &report)
}

/// The arguments that name a file of the host which the program looked for and did not find: the
/// user may have meant it to.
fn files_missing(words: &[OsString], wanted: &MissingPaths) -> Vec<PathBuf> {
    let is_meant = |path: &&PathBuf| {
        let path = Path::new(WORKING_DIRECTORY).join(path);
        wanted.paths().any(|wanted| wanted == path)
    };
    let named = words.iter().skip(1).map(PathBuf::from);
    named.filter(|path| is_meant(&path) && path.exists()).collect()
}

/// A guest that has ended.
enum Done {
    /// Before its snapshot point.
    Early(Box<Ended>),
    /// In a run from its snapshot, which the machine is at the end of.
    Ran { machine: Box<Machine>, run: Box<RunReport> },
}

impl Done {
    /// The program; none of a bare guest.
    fn process(&self) -> Option<&Process> {
        match self {
            Self::Early(ended) => ended.process(),
            Self::Ran { machine, .. } => machine.process(),
        }
    }

    fn outcome(&self) -> &Outcome {
        match self {
            Self::Early(ended) => &ended.report.outcome,
            Self::Ran { run, .. } => &run.outcome,
        }
    }
}

/// Writes the system calls of a program that has ended.
fn show_trace(file: &Path, done: &Done) -> Result<(), CliError> {
    let Some(process) = done.process() else { return Ok(()) };
    let text = process.trace().to_owned() + &process.trace_end(done.outcome());
    if file == Path::new("-") {
        terminal::err_text(&text);
    } else {
        dejavm_corpus::write_atomically(file, text.as_bytes())?;
    }
    Ok(())
}

/// Runs what has come to its snapshot to its end.
fn to_end(started: Started, input: &[u8], limit: Limit) -> Result<Done, CliError> {
    Ok(match started {
        Started::Ended(ended) => Done::Early(ended),
        Started::AtSnapshot(mut machine) => {
            let run = machine.run(input, limit).map_err(CliError::machine("run the guest"))?;
            Done::Ran { machine, run: Box::new(run) }
        }
    })
}

fn of_ended(mut ended: Ended) -> Result<Report, CliError> {
    terminal::out(&ended.stdout)?;
    terminal::err(&ended.stderr);
    let run = ended.report.clone();
    let process = ended.process().cloned();
    Ok(Report::new(&run, process.as_ref(), &mut |at, out| ended.read_virtual(at, out)))
}

fn of_run(
    args: &RunArgs,
    machine: &mut Machine,
    run: &RunReport,
    input: &[u8],
    limit: Limit,
) -> Result<Report, CliError> {
    terminal::out(machine.stdout())?;
    terminal::err(machine.stderr());
    let process = machine.process().cloned();
    let mut report =
        Report::new(run, process.as_ref(), &mut |at, out| machine.read_virtual(at, out));
    let digest = machine.memory_digest().map_err(CliError::machine("sum up the guest's memory"))?;
    report.memory_crc32 = Some(report::digest(digest));
    machine.set_rewind_mode(args.rewind.into());
    let rewound = machine.rewind().map_err(CliError::machine("rewind the guest"))?;
    report.pages_dirty = Some(rewound.pages_hot + rewound.pages_host);
    let symbolizer = boot::symbolizer(machine.process());
    report.snapshot = Some(point::in_words(machine.snapshot(), &symbolizer));
    if !args.quiet {
        report.blocks = blocks(args, machine, input, limit)?;
    }
    Ok(report)
}

/// Runs once more with a breakpoint in every block. Not in the first run, because breakpoints
/// take time, which is to be reported without them.
fn blocks(
    args: &RunArgs,
    machine: &mut Machine,
    input: &[u8],
    limit: Limit,
) -> Result<Option<BlocksReached>, CliError> {
    let found = match Blocks::find(machine.process(), &args.covered) {
        Ok(found) => found,
        // Only a program without code, or one that was not asked for: nothing to count.
        Err(error) if args.covered.cover.is_empty() && args.covered.no_cover.is_empty() => {
            tracing::info!("{}", error.line());
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if found.starts.is_empty() {
        return Ok(None);
    }
    let total = found.starts.len();
    machine.set_blocks(&found.starts).map_err(CliError::machine("set breakpoints"))?;
    machine.arm_blocks(Arm::All);
    let more = BREAKPOINT_COST_MAX.saturating_mul(total.try_into().unwrap_or(u32::MAX));
    let limit = Limit { time: limit.time.map(|time| time.saturating_add(more)) };
    machine.run(input, limit).map_err(CliError::machine("trace the guest"))?;
    Ok(Some(BlocksReached { reached: machine.blocks_hit().len(), total }))
}

fn finish(args: &RunArgs, report: &Report) -> Result<ExitCode, CliError> {
    let bytes = if args.json {
        terminal::json(report)?
    } else {
        terminal::readable(&report.text()).into_bytes()
    };
    match &args.report {
        Some(path) => dejavm_corpus::write_atomically(path, &bytes)?,
        None if !args.quiet => terminal::err(&bytes),
        None => {}
    }
    Ok(ExitCode::Guest(report.exit_code))
}
