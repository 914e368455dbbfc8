//! `dejavm doctor`: what this host is, what its KVM can do, and what remedies what it cannot.
//!
//! Finding out is the engine's, and about the sandbox the sandbox's own; this only words it.

use crate::args::DoctorArgs;
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::sandbox::{self, Sandbox, SandboxError};
use crate::terminal;
use dejavm_corpus::ErrorChain;
use dejavm_engine::host::{self, Answer, HostReport};
use serde::Serialize;
use std::fmt::Write as _;

/// All that is found out, for programs.
#[derive(Serialize)]
struct Findings<'a> {
    #[serde(flatten)]
    host: &'a HostReport,
    /// As `fuzz` and `repro` will show it, or why they will have none.
    sandbox: String,
}

/// Asks and shows what was found. Negative when process guests cannot run here.
pub fn run(args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let report = host::doctor(&args.device);
    let sandbox = sandbox::probe();
    if args.json {
        terminal::out_json(&Findings { host: &report, sandbox: in_words(&sandbox) })?;
    } else {
        terminal::out_text(&text(&report, &sandbox))?;
    }
    Ok(if report.verdict.process_guests { ExitCode::Success } else { ExitCode::Negative })
}

/// What protects this host from a guest that breaks out.
fn in_words(sandbox: &Result<Sandbox, SandboxError>) -> String {
    match sandbox {
        Ok(sandbox) => sandbox.to_string(),
        Err(error) => format!("NO ({}); needs --no-sandbox", ErrorChain(error)),
    }
}

fn text(report: &HostReport, sandbox: &Result<Sandbox, SandboxError>) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_host(report, &mut out);
    let _ = write_findings(report, &mut out);
    let _ = write_verdict(report, &mut out);
    let _ = writeln!(out, "sandbox of fuzz and repro:   {}", in_words(sandbox));
    out
}

fn write_host(report: &HostReport, out: &mut String) -> std::fmt::Result {
    let facts = &report.facts;
    writeln!(out, "{}: {}", report.device.display(), report.flavour)?;
    writeln!(out, "  kernel   {}", facts.kernel)?;
    writeln!(out, "  CPU      {}", facts.cpu)?;
    for parameter in &facts.parameters {
        let state = if parameter.on { "on" } else { "off" };
        writeln!(out, "  {}.{}: {state}", parameter.module, parameter.name)?;
    }
    Ok(())
}

fn write_findings(report: &HostReport, out: &mut String) -> std::fmt::Result {
    if !report.extensions.is_empty() {
        writeln!(out, "\nextensions (KVM_CHECK_EXTENSION):")?;
    }
    for extension in &report.extensions {
        let mark = match (extension.present, extension.needed) {
            (true, _) => "ok     ",
            (false, true) => "MISSING",
            (false, false) => "absent ",
        };
        writeln!(out, "  {mark}  {:<40} {}", extension.name, extension.value)?;
        if !extension.present {
            writeln!(out, "           without it: {}", extension.costs)?;
        }
    }
    if !report.probes.is_empty() {
        writeln!(out, "\nprobed in throw-away VMs:")?;
    }
    for probe in &report.probes {
        let answer = match &probe.answer {
            Answer::Yes => "yes".to_owned(),
            Answer::No => "no".to_owned(),
            Answer::Unknown(why) => format!("unknown ({why})"),
        };
        writeln!(out, "  {:<66} {answer}", probe.question)?;
    }
    let costs = &report.exit_cost;
    if costs.out_cpl0_ns.is_some() || costs.store_cpl3_ns.is_some() {
        writeln!(out, "\nan exit and back, medians:")?;
    }
    for (what, ns) in [("OUT at CPL 0", costs.out_cpl0_ns), ("store at CPL 3", costs.store_cpl3_ns)]
    {
        if let Some(ns) = ns {
            writeln!(out, "  {what:<15} {ns:>7} ns")?;
        }
    }
    Ok(())
}

fn write_verdict(report: &HostReport, out: &mut String) -> std::fmt::Result {
    if !report.problems.is_empty() {
        writeln!(out, "\nproblems:")?;
    }
    for problem in &report.problems {
        let mark = if problem.blocks { "!" } else { "-" };
        writeln!(out, "  {mark} {}", problem.what)?;
        writeln!(out, "      costs: {}", problem.costs)?;
        if let Some(remedy) = &problem.remedy {
            writeln!(out, "      mend:  {remedy}")?;
        }
    }
    let can = |yes| if yes { "yes" } else { "NO" };
    let verdict = &report.verdict;
    writeln!(out, "\nprocess guests can run here: {}", can(verdict.process_guests))?;
    let note = match (verdict.bare_guests, verdict.bare_guests_complete) {
        (true, false) => " (some instructions at CPL 0 are emulated or missing)",
        _ => "",
    };
    writeln!(out, "bare guests can run here:    {}{note}", can(verdict.bare_guests))
}
