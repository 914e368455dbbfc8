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

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What one mutant may take; it is milliseconds.
const HANG: Duration = Duration::from_secs(60);

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
    let mut since = (0, Instant::now());
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        let seed = current.load(Ordering::Relaxed);
        if seed != since.0 {
            since = (seed, Instant::now());
        }
        if since.1.elapsed() > HANG {
            eprintln!("mutant {seed} hangs");
            std::process::abort();
        }
    }
}
