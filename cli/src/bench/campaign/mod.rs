//! Executions per second of one parser, by way of running it.
//!
//! The parser is `tests/guests/c/json.c`, which the command carries as source and compiles with the
//! host's `cc`. On the same four inputs in turn: one input per entry of a machine with a rewind
//! after it, batches of inputs between which the guest puts itself back, a native fork server, native fork and exec, and a loop in one native process that
//! resets nothing. Then AFL++ and libFuzzer where they are installed, for a fixed time each, on
//! inputs that they make of the same four.
//!
//! Another way to run the parser in a machine is one more [`Way`].

mod batches;
mod build;
mod fuzzers;
mod native;

use super::copies::Copies;
use super::sample::interleave;
use super::{Context, Executions, Layer, Row, guests, thousandths};
use crate::error::CliError;
use batches::Batched;
use build::Programs;
use dejavm_engine::linux::ProcessSpec;
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

/// The ways that run the same inputs. The first is what the others are compared with. A sample
/// takes one or two milliseconds: longer ones would seldom be free of other work on a busy host.
const SAME_INPUTS: [Described; 9] = [
    ("machine_one_per_entry", "machine, one input per entry", 32),
    ("machine_batches_8", "agent batches of 8", 256),
    ("machine_batches_64", "agent batches of 64", 1_024),
    ("machine_batches_256", "agent batches of 256", 1_024),
    ("machine_batches_1024", "agent batches of 1024", 1_024),
    (PAGES_ROW, "agent batches, 64 hot pages", 512),
    ("native_fork_server", "native fork server", 16),
    ("native_fork_exec", "native fork and exec", 4),
    ("native_loop", "native loop, no reset", 16_000),
];
const _: () = assert!(batches::PAGES_HOT == 64, "as the row says");
/// The row of a parser that writes more pages, in batches of 256.
const PAGES_ROW: &str = "machine_batches_64_pages";
/// Places in [`SAME_INPUTS`].
const BATCHES_OF_256: usize = 3;
const WITH_PAGES: usize = 5;
const FORK_SERVER: usize = 6;
const LOOP: usize = 8;
/// Copies of these pages in a sample.
const COPIES: u32 = 256;

/// Samples of every way, and of the copies last.
type Sampled = [Vec<f64>; SAME_INPUTS.len() + 1];

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
    let batched = |size| Batched::new(context, programs, size);
    let (mut of_8, mut of_64, mut of_1024) = (batched(8)?, batched(64)?, batched(1024)?);
    let mut of_256 = batched(256)?;
    let (mut with_pages, more) = Batched::with_pages(context, programs, 256)?;
    let mut fork_server = ForkServer::new(programs)?;
    let mut fork_exec = ForkExec::new(programs)?;
    let mut in_process = Loop::new(programs)?;
    let mut copies = Copies::new(more);
    let mut ways: [&mut dyn Way; SAME_INPUTS.len() + 1] = [
        machine,
        &mut of_8,
        &mut of_64,
        &mut of_256,
        &mut of_1024,
        &mut with_pages,
        &mut fork_server,
        &mut fork_exec,
        &mut in_process,
        &mut copies,
    ];
    let sampled: Sampled = interleave(context.plan, |variant| {
        let count = SAME_INPUTS.get(variant).map_or(COPIES, |(.., count)| *count);
        Ok(ways[variant].execute(count)?.as_nanos() as f64 / f64::from(count))
    })?;
    for batched in [&mut of_8, &mut of_64, &mut of_256, &mut of_1024, &mut with_pages] {
        batched.check()?;
    }
    let rows = SAME_INPUTS.iter().enumerate().filter(|(_, (name, ..))| context.wants(name));
    Ok(rows.map(|(index, described)| row(context, &sampled, index, described)).collect())
}

/// How many times as often `way` does it as `other`, measured in turn.
fn times_as_often(way: &[f64], other: &[f64]) -> f64 {
    let each = other.iter().zip(way).map(|(other, way)| other / way);
    super::sample::median(&each.collect::<Vec<_>>())
}

fn row(
    context: &Context<'_>,
    sampled: &Sampled,
    index: usize,
    (name, what, count): &Described,
) -> Row {
    let times = &sampled[index];
    let mut lines = vec![(Layer::Execution, times.clone())];
    if index == WITH_PAGES {
        // The parser without these pages, and a copy of them.
        let parts = sampled[BATCHES_OF_256].iter().zip(&sampled[SAME_INPUTS.len()]);
        lines.insert(0, (Layer::Floor, parts.map(|(plain, copy)| plain + copy).collect()));
    }
    let mut row = context.row(name, what, *count, &lines);
    if let Some(line) = row.lines.last_mut() {
        let of = |other: usize| thousandths(times_as_often(times, &sampled[other]));
        line.executions = Some(Executions {
            of_fork_server: Some(of(FORK_SERVER)),
            of_loop: Some(of(LOOP)),
            ..Executions::new(1e9 / line.p50_ns, of(0))
        });
    }
    row
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

impl Way for Copies {
    fn execute(&mut self, count: u32) -> Result<Duration, CliError> {
        Ok(self.make(count))
    }
}
