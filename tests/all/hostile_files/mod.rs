//! Nothing that a file can hold panics, hangs, or costs more memory than the file's own size
//! explains: it is refused by what is wrong with it, or it is harmless.
//!
//! `DEJAVM_MUTANTS=N` makes N mutants of each base instead of a few thousand, and
//! `DEJAVM_MUTANT_SEED=S` makes the one of that seed alone, which is how a failure is looked at.

mod elves;
mod file;
mod folders;
mod mutate;
mod snapshots;
mod tree;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often the watcher looks whether a mutant is still the same.
const LOOK: Duration = Duration::from_millis(20);
/// So many looks at one mutant are a hang: a minute, where milliseconds are enough. Looks and not
/// time, which goes on while the whole machine stands still.
const HANG: u32 = 3000;

/// A folder in memory, because a mutant is written for each look at it.
fn folder() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    match tempfile::tempdir_in(shared) {
        Ok(folder) => folder,
        Err(_) => tempfile::tempdir().unwrap(),
    }
}

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|n| n.parse().unwrap_or_else(|_| panic!("{name}={n} is no number")))
}

/// Calls `check` with the seed of each of `count` mutants; tells the seeds of those that panicked,
/// and ends the process with the seed of one that hangs, because nothing else ends it.
fn for_each_mutant(count: u64, mut check: impl FnMut(u64)) {
    let (first, last) = match asked("DEJAVM_MUTANT_SEED") {
        Some(seed) => (seed, seed),
        None => (1, asked("DEJAVM_MUTANTS").unwrap_or(count)),
    };
    let current = Arc::new(AtomicU64::new(first));
    let done = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let (current, done) = (Arc::clone(&current), Arc::clone(&done));
        move || watch(&current, &done)
    });
    let mut failed = Vec::new();
    for seed in first..=last {
        current.store(seed, Ordering::Relaxed);
        if catch_unwind(AssertUnwindSafe(|| check(seed))).is_err() {
            failed.push(seed);
            if failed.len() >= 20 {
                break;
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    assert!(failed.is_empty(), "DEJAVM_MUTANT_SEED shows one again: {failed:?}");
}

fn watch(current: &AtomicU64, done: &AtomicBool) {
    let mut seen = (0, 0);
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        let seed = current.load(Ordering::Relaxed);
        seen = if seed == seen.0 { (seed, seen.1 + 1) } else { (seed, 0) };
        if seen.1 > HANG {
            give_up(seed);
        }
    }
}

/// Says which mutant hangs, and where in the kernel each thread is. Straight to standard error: what
/// a test prints is lost with its process.
fn give_up(seed: u64) -> ! {
    let mut text = format!("DEJAVM_MUTANT_SEED={seed} hangs\n");
    for thread in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |name| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let (name, stat, call) = (read("comm"), read("stat"), read("syscall"));
        text += &format!("{}: {}in {call}{}", name.trim(), stat, read("stack"));
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
    std::process::abort();
}
