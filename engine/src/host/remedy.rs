//! What is wrong with a host, what that costs, and the command that remedies it.
//!
//! Never runs a command.

use super::extensions::{self, Extension};
use super::facts::{HostFacts, Vendor};
use super::probes::{Answer, Probe, Weight};

use crate::kvm::KvmError;
use crate::text::ErrorChain;
use nix::errno::Errno;
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One thing that is missing or fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostProblem {
    /// What.
    pub what: String,
    /// What it costs.
    pub costs: String,
    /// The command, or the act, that remedies it; `None` where nothing does on this host.
    #[serde(rename = "mend")]
    pub remedy: Option<String>,
    /// Whether no guest at all can run.
    pub blocks: bool,
}

const NOTHING_RUNS: &str = "no guest can run";

/// Who may use the device node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeviceNode {
    /// Name of the group that owns it.
    pub(super) group: String,
    /// Whether that group may read and write it.
    pub(super) group_may: bool,
}

impl DeviceNode {
    pub(super) fn read(device: &Path) -> Option<Self> {
        let meta = std::fs::metadata(device).ok()?;
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        Some(Self { group: group_name(&groups, meta.gid()), group_may: meta.mode() & 0o60 == 0o60 })
    }
}

/// The group's name in `/etc/group`, or its number.
fn group_name(groups: &str, gid: u32) -> String {
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(gid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| gid.to_string())
}

/// A device that does not open.
pub(super) fn not_opened(
    device: &Path,
    error: &KvmError,
    node: Option<&DeviceNode>,
    facts: &HostFacts,
) -> HostProblem {
    let remedy = match (error, node) {
        (KvmError::Open { source: Errno::EACCES | Errno::EPERM, .. }, Some(node)) => {
            permission(device, node)
        }
        (KvmError::Open { source: Errno::ENOENT | Errno::ENODEV | Errno::ENXIO, .. }, _) => {
            no_device(device, facts)
        }
        (KvmError::ApiVersion { .. }, _) => "name KVM's own device, /dev/kvm".to_owned(),
        _ => "see dmesg for what KVM says".to_owned(),
    };
    HostProblem {
        what: ErrorChain(error).to_string(),
        costs: NOTHING_RUNS.to_owned(),
        remedy: Some(remedy),
        blocks: true,
    }
}

fn permission(device: &Path, node: &DeviceNode) -> String {
    let device = device.display();
    if node.group_may && node.group != "root" {
        return format!("sudo usermod -aG {} $USER, then log in again", node.group);
    }
    format!(
        "sudo chgrp kvm {device} && sudo chmod g+rw {device} && sudo usermod -aG kvm $USER, then \
         log in again"
    )
}

fn no_device(device: &Path, facts: &HostFacts) -> String {
    if !facts.modules.is_empty() {
        return format!(
            "the kernel has {} loaded, so in a container: start it with --device {}",
            facts.flavour(),
            device.display()
        );
    }
    match (facts.virtualisation, facts.hypervisor, facts.vendor) {
        (true, _, Vendor::Other) => "sudo modprobe kvm_intel || sudo modprobe kvm_amd".to_owned(),
        (true, _, _) => format!("sudo modprobe {}", facts.module_wanted()),
        (false, true, _) => format!(
            "this is a virtual machine without nested virtualisation; on the machine around it: {}",
            nested_on(facts.module_wanted())
        ),
        (false, false, vendor) => {
            let setting = if vendor == Vendor::Intel { "Intel VT-x" } else { "AMD-V (SVM)" };
            format!(
                "turn on {setting} in the firmware's setup (BIOS), then sudo modprobe {}",
                facts.module_wanted()
            )
        }
    }
}

fn nested_on(module: &str) -> String {
    format!(
        "echo 'options {module} nested=1' | sudo tee /etc/modprobe.d/{module}.conf && sudo modprobe \
         -r {module} && sudo modprobe {module}, and give the virtual machine the host's CPU"
    )
}

/// A VM that cannot be made although the device opens.
pub(super) fn no_vm(error: &KvmError) -> HostProblem {
    let busy = matches!(error, KvmError::Ioctl { source: Errno::EBUSY, .. });
    let remedy = busy.then(|| "end the other hypervisor: sudo modprobe -r vboxdrv".to_owned());
    HostProblem {
        what: ErrorChain(error).to_string(),
        costs: NOTHING_RUNS.to_owned(),
        remedy,
        blocks: true,
    }
}

/// A host on which nothing can be tried, because no vCPU could be stopped.
pub(super) fn nothing_tried(error: &KvmError) -> HostProblem {
    HostProblem {
        what: ErrorChain(error).to_string(),
        costs: "no time limit can be kept, so nothing was tried, and no guest can run".to_owned(),
        remedy: None,
        blocks: true,
    }
}

/// What extensions, probes and parameters show.
pub(super) fn found(
    extensions: &[Extension],
    probes: &[Probe],
    facts: &HostFacts,
) -> Vec<HostProblem> {
    let missing =
        extensions.iter().filter(|extension| !extension.present).map(|extension| HostProblem {
            what: format!("{} is missing", extension.name),
            costs: extension.costs.to_owned(),
            remedy: extensions::remedy(extension.name).map(str::to_owned),
            blocks: extension.needed,
        });
    let failing = probes.iter().filter(|probe| !probe.is_welcome()).map(|probe| HostProblem {
        what: match &probe.answer {
            Answer::Unknown(why) => format!("{} unknown ({why})", probe.question),
            _ => format!("{} no", probe.question),
        },
        costs: probe.otherwise.to_owned(),
        remedy: (probe.weight == Weight::Costs && !facts.virtualisation)
            .then(|| "run on a host with VT-x or AMD-V".to_owned()),
        blocks: false,
    });
    missing.chain(failing).chain(parameters(facts)).collect()
}

fn parameters(facts: &HostFacts) -> impl Iterator<Item = HostProblem> {
    let nested = facts.is_off("nested").map(|parameter| HostProblem {
        what: format!("{} nested is off", parameter.module),
        costs: "no virtual machine on this host can run dejavm itself".to_owned(),
        remedy: Some(nested_on(&parameter.module)),
        blocks: false,
    });
    let shadow = facts.is_off("ept").or(facts.is_off("npt")).map(|parameter| HostProblem {
        what: format!("{} {} is off", parameter.module, parameter.name),
        costs: "page tables are shadowed: slow, and a bare guest that changes its upper-level \
                tables may see a stale translation after a rewind"
            .to_owned(),
        remedy: Some(format!(
            "sudo modprobe -r {0} && sudo modprobe {0} {1}=1",
            parameter.module, parameter.name
        )),
        blocks: false,
    });
    nested.into_iter().chain(shadow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_error(source: Errno) -> KvmError {
        KvmError::Open { path: "/dev/kvm".into(), source }
    }

    fn remedy_of(errno: Errno, node: Option<&DeviceNode>, facts: &HostFacts) -> String {
        not_opened(Path::new("/dev/kvm"), &open_error(errno), node, facts).remedy.unwrap()
    }

    #[test]
    fn a_missing_module_is_loaded_by_the_cpus_vendor() {
        let facts = |vendor, virtualisation, hypervisor| HostFacts {
            vendor,
            virtualisation,
            hypervisor,
            ..HostFacts::default()
        };
        let remedy = |facts: HostFacts| remedy_of(Errno::ENOENT, None, &facts);
        assert_eq!(remedy(facts(Vendor::Intel, true, false)), "sudo modprobe kvm_intel");
        assert_eq!(remedy(facts(Vendor::Amd, true, true)), "sudo modprobe kvm_amd");
        assert!(remedy(facts(Vendor::Amd, false, false)).contains("BIOS"));
        assert!(remedy(facts(Vendor::Intel, false, true)).contains("options kvm_intel nested=1"));
        let container = HostFacts { modules: vec!["kvm_amd".to_owned()], ..HostFacts::default() };
        assert!(remedy(container).contains("--device /dev/kvm"));
    }

    #[test]
    fn a_closed_device_is_opened_by_its_group() {
        let node = |group: &str, group_may| DeviceNode { group: group.to_owned(), group_may };
        let remedy =
            |node: DeviceNode| remedy_of(Errno::EACCES, Some(&node), &HostFacts::default());
        assert_eq!(remedy(node("kvm", true)), "sudo usermod -aG kvm $USER, then log in again");
        assert!(remedy(node("root", false)).starts_with("sudo chgrp kvm /dev/kvm"));
        assert_eq!(group_name("root:x:0:\nkvm:x:104:me\n", 104), "kvm");
        assert_eq!(group_name("", 7), "7");
    }

    #[test]
    fn a_vcpu_that_could_not_be_stopped_is_a_problem_and_not_an_empty_report() {
        let problem = nothing_tried(&KvmError::Ioctl { call: "sigaction", source: Errno::EINVAL });
        assert!(problem.blocks && problem.what.contains("sigaction"), "{problem:?}");
    }

    #[test]
    fn another_hypervisor_in_the_way_is_named() {
        let error = KvmError::Ioctl { call: "KVM_CREATE_VM", source: Errno::EBUSY };
        assert!(no_vm(&error).remedy.unwrap().contains("vboxdrv"));
    }
}
