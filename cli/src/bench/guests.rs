//! From code bytes to machines at their snapshots. Never measures.

use super::code;
use crate::error::CliError;
use dejavm_engine::address::Gpa;
use dejavm_engine::guest::bare::{BareSpec, Mode};
use dejavm_engine::guest::process::ProcessSpec;
use dejavm_engine::kvm::System;
use dejavm_engine::machine::{Boot, Limit, Machine, ProcessPoint, Started};
use std::io::Write as _;
use std::time::Duration;

/// Memory of a guest whose row does not say, in bytes.
pub const RAM_BYTES: u64 = 64 << 20;

/// A size of a guest's memory.
#[derive(Clone, Copy, Debug)]
pub struct RamSize {
    /// In a row's words.
    pub words: &'static str,
    /// In bytes.
    pub bytes: u64,
}

impl RamSize {
    /// In a row's name.
    pub fn name(self) -> String {
        self.words.to_lowercase()
    }
}

/// The sizes by which rows differ.
pub const RAM_SIZES: [RamSize; 3] = [
    RamSize { words: "64M", bytes: 64 << 20 },
    RamSize { words: "1G", bytes: 1 << 30 },
    RamSize { words: "4G", bytes: 4 << 30 },
];
/// Memory of a bare guest, in bytes.
const BARE_RAM_BYTES: u64 = 4 << 20;
/// Where a bare guest's code starts: above long mode's tables.
const BARE_CODE: Gpa = Gpa(0x8000);

/// No guest here runs nearly as long.
pub fn limit() -> Limit {
    Limit::time(Duration::from_secs(10))
}

/// `code` at CPL 0, at its snapshot.
pub fn bare(system: &System, code: Vec<u8>) -> Result<Machine, CliError> {
    bare_of(system, &BareSpec::flat(Mode::Protected, code, BARE_CODE, BARE_RAM_BYTES))
}

/// As [`bare`], in long mode.
pub fn bare_long(system: &System, code: Vec<u8>) -> Result<Machine, CliError> {
    bare_of(system, &BareSpec::flat(Mode::Long, code, BARE_CODE, BARE_RAM_BYTES))
}

/// As [`bare`], with interrupt controllers in the kernel.
pub fn bare_with_irqchip(system: &System, code: Vec<u8>) -> Result<Machine, CliError> {
    let spec = BareSpec::flat(Mode::Protected, code, BARE_CODE, BARE_RAM_BYTES);
    bare_of(system, &BareSpec { irqchip: true, ..spec })
}

fn bare_of(system: &System, spec: &BareSpec) -> Result<Machine, CliError> {
    at_snapshot(Boot::bare(system, spec).map_err(CliError::machine("boot a bare guest"))?)
}

/// [`code::program`] in `ram_bytes` of memory, at its snapshot.
pub fn process(
    system: &System,
    before: &[u8],
    body: &[u8],
    ram_bytes: u64,
) -> Result<Machine, CliError> {
    // A loader takes a file; it is gone as soon as it has been read.
    let mut file = tempfile::NamedTempFile::new().map_err(CliError::Temporary)?;
    file.write_all(&code::program(before, body)).map_err(CliError::Temporary)?;
    load(system, &ProcessSpec::new(file.path()), ram_bytes)
}

/// A program in `ram_bytes` of memory, at its snapshot.
pub fn load(system: &System, spec: &ProcessSpec, ram_bytes: u64) -> Result<Machine, CliError> {
    let boot = Boot::process(system, spec, ram_bytes, b"");
    at_snapshot(boot.map_err(CliError::machine("boot a program"))?)
}

/// Whether a machine that was measured is as its snapshot was: the figures of one that is not put
/// back would be worth nothing.
pub fn check(machine: &mut Machine) -> Result<(), CliError> {
    let differences = machine.verify().map_err(CliError::machine("verify a guest"))?;
    match differences.first() {
        None => Ok(()),
        Some(first) => Err(CliError::BenchGuest { did: format!("was not put back: {first:?}") }),
    }
}

fn at_snapshot(boot: Boot) -> Result<Machine, CliError> {
    let doing = CliError::machine("run a guest to its snapshot");
    match boot.start(ProcessPoint::Input, limit()).map_err(doing)? {
        Started::AtSnapshot(machine) => Ok(*machine),
        Started::Ended(ended) => {
            Err(CliError::BenchGuest { did: ended.report.outcome.to_string() })
        }
    }
}
