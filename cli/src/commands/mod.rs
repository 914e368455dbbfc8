//! One file for each subcommand. Each gives its exit status back, and never exits.

mod bench;
mod doctor;
mod fuzz;
mod inspect;
mod repro;
mod run;
mod snapshot;

use crate::args::Command;
use crate::error::CliError;
use crate::exit_code::ExitCode;

/// Carries out a subcommand.
pub fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Repro(args) => repro::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}
