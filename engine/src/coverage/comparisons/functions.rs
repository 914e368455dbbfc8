//! Functions that compare strings, and where a program has them.
//!
//! A C library has several of each and chooses one by what the CPU can do (`STT_GNU_IFUNC`), which
//! then has no symbol that a program uses. So their addresses come from where the dynamic linker
//! wrote them. Never calls a resolver.

use super::compared::ComparedKind;
use crate::symbols::elf::Layout;

/// Bytes of a string that are looked at.
pub const STRING_BYTES_MAX: usize = 64;

/// How a function takes its strings, as its first arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StringFunction {
    /// `memcmp`: two addresses, and a length.
    Memory,
    /// `strcmp`: two strings that end with a NUL.
    Strings,
    /// `strncmp`: likewise, and the greatest length.
    Bounded,
    /// `strstr`: a string that ends with a NUL, in another one.
    Search,
    /// `memmem`: address and length, twice.
    MemorySearch,
}

/// The functions by their names.
const NAMES: [(&str, StringFunction); 24] = [
    ("memcmp", StringFunction::Memory),
    ("bcmp", StringFunction::Memory),
    ("__memcmpeq", StringFunction::Memory),
    ("CRYPTO_memcmp", StringFunction::Memory),
    ("strcmp", StringFunction::Strings),
    ("strcasecmp", StringFunction::Strings),
    ("strcoll", StringFunction::Strings),
    ("g_strcmp0", StringFunction::Strings),
    ("xmlStrcmp", StringFunction::Strings),
    ("xmlStrEqual", StringFunction::Strings),
    ("xmlStrcasecmp", StringFunction::Strings),
    ("curl_strequal", StringFunction::Strings),
    ("OPENSSL_strcasecmp", StringFunction::Strings),
    ("strncmp", StringFunction::Bounded),
    ("strncasecmp", StringFunction::Bounded),
    ("xmlStrncmp", StringFunction::Bounded),
    ("xmlStrncasecmp", StringFunction::Bounded),
    ("curl_strnequal", StringFunction::Bounded),
    ("OPENSSL_strncasecmp", StringFunction::Bounded),
    ("strstr", StringFunction::Search),
    ("strcasestr", StringFunction::Search),
    ("xmlStrstr", StringFunction::Search),
    ("xmlStrcasestr", StringFunction::Search),
    ("memmem", StringFunction::MemorySearch),
];

/// Where a program has a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    name: &'static str,
    function: StringFunction,
    /// Only the way to it that calls of one image take (an entry of its PLT), as long as the dynamic
    /// linker has not looked it up.
    is_way: bool,
    at: u64,
}

/// The function with this name, and the name.
pub(super) fn named(name: &[u8]) -> Option<(&'static str, StringFunction)> {
    NAMES.iter().find(|(own, _)| own.as_bytes() == name).copied()
}

impl StringFunction {
    /// What it compares.
    #[must_use]
    pub fn kind(self) -> ComparedKind {
        match self {
            Self::Memory => ComparedKind::Bytes,
            Self::Strings | Self::Bounded | Self::Search | Self::MemorySearch => ComparedKind::Text,
        }
    }

    /// What it compares when it is entered with these arguments (RDI, RSI, RDX, RCX). `read` gives
    /// what is readable of so many bytes at an address.
    #[must_use]
    pub fn compared(
        self,
        [first, second, third, fourth]: [u64; 4],
        read: &dyn Fn(u64, usize) -> Vec<u8>,
    ) -> (Vec<u8>, Vec<u8>) {
        let bound = |length: u64| usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = |at, length| read(at, bound(length).min(STRING_BYTES_MAX));
        let string = |at, length| {
            let mut bytes = bytes(at, length);
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            bytes.truncate(end);
            bytes
        };
        match self {
            Self::Memory => (bytes(first, third), bytes(second, third)),
            Self::Strings => (string(first, u64::MAX), string(second, u64::MAX)),
            Self::Bounded => (string(first, third), string(second, third)),
            // Only where it would have to stand is not known.
            Self::Search => (string(first, u64::MAX), string(second, u64::MAX)),
            Self::MemorySearch => (bytes(first, second), bytes(third, fourth)),
        }
    }
}

/// The functions that compare strings in the images of a program, each an ELF file and its base, by
/// their addresses in the address space. `read` gives what is readable of so many bytes there.
#[must_use]
pub fn functions(
    images: &[(&[u8], u64)],
    read: &dyn Fn(u64, usize) -> Vec<u8>,
) -> Vec<(u64, StringFunction)> {
    let mut found: Vec<_> =
        images.iter().flat_map(|&(elf, base)| of_image(elf, base, read)).collect();
    found.sort_unstable();
    // A way to it is of no use where the function itself is known.
    let known: Vec<_> = found.iter().filter(|f| !f.is_way).map(|f| f.name).collect();
    found.retain(|f| !f.is_way || !known.contains(&f.name));
    let mut functions: Vec<_> = found.into_iter().map(|f| (f.at, f.function)).collect();
    functions.sort_unstable_by_key(|(at, _)| *at);
    functions.dedup_by_key(|(at, _)| *at);
    functions
}

/// Those that the image defines, and those that it uses.
fn of_image(elf: &[u8], base: u64, read: &dyn Fn(u64, usize) -> Vec<u8>) -> Vec<Found> {
    let Ok(layout) = Layout::parse(elf) else { return Vec::new() };
    let word = |at: u64| {
        let bytes = read(at.wrapping_add(base), 8);
        bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    };
    let mut found = Vec::new();
    let resolved = layout.ifunc_slots(elf);
    for symbol in layout.functions(elf) {
        let Some((name, function)) = elf.get(symbol.name.clone()).and_then(named) else {
            continue;
        };
        if !symbol.is_ifunc {
            found.push(Found {
                name,
                function,
                is_way: false,
                at: symbol.address.wrapping_add(base),
            });
            continue;
        }
        let slots = resolved.iter().filter(|(_, resolver)| *resolver == symbol.address);
        let addresses = slots.filter_map(|(slot, _)| word(*slot));
        found.extend(addresses.map(|at| Found { name, function, is_way: false, at }));
    }
    for (slot, name) in layout.imported_slots(elf) {
        let Some((name, function)) = elf.get(name).and_then(named) else { continue };
        let Some(at) = word(slot) else { continue };
        if !layout.contains(at.wrapping_sub(base)) {
            found.push(Found { name, function, is_way: false, at });
        } else if let Some(at) = jump_before(at, slot.wrapping_add(base), read) {
            found.push(Found { name, function, is_way: true, at });
        }
    }
    found
}

/// The entry of a PLT that jumps by `slot` and ends at `at`, where a slot leads that the dynamic
/// linker has not filled yet (psABI, "Procedure Linkage Table").
fn jump_before(at: u64, slot: u64, read: &dyn Fn(u64, usize) -> Vec<u8>) -> Option<u64> {
    // JMP [RIP + rel32]
    let entry = at.wrapping_sub(6);
    let bytes = read(entry, 6);
    let distance = bytes.strip_prefix(&[0xff, 0x25])?.first_chunk()?;
    let target = at.wrapping_add_signed(i64::from(i32::from_le_bytes(*distance)));
    (target == slot).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::tools::compile;

    /// Memory that holds `bytes` at `start`, and nothing else.
    fn memory(start: u64, bytes: &'static [u8]) -> impl Fn(u64, usize) -> Vec<u8> {
        move |at, length| {
            let offset = usize::try_from(at.wrapping_sub(start)).unwrap_or(usize::MAX);
            let rest = bytes.get(offset..).unwrap_or_default();
            rest.get(..length.min(rest.len())).unwrap_or_default().to_vec()
        }
    }

    #[test]
    fn a_function_compares_what_its_arguments_say() {
        let read = memory(0x1000, b"first\0second\0");
        let of = |function: StringFunction, arguments| function.compared(arguments, &read);
        let pair = |left: &[u8], right: &[u8]| (left.to_vec(), right.to_vec());
        let (first, second) = (0x1000, 0x1006);
        assert_eq!(of(StringFunction::Strings, [first, second, 0, 0]), pair(b"first", b"second"));
        assert_eq!(of(StringFunction::Bounded, [first, second, 3, 0]), pair(b"fir", b"sec"));
        assert_eq!(
            of(StringFunction::Memory, [first, second, 7, 0]),
            pair(b"first\0s", b"second\0")
        );
        assert_eq!(of(StringFunction::MemorySearch, [first, 5, second, 2]), pair(b"first", b"se"));
        assert_eq!(of(StringFunction::Memory, [first, second, 0, 0]), pair(b"", b""));
        assert_eq!(of(StringFunction::Strings, [0, u64::MAX, 0, 0]), pair(b"", b""));
        let longest = of(StringFunction::Memory, [first, second, u64::MAX, 0]);
        assert!(longest.0.len() <= STRING_BYTES_MAX);
    }

    #[test]
    fn a_program_has_its_own_functions_and_the_ways_to_those_it_uses() {
        let source = "
            #include <string.h>
            int memcmp(const void *a, const void *b, size_t n) { return a < b; }
            int main(int argc, char **argv) { return strcmp(argv[0], argv[1]) + memcmp(argv, argv, 3); }
        ";
        let folder = tempfile::tempdir().unwrap();
        let options = ["-O0", "-fno-builtin", "-Wl,-z,lazy"];
        let Some(path) = compile(folder.path(), source, &options) else { return };
        let elf = std::fs::read(path).unwrap();
        let layout = Layout::parse(&elf).unwrap();
        let base = 0x1_0000_0000;
        // As the loader leaves it: a slot holds what its relocation says until it is looked up.
        let read = |at: u64, length: usize| {
            let mut bytes = layout.bytes_at(&elf, at.wrapping_sub(base)).to_vec();
            bytes.truncate(length);
            if let (8, Some(word)) = (length, bytes.first_chunk::<8>()) {
                bytes = u64::from_le_bytes(*word).wrapping_add(base).to_le_bytes().to_vec();
            }
            bytes
        };
        let found = functions(&[(&elf, base)], &read);
        let kinds: Vec<_> = found.iter().map(|(_, function)| *function).collect();
        assert!(kinds.contains(&StringFunction::Memory), "{found:x?}");
        assert!(kinds.contains(&StringFunction::Strings), "{found:x?}");
        let (at, _) = found.iter().find(|(_, f)| *f == StringFunction::Strings).unwrap();
        assert_eq!(layout.bytes_at(&elf, at - base).get(..2), Some(&[0xff, 0x25][..]));
    }

    #[test]
    fn what_is_no_image_has_none() {
        assert_eq!(functions(&[(b"no ELF", 0)], &|_, _| Vec::new()), []);
    }
}
