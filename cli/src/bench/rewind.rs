//! What a run and its rewind cost, by pages written in the run and by the guest's memory.
//!
//! The guest writes one byte in each of its pages after its snapshot and exits. Beside the run and
//! the rewind: the same run on a VM that has no dirty log and is not rewound, and a copy of as
//! many pages. The strategy is the engine's only one here, copying by the host.

use super::rig::Rig;
use super::sample::interleave;
use super::{Context, Layer, Row, Sampled, code, guests};
use crate::error::CliError;
use dejavm_engine::address::PAGE_SIZE;
use dejavm_engine::machine::Machine;
use dejavm_engine::outcome::Outcome;
use std::hint::black_box;
use std::time::{Duration, Instant};

const PAGES: [u32; 6] = [0, 1, 8, 64, 512, 4096];
/// Memory of the guests: in words, and in bytes.
const RAM: [(&str, u64); 2] = [("64M", 64 << 20), ("1G", 1 << 30)];

/// Measures every row.
pub fn measure(context: &mut Context<'_>) -> Result<Vec<Row>, CliError> {
    let mut rows = Vec::new();
    for (ram, ram_bytes) in RAM {
        for pages in PAGES {
            let name = format!("{}_{pages}", ram.to_lowercase());
            let plural = if pages == 1 { "" } else { "s" };
            let what = format!("{ram}, {pages} page{plural} written");
            context.status.set(&format!("measuring {what}"));
            let sampled = sample(context, pages, ram_bytes)?;
            rows.push(context.row(&name, &what, 1, &sampled));
        }
    }
    Ok(rows)
}

fn sample(context: &Context<'_>, pages: u32, ram_bytes: u64) -> Result<Sampled, CliError> {
    let writes = code::page_writes(pages);
    let mut machine = guests::process(context.system, &writes, &writes, ram_bytes)?;
    // Under a limit first: the floor has none.
    let _ = run_and_rewind(&mut machine)?;
    let mut rig = Rig::new(context.system, machine.snapshot())?;
    let from = vec![1_u8; pages as usize * PAGE_SIZE];
    let mut to = from.clone();
    let mut rewinds = Vec::new();
    let [floor, runs, copies] = interleave(context.plan, |variant| {
        let time = match variant {
            0 => rig.round(Layer::Floor)?,
            1 => {
                let (run, rewind) = run_and_rewind(&mut machine)?;
                rewinds.push(rewind.as_nanos() as f64);
                run
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
    let rewinds = rewinds.split_off(rewinds.len() - runs.len());
    let mut sampled = vec![(Layer::Floor, floor), (Layer::Run, runs), (Layer::Rewind, rewinds)];
    if pages > 0 {
        sampled.push((Layer::Memcpy, copies));
    }
    Ok(sampled)
}

fn run_and_rewind(machine: &mut Machine) -> Result<(Duration, Duration), CliError> {
    let start = Instant::now();
    let report = machine.run(b"", guests::limit()).map_err(CliError::machine("run a guest"))?;
    let run = start.elapsed();
    if !matches!(report.outcome, Outcome::Exited { status: 0 }) {
        return Err(CliError::BenchGuest { did: report.outcome.to_string() });
    }
    let start = Instant::now();
    machine.rewind().map_err(CliError::machine("rewind a guest"))?;
    Ok((run, start.elapsed()))
}

fn copy(to: &mut [u8], from: &[u8]) -> Duration {
    let start = Instant::now();
    to.copy_from_slice(black_box(from));
    black_box(to);
    start.elapsed()
}
