//! What one run did, as text and as JSON. Never prints.

use crate::boot;
use crate::crash::{self, Crash};
use crate::exit_code::ExitCode;
use dejavm_engine::linux::Process;
use dejavm_engine::machine::RunReport;
use dejavm_engine::outcome::Outcome;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;

/// What one run did.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `exited`, `crashed`, `halted`, `timed-out`, `out-of-memory`, `output-limit`,
    /// `output-matched` or `unsupported`.
    pub outcome: &'static str,
    /// How it ended, for people.
    pub ended: String,
    /// The exit status that `dejavm run` gives it.
    pub exit_code: u8,
    /// Where the snapshot was; none when the guest ended before it came there.
    pub snapshot: Option<String>,
    /// Wall-clock time of the run from the snapshot.
    pub time_us: u64,
    /// Returns of `KVM_RUN`.
    pub exits: u64,
    /// System calls.
    pub system_calls: u64,
    /// Faults and breakpoints.
    pub traps: u64,
    /// Times that its threads or timers needed it interrupted; such a run need not repeat exactly.
    pub preemptions: u64,
    /// Pages that the rewind put back.
    pub pages_dirty: Option<u64>,
    /// [`Machine::memory_digest`](dejavm_engine::machine::Machine::memory_digest) at its end.
    pub memory_crc32: Option<String>,
    /// Basic blocks reached.
    pub blocks: Option<BlocksReached>,
    /// System calls that were answered with ENOSYS, each once.
    pub unsupported_calls: Vec<String>,
    /// The host's system files that it had because it looked for them.
    pub host_files: Vec<PathBuf>,
    /// Arguments that are files of the host, and that the program looked for and did not find.
    pub files_missing: Vec<PathBuf>,
    /// The crash, if it crashed.
    pub crash: Option<Crash>,
    /// Where it was when its time was over.
    pub backtrace: Vec<crash::FrameFacts>,
}

/// Coverage of one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BlocksReached {
    /// Blocks that it reached.
    pub reached: usize,
    /// Blocks that there are.
    pub total: usize,
}

/// A word for programs.
pub const fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Exited { .. } => "exited",
        Outcome::Crashed(_) => "crashed",
        Outcome::Halted => "halted",
        Outcome::TimedOut => "timed-out",
        Outcome::OutOfMemory => "out-of-memory",
        Outcome::OutputLimit => "output-limit",
        Outcome::OutputMatched => "output-matched",
        Outcome::Unsupported(_) => "unsupported",
    }
}

impl Report {
    /// Reads a guest that has ended, before it is rewound.
    pub fn new(run: &RunReport, process: Option<&Process>, read: &mut crash::Read<'_>) -> Self {
        let symbolizer = boot::symbolizer(process);
        let crash = match &run.outcome {
            Outcome::Crashed(fault) => Some(Crash::new(&symbolizer, fault, run, read)),
            _ => None,
        };
        let backtrace = match &run.outcome {
            Outcome::TimedOut
            | Outcome::Unsupported(_)
            | Outcome::OutOfMemory
            | Outcome::OutputLimit
            | Outcome::OutputMatched => {
                crash::stack(&symbolizer, run, read).iter().map(crash::frame).collect()
            }
            _ => Vec::new(),
        };
        Self {
            outcome: outcome_word(&run.outcome),
            ended: run.outcome.to_string(),
            exit_code: ExitCode::of(&run.outcome).code(),
            snapshot: None,
            time_us: run.duration.as_micros() as u64,
            exits: run.exits,
            system_calls: run.system_calls,
            traps: run.traps,
            preemptions: run.preemptions,
            pages_dirty: None,
            memory_crc32: None,
            blocks: None,
            unsupported_calls: process.map(Process::unsupported_calls).unwrap_or_default(),
            host_files: Vec::new(),
            files_missing: Vec::new(),
            crash,
            backtrace,
        }
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = format!("dejavm: {} after {}", self.ended, time(self.time_us));
        // Writing to a string cannot fail, here and below.
        let _ = write!(
            text,
            ": {} exits, {} system calls, {} traps",
            self.exits, self.system_calls, self.traps
        );
        if let Some(pages) = self.pages_dirty {
            let _ = write!(text, ", {pages} dirty pages");
        }
        if let Some(BlocksReached { reached, total }) = self.blocks {
            let _ = write!(text, ", {reached} of {total} blocks");
        }
        text.push('\n');
        if let Some(digest) = &self.memory_crc32 {
            let _ = writeln!(text, "memory at its end: crc32 {digest}");
        }
        match &self.snapshot {
            Some(point) => drop(writeln!(text, "snapshot: {point}")),
            None => text.push_str("snapshot: none, it ended before its snapshot point\n"),
        }
        if self.preemptions > 0 {
            let count = self.preemptions;
            let _ = writeln!(text, "time slices used up: {count}, so a run may not repeat exactly");
        }
        if !self.unsupported_calls.is_empty() {
            let _ = writeln!(text, "not supported: {}", self.unsupported_calls.join(", "));
        }
        if !self.host_files.is_empty() {
            let count = self.host_files.len();
            let _ = writeln!(text, "files of the host's system: {count}, see --no-host-files");
        }
        for file in &self.files_missing {
            let _ = writeln!(text, "not in the guest: {0}; --file {0} adds it", file.display());
        }
        if let Some(crash) = &self.crash {
            text.push_str(&crash.text());
        }
        if !self.backtrace.is_empty() {
            let _ = write!(text, "backtrace:\n{}", crash::backtrace(&self.backtrace));
        }
        text
    }
}

/// A memory digest for people and programs.
pub fn digest(crc: u32) -> String {
    format!("{crc:08x}")
}

/// A time for people.
pub fn time(us: u64) -> String {
    match us {
        0..10_000 => format!("{us} us"),
        10_000..10_000_000 => format!("{} ms", us / 1000),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} bytes"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}
