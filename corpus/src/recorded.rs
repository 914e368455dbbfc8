//! What a campaign recorded about one of its crashes, for those who replay it.
//!
//! The name of a crash file says what sets the crash apart; the campaign's folder, if the file
//! still lies in one, says the rest. Never runs anything, and writes nothing.

use std::path::Path;

use crate::crash::{self, CrashRecord};
use crate::names::{self, CrashKey};
use crate::out::{self, OutError};
use crate::target::CrashFacts;

/// A crash as its campaign recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    key: CrashKey,
    /// The facts, unless the file was taken out of its folder, or the campaign was killed before
    /// it could write them down.
    pub facts: Option<CrashFacts>,
}

impl Recorded {
    /// What is recorded about the crash whose input is the file `path`; `None` when its name is
    /// not one that a campaign gives to a crash.
    ///
    /// # Errors
    ///
    /// The campaign's record of crashes exists and cannot be read.
    pub fn of(path: &Path) -> Result<Option<Self>, OutError> {
        let Some(name) = path.file_name().map(|name| name.to_string_lossy()) else {
            return Ok(None);
        };
        let Some(key) = names::parse(&name).and_then(|parsed| parsed.crash) else {
            return Ok(None);
        };
        let records = match path.parent().and_then(Path::parent) {
            Some(root) => out::read_if_exists(&out::crash_facts(root))?,
            None => None,
        };
        // A damaged record is no reason not to replay: the name is enough to compare with.
        let records: Vec<CrashRecord> =
            records.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        let facts = records.into_iter().find(|record| record.file == name).map(|record| {
            let CrashRecord { kind, stack, summary, rule, .. } = record;
            CrashFacts { kind, stack, summary, rule }
        });
        Ok(Some(Self { key, facts }))
    }

    /// The kind of fault, as the file's name has it.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.key.kind
    }

    /// Whether a campaign would fold a crash with these facts into the recorded one: the same
    /// kind of fault at the same place.
    #[must_use]
    pub fn is_same_as(&self, facts: &CrashFacts) -> bool {
        crash::key(facts) == self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const NAME: &str = "id:000004,sig:SIGABRT,src:000001,time:1,execs:2,op:havoc,stack:add0e0b3";

    fn facts(stack: &[&str]) -> CrashFacts {
        CrashFacts {
            kind: "SIGABRT".to_owned(),
            stack: stack.iter().map(|&frame| frame.to_owned()).collect(),
            summary: "boom".to_owned(),
            rule: None,
        }
    }

    #[test]
    fn a_crash_is_known_by_its_name_alone() {
        let recorded = Recorded::of(Path::new(NAME)).unwrap().unwrap();
        assert!(recorded.is_same_as(&facts(&["parse", "main"])));
        assert!(!recorded.is_same_as(&facts(&["other", "main"])));
        assert_eq!(recorded.kind(), "SIGABRT");
        assert_eq!(recorded.facts, None);
    }

    #[test]
    fn the_folder_has_its_facts_even_beside_damage() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["crashes", ".dejavm"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let path = folder.path().join("crashes").join(NAME);
        let book = out::crash_facts(folder.path());
        let json = format!(
            r#"[{{"file":"{NAME}","kind":"SIGABRT","summary":"boom","stack":["parse"],"times":3}}]"#
        );
        fs::write(&book, json).unwrap();
        let recorded = Recorded::of(&path).unwrap().unwrap();
        assert_eq!(recorded.facts, Some(facts(&["parse"])));
        fs::write(&book, "[{").unwrap();
        assert_eq!(Recorded::of(&path).unwrap().unwrap().facts, None);
    }

    #[test]
    fn a_file_of_another_name_is_no_recorded_crash() {
        for name in ["", "seed.json", "id:000001,src:000000,time:1,execs:2,op:havoc,+cov"] {
            assert_eq!(Recorded::of(Path::new(name)).unwrap(), None, "{name}");
        }
    }
}
