//! A user memory that is a map, and a process to try system calls on.

use super::super::cpu::{Cpu, ExtendedLayout};
use super::super::memory::{Inaccessible, OutOfFrames, PageRange, Prot, UserMemory};
use super::super::{Process, ProcessSpec, Start, SystemCall, Verdict};
use crate::address::{Gva, PAGE_SIZE};
use crate::outcome::Access;
use std::collections::BTreeMap;

pub(super) const PAGE: u64 = PAGE_SIZE as u64;

/// Pages by number, as a machine with `frames_max` frames would hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Pages {
    pub(super) pages: BTreeMap<u64, (Box<[u8; PAGE_SIZE]>, Prot)>,
    pub(super) frames_max: u64,
}

impl Default for Pages {
    fn default() -> Self {
        Self { pages: BTreeMap::new(), frames_max: 1 << 16 }
    }
}

fn numbers(range: PageRange) -> std::ops::Range<u64> {
    assert_eq!(range.start.page_offset(), 0, "ranges are page-aligned");
    let first = range.start.0 / PAGE;
    assert!(range.start.0 + range.pages * PAGE <= 0x7fff_ffff_f000, "only user pages: {range:x?}");
    let reserve = super::super::ENGINE_RESERVE;
    let end = range.start.0 + range.pages * PAGE;
    assert!(end <= reserve.start || range.start.0 >= reserve.end, "not the engine's: {range:x?}");
    first..first + range.pages
}

impl Pages {
    fn copy(
        &mut self,
        at: Gva,
        bytes: &[u8],
        allowed: impl Fn(Prot) -> bool,
    ) -> Result<(), Inaccessible> {
        for (i, byte) in bytes.iter().enumerate() {
            let here = at.wrapping_add(i as u64);
            let failed = Inaccessible { at: here, kind: Access::Write };
            let page = self.pages.get_mut(&(here.0 / PAGE)).ok_or(failed)?;
            if !allowed(page.1) {
                return Err(failed);
            }
            page.0[here.page_offset()] = *byte;
        }
        Ok(())
    }
}

impl UserMemory for Pages {
    fn read(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        for (i, byte) in out.iter_mut().enumerate() {
            let here = at.wrapping_add(i as u64);
            let failed = Inaccessible { at: here, kind: Access::Read };
            let page = self.pages.get(&(here.0 / PAGE)).ok_or(failed)?;
            if page.1.is_empty() {
                return Err(failed);
            }
            *byte = page.0[here.page_offset()];
        }
        Ok(())
    }

    fn write(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.copy(at, bytes, |prot| prot.contains(Prot::WRITE))
    }

    fn populate(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.copy(at, bytes, |_| true)
    }

    fn map(&mut self, range: PageRange, prot: Prot) -> Result<(), OutOfFrames> {
        assert!(!prot.is_empty(), "no page is mapped without permissions");
        for page in numbers(range) {
            if self.pages.len() as u64 >= self.frames_max {
                return Err(OutOfFrames);
            }
            self.pages.entry(page).or_insert_with(|| (Box::new([0; PAGE_SIZE]), prot));
        }
        Ok(())
    }

    fn unmap(&mut self, range: PageRange) {
        let numbers = numbers(range);
        let gone: Vec<u64> = self.pages.range(numbers).map(|(page, _)| *page).collect();
        for page in gone {
            self.pages.remove(&page);
        }
    }

    fn protect(&mut self, range: PageRange, prot: Prot) {
        for (_, page) in self.pages.range_mut(numbers(range)) {
            page.1 = prot;
        }
    }

    fn relocate(&mut self, range: PageRange, to: Gva) -> Result<(), OutOfFrames> {
        let first = range.start.0 / PAGE;
        let target = numbers(PageRange { start: to, pages: range.pages }).start;
        for page in numbers(range) {
            let moved = target + (page - first);
            assert!(!self.pages.contains_key(&moved), "the target is absent");
            if let Some(frame) = self.pages.remove(&page) {
                self.pages.insert(moved, frame);
            }
        }
        Ok(())
    }

    fn allows(&self, at: Gva, kind: Access) -> bool {
        self.pages.get(&(at.0 / PAGE)).is_some_and(|(_, prot)| match kind {
            Access::Read => !prot.is_empty(),
            Access::Write => prot.contains(Prot::WRITE),
            Access::Execute => prot.contains(Prot::EXEC),
        })
    }

    fn frames_free(&self) -> u64 {
        self.frames_max.saturating_sub(self.pages.len() as u64)
    }
}

/// A CPU that is its registers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Registers {
    pub(super) regs: kvm_bindings::kvm_regs,
    pub(super) bases: [u64; 2],
    pub(super) extended: Vec<u8>,
}

impl Cpu for Registers {
    fn registers(&self) -> kvm_bindings::kvm_regs {
        self.regs
    }

    fn set_registers(&mut self, regs: &kvm_bindings::kvm_regs) {
        assert!(regs.rip < 1 << 47);
        self.regs = *regs;
    }

    fn bases(&self) -> [u64; 2] {
        self.bases
    }

    fn set_bases(&mut self, bases: [u64; 2]) {
        self.bases = bases;
    }

    fn extended_layout(&mut self) -> ExtendedLayout {
        ExtendedLayout { features: 7, bytes: 832 }
    }

    fn extended(&mut self) -> Vec<u8> {
        self.extended.clone()
    }

    fn set_extended(&mut self, area: &[u8]) {
        assert_eq!(area.len(), 832);
        self.extended = area.to_vec();
    }
}

/// A loaded process with its memory.
#[derive(Clone)]
pub(in crate::guest::process) struct Guest {
    pub(in crate::guest::process) process: Process,
    pub(super) mem: Pages,
    pub(super) cpu: Registers,
    pub(super) start: Start,
    /// Mapped, writable, zero: for arguments.
    pub(super) scratch: u64,
}

/// An address where nothing is ever mapped.
pub(super) const NOWHERE: u64 = 0x1000;

impl Guest {
    pub(super) fn load(spec: &ProcessSpec, input: &[u8]) -> Self {
        let mut mem = Pages::default();
        let (process, start) = Process::load(spec, input, &mut mem).unwrap();
        let regs = kvm_bindings::kvm_regs { rip: start.rip, rsp: start.rsp, ..Default::default() };
        let cpu = Registers { regs, bases: [0; 2], extended: vec![0; 832] };
        let mut guest = Self { process, mem, cpu, start, scratch: 0 };
        guest.scratch = guest.ok(libc::SYS_mmap, [0, 16 * PAGE, 3, 0x22, u64::MAX, 0]);
        guest
    }

    /// `/bin/true`, which is on every Linux machine.
    pub(in crate::guest::process) fn simple() -> Self {
        Self::load(&ProcessSpec::new("/bin/true"), b"input")
    }

    pub(super) fn verdict(&mut self, nr: i64, args: impl AsRef<[u64]>) -> Verdict {
        let mut all = [0; 6];
        all[..args.as_ref().len()].copy_from_slice(args.as_ref());
        let [rdi, rsi, rdx, r10, r8, r9] = all;
        self.cpu.regs = kvm_bindings::kvm_regs { rdi, rsi, rdx, r10, r8, r9, ..self.cpu.regs };
        let call = SystemCall { nr: nr as u64, args: all };
        self.process.syscall(&call, &mut self.mem, &mut self.cpu)
    }

    /// The value a call returns, errors as negative numbers.
    pub(super) fn call(&mut self, nr: i64, args: impl AsRef<[u64]>) -> i64 {
        match self.verdict(nr, args) {
            Verdict::Return(value) => value as i64,
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(super) fn ok(&mut self, nr: i64, args: impl AsRef<[u64]>) -> u64 {
        let value = self.call(nr, args);
        assert!(!(-4095..0).contains(&value), "system call {nr} failed with {value}");
        value as u64
    }

    pub(super) fn err(&mut self, nr: i64, args: impl AsRef<[u64]>, errno: i32) {
        assert_eq!(self.call(nr, args), -i64::from(errno));
    }

    pub(super) fn observes(&self, nr: i64, args: impl AsRef<[u64]>) -> bool {
        let mut all = [0; 6];
        all[..args.as_ref().len()].copy_from_slice(args.as_ref());
        self.process.observes_input(&SystemCall { nr: nr as u64, args: all }, &self.mem)
    }

    /// Puts bytes into the scratch memory at `offset`; their address.
    pub(super) fn put(&mut self, offset: u64, bytes: &[u8]) -> u64 {
        let at = self.scratch + offset;
        self.mem.write(Gva(at), bytes).unwrap();
        at
    }

    /// A NUL-terminated string at the start of the scratch memory.
    pub(super) fn text(&mut self, text: &str) -> u64 {
        let text = format!("{text}\0");
        self.put(0, text.as_bytes())
    }

    pub(super) fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem.read(Gva(at), &mut bytes).unwrap();
        bytes
    }

    pub(super) fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.get(at, 8).try_into().unwrap())
    }

    /// Opens a path with flags.
    pub(super) fn open(&mut self, path: &str, flags: i32) -> u64 {
        let path = self.text(path);
        self.ok(libc::SYS_open, [path, flags as u64, 0o644])
    }
}
