//! Which paths are left: landlock (Linux 5.13, where it is among the security modules in use).
//!
//! What an older landlock does not know, it does not restrict: truncation before Linux 6.2, TCP
//! before 6.7, ioctls on devices before 6.10. Of these only the first matters under the filter of
//! system calls. A path that was opened before stays open.

use super::error::{SandboxError, SelfContained};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, RestrictSelfAttr, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, make_bitflags,
};
use std::path::Path;

/// The newest landlock whose restrictions are asked for.
const NEWEST: ABI = ABI::V5;
/// What the boot opens for writing beside the output folder.
const KVM: &str = "/dev/kvm";

/// Whether landlock restricts paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landlock {
    /// It does.
    On,
    /// The kernel has none, or does not use it.
    Missing,
}

/// What a campaign does in its output folder once its folders are there. A rename stays in one
/// folder, so that it needs no right of its own.
const IN_OUT: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | RemoveFile | MakeReg | Truncate
});

/// From here on this thread, and those that it starts, write nothing but what is below `out`, and
/// KVM's device, and execute nothing.
pub fn write_only_below(out: Option<&Path>) -> Result<Landlock, SandboxError> {
    let writes = AccessFs::from_write(NEWEST);
    let mut rules = Ruleset::default().handle_access(writes | AccessFs::Execute)?.create()?;
    if let Some(out) = out {
        rules = allow(rules, out, writes)?;
    }
    // Without the device there will be no guest either, and an error that says so better.
    if let Ok(device) = PathFd::new(KVM) {
        let access = AccessFs::WriteFile | AccessFs::IoctlDev;
        rules = rules.add_rule(PathBeneath::new(device, access))?;
    }
    restrict(rules)
}

/// From here on this thread, and where the kernel can do that (Linux 7.0) every other, opens
/// nothing but what is below `out`, and makes no TCP connection.
pub fn only_below(out: Option<&Path>) -> Result<Landlock, SandboxError> {
    let rules = everything()?;
    let rules = match out {
        Some(out) => allow(rules, out, IN_OUT)?,
        None => rules,
    };
    restrict(rules.all_threads(true)?)
}

/// Whether this thread can be restricted; afterwards it is.
pub fn probe() -> Result<Landlock, SandboxError> {
    restrict(everything()?)
}

fn everything() -> Result<RulesetCreated, SandboxError> {
    let rules = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?;
    Ok(rules.handle_access(AccessNet::from_all(NEWEST))?.create()?)
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    let opened = PathFd::new(path);
    let opened = opened.map_err(|error| SandboxError::Path {
        path: path.to_owned(),
        source: SelfContained(error),
    })?;
    Ok(rules.add_rule(PathBeneath::new(opened, access))?)
}

fn restrict(rules: RulesetCreated) -> Result<Landlock, SandboxError> {
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Landlock::Missing,
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Landlock::On,
    })
}
