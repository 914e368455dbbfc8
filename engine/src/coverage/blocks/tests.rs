use super::{Blocks, find};
use crate::symbols::tools::{compile, listing};
use proptest::prelude::*;
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// A program with a dense switch, a computed goto, a noreturn call and a tail call.
const SWITCHES: &str = r#"
#include <stdlib.h>
#include <stdio.h>
__attribute__((noinline, noreturn)) static void fatal(int c) { printf("%d", c); exit(c); }
__attribute__((noinline)) int parse(const unsigned char *p, int n) {
  int state = 0;
  for (int i = 0; i < n; i++) switch (p[i]) {
    case 'a': state += 1; break;  case 'b': state *= 3; break;
    case 'c': state ^= 7; break;  case 'd': state -= n; break;
    case 'e': fatal(state);       case 'f': state <<= 2; break;
    case 'g': putchar('g'); break; case 'h': puts("h"); break;
    case 'i': state = rand(); break; case 'j': return state;
    default: state--; }
  return state;
}
__attribute__((noinline)) int interpret(const unsigned char *p) {
  static const void *const ops[] = { &&add, &&sub, &&shift, &&stop };
  int x = 0;
  goto *ops[*p & 3];
 add: x += *p++; goto *ops[*p & 3];
 sub: x -= *p++; goto *ops[*p & 3];
 shift: x <<= 1; p++; goto *ops[*p & 3];
 stop: return x;
}
int main(int argc, char **argv) {
  if (argc < 2) fatal(1);
  return parse((void *)argv[1], argc) + interpret((void *)argv[1]);
}
"#;

fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = std::fs::read(path).ok();
    if bytes.is_none() {
        eprintln!("skipped: {} is not on this machine", path.display());
    }
    bytes
}

/// Every instruction boundary in objdump's listing; `None` without objdump.
fn objdump_boundaries(path: &Path) -> Option<HashSet<u64>> {
    let address = |line: &str| u64::from_str_radix(line.split_once(":\t")?.0.trim(), 16).ok();
    Some(listing(path)?.lines().filter_map(address).collect())
}

fn agrees_with_objdump(path: &Path) -> Option<Blocks> {
    let bytes = read(path)?;
    let started = Instant::now();
    let blocks = find(&bytes).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    eprintln!(
        "{}: {} blocks, {}/{} functions, {}/{} bytes, tables {}, other indirect jumps {}, {seconds:.3} s",
        path.display(),
        blocks.starts.len(),
        blocks.functions_covered,
        blocks.functions,
        blocks.covered_bytes,
        blocks.text_bytes,
        blocks.tables_followed,
        blocks.indirect_jumps_left,
    );
    let boundaries = objdump_boundaries(path)?;
    let wrong: Vec<_> = blocks.starts.iter().filter(|at| !boundaries.contains(at)).collect();
    assert!(wrong.is_empty(), "{} starts inside instructions: {wrong:x?}", wrong.len());
    Some(blocks)
}

fn covers_nearly_all_functions(path: &str) {
    if let Some(blocks) = agrees_with_objdump(Path::new(path)) {
        assert!(blocks.functions_covered * 100 >= blocks.functions * 99, "{blocks:?}");
    }
}

#[test]
fn starts_in_xmllint_are_instruction_boundaries() {
    covers_nearly_all_functions("/usr/bin/xmllint");
}

#[test]
fn starts_in_libxml2_are_instruction_boundaries() {
    covers_nearly_all_functions("/usr/lib/x86_64-linux-gnu/libxml2.so.2");
}

#[test]
fn starts_in_djpeg_are_instruction_boundaries() {
    covers_nearly_all_functions("/usr/bin/djpeg");
}

#[test]
fn starts_in_static_busybox_are_instruction_boundaries() {
    covers_nearly_all_functions("/bin/busybox");
}

#[test]
fn starts_in_a_rust_program_are_instruction_boundaries() {
    let path = std::env::current_exe().unwrap();
    let blocks = agrees_with_objdump(&path);
    assert!(blocks.is_none_or(|b| b.functions_covered * 100 >= b.functions * 99));
}

#[test]
fn follows_the_switches_of_c() {
    let directory = tempfile::tempdir().unwrap();
    for options in
        [["-O0", "-fPIE", "-pie"], ["-O2", "-fPIE", "-pie"], ["-O2", "-fno-pie", "-no-pie"]]
    {
        let Some(path) = compile(directory.path(), SWITCHES, &options) else { continue };
        let Some(blocks) = agrees_with_objdump(&path) else { continue };
        // Unoptimised code reaches its computed goto through memory, which is left out.
        let tables = if options[0] == "-O0" { 1 } else { 2 };
        assert!(blocks.tables_followed >= tables, "{options:?}: {blocks:?}");
    }
}

#[test]
fn needs_no_section_headers() {
    let directory = tempfile::tempdir().unwrap();
    let Some(path) = compile(directory.path(), SWITCHES, &["-O2"]) else { return };
    let mut bytes = std::fs::read(path).unwrap();
    let whole = find(&bytes).unwrap();
    // e_shoff, then e_shentsize, e_shnum, e_shstrndx.
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
    let stripped = find(&bytes).unwrap();
    assert!(stripped.starts.len() * 10 >= whole.starts.len() * 8, "{stripped:?} {whole:?}");
    assert!(stripped.starts.iter().all(|start| whole.starts.binary_search(start).is_ok()));
}

const CATCHES: &str = r#"
#include <stdexcept>
#include <string>
__attribute__((noinline)) void thrower(int n) { if (n > 2) throw std::runtime_error("many"); }
int main(int argc, char **argv) {
  try { std::string name(argv[0]); thrower(argc); return name.size() > 3; }
  catch (const std::runtime_error &e) { return 7; }
  catch (...) { return 8; }
}
"#;

#[test]
fn finds_the_landing_pads_of_exceptions() {
    let directory = tempfile::tempdir().unwrap();
    // The library stands before the source that needs it.
    let options = ["-x", "c++", "-O2", "-Wl,--no-as-needed", "-lstdc++"];
    let Some(path) = compile(directory.path(), CATCHES, &options) else { return };
    let bytes = std::fs::read(&path).unwrap();
    let layout = crate::symbols::elf::Layout::parse(&bytes).unwrap();
    let frames = crate::symbols::frames::CallFrames::parse(&layout, &bytes);
    let pads = super::lsda::landing_pads(&layout, &bytes, &frames).pads;
    let Some(blocks) = agrees_with_objdump(&path) else { return };
    assert!(pads.len() >= 2 && pads.iter().all(|pad| blocks.starts.binary_search(pad).is_ok()));
}

#[test]
fn finds_code_that_nothing_describes() {
    let directory = tempfile::tempdir().unwrap();
    let options = ["-O2", "-fno-asynchronous-unwind-tables", "-fno-pie", "-no-pie"];
    let Some(path) = compile(directory.path(), SWITCHES, &options) else { return };
    let whole = find(&std::fs::read(&path).unwrap()).unwrap();
    let Some(boundaries) = objdump_boundaries(&path) else { return };
    let stripped = path.with_extension("stripped");
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(&path).status();
    if !done.is_ok_and(|status| status.success()) {
        eprintln!("skipped: strip does not work on this machine");
        return;
    }
    let found = find(&std::fs::read(&stripped).unwrap()).unwrap();
    assert!(found.starts.iter().all(|start| boundaries.contains(start)));
    assert!(found.starts.len() * 10 >= whole.starts.len() * 9, "{found:?} {whole:?}");
}

/// An image of one function that is `pattern` over and over.
fn image_of(pattern: &[u8], bytes: usize) -> Vec<u8> {
    let text: Vec<u8> = pattern.iter().copied().cycle().take(bytes).collect();
    let words = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (text_at, length) = (0x1000usize, text.len() as u64);
    let symbols_at = text_at + text.len();
    let mut image = b"\x7fELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    // ET_DYN, EM_X86_64, version 1; then entry, e_phoff, e_shoff; then sizes and counts.
    image.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    image.extend(words(&[text_at as u64, 64, symbols_at as u64 + 49]));
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 3, 0, 0, 0]);
    // PT_LOAD, readable and executable.
    image.extend(words(&[1 | 5 << 32, text_at as u64, text_at as u64, text_at as u64]));
    image.extend(words(&[length, length, 0x1000]));
    image.resize(text_at, 0);
    image.extend(text);
    // The null symbol; a global STT_FUNC in section 1; an empty string table.
    image.extend([0; 24]);
    image.extend(words(&[0x12 << 32 | 1 << 48, text_at as u64, length]));
    image.push(0);
    image.extend([0; 64]);
    image.extend(words(&[2 << 32, 0, 0, symbols_at as u64, 48, 2, 8, 24]));
    image.extend(words(&[3 << 32, 0, 0, symbols_at as u64 + 48, 1, 0, 1, 0]));
    image
}

#[test]
fn takes_linear_time_on_hostile_code() {
    let patterns: [&[u8]; 5] = [
        // je +2; jmp rax
        &[0x74, 2, 0xff, 0xe0],
        // je +16; lea rcx, [rip]; movsxd rax, [rcx + rax*4]; add rax, rcx; jmp rax
        &[0x74, 16, 0x48, 0x8d, 0x0d, 0, 0, 0, 0, 0x48, 0x63, 4, 0x81, 0x48, 1, 0xc8, 0xff, 0xe0],
        // je +9; the same without the lea
        &[0x74, 9, 0x48, 0x63, 4, 0x81, 0x48, 1, 0xc8, 0xff, 0xe0],
        // cmp eax, 0x1fff; ja +9; the same, bounded
        &[0x3d, 0xff, 0x1f, 0, 0, 0x77, 9, 0x48, 0x63, 4, 0x81, 0x48, 1, 0xc8, 0xff, 0xe0],
        // je -1: into itself
        &[0x74, 0xff],
    ];
    for pattern in patterns {
        let image = image_of(pattern, 1 << 18);
        let started = Instant::now();
        let blocks = find(&image).unwrap();
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("{pattern:x?}: {} blocks in {seconds:.3} s", blocks.starts.len());
        assert!(blocks.covered_bytes * 10 >= blocks.text_bytes, "{blocks:?}");
        assert!(seconds < 30.0, "{pattern:x?} took {seconds} s");
    }
}

#[test]
fn refuses_what_is_not_elf() {
    assert!(find(b"").is_err());
    assert!(find(&[0x7f; 200]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn survives_noise_in_an_image(
        at in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..64),
        headers in proptest::collection::vec((0usize..0x400, any::<u8>()), 0..8),
    ) {
        let Some(mut bytes) = read(Path::new("/usr/bin/djpeg")) else { return Ok(()) };
        for (index, byte) in at {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        for (index, byte) in headers {
            bytes[index] = byte;
        }
        if let Ok(blocks) = find(&bytes) {
            prop_assert!(blocks.starts.len() as u64 <= blocks.text_bytes);
        }
    }
}
