//! What the host says of itself, for people to read. Nothing is decided by it.

use serde::Serialize;
use std::fs;
use std::path::Path;

/// The host by its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HostFacts {
    /// The kernel's release.
    pub kernel: String,
    /// The CPU's model name.
    pub cpu: String,
    /// Who made it.
    pub vendor: Vendor,
    /// Whether the CPU shows VT-x or AMD-V.
    pub virtualisation: bool,
    /// Whether the CPU says that it is itself a guest's.
    pub hypervisor: bool,
    /// The KVM modules that are loaded, such as `kvm_intel`.
    pub modules: Vec<String>,
    /// Each module's parameters of interest (`nested`, `ept`, `npt`, `unrestricted_guest`).
    pub parameters: Vec<Parameter>,
}

/// A module's parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// Module.
    pub module: String,
    /// Parameter.
    pub name: &'static str,
    /// Whether it is on.
    pub on: bool,
}

/// Who made the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    /// `GenuineIntel`.
    Intel,
    /// `AuthenticAMD` or `HygonGenuine`.
    Amd,
    /// Neither.
    #[default]
    Other,
}

const MODULES: [&str; 3] = ["kvm_intel", "kvm_amd", "kvm_pvm"];
const PARAMETERS: [&str; 4] = ["nested", "ept", "npt", "unrestricted_guest"];

impl HostFacts {
    /// Reads `/proc` and `/sys`; what cannot be read stays empty.
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let modules: Vec<String> = MODULES
            .iter()
            .filter(|module| Path::new("/sys/module").join(module).exists())
            .map(|module| (*module).to_owned())
            .collect();
        let mut parameters = Vec::new();
        for module in &modules {
            for name in PARAMETERS {
                let value = text(&format!("/sys/module/{module}/parameters/{name}"));
                if !value.is_empty() {
                    let on = matches!(value.trim(), "Y" | "1");
                    parameters.push(Parameter { module: module.clone(), name, on });
                }
            }
        }
        let kernel = text("/proc/sys/kernel/osrelease").trim().to_owned();
        Self { kernel, modules, parameters, ..Self::of_cpuinfo(&text("/proc/cpuinfo")) }
    }

    /// The CPU's part, from `/proc/cpuinfo`.
    pub(super) fn of_cpuinfo(cpuinfo: &str) -> Self {
        let field = |name: &str| {
            cpuinfo
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map_or("", |(_, value)| value.trim())
        };
        let flag = |name: &str| field("flags").split_whitespace().any(|flag| flag == name);
        Self {
            cpu: field("model name").to_owned(),
            vendor: match field("vendor_id") {
                "GenuineIntel" => Vendor::Intel,
                "AuthenticAMD" | "HygonGenuine" => Vendor::Amd,
                _ => Vendor::Other,
            },
            virtualisation: flag("vmx") || flag("svm"),
            hypervisor: flag("hypervisor"),
            ..Self::default()
        }
    }

    /// The name of the host's KVM, for display.
    #[must_use]
    pub fn flavour(&self) -> &str {
        self.modules.first().map_or("unknown", String::as_str)
    }

    /// Whether a parameter is there and off.
    pub(super) fn is_off(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name && !parameter.on)
    }

    /// The module that this CPU wants.
    pub(super) fn module_wanted(&self) -> &'static str {
        match self.vendor {
            Vendor::Intel => "kvm_intel",
            Vendor::Amd | Vendor::Other => "kvm_amd",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_read_from_cpuinfo() {
        let text = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: A CPU: fast\n\
                    flags\t\t: fpu vmx hypervisor\n\nprocessor\t: 1\nvendor_id\t: Other\n";
        let facts = HostFacts::of_cpuinfo(text);
        assert_eq!((facts.cpu.as_str(), facts.vendor), ("A CPU: fast", Vendor::Intel));
        assert!(facts.virtualisation && facts.hypervisor);
        assert_eq!(facts.module_wanted(), "kvm_intel");
        assert_eq!(HostFacts::of_cpuinfo("").vendor, Vendor::Other);
    }
}
