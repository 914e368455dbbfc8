//! `dejavm bench`: measures exits or rewinds on this host, and compares with an earlier time.
//!
//! Measuring and wording are in `bench`; this only says what goes where.

use crate::args::{BenchArgs, Measurement};
use crate::bench;
use crate::bench::context::Context;
use crate::bench::figures::{BenchReport, FORMAT};
use crate::bench::fingerprint::{self, HostFingerprint};
use crate::bench::sample::Plan;

use crate::boot;
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::terminal::{self, Status};
use dejavm_engine::host;
use dejavm_engine::kvm::System;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Samples where nothing else was asked for.
const SAMPLES: u32 = 1_000;
/// The longest that a row takes then; `rewind` has 54.
const EXITS_ROW_TIME_MAX: Duration = Duration::from_millis(600);
const CAMPAIGN_ROW_TIME_MAX: Duration = Duration::from_secs(12);
const BOOT_ROW_TIME_MAX: Duration = Duration::from_secs(6);
const REWIND_ROW_TIME_MAX: Duration = Duration::from_millis(900);

impl Measurement {
    const fn word(self) -> &'static str {
        match self {
            Self::Exits => "exits",
            Self::Rewind => "rewind",
            Self::Boot => "boot",
            Self::Campaign => "campaign",
        }
    }

    fn plan(self, samples: Option<u32>) -> Plan {
        let (row_time_max, block) = match self {
            Self::Exits => (EXITS_ROW_TIME_MAX, 1),
            Self::Rewind => (REWIND_ROW_TIME_MAX, 8),
            Self::Boot => (BOOT_ROW_TIME_MAX, 1),
            Self::Campaign => (CAMPAIGN_ROW_TIME_MAX, 1),
        };
        Plan {
            samples: samples.unwrap_or(SAMPLES) as usize,
            row_time_max: if samples.is_some() { Duration::MAX } else { row_time_max },
            block,
        }
    }
}

/// Measures and shows the figures.
pub fn run(args: &BenchArgs) -> Result<ExitCode, CliError> {
    if let Some(path) = &args.first_run {
        bench::boot::first_run(path, args.machines)?;
        return Ok(ExitCode::Success);
    }
    // Before a minute of measuring, not after it.
    let earlier = args.compare.as_deref().map(|path| read(path, args.what)).transpose()?;
    let report = measure(args)?;
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    match &args.json {
        Some(_) if to_stdout => terminal::out_json(&report)?,
        Some(path) => dejavm_corpus::write_atomically(path, &terminal::json(&report)?)?,
        None => {}
    }
    let mut text = bench::table::text(&report);
    if let Some(earlier) = &earlier {
        text.push('\n');
        text.push_str(&bench::table::comparison(earlier, &report));
    }
    if to_stdout {
        terminal::err_text(&text);
    } else {
        terminal::out_text(&text)?;
    }
    Ok(ExitCode::Success)
}

fn measure(args: &BenchArgs) -> Result<BenchReport, CliError> {
    let system = boot::system()?;
    let mut status = Status::new(false);
    let path = Path::new(System::DEFAULT_PATH);
    let examined = status.during("probing the host", || host::doctor(path));
    let tsc_khz = fingerprint::tsc_khz(&system);
    let host = HostFingerprint::new(&examined, tsc_khz);
    let plan = args.what.plan(args.samples);
    let only = &args.only;
    let mut context = Context { system: &system, host: &examined, plan, tsc_khz, only, status };
    let rows = match args.what {
        Measurement::Exits => bench::exits::measure(&mut context)?,
        Measurement::Rewind => bench::rewind::measure(&mut context)?,
        Measurement::Boot => bench::boot::measure(&mut context)?,
        Measurement::Campaign => bench::campaign::measure(&mut context)?,
    };
    context.status.clear();
    Ok(BenchReport { format: FORMAT, bench: args.what.word().to_owned(), host, rows })
}

/// An earlier measurement of the same kind.
fn read(path: &Path, what: Measurement) -> Result<BenchReport, CliError> {
    let bytes =
        fs::read(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let report: BenchReport = serde_json::from_slice(&bytes)
        .map_err(|source| CliError::NotABench { path: path.to_owned(), source })?;
    if report.bench != what.word() || report.format != FORMAT {
        let form = |bench: &str, format| format!("`{bench}` in format {format}");
        return Err(CliError::OtherBench {
            path: path.to_owned(),
            found: form(&report.bench, report.format),
            wanted: form(what.word(), FORMAT),
        });
    }
    Ok(report)
}
