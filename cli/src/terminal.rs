//! Everything that is printed: results to standard output, words for people to standard error.
//!
//! A reader that goes away is no error. Never decides what is said.

use crate::error::CliError;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::ffi::OsStr;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Time between two status lines where nothing can be rewritten.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// A step shorter than this is not worth a status line.
const BUSY_AFTER: Duration = Duration::from_millis(200);

/// Says more exactly than `-v` what is in the log.
const LOG_VARIABLE: &str = "DEJAVM_LOG";

/// Sends the log to standard error; what is in it is up to [`LOG_VARIABLE`], else to `verbose`.
pub fn start_log(verbose: u8) {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose.min(3))];
    let wanted = std::env::var_os(LOG_VARIABLE);
    let filter = log_filter(wanted.as_deref(), level).unwrap_or_else(|error| {
        // It says its causes itself.
        note(&format!("dejavm: {LOG_VARIABLE} is not used: {error}"));
        EnvFilter::new(level)
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// What `wanted` says, or all of `level`.
fn log_filter(wanted: Option<&OsStr>, level: &str) -> Result<EnvFilter, ParseError> {
    match wanted {
        Some(wanted) => EnvFilter::builder().parse(wanted.to_string_lossy()),
        None => Ok(EnvFilter::new(level)),
    }
}

/// Writes to standard output.
pub fn out(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::Stdout(error)),
        _ => Ok(()),
    }
}

/// Writes `value` as JSON to standard output.
pub fn out_json(value: &impl serde::Serialize) -> Result<(), CliError> {
    out(&json(value)?)
}

/// `value` as JSON and a line end.
pub fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, CliError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(CliError::Json)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes to standard error; when that fails there is nowhere to say so.
pub fn err(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

/// Writes words for people to standard output.
pub fn out_text(text: &str) -> Result<(), CliError> {
    out(readable(text).as_bytes())
}

/// Writes words for people to standard error.
pub fn err_text(text: &str) {
    err(readable(text).as_bytes());
}

/// `text` without what commands a terminal: a file or a guest may have chosen parts of it.
pub fn readable(text: &str) -> String {
    let is_fit = |c: char| c == '\n' || c == '\t' || !c.is_control();
    text.chars().map(|c| if is_fit(c) { c } else { '\u{fffd}' }).collect()
}

/// Writes a line to standard error. What a file or a guest holds may be part of it: it stays one
/// line, and commands no terminal.
pub fn note(line: &str) {
    let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    err(format!("{line}\n").as_bytes());
}

/// A line that says what is going on: rewritten on a terminal, now and then a plain line
/// elsewhere.
pub struct Status {
    bar: Option<ProgressBar>,
    plain: Option<Instant>,
}

impl Status {
    /// A status line, unless `quiet`.
    pub fn new(quiet: bool) -> Self {
        if quiet {
            return Self { bar: None, plain: None };
        }
        if !io::stderr().is_terminal() {
            return Self { bar: None, plain: Some(Instant::now()) };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar: Some(bar), plain: None }
    }

    /// Says what goes on now.
    pub fn set(&mut self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
            bar.tick();
        }
        if let Some(last) = &mut self.plain
            && last.elapsed() >= PLAIN_INTERVAL
        {
            note(text);
            *last = Instant::now();
        }
    }

    /// Says what goes on while `work` is done, if it takes long enough to wonder.
    pub fn during<T>(&mut self, text: &str, work: impl FnOnce() -> T) -> T {
        let Some(bar) = &self.bar else { return work() };
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(BUSY_AFTER);
        let result = work();
        bar.disable_steady_tick();
        result
    }

    /// A line that stays, above the status.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None if self.plain.is_some() => note(text),
            None => {}
        }
    }

    /// Takes the status line away.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_makes_no_sense_is_an_error_and_not_the_level() {
        let filter = |wanted: &str| log_filter(Some(OsStr::new(wanted)), "warn");
        assert_eq!(filter("dejavm=debug").unwrap().to_string(), "dejavm=debug");
        assert!(filter("dejavm=loud").is_err());
        assert_eq!(log_filter(None, "warn").unwrap().to_string(), "warn");
    }
}
