//! Executions per second of one parser, by way of running it.
//!
//! The parser is `tests/guests/c/json.c`, which the command carries as source and compiles with the
//! host's `cc`. On the same four inputs in turn: one input per entry of a machine with a rewind
//! after it, a native fork server, native fork and exec, and a loop in one native process that
//! resets nothing. Then AFL++ and libFuzzer where they are installed, for a fixed time each, on
//! inputs that they make of the same four.
//!
//! Another way to run the parser in a machine is one more [`Way`].

mod build;
mod fuzzers;
mod native;

use super::sample::interleave;
use super::{Context, Executions, Layer, Row, guests};
use crate::error::CliError;
use build::Programs;
use dejavm_engine::guest::process::ProcessSpec;
use dejavm_engine::machine::Machine;
use dejavm_engine::outcome::Outcome;
use native::{ForkExec, ForkServer, Loop};
use std::time::{Duration, Instant};

/// The inputs, and the parser's exit status for each.
const INPUTS: [(&[u8], u8); 4] = [
    (b"{\"id\": 17, \"tags\": [\"a\", \"b\\n\", \"\\u00e9\"], \"ok\": true, \"next\": null}", 0),
    (b"[[1, 2.5, -3e7], [], {}, [[[[\"deep\"]]]], 0.001, false]", 0),
    (
        b"{\"users\": [{\"name\": \"Ada\", \"age\": 36}, {\"name\": \"Alan\", \"age\": 41}], \
           \"total\": 2, \"page\": {\"first\": 1, \"last\": 1, \"size\": 50}, \"comment\": \"\"}",
        0,
    ),
    (b"{\"broken\": [1, 2, }", 1),
];

/// A way of running the parser.
trait Way {
    /// Runs `count` inputs in turn and gives the time; every status must be the right one.
    fn execute(&mut self, count: u32) -> Result<Duration, CliError>;
}

/// A way's row: its name, its words, and executions in a sample.
type Described = (&'static str, &'static str, u32);

/// The ways that run the same inputs. The first is what the others are compared with.
const SAME_INPUTS: [Described; 4] = [
    ("machine_one_per_entry", "machine, one input per entry", 128),
    ("native_fork_server", "native fork server", 64),
    ("native_fork_exec", "native fork and exec", 16),
    ("native_loop", "native loop, no reset", 40_000),
];

/// Executions of the first way before and after each fuzzer.
const EXECUTIONS_BESIDE: u32 = 4_000;

/// Measures every row.
pub fn measure(context: &mut Context<'_>) -> Result<Vec<Row>, CliError> {
    context.status.set("compiling the parser");
    let programs = match Programs::build() {
        Ok(programs) => programs,
        Err(build::Failure::Host(error)) => return Err(error),
        Err(build::Failure::Compiler(why)) => {
            let names = SAME_INPUTS.map(|(name, what, _)| (name, what)).into_iter();
            let all = names.chain(fuzzers::ALL.iter().map(|fuzzer| (fuzzer.name, fuzzer.what)));
            let wanted = all.filter(|(name, _)| context.wants(name));
            return Ok(wanted
                .map(|(name, what)| Context::absent(name, what, why.clone()))
                .collect());
        }
    };
    let mut machine = InMachine::new(context, &programs)?;
    let mut rows = same_inputs(context, &programs, &mut machine)?;
    for fuzzer in &fuzzers::ALL {
        if !context.wants(fuzzer.name) {
            continue;
        }
        context.status.set(&format!("measuring {}", fuzzer.what));
        rows.push(match fuzzer.prepare(&programs)? {
            Ok(command) => beside(context, fuzzer, &command, &mut machine)?,
            Err(why) => Context::absent(fuzzer.name, fuzzer.what, why),
        });
    }
    Ok(rows)
}

fn same_inputs(
    context: &mut Context<'_>,
    programs: &Programs,
    machine: &mut InMachine,
) -> Result<Vec<Row>, CliError> {
    if !SAME_INPUTS.iter().any(|(name, ..)| context.wants(name)) {
        return Ok(Vec::new());
    }
    context.status.set("measuring the same inputs in turn");
    let mut fork_server = ForkServer::new(programs)?;
    let mut fork_exec = ForkExec::new(programs)?;
    let mut in_process = Loop::new(programs)?;
    let mut ways: [&mut dyn Way; 4] = [machine, &mut fork_server, &mut fork_exec, &mut in_process];
    let sampled: [Vec<f64>; SAME_INPUTS.len()] = interleave(context.plan, |variant| {
        let (.., count) = SAME_INPUTS[variant];
        Ok(ways[variant].execute(count)?.as_nanos() as f64 / f64::from(count))
    })?;
    let ratios = |times: &Vec<f64>| {
        let each = sampled[0].iter().zip(times).map(|(first, time)| first / time);
        super::sample::median(&each.collect::<Vec<_>>())
    };
    let rows = SAME_INPUTS.iter().zip(&sampled).filter(|((name, ..), _)| context.wants(name));
    Ok(rows
        .map(|(&(name, what, count), times)| {
            let sampled = [(Layer::Execution, times.clone())];
            let mut row = context.row(name, what, count, &sampled);
            if let Some(line) = row.lines.first_mut() {
                line.executions = Some(Executions::new(1e9 / line.p50_ns, ratios(times)));
            }
            row
        })
        .collect())
}

/// Runs a fuzzer, and the first way before and after it, so that a host whose speed drifts does
/// not count.
fn beside(
    context: &Context<'_>,
    fuzzer: &fuzzers::Fuzzer,
    prepared: &fuzzers::Prepared,
    machine: &mut InMachine,
) -> Result<Row, CliError> {
    let mut seconds = machine.execute(EXECUTIONS_BESIDE)?.as_secs_f64();
    let rate = match fuzzer.run(prepared)? {
        Ok(rate) => rate,
        Err(why) => return Ok(Context::absent(fuzzer.name, fuzzer.what, why)),
    };
    seconds += machine.execute(EXECUTIONS_BESIDE)?.as_secs_f64();
    let machines_rate = 2.0 * f64::from(EXECUTIONS_BESIDE) / seconds;
    let sampled = [(Layer::Execution, vec![1e9 / rate])];
    let mut row = context.row(fuzzer.name, fuzzer.what, 1, &sampled);
    if let Some(line) = row.lines.first_mut() {
        line.executions = Some(Executions::new(rate, rate / machines_rate));
    }
    Ok(row)
}

/// The parser in a machine: one input for each entry, and a rewind after it.
struct InMachine {
    machine: Machine,
}

impl InMachine {
    fn new(context: &Context<'_>, programs: &Programs) -> Result<Self, CliError> {
        let spec = ProcessSpec::new(&programs.parser);
        let machine = guests::load(context.system, &spec, guests::RAM_BYTES)?;
        Ok(Self { machine })
    }
}

impl Way for InMachine {
    fn execute(&mut self, count: u32) -> Result<Duration, CliError> {
        let start = Instant::now();
        for (input, status) in INPUTS.iter().cycle().take(count as usize) {
            let ran = self.machine.run(input, guests::limit());
            let outcome = ran.map_err(CliError::machine("run the parser"))?.outcome;
            if outcome != (Outcome::Exited { status: *status }) {
                return Err(CliError::BenchGuest { did: outcome.to_string() });
            }
            self.machine.rewind().map_err(CliError::machine("rewind the parser"))?;
        }
        Ok(start.elapsed())
    }
}
