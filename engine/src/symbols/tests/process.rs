//! A crashed process as gdb sees it.

use crate::symbols::{Frame, Image, Symbolizer, UnwindRegisters};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Bytes of stack saved.
const STACK_BYTES: u64 = 16 << 10;

/// Print the frames that are on the stack: not inlined ones, nor the tail calls that gdb infers.
const WALK: &str = "python
real = (gdb.NORMAL_FRAME, gdb.SIGTRAMP_FRAME)
f = gdb.newest_frame()
while f:
    if f.type() in real: print('frame', hex(f.pc()))
    f = f.older()
end";

/// Save the stack as far as it goes, at most `limit` bytes.
const SAVE: &str = "
sp, saved = int(gdb.parse_and_eval('(unsigned long)$rsp')), b''
try:
    while len(saved) < limit:
        saved += bytes(gdb.selected_inferior().read_memory(sp + len(saved), 8))
except gdb.MemoryError:
    pass
open(path, 'wb').write(saved)
end";

pub(super) struct Process {
    pub(super) registers: UnwindRegisters,
    /// The addresses of gdb's frames.
    pub(super) backtrace: Vec<u64>,
    images: Vec<Image>,
    stack_at: u64,
    stack: Vec<u8>,
}

impl Process {
    /// Run a program under gdb until it crashes; `None`, with a note, without gdb.
    pub(super) fn crashed(program: &Path, arguments: &[&str]) -> Option<Self> {
        let dump = program.with_extension("stack");
        let save = format!("python path, limit = '{}', {STACK_BYTES}\n{SAVE}", dump.display());
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-ex", "set debuginfod enabled off"]);
        gdb.args(["-ex", "handle SIGUSR1 nostop noprint pass", "-ex", "run"]);
        gdb.args(["-ex", &save, "-ex", "info proc mappings"]);
        gdb.args(["-ex", "info registers rip rsp rbp rbx r12 r13 r14 r15"]);
        gdb.args(["-ex", WALK]);
        let output = gdb.arg("--args").arg(program).args(arguments).output();
        let Ok(output) = output else {
            eprintln!("skipped: gdb is not on this machine");
            return None;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let Ok(stack) = std::fs::read(&dump) else {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            eprintln!("skipped: gdb cannot run a process here: {text} {errors}");
            return None;
        };
        let registers = registers(&text);
        let backtrace = backtrace(&text);
        Some(Self {
            registers,
            backtrace,
            images: images(&text, program),
            stack_at: registers.rsp,
            stack,
        })
    }

    pub(super) fn symbolizer(&self) -> Symbolizer {
        Symbolizer::new(self.images.clone())
    }

    pub(super) fn unwind(&self, symbolizer: &Symbolizer) -> Vec<Frame> {
        let mut read = |at: u64, buffer: &mut [u8]| {
            let start =
                at.checked_sub(self.stack_at).and_then(|offset| usize::try_from(offset).ok());
            let bytes = start.and_then(|start| self.stack.get(start..start + buffer.len()));
            bytes.map(|bytes| buffer.copy_from_slice(bytes)).is_some()
        };
        symbolizer.unwind(&self.registers, &mut read, 64)
    }
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn registers(text: &str) -> UnwindRegisters {
    let value = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        hex(line.unwrap().split_whitespace().nth(1).unwrap()).unwrap()
    };
    UnwindRegisters {
        rip: value("rip"),
        rsp: value("rsp"),
        rbp: value("rbp"),
        rbx: value("rbx"),
        r12: value("r12"),
        r13: value("r13"),
        r14: value("r14"),
        r15: value("r15"),
    }
}

fn backtrace(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| hex(line.strip_prefix("frame ")?)).collect()
}

/// The mapped ELF files, the program first; the bias is the lowest mapping less the first
/// segment's page.
fn images(text: &str, program: &Path) -> Vec<Image> {
    let mut lowest: BTreeMap<String, u64> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (Some(start), Some(path)) = (fields.first().and_then(|f| hex(f)), fields.last()) else {
            continue;
        };
        if path.starts_with('/') {
            let known = lowest.entry((*path).to_owned()).or_insert(start);
            *known = start.min(*known);
        }
    }
    let image = |(name, start): (String, u64)| {
        let bytes = std::fs::read(&name).ok()?;
        let first = crate::symbols::elf::Layout::parse(&bytes).ok()?.segments.first()?.address;
        Some(Image { name, bias: start - (first & !0xfff), bytes: bytes.into() })
    };
    let mut images: Vec<_> = lowest.into_iter().filter_map(image).collect();
    images.sort_by_key(|image| image.name != program.to_string_lossy());
    images
}
