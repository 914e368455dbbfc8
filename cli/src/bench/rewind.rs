//! What a run and its rewind cost, by pages written in the run and by the guest's memory.
//!
//! The guest writes one byte in each of its pages after its snapshot and exits. Beside the run and
//! the rewind: the same run on a VM that has no dirty log and is not rewound, and a copy of as
//! many pages. A row is a cell of a matrix: pages by memory by [`Strategy`] by [`States`].

use super::rig::Rig;
use super::sample::interleave;
use super::{Context, Layer, Row, Sampled, code, guests};
use crate::error::CliError;
use dejavm_engine::address::PAGE_SIZE;
use dejavm_engine::machine::Machine;
use dejavm_engine::machine::hardware::DirtySource;
use dejavm_engine::outcome::Outcome;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAGES: [u32; 6] = [0, 1, 8, 64, 512, 4096];
/// Memory of the guests: in words, and in bytes.
const RAM: [(&str, u64); 3] = [("64M", 64 << 20), ("1G", 1 << 30), ("4G", 4 << 30)];

/// Who puts memory back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// The host copies what the dirty ring tells, or the dirty log where there is no ring: a
    /// machine as it is.
    Host,
    /// The host copies what the dirty log tells, though there is a ring.
    HostByLog,
}

/// Which classes of the CPU's state a rewind puts back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum States {
    /// Those that a program can have changed.
    Lazy,
}

/// One row.
#[derive(Clone, Copy, Debug)]
struct Cell {
    strategy: Strategy,
    states: States,
    ram: &'static str,
    ram_bytes: u64,
    pages: u32,
}

impl Cell {
    /// The whole matrix; machines as they are have a dirty ring if `by_ring`.
    fn all(by_ring: bool) -> impl Iterator<Item = Self> {
        let by_log = by_ring.then_some(Strategy::HostByLog);
        let by_strategy = [Strategy::Host].into_iter().chain(by_log);
        let by_states = by_strategy.flat_map(|strategy| [(strategy, States::Lazy)]);
        let by_ram = by_states.flat_map(|kind| RAM.map(|ram| (kind, ram)));
        by_ram.flat_map(|((strategy, states), (ram, ram_bytes))| {
            PAGES.map(|pages| Self { strategy, states, ram, ram_bytes, pages })
        })
    }

    /// What sets it apart from the host's lazy rewind; nothing for that one.
    fn kind(self) -> &'static str {
        match (self.strategy, self.states) {
            (Strategy::Host, States::Lazy) => "",
            (Strategy::HostByLog, States::Lazy) => "dirty log, ",
        }
    }

    fn name(self) -> String {
        let kind = match self.strategy {
            Strategy::Host => "",
            Strategy::HostByLog => "log_",
        };
        format!("{kind}{}_{}", self.ram.to_lowercase(), self.pages)
    }

    fn what(self) -> String {
        let plural = if self.pages == 1 { "" } else { "s" };
        format!("{}{}, {} page{plural} written", self.kind(), self.ram, self.pages)
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
        let sampled = sample(context, cell)?;
        rows.push(context.row(&cell.name(), &cell.what(), 1, &sampled));
    }
    Ok(rows)
}

fn sample(context: &Context<'_>, cell: Cell) -> Result<Sampled, CliError> {
    let pages = cell.pages;
    let writes = code::page_writes(pages);
    let mut machine = guests::process(context.system, &writes, &writes, cell.ram_bytes)?;
    if cell.strategy == Strategy::HostByLog {
        let snapshot = Arc::clone(machine.snapshot());
        machine = Machine::load_with(context.system, snapshot, DirtySource::Log)
            .map_err(CliError::machine("load a snapshot"))?;
    }
    // Under a limit first: the floor has none.
    let _ = run_and_rewind(&mut machine)?;
    let mut rig = Rig::new(context.system, machine.snapshot())?;
    let from = vec![1_u8; pages as usize * PAGE_SIZE];
    let mut to = from.clone();
    let (mut runs, mut rewinds) = (Vec::new(), Vec::new());
    let [floor, cycles, copies] = interleave(context.plan, |variant| {
        let time = match variant {
            0 => rig.round(Layer::Floor)?,
            1 => {
                let [run, rewind] = run_and_rewind(&mut machine)?;
                runs.push(run.as_nanos() as f64);
                rewinds.push(rewind.as_nanos() as f64);
                run + rewind
            }
            _ => copy(&mut to, &from),
        };
        Ok(time.as_nanos() as f64)
    })?;
    // Figures of a rewind that does not rewind would be worth nothing.
    let differences = machine.verify().map_err(CliError::machine("verify a guest"))?;
    if let Some(first) = differences.first() {
        return Err(CliError::BenchGuest { did: format!("was not put back: {first:?}") });
    }
    // Those of the warm-up do not count.
    let runs = runs.split_off(runs.len() - cycles.len());
    let rewinds = rewinds.split_off(rewinds.len() - cycles.len());
    let mut sampled = vec![
        (Layer::Floor, floor),
        (Layer::Run, runs),
        (Layer::Rewind, rewinds),
        (Layer::Cycle, cycles),
    ];
    if pages > 0 {
        sampled.push((Layer::Memcpy, copies));
    }
    Ok(sampled)
}

fn run_and_rewind(machine: &mut Machine) -> Result<[Duration; 2], CliError> {
    let start = Instant::now();
    let report = machine.run(b"", guests::limit()).map_err(CliError::machine("run a guest"))?;
    let ran = Instant::now();
    if !matches!(report.outcome, Outcome::Exited { status: 0 }) {
        return Err(CliError::BenchGuest { did: report.outcome.to_string() });
    }
    machine.rewind().map_err(CliError::machine("rewind a guest"))?;
    Ok([ran - start, ran.elapsed()])
}

fn copy(to: &mut [u8], from: &[u8]) -> Duration {
    let start = Instant::now();
    to.copy_from_slice(black_box(from));
    black_box(to);
    start.elapsed()
}
