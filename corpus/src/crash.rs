//! Which crashes are the same, and what is known about each.
//!
//! Two crashes are the same when their kind and the top frames of their stacks are. The file name
//! of a crash holds both, so folding goes on after a restart even if nothing else is left. The
//! facts that do not fit into a name are kept in one JSON file, away from the inputs, since AFL's
//! tools take every file in `crashes/` for an input. Never decides whether a crash is believed.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::names::{self, Parsed};
use crate::target::CrashFacts;

/// Frames that tell crashes apart, innermost first. Deeper frames differ with the way to a bug.
const FRAMES_COMPARED: usize = 5;

/// What makes a crash different from others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CrashKey {
    /// Kind of fault, fit for a file name.
    pub(crate) kind: String,
    /// Hash of the top of the stack.
    pub(crate) stack: u32,
}

impl CrashKey {
    /// The key of a crash.
    pub(crate) fn of(facts: &CrashFacts) -> Self {
        let mut hash = 0x811c_9dc5_u32;
        for frame in facts.stack.iter().take(FRAMES_COMPARED) {
            // FNV-1a: names in old folders must keep their meaning, so no hash that may change.
            for byte in frame.bytes().chain([0]) {
                hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            }
        }
        Self { kind: names::part(&facts.kind), stack: hash }
    }
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

impl CrashBook {
    /// Reads the book back: `json` is what [`to_json`](Self::to_json) wrote, `files` are the names
    /// in `crashes/`. A file without a record was saved just before a kill; a record without a
    /// file was removed by its owner and is not reported again. The second value is false if
    /// `json` is damaged; the names alone are used then.
    pub(crate) fn read<'a>(
        json: Option<&[u8]>,
        files: impl Iterator<Item = (&'a str, &'a Parsed)>,
    ) -> (Self, bool) {
        let records: Result<Vec<CrashRecord>, _> =
            json.map_or(Ok(Vec::new()), serde_json::from_slice);
        let sound = records.is_ok();
        let mut book = Self::default();
        for record in records.unwrap_or_default() {
            if let Some(parsed) = names::parse(&record.file) {
                book.insert(record, &parsed);
            }
        }
        for (file, parsed) in files {
            let kind = parsed.crash.as_ref().map_or(String::new(), |crash| crash.0.clone());
            let record = CrashRecord {
                file: file.to_owned(),
                summary: kind.clone(),
                kind,
                stack: Vec::new(),
                times: 1,
            };
            book.insert(record, parsed);
        }
        (book, sound)
    }

    /// Adds a record unless it is known. Its number is never given out again.
    fn insert(&mut self, record: CrashRecord, parsed: &Parsed) {
        self.next_id = self.next_id.max(parsed.id.saturating_add(1));
        if let Some((kind, stack)) = parsed.crash.clone() {
            let index = self.records.len();
            let mut new = false;
            self.known.entry(CrashKey { kind, stack }).or_insert_with(|| {
                new = true;
                index
            });
            if new {
                self.records.push(record);
            }
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
        }
    }

    #[test]
    fn tells_crashes_apart_by_kind_and_top_frames() {
        let key = |kind, stack: &[&str]| CrashKey::of(&facts(kind, stack));
        let top = ["a", "b", "c", "d", "e"];
        let deeper = ["a", "b", "c", "d", "e", "f"];
        assert_eq!(key("SIGSEGV", &top), key("SIGSEGV", &deeper));
        assert_ne!(key("SIGSEGV", &top), key("SIGABRT", &top));
        assert_ne!(key("SIGSEGV", &top), key("SIGSEGV", &top[..4]));
        assert_ne!(key("SIGSEGV", &["ab", "c"]), key("SIGSEGV", &["a", "bc"]));
    }

    #[test]
    fn a_hash_keeps_its_value_from_version_to_version() {
        assert_eq!(CrashKey::of(&facts("SIGABRT", &["parse", "main"])).stack, 0xadd0_e0b3);
    }

    #[test]
    fn knows_a_crash_from_its_file_name_alone() {
        let name = "id:000004,sig:SIGABRT,src:000001,time:1,execs:2,op:havoc,stack:0000beef";
        let parsed = names::parse(name).unwrap();
        let (mut book, sound) = CrashBook::read(Some(b"{ damaged"), [(name, &parsed)].into_iter());
        assert!(!sound);
        assert!(book.fold(&CrashKey { kind: "SIGABRT".to_owned(), stack: 0xbeef }));
        assert_eq!((book.next_id(), book.unique(), book.total()), (5, 1, 2));
    }

    #[test]
    fn remembers_a_crash_whose_file_was_removed() {
        let facts = facts("SIGABRT", &["parse"]);
        let key = CrashKey::of(&facts);
        let mut book = CrashBook::default();
        let file = format!("id:000000,sig:SIGABRT,stack:{:08x}", key.stack);
        book.add(key.clone(), &facts, file);
        book.fold(&key);
        let json = book.to_json().unwrap();
        let (mut book, sound) = CrashBook::read(Some(&json), [].into_iter());
        assert!(sound && book.fold(&key));
        assert_eq!((book.next_id(), book.unique(), book.total()), (1, 1, 3));
    }
}
