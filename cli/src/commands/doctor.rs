//! `dejavm doctor`: what this host's KVM can do.

use crate::args::Doctor;
use crate::boot;
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::terminal;
use serde::Serialize;

/// Extensions that the engine uses, by their numbers in `linux/kvm.h`.
const EXTENSIONS: [(&str, u32); 8] = [
    ("KVM_CAP_SYNC_REGS", 74),
    ("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", 168),
    ("KVM_CAP_IMMEDIATE_EXIT", 136),
    ("KVM_CAP_EXIT_ON_EMULATION_FAILURE", 204),
    ("KVM_CAP_XSAVE", 55),
    ("KVM_CAP_XCRS", 56),
    ("KVM_CAP_IRQCHIP", 0),
    ("KVM_CAP_NR_MEMSLOTS", 10),
];

#[derive(Serialize)]
struct Report {
    extensions: Vec<(&'static str, i32)>,
}

/// Asks and tells.
pub fn run(args: &Doctor) -> Result<ExitCode, CliError> {
    let system = boot::system()?;
    let extensions =
        EXTENSIONS.iter().map(|&(name, number)| (name, system.check_extension(number)));
    let report = Report { extensions: extensions.collect() };
    if args.json {
        terminal::out_json(&report)?;
    } else {
        let lines = report.extensions.iter().map(|(name, value)| format!("{name:<40} {value}\n"));
        terminal::out(lines.collect::<String>().as_bytes())?;
    }
    Ok(ExitCode::Success)
}
