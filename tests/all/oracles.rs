//! What is a crash besides a signal: exit statuses, words in the output, output and memory beyond
//! their limits. By batches as by runs of their own, and again by `repro`, which is not told.

use crate::batch::batch_of;
use crate::invoke::{fuzz, path, run, seeds, text};
use crate::support::{build_c, kvm, limit, machine, spec};
use dejavm_engine::machine::{BatchOptions, BatchReport};
use dejavm_engine::outcome::Outcome;
use std::fs;
use std::path::{Path, PathBuf};

/// The crashes of a campaign on `oracles.c`, by name, in order.
fn crashes(folder: &Path, options: &str) -> Vec<PathBuf> {
    let out = folder.join("out");
    let program = build_c("oracles", &[]);
    let done = fuzz(&seeds(folder, b"a"), &out, options, &[path(&program)]).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let found = fs::read_dir(out.join("crashes")).unwrap().map(|file| file.unwrap().path());
    let mut found: Vec<_> = found.filter(|path| !path.ends_with("README.txt")).collect();
    found.sort();
    found
}

/// Those of `files` whose kind is `kind`.
fn of_kind<'f>(files: &'f [PathBuf], kind: &str) -> Vec<&'f Path> {
    let part = format!(",sig:{kind},");
    files.iter().map(PathBuf::as_path).filter(|file| path(file).contains(&part)).collect()
}

/// `repro` brings the crash back, by its record and, out of its folder, by its name.
fn assert_reproduces(crash: &Path, words: &[&str]) {
    let back = run(&["repro", path(crash)]);
    let told = text(&back.stdout) + &text(&back.stderr);
    assert_eq!(back.status.code(), Some(0), "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is not in {told}");
    }
    assert!(!told.contains('\x1b'), "nothing that commands a terminal: {told:?}");
}

#[test]
fn an_exit_status_can_be_a_crash_and_each_place_that_exits_so_is_one() {
    let Some(_) = kvm() else { return };
    for rewind in ["agent", "lazy"] {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("-s 1 -E 6000 --verify-every 2000 --crash-exit 3 --rewind {rewind}");
        let found = crashes(folder.path(), &options);
        let exits = of_kind(&found, "exit-3");
        assert_eq!(exits.len(), 2, "{rewind}: {found:?}");
        let places = [&b'x', &b'y'].map(|first| {
            let of = exits.iter().find(|file| fs::read(file).unwrap().first() == Some(first));
            of.unwrap_or_else(|| panic!("{rewind}: {found:?}"))
        });
        assert_reproduces(places[0], &["reproduced: exit-3", "one_place"]);
        assert_reproduces(places[1], &["reproduced: exit-3", "another_place"]);
        // Out of its folder a crash still says by its name what it is.
        let moved = folder.path().join(places[0].file_name().unwrap());
        fs::rename(places[0], &moved).unwrap();
        let snapshot = folder.path().join("out/.dejavm/snapshot.dejavm");
        let back = run(&["repro", "--snapshot", path(&snapshot), path(&moved)]);
        assert_eq!(back.status.code(), Some(0), "{}", text(&back.stdout));
    }
}

#[test]
fn a_batch_ends_at_an_exit_with_a_status_that_is_a_finding_and_not_at_another() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("oracles", &[]), &[]));
    let mut report = BatchReport::default();
    let finding_statuses = [3, 255].into_iter().collect();
    let options = BatchOptions { limit: limit().time, stop_at_finding: true, finding_statuses };
    let batch = batch_of([&b"a"[..], b"z", b"a", b"x", b"a"]);
    for round in 0..20 {
        machine.run_batch(&batch, options, &mut report).unwrap();
        let exited = |status| Some(Outcome::Exited { status });
        assert_eq!(report.runs, [exited(0), exited(4), exited(0), exited(3)], "round {round}");
        assert!(!report.is_distrusted);
        assert_eq!(machine.verify().unwrap(), [], "round {round}");
    }
}
