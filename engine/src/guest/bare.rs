//! Bare guests: flat binaries in real, protected or long mode, and freestanding ELF, at CPL 0.
//!
//! Says where an image goes and with which registers it starts. Never runs it; the port ABI that
//! it may use is served by `machine::bare` and described in `docs/guests-bare.md`.

use crate::address::{Gpa, PAGE_SIZE};
use crate::arch::control::{
    CR0_CD, CR0_EM, CR0_MP, CR0_NE, CR0_NW, CR0_PE, CR0_PG, CR0_WP, CR4_OSFXSR, CR4_OSXMMEXCPT,
    CR4_PAE, EFER_LMA, EFER_LME, RFLAGS_RESERVED,
};
use crate::memory::{GuestMemory, OutOfRam, SlotSpec};
use crate::paging::{ACCESSED, DIRTY, LARGE, PRESENT, WRITABLE};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use object::elf::{EM_386, EM_X86_64, FileHeader32, FileHeader64, Machine};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind};
use serde::{Deserialize, Serialize};

/// The mode in which a bare guest starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// 16-bit real mode; segments start at 0, so that the entry is below 64 KiB, unless
    /// [`BareSpec::real_mode_segment`] says otherwise.
    Real,
    /// 32-bit protected mode, flat segments, no paging.
    Protected,
    /// 64-bit long mode, the lowest 4 GiB mapped to themselves with 2 MiB pages.
    Long,
}

/// A bare guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BareSpec {
    /// Starting mode.
    pub mode: Mode,
    /// Where RAM starts.
    pub ram_start: Gpa,
    /// RAM in bytes; whole pages.
    pub ram_bytes: u64,
    /// The image: a flat binary, or an ELF file where [`load_at`](Self::load_at) is `None`.
    #[serde(skip)]
    pub image: Vec<u8>,
    /// Where a flat image goes; `None` loads an ELF file at its own physical addresses.
    pub load_at: Option<Gpa>,
    /// The first instruction; an ELF file's own entry where `None`.
    pub entry: Option<u64>,
    /// In real mode, the segment (selector) that CS, DS, ES and SS start with; their base is 16
    /// times it, and the entry is relative to it.
    pub real_mode_segment: u16,
    /// `KVM_CREATE_IRQCHIP`, and with it `KVM_CREATE_PIT2`.
    pub irqchip: bool,
    /// `KVM_SET_TSS_ADDR`.
    pub tss_address: Option<u32>,
    /// `KVM_SET_IDENTITY_MAP_ADDR`.
    pub identity_map_address: Option<u64>,
}

/// Why an image cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It does not fit.
    #[error("the image does not fit into the guest's RAM")]
    OutOfRam(#[from] OutOfRam),
    /// It is no ELF file, and no load address was given.
    #[error("the image is no ELF file and no load address was given")]
    NotElf(#[source] object::Error),
    /// A flat image needs an entry.
    #[error("a flat image needs an entry address")]
    NoEntry,
    /// A segment's file range lies outside of the file.
    #[error("segment {index} of the ELF file lies outside of the file")]
    Segment {
        /// Its number.
        index: usize,
    },
    /// The file is for another kind of CPU or mode.
    #[error("the ELF file is not for an x86 CPU in the mode in which the guest starts")]
    Machine,
    /// The first instruction would not be RAM that the starting mode reaches.
    #[error("the entry {entry:#x} is not in the guest's RAM, {ram_start}..{ram_end:#x}")]
    EntryOutside {
        /// Linear address of the entry.
        entry: u64,
        /// First byte of RAM.
        ram_start: Gpa,
        /// First byte after RAM.
        ram_end: u64,
    },
    /// Long mode needs room for its tables.
    #[error(
        "long mode needs the first {LONG_TABLES_BYTES} bytes of RAM for page tables, below the image"
    )]
    NoRoomForTables,
}

/// log2 of the bytes of a large page (Intel SDM vol. 3, 4.5.4).
const LARGE_PAGE_SHIFT: u64 = 21;
/// No segment, 64-bit code, data; all flat, and accessed (Intel SDM vol. 3, 3.4.5).
const GDT: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// Selectors of the latter two.
const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;
/// Segment types: code that can be read, data that can be written, both accessed (Intel SDM vol. 3,
/// 3.4.5.1, table 3-1).
const CODE_READ_ACCESSED: u8 = 0xb;
const DATA_WRITE_ACCESSED: u8 = 0x3;

/// Bytes at the start of RAM that long mode's page tables and descriptor table take.
pub const LONG_TABLES_BYTES: u64 = 7 * PAGE_SIZE as u64;

impl BareSpec {
    /// The guest of the KVM lecture: 10 MB of RAM at 0x100000, a flat binary entered at
    /// 0x00100f00 in flat 32-bit segments, interrupt controllers in the kernel.
    #[must_use]
    pub fn lecture(image: Vec<u8>) -> Self {
        Self {
            mode: Mode::Protected,
            ram_start: Gpa(0x10_0000),
            ram_bytes: 10 << 20,
            image,
            load_at: Some(Gpa(0x10_0f00)),
            entry: Some(0x0010_0f00),
            real_mode_segment: 0,
            irqchip: true,
            tss_address: Some(0xffff_d000),
            identity_map_address: Some(0xffff_c000),
        }
    }

    /// A flat image at `at` in `ram_bytes` of RAM from address 0, entered at its first byte.
    #[must_use]
    pub fn flat(mode: Mode, image: Vec<u8>, at: Gpa, ram_bytes: u64) -> Self {
        Self {
            mode,
            ram_start: Gpa(0),
            ram_bytes,
            image,
            load_at: Some(at),
            entry: Some(at.0),
            real_mode_segment: 0,
            irqchip: false,
            tss_address: Some(0xffff_d000),
            identity_map_address: Some(0xffff_c000),
        }
    }

    /// A freestanding ELF file in `ram_bytes` of RAM from address 0: a 64-bit one in long mode, a
    /// 32-bit one in protected mode.
    #[must_use]
    pub fn elf(image: Vec<u8>, ram_bytes: u64) -> Self {
        let mode = match FileKind::parse(image.as_slice()) {
            Ok(FileKind::Elf32) => Mode::Protected,
            _ => Mode::Long,
        };
        let flat = Self::flat(mode, image, Gpa(0), ram_bytes);
        Self { load_at: None, entry: None, ..flat }
    }

    /// The guest's one memory slot.
    #[must_use]
    pub fn slot(&self) -> SlotSpec {
        SlotSpec { start: self.ram_start, bytes: self.ram_bytes, log_dirty: true }
    }

    /// Copies the image into memory, and in long mode builds the page tables. Returns the first
    /// instruction, relative to CS.
    ///
    /// # Errors
    /// The image does not fit or cannot be read, or the entry is not in RAM.
    pub fn load(&self, memory: &mut GuestMemory) -> Result<u64, ImageError> {
        let entry = match self.load_at {
            Some(at) => {
                self.place(memory, at, &self.image, self.image.len() as u64)?;
                self.entry.ok_or(ImageError::NoEntry)?
            }
            None => self.load_elf(memory)?,
        };
        self.check_entry(entry)?;
        if self.mode == Mode::Long {
            self.build_tables(memory).map_err(|_| ImageError::NoRoomForTables)?;
        }
        Ok(entry)
    }

    /// Loads an ELF file's segments at their physical addresses, and returns its entry.
    fn load_elf(&self, memory: &mut GuestMemory) -> Result<u64, ImageError> {
        let kind = FileKind::parse(self.image.as_slice()).map_err(ImageError::NotElf)?;
        match kind {
            FileKind::Elf32 => self.load_elf_of::<FileHeader32<Endianness>>(EM_386, memory),
            _ => self.load_elf_of::<FileHeader64<Endianness>>(EM_X86_64, memory),
        }
    }

    fn load_elf_of<Elf: FileHeader<Endian = Endianness>>(
        &self,
        machine: Machine,
        memory: &mut GuestMemory,
    ) -> Result<u64, ImageError> {
        let image = self.image.as_slice();
        let elf = Elf::parse(image).map_err(ImageError::NotElf)?;
        let endian = elf.endian().map_err(ImageError::NotElf)?;
        let long = machine == EM_X86_64;
        if elf.e_machine(endian) != machine || long != (self.mode == Mode::Long) {
            return Err(ImageError::Machine);
        }
        let headers = elf.program_headers(endian, image).map_err(ImageError::NotElf)?;
        for (index, header) in headers.iter().enumerate() {
            if header.p_type(endian) != object::elf::PT_LOAD {
                continue;
            }
            let bytes = header.data(endian, image).map_err(|()| ImageError::Segment { index })?;
            // What lies past the file's bytes is zero already: RAM starts that way.
            let at = Gpa(header.p_paddr(endian).into());
            self.place(memory, at, bytes, header.p_memsz(endian).into())?;
        }
        Ok(self.entry.unwrap_or(elf.e_entry(endian).into()))
    }

    /// Copies `bytes` to `at`, where `wanted` bytes must be RAM, clear of the page tables.
    fn place(
        &self,
        memory: &mut GuestMemory,
        at: Gpa,
        bytes: &[u8],
        wanted: u64,
    ) -> Result<(), ImageError> {
        let wanted = wanted.max(bytes.len() as u64);
        let fits = at.0.checked_sub(self.ram_start.0).is_some_and(|offset| {
            offset.checked_add(wanted).is_some_and(|end| end <= self.ram_bytes)
        });
        if !fits {
            let bytes = usize::try_from(wanted).unwrap_or(usize::MAX);
            return Err(OutOfRam { at, bytes }.into());
        }
        if self.mode == Mode::Long && wanted > 0 && at.0 - self.ram_start.0 < LONG_TABLES_BYTES {
            return Err(ImageError::NoRoomForTables);
        }
        memory.write(at, bytes)?;
        Ok(())
    }

    /// Refuses an entry that is not RAM, or that the mode cannot reach: every mode here starts
    /// within the lowest 4 GiB, real mode within 64 KiB of its segment.
    fn check_entry(&self, entry: u64) -> Result<(), ImageError> {
        let (base, reach) = match self.mode {
            Mode::Real => (u64::from(self.real_mode_segment) << 4, 0x1_0000),
            Mode::Protected | Mode::Long => (0, 1 << 32),
        };
        let linear = entry.saturating_add(base);
        let ram_end = self.ram_end();
        if entry < reach && (self.ram_start.0..ram_end).contains(&linear) {
            return Ok(());
        }
        Err(ImageError::EntryOutside { entry: linear, ram_start: self.ram_start, ram_end })
    }

    fn ram_end(&self) -> u64 {
        self.ram_start.0.saturating_add(self.ram_bytes)
    }

    /// Four page directories that map 4 GiB with 2 MiB pages, accessed and dirty set beforehand,
    /// and a descriptor table.
    fn build_tables(&self, memory: &mut GuestMemory) -> Result<(), OutOfRam> {
        /// Accessed and dirty beforehand, so that no walk writes a table.
        const TABLE: u64 = PRESENT | WRITABLE | ACCESSED | DIRTY;
        let base = self.ram_start.0;
        let page = PAGE_SIZE as u64;
        memory.write(Gpa(base), &((base + page) | TABLE).to_le_bytes())?;
        for directory in 0..4 {
            let table = base + (2 + directory) * page;
            memory.write(Gpa(base + page + directory * 8), &(table | TABLE).to_le_bytes())?;
            for index in 0..512 {
                let entry = ((directory * 512 + index) << LARGE_PAGE_SHIFT) | TABLE | LARGE;
                memory.write(Gpa(table + index * 8), &entry.to_le_bytes())?;
            }
        }
        let bytes: Vec<u8> = GDT.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        memory.write(Gpa(base + 6 * page), &bytes)
    }

    /// General registers at the first instruction: RFLAGS 2, the stack at the end of RAM (in real
    /// mode at the end of the segment's 64 KiB), all else 0.
    #[must_use]
    pub fn regs(&self, entry: u64) -> kvm_regs {
        let rsp = match self.mode {
            Mode::Real => 0xfff0,
            // Neither mode starts with more than 4 GiB mapped.
            Mode::Protected | Mode::Long => self.ram_end().min(0xffff_fff0) & !0xf,
        };
        kvm_regs { rip: entry, rsp, rflags: RFLAGS_RESERVED, ..Default::default() }
    }

    /// Special registers at the first instruction, from those of a reset vCPU.
    #[must_use]
    pub fn sregs(&self, reset: &kvm_sregs) -> kvm_sregs {
        match self.mode {
            Mode::Real => {
                let segment = |template: kvm_segment| kvm_segment {
                    selector: self.real_mode_segment,
                    base: u64::from(self.real_mode_segment) << 4,
                    limit: 0xffff,
                    ..template
                };
                let data = segment(reset.ds);
                kvm_sregs { cs: segment(reset.cs), ds: data, es: data, ss: data, ..*reset }
            }
            Mode::Protected => flat(reset, 0, reset.cr0 | CR0_PE),
            Mode::Long => {
                // The caches on; EM off, so that SSE works.
                let off = CR0_CD | CR0_NW | CR0_EM;
                let cr0 = (reset.cr0 & !off) | CR0_PE | CR0_PG | CR0_MP | CR0_NE | CR0_WP;
                kvm_sregs {
                    cr3: self.ram_start.0,
                    cr4: reset.cr4 | CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT,
                    efer: EFER_LME | EFER_LMA,
                    gdt: kvm_bindings::kvm_dtable {
                        base: self.ram_start.0 + 6 * PAGE_SIZE as u64,
                        limit: size_of_val(&GDT) as u16 - 1,
                        ..Default::default()
                    },
                    ..flat(reset, 1, cr0)
                }
            }
        }
    }
}

/// Flat code and data segments; `long` is CS.L.
fn flat(reset: &kvm_sregs, long: u8, cr0: u64) -> kvm_sregs {
    let code = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: CODE_SELECTOR,
        type_: CODE_READ_ACCESSED,
        present: 1,
        dpl: 0,
        db: 1 - long,
        s: 1,
        l: long,
        g: 1,
        ..Default::default()
    };
    let data =
        kvm_segment { selector: DATA_SELECTOR, type_: DATA_WRITE_ACCESSED, db: 1, l: 0, ..code };
    kvm_sregs { cs: code, ds: data, es: data, fs: data, gs: data, ss: data, cr0, ..*reset }
}
