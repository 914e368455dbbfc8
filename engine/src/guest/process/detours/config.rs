//! What detours need to know of a machine. Never changes it.

use super::purpose::Purpose;
use crate::coverage::comparisons::StringFunction;
use crate::linux::process::Process;
use crate::memory::PageFile;
use crate::paging::Tables;
use kvm_bindings::kvm_regs;

/// What detours need to know of the snapshot that they are for.
pub(crate) struct DetourConfig<'a> {
    /// The exact page tables.
    pub tables: &'a Tables,
    pub process: &'a Process,
    pub pages: &'a PageFile,
    pub regs: &'a kvm_regs,
    /// Where the machine has breakpoints of its own that stay.
    pub crash_points: &'a [u64],
    pub purpose: Purpose,
    /// Functions that compare strings, by their addresses.
    pub functions: &'a [(u64, StringFunction)],
}
