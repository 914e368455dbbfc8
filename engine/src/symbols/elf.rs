//! The parts of an x86-64 ELF image that symbolisation and block discovery read, as plain values:
//! segments, sections, function symbols, relocated pointers.
//!
//! Never loads an image and never applies a bias: every address here is a link-time one. Never
//! trusts a number of the file: sizes are clipped to the bytes that exist, counts are capped.

use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Rela, SectionHeader, Sym};
use std::ops::Range;

/// More program headers than this are ignored; a real image has about a dozen.
const SEGMENTS_MAX: usize = 128;
/// More sections than this are ignored; a linked image has a few dozen.
const SECTIONS_MAX: usize = 4096;
/// Longer section and symbol names are treated as absent.
const NAME_BYTES_MAX: usize = 4096;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The header is not an ELF64 little-endian one.
    #[error("read the ELF header")]
    Header(#[source] object::read::Error),
    /// The image is for another machine.
    #[error("ELF machine {machine} is not x86-64")]
    Machine {
        /// `e_machine`.
        machine: u16,
    },
    /// The program headers lie outside the file.
    #[error("read the ELF program headers")]
    ProgramHeaders(#[source] object::read::Error),
}

/// One `PT_LOAD` segment.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub address: u64,
    /// Size in memory in bytes.
    pub size: u64,
    /// The bytes of the file behind it; never longer than `size`, always inside the file.
    pub file: Range<usize>,
    pub executable: bool,
}

impl Segment {
    /// The link-time address after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }
}

/// One section with bytes in the file.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub name: String,
    pub kind: elf::SectionType,
    pub address: u64,
    pub file: Range<usize>,
    pub compressed: bool,
    /// The string table of a symbol table.
    strings: Option<Range<usize>>,
}

/// A function symbol (`STT_FUNC` or `STT_GNU_IFUNC`) defined in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FunctionSymbol {
    pub address: u64,
    /// Zero when the symbol does not tell it (assembly, mostly).
    pub size: u64,
    /// Where the name is in the file; empty when it has none.
    pub name: Range<usize>,
    /// A global name is preferred to a local one at the same address.
    pub global: bool,
    /// It is a resolver (`STT_GNU_IFUNC`), which returns the address of the function.
    pub is_ifunc: bool,
}

/// What an image's headers say.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub entry: u64,
    /// The image runs at its link-time addresses (`ET_EXEC`).
    pub is_fixed: bool,
    pub segments: Vec<Segment>,
    /// Empty when the section headers are stripped or broken.
    pub sections: Vec<Section>,
    /// `PT_GNU_EH_FRAME`: address and file bytes of `.eh_frame_hdr`.
    pub eh_frame_hdr: Option<(u64, Range<usize>)>,
    dynamic: Vec<(elf::DynamicTag, u64)>,
}

impl Layout {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ElfError> {
        let header = FileHeader64::<LE>::parse(bytes).map_err(ElfError::Header)?;
        // `parse` checks class and version, not the byte order.
        header.endian().map_err(ElfError::Header)?;
        if !header.is_little_endian() || header.e_machine(LE) != elf::EM_X86_64 {
            return Err(ElfError::Machine { machine: header.e_machine(LE).0 });
        }
        let headers = header.program_headers(LE, bytes).map_err(ElfError::ProgramHeaders)?;
        let mut layout = Self {
            entry: header.e_entry(LE),
            is_fixed: header.e_type(LE) == elf::ET_EXEC,
            segments: Vec::new(),
            sections: sections(header, bytes),
            eh_frame_hdr: None,
            dynamic: Vec::new(),
        };
        for program in headers.iter().take(SEGMENTS_MAX) {
            layout.add_segment(program, bytes);
        }
        layout.segments.sort_by_key(|segment| segment.address);
        Ok(layout)
    }

    fn add_segment(&mut self, program: &elf::ProgramHeader64<LE>, bytes: &[u8]) {
        let file = clip(bytes, program.p_offset(LE), program.p_filesz(LE));
        match program.p_type(LE) {
            elf::PT_LOAD => {
                let size = program.p_memsz(LE);
                let length = file.len().min(usize::try_from(size).unwrap_or(usize::MAX));
                self.segments.push(Segment {
                    address: program.p_vaddr(LE),
                    size,
                    file: file.start..file.start + length,
                    executable: program.p_flags(LE).0 & elf::PF_X.0 != 0,
                });
            }
            elf::PT_GNU_EH_FRAME => self.eh_frame_hdr = Some((program.p_vaddr(LE), file)),
            elf::PT_DYNAMIC => {
                if let Ok(Some(entries)) = program.dynamic(LE, bytes) {
                    let entries = entries.iter().take(SECTIONS_MAX);
                    self.dynamic = entries.map(|e| (e.d_tag(LE), e.d_val(LE))).collect();
                }
            }
            _ => {}
        }
    }

    /// Whether the image has memory at `address`.
    pub(crate) fn contains(&self, address: u64) -> bool {
        self.segments.iter().any(|s| s.address <= address && address < s.end())
    }

    /// Whether `address` lies in an executable segment.
    pub(crate) fn is_code(&self, address: u64) -> bool {
        self.segments.iter().any(|s| s.executable && s.address <= address && address < s.end())
    }

    /// The file's bytes from `address` to the end of its segment; empty where there are none.
    pub(crate) fn bytes_at<'a>(&self, bytes: &'a [u8], address: u64) -> &'a [u8] {
        let found = self.segments.iter().find_map(|segment| {
            let offset = usize::try_from(address.checked_sub(segment.address)?).ok()?;
            bytes.get(segment.file.clone())?.get(offset..).filter(|rest| !rest.is_empty())
        });
        found.unwrap_or_default()
    }

    pub(crate) fn read_u64(&self, bytes: &[u8], address: u64) -> Option<u64> {
        self.bytes_at(bytes, address).first_chunk().map(|word| u64::from_le_bytes(*word))
    }

    pub(crate) fn read_i32(&self, bytes: &[u8], address: u64) -> Option<i32> {
        self.bytes_at(bytes, address).first_chunk().map(|word| i32::from_le_bytes(*word))
    }

    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The `.eh_frame` section: its address and its place in the file. Found through
    /// `.eh_frame_hdr` when there are no section headers.
    pub(crate) fn eh_frame(&self, bytes: &[u8]) -> Option<(u64, Range<usize>)> {
        if let Some(section) = self.section(".eh_frame") {
            return Some((section.address, section.file.clone()));
        }
        let (at, header) = self.eh_frame_hdr.clone()?;
        // Version 1, pointer encoded as pc-relative sdata4: the only form that linkers write.
        let [1, 0x1b, _, _, a, b, c, d] = *bytes.get(header)?.first_chunk::<8>()? else {
            return None;
        };
        let delta = i64::from(i32::from_le_bytes([a, b, c, d]));
        let address = at.wrapping_add(4).wrapping_add_signed(delta);
        let rest = self.bytes_at(bytes, address).len();
        let segment = self
            .segments
            .iter()
            .find(|s| s.address <= address && address < s.address.saturating_add(s.file_len()))?;
        (rest > 0).then(|| (address, segment.file.end - rest..segment.file.end))
    }

    /// Every defined function symbol of `.symtab` and `.dynsym`, sorted by address.
    pub(crate) fn functions(&self, bytes: &[u8]) -> Vec<FunctionSymbol> {
        let mut functions: Vec<_> = self
            .sections
            .iter()
            .filter(|s| matches!(s.kind, elf::SHT_SYMTAB | elf::SHT_DYNSYM))
            .flat_map(|section| self.functions_of(section, bytes))
            .collect();
        functions.sort_by_key(|f| (f.address, !f.global, f.name.start));
        functions.dedup_by(|a, b| a.address == b.address && bytes_eq(bytes, &a.name, &b.name));
        functions
    }

    fn functions_of(&self, section: &Section, bytes: &[u8]) -> Vec<FunctionSymbol> {
        let symbols: &[elf::Sym64<LE>] = entries_of(section, bytes);
        let wanted = symbols.iter().filter(|symbol| {
            matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC)
                && !symbol.is_undefined(LE)
                && self.is_code(symbol.st_value(LE))
        });
        wanted
            .map(|symbol| FunctionSymbol {
                address: symbol.st_value(LE),
                size: symbol.st_size(LE),
                name: name_range(bytes, section.strings.as_ref(), symbol.st_name(LE)),
                global: symbol.st_bind() != elf::STB_LOCAL,
                is_ifunc: symbol.st_type() == elf::STT_GNU_IFUNC,
            })
            .collect()
    }

    /// What the dynamic linker writes where: `(place, value)` of relative relocations, sorted.
    pub(crate) fn relative_relocations(&self, bytes: &[u8]) -> Vec<(u64, u64)> {
        self.relocations(bytes, elf::R_X86_64_RELATIVE)
    }

    /// The resolvers named by `R_X86_64_IRELATIVE` relocations.
    pub(crate) fn ifunc_resolvers(&self, bytes: &[u8]) -> Vec<u64> {
        self.ifunc_slots(bytes).into_iter().map(|(_, resolver)| resolver).collect()
    }

    /// Where the dynamic linker writes what a resolver returns: `(place, resolver)`, sorted.
    pub(crate) fn ifunc_slots(&self, bytes: &[u8]) -> Vec<(u64, u64)> {
        self.relocations(bytes, elf::R_X86_64_IRELATIVE)
    }

    /// Where the dynamic linker writes the address of a symbol: `(place, name)`, the name by its
    /// place in the file.
    pub(crate) fn imported_slots(&self, bytes: &[u8]) -> Vec<(u64, Range<usize>)> {
        let Some(symbols) = self.sections.iter().find(|s| s.kind == elf::SHT_DYNSYM) else {
            return Vec::new();
        };
        let table: &[elf::Sym64<LE>] = entries_of(symbols, bytes);
        let is_wanted = |entry: &&elf::Rela64<LE>| {
            matches!(entry.r_type(LE, false), elf::R_X86_64_JUMP_SLOT | elf::R_X86_64_GLOB_DAT)
        };
        let name = |entry: &elf::Rela64<LE>| {
            let symbol = table.get(entry.r_sym(LE, false) as usize)?;
            let name = name_range(bytes, symbols.strings.as_ref(), symbol.st_name(LE));
            Some((entry.r_offset(LE), name))
        };
        self.relocation_entries(bytes).filter(is_wanted).filter_map(name).collect()
    }

    fn relocations(&self, bytes: &[u8], kind: elf::RelocationType) -> Vec<(u64, u64)> {
        let wanted = self.relocation_entries(bytes).filter(|e| e.r_type(LE, false) == kind);
        let place = |e: &elf::Rela64<LE>| (e.r_offset(LE), e.r_addend(LE).cast_unsigned());
        let mut found: Vec<_> = wanted.map(place).collect();
        found.sort_unstable();
        found
    }

    fn relocation_entries<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = &'b elf::Rela64<LE>> {
        let sections = self.sections.iter().filter(|s| s.kind == elf::SHT_RELA);
        sections.flat_map(move |section| entries_of(section, bytes))
    }

    /// The address that a dynamic tag holds.
    pub(crate) fn dynamic(&self, tag: elf::DynamicTag) -> Option<u64> {
        self.dynamic.iter().find(|(t, _)| *t == tag).map(|(_, value)| *value)
    }
}

impl Segment {
    fn file_len(&self) -> u64 {
        self.file.len() as u64
    }
}

fn sections(header: &FileHeader64<LE>, bytes: &[u8]) -> Vec<Section> {
    let Ok(table) = header.sections(LE, bytes) else {
        return Vec::new();
    };
    let strings_of = |index: usize| {
        let section = table.section(object::SectionIndex(index)).ok()?;
        Some(clip(bytes, section.sh_offset(LE), section.sh_size(LE)))
    };
    let names = header.shstrndx(LE, bytes).ok().and_then(|index| strings_of(index as usize));
    let section = |raw: &elf::SectionHeader64<LE>| Section {
        name: {
            let range = name_range(bytes, names.as_ref(), raw.sh_name(LE));
            String::from_utf8_lossy(bytes.get(range).unwrap_or_default()).into_owned()
        },
        kind: raw.sh_type(LE),
        address: raw.sh_addr(LE),
        file: match raw.sh_type(LE) {
            elf::SHT_NOBITS => 0..0,
            _ => clip(bytes, raw.sh_offset(LE), raw.sh_size(LE)),
        },
        compressed: raw.sh_flags(LE).0 & elf::SHF_COMPRESSED.0 != 0,
        strings: strings_of(raw.sh_link(LE) as usize),
    };
    table.iter().take(SECTIONS_MAX).map(section).collect()
}

/// The part of `offset..offset + size` that lies inside `bytes`.
fn clip(bytes: &[u8], offset: u64, size: u64) -> Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let length = usize::try_from(size).unwrap_or(usize::MAX).min(bytes.len() - start);
    start..start + length
}

/// Where the NUL-terminated name at `offset` of a string table is; empty when it has no end.
fn name_range(bytes: &[u8], strings: Option<&Range<usize>>, offset: u32) -> Range<usize> {
    let found = strings.and_then(|strings| {
        let start = strings.start.checked_add(offset as usize)?;
        let end = strings.end.min(start.checked_add(NAME_BYTES_MAX)?);
        let length = bytes.get(start..end)?.iter().position(|byte| *byte == 0)?;
        Some(start..start + length)
    });
    found.unwrap_or_default()
}

/// The whole entries of a section that is a table.
fn entries_of<'b, T: object::pod::Pod>(section: &Section, bytes: &'b [u8]) -> &'b [T] {
    let data = bytes.get(section.file.clone()).unwrap_or_default();
    let count = data.len() / size_of::<T>();
    object::pod::slice_from_bytes(data, count).map_or(&[], |(entries, _)| entries)
}

fn bytes_eq(bytes: &[u8], a: &Range<usize>, b: &Range<usize>) -> bool {
    bytes.get(a.clone()) == bytes.get(b.clone())
}
