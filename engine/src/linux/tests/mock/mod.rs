//! A process to try system calls on, over a memory and a CPU that need no VM. Calls are made by
//! number, as a program makes them.

mod cpu;
pub(crate) mod files;
pub(crate) mod memory;
mod pages;
pub(crate) mod threads;

pub(crate) use pages::Pages;

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::names::system_call_name;
use crate::linux::abi::registers::Registers;
use crate::linux::abi::syscall::{SyscallAction, SystemCall};
use crate::linux::loader::spec::{ProcessSpec, Start};
use crate::linux::mm::user_memory::UserMemory;
use crate::linux::process::Process;
use crate::linux::tests::mock::cpu::MockCpu;
use std::sync::LazyLock;

pub(crate) const PAGE: u64 = PAGE_SIZE as u64;

/// An address where nothing is ever mapped.
pub(crate) const NOWHERE: u64 = 0x1000;

/// A descriptor that is never open.
pub(crate) const CLOSED: u64 = 777;

/// In the place of a directory's descriptor: the working directory.
pub(crate) const CWD: u64 = libc::AT_FDCWD as u64;

/// Pages of [`Guest::scratch`].
const SCRATCH_PAGES: u64 = 16;

/// A loaded process with its memory.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) process: Process,
    pub(crate) mem: Pages,
    pub(crate) cpu: MockCpu,
    pub(crate) start: Start,
    /// 16 pages, mapped, writable, zero: for arguments. The helpers put paths into the first, and
    /// what they read and write into the eighth and ninth.
    pub(crate) scratch: u64,
}

/// The arguments that a call is not given are zero.
fn all_arguments(given: &[u64]) -> [u64; 6] {
    let mut all = [0; 6];
    all[..given.len()].copy_from_slice(given);
    all
}

impl Guest {
    pub(crate) fn load(spec: &ProcessSpec, input: &[u8]) -> Self {
        let mut mem = Pages::default();
        let (process, start) = Process::load(spec, input, &mut mem).unwrap();
        let regs = Registers { rip: start.rip, rsp: start.rsp, ..Default::default() };
        let cpu = MockCpu { regs, bases: [0; 2], extended: vec![0; 832] };
        let mut guest = Self { process, mem, cpu, start, scratch: 0 };
        guest.scratch = guest.ok(libc::SYS_mmap, [0, SCRATCH_PAGES * PAGE, 3, 0x22, u64::MAX, 0]);
        guest
    }

    /// `/bin/true`, which is on every Linux machine, loaded once for all tests; its input is
    /// `input`.
    pub(crate) fn simple() -> Self {
        static LOADED: LazyLock<Guest> =
            LazyLock::new(|| Guest::load(&ProcessSpec::new("/bin/true"), b"input"));
        LOADED.clone()
    }

    pub(crate) fn verdict(&mut self, nr: i64, args: impl AsRef<[u64]>) -> SyscallAction {
        let all = all_arguments(args.as_ref());
        let [rdi, rsi, rdx, r10, r8, r9] = all;
        self.cpu.regs = Registers { rdi, rsi, rdx, r10, r8, r9, ..self.cpu.regs };
        let call = SystemCall { nr: nr as u64, args: all };
        self.process.syscall(&call, &mut self.mem, &mut self.cpu)
    }

    /// The value a call returns, errors as negative numbers.
    pub(crate) fn call(&mut self, nr: i64, args: impl AsRef<[u64]>) -> i64 {
        match self.verdict(nr, &args) {
            SyscallAction::Return(value) => value as i64,
            other => panic!("unexpected {other:?} of {}", shown(nr, args.as_ref())),
        }
    }

    pub(crate) fn ok(&mut self, nr: i64, args: impl AsRef<[u64]>) -> u64 {
        let value = self.call(nr, &args);
        let failed = (-4095..0).contains(&value);
        assert!(!failed, "{} failed with {value}", shown(nr, args.as_ref()));
        value as u64
    }

    pub(crate) fn err(&mut self, nr: i64, args: impl AsRef<[u64]>, errno: i32) {
        let value = self.call(nr, &args);
        assert_eq!(value, -i64::from(errno), "{}", shown(nr, args.as_ref()));
    }

    /// Each of these calls, in this order, fails with this error number.
    pub(crate) fn fails(&mut self, calls: &[(i64, &[u64], i32)]) {
        for (nr, args, errno) in calls {
            self.err(*nr, args, *errno);
        }
    }

    pub(crate) fn observes(&self, nr: i64, args: impl AsRef<[u64]>) -> bool {
        let call = SystemCall { nr: nr as u64, args: all_arguments(args.as_ref()) };
        self.process.observes_input(&call, &self.mem)
    }

    /// `change` makes a difference that `part` names, and a rewind takes it back.
    pub(crate) fn undoes<R>(&mut self, part: &str, change: impl FnOnce(&mut Self) -> R) {
        let snapshot = self.clone();
        change(self);
        let differences = self.process.same_as(&snapshot.process).join("; ");
        assert!(differences.contains(part), "{part} in {differences}");
        self.process.rewind_to(&snapshot.process);
        assert_eq!(self.process.same_as(&snapshot.process), Vec::<String>::new());
        (self.mem, self.cpu) = (snapshot.mem, snapshot.cpu);
    }

    /// The address of a page of the scratch memory.
    pub(crate) fn at(&self, page: u64) -> u64 {
        assert!(page < SCRATCH_PAGES);
        self.scratch + page * PAGE
    }

    /// Puts bytes into the scratch memory at `offset`; their address.
    pub(crate) fn put(&mut self, offset: u64, bytes: &[u8]) -> u64 {
        let at = self.scratch + offset;
        self.mem.write(Gva(at), bytes).unwrap();
        at
    }

    /// Puts words into the scratch memory at `offset`; their address.
    pub(crate) fn words(&mut self, offset: u64, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(offset, &bytes)
    }

    pub(crate) fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read(Gva(at), &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.get(at, 8).try_into().unwrap())
    }

    pub(crate) fn half(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.get(at, 4).try_into().unwrap())
    }
}

/// A call in a message.
fn shown(nr: i64, args: &[u64]) -> String {
    format!("{}{args:x?}", system_call_name(nr as u64))
}
