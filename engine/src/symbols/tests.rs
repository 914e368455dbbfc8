//! The tests that need a real process: gdb stops it, tells its registers, stack and mappings, and
//! its own backtrace is what ours is compared with.

mod process;

use super::tools::compile;
use super::*;
use crate::memory::SharedBytes;
use process::Process;

const CRASHING: &str = r#"
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <stdio.h>
static volatile int *nowhere;
__attribute__((noinline)) int innermost(int n) { nowhere[n] = 1; return n + 1; }
static inline __attribute__((always_inline)) int inlined(int n) { return innermost(n) * 3; }
__attribute__((noinline)) int compare(const void *a, const void *b) {
  return inlined(*(const int *)a) + *(const int *)b;
}
__attribute__((noinline)) int outer(int n) {
  int values[4] = { n, 3, 2, 1 };
  qsort(values, 4, sizeof *values, compare);   /* through the C library */
  return values[0];
}
__attribute__((noinline)) void handler(int s) { nowhere[s] = 2; }
__attribute__((noinline)) int signalled(void) { raise(SIGUSR1); return 1; }
__attribute__((noinline)) int jumps(void) { return ((int (*)(int))0x10)(1) + 1; }
__attribute__((noinline)) int aborts(void) { abort(); }
int main(int argc, char **argv) {
  signal(SIGUSR1, handler);
  switch (argv[1][0]) {
    case 's': return signalled() + 1;
    case 'j': return jumps() + 1;
    case 'a': return aborts() + 1;
  }
  return outer(argc) + 1;
}
"#;

fn crash(options: &[&str], argument: &str) -> Option<(tempfile::TempDir, Process)> {
    let directory = tempfile::tempdir().unwrap();
    let program = compile(directory.path(), CRASHING, options)?;
    let process = Process::crashed(&program, &[argument])?;
    Some((directory, process))
}

fn names(process: &Process) -> Vec<String> {
    let symbolizer = process.symbolizer();
    let frames = process.unwind(&symbolizer);
    let places = frames.iter().map(|frame| symbolizer.resolve_frame(frame));
    places.map(|place| place.function.map_or_else(|| "?".to_owned(), |f| f.name)).collect()
}

fn agrees_with_gdb(process: &Process) {
    let symbolizer = process.symbolizer();
    let frames: Vec<u64> = process.unwind(&symbolizer).iter().map(|frame| frame.ip).collect();
    let gdb = &process.backtrace;
    // gdb ends at `main`; we go on to `_start`.
    assert!(frames.starts_with(gdb), "ours {frames:x?}, gdb's {gdb:x?}");
    assert!(gdb.len() >= 3);
}

#[test]
fn unwinds_through_the_c_library_as_gdb_does() {
    for options in [&["-O2", "-g"][..], &["-O0"], &["-O2", "-static", "-g"], &["-O1", "-no-pie"]] {
        let Some((_directory, process)) = crash(options, "x") else { return };
        agrees_with_gdb(&process);
        let names = names(&process);
        assert_eq!(names.first().map(String::as_str), Some("innermost"), "{options:?}");
        assert_eq!(names.get(1).map(String::as_str), Some("compare"), "{options:?}");
        for caller in ["outer", "main", "_start"] {
            assert!(
                names.iter().any(|name| name == caller),
                "{options:?}: no {caller} in {names:?}"
            );
        }
    }
}

#[test]
fn unwinds_across_a_signal_handler() {
    let Some((_directory, process)) = crash(&["-O2", "-static"], "s") else { return };
    agrees_with_gdb(&process);
    let names = names(&process);
    assert_eq!(names.first().map(String::as_str), Some("handler"));
    assert!(names.iter().any(|name| name == "signalled"), "{names:?}");
}

#[test]
fn unwinds_from_a_jump_to_nowhere() {
    let Some((_directory, process)) = crash(&["-O2"], "j") else { return };
    let names = names(&process);
    assert_eq!(names[..3], ["?", "jumps", "main"]);
}

#[test]
fn unwinds_by_frame_pointers_without_frame_information() {
    let options = ["-O0", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables"];
    let Some((_directory, process)) = crash(&options, "j") else { return };
    let names = names(&process);
    assert_eq!(names[..3], ["?", "jumps", "main"]);
}

#[test]
fn names_an_abort_after_its_caller() {
    let Some((_directory, process)) = crash(&["-O2"], "a") else { return };
    let symbolizer = process.symbolizer();
    let stack: Vec<CodeLocation> =
        process.unwind(&symbolizer).iter().map(|frame| symbolizer.resolve_frame(frame)).collect();
    assert_eq!(crash_key(&stack), "aborts@program", "{stack:#?}");
}

#[test]
fn resolves_lines_of_inlined_functions() {
    let Some((_directory, process)) = crash(&["-O2", "-g"], "x") else { return };
    let symbolizer = process.symbolizer();
    let frames = process.unwind(&symbolizer);
    let place = symbolizer.resolve_frame(&frames[1]);
    let source: Vec<_> = place.source.iter().map(|s| (s.function.as_deref(), s.line)).collect();
    assert_eq!(source, [(Some("inlined"), Some(8)), (Some("compare"), Some(10))]);
    assert!(place.source[0].file.as_deref().unwrap().ends_with("program.c"));
}

#[test]
fn looks_up_names_in_the_executable_first() {
    let Some((_directory, process)) = crash(&["-O2"], "x") else { return };
    let symbolizer = process.symbolizer();
    let at = symbolizer.address_of("innermost").unwrap();
    assert_eq!(symbolizer.resolve(at).function.unwrap().name, "innermost");
    assert!(matches!(symbolizer.address_of("no_such_name"), Err(NameError::NotFound { .. })));
}

#[test]
fn shows_the_faulting_instruction_among_its_neighbours() {
    let Some((_directory, process)) = crash(&["-O0"], "x") else { return };
    let symbolizer = process.symbolizer();
    let rip = process.registers.rip;
    let image = symbolizer.image_at(rip).unwrap();
    let window = &image.bytes_at(rip - 24)[..48];
    let lines = symbolizer.disassemble(window, rip - 24, rip, 3);
    assert_eq!(lines.iter().filter(|line| line.is_current).count(), 1);
    assert_eq!(lines.len(), 7, "{lines:#?}");
    assert!(lines[3].text.starts_with("mov"), "{}", lines[3]);
    // Without any image the boundaries before it are guessed.
    let bare = Symbolizer::new(Vec::new());
    let guessed = bare.disassemble(window, rip - 24, rip, 3);
    assert_eq!(guessed[guessed.len() - 4..], lines[3..]);
}

#[test]
fn unwinds_inside_the_procedure_linkage_table() {
    let directory = tempfile::tempdir().unwrap();
    let Some(path) = compile(directory.path(), CRASHING, &["-O2", "-Wl,-z,lazy"]) else { return };
    let bytes = SharedBytes::from(std::fs::read(path).unwrap());
    let layout = elf::Layout::parse(&bytes).unwrap();
    let Some(plt) = layout.section(".plt").map(|section| section.address) else { return };
    let symbolizer = Symbolizer::new(vec![Image { name: "program".to_owned(), bias: 0, bytes }]);
    let main = symbolizer.address_of("main").unwrap();
    // In the second stub: before and after it pushed the relocation's number.
    for (offset, pushed) in [(0, 0), (6, 0), (11, 8)] {
        let rip = plt + 16 + offset;
        let registers = UnwindRegisters { rip, rsp: 0x7000, ..UnwindRegisters::default() };
        let mut read = |at: u64, buffer: &mut [u8]| {
            let word = if at == 0x7000 + pushed { main + 4 } else { 0 };
            buffer.copy_from_slice(&word.to_le_bytes()[..buffer.len()]);
            true
        };
        let frames = symbolizer.unwind(&registers, &mut read, 2);
        assert_eq!(frames.get(1).map(|frame| frame.ip), Some(main + 4), "stub+{offset}");
    }
}

proptest::proptest! {
    #[test]
    fn disassembles_anything(
        code in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        at in proptest::prop_oneof![0..1000u64, u64::MAX - 1000..u64::MAX],
        offset in 0..220u64,
        around in proptest::prop_oneof![0..100usize, proptest::strategy::Just(usize::MAX)],
    ) {
        let bare = Symbolizer::new(Vec::new());
        let rip = at.wrapping_add(offset);
        let lines = bare.disassemble(&code, at, rip, around);
        if rip >= at && offset < code.len() as u64 {
            proptest::prop_assert_eq!(lines.iter().filter(|line| line.is_current).count(), 1);
            proptest::prop_assert!(lines.len() <= 2 * 64 + 1);
        }
    }
}

fn this_program() -> Symbolizer {
    let path = std::env::current_exe().unwrap();
    let bytes = SharedBytes::from(std::fs::read(&path).unwrap());
    let name = path.to_string_lossy().into_owned();
    Symbolizer::new(vec![Image { name, bias: 0x5555_0000_0000, bytes }])
}

#[test]
fn finds_rust_functions_by_the_end_of_their_path() {
    let symbolizer = this_program();
    let whole = symbolizer.address_of("dejavm_engine::symbols::names::demangle").unwrap();
    assert_eq!(symbolizer.address_of("names::demangle").unwrap(), whole);
    let place = symbolizer.resolve(whole);
    assert_eq!(place.function.unwrap().name, "dejavm_engine::symbols::names::demangle");
    assert!(place.source[0].file.as_deref().unwrap().ends_with("names.rs"));
    let ambiguous = symbolizer.address_of("fmt");
    assert!(matches!(ambiguous, Err(NameError::Ambiguous { .. })), "{ambiguous:?}");
}

#[test]
fn can_move_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&Symbolizer::new(Vec::new()));
}

#[test]
fn survives_a_hostile_stack() {
    let symbolizer = this_program();
    let rip = symbolizer.address_of("dejavm_engine::symbols::names::demangle").unwrap() + 40;
    for seed in 0..2000u64 {
        let noise = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let registers = UnwindRegisters {
            rip: rip + seed % 200,
            rsp: noise,
            rbp: !noise,
            ..UnwindRegisters::default()
        };
        let mut read = |at: u64, buffer: &mut [u8]| {
            let word = if at.is_multiple_of(3) { rip } else { at ^ noise };
            buffer.iter_mut().zip(word.to_le_bytes()).for_each(|(to, from)| *to = from);
            !at.is_multiple_of(5)
        };
        assert!(symbolizer.unwind(&registers, &mut read, 50).len() <= 50);
    }
}

#[test]
fn survives_damaged_images() {
    let Ok(whole) = std::fs::read("/usr/bin/djpeg") else {
        eprintln!("skipped: /usr/bin/djpeg is not on this machine");
        return;
    };
    for seed in 1..200usize {
        let mut bytes = whole.clone();
        for step in 1..64usize {
            let at = (seed * 7919 * step * step) % bytes.len();
            bytes[at] = bytes[at].wrapping_mul(31).wrapping_add(seed as u8);
        }
        let image = Image { name: "djpeg".to_owned(), bias: 0, bytes: bytes.into() };
        let symbolizer = Symbolizer::new(vec![image]);
        let registers = UnwindRegisters {
            rip: 0x3000 + seed as u64 * 16,
            rsp: 0x7000,
            ..UnwindRegisters::default()
        };
        let mut read = |at: u64, buffer: &mut [u8]| {
            buffer.fill((at >> 3) as u8);
            true
        };
        for frame in symbolizer.unwind(&registers, &mut read, 64) {
            let _place = symbolizer.resolve_frame(&frame);
        }
        let _lookup = symbolizer.address_of("jpeg_read_header");
    }
}
