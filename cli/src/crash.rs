//! The facts of a crash: what kind, where, by which way, as text and as JSON.
//!
//! Never runs a guest; it reads the one that has crashed.

use dejavm_corpus::CrashFacts;
use dejavm_engine::address::PAGE_SIZE;
use dejavm_engine::machine::{Machine, RunReport};
use dejavm_engine::outcome::{Access, Fault, MemoryAccess, Outcome};
use dejavm_engine::symbols::{
    CodeLocation, Line, SourceFrame, Symbolizer, UnwindRegisters, caller_frame, crash_frame,
    frame_key,
};
use kvm_bindings::kvm_regs;
use serde::Serialize;
use std::fmt::Write as _;

/// Frames of a backtrace; deeper ones are left out.
const FRAMES_MAX: usize = 64;
/// Instructions shown on either side of the faulting one.
const AROUND: usize = 5;
/// Bytes of code read on either side of the faulting instruction.
const CODE_BYTES: u64 = 96;

/// Reads a guest's memory at a virtual address; false where there is none.
pub type Read<'r> = dyn FnMut(u64, &mut [u8]) -> bool + 'r;

/// A crash in full.
#[derive(Debug, Serialize)]
pub struct Crash {
    /// The kind of fault, as in the name of a crash file.
    pub kind: String,
    /// One line for people.
    pub summary: String,
    /// The faulting instruction's address.
    pub rip: Hex,
    /// The address that was touched, where the CPU says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Hex>,
    /// The stack as crashes are compared by it.
    pub key: Vec<String>,
    /// The backtrace, innermost frame first.
    pub backtrace: Vec<FrameFacts>,
    /// The general registers.
    #[serde(serialize_with = "as_map")]
    pub registers: Vec<Register>,
    /// The faulting instruction and its neighbours.
    pub code: Vec<String>,
}

/// A frame of a backtrace.
#[derive(Debug, Serialize)]
pub struct FrameFacts {
    /// Where it executes.
    pub address: Hex,
    /// Its function and image.
    pub place: String,
    /// Its source lines, the innermost inlined function first.
    pub source: Vec<String>,
}

/// A number that people read in hexadecimal, and that JSON readers could not hold as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex(pub u64);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// A register and what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: Hex,
}

pub(crate) fn as_map<S: serde::Serializer>(
    registers: &[Register],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(registers.iter().map(|register| (register.name, register.value)))
}

/// The call stack of the guest of `machine`, which ended with `report`; none of a bare guest.
pub fn stack_in(
    machine: &mut Machine,
    symbolizer: &Symbolizer,
    report: &RunReport,
) -> Vec<CodeLocation> {
    if machine.process().is_none() {
        return Vec::new();
    }
    stack(symbolizer, report, &mut |at, out| machine.read_virtual(at, out))
}

/// The call stack of a guest stopped with `report`'s registers.
pub fn stack(
    symbolizer: &Symbolizer,
    report: &RunReport,
    read: &mut Read<'_>,
) -> Vec<CodeLocation> {
    let regs = &report.regs;
    // A fault in fetching an instruction leaves RIP at the fault in either case.
    let rip = match &report.outcome {
        Outcome::Crashed(fault) => fault.rip,
        _ => regs.rip,
    };
    let registers = UnwindRegisters {
        rip,
        rsp: regs.rsp,
        rbp: regs.rbp,
        rbx: regs.rbx,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
    };
    let frames = symbolizer.unwind(&registers, read, FRAMES_MAX);
    frames.iter().map(|frame| symbolizer.resolve_frame(frame)).collect()
}

/// The facts of a bare guest's fault. It has no symbols, and nothing moves its code about, so an
/// address is as good as a name.
pub fn bare_facts(fault: &Fault) -> CrashFacts {
    let code = fault.vector.map(|code| format!("-{code}")).unwrap_or_default();
    CrashFacts {
        kind: fault.signal.name() + &code,
        stack: vec![format!("{:#x}", fault.rip)],
        summary: fault.to_string(),
        rule: None,
    }
}

/// What sets apart the places where a guest was stopped, or stopped itself, without a fault; `what`
/// it did there, in words. A bare guest has no stack, but its `rip`.
pub fn stop_facts(kind: String, what: &str, stack: &[CodeLocation], rip: u64) -> CrashFacts {
    let own = stack.get(caller_frame(stack)..).unwrap_or_default();
    let mut keys: Vec<_> = own.iter().map(frame_key).collect();
    keys.dedup();
    let place = own.first().map_or_else(|| format!("{rip:#x}"), where_in_words);
    if keys.is_empty() {
        keys.push(format!("{rip:#x}"));
    }
    CrashFacts { kind, stack: keys, summary: format!("{what} in {place}"), rule: None }
}

/// The kind of a fault, fit for a file name.
pub fn kind(fault: &Fault) -> String {
    let signal = fault.signal.name();
    match fault.access {
        Some(MemoryAccess { address: None, .. }) => signal + "-general",
        Some(MemoryAccess { kind, .. }) => signal + "-" + access_name(kind),
        None => signal,
    }
}

const fn access_name(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
        Access::Execute => "execute",
    }
}

/// What sets a crash apart, and one line about it.
pub fn facts(fault: &Fault, stack: &[CodeLocation]) -> CrashFacts {
    // What only reports the failure of another (abort, a panic) must not fill the few frames
    // that are compared.
    let own = stack.get(crash_frame(stack)..).unwrap_or_default();
    let mut stack: Vec<_> = own.iter().map(frame_key).collect();
    // How deep a recursion was does not make another bug.
    stack.dedup();
    let place = own.first().map(where_in_words).unwrap_or_default();
    let touched = match fault.access {
        Some(MemoryAccess { address: Some(at), kind }) => format!(" ({kind} of {at:#x})"),
        Some(MemoryAccess { address: None, .. }) => {
            " (non-canonical address or privileged instruction)".to_owned()
        }
        None => String::new(),
    };
    CrashFacts {
        kind: kind(fault),
        stack,
        summary: format!("{} in {place}{touched}", fault.signal),
        rule: None,
    }
}

/// A place without its absolute address: function, else image and offset; and the source line.
fn where_in_words(place: &CodeLocation) -> String {
    let mut words = frame_key(place);
    let line = |frame: &SourceFrame| {
        let file = frame.file.as_deref()?;
        Some(format!(" at {file}:{}", frame.line.unwrap_or(0)))
    };
    // What Rust's own library was inlined from says less than the line that it was called from.
    let is_own =
        |frame: &&SourceFrame| !frame.file.as_deref().is_some_and(|f| f.starts_with("/rustc/"));
    let own = place.source.iter().filter(is_own).find_map(line);
    words.push_str(&own.or_else(|| place.source.iter().find_map(line)).unwrap_or_default());
    words
}

impl Crash {
    /// Everything about a run that ended in `fault`.
    pub fn new(
        symbolizer: &Symbolizer,
        fault: &Fault,
        report: &RunReport,
        read: &mut Read<'_>,
    ) -> Self {
        let stack = stack(symbolizer, report, read);
        let is_bare = !symbolizer.has_images();
        let facts = if is_bare { bare_facts(fault) } else { facts(fault, &stack) };
        let code = code_around(symbolizer, fault.rip, read);
        Self {
            kind: facts.kind,
            summary: facts.summary,
            rip: Hex(fault.rip),
            address: fault.access.and_then(|access| access.address).map(Hex),
            key: facts.stack,
            backtrace: stack.iter().map(frame).collect(),
            registers: registers(&report.regs),
            code: code.iter().map(Line::to_string).collect(),
        }
    }

    /// The crash for people.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n\nbacktrace:\n{}", self.summary, backtrace(&self.backtrace));
        // Writing to a string cannot fail, here and below.
        let _ = write!(text, "\nregisters:\n{}", register_table(&self.registers));
        if !self.code.is_empty() {
            let _ = write!(text, "\ncode:\n  {}\n", self.code.join("\n  "));
        }
        text
    }
}

/// A backtrace for people.
pub fn backtrace(frames: &[FrameFacts]) -> String {
    let mut text = String::new();
    for (number, frame) in frames.iter().enumerate() {
        let _ = writeln!(text, "  #{number:<2} {:#014x} {}", frame.address.0, frame.place);
        for line in &frame.source {
            let _ = writeln!(text, "        {line}");
        }
    }
    text
}

/// A place as a frame of a backtrace.
pub fn frame(place: &CodeLocation) -> FrameFacts {
    let bare = CodeLocation { source: Vec::new(), ..place.clone() };
    let words = bare.to_string();
    let place_words = words.split_once(' ').map_or("", |(_, words)| words);
    FrameFacts {
        address: Hex(place.address),
        place: if place_words.is_empty() { "?".to_owned() } else { place_words.to_owned() },
        source: place.source.iter().map(ToString::to_string).collect(),
    }
}

fn code_around(symbolizer: &Symbolizer, rip: u64, read: &mut Read<'_>) -> Vec<Line> {
    // The largest window that is readable: the fault may be close to the edge of the code.
    let in_page = rip % PAGE_SIZE as u64;
    for before in [CODE_BYTES, CODE_BYTES.min(in_page), 0] {
        for after in [CODE_BYTES, (PAGE_SIZE as u64 - in_page).min(CODE_BYTES), 1] {
            let Some(at) = rip.checked_sub(before) else { continue };
            let mut code = vec![0; (before + after) as usize];
            if read(at, &mut code) {
                return symbolizer.disassemble(&code, at, rip, AROUND);
            }
        }
    }
    Vec::new()
}

/// Registers for people.
pub fn register_table(registers: &[Register]) -> String {
    let mut text = String::new();
    for row in registers.chunks(3) {
        let cells =
            row.iter().map(|Register { name, value }| format!("{name:>6} {:016x}", value.0));
        let _ = writeln!(text, " {}", cells.collect::<Vec<_>>().join(" "));
    }
    text
}

/// The general registers by name.
pub fn registers(r: &kvm_regs) -> Vec<Register> {
    let all = [
        ("rax", r.rax),
        ("rbx", r.rbx),
        ("rcx", r.rcx),
        ("rdx", r.rdx),
        ("rsi", r.rsi),
        ("rdi", r.rdi),
        ("rbp", r.rbp),
        ("rsp", r.rsp),
        ("r8", r.r8),
        ("r9", r.r9),
        ("r10", r.r10),
        ("r11", r.r11),
        ("r12", r.r12),
        ("r13", r.r13),
        ("r14", r.r14),
        ("r15", r.r15),
        ("rip", r.rip),
        ("rflags", r.rflags),
    ];
    all.map(|(name, value)| Register { name, value: Hex(value) }).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dejavm_engine::outcome::Signal;

    fn fault(access: Option<MemoryAccess>) -> Fault {
        Fault { signal: Signal::SEGV, rip: 0, access, vector: None, error_code: None }
    }

    #[test]
    fn kinds_tell_what_was_tried() {
        let access = |address, kind| kind_of(Some(MemoryAccess { address, kind }));
        fn kind_of(access: Option<MemoryAccess>) -> String {
            kind(&fault(access))
        }
        assert_eq!(access(Some(0), Access::Write), "SIGSEGV-write");
        assert_eq!(access(Some(0), Access::Execute), "SIGSEGV-execute");
        assert_eq!(access(None, Access::Read), "SIGSEGV-general");
        assert_eq!(kind_of(None), "SIGSEGV");
    }

    #[test]
    fn a_crash_at_an_unknown_place_has_facts_all_the_same() {
        let facts = facts(&fault(None), &[CodeLocation::unknown(0x10)]);
        assert_eq!(
            (facts.stack, facts.summary),
            (vec!["unmapped".into()], "SIGSEGV in unmapped".into())
        );
    }
}
