//! `dejavm repro`: replays a finding from the snapshot of its campaign.

use crate::args::ReproArgs;
use crate::boot;
use crate::crash;
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::folder::Folder;
use crate::oracles::Oracles;
use crate::point;
use crate::report::{self, Report};
use crate::sandbox::{Sandbox, SandboxStage};
use crate::terminal;
use dejavm_corpus::{CrashFacts, Recorded, hang_limit};
use dejavm_engine::machine::RunReport;
use dejavm_engine::outcome::Outcome;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time limit unless asked otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of standard error that are shown.
const STDERR_BYTES_MAX: usize = 4096;

/// What a replay has to show.
enum Wanted {
    /// The crash that a campaign recorded.
    Recorded(Recorded),
    /// The time limit.
    Hang,
    /// Any crash.
    Crash,
}

/// What a replay showed.
#[derive(Serialize)]
struct Replay {
    reproduced: bool,
    verdict: String,
    input: PathBuf,
    snapshot: PathBuf,
    /// The kind of fault that was recorded, and its stack as far as it is compared.
    recorded: Option<Expected>,
    report: Report,
    stderr: String,
    sandbox: Sandbox,
}

#[derive(Serialize)]
struct Expected {
    kind: String,
    summary: Option<String>,
    stack: Vec<String>,
}

/// Replays.
pub fn run(args: &ReproArgs) -> Result<ExitCode, CliError> {
    let read = |source| CliError::Read { path: args.input.clone(), source };
    let input = boot::input(Some(&args.input))?;
    let path = fs::canonicalize(&args.input).map_err(read)?;
    let out = path.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let snapshot = snapshot_of(args, out)?;
    let wanted = wanted(&path, args)?;
    let limit = args.timeout.or_else(|| default_limit(&wanted, out)).unwrap_or(DEFAULT_TIMEOUT);
    // It writes nothing.
    let stage = SandboxStage::enter_boot(!args.no_sandbox, None);
    let stage = stage.map_err(CliError::Sandbox)?;
    let system = boot::system()?;
    let mut machine = boot::load(&system, &snapshot, true)?;
    let oracles = wanted.oracles();
    oracles.install(&mut machine)?;
    let sandbox = stage.enter_campaign().map_err(CliError::Sandbox)?;
    let run =
        machine.run(&input, boot::limit(limit)).map_err(CliError::machine("run the guest"))?;
    let process = machine.process().cloned();
    let mut report =
        Report::new(&run, process.as_ref(), &mut |at, out| machine.read_virtual(at, out));
    let digest = machine.memory_digest().map_err(CliError::machine("sum up the guest's memory"))?;
    report.memory_crc32 = Some(report::digest(digest));
    let symbolizer = boot::symbolizer(machine.process());
    report.snapshot = Some(point::in_words(machine.snapshot(), &symbolizer));
    let stack = crash::stack_in(&mut machine, &symbolizer, &run);
    let stopped = oracles.facts(&run, &stack, [machine.stdout(), machine.stderr()]);
    if stopped.is_some() {
        report.backtrace = stack.iter().map(crash::frame).collect();
    }
    let (reproduced, verdict) = wanted.compare(&run, &report, stopped);
    let stderr = tail(machine.stderr());
    let recorded = wanted.expected();
    let replay = Replay {
        reproduced,
        verdict,
        input: args.input.clone(),
        snapshot,
        recorded,
        report,
        stderr,
        sandbox,
    };
    if args.json {
        terminal::out_json(&replay)?
    } else {
        terminal::out_text(&replay.text())?
    }
    Ok(if reproduced { ExitCode::Success } else { ExitCode::Negative })
}

fn snapshot_of(args: &ReproArgs, out: &Path) -> Result<PathBuf, CliError> {
    if let Some(path) = &args.snapshot {
        return Ok(path.clone());
    }
    let wanted = Folder::of(out).snapshot();
    match wanted.is_file() {
        true => Ok(wanted),
        false => Err(CliError::NoSnapshot { input: args.input.clone(), wanted }),
    }
}

fn wanted(path: &Path, args: &ReproArgs) -> Result<Wanted, CliError> {
    if let Some(recorded) = Recorded::of(path)? {
        return Ok(Wanted::Recorded(recorded));
    }
    let folder = path.parent().and_then(Path::file_name);
    let is_hang = args.snapshot.is_none() && folder.is_some_and(|name| name == "hangs");
    Ok(if is_hang { Wanted::Hang } else { Wanted::Crash })
}

/// What it took in the campaign to be believed a hang.
fn default_limit(wanted: &Wanted, out: &Path) -> Option<Duration> {
    if !matches!(wanted, Wanted::Hang) {
        return None;
    }
    let stats = fs::read_to_string(out.join("fuzzer_stats")).ok()?;
    let line = stats.lines().find(|line| line.starts_with("exec_timeout"))?;
    let ms = line.split_once(':')?.1.trim().parse::<u64>().ok().filter(|ms| *ms > 0)?;
    Some(hang_limit(Duration::from_millis(ms)))
}

impl Wanted {
    /// Whether the run shows it, and the comparison in words.
    fn compare(
        &self,
        run: &RunReport,
        report: &Report,
        stopped: Option<CrashFacts>,
    ) -> (bool, String) {
        let facts = stopped.or_else(|| facts(run, report));
        match (self, facts) {
            (Self::Recorded(recorded), Some(facts)) if recorded.is_same_as(&facts) => {
                let is_fault = facts.rule.is_none();
                let what = if is_fault { String::new() } else { format!(": {}", facts.summary) };
                (true, format!("reproduced: {} at the recorded place{what}", facts.kind))
            }
            (Self::Recorded(recorded), Some(facts)) => {
                let recorded_words = recorded.facts.as_ref().map(|facts| facts.summary.as_str());
                // From a file of somebody's.
                let words = tail(recorded_words.unwrap_or(recorded.kind()).as_bytes());
                (
                    false,
                    format!(
                        "not reproduced, another crash: recorded {words}; now {}",
                        facts.summary
                    ),
                )
            }
            (Self::Recorded(recorded), None) => (
                false,
                format!("not reproduced: recorded {}; now it {}", recorded.kind(), report.ended),
            ),
            (Self::Hang, _) if run.outcome == Outcome::TimedOut => {
                (true, "reproduced: it reaches the time limit".to_owned())
            }
            (Self::Crash, Some(facts)) => (true, format!("crashed: {}", facts.kind)),
            (Self::Hang | Self::Crash, _) => {
                (false, format!("not reproduced: it {}", report.ended))
            }
        }
    }

    /// The rules by which a run is a crash without a fault.
    fn oracles(&self) -> Oracles {
        match self {
            Self::Recorded(recorded) => Oracles::of_record(recorded),
            Self::Hang | Self::Crash => Oracles::default(),
        }
    }

    fn expected(&self) -> Option<Expected> {
        let Self::Recorded(recorded) = self else { return None };
        let facts = recorded.facts.as_ref();
        Some(Expected {
            kind: recorded.kind().to_owned(),
            summary: facts.map(|facts| facts.summary.clone()),
            stack: facts.map(|facts| facts.stack.clone()).unwrap_or_default(),
        })
    }
}

/// What a campaign would record of the run.
fn facts(run: &RunReport, report: &Report) -> Option<CrashFacts> {
    match (&run.outcome, &report.crash) {
        (Outcome::OutOfMemory, _) => Some(CrashFacts::out_of_memory()),
        (_, Some(crash)) => Some(CrashFacts {
            kind: crash.kind.clone(),
            stack: crash.key.clone(),
            summary: crash.summary.clone(),
            rule: None,
        }),
        _ => None,
    }
}

/// The end of what a program wrote, fit for a terminal.
fn tail(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(STDERR_BYTES_MAX);
    let text = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default());
    terminal::readable(&text)
}

impl Replay {
    fn text(&self) -> String {
        let mut text = format!("{}\n{}", self.verdict, self.report.text());
        if !self.stderr.is_empty() {
            text = text + "\nstandard error:\n" + self.stderr.trim_end_matches('\n') + "\n";
        }
        text + &format!("sandbox: {}\n", self.sandbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_standard_error_cannot_command_a_terminal() {
        assert_eq!(tail(b"a\x1b[2Jb\n\xff"), "a\u{fffd}[2Jb\n\u{fffd}");
        assert_eq!(tail(&[b'x'; 5000]).len(), STDERR_BYTES_MAX);
    }

    #[test]
    fn a_hang_gets_the_time_that_it_took_to_be_believed() {
        let folder = std::env::temp_dir().join(format!("dejavm-repro-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let stats = folder.join("fuzzer_stats");
        assert_eq!(default_limit(&Wanted::Hang, &folder), None);
        fs::write(&stats, "run_time  : 9\nexec_timeout      : 900\n").unwrap();
        assert_eq!(default_limit(&Wanted::Hang, &folder), Some(Duration::from_millis(1800)));
        assert_eq!(default_limit(&Wanted::Crash, &folder), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
