//! Comparisons that log themselves: what a program compared in a run is told, and nothing else is
//! different.

use crate::support::{Guest, build_c, installed, kvm, limit, spec};
use dejavm_engine::coverage::blocks::{self, Blocks};
use dejavm_engine::coverage::comparisons::{Compared, ComparedKind};
use dejavm_engine::coverage::detours;
use dejavm_engine::linux::LoadedImage;
use dejavm_engine::machine::{DetourCounts, Machine};
use dejavm_engine::outcome::Outcome;
use std::path::Path;

/// A program at its snapshot, the comparisons of whose images are logged.
struct Logging {
    machine: Machine,
    counts: DetourCounts,
}

impl Logging {
    fn new(program: &Path, args: &[&str], input: &[u8], images: usize) -> Option<Self> {
        let system = kvm()?;
        let mut spec = spec(program, args);
        let machine = Guest::new(&system, &mut spec).into_machine(input);
        let mut machine = machine.expect("it ended before its snapshot point");
        let loaded: Vec<(LoadedImage, Blocks)> = machine
            .process()
            .unwrap()
            .images()
            .into_iter()
            .take(images)
            .map(|image| {
                let blocks = blocks::find(&image.bytes).unwrap();
                (image, blocks)
            })
            .collect();
        let images: Vec<_> = loaded
            .iter()
            .map(|(image, blocks)| detours::Image {
                elf: &image.bytes,
                blocks,
                base: image.base,
                first: 0,
            })
            .collect();
        let counts = machine.install_comparisons(&images).unwrap();
        Some(Self { machine, counts })
    }

    fn log(&mut self, input: &[u8]) -> Vec<Compared> {
        self.machine.comparisons(input, limit()).unwrap().expect("comparisons are logged")
    }

    /// Outcome, output and memory of an ordinary run.
    fn run(&mut self, input: &[u8]) -> (Outcome, Vec<u8>, u32) {
        let outcome = self.machine.run(input, limit()).unwrap().outcome;
        let seen = (outcome, self.machine.stdout().to_vec(), self.machine.memory_digest().unwrap());
        self.machine.rewind().unwrap();
        seen
    }
}

fn compares(optimisation: &str) -> std::path::PathBuf {
    build_c("compares", &[optimisation, "-fno-builtin-strcmp", "-fno-builtin-strstr"])
}

/// 64 bytes, each of its own.
fn input() -> Vec<u8> {
    let mut input: Vec<u8> = (0x80..0xc0).collect();
    input[24..40].copy_from_slice(b"some text here!\0");
    input[63] = 100;
    input
}

fn has(log: &[Compared], left: &[u8], right: &[u8]) -> bool {
    let is = |c: &Compared, a: &[u8], b: &[u8]| c.left.starts_with(a) && c.right.starts_with(b);
    log.iter().any(|c| is(c, left, right) || is(c, right, left))
}

#[test]
fn each_kind_of_comparison_tells_its_operands() {
    for optimisation in ["-O0", "-O1", "-O2", "-O3"] {
        let Some(mut guest) = Logging::new(&compares(optimisation), &[], b"", 1) else { return };
        let input = input();
        let log = guest.log(&input);
        let swapped: Vec<u8> = input[8..12].iter().rev().copied().collect();
        let cases: [(&[u8], &[u8]); 10] = [
            (&input[..8], &0x1122_3344_5566_7788_u64.to_le_bytes()),
            (&input[8..12], &0xdead_beef_u32.to_le_bytes()),
            (&input[12..14], &0xbabe_u16.to_le_bytes()),
            (&swapped, &0xcafe_d00d_u32.to_le_bytes()),
            (&input[16..24], &1234.5_f64.to_le_bytes()),
            (&input[8..12], &0x7bad_cafe_u32.to_le_bytes()),
            (b"some text here!", b"keyword"),
            (&input[40..56], b"sixteen bytes!!!"),
            (b"some tex", b"Prefixed"),
            (b"some text here!", b"needle"),
        ];
        for (left, right) in cases {
            let is_there = has(&log, left, right);
            assert!(is_there, "{optimisation}: {right:x?} is missing in {log:x?}");
        }
        let ordering = log.iter().any(|c| {
            c.kind == ComparedKind::Integer { is_ordering: true }
                && has(std::slice::from_ref(c), &swapped, &[])
        });
        assert!(ordering, "{optimisation}: a comparison that asks which one is less");
    }
}

#[test]
fn a_loop_is_logged_a_few_times_only() {
    let Some(mut guest) = Logging::new(&compares("-O1"), &[], b"", 1) else { return };
    let log = guest.log(&input());
    let mut counts = std::collections::HashMap::<u32, usize>::new();
    for compared in &log {
        *counts.entry(compared.site).or_default() += 1;
    }
    assert_eq!(counts.values().max(), Some(&16));
}

#[test]
fn logging_changes_nothing_and_is_the_same_each_time() {
    let Some(mut guest) = Logging::new(&compares("-O2"), &[], b"", usize::MAX) else { return };
    eprintln!("{:?}", guest.counts);
    let input = input();
    let before = guest.run(&input);
    let log = guest.log(&input);
    assert_eq!(guest.log(&input), log);
    assert_eq!(guest.run(&input), before);
    assert_eq!(guest.log(&input), log);
    assert_eq!(guest.machine.verify().unwrap(), []);
}

#[test]
fn a_run_that_ends_badly_has_a_log_too() {
    let Some(mut guest) = Logging::new(&build_c("planted", &["-O1"]), &[], b"", 1) else {
        return;
    };
    assert!(!guest.log(b"anything").is_empty());
    assert_eq!(guest.machine.verify().unwrap(), []);
}

#[test]
fn real_programs_log_their_comparisons() {
    let Some(readelf) = installed("/usr/bin/readelf", "binutils") else { return };
    let own = std::fs::read(build_c("words", &[])).unwrap();
    let Some(mut guest) = Logging::new(&readelf, &["-a", "@@"], &own, 1) else { return };
    let before = guest.run(&own);
    let log = guest.log(&own);
    eprintln!("readelf: {:?}, {} records", guest.counts, log.len());
    // e_machine
    assert!(has(&log, &62_u16.to_le_bytes(), &[]), "x86-64's number");
    assert!(log.len() > 1000, "{} records", log.len());
    assert_eq!(guest.run(&own), before);
    assert_eq!(guest.machine.verify().unwrap(), []);
}
