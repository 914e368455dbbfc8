//! What it costs to learn which blocks an input reaches: by an exit for each block, and by one run
//! in which the blocks mark themselves. The floor is the run alone.

#![allow(clippy::expect_used, reason = "a bench has nobody to report an error to")]

use dejavm_benches::interleave::Interleaved;
use dejavm_benches::{criterion, guests, limit, system_or_skip};
use dejavm_engine::coverage::{Arm, blocks, detours};
use dejavm_engine::linux::ProcessSpec;
use dejavm_engine::machine::Machine;
use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the parser reads.
const INPUT: &[u8] =
    b"{\"id\": 17, \"tags\": [\"a\", \"b\\n\", \"\\u00e9\"], \"ok\": true, \"next\": null}";

/// Puts a breakpoint and, where it can have one, a detour at every block of the program.
fn cover(machine: &mut Machine) {
    let images = machine.process().expect("a process").images();
    let image = images.first().expect("a program");
    let found = blocks::find(&image.bytes).expect("its blocks");
    let starts: Vec<u64> = found.starts.iter().map(|at| at.wrapping_add(image.base)).collect();
    machine.set_blocks(&starts).expect("breakpoints");
    let image = detours::Image { elf: &image.bytes, blocks: &found, base: image.base, first: 0 };
    let counts = machine.install_detours(&[image], detours::Detail::Blocks).expect("detours");
    println!("{} blocks by detours, {} by breakpoints", counts.detours, counts.breakpoints());
}

/// One run and back, as often as asked.
fn each(times: u64, mut run: impl FnMut() -> usize) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        std::hint::black_box(run());
    }
    start.elapsed()
}

fn main() {
    let Some(system) = system_or_skip("tracing") else { return };
    let program = guests::compile(Path::new(env!("CARGO_TARGET_TMPDIR")), "json", &[]);
    let mut machine = guests::process(&system, &ProcessSpec::new(&program), INPUT);
    cover(&mut machine);
    let machine = RefCell::new(machine);
    let run = || {
        let mut machine = machine.borrow_mut();
        machine.run(INPUT, limit()).expect("a run");
        let blocks = machine.blocks_hit().len();
        machine.rewind().expect("a rewind");
        blocks
    };
    let trace = || {
        let mut machine = machine.borrow_mut();
        machine.trace(INPUT, limit()).expect("a run").expect("a trace");
        let blocks = machine.blocks_hit().len();
        machine.rewind().expect("a rewind");
        blocks
    };
    // As a campaign does: breakpoints at all blocks, and then none, or those of unknown blocks.
    let by_breakpoints = || {
        machine.borrow_mut().arm_blocks(Arm::All);
        let blocks = run();
        machine.borrow_mut().arm_blocks(Arm::None);
        blocks
    };
    assert_eq!(trace(), by_breakpoints(), "both see the same blocks");
    let mut criterion = criterion().sample_size(10);
    let mut group = criterion.benchmark_group("tracing");
    Interleaved::new(16)
        .with("run", |times| each(times, run))
        .with("by detours", |times| each(times, trace))
        .with("by breakpoints", |times| each(times, by_breakpoints))
        .bench(&mut group, "a JSON parser's blocks");
    group.finish();
    criterion.final_summary();
}
