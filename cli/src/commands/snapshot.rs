//! `dejavm snapshot`: boots to the snapshot point and saves the snapshot.

use crate::args::SnapshotArgs;
use crate::boot;
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::point;
use crate::report;
use crate::sanitizers::Aim;
use crate::terminal::{self, Status};
use dejavm_engine::machine::Limit;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

/// What was saved.
#[derive(Serialize)]
struct SavedSnapshot {
    file: PathBuf,
    kind: &'static str,
    ram_bytes: u64,
    pages_stored: u64,
    file_bytes: u64,
    boot_us: u64,
    save_us: u64,
    point: String,
}

/// Boots and saves.
pub fn run(args: &SnapshotArgs) -> Result<ExitCode, CliError> {
    let mut guest = args.guest.resolve(Aim::Campaign)?;
    let input = match &args.input {
        Some(path) => boot::input(Some(path))?,
        None => Vec::new(),
    };
    let limit: Limit = boot::limit(args.timeout);
    let system = boot::system()?;
    let mut status = Status::new(args.json);
    let start = Instant::now();
    let text = format!("booting {}", guest.name());
    let samples = [input.clone()];
    let machine =
        status.during(&text, || boot::to_snapshot(&system, &mut guest, &input, &samples, limit))?;
    if machine.saw_input_while_booting() {
        status.line(
            "dejavm: warning: the program looks at its input before the point of --at; \
             its runs may not depend on theirs",
        );
    }
    let boot_us = start.elapsed().as_micros() as u64;
    let start = Instant::now();
    let snapshot = machine.snapshot();
    status.during("saving", || snapshot.save(&args.output))?;
    let save_us = start.elapsed().as_micros() as u64;
    status.clear();
    let saved = fs::metadata(&args.output)
        .map_err(|source| CliError::Read { path: args.output.clone(), source })?;
    let facts = SavedSnapshot {
        file: args.output.clone(),
        kind: snapshot.guest.kind(),
        ram_bytes: snapshot.ram_bytes(),
        pages_stored: snapshot.pages.pages(),
        file_bytes: saved.len(),
        boot_us,
        save_us,
        point: point::in_words(snapshot, &boot::symbolizer(machine.process())),
    };
    if args.json {
        terminal::out_json(&facts)?
    } else {
        terminal::out_text(&facts.text())?
    }
    Ok(ExitCode::Success)
}

impl SavedSnapshot {
    fn text(&self) -> String {
        format!(
            "{}: {} of a {} guest's {} in {} pages\nbooted in {}, saved in {}\nsnapshot: {}\n",
            self.file.display(),
            report::size(self.file_bytes),
            self.kind,
            report::size(self.ram_bytes),
            self.pages_stored,
            report::time(self.boot_us),
            report::time(self.save_us),
            self.point
        )
    }
}
