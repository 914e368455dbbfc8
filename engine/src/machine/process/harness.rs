//! Makes a function `int f(const uint8_t *data, size_t size)` all of a program's run: where it is
//! first called, the program is led to a few instructions of the engine's, which fetch the input
//! and enter the function with it.
//!
//! They fetch it by system calls, as a program does: so it is the snapshot's pending call that
//! brings an input, and a batch needs nothing of its own. Never runs the program, and never writes
//! into memory that it has.

use super::driver::{CallContext, ProcessDriver};
use super::registers::stand_at;
use super::served::Served;
use crate::address::{Gva, PAGE_SIZE};
use crate::guest::process::pages::ProcessPages;
use crate::linux::abi::syscall::{FaultAction, SystemCall};
use crate::linux::mm::user_memory::UserMemory as _;
use crate::machine::error::MachineError;
use crate::machine::flow::{Flow, Stop};
use crate::machine::hardware::Hardware;
use crate::outcome::Access;
use kvm_bindings::kvm_regs;

const PAGE: u64 = PAGE_SIZE as u64;
/// Longest input, in bytes; what is longer is cut. Only pages that are touched cost memory.
const INPUT_BYTES_MAX: u64 = 16 << 20;
/// So much of it is there from the snapshot on, and faults in no run.
const INPUT_BYTES_READY: u64 = 64 << 10;
/// A page that is none, the input, a page that is none, the code.
const REGION_BYTES: u64 = INPUT_BYTES_MAX + 3 * PAGE;

/// Entered with RAX, RDI, RSI and RDX set for `lseek(0, 0, SEEK_END)`, the end of the input's
/// memory in R8, the function in R9, and the longest input in R10.
#[rustfmt::skip]
const ENTRY: [u8; 38] = [
    0x0f, 0x05,                   // syscall
    0x48, 0x89, 0xc2,             // mov rdx, rax: the size
    0x4c, 0x39, 0xd2,             // cmp rdx, r10
    0x49, 0x0f, 0x47, 0xd2,       // cmova rdx, r10
    0x45, 0x31, 0xd2,             // xor r10d, r10d: from the start
    0x4c, 0x89, 0xc6,             // mov rsi, r8
    0x48, 0x29, 0xd6,             // sub rsi, rdx: it ends where memory does
    0xb8, 0x11, 0x00, 0x00, 0x00, // mov eax, pread64
    0x0f, 0x05,                   // syscall
    0x48, 0x89, 0xf7,             // mov rdi, rsi
    0x48, 0x89, 0xd6,             // mov rsi, rdx
    0x41, 0xff, 0xe1,             // jmp r9
    0xcc,
];

impl ProcessDriver {
    /// Stops the program, which has called the function at `here`, before the call that fetches its
    /// input.
    pub(super) fn stop_in_harness(
        &mut self,
        hw: &mut Hardware,
        here: &kvm_regs,
    ) -> Result<Flow, MachineError> {
        let call = SystemCall {
            nr: libc::SYS_lseek as u64,
            args: [libc::STDIN_FILENO as u64, 0, libc::SEEK_END as u64, 0, 0, 0],
        };
        let CallContext { process, tables, memory } = self.split(hw);
        if !process.observes_input(&call, &ProcessPages { memory, tables }) {
            return Err(refused("the program has closed its standard input, which brings it"));
        }
        // What it read until now is not what a run gets.
        self.saw_input = false;
        let (end, entry) = self.map_input(hw)?;
        self.state.call = Some(call);
        let [rdi, rsi, rdx, ..] = call.args;
        let before = kvm_regs {
            rip: entry,
            rax: call.nr,
            rdi,
            rsi,
            rdx,
            r8: end,
            r9: here.rip,
            r10: INPUT_BYTES_MAX,
            ..*here
        };
        stand_at(hw, before);
        Ok(Flow::Stop(Stop::Snapshot))
    }

    /// Maps memory for the input, nothing behind it, and the code: the end of the one, and the start
    /// of the other.
    fn map_input(&mut self, hw: &mut Hardware) -> Result<(u64, u64), MachineError> {
        let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;
        let none = libc::PROT_NONE as u64;
        let region = [0, REGION_BYTES, none, private, u64::MAX, 0];
        let base = self.call_for_program(hw, libc::SYS_mmap, region)?;
        let input = base + PAGE;
        let end = input + INPUT_BYTES_MAX;
        let entry = end + PAGE;
        let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let protect = libc::SYS_mprotect;
        self.call_for_program(hw, protect, [input, INPUT_BYTES_MAX, writable, 0, 0, 0])?;
        let executable = (libc::PROT_READ | libc::PROT_EXEC) as u64;
        self.call_for_program(hw, protect, [entry, PAGE, executable, 0, 0, 0])?;
        for at in (end - INPUT_BYTES_READY..end).step_by(PAGE_SIZE) {
            self.bring_in(hw, at, Access::Write)?;
        }
        self.bring_in(hw, entry, Access::Execute)?;
        let CallContext { tables, memory, .. } = self.split(hw);
        let written = ProcessPages { memory, tables }.populate(Gva(entry), &ENTRY);
        written.map_err(|_| MachineError::Invariant("a page that was brought in has a frame"))?;
        Ok((end, entry))
    }

    fn call_for_program(
        &mut self,
        hw: &mut Hardware,
        nr: i64,
        args: [u64; 6],
    ) -> Result<u64, MachineError> {
        match self.serve(hw, &SystemCall { nr: nr as u64, args }, None)? {
            Served::Value(value) if !value.cast_signed().is_negative() => Ok(value),
            _ => Err(refused("the program has no room for it among its addresses")),
        }
    }

    fn bring_in(&mut self, hw: &mut Hardware, at: u64, kind: Access) -> Result<(), MachineError> {
        let CallContext { process, tables, memory } = self.split(hw);
        match process.page_fault(Gva(at), kind, &mut ProcessPages { memory, tables }) {
            FaultAction::Retry => Ok(()),
            FaultAction::OutOfMemory | FaultAction::Signal(_) => {
                Err(refused("the guest has no memory left for it"))
            }
        }
    }
}

const fn refused(why: &'static str) -> MachineError {
    MachineError::Harness { why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Formatter as _, IntelFormatter};

    #[test]
    fn the_code_is_what_its_comments_say() {
        let mut text = Vec::new();
        for instruction in &mut Decoder::with_ip(64, &ENTRY, 0, DecoderOptions::NONE) {
            let mut line = String::new();
            IntelFormatter::new().format(&instruction, &mut line);
            text.push(line);
        }
        let expected = [
            "syscall",
            "mov rdx,rax",
            "cmp rdx,r10",
            "cmova rdx,r10",
            "xor r10d,r10d",
            "mov rsi,r8",
            "sub rsi,rdx",
            "mov eax,11h",
            "syscall",
            "mov rdi,rsi",
            "mov rsi,rdx",
            "jmp r9",
            "int3",
        ];
        assert_eq!(text, expected);
        assert_eq!(libc::SYS_pread64, 0x11);
    }
}
