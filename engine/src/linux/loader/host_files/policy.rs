//! Which of the host's files a guest may have. Never opens one.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Where a host keeps what its programs share. Nothing here is a user's, or changes by itself.
const PREFIXES: [&str; 8] =
    ["/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/etc"];

/// Readable, but what this host is or has, and so not for a guest; the guest has some of these of
/// its own. A folder stands for all it holds.
const KEPT_BACK: [&str; 22] = [
    "/etc/adjtime",
    "/etc/fstab",
    "/etc/group",
    "/etc/group-",
    "/etc/gshadow",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/mtab",
    "/etc/network",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/passwd-",
    "/etc/resolv.conf",
    "/etc/shadow",
    "/etc/ssh",
    "/etc/ssl/private",
    "/etc/subgid",
    "/etc/subuid",
    "/etc/timezone",
];

/// Whether the policy allows a host path, whatever is there.
#[must_use]
pub fn is_system_path(path: &Path) -> bool {
    PREFIXES.iter().any(|prefix| path.starts_with(prefix))
        && !KEPT_BACK.iter().any(|kept| path.starts_with(kept))
}

/// Whether any user of the host could read this file or list this directory.
pub(crate) fn is_public(metadata: &Metadata) -> bool {
    let needed = if metadata.is_dir() { 0o005 } else { 0o004 };
    metadata.mode() & needed == needed
}
