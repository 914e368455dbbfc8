//! Nothing that a guest does may hang, panic or reach outside.

use crate::support::{build_c, kvm, limit, machine, rounds, spec};
use dejavm_engine::machine::{Limit, Machine};
use dejavm_engine::outcome::Outcome;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// Noise that a failing case's seed gives again.
pub fn noise(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// How the input `+` of the guests that do bad deeds ends.
pub const GOOD: Outcome = Outcome::Exited { status: 7 };

/// A rewound machine of such a guest is what it was before `deed`, which is looked at where
/// `is_verified`, and a good run of it ends well.
pub fn assert_nothing_is_left(machine: &mut Machine, is_verified: bool, deed: &str) {
    if is_verified {
        assert_eq!(machine.verify().unwrap(), [], "after {deed}");
    }
    assert_eq!(machine.run(b"+", limit()).unwrap().outcome, GOOD, "after {deed}");
    machine.rewind().unwrap();
}

#[test]
fn survives_a_guest_that_jumps_to_noise() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("noise", &[]), &[]));
    let limit = Limit::time(Duration::from_millis(10));
    for seed in 1..=rounds(2_000).into() {
        let bytes: [u8; 64] = noise(seed).random();
        let report = machine.run(&bytes, limit).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(report.duration < Duration::from_secs(2), "seed {seed} took {:?}", report.duration);
        machine.rewind().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        if seed % 100 == 0 {
            assert_eq!(machine.verify().unwrap(), [], "seed {seed}");
        }
    }
}

/// Bytes of a program that makes system calls with random numbers and arguments.
pub fn random_calls(mut noise: StdRng) -> Vec<u8> {
    let mut code = Vec::new();
    for _ in 0..20 {
        // mov r64, imm64 for RAX, RDI, RSI, RDX, R10, R8, R9; syscall.
        for (at, opcode) in [
            [0x48, 0xb8],
            [0x48, 0xbf],
            [0x48, 0xbe],
            [0x48, 0xba],
            [0x49, 0xba],
            [0x49, 0xb8],
            [0x49, 0xb9],
        ]
        .iter()
        .enumerate()
        {
            code.extend(opcode);
            let value: u64 = match (at, noise.random_range(0..4)) {
                (0, _) => noise.random_range(0..460),
                (_, 0) => noise.random_range(0..16),
                (_, 1) => 0x7fff_ffff_0000 + noise.random_range(0..0x2_0000),
                (_, 2) => 0x5555_5555_4000 + noise.random_range(0..0x8000),
                _ => noise.random(),
            };
            code.extend(value.to_le_bytes());
        }
        code.extend([0x0f, 0x05]);
    }
    code
}

#[test]
fn survives_random_system_calls() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("noise", &[]), &[]));
    let limit = Limit::time(Duration::from_millis(100));
    for seed in 1..=rounds(1_500).into() {
        let code = random_calls(noise(seed));
        machine.run(&code, limit).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        machine.rewind().unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        if seed % 100 == 0 {
            assert_eq!(machine.verify().unwrap(), [], "seed {seed}");
        }
    }
}

#[test]
fn a_program_cannot_reach_the_engines_own_pages() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("noise", &[]), &[]));
    let limit = Limit::time(Duration::from_secs(1));
    // mov rax, imm64; mov byte [rax], 1
    for page in [0x1000_u64, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000, 0x1_0000] {
        let mut code = vec![0x48, 0xb8];
        code.extend((0x7f00_0000_0000 + page).to_le_bytes());
        code.extend([0xc6, 0x00, 0x01]);
        let report = machine.run(&code, limit).unwrap();
        assert!(matches!(report.outcome, Outcome::Crashed(_)), "{page:#x}: {}", report.outcome);
        machine.rewind().unwrap();
        assert_eq!(machine.verify().unwrap(), [], "{page:#x}");
    }
}
