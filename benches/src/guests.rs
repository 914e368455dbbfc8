//! The guests: compiled from `tests/guests/c` with the host's C compiler, and booted to their
//! snapshots. Never measures anything.

use dejavm_engine::address::Gpa;
use dejavm_engine::guest::bare::{BareSpec, Mode};
use dejavm_engine::guest::process::ProcessSpec;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{Boot, Machine, ProcessPoint, Started, bare};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Memory of a process guest here, in bytes.
pub const RAM_BYTES: u64 = 64 << 20;

/// Compiles `tests/guests/c/NAME.c` into `folder`, statically, with `flags`.
#[must_use]
pub fn compile(folder: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/c").join(format!("{name}.c"));
    let program = folder.join(name);
    let status = Command::new("cc")
        .args(["-O2", "-static"])
        .args(flags)
        .arg("-o")
        .args([&program, &source])
        .arg("-lm")
        .status()
        .expect("a C compiler named cc");
    assert!(status.success(), "cc could not compile {}", source.display());
    program
}

/// The program of `tests/guests/c/loops.c`.
#[must_use]
pub fn compile_loops(folder: &Path) -> PathBuf {
    compile(folder, "loops", &["-nostdlib", "-fno-stack-protector"])
}

/// `loops MODE COUNT`, at its snapshot.
#[must_use]
pub fn loops(system: &System, program: &Path, mode: &str, count: u64) -> Machine {
    let mut spec = ProcessSpec::new(program);
    spec.args = vec![mode.into(), count.to_string().into()];
    process(system, &spec, b"")
}

/// A process guest at its snapshot: before it reads its input.
#[must_use]
pub fn process(system: &System, spec: &ProcessSpec, input: &[u8]) -> Machine {
    let boot = Boot::process(system, spec, RAM_BYTES, input).expect("the program loads");
    at_snapshot(boot)
}

/// Runs `boot` to its snapshot.
#[must_use]
pub fn at_snapshot(boot: Boot) -> Machine {
    match boot.start(ProcessPoint::Input, crate::limit()).expect("the guest boots") {
        Started::AtSnapshot(machine) => *machine,
        Started::Ended(ended) => panic!("the guest ended before its snapshot: {ended:?}"),
    }
}

/// What a bare guest does in its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareLoop {
    /// OUT to a port that nothing is at.
    PortOut,
    /// A store to an address that is no memory.
    MmioStore,
    /// HLT.
    Halt,
}

/// Code at CPL 0 in 32-bit protected mode: snapshot, `count` times the exit, done.
#[must_use]
pub fn bare_loop(system: &System, what: BareLoop, count: u32) -> Machine {
    let body: &[u8] = match what {
        BareLoop::PortOut => &[0xe6, 0x10],
        // mov [0xf0000000], al
        BareLoop::MmioStore => &[0xa2, 0x00, 0x00, 0x00, 0xf0],
        BareLoop::Halt => &[0xf4],
    };
    let mut code = vec![0xe6, bare::PORT_SNAPSHOT as u8, 0xb9]; // out SNAPSHOT, al; mov ecx, count
    code.extend(count.to_le_bytes());
    code.extend(body);
    code.push(0x49); // dec ecx
    code.extend([0x75, (-(body.len() as i8) - 3) as u8]); // jnz body
    code.extend([0xe6, bare::PORT_DONE as u8, 0xf4]); // out DONE, al; hlt
    let spec = BareSpec::flat(Mode::Protected, code, Gpa(0x1000), 1 << 20);
    at_snapshot(Boot::bare(system, &spec).expect("the image loads"))
}
