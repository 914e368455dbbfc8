//! The arguments as typed. Never looks at a file; what they mean together is resolved elsewhere.

use crate::exit_code;
use crate::harness;
use crate::text_rules;
use crate::values::{self, Point};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dejavm_engine::coverage::detours::Detail;
use dejavm_engine::linux::FileMapping;
use dejavm_engine::machine::RewindMode;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Rewind a guest in microseconds: fuzz parsers, replay crashes, inspect snapshots.
///
/// A program is booted in a microVM of its own up to the moment at which it is about to read its
/// input. That moment is kept as a snapshot, and lived again with other inputs.
#[derive(Debug, Parser)]
#[command(name = "dejavm", version, after_long_help = exit_code::HELP)]
pub struct Typed {
    /// Log more; twice for debug, three times for trace. DEJAVM_LOG takes a filter instead.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program, a bare guest or a snapshot once, and report what it did.
    Run(RunArgs),
    /// Boot to the snapshot point and save the snapshot.
    Snapshot(SnapshotArgs),
    /// Tell what a snapshot file holds.
    Inspect(InspectArgs),
    /// Fuzz a program, with AFL's options and output folder.
    Fuzz(Box<FuzzArgs>),
    /// Replay a crash from the snapshot of its campaign.
    Repro(ReproArgs),
    /// Measure what exits, rewinds, boots and executions cost on this host.
    Bench(BenchArgs),
    /// Tell what this host's KVM can do.
    Doctor(DoctorArgs),
}

/// What to boot.
#[derive(Debug, Args)]
#[command(next_help_heading = "Guest")]
pub struct GuestArgs {
    /// The guest's memory, such as 64M or 1G [default: 256M].
    #[arg(long, value_name = "SIZE", value_parser = values::ram)]
    pub ram: Option<u64>,
    /// A file or folder that the program can read, under the same path or another. May be
    /// repeated. Shared libraries need no mention.
    #[arg(long, value_name = "HOST[:GUEST]",
          value_parser = OsStringValueParser::new().try_map(values::mapping))]
    pub file: Vec<FileMapping>,
    /// As --file, for a folder with all it holds. May be repeated.
    #[arg(long, value_name = "HOST[:GUEST]",
          value_parser = OsStringValueParser::new().try_map(values::mapping))]
    pub dir: Vec<FileMapping>,
    /// Leave the host's system files out. Otherwise a program that looks for a file of /usr, /lib,
    /// /bin or /etc that any user may read is booted anew with it, and finds it.
    #[arg(long)]
    pub no_host_files: bool,
    /// A variable of the program's environment, which is empty otherwise but for ASAN_OPTIONS and
    /// UBSAN_OPTIONS of a program built with a sanitizer. May be repeated.
    #[arg(long, value_name = "NAME=VALUE",
          value_parser = OsStringValueParser::new().try_map(values::variable))]
    pub env: Vec<OsString>,
    /// Take the snapshot where this function, address or +OFFSET into the program is first
    /// reached, instead of where the program is about to see its input. The program must not
    /// have read its input by then.
    #[arg(long, value_name = "SYMBOL|ADDRESS", value_parser = values::point)]
    pub at: Option<Point>,
    /// A run ends, with status 0, when the function returns that --at names the start of.
    #[arg(long, requires = "at", conflicts_with = "bare")]
    pub until_return: bool,
    /// A run is one call of this function, as libFuzzer calls it, with the input in memory of its
    /// size [default: LLVMFuzzerTestOneInput]. Up to its first call the program runs as it does
    /// natively; `@@` is an empty file.
    #[arg(long, value_name = "SYMBOL|ADDRESS", num_args = 0..=1, require_equals = true,
          default_missing_value = harness::FUNCTION, value_parser = values::point,
          conflicts_with_all = ["at", "input_path", "bare"])]
    pub harness: Option<Point>,
    /// It is a crash, as if abort were called there, to reach this function, address or +OFFSET
    /// after the snapshot; `rust_panic` makes every panic of a Rust program one. May be repeated.
    #[arg(long, value_name = "SYMBOL|ADDRESS", value_parser = values::point)]
    pub crash_at: Vec<Point>,
    /// Run with a heap of dejavm's own: `guard` has every block end at a page that faults, and freed
    /// memory fault, so that an overflow, a use after free or a double free is a crash where it
    /// happens. For a dynamically linked program; slower, and with more memory [default: 1G].
    #[arg(long, value_name = "HEAP", conflicts_with = "bare")]
    pub heap: Option<Heap>,
    /// The input's path in the guest; implies that the input is a file [default: /work/input].
    #[arg(long, value_name = "PATH")]
    pub input_path: Option<PathBuf>,
    /// PROGRAM is the image of a bare guest, without Linux.
    #[arg(long, value_name = "MODE", conflicts_with_all = ["file", "dir", "no_host_files", "env", "at", "crash_at", "input_path"])]
    pub bare: Option<Bare>,
    /// Where a bare guest's image goes [default: 0x7c00 in real mode, else 0x100000].
    #[arg(long, value_name = "ADDRESS", requires = "bare", value_parser = values::address)]
    pub load_at: Option<u64>,
    /// A bare guest's first instruction [default: where the image starts, or as an ELF says].
    #[arg(long, value_name = "ADDRESS", requires = "bare", value_parser = values::address)]
    pub entry: Option<u64>,
    /// The program and its arguments; `@@` stands for the input's path in the guest. Without
    /// `@@` the input is standard input.
    #[arg(value_name = "PROGRAM", trailing_var_arg = true)]
    pub program: Vec<OsString>,
}

/// A heap in place of the program's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Heap {
    /// Blocks end at pages that fault.
    Guard,
}

/// How a bare guest starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bare {
    /// A flat image in 16-bit real mode.
    Real,
    /// A flat image in 32-bit protected mode.
    Protected,
    /// A flat image in 64-bit long mode.
    Long,
    /// A freestanding 64-bit ELF file.
    Elf,
    /// A flat image in 10 MB of RAM at 1 MiB, entered at 0x100f00 in protected mode, with
    /// interrupt controllers.
    Lecture,
}

const RUN_EXAMPLES: &str = "\
Examples:
    dejavm run -i doc.xml -- xmllint --noout @@
    echo hello | dejavm run -- busybox sha256sum
    dejavm run --strace -i doc.xml -- xmllint --noout @@
    dejavm run --snapshot parser.dejavm -i crash.bin
    dejavm run --bare real boot.bin

The program's output is printed when it has ended, and its exit status is dejavm's.";

/// `dejavm run`
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub struct RunArgs {
    /// The input [default: standard input if that is no terminal, else nothing].
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Run from this snapshot instead of booting a program.
    #[arg(long, value_name = "FILE",
          conflicts_with_all = ["program", "ram", "file", "dir", "no_host_files", "env", "at", "harness", "heap", "input_path", "bare"])]
    pub snapshot: Option<PathBuf>,
    /// Time limit in milliseconds, or with a unit: 500ms, 2s; 0 is none.
    #[arg(short, long, value_name = "MS", default_value = "10s", value_parser = values::time)]
    pub timeout: Duration,
    /// How much of the CPU's state is put back before the run that counts blocks.
    #[arg(long, value_name = "HOW", default_value = "lazy")]
    pub rewind: Rewind,
    /// Print no report.
    #[arg(short, long, conflicts_with = "json")]
    pub quiet: bool,
    /// Write the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Write the report there instead of to standard error.
    #[arg(long, value_name = "FILE", conflicts_with = "quiet")]
    pub report: Option<PathBuf>,
    /// Print the program's system calls as strace does, to standard error or to FILE, when it has
    /// ended.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
          default_missing_value = "-", conflicts_with = "bare")]
    pub strace: Option<PathBuf>,
    #[command(flatten)]
    pub covered: CoverArgs,
    #[command(flatten)]
    pub guest: GuestArgs,
}

/// Which images' blocks count as coverage.
#[derive(Debug, Clone, Default, Args)]
pub struct CoverArgs {
    /// Cover these images too, not only the program and its own libraries, which are all but the
    /// runtime of C and C++ and the loader; a part of an image's name, or `all`. May be repeated.
    #[arg(long, value_name = "IMAGE")]
    pub cover: Vec<String>,
    /// Do not cover these images; a part of an image's name, or `libraries`, which leaves the
    /// program and what --cover names. May be repeated.
    #[arg(long, value_name = "IMAGE")]
    pub no_cover: Vec<String>,
}

/// `dejavm snapshot`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
    dejavm snapshot -o xmllint.dejavm -- xmllint --noout @@")]
pub struct SnapshotArgs {
    /// The snapshot file to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The input while booting; later runs bring their own [default: nothing].
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Time limit of the boot in milliseconds, or with a unit.
    #[arg(short, long, value_name = "MS", default_value = "60s", value_parser = values::time)]
    pub timeout: Duration,
    /// Print the facts as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub guest: GuestArgs,
}

/// `dejavm inspect`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
    dejavm inspect xmllint.dejavm
    dejavm inspect --check --json xmllint.dejavm")]
pub struct InspectArgs {
    /// The snapshot file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Read all pages and the files of the program, and compare them with their checksums.
    #[arg(long)]
    pub check: bool,
}

/// How a guest's CPU is put back after a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Rewind {
    /// What the run can have changed, by the engine's rules.
    #[default]
    Lazy,
    /// All of it, always: slower, and right even if a rule were wrong.
    Full,
}

impl From<Rewind> for RewindMode {
    fn from(rewind: Rewind) -> Self {
        match rewind {
            Rewind::Lazy => Self::Lazy,
            Rewind::Full => Self::Full,
        }
    }
}

/// How a campaign's guest is put back after a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CampaignRewind {
    /// A program puts itself back, many runs to one exit; what has something to say is run once
    /// more by itself. As `lazy` for a bare guest.
    #[default]
    Agent,
    /// The host puts back what the run can have changed, by the engine's rules.
    Lazy,
    /// The host puts back all of it, always: slower, and right even if a rule were wrong.
    Full,
}

impl From<CampaignRewind> for RewindMode {
    fn from(rewind: CampaignRewind) -> Self {
        match rewind {
            CampaignRewind::Agent | CampaignRewind::Lazy => Self::Lazy,
            CampaignRewind::Full => Self::Full,
        }
    }
}

/// What of a run counts as new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Coverage {
    /// A basic block.
    Block,
    /// A block, or an edge between two.
    Edge,
    /// A block or an edge, or that it is passed more or less often, in AFL's classes.
    #[default]
    Count,
}

impl From<Coverage> for Detail {
    fn from(coverage: Coverage) -> Self {
        match coverage {
            Coverage::Block => Self::Blocks,
            Coverage::Edge => Self::Edges,
            Coverage::Count => Self::Counts,
        }
    }
}

const FUZZ_EXAMPLES: &str = "\
Examples:
    dejavm fuzz -i seeds -o out -x xml.dict -- xmllint --noout @@
    dejavm fuzz -i seeds -o out -V 60 --until-crash -- ./parser
    dejavm fuzz -i seeds -o out --harness ./libfuzzer_target

The same command goes on with the campaign in OUT; after Ctrl-C, or after a kill. With another
program OUT is refused, because its crashes would lose their snapshot. A crash found does not
change the exit status; with --until-crash, its absence does.

A crash is a signal that kills the program. A Rust panic unwinds and ends a program with status
101, unless it was built with panic=abort: --crash-at rust_panic makes every panic a crash, and
--crash-exit 101 every exit with that status. `repro` knows by what rule a crash was one.

From the first input on this process can open nothing but OUT, and start nothing (seccomp; landlock
where the kernel has it). A guest that made it try is an attack: SIGSYS, 159 in a shell.";

/// `dejavm fuzz`
#[derive(Debug, Args)]
#[command(after_help = FUZZ_EXAMPLES)]
pub struct FuzzArgs {
    /// The folder of seeds; may be left out to go on with a campaign.
    #[arg(short, long, value_name = "SEEDS")]
    pub input: Option<PathBuf>,
    /// The output folder, as AFL lays it out; created if missing, gone on with if it holds a
    /// campaign.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// A dictionary in AFL's format. May be repeated.
    #[arg(short = 'x', long, value_name = "DICT")]
    pub dictionary: Vec<PathBuf>,
    /// Time limit of one run in milliseconds, or with a unit [default: from the seeds,
    /// and longer when many inputs finish a little later].
    #[arg(short, long, value_name = "MS", value_parser = values::time)]
    pub timeout: Option<Duration>,
    /// Stop after so many seconds.
    #[arg(short = 'V', long, value_name = "SECONDS")]
    pub duration: Option<u64>,
    /// Stop after so many executions.
    #[arg(short = 'E', long, value_name = "EXECS")]
    pub executions: Option<u64>,
    /// Seed of the random numbers: the same seed runs the same inputs [default: random].
    #[arg(short, long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Stop at the first new crash.
    #[arg(long)]
    pub until_crash: bool,
    /// Longest input in bytes.
    #[arg(long, value_name = "N", default_value = "1M", value_parser = values::size)]
    pub max_len: u64,
    /// Compare the whole machine with its snapshot after every N runs, and stop at a difference.
    #[arg(long, value_name = "N", default_value = "0")]
    pub verify_every: u64,
    /// How the guest is put back after a run. All of memory is, in any way.
    #[arg(long, value_name = "HOW", default_value = "agent")]
    pub rewind: CampaignRewind,
    /// What of a run counts as new; edges and counts take a program that can tell them, and the
    /// agent.
    #[arg(long, value_name = "WHAT", default_value = "count")]
    pub coverage: Coverage,
    #[command(flatten)]
    pub covered: CoverArgs,
    /// Do not log what the entries compare, and do not try what would have the comparisons turn out
    /// otherwise.
    #[arg(long)]
    pub no_cmplog: bool,
    /// Do not add words that the program compares to the dictionary.
    #[arg(long)]
    pub no_auto_dict: bool,
    /// Do without the sandbox (seccomp, and landlock where the kernel has it).
    #[arg(long)]
    pub no_sandbox: bool,
    /// Print the summary as JSON, and nothing else.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub oracles: OracleArgs,
    #[command(flatten)]
    pub guest: GuestArgs,
}

/// What is a crash besides a signal that kills the program.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Crashes")]
pub struct OracleArgs {
    /// A run that exits with this status is a crash, told from others by where it exits. May be
    /// repeated.
    #[arg(long, value_name = "STATUS")]
    pub crash_exit: Vec<u8>,
    /// A run that writes what this regular expression matches, to standard output or to standard
    /// error, is a crash, and ends there. Of bytes, without look-around; `$` is where a write ends.
    /// May be repeated. Writing takes the host in every run then.
    #[arg(long, value_name = "REGEX", value_parser = text_rules::pattern)]
    pub crash_text: Vec<String>,
    /// A run that touches more memory than this is a crash (OOM); in MiB, or with a unit
    /// [default: all of --ram].
    #[arg(long, value_name = "MB", value_parser = values::mebibytes)]
    pub rss_limit: Option<u64>,
    /// A run that writes more than this to standard output, or to standard error, is a crash
    /// (output) [default: 16M].
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub output_limit: Option<u64>,
}

/// `dejavm repro`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
    dejavm repro out/crashes/id:000000,sig:SIGSEGV-write,...
    dejavm repro --snapshot parser.dejavm crash.bin

Exit status 0 says that the same fault came at the same place; 1 that it did not. A file that is
no campaign's crash reproduces by crashing at all; one of OUT/hangs, by reaching the time limit.")]
pub struct ReproArgs {
    /// The input that crashed.
    #[arg(value_name = "CRASHFILE")]
    pub input: PathBuf,
    /// The snapshot to replay from [default: that of the campaign whose folder CRASHFILE is in].
    #[arg(long, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
    /// Time limit in milliseconds, or with a unit [default: 10s; for a hang, twice the campaign's].
    #[arg(short, long, value_name = "MS", value_parser = values::time)]
    pub timeout: Option<Duration>,
    /// Do without the sandbox (seccomp, and landlock where the kernel has it).
    #[arg(long)]
    pub no_sandbox: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

const BENCH_EXAMPLES: &str = "\
Examples:
    dejavm bench exits
    dejavm bench rewind --json before.json
    dejavm bench rewind --compare before.json
    dejavm bench rewind --only 4g_64 --only 4g_512
    dejavm bench exits --samples 50 --json - | jq '.rows[] | {name, lines}'

Every row of exits and rewind stands beside its floor: the same guest in a loop of ioctl(KVM_RUN)
that reads the run page by itself, on a VM without dirty log, without driver and without limit on
time. What the kernel handles without an exit is the difference of two runs. The rows of boot have
an empty VM or an empty process for their floor; those of campaign are compared with one input per
entry of a machine. The variants of a row take turns, so that their ratios hold on a busy host;
compare ratios rather than nanoseconds.

It takes half a minute at most, campaign a little more: a row whose time is over has fewer samples,
unless --samples is given. campaign compiles a parser with cc, and runs AFL++ and libFuzzer (Debian:
afl++, clang) for five seconds each where they are installed. A row that says `not on this host`
names the probe or the extension of `dejavm doctor` that says so, or what is not installed; it does
not change the exit status. Exit status 0 says that it was measured, 3 that KVM cannot be used, 4
that a file cannot be read or written, or is no measurement.";

/// `dejavm bench`
#[derive(Debug, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchArgs {
    /// What to measure.
    #[arg(value_name = "WHAT")]
    pub what: Measurement,
    /// Write the figures and the host's fingerprint as JSON; `-` is standard output, and then
    /// nothing else is written there.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show an earlier FILE of --json beside the figures, with the ratio of each.
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Samples of each variant of a row [default: 1000, or what a minute allows].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub samples: Option<u32>,
    /// Only the rows whose name in the JSON has TEXT in it, such as `4g_64`. May be repeated.
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,
    /// Not a measurement: what `bench boot` starts as a new process.
    #[arg(long, value_name = "FILE", hide = true,
          conflicts_with_all = ["json", "compare", "samples"])]
    pub first_run: Option<PathBuf>,
    /// Machines of such a process.
    #[arg(long, value_name = "N", hide = true, default_value = "1", requires = "first_run",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub machines: u32,
}

/// What `dejavm bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measurement {
    /// Exits from CPL 0 and CPL 3, and what is handled in the kernel.
    Exits,
    /// A run and its rewind, by the host or in the guest, by pages written and by the guest's
    /// memory.
    Rewind,
    /// A machine before its first run has ended: from an image, a snapshot file, a snapshot.
    Boot,
    /// Executions per second of one parser, in a machine one by one and in batches, natively, and
    /// by other fuzzers.
    Campaign,
}

/// `dejavm doctor`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
    dejavm doctor --json")]
pub struct DoctorArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// The device to examine.
    #[arg(long, value_name = "PATH", default_value = "/dev/kvm")]
    pub device: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Typed::try_parse_from(line.split_whitespace()).map(|typed| typed.command)
    }

    #[test]
    fn the_definitions_are_sound_and_every_command_has_an_example() {
        Typed::command().debug_assert();
        for command in Typed::command().get_subcommands_mut() {
            assert!(command.render_help().to_string().contains("Example"), "{command}");
        }
    }

    #[test]
    fn what_follows_the_program_is_its_own() {
        for line in ["dejavm run -i f -- ./p -i -t @@", "dejavm run -i f ./p -i -t @@"] {
            let Ok(Command::Run(run)) = parse(line) else { panic!("{line}") };
            assert_eq!(run.guest.program, ["./p", "-i", "-t", "@@"]);
        }
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        for line in [
            "dejavm run --snapshot s ./p",
            "dejavm run --snapshot s --ram 1M",
            "dejavm run --entry 0x10 ./p",
            "dejavm run --bare real --env A=b image",
            "dejavm run --typo ./p",
            "dejavm run --ram lots ./p",
            "dejavm fuzz -i seeds ./p",
            "dejavm run --rewind never ./p",
            "dejavm repro",
            "dejavm bench",
            "dejavm bench exits --samples 0",
            "dejavm",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
