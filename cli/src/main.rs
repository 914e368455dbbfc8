//! The `dejavm` command: the only place where engine and corpus meet.
//!
//! Arguments as typed are in [`args`], as resolved in [`guest`]; one file for each subcommand is
//! in [`commands`]. Never touches KVM or an output folder by itself.

#![forbid(unsafe_code)]

mod args;
mod bench;
mod blocks;
mod boot;
mod commands;
mod crash;
mod error;
mod exit_code;
mod folder;
mod guest;
mod harness;
mod heap;
mod numbers;
mod oracles;
mod patience;
mod point;
mod quote;
mod report;
mod sandbox;
mod sanitizers;
mod script;
mod target;
mod terminal;
mod text_rules;
mod values;
mod which;

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    let typed = args::Typed::parse();
    terminal::start_log(typed.verbose);
    let exit = commands::run(typed.command).unwrap_or_else(|error| {
        terminal::note(&error.line());
        error.exit_code()
    });
    std::process::ExitCode::from(exit.code())
}
