//! A Linux for one process: an ordinary x86-64 program, with no kernel below it.
//!
//! Never makes a host system call on behalf of a guest, and never knows a VM, a vCPU or a page table.

pub(crate) mod abi;
pub(crate) mod base;
pub(crate) mod cpu;
mod delivery;
mod entry;
pub(crate) mod fs;
pub(crate) mod loader;
pub(crate) mod mm;
pub(crate) mod process;
pub(crate) mod sched;
pub(crate) mod signal;
mod strace;
pub(crate) mod syscalls;
#[cfg(test)]
pub(crate) mod tests;

pub use abi::syscall::{FaultAction, SyscallAction, SystemCall};
pub use base::limits::Limits;
pub use fs::missing_paths::MissingPaths;
pub use loader::host_files::HostFiles;
pub use loader::host_files::policy::is_system_path;
pub use loader::images::LoadedImage;
pub use loader::spec::{
    CpuFacts, FileMapping, INPUT_PATH, InputChannel, LoadError, ProcessSpec, Start,
    WORKING_DIRECTORY,
};
pub use mm::bounds::ENGINE_RESERVE;
pub use mm::user_memory::{Inaccessible, OutOfFrames, PageRange, Prot, UserMemory};
pub use process::Process;
