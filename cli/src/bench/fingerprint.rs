//! What a measurement was made on: so that two can be set side by side. Reads `/proc` and `/sys`;
//! what cannot be read stays empty. Nothing is decided by it.

use dejavm_engine::host::Report;
use dejavm_engine::kvm::System;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;

const VULNERABILITIES: &str = "/sys/devices/system/cpu/vulnerabilities";

/// A host, and the engine that was measured on it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// The CPU's model name.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Whether the CPU says that it is itself a guest's.
    pub hypervisor: bool,
    /// The TSC's frequency in kHz, as KVM gives it to a guest.
    pub tsc_khz: Option<u32>,
    /// The kernel's release.
    pub kernel: String,
    /// The KVM module.
    pub kvm: String,
    /// Its parameters of interest, such as `kvm_intel.ept`, and whether they are on.
    pub parameters: BTreeMap<String, bool>,
    /// What the kernel says of each of the CPU's vulnerabilities.
    pub vulnerabilities: BTreeMap<String, String>,
    /// The engine's version.
    pub engine: String,
    /// `release`, or `debug`, whose figures say little.
    pub build: String,
    /// Load averages of 1, 5 and 15 minutes when the measurement began.
    pub load: String,
}

/// The TSC's frequency, where KVM knows it.
pub fn tsc_khz(system: &System) -> Option<u32> {
    let khz = system.create_vm().ok()?.create_vcpu().ok()?.tsc_khz().ok()?;
    (khz > 0).then_some(khz)
}

impl Host {
    /// The host that `report` describes.
    pub fn new(report: &Report, tsc_khz: Option<u32>) -> Self {
        let facts = &report.facts;
        let parameter =
            |p: &dejavm_engine::host::Parameter| (format!("{}.{}", p.module, p.name), p.on);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cpu: facts.cpu.clone(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            hypervisor: facts.hypervisor,
            tsc_khz,
            kernel: facts.kernel.clone(),
            kvm: report.flavour.clone(),
            parameters: facts.parameters.iter().map(parameter).collect(),
            vulnerabilities: vulnerabilities(),
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            load: load.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
        }
    }

    /// The fingerprint by field, for people.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let nested = if self.hypervisor { ", itself virtual" } else { "" };
        let tsc = self.tsc_khz.map_or("frequency unknown".to_owned(), |khz| {
            format!("{:.3} MHz", f64::from(khz) / 1e3)
        });
        let parameters: Vec<String> = self
            .parameters
            .iter()
            .map(|(name, on)| format!("{name}={}", if *on { "on" } else { "off" }))
            .collect();
        vec![
            ("CPU", format!("{}, {} CPUs{nested}", self.cpu, self.cpus)),
            ("TSC", tsc),
            ("kernel", self.kernel.clone()),
            ("KVM", [vec![self.kvm.clone()], parameters].concat().join(" ")),
            ("mitigations", summary(&self.vulnerabilities)),
            ("dejavm", format!("{} ({})", self.engine, self.build)),
            ("load", self.load.clone()),
        ]
    }
}

fn vulnerabilities() -> BTreeMap<String, String> {
    let entries = fs::read_dir(VULNERABILITIES).into_iter().flatten().flatten();
    let known = entries.map(|entry| {
        let status = fs::read_to_string(entry.path()).unwrap_or_default();
        (entry.file_name().to_string_lossy().into_owned(), status.trim().to_owned())
    });
    known.collect()
}

/// Which are mitigated, which are open; the number of the others.
fn summary(vulnerabilities: &BTreeMap<String, String>) -> String {
    let with = |prefix: &str| {
        let named = vulnerabilities.iter().filter(|(_, status)| status.starts_with(prefix));
        named.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    let (mitigated, open) = (with("Mitigation"), with("Vulnerable"));
    let list =
        |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    let others = vulnerabilities.len() - mitigated.len() - open.len();
    format!(
        "on for {}; vulnerable: {}; {others} not affected or unknown",
        list(mitigated),
        list(open)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mitigations_are_told_by_name() {
        let of = |name: &str, status: &str| (name.to_owned(), status.to_owned());
        let all = BTreeMap::from([
            of("l1tf", "Not affected"),
            of("spectre_v2", "Mitigation: Retpolines"),
            of("retbleed", "Vulnerable: no microcode"),
        ]);
        assert_eq!(
            summary(&all),
            "on for spectre_v2; vulnerable: retbleed; 1 not affected or unknown"
        );
        assert_eq!(
            summary(&BTreeMap::new()),
            "on for none; vulnerable: none; 0 not affected or unknown"
        );
    }
}
