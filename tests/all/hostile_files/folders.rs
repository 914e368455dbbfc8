//! A campaign's output folder: queue, crashes, numbers, facts, lock; and dictionaries.

use super::mutate::interesting;
use super::{folder, for_each_mutant};
use crate::hostile::noise;
use crate::support::rounds;
use dejavm_corpus::{
    Campaign, CrashFacts, Execution, ExitKind, Options, Recorded, Target, TargetError,
};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Its first bytes decide what an input does.
struct Parser {
    blocks: Vec<u32>,
}

impl Parser {
    fn look(&mut self, input: &[u8]) -> Execution<'_> {
        let block = |at: usize| input.get(at).map_or(0, |byte| u32::from(byte % 16));
        self.blocks = vec![block(0), 16 + block(1), 32 + block(2)];
        let exit_kind = match input {
            [b'c', kind, ..] => ExitKind::Crashed(CrashFacts {
                kind: "SIGSEGV".to_owned(),
                stack: vec![format!("f{}", kind % 4), "main".to_owned()],
                summary: "a crash".to_owned(),
                rule: None,
            }),
            [b'h', ..] => ExitKind::TimedOut,
            _ => ExitKind::Finished,
        };
        Execution { exit_kind, blocks: &self.blocks, duration: Duration::from_micros(5) }
    }
}

impl Target for Parser {
    fn blocks_total(&self) -> usize {
        48
    }

    fn run(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        Ok(self.look(input))
    }

    fn trace(&mut self, input: &[u8]) -> Result<Execution<'_>, TargetError> {
        Ok(self.look(input))
    }

    fn known_blocks(&mut self, _: &[u32]) {}

    fn set_timeout(&mut self, _: Duration) {}
}

fn options(root: &Path, executions: u64) -> Options {
    Options {
        executions: Some(executions),
        seed: Some(1),
        max_len: 64,
        ..Options::new(root.join("seeds"), root.join("out"))
    }
}

fn run(root: &Path, executions: u64) -> Result<(), String> {
    let told = |error: dejavm_corpus::CampaignError| error.to_string();
    let campaign = Campaign::new(options(root, executions)).map_err(told)?;
    campaign.run(&mut Parser { blocks: Vec::new() }, &mut ()).map(drop).map_err(told)
}

/// All files under `folder`, links not followed.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => {
                drop(found.insert(entry.path(), fs::read(entry.path()).unwrap()))
            }
            _ => {}
        }
    }
    found
}

/// Text with a number in it made another one, or bytes changed anywhere.
fn spoil(bytes: &mut Vec<u8>, noise: &mut StdRng) {
    let digits: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at].is_ascii_digit()).collect();
    match noise.random_range(0..4) {
        0 if !digits.is_empty() => {
            let at = digits[noise.random_range(0..digits.len())];
            let end = (at..bytes.len()).find(|&n| !bytes[n].is_ascii_digit());
            let n = interesting(7, noise).to_string();
            bytes.splice(at..end.unwrap_or(bytes.len()), n.into_bytes());
        }
        1 => bytes.truncate(noise.random_range(0..=bytes.len())),
        2 => bytes.extend(std::iter::repeat_n(noise.random::<u8>(), noise.random_range(1..5000))),
        _ => {
            for _ in 0..noise.random_range(1..5) {
                if !bytes.is_empty() {
                    let at = noise.random_range(0..bytes.len());
                    bytes[at] = noise.random();
                }
            }
        }
    }
}

/// Another name for a finding, some of them no names of ours.
fn name(noise: &mut StdRng) -> String {
    let n = interesting(3, noise);
    match noise.random_range(0..6) {
        0 => format!("id:{n}"),
        1 => format!("id:{n:06},src:{},time:{n}", interesting(0, noise)),
        2 => format!("id:000001,sig:{},stack:{n:x}", "\u{1b}[2J".repeat(3)),
        3 => format!("id:{n},src:+++,sig:,stack:"),
        4 => "id:000000,orig:".to_owned() + &"x".repeat(200),
        _ => format!(".{n}"),
    }
}

/// Changes something in the folder, as somebody else might have who sent it.
fn change(root: &Path, victim: &Path, noise: &mut StdRng) {
    let out = root.join("out");
    let all: Vec<_> = files(&out).into_iter().collect();
    let (path, bytes) = &all[noise.random_range(0..all.len())];
    match noise.random_range(0..10) {
        0 => {
            fs::remove_file(path).unwrap();
            symlink(victim, path).unwrap();
        }
        1 => {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }
        2 => fs::remove_file(path).unwrap(),
        3 => {
            let folder = ["queue", "crashes", "hangs"][noise.random_range(0..3)];
            let _ = fs::write(out.join(folder).join(name(noise)), bytes);
        }
        4 => {
            let _ = fs::rename(path, path.with_file_name(name(noise)));
        }
        _ => {
            let mut bytes = bytes.clone();
            spoil(&mut bytes, noise);
            fs::write(path, bytes).unwrap();
        }
    }
}

fn copy(from: &BTreeMap<PathBuf, Vec<u8>>, base: &Path, to: &Path) {
    for (path, bytes) in from {
        let path = to.join(path.strip_prefix(base).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_campaigns_folder_may_hold_anything() {
    let folder = folder();
    let base = folder.path().join("base");
    fs::create_dir_all(base.join("seeds")).unwrap();
    fs::write(base.join("seeds/a"), b"xyz").unwrap();
    fs::write(base.join("seeds/c"), b"c1").unwrap();
    run(&base, 2_000).unwrap();
    let made = files(&base);
    assert!(made.len() > 20, "{:?}", made.keys());
    let victim = folder.path().join("victim");
    fs::write(&victim, b"precious\nwithout an end").unwrap();
    let (mut refused, mut went_on) = (0, 0);
    for_each_mutant(rounds(1_000).into(), |seed| {
        let mut noise = noise(seed);
        let root = folder.path().join("mutant");
        let _ = fs::remove_dir_all(&root);
        copy(&made, &base, &root);
        for _ in 0..noise.random_range(1..4) {
            change(&root, &victim, &mut noise);
        }
        let before = files(&root.join("out"));
        let start = Instant::now();
        let mut done = Ok(());
        let used = allocation_counter::measure(|| done = run(&root, 30));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        assert!(used.bytes_max < 16 << 20, "{} bytes", used.bytes_max);
        match done {
            Ok(()) => went_on += 1,
            Err(text) => {
                refused += 1;
                assert!(!text.is_empty());
            }
        }
        assert_eq!(fs::read(&victim).unwrap(), b"precious\nwithout an end");
        let after = files(&root.join("out"));
        for (path, bytes) in before {
            let is_finding = ["queue", "crashes", "hangs"].iter().any(|name| {
                path.parent().is_some_and(|parent| parent.ends_with(Path::new("out").join(name)))
            });
            let is_ours = path.file_name().unwrap().as_encoded_bytes().starts_with(b".dejavm-");
            if is_finding && !is_ours {
                assert!(after.get(&path) == Some(&bytes), "{} was lost", path.display());
            }
        }
        for path in after.keys() {
            let _ = Recorded::of(path);
        }
    });
    eprintln!("{refused} refused, {went_on} went on");
}

#[test]
fn a_dictionary_may_hold_anything() {
    let folder = folder();
    fs::create_dir_all(folder.path().join("seeds")).unwrap();
    let dictionary = folder.path().join("dictionary");
    let whole = b"# tokens\nkw=\"true\"\n\"\\x00\\\\\\\"\"\nlow@2=\"a\"\n".to_vec();
    for_each_mutant(rounds(2_000).into(), |seed| {
        let mut noise = noise(seed);
        let mut bytes = whole.clone();
        spoil(&mut bytes, &mut noise);
        fs::write(&dictionary, &bytes).unwrap();
        let options =
            Options { dictionaries: vec![dictionary.clone()], ..options(folder.path(), 1) };
        if let Err(error) = Campaign::new(options) {
            assert!(error.to_string().contains("dictionary, line "), "{error}");
        }
    });
}
