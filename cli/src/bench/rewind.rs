//! What a run and its rewind cost, by pages written in the run and by the guest's memory.
//!
//! The guest writes one byte in each of its pages after its snapshot and exits. Beside the run and
//! the rewind: the same run on a VM that has no dirty log and is not rewound, and a copy of as
//! many pages. In batches the guest puts itself back; beside one execution of those, a run and its
//! rewind by the host. A row is a cell of a matrix: pages by memory by [`Strategy`] by [`States`].

use super::batches::{Batches, ExpectedRun};
use super::context::Context;
use super::copies::Copies;
use super::figures::{Layer, LayerSamples, Row, Sampled};
use super::floor_vm::FloorVm;
use super::guests::{RAM_SIZES, RamSize};
use super::sample::{interleave, per_event};
use super::{code, guests};
use crate::error::CliError;
use dejavm_engine::machine::hardware::DirtySource;
use dejavm_engine::machine::{Machine, RewindMode};
use dejavm_engine::outcome::Outcome;
use std::iter::repeat_n;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAGES: [u32; 6] = [0, 1, 8, 64, 512, 4096];
/// Runs of a batch.
const BATCH: u32 = 256;
/// Runs and copies in a sample of those beside a batch: few, so that other work on the host seldom
/// gets in between.
const BESIDE: u32 = 16;
/// The input and the status of every run.
const NO_INPUT: ExpectedRun<'_> = ExpectedRun { input: b"", status: 0 };

/// Who puts memory back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// The host copies what the dirty ring names, or the dirty log where there is no ring: a
    /// machine as it is.
    Host,
    /// The host copies what the dirty log names, though there is a ring.
    HostByLog,
    /// The guest copies, between two runs of a batch.
    Agent,
}

/// Which classes of the CPU's state a rewind puts back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum States {
    /// Those that a program can have changed.
    Lazy,
    /// All of them.
    Full,
}

/// One row.
#[derive(Clone, Copy, Debug)]
struct Cell {
    strategy: Strategy,
    states: States,
    ram: RamSize,
    pages: u32,
}

impl Cell {
    /// The whole matrix; machines as they are have a dirty ring if `by_ring`.
    fn all(by_ring: bool) -> impl Iterator<Item = Self> {
        let by_log = by_ring.then_some((Strategy::HostByLog, States::Lazy));
        let others = [
            (Strategy::Host, States::Lazy),
            (Strategy::Host, States::Full),
            (Strategy::Agent, States::Lazy),
        ];
        let kinds = others.into_iter().chain(by_log);
        let by_ram = kinds.flat_map(|kind| RAM_SIZES.map(|ram| (kind, ram)));
        by_ram.flat_map(|((strategy, states), ram)| {
            PAGES.map(|pages| Self { strategy, states, ram, pages })
        })
    }

    /// A machine whose program writes the cell's pages, which it has by then.
    fn guest(self, context: &Context<'_>) -> Result<Machine, CliError> {
        let writes = code::page_writes(self.pages);
        guests::process(context.system, &writes, &writes, self.ram.bytes)
    }

    /// What sets it apart from the host's lazy rewind; nothing for that one.
    fn kind(self) -> &'static str {
        match (self.strategy, self.states) {
            (Strategy::Host, States::Lazy) => "",
            (Strategy::HostByLog, _) => "log ",
            (Strategy::Host, States::Full) => "full ",
            (Strategy::Agent, _) => "agent ",
        }
    }

    fn name(self) -> String {
        let kind = self.kind().replace(' ', "_");
        format!("{kind}{}_{}", self.ram.name(), self.pages)
    }

    fn what(self) -> String {
        let plural = if self.pages == 1 { "" } else { "s" };
        format!("{}{}, {} page{plural} written", self.kind(), self.ram.words, self.pages)
    }
}

/// Measures the rows that are asked for.
pub fn measure(context: &mut Context<'_>) -> Result<Vec<Row>, CliError> {
    let mut rows = Vec::new();
    for cell in Cell::all(context.system.dirty_ring().is_some()) {
        if !context.wants(&cell.name()) {
            continue;
        }
        context.status.set(&format!("measuring {}", cell.what()));
        let (events, sampled) = match cell.strategy {
            Strategy::Host | Strategy::HostByLog => (1, sample(context, cell)?),
            Strategy::Agent => (BATCH, sample_batches(context, cell)?),
        };
        rows.push(context.row(&cell.name(), &cell.what(), events, &sampled));
    }
    Ok(rows)
}

/// What one of the host's rewinds costs.
fn sample(context: &Context<'_>, cell: Cell) -> Result<Sampled, CliError> {
    let pages = cell.pages;
    let mut machine = cell.guest(context)?;
    if cell.strategy == Strategy::HostByLog {
        let snapshot = Arc::clone(machine.snapshot());
        machine = Machine::load_with(context.system, snapshot, DirtySource::Log)
            .map_err(CliError::machine("load a snapshot"))?;
    }
    if cell.states == States::Full {
        machine.set_rewind_mode(RewindMode::Full);
    }
    // Under a limit first: the floor has none.
    run_and_rewind(&mut machine)?;
    let mut floor_vm = FloorVm::new(context.system, machine.snapshot())?;
    let mut copies = Copies::new(pages as usize);
    let (mut runs, mut rewinds) = (Vec::new(), Vec::new());
    let [floor, cycles, copies] = interleave(context.plan, |variant| {
        let time = match variant {
            0 => floor_vm.round(Layer::Floor)?,
            1 => {
                let cycle = run_and_rewind(&mut machine)?;
                runs.push(cycle.run.as_nanos() as f64);
                rewinds.push(cycle.rewind.as_nanos() as f64);
                cycle.time()
            }
            _ => copies.make(1),
        };
        Ok(time.as_nanos() as f64)
    })?;
    guests::check(&mut machine)?;
    // Those of the warm-up do not count.
    let runs = runs.split_off(runs.len() - cycles.len());
    let rewinds = rewinds.split_off(rewinds.len() - cycles.len());
    let mut sampled = vec![
        LayerSamples::new(Layer::Floor, floor),
        LayerSamples::new(Layer::Run, runs),
        LayerSamples::new(Layer::Rewind, rewinds),
        LayerSamples::new(Layer::Cycle, cycles),
    ];
    if pages > 0 {
        sampled.push(LayerSamples::new(Layer::Memcpy, copies));
    }
    Ok(sampled)
}

/// What one execution costs in a batch of [`BATCH`], and what it costs where the host rewinds.
fn sample_batches(context: &Context<'_>, cell: Cell) -> Result<Sampled, CliError> {
    let mut by_host = cell.guest(context)?;
    let machine = Machine::load(context.system, Arc::clone(by_host.snapshot()));
    let mut batches = Batches::new(machine.map_err(CliError::machine("load a snapshot"))?);
    let mut copies = Copies::new(cell.pages as usize);
    let [executions, cycles, copied] = interleave(context.plan, |variant| {
        let (count, time) = match variant {
            0 => (BATCH, batches.run(repeat_n(NO_INPUT, BATCH as usize))?),
            1 => (BESIDE, runs_and_rewinds(&mut by_host, BESIDE)?),
            _ => (BESIDE, copies.make(BESIDE)),
        };
        Ok(per_event(time, count))
    })?;
    let hot = batches.machine().agent_pages_hot();
    if hot != cell.pages as usize {
        return Err(CliError::BenchGuest { did: format!("has {hot} hot pages") });
    }
    guests::check(batches.machine())?;
    let mut sampled = vec![
        LayerSamples::new(Layer::Execution, executions),
        LayerSamples::new(Layer::Cycle, cycles),
    ];
    if cell.pages > 0 {
        sampled.push(LayerSamples::new(Layer::Memcpy, copied));
    }
    Ok(sampled)
}

fn runs_and_rewinds(machine: &mut Machine, count: u32) -> Result<Duration, CliError> {
    (0..count).map(|_| Ok(run_and_rewind(machine)?.time())).sum()
}

/// The times of a run and its rewind.
struct Cycle {
    run: Duration,
    rewind: Duration,
}

impl Cycle {
    fn time(&self) -> Duration {
        self.run + self.rewind
    }
}

fn run_and_rewind(machine: &mut Machine) -> Result<Cycle, CliError> {
    let start = Instant::now();
    let report = machine.run(b"", guests::limit()).map_err(CliError::machine("run a guest"))?;
    let ran = Instant::now();
    if !matches!(report.outcome, Outcome::Exited { status: 0 }) {
        return Err(CliError::BenchGuest { did: report.outcome.to_string() });
    }
    machine.rewind().map_err(CliError::machine("rewind a guest"))?;
    Ok(Cycle { run: ran - start, rewind: ran.elapsed() })
}
