//! What to boot, within which limits, and why booting may fail. Never reads a file.

use crate::linux::base::limits::Limits;
use crate::linux::loader::host_files::HostFiles;
use crate::text::OneLine;
use std::ffi::OsString;
use std::path::PathBuf;

/// Guest path of the input when a caller has no wish of its own: what replaces `@@` in the
/// arguments. It lies in the guest's working directory, where the guest may create files.
pub const INPUT_PATH: &str = "/work/input";

/// The guest's working directory: relative guest paths start here.
pub const WORKING_DIRECTORY: &str = "/work";

/// A program, its surroundings and its limits. Host paths are read at boot and never again.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// The program on the host; also `argv[0]`, as typed.
    pub program: PathBuf,
    /// `argv[1..]`, with `@@` already replaced.
    pub args: Vec<OsString>,
    /// The environment, `NAME=value` each.
    pub env: Vec<OsString>,
    /// Host files, or directories with all they hold, that the guest can read.
    pub files: Vec<FileMapping>,
    /// Files that are on no host.
    pub made: Vec<MadeFile>,
    /// Files of the host's system, under their own paths, that an earlier boot asked for.
    pub system: HostFiles,
    /// How the guest reads its input.
    pub input: InputChannel,
    /// What the guest may use up.
    pub limits: Limits,
    /// What the auxiliary vector tells about the CPU.
    pub cpu: CpuFacts,
    /// Whether a line is kept for every system call, see [`Process::trace`](crate::linux::process::Process::trace).
    pub trace: bool,
    /// Seed of `getrandom`, `/dev/urandom` and `AT_RANDOM`.
    pub seed: u64,
}

impl ProcessSpec {
    /// `program` without arguments, environment or files, its input on standard input.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            made: Vec::new(),
            system: HostFiles::default(),
            input: InputChannel::Stdin,
            limits: Limits::default(),
            cpu: CpuFacts::default(),
            trace: false,
            seed: 0,
        }
    }
}

/// A host file under its path in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMapping {
    /// Read once, at boot.
    pub host: PathBuf,
    /// Relative paths start at [`WORKING_DIRECTORY`].
    pub guest: PathBuf,
}

/// A file that is made of these bytes, which the guest can read and execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeFile {
    /// Relative paths start at [`WORKING_DIRECTORY`].
    pub guest: PathBuf,
    /// All of it.
    pub bytes: &'static [u8],
}

/// How the guest reads its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputChannel {
    /// As standard input redirected from a file.
    Stdin,
    /// As a file; standard input is empty.
    File {
        /// Relative paths start at [`WORKING_DIRECTORY`].
        guest: PathBuf,
    },
}

/// What the auxiliary vector tells a program about the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFacts {
    /// `AT_HWCAP`: EDX of CPUID leaf 1.
    pub hwcap: u32,
    /// `AT_MINSIGSTKSZ`: what a signal frame takes with the guest's XSAVE area.
    pub signal_stack_bytes_min: u64,
}

impl Default for CpuFacts {
    /// What every x86-64 CPU has, and room for AVX-512 state.
    fn default() -> Self {
        Self { hwcap: 0x178b_fbff, signal_stack_bytes_min: 3632 }
    }
}

/// The first instruction of a loaded process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer, at `argc`.
    pub rsp: u64,
}

/// Why a program could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The host refused a read.
    #[error("read {}: check that the path is right and readable", OneLine(path))]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A directory in a file's place.
    #[error("load {}: it is a directory; name a program in it", OneLine(path))]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// A `#!` script.
    #[error(
        "load {}: it is a script for {1}; run {1} with the script as argument and map the script as a \
         file", OneLine(path), OneLine(interpreter.as_ref())
    )]
    Script {
        /// The script.
        path: PathBuf,
        /// What its first line names.
        interpreter: String,
    },
    /// No ELF magic.
    #[error("load {}: it is no ELF executable; build the target for Linux x86-64", OneLine(path))]
    NotElf {
        /// The file.
        path: PathBuf,
    },
    /// A 32-bit program.
    #[error("load {}: it is a 32-bit program; build it with -m64", OneLine(path))]
    Not64Bit {
        /// The file.
        path: PathBuf,
    },
    /// Another architecture.
    #[error(
        "load {}: it is for another machine (ELF machine {machine}); build it for x86-64",
        OneLine(path)
    )]
    OtherMachine {
        /// The file.
        path: PathBuf,
        /// `e_machine`.
        machine: u16,
    },
    /// An ELF file that is no program, such as an object file or a core dump.
    #[error("load {}: it is no executable (ELF type {kind}); link it first", OneLine(path))]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// `e_type`.
        kind: u16,
    },
    /// An ELF file whose headers contradict themselves or the file.
    #[error("load {}: damaged ELF file: {what}; build or copy it again", OneLine(path))]
    BadElf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A segment where no program may be.
    #[error(
        "load {}: segment at {start:#x} to {end:#x} is outside of user space or in the engine's \
         reserve; link it at another address or as PIE",
        OneLine(path)
    )]
    Placement {
        /// The file.
        path: PathBuf,
        /// First address.
        start: u64,
        /// First address beyond.
        end: u64,
    },
    /// More arguments than fit.
    #[error("build the stack: {bytes} bytes of arguments and environment, {max} allowed")]
    ArgumentsTooLong {
        /// Their size.
        bytes: u64,
        /// [`Limits::argument_bytes`].
        max: u64,
    },
    /// A NUL byte in an argument or environment string.
    #[error("build the stack: argument or environment string {text:?} contains a NUL byte")]
    NulInArgument {
        /// The string.
        text: OsString,
    },
    /// More host files than the limits allow.
    #[error(
        "read {}: the files for the guest exceed {max} bytes; map less, or raise the limit",
        OneLine(path)
    )]
    TooManyBytes {
        /// The file that was too much.
        path: PathBuf,
        /// [`Limits::host_bytes`].
        max: u64,
    },
    /// A guest path that cannot be made.
    #[error("place {} in the guest: {what}", OneLine(path))]
    GuestPath {
        /// The guest path.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The machine is too small for the program.
    #[error("load {}: the guest's memory is too small; give the machine more", OneLine(path))]
    OutOfMemory {
        /// The program.
        path: PathBuf,
    },
}
