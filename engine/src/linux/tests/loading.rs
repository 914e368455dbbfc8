//! Loading real and damaged programs.

use crate::address::Gva;
use crate::linux::loader::spec::{LoadError, ProcessSpec};
use crate::linux::mm::user_memory::{Prot, UserMemory};
use crate::linux::process::Process;
use crate::linux::tests::mock::{Guest, PAGE, Pages};
use crate::outcome::Access;
use proptest::prelude::*;
use std::path::Path;
use std::sync::LazyLock;

fn error(path: &Path) -> LoadError {
    Process::load(&ProcessSpec::new(path), b"", &mut Pages::default()).unwrap_err()
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

/// The auxiliary vector's value for `tag`, and the argument strings.
fn initial_stack(guest: &Guest) -> (Vec<Vec<u8>>, Vec<(u64, u64)>) {
    let mut at = guest.start.rsp;
    assert_eq!(at % 16, 0);
    let mut next = || {
        at += 8;
        guest.word(at - 8)
    };
    let argc = next();
    let mut strings = Vec::new();
    let mut read = |mut at: u64| {
        let mut text = Vec::new();
        while guest.get(at, 1) != [0] {
            text.extend(guest.get(at, 1));
            at += 1;
        }
        strings.push(text);
    };
    for _ in 0..argc {
        read(next());
    }
    assert_eq!(next(), 0);
    loop {
        match next() {
            0 => break,
            string => read(string),
        }
    }
    let mut aux = Vec::new();
    loop {
        let pair = (next(), next());
        aux.push(pair);
        if pair.0 == 0 {
            return (strings, aux);
        }
    }
}

#[test]
fn loads_a_dynamic_program_where_linux_would() {
    let mut spec = ProcessSpec::new("/bin/true");
    spec.args = vec!["one".into(), "".into()];
    spec.env = vec!["HOME=/".into()];
    let guest = Guest::load(&spec, b"");
    let (strings, aux) = initial_stack(&guest);
    assert_eq!(strings, [&b"/bin/true"[..], b"one", b"", b"HOME=/"]);
    let value = |tag| aux.iter().find(|(t, _)| *t == tag).map(|(_, value)| *value).unwrap();
    assert_eq!(value(libc::AT_PHDR), 0x5555_5555_4040);
    assert_eq!(value(libc::AT_PHENT), 56);
    assert_eq!(guest.get(value(libc::AT_EXECFN), 9), b"/bin/true");
    let images = guest.process.images();
    assert_eq!(images[0].base, 0x5555_5555_4000);
    assert!(images[1].path.to_string_lossy().contains("ld-linux"));
    assert_eq!(images[1].base, value(libc::AT_BASE));
    assert_eq!(guest.get(images[1].base, 4), b"\x7fELF");
    assert!(guest.mem.allows(Gva(guest.start.rip), Access::Execute));
    assert!(guest.mem.allows(Gva(value(libc::AT_ENTRY)), Access::Execute));
    assert!(guest.start.rsp < 0x7fff_ffff_f000 && guest.start.rsp > 0x7fff_ffff_0000);
}

#[test]
fn loads_a_static_program() {
    let guest = Guest::load(&ProcessSpec::new("/bin/busybox"), b"");
    assert_eq!(guest.process.images().len(), 1);
    assert!(guest.mem.allows(Gva(guest.start.rip), Access::Execute));
}

#[test]
fn shows_the_libraries_a_program_needs_and_no_other_file() {
    let mut guest = Guest::simple();
    let libc_path = "/lib/x86_64-linux-gnu/libc.so.6";
    let fd = guest.open(libc_path, 0);
    let out = guest.scratch + PAGE;
    assert_eq!(guest.ok(libc::SYS_read, [fd, out, 4]), 4);
    assert_eq!(guest.get(out, 4), b"\x7fELF");
    let path = guest.text("/etc/debian_version");
    guest.err(libc::SYS_open, [path, 0], libc::ENOENT);
    let path = guest.text("/proc/self/exe");
    let len = guest.ok(libc::SYS_readlink, [path, out, 100]);
    let real = std::fs::canonicalize("/bin/true").unwrap();
    assert_eq!(guest.get(out, len as usize), real.to_str().unwrap().as_bytes());
}

#[test]
fn a_program_that_is_loaded_anew_finds_the_system_files_it_looked_for() {
    let mut spec = ProcessSpec::new("/bin/true");
    let mut guest = Guest::load(&spec, b"");
    for path in ["/etc/debian_version", "/etc/shadow", "/root/file", "/proc/none"] {
        let path = guest.text(path);
        guest.err(libc::SYS_open, [path, 0], libc::ENOENT);
    }
    let folder = guest.open("/usr", libc::O_DIRECTORY);
    let out = guest.scratch + PAGE;
    guest.ok(libc::SYS_getdents64, [folder, out, 4096]);
    assert!(spec.system.take(guest.process.wanted()));

    let mut guest = Guest::load(&spec, b"");
    guest.open("/etc/debian_version", 0);
    for path in ["/etc/shadow", "/root/file"] {
        let path = guest.text(path);
        guest.err(libc::SYS_open, [path, 0], libc::ENOENT);
    }
    let folder = guest.open("/usr", libc::O_DIRECTORY);
    let len = guest.ok(libc::SYS_getdents64, [folder, out, 4096]);
    let listed = String::from_utf8_lossy(&guest.get(out, len as usize)).into_owned();
    assert!(listed.contains("share"), "{listed}");
    assert!(!spec.system.take(guest.process.wanted()), "there is nothing more to be found");
}

#[test]
fn says_what_is_wrong_with_a_file_that_is_no_program() {
    assert!(matches!(error(Path::new("/nonexistent")), LoadError::Read { .. }));
    assert!(matches!(error(Path::new("/")), LoadError::Directory { .. }));
    assert!(matches!(error(Path::new("/dev/null")), LoadError::Read { .. }));
    let script = error(file(b"#!/bin/sh\necho").path());
    assert!(matches!(script, LoadError::Script { interpreter, .. } if interpreter == "/bin/sh"));
    assert!(matches!(error(file(b"hello").path()), LoadError::NotElf { .. }));
    assert!(matches!(error(file(b"").path()), LoadError::NotElf { .. }));
    let program = std::fs::read("/bin/true").unwrap();
    let changed = |at: usize, byte| {
        let mut bytes = program.clone();
        bytes[at] = byte;
        error(file(&bytes).path())
    };
    assert!(matches!(changed(4, 1), LoadError::Not64Bit { .. }));
    assert!(matches!(changed(18, 183), LoadError::OtherMachine { machine: 183, .. }));
    assert!(matches!(changed(16, 1), LoadError::NotExecutable { kind: 1, .. }));
    assert!(matches!(error(file(&program[..100]).path()), LoadError::BadElf { .. }));
    let half = &program[..program.len() / 2];
    assert!(matches!(error(file(half).path()), LoadError::BadElf { .. }));
}

#[test]
fn refuses_arguments_that_do_not_fit() {
    let mut spec = ProcessSpec::new("/bin/true");
    spec.args = vec!["x".repeat(2 << 20).into()];
    let failed = Process::load(&spec, b"", &mut Pages::default()).unwrap_err();
    assert!(matches!(failed, LoadError::ArgumentsTooLong { .. }));
    spec.args = vec!["a\0b".into()];
    let failed = Process::load(&spec, b"", &mut Pages::default()).unwrap_err();
    assert!(matches!(failed, LoadError::NulInArgument { .. }));
}

#[test]
fn says_that_memory_is_too_small() {
    let mut mem = Pages::of_frames(8);
    let failed = Process::load(&ProcessSpec::new("/bin/true"), b"", &mut mem).unwrap_err();
    assert!(matches!(failed, LoadError::OutOfMemory { .. }));
}

#[test]
fn maps_files_and_directories() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    std::fs::write(directory.path().join("sub/file"), b"content").unwrap();
    std::os::unix::fs::symlink("sub/file", directory.path().join("link")).unwrap();
    let mut spec = ProcessSpec::new("/bin/true");
    let host = directory.path().to_owned();
    spec.files = vec![crate::linux::loader::spec::FileMapping { host, guest: "data".into() }];
    let mut guest = Guest::load(&spec, b"");
    let fd = guest.open("/work/data/link", 0);
    let out = guest.scratch;
    assert_eq!(guest.ok(libc::SYS_read, [fd, out, 100]), 7);
    assert_eq!(guest.get(out, 7), b"content");
}

#[test]
fn zeroes_what_lies_beyond_a_segments_file_part() {
    let guest = Guest::simple();
    let program = std::fs::read("/bin/true").unwrap();
    let elf = crate::linux::loader::elf::Elf::parse(Path::new("/bin/true"), &program).unwrap();
    let data = elf.segments.iter().find(|s| s.prot.contains(Prot::WRITE)).unwrap();
    let end = 0x5555_5555_4000 + data.address + data.file_bytes;
    let zeros = (end.next_multiple_of(PAGE) - end) as usize;
    assert_eq!(guest.get(end, zeros), vec![0; zeros]);
    let from = data.offset as usize;
    let bytes = guest.get(0x5555_5555_4000 + data.address, data.file_bytes as usize);
    assert_eq!(bytes, &program[from..from + data.file_bytes as usize]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn survives_mutated_programs(
        changes in prop::collection::vec((0usize..1024, any::<u8>()), 1..8),
        words in prop::collection::vec((0usize..128, any::<u64>()), 0..2),
    ) {
        static PROGRAM: LazyLock<Vec<u8>> = LazyLock::new(|| std::fs::read("/bin/true").unwrap());
        let mut bytes = PROGRAM.clone();
        for (at, byte) in changes {
            // The interpreter's path must not lead to arbitrary files of the host.
            bytes[at % 0x318] = byte;
        }
        for (at, word) in words {
            let at = at % (0x318 / 8) * 8;
            bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        let program = file(&bytes);
        let mut mem = Pages::of_frames(4096);
        let _ = Process::load(&ProcessSpec::new(program.path()), b"", &mut mem);
    }
}
