//! Code that nobody wrote, a hundred thousand times: bytes of any value, valid instructions in any
//! order, what only a kernel may execute, real code with bits flipped; at CPL 3 and at CPL 0.
//!
//! Whatever it does is an outcome, in bounded time; the host has no more of anything afterwards,
//! and `verify` finds nothing of it.

use crate::bare::boot;
use crate::batch_hostile::compare;
use crate::footprint::{footprint, kvm_alone};
use crate::hostile::noise;
use crate::support::{build_c, kvm, machine, patience, rounds, spec};
use dejavm_engine::address::Gpa;
use dejavm_engine::guest::bare::{BareSpec, Mode};
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{Limit, Machine};
use dejavm_engine::outcome::Outcome;
use iced_x86::{Decoder, DecoderOptions};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time limit of a run. The watchdog looks every 2 ms.
const LIMIT: Duration = Duration::from_millis(1);
/// No run may take longer, limit or not.
const TOO_LONG: Duration = Duration::from_secs(5);
/// Bytes of an input at most.
const BYTES: usize = 192;

/// Where the noise runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Program,
    /// A program that finds the agent's pages, which can be read (docs/ARCHITECTURE.md), by chance
    /// alone: it could tell a batch by them.
    Batch,
    Bare(Mode),
}

impl Place {
    fn bits(self) -> u32 {
        match self {
            Self::Program | Self::Batch | Self::Bare(Mode::Long) => 64,
            Self::Bare(Mode::Protected) => 32,
            Self::Bare(Mode::Real) => 16,
        }
    }
}

/// What only a kernel executes, or what has a say about the whole CPU; operands follow at random.
const SYSTEM: &[&[u8]] = &[
    &[0x0f, 0x05],             // syscall
    &[0x0f, 0x34],             // sysenter
    &[0x0f, 0x35],             // sysexit
    &[0x48, 0x0f, 0x07],       // sysretq
    &[0xcd],                   // int n
    &[0xcc],                   // int3
    &[0xf1],                   // int1
    &[0x48, 0xcf],             // iretq
    &[0xcf],                   // iret
    &[0xcb],                   // retf
    &[0xff, 0x28],             // jmp far [rax]
    &[0xff, 0x1f],             // call far [rdi]
    &[0xf4],                   // hlt
    &[0xfa],                   // cli
    &[0xfb],                   // sti
    &[0x9d],                   // popf
    &[0x9c],                   // pushf
    &[0x0f, 0x01],             // group 7: lgdt to invlpg, vmcall, xgetbv, swapgs, monitor, clac
    &[0x0f, 0x01, 0xc1],       // vmcall
    &[0x0f, 0x01, 0xd9],       // vmmcall
    &[0x0f, 0x01, 0xd8],       // vmrun
    &[0x0f, 0x01, 0xd1],       // xsetbv
    &[0x0f, 0x00],             // group 6: sldt to verw
    &[0x0f, 0x20],             // mov r, cr
    &[0x0f, 0x22],             // mov cr, r
    &[0x0f, 0x21],             // mov r, dr
    &[0x0f, 0x23],             // mov dr, r
    &[0x0f, 0x30],             // wrmsr
    &[0x0f, 0x32],             // rdmsr
    &[0x0f, 0x33],             // rdpmc
    &[0x0f, 0x31],             // rdtsc
    &[0x0f, 0xa2],             // cpuid
    &[0x0f, 0xae],             // group 15: fxsave to xrstor, ldmxcsr, clflush
    &[0x48, 0x0f, 0xae],       // the same with 64-bit operands
    &[0xf3, 0x48, 0x0f, 0xae], // rdfsbase to wrgsbase
    &[0x0f, 0xc7],             // group 9: cmpxchg8b, rdrand, vmptrld, xsaves, rdseed
    &[0x0f, 0x06],             // clts
    &[0x0f, 0x08],             // invd
    &[0x0f, 0x09],             // wbinvd
    &[0x0f, 0xaa],             // rsm
    &[0x0f, 0x37],             // getsec
    &[0x66, 0x0f, 0x38, 0x82], // invpcid
    &[0x66, 0x0f, 0x38, 0xf8], // movdir64b
    &[0x8e],                   // mov sreg, r
    &[0x0f, 0xb2],             // lss
    &[0xe4],                   // in al, imm8
    &[0xe6],                   // out imm8, al
    &[0xec],                   // in al, dx
    &[0xee],                   // out dx, al
    &[0xf3, 0x6c],             // rep insb
    &[0xf3, 0x6f],             // rep outsd
    &[0xf3, 0xa4],             // rep movsb
    &[0xf3, 0x48, 0xab],       // rep stosq
    &[0xf0],                   // lock, whatever follows
    &[0xf0, 0x0f, 0xc7, 0x08], // lock cmpxchg8b [rax]
    &[0xc7, 0xf8],             // xbegin
    &[0x62],                   // EVEX, or BOUND
    &[0xc4],                   // VEX, or LES
    &[0x8f, 0xe9],             // XOP
    &[0xea],                   // jmp far
    &[0x9a],                   // call far
    &[0xc8],                   // enter
    &[0xdb, 0xe3],             // fninit
    &[0xd9],                   // x87
    &[0xeb, 0xfe],             // jmp $
];

/// Values that mean something to somebody.
fn interesting(noise: &mut StdRng, place: Place) -> u64 {
    let low = noise.random_range(0..0x20_u64) * 0x1000;
    let engine = 0x7f00_0000_0000;
    let agent = if place == Place::Batch { engine } else { engine + 0x4000_0000 };
    let program = [
        engine + low,
        engine + 0x1000_0000,
        engine + 0x1000_0000 + noise.random_range(0..0x1010),
        agent + low,
        0x7fff_ffff_f000 - low,
        0xffff_8000_0000_0000,
        0x0000_8000_0000_0000,
        0xffff_ffff_ff60_0000,
        0x40_0000 + low,
    ];
    let bare = [
        0xfee0_0000 + noise.random_range(0..0x400),
        0xfec0_0000,
        0xf000_0000 + low,
        (1 << 20) - noise.random_range(0..0x40),
        0xffff_fff0,
        low,
        // CR0, CR4, EFER.
        noise.random_range(0..0x10_0000) | 0x8000_0000,
        1 << noise.random_range(0..32),
        // MSRs: of the architecture, MTRRs, x2APIC, AMD's, KVM's, Hyper-V's.
        *[0x10, 0x1b, 0x174, 0x1d9, 0x200, 0x277, 0x2ff, 0x3b, 0x6e0, 0x800, 0x830]
            .choose(noise)
            .unwrap(),
        0xc000_0080 + noise.random_range(0..8),
        0xc000_0100 + noise.random_range(0..4),
        0xc001_0000 + noise.random_range(0..0x40),
        0x4b56_4d00 + noise.random_range(0..9),
        0x4000_0000 + noise.random_range(0..0x110),
    ];
    let any = [0, 1, u64::MAX, 1 << 63, i64::MAX as u64, u64::from(u32::MAX), noise.next_u64()];
    match (noise.random_range(0..4), place) {
        (0, _) => *any.choose(noise).unwrap(),
        (_, Place::Program | Place::Batch) => *program.choose(noise).unwrap(),
        (_, Place::Bare(_)) => *bare.choose(noise).unwrap(),
    }
}

/// `mov reg, value` for any register but, mostly, the stack pointer.
fn load(noise: &mut StdRng, place: Place, code: &mut Vec<u8>) {
    let register = noise.random_range(0..8_u8);
    if register == 4 && noise.random_range(0..4) != 0 {
        return;
    }
    let value = interesting(noise, place);
    match place.bits() {
        64 => code.extend([0x48, 0xb8 + register].iter().chain(&value.to_le_bytes())),
        32 => code.extend([0xb8 + register].iter().chain(&(value as u32).to_le_bytes())),
        _ => code.extend([0x66, 0xb8 + register].iter().chain(&(value as u32).to_le_bytes())),
    }
}

/// An instruction that a CPU knows, whatever it is.
fn valid(noise: &mut StdRng, place: Place, code: &mut Vec<u8>) {
    const STARTS: [&[u8]; 16] = [
        &[],
        &[],
        &[],
        &[0x66],
        &[0xf2],
        &[0xf3],
        &[0xf0],
        &[0x48],
        &[0x0f],
        &[0x0f],
        &[0x0f, 0x38],
        &[0x66, 0x0f, 0x38],
        &[0x66, 0x0f, 0x3a],
        &[0xc5],
        &[0xc4],
        &[0x62],
    ];
    for _ in 0..50 {
        let mut bytes = STARTS.choose(noise).unwrap().to_vec();
        bytes.extend(noise.random::<[u8; 14]>());
        let mut decoder = Decoder::new(place.bits(), &bytes, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if !instruction.is_invalid() {
            code.extend(&bytes[..instruction.len()]);
            return;
        }
    }
}

/// What the run of number `seed` executes.
fn hostile(seed: u64, place: Place, real: &[u8]) -> Vec<u8> {
    let mut noise = noise(seed);
    let noise = &mut noise;
    let mut code = Vec::new();
    let kind = noise.random_range(0..8);
    while code.len() < BYTES - 32 {
        match kind {
            0 => code.extend(noise.random::<[u8; 32]>()),
            1 | 2 => valid(noise, place, &mut code),
            3 => {
                let at = noise.random_range(0..real.len() - 64);
                let mut bytes = real[at..at + 64].to_vec();
                for _ in 0..noise.random_range(0..4) {
                    let flipped = noise.random_range(0..bytes.len());
                    bytes[flipped] ^= 1 << noise.random_range(0..8);
                }
                code.extend(bytes);
            }
            _ => match noise.random_range(0..3) {
                0 => load(noise, place, &mut code),
                1 => valid(noise, place, &mut code),
                _ => {
                    code.extend(*SYSTEM.choose(noise).unwrap());
                    code.push(noise.random());
                }
            },
        }
    }
    code.truncate(BYTES);
    code
}

/// Which ends there were, by kind.
fn kind(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Exited { .. } => "exited",
        Outcome::Crashed(_) => "crashed",
        Outcome::Halted => "halted",
        Outcome::TimedOut => "timed out",
        Outcome::OutOfMemory => "out of memory",
        Outcome::OutputLimit => "too much output",
        Outcome::OutputMatched => "matched",
        Outcome::Unsupported(_) => "unsupported",
    }
}

/// Runs the `seeds` on `machine`; how they ended.
fn run_all(
    machine: &mut Machine,
    place: Place,
    real: &[u8],
    seeds: std::ops::Range<u64>,
) -> BTreeMap<&'static str, u32> {
    let mut ends = BTreeMap::new();
    for seed in seeds {
        let code = hostile(seed, place, real);
        let start = Instant::now();
        let report = machine
            .run(&code, Limit::time(LIMIT))
            .unwrap_or_else(|e| panic!("{place:?} {seed}: {e}: {code:x?}"));
        machine.rewind().unwrap_or_else(|e| panic!("{place:?} {seed}: {e}: {code:x?}"));
        assert!(start.elapsed() < TOO_LONG, "{place:?} {seed}: {:?}: {code:x?}", start.elapsed());
        *ends.entry(kind(&report.outcome)).or_default() += 1;
        if seed % 500 == 0 {
            assert_eq!(machine.verify().unwrap(), [], "{place:?} {seed}: {code:x?}");
        }
    }
    ends
}

fn program(system: &System) -> (Machine, Vec<u8>) {
    let program = build_c("noise", &["-static"]);
    let real = std::fs::read(&program).unwrap();
    // Its text: the headers and what is read-only before it are not.
    let text = real[0x2000..real.len().min(0x6_0000)].to_vec();
    (machine(system, &spec(&program, &[])), text)
}

#[test]
fn a_hundred_thousand_programs_of_noise_each_end_in_an_outcome() {
    let name = "hostile_code::a_hundred_thousand_programs_of_noise_each_end_in_an_outcome";
    let Some(system) = kvm_alone(name) else { return };
    let (mut machine, real) = program(&system);
    // Which pages are hot, and what the allocator keeps, is settled after as many.
    let first = u64::from(rounds(5_000));
    run_all(&mut machine, Place::Program, &real, 0..first);
    let before = footprint();
    let start = Instant::now();
    let last = first + u64::from(rounds(95_000));
    let mut ends = BTreeMap::new();
    let kept = allocation_counter::measure(|| {
        ends = run_all(&mut machine, Place::Program, &real, first..last);
    });
    println!("{ends:?} in {:?}, {kept:?}", start.elapsed());
    // Lists of pages have become longer; nothing was kept for each run.
    assert!(kept.count_current < 16 && kept.bytes_current < 1 << 20, "{kept:?}");
    footprint().assert_not_above(&before);
    assert!(ends.contains_key("crashed") && ends.contains_key("timed out"), "{ends:?}");
}

/// Code may overwrite the instruction that it is in, a REP that goes on: which one it goes on with
/// then depends on where a page faulted.
fn is_same_kind(one: &Outcome, other: &Outcome) -> bool {
    kind(one) == kind(other)
}

#[test]
fn programs_of_noise_end_in_a_batch_as_they_do_alone() {
    let Some(system) = kvm() else { return };
    let (mut machine, real) = program(&system);
    let seeds = 0..u64::from(rounds(10_000));
    let inputs: Vec<_> = seeds.map(|seed| hostile(seed, Place::Batch, &real)).collect();
    let compared = compare(&mut machine, &inputs, patience(LIMIT), 1, is_same_kind);
    assert!(compared.same > compared.all() * 9 / 10, "{compared:?}");
}

/// A guest that runs its input at CPL 0.
fn bare(system: &System, mode: Mode) -> Machine {
    let code: &[u8] = match mode {
        // mov edi, 0x9000; mov ecx, 256; out 0xd0, al; mov eax, 0x9000; jmp (r|e)ax
        Mode::Long | Mode::Protected => {
            &[0xbf, 0, 0x90, 0, 0, 0xb9, 0, 1, 0, 0, 0xe6, 0xd0, 0xb8, 0, 0x90, 0, 0, 0xff, 0xe0]
        }
        // The same with operand-size prefixes; jmp ax.
        Mode::Real => &[
            0x66, 0xbf, 0, 0x90, 0, 0, 0x66, 0xb9, 0, 1, 0, 0, 0xe6, 0xd0, 0xb8, 0, 0x90, 0xff,
            0xe0,
        ],
    };
    boot(system, &BareSpec::flat(mode, code.to_vec(), Gpa(0x8000), 1 << 20))
}

#[test]
fn twenty_thousand_bare_guests_of_noise_each_end_in_an_outcome() {
    let name = "hostile_code::twenty_thousand_bare_guests_of_noise_each_end_in_an_outcome";
    let Some(system) = kvm_alone(name) else { return };
    let (_, real) = program(&system);
    let modes = [Mode::Long, Mode::Protected, Mode::Real];
    let mut machines: Vec<_> = modes.iter().map(|&mode| (bare(&system, mode), mode)).collect();
    let first = u64::from(rounds(600));
    for (machine, mode) in &mut machines {
        run_all(machine, Place::Bare(*mode), &real, 0..first);
    }
    let before = footprint();
    let last = first + u64::from(rounds(6_500));
    for (machine, mode) in &mut machines {
        let start = Instant::now();
        let ends = run_all(machine, Place::Bare(*mode), &real, first..last);
        println!("{mode:?}: {ends:?} in {:?}", start.elapsed());
        // In real mode an exception goes wherever the noise says.
        let crashes = *mode == Mode::Real || ends.contains_key("crashed");
        assert!(crashes && ends.contains_key("timed out"), "{ends:?}");
    }
    footprint().assert_not_above(&before);
}
