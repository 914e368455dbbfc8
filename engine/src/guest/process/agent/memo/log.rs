//! What one system call reads and writes of the program's memory: written down while it is carried
//! out, and given again when it is carried out once more for its effect on the process alone.
//!
//! Never judges a call.

use crate::address::{Gva, PAGE_SIZE};
use crate::linux::abi::syscall::SystemCall;
use crate::linux::mm::user_memory::{Inaccessible, OutOfFrames, PageRange, Prot, UserMemory};
use crate::outcome::Access;
use std::cell::RefCell;

/// Pieces of memory that a call reads, and that it writes, of each at most.
pub(super) const PIECES_MAX: usize = 3;
/// Bytes that a call reads, all together, and that it writes, at most.
const READ_BYTES_MAX: usize = 1 << 10;
const WRITTEN_BYTES_MAX: usize = 1 << 12;
/// In a piece's place: the argument that it is at.
pub(super) const ARG_SHIFT: u32 = 32;

/// Which argument a piece is at, and how far from it.
pub(super) const fn place(at: u64) -> (usize, u64) {
    ((at >> ARG_SHIFT) as usize, at & ((1 << ARG_SHIFT) - 1))
}

/// How far a path may reach, and any piece from its argument.
const PATH_BYTES: u64 = 1 << 12;

/// Pieces of memory and what is in them. Made once and used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    /// Addresses and lengths.
    places: Vec<(u64, usize)>,
    /// Their bytes, one piece after the other.
    bytes: Vec<u8>,
}

impl Pieces {
    /// Addresses and bytes.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.places.iter().map(move |&(at, len)| {
            let (bytes, behind) = rest.split_at_checked(len).unwrap_or_default();
            rest = behind;
            (at, bytes)
        })
    }

    /// The number of bytes in all of them.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes from `at` on that are in one piece, of which `start_of` tells the address.
    fn find(&self, at: u64, start_of: impl Fn(u64) -> u64) -> Option<&[u8]> {
        self.iter().find_map(|(place, bytes)| {
            let start = start_of(place);
            let offset = usize::try_from(at.checked_sub(start)?).ok()?;
            bytes.get(offset..).filter(|bytes| !bytes.is_empty())
        })
    }

    fn overlaps(&self, at: u64, len: usize) -> bool {
        let meets = |(start, bytes): (u64, &[u8])| {
            at < start.wrapping_add(bytes.len() as u64) && start < at.wrapping_add(len as u64)
        };
        self.iter().any(meets)
    }

    /// Adds a piece, to the last one where they are neighbours; false if there is no room.
    fn push(&mut self, at: u64, bytes: &[u8], bytes_max: usize) -> bool {
        if self.bytes.len() + bytes.len() > bytes_max {
            return false;
        }
        let is_full = self.places.len() == PIECES_MAX;
        match self.places.last_mut() {
            Some((start, len)) if start.wrapping_add(*len as u64) == at => *len += bytes.len(),
            _ if is_full => return false,
            _ => self.places.push((at, bytes.len())),
        }
        self.bytes.extend_from_slice(bytes);
        true
    }

    fn clear(&mut self) {
        self.places.clear();
        self.bytes.clear();
    }
}

/// The memory that one call uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallLog {
    pub(super) reads: Pieces,
    pub(super) writes: Pieces,
    /// Where the call's path is.
    path: Option<u64>,
    /// All that it read is here.
    pub(super) is_complete: bool,
    /// It did nothing to memory but to read and to write these.
    pub(super) is_plain: bool,
    /// It looked for pages and found none.
    pub(super) found_no_page: bool,
}

impl CallLog {
    /// Forgets all; of the path at `path` nothing past its NUL will matter.
    pub(in super::super) fn begin(&mut self, path: Option<u64>) {
        self.reads.clear();
        self.writes.clear();
        self.path = path;
        (self.is_complete, self.is_plain, self.found_no_page) = (true, true, false);
    }

    /// Has pieces say which argument of `call` they are at, of those that are `pointers`; false if one is
    /// at none.
    pub(super) fn make_relative(&mut self, call: &SystemCall, pointers: u8) -> bool {
        let places = self.reads.places.iter_mut().chain(&mut self.writes.places);
        let mut all = true;
        for (at, _) in places {
            let pointed = (0..6).filter(|arg| pointers & 1 << arg != 0);
            let offset = |arg: usize| at.checked_sub(call.args[arg]);
            let nearest = pointed.filter_map(|arg| Some((offset(arg)?, arg))).min();
            match nearest.filter(|(offset, _)| *offset < PATH_BYTES) {
                Some((offset, arg)) => *at = offset | (arg as u64) << ARG_SHIFT,
                None => all = false,
            }
        }
        all
    }

    /// Whether the call did nothing to pages.
    pub(in super::super) const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The call's memory, which is `mem` and is written down.
    pub(crate) const fn record<'a>(&'a mut self, mem: &'a mut dyn UserMemory) -> Recording<'a> {
        Recording { mem, log: RefCell::new(self) }
    }

    fn note_read(&mut self, at: u64, bytes: &[u8]) {
        let in_path = self.path.is_some_and(|path| at >= path && at - path < PATH_BYTES);
        let nul = bytes.iter().position(|byte| *byte == 0).filter(|_| in_path);
        let bytes = nul.map_or(bytes, |nul| &bytes[..=nul]);
        if self.reads.find(at, |at| at).is_some_and(|known| known.starts_with(bytes)) {
            return;
        }
        // What the call wrote itself is no condition for it.
        self.is_plain &= !self.writes.overlaps(at, bytes.len());
        if !self.reads.push(at, bytes, READ_BYTES_MAX) {
            (self.is_complete, self.is_plain) = (false, false);
        }
    }

    fn note_write(&mut self, at: u64, bytes: &[u8]) {
        self.is_plain &= self.writes.push(at, bytes, WRITTEN_BYTES_MAX);
    }
}

/// Memory whose use is written down.
pub(crate) struct Recording<'a> {
    mem: &'a mut dyn UserMemory,
    log: RefCell<&'a mut CallLog>,
}

impl Recording<'_> {
    fn not_plain(&self) {
        self.log.borrow_mut().is_plain = false;
    }

    /// The call does something to the pages of a range that are there.
    fn looks_at(&self, range: PageRange) {
        let end = range.start.wrapping_add(range.pages.wrapping_mul(PAGE_SIZE as u64));
        // One that finds a page writes down that it did.
        let _ = self.next_mapped(range.start, end);
    }
}

impl UserMemory for Recording<'_> {
    fn read(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        let read = self.mem.read(at, out);
        match read {
            Ok(()) => self.log.borrow_mut().note_read(at.0, out),
            // The page may be there next time.
            Err(_) => self.not_plain(),
        }
        read
    }

    fn write(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible> {
        let written = self.mem.write(at, bytes);
        match written {
            Ok(()) => self.log.borrow_mut().note_write(at.0, bytes),
            Err(_) => self.not_plain(),
        }
        written
    }

    fn populate(&mut self, at: Gva, bytes: &[u8]) -> Result<(), Inaccessible> {
        self.not_plain();
        self.mem.populate(at, bytes)
    }

    fn map(&mut self, range: PageRange, prot: Prot) -> Result<(), OutOfFrames> {
        self.not_plain();
        self.mem.map(range, prot)
    }

    fn unmap(&mut self, range: PageRange) {
        self.looks_at(range);
        self.mem.unmap(range);
    }

    fn protect(&mut self, range: PageRange, prot: Prot) {
        self.looks_at(range);
        self.mem.protect(range, prot);
    }

    fn relocate(&mut self, range: PageRange, to: Gva) -> Result<(), OutOfFrames> {
        self.not_plain();
        self.mem.relocate(range, to)
    }

    fn next_mapped(&self, at: Gva, end: Gva) -> Option<Gva> {
        let found = self.mem.next_mapped(at, end);
        let mut log = self.log.borrow_mut();
        log.found_no_page |= found.is_none();
        log.is_plain &= found.is_none();
        found
    }

    fn alias(&mut self, from: Gva, to: Gva, prot: Prot) -> Result<(), OutOfFrames> {
        self.not_plain();
        self.mem.alias(from, to, prot)
    }

    fn forget(&mut self, at: Gva) {
        self.not_plain();
        self.mem.forget(at);
    }

    fn peek(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        self.not_plain();
        self.mem.peek(at, out)
    }

    fn allows(&self, at: Gva, kind: Access) -> bool {
        self.not_plain();
        self.mem.allows(at, kind)
    }

    fn frames_free(&self) -> u64 {
        self.not_plain();
        self.mem.frames_free()
    }

    fn fills_at_once(&self) -> bool {
        false
    }
}

/// Memory for a call that is carried out once more: it reads what it read, and writes nothing,
/// because the program has what it wrote. A plain call asks for nothing else.
pub(super) struct Replaying<'a> {
    /// Relative to the call's arguments.
    pub(super) reads: &'a Pieces,
    pub(super) call: &'a SystemCall,
}

const NOT_THERE: fn(Gva, Access) -> Inaccessible = |at, kind| Inaccessible { at, kind };

impl UserMemory for Replaying<'_> {
    fn read(&self, at: Gva, out: &mut [u8]) -> Result<(), Inaccessible> {
        let start_of = |at| {
            let (arg, offset) = place(at);
            self.call.args.get(arg).map_or(0, |base| base.wrapping_add(offset))
        };
        let known = self.reads.find(at.0, start_of).ok_or_else(|| NOT_THERE(at, Access::Read))?;
        // What is behind a path's NUL is not there, and does not matter.
        out.fill(0);
        out.iter_mut().zip(known).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    fn write(&mut self, _: Gva, _: &[u8]) -> Result<(), Inaccessible> {
        Ok(())
    }

    fn populate(&mut self, at: Gva, _: &[u8]) -> Result<(), Inaccessible> {
        Err(NOT_THERE(at, Access::Write))
    }

    fn map(&mut self, _: PageRange, _: Prot) -> Result<(), OutOfFrames> {
        Err(OutOfFrames)
    }

    fn unmap(&mut self, _: PageRange) {}

    fn protect(&mut self, _: PageRange, _: Prot) {}

    fn relocate(&mut self, _: PageRange, _: Gva) -> Result<(), OutOfFrames> {
        Err(OutOfFrames)
    }

    fn next_mapped(&self, _: Gva, _: Gva) -> Option<Gva> {
        None
    }

    fn alias(&mut self, _: Gva, _: Gva, _: Prot) -> Result<(), OutOfFrames> {
        Err(OutOfFrames)
    }

    fn forget(&mut self, _: Gva) {}

    fn peek(&self, at: Gva, _: &mut [u8]) -> Result<(), Inaccessible> {
        Err(NOT_THERE(at, Access::Read))
    }

    fn allows(&self, _: Gva, _: Access) -> bool {
        false
    }

    fn frames_free(&self) -> u64 {
        0
    }

    fn fills_at_once(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::abi::syscall::SyscallAction;
    use crate::linux::tests::mock::Guest;

    /// Makes a call whose memory is written down.
    fn recorded(
        guest: &mut Guest,
        call: SystemCall,
        path: Option<u64>,
    ) -> (SyscallAction, CallLog) {
        let mut log = CallLog::default();
        log.begin(path);
        let mut mem = log.record(&mut guest.mem);
        let action = guest.process.syscall(&call, &mut mem, &mut guest.cpu);
        (action, log)
    }

    fn call(nr: i64, args: [u64; 6]) -> SystemCall {
        SystemCall { nr: nr as u64, args }
    }

    #[test]
    fn a_path_is_read_up_to_its_nul_and_calls_made_once_more_read_it_again() {
        let mut guest = Guest::simple();
        let at = guest.put(0, b"/nowhere\0rubbish");
        let open = call(libc::SYS_open, [at, 0, 0, 0, 0, 0]);
        let (action, mut log) = recorded(&mut guest, open, Some(at));
        assert_eq!(action, SyscallAction::Return((-i64::from(libc::ENOENT)) as u64));
        assert!(log.is_plain() && log.is_complete && !log.found_no_page);
        assert_eq!(log.reads.iter().collect::<Vec<_>>(), [(at, &b"/nowhere\0"[..])]);
        assert!(log.make_relative(&open, 1));
        assert_eq!(log.reads.iter().next().map(|(at, _)| place(at)), Some((0, 0)));
        let mut mem = Replaying { reads: &log.reads, call: &open };
        assert_eq!(guest.process.syscall(&open, &mut mem, &mut guest.cpu), action);
    }

    #[test]
    fn neighbours_are_one_piece_and_what_is_written_is_kept() {
        let mut guest = Guest::simple();
        let at = guest.put(0, &[0; 64]);
        let args = [libc::SIGUSR1 as u64, at, at + 32, 8, 0, 0];
        let (action, log) = recorded(&mut guest, call(libc::SYS_rt_sigaction, args), None);
        assert_eq!(action, SyscallAction::Return(0));
        assert_eq!(log.reads.iter().collect::<Vec<_>>(), [(at, &[0; 32][..])]);
        assert_eq!(
            log.writes.iter().map(|(at, bytes)| (at, bytes.len())).collect::<Vec<_>>(),
            [(at + 32, 32)]
        );
    }

    #[test]
    fn a_mapping_gets_no_page_yet_and_one_that_takes_pages_away_is_not_plain() {
        let mut guest = Guest::simple();
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let map = call(libc::SYS_mmap, [0, 8192, 3, flags, u64::MAX, 0]);
        let (action, log) = recorded(&mut guest, map, None);
        let SyscallAction::Return(at) = action else { panic!("{action:?}") };
        assert!(log.is_plain() && !log.found_no_page);
        assert_eq!(guest.mem.next_mapped(Gva(at), Gva(at + 8192)), None);
        let unmap = call(libc::SYS_munmap, [at, 8192, 0, 0, 0, 0]);
        let mut other = guest.clone();
        let (_, log) = recorded(&mut other, unmap, None);
        assert!(log.is_plain() && log.found_no_page, "nothing was there");
        let access = guest.process.page_fault(Gva(at), Access::Write, &mut guest.mem);
        assert_eq!(access, crate::linux::abi::syscall::FaultAction::Retry);
        let (_, log) = recorded(&mut guest, unmap, None);
        assert!(!log.is_plain());
    }

    #[test]
    fn a_call_that_reads_too_much_is_not_complete() {
        let mut log = CallLog::default();
        log.begin(None);
        (0..PIECES_MAX as u64).for_each(|index| log.note_read(index * 100, &[1; 8]));
        assert!(log.is_complete);
        log.note_read(104, &[1; 4]);
        assert!(log.is_complete, "known already");
        log.note_read(9000, &[1; 8]);
        assert!(!log.is_complete && !log.is_plain());
        log.begin(None);
        log.note_write(8, &[0; WRITTEN_BYTES_MAX]);
        assert!(log.is_plain());
        log.note_read(16, &[0; 8]);
        assert!(!log.is_plain(), "it read what it wrote");
    }
}
