//! Executions per second of one parser, by the method of running it.
//!
//! The parser is `tests/guests/c/json.c`, which the command carries as source and compiles with the
//! host's `cc`. On the same four inputs in turn: one input per entry of a machine with a rewind
//! after it, batches of inputs between which the guest puts itself back, a native fork server,
//! native fork and exec, and a loop in one native process that resets nothing. Then AFL++ and
//! libFuzzer where they are installed, for a fixed time each, on inputs that they make of the same
//! four.
//!
//! Another method of running the parser in a machine is one more [`Method`].

mod batches;
mod build;
mod fuzzers;
mod machine;
mod method;
mod native;

use super::context::Context;
use super::copies::Copies;
use super::figures::{Executions, Layer, LayerSamples, Row, thousandths};
use super::sample::{interleave, median};
use crate::error::CliError;
use batches::{Batched, WithPages};
use build::Programs;
use dejavm_corpus::ErrorChain;
use fuzzers::Attempt;
use machine::InMachine;
use method::Method;
use native::{ForkExec, ForkServer, Loop};

/// The row of a method.
#[derive(Clone, Copy)]
struct MethodRow {
    name: &'static str,
    what: &'static str,
    /// Executions in a sample.
    executions: u32,
}

const fn row_of(name: &'static str, what: &'static str, executions: u32) -> MethodRow {
    MethodRow { name, what, executions }
}

/// The methods that run the same inputs. The first is what the others are compared with. A sample
/// takes one or two milliseconds: longer ones would seldom be free of other work on a busy host.
const SAME_INPUTS: [MethodRow; 9] = [
    row_of("machine_one_per_entry", "machine, one input per entry", 32),
    row_of("machine_batches_8", "agent batches of 8", 256),
    row_of("machine_batches_64", "agent batches of 64", 1_024),
    row_of("machine_batches_256", "agent batches of 256", 1_024),
    row_of("machine_batches_1024", "agent batches of 1024", 1_024),
    row_of(PAGES_ROW, "agent batches, 64 hot pages", 512),
    row_of("native_fork_server", "native fork server", 16),
    row_of("native_fork_exec", "native fork and exec", 4),
    row_of("native_loop", "native loop, no reset", 16_000),
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

/// Samples of every method, and of the copies last.
type MethodSamples = [Vec<f64>; SAME_INPUTS.len() + 1];

/// Executions of the first method before and after each fuzzer.
const EXECUTIONS_BESIDE: u32 = 4_000;

/// Measures every row.
pub fn measure(context: &mut Context<'_>) -> Result<Vec<Row>, CliError> {
    context.status.set("compiling the parser");
    let programs = match Programs::build() {
        Ok(programs) => programs,
        Err(build::Failure::Host(error)) => return Err(error),
        Err(build::Failure::Compiler(why)) => {
            let why = ErrorChain(&why).to_string();
            let rows = SAME_INPUTS.iter().map(|row| (row.name, row.what));
            let all = rows.chain(fuzzers::ALL.iter().map(|fuzzer| (fuzzer.name, fuzzer.what)));
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
            Attempt::Done(prepared) => beside(context, fuzzer, &prepared, &mut machine)?,
            Attempt::NotHere(why) => Context::absent(fuzzer.name, fuzzer.what, why),
        });
    }
    Ok(rows)
}

fn same_inputs(
    context: &mut Context<'_>,
    programs: &Programs,
    machine: &mut InMachine,
) -> Result<Vec<Row>, CliError> {
    if !SAME_INPUTS.iter().any(|row| context.wants(row.name)) {
        return Ok(Vec::new());
    }
    context.status.set("measuring the same inputs in turn");
    let batched = |size| Batched::new(context, programs, size);
    let (mut of_8, mut of_64, mut of_1024) = (batched(8)?, batched(64)?, batched(1024)?);
    let mut of_256 = batched(256)?;
    let WithPages { parser: mut with_pages, pages_more } =
        Batched::with_pages(context, programs, 256)?;
    let mut fork_server = ForkServer::new(programs)?;
    let mut fork_exec = ForkExec::new(programs)?;
    let mut in_process = Loop::new(programs)?;
    let mut copies = Copies::new(pages_more);
    let mut methods: [&mut dyn Method; SAME_INPUTS.len() + 1] = [
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
    let sampled: MethodSamples = interleave(context.plan, |variant| {
        // What comes after the methods are the copies.
        let count = SAME_INPUTS.get(variant).map_or(COPIES, |row| row.executions);
        Ok(methods[variant].execute(count)?.as_nanos() as f64 / f64::from(count))
    })?;
    for batched in [&mut of_8, &mut of_64, &mut of_256, &mut of_1024, &mut with_pages] {
        batched.check()?;
    }
    let rows = SAME_INPUTS.iter().enumerate().filter(|(_, row)| context.wants(row.name));
    Ok(rows.map(|(index, method)| row(context, &sampled, index, *method)).collect())
}

/// How many times as often `method` does it as `other`, measured in turn.
fn times_as_often(method: &[f64], other: &[f64]) -> f64 {
    let each = other.iter().zip(method).map(|(other, method)| other / method);
    median(&each.collect::<Vec<_>>())
}

fn row(context: &Context<'_>, sampled: &MethodSamples, index: usize, method: MethodRow) -> Row {
    let times = &sampled[index];
    let mut lines = vec![LayerSamples::new(Layer::Execution, times.clone())];
    if index == WITH_PAGES {
        // The parser without these pages, and a copy of them.
        let parts = sampled[BATCHES_OF_256].iter().zip(&sampled[SAME_INPUTS.len()]);
        let floor = parts.map(|(plain, copy)| plain + copy).collect();
        lines.insert(0, LayerSamples::new(Layer::Floor, floor));
    }
    let mut row = context.row(method.name, method.what, method.executions, &lines);
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

/// Runs a fuzzer, and the first method before and after it, so that a host whose speed drifts does
/// not count.
fn beside(
    context: &Context<'_>,
    fuzzer: &fuzzers::Fuzzer,
    prepared: &fuzzers::Prepared,
    machine: &mut InMachine,
) -> Result<Row, CliError> {
    let mut seconds = machine.execute(EXECUTIONS_BESIDE)?.as_secs_f64();
    let rate = match fuzzer.run(prepared)? {
        Attempt::Done(rate) => rate,
        Attempt::NotHere(why) => return Ok(Context::absent(fuzzer.name, fuzzer.what, why)),
    };
    seconds += machine.execute(EXECUTIONS_BESIDE)?.as_secs_f64();
    let machines_rate = 2.0 * f64::from(EXECUTIONS_BESIDE) / seconds;
    let sampled = [LayerSamples::new(Layer::Execution, vec![1e9 / rate])];
    let mut row = context.row(fuzzer.name, fuzzer.what, 1, &sampled);
    if let Some(line) = row.lines.first_mut() {
        line.executions = Some(Executions::new(rate, rate / machines_rate));
    }
    Ok(row)
}
