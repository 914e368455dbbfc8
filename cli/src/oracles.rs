//! What is a crash besides a signal that kills the program: by which rules, whether a run breaks one,
//! and what it is called then.
//!
//! A rule is written into a crash's record as the option that made it one, which is how a replay
//! comes to know of it. Never runs a guest.

use crate::args::OracleArgs;
use crate::crash;
use crate::error::CliError;
use crate::text_rules::TextRules;
use dejavm_corpus::{CrashFacts, Recorded};
use dejavm_engine::machine::{Machine, RunReport};
use dejavm_engine::outcome::{ExitStatuses, Outcome};
use dejavm_engine::symbols::CodeLocation;

const CRASH_EXIT: &str = "--crash-exit";
const CRASH_TEXT: &str = "--crash-text";
const RSS_LIMIT: &str = "--rss-limit";
const OUTPUT_LIMIT: &str = "--output-limit";

/// How the kind of a crash begins that is one by its exit status.
const EXIT_KIND: &str = "exit-";
const TEXT_KIND: &str = "text";
const OUTPUT_KIND: &str = "output";

/// The rules of one campaign, or of one replay.
#[derive(Debug, Default)]
pub struct Oracles {
    /// Exit statuses that are crashes.
    pub statuses: ExitStatuses,
    text: Option<TextRules>,
    /// In bytes, as the next.
    rss_limit: Option<u64>,
    output_limit: Option<u64>,
}

impl Oracles {
    /// The rules as typed.
    ///
    /// # Errors
    /// A pattern is none.
    pub fn new(args: &OracleArgs) -> Result<Self, CliError> {
        let text = match args.crash_text.as_slice() {
            [] => None,
            patterns => Some(TextRules::new(patterns).map_err(CliError::Text)?),
        };
        let statuses = args.crash_exit.iter().copied().collect();
        Ok(Self { statuses, text, rss_limit: args.rss_limit, output_limit: args.output_limit })
    }

    /// The rule by which `recorded` is a crash, if that was not a fault. A record is a file of
    /// somebody's: what makes no sense is no rule.
    pub fn of_record(recorded: &Recorded) -> Self {
        let rule = recorded.facts.as_ref().and_then(|facts| facts.rule.as_deref());
        let mut oracles = Self::default();
        // The name of the file says a status too, if the file was taken out of its folder.
        let by_name = || Some((CRASH_EXIT, recorded.kind().strip_prefix(EXIT_KIND)?));
        let Some((option, value)) = rule.and_then(|rule| rule.split_once('=')).or_else(by_name)
        else {
            return oracles;
        };
        match option {
            CRASH_EXIT => oracles.statuses = value.parse().ok().into_iter().collect(),
            CRASH_TEXT => oracles.text = TextRules::new(&[value.to_owned()]).ok(),
            RSS_LIMIT => oracles.rss_limit = value.parse().ok(),
            OUTPUT_LIMIT => oracles.output_limit = value.parse().ok(),
            _ => {}
        }
        oracles
    }

    /// Has `machine`, which is at its snapshot, end a run where it breaks a rule.
    ///
    /// # Errors
    /// The guest is none that can, or breaks a rule before its snapshot.
    pub fn install(&self, machine: &mut Machine) -> Result<(), CliError> {
        if let Some(bytes) = self.rss_limit {
            machine.limit_memory(bytes).map_err(CliError::machine("set --rss-limit"))?;
        }
        if let Some(bytes) = self.output_limit {
            machine.limit_output(bytes).map_err(CliError::machine("set --output-limit"))?;
        }
        if let Some(text) = &self.text {
            let watch = text.watch(machine.stdout(), machine.stderr()).map_err(CliError::Text)?;
            machine.watch_output(Box::new(watch)).map_err(CliError::machine("set --crash-text"))?;
        }
        Ok(())
    }

    /// Whether a run that ended so is a crash by one of the rules.
    pub fn is_finding(&self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Exited { status } => self.statuses.contains(*status),
            Outcome::OutOfMemory => self.rss_limit.is_some(),
            Outcome::OutputLimit | Outcome::OutputMatched => true,
            Outcome::Crashed(_) | Outcome::Halted | Outcome::TimedOut | Outcome::Unsupported(_) => {
                false
            }
        }
    }

    /// The facts of such a run, `stack` being the guest's where it ended, and `outputs` what it
    /// wrote; `None` of any other.
    pub fn facts(
        &self,
        report: &RunReport,
        stack: &[CodeLocation],
        outputs: [&[u8]; 2],
    ) -> Option<CrashFacts> {
        if !self.is_finding(&report.outcome) {
            return None;
        }
        let stopped = |kind: String, what: String, rule: Option<String>| {
            let facts = crash::stop_facts(kind, &what, stack, report.regs.rip);
            Some(CrashFacts { rule, ..facts })
        };
        match &report.outcome {
            Outcome::Exited { status } => stopped(
                format!("{EXIT_KIND}{status}"),
                format!("exit with status {status}"),
                Some(format!("{CRASH_EXIT}={status}")),
            ),
            Outcome::OutputMatched => {
                let found = outputs.iter().find_map(|text| self.text.as_ref()?.find(text))?;
                let rule = format!("{CRASH_TEXT}={}", found.pattern);
                stopped(TEXT_KIND.to_owned(), format!("\"{}\" written", found.text), Some(rule))
            }
            Outcome::OutputLimit => stopped(
                OUTPUT_KIND.to_owned(),
                "more output than the limit".to_owned(),
                self.output_limit.map(|bytes| format!("{OUTPUT_LIMIT}={bytes}")),
            ),
            Outcome::OutOfMemory => {
                let rule = self.rss_limit.map(|bytes| format!("{RSS_LIMIT}={bytes}"));
                Some(CrashFacts { rule, ..CrashFacts::out_of_memory() })
            }
            _ => None,
        }
    }
}
