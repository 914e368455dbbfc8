//! What one exit costs: from CPL 0 (OUT, an MMIO store, HLT) and from CPL 3 (an MMIO store, a
//! system call, a page fault).
//!
//! Beside each figure: the same guest code in a raw `KVM_RUN` loop without the engine (`raw`), and
//! where that is something else, the engine's vCPU without a driver (`vcpu`) below the whole machine
//! (`machine`). A round is many exits and one last one; the figures are per exit.

#![allow(clippy::expect_used, reason = "a bench has nobody to report an error to")]

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;
use dejavm_benches::floor::RawVm;
use dejavm_benches::guests::{self, BareLoop};
use dejavm_benches::interleave::Interleaved;
use dejavm_benches::{criterion, limit, system_or_skip};
use dejavm_engine::exit::Exit;
use dejavm_engine::guest::process::trap;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::bare::PORT_DONE;
use dejavm_engine::machine::hardware::{Hardware, VmSpec};
use dejavm_engine::machine::{GuestState, Machine, MachineSnapshot};
use dejavm_engine::state::Reach;
use kvm_bindings::kvm_regs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Exits in a round, besides the last one.
const ROUND: u64 = 64;
/// Bytes of SYSCALL.
const SYSCALL_BYTES: u64 = 2;

/// One round.
struct Round {
    exits: u64,
    time: Duration,
}

/// The time of at least `exits` exits, in rounds, scaled to `exits`.
fn rounds(exits: u64, mut round: impl FnMut() -> Round) -> Duration {
    let (mut done, mut time) = (0, Duration::ZERO);
    while done < exits {
        let round = round();
        done += round.exits;
        time += round.time;
    }
    time.mul_f64(exits as f64 / done as f64)
}

fn raw(vm: &mut RawVm, exits: u64) -> Duration {
    rounds(exits, || {
        let start = Instant::now();
        Round { exits: vm.round(), time: start.elapsed() }
    })
}

/// A whole run; the rewind after it is not counted.
fn machine(machine: &mut Machine, exits: u64) -> Duration {
    rounds(exits, || {
        let start = Instant::now();
        let report = machine.run(b"", limit()).expect("a run");
        let time = start.elapsed();
        machine.rewind().expect("a rewind");
        Round { exits: report.exits, time }
    })
}

/// The engine's vCPU at a snapshot, without a driver.
struct Undriven {
    hw: Hardware,
    start: kvm_regs,
}

impl Undriven {
    fn new(system: &System, snapshot: &MachineSnapshot) -> Self {
        let spec = VmSpec { layout: snapshot.layout.clone(), ..VmSpec::default() };
        let mut hw = Hardware::new(system, &spec).expect("a VM");
        hw.memory.map_pages(&snapshot.pages).expect("the snapshot's pages");
        // Taken on this host, which therefore lacks none of its MSRs.
        let reach = Reach::Kernel;
        snapshot.state.load(&mut hw.vcpu, &hw.vm, reach, &hw.parts).expect("the snapshot's state");
        let mut start = snapshot.state.regs;
        if matches!(snapshot.guest, GuestState::Process(_)) {
            // Past the SYSCALL that reads the input, which finds its end.
            start.rip += SYSCALL_BYTES;
            start.rax = 0;
        }
        Self { hw, start }
    }

    fn round(&mut self) -> u64 {
        *self.hw.vcpu.regs_mut() = self.start;
        for exits in 1.. {
            let done = match self.hw.vcpu.run().expect("a run") {
                Exit::PortOut { port, .. } => port == PORT_DONE,
                Exit::MmioWrite { .. } => trap::in_syscall_gate(self.hw.vcpu.regs().rip),
                Exit::Halt => false,
                other => unreachable!("{other:?}"),
            };
            if done {
                return exits;
            }
        }
        unreachable!("a round ends")
    }
}

fn undriven(vcpu: &mut Undriven, exits: u64) -> Duration {
    rounds(exits, || {
        let start = Instant::now();
        Round { exits: vcpu.round(), time: start.elapsed() }
    })
}

fn bench_bare(group: &mut BenchmarkGroup<'_, WallTime>, system: &System) {
    let loops = [
        ("CPL 0 OUT", BareLoop::PortOut),
        ("CPL 0 MMIO store", BareLoop::MmioStore),
        ("CPL 0 HLT", BareLoop::Halt),
    ];
    for (row, what) in loops {
        let mut driven = guests::bare_loop(system, what, ROUND as u32);
        let mut floor = RawVm::new(driven.snapshot());
        let mut vcpu = Undriven::new(system, driven.snapshot());
        let set = Interleaved::new(ROUND)
            .with("raw", |exits| raw(&mut floor, exits))
            .with("vcpu", |exits| undriven(&mut vcpu, exits));
        // A HLT ends a machine's run, so that there is no loop of them.
        let set = match what {
            BareLoop::Halt => set,
            _ => set.with("machine", |exits| machine(&mut driven, exits)),
        };
        set.bench(group, row);
    }
}

fn bench_process(group: &mut BenchmarkGroup<'_, WallTime>, system: &System) {
    let program = guests::compile_loops(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let store = guests::loops(system, &program, "mmio", ROUND);
    let mut floor = RawVm::new(store.snapshot());
    let mut vcpu = Undriven::new(system, store.snapshot());
    // To a process's driver such a store is a program poking at the engine: no `machine` here.
    Interleaved::new(ROUND)
        .with("raw", |exits| raw(&mut floor, exits))
        .with("vcpu", |exits| undriven(&mut vcpu, exits))
        .bench(group, "CPL 3 MMIO store");
    // A UD2 ends the run, so that its row has a run's beginning in each exit. At a page fault the
    // floor steps over the store, where the machine gives the program 64 pages, and takes them
    // back at the next run's start.
    let rows = [
        ("CPL 3 getppid", "syscall", ROUND),
        ("CPL 3 UD2", "trap", 1),
        ("CPL 3 page fault", "fault", 16),
    ];
    for (row, mode, count) in rows {
        let mut driven = guests::loops(system, &program, mode, count);
        let mut floor = RawVm::new(driven.snapshot());
        Interleaved::new(ROUND)
            .with("raw", |exits| raw(&mut floor, exits))
            .with("machine", |exits| machine(&mut driven, exits))
            .bench(group, row);
    }
}

fn main() {
    let Some(system) = system_or_skip("exit_latency") else { return };
    let mut criterion = criterion();
    let mut group = criterion.benchmark_group("exit_latency");
    bench_bare(&mut group, &system);
    bench_process(&mut group, &system);
    group.finish();
    criterion.final_summary();
}
