//! Which calls of an image are of functions that compare strings: by name, where it defines one, or
//! where the dynamic linker is to find it. Never looks at a call's arguments.

use super::functions::{StringFunction, named};
use crate::coverage::blocks::Code;
use crate::symbols::elf::Layout;
use std::collections::HashMap;

/// JMP [RIP + rel32], CALL [RIP + rel32], and their lengths.
const JUMP_BY: [u8; 2] = [0xff, 0x25];
const CALL_BY: [u8; 2] = [0xff, 0x15];
const BY_BYTES: u64 = 6;
/// CALL rel32.
const CALL: u8 = 0xe8;
const CALL_BYTES: u64 = 5;
/// ENDBR64, with which an entry of the PLT may begin, and BND.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const BND: u8 = 0xf2;

/// Functions that compare strings, by link-time addresses.
#[derive(Debug, Default)]
pub(super) struct Callees {
    /// Where they are, or the entry of the PLT that leads there.
    at: HashMap<u64, StringFunction>,
    /// The words that the dynamic linker writes their addresses to.
    by: HashMap<u64, StringFunction>,
}

impl Callees {
    pub(super) fn find(elf: &[u8], code: &Code) -> Self {
        let Ok(layout) = Layout::parse(elf) else { return Self::default() };
        let function = |name| elf.get(name).and_then(named).map(|(_, function)| function);
        let mut callees = Self::default();
        for symbol in layout.functions(elf) {
            callees.at.extend(function(symbol.name).map(|found| (symbol.address, found)));
        }
        for (slot, name) in layout.imported_slots(elf) {
            callees.by.extend(function(name).map(|found| (slot, found)));
        }
        for at in code.instructions() {
            callees.add_entry(code.bytes_from(elf, at), at);
        }
        callees
    }

    /// Adds the entry of the PLT at `at`, with which `bytes` begin, if it is one's.
    fn add_entry(&mut self, bytes: &[u8], at: u64) {
        let (bytes, start) = match bytes.strip_prefix(&ENDBR64) {
            Some(rest) => (rest, at.wrapping_add(ENDBR64.len() as u64)),
            None => (bytes, at),
        };
        let (bytes, start) = match bytes.strip_prefix(&[BND]) {
            Some(rest) => (rest, start.wrapping_add(1)),
            None => (bytes, start),
        };
        let Some(distance) = bytes.strip_prefix(&JUMP_BY) else { return };
        let slot = target(distance, start.wrapping_add(BY_BYTES));
        self.at.extend(slot.and_then(|slot| self.by.get(&slot)).map(|function| (at, *function)));
    }

    /// What the instruction at `at`, with which `bytes` begin, calls.
    pub(super) fn called_by(&self, bytes: &[u8], at: u64) -> Option<StringFunction> {
        if let Some(distance) = bytes.strip_prefix(&[CALL]) {
            return self.at.get(&target(distance, at.wrapping_add(CALL_BYTES))?).copied();
        }
        let distance = bytes.strip_prefix(&CALL_BY)?;
        self.by.get(&target(distance, at.wrapping_add(BY_BYTES))?).copied()
    }
}

/// What is so far from the end of an instruction.
fn target(distance: &[u8], end: u64) -> Option<u64> {
    let distance = i32::from_le_bytes(*distance.first_chunk()?);
    Some(end.wrapping_add_signed(i64::from(distance)))
}
