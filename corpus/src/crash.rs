//! Which crashes are the same, and what is known about each.
//!
//! Two crashes are the same when their kind and the top frames of their stacks are. The file name
//! of a crash holds both, so folding goes on after a restart even if nothing else is left. The
//! facts that do not fit into a name are kept in one JSON file, away from the inputs, since AFL's
//! tools take every file in `crashes/` for an input. Never decides whether a crash is believed.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::names::{self, CrashKey, Parsed};
use crate::out::Stored;
use crate::target::CrashFacts;

/// Frames by which crashes differ, innermost first. Deeper frames differ with the way to a bug.
const FRAMES_COMPARED: usize = 5;

/// Where FNV-1a starts, and what it multiplies by, with 32 bits. Names in old folders must keep
/// their meaning, so the hash is one that no library can change.
const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// The key of a crash.
pub(crate) fn key(facts: &CrashFacts) -> CrashKey {
    let frames = facts.stack.iter().take(FRAMES_COMPARED);
    let bytes = frames.flat_map(|frame| frame.bytes().chain([0]));
    let hash = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME);
    CrashKey { kind: names::part(&facts.kind), stack: bytes.fold(FNV_OFFSET, hash) }
}

/// One unique crash, as kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CrashRecord {
    /// Name of the input in `crashes/`.
    pub(crate) file: String,
    /// Kind of fault.
    pub(crate) kind: String,
    /// One line for people.
    pub(crate) summary: String,
    /// Call stack, innermost frame first.
    pub(crate) stack: Vec<String>,
    /// The rule by which it is a crash, where that is not a fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    /// Runs that crashed like this.
    pub(crate) times: u64,
}

/// All unique crashes of a campaign.
#[derive(Debug, Default)]
pub(crate) struct CrashBook {
    records: Vec<CrashRecord>,
    known: HashMap<CrashKey, usize>,
    next_id: u64,
}

/// A book that was read back.
#[derive(Debug)]
pub(crate) struct ReadBook {
    pub(crate) book: CrashBook,
    /// Whether its JSON was damaged: the book is made of the file names alone then.
    pub(crate) is_damaged: bool,
}

impl CrashBook {
    /// Reads the book back: `json` is what [`to_json`](Self::to_json) wrote, `files` are those in
    /// `crashes/`. A file without a record was saved just before a kill; a record without a file
    /// was removed by its owner and is not reported again.
    pub(crate) fn read(json: Option<&[u8]>, files: &[Stored]) -> ReadBook {
        let (records, is_damaged) = match json.map(serde_json::from_slice::<Vec<CrashRecord>>) {
            None => (Vec::new(), false),
            Some(Ok(records)) => (records, false),
            Some(Err(_)) => (Vec::new(), true),
        };
        let mut book = Self::default();
        for record in records {
            if let Some(parsed) = names::parse(&record.file) {
                book.insert(&parsed, |_| record);
            }
        }
        for Stored { name, parsed, .. } in files {
            book.insert(parsed, |key| CrashRecord {
                file: name.clone(),
                summary: key.kind.clone(),
                kind: key.kind.clone(),
                stack: Vec::new(),
                rule: None,
                times: 1,
            });
        }
        ReadBook { book, is_damaged }
    }

    /// Adds the record of a crash unless it is known. Its number is never given out again.
    fn insert(&mut self, parsed: &Parsed, record: impl FnOnce(&CrashKey) -> CrashRecord) {
        self.next_id = self.next_id.max(parsed.id.saturating_add(1));
        let Some(key) = &parsed.crash else { return };
        if !self.known.contains_key(key) {
            self.known.insert(key.clone(), self.records.len());
            self.records.push(record(key));
        }
    }

    /// Counts one more crash of this key; `false` if it is not known.
    pub(crate) fn fold(&mut self, key: &CrashKey) -> bool {
        let record = self.known.get(key).and_then(|&index| self.records.get_mut(index));
        record.map(|record| record.times = record.times.saturating_add(1)).is_some()
    }

    /// Number for the next new crash.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Adds a new crash, saved as `file`.
    pub(crate) fn add(&mut self, key: CrashKey, facts: &CrashFacts, file: String) {
        self.next_id += 1;
        self.known.insert(key, self.records.len());
        self.records.push(CrashRecord {
            file,
            kind: facts.kind.clone(),
            summary: facts.summary.clone(),
            stack: facts.stack.clone(),
            rule: facts.rule.clone(),
            times: 1,
        });
    }

    /// Number of unique crashes.
    pub(crate) fn unique(&self) -> u64 {
        self.records.len() as u64
    }

    /// Number of crashes, folded ones included.
    pub(crate) fn total(&self) -> u64 {
        self.records.iter().map(|record| record.times).fold(0, u64::saturating_add)
    }

    /// The book as it is kept on disk.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(&self.records)?;
        json.push(b'\n');
        Ok(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(kind: &str, stack: &[&str]) -> CrashFacts {
        CrashFacts {
            kind: kind.to_owned(),
            stack: stack.iter().map(|&frame| frame.to_owned()).collect(),
            summary: "boom".to_owned(),
            rule: None,
        }
    }

    #[test]
    fn tells_crashes_apart_by_kind_and_top_frames() {
        let key = |kind, stack: &[&str]| key(&facts(kind, stack));
        let top = ["a", "b", "c", "d", "e"];
        let deeper = ["a", "b", "c", "d", "e", "f"];
        assert_eq!(key("SIGSEGV", &top), key("SIGSEGV", &deeper));
        assert_ne!(key("SIGSEGV", &top), key("SIGABRT", &top));
        assert_ne!(key("SIGSEGV", &top), key("SIGSEGV", &top[..4]));
        assert_ne!(key("SIGSEGV", &["ab", "c"]), key("SIGSEGV", &["a", "bc"]));
    }

    #[test]
    fn a_hash_keeps_its_value_from_version_to_version() {
        assert_eq!(key(&facts("SIGABRT", &["parse", "main"])).stack, 0xadd0_e0b3);
    }

    #[test]
    fn knows_a_crash_from_its_file_name_alone() {
        let name = "id:000004,sig:SIGABRT,src:000001,time:1,execs:2,op:havoc,stack:0000beef";
        let parsed = names::parse(name).unwrap();
        let file = Stored { path: name.into(), name: name.to_owned(), parsed };
        let ReadBook { mut book, is_damaged } = CrashBook::read(Some(b"{ damaged"), &[file]);
        assert!(is_damaged);
        assert!(book.fold(&CrashKey { kind: "SIGABRT".to_owned(), stack: 0xbeef }));
        assert_eq!((book.next_id(), book.unique(), book.total()), (5, 1, 2));
    }

    #[test]
    fn remembers_a_crash_whose_file_was_removed() {
        let facts = facts("SIGABRT", &["parse"]);
        let key = key(&facts);
        let mut book = CrashBook::default();
        let file = format!("id:000000,sig:SIGABRT,stack:{:08x}", key.stack);
        book.add(key.clone(), &facts, file);
        book.fold(&key);
        let json = book.to_json().unwrap();
        let ReadBook { mut book, is_damaged } = CrashBook::read(Some(&json), &[]);
        assert!(!is_damaged && book.fold(&key));
        assert_eq!((book.next_id(), book.unique(), book.total()), (1, 1, 3));
    }
}
