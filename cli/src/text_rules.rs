//! Text that a program is not to write: regular expressions that follow its output as it is written.
//!
//! Each byte takes one step of an automaton, so that output without end costs no more than its
//! length, and a match is seen with the write that completes it. Never reads a guest.

use dejavm_engine::machine::{OutputStream, OutputWatch};
use regex_automata::dfa::regex::Regex;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};
use std::error::Error;
use std::sync::Arc;

/// What the automata may take, in bytes.
const AUTOMATON_BYTES_MAX: usize = 16 << 20;
/// Characters of a match that are told.
const TOLD_MAX: usize = 80;

/// Why text cannot be looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextRuleError {
    /// It is no regular expression, or too large a one.
    #[error("write a regular expression without look-around: {why}")]
    Pattern {
        /// Why it is none.
        why: String,
    },
    /// Everything matches it.
    #[error("write a regular expression that does not match the empty text")]
    Empty,
    /// Every run writes it.
    #[error("the program has written {text:?} before its snapshot, so every run would be a crash")]
    BeforeSnapshot {
        /// What matched.
        text: String,
    },
}

/// A pattern, as an argument.
pub fn pattern(text: &str) -> Result<String, TextRuleError> {
    TextRules::new(&[text.to_owned()]).map(|_| text.to_owned())
}

/// Patterns that are looked for together.
#[derive(Clone, Debug)]
pub struct TextRules {
    regex: Arc<Regex>,
    patterns: Vec<String>,
}

/// A match.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'r> {
    /// Of this pattern.
    pub pattern: &'r str,
    /// This text, in one line that commands no terminal.
    pub text: String,
}

impl TextRules {
    /// Looks for `patterns`, of which there is one or more.
    ///
    /// # Errors
    /// One is no regular expression, or matches everything, or they are too large.
    pub fn new(patterns: &[String]) -> Result<Self, TextRuleError> {
        let dense = dense::Config::new()
            .start_kind(StartKind::Unanchored)
            .dfa_size_limit(Some(AUTOMATON_BYTES_MAX))
            .determinize_size_limit(Some(AUTOMATON_BYTES_MAX));
        let nfa = thompson::Config::new().utf8(false).nfa_size_limit(Some(AUTOMATON_BYTES_MAX));
        let built = Regex::builder()
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(nfa)
            .dense(dense)
            .build_many(patterns);
        let regex = Arc::new(built.map_err(|error| TextRuleError::Pattern { why: why(&error) })?);
        if regex.is_match(b"") {
            return Err(TextRuleError::Empty);
        }
        Ok(Self { regex, patterns: patterns.to_vec() })
    }

    /// The first match in `text`.
    pub fn find(&self, text: &[u8]) -> Option<Found<'_>> {
        let found = self.regex.find(text)?;
        let pattern = self.patterns.get(found.pattern().as_usize())?;
        let text = text.get(found.range()).unwrap_or_default();
        Some(Found { pattern, text: one_line(text) })
    }

    /// Reads along from where a program has written `stdout` and `stderr`.
    ///
    /// # Errors
    /// There is a match in them.
    pub fn watch(&self, stdout: &[u8], stderr: &[u8]) -> Result<TextWatch, TextRuleError> {
        let start = self.start().ok_or(TextRuleError::Empty)?;
        let mut watch =
            TextWatch { regex: self.regex.clone(), states: [start; 2], at_snapshot: [start; 2] };
        for (stream, text) in [(OutputStream::Stdout, stdout), (OutputStream::Stderr, stderr)] {
            if watch.wrote(stream, text) {
                let text = self.find(text).map(|found| found.text).unwrap_or_default();
                return Err(TextRuleError::BeforeSnapshot { text });
            }
        }
        watch.at_snapshot = watch.states;
        Ok(watch)
    }

    /// The state in which nothing was read yet.
    fn start(&self) -> Option<StateID> {
        let input = Input::new(b"").anchored(Anchored::No);
        self.regex.forward().start_state_forward(&input).ok()
    }
}

/// How far each stream has come.
#[derive(Clone, Debug)]
pub struct TextWatch {
    regex: Arc<Regex>,
    states: [StateID; 2],
    at_snapshot: [StateID; 2],
}

impl OutputWatch for TextWatch {
    fn wrote(&mut self, stream: OutputStream, text: &[u8]) -> bool {
        let dfa = self.regex.forward();
        let state = match stream {
            OutputStream::Stdout => &mut self.states[0],
            OutputStream::Stderr => &mut self.states[1],
        };
        for &byte in text {
            *state = dfa.next_state(*state, byte);
            // A match is told one byte late.
            if dfa.is_special_state(*state) && dfa.is_match_state(*state) {
                return true;
            }
        }
        dfa.is_match_state(dfa.next_eoi_state(*state))
    }

    fn rewound(&mut self) {
        self.states = self.at_snapshot;
    }
}

/// Why a pattern is none, in one line.
fn why(error: &dyn Error) -> String {
    let last = std::iter::successors(Some(error), |&error| error.source()).last();
    let text = last.map(ToString::to_string).unwrap_or_default();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// What a guest wrote, as a part of a line: short, and without what commands a terminal.
fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut line = String::new();
    for c in text.chars().take(TOLD_MAX) {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if text.chars().nth(TOLD_MAX).is_some() { line + "..." } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OutputStream::{Stderr, Stdout};

    fn rules(patterns: &[&str]) -> TextRules {
        let patterns: Vec<String> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        TextRules::new(&patterns).unwrap()
    }

    #[test]
    fn a_match_is_seen_with_the_write_that_completes_it_in_one_stream() {
        let rules = rules(&["bad +magic", "^fatal"]);
        let mut watch = rules.watch(b"ba", b"").unwrap();
        for _ in 0..3 {
            assert!(!watch.wrote(Stdout, b"d mag"));
            assert!(!watch.wrote(Stderr, b"ic not here"));
            assert!(watch.wrote(Stdout, b"ic"), "without the byte behind it");
            watch.rewound();
        }
        assert!(!watch.wrote(Stdout, b"fatal"), "not where the stream begins");
        assert!(watch.wrote(Stderr, b"fatal"));
        let found = rules.find(b"a bad  magic\n").unwrap();
        assert_eq!((found.pattern, found.text.as_str()), ("bad +magic", "bad  magic"));
        assert_eq!(rules.find(b"fine"), None);
    }

    #[test]
    fn bytes_that_are_no_text_and_assertions_are_matched_too() {
        let mut watch = rules(&[r"\xff\x00", r"\bend$"]).watch(b"", b"").unwrap();
        assert!(watch.wrote(Stdout, b"\xff\x00"));
        watch.rewound();
        assert!(!watch.wrote(Stdout, b"bend"));
        assert!(watch.wrote(Stderr, b"the end"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_why() {
        for bad in ["(", "a*", "", r"\p{Greek", "(?=a)", "a{1000}{1000}{1000}"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
        assert_eq!(pattern("a*").unwrap_err(), TextRuleError::Empty);
        let told = pattern("(").unwrap_err().to_string();
        assert!(told.ends_with("unclosed group") && !told.contains('\n'), "{told}");
    }

    #[test]
    fn what_every_run_writes_is_no_crash() {
        let error = rules(&["ready"]).watch(b"", b"ready\n").unwrap_err();
        assert_eq!(error, TextRuleError::BeforeSnapshot { text: "ready".to_owned() });
    }

    #[test]
    fn a_match_is_told_in_one_short_line() {
        assert_eq!(one_line(b"a\x1b[2J\nb\xff"), "a\\u{1b}[2J\\nb\u{fffd}");
        assert_eq!(one_line(&[b'x'; 200]), "x".repeat(80) + "...");
    }
}
