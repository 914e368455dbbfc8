//! Why a command could not do its work, in one line: what failed, where, why, and what to do.
//!
//! Never prints.

use crate::exit_code::ExitCode;
use crate::sandbox::SandboxError;
use dejavm_corpus::{CampaignError, ErrorChain, OutError, WriteError};
use dejavm_engine::coverage::blocks::BlocksError;
use dejavm_engine::kvm::KvmError;
use dejavm_engine::linux::LoadError;
use dejavm_engine::machine::MachineError;
use dejavm_engine::outcome::Outcome;
use dejavm_engine::paging::TablesError;
use dejavm_engine::snapshot::FileError;
use std::io;
use std::path::PathBuf;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments contradict each other.
    #[error("{0}")]
    Usage(&'static str),
    /// KVM cannot be used.
    #[error("use KVM")]
    Kvm(#[source] KvmError),
    /// A machine could not do something.
    #[error("{doing}")]
    Machine {
        /// What.
        doing: &'static str,
        /// Why not.
        source: Box<MachineError>,
    },
    /// A snapshot file cannot be used.
    #[error(transparent)]
    Snapshot(#[from] FileError),
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be removed.
    #[error("remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Standard output takes nothing.
    #[error("write to standard output")]
    Stdout(#[source] io::Error),
    /// Standard input gives nothing.
    #[error("read standard input")]
    Stdin(#[source] io::Error),
    /// A program is not in `PATH`.
    #[error("find program {}: it is in no folder of PATH; write ./{} for one here", name.display(), name.display())]
    NoProgram {
        /// Its name as typed.
        name: PathBuf,
    },
    /// The program ended before the point at which its snapshot should be taken.
    #[error("take a snapshot: the guest {outcome} {before}; {todo}")]
    EndedEarly {
        /// How it ended.
        outcome: Outcome,
        /// What it did not reach.
        before: &'static str,
        /// What to try.
        todo: &'static str,
    },
    /// The snapshot point comes too late.
    #[error(
        "fuzz from the point of --at: the program looks at its input before it, so every run would be the same; choose an earlier point"
    )]
    PointAfterInput,
    /// A program cannot have a heap of ours.
    #[error("run {} with --heap: {why}", program.display())]
    Heap {
        /// The program.
        program: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// What the output is searched for.
    #[error("look for the text of --crash-text")]
    Text(#[source] crate::text_rules::TextRuleError),
    /// A symbol is no point.
    #[error("find the snapshot point")]
    Point(#[source] dejavm_engine::symbols::NameError),
    /// A program has not the function that was to be all of a run.
    #[error("find the function of --harness")]
    NoHarness(#[source] dejavm_engine::symbols::NameError),
    /// No block can be found.
    #[error("find the basic blocks of {image}")]
    Blocks {
        /// The image.
        image: String,
        /// Why not.
        source: BlocksError,
    },
    /// No image has this name.
    #[error(
        "cover {name}: the program has loaded no image with this in its name; it has loaded {loaded}"
    )]
    NoImage {
        /// As typed.
        name: String,
        /// What there is.
        loaded: String,
    },
    /// The output folder is another program's.
    #[error(
        "fuzz {}: {} holds a campaign of {}; name another folder with -o, and start from what that \
         one found with -i {}/queue", ours.display(), out.display(), theirs.display(), out.display()
    )]
    OtherProgram {
        /// The folder.
        out: PathBuf,
        /// Whose it is.
        theirs: PathBuf,
        /// Whose it should become.
        ours: PathBuf,
    },
    /// The campaign failed.
    #[error("fuzz")]
    Campaign(#[source] CampaignError),
    /// A crash's record cannot be read.
    #[error(transparent)]
    Record(#[from] OutError),
    /// There is no snapshot to replay from.
    #[error("replay {}: {} does not exist; name a snapshot with --snapshot", input.display(), wanted.display())]
    NoSnapshot {
        /// The input.
        input: PathBuf,
        /// Where its campaign would keep one.
        wanted: PathBuf,
    },
    /// A guest of `bench` did what it has no code for.
    #[error("measure: a guest {did}")]
    BenchGuest {
        /// What it did.
        did: String,
    },
    /// What `bench --compare` was given is no measurement.
    #[error("compare with {}: it is no file of `dejavm bench --json`", path.display())]
    NotABench {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// What `bench --compare` was given is a measurement of something else.
    #[error("compare with {}: it is {found}, and this is {wanted}", path.display())]
    OtherBench {
        /// The file.
        path: PathBuf,
        /// What it says that it is.
        found: String,
        /// What was measured now.
        wanted: String,
    },
    /// `bench` cannot start or reach a process.
    #[error("measure: {doing}")]
    BenchProcess {
        /// What it was about to do.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// There is no place for a temporary file.
    #[error("make a temporary file")]
    Temporary(#[source] io::Error),
    /// Ctrl-C cannot be caught.
    #[error("catch Ctrl-C")]
    Signals(#[source] ctrlc::Error),
    /// The sandbox cannot be entered.
    #[error("enter the sandbox")]
    Sandbox(#[source] SandboxError),
    /// A value has no JSON form.
    #[error("write JSON")]
    Json(#[source] serde_json::Error),
    /// This command is wrong about itself.
    #[error("an invariant of the command is broken: {0}")]
    Invariant(&'static str),
}

impl CliError {
    /// Says what `bench` was about to do with a process.
    pub fn process(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::BenchProcess { doing, source }
    }

    /// Says which step a machine failed at.
    pub fn machine(doing: &'static str) -> impl FnOnce(MachineError) -> Self {
        move |source| Self::Machine { doing, source: Box::new(source) }
    }

    /// The exit status.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_)
            | Self::Text(_)
            | Self::Point(_)
            | Self::NoHarness(_)
            | Self::PointAfterInput
            | Self::NoImage { .. } => ExitCode::Usage,
            Self::Kvm(_)
            | Self::Stdout(_)
            | Self::Signals(_)
            | Self::Sandbox(_)
            | Self::Json(_)
            | Self::Temporary(_)
            | Self::BenchGuest { .. }
            | Self::BenchProcess { .. }
            | Self::Invariant(_) => ExitCode::Host,
            Self::Machine { source, .. } => of_machine(source),
            Self::Campaign(CampaignError::Target { .. } | CampaignError::Invariant(_)) => {
                ExitCode::Host
            }
            Self::Campaign(CampaignError::MaxLenZero | CampaignError::TimeoutZero) => {
                ExitCode::Usage
            }
            Self::Campaign(_)
            | Self::Snapshot(_)
            | Self::Read { .. }
            | Self::Remove { .. }
            | Self::Write(_)
            | Self::Stdin(_)
            | Self::NoProgram { .. }
            | Self::EndedEarly { .. }
            | Self::Heap { .. }
            | Self::Blocks { .. }
            | Self::OtherProgram { .. }
            | Self::Record(_)
            | Self::NoSnapshot { .. }
            | Self::NotABench { .. }
            | Self::OtherBench { .. } => ExitCode::Input,
        }
    }

    /// The line for people: this, its causes, and what to do.
    pub fn line(&self) -> String {
        let mut line = format!("dejavm: {}", ErrorChain(self));
        if let Some(advice) = self.advice() {
            line = line + "; " + advice;
        }
        // What a file or a guest holds may be part of it; it stays one line.
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Machine { source, .. } => match **source {
                MachineError::Tables(TablesError::Full)
                | MachineError::Load(LoadError::OutOfMemory { .. }) => Some("raise --ram"),
                MachineError::Memory(_) => Some("lower --ram"),
                _ => None,
            },
            Self::Sandbox(_) => Some("--no-sandbox does without"),
            Self::NoHarness(_) => Some(
                "a program that was stripped has no symbols: take its unstripped file, or give the \
                 function's address, --harness=+OFFSET",
            ),
            Self::Point(_) => Some("see `nm -C PROGRAM`, or give an address"),
            Self::Campaign(error) => of_campaign(error),
            Self::Kvm(_) => Some("see `dejavm doctor`"),
            _ => None,
        }
    }
}

/// What to do about a campaign that cannot start.
fn of_campaign(error: &CampaignError) -> Option<&'static str> {
    const OTHER_FOLDER: &str = "name another folder with -o";
    match error {
        CampaignError::NothingToResume { .. } => Some("give seeds with -i"),
        CampaignError::NoSeed { .. } | CampaignError::NoUsableSeed { .. } => Some(
            "a seed is a file you may read, of at most --max-len bytes, that the program reads to its \
             end in -t",
        ),
        CampaignError::TimeoutZero => Some("leave -t out, and it is taken from the seeds"),
        CampaignError::MaxLenZero => Some("raise --max-len"),
        CampaignError::Seeds(_) => Some("-i takes a folder of seeds"),
        CampaignError::Out(OutError::Foreign { .. } | OutError::CreateFolder { .. }) => {
            Some(OTHER_FOLDER)
        }
        CampaignError::Out(OutError::InUse { .. }) => {
            Some("wait for it, or name another folder with -o")
        }
        _ => None,
    }
}

fn of_machine(error: &MachineError) -> ExitCode {
    match error {
        MachineError::Load(_) | MachineError::BareImage(_) => ExitCode::Input,
        MachineError::PointNotMapped { .. }
        | MachineError::Harness { .. }
        | MachineError::MemoryLimit { .. }
        | MachineError::Tables(TablesError::Full) => ExitCode::Usage,
        _ => ExitCode::Host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_every_cause_and_stays_one_line() {
        let source = io::Error::new(io::ErrorKind::NotFound, "no such\nfile");
        let error = CliError::Read { path: "a\tb".into(), source };
        assert_eq!(error.line(), "dejavm: read a b: no such file");
        assert_eq!(error.exit_code(), ExitCode::Input);
    }

    #[test]
    fn a_broken_invariant_is_named_and_not_the_users_fault() {
        let error = CliError::Invariant("a program is among its images");
        assert!(error.line().ends_with("broken: a program is among its images"));
        assert_eq!(error.exit_code(), ExitCode::Host);
    }

    #[test]
    fn a_point_outside_of_the_program_is_a_usage_error() {
        let error = CliError::machine("boot")(MachineError::PointNotMapped { address: 1 });
        assert_eq!(error.exit_code(), ExitCode::Usage);
        assert!(error.line().starts_with("dejavm: boot: 0x1 is not mapped"), "{}", error.line());
    }
}
