//! What a loader needs to know of an ELF file: segments, interpreter, and which libraries it
//! wants. Every number in the file is taken for hostile; nothing is allocated by one.

use crate::linux::loader::spec::LoadError;
use crate::linux::mm::user_memory::Prot;
use object::LittleEndian as LE;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use std::path::Path;

/// As Linux: what fits in one 64 KiB read of program headers.
const PROGRAM_HEADERS_MAX: usize = 65536 / 56;
/// Entries of a dynamic section that are looked at.
const DYNAMIC_ENTRIES_MAX: usize = 65536;
/// Longest interpreter path.
const INTERPRETER_BYTES_MAX: u64 = 4096;

/// A `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) file_bytes: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) align: u64,
    pub(crate) prot: Prot,
}

/// An ELF file's loadable view.
#[derive(Clone, Debug)]
pub(crate) struct Elf<'a> {
    /// Whether it runs only at its own addresses (`ET_EXEC`).
    pub(crate) fixed: bool,
    pub(crate) entry: u64,
    pub(crate) headers_count: u64,
    /// Unbiased address of the program headers, 0 if no segment holds them.
    pub(crate) headers_address: u64,
    /// By ascending address; never empty.
    pub(crate) segments: Vec<Segment>,
    pub(crate) interpreter: Option<&'a [u8]>,
    /// Whether it asks for an executable stack.
    pub(crate) executable_stack: bool,
    pub(crate) dynamic: Dynamic<'a>,
}

/// What the dynamic section says about other libraries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dynamic<'a> {
    pub(crate) needed: Vec<&'a [u8]>,
    pub(crate) rpath: Option<&'a [u8]>,
    pub(crate) runpath: Option<&'a [u8]>,
}

/// The bytes at `offset`, if the file has them all.
fn bytes_at(file: &[u8], offset: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    file.get(start..end)
}

fn prot_of(flags: elf::ProgramFlags) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags.contains(elf::PF_R));
    prot.set(Prot::WRITE, flags.contains(elf::PF_W));
    prot.set(Prot::EXEC, flags.contains(elf::PF_X));
    prot
}

impl<'a> Elf<'a> {
    /// Reads the headers of a program or library.
    pub(crate) fn parse(path: &Path, file: &'a [u8]) -> Result<Self, LoadError> {
        check_kind(path, file)?;
        let bad = |what| LoadError::BadElf { path: path.to_owned(), what };
        let header = elf::FileHeader64::<LE>::parse(file).map_err(|_| bad("no complete header"))?;
        let kind = header.e_type(LE);
        if kind != elf::ET_EXEC && kind != elf::ET_DYN {
            return Err(LoadError::NotExecutable { path: path.to_owned(), kind: kind.0 });
        }
        let headers =
            header.program_headers(LE, file).map_err(|_| bad("program headers beyond its end"))?;
        if headers.is_empty() || headers.len() > PROGRAM_HEADERS_MAX {
            return Err(bad("no program headers, or too many"));
        }
        let mut parsed = Self {
            fixed: kind == elf::ET_EXEC,
            entry: header.e_entry(LE),
            headers_count: headers.len() as u64,
            headers_address: 0,
            segments: Vec::new(),
            interpreter: None,
            // Linux: without PT_GNU_STACK an x86-64 program's stack is not executable.
            executable_stack: false,
            dynamic: Dynamic::default(),
        };
        let mut dynamic = None;
        for header in headers {
            match header.p_type(LE) {
                elf::PT_LOAD => parsed.add_segment(header).map_err(bad)?,
                elf::PT_INTERP => {
                    let (offset, len) = header.file_range(LE);
                    let name = (len <= INTERPRETER_BYTES_MAX)
                        .then(|| bytes_at(file, offset, len))
                        .flatten()
                        .ok_or_else(|| bad("interpreter path beyond its end"))?;
                    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                    parsed.interpreter = Some(&name[..end]);
                }
                elf::PT_GNU_STACK => {
                    parsed.executable_stack = header.p_flags(LE).contains(elf::PF_X);
                }
                elf::PT_DYNAMIC => dynamic = Some(header.file_range(LE)),
                _ => {}
            }
        }
        if parsed.segments.is_empty() {
            return Err(bad("no loadable segment"));
        }
        if parsed.segments.iter().any(|s| bytes_at(file, s.offset, s.file_bytes).is_none()) {
            return Err(bad("a segment beyond its end"));
        }
        let table = header.e_phoff(LE);
        let holder =
            parsed.segments.iter().find(|s| s.offset <= table && table - s.offset < s.file_bytes);
        parsed.headers_address = holder.map_or(0, |s| (table - s.offset).wrapping_add(s.address));
        if let Some((offset, len)) = dynamic {
            parsed.dynamic = parsed.read_dynamic(file, offset, len).unwrap_or_default();
        }
        Ok(parsed)
    }

    fn add_segment(&mut self, header: &elf::ProgramHeader64<LE>) -> Result<(), &'static str> {
        let segment = Segment {
            offset: header.p_offset(LE),
            address: header.p_vaddr(LE),
            file_bytes: header.p_filesz(LE),
            memory_bytes: header.p_memsz(LE),
            align: header.p_align(LE),
            prot: prot_of(header.p_flags(LE)),
        };
        if segment.memory_bytes == 0 {
            return Ok(());
        }
        if segment.file_bytes > segment.memory_bytes {
            return Err("a segment with more bytes in the file than in memory");
        }
        if segment.address % 4096 != segment.offset % 4096 {
            return Err("a segment whose address and offset are not congruent");
        }
        let end = segment.address.checked_add(segment.memory_bytes);
        if end.is_none_or(|end| end > crate::linux::mm::bounds::USER_END) {
            return Err("a segment beyond user space");
        }
        if self.segments.last().is_some_and(|last| last.address > segment.address) {
            return Err("segments that are not in ascending order");
        }
        self.segments.push(segment);
        Ok(())
    }

    /// First and last page boundary of the image, unbiased.
    pub(crate) fn span(&self) -> (u64, u64) {
        let start = self.segments.iter().map(|s| s.address & !4095).min().unwrap_or(0);
        let ends =
            self.segments.iter().map(|s| (s.address + s.memory_bytes).next_multiple_of(4096));
        (start, ends.max().unwrap_or(0))
    }

    /// The largest alignment a segment asks for; at least a page.
    pub(crate) fn align(&self) -> u64 {
        let aligns = self.segments.iter().map(|s| s.align);
        aligns.filter(|align| align.is_power_of_two()).max().unwrap_or(0).max(4096)
    }

    /// The file offset of an address.
    fn offset_of(&self, address: u64) -> Option<u64> {
        let within = |s: &&Segment| s.address <= address && address - s.address < s.file_bytes;
        let segment = self.segments.iter().find(within)?;
        (address - segment.address).checked_add(segment.offset)
    }

    fn read_dynamic(&self, file: &'a [u8], offset: u64, len: u64) -> Option<Dynamic<'a>> {
        let section = bytes_at(file, offset, len)?;
        let word = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
        let mut entries = Vec::new();
        let mut strings = None;
        for entry in section.chunks_exact(16).take(DYNAMIC_ENTRIES_MAX) {
            let (tag, value) = (word(&entry[..8])?, word(&entry[8..])?);
            match i64::try_from(tag).map(elf::DynamicTag) {
                Ok(elf::DT_NULL) => break,
                Ok(elf::DT_STRTAB) => strings = self.offset_of(value),
                Ok(tag) => entries.push((tag, value)),
                Err(_) => {}
            }
        }
        let strings = file.get(usize::try_from(strings?).ok()?..)?;
        let string = |at: u64| {
            let text = strings.get(usize::try_from(at).ok()?..)?;
            let end = text.iter().take(4096).position(|byte| *byte == 0)?;
            text.get(..end)
        };
        let mut dynamic = Dynamic::default();
        for (tag, value) in entries {
            match tag {
                elf::DT_NEEDED => dynamic.needed.extend(string(value)),
                elf::DT_RPATH => dynamic.rpath = string(value),
                elf::DT_RUNPATH => dynamic.runpath = string(value),
                _ => {}
            }
        }
        Some(dynamic)
    }
}

/// An ELF file's entry point, without its load bias.
pub(crate) fn entry_of(file: &[u8]) -> Option<u64> {
    elf::FileHeader64::<LE>::parse(file).ok().map(|header| header.e_entry(LE))
}

/// Whether an ELF file names a dynamic loader, whatever else is wrong with it.
#[must_use]
pub fn has_interpreter(file: &[u8]) -> bool {
    let header = elf::FileHeader64::<LE>::parse(file).ok();
    let segments = header.and_then(|header| header.program_headers(LE, file).ok());
    segments.is_some_and(|all| all.iter().any(|one| one.p_type(LE) == elf::PT_INTERP))
}

/// Tells what is not a 64-bit x86 ELF file by its first bytes.
fn check_kind(path: &Path, file: &[u8]) -> Result<(), LoadError> {
    let path = || path.to_owned();
    if let Some(line) = file.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.get(..line.len().min(256)).unwrap_or_default();
        let interpreter = String::from_utf8_lossy(line).trim().to_owned();
        return Err(LoadError::Script { path: path(), interpreter });
    }
    if !file.starts_with(b"\x7fELF") {
        return Err(LoadError::NotElf { path: path() });
    }
    let machine = match file.get(18..20) {
        Some(&[low, high]) => u16::from_le_bytes([low, high]),
        _ => return Err(LoadError::BadElf { path: path(), what: "no complete header" }),
    };
    if file.get(4) == Some(&1) {
        return Err(LoadError::Not64Bit { path: path() });
    }
    if machine != 62 {
        return Err(LoadError::OtherMachine { path: path(), machine });
    }
    if file.get(4) != Some(&2) || file.get(5) != Some(&1) {
        return Err(LoadError::BadElf { path: path(), what: "unknown class or byte order" });
    }
    Ok(())
}
