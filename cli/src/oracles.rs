//! What is a crash besides a signal that kills the program: by which rules, whether a run breaks one,
//! and what it is called then.
//!
//! A rule is written into a crash's record as the option that made it one, which is how a replay
//! comes to know of it. Never runs a guest.

use crate::args::OracleArgs;
use crate::crash;
use dejavm_corpus::{CrashFacts, Recorded};
use dejavm_engine::machine::RunReport;
use dejavm_engine::outcome::{ExitStatuses, Outcome};
use dejavm_engine::symbols::CodeLocation;

const CRASH_EXIT: &str = "--crash-exit=";
/// How the kind of a crash begins that is one by its exit status.
const EXIT_KIND: &str = "exit-";

/// The rules of one campaign, or of one replay.
#[derive(Debug, Default)]
pub struct Oracles {
    /// Exit statuses that are crashes.
    pub statuses: ExitStatuses,
}

impl Oracles {
    /// The rules as typed.
    pub fn new(args: &OracleArgs) -> Self {
        Self { statuses: args.crash_exit.iter().copied().collect() }
    }

    /// The rule by which `recorded` is a crash, if that was not a fault. A record is a file of
    /// somebody's: what makes no sense is no rule.
    pub fn of_record(recorded: &Recorded) -> Self {
        let rule = recorded.facts.as_ref().and_then(|facts| facts.rule.as_deref());
        let by_rule = rule.and_then(|rule| rule.strip_prefix(CRASH_EXIT));
        // The name of the file says it too, if the file was taken out of its folder.
        let status = by_rule.or_else(|| recorded.kind().strip_prefix(EXIT_KIND));
        let status = status.and_then(|status| status.parse::<u8>().ok());
        Self { statuses: status.into_iter().collect() }
    }

    /// Whether a run that ended so is a crash by one of the rules.
    pub fn is_finding(&self, outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Exited { status } if self.statuses.contains(*status))
    }

    /// The facts of such a run, `stack` being the guest's where it ended; `None` of any other.
    pub fn facts(&self, report: &RunReport, stack: &[CodeLocation]) -> Option<CrashFacts> {
        let (kind, what, rule) = match &report.outcome {
            Outcome::Exited { status } if self.statuses.contains(*status) => (
                format!("{EXIT_KIND}{status}"),
                format!("exit with status {status}"),
                format!("{CRASH_EXIT}{status}"),
            ),
            _ => return None,
        };
        let facts = crash::stop_facts(kind, &what, stack, report.regs.rip);
        Some(CrashFacts { rule: Some(rule), ..facts })
    }
}
