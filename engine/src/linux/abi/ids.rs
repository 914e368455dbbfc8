//! Who the process is: the only one there is. No state.

/// The user and group every guest runs as.
pub(crate) const USER_ID: u32 = 1000;
/// The process, its first thread, its group and its session.
pub(crate) const PROCESS_ID: u64 = 1000;
/// Its parent, which it can never see.
pub(crate) const PARENT_ID: u64 = 999;
