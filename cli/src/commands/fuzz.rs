//! `dejavm fuzz`: a campaign on a guest.

use crate::args::{CampaignRewind, FuzzArgs};
use crate::blocks::Blocks;
use crate::boot;
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::folder::{self, Folder, KeptSnapshot, SnapshotSource};
use crate::guest::Resolved;
use crate::oracles::Oracles;
use crate::point;
use crate::quote;
use crate::report;
use crate::sandbox::{Sandbox, SandboxStage};
use crate::sanitizers::Aim;
use crate::target::GuestTarget;
use crate::terminal::{self, Status};
use dejavm_corpus::{
    Campaign, CampaignError, ErrorChain, Event, Options, Progress, Stats, StopReason, Summary,
};
use dejavm_engine::coverage::detours::Detail;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{DetourCounts, ExitCounts, Machine};
use serde::Serialize;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time limit of the boot.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// Seeds that the boot tries, and the largest of them.
const SAMPLES_MAX: usize = 16;
const SAMPLE_BYTES_MAX: u64 = 1 << 20;
/// What a shell reports of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Runs a campaign.
pub fn run(args: &FuzzArgs) -> Result<ExitCode, CliError> {
    let oracles = Oracles::new(&args.oracles)?;
    let mut guest = args.guest.resolve(Aim::Campaign)?;
    let stop = Arc::new(AtomicBool::new(false));
    // First the output folder: it is locked from here on, and refused if it is not ours.
    let options = options(args, &guest, Arc::clone(&stop));
    let campaign = Campaign::new(options).map_err(CliError::Campaign)?;
    // Before there is any thread, so that it holds for all of them.
    let stage = SandboxStage::enter_boot(!args.no_sandbox, Some(&args.output));
    let stage = stage.map_err(CliError::Sandbox)?;
    stop_on_signals(stop)?;
    let system = boot::system()?;
    let mut status = Status::new(args.json);
    let mut machine = machine(args, &system, &mut guest, &mut status)?;
    machine.set_rewind_mode(args.rewind.into());
    if let Resolved::Process(program) = &guest {
        for option in &program.sanitizer_options {
            status.line(&format!("built with a sanitizer: --env {}", option.display()));
        }
    }
    let symbolizer = boot::symbolizer(machine.process());
    status.line(&format!("snapshot: {}", point::in_words(machine.snapshot(), &symbolizer)));
    let blocks =
        status.during("finding blocks", || Blocks::find(machine.process(), &args.covered))?;
    status.line(&in_words(&blocks));
    oracles.install(&mut machine)?;
    let target = GuestTarget::new(machine, &blocks.starts, oracles, args.verify_every);
    let mut target = target.map_err(CliError::machine("set breakpoints"))?;
    if args.rewind == CampaignRewind::Agent
        && matches!(guest, Resolved::Process(_))
        && let Err(error) = target.use_batches()
    {
        status.line(&format!("warning: one run to an entry: {}", ErrorChain(&error)));
    }
    status.line(&tracing_in_words(&mut target, &blocks, args.coverage.into()));
    if !args.no_cmplog {
        status.line(&comparisons_in_words(&mut target, &blocks));
    }
    match target.blocks_unseen() {
        0 => {}
        unseen => status.line(&format!(
            "warning: {unseen} of the blocks are in pages that the program had not touched at \
             the snapshot; they guide nothing"
        )),
    }
    let sandbox = stage.enter_campaign().map_err(CliError::Sandbox)?;
    status.line(&format!("sandbox: {sandbox}"));
    let mut progress = Shown { status };
    let result = campaign.run(&mut target, &mut progress);
    progress.status.clear();
    match result {
        Err(CampaignError::Target { .. }) if !target.differences.is_empty() => {
            let found = &target.differences;
            let lines = found
                .iter()
                .map(|d| format!("{}: expected {}, found {}\n", d.field, d.expected, d.found));
            terminal::err_text(&lines.collect::<String>());
            let count = found.len();
            terminal::note(&format!("dejavm: a rewind left {count} differences; please report it"));
            Ok(ExitCode::Negative)
        }
        Err(error) => Err(CliError::Campaign(error)),
        Ok(summary) => finish(args, &summary, &target, sandbox),
    }
}

/// The first signal sets `flag`; the second one ends the process.
fn stop_on_signals(flag: Arc<AtomicBool>) -> Result<(), CliError> {
    let handler = move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED);
        }
    };
    ctrlc::set_handler(handler).map_err(CliError::Signals)
}

fn options(args: &FuzzArgs, guest: &Resolved, stop: Arc<AtomicBool>) -> Options {
    let words: Vec<OsString> = std::env::args_os().collect();
    Options {
        input: args.input.clone(),
        output: args.output.clone(),
        dictionaries: args.dictionary.clone(),
        timeout: args.timeout,
        duration: args.duration.map(Duration::from_secs),
        executions: args.executions,
        seed: args.seed,
        until_crash: args.until_crash,
        max_len: usize::try_from(args.max_len).unwrap_or(usize::MAX),
        comparisons: !args.no_cmplog,
        auto_dictionary: !args.no_auto_dict,
        stop,
        target_mode: guest.kind().to_owned(),
        banner: guest.name(),
        command_line: quote::command(words.iter().map(OsString::as_os_str)),
    }
}

/// The machine at the snapshot that the output folder has, or at a new one, which is then saved.
fn machine(
    args: &FuzzArgs,
    system: &System,
    guest: &mut Resolved,
    status: &mut Status,
) -> Result<Machine, CliError> {
    let (folder, source) = (Folder::of(&args.output), SnapshotSource::of(&args.guest));
    let reason = match folder.kept(&source)? {
        KeptSnapshot::None => None,
        KeptSnapshot::OfOtherCommand => {
            Some("the snapshot in the output folder is of another command".to_owned())
        }
        KeptSnapshot::OfUnknown(path) => {
            Some(format!("{} does not say what the snapshot beside it is of", path.display()))
        }
        KeptSnapshot::OfSame => match load(system, &folder.snapshot()) {
            Ok(Loaded::Same(machine)) => return Ok(*machine),
            Ok(Loaded::Changed(image)) => {
                Some(format!("{} has changed since the snapshot", image.display()))
            }
            Err(CliError::Snapshot(error)) => Some(ErrorChain(&error).to_string()),
            Err(error) => return Err(error),
        },
    };
    if let Some(reason) = reason {
        status.line(&format!("booting anew, crashes found so far may not reproduce: {reason}"));
    }
    let text = format!("booting {}", guest.name());
    let limit = boot::limit(BOOT_TIMEOUT);
    let samples = samples(args.input.as_deref());
    let machine =
        status.during(&text, || boot::to_snapshot(system, guest, &[], &samples, limit))?;
    if machine.saw_input_while_booting() {
        return Err(CliError::PointAfterInput);
    }
    folder.save(machine.snapshot(), &source)?;
    Ok(machine)
}

/// Nothing, and the first few seeds: what the boot tries, to see which system files a run needs.
/// A folder that cannot be read is the campaign's to complain about.
fn samples(seeds: Option<&Path>) -> Vec<Vec<u8>> {
    let entries = seeds.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let is_small = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= SAMPLE_BYTES_MAX)
    };
    let seeds = paths.iter().filter(|path| is_small(path)).take(SAMPLES_MAX);
    std::iter::once(Vec::new()).chain(seeds.filter_map(|path| fs::read(path).ok())).collect()
}

/// The snapshot that the output folder has, in a machine.
enum Loaded {
    Same(Box<Machine>),
    /// This image's file is another one now.
    Changed(PathBuf),
}

fn load(system: &System, path: &Path) -> Result<Loaded, CliError> {
    let machine = boot::load(system, path, true)?;
    Ok(match folder::changed_image(machine.snapshot()) {
        Some(image) => Loaded::Changed(image),
        None => Loaded::Same(Box::new(machine)),
    })
}

fn in_words(blocks: &Blocks) -> String {
    if blocks.covered.is_empty() {
        return "blocks: none, a bare guest is fuzzed blindly".to_owned();
    }
    let mut words = format!("blocks: {} in {}", blocks.starts.len(), blocks.covered.join(", "));
    if !blocks.uncovered.is_empty() {
        words = words + "; --cover adds " + &blocks.uncovered.join(", ");
    }
    words
}

/// Has the target trace through detours if it can, and says how it traces.
fn tracing_in_words(target: &mut GuestTarget, blocks: &Blocks, detail: Detail) -> String {
    if blocks.starts.is_empty() {
        return "tracing: no blocks".to_owned();
    }
    match target.use_detours(&blocks.detour_images(), detail) {
        Ok(counts) => {
            let DetourCounts { detours, edges, edges_total, .. } = counts;
            let by_breakpoints = counts.breakpoints();
            let more = match target.detail() {
                Detail::Blocks => String::new(),
                Detail::Edges => format!("; {edges} of {edges_total} edges count, too"),
                Detail::Counts => {
                    format!("; {edges} of {edges_total} edges count, too, and how often")
                }
            };
            format!("tracing: {detours} blocks by detours, {by_breakpoints} by breakpoints{more}")
        }
        Err(error) => format!("tracing: by breakpoints, {}", ErrorChain(&error)),
    }
}

/// Has the target log comparisons if it can, and says how.
fn comparisons_in_words(target: &mut GuestTarget, blocks: &Blocks) -> String {
    if blocks.starts.is_empty() {
        return "comparisons: none, a bare guest's are not logged".to_owned();
    }
    match target.log_comparisons(&blocks.detour_images()) {
        Ok(counts) => format!(
            "comparisons: {} logged by detours, {} by breakpoints",
            counts.detours,
            counts.breakpoints()
        ),
        Err(error) => format!("comparisons: not logged, {}", ErrorChain(&error)),
    }
}

/// Shows how a campaign goes.
struct Shown {
    status: Status,
}

impl Progress for Shown {
    fn update(&mut self, stats: &Stats) {
        self.status.set(&status_line(stats));
    }

    fn event(&mut self, event: &Event<'_>) {
        self.status.line(&event.to_string());
    }
}

fn status_line(stats: &Stats) -> String {
    let s = stats.run_time.as_secs();
    let edges = match stats.edges_total {
        0 => String::new(),
        total => format!("  edges {}/{total}", stats.edges_reached),
    };
    format!(
        "{:02}:{:02}:{:02}  {} execs  {:.0}/s  corpus {}  blocks {}/{}{edges}  crashes {}  hangs {}",
        s / 3600,
        s / 60 % 60,
        s % 60,
        stats.execs,
        stats.execs_per_sec_recent,
        stats.corpus,
        stats.blocks_reached,
        stats.blocks_total,
        stats.crashes_unique,
        stats.hangs_unique,
    )
}

/// The end of a campaign, for programs.
#[derive(Serialize)]
struct End {
    reason: &'static str,
    seed: u64,
    run_time_ms: u64,
    execs: u64,
    execs_per_sec: f64,
    corpus: usize,
    blocks_reached: usize,
    blocks_total: usize,
    edges_reached: usize,
    edges_total: usize,
    crashes_unique: u64,
    crashes_total: u64,
    hangs: u64,
    timeouts: u64,
    unreproducible: u64,
    unsupported: u64,
    unsupported_calls: Vec<String>,
    sandbox: Sandbox,
    exits: Option<BatchExits>,
    new_crashes: Vec<NewCrash>,
}

/// How often a run left a batch for the host, and for what: means over all runs of all batches,
/// without the breakpoints of coverage, each of which is hit once in a campaign.
#[derive(Serialize)]
struct BatchExits {
    /// Runs in batches.
    runs: u64,
    /// All exits.
    per_run: f64,
    /// Of these, page faults.
    page_faults_per_run: f64,
    /// Of these, ends of runs that the host has to undo, and of batches.
    ends_per_run: f64,
    /// Of these, the most frequent system calls.
    calls: Vec<CallExits>,
}

#[derive(Serialize)]
struct CallExits {
    name: String,
    per_run: f64,
}

/// System calls in the summary.
const CALLS_SHOWN: usize = 5;

impl BatchExits {
    /// `None` before the first run in a batch.
    fn new(exits: &ExitCounts) -> Option<Self> {
        let calls = exits.calls().into_iter().take(CALLS_SHOWN).filter_map(|(name, count)| {
            exits.of_runs(count).map(|per_run| CallExits { name, per_run })
        });
        Some(Self {
            runs: exits.runs,
            per_run: exits.per_run()?,
            page_faults_per_run: exits.of_runs(exits.page_faults)?,
            ends_per_run: exits.of_runs(exits.ends)?,
            calls: calls.collect(),
        })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "exits: {:.2} per run in batches, of these page faults {:.2}, ends of runs {:.2}",
            self.per_run, self.page_faults_per_run, self.ends_per_run
        );
        for CallExits { name, per_run } in &self.calls {
            text += &format!(", {name} {per_run:.2}");
        }
        text
    }
}

#[derive(Serialize)]
struct NewCrash {
    file: String,
    repro: String,
}

fn finish(
    args: &FuzzArgs,
    summary: &Summary,
    target: &GuestTarget,
    sandbox: Sandbox,
) -> Result<ExitCode, CliError> {
    let end = End::new(summary, target, sandbox);
    if args.json {
        terminal::out_json(&end)?
    } else {
        terminal::out_text(&end.text())?
    }
    let is_missed = args.until_crash && summary.new_crashes.is_empty();
    Ok(if is_missed { ExitCode::Negative } else { ExitCode::Success })
}

impl End {
    fn new(summary: &Summary, target: &GuestTarget, sandbox: Sandbox) -> Self {
        let stats = &summary.stats;
        let own = std::env::args_os().next().unwrap_or_else(|| "dejavm".into());
        let new_crashes = summary.new_crashes.iter().map(|path| NewCrash {
            file: path.to_string_lossy().into_owned(),
            repro: quote::command([own.as_os_str(), "repro".as_ref(), path.as_os_str()]),
        });
        Self {
            reason: match summary.reason {
                StopReason::Requested => "requested",
                StopReason::Duration => "duration",
                StopReason::Executions => "executions",
                StopReason::Crash => "crash",
            },
            seed: summary.seed,
            run_time_ms: stats.run_time.as_millis() as u64,
            execs: stats.execs,
            execs_per_sec: stats.execs_per_sec,
            corpus: stats.corpus,
            blocks_reached: stats.blocks_reached,
            blocks_total: stats.blocks_total,
            edges_reached: stats.edges_reached,
            edges_total: stats.edges_total,
            crashes_unique: stats.crashes_unique,
            crashes_total: stats.crashes_total,
            hangs: stats.hangs_unique,
            timeouts: stats.timeouts_total,
            unreproducible: stats.unreproducible,
            unsupported: stats.unsupported,
            unsupported_calls: target.unsupported_calls(),
            sandbox,
            exits: BatchExits::new(target.exits()),
            new_crashes: new_crashes.collect(),
        }
    }

    fn edges_in_words(&self) -> String {
        match self.edges_total {
            0 => String::new(),
            total => format!(", edges {} of {total}", self.edges_reached),
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![
            format!(
                "stopped ({}) after {}: {} executions, {:.0} per second, seed {}",
                self.reason,
                report::time(self.run_time_ms * 1000),
                self.execs,
                self.execs_per_sec,
                self.seed
            ),
            format!(
                "corpus {}, blocks {} of {}{}, crashes {} ({} in all), hangs {} ({} time-outs)",
                self.corpus,
                self.blocks_reached,
                self.blocks_total,
                self.edges_in_words(),
                self.crashes_unique,
                self.crashes_total,
                self.hangs,
                self.timeouts
            ),
            format!("sandbox: {}", self.sandbox),
        ];
        lines.extend(self.exits.as_ref().map(BatchExits::text));
        if self.unreproducible > 0 {
            lines.push(format!("seen once and not again: {}", self.unreproducible));
        }
        if self.unsupported > 0 {
            lines.push(format!("runs that needed what is not supported: {}", self.unsupported));
        }
        if !self.unsupported_calls.is_empty() {
            lines
                .push(format!("system calls not supported: {}", self.unsupported_calls.join(", ")));
        }
        if !self.new_crashes.is_empty() {
            lines.push("new crashes; to reproduce them:".to_owned());
            lines.extend(self.new_crashes.iter().map(|crash| format!("  {}", crash.repro)));
        }
        lines.join("\n") + "\n"
    }
}
