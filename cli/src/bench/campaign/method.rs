//! What every method of running the parser has in common: its inputs, and what it is asked for.

use crate::bench::batches::ExpectedRun;
use crate::error::CliError;
use std::time::Duration;

/// The inputs, and the parser's exit status for each.
pub const INPUTS: [ExpectedRun<'_>; 4] = [
    ExpectedRun {
        input:
            b"{\"id\": 17, \"tags\": [\"a\", \"b\\n\", \"\\u00e9\"], \"ok\": true, \"next\": null}",
        status: 0,
    },
    ExpectedRun { input: b"[[1, 2.5, -3e7], [], {}, [[[[\"deep\"]]]], 0.001, false]", status: 0 },
    ExpectedRun {
        input:
            b"{\"users\": [{\"name\": \"Ada\", \"age\": 36}, {\"name\": \"Alan\", \"age\": 41}], \
           \"total\": 2, \"page\": {\"first\": 1, \"last\": 1, \"size\": 50}, \"comment\": \"\"}",
        status: 0,
    },
    ExpectedRun { input: b"{\"broken\": [1, 2, }", status: 1 },
];

/// A method of running the parser.
pub trait Method {
    /// Runs `count` inputs in turn and gives the time; every status must be the right one.
    fn execute(&mut self, count: u32) -> Result<Duration, CliError>;
}
