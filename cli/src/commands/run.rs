//! `dejavm run`: one run, its output, its exit status and a report of it.

use crate::args::Run;
use crate::blocks::Blocks;
use crate::boot;
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::point;
use crate::report::{self, BlocksReached, Report};
use crate::sanitizers::Aim;
use crate::terminal::{self, Status};
use dejavm_engine::coverage::Arm;
use dejavm_engine::machine::{Ended, Limit, Machine, RunReport, Started};
use std::time::Duration;

/// What a breakpoint costs at most; tracing gets so much more time for each block.
const BREAKPOINT: Duration = Duration::from_micros(200);

/// Runs once.
pub fn run(args: &Run) -> Result<ExitCode, CliError> {
    if args.snapshot.is_none() && args.guest.program.is_empty() {
        return Err(CliError::Usage(
            "name a program, such as `dejavm run -- ./program @@`, or a snapshot with --snapshot",
        ));
    }
    let input = boot::input(args.input.as_deref())?;
    let system = boot::system()?;
    let limit = boot::limit(args.timeout);
    let mut status = Status::new(args.quiet || args.json);
    let started = match &args.snapshot {
        Some(path) => Started::AtSnapshot(Box::new(boot::load(&system, path, false)?)),
        None => {
            let guest = args.guest.resolve(Aim::Run)?;
            let text = format!("booting {}", guest.name());
            status.during(&text, || boot::start(&system, &guest, &input, limit))?
        }
    };
    match started {
        Started::Ended(ended) => {
            status.clear();
            finish(args, &of_ended(*ended)?)
        }
        Started::AtSnapshot(mut machine) => {
            let run = status.during("running", || machine.run(&input, limit));
            let run = run.map_err(CliError::machine("run the guest"))?;
            // Not among the guest's own output.
            status.clear();
            finish(args, &of_run(args, &mut machine, &run, &input, limit)?)
        }
    }
}

fn of_ended(mut ended: Ended) -> Result<Report, CliError> {
    terminal::out(&ended.stdout)?;
    terminal::err(&ended.stderr);
    let run = ended.report.clone();
    let process = ended.process().cloned();
    Ok(Report::new(&run, process.as_ref(), &mut |at, out| ended.read_virtual(at, out)))
}

fn of_run(
    args: &Run,
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
    report.memory_crc32 = Some(report::digest(machine.memory_digest()));
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
    args: &Run,
    machine: &mut Machine,
    input: &[u8],
    limit: Limit,
) -> Result<Option<BlocksReached>, CliError> {
    let found = match Blocks::find(machine.process(), &args.cover) {
        Ok(found) => found,
        // Only a program without code, or one that was not asked for: nothing to count.
        Err(error) if args.cover.is_empty() => {
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
    let more = BREAKPOINT.saturating_mul(total.try_into().unwrap_or(u32::MAX));
    let limit = Limit { time: limit.time.map(|time| time.saturating_add(more)) };
    machine.run(input, limit).map_err(CliError::machine("trace the guest"))?;
    Ok(Some(BlocksReached { reached: machine.blocks_hit().len(), total }))
}

fn finish(args: &Run, report: &Report) -> Result<ExitCode, CliError> {
    let bytes = if args.json { terminal::json(report)? } else { report.text().into_bytes() };
    match &args.report {
        Some(path) => dejavm_corpus::write_atomically(path, &bytes)?,
        None if !args.quiet => terminal::err(&bytes),
        None => {}
    }
    Ok(ExitCode::Guest(report.exit_code))
}
