//! What a rewind costs on top of running the guest at all, by pages written per run.
//!
//! Beside each figure: the bare run (the same guest and exits in a raw `KVM_RUN` loop, with only
//! the registers put back), runs in batches between which the guest puts itself back, and a copy
//! of the same number of pages. Says at its end whether the rewind stays within its limits, and
//! counts the allocations of the hot path, which must be none.

#![allow(clippy::expect_used, reason = "a bench has nobody to report an error to")]

use dejavm_benches::batches::{Batches, ExpectedRun};
use dejavm_benches::floor::RawVm;
use dejavm_benches::interleave::Interleaved;
use dejavm_benches::{criterion, guests, limit, system_or_skip};
use dejavm_engine::machine::Machine;
use dejavm_engine::machine::Rewound;
use dejavm_engine::outcome::Outcome;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

/// A row.
#[derive(Clone, Copy)]
struct Row {
    /// Pages written per run.
    pages: u64,
    /// The most that a run with its rewind may cost against a bare run.
    ratio_max: Option<f64>,
}

const ROWS: [Row; 4] = [
    Row { pages: 1, ratio_max: Some(1.10) },
    Row { pages: 8, ratio_max: None },
    Row { pages: 64, ratio_max: Some(1.25) },
    Row { pages: 512, ratio_max: None },
];
/// Runs before anything is measured: past the first audit of the hot set.
const SETTLING_RUNS: u64 = 300;
const COUNTED_RUNS: u64 = 1_000;
/// Runs of a batch.
const BATCH: u64 = 256;
/// Batches until the agent knows its pages, and those that are counted after them, before it looks
/// at system calls again.
const SETTLING_BATCHES: u64 = 66;
const COUNTED_BATCHES: u64 = 40;

fn run_and_rewind(machine: &mut Machine, times: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        let report = machine.run(b"", limit()).expect("a run");
        assert_eq!(report.outcome, Outcome::Exited { status: 0 });
        machine.rewind().expect("a rewind");
    }
    start.elapsed()
}

/// Allocations that `work` makes on this thread.
fn allocations(work: impl FnOnce() -> Duration) -> u64 {
    let counted = allocation_counter::measure(|| {
        let _ = work();
    });
    counted.count_total
}

/// No input, and the status of every run.
const ONE_RUN: [ExpectedRun<'_>; 1] = [ExpectedRun { input: b"", status: 0 }];

/// What a row came to.
struct RowResult {
    row: Row,
    ratio: f64,
    rewound: Rewound,
}

fn main() {
    let Some(system) = system_or_skip("rewind") else { return };
    let program = guests::compile_loops(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let mut criterion = criterion();
    let mut group = criterion.benchmark_group("rewind");
    let mut finished = Vec::new();
    for row in ROWS {
        let pages = row.pages;
        let mut machine = guests::loops(&system, &program, "dirty", pages);
        run_and_rewind(&mut machine, SETTLING_RUNS);
        let allocated = allocations(|| run_and_rewind(&mut machine, COUNTED_RUNS));
        assert_eq!(allocated, 0, "{COUNTED_RUNS} runs with {pages} pages allocated");
        let mut batches =
            Batches::new(guests::loops(&system, &program, "dirty", pages), BATCH as usize);
        batches.time(SETTLING_BATCHES * BATCH, &ONE_RUN);
        let allocated = allocations(|| batches.time(COUNTED_BATCHES * BATCH, &ONE_RUN));
        assert_eq!(allocated, 0, "{COUNTED_BATCHES} batches with {pages} pages allocated");
        let mut bare = RawVm::new(machine.snapshot());
        let from = vec![1_u8; pages as usize * 4096];
        let mut to = from.clone();
        let results = Interleaved::new(BATCH)
            .with("bare run", |times| {
                let start = Instant::now();
                for _ in 0..times {
                    bare.round();
                }
                start.elapsed()
            })
            .with("run + rewind", |times| run_and_rewind(&mut machine, times))
            .with("agent", |times| batches.time(times, &ONE_RUN))
            .with("memcpy", |times| {
                let start = Instant::now();
                for _ in 0..times {
                    to.copy_from_slice(black_box(&from));
                    black_box(&mut to);
                }
                start.elapsed()
            })
            .bench(&mut group, &format!("{pages} pages"));
        let rewound = machine.last_rewind();
        let found = machine.verify().expect("a comparison");
        assert!(found.is_empty(), "{found:?}");
        let found = batches.machine().verify().expect("a comparison");
        assert!(found.is_empty(), "{found:?}");
        finished.push(RowResult { row, ratio: results[1].ratio, rewound });
    }
    group.finish();
    criterion.final_summary();
    for RowResult { row: Row { pages, ratio_max }, ratio, rewound } in finished {
        // The command line's filter left the row out.
        if ratio.is_nan() {
            continue;
        }
        let verdict = match ratio_max {
            None => String::new(),
            Some(limit) if ratio <= limit => format!(", within {limit:.2}"),
            Some(limit) => format!(", NOT within {limit:.2}"),
        };
        println!(
            "{pages} pages: x{ratio:.3} of the bare run{verdict} ({rewound:?}, 0 allocations)"
        );
    }
}
