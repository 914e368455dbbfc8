//! The stub by which the guest rewrites page-table entries that lost a permission (see
//! `paging::tables` for why the guest must).
//!
//! Never decides which entries: it writes once more what they hold already.

use crate::address::Gpa;
use crate::arch::control::RFLAGS_RESERVED;
use crate::guest::process::layout::{
    KERNEL_CS, KERNEL_SS, REWRITES, REWRITES_BYTES, STACK_TOP, STUBS, USER_CS, USER_SS, engine_va,
};
use crate::linux::abi::registers::user_flags;
use crate::memory::{GuestMemory, OutOfRam};
use kvm_bindings::kvm_regs;

/// Port by which the stub says that it has finished a part.
pub(crate) const PORT_REWRITTEN: u16 = 0xe2;

/// Offsets of the two stubs in the page of stubs.
const REWRITE: usize = 0x400;
const REWRITTEN: usize = 0x480;

/// Entered at CPL 0 with RSI at the records and, on the stack, RDI, RSI, RCX, RAX and an IRETQ
/// frame. A record is a destination, a count and values. Writes every record's values, reloads
/// CR3 so that no translation stays, and returns.
const CODE: [u8; 34] = [
    0x48, 0x8b, 0x3e, // next: mov rdi, [rsi]
    0x48, 0x85, 0xff, //       test rdi, rdi
    0x74, 0x0d, //             jz done
    0x48, 0x8b, 0x4e, 0x08, // mov rcx, [rsi+8]
    0x48, 0x83, 0xc6, 0x10, // add rsi, 16
    0xf3, 0x48, 0xa5, //       rep movsq
    0xeb, 0xeb, //             jmp next
    0x0f, 0x20, 0xd8, // done: mov rax, cr3
    0x0f, 0x22, 0xd8, //       mov cr3, rax
    0x5f, //                   pop rdi
    0x5e, //                   pop rsi
    0x59, //                   pop rcx
    0x58, //                   pop rax
    0x48, 0xcf, //             iretq
    0xf4, //                   hlt
];

/// Puts the stubs into the page of stubs.
pub(super) fn install(stubs: &mut [u8]) {
    stubs[REWRITE..REWRITE + CODE.len()].copy_from_slice(&CODE);
    stubs[REWRITTEN..REWRITTEN + 3].copy_from_slice(&[0xe6, PORT_REWRITTEN as u8, 0xf4]);
}

/// Writes words one after another into guest memory; no buffer, because runs do this.
struct Cursor<'a> {
    memory: &'a mut GuestMemory,
    at: Gpa,
}

impl Cursor<'_> {
    fn push(&mut self, word: u64) -> Result<(), OutOfRam> {
        self.memory.write(self.at, &word.to_le_bytes())?;
        self.at = self.at.wrapping_add(8);
        Ok(())
    }
}

/// Writes as many of `stale`'s entries as fit, and the stack for the way back: to the program with
/// its registers `program`, or to the host when entries are left. Returns the registers to enter
/// the stub with and how many entries were taken.
///
/// # Errors
/// The engine's slot is missing, which is a mistake in the caller.
pub(crate) fn prepare(
    memory: &mut GuestMemory,
    stale: &[Gpa],
    program: &kvm_regs,
) -> Result<(kvm_regs, usize), OutOfRam> {
    // Room for one more record's head and for the end.
    let last = REWRITES.0 + REWRITES_BYTES - 5 * 8;
    let mut records = Cursor { memory, at: REWRITES };
    let mut taken = 0;
    while taken < stale.len() && records.at.0 < last {
        let count = neighbours(&stale[taken..]).min(((last - records.at.0) / 8) as usize);
        records.push(engine_va(stale[taken]).0)?;
        records.push(count as u64)?;
        for &entry in &stale[taken..taken + count] {
            let value = records.memory.read_u64(entry)?;
            records.push(value)?;
        }
        taken += count;
    }
    records.push(0)?;
    let regs = enter(records.memory, program, taken < stale.len())?;
    Ok((regs, taken))
}

/// How many entries from the first on follow each other in one table.
fn neighbours(stale: &[Gpa]) -> usize {
    let Some(first) = stale.first() else { return 0 };
    let follows = |&(index, at): &(usize, &Gpa)| {
        at.0 == first.0 + index as u64 * 8 && at.page_floor() == first.page_floor()
    };
    stale.iter().enumerate().take_while(follows).count()
}

fn enter(
    memory: &mut GuestMemory,
    program: &kvm_regs,
    back_to_host: bool,
) -> Result<kvm_regs, OutOfRam> {
    let saved = [program.rdi, program.rsi, program.rcx, program.rax];
    let frame = if back_to_host {
        let stub = engine_va(STUBS).0 + REWRITTEN as u64;
        let stack = engine_va(STACK_TOP).0;
        [stub, u64::from(KERNEL_CS), RFLAGS_RESERVED, stack, u64::from(KERNEL_SS)]
    } else {
        let (cs, ss) = (u64::from(USER_CS), u64::from(USER_SS));
        [program.rip, cs, user_flags(program.rflags), program.rsp, ss]
    };
    let base = Gpa(STACK_TOP.0 - (saved.len() + frame.len()) as u64 * 8);
    let mut stack = Cursor { memory, at: base };
    saved.into_iter().chain(frame).try_for_each(|word| stack.push(word))?;
    Ok(kvm_regs {
        rip: engine_va(STUBS).0 + REWRITE as u64,
        rsp: engine_va(base).0,
        rsi: engine_va(REWRITES).0,
        rflags: RFLAGS_RESERVED,
        ..*program
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_decodes_as_written() {
        use iced_x86::{Code, Decoder, DecoderOptions};
        let codes: Vec<Code> = Decoder::with_ip(64, &CODE, 0, DecoderOptions::NONE)
            .iter()
            .map(|instruction| instruction.code())
            .collect();
        assert_eq!(codes[2], Code::Je_rel8_64);
        assert_eq!(codes[5], Code::Movsq_m64_m64);
        assert_eq!(codes.last(), Some(&Code::Hlt));
        assert!(!codes.contains(&Code::INVALID));
    }

    #[test]
    fn neighbours_end_with_their_table() {
        let at = |address| Gpa(address);
        assert_eq!(neighbours(&[]), 0);
        assert_eq!(neighbours(&[at(0x1000), at(0x1008), at(0x1018)]), 2);
        assert_eq!(neighbours(&[at(0x1ff8), at(0x2000)]), 1);
    }
}
