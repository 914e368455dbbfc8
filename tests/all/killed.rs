//! `kill -9` at any moment loses nothing that was reported, and leaves nothing half written.
//!
//! `DEJAVM_KILLS=N` kills each command N times instead of a few.

use crate::invoke::{dejavm, fuzz, path, seeds};
use crate::support::{build_c, kvm, times};
use dejavm_engine::machine::MachineSnapshot;
use dejavm_engine::snapshot::file;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often to kill: `DEJAVM_KILLS`, else `count`, a fifth of that on a slow host.
fn kills(count: u32) -> u32 {
    let Ok(kills) = std::env::var("DEJAVM_KILLS") else { return times(count, count / 5) };
    kills.parse().expect("DEJAVM_KILLS is a number")
}

/// Runs `command` and kills it after `delay`, if it is still there.
fn kill_after(mut command: Command, delay: Duration) {
    let mut child = command.spawn().unwrap();
    std::thread::sleep(delay);
    // SIGKILL, and only to this child, which has not been waited for.
    child.kill().unwrap();
    child.wait().unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_snapshot_that_is_killed_leaves_the_old_one_or_the_new_one() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = build_c("ends", &["-DHOW_reads", "-static"]);
    // Long enough to write that kills hit it.
    let ballast = folder.path().join("ballast");
    let bytes: Vec<u8> = (0..24_u32 << 20).map(|n| (n % 251) as u8).collect();
    fs::write(&ballast, bytes).unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let target = out.join("s.dejavm");
    let take = |ram: &str| {
        let file = path(&ballast);
        let args = ["snapshot", "--ram", ram, "--file", file, "-o", path(&target), "--"];
        let mut command = dejavm(&[&args[..], &[path(&program)]].concat());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let start = Instant::now();
    assert!(take("32M").status().unwrap().success());
    let whole = start.elapsed();
    let mut noise = StdRng::seed_from_u64(9);
    let (mut before, mut cut, mut replaced) = (32, 0, 0);
    for round in 0..kills(25) {
        let wanted = [64, 128][round as usize % 2];
        let delay = whole.mul_f64(noise.random_range(0.0..1.1));
        kill_after(take(&format!("{wanted}M")), delay);
        let found = MachineSnapshot::open(&target).unwrap_or_else(|e| panic!("{delay:?}: {e}"));
        file::check_data(&target).unwrap_or_else(|e| panic!("{delay:?}: {e}"));
        let ram = (found.ram_bytes() - (16 << 20)) >> 20;
        assert!(ram == before || ram == wanted, "{ram} MiB, {before} before, {wanted} wanted");
        replaced += u32::from(ram == wanted);
        before = ram;
        let left = names(&out).len() - 1;
        assert!(left <= 1, "each kill's leftover goes with the next command: {:?}", names(&out));
        cut += left;
    }
    eprintln!("{cut} kills while it was written, {replaced} after; a whole one takes {whole:?}");
    assert!(take("32M").status().unwrap().success());
    assert_eq!(names(&out), ["s.dejavm"]);
}

/// A campaign's folder, as somebody sees it who looks after each kill.
struct Watched {
    out: PathBuf,
    log: PathBuf,
    /// Everything that was ever there.
    seen: BTreeMap<PathBuf, Vec<u8>>,
}

impl Watched {
    /// Everything that was seen is still there as it was, and everything that was reported is.
    fn look(&mut self) {
        for folder in ["queue", "crashes", "hangs"] {
            let Ok(entries) = fs::read_dir(self.out.join(folder)) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()) {
                // Not a finding: what the kill cut off.
                if path.file_name().unwrap().as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                let bytes = fs::read(&path).unwrap();
                let before = self.seen.entry(path.clone()).or_insert_with(|| bytes.clone());
                assert!(*before == bytes, "{} was changed", path.display());
            }
        }
        for path in self.seen.keys() {
            assert!(path.exists(), "{} is gone", path.display());
        }
        self.check_log();
        self.check_stats();
        let snapshot = self.out.join(".dejavm/snapshot.dejavm");
        if snapshot.exists() {
            file::check_data(&snapshot).unwrap();
        }
    }

    /// What it said that it had found.
    fn check_log(&self) {
        for line in fs::read_to_string(&self.log).unwrap().lines() {
            let crash = line.strip_prefix("new crash: ").and_then(|rest| rest.rsplit_once('('));
            let crash = crash.map(|(_, path)| path.trim_end_matches(')'));
            if let Some(path) = crash.or(line.strip_prefix("new hang: ")) {
                assert!(self.seen.contains_key(Path::new(path)), "{line}");
            }
        }
    }

    /// What its numbers say.
    fn check_stats(&self) {
        let Ok(stats) = fs::read_to_string(self.out.join("fuzzer_stats")) else { return };
        let number = |key: &str| {
            let line = stats.lines().find(|line| line.starts_with(key)).expect(key);
            line.rsplit_once(": ").unwrap().1.parse::<usize>().unwrap()
        };
        for (key, folder) in
            [("corpus_count", "queue"), ("saved_crashes", "crashes"), ("saved_hangs", "hangs")]
        {
            let folder = self.out.join(folder);
            let there = self.seen.keys().filter(|path| path.starts_with(&folder)).count();
            assert!(number(key) <= there, "{key} is {}, and there are {there}", number(key));
        }
    }
}

#[test]
fn a_campaign_that_is_killed_loses_nothing_and_goes_on() {
    let Some(_) = kvm() else { return };
    // Every letter dies in another way, so that there are many crashes.
    let found = kill_campaigns("faults", b"z");
    assert!(found.crashes > 0, "{found:?}");
    // It has many blocks to reach, so that there are many entries.
    let found = kill_campaigns("json", b"{\"a\": [1, true]}");
    assert!(found.entries > 1, "{found:?}");
}

#[derive(Debug)]
#[expect(dead_code, reason = "some of it is only printed")]
struct Found {
    kills: u32,
    /// Files that a kill cut off.
    cut: usize,
    entries: usize,
    crashes: usize,
    hangs: usize,
}

const FOLDERS: [&str; 5] = ["", "queue", "crashes", "hangs", ".dejavm"];

/// Files in a campaign's folder that are not finished.
fn unfinished(out: &Path) -> usize {
    let entries =
        FOLDERS.iter().flat_map(|name| fs::read_dir(out.join(name)).into_iter().flatten());
    let is_cut = |name: &[u8]| {
        name.starts_with(b".dejavm-unfinished") || name.starts_with(b"snapshot.dejavm.tmp")
    };
    entries.flatten().filter(|entry| is_cut(entry.file_name().as_encoded_bytes())).count()
}

/// Kills a campaign on the guest `name` again and again, each time the one that went on.
fn kill_campaigns(name: &str, seed: &[u8]) -> Found {
    let folder = tempfile::tempdir().unwrap();
    let seeds = seeds(folder.path(), seed);
    let (out, log) = (folder.path().join("out"), folder.path().join("log"));
    let program = build_c(name, &[]);
    let campaign = |more: &str| {
        let mut command = fuzz(&seeds, &out, &format!("-t 20 {more}"), &[path(&program)]);
        command
            .stdout(Stdio::null())
            .stderr(fs::File::options().append(true).create(true).open(&log).unwrap());
        command
    };
    let mut watched = Watched { out: out.clone(), log: log.clone(), seen: BTreeMap::new() };
    let mut noise = StdRng::seed_from_u64(7);
    let (mut cut, kills) = (0, kills(13));
    for _ in 0..kills {
        // Most of what is written is written in the first tenths of a second.
        let delay = Duration::from_millis(match noise.random_range(0..3) {
            0 => noise.random_range(0..100),
            1 => noise.random_range(50..600),
            _ => noise.random_range(300..1500),
        });
        kill_after(campaign("-V 60"), delay);
        cut += unfinished(&out);
        watched.look();
    }
    // Long enough to find something where every kill came too early.
    let end = campaign("-E 5000").status().unwrap();
    assert!(end.success(), "{}", fs::read_to_string(&log).unwrap());
    watched.look();
    assert_eq!(unfinished(&out), 0, "what kills cut off goes");
    let count = |name: &str| names(&out.join(name)).len();
    let (entries, crashes, hangs) = (count("queue"), count("crashes"), count("hangs"));
    let found = Found { kills, cut, entries, crashes, hangs };
    eprintln!("{name}: {found:?}");
    found
}
