//! A process to try system calls on, over a memory and a CPU that need no VM.

mod cpu;
mod pages;

pub(crate) use pages::Pages;

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::registers::Registers;
use crate::linux::abi::syscall::{SyscallAction, SystemCall};
use crate::linux::loader::spec::{ProcessSpec, Start};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::tests::mock::cpu::MockCpu;
use std::sync::LazyLock;

pub(crate) const PAGE: u64 = PAGE_SIZE as u64;

/// A loaded process with its memory.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) process: Process,
    pub(crate) mem: Pages,
    pub(crate) cpu: MockCpu,
    pub(crate) start: Start,
    /// Mapped, writable, zero: for arguments.
    pub(crate) scratch: u64,
}

/// An address where nothing is ever mapped.
pub(crate) const NOWHERE: u64 = 0x1000;

impl Guest {
    pub(crate) fn load(spec: &ProcessSpec, input: &[u8]) -> Self {
        let mut mem = Pages::default();
        let (process, start) = Process::load(spec, input, &mut mem).unwrap();
        let regs = Registers { rip: start.rip, rsp: start.rsp, ..Default::default() };
        let cpu = MockCpu { regs, bases: [0; 2], extended: vec![0; 832] };
        let mut guest = Self { process, mem, cpu, start, scratch: 0 };
        guest.scratch = guest.ok(libc::SYS_mmap, [0, 16 * PAGE, 3, 0x22, u64::MAX, 0]);
        guest
    }

    /// `/bin/true`, which is on every Linux machine, loaded once for all tests.
    pub(crate) fn simple() -> Self {
        static LOADED: LazyLock<Guest> =
            LazyLock::new(|| Guest::load(&ProcessSpec::new("/bin/true"), b"input"));
        LOADED.clone()
    }

    pub(crate) fn verdict(&mut self, nr: i64, args: impl AsRef<[u64]>) -> SyscallAction {
        let mut all = [0; 6];
        all[..args.as_ref().len()].copy_from_slice(args.as_ref());
        let [rdi, rsi, rdx, r10, r8, r9] = all;
        self.cpu.regs = Registers { rdi, rsi, rdx, r10, r8, r9, ..self.cpu.regs };
        let call = SystemCall { nr: nr as u64, args: all };
        self.process.syscall(&call, &mut self.mem, &mut self.cpu)
    }

    /// The value a call returns, errors as negative numbers.
    pub(crate) fn call(&mut self, nr: i64, args: impl AsRef<[u64]>) -> i64 {
        match self.verdict(nr, args) {
            SyscallAction::Return(value) => value as i64,
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) fn ok(&mut self, nr: i64, args: impl AsRef<[u64]>) -> u64 {
        let value = self.call(nr, args);
        assert!(!(-4095..0).contains(&value), "system call {nr} failed with {value}");
        value as u64
    }

    pub(crate) fn err(&mut self, nr: i64, args: impl AsRef<[u64]>, errno: i32) {
        assert_eq!(self.call(nr, args), -i64::from(errno));
    }

    pub(crate) fn observes(&self, nr: i64, args: impl AsRef<[u64]>) -> bool {
        let mut all = [0; 6];
        all[..args.as_ref().len()].copy_from_slice(args.as_ref());
        self.process.observes_input(&SystemCall { nr: nr as u64, args: all }, &self.mem)
    }

    /// Puts bytes into the scratch memory at `offset`; their address.
    pub(crate) fn put(&mut self, offset: u64, bytes: &[u8]) -> u64 {
        let at = self.scratch + offset;
        self.mem.write(Gva(at), bytes).unwrap();
        at
    }

    /// A NUL-terminated string at the start of the scratch memory.
    pub(crate) fn text(&mut self, text: &str) -> u64 {
        let text = format!("{text}\0");
        self.put(0, text.as_bytes())
    }

    pub(crate) fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read(Gva(at), &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.get(at, 8).try_into().unwrap())
    }

    /// Opens a path with flags.
    pub(crate) fn open(&mut self, path: &str, flags: i32) -> u64 {
        let path = self.text(path);
        self.ok(libc::SYS_open, [path, flags as u64, 0o644])
    }
}
