//! A user memory that is a map, and a process to try system calls on.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::syscall::{SyscallAction, SystemCall};
use crate::linux::cpu::{Cpu, ExtendedLayout};
use crate::linux::loader::spec::{ProcessSpec, Start};
use crate::linux::mm::user_memory::{Inaccessible, OutOfFrames, PageRange, Prot, UserMemory};
use crate::linux::process::Process;
use crate::outcome::Access;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const PAGE: u64 = PAGE_SIZE as u64;

/// Pages by number, as a machine with `frames_max` frames would hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pages {
    /// The frame that a page shows, and what it allows.
    pub(crate) pages: BTreeMap<u64, (u64, Prot)>,
    pub(crate) frames: BTreeMap<u64, Box<[u8; PAGE_SIZE]>>,
    pub(crate) next_frame: u64,
    pub(crate) frames_max: u64,
}

impl Default for Pages {
    fn default() -> Self {
        let (pages, frames) = (BTreeMap::new(), BTreeMap::new());
        Self { pages, frames, next_frame: 0, frames_max: 1 << 16 }
    }
}

fn numbers(range: PageRange) -> std::ops::Range<u64> {
    assert_eq!(range.start.page_offset(), 0, "ranges are page-aligned");
    let first = range.start.0 / PAGE;
    assert!(range.start.0 + range.pages * PAGE <= 0x7fff_ffff_f000, "only user pages: {range:x?}");
    let reserve = crate::linux::mm::bounds::ENGINE_RESERVE;
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
            let (frame, prot) = self.pages.get(&(here.0 / PAGE)).ok_or(failed)?;
            if !allowed(*prot) {
                return Err(failed);
            }
            self.frames.get_mut(frame).expect("a frame in use")[here.page_offset()] = *byte;
        }
        Ok(())
    }

    fn look(
        &self,
        at: Gva,
        out: &mut [u8],
        allowed: impl Fn(Prot) -> bool,
    ) -> Result<(), Inaccessible> {
        for (i, byte) in out.iter_mut().enumerate() {
            let here = at.wrapping_add(i as u64);
            let failed = Inaccessible { at: here, kind: Access::Read };
            let (frame, prot) = self.pages.get(&(here.0 / PAGE)).ok_or(failed)?;
            if !allowed(*prot) {
                return Err(failed);
            }
            *byte = self.frames[frame][here.page_offset()];
        }
        Ok(())
    }

    /// Whether each frame is shown by a page, and each page shows a frame.
    pub(crate) fn is_sound(&self) -> bool {
        let shown: BTreeSet<u64> = self.pages.values().map(|(frame, _)| *frame).collect();
        shown.iter().eq(self.frames.keys())
    }
}

impl UserMemory for Pages {
    fn read(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        self.look(at, out, |prot| !prot.is_empty())
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
            if self.pages.contains_key(&page) {
                continue;
            }
            if self.frames.len() as u64 >= self.frames_max {
                return Err(OutOfFrames);
            }
            self.next_frame += 1;
            self.frames.insert(self.next_frame, Box::new([0; PAGE_SIZE]));
            self.pages.insert(page, (self.next_frame, prot));
        }
        Ok(())
    }

    fn unmap(&mut self, range: PageRange) {
        let numbers = numbers(range);
        let gone: Vec<u64> = self.pages.range(numbers).map(|(page, _)| *page).collect();
        for page in gone {
            let (frame, _) = self.pages.remove(&page).unwrap();
            assert!(self.frames.remove(&frame).is_some(), "a frame is freed once");
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
        let moving: Vec<u64> = self.pages.range(numbers(range)).map(|(page, _)| *page).collect();
        for page in moving {
            let moved = target + (page - first);
            assert!(!self.pages.contains_key(&moved), "the target is absent");
            let frame = self.pages.remove(&page).unwrap();
            self.pages.insert(moved, frame);
        }
        Ok(())
    }

    fn next_mapped(&self, at: Gva, end: Gva) -> Option<Gva> {
        let numbers = at.0 / PAGE..end.0.div_ceil(PAGE).max(at.0 / PAGE);
        self.pages.range(numbers).next().map(|(page, _)| Gva(page * PAGE))
    }

    fn alias(&mut self, from: Gva, to: Gva, prot: Prot) -> Result<(), OutOfFrames> {
        let (frame, _) = self.pages[&(from.0 / PAGE)];
        let target = numbers(PageRange { start: to, pages: 1 }).start;
        assert!(self.pages.insert(target, (frame, prot)).is_none(), "the target is absent");
        Ok(())
    }

    fn forget(&mut self, at: Gva) {
        self.pages.remove(&(at.0 / PAGE));
    }

    fn peek(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        self.look(at, out, |_| true)
    }

    fn allows(&self, at: Gva, kind: Access) -> bool {
        self.pages.get(&(at.0 / PAGE)).is_some_and(|(_, prot)| match kind {
            Access::Read => !prot.is_empty(),
            Access::Write => prot.contains(Prot::WRITE),
            Access::Execute => prot.contains(Prot::EXEC),
        })
    }

    fn frames_free(&self) -> u64 {
        self.frames_max.saturating_sub(self.frames.len() as u64)
    }
}

/// A CPU that is its registers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Registers {
    pub(crate) regs: crate::linux::abi::registers::Registers,
    pub(crate) bases: [u64; 2],
    pub(crate) extended: Vec<u8>,
}

impl Cpu for Registers {
    fn registers(&self) -> crate::linux::abi::registers::Registers {
        self.regs
    }

    fn set_registers(&mut self, regs: &crate::linux::abi::registers::Registers) {
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
pub(crate) struct Guest {
    pub(crate) process: Process,
    pub(crate) mem: Pages,
    pub(crate) cpu: Registers,
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
        let regs = crate::linux::abi::registers::Registers {
            rip: start.rip,
            rsp: start.rsp,
            ..Default::default()
        };
        let cpu = Registers { regs, bases: [0; 2], extended: vec![0; 832] };
        let mut guest = Self { process, mem, cpu, start, scratch: 0 };
        guest.scratch = guest.ok(libc::SYS_mmap, [0, 16 * PAGE, 3, 0x22, u64::MAX, 0]);
        guest
    }

    /// `/bin/true`, which is on every Linux machine.
    pub(crate) fn simple() -> Self {
        Self::load(&ProcessSpec::new("/bin/true"), b"input")
    }

    pub(crate) fn verdict(&mut self, nr: i64, args: impl AsRef<[u64]>) -> SyscallAction {
        let mut all = [0; 6];
        all[..args.as_ref().len()].copy_from_slice(args.as_ref());
        let [rdi, rsi, rdx, r10, r8, r9] = all;
        self.cpu.regs =
            crate::linux::abi::registers::Registers { rdi, rsi, rdx, r10, r8, r9, ..self.cpu.regs };
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
