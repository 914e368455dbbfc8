//! ELF files: the loader's view of them, and that of symbols, lines, unwinding and blocks.

use super::mutate::interesting;
use super::{folder, for_each_mutant};
use crate::hostile::noise;
use crate::support::{build_c, kvm, rounds, spec};
use dejavm_engine::address::{Gva, PAGE_SIZE};
use dejavm_engine::coverage::blocks;
use dejavm_engine::kvm::System;
use dejavm_engine::linux::{Inaccessible, OutOfFrames, PageRange, Prot, UserMemory};
use dejavm_engine::linux::{LoadError, Process};
use dejavm_engine::machine::{Boot, Limit, ProcessPoint};
use dejavm_engine::memory::SharedBytes;
use dejavm_engine::outcome::Access;
use dejavm_engine::symbols::{Image, Symbolizer, UnwindRegisters};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

/// One mutant in so many is also booted.
const BOOT_ONE_IN: u64 = 300;
/// What all readers together may take for one file of some 20 KiB; it is a few milliseconds.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes that they may have at once; the guest's own memory below is 16 MiB of it, and a C library
/// is read into it.
const BYTES_MAX: u64 = 64 << 20;
const FRAMES_MAX: usize = 4096;

/// A process's memory without a machine.
#[derive(Default)]
struct Pages {
    pages: BTreeMap<u64, (Vec<u8>, Prot)>,
}

impl Pages {
    fn page(&mut self, at: u64) -> Option<&mut (Vec<u8>, Prot)> {
        self.pages.get_mut(&(at / PAGE_SIZE as u64))
    }

    fn store(&mut self, at: Gva, bytes: &[u8], wanted: Prot) -> Result<(), Inaccessible> {
        for (at, byte) in (at.0..).zip(bytes) {
            match self.page(at) {
                Some((page, prot)) if prot.contains(wanted) => {
                    page[at as usize % PAGE_SIZE] = *byte
                }
                _ => return Err(Inaccessible { at: Gva(at), kind: Access::Write }),
            }
        }
        Ok(())
    }

    fn numbers(range: PageRange) -> Range<u64> {
        let first = range.start.0 / PAGE_SIZE as u64;
        first..first + range.pages
    }
}

impl UserMemory for Pages {
    fn read(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        for (at, byte) in (at.0..).zip(out) {
            match self.pages.get(&(at / PAGE_SIZE as u64)) {
                Some((page, _)) => *byte = page[at as usize % PAGE_SIZE],
                None => return Err(Inaccessible { at: Gva(at), kind: Access::Read }),
            }
        }
        Ok(())
    }

    fn write(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.store(at, bytes, Prot::WRITE)
    }

    fn populate(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.store(at, bytes, Prot::empty())
    }

    fn map(&mut self, range: PageRange, prot: Prot) -> Result<(), OutOfFrames> {
        for number in Self::numbers(range) {
            if self.pages.len() >= FRAMES_MAX {
                return Err(OutOfFrames);
            }
            self.pages.entry(number).or_insert_with(|| (vec![0; PAGE_SIZE], prot));
        }
        Ok(())
    }

    fn unmap(&mut self, range: PageRange) {
        self.pages.retain(|number, _| !Self::numbers(range).contains(number));
    }

    fn protect(&mut self, range: PageRange, prot: Prot) {
        for (_, page) in self.pages.range_mut(Self::numbers(range)) {
            page.1 = prot;
        }
    }

    fn relocate(&mut self, _: PageRange, _: Gva) -> Result<(), OutOfFrames> {
        Err(OutOfFrames)
    }

    fn next_mapped(&self, at: Gva, end: Gva) -> Option<Gva> {
        let numbers = at.0 / PAGE_SIZE as u64..end.0.div_ceil(PAGE_SIZE as u64);
        let first = self.pages.range(numbers).next();
        first.map(|(number, _)| Gva(number * PAGE_SIZE as u64))
    }

    fn alias(&mut self, _: Gva, _: Gva, _: Prot) -> Result<(), OutOfFrames> {
        Err(OutOfFrames)
    }

    fn forget(&mut self, at: Gva) {
        self.pages.remove(&(at.0 / PAGE_SIZE as u64));
    }

    fn peek(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        self.read(at, out)
    }

    fn allows(&self, at: Gva, kind: Access) -> bool {
        let wanted = match kind {
            Access::Read => Prot::empty(),
            Access::Write => Prot::WRITE,
            Access::Execute => Prot::EXEC,
        };
        let page = self.pages.get(&(at.0 / PAGE_SIZE as u64));
        page.is_some_and(|(_, prot)| prot.contains(wanted))
    }

    fn frames_free(&self) -> u64 {
        (FRAMES_MAX - self.pages.len()) as u64
    }
}

fn word(file: &[u8], at: usize, width: usize) -> u64 {
    let mut bytes = [0; 8];
    if let Some(part) = file.get(at..at + width) {
        bytes[..width].copy_from_slice(part);
    }
    u64::from_le_bytes(bytes)
}

/// Where a file has numbers that a reader believes, by table: of each field, its place and width.
struct Map {
    /// Of the file's header, program headers and section headers.
    fields: Vec<(usize, usize)>,
    /// Bytes of the sections that are read as tables or as programs.
    tables: Vec<Range<usize>>,
}

impl Map {
    fn of(file: &[u8]) -> Self {
        let mut fields: Vec<_> = (16..24).step_by(2).map(|at| (at, 2)).collect();
        fields.extend([(24, 8), (32, 8), (40, 8), (52, 2), (54, 2), (56, 2), (58, 2), (60, 2)]);
        let (programs, sections) = (word(file, 32, 8) as usize, word(file, 40, 8) as usize);
        let (program_count, section_count) =
            (word(file, 56, 2) as usize, word(file, 60, 2) as usize);
        for at in (0..program_count).map(|n| programs + n * 56) {
            fields.extend([(at, 4), (at + 4, 4)]);
            fields.extend((8..56).step_by(8).map(|field| (at + field, 8)));
        }
        let mut tables = Vec::new();
        for at in (0..section_count).map(|n| sections + n * 64) {
            fields.extend([(at, 4), (at + 4, 4), (at + 40, 4), (at + 44, 4)]);
            fields.extend([8, 16, 24, 32, 48, 56].map(|field| (at + field, 8)));
            let (kind, start) = (word(file, at + 4, 4), word(file, at + 24, 8) as usize);
            let bytes = word(file, at + 32, 8) as usize;
            // SHT_NOBITS has none.
            if kind != 8 && bytes > 0 {
                tables.push(start..start + bytes);
            }
        }
        Self { fields, tables }
    }

    fn mutant(&self, file: &[u8], noise: &mut StdRng) -> Vec<u8> {
        let mut file = file.to_vec();
        for _ in 0..noise.random_range(1..=4) {
            let (at, width) = match noise.random_range(0..3) {
                0 => {
                    let table = &self.tables[noise.random_range(0..self.tables.len())];
                    let at = noise.random_range(table.clone());
                    let width = [1, 4, 8][noise.random_range(0..3)];
                    (if width == 1 { at } else { at / width * width }, width)
                }
                _ => self.fields[noise.random_range(0..self.fields.len())],
            };
            // A number of another field, or one near this one.
            let other = self.fields[noise.random_range(0..self.fields.len())];
            let value = match noise.random_range(0..4) {
                0 => word(&file, other.0, other.1),
                _ => interesting(word(&file, at, width), noise),
            };
            if let Some(place) = file.get_mut(at..at + width) {
                place.copy_from_slice(&value.to_le_bytes()[..width]);
            }
        }
        if noise.random_range(0..20) == 0 {
            file.truncate(noise.random_range(0..file.len()));
        }
        file
    }
}

/// Everything that reads a program at boot.
fn load(path: &Path) -> Result<(), LoadError> {
    let mut memory = Pages::default();
    let (process, _) = Process::load(&spec(path, &["a"]), b"input", &mut memory)?;
    assert!(!process.images().is_empty());
    Ok(())
}

/// Everything that reads it afterwards.
fn explain(bytes: &[u8], base: &[u64], noise: &mut StdRng) {
    let _ = blocks::find(bytes);
    let shared = SharedBytes::from(bytes.to_vec());
    let bias = 0x5555_5555_4000;
    let image = Image { name: "mutant".to_owned(), bias, bytes: shared };
    let symbolizer = Symbolizer::new(vec![image]);
    let _ = symbolizer.address_of("main");
    for at in base.iter().copied().chain([0, 1, u64::MAX, noise.random()]) {
        let at = at.wrapping_add(bias);
        let place = symbolizer.resolve(at);
        assert!(place.source.len() <= 1000, "{}", place.source.len());
        let registers = UnwindRegisters { rip: at, rsp: 0x7ff0_0000, ..Default::default() };
        let mut reads = 0;
        // A stack full of places in the image.
        let mut read = |from: u64, out: &mut [u8]| {
            reads += 1;
            let word = bias + from % 0x4000;
            out.iter_mut().zip(word.to_le_bytes().iter().cycle()).for_each(|(to, b)| *to = *b);
            true
        };
        let frames = symbolizer.unwind(&registers, &mut read, 64);
        assert!(frames.len() <= 64);
        for frame in frames.iter().take(4) {
            let _ = symbolizer.resolve_frame(frame);
        }
        assert!(reads < 100_000, "{reads} reads for one stack");
    }
}

fn boot(system: &System, path: &Path) {
    let boot = match Boot::process(system, &spec(path, &[]), 64 << 20, b"b a") {
        Ok(boot) => boot,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let limit = Limit::time(Duration::from_millis(50));
    let _ = boot.start(ProcessPoint::Input, limit).map(drop);
}

fn mutants(name: &str, program: &Path, count: u64) {
    let system = kvm();
    let folder = folder();
    let base = fs::read(program).unwrap();
    let map = Map::of(&base);
    let functions = blocks::find(&base).unwrap().starts;
    let functions: Vec<u64> = functions.iter().step_by(functions.len() / 6 + 1).copied().collect();
    let path = folder.path().join(name);
    let (mut loaded, mut refused, mut slowest) = (0, 0, Duration::ZERO);
    for_each_mutant(count, |seed| {
        let mut noise = noise(seed);
        let bytes = map.mutant(&base, &mut noise);
        fs::write(&path, &bytes).unwrap();
        let start = Instant::now();
        let mut done = Ok(());
        let used = allocation_counter::measure(|| {
            done = load(&path);
            explain(&bytes, &functions, &mut noise);
        });
        let took = start.elapsed();
        slowest = slowest.max(took);
        assert!(took < TIME_MAX, "it took {took:?}");
        assert!(used.bytes_max < BYTES_MAX, "it took {} bytes", used.bytes_max);
        match done {
            Ok(()) => loaded += 1,
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert!(text.len() > 10 && !text.contains('\n'), "{text:?}");
            }
        }
        if seed % BOOT_ONE_IN == 0
            && let Some(system) = &system
        {
            boot(system, &path);
        }
    });
    eprintln!("{name}: {refused} refused, {loaded} loaded, {slowest:?} at most");
}

#[test]
fn a_mutated_static_program_is_refused_or_harmless() {
    let program = build_c("tiny", &["-nostdlib", "-static", "-Wl,--build-id=none"]);
    mutants("static", &program, rounds(4_000).into());
}

#[test]
fn a_mutated_dynamic_program_is_refused_or_harmless() {
    mutants("dynamic", &build_c("words", &[]), rounds(300).into());
}
