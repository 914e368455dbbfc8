//! What is wrong with a host, what that costs, and the command that mends it.
//!
//! Never runs a command.

use super::facts::{Facts, Vendor};
use super::probes::{Answer, Probe, Weight};
use super::{Extension, extensions};
use crate::kvm::KvmError;
use crate::text::with_causes;
use nix::errno::Errno;
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One thing that is missing or fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What.
    pub what: String,
    /// What it costs.
    pub costs: String,
    /// The command, or the act, that mends it; `None` where nothing does on this host.
    pub mend: Option<String>,
    /// Whether no guest at all can run.
    pub blocks: bool,
}

const NOTHING_RUNS: &str = "no guest can run";

/// Who may use the device node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Name of the group that owns it.
    pub(super) group: String,
    /// Whether that group may read and write it.
    pub(super) group_may: bool,
}

impl Node {
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
    node: Option<&Node>,
    facts: &Facts,
) -> Problem {
    let mend = match (error, node) {
        (KvmError::Open { source: Errno::EACCES | Errno::EPERM, .. }, Some(node)) => {
            permission(device, node)
        }
        (KvmError::Open { source: Errno::ENOENT | Errno::ENODEV | Errno::ENXIO, .. }, _) => {
            no_device(device, facts)
        }
        (KvmError::ApiVersion { .. }, _) => "name KVM's own device, /dev/kvm".to_owned(),
        _ => "see dmesg for what KVM says".to_owned(),
    };
    Problem {
        what: with_causes(error),
        costs: NOTHING_RUNS.to_owned(),
        mend: Some(mend),
        blocks: true,
    }
}

fn permission(device: &Path, node: &Node) -> String {
    let device = device.display();
    if node.group_may && node.group != "root" {
        return format!("sudo usermod -aG {} $USER, then log in again", node.group);
    }
    format!(
        "sudo chgrp kvm {device} && sudo chmod g+rw {device} && sudo usermod -aG kvm $USER, then \
         log in again"
    )
}

fn no_device(device: &Path, facts: &Facts) -> String {
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
pub(super) fn no_vm(error: &KvmError) -> Problem {
    let busy = matches!(error, KvmError::Ioctl { source: Errno::EBUSY, .. });
    let mend = busy.then(|| "end the other hypervisor: sudo modprobe -r vboxdrv".to_owned());
    Problem { what: with_causes(error), costs: NOTHING_RUNS.to_owned(), mend, blocks: true }
}

/// What extensions, probes and parameters tell.
pub(super) fn found(extensions: &[Extension], probes: &[Probe], facts: &Facts) -> Vec<Problem> {
    let missing =
        extensions.iter().filter(|extension| !extension.present).map(|extension| Problem {
            what: format!("{} is missing", extension.name),
            costs: extension.costs.to_owned(),
            mend: extensions::mend(extension.name).map(str::to_owned),
            blocks: extension.needed,
        });
    let failing = probes.iter().filter(|probe| !probe.is_welcome()).map(|probe| Problem {
        what: match &probe.answer {
            Answer::Unknown(why) => format!("{} unknown ({why})", probe.question),
            _ => format!("{} no", probe.question),
        },
        costs: probe.otherwise.to_owned(),
        mend: (probe.weight == Weight::Costs && !facts.virtualisation)
            .then(|| "run on a host with VT-x or AMD-V".to_owned()),
        blocks: false,
    });
    missing.chain(failing).chain(parameters(facts)).collect()
}

fn parameters(facts: &Facts) -> impl Iterator<Item = Problem> {
    let nested = facts.is_off("nested").map(|parameter| Problem {
        what: format!("{} nested is off", parameter.module),
        costs: "no virtual machine on this host can run dejavm itself".to_owned(),
        mend: Some(nested_on(&parameter.module)),
        blocks: false,
    });
    let shadow = facts.is_off("ept").or(facts.is_off("npt")).map(|parameter| Problem {
        what: format!("{} {} is off", parameter.module, parameter.name),
        costs: "page tables are shadowed: slow, and a bare guest that changes its upper-level \
                tables may see a stale translation after a rewind"
            .to_owned(),
        mend: Some(format!(
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

    fn mend_of(errno: Errno, node: Option<&Node>, facts: &Facts) -> String {
        not_opened(Path::new("/dev/kvm"), &open_error(errno), node, facts).mend.unwrap()
    }

    #[test]
    fn a_missing_module_is_loaded_by_the_cpus_vendor() {
        let facts = |vendor, virtualisation, hypervisor| Facts {
            vendor,
            virtualisation,
            hypervisor,
            ..Facts::default()
        };
        let mend = |facts: Facts| mend_of(Errno::ENOENT, None, &facts);
        assert_eq!(mend(facts(Vendor::Intel, true, false)), "sudo modprobe kvm_intel");
        assert_eq!(mend(facts(Vendor::Amd, true, true)), "sudo modprobe kvm_amd");
        assert!(mend(facts(Vendor::Amd, false, false)).contains("BIOS"));
        assert!(mend(facts(Vendor::Intel, false, true)).contains("options kvm_intel nested=1"));
        let container = Facts { modules: vec!["kvm_amd".to_owned()], ..Facts::default() };
        assert!(mend(container).contains("--device /dev/kvm"));
    }

    #[test]
    fn a_closed_device_is_opened_by_its_group() {
        let node = |group: &str, group_may| Node { group: group.to_owned(), group_may };
        let mend = |node: Node| mend_of(Errno::EACCES, Some(&node), &Facts::default());
        assert_eq!(mend(node("kvm", true)), "sudo usermod -aG kvm $USER, then log in again");
        assert!(mend(node("root", false)).starts_with("sudo chgrp kvm /dev/kvm"));
        assert_eq!(group_name("root:x:0:\nkvm:x:104:me\n", 104), "kvm");
        assert_eq!(group_name("", 7), "7");
    }

    #[test]
    fn another_hypervisor_in_the_way_is_named() {
        let error = KvmError::Ioctl { call: "KVM_CREATE_VM", source: Errno::EBUSY };
        assert!(no_vm(&error).mend.unwrap().contains("vboxdrv"));
    }
}
