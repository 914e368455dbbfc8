//! The process as its kernel sees it: one of each of its parts, and nothing else owns one.
//!
//! Never carries out a system call (`syscalls`), never delivers a signal (`delivery`), and never reads
//! host files (`loader`).

pub(crate) mod settings;
mod stored;

use crate::address::Gva;
use crate::linux::abi::names::system_call_name;
use crate::linux::abi::syscall::{FaultAction, SystemCall};
use crate::linux::base::tracked::Tracked;
use crate::linux::fs::files::Files;
use crate::linux::fs::missing_paths::MissingPaths;
use crate::linux::mm::address_space::AddressSpace;
use crate::linux::mm::mapping::MemoryRlimits;
use crate::linux::mm::uaccess::{Growth, User};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::mm::vma::{Backing, Vma};
use crate::linux::process::settings::{Images, Scalars, Settings};
use crate::linux::sched::threads::Threads;
use crate::linux::strace;
use crate::outcome::{Access, Outcome, Signal};
use crate::stored::{Blob, HasBlobs};
use serde::{Deserialize, Serialize};

/// A process as its kernel sees it: everything but registers and the contents of memory.
///
/// A clone is an independent process in the same state that shares the bytes of host files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    pub(crate) space: Tracked<AddressSpace>,
    pub(crate) files: Files,
    pub(crate) settings: Tracked<Settings>,
    pub(crate) threads: Tracked<Threads>,
    pub(crate) images: Tracked<Images>,
    pub(crate) scalars: Scalars,
    /// The guest's memory, as `/proc` and `sysinfo` tell it.
    pub(crate) ram_bytes: u64,
    pub(crate) missing: Missing,
    #[serde(skip)]
    pub(crate) growth: Growth,
    #[serde(skip)]
    pub(crate) wanted: MissingPaths,
    #[serde(skip)]
    pub(crate) trace: Option<Box<strace::Trace>>,
}

/// Numbers of system calls answered with `ENOSYS`, each once, in the order they came.
///
/// No part of the process's state: it says what the report of a whole campaign should mention,
/// so a rewind keeps it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Missing(pub(crate) Vec<u64>);

/// Different calls that are remembered as missing.
pub(crate) const MISSING_MAX: usize = 64;

impl Missing {
    pub(crate) fn remember(&mut self, nr: u64) {
        if self.0.len() < MISSING_MAX && !self.0.contains(&nr) {
            self.0.push(nr);
        }
    }
}

impl HasBlobs for Process {
    fn for_each_blob(&mut self, visit: &mut dyn FnMut(&mut Blob)) {
        self.files.for_each_blob(visit);
    }
}

impl Process {
    /// The system calls so far as `strace` prints them; nothing, unless
    /// [`trace_calls`](Self::trace_calls) or [`ProcessSpec::trace`](crate::linux::ProcessSpec::trace) asked for them.
    #[must_use]
    pub fn trace(&self) -> &str {
        self.trace.as_ref().map_or("", |trace| trace.text())
    }

    /// Keeps a line for every system call from now on. A rewind does not take lines back.
    pub fn trace_calls(&mut self) {
        self.trace.get_or_insert_default();
    }

    /// What `strace` prints when a process ends like this.
    #[must_use]
    pub fn trace_end(&self, outcome: &Outcome) -> String {
        strace::end(outcome)
    }

    /// Tells what a page fault at `at` means, and brings in a page that was only missing.
    pub fn page_fault(&mut self, at: Gva, access: Access, mem: &mut dyn UserMemory) -> FaultAction {
        let Some(vma) = self.space.vma_at(at.0).copied() else {
            let Some(grown) = self.space.growth(at.page_floor().0, self.memory_rlimits().stack)
            else {
                return FaultAction::Signal(Signal::SEGV);
            };
            let action = self.space.fault_in(&grown, at, access, &self.files, mem);
            if action == FaultAction::Retry {
                self.space.grow(&grown);
            }
            return action;
        };
        self.space.fault_in(&vma, at, access, &self.files, mem)
    }

    /// Whether `at` lies in a mapping that is as it was in `then` and starts as zeros: bringing in
    /// a page of it changes nothing that the process can notice.
    #[must_use]
    pub fn is_lazily_zero(&self, then: &Self, at: Gva) -> bool {
        let vma = self.space.vma_at(at.0);
        vma.is_some_and(|vma| !matches!(vma.backing, Backing::File { .. }))
            && vma == then.space.vma_at(at.0)
    }

    /// Before `call`: gives mappings that `then` has not, and that were to have their pages at once, the
    /// pages that they were not given, if the call depends on which pages are there.
    pub fn settle_pages(&self, then: &Self, call: &SystemCall, mem: &mut dyn UserMemory) {
        let [_, _, prot, ..] = call.args;
        let depends = match call.nr as i64 {
            libc::SYS_mincore | libc::SYS_madvise | libc::SYS_mremap | libc::SYS_sysinfo => true,
            libc::SYS_mprotect => prot == libc::PROT_NONE as u64,
            _ => false,
        };
        if depends {
            self.space.fill_small(&then.space, &self.files, mem);
        }
    }

    /// Whether a fault at `at`, were it to make a stack grow, would change what a later call answers: by
    /// a limit on the address space.
    #[must_use]
    pub fn counts_growth(&self, at: Gva) -> bool {
        self.space.vma_at(at.0).is_none() && self.memory_rlimits().space != u64::MAX
    }

    /// Brings in what else a process will touch that has just touched `at`, in a mapping that `then` has
    /// not: the rest of the library, if it is one.
    pub fn bring_in_new(&self, then: &Self, at: Gva, mem: &mut dyn UserMemory) {
        let shows_file = |vma: &&Vma| matches!(vma.backing, Backing::File { .. });
        let vma = self.space.vma_at(at.0).filter(shows_file);
        if vma.is_some() && vma != then.space.vma_at(at.0) {
            self.space.fill_new(&then.space, &self.files, mem);
        }
    }

    /// Replaces the input's bytes, in the buffer of the last ones. What the process already read
    /// or mapped does not change.
    pub fn set_input(&mut self, input: &[u8]) {
        self.files.input.copy_from(input);
    }

    /// Puts the process back to `snapshot`. The input's bytes stay as they are: each run brings
    /// its own by [`set_input`](Self::set_input).
    pub fn rewind_to(&mut self, snapshot: &Self) {
        self.space.rewind_to(&snapshot.space);
        self.files.rewind_to(&snapshot.files);
        self.settings.rewind_to(&snapshot.settings);
        self.threads.rewind_to(&snapshot.threads);
        self.images.rewind_to(&snapshot.images);
        self.scalars = snapshot.scalars;
    }

    /// Names each difference from `snapshot`; the input's bytes are no difference.
    #[must_use]
    pub fn same_as(&self, snapshot: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        self.space.differences(&snapshot.space, &mut differences);
        self.files.differences(&snapshot.files, &mut differences);
        if *self.settings != *snapshot.settings {
            differences.push("signal handlers or resource limits".to_owned());
        }
        if *self.threads != *snapshot.threads {
            differences.push("threads, their signals or timers".to_owned());
        }
        if *self.images != *snapshot.images {
            differences.push("mapped images".to_owned());
        }
        if self.scalars != snapshot.scalars {
            differences.push(format!("{:?} was {:?}", self.scalars, snapshot.scalars));
        }
        differences
    }

    /// What the process wrote to standard output.
    #[must_use]
    pub fn stdout(&self) -> &[u8] {
        &self.files.stdout.bytes.0
    }

    /// What the process wrote to standard error.
    #[must_use]
    pub fn stderr(&self) -> &[u8] {
        &self.files.stderr.bytes.0
    }

    /// From now on, whatever the boot's limits were, standard output and standard error may have
    /// `bytes_max` bytes each, which includes those that are there.
    pub(crate) fn limit_output(&mut self, bytes_max: u64) {
        self.files.stdout.limit(bytes_max);
        self.files.stderr.limit(bytes_max);
    }

    /// Names of the system calls answered with `ENOSYS` so far, each once; rewinds do not forget
    /// them.
    #[must_use]
    pub fn unsupported_calls(&self) -> Vec<String> {
        self.missing.0.iter().map(|nr| system_call_name(*nr)).collect()
    }

    /// What the process looked for and did not find, in all of its runs.
    #[must_use]
    pub fn wanted(&self) -> &MissingPaths {
        &self.wanted
    }

    /// Whether every call has a line.
    pub(crate) const fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Whether something happens after a number of calls, or a time: calls made without the host
    /// would be missed.
    pub(crate) fn counts_calls(&self) -> bool {
        !self.threads.is_single() || !self.threads.timers.are_idle()
    }

    /// Tells the address space by how much stacks grew in a system call.
    pub(crate) fn settle_growth(&mut self) {
        if let Some(page) = self.growth.take()
            && let Some(grown) = self.space.growth(page, self.memory_rlimits().stack)
        {
            self.space.grow(&grown);
        }
    }

    pub(crate) fn user<'a>(&'a self, mem: &'a mut dyn UserMemory) -> User<'a> {
        let stack_bytes_max = self.memory_rlimits().stack;
        User { space: &self.space, files: &self.files, mem, stack_bytes_max, growth: &self.growth }
    }

    /// The resource limits that are about memory.
    pub(crate) fn memory_rlimits(&self) -> MemoryRlimits {
        let soft = |resource: u32| {
            self.settings.resources.get(resource as usize).map_or(u64::MAX, |(soft, _)| *soft)
        };
        MemoryRlimits {
            space: soft(libc::RLIMIT_AS),
            data: soft(libc::RLIMIT_DATA),
            stack: soft(libc::RLIMIT_STACK),
            locked: soft(libc::RLIMIT_MEMLOCK),
        }
    }
}
