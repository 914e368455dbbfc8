//! Leak probes: a guest changes one item of its state, is rewound, and looks for it.
//!
//! Each item is told by the guest four times: by a run that finds the snapshot, by a run that has
//! changed it first (the control: it must tell something else), and, after a run that only changed
//! it, by another, which must tell what the first did. After every rewind `verify` must be clean.
//! A program's runs are runs of their own, and runs of one batch, between which the guest puts
//! itself back; what a batch has written is looked for by a run of its own too. Where a host cannot change an item, the test prints what showed it and goes on; items that every
//! host has must work.

use crate::support::{build_c, build_elf, build_flat, kvm, limit, machine, spec};
use dejavm_engine::address::Gpa;
use dejavm_engine::guest::bare::{BareSpec, Mode};
use dejavm_engine::host::{self, Answer};
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{
    Batch, BatchOptions, BatchReport, Boot, Machine, ProcessPoint, RewindMode, Started,
};
use dejavm_engine::outcome::Outcome;
use std::path::Path;

/// What goes back to the snapshot between two runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Runs {
    /// The host, after each.
    Alone(RewindMode),
    /// The guest, but for what only the host can.
    Batched,
}

const ALONE: [Runs; 2] = [Runs::Alone(RewindMode::Lazy), Runs::Alone(RewindMode::Full)];
/// Batches that an item is probed in, one after another: pages are opened and system calls are
/// replaced in the first ones.
const BATCHES: usize = 3;
const CHANGE: u8 = 1;
const TELL: u8 = 2;
/// Tell by exit status, because what a run of a batch writes is not kept.
const HASH: u8 = 4;
/// The runs of a probe.
const PROBE: [u8; 4] = [TELL, CHANGE | TELL, CHANGE, TELL];

/// What a guest must be able to do with an item.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Must {
    /// Every host has it.
    Work,
    /// Where this probe of `dejavm doctor` says yes.
    WorkIf(&'static str),
    /// Not every CPU or KVM has it.
    Tell,
    /// The guest must not be able to reach it.
    Fault,
}

/// One item.
#[derive(Clone, Debug)]
struct Item {
    name: String,
    number: u8,
    must: Must,
    /// Input after the two bytes that choose.
    rest: Vec<u8>,
    /// A range of what is told that means nothing.
    ignored: std::ops::Range<usize>,
}

fn item(name: &str, number: u8, must: Must) -> Item {
    Item { name: name.to_owned(), number, must, rest: Vec::new(), ignored: 0..0 }
}

/// What a run told, or how it ended instead.
type Told = Result<Vec<u8>, Outcome>;

impl Item {
    /// One run and its rewind, which must be complete.
    fn run(&self, machine: &mut Machine, what: u8) -> Told {
        let before = machine.stdout().len();
        let input = [&[self.number, what][..], &self.rest].concat();
        let report = machine.run(&input, limit()).unwrap();
        let mut told = machine.stdout()[before..].to_vec();
        for at in self.ignored.clone() {
            told.get_mut(at).into_iter().for_each(|byte| *byte = 0);
        }
        machine.rewind().unwrap();
        let mode = machine.rewind_mode();
        assert_eq!(machine.verify().unwrap(), [], "{}: {mode:?}, {}", self.name, report.outcome);
        match report.outcome {
            Outcome::Exited { .. } => Ok(told),
            other => Err(other),
        }
    }

    /// The runs of [`PROBE`], again and again in one batch; what each told is its hash.
    fn run_batch(&self, machine: &mut Machine) -> [Told; PROBE.len()] {
        // Eight statuses are a hash.
        let inputs = (0..8).flat_map(|byte| PROBE.map(|what| (what, byte)));
        let mut batch = Batch::default();
        for (what, byte) in inputs {
            let ignored = [self.ignored.start as u16, self.ignored.end as u16];
            let ignored = ignored.map(u16::to_le_bytes).concat();
            assert!(batch.push(&[&[self.number, what | HASH, byte][..], &ignored].concat()));
        }
        let mut report = BatchReport::default();
        let options = BatchOptions { limit: limit().time, ..BatchOptions::default() };
        machine.run_batch(&batch, options, &mut report).unwrap();
        assert!(!report.is_distrusted, "{}: {:?}", self.name, report.runs);
        let mut told = PROBE.map(|_| Ok(Vec::new()));
        for (run, outcome) in report.runs.into_iter().enumerate() {
            let told = &mut told[run % PROBE.len()];
            match (outcome.unwrap(), &mut *told) {
                (Outcome::Exited { status }, Ok(hash)) => hash.push(status),
                (Outcome::Exited { status }, Err(end)) => panic!("{status}, not {end}"),
                (other, Ok(hash)) if hash.is_empty() => *told = Err(other),
                (other, told) => assert_eq!(Err(other), *told, "{}, run {run}", self.name),
            }
        }
        told
    }

    /// Probes it; the error is why the item cannot be changed here.
    fn probe(&self, machine: &mut Machine, runs: Runs) -> Result<(), String> {
        match runs {
            Runs::Alone(mode) => {
                machine.set_rewind_mode(mode);
                let told = PROBE.map(|what| self.run(machine, what));
                self.judge(told, runs)
            }
            Runs::Batched => self.probe_batch(machine),
        }
    }

    fn probe_batch(&self, machine: &mut Machine) -> Result<(), String> {
        let name = &self.name;
        let alone = self.run(machine, TELL);
        let mut verdict = Ok(());
        for _ in 0..BATCHES {
            let told = self.run_batch(machine);
            let pristine = alone.clone().map(|told| fnv1a(&told).to_le_bytes().to_vec());
            assert_eq!(told[0], pristine, "{name}: not in a batch what it is alone");
            verdict = self.judge(told, Runs::Batched);
        }
        assert_eq!(machine.verify().unwrap(), [], "{name}, after its batches");
        assert_eq!(self.run(machine, TELL), alone, "{name} leaks from a batch");
        verdict
    }

    /// What the runs of [`PROBE`] told must be.
    fn judge(&self, told: [Told; PROBE.len()], runs: Runs) -> Result<(), String> {
        let name = &self.name;
        let [pristine, changed, only_changed, after] = told;
        assert_eq!(after, pristine, "{name} leaks, {runs:?}");
        match (pristine, changed, only_changed) {
            (Err(end), ..) => Err(format!("telling it {end}")),
            (_, Err(end), _) | (_, _, Err(end)) => Err(format!("changing it {end}")),
            (Ok(a), Ok(b), _) if a == b => Err(format!("changing it changes nothing: {a:x?}")),
            (Ok(told), ..) => {
                assert!(!told.is_empty(), "{name} tells nothing");
                Ok(())
            }
        }
    }
}

/// The hash by which `probes.c` tells in a batch.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Probes all of `items` in every one of `ways`; each must do what it must.
fn probe_all(machine: &mut Machine, items: &[Item], ways: &[Runs]) {
    let doctor = host::doctor(Path::new(System::DEFAULT_PATH));
    let says_yes = |name: &str| {
        let probe = doctor.probes.iter().find(|probe| probe.name == name);
        probe.unwrap_or_else(|| panic!("no probe {name}")).answer == Answer::Yes
    };
    for &runs in ways {
        for item in items {
            let result = item.probe(machine, runs);
            let must_work = match item.must {
                Must::Work => true,
                Must::WorkIf(name) => says_yes(name),
                Must::Tell => false,
                Must::Fault => {
                    assert!(result.is_err(), "{} can be changed", item.name);
                    continue;
                }
            };
            match result {
                Ok(()) => {}
                Err(why) if must_work => panic!("{}, {runs:?}: {why}", item.name),
                Err(why) => match item.must {
                    Must::WorkIf(probe) => {
                        println!("{}: not here, `{probe}` says no: {why}", item.name);
                    }
                    _ => println!("{}: not here: {why}", item.name),
                },
            }
        }
    }
}

fn bare(system: &System, irqchip: bool) -> Machine {
    let elf = build_elf("probes", 0x10_0000);
    boot(system, &BareSpec { irqchip, ..BareSpec::elf(elf, 8 << 20) })
}

fn boot(system: &System, spec: &BareSpec) -> Machine {
    match Boot::bare(system, spec).unwrap().start(ProcessPoint::Input, limit()).unwrap() {
        Started::AtSnapshot(machine) => *machine,
        Started::Ended(ended) => panic!("ended before its snapshot: {ended:?}"),
    }
}

/// What code at CPL 0 can change in any VM.
fn kernel_items() -> Vec<Item> {
    let xsave = Item {
        // Which components are in use, and reserved bytes.
        ignored: 464..576,
        ..item("x87, XMM, YMM, ZMM, opmask by XSAVE", 2, Must::WorkIf("sse_cpl0"))
    };
    vec![
        item("general registers and flags", 0, Must::Work),
        item("x87, MXCSR and XMM by FXSAVE", 1, Must::Work),
        xsave,
        item("PKRU", 3, Must::Tell),
        // QEMU's AMD-V does not intercept XSETBV, so that KVM never learns of it.
        item("XCR0", 4, Must::Tell),
        item("DR0 to DR3, DR6, DR7", 6, Must::Work),
        item("CR0, CR2, CR3, CR4", 7, Must::Work),
        item("CR8", 21, Must::Work),
        item("GDTR and IDTR", 8, Must::Work),
        item("LDTR, TR and segments", 9, Must::Work),
        item("interrupt shadow", 10, Must::Work),
        item("serial port", 15, Must::Work),
        item("pages", 16, Must::Work),
        item("page tables", 17, Must::Work),
        item("TSC", 20, Must::Tell),
    ]
}

/// MSRs by name, number and a value that is not the one after reset; of those in [`FLIPPED`] the
/// bits to flip, because others of theirs may be read-only.
const MSRS: [(&str, u32, u64, Must); 36] = [
    ("FS_BASE", 0xc000_0100, 0x1234_5000, Must::Work),
    ("GS_BASE", 0xc000_0101, 0x1234_6000, Must::Work),
    ("KERNEL_GS_BASE", 0xc000_0102, 0x1234_7000, Must::Work),
    ("STAR", 0xc000_0081, 0x0023_0010_0000_0000, Must::Work),
    ("LSTAR", 0xc000_0082, 0x4567_8000, Must::Work),
    ("CSTAR", 0xc000_0083, 0x4567_9000, Must::Work),
    ("FMASK", 0xc000_0084, 0x4_7700, Must::Work),
    ("EFER", 0xc000_0080, 0xd01, Must::Work),
    ("SYSENTER_CS", 0x174, 0x33, Must::Work),
    ("SYSENTER_ESP", 0x175, 0x3456_7000, Must::Work),
    ("SYSENTER_EIP", 0x176, 0x3456_8000, Must::Work),
    ("PAT", 0x277, 0x0007_0106_0007_0106, Must::Work),
    ("TSC_AUX", 0xc000_0103, 0x77, Must::Tell),
    ("MISC_ENABLE", 0x1a0, 1, Must::Work),
    ("TSC_ADJUST", 0x3b, 0x1000, Must::Tell),
    ("SPEC_CTRL", 0x48, 1, Must::Tell),
    ("MTRR_DEF_TYPE", 0x2ff, 0xc06, Must::Work),
    ("MTRR_PHYSBASE0", 0x200, 0x100_0006, Must::Work),
    ("MTRR_PHYSMASK7", 0x20f, 0xf_ff00_0800, Must::Work),
    ("MTRR_FIX64K", 0x250, 0x0505_0505_0505_0505, Must::Work),
    ("DEBUGCTL", 0x1d9, 2, Must::Tell),
    ("MCG_STATUS", 0x17a, 5, Must::Work),
    ("MC0_ADDR", 0x402, 0x1234, Must::Work),
    ("MC0_MISC", 0x403, 0x5678, Must::Work),
    ("XSS", 0xda0, 0x800, Must::Tell),
    ("DE_CFG", 0xc001_1029, 2, Must::Tell),
    ("VM_CR", 0xc001_0114, 2, Must::Tell),
    ("UMWAIT_CONTROL", 0xe1, 4, Must::Tell),
    ("MISC_FEATURES_ENABLES", 0x140, 1, Must::Tell),
    ("KVM_WALL_CLOCK", 0x4b56_4d00, 0x60_0100, Must::Tell),
    ("KVM_SYSTEM_TIME", 0x4b56_4d01, 0x60_0001, Must::Tell),
    ("KVM_STEAL_TIME", 0x4b56_4d03, 0x60_0041, Must::Tell),
    ("KVM_PV_EOI", 0x4b56_4d04, 0x60_0081, Must::Tell),
    ("KVM_POLL_CONTROL", 0x4b56_4d05, 0, Must::Tell),
    ("HV_GUEST_OS_ID", 0x4000_0000, 0x1234, Must::Tell),
    ("TSC_DEADLINE", 0x6e0, u64::MAX >> 1, Must::Tell),
];

const FLIPPED: [&str; 1] = ["MISC_ENABLE"];

fn msr_items() -> Vec<Item> {
    let items = MSRS.iter().map(|&(name, index, value, must)| {
        let flip = [u8::from(FLIPPED.contains(&name)), 0];
        let rest = [&flip[..], &index.to_le_bytes(), &value.to_le_bytes()].concat();
        Item { rest, ..item(name, 5, must) }
    });
    items.collect()
}

#[test]
fn nothing_of_the_cpu_or_memory_leaks_to_the_next_run_of_a_bare_guest() {
    let Some(system) = kvm() else { return };
    probe_all(&mut bare(&system, false), &kernel_items(), &ALONE);
}

#[test]
fn no_msr_leaks_to_the_next_run_of_a_bare_guest() {
    let Some(system) = kvm() else { return };
    probe_all(&mut bare(&system, false), &msr_items(), &ALONE);
}

/// The usual ranges of MSRs: their first and how many.
const SWEPT: [(u32, u32); 3] = [(0, 0x1000), (0xc000_0000, 0x400), (AMD_MSRS, 0x2000)];
/// Where the MSRs begin that AMD's CPUs alone have (AMD APM vol. 2, appendix A).
const AMD_MSRS: u32 = 0xc001_0000;

/// Whether this host's CPU is AMD's, or made after AMD's.
fn is_amd() -> bool {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let vendor = cpu.lines().find(|line| line.starts_with("vendor_id")).unwrap();
    ["AuthenticAMD", "HygonGenuine"].iter().any(|amd| vendor.contains(amd))
}

#[test]
fn no_msr_of_all_that_there_are_leaks_to_the_next_run_of_a_bare_guest() {
    let Some(system) = kvm() else { return };
    let mut machine = bare(&system, false);
    // Clocks, which go on; and those that have a test of their own.
    let goes_on = [0x10, 0xe7, 0xe8, 0xc000_00e7, 0xc000_00e8, HWCR.0, VM_CR.0];
    for mode in [RewindMode::Lazy, RewindMode::Full] {
        machine.set_rewind_mode(mode);
        for (first, count) in SWEPT {
            let mut run = |what| {
                let before = machine.stdout().len();
                let range = [first.to_le_bytes(), count.to_le_bytes()].concat();
                let input = [&[23, what, 0, 0][..], &range].concat();
                let report = machine.run(&input, limit()).unwrap();
                assert_eq!(report.outcome, Outcome::Exited { status: 0 }, "{first:#x}, {what}");
                let told = machine.stdout()[before..].to_vec();
                machine.rewind().unwrap();
                let values = told.as_chunks::<8>().0.iter().map(|&value| u64::from_le_bytes(value));
                (first..).zip(values).collect::<Vec<_>>()
            };
            let differ = |a: &[(u32, u64)], b: &[(u32, u64)]| {
                let pairs = a.iter().zip(b).filter(|(a, b)| a != b);
                let found = pairs.map(|(a, b)| format!("{:#x}: {:#x}, {:#x}", a.0, a.1, b.1));
                found.collect::<Vec<_>>()
            };
            let still = |told: Vec<(u32, u64)>| {
                told.into_iter().filter(|(msr, _)| !goes_on.contains(msr)).collect::<Vec<_>>()
            };
            let pristine = still(run(TELL));
            let changed = still(run(CHANGE | TELL));
            run(CHANGE);
            let after = still(run(TELL));
            let found = differ(&pristine, &changed);
            println!("{} MSRs from {first:#x} can be changed: {found:?}", found.len());
            // An Intel CPU has none of AMD's own range.
            let may_have_none = first == AMD_MSRS && !is_amd();
            assert!(may_have_none || !found.is_empty(), "no MSR from {first:#x} can be changed");
            assert_eq!(differ(&pristine, &after), [""; 0], "from {first:#x}, {mode:?}");
        }
    }
}

/// HWCR and its McStatusWrEn, which Linux before 6.7 keeps when it is told to clear it.
const HWCR: (u32, u64) = (0xc001_0015, 1 << 18);
/// VM_CR and its LOCK and SVMDIS, which nobody can clear (AMD APM vol. 2, 15.30.1).
const VM_CR: (u32, u64) = (0xc001_0114, 3 << 3);

#[test]
fn a_bit_that_kvm_does_not_take_back_is_named_by_verify() {
    let Some(system) = kvm() else { return };
    for (index, bits) in [HWCR, VM_CR] {
        let mut machine = bare(&system, false);
        let rest = [&[0; 2][..], &index.to_le_bytes(), &bits.to_le_bytes()].concat();
        let input = |what| [&[5, what][..], &rest].concat();
        let told = |machine: &mut Machine| {
            let before = machine.stdout().len();
            machine.run(&input(TELL), limit()).unwrap();
            let told = machine.stdout()[before..].to_vec();
            machine.rewind().unwrap();
            told
        };
        let pristine = told(&mut machine);
        machine.run(&input(CHANGE), limit()).unwrap();
        machine.rewind().unwrap();
        let named: Vec<_> = machine.verify().unwrap().into_iter().map(|d| d.field).collect();
        let is_left = told(&mut machine) != pristine;
        println!("{index:#x}: left behind: {is_left}, named: {named:?}");
        assert_eq!(named, vec![format!("msr {index:#x}"); usize::from(is_left)]);
    }
}

#[test]
fn nothing_leaks_to_the_next_run_of_a_guest_in_real_mode() {
    let Some(system) = kvm() else { return };
    let code = build_flat("probes_real", 0x7c00);
    let spec = BareSpec::flat(Mode::Real, code, Gpa(0x7c00), 1 << 20);
    for irqchip in [false, true] {
        let mut machine = boot(&system, &BareSpec { irqchip, ..spec.clone() });
        probe_all(&mut machine, &[item("registers and mode", 0, Must::Work)], &ALONE);
    }
}

#[test]
fn nothing_leaks_to_the_next_run_of_a_bare_guest_with_interrupt_controllers() {
    let Some(system) = kvm() else { return };
    let mut items = kernel_items();
    items.extend(msr_items());
    items.extend([
        item("local APIC", 11, Must::Work),
        item("local APIC's timer", 22, Must::Work),
        item("IOAPIC", 12, Must::Work),
        item("PICs", 13, Must::Work),
        item("PIT", 14, Must::Work),
        item("NMI mask", 18, Must::Work),
        item("pending interrupt", 19, Must::Work),
    ]);
    probe_all(&mut bare(&system, true), &items, &ALONE);
}

/// What a program can change, and what it must not reach.
fn program_items() -> Vec<Item> {
    let xsave = Item {
        // Which components are in use, and reserved bytes.
        ignored: 464..576,
        ..item("x87, MXCSR, XMM, YMM, ZMM, opmask", 1, Must::Work)
    };
    let out_of_reach = [
        ("LGDT", 12),
        ("LLDT", 13),
        ("WRMSR", 14),
        ("SWAPGS", 15),
        ("XSETBV", 16),
        ("CR0", 17),
        ("CR8", 18),
        ("DR0", 19),
        ("a port", 20),
        ("the interrupt flag", 21),
        ("DR6 by a single step", 22),
        ("DR6 by INT1", 23),
        ("the engine's pages", 24),
    ];
    let mut items = vec![
        item("general registers and flags", 0, Must::Work),
        xsave,
        item("x87 environment", 2, Must::Work),
        item("PKRU", 3, Must::Fault),
        item("FS and GS base by system call", 4, Must::Work),
        item("FS and GS base by WRFSBASE", 5, Must::Tell),
        item("segments", 6, Must::Work),
        item("pages", 7, Must::Work),
        item("mappings and what is beyond them", 8, Must::Work),
        item("files", 9, Must::Work),
        item("program break", 10, Must::Work),
        item("signal handlers, mask and stack, umask, folder", 11, Must::Work),
    ];
    items.extend(out_of_reach.map(|(name, number)| item(name, number, Must::Fault)));
    // As long as the inputs in a batch, because a register tells how long the input was.
    items.into_iter().map(|item| Item { rest: vec![0; 5], ..item }).collect()
}

fn program(system: &System) -> Machine {
    let flags = ["-static", "-nostdlib", "-mgeneral-regs-only", "-fno-stack-protector"];
    let program = build_c("probes", &[&flags[..], &["-mfsgsbase"]].concat());
    machine(system, &spec(&program, &[]))
}

#[test]
fn nothing_leaks_to_the_next_run_of_a_program() {
    let Some(system) = kvm() else { return };
    probe_all(&mut program(&system), &program_items(), &ALONE);
}

#[test]
fn nothing_leaks_to_the_next_run_of_a_batch_or_after_it() {
    let Some(system) = kvm() else { return };
    probe_all(&mut program(&system), &program_items(), &[Runs::Batched]);
}
