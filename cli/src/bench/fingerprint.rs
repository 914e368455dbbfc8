//! What a measurement was made on: so that two can be set side by side. Reads `/proc` and `/sys`;
//! what cannot be read stays empty. Nothing is decided by it.

use dejavm_engine::host::HostReport;
use dejavm_engine::kvm::System;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;

const MODULES: &str = "/sys/module";
const VULNERABILITIES: &str = "/sys/devices/system/cpu/vulnerabilities";

/// A host, and the engine that was measured on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostFingerprint {
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
    /// Every parameter of `kvm` and of the KVM module, as the kernel words it.
    #[serde(default)]
    pub all_parameters: BTreeMap<String, String>,
    /// Whether the CPU's threads share cores: `on`, `off`, `notsupported`...
    #[serde(default)]
    pub smt: String,
    /// What sets the CPU's frequency; empty where nothing does, as in most virtual machines.
    #[serde(default)]
    pub governor: String,
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

impl HostFingerprint {
    /// The host that `report` describes.
    pub fn new(report: &HostReport, tsc_khz: Option<u32>) -> Self {
        let facts = &report.facts;
        let parameter =
            |p: &dejavm_engine::host::Parameter| (format!("{}.{}", p.module, p.name), p.on);
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let load = text("/proc/loadavg");
        Self {
            cpu: facts.cpu.clone(),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            hypervisor: facts.hypervisor,
            tsc_khz,
            kernel: facts.kernel.clone(),
            kvm: report.flavour.clone(),
            parameters: facts.parameters.iter().map(parameter).collect(),
            all_parameters: all_parameters(&facts.modules),
            smt: text("/sys/devices/system/cpu/smt/control"),
            governor: text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
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
        let known = |name: &str, value: &str| {
            if value.is_empty() { String::new() } else { format!(", {name} {value}") }
        };
        let (smt, governor) = (known("SMT", &self.smt), known("governor", &self.governor));
        vec![
            ("CPU", format!("{}, {} CPUs{nested}{smt}{governor}", self.cpu, self.cpus)),
            ("TSC", tsc),
            ("kernel", self.kernel.clone()),
            ("KVM", [vec![self.kvm.clone()], parameters].concat().join(" ")),
            ("mitigations", summary(&self.vulnerabilities)),
            ("dejavm", format!("{} ({})", self.engine, self.build)),
            ("load", self.load.clone()),
        ]
    }
}

impl HostFingerprint {
    /// What a comparison with `earlier` has to say first: that it is one of two hosts and not of
    /// two builds, or that a build says little. `None` where neither is so.
    pub fn warning(&self, earlier: &Self) -> Option<String> {
        let fields: [(&str, bool); 8] = [
            ("CPU", self.cpu != earlier.cpu || self.hypervisor != earlier.hypervisor),
            ("number of CPUs", self.cpus != earlier.cpus),
            ("SMT", known_to_differ(&self.smt, &earlier.smt)),
            ("governor", known_to_differ(&self.governor, &earlier.governor)),
            ("kernel", self.kernel != earlier.kernel),
            ("KVM module", self.kvm != earlier.kvm),
            ("module parameters", !self.same_parameters(earlier)),
            ("mitigations", self.vulnerabilities != earlier.vulnerabilities),
        ];
        let other: Vec<&str> =
            fields.into_iter().filter(|&(_, differs)| differs).map(|(name, _)| name).collect();
        let mut warning = String::new();
        if !other.is_empty() {
            warning += &format!(
                "WARNING: two hosts, or one that has changed, are compared: not the same {}.\n\
                 The ratios are of the hosts as well as of the builds.\n",
                other.join(", ")
            );
        }
        if self.build != "release" || earlier.build != "release" {
            warning += "WARNING: a debug build's figures say little.\n";
        }
        (!warning.is_empty()).then_some(warning)
    }

    /// Compares every parameter that both know: an older file has only those of interest.
    fn same_parameters(&self, earlier: &Self) -> bool {
        let both = !self.all_parameters.is_empty() && !earlier.all_parameters.is_empty();
        self.parameters == earlier.parameters
            && (!both || self.all_parameters == earlier.all_parameters)
    }
}

/// Whether two values differ, both being known: an older file has neither.
fn known_to_differ(now: &str, earlier: &str) -> bool {
    !now.is_empty() && !earlier.is_empty() && now != earlier
}

/// The parameters of `kvm` and of `modules`, such as `kvm_intel.ept`.
fn all_parameters(modules: &[String]) -> BTreeMap<String, String> {
    let of_module = |module: &str| {
        let entries = fs::read_dir(format!("{MODULES}/{module}/parameters"));
        let module = module.to_owned();
        entries.into_iter().flatten().flatten().map(move |entry| {
            let value = fs::read_to_string(entry.path()).unwrap_or_default();
            let name = entry.file_name().to_string_lossy().into_owned();
            (format!("{module}.{name}"), value.trim().to_owned())
        })
    };
    let modules = std::iter::once("kvm").chain(modules.iter().map(String::as_str));
    modules.flat_map(of_module).collect()
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
    fn another_host_is_warned_of_by_what_differs() {
        let host = HostFingerprint {
            kernel: "6.1".into(),
            build: "release".into(),
            ..HostFingerprint::default()
        };
        assert_eq!(host.warning(&HostFingerprint { load: "9".into(), ..host.clone() }), None);
        let parameter = |value: &str| BTreeMap::from([("kvm.x".to_owned(), value.to_owned())]);
        let of = |kernel: &str, x: &str, build: &str| HostFingerprint {
            kernel: kernel.into(),
            all_parameters: parameter(x),
            build: build.into(),
            ..HostFingerprint::default()
        };
        let warning = of("6.1", "1", "release").warning(&of("6.2", "2", "debug")).unwrap();
        assert!(warning.contains("not the same kernel, module parameters."), "{warning}");
        assert!(warning.contains("debug build"), "{warning}");
        // A file of before all parameters were kept.
        assert_eq!(of("6.1", "1", "release").warning(&host), None);
    }

    #[test]
    fn mitigations_are_listed_by_name() {
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
