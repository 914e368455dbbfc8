//! Nothing that a guest does in a batch may hang, panic, grow the host's memory, or be told as
//! another end than the run has on its own.

use crate::batch::{DEEDS, batch_of, guest};
use crate::footprint::{footprint, kvm_alone};
use crate::hostile::{noise, random_calls};
use crate::support::{build_c, kvm, limit, machine, patience, rounds, spec};
use dejavm_engine::machine::{Batch, BatchOptions, BatchReport, Limit, Machine};
use dejavm_engine::outcome::Outcome;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use std::time::Duration;

/// Inputs of one batch.
const CHUNK: usize = 50;
/// How often each batch runs, since the agent learns from the runs before.
const REPEATS: usize = 3;

/// How many outcomes of runs in batches were compared.
#[derive(Debug, Default)]
pub struct Compared {
    /// As alone.
    pub same: u32,
    /// Not told, or out of time.
    pub open: u32,
    /// Not the same alone from one time to the next.
    pub unstable: u32,
    /// Batches of which nothing was believed but what the host saw.
    pub distrusted: u32,
}

impl Compared {
    pub fn all(&self) -> u32 {
        self.same + self.open + self.unstable
    }
}

fn alone(machine: &mut Machine, input: &[u8], time: Duration) -> Outcome {
    let outcome = machine.run(input, Limit::time(time)).unwrap().outcome;
    machine.rewind().unwrap();
    outcome
}

/// Runs every input alone and in batches with others, each run for at most `time`; what a batch
/// tells, `repeats` times, must be what happened alone, as far as `is_same` looks.
pub fn compare(
    machine: &mut Machine,
    inputs: &[Vec<u8>],
    time: Duration,
    repeats: usize,
    is_same: fn(&Outcome, &Outcome) -> bool,
) -> Compared {
    let mut compared = Compared::default();
    let mut report = BatchReport::default();
    let options = BatchOptions { limit: Some(time), ..BatchOptions::default() };
    for (chunk, inputs) in inputs.chunks(CHUNK).enumerate() {
        let expected: Vec<_> = inputs.iter().map(|input| alone(machine, input, time)).collect();
        let batch = batch_of(inputs.iter().map(Vec::as_slice));
        for _ in 0..repeats {
            machine.run_batch(&batch, options, &mut report).unwrap();
            assert_eq!(report.runs.len(), inputs.len());
            compared.distrusted += u32::from(report.is_distrusted);
            let told: Vec<_> = report.runs.drain(..).zip(inputs).zip(&expected).collect();
            for (index, ((told, input), expected)) in told.into_iter().enumerate() {
                match told {
                    None | Some(Outcome::TimedOut) => compared.open += 1,
                    Some(told) if is_same(&told, expected) => compared.same += 1,
                    Some(told) => {
                        // It read a clock or a random number, or was out of time alone.
                        let again: Vec<_> =
                            (0..4).map(|_| alone(machine, input, patience(SECOND))).collect();
                        let is_stable = again.iter().all(|other| is_same(other, &again[0]));
                        let is_right = again.iter().any(|other| is_same(other, &told));
                        assert!(
                            is_right || !is_stable,
                            "number {}: {told:?} in a batch, {again:?} alone: {input:x?}",
                            chunk * CHUNK + index + 1
                        );
                        *(if is_stable { &mut compared.same } else { &mut compared.unstable }) += 1;
                    }
                }
            }
        }
        assert_eq!(machine.verify().unwrap(), [], "chunk {chunk}");
    }
    println!("{compared:?}");
    compared
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn noise_as_code_ends_in_a_batch_as_it_does_alone() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("noise", &[]), &[]));
    let inputs: Vec<_> =
        (1..=rounds(2_500).into()).map(|seed| noise(seed).random::<[u8; 64]>().to_vec()).collect();
    let compared =
        compare(&mut machine, &inputs, patience(Duration::from_millis(10)), REPEATS, Outcome::eq);
    assert!(compared.same > compared.all() * 9 / 10, "{compared:?}");
    assert_eq!(compared.distrusted, 0);
}

#[test]
fn code_that_makes_random_system_calls_ends_in_a_batch_as_it_does_alone() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("noise", &[]), &[]));
    let inputs: Vec<_> = (1..=rounds(1_000).into()).map(|seed| random_calls(noise(seed))).collect();
    let compared =
        compare(&mut machine, &inputs, patience(Duration::from_millis(100)), REPEATS, Outcome::eq);
    assert!(compared.same > compared.all() * 9 / 10, "{compared:?}");
    assert_eq!(compared.distrusted, 0);
}

/// System calls that the agent serves where it can.
const SERVED: [i64; 8] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_ioctl,
];

/// Others that change what the first ones do, or memory.
const OTHERS: [i64; 24] = [
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_dup,
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_pipe,
    libc::SYS_ftruncate,
    libc::SYS_close_range,
    libc::SYS_statx,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_arch_prctl,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_pwrite64,
];

/// See `calls.c`.
const ARENA: u64 = 0x2_0000_0000;

/// An argument of any kind.
fn argument(noise: &mut StdRng) -> u64 {
    match noise.random_range(0..12) {
        0..3 => noise.random_range(0..9),
        3..6 => ARENA + noise.random_range(0..8) * 0x1000,
        6 => ARENA + noise.random_range(0..0x9000),
        7 => noise.random_range(0..0x3000),
        8 => *[0x1000, 0x10000, 0x10001, 0x7fff_f000, 1 << 31, 1 << 63].choose(noise).unwrap(),
        9 => noise.random_range(0..24_u64).wrapping_sub(12),
        10 => *[libc::TCGETS, libc::AT_EMPTY_PATH as u64, ARENA + 64].choose(noise).unwrap(),
        // The engine's pages, and the agent's, where a call must find nothing.
        _ => {
            0x7f00_0000_0000
                + [0, 0x1000_0000, 0x4000_0000].choose(noise).unwrap()
                + noise.random_range(0..8) * 0x1000
        }
    }
}

/// An argument that the call with number `nr` has a use for, as its argument `at`.
fn fitting(nr: i64, at: usize, noise: &mut StdRng) -> u64 {
    match (nr, at) {
        (libc::SYS_openat | libc::SYS_newfstatat, 1) => ARENA + noise.random_range(0..2) * 64,
        (libc::SYS_open, 0) => ARENA,
        (libc::SYS_mmap | libc::SYS_brk | libc::SYS_arch_prctl, _) => argument(noise),
        (libc::SYS_newfstatat, 3) => libc::AT_EMPTY_PATH as u64,
        (_, 0) => noise.random_range(0..5),
        (libc::SYS_lseek, 1) => noise.random_range(0..600_u64).wrapping_sub(100),
        (_, 1) => ARENA + noise.random_range(0..0x6f00),
        (libc::SYS_lseek, 2) => noise.random_range(0..4),
        (_, 2) => noise.random_range(0..300),
        (_, 3) => noise.random_range(0..600),
        _ => argument(noise),
    }
}

/// An input of `calls.c`.
fn calls(mut noise: StdRng) -> Vec<u8> {
    let mut words = Vec::new();
    for _ in 0..noise.random_range(1..=40) {
        let nr = match noise.random_range(0..20) {
            0..13 => *SERVED.choose(&mut noise).unwrap(),
            13..19 => *OTHERS.choose(&mut noise).unwrap(),
            _ => noise.random_range(0..460),
        };
        let fits = noise.random_range(0..4) != 0;
        // A number's upper half, which Linux does not look at.
        let upper = if noise.random_range(0..50) == 0 { noise.next_u64() << 32 } else { 0 };
        words.push(nr as u64 | upper);
        for at in 0..6 {
            words.push(if fits { fitting(nr, at, &mut noise) } else { argument(&mut noise) });
        }
        // TF, DF, NT, AC, ID.
        let flags = [1 << 8, 1 << 10, 1 << 14, 1 << 18, 1 << 21];
        let flag =
            if noise.random_range(0..60) == 0 { *flags.choose(&mut noise).unwrap() } else { 0 };
        words.push(flag | noise.random_range(0..2));
    }
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

#[test]
fn random_system_calls_give_in_a_batch_what_they_give_alone() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("calls", &["-mno-red-zone"]), &[]));
    let inputs: Vec<_> = (1..=rounds(2_000).into()).map(|seed| calls(noise(seed))).collect();
    let compared = compare(&mut machine, &inputs, patience(SECOND), REPEATS, Outcome::eq);
    assert!(compared.same > compared.all() * 9 / 10, "{compared:?}");
    assert_eq!(compared.distrusted, 0);
}

fn run(machine: &mut Machine, batch: &Batch, report: &mut BatchReport) {
    let options = BatchOptions { limit: limit().time, ..BatchOptions::default() };
    machine.run_batch(batch, options, report).unwrap();
}

#[test]
fn a_settled_batch_allocates_nothing() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("json", &["-O2"]), &[]));
    let json: [&[u8]; 4] = [b"{\"a\": [1, 2.5e3, null]}", b"", b"[\"\\u00e9\"", b" 17 "];
    let batch = batch_of(json.iter().copied().cycle().take(400));
    let mut report = BatchReport::default();
    // Past the audits of the hot pages.
    (0..100).for_each(|_| run(&mut machine, &batch, &mut report));
    let count = rounds(100);
    let allocated = allocation_counter::measure(|| {
        (0..count).for_each(|_| run(&mut machine, &batch, &mut report));
    });
    assert_eq!(allocated.count_total, 0, "{allocated:?}");
    let filling = allocation_counter::measure(|| drop(batch_of(json)));
    assert!(filling.count_total > 0, "allocations are counted");
}

#[test]
fn many_batches_take_no_memory_and_no_descriptors() {
    let name = "batch_hostile::many_batches_take_no_memory_and_no_descriptors";
    let Some(system) = kvm_alone(name) else { return };
    let mut machine = guest(&system);
    let seeds = (1..=20).map(noise);
    let noisy: Vec<Vec<u8>> = seeds.map(|mut noise| noise.random::<[u8; 64]>().to_vec()).collect();
    let inputs = DEEDS.into_iter().chain(noisy.iter().map(Vec::as_slice));
    let batch = batch_of(inputs);
    let mut report = BatchReport::default();
    let mut many = |count| {
        for _ in 0..count {
            run(&mut machine, &batch, &mut report);
            alone(&mut machine, b"s", patience(SECOND));
        }
    };
    many(100);
    let before = footprint();
    let kept = allocation_counter::measure(|| many(rounds(400)));
    let after = footprint();
    println!("{before:?} {after:?} {kept:?}");
    // Bytes that a freed block leaves would hide in the resident ones.
    assert!(kept.bytes_current < 16 << 10, "{kept:?}");
    assert_eq!((after.descriptors, after.mappings), (before.descriptors, before.mappings));
    assert!(after.memory_kib <= before.memory_kib + 256, "{before:?} {after:?}");
}
