//! What this host is, and what it can do: found by asking and trying, never guessed from a name.
//!
//! Never changes anything on the host, and never runs a machine: what it tries runs in VMs of a
//! few pages that are thrown away, each under a time limit. Stands above `guest`, whose stubs the
//! probes use, and below `machine`, which asks [`require()`] before it makes a VM.

mod cpuid;
mod extensions;
mod facts;
mod probe_vm;
mod probes;
mod program;
mod remedy;
mod require;

pub use cpuid::{guest_cpuid, offered_cpuid};
pub use extensions::Extension;
pub use facts::{HostFacts, Parameter, Vendor};
pub use probes::{Answer, ExitCost, Probe, Weight};
pub use program::{fixed_xcr0, program_cpuid};
pub use remedy::HostProblem;
pub use require::{HostError, require};

use crate::kvm::{KvmError, System};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Everything that `dejavm doctor` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostReport {
    /// The device node that was asked.
    pub device: PathBuf,
    /// The name of the host's KVM, for display only.
    pub flavour: String,
    /// The host by its own words.
    pub facts: HostFacts,
    /// The extensions that the engine uses; empty where the device does not open.
    pub extensions: Vec<Extension>,
    /// What was tried; empty where no VM can be made.
    pub probes: Vec<Probe>,
    /// What an exit costs here.
    pub exit_cost: ExitCost,
    /// What is missing or fails, what that costs, and what remedies it.
    pub problems: Vec<HostProblem>,
    /// What can run.
    pub verdict: SyscallAction,
}

/// What can run on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SyscallAction {
    /// Ordinary programs.
    pub process_guests: bool,
    /// Code at CPL 0.
    pub bare_guests: bool,
    /// Every instruction at CPL 0 that was tried, natively; otherwise KVM emulates some of them.
    pub bare_guests_complete: bool,
}

/// Examines the host behind `device`, usually [`System::DEFAULT_PATH`]. Takes some tenths of
/// a second; a host on which every probe hangs, half a minute.
#[must_use]
pub fn doctor(device: &Path) -> HostReport {
    let facts = HostFacts::read();
    let mut report = HostReport {
        device: device.to_owned(),
        flavour: facts.flavour().to_owned(),
        facts,
        extensions: Vec::new(),
        probes: Vec::new(),
        exit_cost: ExitCost::default(),
        problems: Vec::new(),
        verdict: SyscallAction::default(),
    };
    match System::open_at(device) {
        Ok(system) => examine(&system, &mut report),
        Err(error) => {
            let node = remedy::DeviceNode::read(device);
            report.problems.push(remedy::not_opened(device, &error, node.as_ref(), &report.facts));
        }
    }
    report
}

fn examine(system: &System, report: &mut HostReport) {
    report.extensions = extensions::check(system);
    if let Err(error) = system.create_vm() {
        report.problems = remedy::found(&report.extensions, &[], &report.facts);
        report.problems.push(remedy::no_vm(&error));
        return;
    }
    // Probes of a host without the run page's registers would all fail alike.
    let tried = require(system).is_ok().then(|| try_out(system, report));
    report.problems = remedy::found(&report.extensions, &report.probes, &report.facts);
    if let Some(Err(error)) = tried {
        report.problems.push(remedy::nothing_tried(&error));
    }
}

/// Asks every probe.
fn try_out(system: &System, report: &mut HostReport) -> Result<(), KvmError> {
    crate::kvm::install_kick_handler()?;
    report.probes = probes::ask_all(system);
    report.exit_cost = probes::exit_cost(system);
    report.verdict = SyscallAction::of(&report.probes);
    Ok(())
}

impl SyscallAction {
    fn of(probes: &[Probe]) -> Self {
        let all = |weight| probes.iter().all(|p| p.weight != weight || p.is_welcome());
        let yes = |name| probes.iter().any(|p| p.name == name && p.answer == Answer::Yes);
        // A process guest's stubs run at CPL 0 and exit by OUT.
        let bare_guests = !probes.is_empty() && all(Weight::Bare);
        Self {
            process_guests: bare_guests && all(Weight::Process),
            bare_guests,
            bare_guests_complete: bare_guests && yes("int3_cpl0") && yes("sse_cpl0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(weight: Weight, answer: Answer) -> Probe {
        Probe { name: "a", question: "b?", answer, weight, otherwise: "c" }
    }

    #[test]
    fn a_missing_device_is_a_report_with_its_remedy() {
        let report = doctor(Path::new("/nonexistent/kvm"));
        assert_eq!(report.verdict, SyscallAction::default());
        assert!(report.problems[0].blocks && report.problems[0].remedy.is_some(), "{report:?}");
    }

    #[test]
    fn a_device_that_is_not_kvm_is_a_report_too() {
        let report = doctor(Path::new("/dev/null"));
        assert!(report.problems[0].what.contains("API version"), "{report:?}");
    }

    #[test]
    fn the_verdict_follows_the_probes() {
        assert_eq!(SyscallAction::of(&[]), SyscallAction::default());
        let fine = SyscallAction::of(&[probe(Weight::Differs, Answer::No)]);
        assert!(fine.process_guests && fine.bare_guests && !fine.bare_guests_complete);
        let unknown = Answer::Unknown("probe failed: x".to_owned());
        let no_process = SyscallAction::of(&[probe(Weight::Process, unknown)]);
        assert!(!no_process.process_guests && no_process.bare_guests);
        let nothing = SyscallAction::of(&[probe(Weight::Bare, Answer::No)]);
        assert!(!nothing.process_guests && !nothing.bare_guests);
    }
}
