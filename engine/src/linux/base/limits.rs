//! What a process may use up. Never enforces a limit: whoever uses something up does.

use serde::{Deserialize, Serialize};

/// A stored thing that is larger than its limit, or a limit that is larger than any process has.
pub(crate) type Refused = &'static str;

/// What a guest may use up. Passing the limit on memory ends the run as out of memory, one on output
/// as too much output; passing one on files fails the call as a full disk or table would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes kept from standard output.
    pub stdout_bytes: u64,
    /// Bytes kept from standard error.
    pub stderr_bytes: u64,
    /// Open descriptors.
    pub open_files: usize,
    /// Mappings (`vm.max_map_count`).
    pub mappings: usize,
    /// The largest private writable mapping that is granted without `MAP_NORESERVE`: what Linux's
    /// heuristic overcommit makes of a machine's RAM and swap. None of it is RAM until touched.
    pub commit_bytes: u64,
    /// Files, directories and links, the host's included.
    pub files: usize,
    /// Bytes in files that the guest wrote.
    pub file_bytes: u64,
    /// Bytes of all host files read at boot.
    pub host_bytes: u64,
    /// Bytes of arguments and environment together.
    pub argument_bytes: u64,
}

/// [`Limits::open_files`], unless asked otherwise, and the most that a snapshot may have.
pub(crate) const OPEN_FILES_MAX: usize = 1024;
/// [`Limits::files`], likewise.
pub(crate) const FILES_MAX: usize = 65_536;

impl Default for Limits {
    fn default() -> Self {
        Self {
            stdout_bytes: 16 << 20,
            stderr_bytes: 16 << 20,
            open_files: OPEN_FILES_MAX,
            mappings: 65_530,
            commit_bytes: 16 << 30,
            files: FILES_MAX,
            file_bytes: 64 << 20,
            host_bytes: 1 << 30,
            argument_bytes: 1 << 20,
        }
    }
}
