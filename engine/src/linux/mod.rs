//! A Linux for one process: what a program of x86-64 finds when it makes a system call, takes a
//! signal or touches memory, over in-memory state.
//!
//! Never makes a host system call on behalf of a guest, and never knows a VM, a vCPU or a page
//! table: the program's memory is behind [`UserMemory`], its CPU behind [`Cpu`]. Host files are
//! read by [`Process::load`] and, between two boots, by [`HostFiles::take`], and nowhere else.
//!
//! # Data flow
//!
//! ```text
//! ProcessSpec -> loader -> Process
//! exit -> entry -> syscalls -> (fs, mm, sched, signal, process) -> SyscallResult
//!      -> entry: wait, switch to the next thread -> delivery: signals due -> SyscallAction -> resume
//! ```
//!
//! # Modules
//!
//! A row uses the rows above it, and no row below.
//!
//! | module | one responsibility |
//! |---|---|
//! | `abi` | numbers and names of calls, errors, registers, identities; no state |
//! | `base` | values that can be put back, byte strings, limits |
//! | `cpu` | the boundary to the CPU: a trait, and a thread's context |
//! | `fs` | the tree of files, descriptors, pipes, what the program wrote, what it looked for and did not find |
//! | `mm` | the boundary to memory, copies to and from it, the address space and its VMAs; a mapping shows a file's bytes, so it stands below `fs` |
//! | `signal` | signals as data: siginfo, actions, frames, handler stacks |
//! | `sched` | threads with the signals that they have pending, waits, timers, how a call stops |
//! | `strace` | how a call and a signal are shown; above `process`, which keeps its lines |
//! | `process` | `Process`: owns one of each of the above; nothing else does |
//! | `loader` | ELF, libraries, stack and auxiliary vector, the root file system, host files |
//! | `delivery` | who gets a signal, the way into its handler and back |
//! | `syscalls` | a file for each family of calls, functions named `sys_<call>` |
//! | `entry` | one call from beginning to end: made, waited in, made again, and what follows it |
//!
//! # Where a system call is
//!
//! `syscalls::dispatch` leads from each number to its function, `sys_<call>`, in:
//!
//! | file of `syscalls` | calls |
//! |---|---|
//! | `file` | read, write, pread64, pwrite64 |
//! | `iovec` | readv, writev, preadv, pwritev, preadv2, pwritev2 |
//! | `copy` | sendfile, copy_file_range |
//! | `pipe` | pipe, pipe2 |
//! | `event` | eventfd, eventfd2, epoll_*, memfd_create |
//! | `poll` | poll, ppoll, select, pselect6 |
//! | `descriptor` | close, close_range, dup*, fcntl, ioctl, lseek, ftruncate, fallocate, fsync and its like |
//! | `open` | open, openat, creat, umask |
//! | `path` | readlink*, getcwd, chdir, fchdir, mkdir*, unlink*, rmdir, rename*, symlink*, link*, truncate |
//! | `stat` | stat, lstat, fstat, newfstatat, statx, statfs, fstatfs, access, faccessat* |
//! | `xattr` | chmod, chown, utimensat and extended attributes |
//! | `getdents` | getdents, getdents64 |
//! | `socket` | every call on sockets: there are none |
//! | `mmap` | mmap, munmap |
//! | `memory` | brk, mprotect, mremap, membarrier, protection keys |
//! | `residency` | madvise, mincore, msync, mlock* |
//! | `signal` | rt_sig*, sigaltstack, kill, tkill, tgkill, pause |
//! | `thread` | clone, clone3, exit, exit_group, set_tid_address, set_robust_list, gettid |
//! | `futex` | futex |
//! | `time` | clock_*, gettimeofday, time, times, getrusage, nanosleep |
//! | `timer` | alarm, setitimer, getitimer, timer_* |
//! | `identity` | who and where the process is: get*id, setuid, setgid, uname, sysinfo, prctl, arch_prctl, getrandom, rlimits |
//! | `scheduling` | sched_*, getcpu, getpriority, get_mempolicy |
//! | `capability` | capget, capset |
//!
//! Not calls: `proc` writes the files of `/proc/self`, `observe` tells which calls see the input,
//! `repeat` which give the same answer again,
//! `missing_paths` notes what was looked for and not found, `shared_files` keeps mapped files and files the
//! same.

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

pub use abi::registers::Registers;
pub use abi::syscall::{FaultAction, SyscallAction, SystemCall};
pub use base::limits::Limits;
pub use cpu::{Cpu, ExtendedLayout};
pub use fs::missing_paths::MissingPaths;
pub use loader::elf::has_interpreter;
pub use loader::host_files::HostFiles;
pub use loader::host_files::policy::is_system_path;
pub use loader::images::LoadedImage;
pub use loader::spec::{
    CpuFacts, FileMapping, INPUT_PATH, InputChannel, LoadError, MadeFile, ProcessSpec, Start,
    WORKING_DIRECTORY,
};
pub use mm::bounds::ENGINE_RESERVE;
pub use mm::user_memory::{Inaccessible, OutOfFrames, PageRange, Prot, UserMemory};
pub use process::Process;
