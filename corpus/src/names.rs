//! File names of a campaign, as AFL++ writes them.
//!
//! `id:000003,src:000001,time:1234,execs:567,op:havoc,+cov`: a name says where an input comes from,
//! and it is enough to continue a campaign. Formats and parses names; never touches a file.

use std::fmt::Write as _;
use std::time::Duration;

/// Longest part of a name that comes from elsewhere, in bytes; keeps names below the 255 bytes
/// that file systems allow.
const PART_MAX: usize = 96;

/// Numbers of files stay below this. A larger one is damage; counting on from it could overflow.
const ID_END: u64 = 1 << 48;

/// Where an input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    /// A seed, by its file name.
    Seed(&'a str),
    /// Made of the queue entry with this number.
    Entry(u64, Operation),
}

/// How an input was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// By random mutations.
    Havoc,
    /// By an operand of a comparison in place of another one.
    InputToState,
}

impl Operation {
    /// As AFL++ calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Havoc => "havoc",
            Self::InputToState => "its",
        }
    }
}

/// When an input was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Run time of the campaign.
    pub(crate) time: Duration,
    /// Executions so far.
    pub(crate) execs: u64,
}

/// Name of a queue entry.
pub(crate) fn queue(id: u64, origin: Origin<'_>, at: Moment) -> String {
    match origin {
        Origin::Seed(_) => format!("{},{}", head(id, None, at, ""), from(origin)),
        Origin::Entry(..) => head(id, Some(origin), at, "") + &operation(origin) + ",+cov",
    }
}

/// Name of a hang.
pub(crate) fn hang(id: u64, origin: Origin<'_>, at: Moment) -> String {
    head(id, Some(origin), at, "") + &operation(origin)
}

/// What makes a crash different from others, as far as its file name says it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CrashKey {
    /// Kind of fault, fit for a file name (see [`part`]).
    pub(crate) kind: String,
    /// Hash of the top of the stack.
    pub(crate) stack: u32,
}

/// Name of a crash.
pub(crate) fn crash(id: u64, key: &CrashKey, origin: Origin<'_>, at: Moment) -> String {
    let mut name = head(id, Some(origin), at, &key.kind) + &operation(origin);
    // Writing to a string cannot fail.
    let _ = write!(name, ",stack:{:08x}", key.stack);
    name
}

fn head(id: u64, origin: Option<Origin<'_>>, at: Moment, kind: &str) -> String {
    let mut name = format!("id:{id:06}");
    if !kind.is_empty() {
        name = name + ",sig:" + kind;
    }
    if let Some(origin) = origin {
        name = name + "," + &from(origin);
    }
    let _ = write!(name, ",time:{},execs:{}", at.time.as_millis(), at.execs);
    name
}

fn from(origin: Origin<'_>) -> String {
    match origin {
        Origin::Seed(name) => format!("orig:{}", part(name)),
        Origin::Entry(id, _) => format!("src:{id:06}"),
    }
}

fn operation(origin: Origin<'_>) -> String {
    match origin {
        Origin::Seed(_) => String::new(),
        Origin::Entry(_, operation) => format!(",op:{}", operation.name()),
    }
}

/// `text` made fit to be part of a name: short, and with nothing that separates names or paths.
pub(crate) fn part(text: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '_' };
    let part: String = text.chars().take(PART_MAX).map(fit).collect();
    if part.is_empty() { "unknown".to_owned() } else { part }
}

/// What a name says; enough to continue a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// Number of the file in its folder.
    pub(crate) id: u64,
    /// Queue entry it was mutated from.
    pub(crate) src: Option<u64>,
    /// Whether it was a seed.
    pub(crate) seed: bool,
    /// Which crash it is, of one.
    pub(crate) crash: Option<CrashKey>,
}

/// Reads a name back; `None` if it is none of ours, nor of another AFL tool.
pub(crate) fn parse(name: &str) -> Option<Parsed> {
    let mut parts = name.split(',');
    let id = parts.next()?.strip_prefix("id:")?.parse().ok().filter(|&id| id < ID_END)?;
    let (mut src, mut seed, mut kind, mut stack) = (None, false, None, None);
    for part in parts {
        match part.split_once(':') {
            // A spliced entry of AFL++ has two parents, `src:000001+000002`.
            Some(("src", value)) => src = value.split('+').next()?.parse().ok(),
            Some(("orig", _)) => seed = true,
            Some(("sig", value)) => kind = Some(value.to_owned()),
            Some(("stack", value)) => stack = u32::from_str_radix(value, 16).ok(),
            _ => {}
        }
    }
    let crash = kind.zip(stack).map(|(kind, stack)| CrashKey { kind, stack });
    Some(Parsed { id, src, seed, crash })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Moment = Moment { time: Duration::from_millis(1234), execs: 567 };

    fn key(kind: &str, stack: u32) -> CrashKey {
        CrashKey { kind: kind.to_owned(), stack }
    }

    #[test]
    fn names_files_as_afl_does() {
        assert_eq!(
            queue(0, Origin::Seed("a.json"), AT),
            "id:000000,time:1234,execs:567,orig:a.json"
        );
        assert_eq!(
            queue(3, Origin::Entry(1, Operation::Havoc), AT),
            "id:000003,src:000001,time:1234,execs:567,op:havoc,+cov"
        );
        assert_eq!(
            crash(0, &key("SIGABRT", 0xbeef), Origin::Entry(12, Operation::Havoc), AT),
            "id:000000,sig:SIGABRT,src:000012,time:1234,execs:567,op:havoc,stack:0000beef"
        );
        assert_eq!(hang(1, Origin::Seed("x"), AT), "id:000001,orig:x,time:1234,execs:567");
    }

    #[test]
    fn reads_its_own_names_back() {
        let key = key("SIGSEGV-write", 0xdead_beef);
        let name = crash(7, &key, Origin::Entry(12, Operation::Havoc), AT);
        let crash = Some(key);
        assert_eq!(parse(&name), Some(Parsed { id: 7, src: Some(12), seed: false, crash }));
        assert!(parse(&queue(0, Origin::Seed("s"), AT)).unwrap().seed);
    }

    #[test]
    fn takes_no_foreign_name_for_its_own() {
        for name in
            ["", "README.txt", "id", "id:", "id:x,src:1", "src:1,id:2", "id:18446744073709551615"]
        {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_hostile_seed_name_stays_one_short_part() {
        let name = queue(0, Origin::Seed(&"../,\n:é".repeat(100)), AT);
        assert!(name.len() < 200);
        assert!(!name.contains(['/', '\n']));
        assert_eq!(name.matches(',').count(), 3);
    }
}
