//! Process guests: an ordinary Linux x86-64 program at CPL 3 with no guest kernel.
//!
//! This module is the program's kernel: loader, address space, files and system calls, all over
//! in-memory state. It never makes a host system call on behalf of a guest, and never touches a
//! vCPU. Host files are read by [`Process::load`] and, between two boots,
//! by [`SystemFiles::take`], and nowhere else.

pub mod agent;
mod bytes;
mod calls;
pub mod cpu;
mod discard;
mod elf;
mod errno;
mod files;
mod host;
mod libraries;
mod load;
mod mapping;
pub mod memory;
mod names;
mod observe;
pub mod pages;
mod remap;
pub mod rewrite;
mod settings;
mod sharing;
mod signals;
mod space;
mod spec;
mod stack;
mod stored;
mod strace;
mod surroundings;
mod system;
#[cfg(test)]
mod tests;
mod threads;
mod timers;
mod tracked;
pub mod trap;
mod user;

pub use space::ENGINE_RESERVE;
pub use spec::{
    CpuFacts, FileMapping, INPUT_PATH, InputChannel, Limits, LoadError, ProcessSpec, Start,
    WORKING_DIRECTORY,
};
pub use system::{SystemFiles, Wanted, is_system_path};

use crate::address::Gva;
use crate::memory::SharedBytes;
use crate::outcome::{Access, Outcome, Signal};
use crate::snapshot::{Blob, HasBlobs};
use cpu::Cpu;
use files::Files;
use mapping::Room;
use memory::UserMemory;
use serde::{Deserialize, Serialize};
use settings::{Images, Scalars, Settings};
use space::Space;
use std::path::PathBuf;
use threads::Threads;
use tracked::Tracked;
use user::{Growth, User};

/// A process as its kernel sees it: everything but registers and the contents of memory.
///
/// A clone is an independent process in the same state that shares the bytes of host files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    space: Tracked<Space>,
    files: Files,
    settings: Tracked<Settings>,
    threads: Tracked<Threads>,
    images: Tracked<Images>,
    scalars: Scalars,
    /// The guest's memory, as `/proc` and `sysinfo` tell it.
    ram_bytes: u64,
    missing: Missing,
    #[serde(skip)]
    growth: Growth,
    #[serde(skip)]
    wanted: Wanted,
    #[serde(skip)]
    trace: Option<Box<strace::Trace>>,
}

/// A system call as the registers give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemCall {
    /// RAX.
    pub nr: u64,
    /// RDI, RSI, RDX, R10, R8, R9.
    pub args: [u64; 6],
}

impl SystemCall {
    /// The call's name, such as `read`; `syscall_<number>` for one without a name here.
    #[must_use]
    pub fn name(&self) -> String {
        names::system_call_name(self.nr)
    }
}

/// What the machine does after a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Resume with this in RAX.
    Return(u64),
    /// Resume with the registers as they are in the CPU now.
    Resumed,
    /// The process ended by itself.
    Exit {
        /// The status a shell would see.
        status: u8,
    },
    /// The process ended by a signal.
    Signal(Signal),
    /// A limit on output was passed, or the machine's memory is used up.
    OutOfMemory,
    /// The process waits for what can never come: it would hang for ever.
    Hang,
    /// The program cannot go on: it needs this, which is not provided.
    Unsupported(String),
}

/// What the machine does after a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultVerdict {
    /// The page is there now: run the instruction again.
    Retry,
    /// The process ends by this signal.
    Signal(Signal),
    /// The machine's memory is used up.
    OutOfMemory,
}

/// An executable image in the process's address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// Absolute path.
    pub path: PathBuf,
    /// What to add to the addresses in the image's own symbols: its load bias.
    pub base: u64,
    /// Address of the image's entry point, its bias included.
    pub entry: u64,
    /// The ELF file.
    pub bytes: SharedBytes,
}

/// Numbers of system calls answered with `ENOSYS`, each once, in the order they came.
///
/// No part of the process's state: it says what the report of a whole campaign should mention,
/// so a rewind keeps it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Missing(Vec<u64>);

/// Different calls that are remembered as missing.
const MISSING_MAX: usize = 64;

impl Missing {
    fn remember(&mut self, nr: u64) {
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
    /// Loads the program of `spec` into `mem`, which holds nothing yet, and tells where it
    /// starts. No other function of a process reads host files.
    pub fn load(
        spec: &ProcessSpec,
        input: &[u8],
        mem: &mut dyn UserMemory,
    ) -> Result<(Self, Start), LoadError> {
        load::load(spec, input, mem)
    }

    /// Carries out one system call. The CPU's registers are those behind the instruction, but for
    /// RAX, which is the call's number or its result.
    pub fn syscall(
        &mut self,
        call: &SystemCall,
        mem: &mut dyn UserMemory,
        cpu: &mut dyn Cpu,
    ) -> Verdict {
        self.answer(call, mem, cpu)
    }

    /// The system calls so far as `strace` prints them; nothing, unless
    /// [`trace_calls`](Self::trace_calls) or [`ProcessSpec::trace`] asked for them.
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
    pub fn page_fault(
        &mut self,
        at: Gva,
        access: Access,
        mem: &mut dyn UserMemory,
    ) -> FaultVerdict {
        let Some(area) = self.space.area_at(at.0).copied() else {
            let Some(grown) = self.space.growth(at.page_floor().0, self.room().stack) else {
                return FaultVerdict::Signal(Signal::SEGV);
            };
            let verdict = self.space.fault_in(&grown, at, access, &self.files, mem);
            if verdict == FaultVerdict::Retry {
                self.space.grow(&grown);
            }
            return verdict;
        };
        self.space.fault_in(&area, at, access, &self.files, mem)
    }

    /// Whether `at` lies in a mapping that is as it was in `then` and starts as zeros: bringing in
    /// a page of it changes nothing that the process can notice.
    #[must_use]
    pub fn is_lazily_zero(&self, then: &Self, at: Gva) -> bool {
        let area = self.space.area_at(at.0);
        area.is_some_and(|area| !matches!(area.backing, space::Backing::File { .. }))
            && area == then.space.area_at(at.0)
    }

    /// Whether `call` would see the input's contents or size. The first such call is the default
    /// snapshot point: up to it every input gives the same process.
    #[must_use]
    pub fn observes_input(&self, call: &SystemCall, mem: &dyn UserMemory) -> bool {
        observe::observes_input(self, call, mem)
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

    /// Names of the system calls answered with `ENOSYS` so far, each once; rewinds do not forget
    /// them.
    #[must_use]
    pub fn unsupported_calls(&self) -> Vec<String> {
        self.missing.0.iter().map(|nr| names::system_call_name(*nr)).collect()
    }

    /// What the process looked for and did not find, in all of its runs.
    #[must_use]
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The images in the address space: the program first, then its interpreter, then libraries
    /// in the order in which they were mapped.
    #[must_use]
    pub fn images(&self) -> Vec<LoadedImage> {
        let images = self.images.0.iter().filter_map(|image| {
            let bytes = self.files.image(image.node)?;
            let entry = elf::entry_of(&bytes)?.wrapping_add(image.base);
            Some(LoadedImage { path: PathBuf::from(&image.path), base: image.base, entry, bytes })
        });
        images.collect()
    }

    /// Whether something happens after so many calls, or so much time: calls made without the host
    /// would be missed.
    fn counts_calls(&self) -> bool {
        !self.threads.is_single() || !self.threads.timers.are_idle()
    }

    fn user<'a>(&'a self, mem: &'a mut dyn UserMemory) -> User<'a> {
        let stack_bytes_max = self.room().stack;
        User { space: &self.space, files: &self.files, mem, stack_bytes_max, growth: &self.growth }
    }

    /// The resource limits that are about memory.
    fn room(&self) -> Room {
        let soft = |resource: u32| {
            self.settings.resources.get(resource as usize).map_or(u64::MAX, |(soft, _)| *soft)
        };
        Room {
            space: soft(libc::RLIMIT_AS),
            data: soft(libc::RLIMIT_DATA),
            stack: soft(libc::RLIMIT_STACK),
            locked: soft(libc::RLIMIT_MEMLOCK),
        }
    }
}
