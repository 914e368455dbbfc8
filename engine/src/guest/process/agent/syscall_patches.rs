//! SYSCALL instructions that jump into the shim instead.
//!
//! Where SYSCALL at CPL 3 traps to the host's hypervisor it costs about a microsecond even if
//! nothing exits, several times what the shim takes. So the program's own SYSCALL instructions,
//! as far as runs were seen to use them, are replaced by jumps while batches run: the instruction
//! and those behind it, five bytes at least, move to a page within reach, from where the program
//! goes on behind them.
//!
//! An instruction is left alone unless it is certain that nothing else arrives among the bytes
//! that a jump takes: no basic block starts there, no breakpoint is there, and what moves is
//! plain code that does not care where it is.
//!
//! Code is what batches show the program, where that is not the snapshot's (`guest::process::detours`);
//! what moved there already is left alone.
//!
//! A program that reads its own code sees the jump, as it sees a breakpoint.

use super::code::Entries;
use super::layout::{STATE, TRAMPOLINES, state};
use crate::address::{Gpa, Gva, PAGE_SIZE};
use crate::coverage::blocks;
use crate::linux::abi::syscall::SYSCALL_BYTES;
use crate::linux::process::Process;
use crate::memory::{GuestMemory, OutOfRam};
use crate::paging::{ADDRESS_MASK, PRESENT, Tables, TablesError, leaf_entry, may_write};
use iced_x86::code_asm::*;
use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, IcedError, Instruction};
use std::ops::Range;

const PAGE: u64 = PAGE_SIZE as u64;
/// SYSCALL (Intel SDM vol. 2).
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// JMP rel32.
const JUMP_BYTES: usize = 5;
/// What may move: the instructions that the jump overlaps, of at most 15 bytes each.
const WINDOW: usize = JUMP_BYTES - 1 + 15;
/// What stands where nothing arrives: INT3.
const FILLER: u8 = 0xcc;
/// How far from an instruction its page may be: a jump reaches 2 GiB.
const NEAR: Range<u64> = 0x2000_0000..0x7000_0000;
/// Instructions that are replaced at most.
const PATCHES_MAX: usize = 32;
/// Room for one of them in its page.
const STRIDE: u64 = 128;

/// One replaced instruction.
#[derive(Debug)]
struct Patch {
    /// Where the program goes on after the call, and where it goes on now.
    next: u64,
    resume: u64,
    /// Physical address, original and new byte of each byte.
    bytes: Vec<(Gpa, u8, u8)>,
}

/// A page of moved code.
#[derive(Debug)]
struct Trampolines {
    va: u64,
    frame: Gpa,
    used: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct SyscallPatches {
    /// Addresses that runs used and that were not looked at yet.
    seen: Vec<u64>,
    /// Addresses that were looked at.
    tried: Vec<u64>,
    patches: Vec<Patch>,
    pages: Vec<Trampolines>,
    installed: bool,
    /// Block starts of the images that patches lie in.
    starts: Vec<(Range<u64>, Vec<u64>)>,
}

/// What a patch must not touch, and what it is tried by.
pub(super) struct PatchContext<'a> {
    pub(super) process: &'a Process,
    pub(super) entries: Entries,
    /// Whether the machine has a breakpoint of its own at an address.
    pub(super) is_taken: &'a dyn Fn(u64) -> bool,
    /// What the machine has in a range that the process does not know of.
    pub(super) extent_over: &'a dyn Fn(Range<u64>) -> Option<Range<u64>>,
}

impl PatchContext<'_> {
    /// A page that is free in `range`.
    fn gap_in(&self, range: Range<u64>) -> Option<u64> {
        let mut high = range.end;
        loop {
            let at = self.process.gap_in(range.start..high, PAGE)?;
            // Below what is not free after all.
            match (self.extent_over)(at..at + PAGE) {
                Some(extent) => high = extent.start,
                None => return Some(at),
            }
        }
    }
}

impl SyscallPatches {
    /// Notes that a run made a system call by the instruction at `at`.
    pub(super) fn note(&mut self, at: u64) {
        let known = self.tried.len() + self.seen.len() >= PATCHES_MAX
            || self.tried.contains(&at)
            || self.seen.contains(&at)
            || self.has_moved(at);
        if !known {
            self.seen.push(at);
        }
    }

    /// Whether there is anything to look at.
    pub(super) fn has_news(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Prepares the instructions that were noted, each at most once.
    pub(super) fn try_patch(
        &mut self,
        memory: &mut GuestMemory,
        tables: &mut Tables,
        around: &PatchContext<'_>,
    ) -> Result<(), OutOfRam> {
        while let Some(at) = self.seen.pop() {
            self.tried.push(at);
            // None of the reasons against it is an error: the instruction simply stays.
            if let Some(moved) = self.movable(memory, tables, around, at)
                && let Some(patch) = self.emit_trampoline(memory, tables, around, at, &moved)?
            {
                if self.installed {
                    patch.write(memory, true)?;
                }
                self.patches.push(patch);
            }
        }
        Ok(())
    }

    /// The instructions behind the SYSCALL at `at` that must move with it.
    fn movable(
        &mut self,
        memory: &GuestMemory,
        tables: &Tables,
        around: &PatchContext<'_>,
        at: u64,
    ) -> Option<Vec<Instruction>> {
        let mut code = Vec::with_capacity(WINDOW);
        for address in at..at.checked_add(WINDOW as u64)? {
            match code_byte(memory, tables, address) {
                Some((_, byte)) => code.push(byte),
                None => break,
            }
        }
        if !code.starts_with(&SYSCALL) {
            return None;
        }
        let from = at + SYSCALL.len() as u64;
        let mut moved = Vec::new();
        let mut taken = SYSCALL.len();
        for instruction in
            Decoder::with_ip(64, code.get(SYSCALL.len()..)?, from, DecoderOptions::NONE).iter()
        {
            if taken >= JUMP_BYTES {
                break;
            }
            let is_plain = instruction.flow_control() == FlowControl::Next
                && !instruction.is_invalid()
                && !instruction.is_ip_rel_memory_operand();
            if !is_plain {
                return None;
            }
            taken += instruction.len();
            moved.push(instruction);
        }
        let range = at..at + taken as u64;
        let is_alone = taken >= JUMP_BYTES
            && !range.clone().any(|address| (around.is_taken)(address))
            && !self.has_start(around.process, range)?;
        is_alone.then_some(moved)
    }

    /// Whether a block starts in `range`; `None` when nobody knows.
    fn has_start(&mut self, process: &Process, range: Range<u64>) -> Option<bool> {
        let known = |starts: &[(Range<u64>, Vec<u64>)]| {
            starts.iter().position(|(image, _)| image.contains(&range.start))
        };
        let index = match known(&self.starts) {
            Some(index) => index,
            None => {
                self.starts.push(starts_of_image_at(process, range.start)?);
                self.starts.len() - 1
            }
        };
        let (_, starts) = self.starts.get(index)?;
        let first = starts.partition_point(|start| *start < range.start);
        Some(starts.get(first).is_some_and(|start| *start < range.end))
    }

    /// Writes the code that takes the place of the SYSCALL at `at`.
    fn emit_trampoline(
        &mut self,
        memory: &mut GuestMemory,
        tables: &mut Tables,
        around: &PatchContext<'_>,
        at: u64,
        moved: &[Instruction],
    ) -> Result<Option<Patch>, OutOfRam> {
        let Some(page) = self.page_near(memory, tables, around, at) else {
            return Ok(None);
        };
        let offset = page.used;
        let (va, frame) = (page.va + offset, page.frame.wrapping_add(offset));
        let Ok((code, resume)) = trampoline(at, moved, around.entries.shim, va) else {
            return Ok(None);
        };
        if code.len() as u64 > STRIDE {
            return Ok(None);
        }
        page.used += STRIDE;
        memory.write_unmarked(frame, &code)?;
        Ok(Patch::new(memory, tables, at, moved, va).map(|patch| Patch { resume, ..patch }))
    }

    /// A page with room that a jump at `at` reaches.
    fn page_near(
        &mut self,
        memory: &mut GuestMemory,
        tables: &mut Tables,
        around: &PatchContext<'_>,
        at: u64,
    ) -> Option<&mut Trampolines> {
        let fits =
            |page: &Trampolines| page.va.abs_diff(at) < NEAR.end && page.used + STRIDE <= PAGE;
        let index = match self.pages.iter().position(fits) {
            Some(index) => index,
            None => {
                let page = new_page(memory, tables, around, at, self.pages.len() as u64)?;
                self.pages.push(page);
                self.pages.len() - 1
            }
        };
        self.pages.get_mut(index)
    }

    /// Replaces the instructions, or puts them back.
    pub(super) fn install(&mut self, memory: &mut GuestMemory, on: bool) -> Result<(), OutOfRam> {
        if self.installed == on {
            return Ok(());
        }
        self.installed = on;
        self.patches.iter().try_for_each(|patch| patch.write(memory, on))
    }

    /// Forgets all of them, but for the pages; they must not be installed.
    pub(super) fn forget(&mut self) {
        self.seen.append(&mut self.tried);
        self.patches.clear();
        self.pages.iter_mut().for_each(|page| page.used = 0);
    }

    /// Forgets the pages as well: something else may have taken their place.
    pub(super) fn forget_pages(&mut self) {
        self.forget();
        self.pages.clear();
    }

    /// Whether the program has mapped something where moved code is.
    pub(super) fn collide(&self, process: &Process) -> bool {
        self.pages.iter().any(|page| !process.is_unmapped(page.va, PAGE))
    }

    /// Whether the program still runs the code that was replaced, `tables` being the present ones:
    /// where something else is mapped now, a system call must not go on behind the old
    /// instruction.
    pub(super) fn are_in_place(&self, memory: &GuestMemory, tables: &Tables) -> bool {
        self.patches.iter().all(|patch| {
            let at = patch.next.wrapping_sub(SYSCALL.len() as u64);
            let place = code_byte(memory, tables, at).map(|(place, _)| place);
            place == patch.bytes.first().map(|(place, ..)| *place)
        })
    }

    /// Whether `at` is in a page of moved code.
    pub(super) fn has_moved(&self, at: u64) -> bool {
        self.pages.iter().any(|page| (page.va..page.va + PAGE).contains(&at))
    }

    /// Where the program goes on after a system call that returns to `next`.
    pub(super) fn resume_of(&self, next: u64) -> u64 {
        let patch = self.patches.iter().find(|patch| self.installed && patch.next == next);
        patch.map_or(next, |patch| patch.resume)
    }

    /// Where the program goes on that would go on at `rip` if nothing were replaced: a thread from
    /// the snapshot, or the code behind one of its handlers. `None` in the middle of what is
    /// replaced.
    pub(super) fn in_place_of(&self, rip: u64) -> Option<u64> {
        let covers = |patch: &&Patch| {
            let start = patch.next.wrapping_sub(SYSCALL_BYTES);
            self.installed && rip > start && rip < start.wrapping_add(patch.bytes.len() as u64)
        };
        match self.patches.iter().find(covers) {
            None => Some(rip),
            Some(patch) => (patch.next == rip).then_some(patch.resume),
        }
    }
}

impl Patch {
    fn new(
        memory: &GuestMemory,
        tables: &Tables,
        at: u64,
        moved: &[Instruction],
        to: u64,
    ) -> Option<Self> {
        let length = SYSCALL.len() + moved.iter().map(Instruction::len).sum::<usize>();
        let distance = to.wrapping_sub(at + JUMP_BYTES as u64) as i64;
        let mut jump = vec![0xe9];
        jump.extend_from_slice(&i32::try_from(distance).ok()?.to_le_bytes());
        jump.resize(length, FILLER);
        let bytes = (at..).zip(jump).map(|(address, new)| {
            let (place, original) = code_byte(memory, tables, address)?;
            Some((place, original, new))
        });
        let next = at + SYSCALL.len() as u64;
        Some(Self { next, resume: next, bytes: bytes.collect::<Option<_>>()? })
    }

    fn write(&self, memory: &mut GuestMemory, on: bool) -> Result<(), OutOfRam> {
        self.bytes.iter().try_for_each(|&(at, original, new)| {
            memory.write_unmarked(at, &[if on { new } else { original }])
        })
    }
}

/// A byte of code that the program cannot write, and where it is.
fn code_byte(memory: &GuestMemory, tables: &Tables, at: u64) -> Option<(Gpa, u8)> {
    let (_, entry) = tables.leaf(memory, Gva(at))?;
    if entry & PRESENT == 0 || may_write(entry) {
        return None;
    }
    let place = Gpa(entry & ADDRESS_MASK).wrapping_add(Gva(at).page_offset() as u64);
    let mut byte = [0];
    memory.read(place, &mut byte).ok()?;
    Some((place, byte[0]))
}

/// The block starts of the image that `at` lies in, with the addresses that it has code at.
fn starts_of_image_at(process: &Process, at: u64) -> Option<(Range<u64>, Vec<u64>)> {
    let vma = process.executable_area(at)?;
    let images = process.images();
    // The image that begins last before the address.
    let image = images.iter().filter(|image| image.base <= at).max_by_key(|image| image.base)?;
    let found = blocks::find(&image.bytes).ok()?;
    let starts = found.starts.iter().map(|start| start.wrapping_add(image.base)).collect();
    Some((vma, starts))
}

/// Maps one more page for moved code where the program has nothing.
fn new_page(
    memory: &mut GuestMemory,
    tables: &mut Tables,
    around: &PatchContext<'_>,
    at: u64,
    number: u64,
) -> Option<Trampolines> {
    if number * PAGE >= TRAMPOLINES.bytes {
        return None;
    }
    // Far from what the program has and will map next, and within reach.
    let page = Gva(at).page_floor().0;
    let below = page.saturating_sub(NEAR.end)..page.saturating_sub(NEAR.start);
    let above = page.checked_add(NEAR.start)?..page.checked_add(NEAR.end)?;
    let va = around.gap_in(below).or_else(|| around.gap_in(above))?;
    let frame = TRAMPOLINES.gpa(number * PAGE);
    let mapped = map(memory, tables, va, frame);
    mapped.is_ok().then_some(Trampolines { va, frame, used: 0 })
}

fn map(
    memory: &mut GuestMemory,
    tables: &mut Tables,
    va: u64,
    frame: Gpa,
) -> Result<(), TablesError> {
    tables.set_leaf(memory, Gva(va), leaf_entry(frame, false, true, true))?;
    tables.mark();
    Ok(())
}

/// The code at `to` that serves the SYSCALL at `at` by the shim, and goes on behind `moved`; with
/// it, where the shim returns to.
fn trampoline(
    at: u64,
    moved: &[Instruction],
    shim: u64,
    to: u64,
) -> Result<(Vec<u8>, u64), IcedError> {
    // AC, DF and TF: SYSCALL clears them for the shim.
    const UNUSUAL: u32 = 1 << 18 | 1 << 10 | 1 << 8;
    let slot = |offset: u64| r11 + (offset as i64 - state::RET as i64) as i32;
    let next = at + SYSCALL.len() as u64;
    let mut a = CodeAssembler::new(64)?;
    let (mut slow, mut resume) = (a.create_label(), a.create_label());
    // What SYSCALL does: RIP to RCX, RFLAGS to where the shim looks for it.
    a.mov(rcx, next)?;
    a.mov(r11, STATE.va(state::RET))?;
    a.mov(qword_ptr(r11), rcx)?;
    a.mov(qword_ptr(slot(state::RSP)), rsp)?;
    a.lea(rsp, qword_ptr(slot(state::FLAGS + 8)))?;
    a.pushfq()?;
    a.mov(rsp, qword_ptr(slot(state::RSP)))?;
    a.test(dword_ptr(slot(state::FLAGS)), UNUSUAL)?;
    a.jne(slow)?;
    a.lea(rcx, ptr(resume))?;
    a.mov(qword_ptr(slot(state::RESUME)), rcx)?;
    a.mov(rcx, shim)?;
    a.jmp(rcx)?;
    a.set_label(&mut slow)?;
    a.lea(rsp, qword_ptr(slot(state::FLAGS)))?;
    a.popfq()?;
    a.mov(rsp, qword_ptr(slot(state::RSP)))?;
    a.syscall()?;
    a.set_label(&mut resume)?;
    for instruction in moved {
        a.add_instruction(*instruction)?;
    }
    let back = at + (SYSCALL.len() + moved.iter().map(Instruction::len).sum::<usize>()) as u64;
    a.add_instruction(Instruction::with_branch(Code::Jmp_rel32_64, back)?)?;
    let options = iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
    let assembled = a.assemble_options(to, options)?;
    let resume = assembled.label_ip(&resume)?;
    Ok((assembled.inner.code_buffer, resume))
}

impl Process {
    /// Whether nothing is mapped in `bytes` bytes at `at`.
    fn is_unmapped(&self, at: u64, bytes: u64) -> bool {
        self.space.is_free(at, at.saturating_add(bytes))
    }

    /// Where `bytes` bytes are free in `range`.
    fn gap_in(&self, range: Range<u64>, bytes: u64) -> Option<u64> {
        let low = range.start.max(crate::linux::mm::bounds::USER_START);
        self.space.find_gap(bytes, low, range.end)
    }

    /// The addresses of the mapping around `at`, if its code may run.
    fn executable_area(&self, at: u64) -> Option<Range<u64>> {
        let vma = self.space.vma_at(at)?;
        vma.prot.contains(crate::linux::mm::user_memory::Prot::EXEC).then_some(vma.start..vma.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 0x7fff_f7e9_1234;
    const TO: u64 = 0x7fff_a000_0000;

    #[test]
    fn moved_code_goes_on_behind_what_moved() {
        let compare = [0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff];
        let moved: Vec<_> =
            Decoder::with_ip(64, &compare, AT + 2, DecoderOptions::NONE).iter().collect();
        let (code, resume) = trampoline(AT, &moved, 0x7f00_4000_1080, TO).unwrap();
        assert!(code.len() as u64 <= STRIDE, "{}", code.len());
        let decoded: Vec<_> =
            Decoder::with_ip(64, &code, TO, DecoderOptions::NONE).iter().collect();
        let last = decoded.last().unwrap();
        assert_eq!(last.near_branch_target(), AT + 8);
        assert_eq!(decoded[decoded.len() - 2].code(), moved[0].code());
        assert_eq!(decoded[decoded.len() - 2].ip(), resume);
        assert_eq!(decoded[decoded.len() - 3].code(), Code::Syscall, "for unusual flags");
    }
}
