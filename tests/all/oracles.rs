//! What is a crash besides a signal: exit statuses, words in the output, output and memory beyond
//! their limits. By batches as by runs of their own, and again by `repro`, which is not told.

use crate::batch::batch_of;
use crate::invoke::{fuzz, path, run, seeds, text};
use crate::support::{build_c, kvm, limit, machine, spec};
use dejavm_engine::machine::{BatchOptions, BatchReport, OutputStream, OutputWatch};
use dejavm_engine::outcome::Outcome;
use std::fs;
use std::path::{Path, PathBuf};

/// A campaign that does not wait for 16 MiB of output again and again.
const QUICK: &str = "-s 1 -E 1200 --verify-every 400 --output-limit 64K";

/// The crashes of a campaign on `oracles.c`, by name, in order.
fn crashes(folder: &Path, options: &str) -> Vec<PathBuf> {
    let (out, words) = (folder.join("out"), folder.join("words"));
    let program = build_c("oracles", &[]);
    // What it can do is told by one letter; which, a dictionary tells.
    let lines = b"xyzeEnoOm".iter().map(|letter| format!("\"{}\"\n", char::from(*letter)));
    fs::write(&words, lines.collect::<String>()).unwrap();
    let options = format!("{options} -x {}", path(&words));
    let done = fuzz(&seeds(folder, b"a"), &out, &options, &[path(&program)]).output().unwrap();
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
        let options = format!("{QUICK} --crash-exit 3 --rewind {rewind}");
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

#[test]
fn text_in_the_output_can_be_a_crash_in_batches_too() {
    let Some(_) = kvm() else { return };
    for rewind in ["agent", "lazy"] {
        for (pattern, first, words) in [
            ("bad.+magic", b"eE", ["reproduced: text", "bad magic"]),
            ("bad.magic.12[^a-z]*J", b"EE", ["reproduced: text", "bad magic 12\\u{1b}[2J"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let rule = format!("--crash-text {pattern} --rewind {rewind}");
            let found = crashes(folder.path(), &format!("{QUICK} {rule}"));
            let [crash] = of_kind(&found, "text")[..] else { panic!("{rule}: {found:?}") };
            assert!(first.contains(&fs::read(crash).unwrap()[0]), "{rule}: {found:?}");
            assert_reproduces(crash, &words);
            assert_reproduces(crash, &["complain"]);
        }
    }
}

/// Looks for one line, and must see each byte once.
#[derive(Debug, Default)]
struct Line {
    seen: Vec<u8>,
}

impl OutputWatch for Line {
    fn wrote(&mut self, _: OutputStream, text: &[u8]) -> bool {
        self.seen.extend_from_slice(text);
        self.seen.ends_with(b"0x7f\n")
    }

    fn rewound(&mut self) {
        self.seen.clear();
    }
}

#[test]
fn a_batch_shows_what_its_runs_write_and_ends_where_that_is_what_is_looked_for() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("oracles", &[]), &[]));
    machine.watch_output(Box::new(Line::default())).unwrap();
    let exited = Some(Outcome::Exited { status: 0 });
    let mut report = BatchReport::default();
    for stop_at_finding in [true, false] {
        let options =
            BatchOptions { limit: limit().time, stop_at_finding, ..BatchOptions::default() };
        for round in 0..20 {
            let batch = batch_of([&b"a"[..], b"n", b"E", b"e", b"a"]);
            machine.run_batch(&batch, options, &mut report).unwrap();
            let (found, fine) = (Some(Outcome::OutputMatched), exited.clone());
            let all = [fine.clone(), fine.clone(), fine.clone(), found, fine];
            let expected = if stop_at_finding { &all[..4] } else { &all[..] };
            assert_eq!(report.runs, expected, "round {round}");
            assert_eq!(machine.verify().unwrap(), [], "round {round}");
        }
    }
    let alone = machine.run(b"e", limit()).unwrap();
    assert_eq!(alone.outcome, Outcome::OutputMatched);
    assert_eq!(machine.stderr(), b"warning: bad magic 0x7f\n");
    machine.rewind().unwrap();
    assert_eq!(machine.verify().unwrap(), []);
}

#[test]
fn memory_and_output_beyond_their_limits_are_crashes() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let found = crashes(folder.path(), &format!("{QUICK} --rss-limit 32"));
    for (kind, first, words) in [
        ("OOM", &b"m"[..], ["reproduced: OOM", "memory limit"]),
        ("output", b"oO", ["reproduced: output", "print_for_ever"]),
    ] {
        let [crash] = of_kind(&found, kind)[..] else { panic!("{kind}: {found:?}") };
        assert!(first.contains(&fs::read(crash).unwrap()[0]), "{kind}: {found:?}");
        assert_reproduces(crash, &words);
    }
    let limits = ["--rss-limit 1", "--crash-text (", "--crash-text a*", "--crash-exit 256"];
    for options in limits {
        let out = folder.path().join("refused");
        let program = build_c("oracles", &[]);
        let seeds = seeds(folder.path(), b"a");
        let options = format!("-E 10 {options}");
        let done = fuzz(&seeds, &out, &options, &[path(&program)]).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{options}: {}", text(&done.stderr));
    }
}

#[test]
fn limits_hold_in_batches_as_in_runs_of_their_own() {
    let Some(system) = kvm() else { return };
    let mut machine = machine(&system, &spec(&build_c("oracles", &[]), &[]));
    machine.limit_memory(32 << 20).unwrap();
    // Less than a batch keeps to itself otherwise.
    machine.limit_output(16).unwrap();
    let expected = [
        (&b"a"[..], Outcome::Exited { status: 0 }),
        (b"m", Outcome::OutOfMemory),
        (b"n", Outcome::Exited { status: 0 }),
        (b"e", Outcome::OutputLimit),
        (b"o", Outcome::OutputLimit),
    ];
    let mut report = BatchReport::default();
    let options = BatchOptions { limit: limit().time, ..BatchOptions::default() };
    for round in 0..20 {
        let batch = batch_of(expected.iter().map(|(input, _)| *input));
        machine.run_batch(&batch, options, &mut report).unwrap();
        for ((input, expected), run) in expected.iter().zip(&report.runs) {
            assert_eq!(run.as_ref(), Some(expected), "round {round}: {input:?}");
        }
        assert_eq!(machine.verify().unwrap(), [], "round {round}");
    }
    for (input, expected) in &expected {
        assert_eq!(machine.run(input, limit()).unwrap().outcome, *expected, "{input:?}");
        machine.rewind().unwrap();
    }
    assert!(machine.limit_memory(4096).is_err(), "it has more already");
}

#[test]
fn output_without_end_is_a_crash_even_without_a_limit_that_was_asked_for() {
    let Some(_) = kvm() else { return };
    let folder = tempfile::tempdir().unwrap();
    let found = crashes(folder.path(), "-s 1 -E 1000");
    let [crash] = of_kind(&found, "output")[..] else { panic!("{found:?}") };
    assert_reproduces(crash, &["reproduced: output", "print_for_ever"]);
}
