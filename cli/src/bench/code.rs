//! The guests' code, as bytes: no compiler is needed where a host is measured. Straight lines
//! where a host may emulate code at CPL 0, because a loop's own instructions would count there.
//!
//! Never runs anything.

use dejavm_engine::address::PAGE_SIZE;
use dejavm_engine::guest::process::trap;
use dejavm_engine::machine::bare;

/// Bytes of the store that a first touch is, `mov byte [rdi], 1`.
pub const TOUCH_BYTES: u64 = 3;
/// From one first touch to the next: as many bytes as the engine maps around a fault.
const TOUCH_STRIDE: u32 = 64 * PAGE_BYTES;
/// Address space that a program maps for its pages.
const PAGES_BYTES: u32 = 48 << 20;
/// Where a program's file is loaded.
const PROGRAM_AT: u64 = 0x40_0000;
/// Bytes of the ELF header, of a program header, and of a section header.
const EHDR_BYTES: u16 = size_of::<libc::Elf64_Ehdr>() as u16;
const PHDR_BYTES: u16 = size_of::<libc::Elf64_Phdr>() as u16;
const SHDR_BYTES: u16 = size_of::<libc::Elf64_Shdr>() as u16;
/// Bytes of the ELF header and its one program header.
const HEADERS_BYTES: usize = (EHDR_BYTES + PHDR_BYTES) as usize;
const PAGE_BYTES: u32 = PAGE_SIZE as u32;

/// System calls by number; all of these fit into a byte.
const MMAP: u8 = libc::SYS_mmap as u8;
const EXIT_GROUP: u8 = libc::SYS_exit_group as u8;
const GETPPID_NUMBER: u8 = libc::SYS_getppid as u8;
const _: () = assert!(libc::SYS_read == 0, "program() reads by xor eax, eax");
/// `PROT_READ | PROT_WRITE`, and `MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE`.
const PROT: u8 = (libc::PROT_READ | libc::PROT_WRITE) as u8;
const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// `exit_group(0)`.
const EXIT: [u8; 9] = [0xb8, EXIT_GROUP, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
/// `getppid()`.
pub const GETPPID: [u8; 7] = [0xb8, GETPPID_NUMBER, 0, 0, 0, 0x0f, 0x05];
/// `ud2`.
pub const UD2: [u8; 2] = [0x0f, 0x0b];
/// `int3`.
pub const INT3: [u8; 1] = [0xcc];
/// `cpuid` of leaf 0, and what is around it.
pub const CPUID: [u8; 4] = [0x31, 0xc0, 0x0f, 0xa2];
/// `xor eax, eax`.
pub const CPUID_LESS: [u8; 2] = [0x31, 0xc0];
/// `nop`.
pub const NOP: [u8; 1] = [0x90];

/// 32-bit code at CPL 0: the snapshot, `before` once, `body` `count` times, the end.
pub fn bare(before: &[u8], body: &[u8], count: u32) -> Vec<u8> {
    let mut code = vec![0xe6, bare::PORT_SNAPSHOT as u8];
    code.extend_from_slice(before);
    code.extend(body.repeat(count as usize));
    code.extend_from_slice(&[0xe6, bare::PORT_DONE as u8, 0xf4]);
    code
}

/// 32-bit code at CPL 0: after the snapshot a byte is written to each of `pages` pages from `at`.
pub fn bare_page_writes(at: u32, pages: u32) -> Vec<u8> {
    let store = |page: u32| {
        let [a, b, c, d] = (at + page * PAGE_BYTES).to_le_bytes();
        [0xa2, a, b, c, d] // mov [moffs32], al
    };
    bare(&[], &(0..pages).flat_map(store).collect::<Vec<u8>>(), 1)
}

/// `mov [gate + offset], al` at CPL 3: a store to no memory.
pub fn gate_store(offset: u64) -> Vec<u8> {
    [&[0xa2][..], &(trap::GATE_AT + offset).to_le_bytes()].concat()
}

/// `mov al, [gate]` at CPL 3.
pub fn gate_load() -> Vec<u8> {
    [&[0xa0][..], &trap::GATE_AT.to_le_bytes()].concat()
}

/// First touches of `count` pages that are so far apart that each one faults.
pub fn first_touches(count: u32) -> Vec<u8> {
    let mut one = vec![0xc6, 0x07, 0x01]; // mov byte [rdi], 1
    one.extend_from_slice(&[0x48, 0x81, 0xc7]); // add rdi, TOUCH_STRIDE
    one.extend_from_slice(&TOUCH_STRIDE.to_le_bytes());
    [&PAGES_TO_RDI[..], &one.repeat(count as usize)].concat()
}

/// Writes a byte to each of `pages` pages.
pub fn page_writes(pages: u32) -> Vec<u8> {
    if pages == 0 {
        return Vec::new();
    }
    let mut code = PAGES_TO_RDI.to_vec();
    code.push(0xb9); // mov ecx, pages
    code.extend_from_slice(&pages.to_le_bytes());
    // again: mov byte [rdi], 'x'; add rdi, PAGE_BYTES; dec ecx; jnz again
    code.extend_from_slice(&[0xc6, 0x07, b'x', 0x48, 0x81, 0xc7]);
    code.extend_from_slice(&PAGE_BYTES.to_le_bytes());
    code.extend_from_slice(&[0xff, 0xc9, 0x75, 0xf2]);
    code
}

/// `mov rdi, r12`, where [`program`] keeps the address of its pages.
const PAGES_TO_RDI: [u8; 3] = [0x4c, 0x89, 0xe7];

/// A static ELF program of one segment: it maps pages, executes `before`, reads standard input
/// (which is where its snapshot is taken), executes `body`, and exits.
pub fn program(before: &[u8], body: &[u8]) -> Vec<u8> {
    let mut code = Vec::new();
    // mmap(0, PAGES_BYTES, PROT, FLAGS, -1, 0)
    code.extend_from_slice(&[0xb8, MMAP, 0, 0, 0, 0x31, 0xff, 0xbe]);
    code.extend_from_slice(&PAGES_BYTES.to_le_bytes());
    code.extend_from_slice(&[0xba, PROT, 0, 0, 0, 0x41, 0xba]);
    code.extend_from_slice(&FLAGS.to_le_bytes());
    code.extend_from_slice(&[0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff, 0x45, 0x31, 0xc9]);
    code.extend_from_slice(&[0x0f, 0x05, 0x49, 0x89, 0xc4]); // syscall; mov r12, rax
    code.extend_from_slice(before);
    // read(0, rsp - 64, 1)
    code.extend_from_slice(&[0x31, 0xc0, 0x31, 0xff, 0x48, 0x8d, 0x74, 0x24, 0xc0]);
    code.extend_from_slice(&[0xba, 1, 0, 0, 0, 0x0f, 0x05]);
    code.extend_from_slice(body);
    code.extend_from_slice(&EXIT);
    elf(&code)
}

/// A file whose one segment is all of it, readable and executable, entered at `code`.
fn elf(code: &[u8]) -> Vec<u8> {
    let bytes = (HEADERS_BYTES + code.len()) as u64;
    let mut file = Vec::with_capacity(HEADERS_BYTES + code.len());
    let half = |value: u16| value.to_le_bytes();
    // e_ident: 64-bit, little-endian, version 1, System V.
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend([half(libc::ET_EXEC), half(libc::EM_X86_64)].concat());
    file.extend(libc::EV_CURRENT.to_le_bytes());
    file.extend((PROGRAM_AT + HEADERS_BYTES as u64).to_le_bytes()); // e_entry
    file.extend(u64::from(EHDR_BYTES).to_le_bytes()); // e_phoff
    file.extend(0_u64.to_le_bytes()); // e_shoff
    file.extend(0_u32.to_le_bytes()); // e_flags
    // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    let sizes = [EHDR_BYTES, PHDR_BYTES, 1, SHDR_BYTES, 0, 0];
    file.extend(sizes.map(half).concat());
    file.extend(libc::PT_LOAD.to_le_bytes());
    file.extend((libc::PF_R | libc::PF_X).to_le_bytes());
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
    for word in [0, PROGRAM_AT, PROGRAM_AT, bytes, bytes, PAGE_BYTES.into()] {
        file.extend(word.to_le_bytes());
    }
    file.extend_from_slice(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_headers_are_as_long_as_they_say() {
        let file = elf(&[0x90]);
        assert_eq!(file.len(), HEADERS_BYTES + 1);
        assert_eq!(file[HEADERS_BYTES], 0x90);
    }

    #[test]
    fn a_loop_jumps_back_to_its_store() {
        let code = page_writes(3);
        let jump = code.len() as i64 + i64::from(code[code.len() - 1] as i8);
        assert_eq!(code[jump as usize..][..3], [0xc6, 0x07, b'x']);
        assert!(page_writes(0).is_empty());
    }
}
