//! A snapshot file taken apart, and put together again with checksums that are right: as
//! docs/snapshot-format.md describes it, and not by the code that is tested.

use super::mutate::{interesting, mutate};
use super::tree::{Tree, read_number};
use dejavm_engine::machine::MachineSnapshot;
use rand::RngExt;
use rand::rngs::StdRng;
use std::path::Path;

const PREFIX_BYTES: usize = 24;
const ALIGN: u64 = 4096;

/// A snapshot file's pieces.
#[derive(Clone)]
pub struct Pieces {
    version: u32,
    /// The header up to its sections.
    pub head: Tree,
    /// The sections as values, by name.
    pub sections: Vec<(&'static str, Tree)>,
    /// Pages and byte strings.
    pub data: Vec<u8>,
}

impl Pieces {
    /// Takes the file at `path` apart.
    pub fn of(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let header = &bytes[PREFIX_BYTES..PREFIX_BYTES + word(12) as usize];
        let snapshot = MachineSnapshot::open(path).unwrap();
        let (layout, rest) = list(header, &["start", "bytes", "log_dirty"]);
        let (extents, rest) = list(rest, &["first", "pages", "offset"]);
        let (checksums, rest) = list(rest, &["checksum"]);
        let (data_at, rest) = read_number(rest);
        let (blobs, _) = list(rest, &["offset", "bytes", "checksum"]);
        let head = Tree::Fields(vec![
            ("layout", layout),
            ("extents", extents),
            ("checksums", checksums),
            ("data_at", Tree::Number(64, data_at)),
            ("blobs", blobs),
        ]);
        let sections = vec![
            ("cpu", Tree::of(&snapshot.needs)),
            ("state", Tree::of(&snapshot.state)),
            ("guest", Tree::of(&snapshot.guest)),
        ];
        let pieces =
            Self { version: word(8), head, sections, data: bytes[data_at as usize..].into() };
        assert!(pieces.assemble() == bytes, "taken apart and put together again it is the same");
        pieces
    }

    /// The whole file; page data lies where the header's length puts it.
    pub fn assemble(&self) -> Vec<u8> {
        let sections = self.encoded_sections();
        let mut head = self.head.clone();
        let mut encoded = head.bytes();
        for _ in 0..3 {
            let end = (PREFIX_BYTES + encoded.len() + sections.len()) as u64;
            if let Some(Tree::Number(_, at)) = head.field("data_at") {
                *at = end.next_multiple_of(ALIGN);
            }
            encoded = head.bytes();
        }
        self.assemble_as_it_is(&[encoded, sections].concat())
    }

    fn assemble_as_it_is(&self, header: &[u8]) -> Vec<u8> {
        let mut file = Vec::with_capacity(PREFIX_BYTES + header.len() + self.data.len() + 4096);
        file.extend(b"DEJAVM\r\n");
        for word in [self.version, header.len() as u32, crc32fast::hash(header)] {
            file.extend(word.to_le_bytes());
        }
        file.extend(crc32fast::hash(&file).to_le_bytes());
        file.extend(header);
        file.resize(file.len().next_multiple_of(ALIGN as usize), 0);
        file.extend(&self.data);
        file
    }

    fn header(&self) -> Vec<u8> {
        [self.head.bytes(), self.encoded_sections()].concat()
    }

    fn encoded_sections(&self) -> Vec<u8> {
        let bytes = |bytes: &[u8]| Tree::Bytes(bytes.into(), None);
        let sections = self.sections.iter().map(|(name, value)| {
            Tree::Fields(vec![("", bytes(name.as_bytes())), ("", bytes(&value.bytes()))])
        });
        Tree::List(sections.collect(), None).bytes()
    }

    /// A file that is wrong somewhere, most often behind checksums that are right.
    pub fn mutant(&self, noise: &mut StdRng) -> Vec<u8> {
        let mut pieces = self.clone();
        match noise.random_range(0..16) {
            0 => {
                mutate(&mut pieces.head, noise);
                pieces.assemble_as_it_is(&pieces.header())
            }
            1 => {
                mutate(&mut pieces.head, noise);
                pieces.assemble()
            }
            2 => {
                let any = noise.random_range(0..pieces.sections.len());
                let other = noise.random_range(0..pieces.sections.len());
                pieces.sections.swap(any, other);
                pieces.assemble()
            }
            // The encoded header as it comes.
            3 | 4 => {
                let mut header = pieces.header();
                scratch(&mut header, noise);
                pieces.assemble_as_it_is(&header)
            }
            // Pages: page tables, the engine's own, the program's.
            5 | 6 => {
                for _ in 0..noise.random_range(1..20) {
                    scratch(&mut pieces.data, noise);
                }
                pieces.assemble()
            }
            7 => {
                let mut file = pieces.assemble();
                match noise.random_range(0..4) {
                    0 => file.truncate(noise.random_range(0..file.len())),
                    1 => file.extend(vec![0; noise.random_range(1..5000)]),
                    2 => scratch(&mut file[..PREFIX_BYTES], noise),
                    _ => scratch(&mut file, noise),
                }
                file
            }
            8 => pieces.with_section("cpu", noise),
            9 | 10 => pieces.with_section("state", noise),
            _ => pieces.with_section("guest", noise),
        }
    }

    fn with_section(&mut self, wanted: &str, noise: &mut StdRng) -> Vec<u8> {
        mutate(self.section(wanted), noise);
        self.assemble()
    }

    /// A section's value.
    pub fn section(&mut self, wanted: &str) -> &mut Tree {
        let found = self.sections.iter_mut().find(|(name, _)| *name == wanted);
        found.map(|(_, value)| value).unwrap()
    }
}

/// Changes a byte, or eight as one number.
fn scratch(bytes: &mut [u8], noise: &mut StdRng) {
    let at = noise.random_range(0..bytes.len());
    let word = bytes.get_mut(at & !7..(at & !7) + 8).filter(|_| noise.random());
    match word {
        Some(word) => {
            let n = u64::from_le_bytes((&*word).try_into().unwrap());
            word.copy_from_slice(&interesting(n, noise).to_le_bytes());
        }
        None => bytes[at] = interesting(u64::from(bytes[at]), noise) as u8,
    }
}

/// Reads a list of structures of numbers with these names.
fn list<'a>(bytes: &'a [u8], names: &[&'static str]) -> (Tree, &'a [u8]) {
    let (count, mut rest) = read_number(bytes);
    let mut items = Vec::new();
    for _ in 0..count {
        let mut fields = Vec::new();
        for name in names {
            let (n, after) = read_number(rest);
            rest = after;
            fields.push((*name, Tree::Number(64, n)));
        }
        items.push(Tree::Fields(fields));
    }
    (Tree::List(items, None), rest)
}
